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
from edge.core.plant import Plant, Tag, permit_of, read_plant
from edge.core.terms import Reading, Value
from edge.equipment import Equipment, GuardedWriter, WriteOutcome, WriteResult
from edge.identity import sync_folder
from edge.library import read_bounded
from provisioning.equipment import PATIENCE, Station, connected

LOG: Final = "commissioning.jsonl"
LOG_BYTES_MAX: Final = 4 * 1024 * 1024
LOOK_EVERY_S: Final = 0.1
RESTORE_WAIT_MAX_S: Final = 60.0
"""So long the former value waits at most, of a tag that may not be written sooner."""
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
StillFree = Callable[[], Awaitable[None]]


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
    unoccupied: Callable[[str], AbstractAsyncContextManager[StillFree]],
) -> WriteTest:
    """Write once, look, and keep what came of it for the report. `consent` asks for the typed yes; None when it was
    given already. `unoccupied(unit)` holds off batches, and what it gives raises when one has the unit all the same.
    Raises why nothing was sent."""
    plant = read_plant(read_bounded(station.config.plant), str(station.config.plant))
    tag = plant.tag(name)
    value = read_value(tag, text) if tag is not None else text
    unit = name.partition(".")[0]
    training = unit in plant.units and not plant.units[unit].serves(training=False)
    may_write(plant, name, value, training=training)
    assert tag is not None  # the guard knows it
    if tag.method is not None:
        raise LinesideError(
            "equipment.is_method",
            f"{name} is a method: it is called by a step of a recipe, and shows nothing before or after.",
            effect=NOT_SENT,
            todo="Try it with a recipe of one step, for training or on a batch of water.",
        )
    _may_keep(station.config.state_dir)
    test = _Test(station, plant, name, tag, value, training, restore, patience_s)
    news = asyncio.Event()
    async with unoccupied(unit) as still_free:
        needed = _asked_of(plant, name)
        async with connected(station, needed, tag.connection, lambda _tag, _reading: news.set()) as equipment:
            tested = await test.done(equipment, news, who, consent, still_free)
        _keep(station.config.state_dir, tested)
    return tested


def _guarding(plant: Plant, name: str) -> set[str]:
    """The tags that the guard looks at before this one is written."""
    unit, _, own = name.partition(".")
    tag, permit = plant.units[unit].tags[own], permit_of(plant, name)
    asked = {permit[1][short] for short in permit[0].names} if permit is not None else set()
    return asked | {f"{unit}.{tag.read_back}" if tag.read_back else name}


def _asked_of(plant: Plant, name: str) -> Plant:
    """The plant as far as the test needs it: the unit, what an interlock looks at elsewhere, and their connections."""
    own, units = name.partition(".")[0], {}
    for unit_name, unit in plant.units.items():
        wanted = {full.partition(".")[2] for full in _guarding(plant, name) if full.partition(".")[0] == unit_name}
        tags = {key: tag for key, tag in unit.tags.items() if unit_name == own or key in wanted}
        if tags:
            units[unit_name] = unit.model_copy(
                update={"tags": tags, "services": {}, "safe_state": (), "watchdog": None}
            )
    used = {tag.connection for unit in units.values() for tag in unit.tags.values()}
    connections = {key: one for key, one in plant.connections.items() if key in used}
    return plant.model_copy(update={"connections": connections, "units": units})


@dataclass(frozen=True, slots=True)
class _Test:
    """One write test, as it is done."""

    station: Station
    plant: Plant
    name: str
    tag: Tag
    value: Value
    training: bool
    restore: bool
    patience_s: float

    async def done(
        self, equipment: Equipment, news: asyncio.Event, who: str, consent: Ask | None, still_free: StillFree
    ) -> WriteTest:
        """Look, ask, write, look, and write the former value back."""
        look_at = f"{self.name.partition('.')[0]}.{self.tag.read_back}" if self.tag.read_back else self.name
        former, shown = await equipment.read(self.name), await equipment.read(look_at)
        self._refuse_in_vain(former, shown)
        await self._consented(consent, former)
        await self._known(equipment, news)
        await still_free()  # people take their time to say yes
        writer = equipment.writer(self.name, training=self.training)
        begun_s, utc = self.station.now_s(), self.station.utc()
        before = former.value if former.good else None
        restored = ""
        outcome: WriteOutcome | None = None
        try:
            outcome = await writer.write_and_read_back(self.value)
            result, seconds, seen, why = await self._looked(equipment, look_at, shown, outcome, begun_s)
        finally:  # also when it is interrupted: what was asked for is the former value
            if self.restore and before is not None and (outcome is None or outcome.result is not WriteResult.REFUSED):
                restored = await self._restored(writer, before, still_free)
        return WriteTest(
            self.name, self.value, self.tag.unit, before, result, round(seconds, 3), seen, why, restored, utc, who
        )

    def _refuse_in_vain(self, former: Reading, shown: Reading) -> None:
        """Raise for a test that could prove nothing, or whose former value could not be written back."""
        name = self.name
        if self.restore and not former.good:
            raise LinesideError(
                "equipment.no_former",
                f"{name} has no good value now ({former.detail}), so that it could not be restored.",
                effect=NOT_SENT,
                todo="Leave --restore out, or look why it cannot be read.",
            )
        if self.restore and self.tag.change_every_s > RESTORE_WAIT_MAX_S:
            raise LinesideError(
                "equipment.restore_too_soon",
                f"{name} may be written every {self.tag.change_every_s:g} s only: its former value comes too soon.",
                effect=NOT_SENT,
                todo="Leave --restore out, and write the former value back with a test of its own, later.",
            )
        if self.restore:
            may_write(self.plant, name, former.value, training=self.training)
        if agrees(self.tag, self.value, shown):
            raise LinesideError(
                "equipment.same_value",
                f"{name} reads {former.value} already: writing that proves nothing.",
                effect=NOT_SENT,
                todo="Write another value; with --restore the former one is written back.",
            )

    async def _consented(self, consent: Ask | None, former: Reading) -> None:
        if consent is None:
            return
        unit = self.tag.unit
        now = f"reads {former.value} {unit}".rstrip() if former.good else f"has no good value ({former.detail})"
        sys.stderr.write(f"{self.name} {now}. Real equipment will be told {self.value} {unit}".rstrip() + ".\n")
        if (await consent("Is everybody clear of it? Type yes")).strip() != "yes":
            raise LinesideError(
                "equipment.no_consent",
                "Nobody said yes.",
                effect=NOT_SENT,
                todo="Look at the equipment, then answer yes; in a script: --yes",
            )

    async def _known(self, equipment: Equipment, news: asyncio.Event) -> None:
        """Until what the guard looks at was read, or there was time enough for it."""
        used = {tag.connection for tag in _asked_of(self.plant, self.name).tags().values()}
        longest_s = max(self.plant.connections[name].timeout_s for name in used)
        try:
            async with asyncio.timeout(PATIENCE * longest_s):
                while any(equipment.latest(tag) is None for tag in _guarding(self.plant, self.name)):
                    news.clear()
                    await news.wait()
        except TimeoutError:
            pass  # the guard says what it misses

    async def _looked(
        self, equipment: Equipment, look_at: str, shown: Reading, outcome: WriteOutcome, begun_s: float
    ) -> tuple[Result, float, Value | None, str]:
        """What the device did: the result, when it was seen, the last value, and why."""
        tag, value, now_s = self.tag, self.value, self.station.now_s
        reading = outcome.reading
        if outcome.result is WriteResult.REFUSED or reading is None:
            return "refused", now_s() - begun_s, None, outcome.why
        if outcome.result is WriteResult.CONFIRMED:
            return "confirmed", now_s() - begun_s, reading.value, outcome.why
        if agrees(tag, value, reading):
            return "unanswered", now_s() - begun_s, reading.value, outcome.why
        until_s = now_s() + max(self.patience_s, 0.0)
        earlier = reading
        while now_s() < until_s:
            await asyncio.sleep(LOOK_EVERY_S)
            earlier, reading = reading, await equipment.read(look_at)
            if agrees(tag, value, reading):
                return "delayed", now_s() - begun_s, reading.value, outcome.why
        seconds = now_s() - begun_s
        if not reading.good:
            return "unknown", seconds, None, f"{look_at} has no good value: {reading.detail}"
        if shown.good and agrees(tag, shown.value, reading):
            return "ignored", seconds, reading.value, outcome.why
        if earlier.good and not agrees(tag, earlier.value, reading):
            return "moving", seconds, reading.value, outcome.why
        return "clamped", seconds, reading.value, outcome.why

    async def _restored(self, writer: GuardedWriter, before: Value, still_free: StillFree) -> str:
        await asyncio.sleep(self.tag.change_every_s)
        try:
            await still_free()
        except LinesideError as refusal:
            return f"not written back: {refusal.what}"
        outcome = await writer.write_and_read_back(before)
        return outcome.result.value if outcome.result is WriteResult.CONFIRMED else f"{outcome.result}: {outcome.why}"


# What was done, for the report ------------------------------------------------------------------------------------


def _may_keep(state_dir: Path) -> None:
    """Raise before anything is sent when what comes of it could not be kept."""
    try:
        with (state_dir / LOG).open("ab"):
            pass
        sync_folder(state_dir)
    except OSError as error:
        raise LinesideError(
            "equipment.cannot_keep",
            f"{state_dir / LOG} cannot be written ({error.strerror or error}), so that the test would leave no trace.",
            effect=NOT_SENT,
            todo="Do it with an account that may write there; look whether the disk has room.",
        ) from error


def _keep(state_dir: Path, tested: WriteTest) -> None:
    try:
        with (state_dir / LOG).open("ab") as stream:
            stream.write(json.dumps(asdict(tested)).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise LinesideError(
            "equipment.not_kept",
            f"What came of the test could not be kept ({error.strerror or error}). {tested.told()}",
            effect="The write was done; the report will not know of it.",
            todo="Look at the disk (`lineside disk status`), then do the test again.",
        ) from error


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
