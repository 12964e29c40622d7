"""Verify Lineside's journals, copies, archive segments and folders of them, without Lineside.

    python verify.py PATH... [--key device.pub] [--json]

One file, which may be copied anywhere. It needs Python 3.11, `cryptography`, and `zstandard` for copies and segments.
It was written from `docs/reference/record-format.md` and imports nothing of Lineside. It writes nothing.

Ranges of rows are looked at by themselves, by several processes when there are many: the hash before a range is taken
from what is there, and whoever puts the ranges together compares it. A range is taken as it is only when all of it was
well; anything else is looked at again, row by row, by the process that reports.

Exit code 0: everything looked at holds. 1: something does not. 2: something could not be read.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import os
import select
import signal
import sqlite3
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ROW_DOMAIN: Final = b"lineside.row.1"
ZERO_HASH: Final = bytes(32)
BODY_BYTES_MAX: Final = 65_536
CHUNK_ROWS: Final = 128
"""Rows read at once: one short transaction, and at most 8 MiB."""
RANGE_ROWS: Final = 8_192
"""About so many rows are one piece of work."""
GIVEN_MAX: Final = 2
"""So many pieces another process has: the one it looks at and the next."""
AHEAD_MAX: Final = 64
"""So many are begun before the first of them is put together with those before it."""
SPLIT_BYTES_MIN: Final = 8 * 1024 * 1024
"""Smaller files are done before a second process would have saved anything."""
PROCESSES_MAX: Final = 2
"""Of itself it takes no more: a box has other work."""
NEAR_CHUNKS: Final = 32
"""The hashes of so many chunks are kept at hand; older ones are read again where they are needed."""
UNSEALED_ROWS_MAX: Final = 4_096
"""A box seals after 256 rows. More than this without a seal was not made by the device whose key is given."""
EPOCHS_SHOWN: Final = 1_000
FILES_MAX: Final = 100_000
UNKNOWN_SHOWN: Final = 20
FRAME_BYTES_MAX: Final = 131_072
RAW_BYTES_MAX: Final = 262_144
FRAME_ROWS_MAX: Final = 2_048
PACKED_BYTES_MAX: Final = 266_240
SEGMENT_ROWS_MAX: Final = 65_536
SEGMENT_BYTES_MAX: Final = 20_971_520
SEGMENT_RAW_BYTES_MAX: Final = 16_777_216
SEGMENT_END_BYTES: Final = 32 + 64
RECEIPT_BYTES_MAX: Final = 4_096
SEQ_MAX: Final = 2**63 - 1
FRAME_HEADER: Final = struct.Struct(">3sB16s16s16sQIQ32s32sI")
SEGMENT_HEADER: Final = struct.Struct(">3sB16s16sQI32s32sI")
BLOCK_HEADER: Final = struct.Struct(">16sI32sI")
SCHEMA: Final = {
    "meta": "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "row": "CREATE TABLE row(seq INTEGER PRIMARY KEY, epoch BLOB, hash BLOB, body BLOB)",
}
PLACE: Final = struct.Struct(">Q32s")
BEGIN: Final = b'{"kind":"'
KINDS: Final = (b"Sealed", b"ReceiptStored", b"SignatureMade", b"JournalContinued", b"RowsPruned")
KIND_BEGINS: Final = itemgetter(slice(0, 14))
CHECKED_BEGINS: Final = {BEGIN + kind[:5] for kind in KINDS}
INTERPRETED: Final = (*KINDS, b"\\")
"""A body without any of these is none of the kinds that are checked: a backslash may spell one in another way."""


class Unreadable(Exception):
    """There is nothing at the path that could hold or not hold."""


class Broken(Exception):
    """The first row that does not hold, and why."""

    def __init__(self, seq: int, why: str) -> None:
        super().__init__(why)
        self.seq = seq


@dataclass(frozen=True, slots=True)
class Trust:
    """What the caller brings from elsewhere. Keys by fingerprint; heads and receipts that must be met."""

    devices: dict[str, bytes] = field(default_factory=dict)
    hubs: dict[str, bytes] = field(default_factory=dict)
    heads: tuple[tuple[int, bytes], ...] = ()
    receipts: tuple[dict[str, Any], ...] = ()


@dataclass(slots=True)
class Report:
    """What was found in one file. `fault` is the first row that does not hold: every row before it does."""

    path: str
    kind: str = ""
    ok: bool = False
    journal: str = ""
    first_row: int = 0
    rows: int = 0
    last_row: int = 0
    head_hash: str = ZERO_HASH.hex()
    epochs: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    seals: int = 0
    sealed_seq: int = 0
    sealed_by: list[str] = field(default_factory=list)
    receipts: int = 0
    received_seq: int = 0
    signatures: int = 0
    not_checked: list[str] = field(default_factory=list)
    fault: dict[str, Any] | None = None
    error: str | None = None


@dataclass(slots=True)
class Together:
    """What all files of one journal are as one chain."""

    journal: str
    files: list[str]
    ok: bool = False
    first_row: int = 0
    last_row: int = 0
    head_hash: str = ZERO_HASH.hex()
    not_checked: list[str] = field(default_factory=list)
    fault: dict[str, Any] | None = None


@dataclass(slots=True)
class Result:
    """Of everything that was looked at."""

    files: list[Report] = field(default_factory=list)
    records: list[Together] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.files) and all(each.ok for each in self.files) and all(each.ok for each in self.records)


# Bytes ------------------------------------------------------------------------------------------------------------


def row_hash(journal: bytes, epoch: bytes, seq: int, previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(ROW_DOMAIN + journal + epoch + seq.to_bytes(8, "big") + previous + body).digest()


def chained(journal: bytes, epoch: bytes, first: int, head: bytes, bodies: Sequence[bytes]) -> list[bytes]:
    """The hashes of rows of one epoch, from the hash of the row before them on."""
    begin, place = hashlib.sha256(ROW_DOMAIN + journal + epoch).copy, PLACE.pack
    made = []
    for seq, body in enumerate(bodies, first):
        digest = begin()
        digest.update(place(seq, head) + body)
        head = digest.digest()
        made.append(head)
    return made


def may_say(bodies: Sequence[bytes]) -> list[int]:
    """The places of the bodies that may be of a kind that is checked; most chunks have none, and that is seen at once.

    Where every body begins with its kind, and no second "kind" and no backslash is in any, the beginnings decide."""
    whole = b"".join(bodies)
    if b"\\" not in whole and whole.count(b'kind"') == len(bodies):
        begins = set(map(KIND_BEGINS, bodies))
        if all(begin.startswith(BEGIN) for begin in begins):
            if begins.isdisjoint(CHECKED_BEGINS):
                return []
            return [place for place, body in enumerate(bodies) if body[:14] in CHECKED_BEGINS]
    words = [word for word in INTERPRETED if word in whole]
    return [place for place, body in enumerate(bodies) if any(word in body for word in words)] if words else []


def fingerprint(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:32]


def signature_holds(public: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
        key.verify(signature, bytes([len(domain)]) + domain + message)
    except (InvalidSignature, ValueError):
        return False
    return True


def attested_bytes(facts: dict[str, Any], utc: str) -> bytes:
    seq: int = facts["subject_seq"]
    parts = [seq.to_bytes(8, "big"), bytes.fromhex(facts["subject_hash"])]
    for text in (facts["person"], facts["role"], facts["meaning"], facts["session"], utc, *facts["methods"]):
        data: bytes = text.encode()
        parts.append(len(data).to_bytes(4, "big") + data)
    return b"".join(parts)


def unpacked(data: bytes, raw_size: int | None = None) -> bytes | None:
    """What a zstd frame holds; None when it is not exactly so many bytes, or as many as it says."""
    try:
        import zstandard
    except ImportError as error:
        raise Unreadable("it needs the package zstandard") from error
    try:
        says = zstandard.frame_content_size(data)
        raw_size = says if raw_size is None else raw_size
        if not 0 <= raw_size <= RAW_BYTES_MAX or says != raw_size:
            return None
        unpacker = zstandard.ZstdDecompressor(max_window_size=RAW_BYTES_MAX)
        return unpacker.decompress(data, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


def parted(raw: bytes, count: int) -> list[bytes] | None:
    """The bodies, each with its length before it; None when they are not `count` that fill `raw`."""
    bodies, offset, end = [], 0, len(raw)
    for _ in range(count):
        begin = offset + 4
        offset = begin + int.from_bytes(raw[offset:begin], "big")
        if offset > end:
            return None
        bodies.append(raw[begin:offset])
    return bodies if offset == end else None


# Where rows are ---------------------------------------------------------------------------------------------------


class Anchor(NamedTuple):
    """A row that was verified, and all before it. No hash: the row before the first that a pruned journal has."""

    seq: int
    hash: bytes | None
    epoch: bytes


class Chunk(NamedTuple):
    """Rows of one epoch that chain to each other and to `previous`; None when that row is not there."""

    first: int
    epoch: bytes
    previous: bytes | None
    hashes: Sequence[bytes]
    bodies: Sequence[bytes]


Range = tuple[int, int]
"""A piece of work, in the numbers of its source: rows of a journal, places in a mirror."""


class Source:
    """A file with rows `first` to `last` of one journal."""

    kind = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = b""
        self.first, self.last = 1, 0
        self.previous: bytes | None = ZERO_HASH
        """The hash of the row before the first, where the file says it."""
        self.head = ZERO_HASH

    def ranges(self, rows: int) -> Iterator[Range]:
        """The pieces of work, in order, each about so many rows; the same in every process."""
        raise NotImplementedError

    def look(self, work: Range, after: Anchor | None) -> Iterator[Chunk]:
        """Verify a range; it must go on from `after`, or from what the file says. Raises Broken."""
        raise NotImplementedError

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        """Epoch and hash of a row that is verified by whoever looks at its range; None when it is not here."""
        raise NotImplementedError

    def plan(self) -> dict[str, Any]:
        """What another process must know to see the same ranges."""
        return {"path": str(self.path), "first": self.first, "last": self.last}

    def follow(self, plan: dict[str, Any]) -> None:
        """Take over the plan of the process that began."""
        self.first, self.last = plan["first"], plan["last"]

    def close(self) -> None:
        """Nothing stays open, unless a source says so."""


class Database(Source):
    """journal.db, live or copied. Each look is a short transaction, so that a box at work is not disturbed."""

    kind = "journal"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # With a log beside it rows may be in the log alone; without one the file is complete and nothing is touched.
        self.still = not _log_bytes(path)
        mode = "immutable=1" if self.still else "mode=ro"
        try:
            self._db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=5)
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * BODY_BYTES_MAX)
            self._db.text_factory = _Text  # text where bytes belong is a change, also when it spells the same
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error
        try:
            self.journal = self._check()
            self._ends()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def _ask(self, sql: str, *values: int | bytes) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def _check(self) -> bytes:
        try:
            self._ask("PRAGMA cache_size=-256")  # KiB: rows are read once, in order
            found = {_text(name): _text(sql) for name, sql in self._ask("SELECT name, sql FROM sqlite_schema LIMIT 10")}
            if not found:
                raise Unreadable("it is empty: no journal was begun in it")
            if found != SCHEMA:
                raise Broken(0, "This is not a journal of Lineside: its tables differ.")
            meta = {_text(name): value for name, value in self._ask("SELECT name, value FROM meta LIMIT 10")}
        except sqlite3.OperationalError as error:
            if "unable to open" in str(error) or "readonly" in str(error) or "locked" in str(error):
                why = f"{error}; copy journal.db with journal.db-wal into a folder that you may write to"
                raise Unreadable(why) from error
            raise Broken(0, f"It cannot be read as a journal ({error}).") from error
        except sqlite3.Error as error:
            raise Broken(0, f"It cannot be read as a journal ({error}).") from error
        journal, form = meta.get("journal"), meta.get("format")
        if isinstance(form, int) and form > 1:
            raise Unreadable(f"it has format {form}; this verifier knows format 1")
        if form != 1 or not isinstance(journal, bytes) or len(journal) != 16:
            raise Broken(0, "This is not a journal of Lineside: its description differs.")
        return journal

    def _ends(self) -> None:
        """The lowest and highest number that the index shows: rows that a damaged index hides would end the walk."""
        try:
            highest = self._ask("SELECT seq FROM row ORDER BY seq DESC LIMIT 1")
        except sqlite3.Error as error:
            raise Broken(0, f"The end of the journal cannot be read ({error}).") from error
        try:
            lowest = self._ask("SELECT seq FROM row ORDER BY seq LIMIT 1")
        except sqlite3.Error:
            lowest = []  # the walk from row 1 on says which row cannot be read
        self.last = highest[0][0] if highest else 0
        if lowest:
            self.first = lowest[0][0]
            self.previous = ZERO_HASH if self.first <= 1 else None
        # No more than the bytes can hold: a number that was changed makes no endless work.
        size = self.path.stat().st_size + _log_bytes(self.path)
        self._expected = max(0, min(self.last - self.first + 1, size // 50))

    def begins_later(self) -> bool:
        """Whether rows were taken out at the beginning since it was opened."""
        try:
            return self._ask("SELECT seq FROM row ORDER BY seq LIMIT 1") != [(self.first,)]
        except sqlite3.Error:
            return False

    def plan(self) -> dict[str, Any]:
        return super().plan() | {"expected": self._expected}

    def follow(self, plan: dict[str, Any]) -> None:
        super().follow(plan)
        self._expected = plan["expected"]

    def ranges(self, rows: int) -> Iterator[Range]:
        first = self.first
        if first >= 1 and self._expected == self.last - first + 1:  # else a number was changed
            while self.last - first >= rows:
                yield first, first + rows - 1
                first += rows
        yield first, SEQ_MAX

    def look(self, work: Range, after: Anchor | None) -> Iterator[Chunk]:
        first, end = work
        seq, head, epoch = after or self._before(first)
        good = bool(epoch)
        while seq < end:
            chunk = self._well(seq, min(end, seq + CHUNK_ROWS), head, epoch) if good and head else None
            good = chunk is not None
            for each in [chunk] if chunk else self._closely(seq, min(end, seq + CHUNK_ROWS), head, epoch):
                yield each
                seq, head, epoch = each.first + len(each.hashes) - 1, each.hashes[-1], each.epoch
                good = True
            if not good:
                break
        if seq < min(end, self.last):
            raise _ends_early(seq, self.last)

    def _before(self, first: int) -> Anchor:
        if first <= 1:
            return Anchor(0, ZERO_HASH, b"")
        if first == self.first:
            return Anchor(first - 1, None, b"")
        epoch, digest = self.row_at(first - 1) or (b"", b"")
        return Anchor(first - 1, digest, epoch)

    def _well(self, after: int, end: int, head: bytes, epoch: bytes) -> Chunk | None:
        """The rows up to `end`, when they are all there, of this epoch, and hold; else None."""
        try:
            rows = self._ask(
                "SELECT seq, hash, body FROM row WHERE seq BETWEEN ? AND ? AND epoch = ? ORDER BY seq",
                *(after + 1, end, epoch),
            )
            if len(rows) != end - after:
                return None
            numbers, hashes, bodies = zip(*rows, strict=True)
            if numbers != tuple(range(after + 1, end + 1)):
                return None
            made = chained(self.journal, epoch, after + 1, head, bodies)
        except (sqlite3.Error, OverflowError, TypeError):
            return None
        return Chunk(after + 1, epoch, head, made, bodies) if made == list(hashes) else None

    def _closely(self, seq: int, end: int, head: bytes | None, epoch: bytes) -> Iterator[Chunk]:
        """Row by row up to `end`. Raises Broken at the first that does not hold."""
        for number, of_epoch, digest, body in self._rows(seq + 1 if seq else -(2**63)):
            if head is not None:
                self.check(Anchor(seq, head, epoch), number, of_epoch, digest, body)
            elif number != seq + 1:
                raise Broken(number, f"Row {number} follows row {seq}: row {seq + 1} is missing.")
            yield Chunk(number, of_epoch, head, (digest,), (body,))
            seq, head, epoch = number, digest, of_epoch
            if seq >= end:
                return

    def check(self, after: Anchor, number: int, epoch: bytes, digest: bytes, body: bytes) -> None:
        """Raises Broken when a row does not go on from `after`."""
        journal, seq, head = self.journal, after.seq + 1, after.hash or ZERO_HASH
        fits = row_hash(journal, epoch, seq, head, body) == digest
        if number < 1:
            raise Broken(number, f"Row {number} was not written by Lineside: numbers begin at 1.")
        if number != seq and fits:
            raise Broken(number, f"The number of row {seq} was changed to {number}.")
        if number != seq:
            raise Broken(number, f"Row {number} follows row {seq - 1}: row {seq} is missing.")
        if not fits:
            if after.epoch and row_hash(journal, after.epoch, seq, head, body) == digest:
                raise Broken(seq, f"The epoch of row {seq} was changed after it was written.")
            why = "its hash does not fit its body, its place or the rows before it"
            raise Broken(seq, f"Row {seq} was changed after it was written: {why}.")

    def first_row(self) -> tuple[int, bytes, bytes, bytes]:
        """Number, epoch, hash and body of the lowest row."""
        for row in self._rows(self.first):
            return row
        raise Broken(self.first, f"Row {self.first} cannot be read again.")

    def _rows(self, seq: int) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """The rows from this number on. Raises Broken where one cannot be read."""
        limit = CHUNK_ROWS
        good = max(seq - 1, 0)
        while True:
            try:
                found = self._ask(
                    "SELECT seq, epoch, hash, body FROM row WHERE seq >= ? ORDER BY seq LIMIT ?", seq, limit
                )
            except (sqlite3.Error, OverflowError) as error:
                if limit == 1:
                    raise Broken(good + 1, f"Row {good + 1} cannot be read ({error}).") from error
                limit = 1  # one by one up to the row that cannot be read, so that it is named
                continue
            for number, epoch, digest, body in found:
                sizes = [len(each) if isinstance(each, bytes) else -1 for each in (epoch, digest, body)]
                if sizes[:2] != [16, 32] or sizes[2] < 0:
                    raise Broken(number, f"Row {number} is damaged: its columns are not those of a row.")
                yield number, epoch, digest, body
                good = number
            if not found or good == SEQ_MAX:
                return
            seq = good + 1

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        try:
            found = self._ask("SELECT epoch, hash FROM row WHERE seq = ?", seq)
        except sqlite3.Error as error:
            raise Broken(seq, f"Row {seq} cannot be read again ({error}).") from error
        sizes = [len(each) if isinstance(each, bytes) else -1 for each in (found[0] if found else ())]
        return found[0] if sizes == [16, 32] else None


def _ends_early(seq: int, last: int) -> Broken:
    return Broken(seq + 1, f"Row {seq + 1} is missing: the rows end before row {last}.")


def _log_bytes(path: Path) -> int:
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except OSError:
        return 0


class _Text:
    """Text out of the database: no bytes, equal to none."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size + _log_bytes(path)
    except OSError:
        return 0  # why it cannot be read is said when it is opened


def _text(value: object) -> str:
    data = value.data if isinstance(value, _Text) else value
    return data.decode(errors="replace") if isinstance(data, bytes) else repr(value)


class Mirror(Source):
    """A file of frames. Its end is where it ended when it was opened."""

    kind = "mirror"

    def __init__(self, path: Path, devices: dict[str, bytes]) -> None:
        super().__init__(path)
        self._devices = devices
        self._index: list[Range] = []
        """(first row, place in the file) about every FRAME_ROWS_MAX rows, to read a row again."""
        with path.open("rb") as file:
            if file.read(4) != b"LSM\x01":
                raise Unreadable("it is neither a journal nor a copy or a part of one")
            self.size = path.stat().st_size
            for place, first, count, journal in self._headers(file):
                self.journal = self.journal or journal
                self.last = first + count - 1  # as it says; what holds is said by `look`
                if not self._index or first >= self._index[-1][0] + FRAME_ROWS_MAX:
                    self._index.append((first, place))

    def _headers(self, file: BinaryIO) -> Iterator[tuple[int, int, int, bytes]]:
        """Place, first row, count and journal of each frame, as it says, up to where that makes no sense."""
        place = 4
        while place + 4 <= self.size:
            file.seek(place)
            data = file.read(4 + FRAME_HEADER.size)
            size = int.from_bytes(data[:4], "big")
            if len(data) < 4 + FRAME_HEADER.size or not FRAME_HEADER.size < size <= FRAME_BYTES_MAX:
                return
            _, _, _, journal, _, first, count, *_ = FRAME_HEADER.unpack_from(data, 4)
            yield place, first, count, journal
            place += 4 + size

    def plan(self) -> dict[str, Any]:
        return super().plan() | {"size": self.size}

    def follow(self, plan: dict[str, Any]) -> None:
        super().follow(plan)
        self.size = plan["size"]

    def ranges(self, rows: int) -> Iterator[Range]:
        begin, counted = 4, 0
        with self.path.open("rb") as file:
            for place, _, count, _ in self._headers(file):
                if counted >= rows:
                    yield begin, place
                    begin, counted = place, 0
                counted += count
        yield begin, self.size

    def look(self, work: Range, after: Anchor | None) -> Iterator[Chunk]:
        place, end = work
        with self.path.open("rb") as file:
            if after is None and place == 4:
                after = Anchor(0, ZERO_HASH, b"")
            while place < end and (data := self._frame(file, place, after.seq if after else 0)):
                if after is None:  # as the first frame says; whoever puts the ranges together compares it
                    _, _, _, _, _, first, _, _, previous, _, _ = FRAME_HEADER.unpack_from(data.ljust(200))
                    after = Anchor(first - 1, previous, b"")
                chunk = self._chunk(data, after)
                yield chunk
                after = Anchor(chunk.first + len(chunk.hashes) - 1, chunk.hashes[-1], chunk.epoch)
                place += 4 + len(data)

    def _chunk(self, data: bytes, after: Anchor) -> Chunk:
        """A frame, its signature checked when the key is at hand. Raises Broken for the row after `after`."""
        seq = after.seq

        def broken(why: str) -> Broken:
            return Broken(seq + 1, f"The frame after row {seq} does not hold: {why}.")

        if len(data) < FRAME_HEADER.size + 64 or data[:4] != b"LSF\x01":
            raise broken("it does not begin like a frame")
        _, _, device, journal, epoch, first, count, made, previous, head, raw_size = FRAME_HEADER.unpack_from(data)
        public = self._devices.get(device.hex())
        if public is None and self._devices:
            raise broken(f"it is of device {device.hex()}, whose key was not given")
        if public is not None and not signature_holds(public, b"lineside.frame.1", data[:-64], data[-64:]):
            raise broken("its signature is not the device's")
        if not 1 <= first <= SEQ_MAX - count or not 1 <= count <= FRAME_ROWS_MAX or made > SEQ_MAX:
            raise broken("its row numbers are out of range")
        raw = unpacked(data[FRAME_HEADER.size : -64], raw_size)
        if raw is None:
            raise broken("its compressed part cannot be read")
        bodies = parted(raw, count)
        if bodies is None:
            raise broken("its rows are cut short, or it holds more than it says")
        if journal != self.journal:
            raise Broken(seq + 1, f"The frame after row {seq} is of another journal.")
        if first != seq + 1 or previous != after.hash:
            raise Broken(seq + 1, f"Row {seq + 1} is missing: the next frame begins with row {first}.")
        hashes = chained(journal, epoch, first, previous, bodies)
        if hashes[-1] != head:
            raise Broken(seq + 1, f"The rows of the frame from row {seq + 1} do not chain to its head hash.")
        return Chunk(first, epoch, previous, hashes, bodies)

    def _frame(self, file: BinaryIO, place: int, seq: int) -> bytes:
        """The bytes of the frame at a place in the file; none at the end."""
        file.seek(place)
        length = file.read(4)
        if not length or place >= self.size:
            return b""
        size = int.from_bytes(length, "big") if len(length) == 4 else 0
        if not 0 < size <= FRAME_BYTES_MAX:
            raise Broken(seq + 1, f"After row {seq} the copy is cut short, or a frame's length was changed.")
        data = file.read(size)
        if len(data) < size:
            raise Broken(seq + 1, f"After row {seq} the copy is cut short: the last frame is not whole.")
        return data

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        at = bisect.bisect_right(self._index, (seq, SEQ_MAX)) - 1
        if at < 0:
            return None
        with self.path.open("rb") as file:
            place = self._index[at][1]
            while data := self._frame(file, place, seq):
                _, _, _, _, _, first, count, _, previous, _, _ = FRAME_HEADER.unpack_from(data.ljust(200))
                if first <= seq < first + count:
                    chunk = self._chunk(data, Anchor(first - 1, previous, b""))
                    return chunk.epoch, chunk.hashes[seq - first]
                if first > seq:
                    break
                place += 4 + len(data)
        return None


class Segment(Source):
    """A file of the archive."""

    kind = "segment"

    def __init__(self, path: Path, devices: dict[str, bytes]) -> None:
        super().__init__(path)
        self._devices = devices
        self.sha256 = ""
        self._held: Chunk | None = None
        with path.open("rb") as file:
            header = file.read(SEGMENT_HEADER.size)
        self.size = path.stat().st_size
        least = SEGMENT_HEADER.size + BLOCK_HEADER.size + SEGMENT_END_BYTES
        if not least <= self.size <= SEGMENT_BYTES_MAX or header[:4] != b"LSA\x01":
            raise Broken(0, "The segment does not begin like one, or its size is none of a segment.")
        _, _, device, self.journal, self.first, count, self.previous, self.head, self._raw = SEGMENT_HEADER.unpack(
            header
        )
        self.device, self.last = device.hex(), self.first + count - 1
        if not (1 <= self.first <= SEQ_MAX - count and 1 <= count <= SEGMENT_ROWS_MAX):
            raise Broken(0, "The numbers of the segment's rows are out of range.")
        if self._raw > SEGMENT_RAW_BYTES_MAX or (self.first == 1) != (self.previous == ZERO_HASH):
            raise self._broken("its header contradicts itself")

    def _broken(self, why: str, seq: int = 0) -> Broken:
        seq = seq or self.first
        return Broken(seq, f"From row {seq} on the segment does not hold: {why}.")

    def ranges(self, rows: int) -> Iterator[Range]:  # noqa: ARG002 - a segment is one piece of work
        yield self.first, self.last

    def look(self, work: Range, after: Anchor | None) -> Iterator[Chunk]:  # noqa: ARG002 - its header says both
        try:
            self._sealed()
        except Broken as broken:
            raise self._nearer(broken) from None
        raw_bytes = 0
        last = self.first - 1
        for chunk, raw in self._blocks():
            raw_bytes += raw
            last = chunk.first + len(chunk.hashes) - 1
            yield chunk
        if last != self.last or raw_bytes != self._raw:
            raise self._broken("it has more or fewer rows than it says", last + 1)

    def _nearer(self, broken: Broken) -> Broken:
        """Where in a segment whose own hash or signature does not fit the first rows are that do not chain."""
        try:
            rows = sum(len(chunk.hashes) for chunk, _ in self._blocks())
        except Broken as found:
            return Broken(found.seq, f"{found} The file's own hash or signature does not fit, either.")
        except Unreadable:
            return broken
        if rows != self.last - self.first + 1:
            return broken
        return Broken(broken.seq, f"{broken} Its rows chain: the damage is in its header, hash or signature.")

    def _sealed(self) -> None:
        """Hash and signature of the whole file."""
        digest, whole = hashlib.sha256(), hashlib.sha256()
        with self.path.open("rb") as file:
            left = self.size - SEGMENT_END_BYTES
            while left and (data := file.read(min(left, RAW_BYTES_MAX))):
                digest.update(data)
                left -= len(data)
            whole, end = digest.copy(), file.read(SEGMENT_END_BYTES + 1)
        whole.update(end)
        self.sha256 = whole.hexdigest()
        if left or len(end) != SEGMENT_END_BYTES or digest.digest() != end[:32]:
            raise self._broken("a byte of it was changed, or it was cut short")
        public = self._devices.get(self.device)
        if public is None and self._devices:
            raise self._broken(f"it is of device {self.device}, whose key was not given")
        if public is not None and not signature_holds(public, b"lineside.segment.1", end[:32], end[32:]):
            raise self._broken("its signature is not the device's")

    def _blocks(self, only: int | None = None) -> Iterator[tuple[Chunk, int]]:
        """Each block, or the one with a row, and its bytes unpacked."""
        place, end, seq = SEGMENT_HEADER.size, self.size - SEGMENT_END_BYTES, self.first
        head: bytes = self.previous or ZERO_HASH
        with self.path.open("rb") as file:
            while place < end:
                file.seek(place)
                header = file.read(BLOCK_HEADER.size)
                if place + BLOCK_HEADER.size > end:
                    raise self._broken("a block is cut short", seq)
                epoch, count, block_head, packed = BLOCK_HEADER.unpack(header)
                place += BLOCK_HEADER.size + packed
                if place > end or packed > PACKED_BYTES_MAX or not 1 <= count <= self.last - seq + 1:
                    raise self._broken("a block is cut short, or its rows are none of the segment", seq)
                if only is None or seq <= only < seq + count:
                    raw = unpacked(file.read(packed))
                    bodies = None if raw is None else parted(raw, count)
                    if raw is None or bodies is None:
                        raise self._broken("a block cannot be unpacked into its rows", seq)
                    hashes = chained(self.journal, epoch, seq, head, bodies)
                    if hashes[-1] != block_head or (seq + count > self.last and block_head != self.head):
                        raise self._broken("the rows of a block do not chain to its head hash", seq)
                    yield Chunk(seq, epoch, head, hashes, bodies), len(raw)
                seq, head = seq + count, block_head

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        held = self._held
        if held is None or not held.first <= seq < held.first + len(held.hashes):
            if not self.first <= seq <= self.last:
                return None
            got = next(self._blocks(only=seq), None)
            if got is None:
                return None
            self._held = held = got[0]._replace(bodies=())
        return held.epoch, held.hashes[seq - held.first]


# One range ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Found:
    """What is in one range, as another process can say it in JSON. `fault` and `error` say that it was not all well."""

    first: int = 0
    """0: no rows."""
    last: int = 0
    previous: str = ""
    head: str = ""
    epochs: list[tuple[str, int]] = field(default_factory=list)
    chunks: int = 0
    seals: list[tuple[int, int]] = field(default_factory=list)
    """The row of each, and the row that it seals."""
    sealed_by: list[str] = field(default_factory=list)
    receipts: int = 0
    received_seq: int = 0
    signatures: int = 0
    pruned: list[tuple[int, int, str, list[tuple[int, int, str]]]] = field(default_factory=list)
    """The row of each, the last row that it takes out, its hash, and the segments that it names."""
    named_before: list[tuple[int, str, str]] = field(default_factory=list)
    """Who names the row before the first, with which hash, and as what."""
    not_compared: int = 0
    sha256: str = ""
    fault: tuple[int, str] | None = None
    error: str | None = None

    @property
    def well(self) -> bool:
        return self.fault is None and self.error is None

    @property
    def anchor(self) -> Anchor:
        return Anchor(self.last, bytes.fromhex(self.head), bytes.fromhex(self.epochs[-1][0]))


class Look:
    """Verifies ranges of one source, with the other files of the same journal at hand for rows that are named."""

    def __init__(self, source: Source, others: Sequence[Source], trust: Trust) -> None:
        self._source = source
        self._others = [each for each in others if each is not source and each.journal == source.journal]
        self._trust = trust
        self._near: deque[Chunk] = deque(maxlen=NEAR_CHUNKS)
        self._found = Found()

    def range(self, work: Range, after: Anchor | None, tell: Callable[[int], object] = lambda _: None) -> Found:
        """Verify one range. Raises nothing for what it finds."""
        self._near.clear()
        found = self._found = Found()
        try:
            for chunk in self._source.look(work, after):
                self._take(chunk)
                tell(found.last)
        except Broken as broken:
            found.fault = broken.seq, str(broken)
        except Unreadable as error:
            found.error = str(error)
        except OSError as error:
            found.error = error.strerror or str(error)
        if isinstance(self._source, Segment):
            found.sha256 = self._source.sha256
        return found

    def _take(self, chunk: Chunk) -> None:
        found = self._found
        self._near.append(chunk._replace(bodies=()))
        for place in may_say(chunk.bodies):
            self._interpret(chunk, place)
            self._count(chunk, place)
        self._count(chunk, len(chunk.hashes) - 1)
        found.chunks += 1

    def _count(self, chunk: Chunk, place: int) -> None:
        """Everything up to this row holds."""
        found = self._found
        if not found.first:
            found.first, found.previous = chunk.first, (chunk.previous or b"").hex()
        if not found.epochs or found.epochs[-1][0] != chunk.epoch.hex():
            found.epochs.append((chunk.epoch.hex(), chunk.first))
        found.last, found.head = chunk.first + place, chunk.hashes[place].hex()

    def _interpret(self, chunk: Chunk, place: int) -> None:
        seq = chunk.first + place
        if place:
            self._count(chunk, place - 1)
        try:
            says = json.loads(chunk.bodies[place])
            kind, facts, utc = says["kind"], says["facts"], says["at"]["utc"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # no row of these kinds; the chain covers it as it covers every body
        checks = {
            "Sealed": self._seal,
            "ReceiptStored": self._receipt,
            "SignatureMade": self._signature,
            "JournalContinued": self._continued,
            "RowsPruned": self._pruned,
        }
        if not isinstance(kind, str) or kind not in checks:
            return
        try:
            checks[kind](seq, facts, utc)
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
            raise Broken(seq, f"Row {seq} ({kind}) does not say what such a row says ({error!r}).") from error

    def _row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        for near in reversed(self._near):
            if near.first <= seq < near.first + len(near.hashes):
                return near.epoch, near.hashes[seq - near.first]
        here = self._source.row_at(seq) if seq >= self._source.first else None
        return here or row_in(self._others, seq)

    def _at(self, row: int, seq: int, claimed: str, what: str) -> bytes | None:
        """The epoch of an earlier row, which must have the hash that is claimed. None: that row is not here."""
        if not isinstance(seq, int) or not 1 <= seq < row:
            raise Broken(row, f"Row {row}, {what}, names row {seq}, which is not before it.")
        source = self._source
        found = self._row_at(seq)
        if found is None and seq == source.first - 1 and source.previous is not None:
            found = b"", source.previous
        if found is None and seq < source.first:
            if seq == source.first - 1:
                self._found.named_before.append((row, claimed, what))
            else:
                self._found.not_compared += 1
            return None
        if found is None or found[1].hex() != claimed:
            raise Broken(row, f"Row {row}, {what}, contradicts row {seq}: that row was another one then.")
        return found[0] or None

    def _seal(self, row: int, facts: dict[str, Any], _utc: str) -> None:
        seq = facts["sealed_seq"]
        epoch = self._at(row, seq, facts["sealed_hash"], "a seal")
        sealed = bytes.fromhex(facts["sealed_hash"])
        public, signature = bytes.fromhex(facts["public_key"]), bytes.fromhex(facts["signature"])
        device = fingerprint(public)
        if self._trust.devices and device not in self._trust.devices:
            raise Broken(row, f"Row {row} is a seal of device {device}, whose key was not given.")
        if epoch is None:
            return
        message = self._source.journal + epoch + seq.to_bytes(8, "big") + sealed
        if not signature_holds(public, b"lineside.seal.1", message, signature):
            raise Broken(row, f"Row {row} is a seal whose signature does not hold.")
        self._found.seals.append((row, seq))
        if device not in self._found.sealed_by and len(self._found.sealed_by) < EPOCHS_SHOWN:
            self._found.sealed_by.append(device)

    def _continued(self, row: int, facts: dict[str, Any], _utc: str) -> None:
        epoch = self._at(row, facts["last_seq"], facts["last_hash"], "the beginning of an epoch")
        if epoch is not None and epoch.hex() != facts["epoch"]:
            raise Broken(row, f"Row {row} continues an epoch that row {facts['last_seq']} is not of.")

    def _receipt(self, row: int, facts: dict[str, Any], _utc: str) -> None:
        seq = facts["stored_seq"]
        if seq != 0 or facts["head_hash"] != ZERO_HASH.hex():  # a hub that holds nothing yet
            self._at(row, seq, facts["head_hash"], "the hub's receipt")
        receipt = self._kept_receipt(row, facts["receipt"])
        for name in ("hub", "incarnation", "stored_seq", "head_hash"):
            if receipt[name] != facts[name]:
                raise Broken(row, f"Row {row} and the receipt in it disagree about {name}.")
        self._found.receipts += 1
        self._found.received_seq = max(self._found.received_seq, seq)

    def _kept_receipt(self, row: int, text: str) -> dict[str, Any]:
        receipt = read_receipt(text)
        why = receipt_fault(receipt, self._source.journal, self._trust)
        if why:
            raise Broken(row, f"Row {row} keeps a receipt {why}.")
        return receipt

    def _signature(self, row: int, facts: dict[str, Any], utc: str) -> None:
        self._at(row, facts["subject_seq"], facts["subject_hash"], "an electronic signature")
        message, attestation = attested_bytes(facts, utc), bytes.fromhex(facts["attestation"])
        keys = self._trust.devices.values()
        if keys and not any(signature_holds(key, b"lineside.signature.1", message, attestation) for key in keys):
            raise Broken(row, f"Row {row} is an electronic signature that the device did not attest.")
        self._found.signatures += 1

    def _pruned(self, row: int, facts: dict[str, Any], _utc: str) -> None:
        first, through = facts["first_seq"], facts["through_seq"]
        if type(first) is not int or not 1 <= first <= through:
            raise Broken(row, f"Row {row} takes out rows that are none: {first!r} to {through!r}.")
        before = len(self._found.named_before), self._found.not_compared
        self._at(row, through, facts["through_hash"], "the pruning of rows")
        del self._found.named_before[before[0] :]  # the row before the first is compared by whoever reports
        self._found.not_compared = before[1]
        bytes.fromhex(facts["through_hash"])
        if facts["safe"] == "hub":
            receipt = self._kept_receipt(row, facts["receipt"])
            if receipt["safe_seq"] < through:
                raise Broken(row, f"Row {row} takes out rows that its receipt does not call safe.")
        elif facts["safe"] != "medium" or facts["receipt"]:
            raise ValueError("safe is neither hub nor medium")
        named = [(each["first_seq"], each["last_seq"], each["sha256"]) for each in facts["segments"]]
        if not all(type(number) is int for each in named for number in each[:2]):
            raise ValueError("a segment's rows are no numbers")
        self._found.pruned.append((row, through, facts["through_hash"], named))


def row_in(sources: Iterable[Source], seq: int) -> tuple[bytes, bytes] | None:
    """Epoch and hash of a row in the first of these files that has it. What is broken there, its own report says."""
    for source in sources:
        if source.first <= seq <= source.last:
            try:
                found = source.row_at(seq)
            except (Broken, Unreadable, OSError):
                continue
            if found:
                return found
    return None


def read_receipt(text: str) -> dict[str, Any]:
    """A receipt's fields, their forms checked. Raises ValueError, KeyError or TypeError."""
    if len(text) > RECEIPT_BYTES_MAX:
        raise ValueError("a receipt is shorter")
    said = json.loads(text)
    sizes = {"hub": 16, "incarnation": 16, "device": 16, "journal": 16, "epoch": 16, "head_hash": 32, "signature": 64}
    if set(said) != {*sizes, "stored_seq", "safe_seq", "wanted_seq", "utc"}:
        raise ValueError("its fields are not a receipt's")
    for name, size in sizes.items():
        if bytes.fromhex(said[name]).hex() != said[name] or len(said[name]) != 2 * size:
            raise ValueError(f"its {name} is not {2 * size} hex digits")
    for name in ("stored_seq", "safe_seq", "wanted_seq"):
        if type(said[name]) is not int or not 0 <= said[name] <= SEQ_MAX:
            raise ValueError(f"its {name} is not a row's number")
    if not isinstance(said["utc"], str):
        raise TypeError("its utc is not a time")
    return dict(said)


def receipt_fault(receipt: dict[str, Any], journal: bytes, trust: Trust) -> str:
    """Why a receipt says nothing of a journal; empty when it does."""
    if receipt["journal"] != journal.hex():
        return f"for another journal, {receipt['journal']}"
    if trust.devices and receipt["device"] not in trust.devices:
        return f"for device {receipt['device']}, whose key was not given"
    if not trust.hubs:
        return ""
    public = trust.hubs.get(receipt["hub"])
    if public is None:
        return f"of hub {receipt['hub']}, whose key was not given"
    facts = {name: value for name, value in receipt.items() if name != "signature"}
    message = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    holds = signature_holds(public, b"lineside.receipt.1", message, bytes.fromhex(receipt["signature"]))
    return "" if holds else "whose signature is not the hub's"


# One file -----------------------------------------------------------------------------------------------------------


class File:
    """One source, its ranges put together in order, and its report."""

    def __init__(self, source: Source, report: Report, look: Look, trust: Trust, tell: Callable[[int], object]) -> None:
        self.source, self.report = source, report
        self.segments_named: list[tuple[int, list[tuple[int, int, str]]]] = []
        """By which row, and the segments of the rows that it took out."""
        self.sha256 = ""
        self._look, self._trust, self._tell = look, trust, tell
        self._after: Anchor | None = None
        self._epoch = ""
        self._taken_out = Anchor(0, ZERO_HASH, b"")
        """The last row before the first that a row says was taken out."""
        self._named_before: list[tuple[int, str, str]] = []
        self._not_compared = 0
        report.kind, report.journal = source.kind, source.journal.hex()
        report.sealed_seq = source.first - 1 if source.first > 1 else 0

    @property
    def over(self) -> bool:
        """Nothing further is asked of it: it does not hold, or cannot be read."""
        return self.report.fault is not None or self.report.error is not None

    def take(self, work: Range, found: Found | None = None) -> None:
        """The next range: as it was found by itself when all was well there, else looked at here."""
        after = self._after
        follows = found is not None and found.well and self._follows(found)
        got = found if follows and found is not None else self._look.range(work, after, self._tell)
        self._add(got)
        self._tell(self.report.last_row)

    def look(self, work: Range) -> Found:
        """What is in a range before those before it were put together, as another process would see it."""
        return self._look.range(work, None)

    def _follows(self, found: Found) -> bool:
        """The boundary between two ranges: the first row of this one goes on from the last of the one before."""
        if not found.first:
            return False
        if self._after is None:
            return (found.first, found.previous) == (self.source.first, (self.source.previous or b"").hex())
        return (found.first - 1, found.previous) == (self._after.seq, (self._after.hash or b"").hex())

    def _add(self, found: Found) -> None:
        report = self.report
        if found.first:
            self._after = found.anchor
            report.first_row = report.first_row or found.first
            report.rows = found.last - report.first_row + 1
            report.last_row, report.head_hash = found.last, found.head
            for epoch, first in found.epochs:
                if epoch != self._epoch and len(report.epochs) < EPOCHS_SHOWN:
                    report.epochs.append({"epoch": epoch, "first_row": first})
                self._epoch = epoch
        report.frames += found.chunks if self.source.kind == "mirror" else 0
        report.sealed_by += [each for each in found.sealed_by if each not in report.sealed_by]
        report.receipts += found.receipts
        report.received_seq = max(report.received_seq, found.received_seq)
        report.signatures += found.signatures
        self._not_compared += found.not_compared
        self._named_before += found.named_before[: EPOCHS_SHOWN - len(self._named_before)]
        self.sha256 = found.sha256
        try:
            self._seals(found)
            for row, through, digest, segments in found.pruned:
                self._pruning(row, through, bytes.fromhex(digest), segments)
        except Broken as broken:
            self.fail(broken)
        else:
            if found.fault is not None:
                self.fail(Broken(*found.fault))
            elif found.error is not None:
                report.error = f"{report.path} cannot be read: {found.error}."

    def fail(self, broken: Broken) -> None:
        """The first row that does not hold."""
        report = self.report
        report.ok, report.fault = False, {"row": broken.seq, "why": str(broken)}
        if 0 < broken.seq <= report.last_row:
            report.last_row = max(broken.seq - 1, 0)
            report.rows = max(report.last_row - report.first_row + 1, 0)

    def _seals(self, found: Found) -> None:
        must = self.source.kind == "journal" and self._trust.devices  # frames and segments are signed one by one
        for row, sealed in found.seals:
            if must:
                self._unsealed(row - 1)
            self.report.seals += 1
            self.report.sealed_seq = max(self.report.sealed_seq, sealed)
        if must:
            self._unsealed(found.last)

    def _unsealed(self, up_to: int) -> None:
        sealed = self.report.sealed_seq
        if up_to - sealed > UNSEALED_ROWS_MAX:
            why = f"{UNSEALED_ROWS_MAX} rows have no seal: the device whose key was given did not make them."
            raise Broken(sealed + 1, f"After row {sealed} {why}")

    def _pruning(self, row: int, through: int, digest: bytes, segments: list[tuple[int, int, str]]) -> None:
        self.segments_named.append((row, segments))
        taken = self._taken_out
        if through == taken.seq and digest != taken.hash:
            raise Broken(row, f"Row {row}, the pruning of rows, contradicts another about row {through}.")
        if taken.seq < through < self.source.first:
            self._taken_out = Anchor(through, digest, b"")

    def end(self) -> None:
        """After the last range."""
        if self.over:
            return
        source, report = self.source, self.report
        try:
            if isinstance(source, Database) and report.last_row < source.last:
                raise _ends_early(report.last_row, source.last)
            if isinstance(source, Database) and source.first > 1:
                source.check(self._taken_out, *source.first_row())
                source.previous = self._taken_out.hash
        except Broken as broken:
            self.fail(broken)
            return
        for row, claimed, what in self._named_before:
            if source.previous is None or source.previous.hex() != claimed:
                before = source.first - 1
                self.fail(Broken(row, f"Row {row}, {what}, contradicts row {before}: that row was another one then."))
                return
        source.first, source.last = report.first_row or 1, report.last_row
        source.head = bytes.fromhex(report.head_hash)
        report.ok = True

    def changed_meanwhile(self) -> bool:
        """It does not hold, and a runtime began or took rows out while it was looked at."""
        source = self.source
        if not self.over or not isinstance(source, Database):
            return False
        return (source.still and _log_bytes(source.path) > 0) or source.begins_later()

    def say_what_was_not_checked(self) -> None:
        report, say, trust = self.report, self.report.not_checked.append, self._trust
        if report.last_row > report.sealed_seq and report.kind == "journal":
            unsealed = f"Rows {report.sealed_seq + 1} to {report.last_row} are not sealed"
            say(f"{unsealed}: no key shows which device made them.")
        if report.seals and not trust.devices:
            say("Whose seals these are: they hold by the key that they name. Give that box's device.pub with --key.")
        if report.frames and not trust.devices:
            say(f"The signatures of {report.frames} frames. Give the box's device.pub with --key.")
        if report.kind == "segment" and not trust.devices:
            say("The signature of the segment. Give the box's device.pub with --key.")
        if report.signatures and not trust.devices:
            say(f"The device's attestation of {report.signatures} electronic signatures. Give device.pub with --key.")
        if report.receipts and not trust.hubs:
            say(f"Whether the hub signed {report.receipts} receipts. Give its hub.pub with --hub-key.")
        if self._not_compared:
            say(f"{self._not_compared} rows that seals, receipts or signatures name: they are in none of the files.")


# Several processes --------------------------------------------------------------------------------------------------


def _works(sources: Sequence[Source], rows: int) -> Iterator[tuple[int, Range]]:
    """Every range of every file, in the order in which they are put together."""
    for number, source in enumerate(sources):
        for work in source.ranges(rows):
            yield number, work


class OtherProcess:
    """A process forked from this one, which looks at the ranges that it is given; its answers in their order.

    It is made before any database is open: SQLite's connections and locks must not come into another process."""

    def __init__(self) -> None:
        self._given = 0
        self._heard = b""
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        try:
            self._pid = os.fork()
            if not self._pid:
                os.close(self._ask)
                os.close(self._answers)
                _be_the_other(asked, answer)
        except OSError:
            self._pid = 0  # without it all is looked at by the processes that are there
        os.close(asked)
        os.close(answer)
        self._open = True

    def begin(self, sources: Sequence[Source], trust: Trust, rows: int) -> None:
        """What its ranges are parts of."""
        keys = [{name: key.hex() for name, key in held.items()} for held in (trust.devices, trust.hubs)]
        self._say(json.dumps({"files": [each.plan() for each in sources], "keys": keys, "rows": rows}))

    @property
    def is_free(self) -> bool:
        """Whether it takes one more range."""
        return self._pid != 0 and self._given < GIVEN_MAX

    @property
    def has_answered(self) -> bool:
        """Whether `answer` returns at once."""
        while self._pid and b"\n" not in self._heard:
            if not select.select([self._answers], [], [], 0)[0]:
                return False
            self._hear()
        return True

    def give(self, place: int) -> None:
        """Have it look at the range with this number, a higher one each time."""
        self._given += 1
        self._say(str(place))

    def answer(self) -> Found:
        """What it found in the first of its ranges that it has not answered; when it ended, nothing: no range without
        an answer is taken for one that holds."""
        self._given -= 1
        while self._pid and b"\n" not in self._heard:
            self._hear()
        line, end, self._heard = self._heard.partition(b"\n")
        return Found(**json.loads(line)) if end else Found()

    def end(self) -> None:
        """It is not needed any more, or has ended."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        if self._open:
            os.close(self._ask)
            os.close(self._answers)
            self._open = False

    def _say(self, text: str) -> None:
        with suppress(BrokenPipeError):  # it ended: its answer will be missing
            os.write(self._ask, text.encode() + b"\n")

    def _hear(self) -> None:
        data = os.read(self._answers, 65_536)
        self._heard += data
        if not data:
            self.end()


def _be_the_other(asked: int, answer: int) -> NoReturn:
    """Answers until nobody listens. Its end closes the answers and nothing before: by then a fault has been told."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever began it ends it
        with suppress(BrokenPipeError), open(asked, "rb") as said, open(answer, "wb", closefd=False) as says:
            _help(said, says)
    finally:  # whatever it was: nothing else goes on in this process, and a range without an answer is looked at again
        failed = sys.exc_info()
        if failed[0] is not None:
            sys.excepthook(*failed)
        os._exit(failed[0] is not None)  # what the other process has open or held back is not this one's


def _help(said: BinaryIO, says: BinaryIO) -> None:
    """A plan, then the number of each range; one line for each."""
    begun = said.readline()
    if not begun:
        return
    plan = json.loads(begun)
    devices, hubs = ({name: bytes.fromhex(key) for name, key in held.items()} for held in plan["keys"])
    trust = Trust(devices, hubs)
    sources = [open_source(Path(each["path"]), devices) for each in plan["files"]]
    for source, each in zip(sources, plan["files"], strict=True):
        source.follow(each)
    looks = [Look(source, sources, trust) for source in sources]
    works = enumerate(_works(sources, plan["rows"]))
    for wanted in map(int, said):
        number, work = next(found for place, found in works if place == wanted)
        says.write(json.dumps(asdict(looks[number].range(work, None))).encode() + b"\n")
        says.flush()


@contextmanager
def _processes(paths: Sequence[Path], processes: int | None) -> Iterator[list[OtherProcess]]:
    """As many as were asked for, or as pay; none where the system cannot fork."""
    if processes is None:
        pays = sum(map(_bytes, paths)) >= SPLIT_BYTES_MIN
        processes = min(os.cpu_count() or 1, PROCESSES_MAX) if pays else 1
    with ExitStack() as stack:
        others = []
        for _ in range(1, processes if hasattr(os, "fork") else 1):
            other = OtherProcess()
            stack.callback(other.end)
            others.append(other)
        yield others


def _look_at_all(files: Sequence[File], trust: Trust, others: Sequence[OtherProcess]) -> None:
    """Every range of every file, shared with the others; what they found is put together in order."""
    sources, rows = [each.source for each in files], RANGE_ROWS
    begun: deque[tuple[File, Range, Found | OtherProcess]] = deque()

    def put_together(keep: int) -> None:
        while begun:
            file, work, found = begun[0]
            if not isinstance(found, Found):
                if len(begun) <= keep and not found.has_answered:
                    return
                found = found.answer()
            begun.popleft()
            if not file.over:
                file.take(work, found)

    for each in others:
        each.begin(sources, trust, rows)
    for place, (number, work) in enumerate(_works(sources, rows)):
        file = files[number]
        free = next((each for each in others if each.is_free), None)
        if file.over:
            if all(each.over for each in files):
                return
        elif free is not None:
            free.give(place)
            begun.append((file, work, free))
        elif begun:
            begun.append((file, work, file.look(work)))
        else:
            file.take(work)
        put_together(AHEAD_MAX)
    put_together(0)


# Files together -----------------------------------------------------------------------------------------------------


def _together(journal: bytes, files: Sequence[File], trust: Trust, journals: set[bytes]) -> Together:
    """All files of one journal as one chain; the rows that the caller expects are looked for in all of them."""
    whole = Together(journal.hex(), [each.report.path for each in files])
    faulty = next((each for each in files if each.over), None)
    if faulty:
        whole.fault = faulty.report.fault
        return whole
    try:
        _chain(whole, [each for each in files if each.report.rows])
        for file in files:
            _compare_segments(file, files)
        _expect(whole, files, trust, journals)
        whole.ok = True
    except Broken as broken:
        whole.fault = {"row": broken.seq, "why": str(broken)}
    except (Unreadable, OSError) as error:
        whole.fault = {"row": 0, "why": f"A file could not be read again: {error}."}
    for file in files:
        if len(files) == 1:
            file.report.ok, file.report.fault = whole.ok, whole.fault
        if file.report.ok:
            file.say_what_was_not_checked()
            file.report.not_checked += whole.not_checked if len(files) == 1 else []
    return whole


def _chain(whole: Together, files: Sequence[File]) -> None:
    """Each file goes on where another ended, and where two have a row it is the same."""
    held: Source | None = None
    for file in sorted(files, key=lambda each: (each.source.first, each.source.last)):
        source = file.source
        if held is None:
            whole.first_row = source.first
        elif source.first > held.last + 1:
            why = f"rows {held.last + 1} to {source.first - 1} are in none of the files before {source.path}"
            raise Broken(held.last + 1, f"Row {held.last + 1} is missing: {why}.")
        else:
            common = min(held.last, source.last)
            if common >= source.first:
                _agree(held, source, common)
            elif source.previous != held.head:
                raise Broken(source.first, f"Row {source.first} of {source.path} does not go on from {held.path}.")
            elif source.previous is not None and source.first > held.first:
                before = row_in([held], source.first - 1)
                if before is not None and before[1] != source.previous:
                    raise Broken(source.first, f"Row {source.first} of {source.path} does not go on from {held.path}.")
        if held is None or source.last > held.last:
            held = source
            whole.last_row, whole.head_hash = source.last, source.head.hex()


def _agree(one: Source, other: Source, common: int) -> None:
    """Each hash covers all rows before it: the last row that both have decides, and where they part is found."""

    def same(seq: int) -> bool:
        return one.row_at(seq) == other.row_at(seq)

    if same(common):
        return
    parted_at = bisect.bisect_left(range(other.first, common + 1), True, key=lambda seq: not same(seq)) + other.first
    why = f"{one.path} and {other.path} do not hold the same row {parted_at}; every one of their rows after it differs"
    raise Broken(parted_at, f"Row {parted_at} is contradicted: {why}.")


def _compare_segments(file: File, files: Sequence[File]) -> None:
    """A row that took rows out names the segments that have them, with the hash of each."""
    there = {each.source.first: each for each in files if each.source.kind == "segment"}
    for row, segments in file.segments_named:
        for first, last, digest in segments:
            segment = there.get(first)
            if segment and (segment.source.last != last or segment.sha256 != digest):
                why = f"it names another segment than {segment.report.path}"
                raise Broken(row, f"Row {row}, the pruning of rows, contradicts the archive: {why}.")


def _expect(whole: Together, files: Sequence[File], trust: Trust, journals: set[bytes]) -> None:
    """The heads and receipts that the caller brought. A receipt of a journal that is not here is one for each."""
    journal = bytes.fromhex(whole.journal)
    others = {each.hex() for each in journals - {journal}}
    mine = [each for each in trust.receipts if each["journal"] not in others]
    for receipt in mine:
        why = receipt_fault(receipt, journal, trust)
        if why:
            raise Broken(0, f"The receipt that was given is {why}.")
    expected = [(seq, digest, "the expected head") for seq, digest in trust.heads]
    expected += [(each["stored_seq"], bytes.fromhex(each["head_hash"]), "the hub's receipt") for each in mine]
    say = whole.not_checked.append
    for seq, digest, what in sorted(expected):
        if seq > whole.last_row:
            why = f"the rows end at {whole.last_row}, and {what} has row {seq}"
            raise Broken(whole.last_row + 1, f"Row {whole.last_row + 1} is missing: {why}.")
        found = row_in([each.source for each in files], seq)
        if seq and seq < whole.first_row:
            say(f"Whether row {seq} is the one that {what} names: it is not here.")
        elif seq and (found is None or found[1] != digest):
            why = "the rows agree with each other, its hash differs"
            raise Broken(seq, f"Row {seq} is not the one that {what} names: {why}.")
    if whole.first_row > 1:
        say(f"Rows 1 to {whole.first_row - 1}: they are not here. Give their segments as well.")
    if mine and not trust.hubs:
        say("Whether the hub signed the receipt that was given. Give its hub.pub with --hub-key.")
    if not expected:
        last = max(max(each.report.received_seq, each.report.sealed_seq) for each in files)
        say(f"Whether rows were cut off at the end after row {last}. Give --expect-head or --receipt of the hub.")


# Everything at some paths -------------------------------------------------------------------------------------------


def open_source(path: Path, devices: dict[str, bytes]) -> Source:
    """A journal, a mirror or a segment. Raises Unreadable, Broken or OSError."""
    with path.open("rb") as file:
        begins = file.read(4)
    if not begins:
        raise Unreadable("it is empty")
    if begins[:3] == b"LSA":
        return Segment(path, devices)
    return Mirror(path, devices) if begins == b"LSM\x01" else Database(path)


def verify(path: Path, trust: Trust, tell: Callable[[int], object] = lambda _: None) -> Report:
    """Verify one file. Never raises for what it finds; `tell` is called with rows' numbers as they are done."""
    return verify_files([path], trust, tell).files[0]


def verify_files(
    paths: Sequence[Path],
    trust: Trust,
    tell: Callable[[int], object] = lambda _: None,
    *,
    processes: int | None = None,
    again: int = 3,
) -> Result:
    """Verify files, each by itself and those of one journal together, by so many processes, or as many as pay."""
    result, changed = _verified(paths, trust, tell, processes)
    while changed and again:
        again -= 1
        result, changed = _verified(paths, trust, tell, processes)
    return result


def _verified(
    paths: Sequence[Path], trust: Trust, tell: Callable[[int], object], processes: int | None
) -> tuple[Result, bool]:
    """What was found, and whether a runtime changed what does not hold meanwhile."""
    result = Result()
    with ExitStack() as stack:
        others = stack.enter_context(_processes(paths, processes))  # before anything is open
        opened: list[tuple[Source, Report]] = []
        for path in paths:
            report = Report(str(path))
            result.files.append(report)
            try:
                source = open_source(path, trust.devices)
            except Unreadable as error:
                report.error = f"{path} cannot be read: {error}."
            except OSError as error:
                report.error = f"{path} cannot be read: {error.strerror or error}."
            except Broken as broken:
                report.fault = {"row": broken.seq, "why": str(broken)}
            else:
                stack.callback(source.close)
                opened.append((source, report))
        sources = [source for source, _ in opened]
        files = [File(source, report, Look(source, sources, trust), trust, tell) for source, report in opened]
        _look_at_all(files, trust, others)
        for file in files:
            file.end()
        changed = any(file.changed_meanwhile() for file in files)
        journals = {file.source.journal for file in files}
        for journal in sorted(journals):
            mine = [file for file in files if file.source.journal == journal]
            result.records.append(_together(journal, mine, trust, journals))
    return result, changed


# A folder of parts --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Parts:
    """What is in the folders and under the paths that were given."""

    files: list[Path] = field(default_factory=list)
    receipts: list[dict[str, Any]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def find(paths: Sequence[Path]) -> Parts:
    """The files that can be verified; a path that is no folder is one of them, whatever it is."""
    parts = Parts()
    for path in paths:
        if not _is_folder(path):
            parts.files.append(path)
            continue
        inside: list[Path] = []
        for folder, folders, names in os.walk(path):
            folders.sort()
            inside += [Path(folder, name) for name in sorted(names)]
            if len(inside) > FILES_MAX:
                raise Unreadable(f"{path} has more than {FILES_MAX:,} files: give a folder further inside")
        before = len(parts.files)
        for each in inside:
            _sort(each, parts)
        if len(parts.files) == before:
            parts.files.append(path)  # nothing to verify is no success
    return parts


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # why it cannot be read is said when it is opened


def _sort(path: Path, parts: Parts) -> None:
    """One file of a folder, by its name; what has a name that says nothing by what it is."""
    name = path.name
    if path.is_symlink() or name.startswith("."):
        parts.unknown.append(f"{path}: not looked at")
    elif name == "journal.db" or name.endswith((".frames", ".lsa")) or (name.endswith(".db") and _is_journal(path)):
        parts.files.append(path)
    elif name.endswith(".json") and (receipt := _is_receipt(path)):
        parts.receipts.append(receipt)
    elif name.endswith(".pub") and _is_key(path):
        parts.unknown.append(f"{path}: a key, not used; give the one that you have from elsewhere")
    elif not name.endswith((".db-wal", ".db-shm")):
        parts.unknown.append(f"{path}: nothing that can be verified")


def _is_journal(path: Path) -> bool:
    try:
        Database(path).close()
    except (Broken, Unreadable, OSError):
        return False
    return True


def _is_receipt(path: Path) -> dict[str, Any] | None:
    try:
        return _receipt_file(str(path))
    except Unreadable:
        return None


def _is_key(path: Path) -> bool:
    try:
        _key(str(path))
    except Unreadable:
        return False
    return True


def as_text(report: Report) -> str:
    """For a person."""
    if report.error:
        return report.error
    lines = [f"{report.path} ({report.kind or 'journal'} {report.journal})"]
    if report.fault:
        lines.append(f"  DOES NOT HOLD, at row {report.fault['row']}: {report.fault['why']}")
        lines.append(f"  The chain holds up to row {report.last_row}.")
        return "\n".join(lines)
    span = f" ({report.first_row} to {report.last_row})" if report.first_row > 1 else ""
    lines.append(f"  HOLDS: {report.rows} rows{span}. Head: {report.last_row}:{report.head_hash}")
    begins = ", ".join(f"row {epoch['first_row']}" for epoch in report.epochs[1:])
    lines.append(f"  epochs: {len(report.epochs)}" + (f", a new one begins at {begins}" if begins else ""))
    if report.frames:
        lines.append(f"  frames: {report.frames}")
    by = f", by device {', '.join(report.sealed_by)}" if report.sealed_by else ""
    lines.append(f"  seals: {report.seals}, up to row {report.sealed_seq}{by}")
    lines.append(f"  hub receipts: {report.receipts}, up to row {report.received_seq}")
    lines.append(f"  electronic signatures: {report.signatures}")
    return "\n".join(lines + [f"  not checked: {each}" for each in report.not_checked])


def together_as_text(whole: Together) -> str:
    """For a person: several files of one journal."""
    lines = [f"Journal {whole.journal}, its {len(whole.files)} files together"]
    if whole.fault:
        lines.append(f"  DO NOT HOLD TOGETHER, at row {whole.fault['row']}: {whole.fault['why']}")
    elif whole.ok:
        span = f"rows {whole.first_row} to {whole.last_row}"
        lines.append(f"  ONE CHAIN: {span}, without a gap. Head: {whole.last_row}:{whole.head_hash}")
    else:
        lines.append("  NOT COMPARED: one of them could not be read.")
    return "\n".join(lines + [f"  not checked: {each}" for each in whole.not_checked])


# The command ------------------------------------------------------------------------------------------------------


def _key(text: str) -> bytes:
    try:
        public = bytes.fromhex(Path(text).read_bytes()[:256].decode("ascii"))
    except OSError as error:
        raise Unreadable(f"The key {text} cannot be read: {error.strerror}") from error
    except ValueError:
        public = b""
    if len(public) != 32:
        raise Unreadable(f"{text} does not hold a public key (64 hex digits)")
    return public


def _head(text: str) -> tuple[int, bytes]:
    seq, _, digits = text.partition(":")
    try:
        head = int(seq), bytes.fromhex(digits)
    except ValueError:
        head = 0, b""
    if not 1 <= head[0] <= SEQ_MAX or len(head[1]) != 32:
        raise Unreadable(f"{text[:100]!r} is not SEQ:HASH")
    return head


def _receipt_file(text: str) -> dict[str, Any]:
    try:
        with Path(text).open("rb") as file:
            return read_receipt(file.read(RECEIPT_BYTES_MAX).decode())
    except OSError as error:
        raise Unreadable(f"The receipt {text} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable(f"{text} is not a receipt: {error}") from error


def read_trust(keys: Sequence[str], hub_keys: Sequence[str], heads: Sequence[str], receipts: Sequence[str]) -> Trust:
    """What the options name. Raises Unreadable."""
    return Trust(
        {fingerprint(key): key for key in map(_key, keys)},
        {fingerprint(key): key for key in map(_key, hub_keys)},
        tuple(map(_head, heads)),
        tuple(map(_receipt_file, receipts)),
    )


def _progress() -> Callable[[int], None]:
    """Say on stderr how far it is, once a second, for what takes longer than that."""
    last_s = time.monotonic()

    def tell(seq: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= 1.0:
            last_s = time.monotonic()
            sys.stderr.write(f"verified up to row {seq:,}\n")

    return tell


def run(paths: Sequence[Path], trust: Trust, *, as_json: bool, processes: int | None = None) -> int:
    """Verify what is at the paths, print what was found on stdout, and return the exit code."""
    try:
        parts = find(paths)
    except Unreadable as error:
        sys.stderr.write(f"{error}.\n")
        return 2
    trust = Trust(trust.devices, trust.hubs, trust.heads, (*trust.receipts, *parts.receipts))
    result = verify_files(parts.files, trust, _progress(), processes=processes)
    result.unknown = parts.unknown
    if as_json:
        sys.stdout.write(json.dumps({"ok": result.ok, **asdict(result)}) + "\n")
    else:
        texts = [as_text(report) for report in result.files]
        texts += [together_as_text(whole) for whole in result.records if len(whole.files) > 1]
        texts += result.unknown[:UNKNOWN_SHOWN]
        if len(result.unknown) > UNKNOWN_SHOWN:
            texts.append(f"and {len(result.unknown) - UNKNOWN_SHOWN} more that cannot be verified; --json has all")
        sys.stdout.write("\n".join(texts) + "\n")
    if any(each.fault for each in result.files) or any(each.fault for each in result.records):
        return 1
    return 0 if result.ok else 2


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the stand-alone file."""
    arguments = sys.argv[1:] if arguments is None else arguments
    import argparse  # where it is imported as a module, nobody asks it

    parser = argparse.ArgumentParser(description="Verify journals of Lineside, copies, segments and folders of them.")
    what = "journal.db, a .frames or .lsa file, or a folder of them"
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help=what)
    parser.add_argument("--key", action="append", default=[], help="device.pub of the box; may be repeated")
    parser.add_argument("--hub-key", action="append", default=[], help="hub.pub; may be repeated")
    parser.add_argument(
        "--expect-head", action="append", default=[], metavar="SEQ:HASH", help="a row that must be there"
    )
    parser.add_argument("--receipt", action="append", default=[], help="a file with the hub's latest receipt")
    processes = "how many share the work; else as many as pay, two at most"
    parser.add_argument("--processes", type=int, choices=range(1, 65), metavar="N", help=processes)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    try:
        trust = read_trust(given.key, given.hub_key, given.expect_head, given.receipt)
    except Unreadable as error:
        sys.stderr.write(f"{error}.\n")
        return 2
    try:
        return run(given.paths, trust, as_json=given.json, processes=given.processes)
    except KeyboardInterrupt:
        sys.stderr.write("Ended before everything was looked at: nothing is said of it.\n")
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
