"""GS1 codes: what they say, what is none, and that expired material is refused with a row of its own."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import events as ev
from edge.core import gs1
from edge.core.events import decode
from edge.core.recipe.model import Recipe
from edge.core.review import as_text, batch_record
from edge.core.terms import ClockQuality, Stamp
from tests.core.parts import VirtualLine, kinds, recipe
from tests.core.test_expiry import checked
from tests.core.test_rehearse import not_seen
from tests.core.test_rehearse import played as rehearsal
from tests.core.test_rehearse import recipe as of_steps

GTIN = "09501101530003"
VECTOR: dict[str, Any] = {
    "id": "010", "phase": "scan", "title": "Vector", "text": "Scan it.", "name": "vector", "coding": "gs1",
    "prefix": f"(01){GTIN}",
}  # fmt: skip
LAST: dict[str, Any] = {"id": "020", "phase": "instruct", "title": "Use", "text": "Use it."}
BOTH = {"01": GTIN, "17": "260131", "10": "LOT7"}


@pytest.mark.parametrize(
    "text",
    [
        f"(01){GTIN}(17)260131(10)LOT7",
        f"01{GTIN}1726013110LOT7",
        f"\x1d01{GTIN}1726013110LOT7\x1d",
        f"01{GTIN}\x1d17260131\x1d10LOT7",
    ],
)
def test_both_ways_of_writing_a_code_say_the_same(text: str) -> None:
    assert gs1.elements(text) == BOTH
    assert gs1.as_text(text) == f"(01){GTIN}(17)260131(10)LOT7"


def test_what_has_no_fixed_length_ends_with_the_separator() -> None:
    assert gs1.elements("10LOT7\x1d17260131") == {"10": "LOT7", "17": "260131"}
    assert gs1.elements("3103001750" + "17260131") == {"3103": "001750", "17": "260131"}
    assert gs1.elements("4101234567890123" + "17260131") == {"410": "1234567890123", "17": "260131"}


@pytest.mark.parametrize(
    "text",
    ["", "(", "(17)", "(17)2601", "17", "172601", "LOT7", "(17)260131LOT7", "(171)260131", "(17)260131(17)260131",
     "(10)LOT 7", "(10)LÖT", "17٢٦٠١٣١", "(17)26O131", "x" * 500, "(10)a" * 60, "\x1d\x1d"],
)  # fmt: skip
def test_what_is_no_gs1_code_is_none_at_all(text: str) -> None:
    assert gs1.elements(text) is None
    assert gs1.as_text(text) == text


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("()0123456789\x1dAZ ١é"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_none_and_what_is_read_is_read_again(text: str) -> None:
    found = gs1.elements(text)
    if found is not None and not any(mark in data for data in found.values() for mark in "()"):
        assert gs1.elements(gs1.as_text(text)) == found
    gs1.expiry(text, 2026)


@pytest.mark.parametrize(
    ("said", "day"),
    [("260131", date(2026, 1, 31)), ("260200", date(2026, 2, 28)), ("280200", date(2028, 2, 29)), ("261301", None),
     ("260230", None), ("760101", date(2076, 1, 1)), ("770101", date(1977, 1, 1)), ("", None), ("٢٦٠١٣١", None)],
)  # fmt: skip
def test_dates(said: str, day: date | None) -> None:
    assert gs1.expiry(said, 2026) == day


def made(monkeypatch: pytest.MonkeyPatch, day: str, quality: ClockQuality = ClockQuality.SYNCED) -> VirtualLine:
    monkeypatch.setattr(
        VirtualLine, "stamp", lambda self: Stamp(f"{day}T12:00:00.000000Z", quality, self.now_s, self.boot)
    )
    played = VirtualLine(recipe=vector())
    played.start(patient="")
    return played


def vector() -> Recipe:
    return recipe([VECTOR, LAST], units={})


def test_material_may_be_used_on_its_last_day_and_is_recorded_as_people_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = made(monkeypatch, "2026-01-31")
    (row, *_) = played.scan("010", f"01{GTIN}1726013110LOT7")
    assert isinstance(row, ev.ValueRecorded)
    assert row.value == f"(01){GTIN}(17)260131(10)LOT7"


def test_expired_material_is_refused_with_a_row_and_an_exception_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    played = made(monkeypatch, "2026-02-01")
    assert kinds(played.scan("010", f"01{GTIN}1726013110LOT7")) == ["ScanRefused", "ExceptionRaised"]
    (raised,) = played.batch().exceptions
    assert (raised.code, raised.category) == ("scan.expired", "major")
    assert "2026-01-31" in raised.what
    assert played.batch().steps["010"].state == "active"
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B1")
    assert built is not None
    assert "expired" in as_text(built)
    assert "ValueRecorded" in kinds(played.scan("010", f"01{GTIN}1726020110LOT8"))


@pytest.mark.parametrize(
    ("code", "quality", "why"),
    [
        (f"01{GTIN}17260231", ClockQuality.SYNCED, "says no date"),
        (f"01{GTIN}10LOT7", ClockQuality.SYNCED, "says no date"),
        ("V-1", ClockQuality.SYNCED, "should begin with (01)"),
        ("0109501101530010" + "17270131", ClockQuality.SYNCED, "should begin with (01)"),
        (f"01{GTIN}17270131", ClockQuality.FREE, "No trusted clock"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    monkeypatch: pytest.MonkeyPatch, code: str, quality: ClockQuality, why: str
) -> None:
    played = made(monkeypatch, "2026-01-01", quality)
    played.scan("010", code)
    (raised,) = played.batch().exceptions
    assert raised.code == "scan.refused"
    assert why in raised.what


def test_planted_bug_the_date_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gs1, "refusal", lambda _text, _at: "")
    with pytest.raises(AssertionError):
        test_expired_material_is_refused_with_a_row_and_an_exception_of_its_own(monkeypatch)


@pytest.mark.parametrize(
    "wrong",
    [{"prefix": "V-"}, {"prefix": "(01)095"}, {"prefix": "(17)260131"}, {"expect": "patient", "prefix": ""}],
)
def test_the_checker_refuses_what_no_code_can_be(wrong: dict[str, Any]) -> None:
    assert "recipe.gs1_prefix" in checked({**VECTOR, **wrong}, LAST)[0]
    assert checked(VECTOR, LAST) == ([], [])


def test_it_is_rehearsed() -> None:
    assert not_seen(rehearsal(of_steps(VECTOR, LAST))) == set()
