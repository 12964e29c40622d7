"""Bugs on purpose for the line model: what is put in whose place, and what the model then says."""

from __future__ import annotations

from typing import Any

from edge.core import commands as cm
from edge.core import decide
from edge.core import events as ev
from edge.core.terms import Elapsed


def careless_start(self: decide._Decision, command: cm.StartRuntime) -> None:
    self.emit(ev.RuntimeStarted(version=command.version, clean=False, dark_low_s=0.0, dark_high_s=0.0))
    for batch in self.line.live():
        self.proceed(batch.batch)


def dark_time_counts(before: Elapsed, _since: Any, _last: Any, gap: Elapsed) -> Elapsed:
    return Elapsed(before.low_s + min(gap.high_s, 1e6), before.high_s + gap.high_s)


PLANTED: dict[str, tuple[dict[str, Any], str]] = {
    "open intents are taken up again": (
        {
            "edge.core.line._after_start": lambda batch, *_: batch,
            "edge.core.decide._Decision.start_runtime": careless_start,
        },
        "of an earlier run|written to twice|after a crash at row|an earlier run decided",
    ),
    "a dark stretch counts as time that passed": ({"edge.core.line._carried": dark_time_counts}, "TimerDue"),
    "units are not kept apart": (
        {"edge.core.decide._Decision.allocate": lambda _, recipe: dict.fromkeys(recipe.units, "BR-1")},
        "two batches share a unit",
    ),
    "a request is done again when it is repeated": (
        {"edge.core.line.ANSWERED_MAX": 0},
        "was done twice|was decided twice",
    ),
}
