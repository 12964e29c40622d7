"""The fault campaign: faults by the hundred thousand, each from a seed, against the same code that the tests run.

A part is one kind of fault against one component. Its `inject` plays one seed in an empty folder, tells the `Tally`
of each fault, and raises or reports what must never happen. `docs/reference/campaign.md` says what is covered.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from unittest import mock

PLANTED_SEEDS_MAX = 300
"""A planted bug must show within so many seeds."""


@dataclass
class Tally:
    """What was done so far: read by the progress line while it grows."""

    injected: int = 0
    seeds: int = 0
    violations: list[Violation] = field(default_factory=list)
    under_way: int = 0
    """The seed that is played now."""

    def fault(self, count: int = 1) -> None:
        self.injected += count

    def violated(self, what: str) -> None:
        """One violation is kept for each seed: the seed shows the others again."""
        if not self.violations or self.violations[-1].seed != self.under_way:
            self.violations.append(Violation(self.under_way, what))


@dataclass(frozen=True)
class Violation:
    seed: int
    what: str


Inject = Callable[[int, Path, Tally], Awaitable[None]]


@dataclass(frozen=True)
class Planted:
    """A bug on purpose. It is found when a violation matches `found`; any other one only tells of a broken part."""

    inject: Inject
    found: str


@dataclass(frozen=True)
class Part:
    """One kind of fault against one component. `gate` and `full` count faults, or seeds where `unit` says so."""

    row: int
    name: str
    what: str
    gate: int
    full: int
    inject: Inject
    planted: Mapping[str, Planted]
    """The bugs that it must find, each by what it is."""
    unit: Literal["faults", "seeds"] = "faults"

    @property
    def id(self) -> str:
        return f"{self.row}.{self.name}"


def planted(inject: Inject, found: str, patches: Mapping[str, object]) -> Planted:
    """`inject` while these names stand for something else."""

    async def patched(seed: int, folder: Path, tally: Tally) -> None:
        with contextlib.ExitStack() as stack:
            for target, instead in patches.items():
                stack.enter_context(mock.patch(target, instead))
            await inject(seed, folder, tally)

    return Planted(patched, found)


async def play(inject: Inject, seed: int, tally: Tally) -> None:
    """One seed in a folder of its own. Whatever escapes is a violation with its place."""
    tally.under_way = seed
    folder = Path(tempfile.mkdtemp(prefix="ls-"))
    try:
        await inject(seed, folder, tally)
    except Exception as error:  # noqa: BLE001 - the edge of one seed: the campaign goes on and reports it
        tally.violated(told(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tally.seeds += 1


def told(error: BaseException) -> str:
    """What escaped, and where it came from."""
    return f"{type(error).__name__}: {error}{_place(error)}"


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""


@dataclass(frozen=True)
class Run:
    """What was done of one part, and what came of it."""

    part: Part
    wanted: int
    first_seed: int
    last_seed: int
    injected: int
    seeds: int
    violations: tuple[Violation, ...]
    missed: tuple[str, ...]
    """Planted bugs that were not found."""
    planted: int
    took_s: float

    @property
    def done(self) -> int:
        return self.seeds if self.part.unit == "seeds" else self.injected

    @property
    def whole(self) -> bool:
        return self.done >= self.wanted

    @property
    def ok(self) -> bool:
        return not self.violations and not self.missed


async def find_planted(part: Part) -> tuple[str, ...]:
    """The planted bugs of a part that it does NOT find."""
    missed = []
    for name, bug in part.planted.items():
        for seed in range(PLANTED_SEEDS_MAX):
            tally = Tally()
            await play(bug.inject, seed, tally)
            if any(re.search(bug.found, violation.what) for violation in tally.violations):
                break
        else:
            missed.append(name)
    return tuple(missed)


async def run_part(
    part: Part, wanted: int, *, first_seed: int = 0, deadline_s: float = float("inf"), tally: Tally | None = None
) -> Run:
    """The planted bugs first, then seed after seed until `wanted` is reached or the time is over."""
    began_s = time.monotonic()
    missed = await find_planted(part)
    tally = tally or Tally()
    await play_on(part, wanted, tally, first_seed, 1, deadline_s)
    return ran(part, wanted, first_seed, tally, missed, began_s)


async def play_on(part: Part, wanted: int, tally: Tally, first_seed: int, step: int, deadline_s: float) -> None:
    """Every `step`th seed until `wanted` is reached or the time is over."""
    seed = first_seed
    while (tally.seeds if part.unit == "seeds" else tally.injected) < wanted and time.monotonic() < deadline_s:
        await play(part.inject, seed, tally)
        seed += step


def ran(part: Part, wanted: int, first_seed: int, tally: Tally, missed: tuple[str, ...], began_s: float) -> Run:
    """What came of the part, whoever played its seeds."""
    return Run(
        part,
        wanted,
        first_seed,
        max(first_seed, tally.under_way),
        tally.injected,
        tally.seeds,
        tuple(tally.violations),
        missed,
        len(part.planted),
        round(time.monotonic() - began_s, 1),
    )


@contextlib.contextmanager
def every_second(say: Callable[[], None]):
    """Calls `say` each second from a thread of its own, so that a busy loop does not silence it."""
    over = threading.Event()

    def keep_saying() -> None:
        while not over.wait(1.0):
            say()

    thread = threading.Thread(target=keep_saying, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
