"""A value that was entered wrong: the old one, the reason and the signer are kept, and nothing is overwritten."""

from __future__ import annotations

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.review import as_built, as_text
from edge.core.terms import Act, Role
from tests.core.parts import VirtualLine, recipe

STEPS = [
    {
        "id": "010",
        "phase": "record",
        "title": "Viability",
        "text": "Count.",
        "name": "viability",
        "unit": "%",
        "limit": {"low": 80},
    },
    {"id": "020", "phase": "scan", "title": "Bag", "text": "Scan it.", "name": "din", "expect": "patient"},
    {
        "id": "030",
        "phase": "calculate",
        "title": "Dead cells",
        "name": "dead",
        "formula": "100.0 - viability",
        "unit": "%",
    },
    {"id": "040", "phase": "instruct", "title": "Look", "text": "Look."},
]


def entered(text: str = "85") -> VirtualLine:
    line = VirtualLine(recipe(STEPS))
    line.start()
    line.enter("010", text)
    return line


def correct(line: VirtualLine, text: str, *, reason: str = "typing error", role: Role = Role.OPERATOR, **other: object):
    known = line.batch().values["viability"]
    facts = {"name": "viability", "was_seq": known.seq, "text": text, "reason": reason} | other
    return line.do(cm.CorrectValue(session="S", batch="B1", signed=line.signed("ben", role), **facts))


def test_the_old_value_the_reason_and_the_signer_stay_in_the_record() -> None:
    line = entered()
    was_seq = line.batch().values["viability"].seq
    signature, corrected, raised = correct(line, "95")
    assert isinstance(signature, ev.SignatureMade)
    assert isinstance(corrected, ev.ValueCorrected)
    assert (corrected.was, corrected.was_seq, corrected.value, corrected.within) == (85.0, was_seq, 95.0, True)
    assert isinstance(raised, ev.ExceptionRaised)
    assert raised.code == "value.corrected"
    assert line.batch().values["viability"].value == 95.0
    assert line.refold() == line.line
    record = as_built((seq, decode(row)) for seq, row in enumerate(line.rows, 1))["B1"]
    (datum,) = record.steps[0].data
    assert datum.value == 95.0
    assert [(c.was, c.reason, c.person) for c in datum.corrections] == [(85.0, "typing error", "ben")]
    text = as_text(record)
    assert "viability = 95.0" in text
    assert "was 85.0, corrected by ben" in text
    assert sum(b'"value":85.0' in row for row in line.rows) == 1, "the first row is as it was made"


def test_a_correction_is_corrected_again_and_each_stays() -> None:
    line = entered()
    correct(line, "95")
    correct(line, "90", reason="still wrong")
    record = as_built((seq, decode(row)) for seq, row in enumerate(line.rows, 1))["B1"]
    (datum,) = record.steps[0].data
    assert (datum.value, [c.was for c in datum.corrections]) == (90.0, [85.0, 95.0])


def test_a_corrected_value_is_judged_by_its_limit() -> None:
    line = entered()
    codes = [event.code for event in correct(line, "70") if isinstance(event, ev.ExceptionRaised)]
    assert codes == ["value.corrected", "limit.outside"]


def test_what_was_calculated_before_stays_and_what_comes_after_uses_the_right_value() -> None:
    line = entered()
    correct(line, "95")
    line.scan("020", "=DIN1")
    assert line.batch().values["dead"].value == 5.0
    correct(line, "90")
    assert line.batch().values["dead"].value == 5.0, "no row is made anew behind anybody's back"


def test_also_of_a_batch_that_is_over() -> None:
    line = entered()
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.ABORT, reason="so"))
    correct(line, "95")
    assert line.batch().values["viability"].value == 95.0


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        ({"text": "85"}, "correction.same"),
        ({"text": "95", "reason": "  "}, "correction.reason"),
        ({"text": "ninety"}, "entry.number"),
        ({"text": "95", "was_seq": 1}, "correction.changed"),
        ({"text": "95", "name": "din"}, "correction.unknown"),
        ({"text": "95", "name": "nothing"}, "correction.unknown"),
        ({"text": "95", "role": Role.VERIFIER}, "people.not_permitted"),
        ({"text": "95", "role": Role.AUDITOR}, "people.not_permitted"),
    ],
)
def test_what_is_refused(facts: dict, code: str) -> None:
    line = entered()
    line.scan("020", "=DIN1")
    before = line.line
    with pytest.raises(LinesideError) as refusal:
        correct(line, **facts)
    assert refusal.value.code == code
    assert line.line == before
