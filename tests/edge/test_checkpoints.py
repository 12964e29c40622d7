"""Checkpoints beside a journal: which are used, which are not, and that every way leads to the same head."""

from __future__ import annotations

import asyncio
import hashlib
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge import checkpoints
from edge.checkpoints import Keeper, prunable_seq, read_head
from edge.config import Config
from edge.core import checkpoint
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode, encode
from edge.core.line import SEMANTICS, STATE_SCHEMA, Book, Line, apply
from edge.core.record import ZERO_HASH, Row, row_hash
from edge.journal import JournalReader, open_journal
from tests.core.parts import PLANT
from tests.edge.conftest import running
from tests.simulation.line_model import Run

BOOK = Book(PLANT)
HISTORY = [decode(made.data) for made in Run(7).play().made]
AT = HISTORY[0].at


@dataclass
class Record:
    """Rows that chain, in memory, and checkpoints of their head in a folder."""

    folder: Path
    journal_id: bytes = bytes(16)
    made: list[Row] = field(default_factory=list)
    line: Line = field(default_factory=lambda: Line(BOOK))

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        return [row for row in self.made if row.seq > after_seq][:limit]

    def add(self, *bodies: RowBody) -> Record:
        for body in bodies:
            seq, data = self.line.seq + 1, encode(body)
            digest = row_hash(self.journal_id, bytes(16), seq, self.last_hash, data)
            self.made.append(Row(seq, bytes(16), digest, data))
            self.line = apply(self.line, decode(data))
        return self

    @property
    def last_hash(self) -> bytes:
        return self.made[-1].hash if self.made else ZERO_HASH

    def keep(self) -> Path:
        """The file alone: no row names it."""
        data = b"".join(checkpoint.parts(self.line, self.last_hash))
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{self.line.seq}-{hashlib.sha256(data).hexdigest()}.json"
        path.write_bytes(data)
        return path

    def name(self, path: Path) -> Path:
        seq, _, content = path.stem.partition("-")
        named = {"folded_seq": int(seq), "schema": STATE_SCHEMA, "semantics": SEMANTICS, "content": content}
        self.add(RowBody(ev.CheckpointMade(**named), AT, "lineside"))
        return path

    def read(self) -> tuple[Line, Path | None]:
        head = read_head(self, self.folder, BOOK, made_seq=self.line.seq)
        return head.line, head.checkpoint

    def every_row(self) -> Line:
        return read_head(self, self.folder / "none", BOOK, made_seq=0).line


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "checkpoints")


@pytest.fixture
def twice(record: Record) -> tuple[Record, Path, Path]:
    """A record with two usable checkpoints, the older first."""
    older = record.add(*HISTORY[:20]).name(record.keep())
    newer = record.add(*HISTORY[20:30]).name(record.keep())
    record.add(*HISTORY[30:40])
    return record, older, newer


@pytest.mark.parametrize("seed", range(12))
def test_checkpoint_and_tail_give_the_head_that_every_row_gives(seed: int, tmp_path: Path) -> None:
    chance, record, named = random.Random(seed), Record(tmp_path / "checkpoints"), None
    for body in (decode(made.data) for made in Run(seed).play().made):
        record.add(body)
        if chance.random() < 0.05:
            named = record.name(record.keep())
    assert record.read() == (record.line, named)
    assert record.every_row() == record.line


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def edited(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"running":true', b'"running":false', 1))


def edited_and_named_after_it(path: Path) -> None:
    """Whoever edits the file can give it the right name; no row names it."""
    data = path.read_bytes().replace(b'"running":true', b'"running":false', 1)
    path.unlink()
    seq = path.name.partition("-")[0]
    path.with_name(f"{seq}-{hashlib.sha256(data).hexdigest()}.json").write_bytes(data)


def renamed(path: Path) -> None:
    path.rename(path.with_name("9" + path.name))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [torn, edited, edited_and_named_after_it, renamed, a_folder, Path.unlink])
def test_a_checkpoint_that_is_not_what_was_kept_is_not_used(
    twice: tuple[Record, Path, Path], damage: Callable[[Path], None]
) -> None:
    record, older, newer = twice
    damage(newer)
    assert record.read() == (record.line, older)
    damage(older)
    assert record.read() == (record.line, None)


def test_a_checkpoint_of_another_version_is_not_used(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    older = record.add(*HISTORY[:10]).name(record.keep())
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "STATE_SCHEMA", STATE_SCHEMA + 1)
        record.add(*HISTORY[10:20]).name(record.keep())
    assert record.read() == (record.line, older)


def test_a_checkpoint_of_another_journal_is_not_used(record: Record, tmp_path: Path) -> None:
    other = Record(tmp_path / "checkpoints", journal_id=b"another journal.")
    other.add(*HISTORY[:10]).name(other.keep())
    record.add(*HISTORY[:20])
    assert record.read() == (record.line, None)


def later_life(record: Record) -> None:
    """The journal goes on from an earlier row than the checkpoint's, as after a restore."""
    record.add(*HISTORY[:10])
    kept, line = list(record.made), record.line
    record.add(*HISTORY[10:20]).name(record.keep())
    record.made, record.line = kept, line


def test_a_checkpoint_of_a_later_life_is_not_used(record: Record) -> None:
    later_life(record)
    assert record.read() == (record.line, None), "the journal is shorter than the checkpoint"
    record.add(*(RowBody(ev.RuntimeStopped(), AT, "lineside") for _ in range(30)))
    assert record.read() == (record.line, None), "the journal went another way"


def test_a_checkpoint_that_no_row_names_is_not_used(record: Record) -> None:
    record.add(*HISTORY[:10]).keep()
    assert record.read() == (record.line, None)
    record.add(*HISTORY[10:20])
    assert record.read() == (record.line, None)


def test_a_checkpoint_that_is_believed_without_its_row_is_found(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above sees the planted bug: a head that the rows do not give."""
    monkeypatch.setattr(checkpoints, "_is_named", lambda *_: True)
    with pytest.raises(AssertionError):
        test_a_checkpoint_of_a_later_life_is_not_used(record)


def test_damage_in_the_rows_after_a_checkpoint_is_said(twice: tuple[Record, Path, Path]) -> None:
    record, _, _ = twice
    last = record.made[-1]
    record.made[-1] = Row(last.seq, last.epoch, last.hash, last.body + b" ")
    with pytest.raises(LinesideError) as refusal:
        record.read()
    assert refusal.value.code == "journal.damaged"


def test_rows_may_go_up_to_the_older_of_two_checkpoints(twice: tuple[Record, Path, Path]) -> None:
    record, older, newer = twice
    line, until = record.line, prunable_seq(record, record.folder, BOOK)
    assert until == 20
    record.made = record.made[until:]
    assert record.read() == (line, newer)
    torn(newer)
    assert record.read() == (line, older), "the row that it ends with is gone, and the chain proves it"
    assert prunable_seq(record, record.folder, BOOK) == 0, "one alone is no reserve"
    torn(older)
    with pytest.raises(LinesideError) as refusal:
        record.read()
    assert refusal.value.code == "journal.pruned"


def test_a_long_fold_says_how_far_it_is(twice: tuple[Record, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    record, older, newer = twice
    older.unlink()
    newer.unlink()
    monkeypatch.setattr(checkpoints, "SAY_EVERY_S", 0.0)
    monkeypatch.setattr(checkpoints, "FOLD_ROWS", 30)
    said: list[str] = []
    read_head(record, record.folder, BOOK, made_seq=record.line.seq, say=said.append)
    assert said == [f"Reading the journal: row {seq} of {record.line.seq}." for seq in (30, record.line.seq)]


# In a runtime --------------------------------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 1)
    monkeypatch.setattr(checkpoints, "LOOK_EVERY_S", 0.0)


@pytest.fixture
def at_last(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[Path]:
    """Each checkpoint that a keeper has made; after three it makes no more."""
    made: asyncio.Queue[Path] = asyncio.Queue()
    count: list[Path] = []
    make = Keeper.make

    async def told(self: Keeper) -> Path:
        path = await make(self)
        made.put_nowait(path)
        count.append(path)
        if len(count) == 3:
            monkeypatch.setattr(checkpoints, "EVERY_ROWS", 10_000)
        return path

    monkeypatch.setattr(Keeper, "make", told)
    return made


def folded(box: Config, folder: Path) -> checkpoints.Head:
    with JournalReader(box.state_dir / "journal.db") as reader:
        return read_head(reader, folder, BOOK, made_seq=0)


@pytest.mark.usefixtures("often")
async def test_a_runtime_keeps_the_newest_two(box: Config, at_last: asyncio.Queue[Path]) -> None:
    folder = box.state_dir / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "5-half.partial").write_text("left by a power cut")
    async with running(box):
        made = [await at_last.get() for _ in range(3)]
    assert {*folder.iterdir()} == {*made[1:]}
    head = folded(box, folder)
    assert head.checkpoint is not None
    assert head.line == folded(box, folder / "none").line


async def test_the_next_start_reads_the_rows_after_it_alone(
    box: Config, at_last: asyncio.Queue[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 1)
    async with running(box):
        path = await at_last.get()
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 10_000)
    asked: list[int] = []
    rows = JournalReader.rows

    def counted(self: JournalReader, after_seq: int, limit: int) -> list[Row]:
        asked.append(after_seq)
        return rows(self, after_seq, limit)

    monkeypatch.setattr(JournalReader, "rows", counted)
    with JournalReader(box.state_dir / "journal.db") as reader:
        read_head(reader, path.parent, BOOK, made_seq=0)
    assert min(asked) == int(path.name.partition("-")[0])


@pytest.mark.usefixtures("often")
async def test_a_checkpoint_that_cannot_be_written_stops_nothing(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    box.state_dir.mkdir(exist_ok=True)
    (box.state_dir / "checkpoints").write_text("no folder")
    refused = asyncio.Event()
    monkeypatch.setattr(checkpoints._log, "warning", lambda *_: refused.set())
    async with running(box):
        await refused.wait()
    assert isinstance(decode(last_row(box)).event, ev.RuntimeStopped)


def last_row(box: Config) -> bytes:
    with JournalReader(box.state_dir / "journal.db") as reader:
        return reader.rows_back(1)[0].body


KILLED_BEFORE_ITS_ROW = """
import asyncio, os, signal, sys
from pathlib import Path
from edge import checkpoints, runtime
from edge.config import read_config
from edge.core import commands as cm
from edge.engine import Engine

submit = Engine.submit

async def killed(self, command):
    if isinstance(command, cm.NoteCheckpoint):
        os.kill(os.getpid(), signal.SIGKILL)
    return await submit(self, command)

Engine.submit = killed
checkpoints.EVERY_ROWS = 1
asyncio.run(runtime.run(read_config(Path(sys.argv[1])), asyncio.Event()))
"""


async def test_killed_between_the_file_and_its_row_the_file_is_not_used(
    box: Config, at_last: asyncio.Queue[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED_BEFORE_ITS_ROW, str(box.folder))
    assert await child.wait() == -signal.SIGKILL
    folder = box.state_dir / "checkpoints"
    (left,) = folder.iterdir()
    head = folded(box, folder)
    assert head.checkpoint is None
    assert head.line.running
    monkeypatch.setattr(checkpoints, "EVERY_ROWS", 1)
    async with running(box):
        made = await at_last.get()
    assert left not in folder.iterdir()
    assert folded(box, folder).checkpoint is not None
    assert made.parent == folder


async def test_a_journal_that_came_back_does_not_use_what_its_later_life_kept(tmp_path: Path) -> None:
    """With the real journal: rows, a copy, more rows and a checkpoint; then the copy takes the journal's place."""
    path, epoch, folder = tmp_path / "journal.db", tmp_path / "epoch", tmp_path / "checkpoints"
    async with open_journal(path, epoch) as journal:
        await journal.append(HISTORY[:10]).durable()
    copy = path.read_bytes()
    record = Record(folder)
    async with open_journal(path, epoch) as journal:
        await journal.append(HISTORY[10:20]).durable()
        with JournalReader(path) as reader:
            record.journal_id, record.line = reader.journal_id, read_head(reader, folder, BOOK, made_seq=20).line
            record.made = reader.rows(0, 100)
        kept = record.name(record.keep())
        await journal.append([decode(record.made[-1].body)]).durable()
    with JournalReader(path) as reader:
        assert read_head(reader, folder, BOOK, made_seq=21).checkpoint == kept
    path.write_bytes(copy)
    epoch.unlink()
    async with open_journal(path, epoch) as journal:
        assert journal.restored
        await journal.append(HISTORY[10:25]).durable()
        with JournalReader(path) as reader:
            head = read_head(reader, folder, BOOK, made_seq=25)
    assert (head.line.seq, head.checkpoint) == (25, None)
