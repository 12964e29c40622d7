"""A simulated water bath with faults on purpose, as the conformance suite wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

ADDRESS = {"WB-1.temperature": "T", "WB-1.setpoint": "S"}


class Bath:
    """What it shows, and what is wrong with it."""

    def __init__(self) -> None:
        self.writes = 0
        self._shows = {"T": 25.0, "S": 25.0}
        self._frozen, self._failed = False, ""
        self._silent, self._most, self._drops = False, 95.0, 0
        self._talks: set[asyncio.Task[None]] = set()

    def answer(self, line: str) -> str | None:
        """What the bath says; None when it says nothing."""
        if self._silent:
            return None
        if line in self._shows:
            return f"{line} !" if line == self._failed else f"{line} {self._shows[line]:.2f}"
        if not line.startswith("S="):
            return "?"
        self.writes += 1
        if not self._frozen:
            self._shows["S"] = min(float(line[2:]), self._most)
        if self._drops:
            self._drops -= 1
            return None
        return f"S {self._shows['S']:.2f}"

    # What a test does to it

    async def counters(self) -> Mapping[str, int]:
        return {"WB-1.setpoint": self.writes}

    async def drop_replies(self, n: int) -> None:
        self._drops = n

    async def freeze(self, _tag: str) -> None:
        self._frozen = True

    async def bad_quality(self, tag: str) -> None:
        self._failed = ADDRESS[tag]

    async def silent(self) -> None:
        self._silent = True

    async def clamp(self, _tag: str, most: float) -> None:
        self._most = most

    async def clear(self) -> None:
        self._frozen, self._failed, self._silent, self._most, self._drops = False, "", False, 95.0, 0

    # The wire

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[int]:
        """Serve at a free port until left."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            while line := await reader.readline():
                if (answer := self.answer(line.decode().strip())) is not None:
                    writer.write(f"{answer}\r\n".encode())
        except (ConnectionError, asyncio.CancelledError):
            pass  # the box left, or the bath is switched off
        finally:
            self._talks.discard(talk)
            writer.transport.abort()
