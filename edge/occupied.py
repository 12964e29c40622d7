"""Whether a batch has a unit: asked of the runtime, or of the journal while no runtime can start."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

from edge.archive import record_of
from edge.checkpoints import read_head
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.guard import NOT_SENT
from edge.core.line import OVER, Book
from edge.core.plant import read_plant
from edge.core.terms import State
from edge.desk_client import connect
from edge.journal import claimed
from edge.library import read_bounded


@asynccontextmanager
async def unoccupied(config: Config, unit: str) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Within it the unit was free when it began; where no runtime runs, and one ran before, none starts until it ends.
    Where one runs a batch may start: what it gives asks once more, right before each write.

    Both raise `equipment.unit_in_use` and `equipment.runtime_silent`; its end `equipment.taken_meanwhile`."""
    try:
        await _ask_the_runtime(config, unit)
    except LinesideError as refusal:
        if refusal.code != "desk.unreachable":
            raise
    else:
        yield partial(_ask_the_runtime, config, unit)
        try:
            await _ask_the_runtime(config, unit)
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


async def _ask_the_runtime(config: Config, unit: str) -> None:
    async with connect(config.desk_socket) as client:
        async for picture in client.pictures():
            for card in picture.batches:
                if unit in card.units.values() and card.state not in OVER:
                    raise _in_use(unit, card.batch, card.state)
            return


def _ask_the_journal(config: Config, unit: str) -> None:
    plant = read_plant(read_bounded(config.plant), str(config.plant))
    with record_of(config) as rows:
        line = read_head(rows, config.state_dir / "checkpoints", Book(plant), made_seq=0).line
    for batch in line.live():
        if unit in batch.units.values():
            raise _in_use(unit, batch.batch, batch.state)


def _in_use(unit: str, batch: str, state: State | str) -> LinesideError:
    return LinesideError(
        "equipment.unit_in_use",
        f"Batch {batch} has {unit}; it is {state}.",
        effect="Nothing more is written by hand while it does.",
        todo="Wait until the batch has ended, or stop it at the screen.",
    )
