"""Watching, write tests and the signed report: against a real server that does what it is told, or something else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from edge import wire
from edge.__main__ import app
from edge.commissioning import station_of
from edge.config import Config, read_config
from edge.core.errors import LinesideError
from edge.desk_client import connect
from edge.identity import DeviceKey
from edge.journal import claimed
from edge.occupied import unoccupied
from provisioning.device import init_device
from provisioning.equipment import Station
from provisioning.report import make_report, read_report, write_report
from provisioning.watching import watch
from provisioning.write_test import StillFree, WriteTest, kept, write_test
from tests.edge.conftest import box, made_once, running  # noqa: F401  fixtures
from tests.edge.test_desk import log_in, look, name
from tests.provisioning.test_commissioning import LONG_S, Foreign, foreign, lain

PLANT = """\
plant: TEST
connections:
  pump: {{driver: modbus, settings: {{host: 127.0.0.1, port: {port}}}, timeout_s: 60, poll_s: 0.05}}
units:
  P-1:
    class: pump
    tags:
      setpoint: {{connection: pump, address: holding 0 float32, unit: mL/min, access: write, low: 0, high: 100,
        tolerance: 0.01, settle_s: 0.05, stale_s: 60}}
      speed: {{connection: pump, address: holding 4 float32, unit: mL/min, low: 0, high: 100, stale_s: 60}}
      guarded: {{connection: pump, address: holding 8 float32, access: write, low: 0, high: 100, settle_s: 60,
        stale_s: 60, interlock: {{permit: gate < 50, tags: {{gate: G-1.speed}}, why: The gate is open.}}}}
      run: {{connection: pump, address: coil 3, type: bool, access: write, settle_s: 60, stale_s: 60}}
  G-1:
    class: gate
    tags:
      speed: {{connection: pump, address: holding 12 float32, stale_s: 60}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return init_device(tmp_path / "made", box="BOX-7").folder


@asynccontextmanager
async def commissioned(folder: Path) -> AsyncIterator[tuple[Station, Foreign]]:
    """A box with a plant of one pump, which answers."""
    async with foreign() as (port, device):
        (folder / "plant.yaml").write_text(PLANT.format(port=port))
        device.show(0, lain(20.0, "f", "ABCD"))
        device.show(4, lain(20.0, "f", "ABCD"))
        device.show(8, lain(20.0, "f", "ABCD"))
        device.show(12, lain(20.0, "f", "ABCD"))
        yield station_of(read_config(folder)), device


async def tried(station: Station, value: str, *, tag: str = "P-1.setpoint", **how: Any) -> WriteTest:
    free: Callable[[str], AbstractAsyncContextManager[StillFree]] = lambda _unit: nullcontext(nobody_starts)  # noqa: E731
    how = {"restore": False, "who": "eva", "patience_s": LONG_S, "consent": None, "unoccupied": free} | how
    return await write_test(station, tag, value, **how)


async def nobody_starts() -> None:
    pass


async def refused(work: Awaitable[object]) -> str:
    with pytest.raises(LinesideError) as error:
        await work
    return error.value.code


async def refused_or_not(work: Awaitable[object]) -> bool:
    try:
        await work
    except LinesideError as error:
        assert error.code == "unit.occupied"
        return True
    return False


# Write tests ------------------------------------------------------------------------------------------------------


async def test_a_device_that_does_it_and_gets_its_former_value_back(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        done = await tried(station, "35", restore=True)
    assert (done.result, done.seen, done.before, done.restored) == ("confirmed", 35.0, 20.0, "confirmed")
    assert [len(words) for _, words in device.told] == [2, 2]
    assert kept(station.config.state_dir) == [done]
    assert "did it within" in done.told()


async def test_a_device_that_ignores_it(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        device.takes = lambda at, given: [device.shown[at + n] for n in range(len(given))]
        done = await tried(station, "35", patience_s=0.2)
    assert (done.result, done.seen) == ("ignored", 20.0)
    assert "did nothing: it shows 20.0 mL/min as before" in done.told()


async def test_a_device_that_limits_it(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        device.takes = lambda _at, _given: list(_words(50.0))
        done = await tried(station, "80", patience_s=0.3)
    assert (done.result, done.seen) == ("clamped", 50.0)
    assert "went to 50.0 mL/min instead" in done.told()


def _words(value: float) -> list[int]:
    data = lain(value, "f", "ABCD")
    return [int.from_bytes(data[:2], "big"), int.from_bytes(data[2:], "big")]


async def test_a_device_that_does_it_late(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        left = 24
        """Looks until it shows it: more than fit into settle_s."""

        def looked(at: int) -> None:
            nonlocal left
            if device.told and at == 0:
                left -= 1
                if left == 0:
                    device.show(0, lain(35.0, "f", "ABCD"))

        device.looked = looked
        device.takes = lambda at, given: [device.shown[at + n] for n in range(len(given))]
        done = await tried(station, "35")
    assert (done.result, done.seen) == ("delayed", 35.0)
    assert "raise settle_s" in done.told()


async def test_an_interlock_that_looks_at_another_unit_is_asked(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        assert (await tried(station, "35", tag="P-1.guarded")).result == "confirmed"
        device.show(12, lain(60.0, "f", "ABCD"))
        done = await tried(station, "40", tag="P-1.guarded")
    assert (done.result, len(device.told)) == ("refused", 1)
    assert "The gate is open." in done.told()


async def test_what_proves_nothing_or_is_not_wanted_is_not_sent(folder: Path) -> None:
    async def no(_question: str) -> str:
        return "no"

    async with commissioned(folder) as (station, device):
        assert await refused(tried(station, "20")) == "equipment.same_value"
        assert await refused(tried(station, "warm")) == "equipment.value"
        assert await refused(tried(station, "120")) == "guard.out_of_range"
        assert await refused(tried(station, "35", tag="P-1.speed")) == "guard.read_only"
        assert await refused(tried(station, "35", tag="P-1.nothing")) == "guard.unknown_tag"
        assert await refused(tried(station, "1", tag="P-1.run")) == "equipment.value"
        assert await refused(tried(station, "35", consent=no)) == "equipment.no_consent"
        device.show(0, b"\x7f\xc0\0\0")
        assert await refused(tried(station, "35", restore=True)) == "equipment.no_former"
        device.show(0, lain(-7.0, "f", "ABCD"))
        assert await refused(tried(station, "35", restore=True)) == "equipment.no_former"
    assert device.told == []
    assert kept(station.config.state_dir) == []


async def test_while_a_batch_has_the_unit_nothing_is_written(box: Config) -> None:  # noqa: F811
    unit = "B-1"
    box.plant.write_text(f"plant: T\nconnections: {{}}\nunits: {{{unit}: {{class: bench}}, B-2: {{class: shelf}}}}\n")
    recipe = (box.recipes / "paper.yaml").read_text()
    (box.recipes / "paper.yaml").write_text(
        recipe.replace("\nprocedure:", "\nunits: {bench: {class: bench}}\nprocedure:")
    )
    async with running(box) as socket:
        async with unoccupied(box, unit) as still_free:
            await still_free()
        async with connect(socket) as client:
            await log_in(client)
            (line,) = (await look(client)).recipes
            started = wire.StartBatch(id=name(), batch="B1", order="O1", recipe=line.seal, patient="PAT-1")

            async with unoccupied(box, unit) as still_free, unoccupied(box, "B-2") as other_free:
                await other_free()
                await still_free()
                assert await refused(client.ask(started)) == "unit.occupied"
                await still_free()

            async def taken_meanwhile() -> None:
                async with unoccupied(box, unit) as still_free, asyncio.timeout(60):
                    while await refused_or_not(client.ask(started)):  # until the desk has seen the other one go
                        pass
                    assert await refused(still_free()) == "equipment.unit_in_use"

            assert await refused(taken_meanwhile()) == "equipment.taken_meanwhile"
        assert await refused(enter(unoccupied(box, unit))) == "equipment.unit_in_use"
        async with unoccupied(box, "B-2"):
            pass
    assert await refused(enter(unoccupied(box, unit))) == "equipment.unit_in_use", "nobody runs; the journal knows"
    async with unoccupied(box, "B-2") as still_free:
        await still_free()
        with pytest.raises(LinesideError), claimed(box.state_dir / "journal.db"):
            pass
    with claimed(box.state_dir / "journal.db"):
        assert await refused(enter(unoccupied(box, "B-2"))) == "equipment.runtime_silent"


async def test_a_batch_that_starts_while_somebody_says_yes_has_its_unit_to_itself(folder: Path) -> None:
    """Neither the value nor the former value is written any more."""
    asked = 0

    def taken_at(look: int) -> Callable[[str], AbstractAsyncContextManager[StillFree]]:
        async def still_free() -> None:
            nonlocal asked
            asked += 1
            if asked == look:
                raise LinesideError("equipment.unit_in_use", "Batch B1 has P-1; it is running.")

        return lambda _unit: nullcontext(still_free)

    async def yes(_question: str) -> str:
        return "yes"

    async with commissioned(folder) as (station, device):
        how: dict[str, Any] = {"consent": yes, "restore": True}
        assert await refused(tried(station, "35", unoccupied=taken_at(1), **how)) == "equipment.unit_in_use"
        assert device.told == []
        asked = 0
        done = await tried(station, "35", unoccupied=taken_at(2), **how)
    assert (done.result, done.restored) == ("confirmed", "not written back: Batch B1 has P-1; it is running.")
    assert len(device.told) == 1


async def enter(manager: AbstractAsyncContextManager[StillFree]) -> None:
    async with manager:
        raise AssertionError("the unit was taken")


# Watching ---------------------------------------------------------------------------------------------------------


async def test_values_are_seen_live_with_their_quality(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        assert await refused(anext(watch(station, ["P-9"]))) == "equipment.nothing_to_watch"
        async with aclosing(watch(station, ["P-1.speed"])) as seen_ones:
            seen = await anext(seen_ones)
            while seen.quality != "good":
                seen = await anext(seen_ones)
            assert (seen.tag, seen.value, seen.unit) == ("P-1.speed", 20.0, "mL/min")
            device.show(4, lain(150.0, "f", "ABCD"))
            seen = await anext(seen_ones)
            assert (seen.quality, seen.detail != "") == ("bad", True)
            assert "bad" in seen.line()


# The report -------------------------------------------------------------------------------------------------------


async def test_the_report_says_what_was_read_and_tried_and_its_signature_holds(folder: Path) -> None:
    async with commissioned(folder) as (station, device):
        signer = DeviceKey.load(station.config.device_key)
        await tried(station, "35", restore=True)
        good = await make_report(station, signer, "Eva | Lind")
        device.show(4, lain(150.0, "f", "ABCD"))
        device.takes = lambda at, given: [device.shown[at + n] for n in range(len(given))]
        await tried(station, "35", patience_s=0.1)
        bad = await make_report(station, signer, "eva")
    assert good.good
    assert good.facts["not_tried"] == ["P-1.guarded", "P-1.run"]
    read = {one["tag"]: (one["value"], one["quality"], one["finding"]) for one in good.facts["tags"]}
    assert read["P-1.setpoint"] == (20.0, "good", "")
    assert not bad.good
    assert [finding.partition(":")[0] for finding in bad.facts["not_as_expected"]] == ["P-1.speed", "P-1.setpoint"]
    file = folder / "report.json"
    text = write_report(bad, file).read_text()
    assert "NOT everything is as expected" in text
    assert "took the write and did nothing" in text
    assert read_report(file, signer.public).facts == bad.facts
    facts = json.loads(file.read_bytes())
    facts["facts"]["not_as_expected"] = []
    forged = orjson.dumps(facts)
    for planted in (forged, b"{}", b"\x00", b"[]", b'{"facts": {"format": 1}}', file.read_bytes()[:-9]):
        (folder / "planted.json").write_bytes(planted)
        with pytest.raises(LinesideError) as error:
            read_report(folder / "planted.json", signer.public)
        assert error.value.code == f"commissioning.{'signature' if planted == forged else 'report'}"
    other = DeviceKey.create(folder / "other.key")
    with pytest.raises(LinesideError) as error:
        read_report(file, other.public)
    assert error.value.code == "commissioning.signature"


def run(folder: Path, *words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["equipment", *words, "--box", str(folder)], input=typed)


async def test_a_device_that_does_not_do_it_is_told_by_the_exit_code(folder: Path) -> None:
    out = folder / "report.json"
    async with commissioned(folder) as (_, device):
        device.takes = lambda at, given: [device.shown[at + n] for n in range(len(given))]
        words = ["write-test", "P-1.setpoint", "50", "--patience", "0.1", "--json"]
        ignored = await asyncio.to_thread(run, folder, *words, typed="yes\n")
        assert (ignored.exit_code, json.loads(ignored.stdout)["result"]) == (1, "ignored"), ignored.exception
        reported = await asyncio.to_thread(run, folder, "report", "--out", str(out), "--who", "eva", "--json")
    assert reported.exit_code == 1, reported.exception
    assert not json.loads(reported.stdout)["good"]
