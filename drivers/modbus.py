"""Modbus TCP and RTU.

Settings of a connection, which is one device:

- `host` and `port` (502), or `line`, the path of a serial port, best one in `/dev/serial/by-id/`, with `baud`
  (19200), `parity` (`even`, `odd` or `none`; even) and `stop_bits` (1 or 2; 1). Connections with the same `line` share
  it and must set it alike.
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

On a shared line devices take turns, one request each. One that is silent costs the others its time-out and is then
left alone for 1 to 10 time-outs, longer each time.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadDiscreteInputsRequest,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.register_message import (
    MaskWriteRegisterRequest,
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from drivers.modbus_address import NoValue, checked_tag
from drivers.modbus_link import Link, Lost, Rejected, serial_line, tcp_link
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
_READS: Final = {
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
}
_LINE_ONLY: Final = frozenset({"baud", "parity", "stop_bits"})


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    host: Annotated[str, Field(min_length=1, max_length=253)] = ""
    port: Annotated[int, Field(ge=1, le=65_535)] = 502
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
        if foreign := self.model_fields_set & (frozenset({"port"}) if self.line else _LINE_ONLY):
            raise ValueError(f"{', '.join(sorted(foreign))} means nothing with {'line' if self.line else 'host'}")
        if self.line and self.device > 247:
            raise ValueError("a device on a serial line has a number from 1 to 247")
        return self


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
        return _READS[self.table].function_code, (self.count + 7) // 8 if self.bits else self.count

    def other_shape(self) -> _Span:
        """Near here, with a reply of another size."""
        step = 8 if self.bits else 1
        if self.count > step:
            return _Span(self.table, self.number, self.count - step)
        return _Span(self.table, max(0, self.number - step), self.count + step)


def _covering(spans: Sequence[_Span]) -> _Span:
    """What one request reads for these, which are sorted."""
    return _Span(spans[0].table, spans[0].number, max(span.end for span in spans) - spans[0].number)


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
        self._where = f"{wanted.line} device {wanted.device}" if wanted.line else f"{wanted.host}:{wanted.port}"
        self._health_was_good = False
        super().__init__("modbus", tags, now_s)
        self._connection = connection
        self._addresses = {name: checked_tag(name, tag) for name, tag in tags.items()}
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
        self._blocks: list[list[_Span]] = []
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
            return self._reading(tag, span, await self._read(span))
        except (Lost, Rejected) as error:
            return self._bad(tag, str(error))

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

    def _write_request(self, tag: str, value: Value) -> ModbusPDU:
        address, device = self._addresses[tag], self._settings.device
        if address.bits:
            return WriteSingleCoilRequest(address=address.number, bits=[bool(value)], dev_id=device)
        if address.bit is not None:
            mask = 1 << address.bit
            return MaskWriteRegisterRequest(address.number, 0xFFFF & ~mask, mask if value else 0, device)
        try:
            words = address.encode(value)
        except ValueError as error:
            raise WriteRefused(f"{value} cannot be sent: {error}.") from error
        if len(words) == 1:
            return WriteSingleRegisterRequest(address=address.number, registers=words, dev_id=device)
        return WriteMultipleRegistersRequest(address=address.number, registers=words, dev_id=device)

    async def browse(self, text: str = "") -> list[Found]:  # noqa: ARG002  not asked for
        """Modbus has no browsing."""
        return []

    # The wire -----------------------------------------------------------------------------------------------

    async def _exchange(self, link: Link, request: ModbusPDU) -> ModbusPDU:
        """Send once and return the answer. Whatever goes wrong, also cancellation, ends the connection."""
        loop = asyncio.get_running_loop()
        try:
            if (wait_s := self._free_at_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            reply = await link.exchange(request, self._connection.timeout_s)
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

    def _read_request(self, span: _Span) -> ModbusPDU:
        return _READS[span.table](address=span.number, count=span.count, dev_id=self._settings.device)

    async def _read(self, span: _Span) -> Sequence[int]:
        """The registers or bits there. Raises Lost or Rejected."""
        async with self._wire:
            if self._link is None:
                raise Lost(self._health.detail)
            reply = await self._exchange(self._link, self._read_request(span))
        return reply.bits if span.bits else reply.registers

    def _reading(self, name: str, span: _Span, values: Sequence[int]) -> Reading:
        """The tag's reading out of what was read at `span`."""
        address, tag = self._addresses[name], self._tags[name]
        try:
            at = address.number - span.number
            value = address.decode(values[at : at + address.count])
        except NoValue as none:
            return self._bad(name, str(none))
        reading = Reading(value, tag.unit, Quality.GOOD, "", self._now_s())
        self._last[name] = reading
        return reading

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
        return retry_delays_s(timeout_s, ALONE_TIMEOUTS * timeout_s) if self._settings.line else retry_delays_s()

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
        if wanted.line:
            try:
                self._link = await serial_line(wanted.line, wanted.baud, wanted.parity, wanted.stop_bits)
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
                    await self._exchange(self._link, self._read_request(span))
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

    async def _block_readings(self, spans: list[_Span]) -> dict[str, Reading]:
        """Read these with one request; with more when the device refuses that. Raises Lost."""
        whole = _covering(spans)
        try:
            values = await self._read(whole)
        except Rejected as error:
            if error.code not in _APART or len(spans) == 1:
                return {name: self._bad(name, str(error)) for span in spans for name in self._tags_at.get(span, ())}
            at = _parted(spans)
            if error.code in _FOR_GOOD:
                self._cuts.add(spans[at])
                self._plan()
            return {**await self._block_readings(spans[:at]), **await self._block_readings(spans[at:])}
        return {
            name: self._reading(name, whole, values) for span in spans for name in self._tags_at.get(span, ())
        }  # a span that is not watched any more has no tags

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
        self._tags_at, self._blocks = {}, []
        end = 0
        for tag in self._watched:
            self._tags_at.setdefault(self._spans[tag], []).append(tag)
        for span in sorted(self._tags_at):
            most, gap = self._settings.registers_max, self._settings.gap
            if span.bits:
                most, gap = self._settings.bits_max, 16 * gap
            first = self._blocks[-1][0] if self._blocks else None
            if (
                first is not None
                and first.table == span.table
                and span not in self._cuts
                and span.number <= end + gap
                and span.end - first.number <= most
            ):
                self._blocks[-1].append(span)
                end = max(end, span.end)
            else:
                self._blocks.append([span])
                end = span.end


def _shape(request: ModbusPDU) -> tuple[int, int]:
    """What tells this request's reply from that of another: the function of a write, and of a read the size too."""
    if request.function_code not in (1, 2, 3, 4):
        return request.function_code, 0
    return request.function_code, (request.count + 7) // 8 if request.function_code in (1, 2) else request.count
