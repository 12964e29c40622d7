"""A wire: bytes over TCP or a serial line, bounded, for devices that speak in lines and frames."""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
import tty
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RECEIVED_MAX: Final = 4096
"""So many bytes may wait; no such device sends more without being asked."""
_BAUD: Final = {baud: getattr(termios, f"B{baud}") for baud in (1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200)}
OPEN_ERRORS: Final = (OSError, termios.error)
"""What opening a wire raises when there is nobody."""


class WireLost(Exception):
    """The connection is gone or can no longer be trusted."""


class Line(BaseModel):
    """How a serial line is set."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    line: Annotated[str, Field(max_length=200)] = ""
    baud: int = 9600
    bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1

    @model_validator(mode="after")
    def _known_speed(self) -> Self:
        if self.baud not in _BAUD:
            raise ValueError(f"baud is one of {', '.join(map(str, _BAUD))}")
        return self


class Wire(asyncio.Protocol):
    """Bytes that came and nobody has read yet."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.news = asyncio.Event()
        self.lost = asyncio.Event()
        self._ends: list[asyncio.BaseTransport] = []

    def opened(self, *ends: asyncio.BaseTransport) -> None:
        """What closing closes; bytes are sent through the last."""
        self._ends.extend(ends)

    def send(self, data: bytes) -> None:
        """Send, or let the kernel send as soon as it can."""
        end = self._ends[-1]
        assert isinstance(end, asyncio.WriteTransport)
        end.write(data)

    def close(self) -> None:
        for end in self._ends:
            end.abort() if isinstance(end, asyncio.WriteTransport) else end.close()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) > RECEIVED_MAX:
            self.connection_lost(None)
        self.news.set()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  lost is lost
        self.lost.set()
        self.news.set()

    async def more(self) -> None:
        """Return when more has come. Raises `WireLost`."""
        if self.lost.is_set():
            raise WireLost("The connection ended.")
        self.news.clear()
        await self.news.wait()

    async def line(self) -> bytes:
        """The next line, without its end. Raises `WireLost`."""
        while (end := self.received.find(b"\r\n")) < 0:
            await self.more()
        line = bytes(self.received[:end])
        del self.received[: end + 2]
        return line


def _open_line(settings: Line) -> int:
    """The serial line, set as wanted, for this process alone. Raises OSError or termios.error."""
    descriptor = os.open(settings.line, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        tty.setraw(descriptor)
        modes = termios.tcgetattr(descriptor)
        control = modes[2] & ~(termios.CSIZE | termios.PARENB | termios.PARODD | termios.CSTOPB)
        control |= termios.CLOCAL | termios.CREAD | (termios.CS7 if settings.bits == 7 else termios.CS8)
        if settings.parity != "none":
            control |= termios.PARENB | (termios.PARODD if settings.parity == "odd" else 0)
            modes[0] |= termios.INPCK  # what arrives with a wrong parity arrives as 0, which no reply has
        if settings.stop_bits == 2:
            control |= termios.CSTOPB
        modes[2], modes[4], modes[5] = control, _BAUD[settings.baud], _BAUD[settings.baud]
        termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        termios.tcflush(descriptor, termios.TCIOFLUSH)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def tcp_wire(host: str, port: int) -> Wire:
    """A connection. Raises `OPEN_ERRORS`."""
    transport, wire = await asyncio.get_running_loop().create_connection(Wire, host, port)
    wire.opened(transport)
    return wire


async def serial_wire(settings: Line) -> Wire:
    """A serial line that nobody else has. Raises `OPEN_ERRORS`."""
    loop = asyncio.get_running_loop()
    descriptor = _open_line(settings)
    both = os.fdopen(descriptor, "rb", buffering=0), os.fdopen(os.dup(descriptor), "wb", buffering=0)
    wire = Wire()
    try:
        reading, _ = await loop.connect_read_pipe(lambda: wire, both[0])
        wire.opened(reading)
        writing, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, both[1])
        wire.opened(writing)
    except BaseException:
        wire.close()
        for end in both:
            end.close()
        raise
    return wire
