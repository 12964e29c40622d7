"""The as-built record: from rows alone, byte for byte, with everything that went wrong in it."""

from __future__ import annotations

import json

from edge.core import commands as cm
from edge.core.events import decode
from edge.core.review import AsBuilt, as_built, as_text, for_review
from edge.core.terms import Act, Role
from tests.core.parts import VirtualLine


def record(line: VirtualLine) -> AsBuilt:
    return as_built((seq, decode(data)) for seq, data in enumerate(line.rows, 1))["B1"]


def eventful() -> VirtualLine:
    """A batch with a refused scan, an unknown write done again, a crash and a value out of its limit."""
    line = VirtualLine()
    line.start()
    line.confirm("010")
    line.scan("020", "=DIN2")
    line.scan("020", "=DIN1")
    line.conclude("030", "unknown")
    line.answer("030.1", "again")
    line.conclude("030", "confirmed", attempt=2)
    line.to_step("051")
    line.crash()
    line.two_hours()
    line.enter("060", "75")
    for person, role in (("ana", Role.OPERATOR), ("ben", Role.VERIFIER)):
        line.do(cm.SignStep(session="S", batch="B1", step="070", signed=line.signed(person, role)))
    return line


def test_the_record_is_the_same_bytes_whenever_it_is_rebuilt() -> None:
    line = eventful()
    assert json.dumps(record(line).as_json()) == json.dumps(record(line).as_json())
    other = eventful()
    assert json.dumps(record(line).as_json()) == json.dumps(record(other).as_json())


def test_everything_that_happened_stands_in_it() -> None:
    built = record(eventful())
    assert built.state == "complete"
    assert [step.step for step in built.steps] == ["010", "020", "030", "040", "050", "051", "052", "060", "070"]
    by_id = {step.step: step for step in built.steps}
    assert by_id["010"].person == "ana"
    assert len(by_id["020"].refused_scans) == 1
    first, second = by_id["030"].written
    assert (first.outcome, first.answer, second.outcome, second.attempt) == ("unknown", "again", "confirmed", 2)
    assert [x.code for x in built.exceptions] == ["scan.refused", "command.unknown", "limit.outside"]
    assert by_id["060"].data[0].within is False
    assert [(s.person, s.role) for s in by_id["070"].signatures] == [("ana", "operator"), ("ben", "verifier")]
    assert len(built.dark) == 1
    text = as_text(built)
    for part in (
        "OUT OF LIMIT",
        "refused scan",
        "answered 'again'",
        "signed by ben as verifier",
        "no runtime was there",
    ):
        assert part in text


def test_what_a_fault_adds_is_not_in_the_outline_but_what_was_done_is() -> None:
    calm, cut = VirtualLine(), VirtualLine()
    for line in (calm, cut):
        line.start()
        line.to_step("030")
    calm.conclude("030", "confirmed")
    cut.crash()
    cut.answer("030.1", "happened")
    for line in (calm, cut):
        line.to_step("060")
        line.enter("060", "91")
    assert record(calm).outline() == record(cut).outline()
    assert record(calm).as_json() != record(cut).as_json()
    cut.do(cm.ActOnBatch(session="S", batch="B1", act=Act.STOP, reason="x"))
    assert record(calm).outline() != record(cut).outline()


def test_a_compressed_batch_says_so() -> None:
    line = VirtualLine()
    line.start(speed=20_000.0)
    assert "not for release" in as_text(record(line))


def test_exceptions_are_reviewed_by_their_category_whatever_came_first() -> None:
    built = record(eventful())
    assert [x.category for x in built.exceptions] == ["critical", "major", "major"]
    built.exceptions.reverse()
    assert [(x.exception, x.category) for x in for_review(built)] == [
        ("X001", "critical"),
        ("X003", "major"),
        ("X002", "major"),
    ]
    text = as_text(built)
    assert text.index("X001  critical") < text.index("X003  major") < text.index("X002  major")
