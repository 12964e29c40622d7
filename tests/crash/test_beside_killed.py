"""Hub, follower and screen killed in mid-batch: judged as in the campaign, which also plants the bugs to be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.beside_kills import beside_killed_and_judged, screen_killed_and_judged


@pytest.mark.timeout(240)
async def test_hub_and_follower_are_killed_at_random_rows_and_hub_copy_and_box_agree(tmp_path: Path) -> None:
    await beside_killed_and_judged(tmp_path, 3, ("hub", "follower"), 2)


@pytest.mark.timeout(240)
async def test_the_screen_is_killed_over_an_entry_and_it_is_neither_lost_nor_made_twice(tmp_path: Path) -> None:
    await screen_killed_and_judged(tmp_path, 3, 2)
