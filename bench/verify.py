"""The stand-alone verifier over a sealed journal, against reading its rows, and reading and hashing them, alone.

The whole command is measured, from its start to its exit, with all processes that it begins; memory is the most that
all of them together were seen to have.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
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

ROWS = 1_000_000
SEAL_EVERY = 256
ROUNDS = 5
READ_ROWS = 128


def measure(say: Say) -> list[Figure]:
    """Rows a second of one process and of two, each to both raw limits, and the memory of all processes."""
    with TemporaryDirectory(dir="build") as folder:
        path = Path(folder, "journal.db")
        say(f"writing a sealed journal of {ROWS:,} rows")
        _write(path, DeviceKey(Ed25519PrivateKey.generate()))
        fetched, hashed, one, two = ([] for _ in range(4))
        most_one = most_two = 0.0
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}")
            fetched.append(_raw(path, lambda _body: None))
            hashed.append(_raw(path, hashlib.sha256))
            rate, memory = _verify(path, 1)
            one.append(rate)
            most_one = max(most_one, memory)
            rate, memory = _verify(path, 2)
            two.append(rate)
            most_two = max(most_two, memory)
        return [
            Figure("one process, to reading alone", median(one), "rows/s", raw=median(fetched)),
            Figure("one process, to reading and hashing", median(one), "rows/s", raw=median(hashed)),
            Figure("two processes, to reading and hashing", median(two), "rows/s", raw=median(hashed)),
            Figure("two processes", median(two), "rows/s", at_least=500_000),
            Figure("two processes, best round", max(two), "rows/s"),
            Figure("memory, one process", most_one, "MiB", at_most=64),
            Figure("memory, two processes", most_two, "MiB", at_most=64),
        ]


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
    """All rows, in one process, in as many transactions as the verifier takes."""
    begun_s = time.perf_counter()
    with closing(sqlite3.connect(path)) as db:
        for first in range(1, ROWS + 1, READ_ROWS):
            for _, _, _, body in db.execute(
                "SELECT seq, epoch, hash, body FROM row WHERE seq >= ? ORDER BY seq LIMIT ?", (first, READ_ROWS)
            ).fetchall():
                work(body)
    return ROWS / (time.perf_counter() - begun_s)


def _verify(path: Path, processes: int) -> tuple[float, float]:
    command = [sys.executable, edge.verify.__file__, str(path), "--json", "--processes", str(processes)]
    begun_s = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        most = 0
        while process.poll() is None:
            most = max(most, sum(map(_resident_kib, _family(process.pid))))
            time.sleep(0.05)
        took_s = time.perf_counter() - begun_s
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
    assert said["ok"]
    assert said["files"][0]["seals"] == ROWS // SEAL_EVERY
    return ROWS / took_s, most / 1024


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _family(int(child)))]


def _resident_kib(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
