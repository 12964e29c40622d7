"""Training batches never become a product's record, and never write where the plant does not let them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.guard import may_write
from edge.core.line import Line, effects
from edge.core.plant import Plant, Tag
from edge.core.review import NOT_A_RECORD, as_built, as_text
from edge.core.terms import Act
from tests.core.parts import PLANT, VirtualLine, kinds, recipe


def training_plant(**units: str) -> Plant:
    """The plant of the tests, with what its units are for."""
    made = {name: unit.model_copy(update={"training": units.get(name, "never")}) for name, unit in PLANT.units.items()}
    return PLANT.model_copy(update={"units": made})


def on(line: VirtualLine, **units: str) -> VirtualLine:
    line.line = replace(line.line, book=replace(line.line.book, plant=training_plant(**units)))
    return line


def ask(**more: Any) -> cm.StartBatch:
    given = {"batch": "", "order": "", "seal": "seal", "patient": "", "speed": 1.0, "training": True}
    return cm.StartBatch(session="S", **{**given, **more})  # type: ignore[arg-type]


def code(act: Callable[[], object]) -> str:
    with pytest.raises(LinesideError) as refused:
        act()
    return refused.value.code


def test_its_rows_say_so_and_the_box_numbers_it() -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    begun = line.do(ask())[0]
    assert isinstance(begun, ev.BatchStarted)
    assert (begun.batch, begun.training, begun.patient, begun.order) == ("TRAINING-0001", True, "TRAINING", "TRAINING")
    assert begun.units == {"reactor": "BR-2"}
    line.do(cm.ActOnBatch(session="S", batch="TRAINING-0001", act=Act.ABORT, reason=""))
    again = line.do(ask(order="COURSE-7", queue=True))[0]
    assert isinstance(again, ev.BatchQueued)
    assert (again.batch, again.training, again.order) == ("TRAINING-0002", True, "COURSE-7")
    assert line.refold() == line.line


def test_a_row_of_before_is_of_no_training() -> None:
    line = VirtualLine()
    line.start()
    row = next(row for row in line.rows if b'"BatchStarted"' in row)
    old = row.replace(b',"training":false', b"")
    assert old != row
    assert ev.decode(old) == ev.decode(row)


def test_equipment_is_for_product_unless_the_plant_says_otherwise() -> None:
    line = VirtualLine()
    assert code(lambda: line.do(ask())) == "training.unit"
    assert code(lambda: line.do(ask(queue=True))) == "training.unit"
    on(line, **{"BR-1": "allowed", "BR-2": "only"})
    line.start("B1")
    assert line.batch("B1").units == {"reactor": "BR-1"}
    assert code(lambda: line.start("B2")) == "unit.occupied", "a product's batch took a unit that is for training only"
    line.do(ask())
    assert line.batch("TRAINING-0001").units == {"reactor": "BR-2"}


def test_what_is_of_no_training_cannot_be_called_so_and_a_number_or_patient_is_refused() -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    for name in ("TRAINING-0001", "training-7", " TRAINING "):
        assert code(lambda given=name: line.start(given)) == "batch.training_number"  # type: ignore[misc]
    assert code(lambda: line.do(ask(order="TRAINING-1", training=False, batch="B"))) == "batch.training_number"
    assert code(lambda: line.do(ask(patient="=DIN1"))) == "training.patient"
    assert code(lambda: line.do(ask(batch="B1"))) == "training.number"


def test_no_patient_is_scanned_in_training_and_nothing_of_training_elsewhere() -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    line.do(ask())
    line.start("B1")
    for batch in ("TRAINING-0001", "B1"):
        line.do(cm.ConfirmStep(session="S", batch=batch, step="010"))
    wrong = line.do(cm.ScanCode(session="S", batch="TRAINING-0001", step="020", text="=DIN1"))
    assert kinds(wrong)[0] == "ScanRefused"
    right = line.do(cm.ScanCode(session="S", batch="TRAINING-0001", step="020", text="TRAINING"))
    assert kinds(right)[0] == "ValueRecorded"
    for text in ("TRAINING", "TRAINING-0001", "training-0001/1"):
        (refusal, *_) = line.do(cm.ScanCode(session="S", batch="B1", step="020", text=text))
        assert isinstance(refusal, ev.ScanRefused)
        assert "training batch" in refusal.why


def test_every_label_of_it_says_so() -> None:
    label = {
        "id": "010", "phase": "label", "title": "Label", "text": "Print.", "name": "bag", "copies": 1,
        "content": {"Batch": "batch", "Product": "title"}, "role": "operator",
    }  # fmt: skip
    line = on(VirtualLine(recipe([label])), **{"BR-2": "only"})
    line.do(ask())
    made = line.do(cm.EnterValue(session="S", batch="TRAINING-0001", step="010", text="1"))
    printed = next(event for event in made if isinstance(event, ev.LabelsPrinted))
    assert next(iter(printed.content.items())) == ("TRAINING", "Not for use")
    line.start("B1")
    made = line.do(cm.EnterValue(session="S", batch="B1", step="010", text="1"))
    assert "TRAINING" not in str(next(event for event in made if isinstance(event, ev.LabelsPrinted)).content)


def test_a_printer_of_training_prints_what_it_is() -> None:
    label = {
        "id": "010", "phase": "label", "title": "Label", "text": "Print.", "name": "bag", "copies": 1,
        "content": {"Product": "title"}, "code": "title", "role": "operator", "printer": "reactor.label",
    }  # fmt: skip
    own = {**label, "template": "^XA^FO1,1^FD{Product}^FS^BCN,90,Y,N,N^FD{code}^FS^XZ"}
    for step in (label, own):
        line = on(VirtualLine(recipe([step])), **{"BR-2": "only"})
        unit = line.line.book.plant.units["BR-2"]
        tag = {"connection": "plc", "address": "l", "type": "text", "access": "write"}
        tags = {**unit.tags, "label": Tag.model_validate(tag)}
        plant = line.line.book.plant
        plant = plant.model_copy(update={"units": {**plant.units, "BR-2": unit.model_copy(update={"tags": tags})}})
        line.line = replace(line.line, book=replace(line.line.book, plant=plant))
        line.do(ask())
        (write,) = effects(line.line).writes
        assert "TRAINING: Not for use" in str(write.value)
        assert "TRAINING-A recipe" in str(write.value)


def check_writes(line: Line) -> None:
    """No write is to be under way that a training batch makes to equipment that is not for it."""
    for write in effects(line).writes:
        unit = line.book.plant.units[write.tag.partition(".")[0]]
        assert unit.serves(training=line.batches[write.batch].training), f"{write.batch} would write {write.tag}"
        assert write.training is line.batches[write.batch].training


def warmed(line: VirtualLine) -> None:
    line.do(ask())
    line.do(cm.ConfirmStep(session="S", batch="TRAINING-0001", step="010"))
    line.do(cm.ScanCode(session="S", batch="TRAINING-0001", step="020", text="TRAINING"))


def test_its_writes_go_to_units_for_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    warmed(line)
    assert [write.tag for write in effects(line.line).writes] == ["BR-2.setpoint"]
    check_writes(line.line)
    planted = VirtualLine()  # any unit is taken, and the decider does not look at what a unit is for
    monkeypatch.setattr("edge.core.plant.Unit.serves", lambda *_, **__: True)
    warmed(planted)
    monkeypatch.undo()
    with pytest.raises(AssertionError, match=r"would write BR-1\.setpoint"):
        check_writes(planted.line)


def test_the_guard_knows_what_a_unit_is_for() -> None:
    plant = training_plant(**{"BR-1": "never", "BR-2": "only"})
    may_write(plant, "BR-1.setpoint", 20.0)
    may_write(plant, "BR-2.setpoint", 20.0, training=True)
    assert code(lambda: may_write(plant, "BR-1.setpoint", 20.0, training=True)) == "guard.training"
    assert code(lambda: may_write(plant, "BR-2.setpoint", 20.0)) == "guard.training"


def test_its_record_begins_with_what_it_is() -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    line.do(ask())
    line.start("B1")
    records = as_built((seq, ev.decode(row)) for seq, row in enumerate(line.rows, 1))
    assert {name: record.training for name, record in records.items()} == {"TRAINING-0001": True, "B1": False}
    assert as_text(records["TRAINING-0001"]).startswith(NOT_A_RECORD)
    assert NOT_A_RECORD not in as_text(records["B1"])
