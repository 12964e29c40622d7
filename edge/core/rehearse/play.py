"""One batch of a rehearsal, from its start to its end, in virtual time: the engine, its effects, people and trouble."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeGuard

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.alarms import AlarmState, AlarmWatcher, is_there
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import Event, RowBody
from edge.core.guard import PLACEHOLDER, agrees, answer_made_up, fitted, judged
from edge.core.inputs import mid
from edge.core.limits import BAD_QUALITY_S, Watcher
from edge.core.line import (
    EXPIRY,
    NO_TIME,
    OVER,
    SAFE_STEP,
    Batch,
    Book,
    Condition,
    Effects,
    ExpiryClock,
    Line,
    Question,
    StepRun,
    Timer,
    UnitState,
    Watch,
    Write,
    apply,
    effects,
    shown_tag,
    tag_name,
)
from edge.core.plant import Tag
from edge.core.recipe.model import (
    Calculate,
    Hold,
    Label,
    Loop,
    Monitor,
    Ramp,
    Select,
    Service,
    Step,
    Wait,
)
from edge.core.rehearse.report import Aspect, Played, Raised
from edge.core.rehearse.stage import EXPIRES, Cell, Stage, Way, branch_name, who
from edge.core.service import COMPLETED
from edge.core.serving import module_of
from edge.core.terms import Act, ClockQuality, Quality, Reading, Role, Stamp, State, Value, convert, inside

LOOK_S: Final = 0.5
"""So often the line is looked at while something moves ..."""
LOOK_SHARE: Final = 0.1
"""... or after this share of the time since the last row, when that is more; what has come by then and stays is found
to `LOOK_S` all the same."""
AHEAD_S: Final = 86_400.0
"""So far it is looked ahead at most."""
PERSON_S: Final = 60.0
"""So long a person takes for what a step asks."""
MARGIN_S: Final = 2.0
PATIENT: Final = "=REHEARSAL1"
MADE_UP: Final = "rehearsal"
LOST: Final = "taken away for the rehearsal"
ROWS_MAX: Final = 200_000
"""So many rows one batch may make: a recipe that makes more does not come to an end."""
HOLDS_MAX: Final = 20
"""A batch that is held so often for the same reason does not get on."""
READINGS_MAX: Final = 1_000
LEAST_S: Final = 1e-6
"""The smallest step of time: the clock's own figures round."""
POWER_CUT: Final = "the power goes"
ALARM_RAISED: Final = "alarm raised"
ALARM_SEEN: Final = "alarm acknowledged"
Outcome = Literal["confirmed", "refused", "unknown"]
Answer = Literal["happened", "again", "abort"]
ANSWERS: Final[Mapping[Outcome, tuple[Answer, ...]]] = {
    "refused": ("again", "abort"),
    "unknown": ("again", "happened", "abort"),
}

_ByFormula = ev.BranchTaken | ev.PassBegun | ev.LoopEnded | ev.ValueRecorded


class Play:
    """One batch on a line of its own, from its start to its end, in virtual time."""

    def __init__(self, stage: Stage, cell: Cell, name: str, way: Way, *, trying: bool, bad: str = "") -> None:
        self.stage, self.cell, self.name, self.way, self.trying, self.bad = stage, cell, name, way, trying, bad
        self.line = Line(Book(stage.plant, {stage.seal: stage.recipe}, frozenset({stage.seal})))
        self.now_s = self.row_s = 0.0
        clean = {name: UnitState(True, self.stamp(), NO_TIME, "", "") for name in stage.plant.units}  # as they must be
        self.line = replace(self.line, units=clean)
        self.events: list[Event] = []
        self.started: set[tuple[str, int, int, str]] = set()
        self.watchers: dict[Watch, Watcher] = {}
        self.alarm_watchers: dict[str, AlarmWatcher] = {}
        self.asked: dict[Condition, float] = {}
        """Since when what a condition looks at cannot be used; the last look while it can."""
        self.shown: dict[str, Value] = {}
        """What a tag shows instead of what the cell says."""
        self.supposed: dict[str, Value] = {}
        """What tags show that the cell does not have."""
        self.lost: set[str] = set()
        """Tags whose reading is taken away."""
        tags = {tag_name(stage.units, named): named for named in stage.recipe.readings}
        self.pinned = {
            tag: Reading(way.inputs[named], stage.recipe.readings[named], Quality.GOOD, "", 0.0)
            for tag, named in tags.items()
            if named in way.inputs and (trying or cell.read(tag) is None)
        }
        """What selections, loops and calculations are given instead of what a tag shows."""
        self.tried: set[tuple[str, str]] = set()
        """What was tried at a step in this batch, whether it was seen or not."""
        self.left: set[str] = set()
        """Steps whose limit was left since they became active."""
        self.holds: Counter[str] = Counter()
        self.values: dict[str, ev.ValueRecorded] = {}
        """The latest value that each step recorded."""
        self.due: dict[str, str] = {}
        """What was entered at a step on purpose, and must follow from it."""
        self.wanted: tuple[Line, Effects] = (self.line, effects(self.line))
        self.idle: Line | None = None
        """The head at which nobody and nothing had anything to do but wait."""
        self.begin()

    def begin(self) -> None:
        """A runtime starts and people log in."""
        self.do(cm.StartRuntime(version=MADE_UP))
        recipe = self.stage.recipe
        self.do(cm.LoadRecipe(recipe=recipe.recipe, version=recipe.version, title=recipe.title, seal=self.stage.seal))
        for role in Role:
            for number in (1, 2):
                person = who(role, number)
                self.do(cm.OpenSession(session=person, person=person, roles=(role,), method=MADE_UP))

    def run(self) -> Played:
        """Start the batch and bring it to its end."""
        self.do(
            cm.StartBatch(
                session=who(Role.OPERATOR),
                batch=MADE_UP,
                order=MADE_UP,
                seal=self.stage.seal,
                patient=PATIENT,
                speed=self.stage.speed,
            )
        )
        return self.go_on(State.COMPLETE)

    def go_on(self, to: State) -> Played:
        """Bring the batch to its end, which should be in state `to`."""
        ended = ""
        while not ended and self.batch.state not in OVER:
            if len(self.events) > ROWS_MAX:
                ended = f"still {self.batch.state.value} after {ROWS_MAX:,} rows"
            elif max(self.holds.values(), default=0) > HOLDS_MAX:
                ended = f"held again and again: {self.holds.most_common(1)[0][0]}"
            else:
                ended = self.go_one_step()
        if not ended and self.batch.state is State.COMPLETE:
            runs = self.batch.steps
            skipped = [one for one in _walked(self.batch, self.stage.recipe.main()) if _state(runs.get(one)) != "done"]
            ended = f"complete, but not done: {', '.join(skipped)}" if skipped else ""
        ended = ended or self.batch.state.value
        return Played(self.name, ended, self.now_s, len(self.events), ended == to.value)

    def go_one_step(self) -> str:
        """Let one thing happen; why nothing more can, else ""."""
        try:
            if self.line is not self.idle and self.do_something():
                return ""
            self.idle = self.line
            if not self.pass_time(math.inf):
                return f"stands still: {self.waiting()}"
        except LinesideError as refusal:
            return f"refused what should be done: {refusal.what}"
        return ""

    def waiting(self) -> str:
        """What the batch waits for, in a sentence."""
        wanted = self.effects()
        shown = []
        for watch in wanted.watches:
            if watch.kind == "until":
                number = _number(self.reading(watch.tag))
                value = "nothing usable" if number is None else f"{number:g}"
                shown.append(
                    f"step {watch.step} waits for {watch.tag} {_span(watch.low, watch.high)}; it shows {value}"
                )
        shown += [f"step {one.step} waits until a formula is true, and it never is" for one in wanted.conditions]
        active = ", ".join(run.step for run in self.batch.active()) or "none"
        return "; ".join(shown) or f"{self.batch.state.value}, steps under way: {active}"

    def effects(self) -> Effects:
        """What must be under way for this head."""
        if self.wanted[0] is not self.line:
            self.wanted = (self.line, effects(self.line))
        return self.wanted[1]

    @property
    def batch(self) -> Batch:
        return self.line.batches[MADE_UP]

    def fork(self, name: str) -> Play:
        """The same batch, which from here on goes another way, without further trials."""
        other = copy(self)
        other.name, other.trying, other.bad, other.cell = f"{self.name}; {name}", False, "", self.cell.fork()
        other.events, other.started, other.watchers, other.asked = [*self.events], {*self.started}, {}, {}
        other.shown, other.supposed, other.lost = {**self.shown}, {**self.supposed}, {*self.lost}
        other.alarm_watchers = {}
        other.tried, other.left, other.holds = {*self.tried}, {*self.left}, Counter(self.holds)
        other.values, other.due = {**self.values}, {**self.due}
        return other

    # The line ----------------------------------------------------------------------------------------------------

    def stamp(self) -> Stamp:
        utc = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now_s)
        return Stamp(f"{utc:%Y-%m-%dT%H:%M:%S.%fZ}", ClockQuality.SYNCED, self.now_s, MADE_UP)

    def do(self, command: cm.Command) -> list[Event]:
        """Let the engine decide, fold what it says, and see what it means."""
        rows = self.decide(command)
        if self.trying:
            rows = self.with_bad_readings(command, rows)
        for row in rows:
            self.line = apply(self.line, row)
            self.see(row.event)
        if rows:
            self.row_s = self.now_s
        return [row.event for row in rows]

    def decide(self, command: cm.Command, bad_from: int = READINGS_MAX, bad: Container[str] = ()) -> list[RowBody]:
        """What the engine decides. Of the readings that it asks for, those of `bad` tags are bad from the given one on.

        What a step waits for is the cell's affair: the first ones are then as they are. What is chosen afterwards is
        led by the inputs."""
        count = itertools.count()
        waits = self.waited_for(command.step) if isinstance(command, cm.AskCondition) else 0

        def reading(tag: str) -> Reading | None:
            place = next(count)
            given = self.reading(tag) if place < waits else self.pinned.get(tag) or self.reading(tag)
            return _bad(given) if given and tag in bad and place >= bad_from else given

        return self.stage.decide(self.line, command, Now(self.stamp(), reading))

    def waited_for(self, step_id: str) -> int:
        """How many readings are looked at for what a step waits for, before anything is chosen because of it."""
        step = self.stage.recipe.steps()[step_id]
        if not isinstance(step, Service):
            return len(self.stage.readings_of(step))
        state, _ = module_of(self.stage.plant, self.batch.units, step).state(self.reading)
        return 1 + len(step.reports) if state == COMPLETED else READINGS_MAX

    def with_bad_readings(self, command: cm.Command, rows: list[RowBody]) -> list[RowBody]:
        """The rows as they are when the readings are bad that a step's formula needs, and no other's: from the first
        reading on from which it is that step's trouble."""
        step = next((one.event.step for one in rows if isinstance(one.event, _ByFormula) and self.fails(one.event)), "")
        if not step:
            return rows
        named = {tag_name(self.stage.units, one) for one in self.stage.readings_of(self.stage.recipe.steps()[step])}
        for bad_from in range(READINGS_MAX):
            other = self.decide(command, bad_from, named)
            troubles = [row.event for row in other if is_trouble(row.event, "formula.not_usable")]
            if not troubles:
                break
            if troubles[0].step == step:
                self.stage.cover(step, "quality", "lost")
                return other
        return rows

    def fails(self, by_formula: _ByFormula) -> bool:
        """Whether the readings are to be bad now with which a step made up its mind. Where it goes another way then,
        only in a batch for that."""
        step = self.stage.recipe.steps()[by_formula.step]
        decides = isinstance(step, Calculate | Select | Loop) and (step.on_bad_quality == "hold" or step.id == self.bad)
        return decides and self.try_once(step.id, "quality", "lost")

    def entered(self, step: Step, name: str) -> Value | None:
        """What is entered as this value to get on the way; None when that does not say."""
        if self.stage.recipe.loop_of(step.id) is not None:
            return self.way.inputs.get(name)  # values of the pass before would be taken for those of this one
        return self.stage.entered(self.way, name, {one: it.value for one, it in self.batch.values.items()})

    def see(self, event: Event) -> None:
        """What a row says about the points, whoever brought it about."""
        self.events.append(event)
        cover = self.stage.cover
        match event:
            case ev.StepActivated():
                self.left.discard(event.step)
            case ev.StepCompleted():
                cover(event.step, "steps", "carried out")
                cover(event.step, "limits", "kept", event.step not in self.left)
            case ev.ValueRecorded():
                cover(event.step, "limits", "met", event.within)
                self.values[event.step] = event
            case ev.ConditionMet():
                cover(event.step, "limits", "met")
            case ev.AlarmRaised():
                cover(event.step, "limits", ALARM_RAISED)
            case ev.BranchTaken():
                cover(event.step, "branches", branch_name(event.branch), not event.why)
            case ev.PassBegun():
                cover(event.step, "branches", "another pass", event.number > 1 and not event.why)
            case ev.LoopEnded():
                cover(event.step, "branches", f"ends by {event.formula}" if event.formula else "ends by its bound")
            case ev.ExceptionRaised():
                if event.code == "limit.outside":
                    self.left.add(event.step)
                    self.see_outside(event.step)
                key = (self.name, event.step, event.code)
                first = self.stage.exceptions.get(key)
                self.stage.exceptions[key] = (
                    replace(first, times=first.times + 1)
                    if first
                    else Raised(self.name, self.now_s, event.step, event.category, event.code, event.what)
                )
            case _:
                pass

    def see_outside(self, step: str) -> None:
        """On which side of its limit a calculated value is."""
        value = self.values.get(step)
        if value is not None and value.source == "calculated" and isinstance(value.value, float):
            self.stage.cover(step, "limits", "below", value.low is not None and value.value < value.low)
            self.stage.cover(step, "limits", "above", value.high is not None and value.value > value.high)

    # Readings ----------------------------------------------------------------------------------------------------

    def reading(self, full_name: str) -> Reading | None:
        """What a tag shows now, judged as the box judges it."""
        tag = self.stage.plant.tag(full_name)
        if tag is None:
            return None
        value = self.shown.get(full_name, self.cell.read(full_name))
        if value is None:
            value = self.suppose(full_name, tag, tag.low, tag.high)
        given = fitted(tag, value)
        if given is None:
            return None
        reading = judged(tag, Reading(given, tag.unit, Quality.GOOD, "", self.now_s))
        return _bad(reading) if full_name in self.lost else reading

    def suppose(self, full_name: str, tag: Tag, low: float | None, high: float | None) -> Value:
        """What a tag shows that the cell does not have: what suits whoever asks first, until it is written."""
        if full_name not in self.supposed:
            number = mid(tag.low if low is None else low, tag.high if high is None else high)
            numbers: dict[str, Value] = {"float": number, "int": round(number)}
            self.supposed[full_name] = numbers.get(tag.type, PLACEHOLDER[tag.type])
            self.stage.made_up.add(full_name)
        return self.supposed[full_name]

    # Time --------------------------------------------------------------------------------------------------------

    def pass_time(self, longest_s: float) -> bool:
        """Tell the line what is due, or go to the next moment at which something may be; False when there is none."""
        wanted = self.effects()
        if self.tell(wanted):
            return True
        at = self.stamp()
        left = [timer.left_s(at) for timer in wanted.timers]
        longest_s = min(longest_s, *(one for one in left if one > 0), math.inf)
        next_s = self.next_look_s(wanted, longest_s)
        if math.isinf(next_s):
            return False
        self.go_to(self.now_s + max(next_s, LEAST_S))
        return True

    def go_to(self, now_s: float) -> None:
        self.cell.pass_s(now_s - self.now_s)
        self.now_s = now_s

    def tell(self, wanted: Effects) -> bool:
        """Tell the line, as the engine does, which timers have passed and what readings mean; True when rows came."""
        before, at = len(self.events), self.stamp()
        for timer in wanted.timers:
            if timer.left_s(at) <= 0:
                self.pass_timer(timer)
        self.watchers = {one: self.watchers.get(one) or Watcher(one, self.now_s) for one in wanted.watches}
        for watch, watcher in self.watchers.items():
            tag = self.stage.plant.tag(watch.tag)
            if tag is not None and self.cell.read(watch.tag) is None:
                self.suppose(watch.tag, tag, watch.low, watch.high)
            reading = self.reading(watch.tag)
            finding = watcher.look(reading, self.now_s)
            if finding is not None and reading is not None:
                self.do(
                    cm.NoteReading(
                        batch=watch.batch,
                        step=watch.step,
                        iteration=watch.iteration,
                        finding=finding,
                        reading=reading,
                    )
                )
        self.look_for_alarms(wanted)
        self.asked = {one: self.asked.get(one, self.now_s) for one in wanted.conditions}
        for condition in self.asked:
            usable = self.usable(condition)
            if usable:
                self.asked[condition] = self.now_s
            self.do(
                cm.AskCondition(
                    batch=condition.batch,
                    step=condition.step,
                    iteration=condition.iteration,
                    bad=usable or self.now_s - self.asked[condition] >= BAD_QUALITY_S,
                )
            )
        return len(self.events) > before

    def pass_timer(self, timer: Timer) -> list[Event]:
        passed = timer.passed(self.stamp())
        return self.do(
            cm.PassTimer(
                batch=timer.batch,
                step=timer.step,
                iteration=timer.iteration,
                timer=timer.timer,
                low_s=passed.low_s,
                high_s=passed.high_s,
            )
        )

    def look_for_alarms(self, wanted: Effects) -> None:
        """Raise and clear the alarms of steps under way, and let a person acknowledge what is raised."""
        watchers = self.alarm_watchers
        self.alarm_watchers = {one.alarm: watchers.get(one.alarm) or AlarmWatcher(self.now_s) for one in wanted.alarms}
        for watch in wanted.alarms:
            known, reading = self.line.alarms.get(watch.alarm), self.reading(watch.tag)
            on = known is not None and known.on
            there = is_there(watch, reading, on=on)
            watcher = self.alarm_watchers[watch.alarm]
            finding = watcher.look(there, self.now_s, shown=on, on_delay_s=watch.on_delay_s)
            if finding is not None and reading is not None:
                command = cm.NoteAlarm(
                    watch=watch, finding=finding, value=reading.value, times=watcher.times, for_s=watcher.for_s
                )
                rows = self.do(command)
                if finding == "flooded" and rows:
                    watcher.told_flood(self.now_s)
        for alarm in list(self.line.alarms.values()):
            if alarm.state is not AlarmState.ACKNOWLEDGED:
                seen = cm.AcknowledgeAlarm(session=who(Role.OPERATOR), alarm=alarm.alarm, raised_seq=alarm.raised_seq)
                self.stage.cover(alarm.step, "people", ALARM_SEEN, bool(self.do(seen)))

    def usable(self, condition: Condition) -> bool:
        readings = [self.reading(tag) for tag in condition.tags]
        return all(reading is not None and reading.good for reading in readings)

    def next_look_s(self, wanted: Effects, longest_s: float) -> float:
        """After how long a look may find what this one did not; `longest_s` at most."""
        changing = any(self.changes(watch.tag) for watch in wanted.watches)
        for watch in wanted.watches:
            value = _number(self.reading(watch.tag))
            outside = value is not None and not inside(value, watch.low, watch.high)
            found_late = outside and watch.kind == "keep" and not watch.outside
            if found_late or watch.kind == "steady" or (value is None and watch.hold_on_bad):
                return min(LOOK_S, longest_s)
        for condition in wanted.conditions:
            bad_s = self.now_s - self.asked.get(condition, self.now_s)
            if not self.usable(condition) and bad_s < BAD_QUALITY_S + LOOK_S:
                return min(LOOK_S, longest_s)
            changing = changing or any(self.changes(tag) for tag in condition.tags)
        return self.next_find_s(wanted, min(longest_s, AHEAD_S)) if changing else longest_s

    def next_find_s(self, wanted: Effects, longest_s: float) -> float:
        """After how long the cell shows something that a look would find, tried on a cell that goes ahead."""
        now, ahead, low_s = self.cell, self.cell.fork(), 0.0
        try:
            while low_s < longest_s:
                high_s = min(low_s + max(LOOK_S, (self.now_s + low_s - self.row_s) * LOOK_SHARE), longest_s)
                ahead.pass_s(high_s - low_s)
                if not self.would_find(wanted, ahead):
                    low_s = high_s
                    continue
                while high_s - low_s > LOOK_S:
                    mid_s, middle = (low_s + high_s) / 2, now.fork()
                    middle.pass_s(mid_s)
                    low_s, high_s = (low_s, mid_s) if self.would_find(wanted, middle) else (mid_s, high_s)
                return high_s
            return longest_s
        finally:
            self.cell = now

    def would_find(self, wanted: Effects, cell: Cell) -> bool:
        """Whether a look at this cell would find something. It is the play's cell then."""
        self.cell = cell
        for watch in wanted.watches:
            value = _number(self.reading(watch.tag))
            stays = watch.kind == "keep" and not watch.outside
            if value is not None and inside(value, watch.low, watch.high) is not stays:
                return True
        return any(
            self.usable(one)
            and self.decide(cm.AskCondition(batch=one.batch, step=one.step, iteration=one.iteration, bad=False))
            for one in wanted.conditions
        )

    def changes(self, tag: str) -> bool:
        """True while what a tag shows changes by itself."""
        return tag not in self.shown and self.cell.read(tag) is not None and not self.cell.still(tag)

    def spend(self, seconds: float, run: StepRun) -> bool:
        """Let so much time pass; False when the step is not under way any more, or the batch does not run."""
        until_s = self.now_s + seconds
        while self.now_s < until_s and self.is_active(run):
            self.pass_time(until_s - self.now_s)
        return self.is_active(run)

    def is_active(self, run: StepRun) -> bool:
        now = self.batch.steps.get(run.step)
        same = now is not None and now.state == "active" and now.iteration == run.iteration
        return same and self.batch.state is State.RUNNING

    def look_for(self, seconds: float, found: Callable[[Event], bool]) -> bool:
        """Let time pass until a row says this; False when none did in that time."""
        until_s, seen = self.now_s + seconds, len(self.events)
        while self.now_s < until_s and self.pass_time(until_s - self.now_s):
            if any(found(event) for event in self.events[seen:]):
                return True
            seen = len(self.events)
        return False

    # What happens ------------------------------------------------------------------------------------------------

    def do_something(self) -> bool:
        """The next thing that equipment or a person does; False when there is nothing to do but wait."""
        for write in self.effects().writes:
            if (key := (write.step, write.iteration, write.attempt, write.tag)) not in self.started:
                self.started.add(key)
                self.write(write)
                return True
        batch = self.batch
        for clock in batch.clocks.values():
            if self.try_once(clock.step, "time-outs", EXPIRES):
                self.fork("what it took expires").expire(clock)
        if batch.state is State.HELD and batch.questions:
            self.answer(next(iter(batch.questions.values())))
            return True
        if batch.state is State.HELD:
            self.holds[batch.reason] += 1
            self.do(cm.ActOnBatch(session=who(Role.SUPERVISOR), batch=MADE_UP, act=Act.RESUME, reason="It is mended."))
            return True
        if batch.state is not State.RUNNING:
            return False
        runs = sorted(batch.active(), key=lambda run: not isinstance(self.step(run), Wait | Hold | Monitor | Ramp))
        return any(self.stage.phases[type(self.step(run))].act(self, self.step(run), run) for run in runs)

    def step(self, run: StepRun) -> Step:
        return self.stage.recipe.steps()[run.step]

    def try_once(self, step: str, aspect: Aspect, what: str) -> bool:
        """True when this must be seen, was not, and was not tried in this batch."""
        if not self.trying or (step, what) in self.tried or not self.stage.open(step, aspect, what):
            return False
        self.tried.add((step, what))
        return True

    def write(self, write: Write) -> None:
        """A write begins: refused, without an answer, or carried out and read back."""
        if self.trying and write.step != SAFE_STEP and self.batch.state is State.RUNNING:
            if self.try_once(write.step, "questions", POWER_CUT):
                self.fork("the power goes while it writes").power_cut(write)
            for outcome, answers in ANSWERS.items():
                if any(self.stage.open(write.step, "questions", f"{outcome}, {answer}") for answer in answers):
                    if outcome == "unknown":
                        self.act_on_cell(write)
                    self.conclude(write, outcome, None, "The rehearsal lets it be so.")
                    return
        self.act_on_cell(write)
        tag = self.stage.plant.tag(write.tag)
        if tag is not None and tag.method is not None:
            self.conclude(write, "confirmed", answer_made_up(tag.method), "")
            return
        until_s = self.now_s + (tag.settle_s if tag else 0.0)
        while True:
            took, seen = self.look_at(write, tag)
            if took and seen is not None:
                self.conclude(write, "confirmed", seen.value, "")
                return
            if self.now_s >= until_s:
                break
            self.go_to(min(self.now_s + LOOK_S, until_s))
        shown = f"{seen.value} {seen.unit}".rstrip() if seen else "nothing"
        self.conclude(write, "unknown", None, f"The read-back does not agree in time: it shows {shown}.")

    def look_at(self, write: Write, tag: Tag | None) -> tuple[bool, Reading | None]:
        """Whether what is read back shows that the write was carried out, and what is seen."""
        seen = self.reading(shown_tag(self.line, write.tag))
        for one in write.shown_at:
            seen = self.reading(one.at)
            if seen is None or not one.seen(self.stage.plant, seen):
                return False, seen
        if tag is None or seen is None or write.shown_at:
            return bool(write.shown_at), seen
        if write.shown_by:
            return seen.good and seen.value in write.shown_by, seen
        return agrees(tag, self.as_shown(write, tag), seen), seen

    def as_shown(self, write: Write, tag: Tag) -> Value:
        """What was written, in the unit of what it is read back from."""
        if isinstance(write.value, str) and write.shown_by:
            return write.shown_by[0]
        back = self.stage.plant.tag(shown_tag(self.line, write.tag))
        if back is None or back.unit == tag.unit or isinstance(write.value, bool | str):
            return write.value
        return convert(write.value, tag.unit, back.unit)

    def act_on_cell(self, write: Write) -> None:
        if not self.cell.write(write.tag, write.value):
            back = shown_tag(self.line, write.tag)
            tag = self.stage.plant.tag(write.tag)
            self.supposed[write.tag] = write.value
            if tag is not None and self.cell.read(back) is None:
                self.supposed[back] = self.as_shown(write, tag)
            self.stage.made_up |= {write.tag}

    def conclude(self, write: Write, outcome: Outcome, reading: Value | None, why: str) -> list[Event]:
        return self.do(
            cm.ConcludeWrite(
                batch=MADE_UP,
                step=write.step,
                iteration=write.iteration,
                attempt=write.attempt,
                tag=write.tag,
                outcome=outcome,
                reading=reading,
                why=why,
            )
        )

    def power_cut(self, write: Write) -> None:
        """The power goes while a write is under way: the box must ask what became of it."""
        events = self.do(cm.StartRuntime(version=MADE_UP))
        asked = any(isinstance(event, ev.QuestionRaised) and event.step == write.step for event in events)
        self.stage.cover(write.step, "questions", POWER_CUT, asked, "the power went, and nobody was asked")

    def restart(self, step: str) -> None:
        """The power goes while a step is under way for which that matters: the batch must be held."""
        self.do(cm.StartRuntime(version=MADE_UP))
        held = self.batch.state in {State.HOLDING, State.HELD}
        self.stage.cover(step, "questions", POWER_CUT, held, "the power went, and the batch went on")

    def expire(self, clock: ExpiryClock) -> None:
        """So much time passes that what a step took is expired, whatever else happens."""
        self.now_s += clock.use_within_s
        of_it = (one for one in self.effects().timers if one.timer == EXPIRY and one.step == clock.step)
        events = [event for timer in of_it for event in self.pass_timer(timer)]
        passed = any(isinstance(event, ev.ExpiryPassed) and event.step == clock.step for event in events)
        self.stage.cover(clock.step, "time-outs", EXPIRES, passed, "the time passed, and nobody was told")

    def answer(self, question: Question) -> None:
        """Somebody decides about a write: each answer once, aborting in a batch of its own."""
        outcome: Outcome = "unknown" if "happened" in question.answers else "refused"
        left = [one for one in question.answers if self.stage.open(question.step, "questions", f"{outcome}, {one}")]
        self.holds[f"question {question.question} is asked again"] += 1
        if "abort" in left and self.try_once(question.step, "questions", f"{outcome}, abort"):
            other = self.fork(f"aborted at step {question.step}, {outcome}")
            other.give_answer(question, "abort")
            played = other.go_on(State.ABORTED)
            self.stage.forked.append(played)
            self.stage.cover(question.step, "questions", f"{outcome}, abort", played.well, f"it ended {played.ended}")
        ways: list[Answer] = ["again", "happened"] if outcome == "unknown" else ["again"]
        answer = next((one for one in ways if one in left), ways[-1])
        events = self.give_answer(question, answer)
        wanted = ev.StepCompleted | ev.RampStepped | ev.ServiceSet if answer == "happened" else ev.CommandIntended
        if isinstance(self.stage.recipe.steps().get(question.step), Label):
            wanted = ev.CommandIntended | ev.ValueRecorded
        seen = any(isinstance(event, wanted) and event.step == question.step for event in events)
        self.stage.cover(question.step, "questions", f"{outcome}, {answer}", seen, "the answer had no effect")

    def give_answer(self, question: Question, answer: Answer) -> list[Event]:
        return self.do(
            cm.AnswerQuestion(
                session=who(Role.OPERATOR),
                batch=MADE_UP,
                question=question.question,
                answer=answer,
                reading=None,
                signed=self.signed(Role.OPERATOR),
            )
        )

    def signed(
        self, role: Role, number: Literal[1, 2] = 1, *, person: str = "", roles: tuple[Role, ...] = ()
    ) -> cm.Signed:
        signer = person or who(role, number)
        return cm.Signed(
            person=signer,
            roles=roles or (role,),
            role=role,
            methods=(MADE_UP,),
            meaning=MADE_UP,
            session=signer,
            subject_seq=self.line.seq,
            subject_hash="00" * 32,
            attestation="00" * 64,
        )

    def refused(self, step: str, what: str, command: cm.Command) -> None:
        """Ask for what must be refused; were it not, this batch would go on as if nobody had asked."""
        if self.try_once(step, "people", what):
            try:
                self.fork(what).do(command)
            except LinesideError:
                self.stage.cover(step, "people", what)
            else:
                self.stage.cover(step, "people", what, seen=False, why="it was not refused")

    # Equipment that leaves limits and fails ------------------------------------------------------------------------

    def leave_limit(self, run: StepRun, watch: Watch, what: str, value: float) -> None:
        """The reading leaves the limit half way to what comes next, and comes back."""
        self.half_way(run)
        if not self.is_active(run):
            return
        if self.batch.steps[run.step].outside:
            shown = _number(self.reading(watch.tag))
            why = f"{watch.tag} was outside before" + (f": it shows {shown:g}" if shown is not None else "")
            self.stage.cover(run.step, "limits", what, seen=False, why=why)
            self.stage.cover(run.step, "limits", "back inside", seen=False, why=why)
            return
        self.shown[watch.tag] = value
        wait_s = watch.delay_s + MARGIN_S
        seen = self.look_for(wait_s, lambda event: is_trouble(event, "limit.outside", run.step))
        why = f"{watch.tag} showed {value:g} for {wait_s:g} s, and no exception was raised"
        self.stage.cover(run.step, "limits", what, seen, why)
        del self.shown[watch.tag]
        back = self.look_for(MARGIN_S, lambda event: isinstance(event, ev.LimitRestored) and event.step == run.step)
        self.stage.cover(run.step, "limits", "back inside", back, f"{watch.tag} came back, and nobody noticed")

    def half_way(self, run: StepRun) -> None:
        if (next_s := self.next_timer_s()) > 4 * PERSON_S:
            self.spend(next_s / 2, run)

    def next_timer_s(self) -> float:
        """After how long the next timer is due; 0 when there is none."""
        at, timers = self.stamp(), self.effects().timers
        left = [timer.left_s(at) for timer in timers]
        return max(0.0, min(left, default=0.0))

    def lose(self, run: StepRun, tags: Sequence[str], *, holds: bool, wait_s: float = BAD_QUALITY_S + MARGIN_S) -> None:
        """The readings cannot be used for longer than connecting takes."""
        self.lost |= {*tags}
        held = self.look_for(wait_s, lambda event: isinstance(event, ev.BatchStateChanged) and event.cause == "quality")
        self.lost -= {*tags}
        word = "was not" if holds else "was"
        self.stage.cover(
            run.step, "quality", "lost", held is holds, f"no usable reading for {wait_s:g} s: it {word} held"
        )

    def time_out(self, run: StepRun, shown: Mapping[str, Value]) -> None:
        """What is waited for does not come: these tags show something else until the time-out has passed."""
        self.shown |= shown
        seen = self.look_for(math.inf, lambda event: is_trouble(event, "step.timeout", run.step))
        for tag in shown:
            del self.shown[tag]
        self.stage.cover(
            run.step, "time-outs", "passed", seen, "what it waits for did not come, and no time-out passed"
        )


def is_trouble(event: Event, code: str, step: str = "") -> TypeGuard[ev.ExceptionRaised]:
    return isinstance(event, ev.ExceptionRaised) and event.code == code and step in {"", event.step}


def _bad(reading: Reading) -> Reading:
    return replace(reading, quality=Quality.BAD, detail=LOST)


def _number(reading: Reading | None) -> float | None:
    """The number that a usable reading shows."""
    if reading is None or not reading.good or not isinstance(reading.value, int | float):
        return None
    return float(reading.value)


def _state(run: StepRun | None) -> str:
    return run.state if run else ""


def _walked(batch: Batch, sequence: Sequence[Step]) -> Iterator[str]:
    """The steps that a batch that is complete must have done, by the branches that it took."""
    places = {step.id: place for place, step in enumerate(sequence)}
    place = 0
    while place < len(sequence):
        step = sequence[place]
        yield step.id
        run = batch.steps.get(step.id)
        if isinstance(step, Select) and run is not None and run.branch is not None:
            taken = (step.else_ or ()) if run.branch < 0 else step.branches[run.branch].steps
            yield from _walked(batch, taken)
        elif not isinstance(step, Select) and not (isinstance(step, Loop) and run is not None and not run.passes):
            for _, inner in step.inner():
                yield from _walked(batch, inner)
        place = place + 1 if step.next is None else places[step.next]


def _span(low: float | None, high: float | None) -> str:
    if low is None:
        return f"up to {high:g}"
    return f"from {low:g}" if high is None else f"between {low:g} and {high:g}"
