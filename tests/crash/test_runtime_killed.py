"""SIGKILL of the real runtime at random moments of CART-B1: the simulated devices' own counters are the judge."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


def test_the_judge_sees_a_write_too_many() -> None:
    with pytest.raises(AssertionError, match="written 1 times for 0"):
        judge_writes([], {"P-1.speed_setpoint": 1})
