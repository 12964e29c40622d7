"""Frames and receipts: what is made is read back; everything else is refused in words."""

import hashlib
import os
import random
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.record import ZERO_HASH, Row, fingerprint, row_hash
from edge.identity import DeviceKey

JOURNAL = bytes(range(16))
EPOCH = b"e" * 16


def chain(bodies, first=1, previous=ZERO_HASH, epoch=EPOCH, journal=JOURNAL):
    rows = []
    for seq, body in enumerate(bodies, first):
        previous = row_hash(journal, epoch, seq, previous, body)
        rows.append(Row(seq, epoch, previous, body))
    return rows


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    return DeviceKey.create(Path(tmp_path_factory.mktemp("key")) / "device.key")


@pytest.fixture(scope="module")
def trusted(key):
    return {fingerprint(key.public): key.public}


def made(key, rows, previous=ZERO_HASH):
    return frame.make(rows, journal=JOURNAL, previous=previous, made_seq=rows[-1].seq, signer=key)


def test_what_is_made_is_read_back(key, trusted):
    rows = chain([b'{"kind":"A"}', b"", "µ".encode() * 500])
    data, count = made(key, rows)
    got = frame.read(data, trusted)
    assert count == 3
    assert got.rows == tuple(rows)
    assert (got.first_seq, got.last_seq, got.previous, got.head) == (1, 3, ZERO_HASH, rows[-1].hash)
    assert (got.device, got.journal, got.epoch, got.made_seq) == (key.fingerprint, JOURNAL, EPOCH, 3)


def test_frames_are_about_16_kib_and_cover_every_row_once(key, trusted):
    rng = random.Random(4)
    bodies = [
        b'{"kind":"ValueRecorded","v":1,"at":{"utc":"2026-11-21T10:%02d:%02d.%06dZ","quality":"synced"},"facts":'
        b'{"step":"050","value":%.4f,"unit":"degC","session":"%s"}}'
        % (i // 60 % 60, i % 60, i, rng.random() * 40, rng.randbytes(8).hex().encode())
        for i in range(5000)
    ]
    rows = chain(bodies)
    previous, rest, sizes, back = ZERO_HASH, rows, [], []
    while rest:
        data, count = made(key, rest, previous)
        sizes.append(len(data))
        back.extend(frame.read(data, trusted).rows)
        previous, rest = rest[count - 1].hash, rest[count:]
    assert back == rows
    assert max(sizes) < frame.WIRE_BYTES
    assert 8_000 < sorted(sizes)[len(sizes) // 2] < 32_000


def test_rows_that_do_not_compress_still_stay_below_what_brokers_drop(key, trusted):
    rows = chain([random.Random(i).randbytes(20_000) for i in range(10)])
    data, count = made(key, rows)
    assert len(data) <= frame.WIRE_BYTES
    assert count == 2
    assert frame.read(data, trusted).rows == tuple(rows[:2])


def test_the_largest_row_fits_into_a_frame_of_its_own(key, trusted):
    rows = chain([os.urandom(65_536), b"next"])
    data, count = made(key, rows)
    assert count == 1
    assert len(data) < frame.FRAME_BYTES_MAX
    assert frame.read(data, trusted).rows == (rows[0],)


def test_a_frame_never_crosses_an_epoch(key):
    rows = chain([b"1", b"2"])
    rows += chain([b"3"], first=3, previous=rows[-1].hash, epoch=b"f" * 16)
    assert made(key, rows)[1] == 2


def test_a_hail_carries_no_rows(key, trusted):
    data = frame.make_hail(journal=JOURNAL, epoch=EPOCH, seq=7, head=b"h" * 32, made_seq=9, signer=key)
    got = frame.read(data, trusted)
    assert (got.rows, got.last_seq, got.made_seq, got.previous, got.head) == ((), 7, 9, b"h" * 32, b"h" * 32)


def refused(data, trusted):
    with pytest.raises(LinesideError) as caught:
        frame.read(data, trusted)
    assert caught.value.what
    assert caught.value.todo
    return caught.value.code


def resign(key, unsigned):
    return unsigned + key.sign(frame.FRAME_DOMAIN, unsigned)


def test_each_refusal_has_its_code(key, trusted, tmp_path):
    rows = chain([b"one", b"two"])
    data, _ = made(key, rows)
    assert refused(b"", trusted) == "frame.malformed"
    assert refused(b"x" * 300, trusted) == "frame.malformed"
    assert refused(b"x" * (frame.FRAME_BYTES_MAX + 1), trusted) == "frame.too_large"
    assert refused(data[:3] + b"\x02" + data[4:], trusted) == "frame.version"
    stranger = DeviceKey.create(tmp_path / "other.key")
    assert refused(made(stranger, rows)[0], trusted) == "frame.unknown_device"
    assert refused(data[:-1] + bytes([data[-1] ^ 1]), trusted) == "frame.signature"
    impostor = data[:-64] + stranger.sign(frame.FRAME_DOMAIN, data[:-64])
    assert refused(impostor, trusted) == "frame.signature"
    other_purpose = data[:-64] + key.sign(b"lineside.seal.1", data[:-64])
    assert refused(other_purpose, trusted) == "frame.signature"
    lying = [rows[0], Row(2, EPOCH, b"x" * 32, b"two")]
    assert refused(made(key, lying)[0], trusted) == "frame.chain"
    changed = [Row(1, EPOCH, rows[0].hash, b"One"), rows[1]]
    assert refused(made(key, changed)[0], trusted) == "frame.chain"
    assert refused(made(key, rows, previous=b"p" * 32)[0], trusted) == "frame.chain"


def forged(key, raw_size, compressed, count=1):
    header = frame._HEADER.pack(
        b"LSF", 1, bytes.fromhex(key.fingerprint), JOURNAL, EPOCH, 1, count, 1, ZERO_HASH, b"h" * 32, raw_size
    )
    return resign(key, header + compressed)


def test_decompression_is_bounded_before_it_begins(key, trusted, monkeypatch):
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(100_000_000))
    assert len(bomb) < 20_000
    unsized = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(100_000_000))
    window = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    ).compress(b"a")

    def never(*_args, **_kwargs):
        pytest.fail("decompressed before the size was checked")

    with monkeypatch.context() as patched:
        patched.setattr(zstandard, "ZstdDecompressor", never)
        assert refused(forged(key, 100_000_000, bomb), trusted) == "frame.compression"
        assert refused(forged(key, 1000, bomb), trusted) == "frame.compression"
        assert refused(forged(key, 1000, unsized), trusted) == "frame.compression"
        assert refused(forged(key, 1000, b"not zstd"), trusted) == "frame.compression"
        assert refused(forged(key, 1, window), trusted) == "frame.compression"
    small = zstandard.ZstdCompressor().compress(b"abc")
    assert refused(forged(key, 3, small + small), trusted) == "frame.compression"


def test_bodies_that_do_not_add_up_are_refused(key, trusted):
    def packed(raw, count):
        return forged(key, len(raw), zstandard.ZstdCompressor().compress(raw), count)

    row = struct.pack(">I", 3) + b"abc"
    assert refused(packed(row[:-1], 1), trusted) == "frame.malformed"
    assert refused(packed(row, 2), trusted) == "frame.malformed"
    assert refused(packed(row + b"x", 1), trusted) == "frame.malformed"
    assert refused(packed(row, 2**32 - 1), trusted) == "frame.malformed"


@settings(max_examples=400, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.none() | st.integers(0, 2000),
    signed=st.booleans(),
)
def test_no_mutation_passes_or_crashes(key, trusted, edits, cut, signed):
    """Also with a signature that holds: a trusted box may be broken."""
    rows = chain([hashlib.sha256(bytes([i])).hexdigest().encode() * 3 for i in range(6)])
    data, _ = made(key, rows)
    body = bytearray(data[:-64])
    for at, value in edits:
        body[at % len(body)] = value
    mutated = bytes(body[:cut])
    mutated = resign(key, mutated) if signed else mutated + data[-64:]
    try:
        got = frame.read(mutated, trusted)
    except LinesideError as error:
        code = error.code
    else:
        code = "frame."
    assert code.startswith("frame.")
    if code == "frame.":
        # Only what the chain does not cover may differ: the number of rows made, zstd's own spare bits.
        assert got.rows == tuple(rows)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_in_words(trusted, data):
    assert refused(data, trusted).startswith("frame.")
    assert refused(b"LSF\x01" + data, trusted).startswith("frame.")


# Receipts ------------------------------------------------------------------------------------------------------


def receipt_of(key, **changes):
    facts = {
        "hub": fingerprint(key.public),
        "incarnation": "1" * 32,
        "device": "2" * 32,
        "journal": JOURNAL.hex(),
        "epoch": EPOCH.hex(),
        "stored_seq": 41,
        "safe_seq": 0,
        "head_hash": "ab" * 32,
        "wanted_seq": 0,
        "utc": "2026-11-21T10:00:00.000000Z",
    }
    return frame.Receipt(**{**facts, **changes})


def test_a_receipt_is_read_back(key):
    receipt = receipt_of(key)
    text = frame.make_receipt(receipt, key)
    assert frame.read_receipt(text, key.public) == receipt
    assert frame.read_receipt(text.encode(), key.public) == receipt


def receipt_refused(text, public):
    with pytest.raises(LinesideError) as caught:
        frame.read_receipt(text, public)
    return caught.value.code


def test_receipts_that_are_not_the_hubs_are_refused(key, tmp_path):
    stranger = DeviceKey.create(tmp_path / "other.key")
    text = frame.make_receipt(receipt_of(key), key)
    assert receipt_refused(text.replace('"stored_seq":41', '"stored_seq":42'), key.public) == "frame.receipt_signature"
    assert receipt_refused(frame.make_receipt(receipt_of(key), stranger), key.public) == "frame.receipt_signature"
    assert receipt_refused(frame.make_receipt(receipt_of(stranger), stranger), key.public) == "frame.receipt_signature"
    for bad in (
        "",
        "{}",
        "[" * 5000,
        '{"a":' * 3000,
        text[:-3],
        "x" * 10_000,
        b"\xff\xfe",
        "null",
        '{"stored_seq":1e999}',
    ):
        assert receipt_refused(bad, key.public) == "frame.receipt"
    assert receipt_refused(text.replace("41", "-1"), key.public) == "frame.receipt"
    assert receipt_refused(text.replace('"stored_seq":41', '"stored_seq":"41"'), key.public) == "frame.receipt"


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, 600), value=st.integers(0, 255))
def test_a_changed_receipt_never_says_something_else(key, at, value):
    receipt = receipt_of(key)
    text = bytearray(frame.make_receipt(receipt, key).encode())
    text[at % len(text)] = value
    try:
        said = frame.read_receipt(bytes(text), key.public)
    except LinesideError as error:
        said = error.code
    assert said in (receipt, "frame.receipt", "frame.receipt_signature")
