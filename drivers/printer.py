"""Label printers.

ZPL II over TCP. Settings: `host` and `port` (9100). `counter: true`: the printer counts its labels (SGD
`odometer.total_label_count`), and a label counts as printed when that count has grown by its copies. Without it, a
label counts as printed when the printer has taken it, has nothing left to print and reports no trouble.

Addresses: `label` (text, written: one whole label from `^XA` to `^XZ`), which reads the fingerprint of the label that
was printed last, bad while nobody knows what that is; `ready` (bool); `trouble` (text: what keeps it from printing);
`waiting` (int: labels that it has yet to print). A printer gives no source time.

A label is sent once and never again. Before it the printer is asked how it is (`~HS`): paper out, head open, paused,
ribbon out, buffer full, or something that another one left in it: then nothing is sent. After it the printer is asked
again, until it has printed. Trouble in between, a lost connection or no end within `timeout_s` without one more label:
nobody knows what came out. Nothing that is written reaches a printer with a `~` command or a second label in it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drivers.wire import OPEN_ERRORS, Wire, WireLost, tcp_wire
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.core.zpl import fingerprint
from edge.equipment import Capability, Found, Home, OneTask, WriteRefused, WriteUnknown, retry_delays_s

LOOK_S: Final = 0.05
_TYPES: Final = {"label": "text", "ready": "bool", "trouble": "text", "waiting": "int"}
_ASK: Final = b"~HS"
_COUNT: Final = b'! U1 getvar "odometer.total_label_count"\r\n'
_LABEL: Final = re.compile(r"\^XA[^~\x00-\x1f\x7f]*\^PQ([1-9][0-9]{0,4}),0,1,Y\^XZ")
_STATUS: Final = re.compile(
    rb"\x02[0-9]{3},(?P<paper>[01]),(?P<paused>[01]),[0-9]{4},(?P<formats>[0-9]{3}),(?P<full>[01]),[01],"
    rb"(?P<partial>[01]),[0-9]{3},(?P<lost>[01]),(?P<cold>[01]),(?P<hot>[01])\x03\r\n"
    rb"\x02[0-9]{3},[01],(?P<head>[01]),(?P<ribbon>[01]),[01],[0-9],[0-9],[01],(?P<left>[0-9]{8}),"
    rb"[01],[0-9]{1,3}\x03\r\n"
    rb"\x02[0-9A-Z]{4},[01]\x03\r\n"
)
_STATUS_BYTES_MAX: Final = 120
_COUNTED: Final = re.compile(rb'"([0-9]{1,9})"')
_TROUBLE: Final = {
    "paper": "paper out",
    "head": "head open",
    "ribbon": "ribbon out",
    "paused": "paused",
    "full": "buffer full",
    "lost": "memory lost",
    "cold": "head too cold",
    "hot": "head too hot",
}


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 9100
    counter: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """What a printer says of itself."""

    trouble: tuple[str, ...] = ()
    formats: int = 0
    """Labels that it has taken and not begun."""
    left: int = 0
    """Copies of the one that it prints."""
    partial: bool = False

    @property
    def idle(self) -> bool:
        """It has nothing to print."""
        return not (self.formats or self.left or self.partial)


def read_status(data: bytes) -> Status | None:
    """The three lines of a host status, or None when these are not they."""
    match = _STATUS.fullmatch(data) if len(data) <= _STATUS_BYTES_MAX else None
    if match is None:
        return None
    return Status(
        tuple(words for key, words in _TROUBLE.items() if match[key] == b"1"),
        int(match["formats"]),
        int(match["left"]),
        match["partial"] == b"1",
    )


class _NotSent(WireLost):
    """Nothing left this box."""


class PrinterDriver(OneTask):
    """One printer; see the module's docstring and the port `edge.equipment.Driver`."""

    capabilities = frozenset({Capability.READ, Capability.WATCH, Capability.WRITE, Capability.BROWSE})

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],  # noqa: ARG002  a printer gives no source time
        home: Home,  # noqa: ARG002  and there is nothing to keep
    ) -> None:
        super().__init__("printer", tags, now_s)
        try:
            self._settings = _Settings.model_validate(dict(connection.settings))
        except ValidationError as error:
            first = error.errors()[0]
            raise LinesideError(
                "printer.settings",
                f"Setting {'.'.join(map(str, first['loc']))}: {first['msg']}.",
                todo="Give host, and if needed port (9100) and counter (true or false).",
            ) from error
        for name, tag in tags.items():
            if tag.type != _TYPES.get(tag.address) or (tag.access == "write") != (tag.address == "label"):
                raise LinesideError(
                    "printer.address",
                    f"The tag {name} is {tag.address[:80]!r}, a {tag.type} with access {tag.access}.",
                    todo="label is text with `access: write`; to read: ready (bool), trouble (text), waiting (int).",
                )
        self._connection = connection
        self._wire: Wire | None = None
        self._turn = asyncio.Lock()
        self._work = asyncio.Event()
        self._watched: list[str] = []
        self._printed: str | None = ""
        """The fingerprint; None while nobody knows."""

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
        """Ask the printer now."""
        async with self._turn:
            try:
                return self._reading(tag, await self._ask())
            except WireLost as error:
                return self._bad(tag, str(error))

    async def write(self, tag: str, value: Value) -> None:
        """Send one label, once, and see it printed."""
        label = str(value)
        match = _LABEL.fullmatch(label) if self._tags[tag].address == "label" else None
        if match is None or label.count("^XA") != 1 or label.count("^XZ") != 1:
            raise WriteRefused("Nothing was sent: this is not one label from ^XA to ^XZ that says its copies.")
        async with self._turn:
            try:
                before = await self._ready()
            except WireLost as error:
                raise WriteRefused(f"Nothing was sent: {error}") from error
            try:
                await self._see_printed(label, before, int(match[1]))
            except WireLost as error:
                raise WriteUnknown(f"The label was sent, then: {error}") from error
            self._printed = fingerprint(label)

    async def browse(self, text: str = "") -> list[Found]:
        """What every printer has."""
        return [Found(at, at, kind, at == "label") for at, kind in _TYPES.items() if text in at]

    # Printing -----------------------------------------------------------------------------------------------

    async def _ready(self) -> int:
        """Return when the printer can print now: how many labels it has printed in its life. Raises `WireLost`."""
        status = await self._ask()
        if status.trouble:
            raise _NotSent(f"the printer says: {', '.join(status.trouble)}.")
        if not status.idle:
            raise _NotSent("the printer still has something to print that is not this box's, or of an attempt before.")
        return await self._count() if self._settings.counter else 0

    async def _see_printed(self, label: str, before: int, copies: int) -> None:
        """Send, and look until it has come out. Raises `WireLost` with what is known."""
        wire = self._wire
        if wire is None:
            raise WireLost(self._health.detail)
        self._printed = None
        wire.send(label.encode())
        until_s, least = self._now_s() + self._connection.timeout_s, (10**9, 10**9)
        while True:
            status = await self._ask()
            self._tell(status)
            if status.trouble:
                raise WireLost(f"The printer says: {', '.join(status.trouble)}.")
            if status.idle:
                break
            if (status.formats, status.left) < least:  # it is getting on
                least, until_s = (status.formats, status.left), self._now_s() + self._connection.timeout_s
            if self._now_s() > until_s:
                raise WireLost(f"The printer did not get on within {self._connection.timeout_s:g} s.")
            await asyncio.sleep(LOOK_S)
        if self._settings.counter and (grown := await self._count() - before) != copies:
            raise WireLost(f"The printer counted {grown} labels, not {copies}.")

    async def _ask(self) -> Status:
        """How the printer is. Whatever goes wrong, also cancellation, drops the connection. Raises `WireLost`."""
        data = await self._exchange(_ASK, lambda received: received.count(b"\x03\r\n") >= 3)
        status = read_status(data)
        if status is None:
            raise self._lost(f"The printer answered {data[:40]!r} to ~HS.")
        return status

    async def _count(self) -> int:
        """How many labels it has printed in its life. Raises `WireLost`."""
        data = await self._exchange(_COUNT, lambda received: received.count(b'"') > 1)
        match = _COUNTED.fullmatch(data)
        if match is None:
            raise self._lost(f"The printer does not count its labels: it answered {data[:40]!r}.")
        return int(match[1])

    async def _exchange(self, question: bytes, whole: Callable[[bytearray], bool]) -> bytes:
        wire = self._wire
        if wire is None:
            raise _NotSent(self._health.detail)
        if wire.received:
            raise self._lost("The printer sent something that nobody asked for.")
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                wire.send(question)
                while not whole(wire.received):
                    await wire.more()
        except (TimeoutError, WireLost) as error:
            why = str(error) or f"The printer did not answer within {self._connection.timeout_s:g} s."
            raise self._lost(why) from error
        except BaseException:
            self._drop("A question was given up.")
            raise
        data = bytes(wire.received)
        wire.received.clear()
        return data

    def _lost(self, why: str) -> WireLost:
        self._drop(why)
        return WireLost(why)

    # Reading ------------------------------------------------------------------------------------------------

    def _reading(self, name: str, status: Status) -> Reading:
        tag = self._tags[name]
        value: Value
        match tag.address:
            case "label":
                if self._printed is None:
                    return self._bad(name, "What was printed last is not known.")
                value = self._printed
            case "ready":
                value = not status.trouble and status.idle
            case "trouble":
                value = ", ".join(status.trouble)
            case _:
                value = status.formats + status.left
        reading = Reading(value, tag.unit, Quality.GOOD, "", self._now_s())
        self._last[name] = reading
        return reading

    def _tell(self, status: Status) -> None:
        for tag in list(self._watched):
            self._on_reading(tag, self._reading(tag, status))

    def _drop(self, why: str) -> None:
        """Close the connection and say so, once."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
            wire.connection_lost(None)
        if wire is not None or not self._health.connected:
            self._say(connected=False, detail=why)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, why))

    # The task -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            try:
                async with asyncio.timeout(self._connection.timeout_s):
                    self._wire = await tcp_wire(self._settings.host, self._settings.port)
                await self._poll(self._wire)
            except TimeoutError:
                self._drop(f"No connection to {self._settings.host}:{self._settings.port} in time.")
            except OPEN_ERRORS as error:
                self._drop(f"No connection to {self._settings.host}:{self._settings.port} ({error}).")
            except WireLost as error:
                self._drop(str(error))
            if self._health.connected:
                delays = retry_delays_s()
            await asyncio.sleep(next(delays))

    async def _poll(self, wire: Wire) -> None:
        """Ask every `poll_s` how it is, until the connection is lost. Raises `WireLost`."""
        while True:
            self._work.clear()
            async with self._turn:
                if self._wire is not wire:
                    return
                status = await self._ask()
                self._say(
                    connected=True,
                    detail=f"Connected to {self._settings.host}:{self._settings.port}.",
                    remark=", ".join(status.trouble),
                )
                self._tell(status)
            waits = [asyncio.ensure_future(event.wait()) for event in (self._work, wire.lost)]
            try:
                await asyncio.wait(waits, timeout=self._connection.poll_s, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
            if self._wire is wire and wire.lost.is_set():
                raise WireLost("The connection to the printer ended.")
