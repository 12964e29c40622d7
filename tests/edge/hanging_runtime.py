"""`python hanging_runtime.py honest|beside MARK edge run --box DIR`: the runtime, whose decision loop hangs for ever
once SIGUSR1 came; then it makes the file MARK.

With `beside` it has a planted bug as well: the watchdogs are written from a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from pathlib import Path
from typing import Final

from edge.__main__ import main
from edge.clock import SystemClock
from edge.core.plant import Plant
from edge.engine import TICK_S, Engine
from edge.equipment import Equipment, installed_drivers
from edge.watchdog import Watchdogs

how, mark = sys.argv[1], Path(sys.argv[2])
del sys.argv[1:3]
told: Final = threading.Event()
look_at_disk = Engine._look_at_disk


def hang(self: Engine) -> None:
    look_at_disk(self)
    if told.is_set():
        mark.touch()
        threading.Event().wait()


class Beside(Watchdogs):
    """As the real ones, on a clock, connections and a loop of their own."""

    def __init__(self, plant: Plant, *_: object) -> None:
        threading.Thread(target=lambda: asyncio.run(self.go_on(plant)), daemon=True).start()
        super().__init__(Plant(plant="none"), None, lambda: 0.0)  # type: ignore[arg-type]

    async def go_on(self, plant: Plant) -> None:
        clock = SystemClock()
        async with Equipment(plant, installed_drivers(), now_s=clock.now_s, utc=clock.utc) as equipment:
            dogs = Watchdogs(plant, equipment, clock.now_s)
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(dogs.beat(), TICK_S)):
                        await asyncio.Event().wait()


Engine._look_at_disk = hang  # type: ignore[method-assign]
if how == "beside":
    from edge import runtime

    runtime.Watchdogs = Beside  # type: ignore[misc]
signal.signal(signal.SIGUSR1, lambda *_: told.set())
main()
