"""What the free space of the disk permits: pure rules, with their figures in one place."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from edge.core.errors import LinesideError
from edge.core.quick import dataclass

MIB: Final = 1024 * 1024
BALLAST_BYTES: Final = 4 * MIB
"""Kept allocated for a full disk: thousands of rows, where a stop and its outcomes need a few dozen."""
FULL_BYTES: Final = 4 * MIB
"""With less the disk is full: the ballast is released and batches are held."""
BACK_BYTES: Final = 12 * MIB
"""A full disk is well again from here on, so that taking the ballast back does not fill it again."""
LOW_BYTES: Final = 32 * MIB
"""With less no batch starts. More than the write-ahead log's longest (8 MiB) on top of `BACK_BYTES`."""
STEP_BYTES: Final = 32 * 1024
"""What one step may add to the journal. Every phase of the shipped recipe stays below a quarter of it."""
RATE_S_MIN: Final = 3600.0
"""Rows of a shorter time say too little about the days to come."""
SOON_DAYS: Final = 14.0
"""A disk that will be full within so many days is shown to the operator."""


class Level(StrEnum):
    """How full the disk is."""

    ROOM = "room"
    """Enough for what may be started."""
    LOW = "low"
    """No batch starts; running ones go on."""
    FULL = "full"
    """The ballast is released, batches are held; stopping and aborting stay possible."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Days until the disk is full at the journal's present growth; None, with the reason, when nothing is known."""

    days: float | None
    why: str = ""

    def __str__(self) -> str:
        if self.days is None:
            return f"forecast unknown: {self.why}"
        return f"full in about {self.days:.1f} days at the present rate"


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of the disk now. `free_bytes` is None when the system does not say."""

    level: Level
    free_bytes: int | None


def level_of(free_bytes: int, was: Level) -> Level:
    """The level at this free space. A full disk stays full until there is clearly more (`BACK_BYTES`)."""
    if free_bytes < FULL_BYTES or (was is Level.FULL and free_bytes < BACK_BYTES):
        return Level.FULL
    return Level.LOW if free_bytes < LOW_BYTES else Level.ROOM


def needed_bytes(steps: int) -> int:
    """Free space that batches with so many steps in all need before one of them may start."""
    return LOW_BYTES + steps * STEP_BYTES


def forecast(free_bytes: int | None, grown_bytes: float, over_s: float) -> Forecast:
    """When the disk is full, if the journal goes on growing by `grown_bytes` in `over_s`. Never a made-up number."""
    if free_bytes is None:
        return Forecast(None, "the free space cannot be read")
    if over_s < RATE_S_MIN:
        return Forecast(None, "the rows tell of less than an hour")
    if grown_bytes <= 0:
        return Forecast(None, "the journal is not growing")
    return Forecast(free_bytes * over_s / grown_bytes / 86_400.0)


def refuse_batch_that_will_not_fit(room: Room, steps: int) -> None:
    """Raise `disk.batch_will_not_fit` unless batches with `steps` steps in all (running ones included) fit."""
    needed = needed_bytes(steps)
    if room.level is Level.FULL or room.free_bytes is None or room.free_bytes < needed:
        raise LinesideError(
            "disk.batch_will_not_fit",
            f"The disk has {said(room.free_bytes)} free; with the batches that run, this one needs {said(needed)}.",
            todo="Make room on the disk, or start the batch on another box. `lineside disk status` shows the levels.",
        )


def refuse_while_full(room: Room) -> None:
    """Raise `disk.full` when nothing may go on."""
    if room.level is Level.FULL:
        raise LinesideError(
            "disk.full",
            f"The disk is full: {said(room.free_bytes)} free.",
            effect="The batch stays held. It can be stopped and aborted.",
            todo="Make room on the disk, then resume the batch.",
        )


def said(size_bytes: int | None) -> str:
    """A size for a person."""
    return "an unknown amount" if size_bytes is None else f"{size_bytes / MIB:,.1f} MiB"
