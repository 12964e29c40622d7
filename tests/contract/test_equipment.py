"""Equipment itself: supervision, freshness, coalescing, and that nothing is imported which the plant does not name."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from drivers.sim.cell import DeviceProcess
from drivers.sim.control import SimControl
from edge.conformance import PATIENCE_S, Subject, now_s, rig
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Plant, Tag, read_plant
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, Equipment, Found, Health, Home, WriteResult, installed_drivers
from tests.contract.conformance import pump_subject, reactor_subject


class Scripted:
    """A site's own driver that does what a test tells it."""

    made: list[Scripted]
    capabilities = frozenset(Capability)

    def __init__(
        self,
        _connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
        home: Home,
    ) -> None:
        del utc, home
        self.tags, self.now_s = tags, now_s
        self.died: asyncio.Event = asyncio.Event()
        self.write_raises: Exception | None = None
        self.read_raises: Exception | None = None
        self.writes: list[Value] = []
        self.value: Value = 1.0
        self.stopped = False

    def report(self, value: Value, quality: Quality = Quality.GOOD) -> None:
        for tag in self.tags:
            self.on_reading(tag, Reading(value, "g", quality, "", self.now_s()))

    async def start(self, on_reading: Callable[[str, Reading], None], on_health: Callable[[Health], None]) -> None:
        self.on_reading, self.on_health = on_reading, on_health
        Scripted.made.append(self)

    async def stop(self) -> None:
        self.stopped = True

    async def watch(self, _tags: Sequence[str]) -> None:
        self.report(self.value)

    async def read(self, _tag: str) -> Reading:
        if self.read_raises:
            raise self.read_raises
        return Reading(self.value, "g", Quality.GOOD, "", self.now_s())

    async def write(self, _tag: str, value: Value) -> None:
        self.writes.append(value)
        await asyncio.sleep(0)
        if self.write_raises:
            raise self.write_raises
        self.value = value

    async def browse(self, _text: str = "") -> list[Found]:
        return []

    def health(self) -> Health:
        return Health(connected=True, detail="", since_boottime_s=0.0)

    async def failed(self) -> str:
        await self.died.wait()
        raise RuntimeError("out of luck")


def plant(**tag: object) -> Plant:
    return Plant.model_validate(
        {
            "plant": "p",
            "connections": {"c": {"driver": "scripted"}},
            "units": {
                "U": {
                    "class": "thing",
                    "tags": {"x": {"connection": "c", "address": "a", "access": "write", "settle_s": 0.05, **tag}},
                }
            },
        }
    )


@pytest.fixture
def scripted() -> Mapping[str, Callable[[], type[Scripted]]]:
    Scripted.made = []
    return {"scripted": lambda: Scripted}


async def test_a_dead_driver_is_bad_and_started_again(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    async with rig(plant(), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        Scripted.made[0].died.set()
        await made.until(lambda: made.bad("U.x"))
        assert "out of luck" in made.equipment.health()["c"].detail
        assert not made.equipment.health()["c"].connected
        await made.until(lambda: made.good("U.x"))
        assert Scripted.made[0].stopped
        assert len(Scripted.made) == 2


async def test_a_driver_that_fails_while_writing_leaves_it_unknown(
    scripted: Mapping[str, Callable[[], type[Scripted]]],
) -> None:
    async with rig(plant(), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        driver = Scripted.made[0]
        driver.write_raises = ValueError("a bug")
        outcome = await made.equipment.writer("U.x").write_and_read_back(5.0)
        assert outcome.result is WriteResult.UNKNOWN
        driver.write_raises = None
        driver.read_raises = ValueError("another")
        outcome = await made.equipment.writer("U.x").write_and_read_back(6.0)
        assert outcome.result is WriteResult.UNKNOWN
        assert outcome.reading is not None
        assert outcome.reading.quality is Quality.BAD
        assert driver.writes == [5.0, 6.0]


async def test_one_write_at_a_time_and_none_after_a_guard(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    async with rig(plant(low=0, high=10), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        driver, writer = Scripted.made[0], made.equipment.writer("U.x")
        outcomes = await asyncio.gather(writer.write_and_read_back(5.0), writer.write_and_read_back(6.0))
        assert sorted(outcome.result for outcome in outcomes) == [WriteResult.CONFIRMED, WriteResult.REFUSED]
        assert (await writer.write_and_read_back(11.0)).result is WriteResult.REFUSED
        assert len(driver.writes) == 1


async def test_silence_turns_stale_without_any_event(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    async with rig(plant(stale_s=0.2), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        await made.until(lambda: made.bad("U.x"))
        assert "Stale" in made.seen[-1].detail
        Scripted.made[0].report(1.0)
        await made.until(lambda: made.good("U.x"))


async def test_nothing_bad_is_shown_as_good(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    async with rig(plant(low=0, high=10), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        driver = Scripted.made[0]
        for value in (float("nan"), float("inf"), 11.0, -1.0, True, "text"):
            driver.report(value)
            assert made.bad("U.x"), value
            driver.report(2.0)
            assert made.good("U.x")
        driver.report(2.0, Quality.UNCERTAIN)
        assert not made.good("U.x")


async def test_what_stands_still_is_bad_wherever_it_is_shown_or_kept(
    scripted: Mapping[str, Callable[[], type[Scripted]]],
) -> None:
    clock_s, kept, news = 100.0, [], asyncio.Event()

    def keep(_tag: str, reading: Reading) -> None:
        kept.append(reading)
        news.set()

    async with Equipment(
        plant(frozen_after_s=10, stale_s=1000), scripted, now_s=lambda: clock_s, utc=lambda: "", on_reading=keep
    ) as equipment:

        def shown() -> Reading:
            reading = equipment.latest("U.x")
            assert reading is not None
            return reading

        await equipment.watch(["U.x"])
        await news.wait()
        clock_s = 105.0
        Scripted.made[0].report(1.0)
        assert shown().good
        assert kept[-1].good
        clock_s = 111.0
        assert not shown().good, "while nothing new comes"
        Scripted.made[0].report(1.0)
        assert not kept[-1].good, "what is kept as history"
        Scripted.made[0].report(1.5)
        assert shown().good
        assert kept[-1].good


async def test_a_value_asked_for_is_judged_too(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    async with rig(plant(low=0, high=10), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        Scripted.made[0].value = 11.0
        assert not (await made.equipment.read("U.x")).good


@pytest.mark.parametrize(("late", "result"), [(3, WriteResult.CONFIRMED), (1_000_000, WriteResult.UNKNOWN)])
async def test_the_tag_that_shows_it_is_looked_at_as_long_as_it_may_take(
    scripted: Mapping[str, Callable[[], type[Scripted]]], late: int, result: WriteResult
) -> None:
    """The set-point itself shows at once what was written; what it makes the device do comes after so many looks."""
    both = plant(read_back="shown", settle_s=PATIENCE_S if late < 10 else 0.05).model_dump(by_alias=True)
    both["units"]["U"]["tags"]["shown"] = {"connection": "c", "address": "b"}
    async with rig(Plant.model_validate(both), scripted) as made:
        await made.until(lambda: made.good("U.x"))
        driver, looks = Scripted.made[0], 0

        async def read(tag: str) -> Reading:
            nonlocal looks
            looks += tag == "U.shown"
            value = driver.value if tag == "U.x" or looks > late else 1.0
            return Reading(value, "g", Quality.GOOD, "", now_s())

        driver.read = read  # type: ignore[method-assign]
        outcome = await made.equipment.writer("U.x").write_and_read_back(5.0)
        assert outcome.result is result, outcome.why
        assert driver.writes == [5.0]


async def test_planted_bugs_a_value_not_judged_and_one_not_looked_at_are_found(
    scripted: Mapping[str, Callable[[], type[Scripted]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as planted:
        planted.setattr("edge.equipment.judged", lambda _tag, reading: reading)
        with pytest.raises(AssertionError):
            await test_a_value_asked_for_is_judged_too(scripted)
    monkeypatch.setattr("edge.equipment.agrees", lambda _tag, _value, reading: reading.good)
    Scripted.made = []
    with pytest.raises(AssertionError):
        await test_the_tag_that_shows_it_is_looked_at_as_long_as_it_may_take(scripted, 1_000_000, WriteResult.UNKNOWN)


async def test_changes_are_told_once_until_they_are_taken(
    scripted: Mapping[str, Callable[[], type[Scripted]]],
) -> None:
    told = 0
    first = asyncio.Event()

    def count() -> None:
        nonlocal told
        told += 1
        first.set()

    async with Equipment(plant(), scripted, now_s=now_s, utc=lambda: "", on_change=count) as equipment:
        await equipment.watch(["U.x"])
        await first.wait()
        equipment.take_changed()
        before = told
        for value in range(100):
            Scripted.made[0].report(float(value))
        assert told == before + 1
        assert equipment.take_changed() == {"U.x"}
        Scripted.made[0].report(99.0)
        assert told == before + 1, "an equal reading is no change"


def test_refuses_what_it_does_not_know(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    with pytest.raises(LinesideError) as refusal:
        Equipment(plant(), {}, now_s=now_s, utc=lambda: "")
    assert refusal.value.code == "equipment.no_driver"
    with pytest.raises(LinesideError) as refusal:
        Equipment(plant(connection="d"), scripted, now_s=now_s, utc=lambda: "")
    assert refusal.value.code == "equipment.no_connection"
    equipment = Equipment(plant(), scripted, now_s=now_s, utc=lambda: "")
    with pytest.raises(LinesideError) as refusal:
        equipment.writer("U.y")
    assert refusal.value.code == "guard.unknown_tag"


WRONG = b"""\
plant: P
connections:
  c: {driver: scripted}
  d: {driver: printer, settings: {hots: h}}
  e: {driver: opcua, settings: {endpoint: "opc.tcp://h:1/", security: none}}
units:
  U:
    class: thing
    tags:
      x: {connection: c, address: a}
      y:
        connection: c
        address: a
        access: write
        low: 0
        high: 1
      z: {connection: e, address: "not a node"}
"""


def _found(drivers: Mapping[str, Callable[[], Any]]) -> list[tuple[str, str]]:
    with pytest.raises(LinesideError) as refusal:
        Equipment(read_plant(WRONG, "p.yaml"), drivers, now_s=now_s, utc=lambda: "")
    return [(one.code, str(one.place)) for one in (refusal.value, *refusal.value.others)]


def test_what_a_driver_cannot_is_refused_with_its_place(
    scripted: Mapping[str, Callable[[], type[Scripted]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    drivers = {**installed_drivers(), **scripted}
    always = [("printer.settings", "p.yaml:4:24"), ("opcua.address", "p.yaml:17:26")]
    assert _found(drivers) == always
    monkeypatch.setattr(Scripted, "capabilities", frozenset(Capability) - {Capability.WRITE})
    assert _found(drivers) == [always[0], ("equipment.cannot", "p.yaml:14:9"), always[1]]
    monkeypatch.setattr(Scripted, "capabilities", frozenset(Capability) - {Capability.WATCH})
    cannot = [("equipment.cannot", "p.yaml:10:26"), ("equipment.cannot", "p.yaml:13:9")]
    assert _found(drivers) == [always[0], *cannot, always[1]]


async def test_before_the_start_nothing_can_be_written(scripted: Mapping[str, Callable[[], type[Scripted]]]) -> None:
    equipment = Equipment(plant(), scripted, now_s=now_s, utc=lambda: "")
    assert (await equipment.writer("U.x").write_and_read_back(1.0)).result is WriteResult.REFUSED
    assert (await equipment.read("U.x")).quality is Quality.BAD
    assert equipment.latest("U.x") is None


async def test_a_dead_device_does_not_stop_another(
    reactor: Subject, pump: Subject, free_port: Callable[[], int]
) -> None:
    dead = pump.plant.connections["device"]
    both = Plant.model_validate(
        {
            "plant": "both",
            "connections": {
                "alive": reactor.plant.connections["device"].model_dump(),
                "dead": {**dead.model_dump(), "settings": {"host": "127.0.0.1", "port": free_port()}},
            },
            "units": {
                "BR-1": {
                    "class": "a",
                    "tags": {
                        name.partition(".")[2]: {**tag.model_dump(), "connection": "alive"}
                        for name, tag in reactor.plant.tags().items()
                    },
                },
                "P-1": {
                    "class": "b",
                    "tags": {
                        name.partition(".")[2]: {**tag.model_dump(), "connection": "dead"}
                        for name, tag in pump.plant.tags().items()
                    },
                },
            },
        }
    )
    async with rig(both) as made:
        await made.until(lambda: made.good(reactor.measured) and made.bad(pump.measured))
        outcome = await made.equipment.writer(pump.setpoint).write_and_read_back(1.0)
        assert outcome.result is WriteResult.REFUSED, "nothing can have been sent"
        outcome = await made.equipment.writer(reactor.setpoint).write_and_read_back(reactor.values[0])
        assert outcome.result is WriteResult.CONFIRMED
        assert not made.equipment.health()["dead"].connected


@pytest.mark.parametrize(("device", "make"), [("reactor", reactor_subject), ("pump", pump_subject)])
@pytest.mark.timeout(300)
async def test_a_restarted_device_is_read_anew(
    device: str, make: Callable[[int, SimControl], Subject], tmp_path: Path
) -> None:
    control = tmp_path / "d.sock"
    first = DeviceProcess(device, host="127.0.0.1", port=0, control=control, seed=1, speed=600)
    await first.launch()
    second = None
    try:
        await first.ready()
        subject = make(first.port, first.control)
        async with rig(subject.plant) as made:
            await made.until(lambda: made.good(subject.setpoint))
            outcome = await made.equipment.writer(subject.setpoint).write_and_read_back(subject.values[0])
            assert outcome.result is WriteResult.CONFIRMED
            await first.kill()
            await made.until(lambda: made.bad(subject.setpoint))
            second = DeviceProcess(device, host="127.0.0.1", port=first.port, control=control, seed=2, speed=600)
            await second.launch()
            await second.ready()
            await made.until(lambda: made.good(subject.setpoint))
            reading = made.equipment.latest(subject.setpoint)
            assert reading is not None
            assert reading.value == 0.0, "the restarted device knows nothing of the old set-point"
    finally:
        await first.end()
        if second is not None:
            await second.end()


def test_a_plant_without_opcua_does_not_load_it() -> None:
    program = textwrap.dedent("""
        import asyncio, json, sys, time
        from edge.core.plant import Plant
        from edge.equipment import Equipment, installed_drivers

        async def main():
            plant = Plant.model_validate(json.loads(sys.argv[1]))
            async with Equipment(plant, installed_drivers(), now_s=time.monotonic, utc=lambda: "") as equipment:
                await equipment.watch(plant.tags())
                assert not (await equipment.read("P-1.speed")).good

        asyncio.run(main())
        heavy = {"asyncua", "textual", "fastapi", "uvicorn", "typst", "paho", "numpy"}
        print(json.dumps(sorted(heavy & {name.partition(".")[0] for name in sys.modules})))
    """)
    subject = pump_subject(1, SimControl(Path("/nowhere")))
    done = subprocess.run(
        [sys.executable, "-c", program, subject.plant.model_dump_json(by_alias=True)],
        capture_output=True,
        check=True,
        text=True,
    )
    assert json.loads(done.stdout) == []


def test_both_shipped_drivers_are_found() -> None:
    assert {"opcua", "modbus"} <= set(installed_drivers())
    assert dataclasses.is_dataclass(Health)
