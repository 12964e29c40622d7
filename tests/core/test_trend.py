"""Out of trend: what earlier batches of the recipe came to, pinned when a batch begins, is what it is judged by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge.core import checkpoint
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import decode
from edge.core.line import Book, effects
from edge.core.recipe import check_recipe, read_recipe, seal
from edge.core.recipe.words import facts
from edge.core.review import as_text, batch_record
from edge.core.terms import Act, Quality, Reading, Role, State
from edge.core.trend import RECIPES_KEPT, SERIES_MAX, Kept, Trending, judged, references, with_batch
from tests.core.parts import VirtualLine, recipe
from tests.core.test_sampling import pass_to

TREND: dict[str, Any] = {"batches": 4, "least": 3, "deviations": 2.0, "category": "major"}
COUNT: dict[str, Any] = {
    "id": "010", "phase": "record", "title": "Count", "text": "Count.", "name": "n", "unit": "%", "trend": TREND,
}  # fmt: skip
TWICE: dict[str, Any] = {
    "id": "020", "phase": "calculate", "title": "Twice", "formula": "n * 2.0", "name": "twice", "unit": "%",
    "trend": {**TREND, "band": "range", "category": "minor"},
}  # fmt: skip
GROW: dict[str, Any] = {
    "id": "010", "phase": "parallel", "title": "Grow", "branches": [
        [{"id": "011", "phase": "wait", "title": "Wait", "duration": "50 h"}],
        [{
            "id": "012", "phase": "monitor", "title": "Keep warm", "tag": "reactor.temperature", "until": "011",
            "limit": {"low": 20.0, "high": 50.0}, "trend": {**TREND, "every": "24 h"},
        }],
    ],
}  # fmt: skip
DAY_S = 86_400.0


def judgements(played: VirtualLine, batch: str) -> list[ev.TrendJudged]:
    events = [decode(row).event for row in played.rows]
    return [one for one in events if isinstance(one, ev.TrendJudged) and one.batch == batch]


def pinned(played: VirtualLine, batch: str) -> ev.TrendPinned:
    (found,) = (
        one for row in played.rows if isinstance(one := decode(row).event, ev.TrendPinned) and one.batch == batch
    )
    return found


def enter(played: VirtualLine, text: str, batch: str) -> None:
    played.do(cm.EnterValue(session="S", batch=batch, step="010", text=text))


def counted(played: VirtualLine, *values: float, first: int = 1) -> None:
    """A whole batch for each value."""
    for number, value in enumerate(values, first):
        played.start(f"B{number}")
        enter(played, f"{value:g}", f"B{number}")


@pytest.fixture
def played() -> VirtualLine:
    return VirtualLine(recipe=recipe([COUNT, TWICE], units={}))


def test_a_value_is_compared_once_there_are_enough_batches_and_the_rows_say_why_not_before(played: VirtualLine) -> None:
    counted(played, 10, 11, 12, 30)
    assert [(one.found, one.of, one.least) for b in ("B1", "B2", "B3") for one in judgements(played, b)[:1]] == [
        ("too few", 0, 3), ("too few", 1, 3), ("too few", 2, 3),
    ]  # fmt: skip
    first, second = judgements(played, "B4")
    assert (first.name, first.found, first.of, first.low, first.high) == ("n", "outside", 3, 9.0, 13.0)
    assert (second.name, second.found, second.low, second.high) == ("twice", "outside", 20.0, 24.0), "the range"
    raised = [(x.step, x.category, x.code, x.what) for x in played.batch("B4").exceptions]
    assert raised == [
        ("010", "major", "trend.outside", "Count: 30 % is out of trend: 9 to 13 % is expected from 3 earlier batches."),
        (
            "020",
            "minor",
            "trend.outside",
            "Twice: 60 % is out of trend: 20 to 24 % is expected from 3 earlier batches.",
        ),
    ]
    assert played.batch("B4").state is State.COMPLETE, "it is told, and the batch goes on"
    assert played.refold() == played.line


def test_a_value_within_is_said_too_and_the_record_names_the_batches(played: VirtualLine) -> None:
    counted(played, 10, 11, 12, 12.5)
    assert [one.found for one in judgements(played, "B4")] == ["within", "outside"]
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B4")
    assert built is not None
    text = as_text(built)
    assert "Compared with B1, B2, B3" in text
    assert "trend of n: 12.5 %, within 9 to 13 of 3" in text
    assert "trend of twice: 25 %, OUT OF TREND 20 to 24 of 3" in text
    first = batch_record(((seq, decode(data)) for seq, data in enumerate(played.rows, 1)), "B1")
    assert first is not None
    assert "trend of n: 10 %, not judged: 0 of the 3 batches that are needed" in as_text(first)


def test_what_is_compared_with_is_pinned_at_the_start_and_rows_give_it_again(played: VirtualLine) -> None:
    counted(played, 10, 11, 12)
    played.start("B9")
    counted(played, 90, first=4)
    assert pinned(played, "B9").batches == ["B1", "B2", "B3"]
    enter(played, "11", "B9")
    assert [one.of for one in judgements(played, "B9")] == [3, 3], "B4 ended after it had begun"
    data = b"".join(checkpoint.parts(played.line, bytes(32)))
    assert checkpoint.read(data, played.line.book)[0] == played.line == played.refold()


def test_planted_bug_a_reference_that_is_not_pinned_is_seen(played: VirtualLine) -> None:
    counted(played, 10, 11, 12)
    played.start("B9")
    counted(played, 13, first=4)
    batch = played.batch("B9")
    now = dict(references(played.recipe, played.line.trends["R"]))
    late = replace(batch, trend=replace(batch.trend, of=now))
    played.line = replace(played.line, batches={**played.line.batches, "B9": late})
    enter(played, "11", "B9")
    assert [one.of for one in judgements(played, "B9")] == [4, 4]


def test_the_newest_batches_count_and_only_those_that_are_complete_and_by_the_recipe(played: VirtualLine) -> None:
    counted(played, 10, 10, 10, 10, 20, 21, 22, 23)
    played.start("B20")
    assert {one["series"]: (one["n"], one["low"]) for one in pinned(played, "B20").series} == {
        "010 %": (4, 20.0), "020 %": (4, 40.0),
    }  # fmt: skip
    played.do(cm.ActOnBatch(session="S", batch="B20", act=Act.STOP, reason="no"))
    assert [one.batch for one in played.line.trends["R"]] == [f"B{number}" for number in range(1, 9)]
    played.start("B21")
    batch = replace(played.batch("B21"), amended="another")
    played.line = replace(played.line, batches={**played.line.batches, "B21": batch})
    amended = played.line
    played.line = replace(amended, book=Book(amended.book.plant, {"seal": played.recipe, "another": played.recipe}))
    enter(played, "20", "B21")
    assert len(played.line.trends["R"]) == 8, "its control recipe was another"
    played.line = replace(amended, batches={**amended.batches, "B21": replace(batch, amended="", training=True)})
    enter(played, "20", "B21")
    assert len(played.line.trends["R"]) == 8, "somebody learned"


def test_another_version_counts_when_the_recipe_says_so_and_a_correction_counts_at_once() -> None:
    played = VirtualLine(recipe=recipe([COUNT], units={}))
    counted(played, 10, 11, 12)
    for name, comparable in (("second", ["1"]), ("third", [])):
        other = recipe([COUNT], units={}, version="2", comparable=comparable)
        book = played.line.book
        known = {**book.recipes, name: other}
        played.line = replace(played.line, book=Book(book.plant, known, frozenset(known)))
        played.do(cm.LoadRecipe(recipe="R", version="2", title="A recipe", seal=name))
        played.do(cm.StartBatch(session="S", batch=f"B-{name}", order="O", seal=name, patient="", speed=1.0))
    assert pinned(played, "B-second").batches == ["B1", "B2", "B3"]
    assert pinned(played, "B-third").batches == []
    known = played.batch("B3").values["n"]
    correction = cm.CorrectValue(
        session="S", batch="B3", name="n", was_seq=known.seq, text="17", reason="a slip",
        signed=played.signed("qa", Role.QUALITY),
    )  # fmt: skip
    played.do(correction)
    played.start("B5")
    (said,) = pinned(played, "B5").series
    assert (said["low"], said["high"]) == (10.0, 17.0)
    assert played.refold().trends == played.line.trends


def warm(played: VirtualLine, value: float, quality: Quality = Quality.GOOD) -> None:
    played.readings["BR-1.temperature"] = Reading(value, "degC", quality, "", played.now_s)


def grown(played: VirtualLine, name: str, *values: float) -> float:
    """A batch in which the temperature is this on each day; returns when it began."""
    played.start(name)
    began_s = played.now_s
    for day, value in enumerate(values, 1):
        warm(played, value)
        pass_to(played, began_s + day * DAY_S, name)
    return began_s


def test_a_monitor_is_compared_at_the_same_time_of_earlier_batches_and_told_once_while_it_stays_out() -> None:
    played = VirtualLine(recipe=recipe([GROW]))
    for number, shift in enumerate((0.0, 0.1, 0.2), 1):
        began_s = grown(played, f"B{number}", 36.0 + shift, 37.0 + shift)
        pass_to(played, began_s + 50 * 3600.0, f"B{number}")
        assert played.batch(f"B{number}").state is State.COMPLETE
    began_s = grown(played, "B4", 36.1, 36.1)
    assert [(one.point, one.found, one.of) for one in judgements(played, "B4")] == [(1, "within", 3), (2, "outside", 3)]
    assert [x.code for x in played.batch("B4").exceptions] == ["trend.outside"]
    pass_to(played, began_s + 50 * 3600.0, "B4")
    began_s = grown(played, "B5", 40.0, 40.0)
    assert [one.found for one in judgements(played, "B5")] == ["outside", "outside"]
    assert len(played.batch("B5").exceptions) == 1, "it was told once"
    assert played.refold() == played.line


def test_points_that_passed_in_the_dark_or_without_a_reading_are_counted_and_no_figure_is_made_up() -> None:
    played = VirtualLine(recipe=recipe([{**GROW, "branches": [
        [{**GROW["branches"][0][0], "duration": "200 h"}], GROW["branches"][1],
    ]}]))  # fmt: skip
    began_s = grown(played, "B1", 36.0)
    played.now_s = began_s + 3.5 * DAY_S
    played.do(cm.StartRuntime(version="t"))
    pass_to(played, began_s + 3.5 * DAY_S, "B1")
    warm(played, 36.0, Quality.BAD)
    pass_to(played, began_s + 4 * DAY_S, "B1")
    said = [(one.point, one.missed, one.found, one.value) for one in judgements(played, "B1")]
    assert said == [(1, 0, "too few", 36.0), (3, 1, "too few", 36.0), (4, 0, "not usable", None)]
    assert set(played.batch("B1").trend.figures) == {"012:1 degC", "012:3 degC"}
    pass_to(played, began_s + 4 * DAY_S + 60, "B1")
    assert len(judgements(played, "B1")) == 3, "no point is taken twice"
    timers = [one.timer for one in effects(played.line).timers if one.step == "012"]
    assert timers == ["=trend:5"]


def test_what_is_kept_is_bounded() -> None:
    trending = Trending()
    for number in range(SERIES_MAX + 5):
        trending = judged(trending, f"{number} %", "s", 1.0, out=False)
    assert len(trending.figures) == SERIES_MAX
    trends: Any = {}
    for number in range(RECIPES_KEPT + 5):
        trends = with_batch(trends, f"R{number}", Kept("B", "1", "s", {}))
    assert (len(trends), "R0" in trends, f"R{RECIPES_KEPT + 4}" in trends) == (RECIPES_KEPT, False, True)
    for number in range(100):
        trends = with_batch(trends, "R9", Kept(f"B{number}", "1", "s", {}))
    assert [one.batch for one in trends["R9"]][::29] == ["B70", "B99"]


def test_a_recipe_without_trends_makes_no_rows_of_them_and_keeps_its_seal() -> None:
    plain = {key: value for key, value in COUNT.items() if key != "trend"}
    played = VirtualLine(recipe=recipe([plain], units={}))
    counted(played, 10)
    assert not any(isinstance(decode(row).event, ev.TrendPinned | ev.TrendJudged) for row in played.rows)
    assert played.line.trends == {}
    assert seal(recipe([plain], units={}, comparable=[])) == seal(recipe([plain], units={}))
    assert seal(recipe([COUNT], units={})) != seal(recipe([plain], units={}))


RECIPE = """\
recipe: R
version: "1"
title: A recipe
units: {{reactor: {{class: bioreactor}}}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - id: "010"
            phase: parallel
            title: Grow
            branches:
              - - {{id: "011", phase: wait, title: Wait, duration: 50 h}}
              - - {{id: "012", phase: monitor, title: Watch, tag: reactor.temperature, until: "011",
                   limit: {{low: 20.0, high: 50.0, unit: degC}}, trend: {monitor}}}
          - {{id: "020", phase: record, title: Count, text: Count., name: n, {record}}}
"""
GOOD = {"monitor": "{every: 1 d}", "record": 'unit: "%", trend: {}'}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ""),
        ({"monitor": "{}"}, "recipe.trend_every"),
        ({"monitor": "{every: 5 s}"}, "recipe.trend_every"),
        ({"monitor": "{every: never}"}, "recipe.trend_every"),
        ({"record": 'unit: "%", trend: {every: 1 d}'}, "recipe.trend_every"),
        ({"record": 'unit: "%", trend: {batches: 4, least: 5}'}, "recipe.trend_least"),
        ({"record": "type: text, trend: {}"}, "recipe.trend_value"),
        ({"record": 'unit: "%", pending: true, trend: {}'}, "recipe.trend_value"),
    ],
)
def test_the_checker_says_which_values_can_be_compared(change: dict[str, str], code: str) -> None:
    document = read_recipe(RECIPE.format(**{**GOOD, **change}).encode(), "r.yaml")
    assert [one.code for one in check_recipe(document, None)] == ([code] if code else [])


def test_a_chart_says_what_is_compared() -> None:
    of = recipe([{**COUNT, "id": "005"}, TWICE, GROW])
    assert "trend: ± 2 standard deviations of 3 to 4 earlier batches" in facts(of, of.steps()["005"])
    assert "trend: the range of 3 to 4 earlier batches" in facts(of, of.steps()["020"])
    assert "trend: ± 2 standard deviations of 3 to 4 earlier batches, every 24 h" in facts(of, of.steps()["012"])
