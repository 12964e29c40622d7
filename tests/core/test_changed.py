"""`replace` gives what that of `dataclasses` gives, for every class of the head."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

from edge.core import line
from edge.core.changed import finished, replace

HEAD = [
    kind
    for _, kind in inspect.getmembers(line, inspect.isclass)
    if dataclasses.is_dataclass(kind) and "__slots__" in kind.__dict__ and not issubclass(kind, Exception)
]


def told(held: Any) -> list[object]:
    """Every field, also those that take no part in a comparison."""
    return [getattr(held, one.name) for one in dataclasses.fields(held)]


@pytest.mark.parametrize("kind", HEAD)
def test_it_gives_what_dataclasses_gives(kind: Any) -> None:
    fields = dataclasses.fields(kind)
    held = kind(**{one.name: (one.name,) for one in fields})
    for one in fields:
        changed = replace(held, **{one.name: 1})
        assert type(changed) is kind
        assert told(changed) == told(dataclasses.replace(held, **{one.name: 1})) != told(held)
    assert told(replace(held)) == told(held)


def test_what_was_copied_just_now_is_finished_in_place_and_the_original_never() -> None:
    was = line.UsedIds(b"a")
    copied = replace(was, packed=b"b")
    assert finished(copied, was, packed=b"c") is copied
    assert copied == line.UsedIds(b"c")
    assert finished(was, was, packed=b"d") == line.UsedIds(b"d")
    assert was == line.UsedIds(b"a")


def test_the_classes_of_the_head_are_as_it_needs_them() -> None:
    assert {line.Line, line.Batch, line.StepRun, line.UsedIds} <= set(HEAD)
    assert not [kind for kind in HEAD if hasattr(kind, "__post_init__")]
    assert all(one.init for kind in HEAD for one in dataclasses.fields(kind))


def test_a_name_that_is_no_field_is_refused() -> None:
    held = line.UsedIds(b"")
    with pytest.raises(TypeError, match="UsedIds has no field 'pakced'"):
        replace(held, pakced=b"")  # type: ignore[call-arg]
    assert held == line.UsedIds(b"")
