"""Follower, hub and screen killed at random moments of CART-B1: what each said is there, and no step notices."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from demo.rig import Rig, rig
from demo.script import entry_for
from edge import wire
from edge.core import events as ev
from edge.core.record import fingerprint
from edge.identity import read_public
from edge.journal import JournalReader, verify_journal
from edge.mirror import read_mirror
from tests.crash.runtime_kills import CELL_SPEED, SPEED, bodies, judge_writes, stored
from tests.crash.test_processes_killed import badged_in, hub_has_all, hub_says, read, shows, state
from tests.kit.operator import Operator
from tests.kit.warm import spawn

ROWS_BETWEEN_MAX = 8
ENTRIES = ("011", "012", "020", "021")
"""Steps at which a value is typed; they follow each other soon after the beginning."""
HASTY_HUB = str(Path(__file__).with_name("hasty_hub.py"))
FORGETFUL_FOLLOWER = str(Path(__file__).with_name("forgetful_follower.py"))
FORGETFUL_DESK = str(Path(__file__).with_name("forgetful_desk.py"))
Each = Callable[[], None]


def hub_rows(line: Rig) -> list[tuple[int, bytes]]:
    """Number and hash of each row that the hub has committed, in order; it may be killed at any moment."""
    with closing(sqlite3.connect(f"file:{line.hub / 'hub.db'}?mode=rw", uri=True)) as database:
        return [(seq, bytes(row_hash)) for seq, row_hash in database.execute("SELECT seq, hash FROM row ORDER BY seq")]


def copied(line: Rig) -> int:
    """The last row of the copy on the second medium, whose frames must follow each other."""
    public = read_public(line.box / "device.pub")
    found = list((line.folder / "second-medium").glob("*.frames"))
    last = 0
    for path in found:
        for got in read_mirror(path, {fingerprint(public): public}):
            last = got.last_seq
    return last


@asynccontextmanager
async def worked(line: Rig) -> AsyncIterator[tuple[Operator, asyncio.Task[wire.BatchCard]]]:
    operator = Operator(line)
    working = asyncio.create_task(operator.work())
    try:
        yield operator, working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def beside_killed_and_judged(
    folder: Path,
    seed: int,
    names: tuple[str, ...],
    kills: int,
    each: Each = lambda: None,
    *,
    program: str = "",
    to_the_end: bool = False,
) -> None:
    """Up to `kills` kills of hub or follower, in turn, at random rows of one batch, which goes on `to_the_end` or not.
    `program` has a planted bug, and stands for the first of `names`."""
    chance = random.Random(seed)
    async with (
        rig(folder, speed=SPEED, cell_speed=CELL_SPEED, spawn=spawn) as line,
        worked(line) as (operator, working),
    ):
        starts = {"hub": line.start_hub, "follower": line.start_follower}
        words = (program,) if program else ()
        if program:
            await line.processes[names[0]].kill()
            await starts[names[0]](*words)
        with JournalReader(line.journal) as reader:
            for number in range(kills):
                name = names[number % len(names)]
                target = reader.head()[0] + chance.randint(1, ROWS_BETWEEN_MAX)
                await line.until(
                    lambda target=target: working.done() or reader.head()[0] >= target,
                    f"row {target} does not come",
                    line.processes["runtime"],
                    poll_s=0.005,
                )
                if working.done():
                    break
                if program and name == "hub":  # a receipt must have come before it can be held against the hub
                    await line.until(lambda: received(line), "no receipt comes")
                told = await received(line)
                await line.processes[name].kill()
                each()
                assert len(hub_rows(line)) >= told, f"seed {seed}: the hub gave a receipt for rows that it lost"
                await starts[name](*words)
        if to_the_end:
            await working
        else:
            working.cancel()
            await asyncio.wait({working})
        counters = await line.pump.counters() | await line.reactor.counters()
        await line.processes["runtime"].end()
        await line.until(lambda: hub_has_all(line), "the hub does not get the last rows")
        verified, rows = await hub_says(line, "/api/verify"), stored(line.journal)
        assert verified["verified"]
        assert verify_journal(line.journal).ok
        assert hub_rows(line) == [(row.seq, row.hash) for row in rows], f"seed {seed}: the hub's rows are not the box's"
        await line.until(lambda: copied(line) == len(rows), "the second medium does not get the last rows")
        judge_writes(bodies(rows), counters)
        batch = read(line)["B-001"]
        assert (batch.state == "complete" or not to_the_end, batch.exceptions) == (True, []), f"seed {seed}: it noticed"
        assert (operator.connections, operator.questions) == (1, 0), f"seed {seed}: the operator noticed"


async def received(line: Rig) -> int:
    """The last row for which the box has seen the hub's receipt."""
    return (await line.picture()).strip.sync.received_seq


async def screen_killed_and_judged(
    folder: Path, seed: int, kills: int, each: Each = lambda: None, *, program: str = ""
) -> None:
    """Up to `kills` kills of the screen while values are typed and entered. `program` is a runtime with a planted
    bug."""
    chance = random.Random(seed)
    async with rig(folder, speed=SPEED, cell_speed=CELL_SPEED, with_hub=False, spawn=spawn) as line:
        if program:
            await line.processes["runtime"].kill()
            await line.start_runtime(program)
        operator = Operator(line, leaves=set(ENTRIES))
        working = asyncio.create_task(operator.work())
        try:
            for number, step in enumerate(ENTRIES[: (kills + 1) // 2]):
                await line.until(lambda step=step: state(line, step) == "active", f"step {step} does not begin")
                typed = entry_for(operator.steps[step])
                async with badged_in(line) as screen:
                    await shows(screen, step, "Value in")
                    screen.press(typed)
                    await shows(screen, "draft saved")
                    screen.process.kill()
                    await screen.process.wait()
                each()
                assert await draft(line, step) == typed, f"seed {seed}: a draft that was said to be saved is lost"
                if 2 * number + 1 < kills:
                    async with badged_in(line) as screen:
                        await shows(screen, step, "Value in", typed)
                        screen.press("\r")
                        if chance.random() < 0.5:  # else killed with the request on its way, or not
                            await line.until(lambda step=step: state(line, step) == "done", f"step {step} stays")
                        screen.process.kill()
                        await screen.process.wait()
                    each()
                operator.leaves.discard(step)  # what the screen did not bring to the desk is entered by another
                await line.until(lambda step=step: state(line, step) == "done", f"step {step} noticed")
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        await line.processes["runtime"].end()
        assert verify_journal(line.journal).ok
        recorded = [body.event for _, body in bodies(stored(line.journal)) if isinstance(body.event, ev.ValueRecorded)]
        judge_entries(recorded, seed)


def judge_entries(recorded: list[ev.ValueRecorded], seed: int) -> None:
    """No entry became two rows."""
    times = Counter(event.step for event in recorded if event.step in ENTRIES)
    assert not [step for step, count in times.items() if count > 1], f"seed {seed}: an entry was made twice"


async def draft(line: Rig, step: str) -> str:
    cards = [active for card in (await line.picture()).batches for active in card.active if active.step == step]
    return cards[0].draft if cards else ""
