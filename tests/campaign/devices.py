"""Row 9: devices and networks that lose, delay, freeze, clamp or forge; the devices' own write counters judge."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from unittest import mock

from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.standard_address_space import standard_address_space

from drivers import modbus_link
from drivers.sim.control import Faults, SimControl
from drivers.sim.pump import serve_pump_and_balance
from drivers.sim.reactor import serve_bioreactor
from edge.core.plant import Plant, read_plant
from edge.core.terms import Reading
from edge.equipment import Equipment, Home, WriteOutcome, WriteResult, installed_drivers
from tests.campaign import Part, Tally, network, planted
from tests.campaign.network import Loop, Wire
from tests.contract.conformance import Subject, pump_subject, reactor_subject
from tests.contract.wire import sends_again

WRITES_A_SEED: Final = 32
TIMEOUT_S: Final = 0.3
POLL_S: Final = 0.2
STALE_S: Final = 5.0
"""As the subjects of the contract have it."""
PATIENCE_S: Final = 60.0
AGREES: Final = 1e-3

Ended = tuple[WriteResult | None, int]
"""How a write ended (None: it was cancelled) and how often the device counted it."""
ONCE: Final[Ended] = (WriteResult.CONFIRMED, 1)
DOUBT: Final[Ended] = (WriteResult.UNKNOWN, 1)
LOST: Final[Ended] = (WriteResult.UNKNOWN, 0)
UNSENT: Final[Ended] = (WriteResult.REFUSED, 0)


class Direct(SimControl):
    """The control channel of a device in this process."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults

    async def ask(self, **request: object) -> dict[str, Any]:
        return self.faults.obey(request)


@dataclass(frozen=True)
class Speech:
    """What a fault must know of a protocol. Messages are whole: the servers send each at once."""

    is_write: Callable[[bytes], bool]
    """Whether it asks for a write, or answers one."""
    of_another: Callable[[bytes, random.Random], bytes]
    """The same answer to another request."""
    spoiled: Callable[[bytes, random.Random], bytes]
    """An answer to this request that does not fit it."""
    number: str
    """How a value stands in a message, for `struct`."""
    noticed_s: float
    """Within this time the driver has noticed whatever happened to its connection."""


def _modbus_of_another(data: bytes, chance: random.Random) -> bytes:
    transaction = int.from_bytes(data[:2], "big") + chance.choice([-2, -1, 1, 256, chance.randrange(1, 65_000)])
    return (transaction % 65_536).to_bytes(2, "big") + data[2:]


def _modbus_spoiled(data: bytes, chance: random.Random) -> bytes:
    def sized(pdu: bytes, unit: int = data[6]) -> bytes:
        return data[:4] + (len(pdu) + 1).to_bytes(2, "big") + bytes([unit]) + pdu

    return chance.choice(
        [
            sized(data[7:], unit=9),
            sized(bytes([6]) + data[8:]),
            sized(data[7:9] + bytes([data[9] ^ 1]) + data[10:]),
            sized(data[7:11] + b"\0\1"),
            sized(data[7:] + b"\0"),
            sized(data[7:-1]),
            sized(bytes([data[7] | 0x80, 5])),
            data[:2] + b"\0\1" + data[4:],
            chance.randbytes(12),
        ]
    )


MODBUS: Final = Speech(
    lambda data: len(data) > 7 and data[7] & 0x7F == 16, _modbus_of_another, _modbus_spoiled, ">f", 0.0
)

_REQUEST, _TYPE = slice(20, 24), slice(24, 28)
_WRITES: Final = {b"\x01\x00" + struct.pack("<H", kind) for kind in (673, 676)}
_OTHERS: Final = [b"\x01\x00" + struct.pack("<H", kind) for kind in (466, 634, 754, 781, 829)]
"""To start a session, to read, to subscribe, to publish: none is the answer to a write or a call."""


def _opcua_of_another(data: bytes, chance: random.Random) -> bytes:
    number = int.from_bytes(data[_REQUEST], "little") + chance.choice([-1, 1, 2, chance.randrange(1, 65_000)])
    return data[:20] + (number % 2**32).to_bytes(4, "little") + data[24:]


def _opcua_spoiled(data: bytes, chance: random.Random) -> bytes:
    """Also the kind alone: asyncua by itself takes what has the right request's number and reads as a good answer."""
    return chance.choice(
        [
            data[: _TYPE.start] + chance.choice(_OTHERS) + data[_TYPE.stop :],
            data[:8] + b"\xff\xff\xff\x7f" + data[12:],
            data[:28] + chance.randbytes(len(data) - 28),
            b"XYZ" + data[3:],
            chance.randbytes(len(data)),
        ]
    )


OPCUA: Final = Speech(
    lambda data: data[:3] == b"MSG" and data[_TYPE] in _WRITES,
    _opcua_of_another,
    _opcua_spoiled,
    "<f",
    5 * TIMEOUT_S,
)


class Box:
    """The equipment of one box on the loop's time, every tag watched."""

    def __init__(self, plant: Plant, now_s: Callable[[], float]) -> None:
        self.tags = tuple(plant.tags())
        self.changed = asyncio.Event()
        self.seen: list[Reading] = []
        """Every reading that was shown as good."""
        self.equipment = Equipment(
            plant,
            installed_drivers(),
            now_s=now_s,
            utc=lambda: "2026-01-01T00:00:00.000000Z",
            on_change=self._look,
            home=Home(),
        )

    def _look(self) -> None:
        for tag in self.equipment.take_changed():
            reading = self.equipment.latest(tag)
            if reading is not None and reading.good:
                self.seen.append(reading)
        self.changed.set()

    def good(self, tag: str) -> bool:
        reading = self.equipment.latest(tag)
        return reading is not None and reading.good

    async def all_good(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not (self.equipment.health()["device"].connected and all(map(self.good, self.tags))):
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Bench:
    """One box at one device, and one write after the other."""

    loop: Loop
    chance: random.Random
    subject: Subject
    made: Box
    wire: Wire
    speech: Speech
    value: Any = 0.0
    """What is written now."""
    held: list[asyncio.TimerHandle] = field(default_factory=list)
    forged: bool = False

    @property
    def control(self) -> SimControl:
        return self.subject.control

    async def count(self) -> int:
        return (await self.control.counters())[self.subject.setpoint]

    def at_the_answer(self, what: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        """Do this with what the server says to the write; everything else passes."""
        self.wire.answer = lambda data, on: what(data, on) if self.speech.is_write(data) else on(data)

    # The faults: each is set up for the write that follows, and says how that may end.

    async def nothing(self) -> Collection[Ended]:
        return {ONCE}

    async def lost_reply(self) -> Collection[Ended]:
        await self.control.drop_replies(10)
        return {DOUBT}

    async def lost_request(self) -> Collection[Ended]:
        self.wire.ask = lambda data, on: None if self.speech.is_write(data) else on(data)
        return {LOST}

    async def late_reply(self) -> Collection[Ended]:
        """The way back stands still for a while, with everything on it."""
        most = self.chance.choice([0.4, 1.1, 6.0])
        delay_s = self.chance.uniform({0.4: 0.0, 1.1: 0.4, 6.0: 1.1}[most], most) * TIMEOUT_S
        waiting: list[tuple[Callable[[bytes], None], bytes]] = []

        def flow() -> None:
            self.wire.answer = None
            for on, data in waiting:
                on(data)

        def held(data: bytes, on: Callable[[bytes], None]) -> None:
            if not waiting and not self.speech.is_write(data):
                on(data)
                return
            if not waiting:
                self.held.append(self.loop.call_later(delay_s, flow))
            waiting.append((on, data))

        self.wire.answer = held
        # from 0.4 on it may be that of the look whether the device is there that is late
        return {0.4: {ONCE}, 1.1: {ONCE, DOUBT}, 6.0: {DOUBT}}[most]

    async def reply_on_the_next_connection(self) -> Collection[Ended]:
        """A gateway that keeps what it could not deliver."""
        kept: list[bytes] = []

        def answer(data: bytes, on: Callable[[bytes], None]) -> None:
            if self.speech.is_write(data):
                kept.append(data)
                return
            while kept:
                on(kept.pop())
            on(data)

        self.wire.answer = answer
        return {DOUBT}

    async def of_another_request(self) -> Collection[Ended]:
        self.at_the_answer(lambda data, on: on(self.speech.of_another(data, self.chance)))
        return {DOUBT}

    async def does_not_fit(self) -> Collection[Ended]:
        self.at_the_answer(lambda data, on: on(self.speech.spoiled(data, self.chance)))
        return {DOUBT}

    async def cut_off(self) -> Collection[Ended]:
        """The connection ends: before the request arrived, before the answer, or within it."""
        if self.chance.random() < 0.3:
            self.wire.ask = lambda data, on: self.wire.cut() if self.speech.is_write(data) else on(data)
            return {LOST}
        share = self.chance.choice([0.0, self.chance.random()])

        def part(data: bytes, on: Callable[[bytes], None]) -> None:
            on(data[: int(len(data) * share)])
            self.loop.call_soon(self.wire.cut)

        self.at_the_answer(part)
        return {DOUBT}

    async def server_killed(self) -> Collection[Ended]:
        self.wire.cut()
        self.wire.up = False
        self.held.append(self.loop.call_later(self.chance.uniform(0.0, 3.0), self._up))
        if self.chance.random() < 0.5:
            await self.loop.let_pass(self.chance.uniform(0.0, 3.0))
        return {LOST, UNSENT, ONCE} if self.wire.up else {LOST, UNSENT}

    def _up(self) -> None:
        self.wire.up = True

    async def silent(self) -> Collection[Ended]:
        await self.control.silent()
        await self.loop.let_pass(self.chance.choice([0.0, self.chance.uniform(0.0, 4 * TIMEOUT_S)]))
        return {DOUBT, UNSENT}

    async def stale(self) -> Collection[Ended]:
        """Silent for longer than any value may be shown."""
        await self.control.silent()
        await self.loop.let_pass(STALE_S + TIMEOUT_S + 1.0)
        for tag in self.made.tags:
            assert not self.made.good(tag), f"{tag} is shown as good {STALE_S} s after the device fell silent"
        return {DOUBT, UNSENT}

    async def clamped(self) -> Collection[Ended]:
        await self.control.clamp(self.subject.setpoint, min(self.subject.values))
        return {DOUBT}

    async def frozen(self) -> Collection[Ended]:
        shown = await self.made.equipment.read(self.subject.setpoint)  # a write that was lost may have changed it since
        if shown.good and abs(float(shown.value) - self.value) < AGREES:
            self.value = round(self.value - 1, 1)  # frozen at what is written it would be right
        await self.control.freeze(self.subject.setpoint)
        return {DOUBT} if shown.good else {DOUBT, ONCE}

    async def bad_quality(self) -> Collection[Ended]:
        """A write may bring a good quality along."""
        status = self.chance.choice(["BadSensorFailure", "UncertainLastUsableValue", "BadNoCommunication"])
        await self.control.bad_quality(self.subject.setpoint, status)
        return {DOUBT, ONCE}

    async def no_number(self) -> Collection[Ended]:
        self.value = self.chance.choice([math.nan, math.inf, -math.inf, self.subject.too_high, -1.0, "text", True])
        return {UNSENT}

    async def reads_no_number(self) -> Collection[Ended]:
        """The device shows no number, or one that it cannot have, where the value was written."""
        shown = struct.pack(self.speech.number, self.chance.choice([math.nan, math.inf, -math.inf, 1e9, -500.0]))
        value, self.forged = struct.pack(self.speech.number, self.value), True
        self.wire.answer = lambda data, on: on(data if self.speech.is_write(data) else data.replace(value, shown))
        return {DOUBT}

    FAULTS = (
        *(nothing, lost_reply, lost_request, late_reply, of_another_request, does_not_fit, cut_off, server_killed),
        *(silent, stale, clamped, frozen, bad_quality, no_number, reads_no_number),
    )

    # One write ------------------------------------------------------------------------------------------------------

    async def write_under(self, fault: Callable[[Bench], Awaitable[Collection[Ended]]], again: int = 2) -> str:
        """One write while there is this fault; returns what was violated, empty when nothing was. Once more when
        nothing was sent because the connection of the fault before had yet to be given up."""
        low, high = min(self.subject.values), max(self.subject.values)
        self.value = round(self.chance.uniform(low + 1, high), 1)
        before = await self.count()
        allowed = await fault(self)
        writing = asyncio.ensure_future(
            self.made.equipment.writer(self.subject.setpoint).write_and_read_back(self.value)
        )
        if cancelled := self.chance.random() < 0.08:
            await self._some_time(writing)
            cancelled = writing.cancel()
        (outcome,) = await asyncio.gather(writing, return_exceptions=True)
        await self._well_again()
        count = await self.count() - before
        what = f"{fault.__name__}, value {self.value}: the device counted {count} writes, the outcome was {outcome}"
        if count > 1:
            return f"written more than once: {what}"
        if isinstance(outcome, asyncio.CancelledError) and cancelled:
            return ""
        if not isinstance(outcome, WriteOutcome):
            return what
        if again and outcome.result is WriteResult.REFUSED and not count and UNSENT not in allowed:
            return await self.write_under(fault, again - 1)
        reading = outcome.reading
        seen = reading is not None and reading.good and not isinstance(reading.value, str)
        seen = seen and reading is not None and abs(float(reading.value) - self.value) < AGREES
        if (outcome.result, count) not in allowed or (outcome.result is WriteResult.CONFIRMED and not seen):
            return f"the outcome is not what happened: {what}"
        wrong = [one for one in self.made.seen if not self._possible(one)]
        self.made.seen.clear()
        return f"shown as good: {wrong[0]} ({what})" if wrong else ""

    async def _some_time(self, writing: asyncio.Future[WriteOutcome]) -> None:
        """A few turns of the loop, or some time."""
        for _ in range(self.chance.randrange(60)):
            await asyncio.sleep(0)
        if self.chance.random() < 0.3:
            await asyncio.wait({writing}, timeout=self.chance.uniform(0.0, 2 * TIMEOUT_S))

    async def _well_again(self) -> None:
        for timer in self.held:
            timer.cancel()
        self.held.clear()
        await self.control.clear()
        self.wire.ask = self.wire.answer = None
        self.wire.up = True
        if self.forged:  # a server tells each value once: what the wire made of it would stay
            self.forged = False
            self.wire.cut()
        await self.loop.let_pass(self.speech.noticed_s)
        await self.made.all_good()
        await self.made.equipment.read(self.subject.setpoint)  # what was under way on the wire is over

    def _possible(self, reading: Reading) -> bool:
        return isinstance(reading.value, int | float) and -1.0 <= reading.value <= self.subject.too_high + 100


@contextlib.asynccontextmanager
async def pump_at(seed: int, folder: Path) -> AsyncIterator[tuple[int, Faults]]:
    faults: list[Faults] = []
    with mock.patch("drivers.sim.pump.serve_control", functools.partial(_caught, faults)):
        served = serve_pump_and_balance("127.0.0.1", 0, seed=seed, speed=600, control=folder / "none")
        async with served as port:
            yield port, faults[0]


_plant_read_once = functools.cache(read_plant)
_fill_address_space = standard_address_space.fill_address_space
_standard: dict[ua.NodeId, NodeData] = {}


def _fill_from_the_first(service: Any) -> None:
    """The standard's six thousand nodes take two seconds to make: made once, and copied for every further server."""
    if not _standard:
        _fill_address_space(service)
        _standard.update(_copied(service._aspace._nodes))
    else:
        service._aspace._nodes.update(_copied(_standard))


def _copied(nodes: Mapping[ua.NodeId, NodeData]) -> dict[ua.NodeId, NodeData]:
    copies = {}
    for name, node in nodes.items():
        copies[name] = copied = NodeData(name)
        copied.references, copied.call = [*node.references], node.call
        copied.attributes = {key: AttributeValue(one.value) for key, one in node.attributes.items()}
    return copies


@contextlib.asynccontextmanager
async def reactor_at(seed: int, folder: Path) -> AsyncIterator[tuple[int, Faults]]:
    faults: list[Faults] = []
    with (
        mock.patch("drivers.sim.reactor.serve_control", functools.partial(_caught, faults)),
        mock.patch("drivers.sim.reactor.read_plant", _plant_read_once),
        mock.patch("drivers.sim.reactor.TICK_S", 1.0),
        mock.patch.object(standard_address_space, "fill_address_space", _fill_from_the_first),
    ):
        async with serve_bioreactor("127.0.0.1", 0, seed=seed, speed=600, control=folder / "none") as port:
            yield port, faults[0]


@contextlib.asynccontextmanager
async def _caught(into: list[Faults], _path: Path, faults: Faults) -> AsyncIterator[None]:
    into.append(faults)
    yield


Serve = Callable[[int, Path], contextlib.AbstractAsyncContextManager[tuple[int, Faults]]]


def against(
    serve: Serve, subject_at: Callable[..., Subject], speech: Speech, *more: Callable[[Bench], Any]
) -> Callable[[int, Path, Tally], Any]:
    """One seed: a device, a box at it, and `WRITES_A_SEED` writes, most with a fault."""
    kinds = (*Bench.FAULTS, *more)

    async def play(loop: Loop, seed: int, folder: Path, tally: Tally) -> None:
        chance = random.Random(seed)
        async with serve(seed, folder) as (port, faults):
            subject = subject_at(port, Direct(faults))
            settings = {"timeout_s": TIMEOUT_S, "poll_s": POLL_S}
            connection = subject.plant.connections["device"].model_copy(update=settings)
            plant = subject.plant.model_copy(update={"connections": {"device": connection}})
            made = Box(plant, loop.time)
            async with made.equipment:
                await made.equipment.watch(made.tags)
                await made.all_good()
                bench = Bench(loop, chance, subject, made, loop.wires[port], speech)
                for _ in range(WRITES_A_SEED):
                    fault = chance.choice(kinds)
                    tally.fault(fault is not Bench.nothing)
                    if what := await bench.write_under(fault):
                        tally.violated(what)

    async def inject(seed: int, folder: Path, tally: Tally) -> None:
        random.seed(seed)
        await asyncio.to_thread(network.run, lambda loop: play(loop, seed, folder, tally))

    return inject


MODBUS_FAULTS: Final = against(pump_at, pump_subject, MODBUS, Bench.reply_on_the_next_connection)
OPCUA_FAULTS: Final = against(reactor_at, reactor_subject, OPCUA)


def whatever_comes(request: bytes, received: bytes) -> tuple[bytes, str]:
    """Planted: an answer is believed whatever its transaction."""
    return (request[:2] + received[2:] if len(received) > 7 else b""), ""


async def whatever_kind(self: UaSession, request: Any, *more: Any) -> Any:
    """Planted: an answer is believed whatever its kind."""
    return await UaSession._send_request(self, request, *more)


BELIEVING: Final = replace(modbus_link._TCP, answer_in=whatever_comes)

PARTS = (
    Part(
        9,
        "modbus",
        "replies lost, late, cut off, of another transaction or wrong; silence, stale, clamped, frozen, bad and "
        "impossible values, a server killed: at the simulated pump",
        gate=500,
        full=50_000,
        inject=MODBUS_FAULTS,
        planted={
            "a write is repeated": planted(
                MODBUS_FAULTS,
                "more than once",
                {"drivers.modbus_link.Link.exchange": sends_again(modbus_link.Link.exchange)},
            ),
            "a reply of another transaction is believed": planted(
                MODBUS_FAULTS, "of_another_request.*confirmed", {"drivers.modbus_link._TCP": BELIEVING}
            ),
        },
    ),
    Part(
        9,
        "opcua",
        "the same at the simulated reactor",
        gate=500,
        full=50_000,
        inject=OPCUA_FAULTS,
        planted={
            "a reading is not compared": planted(
                OPCUA_FAULTS, "not what happened", {"edge.equipment.agrees": lambda *_: True}
            ),
            "an answer of another kind is believed": planted(
                OPCUA_FAULTS, "does_not_fit.*confirmed", {"drivers.opcua._Session._send_request": whatever_kind}
            ),
        },
    ),
)
