"""Modbus at the edge: devices that answer wrongly, late, short or not at all."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest

from drivers.modbus import ModbusDriver
from edge.conformance import PATIENCE_S, now_s, rig
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.terms import Reading
from edge.equipment import Health, Home, WriteRefused, WriteResult, WriteUnknown
from tests.contract.wire import KILLS, RIGHT, WRONG, Leak, answer, device, frame, never_wrong, plant_at, words


def driver_of(plant: Plant) -> ModbusDriver:
    return ModbusDriver(plant.connections["device"], plant.tags(), now_s=now_s, utc=lambda: "", home=Home())


@pytest.mark.parametrize(
    ("settings", "tag", "code"),
    [
        ({}, {}, "modbus.settings"),
        ({"host": "h", "prot": 1}, {}, "modbus.settings"),
        ({"host": "h", "port": 0}, {}, "modbus.settings"),
        ({"host": "h", "device": 0}, {}, "modbus.settings"),
        ({"host": "h", "device": True}, {}, "modbus.settings"),
        ({"host": "h", "line": "/dev/ttyS0"}, {}, "modbus.settings"),
        ({"host": "h", "baud": 9600}, {}, "modbus.settings"),
        ({"line": "/dev/ttyS0", "port": 502}, {}, "modbus.settings"),
        ({"line": "ttyS0"}, {}, "modbus.settings"),
        ({"line": "/dev/ttyS0", "device": 248}, {}, "modbus.settings"),
        ({"line": "/dev/ttyS0", "parity": "mark"}, {}, "modbus.settings"),
        ({"host": "h", "registers_max": 126}, {}, "modbus.settings"),
        ({"host": "h", "registers_max": 1}, {"address": "holding 1 float32"}, "modbus.too_long"),
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
        driver_of(plant)
    assert refusal.value.code == code


# Devices that misbehave ------------------------------------------------------------------------------------------


async def test_a_device_that_is_killed_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps are marked, values read anew, and nothing is left open."""
    monkeypatch.setattr("drivers.modbus.retry_delays_s", lambda: itertools.repeat(0.01))
    ends: list[asyncio.StreamWriter] = []
    pid = os.getpid()
    host = f"127.{1 + pid % 200}.{pid // 200 % 250}.{1 + pid // 50_000 % 250}"  # nobody else takes its ports meanwhile
    value, port, leak = 0.0, 0, Leak()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        while request := await reader.read(256):
            writer.write(answer(request, value))

    server = await asyncio.start_server(serve, host, port)
    port = server.sockets[0].getsockname()[1]
    async with rig(plant_at(port, settings={"host": host, "port": port})) as made:
        for round_ in range(1, KILLS + 1):
            value = float(round_)
            if round_ > 1:
                server = await asyncio.start_server(serve, host, port, reuse_address=True)
            await made.until(lambda: made.good("U.x"))
            assert made.equipment.latest("U.x").value == value  # type: ignore[union-attr]
            server.close()
            while ends:
                ends.pop().transport.abort()
            await made.until(lambda: made.bad("U.x") and not made.equipment.health()["device"].connected)
            leak.look()
        assert [task.get_name() for task in asyncio.all_tasks()].count("modbus") == 1
        leak.judge(sockets=2, tasks=2)


async def test_an_open_connection_alone_is_not_a_device() -> None:
    """It is taken and nothing is ever answered, again and again: never is the device said to be there."""

    async def silence(_connection: int, _request: bytes, _writer: asyncio.StreamWriter) -> None:
        pass

    told: list[Health] = []
    seen: list[Reading] = []
    lost = asyncio.Event()

    def take(_tag: str, reading: Reading) -> None:
        seen.append(reading)
        if len(seen) == 2:
            lost.set()

    async with device(silence) as port:
        driver = driver_of(plant_at(port))
        await driver.start(take, told.append)
        try:
            await driver.watch(["U.x"])
            async with asyncio.timeout(PATIENCE_S):
                await lost.wait()
        finally:
            await driver.stop()
    assert told
    assert not any(one.connected for one in told)
    assert not any(reading.good for reading in seen)


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


@pytest.mark.parametrize(
    "fault",
    [
        "transaction 0",
        "other function",
        "short",
        "long",
        "count too low",
        "count too high",
        "other unit",
        "protocol id",
        "a long exception",
    ],
)
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
            case "count too low":
                reply = frame(transaction, bytes([3, 4]) + words(WRONG) + b"\0\0")
            case "count too high":
                reply = frame(transaction, bytes([3, 6]) + words(WRONG))
            case "a long exception":
                reply = frame(transaction, bytes([0x83, 2]) + words(WRONG))
            case "other unit":
                reply = frame(transaction, bytes([3, 4]) + words(WRONG), unit=9)
            case _:
                reply = b"".join((request[:2], b"\x00\x01\x00\x07\x01\x03\x04", words(WRONG)))
        writer.write(reply)

    async with device(wrong) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.bad("U.x"))
        await made.until(lambda: made.good("U.x"))
        assert never_wrong(made.seen)


async def test_a_gateway_that_answers_the_former_connections_request_on_the_next_one() -> None:
    """With the right length, and the transaction id of the request that was given up."""
    held: list[bytes] = []

    async def late(connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        if connection == 1:
            held.append(request)
            return
        writer.write(answer(held[0], WRONG))
        writer.write(answer(request, RIGHT))

    async with device(late) as port, rig(plant_at(port)) as made:
        await made.until(lambda: made.good("U.x"))
        assert never_wrong(made.seen)
        assert made.seen[-1].value == RIGHT


async def test_random_replies_are_never_values(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random bytes, and well-formed replies to something else, for each request on each connection."""
    monkeypatch.setattr("drivers.modbus.retry_delays_s", lambda *_: itertools.repeat(0.0))
    chance = random.Random(6)
    asked = 0

    async def random_device(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked > 400:
            writer.write(answer(request, RIGHT))
            return
        body = bytes([chance.choice((1, 2, 4, 5, 6, 15, 16, 22, 43, 0x83, 0x90))]) + chance.randbytes(
            chance.randrange(9)
        )
        transaction = chance.choice((struct.unpack(">H", request[:2])[0], chance.randrange(65_536)))
        writer.write(chance.choice((frame(transaction, body), chance.randbytes(chance.randrange(1, 30)))))
        writer.close()

    plant = plant_at(0)
    async with device(random_device) as port:
        driver = driver_of(plant_at(port))
        seen: list[Reading] = []
        good = asyncio.Event()

        def take(_tag: str, reading: Reading) -> None:
            seen.append(reading)
            if reading.good:
                good.set()

        await driver.start(take, lambda _health: None)
        try:
            await driver.watch(list(plant.tags()))
            async with asyncio.timeout(60):
                await good.wait()
        finally:
            await driver.stop()
    assert {reading.value for reading in seen if reading.good} == {RIGHT}
    assert asked > 400
    assert not caplog.records


async def test_a_bit_of_a_register_is_written_alone() -> None:
    register = 0b1010
    writes: list[bytes] = []

    async def masked(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal register
        transaction = struct.unpack(">H", request[:2])[0]
        if request[7] == 3:
            writer.write(frame(transaction, bytes([3, 2]) + struct.pack(">H", register)))
            return
        writes.append(request)
        _, both, either = struct.unpack(">HHH", request[8:14])
        register = (register & both) | (either & ~both)
        writer.write(request)

    tags: dict[str, object] = {
        "on": {"connection": "device", "address": "holding 4 bit2", "type": "bool", "access": "write", "settle_s": 0.1}
    }
    async with device(masked) as port, rig(plant_at(port, tags=tags)) as made:
        await made.until(lambda: made.good("U.on"))
        for value, shown in ((True, 0b1110), (False, 0b1010)):
            outcome = await made.equipment.writer("U.on").write_and_read_back(value)
            assert outcome.result is WriteResult.CONFIRMED, outcome.why
            assert register == shown
        assert [request[7] for request in writes] == [22, 22]


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


# How many requests -----------------------------------------------------------------------------------------------


@asynccontextmanager
async def registers(
    refused: Callable[[int, int], int] = lambda _start, _count: 0,
) -> AsyncIterator[tuple[int, list[tuple[int, int, int]], Callable[[int], Awaitable[None]]]]:
    """A device whose register n holds n and whose bit n is that of n: its port, what it was asked (function, start,
    count), and a wait for so many more requests. `refused` gives an exception code."""
    asked: list[tuple[int, int, int]] = []
    news = asyncio.Event()

    async def plain(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction, function, start, count = struct.unpack(">H5xBHH", request[:12])
        asked.append((function, start, count))
        if code := refused(start, count):
            body = bytes([0x80 | function, code])
        elif function < 3:
            bits = sum((start + i) % 2 << i for i in range(count)).to_bytes((count + 7) // 8, "little")
            body = bytes([function, len(bits)]) + bits
        else:
            body = bytes([function, 2 * count]) + b"".join(struct.pack(">H", start + i) for i in range(count))
        writer.write(frame(transaction, body))
        news.set()

    async def more(requests: int) -> None:
        until = len(asked) + requests
        async with asyncio.timeout(PATIENCE_S):
            while len(asked) < until:
                news.clear()
                await news.wait()

    async with device(plain) as port:
        yield port, asked, more


def reading_plant(port: int, addresses: Iterable[str], **settings: object) -> Plant:
    tags: dict[str, object] = {
        f"t{n}": {"connection": "device", "address": address, "type": "int" if "int" in address else "bool"}
        for n, address in enumerate(addresses)
    }
    return plant_at(port, settings={"host": "127.0.0.1", "port": port, **settings}, tags=tags)


@pytest.mark.parametrize(
    ("addresses", "settings", "expected"),
    [
        ([f"holding {n} uint16" for n in range(500)], {}, [(3, 0, 125), (3, 125, 125), (3, 250, 125), (3, 375, 125)]),
        ([f"holding {n} uint16" for n in range(0, 90, 9)], {}, [(3, 0, 82)]),
        ([f"holding {n} uint16" for n in (0, 9, 19)], {}, [(3, 0, 10), (3, 19, 1)]),
        ([f"holding {n} uint16" for n in (0, 1, 3)], {"gap": 0}, [(3, 0, 2), (3, 3, 1)]),
        (
            [f"holding {n} uint32" for n in range(0, 40, 2)],
            {"registers_max": 15},
            [(3, 0, 14), (3, 14, 14), (3, 28, 12)],
        ),
        ([f"coil {n}" for n in range(2_100)], {}, [(1, 0, 2_000), (1, 2_000, 100)]),
        ([f"discrete {n}" for n in range(0, 300, 100)], {"bits_max": 150}, [(2, 0, 101), (2, 200, 1)]),
        (["holding 4 bit0", "holding 4 bit15", "holding 4 uint16", "input 4 int16"], {}, [(3, 4, 1), (4, 4, 1)]),
        (["holding 0 int32", "holding 1 int16", "holding 5 int16"], {}, [(3, 0, 6)]),
    ],
    ids=["full", "gaps", "too wide", "no gap", "small device", "bits", "few bits", "one register", "overlap"],
)
async def test_as_few_requests_as_the_device_allows(
    addresses: list[str], settings: dict[str, object], expected: list[tuple[int, int, int]]
) -> None:
    async with registers() as (port, asked, more), rig(reading_plant(port, addresses, **settings)) as made:
        await made.until(lambda: all(made.good(f"U.t{n}") for n in range(len(addresses))))
        await more(len(expected))
        assert asked[: len(expected)] == expected
        assert set(asked) == set(expected)
        for n, address in enumerate(addresses):
            if "int16" in address:
                reading = made.equipment.latest(f"U.t{n}")
                assert reading is not None
                assert reading.value == int(address.split()[1])


@pytest.mark.parametrize("code", [2, 3])
async def test_holes_are_learned_and_what_is_refused_stands_alone(code: int) -> None:
    """Registers 20 and 61 are refused, the one in a gap, the other itself a tag."""
    numbers = [n for n in range(100) if not 18 <= n <= 22]

    def refused(start: int, count: int) -> int:
        return code if any(start <= hole < start + count for hole in (20, 61)) else 0

    plant_of = [f"holding {n} uint16" for n in numbers]
    async with registers(refused) as (port, asked, more), rig(reading_plant(port, plant_of)) as made:
        await made.until(
            lambda: all(made.bad(f"U.t{at}") if n == 61 else made.good(f"U.t{at}") for at, n in enumerate(numbers))
        )
        # the round in which the last was learned ends with these; the next ones have all there is to learn
        await more(20)
        lasting = set(asked[-10:])
        assert (3, 61, 1) in lasting
        assert not [one for one in lasting if refused(*one[1:]) and one != (3, 61, 1)]
        reading = made.equipment.latest(f"U.t{numbers.index(61)}")
        assert reading is not None
        assert f"exception {code}" in reading.detail


async def test_a_failure_is_asked_apart_only_while_it_lasts() -> None:
    """Exception 4 says nothing about addresses: when it is over, one request reads all again."""
    failing = True

    def refused(start: int, count: int) -> int:
        return 4 if failing and start <= 3 < start + count else 0

    addresses = [f"holding {n} uint16" for n in range(8)]
    async with registers(refused) as (port, asked, more), rig(reading_plant(port, addresses)) as made:
        await made.until(lambda: made.bad("U.t3") and all(made.good(f"U.t{n}") for n in range(8) if n != 3))
        failing = False
        await made.until(lambda: made.good("U.t3"))
        await more(16)
        assert set(asked[-5:]) == {(3, 0, 8)}


@pytest.mark.parametrize("code", [1, 6, 11])
async def test_other_refusals_are_not_asked_apart(code: int) -> None:
    addresses = [f"holding {n} uint16" for n in range(8)]
    async with (
        registers(lambda _start, _count: code) as (port, asked, more),
        rig(reading_plant(port, addresses)) as made,
    ):
        await made.until(lambda: all(made.bad(f"U.t{n}") for n in range(8)))
        await more(3)
        assert set(asked) == {(3, 0, 8)}


async def test_a_device_is_given_its_pause() -> None:
    """No request comes sooner than the pause after the answer to the one before."""
    loop = asyncio.get_running_loop()
    gaps_s: list[float] = []
    answered_s = 0.0
    enough = asyncio.Event()

    async def slow(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal answered_s
        gaps_s.append(loop.time() - answered_s)
        if len(gaps_s) > 5:
            enough.set()
        answered_s = loop.time()
        writer.write(answer(request, RIGHT))

    async with device(slow) as port:
        plant = plant_at(port, settings={"host": "127.0.0.1", "port": port, "pause_ms": 80})
        async with rig(plant), asyncio.timeout(PATIENCE_S):
            await enough.wait()
    assert min(gaps_s) >= 0.08


async def test_values_that_are_none_are_bad_in_words() -> None:
    addresses = ["input 0 int16 not 0", "input 1 float32", "input 3 bcd16", "input 4 int16"]

    async def none(_connection: int, request: bytes, writer: asyncio.StreamWriter) -> None:
        transaction, start, count = struct.unpack(">H6xHH", request[:12])
        data = struct.pack(">hfHh", 0, math.nan, 0xABCD, 7)[2 * start :][: 2 * count]
        writer.write(frame(transaction, bytes([4, len(data)]) + data))

    tags: dict[str, object] = {f"t{n}": {"connection": "device", "address": a} for n, a in enumerate(addresses)}
    async with device(none) as port, rig(plant_at(port, tags=tags)) as made:
        await made.until(lambda: made.good("U.t3") and all(made.bad(f"U.t{n}") for n in range(3)))
        for n, words_of in enumerate(("no value", "no finite number", "decimal digits")):
            reading = made.equipment.latest(f"U.t{n}")
            assert reading is not None
            assert words_of in reading.detail
            assert not (await made.equipment.read(f"U.t{n}")).good
