"""A disk that remembers every write, so that any moment of a run can be the one when the power failed.

`CrashDisk` is SQLite's own layer to the system with a log beside it. `image` makes, from the log up to any
point, one of the states that a disk may be left in: what was synced is there; of what was not, each write is
there, is not, or is there in part, in any combination.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw

SECTOR = 512
_names = itertools.count()


@dataclass(frozen=True, slots=True)
class Op:
    """One call that changes a file: write, truncate, sync, delete; "folder", a sync of the folder, which is
    what makes a deletion sure; or a "mark" of the test itself."""

    what: str
    file: str
    offset: int = 0
    data: bytes = b""
    mark: object = None


@dataclass
class CrashDisk:
    """`lies` names ops ("sync", "folder") that say "done" and have done nothing. `fail_at` makes the op of that
    number, and all later ones, fail with `error`; a write that fails is half done."""

    lies: frozenset[str] = frozenset()
    fail_at: int | None = None
    error: type[apsw.Error] = apsw.IOError
    log: list[Op] = field(default_factory=list)
    failed: bool = False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self.name = f"crash-disk-{next(_names)}"

    @contextlib.contextmanager
    def mounted(self) -> Iterator[str]:
        """Usable as a VFS of this name inside the block."""
        vfs = _Vfs(self)
        try:
            yield self.name
        finally:
            vfs.unregister()

    def mark(self, mark: object) -> None:
        with self._lock:
            self.log.append(Op("mark", "", mark=mark))

    def note(self, op: Op) -> None:
        with self._lock:
            if self.fail_at is not None and len(self.log) >= self.fail_at:
                self.failed = True
                raise self.error(f"planted at {op.what} {op.file}")
            if op.what not in self.lies:
                self.log.append(op)


class _Vfs(apsw.VFS):
    def __init__(self, disk: CrashDisk) -> None:
        self._disk = disk
        super().__init__(disk.name, "unix")

    def xOpen(self, name, flags):  # noqa: N802 - SQLite's name
        return _File(self._disk, name, flags)

    def xDelete(self, name, sync_folder):  # noqa: N802
        self._disk.note(Op("delete", Path(name).name))
        super().xDelete(name, sync_folder)
        if sync_folder:
            self._disk.note(Op("folder", ""))


class _File(apsw.VFSFile):
    def __init__(self, disk: CrashDisk, name, flags) -> None:
        self._disk = disk
        self._file = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__("unix", name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        try:
            self._disk.note(Op("write", self._file, offset, bytes(data)))
        except apsw.Error:
            super().xWrite(data[: len(data) // 2], offset)
            raise
        super().xWrite(data, offset)

    def xTruncate(self, size):  # noqa: N802
        self._disk.note(Op("truncate", self._file, size))
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802
        self._disk.note(Op("sync", self._file))
        super().xSync(flags)


class _State:
    """One file: what is surely on the disk, and what is on its way."""

    def __init__(self) -> None:
        self.sure: bytearray | None = None
        self.unsure: list[Op] = []


def image(log: list[Op], upto: int, how: str, seed: int) -> dict[str, bytes]:
    """The files after a power failure before op number `upto`.

    `how`: "drop" (nothing unsynced survived), "keep" (all did), "mix" (each write did or did not),
    "tear" (each sector did or did not)."""
    rng = random.Random(seed)
    files: dict[str, _State] = {}
    for op in log[:upto]:
        if op.what == "mark":
            continue
        if op.what == "folder":
            for state in files.values():
                deletions = [at for at, unsure in enumerate(state.unsure) if unsure.what == "delete"]
                if deletions:
                    _settle(state, deletions[-1] + 1)
            continue
        state = files.setdefault(op.file, _State())
        if op.what == "sync":
            _settle(state, len(state.unsure))
        else:
            state.unsure.append(op)
    left = {}
    for name, state in files.items():
        for op in state.unsure:
            if how == "keep" or (how == "mix" and rng.random() < 0.5):
                _apply(state, op)
            elif how == "tear":
                for part in _torn(op, rng):
                    _apply(state, part)
        if state.sure is not None:
            left[name] = bytes(state.sure)
    return left


def _settle(state: _State, count: int) -> None:
    for op in state.unsure[:count]:
        _apply(state, op)
    del state.unsure[:count]


def _torn(op: Op, rng: random.Random) -> Iterator[Op]:
    if op.what != "write":
        if rng.random() < 0.5:
            yield op
        return
    at = 0
    while at < len(op.data):
        end = min(len(op.data), (op.offset + at) // SECTOR * SECTOR + SECTOR - op.offset)
        if rng.random() < 0.5:
            yield Op("write", op.file, op.offset + at, op.data[at:end])
        at = end


def _apply(state: _State, op: Op) -> None:
    if op.what == "delete":
        state.sure = None
        return
    if state.sure is None:
        state.sure = bytearray()
    sure = state.sure
    size = op.offset + len(op.data)
    if op.what == "truncate":
        del sure[op.offset :]
    if len(sure) < size:
        sure.extend(bytes(size - len(sure)))
    sure[op.offset : size] = op.data
