"""Starts the real processes of one line on this machine, and ends only those that it started."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO, Final

from ruamel.yaml import YAML

from demo.cable import Cable, cable
from drivers.sim.cell import plant_bytes
from drivers.sim.control import SimControl
from edge.core.errors import LinesideError
from edge.core.terms import Role
from edge.desk_client import connect
from edge.wire import AskStatus, Picture
from hub.config import init_hub
from provisioning.device import NewPerson, init_device

READY_S_MAX: Final = 90.0
END_S_MAX: Final = 15.0
POLL_S: Final = 0.05
DIN: Final = "=A999926123456700"
OTHER_DIN: Final = "=A999926765432100"
PEOPLE: Final = (
    NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), "2580", "B-ANA"),
    NewPerson("ben", "Ben Okafor", (Role.VERIFIER, Role.OPERATOR), "1470", "B-BEN"),
    NewPerson("chi", "Chi Nguyen", (Role.SUPERVISOR, Role.VERIFIER), "3690", "B-CHI"),
    NewPerson("dot", "Dot Larsen", (Role.QUALITY,), "7410", "B-DOT"),
)
"""The demo's people and their PINs: known to everyone, and only in the demo's own folders."""


@dataclass
class Process:
    """One child process and the file its output goes to."""

    name: str
    child: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.child.pid

    async def kill(self) -> None:
        """SIGKILL, as a power cut does it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.child.kill()
        await self.child.wait()

    async def end(self) -> int:
        """SIGTERM and wait; SIGKILL when it does not end. Returns the exit code."""
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END_S_MAX):
                    await self.child.wait()
            except TimeoutError:
                await self.kill()
        assert self.child.returncode is not None
        return self.child.returncode

    def tail(self) -> str:
        """The end of its output, for a person who must know why it ended."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""


@dataclass
class Rig:
    """One box with its cell, a broker and a hub: folders, ports and processes."""

    folder: Path
    speed: float
    cell_speed: float
    seed: int
    processes: dict[str, Process] = field(default_factory=dict)
    broker_port: int = 0
    hub_port: int = 0
    network: Cable | None = None
    mosquitto: str = ""
    """Path of Debian's mosquitto; the demo's own broker when empty."""
    recipe: str = "cart-b1"
    """The shipped recipe that the box has."""
    spawn: Callable[[tuple[str, ...], BinaryIO], Any] | None = None
    """Begins `python ARGUMENTS` with its output to a file, where that is done in another way than by the system."""

    @property
    def box(self) -> Path:
        return self.folder / "box"

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    @property
    def journal(self) -> Path:
        return self.box / "state" / "journal.db"

    @property
    def desk(self) -> Path:
        return self.box / "state" / "desk.sock"

    @property
    def pump(self) -> SimControl:
        return SimControl(self.folder / "cell" / "pump.sock")

    @property
    def reactor(self) -> SimControl:
        return SimControl(self.folder / "cell" / "reactor.sock")

    async def start(self, name: str, *arguments: str, program: str = sys.executable) -> Process:
        """Start `program ARGUMENTS` as the process `name`; its output goes to a log file of that name."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            if self.spawn is not None and program == sys.executable:
                child = self.spawn(arguments, out)
            else:
                child = await asyncio.create_subprocess_exec(
                    program,
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
        process = self.processes[name] = Process(name, child, log)
        return process

    async def first_line(self, process: Process) -> str:
        """The first whole line that the process says."""
        await self.until(lambda: "\n" in process.tail(), f"{process.name} says nothing", process)
        return process.log.read_text().splitlines()[0]

    async def until(
        self, holds: Callable[[], Any], else_what: str, *processes: Process, poll_s: float = POLL_S
    ) -> None:
        """Wait until `holds()` (or what it awaits) is true, at most `READY_S_MAX`; a process that ended is named."""
        deadline_s = time.monotonic() + READY_S_MAX
        while not await _held(holds):
            for process in processes:
                if process.child.returncode is not None:
                    raise _did_not(f"{process.name} ended with {process.child.returncode}: {process.tail()}")
            if time.monotonic() > deadline_s:
                raise _did_not(else_what + "".join(f"\n{p.name}: {p.tail()}" for p in processes))
            await asyncio.sleep(poll_s)

    async def start_cell(self) -> None:
        process = await self.start(
            "cell",
            *("-m", "edge", "simulate", "cell", "--control", str(self.folder / "cell")),
            *("--reactor-port", "0", "--pump-port", "0", "--seed", str(self.seed), "--speed", str(self.cell_speed)),
        )
        ports = json.loads(await self.first_line(process))
        yaml = YAML()
        plant = yaml.load(plant_bytes())
        plant["connections"]["reactor"]["settings"]["endpoint"] = f"opc.tcp://127.0.0.1:{ports['reactor_port']}/"
        plant["connections"]["pump"]["settings"]["port"] = ports["pump_port"]
        with (self.box / "plant.yaml").open("wb") as out:
            yaml.dump(plant, out)

    async def start_broker(self) -> None:
        """The demo's broker or, with `mosquitto`, Debian's; again on the same port after it was ended."""
        if self.mosquitto:
            self.broker_port = self.broker_port or _free_port()
            settings = self.folder / "mosquitto.conf"
            owner = Path("/proc/self").owner()  # started by root it would become another user, who may not read here
            settings.write_text(f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\nuser {owner}\n")
            process = await self.start("broker", "-c", str(settings), program=self.mosquitto)
        else:
            port = ("--port", str(self.broker_port)) if self.broker_port else ()
            process = await self.start("broker", "-m", "demo.broker", *port)
            if not self.broker_port:
                self.broker_port = int(await self.first_line(process))
        await self.until(lambda: _listening(self.broker_port), "the broker does not answer", process)

    async def start_hub(self, *program: str) -> None:
        """Start the hub and wait until it answers; `program` as for the runtime."""
        process = await self.start("hub", *(program or ("-m", "edge")), "hub", "run", "--hub", str(self.hub))
        await self.until(lambda: _listening(self.hub_port), "the hub does not answer", process)

    async def start_runtime(self, *program: str) -> None:
        """Start the runtime and wait until it answers. `program` stands in for `-m edge` in tests that plant a bug."""
        process = await self.start("runtime", *(program or ("-m", "edge")), "edge", "run", "--box", str(self.box))
        await self.until(self.answers, "the runtime is not ready", process)

    async def answers(self) -> bool:
        """True when a runtime answers at the desk."""
        try:
            await self.picture()
        except LinesideError as error:
            if error.code not in {"desk.unreachable", "desk.lost"}:
                raise
            return False
        return True

    async def start_follower(self, *program: str) -> None:
        """Start the follower; `program` as for the runtime."""
        await self.start("follower", *(program or ("-m", "edge")), "edge", "follow", "--box", str(self.box))

    async def picture(self) -> Picture:
        """What a screen would show now."""
        async with connect(self.desk) as client:
            answer = await client.ask(AskStatus(id=os.urandom(8).hex()))
            return Picture.model_validate(answer["picture"])

    async def end(self) -> None:
        """End every process in the order in which nothing is lost: runtime first, then what follows it."""
        for name in ("runtime", "follower", "hub", "broker", "cell"):
            if name in self.processes:
                await self.processes[name].end()

    def lay_out(self) -> None:
        """Make box and hub folders that trust each other, with the shipped recipe and the demo's people."""
        self.folder.mkdir(parents=True, exist_ok=True)
        init_device(self.box, box="BOX-1", people=PEOPLE)
        init_hub(self.hub)
        shutil.copy(self.hub / "hub.pub", self.box / "hub.pub")
        shutil.copy(self.box / "device.pub", self.hub / "devices" / "box-1.pub")
        recipe = files("edge.core.recipe").joinpath(f"shipped/{self.recipe}.yaml")
        (self.box / "recipes" / f"{self.recipe}.yaml").write_bytes(recipe.read_bytes())

    def settle(self, broker_port: int) -> None:
        """Write the settings, once the ports are known. `broker_port` is the box's way to the broker."""
        (self.box / "lineside.toml").write_text(
            f'box = "BOX-1"\nspeed = {self.speed}\nrecipe_approval = "from_folder"\n\n[broker]\nurl = "mqtt://127.0.0.1:{broker_port}"\n\n'
            f'[hub]\npublic_key = "hub.pub"\n\n[mirror]\npath = "{self.folder / "second-medium"}"\n'
        )
        (self.folder / "second-medium").mkdir(exist_ok=True)
        (self.hub / "hub.toml").write_text(
            f'listen = "127.0.0.1:{self.hub_port}"\n\n[broker]\nurl = "mqtt://127.0.0.1:{self.broker_port}"\n'
        )


@asynccontextmanager
async def rig(
    folder: Path,
    *,
    speed: float,
    cell_speed: float = 60.0,
    seed: int = 1,
    with_hub: bool = True,
    recipe: str = "cart-b1",
    spawn: Callable[[tuple[str, ...], BinaryIO], Any] | None = None,
) -> AsyncIterator[Rig]:
    """A whole line, running; on leaving, everything it started is ended."""
    made = Rig(folder, speed, cell_speed, seed, recipe=recipe, spawn=spawn)
    made.lay_out()
    made.hub_port = _free_port()
    try:
        cell = asyncio.create_task(made.start_cell(), name="demo.cell")
        if with_hub:
            await made.start_broker()
            async with cable(made.broker_port) as network:
                made.network = network
                made.settle(network.port)
                await asyncio.gather(cell, made.start_hub())
                await made.start_runtime()
                await made.start_follower()
                yield made
                await made.end()
        else:
            made.settle(9)
            await cell
            await made.start_runtime()
            yield made
    finally:
        await made.end()


async def _held(holds: Callable[[], Any]) -> Any:
    found = holds()
    return await found if inspect.isawaitable(found) else found


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listening(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _did_not(what: str) -> LinesideError:
    return LinesideError(
        "demo.not_ready",
        f"A part of the demo did not come up: {what}",
        effect="The demo ends; nothing outside its own folder was touched.",
        todo="Read the part's log in the demo's folder.",
    )
