"""Alarms on the screen: counted, the highest named, opened, acknowledged, in words."""

from __future__ import annotations

from edge.wire import AcknowledgeAlarm, AlarmLine, Picture
from tests.ui.conftest import Opener
from tests.ui.scripted import AUDITOR, HOLD, INSTRUCT, make_batch, make_picture

WARM = AlarmLine(
    alarm="B-1/052",
    raised_seq=40,
    priority="high",
    state="unacknowledged",
    batch="B-1",
    step="052",
    tag="BR-1.temperature",
    cause="The reactor is too warm.",
    effect="Above 38 °C the cells die within the hour.",
    todo="Check the jacket's water, then call the engineer.",
    value="38.4 degC",
    since_utc="2026-11-22T05:00:00Z",
    times=2,
)
DISK = WARM.model_copy(
    update={"alarm": "disk low", "raised_seq": 12, "priority": "medium", "state": "acknowledged", "batch": "",
            "step": "", "tag": "", "value": "", "cause": "The disk is nearly full.", "times": 1}
)  # fmt: skip


def shown(*alarms: AlarmLine, **more: object) -> Picture:
    return make_picture(make_batch(INSTRUCT), **more).model_copy(update={"alarms": alarms})


async def test_from_home_to_an_acknowledged_alarm(open_screen: Opener) -> None:
    async with open_screen(shown(WARM, DISK)) as screen:
        await screen.at("step")
        assert screen.says("Alarms: 2, new: 1"), "it is said at the step, too"
        await screen.pilot.press("escape")
        await screen.at("home")
        assert screen.says("Alarms: 2, new: 1")
        assert screen.says("HIGH: The reactor is too warm.")
        await screen.click("#alarms")
        await screen.at("alarms")
        assert screen.says("▲ HIGH The reactor is too warm. not acknowledged")
        assert screen.says("✔ MEDIUM The disk is nearly full. acknowledged")
        assert all(target.outer_size.height >= 3 for target in screen.app.query("Choices Target"))
        await screen.click("#alarm-0")
        await screen.until(lambda: screen.shows("#confirm"))
        for words in (WARM.cause, WARM.effect, WARM.todo, "38.4 degC", "raised 2 times"):
            assert screen.says(words)
        await screen.click("#confirm")
        await screen.until(lambda: any(isinstance(one, AcknowledgeAlarm) for one in screen.desk.asked))
        (asked,) = (one for one in screen.desk.asked if isinstance(one, AcknowledgeAlarm))
        assert (asked.alarm, asked.raised_seq) == ("B-1/052", 40)


async def test_who_only_reads_cannot_acknowledge_and_one_that_was_seen_is_not_asked_for(open_screen: Opener) -> None:
    async with open_screen(shown(WARM, DISK, person=AUDITOR)) as screen:
        await screen.pilot.press("escape")
        await screen.at("home")
        await screen.click("#alarms")
        await screen.at("alarms")
        await screen.click("#alarm-0")
        await screen.until(lambda: screen.says(WARM.effect))
        assert not screen.shows("#confirm")
        await screen.click("#back")
        await screen.until(lambda: screen.shows("#alarm-1"))
        await screen.click("#alarm-1")
        await screen.until(lambda: screen.says("The disk is nearly full."))
        assert not screen.shows("#confirm")


async def test_without_an_alarm_nothing_is_said(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD))) as screen:
        await screen.pilot.press("escape")
        await screen.at("home")
        assert not screen.shows("#alarms")
        assert not screen.says("Alarms")


async def test_what_matters_fits_a_small_terminal(open_screen: Opener) -> None:
    async with open_screen(shown(WARM, DISK), size=(60, 20)) as screen:
        await screen.pilot.press("escape")
        await screen.at("home")
        await screen.click("#alarms")
        await screen.at("alarms")
        await screen.click("#alarm-0")
        await screen.until(lambda: screen.shows("#confirm"))
        for words in (WARM.cause, WARM.effect, WARM.todo, "Acknowledge", "Home"):
            assert screen.says(words), words
