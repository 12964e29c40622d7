"""Clean and dirty units: use, cleaning, the time that either lasts, power cuts, and what is refused."""

from __future__ import annotations

import json
import re
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
from edge.core.line import NO_TIME, SAFE_STEP, Elapsed
from edge.core.plant import Cleaning, Plant
from edge.core.recipe import check_recipe, read_recipe
from edge.core.recipe.amend import Change
from edge.core.record import Row
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, Role, State
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
MAY_BE_DIRTY = {"dirty": ["reactor"], "signed_by": ["quality"], "category": "critical"}


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
            "signed": recipe([USE], units=WANTS_CLEAN, amendments=MAY_BE_DIRTY),
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


def test_who_waits_for_a_clean_unit_does_not_keep_it_from_who_cleans_it() -> None:
    cell = Cell()
    cell.begin("use", "B1")
    cell.begin("use", "B3")
    cell.confirm_of("B1", "010")
    cell.begin("wants", "B2", queue=True)
    cell.clean("C1")
    cell.do(START)
    assert cell.batch("B2").units == {"reactor": "BR-1"}


def test_planted_bug_a_dirty_unit_that_is_kept_for_whom_it_must_be_clean_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queueing, "not_clean", lambda *_: {})
    with pytest.raises(LinesideError, match=r"unit\.occupied"):
        test_who_waits_for_a_clean_unit_does_not_keep_it_from_who_cleans_it()


START = cm.ActOnBatch(session="S", batch="B2", act=Act.START, reason="")


def waits_for_a_clean_one(sealed: str = "signed") -> Cell:
    """B2 waits for a clean reactor; both are dirty, BR-1 by B1."""
    cell = Cell(clean_hold_s=HOUR_S)
    cell.begin("use", "B1")
    cell.confirm_of("B1", "010")
    cell.begin(sealed, "B2", queue=True)
    return cell


def ask(cell: Cell, unit: str = "BR-1", **facts: Any) -> list[ev.Event]:
    given = {"batch": "B2", "reason": "rinsed by hand", "signed": cell.signed("ana", Role.OPERATOR), **facts}
    changes = (Change("dirty", "reactor", new=unit),)
    return cell.do(cm.RequestAmendment(session="S", changes=changes, adopts="", from_step="", **given))


def agree(cell: Cell, person: str = "quinn", role: Role = Role.QUALITY) -> list[ev.Event]:
    signed = cell.signed(person, role)
    return cell.do(cm.SettleAmendment(session="S", batch="B2", amendment="A1", agree=True, reason="", signed=signed))


def test_two_people_sign_that_a_dirty_unit_is_used_and_the_record_says_so() -> None:
    cell = waits_for_a_clean_one()
    ask(cell)
    with pytest.raises(LinesideError, match=r"unit\.dirty"):
        cell.do(START)
    with pytest.raises(LinesideError, match=r"signature\.same_person"):
        agree(cell, "ana")
    agree(cell)
    cell.do(START)
    batch = cell.batch("B2")
    assert (batch.state, batch.units) == (State.RUNNING, {"reactor": "BR-1"})
    made, used = batch.exceptions
    assert (made.code, used.code, used.category) == ("recipe.amended", "unit.used_dirty", "critical")
    assert [made.exception, used.exception] == sorted({made.exception, used.exception}), "each has an id of its own"
    assert "BR-1 is used although it is dirty: used by batch B1" in used.what
    cell.confirm_of("B2", "010")
    assert cell.batch("B2").state is State.COMPLETE
    assert cell.refold() == cell.line
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(cell.rows, 1)), "B2")
    assert built is not None
    for said in ("BR-1 is taken although it is dirty: used by batch B1", "requested by ana", "quinn as quality"):
        assert said in as_text(built)
    cell.begin("signed", "B3", queue=True)
    with pytest.raises(LinesideError, match=r"unit\.dirty"):
        cell.do(replace(START, batch="B3"))


@pytest.mark.parametrize(
    ("sealed", "unit", "code"),
    [
        ("wants", "BR-1", "amendment.not_offered"),
        ("use", "BR-1", "amendment.not_offered"),
        ("signed", "BR-9", "amendment.same"),
        ("signed", "P-1", "amendment.same"),
    ],
)
def test_a_dirty_unit_is_not_allowed(sealed: str, unit: str, code: str) -> None:
    cell = waits_for_a_clean_one(sealed)
    with pytest.raises(LinesideError, match=re.escape(code)):
        ask(cell, unit)


def test_of_a_batch_under_way_it_is_too_late_and_of_one_that_waits_nothing_else_is_amended() -> None:
    cell = waits_for_a_clean_one()
    with pytest.raises(LinesideError, match=r"amendment\.state"):
        ask(cell, batch="B1")
    with pytest.raises(LinesideError, match=r"amendment\.state"):
        cell.do(
            cm.RequestAmendment(
                session="S", batch="B2", changes=(Change("skip", "010"),), adopts="", from_step="",
                reason="r", signed=cell.signed("ana", Role.OPERATOR),
            )
        )  # fmt: skip


def test_what_was_signed_does_not_cover_another_use_and_is_not_needed_of_a_clean_one() -> None:
    cell = waits_for_a_clean_one()
    cell.clean("C1")
    cell.crash("boot-2")  # of unknown length: BR-1 may not be clean any more
    ask(cell)
    agree(cell)
    soiled = cell.line
    cell.line = replace(soiled, units={**soiled.units, "BR-1": replace(soiled.units["BR-1"], before_boot=NO_TIME)})
    cell.do(START)
    assert [one.code for one in cell.batch("B2").exceptions] == ["recipe.amended"]
    cell.line = soiled
    known = replace(soiled.units["BR-1"], clean=False, why="used by batch B7")
    cell.line = replace(soiled, units={**soiled.units, "BR-1": known})
    with pytest.raises(LinesideError, match=r"unit\.dirty_since"):
        cell.do(START)


def test_planted_bug_an_amendment_that_covers_whatever_happens_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.core.cleaning.allowed_dirty", lambda *_: [])
    with pytest.raises(pytest.fail.Exception):
        test_what_was_signed_does_not_cover_another_use_and_is_not_needed_of_a_clean_one()
    with pytest.raises(ValueError, match="unpack"):  # no exception record of its own
        test_two_people_sign_that_a_dirty_unit_is_used_and_the_record_says_so()


def test_the_screen_offers_the_dirty_units_of_a_batch_that_waits() -> None:
    cell = waits_for_a_clean_one()
    (card,) = [one for one in shown(cell).batches if one.batch == "B2"]
    assert "BR-1, dirty: used by batch B1" in card.waits
    assert [(one.kind, one.subject, one.field) for one in card.offers] == [
        ("dirty", "reactor", "BR-1"), ("dirty", "reactor", "BR-2"),
    ]  # fmt: skip
    assert card.offers[0].value == "dirty: used by batch B1"
    ask(cell)
    agree(cell)
    (card,) = [one for one in shown(cell).batches if one.batch == "B2"]
    assert (card.waits, card.offers) == ("", ())


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
    def found(steps: list[dict[str, Any]], units: dict[str, Any], line: Plant, **more: Any) -> list[str]:
        made = recipe(steps, units=units, **more).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return [one.code for one in check_recipe(read_recipe(json.dumps(made).encode(), "r.yaml"), line)]

    role = {"reactor": {"class": "bioreactor"}}
    assert found([CLEAN], role, plant()) == []
    assert found([{**CLEAN, "cleans": ["reaktor"]}], role, plant()) == ["recipe.unknown_role"]
    assert found([CLEAN], WANTS_CLEAN, plant()) == []
    assert found([CLEAN], WANTS_CLEAN, PLANT) == ["recipe.never_clean"]
    assert found([CLEAN], WANTS_CLEAN, plant(), amendments=MAY_BE_DIRTY) == []
    assert found([CLEAN], role, plant(), amendments=MAY_BE_DIRTY) == ["amendment.dirty"]


def test_the_views_say_when_a_unit_was_clean(tmp_path: Path) -> None:
    cell = Cell()
    cell.clean("C1")
    with Views(tmp_path / "views.db") as views:
        views.apply(0, chained(cell.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        said = db.execute("SELECT unit, state, batch, step FROM unit_state ORDER BY seq").fetchall()
    assert said == [("BR-1", "dirty", "C1", ""), ("BR-1", "clean", "C1", "020")]


def test_the_views_count_what_was_decided_while_a_batch_waited(tmp_path: Path) -> None:
    cell = waits_for_a_clean_one()
    ask(cell)
    agree(cell)
    cell.do(START)
    with Views(tmp_path / "views.db") as views:
        views.apply(0, chained(cell.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        assert db.execute("SELECT state, exceptions FROM batch WHERE batch='B2'").fetchone() == ("running", 2)
        assert db.execute("SELECT count(*) FROM exception WHERE batch='B2'").fetchone() == (2,)


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
