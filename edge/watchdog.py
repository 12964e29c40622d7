"""Watchdog tags: while the decision loop moves each unit's device hears of it; when it stops, the device is alone.

A unit's `watchdog` in the plant file names a tag that its PLC watches. `beat` is called by the engine out of its own
loop and nowhere else: there is no timer and no thread beside it, so a loop that hangs, a process that is killed and a
journal that takes no rows any more all have the same end, and the PLC falls to its safe state. Beats are no rows: they
change nothing that a batch depends on, and would drown what does. They go through the guard and the driver like every
other write, one at a time, and are not read back: the PLC's answer to them is its safe state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Final

from edge.core.plant import Plant, Watchdog
from edge.core.quick import dataclass
from edge.core.terms import Value
from edge.equipment import Equipment

COUNTED_TO: Final = 9_999
"""A counter goes from 1 to this, and then begins again at 1, unless its tag's range ends before."""
RELEASED: Final = 0
"""What a counter is set to at a clean stop: this box does not watch the unit any more."""
END_S: Final = 5.0


@dataclass(slots=True)
class _Dog:
    unit: str
    tag: str
    connection: str
    told: Watchdog
    most: int
    due_s: float
    value: Value
    training: bool
    writing: asyncio.Task[None] | None = None
    trouble: str = ""
    """Why the last beat did not arrive; empty when it did."""


class Watchdogs:
    """The watchdog tags of a plant."""

    def __init__(self, plant: Plant, equipment: Equipment, now_s: Callable[[], float]) -> None:
        self._equipment, self._now_s = equipment, now_s
        self._dogs: list[_Dog] = []
        for name, unit in plant.units.items():
            if unit.watchdog is not None:
                tag = unit.tags[unit.watchdog.tag]
                most = COUNTED_TO if tag.high is None else min(COUNTED_TO, int(tag.high))
                first: Value = False if unit.watchdog.kind == "toggle" else RELEASED
                full_name = f"{name}.{unit.watchdog.tag}"
                training = not unit.serves(training=False)
                self._dogs.append(_Dog(name, full_name, tag.connection, unit.watchdog, most, now_s(), first, training))

    def beat(self) -> float:
        """Begin the beats that are due, and return the seconds until the next one. One that is still under way is not
        begun a second time: a device that does not answer hears nothing, as it should."""
        next_s = float("inf")
        for dog in self._dogs:
            if self._now_s() >= dog.due_s and (dog.writing is None or dog.writing.done()):
                dog.value = (not dog.value) if isinstance(dog.value, bool) else _counted(dog.value, dog.most)
                dog.due_s = self._now_s() + dog.told.every_s
                dog.writing = asyncio.create_task(self._write(dog, dog.value), name=f"edge.watchdog[{dog.tag}]")
            if dog.due_s > self._now_s():  # else it waits for one that is under way: the loop's own pace looks after it
                next_s = min(next_s, dog.due_s - self._now_s())
        return next_s

    async def _write(self, dog: _Dog, value: Value) -> None:
        dog.trouble = await self._equipment.writer(dog.tag, training=dog.training).beat(value)

    async def end(self, *, released: bool) -> None:
        """No further beat. `released` (the box stopped in order and no batch is under way): counters are set to 0, so
        that a PLC that knows this does not fall to its safe state."""
        for dog in self._dogs:
            if dog.writing is not None:
                dog.writing.cancel()
                await asyncio.gather(dog.writing, return_exceptions=True)
        counters = [dog for dog in self._dogs if released and dog.told.kind == "counter"]
        if counters:
            letting_go = [asyncio.create_task(self._write(dog, RELEASED)) for dog in counters]
            _, late = await asyncio.wait(letting_go, timeout=END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*letting_go, return_exceptions=True)

    def troubles(self) -> Iterator[str]:
        """A sentence for each watchdog that its device does not take."""
        for dog in self._dogs:
            if dog.trouble:
                yield (
                    f"The device of {dog.unit} does not take its watchdog ({dog.tag}): {dog.trouble} "
                    "It will fall to its safe state, or has done so."
                )

    def words(self, connection: str) -> str:
        """What to say of a connection besides; empty when all is well."""
        refused = [dog.tag for dog in self._dogs if dog.connection == connection and dog.trouble]
        return f"watchdog {', '.join(refused)} not taken" if refused else ""


def _counted(value: Value, most: int) -> int:
    assert isinstance(value, int)
    return value + 1 if value < most else 1
