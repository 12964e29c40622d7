"""The physics of the simulated cell, in closed form: any stretch of process time is passed in one step.

The servers let it pass with the wall clock; `VirtualCell` lets it pass when it is told to, for rehearsals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from drivers.sim.services import ModuleModel
from edge.core.plant import Plant
from edge.core.terms import Value

PUMP_TAU_S: Final = 1.0
SPEED_MAX: Final = 200.0
DENSITY_G_ML: Final = 1.0
STABLE_BELOW_ML_MIN: Final = 0.5
STILL: Final = 1e-4
"""What is as near as this to where it goes, as a share of it, does not move any more."""


@dataclass(slots=True)
class Loop:
    """One controlled value: it follows its set-point with the time constant, plus noise where it is measured."""

    name: str
    setpoint: float
    value: float
    tau_s: float
    noise: float

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        self.value = self.setpoint + (self.value - self.setpoint) * math.exp(-elapsed_s / self.tau_s)


def reactor_loops() -> list[Loop]:
    """What a bioreactor controls, as it is when it is switched on."""
    return [
        Loop("temperature", 25.0, 25.0, 60.0, 0.02),
        Loop("ph", 7.20, 7.20, 90.0, 0.004),
        Loop("dissolved_oxygen", 40.0, 40.0, 45.0, 0.15),
        Loop("agitation", 0.0, 0.0, 5.0, 0.2),
        Loop("co2", 5.0, 5.0, 30.0, 0.01),
        Loop("o2", 20.9, 20.9, 30.0, 0.01),
    ]


AIR: Final = {"temperature": 22.0, "co2": 0.04, "humidity": 40.0}
"""What comes in by an incubator's open door ..."""
AIR_TAU_S: Final = {"temperature": 240.0, "co2": 15.0, "humidity": 30.0}
"""... and how fast."""
AWAY: Final = {"temperature": 1.0, "co2": 0.5, "humidity": 10.0}
"""So far from its set-point an incubator's value raises the alarm."""
INCUBATOR_RANGES: Final = {"temperature": (4.0, 50.0), "co2": (0.0, 20.0), "humidity": (0.0, 97.0)}


class Incubator:
    """A CO2 incubator, warm and moist. Each value follows its set-point; while the door is open, the air of the room.
    The alarm is on while a value is away from a set-point that it had reached."""

    def __init__(self) -> None:
        self.loops = {
            "temperature": Loop("temperature", 37.0, 37.0, 600.0, 0.02),
            "co2": Loop("co2", 5.0, 5.0, 120.0, 0.01),
            "humidity": Loop("humidity", 95.0, 95.0, 900.0, 0.2),
        }
        self.door_open = False
        self._reached = set(self.loops)

    @property
    def alarm(self) -> bool:
        """What it sounds itself."""
        return any(self._away(name) for name in self._reached)

    def set(self, name: str, setpoint: float) -> None:
        """Take a new set-point; until it is reached, to be away from it is no alarm."""
        low, high = INCUBATOR_RANGES[name]
        self.loops[name].setpoint = min(max(setpoint, low), high)
        self._reached.discard(name)

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        for name, loop in self.loops.items():
            if self.door_open:
                loop.value = AIR[name] + (loop.value - AIR[name]) * math.exp(-elapsed_s / AIR_TAU_S[name])
            else:
                loop.pass_s(elapsed_s)
            if not self._away(name):
                self._reached.add(name)

    def _away(self, name: str) -> bool:
        return abs(self.loops[name].value - self.loops[name].setpoint) > AWAY[name]


@dataclass(slots=True)
class Pump:
    """A peristaltic pump: its rate follows the set-point while it runs and is not off."""

    setpoint: float = 0.0
    rate: float = 0.0
    volume_ml: float = 0.0
    run: bool = True
    off: bool = False

    @property
    def target(self) -> float:
        """The rate that it goes to."""
        return self.setpoint if self.run and not self.off else 0.0

    @property
    def running(self) -> bool:
        """What the pump itself says."""
        return self.rate > STABLE_BELOW_ML_MIN

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        fading = math.exp(-elapsed_s / PUMP_TAU_S)
        self.volume_ml += (self.target * elapsed_s + (self.rate - self.target) * PUMP_TAU_S * (1.0 - fading)) / 60.0
        self.rate = self.target + (self.rate - self.target) * fading


class VirtualCell:
    """The simulated cell of any plant on virtual time, without noise: bioreactors, incubators, pumps and balances by
    their class, its modules by the services that they declare. A balance weighs what all pumps have pumped. Other tags,
    and the same in other units, it does not have."""

    def __init__(self, plant: Plant) -> None:
        of = {cls: [name for name, unit in plant.units.items() if unit.cls == cls] for cls in _CLASSES}
        self._loops: dict[str, Loop] = {
            f"{unit}.{loop.name}": loop for unit in of["bioreactor"] for loop in reactor_loops()
        }
        self._incubators = {unit: Incubator() for unit in of["incubator"]}
        self._loops |= {
            f"{unit}.{name}": loop for unit, it in self._incubators.items() for name, loop in it.loops.items()
        }
        self._pumps = {unit: Pump() for unit in of["pump"]}
        self._tares_g = dict.fromkeys(of["balance"], 0.0)
        self._modules = {name: ModuleModel(unit) for name, unit in plant.units.items() if unit.services}
        self._tags = frozenset(
            name for name, tag in plant.tags().items() if tag.unit == _UNITS.get(name.partition(".")[2])
        )

    def fork(self) -> VirtualCell:
        """The same cell, which from here on goes another way."""
        return deepcopy(self)

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        for name, loop in self._loops.items():
            if name.partition(".")[0] not in self._incubators:
                loop.pass_s(elapsed_s)
        for incubator in self._incubators.values():
            incubator.pass_s(elapsed_s)
        for pump in self._pumps.values():
            pump.pass_s(elapsed_s)
        for module in self._modules.values():
            module.pass_s(elapsed_s)

    def still(self, tag: str) -> bool:
        """True when what the tag shows does not change any more until something is written."""
        unit, _, name = tag.partition(".")
        if unit in self._modules and self._modules[unit].read(name) is not None:
            return self._modules[unit].still(name)
        if loop := self._loops.get(tag):
            return _arrived(loop.value, loop.setpoint)
        pumps = [pump for name, pump in self._pumps.items() if name == unit or unit in self._tares_g]
        sums = unit in self._tares_g or name == "volume"
        return all(_arrived(pump.rate, pump.target) and not (sums and pump.target) for pump in pumps)

    def read(self, tag: str) -> Value | None:
        """What the tag shows; None when the cell does not have it."""
        unit, _, name = tag.partition(".")
        if unit in self._modules and (shown := self._modules[unit].read(name)) is not None:
            return shown
        return self._shown(tag) if tag in self._tags else None

    def write(self, tag: str, value: Value) -> bool:
        """Let a set-point act; False when the cell does not have it."""
        unit, _, name = tag.partition(".")
        loop = self._loops.get(tag.removesuffix("_setpoint")) if name.endswith("_setpoint") else None
        pump = self._pumps.get(unit)
        if unit in self._modules and self._modules[unit].write(name, value):
            return True
        if tag not in self._tags:
            return False
        if loop is not None and unit in self._incubators:
            self._incubators[unit].set(loop.name, float(value))
        elif loop is not None:
            loop.setpoint = float(value)
        elif pump is not None and name == "speed_setpoint":
            pump.setpoint = min(max(float(value), 0.0), SPEED_MAX)
        elif pump is not None and name == "run":
            pump.run = bool(value)
        elif unit in self._tares_g and name == "tare":
            self._tares_g[unit] = self._pumped_g if value else self._tares_g[unit]
        else:
            return False
        return True

    @property
    def _pumped_g(self) -> float:
        return sum(pump.volume_ml for pump in self._pumps.values()) * DENSITY_G_ML

    def _shown(self, tag: str) -> Value | None:
        unit, _, name = tag.partition(".")
        if loop := self._loops.get(tag):
            return loop.value
        if name.endswith("_setpoint") and (loop := self._loops.get(tag.removesuffix("_setpoint"))):
            return loop.setpoint
        shown: Mapping[str, Value] = {}
        if incubator := self._incubators.get(unit):
            shown = {"door_open": incubator.door_open, "alarm": incubator.alarm}
        if pump := self._pumps.get(unit):
            shown = {
                "speed": pump.rate,
                "speed_setpoint": pump.setpoint,
                "volume": pump.volume_ml,
                "run": pump.run,
                "running": pump.running,
            }
        elif unit in self._tares_g:
            stable = not any(pump.running for pump in self._pumps.values())
            shown = {"weight": self._pumped_g - self._tares_g[unit], "stable": stable, "tare": False}
        return shown.get(name)


def _arrived(value: float, target: float) -> bool:
    return abs(target - value) <= STILL * max(1.0, abs(target))


# What the cell shows each tag in; a plant whose tag has another unit has another device.
_CONTROLLED: Final = {
    "temperature": "degC", "ph": "pH", "dissolved_oxygen": "%", "agitation": "rpm", "co2": "%", "o2": "%",
    "humidity": "%", "speed": "mL/min",
}  # fmt: skip
_UNITS: Final = {
    **_CONTROLLED, **{f"{name}_setpoint": unit for name, unit in _CONTROLLED.items()},
    "volume": "mL", "weight": "g", "run": "", "running": "", "stable": "", "tare": "", "door_open": "", "alarm": "",
}  # fmt: skip
_CLASSES: Final = ("bioreactor", "incubator", "pump", "balance")
