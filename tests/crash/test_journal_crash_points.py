"""The power fails at every single operation: nothing that was acknowledged is lost, and the chain holds."""

from __future__ import annotations

import random

import pytest

import edge.journal
from edge.journal import Appended, open_journal, verify_journal
from tests.crash.disk import CrashDisk, image
from tests.crash.runs import body, losses, losses_after_a_second_run, run

SEEDS = range(2)


@pytest.fixture(autouse=True)
def _small_log(monkeypatch):
    """Checkpoints in the middle of the run, and a log that begins again from its start."""
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 12)


async def test_no_crash_loses_an_acknowledged_row(tmp_path):
    disk = CrashDisk()
    await run(tmp_path, disk)
    assert sum(op.what == "sync" and op.file == "journal.db" for op in disk.log) > 4, "no checkpoint was in the run"
    assert await losses(tmp_path, disk.log, SEEDS) == []


async def test_a_crashed_journal_goes_on(tmp_path):
    disk = CrashDisk()
    await run(tmp_path, disk, groups=6)
    rng = random.Random(7)

    for number in range(12):
        at = tmp_path / str(number)
        at.mkdir()
        for name, data in image(disk.log, rng.randrange(len(disk.log)), "tear", number).items():
            (at / name).write_bytes(data)
        async with open_journal(at / "journal.db", at / "epoch") as journal:
            appended = journal.append([body("after")])
            await appended.durable()
        report = verify_journal(at / "journal.db", expect_head=(appended.last_seq, appended.last_hash))
        assert report.ok, report.fault


@pytest.mark.parametrize("sync_failed", [False, True], ids=["killed", "sync failed"])
async def test_what_a_second_run_reads_as_durable_is_durable(tmp_path, sync_failed):
    assert await losses_after_a_second_run(tmp_path, random.Random(3), sync_failed=sync_failed) == []


@pytest.mark.parametrize("sync_failed", [False, True], ids=["killed", "sync failed"])
async def test_planted_opening_without_settling_is_found(tmp_path, monkeypatch, sync_failed):
    monkeypatch.setattr(edge.journal, "_settle_log", lambda _path, _vfs: None)
    assert await losses_after_a_second_run(tmp_path, random.Random(3), sync_failed=sync_failed)


# The bugs that these tests exist for: planted, each must be found ------------------------------------------


async def test_planted_normal_sync_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(edge.journal, "SYNCHRONOUS", "NORMAL")
    disk = CrashDisk()
    await run(tmp_path, disk)
    assert await losses(tmp_path, disk.log, SEEDS, step=5)


async def test_planted_lying_disk_is_found(tmp_path):
    disk = CrashDisk(lies=frozenset({"sync"}))
    await run(tmp_path, disk)
    assert await losses(tmp_path, disk.log, SEEDS, step=5)


async def test_planted_creation_without_a_folder_sync_is_found(tmp_path):
    disk = CrashDisk(lies=frozenset({"folder"}))
    await run(tmp_path, disk)
    assert await losses(tmp_path, disk.log, SEEDS, step=5)


async def test_planted_acknowledgement_before_the_commit_is_found(tmp_path, monkeypatch):
    async def at_once(_self):
        pass

    monkeypatch.setattr(Appended, "durable", at_once)
    disk = CrashDisk()
    await run(tmp_path, disk)
    assert await losses(tmp_path, disk.log, SEEDS, step=5)
