"""The verifier over ranges, segments, pruned journals and folders: as strict as over one whole file."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge.verify
from edge.core import events as ev
from edge.core.record import fingerprint
from edge.verify import Database, File, Found, Look, Range, Result, Source, Trust, find, verify, verify_files
from tests.verify.record import DEVICE, HUB, JOURNAL, STRANGER, Record, whole

KEYS = Trust({fingerprint(DEVICE.public): DEVICE.public}, {fingerprint(HUB.public): HUB.public})
VECTOR = Path(__file__).parents[1] / "archive" / "vectors" / f"{JOURNAL.hex()}-{1:020}.lsa"


def fault(result: Result) -> tuple[int, str]:
    assert not result.ok, "unnoticed"
    faults = [each.fault for each in result.files if each.fault]
    faults += [each.fault for each in result.records if each.fault]
    assert faults, [each.error for each in result.files]
    return faults[0]["row"], faults[0]["why"]


def change(path: Path, sql: str, *values: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, values)
    connection.close()


class InThisProcess:
    """What another does, without its process. It has never answered before it is waited for."""

    has_answered = False

    def begin(self, sources: Sequence[Source], trust: Trust, rows: int) -> None:
        self._works = list(edge.verify._works(sources, rows))
        self._looks = [Look(source, sources, trust) for source in sources]
        self._given: list[int] = []

    @property
    def is_free(self) -> bool:
        return len(self._given) < edge.verify.GIVEN_MAX

    def give(self, place: int) -> None:
        self._given.append(place)

    def answer(self) -> Found:
        number, work = self._works[self._given.pop(0)]
        return self._looks[number].range(work, None)


@contextmanager
def others_in_this_process(_paths: Sequence[Path], processes: int | None) -> Iterator[list[InThisProcess]]:
    yield [InThisProcess() for _ in range(1, processes or 1)]


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges of a few rows, and others that need no process."""
    monkeypatch.setattr(edge.verify, "RANGE_ROWS", 4)
    monkeypatch.setattr(edge.verify, "AHEAD_MAX", 4)
    monkeypatch.setattr(edge.verify, "_processes", others_in_this_process)


# Ranges -------------------------------------------------------------------------------------------------------------


def test_two_processes_say_what_one_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.verify, "RANGE_ROWS", 4)
    record = whole()
    record.values(300)
    record.receive(25)
    paths = [record.database(tmp_path / "journal.db"), record.mirror(tmp_path / "m.frames")]
    paths += record.segments(tmp_path, 100, 200)
    one, two = (verify_files(paths, KEYS, processes=number) for number in (1, 2))
    assert one.ok, one
    assert two == one
    change(paths[0], "UPDATE row SET body = CAST(replace(body, '\"value\":', '\"valve\":') AS BLOB) WHERE seq = 150")
    one, two = (verify_files(paths, KEYS, processes=number) for number in (1, 2))
    assert fault(one)[0] == 150
    assert two == one


@pytest.mark.usefixtures("small_ranges")
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from(["journal.db", "m.frames"]))
def test_damage_is_named_alike_however_the_rows_are_parted(tmp_path: Path, seed: int, name: str) -> None:
    path, damaged = tmp_path / name, tmp_path / f"damaged-{name}"
    if not path.exists():
        record = whole()
        record.values(20)
        record.database(path) if name.endswith(".db") else record.mirror(path)
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3))):
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
    damaged.write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(5, len(data))))])
    one, three = (verify_files([damaged], KEYS, processes=number) for number in (1, 3))
    assert three == one
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge.verify, "RANGE_ROWS", 10**6)
        assert verify_files([damaged], KEYS, processes=1).files == one.files


@pytest.mark.usefixtures("small_ranges")
@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("DELETE FROM row WHERE seq = 4", 5),
        ("DELETE FROM row WHERE seq = 5", 6),
        ("DELETE FROM row WHERE seq > 8", 0),
        ("DELETE FROM row WHERE seq BETWEEN 4 AND 9", 10),
        ("UPDATE row SET hash = zeroblob(32) WHERE seq = 4", 4),
        ("UPDATE row SET hash = zeroblob(32) WHERE seq = 5", 5),
        ("UPDATE row SET epoch = zeroblob(16) WHERE seq IN (5, 6, 7, 8)", 5),
        ("UPDATE row SET epoch = CAST(epoch AS TEXT) WHERE seq = 6", 6),
        ("UPDATE row SET hash = CAST(hash AS TEXT) WHERE seq = 6", 6),
        ("UPDATE row SET hash = CAST(hash AS TEXT) WHERE seq = 4", 4),
        ("UPDATE row SET hash = NULL WHERE seq = 8", 8),
        ("UPDATE row SET epoch = NULL WHERE seq = 12", 12),
        ("UPDATE row SET seq = 9000000000000000000 WHERE seq = 22", 9000000000000000000),
    ],
)
def test_damage_at_the_edge_of_a_range_is_named(tmp_path: Path, sql: str, row: int) -> None:
    path = whole().database(tmp_path / "journal.db")
    change(path, sql)
    for processes in (1, 2, 3):
        result = verify_files([path], KEYS, processes=processes)
        assert result.ok if row == 0 else fault(result)[0] == row


@pytest.mark.usefixtures("small_ranges")
def test_ranges_that_each_hold_do_not_hold_when_one_between_them_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Record()
    record.values(28)
    frames = record.frames()
    assert len(frames) > 3
    kept = [frames[0], *frames[2:]]
    path = tmp_path / "m.frames"
    path.write_bytes(b"LSM\x01" + b"".join(len(each).to_bytes(4, "big") + each for each in kept))
    assert fault(verify_files([path], KEYS, processes=2)) == (8, fault(verify_files([path], KEYS, processes=1))[1])
    monkeypatch.setattr(edge.verify.File, "_follows", lambda _self, _found: True)  # the planted bug
    assert verify_files([path], KEYS, processes=2).ok, "only the boundary shows it"


def test_a_hash_without_the_number_is_not_taken_for_a_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = whole().database(tmp_path / "journal.db")
    plain = edge.verify.chained
    monkeypatch.setattr(edge.verify, "ROW_DOMAIN", b"lineside.row.2")
    assert fault(verify_files([path], KEYS))[0] == 1
    monkeypatch.undo()
    monkeypatch.setattr(edge.verify, "chained", lambda j, e, _first, h, b: plain(j, e, 0, h, b))  # the planted bug
    mirror = whole().mirror(tmp_path / "m.frames")
    assert fault(verify_files([mirror], KEYS))[0] == 1


@pytest.mark.parametrize("name", ["journal.db", "m.frames"])
def test_a_process_that_dies_is_never_taken_for_one_that_found_all_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(edge.verify, "RANGE_ROWS", 4)
    record = whole()
    path = record.database(tmp_path / name) if name.endswith(".db") else record.mirror(tmp_path / name)
    one = verify_files([path], KEYS, processes=1)
    assert one.ok, one
    for begins in (cannot_fork, fails_at_once, dies_in_the_middle):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*begins)
            assert verify_files([path], KEYS, processes=2) == one
            patch.setattr(File, "take", skips_what_is_missing)  # the planted bug
            assert (verify_files([path], KEYS, processes=2) == one) is (begins is cannot_fork)


def test_a_fault_in_the_other_process_is_told_and_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = whole().database(tmp_path / "journal.db")
    monkeypatch.setattr(edge.verify, "_help", broken_help)
    assert verify_files([path], KEYS, processes=2) == verify_files([path], KEYS, processes=1)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_no_database_is_open_when_another_process_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    def forks(fork: Any = os.fork) -> int:
        did.append("fork")
        return fork()

    def opens(database: Database, path: Path, make: Any = Database.__init__) -> None:
        did.append("open")
        make(database, path)

    def closes(database: Database, close: Any = Database.close) -> None:
        did.append("close")
        close(database)

    path = whole().database(tmp_path / "journal.db")
    change(path, "DELETE FROM row WHERE seq = 5")
    monkeypatch.setattr(os, "fork", forks)
    monkeypatch.setattr(Database, "__init__", opens)
    monkeypatch.setattr(Database, "close", closes)
    monkeypatch.setattr(File, "changed_meanwhile", lambda _file: True)  # so that all of it is done again
    assert fault(verify_files([path], KEYS, processes=2, again=1))[0] == 6
    assert did == ["fork", "open", "close"] * 2


def test_an_interrupt_ends_all_processes_and_says_nothing_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    begun: list[int] = []

    def interrupted(*_arguments: object) -> Found:
        raise KeyboardInterrupt

    def begins(fork: Any = os.fork) -> int:
        begun.append(fork())
        return begun[-1]

    path = whole().database(tmp_path / "journal.db")
    monkeypatch.setattr(edge.verify, "RANGE_ROWS", 4)
    monkeypatch.setattr(os, "fork", begins)
    monkeypatch.setattr(Look, "range", interrupted)
    assert edge.verify.main([str(path), "--processes", "2"]) == 130
    [process] = begun
    with pytest.raises(ChildProcessError):  # it was ended and waited for
        os.waitpid(process, os.WNOHANG)
    assert capfd.readouterr().out == ""


def no_fork() -> int:
    raise OSError


def broken_help(*_files: object) -> None:
    raise ZeroDivisionError


def half_an_answer(_said: object, says: BinaryIO) -> None:
    says.write(b'{"first": 1, "last": 4, "previous": "00')
    says.flush()
    os.kill(os.getpid(), signal.SIGKILL)


cannot_fork = (os, "fork", no_fork)
fails_at_once = (edge.verify, "_help", lambda *_files: os._exit(1))
dies_in_the_middle = (edge.verify, "_help", half_an_answer)


def skips_what_is_missing(file: File, work: Range, found: Found | None = None, take: Any = File.take) -> None:
    if found is None or found.first:
        take(file, work, found)


@given(
    st.lists(st.sampled_from(["kind", "Sealed", "\\", "x", "RowsPruned"]), max_size=4), st.sampled_from(["Sealed", "A"])
)
def test_no_body_of_a_checked_kind_is_passed_over(words: list[str], kind: str) -> None:
    facts = {word: word for word in words}
    bodies = [
        json.dumps({"kind": kind, "facts": facts}, separators=(",", ":")).encode(),
        json.dumps({"facts": facts, "kind": kind}).encode(),
        b'{"kind":"A","kind":"' + kind.encode() + b'"}',
        b'{"kind":"\\u0053ealed"}',
    ]
    for body in bodies:
        says = json.loads(body)["kind"]
        for around in ([], [b'{"kind":"A","v":1}'] * 3):
            found = edge.verify.may_say([*around, body])
            assert says == "A" or len(around) in found


# Segments -----------------------------------------------------------------------------------------------------------


def test_the_vector_of_the_page_holds() -> None:
    report = verify(VECTOR, KEYS)
    assert report.ok, report
    assert (report.kind, report.rows, report.head_hash) == ("segment", 22, whole().rows[-1].hash.hex())
    assert (report.seals, report.receipts, report.signatures, len(report.epochs)) == (3, 2, 2, 2)
    assert "The signature of the segment" in " ".join(verify(VECTOR, Trust()).not_checked)
    other = Trust({fingerprint(STRANGER.public): STRANGER.public})
    assert "whose key was not given" in str(verify(VECTOR, other).fault)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_every_flipped_bit_and_every_cut_of_a_segment_is_found(tmp_path: Path, seed: int) -> None:
    rng, data = random.Random(seed), bytearray(VECTOR.read_bytes())
    bit = rng.randrange(len(data) * 8)
    data[bit // 8] ^= 1 << bit % 8
    damaged = tmp_path / "damaged.lsa"
    for content in (data, VECTOR.read_bytes()[: rng.randrange(1, len(data))], VECTOR.read_bytes() + b"\0"):
        damaged.write_bytes(content)
        report = verify(damaged, KEYS)
        assert not report.ok
        assert report.fault or report.error


def test_damage_within_a_segment_is_named_where_it_is(tmp_path: Path) -> None:
    """By the first row of its block: rows in a segment have no hashes of their own."""
    data = VECTOR.read_bytes()
    place, row = edge.verify.SEGMENT_HEADER.size, 1
    blocks = []
    while place < len(data) - edge.verify.SEGMENT_END_BYTES:
        _, count, _, packed = edge.verify.BLOCK_HEADER.unpack_from(data, place)
        blocks.append((place + edge.verify.BLOCK_HEADER.size + packed // 2, row))
        place, row = place + edge.verify.BLOCK_HEADER.size + packed, row + count
    assert len(blocks) > 1
    damaged = tmp_path / "damaged.lsa"
    for at, first in [*blocks, (len(data) - 80, 1), (len(data) - 1, 1)]:
        damaged.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = verify(damaged, KEYS).fault
        assert found is not None
        assert found["row"] == first
        assert ("hash or signature does not fit" in found["why"]) is ((at, first) in blocks), found
        assert ("in its header, hash or signature" in found["why"]) is ((at, first) not in blocks), found


# Pruned journals and folders ----------------------------------------------------------------------------------------


def pruned(folder: Path) -> tuple[Record, Path, list[Path]]:
    """A journal that begins at row 15, and the two segments with what it had before."""
    record = whole()
    segments = record.segments(folder, 10, 14, 22)[:2]
    record.prune(1, 14, segments)
    record.seal()
    journal = record.database(folder / "journal.db")
    change(journal, "DELETE FROM row WHERE seq <= 14")
    (folder / f"{JOURNAL.hex()}-{15:020}.lsa").unlink()
    return record, journal, segments


def test_a_pruned_journal_holds_from_its_first_row_on(tmp_path: Path) -> None:
    record, journal, segments = pruned(tmp_path)
    report = verify(journal, KEYS)
    assert report.ok, report
    assert (report.first_row, report.last_row, report.rows) == (15, 24, 10)
    assert any("Rows 1 to 14" in each for each in report.not_checked)
    result = verify_files(
        [journal, *reversed(segments)], Trust(KEYS.devices, KEYS.hubs, heads=((3, record.rows[2].hash),))
    )
    assert result.ok, result
    (together,) = result.records
    assert (together.first_row, together.last_row, together.head_hash) == (1, 24, record.rows[-1].hash.hex())
    assert together.not_checked == []


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.usefixtures("small_ranges")
def test_what_is_wrong_in_a_pruned_journal_or_its_archive_is_named(tmp_path: Path, processes: int) -> None:
    record, journal, (one, two) = pruned(tmp_path)
    kept = journal.read_bytes()

    def named(*paths: Path) -> tuple[int, str]:
        return fault(verify_files(paths, KEYS, processes=processes))

    assert named(one, journal)[0] == 11, "a segment is missing"
    assert "rows 11 to 14 are in none" in named(journal, one)[1]
    change(journal, "DELETE FROM row WHERE seq = 15")
    assert named(journal, one, two) == (16, "Row 16 follows row 14: row 15 is missing.")
    journal.write_bytes(kept)
    change(journal, "DELETE FROM row WHERE seq = 18")
    assert named(journal, one, two)[0] == 19
    journal.write_bytes(kept)
    change(journal, "UPDATE row SET body = CAST(replace(body, 'last_seq', 'last_seo') AS BLOB) WHERE seq = 15")
    assert named(journal)[0] == 15
    journal.write_bytes(kept)
    change(journal, "UPDATE row SET epoch = zeroblob(16) WHERE seq = 15")
    assert named(journal)[0] == 15
    journal.write_bytes(kept)
    # Rows that were taken out without a row that says so.
    change(journal, "DELETE FROM row WHERE seq < 17")
    assert named(journal)[0] == 17
    journal.write_bytes(kept)
    # Another segment in the place of the one that was named, with the right rows before and after it.
    other = tmp_path / "other"
    other.mkdir()
    (whole_in_one,) = record.segments(other, 14)
    assert named(journal, whole_in_one)[0] == 23
    assert "another segment" in named(journal, whole_in_one)[1]


def test_what_a_pruning_says_must_be_so(tmp_path: Path) -> None:
    record = whole()
    segments = record.segments(tmp_path, 14)
    receipt = record.receipt(14)
    for first, through, digest, kept in (
        (1, 14, "00" * 32, ""),
        (9, 4, record.rows[3].hash.hex(), ""),
        (1, 40, "00" * 32, ""),
        (1, 14, record.rows[13].hash.hex(), receipt),  # its safe_seq is 0
        (1, 14, record.rows[13].hash.hex(), "{}"),
    ):
        forged = whole()
        safe = "hub" if kept else "medium"
        forged.add(
            ev.RowsPruned(
                first_seq=first, through_seq=through, through_hash=digest, safe=safe, receipt=kept, segments=[]
            )
        )
        path = forged.database(tmp_path / f"{len(list(tmp_path.iterdir()))}.db")
        assert fault(verify_files([path], KEYS))[0] == 23
    assert segments[0].exists()


def test_files_of_one_journal_must_agree_row_by_row(tmp_path: Path) -> None:
    honest = whole()
    forged = Record()
    forged.rows = honest.rows[:8]
    forged.values(20)
    forged.seal()
    journal, mirror = forged.database(tmp_path / "journal.db"), honest.mirror(tmp_path / "m.frames")
    assert verify(journal, KEYS).ok
    assert verify(mirror, KEYS).ok
    row, why = fault(verify_files([mirror, journal], KEYS))
    assert row == 10, "row 9 is the same in both"
    assert "m.frames" in why
    assert "journal.db" in why
    segment = honest.segments(tmp_path, 8, 12)[1]
    assert fault(verify_files([journal, segment], KEYS))[0] == 10
    assert verify_files([mirror, segment], KEYS).ok


def test_a_folder_of_parts_is_verified_as_one_whole(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    (stick / "archive").mkdir(parents=True)
    record, journal, segments = pruned(stick)
    for each in segments:
        each.rename(stick / "archive" / each.name)
    (stick / "receipt.json").write_text(record.receipt(20))
    (stick / "device.pub").write_text(DEVICE.public.hex())
    (stick / "notes.txt").write_text("hello")
    (stick / "views.db").write_bytes(b"")
    parts = find([stick])
    assert len(parts.files) == 3
    assert len(parts.receipts) == 1
    assert sorted(each.split(":")[0] for each in parts.unknown) == [
        str(stick / name) for name in ("device.pub", "notes.txt", "views.db")
    ]
    (tmp_path / "device.pub").write_text(DEVICE.public.hex())
    told = alone(stick, "--key", tmp_path / "device.pub", "--processes", "2")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "ONE CHAIN: rows 1 to 24" in told.stdout
    assert "notes.txt: nothing that can be verified" in told.stdout
    # The hub's receipt, kept in the folder, names a row that was cut off.
    (stick / "receipt.json").write_text(record.receipt())
    change(journal, "DELETE FROM row WHERE seq > 23")
    said = json.loads(alone(stick, "--json").stdout)
    assert set(said) == {"ok", "files", "records", "unknown"}
    assert said["ok"] is False
    assert said["records"][0]["fault"]["row"] == 24
    (stick / "archive" / segments[0].name).unlink()
    assert json.loads(alone(stick, "--json").stdout)["records"][0]["first_row"] == 11


def test_an_empty_folder_is_no_success(tmp_path: Path) -> None:
    assert alone(tmp_path).returncode == 2


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_no_flipped_bit_in_any_file_of_a_folder_goes_unnoticed(tmp_path: Path, seed: int) -> None:
    stick = tmp_path / "stick"
    if not stick.exists():
        stick.mkdir()
        record, _, _ = pruned(stick)
        record.mirror(stick / "m.frames")
    rng = random.Random(seed)
    paths = find([stick]).files
    path = rng.choice([each for each in paths if each.suffix != ".db"])
    kept = path.read_bytes()
    flipped = bytearray(kept)
    bit = rng.randrange(len(kept) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(flipped)
        assert not verify_files(paths, KEYS).ok
    finally:
        path.write_bytes(kept)


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(edge.verify.__file__), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
