"""`python -m bench.connection DRIVER PORT`: the memory of connections in a process that has nothing else.

It says in MiB what the first takes, its library with it, and what one more takes.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from bench.box import memory_of
from edge.core.plant import Plant
from edge.equipment import Equipment, installed_drivers


def plant_of(driver: str, port: int, count: int, *, connections: int = 1, poll_s: float = 1.0) -> Plant:
    """Tags of the device of `bench.tags`: doubles of its server, or 32-bit floats of its registers; or plain registers
    ("points") of that of `bench.points`."""
    tag: Callable[[int], dict[str, Any]] = {
        "opcua": lambda n: {"address": f"ns=2;s=t{n}"},
        "modbus": lambda n: {"address": f"input {n * 2} float32"},
        "points": lambda n: {"address": f"input {n} uint16"},
    }[driver]
    endpoint = f"opc.tcp://127.0.0.1:{port}/"
    settings = {"endpoint": endpoint, "security": "none"} if driver == "opcua" else {"host": "127.0.0.1", "port": port}
    name = "opcua" if driver == "opcua" else "modbus"
    return Plant.model_validate(
        {
            "plant": "bench",
            "connections": {
                f"c{n}": {"driver": name, "settings": settings, "poll_s": poll_s} for n in range(connections)
            },
            "units": {
                f"U-{c}": {
                    "class": "cell",
                    "tags": {f"t{n}": {"connection": f"c{c}", **tag(n)} for n in range(count)},
                }
                for c in range(connections)
            },
        }
    )


@asynccontextmanager
async def reading(driver: str, port: int) -> AsyncIterator[tuple[Equipment, asyncio.Event]]:
    """Ten tags, watched; the event is set when something changed."""
    plant, news = plant_of(driver, port, 10, poll_s=0.1), asyncio.Event()
    async with Equipment(
        plant, installed_drivers(), now_s=time.monotonic, utc=lambda: "", on_change=news.set
    ) as equipment:
        await equipment.watch(plant.tags())
        yield equipment, news


async def good(equipment: Equipment, news: asyncio.Event, *, wanted: bool = True) -> None:
    """Return when the first tag is good; or when it is not."""
    while (((reading := equipment.latest("U-0.t0")) is not None) and reading.good) is not wanted:
        await news.wait()
        news.clear()
        equipment.take_changed()


async def _say_memory(driver: str, port: int) -> None:
    def resident() -> float:
        return memory_of(os.getpid()).resident

    before = resident()
    async with reading(driver, port) as one:
        await good(*one)
        first = resident()
        async with reading(driver, port) as another:
            await good(*another)
            sys.stdout.write(f"{first - before} {resident() - first}\n")


if __name__ == "__main__":
    asyncio.run(_say_memory(sys.argv[1], int(sys.argv[2])))
