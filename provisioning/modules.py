"""A module's own description becomes entries of the plant file: a unit with its tags and services, and its connection.

What cannot be taken over is said line by line, never guessed: a parameter without a range is left out, because the box
writes nothing whose bounds nobody gave.
"""

from __future__ import annotations

import asyncio
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from edge.core.errors import LinesideError, Place
from edge.core.plant import Connection, Plant, Tag, Unit, read_plant, unknown_unit
from edge.core.service import MTP
from edge.core.terms import MEASURES
from edge.equipment import Equipment, Home, installed_drivers
from edge.library import read_bounded, write_whole
from provisioning.equipment import PATIENCE
from provisioning.mtp import (
    PACKAGE_BYTES_MAX,
    REST,
    UNITS,
    Item,
    Manifest,
    Measured,
    ModuleService,
    read_manifest,
    whole,
)
from provisioning.plant_file import added

TAKEN_S: Final = 10.0
"""So soon a module must show that it took a command."""
SHOWN_S: Final = 5.0
"""So soon a module must show what was asked for."""
SINGLE: Final = 1e-6
"""How far a number may be off, of the largest that may be written: modules keep them in 32 bits."""
TAG_NAME_MAX: Final = 60
MODE_MAX: Final = 65_535
"""What `OpMode` may hold: 16 bits."""
ASKING: Final = "module"

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the engineer says about the import."""

    unit: str
    connection: str
    unit_class: str = ""
    endpoint: str = ""
    server: str = ""
    unit_codes: Mapping[int, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """"service.parameter" -> its range in the unit of its tag."""
    switch: bool = False
    """The box may switch the module's mode, where it lets that be done."""


@dataclass(frozen=True, slots=True)
class Imported:
    """The entries, and what is to be said about them."""

    module: Manifest
    unit: str
    entries: Tree
    """By section of the plant file."""
    findings: tuple[LinesideError, ...]


# Options ---------------------------------------------------------------------------------------------------------


def read_unit_codes(texts: Sequence[str]) -> dict[int, str]:
    """`1593=mL/min`, each. Raises `mtp.option`, `unit.unknown`."""
    codes: dict[int, str] = {}
    for text in texts:
        code, _, unit = text.partition("=")
        if not re.fullmatch(r"[0-9]{1,9}", code):
            raise _no_option("--unit-code", text, "--unit-code 1593=mL/min")
        if unit not in MEASURES:
            raise unknown_unit(unit, Place("--unit-code"))
        codes[int(code)] = unit
    return codes


def read_ranges(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """`wash.volume=50..2000`, each. Raises `mtp.option`."""
    ranges: dict[str, tuple[float, float]] = {}
    number = r"[-+]?[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE][-+]?[0-9]{1,3})?"
    for text in texts:
        found = re.fullmatch(rf"([^=]{{1,130}})=({number})\.\.({number})", text)
        if found is None or not float(found[2]) < float(found[3]) < float("inf"):
            raise _no_option("--range", text, "--range wash.volume=50..2000")
        ranges[found[1]] = float(found[2]), float(found[3])
    return ranges


def _no_option(option: str, text: str, example: str) -> LinesideError:
    return LinesideError("mtp.option", f"{option} does not understand {text[:80]!r}.", todo=f"Write: {example}")


# Entries ---------------------------------------------------------------------------------------------------------


def entries(module: Manifest, plant: Plant, wanted: Wanted) -> Imported:
    """The module as entries of this plant file. Raises `mtp.*`."""
    if wanted.unit in plant.units:
        raise LinesideError(
            "mtp.unit_exists",
            f"The plant file has a unit {wanted.unit!r} already.",
            todo="Give another name: --unit NAME. Or take the unit out of the file first.",
        )
    server = _server(module, wanted)
    made = _Unit(wanted, server)
    for service in module.services:
        made.take_service(service)
    for view in module.views:
        if made.here(view.node, view.name):
            made.take_value(view, "", view.name)
    for unknown in sorted(set(wanted.ranges) - made.asked_for):
        made.findings.append(
            LinesideError(
                "mtp.no_parameter",
                f"--range {unknown}: the module has no parameter of this name.",
                effect=REST,
                todo="Write the names as they are said above: --range SERVICE.PARAMETER=LOW..HIGH",
            )
        )
    unit: Tree = {"class": wanted.unit_class or _class_of(module.name), "title": module.name, "tags": made.tags}
    if made.services:
        unit["services"] = made.services
    result: Tree = {"units": {wanted.unit: unit}}
    found = [*module.findings, *made.findings]
    known = plant.connections.get(wanted.connection)
    said = wanted.endpoint or module.servers.get(server, "")
    if known is None:
        endpoint = _endpoint(said)
        result = {"connections": {wanted.connection: {"driver": "opcua", "settings": {"endpoint": endpoint}}}, **result}
    elif said and _place_of(said) != _place_of(str(known.settings.get("endpoint", ""))):
        goes = str(known.settings.get("endpoint", "another device"))
        found.append(
            LinesideError(
                "mtp.other_endpoint",
                f"The manifest has the module at {said[:200]}; the connection {wanted.connection} goes to {goes}.",
                effect="The connection stays as it is.",
                todo="Look whether it is this module.",
            )
        )
    return Imported(module, wanted.unit, result, tuple(found))


def _server(module: Manifest, wanted: Wanted) -> str:
    used = {item.server for service in module.services for item in service.nodes.values()}
    used = used or {view.node.server for view in module.views}
    if wanted.server:
        if wanted.server not in module.servers:
            raise LinesideError(
                "mtp.no_server",
                f"The manifest has no server {wanted.server[:64]!r}.",
                todo=f"Name one of: {', '.join(module.servers)}",
            )
        return wanted.server
    if len(used) > 1:
        raise LinesideError(
            "mtp.several_servers",
            f"The module's values are at {len(used)} servers: {', '.join(sorted(used))}.",
            todo="Import it once for each, as a unit of its own: --server NAME",
        )
    return next(iter(used))


def _endpoint(text: str) -> str:
    if not text:
        raise LinesideError(
            "mtp.no_endpoint",
            "The manifest does not say where the module's server is.",
            todo="Give it: --endpoint opc.tcp://HOST:PORT",
        )
    try:
        parts = urlsplit(text)
        host, port, usable = parts.hostname, parts.port, parts.scheme == "opc.tcp" and "@" not in parts.netloc
    except ValueError:
        host, port, usable = None, None, False
    if not usable or not host or not text.isprintable():
        raise LinesideError(
            "mtp.endpoint",
            f"{text[:200]!r} is not where an OPC UA server could be.",
            todo="Give it: --endpoint opc.tcp://HOST:PORT",
        )
    if port is None:
        raise LinesideError(
            "mtp.no_port",
            f"The manifest has the module at {text[:200]}, without a port.",
            todo=f"Look at the module which it is, usually 4840: --endpoint {text.rstrip('/')[:200]}:4840",
        )
    return text


def _place_of(endpoint: str) -> tuple[str, int]:
    try:
        parts = urlsplit(endpoint)
        return parts.hostname or "", parts.port or 4840
    except ValueError:
        return endpoint, 0


def _class_of(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:TAG_NAME_MAX] or "module"


class _Unit:
    """The unit under construction."""

    def __init__(self, wanted: Wanted, server: str) -> None:
        self._wanted, self._server = wanted, server
        self.tags: Tree = {}
        self.services: Tree = {}
        self.findings: list[LinesideError] = []
        self.asked_for: set[str] = set()

    def here(self, item: Item, said: str) -> bool:
        """Whether a node is at the server that is imported."""
        if item.server == self._server:
            return True
        self.findings.append(
            LinesideError(
                "mtp.other_server",
                f"{said} is left out: it is at the server {item.server!r}.",
                effect=REST,
                todo="Import it as a unit of its own: --server NAME",
            )
        )
        return False

    def _tag(self, name: str, item: Item, value_type: str, **more: object) -> str:
        """A new tag; returns what it is called."""
        called, number = name[:TAG_NAME_MAX], 1
        while called in self.tags:
            number += 1
            called = f"{name[:TAG_NAME_MAX]}_{number}"
        typed = {} if value_type == "float" else {"type": value_type}
        self.tags[called] = {"connection": self._wanted.connection, "address": item.address, **typed, **more}
        return called

    def take_service(self, service: ModuleService) -> None:
        name, nodes = service.name, service.nodes
        if not all(self.here(nodes[key], f"The service {name}") for key in ("state", "command")):
            return
        nodes = {key: item for key, item in nodes.items() if item.server == self._server}
        state = self._tag(f"{name}_state", nodes["state"], "int")
        most = max(MTP.commands.values())
        command = self._tag(
            f"{name}_command", nodes["command"], "int",
            access="write", low=0, high=most, read_back=state, settle_s=TAKEN_S,
        )  # fmt: skip
        made: Tree = {"kind": "mtp", "title": service.title, "state": state, "command": command}
        for key, value_type in (("enabled", "int"), ("automatic", "bool"), ("external", "bool")):
            if key in nodes:
                made[key] = self._tag(f"{name}_{key}", nodes[key], value_type)
        self._take_modes(name, nodes, made)
        procedures = list(service.procedures)
        if procedures and "procedure" in nodes:
            shown = nodes.get("procedure_asked")
            checked = {"read_back": self._tag(f"{name}_procedure_asked", shown, "int")} if shown else {}
            made["procedure"] = self._tag(
                f"{name}_procedure", nodes["procedure"], "int",
                access="write", low=0, high=max(1, *(one.id for one in procedures)), **checked, settle_s=SHOWN_S,
            )  # fmt: skip
        elif len(procedures) > 1:
            procedures = [next((one for one in procedures if one.is_default), procedures[0])]
            self.findings.append(
                LinesideError(
                    "mtp.one_procedure",
                    f"The service {name} runs {procedures[0].name} alone: it has no node that takes another procedure.",
                    effect=REST,
                    todo="Ask the module's maker for a node ProcedureExt.",
                )
            )
        taken = {one.name: tag for one in service.values if (tag := self.take_value(one, name, f"{name}_{one.name}"))}
        parameters = {
            one.name: taken[one.name]
            for one in service.values
            if one.kind in {"parameter", "configuration"} and one.name in taken
        }
        reports = {one.name: taken[one.name] for one in service.values if one.kind == "report" and one.name in taken}
        made["procedures"] = {
            one.name: {
                "id": one.id,
                "title": one.title,
                "self_completing": one.self_completing,
                **(
                    {"parameters": [p for p in one.parameters if p in parameters]}
                    if one.parameters is not None and set(one.parameters) != set(parameters)
                    else {}
                ),
            }
            for one in procedures
        }
        made["parameters"], made["reports"] = parameters, reports
        self._take_applying(service, nodes, made)
        self.services[name] = {key: value for key, value in made.items() if value != {}}

    def _take_modes(self, name: str, nodes: Mapping[str, Item], made: Tree) -> None:
        """What the box reads, and with `switch` writes, so that the module does what it is told."""
        if self._wanted.switch:
            for key, shown in (("to_automatic", "automatic"), ("to_external", "external")):
                if key in nodes and shown in made:
                    made[key] = self._tag(
                        f"{name}_{key}", nodes[key], "bool", access="write", read_back=made[shown], settle_s=TAKEN_S
                    )
        if "mode" in nodes and "automatic" not in made:
            written: Tree = {"access": "write", "low": 0, "high": MODE_MAX, "settle_s": TAKEN_S}
            made["mode"] = self._tag(f"{name}_mode", nodes["mode"], "int", **(written if self._wanted.switch else {}))

    def _take_applying(self, service: ModuleService, nodes: Mapping[str, Item], made: Tree) -> None:
        """What makes parameters take effect, and where that is seen. One of which it cannot be seen is left out."""
        shared = {"parameter": "apply", "configuration": "apply_configuration"}
        tags: dict[str, str] = {}
        by: dict[str, str] = {}
        seen: dict[str, str] = {}
        for one in service.values:
            if one.name not in made["parameters"]:
                continue
            key = shared[one.kind] if shared[one.kind] in nodes else f"{one.name}_apply"
            node = nodes.get(key, one.apply)
            if node is None or node.server != self._server:
                continue
            if one.in_force is None or one.in_force.server != self._server:
                self.findings.append(
                    LinesideError(
                        "mtp.apply",
                        f"{service.name}.{one.name} is left out: it takes effect only when it is applied, and nothing"
                        " shows what is in force.",
                        effect=REST,
                        todo="Ask the module's maker for the node VOut.",
                    )
                )
                self._without(made, one.name)
                continue
            if key not in tags:
                tags[key] = self._tag(f"{service.name}_{key}", node, "bool", access="write", settle_s=SHOWN_S)
            like = {"unit": one.unit} if one.unit else {}
            by[one.name] = tags[key]
            seen[one.name] = self._tag(f"{service.name}_{one.name}_in_force", one.in_force, one.type, **like)
        made["applied_by"], made["in_force"] = by, seen

    def _without(self, made: Tree, parameter: str) -> None:
        del self.tags[made["parameters"].pop(parameter)]
        for procedure in made["procedures"].values():
            if parameter in procedure.get("parameters", ()):
                procedure["parameters"] = [one for one in procedure["parameters"] if one != parameter]

    def take_value(self, value: Measured, service: str, called: str) -> str:
        """The tag of a value; "" when it is left out."""
        said = f"{service}.{value.name}" if service else value.name
        self.asked_for.add(said)
        if not self.here(value.node, said):
            return ""
        unit = {"unit": value.unit} if value.unit else {}
        if value.unit is None:
            self._say_no_unit(value, said)
        if value.kind not in {"parameter", "configuration", "in"}:
            ends = {key: end for key in ("low", "high") if value.fixed and (end := _end(value, key)) is not None}
            return self._tag(called, value.node, value.type, **unit, **ends)
        more: Tree = {}
        if value.type in {"float", "int"}:
            ends = self._range(value, said)
            if not ends:
                return ""
            more = {**unit, "access": "write", **ends}
            if value.type == "float":
                more["tolerance"] = float(f"{SINGLE * max(abs(one) for one in ends.values()):.2g}")
        else:
            more = {"access": "write"}
        if value.asked is not None and value.asked.server == self._server:
            shown = self._tag(f"{called}_asked", value.asked, value.type, **unit)
            more |= {"read_back": shown, "settle_s": SHOWN_S}
        return self._tag(called, value.node, value.type, **more)

    def _say_no_unit(self, value: Measured, said: str) -> None:
        if "unit" in value.told:
            self.findings.append(
                LinesideError(
                    "mtp.unit_at_run",
                    f"{said}: only the running module says its unit.",
                    effect="It is taken over as a plain number.",
                    todo="Read it from the module: --read",
                )
            )
            return
        self.findings.append(
            LinesideError(
                "mtp.unit_code",
                f"{said}: there is no unit for the code {value.unit_code}.",
                effect="It is taken over as a plain number.",
                todo=f"Look the code up, and say what it is: --unit-code {value.unit_code}=UNIT",
            )
        )

    def _range(self, value: Measured, said: str) -> Tree:
        given = self._wanted.ranges.get(said)
        low, high = given or (value.low, value.high)
        if low is None or high is None:
            self.findings.append(
                LinesideError(
                    "mtp.range",
                    f"{said} is left out: what is sensible to write is not said.",
                    effect=REST,
                    todo=f"Give it: --range {said}=LOW..HIGH"
                    + (", or read it from the module: --read" if value.told else ""),
                )
            )
            return {}
        if given is None and not value.fixed:
            self.findings.append(
                LinesideError(
                    "mtp.range_default",
                    f"{said} may be written from {low:g} to {high:g}: so the manifest says, and the module may not.",
                    effect=REST,
                    todo=f"Read it from the module: --read. Or give it: --range {said}=LOW..HIGH",
                )
            )
        ends = {"low": low, "high": high}
        return {key: int(one) for key, one in ends.items()} if value.type == "int" else ends


def _end(value: Measured, key: str) -> float | int | None:
    end = value.low if key == "low" else value.high
    return end if end is None or value.type == "float" else int(end)


# The running module ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """What is needed to ask the running module: the box's certificates, and its clock."""

    home: Home
    now_s: Callable[[], float]
    utc: Callable[[], str]


async def as_told(module: Manifest, connection: Connection, units: Mapping[int, str], ask: Ask) -> Manifest:
    """The module with the units and ranges that only its server knows. Raises why there is no connection."""
    asked = {
        f"v{number}_{key}": (value, key, item)
        for number, value in enumerate(_values(module))
        for key, item in value.told.items()
    }
    if not asked:
        return module
    tags = {
        name: Tag(connection=ASKING, address=item.address, type="int" if key == "unit" else value.type)
        for name, (value, key, item) in asked.items()
    }
    plant = Plant(plant="import", connections={ASKING: connection}, units={"M": Unit(**{"class": "module"}, tags=tags)})
    changed = asyncio.Event()
    equipment = Equipment(
        plant, installed_drivers(), now_s=ask.now_s, utc=ask.utc, on_change=changed.set, home=ask.home
    )
    async with equipment:
        await equipment.watch(plant.tags())
        try:
            async with asyncio.timeout(PATIENCE * connection.timeout_s):
                while any(_read(equipment, name) is None for name in tags):
                    await changed.wait()
                    changed.clear()
                    equipment.take_changed()
        except TimeoutError:
            pass  # what was not told is said below, value by value
        health = equipment.health()[ASKING]
        if not health.connected:
            raise health.refusal or LinesideError(
                "mtp.away",
                f"The module cannot be asked: {health.detail}",
                todo="Look at the module and its network, or import without --read.",
            )
        told = {name: _read(equipment, name) for name in tags}
    by_value: dict[int, dict[str, float]] = {}
    for name, (value, key, _item) in asked.items():
        number = told[name]
        if number is not None:
            by_value.setdefault(id(value), {})[key] = number
    return _with_told(module, by_value, units)


def _values(module: Manifest) -> Iterator[Measured]:
    for service in module.services:
        yield from service.values
    yield from module.views


def _read(equipment: Equipment, name: str) -> float | None:
    reading = equipment.latest(f"M.{name}")
    if reading is None or not reading.good or not isinstance(reading.value, int | float):
        return None
    return float(reading.value)


def _with_told(module: Manifest, told: Mapping[int, Mapping[str, float]], units: Mapping[int, str]) -> Manifest:
    table = {**UNITS, **units}

    def now(value: Measured) -> Measured:
        known = told.get(id(value), {})
        low, high = known.get("low", value.low), known.get("high", value.high)
        if low is not None and high is not None and low >= high:
            low = high = None
        code = whole(known["unit"]) if "unit" in known else value.unit_code
        return replace(
            value,
            low=low,
            high=high,
            unit_code=code,
            unit=table.get(code) if code is not None and "unit" in known else value.unit,
            told={key: item for key, item in value.told.items() if key not in known},
        )

    services = tuple(replace(one, values=tuple(now(value) for value in one.values)) for one in module.services)
    return replace(module, services=services, views=tuple(now(view) for view in module.views))


# At the terminal -------------------------------------------------------------------------------------------------


def import_at_terminal(
    file: Path, into: Path, wanted: Wanted, ask: Ask | None = None, *, dry_run: bool = False, as_json: bool = False
) -> None:
    """Write the module into the plant file, or with `dry_run` only say what would change. With `ask` the running module
    is asked for what its manifest leaves open. Raises `mtp.*`, and whatever the plant checker finds."""
    package, data = read_bounded(file, PACKAGE_BYTES_MAX), read_bounded(into)
    plant = read_plant(data, str(into))
    module = read_manifest(package, file.name, wanted.unit_codes)
    if ask is not None:
        connection = connection_for(module, plant, wanted)
        module = asyncio.run(as_told(module, connection, wanted.unit_codes, ask))
    imported = entries(module, plant, wanted)
    changed, after = added(data, str(into), imported.entries)
    old, new = (text.decode().splitlines(keepends=True) for text in (data, changed))
    difference = "".join(difflib.unified_diff(old, new, str(into), str(into)))
    if not dry_run:
        write_whole(into, changed)
    if as_json:
        report = _report(imported, after, hashlib.sha256(package).hexdigest())
        sys.stdout.write(json.dumps({**report, "written": not dry_run, "difference": difference}) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(imported, after)))
        sys.stdout.write(f"\n{difference}\nNothing was written.\n" if dry_run else f"Written to {into}.\n")


def connection_for(module: Manifest, plant: Plant, wanted: Wanted) -> Connection:
    """How the running module is reached: as the plant file says, else as it is said now, else as its manifest says."""
    known = plant.connections.get(wanted.connection)
    return known or Connection(
        driver="opcua",
        settings={"endpoint": _endpoint(wanted.endpoint or module.servers.get(_server(module, wanted), ""))},
    )


def _report(imported: Imported, plant: Plant, digest: str) -> dict[str, object]:
    unit, module = plant.units[imported.unit], imported.module
    defaults = {
        (service.name, value.name): (value.default, value.unit_code)
        for service in module.services
        for value in service.values
    }
    return {
        "module": {"name": module.name, "version": module.version, "files": list(module.files), "sha256": digest},
        "unit": imported.unit,
        "class": unit.cls,
        "connection": {"endpoints": dict(module.servers), "added": "connections" in imported.entries},
        "services": [
            {
                "service": name,
                "title": service.title,
                "procedures": {
                    key: {"id": one.id, "title": one.title, "self_completing": one.self_completing}
                    for key, one in service.procedures.items()
                },
                "parameters": {
                    key: {
                        **unit.tags[tag].model_dump(include={"address", "type", "unit", "low", "high"}),
                        "tag": tag,
                        "default": defaults[name, key][0],
                        "unit_code": defaults[name, key][1],
                    }
                    for key, tag in service.parameters.items()
                },
                "reports": {key: {"tag": tag, "unit": unit.tags[tag].unit} for key, tag in service.reports.items()},
            }
            for name, service in unit.services.items()
        ],
        "tags": len(unit.tags),
        "findings": [{"code": one.code, "what": one.what, "todo": one.todo} for one in imported.findings],
    }


def _lines(imported: Imported, plant: Plant) -> Iterator[str]:
    unit, module = plant.units[imported.unit], imported.module
    yield f"{imported.unit} ({unit.cls}): {module.name} {module.version}".rstrip() + f", {len(unit.tags)} tags"
    for name, service in unit.services.items():
        yield f"  {name}: {service.title}"
        for key, procedure in service.procedures.items():
            until = "" if procedure.self_completing else ", until it is told to complete"
            yield f"    procedure {key} ({procedure.id}){until}"
        for key, tag in service.parameters.items():
            one = unit.tags[tag]
            bounds = f"{one.low:g} to {one.high:g} {one.unit}".rstrip() if one.low is not None else one.type
            yield f"    parameter {key}: {bounds}"
        for key, tag in service.reports.items():
            yield f"    report {key}: {unit.tags[tag].unit or unit.tags[tag].type}"
    if imported.findings:
        yield "To look at:"
    for finding in imported.findings:
        yield f"  {finding.code}: {finding.what}" + (f" {finding.todo}" if finding.todo else "")
