"""Rows are safe when a copy of the hub's store has them, was read back and verified; and not a row more."""

import contextlib
import fcntl
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from sync_parts import chained, give

import hub.backup
import hub.store
from edge.core.errors import LinesideError
from edge.core.frame import read_receipt
from edge.core.record import ZERO_HASH
from hub.backup import back_up
from hub.config import init_hub, read_hub, read_key
from hub.store import Copied, Store, open_store
from hub.trust import Trust


@pytest.fixture
def medium():
    """A folder on another medium than the tests' own folders: memory."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="lineside-hub-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class Hub:
    """A hub's folder, its trust in one box, and that box's rows."""

    def __init__(self, folder, device_key):
        init_hub(folder)
        self.config = read_hub(folder)
        self.key = read_key(self.config)
        (folder / "devices" / "line-1.pub").write_text(device_key.public.hex())
        self.trust = Trust(folder / "devices")
        self.trust.refresh()
        self._device = device_key
        self.rows = chained([b'{"kind":"Unknown","n":%d}' % n for n in range(100)])

    def open(self):
        return open_store(self.config.database, self.key)

    async def take(self, store, first, last):
        """Rows `first` to `last` arrive."""
        previous = self.rows[first - 2].hash if first > 1 else ZERO_HASH
        return await give(store, self.trust, self._device, self.rows[first - 1 : last], previous)

    async def receipt(self, store):
        """What the box is told after the hub looked for a backup."""
        await store.look_for_backup()
        (text,) = (await store.receipts()).values()
        return read_receipt(text, self.key.public)

    async def back_up(self, to):
        return await back_up(self.config, to, lambda *_said: None)


@pytest.fixture
def a_hub(tmp_path, device_key):
    return Hub(tmp_path / "a-hub", device_key)


def rows_in(copy):
    """The last row that a copy has, as anybody reads it."""
    with contextlib.closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as opened:
        return opened.execute("SELECT coalesce(max(seq), 0) FROM row").fetchone()[0]


async def refused(work, code):
    with pytest.raises(LinesideError) as caught:
        await work
    assert caught.value.code == code
    return caught.value


async def test_what_a_verified_copy_holds_is_safe_and_later_rows_are_not(a_hub, medium):
    told = []
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 30)
        assert (await a_hub.receipt(store)).safe_seq == 0
        made = await back_up(a_hub.config, medium / "hub.db", lambda *said: told.append(said))
        assert (made.rows, made.boxes, made.bytes) == (30, 1, (medium / "hub.db").stat().st_size)
        assert told[-1] == ("rows verified", 30, 30)
        assert await store.look_for_backup()
        assert not await store.look_for_backup()
        outcome = await a_hub.take(store, 31, 40)
        receipt = read_receipt(outcome.receipt, a_hub.key.public)
        assert (receipt.stored_seq, receipt.safe_seq) == (40, 30)
        await a_hub.back_up(medium / "hub.db")
        assert (await a_hub.receipt(store)).safe_seq == 40
    async with a_hub.open() as store:
        assert (await a_hub.receipt(store)).safe_seq == 40
    assert sorted(path.name for path in medium.iterdir()) == [".hub.db.lock", "hub.db"]


async def check_a_damaged_copy_counts_for_nothing(a_hub, medium, monkeypatch):
    """The medium changes a byte of what it took. Also for the planted bug."""
    to_medium = hub.backup._to_medium

    def spoiling(path):
        to_medium(path)
        if path.is_file():
            with contextlib.closing(sqlite3.connect(path)) as copy:
                copy.execute("UPDATE row SET body = CAST(replace(body, 'n', 'm') AS BLOB) WHERE seq = 7")
                copy.commit()

    async with a_hub.open() as store:
        await a_hub.take(store, 1, 30)
        await a_hub.back_up(medium / "hub.db")
        await a_hub.take(store, 31, 60)
        monkeypatch.setattr(hub.backup, "_to_medium", spoiling)
        with contextlib.suppress(LinesideError):
            await a_hub.back_up(medium / "hub.db")
        assert (await a_hub.receipt(store)).safe_seq == 30
        assert rows_in(medium / "hub.db") == 30
        error = await refused(a_hub.back_up(medium / "hub.db"), "hub.backup_damaged")
        assert "row 7" in error.what


async def test_a_damaged_copy_counts_for_nothing(a_hub, medium, monkeypatch):
    await check_a_damaged_copy_counts_for_nothing(a_hub, medium, monkeypatch)


async def test_planted_bug_safe_before_the_copy_is_verified_is_caught(a_hub, medium, monkeypatch):
    async def believing(partial, signer, utc, _tell):
        async with hub.backup._store(hub.backup._read_only("sqlite+aiosqlite", partial), signer) as copy:
            heads = [(one.id, one.stored_seq, bytes.fromhex(one.head_hash)) for one in await copy.chains()]
            return Copied(copy.incarnation, tuple(heads), utc), 1, 0

    monkeypatch.setattr(hub.backup, "_verify", believing)
    with pytest.raises(AssertionError):
        await check_a_damaged_copy_counts_for_nothing(a_hub, medium, monkeypatch)


async def check_safe_is_what_the_copy_holds(a_hub, medium, monkeypatch):
    """Rows arrive while the copy is made and verified. Also for the planted bug."""
    verify = hub.backup._verify
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 30)

        async def meanwhile(*given):
            await a_hub.take(store, 31, 60)
            return await verify(*given)

        monkeypatch.setattr(hub.backup, "_verify", meanwhile)
        await a_hub.back_up(medium / "hub.db")
        receipt = await a_hub.receipt(store)
        assert (receipt.stored_seq, receipt.safe_seq) == (60, rows_in(medium / "hub.db"))


async def test_safe_is_what_the_copy_holds(a_hub, medium, monkeypatch):
    await check_safe_is_what_the_copy_holds(a_hub, medium, monkeypatch)


async def test_planted_bug_safe_above_what_the_copy_holds_is_caught(a_hub, medium, monkeypatch):
    record = Store.record_copy

    async def generous(self, copied):
        heads = [(one.id, one.stored_seq, bytes.fromhex(one.head_hash)) for one in await self.chains()]
        await record(self, Copied(copied.incarnation, tuple(heads), copied.utc))

    monkeypatch.setattr(Store, "record_copy", generous)
    with pytest.raises(AssertionError):
        await check_safe_is_what_the_copy_holds(a_hub, medium, monkeypatch)


def lose(a_hub, copy):
    """The hub's disk is lost; the copy is put in its place."""
    for file in a_hub.config.folder.glob("hub.db*"):
        file.unlink()
    shutil.copy(copy, a_hub.config.database)


async def check_an_old_copy_is_not_counted_again(a_hub, medium):
    """The hub loses rows with its newest copy, and goes on from an older one. Also for the planted bug."""
    async with a_hub.open() as store:
        former = store.incarnation
        await a_hub.take(store, 1, 20)
        await a_hub.back_up(medium / "old.db")
        await a_hub.take(store, 21, 40)
        await a_hub.back_up(medium / "older than the end.db")
        await a_hub.take(store, 41, 60)
        await a_hub.back_up(medium / "new.db")
        copied = Copied(former, ((1, 60, a_hub.rows[59].hash),), "2026-11-22T00:00:00.000000Z")
    (medium / "old.db").unlink()
    lose(a_hub, medium / "older than the end.db")
    async with a_hub.open() as store:
        receipt = await a_hub.receipt(store)
        assert store.incarnation != former
        assert (receipt.incarnation, receipt.stored_seq, receipt.safe_seq) == (store.incarnation, 40, 0)
        await refused(store.record_copy(copied), "hub.backup_foreign")
        await a_hub.take(store, 41, 50)
        assert (await a_hub.receipt(store)).safe_seq == 0
        await refused(a_hub.back_up(medium / "new.db"), "hub.backup_loses")
        assert rows_in(medium / "new.db") == 60
        await a_hub.back_up(medium / "of the second life.db")
        assert (await a_hub.receipt(store)).safe_seq == 50
        second = store.incarnation
    async with a_hub.open() as store:
        assert store.incarnation == second


async def test_a_hub_restored_from_a_copy_is_another_one_and_holds_nothing_safe(a_hub, medium):
    await check_an_old_copy_is_not_counted_again(a_hub, medium)


@pytest.mark.parametrize("planted", ["the same incarnation", "what was safe before"])
async def test_planted_bug_an_old_copy_counted_again_is_caught(a_hub, medium, monkeypatch, planted):
    if planted == "the same incarnation":
        monkeypatch.setattr("hub.store.COPIED", "never")
    else:
        monkeypatch.setattr("hub.store.delete", lambda table: hub.store.select(table.c[0]))
    with pytest.raises(AssertionError):
        await check_an_old_copy_is_not_counted_again(a_hub, medium)


async def test_rows_that_were_lost_under_the_copy_are_not_safe(a_hub):
    """The same incarnation, and a row that the copy has is gone."""
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 20)
        copied = Copied(store.incarnation, ((1, 21, a_hub.rows[20].hash),), "2026-11-22T00:00:00.000000Z")
        await refused(store.record_copy(copied), "hub.backup_foreign")
        assert not await store.look_for_backup()


@pytest.mark.parametrize("fails", ["_copy", "_to_medium", "_verify", "_keeps_all_of"])
async def test_a_backup_that_fails_at_any_step_leaves_what_was(a_hub, medium, monkeypatch, fails):
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 20)
        await a_hub.back_up(medium / "hub.db")
        before = (medium / "hub.db").read_bytes()
        await a_hub.take(store, 21, 40)

        def fail(*_given):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(hub.backup, fails, fail)
        error = await refused(a_hub.back_up(medium / "hub.db"), "hub.backup_failed")
        assert "No space" in error.what
        assert (await a_hub.receipt(store)).safe_seq == 20
    assert (medium / "hub.db").read_bytes() == before
    assert sorted(path.name for path in medium.iterdir()) == [".hub.db.lock", "hub.db"]


async def test_what_a_killed_backup_left_is_no_copy_and_is_removed(a_hub, medium):
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 20)
        (medium / ".hub.db.partial").write_bytes(b"half a copy")
        await a_hub.back_up(medium / "hub.db")
    assert rows_in(medium / "hub.db") == 20


async def test_refusals_are_in_words(a_hub, medium, tmp_path):
    await refused(a_hub.back_up(medium / "hub.db"), "hub.backup_place")
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 20)
        for to in (medium / "absent" / "hub.db", medium, tmp_path / "beside.db"):
            await refused(a_hub.back_up(to), "hub.backup_place")
        (medium / "letter").write_text("Dear hub")
        await refused(a_hub.back_up(medium / "letter"), "hub.backup_loses")
        assert (medium / "letter").read_text() == "Dear hub"
        (medium / ".x.db.partial").mkdir()
        await refused(a_hub.back_up(medium / "x.db"), "hub.backup_failed")
        with (medium / ".hub.db.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            await refused(a_hub.back_up(medium / "hub.db"), "hub.backup_running")
        assert (await a_hub.receipt(store)).safe_seq == 0


async def test_a_chain_that_continues_another_rows_is_found(a_hub, device_key):
    """Its own rows hold; the row that it says it continues is another one."""
    async with a_hub.open() as store:
        await a_hub.take(store, 1, 20)
        branch = chained([b'{"kind":"Other"}'], first=11, previous=a_hub.rows[9].hash, epoch=b"f" * 16)
        await give(store, a_hub.trust, device_key, branch, a_hub.rows[9].hash)
        assert [one.fault async for one in store.verify()] == [None, None]
        async with store._engine.begin() as connection:
            await connection.execute(
                hub.store._chain.update().where(hub.store._chain.c.base_seq > 1).values(base_seq=10)
            )
        faults = [one.fault for one in [each async for each in store.verify()] if one.fault]
        assert "continues" in faults[0].why
