"""Row 12: another program takes the disk, in mid-batch or while the box is off, down to some free level."""

from __future__ import annotations

import random
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

from edge.core.room import FULL_BYTES, MIB
from tests.campaign import Part, Planted, Tally
from tests.disk.small_disk import (
    BLOCK_BYTES,
    WAIT_S_MAX,
    Box,
    fill_in_mid_batch,
    is_well_again,
    judge_journal,
    make_box,
    small_disk,
    stop_is_written,
)

LEVELS_A_SEED = 5
FREE_BYTES_MAX = 36 * MIB
HERE = Path(__file__).parents[1] / "disk"
PLANTED_WAIT_S = 15.0


@cache
def made_once() -> Path:
    """A box folder of this process: hashing PINs takes time."""
    # In memory of the process alone; the folder itself is as small as a test's.
    return make_box(Path(tempfile.mkdtemp(prefix="lineside-campaign-")) / "box")


def free_level(chance: random.Random) -> int:
    """Some free level in whole blocks: often nothing or a few blocks, and often close to the full level."""
    return chance.choice(
        (
            0,
            BLOCK_BYTES * chance.randint(0, 16),
            BLOCK_BYTES * chance.randint(0, FULL_BYTES // BLOCK_BYTES - 1),
            FULL_BYTES + MIB * chance.randint(1, 4),
            BLOCK_BYTES * chance.randint(0, FREE_BYTES_MAX // BLOCK_BYTES),
        )
    )


async def fill(seed: int, folder: Path, tally: Tally) -> None:
    """Some levels after another, on one disk; every fourth time the disk is taken while the box is off."""
    chance = random.Random(seed)
    levels = [free_level(chance) for _ in range(LEVELS_A_SEED)]
    await play_levels(folder, tally, [level for level in levels if abs(level - FULL_BYTES) >= MIB], chance)


async def planted_runtime(seed: int, folder: Path, tally: Tally, program: str, wait_s_max: float) -> None:
    await play_levels(folder, tally, [0], random.Random(seed), (str(HERE / program),), wait_s_max)


async def play_levels(
    folder: Path,
    tally: Tally,
    levels: list[int],
    chance: random.Random,
    program: tuple[str, ...] = ("-m", "edge"),
    wait_s_max: float = WAIT_S_MAX,
) -> None:
    with small_disk(folder) as mount:
        shutil.copytree(made_once(), mount / "b")
        # A commit can meet the full disk before the ballast is released: then it starts again, once a level.
        box = Box(mount / "b", program, wait_s_max, ends_max=1)
        try:
            for number, free_bytes in enumerate(levels):
                tally.fault()
                try:
                    await fill_once(box, f"B-{number}", free_bytes, switched_off=chance.random() < 0.25)
                except TimeoutError as error:
                    said = f"{free_bytes:,} bytes free: the box does not come back; it ended with {box.codes}"
                    raise AssertionError(said) from error
                box.codes.clear()
            assert await box.stop() == 0
            judge_journal(box)
        finally:
            box.make_room()
            await box.stop()


async def fill_once(box: Box, batch: str, free_bytes: int, *, switched_off: bool) -> None:
    if not switched_off:
        await fill_in_mid_batch(box, batch, free_bytes)
        return
    async with box.logged_in() as client:
        await box.start_batch(client, batch)
    assert await box.stop() == 0
    box.fill_until(free_bytes)
    if free_bytes < FULL_BYTES:
        await box.until_state(batch, "held")
    await stop_is_written(box, batch)
    box.make_room()
    await is_well_again(box)


FULL_DISK = Part(
    12,
    "disk",
    "another program takes the disk down to a random free level, in mid-batch or while the box is off",
    gate=10,
    full=500,
    inject=fill,
    planted={
        "no ballast is kept": Planted(
            partial(planted_runtime, program="no_ballast_runtime.py", wait_s_max=60.0), r"with \[74, 74"
        ),
        "a full disk stays full": Planted(
            partial(planted_runtime, program="never_well_runtime.py", wait_s_max=PLANTED_WAIT_S),
            r"come back; it ended with \[(74)?\]",
        ),
    },
)
