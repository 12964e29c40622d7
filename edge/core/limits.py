"""From readings to findings: whether a watched value meets its condition, leaves its limit, or cannot be trusted."""

from __future__ import annotations

import math
from typing import Final, Literal

from edge.core.line import Watch
from edge.core.terms import Quality, Reading

Finding = Literal["met", "outside", "back", "bad_quality", "steady"]
BAD_QUALITY_S: Final = 3.0
"""How long a reading may be unusable before the phase's `on_bad_quality` decides: connecting takes that long."""
RESTLESS_S: Final = 120.0
"""How long a weight that must stand still may move: a balance that says "not at rest" does what it should."""


class Watcher:
    """Looks at one watched tag. It remembers only since when; what was found before stands in the head.

    A finding is repeated at every look until the head has changed, and with it the watch.
    """

    def __init__(self, watch: Watch, now_s: float) -> None:
        self.watch = watch
        self._outside_since_s: float | None = None
        self._bad_since_s = self._restless_since_s = now_s
        self._seen_good = False
        self._steady_since_s = now_s
        self._lowest, self._highest = math.inf, -math.inf

    def look(self, reading: Reading | None, now_s: float) -> Finding | None:
        """What this reading, at this time, means for the step; None when nothing changed."""
        if reading is None or not reading.good or not isinstance(reading.value, int | float):
            self._outside_since_s = None
            self._lowest, self._highest = math.inf, -math.inf
            if self._seen_good:
                self._seen_good, self._bad_since_s, self._restless_since_s = False, now_s, now_s
            restless = self.watch.kind == "steady" and reading is not None and reading.quality is Quality.UNCERTAIN
            if restless and now_s - self._restless_since_s < RESTLESS_S:
                self._bad_since_s = now_s
            bad = self.watch.hold_on_bad and now_s - self._bad_since_s >= BAD_QUALITY_S
            return "bad_quality" if bad and reading is not None else None
        self._seen_good = True
        if self.watch.kind == "steady":
            return self._look_for_rest(reading.value, now_s)
        low, high = self.watch.low, self.watch.high
        within = (low is None or reading.value >= low) and (high is None or reading.value <= high)
        if self.watch.kind == "until":
            return "met" if within else None
        if within:
            self._outside_since_s = None
            return "back" if self.watch.outside else None
        if self._outside_since_s is None:
            self._outside_since_s = now_s
        late = now_s - self._outside_since_s >= self.watch.delay_s
        return "outside" if late and not self.watch.outside else None

    def _look_for_rest(self, value: float, now_s: float) -> Finding | None:
        """Steady: all values since `delay_s` at least lie within the band. One that does not begins it anew."""
        lowest, highest = min(self._lowest, value), max(self._highest, value)
        if self._lowest is math.inf or highest - lowest > (self.watch.high or 0.0):
            self._steady_since_s, self._lowest, self._highest = now_s, value, value
            return None
        self._lowest, self._highest = lowest, highest
        return "steady" if now_s - self._steady_since_s >= self.watch.delay_s else None
