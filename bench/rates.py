"""How fast the drivers read, beside the bare libraries; what goes into history; memory and time of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

from asyncua.ua import NodeId
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.uaerrors import UaError
from pymodbus.client import AsyncModbusTcpClient

from bench import Figure, Say
from bench.box import device_process
from bench.connection import good, plant_of, reading
from bench.tags import MODBUS_TAGS, OPCUA_TAGS
from drivers.modbus import ModbusDriver
from drivers.opcua import OpcUaDriver
from edge.core.plant import Plant
from edge.core.terms import Reading
from edge.equipment import Equipment, Home, OneTask, installed_drivers
from edge.history import History, HistoryReader

ROUNDS: Final = 15
POINTS: Final = 1_000
"""Registers of the device, each a point."""
CONNECTIONS: Final = 4
FLOOD_S: Final = 15.0
CUTS: Final = 15


async def measure(say: Say) -> list[Figure]:
    """All of it, against one device process."""
    async with device_process("bench.tags") as (opcua, modbus):
        say("batch reads, OPC UA")
        ours, bare = await _opcua_reads(opcua)
        figures = [Figure("batch read of 1,000 OPC UA values, against asyncua", ours, "/s", raw=bare, at_least=0.8)]
        say("batch reads, Modbus")
        ours, bare = await _modbus_reads(modbus)
        figures.append(Figure("batch read of 500 Modbus floats, against pymodbus", ours, "/s", raw=bare, at_least=0.8))
        for driver, port in (("opcua", opcua), ("modbus", modbus)):
            say(f"memory and connecting, {driver}")
            first, second = await _memory(driver, port)
            connect_ms, again_ms = await _connecting(driver, port)
            figures += [
                Figure(f"{driver}: memory of the first connection, its library with it", first, "MiB"),
                Figure(f"{driver}: memory of one more", second, "MiB"),
                Figure(f"{driver}: connected and read, median", connect_ms, "ms"),
                Figure(f"{driver}: connection cut, read again, median", again_ms, "ms"),
            ]
    async with device_process("bench.points") as (points,):
        say("points into history")
        rate, stored, core = await _points(points)
    figures += [
        Figure("Modbus points read while all registers are polled as often as may be", rate, "/s"),
        Figure("   of them in the file", stored, "%"),
        Figure("   of a core for that", core, "%"),
        Figure("Modbus points into history that one core keeps up with", rate / core * stored, "/s", at_least=50_000),
    ]
    return figures


@asynccontextmanager
async def _connected(driver: type[Any], plant: Plant) -> AsyncIterator[Any]:
    made: OneTask = driver(
        plant.connections["c0"], plant.tags(), now_s=time.monotonic, utc=lambda: "", home=Home(synced=lambda: True)
    )
    up = asyncio.Event()
    await made.start(lambda _tag, _reading: None, lambda health: up.set() if health.connected else None)
    try:
        await up.wait()
        yield made
    finally:
        await made.stop()


async def _rates(count: int, ours: Callable[[], Any], bare: Callable[[], Any]) -> tuple[float, float]:
    """Values a second, interleaved, each the median of its rounds."""
    took: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(ROUNDS):
        for which, read in enumerate((ours, bare)):
            begun_s = time.perf_counter()
            await read()
            took[which].append(count / (time.perf_counter() - begun_s))
    return median(took[0]), median(took[1])


async def _opcua_reads(port: int) -> tuple[float, float]:
    plant = plant_of("opcua", port, OPCUA_TAGS)
    async with _connected(OpcUaDriver, plant) as driver:
        client, names = driver._client, list(plant.tags())  # noqa: SLF001  the read behind `watch`, alone
        nodes = [NodeId.from_string(f"ns=2;s=t{n}") for n in range(OPCUA_TAGS)]
        await driver._read(client, names[:1])  # noqa: SLF001

        async def bare() -> None:
            for start in range(0, OPCUA_TAGS, 100):
                batch = nodes[start : start + 100]
                found = await client.uaclient.session.read_attributes(batch, AttributeIds.Value)
                if not all(one.StatusCode.is_good() for one in found):
                    raise UaError("bench")

        return await _rates(OPCUA_TAGS, lambda: driver._read(client, names), bare)  # noqa: SLF001


async def _modbus_reads(port: int) -> tuple[float, float]:
    plant = plant_of("modbus", port, MODBUS_TAGS)
    async with _connected(ModbusDriver, plant) as driver:
        await driver.watch(list(plant.tags()))
        client = AsyncModbusTcpClient("127.0.0.1", port=port)
        await client.connect()

        async def ours() -> None:
            for block in list(driver._blocks):  # noqa: SLF001  one poll, alone
                await driver._block_readings(block)  # noqa: SLF001

        async def bare() -> None:
            kind = client.DATATYPE.FLOAT32
            for start in range(0, 2 * MODBUS_TAGS, 124):
                found = await client.read_input_registers(start, count=min(124, 2 * MODBUS_TAGS - start))
                client.convert_from_registers(found.registers, kind)

        try:
            return await _rates(MODBUS_TAGS, ours, bare)
        finally:
            client.close()


async def _points(port: int) -> tuple[float, float, float]:
    """Values a second while every register is read as often as a poll may be; how many of them the file holds; the
    share of a core that takes."""
    plant = plant_of("points", port, POINTS, connections=CONNECTIONS, poll_s=0.02)
    with TemporaryDirectory(prefix="bench-", dir="build") as folder:
        file = Path(folder) / "history.db"
        history = History(file, plant, now_us=lambda: time.time_ns() // 1000)

        async def submit(_command: object) -> None:
            return None

        taken, count, all_there = 0, len(plant.tags()), asyncio.Event()

        def take(tag: str, reading: Reading) -> None:
            nonlocal taken
            taken += reading.good
            if taken >= count:
                all_there.set()
            history.take(tag, reading)

        end = asyncio.Event()
        storing = asyncio.create_task(history.run(submit, dict, lambda: True, end))
        async with Equipment(
            plant, installed_drivers(), now_s=time.monotonic, utc=lambda: "", on_reading=take
        ) as equipment:
            await equipment.watch(plant.tags())
            await all_there.wait()
            before, begun_s, cpu_s = taken, time.perf_counter(), time.process_time()
            await asyncio.sleep(FLOOD_S)
            took_s, used_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
            points = taken - before
        end.set()
        await storing
        with HistoryReader(file) as reader:
            stored = sum(one.samples for one in reader.tags())
    return points / took_s, min(stored / taken, 1.0) * 100, used_s / took_s * 100


async def _memory(driver: str, port: int) -> tuple[float, float]:
    """MiB of the first connection and of one more, in a process that has the port alone."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.connection", driver, str(port)), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    first, second = (float(one) for one in said.split())
    return first, second


async def _connecting(driver: str, port: int) -> tuple[float, float]:
    """How long until the first good reading, and after a cut of the connection until the next."""
    first_ms, again_ms = [], []
    for _ in range(3):
        begun_s = time.perf_counter()
        async with _cable(port) as (through, cut), reading(driver, through) as one:
            await good(*one)
            first_ms.append((time.perf_counter() - begun_s) * 1000)
            for _ in range(CUTS // 3):
                cut()
                cut_s = time.perf_counter()
                await good(*one, wanted=False)
                await good(*one)
                again_ms.append((time.perf_counter() - cut_s) * 1000)
    return median(first_ms), median(again_ms)


@asynccontextmanager
async def _cable(port: int) -> AsyncIterator[tuple[int, Callable[[], None]]]:
    """A port that leads to the device, and what cuts all that goes through it."""
    ends: set[asyncio.StreamWriter] = set()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        ends.update((writer, back))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            target.close()

        await asyncio.gather(copy(reader, back), copy(there, writer))
        ends.difference_update((writer, back))

    def cut() -> None:
        for end in list(ends):
            end.transport.abort()

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        server.close()
        cut()
