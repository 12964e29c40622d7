"""How soon a runtime is ready, and what it holds then, with a short and with a long journal.

The journals are written ready-made: batches of 200 rows, each with 30 steps, chained as the journal chains them, and a
checkpoint `TAIL_ROWS` rows before the end, as half way between two. All else is the real processes: clean starts, then
starts after SIGKILL with a write-ahead log that is nearly the longest and that the runtime itself has filled.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import apsw

from bench import Figure, Say
from bench.box import ANA, Process, log_in, running, start_batch
from edge import wire
from edge.checkpoints import read_head
from edge.core import checkpoint
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode, encode
from edge.core.line import ENDED_KEPT, SEMANTICS, STATE_SCHEMA, Book, Line, UsedIds, apply
from edge.core.plant import read_plant
from edge.core.record import row_hash
from edge.core.terms import ClockQuality, Stamp
from edge.desk_client import connect
from edge.journal import PAGE_BYTES, WAL_PAGES_MAX, JournalReader, open_journal
from provisioning.device import init_device

ROUNDS: Final = 5
KILLS: Final = 3
SHORT: Final = 10_000
LONG: Final = 1_000_000
LONGEST: Final = 10_000_000
TAIL_ROWS: Final = 5_000
WAL_BYTES: Final = WAL_PAGES_MAX * PAGE_BYTES * 7 // 8
"""Nearly the longest: from WAL_PAGES_MAX on the log is copied and begins again."""
FILL_S_MAX: Final = 300.0
STEPS: Final = 30
BATCH_ROWS: Final = 200

AT: Final = Stamp("2026-11-21T12:00:00.000000Z", ClockQuality.SYNCED, 123456.789, "0123456789abcdef0123456789abcdef")
ID: Final = "B-%09d"
RECIPE: Final = """\
recipe: START
version: "1"
title: A code to scan
procedure:
  - unit_procedure: Bench
    operations:
      - operation: Scan
        steps:
          - {id: "010", phase: scan, title: Lot, text: Scan it., name: lot, expect: lot, prefix: L-}
"""


KILLED_WRITER: Final = """
import asyncio, os, signal, sys
from pathlib import Path
from bench.journal import BODY
from edge.journal import open_journal

async def main(state, log_bytes):
    async with open_journal(state / "journal.db", state / "epoch") as journal:
        await journal.append([BODY]).durable()
        while (state / "journal.db-wal").stat().st_size < log_bytes:
            await journal.append([BODY] * 10).durable()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def _one_batch(seal: str) -> Iterator[ev.Event]:
    """The rows of a batch from its start to its end."""
    named: dict[str, Any] = {"batch": ID % 0}
    units = {"reactor": "BR-1"}
    yield ev.BatchStarted(
        order="ORD", patient="", recipe="R", version="1", seal=seal, semantics=1, units=units, speed=1.0, **named
    )
    values = (BATCH_ROWS - 2) // STEPS - 2
    for number in range(STEPS):
        step: dict[str, Any] = {**named, "step": f"{number:03}"}
        title = "Keep the temperature"
        yield ev.StepActivated(
            phase="hold", title=title, iteration=1, attempt=1, duration_s=3600.0, timeout_s=0.0, **step
        )
        for _ in range(values):
            yield ev.ValueRecorded(name="temperature", value=37.02, unit="degC", source="BR-1.temperature", **step)
        yield ev.StepCompleted(**step)
    for _ in range(BATCH_ROWS - 2 - STEPS * (values + 2)):
        yield ev.StepConfirmed(step="000", **named)
    yield ev.BatchStateChanged(was="running", now="complete", cause="recipe", reason="Every step is done.", **named)


@dataclass(slots=True)
class _Writer:
    """Ready-made rows, chained on to what a runtime wrote before."""

    journal_id: bytes
    epoch: bytes
    line: Line
    hash: bytes
    batches: int = 0
    ids: list[bytes] = field(default_factory=list)

    def rows(self, count: int) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """Whole batches, at least `count` rows. The head is folded from the last ones alone: before them each batch
        leaves nothing but its id."""
        ready = [encode(RowBody(event, AT, "lineside")) for event in _one_batch(next(iter(self.line.recipes)))]
        blank = (ID % 0).encode()
        seq, head, wanted = self.line.seq, self.hash, -(-count // BATCH_ROWS)
        for number in range(1, wanted + 1):
            name = (ID % (self.batches + number)).encode()
            self.ids.append(hashlib.sha256(name).digest()[:8])
            if wanted - number == ENDED_KEPT:
                self.line = replace(self.line, seq=seq + BATCH_ROWS, used=UsedIds(b"".join(sorted(self.ids))))
            for body in (made.replace(blank, name, 1) for made in ready):
                seq += 1
                head = row_hash(self.journal_id, self.epoch, seq, head, body)
                if wanted - number < ENDED_KEPT:
                    self.line = apply(self.line, decode(body))
                yield seq, self.epoch, head, body
        self.batches, self.hash = self.batches + wanted, head

    def journal(self, count: int, checkpoints: Path) -> Iterator[Iterator[tuple[int, bytes, bytes, bytes]]]:
        """About `count` rows, a checkpoint `TAIL_ROWS` before the end, and a clean stop."""
        yield self.rows(count - TAIL_ROWS)
        yield self.row(self.keep(checkpoints))
        yield self.rows(TAIL_ROWS)
        yield self.row(ev.RuntimeStopped())

    def row(self, event: ev.Event) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        body = RowBody(event, AT, "lineside")
        self.line, data = apply(self.line, body), encode(body)
        self.hash = row_hash(self.journal_id, self.epoch, self.line.seq, self.hash, data)
        yield self.line.seq, self.epoch, self.hash, data

    def keep(self, folder: Path) -> ev.CheckpointMade:
        """The checkpoint of this moment, and what its row says."""
        data = b"".join(checkpoint.parts(self.line, self.hash))
        content = hashlib.sha256(data).hexdigest()
        folder.mkdir(exist_ok=True)
        (folder / f"{self.line.seq}-{content}.json").write_bytes(data)
        return ev.CheckpointMade(folded_seq=self.line.seq, schema=STATE_SCHEMA, semantics=SEMANTICS, content=content)


@dataclass(slots=True)
class _Box:
    """A box with a journal of about `rows` rows, and what was measured of it."""

    folder: Path
    rows: int
    found: dict[str, list[float]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def journal(self) -> Path:
        return self.state / "journal.db"

    def note(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)

    def mid(self, name: str) -> float:
        return median(self.found[name])

    def running(self) -> AbstractAsyncContextManager[Process]:
        return running(self.folder, "edge", "run", "--box", str(self.folder))

    def head(self, checkpoints: Path) -> Line:
        plant = self.folder / "plant.yaml"
        book = Book(read_plant(plant.read_bytes(), str(plant)))
        with JournalReader(self.journal) as reader:
            return read_head(reader, checkpoints, book, made_seq=0).line

    async def make(self) -> None:
        """A box as it is after its first start, with many rows behind it and a clean stop."""
        init_device(self.folder, box="BOX-1", people=[ANA])
        (self.folder / "recipes" / "start.yaml").write_text(RECIPE)
        (self.folder / "lineside.toml").write_text('box = "BOX-1"\nrecipe_approval = "from_folder"\n')
        async with self.running():
            pass
        line = self.head(self.state / "none")
        with JournalReader(self.journal) as reader:
            writer = _Writer(reader.journal_id, reader.rows_back(1)[0].epoch, line, reader.head()[1])
        with closing(apsw.Connection(str(self.journal))) as connection:
            for pragma in ("journal_mode=OFF", "synchronous=OFF"):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            for rows in writer.journal(self.rows, self.state / "checkpoints"):
                connection.executemany("INSERT INTO row VALUES(?,?,?,?)", rows)
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
        os.sync()  # what is measured does not wait for what was made before it

    async def open(self, name: str) -> None:
        """How long the journal alone takes, with the reader that reads the head."""
        begun_s = time.perf_counter()
        async with open_journal(self.journal, self.state / "epoch") as journal:
            with JournalReader(self.journal) as reader:
                reader.rows_back(1)
                self.note(name, time.perf_counter() - begun_s)
            assert journal.head_seq

    async def start(self, name: str, batch: str = "") -> None:
        """Until it says that it is ready; and until the batch that was interrupted goes on, or a question is asked."""
        begun_s = time.perf_counter()
        async with self.running() as process:
            self.note(name, process.ready_s)
            self.note("MiB", process.memory.resident)
            if not batch:
                return
            async with connect(self.state / "desk.sock") as client:
                while True:
                    answer = await client.ask(wire.AskStatus(id=uuid4().hex))
                    (card,) = (one for one in answer["picture"]["batches"] if one["batch"] == batch)
                    if card["state"] == "running" or card["questions"]:
                        break
                self.note(f"{name}: batch", time.perf_counter() - begun_s)

    async def kill_with_large_log(self, number: int) -> None:
        """A person scans wrong codes until the runtime's write-ahead log is large; then SIGKILL."""
        batch, log = f"S-{number}", self.journal.with_name("journal.db-wal")
        async with self.running() as process, connect(self.state / "desk.sock") as client:
            await log_in(client)
            await start_batch(client, batch)
            async with asyncio.timeout(FILL_S_MAX):
                while log.stat().st_size < WAL_BYTES:
                    with suppress(LinesideError):  # it is not the lot that the step expects: a row says so
                        await client.ask(wire.ScanCode(id=uuid4().hex, batch=batch, step="010", text="X-1"))
            process.child.kill()
            await process.child.wait()

    async def kill_writer_with_large_log(self) -> None:
        """The same for the journal alone: rows are appended until its log is large; then SIGKILL."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED_WRITER, str(self.state), str(WAL_BYTES))
        )
        if await child.wait() != -signal.SIGKILL:
            raise SystemExit("The writer that should have been killed ended by itself.")


async def _measure(folder: Path, rows: int, say: Say) -> list[Figure]:
    short, long = _Box(folder / "short", SHORT), _Box(folder / "long", rows)
    for box in (short, long):
        say(f"writing {box.rows:,} rows")
        await box.make()
        box.note("bytes", box.journal.stat().st_size)
    if short.head(short.state / "checkpoints") != short.head(short.state / "none"):
        raise SystemExit("The checkpoint that was written ready-made is not the head that the rows give.")
    begun_s = time.perf_counter()
    seq = short.head(short.state / "none").seq
    refold = seq / (time.perf_counter() - begun_s)
    for number in range(ROUNDS):
        say(f"clean: round {number + 1} of {ROUNDS}")
        for box in (short, long):
            await box.open("clean open")
            await box.start("clean start")
    for number in range(KILLS):
        for box in (short, long):
            say(f"killed: {number + 1} of {KILLS}, {box.rows:,} rows")
            await box.kill_with_large_log(number)
            await box.start("killed start", f"S-{number}")
    for box in (short, long) * KILLS:
        await box.kill_writer_with_large_log()
        await box.open("killed open")
    figures = [Figure(f"journal of {rows:,} rows", long.mid("bytes") / 1024**2, "MiB")]
    killed = f"after SIGKILL, log of {WAL_BYTES / 2**20:.2f} MiB"
    for after, what in (("clean", "after a clean stop"), ("killed", killed)):
        ready, opened = f"{after} start", f"{after} open"
        figures += [
            Figure(f"start to ready {what}", long.mid(ready), "s", at_most=1.5),
            Figure(f"   to that with {SHORT:,} rows", long.mid(ready), "s", short.mid(ready), at_most=1.1),
            Figure("   of which the journal", long.mid(opened) * 1000, "ms", at_most=50),
            Figure(f"   with {SHORT:,} rows", short.mid(opened) * 1000, "ms"),
        ]
    resumed = long.mid("killed start: batch")
    return [
        *figures,
        Figure("after SIGKILL: the interrupted batch goes on, or is asked about", resumed, "s", at_most=1.5),
        Figure("resident when ready, to the short one", long.mid("MiB"), "MiB", short.mid("MiB"), at_most=1.05),
        Figure("without a usable checkpoint: rows read", refold, "rows/s"),
    ]


def _measured(rows: int, say: Say) -> list[Figure]:
    with TemporaryDirectory(dir="build", prefix="bench-") as folder:
        return asyncio.run(_measure(Path(folder).absolute(), rows, say))


def measure(say: Say) -> list[Figure]:
    """A million rows against ten thousand; medians."""
    return _measured(LONG, say)


def measure_longest(say: Say) -> list[Figure]:
    """Ten million rows against ten thousand: takes some minutes and 6 GB."""
    return _measured(LONGEST, say)
