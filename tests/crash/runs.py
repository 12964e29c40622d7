"""Runs of a journal that the crash tests, and longer campaigns, look at from every side."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import apsw

import edge.journal
from edge.core.errors import LinesideError
from edge.core.events import RowBody, ValueRecorded
from edge.core.record import Row
from edge.core.terms import ClockQuality, Stamp
from edge.journal import JournalReader, open_journal, verify_journal
from tests.crash.disk import CrashDisk, Op, image

AT = Stamp("2026-11-21T12:00:00.000000Z", ClockQuality.SYNCED, 1.5, "0123456789abcdef0123456789abcdef")
WAYS = ("drop", "keep", "mix", "tear")


def body(name: str, text: str = "") -> RowBody:
    return RowBody(
        ValueRecorded(
            batch="B-0001",
            step="040",
            name=name,
            value=37.5,
            unit="degC",
            source=text,
            quality="good",
            low=None,
            high=None,
            within=True,
        ),
        AT,
        "ana",
    )


@dataclass(frozen=True)
class Acknowledged:
    """A mark: the caller was told that rows up to `seq` are durable."""

    seq: int
    hash: bytes


async def run(folder: Path, disk: CrashDisk, *, groups: int = 14) -> None:
    """Open, append groups of several sizes, close; twice. Each acknowledgement is a mark in the disk's log."""

    def sync_folder(path: Path) -> None:
        disk.note(Op("folder", ""))
        really_sync_folder(path)

    really_sync_folder = edge.journal._sync_folder
    with disk.mounted() as vfs, mock.patch.object(edge.journal, "_sync_folder", sync_folder):
        for part in range(2):
            async with open_journal(folder / "journal.db", folder / "epoch", vfs=vfs) as journal:
                disk.mark("opened")
                if journal.durable_seq:
                    disk.mark(Acknowledged(journal.durable_seq, journal.durable_hash))
                for group in range(groups):
                    appended = journal.append([body(f"{part}-{group}-{i}", "x" * 700) for i in range(1 + group % 4)])
                    await appended.durable()
                    disk.mark(Acknowledged(appended.last_seq, appended.last_hash))


@dataclass(frozen=True)
class Loss:
    """A power failure after which the record was not what had been promised."""

    upto: int
    how: str
    seed: int
    why: str


async def run_again(folder: Path, disk: CrashDisk, at: int, *, sync_failed: bool) -> CrashDisk:
    """The process ended at op `at`, the system went on, and the journal was run once more from what the page
    cache holds. With `sync_failed` the sync at `at` had failed: the system takes what was to be synced for
    written, reads show it, and no later sync writes it."""
    log = disk.log[:at]
    for name, data in image(log, at, "keep", 0).items():
        (folder / name).write_bytes(data)
    if sync_failed:
        file = disk.log[at].file
        synced = max((i for i, op in enumerate(log) if op.what == "sync" and op.file == file), default=-1)
        log = [op for i, op in enumerate(log) if op.file != file or i <= synced]
    again = CrashDisk(log=log)
    await run(folder, again, groups=2)
    return again


async def losses(
    folder: Path,
    log: list[Op],
    seeds: Iterable[int],
    *,
    start: int = 0,
    step: int = 1,
    each: Callable[[], None] = lambda: None,
) -> list[Loss]:
    """Every crash point of the log (from `start`, every `step`th), in every way, for every seed: what was lost.
    `each` is called once for each state that the disk may be left in."""
    found = []
    at = folder / "after-crash"
    epoch = (folder / "epoch").read_bytes()
    seeds = list(seeds)
    for upto in range(start, len(log) + 1, step):
        marks = [op.mark for op in log[:upto] if op.what == "mark"]
        told = [mark for mark in marks if isinstance(mark, Acknowledged)]
        for how in WAYS:
            for seed in seeds if how in ("mix", "tear") else seeds[:1]:
                each()
                shutil.rmtree(at, ignore_errors=True)
                at.mkdir()
                for name, data in image(log, upto, how, seed).items():
                    (at / name).write_bytes(data)
                if marks:
                    (at / "epoch").write_bytes(epoch)
                    why = _fault_after_crash(at / "journal.db", told[-1] if told else None)
                else:
                    why = await _fault_when_begun_again(at)
                if why:
                    found.append(Loss(upto, how, seed, why))
    return found


def _fault_after_crash(path: Path, told: Acknowledged | None) -> str:
    try:
        report = verify_journal(path, expect_head=(told.seq, told.hash) if told else None)
    except LinesideError as error:
        return str(error)
    return "" if report.ok else str(report.fault)


async def _fault_when_begun_again(folder: Path) -> str:
    """Power failed while the journal was being made: it must be possible to make it now."""
    try:
        async with open_journal(folder / "journal.db", folder / "epoch") as journal:
            await journal.append([body("first")]).durable()
    except LinesideError as error:
        return str(error)
    return ""


async def losses_after_a_second_run(
    folder: Path,
    chance: random.Random,
    *,
    sync_failed: bool,
    points: int = 10,
    seeds: Iterable[int] = (0,),
    each: Callable[[], None] = lambda: None,
) -> list[Loss]:
    """A kill, or a failed sync, at sampled points of a run; then a second run, and the power fails in that."""
    first = folder / "first"
    first.mkdir()
    disk = CrashDisk()
    await run(first, disk, groups=6)
    opened = next(i for i, op in enumerate(disk.log) if op.mark == "opened")
    possible = [i for i, op in enumerate(disk.log) if i > opened and (op.what == "sync" or not sync_failed)]
    found = []
    for at in chance.sample(possible, points):
        again = folder / f"again-{at}"
        again.mkdir()
        (again / "epoch").write_bytes((first / "epoch").read_bytes())
        second = await run_again(again, disk, at, sync_failed=sync_failed)
        begun = [i for i, op in enumerate(second.log) if op.mark == "opened" and i >= at - 40]
        found += await losses(again, second.log, seeds, start=begun[-2], step=3, each=each)
    return found


async def operations(folder: Path, *, groups: int) -> int:
    """How many operations the disk sees in an undisturbed run."""
    disk = CrashDisk()
    folder.mkdir()
    await run(folder, disk, groups=groups)
    return len(disk.log)


async def refused_from(folder: Path, fail_at: int, error: type[apsw.Error], *, groups: int) -> str:
    """The disk refuses operation `fail_at` and every later one: the journal must stop in words, keep what was
    acknowledged, and go on when the disk is well again. Returns the refusal's code; fails when it does not hold."""
    disk = CrashDisk(fail_at=fail_at, error=error)
    refused = None
    try:
        await run(folder, disk, groups=groups)
    except LinesideError as stopped:
        refused = stopped
    assert disk.failed, fail_at
    assert refused is not None, f"operation {fail_at} failed and nobody was told"
    assert refused.code in ("journal.failed", "journal.cannot_open"), refused
    told = [op.mark for op in disk.log if isinstance(op.mark, Acknowledged)]
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        await journal.append([body("after")]).durable()
        expect = (told[-1].seq, told[-1].hash) if told else None
        report = verify_journal(folder / "journal.db", expect_head=expect)
    assert report.ok, (fail_at, report.fault)
    return refused.code


def flips(path: Path, rows: list[Row], chance: random.Random, count: int) -> Iterator[bool]:
    """Flip `count` single bits of the closed journal at `path`, one after the other: for each, whether verification
    found it. Fails when a flip that changed the record was not found, or was found without a reason."""
    whole = path.read_bytes()
    head = (rows[-1].seq, rows[-1].hash)
    for _ in range(count):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        report = verify_journal(path, expect_head=head)
        if report.ok:
            with JournalReader(path) as reader:  # the flip must have been in a place that holds nothing
                assert reader.rows(0, len(rows) + 1) == rows, f"bit {bit} of byte {at} changed the record unseen"
        else:
            assert report.fault is not None
            assert report.fault.why
        yield not report.ok
    path.write_bytes(whole)
