"""Binding a place at a device to a tag of the plant file: the value is found, compared with what the device shows, and
read once through the driver before a line is written."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from edge.core.errors import LinesideError, Place
from edge.core.plant import Connection, Plant, Unit, read_plant
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, Equipment, Found, installed_drivers
from edge.explorer import Way, explorer_of, shown
from edge.library import read_bounded, write_whole
from provisioning.equipment import Station, connected, last_refused, pki_of, trust_file
from provisioning.plant_file import added

FILE_UNCHANGED: Final = "The plant file is as it was."
SHOWN_MAX: Final = 12
DOUBTFUL_MIN: Final = 1e-30
"""Nothing on a line is nearer to zero without being zero: the words of a float that are read in the wrong order are."""
NAME_MAX: Final = 64
Ask = Callable[[str], Awaitable[str]]
"""Puts a question to the engineer; the answer without its line end."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be bound, as far as the engineer said it."""

    device: str
    driver: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)
    timeout_s: float | None = None
    poll_s: float | None = None
    fingerprint: str = ""
    tag: str = ""
    """UNIT.tag; empty to write the connection alone."""
    address: str = ""
    chosen: str = ""
    """The whole address, where several ways fit."""
    reads: str = ""
    """What the device itself shows now, as typed."""
    then: str = ""
    """What it shows after it has changed."""
    tolerance: float | None = None
    wait_s: float = 30.0
    """So long it is waited for what the device is said to show."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Of the tag: type, unit, access, low, high, why and what else the plant file knows."""
    unit_class: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class Bound:
    """What was written, and what the real driver read of it."""

    device: str
    remark: str
    tag: str = ""
    address: str = ""
    type: str = ""
    reading: Reading | None = None
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """For a machine."""
        facts: dict[str, Any] = {"device": self.device, "remark": self.remark, "seconds": round(self.seconds, 3)}
        if self.reading is not None:
            facts |= {"tag": self.tag, "address": self.address, "type": self.type, "value": self.reading.value}
            facts |= {"unit": self.reading.unit, "quality": self.reading.quality, "detail": self.reading.detail}
        return facts


# Settings ---------------------------------------------------------------------------------------------------------


def read_settings(pairs: Sequence[str]) -> dict[str, Value]:
    """Settings as they are typed: KEY=VALUE. Whole numbers, true and false are what they look like; quotes make a
    text. Raises `equipment.setting`."""
    settings: dict[str, Value] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.isidentifier() or key in settings:
            raise LinesideError(
                "equipment.setting",
                f"{pair[:80]!r} is no setting.",
                effect=FILE_UNCHANGED,
                todo="Write it once, like: --set host=192.0.2.11",
            )
        settings[key] = _value(text)
    return settings


def _value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal() and text.isascii() and len(text) < NAME_MAX and (text == "0" or text[0] != "0"):
        return int(text)
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def typed(value: Value) -> str:
    """How a setting is typed to be read as this."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    return text if not isinstance(value, str) or (_value(text) == text and text[:1] != '"') else f'"{text}"'


# The whole of it --------------------------------------------------------------------------------------------------


async def bind(station: Station, wanted: Wanted, ask: Ask | None, say: Callable[[str], None]) -> Bound:
    """Bind it, and write the plant file. `ask` is there when an engineer sits at the terminal. Raises why not; then
    the plant file is as it was."""
    begun_s = station.now_s()
    file = station.config.plant
    data = read_bounded(file)
    plant = read_plant(data, str(file))
    connection = _connection(plant, wanted, file)
    if wanted.tag:
        _new_tag(plant, wanted.tag, file)
        wanted = await _filled(plant, wanted, ask)
    remark = await _trusted(station, wanted, connection, ask)
    more: dict[str, Any] = {}
    if wanted.device not in plant.connections:
        more["connections"] = {wanted.device: connection.model_dump(mode="json", exclude_unset=True)}
    if not wanted.tag:
        made, _ = added(data, str(file), more, {wanted.device: _note(station, wanted, None)})
        _replace(file, data, made)
        return Bound(wanted.device, remark, seconds=station.now_s() - begun_s)
    address = await _address(station, wanted, connection, ask, say)
    unit, _, name = wanted.tag.partition(".")
    entry = await _entry(station, wanted, connection, address)
    of_unit = {} if unit in plant.units else {"class": wanted.unit_class}
    more["units"] = {unit: {**of_unit, "tags": {name: entry}}}
    made, whole = added(data, str(file), more)
    reading = await _read_once(station, whole, wanted)
    if address == wanted.address:
        _agrees(wanted, reading)
    made, whole = added(data, str(file), more, {name: _note(station, wanted, reading)})
    _replace(file, data, made)
    remark = "; ".join(filter(None, (remark, _doubt(reading))))
    return Bound(
        wanted.device, remark, wanted.tag, address, entry.get("type", "float"), reading, station.now_s() - begun_s
    )


def _note(station: Station, wanted: Wanted, reading: Reading | None) -> str:
    """The comment above what is new."""
    by = f" by {shown(wanted.who)[:NAME_MAX]}" if wanted.who else ""
    saw = ""
    if reading is not None:
        saw = f": read {_words(reading)}"
        told = wanted.then or wanted.reads
        saw += f" when the device showed {shown(told)[:NAME_MAX]}" if told else ""
    return f"bound {station.utc()[:10]}{by}{saw}"


def _words(reading: Reading) -> str:
    value = f"{reading.value:.7g}" if isinstance(reading.value, float) else str(reading.value)[:NAME_MAX]
    return shown(f"{value} {reading.unit}".rstrip())


def _replace(file: Path, before: bytes, made: bytes) -> None:
    if read_bounded(file) != before:
        raise LinesideError(
            "equipment.plant_changed",
            f"{file} was changed by somebody else meanwhile.",
            effect="It is as they left it.",
            todo="Look at it, then bind again.",
            place=Place(str(file)),
        )
    write_whole(file, made)


def _connection(plant: Plant, wanted: Wanted, file: Path) -> Connection:
    known = plant.connections.get(wanted.device)
    given = bool(wanted.driver or wanted.settings)
    if known is None and not wanted.driver:
        raise LinesideError(
            "equipment.no_connection",
            f"The plant file has no connection {wanted.device[:NAME_MAX]!r}.",
            effect=FILE_UNCHANGED,
            todo="Say how it is reached: --driver and --set, as `lineside equipment probe HOST` tells; or use one of: "
            f"{', '.join(plant.connections) or 'none is there'}.",
            place=Place(str(file)),
        )
    if known is not None:
        if given and (wanted.driver, dict(wanted.settings)) != (known.driver, dict(known.settings)):
            raise LinesideError(
                "equipment.other_connection",
                f"The plant file has another connection {wanted.device!r}.",
                effect=FILE_UNCHANGED,
                todo="Leave --driver and --set out to use it, or give the new one another name.",
                place=Place(str(file)),
            )
        return known
    times = {"timeout_s": wanted.timeout_s, "poll_s": wanted.poll_s}
    facts: dict[str, Any] = {"driver": wanted.driver, "settings": dict(wanted.settings)}
    facts |= {key: value for key, value in times.items() if value is not None}
    # through the plant file's own reader, so that a wrong name or number is refused in its words
    made, _ = added(b"plant: x\nconnections: {}\nunits: {}\n", str(file), {"connections": {wanted.device: facts}})
    return read_plant(made, str(file)).connections[wanted.device]


def _new_tag(plant: Plant, tag: str, file: Path) -> None:
    unit, dot, name = tag.partition(".")
    if not dot or not unit or not name:
        raise LinesideError(
            "equipment.tag_name",
            f"{tag[:80]!r} names no tag.",
            effect=FILE_UNCHANGED,
            todo="Write it as UNIT.tag, like BR-1.temperature.",
        )
    if plant.tag(tag) is not None:
        raise LinesideError(
            "equipment.tag_exists",
            f"The plant file has a tag {tag} already.",
            effect=FILE_UNCHANGED,
            todo="Give the new one another name, or change the entry in the file.",
            place=Place(str(file)),
        )


async def _filled(plant: Plant, wanted: Wanted, ask: Ask | None) -> Wanted:
    """With what was left out, asked for. Raises `equipment.not_said` where nobody can be asked."""
    said = {key: value for key, value in wanted.more.items() if value is not None}
    address, unit_class = wanted.address, wanted.unit_class
    if ask is not None:
        address = address or (await ask("Address at the device (a node id, or like: holding 10)")).strip()
    new_unit = wanted.tag.partition(".")[0] not in plant.units
    if ask is not None:
        if new_unit and not unit_class:
            unit_class = (await ask(f"Class of the new unit {wanted.tag.partition('.')[0]} (like bioreactor)")).strip()
        if said.get("type", "float") in ("float", "int"):
            await _ask_numbers(said, ask)
        if "access" not in said:
            said["access"] = "write" if (await ask("May it be written? (yes or empty)")).strip() == "yes" else "read"
        said["why"] = said.get("why") or (await ask("Why these limits, for the next engineer (or empty)")).strip()
    for missing, what in (
        (not address, "--address"),
        (new_unit and not unit_class, "--class, because the unit is new"),
    ):
        if missing:
            raise LinesideError(
                "equipment.not_said",
                f"It was not said: {what}.",
                effect=FILE_UNCHANGED,
                todo="Give it, or use a terminal.",
            )
    said = {key: value for key, value in said.items() if value not in ("", None)}
    if said.get("access") == "read":
        del said["access"]
    return replace(wanted, address=address, unit_class=unit_class, more=said)


async def _ask_numbers(said: dict[str, Any], ask: Ask) -> None:
    if "unit" not in said:
        said["unit"] = (await ask("Unit of measure (like degC; empty for a switch, a text or a bare number)")).strip()
    for end, what in (("low", "Lowest"), ("high", "Highest")):
        if end not in said and (text := (await ask(f"{what} sensible value (or empty)")).strip()):
            said[end] = _number(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise LinesideError(
            "equipment.number",
            f"{text[:40]!r} is no number.",
            effect=FILE_UNCHANGED,
            todo="Write it like 37.2, without a unit.",
        )
    return int(number) if number.is_integer() and "." not in text else number


def _within(wanted: Wanted, text: str) -> float:
    """How far a value may be from what was typed: one step of its last digit, when nothing else was said."""
    if wanted.tolerance is not None:
        return wanted.tolerance
    digits = text.partition(".")[2]
    return 10.0 ** -len(digits) if digits.isdecimal() else 1.0


# The connection ---------------------------------------------------------------------------------------------------


def _alone(connection: Connection, device: str, tags: Mapping[str, Mapping[str, Any]]) -> Plant:
    """A plant of this device and these tags, without limits."""
    entries = {name: {"connection": device, "stale_s": connection.poll_s * 2 + 5, **tag} for name, tag in tags.items()}
    unit = Unit.model_validate({"class": "thing", "tags": entries})
    return Plant(plant="bind", connections={device: connection}, units={"U": unit})


async def _trusted(station: Station, wanted: Wanted, connection: Connection, ask: Ask | None) -> str:
    """Connect once; a certificate that nobody trusts yet is compared and trusted. What is to be remarked."""
    alone = _alone(connection, wanted.device, {})
    for again in (True, False):
        try:
            async with connected(station, alone, wanted.device) as equipment:
                return equipment.health()[wanted.device].remark
        except LinesideError as refusal:
            if refusal.code != "opcua.untrusted" or not again or not (wanted.fingerprint or ask):
                raise
            pki = pki_of(station.config)
            file = last_refused(pki, wanted.device, connection)
            await asyncio.to_thread(trust_file, pki, file, wanted.fingerprint)
    raise AssertionError("the second attempt returned or raised")


async def _found(station: Station, wanted: Wanted, connection: Connection, address: str) -> Found | None:
    """What browsing says of the address, where the device can be browsed."""
    alone = _alone(connection, wanted.device, {})
    async with connected(station, alone, wanted.device) as equipment:
        if Capability.BROWSE not in equipment.can(wanted.device):
            return None
        return next((one for one in await equipment.browse(wanted.device, address) if one.address == address), None)


# The address ------------------------------------------------------------------------------------------------------


async def _address(
    station: Station, wanted: Wanted, connection: Connection, ask: Ask | None, say: Callable[[str], None]
) -> str:
    """The whole address: as it was given, or the way that fits what the device shows, twice."""
    explorer = explorer_of(connection.driver)
    ways = explorer.ways(wanted.address) if explorer is not None else ()
    if not ways:
        return wanted.address
    if not wanted.reads and ask is None:
        raise LinesideError(
            "equipment.how_it_lies",
            f"{wanted.address!r} does not say how its value lies there.",
            effect=FILE_UNCHANGED,
            todo="Give the whole address, or what the device itself shows: --reads 37.2, and after it changed --then.",
        )
    tags = {f"w{n}": way for n, way in enumerate(dict.fromkeys(way.read_as for way in ways))}
    alone = _alone(connection, wanted.device, {name: {"address": way} for name, way in tags.items()})
    snapshots = _Snapshots(station, frozenset(f"U.{name}" for name in tags))
    async with connected(station, alone, wanted.device, snapshots.take) as equipment:
        search = _Search(snapshots, equipment, {way: f"U.{name}" for name, way in tags.items()}, wanted)
        fits = await search.twice(ways, ask, say)
    return await _one_of(fits, wanted, ask)


class _Snapshots:
    """All ways of an address, read together."""

    def __init__(self, station: Station, tags: frozenset[str]) -> None:
        self._station, self._tags = station, tags
        self._readings: dict[str, Reading] = {}
        self._news = asyncio.Event()

    def take(self, tag: str, reading: Reading) -> None:
        """A reading came."""
        self._readings[tag] = reading
        self._news.set()

    async def next(self) -> dict[str, Reading]:
        """Every tag as it is read from now on."""
        since_s = self._station.now_s()
        while any((one := self._readings.get(tag)) is None or one.at_boottime_s < since_s for tag in self._tags):
            self._news.clear()
            await self._news.wait()
        return dict(self._readings)


@dataclass(frozen=True, slots=True)
class _Search:
    """Which ways fit what the engineer says that the device shows."""

    snapshots: _Snapshots
    equipment: Equipment
    tag_of: Mapping[str, str]
    wanted: Wanted

    async def twice(self, ways: Sequence[Way], ask: Ask | None, say: Callable[[str], None]) -> list[Way]:
        """Those that fit two different values, one after the other."""
        first_text = self.wanted.reads or await self._asked(ask, "What does the device show now?", ways)
        fits = await self._fitting(ways, first_text, say)
        second_text = self.wanted.then
        if not second_text and ask is not None:
            second_text = await self._asked(ask, "Wait until it shows another value. What does it show now?", fits)
        if not second_text or abs(_number(second_text) - _number(first_text)) <= 2 * _within(self.wanted, first_text):
            raise LinesideError(
                "equipment.once_only",
                "One value fits many ways of reading: a second one, clearly another, tells them apart.",
                effect=FILE_UNCHANGED,
                todo="Let the device show another value, and say that too: --reads 37.2 --then 38.5",
            )
        say(f"{len(fits)} ways fit {first_text}; waiting for {second_text}")
        return await self._fitting(fits, second_text, say)

    async def _asked(self, ask: Ask | None, question: str, ways: Sequence[Way]) -> str:
        assert ask is not None
        readings = await self.snapshots.next()
        for way in ways:
            reading = readings[self.tag_of[way.read_as]]
            if way.factor == 1.0 and reading.good:
                sys.stderr.write(f"  {way.address:<28}{_words(reading)}\n")
        return (await ask(question)).strip()

    async def _fitting(self, ways: Sequence[Way], text: str, say: Callable[[str], None]) -> list[Way]:
        """Those that fit, as soon as one does."""
        told, within = _number(text), _within(self.wanted, text)
        readings: dict[str, Reading] = {}
        try:
            async with asyncio.timeout(self.wanted.wait_s):
                while True:
                    readings = await self.snapshots.next()
                    if fits := [
                        way for way in ways if self._fits(readings[self.tag_of[way.read_as]], way, told, within)
                    ]:
                        return fits
                    say(f"nothing reads {text} yet")
        except TimeoutError:
            raise _no_way(
                self.wanted, ways, text, {way: readings.get(tag) for way, tag in self.tag_of.items()}
            ) from None

    @staticmethod
    def _fits(reading: Reading, way: Way, told: float, within: float) -> bool:
        value = reading.value
        if not reading.good or isinstance(value, bool | str):
            return False
        return abs(value * way.factor - told) <= within * (1 + 1e-9)


def _no_way(wanted: Wanted, ways: Sequence[Way], text: str, readings: Mapping[str, Reading | None]) -> LinesideError:
    seen = []
    why = ""
    for way in ways:
        reading = readings.get(way.read_as)
        if reading is not None and reading.good and way.factor == 1.0:
            seen.append(f"{way.address} {_words(reading)}")
        elif reading is not None and not reading.good:
            why = why or reading.detail
    told = f" It reads: {'; '.join(seen[:SHOWN_MAX])}." if seen else f" {shown(why)}"
    return LinesideError(
        "equipment.no_way",
        f"In no way does {wanted.address!r} read {text[:40]} within {wanted.wait_s:g} s.{told.rstrip()}",
        effect=FILE_UNCHANGED,
        todo="Look whether it is the right register (manuals often count from 1: 40011 is holding 10), and whether the "
        "device still shows that; a wider --within helps where it flickers.",
    )


async def _one_of(fits: Sequence[Way], wanted: Wanted, ask: Ask | None) -> str:
    """The way that is meant."""
    addresses = [way.address for way in fits]
    if wanted.chosen:
        if wanted.chosen in addresses:
            return wanted.chosen
        raise LinesideError(
            "equipment.does_not_fit",
            f"{wanted.chosen[:80]!r} does not fit what the device shows.",
            effect=FILE_UNCHANGED,
            todo=f"These do: {'; '.join(addresses[:SHOWN_MAX])}.",
        )
    if len(addresses) > 1:
        # signed and unsigned show the same until the sign is used; what cannot be below 0 is better read without one
        low = wanted.more.get("low")
        left_out = " int" if isinstance(low, int | float) and low >= 0 else " uint"
        other = {" int": " uint", " uint": " int"}[left_out]
        addresses = [one for one in addresses if not (left_out in one and one.replace(left_out, other) in addresses)]
    if len(addresses) == 1:
        return addresses[0]
    if ask is not None:
        sys.stderr.write("".join(f"  {n + 1}  {one}\n" for n, one in enumerate(addresses)))
        answer = (await ask("Several ways fit; the device's manual knows. Which number?")).strip()
        if answer.isdecimal() and 0 < int(answer) <= len(addresses):
            return addresses[int(answer) - 1]
    raise LinesideError(
        "equipment.several_ways",
        f"Several ways fit: {'; '.join(addresses[:SHOWN_MAX])}.",
        effect=FILE_UNCHANGED,
        todo="Look into the device's manual, then choose one: --as ADDRESS. Or take values that tell them apart: "
        "larger, or below zero.",
    )


# The tag ----------------------------------------------------------------------------------------------------------


async def _entry(station: Station, wanted: Wanted, connection: Connection, address: str) -> dict[str, Any]:
    """The tag as the plant file is to say it."""
    found = await _found(station, wanted, connection, address)
    if found is not None and wanted.more.get("access") == "write" and not found.writable:
        raise LinesideError(
            "equipment.not_writable",
            f"The device does not let this box write {address[:100]!r}.",
            effect=FILE_UNCHANGED,
            todo="Bind the set-point instead, or change the rights at the device.",
        )
    kind = wanted.more.get("type") or _type(station, wanted, connection, address, found)
    of_type = {} if kind == "float" else {"type": kind}
    rest = {key: value for key, value in wanted.more.items() if key != "type"}
    return {"connection": wanted.device, "address": address, **of_type, **rest}


def _type(station: Station, wanted: Wanted, connection: Connection, address: str, found: Found | None) -> str:
    """What the device says that it is, or the first type that the driver takes for the address."""
    if found is not None:
        said = found.type.casefold()
        for part, kind in (("bool", "bool"), ("string", "text"), ("text", "text"), ("int", "int"), ("byte", "int")):
            if part in said:
                return kind
        return "float"
    unit = wanted.more.get("unit", "")
    refusals = []
    for kind in ("float", "bool", "text"):
        entry = {"address": address, "type": kind} | ({"unit": unit} if kind == "float" else {})
        try:
            Equipment(
                _alone(connection, wanted.device, {"t": entry}),
                installed_drivers(),
                now_s=station.now_s,
                utc=station.utc,
                home=station.home,
            )
        except LinesideError as refusal:
            refusals.append(refusal)
        else:
            return kind
    raise refusals[0]


async def _read_once(station: Station, plant: Plant, wanted: Wanted) -> Reading:
    """The tag as the box will read it. Raises `equipment.not_real` when that is no value."""
    unit, _, name = wanted.tag.partition(".")
    of_unit = plant.units[unit].model_copy(update={"tags": {name: plant.units[unit].tags[name]}, "services": {}})
    of_unit = of_unit.model_copy(update={"safe_state": ()})
    only = {wanted.device: plant.connections[wanted.device]}
    alone = plant.model_copy(update={"connections": only, "units": {unit: of_unit}})
    async with connected(station, alone, wanted.device) as equipment:
        reading = await equipment.read(wanted.tag)
    if reading.quality is Quality.BAD:
        raise LinesideError(
            "equipment.not_real",
            f"{wanted.tag} would read {_words(reading)}, of bad quality: {shown(reading.detail)}",
            effect=FILE_UNCHANGED,
            todo="Look at address, unit and limits, and at what the device shows.",
        )
    return reading


def _agrees(wanted: Wanted, reading: Reading) -> None:
    """Of an address that was given whole: what the device is said to show."""
    told = wanted.then or wanted.reads
    if not told or isinstance(reading.value, bool | str):
        return
    if abs(reading.value - _number(told)) > _within(wanted, told) * (1 + 1e-9):
        raise LinesideError(
            "equipment.not_that",
            f"{wanted.tag} reads {_words(reading)}; the device is said to show {told[:40]}.",
            effect=FILE_UNCHANGED,
            todo="Look at address and unit; a wider --within helps where the value flickers.",
        )


def _doubt(reading: Reading) -> str:
    """What to remark of a value that was read."""
    if isinstance(reading.value, float) and 0.0 < abs(reading.value) < DOUBTFUL_MIN:
        return "so small a number is often read in the wrong word order: bind it with --reads and --then instead"
    return ""


def told(bound: Bound) -> str:
    """What was done, for a person."""
    note = f" Note: {bound.remark}." if bound.remark else ""
    if bound.reading is None:
        next_one = f"Next: lineside equipment browse {bound.device}"
        return f"{bound.device} is connected, and in the plant file.{note}\n{next_one}\n"
    quality = bound.reading.quality.value + (f" ({shown(bound.reading.detail)})" if bound.reading.detail else "")
    return (
        f"{bound.tag} = {_words(bound.reading)}, {quality}; {bound.address} at {bound.device}\n"
        f"In the plant file {bound.seconds:.1f} s after the command began. A runtime reads it at its next start."
        f"{note}\n"
    )
