"""What a screen shows of the line: a fold of the durable head with live readings beside it. Shows, never decides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from edge.amendable import amend_offers, amendment_card, waiting
from edge.core import cleaning, darkness, queueing
from edge.core.alarms import Alarm, in_order
from edge.core.approve import startable
from edge.core.by_hand import open_part
from edge.core.decide import needs_patient
from edge.core.errors import LinesideError
from edge.core.expiring import expires_in, left_s
from edge.core.forms import (
    Ask,
    asks,
    choices_left,
    choices_of,
    label_content,
    open_ask,
    result_of,
    result_spec,
    weight_limits,
    without_waiting,
)
from edge.core.lifecycle import NEEDED, version_key, waiting_for
from edge.core.line import OVER, Batch, Line, Question, StepRun, elapsed, plan_of, tag_name
from edge.core.numbers import PRODUCT, proposed
from edge.core.ordering import changes
from edge.core.orders import Order
from edge.core.people import roles_with
from edge.core.profiles import PROFILES, needs_order
from edge.core.recipe import limit_in, set_point_in
from edge.core.recipe.model import (
    COMPOSITE,
    Calculate,
    Hold,
    Instruct,
    Invoke,
    Label,
    Limit,
    Loop,
    Monitor,
    Parallel,
    Ramp,
    Recipe,
    Record,
    Sample,
    Scan,
    Select,
    Service,
    Set,
    Step,
    Wait,
    Weigh,
    rule_of,
)
from edge.core.recipe.values import ramp_end_in, whole
from edge.core.recipe.values import said as spoken
from edge.core.serving import module_of, waits_for, word_of
from edge.core.terms import Reading, Stamp, State, convert
from edge.core.trend import expected, next_point, series
from edge.handwork import hand_card, hand_offers
from edge.wire import (
    AlarmLine,
    AttachmentLine,
    BatchCard,
    DarkCard,
    DrillView,
    ExceptionLine,
    ExpiryLine,
    HandCard,
    OrderLine,
    PersonView,
    Picture,
    QuestionCard,
    ReadingView,
    RecipeLine,
    ResultCard,
    SelfCheckView,
    StepCard,
    StepLine,
    Strip,
    Sync,
    UnitLine,
    ValueLine,
)

BATCHES_SHOWN_MAX = 20
VALUES_SHOWN_MAX = 100
Latest = Callable[[str], Reading | None]


def picture(
    line: Line,
    latest: Latest,
    at: Stamp,
    *,
    box: str,
    made_seq: int,
    sync: Sync,
    person: PersonView | None,
    people: Iterable[PersonView],
    connections: Mapping[str, str],
    drafts: Mapping[tuple[str, str], str],
    notices: Iterable[str],
) -> Picture:
    """The whole picture for one terminal. `line` is the durable head; `made_seq` counts rows also not yet durable."""
    ended = [batch for batch in line.batches.values() if batch.state in OVER]
    batches = [*line.live(), *reversed(ended)][:BATCHES_SHOWN_MAX]
    return Picture(
        box=box,
        as_of_seq=line.seq,
        utc=at.utc,
        clock=at.quality.value,
        person=person,
        people=tuple(people),
        strip=Strip(made=made_seq, saved=line.seq, sync=sync),
        batches=tuple(_batch(line, batch, latest, at, drafts) for batch in batches),
        recipes=tuple(
            RecipeLine(
                recipe=loaded.recipe,
                version=loaded.version,
                title=loaded.title,
                seal=loaded.seal,
                needs_patient=needs_patient(line.book.recipes[loaded.seal]),
                waits=str(queueing.turn(line, line.book.recipes[loaded.seal], at)),
                needs_order=needs_order(line.profile, line.ad_hoc, loaded.recipe),
                trainable=all(queueing.usable(line.book.plant, line.book.recipes[loaded.seal], training=True).values()),
            )
            for seal in (*line.recipes, *(seal for seal in line.lives if seal not in line.recipes))
            if (loaded := startable(line, seal)) is not None
        ),
        orders=tuple(_order(line, order, at) for order in sorted(line.orders.values(), key=lambda one: one.due or "~")),
        number=proposed(line.numbers, PRODUCT),
        profile=line.profile.value,
        starters=tuple(role.value for role in PROFILES[line.profile].starters),
        recipe_approval=line.approval.value,
        recipes_waiting=_recipes_waiting(line, person),
        connections=connections,
        dark_s=line.dark.low_s,
        self_check=_self_check(line),
        drill=_drill(line),
        notices=(*_expiring(line, at), *notices, *waiting(line)),
        alarms=tuple(_alarm(line, alarm) for alarm in in_order(line.alarms)),
        units=tuple(_units(line, at)),
    )


def _recipes_waiting(line: Line, person: PersonView | None) -> tuple[str, ...]:
    if person is None or line.approval not in NEEDED:
        return ()
    return tuple(f"{one.recipe} {one.version}" for one in waiting_for(line.lives, person.person, person.roles))


def _units(line: Line, at: Stamp) -> Iterator[UnitLine]:
    dirty = cleaning.not_clean(line, at)
    for name, unit in line.book.plant.units.items():
        if unit.cleaning is not None:
            yield UnitLine(unit=name, why=dirty.get(name, ""), left_s=cleaning.left_s(line, name, at))


def _order(line: Line, order: Order, at: Stamp) -> OrderLine:
    """An order that waits, with the recipe that it would be started with."""
    able = (startable(line, seal) for seal in (*line.lives, *line.recipes))
    fitting = [one for one in able if one and one.recipe == order.recipe and order.version in {"", one.version}]
    found = max(fitting, key=lambda one: version_key(one.version), default=None)
    recipe = line.book.recipes[found.seal] if found else None
    why = "" if found else f"{order.recipe} {order.version}".rstrip() + " is not effective on this box."
    if recipe is not None:
        try:
            changes(recipe, order)
        except LinesideError as refusal:
            why = refusal.what
    return OrderLine(
        order=order.order,
        title=recipe.title if recipe else f"{order.recipe} {order.version}".rstrip(),
        recipe=found.seal if found and not why else "",
        number=order.number,
        parameters=order.parameters,
        quantity=order.quantity,
        due=order.due,
        needs_patient=recipe is not None and needs_patient(recipe) and not order.training,
        training=order.training,
        waits=str(queueing.turn(line, recipe, at)) if recipe and not order.training else "",
        why=why,
    )


def _alarm(line: Line, alarm: Alarm) -> AlarmLine:
    tag = line.book.plant.tag(alarm.tag)
    value = f"{alarm.value:g}" if isinstance(alarm.value, float) else "" if alarm.value is None else str(alarm.value)
    return AlarmLine(
        alarm=alarm.alarm,
        raised_seq=alarm.raised_seq,
        priority=alarm.told.priority,
        state=alarm.state.value,
        batch=alarm.batch,
        step=alarm.step,
        tag=alarm.tag,
        cause=alarm.told.cause,
        effect=alarm.told.effect,
        todo=alarm.told.todo,
        value=f"{value} {tag.unit}".strip() if tag and value else value,
        since_utc=alarm.since.utc,
        times=alarm.times,
    )


def _self_check(line: Line) -> SelfCheckView | None:
    last = line.self_check
    return SelfCheckView(utc=last.at.utc, rows=last.rows, found=last.found, left_out=last.left_out) if last else None


def _drill(line: Line) -> DrillView | None:
    last = line.drill
    if last is None:
        return None
    return DrillView(
        utc=last.at.utc, backup=last.backup, head_seq=last.head_seq, found=last.found, left_out=last.left_out
    )


def _batch(line: Line, batch: Batch, latest: Latest, at: Stamp, drafts: Mapping[tuple[str, str], str]) -> BatchCard:
    recipe = line.recipe(batch)
    steps = recipe.steps()
    active = [run for run in batch.active() if run.phase not in COMPOSITE or run.hand or _is_stuck(batch, run)]
    hands = hand_offers(line, batch, latest)
    # what waits for a person first: that is what the operator must see
    cards = [_card(line, batch, recipe, steps[run.step], run, latest, at, drafts) for run in active]
    cards.sort(key=lambda card: card.asks == "nothing")
    waits = (
        str(queueing.turn(line, recipe, at, batch.batch, training=batch.training)) if batch.state is State.IDLE else ""
    )
    return BatchCard(
        batch=batch.batch,
        order=batch.order,
        recipe=batch.recipe,
        version=batch.version,
        title=recipe.title,
        state=batch.state.value,
        reason=batch.reason,
        restored=batch.restored,
        units=dict(batch.units),
        speed=batch.speed,
        waits=waits,
        steps=tuple(_lines(batch, recipe)),
        active=tuple(cards),
        questions=tuple(_question(line, batch, steps, question, latest, at) for question in batch.questions.values()),
        exceptions=tuple(
            ExceptionLine(exception=x.exception, step=x.step, category=x.category, what=x.what)
            for x in batch.exceptions
        ),
        raised=batch.raised,
        results=tuple(_results(recipe, batch)),
        expiries=tuple(_expiries(batch, at)),
        values=tuple(_values(recipe, batch)),
        offers=amend_offers(line, batch, at),
        amendment=amendment_card(batch),
        hands=hands,
        safe=tuple(_made_safe(line, batch)),
        dark=_dark(batch),
        next_action=_next_action(batch, cards, waits, by_hand=any(one.act == "take by hand" for one in hands)),
        training=batch.training,
    )


def _expiries(batch: Batch, at: Stamp) -> list[ExpiryLine]:
    lines = [
        ExpiryLine(
            step=clock.step,
            material=clock.material,
            until=clock.until,
            left_s=left_s(clock, elapsed(clock.since, clock.before_boot, at)),
            near=clock.near,
            expired=clock.expired,
        )
        for clock in batch.clocks.values()
    ]
    return sorted(lines, key=lambda line: line.left_s)


def _expiring(line: Line, at: Stamp) -> Iterable[str]:
    """A sentence for whatever expires soon or is expired, for whoever looks at the box."""
    for batch in line.live():
        for clock in batch.clocks.values():
            if said := expires_in(clock, elapsed(clock.since, clock.before_boot, at)):
                yield f"Batch {batch.batch}: {said}"


def _made_safe(line: Line, batch: Batch) -> Iterable[str]:
    """Its units with a safe state; one that the plant does not have any more is left out."""
    units = line.book.plant.units
    return (one for one in dict.fromkeys(batch.units.values()) if one in units and units[one].safe_state)


def _values(recipe: Recipe, batch: Batch) -> Iterable[ValueLine]:
    """What was entered and may be corrected, newest first."""
    newest = sorted(batch.values.items(), key=lambda item: -item[1].seq)
    entered = [(name, known) for name, known in newest if result_of(recipe, known.step, name)]
    for name, known in entered[:VALUES_SHOWN_MAX]:
        yield ValueLine(
            seq=known.seq,
            name=name,
            step=known.step,
            title=recipe.steps()[known.step].title,
            text=f"{known.value:g}" if isinstance(known.value, float) else str(known.value),
            unit=known.unit,
        )


def _results(recipe: Recipe, batch: Batch) -> Iterable[ResultCard]:
    for opened in batch.open_results.values():
        if spec := result_spec(recipe, opened):
            final = without_waiting(spec)
            low, high = limit_in(recipe, final.limit, final.unit) if final.limit else (None, None)
            yield ResultCard(
                result=opened.result,
                step=opened.step,
                title=opened.title,
                unit=opened.unit,
                interim=opened.interim,
                choices=choices_left(final),
                low=low,
                high=high,
            )


def _is_stuck(batch: Batch, run: StepRun) -> bool:
    """True for a selection or a loop that could not be decided: nothing inside it is under way."""
    undecided = run.branch is None if run.phase == "select" else not run.passes
    return run.phase in {"select", "loop"} and undecided and batch.state is not State.RUNNING


def _lines(batch: Batch, recipe: Recipe) -> Iterable[StepLine]:
    """The steps as the file lists them. Inside a loop they are those of the pass that is under way, or was last."""
    for step in recipe.in_order():
        run = batch.steps.get(step.id)
        around = recipe.loop_of(step.id)
        loop = batch.steps.get(around) if around else None
        here = run if run and (loop is None or run.iteration == loop.body) else None
        yield StepLine(
            step=step.id,
            title=spoken(recipe, step.title),
            phase=step.phase,
            state=here.state if here else "todo",
            placeholder=is_placeholder(recipe, step),
            note=_way(recipe, step, here) if here else "",
        )


def _way(recipe: Recipe, step: Step, run: StepRun) -> str:
    """Where a loop is, or which way a selection took."""
    if isinstance(step, Loop) and run.passes:
        return f"pass {run.passes} of {whole(recipe, step.times)}"
    if isinstance(step, Select) and run.branch is not None:
        return "else" if run.branch < 0 else step.branches[run.branch].title or step.branches[run.branch].when
    return ""


def is_placeholder(recipe: Recipe, step: Step) -> bool:
    """True when a value of the step must still be set by the process owner (shown with a dagger)."""
    tests = step.tests if isinstance(step, Sample) else ()
    facts = step.__dict__  # most steps have not most of these, and a model looks long for what it has not
    limits = [limit for one in (step, *tests) if (limit := one.__dict__.get("limit")) is not None]
    tolerance = step.tolerance if isinstance(step, Weigh) else None
    numbers = [facts.get(name) for name in ("value", "target", "quantity", "rate")]
    numbers += [end for limit in limits for end in (limit.low, limit.high)]
    numbers += [tolerance.below, tolerance.above] if tolerance else []
    named = [number[1:] for number in numbers if isinstance(number, str) and number[1:] in recipe.parameters]
    return (
        bool(facts.get("placeholder"))
        or any(limit.placeholder for limit in limits)
        or bool(tolerance and tolerance.placeholder)
        or any(recipe.parameters[name].placeholder for name in named)
    )


def _card(
    line: Line,
    batch: Batch,
    recipe: Recipe,
    step: Step,
    run: StepRun,
    latest: Latest,
    at: Stamp,
    drafts: Mapping[tuple[str, str], str],
) -> StepCard:
    if run.hand is not None:
        return _hand_card(line, batch, recipe, step, run, latest, at)
    if ask := open_ask(recipe, batch, step, run):
        return _ask_card(batch, recipe, step, run, ask, latest, at, drafts)
    if isinstance(step, Service):
        return _service_card(line, batch, recipe, step, run, latest, at)
    limit: Limit | None = getattr(step, "limit", None)
    tag = tag_name(batch.units, step.tag) if isinstance(step, Set | Ramp | Wait | Hold | Monitor) and step.tag else ""
    bound = line.book.plant.tag(tag) if tag else None
    unit = bound.unit if bound else getattr(step, "unit", "")
    low, high = limit_in(recipe, limit, unit) if limit else (None, None)
    text, asks = _asks(step, recipe, unit, tag)
    text += _trend(batch, step, run, unit)
    shown = f"{tag.partition('.')[0]}.{bound.read_back}" if bound and bound.read_back else tag
    return StepCard(
        step=step.id,
        phase=step.phase,
        title=run.title,
        text=text,
        why=step.why,
        asks=asks,
        unit=unit,
        low=low,
        high=high,
        limit_why=limit.why if limit else "",
        placeholder=is_placeholder(recipe, step),
        choices=choices_of(step) if isinstance(step, Record) else (),
        pending=isinstance(step, Record) and step.pending,
        iteration=run.iteration,
        expected=_expected(batch, recipe, step),
        roles=(step.role.value,) if isinstance(step, Instruct | Record | Scan) else (),
        readings=(_reading(shown, step.title, latest(shown), low, high),) if tag else (),
        elapsed_s=elapsed(run.since, run.before_boot, at).low_s,
        duration_s=run.duration_s or run.timeout_s,
        draft=drafts.get((batch.batch, step.id), ""),
        next_title=_next_title(recipe, step),
        attachments=_attachments(recipe, step),
    )


def _hand_card(
    line: Line, batch: Batch, recipe: Recipe, step: Step, run: StepRun, latest: Latest, at: Stamp
) -> StepCard:
    """The card of a step that goes on by hand: what two people enter, and what the equipment shows, if anything."""
    part, hand = open_part(line, batch, run, latest), hand_card(line, batch, run, latest)
    limit: Limit | None = getattr(step, "limit", None)
    low, high = (
        limit_in(recipe, limit, part.unit) if limit is not None and part is not None and part.unit else (None, None)
    )
    shown = part.tag if part is not None and part.tag else ""
    bound = line.book.plant.tag(shown) if shown else None
    shown = f"{shown.partition('.')[0]}.{bound.read_back}" if bound and bound.read_back else shown
    return StepCard(
        step=step.id,
        phase=step.phase,
        title=run.title,
        text=part.text if part else _by_hand_so_far(hand),
        why=step.why,
        asks="hand" if part else "nothing",
        unit=part.unit if part else "",
        low=low,
        high=high,
        limit_why=limit.why if limit else "",
        placeholder=is_placeholder(recipe, step),
        choices=part.choices if part else (),
        readings=(_reading(shown, step.title, latest(shown), low, high),) if shown else (),
        iteration=run.iteration,
        part=part.part if part else "",
        elapsed_s=elapsed(run.since, run.before_boot, at).low_s,
        duration_s=run.duration_s if run.phase in {"wait", "hold"} else 0.0,
        next_title=_next_title(recipe, step),
        attachments=_attachments(recipe, step),
        hand=hand,
    )


def _by_hand_so_far(hand: HandCard | None) -> str:
    """What is said of a step by hand while nothing is to be entered."""
    if hand is None:
        return ""
    last = f"Last: {hand.last}." if hand.last else ""
    return " ".join(filter(None, ("BY HAND, not measured. Nothing is to be entered now.", last, hand.back, hand.why)))


def _service_card(
    line: Line, batch: Batch, recipe: Recipe, step: Service, run: StepRun, latest: Latest, at: Stamp
) -> StepCard:
    """The card of a service: what the module does, what is waited for and for how long, and what it reports."""
    module = module_of(line.book.plant, batch.units, step)
    state, why = module.state(latest)
    shown = {report.report: module.full(module.declared.reports[report.report]) for report in step.reports}
    return StepCard(
        step=step.id,
        phase=step.phase,
        title=run.title,
        text=why or waits_for(state, run.given, module, latest),
        why=step.why,
        asks="nothing",
        readings=tuple(_reading(tag, name, latest(tag), None, None) for name, tag in shown.items()),
        iteration=run.iteration,
        elapsed_s=elapsed(run.since, run.before_boot, at).low_s,
        duration_s=run.timeout_s,
        next_title=_next_title(recipe, step),
        attachments=_attachments(recipe, step),
    )


def _ask_card(
    batch: Batch,
    recipe: Recipe,
    step: Step,
    run: StepRun,
    ask: Ask,
    latest: Latest,
    at: Stamp,
    drafts: Mapping[tuple[str, str], str],
) -> StepCard:
    """The card of a step that asks for one thing after another: what it asks for now."""
    every = asks(recipe, batch, step, run)
    signers = tuple(one.role.value for one in every if one.kind == "sign")[len(run.signed) :]
    limit = ask.limit or (step.tolerance if isinstance(step, Weigh) else None)
    expected = ask.exactly or (f"code beginning with {ask.prefix}" if ask.prefix else "")
    return StepCard(
        step=step.id,
        phase=step.phase,
        title=run.title,
        text=f"{_overdue(recipe, step, run)}{ask.text}{_trend(batch, step, run, ask.unit)}",
        why=step.why,
        asks="nothing" if ask.kind == "reading" else ask.kind,
        unit=ask.unit,
        low=ask.low,
        high=ask.high,
        limit_why=limit.why if limit else "",
        placeholder=is_placeholder(recipe, step),
        choices=ask.choices,
        pending=bool(ask.result and ask.result.pending),
        expected=expected if ask.kind == "scan" else "",
        meaning=ask.meaning,
        signers=signers if ask.kind == "sign" else (),
        roles=() if ask.kind in {"sign", "reading"} else (ask.role.value,),
        readings=(_net(batch, recipe, step, run, latest),) if isinstance(step, Weigh) and step.balance else (),
        iteration=run.iteration,
        part=ask.part,
        part_number=[one.part for one in every].index(ask.part) + 1 if len(every) > 1 else 0,
        parts=len(every) if len(every) > 1 else 0,
        elapsed_s=elapsed(run.since, run.before_boot, at).low_s,
        draft=drafts.get((batch.batch, step.id), ""),
        next_title=_next_title(recipe, step),
        attachments=_attachments(recipe, step),
    )


def _net(batch: Batch, recipe: Recipe, step: Weigh, run: StepRun, latest: Latest) -> ReadingView:
    """What stands on the balance; once it is tared the net weight, between the ends of the tolerance."""
    tag = tag_name(batch.units, step.balance)
    reading, tare = latest(tag), run.given.get(f"{step.name}.tare")
    if reading is None or not isinstance(reading.value, float | int) or not isinstance(tare, float):
        return _reading(tag, step.title, reading, None, None)
    _, low, high = weight_limits(recipe, step)
    net = round(convert(float(reading.value), reading.unit, step.unit) - tare, 9)
    return _reading(tag, step.title, replace(reading, value=net, unit=step.unit), low, high)


def _asks(step: Step, recipe: Recipe, unit: str, tag: str) -> tuple[str, str]:
    match step:
        case Instruct():
            return spoken(recipe, step.text), "confirm"
        case Record():
            return spoken(recipe, step.text), "choice" if choices_of(step) else "value"
        case Scan():
            return spoken(recipe, step.text), "scan"
        case Ramp():
            value = ramp_end_in(recipe, step, unit)
            return f"Lineside takes {tag} to {value:g} {unit} by {step.rate} {step.unit}/{step.per} at most.", "nothing"
        case Set():
            value = set_point_in(recipe, step, unit)
            return f"Lineside sets {tag} to {value:g} {unit} and reads it back.", "nothing"
        case Invoke():
            return f"Lineside calls {step.tag} once and records what it answers.", "nothing"
        case Wait() if step.tag:
            return f"Lineside waits until {tag} is within its limit.", "nothing"
        case Wait() if step.until:
            return f"Lineside waits until {spoken(recipe, step.until)}.", "nothing"
        case Wait():
            return f"Lineside waits {spoken(recipe, step.duration)}.", "nothing"
        case Hold():
            return f"Lineside keeps {tag} within its limit for {spoken(recipe, step.duration)}.", "nothing"
        case Monitor():
            return f"Lineside watches {tag} until step {step.until} is done.", "nothing"
        case Parallel():
            return "All branches run at once.", "nothing"
        case Calculate():
            return f"Lineside works out {step.formula}.", "nothing"
        case Select():
            return "Lineside takes the first branch whose condition is true.", "nothing"
        case Loop():
            return f"Lineside goes round at most {whole(recipe, step.times)} times.", "nothing"
        case _:
            return "Lineside does this by itself.", "nothing"


def _expected(batch: Batch, recipe: Recipe, step: Step) -> str:
    if not isinstance(step, Scan):
        return ""
    if step.expect == "patient":
        return "patient identity of " + batch.order
    said = spoken(recipe, step.prefix)
    if step.coding == "gs1":
        return "GS1 code with a date that is not over" + (f", beginning with {said}" if said else "")
    return f"code beginning with {said}"


def _overdue(recipe: Recipe, step: Step, run: StepRun) -> str:
    """Said first at a sample of a plan that should have been taken by now."""
    plan = plan_of(recipe, step.id)
    return f"OVERDUE: it was due within {spoken(recipe, plan.within)}. " if plan and "timeout" in run.passed else ""


def _trend(batch: Batch, step: Step, run: StepRun, unit: str) -> str:
    """What earlier batches let expect, where the step's value is compared with theirs."""
    rule = rule_of(step)
    if rule is None:
        return ""
    point = next_point(step, run.passed)
    return f" {expected(rule, batch.trend.of.get(series(step.id, run.iteration, point, unit)), unit)}"


def _attachments(recipe: Recipe, step: Step) -> tuple[AttachmentLine, ...]:
    """The step's, then the recipe's."""
    return tuple(
        AttachmentLine(file=one.file, sha256=one.sha256, title=spoken(recipe, one.title) or one.file)
        for one in (*step.attachments, *recipe.attachments)
    )


def _next_title(recipe: Recipe, step: Step) -> str:
    for sequence in recipe.sequences():
        ids = [s.id for s in sequence]
        if step.id in ids:
            place = ids.index(step.next) if step.next in ids else ids.index(step.id) + 1
            return f"{sequence[place].id} {sequence[place].title}" if place < len(ids) else ""
    return ""


def _question(
    line: Line, batch: Batch, steps: Mapping[str, Step], question: Question, latest: Latest, at: Stamp
) -> QuestionCard:
    bound = line.book.plant.tag(question.tag)
    shown = f"{question.tag.partition('.')[0]}.{bound.read_back}" if bound and bound.read_back else question.tag
    dark = elapsed(question.since, question.before_boot, at)
    step = steps.get(question.step)
    intent = word_of(line.book.plant, question.tag, question.intent) or str(question.intent)
    if isinstance(step, Label):
        content = label_content(line.recipe(batch), batch, step.content)
        intent = f"{step.copies} × " + "; ".join(f"{title}: {text}" for title, text in content.items())
    return QuestionCard(
        question=question.question,
        step=question.step,
        tag=question.tag,
        title=step.title if step else question.step,
        why=question.why,
        intent=intent,
        labels=isinstance(step, Label),
        reading_before=""
        if question.before is None
        else word_of(line.book.plant, shown, question.before) or str(question.before),
        unit=question.unit,
        reading_now=None
        if isinstance(step, Label)
        else _in_words(line, _reading(shown, shown, latest(shown), None, None)),
        elapsed_low_s=dark.low_s,
        elapsed_high_s=-1.0 if math.isinf(dark.high_s) else dark.high_s,
        answers=question.answers,
    )


def _in_words(line: Line, view: ReadingView) -> ReadingView:
    """The word for the state of a service in the place of its number."""
    return view.model_copy(update={"text": word_of(line.book.plant, view.tag, view.value) or view.text})


def _reading(tag: str, title: str, reading: Reading | None, low: float | None, high: float | None) -> ReadingView:
    if reading is None:
        return ReadingView(
            tag=tag,
            title=title,
            value=None,
            text="—",
            unit="",
            quality="bad",
            detail="no reading yet",
            low=low,
            high=high,
        )
    usable = reading.good or reading.quality.value != "good"
    return ReadingView(
        tag=tag,
        title=title,
        value=reading.value if reading.good else None,
        text=_text(reading) if reading.good else f"({_text(reading)})",
        unit=reading.unit,
        quality=reading.quality.value if usable else "bad",
        detail=reading.detail,
        low=low,
        high=high,
    )


def _text(reading: Reading) -> str:
    return f"{reading.value:.2f}" if isinstance(reading.value, float) else str(reading.value)


def _dark(batch: Batch) -> DarkCard | None:
    dark = batch.dark
    if dark is None or not darkness.wanted(batch):
        return None
    roles = tuple(role.value for role in roles_with(darkness.PERMISSION[bool(dark.person)]))
    return DarkCard(since=dark.since, verifies=bool(dark.person), entered_by=dark.person, roles=roles)


def _next_action(batch: Batch, cards: list[StepCard], waits: str, *, by_hand: bool) -> str:
    said = _what_next(batch, cards, waits, by_hand=by_hand)
    again = [
        f"{one.intent if isinstance(one.intent, str) else f'{one.intent:g}'} {one.unit}".strip() + f" to {one.tag}"
        if one.tag
        else f"step {step} anew"
        for step, one in batch.agreed.items()
    ]
    return f"{said} When it goes on, as was signed: {'; '.join(again)}." if again else said


def _what_next(batch: Batch, cards: list[StepCard], waits: str, *, by_hand: bool) -> str:
    match batch.state:
        case State.IDLE:
            return f"{waits}." if waits else "Its units are free: start it when everything is ready."
        case State.HELD if batch.questions and not next(iter(batch.questions.values())).tag:
            return "Look at the equipment, then decide how the step goes on after the time without power."
        case State.HELD if batch.questions and by_hand:
            return "Compare intent and reading, then answer the question, or go on by hand."
        case State.HELD if batch.questions:
            return "Compare intent and reading, then answer the question."
        case State.HELD if batch.restored:
            return (
                "Compare the batch with the hub, the equipment and the paper. "
                "A supervisor or quality then signs that it goes on, or it is stopped."
            )
        case State.HELD if darkness.wanted(batch):
            return (
                f"Held: {batch.reason} Two people enter how much time passed while the box was off (Batch, Time off)."
            )
        case State.HELD if by_hand:
            return f"Held: {batch.reason} When it is mended, resume the batch. Or go on by hand (Batch, By hand)."
        case State.HELD:
            return f"Held: {batch.reason} When it is mended, resume the batch."
        case State.PAUSED:
            return "Paused between steps. Resume when ready."
        case State.COMPLETE:
            return "Complete. The record can be reviewed."
        case State.STOPPED | State.ABORTED:
            return "Ended. The record can be reviewed."
        case State.RUNNING | State.PAUSING if cards and cards[0].asks != "nothing":
            verb = {"confirm": "Do", "value": "Enter", "choice": "Choose", "scan": "Scan", "sign": "Sign"}
            return f"{verb.get(cards[0].asks, 'By hand')}: {cards[0].title}"
        case State.RUNNING | State.PAUSING if cards:
            return f"Nothing to do now: {cards[0].title} is under way."
        case _:
            return "Wait a moment."
