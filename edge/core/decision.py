"""One decision under way, as the modules that decide about one topic see it, and what every decision knows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Protocol

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.line import Batch, Line, StepRun
from edge.core.people import Permission
from edge.core.quick import dataclass
from edge.core.recipe.model import Calculate, Loop, Recipe, SamplingPlan, Select, Step, Wait, Weigh
from edge.core.room import Room
from edge.core.terms import Reading, Role, Stamp, State, Value

ACT_HINT: Final[dict[State, str]] = {
    State.IDLE: "Start the batch when its units are free, or stop it.",
    State.HELD: "Answer the open question, or resume the batch.",
    State.HOLDING: "Wait until the batch is held.",
    State.PAUSED: "Resume the batch.",
    State.STOPPING: "Wait until the batch has stopped.",
    State.ABORTING: "Wait until the batch is aborted.",
    State.STOPPED: "The batch has ended; start another.",
    State.ABORTED: "The batch has ended; start another.",
    State.COMPLETE: "The batch is complete; it can be reviewed.",
}
"""What to do about a batch that is in a state in which something cannot be done."""


@dataclass(frozen=True, slots=True)
class Now:
    """What a decision knows besides the head: the time, the latest reading of a tag by its full name, the room on
    the disk (None where no disk is watched), and the units that somebody writes to at the command line."""

    at: Stamp
    reading: Callable[[str], Reading | None]
    room: Room | None = None
    by_hand: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class WorkedOut:
    """What came out of a formula; None with `trouble` when a value in it cannot be used or nothing usable comes out."""

    value: Value | None
    inputs: list[ev.Input]
    trouble: str = ""


class Decision(Protocol):
    """Rows so far, and the head as it is after them. Whatever is called here adds its rows, or raises LinesideError:
    then nothing of the whole decision happens."""

    actor: str
    """Who decides: a person, or the box."""

    @property
    def line(self) -> Line:
        """The head after the rows so far. What was taken from it before a row is what was."""

    @property
    def now(self) -> Now:
        """The time, readings and room that this decision goes by."""

    def emit(self, event: ev.Event) -> None:
        """Add a row."""

    def need(self, permission: Permission) -> None:
        """Refuse whoever is logged in without it."""

    def need_role(self, role: Role) -> None:
        """Refuse whoever is logged in without it."""

    def make_signature(self, batch_id: str, step: str, signed: cm.Signed) -> None:
        """Add the signature; who signed is the actor from here on."""

    def batch(self, batch_id: str) -> Batch:
        """The batch, or the refusal `batch.unknown`."""

    def recipe(self, batch: Batch) -> Recipe:
        """The control recipe that it runs on now."""

    def work_out(self, batch_id: str, step: Step, text: str) -> WorkedOut:
        """What comes out of a formula of the step now."""

    def continues(self, batch_id: str, step: Select | Loop | Calculate | Wait, trouble: str) -> bool:
        """What cannot be used goes to `on_bad_quality`: an exception record, and True when the step goes on without."""

    def raise_exception(self, batch_id: str, step: str, category: str, code: str, what: str) -> None:
        """Add an exception record; it holds nothing by itself."""

    def outside(
        self, batch_id: str, step: Step, category: str, shown: str, low: float | None, high: float | None
    ) -> None:
        """Add the exception record of a value outside its limit, as the profile weighs it; a critical one holds."""

    def weight(self, batch_id: str, category: str) -> str:
        """The category of a value outside its limit: the recipe's, or a warning where limits are not enforced."""

    def change(self, batch_id: str, target: State, cause: str, reason: str) -> None:
        """Bring the batch to a state that its present one may go to."""

    def hold(self, batch_id: str, cause: str, reason: str) -> None:
        """Hold because of what the box found. A batch that is held already keeps its first reason."""

    def abort(self, batch_id: str, cause: str, reason: str) -> None:
        """End it at once, with what makes its units safe."""

    def intend(self, batch_id: str, step: str, iteration: int, attempt: int, full_name: str, value: Value) -> None:
        """Intend a write that the guard permits; hold the batch where it does not."""

    def questions_settled(self, batch_id: str, why: str) -> None:
        """Let a batch that was held by questions go on once none is open."""

    def samples_due(self, batch_id: str, are: Callable[[SamplingPlan], bool]) -> None:
        """Samples of these plans are due now."""

    def leave_open(self, batch: Batch, step: Step, name: str, title: str, unit: str, interim: str) -> None:
        """Add a result that is pending to the list of open results."""

    def conclude_weighing(self, batch: Batch, step: Weigh, run: StepRun) -> None:
        """Add the net weight, judged."""

    def complete(self, batch_id: str, step: str) -> None:
        """The step is done."""

    def advance(self, batch_id: str, step: Step) -> None:
        """Complete a step of several parts when nothing is left to ask, and proceed."""

    def proceed(self, batch_id: str) -> None:
        """Settle transient states, then complete and activate whatever can be. Idempotent."""
