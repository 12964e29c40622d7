"""SIGKILL of the real runtime at random moments of CART-B1: the simulated devices' own counters are the judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.core import events as ev
from edge.core.events import RowBody
from edge.core.terms import ClockQuality, Stamp
from tests.crash.runtime_kills import AT_INTENTS, careless_and_judged, judge_writes, killed_and_judged

KILLS = int(os.environ.get("LINESIDE_KILLS", "20"))
SEED = int(os.environ.get("LINESIDE_SEED", "7"))


@pytest.mark.timeout(300)
async def test_killed_at_random_moments_the_record_is_the_same_and_nothing_is_written_twice(tmp_path: Path) -> None:
    reached = await killed_and_judged(tmp_path, SEED, KILLS)
    assert reached.kills == KILLS, f"seed {SEED}: the batch was over after {reached.kills} kills"
    assert reached.in_doubt >= min(AT_INTENTS, KILLS) // 2, f"seed {SEED}: too few kills hit a write under way"


@pytest.mark.timeout(300)
async def test_a_runtime_that_takes_up_writes_by_itself_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="was written 2 times for 1 intents"):
        await careless_and_judged(tmp_path)


def intended(*writes: tuple[int, float]) -> list[tuple[int, RowBody]]:
    """The rows of writes to one tag, each of an attempt and a value."""
    at = Stamp("", ClockQuality.FREE, 0.0, "")
    return [
        (seq, RowBody(ev.CommandIntended(
            batch="B-001", step="080", iteration=1, attempt=attempt, tag="BR-1.setpoint", value=value, unit="degC",
            before=None,
        ), at, "lineside"))
        for seq, (attempt, value) in enumerate(writes, 1)
    ]  # fmt: skip


def test_the_judge_tells_a_ramp_from_a_repetition() -> None:
    judge_writes(intended((1, 36.0), (2, 35.0), (3, 34.0)), {"BR-1.setpoint": 3})
    with pytest.raises(AssertionError, match="written again without a signed decision"):
        judge_writes(intended((1, 36.0), (2, 36.0)), {"BR-1.setpoint": 2})
    with pytest.raises(AssertionError, match="writes with one number"):
        judge_writes(intended((1, 36.0), (1, 35.0)), {"BR-1.setpoint": 2})


def test_the_judge_sees_a_write_too_many() -> None:
    with pytest.raises(AssertionError, match="written 1 times for 0"):
        judge_writes([], {"P-1.speed_setpoint": 1})
