"""Rows 1 and 3: the power fails, or the disk refuses, at every operation of a journal."""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import apsw

import edge.journal
from tests.campaign import Part, Tally, planted
from tests.crash.disk import CrashDisk
from tests.crash.runs import losses, losses_after_a_second_run, operations, refused_from, run


async def cut(seed: int, folder: Path, tally: Tally) -> None:
    """Every fourth seed: a kill first, or a failed sync, then a second run in which the power fails."""
    chance = random.Random(seed)
    with mock.patch.object(edge.journal, "WAL_PAGES_MAX", chance.randint(6, 16)):
        if seed % 4 >= 2:
            found = await losses_after_a_second_run(
                folder, chance, sync_failed=seed % 4 == 3, points=4, seeds=[seed], each=tally.fault
            )
        else:
            disk = CrashDisk()
            await run(folder, disk, groups=chance.randint(2, 6))
            found = await losses(folder, disk.log, [2 * seed, 2 * seed + 1], each=tally.fault)
    for loss in found:
        tally.violated(f"{loss}")


async def at_once(_appended: object) -> None:
    """Planted: an acknowledgement that waits for nothing."""


POWER_CUT = Part(
    1,
    "power-cut",
    "power cut at every disk operation of the journal; unsynced writes dropped, kept, mixed, torn",
    gate=10_000,
    full=1_000_000,
    inject=cut,
    planted={
        "acknowledged before the commit": planted(cut, "Loss", {"edge.journal.Appended.durable": at_once}),
        "no sync at a commit": planted(cut, "Loss", {"edge.journal.SYNCHRONOUS": "NORMAL"}),
        "opened without settling": planted(cut, "Loss", {"edge.journal._settle_log": lambda _path, _vfs: None}),
    },
)


async def refuse(seed: int, folder: Path, tally: Tally) -> None:
    """EIO and ENOSPC from operation N on, for every N of one run."""
    chance = random.Random(seed)
    groups = 5 if seed == 0 else chance.randint(2, 9)
    with mock.patch.object(edge.journal, "WAL_PAGES_MAX", chance.randint(6, 16)):
        count = await operations(folder / "whole", groups=groups)
        for error in (apsw.IOError, apsw.FullError):
            for fail_at in range(count):
                at = folder / f"{error.__name__}-{fail_at}"
                at.mkdir()
                tally.fault()
                await refused_from(at, fail_at, error, groups=groups)


REFUSAL = Part(
    3,
    "journal-vfs",
    "EIO and ENOSPC at every disk operation of the journal, for good from there on",
    gate=1,
    full=20,
    inject=refuse,
    planted={
        "acknowledged before the commit": planted(
            refuse, "Fault|nobody was told", {"edge.journal.Appended.durable": at_once}
        )
    },
    unit="seeds",
)
