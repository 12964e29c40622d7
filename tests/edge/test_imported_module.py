"""From a module's own package to a batch: imported, then run by the engine over real OPC UA."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.sim.cell import plant_bytes
from drivers.sim.manifest import manifest
from edge.core.plant import Plant, read_plant
from edge.core.service import ACTING
from edge.core.serving import TRANSITION_S, module_of, waits_for
from provisioning.modules import Wanted, entries
from provisioning.mtp import read_manifest
from provisioning.plant_file import added
from tests.edge.test_service_engine import STARTS, WASH, Parts, done, held, in_state, made, parts


def imported(port: int, _settle_s: float) -> Plant:
    """A plant that knows the simulated module by its package alone."""
    unit = read_plant(plant_bytes(), "plant.yaml").units["CP-1"]
    module = read_manifest(manifest("CP-1", unit, f"opc.tcp://127.0.0.1:{port}/"), "cp.aml")
    file = f'plant: p\nconnections:\n  cp: {{driver: opcua, settings: {{endpoint: "opc.tcp://127.0.0.1:{port}/", '
    file += "security: none}}\nunits: {}\n"
    found = entries(module, read_plant(file.encode(), "p.yaml"), Wanted("CP-2", "cp", unit_codes={32_001: "1e6/mL"}))
    return added(file.encode(), "p.yaml", found.entries)[1]


def said(made_parts: Parts) -> str:
    """What the operator is told that the module is waiting for."""
    line, batch = made_parts.engine.shown, made_parts.batch
    run, step = batch.steps["010"], made(WASH).steps()["010"]
    module = module_of(line.book.plant, batch.units, step)  # type: ignore[arg-type]  # a Service
    return waits_for(str(run.given.get("state", "")), run.given, module)


@pytest.mark.timeout(300)
async def test_a_module_that_was_imported_runs_to_its_end_and_says_what_it_waits_for(tmp_path: Path) -> None:
    """It stays in each acting state until the fault is cleared: nothing depends on who is faster."""
    async with parts(tmp_path, WASH, speed=400.0, fault="stuck", plant_of=imported) as made_parts:
        await made_parts.until(in_state("starting"))
        run = made_parts.batch.steps["010"]
        assert run.timeout_s == TRANSITION_S, "no transition is without a time-out"
        assert said(made_parts) == "wash of CP-2 is starting; next it must be execute."
        assert {"starting", "holding", "completing", "resetting"} <= ACTING
        await made_parts.module.clear()
        await made_parts.until(done)
        counters = await made_parts.module.counters()
        assert (counters[STARTS], counters["CP-1.wash_command"]) == (1, 1)
        assert counters["CP-1.wash_volume"] == counters["CP-1.wash_cycles"] == counters["CP-1.wash_procedure"] == 1
        assert made_parts.batch.values["recovered"].value == pytest.approx(95.0, abs=0.01)
        assert made_parts.batch.exceptions == ()
        assert not held(made_parts.batch)
