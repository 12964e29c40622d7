"""Attachments of recipes: texts, pictures, videos and PDF in the folder `attachments` beside a recipe, named by what is
in them (SHA-256)."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.core.errors import LinesideError, Place
from edge.core.recipe import RecipeDocument
from edge.core.recipe.model import ATTACHMENT_FILE, Attachment

FOLDER: Final = "attachments"
BYTES_MAX: Final = 32 * 1024 * 1024
TEXT_BYTES_MAX: Final = 64 * 1024
FILES_MAX: Final = 200
CHUNK_BYTES: Final = 1024 * 1024
MAGIC: Final[Mapping[str, tuple[int, tuple[bytes, ...]]]] = {
    "png": (0, (b"\x89PNG\r\n\x1a\n",)),
    "jpg": (0, (b"\xff\xd8\xff",)),
    "jpeg": (0, (b"\xff\xd8\xff",)),
    "pdf": (0, (b"%PDF-",)),
    "mp4": (4, (b"ftyp",)),
    "webm": (0, (b"\x1a\x45\xdf\xa3",)),
}
"""Where a file of a kind says what it is, and how. A text says it by being UTF-8."""


def problems(document: RecipeDocument, folder: Path) -> Iterator[LinesideError]:
    """What is wrong with the attachments of a recipe that stands in `folder`."""
    checked: dict[tuple[str, str], LinesideError | None] = {}
    for path, attachment in document.attachments():
        key = (attachment.file, attachment.sha256)
        if key not in checked and len(checked) < FILES_MAX:
            checked[key] = _problem(attachment, folder / FOLDER / attachment.file)
        if key not in checked:
            yield LinesideError(
                "attachment.too_many",
                f"The recipe has more than {FILES_MAX} attachments.",
                todo="Keep those that an operator needs.",
                place=document.place(path),
            )
            return
        if found := checked[key]:
            yield replace(found, place=document.place(path))


def _problem(attachment: Attachment, path: Path) -> LinesideError | None:
    try:
        content = content_of(path)
    except LinesideError as refusal:
        return refusal
    if content == attachment.sha256:
        return None
    return LinesideError(
        "attachment.changed",
        f"{path.name} is not the file that the recipe names: it was changed, or another one was put there.",
        todo=f"Put the right file there; or, when this one is right, write sha256: {content}",
        place=Place(str(path)),
    )


def content_of(path: Path) -> str:
    """The SHA-256 of an attachment. Raises `attachment.missing`, `attachment.too_large` and `attachment.type`."""
    kind = path.suffix[1:]
    hashed, size, first = hashlib.sha256(), 0, b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                first, size = first or chunk, size + len(chunk)
                if size > BYTES_MAX or (kind not in MAGIC and size > TEXT_BYTES_MAX):
                    break
                hashed.update(chunk)
    except OSError as error:
        raise LinesideError(
            "attachment.missing",
            f"{path.name} cannot be read: {error.strerror or error}.",
            todo=f"Put it into the folder {FOLDER!r} beside the recipe.",
            place=Place(str(path)),
        ) from error
    most = BYTES_MAX if kind in MAGIC else TEXT_BYTES_MAX
    if size > most:
        raise LinesideError(
            "attachment.too_large",
            f"{path.name} is larger than {most // 1024:,} KiB.",
            todo="Make it smaller: fewer pixels, a shorter video, a text of its own.",
            place=Place(str(path)),
        )
    if not ATTACHMENT_FILE.fullmatch(path.name) or not _is(kind, first):
        raise LinesideError(
            "attachment.type",
            f"{path.name} is not what its name says, or of a kind that is not shown to operators.",
            todo=f"Attach a text (txt, md; UTF-8) or one of: {', '.join(MAGIC)}; named in letters, digits, _ and -.",
            place=Place(str(path)),
        )
    return hashed.hexdigest()


def _is(kind: str, first: bytes) -> bool:
    """Whether a file that begins so is of the kind that its name says."""
    if kind in MAGIC:
        place, signs = MAGIC[kind]
        return any(first[place:].startswith(sign) for sign in signs)
    try:
        text = first.decode()
    except UnicodeDecodeError:
        return False
    return all(sign.isprintable() or sign in "\n\r\t" for sign in text)


def attach(recipe: Path, file: Path) -> str:
    """Copy a file into the folder beside a recipe; its SHA-256. Raises as `content_of`, `attachment.changed` when there
    is another one of that name, and `file.cannot_write`."""
    content, target = content_of(file), recipe.parent / FOLDER / file.name
    if target.exists():
        if content_of(target) != content:
            raise LinesideError(
                "attachment.changed",
                f"There is another {file.name} in {target.parent}.",
                effect="Nothing was copied.",
                todo="Give the file another name: recipes may name the one that is there.",
                place=Place(str(target)),
            )
        return content
    try:
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    except OSError as error:
        raise LinesideError(
            "file.cannot_write",
            f"{target} cannot be written: {error.strerror or error}.",
            effect="Nothing was attached.",
            todo="Look whether the folder is there, may be written, and has room.",
            place=Place(str(target)),
        ) from error
    return content


def files(folder: Path) -> list[Path]:
    """What may be attached to the recipes of a folder."""
    return sorted(path for path in (folder / FOLDER).glob("*.*") if ATTACHMENT_FILE.fullmatch(path.name))
