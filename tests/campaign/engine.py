"""Rows 2 and 9 over the real engine, journal and driver: the power goes between intent, write and read-back; answers to
writes are lost, late or wrong, and people answer what the box then asks. The same for calls of methods of an OPC UA
server, which show nothing that could be read back.

One box after the other goes on with what the disk of the one before was left with. The device outlives them all: what
arrived there, and how often, judges.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import edge.journal
from drivers.modbus_link import Link
from drivers.opcua import OpcUaDriver
from edge.checkpoints import read_head
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import Batch, Book, Line, Write
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, ClockQuality, Role, Stamp, State
from edge.engine import Engine
from edge.equipment import Equipment, Home, WriteUnknown, installed_drivers
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal
from tests.campaign import Part, Planted, Tally, network, planted
from tests.campaign.devices import MODBUS, OPCUA, Direct, Serve, Speech, pump_at, reactor_at
from tests.campaign.network import Loop, Wire
from tests.contract.conformance import Subject, pump_subject, reactor_subject, with_bolus
from tests.contract.wire import sends_again
from tests.crash.disk import CrashDisk, Op, image
from tests.crash.runs import WAYS
from tests.simulation.planted import careless_start

CUTS: Final = 12
"""So often at most the power goes in one batch."""
LOOKS_MAX: Final = 2_000
CALL_TYPES: Final = {b"\x01\x00" + struct.pack("<H", kind) for kind in (712, 715)}
ANA: Final = {"person": "ana", "roles": (Role.OPERATOR, Role.SUPERVISOR)}
GONE: Final = frozenset({State.COMPLETE, State.STOPPED, State.ABORTED})


def _values(kind: Kind, chance: random.Random) -> list[float]:
    return [float(value) for value in chance.sample(range(1, 90), kind.steps)]


@dataclass(frozen=True)
class Kind:
    """What is written to which device, and how that stands on the wire."""

    serve: Serve
    subject_at: Callable[..., Subject]
    speech: Speech
    value_in: Callable[[bytes], float]
    step: Callable[[float], dict[str, Any]]
    tag: str
    steps: int


WRITES: Final = Kind(
    pump_at,
    pump_subject,
    MODBUS,
    lambda data: float(struct.unpack(">f", data[13:17])[0]),
    lambda value: {"phase": "set", "title": "Set", "tag": "pump.speed_setpoint", "value": value},
    "P-1.speed_setpoint",
    steps=12,
)
CALLS: Final = Kind(
    reactor_at,
    lambda port, control: with_bolus(reactor_subject(port, control)),
    replace(OPCUA, is_write=lambda data: data[:3] == b"MSG" and data[24:28] in CALL_TYPES),
    lambda data: float(struct.unpack("<f", data[-4:])[0]),
    lambda value: {"phase": "method", "title": "Bolus", "tag": "pump.bolus", "arguments": {"volume": value}},
    "BR-1.bolus",
    steps=4,
)


def _recipe(kind: Kind, values: list[float]) -> Recipe:
    steps = [{"id": f"{number:03d}", **kind.step(value)} for number, value in enumerate(values, 1)]
    return Recipe.model_validate(
        {
            "recipe": "R",
            "version": "1",
            "title": "Sets",
            "units": {"pump": {"class": "thing"}},
            "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": steps}]}],
        }
    )


class Device:
    """The pump's side: what arrived, and the power of the box that speaks to it."""

    def __init__(self, kind: Kind, wire: Wire, chance: random.Random, fault: Callable[[], None] | None) -> None:
        """`fault` is told of each answer that goes wrong, where they do."""
        self.kind, self.wire, self.chance, self.fault = kind, wire, chance, fault
        self.is_write = kind.speech.is_write
        self.arrived: Counter[float] = Counter()
        self.begin(lambda: None, 0)

    def begin(self, cut: Callable[[], None], writes: int) -> None:
        """A box has its power again; it goes at the `writes`th write from now on, if that is not 0."""
        self.dead, self.cut, self.left = False, cut, writes
        self.before = self.chance.random() < 0.4
        self.after = self.chance.random() < 0.5
        self.wire.ask, self.wire.answer = self._asked, self._answered

    def _asked(self, data: bytes, on: Callable[[bytes], None]) -> None:
        if self.dead:
            return
        if self.is_write(data):
            self.left -= 1
            if self.left == 0 and self.before:
                self.cut()
                return
            if self.fault is not None and self.chance.random() < 0.1:
                self.fault()
                return  # it never arrives
            self.arrived[round(self.kind.value_in(data), 3)] += 1
        on(data)

    def _answered(self, data: bytes, on: Callable[[bytes], None]) -> None:
        if self.dead:
            return
        if self.fault is not None and self.is_write(data) and self.chance.random() < 0.5:
            self.fault()
            self._goes_wrong(data, on)
            return
        ends = self.left == 0 and self.is_write(data) and not self.before
        if ends and self.after:
            self.cut()
            return
        on(data)
        if ends:
            self.left = -1
            asyncio.get_running_loop().call_later(self.chance.uniform(0.0, 0.3), self.cut)

    def _goes_wrong(self, data: bytes, on: Callable[[bytes], None]) -> None:
        match self.chance.choice(["lost", "late", "of another", "wrong", "cut"]):
            case "late":
                asyncio.get_running_loop().call_later(self.chance.uniform(0.1, 3.0), on, data)
            case "of another":
                on(self.kind.speech.of_another(data, self.chance))
            case "wrong":
                on(self.kind.speech.spoiled(data, self.chance))
            case "cut":
                self.wire.cut()
            case _:
                pass


class Clock:
    """The loop's time, of a boot."""

    def __init__(self, loop: Loop, boot: int) -> None:
        self.loop, self.boot = loop, boot

    def now_s(self) -> float:
        return self.loop.time()

    def stamp(self) -> Stamp:
        return Stamp("2026-01-01T00:00:00.000000Z", ClockQuality.FREE, round(self.now_s(), 6), f"boot-{self.boot}")


class CutDisk(CrashDisk):
    """Tells when it has seen so many operations."""

    cut_at = -1
    cut: Callable[[], None]

    def note(self, op: Op) -> None:
        super().note(op)
        if len(self.log) == self.cut_at:
            self.cut()


def _sync_folder(disk: CutDisk, path: Path) -> None:
    disk.note(Op("folder", ""))
    _really_sync_folder(path)


_really_sync_folder = edge.journal._sync_folder


class Life:
    """One batch at one device, over several boxes."""

    def __init__(
        self, kind: Kind, loop: Loop, seed: int, folder: Path, plant: Plant, wire: Wire, tally: Tally, *, faults: bool
    ) -> None:
        """With `faults` answers go wrong, else the power does."""
        self.kind = kind
        self.loop, self.folder, self.tally = loop, folder, tally
        self.cuts = 0 if faults else CUTS
        self.chance = random.Random(seed)
        self.values = _values(kind, self.chance)
        self.recipe = _recipe(kind, self.values)
        self.book = Book(plant, {"seal": self.recipe}, frozenset({"seal"}))
        self.device = Device(kind, wire, self.chance, tally.fault if faults else None)
        self.key = DeviceKey.create(folder / "device.key")
        self.files: dict[str, bytes] = {}
        self.known: Counter[float] = Counter()
        """How often a value had arrived when a person last answered about it."""
        self.shown_seq = 0
        self.boot = 0

    async def live(self) -> None:
        for cuts_left in range(self.cuts, -1, -1):
            if await self.box(cut=cuts_left > 0):
                return
        raise AssertionError("the batch has not ended although the power stayed")

    async def box(self, *, cut: bool) -> bool:
        """One box until the power goes, or the batch is over: whether it is."""
        self.boot += 1
        at = self.folder / f"box-{self.boot}"
        at.mkdir()
        for name, data in self.files.items():
            (at / name).write_bytes(data)
        if self.boot > 1:
            (at / "epoch").write_bytes((self.folder / "box-1" / "epoch").read_bytes())
        disk = CutDisk()
        for name, data in self.files.items():
            disk.log += [Op("write", name, 0, data), Op("sync", name)]
        dead, upto = asyncio.Event(), [0]
        once = threading.Lock()

        def power_goes() -> None:
            if once.acquire(blocking=False):
                self.device.dead = True
                upto[0] = len(disk.log)
                self.loop.call_soon_threadsafe(dead.set)

        at_the_device = cut and self.chance.random() < 0.6
        self.device.begin(power_goes, self.chance.randint(1, 2) if at_the_device else 0)
        disk.cut = power_goes
        over = False
        self.loop.busy = lambda: True
        with disk.mounted() as vfs, mock.patch.object(edge.journal, "_sync_folder", partial(_sync_folder, disk)):
            try:
                async with open_journal(at / "journal.db", at / "epoch", vfs=vfs) as journal:
                    with JournalReader(at / "journal.db") as reader:
                        line = read_head(reader, at / "none", self.book, made_seq=journal.head_seq).line
                    self.check_start(line)
                    if cut and not at_the_device:
                        disk.cut_at = len(disk.log) + self.chance.randint(1, 30)
                    self.loop.busy = lambda: journal.durable_seq < journal.head_seq and not journal.failed.done()
                    over = await self.run(line, journal, dead)
                    self.loop.busy = lambda: True
            finally:
                self.loop.busy = lambda: False
        if dead.is_set():
            self.tally.fault()
            how = self.chance.choice(WAYS)
            self.files = image(disk.log, upto[0], how, self.chance.randrange(2**31))
            self.files = {name: data for name, data in self.files.items() if not name.endswith("-shm")}
            return False
        assert over
        self.check_end(at)
        return True

    async def run(self, line: Line, journal: Any, dead: asyncio.Event) -> bool:
        woken: list[Engine] = []
        equipment = Equipment(
            self.book.plant,
            DRIVERS,
            now_s=self.loop.time,
            utc=lambda: "2026-01-01T00:00:00.000000Z",
            on_change=lambda: woken[0].wake() if woken else changed.set(),
            home=Home(),
        )
        changed = asyncio.Event()
        async with equipment:
            await equipment.watch(self.book.plant.tags())
            if self.chance.random() < 0.7:  # else the device is not yet there when the engine begins
                shown = [name for name, tag in self.book.plant.tags().items() if tag.method is None]
                while not all((found := equipment.latest(name)) and found.good for name in shown):
                    changed.clear()
                    equipment.take_changed()
                    await changed.wait()
            engine = Engine(line, journal, equipment, Clock(self.loop, self.boot), self.key)
            woken.append(engine)
            await engine.submit(cm.StartRuntime(version="t"))  # as the runtime says it, before anything takes effect
            tasks = [asyncio.ensure_future(one) for one in (engine.run(), self.people(engine), dead.wait())]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self.shown_seq = max(self.shown_seq, engine.shown.seq) if not dead.is_set() else self.shown_seq
                for task in done:
                    task.result()
                return tasks[1] in done
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    # The people ------------------------------------------------------------------------------------------------------

    async def people(self, engine: Engine) -> None:
        """Start what is not started, answer what is asked, go on with what is held, until the batch is over."""
        await engine.submit(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal="seal"))
        await engine.submit(cm.OpenSession(session=f"s{self.boot}", method="badge and PIN", **ANA))
        for _ in range(LOOKS_MAX):
            engine.changed.clear()
            batch = engine.shown.batches.get("B1")
            self.saw(engine)
            if batch is not None and batch.state in GONE:
                return
            if batch is None or batch.questions or batch.state is State.HELD:
                with contextlib.suppress(LinesideError):  # something else has come first: it is looked at again
                    await self.act(engine, batch)
                await asyncio.sleep(0)
            else:
                await engine.changed.wait()
        raise AssertionError(f"the batch does not end: {batch}")

    def saw(self, engine: Engine) -> None:
        if not self.device.dead:
            self.shown_seq = max(self.shown_seq, engine.shown.seq)

    async def act(self, engine: Engine, batch: Batch | None) -> None:
        by = f"s{self.boot}"
        if batch is None:
            start = cm.StartBatch(session=by, batch="B1", order="O", seal="seal", patient="=DIN1", speed=1.0)
            await engine.submit(start)
        elif batch.questions:
            question = min(batch.questions.values(), key=lambda one: one.question)
            value = self.values[int(question.question[:3]) - 1]
            if "happened" not in question.answers:
                assert self.device.arrived[value] == self.known[value], f"{value} was refused, and it arrived"
                if self.kind is CALLS:
                    await self.loop.let_pass(1.0)  # a session that is lost comes back with time, not when it is needed
            self.known[value] = self.device.arrived[value]
            answer = "happened" if self.device.arrived[value] else "again"
            if self.chance.random() < 0.1:
                answer = "again"
            await engine.submit_signed(lambda _at, *subject: self.answered(question.question, answer, *subject))
        elif batch.state is State.HELD:
            await engine.submit(cm.ActOnBatch(session=by, batch="B1", act=Act.RESUME, reason="goes on"))

    def answered(self, question: str, answer: Any, seq: int, row_hash: bytes) -> cm.AnswerQuestion:
        signed = cm.Signed(
            **ANA,
            role=Role.OPERATOR,
            methods=("name", "PIN"),
            meaning="m",
            session=f"s{self.boot}",
            subject_seq=seq,
            subject_hash=row_hash.hex(),
            attestation="00" * 64,
        )
        return cm.AnswerQuestion(
            session=f"s{self.boot}", batch="B1", question=question, answer=answer, reading=None, signed=signed
        )

    # The judge -------------------------------------------------------------------------------------------------------

    def check_start(self, line: Line) -> None:
        assert line.seq >= self.shown_seq, f"row {self.shown_seq} was shown, and {line.seq} are left"
        self.judge(line)

    def check_end(self, at: Path) -> None:
        with JournalReader(at / "journal.db") as reader:
            rows = [decode(row.body).event for row in reader.rows(0, 100_000)]
            self.judge(read_head(reader, at / "none", self.book, made_seq=len(rows)).line, rows)

    def judge(self, line: Line, rows: list[ev.Event] | None = None) -> None:
        again: Counter[str] = Counter()
        for row in rows or ():
            if isinstance(row, ev.QuestionAnswered) and row.answer == "again":
                again[row.step] += 1
        batch = line.batches.get("B1")
        for number, value in enumerate(self.values, 1):
            step = f"{number:03d}"
            count = self.device.arrived[value]
            run = batch.steps.get(step) if batch is not None else None
            assert not count or run is not None, f"{value} was written, and no row says that step {step} began"
            if run is not None and run.state == "done":
                assert count, f"step {step} is done, and {value} was never written"
            if rows is not None:
                assert count <= 1 + again[step], f"{value} was written {count} times, and asked for again {again[step]}"


async def play(kind: Kind, loop: Loop, seed: int, folder: Path, tally: Tally, *, faults: bool) -> None:
    async with kind.serve(seed, folder) as (port, device):
        plant = kind.subject_at(port, Direct(device)).plant
        connection = plant.connections["device"].model_copy(update={"timeout_s": 0.3, "poll_s": 0.2})
        plant = plant.model_copy(update={"connections": {"device": connection}})
        life = Life(kind, loop, seed, folder, plant, loop.wires[port], tally, faults=faults)
        await life.live()
        arrived, counted = sum(life.device.arrived.values()), device.counters[kind.tag]
        assert counted == arrived, f"the device counted {counted} writes, the wire {arrived}"


Inject = Callable[[int, Path, Tally], Any]


def over(kind: Kind, *, faults: bool) -> Inject:
    """One batch of writes: the power goes up to twelve times in it, or half of them are not answered as they should."""

    async def inject(seed: int, folder: Path, tally: Tally) -> None:
        random.seed(seed)
        await asyncio.to_thread(network.run, lambda loop: play(kind, loop, seed, folder, tally, faults=faults))

    return inject


def before_it_is_durable(self: Engine, group: asyncio.TaskGroup, write: Write) -> None:
    """Planted: sent when it is intended."""
    durable, self._durable_head = self._durable_head, (write.seq, b"")
    BEGIN_WRITE(self, group, write)
    self._durable_head = durable


def by_an_old_head(self: Engine, command: cm.Command, at: Stamp, *, urgent: bool = False) -> Any:
    """Planted: decided by the head that is shown."""
    self.line = self.shown
    return DECIDE(self, command, at, urgent=urgent)


DRIVERS: Final = installed_drivers()
BEGIN_WRITE: Final = Engine._begin_write
DECIDE: Final = Engine._decide

cut, cut_calls = over(WRITES, faults=False), over(CALLS, faults=False)
disturb, disturb_calls = over(WRITES, faults=True), over(CALLS, faults=True)


async def calls_again(self: OpcUaDriver, tag: str, arguments: Any) -> Any:
    """Planted: once more, when nobody knows."""
    try:
        return await CALL(self, tag, arguments)
    except WriteUnknown:
        return await CALL(self, tag, arguments)


CALL: Final = OpcUaDriver.call


def _power_cut(inject: Inject) -> dict[str, Planted]:
    return {
        "open intents are taken up again": planted(
            inject,
            "was written . times",
            {
                "edge.core.line._after_start": lambda batch, *_: batch,
                "edge.core.decide._Decision.start_runtime": careless_start,
            },
        ),
        "a write is sent before its intent is durable": planted(
            inject, "no row says", {"edge.engine.Engine._begin_write": before_it_is_durable}
        ),
        "it is decided by an old head": planted(
            inject, "was written . times|no row says", {"edge.engine.Engine._decide": by_an_old_head}
        ),
    }


POWER_CUT = Part(
    2,
    "engine",
    "power cut between intent, write and read-back, over the real engine, journal and Modbus driver, at the simulated "
    "pump",
    gate=300,
    full=100_000,
    inject=cut,
    planted=_power_cut(cut),
)

POWER_CUT_CALLS = Part(
    2,
    "calls",
    "the same between intent, call and answer, with methods of the simulated reactor over OPC UA",
    gate=100,
    full=10_000,
    inject=cut_calls,
    planted=dict(list(_power_cut(cut_calls).items())[:1]),
)

UNKNOWN = Part(
    9,
    "engine",
    "answers to writes lost, late, cut off, of another transaction or wrong, over the real engine, journal and Modbus "
    "driver: the batch is held, and people answer",
    gate=500,
    full=50_000,
    inject=disturb,
    planted={
        "a write is repeated": planted(
            disturb, "was written . times", {"drivers.modbus_link.Link.exchange": sends_again(Link.exchange)}
        )
    },
)

UNKNOWN_CALLS = Part(
    9,
    "calls",
    "the same with methods of the simulated reactor over OPC UA, whose answers are all that is known",
    gate=100,
    full=10_000,
    inject=disturb_calls,
    planted={
        "a call is repeated": planted(
            disturb_calls,
            "was written . times|was refused, and it arrived",
            {"drivers.opcua.OpcUaDriver.call": calls_again},
        )
    },
)
