"""Scales: SICS and continuous, over TCP and a pseudo-terminal; what they must never make of a bad reply."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.scale import Frame, ScaleDriver, Shown, _Rejected, read_frame, read_reply
from drivers.sim.control import Faults
from drivers.sim.scale import SERIAL_NUMBER, WRITABLE, SimScale, scale_on_a_line
from drivers.wire import WireLost
from edge.conformance import Subject, now_s, one_connection, rig
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.terms import Quality
from edge.equipment import Home, WriteResult

WRONG_G = 999.0
RIGHT_G = 100.0
WHO = b'I4 A "7"\r\n'
TAGS: dict[str, dict[str, object]] = {
    "weight": {"unit": "g", "low": -50, "high": 6000},
    "stable": {"type": "bool"},
    "tare": {"type": "bool", "access": "write"},
    "zero": {"type": "bool", "access": "write"},
    "clear_tare": {"type": "bool", "access": "write"},
}


def scale_plant(settings: dict[str, Any], *names: str, timeout_s: float = 10.0) -> Plant:
    tags = {
        name: {"connection": "device", "address": name.replace("_", " "), "stale_s": 5, "settle_s": 0.5, **TAGS[name]}
        for name in names or TAGS
    }
    plant = one_connection("scale", settings, "W-2", tags)
    device = plant.connections["device"].model_copy(update={"timeout_s": timeout_s})
    return plant.model_copy(update={"connections": {"device": device}})


# Replies --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "line", "shown"),
    [
        ("SI", b"S S     100.00 g", Shown(100.0, "g")),
        ("SI", b"S D      -1.25 kg", Shown(-1.25, "kg", stable=False)),
        ("T", b"T S     100.00 g", Shown(100.0, "g")),
        ("TA", b"TA A      0.00 mg", Shown(0.0, "mg")),
        ("TA 5 g", b"TA A      5.00 g", Shown(5.0, "g")),
        ("Z", b"Z A", Shown()),
        ("TAC", b"TAC A", Shown()),
    ],
)
def test_what_a_scale_says(command: str, line: bytes, shown: Shown) -> None:
    assert read_reply(command, line) == shown


@pytest.mark.parametrize("line", [b"S I", b"S +", b"S -", b"ES", b"EL", b"ET"])
def test_what_a_scale_refuses_is_no_weight(line: bytes) -> None:
    with pytest.raises(_Rejected):
        read_reply("SI", line)


PIECES = st.lists(
    st.sampled_from(
        [b"S", b"T", b"TA", b"Z", b" ", b"  ", b"A", b"D", b"I", b"+", b"-", b"1", b"0.0", b".", b"g", b"lb", b"kg"]
    ),
    max_size=9,
).map(b"".join)
GRAMMAR = re.compile(rb"S [SD] +(-?[0-9]{1,9}(?:\.[0-9]{1,8})?) (kg|g|mg|ug)")


@given(st.one_of(st.binary(max_size=40), PIECES))
def test_only_a_whole_reply_gives_a_weight(line: bytes) -> None:
    try:
        shown = read_reply("SI", line)
    except (WireLost, _Rejected):
        return
    match = GRAMMAR.fullmatch(line)
    if not shown.trouble:
        assert match is not None
        assert (shown.mass, shown.unit) == (float(match[1]), match[2].decode())
    else:
        assert match is None


def frame(
    shown: str, *, tare: str = "     0", a: int = 0x2B, b: int = 0x30, c: int = 0x20, summed: bool = False
) -> bytes:
    """A continuous frame: `a` says how many decimals there are; in kg unless told otherwise."""
    data = b"\x02" + bytes([a, b, c]) + shown.encode() + tare.encode() + b"\r"
    return data + bytes([-sum(data) & 0x7F]) if summed else data


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (frame("  1234"), Frame(Shown(123.4, "kg"), Shown(0.0, "kg"))),
        (frame("  1234", a=0x2D, b=0x32), Frame(Shown(-1.234, "kg"), Shown(0.0, "kg"))),
        (
            frame("  1234", a=0x2C, b=0x39, c=0x21, tare="   500"),
            Frame(Shown(12.34, "g", stable=False), Shown(5.0, "g")),
        ),
    ],
)
def test_what_a_frame_says(data: bytes, wanted: Frame) -> None:
    assert read_frame(data, checksum=False) == wanted
    assert read_frame(data + bytes([-sum(data) & 0x7F]), checksum=True) == wanted


@pytest.mark.parametrize(
    ("data", "word"),
    [(frame("  1234", b=0x34), "load"), (frame("  1234", b=0x70), "zero"), (frame("  1234", b=0x20), "lb")],
)
def test_a_frame_that_says_trouble_is_no_weight(data: bytes, word: str) -> None:
    found = read_frame(data, checksum=False)
    assert found is not None
    assert word in found.shown.trouble
    assert found.tare.trouble


def test_every_flipped_bit_of_a_summed_frame_is_found() -> None:
    whole = frame("  1234", summed=True)
    assert read_frame(whole, checksum=True) is not None
    for place in range(len(whole)):
        for bit in range(7):
            data = bytearray(whole)
            data[place] ^= 1 << bit
            assert read_frame(bytes(data), checksum=True) is None


@given(st.binary(max_size=24))
def test_any_bytes_are_a_frame_or_none(data: bytes) -> None:
    found = read_frame(data, checksum=False)
    assert found is None or re.fullmatch(rb"\x02.{3} *[0-9]+ *[0-9]+\r", data, re.DOTALL)


# Settings and addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "tag", "code"),
    [
        ({}, {}, "scale.settings"),
        ({"host": "a", "port": 1, "line": "/dev/x"}, {}, "scale.settings"),
        ({"host": "a"}, {}, "scale.settings"),
        ({"line": "/dev/x", "baud": 1}, {}, "scale.settings"),
        ({"line": "/dev/x", "checksum": True}, {}, "scale.settings"),
        ({"line": "/dev/x", "format": "continuous", "serial_number": "1"}, {}, "scale.settings"),
        ({"line": "/dev/x"}, {"address": "mass"}, "scale.address"),
        ({"line": "/dev/x"}, {"address": "weight", "unit": "L"}, "scale.type"),
        ({"line": "/dev/x"}, {"address": "tare", "unit": ""}, "scale.type"),
        ({"line": "/dev/x"}, {"address": "weight", "unit": "g", "access": "write"}, "scale.read_only"),
        ({"line": "/dev/x", "format": "continuous"}, {"address": "tare", "type": "bool"}, "scale.continuous"),
    ],
)
def test_what_cannot_be_is_refused_in_words(settings: dict[str, Any], tag: dict[str, object], code: str) -> None:
    made = one_connection(
        "scale", settings, "W-2", {"x": {"connection": "device", "address": "weight", "unit": "g", **tag}}
    )
    with pytest.raises(LinesideError) as refusal:
        ScaleDriver(made.connections["device"], made.tags(), now_s=now_s, utc=str, home=Home())
    assert (refusal.value.code, bool(refusal.value.todo)) == (code, True)


# The simulated scale --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("overload", "overloaded"),
        ("underload", "underloaded"),
        ("not_ready", "not at rest"),
        ("wrong_unit", "'lb'"),
        ("garbage", "unreadable"),
        ("cut", "not answer"),
        ("doubled", "out of order"),
    ],
)
async def test_a_weight_with_something_wrong_is_bad_in_words(scale: Subject, status: str, word: str) -> None:
    async with rig(scale.plant) as made:
        await made.until(lambda: made.good("W-2.weight"))
        await scale.control.bad_quality("W-2.weight", status)
        await made.until(lambda: any(word in one.detail for one in made.seen))
        assert all(one.quality is Quality.BAD for one in made.seen if word in one.detail)
        await scale.control.clear()
        await made.until(lambda: made.good("W-2.weight"))


async def test_a_weight_that_moves_is_uncertain(scale: Subject) -> None:
    async with rig(scale.plant) as made:
        await scale.control.bad_quality("W-2.weight", "unstable")
        await made.until(lambda: any(one.quality is Quality.UNCERTAIN for one in made.seen))
        reading = await made.equipment.read("W-2.weight")
        assert (reading.quality, reading.detail) == (Quality.UNCERTAIN, "The scale is not at rest.")


async def test_over_a_serial_line_it_is_tared_and_zeroed_once_each() -> None:
    sim = SimScale(Faults(("W-2.weight",), WRITABLE))
    async with scale_on_a_line(sim) as line:
        async with rig(scale_plant({"line": line, "baud": 9600, "parity": "even", "bits": 7})) as made:
            await made.until(lambda: made.good("W-2.weight"))
            assert SERIAL_NUMBER in made.equipment.health()["device"].detail
            sim.faults.load_g = 250.0
            await made.until(lambda: any(one.value == 250.0 for one in made.seen))
            for tag in ("tare", "clear_tare", "zero"):
                outcome = await made.equipment.writer(f"W-2.{tag}").write_and_read_back(True)
                assert outcome.result is WriteResult.CONFIRMED, outcome.why
                assert sim.faults.counters[f"W-2.{tag}"] == 1
            refused = await made.equipment.writer("W-2.tare").write_and_read_back(False)
            assert refused.result is WriteResult.REFUSED
            assert (await made.equipment.read("W-2.weight")).value == 0.0
        sim.faults.bad["W-2.weight"] = "unstable"
        async with rig(scale_plant({"line": line}, "weight", "tare")) as made:
            await made.until(lambda: made.good("W-2.tare"))
            outcome = await made.equipment.writer("W-2.tare").write_and_read_back(True)
            assert (outcome.result, outcome.why) == (WriteResult.REFUSED, "The scale is busy or not at rest.")


async def test_another_scale_on_the_line_is_refused() -> None:
    async with (
        scale_on_a_line(SimScale(Faults(("W-2.weight",), WRITABLE))) as line,
        rig(scale_plant({"line": line, "serial_number": "OTHER"}, "weight")) as made,
    ):
        await made.until(lambda: any(SERIAL_NUMBER in one.detail for one in made.seen))
        assert not any(one.good for one in made.seen)


# Scales that answer wrongly -------------------------------------------------------------------------------------------

Answers = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def talking(answers: Answers) -> AsyncIterator[int]:
    """A TCP server that calls `answers(command, writer)`, and once with b"" when somebody connects."""
    serving: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append((task, writer))
        try:
            await answers(b"", writer)
            while True:
                await answers((await reader.readuntil(b"\r\n"))[:-2], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _, writer in serving:
            writer.close()
        await asyncio.gather(*(task for task, _ in serving))


def weight(grams: float) -> bytes:
    return f"S S {grams:>10.2f} g\r\n".encode()


class Liar:
    """Answers rightly, except that `lie` stands where every third answer to SI should be."""

    def __init__(self, lie: bytes) -> None:
        self.asked, self.lie = 0, lie

    async def __call__(self, command: bytes, writer: asyncio.StreamWriter) -> None:
        if command == b"I4":
            writer.write(WHO)
        elif command == b"SI":
            self.asked += 1
            writer.write(self.lie if self.asked % 3 == 2 else weight(RIGHT_G))


async def never_wrong(lie: bytes) -> None:
    liar = Liar(lie)
    async with talking(liar) as port, rig(scale_plant({"host": "127.0.0.1", "port": port}, "weight")) as made:
        await made.until(lambda: made.good("W-2.weight"))
        await made.until(lambda: liar.asked > 6)
        assert not [one for one in made.seen if one.good and one.value != RIGHT_G]


LIES = [
    weight(WRONG_G) + weight(RIGHT_G),  # one that was late, and the right one
    weight(WRONG_G) + WHO + weight(RIGHT_G),  # as if the question after it had been answered
    b"T S     999.00 g\r\n",
    b"TA A    999.00 g\r\n",
    b"S S     999.00\r\n",
    b"S S     999.00 oz\r\n",
    b"S S     99\x00.00 g\r\n",
    b"S A     999.00 g\r\n",
    b"S S     9e9 g\r\n",
    b"\xff" * 5000,
    WHO,
]


@pytest.mark.parametrize("lie", LIES)
async def test_a_reply_that_is_not_to_this_question_is_no_data(lie: bytes) -> None:
    await never_wrong(lie)


async def test_random_replies_never_give_a_good_value() -> None:
    chance = random.Random(7)
    alphabet = [b"S", b"D", b" ", b"9", b".", b"g", b"\r\n", b"\r", b"I4 A", b"\x00", b"\xfe", b"T", b'"']
    asked = 0

    async def answers(command: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        if command == b"I4":
            writer.write(WHO)
        elif command:
            asked += 1
            writer.write(b"".join(chance.choices(alphabet, k=chance.randrange(30))) + b"\r\n")

    async with talking(answers) as port, rig(scale_plant({"host": "127.0.0.1", "port": port}, "weight")) as made:
        await made.until(lambda: asked > 25)
        assert not any(one.good for one in made.seen)


async def test_planted_bug_a_driver_that_believes_the_first_line_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def trusting(self: ScaleDriver, command: str) -> bytes:
        async with self._turn:
            if self._wire is None:
                raise WireLost("away")
            async with asyncio.timeout(1):
                return await self._line(self._wire, command)

    monkeypatch.setattr(ScaleDriver, "_exchange", trusting)
    with pytest.raises(AssertionError):
        await never_wrong(LIES[0])


# Continuous -----------------------------------------------------------------------------------------------------------


async def test_a_continuous_scale_is_heard_between_garbage_and_its_silence_is_bad() -> None:
    sending = asyncio.Event()
    sending.set()
    out = bytearray(frame("  1234", a=0x2D, summed=True))

    async def answers(_command: bytes, writer: asyncio.StreamWriter) -> None:
        while True:
            await sending.wait()
            writer.write(b"\x02x\r" + bytes(out) + bytes(out[:9]) + b"\x02" * 3)
            await writer.drain()
            again = asyncio.Event()
            asyncio.get_running_loop().call_later(0.01, again.set)  # the scale's own pace
            await again.wait()

    async with talking(answers) as port:
        settings = {"host": "127.0.0.1", "port": port, "format": "continuous", "checksum": True}
        async with rig(scale_plant(settings, "weight", "stable", timeout_s=1.0)) as made:
            await made.until(lambda: made.good("W-2.weight") and made.good("W-2.stable"))
            reading = await made.equipment.read("W-2.weight")
            assert (reading.value, reading.unit, reading.quality) == (1234.0, "g", Quality.GOOD)
            out[:] = frame("  1234", a=0x2D, b=0x38, summed=True)
            await made.until(lambda: made.equipment.latest("W-2.stable").value is False)  # type: ignore[union-attr]
            sending.clear()
            await made.until(lambda: made.bad("W-2.weight") and made.bad("W-2.stable"))
            assert not (await made.equipment.read("W-2.weight")).good
            sending.set()
            await made.until(lambda: made.good("W-2.stable"))
