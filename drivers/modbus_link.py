"""The way to Modbus devices: a TCP connection of one device, or a serial line that several share, which may lie behind
a gateway that passes its frames on over TCP.

One request is on it at a time, in the order in which they were asked, and none is ever repeated: of pymodbus only the
transport is used, for its client sends a write up to four times. What arrives is compared with the request byte by byte
before anything reads it as values: same transaction and device, same function, exactly so many bytes; a write must be
echoed as it was sent.
"""

from __future__ import annotations

import asyncio
import logging
import os
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from pymodbus.framer.rtu import FramerRTU
from pymodbus.transport import CommParams, CommType, ModbusProtocol

# What goes wrong on the wire reaches people as health, quality and outcome; the library's log repeats it as tracebacks.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

READS: Final = frozenset({1, 2, 3, 4})
_BIT_READS: Final = frozenset({1, 2})
_MASK_WRITE: Final = 22
_IDENTIFY: Final = 43
TRANSACTIONS: Final = 65_000
RECEIVED_MAX: Final = 4096
"""Bytes that wait for their end; no answer is longer than 260."""
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
    ends = [end for end, _, _ in _objects(told)] if len(told) > 6 and told[1:3] == asked[1:3] else []
    return bool(ends) and ends[-1] == len(told)


def _objects(told: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Of each object of an identification: where it ends (beyond the end when it is cut), its number and bytes."""
    at = 7
    for _ in range(told[6]):
        size = told[at + 1] if len(told) > at + 1 else len(told)
        yield at + 2 + size, told[at] if len(told) > at else 0, told[at + 2 : at + 2 + size]
        at += 2 + size


def identification(told: bytes) -> dict[int, bytes]:
    """What an answer to function 43 says, by the number of the object."""
    return {number: text for _, number, text in _objects(told)}


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
    size = len(received) if asked[0] == _IDENTIFY else 3 + _answer_size(asked)
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


@dataclass(frozen=True, slots=True)
class _Framing:
    """How requests are packed on the wire, and how an answer is found and unpacked."""

    packed: Callable[[int, int, bytes], bytes]
    """Of transaction, device and request."""
    answer_in: Callable[[bytes, bytes], tuple[bytes, str]]
    inside: slice


def _tcp_packed(transaction: int, device: int, asked: bytes) -> bytes:
    return transaction.to_bytes(2, "big") + (len(asked) + 1).to_bytes(4, "big") + bytes([device]) + asked


def _serial_packed(_transaction: int, device: int, asked: bytes) -> bytes:
    frame = bytes([device]) + asked
    return frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")


_TCP: Final = _Framing(_tcp_packed, tcp_answer, slice(7, None))
_SERIAL: Final = _Framing(_serial_packed, serial_answer, slice(1, -2))


class Link(ModbusProtocol):
    """One open way to devices, given up by `leave`; the last to leave closes it."""

    def __init__(self, params: CommParams, framing: _Framing, *, silence_s: float = 0.0) -> None:
        """`silence_s` is kept before every request."""
        super().__init__(params, is_server=False)
        self.max_buffer_size = RECEIVED_MAX
        self.lost = asyncio.Event()
        """Set when it ended: it never comes back."""
        self.users = 1
        self.how: tuple[object, ...] = ()
        """What all who share it must set alike."""
        self.transaction = 0
        """The number of the last request. The next connection goes on from it, so that a late reply of this one has
        a number that is not asked for there."""
        self._framing, self._silence_s = framing, silence_s
        self._turn = asyncio.Lock()
        self._up = asyncio.Event()
        self._request = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._free_at_s = 0.0

    async def open(self, transaction: int = 0) -> bool:
        """Open it unless it is open. False when that is not possible."""
        async with self._turn:
            if self._up.is_set() or self.lost.is_set():
                return not self.lost.is_set()
            try:
                if self.comm_params.comm_type is CommType.SERIAL:
                    # not by `connect`, whose task would keep a port that failed half way open with its exception
                    self.transport, _ = await self.call_create()
                elif not await self.connect():
                    self.lost.set()
                    return False
                await self._up.wait()
            except (OSError, termios.error):  # also a serial port that cannot be set so
                self.lost.set()
                return False
            except BaseException:
                self.lost.set()
                # not at once: pymodbus has yet to begin with a serial port that it has just opened
                asyncio.get_running_loop().call_soon(self.close)
                raise
            self.transaction = transaction
            return not self.lost.is_set()

    def leave(self) -> None:
        """Give it up."""
        self.users -= 1
        if self.users == 0:
            self._end()

    async def exchange(self, device: int, asked: bytes, timeout_s: float) -> bytes:
        """Send once, and return the answer to exactly this request; both without a frame. Raises Lost or Rejected."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if (wait_s := self._free_at_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if self.lost.is_set():
                raise Lost("The connection was closed before anything was sent.")
            ends_s = loop.time() + timeout_s
            answer = self._answer = loop.create_future()
            over = loop.call_at(ends_s, _fail, answer, f"The device did not answer within {timeout_s:g} s.")
            self.transaction = self.transaction % TRANSACTIONS + 1
            self._request = self._framing.packed(self.transaction, device, asked)
            try:
                self.send(self._request)
                told: bytes = await answer
            except BaseException:
                # somebody who was cancelled leaves a reply on its way: nobody else may speak until it came
                self._free_at_s = max(ends_s, loop.time() + self._silence_s)
                raise
            finally:
                over.cancel()
                self._answer = None
                if answer.done() and not answer.cancelled():
                    answer.exception()  # seen, also by somebody who was cancelled at that moment
            self._free_at_s = loop.time() + self._silence_s
        if told[0] & 0x80:
            raise Rejected(told[1])
        return told

    # What pymodbus' transport tells --------------------------------------------------------------------------

    def callback_new_connection(self) -> ModbusProtocol:
        """Nobody connects to a client."""
        raise NotImplementedError

    def callback_connected(self) -> None:
        """It is open."""
        self._up.set()

    def callback_disconnected(self, exc: Exception | None) -> None:  # noqa: ARG002  what is known of it says no more
        """It was closed from the other side, or the port is gone."""
        self._end()

    def callback_data(self, data: bytes, addr: object = None) -> int:  # noqa: ARG002  of datagrams
        """All that came since the request was sent; how much of it is done with."""
        answer = self._answer
        if answer is None or answer.done():
            return len(data)
        frame, why = self._framing.answer_in(self._request, data)
        if why:
            _fail(answer, why)
        elif frame:
            answer.set_result(frame[self._framing.inside])
        else:
            return 0
        return len(data)

    def _end(self) -> None:
        self.lost.set()
        self._up.set()  # whoever waits for it sees that it is lost
        if self._answer is not None:
            _fail(self._answer, "The device closed the connection.")
        self.close()


def _fail(answer: asyncio.Future[bytes], why: str) -> None:
    if not answer.done():
        answer.set_exception(Lost(why))


def tcp_link(host: str, port: int, timeout_s: float) -> Link:
    """A connection for one device. It must be opened."""
    return Link(_over_tcp(host, port, timeout_s), _TCP)


def _over_tcp(host: str, port: int, timeout_s: float) -> CommParams:
    return CommParams(comm_name="modbus", comm_type=CommType.TCP, host=host, port=port, timeout_connect=timeout_s)


_lines: Final[dict[str, Link]] = {}
"""The serial lines in use, by their real path or the gateway: connections of one line share it."""


async def gateway_line(host: str, port: int, timeout_s: float) -> Link:
    """The serial line behind this gateway, opened with the first that wants it. Raises Lost when it cannot be."""
    where = f"{host}:{port}"
    line = _shared(where, (), lambda: Link(_over_tcp(host, port, timeout_s), _SERIAL))
    if not await _opened(line):
        raise Lost(f"No connection to {where}.")
    return line


async def serial_line(path: str, baud: int, parity: str, stop_bits: int) -> Link:
    """The line at this port, opened with the first that wants it. Raises Lost when it cannot be."""
    params = CommParams(
        comm_name="modbus",
        comm_type=CommType.SERIAL,
        host=path,
        baudrate=baud,
        bytesize=8,
        parity=parity[0].upper(),
        stopbits=stop_bits,
    )
    # silence of three and a half characters ends a frame; above 19200 baud it is always 1.75 ms
    silence_s = max(0.00175, 3.5 * 11 / baud)
    how = baud, parity, stop_bits
    line = _shared(os.path.realpath(path), how, lambda: Link(params, _SERIAL, silence_s=silence_s))
    if line.how != how:
        line.leave()
        raise Lost(
            f"The serial port {path} is used by another connection with {line.how[0]} baud, parity {line.how[1]}, "
            f"{line.how[2]} stop bits."
        )
    if not await _opened(line):
        raise Lost(f"The serial port {path} cannot be opened: {_why_not(path)}.")
    return line


def _shared(where: str, how: tuple[object, ...], make: Callable[[], Link]) -> Link:
    """The line there, with one user more; a new one is set as given."""
    line = _lines.get(where)
    if line is None or line.lost.is_set():
        line = _lines[where] = make()
        line.how = how
    else:
        line.users += 1
    return line


async def _opened(line: Link) -> bool:
    opened = False
    try:
        opened = await line.open()
    finally:
        if not opened:
            line.leave()
    return opened


def _why_not(path: str) -> str:
    if not os.path.exists(path):  # noqa: PTH110  beside realpath
        return "it is not there"
    if not os.access(path, os.R_OK | os.W_OK):
        return "this account may not use it"
    return "it is no serial port, or in use"
