"""A record with fixed keys and ids that has one of each: rows, seals, a receipt, signatures, two epochs.

`python -m tests.verify.record` makes the record format page's vectors from it, when rows have got new facts.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.archive import write_segment
from edge.core import events as ev
from edge.core import frame
from edge.core.events import Event, RowBody, encode
from edge.core.people import SIGNATURE_DOMAIN, attested_bytes
from edge.core.record import SEAL_DOMAIN, ZERO_HASH, Row, fingerprint, row_hash, sealed_bytes
from edge.core.terms import ClockQuality, Stamp
from edge.identity import DeviceKey
from edge.journal import JournalReader
from edge.mirror import HEADER

JOURNAL = bytes(range(16))
EPOCHS = (bytes(range(16, 32)), bytes(range(32, 48)))
AT = Stamp("2026-11-21T10:00:00.000000Z", ClockQuality.SYNCED, 1.5, "0123456789abcdef0123456789abcdef")


def key(number: int) -> DeviceKey:
    return DeviceKey(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32))


DEVICE, HUB, STRANGER = key(1), key(2), key(3)


class Record:
    """Rows as a box makes them, by the product's own code."""

    def __init__(self, device: DeviceKey = DEVICE, journal: bytes = JOURNAL) -> None:
        self.device, self.journal, self.epoch = device, journal, EPOCHS[0]
        self.rows: list[Row] = []

    @property
    def head(self) -> tuple[int, bytes]:
        return (self.rows[-1].seq, self.rows[-1].hash) if self.rows else (0, ZERO_HASH)

    def add(self, event: Event, actor: str = "lineside") -> None:
        seq, previous = self.head
        body = encode(RowBody(event, AT, actor))
        hashed = row_hash(self.journal, self.epoch, seq + 1, previous, body)
        self.rows.append(Row(seq + 1, self.epoch, hashed, body))

    def values(self, count: int) -> None:
        for n in range(count):
            name = f"value-{self.head[0]}"
            self.add(ev.ValueRecorded(batch="B-1", step="040", name=name, value=n * 0.5, source="entered"), "ana")

    def seal(self, by: DeviceKey | None = None) -> None:
        signer, (seq, hashed) = by or self.device, self.head
        message = sealed_bytes(self.journal, self.rows[-1].epoch, seq, hashed)
        signature = signer.sign(SEAL_DOMAIN, message).hex()
        public = signer.public.hex()
        self.add(ev.Sealed(sealed_seq=seq, sealed_hash=hashed.hex(), public_key=public, signature=signature))

    def receipt(self, seq: int | None = None, by: DeviceKey = HUB) -> str:
        row = self.rows[(seq or self.head[0]) - 1]
        said = frame.Receipt(
            hub=fingerprint(by.public),
            incarnation="aa" * 16,
            device=fingerprint(self.device.public),
            journal=self.journal.hex(),
            epoch=row.epoch.hex(),
            stored_seq=row.seq,
            safe_seq=0,
            head_hash=row.hash.hex(),
            wanted_seq=0,
            utc=AT.utc,
        )
        return frame.make_receipt(said, by)

    def receive(self, seq: int | None = None, text: str | None = None) -> None:
        row = self.rows[(seq or self.head[0]) - 1]
        kept = text or self.receipt(seq)
        hub = fingerprint(HUB.public)
        self.add(
            ev.ReceiptStored(hub=hub, incarnation="aa" * 16, stored_seq=row.seq, head_hash=row.hash.hex(), receipt=kept)
        )

    def sign(self, by: DeviceKey | None = None) -> None:
        seq, hashed = self.head
        said = {"person": "ana", "role": "operator", "meaning": "geprüft", "session": "S-1"}
        methods = ["name", "PIN"]
        message = attested_bytes(subject_seq=seq, subject_hash=hashed.hex(), methods=methods, utc=AT.utc, **said)
        attestation = (by or self.device).sign(SIGNATURE_DOMAIN, message).hex()
        self.add(
            ev.SignatureMade(
                batch="B-1",
                step="050",
                methods=methods,
                subject_seq=seq,
                subject_hash=hashed.hex(),
                attestation=attestation,
                **said,
            ),
            "ana",
        )

    def restored(self) -> None:
        last = self.rows[-1]
        self.epoch = EPOCHS[1]
        self.add(
            ev.JournalContinued(
                epoch=last.epoch.hex(),
                last_seq=last.seq,
                last_hash=last.hash.hex(),
                backup_seq=last.seq,
                mirror_seq=None,
                hub_seq=None,
                heard_seq=None,
            )
        )

    def database(self, path: Path) -> Path:
        connection = apsw.Connection(str(path))
        connection.execute("CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID")
        connection.execute("CREATE TABLE row(seq INTEGER PRIMARY KEY, epoch BLOB, hash BLOB, body BLOB)")
        connection.execute("INSERT INTO meta VALUES('format', 1), ('journal', ?)", (self.journal,))
        values = [(row.seq, row.epoch, row.hash, row.body) for row in self.rows]
        with connection:
            connection.executemany("INSERT INTO row VALUES(?,?,?,?)", values)
        connection.close()
        return path

    def segments(self, folder: Path, *lasts: int) -> list[Path]:
        """Segments up to each of these rows, by the product's archive."""
        source, made = folder / "to-archive.db", []
        self.database(source)
        after = (0, ZERO_HASH)
        with JournalReader(source) as reader:
            for last in lasts:
                made.append(write_segment(reader, folder, after=after, until_seq=last, signer=self.device).path)
                after = last, self.rows[last - 1].hash
        for each in folder.glob("to-archive.db*"):
            each.unlink()
        return made

    def prune(self, first: int, through: int, segments: list[Path], receipt: str = "") -> None:
        """Say that rows are taken out; which they then must be from a database."""
        named: list[dict[str, int | str]] = []
        for path in segments:
            data = path.read_bytes()
            begins, count = int.from_bytes(data[36:44], "big"), int.from_bytes(data[44:48], "big")
            digest = hashlib.sha256(data).hexdigest()
            named.append({"first_seq": begins, "last_seq": begins + count - 1, "sha256": digest})
        self.add(
            ev.RowsPruned(
                first_seq=first,
                through_seq=through,
                through_hash=self.rows[through - 1].hash.hex(),
                safe="hub" if receipt else "medium",
                receipt=receipt,
                segments=named,
            )
        )

    def frames(self) -> list[bytes]:
        rows, previous, made = self.rows, ZERO_HASH, []
        while rows:
            data, count = frame.make(
                rows[:7], journal=self.journal, previous=previous, made_seq=self.head[0], signer=self.device
            )
            made.append(data)
            previous, rows = rows[count - 1].hash, rows[count:]
        return made

    def mirror(self, path: Path) -> Path:
        path.write_bytes(HEADER + b"".join(struct.pack(">I", len(data)) + data for data in self.frames()))
        return path


def whole(device: DeviceKey = DEVICE) -> Record:
    """22 rows: a seal at 5 and 13, a receipt at 8 about row 6, signatures at 10 and 11, an epoch from 15 on."""
    record = Record(device)
    record.values(4)
    record.seal()
    record.values(2)
    record.receive(6)
    record.values(1)
    record.sign()
    record.sign()
    record.values(1)
    record.seal()
    record.values(1)
    record.restored()
    record.values(4)
    record.receive(18)
    record.seal()
    record.values(1)
    return record


VECTORS = Path(__file__).parent / "vectors" / "record.json"
SEGMENT_VECTORS = Path(__file__).parents[1] / "archive" / "vectors"


def vectors() -> dict[str, Any]:
    """What stands in `record.json`."""
    record = whole()
    keys = {
        name: {
            "private": (bytes([number]) * 32).hex(),
            "public": key(number).public.hex(),
            "fingerprint": fingerprint(key(number).public),
        }
        for name, number in (("device", 1), ("hub", 2))
    }
    rows = [{"seq": r.seq, "epoch": r.epoch.hex(), "hash": r.hash.hex(), "body": r.body.decode()} for r in record.rows]
    frames = [data.hex() for data in record.frames()]
    return {**keys, "journal": JOURNAL.hex(), "rows": rows, "frames": frames, "receipt": record.receipt(20)}


if __name__ == "__main__":
    VECTORS.write_text(json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with TemporaryDirectory() as folder:
        (made,) = whole().segments(Path(folder), len(whole().rows))
        (SEGMENT_VECTORS / made.name).write_bytes(made.read_bytes())
