"""1,000 OPC UA tags and 500 Modbus values at 1 Hz into head and history: what the real runtime takes of a core.

`python -m bench.tags` is the device: an OPC UA server of 1,000 doubles that all change each second, and a Modbus
server of 500 32-bit floats. It says its two ports and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, cast

from asyncua import ua
from asyncua.server.server import Server
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from bench import Figure, Say
from bench.box import ANA, device_process, running
from edge.history import PACKED, HistoryReader
from provisioning.device import init_device

OPCUA_TAGS: Final = 1_000
MODBUS_TAGS: Final = 500
SETTLE_S: Final = 15.0
MEASURE_S: Final = 40.0
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


def measure(say: Say) -> list[Figure]:
    """The share of a core over forty seconds; no screen is open and no batch runs."""
    with TemporaryDirectory(prefix="bench-") as folder:
        return asyncio.run(_measure(Path(folder), say))


async def _measure(folder: Path, say: Say) -> list[Figure]:
    async with device_process("bench.tags") as (opcua_port, modbus_port):
        box = folder / "box"
        init_device(box, box="BOX-1", people=[ANA])
        (box / "lineside.toml").write_text(f'box = "BOX-1"\ndesk_socket = "{folder / "desk.sock"}"\n')
        (box / "plant.yaml").write_text(_plant(opcua_port, modbus_port))
        async with running(folder, "edge", "run", "--box", str(box)) as process:
            say("connecting and settling")
            await asyncio.sleep(SETTLE_S)
            say("measuring")
            before_s, begun_s = _cpu_s(process.child.pid), time.monotonic()
            await asyncio.sleep(MEASURE_S)
            share = (_cpu_s(process.child.pid) - before_s) / (time.monotonic() - begun_s) * 100
            memory = process.memory
        with HistoryReader(box / "state" / "history.db") as reader:
            infos = reader.tags()
            samples, windows = sum(i.samples for i in infos), reader.closed()
        follower = await _follower(folder, box, say)
    rate = samples / ((windows[-1] - windows[0]) / 1e6 + SETTLE_S + MEASURE_S)
    return [
        Figure("runtime, 1,000 OPC UA tags and 500 Modbus values at 1 Hz, of a core", share, "%", at_most=12),
        Figure("   values stored", rate, "/s"),
        Figure("   that one core keeps up with, by that share", rate / share * 100, "/s"),
        Figure("   resident", memory.resident, "MiB", at_most=110),
        Figure("follower while it packs their windows, the most it held", follower, "MiB", at_most=90),
    ]


async def _follower(folder: Path, box: Path, say: Say) -> float:
    say("the follower packs")
    async with running(folder, "edge", "follow", "--box", str(box)) as process:
        while True:
            await asyncio.sleep(1)
            with HistoryReader(box / "state" / "history.db") as reader:
                if all(state == PACKED for state in reader.states()):
                    return process.memory.peak


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _plant(opcua_port: int, modbus_port: int) -> str:
    opcua = "".join(
        f'      t{n}: {{connection: plc, address: "ns=2;s=t{n}", unit: degC, resolution: 0.01}}\n'
        for n in range(OPCUA_TAGS)
    )
    modbus = "".join(
        f'      m{n}: {{connection: io, address: "input {n * 2} float32", resolution: 0.01}}\n'
        for n in range(MODBUS_TAGS)
    )
    return (
        "plant: bench\nconnections:\n"
        f"  plc:\n    driver: opcua\n    settings: {{endpoint: 'opc.tcp://127.0.0.1:{opcua_port}/', security: none}}\n"
        "    poll_s: 1.0\n"
        f"  io:\n    driver: modbus\n    settings: {{host: 127.0.0.1, port: {modbus_port}}}\n    poll_s: 1.0\n"
        f"units:\n  U-1:\n    class: cell\n    tags:\n{opcua}  U-2:\n    class: cell\n    tags:\n{modbus}"
    )


async def _serve() -> None:
    for name in ("asyncua", "pymodbus.logging"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(0, lambda: None if os.read(0, 4096) else ended.set())
    server = Server()
    await server.init()
    server.disable_clock()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("bench")
    nodes = [ua.NodeId(ua.String(f"t{n}"), ua.Int16(space)) for n in range(OPCUA_TAGS)]
    for node in nodes:
        await server.nodes.objects.add_variable(node, str(node.Identifier), 37.0, varianttype=ua.VariantType.Double)
    registers = [SimData(0, count=2 * MODBUS_TAGS, values=17_000, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    chance = random.Random(1)

    async def act(_f: int, _s: int, address: int, count: int, shown: list[int], given: Any) -> None:
        if given is None:
            for n in range(address + 1, min(address + count, len(shown)), 2):
                shown[n] = chance.randrange(65_536)  # the lower word of each float

    modbus = ModbusTcpServer(
        SimDevice(id=1, simdata=(bits, bits, registers, registers), action=act), address=("127.0.0.1", 0)
    )
    await modbus.serve_forever(background=True)
    async with server:
        assert server.bserver is not None
        changing = asyncio.create_task(_change(server, nodes, chance))
        port = cast("asyncio.Server", modbus.transport).sockets[0].getsockname()[1]
        sys.stdout.write(f"{server.bserver.port} {port}\n")
        sys.stdout.flush()
        await ended.wait()
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
    await modbus.shutdown()  # type: ignore[no-untyped-call]


async def _change(server: Server, nodes: list[ua.NodeId], chance: random.Random) -> None:
    while True:
        now: Any = datetime.now(UTC)
        for node in nodes:
            value = ua.DataValue(ua.Variant(37 + chance.gauss(0, 0.3), ua.VariantType.Double), SourceTimestamp=now)
            await server.write_attribute_value(node, value)
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    asyncio.run(_serve())
