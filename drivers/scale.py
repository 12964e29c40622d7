"""Scales.

And balances, over TCP or a serial line. Settings: `host` and `port`, or `line` (a serial device such as /dev/ttyUSB0)
with `baud` (9600), `bits` (8), `parity` (`none`), `stop_bits` (1). `format`: `sics` when left out, commands and replies
as of MT-SICS levels 0 and 1; `continuous`, frames of 17 characters that begin with STX, with `checksum: true` where one
follows each. `serial_number` (SICS): the one balance that is believed; another one in its place is refused.

Addresses: `weight` (what is shown, in a unit of mass), `stable`, `tare weight`; switches that act when `true` is
written: `tare` and `zero`, which read true while exactly zero is shown at rest, and `clear tare`, which reads true
while the tare is 0. A SICS `tare weight` can be written; over `continuous` nothing can.

A weight that moves is of uncertain quality; overload, underload and "not ready" are bad. Mass in kg, g, mg or ug is
converted to the tag's unit; anything else is bad. A scale gives no source time.

One SICS command is on the wire at a time and is never repeated. Nothing in a reply says which command it answers, so
each is followed by a question for the serial number, and counts only when exactly these two lines came. Whatever is
late, doubled, cut or asked for by nobody costs the connection and is no data.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from drivers.wire import OPEN_ERRORS, Line, Wire, WireLost, serial_wire, tcp_wire
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value, convert
from edge.equipment import Capability, Found, Home, OneTask, WriteRefused, WriteUnknown, retry_delays_s
from edge.explorer import Explorer

MASSES: Final = ("kg", "g", "mg", "ug")

# Address -> what is asked for it, and what its writing sends.
_ASKED: Final = {"weight": "SI", "stable": "SI", "tare": "SI", "zero": "SI", "tare weight": "TA", "clear tare": "TA"}
_ACTS: Final = {"tare": "T", "zero": "Z", "clear tare": "TAC"}
_NUMBERS: Final = frozenset({"weight", "tare weight"})
_WHO: Final = "I4"
_IDENTITY: Final = re.compile(r'I4 A "([!#-~ ]{1,40})"')
_VALUE: Final = re.compile(
    r"(?P<word>S|T|TA) (?P<status>[SDA]) {1,10}(?P<number>-?[0-9]{1,9}(\.[0-9]{1,8})?) (?P<unit>\S{1,5})"
)
_STATUS: Final = {("S", "S"), ("S", "D"), ("T", "S"), ("TA", "A")}
_NOT_NOW: Final = {
    "I": "is busy or not at rest",
    "+": "is overloaded",
    "-": "is underloaded",
    "L": "does not accept this",
}
_ERRORS: Final = {
    "ES": "does not know the command",
    "EL": "cannot carry the command out",
    "ET": "did not receive the command whole",
}
_STX: Final = 0x02
_FRAME: Final = re.compile(rb"\x02(?P<status>[\x20-\x7f]{3})(?P<shown>[ ]*[0-9]+)(?P<tare>[ ]*[0-9]+)\r", re.DOTALL)
_FRAME_BYTES: Final = 17
_FRAME_UNITS: Final = {1: "g"}


class _Settings(Line):
    host: Annotated[str, Field(max_length=253)] = ""
    port: Annotated[int, Field(ge=0, le=65_535)] = 0
    format: Literal["sics", "continuous"] = "sics"
    checksum: bool = False
    serial_number: Annotated[str, Field(max_length=40)] = ""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.host and self.port) == bool(self.line) or (self.line and (self.host or self.port)):
            raise ValueError("either host and port, or line")
        if self.checksum and self.format == "sics":
            raise ValueError("checksum belongs to format continuous")
        if self.serial_number and self.format == "continuous":
            raise ValueError("a continuous scale does not say its serial number")
        return self


class _NotSent(WireLost):
    """Nothing left this box."""


class _Rejected(Exception):
    """The scale answered that it did not do what was asked. The text ends the sentence "The scale ..."."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a scale said: a mass in `unit`, at rest or not; `trouble` says instead why there is none."""

    mass: float = 0.0
    unit: str = ""
    stable: bool = True
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a continuous scale."""

    shown: Shown
    tare: Shown


def read_reply(command: str, line: bytes) -> Shown:
    """What a SICS reply (without its end) to a command says. Raises `_Rejected` when the scale refused and `WireLost`
    for anything that is no reply to this command."""
    try:
        text = line.decode("ascii")
    except UnicodeDecodeError as error:
        raise WireLost(f"The scale answered something unreadable to {command}.") from error
    word = "S" if command == "SI" else command.partition(" ")[0]
    if text in _ERRORS:
        raise _Rejected(_ERRORS[text])
    if text.startswith(f"{word} ") and text[len(word) + 1 :] in _NOT_NOW:
        raise _Rejected(_NOT_NOW[text[len(word) + 1 :]])
    if word in ("Z", "TAC") and text == f"{word} A":
        return Shown()
    match = _VALUE.fullmatch(text)
    if match is None or match["word"] != word or (word, match["status"]) not in _STATUS:
        raise WireLost(f"The scale answered {text[:40]!r} to {command}.")
    unit = match["unit"]
    if unit not in MASSES:
        return Shown(trouble=f"The scale shows {unit!r}, which is no unit of mass that Lineside converts.")
    return Shown(float(match["number"]), unit, stable=match["status"] != "D")


def read_frame(data: bytes, *, checksum: bool) -> Frame | None:
    """One continuous frame from STX to CR (and checksum), or None when it is none."""
    if checksum:
        if len(data) != _FRAME_BYTES + 1 or sum(data) & 0x7F:
            return None
        data = data[:-1]
    match = _FRAME.fullmatch(data) if len(data) == _FRAME_BYTES else None
    if match is None or len(match["shown"]) != 6 or len(match["tare"]) != 6:
        return None
    a, b, c = match["status"]
    if not all(byte & 0x20 for byte in (a, b, c)):
        return None
    factor = 10.0 ** (2 - (a & 7)) / (10.0 if c & 0x10 else 1.0)
    unit = ("kg" if b & 0x10 else "lb") if not c & 7 else _FRAME_UNITS.get(c & 7, "another unit")
    trouble = ""
    if unit not in MASSES:
        trouble = f"The scale shows {unit}, which is no unit of mass that Lineside converts."
    elif b & 0x04:
        trouble = "The scale is overloaded or underloaded."
    elif b & 0x40:
        trouble = "The scale was switched on and has not found its zero."
    mass = round(int(match["shown"]) * factor * (-1.0 if b & 2 else 1.0), 9) + 0.0
    tare = round(int(match["tare"]) * 10.0 ** (2 - (a & 7)), 9)
    return Frame(Shown(mass, unit, stable=not b & 8, trouble=trouble), Shown(tare, unit, trouble=trouble))


def _check_tag(name: str, tag: Tag, settings: _Settings) -> None:
    if tag.address not in _ASKED:
        raise LinesideError(
            "scale.address",
            f"{tag.address[:80]!r} is nothing that a scale has.",
            todo=f"Use one of: {', '.join(_ASKED)}.",
        )
    number = tag.address in _NUMBERS
    if tag.type != ("float" if number else "bool") or (number and tag.unit not in MASSES):
        raise LinesideError(
            "scale.type",
            f"The tag {name} is a {tag.type} in {tag.unit or 'no unit'}; {tag.address!r} is not.",
            todo="weight and tare weight are float, in kg, g, mg or ug; everything else is bool.",
        )
    writes = settings.format == "sics" and tag.address not in ("weight", "stable")
    if tag.access == "write" and not writes:
        raise LinesideError(
            "scale.read_only",
            f"The tag {name} is to be written, but {tag.address!r} can only be read.",
            todo="Over `sics`, tare, zero, clear tare and tare weight can be written; over `continuous` nothing.",
        )
    if settings.format == "continuous" and tag.address in _ACTS:
        raise LinesideError(
            "scale.continuous",
            f"The tag {name} is {tag.address!r}, which a continuous scale does not have.",
            todo="Use weight, stable and tare weight.",
        )


class ScaleDriver(OneTask):
    """One scale; see the module's docstring and the port `edge.equipment.Driver`."""

    capabilities = frozenset({Capability.READ, Capability.WATCH, Capability.WRITE, Capability.BROWSE})

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],  # noqa: ARG002  a scale gives no source time
        home: Home,  # noqa: ARG002  and there is nothing to keep
    ) -> None:
        try:
            self._settings = _Settings.model_validate(dict(connection.settings))
        except ValidationError as error:
            first = error.errors()[0]
            raise LinesideError(
                "scale.settings",
                f"Setting {'.'.join(map(str, first['loc'])) or 'host, port, line'}: {first['msg']}.",
                todo="Give host and port, or line (like /dev/ttyUSB0), baud, bits, parity, stop_bits as the scale has.",
            ) from error
        for name, tag in tags.items():
            _check_tag(name, tag, self._settings)
        self._where = self._settings.line or f"{self._settings.host}:{self._settings.port}"
        super().__init__("scale", tags, now_s)
        self._connection = connection
        self._wire: Wire | None = None
        self._turn = asyncio.Lock()
        self._work = asyncio.Event()
        self._watched: list[str] = []
        self._who = ""
        self._frame: asyncio.Future[Frame] | None = None
        """The frame that comes next, when somebody waits for it."""

    @staticmethod
    def explorer() -> Explorer:
        """Loaded only when a device is looked for."""
        from drivers.scale_explorer import EXPLORER

        return EXPLORER

    # The port -----------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the task and the connection."""
        await super().stop()
        self._drop("Stopped.")

    async def watch(self, tags: Sequence[str]) -> None:
        """Poll exactly these tags."""
        self._watched = [tag for tag in tags if tag in self._tags]
        self._work.set()

    async def read(self, tag: str) -> Reading:
        """Read one tag now; of a continuous scale, from the frame that comes next."""
        address = self._tags[tag].address
        try:
            if self._settings.format == "sics":
                return self._reading(tag, await self._asked(_ASKED[address]))
            frame = await self._next_frame()
        except WireLost as error:
            return self._bad(tag, str(error))
        return self._reading(tag, frame.tare if address == "tare weight" else frame.shown)

    async def write(self, tag: str, value: Value) -> None:
        """Exactly one command on the wire."""
        found = self._tags[tag]
        if found.address in _ACTS:
            if value is not True:
                raise WriteRefused(f"Nothing was sent: `{found.address}` acts when true is written.")
            command = _ACTS[found.address]
        else:
            command = f"TA {value:.9g} {found.unit}"
            if "e" in command:
                raise WriteRefused(f"Nothing was sent: a scale takes no number like {value:g}.")
        try:
            self._checked(command, await self._exchange(command))
        except _Rejected as error:
            raise WriteRefused(f"The scale {error}.") from error
        except _NotSent as error:
            raise WriteRefused(f"Nothing was sent: {error}") from error
        except WireLost as error:
            raise WriteUnknown(f"{command} was sent, then: {error}") from error

    async def browse(self, text: str = "") -> list[Found]:
        """What every scale of this format has."""
        sics = self._settings.format == "sics"
        return [
            Found(
                address,
                address,
                "float" if address in _NUMBERS else "bool",
                sics and address not in ("weight", "stable"),
            )
            for address in _ASKED
            if text in address and (sics or address not in _ACTS)
        ]

    # SICS ---------------------------------------------------------------------------------------------------

    async def _exchange(self, command: str) -> bytes:
        """Send once; the reply, when the scale said its serial number right after it. Whatever goes wrong, also
        cancellation, drops the connection. Raises `WireLost`."""
        async with self._turn:
            wire = self._wire
            if wire is None:
                raise _NotSent(self._health.detail)
            if wire.received:
                self._drop("The scale sent something that nobody asked for.")
                raise _NotSent(self._health.detail)
            try:
                async with asyncio.timeout(self._connection.timeout_s):
                    reply = await self._line(wire, command)
                    # what came along with the reply answers no question that was asked yet
                    who = b"" if wire.received else await self._line(wire, _WHO)
            except (TimeoutError, WireLost) as error:
                why = str(error) or f"The scale did not answer within {self._connection.timeout_s:g} s."
                self._drop(why)
                raise WireLost(why) from error
            except BaseException:
                self._drop("A question was given up.")
                raise
            if who.decode("ascii", "replace") != self._who:
                why = f"The scale's answers to {command} are out of order."
                self._drop(why)
                raise WireLost(why)
            return reply

    async def _line(self, wire: Wire, command: str) -> bytes:
        wire.send(command.encode() + b"\r\n")
        return await wire.line()

    async def _asked(self, command: str) -> Shown:
        """What the scale shows, or its tare. Raises `WireLost`."""
        line = await self._exchange(command)
        try:
            return self._checked(command, line)
        except _Rejected as error:
            return Shown(trouble=f"The scale {error}.")

    def _checked(self, command: str, line: bytes) -> Shown:
        """What a reply says; one that is no reply to the command costs the connection."""
        try:
            return read_reply(command, line)
        except WireLost as error:
            self._drop(str(error))
            raise

    async def _meet(self, wire: Wire) -> None:
        """Who is it? Replies to earlier questions may still come before: they are passed over. Raises `WireLost`."""
        line = await self._line(wire, _WHO)
        while (found := _IDENTITY.fullmatch(line.decode("ascii", "replace"))) is None:
            line = await wire.line()
        if self._settings.serial_number not in ("", found[1]):
            raise WireLost(f"Another scale is connected: serial number {found[1]}, not {self._settings.serial_number}.")
        self._who = found[0]

    # Continuous ---------------------------------------------------------------------------------------------

    async def _next_frame(self) -> Frame:
        if self._wire is None:
            raise WireLost(self._health.detail)
        if self._frame is None:
            self._frame = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._frame)

    async def _listen(self, wire: Wire) -> None:
        """Take frames until the connection is lost. Raises `WireLost` or TimeoutError."""
        due_s = 0.0
        while True:
            async with asyncio.timeout(self._connection.timeout_s):
                while (frame := self._cut_out(wire.received)) is None:
                    await wire.more()
            self._answered()
            waiting, self._frame = self._frame, None
            if waiting is not None:
                waiting.set_result(frame)
            if self._now_s() >= due_s or self._work.is_set():
                self._work.clear()
                due_s = self._now_s() + self._connection.poll_s
                for tag in self._watched:
                    of_tare = self._tags[tag].address == "tare weight"
                    self._on_reading(tag, self._reading(tag, frame.tare if of_tare else frame.shown))

    def _cut_out(self, received: bytearray) -> Frame | None:
        """The newest whole frame, if there is one; it and all before it are taken away."""
        length = _FRAME_BYTES + self._settings.checksum
        start = received.rfind(_STX, 0, max(0, len(received) - length + 1))
        while start >= 0:
            frame = read_frame(bytes(received[start : start + length]), checksum=self._settings.checksum)
            if frame is not None:
                del received[: start + length]
                return frame
            start = received.rfind(_STX, 0, start)
        del received[: max(0, len(received) - length + 1)]
        return None

    # Both ---------------------------------------------------------------------------------------------------

    def _reading(self, name: str, shown: Shown) -> Reading:
        tag = self._tags[name]
        if shown.trouble:
            return self._bad(name, shown.trouble)
        value: Value
        quality, detail = Quality.GOOD, ""
        match tag.address:
            case "stable":
                value = shown.stable
            case "tare" | "zero":
                value = shown.stable and shown.mass == 0
            case "clear tare":
                value = shown.mass == 0
            case _:
                value = round(convert(shown.mass, shown.unit, tag.unit), 9)  # binary digits that no scale has
                if not shown.stable:
                    quality, detail = Quality.UNCERTAIN, "The scale is not at rest."
        reading = Reading(value, tag.unit, quality, "", self._now_s(), detail)
        self._last[name] = reading
        return reading

    def _drop(self, why: str) -> None:
        """Close the connection and say so, once."""
        wire, self._wire = self._wire, None
        waiting, self._frame = self._frame, None
        if waiting is not None:
            waiting.set_exception(WireLost(why))
            waiting.exception()  # looked at: whoever waited may be gone
        if wire is not None:
            wire.close()
            wire.connection_lost(None)
        if wire is not None or not self._health.connected:
            self._say(connected=False, detail=why)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, why))

    def _answered(self) -> None:
        """The scale is there: an open connection alone does not show it."""
        found = _IDENTITY.fullmatch(self._who)
        who = f", serial number {found[1]}" if found else ""
        self._say(connected=True, detail=f"Connected to {self._where}{who}.")

    # The task -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            try:
                wire = await self._connected()
                delays = retry_delays_s()
                await (self._poll(wire) if self._settings.format == "sics" else self._listen(wire))
            except TimeoutError:
                self._drop(f"The scale at {self._where} did not say anything within {self._connection.timeout_s:g} s.")
            except OPEN_ERRORS as error:
                self._drop(f"No connection to {self._where} ({error}).")
            except WireLost as error:
                self._drop(str(error))
            await asyncio.sleep(next(delays))

    async def _connected(self) -> Wire:
        """A connection to a scale that was met. Raises `WireLost`, TimeoutError or `OPEN_ERRORS`."""
        async with asyncio.timeout(self._connection.timeout_s):
            settings = self._settings
            wire = await (tcp_wire(settings.host, settings.port) if settings.host else serial_wire(settings))
            try:
                if self._settings.format == "sics":
                    await self._meet(wire)
            except BaseException:
                wire.close()
                raise
        self._wire = wire
        if self._settings.format == "sics":
            self._answered()
        return wire

    async def _poll(self, wire: Wire) -> None:
        """Read what is watched, every `poll_s`, until the connection is lost. Raises `WireLost`."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while self._wire is wire:
            self._work.clear()
            shown: dict[str, Shown] = {}
            for tag in list(self._watched):
                command = _ASKED[self._tags[tag].address]
                if command not in shown:
                    shown[command] = await self._asked(command)
                self._on_reading(tag, self._reading(tag, shown[command]))
            due_s = max(due_s + self._connection.poll_s, loop.time())
            waits = [asyncio.ensure_future(event.wait()) for event in (self._work, wire.lost)]
            try:
                await asyncio.wait(waits, timeout=max(0.0, due_s - loop.time()), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            if self._wire is wire and wire.lost.is_set():
                raise WireLost("The connection to the scale ended.")
