"""A backlog of many boxes drained into the hub's store, against the raw bulk load of these rows into these tables.

From frames as they came off the broker to receipts that are published: signature, chain, commit. The broker itself is
left out: it is another process, and no part of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench import Figure, Say
from bench.archive import bodies
from edge.core import frame
from edge.core.events import encode
from edge.core.record import ZERO_HASH, Row, row_hash
from edge.identity import DeviceKey, public_text
from edge.mqtt import Address, Message
from hub.receive import Receiver
from hub.store import ROWS_A_STATEMENT, open_store, utc_now
from hub.trust import Trust

ROUNDS = 3
BOXES = 8
ROWS_OF_A_BOX = 500 * ROWS_A_STATEMENT
NOW = utc_now()
UNDER_WAY = 8
"""Frames that a box sends ahead of receipts: what the hub finds waiting of each box."""


def measure(say: Say) -> list[Figure]:
    """Rows a second into the hub's store by one worker, and into its tables without anything else."""
    with TemporaryDirectory(dir="build") as name:
        folder = Path(name)
        say(f"making {BOXES} boxes with {ROWS_OF_A_BOX:,} rows each")
        keys = [DeviceKey(Ed25519PrivateKey.generate()) for _ in range(BOXES)]
        (folder / "devices").mkdir()
        for number, key in enumerate(keys):
            (folder / "devices" / f"box-{number}.pub").write_text(public_text(key.public))
        backlog = {bytes([number]) * 16: _rows(bytes([number]) * 16) for number in range(BOXES)}
        frames = [_frames(rows, journal, key) for (journal, rows), key in zip(backlog.items(), keys, strict=True)]
        gc.freeze()  # a hub does not hold the boxes' rows, and does not go through them again and again
        backlog_rows = BOXES * ROWS_OF_A_BOX
        drained, drained_cpu, alone, raw, raw_cpu, longest = [], [], [], [], [], []
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}")
            spent_s, cpu_s, longest_s = asyncio.run(_drain(folder / f"{round_}.db", folder / "devices", frames))
            drained.append(backlog_rows / spent_s)
            drained_cpu.append(backlog_rows / cpu_s)
            longest.append(longest_s)
            spent_s, *_ = asyncio.run(_drain(folder / f"{round_}-one.db", folder / "devices", frames[:1]))
            alone.append(ROWS_OF_A_BOX / spent_s)
            spent_s, cpu_s = _load(folder / f"{round_}.db", folder / f"{round_}-raw.db", list(backlog.values()))
            raw.append(backlog_rows / spent_s)
            raw_cpu.append(backlog_rows / cpu_s)
        return [
            Figure(f"drain of {BOXES} boxes, one worker", median(drained), "rows/s", raw=median(raw), at_least=0.35),
            Figure("the same, without the raw limit", median(drained), "rows/s", at_least=100_000),
            Figure("the same, of processor time", median(drained_cpu), "rows/s", raw=median(raw_cpu)),
            Figure("drain of one box", median(alone), "rows/s", raw=median(raw)),
            Figure("longest wait for a receipt", max(longest) * 1000, "ms"),
        ]


def _rows(journal: bytes) -> list[Row]:
    rows, previous, epoch = [], ZERO_HASH, b"e" * 16
    for seq, body in enumerate(bodies(ROWS_OF_A_BOX), 1):
        text = encode(body)
        previous = row_hash(journal, epoch, seq, previous, text)
        rows.append(Row(seq, epoch, previous, text))
    return rows


def _frames(rows: Sequence[Row], journal: bytes, key: DeviceKey) -> list[Message]:
    made, at, previous = [], 0, ZERO_HASH
    while at < len(rows):
        data, count = frame.make(
            rows[at : at + frame.ROWS_MAX], journal=journal, previous=previous, made_seq=len(rows), signer=key
        )
        made.append(Message(f"lineside/1/up/{key.fingerprint}/frames", data, retained=False))
        at += count
        previous = rows[at - 1].hash
    return made


class _Broker:
    """Takes receipts, and throws them away."""

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        del topic, payload, retain


async def _drain(path: Path, devices: Path, frames: Sequence[Sequence[Message]]) -> tuple[float, float, float]:
    """How long all took by the clock and of processor time, and the longest that one call did."""
    trust = Trust(devices)
    trust.refresh()
    longest_s = 0.0
    async with open_store(path, DeviceKey(Ed25519PrivateKey.generate())) as store:
        receiver = Receiver(store, trust, Address("127.0.0.1", 1, None))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for at in range(0, max(map(len, frames)), UNDER_WAY):
            waiting = [of_box[n] for n in range(at, at + UNDER_WAY) for of_box in frames if n < len(of_box)]
            call_s = time.perf_counter()
            await receiver.take(_Broker(), waiting)
            longest_s = max(longest_s, time.perf_counter() - call_s)
        spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        assert sum(chain.stored_seq for chain in await store.chains()) == ROWS_OF_A_BOX * len(frames)
    return spent_s, cpu_s, longest_s


def _load(made: Path, path: Path, backlog: Sequence[Sequence[Row]]) -> tuple[float, float]:
    """How long the same rows take into the same tables by SQLite alone, each box in one transaction, by the clock and
    of processor time."""
    with (
        contextlib.closing(sqlite3.connect(f"file:{made}?mode=ro", uri=True)) as like,
        contextlib.closing(sqlite3.connect(path)) as database,
    ):
        tables = [sql for (sql,) in like.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid")]
        database.executescript(";".join(["PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", *tables]))
        statement = "INSERT INTO row VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * ROWS_A_STATEMENT)
        lines = [
            [
                tuple(
                    value
                    for row in rows[at : at + ROWS_A_STATEMENT]
                    for value in (number, row.seq, row.hash, row.body, "B-1", "ValueRecorded", NOW)
                )
                for at in range(0, len(rows), ROWS_A_STATEMENT)
            ]
            for number, rows in enumerate(backlog)
        ]
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for of_box in lines:
            database.executemany(statement, of_box)
            database.commit()
        return time.perf_counter() - began_s, time.process_time() - began_cpu_s
