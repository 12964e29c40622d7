"""The as-built record: what the rows say of one batch, in the order in which they say it. A fold over rows alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, field, replace
from datetime import datetime
from typing import Any, Final

from edge.core import events as ev
from edge.core.events import RowBody
from edge.core.lifecycle import ACT_OF, DONE, Approval
from edge.core.mode import HAND, is_write
from edge.core.quick import dataclass
from edge.core.terms import ClockQuality, Stamp, Value, span


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
    """One equipment command and what became of it: "confirmed", "refused", "unknown" or "intended" (still open); or
    what two people did in its place, as attempt 0: "by hand"."""

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
    late: bool = False
    """It did not wait for its row, for it made a unit safe."""


@dataclass(slots=True)
class Signature:
    person: str
    role: str
    meaning: str
    subject_seq: int
    utc: str
    clock: str = ClockQuality.SYNCED
    """What was known of the clock that said so."""

    def __str__(self) -> str:
        doubt = "" if self.clock == ClockQuality.SYNCED else ", by a clock that no time source set"
        return f"{self.person} as {self.role}: {self.meaning} (row {self.subject_seq}), {self.utc}{doubt}"


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
    attachments: list[dict[str, str]] = field(default_factory=list)
    """`file` and `sha256` of what could be opened at the step."""


@dataclass(slots=True)
class BuiltException:
    exception: str
    step: str
    category: str
    code: str
    what: str
    utc: str


@dataclass(slots=True)
class BuiltAlarm:
    """An alarm that was raised during the batch: of its limits, of its units' tags, or of the box itself. Times are
    empty for what has not happened."""

    alarm: str
    step: str
    tag: str
    priority: str
    cause: str
    effect: str
    todo: str
    value: Value | None
    raised_utc: str
    cleared_utc: str = ""
    acknowledged_utc: str = ""
    acknowledged_by: str = ""
    more: int = 0
    """How often its condition came back meanwhile, while it flooded."""


@dataclass(slots=True)
class StateChange:
    was: str
    now: str
    cause: str
    reason: str
    utc: str


@dataclass(slots=True)
class BuiltAmendment:
    """What was to be amended of the control recipe, why, who asked for it, and what became of that: "requested",
    "made" or "refused". The recipe had the seal `was_seal`; `new_seal` is that of the amended one."""

    amendment: str
    state: str
    differences: list[str]
    changes: list[dict[str, str]]
    adopts: str
    from_step: str
    was_seal: str
    new_seal: str
    reason: str
    requested_by: str
    requested_utc: str
    agreed: list[str] = field(default_factory=list)
    settled_utc: str = ""
    refused: str = ""
    """Who refused it, and why; empty when nobody did."""

    def sentences(self) -> list[str]:
        """The amendment for a person, a line each."""
        about = f", version {self.adopts} from step {self.from_step} on" if self.adopts else ""
        agreed = f", agreed by {', '.join(self.agreed)}" if self.agreed else ""
        bounds = [
            f"{one['subject']} {one['field']}".strip() + f" from {one['old']} to {one['new']} {one['unit']}".rstrip()
            + f", bounds {one['low'] or 'open'} to {one['high'] or 'open'}"
            + (f": {one['why']}" if one["why"] else "")
            for one in self.changes
            if one["kind"] == "value"
        ]  # fmt: skip
        lines = [
            f"Amendment {self.amendment} {self.state} {self.settled_utc}".rstrip()
            + f": requested by {self.requested_by} {self.requested_utc}{about}{agreed}: {self.reason}",
            *(f"  {one}" for one in (*self.differences, *bounds)),
            f"  seal {self.was_seal[:16]} -> {self.new_seal[:16]}",
        ]
        return [*lines, f"  {self.refused}"] if self.refused else lines


@dataclass(slots=True)
class Clock:
    """What the times of the batch's rows are worth. Rows are in order by their numbers, whatever their times say."""

    free_rows: int = 0
    """So many were made while no time source set the clock: the first ..."""
    free_first: int = 0
    free_last: int = 0
    """... and the last of them."""
    last: Stamp | None = None
    """Of the newest row."""
    jumps: list[str] = field(default_factory=list)
    """Sentences about where the clock was set, as many as are kept."""

    def fold(self, seq: int, at: Stamp) -> None:
        if at.quality is not ClockQuality.SYNCED:
            self.free_rows, self.free_first, self.free_last = self.free_rows + 1, self.free_first or seq, seq
        if self.last is not None and len(self.jumps) < JUMPS_MAX and (why := _jumped(self.last, at)):
            self.jumps.append(f"Before row {seq} {why}")
        self.last = at

    def sentences(self) -> list[str]:
        """For a person; none when every time can be trusted."""
        free = (
            f"No time source set the clock when {self.free_rows} of its rows were made, between row {self.free_first} "
            f"and row {self.free_last}: their times may be wrong, their order is not."
        )
        return [*([free] if self.free_rows else []), *self.jumps]


JUMPS_MAX: Final = 20
JUMP_S: Final = 60.0
"""A clock that is merely kept right is never moved so far at once."""


def _jumped(last: Stamp, at: Stamp) -> str:
    """How the wall clock was set between two rows, in a sentence; empty when nothing shows that it was."""
    try:
        passed_s = (datetime.fromisoformat(at.utc) - datetime.fromisoformat(last.utc)).total_seconds()
    except (ValueError, TypeError):
        return ""  # no times that can be compared
    told_s = at.boottime_s - last.boottime_s if at.boot == last.boot else max(0.0, passed_s)
    if abs(passed_s - told_s) < JUMP_S:
        return ""
    way = "back" if passed_s < told_s else "forward"
    claimed = last.quality is at.quality is ClockQuality.SYNCED
    lied = ", although a time source set it before and after" if claimed else ""
    return f"the clock was set {way} by {span(abs(passed_s - told_s))}, to {at.utc}{lied}."


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
    """Empty for a batch that waits, or that ended while it waited; so is `started_by`."""
    started_by: str
    state: str = "running"
    as_of_seq: int = 0
    ended_utc: str = ""
    steps: list[BuiltStep] = field(default_factory=list)
    exceptions: list[BuiltException] = field(default_factory=list)
    alarms: list[BuiltAlarm] = field(default_factory=list)
    attachments: list[dict[str, str]] = field(default_factory=list)
    """`file` and `sha256` of what could be opened at every step."""
    states: list[StateChange] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    """Made about the batch as a whole, not at a step."""
    open_results: dict[str, str] = field(default_factory=dict)
    """Sentences about the results that are pending, by their ids."""
    amendments: list[BuiltAmendment] = field(default_factory=list)
    """What was amended of the control recipe, or was to be. `recipe`, `version` and `seal` are those of the start."""
    identity_erased: str = ""
    """A sentence about who made the box's vault forget the patient's identity, and why; empty while it was not."""
    approval: list[str] = field(default_factory=list)
    """Sentences about who submitted, approved and released the recipe before the batch began, or that nobody was asked
    to sign for it; empty when these rows do not tell."""
    queued: str = ""
    """A sentence about who let the batch wait, and what for; empty for one that began at once."""
    dark: list[str] = field(default_factory=list)
    units_said: list[str] = field(default_factory=list)
    """When units of the batch became dirty and clean."""
    """Sentences about the times when no runtime was there while this batch was under way."""
    training: bool = False
    """Somebody learned: this is no record of a product, and never will be."""
    compared: list[str] = field(default_factory=list)
    """The earlier batches that its values are compared with, where the recipe has a trend."""
    ordered: list[str] = field(default_factory=list)
    """Sentences about the parameters that its order set."""
    profile: str = ""
    """The box's profile when it began; empty while it waits."""
    clock: Clock = field(default_factory=Clock)

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
        if datum.source not in {"entered", "scanned", HAND}:
            return datum.source
        return "the patient" if datum.value == self.patient else datum.value  # a pseudonym is another on each box


ANSWERS = frozenset({"it happened", "do it again", "it goes on", "it begins anew", "abort"})


def as_built(rows: Iterable[tuple[int, RowBody]]) -> dict[str, AsBuilt]:
    """The as-built record of every batch in these rows (seq, body), by batch id."""
    built: dict[str, AsBuilt] = {}
    recipes = _Recipes()
    for seq, row in rows:
        recipes.fold(row)
        _fold(built, seq, row)
        if isinstance(row.event, ev.BatchQueued | ev.BatchStarted):
            built[row.event.batch].approval = recipes.sentences(row.event.seal)
    return built


@dataclass
class _Recipes:
    """What rows say about how recipes became effective, by seal."""

    from_folder: bool = False
    loaded: set[str] = field(default_factory=set)
    signed: dict[str, list[str]] = field(default_factory=dict)

    def fold(self, row: RowBody) -> None:
        event = row.event
        match event:
            case ev.RecipeApprovalSet():
                self.from_folder = event.approval == Approval.FROM_FOLDER
            case ev.RecipeLoaded():
                self.loaded.add(event.seal)
                self.from_folder = True  # it is only made where nobody signs
            case ev.RecipeSubmitted() | ev.RecipeApproved() | ev.RecipeReleased():
                if isinstance(event, ev.RecipeSubmitted):  # earlier signatures do not count any more
                    self.signed[event.seal] = []
                done = f"Recipe {DONE[ACT_OF[type(event)]].partition(':')[0]} {row.at.utc}"
                self.signed.setdefault(event.seal, []).append(f"{done} by {row.actor} as {event.role}")
            case _:
                pass

    def sentences(self, seal: str) -> list[str]:
        unsigned = self.from_folder and seal in self.loaded
        return [*self.signed.get(seal, []), *([FROM_FOLDER] if unsigned else [])]


FROM_FOLDER: Final = "Recipe from the folder of the box: no approval by signature was asked for"


NOT_A_RECORD: Final = "TRAINING: this is no record of a product. It can never be reviewed or released as one."


def batch_record(rows: Iterable[tuple[int, RowBody]], batch: str) -> AsBuilt | None:
    """The as-built record of one batch, or None when no row started it."""
    return as_built(rows).get(batch)


def as_text(record: AsBuilt) -> str:
    """The record for reading in a terminal."""
    release = "" if record.speed == 1.0 else f"  process time compressed {record.speed:g} times: not for release"
    lines = [
        *([NOT_A_RECORD] if record.training else []),
        f"Batch {record.batch}  order {record.order}  patient {record.patient or '-'}{release}",
        f"Recipe {record.recipe} {record.version}  seal {record.seal}",
        *([f"Profile {record.profile.replace('_', ' ')}"] if record.profile else []),
        *record.approval,
        f"Units {', '.join(f'{role} = {unit}' for role, unit in record.units.items()) or '-'}",
        *record.ordered,
        *([record.queued] if record.queued else []),
        *([f"Compared with {', '.join(record.compared)}"] if record.compared else []),
        (
            f"{f'Started {record.started_utc} by {record.started_by}' if record.started_utc else 'Never started'}; "
            f"{record.state} {record.ended_utc}; as of row {record.as_of_seq}"
        ),
    ]
    lines += [f"Attached: {one['file']}, SHA-256 {one['sha256']}" for one in record.attachments]
    lines += [f"Signed by {s}" for s in record.signatures]
    lines += [sentence for amendment in record.amendments for sentence in amendment.sentences()]
    for step in record.steps:
        again = "" if step.iteration == 1 else f"  iteration {step.iteration}"
        lines.append(
            f"{step.step}{again}  {step.title}  [{step.phase}, {step.state}]  {step.began_utc} to {step.ended_utc}"
        )
        lines += [f"      attached: {one['file']}, SHA-256 {one['sha256']}" for one in step.attachments]
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
            late = " before its row" if written.late else ""
            lines.append(
                f"      wrote {written.value} {written.unit} to {written.tag}{late}: {written.outcome}, "
                f"read {written.reading}{answer} {written.why}".rstrip()
            )
        lines += [f"      refused scan: {why}" for why in step.refused_scans]
        lines += [f"      signed by {s}" for s in step.signatures]
    lines += [f"{x.exception}  {x.category}  {x.code}  step {x.step}  {x.what}" for x in for_review(record)]
    lines += [_alarm_text(alarm) for alarm in record.alarms]
    lines += record.open_results.values()
    lines += [record.identity_erased] if record.identity_erased else []
    lines += record.dark + record.units_said + record.clock.sentences()
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


HOW_WEIGHED: Final = {"entered": "typed, not read", HAND: "entered by one person and verified by another, not read"}


def _trend(event: ev.TrendJudged) -> str:
    """A sentence about what was compared with earlier batches."""
    value = "no usable value" if event.value is None else f"{event.value:g} {event.unit}".rstrip()
    point = f", point {event.point}" if event.point else ""
    missed = f"; {event.missed} before it missed" if event.missed else ""
    if event.low is None or event.high is None:
        why = "" if event.value is None else f", not judged: {event.of} of the {event.least} batches that are needed"
        return f"trend of {event.name}{point}: {value}{why}{missed}"
    found = "OUT OF TREND" if event.found == "outside" else event.found
    return f"trend of {event.name}{point}: {value}, {found} {event.low:g} to {event.high:g} of {event.of}{missed}"


def _happening(
    event: ev.Weighed
    | ev.ByHand
    | ev.ModeChanged
    | ev.HandEntered
    | ev.HandVerified
    | ev.HandRefused
    | ev.LabelsPrinted
    | ev.Transferred
    | ev.CustodyPassed
    | ev.RampStepped
    | ev.ServiceSet
    | ev.ServiceMoved
    | ev.ExpiryBegun
    | ev.ExpiryNear
    | ev.ExpiryPassed
    | ev.ExpiryEnded,
) -> str:
    """A sentence about what became of a step of several parts."""
    match event:
        case ev.Weighed():
            weights = f"tare {event.tare:g}, gross {event.gross:g}, net {event.net:g} {event.unit}"
            how = HOW_WEIGHED.get(event.source) or f"read from {event.source}"
            return f"weighed {event.name}: {weights}, wanted {event.target:g} {event.unit}; {how}"
        case ev.ByHand():
            return f"went on without the equipment: {event.why}"
        case ev.ModeChanged():
            why = "; ".join(one for one in (event.trouble, event.reason) if one)
            since = f" (since {event.since_utc})" if event.trouble and event.since_utc else ""
            return f"went from {event.was} to {event.now}: {why or 'as the signature says'}{since}"
        case ev.HandEntered():
            return f"BY HAND: {event.part} entered by {event.person} as {event.role}"
        case ev.HandVerified():
            shown = f"{event.value} {event.unit}".strip()
            people = f"entered by {event.entered_by}, verified by {event.person} as {event.role}"
            return f"BY HAND, not measured: {event.part} = {shown}, {people}"
        case ev.HandRefused():
            return f"BY HAND: {event.part} refused: {event.why}"
        case ev.LabelsPrinted():
            content = "; ".join(f"{title}: {text}" for title, text in event.content.items())
            return f"{event.printed} labels printed{f' by {event.printer}' if event.printer else ''} with {content}"
        case ev.Transferred():
            return f"{event.quantity:g} {event.unit} went from {event.source} to {event.target}"
        case ev.CustodyPassed():
            return f"{event.what}: from {event.gives} to {event.takes}"
        case ev.RampStepped():
            return f"the set-point stands at {event.value:g}"
        case ev.ServiceSet():
            return f"the service was told to {event.command}" if event.command else f"{event.tag} is set"
        case ev.ServiceMoved():
            return f"{event.service} is {event.state}" + (f", from {event.was}" if event.was else "")
        case ev.ExpiryBegun():
            until = f"until step {event.until} is done" if event.until else "to the end of the batch"
            return f"{event.material}: to be used within {span(event.use_within_s)}, {until}"
        case ev.ExpiryNear():
            return f"{event.material} expires soon: {_passed(event.low_s, event.high_s)}"
        case ev.ExpiryPassed():
            return f"{event.material} is or may be expired: {_passed(event.low_s, event.high_s)}"
        case ev.ExpiryEnded():
            return f"{event.material} was used: {_passed(event.low_s, event.high_s)} when step {event.by} was done"


def _dark(event: ev.DarkEntered | ev.DarkRefused | ev.DarkVerified) -> str:
    match event:
        case ev.DarkEntered():
            return f"{event.person} ({event.role}) entered by hand: {event.minutes} min passed in the dark."
        case ev.DarkRefused():
            return event.why
        case ev.DarkVerified():
            return (
                f"{event.minutes} min passed in the dark: entered by hand by {event.entered_by}, verified by "
                f"{event.person} ({event.role}); taken as {span(event.low_s)} to {span(event.high_s)}."
            )


def _passed(low_s: float, high_s: float) -> str:
    if high_s < 0:
        return f"at least {span(low_s)} have passed, nobody knows how much more"
    return f"{span(low_s)} have passed" if high_s - low_s < 1 else f"{span(low_s)} to {span(high_s)} have passed"


def _ordered(changes: list[dict[str, str]]) -> list[str]:
    """What an order set, a sentence each."""
    said = "Ordered: {} = {} {unit}, the recipe says {} {unit}"
    values = (one for one in changes if one["kind"] == "value")
    return [said.format(one["subject"][1:], one["new"], one["old"], unit=one["unit"]).rstrip() for one in values]


def _end(limit: float | None) -> str:
    return "open" if limit is None else f"{limit:g}"


def _fold(built: dict[str, AsBuilt], seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    match event:
        case ev.BatchQueued():
            about = (event.order, event.patient, event.recipe, event.version, event.seal)
            waits = event.waits or "It was to be started later"
            built[event.batch] = AsBuilt(
                event.batch,
                *about,
                {},
                event.speed,
                "",
                "",
                state="idle",
                as_of_seq=seq,
                queued=f"Queued {utc} by {row.actor}. {waits}.",
                training=event.training,
                ordered=_ordered(event.changes),
            )
        case ev.BatchStarted():
            about = (event.order, event.patient, event.recipe, event.version, event.seal)
            begun = AsBuilt(
                event.batch,
                *about,
                dict(event.units),
                event.speed,
                utc,
                row.actor,
                as_of_seq=seq,
                training=event.training,
                profile=event.profile,
                ordered=_ordered(event.changes),
            )
            if waited := built.get(event.batch):  # what was decided meanwhile belongs to it
                begun = replace(
                    begun,
                    queued=waited.queued,
                    clock=waited.clock,
                    exceptions=waited.exceptions,
                    signatures=waited.signatures,
                    amendments=waited.amendments,
                )
            built[event.batch] = begun
        case ev.IdentityErased():
            for batch in built.values():
                if batch.patient == event.pseudonym:
                    batch.as_of_seq = seq
                    batch.identity_erased = f"Patient identity erased {utc} by {row.actor}: {event.reason}"
        case ev.RuntimeStarted() if not event.clean:
            most = "an unknown time" if event.dark_high_s < 0 else f"at most {event.dark_high_s:.1f} s"
            for batch in built.values():
                if batch.started_utc and not batch.ended_utc:
                    batch.dark.append(
                        f"Before {utc} no runtime was there for at least {event.dark_low_s:.1f} s, {most}."
                    )
        case ev.DarkEntered() | ev.DarkRefused() | ev.DarkVerified() if event.batch in built:
            built[event.batch].as_of_seq = seq
            built[event.batch].dark.append(f"{utc} {_dark(event)}")
        case ev.AlarmRaised() | ev.AlarmCleared() | ev.AlarmAcknowledged() | ev.AlarmFlooded():
            for batch in built.values():
                _fold_alarm(batch, seq, row)
        case _ if event.batch in built:
            batch = built[event.batch]
            batch.as_of_seq = seq
            _fold_batch(batch, seq, row)
        case _:
            pass
    if event.batch in built:
        built[event.batch].clock.fold(seq, row.at)


def _fold_alarm(batch: AsBuilt, seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    if isinstance(event, ev.AlarmRaised):
        of_unit = not event.tag or event.tag.partition(".")[0] in batch.units.values()
        if event.batch == batch.batch or (not event.batch and of_unit and not batch.ended_utc):
            told = (event.priority, event.cause, event.effect, event.todo)
            batch.alarms.append(BuiltAlarm(event.alarm, event.step, event.tag, *told, event.value, utc))
            batch.as_of_seq = seq
        return
    alarm = next((one for one in reversed(batch.alarms) if one.alarm == getattr(event, "alarm", "")), None)
    if alarm is None or (alarm.cleared_utc and alarm.acknowledged_utc):
        return
    batch.as_of_seq = seq
    match event:
        case ev.AlarmCleared():
            alarm.cleared_utc = utc
        case ev.AlarmAcknowledged():
            alarm.acknowledged_utc, alarm.acknowledged_by = utc, row.actor
        case ev.AlarmFlooded():
            alarm.more += event.times


def _alarm_text(alarm: BuiltAlarm) -> str:
    value = "" if alarm.value is None else f" ({alarm.tag} = {alarm.value})"
    more = f", and {alarm.more} times more" if alarm.more else ""
    over = f"over {alarm.cleared_utc}" if alarm.cleared_utc else "not over"
    by = alarm.acknowledged_by
    seen = f"acknowledged by {by} {alarm.acknowledged_utc}" if by else "NOT ACKNOWLEDGED"
    return f"Alarm, {alarm.priority}: {alarm.cause}{value} {alarm.raised_utc}{more}; {over}; {seen}"


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
        case ev.StepSkipped():
            _skip(batch, event, utc)
        case ev.AmendmentRequested() | ev.AmendmentAgreed() | ev.AmendmentRefused() | ev.AmendmentMade():
            _amend(batch, event, row)
        case ev.ExceptionRaised():
            batch.exceptions.append(
                BuiltException(event.exception, event.step, event.category, event.code, event.what, utc)
            )
        case ev.TrendPinned():
            batch.compared = event.batches
        case ev.TrendJudged():
            _step(batch, event.step).decided.append(_trend(event))
        case ev.CommandIntended():
            written = Written(
                event.tag, event.value, event.unit, event.attempt, "intended", None, "", "", utc, event.late
            )
            _step(batch, event.step).written.append(written)
        case ev.CommandConfirmed() | ev.CommandRefused() | ev.CommandUnknown():
            _conclude(batch, event)
        case ev.QuestionAnswered():
            attempt = int(event.question.rpartition(".")[2])
            step = _step(batch, event.step)
            for written in step.written:
                if written.attempt == attempt:
                    written.answer = event.answer
            if all(written.attempt != attempt for written in step.written):
                why = "the service broke off" if step.phase == "service" else "the box was off in this step"
                step.decided.append(f"{why}: answered {event.answer!r} by {row.actor}")
        case ev.UnitSoiled():
            batch.units_said.append(f"{utc} {event.unit} is dirty from here on: {event.why}")
        case ev.UnitCleaned():
            batch.units_said.append(f"{utc} {event.unit} is clean from here on (step {event.step})")
        case ev.AttachmentsOffered(step=""):
            batch.attachments += event.attachments
        case ev.SignatureMade(step=""):
            batch.signatures.append(_signature(event, row.at))
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
            | ev.ModeChanged()
            | ev.HandEntered()
            | ev.HandVerified()
            | ev.HandRefused()
            | ev.LabelsPrinted()
            | ev.Transferred()
            | ev.CustodyPassed()
            | ev.RampStepped()
            | ev.AttachmentsOffered()
            | ev.ServiceSet()
            | ev.ServiceMoved()
            | ev.ExpiryBegun()
            | ev.ExpiryNear()
            | ev.ExpiryPassed()
            | ev.ExpiryEnded()
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


def _skip(batch: AsBuilt, event: ev.StepSkipped, utc: str) -> None:
    last = next((one for one in reversed(batch.steps) if one.step == event.step), None)
    if last is None or last.iteration != event.iteration or last.state != "active":
        last = BuiltStep(event.step, event.title, event.phase, iteration=event.iteration)
        batch.steps.append(last)
    last.state, last.ended_utc = "skipped", utc
    last.decided.append(f"left out by amendment {event.amendment}")


def _amend(
    batch: AsBuilt,
    event: ev.AmendmentRequested | ev.AmendmentAgreed | ev.AmendmentRefused | ev.AmendmentMade,
    row: RowBody,
) -> None:
    utc = row.at.utc
    if isinstance(event, ev.AmendmentRequested):
        more = [f"and {event.more} more differences"] if event.more else []
        batch.amendments.append(
            BuiltAmendment(
                event.amendment,
                "requested",
                event.differences + more,
                event.changes,
                event.adopts,
                event.from_step,
                event.was_seal,
                event.new_seal,
                event.reason,
                row.actor,
                utc,
            )
        )
        return
    amendment = next(one for one in reversed(batch.amendments) if one.amendment == event.amendment)
    match event:
        case ev.AmendmentAgreed():
            amendment.agreed.append(f"{event.person} as {event.role}")
        case ev.AmendmentRefused():
            amendment.state, amendment.settled_utc = "refused", utc
            amendment.refused = f"refused by {event.person} as {event.role}: {event.reason}"
        case ev.AmendmentMade():
            amendment.agreed.append(f"{event.person} as {event.role}")
            amendment.state, amendment.settled_utc = "made", utc


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
        case ev.AttachmentsOffered():
            step.attachments += event.attachments
        case ev.ScanRefused():
            step.refused_scans.append(event.why)
        case ev.BranchTaken() | ev.PassBegun() | ev.LoopEnded() | ev.ConditionMet():
            step.decided.append(_decision(event))
        case (
            ev.Weighed()
            | ev.ByHand()
            | ev.ModeChanged()
            | ev.HandEntered()
            | ev.HandVerified()
            | ev.HandRefused()
            | ev.LabelsPrinted()
            | ev.Transferred()
            | ev.CustodyPassed()
            | ev.RampStepped()
            | ev.ServiceSet()
            | ev.ServiceMoved()
            | ev.ExpiryBegun()
            | ev.ExpiryNear()
            | ev.ExpiryPassed()
            | ev.ExpiryEnded()
        ):
            step.decided.append(_happening(event))
            writes = step.phase in {"set", "ramp", "service"}
            if isinstance(event, ev.HandVerified) and writes and is_write(event.part, event.tag):
                why = f"entered by {event.entered_by}, verified by {event.person}"
                done = (event.tag, event.value, event.unit, 0, HAND, event.value, why)
                step.written.append(Written(*done, "", utc))
        case ev.SignatureMade():
            step.signatures.append(_signature(event, row.at))
        case _:
            pass


def _signature(event: ev.SignatureMade, at: Stamp) -> Signature:
    return Signature(event.person, event.role, event.meaning, event.subject_seq, at.utc, at.quality)


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
