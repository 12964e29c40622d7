"""Modbus devices on a raw socket, that answer as a test wants: wrongly, late, short or not at all."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from edge.core.plant import Plant
from edge.core.terms import Reading

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


def words(value: float) -> bytes:
    return struct.pack(">f", value)


def frame(transaction: int, body: bytes, unit: int = 1) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(body) + 1, unit) + body


def answer(request: bytes, value: float) -> bytes:
    """The right reply to a read of two registers or to a write."""
    transaction, function = struct.unpack(">H", request[:2])[0], request[7]
    return frame(transaction, bytes([function, 4]) + words(value) if function == 3 else request[7:12])


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


def never_wrong(readings: list[Reading]) -> bool:
    return all(reading.value != WRONG for reading in readings)
