"""The conformance suite of the port: what every driver must do, judged by the device's own write counters.

A driver is tried against a device, simulated or real, that a test can give faults: `check_equipment(maker)` runs all of
it. Where pytest runs it, `pytest.register_assert_rewrite("edge.conformance")` makes what it finds readable. How a site
uses it stands in docs/how-to/write-a-driver.md.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from edge.core.guard import call_text
from edge.core.plant import Plant
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, DriverLoader, Equipment, Home, WriteOutcome, WriteResult, installed_drivers

HOME: Final = Home()
TIMEOUT_S: Final = 1.0
PATIENCE_S: Final = 60.0
"""No check is about time: a busy machine gets as much as it needs."""


def now_s() -> float:
    """CLOCK_BOOTTIME, as the box takes it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Control(Protocol):
    """Faults on purpose at the device, and its own counters, beside the connection that the driver has."""

    async def counters(self) -> Mapping[str, int]:
        """How often each tag was written, as the device saw it. Nothing resets them."""

    async def drop_replies(self, n: int) -> None:
        """Carry out the next `n` writes, and never answer them."""

    async def freeze(self, tag: str) -> None:
        """Hold the tag at its present value, whatever is written."""

    async def bad_quality(self, tag: str) -> None:
        """Answer for the tag that its value is not to be used."""

    async def silent(self) -> None:
        """Answer nothing."""

    async def clamp(self, tag: str, most: float) -> None:
        """Limit writes to the tag without a word."""

    async def clear(self) -> None:
        """End every fault."""


@dataclass(frozen=True)
class Subject:
    """One device and what may be done with it: a plant with one connection, `device`, and two tags at least."""

    plant: Plant
    control: Control
    measured: str
    setpoint: str
    values: tuple[Value, Value, Value]
    """Three values that the set-point accepts."""
    too_high: Value
    """One that it does not."""
    shown: Callable[[Value], Value] = lambda value: value
    """What the set-point reads when it has taken a value."""
    method: str = ""
    """A tag that is a method, of a driver that can call."""
    calls: tuple[Mapping[str, Value], ...] = ()
    """Two things that it accepts; its counter is that of the tag."""
    called_wrongly: Mapping[str, Value] = field(default_factory=dict)
    """What the plant file does not let it be given."""
    clamps: bool = True
    """The device can be told to take less than it was sent."""
    home: Home = HOME
    drivers: Mapping[str, DriverLoader] | None = None
    """Those that are installed, when there are none here."""

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
    home: Home = HOME,
    utc: Callable[[], str] = lambda: datetime.now(UTC).isoformat(),
) -> AsyncIterator[Rig]:
    """A running rig that watches every tag."""
    made = Rig(plant, drivers or installed_drivers(), home, utc)
    async with made.equipment:
        await made.equipment.watch(plant.tags())
        yield made


@asynccontextmanager
async def _running(subject: Subject) -> AsyncIterator[Rig]:
    async with rig(subject.plant, subject.drivers, home=subject.home) as made:
        await made.until(lambda: all(made.good(tag) for tag in subject.plant.tags() if tag != subject.method))
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
            while await _writes(subject) == before:  # noqa: ASYNC110  only the device knows
                await asyncio.sleep(0)  # a device in this very process must get its turn
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


async def calls_once(subject: Subject) -> None:
    async with _running(subject) as made:
        if not subject.method:
            return
        assert Capability.CALL in made.equipment.can("device")

        async def called() -> int:
            return (await subject.control.counters())[subject.method]

        writer, before = made.equipment.writer(subject.method), await called()
        first, second = (call_text(one) for one in subject.calls)
        for wrong in (call_text(subject.called_wrongly), "{}", "[[[[", 1.0):
            assert (await writer.write_and_read_back(wrong)).result is WriteResult.REFUSED, wrong
        assert await called() == before
        outcome = await writer.write_and_read_back(first)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert outcome.reading is not None
        assert outcome.reading.good
        assert await called() == before + 1
        # More replies are dropped than one call has: any repetition is counted by the device.
        await subject.control.drop_replies(10)
        outcome = await writer.write_and_read_back(second)
        assert outcome.result is WriteResult.UNKNOWN, outcome.why
        await subject.control.clear()
        await made.until(lambda: made.good(subject.measured))
        assert await called() == before + 2
        await subject.control.silent()
        assert (await writer.write_and_read_back(first)).result is not WriteResult.CONFIRMED
        await subject.control.clear()
        await made.until(lambda: made.good(subject.measured))
        assert await called() <= before + 3
        await subject.control.bad_quality(subject.method)
        before = await called()
        assert (await writer.write_and_read_back(first)).result is not WriteResult.CONFIRMED
        assert await called() == before


async def can_what_it_says(subject: Subject) -> None:
    async with _running(subject) as made:
        can = made.equipment.can("device")
        reading = await made.equipment.read(subject.measured)
        assert bool(reading.source_utc) == (Capability.SOURCE_TIME in can)
        if Capability.BROWSE in can:
            found = {one.address: one for one in await made.equipment.browse("device")}
            for name, tag in subject.plant.tags().items():
                if name == subject.method:
                    continue
                assert found[tag.address].writable == (tag.access == "write"), name


CHECKS: dict[str, Callable[[Subject], Awaitable[None]]] = {
    check.__name__: check
    for check in (
        can_what_it_says,
        reads_and_watches,
        writes_once,
        refuses_before_sending,
        lost_reply_is_unknown_and_not_repeated,
        cancelled_write_is_not_repeated,
        silence_turns_bad_within_the_time_out,
        bad_quality_is_not_good,
        clamped_and_frozen_writes_are_unknown,
        calls_once,
    )
}


async def check_equipment(maker: Callable[[], AbstractAsyncContextManager[Subject]]) -> None:
    """Every check, one after the other, each with a subject that the maker gives it. Raises AssertionError."""
    for check in CHECKS.values():
        async with maker() as subject:
            await subject.control.clear()
            await check(subject)
            await subject.control.clear()
