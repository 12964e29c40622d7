"""`lineside equipment drivers`, `check`, `probe`, `bind`, `watch`, `write-test`, `report`, `verify-report`.

An engineer connects a device, and shows that it is what the plant file says; at a terminal or from a script."""

from __future__ import annotations

import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from edge.terminal import AsJson, Box

if TYPE_CHECKING:
    from edge.config import Config
    from provisioning.equipment import Station

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
        print(f"{question}: ", end="", file=sys.stderr, flush=True)  # stdout is the answer of the command
        return sys.stdin.readline(ANSWER_CHARS_MAX).rstrip("\r\n")

    return await asyncio.to_thread(asked)


def _asker(wanted: bool | None) -> Callable[[str], Awaitable[str]] | None:
    return _ask if (sys.stdin.isatty() if wanted is None else wanted) else None


def probe(
    host: Annotated[str, typer.Argument(help="The host to look at, by name or address.")] = "",
    port: Annotated[int, typer.Option(help="Look at this port alone; 0: where each protocol usually is.")] = 0,
    line: Annotated[str, typer.Option(help="Look at this serial line instead of a host.")] = "",
    driver: Annotated[str, typer.Option(help="Look for devices of this driver alone, like modbus.")] = "",
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Wait so many seconds for one answer.", min=0.05, max=60)
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Find devices at one host or serial line: OPC UA and its certificate, Modbus and its tables, scales. Only reads.

    Says for each what to type next. No other host is looked at.

    Example: lineside equipment probe 192.0.2.11
    """
    from edge.explorer import Where
    from provisioning import probe as probing

    where = Where(host, port, line, timeout_s)
    found = asyncio.run(probing.probe(where, _say, driver))
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


def watch(
    tags: Annotated[list[str] | None, typer.Argument(help="Tags as UNIT.tag, or whole units; all when none.")] = None,
    count: Annotated[int, typer.Option(help="End after so many lines; 0: when it is interrupted.", min=0)] = 0,
    box: Box = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")] = False,
) -> None:
    """Live values of the plant file's tags: value, unit, quality, age, and the device's own time. A line a change.

    Connects by itself, also while the box runs. Ends with Ctrl-C.

    Example: lineside equipment watch BR-1 P-1.speed
    """
    from edge.config import read_config
    from provisioning import watching

    async def follow() -> None:
        lines = 0
        seen_ones = watching.watch(station_of(read_config(box)), tags or [])
        async with aclosing(seen_ones):
            async for seen in seen_ones:
                print(seen.as_json() if as_json else seen.line(), flush=True)
                lines += 1
                if lines == count:
                    return

    with suppress(KeyboardInterrupt):  # how it is meant to end
        asyncio.run(follow())


def write_test(
    tag: Annotated[str, typer.Argument(help="The set-point, as UNIT.tag.")],
    value: Annotated[str, typer.Argument(help="What to write, in the tag's unit.")],
    restore: Annotated[bool, typer.Option("--restore", help="Write the former value back afterwards.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: everybody is clear of the equipment.")] = False,
    patience_s: Annotated[float, typer.Option("--patience", help="Look so many seconds longer than settle_s.")] = 10.0,
    who: Who = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Write to a set-point once and say what the device does: did it, late, limited it, ignored it. Asks for a yes.

    The write passes the same guard and the same read-back as in a batch. It is refused while a batch has the unit.
    Exit code 1 when the device did not do it. What came of it is kept for the report.

    Example: lineside equipment write-test BR-1.agitation_setpoint 80 --restore
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.occupied import unoccupied
    from provisioning import write_test as testing

    config = read_config(box)
    work = testing.write_test(
        station_of(config),
        tag,
        value,
        restore=restore,
        who=who or getpass.getuser(),
        patience_s=patience_s,
        consent=None if yes else _ask,
        unoccupied=lambda unit: unoccupied(config, unit),
    )
    tested = asyncio.run(work)
    print(json.dumps(asdict(tested)) if as_json else tested.told(), end="\n" if as_json else "")
    if tested.result not in testing.GOOD:
        raise typer.Exit(1)


def report(
    out: Annotated[Path, typer.Option("--out", help="The file to write (JSON); beside it the same as .md.")],
    who: Who = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Read every tag of the plant and write a report, signed by the box: readings, write tests, certificates.

    Exit code 1 when something is not as the plant file says.

    Example: lineside equipment report --out commissioning-2027-03.json --who "Eva Lind"
    """
    from edge.config import read_config
    from edge.identity import DeviceKey
    from provisioning import report as reporting

    config = read_config(box)
    signer = DeviceKey.load(config.device_key)
    made = asyncio.run(reporting.make_report(station_of(config), signer, who or getpass.getuser()))
    text = reporting.write_report(made, out)
    if as_json:
        print(json.dumps({"good": made.good, "not_as_expected": made.facts["not_as_expected"], "file": str(out)}))
    else:
        print("".join(f"{one}\n" for one in made.facts["not_as_expected"]), end="")
        print(f"{len(made.facts['tags'])} tags were read; {out} and {text} are written, signed by {made.device}.")
    if not made.good:
        raise typer.Exit(1)


def verify_report(
    file: Annotated[Path, typer.Argument(help="The report (.json).")],
    key: Annotated[Path, typer.Option("--key", help="device.pub of the box that made it.")],
) -> None:
    """Verify a commissioning report's signature, and show it for people.

    Example: lineside equipment verify-report commissioning-2027-03.json --key device.pub
    """
    from edge.identity import read_public
    from provisioning import report as reporting

    print(reporting.as_markdown(reporting.read_report(file, read_public(key))), end="")


def drivers(as_json: AsJson = False) -> None:
    """The drivers that a plant file may name, those of the site too: what each can, and what brings it.

    Exit code 1 when one of them cannot be loaded.

    Example: lineside equipment drivers
    """
    from edge.equipment import installed

    found = list(installed())
    if as_json:
        told = [
            {"driver": one.driver, "package": one.package, "can": list(one.capabilities), "trouble": one.trouble}
            for one in found
        ]
        print(json.dumps({"drivers": told}))
    for one in () if as_json else found:
        print(f"{one.driver}: {one.trouble or ', '.join(one.capabilities)}  ({one.package})")
    if any(one.trouble for one in found):
        raise typer.Exit(1)


def check(
    plant: Annotated[Path | None, typer.Argument(help="The plant file; the box's own when left out.")] = None,
    box: Box = Path(),
) -> None:
    """Check a plant file with the drivers that it names: settings, addresses, and whether each driver can what its tags
    want. All that is wrong is told with line and column. Nothing is connected.

    Example: lineside equipment check plant.yaml
    """
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.core.plant import read_plant
    from edge.equipment import Equipment, installed_drivers
    from edge.library import read_bounded

    file, clock = plant or read_config(box).plant, SystemClock()
    on = read_plant(read_bounded(file), str(file))
    Equipment(on, installed_drivers(), now_s=clock.now_s, utc=clock.utc)
    print(f"{file}: {len(on.connections)} connections, {len(on.tags())} tags; nothing is wrong.")


COMMANDS: Final[tuple[tuple[str, Callable[..., None]], ...]] = (
    ("drivers", drivers),
    ("check", check),
    ("probe", probe),
    ("bind", bind),
    ("watch", watch),
    ("write-test", write_test),
    ("report", report),
    ("verify-report", verify_report),
)
