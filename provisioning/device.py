"""The first files of a box, and the people on it."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from edge.config import CONFIG_NAME, Config, read_config, read_document, read_text
from edge.core.errors import LinesideError, Place
from edge.core.terms import Role
from edge.directory import Directory, directory_entry, hash_pin
from edge.identity import DeviceKey, public_text, sync_folder

_PLANT: Final = """\
# The plant of this box: every device, unit and tag that it may read or write. Nothing else can be touched.
# See docs/reference/plant.md and docs/reference/drivers.md.
# A recipe is checked against this file with: lineside recipe check recipes/YOURS.yaml --plant plant.yaml

plant: {box}

# How each device is reached.
connections: {{}}
#connections:
#  reactor-plc:
#    driver: opcua
#    settings: {{endpoint: "opc.tcp://192.0.2.10:4840"}}  # encrypted; see: lineside equipment trust
#    timeout_s: 2      # an answer later than this counts as lost
#  pump:
#    driver: modbus
#    settings: {{host: 192.0.2.11, port: 502, device: 1}}
#    poll_s: 0.5

# ISA-88 units, each of a class that recipes ask for, with its tags.
units: {{}}
#units:
#  BR-1:
#    class: bioreactor
#    title: Bioreactor 1
#    tags:
#      temperature:
#        connection: reactor-plc
#        address: nsu=urn:maker:device;s=Temperature
#        unit: degC
#        low: 0          # outside low..high a reading is not good and a write is refused
#        high: 60
#      temperature_setpoint:
#        connection: reactor-plc
#        address: nsu=urn:maker:device;s=TemperatureSetpoint
#        unit: degC
#        access: write
#        low: 20
#        high: 40
#        tolerance: 0.05 # how far the read-back may be from what was written
#        settle_s: 2     # and how soon it must agree
#        why: Cells die above 40 degC.
#    safe_state:         # written at once when the unit must be made safe, without waiting for the journal
#      - {{tag: temperature_setpoint, value: 30}}
#  P-1:
#    class: pump
#    tags:
#      speed: {{connection: pump, address: input 0 float32, unit: mL/min, low: 0, high: 200}}
"""

_PEOPLE: Final = """\
# Who may log in on this box. A person is added with:
#   lineside device person ana --box . --name "Ana Ruiz" --role operator --badge B-1001
# Roles: {roles}. Default deny: see docs/reference/people.md.
# A PIN is kept only as its argon2id hash; nobody can read it back.
"""


@dataclass(frozen=True, slots=True)
class NewPerson:
    """Someone who is to log in on the box. `pin` comes from a prompt or stdin, never from a command line."""

    id: str
    name: str
    roles: Sequence[Role]
    pin: str = field(repr=False)
    badge: str = ""

    def entry(self) -> str:
        """This person's table in directory.toml."""
        return directory_entry(self.id, self.name, self.badge, self.roles, hash_pin(self.pin))


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What was made, and what a person compares at the hub: the fingerprint."""

    folder: Path
    box: str
    fingerprint: str
    files: tuple[str, ...]


def init_device(folder: Path, *, box: str, people: Sequence[NewPerson] = ()) -> DeviceReport:
    """Make a box folder with a new device key, settings, plant, directory, recipes/ and state/.

    The folder must not exist, or be empty. It appears whole or not at all.
    """
    folder = folder.absolute()
    settings = settings_text(box)
    read_document(folder / CONFIG_NAME, settings, Config, folder=folder)
    directory = _PEOPLE.format(roles=", ".join(Role)) + "".join("\n" + person.entry() for person in people)
    try:
        building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise LinesideError(
            "device.cannot_write",
            f"Nothing can be made in {folder.parent}: {error.strerror}.",
            todo="Name a folder inside one that exists and that you may write to.",
            place=Place(str(folder)),
        ) from error
    try:
        key = DeviceKey.create(building / "device.key")
        _write(building / "device.pub", public_text(key.public), 0o644)
        _write(building / CONFIG_NAME, settings, 0o644)
        _write(building / "plant.yaml", _PLANT.format(box=json.dumps(box)), 0o644)
        _write(building / "directory.toml", directory, 0o600)
        Directory.load(building / "directory.toml")
        (building / "recipes").mkdir()
        (building / "state").mkdir(mode=0o700)
        building.chmod(0o750)
        sync_folder(building)
        _take_place(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    files = tuple(sorted(path.name + "/" * path.is_dir() for path in folder.iterdir()))
    return DeviceReport(folder, box, key.fingerprint, files)


def init_device_at_terminal(folder: Path, name: str = "") -> None:
    """Make a box folder and say what a person does next. The first administrator is "admin"; see `ask_pin`."""
    box = name or folder.absolute().name
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise _exists(folder)  # before a PIN is asked for in vain; `init_device` looks again
    admin = NewPerson("admin", "Administrator", (Role.ADMINISTRATOR,), ask_pin("PIN of the first administrator"))
    report = init_device(folder, box=box, people=(admin,))
    sys.stdout.write(
        f"Box {report.box} is in {report.folder}: {', '.join(report.files)}\n"
        f"Fingerprint of its key: {report.fingerprint}\n"
        "Compare this fingerprint at the hub when the box is enrolled.\n"
        f"Next: describe the equipment in {report.folder}/plant.yaml, put recipes into {report.folder}/recipes.\n"
    )


def add_person_at_terminal(folder: Path, person_id: str, name: str, roles: Sequence[Role], badge: str = "") -> None:
    """Add someone to the directory of the box; see `ask_pin`."""
    add_person(folder, NewPerson(person_id, name, roles, ask_pin(f"PIN of {name}"), badge))
    sys.stdout.write(f"{name} ({person_id}) may log in from the next start of the runtime.\n")


def ask_pin(what: str) -> str:
    """A new PIN: typed twice and unseen at a terminal, otherwise one line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(1024).rstrip("\r\n")
    first = getpass.getpass(f"{what}: ")
    if getpass.getpass("Once more: ") != first:
        raise LinesideError("device.pins_differ", "The two PINs are not the same.", todo="Begin again.")
    return first


def add_person(folder: Path, person: NewPerson) -> None:
    """Add someone to the box's directory. The runtime knows them from its next start."""
    file = read_config(folder).directory.resolve()
    known = Directory.load(file)
    if person.id in known.people:
        raise LinesideError(
            "device.person_exists",
            f'There is a person "{person.id}" in {file} already.',
            todo="Give another id, or change the entry in the file.",
            place=Place(str(file)),
        )
    building = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        _write(building, read_text(file).rstrip("\n") + "\n\n" + person.entry(), 0o600)
        Directory.load(building)
        owner = file.stat()
        os.chown(building, owner.st_uid, owner.st_gid)  # whoever adds a person, the runtime's account must read it
        building.replace(file)
        sync_folder(file.parent)
    finally:
        building.unlink(missing_ok=True)


def settings_text(box: str) -> str:
    """A lineside.toml for `box` with every setting, its default and what it is for."""
    head = "# Settings of this box. Paths are relative to this folder. See docs/reference/settings.md.\n"
    return head + "".join(_settings(Config, {"box": box}))


def _settings(model: type[BaseModel], given: Mapping[str, object]) -> Iterator[str]:
    tables: list[tuple[str, type[BaseModel], str]] = []
    for name, setting in model.model_fields.items():
        table = next(iter(_tables(setting.annotation)), None)
        if setting.exclude:
            continue
        if table:
            tables.append((name, table, setting.description or ""))
        elif name in given:
            yield f"\n# {setting.description}\n{name} = {json.dumps(given[name], ensure_ascii=False)}\n"
        else:
            value = setting.examples[0] if setting.examples else setting.default
            yield f"\n# {setting.description}\n# {name} = {json.dumps(value, default=str)}\n"
    for name, table, what in tables:
        yield f"\n# {what}\n# [{name}]\n"
        for line in _settings(table, {}):
            yield line.removeprefix("\n")


def _tables(annotation: Any) -> Iterator[type[BaseModel]]:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            yield candidate


def _take_place(building: Path, folder: Path) -> None:
    """Rename; the system refuses when anything but an empty folder is there."""
    try:
        building.rename(folder)
    except OSError as error:
        raise _exists(folder) from error
    sync_folder(folder.parent)


def _exists(folder: Path) -> LinesideError:
    return LinesideError(
        "device.exists",
        f"{folder} is there already and is not an empty folder.",
        todo="Name a new folder. A box that exists keeps its key and its journal.",
        place=Place(str(folder)),
    )


def _write(path: Path, text: str, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
