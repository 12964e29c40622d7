"""What may be asked of the line: `edge.core.decide` turns each into rows or refuses it in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal

from edge.core.alarms import AlarmWatch, Finding
from edge.core.lifecycle import Approval, RecipeAct
from edge.core.mode import HandAct
from edge.core.numbers import NumberRange
from edge.core.orders import Order
from edge.core.profiles import Profile
from edge.core.quick import dataclass
from edge.core.record import Row
from edge.core.terms import Act, Reading, Role, Value

if TYPE_CHECKING:  # a follower sends commands and knows no recipe
    from edge.core.proposals import Proposal
    from edge.core.recipe.amend import Change


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Base. `command_id` is empty for what the box asks of itself; a repeated id decides nothing again."""

    command_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson(Command):
    """Asked in an open session. The line knows the session's person and roles."""

    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signature whose secret the directory has verified; `attestation` (hex) covers all of it."""

    person: str
    roles: tuple[Role, ...]
    role: Role
    """The one of `roles` in which the person signs."""
    methods: tuple[str, ...]
    meaning: str
    session: str
    subject_seq: int
    subject_hash: str
    attestation: str


# The box ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a restore found out about the rows behind the backup; see `edge.core.events.JournalContinued`."""

    backup_seq: int
    mirror_seq: int | None
    hub_seq: int | None
    heard_seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRuntime(Command):
    """A runtime of this version begins. `continues` is the journal's last row when it belongs to another epoch: the
    journal came from a backup, and rows made after that one are not in it. `fetched` says how it came to end there,
    when that is known."""

    version: str
    continues: Row | None = None
    fetched: Fetched | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRuntime(Command):
    """A clean stop. Refused while a write's outcome is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlant(Command):
    """Put a plant in force; refused while a batch runs on another."""

    plant: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecipe(Command):
    """Make a checked and sealed recipe effective."""

    recipe: str
    version: str
    title: str
    seal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRecipeApproval(Command):
    """How recipes become effective from here on, as the box's settings say."""

    approval: Approval


@dataclass(frozen=True, slots=True, kw_only=True)
class SetProfile(Command):
    """The box's profile from here on, and the recipes that are started ad hoc, as its settings say."""

    profile: Profile
    ad_hoc: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A recipe that was checked and rehearsed, and is durable in the library; see `RecipeSubmitted`."""

    recipe: str
    version: str
    title: str
    plant: str
    rehearsal: str
    rehearsed: str
    rehearsal_ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRecipe(ByPerson):
    """`act` on the recipe with this seal, says `signed`, who saw it beside the effective version `compared_with` (a
    seal, empty without one). `offered` is what is submitted; `reason` is for sending back and retiring."""

    act: RecipeAct
    seal: str
    compared_with: str
    reason: str
    signed: Signed
    offered: Offered | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeReceipt(Command):
    """A verified receipt of the hub."""

    hub: str
    incarnation: str
    stored_seq: int
    head_hash: str
    receipt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SealRows(Command):
    """The device signed the last row, and with it all before."""

    seq: int
    row_hash: str
    public_key: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived:
    """One segment that was verified to its last row just now; `sha256` is its file's."""

    first_seq: int
    last_seq: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneRows(Command):
    """Take rows `first_seq` to `through_seq` out of the journal. The rest is the evidence: what was found just now."""

    first_seq: int
    through_seq: int
    through_hash: str
    segments: tuple[Archived, ...]
    """In order, each going on where the one before ended, and each the rows that the journal has."""
    on_medium: bool
    """They were read back from another medium than the journal's."""
    hub_safe_seq: int
    """What a verified receipt says a verified backup of the hub has; 0 without one."""
    receipt: str
    prunable_seq: int
    """A start needs no row up to this one, even when the newest checkpoint is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteCheckpoint(Command):
    """The head as of row `folded_seq` is durable in a file with this SHA-256."""

    folded_seq: int
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSelfCheck(Command):
    """The follower verified the record; see `SelfChecked`."""

    rows: int
    checked_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteDrill(Command):
    """The follower had the day's backup made and tried; see `BackupDrilled`."""

    backup: str
    head_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...]
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TellUnrecorded(Command):
    """A run whose journal had failed wrote safe states without rows: what it wrote, by batch; empty when nobody knows.
    `utc` says when, as far as it is known."""

    utc: str
    batches: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOnFullDisk(Command):
    """The disk is full: what runs must wait, so that stops and outcomes can still be written."""


# Process values --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SealValues(Command):
    """A window of process values is closed; see `ValuesSealed`."""

    window: int
    from_utc: str
    to_utc: str
    tags: int
    samples: int
    record_tags: int
    root: str
    record_root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissValues(Command):
    """Process values were not stored; see `ValuesMissing`."""

    from_utc: str
    to_utc: str
    scope: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinValues(Command):
    """Thin a window; refused when that would change a value in a batch's record."""

    window: int
    method: str
    tags: int
    samples_before: int
    samples_after: int
    old_root: str
    new_root: str
    record_root: str
    record_root_after: str


# People ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession(Command):
    """The directory verified this person."""

    session: str
    person: str
    roles: tuple[Role, ...]
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession(Command):
    session: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseLogIn(Command):
    """A wrong secret for `person` (as given; may be unknown)."""

    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseIdentity(ByPerson):
    """Make the vault forget what this pseudonym stands for."""

    pseudonym: str
    reason: str


# Orders and numbers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOrder(ByPerson):
    """Take an order that came this `way`. One that the hub signed for this box is `trusted`, and needs no session."""

    order: Order
    way: Literal["typed", "scanned", "hub", "file"]
    trusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrder(ByPerson):
    """An order that waits is not to be made."""

    order: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNumbers(Command):
    """The range that the box's settings give; None for none."""

    numbers: NumberRange | None


# The batch -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBatch(ByPerson):
    """Begin a batch now, or with `queue` let it wait until a person starts it; then nothing begins by itself. One for
    `training` gets its number from the box."""

    batch: str
    order: str
    seal: str
    patient: str
    speed: float
    queue: bool = False
    training: bool = False
    changes: tuple[Change, ...] = ()
    """What its order changes in the recipe; the line puts it here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActOnBatch(ByPerson):
    batch: str
    act: Act
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueBatch(ByPerson):
    """Go on with a restored batch: what its journal lacks is lost, says `signed`, because of `reason`."""

    batch: str
    reason: str
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmStep(ByPerson):
    """`iteration`, here and in what follows: of the step as it was shown; 0 when that is not said. `part`
    likewise: of a step with several parts, the one that was shown; empty when that is not said."""

    batch: str
    step: str
    iteration: int = 0
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterValue(ByPerson):
    """`text` as typed."""

    batch: str
    step: str
    text: str
    iteration: int = 0
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanCode(ByPerson):
    """`text` as scanned. With `identity` it is the pseudonym that the vault gives for what was scanned, empty when that
    was no readable code; `alike`: what was scanned has the form of the batch's patient identity. `typed`: somebody
    typed it, which satisfies no step that wants the patient's."""

    batch: str
    step: str
    text: str
    identity: bool = False
    alike: bool = False
    typed: bool = False
    iteration: int = 0
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignStep(ByPerson):
    batch: str
    step: str
    signed: Signed
    iteration: int = 0
    part: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddResult(ByPerson):
    """The open `result` is `text` as typed, says `signed`."""

    batch: str
    result: str
    text: str
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectValue(ByPerson):
    """What row `was_seq` says of the value `name` is wrong: right is `text` as typed, says `signed`, because of
    `reason`."""

    batch: str
    name: str
    was_seq: int
    text: str
    reason: str
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAmendment(ByPerson):
    """Amend the batch by these `changes`, or with `adopts` (a seal) let it go over to another version from `from_step`
    on, because of `reason`, says `signed`. Nothing changes before others agree."""

    batch: str
    changes: tuple[Change, ...]
    adopts: str
    from_step: str
    reason: str
    signed: Signed
    proposal: str = ""
    """Of the hub: what it proposes is asked for, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeProposal(Command):
    """The hub, which signed it for this box, proposes to amend a batch. It came this `way`."""

    proposal: Proposal
    way: Literal["typed", "scanned", "hub", "file"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleAmendment(ByPerson):
    """Agree to the requested `amendment`, or refuse it because of `reason`, says `signed`."""

    batch: str
    amendment: str
    agree: bool
    reason: str
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerQuestion(ByPerson):
    """`reading` is what the equipment showed when the person answered."""

    batch: str
    question: str
    answer: Literal["happened", "again", "abort"]
    reading: Value | None
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchMode(ByPerson):
    """Take a step by hand, switch it to manual or back to automatic, because of `reason`, says `signed`."""

    batch: str
    step: str
    act: HandAct
    reason: str
    signed: Signed
    iteration: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterByHand(ByPerson):
    """Of a step by hand, `part` is `text` as typed, says `signed`; with `verifies` as the second person, who enters
    it without having seen what the first one did."""

    batch: str
    step: str
    part: str
    text: str
    verifies: bool
    signed: Signed
    iteration: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterDark(ByPerson):
    """So many minutes passed from the last row before the dark to the first after it, says `signed`; with `verifies`
    as the second person, who enters it without having seen what the first one did."""

    batch: str
    minutes: int
    verifies: bool
    signed: Signed


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeAlarm(ByPerson):
    """The person has seen the alarm that row `raised_seq` raised."""

    alarm: str
    raised_seq: int


# What the engine found ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PassTimer(Command):
    """A timer of an active step has run for at least `low_s`, at most `high_s` (-1: unbounded)."""

    batch: str
    step: str
    timer: str
    low_s: float
    high_s: float
    iteration: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteAlarm(Command):
    """An alarm's condition is there, is over (for the reason `why`), or came back `times` times within `for_s`."""

    watch: AlarmWatch
    finding: Finding
    value: Value | None = None
    why: str = ""
    times: int = 0
    for_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteReading(Command):
    """A watched reading changed what is true of a step: its condition is met, its limit is crossed or
    restored, or its quality was lost."""

    batch: str
    step: str
    finding: Literal["met", "outside", "back", "bad_quality", "steady"]
    reading: Reading
    iteration: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcludeWrite(Command):
    """What became of an intended write, after the read-back."""

    batch: str
    step: str
    attempt: int
    tag: str
    outcome: Literal["confirmed", "refused", "unknown"]
    reading: Value | None
    why: str
    iteration: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCondition(Command):
    """Ask whether what a step waits for is true now. `bad`: what it looks at could not be used for long enough that the
    step's `on_bad_quality` decides."""

    batch: str
    step: str
    bad: bool
    iteration: int = 1


def facts_of(command: Command) -> dict[str, Any]:
    """What the command says, for a row that repeats it."""
    return {one.name: getattr(command, one.name) for one in fields(command) if one.name != "command_id"}
