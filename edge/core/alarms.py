"""Alarms (ISA-18.2): what asks a person to look and to act, from a condition to a row to an acknowledgement.

An alarm is open from the moment it is raised until its condition is over *and* somebody has acknowledged it:

    raised    ->  unacknowledged   -- acknowledged ->  acknowledged
                       |                                    |
                    cleared                              cleared
                       |                                    |
                  returned         -- acknowledged ->    normal (no longer open)

Shelving is left out: what should not be told now is a matter for whoever writes the plant file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Final, Literal

from edge.core.quick import dataclass
from edge.core.room import Level
from edge.core.terms import Reading, Stamp, Value

CONNECTION_S: Final = 10.0
"""A device may be away so long: it connects again by itself."""
Priority = Literal["high", "medium", "low"]
PRIORITIES: Final[tuple[Priority, ...]] = ("high", "medium", "low")
OPEN_MAX: Final = 200
"""So many are open at once; one more says that there are more, which are raised when there is room."""
TOO_MANY: Final = "alarms"
"""The alarm that says so."""
FLOOD_S: Final = 60.0
FLOOD_RAISES: Final = 3
"""A source that raises its alarm so often within `FLOOD_S` floods: it stays raised, and one row counts ..."""
FLOOD_ROW_S: Final = 600.0
"""... once it is quiet for `FLOOD_S`, or after so long while it is not."""


class AlarmState(StrEnum):
    """Of an alarm. One that is normal is not kept."""

    NORMAL = "normal"
    """There is no such condition, and nobody has to look."""
    UNACKNOWLEDGED = "unacknowledged"
    """The condition is there. Acknowledging is asked for."""
    ACKNOWLEDGED = "acknowledged"
    """The condition is there, and somebody has seen it. Ends by itself with the condition."""
    RETURNED = "returned"
    """The condition is over, and nobody has seen it. Acknowledging ends it."""


Happening = Literal["raised", "cleared", "acknowledged"]
TRANSITIONS: Final[Mapping[tuple[AlarmState, Happening], AlarmState]] = {
    (AlarmState.NORMAL, "raised"): AlarmState.UNACKNOWLEDGED,
    (AlarmState.UNACKNOWLEDGED, "cleared"): AlarmState.RETURNED,
    (AlarmState.UNACKNOWLEDGED, "acknowledged"): AlarmState.ACKNOWLEDGED,
    (AlarmState.ACKNOWLEDGED, "cleared"): AlarmState.NORMAL,
    (AlarmState.RETURNED, "acknowledged"): AlarmState.NORMAL,
    (AlarmState.RETURNED, "raised"): AlarmState.UNACKNOWLEDGED,
}
"""What is not in it changes nothing."""
ON: Final = frozenset({AlarmState.UNACKNOWLEDGED, AlarmState.ACKNOWLEDGED})
"""States in which the condition is there."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an alarm says to a person."""

    priority: Priority
    cause: str
    effect: str
    todo: str


DISK_LOW: Final = Told(
    "medium",
    "The disk is nearly full.",
    "No batch starts.",
    "Archive old rows, or call the engineer: `lineside disk status`.",
)
DISK_FULL: Final = Told(
    "high",
    "The disk is full.",
    "Batches are held; they can be stopped and aborted.",
    "Call the engineer: `lineside disk status`.",
)
UNRESTORABLE: Final = (
    "If the box were lost now, it might not come back from a backup of today. Work goes on.",
    "Look at the home screen for what was found, put the medium right, and try with `lineside drill`.",
)
UNSOUND: Final = (
    "What is under way goes on; nothing may be released.",
    "Call quality and the engineer: `lineside verify`.",
)


@dataclass(frozen=True, slots=True)
class AlarmWatch:
    """Level: raise the alarm when its condition has lasted `on_delay_s`, and clear it when it is over.

    The condition: the tag's reading is below `low`, above `high` or equal to `equals`; it is over when the reading is
    inside by `deadband` (all in the tag's unit). Without a tag the box itself says whether it is there."""

    alarm: str
    told: Told
    batch: str = ""
    step: str = ""
    tag: str = ""
    low: float | None = None
    high: float | None = None
    equals: bool | None = None
    deadband: float = 0.0
    on_delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """An open alarm. `raised_seq` is the row that raised it last: what is acknowledged."""

    alarm: str
    batch: str
    step: str
    tag: str
    told: Told
    state: AlarmState
    value: Value | None
    raised_seq: int
    since: Stamp
    times: int = 1
    """How often it was raised since it was normal."""

    @property
    def on(self) -> bool:
        """Its condition is there."""
        return self.state in ON


Open = Mapping[str, Alarm]


def opened(alarms: Open, watch: AlarmWatch, value: Value | None, seq: int, at: Stamp) -> Open:
    """The open alarms after this one was raised."""
    was = alarms.get(watch.alarm)
    state = TRANSITIONS.get((was.state if was else AlarmState.NORMAL, "raised"), AlarmState.UNACKNOWLEDGED)
    times = was.times + 1 if was else 1
    alarm = Alarm(watch.alarm, watch.batch, watch.step, watch.tag, watch.told, state, value, seq, at, times)
    return {**alarms, watch.alarm: alarm}


def after(alarms: Open, name: str, what: Happening) -> Open:
    """The open alarms after this happened to one of them."""
    alarm = alarms.get(name)
    state = TRANSITIONS.get((alarm.state, what)) if alarm else None
    if alarm is None or state is None:
        return alarms
    if state is AlarmState.NORMAL:
        return {key: one for key, one in alarms.items() if key != name}
    return {**alarms, name: replace(alarm, state=state)}


def counted(alarms: Open, name: str, times: int) -> Open:
    """The open alarms after a flood of this one was counted."""
    alarm = alarms.get(name)
    return alarms if alarm is None else {**alarms, name: replace(alarm, times=alarm.times + times)}


def in_order(alarms: Open) -> list[Alarm]:
    """As they are shown: those that nobody has acknowledged first, then by priority, then the newest."""
    seen = {AlarmState.ACKNOWLEDGED: 1}
    return sorted(
        alarms.values(),
        key=lambda one: (seen.get(one.state, 0), PRIORITIES.index(one.told.priority), -one.raised_seq),
    )


def is_there(watch: AlarmWatch, reading: Reading | None, *, on: bool) -> bool | None:
    """Whether a reading says that the condition is there; None when it says nothing. `on`: it was there."""
    if reading is None or not reading.good:
        return None
    value = reading.value
    if watch.equals is not None:
        return value is watch.equals
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    inwards = watch.deadband if on else 0.0
    below = watch.low is not None and value < watch.low + inwards
    return below or (watch.high is not None and value > watch.high - inwards)


def alarms_of_box(
    connected: Mapping[str, bool], disk: Level, check_found: Sequence[str], drill_found: Sequence[str]
) -> Iterator[tuple[AlarmWatch, bool]]:
    """What the box itself raises: a device that does not answer, a disk that fills, a record or the day's backup that
    does not hold."""
    for name, answers in connected.items():
        told = Told(
            "high",
            f"{name} does not answer.",
            "Its readings are not usable; steps that need them hold the batch.",
            "Check power and cable. It connects again by itself.",
        )
        yield AlarmWatch(f"connection {name}", told, on_delay_s=CONNECTION_S), not answers
    yield AlarmWatch("disk low", DISK_LOW), disk is not Level.ROOM
    yield AlarmWatch("disk full", DISK_FULL), disk is Level.FULL
    first = check_found[0][:200] if check_found else ""
    told = Told("high", f"The record does not hold: {first}", *UNSOUND)
    yield AlarmWatch("self-check", told), bool(check_found)
    first = drill_found[0][:200] if drill_found else ""
    told = Told("high", f"The day's backup does not hold: {first}", *UNRESTORABLE)
    yield AlarmWatch("backup", told), bool(drill_found)


Finding = Literal["raised", "cleared", "flooded"]


class AlarmWatcher:
    """Looks at one condition. Like `edge.core.limits.Watcher` it repeats a finding until the head has changed; what it
    alone knows is since when, and how often a source that floods came and went: a crash forgets the count since the
    last row."""

    def __init__(self, now_s: float) -> None:
        self.times = 0
        """How often the condition came back since the last row, while it floods."""
        self.for_s = 0.0
        self._there: bool | None = None
        self._since_s = now_s
        self._raises: deque[float] = deque(maxlen=FLOOD_RAISES)
        self._shown = False
        self._flood_since_s: float | None = None

    def look(self, there: bool | None, now_s: float, *, shown: bool, on_delay_s: float) -> Finding | None:
        """What is to be said now. `shown`: the head has the alarm on."""
        if shown and not self._shown:
            self._raises.append(now_s)
        self._shown = shown
        if there is None:
            self._there = None
            return None
        if there is not self._there:
            came = there and self._there is False
            self._there, self._since_s = there, now_s
            if self._flood_since_s is not None and came:
                self.times += 1
        steady_s = now_s - self._since_s
        if self._flood_since_s is not None:
            self.for_s = now_s - self._flood_since_s
            calm = steady_s >= FLOOD_S
            if calm and not self.times:
                self._flood_since_s = None
                self._raises.clear()
            elif self.times and (calm or self.for_s >= FLOOD_ROW_S):
                return "flooded"
            else:
                return None
        if there and not shown:
            return "raised" if steady_s >= on_delay_s else None
        if not there and shown:
            often = len(self._raises) == FLOOD_RAISES and now_s - self._raises[0] < FLOOD_S
            if often:
                self._flood_since_s, self.times = now_s, 0
                return None
            return "cleared"
        return None

    def told_flood(self, now_s: float) -> None:
        """The row that counts is made."""
        self.times, self._flood_since_s = 0, now_s
