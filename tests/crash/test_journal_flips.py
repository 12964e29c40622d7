"""Any change to what was recorded is found, and the row is named. A damaged file is a sentence, not a traceback."""

from __future__ import annotations

import random

import apsw
import pytest

import edge.core.record
from edge.core.errors import LinesideError
from edge.core.record import row_hash
from edge.journal import JournalReader, open_journal, show_rows, verify_journal
from tests.crash.runs import body, flips

ROWS = 40


@pytest.fixture
async def path(tmp_path):
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        await journal.append([body(f"n{i}", "x" * 500) for i in range(ROWS)]).durable()
    return tmp_path / "journal.db"


def _change(path, sql, *values):
    connection = apsw.Connection(str(path))
    connection.execute(sql, values)
    connection.close()


@pytest.mark.parametrize("column", ["epoch", "hash", "body"])
def test_a_flipped_bit_names_its_row(path, column):
    rng = random.Random(column)
    with JournalReader(path) as reader:
        rows = reader.rows(0, ROWS)
    for row in rows:
        was = getattr(row, column)
        bit = rng.randrange(len(was) * 8)
        flipped = bytearray(was)
        flipped[bit // 8] ^= 1 << bit % 8
        _change(path, f"UPDATE row SET {column} = ? WHERE seq = ?", bytes(flipped), row.seq)
        report = verify_journal(path)
        assert report.fault is not None
        assert report.fault.seq == row.seq
        assert report.rows == row.seq - 1
        _change(path, f"UPDATE row SET {column} = ? WHERE seq = ?", was, row.seq)
    assert verify_journal(path).ok


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE row SET seq = seq + 1000 WHERE seq = 12", 13),
        ("UPDATE row SET seq = -seq WHERE seq = 12", -12),
        ("UPDATE row SET seq = 0 WHERE seq = 40", 0),
        ("DELETE FROM row WHERE seq = 1", 2),
        ("DELETE FROM row WHERE seq = 20", 21),
        ("UPDATE row SET body = NULL WHERE seq = 5", 5),
        ("UPDATE row SET hash = x'00' WHERE seq = 5", 5),
        ("UPDATE row SET epoch = 'text of sixteen.' WHERE seq = 5", 5),
        ("UPDATE row SET body = CAST(x'ff41' AS TEXT) WHERE seq = 5", 5),
        ("UPDATE row SET body = zeroblob(50000000) WHERE seq = 5", 5),
        ("DELETE FROM row WHERE seq > 30", 31),
        ("DELETE FROM row", 1),
        ("UPDATE meta SET value = randomblob(16) WHERE name = 'journal'", 1),
        ("UPDATE meta SET value = x'00' WHERE name = 'journal'", 0),
        ("DELETE FROM meta", 0),
        ("DROP TABLE row", 0),
        ("CREATE TRIGGER t AFTER INSERT ON row BEGIN DELETE FROM row WHERE seq = 3; END", 0),
        ("ALTER TABLE row ADD COLUMN more", 0),
    ],
)
def test_a_change_through_sql_is_named(path, sql, named):
    whole = verify_journal(path)
    _change(path, sql)
    report = verify_journal(path, expect_head=(whole.head_seq, bytes.fromhex(whole.head_hash)))
    assert report.fault is not None
    assert report.fault.seq == named
    assert report.fault.why


def test_a_rewritten_end_differs_from_the_expected_head(path):
    with JournalReader(path) as reader:
        rows = reader.rows(0, ROWS)
        journal_id = reader.journal_id
    last, before = rows[-1], rows[-2]
    forged = row_hash(journal_id, last.epoch, last.seq, before.hash, b"{}")
    _change(path, "UPDATE row SET body = x'7b7d', hash = ? WHERE seq = ?", forged, ROWS)
    assert verify_journal(path).ok, "a forger with the file alone is only found by what others hold"
    report = verify_journal(path, expect_head=(last.seq, last.hash))
    assert report.fault is not None
    assert report.fault.seq == ROWS


def test_flipped_bits_in_the_file_are_found_when_they_change_the_record(path):
    with JournalReader(path) as reader:
        rows = reader.rows(0, ROWS)
    assert sum(flips(path, rows, random.Random(5), 400)) > 200


@pytest.mark.parametrize("keep", [0, 1, 99, 100, 4095, 4096, 8192, 20000])
def test_a_file_cut_off_is_a_sentence(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    if keep == 0:
        with pytest.raises(LinesideError, match=r"journal\.absent"):
            verify_journal(path)
    else:
        report = verify_journal(path, expect_head=(ROWS, bytes(32)))
        assert report.fault is not None


async def test_a_journal_with_a_damaged_end_is_not_continued(path):
    _change(path, "UPDATE row SET body = x'7b7d' WHERE seq = 40")
    with pytest.raises(LinesideError, match=r"journal\.damaged: Row 40"):
        async with open_journal(path, path.with_name("epoch")):
            pass


async def test_verification_reports_its_progress_in_chunks_and_shows_unknown_kinds(path, monkeypatch):
    monkeypatch.setattr("edge.journal.READ_ROWS_MAX", 15)
    seen = []
    assert verify_journal(path, progress=lambda done, of: seen.append((done, of))).ok
    assert seen == [(15, 40), (30, 40), (40, 40)]
    _change(path, "UPDATE row SET body = ? WHERE seq = 2", b'{"kind":"FromTheFuture","v":9}')
    _change(path, "UPDATE row SET body = ? WHERE seq = 3", b"\xff not json")
    shown = show_rows(path, 1, 2)
    assert shown[0].says == {"kind": "FromTheFuture", "v": 9}
    assert (shown[1].seq, shown[1].says, shown[1].text) == (3, None, "\N{REPLACEMENT CHARACTER} not json")


# The bug that the hash exists for, planted -----------------------------------------------------------------


def _uncovered() -> set[str]:
    """What a change of leaves the hash as it was."""
    row = {"journal": bytes(16), "epoch": bytes(16), "seq": 7, "previous": bytes(32), "body": b"{}"}
    other = {"journal": b"j" * 16, "epoch": b"e" * 16, "seq": 8, "previous": b"p" * 32, "body": b"[]"}
    digest = edge.core.record.row_hash(**row)
    return {name for name in row if edge.core.record.row_hash(**row | {name: other[name]}) == digest}


def test_the_hash_covers_everything():
    assert _uncovered() == set()


def test_planted_hash_without_seq_is_found(monkeypatch):
    def without_seq(journal, epoch, previous, body, **_):
        return journal + epoch + previous + body

    monkeypatch.setattr(edge.core.record, "row_hash", without_seq)
    assert _uncovered() == {"seq"}
