"""The files of the box folder are changed under a batch: the box comes back to it in any case, and says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge import runtime, wire
from edge.config import Config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.line import Line
from edge.desk_client import DeskClient, connect
from edge.library import Library
from tests.edge.conftest import CLEAN, CLEAN_PLANT, running
from tests.edge.test_desk import log_in, look, name, rows


def renamed(box: Config) -> None:
    box.plant.write_text(CLEAN_PLANT.replace("BR-1", "BR-2"))


def of_another_class(box: Config) -> None:
    """No recipe of the folder fits it."""
    box.plant.write_text(CLEAN_PLANT.replace("bioreactor", "mixer"))


def unreadable(box: Config) -> None:
    box.plant.write_text(CLEAN_PLANT + "  BR-2: {class: [")


def gone(box: Config) -> None:
    box.plant.unlink()


def recipe_half_saved(box: Config) -> None:
    path = box.recipes / "clean.yaml"
    path.write_text(path.read_text()[:150])


CHANGES = (renamed, of_another_class, unreadable, gone, recipe_half_saved)
STARTS_AFTER = {renamed}
"""After the others there is nothing that the box could go by, once no batch is live."""


async def begin(client: DeskClient, batch: str, *, queue: bool = False) -> None:
    (recipe,) = (await look(client)).recipes
    await client.ask(wire.StartBatch(id=name(), batch=batch, order="O", recipe=recipe.seal, queue=queue))


async def begun(cell: Config) -> None:
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        await begin(client, "B-1")
        await client.ask(wire.ConfirmStep(id=name(), batch="B-1", step="010"))


async def ended(cell: Config) -> tuple[str, ...]:
    """The batch goes on to its end; what the box says meanwhile."""
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        said = (await look(client)).notices
        await client.ask(wire.ConfirmStep(id=name(), batch="B-1", step="020"))
    return said


@pytest.mark.parametrize("change", CHANGES)
async def test_a_batch_goes_on_with_what_it_was_started_on(cell: Config, change: Callable[[Config], None]) -> None:
    await begun(cell)
    change(cell)
    said = await ended(cell)
    assert any("goes on with" in one for one in said), said
    cleaned = [row.event for row in rows(cell) if isinstance(row.event, ev.UnitCleaned)]
    assert [one.unit for one in cleaned] == ["BR-1"]
    loaded = [row for row in rows(cell) if isinstance(row.event, ev.PlantLoaded)]
    assert len(loaded) == 1
    if change not in STARTS_AFTER:
        with pytest.raises(LinesideError):
            await ended(cell)
        return
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        picture = await look(client)
        assert [unit.unit for unit in picture.units] == ["BR-2"]
        assert not any("goes on with" in one for one in picture.notices)


async def test_a_batch_that_waits_keeps_the_plant_that_it_waits_on(cell: Config) -> None:
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        await begin(client, "B-1")
        await begin(client, "B-2", queue=True)
        await client.ask(wire.ConfirmStep(id=name(), batch="B-1", step="010"))
    renamed(cell)
    await ended(cell)
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        waiting = wire.ActOnBatch(id=name(), batch="B-2", act="start", reason="its turn")
        await client.ask(waiting)
    started = [row.event for row in rows(cell) if isinstance(row.event, ev.BatchStarted)]
    assert [one.units for one in started] == [{"reactor": "BR-1"}] * 2


async def test_no_recipe_begins_on_a_plant_that_it_was_not_checked_on(cell: Config) -> None:
    await begun(cell)
    cell.plant.write_text(CLEAN_PLANT + "  M-1: {class: mixer}\n")
    mixing = CLEAN.replace("CLEAN", "MIX").replace("class: bioreactor", "class: mixer")
    (cell.recipes / "mix.yaml").write_text(mixing)
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        picture = await look(client)
        assert [one.recipe for one in picture.recipes] == ["CLEAN"]
        assert any(one.startswith("mix.yaml cannot be started: ") for one in picture.notices)


async def test_planted_bug_a_changed_plant_under_the_batch_is_seen(
    cell: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begun(cell)
    renamed(cell)

    def as_offered(_: Config, offered: runtime.Reference, line: Line, library: Library) -> runtime.Reference:
        return replace(offered, plant_data=library.plant_data(line.plant_content))

    monkeypatch.setattr(runtime, "_in_force", as_offered)
    with pytest.raises(LinesideError) as lost:
        await ended(cell)
    assert lost.value.code == "desk.lost", "the decision looked for a unit that is not there"


async def test_a_new_box_with_a_file_that_cannot_be_used_begins_nothing(cell: Config) -> None:
    of_another_class(cell)
    with pytest.raises(LinesideError) as refusal:
        await begun(cell)
    assert refusal.value.code.startswith("recipe.")
    assert not Path(cell.state_dir / "journal.db").exists()
