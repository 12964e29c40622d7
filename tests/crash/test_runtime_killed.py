"""SIGKILL of the real runtime at random moments of CART-B1: the simulated devices' own counters are the judge."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from demo.rig import Rig, rig
from edge.core import events as ev
from edge.core.events import RowBody, decode
from edge.core.review import AsBuilt, as_built
from edge.journal import JournalReader, verify_journal
from tests.kit.operator import Operator

KILLS = int(os.environ.get("LINESIDE_KILLS", "20"))
SPEED = 100_000.0
BACK_S_MAX = 10.0


def bodies(path: Path) -> list[tuple[int, RowBody]]:
    with JournalReader(path) as reader:
        return [(row.seq, decode(row.body)) for row in reader.rows(0, 1_000_000)]


async def undisturbed(folder: Path) -> AsBuilt:
    async with rig(folder, speed=SPEED, cell_speed=400.0, with_hub=False) as line:
        await Operator(line).work()
        await line.processes["runtime"].end()
        return as_built(bodies(line.journal))["B-001"]


async def kill_again_and_again(line: Rig, chance: random.Random, acknowledged: list[tuple[int, str]]) -> int:
    """Kill the runtime, start it, note the head it must still have; until the batch is over."""
    done = 0
    while done < KILLS:
        await asyncio.sleep(chance.uniform(0.0, 0.6))  # the seeded moment of this kill
        picture = await line.picture()
        card = next((b for b in picture.batches if b.batch == "B-001"), None)
        if card is not None and card.state == "complete":
            break
        with JournalReader(line.journal) as reader:
            row = reader.rows(picture.as_of_seq - 1, 1)[0]
        acknowledged.append((row.seq, row.hash.hex()))
        await line.processes["runtime"].kill()
        done += 1
        began_s = time.monotonic()
        await line.start_runtime()
        assert time.monotonic() - began_s < BACK_S_MAX, "the batch must be back within 10 s of process start"
    return done


@pytest.mark.timeout(300)
async def test_killed_at_random_moments_the_record_is_the_same_and_nothing_is_written_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("LINESIDE_SEED", "7"))
    expected, chance = asyncio.create_task(undisturbed(tmp_path / "calm")), random.Random(seed)
    acknowledged: list[tuple[int, str]] = []
    async with rig(tmp_path / "killed", speed=SPEED, cell_speed=400.0, with_hub=False) as line:
        operator = Operator(line)
        working = asyncio.create_task(operator.work())
        kills = await kill_again_and_again(line, chance, acknowledged)
        await working
        counters = await line.pump.counters() | await line.reactor.counters()
        await line.processes["runtime"].end()
        rows = bodies(line.journal)
        with JournalReader(line.journal) as reader:
            hashes = {row.seq: row.hash.hex() for row in reader.rows(0, 1_000_000)}
        assert verify_journal(line.journal).ok
    assert kills == KILLS, f"seed {seed}: the batch was over before {KILLS} kills"
    assert all(hashes.get(seq) == row_hash for seq, row_hash in acknowledged), "an acknowledged row is lost"
    killed = as_built(rows)["B-001"]
    calm = await expected
    assert killed.outline() == calm.outline(), f"seed {seed}"
    judge_writes(rows, counters)
    signed = [body.event for _, body in rows if isinstance(body.event, ev.QuestionAnswered)]
    assert sum(answer.answer == "again" for answer in signed) == operator.decided_again


def judge_writes(rows: list[tuple[int, RowBody]], counters: dict[str, int]) -> None:
    """No device counted more writes than were intended, and every attempt after the first was signed for."""
    intents = [body.event for _, body in rows if isinstance(body.event, ev.CommandIntended)]
    intended = Counter(intent.tag for intent in intents)
    for tag, count in counters.items():
        assert count <= intended[tag], f"{tag} was written {count} times for {intended[tag]} intents"
    again = [b.event for _, b in rows if isinstance(b.event, ev.QuestionAnswered) and b.event.answer == "again"]
    repeated = [intent for intent in intents if intent.attempt > 1]
    assert len(repeated) <= len(again), "a write was repeated without a signed decision"


def test_the_judge_sees_a_write_too_many() -> None:
    with pytest.raises(AssertionError, match="written 1 times for 0"):
        judge_writes([], {"P-1.speed_setpoint": 1})
