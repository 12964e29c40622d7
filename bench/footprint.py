"""What the real processes hold in memory, and how soon they are ready.

A box with Modbus alone, then the demo's cell with OPC UA and Modbus, a broker, a hub and a second medium. Ready is what
systemd is told (`READY=1`); for the screen, that the people's names stand painted in a terminal of 80×24. "Without
bytecode" is the first start of a fresh installation that nobody compiled, the standard library included.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from bench import Figure, Say
from bench.box import (
    ANA,
    Memory,
    Process,
    device,
    lay_out,
    log_in,
    memory_of,
    running,
    screen,
    start_batch,
)
from demo.rig import rig
from edge.desk_client import connect

STARTS: Final = 5
LOG_INS: Final = 3
WORK_TURNS: Final = 45
"""The screen changes what it shows twice in a turn."""
SETTLED_S: Final = 2.0
"""After so long, what a process holds is what it goes on holding."""


async def _starts(make: Callable[[], AbstractAsyncContextManager[Process]], say: Say, what: str) -> float:
    """The median of several starts, in seconds."""
    taken = []
    for number in range(STARTS):
        say(f"{what}: start {number + 1} of {STARTS}")
        async with make() as process:
            taken.append(process.ready_s)
    return median(taken)


def _held(name: str, memory: Memory, at_most: float | None) -> list[Figure]:
    return [
        Figure(name, memory.resident, "MiB", at_most=at_most),
        Figure("   of which its own or its share", memory.share, "MiB"),
    ]


def _ready(name: str, warm_s: float, cold: Process, at_most: float) -> list[Figure]:
    return [
        Figure(name, warm_s, "s", at_most=at_most),
        Figure("   without bytecode", cold.ready_s, "s"),
        Figure("   without bytecode, resident", cold.memory.resident, "MiB"),
    ]


def _without_bytecode(folder: Path) -> dict[str, str]:
    return {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(folder / "no-bytecode")}


async def _modbus_alone(folder: Path, say: Say) -> list[Figure]:
    """Runtime and screen of a small box, idle and at work."""
    cold = _without_bytecode(folder)
    figures: list[Figure] = []
    async with device(1) as simulated:
        box = lay_out(folder, folder / "state", simulated.port, channels=1, rounds=WORK_TURNS + 1)
        desk, command = box.desk, ("edge", "run", "--box", str(box.folder))
        warm_s = await _starts(lambda: running(folder, *command), say, "runtime")
        async with running(folder, *command, environment=cold) as process:
            await asyncio.sleep(SETTLED_S)
            figures += _ready("runtime, Modbus: start to ready", warm_s, process, 1.5)
        async with running(folder, *command) as process:
            warm_s = await _starts(lambda: screen(desk, ANA.name), say, "screen")
            async with screen(desk, ANA.name, cold) as first:
                figures += _ready("screen: start to first paint", warm_s, first, 1.0)
            await asyncio.sleep(SETTLED_S)
            before = process.memory
            async with connect(desk) as client, screen(desk, ANA.name) as shown:
                for _ in range(LOG_INS):
                    await log_in(client)
                after = process.memory
                await start_batch(client, "B-1")
                simulated.begin()
                shown.type(f"{ANA.badge}\r")
                await shown.until("Enter your PIN")
                shown.type(f"{ANA.pin}\r")
                await shown.until("B-1")
                say("at work")
                for _ in range(WORK_TURNS):
                    await simulated.lines.readline()
                figures += _held("runtime, Modbus, a batch at work", process.memory, 70)
                figures += _held("screen, someone logged in", shown.memory, 60)
    return [
        *figures,
        Figure("runtime, Modbus: before a log-in", before.resident, "MiB"),
        Figure("   the most during log-ins", after.peak, "MiB"),
        Figure("   after them", after.resident, "MiB"),
    ]


async def _whole_line(folder: Path, say: Say) -> list[Figure]:
    """The demo's processes: runtime with OPC UA, follower with uplink and second medium, hub."""
    say("the whole line starts")
    async with rig(folder, speed=1.0) as line:
        arguments = ("edge", "run", "--box", str(line.box)), ("edge", "follow", "--box", str(line.box))
        for name in ("runtime", "follower"):
            await line.processes[name].end()
        warm_s = await _starts(lambda: running(folder, *arguments[0]), say, "runtime with OPC UA")
        async with running(folder, *arguments[0], environment=_without_bytecode(folder)) as process:
            await asyncio.sleep(SETTLED_S)
            figures = _ready("runtime, OPC UA and Modbus: start to ready", warm_s, process, 1.5)
        async with (
            running(folder, *arguments[0]) as runtime,
            running(folder, *arguments[1]) as follower,
            connect(line.desk) as client,
        ):
            await log_in(client)
            async with asyncio.timeout(60):
                async for picture in client.pictures():
                    reads = all(state.startswith("connected") for state in picture.connections.values())
                    if reads and picture.strip.sync.received_seq >= 5 and picture.strip.sync.copied_seq >= 5:
                        break
            await asyncio.sleep(SETTLED_S)
            return [
                *figures,
                *_held("runtime, OPC UA and Modbus, connected, after a log-in", runtime.memory, 110),
                *_held("follower, at the hub and the second medium", follower.memory, 90),
                *_held("hub", memory_of(line.processes["hub"].pid), None),
            ]


def measure(say: Say) -> list[Figure]:
    """Medians of five starts; memory once, settled."""
    figures = []
    for part in (_modbus_alone, _whole_line):
        with TemporaryDirectory(prefix="bench-") as folder:
            figures += asyncio.run(part(Path(folder), say))
    return figures
