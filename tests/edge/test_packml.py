"""A PackML machine over a real OPC UA server: held, aborted, cleared and run to its end; its counters are the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from drivers.sim.cell import plant_bytes
from edge.core import commands as cm
from edge.core.plant import Plant, read_plant
from edge.core.service import PACKML
from edge.core.terms import Act, Role, State
from tests.edge.test_service_engine import done, held, in_state, parts

FILL: dict[str, Any] = {
    "id": "010", "phase": "service", "title": "Fill", "unit": "filler", "service": "fill", "timeout": "1 h",
    "parameters": {"volume": 20}, "reports": [{"report": "bags", "name": "bags"}],
}  # fmt: skip
STARTS = "FL-1.fill.starts"


def filler(port: int, settle_s: float) -> Plant:
    plant = read_plant(plant_bytes(), "plant.yaml")
    settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"}
    reactor = plant.connections["reactor"].model_copy(update={"settings": settings})
    unit = plant.units["FL-1"]
    request = unit.tags["fill_request"].model_copy(update={"settle_s": settle_s})
    unit = unit.model_copy(update={"tags": {**unit.tags, "fill_request": request}})
    return plant.model_copy(update={"connections": {"reactor": reactor}, "units": {"FL-1": unit}})


def signed(_at: object, seq: int, hashed: bytes) -> cm.Signed:
    return cm.Signed(
        person="ana", roles=(Role.OPERATOR,), role=Role.OPERATOR, methods=("test",), meaning="answered", session="S",
        subject_seq=seq, subject_hash=hashed.hex(), attestation="00" * 64,
    )  # fmt: skip


@pytest.mark.timeout(300)
async def test_a_packml_machine_is_held_aborted_cleared_and_run_to_its_end(tmp_path: Path) -> None:
    """It executes until the fault is cleared: nothing depends on who is faster."""
    async with parts(tmp_path, FILL, speed=400.0, fault="endless", plant_of=filler, service="FL-1.fill") as made_parts:
        module, engine = made_parts.module, made_parts.engine
        await made_parts.until(in_state("execute"))
        await made_parts.shows("FL-1.fill_state", PACKML.codes["execute"])  # a read-back may be ahead of it
        await made_parts.act(Act.HOLD)
        await made_parts.until(lambda batch: held(batch) and in_state("held")(batch))
        await made_parts.shows("FL-1.fill_state", PACKML.codes["held"])
        await made_parts.act(Act.RESUME)
        await made_parts.until(lambda batch: batch.state is State.RUNNING and in_state("execute")(batch))
        await module.ask(do="service", service="FL-1.fill", tell="abort")
        await made_parts.until(lambda batch: bool(batch.questions) and held(batch))
        assert (await module.counters())["FL-1.fill_request"] == 3
        await module.clear()
        (question,) = made_parts.batch.questions
        await engine.submit_signed(
            lambda at, seq, hashed: cm.AnswerQuestion(
                session="S", batch="B", question=question, answer="again", reading=9, signed=signed(at, seq, hashed)
            )
        )
        await made_parts.until(done)  # cleared, reset and started anew
        counters = await module.counters()
        assert (counters[STARTS], counters["FL-1.fill_request"], counters["FL-1.fill_command"]) == (2, 6, 6)
        assert made_parts.batch.values["bags"].value == 24
        assert [one.code for one in made_parts.batch.exceptions] == ["service.aborted"]
