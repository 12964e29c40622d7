"""The runtime's composition: journal, head, library, equipment, engine and desk, from one box folder."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import edge
from edge import notify
from edge.checkpoints import Keeper, read_head
from edge.clock import SystemClock
from edge.config import Config
from edge.core import commands as cm
from edge.core.decide import Now, decide
from edge.core.errors import LinesideError
from edge.core.line import Book, Line, apply
from edge.core.plant import Plant, read_plant
from edge.core.record import Row
from edge.desk import Desk, Drafts
from edge.directory import Directory
from edge.disk import Disk
from edge.engine import Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey, read_public
from edge.journal import Journal, JournalReader, open_journal
from edge.library import Library, Sealed, read_bounded, read_checked_recipe, recipe_files
from edge.wire import Sync

START_STEP_S: Final = 60.0
"""So long systemd waits for the next sign while many rows are read."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the box folder offers now: the plant file's content and the recipes that may be started."""

    plant: Plant
    plant_data: bytes
    recipes: tuple[Sealed, ...]

    @property
    def content(self) -> str:
        """The plant's name in the library."""
        return hashlib.sha256(self.plant_data).hexdigest()


def read_reference(config: Config) -> Reference:
    """Read and check plant and recipes. Raises the first finding; nothing was started then."""
    data = read_bounded(config.plant)
    plant = read_plant(data, str(config.plant))
    recipes = tuple(read_checked_recipe(path, plant) for path in recipe_files(config.recipes))
    return Reference(plant, data, recipes)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Run one box until `stop` is set; ends cleanly with RuntimeStopped. Raises LinesideError when it cannot start,
    and `journal.failed` when it must not go on."""
    clock = SystemClock()
    disk = Disk(config.state_dir, clock.utc)
    with disk.naming_full():
        await _run(config, stop, clock, disk)


async def _run(config: Config, stop: asyncio.Event, clock: SystemClock, disk: Disk) -> None:
    reference = read_reference(config)
    directory = Directory.load(config.directory)
    signer = DeviceKey.load(config.device_key)
    hub_public = read_public(config.hub.public_key) if config.hub else None
    config.state_dir.mkdir(parents=True, exist_ok=True)
    disk.start()
    library = Library(config.state_dir / "library")
    journal_path, checkpoints = config.state_dir / "journal.db", config.state_dir / "checkpoints"
    async with open_journal(journal_path, config.state_dir / "epoch") as journal:
        with JournalReader(journal_path) as reader:
            head = read_head(
                reader,
                checkpoints,
                Book(reference.plant),
                made_seq=journal.head_seq,
                say=lambda text: notify.starting(text, START_STEP_S),
            )
            continues = reader.rows_back(1)[0] if journal.restored else None
        line = replace(head.line, book=_book(head.line, library, reference))
        woken: list[Engine] = []
        equipment = Equipment(
            line.book.plant,
            installed_drivers(),
            now_s=clock.now_s,
            utc=clock.utc,
            on_change=lambda: woken[0].wake() if woken else None,
        )  # refuses wrong settings and addresses, before a row says that a runtime began
        line, notices = await _start(line, journal, library, reference, clock, continues)
        async with equipment:
            await equipment.watch(line.book.plant.tags())
            engine = Engine(line, journal, equipment, clock, signer, disk=disk, on_progress=notify.watchdog)
            woken.append(engine)
            desk = Desk(
                engine,
                journal,
                directory,
                signer,
                clock,
                box=config.box,
                speed=config.speed,
                drafts=Drafts(config.state_dir / "drafts.json"),
                sync=_first_sync(config, line),
                hub_public=hub_public,
                connections=lambda: {
                    name: "connected" if health.connected else health.detail
                    for name, health in equipment.health().items()
                },
                notices=lambda: (*notices, *disk.notices()),
            )
            await _serve(engine, desk, Keeper(checkpoints, engine, head.checkpoint), config.desk_socket, stop)


async def _serve(engine: Engine, desk: Desk, keeper: Keeper, socket: Path, stop: asyncio.Event) -> None:
    running = asyncio.create_task(engine.run(), name="edge.engine")
    stopping = asyncio.create_task(stop.wait(), name="edge.stop")
    keeping = asyncio.create_task(keeper.run(), name="edge.checkpoints")
    try:
        async with desk.serve(socket):
            notify.ready()
            await asyncio.wait({running, stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            notify.stopping()
            keeping.cancel()  # no row comes after the one that says the end
            await asyncio.wait({keeping})
            await engine.stop()
    finally:
        tasks = (running, stopping, keeping)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


def _book(line: Line, library: Library, reference: Reference) -> Book:
    """What decisions read. What a running batch pins comes from the library, whatever the files say now."""
    pinned = {seal: library.recipe(seal) for seal in {batch.seal for batch in line.batches.values()}}
    plant = reference.plant
    if line.plant_content and line.plant_content != reference.content and line.live():
        plant = library.plant(line.plant_content)
    effective = {sealed.seal: sealed.recipe for sealed in reference.recipes}
    return Book(plant, pinned | effective, frozenset(effective))


async def _start(
    line: Line,
    journal: Journal,
    library: Library,
    reference: Reference,
    clock: SystemClock,
    continues: Row | None,
) -> tuple[Line, tuple[str, ...]]:
    """Say in the journal, durably, that a runtime began, with what plant and recipes."""
    notices: list[str] = []
    library.put("plant", reference.content, reference.plant_data)
    for sealed in reference.recipes:
        library.put("recipe", sealed.seal, sealed.data)
    commands: list[cm.Command] = [
        cm.StartRuntime(version=edge.__version__, continues=continues),
        cm.LoadPlant(plant=reference.plant.plant, content=reference.content),
    ]
    commands += [
        cm.LoadRecipe(recipe=s.recipe.recipe, version=s.recipe.version, title=s.recipe.title, seal=s.seal)
        for s in reference.recipes
    ]
    for command in commands:
        try:
            rows = decide(line, command, Now(clock.stamp(), lambda _: None))
        except LinesideError as refusal:
            if refusal.code != "plant.in_use":
                raise
            notices.append(f"{refusal.what} {refusal.todo}")
            continue
        if rows:
            await journal.append(rows).durable()
        for row in rows:
            line = apply(line, row)
    return line, tuple(notices)


def _first_sync(config: Config, line: Line) -> Sync:
    """What is known of the hub before the follower speaks: the last receipt that is a row."""
    return Sync(
        hub="off" if config.hub is None or config.broker is None else "never" if not line.stored_seq else "away",
        received_seq=line.stored_seq,
        copied="off" if config.mirror is None else "ok",
        detail="the follower has not reported yet",
    )
