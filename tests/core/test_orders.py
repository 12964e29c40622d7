"""Orders and batch numbers: taken once by whatever way, started at most once, no number twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.numbers import NumberRange, nearly_used_up
from edge.core.orders import ORDERS_MAX, Order, read_order, read_signed
from edge.core.record import Row
from edge.core.review import as_built, as_text
from edge.core.terms import Act
from tests.core.parts import STEPS, VirtualLine, kinds, recipe

SMALL: list[dict[str, Any]] = [{"id": "010", "phase": "instruct", "title": "Look", "text": "Look for $long."}]
PARAMETERS = {"long": {"value": 5.0, "unit": "min", "low": 1.0, "high": 9.0}}
ORDER = Order("ORD-1", "R", "1", due="2026-12-01")
RANGE = NumberRange("B-", 1, 12, 3, 1)


def line_of(steps: list[dict[str, Any]] | None = None, **more: Any) -> VirtualLine:
    return VirtualLine(recipe(SMALL if steps is None else steps, parameters=PARAMETERS, units={}, **more))


def come(line: VirtualLine, order: Order = ORDER, way: Any = "file", **more: Any) -> list[ev.Event]:
    return line.do(cm.ReceiveOrder(session="S", order=order, way=way, **more))


def begin(line: VirtualLine, order: str = "ORD-1", batch: str = "", **more: Any) -> list[ev.Event]:
    facts: dict[str, Any] = {"seal": "seal", "patient": "", "speed": 1.0, **more}
    return line.do(cm.StartBatch(session="S", batch=batch, order=order, **facts))


def code(act: Callable[[], object]) -> str:
    with pytest.raises(LinesideError) as refused:
        act()
    return refused.value.code


# The document ----------------------------------------------------------------------------------------------------


def test_a_code_and_a_document_say_the_same() -> None:
    raw = {"lineside_order": 1, "order": "ORD-1", "recipe": "CART-B1", "version": "1.0", "number": "B-7",
           "due": "2026-12-01", "quantity": "20 mL", "parameters": {"feed": "12"}}  # fmt: skip
    order = read_order(orjson.dumps(raw))
    assert read_order(b"LSO1;O=ORD-1;R=CART-B1;V=1.0;B=B-7;D=2026-12-01;Q=20 mL;P.feed=12") == order
    assert read_order(order.as_bytes()) == order
    assert read_order(b"LSO1;O=X;R=Y;T").training


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{}", b"[1]", b"LSO1;", b"LSO1;O=A", b"LSO1;O=A;R=B;O=C", b"LSO1;O=A;R=B;Z=1", b"LSO1;O=A;R=B;P.=1",
        b"\xff", b'{"lineside_order": 2}', b'{"lineside_order":1,"order":"A","recipe":"B","patient":"=DIN1"}',
        b"LSO1;O=A;R=B;D=2026-13-01", b"LSO1;O=A;R=B;D=soon", b"LSO1;O= A;R=B", b"LSO1;O=A\x07;R=B",
        b'{"lineside_order":1,"order":"A","recipe":"B","due":null}', b"LSO1;O=" + b"A" * 65 + b";R=B",
        b"LSO1;O=A;R=B;" + b";".join(b"P.p%d=1" % n for n in range(21)),
    ],
)  # fmt: skip
def test_what_is_no_order_is_refused_in_words(text: bytes) -> None:
    assert code(lambda: read_order(text)) == "order.unreadable"


def test_an_order_has_its_bound() -> None:
    assert code(lambda: read_order(b"LSO1;O=A;R=B;" + b" " * 9000)) == "order.too_large"
    assert code(lambda: read_signed(b"[" * 40_000)) == "order.unreadable"


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: f"LSO1;O=A;R=B;{text}".encode())))
def test_any_bytes_are_an_order_or_refused(data: bytes) -> None:
    for parse in (read_order, read_signed):
        try:
            parse(data)
        except LinesideError as refused:
            assert refused.code in {"order.unreadable", "order.too_large"}


# On the line -----------------------------------------------------------------------------------------------------


def test_the_same_order_by_two_ways_is_one_and_another_content_is_refused() -> None:
    line = line_of()
    assert kinds(come(line)) == ["OrderReceived"]
    assert come(line, way="hub", trusted=True) == []
    (refused,) = come(line, replace(ORDER, quantity="2 L"))
    assert isinstance(refused, ev.OrderRefused)
    assert "another content" in refused.why
    assert line.line.orders == {"ORD-1": ORDER}
    assert come(line, replace(ORDER, quantity="2 L"), way="hub", trusted=True) == [], "the broker keeps it"
    assert kinds(come(line, replace(ORDER, quantity="2 L"))) == ["OrderRefused"], "a person is told each time"
    begin(line, batch="B1")
    assert come(line) == [], "it was started; the same order once more is the same order"
    assert line.line.orders == {}
    assert line.refold() == line.line


def test_an_order_is_started_once() -> None:
    line = line_of()
    come(line)
    begin(line, batch="B1")
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.ABORT, reason=""))
    assert code(lambda: begin(line, batch="B2")) == "order.used"
    come(line, replace(ORDER, order="ORD-2"))
    begin(line, "ORD-2", "B2", queue=True)
    assert code(lambda: begin(line, "ORD-2", "B3")) == "order.used"


def test_who_has_no_session_brings_only_what_the_hub_signed() -> None:
    line = line_of()
    assert kinds(line.do(cm.ReceiveOrder(session="", order=ORDER, way="hub", trusted=True))) == ["OrderReceived"]
    assert code(lambda: line.do(cm.ReceiveOrder(session="", order=ORDER, way="file"))) == "session.none"


def test_a_batch_is_what_its_order_says() -> None:
    line = line_of()
    come(line, replace(ORDER, number="B-77", parameters={"long": "7"}))
    assert code(lambda: begin(line, batch="B-78")) == "order.other_number"
    assert code(lambda: begin(line, training=True)) == "order.other_recipe"
    (started, *_) = begin(line)
    assert isinstance(started, ev.BatchStarted)
    assert started.batch == "B-77"
    assert [(one["subject"], one["old"], one["new"]) for one in started.changes] == [("$long", "5", "7")]
    assert line.line.recipe(line.batch("B-77")).parameters["long"].value == 7.0
    assert line.line.recipe(line.batch("B-77")) != line.recipe
    assert line.refold() == line.line
    record = as_built((seq, ev.decode(row)) for seq, row in enumerate(line.rows, 1))["B-77"]
    assert "Ordered: long = 7 min, the recipe says 5 min" in as_text(record)


def test_a_queued_batch_keeps_what_its_order_says() -> None:
    line = line_of()
    come(line, replace(ORDER, parameters={"long": "7"}))
    begin(line, batch="B1", queue=True)
    line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.START, reason=""))
    assert line.line.recipe(line.batch("B1")).parameters["long"].value == 7.0
    assert line.refold() == line.line


@pytest.mark.parametrize("parameters", [{"long": "10"}, {"long": "soon"}, {"wide": "1"}])
def test_a_parameter_beyond_the_recipes_range_starts_nothing(parameters: dict[str, str]) -> None:
    line = line_of()
    come(line, replace(ORDER, parameters=parameters))
    assert code(lambda: begin(line, batch="B1")) == "order.parameter"


def test_an_order_for_another_version_or_patient_starts_nothing() -> None:
    line = VirtualLine(recipe(STEPS))
    come(line, replace(ORDER, version="2"))
    assert code(lambda: begin(line, batch="B1", patient="=DIN1")) == "order.other_recipe"
    come(line, replace(ORDER, order="ORD-2", patient="P-1"))
    assert code(lambda: begin(line, "ORD-2", "B1", patient="=DIN1")) == "order.other_patient"
    begin(line, "ORD-2", "B1", patient="P-1")


def test_orders_are_bounded_cancelled_for_a_reason_and_never_come_back() -> None:
    line = line_of()
    for number in range(ORDERS_MAX):
        come(line, replace(ORDER, order=f"ORD-{number}"))
    (refused,) = come(line, replace(ORDER, order="ONE-MORE"))
    assert isinstance(refused, ev.OrderRefused)
    assert code(lambda: line.do(cm.CancelOrder(session="S", order="ORD-5", reason=" "))) == "order.reason"
    line.do(cm.CancelOrder(session="S", order="ORD-5", reason="twice"))
    assert code(lambda: line.do(cm.CancelOrder(session="S", order="ORD-5", reason="twice"))) == "order.unknown"
    assert come(line, replace(ORDER, order="ORD-5")) == []
    assert code(lambda: begin(line, "ORD-5", "B1")) == "order.used"
    assert line.refold() == line.line


# Numbers ---------------------------------------------------------------------------------------------------------


def numbered(numbers: NumberRange | None = RANGE) -> VirtualLine:
    line = line_of()
    line.do(cm.SetNumbers(numbers=numbers))
    return line


def restore(line: VirtualLine, heard_seq: int | None = None) -> list[ev.Event]:
    seq = line.line.seq
    fetched = cm.Fetched(backup_seq=seq, mirror_seq=None, hub_seq=None, heard_seq=heard_seq)
    events = line.do(cm.StartRuntime(version="t", continues=Row(seq, b"e" * 16, b"h" * 32, b"{}"), fetched=fetched))
    line.do(cm.OpenSession(session="S", person="ana", roles=(), method="m"))
    return events


def test_the_box_gives_each_number_of_its_range_once_and_then_refuses() -> None:
    line = numbered()
    for wanted in range(1, 13):
        (started, *_) = begin(line, f"O-{wanted}")
        assert started.batch == f"B-{wanted:03d}"
    assert code(lambda: begin(line, "O-13")) == "numbers.used_up"
    assert code(lambda: begin(numbered(None), "O-1")) == "numbers.none"


def test_a_number_of_the_range_comes_in_its_turn() -> None:
    line = numbered()
    begin(line, "O-1", "B-001")
    for number in ("B-001", "B-005"):
        assert code(lambda given=number: begin(line, "O-2", given)) == "numbers.not_next"  # type: ignore[misc]
    begin(line, "O-2", "B-1")  # not how the range writes it: a number of its own
    begin(line, "O-3", "B-002")


def test_after_a_restore_no_number_comes_that_lost_rows_may_have_used() -> None:
    line = numbered(NumberRange("B-", 1, 9999, 4, 1))
    begin(line, "O-1")
    come(line)
    lost = line.line.numbers["product"].next
    events = restore(line, heard_seq=line.line.seq + 7)
    skipped = {one.purpose: one for one in events if isinstance(one, ev.NumbersSkipped)}
    assert skipped.keys() == {"product", "training", "check"}
    assert skipped["product"].next == lost + 107
    assert "OrderCancelled" in kinds(events), "what waited may have been started"
    assert line.line.orders == {}
    assert line.refold() == line.line


def test_a_range_that_comes_back_begins_behind_what_was_used_of_it() -> None:
    line = numbered()
    begin(line, "O-1")
    begin(line, "O-2")
    other = NumberRange("X-", 1, 99, 3, 1)
    assert kinds(line.do(cm.SetNumbers(numbers=other))) == ["NumberRangeSet"]
    assert line.do(cm.SetNumbers(numbers=other)) == []
    line.do(cm.SetNumbers(numbers=RANGE))
    assert line.line.numbers["product"].next == 3
    line.do(cm.SetNumbers(numbers=replace(RANGE, last=50)))
    assert line.line.numbers["product"].next == 3
    line.do(cm.SetNumbers(numbers=None))
    assert line.line.numbers.keys() == {"training", "check"}


def test_the_screen_warns_when_a_range_is_nearly_used_up() -> None:
    assert nearly_used_up(None) == ()
    assert nearly_used_up(NumberRange("B-", 1, 1000, 4, 900)) == ()
    (said,) = nearly_used_up(NumberRange("B-", 1, 1000, 4, 902))
    assert said.startswith("99 batch numbers of B-0001 to B-1000 left")
    assert nearly_used_up(NumberRange("B-", 1, 1000, 4, 1001))[0].startswith("No batch numbers")
