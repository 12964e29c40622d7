"""The head as bytes and back: what a checkpoint holds.

JSON, one object a line: first the head without its batches, then each batch. The head is the same after `read` as
before `parts`, in every field and in the order of its parts. A mapping whose keys are no text is a list of pairs, bytes
are base64, and an unbounded number of seconds is null.
"""

from __future__ import annotations

import binascii
import types
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from math import inf
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import orjson

from edge.core.errors import LinesideError
from edge.core.line import SEMANTICS, STATE_SCHEMA, Batch, Book, Line

BYTES_MAX: Final = 64 * 1024 * 1024
"""Far more than a head of a million used batch ids has."""
SCALARS: Final = frozenset({bool, int, str})
APART: Final = frozenset({"book", "batches"})
"""Fields of the head that do not stand in the first line."""


def parts(line: Line, row_hash: bytes) -> Iterator[bytes]:
    """The bytes of the checkpoint of `line`, whose last row has this hash, a piece for each batch."""
    head = {field.name: getattr(line, field.name) for field in fields(Line) if field.name not in APART}
    yield _line({"schema": STATE_SCHEMA, "semantics": SEMANTICS, "row_hash": row_hash.hex(), "head": head})
    for batch in line.batches.values():
        facts = {field.name: getattr(batch, field.name) for field in fields(Batch)}
        yield _line(facts | {"intents": list(batch.intents.items())})


def _line(facts: dict[str, Any]) -> bytes:
    return orjson.dumps(facts, default=lambda packed: b64encode(packed).decode(), option=orjson.OPT_APPEND_NEWLINE)


def read(data: bytes, book: Book) -> tuple[Line, bytes]:
    """The head in a checkpoint, with `book` beside it, and the hash of its last row.

    Raises `checkpoint.unreadable` for anything that `parts` of this version did not make."""
    try:
        return _read(data, book)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise LinesideError(
            "checkpoint.unreadable",
            f"A checkpoint cannot be used ({type(error).__name__}: {str(error)[:120]}).",
            effect="The head is folded from an earlier checkpoint, or from every row.",
            todo="Nothing: the next checkpoint takes its place.",
        ) from error


def _read(data: bytes, book: Book) -> tuple[Line, bytes]:
    if len(data) > BYTES_MAX:
        raise ValueError(f"it has more than {BYTES_MAX} bytes")
    first, *rest = data.splitlines()
    top = orjson.loads(first)
    schema, semantics = top["schema"], top["semantics"]
    if (schema, semantics) != (STATE_SCHEMA, SEMANTICS):
        raise ValueError(f"it is of schema {schema!s:.20} and semantics {semantics!s:.20}")
    line: Line = _reader(Line)(top["head"] | {"batches": {}})
    batches = {batch.batch: batch for batch in (_reader(Batch)(orjson.loads(facts)) for facts in rest)}
    return replace(line, book=book, batches=batches), bytes.fromhex(top["row_hash"])


_Reader = Callable[[Any], Any]


@cache
def _reader(kind: Any) -> _Reader:
    """From parsed JSON to a value of this type. Raises ValueError or TypeError for any other."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass_reader(kind)
    if origin is Mapping:
        return _mapping_reader(inner[0], _reader(inner[1]))
    if origin is tuple:
        return _tuple_reader(inner)
    if origin in {Union, types.UnionType}:
        return _union_reader(inner)
    if origin is Literal:
        return lambda raw: raw if raw in inner else _refuse(kind, raw)
    if kind is float:
        return lambda raw: inf if raw is None else raw if type(raw) in {float, int} else _refuse(kind, raw)
    if kind is bytes:
        return binascii.a2b_base64
    if kind in SCALARS:
        return lambda raw: raw if type(raw) is kind else _refuse(kind, raw)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind
    raise AssertionError(f"no reader for {kind}")


def _refuse(kind: Any, raw: object) -> Any:
    raise ValueError(f"{raw!s:.40} stands where {kind} should be")


def _dataclass_reader(kind: Any) -> _Reader:
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind) if field.name != "book"]
    readers = {name: _reader(hints[name]) for name in names}
    rest = {"book": None} if kind is Line else {}

    def made(raw: Any) -> Any:
        if type(raw) is not dict or raw.keys() != readers.keys():
            raise ValueError(f"not the fields of {kind.__name__}")
        return kind(**rest, **{name: reader(raw[name]) for name, reader in readers.items()})

    return made


def _mapping_reader(key: Any, value: _Reader) -> _Reader:
    if key is str:
        return lambda raw: {name: value(held) for name, held in raw.items()}
    named = _reader(key)
    return lambda raw: {named(name): value(held) for name, held in raw}


def _tuple_reader(inner: tuple[Any, ...]) -> _Reader:
    readers = [_reader(kind) for kind in inner if kind is not Ellipsis]
    if Ellipsis in inner:
        return lambda raw: tuple(readers[0](held) for held in raw)
    return lambda raw: tuple(reader(held) for reader, held in zip(readers, raw, strict=True))


def _union_reader(inner: tuple[Any, ...]) -> _Reader:
    plain = frozenset(kind for kind in inner if kind in SCALARS | {float, type(None)})
    other = [_reader(kind) for kind in inner if kind not in plain]
    return lambda raw: raw if type(raw) in plain else other[0](raw) if other else _refuse(inner, raw)
