"""Every golden journal, read by this version: the same record, the same text, the same things under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge.core.events import KINDS, decode, encode
from tests.history.golden import HERE, Golden, outcome, read, write

RELEASES = sorted(HERE.glob("*.jsonl.zst"))
JOURNALS = [(path.name.removesuffix(".jsonl.zst"), *one) for path in RELEASES for one in read(path)]
IDS = [f"{release}-{golden.name}" for release, golden, _ in JOURNALS]


def differences(was: Any, now: Any, where: str = "") -> list[str]:
    """What was said then and is said otherwise now. What a later version says in addition is no difference."""
    if isinstance(was, dict) and isinstance(now, dict):
        gone = [f"{where}.{key} is gone" for key in was.keys() - now.keys()]
        return gone + [
            found for key in was.keys() & now.keys() for found in differences(was[key], now[key], f"{where}.{key}")
        ]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [
            found
            for n, (one, other) in enumerate(zip(was, now, strict=True))
            for found in differences(one, other, f"{where}[{n}]")
        ]
    if isinstance(was, str) and isinstance(now, str) and "\n" in was:
        left = iter(now.splitlines())
        return [f"{where}: the line {line!r} is gone" for line in was.splitlines() if line not in left]
    return [] if was == now else [f"{where}: {was!r:.100} then, {now!r:.100} now"]


@pytest.mark.parametrize(("release", "golden", "expected"), JOURNALS, ids=IDS)
def test_what_a_release_wrote_is_read_as_it_was_then(release: str, golden: Golden, expected: dict[str, Any]) -> None:
    found = outcome(golden)
    assert differences(expected, found)[:5] == [], f"release {release}, journal {golden.name!r}"
    assert found["effects"] == expected["effects"]


LEFT_OUT: dict[str, str] = {}
"""Kinds of rows that no golden journal of the newest release has, each with the reason."""


def test_the_newest_release_has_every_kind_of_row_and_its_rows_are_written_and_read_again() -> None:
    newest = [golden for release, golden, _ in JOURNALS if release == JOURNALS[-1][0]]
    rows = [row for golden in newest for row in golden.rows]
    kinds = {type(decode(row).event).__name__ for row in rows}
    assert set(KINDS) - kinds - set(LEFT_OUT) == set(), "play the journals anew: python -m tests.history.golden VERSION"
    assert not kinds & set(LEFT_OUT), "these are in the journals: take them from the list"
    assert all(decode(encode(decode(row))) == decode(row) for row in rows)


def test_planted_change_of_what_a_row_means_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _, golden, expected = next(one for one in JOURNALS if one[1].name == "CART-B1")
    monkeypatch.setattr("edge.core.review._end", lambda _: "some")
    assert any("limit" in one for one in differences(expected, outcome(golden)))


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    _, golden, _ = JOURNALS[0]
    write(tmp_path / "x.jsonl.zst", [golden])
    assert list(read(tmp_path / "x.jsonl.zst")) == [(golden, outcome(golden))]
