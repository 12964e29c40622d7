"""The engine on a disk whose sync waits: nothing is shown, answered or written before the row is durable."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import apsw
import pytest

from drivers.sim.cell import plant_bytes
from drivers.sim.control import SimControl
from drivers.sim.pump import serve_pump_and_balance
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.events import RuntimeStopped, Sealed, decode
from edge.core.line import SEAL_ROWS, Book, Line
from edge.core.plant import Plant, read_plant
from edge.core.recipe.model import Recipe
from edge.core.record import SEAL_DOMAIN, sealed_bytes, signature_holds
from edge.core.terms import Act, Role, State
from edge.engine import TICK_S, Engine
from edge.equipment import Equipment, installed_drivers
from edge.identity import DeviceKey
from edge.journal import Journal, JournalReader, open_journal

NAMES = itertools.count()
RECIPE = Recipe.model_validate(
    {
        "recipe": "PUMP",
        "version": "1",
        "title": "Pump",
        "units": {"pump": {"class": "pump"}},
        "procedure": [
            {
                "unit_procedure": "U",
                "operations": [
                    {
                        "operation": "O",
                        "steps": [
                            {"id": "010", "phase": "instruct", "title": "Ready", "text": "Prime it."},
                            {
                                "id": "020",
                                "phase": "set",
                                "title": "Run",
                                "tag": "pump.speed_setpoint",
                                "value": 12.0,
                                "unit": "mL/min",
                            },
                            {"id": "030", "phase": "instruct", "title": "Look", "text": "Look at it."},
                        ],
                    }
                ],
            }
        ],
    }
)


class WaitingDisk(apsw.VFS):
    """The system's files, whose sync waits while `closed`."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.waiting = threading.Event()
        self.broken = False
        self.name = f"waiting-{next(NAMES)}"
        super().__init__(self.name, "")

    def xOpen(self, name, flags):  # noqa: N802  SQLite's name
        return _File(self, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: WaitingDisk, name, flags) -> None:
        self.disk = disk
        super().__init__("", name, flags)

    def xSync(self, flags):  # noqa: N802  SQLite's name
        self.disk.waiting.set()
        self.disk.open.wait(30)
        if self.disk.broken:
            raise apsw.IOError("the disk is broken")
        super().xSync(flags)


@dataclass
class Parts:
    engine: Engine
    journal: Journal
    disk: WaitingDisk
    pump: SimControl
    equipment: Equipment

    async def writes(self) -> int:
        return (await self.pump.counters())["P-1.speed_setpoint"]

    @contextlib.contextmanager
    def shut(self) -> Iterator[None]:
        """Syncs wait while the block runs."""
        self.disk.waiting.clear()
        self.disk.open.clear()
        try:
            yield
        finally:
            self.disk.open.set()

    async def until(self, state: State) -> None:
        while self.engine.shown.batches["B"].state is not state:
            self.engine.changed.clear()
            async with asyncio.timeout(60):
                await self.engine.changed.wait()


def plant_on(port: int) -> Plant:
    plant = read_plant(plant_bytes(), "plant.yaml")
    pump = plant.connections["pump"].model_copy(
        update={"settings": {**plant.connections["pump"].settings, "port": port}, "timeout_s": 0.3}
    )
    return plant.model_copy(
        update={"connections": {"pump": pump}, "units": {n: u for n, u in plant.units.items() if n in {"P-1", "W-1"}}}
    )


@asynccontextmanager
async def parts(folder: Path, recipe: Recipe = RECIPE) -> AsyncIterator[Parts]:
    disk, clock = WaitingDisk(), SystemClock()
    control = folder / "pump.sock"
    async with (
        serve_pump_and_balance("127.0.0.1", 0, seed=1, speed=1.0, control=control) as port,
        open_journal(folder / "journal.db", folder / "epoch", vfs=disk.name) as journal,
    ):
        plant = plant_on(port)
        line = Line(Book(plant, {"s": recipe}, frozenset({"s"})))
        equipment = Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc)
        async with equipment:
            await equipment.watch(plant.tags())
            engine = Engine(line, journal, equipment, clock, DeviceKey.create(folder / "device.key"))
            running = asyncio.create_task(engine.run(), name="engine")
            await engine.submit(cm.StartRuntime(version="t"))
            await engine.submit(cm.LoadRecipe(recipe="PUMP", version="1", title="Pump", seal="s"))
            await engine.submit(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="m"))
            await engine.submit(cm.StartBatch(session="S", batch="B", order="O", seal="s", patient="", speed=1.0))
            await connected(equipment, wanted=True)
            try:
                yield Parts(engine, journal, disk, SimControl(control), equipment)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


async def connected(equipment: Equipment, *, wanted: bool) -> None:
    """Wait until the pump's connection is, or is not, there."""
    async with asyncio.timeout(60):
        while equipment.health()["pump"].connected is not wanted:  # noqa: ASYNC110  health has no event of its own
            await asyncio.sleep(0)


def confirm(step: str = "010") -> cm.ConfirmStep:
    return cm.ConfirmStep(session="S", batch="B", step=step)


async def a_moment() -> None:
    """Long enough for whatever must not happen to happen: the engine's own tick, and a round trip of the pump."""
    for _ in range(200):
        await asyncio.sleep(0)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TICK_S + 0.2):
            await asyncio.Event().wait()


async def check_nothing_before_the_sync(made: Parts) -> None:
    """I7 and the once-effect's rule, with the disk as the judge."""
    with made.shut():
        asking = asyncio.create_task(made.engine.submit(confirm()), name="asking")
        await asyncio.to_thread(made.disk.waiting.wait, 10)
        await a_moment()
        assert made.engine.line.batches["B"].steps["010"].state == "done", "the head has decided"
        assert not asking.done(), "answered before it was durable"
        assert made.engine.shown.batches["B"].steps["010"].state == "active", "shown before it was durable"
        assert await made.writes() == 0, "written to the pump before the intent was durable"
    await asking
    assert made.engine.shown.batches["B"].steps["010"].state == "done"


async def test_nothing_is_answered_shown_or_written_before_its_row_is_durable(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await check_nothing_before_the_sync(made)
        while made.engine.shown.batches["B"].steps["020"].state != "done":
            made.engine.changed.clear()
            async with asyncio.timeout(60):
                await made.engine.changed.wait()
        assert await made.writes() == 1


async def test_planted_bug_a_screen_before_the_journal_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decide_now = Engine._decide

    def hasty(self, command, at, *, urgent=False):
        answer = decide_now(self, command, at, urgent=urgent)
        self.shown = self.line
        return answer

    async with parts(tmp_path) as made:
        monkeypatch.setattr(Engine, "_decide", hasty)
        with pytest.raises(AssertionError, match="shown before"):
            await check_nothing_before_the_sync(made)


async def test_planted_bug_a_write_before_the_journal_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Engine._begin_write

    def hasty(self, group, write):
        self._durable_head = (write.seq, self._durable_head[1])
        begin(self, group, write)

    async with parts(tmp_path) as made:
        monkeypatch.setattr(Engine, "_begin_write", hasty)
        with pytest.raises(AssertionError, match="written to the pump before"):
            await check_nothing_before_the_sync(made)


async def test_a_lost_reply_is_one_write_and_a_question(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.pump.drop_replies(1)
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        (question,) = made.engine.shown.batches["B"].questions.values()
        assert question.intent == 12.0
        assert await made.writes() == 1
        reading = await made.equipment.read("P-1.speed_setpoint")
        assert reading.value == 12.0


async def test_a_device_that_clamps_is_not_believed(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.pump.clamp("P-1.speed_setpoint", 5.0)
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        assert await made.writes() == 1


async def test_a_device_that_is_away_refuses_and_nothing_was_sent(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.pump.silent(0)
        await connected(made.equipment, wanted=False)
        await made.engine.submit(confirm())
        await made.until(State.HELD)
        (question,) = made.engine.shown.batches["B"].questions.values()
        assert question.answers == ("again", "abort"), "what was never sent cannot have happened"
        await made.pump.clear()
        assert await made.writes() == 0


async def test_abort_writes_the_safe_state(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.engine.submit(confirm())
        while made.engine.shown.batches["B"].steps.get("030") is None:
            made.engine.changed.clear()
            async with asyncio.timeout(60):
                await made.engine.changed.wait()
        await made.engine.submit(cm.ActOnBatch(session="S", batch="B", act=Act.ABORT, reason="leak"))
        await made.until(State.ABORTED)
        assert (await made.equipment.read("P-1.speed_setpoint")).value == 0.0
        assert await made.writes() == 2


async def test_a_failed_commit_ends_the_engine_and_acknowledges_nothing(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"journal\.failed"):  # noqa: PT012  leaving the block is what raises
        async with parts(tmp_path) as made:
            engine = next(task for task in asyncio.all_tasks() if task.get_name() == "engine")
            made.disk.broken = True
            with pytest.raises(LinesideError) as refused:
                await made.engine.submit(confirm())
            assert refused.value.code == "journal.failed"
            assert made.engine.shown.batches["B"].steps["010"].state == "active"
            with pytest.raises(LinesideError):
                await made.engine.submit(confirm())
            await asyncio.wait([engine])
            assert isinstance(engine.exception(), BaseExceptionGroup)
            assert await made.writes() <= 1, "what was intended was never sent; what makes the pump safe was, once"
            assert (await made.equipment.read("P-1.speed_setpoint")).value != 12.0
            made.disk.broken = False


async def test_a_clean_stop_waits_for_the_outcome_under_way(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        await made.pump.drop_replies(1)
        await made.engine.submit(confirm())
        assert await made.engine.stop()
        assert made.engine.line.batches["B"].intents == {}
        assert made.engine.line.running is False
        assert replace(made.engine.shown, book=made.engine.line.book) == made.engine.line


async def test_a_stop_leaves_every_row_before_it_sealed_and_a_quiet_box_makes_none(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        public = DeviceKey.load(tmp_path / "device.key").public
        await p.engine.submit(cm.CloseSession(session="S", reason="left"))
        assert await p.engine.stop()
        made = p.journal.head_seq
        p.engine._seal(SystemClock().stamp())
        assert p.journal.head_seq == made + 1, "the stop's own row may be sealed"
        p.engine._seal(SystemClock().stamp())
        assert p.journal.head_seq == made + 1, "a seal asks for no seal"
        await p.engine.submit(cm.LoadRecipe(recipe="OTHER", version="1", title="Other", seal="t"))
        with JournalReader(tmp_path / "journal.db") as reader:
            rows = reader.rows(0, 1000)
        seal = next(decode(row.body).event for row in rows if row.seq == made - 1)
        assert isinstance(seal, Sealed)
        assert isinstance(decode(rows[made - 1].body).event, RuntimeStopped)
        sealed = rows[seal.sealed_seq - 1]
        assert (seal.sealed_seq, seal.sealed_hash) == (made - 2, sealed.hash.hex())
        message = sealed_bytes(reader.journal_id, sealed.epoch, sealed.seq, sealed.hash)
        assert signature_holds(public, SEAL_DOMAIN, message, bytes.fromhex(seal.signature))


async def test_much_that_happens_is_sealed_as_it_happens(tmp_path: Path) -> None:
    async with parts(tmp_path) as p:
        first = p.journal.head_seq
        for n in range(SEAL_ROWS * 2):
            opened = cm.OpenSession(session=f"T{n}", person="ana", roles=(Role.OPERATOR,), method="m")
            p.engine._decide(opened, SystemClock().stamp())
        await p.engine.submit(cm.CloseSession(session="T0", reason="left"))
        with JournalReader(tmp_path / "journal.db") as reader:
            seals = [row.seq for row in reader.rows(0, 1000) if isinstance(decode(row.body).event, Sealed)]
        assert len(seals) == 2
        assert seals[0] <= SEAL_ROWS + 1
        assert seals[1] - seals[0] <= SEAL_ROWS + 1
        assert first < seals[0]
