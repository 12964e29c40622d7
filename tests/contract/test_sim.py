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

import pytest
from pymodbus.client import AsyncModbusTcpClient
from ruamel.yaml import YAML

from drivers.sim.cell import plant_bytes, run_fault
from edge.conformance import Subject, now_s
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.equipment import Equipment, installed_drivers
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


def start_cell(control: Path, *more: str) -> subprocess.Popen[str]:
    program = (
        "import sys; from pathlib import Path; from drivers.sim.cell import run_cell;"
        "run_cell(reactor_port=0, pump_port=int(sys.argv[2]), control=Path(sys.argv[1]), seed=1, speed=60,"
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
def test_the_cell_says_where_it_is_and_ends_with_its_parent(tmp_path: Path) -> None:
    with start_cell(tmp_path) as cell:
        assert cell.stdout is not None
        ready = json.loads(cell.stdout.readline())
        assert ready["pid"] == cell.pid
        answer = run_fault(tmp_path, "pump", {"do": "counters"})
        assert answer["counters"]["P-1.speed_setpoint"] == 0
        pids = [os.pidfd_open(pid) for pid in ready["pids"]]
        try:
            cell.kill()  # nothing is cleaned up: the children must notice by themselves
            cell.wait()
            for pidfd, pid in zip(pids, ready["pids"], strict=True):
                assert select.select([pidfd], [], [], PATIENCE_S)[0], pid
                assert gone(pid)
        finally:
            for pidfd in pids:
                os.close(pidfd)


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
