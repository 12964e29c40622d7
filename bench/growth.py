"""Memory, write-ahead log and speed while ten million rows go through the journal, beside a follower that reads.

Takes minutes and 5 GB in a temporary folder, so that it runs only when it is asked for by name."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from bench import Figure, Say
from bench.journal import BODY, GROUP
from edge.journal import READ_ROWS_MAX, WAL_PAGES_MAX, Journal, JournalReader, open_journal

ROWS = 10_000_000
APPENDERS = 4
LOOK_S = 0.5
PAGE_BYTES = 4096


def _resident_mib() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def _append(journal: Journal, until: int) -> None:
    bodies = [BODY] * GROUP
    while journal.head_seq < until:
        await journal.append(bodies).durable()


def _follow(path: Path, ended: Event) -> int:
    """Read every row in short transactions, as the follower does; returns how many were read."""
    seq = 0
    with JournalReader(path) as reader:
        while True:
            last = ended.is_set()
            rows = reader.rows(seq, READ_ROWS_MAX)
            if rows:
                seq = rows[-1].seq
            elif last:
                return seq
            else:
                ended.wait(0.01)


async def _measure(folder: Path, say: Say) -> list[Figure]:
    path = folder / "journal.db"
    log = folder / "journal.db-wal"
    found: list[tuple[int, float, float]] = []
    log_mib = 0.0
    ended = Event()
    async with open_journal(path, folder / "epoch") as journal:
        await journal.append([BODY]).durable()
        following = asyncio.create_task(asyncio.to_thread(_follow, path, ended))
        for million in range(1, 11):
            begun, until = time.perf_counter(), million * ROWS // 10
            appending = asyncio.gather(*(_append(journal, until) for _ in range(APPENDERS)))
            while not appending.done():
                await asyncio.wait({appending}, timeout=LOOK_S)
                log_mib = max(log_mib, log.stat().st_size / 2**20)
            await appending
            rate = ROWS / 10 / (time.perf_counter() - begun)
            found.append((million, _resident_mib(), rate))
            say(f"row {until:,}: {found[-1][1]:.1f} MiB, {rate:,.0f} rows/s, log {log_mib:.1f} MiB at most")
        ended.set()
        read = await following
    figures = [Figure(f"resident after {tenth} tenths of {ROWS:,} rows", mib, "MiB") for tenth, mib, _ in found]
    growth = found[-1][1] - found[0][1]
    return [
        *figures,
        Figure("   growth from the first tenth to the last", growth, "MiB", at_most=4),
        Figure("rows appended, slowest tenth", min(rate for _, _, rate in found), "rows/s"),
        Figure("rows that the follower read meanwhile", read, "rows"),
        Figure(
            f"write-ahead log, most (checkpoint wanted from {WAL_PAGES_MAX * PAGE_BYTES / 2**20:.0f} MiB)",
            log_mib,
            "MiB",
        ),
    ]


def measure(say: Say) -> list[Figure]:
    """The folder is on the disk of the working directory and is removed afterwards."""
    with TemporaryDirectory(dir="build", prefix="bench-") as folder:
        return asyncio.run(_measure(Path(folder), say))
