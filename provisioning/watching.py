"""Live values of the plant, as an engineer looks at them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from edge.core.errors import LinesideError
from edge.core.plant import Plant, read_plant
from edge.core.terms import Quality, Value
from edge.equipment import Equipment, installed_drivers
from edge.explorer import shown
from edge.library import read_bounded
from provisioning.equipment import Station


@dataclass(frozen=True, slots=True)
class Seen:
    """One tag as it stands, `age_s` after it was read. `source_utc` is the device's own time, where it has one."""

    utc: str
    tag: str
    value: Value
    unit: str
    quality: Quality
    detail: str
    age_s: float
    source_utc: str

    def line(self) -> str:
        """For a person."""
        value = f"{self.value:.7g}" if isinstance(self.value, float) else shown(self.value)
        why = f" ({shown(self.detail)})" if self.detail else ""
        source = f"  at the device {self.source_utc}" if self.source_utc else ""
        head = f"{self.utc[11:23]}Z  {self.tag:<32}"
        if self.quality is Quality.BAD:
            return f"{head}{'-':>14}  {self.quality.value}{why}{source}"
        return f"{head}{value:>14} {self.unit:<8} {self.quality.value}{why}, {self.age_s:.1f} s old{source}"

    def as_json(self) -> str:
        """For a machine."""
        facts: dict[str, Any] = {"utc": self.utc, "tag": self.tag, "value": self.value, "unit": self.unit}
        facts |= {"quality": self.quality.value, "detail": self.detail, "age_s": round(self.age_s, 3)}
        return json.dumps(facts | {"source_utc": self.source_utc})


def wanted_tags(plant: Plant, names: Sequence[str]) -> list[str]:
    """The tags of these names or units; all without any. Raises `guard.unknown_tag`."""
    tags = plant.tags()
    if not names:
        return list(tags)
    found: dict[str, None] = {}
    for name in names:
        of_it = [tag for tag in tags if tag == name or tag.partition(".")[0] == name]
        if not of_it:
            raise LinesideError(
                "equipment.nothing_to_watch",
                f"{name[:80]!r} is neither a tag nor a unit of the plant.",
                todo=f"Name one as UNIT.tag, or a unit: {', '.join(plant.units) or 'there is none'}.",
            )
        found |= dict.fromkeys(of_it)
    return list(found)


async def watch(station: Station, names: Sequence[str]) -> AsyncGenerator[Seen, None]:
    """Every change of these tags, from what stands first on. Connects by itself, also while the box runs."""
    plant = read_plant(read_bounded(station.config.plant), str(station.config.plant))
    tags = wanted_tags(plant, names)
    used = {tag.connection for name, tag in plant.tags().items() if name in tags}
    connections = {name: one for name, one in plant.connections.items() if name in used}
    units = {
        name: unit.model_copy(
            update={
                "tags": {key: tag for key, tag in unit.tags.items() if tag.connection in used},
                "services": {},
                "safe_state": (),
            }
        )
        for name, unit in plant.units.items()
    }
    changed = asyncio.Event()
    async with Equipment(
        plant.model_copy(update={"connections": connections, "units": units}),
        installed_drivers(),
        now_s=station.now_s,
        utc=station.utc,
        on_change=changed.set,
        home=station.home,
    ) as equipment:
        await equipment.watch(tags)
        while True:
            await changed.wait()
            changed.clear()
            for name in sorted(equipment.take_changed(), key=tags.index):
                reading = equipment.latest(name)
                if reading is not None:
                    yield Seen(
                        station.utc(),
                        name,
                        reading.value,
                        reading.unit,
                        reading.quality,
                        reading.detail,
                        max(0.0, station.now_s() - reading.at_boottime_s),
                        reading.source_utc,
                    )
