"""Durable steps of a recipe, one after the other, against raw single-row commits; and what thousands of batches leave.

A step is confirmed when the one before is durable: each is one decision and one commit. The batches are those of the
real runtime, started and ended at its desk.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final
from uuid import uuid4

from bench import Figure, Say
from bench.box import ANA, log_in, running, start_batch
from bench.journal import Raw
from bench.slow import on_slow_disk
from edge import wire
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core.line import Book, Line
from edge.core.plant import read_plant
from edge.core.recipe import Recipe, read_recipe, seal
from edge.core.terms import Role
from edge.desk_client import connect
from edge.engine import Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey
from edge.journal import open_journal
from edge.runtime import SWITCH_S
from provisioning.device import init_device

ROUNDS: Final = 7
STEPS: Final = 60
LONG: Final = 1_000
"""As many steps as a recipe may have."""
AT_ONCE: Final = 10
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


@asynccontextmanager
async def _engine(folder: Path, recipes: Sequence[Recipe]) -> AsyncIterator[Engine]:
    """An engine at work with nothing but these recipes, and somebody logged in."""
    clock, folder = SystemClock(), Path(mkdtemp(dir=folder))
    plant = read_plant(b"plant: bench\nconnections: {}\nunits: {}\n", "plant.yaml")
    by_seal = {seal(recipe): recipe for recipe in recipes}
    line = Line(Book(plant, by_seal, frozenset(by_seal)))
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        equipment = Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc, on_change=lambda: None)
        engine = Engine(line, journal, equipment, clock, DeviceKey.create(folder / "device.key"))
        running_engine = asyncio.create_task(engine.run(), name="engine")
        try:
            await engine.submit(cm.StartRuntime(version="bench"))
            for name, recipe in by_seal.items():
                await engine.submit(cm.LoadRecipe(recipe=recipe.recipe, version="1", title="Steps", seal=name))
            await engine.submit(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="bench"))
            yield engine
        finally:
            running_engine.cancel()
            await asyncio.gather(running_engine, return_exceptions=True)


async def _run(engine: Engine, name: str, steps: int, batches: int = 1) -> tuple[float, float]:
    """Go through the steps of so many batches in turn: steps a second, and seconds of the processor for one."""
    ids = [uuid4().hex for _ in range(batches)]
    for batch in ids:
        await engine.submit(cm.StartBatch(session="S", batch=batch, order="O", seal=name, patient="", speed=1.0))
    begun_s, spent_s = time.perf_counter(), time.process_time()
    for step in range(1, steps + 1):
        for batch in ids:
            await engine.submit(cm.ConfirmStep(session="S", batch=batch, step=str(step)))
    count = steps * batches
    return count / (time.perf_counter() - begun_s), (time.process_time() - spent_s) / count


async def _steps(folder: Path, disk: str, say: Say) -> list[Figure]:
    """One step after the other, in turn with raw commits."""
    recipe = read_recipe(_recipe(STEPS).encode(), "steps.yaml").recipe
    raw, ours, theirs = Raw(folder / "raw.db"), list[tuple[float, float]](), list[float]()
    async with _engine(folder, [recipe]) as engine:
        for number in range(ROUNDS):
            say(f"steps, {disk}: round {number + 1} of {ROUNDS}")
            theirs.append(raw.rate(1, STEPS))
            ours.append(await _run(engine, seal(recipe), STEPS))
    raw.close()
    rate, spent_s = (median(values) for values in zip(*ours, strict=True))
    return [
        Figure(f"{disk}: durable steps, one after the other", rate, "steps/s", median(theirs), at_least=0.4),
        Figure("   the processor's time for one, commits included", spent_s * 1e6, "us"),
    ]


async def _sizes(folder: Path, say: Say) -> list[Figure]:
    """What a step costs does not depend on the length of the recipe or on the number of batches. Each is about as many
    steps, and a round's ratios are of what lies side by side in time."""
    short, long = (read_recipe(_recipe(steps).encode(), "steps.yaml").recipe for steps in (STEPS, LONG))
    one, of_long, of_many = list[float](), list[float](), list[float]()
    async with _engine(folder, [short, long]) as engine:
        for number in range(ROUNDS):
            say(f"steps of long recipes and many batches: round {number + 1} of {ROUNDS}")
            alone = [(await _run(engine, seal(short), STEPS))[1] for _ in range(AT_ONCE)]
            one.append(sum(alone) / AT_ONCE * 1e6)
            of_long.append((await _run(engine, seal(long), LONG))[1] * 1e6 / one[-1])
            of_many.append((await _run(engine, seal(short), STEPS, AT_ONCE))[1] * 1e6 / one[-1])
    mid = median(one)
    return [
        Figure(f"the same of a recipe of {LONG} steps, to {STEPS}", median(of_long) * mid, "us", mid, at_most=1.3),
        Figure(f"the same of {AT_ONCE} batches in turn, to one", median(of_many) * mid, "us", mid, at_most=1.3),
    ]


async def _peer(folder: Path, say: Say) -> list[Figure]:
    """Steps of DBOS on SQLite, in turn with ours; nothing where it is not installed (`pip install dbos`)."""
    if find_spec("dbos") is None:
        say("DBOS is not installed: nothing to compare with")
        return []
    recipe = read_recipe(_recipe(STEPS).encode(), "steps.yaml").recipe
    ours, theirs = list[float](), list[float]()
    async with _engine(folder, [recipe]) as engine:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.peer", str(folder / "peer.db"), str(STEPS)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        for number in range(ROUNDS):
            say(f"steps of DBOS: round {number + 1} of {ROUNDS}")
            child.stdin.write(b"\n")
            theirs.append(float(await child.stdout.readline()))
            ours.append((await _run(engine, seal(recipe), STEPS))[0])
        child.stdin.close()
        await child.wait()
    return [Figure("durable steps, to those of DBOS on SQLite", median(ours), "steps/s", median(theirs), at_least=5)]


def measure_steps(say: Say) -> list[Figure]:
    """Medians of seven rounds, raw and ours in turn. The folder is on the disk of the working directory."""
    with _as_in_the_runtime() as folder:
        rest = asyncio.run(_sizes(folder, say)) + asyncio.run(_peer(folder, say))
    return measure_disk("this disk", say) + on_slow_disk("bench.steps", say) + rest


def measure_disk(disk: str, say: Say) -> list[Figure]:
    """On the disk as this process finds it, which has a name."""
    with _as_in_the_runtime() as folder:
        return asyncio.run(_steps(folder, disk, say))


@contextmanager
def _as_in_the_runtime() -> Iterator[Path]:
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    with TemporaryDirectory(dir="build", prefix="bench-") as folder:
        yield Path(folder)
    sys.setswitchinterval(switch_s)


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
