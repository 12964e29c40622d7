"""The messages between the desk and its clients (screen, follower, command line): one JSON object a line.

A request is `{"id": ..., "do": ..., ...}`; the answer is `{"id": ..., "ok": true, ...}` or
`{"id": ..., "ok": false, "error": {code, what, effect, todo}}`. After `{"do": "watch"}` the desk also sends
`{"picture": {...}}` whenever something changed. `id` is the command id: repeating it gets the first answer
and does nothing twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter

from edge.core.terms import ORDER_CODE, Value

LINE_BYTES_MAX = 1_048_576
ATTACHMENT_PART_BYTES = 524_288
PROTOCOL = 1
RECIPE_CHARS_MAX = 400_000
"""Of a recipe that is offered; as JSON it still fits a line."""

Id = Annotated[str, Field(min_length=1, max_length=64)]
Short = Annotated[str, Field(max_length=256)]
Root = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_SYMBOLOGY = re.compile(r"\s*\][A-Za-z][0-9A-Za-z]")


def _bare(text: str) -> str:
    """What a code says, without the symbology identifier (ISO/IEC 15424, "]C1") that a scanner can put before it."""
    found = _SYMBOLOGY.match(text)
    return text[found.end() :] if found else text


def looks_like_order(text: str) -> bool:
    """True for what a scanner reads off an order's code."""
    return _bare(text).strip().startswith(ORDER_CODE)


Scanned = AfterValidator(_bare)
"""Of what a scanner may have typed: two scanners, one of which says the symbology, give one code."""


class Message(BaseModel):
    """Base of everything on the wire: unknown keys are refused, instances do not change."""

    # what reads a message is built when the first one is read or made: a screen uses few of them
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


# Requests --------------------------------------------------------------------------------------------------


class _Request(Message):
    id: Id


class LogIn(_Request):
    """By badge or by name, with the PIN. The answer carries `session`. Replaces this connection's session."""

    do: Literal["log_in"] = "log_in"
    badge: Short = ""
    person: Short = ""
    pin: Annotated[str, Field(repr=False, max_length=64)]


class LogOut(_Request):
    do: Literal["log_out"] = "log_out"


class Watch(_Request):
    """Send a Picture now and after every change."""

    do: Literal["watch"] = "watch"


class StartBatch(_Request):
    """Start `recipe` (its seal) for an order, or with `queue` let the batch wait: it begins when its units are free and
    a person starts it. `patient` is the scanned patient identity, or empty. One for `training` has neither patient nor
    number: the box numbers it. The answer carries `batch`."""

    do: Literal["start_batch"] = "start_batch"
    batch: Short
    order: Short
    recipe: Short
    patient: Annotated[Short, Scanned] = ""
    queue: bool = False
    training: bool = False


class GiveOrder(_Request):
    """An order, as JSON or as the text of its code: see docs/how-to/give-orders.md. `signature` (hex) is the hub's for
    this box; without it somebody who may start batches must be logged in. Or a proposal of the hub to amend a batch,
    which must have one."""

    do: Literal["give_order"] = "give_order"
    text: Annotated[str, Field(max_length=8_192), Scanned]
    way: Literal["typed", "scanned", "hub", "file"]
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""


class CancelOrder(_Request):
    """An order that waits is not to be made, for this reason."""

    do: Literal["cancel_order"] = "cancel_order"
    order: Short
    reason: Annotated[str, Field(max_length=500)]


class ActOnBatch(_Request):
    """Hold, resume, pause, stop or abort, with a reason; or start a batch that waits."""

    do: Literal["act"] = "act"
    batch: Short
    act: Literal["start", "pause", "hold", "resume", "stop", "abort"]
    reason: Annotated[str, Field(max_length=2000)] = ""


class ContinueBatch(_Request):
    """The signed decision to go on with a batch that came back with a backup: what is missing is lost, because of
    `reason`. The signer need not own the session."""

    do: Literal["continue"] = "continue"
    batch: Short
    reason: Annotated[str, Field(max_length=2000)]
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class ConfirmStep(_Request):
    """The instruction was done. `iteration` and `part`, here and in what follows: of the step as it was shown (see
    `StepCard`); 0 and empty when that is not said, and then it is for what the step asks for now."""

    do: Literal["confirm"] = "confirm"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    part: Short = ""


class EnterValue(_Request):
    """A value for a record step, as typed; the box parses it."""

    do: Literal["enter"] = "enter"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    part: Short = ""
    text: Short


class ScanCode(_Request):
    """A scanned code for a scan step. `typed`: it is known to have been typed by somebody instead."""

    do: Literal["scan"] = "scan"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    part: Short = ""
    text: Annotated[str, Field(max_length=4096), Scanned]
    typed: bool = False


class SignStep(_Request):
    """One signature. `person` and `pin` of the signer; the signer need not own the session (verifier)."""

    do: Literal["sign"] = "sign"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    part: Short = ""
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class AddResult(_Request):
    """A result that was pending, and the signature of whoever adds it. The signer need not own the session."""

    do: Literal["add_result"] = "add_result"
    batch: Short
    result: Short
    text: Short
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class AnswerQuestion(_Request):
    """The signed answer to an open question."""

    do: Literal["answer"] = "answer"
    batch: Short
    question: Short
    answer: Literal["happened", "again", "abort"]
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class CorrectValue(_Request):
    """A value that was entered wrong, with the right one as typed, the reason, and a signature. `was_seq` is the row
    that was shown."""

    do: Literal["correct"] = "correct"
    batch: Short
    name: Short
    was_seq: Annotated[int, Field(ge=1)]
    text: Short
    reason: Annotated[str, Field(max_length=2000)]
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class SwitchMode(_Request):
    """Take a step by hand whose equipment cannot be used, switch one to manual, or return it to automatic; for this
    reason, which may be empty when it is taken by hand. The signer need not own the session."""

    do: Literal["switch_mode"] = "switch_mode"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    act: Literal["take by hand", "switch to manual", "return to automatic"]
    reason: Annotated[str, Field(max_length=2000)] = ""
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class EnterByHand(_Request):
    """What a step by hand asks for, signed: as the first person, or with `verifies` as the second one, who enters it
    again. Of what was done (a text) the second person's signature alone is asked."""

    do: Literal["enter_by_hand"] = "enter_by_hand"
    batch: Short
    step: Short
    iteration: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    part: Short = ""
    text: Annotated[str, Field(max_length=2000)]
    verifies: bool
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class EnterDark(_Request):
    """How many minutes passed while the box was off, where `DarkCard` asks for it, signed: as the first person, or with
    `verifies` as the second one, who enters it again."""

    do: Literal["enter_dark"] = "enter_dark"
    batch: Short
    minutes: Annotated[int, Field(ge=0, le=10_000_000)]
    verifies: bool
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class AcknowledgeAlarm(_Request):
    """The person who is logged in has seen the alarm that row `raised_seq` raised."""

    do: Literal["acknowledge_alarm"] = "acknowledge_alarm"
    alarm: Short
    raised_seq: Annotated[int, Field(ge=1)]


class Amend(Message):
    """One change: a `value` of `subject` ("$parameter", or a step and its `field`) is to be `text` as typed; the step
    `subject` is to be left out once ("skip"); a step, `text` as JSON, comes behind step `field` ("add"); or the batch
    waits, and its role `subject` is played by the unit `text` although that is `dirty`."""

    kind: Literal["value", "skip", "add", "dirty"]
    subject: Short
    field: Short = ""
    text: Annotated[str, Field(max_length=4096)] = ""


class RequestAmendment(_Request):
    """Ask, signed and for this reason, to amend a batch under way: by `changes`, or by going over to the effective
    version with the seal `adopts` from step `from_step` on, or by what the hub's `proposal` says. Nothing changes
    before others agree."""

    do: Literal["request_amendment"] = "request_amendment"
    batch: Short
    changes: Annotated[tuple[Amend, ...], Field(max_length=10)] = ()
    adopts: Short = ""
    from_step: Short = ""
    proposal: Short = ""
    reason: Annotated[str, Field(max_length=2000)]
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class SettleAmendment(_Request):
    """Agree, signed, to the amendment that waits, or refuse it for this reason."""

    do: Literal["settle_amendment"] = "settle_amendment"
    batch: Short
    amendment: Short
    agree: bool
    reason: Annotated[str, Field(max_length=2000)] = ""
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class ReadAttachment(_Request):
    """A part of an attachment that a recipe on this box names: the answer carries `data` (base64), at most
    `ATTACHMENT_PART_BYTES` from `offset` on, and the whole `size`."""

    do: Literal["read_attachment"] = "read_attachment"
    sha256: Root
    offset: Annotated[int, Field(ge=0, lt=2**40)] = 0


class SaveDraft(_Request):
    """Keep what was typed so far for a step, through a crash. An empty text removes it."""

    do: Literal["draft"] = "draft"
    batch: Short
    step: Short
    text: Annotated[str, Field(max_length=4096)]


class OfferRecipe(_Request):
    """Check, keep and rehearse a recipe: the `text` of its file with the operations that it calls, the draft `file` in
    the box's folder of recipes, or `again` the one with this seal, which was sent back. No row is made; the answer
    carries `recipe`, as that of `show_recipe`. Other requests are answered meanwhile."""

    do: Literal["offer_recipe"] = "offer_recipe"
    text: Annotated[str, Field(max_length=RECIPE_CHARS_MAX)] = ""
    file: Short = ""
    again: Root | Literal[""] = ""


class ShowRecipe(_Request):
    """What a person must see before signing this act. `recipe` is a name, "NAME VERSION" or a seal's beginning. The
    answer carries `recipe`: state, signatures, rehearsal, and what it changes in the effective version."""

    do: Literal["show_recipe"] = "show_recipe"
    recipe: Short
    act: Literal["submit", "approve", "send back", "release", "retire"]


class ListRecipes(_Request):
    """The answer carries `recipes` (state and signatures of each), `approval`, `from_folder`, and `drafts`: files of
    the box's folder that may be submitted, with what their headings say."""

    do: Literal["list_recipes"] = "list_recipes"


class SignRecipe(_Request):
    """A signed act on the recipe with this seal, as it was shown beside the effective version `compared_with` (empty
    without one). `reason` is for sending back and retiring. The signer need not own the session."""

    do: Literal["sign_recipe"] = "sign_recipe"
    act: Literal["submit", "approve", "send back", "release", "retire"]
    seal: Root
    compared_with: Root | Literal[""] = ""
    reason: Annotated[str, Field(max_length=2000)] = ""
    person: Short
    pin: Annotated[str, Field(repr=False, max_length=64)]


class EraseIdentity(_Request):
    """Make the box forget the patient identity that this pseudonym stands for, for this reason."""

    do: Literal["erase_identity"] = "erase_identity"
    pseudonym: Short
    reason: Annotated[str, Field(max_length=2000)]


class GiveReceipt(_Request):
    """The follower passes on a hub's signed receipt (the exact text)."""

    do: Literal["receipt"] = "receipt"
    receipt: Annotated[str, Field(max_length=8192)]


class ThinValues(_Request):
    """The follower asks for the row that lets it thin a window of process values; see the row `ValuesThinned`."""

    do: Literal["thin_values"] = "thin_values"
    window: int
    method: Annotated[str, Field(max_length=64)]
    tags: Annotated[int, Field(ge=0)]
    samples_before: Annotated[int, Field(ge=0)]
    samples_after: Annotated[int, Field(ge=0)]
    old_root: Root
    new_root: Root
    record_root: Root | Literal[""]
    record_root_after: Root | Literal[""]


class PruneRows(_Request):
    """The follower archived rows and asks to take those up to `through_seq` out of the journal; `receipt` is the exact
    text of the hub's newest, or empty. The answer carries `pruned_seq`, the last row that is out."""

    do: Literal["prune"] = "prune"
    through_seq: Annotated[int, Field(ge=1, lt=2**63)]
    receipt: Annotated[str, Field(max_length=8192)] = ""


class TellSync(_Request):
    """The follower's present state of sync; kept in memory for the safety strip."""

    do: Literal["sync"] = "sync"
    sync: Sync


class TellSelfCheck(_Request):
    """The follower verified the record: what holds, and in sentences what does not."""

    do: Literal["self_check"] = "self_check"
    rows: Annotated[int, Field(ge=0)]
    checked_seq: Annotated[int, Field(ge=0)]
    found: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=20)]
    left_out: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=20)] = ()
    took_s: Annotated[float, Field(ge=0)]


class TellDrill(_Request):
    """The follower had the day's backup made and tried: what was tried, and in sentences what does not hold."""

    do: Literal["drill"] = "drill"
    backup: Annotated[str, Field(max_length=200)]
    head_seq: Annotated[int, Field(ge=0)]
    found: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=20)]
    left_out: Annotated[tuple[Annotated[str, Field(max_length=500)], ...], Field(max_length=20)]
    took_s: Annotated[float, Field(ge=0)]


class HoldUnit(_Request):
    """Somebody writes to the unit at the command line: no batch takes it as long as this connection lasts. Refused
    while one has it."""

    do: Literal["hold_unit"] = "hold_unit"
    unit: Short


class AskStatus(_Request):
    """The answer carries `picture`."""

    do: Literal["status"] = "status"


Request = Annotated[
    LogIn
    | LogOut
    | Watch
    | StartBatch
    | GiveOrder
    | CancelOrder
    | ActOnBatch
    | ContinueBatch
    | ConfirmStep
    | EnterValue
    | ScanCode
    | SignStep
    | AddResult
    | AnswerQuestion
    | CorrectValue
    | RequestAmendment
    | SettleAmendment
    | SwitchMode
    | EnterByHand
    | EnterDark
    | AcknowledgeAlarm
    | ReadAttachment
    | SaveDraft
    | OfferRecipe
    | ShowRecipe
    | ListRecipes
    | SignRecipe
    | EraseIdentity
    | GiveReceipt
    | ThinValues
    | PruneRows
    | TellSync
    | TellSelfCheck
    | TellDrill
    | HoldUnit
    | AskStatus,
    Field(discriminator="do"),
]


# What a screen shows -----------------------------------------------------------------------------------------


class Sync(Message):
    """What the follower knows. rows made = rows received by the hub + rows pending."""

    hub: Literal["off", "never", "away", "connected"]
    """off: not configured; never: configured, no receipt yet; away: no connection now."""
    received_seq: int = 0
    """The highest row that the hub has said, signed, that it holds."""
    received_utc: str = ""
    copied: Literal["off", "ok", "failed"]
    copied_seq: int = 0
    detail: str = ""


class Strip(Message):
    """The safety strip: rows made, saved (durable here), copied (second medium), received (hub), pending."""

    made: int
    saved: int
    sync: Sync

    @property
    def pending(self) -> int:
        """Rows that the hub has not acknowledged."""
        return self.made - self.sync.received_seq


class ReadingView(Message):
    """A live value with its limit, as the screen shows it. `text` is already formatted with its decimals."""

    tag: str
    title: str
    value: Value | None
    text: str
    unit: str
    quality: Literal["good", "uncertain", "bad"]
    detail: str = ""
    low: float | None = None
    high: float | None = None


class StepLine(Message):
    """One line of the step list."""

    step: str
    title: str
    phase: str
    state: Literal["todo", "active", "done", "ended", "skipped"]
    placeholder: bool = False
    note: str = ""
    """Which pass a loop is in, or which branch a selection took."""


class ValueLine(Message):
    """An entered value that may be corrected: its newest row, its step, and how it reads."""

    seq: int
    name: str
    step: str
    title: str
    text: str
    unit: str


class AttachmentLine(Message):
    """Something to open at a step: by the end of its name a text (txt, md), picture, video or PDF."""

    file: str
    sha256: str
    title: str


class DarkCard(Message):
    """The box was off after `since` (its last row before), and no trusted clock says for how long: two people enter
    how many minutes passed from that row to its return. With `verifies` the first one has; what they entered is not
    told."""

    since: str
    verifies: bool
    entered_by: str
    roles: tuple[str, ...]
    """Who may enter it now."""


class HandCard(Message):
    """How a step goes on by hand. What the first person entered is not in it: the second one enters it unseen."""

    mode: Literal["semi-automatic", "manual"]
    why: str
    kind: str
    """What is entered: a "number", a "choice" or a "text"."""
    verifies: bool
    """One person has entered it; the second one is to."""
    entered_by: str
    roles: tuple[str, ...]
    """Who may enter or verify it: one of these."""
    said: str
    """Of what was done, the text that the second person signs."""
    again: bool
    """It is entered again and again."""
    last: str
    """The last value by hand, and by whom; empty for none."""
    back: str
    """A sentence when the equipment can be used again."""


class HandOffer(Message):
    """A step whose mode may be changed now, how, and by whom."""

    step: str
    iteration: int
    title: str
    act: Literal["take by hand", "switch to manual", "return to automatic"]
    why: str
    roles: tuple[str, ...]


class StepCard(Message):
    """All that the operator needs for one active step."""

    step: str
    phase: str
    title: str
    text: str
    """What to do, or what the box is doing, in a sentence."""
    why: str = ""
    asks: Literal["nothing", "confirm", "value", "choice", "scan", "sign", "hand"]
    unit: str = ""
    low: float | None = None
    high: float | None = None
    limit_why: str = ""
    placeholder: bool = False
    choices: tuple[str, ...] = ()
    expected: str = ""
    meaning: str = ""
    signers: tuple[str, ...] = ()
    """Roles still to sign, first one first."""
    roles: tuple[str, ...] = ()
    """Who may do what the step asks for: a person with one of these roles. Everyone, when empty."""
    readings: tuple[ReadingView, ...] = ()
    iteration: int = 1
    part: str = ""
    """Of a step that asks for several things: this one, ..."""
    part_number: int = 0
    parts: int = 0
    """... which is the `part_number`th of so many; 0 for a step that asks for one."""
    pending: bool = False
    """The person may enter "pending": the result comes later."""
    elapsed_s: float = 0.0
    duration_s: float = 0.0
    draft: str = ""
    next_title: str = ""
    attachments: tuple[AttachmentLine, ...] = ()
    hand: HandCard | None = None
    """How it goes on by hand or in manual mode; None while it is automatic."""


class QuestionCard(Message):
    """An unknown command: what was intended beside what the equipment shows."""

    question: str
    step: str
    tag: str
    title: str
    why: str
    intent: str
    reading_before: str
    """"" when it was not known."""
    unit: str
    """Of intent and reading before."""
    reading_now: ReadingView | None
    elapsed_low_s: float
    elapsed_high_s: float
    """-1 when nothing trusted bounds it."""
    labels: bool = False
    """It is about labels: whether they were printed."""
    answers: tuple[str, ...] = ("happened", "again", "abort")
    """The ones that make sense: "happened" does not, for a write that was certainly refused."""


class ResultCard(Message):
    """A result that is pending, and what it may be: one of `choices`, else something that is typed."""

    result: str
    step: str
    title: str
    unit: str
    interim: str
    choices: tuple[str, ...]
    low: float | None
    high: float | None


class ExceptionLine(Message):
    """One exception record."""

    exception: str
    step: str
    category: str
    what: str


class ExpiryLine(Message):
    """Material in use that expires."""

    step: str
    material: str
    until: str
    left_s: float
    """It may certainly still be used for so long; 0 when it is or may be expired."""
    near: bool
    expired: bool


class UnitLine(Message):
    """A unit of which the box keeps whether it is clean."""

    unit: str
    why: str
    """Why it is not known to be clean; empty while it is."""
    left_s: float | None
    """For so long it certainly stays clean; None when it is not, or without an end."""


class AmendOffer(Message):
    """Something that may be amended: what it is about (see `Amend`; to `adopt` a version, `subject` is its seal and
    `field` the step to go on from), its value now, and the bounds that the recipe sets."""

    kind: Literal["value", "skip", "add", "adopt", "dirty", "proposed"]
    subject: str
    field: str = ""
    title: str
    what: str
    """The value's name; "skip", "add", "adopt"; "dirty": then `field` is the unit and `value` why it is dirty;
    "proposed": then `subject` is the hub's proposal and `value` its reason."""
    value: str = ""
    unit: str = ""
    low: str = ""
    high: str = ""
    why: str = ""
    choices: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    """Of a version: what it changes, in sentences."""
    refused: str = ""
    """Why it cannot be amended now."""


class AmendmentCard(Message):
    """The amendment that waits for those who must agree: one signature for each of `needs`, a role or several with
    "|"; none by `people`, who have signed."""

    amendment: str
    requested_by: str
    reason: str
    adopts: str
    from_step: str
    differences: tuple[str, ...]
    more: int
    needs: tuple[str, ...]
    people: tuple[str, ...]


class BatchCard(Message):
    """One batch: state, reason and what to do next."""

    batch: str
    order: str
    recipe: str
    version: str
    title: str
    state: str
    reason: str
    restored: bool = False
    """Held because the box came back from a backup: resuming needs the permission to continue."""
    units: Mapping[str, str]
    speed: float
    waits: str = ""
    """Of a batch that is idle: what it waits for, and its place. Empty when it may be started."""
    steps: tuple[StepLine, ...]
    active: tuple[StepCard, ...]
    questions: tuple[QuestionCard, ...]
    exceptions: tuple[ExceptionLine, ...]
    values: tuple[ValueLine, ...] = ()
    """The entered values that may be corrected, newest first."""
    """The newest."""
    raised: int
    """How many exceptions there were in all."""
    results: tuple[ResultCard, ...] = ()
    """Those that are pending."""
    expiries: tuple[ExpiryLine, ...] = ()
    """Material in use that expires, what expires first before the rest."""
    offers: tuple[AmendOffer, ...] = ()
    """What may be amended."""
    amendment: AmendmentCard | None = None
    """The one that waits for a decision."""
    dark: DarkCard | None = None
    """Set while two people are asked how much time passed while the box was off."""
    hands: tuple[HandOffer, ...] = ()
    """Steps whose mode may be changed."""
    safe: tuple[str, ...] = ()
    """Its units with a safe state, which stop and abort write at once."""
    next_action: str
    """One sentence for the operator."""
    training: bool = False
    """Somebody learns: no screen may show it without saying so."""


class RecipeLine(Message):
    """A recipe that may be started."""

    recipe: str
    version: str
    title: str
    seal: str
    needs_patient: bool
    waits: str = ""
    """What a new batch would wait for now; empty when it may be started at once."""
    needs_order: bool = True
    """A batch of it begins from an order; else order and number may be left out."""
    trainable: bool = False
    """The plant gives units for training that it needs."""


class OrderLine(Message):
    """An order that waits. `recipe` is the seal of what it would be started with, empty while nothing can, which `why`
    says."""

    order: str
    title: str
    recipe: str
    number: str
    parameters: Mapping[str, str]
    quantity: str
    due: str
    needs_patient: bool
    training: bool
    waits: str = ""
    why: str = ""


class PersonView(Message):
    """Who is logged in on this connection."""

    person: str
    name: str
    roles: tuple[str, ...]


class SelfCheckView(Message):
    """The last time that the box verified its whole record."""

    utc: str
    rows: int
    found: tuple[str, ...]
    """What did not hold; empty when all did."""
    left_out: tuple[str, ...] = ()
    """What was not at hand, and so not verified."""


class AlarmLine(Message):
    """An alarm that is open; `raised_seq` is what is acknowledged."""

    alarm: str
    raised_seq: int
    priority: Literal["high", "medium", "low"]
    state: Literal["unacknowledged", "acknowledged", "returned"]
    batch: str
    step: str
    tag: str
    cause: str
    effect: str
    todo: str
    value: str
    """With its unit; empty when there was none."""
    since_utc: str
    times: int
    """How often it was raised since it was normal."""


class DrillView(Message):
    """The last time that the box made its day's backup and restored the newest one to look at it."""

    utc: str
    backup: str
    """The name of the file that was tried; empty when there was none."""
    head_seq: int
    """The last row in it."""
    found: tuple[str, ...]
    """What did not hold; empty when a box can be restored from it."""
    left_out: tuple[str, ...]
    """What was not at hand, and so not verified."""


class Picture(Message):
    """Everything a screen shows, as of one durable row."""

    protocol: int = PROTOCOL
    box: str
    as_of_seq: int
    utc: str
    clock: Literal["synced", "free"]
    person: PersonView | None
    people: tuple[PersonView, ...]
    """Who may log in here, for choosing by name."""
    strip: Strip
    batches: tuple[BatchCard, ...]
    recipes: tuple[RecipeLine, ...]
    profile: str = "single_site_gmp"
    starters: tuple[str, ...] = ("operator", "supervisor")
    """The roles that may start a batch."""
    orders: tuple[OrderLine, ...] = ()
    """Those that wait, the earliest due first."""
    number: str = ""
    """The number that a batch gets when none is given; empty without a range of the box's own, or a used-up one."""
    recipe_approval: Literal["from_folder", "one_signature", "two_signatures"] = "from_folder"
    """How recipes become effective on this box."""
    recipes_waiting: tuple[str, ...] = ()
    """Name and version of those that wait for the approval or release of whoever is logged in."""
    connections: Mapping[str, str]
    """Connection -> "connected", with a remark behind a comma ("connected, not encrypted"), or the reason why not."""
    dark_s: float
    """How long no runtime was there before this start, when it had not stopped cleanly; else 0."""
    self_check: SelfCheckView | None = None
    """None while there was none yet."""
    drill: DrillView | None = None
    """None while there was none yet."""
    notices: tuple[str, ...] = ()
    alarms: tuple[AlarmLine, ...] = ()
    """Those that are open: not acknowledged ones first, then by priority."""
    units: tuple[UnitLine, ...] = ()


REQUEST: TypeAdapter[Request] = TypeAdapter(Request, config=ConfigDict(defer_build=True))
