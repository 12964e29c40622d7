"""Looking for a scale: one that answers MT-SICS, or sends its weight continuously."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from drivers.scale import read_frame
from drivers.wire import OPEN_ERRORS, Line, Wire, WireLost, serial_wire, tcp_wire
from edge.core.terms import Value
from edge.explorer import Explorer, Say, Seen, Where, shown

PORTS: Final = (4305, 8001, 4001, 10001)
"""Where scales and serial servers usually are."""
LINES: Final = (
    Line(baud=9600, bits=8, parity="none"),
    Line(baud=9600, bits=7, parity="even"),
    Line(baud=9600, bits=8, parity="even"),
    Line(baud=2400, bits=7, parity="even"),
    Line(baud=19200, bits=8, parity="none"),
)
LISTEN_S: Final = 0.6
"""A continuous scale sends several frames in this time."""
_STX: Final = b"\x02"
_FRAME_BYTES: Final = 17
_IDENTITY: Final = re.compile(rb'I4 A "([!#-~ ]{1,40})"')
_LINES_MAX: Final = 20


async def probe(where: Where, say: Say) -> list[Seen]:
    """The scales there."""
    if where.line:
        for line in LINES:
            say(f"a scale on {where.line}, {line.baud} baud, {line.bits} bits, parity {line.parity}")
            settings: dict[str, Value] = {"line": where.line, "baud": line.baud, "bits": line.bits}
            settings["parity"] = line.parity
            if seen := await _at(line.model_copy(update={"line": where.line}), settings, where.timeout_s):
                return [seen]
        return []
    found = []
    for port in (where.port,) if where.port else PORTS:
        say(f"a scale at {where.host}:{port}")
        if seen := await _at((where.host, port), {"host": where.host, "port": port}, where.timeout_s):
            found.append(seen)
    return found


async def _at(place: Line | tuple[str, int], settings: dict[str, Value], timeout_s: float) -> Seen | None:
    try:
        async with asyncio.timeout(timeout_s):
            wire = await (serial_wire(place) if isinstance(place, Line) else tcp_wire(*place))
    except (*OPEN_ERRORS, TimeoutError):
        return None
    try:
        if more := await _listened(wire):
            return Seen("A scale that sends its weight by itself.", settings | more)
        return await _asked(wire, settings, timeout_s)
    except (WireLost, TimeoutError):
        return None
    finally:
        wire.close()


async def _listened(wire: Wire) -> dict[str, Value]:
    """The settings of a continuous scale, once two whole frames came one behind the other."""
    try:
        async with asyncio.timeout(LISTEN_S):
            while not (settings := _framed(bytes(wire.received))):
                await wire.more()
            return settings
    except TimeoutError:
        wire.received.clear()
        return {}


def _framed(heard: bytes) -> dict[str, Value]:
    start = heard.find(_STX)
    while start >= 0:
        for checksum in (False, True):
            length = _FRAME_BYTES + checksum
            frames = [heard[start + n * length : start + (n + 1) * length] for n in range(2)]
            if all(read_frame(frame, checksum=checksum) for frame in frames):
                return {"format": "continuous"} | ({"checksum": True} if checksum else {})
        start = heard.find(_STX, start + 1)
    return {}


async def _asked(wire: Wire, settings: dict[str, Value], timeout_s: float) -> Seen | None:
    async with asyncio.timeout(timeout_s):
        wire.send(b"I4\r\n")
        for _ in range(_LINES_MAX):
            if identity := _IDENTITY.fullmatch(await wire.line()):
                break
        else:
            return None
    number = identity[1].decode("ascii")
    facts = [("serial number", shown(number)), ("shows", await _weight(wire, timeout_s))]
    return Seen("A scale that speaks MT-SICS.", settings | {"serial_number": number}, tuple(facts))


async def _weight(wire: Wire, timeout_s: float) -> str:
    """What it answers when it is asked for its weight, as it says it."""
    try:
        async with asyncio.timeout(timeout_s):
            wire.send(b"SI\r\n")
            return shown((await wire.line()).decode("latin-1"))
    except (WireLost, TimeoutError):
        return "it does not say"


EXPLORER: Final = Explorer(probe)
