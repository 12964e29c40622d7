"""Modbus on a serial line: who is spoken to, how often, and what is never taken for a value."""

from __future__ import annotations

import asyncio
import gc
import itertools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymodbus.framer import FramerType
from pymodbus.framer.rtu import FramerRTU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.modbus import ModbusDriver
from drivers.modbus_explorer import EXPLORER
from drivers.modbus_link import Lost, _lines, serial_answer, serial_line, tcp_answer
from edge.conformance import PATIENCE_S, now_s, rig
from edge.core.plant import Plant
from edge.equipment import Home, WriteResult
from edge.explorer import Where
from tests.contract.wire import RIGHT, WRONG, gateway, never_wrong, serial_devices, words

DESCRIPTORS = Path("/proc/self/fd")
Send = Callable[[bytes], None]


def plant_on(
    line: str, devices: int = 1, *, timeout_s: float = 0.3, dead_timeout_s: float = 0.0, **settings: object
) -> Plant:
    """So many devices, with the numbers 1, 2 ... and one tag each. The second may have a time-out of its own."""
    how = {"line": line, "parity": "none", **settings}
    connections = {
        f"d{n}": {
            "driver": "modbus",
            "settings": {**how, "device": n},
            "timeout_s": (n == 2 and dead_timeout_s) or timeout_s,
            "poll_s": 0.02,
        }
        for n in range(1, devices + 1)
    }
    tags = {
        f"x{n}": {"connection": f"d{n}", "address": "holding 0 float32", "access": "write", "settle_s": 0.1}
        for n in range(1, devices + 1)
    }
    return Plant.model_validate(
        {"plant": "line", "connections": connections, "units": {"U": {"class": "thing", "tags": tags}}}
    )


def answer(request: bytes, value: float) -> bytes:
    """The right reply to a read or a write."""
    if request[1] != 3:
        return request[:6]
    count = struct.unpack(">H", request[4:6])[0]
    return request[:2] + bytes([2 * count]) + (words(value) * count)[: 2 * count]


async def test_a_dead_device_never_stops_the_others() -> None:
    """Nobody waits for it longer than its own time-out, and the others have their turns in between."""
    asked: list[int] = []

    def devices(request: bytes, send: Send) -> None:
        asked.append(request[0])
        if request[0] != 2:
            send(answer(request, RIGHT))

    with serial_devices(devices) as line:
        async with rig(plant_on(line, 4, timeout_s=10, dead_timeout_s=0.05)) as made:
            await made.until(lambda: all(made.good(f"U.x{n}") for n in (1, 3, 4)) and made.bad("U.x2"))
            async with asyncio.timeout(PATIENCE_S):
                while asked.count(2) < 5:
                    assert (await made.equipment.read("U.x1")).good
            assert [made.equipment.health()[f"d{n}"].connected for n in (1, 2, 3, 4)] == [True, False, True, True]
            assert all(made.good(f"U.x{n}") for n in (1, 3, 4))
            assert "2, 2" not in str(asked), "the dead one twice, and nobody in between"
    assert not any(line.users for line in _lines.values())


@pytest.mark.parametrize(("where", "first_s", "most_s"), [("line", 2.0, 20.0), ("host", 0.1, 2.0)])
async def test_coming_back_has_jitter_and_a_bound(where: str, first_s: float, most_s: float) -> None:
    plant = plant_on("/dev/ttyS0", timeout_s=2.0)
    connection = plant.connections["d1"]
    if where == "host":
        connection = connection.model_copy(update={"settings": {"host": "h"}})
    driver = ModbusDriver(connection, plant.tags(), now_s=now_s, utc=lambda: "", home=Home())
    runs = [list(itertools.islice(driver._delays_s(), 12)) for _ in range(20)]
    assert all(first_s / 2 <= run[0] <= first_s and most_s / 2 <= run[-1] <= most_s for run in runs)
    assert len({tuple(run) for run in runs}) == 20


async def test_turns_are_fair_and_one_request_is_on_the_line() -> None:
    """However much one device is asked for, the others are asked in between."""
    asked: list[int] = []
    unanswered = 0
    most = 0

    def devices(request: bytes, send: Send) -> None:
        nonlocal unanswered, most
        asked.append(request[0])
        unanswered += 1
        most = max(most, unanswered)

        def reply() -> None:
            nonlocal unanswered
            unanswered -= 1
            send(answer(request, RIGHT))

        asyncio.get_running_loop().call_soon(reply)

    with serial_devices(devices) as line:
        async with rig(plant_on(line, 3, timeout_s=5)) as made:
            await made.until(lambda: all(made.good(f"U.x{n}") for n in (1, 2, 3)))
            del asked[:]
            await asyncio.gather(*(made.equipment.read(f"U.x{n}") for n in (1, 1, 1, 1, 1, 1, 1, 1, 2, 3)))
            assert {2, 3} <= set(asked[:6])
            assert most == 1


@pytest.mark.parametrize("fault", ["late", "foreign", "function", "short", "long", "checksum"])
async def test_what_does_not_fit_is_not_data(fault: str) -> None:
    """The first request is answered wrongly, or only when the next one has come."""
    requests: list[bytes] = []

    def device(request: bytes, send: Send) -> None:
        requests.append(request)
        first = len(requests) == 1
        if not first:
            if fault == "late" and len(requests) == 2:
                send(answer(requests[0], WRONG))
            send(answer(request, RIGHT))
            return
        match fault:
            case "foreign":
                send(bytes([9]) + answer(request, WRONG)[1:])
            case "function":
                send(bytes([request[0], 4]) + answer(request, WRONG)[2:])
            case "short":
                send(request[:2] + bytes([2]) + words(WRONG)[:2])
            case "long":
                send(request[:2] + bytes([8]) + words(WRONG) * 2)
            case "checksum":
                send(answer(request, WRONG) + b"\0")
            case _:
                pass

    with serial_devices(device) as line:
        async with rig(plant_on(line)) as made:
            await made.until(lambda: made.bad("U.x1"))
            await made.until(lambda: made.good("U.x1"))
            assert never_wrong(made.seen)
            assert made.seen[-1].value == RIGHT


async def test_planted_bug_without_another_form_a_late_reply_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    async def in_step(_driver: object) -> str:
        return ""

    monkeypatch.setattr("drivers.modbus.ModbusDriver._out_of_step", in_step)
    requests: list[bytes] = []

    def device(request: bytes, send: Send) -> None:
        requests.append(request)
        if len(requests) > 1:
            send(answer(requests[-2], WRONG))

    with serial_devices(device) as line:
        async with rig(plant_on(line)) as made:
            await made.until(lambda: not never_wrong(made.seen))


async def test_a_reply_that_is_always_one_request_late_is_never_data() -> None:
    requests: list[bytes] = []
    many = asyncio.Event()

    def device(request: bytes, send: Send) -> None:
        requests.append(request)
        if len(requests) > 1:
            send(answer(requests[-2], WRONG))
        if len(requests) == 5:
            many.set()

    with serial_devices(device) as line:
        async with rig(plant_on(line, timeout_s=0.05)) as made:
            async with asyncio.timeout(PATIENCE_S):
                await many.wait()
            assert not made.good("U.x1")
            assert never_wrong(made.seen)
            assert len({request[4:6] for request in requests}) == 2, "each has another form than the one before"


async def test_the_reply_to_a_request_that_was_cancelled_is_never_data() -> None:
    """It comes when the next request is out, and not before."""
    requests: list[bytes] = []
    first, there = asyncio.Event(), asyncio.Event()

    def device(request: bytes, send: Send) -> None:
        requests.append(request)
        match len(requests):
            case 1:
                first.set()
            case 2:
                send(answer(requests[0], WRONG))
            case _:
                send(answer(request, RIGHT))

    with serial_devices(device) as line:
        plant = plant_on(line, timeout_s=0.1)
        driver = ModbusDriver(plant.connections["d1"], plant.tags(), now_s=now_s, utc=lambda: "", home=Home())
        await driver.start(lambda _tag, _reading: None, lambda health: there.set() if health.connected else None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await there.wait()
                reading = asyncio.create_task(driver.read("U.x1"))
                await first.wait()
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                while not (seen := await driver.read("U.x1")).good:  # noqa: ASYNC110  only the device knows
                    await asyncio.sleep(0)
        finally:
            await driver.stop()
    assert seen.value == RIGHT


async def test_after_a_cancelled_request_the_line_is_left_alone_as_long_as_its_reply_may_come() -> None:
    loop = asyncio.get_running_loop()
    asked: list[tuple[int, float]] = []
    first = asyncio.Event()

    def devices(request: bytes, send: Send) -> None:
        asked.append((request[0], loop.time()))
        first.set()
        if request[0] == 2:
            send(answer(request, RIGHT))

    with serial_devices(devices) as path:
        links = [await serial_line(path, 19200, "none", 1) for _ in range(2)]
        try:
            begun_s = loop.time()
            one = asyncio.create_task(links[0].exchange(1, bytes([3, 0, 0, 0, 2]), 0.3))
            await first.wait()
            one.cancel()
            await asyncio.gather(one, return_exceptions=True)
            await links[1].exchange(2, bytes([3, 0, 0, 0, 2]), PATIENCE_S)
        finally:
            for link in links:
                link.leave()
    assert [device for device, _ in asked] == [1, 2]
    assert asked[1][1] >= begun_s + 0.29


async def test_a_late_acknowledgement_of_a_write_confirms_nothing() -> None:
    writes: list[bytes] = []
    late = False

    def device(request: bytes, send: Send) -> None:
        nonlocal late
        if request[1] != 3:
            writes.append(request)
            return
        if writes and not late:
            late = True
            send(answer(writes[0], 0.0))
        send(answer(request, RIGHT))

    with serial_devices(device) as line:
        async with rig(plant_on(line, timeout_s=1.0)) as made:
            await made.until(lambda: made.good("U.x1"))
            outcome = await made.equipment.writer("U.x1").write_and_read_back(7.0)
            assert outcome.result is WriteResult.UNKNOWN
            await made.until(lambda: late and made.good("U.x1"))
            assert len(writes) == 1
            assert never_wrong(made.seen)


async def test_an_adapter_that_repeats_what_is_sent_is_named() -> None:
    def echo(request: bytes, send: Send) -> None:
        send(request)
        send(answer(request, RIGHT))

    with serial_devices(echo) as line:
        async with rig(plant_on(line)) as made:
            await made.until(lambda: "local echo" in made.equipment.health()["d1"].detail)
            assert not made.seen or not made.seen[-1].good


async def test_a_line_in_use_otherwise_and_a_port_that_is_not_there() -> None:
    with serial_devices(lambda request, send: send(answer(request, RIGHT))) as line:
        plant = plant_on(line, 2).model_dump(by_alias=True)
        plant["connections"]["d2"]["settings"] = {**plant["connections"]["d2"]["settings"], "baud": 9600}
        async with rig(Plant.model_validate(plant)) as made:
            await made.until(
                lambda: all("another connection" in h.detail or h.connected for h in made.equipment.health().values())
            )
            assert sorted(h.connected for h in made.equipment.health().values()) == [False, True]
    async with rig(plant_on("/dev/lineside-no-such-port")) as made:
        await made.until(lambda: "it is not there" in made.equipment.health()["d1"].detail)


async def test_an_unplugged_adapter_comes_back() -> None:
    """The port hangs up; the next line of the same name is found."""
    with serial_devices(lambda request, send: send(answer(request, RIGHT))) as line:
        async with rig(plant_on(line)) as made:
            await made.until(lambda: made.good("U.x1"))
            link = next(link for link in _lines.values() if link.users)
            link.transport.close(OSError("unplugged"))
            await made.until(lambda: made.bad("U.x1"))
            await made.until(lambda: made.good("U.x1"))


# Behind a gateway ------------------------------------------------------------------------------------------------


def plant_behind(port: int, devices: int = 1, **how: float) -> Plant:
    """The same devices behind a gateway."""
    plant = plant_on("/dev/gateway", devices, **how).model_dump(by_alias=True)
    for n in range(1, devices + 1):
        settings = {"host": "127.0.0.1", "port": port, "framing": "rtu", "device": n}
        plant["connections"][f"d{n}"]["settings"] = settings
    return Plant.model_validate(plant)


async def test_devices_behind_a_gateway_share_it_like_a_line() -> None:
    """A dead one stops nobody, and one connection serves all: many gateways have no second."""
    asked: list[int] = []
    writes: list[bytes] = []

    def devices(request: bytes, send: Send) -> None:
        asked.append(request[0])
        if request[1] != 3:
            writes.append(request)
        if request[0] != 2:
            send(answer(request, RIGHT))

    async with gateway(devices) as (port, made_connections):
        async with rig(plant_behind(port, 3, timeout_s=10, dead_timeout_s=0.05)) as made:
            await made.until(lambda: made.good("U.x1") and made.good("U.x3") and made.bad("U.x2"))
            async with asyncio.timeout(PATIENCE_S):
                while asked.count(2) < 3:
                    assert (await made.equipment.read("U.x1")).good
            assert (await made.equipment.writer("U.x3").write_and_read_back(RIGHT)).result is WriteResult.CONFIRMED
        assert [write[:2] for write in writes] == [b"\x03\x10"]
        assert len(made_connections) == 1
    assert not any(line.users for line in _lines.values())


async def test_a_reply_that_comes_late_through_a_gateway_is_never_data() -> None:
    requests: list[bytes] = []

    def device(request: bytes, send: Send) -> None:
        requests.append(request)
        if len(requests) == 2:
            send(answer(requests[0], WRONG))
        if len(requests) > 1:
            send(answer(request, RIGHT))

    async with gateway(device) as (port, _), rig(plant_behind(port)) as made:
        await made.until(lambda: made.bad("U.x1"))
        await made.until(lambda: made.good("U.x1"))
        assert never_wrong(made.seen)


async def test_a_real_server_behind_such_framing() -> None:
    words_of = [SimData(0, count=16, values=list(struct.unpack(">HH", words(RIGHT))) * 8, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    device = SimDevice(id=1, simdata=(bits, bits, words_of, words_of))
    server = ModbusTcpServer(device, address=("127.0.0.1", 0), framer=FramerType.RTU)
    await server.serve_forever(background=True)
    try:
        port = cast("asyncio.Server", server.transport).sockets[0].getsockname()[1]
        async with rig(plant_behind(port)) as made:
            await made.until(lambda: made.good("U.x1") and made.seen[-1].value == RIGHT)
            outcome = await made.equipment.writer("U.x1").write_and_read_back(7.0)
            assert outcome.result is WriteResult.CONFIRMED, outcome.why
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


# Ports -----------------------------------------------------------------------------------------------------------


async def test_a_port_that_refuses_how_it_is_to_be_set_keeps_no_descriptor() -> None:
    """A pty takes no parity, and says so when the port is already open: the next way to set it must find it free."""
    with serial_devices(lambda _request, _send: None) as line:
        gc.disable()
        try:
            before = len(list(DESCRIPTORS.iterdir()))
            for _ in range(3):
                with pytest.raises(Lost):
                    await serial_line(line, 19200, "even", 1)
            (await serial_line(line, 19200, "none", 1)).leave()
            assert len(list(DESCRIPTORS.iterdir())) == before
        finally:
            gc.enable()


async def test_a_device_on_a_line_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Function 43, whose answer says its own length."""
    said = bytes([43, 14, 1, 1, 0, 0, 2, 0, 4]) + b"ACME" + bytes([1, 2]) + b"P7"

    def device(request: bytes, send: Send) -> None:
        if request[1] == 43:
            send(bytes([1]) + said)
        elif request[:2] == b"\x01\x03":
            send(answer(request, RIGHT))
        else:
            send(bytes([request[0], 0x80 | request[1], 2 if request[0] == 1 else 11]))

    for bound in ("LINE_ANSWER_S", "LINE_IDENTITY_S"):
        monkeypatch.setattr(f"drivers.modbus_explorer.{bound}", PATIENCE_S)
    with serial_devices(device) as path:
        seen = await EXPLORER.probe(Where(line=path, timeout_s=60), lambda _what: None)
    assert [one.settings["device"] for one in seen] == [1]
    assert {("maker", "ACME"), ("product", "P7")} <= set(seen[0].facts)


# What answers a request, for any bytes --------------------------------------------------------------------------

REQUESTS = [
    bytes([1, 3, 0, 0, 0, 2]),
    bytes([1, 1, 0, 0, 0, 10]),
    bytes([7, 4, 0, 5, 0, 1]),
    bytes([1, 6, 0, 0, 0, 9]),
    bytes([1, 5, 0, 0, 0xFF, 0]),
    bytes([1, 16, 0, 0, 0, 2, 4, 1, 2, 3, 4]),
    bytes([1, 22, 0, 4, 0xFF, 0xFE, 0, 1]),
]


def right(request: bytes, reply: bytes) -> bool:
    """An independent judgement: whether `reply` (device, function, ...) answers `request`."""
    if reply[0] != request[0] or len(reply) < 3:
        return False
    if reply[1] == request[1] + 128:
        return len(reply) == 3
    count = request[4] * 256 + request[5]
    match request[1]:
        case 3 | 4:
            return reply[1] == request[1] and reply[2] == 2 * count and len(reply) == 3 + 2 * count
        case 1 | 2:
            size = -(-count // 8)
            return reply[1] == request[1] and reply[2] == size and len(reply) == 3 + size
        case 16:
            return reply == request[:6]
        case _:
            return reply == request


def with_sum(frame: bytes) -> bytes:
    return frame + FramerRTU.compute_CRC(frame).to_bytes(2, "big")


REPLIES = st.one_of(
    st.binary(min_size=1, max_size=12),
    st.tuples(
        st.sampled_from([1, 7, 9]),
        st.sampled_from([1, 3, 4, 5, 6, 16, 22, 0x81, 0x83, 0x84, 0x86, 0x90]),
        st.one_of(
            st.sampled_from(
                [b"\x04\0\0\0\0", b"\x02\0\0", b"\x02\0\0\0", b"\0\0\0\x09", b"\0\0\xff\0", b"\0\0\0\2", b"\2"]
            ),
            st.binary(max_size=8),
        ),
    ).map(lambda parts: bytes(parts[:2]) + parts[2]),
)


@given(st.sampled_from(REQUESTS), REPLIES)
def test_a_serial_reply_is_taken_exactly_when_it_answers(request_: bytes, reply: bytes) -> None:
    frame, why = serial_answer(with_sum(request_), with_sum(reply))
    if right(request_, reply):
        assert (frame, why) == (with_sum(reply), "")
    else:
        assert frame == b""


@given(st.sampled_from(REQUESTS), REPLIES, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_a_tcp_reply_is_taken_exactly_when_it_answers(request_: bytes, reply: bytes, asked: int, told: int) -> None:
    def framed(transaction: int, body: bytes) -> bytes:
        return struct.pack(">HHH", transaction, 0, len(body)) + body

    request = framed(asked, request_)
    for transaction in (asked, told):
        frame, _ = tcp_answer(request, framed(transaction, reply))
        assert frame == (framed(asked, reply) if transaction == asked and right(request_, reply) else b"")


def believed_although_spoiled() -> int:
    """So many replies with one flipped bit that are taken for an answer."""
    request, reply = (with_sum(bytes([1, 3, *rest])) for rest in ((0, 0, 0, 2), (4, *words(RIGHT))))
    spoiled = [bytearray(reply) for _ in range(8 * len(reply))]
    for bit, one in enumerate(spoiled):
        one[bit // 8] ^= 1 << bit % 8
    return sum(serial_answer(request, bytes(one))[0] != b"" for one in spoiled)


def test_every_flipped_bit_of_a_serial_reply_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert believed_although_spoiled() == 0
    monkeypatch.setattr(FramerRTU, "check_CRC", lambda _data, _sum: True)
    assert believed_although_spoiled() == 32 + 16, "planted: without the checksum values are believed, and it itself"


def test_two_replies_at_once_answer_nothing_and_no_frame_is_longer_than_modbus_has() -> None:
    request = with_sum(bytes([1, 3, 0, 0, 0, 2]))
    one, other = (with_sum(bytes([1, 3, 4]) + words(value)) for value in (WRONG, RIGHT))
    assert serial_answer(request, one) == (one, "")
    assert serial_answer(request, one + other) == (b"", ""), "nobody knows which of them it is"
    assert serial_answer(request, b"\0" + other) == (other, ""), "noise before it is none"
    asked = struct.pack(">HHHB", 7, 0, 6, 1) + bytes([3, 0, 0, 0, 2])
    for size in (0, 2, 255, 65_535):
        assert tcp_answer(asked, struct.pack(">HHHB", 7, 0, size, 1)) == (b"", "What arrived is not Modbus.")


@given(st.sampled_from(REQUESTS), st.binary(max_size=300))
def test_random_bytes_are_no_answer(request_: bytes, received: bytes) -> None:
    for answer_in, request in (
        (serial_answer, with_sum(request_)),
        (tcp_answer, struct.pack(">HHH", 7, 0, len(request_)) + request_),
    ):
        frame, why = answer_in(request, received)
        assert isinstance(why, str)
        assert not frame or frame in received
