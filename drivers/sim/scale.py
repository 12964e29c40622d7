"""The simulated scale: MT-SICS commands over TCP, or on a terminal that a test opened.

Tags of the control channel: `W-2.weight` and the switches that it counts, `W-2.tare`, `W-2.zero`, `W-2.clear_tare`,
`W-2.tare_weight`. `{"do": "put", "grams": 250.0}` puts a load on it. The `status` of `bad_quality` chooses what is
wrong with the weight: underload, not_ready, unstable, wrong_unit, garbage, cut, doubled; anything else is an overload.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from drivers.sim.control import Faults, serve_control

WRITABLE: Final = ("W-2.tare", "W-2.zero", "W-2.clear_tare", "W-2.tare_weight")
SERIAL_NUMBER: Final = "B021002593"
MOVING_S: Final = 0.3
"""So long after a load was put on it, the scale is not at rest."""
_SWITCHES: Final = {b"T": "W-2.tare", b"Z": "W-2.zero", b"TAC": "W-2.clear_tare"}
_TARE: Final = re.compile(rb"TA ([0-9.]{1,12}) g")
_LINE_MAX: Final = 256


class SimScale:
    """Two pans' worth of state: what stands on it, where its zero is, and its tare."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._zero_g, self._tare_g = 0.0, 0.0

    def answers(self, command: bytes) -> bytes:
        """Carry out one command (without its end); what is sent for it."""
        if self.faults.silent:
            return b""
        if command in _SWITCHES or _TARE.fullmatch(command):
            reply = self._write(command)
            return b"" if self.faults.drop_this_reply() else reply
        if command == b"I4":
            return f'I4 A "{SERIAL_NUMBER}"\r\n'.encode()
        if command == b"TA":
            return self._value("TA A", self._tare_g)
        if command == b"SI":
            return self._weight()
        return b"ES\r\n"

    @property
    def _net_g(self) -> float:
        return round(self.faults.load_g - self._zero_g - self._tare_g, 2)

    @property
    def _moving(self) -> bool:
        return self.faults.bad.get("W-2.weight") == "unstable" or time.monotonic() < self.faults.load_since_s + MOVING_S

    def _write(self, command: bytes) -> bytes:
        match = _TARE.fullmatch(command)
        tag = "W-2.tare_weight" if match else _SWITCHES[command]
        self.faults.counters[tag] += 1
        word = command.split(b" ", maxsplit=1)[0].decode()
        if self._moving and word in ("T", "Z"):
            return f"{word} I\r\n".encode()
        if tag not in self.faults.frozen:
            if match:
                self._tare_g = round(self.faults.limited(tag, float(match[1])), 2)
            elif word == "T":
                self._tare_g = round(self.faults.load_g - self._zero_g, 2)
            elif word == "Z":
                self._zero_g, self._tare_g = self.faults.load_g, 0.0
            else:
                self._tare_g = 0.0
        if word in ("Z", "TAC"):
            return f"{word} A\r\n".encode()
        return self._value("T S" if word == "T" else "TA A", self._tare_g)

    def _weight(self) -> bytes:
        right = self._value("S D" if self._moving else "S S", self._net_g)
        match self.faults.bad.get("W-2.weight"):
            case None | "unstable":
                return right
            case "underload":
                return b"S -\r\n"
            case "not_ready":
                return b"S I\r\n"
            case "wrong_unit":
                return right.replace(b" g\r", b" lb\r")
            case "garbage":
                return b"\x00\xffS S  x\r\n"
            case "cut":
                return right[:-5]
            case "doubled":
                return right * 2
            case _:
                return b"S +\r\n"

    @staticmethod
    def _value(head: str, grams: float) -> bytes:
        return f"{head} {grams:>10.2f} g\r\n".encode()


@asynccontextmanager
async def serve_scale(host: str, port: int, *, seed: int, speed: float, control: Path) -> AsyncIterator[int]:
    """Serve over TCP until left; gives the port. A scale is as quick as it is: `seed` and `speed` change nothing."""
    del seed, speed
    scale = SimScale(Faults(("W-2.weight",), WRITABLE))
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving[task] = writer
        try:
            while command := await reader.readuntil(b"\r\n"):
                writer.write(scale.answers(command[:-2]))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass  # the other side left, or sent what is no command
        finally:
            writer.close()
            del serving[task]

    server = await asyncio.start_server(client, host, port, limit=_LINE_MAX)
    try:
        async with serve_control(control, scale.faults):
            yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*serving)


@asynccontextmanager
async def scale_on_a_line(scale: SimScale) -> AsyncIterator[str]:
    """The scale at one end of a pseudo-terminal until left; gives the path of the other end."""
    loop = asyncio.get_running_loop()
    ours, theirs = os.openpty()
    waiting = bytearray()

    def heard() -> None:
        waiting.extend(os.read(ours, 4096))
        while b"\r\n" in waiting:
            command, _, rest = bytes(waiting).partition(b"\r\n")
            waiting[:] = rest
            os.write(ours, scale.answers(command))

    loop.add_reader(ours, heard)
    try:
        yield os.ttyname(theirs)
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        os.close(theirs)
