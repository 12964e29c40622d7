"""Batch numbers that a box gives by itself: each once, whatever becomes of the journal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from edge.core.errors import NOTHING_STARTED, LinesideError
from edge.core.quick import dataclass

PRODUCT: Final = "product"
TRAINING: Final = "training"
CHECK: Final = "check"
"""What a range is for: a batch for an order, one for training, one without an order. The last two are always there."""
SKIPPED_AFTER_RESTORE: Final = 100
"""After a restore so many numbers are left out, and one more for each row that is known to be missing: a batch makes
at least one row. The lost part of the journal may have used them."""


@dataclass(frozen=True, slots=True)
class NumberRange:
    """Numbers `first` to `last`, each written as `prefix` and at least `digits` digits; `next` was never given."""

    prefix: str
    first: int
    last: int
    digits: int
    next: int

    def number(self, position: int) -> str:
        """How the number at this position is written."""
        return f"{self.prefix}{position:0{self.digits}d}"

    def position(self, batch: str) -> int | None:
        """Where a batch's number stands in this range; None when it is none of this range."""
        found = re.fullmatch(r"[0-9]{1,12}", batch[len(self.prefix) :], re.ASCII)
        if not found or not batch.startswith(self.prefix):
            return None
        position = int(found[0])
        return position if self.first <= position <= self.last and self.number(position) == batch else None

    @property
    def left(self) -> int:
        """How many numbers are left."""
        return max(0, self.last - self.next + 1)


TRAINING_PREFIX: Final = "TRAINING-"
RANGES: Final[Mapping[str, NumberRange]] = MappingProxyType(
    {
        TRAINING: NumberRange(TRAINING_PREFIX, 1, 999_999_999, 4, 1),
        CHECK: NumberRange("CHECK-", 1, 999_999_999, 4, 1),
    }
)
"""Those of a box whose settings give it none."""


def proposed(ranges: Mapping[str, NumberRange], purpose: str) -> str:
    """The number that the next batch gets; empty without a range, or when it is used up."""
    found = ranges.get(purpose)
    return found.number(found.next) if found is not None and found.left else ""


def given(ranges: Mapping[str, NumberRange], purpose: str) -> str:
    """As `proposed`; raises `numbers.none` or `numbers.used_up` where there is none."""
    found = ranges.get(purpose)
    if found is None:
        raise LinesideError(
            "numbers.none",
            "This box has no range of batch numbers to take one from.",
            effect=NOTHING_STARTED,
            todo="Give the batch a number, or set [numbers] in lineside.toml.",
        )
    if not found.left:
        raise LinesideError(
            "numbers.used_up",
            f"The range of batch numbers, {found.number(found.first)} to {found.number(found.last)}, is used up.",
            effect=NOTHING_STARTED,
            todo="Give this box another range: [numbers] in lineside.toml.",
        )
    return found.number(found.next)


def nearly_used_up(numbers: NumberRange | None) -> tuple[str, ...]:
    """A sentence when less than a tenth of the range is left, or less than ten numbers."""
    if numbers is None or numbers.left >= max(10, (numbers.last - numbers.first + 1) // 10):
        return ()
    left = "1 batch number" if numbers.left == 1 else f"{numbers.left or 'No'} batch numbers"
    first, last = numbers.number(numbers.first), numbers.number(numbers.last)
    return (f"{left} of {first} to {last} left: give this box another range, [numbers] in lineside.toml.",)


def used(ranges: Mapping[str, NumberRange], batch: str) -> Mapping[str, NumberRange]:
    """The ranges after a batch with this number began: no number up to it is given any more."""
    for purpose, one in ranges.items():
        position = one.position(batch)
        if position is not None and position >= one.next:
            return {**ranges, purpose: replace(one, next=position + 1)}
    return ranges
