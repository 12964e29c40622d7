"""A pruned journal: verified from its first row on, wherever the power failed; copied, opened and written on."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path
from unittest import mock

import apsw
import pytest

import edge.journal
from edge.core.errors import LinesideError
from edge.core.events import RowBody, RowsPruned
from edge.journal import Journal, JournalReader, copy_journal, open_journal, verify_journal
from tests.crash.disk import CrashDisk, Op, image
from tests.crash.runs import AT, WAYS, Acknowledged, body


def said(first_seq: int, through_seq: int, through_hash: bytes) -> RowBody:
    facts = {"safe": "medium", "receipt": "", "segments": []}
    event = RowsPruned(first_seq=first_seq, through_seq=through_seq, through_hash=through_hash.hex(), **facts)
    return RowBody(event, AT, "lineside")


async def fill(journal: Journal, rows: int) -> list[bytes]:
    """Append so many rows; gives their hashes."""
    appended = journal.append([body(f"n{n}", "x" * 200) for n in range(rows)])
    await appended.durable()
    with JournalReader(journal._path) as reader:
        return [row.hash for row in reader.rows(appended.first_seq - 1, rows)]


async def pruned(folder: Path, *, rows: int = 40, through: int = 25, goes: int | None = None) -> Path:
    """A journal of which a row says that rows leave up to `through`, and out of which rows up to `goes` went."""
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        hashes = await fill(journal, rows)
        if through:
            await journal.append([said(1, through, hashes[through - 1])]).durable()
        await journal.prune(through if goes is None else goes)
        await fill(journal, 5)
    return folder / "journal.db"


async def test_a_pruned_journal_holds_from_its_first_row_on_and_is_written_on(tmp_path: Path) -> None:
    path = await pruned(tmp_path)
    report = verify_journal(path)
    assert report.ok, report.fault
    assert (report.first_seq, report.rows, report.head_seq) == (26, 21, 46)
    async with open_journal(path, tmp_path / "epoch") as journal:
        assert journal.head_seq == 46
        hashes = await fill(journal, 10)
        await journal.append([said(26, 50, hashes[3])]).durable()
        await journal.prune(50)
    assert verify_journal(path).first_seq == 51


async def test_a_journal_of_which_only_the_row_that_says_so_stayed_is_opened_copied_and_written_on(
    tmp_path: Path,
) -> None:
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        hashes = await fill(journal, 40)
        await journal.append([said(1, 40, hashes[-1])]).durable()
        await journal.prune(40)
    copy_journal(tmp_path / "journal.db", tmp_path / "copy.db")
    for name in ("journal", "copy"):
        async with open_journal(tmp_path / f"{name}.db", tmp_path / f"{name}.epoch") as journal:
            assert journal.head_seq == 41
            await fill(journal, 3)
        report = verify_journal(tmp_path / f"{name}.db")
        assert report.ok, report.fault
        assert (report.first_seq, report.head_seq) == (41, 44)


@pytest.mark.parametrize("through", [39, 41])
async def test_a_single_row_that_says_nothing_of_the_row_before_it_is_not_opened(tmp_path: Path, through: int) -> None:
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        hashes = await fill(journal, 41)
        await journal.append([said(1, through, hashes[through - 1])]).durable()
        await journal.prune(41)
    if through == 41:
        with apsw.Connection(str(tmp_path / "journal.db")) as db:
            db.execute("UPDATE row SET hash = zeroblob(32)")
        db.close()
    with pytest.raises(LinesideError, match=r"journal\.damaged"):
        async with open_journal(tmp_path / "journal.db", tmp_path / "epoch"):
            pass


async def test_an_expected_head_is_met_before_and_after_the_first_row(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        hashes = await fill(journal, 40)
        await journal.append([said(1, 25, hashes[24])]).durable()
        await journal.prune(25)
    for seq in (25, 26, 40):
        assert verify_journal(tmp_path / "journal.db", expect_head=(seq, hashes[seq - 1])).ok
        assert not verify_journal(tmp_path / "journal.db", expect_head=(seq, bytes(32))).ok
    report = verify_journal(tmp_path / "journal.db", expect_head=(24, hashes[23]))
    assert report.fault is not None
    assert "was archived" in report.fault.why


@pytest.mark.parametrize(("through", "goes"), [(0, 25), (25, 26), (25, 30), (25, 24), (25, 1)])
async def test_rows_that_no_row_says_are_archived_are_missing(tmp_path: Path, through: int, goes: int) -> None:
    path = await pruned(tmp_path, through=through, goes=goes)
    fault = verify_journal(path).fault
    assert fault is not None
    assert fault.seq == goes + 1
    with pytest.raises(LinesideError, match=r"journal\.damaged"):
        copy_journal(path, tmp_path / "copy.db")


async def test_a_lie_about_the_hash_before_the_first_row_is_found(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        await fill(journal, 40)
        await journal.append([said(1, 25, bytes(32))]).durable()
        await journal.prune(25)
    fault = verify_journal(tmp_path / "journal.db").fault
    assert fault is not None
    assert fault.seq == 26


async def test_every_change_of_the_first_row_and_of_the_one_that_says_so_is_found(tmp_path: Path) -> None:
    path = await pruned(tmp_path)
    for seq in (26, 41):
        for bit in range(0, 200 * 8, 13):
            copy = tmp_path / "changed.db"
            shutil.copy(path, copy)
            with apsw.Connection(str(copy)) as db:
                ((blob,),) = db.execute("SELECT body FROM row WHERE seq = ?", (seq,))
                changed = bytearray(blob)
                changed[bit // 8] ^= 1 << bit % 8
                db.execute("UPDATE row SET body = ? WHERE seq = ?", (bytes(changed), seq))
            db.close()
            assert not verify_journal(copy).ok, (seq, bit)


async def test_a_copy_of_a_pruned_journal_is_one(tmp_path: Path) -> None:
    path = await pruned(tmp_path)
    copied = copy_journal(path, tmp_path / "copy.db")
    assert copied.seq == 46
    assert verify_journal(tmp_path / "copy.db").first_seq == 26
    async with open_journal(tmp_path / "copy.db", tmp_path / "other") as journal:
        assert journal.restored
        await fill(journal, 3)
    assert verify_journal(tmp_path / "copy.db").rows == 24


async def test_a_copy_and_a_verification_under_way_survive_that_rows_leave(tmp_path: Path) -> None:
    """Rows leave between any two reads: what comes out is whole, from a first row of before or after."""
    read = JournalReader.rows
    loop = asyncio.get_running_loop()
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        hashes = [*(await fill(journal, 800)), *(await fill(journal, 800))]
        for at in range(2, 1600, 23):
            await journal.append([said(1, at, hashes[at - 1])]).durable()
        first = 1
        for n, work in enumerate(("copy", "verify", "copy", "verify")):
            steps = iter(range(23 * (1 + 15 * n) + 2, 1600, 69))

            def leaving(reader: JournalReader, after_seq: int, limit: int, steps=steps) -> list[edge.journal.Row]:
                through = next(steps, 0)
                through = (through - 2) // 23 * 23 + 2
                if through > first:
                    asyncio.run_coroutine_threadsafe(journal.prune(through), loop).result()
                return read(reader, after_seq, min(limit, 100))

            with mock.patch.object(JournalReader, "rows", leaving):
                if work == "copy":
                    await asyncio.to_thread(copy_journal, tmp_path / "journal.db", tmp_path / f"{n}.db")
                else:
                    report = await asyncio.to_thread(verify_journal, tmp_path / "journal.db")
                    assert report.ok, report.fault
            if work == "copy":
                report = verify_journal(tmp_path / f"{n}.db")
                assert report.ok, report.fault
                assert report.head_seq == journal.head_seq
    assert verify_journal(tmp_path / "journal.db").first_seq > 1_000


async def run(folder: Path, disk: CrashDisk) -> None:
    """Append, prune and append again, three times; every acknowledgement is a mark in the disk's log."""

    def sync_folder(path: Path) -> None:
        disk.note(Op("folder", ""))
        really(path)

    really = edge.journal._sync_folder
    with disk.mounted() as vfs, mock.patch.object(edge.journal, "_sync_folder", sync_folder):
        async with open_journal(folder / "journal.db", folder / "epoch", vfs=vfs) as journal:
            first = 1
            for _ in range(3):
                hashes = await fill(journal, 20)
                disk.mark(Acknowledged(journal.durable_seq, journal.durable_hash))
                through = journal.head_seq - 6
                await journal.append([said(first, through, hashes[-7])]).durable()
                disk.mark(Acknowledged(journal.durable_seq, journal.durable_hash))
                await journal.prune(through)
                first = through + 1
                await fill(journal, 3)
                disk.mark(Acknowledged(journal.durable_seq, journal.durable_hash))


def lost(folder: Path, disk: CrashDisk) -> list[str]:
    found = []
    for upto in range(len(disk.log) + 1):
        told = [op.mark for op in disk.log[:upto] if isinstance(op.mark, Acknowledged)]
        if not told:
            continue
        for how in WAYS:
            at = folder / "after"
            shutil.rmtree(at, ignore_errors=True)
            at.mkdir()
            for name, data in image(disk.log, upto, how, upto).items():
                (at / name).write_bytes(data)
            report = verify_journal(at / "journal.db", expect_head=(told[-1].seq, told[-1].hash))
            if not report.ok or report.first_seq not in {1, 15, 39, 63}:
                found.append(f"{upto} {how}: {report}")
    return found


async def test_the_power_fails_at_any_operation_of_a_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 12)
    disk = CrashDisk()
    await run(tmp_path, disk)
    assert verify_journal(tmp_path / "journal.db").first_seq == 63
    assert lost(tmp_path, disk) == []


async def test_planted_pruning_in_several_transactions_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 12)
    really = Journal._delete

    def in_parts(journal: Journal, connection: apsw.Connection, through_seq: int) -> None:
        really(journal, connection, through_seq - 4)
        really(journal, connection, through_seq)

    monkeypatch.setattr(Journal, "_delete", in_parts)
    disk = CrashDisk()
    await run(tmp_path, disk)
    assert lost(tmp_path, disk)


async def test_an_error_while_rows_leave_ends_the_journal_and_loses_nothing(tmp_path: Path) -> None:
    disk = CrashDisk()
    rng = random.Random(5)
    await run(tmp_path, disk)
    for _ in range(12):
        folder = tmp_path / "again"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        failing = CrashDisk(fail_at=rng.randrange(40, len(disk.log) - 12))
        with pytest.raises(LinesideError, match=r"journal\.failed"):
            await run(folder, failing)
        report = verify_journal(folder / "journal.db")
        assert report.ok, report.fault


async def test_freed_space_is_used_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with open_journal(path, tmp_path / "epoch") as journal:
        first, sizes = 1, []
        for _ in range(8):
            hashes = await fill(journal, 2_000)
            await journal.append([said(first, journal.head_seq - 50, hashes[-51])]).durable()
            through = journal.head_seq - 51
            await journal.prune(through)
            first = through + 1
            sizes.append(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY).pragma("page_count"))
    assert sizes[-1] < 1.2 * sizes[0]
    assert verify_journal(path).ok
