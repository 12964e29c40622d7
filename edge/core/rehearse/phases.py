"""How each phase is rehearsed: what must be seen at a step, what a person does there, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.events import Event
from edge.core.forms import (
    LABELS_GOOD,
    PRINT_AGAIN,
    Ask,
    Result,
    asks,
    choices_of,
    is_within,
    labels_printed,
    open_ask,
    weight_limits,
)
from edge.core.formula import names_in
from edge.core.inputs import Wish, mid
from edge.core.line import Batch, StepRun, shown_tag, tag_name
from edge.core.recipe import limit_in
from edge.core.recipe.model import (
    Calculate,
    Call,
    Clearance,
    Custody,
    Dispose,
    Form,
    Hold,
    Instruct,
    Invoke,
    Label,
    Limit,
    Loop,
    Monitor,
    Parallel,
    Ramp,
    Record,
    Sample,
    Scan,
    Select,
    Service,
    Set,
    Sign,
    Step,
    Transfer,
    Wait,
    Weigh,
)
from edge.core.recipe.values import ITERATION, whole
from edge.core.rehearse.play import (
    ALARM_RAISED,
    ALARM_SEEN,
    ANSWERS,
    MADE_UP,
    PATIENT,
    PERSON_S,
    POWER_CUT,
    Play,
    is_trouble,
)
from edge.core.rehearse.stage import Phase, Points, Stage, branch_name, branch_wishes, who
from edge.core.service import EXECUTE
from edge.core.serving import Module, module_of
from edge.core.terms import ClockQuality, Quality, Reading, Role, Stamp, State, Value, convert

ANOTHER: Final = "=REHEARSAL2"
PRINTED_AGAIN: Final = "labels are printed again, signed and with a reason"
OTHER_ROLE: Final = "another role is refused"
SAME_PERSON: Final = "the same person twice is refused"
WRONG_CODE: Final = "a wrong code is refused"
NOBODY: Final = "nobody comes"
UNREADABLE: Final = "\N{REPLACEMENT CHARACTER}"
"""A code that begins with nothing that anybody expects."""

Entry = tuple[str, str, str]
"""What is entered: its name among the points, the text, and the code of the exception that must follow; "" for none."""


def _none(_stage: Stage, _step: Step) -> Points:
    return ()


# People do one thing ---------------------------------------------------------------------------------------------


def _waited_for(step: Step) -> Points:
    if getattr(step, "warn_after", ""):
        yield "time-outs", NOBODY


def _comes(play: Play, step: Step, run: StepRun) -> bool:
    """A person comes, in time or late; False when the step does not wait for one any more."""
    if play.try_once(step.id, "time-outs", NOBODY):
        codes = ("step.waits", "sample.overdue")
        warned = play.look_for(math.inf, lambda event: any(is_trouble(event, code, step.id) for code in codes))
        play.stage.cover(step.id, "time-outs", NOBODY, warned, "nobody came, and nobody was told")
    return play.spend(PERSON_S, run)


def _instruct_points(_stage: Stage, step: Instruct) -> Points:
    yield from _waited_for(step)
    yield "people", OTHER_ROLE


def _instruct(play: Play, step: Instruct, run: StepRun) -> bool:
    if _comes(play, step, run):
        command = cm.ConfirmStep(session=who(step.role), batch=MADE_UP, step=step.id)
        play.refused(step.id, OTHER_ROLE, replace(command, session=who(_other(step.role))))
        play.do(command)
    return True


def _record_points(stage: Stage, step: Record) -> Points:
    yield from _waited_for(step)
    yield "people", OTHER_ROLE
    yield from (("limits", what) for what, _, _ in _entries(stage, step))


def _entries(stage: Stage, result: Result) -> Iterator[Entry]:
    """What must be entered once for a result."""
    low, high = (None, None) if result.limit is None else limit_in(stage.recipe, result.limit, result.unit)
    if result.limit is not None:
        yield from _numbers(low, high)
    if result.type == "at_most":
        text = f"< {_text(mid(low, high))}"
        yield "below quantitation", text, "" if is_within(result, text, low, high) else "result.not_within"
    judged = [(choice, is_within(result, choice, None, None)) for choice in choices_of(result)]
    for choice, accepted in sorted(judged, key=lambda one: not one[1]):
        yield f"choice: {choice}", choice, "" if accepted else "result.not_accepted"
    if result.pending:
        yield "pending", "pending", ""


def _numbers(low: float | None, high: float | None) -> Iterator[Entry]:
    yield "met", _text(mid(low, high)), ""
    far = _far(low, high)
    if low is not None:
        yield "below", _text(low - far), "limit.outside"
    if high is not None:
        yield "above", _text(high + far), "limit.outside"


def _chosen(play: Play, step: Step, name: str, entries: Sequence[Entry], part: str = "") -> Entry:
    """What is entered now: what the way asks for; else what was not entered yet, when anything goes; else what is
    all right."""
    if (value := play.entered(step, name)) is not None:
        text = _text(value) if isinstance(value, float) else str(value)
        return next((one for one in entries if one[1] == text), ("", text, ""))
    if play.trying:
        return next((one for one in entries if play.stage.open(step.id, "limits", part + one[0])), entries[0])
    return entries[0]


def _plain(result: Result) -> Entry:
    return "", "1" if result.type in {"number", "at_most"} else "as planned", ""


def _enter(play: Play, step: Step, command: cm.EnterValue, entry: Entry, part: str = "") -> None:
    """Enter it, and see whether what must follow does, at the latest when the step is done."""
    what, text, code = entry
    events = play.do(replace(command, text=text))
    if what:
        seen = any(is_trouble(event, code, step.id) for event in events) if code else bool(events)
        play.stage.cover(step.id, "limits", part + what, seen, f"{text!r} was entered, and no exception was raised")


def _record(play: Play, step: Record, run: StepRun) -> bool:
    if _comes(play, step, run):
        command = cm.EnterValue(session=who(step.role), batch=MADE_UP, step=step.id, text="1")
        play.refused(step.id, OTHER_ROLE, replace(command, session=who(_other(step.role))))
        entries = list(_entries(play.stage, step)) or [_plain(step)]
        _enter(play, step, command, _chosen(play, step, step.name, entries))
    return True


def _scan_points(_stage: Stage, step: Scan) -> Points:
    yield from _waited_for(step)
    yield "people", OTHER_ROLE
    yield "people", WRONG_CODE


def _scan(play: Play, step: Scan, run: StepRun) -> bool:
    if _comes(play, step, run):
        right, wrong = (PATIENT, ANOTHER) if step.expect == "patient" else (f"{step.prefix}1", UNREADABLE)
        if step.coding == "gs1":
            right = f"{step.prefix}(17)491231(10)1"
        elif step.expect == "lot" and isinstance(value := play.entered(step, step.name), str):
            right = value
        _scan_code(play, step, run, cm.ScanCode(session=who(step.role), batch=MADE_UP, step=step.id, text=right), wrong)
    return True


def _scan_code(play: Play, step: Step, run: StepRun, right: cm.ScanCode, wrong: str, part: str = "") -> None:
    play.refused(step.id, part + OTHER_ROLE, replace(right, session=who(_other(step.role))))
    if play.try_once(step.id, "people", part + WRONG_CODE):
        # without a prefix every code is right that can be read
        events = play.do(replace(right, text=wrong if wrong != UNREADABLE or right.text != "1" else ""))
        seen = any(isinstance(event, ev.ScanRefused) for event in events)
        play.stage.cover(step.id, "people", part + WRONG_CODE, seen, "it was taken")
    if play.is_active(run):
        play.do(right)


# People do one thing after another ---------------------------------------------------------------------------------


def _asked(stage: Stage, step: Step) -> tuple[Ask, ...]:
    """What a step asks for when nothing is given yet."""
    recipe = stage.recipe
    batch = Batch(MADE_UP, MADE_UP, PATIENT, recipe.recipe, recipe.version, stage.seal, 1, stage.units, stage.speed)
    run = StepRun(step.id, step.phase, step.title, 1, 1, Stamp("", ClockQuality.FREE, 0.0, ""), 0.0, 0.0)
    return asks(recipe, batch, step, run)


def _form_points(stage: Stage, step: Form | Sign) -> Points:
    yield from _waited_for(step)
    signatures = 0
    for ask in _asked(stage, step):
        if ask.kind != "reading":
            yield "people", f"{ask.part}: {OTHER_ROLE}"
        if ask.kind == "sign":
            signatures += 1
            if signatures > 1:
                yield "people", f"{ask.part}: {SAME_PERSON}"
        elif ask.kind == "scan":
            yield "people", f"{ask.part}: {WRONG_CODE}"
        elif ask.kind in {"value", "choice"} and not isinstance(step, Dispose | Weigh | Label):
            yield from (("limits", f"{ask.part}: {what}") for what, _, _ in _answers(stage, ask))
    if isinstance(step, Weigh):
        yield from (("limits", what) for what, _ in _net(stage, step))
        if step.balance:
            yield "quality", "lost"
    if isinstance(step, Label) and step.printer:
        yield from _write_points(stage, step)
        yield "people", PRINTED_AGAIN
    if isinstance(step, Label) and step.reconcile:
        yield "limits", "none missing"
        yield "limits", "one missing"


def _answers(stage: Stage, ask: Ask) -> Iterator[Entry]:
    if ask.result is not None:
        yield from _entries(stage, ask.result)
    elif ask.low is not None or ask.high is not None:
        yield from _numbers(ask.low, ask.high)


def _net(stage: Stage, step: Weigh) -> Iterator[tuple[str, float]]:
    """The net weights that must be seen once."""
    target, low, high = weight_limits(stage.recipe, step)
    yield "met", target
    if step.tolerance is not None:
        if low > 0:
            yield "below", low - min(_far(low, high), low / 2)
        yield "above", high + _far(low, high)


def _form(play: Play, step: Form | Sign, run: StepRun) -> bool:
    run = play.batch.steps[step.id]
    ask = open_ask(play.stage.recipe, play.batch, step, run)
    if ask is None:
        return False
    if ask.kind == "reading":
        return isinstance(step, Weigh) and _balance(play, step, run, ask)
    if not _comes(play, step, run):
        return True
    session, part = who(ask.role), f"{ask.part}: "
    match ask.kind:
        case "confirm":
            confirm = cm.ConfirmStep(session=session, batch=MADE_UP, step=step.id, part=ask.part)
            play.refused(step.id, part + OTHER_ROLE, replace(confirm, session=who(_other(ask.role))))
            play.do(confirm)
        case "scan":
            right = ask.exactly or f"{ask.prefix}1"
            if right == ask.unlike:
                right = f"{ask.prefix}2"
            scan = cm.ScanCode(session=session, batch=MADE_UP, step=step.id, part=ask.part, text=right)
            _scan_code(play, step, run, scan, UNREADABLE if ask.exactly or ask.prefix else "", part)
        case "sign":
            events = _sign(play, step, run, ask)
            if isinstance(step, Weigh):
                _judge_weight(play, step, events)
        case _:
            enter = cm.EnterValue(session=session, batch=MADE_UP, step=step.id, part=ask.part, text="1")
            play.refused(step.id, part + OTHER_ROLE, replace(enter, session=who(_other(ask.role))))
            _enter_part(play, step, run, ask, enter)
    return True


def _sign(play: Play, step: Step, run: StepRun, ask: Ask) -> list[Event]:
    taken = {person for person, _ in run.signed}
    signed = play.signed(ask.role, 1 if who(ask.role) not in taken else 2)
    command = cm.SignStep(session=who(ask.role), batch=MADE_UP, step=step.id, part=ask.part, signed=signed)
    other = play.signed(_other(ask.role))
    play.refused(step.id, f"{ask.part}: {OTHER_ROLE}", replace(command, signed=other))
    if taken:
        again = play.signed(ask.role, person=next(iter(taken)), roles=tuple(Role))
        play.refused(step.id, f"{ask.part}: {SAME_PERSON}", replace(command, signed=again))
    return play.do(command)


def _enter_part(play: Play, step: Step, run: StepRun, ask: Ask, command: cm.EnterValue) -> None:
    if isinstance(step, Weigh):
        tare = run.given.get(f"{step.name}.tare")
        if not isinstance(tare, float):
            play.do(replace(command, text="10"))
            return
        what, net = _weight(play, step)
        play.due[step.id] = what
        play.do(replace(command, text=_text(tare + net)))
    elif isinstance(step, Label) and ask.result is not None:
        again = ask.part.endswith(".check 1") and play.try_once(step.id, "people", PRINTED_AGAIN)
        events = play.do(replace(command, text=PRINT_AGAIN if again else LABELS_GOOD if ask.choices else "One tore."))
        play.stage.cover(step.id, "people", PRINTED_AGAIN, ask.result.type == "text" and events)
    elif isinstance(step, Label) and ask.part.startswith(f"{step.name}.count "):
        play.do(replace(command, text=str(step.copies)))
    elif isinstance(step, Label):
        part = ask.part.rpartition(".")[2]
        if part == "used":
            play.due[step.id] = "one missing" if play.try_once(step.id, "limits", "one missing") else "none missing"
        due = play.due.get(step.id, "")
        there = round(labels_printed(step, run)) or step.copies
        counts = {"printed": step.copies, "used": there - (due == "one missing"), "void": 0}
        events = play.do(replace(command, text=str(counts[part])))
        if part == "void":
            raised = any(is_trouble(event, "limit.outside", step.id) for event in events)
            play.stage.cover(step.id, "limits", due, raised is (due == "one missing"), "it was not told")
    else:
        entries = list(_answers(play.stage, ask)) or [_plain(ask.result) if ask.result else ("", "1", "")]
        if isinstance(step, Dispose) and ask.choices:
            entries = [one for one in entries if one[1] in ask.choices]  # no longer what would leave it open
        part = f"{ask.part}: "
        _enter(play, step, command, _chosen(play, step, ask.part, entries, part), part)


def _weight(play: Play, step: Weigh) -> tuple[str, float]:
    nets = list(_net(play.stage, step))
    if isinstance(value := play.entered(step, step.name), float):
        return "", value
    return next((one for one in nets if play.trying and play.stage.open(step.id, "limits", one[0])), nets[0])


def _judge_weight(play: Play, step: Weigh, events: Sequence[Event]) -> None:
    """Whether the net weight is judged as it must be, once it is known."""
    if what := play.due.get(step.id, ""):
        judged = [event for event in events if isinstance(event, ev.ValueRecorded) and event.name == step.name]
        if judged:
            del play.due[step.id]
            raised = any(is_trouble(event, "limit.outside", step.id) for event in events)
            play.stage.cover(step.id, "limits", what, raised is (what != "met"), "no exception was raised")


def _balance(play: Play, step: Weigh, run: StepRun, ask: Ask) -> bool:
    """The container stands on the balance: once it cannot be read, then it stands still."""
    full_name = tag_name(play.batch.units, step.balance)
    if play.try_once(step.id, "quality", "lost"):
        play.lose(run, [full_name], holds=step.on_bad_quality == "hold")
        return True
    tag = play.stage.plant.tag(full_name)
    if tag is None:
        return False
    tare = run.given.get(f"{step.name}.tare")
    what, weight = ("", 10.0) if not isinstance(tare, float) else _weight(play, step)
    weight += tare if isinstance(tare, float) else 0.0
    before = len(play.events)
    play.shown[full_name] = convert(weight, step.unit, tag.unit)
    play.due[step.id] = what
    done = play.look_for(
        math.inf, lambda event: isinstance(event, ev.ValueRecorded) and event.name == ask.part and event.step == step.id
    )
    _judge_weight(play, step, play.events[before:])
    return done


# Equipment ---------------------------------------------------------------------------------------------------------


def _write_points(_stage: Stage, _step: Set | Ramp | Invoke | Service | Label) -> Points:
    for outcome, answers in ANSWERS.items():
        for answer in answers:
            yield "questions", f"{outcome}, {answer}"
    yield "questions", POWER_CUT


def _ramp_points(stage: Stage, step: Ramp) -> Points:
    yield from _write_points(stage, step)
    yield "quality", "lost"


def _ramp(play: Play, step: Ramp, run: StepRun) -> bool:
    if "ramp" in run.given or not play.try_once(step.id, "quality", "lost"):
        return False
    play.lose(run, [shown_tag_of(play, step)], holds=True, wait_s=play.next_timer_s() + PERSON_S)
    return True


def shown_tag_of(play: Play, step: Ramp) -> str:
    """What shows where the set-point of a ramp stands."""
    return shown_tag(play.line, tag_name(play.batch.units, step.tag))


def _outside(stage: Stage, named: str, limit: Limit) -> Iterator[tuple[str, float]]:
    """Plausible readings outside of a limit, in the tag's unit, one on each side that has one."""
    tag = stage.plant.tag(tag_name(stage.units, named))
    if tag is None:
        return
    low, high = limit_in(stage.recipe, limit, tag.unit)
    far = _far(low, high)
    if low is not None and (tag.low is None or tag.low < low):
        yield "below", low - far if tag.low is None else max(low - far, (low + tag.low) / 2)
    if high is not None and (tag.high is None or tag.high > high):
        yield "above", high + far if tag.high is None else min(high + far, (high + tag.high) / 2)


def _power_points(step: Wait | Hold | Monitor) -> Points:
    if not isinstance(step, Monitor) and step.on_restart != "resume":
        yield "questions", POWER_CUT


def _wait_points(stage: Stage, step: Wait) -> Points:
    yield from _power_points(step)
    if step.tag or step.until:
        yield "limits", "met"
        yield "time-outs", "passed"
        if step.tag or stage.readings_of(step):
            yield "quality", "lost"


def _wait_wishes(_stage: Stage, step: Wait | Service, _what: str) -> Sequence[Wish]:
    return [(step.until, step.id, True)] if step.until else ()


def _wait(play: Play, step: Wait, run: StepRun) -> bool:
    if play.try_once(step.id, "questions", POWER_CUT):
        play.fork("the power goes").restart(step.id)
    if not step.tag and not step.until:
        return False
    named = [step.tag] if step.tag else play.stage.readings_of(step)
    tags = {one: tag_name(play.batch.units, one) for one in named}
    if play.try_once(step.id, "quality", "lost"):
        play.lose(run, list(tags.values()), holds=step.on_bad_quality == "hold")
        return True
    if play.try_once(step.id, "time-outs", "passed"):
        shown: dict[str, Value] = {}
        if step.tag and step.limit:
            for _, value in _outside(play.stage, step.tag, step.limit):
                shown[tags[step.tag]] = value
        elif any(not name.startswith("$") and name not in named for name in names_in(step.until)):
            # it also depends on what was recorded on the way: everything stays as it is now, where it is not there yet
            readings = {full_name: play.reading(full_name) for full_name in tags.values()}
            shown = {full_name: reading.value for full_name, reading in readings.items() if reading and reading.good}
        elif found := play.stage.finder.find([(step.until, step.id, False)]):
            for one, full_name in tags.items():
                if tag := play.stage.plant.tag(full_name):
                    shown[full_name] = convert(float(found[one]), play.stage.recipe.readings[one], tag.unit)
        if shown:
            play.time_out(run, shown)
            return True
        play.stage.cover(step.id, "time-outs", "passed", seen=False, why="no plausible reading keeps it waiting")
    return False


def _keep_points(stage: Stage, step: Hold | Monitor) -> Points:
    yield from _power_points(step)
    yield "limits", "kept"
    outside = list(_outside(stage, step.tag, step.limit))
    yield from (("limits", what) for what, _ in outside)
    if outside:
        yield "limits", "back inside"
    if outside and step.alarm is not None:
        yield "limits", ALARM_RAISED
        yield "people", ALARM_SEEN
    yield "quality", "lost"


def _keep(play: Play, step: Hold | Monitor, run: StepRun) -> bool:
    if play.try_once(step.id, "questions", POWER_CUT):
        play.fork("the power goes").restart(step.id)
    watch = next((one for one in play.effects().watches if one.step == step.id), None)
    if watch is None:
        return False
    for what, value in _outside(play.stage, step.tag, step.limit):
        if play.try_once(step.id, "limits", what):
            play.leave_limit(run, watch, what, value)
            return True
    if play.try_once(step.id, "quality", "lost"):
        play.half_way(run)
        if play.is_active(run):
            play.lose(run, [watch.tag], holds=step.on_bad_quality == "hold")
        return True
    return False


# Modules -----------------------------------------------------------------------------------------------------------


def _modes(module: Module) -> Iterator[tuple[str, Value]]:
    """The tags that say whether the module takes commands, each with what it shows when it does not."""
    declared = module.declared
    wrong: tuple[tuple[str | None, Value], ...] = (
        (declared.automatic, False), (declared.external, False), (declared.mode, 0), (declared.unit_mode, 0)
    )  # fmt: skip
    yield from ((module.full(tag), value) for tag, value in wrong if tag is not None)


def _service_points(stage: Stage, step: Service) -> Points:
    yield from _write_points(stage, step)
    if step.until:
        yield "limits", "met"
    yield "time-outs", "passed"
    yield "quality", "lost"
    yield "modules", "it holds"
    yield "modules", "it aborts"
    if any(_modes(module_of(stage.plant, stage.units, step))):
        yield "modules", "it is in another mode"


def _service(play: Play, step: Service, run: StepRun) -> bool:
    """The module does not do as it should, each in a batch of its own; in this one it does."""
    module = module_of(play.stage.plant, play.batch.units, step)
    codes, state = module.machine.codes, module.state_tag
    modes = list(_modes(module))
    if "started" not in run.given:
        if modes and play.try_once(step.id, "modules", "it is in another mode"):
            shown = dict(modes[:1])
            ours = module.switch(lambda tag: Reading(shown.get(tag, True), "", Quality.GOOD, "", 0.0), {})
            code = "command.unknown" if ours else "service.mode"  # what the box switches does not follow
            _disturb(play, step, "it is in another mode", shown, code)
    elif run.given.get("state") == EXECUTE:
        if play.try_once(step.id, "modules", "it holds"):
            _disturb(play, step, "it holds", {state: codes["held"]}, "service.held")
        if play.try_once(step.id, "modules", "it aborts"):
            other = _disturb(play, step, "it aborts", {state: codes["aborted"]}, "service.aborted")
            decided = bool(other.batch.questions) or other.batch.state in {State.ABORTING, State.ABORTED}
            play.stage.cover(step.id, "modules", "it aborts", decided, "nothing followed")
        if play.try_once(step.id, "time-outs", "passed"):
            other = play.fork("it never completes")
            other.shown[state] = codes["completing"]
            seen = other.look_for(math.inf, lambda event: is_trouble(event, "service.timeout", step.id))
            play.stage.cover(step.id, "time-outs", "passed", seen, "it stayed completing, and no time-out passed")
        if play.try_once(step.id, "quality", "lost"):
            play.fork("its state cannot be read").lose(run, [state], holds=True)
    return False


def _disturb(play: Play, step: Service, what: str, shown: Mapping[str, Value], code: str) -> Play:
    other = play.fork(what)
    other.shown |= shown
    seen = other.look_for(PERSON_S, lambda event: is_trouble(event, code, step.id))
    if code != "service.aborted":
        play.stage.cover(step.id, "modules", what, seen, f"{what}, and no exception was raised")
    return other


# What formulas decide ----------------------------------------------------------------------------------------------


def _formula_points(stage: Stage, step: Step) -> Points:
    if stage.readings_of(step):
        yield "quality", "lost"


def _calculate_points(stage: Stage, step: Calculate) -> Points:
    yield from _formula_points(stage, step)
    if step.limit is not None:
        low, high = limit_in(stage.recipe, step.limit, step.unit)
        yield "limits", "met"
        yield from (("limits", what) for what, end in (("below", low), ("above", high)) if end is not None)


def _calculate_wishes(stage: Stage, step: Calculate, what: str) -> Sequence[Wish]:
    limit = step.limit
    if limit is None or what not in {"met", "below", "above"}:
        return ()
    low, high = limit_in(stage.recipe, limit, step.unit)
    inside = [f"({step.formula}) {sign} ({end})" for sign, end in ((">=", low), ("<=", high)) if end is not None]
    if what == "met":
        return [(one, step.id, True) for one in inside]
    return [(inside[0] if what == "below" else inside[-1], step.id, False)]


def _select_points(stage: Stage, step: Select) -> Points:
    for place in range(len(step.branches)):
        yield "branches", branch_name(place)
    yield "branches", branch_name(-1)
    yield from _formula_points(stage, step)


def _select_wishes(_stage: Stage, step: Select, what: str) -> Sequence[Wish]:
    places = {branch_name(place): place for place in (*range(len(step.branches)), -1)}
    return branch_wishes(step, places[what]) if what in places else ()


def _loop_points(stage: Stage, step: Loop) -> Points:
    asked = list(step.formulas().values())
    if whole(stage.recipe, step.times) > 1:
        yield "branches", "another pass"
    yield from (("branches", f"ends by {one}") for one in asked)
    if not any(ITERATION in names_in(one) for one in asked):
        yield "branches", "ends by its bound"
    yield from _formula_points(stage, step)


def _loop_wishes(_stage: Stage, step: Loop, what: str) -> Sequence[Wish]:
    goes_on: list[Wish] = [(step.until, step.id, False)] if step.until else []
    if what == f"ends by {step.while_}":
        return [*goes_on, (step.while_, step.id, False)]
    if what == f"ends by {step.until}":
        return [(step.until, step.id, True)]
    return [*goes_on, *([(step.while_, step.id, True)] if step.while_ else [])]


_FORM: Final = Phase(_form_points, _form)
PHASES: Final[Mapping[type, Phase]] = {
    Instruct: Phase(_instruct_points, _instruct),
    Record: Phase(_record_points, _record),
    Scan: Phase(_scan_points, _scan),
    **dict.fromkeys((Sign, Weigh, Sample, Label, Transfer, Custody, Clearance, Dispose), _FORM),
    **dict.fromkeys((Set, Invoke), Phase(_write_points)),
    Ramp: Phase(_ramp_points, _ramp),
    Wait: Phase(_wait_points, _wait, _wait_wishes),
    Hold: Phase(_keep_points, _keep),
    Monitor: Phase(_keep_points, _keep),
    Calculate: Phase(_calculate_points, wishes=_calculate_wishes),
    Select: Phase(_select_points, wishes=_select_wishes),
    Loop: Phase(_loop_points, wishes=_loop_wishes),
    Parallel: Phase(_none),
    Call: Phase(_none),
    Service: Phase(_service_points, _service, _wait_wishes),
}
"""How each phase is rehearsed. A phase that is not here cannot be: `rehearse.phase`."""


# Small questions ---------------------------------------------------------------------------------------------------


def _other(role: Role) -> Role:
    return Role.AUDITOR if role is not Role.AUDITOR else Role.ENGINEER


def _far(low: float | None, high: float | None) -> float:
    """How far outside of a limit a value is that is certainly outside."""
    if low is not None and high is not None and high > low:
        return (high - low) / 2
    return max(abs(low or high or 0.0) * 0.1, 1.0)


def _text(value: float) -> str:
    return f"{value:.12g}"
