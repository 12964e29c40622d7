"""A value that changes at a device → a journaled decision → the command at the device, through real processes.

The device raises a number. The runtime polls it, a step waits for it, the decision and the intent are rows on the disk,
and only then the answer is written; the device's own clock judges. Beside it, as often and between those moments, in
this process: one fsync, one read and one write of the same device, by the plainest means.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from pymodbus.client import ModbusTcpClient

from bench import Figure, Say, p99
from bench.box import POLL_S, Device, device, lay_out, log_in, running, start_batch
from bench.device import SPARE
from edge.desk_client import connect

TURNS: Final = 400
BATCHES: Final = 10
BLOCK: Final = bytes(4096)


class Plain:
    """One fsync, one read, one write: what nobody can do without."""

    def __init__(self, folder: Path, port: int) -> None:
        self.fsyncs_s: list[float] = []
        self.reads_s: list[float] = []
        self.writes_s: list[float] = []
        self._file = os.open(folder / "plain", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._client = ModbusTcpClient("127.0.0.1", port=port, retries=0)
        self._client.connect()  # type: ignore[no-untyped-call]

    def turn(self) -> None:
        begun_s = time.perf_counter()
        os.write(self._file, BLOCK)
        os.fsync(self._file)
        synced_s = time.perf_counter()
        self._client.read_input_registers(SPARE, count=1)
        read_s = time.perf_counter()
        self._client.write_register(SPARE, 1)
        self.fsyncs_s.append(synced_s - begun_s)
        self.reads_s.append(read_s - synced_s)
        self.writes_s.append(time.perf_counter() - read_s)

    def close(self) -> None:
        self._client.close()  # type: ignore[no-untyped-call]
        os.close(self._file)

    def summed(self, of: str) -> float:
        """The summed p50 or p99 of the three."""
        pick = p99 if of == "p99" else median
        return sum(pick(values) for values in (self.fsyncs_s, self.reads_s, self.writes_s))


async def _turns(simulated: Device, plain: Plain, count: int, say: Say) -> tuple[list[float], list[float]]:
    """`count` answers: seconds from the poll that read the rise, and from the rise itself, to the command."""
    from_poll: list[float] = []
    from_rise: list[float] = []
    simulated.begin()
    while len(from_poll) < count:
        async with asyncio.timeout(60):
            times = json.loads(await simulated.lines.readline())
        from_poll.append(times["written_s"] - times["seen_s"])
        from_rise.append(times["written_s"] - times["raised_s"])
        if len(from_poll) % 100 == 0:
            say(f"{len(from_poll)} of {count} answers")
        await asyncio.sleep(POLL_S / 2)  # what followed the command is over, the next rise is not there
        plain.turn()
    return from_poll, from_rise


async def _measure(folder: Path, disk: Path, batches: int, say: Say) -> list[Figure]:
    rounds = TURNS // batches + 1
    async with device(batches) as simulated:
        box = lay_out(folder, disk, simulated.port, channels=batches, rounds=rounds)
        async with running(folder, "edge", "run", "--box", str(box.folder)), connect(box.desk) as client:
            await log_in(client)
            for number in range(batches):
                await start_batch(client, f"B-{number}")
            plain = Plain(disk, simulated.port)
            try:
                from_poll, from_rise = await _turns(simulated, plain, TURNS, say)
            finally:
                plain.close()
    who = "one batch" if batches == 1 else f"{batches} batches"
    goal = 3 if batches == 1 else 6
    return [
        Figure(f"{who}: poll tick → command, p50", median(from_poll) * 1000, "ms", plain.summed("p50") * 1000),
        Figure("   p99", p99(from_poll) * 1000, "ms", plain.summed("p99") * 1000, at_most=goal),
        Figure(
            f"   value changed → command, p50 (a poll every {POLL_S * 1000:.0f} ms)", median(from_rise) * 1000, "ms"
        ),
        Figure("   p99", p99(from_rise) * 1000, "ms"),
        Figure("   one fsync, p99", p99(plain.fsyncs_s) * 1000, "ms"),
        Figure("   one read, p99", p99(plain.reads_s) * 1000, "ms"),
        Figure("   one write, p99", p99(plain.writes_s) * 1000, "ms"),
    ]


def measure(say: Say) -> list[Figure]:
    """One batch, then ten at once; pooled over all answers."""
    figures = []
    for batches in (1, BATCHES):
        with TemporaryDirectory(prefix="bench-") as folder, TemporaryDirectory(dir="build", prefix="bench-") as disk:
            figures += asyncio.run(_measure(Path(folder), Path(disk).absolute(), batches, say))
    return figures
