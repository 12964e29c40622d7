"""Steps that go on by hand: their equipment cannot be used, or a supervisor took them. What is asked, and what follows.

Two people do what the box would have done. One enters a value (or does a write at the device's own panel and enters
what that shows), a second one enters it again without seeing the first entry, and both sign. The step's mode is in the
head (`edge.core.mode`); while it is not automatic, `edge.core.line.effects` wants neither watch nor write of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.forms import parse_number, printable, weight_limits
from edge.core.formula import names_in
from edge.core.guard import agrees
from edge.core.line import Batch, Line, Question, StepRun, shown_tag, tag_name
from edge.core.mode import DONE, HAND, IN_STATES, LATE, MODES, STATE, Hand, HandAct, Mode
from edge.core.people import Permission, permitted, roles_with
from edge.core.plant import Tag
from edge.core.quick import dataclass
from edge.core.recipe import limit_in, set_point_in
from edge.core.recipe.model import (
    Calculate,
    Hold,
    Invoke,
    Loop,
    Monitor,
    Ramp,
    Select,
    Service,
    Set,
    Step,
    Wait,
    Weigh,
)
from edge.core.recipe.values import ramp_end_in, said
from edge.core.service import COMPLETED
from edge.core.serving import module_of
from edge.core.terms import Quality, Reading, Role, Value

KEPT: Final = "Nothing was taken; the step is unchanged."
SWITCHED: Final = {
    HandAct.TAKE: "this step goes on by hand: its equipment cannot be used",
    HandAct.MANUAL: "this step is done in manual mode",
    HandAct.RETURN: "this step goes on automatically",
}
"""The meaning of the signature that switches a step."""
BY_HAND: Final = {
    HandAct.ENTER: "read off the device, or done at it, by hand",
    HandAct.VERIFY: "verified at the device by a second person",
}
"""The meaning of the signature of an entry."""
WRITES = Set | Ramp | Service
READS = Wait | Hold | Monitor
DECIDES = Calculate | Select | Loop
WATCHED = Hold | Monitor

Latest = Callable[[str], Reading | None]


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that two people enter, in `unit`. `wanted` is what must come out of a write."""

    part: str
    text: str
    tag: str = ""
    unit: str = ""
    kind: str = "number"
    """"number", "choice" or "text"; what was done is a text that the second person signs, and does not enter again."""
    choices: tuple[str, ...] = ()
    wanted: float | None = None


# Questions to the head -----------------------------------------------------------------------------------------------


def tags_of(line: Line, batch: Batch, step: Step) -> tuple[str, ...]:
    """The tags whose readings the box needs for the step, by their full names."""
    match step:
        case Set() | Ramp():
            return (shown_tag(line, tag_name(batch.units, step.tag)),)
        case Wait() | Hold() | Monitor() if step.tag:
            return (tag_name(batch.units, step.tag),)
        case Weigh() if step.balance:
            return (tag_name(batch.units, step.balance),)
        case Service():
            module = module_of(line.book.plant, batch.units, step)
            return (module.state_tag, *(module.full(module.declared.reports[one.report]) for one in step.reports))
        case Wait() | Calculate() | Select() | Loop():
            recipe = line.recipe(batch)
            names = dict.fromkeys(name for text in step.formulas().values() for name in names_in(text))
            return tuple(tag_name(batch.units, name) for name in names if name in recipe.readings)
        case _:
            return ()


def unusable(line: Line, batch: Batch, step: Step, latest: Latest) -> str:
    """The first of the step's tags whose reading cannot be used now; empty when all can."""
    readings = ((tag, latest(tag)) for tag in tags_of(line, batch, step))
    return next((tag for tag, reading in readings if reading is None or not reading.good), "")


def questions_of(batch: Batch, step: str) -> list[Question]:
    """The open questions about writes of the step."""
    return [one for one in batch.questions.values() if one.step == step and one.tag]


def refusal(
    line: Line, batch: Batch, run: StepRun, act: HandAct, latest: Latest, roles: tuple[Role, ...] | None = None
) -> LinesideError | None:
    """Why `act` is not allowed at the step now; by a person with these roles, where they are given."""
    mode = run.hand.mode if run.hand else Mode.AUTOMATIC
    step = line.recipe(batch).steps()[run.step]
    if batch.state not in IN_STATES[act]:
        return LinesideError(
            "hand.state",
            f"Batch {batch.batch} is {batch.state.value}: no step of it can be told to {act.value}.",
            effect=KEPT,
            todo="Look at the batch's state first.",
        )
    if (mode, act) not in MODES:
        return LinesideError(
            "hand.mode",
            f"Step {run.step} is {mode.value}: {act.value} is not possible.",
            effect=KEPT,
            todo="Look at the step that the screen shows now.",
        )
    if roles is not None and not permitted(roles, PERMISSION[act]):
        able = ", ".join(role.value for role in roles_with(PERMISSION[act]))
        return LinesideError(
            "people.not_permitted",
            f"None of these roles may {PERMISSION[act].value} here: {', '.join(role.value for role in roles)}.",
            effect=KEPT,
            todo=f"Ask someone with one of these roles: {able}.",
        )
    if act in {HandAct.TAKE, HandAct.MANUAL}:
        return _no_hand(line, batch, step, act, latest)
    if act is HandAct.RETURN and isinstance(step, WRITES) and batch.state not in IN_STATES[HandAct.ENTER]:
        return LinesideError(
            "hand.state",
            f"Batch {batch.batch} is {batch.state.value}: the box would write for step {run.step}, and a batch that "
            "stands still is not written to.",
            effect=KEPT,
            todo="Resume the batch first; the step then goes on by hand until it is returned.",
        )
    if act is HandAct.RETURN and isinstance(step, WRITES) and run.hand is not None and run.hand.claimed:
        return LinesideError(
            "hand.claimed",
            f"Step {run.step}: somebody said that it was done by hand. The box would do it a second time.",
            effect=KEPT,
            todo="Let a second person verify it, or stop the batch.",
        )
    return None


def _no_hand(line: Line, batch: Batch, step: Step, act: HandAct, latest: Latest) -> LinesideError | None:
    """Why the step cannot be done by hand, or not now."""
    takes = act is HandAct.TAKE
    if isinstance(step, Invoke):
        return LinesideError(
            "hand.method",
            f"Step {step.id} calls a method of the device, which no person can do at a panel in the box's place.",
            effect=KEPT,
            todo="Wait until the device is there again, and resume; or stop the batch.",
        )
    possible = tags_of(line, batch, step) if takes else isinstance(step, WRITES | READS | Weigh)
    if not possible or (isinstance(step, Weigh) and not step.balance):
        return LinesideError(
            "hand.nothing",
            f"In step {step.id} ({step.phase}) the box does nothing that a person could do in its place.",
            effect=KEPT,
            todo="Do what the step asks for.",
        )
    units = {tag.partition(".")[0] for tag in tags_of(line, batch, step)}
    recipe = line.recipe(batch)
    never = "the recipe" if "never" in {recipe.by_hand, step.by_hand} else ""
    never = never or next((f"the plant file ({u})" for u in sorted(units) if not line.book.plant.units[u].by_hand), "")
    if never:
        return LinesideError(
            "hand.never",
            f"Step {step.id} is never done by hand: {never} says so.",
            effect=KEPT,
            todo="Mend the equipment, then resume; or stop the batch.",
        )
    if any(intent.step == step.id and not intent.in_doubt for intent in batch.intents.values()):
        return write_open(step)
    if takes and not unusable(line, batch, step, latest) and not questions_of(batch, step.id):
        return LinesideError(
            "hand.usable",
            f"Step {step.id}: all that it needs of its equipment can be used.",
            effect=KEPT,
            todo="Let the box do it. A supervisor can switch the step to manual, for a reason.",
        )
    return None


def write_open(step: Step) -> LinesideError:
    """The refusal while the outcome of a write of the step is awaited: it may still be sent."""
    return LinesideError(
        "hand.write_open",
        f"Step {step.id}: a write of the box is under way.",
        effect=KEPT,
        todo="Wait a few seconds until its outcome is known.",
    )


PERMISSION: Final = {
    HandAct.TAKE: Permission.BY_HAND,
    HandAct.MANUAL: Permission.MODE,
    HandAct.RETURN: Permission.BY_HAND,
    HandAct.ENTER: Permission.BY_HAND,
    HandAct.VERIFY: Permission.VERIFY,
}


def open_part(line: Line, batch: Batch, run: StepRun, latest: Latest) -> Part | None:
    """What two people must enter next; None while nothing is due, or the step is automatic."""
    hand = run.hand
    if hand is None:
        return None
    every = parts(line, batch, run, hand, latest)
    if hand.part:  # it waits for the second person
        return next((one for one in every if one.part == hand.part), None)
    step = line.recipe(batch).steps()[run.step]
    if hand.mode is Mode.SEMI_AUTOMATIC and isinstance(step, WATCHED) and not hand.due:
        return None
    left = next((one for one in every if one.part not in hand.given), None)
    if left is None and isinstance(step, READS) and every:  # again and again: the one that was entered longest ago
        oldest = next(iter(hand.given))
        left = next((one for one in every if one.part == oldest), every[0])
    return left


def parts(line: Line, batch: Batch, run: StepRun, hand: Hand, latest: Latest) -> tuple[Part, ...]:
    """All that people enter in this step by hand, in order."""
    step = line.recipe(batch).steps()[run.step]
    if hand.mode is Mode.MANUAL:
        found = _recorded(line, batch, step)
        told = f"{_task(line, batch, step)} Then enter what was done."
        return (*found, Part(DONE, told, kind="text"))
    return tuple(_in_place(line, batch, step, hand, latest))


def _in_place(line: Line, batch: Batch, step: Step, hand: Hand, latest: Latest) -> Iterator[Part]:
    match step:
        case Set() | Ramp():
            full_name, wanted, unit = _set_point(line, batch, step)
            told = f"{_task(line, batch, step)} Then enter what its panel shows."
            yield Part(full_name, told, full_name, unit, wanted=wanted)
        case Service():
            told = f"{_task(line, batch, step)} Then choose the state that its panel shows."
            module = module_of(line.book.plant, batch.units, step)
            yield Part(STATE, told, module.state_tag, kind="choice", choices=(COMPLETED, "stopped", "aborted"))
            yield from _recorded(line, batch, step)
        case Weigh():
            yield from _recorded(line, batch, step)
        case _:
            for full_name in tags_of(line, batch, step):
                reading = latest(full_name)
                if isinstance(step, Wait | Hold | Monitor) and step.tag:
                    needed = True
                else:  # of a formula: what the box can read is read
                    needed = full_name in hand.given or full_name == hand.part or reading is None or not reading.good
                if needed:
                    told = f"Read {full_name} off the device, or measure it by other means, and enter it."
                    yield Part(full_name, told, full_name, _tag(line, full_name).unit)


def _recorded(line: Line, batch: Batch, step: Step) -> tuple[Part, ...]:
    """The values that the step leaves in the record, to be entered one after another."""
    recipe = line.recipe(batch)
    match step:
        case Weigh():
            target, low, high = weight_limits(recipe, step)
            wanted = f"{target:g} {step.unit} ({low:g} to {high:g})"
            empty = "Weigh the empty container on another balance, and enter what that shows."
            full = f"{said(recipe, step.text)} Weigh in {wanted} on that balance. Enter what the full container weighs."
            return (
                Part(f"{step.name}.tare", empty, unit=step.unit),
                Part(f"{step.name}.gross", full, unit=step.unit),
            )
        case Service():
            module, found = module_of(line.book.plant, batch.units, step), []
            for one in step.reports:
                full_name = module.full(module.declared.reports[one.report])
                told = f"Enter what {module.said} reports: {one.report}."
                choices = ("true", "false") if one.type == "bool" else ()
                kind = {"number": "number", "bool": "choice"}.get(one.type, "text")
                found.append(Part(one.name, told, full_name, one.unit, kind, choices))
            return tuple(found)
        case _:
            return ()


def _task(line: Line, batch: Batch, step: Step) -> str:
    """What the people do in the box's place."""
    recipe = line.recipe(batch)
    match step:
        case Set():
            full_name, wanted, unit = _set_point(line, batch, step)
            return f"Set {full_name} to {f'{wanted:g} {unit}'.rstrip()} at the device's panel."
        case Ramp():
            full_name, wanted, unit = _set_point(line, batch, step)
            end = f"{wanted:g} {unit}".rstrip()
            return f"Take {full_name} to {end} at the panel, by {step.rate} {step.unit}/{step.per} at most."
        case Service():
            module = module_of(line.book.plant, batch.units, step)
            return f"Run {module.said} at the module's panel to its end."
        case Wait() if step.duration:
            return f"Wait {said(recipe, step.duration)}."
        case Wait() | Hold() | Monitor() if step.tag:
            return f"Look after {tag_name(batch.units, step.tag)}."
        case _:
            return "Do what this step is for."


def _set_point(line: Line, batch: Batch, step: Set | Ramp) -> tuple[str, float, str]:
    """The tag that the step writes, what must stand there in the end, and in which unit."""
    full_name, recipe = tag_name(batch.units, step.tag), line.recipe(batch)
    unit = _tag(line, full_name).unit
    return (
        full_name,
        set_point_in(recipe, step, unit) if isinstance(step, Set) else ramp_end_in(recipe, step, unit),
        unit,
    )


def _tag(line: Line, full_name: str) -> Tag:
    tag = line.book.plant.tag(full_name)
    if tag is None:
        raise LinesideError("tag.unknown", f"The plant has no tag {full_name}.", todo="Check the plant file.")
    return tag


def value_by_hand(line: Line, batch: Batch, step: str, full_name: str) -> tuple[Value, str] | None:
    """What two people entered for a tag that a formula of the step names, and its unit; None when they did not."""
    run = batch.steps.get(step)
    if run is None or run.hand is None or full_name not in run.hand.given:
        return None
    return run.hand.given[full_name], _tag(line, full_name).unit


def waits(line: Line, batch: Batch, step: Step, latest: Latest) -> bool:
    """True while a formula of a step by hand waits for a value that people must enter."""
    run = batch.steps[step.id]
    if run.hand is None:
        return False
    return any(one.part not in run.hand.given for one in parts(line, batch, run, run.hand, latest))


# A step is switched --------------------------------------------------------------------------------------------------


def _step_of(d: Decision, command: cm.SwitchMode | cm.EnterByHand) -> tuple[Batch, Step, StepRun]:
    batch = d.batch(command.batch)
    run = batch.steps.get(command.step)
    if run is None or run.state != "active" or command.iteration not in {0, run.iteration}:
        raise LinesideError(
            "step.not_active",
            f"Step {command.step[:32]} is not under way now.",
            effect=KEPT,
            todo="Look at the step that the screen shows now.",
        )
    return batch, d.recipe(batch).steps()[run.step], run


def switch(d: Decision, command: cm.SwitchMode) -> None:
    """Another mode for one step, signed. Open questions about its writes are closed by it: people do what is left."""
    batch, step, run = _step_of(d, command)
    act = command.act
    if why := refusal(d.line, batch, run, act, d.now.reading, _roles(command.signed)):
        raise why
    if act is not HandAct.TAKE and not command.reason.strip():
        raise LinesideError(
            "hand.reason",
            "Switching a step needs a reason.",
            effect=KEPT,
            todo="Say why; it becomes part of the record.",
        )
    was = run.hand.mode if run.hand else Mode.AUTOMATIC
    mode, bad = MODES[was, act], unusable(d.line, batch, step, d.now.reading)
    asked = questions_of(batch, step.id) if mode is not Mode.AUTOMATIC else []
    d.make_signature(batch.batch, step.id, command.signed)
    changed = _changed(d, batch, step, bad, asked, was=was, now=mode, reason=command.reason.strip())
    d.emit(changed)
    for one in asked:
        d.emit(ev.QuestionAnswered(batch=batch.batch, question=one.question, step=step.id, answer=HAND, reading=None))
    if mode is not Mode.AUTOMATIC:
        by = f"by {d.actor}" + (f", {changed.reason}" if changed.reason else "")
        code = "step.by_hand" if mode is Mode.SEMI_AUTOMATIC else "step.manual"
        what = f"{run.title}: goes on by hand {by}. {changed.trouble}".rstrip()
        if mode is Mode.MANUAL:
            what = f"{run.title}: switched to manual {by}."
        d.raise_exception(batch.batch, step.id, "major", code, what)
    elif isinstance(step, Set):
        full_name, value, _ = _set_point(d.line, batch, step)
        d.intend(batch.batch, step.id, run.iteration, changed.attempt, full_name, value)
    if asked:
        d.questions_settled(batch.batch, f"Step {step.id} goes on by hand, says {d.actor}.")
    d.proceed(batch.batch)


def _changed(
    d: Decision, batch: Batch, step: Step, bad: str, asked: list[Question], *, was: Mode, now: Mode, reason: str
) -> ev.ModeChanged:
    """The row: what cannot be used, over which connection, since when and how good its reading is."""
    run = batch.steps[step.id]
    tag = bad or (asked[0].tag if asked else "")
    reading = d.now.reading(tag) if tag else None
    connection = _tag(d.line, tag).connection if tag else ""
    alarm = d.line.alarms.get(f"connection {connection}")
    since = alarm.since.utc if alarm is not None and alarm.on else reading.source_utc if bad and reading else ""
    trouble = ""
    if bad:
        why = "there is no reading" if reading is None else reading.detail.rstrip(".") or reading.quality.value
        trouble = f"{tag} ({connection}) cannot be used: {why}."
    elif asked:
        trouble = f"A write to {tag} ({connection}) failed: {asked[0].why}"
    number = max([run.attempt, *(int(one.question.rpartition(".")[2]) for one in asked)])
    return ev.ModeChanged(
        batch=batch.batch,
        step=step.id,
        was=was.value,
        now=now.value,
        cause="equipment" if now is Mode.SEMI_AUTOMATIC else "person",
        reason=reason,
        tag=tag,
        connection=connection,
        since_utc=since,
        quality=reading.quality.value if reading else Quality.BAD.value if bad else "",
        trouble=trouble,
        attempt=number + 1 if now is Mode.AUTOMATIC else number,
    )


def _roles(signed: cm.Signed) -> tuple[Role, ...]:
    """The role in which the person signs, if they have it."""
    return (signed.role,) if signed.role in signed.roles else ()


# Entries -------------------------------------------------------------------------------------------------------------


def enter(d: Decision, command: cm.EnterByHand) -> None:
    """One person enters; another one enters the same without having seen it. What differs is not taken at all."""
    batch, step, run = _step_of(d, command)
    signed, act = command.signed, HandAct.VERIFY if command.verifies else HandAct.ENTER
    if why := refusal(d.line, batch, run, act, d.now.reading, _roles(signed)):
        raise why
    hand = run.hand
    assert hand is not None, "the table permits entries in these modes alone"
    part = open_part(d.line, batch, run, d.now.reading)
    if part is None or command.part not in {"", part.part} or command.verifies != bool(hand.part):
        raise LinesideError(
            "step.moved_on",
            f"Step {step.id} asks for something else by now.",
            effect=KEPT,
            todo="Look at what the step asks for now.",
        )
    if command.verifies and signed.person == hand.person:
        raise LinesideError(
            "signature.same_person",
            f"{signed.person} made this entry; somebody else must verify it.",
            effect=KEPT,
            todo="Ask a second person to read the device and to enter it again.",
        )
    value = hand.value if command.verifies and part.kind == "text" else _value(d, batch, step, part, command.text)
    if not command.verifies:
        d.make_signature(batch.batch, step.id, signed)
        d.emit(
            ev.HandEntered(
                batch=batch.batch,
                step=step.id,
                part=part.part,
                tag=part.tag,
                value=value,
                unit=part.unit,
                person=signed.person,
                role=signed.role.value,
                writes=isinstance(step, WRITES),
            )
        )
        return
    if value != hand.value:
        _differs(d, batch, step, run, part, hand, signed)
        return
    d.make_signature(batch.batch, step.id, signed)
    d.emit(
        ev.HandVerified(
            batch=batch.batch,
            step=step.id,
            part=part.part,
            tag=part.tag,
            value=value,
            unit=part.unit,
            entered_by=hand.person,
            person=signed.person,
            role=signed.role.value,
        )
    )
    _follow(d, batch.batch, step, part, value)
    d.proceed(batch.batch)


def _value(d: Decision, batch: Batch, step: Step, part: Part, text: str) -> Value:
    """The typed text as what the part asks for. Raises `entry.*` and `by_hand.not_as_wanted`."""
    text = printable(text)
    if part.kind == "text":
        return text
    if part.kind == "choice":
        if text not in part.choices:
            raise LinesideError(
                "entry.choice",
                f"{text[:40]!r} is not one of the choices.",
                effect=KEPT,
                todo="Choose one of: " + ", ".join(part.choices) + ".",
            )
        if part.part == STATE and text != COMPLETED:
            raise _not_as_wanted(f"the service is {text}, and this step is done when it is {COMPLETED}")
        return text == "true" if part.choices == ("true", "false") else text
    number = parse_number(text)
    assert isinstance(number, float)
    tag = d.line.book.plant.tag(part.tag) if part.tag and part.part == part.tag else None
    if tag is not None and ((tag.low is not None and number < tag.low) or (tag.high is not None and number > tag.high)):
        raise LinesideError(
            "hand.implausible",
            f"{number:g} {part.unit} is not plausible: {part.tag} lies between {tag.low} and {tag.high} {tag.unit}.",
            effect=KEPT,
            todo="Read the device again.",
        )
    if part.wanted is not None and tag is not None:
        seen = Reading(number, tag.unit, Quality.GOOD, "", 0.0)
        if not agrees(tag, part.wanted, seen):
            wanted = f"{part.wanted:g} {part.unit}".rstrip()
            raise _not_as_wanted(f"the panel of {part.tag} shows {number:g} {part.unit}, and the recipe wants {wanted}")
    tare = batch.steps[step.id].hand
    if isinstance(step, Weigh) and part.part == f"{step.name}.gross" and tare is not None:
        empty = tare.given.get(f"{step.name}.tare", 0.0)
        if isinstance(empty, float) and number < empty:
            raise LinesideError(
                "entry.weight",
                f"The full container weighs {number:g} {part.unit}; empty it weighed {empty:g} {part.unit}.",
                effect=KEPT,
                todo="Look at the balance again, and enter the weight of container and content.",
            )
    return number


def _not_as_wanted(what: str) -> LinesideError:
    return LinesideError(
        "hand.not_as_wanted",
        f"This step is not done: {what}.",
        effect=KEPT,
        todo="Bring the device to what the recipe wants, then enter what it shows.",
    )


def _differs(d: Decision, batch: Batch, step: Step, run: StepRun, part: Part, hand: Hand, signed: cm.Signed) -> None:
    """Two entries that differ: a row, which is then told to the second person, and both begin again."""
    why = f"The two entries differ ({hand.person}, {signed.person}). Neither was taken."
    d.actor = signed.person
    d.emit(
        ev.HandRefused(
            batch=batch.batch, step=step.id, part=part.part, entered_by=hand.person, person=signed.person, why=why
        )
    )
    d.raise_exception(batch.batch, step.id, "minor", "hand.differs", f"{run.title}: {why}")


def _follow(d: Decision, name: str, step: Step, part: Part, value: Value) -> None:
    """What comes of an entry that two people made."""
    batch = d.line.batches[name]
    hand = batch.steps[step.id].hand
    assert hand is not None
    if isinstance(step, Weigh) and part.part.startswith(f"{step.name}."):
        _record(d, batch, step, part.part, value, part.unit)
        if part.part == f"{step.name}.gross":
            after = d.line.batches[name]
            d.conclude_weighing(after, step, after.steps[step.id])
    elif isinstance(step, Service) and part.part in {one.name for one in step.reports}:
        _report(d, batch, step, part, value)
    if hand.mode is Mode.MANUAL:
        if part.part == DONE:
            d.complete(name, step.id)
        return
    match step:
        case Set() | Ramp():
            d.complete(name, step.id)
        case Weigh() | Service():
            if all(one.part in hand.given for one in parts(d.line, batch, batch.steps[step.id], hand, d.now.reading)):
                d.complete(name, step.id)
        case Hold() | Monitor():
            _watched(d, batch, step, part, value)
        case Wait() if step.tag:
            low, high = (None, None) if step.limit is None else limit_in(d.recipe(batch), step.limit, part.unit)
            if isinstance(value, float) and (low is None or value >= low) and (high is None or value <= high):
                _record(d, batch, step, step.tag, value, part.unit, low, high)
                d.complete(name, step.id)
        case Wait():
            found = d.work_out(name, step, step.until)
            if found.value is True:
                d.emit(ev.ConditionMet(batch=name, step=step.id, formula=step.until, inputs=found.inputs))
                d.complete(name, step.id)
        case _:
            pass  # a formula that the box works out as soon as it has all its values


def _record(
    d: Decision,
    batch: Batch,
    step: Step,
    name: str,
    value: Value,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    *,
    within: bool = True,
) -> None:
    d.emit(
        ev.ValueRecorded(
            batch=batch.batch,
            step=step.id,
            name=name,
            value=value,
            unit=unit,
            source=HAND,
            quality=HAND,
            low=low,
            high=high,
            within=within,
        )
    )


def _report(d: Decision, batch: Batch, step: Service, part: Part, value: Value) -> None:
    report = next(one for one in step.reports if one.name == part.part)
    low, high = limit_in(d.recipe(batch), report.limit, report.unit) if report.limit else (None, None)
    within = not isinstance(value, float) or ((low is None or value >= low) and (high is None or value <= high))
    _record(d, batch, step, part.part, value, part.unit, low, high, within=within)
    if not within and report.limit is not None:
        shown = f"{step.title}, {report.report}, by hand: {value:g} {report.unit}".rstrip()
        d.outside(batch.batch, step, report.limit.category, shown, low, high)


def _watched(d: Decision, batch: Batch, step: Hold | Monitor, part: Part, value: Value) -> None:
    """A watched value by hand is judged as a measured one would be, without a delay."""
    run = batch.steps[step.id]
    low, high = limit_in(d.recipe(batch), step.limit, part.unit)
    assert isinstance(value, float)
    within = (low is None or value >= low) and (high is None or value <= high)
    _record(d, batch, step, step.tag, value, part.unit, low, high, within=within)
    if not within and not run.outside:
        shown = f"{step.title}: {part.tag} by hand = {value:g} {part.unit}".rstrip()
        d.outside(batch.batch, step, step.limit.category, shown, low, high)
        d.samples_due(batch.batch, lambda plan: plan.outside == step.id)
    elif within and run.outside:
        d.emit(ev.LimitRestored(batch=batch.batch, exception=run.outside, step=step.id, tag=part.tag, value=value))


def timed(d: Decision, batch: Batch, run: StepRun, command: cm.PassTimer) -> None:
    """A watched value is to be entered again, or should have been."""
    d.emit(
        ev.TimerDue(batch=batch.batch, step=run.step, timer=command.timer, low_s=command.low_s, high_s=command.high_s)
    )
    if command.timer == LATE:
        what = f"{run.title}: nobody entered and verified the value by hand when it was due."
        d.raise_exception(batch.batch, run.step, "minor", "hand.overdue", what)
