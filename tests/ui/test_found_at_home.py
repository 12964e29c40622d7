"""What the box found when it looked at its record and at its backup stands on the screen's home."""

from __future__ import annotations

import pytest

from edge.wire import DrillView, SelfCheckView
from tests.ui.conftest import Opener
from tests.ui.scripted import make_picture

CHECKED = SelfCheckView(utc="2026-11-22T03:00:00.000000Z", rows=812, found=())
DRILLED = DrillView(utc="2026-11-22T03:01:00.000000Z", backup="x.tar", head_seq=811, found=(), left_out=())


async def test_a_backup_that_was_restored_is_said_with_its_last_row(open_screen: Opener) -> None:
    async with open_screen(make_picture(self_check=CHECKED, drill=DRILLED)) as screen:
        await screen.at("home")
        await screen.until(lambda: screen.says("Backup restored and verified 2026-11-22 03:01 UTC: rows to 811"))
        assert screen.says("Record verified 2026-11-22 03:00 UTC: 812 rows hold")


async def test_a_backup_that_does_not_hold_is_said_with_what_was_found(open_screen: Opener) -> None:
    wrong = DRILLED.model_copy(update={"found": ("The medium is full.",), "left_out": ("The archive is out.",)})
    async with open_screen(make_picture(self_check=CHECKED, drill=wrong)) as screen:
        await screen.at("home")
        await screen.until(lambda: screen.says("does not hold. Tell quality now: The medium is full."))
        assert screen.says("The archive is out.")
        assert not screen.says("Backup restored and verified")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("from_folder", "▲ Recipe from folder, not approved by signature."),
        ("one_signature", "✔ Recipe approved with one signature."),
        ("two_signatures", "✔ Recipe approved with two signatures."),
    ],
)
async def test_who_starts_a_batch_is_told_how_its_recipe_was_approved(
    open_screen: Opener, rule: str, says: str
) -> None:
    async with open_screen(make_picture(recipe_approval=rule)) as screen:
        await screen.at("home")
        await screen.pilot.press("f8")
        await screen.at("start")
        await screen.until(lambda: screen.says(says))
