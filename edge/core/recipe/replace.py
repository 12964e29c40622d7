"""Find a value in a recipe's file and put another in its place: every other byte stays as it was written."""

from __future__ import annotations

import json
from typing import Any

from ruamel.yaml import YAML

from edge.core.recipe.calls import Operations
from edge.core.recipe.read import read_recipe_or_operation


def replace(data: bytes, name: str, find: str, by: str, field: str, operations: Operations) -> bytes:
    """The file of a recipe or an operation with each value that is `find` replaced by `by`; only values of
    the key `field`, unless that is empty.

    A value is found when all of it is `find`; numbers are compared as numbers. Texts over several lines (| and >) are
    left alone. Raises `LinesideError` as `read_recipe` when the file is no recipe, before or after.
    """
    read_recipe_or_operation(data, name, operations)  # bounded, and without what is not let in
    ends = b"\r\n" if b"\r\n" in data else b"\n"
    text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for begin, end, style in reversed(_found(text, find, field)):
        text = text[:begin] + _written(by, style) + text[end:]
    changed = text.encode("utf-8").replace(b"\n", ends)
    if data.startswith(b"\xef\xbb\xbf"):
        changed = b"\xef\xbb\xbf" + changed
    read_recipe_or_operation(changed, name, operations)
    return changed


def _found(text: str, find: str, field: str) -> list[tuple[int, int, str]]:
    """Where the values stand, and how they are quoted."""
    spans: list[tuple[int, int, str]] = []
    keys: list[str | None] = []  # of each open mapping the key whose value comes next; "-" in a list
    names: list[str] = []  # the keys that lead to what is open
    event: Any
    for event in YAML(typ="safe", pure=True).parse(text):
        kind = type(event).__name__
        if kind == "ScalarEvent":
            if keys and keys[-1] is None:
                keys[-1] = event.value
                continue
            key = keys[-1] if keys and keys[-1] != "-" else names[-1] if names else ""
            plain = event.style is None
            if event.style not in {"|", ">"} and field in {"", key} and _same(event.value, find, plain=plain):
                spans.append((event.start_mark.index, event.end_mark.index, event.style or ""))
            _value_done(keys)
        elif kind in {"MappingStartEvent", "SequenceStartEvent"}:
            inherited = names[-1] if names else ""
            names.append(keys[-1] or inherited if keys and keys[-1] != "-" else inherited)
            keys.append(None if kind == "MappingStartEvent" else "-")
        elif kind in {"MappingEndEvent", "SequenceEndEvent"}:
            keys.pop()
            names.pop()
            _value_done(keys)
    return spans


def _value_done(keys: list[str | None]) -> None:
    if keys and keys[-1] != "-":
        keys[-1] = None


def _same(value: str, find: str, *, plain: bool) -> bool:
    if value == find:
        return True
    try:
        return plain and float(value) == float(find)
    except ValueError:
        return False


def _written(by: str, style: str) -> str:
    if style == "'":
        return "'" + by.replace("'", "''") + "'"
    simple = (
        all(char.isalnum() or char in " ._-/$%+" for char in by) and by == by.strip() and by[:1] not in {"-", "%", ""}
    )
    try:
        simple = simple or bool(float(by) or True)
    except ValueError:
        pass
    return by if simple and not style else json.dumps(by, ensure_ascii=False)
