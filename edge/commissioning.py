"""`lineside equipment probe`, `bind`: an engineer connects a device, at a terminal or from a script."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from edge.config import Config
    from provisioning.equipment import Station

Box = Annotated[Path, typer.Option("--box", help="The box folder, with lineside.toml in it.", envvar="LINESIDE_BOX")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]
Who = Annotated[str, typer.Option(help="Who does it; the account's name when left out.")]
ANSWER_CHARS_MAX: Final = 500


def station_of(config: Config) -> Station:
    """This box, as an engineer at it uses its drivers."""
    from edge.clock import SystemClock
    from edge.core.terms import ClockQuality
    from edge.equipment import Home
    from provisioning.equipment import Station

    clock = SystemClock()
    home = Home(config.box, config.folder, config.state_dir, lambda: clock.quality() is ClockQuality.SYNCED)
    return Station(config, home, clock.now_s, clock.utc)


def _say(text: str) -> None:
    """What is being done, on stderr: at a terminal in one line."""
    end = "\x1b[K\r" if sys.stderr.isatty() else "\n"
    print(text, end=end, file=sys.stderr, flush=True)


def _done_saying() -> None:
    if sys.stderr.isatty():
        print("\x1b[K", end="", file=sys.stderr, flush=True)


async def _ask(question: str) -> str:
    def asked() -> str:
        sys.stdout.write(f"{question}: ")
        sys.stdout.flush()
        return sys.stdin.readline(ANSWER_CHARS_MAX).rstrip("\r\n")

    return await asyncio.to_thread(asked)


def _asker(wanted: bool | None) -> Callable[[str], Awaitable[str]] | None:
    return _ask if (sys.stdin.isatty() if wanted is None else wanted) else None


def probe(
    host: Annotated[str, typer.Argument(help="The host to look at, by name or address.")] = "",
    port: Annotated[int, typer.Option(help="Look at this port alone; 0: where each protocol usually is.")] = 0,
    line: Annotated[str, typer.Option(help="Look at this serial line instead of a host.")] = "",
    timeout_s: Annotated[float, typer.Option("--timeout", help="Wait so many seconds for one answer.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Find devices at one host or serial line: OPC UA and its certificate, Modbus and its tables, scales. Only reads.

    Says for each what to type next. No other host is looked at.

    Example: lineside equipment probe 192.0.2.11
    """
    from edge.explorer import Where
    from provisioning import probe as probing

    where = Where(host, port, line, timeout_s)
    found = asyncio.run(probing.probe(where, _say))
    _done_saying()
    probing.write_devices(found, where, as_json=as_json)


def bind(
    device: Annotated[str, typer.Argument(help="The connection: one of the plant file, or a new name.")],
    tag: Annotated[str, typer.Option(help="The tag to make, as UNIT.tag; without it the connection alone.")] = "",
    address: Annotated[
        str, typer.Option(help="Where it is: a node id; or like `holding 10`, with type or without.")
    ] = "",
    driver: Annotated[str, typer.Option(help="Of a new connection: opcua, modbus, scale, or a site's own.")] = "",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of a new connection: KEY=VALUE.")
    ] = None,
    timeout_s: Annotated[float | None, typer.Option("--timeout", help="Of a new connection, in seconds.")] = None,
    poll_s: Annotated[float | None, typer.Option("--poll", help="Of a new connection, in seconds.")] = None,
    fingerprint: Annotated[str, typer.Option(help="The SHA-256 fingerprint that the server itself shows.")] = "",
    reads: Annotated[str, typer.Option(help="What the device shows now, in the tag's unit.")] = "",
    then: Annotated[str, typer.Option(help="What it shows after it has changed: waited for.")] = "",
    within: Annotated[float | None, typer.Option(help="How far off is the same; one step of the last digit.")] = None,
    wait_s: Annotated[float, typer.Option("--wait", help="Wait so many seconds for what the device shows.")] = 30.0,
    chosen: Annotated[str, typer.Option("--as", help="The whole address, where several fit.")] = "",
    type_: Annotated[
        Literal["float", "int", "bool", "text"] | None,
        typer.Option("--type", help="As the device says, when left out."),
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of measure, like degC.")] = None,
    low: Annotated[float | None, typer.Option(help="Lowest sensible value.")] = None,
    high: Annotated[float | None, typer.Option(help="Highest sensible value.")] = None,
    access: Annotated[Literal["read", "write"] | None, typer.Option(help="write for a set-point.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="How far a read-back may be from what was written.")] = None,
    read_back: Annotated[str | None, typer.Option(help="The unit's tag that shows what a write did.")] = None,
    why: Annotated[str | None, typer.Option(help="Why these limits, for the next engineer.")] = None,
    unit_class: Annotated[str, typer.Option("--class", help="Of a new unit: its class, like bioreactor.")] = "",
    who: Who = "",
    asks: Annotated[
        bool | None, typer.Option("--ask/--no-ask", help="Ask for what is left out; at a terminal.")
    ] = None,
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a tag of the plant file out of a place at a device: compared with what the device shows, then read once.

    Where the address does not say how the value lies (`holding 10`), every type, word order and scale is tried against
    two different values that the device shows. Every other line of the file stays as it is. A server that is not
    trusted yet is trusted after its fingerprint was compared.

    Example: lineside equipment bind pump --driver modbus --set host=192.0.2.11 --tag P-1.speed --address "input 0"
    --reads 12.5 --then 20 --unit mL/min --low 0 --high 200 --class pump
    """
    from edge.config import read_config
    from provisioning import bind as binding

    said: dict[str, Any] = {"type": type_, "unit": unit, "access": access, "low": _whole(low), "high": _whole(high)}
    said |= {"tolerance": tolerance, "read_back": read_back, "why": why}
    wanted = binding.Wanted(
        device,
        driver,
        binding.read_settings(settings or []),
        timeout_s,
        poll_s,
        fingerprint,
        tag,
        address,
        chosen,
        reads,
        then,
        within,
        wait_s,
        {key: value for key, value in said.items() if value is not None},
        unit_class,
        who or getpass.getuser(),
    )
    bound = asyncio.run(binding.bind(station_of(read_config(box)), wanted, _asker(asks), _say))
    _done_saying()
    print(json.dumps(bound.as_json()) if as_json else binding.told(bound), end="\n" if as_json else "")


def _whole(number: float | None) -> float | None:
    return int(number) if number is not None and number.is_integer() else number


COMMANDS: Final[tuple[tuple[str, Callable[..., None]], ...]] = (("probe", probe), ("bind", bind))
