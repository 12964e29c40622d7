"""Writing to a set-point once, on purpose, and looking at what the device does with it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from edge.core.errors import LinesideError
from edge.core.guard import NOT_SENT, agrees, may_write
from edge.core.plant import Plant, Tag, read_plant
from edge.core.terms import Reading, Value
from edge.equipment import Equipment, GuardedWriter, WriteOutcome, WriteResult
from edge.identity import sync_folder
from edge.library import read_bounded
from provisioning.equipment import Station, connected

LOG: Final = "commissioning.jsonl"
LOG_BYTES_MAX: Final = 4 * 1024 * 1024
LOOK_EVERY_S: Final = 0.1
PATIENCE_S: Final = 10.0
"""So long after its own time the device is watched at least."""
Result = Literal["confirmed", "unanswered", "delayed", "moving", "clamped", "ignored", "refused", "unknown"]
GOOD: Final = frozenset({"confirmed", "delayed"})


@dataclass(frozen=True, slots=True)
class WriteTest:
    """One write, and what came of it. `seen` is what the read-back tag showed at the end."""

    tag: str
    value: Value
    unit: str
    before: Value | None
    result: Result
    seconds: float
    seen: Value | None
    why: str
    restored: str
    """How writing the former value ended; empty when that was not asked for."""
    utc: str
    who: str

    def told(self) -> str:
        """For a person."""
        unit = f" {self.unit}" if self.unit else ""
        said = {
            "confirmed": f"did it within {self.seconds:.2f} s",
            "unanswered": "did it, but its answer was lost: in a batch this write would be in doubt",
            "delayed": f"did it after {self.seconds:.2f} s, later than its settle_s: raise settle_s in the plant file",
            "moving": f"is still on its way after {self.seconds:.1f} s, at {self.seen}{unit}: raise settle_s, or read "
            "back the set-point itself",
            "clamped": f"went to {self.seen}{unit} instead: it limits the value; correct low and high",
            "ignored": f"took the write and did nothing: it shows {self.seen}{unit} as before",
            "refused": f"was not written to: {self.why}",
            "unknown": f"cannot be seen to have done it: {self.why}",
        }[self.result]
        lines = [f"{self.tag}: {self.value}{unit} was written; the device {said}."]
        if self.result == "refused":
            lines = [f"{self.tag} {said}"]
        if self.restored:
            lines.append(f"The former value {self.before}{unit}: {self.restored}.")
        return "".join(f"{line}\n" for line in lines)


Ask = Callable[[str], Awaitable[str]]


def read_value(tag: Tag, text: str) -> Value:
    """A value as it is typed. Raises `equipment.value`."""
    try:
        match tag.type:
            case "bool":
                return {"true": True, "false": False}[text]
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "text":
                return text
    except (ValueError, KeyError):
        pass
    raise LinesideError(
        "equipment.value",
        f"{text[:80]!r} is no {tag.type}.",
        effect=NOT_SENT,
        todo="Write a number without its unit; true or false for a bool.",
    )


async def write_test(
    station: Station,
    name: str,
    text: str,
    *,
    restore: bool,
    who: str,
    patience_s: float,
    consent: Ask | None,
    unoccupied: Callable[[str], AbstractAsyncContextManager[None]],
) -> WriteTest:
    """Write once, look, and keep what came of it for the report. `consent` asks for the typed yes; None when it was
    given already. `unoccupied(unit)` holds off batches. Raises why nothing was sent."""
    plant = read_plant(read_bounded(station.config.plant), str(station.config.plant))
    tag = plant.tag(name)
    value = read_value(tag, text) if tag is not None else text
    may_write(plant, name, value)
    assert tag is not None  # the guard knows it
    async with unoccupied(name.partition(".")[0]):
        async with connected(station, _of_unit(plant, name.partition(".")[0]), tag.connection) as equipment:
            tested = await _tested(station, plant, equipment, name, tag, value, restore, who, patience_s, consent)
        _keep(station.config.state_dir, tested)
    return tested


def _of_unit(plant: Plant, unit: str) -> Plant:
    used = {tag.connection for tag in plant.units[unit].tags.values()}
    connections = {name: one for name, one in plant.connections.items() if name in used}
    return plant.model_copy(update={"connections": connections, "units": {unit: plant.units[unit]}})


async def _tested(
    station: Station,
    plant: Plant,
    equipment: Equipment,
    name: str,
    tag: Tag,
    value: Value,
    restore: bool,
    who: str,
    patience_s: float,
    consent: Ask | None,
) -> WriteTest:
    look_at = f"{name.partition('.')[0]}.{tag.read_back}" if tag.read_back else name
    former, shown = await equipment.read(name), await equipment.read(look_at)
    _refuse_in_vain(plant, name, tag, value, former, shown, restore=restore)
    await _consented(consent, name, tag, value, former)
    writer = equipment.writer(name)
    begun_s, utc = station.now_s(), station.utc()
    before = former.value if former.good else None
    restored = ""
    outcome: WriteOutcome | None = None
    try:
        outcome = await writer.write_and_read_back(value)
        tested = await _looked(station, equipment, look_at, tag, value, shown, outcome, begun_s, patience_s)
    finally:  # also when it is interrupted: what was asked for is the former value
        if restore and before is not None and (outcome is None or outcome.result is not WriteResult.REFUSED):
            restored = await _restored(writer, before)
    result, seconds, seen, why = tested
    return WriteTest(name, value, tag.unit, before, result, round(seconds, 3), seen, why, restored, utc, who)


def _refuse_in_vain(
    plant: Plant, name: str, tag: Tag, value: Value, former: Reading, shown: Reading, *, restore: bool
) -> None:
    """Raise for a test that could prove nothing, or whose former value could not be written back."""
    if restore and not former.good:
        raise LinesideError(
            "equipment.no_former",
            f"{name} has no good value now ({former.detail}), so that it could not be restored.",
            effect=NOT_SENT,
            todo="Leave --restore out, or look why it cannot be read.",
        )
    if restore:
        may_write(plant, name, former.value)
    if agrees(tag, value, shown):
        raise LinesideError(
            "equipment.same_value",
            f"{name} reads {former.value} already: writing that proves nothing.",
            effect=NOT_SENT,
            todo="Write another value; with --restore the former one is written back.",
        )


async def _consented(consent: Ask | None, name: str, tag: Tag, value: Value, former: Reading) -> None:
    if consent is None:
        return
    now = f"reads {former.value} {tag.unit}".rstrip() if former.good else f"has no good value ({former.detail})"
    sys.stdout.write(f"{name} {now}. Real equipment will be told {value} {tag.unit}".rstrip() + ".\n")
    if (await consent("Is everybody clear of it? Type yes")).strip() != "yes":
        raise LinesideError(
            "equipment.no_consent",
            "Nobody said yes.",
            effect=NOT_SENT,
            todo="Look at the equipment, then answer yes; in a script: --yes",
        )


async def _looked(
    station: Station,
    equipment: Equipment,
    look_at: str,
    tag: Tag,
    value: Value,
    shown: Reading,
    outcome: WriteOutcome,
    begun_s: float,
    patience_s: float,
) -> tuple[Result, float, Value | None, str]:
    """What the device did: the result, when it was seen, the last value, and why."""
    reading = outcome.reading
    if outcome.result is WriteResult.REFUSED or reading is None:
        return "refused", station.now_s() - begun_s, None, outcome.why
    if outcome.result is WriteResult.CONFIRMED:
        return "confirmed", station.now_s() - begun_s, reading.value, outcome.why
    if agrees(tag, value, reading):
        return "unanswered", station.now_s() - begun_s, reading.value, outcome.why
    until_s = station.now_s() + max(patience_s, 0.0)
    earlier = reading
    while station.now_s() < until_s:
        await asyncio.sleep(LOOK_EVERY_S)
        earlier, reading = reading, await equipment.read(look_at)
        if agrees(tag, value, reading):
            return "delayed", station.now_s() - begun_s, reading.value, outcome.why
    seconds = station.now_s() - begun_s
    if not reading.good:
        return "unknown", seconds, None, f"{look_at} has no good value: {reading.detail}"
    if shown.good and agrees(tag, shown.value, reading):
        return "ignored", seconds, reading.value, outcome.why
    if earlier.good and not agrees(tag, earlier.value, reading):
        return "moving", seconds, reading.value, outcome.why
    return "clamped", seconds, reading.value, outcome.why


async def _restored(writer: GuardedWriter, before: Value) -> str:
    outcome = await writer.write_and_read_back(before)
    return outcome.result.value if outcome.result is WriteResult.CONFIRMED else f"{outcome.result.value}, {outcome.why}"


# What was done, for the report ------------------------------------------------------------------------------------


def _keep(state_dir: Path, tested: WriteTest) -> None:
    file = state_dir / LOG
    new = not file.exists()
    with file.open("ab") as stream:
        stream.write(json.dumps(asdict(tested)).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    if new:
        sync_folder(state_dir)


def kept(state_dir: Path) -> list[WriteTest]:
    """The tests that were done at this box, oldest first; a line that a crash cut is left out."""
    file = state_dir / LOG
    return list(_tests(read_bounded(file, LOG_BYTES_MAX))) if file.exists() else []


def _tests(data: bytes) -> Iterator[WriteTest]:
    for line in data.splitlines():
        try:
            yield WriteTest(**json.loads(line))
        except (ValueError, TypeError):
            continue
