"""Durable steps of a recipe, one after the other, against raw single-row commits; and what thousands of batches leave.

A step is confirmed when the one before is durable: each is one decision and one commit. The batches are those of the
real runtime, started and ended at its desk.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

from bench import Figure, Say
from bench.box import ANA, log_in, running, start_batch
from bench.journal import Raw
from edge import wire
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core.line import Book, Line
from edge.core.plant import read_plant
from edge.core.recipe import read_recipe, seal
from edge.core.terms import Role
from edge.desk_client import connect
from edge.engine import Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey
from edge.journal import open_journal
from provisioning.device import init_device

ROUNDS: Final = 7
STEPS: Final = 60
BATCHES: Final = 10_000
FIRST: Final = 500
"""By then all that is made once is there."""
HEAD: Final = """\
recipe: STEPS
version: "1"
title: Steps
procedure:
  - unit_procedure: Bench
    operations:
      - operation: Steps
        steps:
"""


def _recipe(steps: int) -> str:
    each = (f'          - {{id: "{n}", phase: instruct, title: Step {n}, text: Do it.}}\n' for n in range(1, steps + 1))
    return HEAD + "".join(each)


async def _steps(folder: Path, say: Say) -> list[Figure]:
    recipe = read_recipe(_recipe(STEPS).encode(), "steps.yaml").recipe
    name, clock = seal(recipe), SystemClock()
    plant = read_plant(b"plant: bench\nconnections: {}\nunits: {}\n", "plant.yaml")
    line = Line(Book(plant, {name: recipe}, frozenset({name})))
    raw, ours, theirs = Raw(folder / "raw.db"), list[float](), list[float]()
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        equipment = Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc, on_change=lambda: None)
        engine = Engine(line, journal, equipment, clock, DeviceKey.create(folder / "device.key"))
        running_engine = asyncio.create_task(engine.run(), name="engine")
        try:
            await engine.submit(cm.StartRuntime(version="bench"))
            await engine.submit(cm.LoadRecipe(recipe="STEPS", version="1", title="Steps", seal=name))
            await engine.submit(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="bench"))
            for number in range(ROUNDS):
                say(f"steps: round {number + 1} of {ROUNDS}")
                batch = f"B-{number}"
                start = cm.StartBatch(session="S", batch=batch, order="O", seal=name, patient="", speed=1.0)
                await engine.submit(start)
                theirs.append(raw.rate(1, STEPS))
                begun_s = time.perf_counter()
                for step in range(1, STEPS + 1):
                    await engine.submit(cm.ConfirmStep(session="S", batch=batch, step=str(step)))
                ours.append(STEPS / (time.perf_counter() - begun_s))
        finally:
            running_engine.cancel()
            await asyncio.gather(running_engine, return_exceptions=True)
    raw.close()
    return [Figure("durable steps, one after the other", median(ours), "steps/s", median(theirs), at_least=0.4)]


def measure_steps(say: Say) -> list[Figure]:
    """Medians of seven rounds, raw and ours in turn. The folder is on the disk of the working directory."""
    with TemporaryDirectory(dir="build", prefix="bench-") as folder:
        return asyncio.run(_steps(Path(folder), say))


async def _batches(folder: Path, say: Say) -> list[Figure]:
    box, desk = folder / "box", folder / "desk.sock"
    init_device(box, box="BOX-1", people=[ANA])
    (box / "lineside.toml").write_text(f'box = "BOX-1"\ndesk_socket = "{desk}"\nrecipe_approval = "from_folder"\n')
    (box / "recipes" / "steps.yaml").write_text(_recipe(2))
    found: dict[int, float] = {}
    async with running(folder, "edge", "run", "--box", str(box)) as process, connect(desk) as client:
        await log_in(client)
        begun_s = time.perf_counter()
        for number in range(1, BATCHES + 1):
            await start_batch(client, f"B-{number}")
            for step in ("1", "2"):
                await client.ask(wire.ConfirmStep(id=uuid4().hex, batch=f"B-{number}", step=step))
            if number in {FIRST, BATCHES}:
                found[number] = process.memory.resident
            if number % 500 == 0:
                say(f"{number:,} of {BATCHES:,} batches")
        took_s = time.perf_counter() - begun_s
        peak = process.memory.peak
    return [
        Figure(
            f"resident after {BATCHES:,} batches, to that after {FIRST}",
            found[BATCHES],
            "MiB",
            found[FIRST],
            at_most=1.1,
        ),
        Figure("   the most it ever held", peak, "MiB"),
        Figure("   batches", BATCHES / took_s, "1/s"),
    ]


def measure_batches(say: Say) -> list[Figure]:
    """Ten thousand batches of two steps through one runtime: takes minutes."""
    with TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_batches(Path(folder), say))
