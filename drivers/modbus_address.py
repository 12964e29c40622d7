"""Modbus addresses.

A table, a register number counted from 0, a type and, where they are needed, an order, a scale and values that mean
"none": `holding 10 float32 CDAB`, `input 3 int16 x0.1 not 32767,0x8000`, `holding 40 text16`, `holding 7 bit3`,
`coil 5`, `discrete 2`.

- Types: `int16`, `uint16`, `int32`, `uint32`, `int64`, `uint64`, `float32`, `float64`; `bcd16` and `bcd32`, four and
  eight decimal digits; `bit0` (lowest) to `bit15` of one register; `text2` to `text120`, so many characters of ASCII,
  two a register, padded with blanks or zeros.
- Orders: `ABCD` when left out, the highest byte first; `CDAB` the lowest word first; `BADC` the bytes of each word
  swapped; `DCBA` both. They mean the same for values of one and of four words. A text has `ABCD` or `BADC`.
- Scale: `x0.1` when the register holds tenths.
- `not`: raw values, before the scale, by which the device says that it has none; with 0x the bits of them.

NaN, infinite numbers, a value after `not`, digits that are none and text that is none have bad quality, with words.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import mul
from typing import Final

from edge.core.errors import LinesideError
from edge.core.plant import Tag
from edge.core.terms import Value

ADDRESS_MAX: Final = 65_535
_ADDRESS: Final = re.compile(
    r"(?P<table>holding|input|coil|discrete) (?P<number>[0-9]{1,5})"
    r"(?: (?P<type>u?int16|u?int32|u?int64|float32|float64|bcd16|bcd32|bit(?:[0-9]|1[0-5])|text[0-9]{1,3}))?"
    r"(?: (?P<order>ABCD|CDAB|BADC|DCBA))?"
    r"(?: x(?P<scale>[0-9.eE+\-]{1,16}))?"
    r"(?: not (?P<none>[0-9A-Fa-fxeE.+\-,]{1,80}))?"
)
_FORMATS: Final = {
    "int16": "h", "uint16": "H", "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "float32": "f",
    "float64": "d", "bcd16": "H", "bcd32": "I",
}  # fmt: skip
_TEXT_MAX: Final = 120
"""Characters of a text: they fit into one write."""


class NoValue(Exception):
    """What the registers hold is no value. The text is for a person."""


@dataclass(frozen=True)
class Address:
    """Where and how one value lies in a device. What follows from that is worked out once: each poll asks."""

    table: str
    number: int
    type: str
    order: str = "ABCD"
    scale: float = 1.0
    none: frozenset[int] = field(default=frozenset())
    """The bits, highest first, that stand for no value."""

    @cached_property
    def bits(self) -> bool:
        """True for coils and discrete inputs."""
        return self.table in ("coil", "discrete")

    @cached_property
    def bit(self) -> int | None:
        """The bit of a register that this is, if it is one."""
        return int(self.type[3:]) if self.type.startswith("bit") and not self.bits else None

    @cached_property
    def count(self) -> int:
        """Registers (or bits) that the value takes."""
        if self.type.startswith("text"):
            return int(self.type[4:]) // 2
        return 1 if self.type.startswith("bit") else struct.calcsize(_FORMATS[self.type]) // 2

    @cached_property
    def _format(self) -> str:
        """How `struct` reads a number."""
        return ">" + _FORMATS[self.type]

    @cached_property
    def plain(self) -> bool:
        """True for numbers that `struct` alone reads, and of which one look tells that they are none."""
        return self.type in _FORMATS and not self.type.startswith("bcd") and not (self.none and "float" in self.type)

    @cached_property
    def none_numbers(self) -> frozenset[int]:
        """Of whole numbers: `none` as they are read."""
        size, signed = 2 * self.count, self.type.startswith("int")
        return frozenset(int.from_bytes(bits.to_bytes(size, "big"), "big", signed=signed) for bits in self.none)

    @cached_property
    def holds(self) -> str:
        """What a tag must be: `bool`, `text` or `number`."""
        if self.bits or self.bit is not None:
            return "bool"
        return "text" if self.type.startswith("text") else "number"

    def decode(self, data: bytes) -> Value:
        """The scaled value in these registers, as they came; of a bit that is lowest in its byte. Raises NoValue."""
        if self.bits:
            return bool(data[0] & 1)
        if self.bit is not None:
            return bool(int.from_bytes(data, "big") >> self.bit & 1)
        data = self._ordered(data)
        if self.holds == "text":
            return _text(data)
        if self.none and int.from_bytes(data, "big") in self.none:
            raise NoValue(f"The device says that it has no value (0x{data.hex()}).")
        if self.type.startswith("bcd"):
            if not data.hex().isdecimal():
                raise NoValue(f"The device gives 0x{data.hex()}, which is not made of decimal digits.")
            raw: int | float = int(data.hex())
        else:
            raw = struct.unpack(self._format, data)[0]
        number = raw if self.scale == 1.0 else raw * self.scale
        if not math.isfinite(number):
            raise NoValue(f"The device gives no finite number ({number}).")
        return number

    def encode(self, value: Value) -> bytes:
        """The registers for a number or a text. Raises ValueError when it cannot be represented."""
        if isinstance(value, str) != (self.holds == "text"):
            raise ValueError(f"these registers take a {self.holds}")
        if isinstance(value, str):
            data = self._text_bytes(value)
        else:
            data = self._number_bytes(value)
            if int.from_bytes(data, "big") in self.none:
                raise ValueError("the device takes it for no value")
        return self._ordered(data)

    def _number_bytes(self, value: float) -> bytes:
        raw: int | float = value if self.scale == 1.0 else value / self.scale
        if not math.isfinite(raw):
            raise ValueError("it is not a finite number")
        if not self.type.startswith("float"):
            whole = round(raw)
            # what division leaves behind, and no more: with large numbers a fraction is still a fraction
            if abs(whole - raw) > 1e-6 + abs(raw) * 2.0**-50:
                raise ValueError("it is not a whole number of the device's steps")
            raw = whole
        if self.type.startswith("bcd"):
            raw = int(str(raw), 16) if 0 <= raw < 10 ** (4 * self.count) else -1  # -1 does not fit either
        try:
            return struct.pack(self._format, raw)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"it does not fit into {self.type}") from error

    def _text_bytes(self, value: str) -> bytes:
        if not (value.isascii() and value.isprintable()) or value != value.rstrip():
            raise ValueError("the device keeps printable ASCII, without blanks at the end")
        if len(value) > 2 * self.count:
            raise ValueError(f"it does not fit into {self.type}")
        return value.encode().ljust(2 * self.count, b"\0")

    def _ordered(self, data: bytes) -> bytes:
        """Bytes to or from big-endian: word and byte swaps are their own inverse."""
        if self.order == "ABCD":
            return data
        words = [data[i : i + 2] for i in range(0, len(data), 2)]
        if self.order in ("CDAB", "DCBA"):
            words.reverse()
        if self.order in ("BADC", "DCBA"):
            words = [word[::-1] for word in words]
        return b"".join(words)


class Block:
    """The values in the answer to one read, decoded together: a device of many is asked often."""

    def __init__(self, number: int, places: Mapping[str, Address], floats: Container[str] = ()) -> None:
        """What lies where, in an answer that begins with register (or bit) `number`; of `floats` also whole numbers are
        wanted as floats."""
        self.names: Final[list[str]] = []
        self._bits: list[tuple[int, int]] = []
        self._numbers: list[_Numbers] = []
        self._others: list[tuple[int, int, Address]] = []
        runs: list[list[tuple[str, Address]]] = []
        for name, address in sorted(places.items(), key=lambda place: (place[1].order, place[1].number)):
            if address.bits:
                self._bits.append(divmod(address.number - number, 8))
                self.names.append(name)
            elif address.plain:
                run = next((one for one in runs if _follows(address, one[-1][1])), None)
                if run is None:
                    runs.append(run := [])
                run.append((name, address))
        for run in runs:
            wanted = [name in floats for name, _ in run]
            self._numbers.append(_Numbers(number, [address for _, address in run], wanted))
            self.names.extend(name for name, _ in run)
        for name, address in places.items():
            if not address.bits and not address.plain:
                at = 2 * (address.number - number)
                self._others.append((at, at + 2 * address.count, address))
                self.names.append(name)

    def values(self, data: bytes) -> list[Value | NoValue]:
        """The value of each of `names`, or why there is none."""
        found: list[Value | NoValue] = [bool(data[at] >> bit & 1) for at, bit in self._bits]
        for numbers in self._numbers:
            found += numbers.values(data)
        for start, end, address in self._others:
            try:
                found.append(address.decode(data[start:end]))
            except NoValue as none:
                found.append(none)
        return found


def _follows(address: Address, before: Address) -> bool:
    return address.order == before.order and address.number >= before.number + before.count


class _Numbers:
    """Numbers of one order that do not overlap, all taken by one call."""

    def __init__(self, number: int, addresses: list[Address], floats: list[bool]) -> None:
        # with the bytes of each word swapped, what began with the lowest word begins with the lowest byte
        self._swapped = addresses[0].order in ("BADC", "CDAB")
        form = "<" if addresses[0].order in ("DCBA", "CDAB") else ">"
        at = number
        self._places: list[tuple[Address, slice]] = []
        for address in addresses:
            form += f"{2 * (address.number - at)}x{_FORMATS[address.type]}"
            at = address.number + address.count
            self._places.append((address, slice(2 * (address.number - number), 2 * (at - number))))
        self._struct = struct.Struct(form)
        # times 1.0 a whole number is a float; a float that has no scale is left alone, and so is what stays whole
        plain = [
            one.scale == 1.0 and (one.type.startswith("float") or not to)
            for one, to in zip(addresses, floats, strict=True)
        ]
        self._scales = None if all(plain) else [one.scale for one in addresses]
        self._plain = plain if any(plain) else None
        self._none = [(index, one.none_numbers) for index, one in enumerate(addresses) if one.none]
        self._endless = self._scales is not None or any(one.type.startswith("float") for one in addresses)

    def values(self, data: bytes) -> list[Value | NoValue]:
        ordered = data
        if self._swapped:
            words = array("H", data)
            words.byteswap()
            ordered = words.tobytes()
        raw: tuple[int | float, ...] = self._struct.unpack_from(ordered)
        numbers = list(raw)
        if self._scales is not None:
            numbers = list(map(mul, raw, self._scales))
            if self._plain is not None:
                numbers = [one if plain else by for one, by, plain in zip(raw, numbers, self._plain, strict=True)]
        # one by one only where something is amiss: a sum of finite numbers is finite, unless it overflows
        suspect = [index for index, none in self._none if raw[index] in none]
        if self._endless and not math.isfinite(sum(numbers)):
            suspect += [index for index, one in enumerate(numbers) if not math.isfinite(one)]
        found: list[Value | NoValue] = numbers  # type: ignore[assignment]  # nobody else has this list
        for index in suspect:
            address, place = self._places[index]
            try:
                found[index] = address.decode(data[place])
            except NoValue as none:
                found[index] = none
        return found


def _text(data: bytes) -> str:
    text = data.partition(b"\0")[0].decode("latin-1").rstrip(" ")
    if not (text.isascii() and text.isprintable()):
        raise NoValue("The device gives characters that are no text.")
    return text


def read_address(text: str) -> Address:
    """Read an address as a plant file writes it. Raises `modbus.address`."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise _bad_address(text, "it has another form")
    table, number, kind = match["table"], int(match["number"]), match["type"] or "bit"
    if table in ("coil", "discrete"):
        if any(match[part] for part in ("type", "order", "scale", "none")):
            raise _bad_address(text, f"a {table} is one bit and takes no type, order, scale or `not`")
    elif match["type"] is None:
        raise _bad_address(text, "the type is missing")
    try:
        scale = float(match["scale"] or "1")
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale == 0:
        raise _bad_address(text, "the scale is not a number other than 0")
    address = Address(table, number, kind, match["order"] or "ABCD", scale)
    if address.holds != "number" and (match["scale"] or match["none"]):
        raise _bad_address(text, f"a {address.holds} takes no scale and no `not`")
    if address.bit is not None and match["order"]:
        raise _bad_address(text, "a bit takes no order")
    if address.holds == "text" and (
        address.order not in ("ABCD", "BADC") or int(kind[4:]) % 2 or not 2 <= int(kind[4:]) <= _TEXT_MAX
    ):
        raise _bad_address(text, f"a text has 2 to {_TEXT_MAX} characters, an even number, in ABCD or BADC")
    if address.number + address.count - 1 > ADDRESS_MAX:
        raise _bad_address(text, f"the last register would be above {ADDRESS_MAX}")
    if not match["none"]:
        return address
    try:
        none = frozenset(_none_bits(address, one) for one in match["none"].split(","))
    except (ValueError, struct.error, OverflowError) as error:
        raise _bad_address(text, f"after `not` stand raw values of {kind}, with commas between") from error
    return Address(table, number, kind, address.order, scale, none)


def _none_bits(address: Address, text: str) -> int:
    """The bits of a raw value that stands for none. Raises ValueError."""
    if text.startswith("0x"):
        bits = int(text, 16)
        if bits.bit_length() > 16 * address.count:
            raise ValueError(text)
        return bits
    if address.type.startswith("float"):
        return int.from_bytes(struct.pack(">" + _FORMATS[address.type], float(text)), "big")
    return int.from_bytes(Address(address.table, 0, address.type)._number_bytes(int(text)), "big")  # noqa: SLF001  its own


def _bad_address(text: str, why: str) -> LinesideError:
    return LinesideError(
        "modbus.address",
        f"{text[:80]!r} is not a Modbus address: {why}.",
        todo='Write it like "holding 10 float32 ABCD", "input 3 int16 x0.1", "coil 5" or "discrete 2".',
    )


def checked_tag(name: str, tag: Tag) -> Address:
    """The address of a tag that can hold it. Raises `modbus.address`, `modbus.type` or `modbus.read_only`."""
    address = read_address(tag.address)
    if address.holds != (tag.type if tag.type in ("bool", "text") else "number"):
        raise LinesideError(
            "modbus.type",
            f"The tag {name} is of type {tag.type}, which {tag.address!r} cannot hold.",
            todo="Coils, discrete inputs and bits are bool; text is text; other registers are float or int.",
        )
    if tag.access == "write" and address.table in ("input", "discrete"):
        raise LinesideError(
            "modbus.read_only",
            f"The tag {name} is a set-point, but {tag.address!r} can only be read.",
            todo="Set-points lie in holding registers or coils.",
        )
    return address
