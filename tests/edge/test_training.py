"""A training batch with real equipment behind the engine: the device's own counter is the judge."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge import wire
from edge.config import Config
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import decode
from edge.core.terms import Act, State
from edge.desk_client import connect
from edge.journal import JournalReader
from tests.edge.conftest import running
from tests.edge.test_desk import log_in, look, name, refused, rows
from tests.edge.test_engine import Parts, parts


async def until(made: Parts, step: str, state: str) -> None:
    while made.engine.shown.batches["TRAINING-0001"].steps[step].state != state:
        made.engine.changed.clear()
        async with asyncio.timeout(60):
            await made.engine.changed.wait()


async def questions(made: Parts) -> str:
    """Wait until the box asks what to do about the write that was refused; why it was."""
    while not (asked := made.engine.shown.batches["TRAINING-0001"].questions):
        made.engine.changed.clear()
        async with asyncio.timeout(60):
            await made.engine.changed.wait()
    return next(iter(asked.values())).why


async def test_with_every_check_before_it_gone_the_port_still_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: the queue gives a training batch the pump of the line, and neither decider nor guard of the core looks.
    Its set-point and what would make the pump safe both end at the port."""
    async with parts(tmp_path) as made:
        await made.engine.submit(cm.ActOnBatch(session="S", batch="B", act=Act.STOP, reason="makes room"))
        await made.until(State.STOPPED)
        before = await made.writes()
        monkeypatch.setattr("edge.core.queueing.usable", lambda *_, **__: {"pump": ["P-1"]})
        monkeypatch.setattr("edge.core.decide.may_write", lambda *_, **__: None)
        await made.engine.submit(
            cm.StartBatch(session="S", batch="", order="", seal="s", patient="", speed=1.0, training=True)
        )
        await made.engine.submit(cm.ConfirmStep(session="S", batch="TRAINING-0001", step="010"))
        assert "not for training" in await questions(made)
        await made.engine.submit(cm.ActOnBatch(session="S", batch="TRAINING-0001", act=Act.ABORT, reason="enough"))
        assert await made.writes() == before


async def test_where_the_plant_allows_it_a_training_batch_writes(tmp_path: Path) -> None:
    async with parts(tmp_path) as made:
        pump = made.engine.line.book.plant.units["P-1"]
        object.__setattr__(pump, "training", "allowed")  # the plant of this test alone
        await made.engine.submit(cm.ActOnBatch(session="S", batch="B", act=Act.STOP, reason="makes room"))
        await made.until(State.STOPPED)
        before = await made.writes()
        await made.engine.submit(
            cm.StartBatch(session="S", batch="", order="", seal="s", patient="", speed=1.0, training=True)
        )
        await made.engine.submit(cm.ConfirmStep(session="S", batch="TRAINING-0001", step="010"))
        await until(made, "020", "done")
        assert await made.writes() == before + 1


async def test_at_the_desk_it_is_numbered_and_nothing_of_a_patient_is_kept(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        (recipe,) = (await look(client)).recipes
        assert recipe.trainable
        asked = wire.StartBatch(id=name(), batch="", order="", recipe=recipe.seal, training=True)
        wrong = await refused(client, asked.model_copy(update={"id": name(), "patient": "=DIN-NOBODY-1"}))
        assert wrong.code == "training.patient"
        assert (await client.ask(asked))["batch"] == "TRAINING-0001"
        await client.ask(wire.ConfirmStep(id=name(), batch="TRAINING-0001", step="010"))
        scan = wire.ScanCode(id=name(), batch="TRAINING-0001", step="020", text="=DIN-NOBODY-2")
        assert (await refused(client, scan)).code == "scan.refused"
        await client.ask(scan.model_copy(update={"id": name(), "text": "TRAINING"}))
        (card,) = (await look(client)).batches
        assert card.training
        assert card.active[0].step == "030"
    (started,) = [row.event for row in rows(box) if isinstance(row.event, ev.BatchStarted)]
    assert started.training
    kept = b"".join(path.read_bytes() for path in box.state_dir.iterdir() if path.is_file())
    assert b"DIN-NOBODY" not in kept
    with JournalReader(box.state_dir / "journal.db") as reader:
        assert not any(b"DIN-NOBODY" in row.body for row in reader.rows(0, 10_000))
        assert any(decode(row.body).event.batch == "TRAINING-0001" for row in reader.rows(0, 10_000))
