"""Batches that share units: every schedule comes to its end. `LINESIDE_RUNS` says how many are played."""

from __future__ import annotations

import os
import re
from unittest import mock

import pytest

from tests.simulation.schedules import PLANTED, Broken, Schedules

RUNS = int(os.environ.get("LINESIDE_RUNS", "300"))


def test_eight_batches_on_five_units_never_share_one_and_each_gets_its_turn() -> None:
    played = [Schedules(seed).play() for seed in range(RUNS)]
    assert sum(one.waited for one in played) > 2 * RUNS, "the schedules have gone thin"
    assert sum(one.began_after for one in played) > RUNS
    assert sum(one.passed for one in played) > RUNS / 10, "more is kept than is needed"


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_in_allocation_is_found(bug: str) -> None:
    patches, found = PLANTED[bug]
    with mock.patch.multiple("edge.core.queueing", **{name.rpartition(".")[2]: it for name, it in patches.items()}):
        for seed in range(300):
            try:
                Schedules(seed).play()
            except Broken as broken:
                assert re.search(found, str(broken)), str(broken)
                return
    pytest.fail(f"nothing was found: {bug}")
