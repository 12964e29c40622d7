"""SIGKILL of the follower, the hub, the broker and the screen, each while a step runs: the step does not notice."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.rig import Rig, rig
from edge.core import events as ev
from edge.core.events import decode
from edge.core.review import AsBuilt, as_built
from edge.journal import JournalReader, verify_journal
from tests.kit.operator import Operator
from tests.kit.warm import spawn
from tests.ui.test_terminal import Terminal

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
HALF = "41.75"
SPEED = 100_000.0
LATE_S_MAX = 15.0
"""A timed step may end so much later than its time, on a busy machine; a step that waits for a hub ends later."""


def read(line: Rig) -> dict[str, AsBuilt]:
    with JournalReader(line.journal) as reader:
        return as_built((row.seq, decode(row.body)) for row in reader.rows(0, 1_000_000))


def state(line: Rig, step: str) -> str:
    batch = read(line).get("B-001")
    return next((built.state for built in batch.steps if built.step == step), "") if batch else ""


async def killed_during(
    line: Rig, operator: Operator, step: str, name: str, start: Callable[[], Awaitable[None]], *, after: str = ""
) -> None:
    """Kill a process once the step runs; start it again only when the step is done. The operator has waited at this
    step, or at the one that it comes `after`, so that it cannot be over before it is looked at."""
    operator.leaves.discard(after)
    await line.until(lambda: state(line, step) == "active", f"step {step} does not begin", poll_s=0.01)
    await line.processes[name].kill()
    operator.leaves.discard(step)
    await line.until(lambda: state(line, step) == "done", f"step {step} noticed that the {name} is gone")
    await start()


async def hub_says(line: Rig, path: str) -> Any:
    def get() -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{line.hub_port}{path}", timeout=5) as answer:
            return json.load(answer)

    return await asyncio.to_thread(get)


async def strip_balances(line: Rig) -> bool:
    strip = (await line.picture()).strip
    assert strip.made == strip.sync.received_seq + strip.pending
    return strip.pending == 0


async def hub_has_all(line: Rig) -> bool:
    (box,) = (await hub_says(line, "/api/boxes"))["boxes"]
    with JournalReader(line.journal) as reader:
        made = reader.head()[0]
    return box["made"] == box["received"] == made and box["pending"] == 0


async def shows(screen: Terminal, *words: str) -> None:
    """Wait until all of these words were painted, one after the other or not."""
    await screen.until(lambda: all(word in ESCAPES.sub("", screen.seen) for word in words))


async def screen_killed_at_an_entry(line: Rig, operator: Operator, step: str) -> None:
    """Half an entry is typed on the real screen, which is killed; another one shows it again."""
    await line.until(lambda: state(line, step) == "active", f"step {step} does not begin")
    async with badged_in(line) as screen:
        await shows(screen, step, "Value in")
        screen.press(HALF)
        await shows(screen, "draft saved")
        screen.process.kill()
        await screen.process.wait()
    async with badged_in(line) as screen:
        await shows(screen, step, "Value in", HALF)
    operator.leaves.discard(step)
    await line.until(lambda: state(line, step) == "done", f"step {step} noticed that the screen is gone")


@asynccontextmanager
async def badged_in(line: Rig) -> AsyncIterator[Terminal]:
    """The real screen in a terminal, Ana logged in. Killed on leaving, at the latest."""
    async with Terminal("-m", "edge", "ui", "--box", str(line.box)) as screen:
        await shows(screen, "Scan your badge")
        screen.press("B-ANA\r")
        await shows(screen, "━ PIN ━")  # the PIN has the focus
        screen.press("2580\r")
        yield screen


@pytest.mark.timeout(240)
async def test_no_step_notices_that_a_process_beside_the_runtime_is_killed(
    tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    mosquitto = needs_program("mosquitto")
    async with rig(tmp_path, speed=SPEED, cell_speed=400.0, spawn=spawn) as line, asyncio.TaskGroup() as tasks:
        operator = Operator(line, leaves={"011", "032", "040", "041", "060", "070", "071"})
        working = tasks.create_task(operator.work())
        await killed_during(line, operator, "011", "follower", line.start_follower)
        await killed_during(line, operator, "032", "hub", line.start_hub)
        await killed_during(line, operator, "040", "broker", line.start_broker)
        await line.until(lambda: strip_balances(line), "the demo's broker does not bring the rows over")
        line.mosquitto = mosquitto
        await killed_during(line, operator, "051", "broker", line.start_broker, after="041")
        await line.until(lambda: strip_balances(line), "mosquitto does not bring the rows over")
        await screen_killed_at_an_entry(line, operator, "060")
        await killed_during(line, operator, "070", "broker", line.start_broker)
        await killed_during(line, operator, "072", "hub", line.start_hub, after="071")
        await working
        await line.until(lambda: strip_balances(line), "rows stay pending")
        await line.processes["runtime"].end()
        await line.until(lambda: hub_has_all(line), "the hub does not get the last rows")
        verified = await hub_says(line, "/api/verify")
        rows, batch = verify_journal(line.journal), read(line)["B-001"]
        late_s = lateness(line)
    assert verified["verified"]
    assert verified["rows"] == rows.rows
    assert verified["chains"][0]["head_hash"] == rows.head_hash
    assert (batch.state, batch.exceptions, [s.now for s in batch.states]) == ("complete", [], ["complete"])
    assert (operator.connections, operator.questions) == (1, 0), "the operator's connection broke"
    assert late_s < LATE_S_MAX


def lateness(line: Rig) -> float:
    """By how much the latest timed step ended after its time."""
    with JournalReader(line.journal) as reader:
        events = [decode(row.body).event for row in reader.rows(0, 1_000_000)]
    lengths = {e.step: e.duration_s for e in events if isinstance(e, ev.StepActivated)}
    return max(e.low_s - lengths[e.step] for e in events if isinstance(e, ev.TimerDue) and e.timer == "duration")
