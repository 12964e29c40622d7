"""From a file's bytes to a recipe with positions, and the seal that names a recipe's content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, get_args

import orjson
from pydantic_core import ErrorDetails

from edge.core.document import Document, Path, closest, read_document, validate
from edge.core.errors import LinesideError, Place
from edge.core.quick import dataclass
from edge.core.recipe.calls import Operations, expand
from edge.core.recipe.model import Attachment, Call, LibraryOperation, Recipe, Step

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

    def attachments(self) -> Iterator[tuple[Path, Attachment]]:
        """Every attachment with its path: the recipe's, then the steps'."""
        for place, one in enumerate(self.recipe.attachments):
            yield ("attachments", place), one
        for path, step in self.steps():
            for place, one in enumerate(step.attachments):
                yield (*path, "attachments", place), one

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


def read_recipe(data: bytes, name: str, operations: Operations | None = None) -> RecipeDocument:
    """Read a recipe's file, with the steps of the operations that it calls. What it means is `check_recipe`'s to judge.

    Without `operations` the steps of every call must be in the file, as they are in what `sealed_bytes` made.
    Raises `LinesideError` (`document.*`, `recipe.unknown_phase`, `recipe.too_many_steps`, and those of a call) with
    every finding about the shape: the first, the others in `others`.
    """
    return whole(read_document(data, name), operations)


def read_recipe_or_operation(data: bytes, name: str, operations: Operations) -> tuple[RecipeDocument, bool]:
    """As `read_recipe`; an operation's file is read as the recipe that does nothing but it. True when it is one."""
    document = read_document(data, name)
    if is_operation := _is_operation(document):
        validate(document, LibraryOperation, _explain)
    return whole(as_recipe(document), operations), is_operation


def _is_operation(document: Document) -> bool:
    return isinstance(document.data, dict) and "library_operation" in document.data


def as_recipe(document: Document) -> Document:
    """An operation's document as that of a recipe, each part at the place at which it stands in its own file; another
    document as it is."""
    if not _is_operation(document):
        return document
    says = dict(document.data)
    title = says.get("title", "?")
    says["recipe"] = says.pop("library_operation")
    operation = {"operation": title, "steps": says.pop("steps", [])}
    says["procedure"] = [{"unit_procedure": title, "operations": [operation]}]
    moved = {"library_operation": ("recipe",), "steps": ("procedure", 0, "operations", 0, "steps")}

    def there(path: Path) -> Path:
        return (*moved.get(str(path[0]), path[:1]), *path[1:]) if path else path

    places = {there(path): where for path, where in document.places.items()}
    return Document(document.name, says, places, {there(path): text for path, text in document.written.items()})


def whole(document: Document, operations: Operations | None) -> RecipeDocument:
    """A recipe's document, read; as `read_recipe`."""
    found = RecipeDocument(validate(document, Recipe, _explain), document)
    calls = [(path, step) for path, step in found.steps() if isinstance(step, Call)]
    within = {path for path, _ in calls}
    outer = [(path, call) for path, call in calls if not any(path[:end] in within for end in range(1, len(path)))]
    if outer and (operations is not None or not all(call.steps for _, call in calls)):
        document = expand(found.recipe, document, outer, {} if operations is None else operations)
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


def sealed_bytes(recipe: Recipe, data: bytes) -> bytes:
    """What to keep of a recipe read from `data`: the file itself, or, when it calls operations of the library, all that
    it came to, so that it stays the same when the library changes."""
    if not any(isinstance(step, Call) for step in recipe.steps().values()):
        return data
    content = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2)


def seal(recipe: Recipe) -> str:
    """SHA-256 (64 hex digits) over the recipe's content: the same for another formatting, comment, order of
    keys or spelled-out default; another for any changed word or number.

    A default is left out of what is hashed, so that a field added later leaves old seals as they are.
    """
    content = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return hashlib.sha256(_DOMAIN + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
