"""What the hub lets in, what it sets aside, and that no receipt runs ahead of a commit."""

import contextlib

import pytest
from sqlalchemy import event, text
from sync_parts import EPOCH, JOURNAL, chained, give

from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.frame import read_receipt
from edge.core.record import ZERO_HASH
from edge.identity import DeviceKey
from edge.mqtt import Address, Message
from hub.receive import Receiver
from hub.store import QUARANTINE_MAX, Store, Took, open_store
from hub.trust import Trust


@pytest.fixture
def trust(tmp_path, device_key):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "line-1.pub").write_text(device_key.public.hex())
    made = Trust(tmp_path / "devices")
    made.refresh()
    return made


@pytest.fixture
async def store(tmp_path, hub_key):
    async with open_store(tmp_path / "hub.db", hub_key) as made:
        yield made


def numbered(count, first=1, mark=0):
    return [b'{"kind":"Unknown","n":%d,"mark":%d}' % (n, mark) for n in range(first, first + count)]


def receipt_in(outcome, hub_key):
    return read_receipt(outcome.receipt, hub_key.public)


async def rows_in(store):
    return [row for chain in await store.chains() for row in await store._chain_rows(chain, 0)]


async def test_rows_are_stored_once_whatever_is_repeated_or_overlaps(store, trust, device_key, hub_key):
    rows = chained(numbered(10))
    assert (await give(store, trust, device_key, rows[:6])).took is Took.STORED
    assert (await give(store, trust, device_key, rows[:6])).took is Took.KNOWN
    assert (await give(store, trust, device_key, rows[2:5], rows[1].hash)).took is Took.KNOWN
    outcome = await give(store, trust, device_key, rows[3:], rows[2].hash)
    assert outcome.took is Took.STORED
    receipt = receipt_in(outcome, hub_key)
    assert (receipt.stored_seq, receipt.head_hash, receipt.wanted_seq) == (10, rows[-1].hash.hex(), 0)
    assert await rows_in(store) == rows


async def test_a_gap_stores_nothing_and_asks_for_what_is_missing(store, trust, device_key, hub_key):
    rows = chained(numbered(10))
    outcome = await give(store, trust, device_key, rows[4:], rows[3].hash)
    assert (outcome.took, receipt_in(outcome, hub_key).wanted_seq) == (Took.GAP, 1)
    assert receipt_in(outcome, hub_key).stored_seq == 0
    await give(store, trust, device_key, rows[:3])
    outcome = await give(store, trust, device_key, rows[4:], rows[3].hash)
    receipt = receipt_in(outcome, hub_key)
    assert (outcome.took, receipt.stored_seq, receipt.wanted_seq) == (Took.GAP, 3, 4)
    assert await rows_in(store) == rows[:3]


async def check_fork_is_found(store, trust, device_key, hub_key):
    """A copy of the box made other rows 4 to 6. Also the planted bug below must fail here."""
    rows = chained(numbered(6))
    copy = rows[:3] + chained(numbered(5, 4, mark=1), first=4, previous=rows[2].hash)
    await give(store, trust, device_key, rows)
    outcome = await give(store, trust, device_key, copy[3:], copy[2].hash)
    assert outcome.took is Took.FORK
    assert outcome.error is not None
    assert outcome.error.code == "hub.fork"
    assert receipt_in(outcome, hub_key).head_hash == rows[-1].hash.hex()
    assert await rows_in(store) == rows
    assert [fork.code for fork in (await store.forks())[device_key.fingerprint]] == ["hub.fork"]


async def test_a_fork_is_quarantined_and_never_overwrites(store, trust, device_key, hub_key):
    await check_fork_is_found(store, trust, device_key, hub_key)
    # Also when only the continuation contradicts, and when it is only asked about.
    rows = chained(numbered(6))
    other = chained(numbered(2, 7), first=7, previous=b"x" * 32)
    assert (await give(store, trust, device_key, other, b"x" * 32)).took is Took.FORK
    hail = frame.make_hail(journal=JOURNAL, epoch=EPOCH, seq=5, head=b"y" * 32, made_seq=5, signer=device_key)
    assert (await store.ingest(hail, trust.keys)).took is Took.FORK
    hail = frame.make_hail(journal=JOURNAL, epoch=EPOCH, seq=5, head=rows[4].hash, made_seq=5, signer=device_key)
    assert (await store.ingest(hail, trust.keys)).took is Took.KNOWN
    assert len((await store.forks())[device_key.fingerprint]) == 3


async def test_planted_bug_dedupe_by_number_alone_is_caught(store, trust, device_key, hub_key, monkeypatch):
    async def whatever_they_say(_connection, _chain, _seq):
        return ANYTHING

    monkeypatch.setattr("hub.store._hash_at", whatever_they_say)
    with pytest.raises(AssertionError):
        await check_fork_is_found(store, trust, device_key, hub_key)


class _Equal:
    def __eq__(self, other):
        return True

    __hash__ = None


ANYTHING = _Equal()


async def test_a_new_epoch_continues_where_the_box_was_put_back(store, trust, device_key, hub_key):
    rows = chained(numbered(10))
    await give(store, trust, device_key, rows)
    branch = chained(numbered(3, 7, mark=1), first=7, previous=rows[5].hash, epoch=b"f" * 16)
    hail = frame.make_hail(journal=JOURNAL, epoch=b"f" * 16, seq=6, head=rows[5].hash, made_seq=9, signer=device_key)
    answer = receipt_in(await store.ingest(hail, trust.keys), hub_key)
    assert (answer.stored_seq, answer.head_hash) == (6, rows[5].hash.hex())
    outcome = await give(store, trust, device_key, branch, rows[5].hash)
    assert outcome.took is Took.STORED
    newest, former = await store.chains()
    assert (newest.stored_seq, newest.beyond) == (9, 4)
    assert (former.stored_seq, former.beyond) == (10, 0)
    assert [one.fault async for one in store.verify()] == [None, None]


async def test_refused_frames_are_quarantined_once_and_the_rest_flows(store, trust, device_key, tmp_path):
    rows = chained(numbered(3))
    good, _ = frame.make(rows, journal=JOURNAL, previous=ZERO_HASH, made_seq=3, signer=device_key)
    stranger = DeviceKey.create(tmp_path / "stranger.key")
    unknown, _ = frame.make(rows, journal=JOURNAL, previous=ZERO_HASH, made_seq=3, signer=stranger)
    unchained, _ = frame.make(rows, journal=JOURNAL, previous=b"p" * 32, made_seq=3, signer=device_key)
    bad = {
        "frame.signature": good[:-1] + bytes([good[-1] ^ 1]),
        "frame.unknown_device": unknown,
        "frame.chain": unchained,
        "frame.too_large": b"LSF\x01" + bytes(frame.FRAME_BYTES_MAX),
        "frame.malformed": b"rubbish",
    }
    for code, data in bad.items():
        for _ in range(2):
            outcome = await store.ingest(data, trust.keys)
            assert (outcome.took, outcome.error.code, outcome.receipt) == (Took.REFUSED, code, "")
    outcome = await store.ingest(good, trust.keys, "0" * 32)
    assert outcome.error.code == "hub.wrong_topic"
    assert {(one.code, one.times) for one in await store.quarantined()} >= {(code, 2) for code in bad}
    assert await rows_in(store) == []
    assert (await store.ingest(good, trust.keys, device_key.fingerprint)).took is Took.STORED


async def test_quarantine_is_bounded_and_still_counts(store, trust, monkeypatch):
    monkeypatch.setattr("hub.store.QUARANTINE_MAX", 5)
    for n in range(20):
        await store.ingest(b"rubbish %d" % n, trust.keys)
    kept = await store.quarantined()
    assert len(kept) == 6
    assert sum(one.times for one in kept) == 20
    assert QUARANTINE_MAX > 5


def frames_of(rows, key, each):
    """Frames of `each` rows."""
    made, previous = [], ZERO_HASH
    for at in range(0, len(rows), each):
        part = rows[at : at + each]
        data, _ = frame.make(part, journal=JOURNAL, previous=previous, made_seq=len(rows), signer=key)
        made.append(data)
        previous = part[-1].hash
    return made


def as_message(data, key):
    return Message(f"lineside/1/up/{key.fingerprint}/frames", data, retained=False)


async def test_a_backlog_is_one_transaction_and_one_receipt_a_box(store, trust, device_key, hub_key, tmp_path):
    other = DeviceKey.create(tmp_path / "other.key")
    (tmp_path / "devices" / "line-2.pub").write_text(other.public.hex())
    trust.refresh()
    rows, theirs = chained(numbered(300)), chained(numbered(40, mark=1))
    backlog = frames_of(rows, device_key, 60)
    for at, data in enumerate(frames_of(theirs, other, 20)):
        backlog.insert(2 * at + 1, data)
    commits = []
    event.listen(store._engine.sync_engine, "commit", commits.append)
    first, second = await store.ingest_all([(data, "") for data in backlog], trust.keys)
    assert len(commits) == 1
    assert [(one.took, receipt_in(one, hub_key).stored_seq) for one in (first, second)] == [
        (Took.STORED, 300),
        (Took.STORED, 40),
    ]
    assert {row.hash for row in await rows_in(store)} == {row.hash for row in [*rows, *theirs]}
    assert [one.fault async for one in store.verify()] == [None, None]


async def test_of_a_backlog_only_what_does_not_hold_is_put_aside(store, trust, device_key, hub_key):
    rows = chained(numbered(15))
    copy = rows[:10] + chained(numbered(10, 11, mark=1), first=11, previous=rows[9].hash)
    await give(store, trust, device_key, rows)
    known, fork = frames_of(copy, device_key, 10)
    later, _ = frame.make(
        chained(numbered(2, 16), first=16, previous=rows[14].hash),
        journal=JOURNAL, previous=rows[14].hash, made_seq=17, signer=device_key,
    )  # fmt: skip
    gap, _ = frame.make(
        chained(numbered(1, 30), first=30, previous=b"?" * 32),
        journal=JOURNAL, previous=b"?" * 32, made_seq=30, signer=device_key,
    )  # fmt: skip
    came = [(data, "") for data in (known, fork, b"rubbish", later, gap)]
    outcomes = await store.ingest_all(came, trust.keys)
    assert [one.took for one in outcomes] == [Took.KNOWN, Took.FORK, Took.REFUSED, Took.STORED, Took.GAP]
    assert receipt_in(outcomes[3], hub_key).stored_seq == 17
    assert receipt_in(outcomes[4], hub_key).wanted_seq == 18
    assert {(one.code, one.size) for one in await store.quarantined()} == {
        ("hub.fork", len(fork)),
        ("frame.malformed", len(b"rubbish")),
    }


class Answers:
    """What was published, and what the database held at that moment as another reader sees it."""

    def __init__(self, path, hub_key):
        self.seen = []
        self._path = path
        self._hub_key = hub_key

    async def publish(self, _topic, payload, *, retain=False):
        import sqlite3

        assert retain
        with contextlib.closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as other:
            (held,) = other.execute("SELECT coalesce(max(seq), 0) FROM row").fetchone()
        self.seen.append((read_receipt(payload, self._hub_key.public).stored_seq, held))


async def check_receipts_follow_commits(store, trust, device_key, hub_key, path, at_once=1):
    """No receipt names a row that another process could not read at that moment, whether frames come one by one or
    `at_once`. Also for the planted bug."""
    receiver = Receiver(store, trust, Address("127.0.0.1", 1, None))
    answers = Answers(path, hub_key)
    rows = chained(numbered(40))
    messages = [as_message(data, device_key) for data in frames_of(rows, device_key, 8)]
    for at in range(0, len(messages), at_once):
        await receiver.take(answers, messages[at : at + at_once])
    assert [receipted for receipted, _ in answers.seen] == list(range(8 * at_once, 41, 8 * at_once))
    assert all(receipted <= held for receipted, held in answers.seen)


@pytest.mark.parametrize("at_once", [1, 5])
async def test_receipts_follow_commits(store, trust, device_key, hub_key, tmp_path, at_once):
    await check_receipts_follow_commits(store, trust, device_key, hub_key, tmp_path / "hub.db", at_once)


@pytest.mark.parametrize("at_once", [1, 5])
async def test_planted_bug_receipt_before_commit_is_caught(
    store, trust, device_key, hub_key, tmp_path, monkeypatch, at_once
):
    """The planted hub answers out of the open transaction."""
    taken = Store._take
    published = {}

    async def early(self, connection, got):
        outcome = await taken(self, connection, got)
        await published["link"].publish("", outcome.receipt.encode(), retain=True)
        return outcome

    async def silent(self, link, messages):
        published["link"] = link
        await self._store.ingest_all([(message.payload, "") for message in messages], self._trust.keys)

    monkeypatch.setattr(Store, "_take", early)
    monkeypatch.setattr(Receiver, "take", silent)
    with pytest.raises(AssertionError):
        await check_receipts_follow_commits(store, trust, device_key, hub_key, tmp_path / "hub.db", at_once)


async def test_a_commit_that_fails_gives_no_receipt_and_stores_nothing(store, trust, device_key, hub_key, tmp_path):
    async with store._engine.begin() as connection:
        await connection.execute(
            text("CREATE TRIGGER full BEFORE UPDATE ON chain BEGIN SELECT RAISE(ABORT, 'full'); END")
        )
    with pytest.raises(LinesideError) as caught:
        await give(store, trust, device_key, chained(numbered(3)))
    assert caught.value.code == "hub.commit"
    answers = Answers(tmp_path / "hub.db", hub_key)
    messages = [as_message(data, device_key) for data in frames_of(chained(numbered(40)), device_key, 8)]
    with pytest.raises(LinesideError, match=r"hub\.commit"):
        await Receiver(store, trust, Address("127.0.0.1", 1, None)).take(answers, messages)
    assert answers.seen == []
    assert await rows_in(store) == []
    assert await store.chains() == []


async def test_a_changed_row_is_found_and_named(store, trust, device_key):
    await give(store, trust, device_key, chained(numbered(50)))
    assert [(one.rows, one.fault) async for one in store.verify()] == [(50, None)]
    async with store._engine.begin() as connection:
        await connection.execute(text("UPDATE row SET body = CAST(replace(body, 'n', 'm') AS BLOB) WHERE seq = 37"))
    ((fault),) = [one.fault async for one in store.verify()]
    assert fault.seq == 37
    async with store._engine.begin() as connection:
        await connection.execute(text("DELETE FROM row WHERE seq >= 37"))
    ((fault),) = [one.fault async for one in store.verify()]
    assert fault.seq == 37


@pytest.mark.usefixtures("store")
async def test_a_second_hub_on_the_same_database_is_refused(tmp_path, hub_key):
    with pytest.raises(LinesideError) as caught:
        async with open_store(tmp_path / "hub.db", hub_key):
            pass
    assert caught.value.code == "hub.running"


async def test_the_incarnation_is_the_databases(tmp_path, hub_key):
    async def incarnation(name):
        async with open_store(tmp_path / name, hub_key) as opened:
            return opened.incarnation

    assert await incarnation("a.db") == await incarnation("a.db")
    assert await incarnation("a.db") != await incarnation("b.db")


async def test_what_is_no_hub_database_is_refused_in_words(tmp_path, hub_key):
    (tmp_path / "x.db").write_bytes(b"no database" * 500)
    for path in (tmp_path / "x.db", tmp_path / "absent" / "hub.db"):
        with pytest.raises(LinesideError) as caught:
            async with open_store(path, hub_key):
                pass
        assert caught.value.code == "hub.database"


async def test_gaps_are_asked_for_once_not_once_a_frame(store, trust, device_key, hub_key, tmp_path):
    receiver = Receiver(store, trust, Address("127.0.0.1", 1, None))
    answers = Answers(tmp_path / "hub.db", hub_key)
    rows = chained(numbered(20))
    for at in range(10, 18):
        data, _ = frame.make(
            rows[at : at + 1], journal=JOURNAL, previous=rows[at - 1].hash, made_seq=20, signer=device_key
        )
        await receiver.take(answers, [Message(f"lineside/1/up/{device_key.fingerprint}/frames", data, retained=False)])
    assert len(answers.seen) == 1


def test_trust_follows_the_folder(tmp_path, device_key, hub_key):
    folder = tmp_path / "devices"
    trust = Trust(folder)
    trust.refresh()
    assert trust.keys == {}
    assert "cannot be read" in trust.faults[0]
    folder.mkdir()
    (folder / "line-1.pub").write_text(device_key.public.hex() + "\n")
    (folder / "bad.pub").write_text("zz")
    (folder / "note.txt").write_text("no key")
    assert trust.refresh()
    assert trust.keys == {device_key.fingerprint: device_key.public}
    assert trust.names == {device_key.fingerprint: "line-1"}
    assert "bad.pub" in trust.faults[0]
    assert not trust.refresh()
    (folder / "bad.pub").write_text(hub_key.public.hex())
    assert trust.refresh()
    assert len(trust.keys) == 2
    assert trust.faults == ()
