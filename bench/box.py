"""A box of the bench: its folder, the device it is connected to, and its real processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import socket
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from edge import wire
from edge.core.terms import Role
from edge.desk_client import DeskClient
from provisioning.device import NewPerson, init_device

POLL_S: Final = 0.05
READY_S_MAX: Final = 60.0
END_S_MAX: Final = 20.0
ANA: Final = NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), "2580", "B-ANA")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in MiB: resident, its share of what is shared, and the most it ever held."""

    resident: float
    share: float
    peak: float


def memory_of(pid: int) -> Memory:
    """Read from /proc."""
    found = {}
    for file in ("status", "smaps_rollup"):
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in {"VmRSS", "VmHWM", "Pss"}:
                found[name] = int(rest.split()[0]) / 1024
    return Memory(found["VmRSS"], found["Pss"], found["VmHWM"])


class Process:
    """A process that the bench started, and how long it took to be ready."""

    def __init__(self, child: asyncio.subprocess.Process, ready_s: float) -> None:
        self.child = child
        self.ready_s = ready_s

    @property
    def memory(self) -> Memory:
        return memory_of(self.child.pid)


@asynccontextmanager
async def running(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> AsyncIterator[Process]:
    """`lineside ARGUMENTS` until left; entered once it has told systemd's protocol that it is ready."""
    address = folder / f"notify-{uuid4().hex[:8]}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox, (folder / "bench.log").open("ab") as log:
        inbox.bind(str(address))
        inbox.setblocking(False)
        begun_s = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "edge",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(address)},
        )
        ready, gone = asyncio.ensure_future(_told_ready(inbox)), asyncio.ensure_future(child.wait())
        try:
            await asyncio.wait({ready, gone}, timeout=READY_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise SystemExit(f"{arguments} was not ready: {(folder / 'bench.log').read_text()[-2000:]}")
            yield Process(child, time.perf_counter() - begun_s)
        finally:
            await _end(child)
            ready.cancel()
            await asyncio.gather(ready, gone, return_exceptions=True)


async def _told_ready(inbox: socket.socket) -> None:
    while b"READY=1" not in await asyncio.get_running_loop().sock_recv(inbox, 4096):
        pass  # a status or a sign of life


@asynccontextmanager
async def screen(desk: Path, sight: str, environment: dict[str, str] | None = None) -> AsyncIterator[Screen]:
    """`python -m ui` in a terminal of 80×24 until left; entered once `sight` was painted."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    begun_s = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ui", "--desk", str(desk)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
    )
    os.close(theirs)
    made = Screen(child, ours)
    try:
        await made.until(sight)
        made.ready_s = time.perf_counter() - begun_s
        yield made
    finally:
        await _end(child)
        asyncio.get_running_loop().remove_reader(ours)
        os.close(ours)


class Screen(Process):
    """The screen in a pseudo-terminal."""

    def __init__(self, child: asyncio.subprocess.Process, terminal: int) -> None:
        super().__init__(child, 0.0)
        self._terminal = terminal
        self._seen = ""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(terminal, self._read)

    def _read(self) -> None:
        try:
            self._seen += os.read(self._terminal, 65536).decode(errors="replace")
        except OSError:  # the program ended
            asyncio.get_running_loop().remove_reader(self._terminal)
        self._changed.set()

    async def until(self, sight: str) -> None:
        """Wait until `sight` has been painted since the last key."""
        async with asyncio.timeout(READY_S_MAX):
            while sight not in self._seen:
                self._changed.clear()
                await self._changed.wait()

    def type(self, keys: str) -> None:
        self._seen = ""
        os.write(self._terminal, keys.encode())


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S_MAX):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


class Device:
    """The process of `bench.device`."""

    def __init__(self, child: asyncio.subprocess.Process, port: int) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        self.port, self.lines, self._input = port, child.stdout, child.stdin

    def begin(self) -> None:
        """Let it raise its channels from now on."""
        self._input.write(b"\n")


@asynccontextmanager
async def device(channels: int) -> AsyncIterator[Device]:
    """The device, serving until left."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.device", str(channels), "1"), stdin=pipe, stdout=pipe
    )
    assert child.stdout is not None
    try:
        yield Device(child, int(await child.stdout.readline()))
    finally:
        await _end(child)


@asynccontextmanager
async def device_process(module: str) -> AsyncIterator[list[int]]:
    """`python -m MODULE` until left: a device that says its ports in one line and ends with its input."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*(sys.executable, "-m", module), stdin=pipe, stdout=pipe)
    assert child.stdout is not None
    try:
        yield [int(port) for port in (await child.stdout.readline()).split()]
    finally:
        await _end(child)


@dataclass(frozen=True, slots=True)
class Box:
    """A box folder, and the socket of its desk: in a folder with a short name, as sockets need it."""

    folder: Path
    desk: Path


def lay_out(folder: Path, state: Path, port: int, *, channels: int, rounds: int) -> Box:
    """A box with Modbus alone: for each channel a unit, and a recipe that answers `rounds` of its rises. Its journal
    lies in `state`."""
    box, desk = folder / "box", folder / "desk.sock"
    init_device(box, box="BOX-1", people=[ANA])
    (box / "lineside.toml").write_text(
        f'box = "BOX-1"\nstate_dir = "{state}"\ndesk_socket = "{desk}"\nrecipe_approval = "from_folder"\n'
    )
    units = "".join(
        f"  U-{channel}:\n    class: cell\n    tags:\n"
        f"      cue: {{connection: plc, address: input {channel} uint16}}\n"
        f"      answer: {{connection: plc, address: holding {channel} uint16, access: write, low: 0, high: 65535}}\n"
        for channel in range(channels)
    )
    (box / "plant.yaml").write_text(
        "plant: bench\nconnections:\n  plc:\n    driver: modbus\n"
        f"    settings: {{host: 127.0.0.1, port: {port}}}\n    poll_s: {POLL_S}\nunits:\n{units}"
    )
    steps = "".join(
        f'          - {{id: "W{n}", phase: wait, title: Cue, tag: cell.cue, limit: {{low: {n}}}, timeout: 1 h}}\n'
        f'          - {{id: "S{n}", phase: set, title: Answer, tag: cell.answer, value: {n}}}\n'
        for n in range(1, rounds + 1)
    )
    (box / "recipes" / "bench.yaml").write_text(
        'recipe: BENCH\nversion: "1.0"\ntitle: Answers\nunits:\n  cell: {class: cell}\nprocedure:\n'
        f"  - unit_procedure: Bench\n    operations:\n      - operation: Answer\n        steps:\n{steps}"
    )
    return Box(box, desk)


async def log_in(client: DeskClient) -> None:
    await client.ask(wire.LogIn(id=uuid4().hex, person=ANA.id, pin=ANA.pin))


async def start_batch(client: DeskClient, batch: str) -> None:
    """Start the one recipe of the box on the next free unit."""
    answer = await client.ask(wire.AskStatus(id=uuid4().hex))
    seal = answer["picture"]["recipes"][0]["seal"]
    await client.ask(wire.StartBatch(id=uuid4().hex, batch=batch, order="BENCH", recipe=seal))
