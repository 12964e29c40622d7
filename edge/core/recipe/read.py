"""From a file's bytes to a recipe with positions, and the seal that names a recipe's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

import orjson
from pydantic_core import ErrorDetails

from edge.core.document import Document, Path, closest, read_document, validate
from edge.core.errors import LinesideError, Place
from edge.core.recipe.model import Recipe, Step

_DOMAIN: Final = b"lineside.recipe.1\n"
STEPS_MAX: Final = 1_000
PHASES: Final = tuple(get_args(phase.model_fields["phase"].annotation)[0] for phase in get_args(get_args(Step)[0]))


@dataclass(frozen=True, slots=True)
class RecipeDocument:
    """A recipe and where each part of it stands in its file."""

    recipe: Recipe
    document: Document

    def place(self, path: Sequence[str | int] = ()) -> Place:
        """Where `path` (keys and list indexes from the top) stands."""
        return self.document.place(path)

    def steps(self) -> Iterator[tuple[Path, Step]]:
        """Every step with its path, in the order of the file; a step whose id stands twice comes twice."""
        for u, procedure in enumerate(self.recipe.procedure):
            for o, operation in enumerate(procedure.operations):
                yield from _walk(("procedure", u, "operations", o, "steps"), operation.steps)


def _walk(path: Path, steps: Sequence[Step]) -> Iterator[tuple[Path, Step]]:
    for index, step in enumerate(steps):
        here = (*path, index)
        yield here, step
        for inner, sequence in step.inner():
            yield from _walk((*here, *inner), sequence)


def read_recipe(data: bytes, name: str) -> RecipeDocument:
    """Read a recipe's file. What the recipe means is `check_recipe`'s to judge.

    Raises `LinesideError` (`document.*`, `recipe.unknown_phase`, `recipe.too_many_steps`) with every finding about
    the shape: the first, the others in `others`.
    """
    document = read_document(data, name)
    found = RecipeDocument(validate(document, Recipe, _explain), document)
    for count, (path, _) in enumerate(found.steps()):
        if count == STEPS_MAX:
            raise LinesideError(
                "recipe.too_many_steps",
                f"The recipe has more than {STEPS_MAX} steps.",
                todo="Split it into recipes that follow each other.",
                place=document.place(path),
            )
    return found


def _explain(details: ErrorDetails, document: Document, path: Path) -> LinesideError | None:
    if details["type"] != "union_tag_invalid":
        return None
    phase = str(details.get("ctx", {}).get("tag", ""))[:40]
    return LinesideError(
        "recipe.unknown_phase",
        f"There is no phase called {phase!r}.",
        todo=closest(phase, PHASES),
        place=document.place((*path, "phase")),
    )


def seal(recipe: Recipe) -> str:
    """SHA-256 (64 hex digits) over the recipe's content: the same for another formatting, comment, order of
    keys or spelled-out default; another for any changed word or number.

    A default is left out of what is hashed, so that a field added later leaves old seals as they are.
    """
    content = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return hashlib.sha256(_DOMAIN + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
