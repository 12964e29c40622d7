from __future__ import annotations

from edge.core.limits import BAD_QUALITY_S, Watcher
from edge.core.line import Watch
from edge.core.terms import Quality, Reading


def watch(kind: str = "keep", *, delay_s: float = 2.0, outside: bool = False, hold_on_bad: bool = True) -> Watch:
    assert kind in {"keep", "until"}
    return Watch("B", "S", "U.t", "until" if kind == "until" else "keep", 36.0, 38.0, delay_s, outside, hold_on_bad)


def reading(value: float | bool | str, quality: Quality = Quality.GOOD) -> Reading:
    return Reading(value, "degC", quality, "", 0.0)


def test_a_condition_is_met_only_by_a_good_reading_inside_both_ends_included() -> None:
    watcher = Watcher(watch("until"), 0.0)
    assert watcher.look(None, 0.0) is None
    assert watcher.look(reading(35.999), 0.0) is None
    assert watcher.look(reading(37.0, Quality.BAD), 0.1) is None
    assert watcher.look(reading(37.0, Quality.UNCERTAIN), 0.2) is None
    assert watcher.look(reading(float("nan")), 0.3) is None
    assert watcher.look(reading("37"), 0.4) is None
    assert watcher.look(reading(36.0), 0.5) == "met"
    assert watcher.look(reading(38.0), 0.6) == "met"


def test_a_limit_is_crossed_only_after_its_delay_and_a_short_peak_does_not_count() -> None:
    watcher = Watcher(watch(), 0.0)
    assert watcher.look(reading(39.0), 0.0) is None
    assert watcher.look(reading(39.0), 1.9) is None
    assert watcher.look(reading(37.0), 1.95) is None
    assert watcher.look(reading(39.0), 2.0) is None
    assert watcher.look(reading(39.0), 3.9) is None
    assert watcher.look(reading(39.0), 4.0) == "outside"


def test_time_without_a_good_reading_does_not_count_as_time_outside() -> None:
    watcher = Watcher(watch(hold_on_bad=False), 0.0)
    watcher.look(reading(39.0), 0.0)
    watcher.look(reading(39.0, Quality.BAD), 1.0)
    assert watcher.look(reading(39.0), 2.5) is None
    assert watcher.look(reading(39.0), 4.5) == "outside"


def test_a_value_that_was_outside_is_reported_when_it_is_back() -> None:
    watcher = Watcher(watch(outside=True), 0.0)
    assert watcher.look(reading(39.0), 9.0) is None, "it is known already"
    assert watcher.look(reading(37.0), 9.1) == "back"


def test_lost_quality_is_reported_after_a_while_and_only_where_it_holds() -> None:
    watcher = Watcher(watch(), 0.0)
    assert watcher.look(reading(37.0), 1.0) is None
    assert watcher.look(reading(37.0, Quality.BAD), 2.0) is None
    assert watcher.look(reading(37.0, Quality.BAD), 2.0 + BAD_QUALITY_S) == "bad_quality"
    calm = Watcher(watch(hold_on_bad=False), 0.0)
    assert calm.look(reading(37.0, Quality.BAD), 100.0) is None
