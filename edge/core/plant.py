"""The ISA-88 physical model of one box: connections, units, tags, their limits and bindings.

A plant file is YAML (see `docs/reference/plant.md`); `edge.core.plant.read_plant` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from edge.core.alarms import AlarmWatch, Priority, Told
from edge.core.document import Document, Path, closest, read_document, together, validate
from edge.core.errors import LinesideError, Place
from edge.core.formula import Formula, Variable, compile_formula
from edge.core.service import MACHINES, Machine
from edge.core.terms import MEASURES, Value

ALARMS_MAX: Final = 500
"""So many alarms the tags of a plant may have."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]


class Frozen(BaseModel):
    """Base of every document model: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Connection(Frozen):
    """How one device is reached. `settings` belong to the driver, which checks them itself."""

    driver: Name
    settings: Mapping[str, Value] = Field(default_factory=dict)
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    poll_s: float = Field(default=1.0, ge=0.02, le=3600)


class TagAlarm(Frozen):
    """What a person is told, and asked to acknowledge, while the tag is below `low`, above `high`, or equal to
    `equals`. It is raised when that lasts `on_delay_s`, and over when the tag is inside by `deadband`."""

    low: float | None = None
    high: float | None = None
    equals: bool | None = None
    deadband: float = Field(default=0.0, ge=0)
    on_delay_s: float = Field(default=2.0, ge=0, le=3600)
    priority: Priority = "medium"
    cause: str = Field(min_length=1, max_length=300)
    effect: str = Field(min_length=1, max_length=300)
    todo: str = Field(min_length=1, max_length=300)


class Interlock(Frozen):
    """When a tag may be written: while the formula `permit` is true. It names tags of the same unit by their names, and
    others by what `tags` calls them; of a reading that is not good, nothing is permitted. What makes a unit safe is not
    asked: it is always sent."""

    permit: str = Field(min_length=1, max_length=1_000)
    tags: Mapping[Name, str] = Field(default_factory=dict)
    """Name in the formula -> full tag name, "UNIT.tag"."""
    why: str = Field(min_length=1, max_length=300)
    """What is told when it does not permit."""


class Calibration(Frozen):
    """The instrument behind a tag, and until when its calibration holds. When it is overdue a step that uses the tag
    raises an exception record; with `overdue: hold` it also holds the batch, and a write to the tag is refused."""

    instrument: str = Field(min_length=1, max_length=100)
    due: date
    """The last day on which it holds."""
    overdue: Literal["hold", "continue"] = "hold"


class Argument(Frozen):
    """One thing that a method is given, or that it answers, in the unit of measure `unit`."""

    type: Literal["float", "int", "bool", "text"] = "float"
    unit: str = ""
    low: float | None = None
    high: float | None = None
    """What is given outside of `low` and `high` is refused; an answer outside leaves the call in doubt."""


class Method(Frozen):
    """A method of the device (OPC UA), which a step of phase `method` calls once. The tag's `address` is the object
    whose method it is; the tag is a text with `access: write`, and has no value to read."""

    node: str = Field(min_length=1, max_length=200)
    """The method itself, as an address."""
    arguments: Mapping[Name, Argument] = Field(default_factory=dict)
    """What it is given, in the device's order. A number needs `low` and `high`."""
    results: Mapping[Name, Argument] = Field(default_factory=dict)
    """What it answers, in the device's order."""


class Tag(Frozen):
    """One value at a device, in the unit of measure `unit`.

    `low` and `high` bound what is physically sensible: a reading outside is not good, a write outside is
    refused. Process values are stored in steps of `resolution`, and bit by bit without one. A tag with
    `access: write` is a set-point; its outcome is read back from `read_back` (another tag in the same unit of measure,
    of the same unit of the plant; itself when empty) within `settle_s` and must agree within `tolerance`.

    A reading that has not changed by more than `frozen_change` for `frozen_after_s` is not good any more. One write
    changes a set-point by `change_max` at most, from where it is read to stand, and comes `change_every_s` after the
    one before it: together they bound its rate of change.
    """

    connection: Name
    address: str = Field(max_length=200)
    type: Literal["float", "int", "bool", "text"] = "float"
    unit: str = ""
    access: Literal["read", "write"] = "read"
    low: float | None = None
    high: float | None = None
    resolution: float | None = Field(default=None, gt=1e-12, lt=1e12)
    stale_s: float = Field(default=5.0, gt=0)
    frozen_after_s: float | None = Field(default=None, gt=0, le=30 * 86_400)
    frozen_change: float = Field(default=0.0, ge=0)
    read_back: str = ""
    tolerance: float = Field(default=0.0, ge=0)
    settle_s: float = Field(default=2.0, gt=0, le=60)
    change_max: float | None = Field(default=None, gt=0)
    change_every_s: float = Field(default=0.0, ge=0, le=86_400)
    interlock: Interlock | None = None
    calibration: Calibration | None = None
    method: Method | None = None
    alarms: Mapping[Name, TagAlarm] = Field(default_factory=dict)
    """The alarms of this tag, each under a name of its own."""
    why: str = ""


class SafeAction(Frozen):
    """One write of a unit's safe state. It never waits for the journal: stop, abort and a failed journal send it,
    and its row follows. See docs/explanation/safe-state.md."""

    tag: Name
    value: Value


class Watchdog(Frozen):
    """A tag that the unit's PLC watches: the box writes it every `every_s` while it lives and decides, and the PLC
    falls to its safe state when that stops. A `toggle` (true or false) changes each time; a `counter` (int) counts from
    1 on, and is 0 when the box stopped in order and no batch is under way. See docs/explanation/safe-state.md."""

    tag: Name
    kind: Literal["toggle", "counter"] = "toggle"
    every_s: float = Field(default=1.0, ge=0.1, le=60)


class Procedure(Frozen):
    """One procedure of a service: its number at the module, and whether it completes by itself or must be told to."""

    id: int = Field(ge=0)
    title: str = ""
    self_completing: bool = True
    parameters: tuple[Name, ...] | None = None
    """The service's parameters that it uses; all of them when this is absent."""


class UnitService(Frozen):
    """A service that the unit's module offers, as an MTP (VDI/VDE/NAMUR 2658-4) or a PackML state machine. All of it
    are tags of the same unit: the box starts a service by writing tags, and follows it by reading tags.

    Of a `command` it is certain that it was taken when `state` shows it within the command tag's `settle_s`. With
    `request` (`CmdChangeRequest` of PackML) the command is written first and the request set after it."""

    kind: Literal["mtp", "packml"]
    title: str = ""
    state: Name
    """`StateCur`, or `StateCurrent`."""
    command: Name
    """`CommandExt` (or `CommandOp`), or `CntrlCmd`."""
    request: Name | None = None
    """PackML: `CmdChangeRequest`, where the machine wants one."""
    enabled: Name | None = None
    """MTP: `CommandEn`, the commands that the module allows now."""
    automatic: Name | None = None
    """MTP: `StateAutAct`, true while the module is in automatic."""
    external: Name | None = None
    """MTP: `SrcExtAct`, true while it is told from outside what to do."""
    to_automatic: Name | None = None
    """MTP: `StateAutOp`, read back from `automatic`. With it the box switches the module to automatic before it tells
    the service anything; without it a person does."""
    to_external: Name | None = None
    """MTP: `SrcExtOp`, read back from `external`: the same for where commands come from."""
    mode: Name | None = None
    """MTP of 2018: `OpMode`, a number whose bits show the module's mode, in place of automatic and external. With
    `access: write` the box switches it."""
    unit_mode: Name | None = None
    """PackML: `UnitModeCurrent`; it must be 1, production."""
    procedure: Name | None = None
    """MTP: `ProcedureExt` (or `ProcedureOp`)."""
    procedures: Mapping[Name, Procedure] = Field(default_factory=dict)
    parameters: Mapping[Name, Name] = Field(default_factory=dict)
    """Parameter -> the tag that it is written to; its type, unit and range are the tag's."""
    applied_by: Mapping[Name, Name] = Field(default_factory=dict)
    """Parameter -> the tag that makes it take effect (`ProcParamApplyExt`, `ConfigParamApplyExt`, or its own
    `ApplyExt`), where the module wants that. Set once, after all parameters and before the start."""
    in_force: Mapping[Name, Name] = Field(default_factory=dict)
    """Parameter -> the tag that shows the value in force (`VOut`); needed for each in `applied_by`, whose bit goes back
    by itself: applying has worked when this shows what was written."""
    reports: Mapping[Name, Name] = Field(default_factory=dict)
    """Report value -> the tag that shows it."""

    @property
    def machine(self) -> Machine:
        """Its state machine."""
        return MACHINES[self.kind]

    @property
    def acting(self) -> Name:
        """The tag whose write makes a command act."""
        return self.request or self.command

    def written(self) -> dict[str, Name]:
        """The tags that the box writes, each with what it is in the file."""
        keys = ("command", "request", "procedure", "to_automatic", "to_external")
        found = {key: tag for key in keys if (tag := getattr(self, key))}
        found |= {f"parameters.{name}": tag for name, tag in self.parameters.items()}
        return found | {f"applied_by.{name}": tag for name, tag in self.applied_by.items()}

    def read(self) -> dict[str, Name]:
        """The tags that the box only reads, each with what it is in the file."""
        keys = ("state", "enabled", "automatic", "external", "mode", "unit_mode")
        found = {key: tag for key in keys if (tag := getattr(self, key))}
        found |= {f"in_force.{name}": tag for name, tag in self.in_force.items()}
        return found | {f"reports.{name}": tag for name, tag in self.reports.items()}


class Cleaning(Frozen):
    """The box keeps whether the unit is clean: use makes it dirty, a step of a recipe that `cleans` it makes it clean.
    See docs/how-to/keep-units-clean.md."""

    clean_hold_s: float | None = Field(default=None, gt=0, le=366 * 86_400)
    """So long it stays clean; without an end when absent."""
    dirty_hold_s: float | None = Field(default=None, gt=0, le=366 * 86_400)
    """So long it may be dirty before it is cleaned; a later cleaning raises an exception record."""


class Unit(Frozen):
    """An ISA-88 unit: a class, its tags, what makes it safe, and the services that it offers."""

    cls: Name = Field(alias="class")
    title: str = ""
    tags: Mapping[Name, Tag] = Field(default_factory=dict)
    safe_state: tuple[SafeAction, ...] = ()
    watchdog: Watchdog | None = None
    by_hand: bool = True
    """Two people may go on by hand while its equipment cannot be used, where the recipe permits it too."""
    services: Mapping[Name, UnitService] = Field(default_factory=dict)
    cleaning: Cleaning | None = None
    training: Literal["never", "allowed", "only"] = "never"
    """Whether training batches may use it, and with it write its tags; a simulated unit is for training `only`."""

    def serves(self, *, training: bool) -> bool:
        """True when a batch of this kind may use it."""
        return self.training != ("never" if training else "only")


class Plant(Frozen):
    """All that this box may read and write. `tag("BR-1.temperature")` finds a tag by its full name."""

    plant: Name
    connections: Mapping[Name, Connection] = Field(default_factory=dict)
    units: Mapping[Name, Unit] = Field(default_factory=dict)
    _read_from: tuple[bytes, str] = PrivateAttr((b"", ""))

    def place(self, *path: str | int) -> Place | None:
        """Where that stands in the file that the plant was read from; None for one that was made otherwise."""
        data, name = self._read_from
        return read_document(data, name).place(path) if data else None

    def place_of_tag(self, full_name: str, key: str) -> Place | None:
        """Where the tag has this key, or else where it begins."""
        unit, _, tag = full_name.partition(".")
        return self.place("units", unit, "tags", tag, key)

    def tag(self, full_name: str) -> Tag | None:
        """The tag called "UNIT.tag", or None."""
        unit, _, name = full_name.partition(".")
        found = self.units.get(unit)
        return found.tags.get(name) if found else None

    def tags(self) -> dict[str, Tag]:
        """Every tag by its full name "UNIT.tag"."""
        return {f"{u}.{t}": tag for u, unit in self.units.items() for t, tag in unit.tags.items()}

    def safe_state(self, units: Iterable[str]) -> list[tuple[str, Value]]:
        """The writes that make these units safe, by full tag name, each unit's in the order of the file."""
        return [(f"{unit}.{a.tag}", a.value) for unit in dict.fromkeys(units) for a in self.units[unit].safe_state]

    @cached_property  # asked for at every look at the head
    def alarm_watches(self) -> tuple[AlarmWatch, ...]:
        """The alarms of all tags."""
        return tuple(
            AlarmWatch(
                f"{full_name}/{name}",
                Told(one.priority, one.cause, one.effect, one.todo),
                tag=full_name,
                low=one.low,
                high=one.high,
                equals=one.equals,
                deadband=one.deadband,
                on_delay_s=one.on_delay_s,
            )
            for full_name, tag in self.tags().items()
            for name, one in tag.alarms.items()
        )


def read_plant(data: bytes, name: str) -> Plant:
    """Read a plant file. Raises `LinesideError` (`document.*`, `plant.*`) with every finding of one run: the
    first, the others in `others`."""
    document = read_document(data, name)
    plant = validate(document, Plant)
    problems = sorted(_inconsistencies(plant, document), key=lambda one: one.place.line if one.place else 0)
    if problems:
        raise together(problems)
    plant._read_from = (data, name)  # noqa: SLF001  whoever finds more says where it stands
    return plant


def numeric(tag: Tag | Argument) -> bool:
    """True when the value is a number."""
    return tag.type in ("float", "int")


def within(value: float, tag: Tag | Argument) -> bool:
    """True when `value`, in the tag's unit, lies in the tag's range (an end that is missing bounds nothing)."""
    return (tag.low is None or value >= tag.low) and (tag.high is None or value <= tag.high)


_ALMOST: Final = {
    "°C": "degC", "C": "degC", "ml": "mL", "l": "L", "10^6/mL": "1e6/mL", "10e6/mL": "1e6/mL", "cells/mL": "1/mL",
    "LMH": "L/m2/h", "mM": "mmol/L", "M": "mol/L",
}  # fmt: skip
"""How people write some units; the hint names ours."""


def unknown_unit(unit: str, place: Place) -> LinesideError:
    """The refusal of a unit of measure that Lineside does not know."""
    return LinesideError(
        "unit.unknown",
        f"There is no unit of measure {unit[:20]!r}.",
        todo=closest(_ALMOST.get(unit, unit).replace("\N{GREEK SMALL LETTER MU}", "u"), [u for u in MEASURES if u]),
        place=place,
    )


def _inconsistencies(plant: Plant, document: Document) -> Iterator[LinesideError]:
    if len(plant.alarm_watches) > ALARMS_MAX:
        yield LinesideError(
            "plant.too_many_alarms",
            f"The tags have {len(plant.alarm_watches)} alarms; a box watches at most {ALARMS_MAX}.",
            todo="Keep those on which a person has to act.",
            place=document.place(("units",)),
        )
    for unit_name, unit in plant.units.items():
        here: Path = ("units", unit_name)
        if "." in unit_name:
            yield LinesideError(
                "plant.dotted_unit",
                f"The unit {unit_name!r} has a dot in its name, which separates a unit from its tag.",
                todo="Use a hyphen.",
                place=document.place(here),
            )
        for tag_name, tag in unit.tags.items():
            yield from _tag_problems(plant, unit, f"{unit_name}.{tag_name}", tag, (*here, "tags", tag_name), document)
        for index, action in enumerate(unit.safe_state):
            yield from _safe_problems(unit, unit_name, action, (*here, "safe_state", index), document)
        if unit.watchdog is not None:
            yield from _watchdog_problems(unit, unit_name, unit.watchdog, (*here, "watchdog"), document)
        for name, service in unit.services.items():
            yield from _service_problems(unit, name, service, (*here, "services", name), document)


def _tag_problems(
    plant: Plant, unit: Unit, name: str, tag: Tag, here: Path, document: Document
) -> Iterator[LinesideError]:
    connection = plant.connections.get(tag.connection)
    if connection is None:
        yield LinesideError(
            "plant.unknown_connection",
            f"The tag {name} is reached over {tag.connection!r}; there is no such connection.",
            todo=closest(tag.connection, list(plant.connections)),
            place=document.place((*here, "connection")),
        )
    elif tag.stale_s <= connection.poll_s:
        yield LinesideError(
            "plant.always_stale",
            f"The tag {name} is stale after {tag.stale_s:g} s but read every {connection.poll_s:g} s only.",
            todo="Make `stale_s` at least twice the connection's `poll_s`.",
            place=document.place((*here, "stale_s")),
        )
    if tag.unit not in MEASURES:
        yield unknown_unit(tag.unit, document.place((*here, "unit")))
    if not numeric(tag):
        if tag.unit or tag.low is not None or tag.high is not None or tag.tolerance:
            yield LinesideError(
                "plant.not_a_number",
                f"The tag {name} is a {tag.type}; unit, low, high and tolerance mean nothing there.",
                todo="Remove them, or correct `type`.",
                place=document.place(here),
            )
    elif tag.low is not None and tag.high is not None and tag.low >= tag.high:
        yield LinesideError(
            "plant.upside_down",
            f"The range of {name} goes from {tag.low:g} to {tag.high:g}.",
            todo="`low` must be below `high`.",
            place=document.place((*here, "low")),
        )
    elif tag.access == "write" and (tag.low is None or tag.high is None):
        yield LinesideError(
            "plant.unbounded",
            f"The tag {name} can be written, but what is sensible to write is not bounded.",
            todo="Give `low` and `high`.",
            place=document.place(here),
        )
    if tag.resolution is not None and tag.type != "float":
        yield LinesideError(
            "plant.resolution",
            f"The tag {name} is a {tag.type}; `resolution` means something for a float alone.",
            todo="Remove it, or correct `type`.",
            place=document.place((*here, "resolution")),
        )
    yield from _guard_problems(plant, name, tag, here, document)
    for alarm_name, alarm in tag.alarms.items():
        if told := _alarm_problem(tag, alarm):
            yield LinesideError(
                "plant.alarm",
                f"The alarm {alarm_name!r} of {name} {told[0]}.",
                todo=told[1],
                place=document.place((*here, "alarms", alarm_name)),
            )
    if tag.read_back:
        yield from _read_back_problems(unit, name, tag, here, document)
    if tag.method is not None:
        yield from _method_problems(name, tag, tag.method, here, document)


def _method_problems(name: str, tag: Tag, method: Method, here: Path, document: Document) -> Iterator[LinesideError]:
    used = tag.read_back or tag.alarms or tag.frozen_after_s or tag.change_max
    if tag.type != "text" or tag.access != "write" or used:
        yield LinesideError(
            "plant.method",
            f"The tag {name} is a method, and a {tag.type} with access {tag.access}"
            + (", which is read." if used else "."),
            todo="Give it `type: text` and `access: write`; it has no value for read_back, alarms or limits of change.",
            place=document.place(here),
        )
    for key, group in (("arguments", method.arguments), ("results", method.results)):
        for argument_name, one in group.items():
            place = document.place((*here, "method", key, argument_name))
            if one.unit not in MEASURES:
                yield unknown_unit(one.unit, place)
            bounds = (one.low, one.high)
            if numeric(one) and key == "arguments" and None in bounds:
                yield LinesideError(
                    "plant.unbounded",
                    f"What is sensible to give {name} as {argument_name!r} is not bounded.",
                    todo="Give `low` and `high`.",
                    place=place,
                )
            elif not numeric(one) and (one.unit or bounds != (None, None)):
                yield LinesideError(
                    "plant.not_a_number",
                    f"{argument_name!r} of {name} is a {one.type}; unit, low and high mean nothing there.",
                    todo="Remove them, or correct `type`.",
                    place=place,
                )
            elif one.low is not None and one.high is not None and one.low >= one.high:
                yield LinesideError(
                    "plant.upside_down",
                    f"The range of {argument_name!r} of {name} goes from {one.low:g} to {one.high:g}.",
                    todo="`low` must be below `high`.",
                    place=place,
                )


def permit_of(plant: Plant, name: str) -> tuple[Formula, dict[str, str]] | None:
    """The interlock of a tag, read, and which tag each name in it is; None without one. Raises `formula.*`."""
    unit, _, own = name.partition(".")
    interlock = plant.units[unit].tags[own].interlock
    if interlock is None:
        return None
    known = {tag: f"{unit}.{tag}" for tag in plant.units[unit].tags} | dict(interlock.tags)
    variables = {
        short: Variable("bool" if tag.type == "bool" else "text" if tag.type == "text" else "number", tag.unit)
        for short, full in known.items()
        if (tag := plant.tag(full)) is not None
    }
    return compile_formula(interlock.permit, variables, "bool"), known


def _guard_problems(plant: Plant, name: str, tag: Tag, here: Path, document: Document) -> Iterator[LinesideError]:
    """What is wrong with how a tag's writes and readings are limited further."""
    connection = plant.connections.get(tag.connection)
    if tag.frozen_after_s is not None and connection and tag.frozen_after_s <= 2 * connection.poll_s:
        yield LinesideError(
            "plant.always_frozen",
            f"The tag {name} is frozen after {tag.frozen_after_s:g} s and read every {connection.poll_s:g} s.",
            todo="Make `frozen_after_s` longer than any time in which the value may rightly stand still.",
            place=document.place((*here, "frozen_after_s")),
        )
    for key, given in (
        ("frozen_change", tag.frozen_change and (tag.frozen_after_s is None or not numeric(tag))),
        ("change_max", tag.change_max is not None and (tag.access != "write" or not numeric(tag))),
        ("change_every_s", tag.change_every_s and tag.access != "write"),
        ("interlock", tag.interlock is not None and tag.access != "write"),
    ):
        if given:
            yield LinesideError(
                "plant.limit_unused",
                f"The tag {name} gives `{key}`, which means nothing there.",
                todo="`frozen_change` is for numbers with `frozen_after_s`, `change_max` for numbers that are written, "
                "`interlock` and `change_every_s` for tags with `access: write`.",
                place=document.place((*here, key)),
            )
    if tag.interlock is None:
        return
    for short, full in tag.interlock.tags.items():
        if plant.tag(full) is None:
            yield LinesideError(
                "plant.interlock_tag",
                f"The interlock of {name} calls {full[:80]!r} {short!r}; the plant has no such tag.",
                todo=closest(full, list(plant.tags())),
                place=document.place((*here, "interlock", "tags", short)),
            )
            return
    try:
        permit_of(plant, name)
    except LinesideError as error:
        yield replace(error, place=document.place((*here, "interlock", "permit")))


def _alarm_problem(tag: Tag, alarm: TagAlarm) -> tuple[str, str] | None:
    """What is wrong with an alarm, and what to do."""
    ends = [end for end in (alarm.low, alarm.high) if end is not None]
    if tag.type == "bool" and (alarm.equals is None or ends or alarm.deadband):
        return "is of a tag that is true or false", "Give `equals: true` or `equals: false`, and no limits."
    if numeric(tag) and (alarm.equals is not None or not ends):
        return "says no limit that a number could leave", "Give `low`, `high` or both, and no `equals`."
    if tag.type == "text":
        return "is of a tag that is a text", "Watch a tag that is a number, or true or false."
    if alarm.low is not None and alarm.high is not None and alarm.low + 2 * alarm.deadband > alarm.high:
        return "could never be over: no value is inside by its deadband", "Correct `low`, `high` or `deadband`."
    if any(not within(end, tag) for end in ends):
        return "has a limit outside the tag's range: a reading there is bad, and raises nothing", "Correct the limit."
    return None


def _read_back_problems(unit: Unit, name: str, tag: Tag, here: Path, document: Document) -> Iterator[LinesideError]:
    place = document.place((*here, "read_back"))
    other = unit.tags.get(tag.read_back)
    if tag.access != "write":
        yield LinesideError(
            "plant.read_back_unused",
            f"The tag {name} is only read; `read_back` means nothing there.",
            todo="Remove it, or add `access: write`.",
            place=place,
        )
    elif other is None:
        yield LinesideError(
            "plant.unknown_read_back",
            f"The tag {name} is read back from {tag.read_back[:64]!r}; the unit has no such tag.",
            todo=closest(tag.read_back, list(unit.tags)),
            place=place,
        )
    elif any(f"{service.acting}" == name.partition(".")[2] for service in unit.services.values()):
        return  # a state is compared with what a command leads to, not with the command
    elif numeric(other) != numeric(tag) or other.unit != tag.unit:
        yield LinesideError(
            "plant.read_back_unit",
            f"The tag {name} ({tag.type}, {tag.unit or 'no unit'}) is read back from {tag.read_back!r}"
            f" ({other.type}, {other.unit or 'no unit'}): they cannot be compared.",
            todo="Read it back from a tag of the same kind, in the same unit of measure.",
            place=place,
        )


def _safe_problems(
    unit: Unit, unit_name: str, action: SafeAction, here: Path, document: Document
) -> Iterator[LinesideError]:
    tag = unit.tags.get(action.tag)
    if tag is None or tag.access != "write" or tag.method is not None:
        writable = [name for name, one in unit.tags.items() if one.access == "write" and one.method is None]
        yield LinesideError(
            "plant.safe_state_tag",
            f"The safe state of {unit_name} writes {action.tag!r}, "
            + ("which the unit does not have." if tag is None else "which is no set-point."),
            todo=closest(action.tag, writable),
            place=document.place((*here, "tag")),
        )
        return
    value = action.value
    place = document.place((*here, "value"))
    fits = {
        "float": isinstance(value, int | float) and not isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "bool": isinstance(value, bool),
        "text": isinstance(value, str),
    }[tag.type]
    if not fits:
        yield LinesideError(
            "plant.safe_state_type",
            f"The safe state of {unit_name} writes {value!r} to {action.tag!r}, which is a {tag.type}.",
            todo=f"Give a {tag.type}.",
            place=place,
        )
    elif isinstance(value, int | float) and not within(float(value), tag):
        yield LinesideError(
            "plant.safe_state_outside",
            f"The safe state of {unit_name} writes {value:g} to {action.tag!r}, which is outside its range.",
            todo="Give a value within the range.",
            place=place,
        )


def _watchdog_problems(
    unit: Unit, unit_name: str, watchdog: Watchdog, here: Path, document: Document
) -> Iterator[LinesideError]:
    tag, place = unit.tags.get(watchdog.tag), document.place((*here, "tag"))
    wanted = "bool" if watchdog.kind == "toggle" else "int"
    used = {action.tag for action in unit.safe_state} | {
        one for s in unit.services.values() for one in s.written().values()
    }
    if tag is None:
        yield LinesideError(
            "plant.watchdog_tag",
            f"The watchdog of {unit_name} is at {watchdog.tag!r}; the unit has no such tag.",
            todo=closest(watchdog.tag, list(unit.tags)),
            place=place,
        )
    elif tag.access != "write" or tag.type != wanted:
        yield LinesideError(
            "plant.watchdog_type",
            f"The watchdog of {unit_name} is a {watchdog.kind}, and {watchdog.tag!r} is a {tag.type} with access "
            f"{tag.access}.",
            todo=f"It must be of type {wanted}, with `access: write`.",
            place=place,
        )
    elif wanted == "int" and not (tag.low == 0 and tag.high is not None and tag.high >= 2):
        yield LinesideError(
            "plant.watchdog_range",
            f"The watchdog of {unit_name} counts from 1 on, and stands at 0 when it is let go; {watchdog.tag!r} goes "
            f"from {tag.low} to {tag.high}.",
            todo="Give the tag `low: 0` and a `high` of 2 at least.",
            place=place,
        )
    elif watchdog.tag in used:
        yield LinesideError(
            "plant.watchdog_used",
            f"{watchdog.tag!r} is the watchdog of {unit_name}, and something else of the unit writes it too.",
            todo="Give the watchdog a tag of its own.",
            place=place,
        )


_SERVICE_TYPES = {"state": "int", "command": "int", "procedure": "int", "enabled": "int", "unit_mode": "int"}
_SERVICE_TYPES |= {"mode": "int"}
_SERVICE_TYPES |= dict.fromkeys(
    ("request", "automatic", "external", "to_automatic", "to_external", "applied_by"), "bool"
)
_OF_KIND = {
    "mtp": ("enabled", "automatic", "external", "to_automatic", "to_external", "mode"),
    "packml": ("request", "unit_mode"),
}


def _service_problems(
    unit: Unit, name: str, service: UnitService, here: Path, document: Document
) -> Iterator[LinesideError]:
    for kind, keys in _OF_KIND.items():
        for key in keys:
            if kind != service.kind and getattr(service, key) is not None:
                yield LinesideError(
                    "plant.service_kind",
                    f"The service {name!r} is of kind {service.kind}; `{key}` belongs to {kind}.",
                    todo="Remove it, or correct `kind`.",
                    place=document.place((*here, key)),
                )
    wanted = [(key, tag, "write") for key, tag in service.written().items()]
    wanted += [(key, tag, "read") for key, tag in service.read().items()]
    for key, tag_name, access in wanted:
        tag, place = unit.tags.get(tag_name), document.place((*here, *key.split(".", 1)))
        needed = _SERVICE_TYPES.get(key.partition(".")[0])
        if tag is None:
            yield LinesideError(
                "plant.service_tag",
                f"The service {name!r} has its {key} at {tag_name!r}; the unit has no such tag.",
                todo=closest(tag_name, list(unit.tags)),
                place=place,
            )
        elif (access == "write" and tag.access != "write") or (needed and tag.type != needed) or tag.method is not None:
            yield LinesideError(
                "plant.service_tag_type",
                f"The {key} of the service {name!r} is at {tag_name!r}, a {tag.type} with access {tag.access}.",
                todo=f"It must be {f'of type {needed}' if needed else 'a tag'}"
                + (" with `access: write`." if access == "write" else "."),
                place=place,
            )
    for key, at in (
        ("request" if service.request else "command", service.state),
        ("to_automatic", service.automatic or "automatic"),
        ("to_external", service.external or "external"),
    ):
        tag = unit.tags.get(getattr(service, key) or "")
        if tag is not None and tag.read_back != at:
            yield LinesideError(
                "plant.service_read_back",
                f"Whether the service {name!r} takes what {getattr(service, key)!r} tells it is seen at {at!r}, and it "
                "is not read back from there.",
                todo=f"Give that tag `read_back: {at}`, and `settle_s`: so long taking it may last.",
                place=document.place((*here, key)),
            )
    yield from _applied_problems(unit, name, service, here, document)
    yield from _procedure_problems(name, service, here, document)


def _applied_problems(
    unit: Unit, name: str, service: UnitService, here: Path, document: Document
) -> Iterator[LinesideError]:
    """What is wrong with how parameters take effect."""
    for key, group in (("applied_by", service.applied_by), ("in_force", service.in_force)):
        for parameter in group:
            if parameter not in service.parameters:
                yield LinesideError(
                    "plant.service_parameter",
                    f"`{key}` of the service {name!r} names {parameter!r}, which is not in `parameters`.",
                    todo=closest(parameter, list(service.parameters)),
                    place=document.place((*here, key, parameter)),
                )
    for parameter in service.applied_by:
        written = unit.tags.get(service.parameters.get(parameter, ""))
        shown = unit.tags.get(service.in_force.get(parameter, ""))
        if written is not None and (shown is None or (shown.type, shown.unit) != (written.type, written.unit)):
            yield LinesideError(
                "plant.service_in_force",
                f"The parameter {parameter!r} of the service {name!r} takes effect only when it is applied, and no tag "
                "of its type and unit shows what is in force.",
                todo=f"Give `in_force: {{{parameter}: TAG}}`: a {written.type} in {written.unit or 'no unit'}.",
                place=document.place((*here, "applied_by", parameter)),
            )


def _procedure_problems(name: str, service: UnitService, here: Path, document: Document) -> Iterator[LinesideError]:
    if len(service.procedures) > 1 and service.procedure is None:
        yield LinesideError(
            "plant.service_procedure",
            f"The service {name!r} has {len(service.procedures)} procedures, and nothing says how one is chosen.",
            todo="Give `procedure`: the tag that takes the procedure's number.",
            place=document.place((*here, "procedures")),
        )
    for key, procedure in service.procedures.items():
        for parameter in procedure.parameters or ():
            if parameter not in service.parameters:
                yield LinesideError(
                    "plant.service_parameter",
                    f"The procedure {key!r} of the service {name!r} uses {parameter!r}, which is not in `parameters`.",
                    todo=closest(parameter, list(service.parameters)),
                    place=document.place((*here, "procedures", key, "parameters")),
                )
