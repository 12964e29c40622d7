"""The stand-alone verifier over a sealed journal, against reading its rows, and reading and hashing them, alone.

The whole command is measured, from its start to its exit, with all processes that it begins; memory is the most that
all of them together were seen to have. The raw limits are held against processor time, so that a shared machine decides
less.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import edge.verify
from bench import Figure, Say
from bench.journal import AT, BODY
from edge.core.events import RowBody, Sealed, encode
from edge.core.record import SEAL_DOMAIN, ZERO_HASH, row_hash, sealed_bytes
from edge.identity import DeviceKey
from edge.verify import CHUNK_ROWS

ROWS = 1_000_000
SEAL_EVERY = 256
ROUNDS = 3
MEMORY = ("Rss:", "Pss:")


def measure(say: Say) -> list[Figure]:
    """Rows a second: of processor time to both raw limits, and by the clock with two processes; memory."""
    with TemporaryDirectory(dir="build") as folder:
        path = Path(folder, "journal.db")
        say(f"writing a sealed journal of {ROWS:,} rows")
        _write(path, DeviceKey(Ed25519PrivateKey.generate()))
        fetched, hashed = [], []
        one, two = [], []
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}")
            fetched.append(_raw(path, lambda _body: None))
            hashed.append(_raw(path, _digest))
            one.append(_verify(path, 1))
            two.append(_verify(path, 2))
        worked = median(run.rows_per_cpu_s for run in one)
        clock = [run.rows_per_s for run in two]
        return [
            Figure("one process, of processor time, to reading", worked, "rows/s", raw=median(fetched)),
            Figure("the same, to reading and hashing", worked, "rows/s", raw=median(hashed)),
            Figure("one process, by the clock", median(run.rows_per_s for run in one), "rows/s"),
            Figure("two processes, by the clock", median(clock), "rows/s", at_least=500_000),
            Figure("two processes, best round", max(clock), "rows/s"),
            Figure("memory of one", max(run.share_mib for run in one), "MiB", at_most=64),
            Figure("memory of both, what they share once", max(run.share_mib for run in two), "MiB", at_most=64),
            Figure("their resident sizes added", max(run.resident_mib for run in two), "MiB"),
        ]


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _write(path: Path, key: DeviceKey) -> None:
    journal, epoch = bytes(range(16)), bytes(range(16, 32))
    with closing(sqlite3.connect(path)) as db:
        for sql in edge.verify.SCHEMA.values():
            db.execute(sql)
        db.execute("INSERT INTO meta VALUES('format', 1), ('journal', ?)", (journal,))
        head, rows = ZERO_HASH, []
        for seq in range(1, ROWS + 1):
            event = replace(BODY.event, command_id=f"c-{seq}")
            body = encode(replace(BODY, event=event))
            if seq % SEAL_EVERY == 0:
                signature = key.sign(SEAL_DOMAIN, sealed_bytes(journal, epoch, seq - 1, head)).hex()
                sealed = Sealed(
                    sealed_seq=seq - 1, sealed_hash=head.hex(), public_key=key.public.hex(), signature=signature
                )
                body = encode(RowBody(sealed, AT, "lineside"))
            head = row_hash(journal, epoch, seq, head, body)
            rows.append((seq, epoch, head, body))
            if len(rows) == 10_000 or seq == ROWS:
                db.executemany("INSERT INTO row VALUES(?,?,?,?)", rows)
                rows.clear()
        db.commit()


def _raw(path: Path, work: Callable[[bytes], object]) -> float:
    """All rows, in one process, in as many transactions as the verifier takes, a second of processor time."""
    begun_s = time.process_time()
    with closing(sqlite3.connect(path)) as db:
        for first in range(1, ROWS + 1, CHUNK_ROWS):
            for _, _, _, body in db.execute(
                "SELECT seq, epoch, hash, body FROM row WHERE seq >= ? ORDER BY seq LIMIT ?", (first, CHUNK_ROWS)
            ).fetchall():
                work(body)
    return ROWS / (time.process_time() - begun_s)


@dataclass(frozen=True, slots=True)
class _Run:
    rows_per_s: float
    rows_per_cpu_s: float
    share_mib: float
    resident_mib: float


def _verify(path: Path, processes: int) -> _Run:
    command = [sys.executable, edge.verify.__file__, str(path), "--json", "--processes", str(processes)]
    begun_s, begun_cpu_s = time.perf_counter(), _cpu_of_children_s()
    most = dict.fromkeys(MEMORY, 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            family = [_memory_kib(pid) for pid in _family(process.pid)]
            most = {name: max(most[name], sum(each[name] for each in family)) for name in MEMORY}
            time.sleep(0.05)
        took_s = time.perf_counter() - begun_s
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
    assert said["ok"]
    assert said["files"][0]["seals"] == ROWS // SEAL_EVERY
    took_cpu_s = _cpu_of_children_s() - begun_cpu_s
    return _Run(ROWS / took_s, ROWS / took_cpu_s, most["Pss:"] / 1024, most["Rss:"] / 1024)


def _cpu_of_children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _memory_kib(pid: int) -> dict[str, int]:
    found = dict.fromkeys(MEMORY, 0)
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return found
    return found | {line.split()[0]: int(line.split()[1]) for line in lines if line.startswith(MEMORY)}
