"""Process values in a backup: what a running box has stored comes back, and what the copy missed is named."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import pytest

import edge.backup as backups
from edge.backup import back_up, drill, restore, unpack
from edge.config import Config
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode
from edge.core.line import Book, Line
from edge.history import CLOSED, OPEN, PACKED, SEALED, HistoryReader, Verified, settle, verify_values
from edge.identity import DeviceKey
from edge.journal import Journal, JournalReader, extended, open_journal
from tests.backup.test_backup import refused
from tests.backup.test_backup_command import lineside
from tests.history_values.test_history import AT, PLANT, Box, packed, values

VALUES = "history.db"
TAGS = ("A.level", "A.count", "B.flow", "B.word")


class Line1(Box):
    """A box's values while its batch runs, each window's row in the box's own journal."""

    def __init__(self, state: Path, journal: Journal) -> None:
        super().__init__(state / VALUES)
        self.journal = journal

    async def submit(self, command: cm.Command) -> None:
        await super().submit(command)
        await self.journal.append(decide(Line(Book(PLANT)), command, Now(AT, lambda _: None))).durable()

    def run(self, seconds: int) -> None:
        """Readings, one flush."""
        first = (self.now_us // 1_000_000) % 100_000
        for index in range(seconds):
            self.second(first + index)
        self.flush()


class Kept:
    """What of a journal `verify_values` reads."""

    def __init__(self, reader: JournalReader) -> None:
        self.rows = reader.rows

    def kept_from(self) -> int:
        return 1


@asynccontextmanager
async def storing(config: Config) -> AsyncIterator[Line1]:
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        line = Line1(config.state_dir, journal)
        yield line
        line.cut()


def fresh_values(config: Config) -> None:
    for left in ("", "-wal", "-shm"):
        (config.state_dir / f"{VALUES}{left}").unlink(missing_ok=True)


def verified(config: Config) -> Verified:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return verify_values(config.state_dir / VALUES, Kept(reader))


def states(path: Path) -> list[int]:
    with HistoryReader(path) as reader:
        return reader.states()


def named(config: Config) -> set[int]:
    """The windows that the journal names."""
    with JournalReader(config.state_dir / "journal.db") as reader:
        events = [decode(row.body).event for row in reader.rows_of_kind("ValuesSealed")]
    return {event.window for event in events if isinstance(event, ev.ValuesSealed)}


async def continued(config: Config) -> None:
    """The next start of the runtime: it says where it came from, and closes and seals what was open."""
    with JournalReader(config.state_dir / "journal.db") as reader:
        last = reader.rows_back(1)[0]
    row = ev.JournalContinued(
        epoch=last.epoch.hex(), last_seq=last.seq, last_hash=last.hash.hex(),
        backup_seq=last.seq, mirror_seq=None, hub_seq=None, heard_seq=None,
    )  # fmt: skip
    async with storing(config) as line:
        await line.journal.append([RowBody(row, AT, "lineside")]).durable()
        line.now_us += 3_600_000_000
        await line.to_the_end()


async def meanwhile(work: Callable[[], Any], between: Callable[[], Any]) -> None:
    """Run `work` beside the loop, and `between` on it when the values were copied and the journal not yet."""
    loop, really = asyncio.get_running_loop(), backups.copy_journal

    def copying(*arguments: Any, **named: Any) -> Any:
        asyncio.run_coroutine_threadsafe(between(), loop).result(20)
        return really(*arguments, **named)

    with mock.patch.object(backups, "copy_journal", copying):
        await asyncio.to_thread(work)


async def test_the_values_of_a_running_batch_come_back(box: Config, spare: Config, tmp_path: Path) -> None:
    fresh_values(box)
    out = tmp_path / "box.tar"
    async with storing(box) as line:
        line.run(60)
        await line.to_the_end()
        packed(line.path)
        line.run(60)
        await line.to_the_end()
        line.run(60)  # this window is open
        at_backup = {tag: values(line.path, tag) for tag in TAGS}
        assert states(line.path) == [PACKED, SEALED, OPEN]
        said: set[str] = set()
        manifest = await asyncio.to_thread(back_up, box, out, progress=lambda what, *_: said.add(what))
        line.run(60)  # the box goes on
    assert manifest.values
    assert [entry.name for entry in manifest.files[:3]] == ["journal.db", "vault.db", VALUES]
    restore(out, spare.state_dir, DeviceKey.load(box.device_key).public)
    assert states(spare.state_dir / VALUES) == [PACKED, SEALED, OPEN]
    await continued(spare)
    assert {tag: values(spare.state_dir / VALUES, tag) for tag in TAGS} == at_backup
    assert len(at_backup["A.level"]) == 180
    result = verified(spare)
    assert (result.ok, result.windows, result.anchored, result.missing) == (True, 3, 3, ())
    tried = await asyncio.to_thread(drill, out, DeviceKey.load(box.device_key).public)
    assert tried.values
    assert (tried.values.samples, tried.values.findings) == (480, ())


async def test_a_window_that_was_closed_during_the_backup_is_named_as_missing_and_its_values_are_there(
    box: Config, spare: Config, tmp_path: Path
) -> None:
    fresh_values(box)
    out = tmp_path / "box.tar"
    async with storing(box) as line:
        line.run(60)
        first = values(line.path, "A.level")

        async def close() -> None:
            line.run(60)
            await line.to_the_end()

        await meanwhile(lambda: back_up(box, out), close)
    key = DeviceKey.load(box.device_key).public
    unpack(out, tmp_path / "u", key)
    assert states(tmp_path / "u" / VALUES) == [OPEN], "the copy was made before"
    restore(out, spare.state_dir, key)
    (lost,) = named(spare)
    await continued(spare)
    result = verified(spare)
    assert result.ok, "nothing contradicts a row"
    assert [(each.windows, each.first, each.lost) for each in result.missing] == [(1, lost, True)]
    assert "not in what was restored" in str(result.missing[0])
    assert values(spare.state_dir / VALUES, "A.level") == first
    with mock.patch.object(backups, "settle"):  # planted: the open window keeps its id
        (tmp_path / "again").mkdir()
        again = tmp_path / "again" / "state"
        restore(out, again, key)
    spare_again = spare.model_copy(update={"state_dir": again})
    await continued(spare_again)
    assert verified(spare_again).findings, "the row and what is stored differ"


async def test_a_window_whose_row_came_during_the_backup_waits_for_none(
    box: Config, spare: Config, tmp_path: Path
) -> None:
    fresh_values(box)
    out = tmp_path / "box.tar"
    async with storing(box) as line:
        line.refuses = "journal.full"
        line.run(60)
        await line.to_the_end()
        assert states(line.path) == [CLOSED]

        async def seal() -> None:
            line.refuses = ""
            await line.to_the_end()

        await meanwhile(lambda: back_up(box, out), seal)
    restore(out, spare.state_dir, DeviceKey.load(box.device_key).public)
    assert states(spare.state_dir / VALUES) == [SEALED]
    await continued(spare)
    with JournalReader(spare.state_dir / "journal.db") as reader:
        assert len(list(reader.rows_of_kind("ValuesSealed"))) == 1, "its row is not made twice"
    assert (verified(spare).ok, verified(spare).missing) == (True, ())


async def test_planted_bug_values_that_are_copied_after_the_journal_are_seen(
    box: Config, spare: Config, tmp_path: Path
) -> None:
    fresh_values(box)
    out, really = tmp_path / "box.tar", backups.copy_journal
    async with storing(box) as line:
        line.run(60)
        loop = asyncio.get_running_loop()

        def journal_first(source: Path, target: Path, **more: Any) -> Any:
            copied = really(source, target, **more)
            asyncio.run_coroutine_threadsafe(line.to_the_end(), loop).result(20)
            with HistoryReader(line.path) as reader:
                reader.copy(target.with_name(VALUES))
            return copied

        with (
            mock.patch.object(backups, "copy_journal", journal_first),
            mock.patch.object(backups, "_copy_values", return_value=True),
        ):
            await asyncio.to_thread(back_up, box, out)
    restore(out, spare.state_dir, DeviceKey.load(box.device_key).public)
    await continued(spare)
    assert verified(spare).anchored < verified(spare).windows, "a window that is sealed by no row"


async def test_rows_that_were_fetched_count_too(box: Config, spare: Config, tmp_path: Path) -> None:
    """The tail names windows that closed long after the backup."""
    fresh_values(box)
    out, key = tmp_path / "box.tar", DeviceKey.load(box.device_key).public
    async with storing(box) as line:
        line.run(60)
        first = values(line.path, "A.level")
        await asyncio.to_thread(back_up, box, out)
        line.run(60)
        await line.to_the_end()
        line.run(60)
        await line.to_the_end()

    def tail(journal: Path) -> None:
        with JournalReader(box.state_dir / "journal.db") as reader, extended(journal) as rows:
            rows.add(reader.rows(rows.seq, 1_000))

    restore(out, spare.state_dir, key, complete=tail)
    await continued(spare)
    result = verified(spare)
    assert (result.ok, sum(each.windows for each in result.missing)) == (True, 2)
    assert values(spare.state_dir / VALUES, "A.level") == first


async def test_without_values_and_before_there_are_any(box: Config, spare: Config, tmp_path: Path) -> None:
    fresh_values(box)
    assert not back_up(box, tmp_path / "none.tar").values
    async with storing(box) as line:
        line.run(60)
        await line.to_the_end()
    out = tmp_path / "without.tar"
    made = lineside("backup", out, "--box", box.folder, "--without-values")
    assert (made.returncode, "It holds no process values." in made.stdout) == (0, True), made.stderr
    tried = lineside("restore", out, spare.folder, "--drill")
    assert (tried.returncode, "No process values are in it." in tried.stdout) == (0, True), tried.stderr
    done = lineside("restore", out, spare.folder)
    assert (done.returncode, "No process values were in the backup." in done.stdout) == (0, True), done.stderr
    assert not (spare.state_dir / VALUES).exists()
    (lost,) = named(spare)
    await continued(spare)
    assert [(each.first, each.lost) for each in verified(spare).missing] == [(lost, True)]


async def test_a_drill_names_values_that_do_not_hold(box: Config, spare: Config, tmp_path: Path) -> None:
    fresh_values(box)
    async with storing(box) as line:
        line.run(60)
        await line.to_the_end()
    db = apsw.Connection(str(box.state_dir / VALUES))
    db.execute("UPDATE leaf SET samples = samples + 1")
    db.close()
    out = tmp_path / "box.tar"
    back_up(box, out)
    tried = lineside("restore", out, spare.folder, "--drill", "--json")
    assert tried.returncode == 1, tried.stderr
    facts = json.loads(tried.stdout)
    assert not facts["ok"]
    assert {finding["tag"] for finding in facts["findings"]} == set(TAGS)


def test_space_is_needed_for_values_too_and_a_file_that_holds_none_is_refused(box: Config, tmp_path: Path) -> None:
    path = box.state_dir / VALUES
    fresh_values(box)
    with path.open("wb") as file:
        file.truncate(2**43)
    refused("backup.no_space", lambda: back_up(box, tmp_path / "o.tar"))
    assert back_up(box, tmp_path / "without.tar", with_values=False).sealed == 2
    chance = random.Random(7)
    path.write_bytes(chance.randbytes(20_000))
    assert "--without-values" in refused("backup.values", lambda: back_up(box, tmp_path / "o.tar")).todo
    assert not (tmp_path / "o.tar").exists()


def test_noise_is_settled_in_words(tmp_path: Path) -> None:
    chance, path = random.Random(7), tmp_path / VALUES
    for size in (1, 100, 4_096, 20_000):
        path.write_bytes(b"SQLite format 3\0" + chance.randbytes(size))
        with pytest.raises(LinesideError, match=r"values\."):
            settle(path, frozenset())
