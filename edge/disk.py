"""The disk under the state folder: how much is free, the ballast that a full disk gives back, and a forecast.

The ballast is a file of really allocated blocks. It is released when the disk fills, so that stops, aborts and
outcomes can still be written, and taken back when there is room again (docs/explanation/full-disk.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.quick import dataclass
from edge.core.room import (
    BACK_BYTES,
    BALLAST_BYTES,
    FULL_BYTES,
    LOW_BYTES,
    SOON_DAYS,
    STEP_BYTES,
    Forecast,
    Level,
    Room,
    forecast,
    level_of,
    said,
)
from edge.identity import sync_folder
from edge.journal import JournalReader

BALLAST_NAME: Final = "ballast"
FORECAST_EVERY_S: Final = 600.0
RATE_DAYS: Final = 7
"""The rate is that of the rows of the last so many days."""
BLOCK_BYTES: Final = 512
"""The unit of `st_blocks`, whatever the file system's own block size is."""


class Disk:
    """The disk of one runtime. `start` and `look` belong to the loop's thread and take microseconds but at a change."""

    def __init__(self, state_dir: Path, utc: Callable[[], str]) -> None:
        """`utc` is the wall clock, ISO 8601."""
        self._folder = state_dir
        self._utc = utc
        self._ballast = state_dir / BALLAST_NAME
        self.room = Room(Level.ROOM, None)
        self.forecast = Forecast(None, "no forecast was made yet")

    def start(self) -> None:
        """Look for the first time, before the journal is opened: on a full disk that needs the ballast's space."""
        self.room = read_room(self._folder)
        self._settle()

    def look(self) -> bool:
        """See what is free, and release or take back the ballast. True when the level changed."""
        was = self.room
        free = _free_bytes(self._folder)
        self.room = Room(was.level if free is None else level_of(free, was.level), free)
        self._settle()
        return self.room.level is not was.level

    def _settle(self) -> None:
        """Have the ballast when the disk is not full, and not when it is."""
        if self.room.level is Level.FULL:
            if self._ballast.exists():
                self._ballast.unlink()
                sync_folder(self._folder)  # some file systems give blocks back with the next commit only
        elif self.room.free_bytes is not None and ballast_bytes(self._folder) < BALLAST_BYTES <= self.room.free_bytes:
            self._take_back()

    def _take_back(self) -> None:
        handle = os.open(self._ballast, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, BALLAST_BYTES)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self._ballast.unlink()  # somebody was faster: the next look tries again
        finally:
            os.close(handle)

    async def keep_forecasting(self) -> None:
        """Make the forecast anew from time to time, beside the loop, until cancelled."""
        while True:
            try:
                self.forecast = await asyncio.to_thread(read_forecast, self._folder, self._utc())
            except LinesideError as error:
                self.forecast = Forecast(None, error.what)
            await asyncio.sleep(FORECAST_EVERY_S)

    def notices(self) -> tuple[str, ...]:
        """What the operator must know of the disk; nothing when all is well."""
        notice = self._notice()
        return (notice,) if notice else ()

    def _notice(self) -> str:
        free, ahead = self.room.free_bytes, self.forecast
        if free is None:
            return "The free space of the disk cannot be read: no batch starts. Have the disk checked."
        if self.room.level is Level.FULL:
            return (
                f"The disk is full: {said(free)} free. Batches are held; they can be stopped and aborted. "
                f"Make room until {said(BACK_BYTES)} are free, then resume them."
            )
        if self.room.level is Level.LOW:
            return (
                f"The disk is nearly full: {said(free)} free, {ahead}. No batch starts below {said(LOW_BYTES)}; "
                f"running ones go on until {said(FULL_BYTES)}. Make room on the disk."
            )
        if ahead.days is not None and ahead.days < SOON_DAYS:
            return f"The disk has {said(free)} free, {ahead}. Plan to make room."
        return ""

    @contextlib.contextmanager
    def naming_full(self) -> Iterator[None]:
        """Where the disk is full, say so instead of what failed because of it: the runtime may be started again."""
        try:
            yield
        except (OSError, LinesideError) as error:
            if isinstance(error, LinesideError):
                free = _free_bytes(self._folder)
                refused = error.code in {"journal.cannot_open", "library.cannot_write"}
                because_full = refused and free is not None and free < FULL_BYTES
            else:
                because_full = error.errno == errno.ENOSPC
            if not because_full:
                raise
            raise LinesideError(
                "disk.no_room",
                f"The disk is full ({said(_free_bytes(self._folder))} free): the runtime cannot begin.",
                effect="No batch goes on. What was recorded is kept.",
                todo=f"Make room on the disk of {self._folder}; the runtime is then started again by itself.",
            ) from error


def read_room(state_dir: Path) -> Room:
    """The room there is now, as a runtime sees it at its start; changes nothing.

    A missing ballast was released on a full disk, or was never made."""
    free = _free_bytes(state_dir)
    was = Level.ROOM if ballast_bytes(state_dir) else Level.FULL
    return Room(was if free is None else level_of(free, was), free)


def ballast_bytes(state_dir: Path) -> int:
    """What the ballast really has of the disk."""
    try:
        return (state_dir / BALLAST_NAME).stat().st_blocks * BLOCK_BYTES
    except FileNotFoundError:
        return 0


def _free_bytes(folder: Path) -> int | None:
    try:
        found = os.statvfs(folder)
    except OSError:
        return None  # shown as unknown; a disk that is gone ends the runtime at the next commit
    return found.f_bavail * found.f_frsize


def read_forecast(state_dir: Path, utc: str) -> Forecast:
    """The forecast at the rate of the rows of the last `RATE_DAYS` days. Reads a few dozen rows.

    Raises what `JournalReader` raises."""
    path = state_dir / "journal.db"
    now = datetime.fromisoformat(utc)
    with JournalReader(path) as reader:
        first, (last, _) = reader.first_seq(), reader.head()

        def made(seq: int) -> datetime:
            return datetime.fromisoformat(decode(reader.rows(seq - 1, 1)[0].body).at.utc)

        if last < first:
            return Forecast(None, "the journal has no rows")
        since = now - timedelta(days=RATE_DAYS)
        low, high = first, last  # the first row that is young enough, or the last row
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if made(middle) < since else (low, middle)
        rows = last - low + 1 if made(low) >= since else 0
        over_s = min((now - made(first)).total_seconds(), timedelta(days=RATE_DAYS).total_seconds())
    # what is made from the journal beside it grows with it, and keeps what the journal no longer has
    beside = sum(file.stat().st_size for file in state_dir.glob("*.db") if file != path)
    row_bytes = path.stat().st_size / (last - first + 1) + beside / last
    return forecast(_free_bytes(state_dir), rows * row_bytes, over_s)


@dataclass(frozen=True, slots=True)
class Status:
    """All that `lineside disk status` says."""

    level: Level
    free_bytes: int | None
    ballast_bytes: int
    forecast: Forecast
    refused: tuple[str, ...]
    """What nobody may do now."""
    levels: Mapping[str, int]
    """The figures in bytes, by what they mean."""

    def as_json(self) -> dict[str, object]:
        """The machine's form."""
        return {
            "level": self.level.value,
            "free_bytes": self.free_bytes,
            "ballast_bytes": self.ballast_bytes,
            "forecast_days": self.forecast.days,
            "forecast": str(self.forecast),
            "refused": list(self.refused),
            "levels": dict(self.levels),
        }


REFUSED: Final = {
    Level.ROOM: (),
    Level.LOW: ("starting a batch",),
    Level.FULL: ("starting a batch", "resuming a batch"),
}
LEVELS: Final = {
    "no_batch_starts_below": LOW_BYTES,
    "and_for_each_step": STEP_BYTES,
    "full_below": FULL_BYTES,
    "not_full_again_from": BACK_BYTES,
}


def read_status(state_dir: Path, utc: str) -> Status:
    """The disk as it is now; works beside a running box and without one, and changes nothing."""
    room = read_room(state_dir)
    try:
        ahead = read_forecast(state_dir, utc)
    except LinesideError as error:
        ahead = Forecast(None, error.what)
    return Status(room.level, room.free_bytes, ballast_bytes(state_dir), ahead, REFUSED[room.level], LEVELS)
