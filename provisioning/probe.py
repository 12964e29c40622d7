"""Looking for devices at one host or serial line, and saying what to type next."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.core.errors import LinesideError
from edge.equipment import installed_drivers
from edge.explorer import Say, Seen, Where, explorer_of
from provisioning.bind import typed

_HOST: Final = re.compile(r"[A-Za-z0-9._:%\-]{1,253}")
PROBE_S_MAX: Final = 60.0
"""So long a probe takes at most, for each protocol."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device that answered, and by which driver it is reached."""

    driver: str
    seen: Seen

    @property
    def next(self) -> tuple[str, ...]:
        """The commands to type next."""
        settings = " ".join(
            f"--set {shlex.quote(f'{key}={typed(value)}')}" for key, value in self.seen.settings.items()
        )
        connect = f"lineside equipment bind NAME --driver {self.driver} {settings}"
        if self.driver == "modbus":
            return (f'{connect} --tag UNIT.TAG --address "holding 0" --reads VALUE --then VALUE',)
        return (
            connect,
            "lineside equipment browse NAME",
            "lineside equipment bind NAME --tag UNIT.TAG --address ADDRESS",
        )

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        return {
            "driver": self.driver,
            "what": self.seen.what,
            "settings": dict(self.seen.settings),
            "facts": [list(fact) for fact in self.seen.facts],
            "next": list(self.next),
        }


async def probe(where: Where, say: Say, driver: str = "") -> list[Device]:
    """Ask the explorer of every driver, or of one. One after the other: a small device takes one connection at a time.

    Raises `equipment.no_place`, `equipment.no_line`, `equipment.unknown_host`, `equipment.no_explorer`."""
    await _look_up(where)
    found: list[Device] = []
    names = [driver] if driver else installed_drivers()
    offers = {name: explorer for name in names if (explorer := explorer_of(name)) is not None}
    if driver and not offers:
        raise LinesideError(
            "equipment.no_explorer",
            f"There is no driver {driver[:64]!r} that can look for devices.",
            todo=f"Use one of: {', '.join(name for name in installed_drivers() if explorer_of(name))}.",
        )
    for name, explorer in sorted(offers.items(), key=lambda one: (one[1].slow, one[0])):
        if found and (where.port or where.line):
            break  # at one port there is one server
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                found += [Device(name, seen) for seen in await explorer.probe(where, say)]
        except TimeoutError:
            say(f"{name}: given up after {PROBE_S_MAX:g} s")
    return found


async def _look_up(where: Where) -> None:
    if bool(where.host) == bool(where.line) or (where.line and where.port):
        raise LinesideError(
            "equipment.no_place",
            "A probe looks at one place: a host, or a serial line.",
            todo="Give a host, and if you know it --port; or --line /dev/serial/by-id/... alone.",
        )
    if where.line:
        if not Path(where.line).exists():
            raise LinesideError(
                "equipment.no_line",
                f"There is no serial line {where.line[:100]!r}.",
                todo="Look with: ls /dev/serial/by-id",
            )
        return
    if _HOST.fullmatch(where.host) is None:
        raise _unknown_host(where)
    try:
        await asyncio.get_running_loop().getaddrinfo(where.host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _unknown_host(where) from error


def _unknown_host(where: Where) -> LinesideError:
    return LinesideError(
        "equipment.unknown_host",
        f"{where.host[:100]!r} is no host that the network knows.",
        todo="Look at its spelling, or give the address in numbers. A range of addresses is not searched.",
    )


def write_devices(found: list[Device], where: Where, *, as_json: bool) -> None:
    """Say what was found, and what to type next."""
    if as_json:
        sys.stdout.write(json.dumps({"found": [one.as_json() for one in found]}) + "\n")
        return
    sys.stdout.write("".join(f"{line}\n" for one in found for line in _lines(one)))
    if not found:
        port = "" if where.port or where.line else " on the usual ports"
        sys.stdout.write(
            f"Nothing answered at {where.host or where.line}{port}. Is the device switched on, and is the "
            "port right (--port)? A device that serves one client at a time answers nobody else meanwhile.\n"
        )


def _lines(device: Device) -> Iterator[str]:
    yield device.seen.what
    for name, value in device.seen.facts:
        yield f"  {name:<15}{value}"
    for command in device.next:
        yield f"  next: {command}"
