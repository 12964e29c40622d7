"""The `lineside` command: the composition root. Each command imports only what it needs."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge import commissioning, history_command, order_command, recipe_command, record_command
from edge.core.errors import LinesideError
from edge.core.terms import Role
from edge.terminal import (
    EXIT_FOUND,
    EXIT_JOURNAL,
    EXIT_REFUSED,
    AsJson,
    Box,
    HubFolder,
    nothing,
    progress_of_parts,
)

if TYPE_CHECKING:
    from edge.fetch import Tail
    from ui.app import Scanner

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Lineside: a manufacturing execution system in one box beside the line.\n\nTry: lineside demo",
)
edge_app = typer.Typer(no_args_is_help=True, help="The box: its runtime and its follower.")
hub_app = typer.Typer(no_args_is_help=True, help="The hub: one place that holds what many boxes made.")
simulate_app = typer.Typer(no_args_is_help=True, help="Simulated equipment that speaks the real protocols.")
sync_app = typer.Typer(no_args_is_help=True, help="What is saved, copied and at the hub.")
vault_app = typer.Typer(no_args_is_help=True, help="The vault of a box: patient identities, which can be erased.")
order_app = typer.Typer(no_args_is_help=True, help="Orders that wait on a box.")
disk_app = typer.Typer(no_args_is_help=True, help="The disk of a box.")
device_app = typer.Typer(no_args_is_help=True, help="A box's first files.")
equipment_app = typer.Typer(no_args_is_help=True, help="Devices: what they offer, and whether they are believed.")
for name, group in (
    ("edge", edge_app),
    ("hub", hub_app),
    ("simulate", simulate_app),
    ("recipe", recipe_command.app),
    ("journal", record_command.journal_app),
    ("batch", record_command.batch_app),
    ("archive", record_command.archive_app),
    ("views", record_command.views_app),
    ("history", history_command.app),
    ("sync", sync_app),
    ("vault", vault_app),
    ("order", order_app),
    ("disk", disk_app),
    ("device", device_app),
    ("equipment", equipment_app),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line. A refusal is a sentence on stderr and exit code 2, never a traceback."""
    try:
        _asked(sys.argv[1:])()
    except LinesideError as refusal:
        print(refusal, *getattr(refusal, "__notes__", ()), sep="\n", file=sys.stderr)
        sys.exit(EXIT_JOURNAL if refusal.code in {"journal.failed", "hub.commit", "disk.no_room"} else EXIT_REFUSED)


def _asked(words: list[str]) -> typer.Typer:
    """The command line, or only the group that is asked for: making all 80 commands takes a tenth of a second."""
    groups = [group for group in app.registered_groups if words and group.name == words[0]]
    one = copy(app)
    if groups:
        one.registered_groups, one.registered_commands = groups, []
    return one


def _run(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `work(stop)` until it ends; SIGTERM and SIGINT set `stop`, so that leaving is always orderly."""

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await work(stop)

    with _first_refusal():
        asyncio.run(until_stopped())


@contextmanager
def _first_refusal() -> Iterator[None]:
    """Out of a group of errors, let a refusal in words through as itself."""
    try:
        yield
    except* LinesideError as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


# The box ---------------------------------------------------------------------------------------------------------


@edge_app.command("run")
def edge_run(box: Box = Path()) -> None:
    """Run the box: execute recipes, talk to equipment, keep the journal.

    Example: lineside edge run --box /etc/lineside
    """
    from edge import runtime
    from edge.config import read_config

    config = read_config(box)
    gc.freeze()  # what was imported stays: going through all of it again keeps the loop for 50 ms
    _run(lambda stop: runtime.run(config, stop))


@edge_app.command("follow")
def edge_follow(box: Box = Path()) -> None:
    """Follow the journal: send it to the hub, copy it to a second medium. May be stopped at any time.

    Example: lineside edge follow --box /etc/lineside
    """
    from edge.config import read_config
    from edge.follow import follow

    config = read_config(box)
    _run(lambda stop: follow(config, stop))


@app.command("ui")
def ui(
    box: Box = Path(),
    language: Annotated[str, typer.Option(help="Language of the screen: en or de.")] = "en",
    scanner: Annotated[str, typer.Option(help="Serial line of a scanner beside the screen, like /dev/ttyUSB0.")] = "",
    scanner_baud: Annotated[int, typer.Option(help="Its speed.")] = 9600,
    scanner_prefix: Annotated[str, typer.Option(help="What it sends before each code.")] = "",
    scanner_suffix: Annotated[
        str, typer.Option(help="What it sends after each code: CR, LF, CRLF, TAB or ETX.")
    ] = "CR",
) -> None:
    """Open the operator's screen in this terminal.

    Example: lineside ui --box /etc/lineside
    """
    from edge.config import read_config
    from ui.app import run_ui

    run_ui(read_config(box).desk_socket, language, _scanner(scanner, scanner_baud, scanner_prefix, scanner_suffix))


def _scanner(line: str, baud: int, prefix: str, suffix: str) -> Scanner | None:
    """What listens to a scanner at this line; None when there is none."""
    if not line:
        return None
    from pydantic import ValidationError

    from drivers.scanner import ScannerSettings, listen

    try:
        settings = ScannerSettings.model_validate({"line": line, "baud": baud, "prefix": prefix, "suffix": suffix})
    except ValidationError as error:
        raise LinesideError(
            "scanner.settings",
            f"The scanner cannot be used: {error.errors()[0]['msg']}.",
            todo="Give --scanner like /dev/ttyUSB0, and baud, prefix and suffix as the scanner is set.",
        ) from error
    return lambda on_code, on_trouble: listen(settings, on_code, on_trouble)


@device_app.command("init")
def device_init(
    folder: Annotated[Path, typer.Argument(help="The folder to make; it must not exist or be empty.")],
    name: Annotated[str, typer.Option(help="The box's name; the folder's name when left out.")] = "",
) -> None:
    """Make a box folder: device key, settings, plant and directory with comments. Overwrites nothing.

    The first administrator's PIN is asked for, or read as one line from standard input.

    Example: lineside device init /etc/lineside --name BOX-7
    """
    from provisioning.device import init_device_at_terminal

    init_device_at_terminal(folder, name)


@device_app.command("person")
def device_person(
    person: Annotated[str, typer.Argument(help="Their id: lower-case letters, digits, dot, dash, underscore.")],
    name: Annotated[str, typer.Option(help="Their name, as screen and record show it.")],
    role: Annotated[list[Role], typer.Option(help="What they may act as; once for each role.")],
    badge: Annotated[str, typer.Option(help="What the badge reader types; empty without a badge.")] = "",
    box: Box = Path(),
) -> None:
    """Add someone who may log in, from the next start of the runtime on.

    Their PIN is asked for, or read as one line from standard input.

    Example: lineside device person ana --name "Ana Ruiz" --role operator --badge B-1
    """
    from provisioning.device import add_person_at_terminal

    add_person_at_terminal(box, person, name, role, badge)


# Equipment -------------------------------------------------------------------------------------------------------


@equipment_app.command("browse")
def equipment_browse(
    device: Annotated[str, typer.Argument(help="The connection in the plant file.")],
    text: Annotated[str, typer.Argument(help="Only what has this in its name or address.")] = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """What a device offers: addresses as a plant file takes them, names, types, and whether they can be written.

    Connects by itself, also while the box runs. A server whose certificate is not trusted is refused, with what to do.

    Example: lineside equipment browse reactor-plc temp
    """
    from edge.config import read_config
    from provisioning.equipment import found_at, write_found

    found, remark = asyncio.run(found_at(commissioning.station_of(read_config(box)), device, text))
    write_found(found, remark, as_json=as_json)


@equipment_app.command("trust")
def equipment_trust(
    what: Annotated[str, typer.Argument(help="A connection whose certificate was refused, or a file.")],
    fingerprint: Annotated[str, typer.Option(help="The SHA-256 fingerprint that the server itself shows.")] = "",
    issuer: Annotated[bool, typer.Option("--issuer", help="An authority in between: known, not trusted.")] = False,
    box: Box = Path(),
) -> None:
    """Trust a server's or an authority's certificate, after comparing its fingerprint. Also takes revocation lists.

    Example: lineside equipment trust reactor-plc
    """
    from edge.config import read_config
    from provisioning.equipment import trust_at_terminal

    trust_at_terminal(read_config(box), what, fingerprint, issuer=issuer)


@equipment_app.command("certificate")
def equipment_certificate(
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one; the former is kept until it ends.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write it to this file (DER), for the server.")] = None,
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """This box's certificate for OPC UA servers, and what the box trusts and refused. Makes the first.

    Example: lineside equipment certificate --export box.der
    """
    from datetime import UTC, datetime

    from drivers.opcua_trust import BoxClock
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.core.terms import ClockQuality
    from provisioning.equipment import certificate_at_terminal

    clock = BoxClock(datetime.now(UTC), SystemClock().quality() is ClockQuality.SYNCED)
    certificate_at_terminal(read_config(box), clock, renew=renew, export=export, as_json=as_json)


@equipment_app.command("import-mtp")
def equipment_import_mtp(
    file: Annotated[Path, typer.Argument(help="The module's package (.mtp, .zip), or its manifest (.aml).")],
    unit: Annotated[str, typer.Option(help="What the unit is to be called in the plant file.")],
    connection: Annotated[str, typer.Option(help="The connection to the module; added when it is not there.")],
    into: Annotated[Path | None, typer.Option(help="The plant file; the box's own when left out.")] = None,
    unit_class: Annotated[str, typer.Option("--class", help="The unit's class, as recipes ask for it.")] = "",
    endpoint: Annotated[str, typer.Option(help="Where the module is, when its manifest does not say it right.")] = "",
    server: Annotated[str, typer.Option(help="Which of the module's servers, when it has several.")] = "",
    unit_code: Annotated[list[str] | None, typer.Option(help="A unit code that is not known: 1593=mL/min.")] = None,
    limits: Annotated[
        list[str] | None, typer.Option("--range", help="A parameter's range: wash.volume=50..2000.")
    ] = None,
    read: Annotated[bool, typer.Option("--read", help="Ask the running module for its units and ranges.")] = False,
    switch: Annotated[
        bool, typer.Option("--switch", help="Let the box switch the module to automatic and external by itself.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a module's services into the plant file, from its module type package (MTP, VDI/VDE/NAMUR 2658).

    Services, procedures, parameters and report values become a unit that steps of phase service run on. What cannot
    be taken over is said line by line. Comments and lines of the plant file stay as they are.

    Example: lineside equipment import-mtp washer.mtp --unit CP-2 --connection washer --dry-run
    """
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.core.terms import ClockQuality
    from edge.equipment import Home
    from provisioning.modules import Ask, Wanted, import_at_terminal, read_ranges, read_unit_codes

    wanted = Wanted(
        unit, connection, unit_class, endpoint, server, read_unit_codes(unit_code or []), read_ranges(limits or []),
        switch,
    )  # fmt: skip
    ask = None
    if read:
        config, clock = read_config(box), SystemClock()
        home = Home(config.box, config.folder, config.state_dir, lambda: clock.quality() is ClockQuality.SYNCED)
        ask = Ask(home, clock.now_s, clock.utc)
    plant = into if into is not None else read_config(box).plant
    import_at_terminal(file, plant, wanted, ask, dry_run=dry_run, as_json=as_json)


for verb, order_action in (
    ("list", order_command.list_orders),
    ("show", order_command.show_order),
    ("import", order_command.import_order),
    ("cancel", order_command.cancel_order),
):
    order_app.command(verb)(order_action)
for verb, action in commissioning.COMMANDS:
    equipment_app.command(verb)(action)


# The hub ---------------------------------------------------------------------------------------------------------


@hub_app.command("init")
def hub_init(folder: Annotated[Path, typer.Argument(help="The folder to make.")]) -> None:
    """Make a hub folder: key, settings, a place for the boxes' public keys. Overwrites nothing.

    Example: lineside hub init /etc/lineside-hub
    """
    from hub.config import init_hub

    print(init_hub(folder))


@hub_app.command("run")
def hub_run(
    hub: HubFolder = Path(),
    listen: Annotated[str, typer.Option(help="Address and port of the web pages; from hub.toml when empty.")] = "",
) -> None:
    """Run the hub: receive and verify what the boxes made, show it on web pages.

    Example: lineside hub run --hub /etc/lineside-hub --listen 127.0.0.1:8080
    """
    from hub import run_hub

    _run(lambda stop: run_hub(hub, listen, stop))


@hub_app.command("order")
def hub_order(
    file: Annotated[Path, typer.Argument(help="The order, or the proposal to amend a batch.")],
    device: Annotated[str, typer.Option("--for", help="The box, as its key's file is called: NAME of NAME.pub.")],
    out: Annotated[Path | None, typer.Option(help="Write it here, for a stick, instead of sending it.")] = None,
    hub: HubFolder = Path(),
) -> None:
    """Sign an order, or a proposal to amend a batch, for one box, and send it over the broker, where it waits until the
    box is there.

    Example: lineside hub order ORD-17.json --for line-1 --hub /etc/lineside-hub
    """
    from edge.core.orders import ORDER_BYTES_MAX
    from edge.library import read_bounded
    from hub.orders import send_order, sign_order

    signed, topic = sign_order(hub, device, read_bounded(file, ORDER_BYTES_MAX))
    if out is None:
        asyncio.run(send_order(hub, topic, signed))
    else:
        with out.open("xb") as stream:
            stream.write(signed)
    print(f"Signed for {device}: " + (f"{out}" if out else "it is with the broker."))


@hub_app.command("backup")
def hub_backup(
    to: Annotated[Path, typer.Argument(help="The file to write, on another medium than the hub's database.")],
    hub: HubFolder = Path(),
    *,
    as_json: AsJson = False,
) -> None:
    """Copy the hub's database while it runs, verify the copy, and tell the boxes which rows are safe by it.

    Example: lineside hub backup /media/hub/hub.db --hub /etc/lineside-hub
    """
    from dataclasses import asdict

    from hub.backup import back_up
    from hub.config import read_hub

    made = asyncio.run(back_up(read_hub(hub), to, progress_of_parts()))
    if as_json:
        print(json.dumps(asdict(made)))
        return
    print(f"copied and verified: {made.rows:,} rows of {made.boxes:,} boxes, {made.bytes:,} bytes, in {made.path}")
    print("These rows are safe; the boxes are told by the hub when it runs.")


# Simulated equipment -----------------------------------------------------------------------------------------------


@simulate_app.command("cell")
def simulate_cell(
    control: Annotated[Path, typer.Option(help="Folder for the control sockets; made when absent.")],
    reactor_port: Annotated[int, typer.Option(help="OPC UA port of the bioreactor; 0 takes a free one.")] = 4840,
    pump_port: Annotated[
        int, typer.Option(help="Modbus TCP port of pump, balance and incubator; 0 takes a free one.")
    ] = 5020,
    whole: Annotated[bool, typer.Option("--whole", help="Also a scale and a label printer.")] = False,
    scale_port: Annotated[int, typer.Option(help="TCP port of the scale; 0 takes a free one.")] = 4305,
    printer_port: Annotated[int, typer.Option(help="TCP port of the printer; 0 takes a free one.")] = 9100,
    seed: Annotated[int, typer.Option(help="Seed of the noise.")] = 1,
    speed: Annotated[float, typer.Option(help="How much faster than real time the physics runs.")] = 1.0,
) -> None:
    """Run a bioreactor with a cell processor and a filler (OPC UA), and a pump with a balance and an incubator (Modbus
    TCP); with `--whole` a scale (MT-SICS) and a label printer (ZPL) too. Each is a real server in its own process.

    Prints one line of JSON with the ports when all are ready; with `--whole` the plant file that fits them is in the
    control folder. They count every write themselves.

    Example: lineside simulate cell --control ./cell --speed 60 --whole
    """
    from drivers.sim.cell import run_cell

    ports = {"reactor": reactor_port, "pump": pump_port}
    if whole:
        ports |= {"scale": scale_port, "printer": printer_port}
    run_cell(control=control, ports=ports, seed=seed, speed=speed)


@simulate_app.command("mtp")
def simulate_mtp(
    file: Annotated[Path, typer.Argument(help="The file to write: a .mtp (zip), or a plain .aml.")],
    endpoint: Annotated[
        str, typer.Option(help="Where the simulated cell's OPC UA server is.")
    ] = "opc.tcp://127.0.0.1:4840/",
) -> None:
    """Write the module type package (MTP) of the simulated cell processor, as its maker would give it.

    Example: lineside simulate mtp washer.mtp
    """
    from drivers.sim.manifest import write_package

    write_package(file, endpoint)
    print(f"Written to {file}.")


@simulate_app.command("fault")
def simulate_fault(
    control: Annotated[Path, typer.Option(help="The cell's control folder.")],
    device: Annotated[str, typer.Argument(help="reactor, pump, scale or printer.")],
    request: Annotated[str, typer.Argument(help="A JSON object; see the example.")],
) -> None:
    """Make a simulated device misbehave, or ask for its own write counters. Prints its answer as JSON.

    Example: lineside simulate fault --control ./cell pump '{"do": "drop_replies", "n": 1}'
    """
    from drivers.sim.cell import run_fault

    try:
        asked = json.loads(request)
    except json.JSONDecodeError as error:
        raise LinesideError(
            "sim.request", f"The request is not JSON: {error.msg}.", todo='Write for example \'{"do": "counters"}\'.'
        ) from error
    print(json.dumps(run_fault(control, device, asked)))


# Recipes -----------------------------------------------------------------------------------------------------------


# The journal -------------------------------------------------------------------------------------------------------

# Backup and restore ------------------------------------------------------------------------------------------------


@app.command("backup")
def backup(
    out: Annotated[Path, typer.Argument(help="The backup file to make; nothing is overwritten.")],
    box: Box = Path(),
    with_values: Annotated[
        bool,
        typer.Option(
            "--with-values/--without-values",
            help="Process values are most of the file. Without them nothing brings them back: their roots are in the "
            "journal, and after a restore `lineside history verify` says which windows are missing.",
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Back up a box's journal, process values and sealed objects into one signed file, read back and verified.

    The box may run.

    Example: lineside backup /mnt/stick/box-7.tar --box /var/lib/lineside/box
    """
    from edge.backup import back_up
    from edge.config import read_config

    progress = nothing if as_json else progress_of_parts()
    made = back_up(read_config(box), out, with_values=with_values, progress=progress)
    if as_json:
        print(json.dumps({"ok": True, "backup": str(out), **made.as_json()}))
        return
    print(f"{out}: rows 1 to {made.head_seq} and {made.sealed} sealed objects, read back and verified.")
    print("It holds the process values." if made.values else "It holds no process values.")
    if made.trusted:
        print(f"It holds whom the box trusts: {made.trusted} files. The keys of its own certificates stay.")
    if made.vault:
        print("It holds patient identities: whoever has it can tell whose batch was whose. Erasing does not reach it.")
    print(f"Head: row {made.head_seq}, {made.head_hash}")


@app.command("restore")
def restore(
    backup: Annotated[Path, typer.Argument(help="A backup file.")],
    box: Annotated[Path, typer.Argument(help="The box folder, with lineside.toml in it and nothing in its state.")],
    key: Annotated[
        Path | None, typer.Option(help="Public key of the box that made it; device.pub when left out.")
    ] = None,
    mirror: Annotated[
        Path | None, typer.Option(help="Folder of the second medium; the one in lineside.toml when left out.")
    ] = None,
    use_mirror: Annotated[
        bool, typer.Option("--use-mirror/--no-mirror", help="Fetch later rows from the second medium, if there is one.")
    ] = True,
    use_hub: Annotated[
        bool, typer.Option("--use-hub/--no-hub", help="Fetch later rows from the hub, if there is one.")
    ] = True,
    drill: Annotated[
        bool, typer.Option("--drill", help="Only try it: restore into a temporary folder, verify, measure, clean up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into a box folder without state, and the rows behind it that second medium and hub hold.

    All of it is verified before anything is put in place. A drill asks nobody. The next start of the runtime begins a
    new epoch and holds every batch that had not ended.

    Example: lineside restore /mnt/stick/box-7.tar /var/lib/lineside/box
    """
    from dataclasses import asdict

    from edge import backup as backups
    from edge.config import read_config
    from edge.fetch import fetch, sources_of
    from edge.identity import read_public

    public = read_public(key or box / "device.pub")
    progress = nothing if as_json else progress_of_parts()
    if drill:
        tried = backups.drill(backup, public, progress=progress)
        findings = tried.values.findings if tried.values else ()
        if as_json:
            facts = {"seconds": tried.seconds, "new_epoch": tried.epoch, **tried.manifest.as_json()}
            print(json.dumps({"ok": not findings, **facts, "findings": [asdict(finding) for finding in findings]}))
            if findings:
                raise typer.Exit(EXIT_FOUND)
            return
        print(
            f"It can be restored: {tried.manifest.head_seq} rows hold, head as when it was made; {tried.seconds:.1f} s."
        )
        if tried.values is None:
            print("No process values are in it.")
        elif not findings:
            print(f"{tried.values.samples:,} process values in {tried.values.windows:,} windows hold.")
        for finding in findings:
            print(finding)
        print(f"A runtime that starts on it begins epoch {tried.epoch} and holds every batch that had not ended.")
        if findings:
            raise typer.Exit(EXIT_FOUND)
        return
    config = read_config(box)
    sources = sources_of(config, mirror=mirror, use_mirror=use_mirror, use_hub=use_hub)
    tails: list[Tail] = []
    restored = backups.restore(
        backup,
        config.state_dir,
        public,
        complete=lambda journal: tails.append(fetch(journal, public, sources, progress=progress)),
        progress=progress,
    )
    (tail,) = tails
    if as_json:
        facts = {**restored.as_json(), "tail": tail.model_dump()}
        print(json.dumps({"ok": True, "state": str(config.state_dir), **facts}))
        return
    print(f"{config.state_dir}: all {tail.last_seq} rows hold. Head: row {tail.last_seq}, {tail.last_hash}")
    print(
        "Process values came back to the time of the backup."
        if restored.values
        else "No process values were in the backup."
    )
    print("After the next start `lineside history verify` says which windows the rows name and nobody has.")
    print(tail.as_text())
    print(
        "The next start of the runtime begins a new epoch and holds every batch that had not ended, until a supervisor "
        "or quality has compared it and resumes it with a reason."
    )


@app.command("drill")
def daily_drill(box: Box = Path(), as_json: AsJson = False) -> None:
    """Make the day's backup, restore the newest one beside it, verify all of it, compare it with the box, clean up.

    Where backups go is [backup] in lineside.toml. The follower does this each day, and the screen's home shows the
    result; by hand it leaves no row. The box may run. Exit 1 when something does not hold.

    Example: lineside drill --box /var/lib/lineside/box
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.drill import daily

    config = read_config(box)
    if config.backup is None:
        raise LinesideError(
            "drill.no_folder",
            "The settings do not say where backups go.",
            todo='Add [backup] with path = "FOLDER" to lineside.toml, or use `lineside backup` and `lineside restore '
            "--drill`.",
        )
    report = daily(config, config.backup, progress=nothing if as_json else progress_of_parts())
    if as_json:
        print(json.dumps({"ok": not report.found, **asdict(report)}))
    else:
        if report.backup:
            print(f"{report.backup}: rows to {report.head_seq}, restored and looked at; {report.took_s:.1f} s.")
        for sentence in (*report.found, *report.left_out):
            print(sentence)
        print("A box can be restored from it." if not report.found else "Something does not hold.")
    if report.found:
        raise typer.Exit(EXIT_FOUND)


# The vault ---------------------------------------------------------------------------------------------------------


@vault_app.command("list")
def vault_list(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the pseudonyms whose patient identities the vault holds; never the identities. The box may run.

    Example: lineside vault list --box /var/lib/lineside/box
    """
    from edge.config import read_config
    from edge.vault import VAULT, kept

    found = kept(read_config(box).state_dir / VAULT)
    if as_json:
        print(json.dumps({"identities": [line.as_json() for line in found]}))
        return
    for line in found:
        print(f"{line.pseudonym}  since {line.since_utc}  {'a patient' if line.patient else 'another code'}")
    print(f"{len(found)} identities.", file=sys.stderr)


@vault_app.command("find")
def vault_find(box: Box = Path(), as_json: AsJson = False) -> None:
    """Find the pseudonym of a patient identity. The identity is asked for, or read as one line from standard input.

    Example: lineside vault find --box /var/lib/lineside/box
    """
    from edge.config import read_config
    from edge.vault import VAULT, find

    found = find(read_config(box).state_dir / VAULT, _secret("Patient identity"))
    if as_json:
        print(json.dumps({"pseudonym": found}))
    else:
        print(found or "The vault does not hold this identity.")
    if found is None:
        raise typer.Exit(EXIT_FOUND)


@vault_app.command("erase")
def vault_erase(
    pseudonym: Annotated[str, typer.Argument(help="As in the record, for example P-7KQ2-M4XD-9T3H.")],
    person: Annotated[str, typer.Option(help="Who decides it: someone with the role quality or administrator.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept in the journal.")],
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Make the box forget a patient identity. The runtime must run; batch and record stay, with the pseudonym.

    The person's PIN is asked for, or read as one line from standard input. Backups made before still hold the identity.

    Example: lineside vault erase P-7KQ2-M4XD-9T3H --person dot --reason "withdrawn consent" --box /var/lib/lineside/box
    """
    from uuid import uuid4

    from pydantic import ValidationError

    from edge.config import read_config
    from edge.desk_client import connect
    from edge.wire import EraseIdentity, LogIn

    pin = _secret(f"PIN of {person}")
    try:
        log_in = LogIn(id=uuid4().hex, person=person, pin=pin)
        request = EraseIdentity(id=uuid4().hex, pseudonym=pseudonym.strip(), reason=reason)
    except ValidationError as error:
        raise LinesideError(
            "vault.input",
            "The person's id, the PIN, the pseudonym or the reason is too long.",
            todo="Give a reason of at most 2,000 characters, and the others as they are.",
        ) from error

    async def erase() -> None:
        async with connect(read_config(box).desk_socket) as desk:
            await desk.ask(log_in)
            await desk.ask(request)

    asyncio.run(erase())
    if as_json:
        print(json.dumps({"ok": True, "erased": pseudonym.strip(), "reaches_backups": False}))
        return
    print(f"Erased: nothing on this box says any more whose pseudonym {pseudonym.strip()} was.")
    print("Backups that were made before still hold the identity: make a new backup and destroy the earlier ones.")


def _secret(what: str) -> str:
    """One line from standard input, or asked for without showing it: never a word of the command line."""
    import getpass

    return getpass.getpass(f"{what}: ") if sys.stdin.isatty() else sys.stdin.readline(1024).rstrip("\r\n")


@app.command("verify")
def verify(
    paths: Annotated[list[Path], typer.Argument(help="journal.db, a .frames or .lsa file, or a folder of them.")],
    key: Annotated[list[Path], typer.Option(help="The box's device.pub; once for each device.")] = [],  # noqa: B006
    hub_key: Annotated[list[Path], typer.Option(help="The hub's hub.pub; once for each hub.")] = [],  # noqa: B006
    expect_head: Annotated[list[str], typer.Option(help="SEQ:HASH, a row that must be there.")] = [],  # noqa: B006
    receipt: Annotated[list[Path], typer.Option(help="A file with the hub's latest receipt.")] = [],  # noqa: B006
    processes: Annotated[
        int | None, typer.Option(help="How many share the work; else as many as pay, two at most.", min=1, max=64)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify chain, seals, receipts and signatures, and say what was not checked. Exit 1 when something does not hold.

    All files of one journal (journal, copies, archive segments) are also verified together, as one chain.

    The same as the file edge/verify.py by itself, which shares no code with Lineside and runs on any laptop.

    Example: lineside verify state/journal.db --key device.pub --hub-key hub.pub
    """
    from edge.verify import Unreadable, read_trust, run

    try:
        trust = read_trust(list(map(str, key)), list(map(str, hub_key)), expect_head, list(map(str, receipt)))
    except Unreadable as error:
        raise LinesideError(
            "verify.trust",
            f"{error}.",
            effect="Nothing was verified.",
            todo="Copy the file again from the box or the hub; a head stands in a receipt.",
        ) from error
    raise typer.Exit(run(paths, trust, as_json=as_json, processes=processes))


# Batches -----------------------------------------------------------------------------------------------------------


# Archive -----------------------------------------------------------------------------------------------------------


# Views -------------------------------------------------------------------------------------------------------------


@sync_app.command("status")
def sync_status(box: Box = Path(), as_json: AsJson = False) -> None:
    """Show what is saved here, copied to the second medium, and at the hub: rows made = received + pending.

    Example: lineside sync status --box /etc/lineside
    """
    from uuid import uuid4

    from edge.config import read_config
    from edge.desk_client import connect
    from edge.wire import AskStatus, Picture

    async def ask() -> Picture:
        async with connect(read_config(box).desk_socket) as client:
            answer = await client.ask(AskStatus(id=uuid4().hex))
            return Picture.model_validate(answer["picture"])

    strip = asyncio.run(ask()).strip
    if as_json:
        facts = {"rows_made": strip.made, "rows_received": strip.sync.received_seq, "rows_pending": strip.pending}
        print(json.dumps({**facts, "saved": strip.saved, **strip.sync.model_dump()}))
        return
    sync = strip.sync
    print(f"rows made {strip.made} = received by the hub {sync.received_seq} + pending {strip.pending}")
    print(f"saved here up to row {strip.saved}")
    print(f"second medium: {sync.copied}" + (f", up to row {sync.copied_seq}" if sync.copied == "ok" else ""))
    print(f"hub: {sync.hub}" + (f", last receipt {sync.received_utc}" if sync.received_utc else ""))
    if sync.detail:
        print(sync.detail)


# Process values ----------------------------------------------------------------------------------------------------

# The disk ----------------------------------------------------------------------------------------------------------


@disk_app.command("status")
def disk_status(box: Box = Path(), as_json: AsJson = False) -> None:
    """Show what is free, how long it lasts, and what is refused now. Works beside a running box and without one.

    Example: lineside disk status --box /etc/lineside
    """
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.core.room import said
    from edge.disk import read_status

    status = read_status(read_config(box).state_dir, SystemClock().utc())
    if as_json:
        print(json.dumps(status.as_json()))
        return
    print(f"level {status.level}: {said(status.free_bytes)} free, {status.forecast}")
    print(f"ballast: {said(status.ballast_bytes)}")
    print(f"refused now: {', '.join(status.refused) or 'nothing'}")
    for meaning, size_bytes in status.levels.items():
        print(f"{meaning.replace('_', ' ')}: {said(size_bytes)}")


# The demo ----------------------------------------------------------------------------------------------------------


@app.command("demo")
def run_demo(
    headless: Annotated[bool, typer.Option(help="Without a terminal: progress on stderr, one JSON object.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Keep the demo's folders here.")] = None,
) -> None:
    """Three minutes: a cell-therapy batch on simulated equipment, with everything going wrong that can.

    Example: lineside demo
    """
    from demo.tour import run_tour

    raise typer.Exit(run_tour(headless=headless, keep=keep))


if __name__ == "__main__":
    main()
