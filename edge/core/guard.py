"""What may be written to a tag, and what a reading of it is worth. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge.core.errors import LinesideError
from edge.core.formula import Given
from edge.core.plant import Argument, Method, Plant, Tag, permit_of
from edge.core.quick import dataclass
from edge.core.terms import Quality, Reading, Value

NOT_SENT: Final = "Nothing was sent to the equipment."
TEXT_CHARS_MAX: Final = 4096

# What stands where a value must stand and none is known; only ever beside Quality.BAD.
PLACEHOLDER: Final[dict[str, Value]] = {"float": 0.0, "int": 0, "bool": False, "text": ""}


def fitted(tag: Tag | Argument, value: object) -> Value | None:
    """`value` as the tag's declared type, or None when it is not of that type (or not a finite number)."""
    match tag.type:
        case "bool":
            return value if isinstance(value, bool) else None
        case "text":
            return value if isinstance(value, str) else None
        case "int":
            if isinstance(value, float) and value.is_integer():
                return int(value)
            return value if isinstance(value, int) and not isinstance(value, bool) else None
        case "float":
            if isinstance(value, bool) or not isinstance(value, int | float):
                return None
            try:
                number = float(value)
            except OverflowError:
                return None
            return number if math.isfinite(number) else None


def _outside(tag: Tag | Argument, value: Value) -> str:
    """A sentence's end when a number lies outside low..high, else ""."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    if tag.low is not None and value < tag.low:
        return f"below {tag.low:g} {tag.unit}".rstrip()
    if tag.high is not None and value > tag.high:
        return f"above {tag.high:g} {tag.unit}".rstrip()
    return ""


def call_text(values: Mapping[str, Value]) -> str:
    """What a call gives, or what a method answered, as the one text that stands in rows."""
    return json.dumps(dict(values), ensure_ascii=False)


def arguments_of(tag_name: str, method: Method, text: Value) -> dict[str, Value]:
    """What the text of a call gives to the method, each of its arguments in its order. Raises `guard.arguments`."""
    try:
        given = json.loads(str(text))
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict) or {*given} != {*method.arguments}:
        wrong = f"takes {', '.join(method.arguments) or 'nothing'}, each once"
    else:
        fit = {name: fitted(one, given[name]) for name, one in method.arguments.items()}
        fits = {name: value for name, value in fit.items() if value is not None and _short(value)}
        odd = [f"{name!r} as {one.type}" for name, one in method.arguments.items() if name not in fits]
        outside = [
            f"{name!r} {end}" for name, value in fits.items() if (end := _outside(method.arguments[name], value))
        ]
        if not odd and not outside:
            return fits
        wrong = f"takes {', '.join(odd)}" if odd else f"is given {', '.join(outside)}, a limit of the plant file"
    raise LinesideError(
        "guard.arguments",
        f"{tag_name} {wrong}.",
        effect=NOT_SENT,
        todo="Give what `arguments` of the method in the plant file says.",
    )


def answer_of(method: Method, values: Sequence[object]) -> tuple[str, str]:
    """What a method answered, as text; and what is wrong with it, "" when it is as the plant file says."""
    if len(values) != len(method.results):
        return "", f"it answered {len(values)} values instead of {len(method.results)}"
    found: dict[str, Value] = {}
    for (name, one), given in zip(method.results.items(), values, strict=True):
        value = fitted(one, given)
        if value is None or not _short(value):
            return "", f"what it answered as {name!r} is no {one.type}"
        if outside := _outside(one, value):
            return "", f"what it answered as {name!r} ({value}) is {outside}"
        found[name] = value
    text = call_text(found)
    return (text, "") if _short(text) else ("", f"what it answered is longer than {TEXT_CHARS_MAX} characters")


def answer_made_up(method: Method) -> str:
    """An answer in the middle of its ranges, for a rehearsal."""
    made: dict[str, Value] = {}
    for name, one in method.results.items():
        middle = ((one.low or 0.0) + (one.high or 0.0)) / 2
        made[name] = {**PLACEHOLDER, "float": middle, "int": round(middle)}[one.type]
    return call_text(made)


def _short(value: Value) -> bool:
    return not isinstance(value, str) or len(value) <= TEXT_CHARS_MAX


Latest = Callable[[str], Reading | None]


def may_write(
    plant: Plant,
    tag_name: str,
    value: Value,
    *,
    training: bool = False,
    units: Collection[str] | None = None,
    latest: Latest | None = None,
    today: str = "",
) -> None:
    """Return when the value may be written to the tag; raise a `guard.*` LinesideError that says why not. In `training`
    only tags of units that the plant gives for it may be written; with `units`, only tags of these, which a batch has.
    With `latest`, the readings now, interlock and rate of change are asked too; with `today`, as in 2026-11-22, the
    calibration. What makes safe is asked neither."""
    tag = plant.tag(tag_name)
    if tag is None:
        raise LinesideError(
            "guard.unknown_tag",
            f"{tag_name[:80]!r} is not a tag of the plant {plant.plant}.",
            effect=NOT_SENT,
            todo="Name a tag of the plant file as UNIT.tag.",
        )
    if tag.access != "write":
        raise LinesideError(
            "guard.read_only",
            f"{tag_name} may only be read.",
            effect=NOT_SENT,
            todo="Write to a set-point, or declare `access: write` for this tag in the plant file.",
        )
    if not plant.units[tag_name.partition(".")[0]].serves(training=training):
        raise LinesideError(
            "guard.training",
            f"{tag_name} is not for training." if training else f"{tag_name} is for training only.",
            effect=NOT_SENT,
            todo="Use another unit; `training` of the unit in the plant file says what it is for.",
        )
    if units is not None and tag_name.partition(".")[0] not in units:
        raise LinesideError(
            "guard.not_allocated",
            f"{tag_name} is of a unit that the batch does not have.",
            effect=NOT_SENT,
            todo="Name the tag by a role of the recipe.",
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise LinesideError(
            "guard.not_a_number",
            f"The value for {tag_name} is not a finite number.",
            effect=NOT_SENT,
            todo="Give a number.",
        )
    fit = fitted(tag, value)
    if fit is None or (isinstance(fit, str) and len(fit) > TEXT_CHARS_MAX):
        raise LinesideError(
            "guard.type",
            f"{tag_name} takes a value of type {tag.type}, not {str(value)[:40]!r}.",
            effect=NOT_SENT,
            todo=f"Give a value of type {tag.type}.",
        )
    if tag.method is not None:
        arguments_of(tag_name, tag.method, fit)
    outside = _outside(tag, fit)
    if outside:
        raise LinesideError(
            "guard.out_of_range",
            f"{value} {tag.unit} for {tag_name} is {outside}, the limit of the plant file.",
            effect=NOT_SENT,
            todo="Give a value within the tag's low and high.",
        )
    if today and (why := overdue(tag, today)) and tag.calibration is not None and tag.calibration.overdue == "hold":
        raise LinesideError(
            "guard.calibration",
            f"{tag_name}: {why}",
            effect=NOT_SENT,
            todo="Calibrate the instrument and give the new day in the plant file.",
        )
    if latest is not None:
        _ask_readings(plant, tag_name, tag, fit, latest)


def permitting(plant: Plant) -> Plant:
    """The plant as a rehearsal sees it: nothing is locked, and no calibration overdue. Neither is a recipe's doing."""
    free = {"interlock": None, "change_max": None, "calibration": None}
    units = {
        name: unit.model_copy(update={"tags": {key: tag.model_copy(update=free) for key, tag in unit.tags.items()}})
        for name, unit in plant.units.items()
    }
    return plant.model_copy(update={"units": units})


def overdue(tag: Tag, today: str) -> str:
    """That the calibration of the tag's instrument is overdue, in a sentence; "" while it holds."""
    held = tag.calibration
    if held is None or today <= held.due.isoformat():
        return ""
    return f"The calibration of {held.instrument} was due on {held.due.isoformat()}."


def _ask_readings(plant: Plant, tag_name: str, tag: Tag, value: Value, latest: Latest) -> None:
    """Interlock and rate of change. A reading that is missing or not good permits nothing."""
    if tag.change_max is not None and isinstance(value, int | float) and not isinstance(value, bool):
        shown = f"{tag_name.partition('.')[0]}.{tag.read_back}" if tag.read_back else tag_name
        stands = latest(shown)
        good = stands is not None and stands.good and isinstance(stands.value, int | float)
        change = abs(value - stands.value) if stands is not None and good and not isinstance(stands.value, str) else 0.0
        if not good or change > tag.change_max * (1 + 1e-9):
            raise LinesideError(
                "guard.change",
                f"{tag_name} changes by {change:g} {tag.unit} at once; {tag.change_max:g} {tag.unit} is allowed."
                if good
                else f"Where {tag_name} stands cannot be read, so by how much it would change is not known.",
                effect=NOT_SENT,
                todo="Go there in smaller steps, as a `ramp` does." if good else f"Look at {shown} first.",
            )
    permit = permit_of(plant, tag_name)
    if permit is None or tag.interlock is None:
        return
    formula, known = permit
    given: dict[str, Given] = {}
    for name in formula.names:
        reading = latest(known[name])
        if reading is not None:
            bad = "" if reading.good else reading.detail or reading.quality.value
            given[name] = Given(reading.value, reading.unit, bad)
    try:
        permitted, why = formula.value(given) is True, tag.interlock.why
    except LinesideError as unusable:
        permitted, why = False, f"{tag.interlock.why} {unusable.what}"
    if not permitted:
        raise LinesideError(
            "guard.interlock",
            f"{tag_name} is locked: {why}",
            effect=NOT_SENT,
            todo=f"It is permitted while {tag.interlock.permit}.",
        )


@dataclass(frozen=True, slots=True)
class Stood:
    """The value that a tag has kept, within its `frozen_change`, and since when."""

    value: Value
    since_s: float


def stood(tag: Tag, before: Stood | None, reading: Reading) -> Stood | None:
    """What the tag has kept after this reading; nothing after one that is not to be believed."""
    if tag.frozen_after_s is None or reading.quality is Quality.BAD:
        return None
    value = reading.value
    if before is not None and type(before.value) is type(value):
        same = before.value == value
        if not same and not isinstance(value, bool | str) and not isinstance(before.value, bool | str):
            same = abs(value - before.value) <= tag.frozen_change
        if same:
            return before
    return Stood(value, reading.at_boottime_s)


def frozen(tag: Tag, kept: Stood | None, reading: Reading, now_s: float) -> Reading:
    """The reading as it stands at `now_s`: BAD when its value has stood still for longer than the tag declares."""
    if kept is None or tag.frozen_after_s is None or reading.quality is Quality.BAD:
        return reading
    still_s = now_s - kept.since_s
    if still_s <= tag.frozen_after_s:
        return reading
    detail = f"Frozen: it has not changed for {still_s:.0f} s, allowed are {tag.frozen_after_s:g} s."
    return replace(reading, quality=Quality.BAD, detail=detail)


def judged(tag: Tag, reading: Reading) -> Reading:
    """The reading as far as the plant file lets it be trusted: a value of another type, not finite or outside
    low..high is BAD with the reason; the quality never gets better. Its value always has the tag's type."""
    value: Value | None = reading.value
    # this is done for each value of each poll
    if type(value) is not float or tag.type != "float" or not math.isfinite(value):
        value = fitted(tag, reading.value)
    if value is None:
        detail = reading.detail or (
            "The device gives no finite number."
            if isinstance(reading.value, float)
            else f"The device gives {type(reading.value).__name__} where {tag.type} is declared."
        )
        return replace(reading, value=PLACEHOLDER[tag.type], quality=Quality.BAD, detail=detail)
    outside = "" if tag.low is None and tag.high is None else _outside(tag, value)
    if outside and reading.quality is not Quality.BAD:
        return replace(
            reading, value=value, quality=Quality.BAD, detail=f"Not plausible: {value:g} {tag.unit} is {outside}."
        )
    if value is reading.value:
        return reading
    seen = reading
    return Reading(value, seen.unit, seen.quality, seen.source_utc, seen.at_boottime_s, seen.detail)


def aged(tag: Tag, reading: Reading, now_s: float) -> Reading:
    """The reading as it stands at `now_s`: BAD when it is older than the tag's `stale_s`."""
    age_s = now_s - reading.at_boottime_s
    if age_s <= tag.stale_s or reading.quality is Quality.BAD:
        return reading
    return replace(
        reading, quality=Quality.BAD, detail=f"Stale: last heard {age_s:.1f} s ago, allowed are {tag.stale_s:g} s."
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """What must be seen elsewhere once a write was taken: this value at the tag `at`, as closely as the set-point `of`
    wants it; or these `bits` of a number, and no other ones."""

    at: str
    value: Value
    of: str = ""
    bits: int = 0

    def seen(self, plant: Plant, reading: Reading) -> bool:
        """Whether the reading shows it."""
        if self.bits:
            return reading.good and isinstance(reading.value, int) and reading.value & self.bits == self.value
        tag = plant.tag(self.of)
        return tag is not None and agrees(tag, self.value, reading)


def agrees(tag: Tag, wanted: Value, reading: Reading) -> bool:
    """True when a good reading shows the wanted value within the tag's tolerance. Numbers may also differ by
    the resolution of a 32-bit float, in which many devices keep them."""
    if not reading.good:
        return False
    seen = reading.value
    if isinstance(wanted, bool | str) or isinstance(seen, bool | str):
        return type(wanted) is type(seen) and wanted == seen
    return abs(seen - wanted) <= tag.tolerance + abs(wanted) * 2.0**-23
