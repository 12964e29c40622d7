"""Alarms: the state table, deadband and delay, floods, the bound, who acknowledges, and what the record says of it."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from edge.core import alarms as al
from edge.core import checkpoint, decide, line
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.line import Line, apply, effects
from edge.core.plant import Plant, read_plant
from edge.core.review import AsBuilt, as_built, as_text
from edge.core.room import Level
from edge.core.terms import Quality, Reading, Role
from tests.core.parts import PLANT, VirtualLine, kinds, recipe
from tests.core.test_rehearse import WARM, deaf_to, not_seen
from tests.core.test_rehearse import WATCHED as REHEARSED
from tests.core.test_rehearse import played as rehearsal
from tests.core.test_rehearse import recipe as of_steps

TOLD = {"priority": "high", "cause": "Too warm.", "effect": "Cells die.", "todo": "Check the jacket."}
WATCHED: list[dict[str, Any]] = [
    {
        "id": "050", "phase": "parallel", "title": "Expand", "branches": [
            [{"id": "051", "phase": "wait", "title": "Grow", "duration": "2 h"}],
            [{"id": "052", "phase": "monitor", "title": "Keep warm", "tag": "reactor.temperature", "until": "051",
              "limit": {"low": 36.0, "high": 38.0}, "alarm": {**TOLD, "deadband": 0.2}}],
        ],
    },
]  # fmt: skip
WATCH = al.AlarmWatch(
    "BR-1.temperature/warm", al.Told("medium", "Too warm.", "Cells die.", "Look."), tag="BR-1.temperature"
)


def raised(played: VirtualLine, watch: al.AlarmWatch = WATCH, value: float = 40.0) -> list[ev.Event]:
    return played.do(cm.NoteAlarm(watch=watch, finding="raised", value=value))


def cleared(played: VirtualLine, watch: al.AlarmWatch = WATCH) -> list[ev.Event]:
    return played.do(cm.NoteAlarm(watch=watch, finding="cleared", value=37.0, why="It is as it should be again."))


def seen(played: VirtualLine, name: str = WATCH.alarm, **more: Any) -> list[ev.Event]:
    known = played.line.alarms[name]
    return played.do(cm.AcknowledgeAlarm(**{"session": "S", "alarm": name, "raised_seq": known.raised_seq, **more}))


def record(played: VirtualLine, batch: str = "B1") -> AsBuilt:
    return as_built((seq, decode(data)) for seq, data in enumerate(played.rows, 1))[batch]


# The table -----------------------------------------------------------------------------------------------------------


def test_every_state_and_happening_is_decided() -> None:
    """What is not in the table changes nothing; whatever is raised ends only by being over and being seen."""
    for state, what in itertools.product(al.AlarmState, ("raised", "cleared", "acknowledged")):
        now = al.TRANSITIONS.get((state, what), state)  # type: ignore[call-overload]
        assert (now in al.ON) == {"raised": True, "cleared": False}.get(what, state in al.ON)
    for way in itertools.product(("raised", "cleared", "acknowledged"), repeat=6):
        state = al.AlarmState.NORMAL
        for place, what in enumerate(way):
            state = al.TRANSITIONS.get((state, what), state)  # type: ignore[call-overload]
            past = way[: place + 1]
            last = max((n for n, one in enumerate(past) if one == "raised"), default=None)
            if last is not None and state is al.AlarmState.NORMAL:
                assert "acknowledged" in past[past.index("raised") :]
                assert "cleared" in past[last:]


def test_an_alarm_ends_when_it_is_over_and_was_seen_in_either_order() -> None:
    for order in ((cleared, seen), (seen, cleared)):
        played = VirtualLine()
        assert kinds(raised(played)) == ["AlarmRaised"]
        assert raised(played) == [], "it is on already"
        for act in order:
            assert WATCH.alarm in played.line.alarms
            act(played)
        assert played.line.alarms == {}
        assert played.refold() == played.line


def test_one_that_came_back_must_be_seen_again() -> None:
    played = VirtualLine()
    raised(played)
    first = played.line.alarms[WATCH.alarm].raised_seq
    seen(played)
    assert seen(played) == [], "somebody was faster"
    cleared(played)
    raised(played)
    assert played.line.alarms[WATCH.alarm].state is al.AlarmState.UNACKNOWLEDGED
    with pytest.raises(LinesideError) as refusal:
        seen(played, raised_seq=first)
    assert refusal.value.code == "alarm.changed"


def test_planted_bug_one_that_clears_before_it_is_seen_disappears(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {**al.TRANSITIONS, (al.AlarmState.UNACKNOWLEDGED, "cleared"): al.AlarmState.NORMAL}
    monkeypatch.setattr(al, "TRANSITIONS", gone)
    with pytest.raises(AssertionError):
        test_every_state_and_happening_is_decided()
    with pytest.raises(AssertionError):
        test_an_alarm_ends_when_it_is_over_and_was_seen_in_either_order()


def test_nobody_and_who_only_reads_acknowledge_nothing() -> None:
    played = VirtualLine()
    raised(played)
    played.do(cm.OpenSession(session="A", person="aud", roles=(Role.AUDITOR,), method="m"))
    for session, code in (("none", "session.none"), ("", "session.none"), ("A", "people.not_permitted")):
        with pytest.raises(LinesideError) as refusal:
            seen(played, session=session)
        assert refusal.value.code == code
    assert played.line.alarms[WATCH.alarm].state is al.AlarmState.UNACKNOWLEDGED


def test_planted_bug_acknowledged_by_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide._Decision, "need", lambda _self, _permission: None)
    with pytest.raises(pytest.fail.Exception):
        test_nobody_and_who_only_reads_acknowledge_nothing()


# Conditions ----------------------------------------------------------------------------------------------------------


def reading(value: Any, quality: Quality = Quality.GOOD) -> Reading:
    return Reading(value, "degC", quality, "", 0.0)


def test_deadband_and_quality_decide_whether_it_is_there() -> None:
    warm = replace(WATCH, high=38.0, low=36.0, deadband=0.5)
    there = [al.is_there(warm, reading(value), on=on) for value, on in ((38.2, False), (37.8, True), (37.4, True))]
    assert there == [True, True, False]
    assert al.is_there(warm, reading(37.8), on=False) is False
    assert al.is_there(warm, reading(36.2), on=True) is True
    assert al.is_there(warm, reading(50.0, Quality.BAD), on=False) is None, "a value nobody trusts raises nothing"
    assert al.is_there(warm, None, on=True) is None
    door = replace(WATCH, equals=True)
    assert [al.is_there(door, reading(value), on=False) for value in (True, False, 1.0)] == [True, False, False]


def look(watcher: al.AlarmWatcher, there: bool | None, now_s: float, *, shown: bool, delay_s: float = 2.0) -> str:
    return watcher.look(there, now_s, shown=shown, on_delay_s=delay_s) or ""


def test_only_what_lasts_is_raised() -> None:
    watcher = al.AlarmWatcher(0.0)
    seen_at = [
        look(watcher, there, now, shown=False) for now, there in enumerate((True, True, False, True, True, True))
    ]
    assert seen_at == ["", "", "", "", "", "raised"]
    assert look(watcher, None, 6, shown=True) == "", "an unusable value clears nothing"
    assert look(watcher, False, 7, shown=True) == "cleared"


def test_a_source_that_floods_is_counted_in_one_row_at_a_time() -> None:
    watcher, shown, told = al.AlarmWatcher(0.0), False, []
    for second in range(1_300):
        there = second % 4 < 2 if second < 1_200 else False
        finding = watcher.look(there, float(second), shown=shown, on_delay_s=0.0)
        if finding:
            told.append((second, finding, watcher.times))
        shown = {"raised": True, "cleared": False}.get(finding or "", shown)
        if finding == "flooded":
            watcher.told_flood(float(second))
    assert [what for _, what, _ in told] == [
        "raised", "cleared", "raised", "cleared", "raised", "flooded", "flooded", "cleared",
    ]  # fmt: skip
    assert sum(times for _, what, times in told if what == "flooded") == 297, (
        "300 times, of which three made a row each"
    )


# The head ------------------------------------------------------------------------------------------------------------


def test_the_head_is_bounded_and_says_that_there_are_more() -> None:
    played = VirtualLine()
    many = [replace(WATCH, alarm=f"T{place}") for place in range(al.OPEN_MAX + 20)]
    for watch in many:
        raised(played, watch)
    assert len(played.line.alarms) == al.OPEN_MAX + 1
    assert played.line.alarms[al.TOO_MANY].on
    assert raised(played, many[-1]) == [], "it is told once that there are more"
    cleared(played, many[0])
    assert played.line.alarms[al.TOO_MANY].on, "nobody has seen it: it still takes its place"
    seen(played, many[0].alarm)
    assert not played.line.alarms[al.TOO_MANY].on
    assert kinds(raised(played, many[-1])) == ["AlarmRaised"]
    assert len(played.line.alarms) == al.OPEN_MAX + 1
    assert kinds(raised(played, many[-2])) == ["AlarmRaised"]
    assert played.line.alarms[al.TOO_MANY].on


def test_alarms_survive_a_crash_at_every_row_and_a_checkpoint() -> None:
    played = VirtualLine(recipe=recipe(WATCHED))
    played.start()
    of_batch = alarm_of(played)
    for act in (raised, seen, cleared, raised, cleared):
        act(played)
    raised(played, of_batch)
    played.do(cm.NoteAlarm(watch=of_batch, finding="flooded", times=7, for_s=60.0))
    head = Line(played.line.book)
    for data in played.rows:
        head = apply(head, decode(data))
        kept = b"".join(checkpoint.parts(head, bytes(32)))
        assert checkpoint.read(kept, head.book)[0] == head
    assert head == played.line
    played.crash("boot-2")
    assert played.line.alarms == head.alarms
    assert played.line.alarms[of_batch.alarm].times == 8


def alarm_of(played: VirtualLine) -> al.AlarmWatch:
    (watch,) = effects(played.line).alarms
    return watch


def test_a_monitor_says_what_its_alarm_watches() -> None:
    played = VirtualLine(recipe=recipe(WATCHED))
    played.start()
    watch = alarm_of(played)
    assert (watch.alarm, watch.batch, watch.step, watch.tag) == ("B1/052", "B1", "052", "BR-1.temperature")
    assert (watch.low, watch.high, watch.deadband, watch.on_delay_s) == (36.0, 38.0, 0.2, 2.0)
    assert watch.told == al.Told("high", "Too warm.", "Cells die.", "Check the jacket.")
    played.do(cm.PassTimer(batch="B1", step="051", timer="duration", low_s=7200, high_s=7200))
    assert effects(played.line).alarms == ()


def test_what_is_raised_before_the_batch_ends_is_acknowledged_after_it() -> None:
    played = VirtualLine(recipe=recipe(WATCHED))
    played.start()
    raised(played, alarm_of(played))
    played.do(cm.PassTimer(batch="B1", step="051", timer="duration", low_s=7200, high_s=7200))
    assert played.batch().state in line.OVER
    assert "NOT ACKNOWLEDGED" in as_text(record(played))
    played.do(cm.NoteAlarm(watch=replace(WATCH, alarm="B1/052", batch="B1"), finding="cleared", why="Not watched."))
    seen(played, "B1/052")
    (alarm,) = record(played).alarms
    assert (alarm.acknowledged_by, bool(alarm.cleared_utc), alarm.step) == ("ana", True, "052")
    assert "Alarm, high: Too warm. (BR-1.temperature = 40.0)" in as_text(record(played))


def test_a_record_lists_the_alarms_of_its_units_and_of_the_box() -> None:
    played = VirtualLine(recipe=recipe(WATCHED))
    raised(played, replace(WATCH, alarm="before", tag=""))
    played.start()
    raised(played, replace(WATCH, alarm="mine", tag="BR-1.weight"))
    raised(played, replace(WATCH, alarm="another", tag="BR-2.weight"))
    raised(played, replace(WATCH, alarm="box", tag=""))
    assert [one.alarm for one in record(played).alarms] == ["mine", "box"]


def test_what_the_box_itself_raises() -> None:
    calm = [on for _, on in al.alarms_of_box({"plc": True}, Level.ROOM, (), ())]
    assert calm == [False, False, False, False, False]
    found = (("row 7 does not hold",), ("no room",))
    low = {watch.alarm: on for watch, on in al.alarms_of_box({"plc": False}, Level.LOW, *found)}
    assert low == {"connection plc": True, "disk low": True, "disk full": False, "self-check": True, "backup": True}
    assert [on for _, on in al.alarms_of_box({}, Level.FULL, (), ())] == [True, True, False, False]


def test_alarms_are_shown_in_the_order_in_which_they_matter() -> None:
    played = VirtualLine()
    for name, priority in (("low", "low"), ("high", "high"), ("newer", "high"), ("seen", "high")):
        told = replace(WATCH.told, priority=priority)  # type: ignore[arg-type]
        raised(played, replace(WATCH, alarm=name, told=told))
    seen(played, "seen")
    assert [one.alarm for one in al.in_order(played.line.alarms)] == ["newer", "high", "low", "seen"]


# Plant and rehearsal -------------------------------------------------------------------------------------------------


def plant_with(alarm: str, kind: str = "float, low: 0, high: 60") -> bytes:
    lines = kind.replace(", ", "\n" + " " * 8)
    return (
        "plant: P\nconnections: {plc: {driver: sim}}\nunits:\n  BR-1:\n    class: bioreactor\n    tags:\n"
        f"      t:\n        connection: plc\n        address: t\n        type: {lines}\n"
        f"        alarms:\n          warm: {{{alarm}, cause: c, effect: e, todo: t}}\n"
    ).encode()


@pytest.mark.parametrize(
    ("alarm", "kind"),
    [
        ("priority: high", "float"), ("equals: true", "float"), ("high: 50, low: 49, deadband: 1", "float"),
        ("high: 99", "float, low: 0, high: 60"), ("high: 1", "bool"), ("high: 1", "text"),
    ],
)  # fmt: skip
def test_an_alarm_that_could_never_be_right_is_refused(alarm: str, kind: str) -> None:
    with pytest.raises(LinesideError) as refusal:
        read_plant(plant_with(alarm, kind), "plant.yaml")
    assert refusal.value.code == "plant.alarm"


def test_a_plant_says_its_alarms() -> None:
    (watch,) = read_plant(plant_with("high: 50, deadband: 1, priority: low, on_delay_s: 5"), "p").alarm_watches
    assert (watch.alarm, watch.tag, watch.high, watch.on_delay_s) == ("BR-1.t/warm", "BR-1.t", 50.0, 5.0)
    many = PLANT.model_dump(mode="json", by_alias=True)
    alarm = {"high": 50, "cause": "c", "effect": "e", "todo": "t"}
    many["units"]["BR-1"]["tags"]["temperature"]["alarms"] = {f"a{place}": alarm for place in range(501)}
    assert len(Plant.model_validate(many).alarm_watches) == 501


def test_a_rehearsal_sees_the_alarm_raised_and_acknowledged() -> None:
    watched = json.loads(json.dumps(REHEARSED))
    watched["branches"][1][0]["alarm"] = TOLD
    assert not_seen(rehearsal(of_steps(*WARM, watched))) == set()
    lost = rehearsal(of_steps(*WARM, watched), decide=deaf_to(cm.NoteAlarm))
    assert not_seen(lost) == {("p3", "alarm raised"), ("p3", "alarm acknowledged")}
