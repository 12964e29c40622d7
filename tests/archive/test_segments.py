"""Segments: whole or not at all, every flipped bit found, read a block at a time."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.archive as archive
from edge.archive import Record, Segment, SegmentFile, list_segments, name_of, verify_segment, write_segment
from edge.core.errors import LinesideError
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.journal import JournalReader
from tests.verify.record import DEVICE, HUB, JOURNAL, whole
from tests.verify.record import Record as Rows

TRUSTED = {fingerprint(DEVICE.public): DEVICE.public}
VECTOR = Path(__file__).parent / "vectors" / name_of(JOURNAL, 1)
BEGIN = (0, ZERO_HASH)


def refused(code: str, work: Callable[[], object]) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        work()
    assert error.value.code == code, error.value
    assert error.value.todo
    return error.value


def written(rows: Rows, folder: Path, *, after: tuple[int, bytes] = BEGIN, until: int = 1 << 40) -> Segment:
    journal = folder / "journal.db"
    if not journal.exists():
        rows.database(journal)
    with JournalReader(journal) as reader:
        return write_segment(reader, folder, after=after, until_seq=until, signer=DEVICE)


def forged(path: Path, data: bytes) -> Path:
    """The bytes before hash and signature, with a right hash and a right signature."""
    digest = hashlib.sha256(data).digest()
    path.write_bytes(data + digest + DEVICE.sign(b"lineside.segment.1", digest))
    return path


def test_a_segment_gives_back_every_row_across_an_epoch(tmp_path: Path) -> None:
    rows = whole()
    segment = written(rows, tmp_path)
    assert (segment.first_seq, segment.last_seq, segment.head) == (1, 22, rows.head[1])
    assert hashlib.sha256(segment.path.read_bytes()).hexdigest() == segment.sha256
    with SegmentFile(segment.path, TRUSTED) as file:
        file.check()
        assert file.rows(0, 100) == rows.rows
        for after in range(23):
            for limit in (1, 2, 100):
                assert file.rows(after, limit) == rows.rows[after : after + limit]


def test_the_segment_in_the_vectors_is_read_and_made_again_to_its_rows(tmp_path: Path) -> None:
    rows = Rows()
    for row in json.loads((VECTOR.parents[2] / "verify" / "vectors" / "record.json").read_text(encoding="utf-8"))[
        "rows"
    ]:
        rows.rows.append(Row(row["seq"], bytes.fromhex(row["epoch"]), bytes.fromhex(row["hash"]), row["body"].encode()))
    with SegmentFile(VECTOR, TRUSTED) as file:
        assert file.rows(0, 100) == rows.rows
        made = written(rows, tmp_path)
        assert (made.first_seq, made.count, made.head) == (1, file.segment.count, file.segment.head)


def test_segments_follow_each_other_and_with_the_journal_are_one_record(tmp_path: Path) -> None:
    rows = whole()
    one = written(rows, tmp_path, until=9)
    two = written(rows, tmp_path, after=(9, one.head), until=15)
    three = written(rows, tmp_path, after=(15, two.head), until=20)
    assert [(each.first_seq, each.last_seq) for each in list_segments(tmp_path, JOURNAL)] == [
        (1, 9),
        (10, 15),
        (16, 20),
    ]
    pruned = tmp_path / "p" / "journal.db"
    pruned.parent.mkdir()
    rest = Rows()
    rest.rows = rows.rows[18:]
    rest.database(pruned)
    with Record(pruned, tmp_path, TRUSTED) as record:
        assert record.kept_from() == 19
        assert record.head() == rows.head
        assert read(record, 7) == rows.rows
        assert read(record, 1) == rows.rows
        assert [record.rows(seq, 1)[0] for seq in range(21, -1, -1)] == rows.rows[::-1]
        two.path.rename(tmp_path / "elsewhere")
        refused("archive.rows_absent", lambda: record.rows(11, 1))
        assert record.rows(16, 1) == rows.rows[16:17]
    refused("archive.gap", lambda: list_segments(tmp_path, JOURNAL))
    with Record(pruned, None, TRUSTED) as record:
        refused("archive.rows_absent", lambda: record.rows(0, 1))
        assert record.rows(18, 9) == rows.rows[18:]
    assert three.previous == two.head


def read(record: Record, at_once: int) -> list[object]:
    found: list[object] = []
    while rows := record.rows(len(found), at_once):
        found += rows
    return found


def test_damage_in_the_middle_of_a_journal_is_not_hidden_by_its_archive(tmp_path: Path) -> None:
    rows = whole()
    written(rows, tmp_path)
    holed = Rows()
    holed.rows = rows.rows[:5] + rows.rows[7:]
    holed.database(tmp_path / "holed.db")
    with Record(tmp_path / "holed.db", tmp_path, TRUSTED) as record:
        assert [row.seq for row in record.rows(5, 2)] == [8, 9]


def test_rows_that_do_not_hold_are_never_archived(tmp_path: Path) -> None:
    rows = whole()
    refused("journal.damaged", lambda: written(rows, tmp_path, after=(3, ZERO_HASH)))
    holed = Rows()
    holed.rows = rows.rows[:5] + rows.rows[7:]
    (tmp_path / "h").mkdir()
    refused("journal.damaged", lambda: written(holed, tmp_path / "h"))
    assert not list(tmp_path.rglob("*.lsa"))


def test_blocks_and_segments_are_bounded(tmp_path: Path) -> None:
    rows = Rows()
    rows.values(3_000)
    with mock.patch.multiple(archive, SEGMENT_ROWS_MAX=2_000, BLOCK_RAW_BYTES_MAX=4_096):
        segment = written(rows, tmp_path)
        assert segment.count == 2_000
        rest = written(rows, tmp_path, after=(2_000, segment.head))
    assert rest.count == 1_000
    with SegmentFile(segment.path, TRUSTED) as file:
        assert len(file._blocks) > 100
        assert file.rows(1_234, 700) == rows.rows[1_234:1_934]
    with mock.patch.object(archive, "RAW_BYTES_MAX", 50_000):
        few = written(rows, tmp_path, after=(rest.last_seq - 900, rows.rows[2_099].hash))
    assert few.raw_bytes <= 50_000
    assert few.count > 100


def test_every_flipped_bit_of_a_segment_is_found(tmp_path: Path) -> None:
    rows = Rows()
    rows.values(3)
    data = written(rows, tmp_path).path.read_bytes()
    flipped = tmp_path / name_of(JOURNAL, 1)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(changed)
        with pytest.raises(LinesideError, match="archive") as error:
            verify_segment(flipped, TRUSTED)
        assert error.value.code in {"archive.damaged", "archive.foreign"}
    for size in range(len(data)):
        flipped.write_bytes(data[:size])
        with pytest.raises(LinesideError):
            verify_segment(flipped, TRUSTED)
    flipped.write_bytes(data + b"\0")
    refused("archive.damaged", lambda: verify_segment(flipped, TRUSTED))


def test_flips_are_found_by_the_hash_and_not_by_luck(tmp_path: Path) -> None:
    """Planted: without its hash, a flip in the signature's place or in a packed block's checksum would pass."""
    data = bytearray(VECTOR.read_bytes())
    data[-1] ^= 1
    path = tmp_path / VECTOR.name
    path.write_bytes(data)
    with mock.patch.object(archive, "signature_holds", return_value=True):
        verify_segment(path, TRUSTED)
    refused("archive.damaged", lambda: verify_segment(path, TRUSTED))


def test_a_segment_of_another_device_is_read_with_its_key_only(tmp_path: Path) -> None:
    path = written(whole(), tmp_path).path
    said = refused("archive.unknown_device", lambda: verify_segment(path, {fingerprint(HUB.public): HUB.public}))
    assert "former_keys" in said.todo


def test_what_a_trusted_device_signed_is_bounded_all_the_same(tmp_path: Path) -> None:
    data = VECTOR.read_bytes()[:-96]
    path = tmp_path / VECTOR.name
    header = struct.Struct(">4s16s16sQI32s32sI")
    facts = list(header.unpack_from(data))
    body = data[header.size :]

    def with_facts(**changed: object) -> Path:
        now = facts.copy()
        for name, value in changed.items():
            now[["magic", "device", "journal", "first", "count", "previous", "head", "raw"].index(name)] = value
        return forged(path, header.pack(*now) + body)

    verify_segment(with_facts(), TRUSTED)
    for changed in (
        {"count": 0},
        {"count": 21},
        {"count": 23},
        {"count": 2**32 - 1},
        {"first": 0},
        {"first": 2},
        {"first": 2**64 - 1},
        {"previous": b"x" * 32},
        {"head": b"x" * 32},
        {"raw": 0},
        {"raw": 2**32 - 1},
        {"journal": b"y" * 16},
    ):
        refused("archive.damaged", lambda changed=changed: verify_segment(with_facts(**changed), TRUSTED))
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(200_000_000))
    blind = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0\0\0\1x")
    wide = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, enable_ldm=True)
    ).compressobj(size=100)
    wide = wide.compress(bytes(100)) + wide.flush()
    for packed in (bomb, blind, b"", b"not zstd", body[56:60], wide):
        block = struct.pack(">16sI32sI", bytes(16), 22, facts[6], len(packed)) + packed
        refused(
            "archive.damaged", lambda block=block: verify_segment(forged(path, data[: header.size] + block), TRUSTED)
        )


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_any_bytes_are_refused_in_words(tmp_path_factory: pytest.TempPathFactory, tail: bytes, signed: bool) -> None:
    path = tmp_path_factory.mktemp("any") / VECTOR.name
    data = VECTOR.read_bytes()[:116] + tail
    if signed:
        forged(path, data)
    else:
        path.write_bytes(data)
    with pytest.raises(LinesideError) as error:
        verify_segment(path, TRUSTED)
    assert error.value.code.startswith("archive.")


# Power cuts and media that fail ------------------------------------------------------------------------------------


CALLS = ("open", "write", "fsync", "posix_fadvise", "rename", "sync_folder")


class Cut(BaseException):
    """The power is gone."""


def cut_at(number: int, error: type[BaseException]) -> Iterator[mock._patch[object]]:
    """Patches that count file operations and fail from operation `number` on."""
    seen = [0]

    def counted(work: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            seen[0] += 1
            if seen[0] >= number:
                raise error(5, "planted")
            return work(*args, **kwargs)

        return call

    yield mock.patch.object(os, "fsync", counted(os.fsync))
    yield mock.patch.object(os, "posix_fadvise", counted(os.posix_fadvise))
    yield mock.patch.object(Path, "open", counted(Path.open))
    yield mock.patch.object(Path, "rename", counted(Path.rename))
    yield mock.patch.object(archive, "sync_folder", counted(archive.sync_folder))


@pytest.mark.parametrize("error", [Cut, OSError])
def test_a_segment_is_there_whole_or_not_at_all_wherever_it_is_cut(tmp_path: Path, error: type[BaseException]) -> None:
    rows = whole()
    rows.database(tmp_path / "journal.db")
    ended = 0
    for number in range(1, 20):
        folder = tmp_path / str(number)
        folder.mkdir()
        with JournalReader(tmp_path / "journal.db") as reader:
            patches = list(cut_at(number, error))
            for patch in patches:
                patch.start()
            try:
                write_segment(reader, folder, after=BEGIN, until_seq=22, signer=DEVICE)
                ended += 1
            except Cut:
                pass
            except LinesideError as refusal:
                assert refusal.code in {"archive.cannot_write", "archive.unreadable"}
                if error is OSError:
                    assert not [path for path in folder.iterdir() if path.suffix == ".part"] or number > 1
            finally:
                for patch in patches:
                    patch.stop()
        for path in folder.glob("*.lsa"):
            assert verify_segment(path, TRUSTED).head == rows.head[1]
        shutil.rmtree(folder)
    assert ended >= 5, "the cuts must reach behind the last operation"


def test_a_medium_that_forgets_what_it_took_is_found_by_reading_back(tmp_path: Path) -> None:
    """The write says done, and the medium holds something else."""
    rng = random.Random(3)

    def forgetful(file: object, *parts: bytes) -> None:
        data = bytearray(b"".join(parts))
        data[rng.randrange(len(data))] ^= 4
        file.write(data)  # type: ignore[attr-defined]
        file.flush()  # type: ignore[attr-defined]

    rows = whole()
    with mock.patch.object(archive, "_write_durable", forgetful):
        for _ in range(30):
            with pytest.raises(LinesideError, match=r"archive\.(damaged|foreign|unknown_device)"):
                written(rows, tmp_path)
        assert not list(tmp_path.glob("*.lsa"))
        unread = Segment(VECTOR, "", JOURNAL, 1, 22, ZERO_HASH, ZERO_HASH, 0, 0, "")
        with mock.patch.object(archive, "verify_segment", return_value=unread):
            written(rows, tmp_path)  # planted: not read back
    assert list(tmp_path.glob("*.lsa")), "the planted bug must let a damaged segment through"
    with pytest.raises(LinesideError):
        verify_segment(next(tmp_path.glob("*.lsa")), TRUSTED)
