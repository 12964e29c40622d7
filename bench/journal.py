"""Durable append through the journal, against ready-made rows through raw apsw at the same grouping.

Twice: on this machine's disk as it is, and with a flush that takes 1 ms (`bench/slow.py`). A virtual
machine's flush can be so fast (60 µs) that the encoding and chaining of 100 rows (about 230 µs of Python) weighs
as much as the disk; then the ratio says how fast the processor is, and not what the journal adds to a disk.

Both copy their write-ahead log into the database from the same size on and at no other time, so that the timing of
either has its checkpoints in it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest import mock

import apsw

from bench import Figure, Say, p99
from bench.slow import DISK as SLOW_DISK
from bench.slow import on_slow_disk
from edge.core.events import RowBody, ValueRecorded, encode
from edge.core.terms import ClockQuality, Stamp
from edge.journal import WAL_PAGES_MAX, Journal, open_journal
from edge.runtime import SWITCH_S

ROUNDS = 7
GROUP = 100
CONCURRENT = 64
LAG_TICK_S = 0.001

AT = Stamp("2026-11-21T12:00:00.000000Z", ClockQuality.SYNCED, 123456.789, "0123456789abcdef0123456789abcdef")
BODY = RowBody(
    ValueRecorded(
        batch="B-0001",
        step="040",
        name="temperature",
        value=37.02,
        unit="degC",
        source="BR-1.temperature",
        quality="good",
        low=36.5,
        high=37.5,
        within=True,
    ),
    AT,
    "lineside",
)


class Raw:
    """The limit: rows whose bytes and hashes are ready, in the same table, one statement a commit."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"wal_autocheckpoint={WAL_PAGES_MAX}"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.execute("CREATE TABLE row(seq INTEGER PRIMARY KEY, epoch BLOB, hash BLOB, body BLOB)")
        self._seq = 0

    def rate(self, group: int, commits: int) -> float:
        """Rows a second."""
        sql = "INSERT INTO row VALUES" + ",".join(["(?,?,?,?)"] * group)
        epoch, digest, body = bytes(16), bytes(32), encode(BODY)
        ready = []
        for _ in range(commits):
            ready.append([x for i in range(1, group + 1) for x in (self._seq + i, epoch, digest, body)])
            self._seq += group
        begun = time.perf_counter()
        for flat in ready:
            self._connection.execute(sql, flat)
        took_s = time.perf_counter() - begun
        return group * commits / took_s

    def close(self) -> None:
        self._connection.close()


class Ours:
    """The same through the journal: encoded, chained, acknowledged on the loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.waits_s: list[float] = []
        self.lags_s: list[float] = []

    async def rate(self, group: int, appenders: int, appends: int) -> float:
        """Rows a second that `appenders` tasks reach, each awaiting one group before the next."""
        bodies = [BODY] * group
        self.waits_s, self.lags_s = [], []
        lag = asyncio.create_task(self._watch_lag())
        begun = time.perf_counter()
        await asyncio.gather(*(self._append(bodies, appends) for _ in range(appenders)))
        took_s = time.perf_counter() - begun
        lag.cancel()
        await asyncio.gather(lag, return_exceptions=True)
        return group * appenders * appends / took_s

    async def idle(self, ticks: int) -> float:
        """The loop's p99 lag when nothing is appended: what the machine's other work adds."""
        self.lags_s = []
        lag = asyncio.create_task(self._watch_lag())
        await asyncio.sleep(ticks * LAG_TICK_S)
        lag.cancel()
        await asyncio.gather(lag, return_exceptions=True)
        return p99(self.lags_s)

    async def _append(self, bodies: Sequence[RowBody], appends: int) -> None:
        for _ in range(appends):
            begun = time.perf_counter()
            await self._journal.append(bodies).durable()
            self.waits_s.append(time.perf_counter() - begun)

    async def _watch_lag(self) -> None:
        while True:
            due = time.perf_counter() + LAG_TICK_S
            await asyncio.sleep(LAG_TICK_S)
            self.lags_s.append(time.perf_counter() - due)


async def _measure(folder: Path, disk: str, scale: float, say: Say) -> list[Figure]:
    raw = Raw(folder / "raw.db")
    found: dict[str, list[float]] = {}

    async def note(name: str, measured: Awaitable[float] | float) -> None:
        found.setdefault(name, []).append(measured if isinstance(measured, float) else await measured)

    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        ours = Ours(journal)
        for number in range(ROUNDS):
            say(f"{disk}: round {number + 1} of {ROUNDS}")
            await note("idle lag", ours.idle(200))
            await note("raw 1", raw.rate(1, int(1500 * scale)))
            await note("1", ours.rate(1, 1, int(1500 * scale)))
            await note("64", ours.rate(1, CONCURRENT, int(120 * scale)))
            await note("64 wait", p99(ours.waits_s))
            await note("64 lag", p99(ours.lags_s))
            await note("raw 100", raw.rate(GROUP, int(300 * scale)))
            await note("100 x 1", ours.rate(GROUP, 1, int(300 * scale)))
            await note("100 x 4", ours.rate(GROUP, 4, int(150 * scale)))
            await note("100 lag", p99(ours.lags_s))
    raw.close()
    mid = {name: median(values) for name, values in found.items()}
    return [
        Figure(f"{disk}: p99 of the loop's lag, idle", mid["idle lag"] * 1000, "ms"),
        Figure(f"{disk}: one appender of one row", mid["1"], "rows/s", mid["raw 1"]),
        Figure(f"{disk}: {CONCURRENT} appenders of one row", mid["64"], "rows/s", mid["raw 1"], at_least=12),
        Figure("   p99 of the wait", mid["64 wait"] * 1000, "ms", at_most=8),
        Figure("   p99 of the loop's lag", mid["64 lag"] * 1000, "ms", at_most=2),
        Figure(f"{disk}: one appender, groups of 100", mid["100 x 1"], "rows/s", mid["raw 100"], at_least=0.55),
        Figure(f"{disk}: four appenders, groups of 100", mid["100 x 4"], "rows/s", mid["raw 100"], at_least=0.8),
        Figure("   p99 of the loop's lag", mid["100 lag"] * 1000, "ms", at_most=2),
    ]


def measure(say: Say) -> list[Figure]:
    """Medians of seven rounds, raw and ours in turn. The folder is on the disk of the working directory."""
    return measure_disk("this disk", say) + on_slow_disk("bench.journal", say)


def measure_disk(disk: str, say: Say) -> list[Figure]:
    """On the disk as this process finds it, which has a name."""
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)  # as in the runtime
    # no moment counts as idle, or a checkpoint of ours would fall into the timing of raw
    with mock.patch("edge.journal.IDLE_S", 3600.0), TemporaryDirectory(dir="build", prefix="bench-") as folder:
        figures = asyncio.run(_measure(Path(folder), disk, 0.5 if disk == SLOW_DISK else 1.0, say))
    sys.setswitchinterval(switch_s)
    return figures
