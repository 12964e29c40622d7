"""The device of the bench: a real Modbus TCP server that keeps its own time of what it shows and what it is told.

`python -m bench.device CHANNELS SEED`. A channel is an input register that the device raises by one, and a holding
register that answers it: when the number that stands in the one is written to the other, a line of JSON says when it
was raised, when it was first read, and when the write was carried out (CLOCK_MONOTONIC, which the processes of a
machine share); some time later it is raised again. A line on standard input begins it; its end ends the process.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Final, cast

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

CHANNELS_MAX: Final = 32
SPARE: Final = CHANNELS_MAX
"""A register of each table that means nothing: for the raw read and the raw write."""
PAUSE_MIN_S: Final = 0.08
PAUSE_MAX_S: Final = 0.13
"""From an answer to the next rise: long enough for the next step to wait, and never in step with the polls."""


class Device:
    """The registers and their times."""

    def __init__(self, channels: int, chance: random.Random) -> None:
        self._chance = chance
        self._shown = [0] * channels
        self._raised_s = [0.0] * channels
        self._seen_s = [0.0] * channels

    def begin(self) -> None:
        """Raise every channel for the first time."""
        for channel in range(len(self._shown)):
            self._raise_later(channel)

    def _raise_later(self, channel: int) -> None:
        pause_s = self._chance.uniform(PAUSE_MIN_S, PAUSE_MAX_S)
        asyncio.get_running_loop().call_later(pause_s, self._raise, channel)

    def _raise(self, channel: int) -> None:
        self._shown[channel] += 1
        self._raised_s[channel], self._seen_s[channel] = time.monotonic(), 0.0

    async def act(
        self,
        function: int,
        _start: int,
        address: int,
        count: int,
        registers: list[int],
        given: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the server before it reads or writes."""
        now_s = time.monotonic()
        if given is not None:
            self._told(address, cast("Sequence[int]", given), now_s)
        elif function == 4:
            registers[: len(self._shown)] = self._shown
            for channel in range(address, min(address + count, len(self._shown))):
                self._seen_s[channel] = self._seen_s[channel] or now_s
        return None

    def _told(self, address: int, values: Sequence[int], now_s: float) -> None:
        for channel, value in enumerate(values, address):
            if channel >= len(self._shown) or value != self._shown[channel]:
                continue
            times = {"raised_s": self._raised_s[channel], "seen_s": self._seen_s[channel], "written_s": now_s}
            sys.stdout.write(json.dumps(times) + "\n")
            sys.stdout.flush()
            self._raise_later(channel)


async def _serve(channels: int, seed: int) -> None:
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    device, ended, loop = Device(channels, random.Random(seed)), asyncio.Event(), asyncio.get_running_loop()

    def heard() -> None:
        if os.read(0, 4096):
            device.begin()
        else:
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, heard)
    registers = [SimData(0, count=CHANNELS_MAX + 1, values=0, datatype=DataType.REGISTERS)]
    bits = [SimData(0, values=[False] * 16, datatype=DataType.BITS)]
    simulated = SimDevice(id=1, simdata=(bits, bits, registers, registers), action=device.act)
    server = ModbusTcpServer(simulated, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        sys.stdout.write(f"{cast(asyncio.Server, server.transport).sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await ended.wait()
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
