"""Modbus addresses and the values in registers, against a calculation of their own in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from drivers.modbus_address import Address, Block, NoValue, read_address
from edge.core.errors import LinesideError

ORDERS = {
    1: {"ABCD": "AB", "CDAB": "AB", "BADC": "BA", "DCBA": "BA"},
    2: {"ABCD": "ABCD", "CDAB": "CDAB", "BADC": "BADC", "DCBA": "DCBA"},
    4: {"ABCD": "ABCDEFGH", "CDAB": "GHEFCDAB", "BADC": "BADCFEHG", "DCBA": "HGFEDCBA"},
}
"""Where each byte of the number, A the highest, lies on the wire."""
NUMPY = {
    "int16": ">i2",
    "uint16": ">u2",
    "int32": ">i4",
    "uint32": ">u4",
    "int64": ">i8",
    "uint64": ">u8",
    "float32": ">f4",
    "float64": ">f8",
}
INTS = [kind for kind in NUMPY if "int" in kind]


def on_the_wire(kind: str, order: str, number: float) -> bytes:
    """The registers as numpy and the letters give them."""
    data = np.array([number], dtype=NUMPY[kind]).tobytes()
    return bytes(data["ABCDEFGH".index(letter)] for letter in ORDERS[len(data) // 2][order])


def registers(*words: int) -> bytes:
    return np.array(words, dtype=">u2").tobytes()


PIECES = st.lists(
    st.sampled_from(
        (
            *(
                "holding",
                "input",
                "coil",
                "discrete",
                " ",
                "10",
                "65535",
                "-1",
                "99999",
                "float32",
                "int16",
                "x0.1",
                "x",
            ),
            *("ABCD", "bit3", "bit16", "text8", "text7", "bcd16", "not ", "0x8000", ",", "32767", "float64", "1e999"),
        )
    ),
    max_size=9,
).map("".join)


@given(st.one_of(st.text(max_size=60), PIECES))
@example("holding 1 float32 not 1e999,1e39")
@example("holding 1 int16 not 0x")
@example("holding 1 int16 not 1.5")
def test_any_text_is_an_address_or_refused_in_words(text: str) -> None:
    try:
        address = read_address(text)
    except LinesideError as error:
        assert (error.code, bool(error.todo)) == ("modbus.address", True)
    else:
        assert 0 <= address.number <= address.number + address.count - 1 <= 65_535


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "holding 10",
        "coil 5 float32",
        "coil 5 not 1",
        "input 65535 float32",
        "input 65533 float64",
        "holding 1 float32 x0",
        "holding 1 int16 xnan",
        "holding 1 bit16",
        "holding 1 bit1 x2",
        "holding 1 bit1 CDAB",
        "holding 1 text7",
        "holding 1 text0",
        "holding 1 text122",
        "holding 1 text8 CDAB",
        "holding 1 text8 not 1",
        "holding 1 int16 not 40000",
        "holding 1 int16 not 0x18000",
        "holding 1 int16 not 1,,2",
        "holding 1 bcd16 not 10000",
    ],
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(LinesideError) as refusal:
        read_address(text)
    assert refusal.value.code == "modbus.address"


@pytest.mark.parametrize("order", ORDERS[2])
@pytest.mark.parametrize("kind", INTS)
@given(data=st.data())
def test_whole_numbers_both_ways(kind: str, order: str, data: st.DataObject) -> None:
    bounds = np.iinfo(np.dtype(NUMPY[kind]))
    address = read_address(f"holding 0 {kind} {order}")
    value = data.draw(st.integers(int(bounds.min), int(bounds.max)))
    assert address.encode(value) == on_the_wire(kind, order, value)
    assert address.decode(on_the_wire(kind, order, value)) == value
    beyond = data.draw(st.sampled_from([int(bounds.min) - 1, int(bounds.max) + 1, -(2**80), 2**80]))
    with pytest.raises(ValueError, match="does not fit"):
        address.encode(beyond)


@pytest.mark.parametrize("order", ORDERS[2])
@pytest.mark.parametrize(("kind", "width"), [("float32", 32), ("float64", 64)])
@given(data=st.data())
def test_floats_both_ways(kind: str, width: int, order: str, data: st.DataObject) -> None:
    value = data.draw(st.floats(width=width, allow_nan=False, allow_infinity=False))
    address = read_address(f"input 0 {kind} {order}")
    assert address.decode(on_the_wire(kind, order, value)) == value
    assert address.encode(value) == on_the_wire(kind, order, value)
    for none in (math.nan, math.inf, -math.inf):
        with pytest.raises(NoValue, match="no finite number"):
            address.decode(on_the_wire(kind, order, none))
        with pytest.raises(ValueError, match="finite"):
            address.encode(none)


def test_a_float_too_large_for_its_registers() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        read_address("holding 0 float32").encode(1e39)
    with pytest.raises(NoValue):
        read_address("holding 0 float64 x10").decode(on_the_wire("float64", "ABCD", 1.7e308))


@given(raw=st.integers(-(2**15), 2**15 - 1), places=st.integers(1, 4))
def test_scaled_numbers_both_ways(raw: int, places: int) -> None:
    address = read_address(f"input 3 int16 x{10**-places:g}")
    value = address.decode(on_the_wire("int16", "ABCD", raw))
    assert value == pytest.approx(raw / 10**places, rel=1e-12)
    assert address.encode(raw / 10**places) == on_the_wire("int16", "ABCD", raw)
    if abs(raw) < 32_000:
        with pytest.raises(ValueError, match="whole number"):
            address.encode((raw + 0.4) / 10**places)


def test_a_fraction_stays_one_when_the_number_is_large() -> None:
    with pytest.raises(ValueError, match="whole number"):
        read_address("holding 0 uint32").encode(4_000_000_000.5)


@given(st.integers(0, 99_999_999))
def test_bcd_both_ways(value: int) -> None:
    digits = f"{value:08d}"
    words = [sum(int(digit) << 4 * (3 - at) for at, digit in enumerate(digits[i : i + 4])) for i in (0, 4)]
    assert read_address("holding 0 bcd32").encode(value) == registers(*words)
    assert read_address("holding 0 bcd32").decode(registers(*words)) == value
    assert read_address("holding 0 bcd32 CDAB").decode(registers(*words[::-1])) == value
    if value < 10_000:
        assert read_address("holding 0 bcd16").decode(registers(words[1])) == value


@given(st.integers(0, 0xFFFF))
def test_bcd_that_has_other_digits_is_no_value(word: int) -> None:
    decimal = all(word >> shift & 0xF < 10 for shift in (0, 4, 8, 12))
    address = read_address("input 0 bcd16")
    if decimal:
        assert 0 <= int(address.decode(registers(word))) <= 9_999
    else:
        with pytest.raises(NoValue, match="decimal digits"):
            address.decode(registers(word))
    for value in (-1, 10_000):
        with pytest.raises(ValueError, match="does not fit"):
            address.encode(value)


@given(text=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12), pad=st.sampled_from(" \0"))
def test_texts_both_ways(text: str, pad: str) -> None:
    padded = text.ljust(12, pad)
    words = [(ord(padded[i]) << 8) + ord(padded[i + 1]) for i in range(0, 12, 2)]
    swapped = [(word >> 8) + ((word & 0xFF) << 8) for word in words]
    assert read_address("holding 0 text12").decode(registers(*words)) == text
    assert read_address("holding 0 text12 BADC").decode(registers(*swapped)) == text
    if pad == "\0":
        assert read_address("holding 0 text12").encode(text) == registers(*words)
        assert read_address("holding 0 text12 BADC").encode(text) == registers(*swapped)


def test_text_that_is_none() -> None:
    address = read_address("holding 0 text4")
    for words in ([0x4101, 0], [0xC3A4, 0], [0x7F00, 0]):
        with pytest.raises(NoValue, match="no text"):
            address.decode(registers(*words))
    for value in ("abcde", "a ", "ä", "a\n"):
        with pytest.raises(ValueError, match=r"fit|ASCII"):
            address.encode(value)


@given(word=st.integers(0, 0xFFFF), bit=st.integers(0, 15))
def test_bits_in_registers(word: int, bit: int) -> None:
    assert read_address(f"holding 9 bit{bit}").decode(registers(word)) is (f"{word:016b}"[15 - bit] == "1")


@pytest.mark.parametrize(
    ("text", "data", "value"),
    [
        ("input 0 int16 x0.1 not 32767,-32768", registers(32767), None),
        ("input 0 int16 x0.1 not 32767,-32768", registers(0x8000), None),
        ("input 0 int16 x0.1 not 32767,-32768", registers(32766), 3276.6),
        ("input 0 uint16 not 0xFFFF", registers(0xFFFF), None),
        ("input 0 uint16 not 0xFFFF", registers(0xFFFE), 0xFFFE),
        ("input 0 float32 CDAB not -999.9", on_the_wire("float32", "CDAB", -999.9), None),
        ("input 0 float32 not 9999", on_the_wire("float32", "ABCD", 9999.5), 9999.5),
        ("input 0 int32 BADC not 0x80000000", registers(0x0080, 0), None),
        ("input 0 bcd16 not 9999", registers(0x9999), None),
    ],
)
def test_values_that_say_there_is_none(text: str, data: bytes, value: float | None) -> None:
    address: Address = read_address(text)
    if value is None:
        with pytest.raises(NoValue, match="no value"):
            address.decode(data)
    else:
        assert address.decode(data) == pytest.approx(value)


FORMS = st.sampled_from(
    [
        *(f"{kind} {order}" for kind in NUMPY for order in ORDERS[2]),
        *("int16 x0.1 not 32767,0x8000", "uint16 CDAB not 0xFFFF", "int32 BADC not -1,0", "uint32 not 7"),
        *("float32 CDAB x0.1", "float32 not 0x7F800001,1", "float64 x1e300", "int64 DCBA x1e300"),
        *("bcd16", "bcd32 CDAB", "bit0", "bit15", "text4", "text8 BADC"),
    ]
)
LAIN = st.lists(st.tuples(st.integers(0, 12), FORMS), min_size=1, max_size=12)
WORDS = st.lists(
    st.one_of(st.integers(0, 0xFFFF), st.sampled_from([0, 0xFFFF, 0x8000, 0x7FFF, 0x7FC0, 0x7F80, 0xFF80, 0xC07F])),
    min_size=16,
    max_size=16,
)


@given(lain=LAIN, words=WORDS)
@example(lain=[(0, "float32 ABCD"), (2, "float32 ABCD"), (4, "int16 ABCD")], words=[0x7F80, 0, 0xFF80, 0, *[1] * 12])
@example(lain=[(0, "float64 ABCD"), (4, "float64 ABCD")], words=[0x7FEF, *[0xFFFF] * 3, 0x7FEF, *[0xFFFF] * 11])
def test_values_read_together_are_those_read_alone(lain: list[tuple[int, str]], words: list[int]) -> None:
    """Also where they overlap, and where one of them is none."""
    places = {f"t{n}": read_address(f"holding {100 + at} {form}") for n, (at, form) in enumerate(lain)}
    data = registers(*words)
    block = Block(100, places)
    assert sorted(block.names) == sorted(places)
    floats = Block(100, places, floats=places).values(data)
    for name, found, as_float in zip(block.names, block.values(data), floats, strict=True):
        address = places[name]
        at = 2 * (address.number - 100)
        try:
            alone = address.decode(data[at : at + 2 * address.count])
        except NoValue as none:
            assert str(found) == str(as_float) == str(none)
        else:
            assert (type(found), found) == (type(alone), alone)
            assert as_float == (float(alone) if address.plain else alone)


@given(numbers=st.lists(st.integers(0, 70), min_size=1, max_size=30), data=st.binary(min_size=9, max_size=9))
def test_bits_read_together(numbers: list[int], data: bytes) -> None:
    places = {f"t{n}": read_address(f"coil {1000 + number}") for n, number in enumerate(numbers)}
    block = Block(1000, places)
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
    for name, found in zip(block.names, block.values(data), strict=True):
        assert found is bool(bits[places[name].number - 1000])


def test_what_stands_for_no_value_is_not_written() -> None:
    with pytest.raises(ValueError, match="no value"):
        read_address("holding 0 int16 not 32767").encode(32767)
