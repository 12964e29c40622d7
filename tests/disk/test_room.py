"""The rules of free space, and the ballast on whatever disk the tests run on: no privileges needed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge.clock import SystemClock
from edge.core.errors import LinesideError
from edge.core.events import RowBody, SessionClosed
from edge.core.room import (
    BACK_BYTES,
    BALLAST_BYTES,
    FULL_BYTES,
    LOW_BYTES,
    STEP_BYTES,
    Forecast,
    Level,
    Room,
    forecast,
    level_of,
    needed_bytes,
    refuse_batch_that_will_not_fit,
    refuse_while_full,
)
from edge.core.terms import ClockQuality, Stamp
from edge.disk import Disk, ballast_bytes, read_forecast, read_room
from edge.journal import open_journal

DAY_S = 86_400.0


@pytest.mark.parametrize("was", Level)
def test_levels(was: Level) -> None:
    assert level_of(0, was) is Level.FULL
    assert level_of(FULL_BYTES - 1, was) is Level.FULL
    assert level_of(BACK_BYTES, was) is Level.LOW
    assert level_of(LOW_BYTES - 1, was) is Level.LOW
    assert level_of(LOW_BYTES, was) is Level.ROOM


def test_a_full_disk_is_full_until_there_is_clearly_more() -> None:
    assert level_of(BACK_BYTES - 1, Level.FULL) is Level.FULL
    assert level_of(BACK_BYTES - 1, Level.LOW) is Level.LOW
    assert level_of(FULL_BYTES + BALLAST_BYTES, Level.FULL) is Level.FULL, "the released ballast alone is no room"
    assert level_of(BACK_BYTES - BALLAST_BYTES, Level.LOW) is Level.LOW, "taking the ballast back fills nothing"


def test_a_forecast_is_a_number_only_when_the_rate_is_known() -> None:
    assert forecast(10_000, 1_000, DAY_S) == Forecast(10.0)
    assert forecast(10_000, 1_000, DAY_S / 2) == Forecast(5.0)
    for free_bytes, grown, over_s in ((10_000, 0, DAY_S), (10_000, -5, DAY_S), (10_000, 5, 60.0), (None, 5, DAY_S)):
        unknown = forecast(free_bytes, grown, over_s)
        assert unknown.days is None
        assert unknown.why
    assert forecast(10_000, 5, -60.0).days is None, "the wall clock was set back"


def test_the_estimate_counts_every_step_on_top_of_the_reserve() -> None:
    needed = needed_bytes(30)
    assert needed == LOW_BYTES + 30 * STEP_BYTES
    refuse_batch_that_will_not_fit(Room(Level.ROOM, needed), 30)
    for room in (Room(Level.ROOM, needed - 1), Room(Level.ROOM, None), Room(Level.FULL, needed)):
        with pytest.raises(LinesideError) as refused:
            refuse_batch_that_will_not_fit(room, 30)
        assert refused.value.code == "disk.batch_will_not_fit"


def test_only_a_full_disk_keeps_what_is_held_from_going_on() -> None:
    refuse_while_full(Room(Level.LOW, BACK_BYTES))
    with pytest.raises(LinesideError) as refused:
        refuse_while_full(Room(Level.FULL, 0))
    assert refused.value.code == "disk.full"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """How much the system says is free."""
    said = SimpleNamespace(bytes=LOW_BYTES)

    def statvfs(_path: Path) -> SimpleNamespace:
        if said.bytes is None:
            raise OSError(errno.EIO, "the disk does not answer")
        return SimpleNamespace(f_bavail=said.bytes, f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return said


def test_the_ballast_goes_when_the_disk_is_full_and_comes_back_with_the_room(
    tmp_path: Path, free: SimpleNamespace
) -> None:
    disk = Disk(tmp_path, SystemClock().utc)
    disk.start()
    assert ballast_bytes(tmp_path) >= BALLAST_BYTES, "really allocated"
    assert (disk.look(), disk.notices()) == (False, ())
    free.bytes = FULL_BYTES - 1
    assert disk.look()
    assert not (tmp_path / "ballast").exists()
    assert "full" in disk.notices()[0]
    free.bytes = FULL_BYTES + BALLAST_BYTES
    assert not disk.look()
    assert read_room(tmp_path).level is Level.FULL, "seen from outside, and after a restart"
    free.bytes = BACK_BYTES
    assert disk.look()
    assert ballast_bytes(tmp_path) >= BALLAST_BYTES
    assert "nearly full" in disk.notices()[0]


def test_a_ballast_that_does_not_fit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    disk = Disk(tmp_path, SystemClock().utc)
    disk.start()
    assert list(tmp_path.iterdir()) == []


def test_free_space_that_cannot_be_read_is_said_and_releases_nothing(tmp_path: Path, free: SimpleNamespace) -> None:
    disk = Disk(tmp_path, SystemClock().utc)
    disk.start()
    free.bytes = None
    assert not disk.look()
    assert disk.room == Room(Level.ROOM, None)
    assert (tmp_path / "ballast").exists()
    assert "cannot be read" in disk.notices()[0]


def test_a_full_disk_is_named_instead_of_what_failed_because_of_it(tmp_path: Path, free: SimpleNamespace) -> None:
    disk = Disk(tmp_path, SystemClock().utc)
    cannot_open = LinesideError("journal.cannot_open", "It cannot be used.", todo="Look.")
    for free_bytes, error, code in (
        (0, cannot_open, "disk.no_room"),
        (LOW_BYTES, cannot_open, "journal.cannot_open"),
        (0, OSError(errno.ENOSPC, "No space left"), "disk.no_room"),
    ):
        free.bytes = free_bytes
        with pytest.raises(LinesideError) as named, disk.naming_full():
            raise error
        assert named.value.code == code
    with pytest.raises(PermissionError), disk.naming_full():
        raise PermissionError(errno.EACCES, "no")


async def test_the_forecast_is_the_rate_of_the_last_days(tmp_path: Path, free: SimpleNamespace) -> None:
    def row(day: int) -> RowBody:
        at = Stamp(f"2026-01-{day:02}T12:00:00.000000Z", ClockQuality.SYNCED, 1.0, "b")
        return RowBody(SessionClosed(session="s", person="p", reason="r"), at, "p")

    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        for day, rows in ((1, 50), (15, 20), (20, 30)):
            await journal.append([row(day)] * rows).durable()
    row_bytes = (tmp_path / "journal.db").stat().st_size / 100
    free.bytes = 1_000_000
    known = read_forecast(tmp_path, "2026-01-21T12:00:00Z")
    assert known.days == pytest.approx(1_000_000 / (50 * row_bytes / 7))
    assert read_forecast(tmp_path, "2026-02-21T12:00:00Z").why == "the journal is not growing"
    assert read_forecast(tmp_path, "2026-01-01T12:30:00Z").days is None
