"""The real runtime killed at random moments of a batch, or with a planted bug; the devices' own counters judge."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from demo.rig import Rig, rig
from edge.core import events as ev
from edge.core.events import RowBody, decode
from edge.core.record import Row
from edge.core.review import AsBuilt, as_built
from edge.journal import JournalReader, verify_journal
from tests.kit import antibody
from tests.kit.operator import Operator
from tests.kit.warm import spawn

SPEED = 100_000.0
CELL_SPEED = 400.0
BACK_S_MAX = 10.0
"""So soon a batch must be back after its process began, without the time that others had the processors."""
HUNG_S = 90.0
"""Where the machine is shared with others, this long is not slow any more."""
AT_INTENTS = 4
"""So many kills, or one of so many, wait for a write that is intended and has no outcome yet."""
POLL_S = 0.002
AGAIN = "do it again"
CARELESS = Path(__file__).with_name("careless_runtime.py")
BATCH_S_MAX = 3 * 3600.0
"""With a kill every few rows."""
Each = Callable[[], None]


@dataclass(frozen=True)
class Process:
    """A shipped recipe, and how fast it is carried out."""

    recipe: str
    cell_speed: float
    rows_between: tuple[int, int] = (1, 12)
    """A kill comes at a random row, so many after the row at which the runtime was back."""
    people: Mapping[str, Any] = field(default_factory=dict)
    """What its operator enters."""
    back_s_max: float = HUNG_S
    """The batch must be back so soon after its process began."""

    def line(self, folder: Path) -> AbstractAsyncContextManager[Rig]:
        return rig(folder, speed=SPEED, cell_speed=self.cell_speed, with_hub=False, recipe=self.recipe, spawn=spawn)

    def operator(self, line: Rig) -> Operator:
        return Operator(line, **self.people)


CART = Process("cart-b1", CELL_SPEED)
CART_FULL = Process("cart-b1", CELL_SPEED, (0, 3), {"batch_s_max": BATCH_S_MAX})
"""Forty-seven steps take two hundred kills."""
MAB_FULL = Process("mab-fb", 200.0, (0, 9), {"batch_s_max": BATCH_S_MAX, "patient": "", "entry": antibody.entry})
"""The cell is slower: while the runtime is down the pump goes on, and the bag must not run over."""


@dataclass(frozen=True)
class Shown:
    """A row that the desk had shown when the power went."""

    seq: int
    hash: bytes


def stored(path: Path) -> list[Row]:
    with JournalReader(path) as reader:
        return reader.rows(0, 1_000_000)


def bodies(rows: list[Row]) -> list[tuple[int, RowBody]]:
    return [(row.seq, decode(row.body)) for row in rows]


def ends_with_an_intent(reader: JournalReader) -> bool:
    return any(isinstance(decode(row.body).event, ev.CommandIntended) for row in reader.rows_back(1))


def is_due(reader: JournalReader, target: int, working: asyncio.Task[object], *, at_intent: bool) -> bool:
    return working.done() or reader.head()[0] >= target or (at_intent and ends_with_an_intent(reader))


async def undisturbed(folder: Path, process: Process) -> AsBuilt:
    async with process.line(folder) as line:
        await process.operator(line).work()
        await line.processes["runtime"].end()
        return as_built(bodies(stored(line.journal)))["B-001"]


async def kill_again_and_again(
    line: Rig, operator: Operator, working: asyncio.Task[object], process: Process, seed: int, kills: int, each: Each
) -> list[Shown]:
    """Kill the runtime at random rows and start it again. What the desk had shown must still be there at the end."""
    chance, shown = random.Random(seed), list[Shown]()
    at_intents, at_intents_max = 0, max(AT_INTENTS, kills // AT_INTENTS)
    with JournalReader(line.journal) as reader:
        while len(shown) < kills:
            for device in (line.pump, line.reactor):  # a write whose reply is lost stays open until it is killed
                await device.drop_replies(1 if at_intents < at_intents_max else 0)
            target = reader.head()[0] + chance.randint(*process.rows_between)
            due = partial(is_due, reader, target, working, at_intent=at_intents < at_intents_max)
            await line.until(due, f"row {target} does not come", line.processes["runtime"], poll_s=POLL_S)
            if working.done():
                break
            await line.processes["runtime"].kill()
            each()
            at_intents += ends_with_an_intent(reader)
            shown += [Shown(row.seq, row.hash) for row in reader.rows(operator.shown_seq - 1, 1)]
            began_s = time.monotonic()
            await line.start_runtime()
            back_s = time.monotonic() - began_s - kept_waiting_s(line.processes["runtime"].pid)
            assert back_s < process.back_s_max, f"the batch was back {back_s:.1f} s after process start"
    return shown


def kept_waiting_s(pid: int) -> float:
    """How long a process could have run while others had the processors: the scheduler counts it."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


@dataclass(frozen=True)
class Reached:
    """How many kills the batch took before it was over, and how many of them hit a write under way."""

    kills: int
    in_doubt: int


async def killed_and_judged(
    folder: Path, seed: int, kills: int, each: Each = lambda: None, process: Process = CART
) -> Reached:
    """A batch with up to `kills` kills beside the same batch without any: fails when the record or the devices
    differ."""
    expected = asyncio.create_task(undisturbed(folder / "calm", process))
    try:
        return await _killed_and_judged(folder, seed, kills, each, expected, process)
    finally:
        expected.cancel()
        await asyncio.gather(expected, return_exceptions=True)


async def _killed_and_judged(
    folder: Path, seed: int, kills: int, each: Each, expected: asyncio.Task[AsBuilt], process: Process
) -> Reached:
    async with process.line(folder / "killed") as line:
        operator = process.operator(line)
        working = asyncio.create_task(operator.work())
        shown = await kill_again_and_again(line, operator, working, process, seed, kills, each)
        await working
        counters = await line.pump.counters() | await line.reactor.counters()
        await line.processes["runtime"].end()
        rows = stored(line.journal)
        assert verify_journal(line.journal).ok
    said = bodies(rows)
    assert all(rows[row.seq - 1].hash == row.hash for row in shown), f"seed {seed}: a row that was shown is lost"
    made_by = {body.event.command_id for _, body in said}
    assert set(operator.acknowledged) <= made_by, f"seed {seed}: an entry that was acknowledged is lost"
    other = differences(done(as_built(said)["B-001"]), done(await expected))
    assert not other, f"seed {seed}: the record is another than the undisturbed one's: {other}"
    judge_writes(said, counters)
    signed = {b.event.command_id for _, b in said if isinstance(b.event, ev.SignatureMade) and b.event.meaning == AGAIN}
    assert len(signed) == len(decided_again(said)), f"seed {seed}: a decision without a signature"
    assert signed <= operator.again, f"seed {seed}: nobody asked for a write to be done again"
    return Reached(len(shown), in_doubt(said))


def done(record: AsBuilt) -> dict[tuple[str, int], Any]:
    """What was done, by step and pass. What is worked out from measured values follows them: a pump goes on while the
    box is off, and its counter with it."""
    found = {}
    for step, title, phase, state, data, written, signatures, *iteration in record.outline():
        judged = [(name, value, unit, value == "calculated" or within) for name, value, unit, within in data]
        found[step, *(iteration or [1])] = (title, phase, state, judged, written, signatures)
    return found


def differences(ours: dict[tuple[str, int], Any], theirs: dict[tuple[str, int], Any]) -> list[str]:
    return [
        f"{key}: {ours.get(key)}, not {theirs.get(key)}"
        for key in {**ours, **theirs}
        if ours.get(key) != theirs.get(key)
    ]


async def careless_and_judged(folder: Path, process: Process = CART) -> None:
    """A runtime with the planted bug takes up a write that the killed one had sent: the judge must fail."""
    async with process.line(folder) as line:
        await line.reactor.drop_replies(1)  # the write happens, and the runtime waits for a reply that never comes
        working = asyncio.create_task(process.operator(line).work())
        try:
            await line.until(lambda: writes(line, 1), "the reactor is never written to", poll_s=POLL_S)
            await line.processes["runtime"].kill()
            with JournalReader(line.journal) as reader:
                assert ends_with_an_intent(reader)
            await line.start_runtime(str(CARELESS))
            await line.until(lambda: writes(line, 2), "the planted bug does nothing", line.processes["runtime"])
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        await line.processes["runtime"].kill()
        judge_writes(bodies(stored(line.journal)), await line.reactor.counters())


async def writes(line: Rig, count: int) -> bool:
    return sum((await line.reactor.counters()).values()) >= count


def in_doubt(rows: list[tuple[int, RowBody]]) -> int:
    """How many writes had no outcome when a runtime began."""
    starts = {seq for seq, body in rows if isinstance(body.event, ev.RuntimeStarted)}
    return sum(isinstance(body.event, ev.CommandUnknown) and seq - 1 in starts for seq, body in rows)


def judge_writes(rows: list[tuple[int, RowBody]], counters: dict[str, int]) -> None:
    """No device counted more writes than were intended, no write has the number of another one, and whatever was to be
    written a second time was signed for. A ramp's next value and a service's next command are no repetition."""
    intents = [body.event for _, body in rows if isinstance(body.event, ev.CommandIntended)]
    intended = Counter(intent.tag for intent in intents)
    for tag, count in counters.items():
        assert count <= intended[tag], f"{tag} was written {count} times for {intended[tag]} intents"
    numbered = Counter((one.batch, one.step, one.iteration, one.tag, one.attempt) for one in intents)
    twice = [number for number, count in numbered.items() if count > 1]
    assert not twice, f"writes with one number: {twice}"
    before: dict[tuple[str, str, int, str], ev.CommandIntended] = {}
    repeated = []
    for intent in intents:
        last = before.get(place := (intent.batch, intent.step, intent.iteration, intent.tag))
        if last is not None and last.value == intent.value:
            repeated.append(intent)
        before[place] = intent
    assert len(repeated) <= len(decided_again(rows)), f"written again without a signed decision: {repeated}"


def decided_again(rows: list[tuple[int, RowBody]]) -> list[ev.QuestionAnswered]:
    answers = [body.event for _, body in rows if isinstance(body.event, ev.QuestionAnswered)]
    return [answer for answer in answers if answer.answer == "again"]
