"""Process values: a sample's exact bytes, and the Merkle tree that a journal row anchors (see the record format).

The tree is over these bytes, not over what lies on the disk: how samples are compressed may change, the root may not.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.terms import Quality, Value

LEAF_DOMAIN: Final = b"lineside.values.leaf.1"
NODE_DOMAIN: Final = b"lineside.values.node.1"
NO_SOURCE_TIME: Final = -(2**63)
DETAIL_BYTES_MAX: Final = 400
TEXT_BYTES_MAX: Final = 4_096
"""A longer text of a device is cut: it is no measurement."""

QUALITIES: Final = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD)
_QUALITY_NUMBER: Final = {quality: number for number, quality in enumerate(QUALITIES)}

DOUBLE, STEPS, INTEGER, BOOLEAN, TEXT, BIG = range(6)
"""How a value is kept: 64 bits of a double, a count of the tag's resolution, an integer, 0 or 1, a text, digits."""
PLAIN: Final = struct.Struct(">qqBBqH")
"""A sample that is no text and has no detail: 28 bytes."""
_PLAIN_DOUBLE: Final = struct.Struct(">qqBBdH")
_HEAD: Final = struct.Struct(">qqBB")
_INT64: Final = range(-(2**63), 2**63)
STEPS_MAX: Final = 2.0**53


@dataclass(frozen=True, slots=True)
class Series:
    """Whose samples these are. Another unit or resolution is another series of the same tag."""

    tag: str
    unit: str
    resolution: str = ""
    """The tag's declared resolution as a decimal number; empty for values that are kept bit by bit."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading as it is kept. Times are microseconds of UTC; `source_us` is None where the device gives none."""

    at_us: int
    source_us: int | None
    value: Value
    quality: Quality
    detail: str = ""


class Scale:
    """Values to counts of a declared resolution and back. With an empty resolution nothing is counted."""

    __slots__ = ("_of_one", "_step")

    def __init__(self, resolution: str) -> None:
        """Raises `values.damaged` for what is no resolution."""
        try:
            step = Decimal(resolution) if resolution else None
            if step is not None and not Decimal("1e-300") < step < Decimal("1e300"):
                raise damaged("a resolution is out of bounds")
        except InvalidOperation as error:
            raise damaged("a resolution is no number") from error
        # 0.01 is no double, 100 is one: divided by 100 a count gives the double nearest to the decimal number
        self._of_one = (
            float(1 / step) if step is not None and step < 1 and 1 / step == (1 / step).to_integral() else 0.0
        )
        self._step = float(step) if step is not None else 0.0

    def count(self, value: float) -> int | None:
        """The nearest count; None when the value has none and is kept bit by bit."""
        if not self._step:
            return None
        counted = value * self._of_one if self._of_one else value / self._step
        return round(counted) if -STEPS_MAX < counted < STEPS_MAX else None

    def value(self, count: int) -> float:
        """The value of a count."""
        return count / self._of_one if self._of_one else count * self._step


def encode(at_us: int, source_us: int, value: Value, quality: Quality, detail: str, scale: Scale) -> bytes:
    """The exact bytes of a sample; `source_us` may be `NO_SOURCE_TIME`."""
    number = _QUALITY_NUMBER[quality]
    kind = type(value)
    if kind is float:
        count = scale.count(value)  # type: ignore[arg-type]  # the test above is the faster isinstance
        if not detail:
            if count is None:
                return _PLAIN_DOUBLE.pack(at_us, source_us, number, DOUBLE, value, 0)
            return PLAIN.pack(at_us, source_us, number, STEPS, count, 0)
        body = (
            bytes([DOUBLE]) + struct.pack(">d", value) if count is None else bytes([STEPS]) + struct.pack(">q", count)
        )
    elif kind is bool:
        body = bytes([BOOLEAN]) + struct.pack(">q", value)
    elif isinstance(value, int):
        if value in _INT64:
            body = bytes([INTEGER]) + struct.pack(">q", value)
        else:
            body = bytes([BIG]) + _text(str(value), TEXT_BYTES_MAX)
    else:
        body = bytes([TEXT]) + _text(str(value), TEXT_BYTES_MAX)
    return struct.pack(">qqB", at_us, source_us, number) + body + _text(detail, DETAIL_BYTES_MAX)


def _text(text: str, most: int) -> bytes:
    data = text.encode(errors="replace")[:most]
    data = data.decode(errors="ignore").encode()  # not cut within a character
    return struct.pack(">H", len(data)) + data


@dataclass(frozen=True, slots=True)
class Parts:
    """A sample's fields before its value is made: `word` is the double's bits, a count, an integer, or a text."""

    at_us: int
    source_us: int
    quality: int
    kind: int
    word: int | bytes
    detail: bytes


def split(data: bytes) -> Iterator[Parts]:
    """The fields of samples one after the other. Raises `values.damaged` for what no version wrote."""
    at, end = 0, len(data)
    try:
        while at < end:
            at_us, source_us, quality, kind = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if quality >= len(QUALITIES) or kind > BIG:
                raise damaged(f"quality {quality} and kind {kind} mean nothing")
            word: int | bytes
            if kind >= TEXT:
                word, at = _read_text(data, at)
            else:
                (word,) = struct.unpack_from(">q", data, at)
                at += 8
            detail, at = _read_text(data, at)
            yield Parts(at_us, source_us, quality, kind, word, detail)
    except struct.error as error:
        raise damaged("a sample is cut short") from error


def _read_text(data: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from(">H", data, at)
    text = data[at + 2 : at + 2 + length]
    if len(text) != length:
        raise damaged("a text is cut short")
    return text, at + 2 + length


def sample_of(parts: Parts, scale: Scale) -> Sample:
    """The sample as it is read."""
    word = parts.word
    value: Value
    try:
        if isinstance(word, bytes):
            value = word.decode() if parts.kind == TEXT else int(word)
        elif parts.kind == DOUBLE:
            (value,) = struct.unpack(">d", struct.pack(">q", word))
        elif parts.kind == STEPS:
            value = scale.value(word)
        else:
            value = bool(word) if parts.kind == BOOLEAN else word
        detail = parts.detail.decode()
    except ValueError as error:
        raise damaged("a text is not what was written") from error
    source_us = None if parts.source_us == NO_SOURCE_TIME else parts.source_us
    return Sample(parts.at_us, source_us, value, QUALITIES[parts.quality], detail)


def damaged(what: str) -> LinesideError:
    """The refusal of bytes that nobody wrote like this."""
    return LinesideError(
        "values.damaged",
        f"Stored process values cannot be read: {what}.",
        effect="They are shown to nobody. Other tags and times are not concerned.",
        todo="`lineside history verify` names what does not hold; bring history.db back from a backup.",
    )


# The Merkle tree -------------------------------------------------------------------------------------------------


def leaf(series: Series, from_us: int, to_us: int, *, record: bool, samples: int, digest: bytes) -> bytes:
    """The leaf of one series in one window; `digest` is SHA-256 over its samples' bytes in the order they came."""
    names = b"".join(
        struct.pack(">H", len(t)) + t for t in (n.encode() for n in (series.tag, series.unit, series.resolution))
    )
    head = struct.pack(">qqBQ", from_us, to_us, record, samples)
    return hashlib.sha256(LEAF_DOMAIN + head + names + digest).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaves in the order of their series' names as bytes. A node without a neighbour rises unchanged;
    no leaf at all gives 32 zero bytes."""
    level = list(leaves)
    while len(level) > 1:
        pairs = [hashlib.sha256(NODE_DOMAIN + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0] if level else bytes(32)


def order(series: Series) -> tuple[bytes, bytes, bytes]:
    """The key by which leaves are ordered."""
    return series.tag.encode(), series.unit.encode(), series.resolution.encode()


# Thinning --------------------------------------------------------------------------------------------------------


def extremes(data: bytes, bucket_us: int, scale: Scale) -> bytes:
    """Thinned samples: of every bucket of time the first, the lowest, the highest and the last, and every change of
    quality or detail. Each is one that was there; `bucket_us` 0 keeps none."""
    if not bucket_us:
        return b""
    kept: set[int] = set()
    samples = list(split(data))
    buckets: dict[int, list[int]] = {}
    for index, parts in enumerate(samples):
        buckets.setdefault(parts.at_us // bucket_us, []).append(index)
        before = samples[index - 1] if index else None
        if before is None or (before.quality, before.detail, before.kind) != (parts.quality, parts.detail, parts.kind):
            kept |= {index, max(index - 1, 0)}
    for members in buckets.values():
        kept |= {members[0], members[-1]}
        numbers = [(v, i) for i in members if (v := _number(samples[i], scale)) is not None]
        if numbers:
            kept |= {min(numbers)[1], max(numbers)[1]}
    return b"".join(_joined(samples[index]) for index in sorted(kept))


def _number(parts: Parts, scale: Scale) -> float | None:
    value = sample_of(parts, scale).value
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _joined(parts: Parts) -> bytes:
    head = _HEAD.pack(parts.at_us, parts.source_us, parts.quality, parts.kind)
    word = parts.word
    body = struct.pack(">q", word) if isinstance(word, int) else struct.pack(">H", len(word)) + word
    return head + body + struct.pack(">H", len(parts.detail)) + parts.detail


def joined(parts: Sequence[Parts]) -> bytes:
    """The exact bytes of samples given as fields: the inverse of `split`."""
    return b"".join(map(_joined, parts))
