"""The simulated label printer: ZPL over TCP, of which it knows `^XA ... ^PQ ... ^XZ`, `~HS` and its count of labels.

It counts the labels that it was sent (`PR-1.label`) and those that came out (`PR-1.printed`). `bad_quality` of
`PR-1.ready` says how it is: paper_out, head_open, ribbon_out, paused, garbage, cut; of `PR-1.label` what happens to the
next label: `paper_out` after its first copy, `dies` after its first copy, `slow` (one copy comes out at each question).
A label to a frozen `PR-1.label` is taken and never comes out.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from drivers.sim.control import Faults, serve_control

READABLE: Final = ("PR-1.ready", "PR-1.waiting")
WRITABLE: Final = ("PR-1.label", "PR-1.printed")
RECEIVED_MAX: Final = 65_536
KEPT_MAX: Final = 100
_COPIES: Final = re.compile(rb"\^PQ([0-9]{1,5})")
_COUNT: Final = b'! U1 getvar "odometer.total_label_count"\r\n'


class SimPrinter:
    """A roll of labels, and what is still to be printed on it."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.printed: list[bytes] = []
        """The labels that came out, the newest."""
        self.out_of_paper = False
        self._left: list[bytes] = []

    def take(self, label: bytes) -> bool:
        """Print a label; False when the printer dies of it."""
        self.faults.counters["PR-1.label"] += 1
        match = _COPIES.search(label)
        copies = [label] * (int(match[1]) if match else 1)
        if "PR-1.label" in self.faults.frozen:
            return True
        match self.faults.bad.get("PR-1.label"):
            case "paper_out":
                self._out(copies[:1])
                self.out_of_paper = True
            case "dies":
                self._out(copies[:1])
                return False
            case "slow":
                self._left = copies
            case _:
                self._out(copies)
        return True

    def status(self) -> bytes:
        """The answer to ~HS."""
        how = self.faults.bad.get("PR-1.ready", "")
        if self._left and not how:
            self._out([self._left.pop()])
        left = 99_999_999 if "PR-1.waiting" in self.faults.bad else len(self._left)
        paper, paused = int(how == "paper_out" or self.out_of_paper), int(how == "paused")
        head, ribbon = int(how == "head_open"), int(how == "ribbon_out")
        data = (
            f"\x02030,{paper},{paused},1245,000,0,0,0,000,0,0,0\x03\r\n"
            f"\x02000,0,{head},{ribbon},0,2,4,0,{left:08},1,000\x03\r\n"
            "\x021234,0\x03\r\n"
        ).encode()
        return {"garbage": data.replace(b",", b";"), "cut": data[:-6]}.get(how, data)

    def count(self) -> bytes:
        """How many labels it has printed in its life."""
        return f'"{self.faults.counters["PR-1.printed"]}"'.encode()

    def _out(self, labels: list[bytes]) -> None:
        self.faults.counters["PR-1.printed"] += len(labels)
        self.printed = [*self.printed, *labels][-KEPT_MAX:]


class _Client(asyncio.Protocol):
    """One connection: what came is done in its order."""

    def __init__(self, printer: SimPrinter, clients: set[asyncio.Transport]) -> None:
        self._printer, self._clients = printer, clients
        self._received = bytearray()
        self._mute = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._clients.add(transport)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  gone is gone
        self._clients.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > RECEIVED_MAX:
            self._transport.abort()
        while self._received and self._next():
            pass

    def _next(self) -> bool:
        """Do the next thing; False when it has not come whole."""
        printer, received = self._printer, self._received
        if received.startswith(b"~HS"):
            del received[:3]
            self._answer(printer.status())
        elif received.startswith(_COUNT):
            del received[: len(_COUNT)]
            self._answer(printer.count())
        elif received.startswith(b"^XA"):
            end = received.find(b"^XZ")
            if end < 0:
                return False
            label = bytes(received[: end + 3])
            del received[: end + 3]
            lives = printer.take(label)
            self._mute = self._mute or printer.faults.drop_this_reply()
            if not lives:
                self._transport.abort()
                return False
        elif any(one.startswith(received) for one in (b"~HS", _COUNT, b"^XA")):
            return False
        else:
            del received[:1]
        return True

    def _answer(self, data: bytes) -> None:
        if not self._mute and not self._printer.faults.silent:
            self._transport.write(data)


@asynccontextmanager
async def printer_on(printer: SimPrinter, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """The printer behind a port until left."""
    clients: set[asyncio.Transport] = set()
    server = await asyncio.get_running_loop().create_server(lambda: _Client(printer, clients), host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for client in clients:
            client.abort()


@asynccontextmanager
async def serve_printer(host: str, port: int, *, seed: int, speed: float, control: Path) -> AsyncIterator[int]:
    """Serve until left; gives the port. A printer is as quick as it is: `seed` and `speed` change nothing."""
    del seed, speed
    printer = SimPrinter(Faults(READABLE, WRITABLE))
    async with printer_on(printer, host, port) as bound, serve_control(control, printer.faults):
        yield bound
