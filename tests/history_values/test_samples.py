"""Samples, slices and the Merkle tree: what goes in comes out, bit by bit; foreign bytes are refused in words."""

from __future__ import annotations

import hashlib
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core.errors import LinesideError
from edge.core.samples import (
    LEAF_DOMAIN,
    NO_SOURCE_TIME,
    NODE_DOMAIN,
    QUALITIES,
    Scale,
    Series,
    encode,
    extremes,
    leaf,
    merkle_root,
    sample_of,
    split,
)
from edge.core.terms import Quality, Value
from edge.slices import Vectors, pack, unpack

INT64 = st.integers(-(2**63), 2**63 - 1)
BITS = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack(">d", struct.pack(">Q", bits))[0])
NUMBERS = st.floats() | BITS | st.sampled_from([0.0, -0.0, math.inf, -math.inf, 5e-324, 37.01, 2.0**53, -1e308])
VALUES = NUMBERS | INT64 | st.integers(-(2**80), 2**80) | st.booleans() | st.text(max_size=20)
TIMES = st.integers(-(2**62), 2**62) | st.integers(10**15, 10**15 + 5)
SAMPLE = st.tuples(
    TIMES, TIMES | st.just(NO_SOURCE_TIME), VALUES, st.sampled_from(QUALITIES), st.sampled_from(["", "Lost.", "α β"])
)
RESOLUTIONS = st.sampled_from(["", "0.01", "0.001", "0.5", "0.25", "1", "10", "0.00001", "0.3"])


def same(a: Value, b: Value) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    return type(a) is type(b) and a == b


def whole(samples: list[tuple[int, int, Value, Quality, str]], scale: Scale) -> bytes:
    return b"".join(encode(*sample, scale) for sample in samples)


@given(st.lists(SAMPLE, max_size=40))
def test_without_a_resolution_every_sample_comes_back_bit_by_bit(
    samples: list[tuple[int, int, Value, Quality, str]],
) -> None:
    scale = Scale("")
    back = [sample_of(parts, scale) for parts in split(whole(samples, scale))]
    assert len(back) == len(samples)
    for (at_us, source_us, value, quality, detail), sample in zip(samples, back, strict=True):
        assert (sample.at_us, sample.quality, sample.detail) == (at_us, quality, detail)
        assert sample.source_us == (None if source_us == NO_SOURCE_TIME else source_us)
        assert same(value, sample.value)


@given(st.lists(SAMPLE, max_size=40), RESOLUTIONS)
@settings(deadline=None)
def test_a_slice_gives_back_the_same_bytes(
    samples: list[tuple[int, int, Value, Quality, str]], resolution: str
) -> None:
    data, vectors = whole(samples, Scale(resolution)), Vectors()
    assert unpack(pack(data, vectors), dict(enumerate(vectors.packed))) == data


@given(st.lists(st.tuples(TIMES, NUMBERS), min_size=1, max_size=200), RESOLUTIONS)
@settings(deadline=None)
def test_a_slice_of_plain_numbers_gives_back_the_same_bytes(samples: list[tuple[int, float]], resolution: str) -> None:
    scale = Scale(resolution)
    data = whole([(at_us, NO_SOURCE_TIME, value, Quality.GOOD, "") for at_us, value in samples], scale)
    vectors = Vectors()
    assert unpack(pack(data, vectors), dict(enumerate(vectors.packed))) == data


@given(st.floats(-1e6, 1e6), RESOLUTIONS.filter(bool))
def test_a_resolution_costs_at_most_half_a_step_and_only_once(value: float, resolution: str) -> None:
    scale = Scale(resolution)
    count = scale.count(value)
    assert count is not None
    kept = scale.value(count)
    assert abs(kept - value) <= float(resolution) * 0.5000001 + abs(value) * 1e-12
    assert scale.count(kept) == count
    assert scale.value(scale.count(kept) or 0) == kept


def test_what_no_resolution_can_count_is_kept_bit_by_bit() -> None:
    scale = Scale("0.01")
    for value in (math.nan, math.inf, -math.inf, 1e300, -1e300):
        (parts,) = split(encode(0, NO_SOURCE_TIME, value, Quality.BAD, "", scale))
        assert same(sample_of(parts, scale).value, value)


@given(st.binary(max_size=200))
def test_bytes_that_nobody_wrote_are_refused_in_words(data: bytes) -> None:
    for read in (lambda: [sample_of(p, Scale("")) for p in split(data)], lambda: unpack(data, {0: data})):
        try:
            read()
        except LinesideError as error:
            assert error.code == "values.damaged"


def test_every_flipped_bit_of_a_slice_is_noticed() -> None:
    scale = Scale("0.01")
    data = whole([(10**15 + i, 5, 37 + math.sin(i), Quality.GOOD, "") for i in range(50)], scale)
    vectors = Vectors()
    packed = pack(data, vectors)
    held = dict(enumerate(vectors.packed))
    for bit in range(len(packed) * 8):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LinesideError, match="cannot be read"):
            unpack(bytes(flipped), held)


def test_vectors_of_the_record_format() -> None:
    """The figures stand in docs/reference/record-format.md: computed here once more, from its words."""
    data = encode(1_763_800_000_000_000, NO_SOURCE_TIME, 37.01, Quality.GOOD, "", Scale("0.01"))
    assert data.hex() == "0006442ab0747000" + "8000000000000000" + "00" + "01" + "0000000000000e75" + "0000"
    series, record = Series("BR-1.temperature", "degC", "0.01"), True
    head = struct.pack(">qqBQ", 1_763_800_000_000_000, 1_763_800_600_000_000, record, 1)
    names = b"\x00\x10BR-1.temperature" + b"\x00\x04degC" + b"\x00\x040.01"
    by_hand = hashlib.sha256(LEAF_DOMAIN + head + names + hashlib.sha256(data).digest()).digest()
    digest = hashlib.sha256(data).digest()
    made = leaf(series, 1_763_800_000_000_000, 1_763_800_600_000_000, record=record, samples=1, digest=digest)
    assert made == by_hand
    a, b, c = (bytes([n]) * 32 for n in (1, 2, 3))
    pair = hashlib.sha256(NODE_DOMAIN + a + b).digest()
    assert merkle_root([]) == bytes(32)
    assert merkle_root([a]) == a
    assert merkle_root([a, b, c]) == hashlib.sha256(NODE_DOMAIN + pair + c).digest()
    assert made.hex() == "2dec0155c058448325e60d8b9570200abf3bd443f352a7b2ff55c24e11e18331"
    assert merkle_root([a, b, c]).hex() == "3aecee4e59a732d58cc3b1ffc037d1b023eac3e4ef152b56d2918b546e03c0da"


def test_thinning_keeps_what_a_person_looks_for() -> None:
    scale = Scale("")
    values = [20.0] * 600
    values[317], values[450] = 99.0, -40.0
    quality = [Quality.BAD if 200 <= i < 203 else Quality.GOOD for i in range(600)]
    data = whole([(i * 1_000_000, NO_SOURCE_TIME, values[i], quality[i], "") for i in range(600)], scale)
    kept = [sample_of(parts, scale) for parts in split(extremes(data, 60_000_000, scale))]
    assert {99.0, -40.0} <= {s.value for s in kept}
    times = [s.at_us // 1_000_000 for s in kept]
    assert {0, 599, 199, 200, 202, 203} <= set(times)
    assert times == sorted(times)
    assert len(kept) < 60
    assert extremes(data, 0, scale) == b""
