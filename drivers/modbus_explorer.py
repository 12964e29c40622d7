"""Looking for Modbus devices, TCP or on a serial line, and the ways in which a number may lie in registers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

from drivers.modbus_address import ADDRESS_MAX
from drivers.modbus_link import Link, Lost, Rejected, identification, serial_line, tcp_link
from edge.core.terms import Value
from edge.explorer import Explorer, Say, Seen, Way, Where, shown

PORT: Final = 502
UNITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 247, 255)
"""Unit ids that are tried over TCP."""
LINE_UNITS: Final = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
LINES: Final = ((9600, "none", 1), (19200, "even", 1), (9600, "even", 1), (19200, "none", 1), (38400, "none", 1))
"""How a serial line may be set: baud, parity, stop bits; the usual first."""
LINE_ANSWER_S: Final = 0.25
LINE_IDENTITY_S: Final = 0.5
"""Many devices on serial lines do not answer the question what they are."""
_TABLES: Final = {"holding": 3, "input": 4, "coil": 1, "discrete": 2}
"""Table -> the function that reads it."""
_ANSWERS: Final = "answers"
_ELSEWHERE: Final = "answers, but has nothing at 0"
_REFUSED: Final = {1: "not there", 2: _ELSEWHERE, 3: _ELSEWHERE}
_NOBODY: Final = frozenset({10, 11})
"""By these a gateway says that nobody answers behind it."""
_IDENTIFY: Final = bytes([43, 14, 1, 0])
_OBJECTS: Final = {0: "maker", 1: "product", 2: "version"}


async def probe(where: Where, say: Say) -> list[Seen]:
    """The devices that answer there: a few unit ids, over TCP or on a serial line set in the usual ways."""
    return await (_on_a_line(where, say) if where.line else _over_tcp(where, say))


async def _over_tcp(where: Where, say: Say) -> list[Seen]:
    port = where.port or PORT
    seen: list[Seen] = []
    transaction = 0
    for unit in UNITS:
        say(f"Modbus TCP at {where.host}:{port}, unit id {unit}")
        # a connection for each: what one unit id answers late is no other's answer
        link = tcp_link(where.host, port, where.timeout_s)
        opened = False
        try:
            async with asyncio.timeout(2 * where.timeout_s):
                opened = await link.open(transaction)
            if not opened:
                break
            tables = await _tables(link, unit, where.timeout_s)
            identity = await _identity(link, unit, where.timeout_s) if tables else ()
        except (TimeoutError, OSError):
            break
        finally:
            transaction = link.transaction
            link.leave()
        if tables is None:
            break  # it is no Modbus
        if tables:
            settings: dict[str, Value] = {"host": where.host, "port": port, "device": unit}
            seen.append(Seen(f"A Modbus device, unit id {unit}.", settings, (*tables, *identity)))
    return _told_apart(seen)


def _told_apart(seen: list[Seen]) -> list[Seen]:
    """Without unit ids behind which there is nothing: many servers answer to every one, alike or with a failure."""
    if len(seen) == len(UNITS) and len({one.facts for one in seen}) == 1:
        everyone = ("unit ids", "it answers to every one")
        return [Seen("A Modbus device.", seen[0].settings, (*seen[0].facts, everyone))]
    real = [one for one in seen if any(told in (_ANSWERS, _ELSEWHERE) for _, told in one.facts)]
    return real or seen[:1]


async def _on_a_line(where: Where, say: Say) -> list[Seen]:
    seen: list[Seen] = []
    for baud, parity, stop_bits in LINES:
        try:
            link = await serial_line(where.line, baud, parity, stop_bits)
        except Lost:
            continue  # not every adapter can be set in every way
        try:
            for unit in LINE_UNITS:
                say(f"Modbus on {where.line}, {baud} baud, parity {parity}, device {unit}")
                if tables := await _tables(link, unit, LINE_ANSWER_S):
                    settings: dict[str, Value] = {"line": where.line, "baud": baud, "parity": parity}
                    settings |= {"stop_bits": stop_bits, "device": unit}
                    facts = (*tables, *await _identity(link, unit, LINE_IDENTITY_S))
                    seen.append(Seen(f"A Modbus device on a serial line, number {unit}.", settings, facts))
        finally:
            link.leave()
        if seen:
            break  # a line is set in one way
    return seen


async def _tables(link: Link, unit: int, timeout_s: float) -> tuple[tuple[str, str], ...] | None:
    """Which tables answer; none when the device is silent, None when what answers does not speak Modbus."""
    facts = []
    for table, function in _TABLES.items():
        try:
            await link.exchange(unit, bytes([function, 0, 0, 0, 1]), timeout_s)
        except Rejected as refused:
            if refused.code in _NOBODY:
                return ()
            facts.append((table, _REFUSED.get(refused.code, f"refuses (exception {refused.code})")))
        except Lost as lost:
            if not facts:
                return None if "not Modbus" in str(lost) else ()
            facts.append((table, "silent"))
            if link.lost.is_set():
                break
        else:
            facts.append((table, _ANSWERS))
    return tuple(facts)


async def _identity(link: Link, unit: int, timeout_s: float) -> Sequence[tuple[str, str]]:
    """What the device says of itself (function 43), if it does."""
    try:
        said = identification(await link.exchange(unit, _IDENTIFY, timeout_s))
    except (Lost, Rejected):
        return ()
    return [(what, shown(text.decode("latin-1"))) for number, what in _OBJECTS.items() if (text := said.get(number))]


# Ways of a number -------------------------------------------------------------------------------------------------

_PLACE: Final = re.compile(r"(holding|input) ([0-9]{1,5})")
_ORDERS: Final = ("ABCD", "CDAB", "BADC", "DCBA")
_FACTORS: Final = (0.1, 0.01, 0.001, 10.0, 100.0)
_TYPES: Final = {
    "float32": 2, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "bcd16": 1, "bcd32": 2, "float64": 4, "int64": 4,
    "uint64": 4,
}  # fmt: skip
"""Type -> registers, the usual first."""


def ways(address: str) -> list[Way]:
    """Every way in which a number may begin at a register that is named without a type, like "holding 10"."""
    place = _PLACE.fullmatch(address)
    if place is None:
        return []
    plain = [
        f"{address} {kind} {order}" if order != "ABCD" else f"{address} {kind}"
        for kind, count in _TYPES.items()
        for order in (_ORDERS if count > 1 else ("ABCD", "BADC"))
        if int(place[2]) + count - 1 <= ADDRESS_MAX
    ]
    scaled = [(one, factor) for one in plain if " float" not in one for factor in _FACTORS]
    return [Way(one, one) for one in plain] + [Way(f"{one} x{factor:g}", one, factor) for one, factor in scaled]


EXPLORER: Final = Explorer(probe, ways, slow=True)
