"""The one place that reads clocks. Durations come from CLOCK_BOOTTIME; the wall clock is for people."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from edge.core.terms import ClockQuality, Stamp

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TIMEX_BYTES: Final = 512  # larger than struct timex on every Linux ABI
_TIME_ERROR: Final = 5  # adjtimex() says so when the clock is not synchronised


class Clock(Protocol):
    """What the engine needs of time; tests and rehearsals give a virtual one."""

    def now_s(self) -> float:
        """Seconds since this boot, counting suspend."""

    def stamp(self) -> Stamp:
        """The time of a row made now."""


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self._boot = BOOT_ID.read_text().strip()
        # it returns in a microsecond: to let another thread run meanwhile would cost far more
        self._adjtimex: Callable[[ctypes.Array[ctypes.c_char]], int] | None = getattr(
            ctypes.PyDLL(None, use_errno=True), "adjtimex", None
        )
        self._timex = ctypes.create_string_buffer(_TIMEX_BYTES)
        """What the kernel answers; the modes in it stay 0, so it is only asked."""

    def now_s(self) -> float:
        """CLOCK_BOOTTIME in seconds."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def utc(self) -> str:
        """The wall clock, ISO 8601 with microseconds and "Z"."""
        return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def utc_us(self) -> int:
        """The wall clock in microseconds since 1970."""
        return time.time_ns() // 1000

    def quality(self) -> ClockQuality:
        """SYNCED when the kernel says that a time source disciplines the clock."""
        if self._adjtimex is None:
            return ClockQuality.FREE
        state = self._adjtimex(self._timex)
        return ClockQuality.FREE if state in {-1, _TIME_ERROR} else ClockQuality.SYNCED

    def stamp(self) -> Stamp:
        """The time of a row made now."""
        return Stamp(self.utc(), self.quality(), round(self.now_s(), 6), self._boot)
