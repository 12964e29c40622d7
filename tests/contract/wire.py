"""Modbus devices on a raw socket, that answer as a test wants: wrongly, late, short or not at all."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import struct
import threading
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from pymodbus.framer.rtu import FramerRTU

from drivers.modbus_link import Link, Lost
from edge.core.plant import Plant
from edge.core.terms import Reading

KILLS = int(os.environ.get("LINESIDE_KILLS", "6"))
"""So often a device dies and comes back in a test; docs/reference/figures.md says what came of a hundred."""
WRONG = 999.0
RIGHT = 5.0


def plant_at(port: int, *, settings: dict[str, object] | None = None, tags: dict[str, object] | None = None) -> Plant:
    common = {"connection": "device", "settle_s": 0.1}
    return Plant.model_validate(
        {
            "plant": "wire",
            "connections": {
                "device": {
                    "driver": "modbus",
                    "settings": {"host": "127.0.0.1", "port": port} if settings is None else settings,
                    "timeout_s": 0.3,
                    "poll_s": 0.02,
                }
            },
            "units": {
                "U": {
                    "class": "thing",
                    "tags": tags or {"x": {**common, "address": "holding 0 float32", "access": "write"}},
                }
            },
        }
    )


class Leak:
    """What a process holds open after each round, and what it grew by from the second round to the last."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, int, int]] = []

    def look(self) -> None:
        links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
        sockets = sum("socket" in str(link.readlink()) for link in links)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        self.rounds.append((sockets, len(asyncio.all_tasks()), resident))

    def judge(self, *, sockets: int, tasks: int, memory: bool = True) -> None:
        """So many more than after the second round may be there. Memory is judged when there were many rounds: that of
        the first ones is what libraries keep."""
        first, last = self.rounds[1], self.rounds[-1]
        assert last[0] <= first[0] + sockets, f"sockets are left open: {self.rounds}"
        assert last[1] <= first[1] + tasks, f"tasks are left: {self.rounds}"
        grown = last[2] - self.rounds[len(self.rounds) // 2][2]
        print(f"{len(self.rounds)} rounds: {last[0] - first[0]} sockets, {last[1] - first[1]} tasks, {grown} bytes")  # noqa: T201  a figure
        assert not memory or len(self.rounds) < 50 or grown < 2**20, f"memory grows: {self.rounds}"


def words(value: float) -> bytes:
    return struct.pack(">f", value)


def frame(transaction: int, body: bytes, unit: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body


def answer(request: bytes, value: float) -> bytes:
    """The right reply to a read of two registers or to a write."""
    transaction, function = struct.unpack(">H", request[:2])[0], request[7]
    return frame(transaction, bytes([function, 4]) + words(value) if function == 3 else request[7:12])


@contextmanager
def serial_cable() -> Iterator[tuple[str, str]]:
    """A serial line: the paths of its two ends."""
    (one, one_end), (other, other_end), (wake, stop) = pty.openpty(), pty.openpty(), os.pipe()
    for end in (one_end, other_end):
        tty.setraw(end)

    def carry() -> None:
        to = {one: other, other: one}
        while True:
            for ready in select.select([one, other, wake], [], [])[0]:
                if ready == wake:
                    return
                os.write(to[ready], os.read(ready, 4096))

    carrying = threading.Thread(target=carry)
    carrying.start()
    try:
        yield os.ttyname(one_end), os.ttyname(other_end)
    finally:
        os.write(stop, b"x")
        carrying.join()
        for fd in (one, one_end, other, other_end, wake, stop):
            os.close(fd)


SerialAnswers = Callable[[bytes, Callable[[bytes], None]], None]


@contextmanager
def serial_devices(answers: SerialAnswers) -> Iterator[str]:
    """Whatever is on a serial line: `answers(request, send)` is called on the loop for each request, without its
    checksum; `send` sends a frame and adds the checksum. Gives the path of the box's end."""
    line, end = pty.openpty()
    tty.setraw(end)
    loop = asyncio.get_running_loop()

    def send(frame: bytes) -> None:
        os.write(line, frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big") if frame else b"")

    def heard() -> None:
        request = os.read(line, 4096)
        assert FramerRTU.check_CRC(request[:-2], int.from_bytes(request[-2:], "big")), request.hex()
        answers(request[:-2], send)

    loop.add_reader(line, heard)
    try:
        yield os.ttyname(end)
    finally:
        loop.remove_reader(line)
        os.close(line)
        os.close(end)


@asynccontextmanager
async def gateway(answers: SerialAnswers) -> AsyncIterator[tuple[int, list[None]]]:
    """The same behind a gateway that passes frames on over TCP, one call for each that arrives: its port, and an entry
    for each connection that was made."""
    made: list[None] = []
    ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(None)
        ends.append(writer)
        while request := await reader.read(256):
            assert FramerRTU.check_CRC(request[:-2], int.from_bytes(request[-2:], "big")), request.hex()
            answers(request[:-2], lambda frame: writer.write(frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], made
    finally:
        server.close()
        for end in ends:
            end.close()


Answers = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def device(answers: Answers) -> AsyncIterator[int]:
    """A raw TCP server: `answers(number of the connection, request, writer)` is called for every request."""
    connections = 0
    writers: list[asyncio.StreamWriter] = []
    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        mine = connections
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        writers.append(writer)
        try:
            while True:
                head = await reader.readexactly(6)
                await answers(mine, head + await reader.readexactly(struct.unpack(">H", head[4:])[0]), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*serving)


Exchange = Callable[[Link, int, bytes, float], Awaitable[bytes]]


def sends_again(exchange: Exchange) -> Exchange:
    """A bug to plant in a link: what was not answered is sent once more."""

    async def again(link: Link, device: int, asked: bytes, timeout_s: float) -> bytes:
        try:
            return await exchange(link, device, asked, timeout_s / 2)
        except Lost:
            return await exchange(link, device, asked, timeout_s / 2)

    return again


def never_wrong(readings: list[Reading]) -> bool:
    return all(reading.value != WRONG for reading in readings)
