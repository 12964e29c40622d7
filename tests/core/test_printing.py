"""Labels that a printer prints: once, in doubt after a crash, again only with a signature, and all of them counted."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.line import effects
from edge.core.plant import Plant, Unit
from edge.core.recipe import check_recipe, read_recipe
from edge.core.rehearse import as_text
from edge.core.terms import Role, State
from edge.core.zpl import label, layout, problem
from tests.core.parts import PLANT, VirtualLine, kinds, recipe
from tests.core.test_forms import ask, record, refused, sign
from tests.core.test_rehearse import PLANT as CELL
from tests.core.test_rehearse import played
from tests.core.test_rehearse import recipe as cell_recipe

TAG = "PR-1.label"
PRINTER: dict[str, Any] = {
    "class": "printer",
    "tags": {"label": {"connection": "plc", "address": "label", "type": "text", "access": "write"}},
}
WITH_PRINTER = Plant.model_validate(
    {
        "plant": "TEST",
        "connections": {"plc": {"driver": "sim"}},
        "units": {**PLANT.model_dump(mode="json", by_alias=True)["units"], "PR-1": PRINTER},
    }
)
LABEL = {"id": "10", "title": "Label the bag", "phase": "label", "text": "Label it.", "name": "labels",
         "content": {"Batch": "batch", "Recipe": "recipe"}, "copies": 2, "printer": "printer.label", "code": "batch",
         "reconcile": True}  # fmt: skip
UNITS = {"reactor": {"class": "bioreactor"}, "printer": {"class": "printer"}}


@pytest.fixture(autouse=True)
def _with_printer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.core.parts.PLANT", WITH_PRINTER)


def printing(**more: Any) -> VirtualLine:
    line = VirtualLine(recipe=recipe([{**LABEL, **more}], units=UNITS))
    line.start()
    return line


def conclude(line: VirtualLine, outcome: Any, attempt: int = 1) -> list[ev.Event]:
    return line.conclude("10", outcome, attempt, TAG)


def intended(line: VirtualLine) -> list[int]:
    """The attempts that a printer may be told of."""
    return [one.attempt for one in effects(line.line).writes if one.tag == TAG]


def test_labels_are_printed_once_looked_at_scanned_and_reconciled() -> None:
    line = printing()
    (write,) = effects(line.line).writes
    assert "^FDBatch: B1^FS" in str(write.value)
    assert str(write.value).endswith("^PQ2,0,1,Y^XZ")
    assert re.fullmatch("[0-9a-f]{16}", str(write.shown_by[0])), "what the tag reads says nothing of the batch"
    assert kinds(conclude(line, "confirmed")) == ["CommandConfirmed", "ValueRecorded", "LabelsPrinted"]
    assert effects(line.line).writes == ()
    line.enter("10", "all are good")
    assert kinds(line.scan("10", "B2")) == ["ScanRefused", "ExceptionRaised"]
    line.scan("10", "B1")
    line.enter("10", "1")
    line.enter("10", "1")
    assert line.batch().state is State.COMPLETE
    assert [x.code for x in line.batch().exceptions] == ["scan.refused"]
    assert f"2 labels printed by {TAG} with Batch: B1" in record(line)


def test_after_a_crash_nobody_knows_and_nothing_is_printed_before_somebody_signs() -> None:
    line = printing()
    line.crash("boot-2")
    assert line.batch().state is State.HOLDING or line.batch().state is State.HELD
    assert intended(line) == [], "planted bug: printed again after a crash"
    line.answer("10.1", "again")
    assert ask(line, "10").part == "labels.count 1", "what came out of it counts"
    assert intended(line) == []
    line.enter("10", "1")
    assert intended(line) == [2]
    conclude(line, "confirmed", 2)
    line.enter("10", "all are good")
    line.scan("10", "B1")
    line.enter("10", "2")
    line.enter("10", "1")
    assert line.batch().values["labels"].value == 0.0, "three came out: two used, one destroyed"


def test_labels_of_an_attempt_in_doubt_that_are_there_are_counted_and_none_is_printed() -> None:
    line = printing()
    conclude(line, "unknown")
    line.answer("10.1", "happened")
    line.enter("10", "2")
    assert intended(line) == []
    line.enter("10", "all are good")
    line.scan("10", "B1")
    line.enter("10", "1")
    line.enter("10", "0")
    assert line.batch().values["labels"].value == 1.0, "one is missing"
    assert [x.code for x in line.batch().exceptions] == ["command.unknown", "limit.outside"]


def test_a_refused_attempt_is_tried_again_when_somebody_signs_it() -> None:
    line = printing()
    made = conclude(line, "refused")
    assert "Printing 2 labels at PR-1.label was refused" in next(
        x.what for x in made if isinstance(x, ev.ExceptionRaised)
    )
    assert intended(line) == []
    line.answer("10.1", "again")
    assert intended(line) == [2]


def test_a_reprint_is_signed_with_a_reason_and_counted() -> None:
    line = printing()
    conclude(line, "confirmed")
    line.enter("10", "print again")
    line.enter("10", "One tore.")
    assert intended(line) == []
    early = cm.SignStep(session="S", batch="B1", step="10", signed=line.signed("ben", Role.AUDITOR))
    assert refused(line, early) == "signature.role"
    sign(line, "10", "ana", Role.OPERATOR)
    assert intended(line) == [2]
    conclude(line, "confirmed", 2)
    line.enter("10", "print again")
    line.enter("10", "The code is smeared.")
    sign(line, "10", "ana", Role.OPERATOR)
    conclude(line, "confirmed", 3)
    line.enter("10", "all are good")
    line.scan("10", "B1")
    line.enter("10", "2")
    line.enter("10", "4")
    assert line.batch().values["labels"].value == 0.0
    text = record(line)
    assert "One tore." in text
    assert "The code is smeared." in text


# Templates ------------------------------------------------------------------------------------------------------------

TEMPLATE = "^XA^FO20,20^A0N,30,30^FDB {Batch}^FS^FO20,60^BQN,2,5^FDQA,{code}^FS^XZ"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("^XA~JA^FD{code}^FS^XZ", "not one label"),
        ("^XA^FD{code}^FS^XZ^XA^XZ", "uses ^XZ"),
        ("^XA^JUS^FD{code}^FS^XZ", "uses ^JU"),
        ("^XA^PQ9^FD{code}^FS^XZ", "uses ^PQ"),
        ("^XA^FO{code}^FS^XZ", "outside"),
        ("^XA^FD{lot}{code}^FS^XZ", "has the field 'lot'"),
        ("^XA^FD{Batch}^FS^XZ", "does not print the code"),
        ("^XA^BXN,6,200^FD{code}^FS^XZ", "data matrix"),
        ("^XA^FD{code}^FS" + " " * 2000 + "^XZ", "too long"),
    ],
)
def test_a_template_that_could_do_more_than_print_one_label_is_refused(template: str, why: str) -> None:
    found = problem(template, ["Batch"])
    assert found is not None
    assert why in found[0]


def test_templates_that_print() -> None:
    assert problem(TEMPLATE, ["Batch"]) is None
    assert problem(layout(["Batch", "Größe"]), ["Batch", "Größe"]) is None
    assert problem(layout(["Bat^JUS"]), ["Bat^JUS"]) is not None


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_value_becomes_a_command(value: str, other: str) -> None:
    """Whatever a batch is called: caret, tilde, control characters, an end of a field."""
    made = label(TEMPLATE, {"Batch": value + "^FS^JUS~JA" + other}, "B1", 1)
    plain = label(TEMPLATE, {"Batch": "x"}, "B1", 1)
    assert [part[:2] for part in made.split("^")] == [part[:2] for part in plain.split("^")]
    assert "~" not in made
    assert made.isprintable()
    assert made.isascii()


def test_planted_bug_a_value_put_in_as_it_is_would_be_a_command() -> None:
    raw = TEMPLATE.replace("{Batch}", "^FS^JUS")
    assert [part[:2] for part in raw.split("^")] != [part[:2] for part in TEMPLATE.split("^")]


def test_what_a_recipe_says_wrongly_of_a_printer_is_told() -> None:
    def codes(**more: Any) -> set[str]:
        step = {key: value for key, value in {**LABEL, **more}.items() if value is not None}
        document = read_recipe(recipe([step], units=UNITS).model_dump_json(by_alias=True).encode(), "r.yaml")
        return {one.code for one in check_recipe(document, WITH_PRINTER)}

    assert codes() == set()
    assert codes(code=None) == {"recipe.label_printed"}
    assert codes(copies=501) == {"recipe.label_printed"}
    assert codes(template="^XA^XZ") == {"recipe.label_template"}
    assert codes(printer=None) == {"recipe.label_unprinted"}
    assert codes(printer="reactor.setpoint") == {"recipe.printer"}
    assert codes(printer="printer.none") == {"recipe.unbound_tag"}
    assert codes(code="colour") == {"recipe.label_fact"}


def test_a_rehearsal_prints_with_every_outcome_and_prints_again() -> None:
    units = {**CELL.units, "PR-1": Unit.model_validate(PRINTER)}
    plant = CELL.model_copy(update={"units": units})
    report = played(cell_recipe(LABEL, units={"printer": {"class": "printer"}}), plant)
    assert report.ok, as_text(report)
    assert "4 labels printed" in as_text(report), "they were printed again"
