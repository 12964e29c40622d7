"""Formulas on the real engine: a condition is asked at each look; a reading that cannot be used holds the batch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import decode
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, Role, State
from edge.journal import JournalReader
from tests.edge.test_engine import Parts, confirm, parts

READY = {"id": "010", "phase": "instruct", "title": "Ready", "text": "Prime it."}
RUN = {"id": "020", "phase": "set", "title": "Run", "tag": "pump.speed_setpoint", "value": 12.0, "unit": "mL/min"}
PUMPED = {"id": "030", "phase": "wait", "title": "Pumped", "until": "pump.volume >= 0.1", "timeout": "1 h"}
TWICE = {
    "id": "040", "phase": "calculate", "title": "Twice", "formula": "pump.volume * 2.0", "name": "twice", "unit": "mL"
}  # fmt: skip
CHOICE = {
    "id": "050", "phase": "select", "title": "Enough?", "else": [{**READY, "id": "052"}],
    "branches": [{"when": "twice >= 0.2 && pump.volume < 1000.0", "steps": [{**READY, "id": "051"}]}],
}  # fmt: skip

LOOK = {**CHOICE, "branches": [{"when": "pump.volume < 1000.0", "steps": [{**READY, "id": "051"}]}]}


def recipe(*steps: dict[str, Any]) -> Recipe:
    return Recipe.model_validate(
        {
            "recipe": "PUMP", "version": "1", "title": "T", "units": {"pump": {"class": "pump"}},
            "readings": {"pump.volume": "mL"},
            "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [READY, *steps]}]}],
        }
    )  # fmt: skip


async def until_active(made: Parts, step: str) -> None:
    """Wait for the row that says that a person is asked for the step."""
    while (run := made.engine.shown.batches["B"].steps.get(step)) is None or run.state != "active":
        made.engine.changed.clear()
        async with asyncio.timeout(60):
            await made.engine.changed.wait()


def rows(folder: Path) -> list[ev.Event]:
    with JournalReader(folder / "journal.db") as journal:
        return [decode(row.body).event for row in journal.rows(0, 1_000)]


async def test_a_step_goes_on_when_its_condition_becomes_true_and_says_by_which_readings(tmp_path: Path) -> None:
    async with parts(tmp_path, recipe(RUN, PUMPED, TWICE, CHOICE)) as made:
        await made.engine.submit(confirm())
        await until_active(made, "051")
        assert "052" not in made.engine.shown.batches["B"].steps
    events = rows(tmp_path)
    (met,) = [one for one in events if isinstance(one, ev.ConditionMet)]
    assert [(one["name"], one["source"], one["quality"]) for one in met.inputs] == [
        ("pump.volume", "P-1.volume", "good")
    ]
    assert met.inputs[0]["value"] >= 0.1
    (twice,) = [one for one in events if isinstance(one, ev.ValueRecorded)]
    assert twice.value == 2 * twice.inputs[0]["value"]
    (taken,) = [one for one in events if isinstance(one, ev.BranchTaken)]
    assert (taken.step, taken.branch) == ("050", 0)
    assert {one["name"]: one["value"] for one in taken.inputs}["twice"] == twice.value


async def shown(made: Parts, *, good: bool) -> None:
    """Wait until the pump's volume can, or cannot, be used."""
    async with asyncio.timeout(60):
        while (now := made.equipment.latest("P-1.volume")) is None or now.good is not good:  # noqa: ASYNC110  no event
            await asyncio.sleep(0)


@pytest.mark.parametrize("step", [PUMPED, TWICE, LOOK], ids=["wait", "calculate", "select"])
async def test_a_reading_that_cannot_be_used_holds_the_batch_until_it_can(tmp_path: Path, step: dict[str, Any]) -> None:
    async with parts(tmp_path, recipe(RUN, step, {**READY, "id": "060"})) as made:
        await made.pump.bad_quality("P-1.volume")
        await shown(made, good=False)
        await made.engine.submit(cm.OpenSession(session="V", person="vic", roles=(Role.SUPERVISOR,), method="m"))
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        assert "pump.volume cannot be used: The device refused" in made.engine.shown.batches["B"].reason
        await made.pump.clear()
        await shown(made, good=True)
        await made.engine.submit(cm.ActOnBatch(session="V", batch="B", act=Act.RESUME, reason="mended"))
        await until_active(made, "051" if step is LOOK else "060")
    held = [one for one in rows(tmp_path) if isinstance(one, ev.BatchStateChanged) and one.now == State.HELD.value]
    assert len(held) == 1
