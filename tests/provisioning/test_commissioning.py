"""From an unknown device to a tag that reads: against real servers, with values in every odd order."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shlex
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from asyncua import ua
from hypothesis import given, settings
from hypothesis import strategies as st
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.pdu.device import ModbusDeviceIdentification
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from typer.testing import CliRunner

from drivers import opcua_explorer
from drivers.opcua_trust import fingerprint
from drivers.sim.control import Faults, SimControl
from drivers.sim.scale import SERIAL_NUMBER, WRITABLE, SimScale, scale_on_a_line
from edge.__main__ import app
from edge.commissioning import station_of
from edge.config import read_config
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from edge.core.terms import Quality
from edge.explorer import Seen, Where, explorer_of
from provisioning.bind import Bound, Wanted, bind, read_settings, told
from provisioning.device import init_device
from provisioning.equipment import Station
from provisioning.probe import Device
from tests.contract.certificates import make
from tests.contract.conformance import simulated
from tests.contract.wire import serial_cable

SERVER = make("server")


@pytest.fixture(scope="module")
def reactor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    folder = tmp_path_factory.mktemp("reactor")
    SERVER.write(folder / "server.der", folder / "server.key")
    with simulated("reactor", folder, "--certificate", str(folder / "server.der")) as made:
        yield made


@pytest.fixture
def pump(tmp_path: Path) -> Iterator[tuple[int, SimControl]]:
    with simulated("pump", tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    """With nothing on it: the tests here only look at it."""
    with simulated("scale", tmp_path_factory.mktemp("scale")) as made:
        yield made


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("drivers.opcua_trust.OWN_BITS", 2048)
    return init_device(tmp_path / "box", box="BOX-7").folder


@pytest.fixture
def station(box: Path) -> Station:
    return station_of(read_config(box))


class Foreign:
    """The registers of a Modbus device that somebody else made."""

    def __init__(self) -> None:
        self.shown: dict[int, int] = {}
        self.told: list[tuple[int, list[int]]] = []
        self.takes: Callable[[int, list[int]], list[int]] = lambda _at, given: given
        self.looked: Callable[[int], None] = lambda _at: None

    async def act(
        self, function: int, _start: int, address: int, _count: int, registers: list[int], given: list[Any] | None
    ) -> None:
        if function not in (3, 4, 6, 16):
            return
        if given is None:
            self.looked(address)
        for at, word in self.shown.items():
            registers[at] = word
        if given is not None:
            self.told.append((address, list(given)))
            given[:] = self.takes(address, list(given))
            self.shown |= dict(enumerate(given, address))

    def show(self, at: int, data: bytes) -> None:
        """Bytes, as they lie in the device."""
        for n, (word,) in enumerate(struct.iter_unpack(">H", data)):
            self.shown[at + n] = word


@asynccontextmanager
async def foreign(device: int = 1) -> AsyncIterator[tuple[int, Foreign]]:
    registers = [SimData(0, count=40, values=0x5A5A, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    it = Foreign()
    simulated_device = SimDevice(id=device, simdata=(bits, bits, registers, registers), action=it.act)
    named = ModbusDeviceIdentification(info_name={"VendorName": "Pumps & Co\x07", "ProductCode": "P7"})
    server = ModbusTcpServer(simulated_device, address=("127.0.0.1", 0), identity=named)
    await server.serve_forever(background=True)
    try:
        yield cast("asyncio.Server", server.transport).sockets[0].getsockname()[1], it
    finally:
        await server.shutdown()


def lain(value: float, form: str, order: str) -> bytes:
    """A number as a device of this kind keeps it, made without the driver's code."""
    data = bytes.fromhex(f"{value:0{form[3:]}}") if form.startswith("bcd") else struct.pack(">" + form, value)
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    words = words[::-1] if order in ("CDAB", "DCBA") else words
    return b"".join(word[::-1] if order in ("BADC", "DCBA") else word for word in words)


def quiet(_text: str) -> None:
    pass


# Looking ----------------------------------------------------------------------------------------------------------


LONG_S = 60.0
"""Nothing here is awaited so long; a busy machine is not taken for a silent device."""


async def looked(driver: str, port: int) -> list[Device]:
    explorer = explorer_of(driver)
    assert explorer is not None
    return [Device(driver, seen) for seen in await explorer.probe(Where("127.0.0.1", port, timeout_s=LONG_S), quiet)]


async def test_a_modbus_device_is_told_from_unit_ids_behind_which_there_is_nothing() -> None:
    async with foreign(device=3) as (port, _):
        (found,) = await looked("modbus", port)
    assert (found.driver, found.seen.settings) == ("modbus", {"host": "127.0.0.1", "port": port, "device": 3})
    assert {("holding", "answers"), ("coil", "answers"), ("product", "P7")} <= set(found.seen.facts)
    assert dict(found.seen.facts)["maker"] == "Pumps & Co?"
    assert '--tag UNIT.TAG --address "holding 0" --reads VALUE --then VALUE' in found.next[0]


async def test_a_scale_says_its_serial_number_and_its_weight(scale: tuple[int, SimControl]) -> None:
    port, _ = scale
    (found,) = await looked("scale", port)
    assert (found.driver, dict(found.seen.settings)["serial_number"]) == ("scale", "B021002593")
    assert dict(found.seen.facts)["shows"].endswith("0.00 g")


@pytest.mark.parametrize("checksum", [False, True])
async def test_a_scale_that_sends_by_itself_is_heard(checksum: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.scale_explorer.LISTEN_S", LONG_S)
    frame = b"\x02" + bytes([0b0101100, 0b0110000, 0b0100000]) + b"  1234" + b"     0" + b"\r"
    frame += bytes([-sum(frame) & 0x7F]) if checksum else b""
    assert len(frame) == 17 + checksum

    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            writer.write(frame[9:] + frame * 3)
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        (found,) = await looked("scale", port)
    await asyncio.gather(*(task for task in serving if task is not None))
    more = {"checksum": True} if checksum else {}
    assert found.seen.settings == {"host": "127.0.0.1", "port": port, "format": "continuous", **more}


async def test_devices_on_a_serial_line_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.modbus_explorer.LINE_UNITS", (1,))
    monkeypatch.setattr("drivers.modbus_explorer.LINE_ANSWER_S", LONG_S)
    modbus, scale = explorer_of("modbus"), explorer_of("scale")
    assert modbus is not None
    assert scale is not None
    with serial_cable() as (ours, its), simulated("pump", tmp_path, "--serial", its):
        (seen,) = await modbus.probe(Where(line=ours, timeout_s=LONG_S), quiet)
    assert (seen.settings["line"], seen.settings["device"]) == (ours, 1)
    assert ("holding", "answers") in seen.facts
    async with scale_on_a_line(SimScale(Faults(("W-2.weight",), WRITABLE))) as line:
        (seen,) = await scale.probe(Where(line=line, timeout_s=LONG_S), quiet)
    assert (seen.settings["line"], seen.settings["serial_number"]) == (line, SERIAL_NUMBER)


def test_a_probe_looks_at_one_place() -> None:
    def refused(*words: str) -> str:
        error = CliRunner().invoke(app, ["equipment", "probe", *words]).exception
        return getattr(error, "code", "")

    assert refused() == "equipment.no_place"
    assert refused("127.0.0.1", "--line", "/dev/ttyUSB0") == "equipment.no_place"
    assert refused("--line", "/dev/there-is-none") == "equipment.no_line"
    assert refused("192.0.2.0/24") == "equipment.unknown_host"
    assert refused("127.0.0.1", "--driver", "telex") == "equipment.no_explorer"


def test_where_nobody_answers_that_is_said() -> None:
    found = CliRunner().invoke(app, ["equipment", "probe", "127.0.0.1", "--port", "9", "--timeout", "1"])
    assert found.exit_code == 0, found.exception
    assert found.stdout.startswith("Nothing answered at 127.0.0.1.")
    machine = CliRunner().invoke(app, ["equipment", "probe", "127.0.0.1", "--port", "9", "--json"])
    assert json.loads(machine.stdout) == {"found": []}


ACK = b"ACKF" + struct.pack("<6I", 28, 0, 65536, 65536, 0, 0)
HOSTILE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "noise": lambda _asked, noise: noise,
    "an echo": lambda asked, _noise: asked,
    "no end": lambda asked, noise: asked[:4] + noise,
    "an opened channel with noise in it": lambda asked, noise: (
        ACK if asked[:3] == b"HEL" else b"OPNF" + struct.pack("<I", 8 + len(noise)) + noise
    ),
    "Modbus frames with noise in them": lambda asked, noise: (
        asked[:4] + struct.pack(">H", len(noise) + 1) + asked[6:7] + noise
    ),
    "the right function with noise behind it": lambda asked, noise: (
        asked[:4] + struct.pack(">H", len(noise) + 2) + asked[6:8] + noise
    ),
    "a scale of noise": lambda _asked, noise: b'I4 A "' + noise + b'"\r\nS S ' + noise + b"\r\n",
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_no_answer_breaks_a_probe(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bytes from whoever listens: findings or none, never an error, no task left."""
    monkeypatch.setattr("drivers.scale_explorer.LISTEN_S", 0.01)
    chance = random.Random(kind)
    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with suppress(ConnectionError):
            asked = await reader.read(4096)
            for _ in range(4):
                writer.write(HOSTILE[kind](asked, chance.randbytes(chance.randrange(1, 200))))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        where = Where("127.0.0.1", server.sockets[0].getsockname()[1], timeout_s=0.05)
        for driver in ("opcua", "modbus", "scale"):
            explorer = explorer_of(driver)
            assert explorer is not None
            for seen in await explorer.probe(where, quiet):
                assert all(text.isprintable() for fact in seen.facts for text in fact)
                assert Device(driver, seen).as_json()["next"]
    await asyncio.gather(*(task for task in serving if task is not None))


def test_what_a_server_says_of_itself_is_shown_and_never_run() -> None:
    endpoint = ua.EndpointDescription()
    endpoint.EndpointUrl = 'opc.tcp://elsewhere:1/$(reboot)"; rm'
    endpoint.Server.ApplicationUri = "urn:\x1b[2J\n" + "x" * 9000
    endpoint.ServerCertificate = b"\x30\x82 no certificate"
    endpoint.SecurityMode = ua.MessageSecurityMode.SignAndEncrypt
    endpoint.SecurityPolicyUri = "http://x#\x07" + "y" * 900
    seen = opcua_explorer.told_by("opc.tcp://10.0.0.1:4840", [endpoint])
    assert seen.settings == {"endpoint": "opc.tcp://10.0.0.1:4840/"}
    assert all(text.isprintable() and len(text) <= 300 for fact in seen.facts for text in fact)
    assert dict(seen.facts)["certificate"] == "cannot be read"


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.one_of(st.booleans(), st.integers(0, 2**40), st.text(st.characters(codec="ascii"), min_size=1, max_size=20)))
def test_what_a_probe_says_to_type_is_read_as_it_was_meant(value: bool | int | str) -> None:
    words = shlex.split(Device("scale", Seen("It.", {"x": value})).next[0])
    assert read_settings([words[words.index("--set") + 1]]) == {"x": value}


# Binding ----------------------------------------------------------------------------------------------------------


def modbus(port: int, **more: Any) -> Wanted:
    return Wanted(
        "pump",
        "modbus",
        {"host": "127.0.0.1", "port": port},
        poll_s=0.05,
        timeout_s=LONG_S,
        tag="P-1.speed",
        unit_class="pump",
        who="eva",
        **{"address": "holding 10", "wait_s": LONG_S, "more": {"unit": "mL/min", "low": -500, "high": 5000}, **more},
    )


WAYS = [
    ("float32", "f", "ABCD", 1.0),
    ("float32", "f", "CDAB", 1.0),
    ("float32", "f", "BADC", 1.0),
    ("float32", "f", "DCBA", 1.0),
    ("float64", "d", "CDAB", 1.0),
    ("int32", "i", "DCBA", 0.01),
    ("bcd32", "bcd8", "CDAB", 0.1),
    ("int16", "h", "BADC", 0.1),
]


@pytest.mark.parametrize(("kind", "form", "order", "factor"), WAYS)
async def test_the_way_is_found_that_fits_twice(
    station: Station, kind: str, form: str, order: str, factor: float
) -> None:
    values = (37.25, 1234.5) if factor == 1.0 else (-37.2 if form in "ih" else 37.2, 1234.5)
    raw = [value if factor == 1.0 else round(value / factor) for value in values]
    async with foreign() as (port, device):
        device.show(10, lain(raw[0], form, order))

        def said(text: str) -> None:
            if "waiting for" in text:
                device.show(10, lain(raw[1], form, order))

        bound = await bind(station, modbus(port, reads=str(values[0]), then=str(values[1])), None, said)
    scale = "" if factor == 1.0 else f" x{factor:g}"
    assert bound.address == f"holding 10 {kind}{'' if order == 'ABCD' else ' ' + order}{scale}"
    assert bound.reading is not None
    assert bound.reading.value == pytest.approx(values[1])
    tag = read_plant(station.config.plant.read_bytes(), "").tag("P-1.speed")
    assert tag is not None
    assert (tag.address, tag.unit, tag.low, tag.high) == (bound.address, "mL/min", -500, 5000)


async def test_what_fits_once_proposes_nothing(station: Station) -> None:
    """Planted: a register that reads as told once by chance, and is another thing."""
    before = station.config.plant.read_bytes()
    async with foreign() as (port, device):
        device.show(10, struct.pack(">f", 37.25))
        wanted = modbus(port, reads="37.25")
        assert await refusal(station, wanted) == "equipment.once_only"
        assert await refusal(station, replace(wanted, then="37.25")) == "equipment.once_only"
        assert await refusal(station, replace(wanted, reads="11.5", wait_s=0.1)) == "equipment.no_way"
        assert await refusal(station, replace(wanted, then="40", wait_s=0.1)) == "equipment.no_way"
        assert await refusal(station, replace(wanted, reads="")) == "equipment.how_it_lies"
        assert await refusal(station, replace(wanted, reads="warm")) == "equipment.number"
    assert station.config.plant.read_bytes() == before


async def refusal(station: Station, wanted: Wanted) -> str:
    with pytest.raises(LinesideError) as refused:
        await bind(station, wanted, None, quiet)
    return refused.value.code


async def test_ways_that_cannot_be_told_apart_are_shown(station: Station) -> None:
    async with foreign() as (port, device):
        device.show(10, b"\x01\x74\0\0\0\0\0\0")

        def said(text: str) -> None:
            if "waiting for" in text:
                device.show(10, struct.pack(">H", 501))

        wanted = modbus(port, reads="37.2", then="50.1")
        with pytest.raises(LinesideError) as refused:
            await bind(station, wanted, None, said)
        assert refused.value.code == "equipment.several_ways"
        assert "holding 10 int16 x0.1; holding 10 int32 CDAB x0.1" in refused.value.what
        device.show(10, struct.pack(">H", 372))
        with pytest.raises(LinesideError) as refused:
            await bind(station, replace(wanted, chosen="holding 10 float32"), None, said)
        assert refused.value.code == "equipment.does_not_fit"
        device.show(10, struct.pack(">H", 372))
        bound = await bind(station, replace(wanted, chosen="holding 10 uint16 x0.1"), None, said)
        assert bound.reading is not None
        assert bound.reading.value == pytest.approx(50.1)


async def test_what_is_asked_at_the_terminal_makes_the_tag(station: Station) -> None:
    answers = {
        "Class of the new unit": "pump", "Unit of measure": "mL/min", "Lowest": "0", "Highest": "100",
        "May it be written": "yes", "Why these": "the tubing", "What does the device show now?": "12.5",
        "Wait until it shows": "20.5", "Several ways": "1",
    }  # fmt: skip
    asked = []
    async with foreign() as (port, device):
        device.show(10, lain(12.5, "f", "CDAB"))

        async def ask(question: str) -> str:
            asked.append(question)
            if question.startswith("Wait until"):
                device.show(10, lain(20.5, "f", "CDAB"))
            return next(answer for start, answer in answers.items() if question.startswith(start))

        wanted = replace(modbus(port), unit_class="", more={})
        bound = await bind(station, wanted, ask, quiet)
    assert bound.address == "holding 10 float32 CDAB"
    tag = read_plant(station.config.plant.read_bytes(), "").tag("P-1.speed")
    assert tag is not None
    assert (tag.access, tag.low, tag.high, tag.why) == ("write", 0, 100, "the tubing")
    assert len(asked) == 8


async def test_a_whole_address_is_read_before_it_is_written_down(station: Station) -> None:
    before = station.config.plant.read_bytes()
    async with foreign() as (port, device):
        device.show(10, struct.pack(">f", 37.25))
        wanted = modbus(port, address="holding 10 float32")
        assert await refusal(station, replace(wanted, reads="38.0")) == "equipment.not_that"
        assert await refusal(station, replace(wanted, address="holding 60 float32")) == "equipment.not_real"
        assert await refusal(station, replace(wanted, more={"unit": "mL/min", "high": 30})) == "equipment.not_real"
        assert await refusal(station, replace(wanted, more={"unit": "mlmin"})) == "unit.unknown"
        assert await refusal(station, replace(wanted, more={"access": "write"})) == "plant.unbounded"
        assert await refusal(station, replace(wanted, address="holding ten")) == "modbus.address"
        assert await refusal(station, replace(wanted, tag="speed")) == "equipment.tag_name"
        assert await refusal(station, replace(wanted, unit_class="")) == "equipment.not_said"
        assert await refusal(station, replace(wanted, driver="", settings={})) == "equipment.no_connection"
        assert await refusal(station, replace(wanted, driver="telex")) == "equipment.no_driver"
        assert await refusal(station, replace(wanted, device="no pump")) == "document.wrong_form"
        assert station.config.plant.read_bytes() == before
        assert (await bind(station, replace(wanted, reads="37.25"), None, quiet)).address == wanted.address
        assert await refusal(station, wanted) == "equipment.tag_exists"
        other = replace(wanted, tag="P-1.other", settings={"host": "127.0.0.1", "port": 1})
        assert await refusal(station, other) == "equipment.other_connection"
        again = replace(wanted, driver="", settings={}, tag="P-1.run", address="coil 3", more={})
        assert (await bind(station, again, None, quiet)).type == "bool"
        device.show(20, lain(21.5, "f", "CDAB"))
        odd = replace(wanted, driver="", settings={}, tag="P-1.odd", address="holding 20 float32", more={})
        assert "wrong word order" in told(await bind(station, odd, None, quiet))


async def test_somebody_else_changed_the_file_meanwhile(station: Station) -> None:
    file = station.config.plant
    async with foreign() as (port, device):
        device.show(10, lain(1.5, "f", "DCBA"))

        def said(text: str) -> None:
            if "waiting for" in text:
                device.show(10, lain(2.5, "f", "DCBA"))
                file.write_text(file.read_text() + "# by another hand\n")

        with pytest.raises(LinesideError) as refused:
            await bind(station, modbus(port, reads="1.5", then="2.5"), None, said)
    assert refused.value.code == "equipment.plant_changed"
    assert file.read_text().endswith("# by another hand\n")
    assert "P-1" not in read_plant(file.read_bytes(), "").units


PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "commission-equipment.md").read_text(encoding="utf-8")
BLOCKS = [block.splitlines() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)]


def typed(command: str, changes: dict[str, str]) -> list[str]:
    """A command of the page, for the places of this test."""
    for there, here in changes.items():
        command = command.replace(there, here)
    words = shlex.split(command)
    assert words[:2] == ["lineside", "equipment"]
    return words[1:]


def done(words: list[str], answers: str = "") -> str:
    result = CliRunner().invoke(app, words, input=answers)
    assert result.exit_code == 0, (words, result.output, result.exception)
    return result.stdout


def test_the_page_leads_from_an_unknown_server_to_its_first_value(box: Path, reactor: tuple[int, SimControl]) -> None:
    port, _ = reactor
    here = {"reactor.site:4840": f"127.0.0.1:{port}", "reactor.site --port 4840": f"127.0.0.1 --port {port}"}
    look, connect, browse, tag = (typed(command, here | {"--box box": f"--box {box}"}) for command in BLOCKS[1])
    (found,) = json.loads(done([*look, "--timeout", "60", "--json"]))["found"]
    facts = dict(found["facts"])
    assert (facts["SHA-256"], facts["application"]) == (fingerprint(SERVER.certificate), "urn:freeopcua:python:server")
    assert ["offers", "Basic256Sha256 SignAndEncrypt"] in found["facts"]
    assert " ".join(["lineside", *connect]).startswith(found["next"][0].replace("NAME", "reactor"))
    connect += ["--timeout", "60"]  # of the connection: a busy machine is not taken for a silent server
    first = CliRunner().invoke(app, connect)
    assert getattr(first.exception, "code", "") == "opcua.untrusted"
    assert read_plant((box / "plant.yaml").read_bytes(), "").connections == {}
    wrong = CliRunner().invoke(app, [*connect, "--fingerprint", "ab" * 32])
    assert getattr(wrong.exception, "code", "") == "opcua.other_fingerprint"
    assert "Next: lineside equipment browse reactor" in done([*connect, "--ask"], "yes\n")
    assert tag[tag.index("--address") + 1] in done(browse)
    told = json.loads(done([*tag, "--json"]))
    assert (told["tag"], told["unit"], told["quality"]) == ("BR-1.temperature", "degC", "good")
    not_mine = CliRunner().invoke(app, [*(word.replace("BR-1.", "BR-1.t") for word in tag), "--access", "write"])
    assert getattr(not_mine.exception, "code", "") == "equipment.not_writable"


async def test_the_page_leads_from_an_unknown_pump_to_a_signed_report(
    box: Path, pump: tuple[int, SimControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = pump
    out = box.parent / "commissioning.json"
    here = {"pump.site --port 502": f"127.0.0.1 --port {port}", "pump.site": "127.0.0.1", "port=502": f"port={port}"}
    here |= {"--box box": f"--box {box}", " box/": f" {box}/", "commissioning.json": str(out)}
    look, first, second, watched, wrote, report, verify = (typed(one, here) for one in BLOCKS[0] + BLOCKS[2])
    facts = dict(
        json.loads(await asyncio.to_thread(done, [*look, "--json", "--driver", "modbus", "--timeout", "60"]))["found"][
            0
        ]["facts"]
    )
    assert facts["holding"] == "answers"
    await shows(port, 12.5)
    loop, waiting = asyncio.get_running_loop(), asyncio.Event()

    def say(text: str) -> None:
        if "waiting for" in text:
            loop.call_soon_threadsafe(waiting.set)

    monkeypatch.setattr("edge.commissioning._say", say)
    binding = asyncio.create_task(asyncio.to_thread(done, [*first, "--wait", "60", "--timeout", "60"]))
    await asyncio.wait({asyncio.create_task(waiting.wait()), binding}, return_when=asyncio.FIRST_COMPLETED)
    await shows(port, 20.0)
    assert "P-1.speed_setpoint = 20 mL/min, good; holding 0 float32 at pump" in await binding
    for words, says in (
        (second, "P-1.speed = "),
        (watched, "P-1.speed_setpoint"),
        ([*wrote, "--yes"], "the device did it"),
        (report, "2 tags were read"),
        (verify, "Everything is as the plant file says."),
    ):
        assert says in await asyncio.to_thread(done, words), words
    assert out.with_suffix(".md").read_text() == await asyncio.to_thread(done, verify)


async def shows(port: int, value: float) -> None:
    """Somebody turns the knob at the pump."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=LONG_S)
    assert await client.connect()
    await client.write_registers(0, list(struct.unpack(">2H", struct.pack(">f", value))))
    client.close()


async def test_a_balance_becomes_a_tag_with_its_own_type(station: Station, scale: tuple[int, SimControl]) -> None:
    port, _ = scale
    wanted = Wanted(
        "scale", "scale", {"host": "127.0.0.1", "port": port}, timeout_s=LONG_S, tag="W-2.weight", address="weight",
        unit_class="balance", more={"unit": "g", "low": -50, "high": 6100}, reads="0.00",
    )  # fmt: skip
    bound: Bound = await bind(station, wanted, None, quiet)
    assert bound.reading is not None
    assert (bound.type, bound.reading.quality) == ("float", Quality.GOOD)
    stable = await bind(station, replace(wanted, tag="W-2.stable", address="stable", more={}, reads=""), None, quiet)
    assert stable.type == "bool"
