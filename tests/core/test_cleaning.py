"""Clean and dirty units: use, cleaning, the time that either lasts, power cuts, and what is refused."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core import queueing
from edge.core.checkpoint import parts, read
from edge.core.cleaning import alarms, not_clean
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import SAFE_STEP, Elapsed
from edge.core.plant import Cleaning, Plant
from edge.core.recipe import check_recipe, read_recipe
from edge.core.record import Row
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, State
from edge.views import Views
from tests.core.parts import PLANT, VirtualLine, kinds, recipe
from tests.core.test_expiry import shown
from tests.core.test_rehearse import played as rehearsal
from tests.views.test_views import chained

HOUR_S = 3_600.0
USE: dict[str, Any] = {"id": "010", "phase": "instruct", "title": "Use", "text": "Use it."}
CLEAN: dict[str, Any] = {"id": "020", "phase": "instruct", "title": "Clean", "text": "Rinse.", "cleans": ["reactor"]}
WARM: dict[str, Any] = {"id": "030", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 37.0}
WANTS_CLEAN = {"reactor": {"class": "bioreactor", "clean": True}}


def plant(**cleaning: float) -> Plant:
    kept = {"cleaning": Cleaning(**cleaning)}
    return PLANT.model_copy(
        update={"units": {name: unit.model_copy(update=kept) for name, unit in PLANT.units.items()}}
    )


class Cell(VirtualLine):
    """A line with recipes that use and clean a reactor, and one that wants a clean one."""

    def __init__(self, *steps: dict[str, Any], **cleaning: float) -> None:
        super().__init__(recipe(list(steps) or [USE]))
        made = {
            "use": self.recipe,
            "clean": recipe([CLEAN]),
            "wants": recipe([USE], units=WANTS_CLEAN),
        }
        book = replace(self.line.book, plant=plant(**cleaning), recipes=made, effective=frozenset(made))
        self.line = replace(self.line, book=book)
        for sealed in made:
            self.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal=sealed))

    def begin(self, sealed: str, batch: str = "B1", **more: Any) -> list[ev.Event]:
        return self.do(cm.StartBatch(session="S", batch=batch, order="O", seal=sealed, patient="", speed=1.0, **more))

    def confirm_of(self, batch: str, step: str) -> list[ev.Event]:
        return self.do(cm.ConfirmStep(session="S", batch=batch, step=step))

    def clean(self, batch: str) -> list[ev.Event]:
        """A batch that cleans the first reactor."""
        return [*self.begin("clean", batch), *self.confirm_of(batch, "020")]

    def refused(self, sealed: str = "wants") -> LinesideError:
        before = self.line
        with pytest.raises(LinesideError) as refused:
            self.begin(sealed, "BX")
        assert self.line == before
        return refused.value


def test_a_unit_is_dirty_until_a_step_cleans_it_and_by_use_again() -> None:
    cell = Cell()
    assert "no step of this box has cleaned it yet" in cell.refused().what
    made = cell.clean("C1")
    assert kinds(made)[:2] == ["BatchStarted", "UnitSoiled"]
    assert "UnitCleaned" in kinds(made)
    assert cell.batch("C1").state is State.COMPLETE
    assert list(not_clean(cell.line, cell.stamp())) == ["BR-2"]
    cell.begin("wants")
    assert cell.batch().units == {"reactor": "BR-1"}
    cell.confirm_of("B1", "010")
    assert cell.batch().state is State.COMPLETE
    refused = cell.refused()
    assert (refused.code, "BR-1 is dirty: used by batch B1" in refused.what) == ("unit.dirty", True)
    assert "cleans" in refused.todo
    assert cell.refold() == cell.line
    assert read(b"".join(parts(cell.line, b"\0" * 32)), cell.line.book)[0] == cell.line


def test_of_several_units_the_clean_one_is_taken() -> None:
    cell = Cell()
    cell.begin("use", "B1")
    cell.clean("C1")
    cell.confirm_of("B1", "010")
    cell.begin("wants", "B2")
    assert cell.batch("B2").units == {"reactor": "BR-2"}


def test_one_that_waits_is_told_what_it_waits_for_and_goes_on_when_it_is_clean() -> None:
    cell = Cell()
    cell.begin("wants", "B2", queue=True)
    start = cm.ActOnBatch(session="S", batch="B2", act=Act.START, reason="")
    assert "BR-1, dirty for all that is known" in str(
        queueing.turn(cell.line, cell.line.book.recipes["wants"], cell.stamp(), "B2")
    )
    with pytest.raises(LinesideError) as refused:
        cell.do(start)
    assert refused.value.code == "unit.dirty"


@pytest.mark.parametrize(("passed_s", "clean"), [(HOUR_S - 1, True), (HOUR_S, False)])
def test_it_stays_clean_for_a_time(passed_s: float, clean: bool) -> None:
    cell = Cell(clean_hold_s=HOUR_S)
    cell.clean("C1")
    cell.now_s += passed_s
    if clean:
        cell.begin("wants", "B2")
    else:
        assert "it stays so for 1 h" in cell.refused().what


def test_the_time_that_it_stays_clean_goes_on_while_the_box_is_off_and_without_a_clock_nobody_knows() -> None:
    cell = Cell(clean_hold_s=HOUR_S)
    cell.clean("C1")
    cell.now_s += 600
    cell.crash()
    cell.now_s += 600
    cell.crash("boot-2")
    assert "nobody knows for how long the box was off" in cell.refused().what
    assert cell.refold() == cell.line


def test_planted_bug_a_dark_time_that_does_not_count_leaves_a_unit_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.line._carried", lambda *_: Elapsed(0.0, 0.0))
    with pytest.raises(pytest.fail.Exception):
        test_the_time_that_it_stays_clean_goes_on_while_the_box_is_off_and_without_a_clock_nobody_knows()


def test_one_that_was_dirty_for_too_long_is_cleaned_with_an_exception_record() -> None:
    cell = Cell(dirty_hold_s=HOUR_S)
    cell.begin("use")
    cell.now_s += 10 * HOUR_S  # in use it does not count
    cell.confirm_of("B1", "010")
    assert cell.line.units["BR-1"].since.boottime_s == cell.now_s
    cell.now_s += HOUR_S
    cell.clean("C1")
    (raised,) = cell.batch("C1").exceptions
    assert raised.code == "unit.dirty_too_long"
    assert "BR-1 was dirty for 1 h" in raised.what


def told(cell: Cell) -> list[str]:
    return [watch.alarm for watch, on in alarms(cell.line, cell.stamp()) if on]


def test_it_is_told_ahead_and_when_the_time_is_over() -> None:
    cell = Cell(clean_hold_s=10 * HOUR_S, dirty_hold_s=5 * HOUR_S)
    assert told(cell) == [], "of a unit that was never used there is nothing to tell"
    cell.begin("use")
    cell.now_s += 10 * HOUR_S
    assert told(cell) == [], "in use it does not count"
    cell.confirm_of("B1", "010")
    for passed_s, said in ((4 * HOUR_S - 1, []), (1, ["dirty BR-1 soon over"]), (HOUR_S, ["dirty BR-1 over"])):
        cell.now_s += passed_s
        assert told(cell) == said
    cell.clean("C1")
    for passed_s, said in ((8 * HOUR_S - 1, []), (1, ["clean BR-1 soon over"]), (2 * HOUR_S, ["clean BR-1 over"])):
        cell.now_s += passed_s
        assert told(cell) == said
    assert (*not_clean(cell.line, cell.stamp()),) == ("BR-1", "BR-2")
    cell.begin("use", "B2")
    assert told(cell) == []


def test_after_a_dark_time_that_nobody_knows_it_is_told_at_once() -> None:
    cell = Cell(clean_hold_s=10 * HOUR_S)
    cell.clean("C1")
    cell.crash("boot-2")
    assert told(cell) == ["clean BR-1 over"]


def test_a_write_after_the_cleaning_makes_it_dirty_and_what_makes_it_safe_does_not() -> None:
    cell = Cell(CLEAN, WARM)
    cell.begin("use")
    assert kinds(cell.confirm_of("B1", "020"))[-2:] == ["UnitSoiled", "CommandIntended"]
    cell = Cell(CLEAN, USE)
    cell.begin("use")
    cell.confirm_of("B1", "020")
    cell.do(cm.ActOnBatch(session="S", batch="B1", act=Act.STOP, reason="enough"))
    assert cell.batch().intents
    cell.conclude(SAFE_STEP, "confirmed")
    assert cell.batch().state is State.STOPPED
    assert cell.line.units["BR-1"].clean


def test_a_backup_says_of_no_unit_that_it_is_clean() -> None:
    cell = Cell()
    cell.clean("C1")
    last = Row(cell.line.seq, b"e" * 16, b"h" * 32, b"{}")
    assert "UnitSoiled" in kinds(cell.do(cm.StartRuntime(version="t", continues=last)))
    assert "the journal came from a backup" in not_clean(cell.line, cell.stamp())["BR-1"]


def test_a_plant_that_keeps_no_status_is_said_and_nothing_is_counted() -> None:
    line = VirtualLine()
    assert "UnitSoiled" not in kinds(line.start())
    assert line.line.units == {}


def test_the_checker_knows_roles_and_units_that_can_be_clean() -> None:
    def found(steps: list[dict[str, Any]], units: dict[str, Any], line: Plant) -> list[str]:
        made = recipe(steps, units=units).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return [one.code for one in check_recipe(read_recipe(json.dumps(made).encode(), "r.yaml"), line)]

    role = {"reactor": {"class": "bioreactor"}}
    assert found([CLEAN], role, plant()) == []
    assert found([{**CLEAN, "cleans": ["reaktor"]}], role, plant()) == ["recipe.unknown_role"]
    assert found([CLEAN], WANTS_CLEAN, plant()) == []
    assert found([CLEAN], WANTS_CLEAN, PLANT) == ["recipe.never_clean"]


def test_the_views_say_when_a_unit_was_clean(tmp_path: Path) -> None:
    cell = Cell()
    cell.clean("C1")
    with Views(tmp_path / "views.db") as views:
        views.apply(0, chained(cell.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        said = db.execute("SELECT unit, state, batch, step FROM unit_state ORDER BY seq").fetchall()
    assert said == [("BR-1", "dirty", "C1", ""), ("BR-1", "clean", "C1", "020")]


def test_the_report_says_what_was_cleaned() -> None:
    cell = Cell()
    cell.clean("C1")
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(cell.rows, 1)), "C1")
    assert built is not None
    assert "BR-1 is dirty from here on: used by batch C1" in as_text(built)
    assert "BR-1 is clean from here on" in as_text(built)


def test_the_screen_shows_what_is_clean_and_a_rehearsal_begins_with_clean_units() -> None:
    cell = Cell(clean_hold_s=HOUR_S)
    cell.clean("C1")
    one, other = shown(cell).units
    assert (one.unit, one.why, one.left_s) == ("BR-1", "", HOUR_S)
    assert (other.left_s, "no step of this box" in other.why) == (None, True)
    assert rehearsal(recipe([USE], units=WANTS_CLEAN), plant(clean_hold_s=HOUR_S)).ok
