"""The simulated cell: what it promises to the demo and to the tests."""

from __future__ import annotations

import asyncio
import json
import math
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from ruamel.yaml import YAML

from drivers.sim.cell import PORTS, plant_bytes, run_fault, whole_plant_bytes
from drivers.sim.control import SimControl
from drivers.sim.physics import AIR, INCUBATOR_RANGES, Incubator, VirtualCell
from edge.conformance import Subject, now_s
from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant
from edge.core.zpl import fingerprint, label, layout
from edge.equipment import Equipment, WriteResult, installed_drivers
from tests.contract.conformance import simulated

PATIENCE_S = 90


def test_the_plant_file_is_one_that_the_drivers_take() -> None:
    plant = Plant.model_validate(YAML(typ="safe").load(plant_bytes()))
    Equipment(plant, installed_drivers(), now_s=now_s, utc=lambda: "")
    assert {unit.cls for unit in plant.units.values()} == {
        *("bioreactor", "pump", "balance", "cell_processor", "filler")
    }
    for name, unit in plant.units.items():
        for action in unit.safe_state:
            assert plant.tags()[f"{name}.{action.tag}"].access == "write"


async def test_requests_that_make_no_sense_change_nothing(pump: Subject) -> None:
    for request in (
        {"do": "explode"},
        {"do": "freeze", "tag": "no such tag"},
        {"do": "drop_replies", "n": -1},
        {"do": "drop_replies", "n": "many"},
        {"do": "silent", "seconds": -1},
        {"do": "clamp", "tag": "P-1.speed", "max": 1},
        {},
    ):
        with pytest.raises(LinesideError) as refusal:
            await pump.control.ask(**request)
        assert refusal.value.code == "sim.refused"
    reader, writer = await asyncio.open_unix_connection(pump.control.path)
    writer.write(b"not json\n[1]\n" + b"x" * 100_000 + b"\n")
    assert not json.loads(await reader.readline())["ok"]
    assert not json.loads(await reader.readline())["ok"]
    assert await reader.read() == b""
    writer.close()
    answer = await pump.control.ask(do="counters")
    assert (answer["drops_left"], answer["silent"]) == (0, False)


async def test_no_fieldbus_client_reaches_the_counters(pump: Subject) -> None:
    """Writing to every register and coil only ever makes them larger."""
    before = await pump.control.counters()
    port = pump.plant.connections["device"].settings["port"]
    client = AsyncModbusTcpClient("127.0.0.1", port=int(port), retries=0, reconnect_delay=0)
    assert await client.connect()
    for register in range(16):
        await client.write_register(register, 0)
    for coil in range(16):
        await client.write_coil(coil, value=False)
    await client.write_coil(0, value=True)
    client.close()
    after = await pump.control.counters()
    assert all(after[tag] > before[tag] for tag in before)


@pytest.fixture
def own_cell(tmp_path: Path) -> Iterator[int]:
    """A pump and a balance of this test alone, switched on just now: nothing else has pumped onto the balance."""
    with simulated("pump", tmp_path, "--speed", "60") as (port, _):
        yield port


async def test_the_pump_moves_mass_onto_the_balance(own_cell: int) -> None:
    raw = YAML(typ="safe").load(plant_bytes())
    raw["connections"]["pump"]["settings"]["port"] = own_cell
    del raw["connections"]["reactor"], raw["units"]["BR-1"], raw["units"]["CP-1"], raw["units"]["FL-1"]
    plant = Plant.model_validate(raw)
    changed = asyncio.Event()
    async with Equipment(plant, installed_drivers(), now_s=now_s, utc=lambda: "", on_change=changed.set) as equipment:
        await equipment.watch(plant.tags())

        def number(tag: str) -> float:
            reading = equipment.latest(tag)
            return float(reading.value) if reading is not None and reading.good else float("nan")

        async def until(done: Callable[[], bool]) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not done():
                    await changed.wait()
                    changed.clear()
                    equipment.take_changed()

        await until(lambda: math.isfinite(number("W-1.weight") + number("P-1.volume")))
        start_g, start_ml = number("W-1.weight"), number("P-1.volume")
        await equipment.writer("P-1.speed_setpoint").write_and_read_back(60.0)
        await until(lambda: number("P-1.running") == 1 and number("P-1.volume") > start_ml + 100)
        await equipment.writer("P-1.speed_setpoint").write_and_read_back(0.0)
        await until(lambda: number("P-1.running") == 0 and number("W-1.stable") == 1)
        # the two come in polls of their own: wait until both are of the time after the pump stood still
        await until(lambda: abs((number("W-1.weight") - start_g) - (number("P-1.volume") - start_ml)) <= 1.0)
        assert number("P-1.volume") > start_ml + 100
        await equipment.writer("W-1.tare").write_and_read_back(value=True)
        await until(lambda: abs(number("W-1.weight")) < 1)
        await equipment.writer("W-1.tare").write_and_read_back(value=False)


# The incubator -----------------------------------------------------------------------------------------------------


def test_an_open_door_lets_the_gas_out_first_and_what_was_reached_alarms() -> None:
    incubator = Incubator()
    gas, warmth = incubator.loops["co2"], incubator.loops["temperature"]
    incubator.pass_s(3600)
    assert not incubator.alarm
    incubator.door_open = True
    incubator.pass_s(30)
    assert gas.value < 1.0
    assert warmth.value > 35.0
    assert incubator.alarm
    incubator.pass_s(24 * 3600)
    assert {name: round(loop.value, 3) for name, loop in incubator.loops.items()} == AIR
    incubator.door_open = False
    incubator.pass_s(600)
    assert gas.value > 4.9
    assert incubator.alarm, "it is not warm yet"
    incubator.pass_s(4 * 3600)
    assert not incubator.alarm
    assert abs(warmth.value - 37.0) < 0.1


def test_a_new_set_point_is_no_alarm_until_it_was_reached() -> None:
    incubator = Incubator()
    incubator.set("temperature", 30.0)
    incubator.pass_s(60)
    assert incubator.loops["temperature"].value > 36.0
    assert not incubator.alarm
    incubator.pass_s(4 * 3600)
    assert not incubator.alarm
    incubator.loops["temperature"].value = 32.0
    assert incubator.alarm
    incubator.set("temperature", 999.0)
    assert incubator.loops["temperature"].setpoint == INCUBATOR_RANGES["temperature"][1]


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_the_same_time_in_steps_comes_to_the_same(steps: int) -> None:
    incubator = Incubator()
    incubator.set("temperature", 30.0)
    for _ in range(steps):
        incubator.pass_s(700 / steps)
    assert incubator.loops["temperature"].value == pytest.approx(30 + 7 * math.exp(-700 / 600))


def test_a_rehearsal_has_an_incubator_too() -> None:
    cell = VirtualCell(read_plant(whole_plant_bytes(), "plant.yaml"))
    assert cell.write("IN-1.co2_setpoint", 8.0)
    assert not cell.still("IN-1.co2")
    cell.pass_s(3600)
    assert cell.still("IN-1.co2")
    assert cell.read("IN-1.co2") == pytest.approx(8.0)
    assert (cell.read("IN-1.door_open"), cell.read("IN-1.alarm")) == (False, False)


# The whole plant ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
async def test_the_whole_plant_is_one_command_and_ends_with_it(tmp_path: Path) -> None:
    """Every tag is good; a door opens, a scale is tared and weighs, a label is printed; each write is counted once.

    When the command is killed, the devices notice by themselves."""
    words = ("simulate", "cell", "--whole", "--control", str(tmp_path), "--speed", "60")
    ports = [word for device in PORTS for word in (f"--{device}-port", "0")]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge", *words, *ports), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    devices: dict[int, int] = {}
    try:
        async with asyncio.timeout(240):
            ready = json.loads(await process.stdout.readline())
            assert ready["pid"] == process.pid
            devices = {pid: os.pidfd_open(pid) for pid in ready["pids"]}
            plant = read_plant(Path(ready["plant"]).read_bytes(), "plant.yaml")
            news = asyncio.Event()
            async with Equipment(
                plant, installed_drivers(), now_s=now_s, utc=lambda: "", on_change=news.set
            ) as equipment:

                def shown(tag: str) -> Any:
                    reading = equipment.latest(tag)
                    return reading.value if reading is not None and reading.good else None

                async def until(holds: Callable[[], bool]) -> None:
                    while not holds():
                        await news.wait()
                        news.clear()
                        equipment.take_changed()

                async def written(tag: str, *shown_by: Any, value: Any) -> None:
                    outcome = await equipment.writer(tag).write_and_read_back(value, shown_by)
                    assert outcome.result is WriteResult.CONFIRMED, outcome.why

                await equipment.watch(plant.tags())
                labels = {"PR-1.label"}  # nobody knows what a printer printed last
                await until(lambda: all(shown(tag) is not None for tag in plant.tags().keys() - labels))
                assert shown("IN-1.co2") > 4.5
                assert shown("IN-1.alarm") is False
                cell, scale = (SimControl(tmp_path / f"{device}.sock") for device in ("pump", "scale"))
                await cell.ask(do="door", open=True)
                await until(lambda: shown("IN-1.door_open") is True and shown("IN-1.alarm") is True)
                await until(lambda: shown("IN-1.co2") < 1.0)
                await cell.ask(do="door", open=False)
                await written("IN-1.co2_setpoint", value=6.0)
                await until(lambda: shown("IN-1.co2") > 5.5)
                await scale.ask(do="put", grams=120.0)
                await until(lambda: shown("W-2.weight") == 120.0)
                await written("W-2.tare", value=True)
                await scale.ask(do="put", grams=370.0)
                await until(lambda: shown("W-2.weight") == 250.0)
                text = label(layout(["Batch"]), {"Batch": "B1"}, "B1", 2)
                await written("PR-1.label", fingerprint(text), value=text)
            counted = [await asyncio.to_thread(run_fault, tmp_path, device, {"do": "counters"}) for device in PORTS]
        process.kill()
        await process.wait()
        for pid, ended in devices.items():
            assert (await asyncio.to_thread(select.select, [ended], [], [], PATIENCE_S))[0], pid
            assert gone(pid)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        for ended in devices.values():
            os.close(ended)
    writes = {tag: count for answer in counted for tag, count in answer["counters"].items() if count}
    assert writes == {"IN-1.co2_setpoint": 1, "W-2.tare": 1, "PR-1.label": 1, "PR-1.printed": 2}


def start_cell(control: Path, *more: str) -> subprocess.Popen[str]:
    program = (
        "import sys; from pathlib import Path; from drivers.sim.cell import run_cell;"
        "run_cell(ports={'reactor': 0, 'pump': int(sys.argv[2])}, control=Path(sys.argv[1]), seed=1, speed=60,"
        "say=lambda line: print(line, flush=True))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(control), *(more or ("0",))], stdout=subprocess.PIPE, text=True
    )


def gone(pid: int) -> bool:
    """True when the process no longer exists (or only as a zombie that nobody has collected yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.timeout(300)
def test_a_port_in_use_is_said_and_nothing_is_left(tmp_path: Path, pump: Subject) -> None:
    port = pump.plant.connections["device"].settings["port"]
    with start_cell(tmp_path, str(port)) as cell:
        assert cell.stdout is not None
        assert cell.stdout.read() == ""
        assert cell.wait(timeout=PATIENCE_S) == 1
    assert not list(tmp_path.glob("*.sock"))


def test_faults_are_refused_in_words_when_nothing_runs(tmp_path: Path) -> None:
    for device, code in (("pump", "sim.away"), ("kettle", "sim.device")):
        with pytest.raises(LinesideError) as refusal:
            run_fault(tmp_path, device, {"do": "counters"})
        assert refusal.value.code == code
    with pytest.raises(LinesideError) as refusal:
        run_fault(tmp_path / ("x" * 120), "pump", {"do": "counters"})
    assert refusal.value.code == "sim.control_path"
