"""Modbus TCP and RTU.

Settings of a connection, which is one device:

- `host` and `port` (502), or `line`, the path of a serial port, best one in `/dev/serial/by-id/`, with `baud`
  (19200), `parity` (`even`, `odd` or `none`; even) and `stop_bits` (1 or 2; 1). Connections with the same `line` share
  it and must set it alike.
- `framing`: `rtu` when `host` and `port` are those of a gateway that passes the frames of a serial line on as they are,
  RTU over TCP; else `tcp`, by default. Connections with the same gateway share it like a line.
- `device`: its unit id, by default 1. 1 to 247 on a serial line, to 255 over TCP.
- `pause_ms`: what the device needs between an answer and the next request, by default 0.
- `registers_max` (125) and `bits_max` (2000): what it answers at once.
- `gap`: so many registers that nobody asked for (or 16 times as many bits) are read along where that saves a request,
  by default 8; 0 for a device in which reading changes something.

Tags that lie close together are read with one request. Where the device refuses one for its address (exception 2 or 3)
it is split there from then on, until what is refused stands alone; on a failure (4) for this time. One request is on
the wire at a time and is never repeated: pymodbus' own retries send a write up to four times. A write is one request;
a bit of a register is written with a mask (function 22), which leaves the other bits as they are.

Every reply must be the answer to this request, byte by byte: same transaction and device, same function, exactly so
many values, a write repeated as it was sent. After a time-out or a wrong reply a TCP connection is dropped, and the
next one goes on counting its transactions: a late reply has nowhere to arrive. A serial line is not dropped; a device
that did not answer is left alone for a while, and the first request after that has another form than the one that was
given up, so that a late reply is seen to be one. Its values are used for nothing.

On a shared line, also behind a gateway, devices take turns, one request each. One that is silent costs the others its
time-out and is then left alone for 1 to 10 time-outs, longer each time.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from drivers.modbus_address import Block, NoValue, checked_tag
from drivers.modbus_link import Link, Lost, Rejected, gateway_line, serial_line, tcp_link
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, Found, Home, OneTask, WriteRefused, WriteUnknown, retry_delays_s
from edge.explorer import Explorer

REGISTERS_MAX: Final = 125
BITS_MAX: Final = 2000
ALONE_TIMEOUTS: Final = 10
"""So many time-outs a silent device on a serial line is left alone at most."""

# After these the device may have begun to carry the write out.
_UNKNOWN: Final = frozenset({4, 5, 11})
# After these a part of what was asked may well be answered; after the first two for good.
_FOR_GOOD: Final = frozenset({2, 3})
_APART: Final = _FOR_GOOD | {4}
_READS: Final = {"coil": 1, "discrete": 2, "holding": 3, "input": 4}
_WRITE_BIT, _WRITE_ONE, _WRITE_MANY, _WRITE_MASKED = 5, 6, 16, 22
_LINE_ONLY: Final = frozenset({"baud", "parity", "stop_bits"})


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    host: Annotated[str, Field(min_length=1, max_length=253)] = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 502
    framing: Literal["tcp", "rtu"] = "tcp"
    line: Annotated[str, Field(pattern="^/", max_length=200)] = ""
    baud: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 19200
    parity: Literal["even", "odd", "none"] = "even"
    stop_bits: Literal[1, 2] = 1
    device: Annotated[int, Field(ge=1, le=255)] = 1
    """Unit id. 0 is a broadcast that nobody answers, so it is not allowed."""
    pause_ms: Annotated[int, Field(ge=0, le=10_000)] = 0
    registers_max: Annotated[int, Field(ge=1, le=REGISTERS_MAX)] = REGISTERS_MAX
    bits_max: Annotated[int, Field(ge=1, le=BITS_MAX)] = BITS_MAX
    gap: Annotated[int, Field(ge=0, le=REGISTERS_MAX)] = 8

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.host) == bool(self.line):
            raise ValueError("give `host` or `line`")
        if foreign := self.model_fields_set & (frozenset({"port", "framing"}) if self.line else _LINE_ONLY):
            raise ValueError(f"{', '.join(sorted(foreign))} means nothing with {'line' if self.line else 'host'}")
        if self.shared and self.device > 247:
            raise ValueError("a device on a serial line has a number from 1 to 247")
        return self

    @property
    def shared(self) -> bool:
        """Whether it is a serial line, with other devices on it."""
        return bool(self.line) or self.framing == "rtu"


@dataclass(frozen=True, slots=True, order=True)
class _Span:
    """Registers or bits that one value takes. Several tags may have the same."""

    table: str
    number: int
    count: int

    @property
    def end(self) -> int:
        return self.number + self.count

    @property
    def bits(self) -> bool:
        return self.table in ("coil", "discrete")

    @property
    def shape(self) -> tuple[int, int]:
        """What tells its reply from that of another: function and size."""
        return _READS[self.table], (self.count + 7) // 8 if self.bits else self.count

    @property
    def request(self) -> bytes:
        """What reads it."""
        return struct.pack(">BHH", _READS[self.table], self.number, self.count)

    def other_shape(self) -> _Span:
        """Near here, with a reply of another size."""
        step = 8 if self.bits else 1
        if self.count > step:
            return _Span(self.table, self.number, self.count - step)
        return _Span(self.table, max(0, self.number - step), self.count + step)


@dataclass(frozen=True, slots=True)
class _Together:
    """What one request reads."""

    spans: list[_Span]
    """Sorted."""
    whole: _Span
    values: Block
    units: list[str]
    """Of the names in `values`."""


def _parted(spans: Sequence[_Span]) -> int:
    """Where to part sorted spans that were refused together: at the widest gap, or near the middle."""
    ends = list(itertools.accumulate((span.end for span in spans), max))
    return max(
        range(1, len(spans)), key=lambda at: (max(spans[at].number - ends[at - 1], -1), -abs(2 * at - len(spans)))
    )


class ModbusDriver(OneTask):
    """One Modbus device; see the module's docstring and the port `edge.equipment.Driver`."""

    capabilities = frozenset({Capability.READ, Capability.WATCH, Capability.WRITE})

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],  # noqa: ARG002  Modbus gives no source time
        home: Home,  # noqa: ARG002  nor has it anything to keep
    ) -> None:
        try:
            self._settings = _Settings.model_validate(dict(connection.settings))
        except ValidationError as error:
            first = error.errors()[0]
            raise LinesideError(
                "modbus.settings",
                f"Setting {'.'.join(map(str, first['loc'])) or 'of the connection'}: {first['msg']}.",
                todo="Give host, and if needed port (502), or line; and if needed device (unit id, by default 1).",
            ) from error
        wanted = self._settings
        self._where = wanted.line or f"{wanted.host}:{wanted.port}"
        if wanted.shared:
            self._where += f" device {wanted.device}"
        self._health_was_good = False
        super().__init__("modbus", tags, now_s)
        self._connection = connection
        self._addresses = {name: checked_tag(name, tag) for name, tag in tags.items()}
        self._floats = frozenset(name for name, tag in tags.items() if tag.type == "float")
        self._spans = {name: _Span(at.table, at.number, at.count) for name, at in self._addresses.items()}
        for name, span in self._spans.items():
            if span.count > wanted.registers_max:
                raise LinesideError(
                    "modbus.too_long",
                    f"The tag {name} takes {span.count} registers; the device answers {wanted.registers_max} at once.",
                    todo="Shorten the value, or correct `registers_max`.",
                )
        self._link: Link | None = None
        self._transaction = 0
        self._given_up: tuple[int, int] | None = None
        """On a serial line: function and size of the request whose answer may still come."""
        self._wire = asyncio.Lock()
        self._free_at_s = 0.0
        self._work = asyncio.Event()
        self._watched: list[str] = []
        self._tags_at: dict[_Span, list[str]] = {}
        self._blocks: list[_Together] = []
        self._cuts: set[_Span] = set()
        """What is not read together with anything before it: the device refused that."""

    @staticmethod
    def explorer() -> Explorer:
        """Loaded only when a device is looked for."""
        from drivers.modbus_explorer import EXPLORER

        return EXPLORER

    # The port -----------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the task and the connection."""
        await super().stop()
        self._drop("Stopped.")

    async def watch(self, tags: Sequence[str]) -> None:
        """Poll exactly these tags."""
        self._watched = [tag for tag in tags if tag in self._addresses]
        self._plan()
        self._work.set()

    async def read(self, tag: str) -> Reading:
        """Read one tag now."""
        span = self._spans[tag]
        try:
            value = self._addresses[tag].decode(await self._read(span))
        except (Lost, Rejected, NoValue) as error:
            return self._bad(tag, str(error))
        reading = self._last[tag] = Reading(value, self._tags[tag].unit, Quality.GOOD, "", self._now_s())
        return reading

    async def write(self, tag: str, value: Value) -> None:
        """Exactly one request on the wire."""
        request = self._write_request(tag, value)
        async with self._wire:
            if self._link is None:
                raise WriteRefused(f"Nothing was sent: {self._health.detail}")
            try:
                await self._exchange(self._link, request)
            except Rejected as error:
                raise (WriteUnknown if error.code in _UNKNOWN else WriteRefused)(str(error)) from error
            except Lost as error:
                raise WriteUnknown(f"The write was sent, then: {error}") from error

    def _write_request(self, tag: str, value: Value) -> bytes:
        address = self._addresses[tag]
        if address.bits:
            return struct.pack(">BHH", _WRITE_BIT, address.number, 0xFF00 if value else 0)
        if address.bit is not None:
            mask = 1 << address.bit
            return struct.pack(">BHHH", _WRITE_MASKED, address.number, 0xFFFF & ~mask, mask if value else 0)
        try:
            data = address.encode(value)
        except ValueError as error:
            raise WriteRefused(f"{value} cannot be sent: {error}.") from error
        if len(data) == 2:
            return struct.pack(">BH", _WRITE_ONE, address.number) + data
        return struct.pack(">BHHB", _WRITE_MANY, address.number, len(data) // 2, len(data)) + data

    async def browse(self, text: str = "") -> list[Found]:  # noqa: ARG002  not asked for
        """Modbus has no browsing."""
        return []

    # The wire -----------------------------------------------------------------------------------------------

    async def _exchange(self, link: Link, request: bytes) -> bytes:
        """Send once and return the answer. Whatever goes wrong, also cancellation, ends the connection."""
        loop = asyncio.get_running_loop()
        try:
            if (wait_s := self._free_at_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            reply = await link.exchange(self._settings.device, request, self._connection.timeout_s)
        except Rejected:
            self._answered()
            raise
        except BaseException as error:
            self._given_up = _shape(request)
            self._drop(str(error) if isinstance(error, Lost) else "A request was given up.")
            raise
        finally:
            self._free_at_s = loop.time() + self._settings.pause_ms / 1000
        self._answered()
        return reply

    async def _read(self, span: _Span) -> bytes:
        """The registers there as they came, or the bits. Raises Lost or Rejected."""
        async with self._wire:
            if self._link is None:
                raise Lost(self._health.detail)
            return (await self._exchange(self._link, span.request))[2:]

    def _drop(self, why: str) -> None:
        """Give the connection up and say so, once."""
        link, self._link = self._link, None
        if link is not None:
            self._transaction = link.transaction
            link.leave()
            self._say_lost(why)
        self._work.set()

    def _say_lost(self, why: str) -> None:
        self._say(connected=False, detail=why)
        for tag in self._watched:
            self._on_reading(tag, self._bad(tag, why))

    def _answered(self) -> None:
        """The device is there: an open connection alone does not show it."""
        if self._link is not None:
            self._health_was_good = True
            self._say(connected=True, detail=f"Connected to {self._where}.")

    # The task -----------------------------------------------------------------------------------------------

    def _delays_s(self) -> Iterator[float]:
        timeout_s = self._connection.timeout_s
        return retry_delays_s(timeout_s, ALONE_TIMEOUTS * timeout_s) if self._settings.shared else retry_delays_s()

    async def _run(self) -> None:
        delays = self._delays_s()
        while True:
            why = await self._connect()
            if why:
                self._say_lost(why)
            else:
                await self._poll()
                if self._health_was_good:
                    delays = self._delays_s()
                    self._health_was_good = False
            await asyncio.sleep(next(delays))

    async def _connect(self) -> str:
        """Why there is no connection, or "" when there is."""
        wanted = self._settings
        if wanted.shared:
            try:
                self._link = await (
                    serial_line(wanted.line, wanted.baud, wanted.parity, wanted.stop_bits)
                    if wanted.line
                    else gateway_line(wanted.host, wanted.port, self._connection.timeout_s)
                )
            except Lost as error:
                return str(error)
            return await self._out_of_step()
        link = tcp_link(wanted.host, wanted.port, self._connection.timeout_s)
        opened = False
        try:
            opened = await link.open(self._transaction)
        finally:
            if not opened:
                link.leave()
        if not opened:
            return f"No connection to {self._where}."
        self._link = link
        return ""

    async def _out_of_step(self) -> str:
        """On a serial line nothing tells a late reply from the one that is awaited, except its form: why the device
        is not in step, or "" after an answer of another form than that of the request that was given up."""
        if self._given_up is None or not self._spans:
            return ""
        near = min(self._spans.values())
        span = near if near.shape != self._given_up else near.other_shape()
        async with self._wire:
            try:
                if self._link is not None:
                    await self._exchange(self._link, span.request)
            except Rejected:
                pass  # an answer too
            except Lost as error:
                return str(error)
        self._given_up = None
        return ""

    async def _poll(self) -> None:
        """Read what is watched, every `poll_s`, until the connection is lost."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while self._link is not None:
            self._work.clear()
            if not self._blocks:
                self._answered()
            try:
                for block in list(self._blocks):
                    for name, reading in (await self._block_readings(block)).items():
                        self._on_reading(name, reading)
            except Lost:
                return
            due_s = max(due_s + self._connection.poll_s, loop.time())
            await self._until(due_s)

    async def _block_readings(self, block: _Together) -> dict[str, Reading]:
        """Read these with one request; with more when the device refuses that. Raises Lost."""
        try:
            data = await self._read(block.whole)
        except Rejected as error:
            spans = block.spans
            if error.code not in _APART or len(spans) == 1:
                return {name: self._bad(name, str(error)) for name in block.values.names}
            at = _parted(spans)
            if error.code in _FOR_GOOD:
                self._cuts.add(spans[at])
                self._plan()
            parts = self._together(spans[:at]), self._together(spans[at:])
            return {**await self._block_readings(parts[0]), **await self._block_readings(parts[1])}
        good, now_s, none = Quality.GOOD, self._now_s(), []
        readings = {}
        for name, unit, value in zip(block.values.names, block.units, block.values.values(data), strict=True):
            if isinstance(value, NoValue):
                none.append((name, str(value)))
            else:
                readings[name] = Reading(value, unit, good, "", now_s)
        self._last.update(readings)
        for name, why in none:
            readings[name] = self._bad(name, why)
        return readings

    async def _until(self, due_s: float) -> None:
        """Wait for the next poll, a new watch list or the loss of the connection."""
        link = self._link
        if link is None:
            return
        waits = [asyncio.ensure_future(event.wait()) for event in (self._work, link.lost)]
        try:
            timeout_s = max(0.0, due_s - asyncio.get_running_loop().time())
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        if link.lost.is_set() and link is self._link:
            self._drop("The device closed the connection.")

    def _plan(self) -> None:
        """Few requests: what lies close together is read together, as far as the device answers it."""
        self._tags_at = {}
        blocks: list[list[_Span]] = []
        end = 0
        for tag in self._watched:
            self._tags_at.setdefault(self._spans[tag], []).append(tag)
        for span in sorted(self._tags_at):
            most, gap = self._settings.registers_max, self._settings.gap
            if span.bits:
                most, gap = self._settings.bits_max, 16 * gap
            first = blocks[-1][0] if blocks else None
            if (
                first is not None
                and first.table == span.table
                and span not in self._cuts
                and span.number <= end + gap
                and span.end - first.number <= most
            ):
                blocks[-1].append(span)
                end = max(end, span.end)
            else:
                blocks.append([span])
                end = span.end
        self._blocks = [self._together(spans) for spans in blocks]

    def _together(self, spans: list[_Span]) -> _Together:
        """What one request reads for these, which are sorted; a span that is not watched any more has no tags."""
        first = spans[0]
        whole = _Span(first.table, first.number, max(span.end for span in spans) - first.number)
        tags = [tag for span in spans for tag in self._tags_at.get(span, ())]
        values = Block(first.number, {tag: self._addresses[tag] for tag in tags}, self._floats)
        return _Together(spans, whole, values, [self._tags[name].unit for name in values.names])


def _shape(request: bytes) -> tuple[int, int]:
    """What tells this request's reply from that of another: the function of a write, and of a read the size too."""
    function, count = request[0], int.from_bytes(request[3:5], "big")
    if function not in _READS.values():
        return function, 0
    return function, (count + 7) // 8 if function in (1, 2) else count
