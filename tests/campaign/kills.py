"""Row 4: SIGKILL of real processes at random moments."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

from tests.campaign import Part, Planted, Tally
from tests.crash.kills import kill_writers
from tests.crash.runtime_kills import careless_and_judged, killed_and_judged

KILLS_A_SEED = 5
KILLS_A_BATCH = 20
"""A batch is over after some more than that."""


async def kill_writer(seed: int, folder: Path, tally: Tally, writer: str = "tests.crash.writer") -> None:
    kill_writers(folder, random.Random(seed), kills=KILLS_A_SEED, writer=writer, each=tally.fault)


WRITER = Part(
    4,
    "journal-writer",
    "SIGKILL of a process that appends to a journal",
    gate=50,
    full=1_000,
    inject=kill_writer,
    planted={
        "acknowledged before the commit": Planted(
            partial(kill_writer, writer="tests.crash.hasty_writer"), "AssertionError"
        )
    },
)


async def kill_runtime(seed: int, folder: Path, tally: Tally) -> None:
    """One batch with kills beside one without."""
    await killed_and_judged(folder, seed, KILLS_A_BATCH, tally.fault)


async def careless(seed: int, folder: Path, tally: Tally) -> None:
    del seed, tally
    await careless_and_judged(folder)


RUNTIME = Part(
    4,
    "runtime",
    "SIGKILL of the runtime in mid-batch, simulated reactor and pump as judges",
    gate=20,
    full=1_000,
    inject=kill_runtime,
    planted={"open writes are taken up again": Planted(careless, "was written 2 times for 1 intents")},
)
