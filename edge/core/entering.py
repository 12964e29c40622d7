"""What people do at a step: confirm, enter, scan, sign, add a result that was pending, correct a value.

Of a step with several parts, what it asks for next says `edge.core.forms`.
"""

from __future__ import annotations

from dataclasses import replace

from edge.core import commands as cm
from edge.core import events as ev
from edge.core import gs1, training
from edge.core.decision import ACT_HINT, Decision
from edge.core.errors import LinesideError
from edge.core.forms import (
    KEPT,
    TEXT_CHARS_MAX,
    Ask,
    Result,
    choices_left,
    code_refusal,
    is_form,
    is_within,
    label_content,
    leaves_open,
    open_ask,
    parse_count,
    parse_number,
    parse_result,
    printable,
    result_of,
    result_spec,
    sample_facts,
    without_waiting,
)
from edge.core.line import (
    Batch,
    StepRun,
    tag_name,
)
from edge.core.people import Permission, not_permitted, permitted
from edge.core.pseudonym import alike, is_pseudonym
from edge.core.recipe import limit_in
from edge.core.recipe.model import (
    Dispose,
    Instruct,
    Label,
    Record,
    Sample,
    Scan,
    Step,
    Weigh,
)
from edge.core.recipe.values import said as spoken
from edge.core.terms import (
    PENDING,
    State,
    Value,
    bounds_text,
    convert,
    inside,
    show,
)


def confirm(d: Decision, command: cm.ConfirmStep) -> None:
    batch, step, run = _active_step(d, command.batch, command.step, command.iteration)
    if is_form(step):
        ask = _asked(d, batch, step, run, command.part, "confirm")
        d.emit(ev.StepConfirmed(batch=batch.batch, step=step.id, part=ask.part))
        d.advance(batch.batch, step)
        return
    if not isinstance(step, Instruct):
        raise _wrong_kind(step)
    d.need_role(step.role)
    d.emit(ev.StepConfirmed(batch=batch.batch, step=step.id))
    d.complete(batch.batch, step.id)
    d.proceed(batch.batch)


def enter(d: Decision, command: cm.EnterValue) -> None:
    batch, step, run = _active_step(d, command.batch, command.step, command.iteration)
    if is_form(step):
        _enter_part(d, batch, step, run, command)
        return
    if not isinstance(step, Record):
        raise _wrong_kind(step)
    d.need_role(step.role)
    _take_result(d, batch, step, step, step.name, step.title, parse_result(step, command.text))
    d.complete(batch.batch, step.id)
    d.proceed(batch.batch)


def _active_step(d: Decision, batch_id: str, step_id: str, iteration: int) -> tuple[Batch, Step, StepRun]:
    batch = d.batch(batch_id)
    if batch.state not in {State.RUNNING, State.PAUSING}:
        raise LinesideError(
            "batch.not_running",
            f"Batch {batch_id} is {batch.state.value}: {batch.reason or 'it is not running'}",
            effect="Your entry was not taken; the step is unchanged.",
            todo=ACT_HINT.get(batch.state, "Look at the batch's state first."),
        )
    run = batch.steps.get(step_id)
    if run is None or run.state != "active" or iteration not in {0, run.iteration}:
        raise LinesideError(
            "step.not_active",
            f"Step {step_id[:32]} is not under way now.",
            effect="Your entry was not taken; nothing was changed.",
            todo="Look at the step that the screen shows now.",
        )
    if run.hand is not None:
        raise LinesideError(
            "step.by_hand",
            f"Step {step_id} goes on by hand: what is done in it is entered by one person and verified by another.",
            effect="Your entry was not taken; the step is unchanged.",
            todo="Look at what the step asks for now.",
        )
    return batch, d.recipe(batch).steps()[step_id], run


def _asked(d: Decision, batch: Batch, step: Step, run: StepRun, part: str, *kinds: str) -> Ask:
    """What the step asks for now. Refused when it is of another kind, or when it was not what was shown."""
    ask = open_ask(d.recipe(batch), batch, step, run)
    if ask is None or ask.kind not in kinds:
        raise _wrong_kind(step)
    if part not in {"", ask.part}:
        raise LinesideError(
            "step.moved_on",
            f"Step {step.id} asks for something else by now: this was answered already.",
            effect="Your entry was not taken; nothing was changed.",
            todo="Look at what the step asks for now.",
        )
    if ask.kind != "sign":
        d.need_role(ask.role)
    return ask


def _enter_part(d: Decision, batch: Batch, step: Step, run: StepRun, command: cm.EnterValue) -> None:
    ask = _asked(d, batch, step, run, command.part, "value", "choice")
    if isinstance(step, Dispose):
        _settle(d, batch, ask.part, command.text)
    elif ask.result is not None:
        value = parse_result(ask.result, command.text)
        _take_result(d, batch, step, ask.result, ask.part, f"{step.title}, {ask.part}", value)
    else:
        number = parse_count(command.text) if ask.whole else parse_number(printable(command.text))
        assert isinstance(number, float)
        tare = run.given.get(f"{step.name}.tare") if isinstance(step, Weigh) else None
        if isinstance(tare, float) and number < tare:
            raise LinesideError(
                "entry.weight",
                f"The full container weighs {number:g} {ask.unit}; empty it weighed {tare:g} {ask.unit}.",
                effect=KEPT,
                todo="Look at the balance again, and enter the weight of container and content.",
            )
        judged = not isinstance(step, Weigh)  # there the net weight is
        _take_number(d, batch, step, ask, number, judged=judged)
        if isinstance(step, Label) and ask.part == f"{step.name}.printed":
            content = label_content(d.recipe(batch), batch, step.content)
            d.emit(ev.LabelsPrinted(batch=batch.batch, step=step.id, content=content, printed=int(number)))
        elif isinstance(step, Sample) and ask.part == f"{step.name}.printed":
            recipe = d.recipe(batch)
            content = label_content(recipe, batch, step.label, sample_facts(recipe, step, run))
            d.emit(ev.LabelsPrinted(batch=batch.batch, step=step.id, content=content, printed=int(number)))
    d.advance(batch.batch, step)


def _take_number(d: Decision, batch: Batch, step: Step, ask: Ask, number: float, *, judged: bool = True) -> None:
    low, high = (ask.low, ask.high) if judged else (None, None)
    within = inside(number, low, high)
    d.emit(
        ev.ValueRecorded(
            batch=batch.batch,
            step=step.id,
            name=ask.part,
            value=number,
            unit=ask.unit,
            source="entered",
            low=low,
            high=high,
            within=within,
        )
    )
    if not within:
        d.outside(batch.batch, step, ask.category, f"{step.title}: {number:g} {ask.unit}", low, high)


def _take_result(d: Decision, batch: Batch, step: Step, result: Result, name: str, title: str, value: Value) -> None:
    """A result that a person has; one that leaves the question open stays in the list of open results."""
    if value != PENDING:
        low, high, within = _judged(d, batch, result, value)
        d.emit(
            ev.ValueRecorded(
                batch=batch.batch,
                step=step.id,
                name=name,
                value=value,
                unit=result.unit,
                source="entered",
                low=low,
                high=high,
                within=within,
            )
        )
        if not within:
            _not_within(d, batch.batch, step, result, title, value, low, high)
    if leaves_open(result, value):
        d.leave_open(batch, step, name, title, result.unit, "" if value == PENDING else str(value))


def _judged(d: Decision, batch: Batch, result: Result, value: Value) -> tuple[float | None, float | None, bool]:
    low, high = (None, None)
    if result.limit is not None:
        low, high = limit_in(d.recipe(batch), result.limit, result.unit)
    return low, high, is_within(result, value, low, high)


def _not_within(
    d: Decision,
    batch_id: str,
    step: Step,
    result: Result,
    title: str,
    value: Value,
    low: float | None,
    high: float | None,
) -> None:
    if isinstance(value, float) and result.limit is not None:
        d.outside(batch_id, step, result.limit.category, f"{title}: {value:g} {result.unit}", low, high)
    elif result.limit is not None:
        what = f"{title}: {value} {result.unit} is not known to be within {bounds_text(low, high)}."
        category = d.weight(batch_id, result.limit.category)
        d.raise_exception(batch_id, step.id, category, "result.not_within", what)
        if category == "critical":
            d.hold(batch_id, "limit", what)
    else:
        accepted = ", ".join(result.accept) or "anything but positive"
        what = f"{title}: {value} is not what is accepted ({accepted})."
        d.raise_exception(batch_id, step.id, result.category, "result.not_accepted", what)
        if result.category == "critical":
            d.hold(batch_id, "limit", what)


def _settle(d: Decision, batch: Batch, result_id: str, text: str) -> None:
    """An open result is there."""
    opened = d.line.batches[batch.batch].open_results[result_id]
    spec = result_spec(d.recipe(batch), opened)
    if spec is None:
        raise AssertionError(f"no step of the recipe has the result {result_id}")
    final = without_waiting(spec)
    value = parse_result(final, text, choices_left(final))
    low, high, within = _judged(d, batch, final, value)
    d.emit(
        ev.ResultAdded(
            batch=batch.batch,
            result=result_id,
            step=opened.step,
            name=opened.name,
            of_iteration=opened.iteration,
            value=value,
            unit=final.unit,
            low=low,
            high=high,
            within=within,
        )
    )
    if not within:
        step = d.recipe(batch).steps()[opened.step]
        _not_within(d, batch.batch, step, final, opened.title, value, low, high)


def add_result(d: Decision, command: cm.AddResult) -> None:
    """Also of a batch that is complete: what the laboratory finds comes weeks later."""
    batch, signed = d.batch(command.batch), command.signed
    opened = batch.open_results.get(command.result)
    if opened is None:
        raise LinesideError(
            "result.closed",
            f"Batch {batch.batch} waits for no result {command.result[:80]!r}: it is there already.",
            todo="Look at the record; a wrong result is corrected, not added again.",
        )
    if not permitted((signed.role,), Permission.RESULT) or signed.role not in signed.roles:
        raise not_permitted(signed.person, Permission.RESULT)
    spec = result_spec(d.recipe(batch), opened)
    if spec is not None:
        final = without_waiting(spec)
        parse_result(final, command.text, choices_left(final))  # refused before anything is signed
    d.make_signature(batch.batch, "", signed)
    _settle(d, batch, opened.result, command.text)
    d.proceed(batch.batch)


def correct(d: Decision, command: cm.CorrectValue) -> None:
    """A value that was entered wrong. The old row stays; nothing that was done because of it is undone, so quality
    is told by an exception record."""
    batch, signed = d.batch(command.batch), command.signed
    if not permitted((signed.role,), Permission.CORRECT) or signed.role not in signed.roles:
        raise not_permitted(signed.person, Permission.CORRECT)
    recipe, known = d.recipe(batch), batch.values.get(command.name)
    spec = result_of(recipe, known.step, command.name) if known else None
    if known is None or spec is None:
        raise LinesideError(
            "correction.unknown",
            f"Batch {batch.batch} has no entered value {command.name[:80]!r} that could be corrected.",
            effect="The record is unchanged.",
            todo="Choose one that is shown. What was scanned, measured or calculated is not corrected by hand.",
        )
    if known.seq != command.was_seq:
        raise LinesideError(
            "correction.changed",
            f"{command.name} was recorded or corrected again since it was shown.",
            effect="The record is unchanged.",
            todo="Look at the value that stands there now.",
        )
    if not command.reason.strip():
        raise LinesideError(
            "correction.reason",
            "A correction needs a reason.",
            effect="The record is unchanged.",
            todo="Say why the old value is wrong; it becomes part of the record.",
        )
    final = without_waiting(spec)
    value = parse_result(final, command.text)
    if value == known.value:
        raise LinesideError(
            "correction.same",
            f"{command.name} is {known.value} already.",
            effect="The record is unchanged.",
            todo="Enter the right value, or go back.",
        )
    low, high = known.low, known.high
    within = is_within(final, value, low, high)
    d.make_signature(batch.batch, "", signed)
    d.emit(
        ev.ValueCorrected(
            batch=batch.batch,
            step=known.step,
            name=command.name,
            of_iteration=known.iteration,
            was=known.value,
            was_seq=known.seq,
            value=value,
            unit=known.unit,
            low=low,
            high=high,
            within=within,
            reason=command.reason.strip(),
        )
    )
    step = recipe.steps()[known.step]
    what = f"{step.title}: {command.name} was {known.value}, corrected to {value} {known.unit}".rstrip()
    d.raise_exception(batch.batch, step.id, "minor", "value.corrected", f"{what}. {command.reason.strip()}")
    if not within:
        _not_within(d, batch.batch, step, final, step.title, value, low, high)
    d.proceed(batch.batch)


def weigh_reading(d: Decision, batch: Batch, step: Weigh, run: StepRun, command: cm.NoteReading) -> None:
    """The balance stands still, or cannot be read."""
    reading, full_name = command.reading, tag_name(batch.units, step.balance)
    ask = open_ask(d.recipe(batch), batch, step, run)
    tag = d.line.book.plant.tag(full_name)
    if ask is None or ask.kind != "reading" or tag is None or batch.state not in {State.RUNNING, State.PAUSING}:
        return
    match command.finding:
        case "steady" if reading.good and isinstance(reading.value, float | int):
            weight = convert(float(reading.value), tag.unit, step.unit)
            d.emit(
                ev.ValueRecorded(
                    batch=batch.batch,
                    step=step.id,
                    name=ask.part,
                    value=weight,
                    unit=step.unit,
                    source=full_name,
                )
            )
            d.advance(batch.batch, step)
        case "bad_quality" if batch.state is State.RUNNING:
            why = reading.detail or reading.quality.value
            what = f"{step.title}: {full_name} = {show(reading)}: not usable ({why})."
            d.raise_exception(batch.batch, step.id, "major", "reading.bad_quality", what)
            if step.on_bad_quality == "hold":
                d.hold(batch.batch, "quality", what)
            else:
                d.emit(ev.ByHand(batch=batch.batch, step=step.id, why=what))
            d.proceed(batch.batch)
        case _:
            return


def _scan_part(d: Decision, batch: Batch, step: Step, run: StepRun, command: cm.ScanCode) -> None:
    ask = _asked(d, batch, step, run, command.part, "scan")
    text = command.text.strip()
    if why := code_refusal(ask, text, training=batch.training):
        expected = ask.exactly or f"a code that begins with {ask.prefix}"
        d.emit(
            ev.ScanRefused(batch=batch.batch, step=step.id, scanned=text[:TEXT_CHARS_MAX], expected=expected, why=why)
        )
        d.raise_exception(batch.batch, step.id, "minor", "scan.refused", why)
        return
    d.emit(ev.ValueRecorded(batch=batch.batch, step=step.id, name=ask.part, value=text, source=_source(command)))
    d.advance(batch.batch, step)


def scan(d: Decision, command: cm.ScanCode) -> None:
    batch, step, run = _active_step(d, command.batch, command.step, command.iteration)
    if is_form(step):
        _scan_part(d, batch, step, run, command)
        return
    if not isinstance(step, Scan):
        raise _wrong_kind(step)
    d.need_role(step.role)
    if step.coding == "gs1":
        command = replace(command, text=gs1.as_text(command.text.strip()))
    text = command.text.strip()
    prefix = spoken(d.recipe(batch), step.prefix)
    why = _scan_refusal(batch, step, command, prefix)
    if not why and step.coding == "gs1":
        why = gs1.refusal(text, d.now.at)
    if why:
        expected = batch.patient if step.expect == "patient" else f"a code that begins with {prefix}"
        d.emit(
            ev.ScanRefused(
                batch=batch.batch,
                step=step.id,
                scanned=text[:TEXT_CHARS_MAX],
                expected=expected,
                why=why,
            )
        )
        category = "critical" if step.expect == "patient" else "minor"
        expired = why.startswith(gs1.EXPIRED)
        code = "scan.expired" if expired else "scan.refused"
        d.raise_exception(batch.batch, step.id, "major" if expired else category, code, why)
        return
    d.emit(ev.ValueRecorded(batch=batch.batch, step=step.id, name=step.name, value=text, source=_source(command)))
    d.complete(batch.batch, step.id)
    d.proceed(batch.batch)


def sign(d: Decision, command: cm.SignStep) -> None:
    batch, step, run = _active_step(d, command.batch, command.step, command.iteration)
    ask = _asked(d, batch, step, run, command.part, "sign")
    role, signed = ask.role, command.signed
    if signed.role is not role or role not in signed.roles:
        raise LinesideError(
            "signature.role",
            f"This signature is for the role {role.value}; {signed.person} does not have it.",
            effect="Nothing was signed.",
            todo=f"Ask someone with the role {role.value} to sign.",
        )
    if not isinstance(step, Label) and any(person == signed.person for person, _ in run.signed):
        raise LinesideError(
            "signature.same_person",
            f"{signed.person} has signed this step already; the next signature must be another person's.",
            effect="Nothing was signed.",
            todo="Ask a second person to sign.",
        )
    if isinstance(step, Weigh) and signed.person in run.entered_by:
        raise LinesideError(
            "signature.own_entry",
            f"{signed.person} entered these weights; somebody else must sign that they are right.",
            effect="Nothing was signed.",
            todo="Ask a second person to look at the balance and to sign.",
        )
    d.make_signature(batch.batch, step.id, signed)
    d.advance(batch.batch, step)


def _source(command: cm.ScanCode) -> str:
    return "entered" if command.typed else "scanned"


def _scan_refusal(batch: Batch, step: Scan, command: cm.ScanCode, prefix: str) -> str:
    """Why what was scanned is not what the step expects (of a lot, `prefix`), in a sentence; empty when it is."""
    text = command.text.strip()
    if step.expect == "patient" and batch.training:
        return "" if text == training.CODE else f"This is training: scan the code {training.CODE}, never a patient's."
    if step.expect == "patient" and command.typed:
        return "A patient identity is scanned, and never typed. Nothing was started."
    if not text or len(text) > TEXT_CHARS_MAX or not text.isprintable():
        return "The code cannot be read. Nothing was started."
    if training.looks_like_training(text) and not batch.training:
        return training.FROM_TRAINING
    if step.expect == "patient":
        # a pseudonym is what the vault gives for a scanned identity, and never what somebody entered
        if text == batch.patient and (command.identity or not is_pseudonym(text)):
            return ""
        if command.alike if command.identity or is_pseudonym(text) else alike(text, batch.patient):
            return f"This belongs to another order, not to {batch.order}. Nothing was started."
        return f"This is not the patient identity of {batch.order}. Nothing was started."
    if is_pseudonym(text):
        return "This is a patient identity, not material. Nothing was started."
    if not text.startswith(prefix):
        return f"This is not the right material: its code should begin with {prefix}. Nothing was started."
    return ""


def _wrong_kind(step: Step) -> LinesideError:
    """The refusal of an entry that does not fit the step."""
    return LinesideError(
        "step.other_entry",
        f"Step {step.id} is a step of kind {step.phase}; this entry does not fit it.",
        effect="Your entry was not taken; the step is unchanged.",
        todo="Look at what the step asks for.",
    )
