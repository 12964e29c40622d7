"""Recipes in and out of other systems: BatchML (B2MML V0700) both ways. Pure: files are the command's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from typing import Final

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.recipe import Recipe, read_recipe, seal
from edge.exchange.batchml import NAMESPACE, Found, Kind, as_tree, content_of, differences, is_ours, stated_seal
from edge.exchange.draft import as_yaml, one_line
from edge.exchange.foreign import FOUND_MAX, read_foreign
from edge.exchange.header import Approved, take_header, with_header
from edge.exchange.markup import BYTES_MAX, Node, read_markup, write_markup

__all__ = ["BYTES_MAX", "Approved", "Draft", "Kind", "Unmapped", "export", "read"]

_NAMESPACE: Final = re.compile(
    r"https?://www\.(?:mesa|wbf)\.org/xml/(?:b2mml|batchml)(?:-(v[0-9]{2,4}))?", re.IGNORECASE
)
APPROVALS_TOLD_MAX: Final = 100
_RECIPES: Final = {"MasterRecipe": "master", "GRecipe": "general", "Recipe": "general"}


@dataclass(frozen=True, slots=True)
class Unmapped:
    """One thing of the file that the draft does not hold, or that a person must look at."""

    path: str
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What a BatchML file became. `text` is the recipe's file; nothing in it is approved.

    `exact`: it is a recipe that Lineside exported, its seal is the one it had then, and nothing else was added."""

    text: str
    name: str
    origin: str
    exact: bool
    remarks: tuple[str, ...]
    unmapped: tuple[Unmapped, ...]
    approvals: tuple[Approved, ...] = ()
    """Who signed it where it comes from, as the file says."""

    def as_json(self) -> dict[str, object]:
        """The draft for machines, without its text."""
        return {**asdict(self), "unmapped": [asdict(one) for one in self.unmapped], "text": len(self.text)}


def export(recipe: Recipe, kind: Kind = "master", approvals: Sequence[Approved] = ()) -> bytes:
    """The recipe as a BatchML V0700 document: a master recipe, with the history of its approval in the header, or a
    general recipe (ISA-88 part 3), which has no such header.

    Raises `exchange.character` and `exchange.too_large`."""
    return write_markup(with_header(as_tree(recipe, kind), approvals), NAMESPACE)


def read(data: bytes, name: str, recipe_id: str = "") -> Draft:
    """The recipe in a BatchML document as a draft; with several in it, the one called `recipe_id`.

    Raises `exchange.*`: not plain XML, not BatchML, no recipe in it or several, beyond a bound."""
    namespace, root = read_markup(data)
    matched = _NAMESPACE.fullmatch(namespace.strip())
    if matched is None:
        raise LinesideError(
            "exchange.foreign",
            f"The file is not BatchML: its root is {root.name[:60]!r} in the namespace {namespace[:100]!r}.",
            todo="Export the recipe as BatchML or B2MML (namespace http://www.mesa.org/xml/B2MML).",
        )
    version = (matched[1] or "V0700").upper()
    recipe, path = _chosen(root, version, recipe_id)
    kind: Kind = "general" if _RECIPES[recipe.name] == "general" else "master"
    said = recipe.said("ID")
    origin = one_line(f"BatchML {version}, {kind} recipe {said[:100]!r}")
    remarks = []
    if matched[1]:
        remarks.append(
            f"The file is in an older namespace, {version} ({namespace.strip()}). Its elements are read by their "
            "names, which later versions kept; look at the order of steps and at units."
        )
    found: list[Found] = []
    more = 0
    exact = False
    head = [f"Draft, brought in from {one_line(name)}: {origin}.", "Nothing in it is approved."]
    approvals: tuple[Approved, ...] = ()
    if is_ours(recipe):
        approvals = take_header(recipe)
        head += [f"Signed where it comes from: {one_line(one.says)}" for one in approvals[:APPROVALS_TOLD_MAX]]
        content = content_of(recipe, kind)
        text = as_yaml(content)
        try:
            brought = read_recipe(text.encode(), name).recipe
        except LinesideError as refusal:
            remarks.append(f"It was changed since its export, and is not a whole recipe now: {refusal.what}")
        else:
            whole = as_tree(brought, kind)
            if not _alone(root):
                whole = whole.first("MasterRecipe") or whole
            every = differences(root if _alone(root) else recipe, whole)
            found, more = list(islice(every, FOUND_MAX)), sum(1 for _ in every)
            exact = seal(brought) == stated_seal(recipe) and not found
            if not exact:
                remarks.append("It was changed since its export. What does not fit the recipe is in the report.")
        text = as_yaml(content, [*head, f"Its seal at its export: {one_line(stated_seal(recipe))}"])
    else:
        foreign = read_foreign(recipe, kind, path)
        found, more = foreign.found, foreign.more
        head.append("What could not be mapped is in the report. Look for FILL IN, then: lineside recipe check")
        text = as_yaml(foreign.content, head, foreign.comments)
    unmapped = [Unmapped(one_line(at), one_line(what), why) for at, what, why in found]
    if more:
        unmapped.append(Unmapped(path, f"{more} more", "The report ends here."))
    return Draft(text, said, origin, exact, tuple(remarks), tuple(unmapped), approvals)


def _alone(root: Node) -> bool:
    """Whether the file is one recipe, as an export is."""
    return root.name in ("BatchInformation", "GRecipe") and len(list(_recipes(root, root.name))) == 1


def _chosen(root: Node, version: str, recipe_id: str) -> tuple[Node, str]:
    found = list(_recipes(root, f"/{root.name}"))
    if not found:
        raise LinesideError(
            "exchange.no_recipe",
            f"The file is B2MML {version}, but there is no master or general recipe in it: its root is "
            f"{root.name[:60]!r}.",
            todo="Export the recipe itself; schedules, control recipes and batch records are not recipes.",
        )
    if recipe_id or len(found) > 1:
        names = [recipe.said("ID") for recipe, _ in found]
        matching = [one for one, name in zip(found, names, strict=True) if name == recipe_id]
        if len(matching) != 1:
            raise LinesideError(
                "exchange.several",
                f"There is not one recipe called {recipe_id!r} in the file, but {len(matching)}."
                if recipe_id
                else f"The file holds {len(found)} recipes.",
                todo=f"Say which one with --recipe. It holds: {', '.join(one[:60] for one in names[:40])}.",
            )
        found = matching
    return found[0]


def _recipes(node: Node, path: str) -> list[tuple[Node, str]]:
    """The recipes in a message, however it wraps them."""
    if node.name in _RECIPES and (node.name != "Recipe" or path.count("GRecipeInformation")):
        return [(node, path)]
    if node.name.removeprefix("{").partition("}")[0] != node.name.removeprefix("{"):
        return []  # of another namespace
    wrappers = ("BatchInformation", "GRecipeInformation", "DataArea")
    inner = [one for one in node.children if one.name in _RECIPES or one.name in wrappers]
    return [found for one in inner for found in _recipes(one, f"{path}/{one.name}")]
