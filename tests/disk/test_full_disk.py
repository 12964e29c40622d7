"""The real runtime on a small disk that fills up: STOP is written, nothing is lost, it comes back by itself."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.core.errors import LinesideError
from edge.core.events import BatchStateChanged, decode
from edge.core.room import BACK_BYTES, BALLAST_BYTES, FULL_BYTES, LOW_BYTES, MIB, needed_bytes
from edge.desk_client import DeskClient
from edge.journal import JournalReader
from tests.disk.small_disk import (
    DISK_BYTES,
    STEPS,
    Box,
    at_work,
    fill_in_mid_batch,
    is_well_again,
    judge_journal,
    says,
    stop_is_written,
)

FREE_LEVELS = (0, 4096, 16 * 1024, 64 * 1024, 256 * 1024, MIB, 3 * MIB, FULL_BYTES + MIB, 12 * MIB, 34 * MIB)
NO_BALLAST = Path(__file__).with_name("no_ballast_runtime.py")


async def test_at_every_free_level_stop_is_written_nothing_is_lost_and_the_box_comes_back(box: Box) -> None:
    for free_bytes in FREE_LEVELS:
        await fill_in_mid_batch(box, f"B-{free_bytes}", free_bytes)
    assert await box.stop() == 0
    judge_journal(box)


async def held_on_a_full_disk(box: Box) -> None:
    """A batch runs, the runtime is stopped, and the whole disk is taken before it starts again."""
    async with box.logged_in() as client:
        await box.start_batch(client, "B")
    assert await box.stop() == 0
    box.fill_until(0)


@pytest.mark.parametrize("small_disk", ["tmpfs", "ext4"], indirect=True)
async def test_it_starts_on_a_full_disk_holds_and_can_be_resumed_when_there_is_room(box: Box) -> None:
    await held_on_a_full_disk(box)
    assert "The disk is full" in (await box.until_state("B", "held")).reason
    picture = await box.picture()
    assert says(picture, "MiB free")
    assert says(picture, "Make room")
    async with box.logged_in() as client:
        with pytest.raises(LinesideError) as refused:
            await box.act(client, "B", "resume")
        assert refused.value.code == "disk.full"
        with pytest.raises(LinesideError) as refused:
            await box.start_batch(client, "B-2")
        assert refused.value.code == "disk.batch_will_not_fit"
        assert (await status(box))["level"] == "full"
        box.make_room()
        await is_well_again(box)
        assert (await box.card("B")).state == "held", "nothing moves by itself"
        await box.act(client, "B", "resume")
        assert (await box.card("B")).state == "running"
        await box.act(client, "B", "abort")
    assert box.codes == []
    assert await box.stop() == 0
    judge_journal(box)
    with JournalReader(box.journal) as reader:
        events = [decode(row.body).event for row in reader.rows(0, 1000)]
    causes = [event.cause for event in events if isinstance(event, BatchStateChanged) and event.now == "held"]
    assert causes == ["disk"]


async def test_without_room_even_for_the_journal_it_ends_to_be_started_again_and_comes_back(box: Box) -> None:
    await held_on_a_full_disk(box)
    box.ballast.unlink()
    box.fill_until(0)  # somebody took the ballast's space as well
    await box.start()
    assert box.child is not None
    assert await box.child.wait() == 74
    assert "disk.no_room" in box.log.read_text()
    box.child = None
    box.make_room()
    assert (await box.card("B")).state == "running"
    await is_well_again(box)


async def test_the_judge_sees_a_box_without_a_ballast(box: Box) -> None:
    box.program = (str(NO_BALLAST),)
    await held_on_a_full_disk(box)
    judging = asyncio.create_task(stop_is_written(box, "B"))
    while len(box.codes) < 2:
        assert not judging.done(), "STOP was written without a ballast"
        await asyncio.sleep(0)
    judging.cancel()
    await asyncio.gather(judging, return_exceptions=True)
    assert set(box.codes) == {74}


async def test_a_batch_that_will_not_fit_is_refused_at_its_start_and_running_ones_go_on(box: Box) -> None:
    async with box.logged_in() as client:
        await box.start_batch(client, "B")
        box.fill_until(needed_bytes(2 * STEPS) - MIB)  # enough for one, not for both
        with pytest.raises(LinesideError) as refused:
            await start_and_stop(box, client)  # until the box has seen it
        assert refused.value.code == "disk.batch_will_not_fit"
        box.fill_until(LOW_BYTES - MIB)
        await box.until(lambda picture: says(picture, "nearly full"))
        await at_work(box, client, "B")
    assert (await box.card("B")).state == "complete"


async def start_and_stop(box: Box, client: DeskClient) -> None:
    for number in itertools.count():
        await box.start_batch(client, f"C-{number}")
        await box.act(client, f"C-{number}", "stop")


async def test_a_step_stays_far_below_what_the_estimate_says(box: Box) -> None:
    async with box.logged_in() as client:
        await box.start_batch(client, "B")
        await at_work(box, client, "B")
    await box.stop()
    assert box.journal.stat().st_size / STEPS < 8 * 1024


async def status(box: Box) -> dict[str, object]:
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "edge", "disk", "status", "--box", str(box.folder), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    said: dict[str, object] = json.loads(done.stdout)
    return said


async def test_the_status_says_what_is_free_refused_and_known(box: Box) -> None:
    await box.picture()
    said = await status(box)
    assert said["level"] == "room"
    assert 0 < int(str(said["free_bytes"])) < DISK_BYTES
    assert int(str(said["ballast_bytes"])) >= BALLAST_BYTES
    assert said["forecast_days"] is None, "a box of some seconds knows no rate"
    assert said["refused"] == []
    assert said["levels"]["not_full_again_from"] == BACK_BYTES  # type: ignore[index]
