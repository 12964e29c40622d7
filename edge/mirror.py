"""A continuous copy of the journal on a second medium, so that a box that dies offline takes nothing along.

One file a journal, `<journal>.frames`: "LSM" 01, then each frame with its length (4 bytes) before it. Every frame
is fsynced and read back before its rows count as copied. A medium that fails is reported and tried again; it
never stops anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, Literal

from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.frame import Frame
from edge.core.record import ZERO_HASH, Signer, fingerprint
from edge.tail import Tail

HEADER: Final = b"LSM\x01"
COPY_EVERY_S: Final = 0.25
"""Rows of this long go into one frame: a second medium is often slow to flush."""
RETRY_S: Final = (2.0, 60.0)
_LENGTH: Final = struct.Struct(">I")


def read_mirror(path: Path, trusted: Mapping[str, bytes]) -> Iterator[Frame]:
    """The frames of a copy in order, each verified and chained to the one before.

    Raises `mirror.foreign`, `mirror.broken`, `mirror.cut` when its last frame was cut short, after all whole ones were
    yielded, or what `edge.core.frame.read` raises."""
    with path.open("rb") as file:
        _check_header(file, path)
        seq, head = 0, ZERO_HASH
        while data := _next(file, path):
            got = frame.read(data, trusted)
            if got.first_seq != seq + 1 or got.previous != head:
                raise _broken(path, f"the frame from row {got.first_seq} does not follow row {seq}")
            seq, head = got.last_seq, got.head
            yield got


class Mirror:
    """Copies one journal into a folder on the second medium. `run` it; `state` may be asked at any time."""

    def __init__(
        self,
        tail: Tail,
        folder: Path,
        *,
        signer: Signer,
        on_change: Callable[[], None] = lambda: None,
        retry_s: tuple[float, float] = RETRY_S,
        every_s: float = COPY_EVERY_S,
    ) -> None:
        """`folder` must exist: it is never made, lest the copy land on the first medium when the second is out."""
        self.copied_seq = 0
        """The last row that was read back from the second medium."""
        self.state: Literal["ok", "failed"] = "failed"
        self.detail = "The second medium was not looked at yet."
        self._tail = tail
        self._folder = folder
        self._path = folder / f"{tail.journal_id.hex()}.frames"
        self._trusted = {fingerprint(signer.public): signer.public}
        self._on_change = on_change
        self._retry_s = retry_s
        self._every_s = every_s

    async def run(self) -> None:
        """Copy until cancelled."""
        grown = asyncio.Event()
        self._tail.on_grown.append(grown.set)
        pause_s = self._retry_s[0]
        try:
            while True:
                try:
                    with contextlib.closing(await asyncio.to_thread(self._open)) as file:
                        await self._resume(file)
                        while True:
                            self._tell("ok", "")
                            pause_s = self._retry_s[0]
                            grown.clear()
                            while self.copied_seq < self._tail.made_seq:
                                data, last_seq = await self._tail.frame_from(self.copied_seq + 1)
                                await asyncio.to_thread(self._append, file, data)
                                self.copied_seq = last_seq
                                self._on_change()
                            await grown.wait()
                            await asyncio.sleep(self._every_s)
                except OSError as error:
                    self._tell("failed", f"The second medium at {self._folder} fails: {error.strerror or error}.")
                except LinesideError as error:
                    self._tell("failed", error.what)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._retry_s[1])
        finally:
            self._tail.on_grown.remove(grown.set)

    def _open(self) -> BinaryIO:
        """The file, at the end of its last whole frame."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            if os.fstat(descriptor).st_size < len(HEADER):
                file.truncate(0)
                file.write(HEADER)
                os.fsync(descriptor)
                folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
        except BaseException:
            file.close()
            raise
        return file

    async def _resume(self, file: BinaryIO) -> None:
        """Go to the end of the last whole frame, and see that it is a copy of this journal."""
        last = await asyncio.to_thread(self._last, file)
        seq, head = (last.last_seq, last.head) if last else (0, ZERO_HASH)
        if await self._tail.hash_at(seq) != head:
            raise LinesideError(
                "mirror.contradicts",
                f"The copy at {self._path} ends with a row {seq} that is not in this journal.",
                effect="Nothing is copied and the copy is left as it is; work goes on.",
                todo="Keep that file: it may hold rows that this box lost. Put in another medium, or move the file.",
            )
        self.copied_seq = seq

    def _last(self, file: BinaryIO) -> Frame | None:
        """The last whole frame; what was cut short behind it by a power cut is cut off."""
        file.seek(0)
        _check_header(file, self._path)
        last, end, size = b"", file.tell(), os.fstat(file.fileno()).st_size
        with contextlib.suppress(LinesideError):  # cut short: everything before it is whole
            while data := _next(file, self._path):
                last, end = data, file.tell()
        got = frame.read(last, self._trusted) if last else None
        if end < size:
            file.truncate(end)
        file.seek(end)
        return got

    def _append(self, file: BinaryIO, data: bytes) -> None:
        start = file.tell()
        try:
            _write_through(file, start, _LENGTH.pack(len(data)) + data)
        except OSError:
            with contextlib.suppress(OSError):  # else opening it again cuts off what is not whole
                file.truncate(start)
            raise

    def _tell(self, state: Literal["ok", "failed"], detail: str) -> None:
        if (state, detail) != (self.state, self.detail):
            self.state, self.detail = state, detail
            self._on_change()


def _write_through(file: BinaryIO, start: int, record: bytes) -> None:
    if file.write(record) != len(record):
        raise OSError(None, "it took only a part of what was written")
    os.fsync(file.fileno())
    # Without this the kernel would answer from memory, whatever the medium holds.
    os.posix_fadvise(file.fileno(), start, len(record), os.POSIX_FADV_DONTNEED)
    if os.pread(file.fileno(), len(record), start) != record:
        raise OSError(None, "what was read back is not what was written")


def _check_header(file: BinaryIO, path: Path) -> None:
    if file.read(len(HEADER)) != HEADER:
        raise LinesideError(
            "mirror.foreign",
            f"{path} is not a copy of a journal.",
            effect="Nothing is copied to it and it is left as it is; work goes on.",
            todo="Move the file away, or name another folder.",
        )


def _next(file: BinaryIO, path: Path) -> bytes:
    """The next frame's bytes; empty at the end. Raises `mirror.cut` when it is cut short."""
    length = file.read(_LENGTH.size)
    if not length:
        return b""
    size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
    if not 0 < size <= frame.FRAME_BYTES_MAX:
        raise _cut(path, "what follows has no possible length")
    data = file.read(size)
    if len(data) != size:
        raise _cut(path, "its last frame was cut short")
    return data


def _cut(path: Path, why: str) -> LinesideError:
    return LinesideError(
        "mirror.cut",
        f"The copy {path} ends in the middle of a frame: {why}.",
        effect="The frames before are whole and verified.",
        todo="Use what was read; compare it with the hub's rows for what is missing.",
    )


def _broken(path: Path, why: str) -> LinesideError:
    return LinesideError(
        "mirror.broken",
        f"The copy {path} is not whole: {why}.",
        effect="The frames before are whole and verified.",
        todo="Use what was read; compare it with the hub's rows for what is missing.",
    )
