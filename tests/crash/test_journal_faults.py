"""The disk refuses at every single operation: the journal stops at once, and what was acknowledged is there."""

from __future__ import annotations

import asyncio

import apsw
import pytest

import edge.journal
from edge.core.errors import LinesideError
from edge.journal import open_journal, verify_journal
from tests.crash.disk import CrashDisk
from tests.crash.runs import body, operations, refused_from


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError], ids=["EIO", "ENOSPC"])
async def test_a_refusing_disk_stops_the_journal_and_loses_nothing(tmp_path, monkeypatch, error):
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 6)
    count = await operations(tmp_path / "whole", groups=5)
    codes = []
    for fail_at in range(count):
        folder = tmp_path / str(fail_at)
        folder.mkdir()
        codes.append(await refused_from(folder, fail_at, error, groups=5))
    assert codes.count("journal.failed") > count / 2


async def _fail_with_rows_under_way(folder, disk, vfs) -> None:
    told: list[LinesideError | None] = []
    async with open_journal(folder / "journal.db", folder / "epoch", vfs=vfs) as journal:
        await journal.append([body("kept")]).durable()
        disk.fail_at = 0
        first = journal.append([body("a"), body("b")])
        second = journal.append([body("c")])
        second.add_done_callback(told.append)
        for lost in (first, second):
            with pytest.raises(LinesideError, match=r"journal\.failed"):
                await lost.durable()
            assert not lost.is_durable
        assert (await asyncio.shield(journal.failed)).code == "journal.failed"
        with pytest.raises(LinesideError, match=r"journal\.failed"):
            journal.append([body("d")])
        assert (journal.head_seq, journal.durable_seq) == (4, 1)
        first.add_done_callback(told.append)
        await asyncio.sleep(0)
        assert [error and error.code for error in told] == ["journal.failed"] * 2


async def test_after_a_failure_every_waiter_is_told_and_nothing_more_is_accepted(tmp_path):
    disk = CrashDisk()
    with disk.mounted() as vfs, pytest.raises(LinesideError, match="may or may not"):
        await _fail_with_rows_under_way(tmp_path, disk, vfs)
    assert verify_journal(tmp_path / "journal.db").ok
