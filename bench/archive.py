"""Archiving a journal, reading a segment back, and what an appender notices of rows that leave."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import Figure, Say, p99
from bench.journal import BODY
from edge.archive import SEGMENT_ROWS_MAX, verify_segment, write_segment
from edge.core.events import RowBody, ValueRecorded
from edge.core.housekeeping import PRUNE_ROWS_MAX
from edge.core.record import ZERO_HASH, fingerprint
from edge.identity import DeviceKey
from edge.journal import Journal, JournalReader, open_journal

ROUNDS = 3
APPENDS = 1_500
PARTS = 12


def measure(say: Say) -> list[Figure]:
    """Rows a second into a segment and out of it, bytes a row, and the wait of an append while rows leave."""
    with TemporaryDirectory(dir="build") as name:
        folder, signer = Path(name), DeviceKey(Ed25519PrivateKey.generate())
        trusted = {fingerprint(signer.public): signer.public}
        say(f"writing a journal of {SEGMENT_ROWS_MAX:,} rows")
        asyncio.run(_write(folder / "journal.db"))
        written, read = [], []
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}")
            begun_s = time.perf_counter()
            with JournalReader(folder / "journal.db") as reader:
                segment = write_segment(reader, folder, after=(0, ZERO_HASH), until_seq=SEGMENT_ROWS_MAX, signer=signer)
            written.append(segment.count / (time.perf_counter() - begun_s))
            begun_s = time.perf_counter()
            verify_segment(segment.path, trusted)
            read.append(segment.count / (time.perf_counter() - begun_s))
            segment.path.unlink()
        say(f"appending while {PARTS} times {PRUNE_ROWS_MAX:,} rows leave")
        alone, beside, leaves = asyncio.run(_append(folder / "journal.db"))
        return [
            Figure("archive: rows written, read back and verified", median(written), "rows/s"),
            Figure("archive: rows verified", median(read), "rows/s"),
            Figure("segment", segment.file_bytes / segment.count, "bytes/row", raw=segment.raw_bytes / segment.count),
            Figure("append while rows leave, p99", p99(beside) * 1000, "ms", raw=p99(alone) * 1000),
            Figure("append while rows leave, longest", max(beside) * 1000, "ms", raw=max(alone) * 1000),
            Figure(f"{PRUNE_ROWS_MAX:,} rows leave in", median(leaves) * 1000, "ms"),
        ]


def bodies(count: int) -> Iterator[RowBody]:
    """Rows that differ as those of a line do: in time, value and step."""
    chance = random.Random(count)
    for n in range(count):
        at = datetime(2026, 11, 21, tzinfo=UTC) + timedelta(seconds=n * 7, microseconds=chance.randrange(10**6))
        utc = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        stamp = replace(BODY.at, utc=utc, boottime_s=round(n * 7 + chance.random(), 6))
        assert isinstance(BODY.event, ValueRecorded)
        event = replace(BODY.event, value=round(chance.gauss(37, 0.2), 2), step=f"{chance.randrange(40) * 10:03}")
        yield RowBody(event, stamp, BODY.actor)


async def _write(path: Path) -> None:
    async with open_journal(path, path.with_name("epoch")) as journal:
        to_write = bodies(SEGMENT_ROWS_MAX)
        while some := list(islice(to_write, 1_024)):
            await journal.append(some).durable()


async def _append(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Waits of single appends alone and while parts leave one after the other, and how long each part took."""
    async with open_journal(path, path.with_name("epoch")) as journal:
        alone = await _waits(journal)
        leaving = asyncio.create_task(_prune(journal))
        beside = await _waits(journal, until=leaving)
        return alone, beside, await leaving


async def _waits(journal: Journal, until: asyncio.Task[list[float]] | None = None) -> list[float]:
    waits_s: list[float] = []
    while len(waits_s) < APPENDS if until is None else not until.done():
        begun_s = time.perf_counter()
        await journal.append([BODY]).durable()
        waits_s.append(time.perf_counter() - begun_s)
    return waits_s


async def _prune(journal: Journal) -> list[float]:
    took_s = []
    for part in range(1, PARTS + 1):
        begun_s = time.perf_counter()
        await journal.prune(part * PRUNE_ROWS_MAX)
        took_s.append(time.perf_counter() - begun_s)
        await asyncio.sleep(0.05)
    return took_s
