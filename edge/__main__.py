"""The `lineside` command: the composition root. Each command imports only what it needs."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from edge import commissioning, order_command, recipe_life, recipe_site
from edge.core.errors import LinesideError
from edge.core.terms import Role

EXIT_REFUSED: Final = 2
"""Bad input: nothing was started and nothing was changed."""
EXIT_FOUND: Final = 1
"""A check found something that does not hold."""
EXIT_JOURNAL: Final = 74
"""A commit failed, or there was no room for one: the process ended itself, so that nothing is shown that is not saved.
It may be started again."""

if TYPE_CHECKING:
    from edge.config import Archive, Config
    from edge.core.review import AsBuilt
    from edge.fetch import Tail
    from edge.journal import ShownRow
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
recipe_app = typer.Typer(no_args_is_help=True, help="Recipes.")
journal_app = typer.Typer(no_args_is_help=True, help="The journal of a box.")
batch_app = typer.Typer(no_args_is_help=True, help="Batches and their as-built records.")
archive_app = typer.Typer(no_args_is_help=True, help="The archive: old rows of the journal, in signed segments.")
views_app = typer.Typer(no_args_is_help=True, help="The views: what the journal says, for search and SQLite tools.")
history_app = typer.Typer(no_args_is_help=True, help="Process values: what the equipment showed, over time.")
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
    ("recipe", recipe_app),
    ("journal", journal_app),
    ("batch", batch_app),
    ("archive", archive_app),
    ("views", views_app),
    ("history", history_app),
    ("sync", sync_app),
    ("vault", vault_app),
    ("order", order_app),
    ("disk", disk_app),
    ("device", device_app),
    ("equipment", equipment_app),
):
    app.add_typer(group, name=name)

Box = Annotated[Path, typer.Option("--box", help="The box folder, with lineside.toml in it.", envvar="LINESIDE_BOX")]
HubFolder = Annotated[Path, typer.Option("--hub", help="The hub folder, with hub.toml in it.", envvar="LINESIDE_HUB")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]


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
    file: Annotated[Path, typer.Argument(help="The order: JSON, or the text of its code.")],
    device: Annotated[str, typer.Option("--for", help="The box, as its key's file is called: NAME of NAME.pub.")],
    out: Annotated[Path | None, typer.Option(help="Write it here, for a stick, instead of sending it.")] = None,
    hub: HubFolder = Path(),
) -> None:
    """Sign an order for one box, and send it over the broker, where it waits until the box is there.

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

    made = asyncio.run(back_up(read_hub(hub), to, _progress_of_parts()))
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


@recipe_app.command("schema")
def recipe_schema(
    operation: Annotated[bool, typer.Option("--operation", help="Of an operation of the library instead.")] = False,
    site: Annotated[bool, typer.Option("--site", help="Of a site file instead.")] = False,
) -> None:
    """Print the JSON Schema of recipe files: editors complete and check with it while a recipe is written.

    Example: lineside recipe schema > lineside-recipe.schema.json
    """
    from edge.core.recipe.model import LibraryOperation, Recipe
    from edge.core.recipe.site import Site

    schema = (Site if site else LibraryOperation if operation else Recipe).model_json_schema(by_alias=True)
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2))


@recipe_app.command("check")
def recipe_check(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    plant: Annotated[Path | None, typer.Option(help="Also check it against this plant file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a recipe, or an operation of the library: everything wrong is shown in one run, with its line and a hint.

    Remarks say what stops nothing but looks like an oversight. Exit code 2 when something is wrong.

    Example: lineside recipe check cart-b1.yaml --plant plant.yaml
    """
    from edge.library import Checked, check_draft, read_bounded

    try:
        of_plant = (read_bounded(plant), str(plant)) if plant else None
        checked = check_draft(read_bounded(file), str(file), of_plant, file)
    except LinesideError as unreadable:
        checked = Checked(None, is_operation=False, refusal=unreadable, remarks=())
    if as_json:
        print(json.dumps(checked.as_json()))
    elif checked.refusal is None:
        print(checked)
    else:
        for remark in checked.remarks:
            checked.refusal.add_note(f"remark: {remark}")
        raise checked.refusal
    if checked.refusal is not None:
        raise typer.Exit(EXIT_REFUSED)


@recipe_app.command("attach")
def recipe_attach(
    recipe: Annotated[Path, typer.Argument(help="The recipe file.")],
    file: Annotated[Path, typer.Argument(help="A text, picture, video or PDF.")],
    step: Annotated[str, typer.Option(help="The id of the step; the whole recipe when absent.")] = "",
    title: Annotated[str, typer.Option(help="What the operator reads; the file's name when absent.")] = "",
) -> None:
    """Copy a file into the folder `attachments` beside a recipe, and say which lines name it there.

    The recipe file is not changed: write the lines where they belong.

    Example: lineside recipe attach cart-b1.yaml welding.png --step 035 --title "How to weld"
    """
    from edge import attachments
    from edge.core.document import closest
    from edge.library import read_recipe_file

    steps = read_recipe_file(recipe).recipe.steps()
    if step and step not in steps:
        raise LinesideError(
            "attachment.step", f"The recipe has no step {step[:40]!r}.", todo=closest(step, sorted(steps))
        )
    content = attachments.attach(recipe, file)
    told = f", title: {json.dumps(title, ensure_ascii=False)}" if title else ""
    print(f"Write this into {f'step {step}' if step else 'the recipe, before `procedure`'}:\n")
    print(f"attachments:\n  - {{file: {file.name}, sha256: {content}{told}}}")


@recipe_app.command("attachment")
def recipe_attachment(
    content: Annotated[str, typer.Argument(help="The SHA-256 of the attachment, or how it begins (8 digits or more).")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    box: Box = Path(),
) -> None:
    """Write an attachment out of a box's library, to open it on another computer.

    Example: lineside recipe attachment 3f7a9c0d12 --out welding.png --box /var/lib/lineside
    """
    from edge.config import read_config
    from edge.library import Library, write_whole

    library = Library(read_config(box).state_dir / "library")
    found = [name for kind, name in library.names() if kind == "attachment" and name.startswith(content)]
    if len(content) < 8 or len(found) != 1:
        raise LinesideError(
            "attachment.which",
            f"{len(found)} attachments in this box's library begin with {content[:64]!r}.",
            todo="Give the SHA-256 that the step shows, at least its first eight digits.",
        )
    write_whole(out, library.attachment(found[0]).read_bytes())
    print(f"{out}: SHA-256 {found[0]}, verified.")


@recipe_app.command("rehearse")
def recipe_rehearse(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    plant: Annotated[Path | None, typer.Option(help="The plant file; that of the simulated cell when absent.")] = None,
    speed: Annotated[float, typer.Option(min=1, max=100_000, help="Durations pass so many times as fast.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Also write the report here, as JSON, for the approval.")] = None,
    as_json: AsJson = False,
) -> None:
    """Carry out a whole recipe against the simulated cell on virtual time: every branch, limit, time-out and refusal.

    Days pass in seconds. Exit code 1 when something was not seen or a batch did not end as it should.

    Example: lineside recipe rehearse cart-b1.yaml --out rehearsal.json
    """
    import edge
    import edge.core.rehearse as rehearsal
    from drivers import sim
    from drivers.sim.physics import VirtualCell
    from edge.core.plant import read_plant
    from edge.library import read_bounded, read_checked_recipe, write_whole

    plant_file = plant or Path(sim.__file__).with_name("plant.yaml")
    on = read_plant(read_bounded(plant_file), str(plant_file))
    sealed = read_checked_recipe(file, on)
    report = rehearsal.rehearse(
        sealed.recipe,
        sealed.seal,
        on,
        VirtualCell(on),
        lineside=edge.__version__,
        speed=speed,
        progress=_nothing if as_json else _progress_of_parts(),
    )
    as_data = json.dumps(rehearsal.as_json(report), ensure_ascii=False, indent=1)
    if out is not None:
        write_whole(out, as_data.encode())
    print(as_data if as_json else rehearsal.as_text(report))
    if not report.ok:
        raise typer.Exit(EXIT_FOUND)


@recipe_app.command("draw")
def recipe_draw(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    svg: Annotated[
        Path | None, typer.Option(help="Write the chart here, A4 sheets; more than one are numbered.")
    ] = None,
    batch: Annotated[str, typer.Option(help="Lay over it what this batch did; with --box.")] = "",
    box: Box = Path(),
    width: Annotated[int, typer.Option(help="Columns of the text.", min=40, max=1000)] = 80,
) -> None:
    """Draw a recipe or an operation as a procedure function chart: as text here, or as SVG for the printer.

    Example: lineside recipe draw cart-b1.yaml --svg cart-b1.svg
    """
    from edge.core.recipe.draw import as_svg, as_terminal, chart
    from edge.library import read_drafted_file

    recipe = read_drafted_file(file)[0].recipe
    record = _record(batch, box) if batch else None
    if svg is None:
        print(as_terminal(recipe, record, width))
        return
    sheets = as_svg(chart(recipe, record))
    for number, sheet in enumerate(sheets, 1):
        path = svg if len(sheets) == 1 else svg.with_stem(f"{svg.stem}-{number}")
        try:
            path.write_text(sheet, encoding="utf-8")
        except OSError as error:
            raise LinesideError(
                "recipe.cannot_write",
                f"The chart cannot be written to {path}: {error.strerror or error}.",
                todo="Give --svg a file in a folder that can be written to.",
            ) from error
        print(path)


@recipe_app.command("export")
def recipe_export(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path, typer.Option(help="The file to make; nothing is overwritten.")],
    form: Annotated[Literal["batchml"], typer.Option("--format", help="BatchML of B2MML V0700.")] = "batchml",
    kind: Annotated[
        Literal["master", "general"], typer.Option(help="As a master recipe, or as a general recipe of ISA-88 part 3.")
    ] = "master",
    box: Annotated[
        Path | None, typer.Option(help="A box folder: a master recipe goes with the signatures that its record has.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a recipe for another system: BatchML that is valid against the published schema and loses nothing.

    Example: lineside recipe export cart-b1.yaml --format batchml --out cart-b1.xml
    """
    from edge.config import read_config
    from edge.endorsed import endorsed_at
    from edge.exchange import Approved, export
    from edge.library import read_checked_recipe
    from edge.pack import write_exchanged

    sealed = read_checked_recipe(file, None)
    signed = endorsed_at(read_config(box), {sealed.seal}) if box else []
    approvals = [Approved(one.person, one.utc, one.text(), one.model_dump_json()) for one in signed]
    write_exchanged(out, export(sealed.recipe, kind, approvals))
    if as_json:
        facts = {"ok": True, "out": str(out), "format": form, "kind": kind}
        print(json.dumps({**facts, "recipe": sealed.recipe.recipe, "seal": sealed.seal}))
    else:
        print(f"{sealed.recipe.recipe} {sealed.recipe.version} as a BatchML {kind} recipe: {out}. Seal {sealed.seal}")


@recipe_app.command("import")
def recipe_import(
    file: Annotated[Path, typer.Argument(help="A BatchML or B2MML file.")],
    out: Annotated[
        Path | None, typer.Option(help="The draft to make; beside here under the file's name when left out.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="The id of the recipe, when the file holds several.")] = "",
    as_json: AsJson = False,
) -> None:
    """Bring a recipe of another system in as a draft, and report what could not be mapped.

    What Lineside exported comes back as it was, with its seal. Nothing that comes in is approved.

    Example: lineside recipe import from-plant-b.xml --out draft.yaml
    """
    from edge.endorsed import read_endorsed
    from edge.exchange import read
    from edge.pack import read_exchanged, write_exchanged

    draft = read(read_exchanged(file), file.name, recipe)
    target = out or Path(f"{file.stem}.yaml")
    write_exchanged(target, draft.text.encode())
    if as_json:
        print(json.dumps({"ok": True, "out": str(target), **draft.as_json()}))
        return
    print(f"{target}: {draft.origin}. " + ("It is as it was exported." if draft.exact else "A draft: look through it."))
    for remark in draft.remarks:
        print(f"remark: {remark}")
    for approved in draft.approvals:
        attested = read_endorsed(f"[{approved.facts}]".encode())
        says = attested[0].text() if attested else f"NOT ATTESTED: {approved.says[:500]}"
        print(f"signed where it comes from, an approval of nothing here: {says}")
    for one in draft.unmapped:
        print(f"not mapped: {one.path}\n  what: {one.what}\n  why:  {one.why}")
    if draft.unmapped:
        print(f"{len(draft.unmapped)} things to look at. Then: lineside recipe check {target}")


@recipe_app.command("pack")
def recipe_pack(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    out: Annotated[Path, typer.Option(help="The pack to make; nothing is overwritten.")],
    key: Annotated[Path, typer.Option(help="The private key of the device that signs it.")] = Path("device.key"),
    rehearsal: Annotated[
        Path | None, typer.Option(help="The report of its rehearsal (lineside recipe rehearse --out).")
    ] = None,
    earlier: Annotated[list[Path] | None, typer.Option(help="An earlier version's file; once for each.")] = None,
    box: Annotated[
        Path | None, typer.Option(help="A box folder: the signatures that its record has on the recipe go along.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a tech-transfer pack: recipe, BatchML, whys, history and rehearsal in one signed file for a second site.

    Example: lineside recipe pack cart-b1.yaml --out cart-b1.pack --rehearsal rehearsal.json --key device.key
    """
    from edge.config import read_config
    from edge.endorsed import endorsed_at
    from edge.identity import DeviceKey
    from edge.pack import make_pack

    signer, config = DeviceKey.load(key), read_config(box) if box else None
    made = make_pack(
        file,
        out,
        signer,
        rehearsal=rehearsal,
        earlier=earlier or (),
        endorsed=lambda seals: endorsed_at(config, seals) if config else (),
    )
    if as_json:
        print(json.dumps({"ok": True, "out": str(out), **made.model_dump()}))
    else:
        print(f"{out}: {made.recipe} {made.version}, {len(made.files)} files, signed by device {made.device}.")
        print("Give the other site the pack, and the public key by another way.")


@recipe_app.command("unpack")
def recipe_unpack(
    pack: Annotated[Path, typer.Argument(help="A tech-transfer pack.")],
    trust: Annotated[Path, typer.Option(help="The public key of the device that made it.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    as_json: AsJson = False,
) -> None:
    """Verify a tech-transfer pack and bring its recipe in as a draft that says where it comes from.

    Example: lineside recipe unpack cart-b1.pack --trust plant-a.pub --out from-plant-a
    """
    from edge.identity import read_public
    from edge.pack import DRAFT, unpack

    made = unpack(pack, read_public(trust), out)
    if as_json:
        print(json.dumps({"ok": True, "out": str(out), **made.model_dump()}))
    else:
        print(f"{made.recipe} {made.version}, made {made.made_utc} by device {made.device}: every byte holds.")
        print(f"The draft: {out / DRAFT}. Seal {made.seal}")


@recipe_app.command("diff")
def recipe_diff(
    old: Annotated[Path, typer.Argument(help="The recipe file as it was.")],
    new: Annotated[Path, typer.Argument(help="The recipe file as it is.")],
    base: Annotated[
        Path | None, typer.Option(help="What both were made from: says what each changed, and where they conflict.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say in process words what differs between two recipes or operations; formatting does not. Exit 1 on a conflict.

    Of a site file it says what the site must look at because its master moved from --base to NEW.

    Example: lineside recipe diff site.yaml new-master.yaml --base old-master.yaml
    """
    from edge.core.recipe.compare import compare, three_way
    from edge.library import read_drafted_file
    from edge.recipe_site import moved

    if base is not None and (look_at := moved(base, new, old)) is not None:
        if as_json:
            print(json.dumps({"look_at": look_at}, ensure_ascii=False))
        else:
            print(f"What {old} must look at, because its master moved: {len(look_at)}")
            print("".join(f"  {one}\n" for one in look_at), end="")
        return
    before, after = (read_drafted_file(path)[0].recipe for path in (old, new))
    if base is None:
        changes = compare(before, after)
        if as_json:
            print(json.dumps({"changes": [change.as_json() for change in changes]}, ensure_ascii=False))
            return
        print("\n".join(change.text for change in changes) or "No difference: both have the same seal.")
        return
    found = three_way(read_drafted_file(base)[0].recipe, before, after)
    if as_json:
        facts = {name: [one.as_json() for one in getattr(found, name)] for name in ("ours", "theirs", "both")}
        conflicts = [{"ours": a.as_json(), "theirs": b.as_json()} for a, b in found.conflicts]
        print(json.dumps({**facts, "conflicts": conflicts}, ensure_ascii=False))
    else:
        for heading, changes_of in ((f"Only {old}", found.ours), (f"Only {new}", found.theirs), ("Both", found.both)):
            print(f"{heading}: {len(changes_of)}")
            print("".join(f"  {change.text}\n" for change in changes_of), end="")
        print(f"Conflicts: {len(found.conflicts)}")
        for a, b in found.conflicts:
            print(f"  {old}: {a.text}\n  {new}: {b.text}")
    if found.conflicts:
        raise typer.Exit(EXIT_FOUND)


@recipe_app.command("where-used")
def recipe_where_used(
    term: Annotated[str, typer.Argument(help="A name, a tag, or words of a step.")],
    folder: Annotated[Path, typer.Argument(help="A folder of recipe files.")],
    as_json: AsJson = False,
) -> None:
    """Say which recipes and operations of a folder use something, and where. Other files are counted on stderr.

    Example: lineside recipe where-used reactor.temperature recipes
    """
    from dataclasses import asdict

    from edge.core.recipe.compare import where_used
    from edge.shelf import books

    refused: list[LinesideError] = []
    for book in books(folder, refused, _progress_of_parts()):
        for use in where_used(book.recipe, term):
            if as_json:
                print(json.dumps({"file": str(book.path), **asdict(use)}, ensure_ascii=False))
            else:
                print(f"{book.path}: {use.subject} “{use.title}”: {use.what}")
    _say_refused(refused)


@recipe_app.command("similar")
def recipe_similar(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    folder: Annotated[Path, typer.Argument(help="A folder of recipe files.")],
    limit: Annotated[int, typer.Option(help="Show at most so many.", min=1, max=10_000)] = 10,
    as_json: AsJson = False,
) -> None:
    """Rank the recipes and operations of a folder by how much they have in common with one, and say what.

    What was read is remembered in ~/.cache/lineside by its content, so that only the first run over a folder is slow.

    Example: lineside recipe similar draft.yaml recipes
    """
    import os

    from edge.core.recipe.compare import profile, rank
    from edge.library import read_drafted_file
    from edge.shelf import profiles

    wanted = profile(read_drafted_file(file)[0].recipe)
    memory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lineside" / "profiles.json"
    refused: list[LinesideError] = []
    found = profiles(folder, memory, refused, _progress_of_parts())
    found = {path: one for path, one in found.items() if path.resolve() != file.resolve()}
    paths: dict[int, list[Path]] = {}
    for path, one in found.items():
        paths.setdefault(id(one), []).append(path)
    for alike in rank(wanted, list({id(one): one for one in found.values()}.values()))[:limit]:
        for path in paths[id(alike.profile)]:
            if as_json:
                print(
                    json.dumps(
                        {"file": str(path), "share": round(alike.share, 4), "why": alike.why}, ensure_ascii=False
                    )
                )
            else:
                print(f"{alike.share:4.0%}  {path}  {alike.profile.name} {alike.profile.version}: {alike.why}")
    _say_refused(refused)


@recipe_app.command("replace")
def recipe_replace(
    folder: Annotated[Path, typer.Argument(help="A folder of drafts.")],
    find: Annotated[str, typer.Option(help="The whole value to find, such as 37.5 or hold.")],
    by: Annotated[str, typer.Option("--with", help="What to put in its place.")],
    field: Annotated[str, typer.Option(help="Only values of this key, such as high, phase or duration.")] = "",
    box: Annotated[
        Path | None, typer.Option(help="A box: what it has sealed is not touched.", envvar="LINESIDE_BOX")
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Change the files; without it they are only shown.")] = False,
) -> None:
    """Replace a value in all drafts of a folder: shows what would change, and changes it only with --write.

    Of recipes and operations; comments and formatting stay. A recipe that a box has sealed is left alone; make a new
    draft of it first.

    Example: lineside recipe replace drafts --find 37.5 --with 38.0 --field high
    """
    from edge.config import read_config
    from edge.core.recipe import read_recipe_or_operation, seal
    from edge.core.recipe.compare import compare
    from edge.core.recipe.replace import replace
    from edge.shelf import books
    from edge.shelf import write as write_file

    sealed = read_config(box).state_dir / "library" / "recipe" if box else None
    refused: list[LinesideError] = []
    changed: list[tuple[Path, bytes]] = []
    for book in books(folder, refused, _progress_of_parts()):
        data = replace(book.data, str(book.path), find, by, field, book.operations)
        if data == book.data:
            continue
        if sealed and (sealed / seal(book.recipe)).exists():
            print(f"{book.path}: left alone, the box has sealed it")
            continue
        changed.append((book.path, data))
        changed_to, _ = read_recipe_or_operation(data, str(book.path), book.operations)
        for change in compare(book.recipe, changed_to.recipe):
            print(f"{book.path}: {change.text}")
    if write:  # after every file was looked at: one that cannot be changed so changes none
        for path, data in changed:
            write_file(path, data)
    print(f"{len(changed)} files {'changed' if write else 'would change; nothing is written without --write'}.")
    _say_refused(refused)


for name, command in (
    ("derive", recipe_site.derive),
    ("submit", recipe_life.submit),
    ("approve", recipe_life.approve),
    ("send-back", recipe_life.send_back),
    ("release", recipe_life.release),
    ("retire", recipe_life.retire),
    ("status", recipe_life.status),
):
    recipe_app.command(name)(command)


def _say_refused(refused: list[LinesideError]) -> None:
    if refused:
        print(f"{len(refused)} files cannot be read as recipes; the first: {refused[0]}", file=sys.stderr)


# The journal -------------------------------------------------------------------------------------------------------

JournalPath = Annotated[Path, typer.Argument(help="journal.db, of a running box or a copy.")]


@journal_app.command("verify")
def journal_verify(
    path: JournalPath,
    expect_head: Annotated[str, typer.Option(help="SEQ:HASH that the journal must reach, from a receipt.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify the hash chain: says what holds, or names the first row that does not. Exit code 1 when one does not.

    Example: lineside journal verify state/journal.db
    """
    from edge.journal import verify_journal

    seq, _, row_hash = expect_head.partition(":")
    try:
        expected = (int(seq), bytes.fromhex(row_hash)) if expect_head else None
    except ValueError as error:
        raise LinesideError(
            "journal.expected_head", f"{expect_head[:100]!r} is not SEQ:HASH.", todo="Copy both from the receipt."
        ) from error
    report = verify_journal(path, expect_head=expected, progress=None if as_json else _progress("verified"))
    if as_json:
        facts = {"ok": report.ok, "journal": report.journal, "first_seq": report.first_seq, "rows": report.rows}
        facts["head_hash"] = report.head_hash
        fault = report.fault
        print(json.dumps({**facts, "fault": {"row": fault.seq, "why": fault.why} if fault else None}))
    elif report.fault:
        print(f"DOES NOT HOLD. {report.fault.why} Rows before it: {report.rows}, all of which hold.")
    else:
        archived = f" Rows before {report.first_seq} were archived." if report.first_seq > 1 else ""
        print(f"All {report.rows} rows hold.{archived} Head: row {report.head_seq}, {report.head_hash}")
    if not report.ok:
        raise typer.Exit(EXIT_FOUND)


@journal_app.command("show")
def journal_show(
    path: JournalPath,
    after: Annotated[int, typer.Option(help="Show rows after this number.")] = 0,
    limit: Annotated[int, typer.Option(help="Show at most so many rows.", min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show rows as they are.

    Example: lineside journal show state/journal.db --after 100 --limit 20
    """
    from edge.journal import show_rows

    for row in show_rows(path, after, limit):
        facts = {"seq": row.seq, "hash": row.hash, "epoch": row.epoch, "row": row.says or row.text}
        print(json.dumps(facts, ensure_ascii=False) if as_json else _line(row))


def _line(row: ShownRow) -> str:
    """One row for reading: number, time, who, what."""
    if row.says is None:
        return f"{row.seq:>6}  {row.text}"
    says = row.says
    facts = "  ".join(f"{name}={value}" for name, value in says.get("facts", {}).items() if value not in ("", None))
    utc = str(says.get("at", {}).get("utc", ""))[:23]
    return (
        f"{row.seq:>6}  {utc}  {says.get('actor', ''):<9} {says.get('kind', ''):<18} {says.get('batch', '')}  {facts}"
    )


def _progress(word: str) -> Callable[[int, int], None]:
    """As `_progress_of_parts`, for what has one part."""
    tell = _progress_of_parts()
    return lambda done, total: tell(f"rows {word}", done, total)


def _progress_of_parts() -> Callable[[str, int, int], None]:
    """Say on stderr how far it is, once a second, for what takes longer than that."""
    last_s = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= 1.0:
            last_s = time.monotonic()
            print(f"{done:,} of {total:,} {what}", file=sys.stderr)

    return tell


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

    progress = _nothing if as_json else _progress_of_parts()
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
    progress = _nothing if as_json else _progress_of_parts()
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
    report = daily(config, config.backup, progress=_nothing if as_json else _progress_of_parts())
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


def _nothing(_what: str, _done: int, _total: int) -> None:
    """Progress is for people."""


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


def _records(box: Path) -> dict[str, AsBuilt]:
    """The as-built records, folded from the journal alone; it may belong to a running box."""
    from edge.archive import Record, record_of
    from edge.config import read_config
    from edge.core.events import RowBody, decode
    from edge.core.review import as_built

    def bodies(reader: Record) -> Iterator[tuple[int, RowBody]]:
        seq = 0
        while rows := reader.rows(seq, 1000):
            seq = rows[-1].seq
            yield from ((row.seq, decode(row.body)) for row in rows)

    with record_of(read_config(box)) as reader:
        return as_built(bodies(reader))


def _record(batch: str, box: Path) -> AsBuilt:
    record = _records(box).get(batch)
    if record is None:
        raise LinesideError(
            "batch.unknown", f"The journal has no batch {batch[:64]}.", todo="Look with `lineside batch list`."
        )
    return record


@batch_app.command("list")
def batch_list(
    training: Annotated[bool, typer.Option("--training", help="Training batches, and no others.")] = False,
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """List the batches of a box, without those for training.

    Example: lineside batch list --box /etc/lineside
    """
    records = {batch: record for batch, record in _records(box).items() if record.training is training}
    if as_json:
        fields = ("batch", "order", "recipe", "version", "state", "started_utc", "ended_utc")
        print(json.dumps([{field: getattr(r, field) for field in fields} for r in records.values()]))
        return
    for record in records.values():
        print(f"{record.batch}  {record.order}  {record.recipe} {record.version}  {record.state}  {record.started_utc}")


@batch_app.command("show")
def batch_show(
    batch: Annotated[str, typer.Argument(help="The batch's id.")], box: Box = Path(), as_json: AsJson = False
) -> None:
    """Show the as-built record of one batch, rebuilt from the journal alone.

    Example: lineside batch show B-001 --box /etc/lineside
    """
    from edge.core.review import as_text

    record = _record(batch, box)
    if as_json:
        print(json.dumps(record.as_json(), ensure_ascii=False))
        return
    print(as_text(record))


# Archive -----------------------------------------------------------------------------------------------------------


@archive_app.command("now")
def archive_now(box: Box = Path(), as_json: AsJson = False) -> None:
    """Archive all sealed rows that need not stay in the journal, however few; the follower waits until they are many.

    Takes nothing out of the journal: the follower asks the runtime for that. The box may run.

    Example: lineside archive now --box /var/lib/lineside/box
    """
    from edge.archive import Segment, archive_next
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.identity import DeviceKey

    config = read_config(box)
    settings, signer = _archive(config), DeviceKey.load(config.device_key)
    made: list[Segment] = []
    while segment := archive_next(config, settings, signer, SystemClock().utc(), rows_min=1):
        made.append(segment)
        if not as_json:
            print(f"{segment.path}: rows {segment.first_seq} to {segment.last_seq}, read back and verified.")
    if as_json:
        print(json.dumps({"ok": True, "segments": [segment.as_json() for segment in made]}))
    elif not made:
        print("Nothing to archive: every row is to stay in the journal, is archived, or is not sealed yet.")


@archive_app.command("list")
def archive_list(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the segments of a box's archive, as they name themselves; `verify` reads them.

    Example: lineside archive list --box /var/lib/lineside/box
    """
    from edge.archive import list_segments
    from edge.config import read_config
    from edge.journal import JournalReader

    config = read_config(box)
    with JournalReader(config.state_dir / "journal.db") as reader:
        listed = list_segments(_archive(config).path, reader.journal_id)
    if as_json:
        print(json.dumps({"segments": [segment.as_json() for segment in listed]}))
        return
    for segment in listed:
        print(f"rows {segment.first_seq:>12,} to {segment.last_seq:>12,}  {segment.file_bytes:>11,} B  {segment.path}")


@archive_app.command("verify")
def archive_verify(box: Box = Path(), as_json: AsJson = False) -> None:
    """Read every segment from its medium, to the last row, and see that they are one chain up to the journal's rows.

    Exit code 1 when one does not hold.

    Example: lineside archive verify --box /var/lib/lineside/box
    """
    from edge.archive import verify_archive
    from edge.config import read_config

    config = read_config(box)
    settings = _archive(config)
    try:
        rows = verify_archive(config, settings, progress=None if as_json else _progress_of_parts())
    except LinesideError as refusal:
        if as_json:
            print(json.dumps({"ok": False, "error": refusal.as_json()}))
        else:
            print(f"DOES NOT HOLD. {refusal}")
        raise typer.Exit(EXIT_FOUND) from refusal
    if as_json:
        print(json.dumps({"ok": True, "rows": rows}))
    else:
        print(f"All {rows} archived rows hold, and the journal goes on from them.")


@archive_app.command("status")
def archive_status(box: Box = Path(), as_json: AsJson = False) -> None:
    """Say what is archived, what is due, and from which row on the journal has its rows itself.

    Example: lineside archive status --box /var/lib/lineside/box
    """
    from edge.archive import status
    from edge.clock import SystemClock
    from edge.config import read_config

    config = read_config(box)
    said = status(config, _archive(config), SystemClock().utc())
    print(json.dumps(said.as_json()) if as_json else said)


def _archive(config: Config) -> Archive:
    if config.archive is None:
        raise LinesideError(
            "archive.not_set",
            "This box keeps no archive: every row stays in its journal.",
            todo="To archive old rows, add [archive] to lineside.toml; see docs/how-to/archive.md.",
        )
    return config.archive


# Views -------------------------------------------------------------------------------------------------------------


@views_app.command("rebuild")
def views_rebuild(box: Box = Path(), as_json: AsJson = False) -> None:
    """Make views.db anew from the journal, also while the box runs. Searches meanwhile say how far it is.

    Example: lineside views rebuild --box /etc/lineside
    """
    from edge.archive import record_of
    from edge.config import read_config
    from edge.views import ROWS_AT_ONCE, Views

    config = read_config(box)
    state = config.state_dir
    tell = _progress("applied")
    with record_of(config) as reader, Views(state / "views.db") as views:
        views.begin_anew()
        made_seq, _ = reader.head()
        seq = 0
        while rows := reader.rows(seq, ROWS_AT_ONCE):
            seq = views.apply(seq, rows)
            tell(seq, max(made_seq, seq))
    if as_json:
        print(json.dumps({"as_of_seq": seq}))
    else:
        print(f"{state / 'views.db'} is made anew, as of row {seq}.")


@views_app.command("export")
def views_export(
    out: Annotated[Path, typer.Argument(help="The folder to make; nothing is overwritten.")],
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="The files' format.")] = "csv",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Write every table as a file, with a description that programs read: a Frictionless data package.

    All of it is as of one row of the journal. The box may run. Columns keep their names and types over versions: see
    docs/reference/open-data.md.

    Example: lineside views export /mnt/stick/box-7 --format json --box /etc/lineside
    """
    from edge.config import read_config
    from edge.opendata import export

    made = export(read_config(box).state_dir / "views.db", out, form)
    if as_json:
        print(json.dumps({"ok": True, "folder": str(out), "as_of_seq": made.as_of_seq, "lines": made.lines}))
        return
    for name, count in made.lines.items():
        print(f"{count:>8,}  {out / name}.{form}")
    print(f"As of row {made.as_of_seq}; described in {out / 'datapackage.json'}.")


@views_app.command("search")
def views_search(
    text: Annotated[str, typer.Argument(help="Words or numbers; each must stand in the row, also as a beginning.")],
    box: Box = Path(),
    limit: Annotated[int, typer.Option(help="Show at most so many rows, newest first.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find rows by what they say, as of the row that the views have come to.

    Example: lineside views search "viability B-001" --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.views import search

    found = search(read_config(box).state_dir / "views.db", text, limit)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for row in found.rows:
        print(f"{row.seq:>6}  {row.utc[:23]}  {row.actor:<9} {row.kind:<18} {row.batch}  {row.text}")
    print(f"{len(found.rows)} rows, as of row {found.as_of_seq}")


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

TagName = Annotated[str, typer.Argument(help="The tag's full name, for example BR-1.temperature.")]
From = Annotated[
    str, typer.Option("--from", help="From this time on, for example 2026-11-22T08:30Z; an hour if empty.")
]
To = Annotated[str, typer.Option("--to", help="Up to this time; the newest value when empty.")]


@history_app.command("tags")
def history_tags(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the tags of which values are stored.

    Example: lineside history tags --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        infos = reader.tags()
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "tag": info.series.tag,
                        "unit": info.series.unit,
                        "resolution": info.series.resolution,
                        "windows": info.windows,
                        "samples": info.samples,
                    }
                    for info in infos
                ]
            )
        )
        return
    for info in infos:
        kept = f"in steps of {info.series.resolution} {info.series.unit}" if info.series.resolution else "bit by bit"
        print(f"{info.series.tag:<32} {info.samples:>12,} samples in {info.windows:,} closed windows, {kept}")


@history_app.command("show")
def history_show(
    tag: TagName, box: Box = Path(), from_utc: From = "", to_utc: To = "", as_json: AsJson = False
) -> None:
    """Show every stored value of a tag with its quality, and the gaps. With --json one object a line.

    Example: lineside history show BR-1.temperature --from 2026-11-22T08:30Z --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.history import HistoryReader, utc_text
    from edge.sketch import facts, span

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        asked = span(reader, from_utc, to_utc)
        for sample in reader.range(tag, *asked):
            said = facts(sample)
            if as_json:
                print(json.dumps(said, ensure_ascii=False))
            else:
                print(f"{said['utc']}  {said['value']!s:>16}  {said['quality']:<9}  {said['detail']}".rstrip())
        for gap in reader.gaps(*asked):
            if as_json:
                print(json.dumps({"gap": asdict(gap)}))
            else:
                print(f"gap from {utc_text(gap.from_us)} to {utc_text(gap.to_us)}: {gap.scope}, {gap.why}")


@history_app.command("plot")
def history_plot(
    tag: TagName,
    box: Box = Path(),
    from_utc: From = "",
    to_utc: To = "",
    points: Annotated[int, typer.Option(help="How many columns.", min=2, max=10_000)] = 72,
    height: Annotated[int, typer.Option(help="How many lines.", min=4, max=100)] = 16,
    as_json: AsJson = False,
) -> None:
    """Plot a tag: lowest to highest in each column, so that no spike is lost.

    Example: lineside history plot BR-1.temperature --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.history import HistoryReader
    from edge.sketch import drawn, span

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        buckets = reader.plot(tag, *span(reader, from_utc, to_utc), points)
        units = {info.series.unit for info in reader.tags() if info.series.tag == tag}
    if as_json:
        print(json.dumps([asdict(bucket) for bucket in buckets]))
        return
    print(f"{tag}  ({', '.join(sorted(units)) or 'no unit'})")
    print("\n".join(drawn(buckets, ", ".join(sorted(units)), height)))


@history_app.command("export")
def history_export(
    tag: TagName,
    target: Annotated[Path, typer.Argument(help="The CSV file to make; it must not exist.")],
    box: Box = Path(),
    from_utc: From = "",
    to_utc: To = "",
) -> None:
    """Write every stored value of a tag into a CSV file.

    Example: lineside history export BR-1.temperature temperature.csv --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader
    from edge.sketch import span, write_csv

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        asked = span(reader, from_utc, to_utc)
        samples = reader.range(tag, *asked)
        try:
            with target.open("x", encoding="utf-8", newline="") as out:
                count = write_csv(samples, out)
        except OSError as error:
            raise LinesideError(
                "values.export",
                f"{target} cannot be written: {error.strerror}.",
                todo="Name a file that does not exist, in a folder that you may write to.",
            ) from error
    print(f"{target}: {count:,} values.")


@history_app.command("copy")
def history_copy(
    target: Annotated[Path, typer.Argument(help="The copy to make; it must not exist.")], box: Box = Path()
) -> None:
    """Copy all process values into one file, also while the box runs: beside a backup that was made without them.

    To go back to it, put it in the place of state/history.db before the runtime starts.

    Example: lineside history copy /media/stick/history.db --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader

    tell = _progress_of_parts()
    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        reader.copy(target, progress=lambda done, total: tell("bytes copied", done, total))
    print(f"{target}: {target.stat().st_size:,} bytes.")


@history_app.command("verify")
def history_verify(box: Box = Path(), as_json: AsJson = False) -> None:
    """Compute every window's root anew and compare it with journal and archive. Exit 1 when something does not hold.

    A window that the journal names and that is not stored does not hold either, unless the box was restored since.

    Example: lineside history verify --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.archive import record_of
    from edge.config import read_config
    from edge.history import verify_values

    config = read_config(box)
    tell: Callable[[str, int, int], object] = _nothing if as_json else _progress_of_parts()
    with record_of(config) as record:
        path = config.state_dir / "history.db"
        result = verify_values(path, record, progress=lambda done, total: tell("windows verified", done, total))
    if as_json:
        print(json.dumps({"ok": result.ok, **asdict(result)}))
    else:
        for finding in result.findings:
            print(finding)
        for missing in result.missing:
            print(missing)
        if result.left_out:
            print(result.left_out)
        print(
            f"{result.samples:,} values in {result.windows:,} windows, {result.anchored:,} of them with a row in "
            "journal or archive."
        )
        print("Everything that is stored holds." if result.ok else "Something does not hold.")
    if not result.ok:
        raise typer.Exit(EXIT_FOUND)


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
