"""What drivers reach (`bench.rates`), and one of ten devices dead or slow, over Modbus and over OPC UA: what a read of
the nine others takes then, against the same ten all well.

`python -m bench.drivers` is the devices: ten real Modbus TCP servers and one OPC UA server, of which ten connections
are ten devices; one that takes connections and never answers, and for either protocol one that takes its time for each
answer. It says their ports and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from statistics import median
from typing import Final, cast

from asyncua import ua
from asyncua.server.server import Server
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from bench import Figure, Say, p99, rates
from bench.box import device_process
from edge.core.plant import Plant
from edge.equipment import Equipment, installed_drivers

DEVICES: Final = 10
ROUNDS: Final = 5
READS: Final = 60
"""Of each device, in each round."""
TIMEOUT_S: Final = 0.5
SLOW_S: Final = 0.2


def measure(say: Say) -> list[Figure]:
    """Rates, memory and times of each driver; then, in each round, all well, one dead and one slow."""
    return [*asyncio.run(rates.measure(say)), *asyncio.run(_measure(say))]


async def _measure(say: Say) -> list[Figure]:
    took_ms: dict[tuple[str, str], list[float]] = {}
    async with device_process("bench.drivers") as found:
        modbus, (opcua, dead, slow_modbus, slow_opcua) = found[:DEVICES], found[DEVICES:]
        for turn in range(ROUNDS):
            say(f"round {turn + 1} of {ROUNDS}")
            for driver, well, slow in (("Modbus", modbus, slow_modbus), ("OPC UA", [opcua] * DEVICES, slow_opcua)):
                for how, tenth in (("well", well[-1]), ("dead", dead), ("slow", slow)):
                    plant = _plant(driver, [*well[:-1], tenth])
                    took_ms.setdefault((driver, how), []).extend(await _reads_ms(plant, tenth_reads=how != "dead"))
    figures = []
    for (driver, how), took in took_ms.items():
        if how != "well":
            well_ms = took_ms[driver, "well"]
            what = f"{driver}: read of one of nine, the tenth {how}"
            figures.append(Figure(f"{what}: median", median(took), "ms", raw=median(well_ms), at_most=1.2))
            figures.append(Figure(f"{what}: 99 %", p99(took), "ms", raw=p99(well_ms), at_most=1.5))
    return figures


def _plant(driver: str, ports: list[int]) -> Plant:
    """A device at each port, all polled."""

    def device(port: int) -> dict[str, object]:
        if driver == "Modbus":
            return {"driver": "modbus", "settings": {"host": "127.0.0.1", "port": port}}
        settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"}
        return {"driver": "opcua", "settings": settings}

    address = "holding 0 float32" if driver == "Modbus" else "ns=2;s=t0"
    return Plant.model_validate(
        {
            "plant": "bench",
            "connections": {
                f"d{n}": {**device(port), "timeout_s": TIMEOUT_S, "poll_s": 0.1} for n, port in enumerate(ports)
            },
            "units": {
                f"U-{n}": {"class": "thing", "tags": {"x": {"connection": f"d{n}", "address": address}}}
                for n in range(len(ports))
            },
        }
    )


async def _reads_ms(plant: Plant, *, tenth_reads: bool) -> list[float]:
    """What each read of the first nine took, while all ten are polled."""
    tags = list(plant.tags())
    others, took_ms, news = tags[: DEVICES - 1], [], asyncio.Event()
    async with Equipment(
        plant, installed_drivers(), now_s=time.monotonic, utc=lambda: "", on_change=news.set
    ) as equipment:
        await equipment.watch(tags)
        while not all((seen := equipment.latest(tag)) and seen.good for tag in (tags if tenth_reads else others)):
            await news.wait()
            news.clear()
            equipment.take_changed()
        for _ in range(READS):
            for tag in others:
                begun_s = time.perf_counter()
                if not (await equipment.read(tag)).good:
                    raise RuntimeError(f"{tag} could not be read")
                took_ms.append((time.perf_counter() - begun_s) * 1000)
    return took_ms


async def _slow(port: int) -> asyncio.Server:
    """A way to the server at this port that gives each answer late."""
    loop = asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, late_s: float) -> None:
        try:
            while data := await reader.read(65_536):
                loop.call_later(late_s, writer.write, data)
        except ConnectionError:
            pass  # the other side left
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, ahead, 0.0), carry(behind, writer, SLOW_S))

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _devices() -> None:
    for name in ("asyncua", "pymodbus.logging"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def heard() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, heard)
    registers = [SimData(0, count=16, values=17_000, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    servers = [
        ModbusTcpServer(SimDevice(id=1, simdata=(bits, bits, registers, registers)), address=("127.0.0.1", 0))
        for _ in range(DEVICES)
    ]
    for server in servers:
        await server.serve_forever(background=True)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    ports = [cast("asyncio.Server", server.transport).sockets[0].getsockname()[1] for server in servers]
    opcua = Server()
    await opcua.init()
    opcua.disable_clock()
    opcua.set_endpoint("opc.tcp://127.0.0.1:0/")
    opcua.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    node = ua.NodeId(ua.String("t0"), ua.Int16(await opcua.register_namespace("bench")))
    await opcua.nodes.objects.add_variable(node, "t0", 37.0, varianttype=ua.VariantType.Double)
    async with opcua:
        assert opcua.bserver is not None
        silent = await asyncio.start_server(silence, "127.0.0.1", 0)
        more = [silent, await _slow(ports[-1]), await _slow(opcua.bserver.port)]
        ports += [opcua.bserver.port, *(one.sockets[0].getsockname()[1] for one in more)]
        sys.stdout.write(" ".join(map(str, ports)) + "\n")
        sys.stdout.flush()
        await ended.wait()
        for one in more:
            one.close()
    for server in servers:
        await server.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(_devices())
