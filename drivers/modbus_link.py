"""The way to Modbus devices: a TCP connection of one device, or a serial line that several share.

One request is on it at a time, in the order in which they were asked, and none is ever repeated: pymodbus' own retries
send a write up to four times. What arrives is compared with the request byte by byte before anything reads it as
values: same transaction and device, same function, exactly so many bytes; a write must be echoed as it was sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import termios
from collections.abc import Callable
from typing import Any, Final

from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu import ModbusPDU

# What goes wrong on the wire reaches people as health, quality and outcome; the library's log repeats it as tracebacks.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

READS: Final = frozenset({1, 2, 3, 4})
_BIT_READS: Final = frozenset({1, 2})
_MASK_WRITE: Final = 22
_IDENTIFY: Final = 43
ANSWER_MAX_S: Final = 61.0
"""Longer than any connection's time-out."""
EXCEPTIONS: Final = {
    1: "it does not know this function",
    2: "it has no such address",
    3: "it does not accept this value",
    4: "it failed while carrying it out",
    5: "it accepted the request but needs a long time",
    6: "it is busy",
    7: "it cannot carry it out",
    8: "its memory has a parity error",
    10: "the gateway has no path to it",
    11: "it did not answer the gateway",
}


class Lost(Exception):
    """There was no answer, or none that can be trusted. The text is for a person."""


class Rejected(Exception):
    """The device answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"The device refused: {EXCEPTIONS.get(code, 'for a reason of its own')} (exception {code}).")
        self.code = code


def _values_size(asked: bytes) -> int:
    """How many bytes of values the answer to a read carries."""
    count = int.from_bytes(asked[3:5], "big")
    return (count + 7) // 8 if asked[0] in _BIT_READS else 2 * count


def _answer_size(asked: bytes) -> int:
    """How long the answer to a request is, without a frame, when it is no exception."""
    if asked[0] in READS:
        return 2 + _values_size(asked)
    return 7 if asked[0] == _MASK_WRITE else 5


def misfit(asked: bytes, told: bytes) -> str:
    """Why `told` cannot answer `asked` (both without a frame), or "" when it does."""
    if told[:1] == bytes([asked[0] | 0x80]):
        return "" if len(told) == 2 else "An exception with more than its code arrived."
    if told[:1] != asked[:1]:
        return "A reply to another function arrived."
    if asked[0] == _IDENTIFY:
        return "" if _identifies(asked, told) else "What arrived is no identification of a device."
    if asked[0] not in READS:
        same = told == asked[: _answer_size(asked)]
        return "" if same else "The device acknowledged another write than the one sent."
    size = _values_size(asked)
    if len(told) - 2 == size and told[1] == size:
        return ""
    return f"The device answered with {max(len(told) - 2, 0)} bytes of values where {size} were asked for."


def _identifies(asked: bytes, told: bytes) -> bool:
    """Whether it is what was asked for, and its objects fill it exactly."""
    at = 7
    for _ in range(told[6] if len(told) > 6 and told[1:3] == asked[1:3] else 0):
        at += 2 + (told[at + 1] if len(told) > at + 1 else len(told))
    return 7 < at == len(told)


def tcp_answer(request: bytes, received: bytes) -> tuple[bytes, str]:
    """The frame that answers the request, if it is there; or why nothing after this can be believed.

    Both empty while more must come. Replies to other transactions are skipped."""
    while len(received) >= 7:
        size = 6 + int.from_bytes(received[4:6], "big")
        if received[2:4] != b"\0\0" or not 9 <= size <= 260:
            return b"", "What arrived is not Modbus."
        if len(received) < size:
            break
        frame, received = received[:size], received[size:]
        if frame[:2] == request[:2]:
            if frame[6] != request[6]:
                return b"", f"The device {frame[6]} answered in place of {request[6]}."
            why = misfit(request[7:], frame[7:])
            return (b"", why) if why else (frame, "")
    return b"", ""


def serial_answer(request: bytes, received: bytes) -> tuple[bytes, str]:
    """The same for a serial line, where nothing but its device, its form and its checksum names a reply: it must be
    the last that arrived. What else is on the line is skipped, until the time is over."""
    asked = request[1:-2]
    if asked[0] in READS and received.startswith(request):
        return b"", "The serial adapter repeats what is sent (local echo): switch that off at the adapter."
    size = 3 + _answer_size(asked)
    begun = received[:2] == request[:2]
    for frame in (received[-size:], received[-5:]):
        if (
            frame[:1] == request[:1]
            and (not begun or frame == received)
            and not misfit(asked, frame[1:-2])
            and FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))
        ):
            return frame, ""
    return b"", ""


class Link:
    """One open way to devices, given up by `leave`; the last to leave closes it."""

    def __init__(
        self,
        where: str,
        make: Callable[..., AsyncModbusTcpClient | AsyncModbusSerialClient],
        answer_in: Callable[[bytes, bytes], tuple[bytes, str]],
        *,
        silence_s: float = 0.0,
    ) -> None:
        """`silence_s` is kept before every request."""
        self.where = where
        self.lost = asyncio.Event()
        """Set when it ended: it never comes back."""
        self.users = 1
        self._answer_in, self._silence_s = answer_in, silence_s
        self._turn = asyncio.Lock()
        self._up = asyncio.Event()
        self._request = b""
        self._wrong: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._free_at_s = 0.0
        self._client = make(retries=0, reconnect_delay=0, trace_connect=self._connected, trace_packet=self._packet)

    @property
    def transaction(self) -> int:
        """The number of the last request. The next connection goes on from it, so that a late reply of this one has
        a number that is not asked for there."""
        return self._client.ctx.next_tid

    async def open(self, transaction: int = 0) -> bool:
        """Open it unless it is open. False when that is not possible."""
        async with self._turn:
            if self._up.is_set() or self.lost.is_set():
                return not self.lost.is_set()
            try:
                if not await self._client.connect():
                    self.lost.set()
                    return False
                await self._up.wait()
            except termios.error:  # a serial port that cannot be set so: pyserial lets that through
                self.lost.set()
                return False
            except BaseException:
                self.lost.set()
                # not at once: pymodbus has yet to begin with a serial port that it has just opened
                asyncio.get_running_loop().call_soon(self._client.close)
                raise
            self._client.ctx.next_tid = transaction
            return not self.lost.is_set()

    def leave(self) -> None:
        """Give it up."""
        self.users -= 1
        if self.users == 0:
            self._end()

    async def exchange(self, request: ModbusPDU, timeout_s: float) -> ModbusPDU:
        """Send once, and return the answer to exactly this request. Raises Lost or Rejected."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if (wait_s := self._free_at_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self.lost.is_set():
                raise Lost("The connection was closed before anything was sent.")
            ends_s = loop.time() + timeout_s
            try:
                reply = await self._reply(request, timeout_s)
            except BaseException:
                # somebody who was cancelled leaves a reply on its way: nobody else may speak until it came
                self._free_at_s = max(ends_s, loop.time() + self._silence_s)
                raise
            finally:
                self._request = b""
            self._free_at_s = loop.time() + self._silence_s
        if reply.isError():
            raise Rejected(int(reply.exception_code))
        return reply

    async def _reply(self, request: ModbusPDU, timeout_s: float) -> ModbusPDU:
        self._wrong = asyncio.get_running_loop().create_future()
        answer = asyncio.ensure_future(self._execute(request))
        waits: list[asyncio.Future[Any]] = [answer, self._wrong]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if self._wrong.done():
                raise Lost(self._wrong.result())
            raise _silent(timeout_s)
        except ModbusException as error:
            raise _silent(timeout_s) from error
        finally:
            if not answer.done():
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)

    async def _execute(self, request: ModbusPDU) -> ModbusPDU:
        reply: ModbusPDU = await self._client.execute(False, request)
        return reply

    def _packet(self, sending: bool, packet: bytes) -> bytes:
        """What pymodbus sends, or the bytes that it may decode: the whole answer or none of it."""
        if sending:
            self._request = packet
            return packet
        if not self._request:
            return b""
        frame, why = self._answer_in(self._request, packet)
        if why and not self._wrong.done():
            self._wrong.set_result(why)
        if frame or why:
            self._request = b""
        return frame

    def _connected(self, up: bool) -> None:
        if up:
            self._up.set()
        else:
            self._end()

    def _end(self) -> None:
        self.lost.set()
        if not self._wrong.done():
            self._wrong.set_result("The device closed the connection.")
        self._client.close()


def _silent(timeout_s: float) -> Lost:
    return Lost(f"The device did not answer within {timeout_s:g} s.")


def tcp_link(host: str, port: int, timeout_s: float) -> Link:
    """A connection for one device. It must be opened."""

    def make(**how: object) -> AsyncModbusTcpClient:
        return AsyncModbusTcpClient(host, port=port, timeout=timeout_s, **how)  # type: ignore[arg-type]

    return Link(f"{host}:{port}", make, tcp_answer)


class _Line(Link):
    """A serial line and how it is set."""

    how: tuple[int, str, int]


_lines: Final[dict[str, _Line]] = {}
"""The serial lines in use, by their real path: connections of one line share it."""


async def serial_line(path: str, baud: int, parity: str, stop_bits: int) -> Link:
    """The line at this port, opened with the first that wants it. Raises Lost when it cannot be."""
    real, how = os.path.realpath(path), (baud, parity, stop_bits)
    line = _lines.get(real)
    if line is not None and not line.lost.is_set():
        if line.how != how:
            raise Lost(
                f"The serial port {path} is used by another connection with {line.how[0]} baud, parity {line.how[1]}, "
                f"{line.how[2]} stop bits."
            )
        line.users += 1
    else:

        def make(**options: object) -> AsyncModbusSerialClient:
            return AsyncModbusSerialClient(
                path,
                baudrate=baud,
                parity=parity[0].upper(),
                stopbits=stop_bits,
                timeout=ANSWER_MAX_S,
                **options,  # type: ignore[arg-type]
            )

        # silence of three and a half characters ends a frame; above 19200 baud it is always 1.75 ms
        line = _Line(path, make, serial_answer, silence_s=max(0.00175, 3.5 * 11 / baud))
        line.how = how
        _lines[real] = line
    opened = False
    try:
        opened = await line.open()
    finally:
        if not opened:
            line.leave()
    if not opened:
        raise Lost(f"The serial port {path} cannot be opened: {_why_not(path)}.")
    return line


def _why_not(path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110  beside realpath
        return "it is not there"
    if not os.access(path, os.R_OK | os.W_OK):
        return "this account may not use it"
    return "it is no serial port, or in use"
