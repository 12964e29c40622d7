"""What a row may say. Rows state results: applying them computes nothing and reads no recipe.

Every event is a frozen dataclass of JSON-shaped facts. `encode` makes the exact bytes that are hashed,
`decode` reads them back; old versions of a kind are upcast here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

import orjson

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.terms import ClockQuality, Stamp, Value

Input = dict[str, Value]
"""What went into a formula: `name`, `value`, `unit`, `quality` and `source` (a tag, a step, "parameter", "loop")."""


# Events and stamps have no slots: without them they are encoded three times as fast.
@dataclass(frozen=True, kw_only=True)
class Event:
    """Base: `batch` is empty for what concerns the whole box; `command_id` repeats the request's id, so that
    a repeated request gets the first answer."""

    batch: str = ""
    command_id: str = ""


# The box ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RuntimeStarted(Event):
    """A runtime began. Every intent still open is now in doubt. `dark_low_s`/`dark_high_s` bound how long no
    runtime was there (-1: unbounded, no trusted time)."""

    version: str
    clean: bool
    dark_low_s: float
    dark_high_s: float


@dataclass(frozen=True, kw_only=True)
class JournalContinued(Event):
    """This journal came from a backup or another box: a new epoch begins here and continues row `last_seq` of
    `epoch`. Rows that the box made after it are not here; every batch that had not ended is held.

    Rows up to `backup_seq` came from the backup, those behind it were fetched. `mirror_seq` and `hub_seq` are the last
    rows that second medium and hub hold (null: not asked), `heard_seq` the newest row that anyone has heard of (null:
    nobody was asked)."""

    epoch: str
    last_seq: int
    last_hash: str
    backup_seq: int
    mirror_seq: int | None
    hub_seq: int | None
    heard_seq: int | None


@dataclass(frozen=True, kw_only=True)
class RuntimeStopped(Event):
    """A clean stop: every outcome is known, nothing is in doubt."""


@dataclass(frozen=True, kw_only=True)
class PlantLoaded(Event):
    """The plant file in force from here on; `content` is its SHA-256."""

    plant: str
    content: str


@dataclass(frozen=True, kw_only=True)
class RecipeLoaded(Event):
    """A recipe of the box's folder became effective on this box without signatures; `seal` is its content hash."""

    recipe: str
    version: str
    title: str
    seal: str


@dataclass(frozen=True, kw_only=True)
class RecipeApprovalSet(Event):
    """From here on recipes become effective so: "from_folder", "one_signature" or "two_signatures". A journal without
    such a row is "from_folder"."""

    approval: str


@dataclass(frozen=True, kw_only=True)
class ProfileSet(Event):
    """From here on the box has this profile, and the recipes named in `ad_hoc` are started without an order. A journal
    without such a row is of the profile "single_site_gmp", with none."""

    profile: str
    ad_hoc: list[str]


@dataclass(frozen=True, kw_only=True)
class RecipeSubmitted(Event):
    """A checked recipe, which the library holds under `seal`, is in review. The actor is its author; `role` is, here
    and in what follows, the one in which the actor signed, and the row before is the signature.

    `rehearsal` is the SHA-256 of its rehearsal's report in the library, on the plant with this content; `rehearsed`
    says in a sentence what it saw, `rehearsal_ok` that it saw everything."""

    recipe: str
    version: str
    title: str
    seal: str
    role: str
    plant: str
    rehearsal: str
    rehearsed: str
    rehearsal_ok: bool


@dataclass(frozen=True, kw_only=True)
class RecipeApproved(Event):
    """The actor approved the recipe; with `enough` it is approved by all whom the box asks for. `compared_with` is the
    effective version that it was shown beside, empty without one."""

    recipe: str
    version: str
    seal: str
    role: str
    compared_with: str
    enough: bool


@dataclass(frozen=True, kw_only=True)
class RecipeSentBack(Event):
    """The recipe is a draft again, for this reason. Signatures that it had do not count any more."""

    recipe: str
    version: str
    seal: str
    role: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RecipeReleased(Event):
    """The approved recipe is effective. A version that was effective is retired by the row after this one."""

    recipe: str
    version: str
    seal: str
    role: str


@dataclass(frozen=True, kw_only=True)
class RecipeRetired(Event):
    """No batch is started with this recipe any more, for this reason. `superseded_by` is the seal of the version whose
    release retired it; then that release's signature is two rows before. Empty when a person retired it."""

    recipe: str
    version: str
    seal: str
    role: str
    reason: str
    superseded_by: str = ""


@dataclass(frozen=True, kw_only=True)
class ReceiptStored(Event):
    """The hub holds every row up to `stored_seq`; `receipt` is its signed text."""

    hub: str
    incarnation: str
    stored_seq: int
    head_hash: str
    receipt: str


@dataclass(frozen=True, kw_only=True)
class Sealed(Event):
    """The device whose key is `public_key` (hex) signed the rows up to `sealed_seq`: `signature` (hex) is over
    `edge.core.record.sealed_bytes`."""

    sealed_seq: int
    sealed_hash: str
    public_key: str
    signature: str


@dataclass(frozen=True, kw_only=True)
class RowsPruned(Event):
    """Rows `first_seq` to `through_seq`, which has this hash, leave the journal: they are in these archive `segments`
    (first_seq, last_seq and sha256 of each), and `safe`: "hub", as the `receipt` says, or read back from a "medium"."""

    first_seq: int
    through_seq: int
    through_hash: str
    safe: str
    receipt: str
    segments: list[dict[str, int | str]]


@dataclass(frozen=True, kw_only=True)
class CheckpointMade(Event):
    """The head as of row `folded_seq` is kept in a file beside the journal, so that a start need not read all rows.
    `content` is the file's SHA-256; only a start with the same `schema` of the head and `semantics` uses it."""

    folded_seq: int
    schema: int
    semantics: int
    content: str


@dataclass(frozen=True, kw_only=True)
class SelfChecked(Event):
    """The box verified its whole record by itself: `rows` rows, up to `checked_seq`. `found` says, sentence by
    sentence, what does not hold; the record holds when it is empty. `left_out` says what was not at hand, for example
    an archive whose medium is out. `took_s` is how long it took."""

    rows: int
    checked_seq: int
    found: list[str]
    left_out: list[str] = field(default_factory=list)
    took_s: float


@dataclass(frozen=True, kw_only=True)
class BackupDrilled(Event):
    """The box made its day's backup and restored the newest one, `backup`, to look at it: its last row is `head_seq`.
    `found` says, sentence by sentence, what does not hold or kept it from being made; a box can be restored from it
    when it is empty. `left_out` says what was not at hand. `took_s` is how long all of it took."""

    backup: str
    head_seq: int
    found: list[str]
    left_out: list[str]
    took_s: float


@dataclass(frozen=True, kw_only=True)
class IdentityErased(Event):
    """The box's vault forgets the patient identity that this pseudonym stood for; the row's actor decided it, for this
    reason. `previous_seq` is the journal's last row of this kind before it, 0 without one."""

    pseudonym: str
    reason: str
    previous_seq: int


# Process values --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ValuesSealed(Event):
    """The process values of one window do not change any more: `root` (hex) is the Merkle root over all its tags,
    `record_root` that over the tags of a live batch's units, empty without one. `window` is its beginning in
    microseconds of UTC."""

    window: int
    from_utc: str
    to_utc: str
    tags: int
    samples: int
    record_tags: int
    root: str
    record_root: str


@dataclass(frozen=True, kw_only=True)
class ValuesMissing(Event):
    """Between these times no process values were stored, for this reason. `scope` is "everything", or "outside the
    record" when those of running batches were."""

    from_utc: str
    to_utc: str
    scope: str
    why: str


@dataclass(frozen=True, kw_only=True)
class ValuesThinned(Event):
    """The values of `tags` tags of a window, none of them in a batch's record, are thinned by `method`: the window had
    `old_root` and has `new_root` from here on; `record_root` is as it was sealed."""

    window: int
    method: str
    tags: int
    samples_before: int
    samples_after: int
    old_root: str
    new_root: str
    record_root: str


# People ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SessionOpened(Event):
    """A person logged in at a terminal by `method` (badge or name, with PIN)."""

    session: str
    person: str
    roles: list[str]
    method: str


@dataclass(frozen=True, kw_only=True)
class SessionClosed(Event):
    """A person's session ended, by themselves or because another began (`reason`)."""

    session: str
    person: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LogInRefused(Event):
    """Someone failed to log in or to sign. `failures` counts since the last success; it locks at the limit."""

    person: str
    failures: int
    locked: bool


# Orders and numbers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OrderReceived(Event):
    """An order waits on this box until a person starts it: see `edge.core.orders.Order`. `way` is how it came: "typed",
    "scanned", "hub" or "file"; `digest` is the SHA-256 of its content. The row that starts a batch of this order, or
    `OrderCancelled`, takes it off the list."""

    order: str
    recipe: str
    version: str
    number: str
    parameters: dict[str, str]
    quantity: str
    patient: str
    due: str
    training: bool
    digest: str
    way: str


@dataclass(frozen=True, kw_only=True)
class OrderRefused(Event):
    """An order came and was not taken, for this reason."""

    order: str
    digest: str
    way: str
    why: str


@dataclass(frozen=True, kw_only=True)
class OrderCancelled(Event):
    """An order that waited is not to be made, for this reason."""

    order: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class NumberRangeSet(Event):
    """From here on the box takes batch numbers from `first` to `last` of `prefix`, with at least so many `digits`, and
    `next` is the first that it gives. No range any more when `last` is 0."""

    prefix: str
    first: int
    last: int
    digits: int
    next: int


@dataclass(frozen=True, kw_only=True)
class NumbersSkipped(Event):
    """Numbers of the range for this `purpose` from `was` on are left out, and `next` is the first that is given: rows
    that are lost may have used them."""

    purpose: str
    was: int
    next: int
    why: str


# The batch -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BatchQueued(Event):
    """A batch waits in the state idle until its units are free and a person starts it. It has no unit yet, and nothing
    was done for it. `waits` says what it waited for when it came, empty for nothing but a person. What follows of it
    is `BatchStarted`, or the changes of state that end it."""

    order: str
    patient: str
    recipe: str
    version: str
    seal: str
    speed: float
    waits: str
    training: bool = False
    """As in `BatchStarted`; so are the next two."""
    changes: list[dict[str, str]] = field(default_factory=list)
    control: str = ""


@dataclass(frozen=True, kw_only=True)
class BatchStarted(Event):
    """A batch began from an order; it keeps this recipe (`seal`) and these `semantics` to its end."""

    order: str
    patient: str
    """Pseudonym of the patient identity (the DIN); empty for a batch without a patient."""
    recipe: str
    version: str
    seal: str
    semantics: int
    units: dict[str, str]
    """Recipe role -> plant unit."""
    speed: float
    """1.0 for production; more compresses process time and marks the record as not for release."""
    training: bool = False
    """Somebody learns: nothing of this batch is a product's record, now or later."""
    changes: list[dict[str, str]] = field(default_factory=list)
    """What its order changes in the recipe's parameters, as in `edge.core.recipe.amend`; the control recipe then has
    the seal ..."""
    control: str = ""
    """... `control`; empty for a batch without changes."""
    profile: str = "single_site_gmp"
    """The box's profile then: see `edge.core.profiles`."""


@dataclass(frozen=True, kw_only=True)
class BatchStateChanged(Event):
    """The batch went from one ISA-88 state to another, for this reason. `cause` is "person", "question",
    "quality", "limit", "timeout", "service", "expiry", "recipe", "restore", "disk" or "power"; a hold that a question
    caused ends with its answer."""

    was: str
    now: str
    cause: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StepActivated(Event):
    """A step is now under way. (batch, step, iteration, attempt) is its key: rows about a step say the iteration, which
    is 1 outside a loop. Durations are process time
    divided by the batch's speed: `duration_s` is 0 when the step has none, `timeout_s` likewise."""

    step: str
    phase: str
    title: str
    iteration: int
    attempt: int
    duration_s: float
    timeout_s: float


@dataclass(frozen=True, kw_only=True)
class AttachmentsOffered(Event):
    """These attachments, `file` and `sha256` of each, can be opened at the step from here on; at every step of the
    batch when `step` is empty."""

    step: str
    attachments: list[dict[str, str]]
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class TimerDue(Event):
    """The step's `timer` ("duration" or "timeout") has passed: at least `low_s`, at most `high_s` (-1: unbounded)."""

    step: str
    timer: str
    low_s: float
    high_s: float
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class StepConfirmed(Event):
    """A person did what the step says; of a step with several parts, this `part`."""

    step: str
    part: str = ""
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ValueRecorded(Event):
    """A datum of the record: entered, scanned, read or calculated. `source` is "entered" (also a code that is known to
    have been typed), "scanned", "calculated", "by hand" (two people entered it in the place of a reading; `quality` is
    "by hand" too) or a tag. A calculated one says its `formula` and what went into it (see `Input`)."""

    step: str
    name: str
    value: Value
    source: str
    unit: str = ""
    quality: str = "good"
    low: float | None = None
    high: float | None = None
    within: bool = True
    """False when outside low..high: an ExceptionRaised row follows."""
    formula: str = ""
    inputs: list[Input] = field(default_factory=list)
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ConditionMet(Event):
    """The condition that the step waits for is true, for these inputs."""

    step: str
    formula: str
    inputs: list[Input]
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class BranchTaken(Event):
    """A selection took this branch, the first whose condition is true: `branch` counts from 0; -1 is `else`.

    `formula` is its condition, empty for `else`; `inputs` are those of all the conditions that were asked. `why` says
    what could not be used when `else` was taken because of that."""

    step: str
    branch: int
    title: str
    formula: str
    inputs: list[Input]
    why: str = ""
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class PassBegun(Event):
    """A loop begins pass `number` of at most `times`. Its steps have the iteration `body` in their key: passes of the
    loop counted through the whole batch. `formula` is the condition that was asked for it, empty for none; `why` says
    what could not be used when the pass begins because of that."""

    step: str
    number: int
    times: int
    body: int
    formula: str
    inputs: list[Input]
    why: str = ""
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class LoopEnded(Event):
    """A loop ended after `passes` passes: by its condition (`formula`), or by `times` when that is empty."""

    step: str
    passes: int
    formula: str
    inputs: list[Input]
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class Weighed(Event):
    """A weighing is done: `net` is `gross` less `tare`. `source` is the balance's tag, "entered" when a person read
    it and a second one signed, or "by hand" when two people entered both weights. The net weight is recorded in the row
    that follows."""

    step: str
    name: str
    tare: float
    gross: float
    net: float
    target: float
    unit: str
    source: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ByHand(Event):
    """The step goes on without the equipment: from here on a person types what it should have shown, and another one
    signs it."""

    step: str
    why: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ModeChanged(Event):
    """The step is in another mode (see `edge.core.mode`); the row before it is the signature. `cause` is "equipment"
    when it goes on by hand because `tag`, over this `connection`, cannot be used: `trouble` says why in a sentence,
    `quality` how good its reading was, `since_utc` since when the connection is lost, or of when the last value is
    (empty when neither is known). It is "person" when a person decided it, for this `reason`. The step's next write, if
    it makes one, has a number above `attempt`, or is this one when it is automatic again."""

    step: str
    was: str
    now: str
    cause: str
    reason: str
    tag: str
    connection: str
    since_utc: str
    quality: str
    trouble: str
    attempt: int
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class HandEntered(Event):
    """A person entered `part` of a step that goes on by hand; the row before it is their signature. It is no value of
    the record before a second person has verified it. `writes`: they say that they did what the box would have
    written."""

    step: str
    part: str
    tag: str
    value: Value
    unit: str
    person: str
    role: str
    writes: bool
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class HandVerified(Event):
    """A second person entered the same without having seen it; of what was done, they signed that it was. The row
    before it is their signature; what comes of it is said by the rows after it."""

    step: str
    part: str
    tag: str
    value: Value
    unit: str
    entered_by: str
    person: str
    role: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class HandRefused(Event):
    """The second person entered something else than the first: neither entry was taken. `why` is said to them."""

    step: str
    part: str
    entered_by: str
    person: str
    why: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class LabelsPrinted(Event):
    """So many labels with this `content` were printed: the `printer` (a tag) confirmed it, or, when that is empty, the
    operator says so."""

    step: str
    content: dict[str, str]
    printed: int
    iteration: int = 1
    printer: str = ""


@dataclass(frozen=True, kw_only=True)
class Transferred(Event):
    """Material went from one container or unit to another."""

    step: str
    name: str
    source: str
    target: str
    quantity: float
    unit: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class CustodyPassed(Event):
    """`what` passed from one person to another; both have signed."""

    step: str
    what: str
    gives: str
    takes: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ResultPending(Event):
    """The result `name` of the step is open: it comes later. `result` is its id within the batch; `interim` is what is
    known so far, empty for nothing."""

    result: str
    step: str
    name: str
    title: str
    unit: str
    interim: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ResultAdded(Event):
    """The open `result` is there, judged by the limits that were in force; `of_iteration` is that of its step. The
    row before it is the signature of whoever added it, unless a `dispose` step asked for it."""

    result: str
    step: str
    name: str
    of_iteration: int
    value: Value
    unit: str
    low: float | None
    high: float | None
    within: bool


@dataclass(frozen=True, kw_only=True)
class ValueCorrected(Event):
    """What row `was_seq` says of `name` is wrong: it said `was`, right is `value`, for this `reason`. That row stays.
    The row before this one is the signature of whoever corrected it. What was calculated from the old value stays
    too."""

    step: str
    name: str
    of_iteration: int
    was: Value
    was_seq: int
    value: Value
    unit: str
    low: float | None
    high: float | None
    within: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class RampStepped(Event):
    """A ramp's write of `value` is confirmed; the next one is write number `attempt`."""

    step: str
    value: float
    attempt: int
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ServiceSet(Event):
    """A write of a service's step is done: `value` is at `tag`. `command` is its word when the write told the service
    something, empty for a parameter and for the choice of a procedure."""

    step: str
    tag: str
    value: Value
    command: str = ""
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ServiceMoved(Event):
    """The service of the step is in another state. `was` is the state from which a command led here, empty when it came
    here by itself. It may stay so for `timeout_s` at most; 0 is without end."""

    step: str
    service: str
    state: str
    was: str
    timeout_s: float
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ScanRefused(Event):
    """A scanned code was not what the step expects. Nothing moved. `why` is a sentence for the operator."""

    step: str
    scanned: str
    expected: str
    why: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class StepCompleted(Event):
    """The step is done."""

    step: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class StepSkipped(Event):
    """The step is left out, because the `amendment` says so: it was not begun, or not done to its end."""

    step: str
    phase: str
    title: str
    amendment: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class StepEnded(Event):
    """The step ended before it was done, because the batch was stopped or aborted."""

    step: str
    state: str
    reason: str
    iteration: int = 1


# Expiry ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExpiryBegun(Event):
    """From here on the `material` that the step took may be used for `use_within_s`; it is warned after `warn_after_s`.
    The clock runs until step `until` is done, to the end of the batch when that is empty."""

    step: str
    material: str
    until: str
    use_within_s: float
    warn_after_s: float
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ExpiryNear(Event):
    """The material of the step expires soon: at least `low_s`, at most `high_s` (-1: unbounded) have passed."""

    step: str
    material: str
    low_s: float
    high_s: float
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ExpiryPassed(Event):
    """The material of the step is expired, or may be: at least `low_s`, at most `high_s` (-1: unbounded, no trusted
    time while the box was off) have passed. An ExceptionRaised row follows."""

    step: str
    material: str
    low_s: float
    high_s: float
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class ExpiryEnded(Event):
    """The material of the step is used: step `by` is passed, at least `low_s`, at most `high_s` (-1: unbounded) after
    the clock began."""

    step: str
    material: str
    by: str
    low_s: float
    high_s: float
    iteration: int = 1


# Clean and dirty units -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class UnitSoiled(Event):
    """From here on the unit counts as dirty, for this reason. A second row, when its batch has ended, says from when on
    it counts how long it stays so."""

    unit: str
    why: str


@dataclass(frozen=True, kw_only=True)
class UnitCleaned(Event):
    """The step has cleaned the unit."""

    step: str
    unit: str
    iteration: int = 1


# The dark ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DarkEntered(Event):
    """One person says that so many `minutes` passed from the last row before a dark time that no trusted clock bounds
    to the first one after it. A second person must enter the same; until then nothing goes by it. The row before it is
    their signature."""

    minutes: int
    person: str
    role: str


@dataclass(frozen=True, kw_only=True)
class DarkRefused(Event):
    """The second person entered something else: neither entry was taken. `why` is said to them."""

    entered_by: str
    person: str
    why: str


@dataclass(frozen=True, kw_only=True)
class DarkVerified(Event):
    """Two people entered the same. What was timed across the dark goes on as if it had lasted `low_s` at least and
    `high_s` at most. The row before it is the second signature."""

    minutes: int
    low_s: float
    high_s: float
    entered_by: str
    person: str
    role: str


# Amendments ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AmendmentRequested(Event):
    """Somebody asks to amend the batch's control recipe, for this `reason`; the row before it is their signature.
    Nothing is changed by it. `changes` are as in `edge.core.recipe.amend`, with old and new value and the bounds that
    the recipe sets; `differences` says them in words (`more` further ones are left out). With `adopts` the batch would
    go over to that version, whose seal is `seal`, from step `from_step` on. `was_seal` is the control recipe's seal now
    and `new_seal` what it would be. `needs`: who must agree, one entry a signature, each a role or several with "|".
    `proposal` is the hub's that they took up."""

    amendment: str
    changes: list[dict[str, str]]
    adopts: str
    from_step: str
    seal: str
    was_seal: str
    new_seal: str
    differences: list[str]
    more: int
    reason: str
    needs: list[str]
    proposal: str = ""


@dataclass(frozen=True, kw_only=True)
class AmendmentProposed(Event):
    """The hub proposes to amend the batch: see `edge.core.proposals.Proposal`. Nothing changes by it, and a later one
    takes its place. `digest` is the SHA-256 of its content, `way` how it came: "hub" or "file"."""

    proposal: str
    version: str
    until: str
    reason: str
    changes: list[dict[str, str]]
    adopts: str
    from_step: str
    digest: str
    way: str


@dataclass(frozen=True, kw_only=True)
class ProposalRefused(Event):
    """A proposal of the hub was not taken. `why` is a sentence."""

    proposal: str
    digest: str
    way: str
    why: str


@dataclass(frozen=True, kw_only=True)
class AmendmentAgreed(Event):
    """One of those who must agree did, and others still must (`needs`). The row before it is the signature."""

    amendment: str
    person: str
    role: str
    needs: list[str]


@dataclass(frozen=True, kw_only=True)
class AmendmentRefused(Event):
    """Somebody refused what was requested, for this `reason`; the row before it is the signature."""

    amendment: str
    person: str
    role: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AmendmentMade(Event):
    """The last who had to agree did; the row before it is that signature. From here on the batch runs by the sealed
    recipe `seal` with `changes`, and its control recipe has the seal `new_seal`; before it had `was_seal`. Steps in
    `skips` are left out once. `remaining` are the steps to come as the recipe now lists them, and `lengths` the new
    durations and time-outs, in seconds, of steps under way. `dropped` tells that earlier changes went with the version
    that they were made in."""

    amendment: str
    person: str
    role: str
    changes: list[dict[str, str]]
    skips: list[str]
    dropped: bool
    version: str
    seal: str
    was_seal: str
    new_seal: str
    remaining: list[str]
    lengths: dict[str, list[float]]


# Equipment commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CommandIntended(Event):
    """The box is about to write `value` to `tag`, once. `before` is the reading at that time, if there was one.

    `late`: the write did not wait for this row, for it makes a unit safe or ends its service."""

    step: str
    iteration: int
    attempt: int
    tag: str
    value: Value
    unit: str
    before: Value | None
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class CommandConfirmed(Event):
    """Written and read back. `reading` is what the equipment showed."""

    step: str
    attempt: int
    tag: str
    reading: Value | None
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class CommandRefused(Event):
    """Certainly not written (guard or device said no)."""

    step: str
    attempt: int
    tag: str
    why: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class CommandUnknown(Event):
    """Nobody knows whether it was written: a lost reply, a read-back that does not agree, a crash."""

    step: str
    attempt: int
    tag: str
    why: str
    reading: Value | None
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class QuestionRaised(Event):
    """A person must decide about an unknown or refused command, or, without a `tag`, about a step during which the box
    was off; `question` is its id within the batch and `answers` the ones that make sense ("happened" does not, for a
    write that was refused)."""

    question: str
    step: str
    tag: str
    intent: Value
    unit: str
    before: Value | None
    reading: Value | None
    why: str
    answers: list[str]
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class QuestionAnswered(Event):
    """The signed answer: "happened", "again" or "abort", with the reading that was shown; "by hand" when the step goes
    on by hand instead."""

    question: str
    step: str
    answer: str
    reading: Value | None
    iteration: int = 1


# Trends: see `edge.core.trend` -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TrendPinned(Event):
    """What the batch that begins is compared with until it ends: these earlier `batches`, and what they say of each
    series: `n` of them have it, their `mean`, standard `deviation`, lowest and highest. A series is called by its step,
    "#2" for the second pass of a loop, ":3" for the third point of a monitor, and the unit."""

    batches: list[str]
    series: list[dict[str, str | int | float]]


@dataclass(frozen=True, kw_only=True)
class TrendJudged(Event):
    """What a step recorded, or point number `point` of a monitor, compared with earlier batches: "within" or "outside"
    low..high, "too few" when fewer than `least` of them have it, "not usable" without a value. `missed` points before
    it passed while no runtime was there or the batch did not run. An ExceptionRaised row follows what is outside; a
    monitor that stays there is told once."""

    step: str
    name: str
    found: str
    of: int
    least: int
    value: float | None
    unit: str
    low: float | None
    high: float | None
    point: int = 0
    missed: int = 0
    iteration: int = 1


# Exceptions and signatures ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ExceptionRaised(Event):
    """An exception record, with its category; review lists it until someone disposes of it."""

    exception: str
    step: str
    category: str
    code: str
    what: str
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class LimitRestored(Event):
    """A monitored value is back within its limit."""

    exception: str
    step: str
    tag: str
    value: Value
    iteration: int = 1


@dataclass(frozen=True, kw_only=True)
class SignatureMade(Event):
    """An electronic signature: what was shown (`subject_seq`, `subject_hash`), who, meaning, how verified.

    `attestation` is the device key's Ed25519 signature (hex) over `edge.core.people.attested_bytes`."""

    step: str
    person: str
    role: str
    meaning: str
    methods: list[str]
    session: str
    subject_seq: int
    subject_hash: str
    attestation: str
    iteration: int = 1


# Alarms ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AlarmRaised(Event):
    """An alarm's condition is there. `alarm` is its id on this box; `batch` and `step` are those whose limit it is of,
    `tag` is the full name of a tag, each empty when it has none. `value` is what was read."""

    alarm: str
    step: str
    tag: str
    priority: str
    cause: str
    effect: str
    todo: str
    value: Value | None


@dataclass(frozen=True, kw_only=True)
class AlarmCleared(Event):
    """An alarm's condition is over, for this reason. It stays open until somebody has acknowledged it."""

    alarm: str
    why: str
    value: Value | None


@dataclass(frozen=True, kw_only=True)
class AlarmAcknowledged(Event):
    """The row's actor has seen the alarm that row `raised_seq` raised."""

    alarm: str
    raised_seq: int


@dataclass(frozen=True, kw_only=True)
class AlarmFlooded(Event):
    """An alarm's condition came back `times` times within `for_s` seconds; meanwhile the alarm stayed raised, and no
    row was made."""

    alarm: str
    times: int
    for_s: float


KINDS: Final[dict[str, type[Event]]] = {cls.__name__: cls for cls in Event.__subclasses__()}

VERSIONS: Final = {"JournalContinued": 2}
"""The version of a kind that is written now; 1 for every kind that is not named."""


def _nobody_was_asked(facts: dict[str, Any]) -> dict[str, Any]:
    """JournalContinued 1 knew no tail: all rows came with the backup."""
    return {**facts, "backup_seq": facts["last_seq"], "mirror_seq": None, "hub_seq": None, "heard_seq": None}


# (kind, version of the stored row) -> facts in the shape of the next version.
UPCASTS: Final[dict[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    ("JournalContinued", 1): _nobody_was_asked,
}
BODY_BYTES_MAX: Final = 65_536


@dataclass(frozen=True, slots=True)
class RowBody:
    """What one row says, when, and who caused it (a person's id, or "lineside")."""

    event: Event
    at: Stamp
    actor: str


def encode(body: RowBody) -> bytes:
    """The exact bytes of a row body. Made once; never re-made from a decoded row."""
    facts = body.event.__dict__.copy()
    return orjson.dumps(
        {
            "kind": (kind := type(body.event).__name__),
            "v": VERSIONS.get(kind, 1),
            "at": body.at.__dict__,
            "actor": body.actor,
            "batch": facts.pop("batch"),
            "facts": facts,
        }
    )


def decode(data: bytes) -> RowBody:
    """Read a row body. Raises `row.unreadable` for bytes that no version of Lineside wrote."""
    try:
        raw = orjson.loads(data)
        facts = dict(raw["facts"])
        kind, version = raw["kind"], raw["v"]
        while (kind, version) in UPCASTS:
            facts = UPCASTS[kind, version](facts)
            version += 1
        known = {VERSIONS.get(kind, 1): KINDS[kind]}
        event = known[version](batch=raw["batch"], **facts)
        at = raw["at"]
        stamp = Stamp(at["utc"], ClockQuality(at["quality"]), float(at["boottime_s"]), at["boot"])
        return RowBody(event, stamp, raw["actor"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise LinesideError(
            "row.unreadable",
            f"A row's body cannot be read ({type(error).__name__}: {str(error)[:120]}).",
            effect="The row is kept as it is; what it says is not interpreted.",
            todo="Read it with a version of Lineside that knows its kind.",
        ) from error
