"""The as-built record: what the rows say of one batch, in the order in which they say it. A fold over rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edge.core import events as ev
from edge.core.events import RowBody
from edge.core.terms import Value


@dataclass(slots=True)
class Correction:
    """What a recorded value was before somebody corrected it, and why."""

    was: Value
    reason: str
    person: str
    utc: str


@dataclass(slots=True)
class Datum:
    """A recorded value, with the limit in force, and what it was before corrections. `seq` is its newest row."""

    name: str
    value: Value
    unit: str
    source: str
    low: float | None
    high: float | None
    within: bool
    person: str
    utc: str
    seq: int
    corrections: list[Correction] = field(default_factory=list)
    formula: str = ""
    inputs: list[ev.Input] = field(default_factory=list)
    """Of a calculated value: what it was calculated from."""


@dataclass(slots=True)
class Written:
    """One equipment command and what became of it: "confirmed", "refused", "unknown" or "intended" (still open)."""

    tag: str
    value: Value
    unit: str
    attempt: int
    outcome: str
    reading: Value | None
    why: str
    answer: str
    """What a person signed about it, if it was asked: "happened", "again" or "abort"."""
    utc: str


@dataclass(slots=True)
class Signature:
    person: str
    role: str
    meaning: str
    subject_seq: int
    utc: str


@dataclass(slots=True)
class BuiltStep:
    """One step as it was done."""

    step: str
    title: str
    phase: str
    state: str = "active"
    began_utc: str = ""
    ended_utc: str = ""
    person: str = ""
    data: list[Datum] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    refused_scans: list[str] = field(default_factory=list)
    iteration: int = 1
    """In a loop: which pass of it, through the whole batch."""
    decided: list[str] = field(default_factory=list)
    """Sentences about what was decided and done: which way a selection took and why, what was weighed."""


@dataclass(slots=True)
class BuiltException:
    exception: str
    step: str
    category: str
    code: str
    what: str
    utc: str


@dataclass(slots=True)
class StateChange:
    was: str
    now: str
    cause: str
    reason: str
    utc: str


@dataclass(slots=True)
class AsBuilt:
    """The record of one batch as of row `as_of_seq`."""

    batch: str
    order: str
    patient: str
    recipe: str
    version: str
    seal: str
    units: dict[str, str]
    speed: float
    started_utc: str
    started_by: str
    state: str = "running"
    as_of_seq: int = 0
    ended_utc: str = ""
    steps: list[BuiltStep] = field(default_factory=list)
    exceptions: list[BuiltException] = field(default_factory=list)
    states: list[StateChange] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    """Made about the batch as a whole, not at a step."""
    open_results: dict[str, str] = field(default_factory=dict)
    """Sentences about the results that are pending, by their ids."""
    identity_erased: str = ""
    """A sentence about who made the box's vault forget the patient's identity, and why; empty while it was not."""
    dark: list[str] = field(default_factory=list)
    """Sentences about the times when no runtime was there while this batch was under way."""

    def as_json(self) -> dict[str, Any]:
        """Plain data, keys in the order of the fields above."""
        return asdict(self)

    def outline(self) -> list[tuple[Any, ...]]:
        """What was done, apart from times, measured values, and the questions that a fault raised: two runs of
        the same batch by the same people agree in it, however often the power was cut."""
        return [
            (
                step.step,
                step.title,
                step.phase,
                step.state,
                [(d.name, self._comparable(d), d.unit, d.within) for d in step.data],
                sorted({(w.tag, w.value, w.unit) for w in step.written}),
                [(s.person, s.role, s.meaning) for s in step.signatures if s.meaning not in ANSWERS],
                *([step.iteration] if step.iteration != 1 else []),
            )
            for step in sorted(self.steps, key=lambda built: (built.step, built.iteration))
        ]

    def _comparable(self, datum: Datum) -> object:
        if datum.source not in {"entered", "scanned"}:
            return datum.source
        return "the patient" if datum.value == self.patient else datum.value  # a pseudonym is another on each box


ANSWERS = frozenset({"it happened", "do it again", "abort"})


def as_built(rows: Iterable[tuple[int, RowBody]]) -> dict[str, AsBuilt]:
    """The as-built record of every batch in these rows (seq, body), by batch id."""
    built: dict[str, AsBuilt] = {}
    for seq, row in rows:
        _fold(built, seq, row)
    return built


def batch_record(rows: Iterable[tuple[int, RowBody]], batch: str) -> AsBuilt | None:
    """The as-built record of one batch, or None when no row started it."""
    return as_built(rows).get(batch)


def as_text(record: AsBuilt) -> str:
    """The record for reading in a terminal."""
    release = "" if record.speed == 1.0 else f"  process time compressed {record.speed:g} times: not for release"
    lines = [
        f"Batch {record.batch}  order {record.order}  patient {record.patient or '-'}{release}",
        f"Recipe {record.recipe} {record.version}  seal {record.seal}",
        f"Units {', '.join(f'{role} = {unit}' for role, unit in record.units.items()) or '-'}",
        (
            f"Started {record.started_utc} by {record.started_by}; {record.state} {record.ended_utc}; "
            f"as of row {record.as_of_seq}"
        ),
    ]
    lines += [f"Signed by {s.person} as {s.role}: {s.meaning} (row {s.subject_seq})" for s in record.signatures]
    for step in record.steps:
        again = "" if step.iteration == 1 else f"  iteration {step.iteration}"
        lines.append(
            f"{step.step}{again}  {step.title}  [{step.phase}, {step.state}]  {step.began_utc} to {step.ended_utc}"
        )
        lines += [f"      {sentence}" for sentence in step.decided]
        for datum in step.data:
            within = "" if datum.within else "  OUT OF LIMIT"
            limit = "" if datum.low is datum.high is None else f"  limit {_end(datum.low)} to {_end(datum.high)}"
            lines.append(
                f"      {datum.name} = {datum.value} {datum.unit}{limit}{within}  ({datum.source}, {datum.person})"
            )
            if datum.formula:
                lines.append(f"        = {datum.formula}, with {_with(datum.inputs)}")
            lines += [f"        was {c.was}, corrected by {c.person} {c.utc}: {c.reason}" for c in datum.corrections]
        for written in step.written:
            answer = f", answered {written.answer!r}" if written.answer else ""
            lines.append(
                f"      wrote {written.value} {written.unit} to {written.tag}: {written.outcome}, "
                f"read {written.reading}{answer} {written.why}".rstrip()
            )
        lines += [f"      refused scan: {why}" for why in step.refused_scans]
        lines += [f"      signed by {s.person} as {s.role}: {s.meaning} (row {s.subject_seq})" for s in step.signatures]
    lines += [f"{x.exception}  {x.category}  {x.code}  step {x.step}  {x.what}" for x in for_review(record)]
    lines += record.open_results.values()
    lines += [record.identity_erased] if record.identity_erased else []
    lines += record.dark
    return "\n".join(lines)


CATEGORIES: Final = ("critical", "major", "minor")
"""Of exception records, in the order in which they are reviewed."""


def for_review(record: AsBuilt) -> list[BuiltException]:
    """The exception records in the order of their review: critical ones first, then as they were raised."""
    order = {category: place for place, category in enumerate(CATEGORIES)}
    return sorted(record.exceptions, key=lambda raised: order.get(raised.category, -1))  # an unknown one before all


def _with(inputs: Sequence[ev.Input]) -> str:
    """What went into a formula, for a sentence."""
    shown = [
        f"{one['name']} = {one['value']} {one['unit']}".rstrip()
        + (f" ({one['source']})" if one["quality"] == "good" else f" ({one['source']}, {one['quality']})")
        for one in inputs
    ]
    return ", ".join(shown) or "nothing"


def _decision(event: ev.BranchTaken | ev.PassBegun | ev.LoopEnded | ev.ConditionMet) -> str:
    """A sentence about what the box decided, and from which values."""
    because = f", with {_with(event.inputs)}" if event.inputs else ""
    match event:
        case ev.BranchTaken():
            way = "else" if event.branch < 0 else f"branch {event.branch + 1} {event.title}".rstrip()
            asked = f": {event.formula}" if event.formula else ""
            return f"took {way}{asked}{because}{f'; {event.why}' if event.why else ''}"
        case ev.PassBegun():
            return f"began pass {event.number} of {event.times}{because}{f'; {event.why}' if event.why else ''}"
        case ev.LoopEnded():
            return f"ended after pass {event.passes}: {event.formula or 'no more are allowed'}{because}"
        case ev.ConditionMet():
            return f"was true: {event.formula}{because}"


def _happening(
    event: ev.Weighed | ev.ByHand | ev.LabelsPrinted | ev.Transferred | ev.CustodyPassed | ev.RampStepped,
) -> str:
    """A sentence about what became of a step of several parts."""
    match event:
        case ev.Weighed():
            weights = f"tare {event.tare:g}, gross {event.gross:g}, net {event.net:g} {event.unit}"
            how = "typed, not read" if event.source == "entered" else f"read from {event.source}"
            return f"weighed {event.name}: {weights}, wanted {event.target:g} {event.unit}; {how}"
        case ev.ByHand():
            return f"went on without the equipment: {event.why}"
        case ev.LabelsPrinted():
            content = "; ".join(f"{title}: {text}" for title, text in event.content.items())
            return f"{event.printed} labels printed with {content}"
        case ev.Transferred():
            return f"{event.quantity:g} {event.unit} went from {event.source} to {event.target}"
        case ev.CustodyPassed():
            return f"{event.what}: from {event.gives} to {event.takes}"
        case ev.RampStepped():
            return f"the set-point stands at {event.value:g}"


def _end(limit: float | None) -> str:
    return "open" if limit is None else f"{limit:g}"


def _fold(built: dict[str, AsBuilt], seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    match event:
        case ev.BatchStarted():
            built[event.batch] = AsBuilt(
                event.batch,
                event.order,
                event.patient,
                event.recipe,
                event.version,
                event.seal,
                dict(event.units),
                event.speed,
                utc,
                row.actor,
                as_of_seq=seq,
            )
        case ev.IdentityErased():
            for batch in built.values():
                if batch.patient == event.pseudonym:
                    batch.as_of_seq = seq
                    batch.identity_erased = f"Patient identity erased {utc} by {row.actor}: {event.reason}"
        case ev.RuntimeStarted() if not event.clean:
            most = "an unknown time" if event.dark_high_s < 0 else f"at most {event.dark_high_s:.1f} s"
            for batch in built.values():
                if not batch.ended_utc:
                    batch.dark.append(
                        f"Before {utc} no runtime was there for at least {event.dark_low_s:.1f} s, {most}."
                    )
        case _ if event.batch in built:
            batch = built[event.batch]
            batch.as_of_seq = seq
            _fold_batch(batch, seq, row)
        case _:
            pass


def _fold_batch(batch: AsBuilt, seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    match event:
        case ev.BatchStateChanged():
            batch.state = event.now
            batch.states.append(StateChange(event.was, event.now, event.cause, event.reason, utc))
            if event.now in {"complete", "stopped", "aborted"}:
                batch.ended_utc = utc
        case ev.StepActivated():
            batch.steps.append(
                BuiltStep(event.step, event.title, event.phase, began_utc=utc, iteration=event.iteration)
            )
        case ev.ExceptionRaised():
            batch.exceptions.append(
                BuiltException(event.exception, event.step, event.category, event.code, event.what, utc)
            )
        case ev.CommandIntended():
            written = Written(event.tag, event.value, event.unit, event.attempt, "intended", None, "", "", utc)
            _step(batch, event.step).written.append(written)
        case ev.CommandConfirmed() | ev.CommandRefused() | ev.CommandUnknown():
            _conclude(batch, event)
        case ev.QuestionAnswered():
            attempt = int(event.question.rpartition(".")[2])
            step = _step(batch, event.step)
            for written in step.written:
                if written.attempt == attempt:
                    written.answer = event.answer
            if not step.written:
                step.decided.append(f"the box was off in this step: answered {event.answer!r} by {row.actor}")
        case ev.SignatureMade(step=""):
            batch.signatures.append(_signature(event, utc))
        case (
            ev.StepConfirmed()
            | ev.StepCompleted()
            | ev.StepEnded()
            | ev.ValueRecorded()
            | ev.ScanRefused()
            | ev.SignatureMade()
            | ev.BranchTaken()
            | ev.PassBegun()
            | ev.LoopEnded()
            | ev.ConditionMet()
            | ev.Weighed()
            | ev.ByHand()
            | ev.LabelsPrinted()
            | ev.Transferred()
            | ev.CustodyPassed()
            | ev.RampStepped()
        ):
            _fold_step(_step(batch, event.step), seq, row)
        case ev.ResultPending():
            so_far = f", {event.interim} so far" if event.interim else ""
            batch.open_results[event.result] = f"Result open: step {event.step}, {event.title}{so_far}"
        case ev.ResultAdded():
            batch.open_results.pop(event.result, None)
            _add_result(batch, seq, event, row)
        case ev.ValueCorrected():
            _correct(batch, seq, event, row)
        case _:
            pass


def _add_result(batch: AsBuilt, seq: int, event: ev.ResultAdded, row: RowBody) -> None:
    """It belongs to the pass of a loop in which it was left open."""
    passes = [one for one in batch.steps if (one.step, one.iteration) == (event.step, event.of_iteration)]
    step = passes[-1] if passes else _step(batch, event.step)
    step.data.append(
        Datum(
            event.name,
            event.value,
            event.unit,
            "added later",
            event.low,
            event.high,
            event.within,
            row.actor,
            row.at.utc,
            seq,
        )
    )


def _correct(batch: AsBuilt, seq: int, event: ev.ValueCorrected, row: RowBody) -> None:
    for datum in (datum for step in batch.steps for datum in step.data if datum.seq == event.was_seq):
        datum.corrections.append(Correction(event.was, event.reason, row.actor, row.at.utc))
        datum.value, datum.low, datum.high, datum.within = event.value, event.low, event.high, event.within
        datum.seq = seq


def _fold_step(step: BuiltStep, seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    match event:
        case ev.StepConfirmed():
            step.person = row.actor
            if event.part:
                step.decided.append(f"{event.part} confirmed by {row.actor}")
        case ev.StepCompleted():
            step.state, step.ended_utc = "done", utc
        case ev.StepEnded():
            step.state, step.ended_utc = event.state, utc
        case ev.ValueRecorded():
            step.person = row.actor
            step.data.append(
                Datum(
                    event.name,
                    event.value,
                    event.unit,
                    event.source,
                    event.low,
                    event.high,
                    event.within,
                    row.actor,
                    utc,
                    seq,
                    formula=event.formula,
                    inputs=event.inputs,
                )
            )
        case ev.ScanRefused():
            step.refused_scans.append(event.why)
        case ev.BranchTaken() | ev.PassBegun() | ev.LoopEnded() | ev.ConditionMet():
            step.decided.append(_decision(event))
        case ev.Weighed() | ev.ByHand() | ev.LabelsPrinted() | ev.Transferred() | ev.CustodyPassed() | ev.RampStepped():
            step.decided.append(_happening(event))
        case ev.SignatureMade():
            step.signatures.append(_signature(event, utc))
        case _:
            pass


def _signature(event: ev.SignatureMade, utc: str) -> Signature:
    return Signature(event.person, event.role, event.meaning, event.subject_seq, utc)


def _conclude(batch: AsBuilt, event: ev.CommandConfirmed | ev.CommandRefused | ev.CommandUnknown) -> None:
    steps = _step(batch, event.step).written
    written = _latest(steps, event.tag, event.attempt)
    if written is None:  # refused before it was intended: the guard said no
        written = Written(event.tag, "", "", event.attempt, "", None, "", "", "")
        steps.append(written)
    match event:
        case ev.CommandConfirmed():
            written.outcome, written.reading = "confirmed", event.reading
        case ev.CommandRefused():
            written.outcome, written.why = "refused", event.why
        case ev.CommandUnknown():
            written.outcome, written.why, written.reading = "unknown", event.why, event.reading


def _latest(written: Sequence[Written], tag: str, attempt: int) -> Written | None:
    return next((w for w in reversed(written) if w.tag == tag and w.attempt == attempt), None)


def _step(batch: AsBuilt, step: str) -> BuiltStep:
    found = next((built for built in reversed(batch.steps) if built.step == step), None)
    if found is None:  # the safe state is no step of the recipe, but it stands in the record
        found = BuiltStep(step, "Safe state" if step == "safe-state" else step, "safe state")
        batch.steps.append(found)
    return found
