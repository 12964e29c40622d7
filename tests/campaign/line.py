"""Rows 2 and 10 over the pure core: random recipes, people, devices and time, with power cuts and false clocks."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Final

from edge.core.line import Elapsed, Stamp
from edge.core.recipe.model import Ramp, Recipe, Set
from edge.core.terms import ClockQuality
from tests.campaign import Part, Tally, planted
from tests.simulation import schedules
from tests.simulation.line_model import Run, random_recipe
from tests.simulation.planted import PLANTED

TRUE: Final = datetime(2026, 3, 29, tzinfo=UTC)
JUMPS: Final = (
    *(timedelta(hours=hours) for hours in (-2, -1, 1, 2)),
    *(timedelta(days=days) for days in (-3, 3)),
    datetime(1970, 1, 1, tzinfo=UTC) - TRUE,
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC) - TRUE,
)


class CutRun(Run):
    """The power goes often, above all while a write is on its way; recipes have writes at their beginning."""

    weights: ClassVar[Mapping[str, int]] = {
        "the_power_goes": 12,
        "somebody_answers": 20,
        "somebody_repeats": 6,
        "somebody_amends": 1,
    }

    def drawn(self) -> Recipe:
        while True:
            drawn = random_recipe(self.chance)
            if any(isinstance(step, Set | Ramp) for step in drawn.main()[:2]):
                return drawn

    def writes_begin(self, *, arrive: float = 0.7) -> None:
        super().writes_begin(arrive=arrive)
        if self.flying and self.chance.random() < 0.5:
            self.the_power_goes()


async def cut(seed: int, folder: Path, tally: Tally) -> None:
    """One random run; each cut in it drops what was not durable, and the run goes on from there."""
    del folder
    run = CutRun(seed)
    try:
        run.play()
    finally:
        tally.fault(run.cuts)


CUT_SHOWS: Final = {
    "open intents are taken up again",
    "a dark stretch counts as time that passed",
    "units are not kept apart",
    "a request is done again when it is repeated",
}
"""Bugs that power cuts bring out; `tests/simulation` plants the others."""

POWER_CUT = Part(
    2,
    "line-model",
    "power cut between any two rows of random batches with simulated devices, over the pure core",
    gate=2_000,
    full=100_000,
    inject=cut,
    planted={name: planted(cut, found, patches) for name, (patches, found) in PLANTED.items() if name in CUT_SHOWS},
)


async def share(seed: int, folder: Path, tally: Tally) -> None:
    """One random schedule of batches that share units."""
    del folder
    schedules.Schedules(seed).play()
    tally.fault()


SCHEDULES = Part(
    2,
    "schedules",
    "8 batches on 5 units, started, let wait, ended and stopped in any order, with power cuts",
    gate=300,
    full=10_000,
    inject=share,
    planted={name: planted(share, found, patches) for name, (patches, found) in schedules.PLANTED.items()},
    unit="seeds",
)


class FalseClockRun(Run):
    """The wall clock jumps, stands still or is right; nobody has synced it. Timers must not notice."""

    def __init__(self, seed: int) -> None:
        self.wall = random.Random(seed)
        self.off, self.stands, self.jumps, self.last_boot = timedelta(), "", 0, 1
        super().__init__(seed)

    def drawn(self) -> Recipe:
        """A recipe that begins with something that takes time: that is what a false clock could spoil."""
        while True:
            drawn = random_recipe(self.chance)
            if drawn.main()[0].phase in {"wait", "hold"}:
                return drawn

    def stamp(self) -> Stamp:
        if self.wall.random() < (0.05 if self.boot == self.last_boot else 0.8):  # a box may wake with any time
            self.jumps += 1
            self.off = self.wall.choice(JUMPS)
            self.stands = self.utc() if self.wall.random() < 0.2 else ""
        self.last_boot = self.boot
        return Stamp(self.stands or self.utc(), ClockQuality.FREE, self.true_s - self.boot_s, f"boot-{self.boot}")

    def utc(self) -> str:
        return (TRUE + timedelta(seconds=self.true_s) + self.off).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def jump(seed: int, folder: Path, tally: Tally) -> None:
    del folder
    run = FalseClockRun(seed)
    try:
        run.play()
    finally:
        tally.fault(run.jumps)


def by_the_wall(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """Planted: a dark stretch is measured with whatever the wall clock says."""
    if earlier is None:
        return Elapsed(0.0, 0.0)
    if earlier.boot == later.boot:
        return Elapsed(later.boottime_s - earlier.boottime_s, later.boottime_s - earlier.boottime_s)
    passed_s = (datetime.fromisoformat(later.utc) - datetime.fromisoformat(earlier.utc)).total_seconds()
    return Elapsed(max(0.0, passed_s), max(0.0, passed_s))


FALSE_CLOCK = Part(
    10,
    "timers",
    "wall clock off by hours or days, at 1970 or 2038, or standing, while timers of random batches run",
    gate=500,
    full=50_000,
    inject=jump,
    planted={"a free clock is trusted": planted(jump, "TimerDue", {"edge.core.decide.between": by_the_wall})},
)
