"""The journal's whole story against a list in memory: rows appended, power cut, archived, pruned, backed up, restored.

Whatever comes in whatever order, journal and archive together are the rows that were acknowledged, byte for byte.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import edge.journal
from edge.archive import Record, SegmentFile, segment_paths, write_segment
from edge.backup import back_up, restore
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.events import RowBody, RowsPruned
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.identity import DeviceKey
from edge.journal import Journal, JournalReader, open_journal, verify_journal
from tests.crash.disk import CrashDisk, Op, image
from tests.crash.runs import AT, WAYS, body

really_sync_folder = edge.journal._sync_folder
QUIET = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
FOUND = settings(QUIET, max_examples=60, phases=[Phase.generate])


@dataclass(frozen=True)
class Backup:
    """What was true when it was made: the rows, and how many were in the archive and out of the journal."""

    file: Path
    rows: tuple[Row, ...]
    archive: Path
    archived: int
    pruned: int


class Story(RuleBasedStateMachine):
    """`rows` is the truth: every row that was acknowledged, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ls-story-"))
        (self.folder / "archive").mkdir()
        self.key = DeviceKey.create(self.folder / "device.key")
        self.trusted = {fingerprint(self.key.public): self.key.public}
        self.rows: list[Row] = []
        self.archived = self.pruned = self.lives = 0
        self.backups: list[Backup] = []
        self.epochs: set[str] = set()
        self.state = self.folder / "state-0"
        self.state.mkdir()
        self.log: list[Op] = []
        self.begin()

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        async def working() -> None:
            await work()

        self.runner.run(working())

    # The box's life ------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the journal on a disk that remembers, with what is on it now as sure."""
        files = [path for path in self.state.iterdir() if path.name.startswith("journal.db")]
        self.log = [
            op
            for path in files
            if not path.name.endswith(("-shm", ".lock"))
            for op in (Op("write", path.name, 0, path.read_bytes()), Op("sync", path.name))
        ]
        self.stack = AsyncExitStack()
        disk = CrashDisk(log=self.log)

        def sync_folder(path: Path) -> None:
            disk.note(Op("folder", ""))
            really_sync_folder(path)

        async def opening() -> None:
            vfs = self.stack.enter_context(disk.mounted())
            self.stack.enter_context(mock.patch("edge.journal._sync_folder", sync_folder))
            where = (self.state / "journal.db", self.state / "epoch")
            self.journal: Journal = await self.stack.enter_async_context(open_journal(*where, vfs=vfs))

        self.run(opening)
        self.epochs.add(self.journal.epoch.hex())

    def end(self) -> None:
        self.run(self.stack.aclose)

    def new_state(self) -> Path:
        self.lives += 1
        return self.folder / f"state-{self.lives}"

    def config(self) -> Config:
        at = self.folder
        return Config(
            folder=at, box="B", state_dir=self.state, plant=at / "plant.yaml", recipes=at,
            directory=at / "directory.toml", device_key=at / "device.key", desk_socket=at / "desk.sock",
        )  # fmt: skip

    def append(self, bodies: list[RowBody]) -> None:
        """Append and wait; what was acknowledged is true."""

        async def appending() -> None:
            appended = self.journal.append(bodies)
            await appended.durable()
            self.rows += self.read(appended.first_seq - 1) if appended.is_durable else []

        self.run(appending)

    def read(self, after_seq: int) -> list[Row]:
        with JournalReader(self.state / "journal.db") as reader:
            return reader.rows(after_seq, 1_000_000)

    # What may happen -----------------------------------------------------------------------------------------------

    @rule(sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=12))
    def rows_are_made(self, sizes: list[int]) -> None:
        self.append([body(f"{len(self.rows)}-{n}", "x" * size) for n, size in enumerate(sizes)])

    @rule()
    def the_runtime_is_started_again(self) -> None:
        self.end()
        self.begin()

    @rule(waiting=st.integers(0, 5), how=st.sampled_from(WAYS), seed=st.integers(0, 2**16))
    def the_power_fails(self, waiting: int, how: str, seed: int) -> None:
        """Perhaps while rows that nobody was told of are written: of those a beginning may be there afterwards."""
        before = len(self.log)

        async def writing() -> None:
            for n in range(waiting):
                await self.journal.append([body(f"late {n}", "x" * 200)]).durable()

        self.run(writing)
        upto = random.Random(seed).randint(before, len(self.log))
        left = image(list(self.log), upto, how, seed)
        epoch = (self.state / "epoch").read_bytes()
        self.end()
        self.state = self.new_state()
        self.state.mkdir()
        for name, data in left.items():
            (self.state / name).write_bytes(data)
        (self.state / "epoch").write_bytes(epoch)
        self.begin()
        known = len(self.rows)
        found = self.read(self.pruned)
        assert found[: known - self.pruned] == self.rows[self.pruned :], "a row that was acknowledged is lost"
        assert len(found) <= known - self.pruned + waiting
        self.rows += found[known - self.pruned :]

    @rule(part=st.floats(0, 1))
    def rows_are_archived(self, part: float) -> None:
        if len(self.rows) == self.archived:
            return
        until = self.archived + max(1, round(part * (len(self.rows) - self.archived)))
        after = (self.archived, self.rows[self.archived - 1].hash if self.archived else ZERO_HASH)
        with JournalReader(self.state / "journal.db") as reader:
            made = write_segment(reader, self.folder / "archive", after=after, until_seq=until, signer=self.key)
        self.archived = made.last_seq

    @rule(part=st.floats(0, 1))
    def rows_are_pruned(self, part: float) -> None:
        """As the runtime does: a durable row says so before the first one goes. It alone may stay."""
        if self.archived <= self.pruned:
            return
        through = self.pruned + max(1, round(part * (self.archived - self.pruned)))
        said = RowsPruned(
            first_seq=self.pruned + 1,
            through_seq=through,
            through_hash=self.rows[through - 1].hash.hex(),
            safe="medium",
            receipt="",
            segments=[],
        )
        self.append([RowBody(said, AT, "")])
        self.run(lambda: self.journal.prune(through))
        self.pruned = through

    @rule()
    def a_backup_is_made(self) -> None:
        if not self.rows:
            return
        number = len(self.backups)
        file, archive = self.folder / f"{number}.tar", self.folder / f"archive-{number}"
        made = back_up(self.config(), file)
        assert made.head_seq == len(self.rows)
        shutil.copytree(self.folder / "archive", archive)
        self.backups.append(Backup(file, tuple(self.rows), archive, self.archived, self.pruned))

    @rule(chosen=st.integers(0, 1_000))
    def a_backup_is_restored(self, chosen: int) -> None:
        """Onto a new disk, with the archive as it was then; a new epoch begins, and later rows are gone."""
        if not self.backups:
            return
        backup = self.backups[chosen % len(self.backups)]
        self.end()
        self.state = self.new_state()
        restore(backup.file, self.state, self.key.public)
        shutil.rmtree(self.folder / "archive")
        shutil.copytree(backup.archive, self.folder / "archive")
        self.rows, self.archived, self.pruned = list(backup.rows), backup.archived, backup.pruned
        known = set(self.epochs)
        self.begin()
        assert self.journal.restored
        assert self.journal.epoch.hex() not in known, "a restored journal goes on in a former epoch"

    # What must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def journal_and_archive_are_the_rows(self) -> None:
        if not self.rows:
            return
        found: list[Row] = []
        with Record(self.state / "journal.db", self.folder / "archive", self.trusted) as record:
            while part := record.rows(len(found), 1_000_000):
                found += part
            assert record.kept_from() == self.pruned + 1, "what is in the journal is not what was left in it"
            paths = segment_paths(self.folder / "archive", record.journal_id)
        assert found == self.rows, "journal and archive are not the rows that were acknowledged"
        in_segments = [row for _, path in paths for row in self.rows_in(path)]
        assert in_segments == self.rows[: self.archived], "the segments are not the rows that were archived"
        report = verify_journal(self.state / "journal.db", expect_head=(self.rows[-1].seq, self.rows[-1].hash))
        assert report.ok, report.fault

    def rows_in(self, path: Path) -> list[Row]:
        with SegmentFile(path, self.trusted) as file:
            return file.rows(file.segment.first_seq - 1, 1_000_000)

    def teardown(self) -> None:
        self.end()
        self.runner.close()
        shutil.rmtree(self.folder)


def test_whatever_happens_journal_and_archive_are_the_rows_that_were_acknowledged() -> None:
    run_state_machine_as_test(Story, settings=QUIET)


really_prune = Journal.prune


async def one_too_many(self: Journal, through_seq: int) -> None:
    """Planted: a row goes that is not said to go."""
    await really_prune(self, min(through_seq + 1, self.head_seq - 1))


@pytest.mark.parametrize(
    ("target", "bug"),
    [("edge.journal.SYNCHRONOUS", "OFF"), ("edge.journal.Journal.prune", one_too_many)],
    ids=["no sync at a commit", "a row too many is pruned"],
)
def test_planted_bugs_are_found(target: str, bug: object) -> None:
    with (
        mock.patch(target, bug),
        pytest.raises(
            (AssertionError, LinesideError), match=r"lost|rows_absent|not what was left|acknowledged|missing|fault"
        ),
    ):
        run_state_machine_as_test(Story, settings=FOUND)
