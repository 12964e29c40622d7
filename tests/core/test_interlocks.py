"""What keeps a write from the wire and a reading from being good, besides range and type: each by a table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest

from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.guard import Stood, frozen, may_write, permitting, stood
from edge.core.line import effects
from edge.core.plant import Plant, read_plant
from edge.core.terms import Act, Quality, Reading, Role, State
from edge.equipment import Capability, Equipment, Health, WriteResult
from tests.core.parts import PLANT, VirtualLine, kinds, recipe

TAGS: dict[str, Any] = {
    "lid": {"connection": "plc", "address": "l", "type": "bool"},
    "level": {"connection": "plc", "address": "v", "unit": "L"},
    "speed": {
        "connection": "plc", "address": "s", "unit": "rpm", "access": "write", "low": 0, "high": 400,
        "read_back": "shown", "change_max": 50,
        "interlock": {"permit": "lid && level > 2 && other < 40", "tags": {"other": "BR-1.temperature"},
                      "why": "The lid is open, or there is too little in it."},
    },
    "shown": {"connection": "plc", "address": "x", "unit": "rpm"},
    "gauge": {"connection": "plc", "address": "g", "unit": "rpm", "access": "write", "low": 0, "high": 400,
              "calibration": {"instrument": "TI-7", "due": "2025-12-31"}},
}  # fmt: skip


def plant(**more: Any) -> Plant:
    data = PLANT.model_dump(mode="json", by_alias=True)
    mixer = {name: {**tag, **more.get(name, {})} for name, tag in TAGS.items()}
    units = {**data["units"], "MX-1": {"class": "mixer", "tags": mixer, "safe_state": [{"tag": "speed", "value": 0}]}}
    return Plant.model_validate({**data, "units": units})


def readings(**given: Any) -> dict[str, Reading]:
    values = {"MX-1.lid": True, "MX-1.level": 3.0, "BR-1.temperature": 37.0, "MX-1.shown": 100.0} | {
        name.replace("_", ".", 1).replace("MX", "MX-1").replace("BR", "BR-1"): value for name, value in given.items()
    }
    return {
        name: value if isinstance(value, Reading) else Reading(value, UNITS.get(name, ""), Quality.GOOD, "", 0.0)
        for name, value in values.items()
        if value is not None
    }


UNITS = {"MX-1.level": "L", "BR-1.temperature": "degC", "MX-1.shown": "rpm"}
BAD = Reading(True, "", Quality.BAD, "", 0.0, "No connection.")
UNSURE = Reading(3.0, "L", Quality.UNCERTAIN, "", 0.0, "It moves.")


@pytest.mark.parametrize(
    ("given", "value", "code"),
    [
        ({}, 150, ""),
        ({}, 50, ""),
        ({}, 151, "guard.change"),
        ({}, 49, "guard.change"),
        ({"MX_shown": None}, 150, "guard.change"),
        ({"MX_shown": Reading(100.0, "rpm", Quality.BAD, "", 0.0)}, 150, "guard.change"),
        ({"MX_lid": False}, 120, "guard.interlock"),
        ({"MX_level": 2.0}, 120, "guard.interlock"),
        ({"BR_temperature": 41.0}, 120, "guard.interlock"),
        ({"MX_lid": None}, 120, "guard.interlock"),
        ({"MX_lid": BAD}, 120, "guard.interlock"),
        ({"MX_level": UNSURE}, 120, "guard.interlock"),
        ({}, 500, "guard.out_of_range"),
    ],
)
def test_interlock_and_rate_of_change(given: dict[str, Any], value: float, code: str) -> None:
    now = readings(**given)
    if not code:
        may_write(plant(), "MX-1.speed", value, latest=now.get)
        return
    with pytest.raises(LinesideError) as refusal:
        may_write(plant(), "MX-1.speed", value, latest=now.get)
    assert refusal.value.code == code
    if code == "guard.interlock":
        assert "The lid is open" in refusal.value.what


@pytest.mark.parametrize(
    ("overdue", "today", "code"),
    [
        ("hold", "2025-12-31", ""),
        ("hold", "2026-01-01", "guard.calibration"),
        ("continue", "2026-01-01", ""),
        ("hold", "", ""),
    ],
)
def test_calibration(overdue: str, today: str, code: str) -> None:
    made = plant(gauge={"calibration": {"instrument": "TI-7", "due": "2025-12-31", "overdue": overdue}})
    if not code:
        may_write(made, "MX-1.gauge", 1, today=today)
        return
    with pytest.raises(LinesideError, match="TI-7 was due on 2025-12-31") as refusal:
        may_write(made, "MX-1.gauge", 1, today=today)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("change", "values", "bad_after"),
    [
        (0.0, [1.0, 1.0, 1.0, 1.0], 3),
        (0.0, [1.0, 1.0, 1.0, 1.1], None),
        (0.2, [1.0, 1.1, 0.9, 1.05], 3),
        (0.2, [1.0, 1.1, 1.25, 1.3], None),
        (0.0, [True, True, True, True], 3),
        (0.0, ["a", "a", "b", "b"], None),
    ],
)
def test_a_value_that_stands_still_is_not_good_any_more(
    change: float, values: list[Any], bad_after: int | None
) -> None:
    """Read every 10 s; frozen after 25 s."""
    kind = {float: "float", bool: "bool", str: "text"}[type(values[0])]
    tag = (
        PLANT.units["BR-1"]
        .tags["weight"]
        .model_copy(update={"type": kind, "frozen_after_s": 25.0, "frozen_change": change})
    )
    kept: Stood | None = None
    seen = []
    for turn, value in enumerate(values):
        reading = Reading(value, "g", Quality.GOOD, "", turn * 10.0)
        kept = stood(tag, kept, reading)
        seen.append(frozen(tag, kept, reading, turn * 10.0).quality is Quality.BAD)
    assert seen == [bad_after is not None and turn >= bad_after for turn in range(len(values))]
    assert stood(tag, kept, Reading(values[0], "g", Quality.BAD, "", 99.0)) is None, "after a gap it begins anew"


def test_only_units_that_the_batch_has() -> None:
    may_write(plant(), "BR-1.setpoint", 20.0, units=["BR-1"])
    with pytest.raises(LinesideError) as refusal:
        may_write(plant(), "BR-1.setpoint", 20.0, units=["BR-2"])
    assert refusal.value.code == "guard.not_allocated"


# At the port ----------------------------------------------------------------------------------------------------------


class Held:
    """A driver of values that a test sets; it counts what it is told to write."""

    values: ClassVar[dict[str, Any]] = {}
    written: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, _connection: object, tags: Any, *, now_s: Any, **_: object) -> None:
        self._tags, self._now_s = tags, now_s
        self._ended = asyncio.Event()

    async def start(self, on_reading: Any, on_health: Any) -> None:
        type(self).tell = staticmethod(lambda name: on_reading(name, self._reading(name)))  # type: ignore[attr-defined]
        on_health(Health(connected=True, detail="here", since_boottime_s=0.0))

    def _reading(self, name: str) -> Reading:
        return Reading(self.values[name], self._tags[name].unit, Quality.GOOD, "", self._now_s())

    capabilities = frozenset(Capability)

    async def stop(self) -> None: ...
    async def watch(self, tags: Any) -> None:
        for name in tags:
            if name in self.values:
                self.tell(name)  # type: ignore[attr-defined]

    async def read(self, name: str) -> Reading:
        return self._reading(name)

    async def write(self, name: str, value: Any) -> None:
        self.written.append((name, value))
        self.values[name] = self.values["MX-1.shown"] = value

    async def browse(self, text: str = "") -> list[Any]:  # noqa: ARG002  nothing to browse
        return []

    async def failed(self) -> str:
        await self._ended.wait()
        return ""


@asynccontextmanager
async def port(made: Plant, now: list[float]) -> AsyncIterator[Equipment]:
    Held.written.clear()
    Held.values.clear()
    Held.values.update(
        {"MX-1.lid": True, "MX-1.level": 3.0, "BR-1.temperature": 37.0, "MX-1.shown": 100.0, "MX-1.speed": 100.0}
    )
    up = asyncio.Event()
    drivers = {"sim": lambda: Held}
    async with Equipment(made, drivers, now_s=lambda: now[0], utc=lambda: "2026-01-01", on_change=up.set) as equipment:  # type: ignore[arg-type, dict-item]
        await equipment.watch(made.tags())
        async with asyncio.timeout(60):
            while not (equipment.latest("MX-1.speed") and equipment.health()["plc"].connected):
                await up.wait()
                up.clear()
                equipment.take_changed()
        yield equipment


async def test_the_port_asks_again_right_before_the_wire() -> None:
    now = [0.0]
    async with port(plant(speed={"change_every_s": 10}), now) as equipment:
        writer = equipment.writer("MX-1.speed")
        Held.values["MX-1.lid"] = False
        Held.tell("MX-1.lid")  # type: ignore[attr-defined]
        outcome = await writer.write_and_read_back(120.0)
        assert outcome.result is WriteResult.REFUSED
        assert "The lid is open" in outcome.why
        assert Held.written == []
        assert (await writer.write_and_read_back(0.0, safe=True)).result is WriteResult.CONFIRMED, (
            "what makes safe goes"
        )
        Held.values["MX-1.lid"] = True
        Held.tell("MX-1.lid")  # type: ignore[attr-defined]
        Held.tell("MX-1.shown")  # type: ignore[attr-defined]
        assert "less than 10 s ago" in (await writer.write_and_read_back(40.0)).why
        now[0] = 4.0
        assert "less than 10 s ago" in (await writer.write_and_read_back(40.0)).why
        now[0] = 11.0
        for tag in Held.values:
            Held.tell(tag)  # type: ignore[attr-defined]
        assert (await writer.write_and_read_back(40.0)).result is WriteResult.CONFIRMED
        assert Held.written == [("MX-1.speed", 0.0), ("MX-1.speed", 40.0)]


async def test_a_frozen_tag_is_never_shown_or_recorded_as_good() -> None:
    now = [0.0]
    async with port(plant(level={"frozen_after_s": 30, "stale_s": 1000}), now) as equipment:
        for at_s, good in ((10.0, True), (30.0, True), (31.0, False), (100.0, False)):
            now[0] = at_s
            Held.tell("MX-1.level")  # type: ignore[attr-defined]
            reading = equipment.latest("MX-1.level")
            assert reading is not None
            assert reading.good is good, at_s
            assert (await equipment.read("MX-1.level")).good is good, at_s
        assert "Frozen" in reading.detail
        Held.values["MX-1.level"] = 3.1
        assert (await equipment.read("MX-1.level")).good, "it moves again"
        Held.tell("MX-1.level")  # type: ignore[attr-defined]
        latest = equipment.latest("MX-1.level")
        assert latest is not None
        assert latest.good


async def test_planted_bug_a_port_that_knows_no_frozen_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.equipment.frozen", lambda _tag, _kept, reading, _now_s: reading)
    with pytest.raises(AssertionError):
        await test_a_frozen_tag_is_never_shown_or_recorded_as_good()


# In a batch -----------------------------------------------------------------------------------------------------------

STIR = {"id": "10", "title": "Stir", "phase": "set", "tag": "mixer.speed", "value": 120.0}
ROLES = {"reactor": {"class": "bioreactor"}, "mixer": {"class": "mixer"}}


def line_of(monkeypatch: pytest.MonkeyPatch, *steps: dict[str, Any], of: Plant | None = None) -> VirtualLine:
    monkeypatch.setattr("tests.core.parts.PLANT", of or plant())
    line = VirtualLine(recipe=recipe(list(steps), units=ROLES))
    line.readings = readings()
    return line


def test_a_locked_write_is_refused_before_the_wire_and_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(monkeypatch, STIR)
    line.readings = readings(MX_lid=False)
    made = line.start()
    assert "CommandIntended" not in kinds(made), "nothing may leave"
    assert effects(line.line).writes == ()
    assert "The lid is open" in line.batch().exceptions[0].what
    line.readings = readings()
    line.answer("10.1", "again")
    assert [write.value for write in effects(line.line).writes] == [120.0]


def test_what_makes_safe_asks_no_interlock(monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of(monkeypatch, STIR)
    line.readings = readings(MX_lid=False, MX_shown=400.0)
    line.start()
    line.do(cm.OpenSession(session="V", person="eva", roles=(Role.SUPERVISOR,), method="badge and PIN"))
    line.do(cm.ActOnBatch(session="V", batch="B1", act=Act.ABORT, reason="Enough."))
    assert [(write.tag, write.value) for write in effects(line.line).writes if write.tag == "MX-1.speed"] == [
        ("MX-1.speed", 0)
    ]


def test_planted_bug_a_guard_that_asks_no_interlock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.guard._ask_readings", lambda *_: None)
    line = line_of(monkeypatch, STIR)
    line.readings = readings(MX_lid=False)
    line.start()
    assert effects(line.line).writes, "this is what the test above sees"


@pytest.mark.parametrize(("overdue", "state"), [("hold", State.HOLDING), ("continue", State.RUNNING)])
def test_a_step_with_an_instrument_that_is_overdue(monkeypatch: pytest.MonkeyPatch, overdue: str, state: State) -> None:
    calibration = {"instrument": "LI-3", "due": "2025-12-31", "overdue": overdue}
    wait = {"id": "10", "title": "Fill", "phase": "wait", "tag": "mixer.level", "limit": {"low": 5}, "timeout": "1 h"}
    line = line_of(monkeypatch, wait, of=plant(level={"calibration": calibration}))
    line.start()
    assert [one.code for one in line.batch().exceptions] == ["calibration.overdue"]
    assert (line.batch().state in {State.HOLDING, State.HELD}) is (state is State.HOLDING)


def test_a_rehearsal_asks_no_interlock() -> None:
    made = permitting(plant())
    may_write(made, "MX-1.speed", 300, latest={}.get, today="2026-01-01")
    may_write(made, "MX-1.gauge", 300, latest={}.get, today="2026-01-01")


# In the plant file ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("interlock: {permit: lid, why: W}", ""),
        ("interlock: {permit: 'lid > 2', why: W}", "formula.type"),
        ("interlock: {permit: 'door', why: W}", "formula.unknown_name"),
        ("interlock: {permit: 'lid &&', why: W}", "formula.syntax"),
        ("interlock: {permit: 'd', tags: {d: U.door}, why: W}", "plant.interlock_tag"),
        ("frozen_after_s: 2", "plant.always_frozen"),
        ("frozen_change: 2", "plant.limit_unused"),
        ("change_max: 2, access: read", "plant.limit_unused"),
        ("calibration: {instrument: T, due: 2026-02-30}", "document.wrong_value"),
        ("calibration: {instrument: T, due: 2026-02-28}", ""),
        ("frozen_after_s: 60, frozen_change: 0.1, change_max: 2, change_every_s: 10", ""),
    ],
)
def test_what_is_wrong_in_a_plant_file_is_told(tag: str, code: str) -> None:
    access = "" if "access" in tag else "access: write, "
    text = f"""
plant: p
connections: {{c: {{driver: modbus}}}}
units:
  U:
    class: thing
    tags:
      lid: {{connection: c, address: a, type: bool}}
      x: {{connection: c, address: a, {access}low: 0, high: 10, unit: g, {tag}}}
"""
    if not code:
        read_plant(text.encode(), "plant.yaml")
        return
    with pytest.raises(LinesideError) as refusal:
        read_plant(text.encode(), "plant.yaml")
    assert refusal.value.code == code
