"""A weigh step with a scale at the end of a serial line, from the container to the record."""

from __future__ import annotations

import asyncio
from pathlib import Path

from drivers.sim.control import Faults
from drivers.sim.scale import WRITABLE, SimScale, scale_on_a_line
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.line import Book, Line
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.terms import Quality, Role, State
from edge.engine import Engine
from edge.equipment import Equipment, WriteResult, installed_drivers
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal

SALT = {
    "id": "010", "phase": "weigh", "title": "Salt", "text": "Add salt.", "name": "salt", "target": 250.0, "unit": "g",
    "tolerance": {"below": 1, "above": 1, "unit": "%", "why": "The formula says so."},
    "balance": "scale.weight", "steady": 0.05, "steady_for": "0.5 s",
}  # fmt: skip
RECIPE = Recipe.model_validate(
    {
        "recipe": "WEIGH",
        "version": "1",
        "title": "Weigh",
        "units": {"scale": {"class": "balance"}},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [SALT]}]}],
    }
)


def plant_at(line: str) -> Plant:
    common = {"connection": "scale", "settle_s": 2}
    return Plant.model_validate(
        {
            "plant": "weighing",
            "connections": {"scale": {"driver": "scale", "settings": {"line": line}, "poll_s": 0.05}},
            "units": {
                "W-2": {
                    "class": "balance",
                    "tags": {
                        "weight": {**common, "address": "weight", "unit": "kg", "low": -1, "high": 6},
                        "tare": {**common, "address": "tare", "type": "bool", "access": "write"},
                    },
                }
            },
        }
    )


async def test_tare_and_gross_come_from_the_scale_and_the_net_weight_stands_in_the_record(tmp_path: Path) -> None:
    clock, scale = SystemClock(), SimScale(Faults(("W-2.weight",), WRITABLE))
    async with (
        scale_on_a_line(scale) as end,
        open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal,
        Equipment(plant := plant_at(end), installed_drivers(), now_s=clock.now_s, utc=clock.utc) as equipment,
    ):
        await equipment.watch(plant.tags())
        line = Line(Book(plant, {"s": RECIPE}, frozenset({"s"})))
        engine = Engine(line, journal, equipment, clock, DeviceKey.create(tmp_path / "device.key"))
        running = asyncio.create_task(engine.run(), name="engine")

        async def until(state: State | None = None, *given: str) -> None:
            async with asyncio.timeout(60):
                while True:
                    batch = engine.shown.batches["B"]
                    if batch.state is state or (given and set(given) <= set(batch.steps["010"].given)):
                        return
                    engine.changed.clear()
                    await engine.changed.wait()

        async def put(grams: float, part: str, quality: Quality) -> None:
            scale.faults.load_g = grams
            async with asyncio.timeout(60):
                while (seen := equipment.latest("W-2.weight")) is None or (seen.value, seen.quality) != (
                    grams / 1000,
                    quality,
                ):
                    await equipment.read("W-2.weight")  # each look is a question to the scale
            await engine.submit(cm.ConfirmStep(session="S", batch="B", step="010", part=part))

        await engine.submit(cm.StartRuntime(version="t"))
        await engine.submit(cm.LoadRecipe(recipe="WEIGH", version="1", title="Weigh", seal="s"))
        await engine.submit(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="m"))
        await engine.submit(cm.StartBatch(session="S", batch="B", order="O", seal="s", patient="", speed=1.0))
        await put(120.0, "empty", Quality.GOOD)
        await until(None, "salt.tare")
        scale.faults.bad["W-2.weight"] = "unstable"
        await put(371.0, "filled", Quality.UNCERTAIN)
        assert "salt.gross" not in engine.shown.batches["B"].steps["010"].given, "it moves"
        scale.faults.bad.clear()
        await until(State.COMPLETE)
        tared = await equipment.writer("W-2.tare").write_and_read_back(True)
        assert (tared.result, scale.faults.counters["W-2.tare"]) == (WriteResult.CONFIRMED, 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    with JournalReader(tmp_path / "journal.db") as rows:
        made = [ev.decode(row.body) for row in rows.rows(0, 1000)]
    weighed = [row.event for row in made if isinstance(row.event, ev.Weighed)]
    assert [(one.tare, one.gross, one.net, one.source) for one in weighed] == [(120.0, 371.0, 251.0, "W-2.weight")]
