"""The archive: rows of the journal in segments, one signed file each, and the record that spans both.

A segment's form is in `docs/reference/record-format.md`. It is written beside its place, synced, read back from the
medium, verified to the last row, and only then named; a power cut leaves it whole or not at all. Segments follow each
other without a gap, so that archive and journal together are every row from the first one on.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from edge.config import Archive, Config
from edge.core.errors import LinesideError
from edge.core.events import Sealed, decode
from edge.core.quick import dataclass
from edge.core.record import ZERO_HASH, Row, Signer, chain_faults, fingerprint, row_hash, signature_holds
from edge.identity import DeviceKey, read_public, sync_folder
from edge.journal import READ_ROWS_MAX, JournalReader

SEGMENT_DOMAIN: Final = b"lineside.segment.1"
MAGIC: Final = b"LSA\x01"
SEGMENT_ROWS_MAX: Final = 65_536
"""With rows of 400 bytes about 25 MiB of journal in 3 MiB: some tens of files a year, each checked in a second."""
RAW_BYTES_MAX: Final = 16 * 1024 * 1024
"""A segment's rows before they are packed; what writing one takes of memory at most."""
FILE_BYTES_MAX: Final = 20 * 1024 * 1024
BLOCK_RAW_BYTES_MAX: Final = 262_144
"""Reading a row unpacks so much at most. Four times the longest row."""
BLOCK_PACKED_BYTES_MAX: Final = 266_240
SEGMENT_ROWS_MIN: Final = 4_096
"""The follower waits until so many rows are due, lest a quiet box fill the folder with small files."""
KEPT_ROWS_MIN: Final = 1_000
"""So many rows stay whatever their age: a clock that is wrong must not empty the journal."""
PACK_LEVEL: Final = 9
CHUNK_BYTES: Final = 256 * 1024
SEQ_MAX: Final = 2**63 - 1
UNSEALED_ROWS_MAX: Final = 4_096
"""A box seals after 256 rows, or a few more that were accepted together; see docs/reference/record-format.md."""

_HEADER: Final = struct.Struct(">4s16s16sQI32s32sI")
_BLOCK: Final = struct.Struct(">16sI32sI")
_LENGTH: Final = struct.Struct(">I")
_TRAILER_BYTES: Final = 32 + 64
_NAME: Final = re.compile(r"([0-9a-f]{32})-([0-9]{20})\.lsa")

_LEFT: Final = "Nothing is taken out of the journal because of it; work goes on."

Progress = Callable[[str, int, int], object]
"""Called with what is counted, how much is done and how much there is."""


def _quiet(_what: str, _done: int, _total: int) -> None:
    """Nobody asked."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What a segment says of itself, its signature verified: these rows of this journal, from `previous` to `head`."""

    path: Path
    device: str
    journal: bytes
    first_seq: int
    count: int
    previous: bytes
    head: bytes
    raw_bytes: int
    file_bytes: int
    sha256: str
    """Of the whole file."""

    @property
    def last_seq(self) -> int:
        """The last row in it."""
        return self.first_seq + self.count - 1

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "file": self.path.name,
            "journal": self.journal.hex(),
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "head_hash": self.head.hex(),
            "raw_bytes": self.raw_bytes,
            "file_bytes": self.file_bytes,
            "sha256": self.sha256,
        }


# Reading one -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    first_seq: int
    count: int
    epoch: bytes
    previous: bytes
    head: bytes
    offset: int
    packed_bytes: int


class SegmentFile:
    """One open segment. Rows are unpacked a block at a time, whatever the file's size. One thread each."""

    def __init__(self, path: Path, trusted: Mapping[str, bytes]) -> None:
        """Read its frame and check its hash and its signature with the keys of `trusted` (device id -> 32 bytes).

        Raises `archive.unreadable`, `archive.foreign`, `archive.unknown_device` or `archive.damaged`."""
        self._path = path
        self._held: tuple[_Block, list[Row]] | None = None
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            self.segment = self._read_frame(trusted)
            self._blocks = self._read_blocks()
        except OSError as error:
            self._file.close()
            raise _unreadable(path, error) from error
        except BaseException:
            self._file.close()
            raise
        self._firsts = [block.first_seq for block in self._blocks]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow `after_seq`, in order, each hashed again; empty after the last one.

        Raises `archive.damaged` or `archive.unreadable`."""
        found: list[Row] = []
        at = max(bisect_right(self._firsts, after_seq + 1) - 1, 0)
        while at < len(self._blocks) and len(found) < limit:
            rows = self._rows_of(self._blocks[at])
            start = max(after_seq + 1 - rows[0].seq, 0)
            found += rows[start : start + limit - len(found)]
            at += 1
        return found

    def _rows_of(self, block: _Block) -> list[Row]:
        if self._held is None or self._held[0] is not block:
            try:
                self._held = (block, self._unpack(block))
            except OSError as error:
                raise _unreadable(self._path, error) from error
        return self._held[1]

    def check(self, progress: Progress = _quiet) -> None:
        """Unpack and hash every row. Raises `archive.damaged` or `archive.unreadable`."""
        raw_bytes = 0
        for block in self._blocks:
            raw_bytes += sum(_LENGTH.size + len(row.body) for row in self._rows_of(block))
            progress("rows verified", block.first_seq + block.count - self.segment.first_seq, self.segment.count)
        self._held = None
        if raw_bytes != self.segment.raw_bytes:
            raise self._damaged("its rows have another size than it says")

    def _read_frame(self, trusted: Mapping[str, bytes]) -> Segment:
        size = os.fstat(self._file.fileno()).st_size
        header = self._file.read(_HEADER.size)
        if header[: len(MAGIC)] != MAGIC:
            raise _foreign(self._path)
        if not _HEADER.size + _TRAILER_BYTES <= size <= FILE_BYTES_MAX:
            raise self._damaged(f"it has {size} bytes")
        _, device_raw, journal, first_seq, count, previous, head, raw_bytes = _HEADER.unpack(header)
        digest = hashlib.sha256(header)
        left = size - _HEADER.size - _TRAILER_BYTES
        while left and (chunk := self._file.read(min(CHUNK_BYTES, left))):
            digest.update(chunk)
            left -= len(chunk)
        whole, trailer = digest.copy(), self._file.read(_TRAILER_BYTES + 1)
        whole.update(trailer)
        if trailer[:32] != digest.digest() or len(trailer) != _TRAILER_BYTES:
            raise self._damaged("it was changed after it was written, or cut short: its hash differs")
        device = device_raw.hex()
        public = trusted.get(device)
        if public is None:
            raise LinesideError(
                "archive.unknown_device",
                f"{self._path} was made by device {device}, whose key is not known here.",
                effect=_LEFT,
                todo="If a former box made it, name that box's device.pub under former_keys in lineside.toml.",
            )
        if not signature_holds(public, SEGMENT_DOMAIN, trailer[:32], trailer[32:]):
            raise self._damaged("its signature does not hold")
        # What a trusted device signed is still bounded: a box may be broken or stolen.
        if not 1 <= count <= SEGMENT_ROWS_MAX or not 1 <= first_seq <= SEQ_MAX - count or raw_bytes > RAW_BYTES_MAX:
            raise self._damaged("its row numbers or its size are out of range")
        if first_seq == 1 and previous != ZERO_HASH:
            raise self._damaged("it begins with row 1 and names a row before it")
        named = _NAME.fullmatch(self._path.name)
        if named and (named[1], int(named[2])) != (journal.hex(), first_seq):
            raise self._damaged("its name is not that of the rows in it")
        return Segment(
            self._path, device, journal, first_seq, count, previous, head, raw_bytes, size, whole.hexdigest()
        )

    def _read_blocks(self) -> list[_Block]:
        """Where the blocks are, and that they are what the frame says."""
        segment, blocks = self.segment, []
        offset, end = _HEADER.size, segment.file_bytes - _TRAILER_BYTES
        seq, previous = segment.first_seq, segment.previous
        while offset < end:
            self._file.seek(offset)
            data = self._file.read(_BLOCK.size)
            offset += _BLOCK.size
            epoch, count, head, packed = _BLOCK.unpack(data) if len(data) == _BLOCK.size else (b"", 0, b"", 0)
            fits = offset + packed <= end and packed <= BLOCK_PACKED_BYTES_MAX
            if not 1 <= count <= segment.last_seq - seq + 1 or not fits:
                raise self._damaged(f"the block at row {seq} is out of range")
            blocks.append(_Block(seq, count, epoch, previous, head, offset, packed))
            offset += packed
            seq, previous = seq + count, head
        if seq != segment.last_seq + 1 or previous != segment.head:
            raise self._damaged("its blocks are not the rows that it names")
        return blocks

    def _unpack(self, block: _Block) -> list[Row]:
        self._file.seek(block.offset)
        raw = self._decompress(block, self._file.read(block.packed_bytes))
        rows: list[Row] = []
        chained, offset = block.previous, 0
        for seq in range(block.first_seq, block.first_seq + block.count):
            start = offset + _LENGTH.size
            if start > len(raw):
                raise self._damaged(f"row {seq} is not in it")
            offset = start + _LENGTH.unpack_from(raw, start - _LENGTH.size)[0]
            if offset > len(raw):
                raise self._damaged(f"row {seq} is cut short")
            chained = row_hash(self.segment.journal, block.epoch, seq, chained, raw[start:offset])
            rows.append(Row(seq, block.epoch, chained, raw[start:offset]))
        if offset != len(raw) or chained != block.head:
            raise self._damaged(f"the rows from {block.first_seq} on do not chain to the hash that it names")
        return rows

    def _decompress(self, block: _Block, packed: bytes) -> bytes:
        """A block's rows, their size bounded by what zstd's own header says before any work."""
        import zstandard  # here, because a runtime that reads no old row needs none of it

        try:
            if zstandard.frame_content_size(packed) not in range(BLOCK_RAW_BYTES_MAX + 1):
                raise self._damaged(f"the block at row {block.first_seq} is too large or does not say how large")
            # The window is bounded too: a small content may ask for a huge one.
            unpacker = zstandard.ZstdDecompressor(max_window_size=BLOCK_RAW_BYTES_MAX)
            return unpacker.decompress(packed, max_output_size=BLOCK_RAW_BYTES_MAX, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise self._damaged(f"the block at row {block.first_seq} cannot be unpacked ({str(error)[:80]})") from error

    def _damaged(self, why: str) -> LinesideError:
        return LinesideError(
            "archive.damaged",
            f"The archive segment {self._path} does not hold: {why}.",
            effect=_LEFT,
            todo="Keep the file, look after its medium, and bring the segment back from another copy.",
        )


def _unreadable(path: Path, error: OSError) -> LinesideError:
    return LinesideError(
        "archive.unreadable",
        f"{path} cannot be read: {error.strerror or error}.",
        effect=_LEFT,
        todo="Put the medium in, and check that the path is right.",
    )


def name_of(journal: bytes, first_seq: int) -> str:
    """The file name of the segment that begins with this row."""
    return f"{journal.hex()}-{first_seq:020}.lsa"


def segment_paths(folder: Path, journal: bytes) -> list[tuple[int, Path]]:
    """The first row and path of each segment of a journal, in order, by their names alone."""
    found = []
    try:
        for path in folder.iterdir():
            match = _NAME.fullmatch(path.name)
            if match and match[1] == journal.hex():
                found.append((int(match[2]), path))
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(found)


def verify_segment(path: Path, trusted: Mapping[str, bytes], *, progress: Progress = _quiet) -> Segment:
    """Every row of a segment, read from the medium and not from memory, as far as the system lets us.

    Raises what `SegmentFile` raises."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _unreadable(path, error) from error
    with SegmentFile(path, trusted) as file:
        file.check(progress)
        return file.segment


# Writing one -------------------------------------------------------------------------------------------------------


def write_segment(
    reader: JournalReader, folder: Path, *, after: tuple[int, bytes], until_seq: int, signer: Signer
) -> Segment:
    """Write the next segment: rows after `after` (number, hash), up to `until_seq` or as many as one holds.

    It is there under its name only when it is durable, was read back, and holds. Raises `journal.damaged` when the
    rows do not follow `after`, `archive.cannot_write`, or what `SegmentFile` raises."""
    blocks = _Blocks(reader.journal_id, after)
    while not blocks.full and blocks.seq < until_seq:
        rows = reader.rows(blocks.seq, min(READ_ROWS_MAX, until_seq - blocks.seq))
        if not rows:
            break
        blocks.add(rows)
    blocks.close()
    body = b"".join(blocks.packed)
    header = _HEADER.pack(
        MAGIC,
        bytes.fromhex(fingerprint(signer.public)),
        reader.journal_id,
        after[0] + 1,
        blocks.seq - after[0],
        after[1],
        blocks.head,
        blocks.raw_bytes,
    )
    digest = hashlib.sha256(header + body).digest()
    final = folder / name_of(reader.journal_id, after[0] + 1)
    making = final.with_name(f".{final.name}.part")
    try:
        with making.open("wb") as file:
            _write_durable(file, header, body, digest + signer.sign(SEGMENT_DOMAIN, digest))
        segment = verify_segment(making, {fingerprint(signer.public): signer.public})
        if final.exists():
            raise FileExistsError(None, "there is a file of this name already")
        making.rename(final)
        sync_folder(folder)
    except OSError as error:
        making.unlink(missing_ok=True)
        raise LinesideError(
            "archive.cannot_write",
            f"The segment {final} cannot be written: {error.strerror or error}.",
            effect=_LEFT,
            todo="Check the medium: in its place, writable, and with room. It is tried again by itself.",
        ) from error
    return replace(segment, path=final)


def _write_durable(file: BinaryIO, *parts: bytes) -> None:
    file.writelines(parts)
    file.flush()
    os.fsync(file.fileno())


class _Blocks:
    """Rows on their way into a segment, packed block by block, their chain checked."""

    def __init__(self, journal: bytes, after: tuple[int, bytes]) -> None:
        import zstandard

        self.seq, self.head = after
        self.raw_bytes = 0
        self.full = False
        self.packed: list[bytes] = []
        self._journal = journal
        self._begin = self.seq
        self._raw: list[bytes] = []
        self._open_bytes = 0
        self._rows: list[Row] = []
        self._packer = zstandard.ZstdCompressor(level=PACK_LEVEL)

    def add(self, rows: Sequence[Row]) -> None:
        """Take as many of `rows` as the segment has room for."""
        for fault in chain_faults(self._journal, rows, after_seq=self.seq, previous=self.head):
            raise LinesideError(
                "journal.damaged",
                f"{fault.why} It is not archived, and nothing after it.",
                effect="Nothing is taken out of the journal; work goes on.",
                todo="Keep journal and archive as they are and run `lineside verify` on both.",
            )
        for row in rows:
            size = _LENGTH.size + len(row.body)
            self.full = self.seq - self._begin == SEGMENT_ROWS_MAX or self.raw_bytes + size > RAW_BYTES_MAX
            if self.full:
                return
            if self._rows and (row.epoch != self._rows[0].epoch or self._open_bytes + size > BLOCK_RAW_BYTES_MAX):
                self.close()
            self._rows.append(row)
            self._raw += (_LENGTH.pack(len(row.body)), row.body)
            self._open_bytes += size
            self.raw_bytes += size
            self.seq, self.head = row.seq, row.hash

    def close(self) -> None:
        """Pack what is open."""
        if self._rows:
            packed = self._packer.compress(b"".join(self._raw))
            self.packed += (_BLOCK.pack(self._rows[0].epoch, len(self._rows), self.head, len(packed)), packed)
        self._rows, self._raw, self._open_bytes = [], [], 0


# The folder --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """What a segment's first bytes say; nothing of it is verified."""

    path: Path
    first_seq: int
    last_seq: int
    previous: bytes
    head: bytes
    file_bytes: int

    def as_json(self) -> dict[str, object]:
        """For machines."""
        facts = {"file": str(self.path), "first_seq": self.first_seq, "last_seq": self.last_seq}
        return {**facts, "head_hash": self.head.hex(), "file_bytes": self.file_bytes}


def list_segments(folder: Path, journal: bytes) -> list[Listed]:
    """The segments of a journal, which go on from row 1 without a gap, by their first bytes.

    Raises `archive.gap`, `archive.foreign` or `archive.unreadable`."""
    found = []
    for first_seq, path in segment_paths(folder, journal):
        try:
            with path.open("rb") as file:
                header, size = file.read(_HEADER.size), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise _unreadable(path, error) from error
        if len(header) != _HEADER.size or header[: len(MAGIC)] != MAGIC:
            raise _foreign(path)
        _, _, _, first, count, previous, head, _ = _HEADER.unpack(header)
        found.append(Listed(path, first_seq, first + count - 1, previous, head, size))
    seq, head = 0, ZERO_HASH
    for listed in found:
        if (listed.first_seq, listed.previous) != (seq + 1, head):
            raise LinesideError(
                "archive.gap",
                f"{listed.path} does not go on from row {seq}, with which the segment before it ends.",
                effect="Nothing more is archived and nothing is taken out of the journal; work goes on.",
                todo=f"Bring the segment with row {seq + 1} back into {folder}.",
            )
        seq, head = listed.last_seq, listed.head
    return found


def _foreign(path: Path) -> LinesideError:
    return LinesideError(
        "archive.foreign",
        f"{path} is not an archive segment.",
        effect=_LEFT,
        todo="Move the file away; only Lineside writes segments.",
    )


def ready_folder(settings: Archive, state: Path) -> Path:
    """The archive's folder, looked at anew: an external one must be there, and on another medium than the journal.

    Raises `archive.absent`, `archive.not_external` or `archive.cannot_write`."""
    folder = settings.path
    try:
        if not settings.external:
            folder.mkdir(parents=True, exist_ok=True)
        elif not folder.is_dir():
            raise LinesideError(
                "archive.absent",
                f"The archive's folder {folder} is not there.",
                effect="Nothing is archived and nothing is taken out of the journal; work goes on.",
                todo="Put the medium in. On a new one, make the folder: it is never made by itself, lest rows go to "
                "the box's own disk while the medium is out.",
            )
        elif folder.stat().st_dev == state.stat().st_dev:
            raise LinesideError(
                "archive.not_external",
                f"The archive's folder {folder} is on the same medium as the journal.",
                effect="Nothing is archived there and nothing is taken out of the journal; work goes on.",
                todo="Put the medium in, or remove external from [archive] in lineside.toml.",
            )
    except OSError as error:
        raise LinesideError(
            "archive.cannot_write",
            f"The archive's folder {folder} cannot be used: {error.strerror or error}.",
            effect="Nothing is archived and nothing is taken out of the journal; work goes on.",
            todo="Check the path and its medium.",
        ) from error
    return folder


def archive_next(
    config: Config, settings: Archive, signer: Signer, utc: str, *, rows_min: int = SEGMENT_ROWS_MIN
) -> Segment | None:
    """Write the next segment of sealed rows that need not stay in the journal; None while fewer than `rows_min` wait.

    Raises `archive.*` or `journal.*`."""
    state = config.state_dir
    with JournalReader(state / "journal.db") as reader, _locked(state):
        folder = ready_folder(settings, state)
        after = _last(reader, folder, archive_keys(config, signer.public))
        _sweep(folder)
        due = due_seq(reader, settings, utc)
        if due - after[0] < rows_min:
            return None
        return write_segment(reader, folder, after=after, until_seq=due, signer=signer)


def archive_keys(config: Config, public: bytes) -> dict[str, bytes]:
    """The keys that sign segments here, by device id: this box's, and those of the boxes before it."""
    keys = [public, *map(read_public, config.former_keys)]
    return {fingerprint(key): key for key in keys}


def due_seq(reader: JournalReader, settings: Archive, utc: str) -> int:
    """The last row that need not stay in the journal: sealed, and old or far enough back. 0 for none."""
    first, (head, _) = reader.first_seq(), reader.head()
    since = datetime.fromisoformat(utc) - timedelta(days=settings.keep_days)
    low, high = first, head + 1  # the first row that is young enough
    while low < high:
        middle = (low + high) // 2
        young = datetime.fromisoformat(decode(reader.rows(middle - 1, 1)[0].body).at.utc) >= since
        low, high = (low, middle) if young else (middle + 1, high)
    due = min(max(low - 1, head - settings.keep_rows), head - KEPT_ROWS_MIN)
    return max(0, min(due, _sealed_seq(reader, first, head)))


def _sealed_seq(reader: JournalReader, first: int, head: int) -> int:
    """What the newest seal covers: looked for in the last rows, which on a box that seals hold one."""
    sealed, seq = 0, max(first - 1, head - UNSEALED_ROWS_MAX)
    while rows := reader.rows(seq, READ_ROWS_MAX):
        for row in rows:
            if row.body.startswith(b'{"kind":"Sealed"'):
                event = decode(row.body).event
                assert isinstance(event, Sealed)
                sealed = event.sealed_seq
        seq = rows[-1].seq
    return sealed


def _last(reader: JournalReader, folder: Path, trusted: Mapping[str, bytes]) -> tuple[int, bytes]:
    """Number and hash of the last archived row, once it is known to be a row of this journal."""
    listed = list_segments(folder, reader.journal_id)
    first = reader.first_seq()
    seq, head = 0, ZERO_HASH
    if listed:
        with SegmentFile(listed[-1].path, trusted) as newest:
            seq, head = newest.segment.last_seq, newest.segment.head
    if seq < first - 1:
        raise LinesideError(
            "archive.gap",
            f"Rows {seq + 1} to {first - 1} are in no segment in {folder}, and no longer in the journal.",
            effect="Nothing more is archived and nothing is taken out of the journal; work goes on.",
            todo="Bring the missing segments back into that folder.",
        )
    if seq >= first:
        rows = reader.rows(seq - 1, 1)
        if not rows or rows[0].hash != head:
            raise LinesideError(
                "archive.contradicts",
                f"The archive in {folder} ends with a row {seq} that is not in this journal.",
                effect="Nothing more is archived and nothing is taken out of the journal; work goes on.",
                todo="Keep these segments: they may hold rows that this box lost. Name another folder for new ones.",
            )
    return seq, head


def _sweep(folder: Path) -> None:
    """Throw away what a power cut left of a segment under way."""
    for path in folder.glob(".*.lsa.part"):
        path.unlink(missing_ok=True)


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """One archiver a box: follower or command line. The lock goes with the process."""
    handle = os.open(state / "archive.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LinesideError(
                "archive.in_use",
                "Another process of this box is archiving now.",
                effect="This one does nothing; the other goes on.",
                todo="Wait a minute and look with `lineside archive status`.",
            ) from error
        yield
    finally:
        os.close(handle)


# Looking at it -----------------------------------------------------------------------------------------------------


def verify_archive(config: Config, settings: Archive, *, progress: Progress | None = None) -> int:
    """Read and verify every segment, and that they and the journal are one chain. Returns the number of archived rows.

    Raises what does not hold: `archive.*` or `journal.damaged`."""
    trusted = archive_keys(config, DeviceKey.load(config.device_key).public)
    with JournalReader(config.state_dir / "journal.db") as reader:
        listed = list_segments(settings.path, reader.journal_id)
        seq, head = _last(reader, settings.path, trusted)
        for segment in listed:
            verify_segment(segment.path, trusted)
            if progress is not None:
                progress("rows verified", segment.last_seq, seq)
        for fault in chain_faults(reader.journal_id, reader.rows(seq, 1), after_seq=seq, previous=head):
            raise LinesideError(
                "archive.contradicts",
                f"The journal does not go on from the archive: {fault.why}",
                effect=_LEFT,
                todo="Run `lineside verify` on both, and keep them as they are.",
            )
    return seq


@dataclass(frozen=True, slots=True)
class Status:
    """How archive and journal stand to each other."""

    folder: Path
    external: bool
    segments: int
    file_bytes: int
    archived_seq: int
    """The last archived row; 0 for none."""
    due_seq: int
    """The last row that need not stay in the journal; 0 for none."""
    journal_from: int
    """The first row that the journal itself has."""
    made_seq: int

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"folder": str(self.folder)}

    def __str__(self) -> str:
        safe = "rows read back from it are safe" if self.external else "rows are safe when the hub says so"
        return (
            f"Archive {self.folder}: {self.segments} segments, {self.file_bytes:,} bytes; {safe}.\n"
            f"Archived: rows up to {self.archived_seq:,}. Due: rows up to {self.due_seq:,}.\n"
            f"In the journal: rows {self.journal_from:,} to {self.made_seq:,}."
        )


def status(config: Config, settings: Archive, utc: str) -> Status:
    """How it stands now. Raises `archive.*` when the archive cannot be read, and `journal.*`."""
    with JournalReader(config.state_dir / "journal.db") as reader:
        listed = list_segments(ready_folder(settings, config.state_dir), reader.journal_id)
        return Status(
            settings.path,
            settings.external,
            len(listed),
            sum(segment.file_bytes for segment in listed),
            listed[-1].last_seq if listed else 0,
            due_seq(reader, settings, utc),
            reader.first_seq(),
            reader.head()[0],
        )


# Archive and journal together --------------------------------------------------------------------------------------


class Record:
    """Every row of a journal, from row 1 on: from its archive what was taken out of it, and the rest from itself.

    It reads as a `JournalReader` does. One thread each."""

    def __init__(self, journal: Path, folder: Path | None, trusted: Mapping[str, bytes]) -> None:
        """`folder` has the segments; None when the box keeps no archive. Raises what `JournalReader` raises."""
        self._reader = JournalReader(journal)
        self._folder = folder
        self._trusted = trusted
        self._open: SegmentFile | None = None
        self.journal_id = self._reader.journal_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; files are left as they are."""
        self._close_segment()
        self._reader.close()

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow `after_seq`, in order; empty when there are none yet.

        Raises `archive.rows_absent` when rows were archived and their segment is not at hand, or what `SegmentFile`
        and `JournalReader` raise."""
        rows = self._reader.rows(after_seq, limit)
        if not rows or rows[0].seq == after_seq + 1:
            return rows
        first_seq = self._reader.first_seq()  # looked at afterwards: a row that was taken out meanwhile is archived
        if after_seq + 1 >= first_seq:
            return rows  # a gap anywhere else is damage, for the caller to see
        return self._archived(after_seq + 1).rows(after_seq, min(limit, first_seq - 1 - after_seq))

    def rows_back(self, count: int) -> list[Row]:
        """The last `count` rows that the journal itself has, in order."""
        return self._reader.rows_back(count)

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the last row; (0, 32 zero bytes) when there is none."""
        return self._reader.head()

    def kept_from(self) -> int:
        """The first row that the journal itself has; rows before it are read from the archive."""
        return self._reader.first_seq()

    def _archived(self, seq: int) -> SegmentFile:
        held = self._open
        if held is None or not held.segment.first_seq <= seq <= held.segment.last_seq:
            self._close_segment()
            paths = segment_paths(self._folder, self.journal_id) if self._folder and self._folder.is_dir() else []
            at = bisect_right(paths, seq, key=lambda named: named[0]) - 1
            held = SegmentFile(paths[at][1], self._trusted) if at >= 0 else None
            self._open = held
            if held is None or held.segment.last_seq < seq:
                raise LinesideError(
                    "archive.rows_absent",
                    f"Row {seq} was archived, and its segment is not in {self._folder or 'any folder that is set'}.",
                    effect="What needs this old row waits for it.",
                    todo="Put the archive's medium in, or bring the segment back into that folder.",
                )
        return held

    def _close_segment(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def open_record(journal: Path, config: Config | None, public: bytes) -> Record:
    """The record of a journal and the box's archive, if there is one. `public` is the box's key."""
    if config is None or config.archive is None:
        return Record(journal, None, {})
    return Record(journal, config.archive.path, archive_keys(config, public))


def record_of(config: Config) -> Record:
    """The whole record of a box. Raises what `JournalReader` raises, and `identity.*` when an archive needs keys."""
    public = DeviceKey.load(config.device_key).public if config.archive else b""
    return open_record(config.state_dir / "journal.db", config, public)
