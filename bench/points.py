"""`python -m bench.points`: a Modbus server that costs next to nothing. Every register that is read is another number.

It says its port and ends with its standard input. What is measured against it is the box, not the server.
"""

from __future__ import annotations

import asyncio
import os
import sys

NOISE = os.urandom(1 << 16)


class _Device(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""
        self._at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 12:  # a read: seven bytes of frame, function, address, count
            request, self._received = self._received[:12], self._received[12:]
            size = 2 * int.from_bytes(request[10:12], "big")
            self._at = (self._at + 2 * 251) % (len(NOISE) - 250)
            body = bytes([request[6], request[7], size]) + NOISE[self._at : self._at + size]
            self._transport.write(request[:4] + len(body).to_bytes(2, "big") + body)


async def _serve() -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    server = await loop.create_server(_Device, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
