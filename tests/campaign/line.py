"""Row 2 over the pure core: random recipes, people, devices and time, with power cuts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

from edge.core.recipe.model import Ramp, Recipe, Set
from tests.campaign import Part, Tally, planted
from tests.simulation import schedules
from tests.simulation.line_model import Run, random_recipe
from tests.simulation.planted import PLANTED


class CutRun(Run):
    """The power goes often, above all while a write is on its way; recipes have writes at their beginning."""

    weights: ClassVar[Mapping[str, int]] = {
        "the_power_goes": 12,
        "somebody_answers": 20,
        "somebody_repeats": 6,
        "somebody_amends": 1,
        "people_go_on_by_hand": 16,
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
