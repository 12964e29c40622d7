"""Backup and restore of what a box cannot make again: its journal, its process values and its sealed objects.

A backup is one tar file: `manifest.json`, `manifest.sig`, `journal.db`, `vault.db` and `history.db` when there is one,
then in name order `library/KIND/HASH` and whom the box trusts, `pki/trusted|issuers|crl/FILE`. The manifest names each
file with size and SHA-256, and the journal's head; the device key signs its bytes. Every header is the one that this
module would write, so nothing in a backup is left to interpretation: no link, no path, no spare byte.

The device key, the keys of the box's own certificates and the epoch never leave the box. What is restored has no epoch:
the next runtime begins a new one, so that no row that the hub already has from the first life is ever made a second
time with other content.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.clock import SystemClock
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.record import Signer, fingerprint, signature_holds
from edge.history import Anchor, HistoryReader, Verified, anchors_in, settle
from edge.identity import DeviceKey, sync_folder
from edge.journal import JournalReader, copy_journal, open_journal, verify_journal
from edge.tarred import BLOCK_BYTES, END, SIGNATURE_BYTES, FileEntry, header, padding, stated_size
from edge.vault import VAULT, copy_vault

DOMAIN: Final = b"lineside.backup.1"
FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
FILES_MAX: Final = 10_000
CHUNK_BYTES: Final = 1024 * 1024
JOURNAL: Final = "journal.db"
VALUES: Final = "history.db"
TRUST_MAX: Final = 500
OBJECTS_MAX: Final = FILES_MAX - TRUST_MAX - 3
DRILL: Final = "lineside-drill-"
"""How the name of a folder begins into which a backup is restored only to look at it."""
T = TypeVar("T")

_SEALED_OBJECT: Final = re.compile(r"library/[a-z]{1,16}/[0-9a-f]{64}")
_TRUST: Final = re.compile(r"pki/(trusted|issuers|crl)/[!-\-0-~][ -.0-~]{0,79}")
"""A certificate or a list of revoked ones. Names of people's own are possible, a folder or a hidden file is not."""
_HEX_32: Final = r"^[0-9a-f]{32}$"
_HEX_64: Final = r"^[0-9a-f]{64}$"

Progress = Callable[[str, int, int], object]
"""Called with what is counted, how much is done and how much there is."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    """Nobody asked."""


class Manifest(BaseModel):
    """What a backup holds. `epoch`, `head_seq` and `head_hash` are those of the journal's last row in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int
    box: str
    made_utc: str
    journal: str = Field(pattern=_HEX_32)
    epoch: str = Field(pattern=_HEX_32)
    head_seq: int = Field(ge=1)
    head_hash: str = Field(pattern=_HEX_64)
    files: tuple[FileEntry, ...] = Field(strict=False, min_length=1, max_length=FILES_MAX)

    def as_json(self) -> dict[str, object]:
        """The manifest for machines, with the number of files in the place of the list."""
        return {**self.model_dump(exclude={"files"}), "files": len(self.files), "values": self.values}

    @property
    def vault(self) -> bool:
        """Whether patient identities are in it."""
        return any(entry.name == VAULT for entry in self.files)

    @property
    def values(self) -> bool:
        """Whether process values are in it."""
        return any(entry.name == VALUES for entry in self.files)

    @property
    def sealed(self) -> int:
        """The number of sealed objects."""
        return sum(entry.name.startswith("library/") for entry in self.files)

    @property
    def trusted(self) -> int:
        """The number of files that say whom the box trusts."""
        return sum(entry.name.startswith("pki/") for entry in self.files)

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size for entry in self.files)


# Making one --------------------------------------------------------------------------------------------------------


def back_up(config: Config, out: Path, *, with_values: bool = True, progress: Progress = _quiet) -> Manifest:
    """Make the backup `out` of a box, which may run. It appears whole, read back and verified, or not at all.

    Raises `backup.exists`, `backup.no_space`, `backup.cannot_write`, `backup.library`, `backup.trust`, `backup.values`,
    `journal.*` or `identity.*`."""
    signer = DeviceKey.load(config.device_key)
    journal, values = config.state_dir / JOURNAL, config.state_dir / VALUES
    _refuse_existing(out)
    with _in_words(out), _beside(out) as making:
        parts = (journal, values, values.with_name(f"{VALUES}-wal")) if with_values else (journal,)
        _refuse_without_space(making, 2 * sum(part.stat().st_size for part in parts if part.is_file()))
        # before the journal: each window that is sealed or thinned in the copy has its row in the rows that follow
        valued = with_values and _copy_values(values, making / VALUES, progress)
        copied = copy_journal(journal, making / JOURNAL, progress=partial(progress, "rows copied"))
        sources = {JOURNAL: making / JOURNAL}
        if (config.state_dir / VAULT).is_file():  # after the journal: each pseudonym that a copied row names is in it
            copy_vault(config.state_dir / VAULT, making / VAULT)
            sources[VAULT] = making / VAULT
        if valued:
            sources[VALUES] = making / VALUES
        sources |= _sealed_objects(config.state_dir) | _trust(config.state_dir)
        manifest = Manifest(
            format=FORMAT,
            box=config.box,
            made_utc=SystemClock().stamp().utc,
            journal=copied.journal_id.hex(),
            epoch=copied.epoch.hex(),
            head_seq=copied.seq,
            head_hash=copied.hash.hex(),
            files=tuple(_entry(name, path, progress) for name, path in sources.items()),
        )
        packed = making / "backup.tar"
        _pack(packed, manifest, sources, signer, progress)
        (making / JOURNAL).unlink()
        (making / VAULT).unlink(missing_ok=True)
        (making / VALUES).unlink(missing_ok=True)
        unpack(packed, making / "read-back", signer.public, progress=progress)
        _refuse_existing(out)
        packed.rename(out)
        sync_folder(out.parent)
    return manifest


def _copy_values(values: Path, target: Path, progress: Progress) -> bool:
    """Copy the process values of a box, which may run; False when it has none yet."""
    try:
        with HistoryReader(values) as reader:
            reader.copy(target, progress=partial(progress, "bytes of process values copied"))
    except LinesideError as error:
        if error.code == "values.absent":
            return False
        raise LinesideError(
            "backup.values",
            f"The process values cannot be copied. {error.what}",
            effect="No backup was made. The box is not disturbed.",
            todo="Make space, and ask `lineside history verify` what does not hold. With --without-values everything "
            "else is backed up; the values are then nowhere but on this box.",
        ) from error
    return True


def _sealed_objects(state: Path) -> dict[str, Path]:
    """The library's files by their name in a backup. A journal names only what was in the library before."""
    found = {}
    for path in sorted((state / "library").glob("*/*")):
        if path.name.startswith("."):
            continue  # one that is being written, and that no row names yet
        name = path.relative_to(state).as_posix()
        if not _SEALED_OBJECT.fullmatch(name) or path.is_symlink() or not path.is_file():
            raise LinesideError(
                "backup.library",
                f"{path} is not a sealed object: its name is not a hash, or it is not a file.",
                effect="No backup was made. The box is not disturbed.",
                todo="Move it away; only Lineside writes into the library.",
            )
        found[name] = path
    if len(found) > OBJECTS_MAX:
        raise LinesideError(
            "backup.library",
            f"The library has {len(found)} objects; a backup holds at most {OBJECTS_MAX}.",
            effect="No backup was made. The box is not disturbed.",
            todo="Tell whoever maintains the box.",
        )
    return found


def _trust(state: Path) -> dict[str, Path]:
    """The files that say whom the box trusts, by their name in a backup. Its own certificates and their keys stay."""
    found: dict[str, Path] = {}
    for path in sorted((state / "pki").glob("*/*")):
        if path.parent.name not in ("trusted", "issuers", "crl") or path.name.startswith("."):
            continue
        name = path.relative_to(state).as_posix()
        if not _TRUST.fullmatch(name) or path.is_symlink() or not path.is_file() or len(found) == TRUST_MAX:
            raise LinesideError(
                "backup.trust",
                f"{path} cannot be backed up: it is no plain file, has an unusual name, or there are too many.",
                effect="No backup was made. The box is not disturbed.",
                todo=f"Give it a short name of plain letters, or move it away; at most {TRUST_MAX} files are kept.",
            )
        found[name] = path
    return found


def _entry(name: str, path: Path, progress: Progress) -> FileEntry:
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
            progress("bytes hashed", stream.tell(), size)
        return FileEntry(name=name, size=stream.tell(), sha256=digest.hexdigest())


def _pack(path: Path, manifest: Manifest, sources: dict[str, Path], signer: Signer, progress: Progress) -> None:
    data = manifest.model_dump_json().encode()
    done = 0
    with _create(path) as stream:
        for name, content in (("manifest.json", data), ("manifest.sig", signer.sign(DOMAIN, data))):
            stream.write(header(name, len(content)) + content + padding(len(content)))
        for entry in manifest.files:
            stream.write(header(entry.name, entry.size))
            with sources[entry.name].open("rb") as source:
                while chunk := source.read(CHUNK_BYTES):
                    stream.write(chunk)
                    done += len(chunk)
                    progress("bytes written", done, manifest.bytes)
            stream.write(padding(entry.size))
        stream.write(END)
        _sync(stream)
        # what is read back comes from the medium, as far as the system lets us have it
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# Reading one -------------------------------------------------------------------------------------------------------


def unpack(backup: Path, folder: Path, public: bytes, *, progress: Progress = _quiet) -> Manifest:
    """Write what is in `backup` into the new folder `folder`, durable, and verify all of it: the signature with
    the key `public` before anything is interpreted, each hash, the journal's chain up to the head in the manifest.

    Raises `backup.unreadable`, `backup.foreign`, `backup.signature`, `backup.format`, `backup.damaged`,
    `backup.no_space` or `backup.cannot_write`; what is in `folder` then is not to be used."""
    with _open(backup) as stream:
        data = _small(stream, "manifest.json", MANIFEST_BYTES_MAX)
        signature = _small(stream, "manifest.sig", SIGNATURE_BYTES)
        if not signature_holds(public, DOMAIN, data, signature):
            raise LinesideError(
                "backup.signature",
                f"The signature does not hold with the key of device {fingerprint(public)}: "
                "another box made this backup, or it was changed.",
                todo="Give the public key of the box that made it with --key, or take another copy.",
            )
        manifest = _manifest(data)
        with _in_words(folder):
            folder.mkdir(mode=0o700)
            _refuse_without_space(folder, manifest.bytes)
        done = 0
        for entry in manifest.files:
            _expect(stream, header(entry.name, entry.size), entry.name)
            _write(stream, entry, folder / entry.name, partial(_counted, progress, done, manifest.bytes))
            _expect(stream, padding(entry.size), entry.name)
            done += entry.size
        _expect(stream, END, "its end")
        if _read(stream, 1):
            raise _damaged("Something follows its end.")
    with _in_words(folder):
        for path in (*folder.rglob("*"), folder):
            if path.is_dir():
                sync_folder(path)
    _verify(folder / JOURNAL, manifest, progress)
    return manifest


def _counted(progress: Progress, before: int, total: int, done: int) -> None:
    progress("bytes read", before + done, total)


def _verify(journal: Path, manifest: Manifest, progress: Progress) -> None:
    head = (manifest.head_seq, bytes.fromhex(manifest.head_hash))
    report = verify_journal(journal, expect_head=head, progress=partial(progress, "rows verified"))
    if report.fault is not None:
        raise _damaged(f"Its journal does not hold. {report.fault.why}")
    if report.head_seq != manifest.head_seq or report.journal != manifest.journal:
        raise _damaged("Its journal is not the one that the manifest names.")
    _leave_closed(journal)


def _leave_closed(journal: Path) -> None:
    for left in ("-wal", "-shm"):  # a reader of a closed journal makes them, and leaves them empty
        journal.with_name(journal.name + left).unlink(missing_ok=True)


def _small(stream: BinaryIO, name: str, limit: int) -> bytes:
    """The content of a file that must be read before the manifest is known."""
    block = _read(stream, BLOCK_BYTES)
    size = stated_size(block)
    if not 0 <= size <= limit or block != header(name, size):
        if name == "manifest.json":
            raise LinesideError(
                "backup.foreign",
                "This file does not begin as a backup of Lineside does.",
                todo="Check the path. If it was a backup, it is damaged: take another copy.",
            )
        raise _damaged(f"It is not as written at {name}.")
    data = _read(stream, size)
    if len(data) != size:
        raise _damaged(f"It ends within {name}.")
    _expect(stream, padding(size), name)
    return data


def _manifest(data: bytes) -> Manifest:
    """The manifest in bytes whose signature holds."""
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise _other_format() from error
    names = [entry.name for entry in manifest.files]
    optional = [name for name in (VAULT, VALUES) if name in names]
    sealed = names[1 + len(optional) :]
    if (
        manifest.format != FORMAT
        or names[: 1 + len(optional)] != [JOURNAL, *optional]
        or sealed != sorted(set(sealed))
        or not all(_SEALED_OBJECT.fullmatch(name) or _TRUST.fullmatch(name) for name in sealed)
    ):
        raise _other_format()
    return manifest


def _other_format() -> LinesideError:
    return LinesideError(
        "backup.format",
        f"Its manifest is not one of format {FORMAT}, the one that this version knows: it names files or facts that "
        "none has.",
        todo="Use the version of Lineside that made it, or a later one.",
    )


def _write(stream: BinaryIO, entry: FileEntry, target: Path, progress: Callable[[int], object]) -> None:
    digest, left = hashlib.sha256(), entry.size
    with _in_words(target):
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _create(target) as out:
            while left:
                chunk = _read(stream, min(CHUNK_BYTES, left))
                if not chunk:
                    raise _damaged(f"It ends within {entry.name}.")
                digest.update(chunk)
                out.write(chunk)
                left -= len(chunk)
                progress(entry.size - left)
            _sync(out)
    if digest.hexdigest() != entry.sha256:
        raise _damaged(f"{entry.name} was changed after the backup was made: its hash differs.")


def _expect(stream: BinaryIO, expected: bytes, where: str) -> None:
    if _read(stream, len(expected)) != expected:
        raise _damaged(f"It is not as written at {where}.")


def _damaged(what: str) -> LinesideError:
    return LinesideError(
        "backup.damaged", f"The backup is damaged. {what}", todo="Take another copy of it, or an earlier backup."
    )


# Putting one in place ----------------------------------------------------------------------------------------------


def restore(
    backup: Path,
    state: Path,
    public: bytes,
    *,
    complete: Callable[[Path], object] = lambda _: None,
    progress: Progress = _quiet,
) -> Manifest:
    """Make the folder `state`, which is empty or absent, hold what `backup` holds: all of it, verified, or nothing.

    `complete` is called with the restored journal before it appears, and may put rows behind it: later there is no
    place for them. The process values are then brought into line with all of its rows. There is no epoch: the next
    runtime begins a new one. Raises `backup.state_not_empty`, `values.*` and what `unpack` and `complete` do."""
    state = state.resolve()
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise LinesideError(
            "backup.state_not_empty",
            f"There is something in {state} already.",
            effect="Nothing was restored and nothing was overwritten.",
            todo="Stop the runtime. Move the folder away and keep it: it may hold rows that the backup lacks.",
        )
    with _in_words(state), _beside(state) as building:
        manifest = unpack(backup, building / "state", public, progress=progress)
        complete(building / "state" / JOURNAL)
        if manifest.values:
            settle(building / "state" / VALUES, _anchors(building / "state" / JOURNAL))
        (building / "state").rename(state)  # takes the place of an empty folder, and of nothing else
        sync_folder(state.parent)
    return manifest


def _anchors(journal: Path) -> Mapping[int, Anchor]:
    """What the rows of a closed journal say of windows."""
    with JournalReader(journal) as reader:
        kinds = (reader.rows_of_kind(kind) for kind in ("ValuesSealed", "ValuesThinned"))
        found = anchors_in((row.seq, row.body) for rows in kinds for row in rows)
    _leave_closed(journal)
    return found.of


@dataclass(frozen=True, slots=True)
class Drill:
    """A restore that was tried: what was restored, in what time, the epoch that a journal opened on it began, and what
    became of the process values; None when there are none in it."""

    manifest: Manifest
    seconds: float
    epoch: str
    values: Verified | None


def drill(backup: Path, public: bytes, *, progress: Progress = _quiet) -> Drill:
    """Restore into a temporary folder, verify the process values, and clean up. Call it off the loop.

    Raises what `restored` does."""
    began_s = time.monotonic()

    def verify_values(state: Path, manifest: Manifest) -> Verified | None:
        if not manifest.values:
            return None
        with HistoryReader(state / VALUES) as reader:
            return reader.verify(_anchors(state / JOURNAL), progress=partial(progress, "windows verified"))

    manifest, epoch, values = restored(backup, public, verify_values, None, progress)
    return Drill(manifest, time.monotonic() - began_s, epoch, values)


def restored(
    backup: Path, public: bytes, look: Callable[[Path, Manifest], T], folder: Path | None, progress: Progress
) -> tuple[Manifest, str, T]:
    """Restore into a temporary folder in `folder` (None: where such folders are), look at the restored state, open the
    journal there as a runtime does, and clean up. Gives the epoch that began, and what `look` gave.

    Raises what `restore` and `look` do, and `backup.drill` when the journal would not begin a new epoch at the same
    head."""
    with TemporaryDirectory(prefix=DRILL, dir=folder) as made:
        state = Path(made) / "state"
        manifest = restore(backup, state, public, progress=progress)
        seen = look(state, manifest)
        return manifest, asyncio.run(_begin(state, manifest)), seen


async def _begin(state: Path, manifest: Manifest) -> str:
    async with open_journal(state / JOURNAL, state / "epoch") as journal:
        head = (journal.durable_seq, journal.durable_hash.hex())
        if not journal.restored or head != (manifest.head_seq, manifest.head_hash):
            raise LinesideError(
                "backup.drill",
                f"A journal opened on this backup goes on in its former epoch or from another head: row {head[0]}.",
                effect="The drill failed: a box restored from this backup would make a second version of its rows.",
                todo="Do not restore this backup. Make a new one and tell whoever maintains the box.",
            )
        return journal.epoch.hex()


# The disk ----------------------------------------------------------------------------------------------------------


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the same medium as `path`, removed at the end; a cut leaves it, and it is in nobody's way."""
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        yield Path(folder)


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _sync(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _open(backup: Path) -> Iterator[BinaryIO]:
    try:
        stream = backup.open("rb") if backup.is_file() else None
    except OSError as error:
        raise _unreadable(str(backup), str(error.strerror)) from error
    if stream is None:
        raise _unreadable(str(backup), "it is not a file")
    with stream:
        yield stream


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.read(size)
    except OSError as error:
        raise _unreadable(stream.name, str(error.strerror)) from error


def _unreadable(name: str, why: str) -> LinesideError:
    return LinesideError(
        "backup.unreadable",
        f"The backup {name} cannot be read: {why}.",
        todo="Check the path and the medium, or take another copy.",
    )


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinesideError(
            "backup.cannot_write",
            f"{path} cannot be made: {error.strerror or error}.",
            effect="Nothing was put in place and nothing was overwritten.",
            todo="Check that its folder is there, that this user may write to it, and that the medium has space.",
        ) from error


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise LinesideError(
            "backup.exists", f"There is a file {out} already.", todo="Give the backup a name of its own."
        )


def _refuse_without_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LinesideError(
            "backup.no_space",
            f"{needed:,} bytes are needed beside the target; {free:,} are free.",
            effect="Nothing was put in place and nothing was overwritten.",
            todo="Make space, or use a larger medium.",
        )
