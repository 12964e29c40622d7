"""Verify a Lineside journal, or a mirror of one, without Lineside: `python verify.py PATH... [--key device.pub]`.

One file, which may be copied anywhere. It needs Python 3.11, `cryptography`, and `zstandard` for mirrors. It was
written from `docs/reference/record-format.md` and imports nothing of Lineside. It writes nothing.

Exit code 0: everything looked at holds. 1: something does not. 2: something could not be read.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import sqlite3
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ZERO_HASH: Final = bytes(32)
BODY_BYTES_MAX: Final = 65_536
ROWS_AT_ONCE: Final = 500
NEAR_ROWS: Final = 4_096
"""So many hashes are kept at hand; older ones are read again where they are needed."""
UNSEALED_ROWS_MAX: Final = 4_096
"""A box seals after 256 rows. More than this without a seal was not made by the device whose key is given."""
EPOCHS_SHOWN: Final = 1_000
FRAME_BYTES_MAX: Final = 131_072
RAW_BYTES_MAX: Final = 262_144
FRAME_ROWS_MAX: Final = 2_048
RECEIPT_BYTES_MAX: Final = 4_096
SEQ_MAX: Final = 2**63 - 1
FRAME_HEADER: Final = struct.Struct(">3sB16s16s16sQIQ32s32sI")
SCHEMA: Final = {
    "meta": "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "row": "CREATE TABLE row(seq INTEGER PRIMARY KEY, epoch BLOB, hash BLOB, body BLOB)",
}
INTERPRETED: Final = (b"Sealed", b"ReceiptStored", b"SignatureMade", b"JournalContinued", b"\\")
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
    """What was found at one path. `fault` is the first row that does not hold: every row before it does."""

    path: str
    kind: str = ""
    ok: bool = False
    journal: str = ""
    rows: int = 0
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


# Bytes ------------------------------------------------------------------------------------------------------------


def row_hash(journal: bytes, epoch: bytes, seq: int, previous: bytes, body: bytes) -> bytes:
    return hashlib.sha256(b"lineside.row.1" + journal + epoch + seq.to_bytes(8, "big") + previous + body).digest()


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


# A journal --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    seq: int
    epoch: bytes
    hash: bytes
    body: bytes


class Database:
    """journal.db, live or copied. Each look is a short transaction, so that a box at work is not disturbed."""

    kind = "journal"

    def __init__(self, path: Path) -> None:
        self.path = path
        # With a log beside it rows may be in the log alone; without one the file is complete and nothing is touched.
        self.still = not _has_log(path)
        mode = "immutable=1" if self.still else "mode=ro"
        try:
            self._db = sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=5)
            self._db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * BODY_BYTES_MAX)
            self._db.text_factory = bytearray  # text where bytes belong is a change, also when it spells the same
        except sqlite3.Error as error:
            raise Unreadable(str(error)) from error
        try:
            self.journal = self._check()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def _ask(self, sql: str, *values: int) -> list[tuple[Any, ...]]:
        return self._db.execute(sql, values).fetchall()

    def _check(self) -> bytes:
        try:
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

    def rows(self) -> Iterator[Row]:
        """Every row there is, from the lowest number on. Raises Broken where one cannot be read."""
        seq, limit = -(2**63), ROWS_AT_ONCE
        good = 0
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
                yield Row(number, epoch, digest, body)
                good = number
            if not found or good == SEQ_MAX:
                return
            seq = good + 1

    def head_seq(self) -> int:
        """The highest number that the index shows: rows that a damaged index hides would end the walk early."""
        try:
            found = self._ask("SELECT seq FROM row ORDER BY seq DESC LIMIT 1")
        except sqlite3.Error as error:
            raise Broken(0, f"The end of the journal cannot be read ({error}).") from error
        return found[0][0] if found else 0

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        """Epoch and hash of a row that was verified before."""
        try:
            found = self._ask("SELECT epoch, hash FROM row WHERE seq = ?", seq)
        except sqlite3.Error as error:
            raise Broken(seq, f"Row {seq} cannot be read again ({error}).") from error
        return found[0] if found else None


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes | bytearray) else repr(value)


# A mirror ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Frame:
    device: str
    journal: bytes
    epoch: bytes
    first_seq: int
    previous: bytes
    head: bytes
    bodies: list[bytes]
    signed: bool | None
    """None: the device's key is not at hand."""


class Mirror:
    """A file of frames."""

    kind = "mirror"

    def __init__(self, path: Path, devices: dict[str, bytes]) -> None:
        self._devices = devices
        self.frames = self.unsigned = 0
        self._index: list[tuple[int, int]] = []
        """(first row, place in the file) about every FRAME_ROWS_MAX rows, to read a row again."""
        self.journal = b""
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error
        if self._file.read(4) != b"LSM\x01":
            self._file.close()
            raise Unreadable("it is neither a journal nor a mirror of one")

    def close(self) -> None:
        self._file.close()

    def rows(self) -> Iterator[Row]:
        """Every row, made again from the frames. Raises Broken at the first frame that does not hold."""
        seq, head, place = 0, ZERO_HASH, 4
        while (got := self._frame(place, seq)) is not None:
            frame, after = got
            self.journal = self.journal or frame.journal
            if frame.journal != self.journal:
                raise Broken(seq + 1, f"The frame after row {seq} is of another journal.")
            if frame.first_seq != seq + 1 or frame.previous != head:
                raise Broken(seq + 1, f"Row {seq + 1} is missing: the next frame begins with row {frame.first_seq}.")
            if not self._index or frame.first_seq >= self._index[-1][0] + FRAME_ROWS_MAX:
                self._index.append((frame.first_seq, place))
            rows = list(_chained(frame))
            if not rows or rows[-1].hash != frame.head:
                raise Broken(seq + 1, f"The rows of the frame from row {seq + 1} do not chain to its head hash.")
            self.frames += 1
            self.unsigned += frame.signed is None
            yield from rows
            seq, head, place = rows[-1].seq, rows[-1].hash, after

    def head_seq(self) -> int:
        """A mirror has no index that could hide rows."""
        return 0

    def row_at(self, seq: int) -> tuple[bytes, bytes] | None:
        at = bisect.bisect_right(self._index, (seq, SEQ_MAX)) - 1
        place = self._index[at][1] if at >= 0 else -1
        while place >= 0 and (got := self._frame(place, seq)) is not None:
            frame, place = got
            if frame.first_seq + len(frame.bodies) > seq:
                return next((row.epoch, row.hash) for row in _chained(frame) if row.seq == seq)
        return None

    def _frame(self, place: int, seq: int) -> tuple[Frame, int] | None:
        """The frame at a place in the file, and the place after it; None at the end."""
        self._file.seek(place)
        length = self._file.read(4)
        if not length:
            return None
        size = int.from_bytes(length, "big") if len(length) == 4 else 0
        if not 0 < size <= FRAME_BYTES_MAX:
            raise Broken(seq + 1, f"After row {seq} the copy is cut short, or a frame's length was changed.")
        data = self._file.read(size)
        if len(data) < size:
            raise Broken(seq + 1, f"After row {seq} the copy is cut short: the last frame is not whole.")
        return read_frame(data, self._devices, seq), place + 4 + size


def read_frame(data: bytes, devices: dict[str, bytes], seq: int) -> Frame:
    """A frame, its signature checked when the key is at hand. Raises Broken for the row after `seq`."""

    def broken(why: str) -> Broken:
        return Broken(seq + 1, f"The frame after row {seq} does not hold: {why}.")

    if len(data) < FRAME_HEADER.size + 64 or data[:4] != b"LSF\x01":
        raise broken("it does not begin like a frame")
    _, _, device, journal, epoch, first, count, made, previous, head, raw_size = FRAME_HEADER.unpack_from(data)
    public = devices.get(device.hex())
    if public is None and devices:
        raise broken(f"it is of device {device.hex()}, whose key was not given")
    if public is not None and not signature_holds(public, b"lineside.frame.1", data[:-64], data[-64:]):
        raise broken("its signature is not the device's")
    if not 1 <= first <= SEQ_MAX - count or not 1 <= count <= FRAME_ROWS_MAX or made > SEQ_MAX:
        raise broken("its row numbers are out of range")
    raw = _decompress(data[FRAME_HEADER.size : -64], raw_size)
    if raw is None:
        raise broken("its compressed part cannot be read")
    bodies, offset = [], 0
    for _ in range(count):
        size = int.from_bytes(raw[offset : offset + 4], "big")
        bodies.append(raw[offset + 4 : offset + 4 + size])
        offset += 4 + size
        if offset > len(raw):
            raise broken("a row in it is cut short")
    if offset != len(raw):
        raise broken("it holds more than it says")
    signed = True if public is not None else None
    return Frame(device.hex(), journal, epoch, first, previous, head, bodies, signed)


def _decompress(data: bytes, raw_size: int) -> bytes | None:
    try:
        import zstandard
    except ImportError as error:
        raise Unreadable("a mirror needs the package zstandard") from error
    try:
        if raw_size > RAW_BYTES_MAX or zstandard.frame_content_size(data) != raw_size:
            return None
        unpacker = zstandard.ZstdDecompressor(max_window_size=RAW_BYTES_MAX)
        return unpacker.decompress(data, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError:
        return None


def _chained(frame: Frame) -> Iterator[Row]:
    head = frame.previous
    for seq, body in enumerate(frame.bodies, frame.first_seq):
        head = row_hash(frame.journal, frame.epoch, seq, head, body)
        yield Row(seq, frame.epoch, head, body)


# The walk ---------------------------------------------------------------------------------------------------------


class Walk:
    """One pass over the rows of a source: what holds so far, and what it says about itself."""

    def __init__(self, source: Database | Mirror, trust: Trust, report: Report, tell: Callable[[int], object]) -> None:
        self._source = source
        self._trust = trust
        self._report = report
        self._tell = tell
        self._seq, self._hash, self._epoch = 0, ZERO_HASH, b""
        self._near: deque[tuple[bytes, bytes]] = deque(maxlen=NEAR_ROWS)
        self._unsigned_receipts = self._unattested = 0
        self._expected = [(seq, row_hash, "the expected head") for seq, row_hash in trust.heads]
        self._expected += [
            (receipt["stored_seq"], bytes.fromhex(receipt["head_hash"]), "the hub's receipt")
            for receipt in trust.receipts
        ]
        self._expected.sort()

    def run(self) -> None:
        """Raises Broken at the first row that does not hold."""
        shown = self._source.head_seq()
        for row in self._source.rows():
            self._chain(row)
            self._seq, self._hash = row.seq, row.hash
            self._near.append((row.epoch, row.hash))
            self._report.rows, self._report.head_hash = row.seq, row.hash.hex()
            if row.epoch != self._epoch:
                self._epoch = row.epoch
                if len(self._report.epochs) < EPOCHS_SHOWN:
                    self._report.epochs.append({"epoch": row.epoch.hex(), "first_row": row.seq})
            if any(word in row.body for word in INTERPRETED):
                self._interpret(row)
            if self._trust.devices and row.seq - self._report.sealed_seq > UNSEALED_ROWS_MAX and self._must_seal():
                why = f"{UNSEALED_ROWS_MAX} rows have no seal: the device whose key was given did not make them."
                raise Broken(self._report.sealed_seq + 1, f"After row {self._report.sealed_seq} {why}")
            self._tell(row.seq)
        self._end(shown)

    def _must_seal(self) -> bool:
        return isinstance(self._source, Database)  # frames are signed one by one

    def _chain(self, row: Row) -> None:
        journal, seq = self._source.journal, self._seq + 1
        if row.seq != seq:
            if row.seq < 1:
                raise Broken(row.seq, f"Row {row.seq} was not written by Lineside: numbers begin at 1.")
            if row_hash(journal, row.epoch, seq, self._hash, row.body) == row.hash:
                raise Broken(row.seq, f"The number of row {seq} was changed to {row.seq}.")
            raise Broken(row.seq, f"Row {row.seq} follows row {self._seq}: row {seq} is missing.")
        if row_hash(journal, row.epoch, seq, self._hash, row.body) != row.hash:
            if self._epoch and row_hash(journal, self._epoch, seq, self._hash, row.body) == row.hash:
                raise Broken(seq, f"The epoch of row {seq} was changed after it was written.")
            why = "its hash does not fit its body, its place or the rows before it"
            raise Broken(seq, f"Row {seq} was changed after it was written: {why}.")

    def _interpret(self, row: Row) -> None:
        try:
            says = json.loads(row.body)
            kind, facts, utc = says["kind"], says["facts"], says["at"]["utc"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return  # no row of these kinds; the chain covers it as it covers every body
        checks = {
            "Sealed": self._seal,
            "ReceiptStored": self._receipt,
            "SignatureMade": self._signature,
            "JournalContinued": self._continued,
        }
        if not isinstance(kind, str) or kind not in checks:
            return
        try:
            checks[kind](row, facts, utc)
        except (ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError) as error:
            raise Broken(row.seq, f"Row {row.seq} ({kind}) does not say what such a row says ({error!r}).") from error

    def _at(self, row: Row, seq: int, claimed: str, what: str) -> tuple[bytes, bytes]:
        """Epoch and hash of an earlier row, which must have the hash that is claimed."""
        if not isinstance(seq, int) or not 1 <= seq < row.seq:
            raise Broken(row.seq, f"Row {row.seq}, {what}, names row {seq}, which is not before it.")
        back = row.seq - seq
        found = self._near[-1 - back] if back < len(self._near) else self._source.row_at(seq)
        if found is None or found[1].hex() != claimed:
            raise Broken(row.seq, f"Row {row.seq}, {what}, contradicts row {seq}: that row was another one then.")
        return found

    def _seal(self, row: Row, facts: dict[str, Any], _utc: str) -> None:
        seq = facts["sealed_seq"]
        epoch, sealed = self._at(row, seq, facts["sealed_hash"], "a seal")
        public, signature = bytes.fromhex(facts["public_key"]), bytes.fromhex(facts["signature"])
        device = fingerprint(public)
        if self._trust.devices and device not in self._trust.devices:
            raise Broken(row.seq, f"Row {row.seq} is a seal of device {device}, whose key was not given.")
        message = self._source.journal + epoch + seq.to_bytes(8, "big") + sealed
        if not signature_holds(public, b"lineside.seal.1", message, signature):
            raise Broken(row.seq, f"Row {row.seq} is a seal whose signature does not hold.")
        self._report.seals += 1
        self._report.sealed_seq = max(self._report.sealed_seq, seq)
        if device not in self._report.sealed_by and len(self._report.sealed_by) < EPOCHS_SHOWN:
            self._report.sealed_by.append(device)

    def _continued(self, row: Row, facts: dict[str, Any], _utc: str) -> None:
        epoch, _ = self._at(row, facts["last_seq"], facts["last_hash"], "the beginning of an epoch")
        if epoch.hex() != facts["epoch"]:
            raise Broken(row.seq, f"Row {row.seq} continues an epoch that row {facts['last_seq']} is not of.")

    def _receipt(self, row: Row, facts: dict[str, Any], _utc: str) -> None:
        seq = facts["stored_seq"]
        if seq != 0 or facts["head_hash"] != ZERO_HASH.hex():  # a hub that holds nothing yet
            self._at(row, seq, facts["head_hash"], "the hub's receipt")
        receipt = read_receipt(facts["receipt"])
        for name in ("hub", "incarnation", "stored_seq", "head_hash"):
            if receipt[name] != facts[name]:
                raise Broken(row.seq, f"Row {row.seq} and the receipt in it disagree about {name}.")
        why = self.receipt_fault(receipt)
        if why:
            raise Broken(row.seq, f"Row {row.seq} keeps a receipt {why}.")
        self._unsigned_receipts += not self._trust.hubs
        self._report.receipts += 1
        self._report.received_seq = max(self._report.received_seq, seq)

    def receipt_fault(self, receipt: dict[str, Any]) -> str:
        """Why a receipt says nothing of these rows; empty when it does."""
        if receipt["journal"] != self._source.journal.hex():
            return f"for another journal, {receipt['journal']}"
        if self._trust.devices and receipt["device"] not in self._trust.devices:
            return f"for device {receipt['device']}, whose key was not given"
        if not self._trust.hubs:
            return ""
        public = self._trust.hubs.get(receipt["hub"])
        if public is None:
            return f"of hub {receipt['hub']}, whose key was not given"
        facts = {name: value for name, value in receipt.items() if name != "signature"}
        message = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        holds = signature_holds(public, b"lineside.receipt.1", message, bytes.fromhex(receipt["signature"]))
        return "" if holds else "whose signature is not the hub's"

    def _signature(self, row: Row, facts: dict[str, Any], utc: str) -> None:
        self._at(row, facts["subject_seq"], facts["subject_hash"], "an electronic signature")
        message, attestation = attested_bytes(facts, utc), bytes.fromhex(facts["attestation"])
        keys = self._trust.devices.values()
        if keys and not any(signature_holds(key, b"lineside.signature.1", message, attestation) for key in keys):
            raise Broken(row.seq, f"Row {row.seq} is an electronic signature that the device did not attest.")
        self._unattested += not keys
        self._report.signatures += 1

    def _end(self, shown: int) -> None:
        if self._seq < shown:
            raise Broken(self._seq + 1, f"Row {self._seq + 1} is missing: the rows end before row {shown}.")
        for receipt in self._trust.receipts:
            why = self.receipt_fault(receipt)
            if why:
                raise Broken(0, f"The receipt that was given is {why}.")
        for seq, expected, what in self._expected:
            if seq > self._seq:
                why = f"the rows end at {self._seq}, and {what} has row {seq}"
                raise Broken(self._seq + 1, f"Row {self._seq + 1} is missing: {why}.")
            found = self._near[seq - self._seq - 1] if self._seq - seq < len(self._near) else self._source.row_at(seq)
            if seq and (found is None or found[1] != expected):
                why = "the rows agree with each other, its hash differs"
                raise Broken(seq, f"Row {seq} is not the one that {what} names: {why}.")
        self._say_what_was_not_checked()

    def _say_what_was_not_checked(self) -> None:
        report, say = self._report, self._report.not_checked.append
        if report.rows > report.sealed_seq and report.kind == "journal":
            say(f"Rows {report.sealed_seq + 1} to {report.rows} are not sealed: no key shows which device made them.")
        if report.seals and not self._trust.devices:
            say("Whose seals these are: they hold by the key that they name. Give that box's device.pub with --key.")
        if isinstance(self._source, Mirror) and self._source.unsigned:
            say(f"The signatures of {self._source.unsigned} frames. Give the box's device.pub with --key.")
        if self._unattested:
            say(f"The device's attestation of {self._unattested} electronic signatures. Give device.pub with --key.")
        if self._unsigned_receipts:
            say(f"Whether the hub signed {self._unsigned_receipts} receipts. Give its hub.pub with --hub-key.")
        if self._trust.receipts and not self._trust.hubs:
            say("Whether the hub signed the receipt that was given. Give its hub.pub with --hub-key.")
        if not self._expected:
            last = max(report.received_seq, report.sealed_seq)
            say(f"Whether rows were cut off at the end after row {last}. Give --expect-head or --receipt of the hub.")


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


# One path ---------------------------------------------------------------------------------------------------------


def verify(path: Path, trust: Trust, tell: Callable[[int], object] = lambda _: None) -> Report:
    """Verify one file. Never raises for what it finds; `tell` is called with each row's number."""
    report = Report(str(path))
    source: Database | Mirror | None = None
    try:
        source = _open(path, trust)
        report.kind = source.kind
        with closing(source):
            try:
                Walk(source, trust, report, tell).run()
                report.ok = True
            finally:
                report.journal = source.journal.hex()
                if isinstance(source, Mirror):
                    report.frames = source.frames
    except Unreadable as error:
        report.error = f"{path} cannot be read: {error}."
    except OSError as error:
        report.error = f"{path} cannot be read: {error.strerror or error}."
    except Broken as broken:
        if isinstance(source, Database) and source.still and _has_log(path):
            return verify(path, trust, tell)  # a runtime began meanwhile: look again as at a live one
        report.fault = {"row": broken.seq, "why": str(broken)}
    return report


def _open(path: Path, trust: Trust) -> Database | Mirror:
    with path.open("rb") as file:
        begins = file.read(4)
    if not begins:
        raise Unreadable("it is empty")
    return Mirror(path, trust.devices) if begins == b"LSM\x01" else Database(path)


def find(path: Path) -> list[Path]:
    """The files of a path: itself, or the journals and mirrors of a box, state or mirror folder."""
    if not path.is_dir():
        return [path]
    found = [each for each in (path / "journal.db", path / "state" / "journal.db") if each.is_file()]
    return (found + sorted(path.glob("*.frames"))) or [path]


def as_text(report: Report) -> str:
    """For a person."""
    if report.error:
        return report.error
    lines = [f"{report.path} ({report.kind or 'journal'} {report.journal})"]
    if report.fault:
        lines.append(f"  DOES NOT HOLD, at row {report.fault['row']}: {report.fault['why']}")
        lines.append(f"  The chain holds up to row {report.rows}.")
        return "\n".join(lines)
    lines.append(f"  HOLDS: {report.rows} rows. Head: {report.rows}:{report.head_hash}")
    begins = ", ".join(f"row {epoch['first_row']}" for epoch in report.epochs[1:])
    lines.append(f"  epochs: {len(report.epochs)}" + (f", a new one begins at {begins}" if begins else ""))
    if report.frames:
        lines.append(f"  frames: {report.frames}")
    by = f", by device {', '.join(report.sealed_by)}" if report.sealed_by else ""
    lines.append(f"  seals: {report.seals}, up to row {report.sealed_seq}{by}")
    lines.append(f"  hub receipts: {report.receipts}, up to row {report.received_seq}")
    lines.append(f"  electronic signatures: {report.signatures}")
    return "\n".join(lines + [f"  not checked: {each}" for each in report.not_checked])


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
        if seq % 1_000 == 0 and time.monotonic() - last_s >= 1.0:
            last_s = time.monotonic()
            sys.stderr.write(f"{seq:,} rows verified\n")

    return tell


def run(paths: Sequence[Path], trust: Trust, *, as_json: bool) -> int:
    """Verify every path, print what was found on stdout, and return the exit code."""
    reports = [verify(each, trust, _progress()) for path in paths for each in find(path)]
    if as_json:
        ok = all(report.ok for report in reports)
        sys.stdout.write(json.dumps({"ok": ok, "files": [asdict(report) for report in reports]}) + "\n")
    else:
        sys.stdout.write("\n".join(map(as_text, reports)) + "\n")
    if any(report.fault for report in reports):
        return 1
    return 2 if any(report.error for report in reports) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of the stand-alone file."""
    parser = argparse.ArgumentParser(description="Verify journals of Lineside and mirrors of them.")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="journal.db, a .frames file, or a folder")
    parser.add_argument("--key", action="append", default=[], help="device.pub of the box; may be repeated")
    parser.add_argument("--hub-key", action="append", default=[], help="hub.pub; may be repeated")
    parser.add_argument(
        "--expect-head", action="append", default=[], metavar="SEQ:HASH", help="a row that must be there"
    )
    parser.add_argument("--receipt", action="append", default=[], help="a file with the hub's latest receipt")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    try:
        trust = read_trust(given.key, given.hub_key, given.expect_head, given.receipt)
    except Unreadable as error:
        sys.stderr.write(f"{error}.\n")
        return 2
    return run(given.paths, trust, as_json=given.json)


if __name__ == "__main__":
    sys.exit(main())
