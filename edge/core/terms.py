"""The vocabulary: one word for one thing (see `docs/glossary.md`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from edge.core.errors import LinesideError
from edge.core.quick import dataclass

Value = bool | int | float | str
"""What a reading, a set-point or a recorded datum can be. Never None, never NaN when quality is good."""
PENDING: Final = "pending"
"""What is entered for a result that is not there yet."""


ORDER_CODE: Final = "LSO1;"
"""What the code of an order begins with: see `edge.core.orders`."""


class Quality(StrEnum):
    """How far a reading may be trusted. Only GOOD may satisfy a limit or complete a step."""

    GOOD = "good"
    UNCERTAIN = "uncertain"
    BAD = "bad"


class ClockQuality(StrEnum):
    """What is known of the wall clock when a row was made. Durations never depend on it."""

    SYNCED = "synced"
    FREE = "free"


class Role(StrEnum):
    """Default deny: a person may do only what one of these roles permits."""

    OPERATOR = "operator"
    VERIFIER = "verifier"
    SUPERVISOR = "supervisor"
    QUALITY = "quality"
    ENGINEER = "engineer"
    ADMINISTRATOR = "administrator"
    AUDITOR = "auditor"


class State(StrEnum):
    """ISA-88 states of a batch or a step. Each member's comment says what it permits."""

    IDLE = "idle"
    """It waits for its units; nothing has happened. Start (when they are free), Stop and Abort are allowed."""
    RUNNING = "running"
    """Steps proceed. Pause, Hold, Stop and Abort are allowed; a step may be switched to another mode (see
    `edge.core.mode`), and entries by hand are taken."""
    PAUSING = "pausing"
    """The present step runs to its end, no further one starts. Hold, Stop and Abort are allowed; a step may be switched
    to another mode, and entries by hand are taken."""
    PAUSED = "paused"
    """Between steps. Resume, Hold, Stop and Abort are allowed; a step that watches may be switched to another mode."""
    HOLDING = "holding"
    """Writes under way are being concluded. Stop and Abort are allowed. Nothing new is written."""
    HELD = "held"
    """Nothing moves. Answering a question, Resume (when none is open), Stop and Abort are allowed; a step may be
    switched to another mode, which closes the questions about its writes."""
    RESTARTING = "restarting"
    """Coming back from HELD. Hold, Stop and Abort are allowed."""
    STOPPING = "stopping"
    """An orderly end is being made. Abort is allowed."""
    STOPPED = "stopped"
    """Ended in order before its end. Nothing more is allowed."""
    ABORTING = "aborting"
    """An immediate end is being made. Nothing else is allowed."""
    ABORTED = "aborted"
    """Ended at once. Nothing more is allowed."""
    COMPLETE = "complete"
    """Every step is done. Review may begin."""


class Act(StrEnum):
    """A person's or the engine's ISA-88 command to a batch."""

    START = "start"
    PAUSE = "pause"
    HOLD = "hold"
    RESUME = "resume"
    STOP = "stop"
    ABORT = "abort"


# What each ISA-88 state permits a person to ask, and where it leads. What is not here is refused.
TRANSITIONS: Final[Mapping[tuple[State, Act], State]] = {
    (State.IDLE, Act.START): State.RUNNING,
    (State.IDLE, Act.STOP): State.STOPPING,
    (State.IDLE, Act.ABORT): State.ABORTING,
    (State.RUNNING, Act.PAUSE): State.PAUSING,
    (State.RUNNING, Act.HOLD): State.HOLDING,
    (State.RUNNING, Act.STOP): State.STOPPING,
    (State.RUNNING, Act.ABORT): State.ABORTING,
    (State.PAUSING, Act.HOLD): State.HOLDING,
    (State.PAUSING, Act.STOP): State.STOPPING,
    (State.PAUSING, Act.ABORT): State.ABORTING,
    (State.PAUSED, Act.RESUME): State.RUNNING,
    (State.PAUSED, Act.HOLD): State.HOLDING,
    (State.PAUSED, Act.STOP): State.STOPPING,
    (State.PAUSED, Act.ABORT): State.ABORTING,
    (State.HOLDING, Act.STOP): State.STOPPING,
    (State.HOLDING, Act.ABORT): State.ABORTING,
    (State.HELD, Act.RESUME): State.RESTARTING,
    (State.HELD, Act.STOP): State.STOPPING,
    (State.HELD, Act.ABORT): State.ABORTING,
    (State.RESTARTING, Act.HOLD): State.HOLDING,
    (State.RESTARTING, Act.STOP): State.STOPPING,
    (State.RESTARTING, Act.ABORT): State.ABORTING,
    (State.STOPPING, Act.ABORT): State.ABORTING,
}


@dataclass(frozen=True)
class Stamp:
    """When a row was made. `boottime_s` (CLOCK_BOOTTIME) orders and measures within one `boot`;
    `utc` (ISO 8601, microseconds, "Z") is for people and carries its quality."""

    utc: str
    quality: ClockQuality
    boottime_s: float
    boot: str


@dataclass(frozen=True, slots=True)
class Reading:
    """One value from equipment or a person, with unit, quality and source time (ISO 8601, or "" when the
    source gives none). `at_boottime_s` is when it reached this box. `detail` says why quality is not good."""

    value: Value
    unit: str
    quality: Quality
    source_utc: str
    at_boottime_s: float
    detail: str = ""

    @property
    def good(self) -> bool:
        """True when the value may be used: quality is GOOD and a number is finite."""
        return self.quality is Quality.GOOD and not (isinstance(self.value, float) and not math.isfinite(self.value))


@dataclass(frozen=True, slots=True)
class Elapsed:
    """A duration that may have a dark stretch in it: at least `low_s`, at most `high_s` seconds.

    `high_s` is infinite when the box was off and nothing trusted bounds the time."""

    low_s: float
    high_s: float
    known_s: float = 0.0
    """When `high_s` is infinite: at most so long without the times that nothing bounds."""


@dataclass(frozen=True, slots=True)
class _Measure:
    dimension: str
    factor: float
    offset: float = 0.0


# value_in_base = value * factor + offset. UCUM-like symbols of cell and gene therapy, cell culture and purification.
MEASURES: Final[dict[str, _Measure]] = {
    "": _Measure("none", 1.0),
    "1": _Measure("none", 1.0),
    "%": _Measure("none", 0.01),
    "% v/v": _Measure("none", 0.01),
    "degC": _Measure("temperature", 1.0, 273.15),
    "K": _Measure("temperature", 1.0),
    "degF": _Measure("temperature", 5.0 / 9.0, 459.67 * 5.0 / 9.0),
    "pH": _Measure("pH", 1.0),
    "s": _Measure("time", 1.0),
    "min": _Measure("time", 60.0),
    "h": _Measure("time", 3600.0),
    "d": _Measure("time", 86400.0),
    "m": _Measure("length", 1.0),
    "cm": _Measure("length", 1e-2),
    "mm": _Measure("length", 1e-3),
    "um": _Measure("length", 1e-6),
    "m/s": _Measure("velocity", 1.0),
    "cm/h": _Measure("velocity", 1e-2 / 3600.0),
    "m3": _Measure("volume", 1000.0),
    "L": _Measure("volume", 1.0),
    "mL": _Measure("volume", 1e-3),
    "uL": _Measure("volume", 1e-6),
    "kg": _Measure("mass", 1000.0),
    "g": _Measure("mass", 1.0),
    "mg": _Measure("mass", 1e-3),
    "ug": _Measure("mass", 1e-6),
    "ng": _Measure("mass", 1e-9),
    "m3/h": _Measure("volume flow", 1000.0 / 3600.0),
    "L/h": _Measure("volume flow", 1.0 / 3600.0),
    "L/min": _Measure("volume flow", 1.0 / 60.0),
    "mL/h": _Measure("volume flow", 1e-3 / 3600.0),
    "mL/min": _Measure("volume flow", 1e-3 / 60.0),
    "kg/h": _Measure("mass flow", 1000.0 / 3600.0),
    "g/h": _Measure("mass flow", 1.0 / 3600.0),
    "g/min": _Measure("mass flow", 1.0 / 60.0),
    "L/m2/h": _Measure("flux", 1.0),
    "CV": _Measure("column volumes", 1.0),
    "CV/h": _Measure("column volumes in a time", 1.0),
    "rpm": _Measure("rotation", 1.0),
    "1/min": _Measure("rotation", 1.0),
    "bar": _Measure("pressure", 1e5),
    "mbar": _Measure("pressure", 100.0),
    "kPa": _Measure("pressure", 1000.0),
    "Pa": _Measure("pressure", 1.0),
    "psi": _Measure("pressure", 6894.757293168),
    "V": _Measure("voltage", 1.0),
    "mV": _Measure("voltage", 1e-3),
    "A": _Measure("current", 1.0),
    "mA": _Measure("current", 1e-3),
    "W": _Measure("power", 1.0),
    "kW": _Measure("power", 1000.0),
    "W/m3": _Measure("power in a volume", 1.0),
    "S/m": _Measure("conductivity", 1.0),
    "mS/cm": _Measure("conductivity", 0.1),
    "uS/cm": _Measure("conductivity", 1e-4),
    "AU": _Measure("absorbance", 1.0),
    "mAU": _Measure("absorbance", 1e-3),
    "NTU": _Measure("turbidity", 1.0),
    "mPa.s": _Measure("viscosity", 1e-3),
    "1/mL": _Measure("number concentration", 1.0),
    "1/m3": _Measure("number concentration", 1e-6),
    "1e6/mL": _Measure("number concentration", 1e6),
    "1e6": _Measure("count", 1e6),
    "cells": _Measure("count", 1.0),
    "CFU": _Measure("colonies", 1.0),
    "CFU/mL": _Measure("colony concentration", 1.0),
    "CFU/m3": _Measure("colony concentration", 1e-6),
    "EU": _Measure("endotoxin", 1.0),
    "EU/mL": _Measure("endotoxin concentration", 1.0),
    "EU/mg": _Measure("endotoxin in a mass", 1.0),
    "EU/kg": _Measure("endotoxin dose", 1.0),
    "IU": _Measure("activity", 1.0),
    "IU/mL": _Measure("activity concentration", 1.0),
    "copies/cell": _Measure("copies per cell", 1.0),
    "g/L": _Measure("mass concentration", 1.0),
    "mg/mL": _Measure("mass concentration", 1.0),
    "mg/L": _Measure("mass concentration", 1e-3),
    "ug/mL": _Measure("mass concentration", 1e-3),
    "ug/L": _Measure("mass concentration", 1e-6),
    "ng/mL": _Measure("mass concentration", 1e-6),
    "mol/L": _Measure("amount concentration", 1.0),
    "mmol/L": _Measure("amount concentration", 1e-3),
    "mOsm/kg": _Measure("osmolality", 1.0),
    "TU/cell": _Measure("multiplicity", 1.0),
}
# As it is printed on instruments: the micro sign, which is one thing with the "u" that every keyboard has.
MEASURES.update({f"\N{MICRO SIGN}{unit[1:]}": MEASURES[unit] for unit in ("um", "uL", "ug", "uS/cm", "ug/mL", "ug/L")})


def same_dimension(unit: str, other: str) -> bool:
    """True when a value can be converted between the two units. Unknown units match only themselves."""
    if unit == other:
        return True
    a, b = MEASURES.get(unit), MEASURES.get(other)
    return a is not None and b is not None and a.dimension == b.dimension


def convert(value: float, unit: str, to: str) -> float:
    """`value` given in `unit`, expressed in `to`. Raises `unit.mismatch` when dimensions differ."""
    if unit == to:
        return value
    if not same_dimension(unit, to):
        raise LinesideError(
            "unit.mismatch",
            f"A value in {unit or 'no unit'} cannot be expressed in {to or 'no unit'}.",
            todo="Give the value in a unit of the same dimension.",
        )
    source, target = MEASURES[unit], MEASURES[to]
    return (value * source.factor + source.offset - target.offset) / target.factor


def span(length_s: float) -> str:
    """A length of time for a sentence."""
    for name, of_s, from_s in (("d", 86_400.0, 172_800.0), ("h", 3_600.0, 3_600.0), ("min", 60.0, 60.0)):
        if length_s >= from_s:
            return f"{length_s / of_s:.3g} {name}"
    return f"{length_s:.3g} s"


def duration_s(text: str) -> float:
    """Seconds in a duration such as "90 s", "12 h" or "2 d". Raises `unit.duration` otherwise."""
    number, _, unit = text.strip().partition(" ")
    measure = MEASURES.get(unit.strip())
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if measure is None or measure.dimension != "time" or not math.isfinite(amount) or amount < 0:
        raise LinesideError(
            "unit.duration",
            f"{text[:40]!r} is not a duration.",
            todo='Write a number, a space and s, min, h or d, for example "12 h".',
        )
    return amount * measure.factor


def inside(value: float, low: float | None, high: float | None) -> bool:
    """True when low <= value <= high, open ends always satisfied."""
    return (low is None or value >= low) and (high is None or value <= high)


def bounds_text(low: float | None, high: float | None) -> str:
    """A range for a sentence."""
    return f"{'-∞' if low is None else f'{low:g}'} to {'∞' if high is None else f'{high:g}'}"


def show(reading: Reading) -> str:
    """A reading for a sentence."""
    value = f"{reading.value:g}" if isinstance(reading.value, float) else str(reading.value)
    return f"{value} {reading.unit}".strip()
