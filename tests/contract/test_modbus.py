"""Modbus at the edge: addresses, and devices that answer wrongly, late, short or not at all."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus import ModbusDriver, read_address
from edge.core.errors import LinesideError
from edge.equipment import Home, WriteRefused, WriteResult, WriteUnknown
from tests.contract.conformance import now_s, rig
from tests.contract.wire import RIGHT, WRONG, answer, device, frame, never_wrong, plant_at, words

PIECES = st.lists(
    st.sampled_from(
        [
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
            "ABCD",
        ]
    ),
    max_size=8,
).map("".join)


@given(st.one_of(st.text(max_size=60), PIECES))
def test_any_text_is_an_address_or_refused_in_words(text: str) -> None:
    try:
        address = read_address(text)
    except LinesideError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert (refusal.code, bool(refusal.todo)) == ("modbus.address", True)
        return
    assert 0 <= address.number <= address.number + address.count - 1 <= 65_535


@pytest.mark.parametrize(
    "text", ["holding 10", "coil 5 float32", "input 65535 float32", "holding 1 float32 x0", "holding 1 int16 xnan", "x"]
)
def test_bad_addresses(text: str) -> None:
    with pytest.raises(LinesideError) as refusal:
        read_address(text)
    assert refusal.value.code == "modbus.address"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("ABCD", [0x42F6, 0xE979]),
        ("CDAB", [0xE979, 0x42F6]),
        ("BADC", [0xF642, 0x79E9]),
        ("DCBA", [0x79E9, 0xF642]),
    ],
)
def test_the_four_word_orders(order: str, words: list[int]) -> None:
    address = read_address(f"holding 0 float32 {order}")
    assert address.decode(words) == pytest.approx(123.456, abs=1e-5)
    assert address.encode(address.decode(words)) == words


@given(
    kind=st.sampled_from(["int16", "uint16", "int32", "uint32"]),
    order=st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]),
    value=st.integers(-(2**33), 2**33),
)
def test_whole_numbers_come_back_or_are_refused(kind: str, order: str, value: int) -> None:
    address = read_address(f"holding 0 {kind} {order}")
    bits = int(kind.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if low <= value <= high:
        assert address.decode(address.encode(value)) == value
    else:
        with pytest.raises(ValueError, match="does not fit"):
            address.encode(value)


def test_scale() -> None:
    address = read_address("input 3 int16 x0.1")
    assert address.decode([0xFFFF]) == pytest.approx(-0.1)
    assert address.encode(12.3) == [123]
    with pytest.raises(ValueError, match="whole number"):
        address.encode(12.34)


@pytest.mark.parametrize(
    ("settings", "tag", "code"),
    [
        ({}, {}, "modbus.settings"),
        ({"host": "h", "prot": 1}, {}, "modbus.settings"),
        ({"host": "h", "port": 0}, {}, "modbus.settings"),
        ({"host": "h", "device": 0}, {}, "modbus.settings"),
        ({"host": "h", "device": True}, {}, "modbus.settings"),
        ({"host": "h"}, {"address": "somewhere"}, "modbus.address"),
        ({"host": "h"}, {"address": "coil 1"}, "modbus.type"),
        ({"host": "h"}, {"address": "holding 1 int16", "type": "text"}, "modbus.type"),
        ({"host": "h"}, {"address": "input 1 int16", "access": "write"}, "modbus.read_only"),
    ],
)
async def test_settings_are_refused_in_words(settings: dict[str, object], tag: dict[str, object], code: str) -> None:
    plant = plant_at(1, settings=settings, tags={"x": {"connection": "device", "address": "coil 1", "type": "bool"}})
    if tag:
        plant = plant_at(1, settings=settings, tags={"x": {"connection": "device", **tag}})
    with pytest.raises(LinesideError) as refusal:
        ModbusDriver(plant.connections["device"], plant.tags(), now_s=now_s, utc=lambda: "", home=Home())
    assert refusal.value.code == code


# Devices that misbehave ------------------------------------------------------------------------------------------


async def test_a_late_reply_is_never_taken_for_another() -> None:
    """The first request is answered only when the second connection is there, on both."""
    held: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def late(connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        if connection == 1:
            held.append((request, writer))
            return
        old_request, old_writer = held[0]
        if not old_writer.is_closing():
            old_writer.write(answer(old_request, WRONG))
        transaction = struct.unpack(">H", request[:2])[0]
        writer.write(frame(transaction + 1, bytes([3, 4]) + words(WRONG)))
        writer.write(answer(request, RIGHT))

    async with device(late) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.good("U.x"))
        reading = made.equipment.latest("U.x")
        assert reading is not None
        assert reading.value == RIGHT
        assert len(held) == 1, "after a time-out the connection must be given up"
        assert never_wrong(made.seen)


@pytest.mark.parametrize("fault", ["transaction 0", "other function", "short", "long", "other unit", "protocol id"])
async def test_a_reply_that_does_not_fit_is_not_data(fault: str) -> None:
    async def wrong(connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction = struct.unpack(">H", request[:2])[0]
        if connection > 2:
            writer.write(answer(request, RIGHT))
            return
        match fault:
            case "transaction 0":
                reply = frame(0, bytes([3, 4]) + words(WRONG))
            case "other function":
                reply = frame(transaction, bytes([4, 4]) + words(WRONG))
            case "short":
                reply = frame(transaction, bytes([3, 2]) + words(WRONG)[:2])
            case "long":
                reply = frame(transaction, bytes([3, 8]) + words(WRONG) * 2)
            case "other unit":
                reply = frame(transaction, bytes([3, 4]) + words(WRONG), unit=9)
            case _:
                reply = b"".join((request[:2], b"\x00\x01\x00\x07\x01\x03\x04", words(WRONG)))
        writer.write(reply)

    async with device(wrong) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.bad("U.x"))
        await made.until(lambda: made.good("U.x"))
        assert never_wrong(made.seen)


async def test_a_write_cut_off_is_unknown_and_sent_once() -> None:
    writes: list[bytes] = []

    async def cut(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        if request[7] == 3:
            writer.write(answer(request, RIGHT))
            return
        writes.append(request)
        writer.close()

    async with device(cut) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.good("U.x"))
        outcome = await made.equipment.writer("U.x").write_and_read_back(7.0)
        assert outcome.result is WriteResult.UNKNOWN
        assert len(writes) == 1
        await made.until(lambda: made.good("U.x"))


@pytest.mark.parametrize(
    ("code", "refused"), [(1, True), (2, True), (3, True), (6, True), (4, False), (5, False), (11, False)]
)
async def test_exception_replies_are_refusals_unless_it_may_have_been_done(code: int, refused: bool) -> None:
    async def exception(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction = struct.unpack(">H", request[:2])[0]
        writer.write(answer(request, RIGHT) if request[7] == 3 else frame(transaction, bytes([0x90, code])))

    async with device(exception) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.good("U.x"))
        driver = made.equipment._drivers["device"]
        with pytest.raises(WriteRefused if refused else WriteUnknown, match=f"exception {code}"):
            await driver.write("U.x", 7.0)
        assert made.equipment.health()["device"].connected


@pytest.mark.parametrize(
    ("address", "kind", "reply"),
    [
        ("holding 0 float32", "float", struct.pack(">BHH", 16, 40, 2)),
        ("holding 0 float32", "float", struct.pack(">BHH", 16, 0, 1)),
        ("holding 0 uint16", "int", struct.pack(">BHH", 6, 0, 8)),
        ("coil 0", "bool", struct.pack(">BHH", 5, 0, 0)),
    ],
    ids=["address", "count", "value", "bit"],
)
async def test_an_acknowledgement_of_another_write_is_unknown(address: str, kind: str, reply: bytes) -> None:
    async def other(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction, function = struct.unpack(">H", request[:2])[0], request[7]
        bodies = {1: bytes([1, 1, 0]), 3: bytes([3, 2 * request[11]]) + bytes(2 * request[11])}
        writer.write(frame(transaction, bodies.get(function, reply)))

    tags: dict[str, object] = {
        "x": {"connection": "device", "address": address, "type": kind, "access": "write", "settle_s": 0.1}
    }
    async with device(other) as port, rig(plant_at(port, tags=tags)) as made:
        await made.until(lambda: made.good("U.x"))
        value = True if kind == "bool" else 7
        outcome = await made.equipment.writer("U.x").write_and_read_back(value)
        assert outcome.result is WriteResult.UNKNOWN
        assert "another write" in outcome.why


async def test_neighbours_are_read_together_and_apart_when_one_is_refused() -> None:
    spans: list[tuple[int, int]] = []

    async def device_without_register_2(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction, start, count = (*struct.unpack(">H", request[:2]), *struct.unpack(">HH", request[8:12]))
        spans.append((start, count))
        if start <= 2 < start + count:
            writer.write(frame(transaction, bytes([0x83, 2])))
        else:
            body = b"".join(struct.pack(">H", start + i) for i in range(count))
            writer.write(frame(transaction, bytes([3, 2 * count]) + body))

    tags = {
        f"t{i}": {"connection": "device", "address": f"holding {i} uint16", "type": "int"} for i in (0, 1, 2, 3, 200)
    }
    async with device(device_without_register_2) as port, rig(plant_at(port, tags=tags)) as made:
        await made.until(lambda: all(made.good(f"U.t{i}") for i in (0, 1, 3, 200)) and made.bad("U.t2"))
        assert (0, 4) in spans
        assert (200, 1) in spans
        for i in (0, 1, 3, 200):
            reading = made.equipment.latest(f"U.t{i}")
            assert reading is not None
            assert reading.value == i


async def test_never_more_registers_than_a_reply_carries() -> None:
    counts: list[int] = []

    async def plain(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction, count = struct.unpack(">H", request[:2])[0], struct.unpack(">H", request[10:12])[0]
        counts.append(count)
        writer.write(frame(transaction, bytes([3, 2 * count]) + bytes(2 * count)))

    tags = {f"t{i}": {"connection": "device", "address": f"holding {2 * i} float32"} for i in range(100)}
    async with device(plain) as port, rig(plant_at(port, tags=tags)) as made:
        await made.until(lambda: all(made.good(tag) for tag in plant_at(port, tags=tags).tags()))
        assert max(counts) <= 125
        assert set(counts) == {124, 76}
