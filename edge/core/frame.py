"""Frames carry rows to the hub, to a second medium or on a stick; receipts say what the hub holds.

A frame, version 1, big endian::

    "LSF" 01 | device 16 | journal 16 | epoch 16 | first seq 8 | count 4 | made seq 8
    | previous hash 32 | head hash 32 | raw size 4 | zstd(raw) | Ed25519 signature 64

raw is, for each row, its body's length (4 bytes) and its body. Row hashes are not carried: they are made
again from the bodies, and the last one must be the head hash. A frame never crosses an epoch. A frame
without rows is a hail: it says how many rows the box has made, and asks what the hub holds.
The signature is the device's, over everything before it, and is checked before anything is decompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.record import ZERO_HASH, Row, Signer, fingerprint, row_hash, signature_holds

FRAME_DOMAIN: Final = b"lineside.frame.1"
RECEIPT_DOMAIN: Final = b"lineside.receipt.1"
MAGIC: Final = b"LSF"
VERSION: Final = 1
FRAME_BYTES_MAX: Final = 131_072
WIRE_BYTES: Final = 59_000
"""Frames of several rows stay below this: some brokers drop a client at 64 KiB. A single row that will not
compress may exceed it, up to FRAME_BYTES_MAX."""
RAW_BYTES_MAX: Final = 262_144
RAW_BYTES: Final = 98_304
"""Rows are taken until their bodies reach this: about 16 KiB on the wire."""
ROWS_MAX: Final = 2_048
RECEIPT_BYTES_MAX: Final = 4_096

_HEADER: Final = struct.Struct(">3sB16s16s16sQIQ32s32sI")
_LENGTH: Final = struct.Struct(">I")
_SIGNATURE_BYTES: Final = 64
_SEQ_MAX: Final = 2**63 - 1
_REFUSED: Final = "The frame is not stored; the box keeps its rows and sends them again."


@dataclass(frozen=True, slots=True)
class Frame:
    """Rows of one journal and epoch, verified: chained, complete, signed by `device`.

    `previous` is the hash of the row before `first_seq`; `made_seq` the last row the box had made by then."""

    device: str
    journal: bytes
    epoch: bytes
    first_seq: int
    previous: bytes
    head: bytes
    made_seq: int
    rows: tuple[Row, ...]

    @property
    def last_seq(self) -> int:
        """The last row carried; the row before `first_seq` for a hail."""
        return self.first_seq + len(self.rows) - 1


def make(rows: Sequence[Row], *, journal: bytes, previous: bytes, made_seq: int, signer: Signer) -> tuple[bytes, int]:
    """One frame of as many of `rows` from the first on as fit; returns its bytes and how many it carries.

    `rows` are consecutive and not empty; `previous` is the hash of the row before the first."""
    count, raw_size = 0, 0
    for row in rows:
        raw_size += _LENGTH.size + len(row.body)
        if count and (raw_size > RAW_BYTES or row.epoch != rows[0].epoch or count == ROWS_MAX):
            break
        count += 1
    device = fingerprint(signer.public)
    while True:
        first, last = rows[0], rows[count - 1]
        taken = tuple(rows[:count])
        frame = Frame(device, journal, first.epoch, first.seq, previous, last.hash, made_seq, taken)
        data = _sign(frame, signer)
        if len(data) <= WIRE_BYTES or count == 1:
            return data, count
        count //= 2


def make_hail(*, journal: bytes, epoch: bytes, seq: int, head: bytes, made_seq: int, signer: Signer) -> bytes:
    """A frame without rows: "I believe that you hold row `seq`, whose hash is `head`; I have made `made_seq`"."""
    return _sign(Frame(fingerprint(signer.public), journal, epoch, seq + 1, head, head, made_seq, ()), signer)


def read(data: bytes, trusted: Mapping[str, bytes]) -> Frame:
    """Verify a frame against the public keys of `trusted` (device id -> 32 bytes).

    Raises `frame.too_large`, `frame.malformed`, `frame.version`, `frame.unknown_device`, `frame.signature`,
    `frame.compression` or `frame.chain`, in this order of checking."""
    if len(data) > FRAME_BYTES_MAX:
        raise LinesideError(
            "frame.too_large",
            f"A frame of {len(data)} bytes is larger than the {FRAME_BYTES_MAX} allowed.",
            effect=_REFUSED,
            todo="Find out what sent it: no box makes such a frame.",
        )
    if len(data) < _HEADER.size + _SIGNATURE_BYTES or data[:3] != MAGIC:
        raise _malformed("it does not begin like a frame or is too short")
    if data[3] != VERSION:
        raise LinesideError(
            "frame.version",
            f"The frame is of version {data[3]}; this hub reads version {VERSION}.",
            effect=_REFUSED,
            todo="Update whichever side is older.",
        )
    _, _, device_raw, journal, epoch, first_seq, count, made_seq, previous, head, raw_size = _HEADER.unpack_from(data)
    device = device_raw.hex()
    public = trusted.get(device)
    if public is None:
        raise LinesideError(
            "frame.unknown_device",
            f"The frame is from device {device}, which is not trusted here.",
            effect=_REFUSED,
            todo="Compare the fingerprint with the box's, then put its device.pub into the hub's devices folder.",
        )
    if not signature_holds(public, FRAME_DOMAIN, data[:-_SIGNATURE_BYTES], data[-_SIGNATURE_BYTES:]):
        raise LinesideError(
            "frame.signature",
            f"The signature of a frame that names device {device} does not hold.",
            effect=_REFUSED,
            todo="Someone changed the frame on its way, or made it without the device's key: find out who.",
        )
    # What a trusted device signed is still bounded: a box may be broken or stolen.
    if not 1 <= first_seq <= _SEQ_MAX - count or count > ROWS_MAX or made_seq > _SEQ_MAX:
        raise _malformed("its row numbers are out of range")
    raw = _decompress(data[_HEADER.size : -_SIGNATURE_BYTES], raw_size)
    rows: list[Row] = []
    chained, offset = previous, 0
    for seq in range(first_seq, first_seq + count):
        start = offset + _LENGTH.size
        if start > len(raw):
            raise _malformed("it holds fewer rows than it says")
        offset = start + _LENGTH.unpack_from(raw, start - _LENGTH.size)[0]
        if offset > len(raw):
            raise _malformed("a row is cut short")
        chained = row_hash(journal, epoch, seq, chained, raw[start:offset])
        rows.append(Row(seq, epoch, chained, raw[start:offset]))
    if offset != len(raw):
        raise _malformed("it holds more than it says")
    if chained != head or (first_seq == 1 and previous != ZERO_HASH):
        raise LinesideError(
            "frame.chain",
            f"Rows {first_seq} to {first_seq + count - 1} of device {device} do not chain to their head hash.",
            effect=_REFUSED,
            todo='Run "lineside journal verify" on the box: a row was changed after it was written.',
        )
    return Frame(device, journal, epoch, first_seq, previous, head, made_seq, tuple(rows))


def _sign(frame: Frame, signer: Signer) -> bytes:
    import zstandard  # here, because the runtime reads receipts and makes no frames

    raw = b"".join(part for row in frame.rows for part in (_LENGTH.pack(len(row.body)), row.body))
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        bytes.fromhex(frame.device),
        frame.journal,
        frame.epoch,
        frame.first_seq,
        len(frame.rows),
        frame.made_seq,
        frame.previous,
        frame.head,
        len(raw),
    )
    signed = header + zstandard.ZstdCompressor(level=1).compress(raw)
    return signed + signer.sign(FRAME_DOMAIN, signed)


def _decompress(body: bytes, raw_size: int) -> bytes:
    """The raw rows. The size is bounded by what the header and zstd's own header say, before any work."""
    import zstandard

    try:
        stated = zstandard.frame_content_size(body)
        if stated != raw_size or raw_size > RAW_BYTES_MAX:
            raise LinesideError(
                "frame.compression",
                f"The frame says {raw_size} bytes of rows, its compressed part {stated}; "
                f"they must agree and be at most {RAW_BYTES_MAX}.",
                effect=_REFUSED,
                todo="Find out what sent it: no box makes such a frame.",
            )
        # The window is bounded too: a small content may ask for a huge one.
        unpacker = zstandard.ZstdDecompressor(max_window_size=RAW_BYTES_MAX)
        return unpacker.decompress(body, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise LinesideError(
            "frame.compression",
            f"The frame's compressed part cannot be read ({str(error)[:120]}).",
            effect=_REFUSED,
            todo="Find out what sent it: no box makes such a frame.",
        ) from error


def _malformed(why: str) -> LinesideError:
    return LinesideError(
        "frame.malformed",
        f"These bytes are not a frame: {why}.",
        effect=_REFUSED,
        todo="Find out what sends to this topic.",
    )


# Receipts ----------------------------------------------------------------------------------------------------

_Id16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Seq = Annotated[int, Field(ge=0, le=_SEQ_MAX)]


class Receipt(BaseModel):
    """What the hub holds of one journal, durably: every row of the chain that ends with `head_hash` at
    `stored_seq`, and in its own verified backup up to `safe_seq`. `wanted_seq` is not 0 when the hub misses
    rows and asks the box to send again from there. `incarnation` is new when the hub's database is new."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    hub: _Id16
    incarnation: _Id16
    device: _Id16
    journal: _Id16
    epoch: _Id16
    stored_seq: _Seq
    safe_seq: _Seq
    head_hash: _Hash
    wanted_seq: _Seq
    utc: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]


class _SignedReceipt(Receipt):
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def make_receipt(receipt: Receipt, signer: Signer) -> str:
    """The signed text: JSON with sorted keys and no spaces, the fields and `signature`."""
    facts = receipt.model_dump()
    signature = signer.sign(RECEIPT_DOMAIN, orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))
    return orjson.dumps({**facts, "signature": signature.hex()}, option=orjson.OPT_SORT_KEYS).decode()


def read_receipt(text: bytes | str, hub_public: bytes) -> Receipt:
    """Verify a receipt against the hub's public key. Raises `frame.receipt` or `frame.receipt_signature`."""
    try:
        signed = _SignedReceipt.model_validate_json(text[:RECEIPT_BYTES_MAX])
    except ValidationError as error:
        raise LinesideError(
            "frame.receipt",
            f"These bytes are not a receipt: {error.errors(include_url=False)[0]['msg'][:200]}.",
            effect="The rows count as pending, as before.",
            todo="Find out what sends to this topic.",
        ) from error
    facts = signed.model_dump(exclude={"signature"})
    message = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)
    signature = bytes.fromhex(signed.signature)
    if signed.hub != fingerprint(hub_public) or not signature_holds(hub_public, RECEIPT_DOMAIN, message, signature):
        raise LinesideError(
            "frame.receipt_signature",
            f"A receipt that names hub {signed.hub} is not signed by the hub that this box trusts.",
            effect="The rows count as pending, as before.",
            todo="Compare hub.pub on the box with the hub's own; if they differ, find out who answers for the hub.",
        )
    return Receipt(**facts)
