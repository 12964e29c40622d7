"""What makes a unit safe waits for nothing: not for the journal, not for another write, not for the other devices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge import unrecorded
from edge.core import commands as cm
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import CommandIntended, CommandRefused, ExceptionRaised, decode
from edge.core.line import SAFE_STEP, apply
from edge.core.terms import Act, State
from edge.engine import Engine
from edge.journal import JournalReader
from tests.edge.test_engine import Parts, a_moment, confirm, parts

WAIT_S = 20.0


def end(act: Act = Act.STOP) -> cm.ActOnBatch:
    return cm.ActOnBatch(session="S", batch="B", act=act, reason="leak")


async def pump_runs(made: Parts) -> None:
    """The pump's set-point is written and confirmed."""
    await made.engine.submit(confirm())
    async with asyncio.timeout(WAIT_S):
        while made.engine.shown.batches["B"].steps.get("030") is None:
            made.engine.changed.clear()
            await made.engine.changed.wait()


async def written(made: Parts, times: int, wait_s: float = WAIT_S) -> None:
    """Return once the pump's set-point was written so often; the pump's own counter is the judge."""
    try:
        async with asyncio.timeout(wait_s):
            while await made.writes() < times:  # noqa: ASYNC110  the judge is another device, without an event for us
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError("the safe state waits for the journal") from None


def events(folder: Path) -> Iterator[object]:
    with JournalReader(folder / "journal.db") as reader:
        yield from (decode(row.body).event for row in reader.rows(0, 10_000))


async def check_safe_before_the_sync(made: Parts, act: Act, wait_s: float = WAIT_S) -> None:
    await pump_runs(made)
    with made.shut():
        asking = asyncio.create_task(made.engine.submit(end(act)), name="asking")
        try:
            await written(made, 2, wait_s)
            assert not asking.done(), "answered before it was durable"
            assert made.engine.shown.batches["B"].state is State.RUNNING, "shown before it was durable"
        finally:
            made.disk.open.set()
            await asking


@pytest.mark.parametrize("act", [Act.STOP, Act.ABORT])
async def test_the_safe_state_is_written_while_the_disk_hangs_and_its_row_says_that_it_is_late(
    tmp_path: Path, act: Act
) -> None:
    async with parts(tmp_path) as made:
        await check_safe_before_the_sync(made, act)
        await made.until(State.STOPPED if act is Act.STOP else State.ABORTED)
        assert await made.writes() == 2, "written once, not again when the row is durable"
        assert (await made.equipment.read("P-1.speed_setpoint")).value == 0.0
    intended = [one for one in events(tmp_path) if isinstance(one, CommandIntended)]
    assert [(one.value, one.late) for one in intended] == [(12.0, False), (0.0, True)]


async def test_planted_bug_a_safe_write_that_waits_for_the_journal_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "_begin_what_makes_safe", lambda *_: set())
    async with parts(tmp_path) as made:
        with pytest.raises(AssertionError, match="waits for the journal"):
            await check_safe_before_the_sync(made, Act.STOP, wait_s=1.0)


async def check_nothing_after_safe(made: Parts) -> None:
    """A write that was intended and not yet durable when the batch was stopped must not undo the safe state."""
    with made.shut():
        asking = [asyncio.create_task(made.engine.submit(one)) for one in (confirm(), end())]
        await written(made, 1)
        async with asyncio.timeout(WAIT_S):  # its read-back is over: nothing is under way at the tag
            intents = {SAFE_STEP}
            while SAFE_STEP in intents:
                intents = {intent.step for intent in made.engine.line.batches["B"].intents.values()}
                await asyncio.sleep(0)
    await asyncio.gather(*asking)
    await made.until(State.STOPPED)
    await a_moment()
    assert await made.writes() == 1, "something was written after the unit was made safe"
    assert (await made.equipment.read("P-1.speed_setpoint")).value == 0.0


async def test_what_was_intended_before_is_not_sent_after_the_safe_state(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await check_nothing_after_safe(made)
    (refused,) = [one for one in events(tmp_path) if isinstance(one, CommandRefused)]
    assert refused.step == "020"
    assert "ended before" in refused.why


async def test_planted_bug_a_write_after_the_safe_state_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Engine._begin_write

    def forgetful(self, group, write):
        self._ended_by.clear()
        begin(self, group, write)

    monkeypatch.setattr(Engine, "_begin_write", forgetful)
    async with parts(tmp_path) as made:
        with pytest.raises(AssertionError, match="after the unit was made safe"):
            await check_nothing_after_safe(made)


async def test_a_write_under_way_whose_reply_is_lost_does_not_keep_the_safe_state_away(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.pump.drop_replies(1)
        await made.engine.submit(confirm())
        await written(made, 1)
        await made.engine.submit(end())
        await made.until(State.STOPPED)
        assert await made.writes() == 2
        assert (await made.equipment.read("P-1.speed_setpoint")).value == 0.0


async def test_a_failed_journal_makes_the_units_safe_and_leaves_what_no_row_tells_of(tmp_path: Path) -> None:
    kept: list[unrecorded.SafeWrite] = []
    with pytest.raises(LinesideError, match=r"journal\.failed"):  # noqa: PT012  leaving the block is what raises
        async with parts(tmp_path) as made:
            await pump_runs(made)
            made.engine._keep_unrecorded = kept.extend
            made.disk.broken = True
            with pytest.raises(LinesideError) as refused:
                await made.engine.submit(confirm("030"))
            assert refused.value.code == "journal.failed"
            (engine,) = [task for task in asyncio.all_tasks() if task.get_name() == "engine"]
            await asyncio.wait([engine])
            assert await made.writes() == 2
            assert (await made.equipment.read("P-1.speed_setpoint")).value == 0.0
            (write,) = kept
            assert (write.batch, write.tag, write.value) == ("B", "P-1.speed_setpoint", 0.0)
            assert write.outcome == "confirmed"

            # the next start says it in rows, once
            said = cm.TellUnrecorded(command_id="1", utc="2026-11-22T06:00:00Z", batches={"B": (str(write),)})
            line, now = made.engine.shown, Now(made.engine._clock.stamp(), made.equipment.latest)
            for row in decide(line, said, now):
                line = apply(line, row)
            assert line.batches["B"].state is State.HELD
            assert "P-1.speed_setpoint = 0 (confirmed)" in line.batches["B"].reason
            assert decide(line, said, now) == []
            made.disk.broken = False


async def test_of_a_note_that_cannot_be_read_every_batch_with_a_safe_state_is_held(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        (tmp_path / unrecorded.NAME).write_bytes(b"{torn")
        left = unrecorded.read(tmp_path)
        assert left is not None
        assert left.writes == ()
        now = Now(made.engine._clock.stamp(), made.equipment.latest)
        rows = decide(made.engine.line, cm.TellUnrecorded(command_id=left.id, utc="", batches={}), now)
        (raised,) = [row.event for row in rows if isinstance(row.event, ExceptionRaised)]
        assert "nobody knows which" in raised.what
        unrecorded.remove(tmp_path)
        assert unrecorded.read(tmp_path) is None


async def test_a_disk_that_does_not_answer_keeps_nobody() -> None:
    import threading

    never = threading.Event()
    assert not await unrecorded.done_within(lambda: never.wait() and None, 0.05)
    never.set()
    assert await unrecorded.done_within(lambda: None, WAIT_S)
    assert not await unrecorded.done_within(lambda: unrecorded.keep(Path("/nowhere"), "", ()), WAIT_S)
