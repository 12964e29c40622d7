"""Modbus TCP.

Settings: `host`, `port` (502), `device` (unit id, 1). Addresses: a table, a register number counted from 0, a type,
a word order and a scale, for example `holding 10 float32 CDAB`, `input 3 int16 x0.1`, `coil 5`, `discrete 2`.

One request is on the wire at a time and is never repeated: pymodbus' own retries send a write up to four times.
Every reply must be the answer to this request: same transaction, same function, full length. After a time-out or a
wrong reply the connection is dropped, so that a late reply has nowhere to arrive.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU
from pymodbus.pdu.bit_message import (
    ReadCoilsRequest,
    ReadDiscreteInputsRequest,
    WriteSingleCoilRequest,
)
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteMultipleRegistersRequest,
    WriteSingleRegisterRequest,
)

from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Found, Health, Home, WriteRefused, WriteUnknown, bad_reading, retry_delays_s

# What goes wrong on the wire reaches people as health, quality and outcome; the library's log repeats it as tracebacks.
logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)

REGISTERS_MAX: Final = 125
BITS_MAX: Final = 2000
STOP_AGAIN_S: Final = 1.0
ADDRESS_MAX: Final = 65_535

_ADDRESS = re.compile(
    r"(?P<table>holding|input|coil|discrete) (?P<number>[0-9]{1,5})"
    r"(?: (?P<type>u?int16|u?int32|float32|float64))?(?: (?P<order>ABCD|CDAB|BADC|DCBA))?"
    r"(?: x(?P<scale>[0-9.eE+\-]{1,16}))?"
)
_FORMATS: Final = {"int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "float32": "f", "float64": "d"}
_EXCEPTIONS: Final = {
    1: "it does not know this function",
    2: "it has no such address",
    3: "it does not accept this value",
    4: "it failed while carrying it out",
    5: "it accepted the request but needs a long time",
    6: "it is busy",
    7: "it cannot carry it out",
    8: "its memory has a parity error",
    10: "the gateway has no path to it",
    11: "it did not answer the gateway",
}
# After these the device may have begun to carry the write out.
_EXCEPTIONS_UNKNOWN: Final = frozenset({4, 5, 11})


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65_535)] = 502
    device: Annotated[int, Field(ge=1, le=255)] = 1
    """Unit id. 0 is a broadcast that nobody answers, so it is not allowed."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where and how one value lies in a device."""

    table: str
    number: int
    type: str
    order: str
    scale: float

    @property
    def count(self) -> int:
        """Registers (or bits) that the value takes."""
        return 1 if self.bits else struct.calcsize(_FORMATS[self.type]) // 2

    @property
    def bits(self) -> bool:
        """True for coils and discrete inputs."""
        return self.table in ("coil", "discrete")

    def decode(self, words: Sequence[int]) -> int | float:
        """The scaled value in these registers."""
        raw = struct.unpack(">" + _FORMATS[self.type], self._ordered(struct.pack(f">{len(words)}H", *words)))[0]
        number: int | float = raw if self.scale == 1.0 else raw * self.scale
        return number

    def encode(self, value: float) -> list[int]:
        """The registers for a value. Raises ValueError when it cannot be represented."""
        raw: int | float = value if self.scale == 1.0 else value / self.scale
        if not self.type.startswith("float"):
            whole = round(raw)
            if not math.isclose(whole, raw, rel_tol=1e-9, abs_tol=1e-6):
                raise ValueError("it is not a whole number of the device's steps")
            raw = whole
        try:
            data = struct.pack(">" + _FORMATS[self.type], raw)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"it does not fit into {self.type}") from error
        return list(struct.unpack(f">{self.count}H", self._ordered(data)))

    def _ordered(self, data: bytes) -> bytes:
        """Bytes to or from big-endian: word and byte swaps are their own inverse."""
        words = [data[i : i + 2] for i in range(0, len(data), 2)]
        if self.order in ("CDAB", "DCBA"):
            words.reverse()
        if self.order in ("BADC", "DCBA"):
            words = [word[::-1] for word in words]
        return b"".join(words)


def read_address(text: str) -> Address:
    """Read an address as a plant file writes it. Raises `modbus.address`."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise _bad_address(text, "it has another form")
    table, number = match["table"], int(match["number"])
    bits = table in ("coil", "discrete")
    if bits and (match["type"] or match["order"] or match["scale"]):
        raise _bad_address(text, f"a {table} is one bit and takes no type, order or scale")
    if not bits and match["type"] is None:
        raise _bad_address(text, "the type is missing")
    try:
        scale = float(match["scale"] or "1")
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale == 0:
        raise _bad_address(text, "the scale is not a number other than 0")
    address = Address(table, number, match["type"] or "bit", match["order"] or "ABCD", scale)
    if address.number + address.count - 1 > ADDRESS_MAX:
        raise _bad_address(text, f"the last register would be above {ADDRESS_MAX}")
    return address


def _bad_address(text: str, why: str) -> LinesideError:
    return LinesideError(
        "modbus.address",
        f"{text[:80]!r} is not a Modbus address: {why}.",
        todo='Write it like "holding 10 float32 ABCD", "input 3 int16 x0.1", "coil 5" or "discrete 2".',
    )


def _checked_tag(name: str, tag: Tag) -> Address:
    address = read_address(tag.address)
    if tag.type == "text" or address.bits != (tag.type == "bool"):
        raise LinesideError(
            "modbus.type",
            f"The tag {name} is of type {tag.type}, which {tag.address!r} cannot hold.",
            todo="Bits are bool; registers are float or int.",
        )
    if tag.access == "write" and address.table in ("input", "discrete"):
        raise LinesideError(
            "modbus.read_only",
            f"The tag {name} is a set-point, but {tag.address!r} can only be read.",
            todo="Set-points lie in holding registers or coils.",
        )
    return address


def _echoes(request: ModbusPDU, reply: ModbusPDU) -> bool:
    """True when a write's reply repeats what was asked for."""
    if reply.address != request.address:
        return False
    if isinstance(request, WriteMultipleRegistersRequest):
        return bool(reply.count == len(request.registers))
    return bool(reply.registers == request.registers and reply.bits == request.bits)


class _Lost(Exception):
    """The connection is gone or can no longer be trusted."""


class _Rejected(Exception):
    """The device answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(f"The device refused: {_EXCEPTIONS.get(code, 'for a reason of its own')} (exception {code}).")
        self.code = code


@dataclass(slots=True)
class _Block:
    """Tags that one request reads."""

    table: str
    number: int
    count: int
    tags: list[str]


class ModbusDriver:
    """One Modbus TCP connection; see the module's docstring and the port `edge.equipment.Driver`."""

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
                f"Setting {'.'.join(map(str, first['loc'])) or '?'}: {first['msg']}.",
                todo="Give host, and if needed port (502) and device (unit id 1 to 255, by default 1).",
            ) from error
        self._where = f"{self._settings.host}:{self._settings.port}"
        self._health_was_good = False
        self._connection, self._tags, self._now_s = connection, tags, now_s
        self._addresses = {name: _checked_tag(name, tag) for name, tag in tags.items()}
        self._client: AsyncModbusTcpClient | None = None
        self._lost = asyncio.Event()
        self._wire = asyncio.Lock()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watched: list[str] = []
        self._blocks: list[_Block] = []
        self._alone: set[str] = set()
        self._last: dict[str, Reading] = {}
        self._health = Health(connected=False, detail="Not started.", since_boottime_s=now_s())
        self._on_reading: Callable[[str, Reading], None] = lambda _tag, _reading: None
        self._on_health: Callable[[Health], None] = lambda _health: None

    # The port -----------------------------------------------------------------------------------------------

    async def start(self, on_reading: Callable[[str, Reading], None], on_health: Callable[[Health], None]) -> None:
        """Begin connecting."""
        self._on_reading, self._on_health = on_reading, on_health
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="modbus")

    async def stop(self) -> None:
        """End the task and the connection."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # again, if need be: Python 3.11's wait_for can swallow one
            await asyncio.wait({task}, timeout=STOP_AGAIN_S)
        self._drop("Stopped.")

    async def failed(self) -> str:
        """Return when the task ended by itself."""
        if self._task is None:
            return "not started"
        await asyncio.wait({self._task})
        error = None if self._task is None or self._task.cancelled() else self._task.exception()
        return f"{type(error).__name__}: {error}" if error else "it was ended"

    async def watch(self, tags: Sequence[str]) -> None:
        """Poll exactly these tags."""
        self._watched = [tag for tag in tags if tag in self._addresses]
        self._plan()
        self._work.set()

    async def read(self, tag: str) -> Reading:
        """Read one tag now."""
        address = self._addresses[tag]
        try:
            answer = await self._read(_Block(address.table, address.number, address.count, [tag]))
        except (_Lost, _Rejected) as error:
            return self._bad(tag, str(error))
        return answer[tag]

    async def write(self, tag: str, value: Value) -> None:
        """Exactly one request on the wire."""
        address, device = self._addresses[tag], self._settings.device
        request: ModbusPDU
        if address.bits:
            request = WriteSingleCoilRequest(address=address.number, bits=[bool(value)], dev_id=device)
        elif isinstance(value, str):
            raise WriteRefused("A register takes a number.")
        else:
            try:
                words = address.encode(value)
            except ValueError as error:
                raise WriteRefused(f"{value} cannot be sent: {error}.") from error
            request = (
                WriteSingleRegisterRequest(address=address.number, registers=words, dev_id=device)
                if len(words) == 1
                else WriteMultipleRegistersRequest(address=address.number, registers=words, dev_id=device)
            )
        async with self._turn() as client:
            if client is None:
                raise WriteRefused(f"Nothing was sent: {self._health.detail}")
            try:
                reply = await self._exchange(client, request)
            except _Rejected as error:
                if error.code in _EXCEPTIONS_UNKNOWN:
                    raise WriteUnknown(str(error)) from error
                raise WriteRefused(str(error)) from error
            except _Lost as error:
                raise WriteUnknown(f"The write was sent, then: {error}") from error
            if not _echoes(request, reply):
                why = "The device acknowledged another write than the one sent."
                self._drop(why)
                raise WriteUnknown(why)

    async def browse(self, text: str = "") -> list[Found]:  # noqa: ARG002  a Modbus device cannot be asked
        """Modbus has no browsing."""
        return []

    def health(self) -> Health:
        """The present state."""
        return self._health

    # The wire -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[AsyncModbusTcpClient | None]:
        """The connection for one request; None when there is none."""
        async with self._wire:
            yield self._client

    async def _exchange(self, client: AsyncModbusTcpClient, request: ModbusPDU) -> ModbusPDU:
        """Send once and return the matching reply. Whatever goes wrong, also cancellation, drops the connection."""
        try:
            reply = await self._reply(client, request)
        except _Rejected:
            self._answered()
            raise
        except _Lost as error:
            self._drop(str(error))
            raise
        except BaseException:
            self._drop("A request was given up.")
            raise
        self._answered()
        return reply

    async def _reply(self, client: AsyncModbusTcpClient, request: ModbusPDU) -> ModbusPDU:
        answer = asyncio.ensure_future(self._execute(client, request))
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({answer, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise _Lost("The device closed the connection.")
            reply = answer.result()
        finally:
            for waiting in (answer, lost):
                waiting.cancel()
            await asyncio.gather(answer, lost, return_exceptions=True)
        # pymodbus lets a reply with transaction 0 pass for any request.
        if reply.transaction_id != request.transaction_id:
            raise _Lost("A reply to another request arrived.")
        if reply.isError():
            raise _Rejected(int(reply.exception_code))
        if reply.function_code != request.function_code:
            raise _Lost("A reply to another function arrived.")
        return reply

    async def _execute(self, client: AsyncModbusTcpClient, request: ModbusPDU) -> ModbusPDU:
        try:
            reply: ModbusPDU = await client.execute(False, request)
        except ModbusException as error:
            raise _Lost(f"The device did not answer within {self._connection.timeout_s:g} s.") from error
        return reply

    async def _read(self, block: _Block) -> dict[str, Reading]:
        """Read one block. Raises _Lost or _Rejected."""
        kinds = {
            "coil": ReadCoilsRequest,
            "discrete": ReadDiscreteInputsRequest,
            "holding": ReadHoldingRegistersRequest,
            "input": ReadInputRegistersRequest,
        }
        request = kinds[block.table](address=block.number, count=block.count, dev_id=self._settings.device)
        bits = block.table in ("coil", "discrete")
        async with self._turn() as client:
            if client is None:
                raise _Lost(self._health.detail)
            reply = await self._exchange(client, request)
            values: Sequence[int] | Sequence[bool] = reply.bits if bits else reply.registers
            expected = (block.count + 7) // 8 * 8 if bits else block.count
            if len(values) != expected:
                why = f"The device answered with {len(values)} values where {expected} were asked for."
                self._drop(why)
                raise _Lost(why)
        return {name: self._reading(name, block, values) for name in block.tags}

    def _reading(self, name: str, block: _Block, values: Sequence[int] | Sequence[bool]) -> Reading:
        address, tag = self._addresses[name], self._tags[name]
        part = values[address.number - block.number :][: address.count]
        value: Value = bool(part[0]) if address.bits else address.decode([int(word) for word in part])
        reading = Reading(value, tag.unit, Quality.GOOD, "", self._now_s())
        self._last[name] = reading
        return reading

    def _bad(self, name: str, why: str) -> Reading:
        return bad_reading(self._tags[name], why, self._now_s(), self._last.get(name))

    def _drop(self, why: str) -> None:
        """Close the connection and say so, once."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
            self._say(connected=False, detail=why)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, why))
        self._lost.set()

    def _answered(self) -> None:
        """The device is there: an open connection alone does not show it."""
        if self._client is not None:
            self._say(connected=True, detail=f"Connected to {self._where}.")

    def _say(self, *, connected: bool, detail: str) -> None:
        if (connected, detail) != (self._health.connected, self._health.detail):
            self._health = Health(connected=connected, detail=detail, since_boottime_s=self._now_s())
            self._health_was_good |= connected
            self._on_health(self._health)

    # The task -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            if await self._connect():
                await self._poll()
                if self._health_was_good:
                    delays = retry_delays_s()
                    self._health_was_good = False
            else:
                why = f"No connection to {self._where}."
                self._say(connected=False, detail=why)
                for tag in self._watched:
                    self._on_reading(tag, self._bad(tag, why))
            await asyncio.sleep(next(delays))

    async def _connect(self) -> bool:
        lost = asyncio.Event()

        def connected(up: bool) -> None:
            if not up:
                lost.set()
                if client is self._client:
                    self._drop("The device closed the connection.")

        client = AsyncModbusTcpClient(
            self._settings.host,
            port=self._settings.port,
            timeout=self._connection.timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_connect=connected,
        )
        try:
            if not await client.connect():
                return False
        except BaseException:
            client.close()
            raise
        if lost.is_set():
            client.close()
            return False
        self._lost, self._client = lost, client
        return True

    async def _poll(self) -> None:
        """Read what is watched, every `poll_s`, until the connection is lost."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while self._client is not None:
            self._work.clear()
            if not self._blocks:
                self._answered()
            for block in list(self._blocks):
                try:
                    readings = await self._read(block)
                except _Lost:
                    return
                except _Rejected as error:
                    readings = {name: self._bad(name, str(error)) for name in block.tags}
                    if len(block.tags) > 1:
                        # One of them is refused: from now on each for itself, so that it does not cost the others.
                        self._alone.update(block.tags)
                        self._plan()
                        self._work.set()
                for name, reading in readings.items():
                    self._on_reading(name, reading)
            due_s = max(due_s + self._connection.poll_s, loop.time())
            await self._until(due_s)

    async def _until(self, due_s: float) -> None:
        """Wait for the next poll, a new watch list or the loss of the connection."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._work, self._lost)]
        try:
            timeout_s = max(0.0, due_s - asyncio.get_running_loop().time())
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _plan(self) -> None:
        """Few requests: neighbours without a gap are read together, as far as one reply can carry them."""
        self._blocks = []
        found = sorted(
            ((self._addresses[tag], tag) for tag in self._watched), key=lambda at: (at[0].table, at[0].number)
        )
        for address, tag in found:
            last = self._blocks[-1] if self._blocks else None
            end = address.number + address.count
            most = BITS_MAX if address.bits else REGISTERS_MAX
            if (
                last is not None
                and last.table == address.table
                and address.number <= last.number + last.count
                and end - last.number <= most
                and tag not in self._alone
                and last.tags[-1] not in self._alone
            ):
                last.count = max(last.count, end - last.number)
                last.tags.append(tag)
            else:
                self._blocks.append(_Block(address.table, address.number, address.count, [tag]))
