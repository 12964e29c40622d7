"""The head: what is true of this line now, folded from rows.

    apply(line, row, seq)        -> line      never refuses, computes nothing that the row does not say
    decide(line, command, now)   -> rows      may refuse in words; changes nothing
    effects(line)                -> Effects   what must now be under way, derived, never stored

`edge.core.decide` holds the decisions; this file holds the state, the fold and the effects.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import field
from datetime import datetime
from typing import Final, Literal, TypeVar

from edge.core import alarms as al
from edge.core import events as ev
from edge.core import trend as tr
from edge.core.changed import finished, replace
from edge.core.errors import LinesideError
from edge.core.events import RowBody
from edge.core.formula import names_in
from edge.core.guard import Shown
from edge.core.lifecycle import Approval, RecipeLife, lived
from edge.core.mode import DUE, LATE, Hand, Mode
from edge.core.numbers import PRODUCT, RANGES, NumberRange, used
from edge.core.orders import Order
from edge.core.plant import Plant
from edge.core.profiles import Profile
from edge.core.proposals import Proposal
from edge.core.quick import dataclass
from edge.core.recipe import limit_in, seal
from edge.core.recipe.amend import Change, amended
from edge.core.recipe.model import (
    SAMPLING,
    Alarm,
    Hold,
    Monitor,
    Ramp,
    Recipe,
    SamplingPlan,
    Service,
    Step,
    Wait,
    Weigh,
)
from edge.core.recipe.values import resolve, said, seconds
from edge.core.service import EXECUTE
from edge.core.serving import module_of
from edge.core.terms import ClockQuality, Elapsed, Role, Stamp, State, Value
from edge.core.zpl import fingerprint

SEMANTICS: Final = 1
"""The behaviour of `decide` that a batch pins when it starts."""
STATE_SCHEMA: Final = 7
"""Raise it whenever the head has another form, or `apply` makes another head from the same rows: checkpoints of an
earlier one are then not used."""
ANSWERED_MAX: Final = 1024
"""How many command ids the head remembers, so that a repeated request does nothing twice."""
ENDED_KEPT: Final = 20
"""How many batches that have ended the head still holds, for whoever looks at the line. Rows say all of all batches."""
WAITING_KEPT: Final = 200
"""How many more of them it holds, the newest, because a result of theirs is pending."""
EXCEPTIONS_KEPT: Final = 200
"""How many of a batch's exceptions the head holds, the newest."""
RECIPES_KEPT: Final = 1024
"""How many recipes the head remembers as loaded, the newest; more than may be effective at once."""
SEAL_ROWS: Final = 256
"""After so many rows they are sealed at once ..."""
SEAL_AFTER_S: Final = 60.0
"""... and after so long in any case."""
OVER: Final = frozenset({State.COMPLETE, State.STOPPED, State.ABORTED})
"""States in which a batch has ended."""
DARK_S_MAX: Final = 366 * 86_400.0
"""A clock that says that the box was off for longer is rather taken for one that lies."""
SLEWED_S: Final = 2.0
"""By so much two trusted clocks may disagree with the time for which the box is on."""
PASSED: Final = frozenset({"done", "skipped"})
"""States of a step behind which the next one follows."""
AMENDED_KEPT: Final = 64
"""So many amended recipes are kept worked out."""
SAFE_STEP: Final = "safe-state"
"""Stands in the place of a step id for the writes of a unit's safe state."""
EXPIRY: Final = "expiry"
"""The timer of material that a step took."""
BY_HAND: Final = "by hand"
"""Stands among what a step was given once its equipment is not used any more."""
RESTORE: Final = "restore"
"""The cause of a hold that began because the journal came from a backup."""


NO_TIME: Final = Elapsed(0.0, 0.0)

_Held = TypeVar("_Held")


# The state ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Book:
    """Reference material that decisions read and rows only name: the plant in force and sealed recipes."""

    plant: Plant
    """While a batch is live, that which it was started on: each of its units is in it."""
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """Every recipe that a batch in the head pins, or that may be started, by seal."""
    effective: frozenset[str] = frozenset()
    """Seals of the recipes that may be started now."""
    amended: dict[str, Recipe] = field(default_factory=dict, compare=False, repr=False)
    """Amended control recipes by their seals, so that each is worked out once."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A write that was intended and whose outcome no row states yet. In doubt: a runtime began since then."""

    step: str
    iteration: int
    attempt: int
    tag: str
    value: Value
    unit: str
    before: Value | None
    seq: int
    in_doubt: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """An open question about a write; see `QuestionRaised`."""

    question: str
    step: str
    tag: str
    intent: Value
    unit: str
    before: Value | None
    why: str
    answers: tuple[str, ...]
    since: Stamp
    before_boot: Elapsed = NO_TIME


@dataclass(frozen=True, slots=True)
class StepRun:
    """One activation of a step. `since` and `before_boot` measure how long it is active across boots."""

    step: str
    phase: str
    title: str
    iteration: int
    attempt: int
    since: Stamp
    duration_s: float
    timeout_s: float
    state: Literal["active", "done", "ended", "skipped"] = "active"
    before_boot: Elapsed = NO_TIME
    passed: tuple[str, ...] = ()
    """Timers that are due already."""
    signed: tuple[tuple[str, str], ...] = ()
    """(person, role) of the signatures so far."""
    outside: str = ""
    """The exception that is open because the value is outside its limit; empty while it is inside."""
    given: Mapping[str, Value] = field(default_factory=dict)
    """What this activation was given so far, by name: its parts that are done."""
    entered_by: tuple[str, ...] = ()
    """Who typed what it was given."""
    branch: int | None = None
    """Of a selection: the branch that was taken, -1 for `else`."""
    passes: int = 0
    """Of a loop: the pass that is under way since this activation, from 1 on."""
    body: int = 0
    """Of a loop: the iteration of its steps, which goes on counting when the loop is entered again."""
    again: bool = False
    """A person decided that it is done again."""
    hand: Hand | None = None
    """How it goes on by hand or in manual mode; None while it is automatic."""


class Steps(dict[str, StepRun]):
    """The latest activation of each step, in the order of first activation. Never changed once it is made.

    It knows which are active, and how far the walk along a sequence found all passed: a decision about a long recipe
    does not go through it from its beginning. What it knows is true of itself alone, and follows from its content."""

    __slots__ = ("_active", "_passed")

    def __init__(self, runs: Mapping[str, StepRun]) -> None:
        super().__init__(runs)
        self._active: dict[str, StepRun] | None = None
        self._passed: dict[tuple[str, int], int] = {}

    def with_run(self, run: StepRun) -> Steps:
        """With this activation as the latest of its step."""
        made, was = Steps(self), self.get(run.step)
        made[run.step] = run
        if was is None or was.state == "active" or (run.state != "active" and run.iteration == was.iteration):
            made._passed = self._passed.copy()  # what was passed still is
        if self._active is None or (run.state == "active" and was is not None and was.state != "active"):
            return made  # one of the middle is active again
        made._active = {name: one for name, one in self._active.items() if name != run.step or run.state == "active"}
        if run.state == "active":
            made._active[run.step] = run
        return made

    def active(self) -> list[StepRun]:
        """Those under way, in order."""
        if self._active is None:
            self._active = {name: run for name, run in self.items() if run.state == "active"}
        return list(self._active.values())

    def passed(self, way: Sequence[Step], iteration: int) -> int:
        """How many steps at the beginning of this way are passed in this iteration."""
        if not way:
            return 0
        key = (way[0].id, iteration)
        place = self._passed.get(key, 0)
        for step in way[place:]:
            run = self.get(step.id)
            if run is None or run.iteration != iteration or run.state == "active":
                break
            place += 1
        self._passed[key] = place
        return place


@dataclass(frozen=True, slots=True)
class Dark:
    """So many times the box was off since `since` without a trusted bound; `minutes` in all, `person` entered."""

    stretches: int
    since: str
    minutes: int = 0
    person: str = ""


@dataclass(frozen=True, slots=True)
class ExpiryClock:
    """Material that may be used for a time; see `ExpiryBegun`. It runs in every state of the batch and in the dark."""

    step: str
    iteration: int
    material: str
    until: str
    since: Stamp
    use_within_s: float
    warn_after_s: float
    before_boot: Elapsed = NO_TIME
    near: bool = False
    expired: bool = False


@dataclass(frozen=True, slots=True)
class UnitState:
    """Whether a unit is clean, since when, by which batch and why; see `edge.core.cleaning`."""

    clean: bool
    since: Stamp
    before_boot: Elapsed
    batch: str
    why: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """The latest value of a name, for formulas."""

    value: Value
    unit: str
    step: str
    iteration: int
    seq: int
    low: float | None = None
    high: float | None = None
    """The limit that was in force."""


@dataclass(frozen=True, slots=True)
class Requested:
    """An amendment that waits for those who must agree; see `AmendmentRequested`."""

    amendment: str
    changes: tuple[Change, ...]
    adopts: str
    from_step: str
    seal: str
    new_seal: str
    differences: tuple[str, ...]
    more: int
    reason: str
    needs: tuple[str, ...]
    people: tuple[str, ...]
    """Who has signed: first who requests it, then who agreed."""


@dataclass(frozen=True, slots=True)
class OpenResult:
    """A result that somebody must still add; see `ResultPending`."""

    result: str
    step: str
    name: str
    iteration: int
    title: str
    unit: str
    interim: str


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    exception: str
    step: str
    category: str
    code: str
    what: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. `steps` holds the latest activation of each step, in the order of first activation."""

    batch: str
    order: str
    patient: str
    recipe: str
    version: str
    seal: str
    semantics: int
    """Pinned when it begins; 0 while it waits."""
    units: Mapping[str, str]
    speed: float
    state: State = State.RUNNING
    cause: str = ""
    reason: str = ""
    steps: Mapping[str, StepRun] = field(default_factory=dict)
    intents: Mapping[tuple[str, int, int, str], Intent] = field(default_factory=dict)
    questions: Mapping[str, Question] = field(default_factory=dict)
    agreed: Mapping[str, Question] = field(default_factory=dict)
    """What was answered with "again", by step: it is done when the batch goes on, and not before."""
    exceptions: tuple[ExceptionRecord, ...] = ()
    """The newest `EXCEPTIONS_KEPT`."""
    raised: int = 0
    """How many there were in all."""
    values: Mapping[str, Recorded] = field(default_factory=dict)
    """The latest recorded value of each name that a formula may use; a tag's name is none."""
    open_results: Mapping[str, OpenResult] = field(default_factory=dict)
    """Results that are pending, by their ids, also of a batch that is complete."""
    started_seq: int = 0
    """Its first row; of a batch that waited, that which says so. Rows from here on stay in the journal until it has
    ended."""
    changes: tuple[Change, ...] = ()
    """What was amended since: the control recipe is that of `seal` with these. It has the seal ..."""
    amended: str = ""
    """... `amended`; empty while nothing was."""
    skips: Mapping[str, str] = field(default_factory=dict)
    """Steps that are left out when they come, by the amendment that says so."""
    requested: Requested | None = None
    proposed: Proposal | None = None
    """The last of the hub's that nobody has taken up."""
    amendments: int = 0
    """How many were requested."""
    training: bool = False
    """Somebody learns: it can never be a product's."""
    profile: Profile = Profile.SINGLE_SITE_GMP
    """The box's when it began."""
    clocks: Mapping[str, ExpiryClock] = field(default_factory=dict)
    """Those of material in use, by `clock_key`."""
    trend: tr.Trending = field(default_factory=tr.Trending)
    dark: Dark | None = None
    """What two people may enter; None when every time is bounded."""

    @property
    def restored(self) -> bool:
        """Held because the journal came from a backup, until somebody decides that nothing is missing or it is lost."""
        return self.state is State.HELD and self.cause == RESTORE

    def active(self) -> list[StepRun]:
        """Steps under way."""
        return self.runs().active()

    def runs(self) -> Steps:
        """`steps`, with what it knows of itself."""
        return self.steps if isinstance(self.steps, Steps) else Steps(self.steps)


@dataclass(frozen=True, slots=True)
class UsedIds:
    """A set of ids that only grows, 8 bytes each: the first bytes of their SHA-256, sorted, in one piece.

    Another id is taken for a used one with a probability of n / 2^64: then a batch is refused that could have begun,
    and a person gives it another id. A used id is never taken for a new one."""

    packed: bytes = b""

    def __len__(self) -> int:
        return len(self.packed) // 8

    def __contains__(self, name: str) -> bool:
        digest = _short(name)
        at = 8 * self._place(digest)
        return self.packed[at : at + 8] == digest

    def with_id(self, name: str) -> UsedIds:
        """The set with `name` in it."""
        digest = _short(name)
        at = 8 * self._place(digest)
        return self if self.packed[at : at + 8] == digest else UsedIds(self.packed[:at] + digest + self.packed[at:])

    def _place(self, digest: bytes) -> int:
        return bisect_left(range(len(self)), digest, key=lambda i: self.packed[8 * i : 8 * i + 8])


def _short(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:8]


@dataclass(frozen=True, slots=True)
class Session:
    person: str
    roles: tuple[Role, ...]


@dataclass(frozen=True, slots=True)
class Failures:
    """Wrong secrets since the last right one; locked from `since` on when `locked`."""

    count: int
    locked: bool
    since: Stamp
    before_s: float = 0.0
    """How long a lock had lasted before this boot while the box was on; the time in the dark does not count."""


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The last time that the box verified its whole record, what did not hold, and what was not at hand."""

    at: Stamp
    rows: int
    found: tuple[str, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drill:
    """The last time that the box made and tried a backup, what did not hold, and what was not at hand."""

    at: Stamp
    backup: str
    head_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """The head. `book` is not part of what rows say and takes no part in comparison.

    It stays small however long the journal is: what grows without end is kept as its newest part, or as ids only."""

    book: Book = field(compare=False)
    seq: int = 0
    at: Stamp | None = None
    running: bool = False
    """A runtime started and has not stopped."""
    dark: Elapsed = NO_TIME
    """How long no runtime was there before this one; zero after a clean stop."""
    plant: str = ""
    plant_content: str = ""
    recipes: Mapping[str, ev.RecipeLoaded] = field(default_factory=dict)
    """Those that the box's folder made effective."""
    approval: Approval = Approval.FROM_FOLDER
    """How recipes become effective."""
    profile: Profile = Profile.SINGLE_SITE_GMP
    ad_hoc: tuple[str, ...] = ()
    """Recipes that are started without an order in any profile."""
    lives: Mapping[str, RecipeLife] = field(default_factory=dict)
    """Recipes that somebody submitted, by seal, in the order of their last change."""
    retired: UsedIds = field(default_factory=UsedIds)
    """The seals of all recipes that were ever retired."""
    batches: Mapping[str, Batch] = field(default_factory=dict)
    """Those that have not ended, and the last `ENDED_KEPT` that have, in the order of their ends."""
    used: UsedIds = field(default_factory=UsedIds)
    """The ids of all batches that ever began."""
    orders: Mapping[str, Order] = field(default_factory=dict)
    """Those that wait for somebody who starts them, by id."""
    ordered: UsedIds = field(default_factory=UsedIds)
    """The ids of all orders and proposals that were ever taken ..."""
    contents: UsedIds = field(default_factory=UsedIds)
    """... and those with their contents, of proposals also of those that were refused."""
    numbers: Mapping[str, NumberRange] = field(default_factory=lambda: dict(RANGES))
    """The ranges that this box takes batch numbers from, by what they are for."""
    sessions: Mapping[str, Session] = field(default_factory=dict)
    failures: Mapping[str, Failures] = field(default_factory=dict)
    answered: Mapping[str, str] = field(default_factory=dict)
    """Command id -> the sentence of its refusal, empty when it was accepted."""
    stored_seq: int = 0
    incarnation: str = ""
    self_check: SelfCheck | None = None
    drill: Drill | None = None
    record_seq: int = 0
    """The last row that is neither a receipt nor a seal."""
    sealed_seq: int = 0
    unsealed_since: Stamp | None = None
    """The time of the first such row that is not sealed yet."""
    erased_seq: int = 0
    """The last row that erased a patient identity; each such row names the one before it."""
    alarms: Mapping[str, al.Alarm] = field(default_factory=dict)
    """Those that are open: at most `OPEN_MAX` and one."""
    trends: tr.Trends = field(default_factory=dict)
    """What batches that are complete came to, for those after them."""
    units: Mapping[str, UnitState] = field(default_factory=dict)
    """Clean and dirty units."""

    def live(self) -> list[Batch]:
        """Batches that have not ended."""
        return [b for b in self.batches.values() if b.state not in OVER]

    def recipe(self, batch: Batch) -> Recipe:
        """The control recipe that the batch runs by: the sealed one that it pins, with what was amended since."""
        pinned = self.book.recipes[batch.seal]
        if not batch.changes:
            return pinned
        known = self.book.amended
        if batch.amended not in known:
            made = amended(pinned, batch.changes)
            if seal(made) != batch.amended:
                raise LinesideError(
                    "amendment.unreadable",
                    f"The amended recipe of batch {batch.batch} does not come out as it was signed.",
                    effect="The batch does not go on: it keeps exactly what was agreed to.",
                    todo="Run it with the version of Lineside that amended it.",
                )
            while len(known) >= AMENDED_KEPT:
                del known[next(iter(known))]
            known[batch.amended] = made
        return known[batch.amended]


def clock_key(step: str, iteration: int) -> str:
    """The key of the clock of what a step took."""
    return f"{step}.{iteration}"


def tag_name(units: Mapping[str, str], named: str) -> str:
    """The full tag name ("BR-1.temperature") of a recipe's "reactor.temperature", for these bound units."""
    role, _, tag = named.partition(".")
    return f"{units.get(role, role)}.{tag}"


def shown_tag(line: Line, full_name: str) -> str:
    """The full name of the tag that shows what became of a write to `full_name`."""
    tag = line.book.plant.tag(full_name)
    return f"{full_name.partition('.')[0]}.{tag.read_back}" if tag and tag.read_back else full_name


# The fold ----------------------------------------------------------------------------------------------------


TOLD: Final = ev.ScanRefused | ev.HandRefused | ev.DarkRefused | ev.OrderRefused | ev.ProposalRefused
"""Refusals that are rows, of which the person who asked is told why."""


def apply(line: Line, row: RowBody) -> Line:
    """The head after the next row (its seq is `line.seq + 1`)."""
    event, seq = row.event, line.seq + 1
    changed = _apply(line, row, seq)
    answered = changed.answered
    if event.command_id and event.command_id not in answered:
        kept = dict(answered)
        kept[event.command_id] = event.why if isinstance(event, TOLD) else ""
        while len(kept) > ANSWERED_MAX:
            del kept[next(iter(kept))]
        answered = kept
    record_seq, since = line.record_seq, changed.unsealed_since
    if not isinstance(event, ev.ReceiptStored | ev.Sealed):
        if record_seq <= line.sealed_seq:
            since = row.at
        record_seq = seq
    return finished(changed, line, seq=seq, at=row.at, answered=answered, record_seq=record_seq, unsealed_since=since)


def seal_due(line: Line, now: Stamp) -> bool:
    """True when the device must seal the rows now. Never for receipts and seals alone: a quiet box makes no rows."""
    if line.record_seq <= line.sealed_seq:
        return False
    since = line.unsealed_since
    if since is None or since.boot != now.boot or line.seq - line.sealed_seq >= SEAL_ROWS:
        return True
    return now.boottime_s - since.boottime_s >= SEAL_AFTER_S


def _apply(line: Line, row: RowBody, seq: int) -> Line:
    event, at = row.event, row.at
    match event:
        case ev.RuntimeStarted():
            return _runtime_started(line, event, at)
        case ev.ValuesSealed() | ev.ValuesMissing() | ev.ValuesThinned():
            return line  # they speak of history.db
        case ev.JournalContinued() | ev.CheckpointMade() | ev.RowsPruned():
            return line  # what follows from it is said by the rows after it
        case ev.RuntimeStopped():
            return replace(line, running=False, sessions={})
        case ev.PlantLoaded():
            return replace(line, plant=event.plant, plant_content=event.content)
        case ev.RecipeLoaded():
            kept = {seal: loaded for seal, loaded in line.recipes.items() if seal != event.seal}
            return replace(line, recipes=_newest({**kept, event.seal: event}, RECIPES_KEPT))
        case ev.ProfileSet():
            return replace(line, profile=Profile(event.profile), ad_hoc=tuple(event.ad_hoc))
        case ev.RecipeApprovalSet():
            return replace(line, approval=Approval(event.approval))
        case (
            ev.RecipeSubmitted() | ev.RecipeApproved() | ev.RecipeSentBack() | ev.RecipeReleased() | ev.RecipeRetired()
        ):
            lives = lived(line.lives, event, row.actor, at.utc, seq)
            gone = isinstance(event, ev.RecipeRetired)
            return replace(line, lives=lives, retired=line.retired.with_id(event.seal) if gone else line.retired)
        case ev.ReceiptStored():
            return replace(line, stored_seq=event.stored_seq, incarnation=event.incarnation)
        case ev.Sealed():
            return replace(line, sealed_seq=event.sealed_seq, unsealed_since=None)
        case ev.BackupDrilled():
            said = (tuple(event.found), tuple(event.left_out))
            return replace(line, drill=Drill(at, event.backup, event.head_seq, *said))
        case ev.SelfChecked():
            return replace(line, self_check=SelfCheck(at, event.rows, tuple(event.found), tuple(event.left_out)))
        case ev.IdentityErased():
            return replace(line, erased_seq=seq)
        case ev.AlarmRaised() | ev.AlarmCleared() | ev.AlarmAcknowledged() | ev.AlarmFlooded():
            return replace(line, alarms=_alarms(line.alarms, event, at, seq))
        case ev.SessionOpened():
            roles = tuple(Role(role) for role in event.roles)
            failures = {p: f for p, f in line.failures.items() if p != event.person}
            sessions = {**line.sessions, event.session: Session(event.person, roles)}
            return replace(line, sessions=sessions, failures=failures)
        case ev.SessionClosed():
            return replace(line, sessions={s: v for s, v in line.sessions.items() if s != event.session})
        case ev.LogInRefused():
            failed = Failures(event.failures, event.locked, at)
            return replace(line, failures={**line.failures, event.person: failed})
        case ev.OrderReceived() | ev.OrderCancelled():
            return _with_order(line, event)
        case ev.OrderRefused():
            if event.order not in line.ordered:
                return line  # it may be taken another time
            return replace(line, contents=line.contents.with_id(refused_id(event.order, event.digest)))
        case ev.AmendmentProposed() | ev.ProposalRefused():
            return _with_proposal(line, event)
        case ev.NumberRangeSet():
            others = {purpose: one for purpose, one in line.numbers.items() if purpose != PRODUCT}
            made = NumberRange(event.prefix, event.first, event.last, event.digits, event.next)
            return replace(line, numbers={**others, PRODUCT: made} if event.last else others)
        case ev.NumbersSkipped():
            skipped = replace(line.numbers[event.purpose], next=event.next)
            return replace(line, numbers={**line.numbers, event.purpose: skipped})
        case ev.UnitSoiled() | ev.UnitCleaned():
            clean = isinstance(event, ev.UnitCleaned)
            why = "" if isinstance(event, ev.UnitCleaned) else event.why
            state = UnitState(clean, at, NO_TIME, event.batch, why)
            return replace(line, units={**line.units, event.unit: state})
        case ev.BatchQueued():
            about = (event.order, event.patient, event.recipe, event.version, event.seal)
            idle = Batch(event.batch, *about, 0, {}, event.speed, state=State.IDLE, started_seq=seq)
            return _begun(line, _as_ordered(idle, event))
        case ev.BatchStarted():
            queued = line.batches.get(event.batch)
            started = Batch(
                event.batch,
                event.order,
                event.patient,
                event.recipe,
                event.version,
                event.seal,
                event.semantics,
                event.units,
                event.speed,
                started_seq=queued.started_seq if queued else seq,
            )
            if queued:  # what was decided while it waited
                started = replace(
                    started,
                    exceptions=queued.exceptions,
                    raised=queued.raised,
                    requested=queued.requested,
                    proposed=queued.proposed,
                    amendments=queued.amendments,
                )
            return _begun(line, _as_ordered(started, event))
        case _ if event.batch not in line.batches:
            return line  # it ended long ago: the head holds nothing of it that could change
        case _:
            return _with_batch(line, line.batches[event.batch], row, seq)


def _with_batch(line: Line, was: Batch, row: RowBody, seq: int) -> Line:
    event, batch = row.event, _apply_to_batch(was, row, seq)
    if isinstance(event, ev.BatchStateChanged) and batch.state in OVER:
        trends, figures = line.trends, batch.trend.figures
        if batch.state is State.COMPLETE and figures and not batch.amended and not batch.training:
            trends = tr.with_batch(trends, batch.recipe, tr.Kept(batch.batch, batch.version, batch.seal, figures))
        ended = replace(batch, trend=tr.Trending())
        return replace(line, batches=_with_ended(line.batches, ended), trends=trends)
    trends = line.trends
    if isinstance(event, ev.ValueCorrected) and isinstance(event.value, float):
        name = tr.series(event.step, event.of_iteration, 0, event.unit)
        trends = tr.corrected(trends, batch.recipe, batch.batch, name, event.value)
    if batch is was and trends is line.trends:
        return line
    return replace(line, batches={**line.batches, event.batch: batch}, trends=trends)


def _begun(line: Line, batch: Batch) -> Line:
    """With a batch that began, or waits: its number is used from here on."""
    batches = {**line.batches, batch.batch: batch}
    orders = {name: order for name, order in line.orders.items() if name != batch.order}
    used_ids, numbers = line.used.with_id(batch.batch), used(line.numbers, batch.batch)
    return replace(line, batches=batches, used=used_ids, numbers=numbers, orders=orders)


def _as_ordered(batch: Batch, event: ev.BatchQueued | ev.BatchStarted) -> Batch:
    """With what the order says of it."""
    changes = tuple(Change(**change) for change in event.changes)  # type: ignore[arg-type]
    profile = Profile(event.profile) if isinstance(event, ev.BatchStarted) else batch.profile
    return replace(batch, training=event.training, changes=changes, amended=event.control, profile=profile)


def _with_order(line: Line, event: ev.OrderReceived | ev.OrderCancelled) -> Line:
    if isinstance(event, ev.OrderCancelled):
        return replace(line, orders={name: one for name, one in line.orders.items() if name != event.order})
    order = Order(
        event.order,
        event.recipe,
        event.version,
        event.number,
        event.parameters,
        event.quantity,
        event.patient,
        event.due,
        event.training,
    )
    ids, contents = line.ordered.with_id(event.order), line.contents.with_id(f"{event.order}\n{event.digest}")
    return replace(line, orders={**line.orders, event.order: order}, ordered=ids, contents=contents)


def refused_id(order: str, digest: str) -> str:
    """Stands among the contents for an order that was refused for good: there is another one with its id."""
    return f"{order}\n{digest}\nrefused"


def _with_proposal(line: Line, event: ev.AmendmentProposed | ev.ProposalRefused) -> Line:
    line = replace(line, contents=line.contents.with_id(f"{event.proposal}\n{event.digest}"))
    if isinstance(event, ev.ProposalRefused):
        return line
    line, batch = replace(line, ordered=line.ordered.with_id(event.proposal)), line.batches.get(event.batch)
    if batch is None:
        return line
    asked = tuple(Change(**change) for change in event.changes)  # type: ignore[arg-type]
    way = (asked, event.adopts, event.from_step)
    proposed = Proposal(event.proposal, event.batch, event.version, event.until, event.reason, *way)
    return replace(line, batches={**line.batches, event.batch: replace(batch, proposed=proposed)})


def _alarms(
    alarms: al.Open,
    event: ev.AlarmRaised | ev.AlarmCleared | ev.AlarmAcknowledged | ev.AlarmFlooded,
    at: Stamp,
    seq: int,
) -> al.Open:
    match event:
        case ev.AlarmRaised():
            priority = next((one for one in al.PRIORITIES if one == event.priority), al.PRIORITIES[0])
            told = al.Told(priority, event.cause, event.effect, event.todo)
            watch = al.AlarmWatch(event.alarm, told, event.batch, event.step, event.tag)
            return al.opened(alarms, watch, event.value, seq, at)
        case ev.AlarmCleared():
            return al.after(alarms, event.alarm, "cleared")
        case ev.AlarmAcknowledged():
            return al.after(alarms, event.alarm, "acknowledged")
        case ev.AlarmFlooded():
            return al.counted(alarms, event.alarm, event.times)


def _newest(held: dict[str, _Held], count: int) -> dict[str, _Held]:
    """`held` with the last `count` of its entries."""
    while len(held) > count:
        del held[next(iter(held))]
    return held


def _with_ended(batches: Mapping[str, Batch], ended: Batch) -> dict[str, Batch]:
    """The ended ones in the order of their ends, the earliest beyond `ENDED_KEPT` left out."""
    live = {name: batch for name, batch in batches.items() if batch.state not in OVER and name != ended.batch}
    over = {name: batch for name, batch in batches.items() if batch.state in OVER and name != ended.batch}
    over[ended.batch] = ended
    waiting = _newest({name: batch for name, batch in over.items() if batch.open_results}, WAITING_KEPT)
    settled = _newest({name: batch for name, batch in over.items() if not batch.open_results}, ENDED_KEPT)
    return live | {name: batch for name, batch in over.items() if name in waiting or name in settled}


STARTS_OVER: Final = (
    ev.CommandIntended
    | ev.CommandRefused
    | ev.QuestionRaised
    | ev.StepActivated
    | ev.StepCompleted
    | ev.StepEnded
    | ev.StepSkipped
    | ev.ModeChanged
)
"""After one of these nothing that was agreed to before is still to be done in its step."""


def _apply_to_batch(batch: Batch, row: RowBody, seq: int) -> Batch:
    event, at = row.event, row.at
    if batch.agreed and isinstance(event, STARTS_OVER) and event.step in batch.agreed:
        batch = replace(batch, agreed={step: one for step, one in batch.agreed.items() if step != event.step})
    match event:
        case ev.BatchStateChanged():
            state = State(event.now)
            ending = state in OVER or state in {State.STOPPING, State.ABORTING}
            questions = {} if ending else batch.questions  # nothing is left to decide
            agreed = {} if ending else batch.agreed
            requested = None if ending else batch.requested
            clocks = {} if state in OVER else batch.clocks
            changed = replace(batch, state=state, cause=event.cause, reason=event.reason, clocks=clocks)
            return replace(changed, questions=questions, agreed=agreed, requested=requested)
        case ev.StepActivated():
            run = StepRun(
                event.step,
                event.phase,
                event.title,
                event.iteration,
                event.attempt,
                at,
                event.duration_s,
                event.timeout_s,
                body=batch.steps[event.step].body if event.step in batch.steps else 0,
                again=event.attempt > 1,
            )
            return _with_step(batch, run)
        case ev.BranchTaken():
            return _with_step(batch, replace(batch.steps[event.step], branch=event.branch))
        case ev.PassBegun():
            run = batch.steps[event.step]
            hand = replace(run.hand, given={}) if run.hand is not None else None  # each pass has values of its own
            return _with_step(batch, replace(run, passes=event.number, body=event.body, hand=hand))
        case ev.ValueRecorded() if "." not in event.name:
            latest = Recorded(event.value, event.unit, event.step, event.iteration, seq, event.low, event.high)
            return _recorded(replace(batch, values={**batch.values, event.name: latest}), event, row.actor)
        case ev.ValueRecorded():
            return _recorded(batch, event, row.actor)
        case ev.StepConfirmed() if event.part:
            return _given(batch, event.step, event.part, True)
        case ev.ByHand():
            return _with_step(batch, replace(batch.steps[event.step], given={BY_HAND: True}))
        case ev.ModeChanged() | ev.HandEntered() | ev.HandVerified() | ev.HandRefused():
            return _with_step(batch, _by_hand(batch.steps[event.step], event, at))
        case ev.RampStepped():
            run = batch.steps[event.step]
            begun = replace(run, since=at, before_boot=NO_TIME, passed=(), attempt=event.attempt)
            return _with_step(batch, replace(begun, given={"ramp": event.value}))
        case ev.ServiceSet():
            run = batch.steps[event.step]
            given = {**run.given, event.tag: event.value}
            if event.command:
                given["command"] = event.command
                if event.command == "start":
                    given["started"] = True
            return _with_step(batch, replace(run, since=at, before_boot=NO_TIME, passed=(), given=given))
        case ev.ServiceMoved():
            run = batch.steps[event.step]
            begun = replace(run, since=at, before_boot=NO_TIME, passed=(), timeout_s=event.timeout_s)
            given = {**run.given, "state": event.state, "was": event.was}
            return _with_step(batch, replace(begun, given=given))
        case ev.ResultPending():
            key = event.result
            opened = OpenResult(key, event.step, event.name, event.iteration, event.title, event.unit, event.interim)
            return replace(batch, open_results={**batch.open_results, key: opened})
        case ev.ResultAdded():
            left = {name: one for name, one in batch.open_results.items() if name != event.result}
            latest = Recorded(event.value, event.unit, event.step, event.of_iteration, seq, event.low, event.high)
            known = batch.values.get(event.name)
            newer = known is not None and known.iteration > event.of_iteration
            values = batch.values if newer else {**batch.values, event.name: latest}
            return replace(batch, open_results=left, values=values)
        case ev.ValueCorrected():
            known = batch.values.get(event.name)
            if known is None or known.seq != event.was_seq:
                return batch  # a later pass of a loop has recorded it anew
            right = Recorded(event.value, event.unit, event.step, event.of_iteration, seq, event.low, event.high)
            name = tr.series(event.step, event.of_iteration, 0, event.unit)
            figures = batch.trend.figures
            if name in figures and isinstance(event.value, float):
                figures = {**figures, name: event.value}
            trend = replace(batch.trend, figures=figures)
            return replace(batch, values={**batch.values, event.name: right}, trend=trend)
        case ev.TrendPinned():
            return replace(batch, trend=tr.Trending(dict(map(_pinned, event.series))))
        case ev.TrendJudged():
            name = tr.series(event.step, event.iteration, event.point, event.unit)
            out = event.found == "outside" and event.point > 0
            return replace(batch, trend=tr.judged(batch.trend, name, event.step, event.value, out=out))
        case ev.TimerDue():
            run = batch.steps[event.step]
            plan, colon, _ = event.timer.partition(":")  # of the samples of a plan the latest is enough
            passed = [one for one in run.passed if not (colon and one.startswith(f"{plan}:"))]
            hand = replace(run.hand, due=True) if run.hand is not None and event.timer == DUE else run.hand
            return _with_step(batch, replace(run, passed=(*passed, event.timer), hand=hand))
        case ev.StepCompleted():
            return _with_step(batch, replace(batch.steps[event.step], state="done", outside=""))
        case ev.StepEnded():
            return _with_step(batch, replace(batch.steps[event.step], state="ended", outside=""))
        case ev.StepSkipped():
            was = batch.steps.get(event.step)
            if was is None or was.iteration != event.iteration:
                was = StepRun(event.step, event.phase, event.title, event.iteration, 0, at, 0.0, 0.0)
            skips = {step: amendment for step, amendment in batch.skips.items() if step != event.step}
            return _with_step(replace(batch, skips=skips), replace(was, state="skipped", outside=""))
        case ev.AmendmentRequested():
            requested = Requested(
                event.amendment,
                tuple(Change(**change) for change in event.changes),  # type: ignore[arg-type]
                event.adopts,
                event.from_step,
                event.seal,
                event.new_seal,
                tuple(event.differences),
                event.more,
                event.reason,
                tuple(event.needs),
                (row.actor,),
            )
            proposed = None if event.proposal else batch.proposed
            return replace(batch, requested=requested, proposed=proposed, amendments=batch.amendments + 1)
        case ev.AmendmentAgreed() if batch.requested is not None:
            people = (*batch.requested.people, event.person)
            return replace(batch, requested=replace(batch.requested, needs=tuple(event.needs), people=people))
        case ev.AmendmentRefused():
            return replace(batch, requested=None)
        case ev.AmendmentMade():
            return _amended(batch, event)
        case ev.CommandIntended():
            write = (event.step, event.iteration, event.attempt, event.tag)
            intent = Intent(*write, event.value, event.unit, event.before, seq)
            served = batch.steps.get(event.step)
            if served is not None and served.phase == "service":  # each of its writes has a number of its own
                batch = _with_step(batch, replace(served, attempt=event.attempt + 1))
            return replace(batch, intents={**batch.intents, write: intent})
        case ev.CommandConfirmed() | ev.CommandRefused() | ev.CommandUnknown():
            write = (event.step, event.iteration, event.attempt, event.tag)
            return replace(batch, intents={k: i for k, i in batch.intents.items() if k != write})
        case ev.QuestionRaised():
            question = Question(
                event.question,
                event.step,
                event.tag,
                event.intent,
                event.unit,
                event.before,
                event.why,
                tuple(event.answers),
                at,
            )
            return replace(batch, questions={**batch.questions, event.question: question})
        case ev.QuestionAnswered():
            if event.answer == "again" and event.question in batch.questions:
                batch = replace(batch, agreed={**batch.agreed, event.step: batch.questions[event.question]})
            return replace(batch, questions={k: q for k, q in batch.questions.items() if k != event.question})
        case ev.ExceptionRaised():
            raised = ExceptionRecord(event.exception, event.step, event.category, event.code, event.what)
            kept = (*batch.exceptions, raised)[-EXCEPTIONS_KEPT:]
            batch = replace(batch, exceptions=kept, raised=batch.raised + 1)
            if event.code == "limit.outside" and event.step in batch.steps:
                batch = _with_step(batch, replace(batch.steps[event.step], outside=event.exception))
            return batch
        case ev.LimitRestored():
            return _with_step(batch, replace(batch.steps[event.step], outside=""))
        case ev.ExpiryBegun() | ev.ExpiryNear() | ev.ExpiryPassed() | ev.ExpiryEnded():
            return replace(batch, clocks=_clocks(batch.clocks, event, at))
        case ev.DarkEntered() if batch.dark is not None:
            return replace(batch, dark=replace(batch.dark, minutes=event.minutes, person=event.person))
        case ev.DarkRefused() if batch.dark is not None:
            return replace(batch, dark=replace(batch.dark, minutes=0, person=""))
        case ev.DarkVerified():
            return _bounded(batch, event)
        case ev.SignatureMade():
            if event.step not in batch.steps:
                return batch
            run = batch.steps[event.step]
            return _with_step(batch, replace(run, signed=(*run.signed, (event.person, event.role))))
        case _:  # StepConfirmed, ScanRefused, ConditionMet, LoopEnded: said in the record, not held in the head
            return batch


def _by_hand(
    run: StepRun, event: ev.ModeChanged | ev.HandEntered | ev.HandVerified | ev.HandRefused, at: Stamp
) -> StepRun:
    """The step in another mode, or with what people entered."""
    if isinstance(event, ev.ModeChanged):
        timers = tuple(one for one in run.passed if one not in {DUE, LATE})
        run = replace(run, attempt=event.attempt, passed=timers)
        if run.phase == "weigh":  # a weighing is done on one balance from its beginning
            run = replace(run, given={})
        if event.now != Mode.AUTOMATIC:
            cause: Literal["equipment", "person"] = "equipment" if event.cause == "equipment" else "person"
            why = event.trouble or event.reason
            claimed = run.hand is not None and run.hand.claimed
            return replace(run, hand=Hand(Mode(event.now), cause, why, event.tag, at, NO_TIME, claimed=claimed))
        if run.phase == "ramp":  # from where the set-point stands by now
            run = replace(run, since=at, before_boot=NO_TIME, passed=(), given={})
        return replace(run, hand=None)
    hand = run.hand
    if hand is None:
        return run
    if isinstance(event, ev.HandEntered):
        entered = (event.part, event.value, event.person)
        part, value, person = entered
        hand = replace(hand, part=part, value=value, person=person, claimed=hand.claimed or event.writes)
    else:
        hand = replace(hand, part="", value="", person="")
    if isinstance(event, ev.HandVerified):
        given = {part: value for part, value in hand.given.items() if part != event.part}
        shown = f"{event.value:g}" if isinstance(event.value, float) else str(event.value)
        last = f"{shown} {event.unit}".strip() + f", entered by {event.entered_by}, verified by {event.person}"
        hand = replace(hand, given={**given, event.part: event.value}, last=last)
        hand = replace(hand, since=at, before_boot=NO_TIME, due=False)
        run = replace(run, passed=tuple(one for one in run.passed if one not in {DUE, LATE}))
    return replace(run, hand=hand)


def _clocks(
    clocks: Mapping[str, ExpiryClock],
    event: ev.ExpiryBegun | ev.ExpiryNear | ev.ExpiryPassed | ev.ExpiryEnded,
    at: Stamp,
) -> Mapping[str, ExpiryClock]:
    key = clock_key(event.step, event.iteration)
    match event:
        case ev.ExpiryBegun():
            facts = (event.step, event.iteration, event.material, event.until)
            return {**clocks, key: ExpiryClock(*facts, at, event.use_within_s, event.warn_after_s)}
        case ev.ExpiryNear():
            return {**clocks, key: replace(clocks[key], near=True)}
        case ev.ExpiryPassed():
            return {**clocks, key: replace(clocks[key], expired=True)}
        case ev.ExpiryEnded():
            return {name: clock for name, clock in clocks.items() if name != key}


def _amended(batch: Batch, event: ev.AmendmentMade) -> Batch:
    """Another control recipe from here on; what is under way goes on, with its new durations."""
    made = tuple(Change(**change) for change in event.changes)  # type: ignore[arg-type]
    lasting = tuple(change for change in made if change.kind != "skip")
    steps = Steps(batch.steps)  # what was passed of another recipe says nothing of this one
    for name, (duration_s, timeout_s) in event.lengths.items():
        steps[name] = replace(steps[name], duration_s=duration_s, timeout_s=timeout_s)
    kept = () if event.dropped else batch.changes
    return replace(
        batch,
        requested=None,
        seal=event.seal,
        version=event.version,
        changes=(*kept, *lasting),
        amended=event.new_seal if kept or lasting else "",
        skips={**batch.skips, **dict.fromkeys(event.skips, event.amendment)},
        steps=steps,
    )


def _pinned(said: Mapping[str, str | int | float]) -> tuple[str, tr.Reference]:
    numbers = [float(said[key]) for key in ("mean", "deviation", "low", "high")]
    return str(said["series"]), tr.Reference(int(said["n"]), *numbers)


def _recorded(batch: Batch, event: ev.ValueRecorded, actor: str) -> Batch:
    batch = _given(batch, event.step, event.name, event.value)
    run = batch.steps.get(event.step)
    if run is None or event.source != "entered" or actor in run.entered_by:
        return batch
    return _with_step(batch, replace(run, entered_by=(*run.entered_by, actor)))


def _given(batch: Batch, step: str, name: str, value: Value) -> Batch:
    run = batch.steps.get(step)
    return batch if run is None else _with_step(batch, replace(run, given={**run.given, name: value}))


def _with_step(batch: Batch, run: StepRun) -> Batch:
    return replace(batch, steps=batch.runs().with_run(run))


def _runtime_started(line: Line, event: ev.RuntimeStarted, at: Stamp) -> Line:
    dark = Elapsed(0.0, 0.0) if event.clean else _elapsed(event.dark_low_s, event.dark_high_s)
    gap = _elapsed(event.dark_low_s, event.dark_high_s)
    batches = {name: _after_start(batch, line.at, at, gap) for name, batch in line.batches.items()}
    failures = {
        person: replace(failed, since=at, before_s=failed.before_s + _lit_s(failed.since, line.at))
        if line.at is not None and failed.since.boot != at.boot
        else failed
        for person, failed in line.failures.items()
    }
    units = dict(line.units)
    for name, unit in line.units.items():
        if line.at is not None and unit.since.boot != at.boot:
            passed = _carried(unit.before_boot, unit.since, line.at, gap)
            units[name] = replace(unit, since=at, before_boot=passed)
    started = replace(line, running=True, dark=dark, batches=batches, sessions={}, failures=failures)
    return replace(started, units=units)


def _after_start(batch: Batch, last: Stamp | None, at: Stamp, gap: Elapsed) -> Batch:
    """Open intents are now in doubt; what was measured in an earlier boot is carried over with its bounds."""
    if batch.state in OVER:
        return batch
    intents = {key: replace(intent, in_doubt=True) for key, intent in batch.intents.items()}
    steps = dict(batch.steps)
    questions = dict(batch.questions)
    clocks = dict(batch.clocks)
    if last is not None:
        for key, clock in batch.clocks.items():
            if clock.since.boot != at.boot:
                clocks[key] = replace(clock, since=at, before_boot=_carried(clock.before_boot, clock.since, last, gap))
        for name, run in batch.steps.items():
            if run.state == "active" and run.since.boot != at.boot:
                steps[name] = replace(run, since=at, before_boot=_carried(run.before_boot, run.since, last, gap))
            if run.state == "active" and run.hand is not None and run.hand.since.boot != at.boot:
                passed = _carried(run.hand.before_boot, run.hand.since, last, gap)
                steps[name] = replace(steps[name], hand=replace(run.hand, since=at, before_boot=passed))
        for name, asked in batch.questions.items():
            if asked.since.boot != at.boot:
                questions[name] = replace(
                    asked, since=at, before_boot=_carried(asked.before_boot, asked.since, last, gap)
                )
    dark = batch.dark
    if last is not None and math.isinf(gap.high_s):
        dark = Dark(dark.stretches + 1, dark.since) if dark else Dark(1, last.utc)
    return replace(batch, intents=intents, steps=steps, questions=questions, clocks=clocks, dark=dark)


def _bounded(batch: Batch, event: ev.DarkVerified) -> Batch:
    """What is timed goes on with what two people entered."""

    def of(before: Elapsed) -> Elapsed:
        if not math.isinf(before.high_s):
            return before
        return Elapsed(before.low_s + event.low_s, before.known_s + event.high_s)

    steps = {
        name: replace(
            run,
            before_boot=of(run.before_boot),
            hand=replace(run.hand, before_boot=of(run.hand.before_boot)) if run.hand else None,
        )
        for name, run in batch.steps.items()
    }
    questions = {name: replace(one, before_boot=of(one.before_boot)) for name, one in batch.questions.items()}
    clocks = {}
    for name, clock in batch.clocks.items():
        before = of(clock.before_boot)
        expired = clock.expired and before.high_s >= clock.use_within_s
        clocks[name] = replace(clock, before_boot=before, expired=expired)
    return replace(batch, steps=steps, questions=questions, clocks=clocks, dark=None)


def _carried(before: Elapsed, since: Stamp, last: Stamp, gap: Elapsed) -> Elapsed:
    lit_s = _lit_s(since, last)
    known_s = lit_s + sum(part.known_s if math.isinf(part.high_s) else part.high_s for part in (before, gap))
    high_s = before.high_s + lit_s + gap.high_s
    return Elapsed(before.low_s + lit_s + gap.low_s, high_s, known_s if math.isinf(high_s) else 0.0)


def _lit_s(since: Stamp, last: Stamp) -> float:
    """How long after `since` the box was on for certain, when `last` is the last row of that boot."""
    return last.boottime_s - since.boottime_s if last.boot == since.boot else 0.0


def _elapsed(low_s: float, high_s: float) -> Elapsed:
    return Elapsed(low_s, math.inf if high_s < 0 else high_s)


def elapsed(since: Stamp, before_boot: Elapsed, now: Stamp) -> Elapsed:
    """How long ago `since` was. Within one boot it is exact and no wall clock takes part."""
    here_s = max(0.0, now.boottime_s - since.boottime_s) if now.boot == since.boot else 0.0
    known_s = before_boot.known_s + here_s if math.isinf(before_boot.high_s) else 0.0
    return Elapsed(before_boot.low_s + here_s, before_boot.high_s + here_s, known_s)


def between(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """The time between two rows, from the same boot's clock, else from two trusted wall clocks, else unbounded. Two
    that contradict each other, or how long the box is on by now, are not trusted, whatever they say of themselves."""
    if earlier is None:
        return Elapsed(0.0, 0.0)
    if earlier.boot == later.boot:
        passed_s = max(0.0, later.boottime_s - earlier.boottime_s)
        return Elapsed(passed_s, passed_s)
    if earlier.quality is ClockQuality.SYNCED and later.quality is ClockQuality.SYNCED:
        passed_s = (datetime.fromisoformat(later.utc) - datetime.fromisoformat(earlier.utc)).total_seconds()
        if max(0.0, later.boottime_s - SLEWED_S) <= passed_s <= DARK_S_MAX:
            return Elapsed(passed_s, passed_s)
    return Elapsed(0.0, math.inf)


# The effects -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Timer:
    """Level: tell when it has certainly run for `length_s`; when it may have, of an expiry."""

    batch: str
    step: str
    timer: str
    """"duration", "timeout", `EXPIRY`, "plan:number" for the next sample of a plan, or "=trend:number" for a monitor's
    point."""
    since: Stamp
    before_boot: Elapsed
    length_s: float
    iteration: int = 1
    reads: str = ""
    """The full name of a tag without whose reading it is not told, for a while: a ramp begins where that stands."""

    def passed(self, now: Stamp) -> Elapsed:
        """How long it has run."""
        return elapsed(self.since, self.before_boot, now)

    def left_s(self, now: Stamp) -> float:
        """How long until it is told; not above 0 when that is now."""
        passed = self.passed(now)
        return self.length_s - (passed.high_s if self.timer == EXPIRY else passed.low_s)


@dataclass(frozen=True, slots=True)
class Condition:
    """Level: ask whether it is true whenever readings change; the decider works it out. `tags` are what it looks at."""

    batch: str
    step: str
    iteration: int
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Watch:
    """Level: compare the tag's reading with low..high (in the tag's unit).

    "until" tells when it is inside; "steady" when all of it lay within `high` for `delay_s`;
    "keep" tells when it is outside for `delay_s`, and when it is back.
    A changed watch is another watch: it begins anew."""

    batch: str
    step: str
    tag: str
    kind: Literal["until", "keep", "steady"]
    low: float | None
    high: float | None
    delay_s: float
    outside: bool
    hold_on_bad: bool
    iteration: int = 1


@dataclass(frozen=True, slots=True)
class Write:
    """Once: start only in the run that intended it and only when row `seq` is durable."""

    batch: str
    step: str
    attempt: int
    tag: str
    value: Value
    seq: int
    iteration: int = 1
    shown_by: tuple[Value, ...] = ()
    """A command to a service, or a label: what the read-back shows once it was taken. Empty: it shows the value."""
    shown_at: tuple[Shown, ...] = ()
    """What applies parameters, or switches a mode: what is seen elsewhere once it was taken, all of it."""
    training: bool = False
    """Of a training batch: the port refuses it wherever the plant does not allow training."""


@dataclass(frozen=True, slots=True)
class Effects:
    timers: tuple[Timer, ...] = ()
    watches: tuple[Watch, ...] = ()
    conditions: tuple[Condition, ...] = ()
    writes: tuple[Write, ...] = ()
    alarms: tuple[al.AlarmWatch, ...] = ()
    """Those of limits of steps under way; the plant's are `Plant.alarm_watches`."""


def effects(line: Line) -> Effects:
    """What must be under way for this head. Level effects may be begun again at any time; a write may not:
    the engine keeps what it has started, and a write in doubt is never listed."""
    return together([effects_of(line, batch) for batch in line.live()]) if line.running else Effects()


def together(parts: Sequence[Effects]) -> Effects:
    """The effects of several batches, in their order."""
    return Effects(
        tuple(one for part in parts for one in part.timers),
        tuple(one for part in parts for one in part.watches),
        tuple(one for part in parts for one in part.conditions),
        tuple(one for part in parts for one in part.writes),
        tuple(one for part in parts for one in part.alarms),
    )


def effects_of(line: Line, batch: Batch) -> Effects:
    """Those of one live batch, while a runtime runs. The batch and the book alone say them."""
    timers: list[Timer] = []
    watches: list[Watch] = []
    conditions: list[Condition] = []
    alarms: list[al.AlarmWatch] = []
    writes = tuple(
        Write(
            batch.batch,
            i.step,
            i.attempt,
            i.tag,
            i.value,
            i.seq,
            i.iteration,
            *_shown(line, batch, i),
            batch.training,
        )
        for i in batch.intents.values()
        if not i.in_doubt
    )
    if batch.state in {State.STOPPING, State.ABORTING}:
        return Effects(writes=writes)
    timers += [_expiry(batch.batch, clock) for clock in batch.clocks.values() if not clock.expired]
    recipe = line.recipe(batch)
    steps = recipe.steps()
    moving = batch.state in {State.RUNNING, State.PAUSING}
    for run in batch.active():
        step = steps[run.step]
        if moving:
            timers += _timers(line, batch, run, steps[run.step])
            timers += entry_timers(batch.batch, recipe, step, run)
            timers += [
                Timer(batch.batch, run.step, f"{plan}:{n}", run.since, run.before_boot, n * every_s, run.iteration)
                for n, plan, every_s in samples_next(recipe, batch.speed, run)
                if not 0 < run.duration_s <= n * every_s
            ]
        if run.hand is not None:
            continue  # people look after it: no watch of it, and no write
        match step:
            case Wait() if step.tag and moving:
                watches.append(_watch(line, batch, recipe, run, step, kind="until"))
            case Wait() if step.until and moving:
                tags = [tag_name(batch.units, name) for name in names_in(step.until) if name in recipe.readings]
                conditions.append(Condition(batch.batch, run.step, run.iteration, tuple(tags)))
            case Service():  # also while the batch is held: the record says what the module does
                named = [step.until] if step.until and run.given.get("state") == EXECUTE else []
                tags = [module_of(line.book.plant, batch.units, step).state_tag]
                tags += [tag_name(batch.units, n) for f in named for n in names_in(f) if n in recipe.readings]
                conditions.append(Condition(batch.batch, run.step, run.iteration, tuple(tags)))
            case Weigh() if moving and awaits_balance(step, run):
                watches.append(_balance(line, batch, recipe, run, step))
            case Hold() | Monitor():
                if isinstance(step, Monitor) and moving:
                    timers += _point_due(batch, recipe, step, run)
                watch = _watch(line, batch, recipe, run, step, kind="keep")
                watches.append(watch)
                if step.alarm is not None:
                    alarms.append(_alarm_watch(line, recipe, watch, step.alarm))
            case _:
                pass
    return Effects(tuple(timers), tuple(watches), tuple(conditions), writes, tuple(alarms))


def _shown(line: Line, batch: Batch, intent: Intent) -> tuple[tuple[Value, ...], tuple[Shown, ...]]:
    """`shown_by` and `shown_at` of a write."""
    run = batch.steps.get(intent.step)
    if run is not None and run.phase == "label" and isinstance(intent.value, str):
        return (fingerprint(intent.value),), ()
    if run is None or run.phase != "service":
        return (), ()
    step = line.recipe(batch).steps()[intent.step]
    assert isinstance(step, Service), f"step {step.id} is of another phase in the recipe than in its rows"
    module, write = module_of(line.book.plant, batch.units, step), (intent.tag, intent.value, run.given)
    return module.shown_by(*write), module.shown_at(*write)


def entry_timers(batch: str, recipe: Recipe, step: Step, run: StepRun) -> list[Timer]:
    """When the value of a watch that goes on by hand is entered again; in real time, as people have it."""
    hand = run.hand
    if hand is None or hand.mode is not Mode.SEMI_AUTOMATIC or not isinstance(step, Hold | Monitor):
        return []
    every_s = seconds(recipe, step.by_hand_every)
    late_s = 2 * every_s if hand.given else every_s
    return [
        Timer(batch, run.step, name, hand.since, hand.before_boot, length_s, run.iteration)
        for name, length_s in ((DUE, every_s), (LATE, late_s))
        if name not in run.passed and not (name == DUE and hand.due)
    ]


def is_timed(run: StepRun) -> bool:
    """Whether the step's own timers run: not in manual mode, nor those of what the box would write or tell."""
    hand = run.hand
    return hand is None or (hand.mode is Mode.SEMI_AUTOMATIC and run.phase not in {"ramp", "service"})


def _timers(line: Line, batch: Batch, run: StepRun, step: Step) -> list[Timer]:
    if not is_timed(run):
        return []
    reads = ""
    if isinstance(step, Ramp) and "ramp" not in run.given:
        reads = shown_tag(line, tag_name(batch.units, step.tag))
    lengths: tuple[tuple[Literal["duration", "timeout"], float], ...] = (
        ("duration", run.duration_s),
        ("timeout", run.timeout_s),
    )
    return [
        Timer(batch.batch, run.step, name, run.since, run.before_boot, length_s, run.iteration, reads)
        for name, length_s in lengths
        if length_s > 0 and name not in run.passed
    ]


def _expiry(batch: str, clock: ExpiryClock) -> Timer:
    """The warning, or the end."""
    length_s = clock.use_within_s if clock.near else clock.warn_after_s
    return Timer(batch, clock.step, EXPIRY, clock.since, clock.before_boot, length_s, clock.iteration)


def _point_due(batch: Batch, recipe: Recipe, step: Monitor, run: StepRun) -> list[Timer]:
    """The next point at which a monitor is compared with earlier batches."""
    number = tr.next_point(step, run.passed)
    if step.trend is None or not number:
        return []
    length_s = number * seconds(recipe, step.trend.every) / batch.speed
    named = f"{tr.TIMER}:{number}"
    return [Timer(batch.batch, run.step, named, run.since, run.before_boot, length_s, run.iteration)]


def plan_of(recipe: Recipe, step: str) -> SamplingPlan | None:
    """The plan whose samples are taken in this step."""
    before, _, name = step.partition("/")
    return recipe.sampling.get(name) if before == SAMPLING else None


def samples_next(recipe: Recipe, speed: float, run: StepRun) -> list[tuple[int, str, float]]:
    """The samples that are due next during a step: which one, of which plan, and how often one is."""
    found = []
    for name, plan in recipe.sampling.items():
        if plan.during == run.step and plan.every:
            told = [int(one.partition(":")[2]) for one in run.passed if one.startswith(f"{name}:")]
            found.append((1 + max(told, default=0), name, seconds(recipe, plan.every) / speed))
    return found


def awaits_balance(step: Weigh, run: StepRun) -> bool:
    """True while the box is to take a weight: somebody said that the container stands on the balance."""
    done = run.given
    if not step.balance or BY_HAND in done:
        return False
    parts = (("empty", f"{step.name}.tare"), ("filled", f"{step.name}.gross"))
    return any(before in done and weight not in done for before, weight in parts)


def _balance(line: Line, batch: Batch, recipe: Recipe, run: StepRun, step: Weigh) -> Watch:
    """The weight that must stand still. That it cannot be read is told in any case: the step goes on without it."""
    full_name = tag_name(batch.units, step.balance)
    tag = line.book.plant.tag(full_name)
    band = 0.0 if tag is None or step.steady is None else resolve(recipe, step.steady, step.unit, tag.unit)
    for_s = seconds(recipe, step.steady_for)
    bad = batch.state is State.RUNNING
    return Watch(batch.batch, run.step, full_name, "steady", None, band, for_s, False, bad, run.iteration)


def _watch(
    line: Line,
    batch: Batch,
    recipe: Recipe,
    run: StepRun,
    step: Wait | Hold | Monitor,
    *,
    kind: Literal["until", "keep"],
) -> Watch:
    full_name = tag_name(batch.units, step.tag)
    tag = line.book.plant.tag(full_name)
    low, high = (None, None) if step.limit is None or tag is None else limit_in(recipe, step.limit, tag.unit)
    # real seconds: equipment does not run at `speed`
    delay_s = seconds(recipe, step.on_delay) if isinstance(step, Monitor) else 0.0
    moving = batch.state is State.RUNNING
    hold_on_bad = moving and step.on_bad_quality == "hold"
    outside, iteration = bool(run.outside), run.iteration
    return Watch(batch.batch, run.step, full_name, kind, low, high, delay_s, outside, hold_on_bad, iteration)


def _alarm_watch(line: Line, recipe: Recipe, watch: Watch, alarm: Alarm) -> al.AlarmWatch:
    """The alarm of a limit that is watched."""
    tag = line.book.plant.tag(watch.tag)
    deadband = 0.0
    if tag is not None:
        given = alarm.unit or tag.unit
        deadband = resolve(recipe, alarm.deadband, given, tag.unit) - resolve(recipe, 0.0, given, tag.unit)
    return al.AlarmWatch(
        f"{watch.batch}/{watch.step}",
        al.Told(alarm.priority, said(recipe, alarm.cause), said(recipe, alarm.effect), said(recipe, alarm.todo)),
        watch.batch,
        watch.step,
        watch.tag,
        watch.low,
        watch.high,
        deadband=deadband,
        on_delay_s=watch.delay_s,
    )
