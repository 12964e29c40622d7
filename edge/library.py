"""Sealed objects on this box: recipes, plants and reports of rehearsals, each under the hash of its content, fsynced
before a row names it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from edge.attachments import CHUNK_BYTES, problems
from edge.core.document import FILE_BYTES_MAX
from edge.core.errors import LinesideError, Place
from edge.core.plant import Plant, read_plant
from edge.core.quick import dataclass
from edge.core.recipe import (
    RecipeDocument,
    check_recipe,
    read_operation,
    read_recipe,
    read_recipe_or_operation,
    remarks,
    seal,
    sealed_bytes,
)
from edge.core.recipe.model import Recipe
from edge.core.recipe.partly import beside
from edge.identity import make_folder, sync_folder
from edge.wire import RECIPE_CHARS_MAX

RECIPES_MAX: Final = 500
HEADING_BYTES: Final = 16_384
_HEADING: Final = re.compile(r"^(recipe|version|title):[ \t]+([^\n#]*)", re.MULTILINE)
REPORT_BYTES_MAX: Final = 16 * 1024 * 1024
Kind = Literal["recipe", "plant", "report", "attachment"]


@dataclass(frozen=True, slots=True)
class Sealed:
    """A checked recipe with its seal and the exact bytes it was read from."""

    recipe: Recipe
    seal: str
    data: bytes


class Library:
    """The folder of sealed objects of one box."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, kind: Kind, name: str, data: bytes) -> None:
        """Keep `data` under `name`; when this returns it is whole and durable, the folders above it too.

        An object that is there already is verified, and stays: raises `library.damaged` when it is another one, and
        `library.cannot_write` when the disk refuses."""
        folder = self._folder / kind
        target = folder / name
        try:
            make_folder(folder)
            if target.exists():
                if self._read(kind, name) != data:  # `data` belongs to `name`
                    _VERIFIED[kind](self, name)
                _sync_file(target)  # a crash may have come between its name and the sync of its folder
            else:
                partial = folder / f".{name}.partial"
                with partial.open("wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(target)
            sync_folder(folder)
        except OSError as error:
            raise LinesideError(
                "library.cannot_write",
                f"The sealed object {name[:16]}… cannot be kept: {error.strerror or error}.",
                effect="No row names it, and nothing was started with it.",
                todo="Check the disk (`lineside disk status`), then try again.",
                place=Place(str(target)),
            ) from error

    def recipe(self, name: str) -> Recipe:
        """The recipe with this seal, verified against it."""
        return self.recipe_document(name).recipe

    def recipe_document(self, name: str) -> RecipeDocument:
        """As `recipe`, for the checker."""
        data = self._read("recipe", name)
        try:
            document = read_recipe(data, name)
        except LinesideError as error:
            raise _damaged(self.path("recipe", name)) from error
        if seal(document.recipe) != name:
            raise _damaged(self.path("recipe", name))
        return document

    def sealed(self, name: str) -> Sealed:
        """As `recipe`, with the bytes that were kept of it."""
        return Sealed(self.recipe(name), name, self._read("recipe", name))

    def report(self, name: str) -> bytes:
        """The report of a rehearsal with this hash, verified against it."""
        data = read_bounded(self.path("report", name), REPORT_BYTES_MAX)
        if hashlib.sha256(data).hexdigest() != name:
            raise _damaged(self.path("report", name))
        return data

    def put_file(self, name: str, source: Path) -> None:
        """As `put`, for an attachment, which may be large. Raises `attachment.changed` when `source` is not `name`."""
        folder, target = self._folder / "attachment", self.path("attachment", name)
        try:
            make_folder(folder)
            if target.exists():
                self.attachment(name)
                _sync_file(target)
            else:
                partial = folder / f".{name}.partial"
                if _copied(source, partial) != name:
                    partial.unlink()
                    raise LinesideError(
                        "attachment.changed",
                        f"{source.name} was changed while it was read.",
                        effect="It was not kept, and no row names it.",
                        todo="Check the recipe again.",
                        place=Place(str(source)),
                    )
                partial.replace(target)
            sync_folder(folder)
        except OSError as error:
            raise LinesideError(
                "library.cannot_write",
                f"The attachment {source.name} cannot be kept: {error.strerror or error}.",
                effect="No row names it, and nothing was started with it.",
                todo="Check the disk (`lineside disk status`), then try again.",
                place=Place(str(target)),
            ) from error

    def attachment(self, name: str) -> Path:
        """The file of the attachment with this content, verified against it."""
        path, hashed = self.path("attachment", name), hashlib.sha256()
        try:
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    hashed.update(chunk)
        except OSError as error:
            raise LinesideError(
                "attachment.missing",
                f"The attachment {name[:16]}… is not in the library of this box: {error.strerror or error}.",
                effect="It cannot be opened; the step goes on.",
                todo="Put the file into the folder `attachments` beside the recipes and start the runtime again.",
                place=Place(str(path)),
            ) from error
        if hashed.hexdigest() != name:
            raise _damaged(path)
        return path

    def plant(self, name: str) -> Plant:
        """The plant with this content hash, verified against it."""
        return read_plant(self.plant_data(name), name)

    def plant_data(self, name: str) -> bytes:
        """The plant file with this content hash, verified against it."""
        data = self._read("plant", name)
        if hashlib.sha256(data).hexdigest() != name:
            raise _damaged(self.path("plant", name))
        return data

    def path(self, kind: Kind, name: str) -> Path:
        """The file of an object."""
        return self._folder / kind / name

    def verify(self, kind: str, name: str) -> None:
        """Raise what is wrong with an object."""
        if kind not in _VERIFIED:
            raise _damaged(self._folder / kind / name)
        _VERIFIED[kind](self, name)

    def names(self) -> list[tuple[str, str]]:
        """Kind and name of every object that is here; one that is being written has no name yet."""
        return sorted((path.parent.name, path.name) for path in self._folder.glob("*/[!.]*"))

    def _read(self, kind: Kind, name: str) -> bytes:
        return read_bounded(self.path(kind, name))


_VERIFIED: Final[dict[str, Callable[[Library, str], object]]] = {
    "recipe": Library.recipe,
    "plant": Library.plant,
    "report": Library.report,
    "attachment": Library.attachment,
}


def _copied(source: Path, target: Path) -> str:
    """Copy a file, durably; the SHA-256 of what was copied."""
    hashed = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as stream:
        while chunk := read.read(CHUNK_BYTES):
            hashed.update(chunk)
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    return hashed.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path) -> LinesideError:
    return LinesideError(
        "library.damaged",
        f"A sealed object was changed after it was sealed: {path.name[:16]}…",
        effect="The runtime does not start: a batch keeps exactly what it was started with.",
        todo="Restore the file from a backup or another box with the same recipe. When no batch under way needs it, "
        "move it away: the next start seals the present file again.",
        place=Place(str(path)),
    )


def read_bounded(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """The file's bytes. A file beyond the bound is refused without being read."""
    try:
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise LinesideError(
            "file.missing",
            f"{path} cannot be read: {error.strerror}.",
            todo="Look whether the name is right and the file is there.",
            place=Place(str(path)),
        ) from error
    if len(data) > bytes_max:
        raise LinesideError(
            "file.too_large",
            f"{path.name} is larger than {bytes_max // 1024} KiB.",
            todo="Look whether it is the right file.",
            place=Place(str(path)),
        )
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write a file: whatever happens, the old one or the whole new one is there. Raises `file.cannot_write`."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise LinesideError(
            "file.cannot_write",
            f"{path} cannot be written: {error.strerror}.",
            effect="What was there before is still there.",
            todo="Look whether the folder is there, may be written, and has room.",
            place=Place(str(path)),
        ) from error


def read_checked_recipe(path: Path, plant: Plant | None) -> Sealed:
    """Read, check and seal one recipe file. Raises the first finding with all others in `others`."""
    data = read_bounded(path)
    with _all_findings(data, str(path), operations_beside(path), plant):
        document = read_recipe_file(path, data)
    refuse_findings(document, plant, path.parent)
    return Sealed(document.recipe, seal(document.recipe), sealed_bytes(document.recipe, data))


def refuse_findings(document: RecipeDocument, plant: Plant | None, beside: Path | None) -> None:
    """Raise the first finding about a recipe with all others in `others`: the same at the command line and at the desk.
    Its attachments are looked for in `beside`, unless that is None."""
    findings = [*check_recipe(document, plant), *(problems(document, beside) if beside else ())]
    if findings:
        first, *others = findings
        first.others = tuple(others)
        raise first


def text_to_offer(sealed: Sealed) -> str:
    """What is sent to a desk, or read by it, of a recipe that somebody submits. Raises `recipe.too_long`."""
    text = sealed.data.decode().removeprefix("\ufeff")
    if len(text) > RECIPE_CHARS_MAX:
        raise LinesideError(
            "recipe.too_long",
            f"The recipe with all operations that it calls has {len(text):,} characters, more than "
            f"{RECIPE_CHARS_MAX:,}.",
            effect="Nothing was submitted.",
            todo="Split it into recipes that follow each other.",
        )
    return text


@dataclass(frozen=True, slots=True)
class Heading:
    """What the first lines of a recipe's file say; empty where they do not say it plainly."""

    file: str
    recipe: str
    version: str
    title: str


def headings(folder: Path) -> list[Heading]:
    """Of every recipe file of a box, in name order, without reading it as a recipe."""
    found = []
    for path in recipe_files(folder):
        try:
            with path.open("rb") as stream:
                head = stream.read(HEADING_BYTES).decode(errors="replace")
        except OSError:
            continue  # it went, or may not be read: nobody can submit it
        said: dict[str, str] = {}
        for key, text in _HEADING.findall(head):
            said.setdefault(key, text.strip().strip("\"'"))
        found.append(Heading(path.name, *(said.get(key, "")[:100] for key in ("recipe", "version", "title"))))
    return found


def read_recipe_file(path: Path, data: bytes | None = None) -> RecipeDocument:
    """The recipe in a file (its bytes are `data`, when they were read), with the operations that it calls: those that
    ship, and those in the folder `operations` beside it. Not checked."""
    data = read_bounded(path) if data is None else data
    return read_recipe(data, str(path), operations_beside(path))


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checker says of somebody's draft: the same at the command line and on the hub's pages."""

    document: RecipeDocument | None
    """None when it cannot be read."""
    is_operation: bool
    refusal: LinesideError | None
    """The first finding, with all others."""
    remarks: tuple[LinesideError, ...]

    def as_json(self) -> dict[str, object]:
        """For machines."""
        worth = {"remarks": [remark.as_json() for remark in self.remarks]}
        if self.refusal is not None or self.document is None:
            return {"ok": False, "findings": [self.refusal.as_json()] if self.refusal else [], **worth}
        recipe = self.document.recipe
        named = {"operation": recipe.recipe} if self.is_operation else {"recipe": recipe.recipe, "seal": seal(recipe)}
        return {"ok": True, **named, "steps": len(recipe.steps()), **worth}

    def __str__(self) -> str:
        worth = [f"remark: {remark}" for remark in self.remarks]
        if self.refusal is not None or self.document is None:
            return "\n".join((str(self.refusal), *worth))
        recipe = self.document.recipe
        sealed = "" if self.is_operation else f" Seal {seal(recipe)}"
        said = f"{recipe.recipe} {recipe.version}: {len(recipe.steps())} steps, nothing wrong.{sealed}"
        return "\n".join((said, *worth))


def check_draft(data: bytes, name: str, plant: tuple[bytes, str] | None, file: Path | None = None) -> Checked:
    """Check a recipe, or an operation of the library, called `name`, on `plant`, its text and its name. All that is
    wrong is found. Its attachments and the operations that do not ship are looked for beside `file`."""
    document, is_operation, found = None, False, list[LinesideError]()
    operations = LibraryOperations(None) if file is None else operations_beside(file)
    try:
        checked_plant = None if plant is None else read_plant(*plant)
        with _all_findings(data, name, operations, checked_plant):
            document, is_operation = read_recipe_or_operation(data, name, operations)
        found = remarks(document)
        refuse_findings(document, checked_plant, None if file is None else file.parent)
    except LinesideError as refusal:
        return Checked(document, is_operation=is_operation, refusal=refusal, remarks=tuple(found))
    return Checked(document, is_operation=is_operation, refusal=None, remarks=tuple(found))


def read_drafted_file(path: Path, plant: Plant | None = None) -> tuple[RecipeDocument, bool]:
    """As `read_recipe_file`; an operation's file is read as the recipe that does nothing but it. True when it is one.
    For looking at what somebody writes: a box executes recipes alone. A file that cannot be read is refused with what
    the checker finds in the rest of it, on `plant`."""
    data = read_bounded(path)
    operations = operations_beside(path)
    with _all_findings(data, str(path), operations, plant):
        return read_recipe_or_operation(data, str(path), operations)


@contextmanager
def _all_findings(data: bytes, name: str, operations: LibraryOperations, plant: Plant | None) -> Iterator[None]:
    try:
        yield
    except LinesideError as refusal:
        refusal.others = (*refusal.others, *beside(data, name, operations, plant))
        raise


def operations_beside(path: Path) -> LibraryOperations:
    """The operations that the recipe or the operation in this file may call."""
    return LibraryOperations(path.parent if path.parent.name == "operations" else path.parent / "operations")


class LibraryOperations(Mapping[tuple[str, str], bytes]):
    """The operations that recipes may call, by name and version: those that ship, and those in `folder`.

    A file is parsed when an operation that it may hold is asked for: a recipe calls few of them, and each start of a
    box waits for it. Raises `library.operation_twice` when one name and version stands for two contents, and as
    `read_operation`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._keys: dict[str, tuple[str, str]] = {}

    @cached_property
    def content(self) -> str:
        """A hash of all that is in it."""
        return hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in self._files.values())).hexdigest()

    def __getitem__(self, key: tuple[str, str]) -> bytes:
        return self._found(key[0])[key]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._found(""))

    def __len__(self) -> int:
        return len(self._found(""))

    @cached_property
    def _files(self) -> dict[str, bytes]:
        shipped = resources.files("edge.core.recipe.shipped") / "operations"
        files = {path.name: path.read_bytes() for path in (shipped.iterdir() if shipped.is_dir() else ())}
        own = () if self._folder is None else sorted(self._folder.glob("*.yaml"))[:RECIPES_MAX]
        return files | {str(path): read_bounded(path) for path in own}

    def _found(self, word: str) -> dict[tuple[str, str], bytes]:
        """The operations in all files in which `word` stands; a backslash may stand for any letter of it."""
        found: dict[tuple[str, str], bytes] = {}
        for name, data in self._files.items():
            if word.encode() not in data and b"\\" not in data:
                continue
            if name not in self._keys:
                operation = read_operation(data, name)
                self._keys[name] = operation.library_operation, operation.version
            key = self._keys[name]
            if found.setdefault(key, data) != data:
                raise LinesideError(
                    "library.operation_twice",
                    f"There are two different operations {key[0]} {key[1]} in the library.",
                    todo="Give one of them another version.",
                    place=Place(name),
                )
        return found


def recipe_files(folder: Path) -> list[Path]:
    """The recipe files of a box, in name order; at most `RECIPES_MAX`."""
    files = sorted(path for path in folder.glob("*.yaml") if path.is_file())
    if len(files) > RECIPES_MAX:
        raise LinesideError(
            "library.too_many",
            f"{folder} holds more than {RECIPES_MAX} recipes.",
            todo="Keep only the recipes of this line in it.",
            place=Place(str(folder)),
        )
    return files
