"""Slices: one series' samples of one window, compressed by column, and back to exactly the same bytes.

numpy and pcodec cost 26 MiB: whoever stores readings never imports this module, only who packs or reads them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
import zstandard
from pcodec import ChunkConfig, standalone

from edge.core.samples import BIG, DOUBLE, NO_SOURCE_TIME, QUALITIES, TEXT, Parts, damaged, joined, split

SAMPLES_MAX: Final = 1_000_000
"""In one slice; bounds what a damaged one can cost."""
BYTES_MAX: Final = 64 * 1024 * 1024

_PLAIN: Final = np.dtype(
    [("at", ">i8"), ("source", ">i8"), ("quality", "u1"), ("kind", "u1"), ("word", ">i8"), ("detail", ">u2")]
)
_HEAD: Final = struct.Struct(">IBIHHH")
"""CRC-32 of the rest, form, samples, vector of times, vector of source times, bytes of the runs."""
_COLUMNS, _WHOLE = 1, 2
_NO_VECTOR: Final = 0xFFFF
_SAME, _INTEGERS, _DOUBLES, _FEW_INTEGERS, _FEW_DOUBLES = range(5)
_CONFIG: Final = ChunkConfig()

Words = "np.ndarray[Any, np.dtype[np.int64]]"


class Vectors:
    """The vectors of time stamps of one window: what one poll brings has the same stamps, which are kept once."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []
        self._known: dict[bytes, int] = {}

    def number(self, stamps: Any) -> int:
        """The number of this vector in the window, which may be new."""
        key = stamps.tobytes()
        if key not in self._known:
            self._known[key] = len(self.packed)
            body = struct.pack(">I", len(stamps)) + _squeezed(stamps)
            self.packed.append(struct.pack(">I", zlib.crc32(body)) + body)
        return self._known[key]


def pack(data: bytes, vectors: Vectors) -> bytes:
    """A slice of samples given as their exact bytes. `unpack` gives back the same bytes: it is tried here."""
    packed = _pack_columns(data, vectors)
    if packed is not None and unpack(packed, dict(enumerate(vectors.packed))) == data:
        return packed
    body = struct.pack(">BIHHH", _WHOLE, 0, _NO_VECTOR, _NO_VECTOR, 0) + zstandard.ZstdCompressor(level=9).compress(
        data
    )
    return struct.pack(">I", zlib.crc32(body)) + body


def unpack(data: bytes, vectors: Mapping[int, bytes]) -> bytes:
    """The samples' exact bytes. Raises `values.damaged`."""
    try:
        crc, form, count, times, sources, runs_bytes = _HEAD.unpack_from(data)
        if crc != zlib.crc32(data[4:]):
            raise damaged("a slice was changed after it was written")
        rest = data[_HEAD.size :]
        if form == _WHOLE:
            return zstandard.ZstdDecompressor().decompress(rest, max_output_size=BYTES_MAX)
        if form != _COLUMNS or count > SAMPLES_MAX:
            raise damaged(f"a slice of form {form} with {count} samples is unknown")
        runs, texts = orjson.loads(rest[:runs_bytes])
        at = _vector(vectors[times], count)
        source = None if sources == _NO_VECTOR else _vector(vectors[sources], count)
        return _joined(runs, texts, at, source, _opened(rest[runs_bytes:], count))
    except (struct.error, zstandard.ZstdError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise damaged(f"a slice cannot be decoded ({type(error).__name__})") from error


def _pack_columns(data: bytes, vectors: Vectors) -> bytes | None:
    texts: list[str] = []
    runs: list[list[Any]] = []
    plain = np.frombuffer(data, _PLAIN) if len(data) % _PLAIN.itemsize == 0 else None
    if plain is not None and (plain["kind"] < TEXT).all() and (plain["detail"] == 0).all():
        at, source, words = (plain[name].astype(np.int64) for name in ("at", "source", "word"))
        state = plain["quality"].astype(np.int64) * 8 + plain["kind"]
        starts = [0, *(np.flatnonzero(np.diff(state)) + 1).tolist()] if len(state) else []
        ends = [*starts[1:], len(state)] if starts else []
        runs = [[int(state[a]) >> 3, int(state[a]) & 7, "", b - a] for a, b in zip(starts, ends, strict=True)]
    else:
        parts = list(split(data))
        at, source = (np.array([getattr(p, name) for p in parts], np.int64) for name in ("at_us", "source_us"))
        words = np.array([_word(p, texts) for p in parts], np.int64)
        for p in parts:
            same = [p.quality, p.kind, p.detail.decode()]
            if runs and runs[-1][:3] == same:
                runs[-1][3] += 1
            else:
                runs.append([*same, 1])
    said = orjson.dumps([runs, texts])
    if len(said) > 0xFFFF or len(at) > SAMPLES_MAX or len(vectors.packed) > _NO_VECTOR - 3:
        return None
    sources = _NO_VECTOR if (source == NO_SOURCE_TIME).all() else vectors.number(source)
    doubles = all(kind == DOUBLE for _, kind, _, _ in runs)
    head = struct.pack(">BIHHH", _COLUMNS, len(at), vectors.number(at), sources, len(said))
    body = head + said + _squeezed(words, doubles=doubles)
    return struct.pack(">I", zlib.crc32(body)) + body


def _word(parts: Parts, texts: list[str]) -> int:
    if isinstance(parts.word, int):
        return parts.word
    text = parts.word.decode()
    if text not in texts:
        texts.append(text)
    return texts.index(text)


def _joined(runs: Sequence[Sequence[Any]], texts: Sequence[str], at: Any, source: Any, words: Any) -> bytes:
    count = len(at)
    lengths = [int(run[3]) for run in runs]
    if sum(lengths) != count or any(length < 1 for length in lengths):
        raise damaged("its runs do not fit its samples")
    if any(not 0 <= run[0] < len(QUALITIES) or not 0 <= run[1] <= BIG for run in runs):
        raise damaged("its runs mean nothing")
    if all(run[1] < TEXT and not run[2] for run in runs):
        plain = np.zeros(count, _PLAIN)
        plain["at"], plain["word"] = at, words
        plain["source"] = NO_SOURCE_TIME if source is None else source
        plain["quality"] = np.repeat([run[0] for run in runs], lengths)
        plain["kind"] = np.repeat([run[1] for run in runs], lengths)
        return plain.tobytes()
    made, index = [], 0
    for quality, kind, detail, length in runs:
        for _ in range(length):
            word = int(words[index])
            given = texts[word].encode() if kind >= TEXT else word
            from_us = NO_SOURCE_TIME if source is None else int(source[index])
            made.append(Parts(int(at[index]), from_us, quality, kind, given, detail.encode()))
            index += 1
    return joined(made)


def _squeezed(words: Any, *, doubles: bool = False) -> bytes:
    """The smallest of what is tried: one word for all, the words, or the few different ones and which is where."""
    if len(words) and (words == words[0]).all():
        return bytes([_SAME]) + struct.pack(">q", int(words[0]))
    best = bytes([_DOUBLES if doubles else _INTEGERS]) + _pco(words, doubles=doubles)
    few, which = np.unique(words, return_inverse=True)
    if len(few) * 2 <= len(words):
        listed = _pco(few, doubles=doubles)
        form = bytes([_FEW_DOUBLES if doubles else _FEW_INTEGERS])
        other = form + struct.pack(">II", len(few), len(listed)) + listed + _pco(which.astype(np.int64))
        best = min(best, other, key=len)
    return best


def _opened(data: bytes, count: int) -> Any:
    form, body = data[0], data[1:]
    if form == _SAME:
        return np.full(count, struct.unpack(">q", body)[0], np.int64)
    if form in {_INTEGERS, _DOUBLES}:
        return _unpco(body, count, doubles=form == _DOUBLES)
    if form not in {_FEW_INTEGERS, _FEW_DOUBLES}:
        raise damaged(f"a column of form {form} is unknown")
    few, listed = struct.unpack_from(">II", body)
    if few > count:
        raise damaged("a column lists more than it has")
    which = _unpco(body[8 + listed :], count)
    if count and (which.min() < 0 or which.max() >= few):
        raise damaged("a column names what it does not list")
    return _unpco(body[8 : 8 + listed], few, doubles=form == _FEW_DOUBLES)[which]


def _vector(packed: bytes, count: int) -> Any:
    crc, length = struct.unpack_from(">II", packed)
    if crc != zlib.crc32(packed[4:]) or length != count:
        raise damaged("a vector of time stamps was changed after it was written")
    return _opened(packed[8:], count)


def _pco(words: Any, *, doubles: bool = False) -> bytes:
    column = np.ascontiguousarray(words)
    return bytes(standalone.simple_compress(column.view(np.float64) if doubles else column, _CONFIG))


def _unpco(data: bytes, count: int, *, doubles: bool = False) -> Any:
    column = np.empty(count, np.float64 if doubles else np.int64)
    if count:
        progress = standalone.simple_decompress_into(data, column)
        if progress.n_processed != count or not progress.finished:
            raise damaged("a column is not as long as its slice says")
    return column.view(np.int64)
