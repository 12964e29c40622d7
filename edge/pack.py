"""The tech-transfer pack: one signed file with a recipe and what a second site must know to take it over.

A tar file: `manifest.json`, `manifest.sig`, then the files that the manifest names, in its order. Every byte is the one
that this module would write. In it: `recipe.yaml` as it is, `recipe.xml` (BatchML), `WHYS.md`, `HISTORY.md` with each
earlier version under `history/`, the report of the rehearsal when there was one, and `attachments/` with the files that
the recipe names.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.attachments import FILES_MAX as ATTACHMENTS_MAX
from edge.attachments import FOLDER as ATTACHMENTS
from edge.clock import SystemClock
from edge.core.errors import LinesideError, Place
from edge.core.recipe import Recipe, read_recipe, seal, sealed_bytes
from edge.core.recipe.compare import compare
from edge.core.recipe.model import ATTACHMENT_FILE
from edge.core.record import Signer, fingerprint, signature_holds
from edge.endorsed import Endorsed, as_bytes, read_endorsed
from edge.exchange import BYTES_MAX, export, read
from edge.identity import sync_folder
from edge.library import read_bounded, read_checked_recipe, read_recipe_file
from edge.tarred import BLOCK_BYTES, END, SIGNATURE_BYTES, FileEntry, header, padding, stated_size

DOMAIN: Final = b"lineside.pack.1"
FORMAT: Final = 1
PACK_BYTES_MAX: Final = 64 * 1024 * 1024
MANIFEST_BYTES_MAX: Final = 256 * 1024
REHEARSAL_BYTES_MAX: Final = 16 * 1024 * 1024
EARLIER_MAX: Final = 99
ATTACHED_BYTES_MAX: Final = 40 * 1024 * 1024
DRAFT: Final = "draft.yaml"
_NAME: Final = re.compile(
    r"recipe\.yaml|recipe\.xml|WHYS\.md|HISTORY\.md|history/[0-9]{2}\.yaml|rehearsal\.(json|txt|md)|approvals\.json|"
    rf"{ATTACHMENTS}/({ATTACHMENT_FILE.pattern})"
)


class Manifest(BaseModel):
    """What a pack holds, and of which recipe. `device` is the fingerprint of the key that signed it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    device: str = Field(pattern=r"^[0-9a-f]{32}$")
    made_utc: str = Field(pattern=r"^[0-9T:.\-]{1,32}Z$")
    recipe: str = Field(max_length=64)
    version: str = Field(max_length=64)
    seal: str = Field(pattern=r"^[0-9a-f]{64}$")
    files: tuple[FileEntry, ...] = Field(strict=False, min_length=4, max_length=EARLIER_MAX + 6 + ATTACHMENTS_MAX)


def make_pack(
    recipe: Path,
    out: Path,
    signer: Signer,
    *,
    rehearsal: Path | None = None,
    earlier: Sequence[Path] = (),
    endorsed: Callable[[Collection[str]], Sequence[Endorsed]] = lambda _: (),
) -> Manifest:
    """Make the pack `out` of a recipe that checks clean. It appears whole and read back, or not at all.

    `endorsed` gives the signatures on the recipes with these seals.
    Raises what reading the recipes does, `exchange.*`, `pack.exists`, `pack.history`, `pack.rehearsal` and
    `pack.cannot_write`."""
    sealed = read_checked_recipe(recipe, None)
    read_earlier = [(read_bounded(path), read_recipe_file(path).recipe) for path in earlier]
    versions = [(sealed_bytes(one, data), one) for data, one in read_earlier]
    if len(versions) > EARLIER_MAX or any(one.recipe != sealed.recipe.recipe for _, one in versions):
        raise LinesideError(
            "pack.history",
            f"An earlier version is of another recipe than {sealed.recipe.recipe}, or there are more than "
            f"{EARLIER_MAX}.",
            effect="No pack was made.",
            todo="Give earlier versions of this recipe alone.",
        )
    versions.sort(key=lambda one: [int(part) for part in one[1].version.split(".")])
    signed = endorsed({sealed.seal, *(seal(one) for _, one in versions)})
    files = {
        "recipe.yaml": sealed.data,
        "recipe.xml": export(sealed.recipe),
        "WHYS.md": whys(sealed.recipe).encode(),
        "HISTORY.md": _history([one for _, one in versions], sealed.recipe, signed).encode(),
    }
    if signed:
        files["approvals.json"] = as_bytes(signed)
    files |= {f"history/{number:02}.yaml": data for number, (data, _) in enumerate(versions, 1)}
    if rehearsal is not None:
        files["rehearsal" + (rehearsal.suffix if rehearsal.suffix in (".txt", ".md") else ".json")] = _report(rehearsal)
    files |= _attachments(sealed.recipe, recipe.parent)
    manifest = Manifest(
        format=FORMAT,
        device=fingerprint(signer.public),
        made_utc=SystemClock().stamp().utc,
        recipe=sealed.recipe.recipe,
        version=sealed.recipe.version,
        seal=sealed.seal,
        files=tuple(
            FileEntry(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in files.items()
        ),
    )
    stated = manifest.model_dump_json().encode()
    whole = {"manifest.json": stated, "manifest.sig": signer.sign(DOMAIN, stated), **files}
    packed = b"".join(header(name, len(data)) + data + padding(len(data)) for name, data in whole.items()) + END
    read_pack(packed, signer.public)
    _write_new(out, packed)
    return manifest


def _attachments(recipe: Recipe, folder: Path) -> dict[str, bytes]:
    """The attachments of a recipe whose files were checked, as they stand in the pack."""
    found = {f"{ATTACHMENTS}/{one.file}": one for one in recipe.attached().values()}
    sizes = sum((folder / name).stat().st_size for name in found)
    if sizes > ATTACHED_BYTES_MAX:
        raise LinesideError(
            "pack.attachments",
            f"The attachments have {sizes // 1024**2} MiB; a pack holds at most {ATTACHED_BYTES_MAX // 1024**2}.",
            effect="No pack was made.",
            todo="Make videos and pictures smaller.",
        )
    return {name: _bounded(folder / name, ATTACHED_BYTES_MAX) for name in found}


def read_pack(packed: bytes, public: bytes) -> tuple[Manifest, dict[str, bytes]]:
    """What is in a pack, verified: the signature before anything is interpreted, each hash, the recipe's seal, and
    that its BatchML is the same recipe.

    Raises `pack.foreign`, `pack.signature`, `pack.format` or `pack.damaged`."""
    parts = _Parts(packed)
    stated = parts.small("manifest.json", MANIFEST_BYTES_MAX)
    signature = parts.small("manifest.sig", SIGNATURE_BYTES)
    if not signature_holds(public, DOMAIN, stated, signature):
        raise LinesideError(
            "pack.signature",
            f"The signature does not hold with the key of device {fingerprint(public)}: another made this pack, or it "
            "was changed.",
            effect="Nothing was brought in.",
            todo="Give the public key of the device that made it with --trust, or ask for the pack again.",
        )
    manifest = _manifest(stated)
    files = {}
    for entry in manifest.files:
        parts.expect(header(entry.name, entry.size), entry.name)
        files[entry.name] = parts.take(entry.size, entry.name)
        parts.expect(padding(entry.size), entry.name)
        if hashlib.sha256(files[entry.name]).hexdigest() != entry.sha256:
            raise _damaged(f"{entry.name} was changed after the pack was made: its hash differs.")
    parts.expect(END, "its end")
    parts.ended()
    _agree(manifest, files)
    return manifest, files


def unpack(pack: Path, public: bytes, out: Path) -> Manifest:
    """Verify the pack and write what is in it into the new folder `out`, with the recipe as the draft `draft.yaml`,
    which says where it comes from. All of it, durable, or nothing.

    Raises what `read_pack` does, `pack.exists`, `pack.unreadable` and `pack.cannot_write`."""
    manifest, files = read_pack(_bounded(pack, PACK_BYTES_MAX), public)
    _refuse_existing(out)
    origin = (
        f"# Draft, brought in from a tech-transfer pack: {manifest.recipe} {manifest.version},\n"
        f"# made {manifest.made_utc} by device {fingerprint(public)}. Its seal there: {manifest.seal}\n"
        "# Nothing of it is approved at this site.\n"
    )
    with _in_words(out), TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as building:
        made = Path(building) / "pack"
        made.mkdir(mode=0o750)
        for name, data in {
            **files,
            DRAFT: origin.encode() + files["recipe.yaml"].removeprefix(b"\xef\xbb\xbf"),
        }.items():
            target = made / name
            target.parent.mkdir(exist_ok=True)
            _write(target, data)
        for folder in (*(path for path in made.rglob("*") if path.is_dir()), made):
            sync_folder(folder)
        made.rename(out)
        sync_folder(out.parent)
    return manifest


def whys(recipe: Recipe) -> str:
    """Every reason that the recipe gives, in the order of its steps, as Markdown."""
    lines = [f"# Why: {recipe.recipe} {recipe.version}, {recipe.title}", ""]
    content = recipe.model_dump(mode="json", by_alias=True)
    for where, why in _reasons(content, ()):
        lines += [f"- **{where or 'The recipe'}**: {why}"]
    return "\n".join(lines) + "\n"


def _reasons(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Each `why` with what it is of: step and title where there is one, else the keys that lead there."""
    if isinstance(value, dict):
        if isinstance(value.get("id"), str) and isinstance(value.get("title"), str):
            path = (f"step {value['id']}, {value['title']}",)
        if why := value.get("why"):
            yield ", ".join(path).replace("\n", " "), str(why).replace("\n", " ")
        for key, inner in value.items():
            yield from _reasons(inner, (*path, key) if isinstance(inner, dict) else path)
    elif isinstance(value, list):
        for inner in value:
            yield from _reasons(inner, path)


def _history(earlier: Sequence[Recipe], recipe: Recipe, signed: Sequence[Endorsed]) -> str:
    lines = [f"# History: {recipe.recipe}", "", "| version | title | seal |", "|---|---|---|"]
    lines += [f"| {one.version} | {one.title.replace('|', '/')} | `{seal(one)}` |" for one in (*earlier, recipe)]
    if not earlier:
        lines += ["", "No earlier version was given to the pack."]
    for old, new in pairwise((*earlier, recipe)):
        lines += ["", f"## From {old.version} to {new.version}", ""]
        lines += [f"- {change.text}".replace("\n", " ") for change in compare(old, new)]
    if signed:
        lines += ["", "## Signed where it comes from", "", "What was approved there is not approved here.", ""]
        lines += [f"- {one.text()}" for one in signed]
    return "\n".join(lines) + "\n"


def _agree(manifest: Manifest, files: dict[str, bytes]) -> None:
    """The recipe is the one that the manifest names, in both forms."""
    try:
        recipe = read_recipe(files["recipe.yaml"], "recipe.yaml").recipe
        from_xml = read_recipe(read(files["recipe.xml"], "recipe.xml").text.encode(), "recipe.xml").recipe
    except LinesideError as refusal:
        raise _damaged(f"Its recipe cannot be read. {refusal.what}") from refusal
    if "approvals.json" in files and read_endorsed(files["approvals.json"]) is None:
        raise _damaged("A signature in approvals.json is not one that a device attested.")
    named = (recipe.recipe, recipe.version, seal(recipe))
    if named != (manifest.recipe, manifest.version, manifest.seal) or seal(from_xml) != manifest.seal:
        raise _damaged("Its recipe is not the one that the manifest names.")
    wanted = {(f"{ATTACHMENTS}/{one.file}", one.sha256) for one in recipe.attached().values()}
    given = {(entry.name, entry.sha256) for entry in manifest.files if entry.name.startswith(f"{ATTACHMENTS}/")}
    if wanted != given:
        raise _damaged("Its attachments are not those that the recipe names.")


def _manifest(stated: bytes) -> Manifest:
    """The manifest in bytes whose signature holds."""
    try:
        manifest = Manifest.model_validate_json(stated)
    except ValidationError as error:
        raise _other_format() from error
    names = [entry.name for entry in manifest.files]
    needed = ["recipe.yaml", "recipe.xml", "WHYS.md", "HISTORY.md"]
    if (
        manifest.format != FORMAT
        or names[:4] != needed
        or len(set(names)) != len(names)
        or not all(map(_NAME.fullmatch, names))
    ):
        raise _other_format()
    return manifest


class _Parts:
    """Reads a pack from its begin to its end."""

    def __init__(self, packed: bytes) -> None:
        self._packed, self._at = packed, 0

    def take(self, size: int, where: str) -> bytes:
        found = self._packed[self._at : self._at + size]
        self._at += len(found)
        if len(found) != size:
            raise _damaged(f"It ends within {where}.")
        return found

    def expect(self, expected: bytes, where: str) -> None:
        if self.take(len(expected), where) != expected:
            raise _damaged(f"It is not as written at {where}.")

    def small(self, name: str, limit: int) -> bytes:
        """The content of a file that must be read before the manifest is known."""
        block = self._packed[self._at : self._at + BLOCK_BYTES]
        size = stated_size(block)
        if not 0 <= size <= limit or block != header(name, size):
            if name == "manifest.json":
                raise LinesideError(
                    "pack.foreign",
                    "This file does not begin as a tech-transfer pack of Lineside does.",
                    effect="Nothing was brought in.",
                    todo="Check the path. If it was a pack, it is damaged: ask for it again.",
                )
            raise _damaged(f"It is not as written at {name}.")
        self._at += BLOCK_BYTES
        data = self.take(size, name)
        self.expect(padding(size), name)
        return data

    def ended(self) -> None:
        if self._at != len(self._packed):
            raise _damaged("Something follows its end.")


def _damaged(what: str) -> LinesideError:
    return LinesideError(
        "pack.damaged",
        f"The pack is damaged. {what}",
        effect="Nothing was brought in.",
        todo="Ask for the pack again.",
    )


def _other_format() -> LinesideError:
    return LinesideError(
        "pack.format",
        f"Its manifest is not one of format {FORMAT}, the one that this version knows.",
        effect="Nothing was brought in.",
        todo="Use the version of Lineside that made it, or a later one.",
    )


# The disk ------------------------------------------------------------------------------------------------------------


def read_exchanged(path: Path) -> bytes:
    """The bytes of a BatchML file; what is beyond the bound is left for `edge.exchange.read` to refuse."""
    return _bounded(path, BYTES_MAX)


def write_exchanged(path: Path, data: bytes) -> None:
    """Write a new file, whole and durable. Raises `pack.exists` and `pack.cannot_write`."""
    _write_new(path, data)


def _report(path: Path) -> bytes:
    data = _bounded(path, REHEARSAL_BYTES_MAX)
    if not data or len(data) > REHEARSAL_BYTES_MAX:
        raise LinesideError(
            "pack.rehearsal",
            f"The report {path} is empty or larger than {REHEARSAL_BYTES_MAX // 1024**2} MiB.",
            effect="No pack was made.",
            todo="Make it with: lineside recipe rehearse FILE --out rehearsal.json",
        )
    return data


def _bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        raise LinesideError(
            "pack.unreadable",
            f"{path} cannot be read: {error.strerror}.",
            todo="Look whether the name is right and the file is there.",
            place=Place(str(path)),
        ) from error


def _write_new(path: Path, data: bytes) -> None:
    _refuse_existing(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with _in_words(path):
        try:
            _write(partial, data)
            os.link(partial, path)  # never replaces what is there, and the file is whole when it appears
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise LinesideError("pack.exists", f"There is something at {out} already.", todo="Give it a name of its own.")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinesideError(
            "pack.cannot_write",
            f"{path} cannot be made: {error.strerror or error}.",
            todo="Check that its folder is there, that this user may write to it, and that the medium has space.",
        ) from error
