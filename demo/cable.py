"""The network between box and broker, as a cable that can be pulled and plugged in again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

CHUNK_BYTES: Final = 65_536


class Cable:
    """Forwards TCP connections to one port while it is plugged in. Pulled, it breaks them and takes no new ones."""

    def __init__(self, to_port: int) -> None:
        self.port = 0
        self.plugged = True
        self._to_port = to_port
        self._ends: set[asyncio.Task[None]] = set()

    def pull(self) -> None:
        """Break every connection; new ones are dropped at once."""
        self.plugged = False
        for end in self._ends:
            end.cancel()

    def plug_in(self) -> None:
        """Let connections through again."""
        self.plugged = True

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either end closes or the cable is pulled."""
        task = asyncio.current_task()
        assert task is not None
        if not self.plugged:
            writer.transport.abort()
            return
        self._ends.add(task)
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pour(reader, far_writer))
                ways.create_task(_pour(far_reader, writer))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass  # a pulled cable breaks what it carries; that is its purpose
        finally:
            self._ends.discard(task)
            for end in (writer, far_writer):
                if end is not None:
                    end.transport.abort()


class _ClosedError(Exception):
    """One end is done: so is the connection."""


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    raise _ClosedError


@asynccontextmanager
async def cable(to_port: int) -> AsyncIterator[Cable]:
    """A plugged-in cable to a port on this machine; `port` is its near end."""
    made = Cable(to_port)
    server = await asyncio.start_server(made.carry, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        made.pull()
        await asyncio.sleep(0)
