"""Whether a batch has a unit: asked of the runtime, or of the journal while no runtime can start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

from edge.archive import record_of
from edge.checkpoints import read_head
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.guard import NOT_SENT
from edge.core.line import Book
from edge.core.plant import read_plant
from edge.core.queueing import refuse_by_hand
from edge.desk_client import connect
from edge.journal import claimed
from edge.library import read_bounded
from edge.wire import HoldUnit


@asynccontextmanager
async def unoccupied(config: Config, unit: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Within it the unit was free when it began; where no runtime runs, and one ran before, none starts until it ends.
    Where one runs a batch may start until what it gives is called, right before each write: from then on none takes the
    unit until the end, unless the runtime itself ends meanwhile.

    Both raise `equipment.unit_in_use` and `equipment.runtime_silent`; its end `equipment.taken_meanwhile`."""
    try:
        await _hold(config, unit, None)
    except LinesideError as refusal:
        if refusal.code != "desk.unreachable":
            raise
    else:
        async with AsyncExitStack() as held:
            yield partial(_hold, config, unit, held)
            try:
                await _hold(config, unit, None)
            except LinesideError as refusal:
                raise LinesideError(
                    "equipment.taken_meanwhile",
                    f"While {unit} was written to by hand: {refusal.what}",
                    effect="The write was done, and is kept for the report. Its outcome is not shown here.",
                    todo="Look at the unit and at the batch before it goes on.",
                ) from refusal
        return
    path = config.state_dir / "journal.db"
    if not path.exists():
        yield _nobody_starts  # no batch ever was; and what belongs to the runtime's account is not made by another
        return
    try:
        with claimed(path):
            _ask_the_journal(config, unit)
            yield _nobody_starts
    except (LinesideError, PermissionError) as refusal:
        if isinstance(refusal, LinesideError) and refusal.code != "journal.in_use":
            raise
        raise LinesideError(
            "equipment.runtime_silent",
            "It cannot be seen whether a batch uses the unit: a runtime is there and does not answer, or this account "
            "may not look.",
            effect=NOT_SENT,
            todo="Look at the runtime and its log; try again when it answers or is stopped, with its own account.",
        ) from refusal


async def _nobody_starts() -> None:
    """The journal is ours, or there is none."""


async def _hold(config: Config, unit: str, held: AsyncExitStack | None) -> None:
    """Let no batch take the unit until `held` ends; without it, only look whether one has it."""
    async with AsyncExitStack() as looking:
        client = await (held or looking).enter_async_context(connect(config.desk_socket))
        await client.ask(HoldUnit(id=uuid4().hex, unit=unit))


def _ask_the_journal(config: Config, unit: str) -> None:
    plant = read_plant(read_bounded(config.plant), str(config.plant))
    with record_of(config) as rows:
        refuse_by_hand(read_head(rows, config.state_dir / "checkpoints", Book(plant), made_seq=0).line, unit)
