"""Ninety days without a hub: nothing expires in silence, no timer is skipped or doubled, and no row is lost."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from edge.core.line import Elapsed, Stamp
from edge.journal import verify_journal
from tests.simulation.ninety_days import NinetyDays

FIRST = 1
"""A run in which all of `SEEN` happens."""
SEEDS = range(FIRST, FIRST + int(os.environ.get("LINESIDE_SEEDS", "1")))
SEEN = (
    *("ExpiryNear", "near in time", "ExpiryPassed", "ExpiryEnded", "held for expiry", "held for dark", "TrendJudged"),
    *("DarkVerified", "known", "unknown", "killed", "segments"),
)


@pytest.mark.parametrize("seed", SEEDS)
async def test_ninety_days_with_reboots_and_power_cuts(tmp_path: Path, seed: int) -> None:
    box = NinetyDays(tmp_path, seed)
    await box.play()
    report = verify_journal(tmp_path / "journal.db")
    assert report.ok, report.fault
    assert (report.first_seq, report.head_seq) == (box.archived[0] + 1, box.line.seq), "old rows left, none is lost"
    assert box.counted["BatchStarted"] >= 10
    assert seed != FIRST or {one for one in SEEN if not box.counted[one]} == set(), "what this is about did not happen"
    assert {name.partition(":")[0] for *_, name in box.timers} >= {"duration", "daily", "=trend"}
    assert sum(days is not None and days > 0 for days in box.forecasts) >= 10, "what the disk comes to is said"


def no_time(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """Planted: a stretch in which the box was off did not happen."""
    if earlier is None or earlier.boot != later.boot:
        return Elapsed(0.0, 0.0)
    return Elapsed(later.boottime_s - earlier.boottime_s, later.boottime_s - earlier.boottime_s)


def by_any_wall(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """Planted: a wall clock that nobody has set is believed."""
    if earlier is None or earlier.boot == later.boot:
        return no_time(earlier, later)
    passed_s = (datetime.fromisoformat(later.utc) - datetime.fromisoformat(earlier.utc)).total_seconds()
    return Elapsed(max(0.0, passed_s), max(0.0, passed_s))


@pytest.mark.parametrize("bug", [no_time, by_any_wall])
async def test_planted_bugs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bug: object) -> None:
    monkeypatch.setattr("edge.core.line.between", bug)
    monkeypatch.setattr("edge.core.decide.between", bug)
    with pytest.raises(AssertionError, match=r"s in truth|expired and no row says so|do not give"):
        await NinetyDays(tmp_path, FIRST).play()
