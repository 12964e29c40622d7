"""The simulated cell, or with a scale and a printer the whole plant: child processes that end with their parent."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from drivers.sim.control import SimControl
from edge.core.errors import LinesideError

READY_S: Final = 30.0
END_S: Final = 5.0
DEVICES: Final = ("reactor", "pump")
BESIDE: Final = ("scale", "printer")
"""What the whole plant has in addition. Its incubator is at the pump's server, with the cell too."""
PORTS: Final = {"reactor": 4840, "pump": 5020, "scale": 4305, "printer": 9100}
"""Those of the plant files."""


class DeviceProcess:
    """One simulated device in a process of its own. It ends when told, and also when this process dies, which holds
    the other end of its standard input."""

    def __init__(self, device: str, *, host: str, port: int, control: Path, seed: int, speed: float) -> None:
        self.device, self.control, self.port = device, SimControl(control), port
        self._where = f"{host}:{port}"
        self._arguments = [
            *("-m", "drivers.sim", device, "--host", host, "--port", str(port)),
            *("--control", str(control), "--seed", str(seed), "--speed", str(speed)),
        ]
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 when it is not running."""
        return self._process.pid if self._process is not None else 0

    async def launch(self) -> None:
        """Start the process; does not wait until it serves."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._arguments, stdin=pipe, stdout=pipe, start_new_session=True
        )

    async def ready(self) -> None:
        """Return when it serves; `port` is then the real one. Raises `sim.not_ready`."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(READY_S):
                line = await self._process.stdout.readline()
            answer: dict[str, Any] = json.loads(line)
        except (TimeoutError, ValueError) as error:
            raise LinesideError(
                "sim.not_ready",
                f"The simulated {self.device} did not start on {self._where}.",
                todo="Choose another port (0 for a free one) and look at what it printed.",
            ) from error
        if "port" not in answer:
            raise LinesideError("sim.not_ready", str(answer.get("what")), todo=str(answer.get("todo")))
        self.port = answer["port"]

    async def wait(self) -> None:
        """Return when the process has ended."""
        if self._process is not None:
            await self._process.wait()

    async def end(self) -> None:
        """Let it end in order; kill it when it does not. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def kill(self) -> None:
        """End it at once, as a power cut would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await process.wait()


@dataclass(frozen=True, slots=True)
class Cell:
    """A running cell: its devices, their ports, and how faults are made."""

    devices: tuple[DeviceProcess, ...]

    @property
    def reactor_port(self) -> int:
        """Where the OPC UA server listens."""
        return self.devices[0].port

    @property
    def pump_port(self) -> int:
        """Where the Modbus TCP server listens."""
        return self.devices[1].port

    @property
    def reactor(self) -> SimControl:
        """Faults and counters of the bioreactor."""
        return self.devices[0].control

    @property
    def pump(self) -> SimControl:
        """Faults and counters of pump and balance."""
        return self.devices[1].control

    async def ended(self) -> str:
        """Return the name of the first device whose process ended by itself."""
        waits = [asyncio.ensure_future(device.wait()) for device in self.devices]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return next(one.device for one, wait in zip(self.devices, waits, strict=True) if wait.done())
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


def plant_bytes() -> bytes:
    """The plant file of the simulated cell, with its default ports."""
    return files("drivers.sim").joinpath("plant.yaml").read_bytes()


def whole_plant_bytes(ports: Mapping[str, int] = PORTS) -> bytes:
    """The plant file of the whole plant, with these ports of its devices."""
    text, beside = plant_bytes().decode(), files("drivers.sim").joinpath("beside.yaml").read_text()
    connections, units = beside.partition("connections:\n")[2].split("\nunits:\n")
    text = text.replace("\nunits:\n", f"{connections}\nunits:\n", 1) + f"\n{units}"
    real = {str(PORTS[device]): str(port) for device, port in ports.items()}
    return re.sub(rf"(?<=[: ])({'|'.join(real)})\b", lambda found: real[found[1]], text).encode()


@asynccontextmanager
async def running_cell(
    control: Path,
    *,
    ports: Mapping[str, int] = dict.fromkeys(DEVICES, 0),
    seed: int = 1,
    speed: float = 60.0,
    host: str = "127.0.0.1",
) -> AsyncIterator[Cell]:
    """The devices of `ports` (0: a free one), each in its own process, until left; reactor and pump first. Each has a
    control socket of its name, like `pump.sock`."""
    devices = tuple(
        DeviceProcess(device, host=host, port=port, control=control / f"{device}.sock", seed=seed + at, speed=speed)
        for at, (device, port) in enumerate(ports.items())
    )
    try:
        for device in devices:
            await device.launch()
        for device in reversed(devices):  # the quick ones first: a port in use is then said at once
            await device.ready()
        yield Cell(devices)
    finally:
        await asyncio.gather(*(device.end() for device in devices))


def run_cell(
    *,
    ports: Mapping[str, int],
    control: Path,
    seed: int,
    speed: float,
    host: str = "127.0.0.1",
    say: Callable[[str], None] = print,
) -> None:
    """What `lineside simulate cell` does: run until SIGINT or SIGTERM; says one JSON line when ready. The whole plant
    is told in a plant file too, beside the control sockets.

    Raises `sim.not_ready`, or `sim.ended` when a device ends by itself."""
    asyncio.run(_run_cell(ports, control, seed, speed, host, say))


async def _run_cell(
    ports: Mapping[str, int], control: Path, seed: int, speed: float, host: str, say: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    cell_control = control.resolve()
    async with running_cell(cell_control, ports=ports, seed=seed, speed=speed, host=host) as cell:
        found = {one.device: one.port for one in cell.devices}
        ready: dict[str, Any] = {f"{device}_port": port for device, port in found.items()}
        ready |= {"control": str(cell_control), "pid": os.getpid(), "pids": [device.pid for device in cell.devices]}
        if len(found) == len(PORTS):
            plant = cell_control / "plant.yaml"
            plant.write_bytes(whole_plant_bytes(found))
            ready["plant"] = str(plant)
        say(json.dumps(ready))
        stopped, ended = asyncio.ensure_future(stop.wait()), asyncio.ensure_future(cell.ended())
        try:
            await asyncio.wait((stopped, ended), return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise LinesideError(
                    "sim.ended",
                    f"The simulated {ended.result()} ended by itself.",
                    effect="The cell is gone.",
                    todo="Start it again: lineside simulate cell",
                )
        finally:
            stopped.cancel()
            ended.cancel()
            await asyncio.gather(stopped, ended, return_exceptions=True)


def run_fault(control: Path, device: str, request: dict[str, object]) -> dict[str, Any]:
    """What `lineside simulate fault` does: one request to a device; returns the answer.

    Raises `sim.device`, `sim.away` or `sim.refused`."""
    known = (*PORTS, "scanner")
    if device not in known:
        raise LinesideError(
            "sim.device",
            f"There is no simulated device {device[:40]!r}.",
            effect="No fault was changed.",
            todo=f"Name one of: {', '.join(known)}.",
        )
    return asyncio.run(SimControl(control.resolve() / f"{device}.sock").ask(**request))
