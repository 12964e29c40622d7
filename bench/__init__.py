"""What Lineside reaches, against the raw limit of the same machine in the same run.

Absolute figures say little on a shared machine: every goal is a ratio, measured interleaved, medians of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles

Say = Callable[[str], None]
"""Tells a person how far a measurement is."""


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return quantiles(values, n=100)[98]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured, in which unit, and the goal it is held against.

    `raw` is the limit it is compared with, measured in the same rounds; `at_least` and `at_most` bound
    `ratio` where there is a raw limit and `value` where there is none."""

    what: str
    value: float
    unit: str
    raw: float | None = None
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float | None:
        """`value` by `raw`."""
        return self.value / self.raw if self.raw else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None for a figure that has none."""
        if self.at_least is None and self.at_most is None:
            return None
        compared = self.value if self.ratio is None else self.ratio
        return (self.at_least is None or compared >= self.at_least) and (
            self.at_most is None or compared <= self.at_most
        )
