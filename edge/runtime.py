"""The runtime's composition: journal, head, library, equipment, engine and desk, from one box folder."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import edge
from edge import attachments, notify, unrecorded
from edge.approval import Approvals, fitting
from edge.archive import Record, archive_keys, record_of
from edge.checkpoints import Keeper, read_head
from edge.clock import SystemClock
from edge.config import Config
from edge.core import commands as cm
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import Event, decode
from edge.core.lifecycle import Approval, RecipeState
from edge.core.line import Book, Line, apply
from edge.core.numbers import PRODUCT, NumberRange, nearly_used_up
from edge.core.plant import Plant, read_plant
from edge.core.profiles import Profile
from edge.core.pseudonym import is_pseudonym
from edge.core.quick import dataclass
from edge.core.record import Row
from edge.core.room import Level
from edge.core.terms import ClockQuality
from edge.desk import Desk, Drafts
from edge.directory import Directory
from edge.disk import Disk
from edge.engine import Engine
from edge.equipment import Equipment, Home, installed_drivers
from edge.history import History
from edge.identity import DeviceKey, make_folder, read_public
from edge.journal import Journal, open_journal
from edge.library import Library, Sealed, read_bounded, read_checked_recipe, recipe_files
from edge.prune import Pruner
from edge.unrecorded import SafeWrite, Unrecorded
from edge.vault import VAULT, Vault, open_vault
from edge.watchdog import Watchdogs
from edge.wire import Sync

START_STEP_S: Final = 60.0
"""So long systemd waits for the next sign while many rows are read."""
OVERDUE_AFTER: Final = timedelta(hours=48)
"""A backup each day: one that was missed is made up for within the next."""
SWITCH_S: Final = 0.0005
"""So long a thread at work may keep the interpreter from the loop: Python's own 5 ms are what a command would wait."""
PLANT_KEPT: Final = (
    "The plant file was changed while a batch runs on the earlier one, or waits for its units: the batch goes on with "
    "that. The change takes effect at the next start of the runtime without such a batch."
)
UNUSABLE: Final = (
    "A file of the box folder cannot be used. The batch under way goes on with what it was started on; once there is "
    "none, the runtime does not start before it is put right:"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """What the box goes by: the plant, how recipes become effective, and those of the folder where that is how."""

    plant: Plant
    plant_data: bytes
    approval: Approval
    recipes: tuple[Sealed, ...]
    attachments: Path
    """The folder with the attachments of the recipes."""
    numbers: NumberRange | None
    """The batch numbers that the box gives by itself."""
    profile: Profile
    ad_hoc: tuple[str, ...]
    """Recipes that are started without an order."""
    notices: tuple[str, ...] = ()
    """What of the box folder is not in force, in sentences."""

    @property
    def content(self) -> str:
        """The plant's name in the library."""
        return hashlib.sha256(self.plant_data).hexdigest()


def read_reference(config: Config) -> Reference:
    """What the box folder offers, read and checked. Raises the first finding; nothing was started then."""
    data = read_bounded(config.plant)
    plant = read_plant(data, str(config.plant))
    return _reference(config, plant, data, [read_checked_recipe(path, plant) for path in _recipe_files(config)])


def _in_force(config: Config, offered: Reference | LinesideError, line: Line, library: Library) -> Reference:
    """What the box goes by. While a batch is live or waits, that is the plant that it was started on, whatever the box
    folder offers by now. On it the folder's recipes are checked then; one that does not fit is told and left out. So
    no change of a file keeps a box from coming back to its batch. Without one, a folder that cannot be used is refused.
    """
    pinned = line.plant_content if line.live() else ""
    if isinstance(offered, Reference) and pinned in {"", offered.content}:
        return offered
    if isinstance(offered, LinesideError) and not pinned:
        raise offered
    unusable = offered.what if isinstance(offered, LinesideError) else ""
    notices = [f"{UNUSABLE} {unusable}" if unusable else PLANT_KEPT]
    data = library.plant_data(pinned)
    plant = read_plant(data, pinned)
    recipes = []
    for path in _recipe_files(config):
        try:
            recipes.append(read_checked_recipe(path, plant))
        except LinesideError as why:
            notices.append(f"{path.name} cannot be started: {why.what}")
    return _reference(config, plant, data, recipes, notices)


def _recipe_files(config: Config) -> list[Path]:
    """Where recipes are signed, the files of the folder are drafts: what is in them concerns nobody here."""
    return recipe_files(config.recipes) if config.approval is Approval.FROM_FOLDER else []


def _reference(
    config: Config, plant: Plant, data: bytes, recipes: Iterable[Sealed], notices: Iterable[str] = ()
) -> Reference:
    given = config.numbers
    numbers = NumberRange(given.prefix, given.first, given.last, given.digits, given.first) if given else None
    folder, rules = config.recipes / attachments.FOLDER, (config.profile, config.ad_hoc)
    return Reference(plant, data, config.approval, tuple(recipes), folder, numbers, *rules, tuple(notices))


async def run(config: Config, stop: asyncio.Event) -> None:
    """Run one box until `stop` is set; ends cleanly with RuntimeStopped. Raises LinesideError when it cannot start,
    and `journal.failed` when it must not go on."""
    sys.setswitchinterval(SWITCH_S)
    clock = SystemClock()
    disk = Disk(config.state_dir, clock.utc)
    with disk.naming_full():
        await _run(config, stop, clock, disk)


async def _run(config: Config, stop: asyncio.Event, clock: SystemClock, disk: Disk) -> None:
    journal_path, checkpoints = config.state_dir / "journal.db", config.state_dir / "checkpoints"
    offered: Reference | LinesideError
    try:
        offered = read_reference(config)
    except LinesideError as unusable:
        if not journal_path.exists():
            raise
        offered = unusable
    directory = Directory.load(config.directory)
    signer = DeviceKey.load(config.device_key)
    hub_public = read_public(config.hub.public_key) if config.hub else None
    make_folder(config.state_dir)
    disk.start()
    library = Library(config.state_dir / "library")
    async with open_journal(journal_path, config.state_dir / "epoch") as journal, AsyncExitStack() as held:
        vault = held.enter_context(open_vault(config.state_dir / VAULT))
        with record_of(config) as reader:
            head = read_head(
                reader,
                checkpoints,
                Book(Plant(plant="none")),  # rows say all themselves; which plant they go by is known after them
                made_seq=journal.head_seq,
                say=lambda text: notify.starting(text, START_STEP_S),
            )
            continues = reader.rows_back(1)[0] if journal.restored else None
            vault.catch_up(head.line.erased_seq, lambda seq: _event_at(reader, seq))
        reference = _in_force(config, offered, head.line, library)
        _keep(library, reference)  # first: rows fetched behind a backup may pin what only the box's files have
        book, unfit = _book(head.line, library, reference)
        line = replace(head.line, book=book)
        woken: list[Engine] = []
        history = History(config.state_dir / "history.db", line.book.plant, now_us=clock.utc_us)
        equipment = Equipment(
            line.book.plant,
            installed_drivers(),
            now_s=clock.now_s,
            utc=clock.utc,
            on_change=lambda: woken[0].wake() if woken else None,
            on_reading=history.take,
            home=Home(
                box=config.box,
                folder=config.folder,
                keeps=config.state_dir,
                synced=lambda: clock.quality() is ClockQuality.SYNCED,
            ),
        )  # refuses wrong settings and addresses, before a row says that a runtime began
        unknown_patients = tuple(_unknown_patients(line, vault))
        left = unrecorded.read(config.state_dir)
        started = _how_started(config, journal, continues)
        line = await _start(line, journal, reference, clock, started, *_said(left))
        if left is not None:
            unrecorded.remove(config.state_dir)
        async with equipment:
            await equipment.watch(line.book.plant.tags())
            watchdogs = Watchdogs(line.book.plant, equipment, clock.now_s)
            engine = Engine(
                line,
                journal,
                equipment,
                clock,
                signer,
                disk=disk,
                on_progress=notify.watchdog,
                beat=watchdogs.beat,
                keep_unrecorded=lambda writes: _keep_unrecorded(config.state_dir, disk, clock, writes),
            )
            woken.append(engine)
            desk = Desk(
                engine,
                journal,
                directory,
                signer,
                clock,
                box=config.box,
                speed=config.speed,
                training_speed=config.training_speed,
                drafts=Drafts(config.state_dir / "drafts.json"),
                vault=vault,
                approvals=Approvals(engine, config.state_dir / "library", beside=config.recipes),
                library=library,
                sync=_first_sync(config, line),
                hub_public=hub_public,
                connections=lambda: {
                    name: ", ".join(filter(None, (health.words, watchdogs.words(name))))
                    for name, health in equipment.health().items()
                },
                notices=lambda: (
                    *reference.notices,
                    *unfit,
                    *unknown_patients,
                    *disk.notices(),
                    *watchdogs.troubles(),
                    *journal.notices(),
                    *history.notices(),
                    *_overdue(config, engine.shown, clock),
                    *nearly_used_up(engine.shown.numbers.get(PRODUCT)),
                ),
                pruner=_pruner(config, engine, journal, signer),
            )
            keeper = Keeper(checkpoints, engine, head.checkpoint)
            end = asyncio.Event()
            storing = history.run(
                engine.submit,
                lambda: {b.batch: frozenset(b.units.values()) for b in engine.line.live() if not b.training},
                lambda: disk.room.level is Level.ROOM,
                end,
            )
            try:
                await _serve(engine, desk, keeper, storing, end, config.desk_socket, stop)
            finally:
                busy = any(batch.units for batch in engine.line.live())
                await watchdogs.end(released=not engine.line.running and not busy)


async def _serve(
    engine: Engine,
    desk: Desk,
    keeper: Keeper,
    storing: Coroutine[None, None, None],
    end: asyncio.Event,
    socket: Path,
    stop: asyncio.Event,
) -> None:
    """Run all until `stop`, or until one of them fails. `storing` ends in order when `end` is set."""
    history = asyncio.create_task(storing, name="edge.history")
    running = asyncio.create_task(engine.run(), name="edge.engine")
    stopping = asyncio.create_task(stop.wait(), name="edge.stop")
    keeping = asyncio.create_task(keeper.run(), name="edge.checkpoints")
    try:
        async with desk.serve(socket):
            notify.ready()
            await asyncio.wait({running, stopping, keeping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            notify.stopping()
            end.set()
            keeping.cancel()  # no row comes after the one that says the end
            await asyncio.wait({keeping, history})
            await engine.stop()
    finally:
        if engine.is_ending():
            await asyncio.wait({running})  # units are made safe first
        tasks = (running, stopping, keeping, history)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result


def _book(line: Line, library: Library, reference: Reference) -> tuple[Book, tuple[str, ...]]:
    """What decisions read. What a running batch pins comes from the library, whatever the files say now, and so does
    what was released; a sentence for each of those that cannot be started on this plant."""
    effective = {sealed.seal: sealed.recipe for sealed in reference.recipes}
    unfit = []
    for life in line.lives.values() if reference.approval is not Approval.FROM_FOLDER else ():
        if life.state is RecipeState.EFFECTIVE:
            try:
                effective[life.seal] = fitting(library, life.seal, reference.plant)
            except LinesideError as why:
                unfit.append(f"{life.recipe} {life.version} cannot be started: {why.what}")
    others = {batch.seal for batch in line.batches.values()} - effective.keys()  # reading one takes a tenth of a second
    pinned = {seal: library.recipe(seal) for seal in others}
    return Book(reference.plant, pinned | effective, frozenset(effective)), tuple(unfit)


def _keep(library: Library, reference: Reference) -> None:
    """Put into the library what batches may pin, before a row names it."""
    library.put("plant", reference.content, reference.plant_data)
    for sealed in reference.recipes:
        for attachment in sealed.recipe.attached().values():
            library.put_file(attachment.sha256, reference.attachments / attachment.file)
        library.put("recipe", sealed.seal, sealed.data)


def _how_started(config: Config, journal: Journal, continues: Row | None) -> cm.StartRuntime:
    """What the first row says; after a restore with what it found behind the backup."""
    if continues is None:
        return cm.StartRuntime(version=edge.__version__)
    from edge.fetch import found  # after a restore only: it brings MQTT along

    fetched = found(config.state_dir, journal.journal_id, continues)
    return cm.StartRuntime(version=edge.__version__, continues=continues, fetched=fetched)


def _said(left: Unrecorded | None) -> Iterator[cm.Command]:
    """What a run whose journal had failed left to be said; its id is the command's, so that it is said once."""
    if left is None:
        return
    batches: dict[str, tuple[str, ...]] = {}
    for write in left.writes:
        batches[write.batch] = (*batches.get(write.batch, ()), str(write))
    yield cm.TellUnrecorded(command_id=left.id, utc=left.utc, batches=batches)


def _keep_unrecorded(state_dir: Path, disk: Disk, clock: SystemClock, writes: Sequence[SafeWrite]) -> None:
    disk.look()  # a full disk gives the ballast back
    unrecorded.keep(state_dir, clock.utc(), writes)


async def _start(
    line: Line, journal: Journal, reference: Reference, clock: SystemClock, start: cm.StartRuntime, *also: cm.Command
) -> Line:
    """Say in the journal, durably, that a runtime began, what the last one could not say, and with what reference."""
    commands: list[cm.Command] = [
        start,
        *also,
        cm.LoadPlant(plant=reference.plant.plant, content=reference.content),
        cm.SetRecipeApproval(approval=reference.approval),
        cm.SetNumbers(numbers=reference.numbers),
        cm.SetProfile(profile=reference.profile, ad_hoc=reference.ad_hoc),
    ]
    commands += [
        cm.LoadRecipe(recipe=s.recipe.recipe, version=s.recipe.version, title=s.recipe.title, seal=s.seal)
        for s in reference.recipes
    ]
    for command in commands:
        rows = decide(line, command, Now(clock.stamp(), lambda _: None))
        if rows:
            await journal.append(rows).durable()
        for row in rows:
            line = apply(line, row)
    return line


def _pruner(config: Config, engine: Engine, journal: Journal, signer: DeviceKey) -> Pruner | None:
    if config.archive is None:
        return None
    trusted = archive_keys(config, signer.public)
    return Pruner(engine, journal, config.archive, config.state_dir, trusted=trusted, device=signer.fingerprint)


def _event_at(reader: Record, seq: int) -> Event | None:
    """What row `seq` says; None when the journal does not hold it."""
    return next((decode(row.body).event for row in reader.rows(seq - 1, 1) if row.seq == seq), None)


def _unknown_patients(line: Line, vault: Vault) -> Iterator[str]:
    """A sentence for each batch under way whose patient's scans cannot match, because the vault was lost."""
    for batch in line.live():
        if is_pseudonym(batch.patient) and vault.identity(batch.patient) is None:
            yield (
                f"The vault does not hold the patient identity of batch {batch.batch} ({batch.patient}): "
                "no scan of the patient can match. Restore vault.db from a backup, or stop the batch."
            )


def _overdue(config: Config, line: Line, clock: SystemClock) -> Iterator[str]:
    """A sentence when the day's backup is not made and tried, whatever the reason."""
    if config.backup is None:
        return
    if line.drill is None:
        yield "No backup was made and tried yet; the follower does it soon after its start."
    elif datetime.fromisoformat(clock.utc()) - datetime.fromisoformat(line.drill.at.utc) > OVERDUE_AFTER:
        yield (
            f"The last backup was made and tried {line.drill.at.utc[:16]}Z: that is overdue. Look whether the follower "
            "runs (systemctl status lineside-follow), and make one with `lineside drill`."
        )


def _first_sync(config: Config, line: Line) -> Sync:
    """What is known of the hub before the follower speaks: the last receipt that is a row."""
    return Sync(
        hub="off" if config.hub is None or config.broker is None else "never" if not line.stored_seq else "away",
        received_seq=line.stored_seq,
        copied="off" if config.mirror is None else "ok",
        detail="the follower has not reported yet",
    )
