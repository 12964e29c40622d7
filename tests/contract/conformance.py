"""What every driver must do, judged by the device's own write counters.

`check_equipment(subject)` runs all of it; a site that adds a driver makes a `Subject` for its own simulator.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drivers.sim.control import SimControl
from edge.core.plant import Plant
from edge.core.terms import Quality, Reading, Value
from edge.core.zpl import fingerprint, label, layout
from edge.equipment import DriverLoader, Equipment, Home, WriteOutcome, WriteResult, installed_drivers

TIMEOUT_S = 1.0
HOME = Home()
"""The box that the checks run on."""
PATIENCE_S = 60.0
"""No check is about time: a busy machine gets as much as it needs."""


def now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Subject:
    """One device and what may be done with it."""

    plant: Plant
    control: SimControl
    measured: str
    setpoint: str
    values: tuple[Value, Value, Value]
    """Three values that the set-point accepts."""
    too_high: Value
    """One that it does not."""
    shown: Callable[[Value], Value] = lambda value: value
    """What the set-point reads when it has taken a value."""
    clamps: bool = True
    """The device can be told to take less than it was sent."""

    def shows(self, reading: Reading, value: Value) -> bool:
        """Whether a reading of the set-point says that it has the value."""
        seen, wanted = reading.value, self.shown(value)
        if isinstance(wanted, str) or isinstance(seen, str):
            return seen == wanted
        return abs(float(seen) - float(wanted)) < 1e-4

    async def write(self, made: Rig, value: Value) -> WriteOutcome:
        """One guarded write to the set-point."""
        shown = self.shown(value)
        shown_by = () if shown == value else (shown,)
        return await made.equipment.writer(self.setpoint).write_and_read_back(value, shown_by)


def one_connection(driver: str, settings: Mapping[str, Value], unit: str, tags: Mapping[str, object]) -> Plant:
    return Plant.model_validate(
        {
            "plant": "contract",
            "connections": {"device": {"driver": driver, "settings": settings, "timeout_s": TIMEOUT_S, "poll_s": 0.05}},
            "units": {unit: {"class": "thing", "tags": tags}},
        }
    )


@contextmanager
def simulated(device: str, folder: Path, *more: str) -> Iterator[tuple[int, SimControl]]:
    """The simulated reactor or pump as a process of its own: its port and its control channel."""
    control = folder / f"{device}.sock"
    command = [sys.executable, "-m", "drivers.sim", device, "--control", str(control), "--speed", "600", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"], SimControl(control)
        process.communicate(timeout=10)  # closing its standard input ends it


def reactor_subject(port: int, control: SimControl, *, security: str = "none") -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    node = "nsu=urn:lineside:sim:reactor;s="
    tags = {
        "agitation": {**common, "address": node + "agitation", "unit": "rpm", "low": -1, "high": 500},
        "agitation_setpoint": {
            **common,
            "address": node + "agitation_setpoint",
            "unit": "rpm",
            "access": "write",
            "low": 0,
            "high": 400,
        },
    }
    settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": security}
    return Subject(
        one_connection("opcua", settings, "BR-1", tags),
        control,
        "BR-1.agitation",
        "BR-1.agitation_setpoint",
        (100.1, 120.0, 140.0),
        400.5,
    )


def pump_subject(port: int, control: SimControl) -> Subject:
    return _pump_subject({"host": "127.0.0.1", "port": port}, control)


def serial_pump_subject(line: str, control: SimControl) -> Subject:
    return _pump_subject({"line": line, "parity": "none"}, control)


def _pump_subject(settings: Mapping[str, Value], control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    tags = {
        "speed": {**common, "address": "input 0 float32", "unit": "mL/min", "low": -1, "high": 200},
        "speed_setpoint": {
            **common,
            "address": "holding 0 float32",
            "unit": "mL/min",
            "access": "write",
            "low": 0,
            "high": 100,
        },
    }
    return Subject(
        one_connection("modbus", settings, "P-1", tags),
        control,
        "P-1.speed",
        "P-1.speed_setpoint",
        (10.1, 20.0, 30.0),
        100.5,
    )


def scale_subject(port: int, control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3, "unit": "g", "low": -200, "high": 6000}
    tags = {
        "weight": {**common, "address": "weight"},
        "tare_weight": {**common, "address": "tare weight", "access": "write", "low": 0, "high": 100},
    }
    return Subject(
        one_connection("scale", {"host": "127.0.0.1", "port": port}, "W-2", tags),
        control,
        "W-2.weight",
        "W-2.tare_weight",
        (10.1, 20.0, 30.0),
        100.5,
    )


def printer_subject(port: int, control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    tags = {
        "waiting": {**common, "address": "waiting", "type": "int", "low": 0, "high": 1000},
        "label": {**common, "address": "label", "type": "text", "access": "write"},
    }
    return Subject(
        one_connection("printer", {"host": "127.0.0.1", "port": port, "counter": True}, "PR-1", tags),
        control,
        "PR-1.waiting",
        "PR-1.label",
        (
            label(layout(["Batch"]), {"Batch": "B1"}, "B1", 1),
            label(layout(["Batch"]), {"Batch": "B2"}, "B2", 1),
            label(layout(["Batch"]), {"Batch": "B3"}, "B3", 1),
        ),
        "^XA~JA^PQ1,0,1,Y^XZ",
        shown=lambda value: fingerprint(str(value)),
        clamps=False,
    )


class Rig:
    """An Equipment under test; `until` waits on its own changes."""

    def __init__(self, plant: Plant, drivers: Mapping[str, DriverLoader], home: Home, utc: Callable[[], str]) -> None:
        self.changed = asyncio.Event()
        self.equipment = Equipment(plant, drivers, now_s=now_s, utc=utc, on_change=self.changed.set, home=home)
        self.seen: list[Reading] = []

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not done():
                await self.changed.wait()
                self.changed.clear()
                for tag in self.equipment.take_changed():
                    reading = self.equipment.latest(tag)
                    assert reading is not None
                    self.seen.append(reading)

    def good(self, tag: str) -> bool:
        reading = self.equipment.latest(tag)
        return reading is not None and reading.good

    def bad(self, tag: str) -> bool:
        reading = self.equipment.latest(tag)
        return reading is not None and reading.quality is Quality.BAD


@asynccontextmanager
async def rig(
    plant: Plant,
    drivers: Mapping[str, DriverLoader] | None = None,
    *,
    home: Home | None = None,
    utc: Callable[[], str] = lambda: datetime.now(UTC).isoformat(),
) -> AsyncIterator[Rig]:
    """A running rig that watches every tag."""
    made = Rig(plant, drivers or installed_drivers(), home or HOME, utc)
    async with made.equipment:
        await made.equipment.watch(plant.tags())
        yield made


@asynccontextmanager
async def _running(subject: Subject) -> AsyncIterator[Rig]:
    async with rig(subject.plant) as made:
        await made.until(lambda: all(made.good(tag) for tag in subject.plant.tags()))
        yield made


async def _writes(subject: Subject) -> int:
    return (await subject.control.counters())[subject.setpoint]


async def reads_and_watches(subject: Subject) -> None:
    async with _running(subject) as made:
        reading = await made.equipment.read(subject.measured)
        assert reading.good
        assert reading.unit == subject.plant.tags()[subject.measured].unit
        assert made.equipment.health()["device"].connected
        # An unchanged value is confirmed anew, again and again: so it stays good, and silence does not look like it.
        heard: set[float] = set()
        async with asyncio.timeout(PATIENCE_S):
            while len(heard) < 4:
                assert (await made.equipment.read(subject.measured)).good
                latest = made.equipment.latest(subject.setpoint)
                assert latest is not None
                heard.add(latest.at_boottime_s)
        # Only what is watched is reported.
        await made.equipment.watch([])
        await made.equipment.watch([subject.measured])
        assert made.good(subject.measured)


async def writes_once(subject: Subject) -> None:
    async with _running(subject) as made:
        for value in subject.values:
            before = await _writes(subject)
            outcome = await subject.write(made, value)
            assert outcome.result is WriteResult.CONFIRMED, outcome.why
            assert outcome.reading is not None
            assert subject.shows(outcome.reading, value)
            assert await _writes(subject) == before + 1


async def refuses_before_sending(subject: Subject) -> None:
    async with _running(subject) as made:
        before = await _writes(subject)
        for value in (subject.too_high, math.nan, "text", True):
            outcome = await made.equipment.writer(subject.setpoint).write_and_read_back(value)
            assert outcome.result is WriteResult.REFUSED, value
        outcome = await made.equipment.writer(subject.measured).write_and_read_back(1.0)
        assert outcome.result is WriteResult.REFUSED
        assert await _writes(subject) == before


async def lost_reply_is_unknown_and_not_repeated(subject: Subject) -> None:
    async with _running(subject) as made:
        before = await _writes(subject)
        # More replies are dropped than one write has: any repetition is counted by the device.
        await subject.control.drop_replies(10)
        outcome = await subject.write(made, subject.values[0])
        assert await _writes(subject) == before + 1
        assert outcome.result is WriteResult.UNKNOWN
        assert outcome.reading is not None
        assert subject.shows(outcome.reading, subject.values[0]) or not outcome.reading.good
        await subject.control.clear()
        await made.until(lambda: made.good(subject.measured))
        outcome = await subject.write(made, subject.values[1])
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert await _writes(subject) == before + 2


async def cancelled_write_is_not_repeated(subject: Subject) -> None:
    async with _running(subject) as made:
        before = await _writes(subject)
        await subject.control.drop_replies(1)
        writing = asyncio.create_task(subject.write(made, subject.values[0]))
        async with asyncio.timeout(PATIENCE_S):
            while await _writes(subject) == before:
                pass  # each look is a round trip to the device
        writing.cancel()
        assert isinstance((await asyncio.gather(writing, return_exceptions=True))[0], asyncio.CancelledError)
        await made.until(lambda: made.good(subject.measured))
        outcome = await subject.write(made, subject.values[2])
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert await _writes(subject) == before + 2


async def silence_turns_bad_within_the_time_out(subject: Subject) -> None:
    async with _running(subject) as made:
        await subject.control.silent()
        began_s = now_s()
        await made.until(lambda: made.bad(subject.measured) and made.bad(subject.setpoint))
        # Half a time-out until the driver asks again, and the time-out itself; the rest is for a busy machine.
        assert now_s() - began_s < 10 * TIMEOUT_S
        assert not made.equipment.health()["device"].connected
        outcome = await subject.write(made, subject.values[0])
        assert outcome.result is not WriteResult.CONFIRMED
        await subject.control.clear()
        await made.until(lambda: made.good(subject.measured) and made.good(subject.setpoint))


async def bad_quality_is_not_good(subject: Subject) -> None:
    async with _running(subject) as made:
        await subject.control.bad_quality(subject.measured)
        await made.until(lambda: made.bad(subject.measured))
        assert not (await made.equipment.read(subject.measured)).good
        assert made.good(subject.setpoint), "one bad tag must not take its neighbours along"
        await subject.control.clear()
        await made.until(lambda: made.good(subject.measured))


async def clamped_and_frozen_writes_are_unknown(subject: Subject) -> None:
    low, middle, high = subject.values
    async with _running(subject) as made:
        before = await _writes(subject)
        if subject.clamps:
            assert isinstance(low, float)
            await subject.control.clamp(subject.setpoint, low)
            outcome = await subject.write(made, high)
            assert outcome.result is WriteResult.UNKNOWN, outcome.why
            assert outcome.reading is not None
            assert subject.shows(outcome.reading, low)
            await subject.control.clear()
            before += 1
        await subject.control.freeze(subject.setpoint)
        outcome = await subject.write(made, middle)
        assert outcome.result is WriteResult.UNKNOWN, outcome.why
        assert await _writes(subject) == before + 1


CHECKS: dict[str, Callable[[Subject], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        reads_and_watches,
        writes_once,
        refuses_before_sending,
        lost_reply_is_unknown_and_not_repeated,
        cancelled_write_is_not_repeated,
        silence_turns_bad_within_the_time_out,
        bad_quality_is_not_good,
        clamped_and_frozen_writes_are_unknown,
    )
}


async def check_equipment(subject: Subject) -> None:
    """Every check, one after the other. The device must be without faults between them."""
    for check in CHECKS.values():
        await check(subject)
        await subject.control.clear()
