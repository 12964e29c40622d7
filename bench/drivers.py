"""What drivers reach (`bench.rates`), and one of ten Modbus devices dead: what a read of the nine others takes then,
against the same ten all alive.

`python -m bench.drivers` is the devices: ten real Modbus TCP servers, and an eleventh that takes connections and never
answers. It says their ports and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from statistics import median
from typing import Final, cast

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


def measure(say: Say) -> list[Figure]:
    """Rates, memory and times of each driver; then, interleaved: in each round all alive, then one dead."""
    return [*asyncio.run(rates.measure(say)), *asyncio.run(_measure(say))]


async def _measure(say: Say) -> list[Figure]:
    alive: list[float] = []
    dead: list[float] = []
    async with device_process("bench.drivers") as ports:
        for turn in range(ROUNDS):
            say(f"round {turn + 1} of {ROUNDS}")
            alive += await _reads_ms(ports[:DEVICES])
            dead += await _reads_ms([*ports[: DEVICES - 1], ports[DEVICES]])
    return [
        Figure("read of one of nine, the tenth dead: median", median(dead), "ms", raw=median(alive), at_most=1.2),
        Figure("read of one of nine, the tenth dead: 99 %", p99(dead), "ms", raw=p99(alive), at_most=1.5),
    ]


async def _reads_ms(ports: list[int]) -> list[float]:
    """What each read of the first nine took, while all ten are polled."""
    plant = Plant.model_validate(
        {
            "plant": "bench",
            "connections": {
                f"d{n}": {
                    "driver": "modbus",
                    "settings": {"host": "127.0.0.1", "port": port},
                    "timeout_s": 0.5,
                    "poll_s": 0.1,
                }
                for n, port in enumerate(ports)
            },
            "units": {
                f"U-{n}": {"class": "thing", "tags": {"x": {"connection": f"d{n}", "address": "holding 0 float32"}}}
                for n in range(len(ports))
            },
        }
    )
    others = [f"U-{n}.x" for n in range(DEVICES - 1)]
    took_ms = []
    news = asyncio.Event()
    async with Equipment(
        plant, installed_drivers(), now_s=time.monotonic, utc=lambda: "", on_change=news.set
    ) as equipment:
        await equipment.watch(plant.tags())
        while not all((reading := equipment.latest(tag)) and reading.good for tag in others):
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


async def _devices() -> None:
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
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

    silent = await asyncio.start_server(silence, "127.0.0.1", 0)
    listening = [*(cast("asyncio.Server", server.transport) for server in servers), silent]
    sys.stdout.write(" ".join(str(one.sockets[0].getsockname()[1]) for one in listening) + "\n")
    sys.stdout.flush()
    await ended.wait()
    silent.close()
    for server in servers:
        await server.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(_devices())
