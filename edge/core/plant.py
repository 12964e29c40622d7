"""The ISA-88 physical model of one box: connections, units, tags, their limits and bindings.

A plant file is YAML (see `docs/reference/plant.md`); `edge.core.plant.read_plant` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge.core.terms import Value

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
    refused. A tag with `access: write` is a set-point; its outcome is read back from `read_back` (another tag
    of the same unit; itself when empty) within `settle_s` and must agree within `tolerance`.
    """

    connection: Name
    address: str = Field(max_length=200)
    type: Literal["float", "int", "bool", "text"] = "float"
    unit: str = ""
    access: Literal["read", "write"] = "read"
    low: float | None = None
    high: float | None = None
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
