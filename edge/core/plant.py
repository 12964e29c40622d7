"""The ISA-88 physical model of one box: connections, units, tags, their limits and bindings.

A plant file is YAML (see `docs/reference/plant.md`); `edge.core.plant.read_plant` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.core.document import Document, Path, closest, read_document, together, validate
from edge.core.errors import LinesideError, Place
from edge.core.terms import MEASURES, Value, same_dimension

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]


class Frozen(BaseModel):
    """Base of every document model: unknown keys are errors, instances do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Connection(Frozen):
    """How one device is reached. `settings` belong to the driver, which checks them itself."""

    driver: Name
    settings: Mapping[str, Value] = Field(default_factory=dict)
    timeout_s: float = Field(default=2.0, gt=0, le=60)
    poll_s: float = Field(default=1.0, ge=0.02, le=3600)


class Tag(Frozen):
    """One value at a device, in the unit of measure `unit`.

    `low` and `high` bound what is physically sensible: a reading outside is not good, a write outside is
    refused. Process values are stored in steps of `resolution`, and bit by bit without one. A tag with
    `access: write` is a set-point; its outcome is read back from `read_back` (another tag
    of the same unit; itself when empty) within `settle_s` and must agree within `tolerance`.
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
    read_back: str = ""
    tolerance: float = Field(default=0.0, ge=0)
    settle_s: float = Field(default=2.0, gt=0, le=60)
    why: str = ""


class SafeAction(Frozen):
    """One write of a unit's safe state. It never waits for the journal."""

    tag: Name
    value: Value


class Unit(Frozen):
    """An ISA-88 unit: a class, its tags, and what makes it safe."""

    cls: Name = Field(alias="class")
    title: str = ""
    tags: Mapping[Name, Tag] = Field(default_factory=dict)
    safe_state: tuple[SafeAction, ...] = ()


class Plant(Frozen):
    """All that this box may read and write. `tag("BR-1.temperature")` finds a tag by its full name."""

    plant: Name
    connections: Mapping[Name, Connection] = Field(default_factory=dict)
    units: Mapping[Name, Unit] = Field(default_factory=dict)

    def tag(self, full_name: str) -> Tag | None:
        """The tag called "UNIT.tag", or None."""
        unit, _, name = full_name.partition(".")
        found = self.units.get(unit)
        return found.tags.get(name) if found else None

    def tags(self) -> dict[str, Tag]:
        """Every tag by its full name "UNIT.tag"."""
        return {f"{u}.{t}": tag for u, unit in self.units.items() for t, tag in unit.tags.items()}


def read_plant(data: bytes, name: str) -> Plant:
    """Read a plant file. Raises `LinesideError` (`document.*`, `plant.*`) with every finding of one run: the
    first, the others in `others`."""
    document = read_document(data, name)
    plant = validate(document, Plant)
    problems = sorted(_inconsistencies(plant, document), key=lambda one: one.place.line if one.place else 0)
    if problems:
        raise together(problems)
    return plant


def numeric(tag: Tag) -> bool:
    """True when the tag's value is a number."""
    return tag.type in ("float", "int")


def within(value: float, tag: Tag) -> bool:
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
    if tag.read_back:
        yield from _read_back_problems(unit, name, tag, here, document)


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
    elif numeric(other) != numeric(tag) or not same_dimension(other.unit, tag.unit):
        yield LinesideError(
            "plant.read_back_unit",
            f"The tag {name} ({tag.type}, {tag.unit or 'no unit'}) is read back from {tag.read_back!r}"
            f" ({other.type}, {other.unit or 'no unit'}): they cannot be compared.",
            todo="Read it back from a tag of the same kind.",
            place=place,
        )


def _safe_problems(
    unit: Unit, unit_name: str, action: SafeAction, here: Path, document: Document
) -> Iterator[LinesideError]:
    tag = unit.tags.get(action.tag)
    if tag is None or tag.access != "write":
        writable = [name for name, one in unit.tags.items() if one.access == "write"]
        yield LinesideError(
            "plant.safe_state_tag",
            f"The safe state of {unit_name} writes {action.tag!r}, "
            + ("which the unit does not have." if tag is None else "which can only be read."),
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
