"""Row 4: SIGKILL of real processes at random moments."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial
from pathlib import Path

from tests.campaign import Part, Planted, Tally
from tests.crash.beside_kills import (
    FORGETFUL_DESK,
    FORGETFUL_FOLLOWER,
    HASTY_HUB,
    beside_killed_and_judged,
    screen_killed_and_judged,
)
from tests.crash.kills import kill_writers
from tests.crash.runtime_kills import (
    BACK_S_MAX,
    CART,
    CART_FULL,
    MAB_FULL,
    Process,
    careless_and_judged,
    killed_and_judged,
)

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
    await killed_and_judged(folder, seed, KILLS_A_BATCH, tally.fault, replace(CART, back_s_max=BACK_S_MAX))


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


KILLS_A_RECIPE = 200


async def kill_whole(seed: int, folder: Path, tally: Tally, process: Process) -> None:
    """One whole batch with that many kills beside one without."""
    await killed_and_judged(folder, seed, KILLS_A_RECIPE, tally.fault, process)


async def careless_whole(seed: int, folder: Path, tally: Tally, process: Process) -> None:
    del seed, tally
    await careless_and_judged(folder, process)


def whole(process: Process, what: str) -> Part:
    return Part(
        4,
        process.recipe,
        f"SIGKILL of the runtime again and again in a whole {what}, compared with a batch that nothing disturbs",
        gate=KILLS_A_RECIPE,
        full=KILLS_A_RECIPE,
        inject=partial(kill_whole, process=process),
        planted={
            "open writes are taken up again": Planted(
                partial(careless_whole, process=process), "was written 2 times for 1 intents"
            )
        },
    )


CART_B1 = whole(CART_FULL, "CART-B1 of twelve days")
MAB_FB = whole(MAB_FULL, "MAB-FB of fourteen days")

KILLS_BESIDE = 40
"""Of hub or follower in one batch at the most, which then goes on to its end."""
KILLS_AT_ENTRIES = 8


async def kill_follower(seed: int, folder: Path, tally: Tally) -> None:
    await beside_killed_and_judged(folder, seed, ("follower",), KILLS_BESIDE, tally.fault, to_the_end=True)


async def forgetful_follower(seed: int, folder: Path, tally: Tally) -> None:
    await beside_killed_and_judged(folder, seed, ("follower",), 1, tally.fault, program=FORGETFUL_FOLLOWER)


FOLLOWER = Part(
    4,
    "follower",
    "SIGKILL of the follower in mid-batch, hub, second medium and box compared",
    gate=10,
    full=1_000,
    inject=kill_follower,
    planted={"the copy goes on with the newest row": Planted(forgetful_follower, "does not follow row")},
)


async def kill_hub(seed: int, folder: Path, tally: Tally) -> None:
    await beside_killed_and_judged(folder, seed, ("hub",), KILLS_BESIDE, tally.fault, to_the_end=True)


async def hasty_hub(seed: int, folder: Path, tally: Tally) -> None:
    await beside_killed_and_judged(folder, seed, ("hub",), 1, tally.fault, program=HASTY_HUB)


HUB = Part(
    4,
    "hub",
    "SIGKILL of the hub in mid-batch, its receipts held against its rows",
    gate=10,
    full=1_000,
    inject=kill_hub,
    planted={"a receipt before the commit": Planted(hasty_hub, "gave a receipt for rows that it lost")},
)


async def kill_screen(seed: int, folder: Path, tally: Tally) -> None:
    await screen_killed_and_judged(folder, seed, KILLS_AT_ENTRIES, tally.fault)


async def forgetful_desk(seed: int, folder: Path, tally: Tally) -> None:
    await screen_killed_and_judged(folder, seed, 1, tally.fault, program=FORGETFUL_DESK)


SCREEN = Part(
    4,
    "screen",
    "SIGKILL of the screen while a value is typed or on its way",
    gate=8,
    full=1_000,
    inject=kill_screen,
    planted={"drafts are not kept": Planted(forgetful_desk, "a draft that was said to be saved is lost")},
)
