"""A folder of recipe files: all of them read, and those remembered that were read before."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import orjson

from edge.core.errors import LinesideError, Place
from edge.core.quick import dataclass
from edge.core.recipe import RecipeDocument, read_recipe_or_operation
from edge.core.recipe.compare import Profile, profile
from edge.core.recipe.model import Recipe
from edge.identity import sync_folder
from edge.library import LibraryOperations, operations_beside, read_bounded

FILES_MAX: Final = 10_000
MEMORY_BYTES_MAX: Final = 256 * 1024 * 1024
_FORM: Final = 2
"""Raise it when a profile is made in another way: what was remembered is then made anew."""

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Book:
    """One file of the folder: a recipe, or an operation as the recipe that does nothing but it."""

    path: Path
    data: bytes
    recipe: Recipe
    operations: LibraryOperations
    """Those that it may call."""


class _Reader:
    """Reads files of a folder and those below it; what each may call is looked for once for all that stand together."""

    def __init__(self) -> None:
        self._operations: dict[Path, LibraryOperations] = {}

    def operations(self, path: Path) -> LibraryOperations:
        if path.parent not in self._operations:
            self._operations[path.parent] = operations_beside(path)
        return self._operations[path.parent]

    def document(self, path: Path, data: bytes) -> RecipeDocument:
        return read_recipe_or_operation(data, str(path), self.operations(path))[0]

    def name(self, path: Path, data: bytes) -> str:
        """A hash of all that the recipe in this file comes to: with the library, when it may call it."""
        calls = b"call" in data or b"\\" in data
        return hashlib.sha256(data + (self.operations(path).content.encode() if calls else b"")).hexdigest()


def files_in(folder: Path) -> list[Path]:
    """Every .yaml and .yml file in the folder and those below it, by name."""
    if not folder.is_dir():
        raise LinesideError(
            "recipe.no_folder",
            f"{folder} is not a folder.",
            todo="Name the folder that holds the recipe files.",
            place=Place(str(folder)),
        )
    found = sorted(path for path in folder.rglob("*.y*ml") if path.suffix in {".yaml", ".yml"} and path.is_file())
    if len(found) > FILES_MAX:
        raise LinesideError(
            "recipe.too_many_files",
            f"{folder} holds {len(found):,} files, more than {FILES_MAX:,}.",
            todo="Name a folder further down.",
        )
    return found


def books(folder: Path, refused: list[LinesideError], tell: Tell) -> Iterator[Book]:
    """Every recipe in the folder. What cannot be read as a recipe is put into `refused`, with the reason."""
    files, reader = files_in(folder), _Reader()
    for done, path in enumerate(files):
        tell("files read", done, len(files))
        try:
            data = read_bounded(path)
            yield Book(path, data, reader.document(path, data).recipe, reader.operations(path))
        except LinesideError as error:
            refused.append(error)


def profiles(folder: Path, memory: Path, refused: list[LinesideError], tell: Tell) -> dict[Path, Profile]:
    """The profile of every recipe in the folder. `memory` is a file that remembers them by the hash of the content;
    it may be deleted at any time."""
    known = _recall(memory)
    kept: dict[str, Profile] = {}
    found: dict[Path, Profile] = {}
    files, reader = files_in(folder), _Reader()
    for done, path in enumerate(files):
        tell("files compared", done, len(files))
        try:
            data = read_bounded(path)
            name = reader.name(path, data)
            kept[name] = found[path] = known.get(name) or profile(reader.document(path, data).recipe)
        except LinesideError as error:
            refused.append(error)
    if kept.keys() - known.keys():
        _remember(memory, known | kept)
    return found


def write(path: Path, data: bytes) -> None:
    """Put `data` in the file's place, whole and durable, or leave it as it was. Raises `recipe.cannot_write`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        mode = path.stat().st_mode
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(mode)
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise LinesideError(
            "recipe.cannot_write",
            f"{path} cannot be written: {error.strerror or error}.",
            effect="The file is as it was.",
            todo="Look whether the folder can be written to.",
        ) from error


def _recall(memory: Path) -> dict[str, Profile]:
    try:
        if memory.stat().st_size > MEMORY_BYTES_MAX:
            return {}
        form, entries = orjson.loads(memory.read_bytes())
        if form != _FORM:
            return {}
        return {
            name: Profile(recipe, version, title, frozenset(steps), frozenset(operations))
            for name, (recipe, version, title, steps, operations) in entries.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # not there yet, of another version or damaged: everything is read again


def _remember(memory: Path, entries: dict[str, Profile]) -> None:
    said = {
        name: [one.name, one.version, one.title, sorted(one.steps), sorted(one.operations)]
        for name, one in entries.items()
    }
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        partial = memory.with_name(f".{memory.name}.{os.getpid()}")
        partial.write_bytes(orjson.dumps([_FORM, said]))
        partial.replace(memory)
    except OSError:
        return  # only speed is lost: the next run reads the files again
