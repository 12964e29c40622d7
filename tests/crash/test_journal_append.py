"""What an appender may rely on: numbers at once, durability in groups, bounds, one writer, undisturbed readers."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from itertools import pairwise

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge.journal
from edge.core.errors import LinesideError
from edge.core.events import BODY_BYTES_MAX
from edge.core.record import ZERO_HASH, chain_faults
from edge.journal import Journal, JournalReader, open_journal, verify_journal
from tests.crash.runs import body


@pytest.fixture
def place(tmp_path):
    return tmp_path / "journal.db", tmp_path / "epoch"


class Gate:
    """Holds the writer's thread before each commit until the test lets it go."""

    def __init__(self, monkeypatch) -> None:
        self.groups: list[int] = []
        self.taken = asyncio.Event()
        self._go = threading.Event()
        insert = Journal._insert_group
        loop = asyncio.get_running_loop()

        def gated(journal, connection, group):
            loop.call_soon_threadsafe(self.taken.set)
            assert self._go.wait(timeout=20)
            insert(journal, connection, group)
            self.groups.append(len(group.bodies))

        monkeypatch.setattr(Journal, "_insert_group", gated)

    def open(self) -> None:
        self._go.set()


@given(st.lists(st.integers(1, 230), min_size=1, max_size=6), st.integers(1, 4))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_numbers_are_gapless_and_what_is_read_is_what_was_appended(tmp_path_factory, sizes, openings):
    folder = tmp_path_factory.mktemp("journal")
    names: list[str] = []
    for _ in range(openings):
        async with open_journal(folder / "journal.db", folder / "epoch") as journal:
            assert journal.head_seq == journal.durable_seq == len(names)
            for size in sizes:
                new = [f"n{len(names) + i}" for i in range(size)]
                appended = journal.append([body(name) for name in new])
                assert (appended.first_seq, appended.last_seq) == (len(names) + 1, len(names) + size)
                assert (journal.head_seq, journal.head_hash) == (appended.last_seq, appended.last_hash)
                names += new
            await appended.durable()
            assert (journal.durable_seq, journal.durable_hash) == (journal.head_seq, journal.head_hash)
    with JournalReader(folder / "journal.db") as reader:
        rows = reader.rows(0, len(names) + 1)
        assert [json.loads(row.body)["facts"]["name"] for row in rows] == names
        assert list(chain_faults(reader.journal_id, rows)) == []
        assert {row.epoch for row in rows} == {journal.epoch}
        assert reader.rows_back(3) == rows[-3:]
        assert reader.head() == (rows[-1].seq, rows[-1].hash)


async def test_a_group_of_any_size_is_one_commit_and_stored_as_the_record_format_says(place, monkeypatch):
    gate = Gate(monkeypatch)
    async with open_journal(*place) as journal:
        journal.append([body("first")])
        await gate.taken.wait()
        for number in range(1, edge.journal.QUEUE_ROWS_MAX // 64):
            journal.append([body(f"{number}.{i}", "\0" * (i * number % 200)) for i in range(64)])
        gate.open()
    assert gate.groups == [1, journal.head_seq - 1]
    connection = apsw.Connection(str(place[0]), flags=apsw.SQLITE_OPEN_READONLY)
    types = "typeof(seq), typeof(epoch), length(epoch), typeof(hash), length(hash), typeof(body)"
    assert connection.execute(f"SELECT DISTINCT {types} FROM row").fetchall() == [
        ("integer", "blob", 16, "blob", 32, "blob")
    ]
    connection.close()
    assert verify_journal(place[0], expect_head=(journal.head_seq, journal.head_hash)).ok


async def test_what_is_appended_during_a_commit_goes_into_the_next_one(place, monkeypatch):
    gate = Gate(monkeypatch)
    async with open_journal(*place) as journal:
        journal.append([body("first")])
        await gate.taken.wait()
        waits = [asyncio.ensure_future(journal.append([body(f"n{i}")]).durable()) for i in range(64)]
        await asyncio.sleep(0)
        assert journal.durable_seq == 0
        assert not any(wait.done() for wait in waits)
        gate.open()
        await asyncio.gather(*waits)
    assert gate.groups == [1, 64]


async def test_cancelling_the_wait_keeps_the_rows_and_the_other_waits(place, monkeypatch):
    gate = Gate(monkeypatch)
    async with open_journal(*place) as journal:
        appended = journal.append([body("kept")])
        cancelled = asyncio.ensure_future(appended.durable())
        other = asyncio.ensure_future(appended.durable())
        await asyncio.sleep(0)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        assert cancelled.cancelled()
        gate.open()
        await other
        assert appended.is_durable
    with JournalReader(place[0]) as reader:
        assert reader.head() == (1, appended.last_hash)


async def test_callbacks_come_before_those_who_wait(place):
    seen: list[str] = []
    async with open_journal(*place) as journal:
        appended = journal.append([body("one")])

        async def wait():
            await appended.durable()
            seen.append("waiter")

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        appended.add_done_callback(lambda error: seen.append(f"callback {error}"))
        await waiting
    assert seen == ["callback None", "waiter"]


async def test_those_who_waited_for_one_commit_go_on_in_turns_of_the_loop(place, monkeypatch):
    gate = Gate(monkeypatch)
    turn, gone_on = 0, []

    async def others() -> None:
        nonlocal turn
        while True:
            await asyncio.sleep(0)
            turn += 1

    async def wait(appended) -> None:
        await appended.durable()
        gone_on.append(turn)

    async with open_journal(*place) as journal:
        first = journal.append([body("first")])
        await gate.taken.wait()
        many = [journal.append([body("x")] * edge.journal.TURN_ROWS) for _ in range(6)]
        few = [journal.append([body("y")]) for _ in range(edge.journal.TURN_ROWS)]
        waiting = [asyncio.create_task(wait(appended)) for appended in (first, *many, *few)]
        ticking = asyncio.create_task(others())
        await asyncio.sleep(0)
        gate.open()
        await asyncio.gather(*waiting)
        ticking.cancel()
    assert gate.groups[1] == 7 * edge.journal.TURN_ROWS
    between = [after - before for before, after in pairwise(gone_on[1:7])]
    assert between == [3] * 5, "each of the long ones has a turn of its own, and those who slept have the next two"
    assert len(set(gone_on[7:])) == 1, "short ones share one"
    assert gone_on == sorted(gone_on)


@pytest.mark.parametrize("ends", ["failure", "leaving"])
async def test_who_waits_for_a_turn_is_told_before_the_end(place, monkeypatch, ends):
    insert, committed = Journal._insert_group, threading.Event()
    told: list[str] = []

    def refusing(journal, connection, group):
        if b"lost" in group.bodies[0]:
            raise OSError("the disk is gone")
        insert(journal, connection, group)
        if group.before_seq + len(group.bodies) == 3 * edge.journal.TURN_ROWS:
            committed.set()

    async def write() -> None:
        async with open_journal(*place) as journal:
            monkeypatch.setattr(Journal, "_insert_group", refusing)
            # all of this is one turn of the loop: it hears of the rows and of the end at once
            for _ in range(3):
                appended = journal.append([body("kept")] * edge.journal.TURN_ROWS)
                appended.add_done_callback(lambda error: told.append(error.code if error else "durable"))
            assert committed.wait(timeout=20)
            if ends == "failure":
                lost = journal.append([body("lost")])
                lost.add_done_callback(lambda error: told.append(error.code if error else "durable"))
                next(thread for thread in threading.enumerate() if thread.name == "journal").join(timeout=20)

    if ends == "failure":
        with pytest.raises(LinesideError, match="the disk is gone"):
            await write()
    else:
        await write()
    await asyncio.sleep(0)
    assert told == ["durable"] * 3 + (["journal.failed"] if ends == "failure" else [])


async def test_the_queue_is_bounded_and_keeps_places_for_what_is_urgent(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "QUEUE_ROWS_MAX", 10)
    monkeypatch.setattr(edge.journal, "URGENT_ROWS", 2)
    gate = Gate(monkeypatch)
    async with open_journal(*place) as journal:
        journal.append([body(str(i)) for i in range(10)])
        with pytest.raises(LinesideError, match=r"journal\.full"):
            journal.append([body("too many")])
        assert journal.head_seq == 10, "a refused append uses no number"
        urgent = journal.append([body("stop"), body("safe")], urgent=True)
        with pytest.raises(LinesideError, match=r"journal\.full"):
            journal.append([body("one more")], urgent=True)
        gate.open()
        await urgent.durable()
        await journal.append([body("again")]).durable()
    assert verify_journal(place[0]).rows == 13


async def test_the_queue_is_bounded_in_bytes(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "QUEUE_BYTES_MAX", 20_000)
    monkeypatch.setattr(edge.journal, "URGENT_BYTES", 10_000)
    gate = Gate(monkeypatch)
    async with open_journal(*place) as journal:
        journal.append([body("a", "x" * 15_000)])
        with pytest.raises(LinesideError, match=r"journal\.full"):
            journal.append([body("b", "x" * 10_000)])
        journal.append([body("b", "x" * 10_000)], urgent=True)
        gate.open()


@pytest.mark.parametrize(
    ("text", "code"), [("x" * BODY_BYTES_MAX, "row.too_large"), ("\ud800", "row.cannot_encode")], ids=["size", "text"]
)
async def test_a_body_that_cannot_be_written_is_refused_before_it_has_a_number(place, text, code):
    async with open_journal(*place) as journal:
        with pytest.raises(LinesideError) as refused:
            journal.append([body("good"), body("bad", text)])
        assert refused.value.code == code
        assert (journal.head_seq, journal.head_hash) == (0, ZERO_HASH)
        await journal.append([body("next")]).durable()
    assert verify_journal(place[0]).rows == 1


async def test_leaving_commits_what_was_appended_and_accepts_no_more(place):
    async with open_journal(*place) as journal:
        journal.append([body(str(i)) for i in range(500)])
    with pytest.raises(LinesideError, match=r"journal\.closed"):
        journal.append([body("late")])
    assert sorted(p.name for p in place[0].parent.iterdir()) == ["epoch", "journal.db", "journal.db.lock"]
    report = verify_journal(place[0], expect_head=(500, journal.head_hash))
    assert report.ok, report.fault


async def test_a_second_runtime_is_refused_and_the_first_goes_on(place):
    async with open_journal(*place) as journal:
        with pytest.raises(LinesideError, match=r"journal\.in_use"):
            async with open_journal(*place):
                pass
        await journal.append([body("on")]).durable()
    async with open_journal(*place) as journal:
        assert journal.head_seq == 1


async def test_a_reader_in_the_middle_of_a_transaction_does_not_hold_the_writer(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 4)
    async with open_journal(*place) as journal:
        await journal.append([body("first")]).durable()
        old = apsw.Connection(str(place[0]), flags=apsw.SQLITE_OPEN_READONLY)
        old.execute("BEGIN")
        assert old.execute("SELECT count(*) FROM row").fetchall() == [(1,)]
        with JournalReader(place[0]) as reader:
            for number in range(30):
                appended = journal.append([body(str(number), "x" * 2000)])
                await appended.durable()
                assert reader.head() == (appended.last_seq, appended.last_hash)
            assert reader.rows(30, 5)[0].seq == 31
        assert old.execute("SELECT count(*) FROM row").fetchall() == [(1,)]
        assert verify_journal(place[0]).rows == 31
        old.close()


async def test_it_opens_beside_a_reader_that_holds_an_old_part_of_the_log(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "BUSY_S", 0.01)
    async with open_journal(*place) as journal:
        await journal.append([body("first")]).durable()
        old = apsw.Connection(str(place[0]), flags=apsw.SQLITE_OPEN_READONLY)
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM row").fetchall()
        await journal.append([body("second")]).durable()
    async with open_journal(*place) as journal:
        assert journal.durable_seq == 2
        await journal.append([body("third")]).durable()
    old.close()
    assert verify_journal(place[0]).rows == 3


async def test_a_lost_journal_is_not_replaced_and_a_lost_epoch_begins_a_new_one(place):
    path, epoch_path = place
    async with open_journal(path, epoch_path) as journal:
        await journal.append([body("old")]).durable()
        first = journal.epoch
    epoch_path.unlink()
    async with open_journal(path, epoch_path) as journal:
        assert journal.restored
        assert journal.epoch != first
        await journal.append([body("new")]).durable()
    async with open_journal(path, epoch_path) as journal:
        assert not journal.restored
    assert verify_journal(path).ok
    path.unlink()
    with pytest.raises(LinesideError, match=r"journal\.lost"):
        async with open_journal(path, epoch_path):
            pass
    assert not path.exists()


def _foreign_database(path):
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE thing(a)")
    connection.close()


def _later_format(path):
    connection = apsw.Connection(str(path))
    for sql in edge.journal._SCHEMA.values():
        connection.execute(sql)
    connection.execute("INSERT INTO meta VALUES('format', 2), ('journal', x'00')")
    connection.close()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (_foreign_database, "journal.foreign"),
        (_later_format, "journal.too_new"),
        (lambda path: path.write_text("no database at all, but long enough to be looked at" * 100), "journal.damaged"),
        (lambda path: path.mkdir(), "journal.cannot_open"),
        (lambda path: path.with_name("epoch").write_text("nonsense"), "journal.epoch"),
    ],
    ids=["foreign", "too new", "no database", "folder", "epoch"],
)
async def test_what_is_no_journal_is_refused_and_left_alone(place, make, code):
    make(place[0])
    before = place[0].read_bytes() if place[0].is_file() else None
    with pytest.raises(LinesideError) as refused:
        async with open_journal(*place):
            pass
    assert refused.value.code == code
    assert (place[0].read_bytes() if place[0].is_file() else None) == before


async def test_a_missing_folder_and_a_missing_journal_are_sentences(tmp_path):
    with pytest.raises(LinesideError, match=r"journal\.cannot_open"):
        async with open_journal(tmp_path / "nowhere" / "journal.db", tmp_path / "epoch"):
            pass
    with pytest.raises(LinesideError, match=r"journal\.absent"):
        JournalReader(tmp_path / "journal.db")
    with pytest.raises(LinesideError, match=r"journal\.absent"):
        verify_journal(tmp_path / "journal.db")


async def test_when_idle_the_log_is_copied_into_the_database(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "IDLE_S", 0.001)
    copied = asyncio.Event()
    loop = asyncio.get_running_loop()
    checkpoint = Journal._checkpoint

    def seen(journal, connection, mode, wait_s):
        checkpoint(journal, connection, mode, wait_s)
        loop.call_soon_threadsafe(copied.set)

    monkeypatch.setattr(Journal, "_checkpoint", seen)
    async with open_journal(*place) as journal:
        await journal.append([body("one")]).durable()
        await asyncio.wait_for(copied.wait(), 20)


class Checkpoints:
    """Counts them, and how many left the log to a reader."""

    def __init__(self, monkeypatch) -> None:
        self.all = 0
        checkpoint = Journal._checkpoint

        def counted(journal, connection, mode, wait_s):
            self.all += 1
            checkpoint(journal, connection, mode, wait_s)

        monkeypatch.setattr(Journal, "_checkpoint", counted)


async def test_a_checkpoint_comes_once_a_log_and_not_with_every_commit(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "IDLE_S", 3600.0)
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 50)
    seen = Checkpoints(monkeypatch)
    async with open_journal(*place) as journal:
        for number in range(300):  # of two or three pages
            await journal.append([body(str(number), "x" * 3000)]).durable()
        during = seen.all
    assert 300 * 2 // 50 - 1 <= during <= 300 * 3 // 50 + 1


async def test_the_log_stays_small_while_readers_come_and_go(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "IDLE_S", 3600.0)
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 50)
    log = place[0].with_name("journal.db-wal")
    most = 0
    async with open_journal(*place) as journal:
        await journal.append([body("first")]).durable()
        ended = threading.Event()

        def follow() -> int:
            seq = 0
            with JournalReader(place[0]) as reader:
                while not (last := ended.is_set()) or reader.rows(seq, 1):
                    seq += len(reader.rows(seq, 20))
            assert last
            return seq

        following = asyncio.ensure_future(asyncio.to_thread(follow))
        for number in range(500):
            await journal.append([body(str(number), "x" * 3000)]).durable()
            most = max(most, log.stat().st_size)
        ended.set()
        assert await following == journal.head_seq
    assert most < 4 * 50 * edge.journal.PAGE_BYTES


async def test_a_reader_that_stays_is_named_holds_no_commit_and_the_log_shrinks_when_it_left(place, monkeypatch):
    monkeypatch.setattr(edge.journal, "IDLE_S", 3600.0)
    monkeypatch.setattr(edge.journal, "WAL_PAGES_MAX", 50)
    seen = Checkpoints(monkeypatch)
    log = place[0].with_name("journal.db-wal")
    async with open_journal(*place) as journal:
        await journal.append([body("first")]).durable()
        old = apsw.Connection(str(place[0]), flags=apsw.SQLITE_OPEN_READONLY)
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM row").fetchall()
        assert journal.notices() == ()
        commits = 0
        while not journal.notices():
            assert journal.durable_seq < 500
            await journal.append([body("more", "x" * 3000)]).durable()
            commits += 1
        assert str(place[0]) in journal.notices()[0]
        assert seen.all < commits / 2, "attempts grow rare while a reader stays"
        grown = log.stat().st_size
        old.close()
        while journal.notices():
            await journal.append([body("more", "x" * 3000)]).durable()
        await journal.append([body("last", "x" * 3000)]).durable()
        assert log.stat().st_size <= 50 * edge.journal.PAGE_BYTES < grown
    assert verify_journal(place[0], expect_head=(journal.head_seq, journal.head_hash)).ok


async def test_cancelling_the_opening_gives_the_journal_free(place):
    for turns in range(4):
        opening = asyncio.ensure_future(open_journal(*place).__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        assert opening.cancelled()
    async with open_journal(*place) as journal:
        await journal.append([body("one")]).durable()


async def test_whatever_ends_the_writer_is_heard(place, monkeypatch):
    def broken(_journal, _connection, _group):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Journal, "_insert_group", broken)

    async def append():
        async with open_journal(*place) as journal:
            await journal.append([body("one")]).durable()

    with pytest.raises(LinesideError, match=r"journal\.failed.*planted"):
        await append()
