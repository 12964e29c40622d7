"""A recipe's content as YAML that a person reviews: plain where that is safe, quoted where it is not, with comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from edge.core.document import Path

_PLAIN: Final = re.compile(r"[A-Za-z$](?:[A-Za-z0-9 _/.()°+$-]*[A-Za-z0-9_/.()°+-])?")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_WORDS: Final = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_FIRST: Final = (
    "recipe", "version", "id", "phase", "title", "text", "unit_procedure", "operation", "name",
    "tag", "value", "low", "high", "unit",
)  # fmt: skip
_LAST: Final = ("why", "parameters", "procedure", "operations", "steps", "branches")
_WIDTH: Final = 100

Comments = Mapping[Path, Sequence[str]]


_BLOCK: Final = re.compile(r"(?! )[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]+(?<![ \n])")


def as_yaml(content: Mapping[str, Any], head: Sequence[str] = (), comments: Comments | None = None) -> str:
    """`content` (what JSON can say) as YAML, `head` as comment above it, and each comment above what its path names."""
    lines = [_comment(line, 0) for line in head]
    lines += [""] if head else []
    lines += _Writer(comments or {}).mapping(content, 0, ())
    return "\n".join(lines) + "\n"


def one_line(text: str) -> str:
    """`text` as a comment can hold it."""
    return "".join(c if c.isprintable() else " " for c in text)[:500]


def _comment(text: str, depth: int) -> str:
    return f"{'  ' * depth}# {one_line(text)}".rstrip()


class _Writer:
    def __init__(self, comments: Comments) -> None:
        self._comments = comments
        self._around = {path[:length] for path in comments for length in range(len(path))}
        """What holds something with a comment: that is never written on one line."""

    def mapping(self, content: Mapping[str, Any], depth: int, path: Path) -> list[str]:
        lines: list[str] = []
        for key in _ordered(content):
            here = (*path, key)
            lines += self._above(here, depth)
            name = key if _KEY.fullmatch(key) and key.lower() not in _WORDS else json.dumps(key, ensure_ascii=False)
            lines += self._entry(f"{'  ' * depth}{name}:", content[key], depth + 1, here)
        return lines

    def _above(self, path: Path, depth: int) -> list[str]:
        return [_comment(line, depth) for line in self._comments.get(path, ())]

    def _entry(self, start: str, value: Any, depth: int, path: Path) -> list[str]:
        if isinstance(value, str) and "\n" in value and _BLOCK.fullmatch(value):
            return [f"{start} |-", *("  " * depth + line if line else "" for line in value.split("\n"))]
        if _leaf(value) or not value:
            return [f"{start} {_flow(value)}"]
        if path not in self._around and len(value) < _WIDTH // 4 and _flat(value):
            line = f"{start} {_flow(value)}"
            if len(line) <= _WIDTH:
                return [line]
        if isinstance(value, dict):
            return [start, *self.mapping(value, depth, path)]
        return [start, *self._list(value, depth, path)]

    def _list(self, items: Sequence[Any], depth: int, path: Path) -> list[str]:
        lines: list[str] = []
        for index, item in enumerate(items):
            here = (*path, index)
            lines += self._above(here, depth)
            dash = f"{'  ' * depth}- "
            if _leaf(item) or not item:
                lines.append(dash + _flow(item))
                continue
            inner = (self.mapping if isinstance(item, dict) else self._list)(item, depth + 1, here)
            first = next(at for at, line in enumerate(inner) if not line.lstrip().startswith("# "))
            lines += [*inner[:first], dash + inner[first].lstrip(), *inner[first + 1 :]]
        return lines


def _ordered(content: Mapping[str, Any]) -> Iterator[str]:
    yield from (key for key in _FIRST if key in content)
    yield from (key for key in content if key not in _FIRST and key not in _LAST)
    yield from (key for key in _LAST if key in content)


def _leaf(value: Any) -> bool:
    return not isinstance(value, dict | list)


def _flat(value: Any) -> bool:
    return all(_leaf(item) for item in (value.values() if isinstance(value, dict) else value))


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(value[key])}" for key in _ordered(value)) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and value.lower() not in _WORDS and "  " not in value:
            return value
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
