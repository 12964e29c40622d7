"""Writing into a plant file that people wrote: every line of theirs stays as it is, comments and all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from edge.core.document import read_document
from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant

Tree = Mapping[str, Any]
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./%\-]*( [A-Za-z0-9_./%\-]+)*")
LINE_CHARS: Final = 110
_BROKEN: Final = (YAMLError, ValueError, IndexError, AttributeError, TypeError)


@dataclass(slots=True)
class _Map:
    """A mapping of the file: where it begins, and where something may be added."""

    flow: bool
    begin: tuple[int, int]
    end: tuple[int, int]
    """Of a flow mapping, its closing bracket."""
    last: int
    """The last line with something of it."""
    column: int = 0
    """Of its keys."""
    empty: bool = True


def added(data: bytes, name: str, more: Tree, note: Mapping[str, str] | None = None) -> tuple[bytes, Plant]:
    """The file with `more` in it, mapping by mapping, and the plant that it then says. `note` has comments to stand
    above new keys, where these are on lines of their own. Raises `equipment.plant_form`
    when the file is written in a way that nothing can be added to, and the findings of the plant checker."""
    before = read_document(data, name)
    text = data.decode()
    for path, key, value in _leaves(before.data if isinstance(before.data, dict) else {}, more):
        text = _put(text, path, key, value, name, note or {})
    made = text.encode()
    if _said(made, name) != _merged(before.data, more):
        raise _cannot(name)
    return made, read_plant(made, name)


def _said(data: bytes, name: str) -> object:
    try:
        return read_document(data, name).data
    except LinesideError as error:
        raise _cannot(name) from error


def _cannot(name: str) -> LinesideError:
    return LinesideError(
        "equipment.plant_form",
        f"{name} is written in a way that nothing can be added to by itself.",
        effect="The file is as it was.",
        todo="Write `connections:` and `units:` with one entry a line below them, or add the entry by hand.",
    )


def _merged(old: Any, more: Tree) -> dict[str, Any]:
    base = dict(old) if isinstance(old, dict) else {}
    for key, value in more.items():
        base[key] = _merged(base.get(key), value) if isinstance(value, Mapping) and key in base else value
    return base


def _leaves(old: Tree, more: Tree, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """What is new: in which mapping, under which key, what."""
    for key, value in more.items():
        there = old.get(key)
        if key in old and isinstance(value, Mapping) and isinstance(there, dict):
            yield from _leaves(there, value, (*path, key))
        else:
            yield path, key, value


def _put(text: str, path: tuple[str, ...], key: str, value: Any, name: str, note: Tree) -> str:
    try:
        maps = _maps(text)
    except _BROKEN as error:
        raise _cannot(name) from error
    here = maps.get(path)
    if here is None:
        raise _cannot(name)
    lines = text.splitlines(keepends=True)
    newline = "\r\n" if "\r\n" in text else "\n"
    around = maps.get(path[:-1])
    if here.flow and here.empty and path and around is not None and not around.flow:
        # "connections: {}" becomes "connections:", and a block follows
        at, column = here.begin
        end = here.end[1]
        if here.end[0] != at:
            raise _cannot(name)
        lines[at] = lines[at][:column].rstrip() + lines[at][end + 1 :]
        return _behind(lines, at, _block(key, value, around.column + 2, note), newline)
    if here.flow:
        at, column = here.end
        comma = "" if here.empty else ", "
        lines[at] = f"{lines[at][:column]}{comma}{_plain(key)}: {_inline(value)}{lines[at][column:]}"
        return "".join(lines)
    return _behind(lines, here.last, _block(key, value, here.column, note), newline)


def _behind(lines: list[str], at: int, new: Iterator[str], newline: str) -> str:
    if lines and not lines[at].endswith(("\n", "\r")):
        lines[at] += newline
    return "".join([*lines[: at + 1], *(line + newline for line in new), *lines[at + 1 :]])


def _block(key: str, value: Any, column: int, note: Tree) -> Iterator[str]:
    """Lines: whole mappings of a few plain values in one."""
    if key in note:
        yield f"{' ' * column}# {note[key]}"
    line = f"{' ' * column}{_plain(key)}: {_inline(value)}"
    if isinstance(value, Mapping) and value and (len(line) > LINE_CHARS or any(map(_is_full, value.values()))):
        yield f"{' ' * column}{_plain(key)}:"
        for inner, one in value.items():
            yield from _block(inner, one, column + 2, note)
    else:
        yield line


def _is_full(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_plain(key)}: {_inline(one)}" for key, one in value.items()) + "}"
    return _plain(value) if isinstance(value, str) else json.dumps(value)


def _plain(text: str) -> str:
    """A text without quotes where it stays a text without them."""
    if _PLAIN.fullmatch(text) and read_document(f"x: {text}".encode(), "").data == {"x": text}:
        return text
    return json.dumps(text, ensure_ascii=False)


def _maps(text: str) -> dict[tuple[str, ...], _Map]:
    """Every mapping below the top by the keys that lead to it."""
    found: dict[tuple[str, ...], _Map] = {}
    open_maps: list[_Map | None] = []
    path: list[str | None] = []
    """For each open collection the key that is waiting for its value; None in front of a key and in lists."""
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        begin = (event.start_mark.line, event.start_mark.column)
        end = (event.end_mark.line, event.end_mark.column)
        if kind == "ScalarEvent":
            last = end[0] - (1 if end[1] == 0 and end[0] > begin[0] else 0)
            _touch(open_maps, last)
            here = open_maps[-1] if open_maps else None
            if here is not None and path[-1] is None:
                if here.empty:
                    here.empty, here.column = False, begin[1]
                path[-1] = event.value
            elif path:
                path[-1] = None
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            one = _Map(bool(event.flow_style), begin, end, begin[0]) if kind == "MappingStartEvent" else None
            keys = [key for key in path if key is not None]
            if one is not None and len(keys) == len(path):
                found[tuple(keys)] = one
            open_maps.append(one)
            path.append(None)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            closed = open_maps.pop()
            path.pop()
            if closed is not None and closed.flow:
                closed.end = begin
            if event.end_mark.line == begin[0] and end[1] > begin[1]:  # a bracket stands there; a block has no end
                _touch(open_maps, end[0])
            if closed is not None:
                _touch(open_maps, closed.last)
            if path:
                path[-1] = None
    return found


def _touch(open_maps: list[_Map | None], line: int) -> None:
    for one in open_maps:
        if one is not None:
            one.last = max(one.last, line)
