"""The simulated peristaltic pump, the balance it pumps onto, and an incubator: one pymodbus server, over TCP, a
serial line or what passes one on over TCP.

Registers (numbers count from 0, floats are ABCD):
holding 0 float32 speed set-point mL/min · holding 2 uint16 mode (0 by the run coil, 1 always off) · holding 4 uint16
watchdog counter: once it has moved it must go on moving, else the set-point falls to 0; 0 lets go
input 0 float32 speed mL/min · input 2 float32 volume mL · input 10 float32 weight g
coil 0 run · coil 1 tare (acts when written 1) · discrete 0 running · discrete 1 weight stable
Of the incubator: holding 6, 8, 10 float32 set-points of temperature degC, CO2 %, humidity % · input 12, 14, 16 float32
the same as measured · discrete 2 door open · discrete 3 alarm
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, cast

from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.sim.control import Faults, serve_control
from drivers.sim.physics import DENSITY_G_ML, SPEED_MAX, Incubator, Pump
from edge.core.errors import LinesideError

WEIGHT_NOISE_G: Final = 0.01

WRITES: Final = frozenset({5, 6, 15, 16})
_TABLES: Final = {
    1: "coil",
    2: "discrete",
    3: "holding",
    4: "input",
    5: "coil",
    6: "holding",
    15: "coil",
    16: "holding",
}
# tag -> table, first number, count
_PLACES: Final = {
    "P-1.speed_setpoint": ("holding", 0, 2),
    "P-1.mode": ("holding", 2, 1),
    "P-1.alive": ("holding", 4, 1),
    "P-1.speed": ("input", 0, 2),
    "P-1.volume": ("input", 2, 2),
    "P-1.run": ("coil", 0, 1),
    "P-1.running": ("discrete", 0, 1),
    "W-1.weight": ("input", 10, 2),
    "W-1.tare": ("coil", 1, 1),
    "W-1.stable": ("discrete", 1, 1),
    **{
        f"IN-1.{name}_setpoint": ("holding", 6 + 2 * at, 2)
        for at, name in enumerate(("temperature", "co2", "humidity"))
    },
    **{f"IN-1.{name}": ("input", 12 + 2 * at, 2) for at, name in enumerate(("temperature", "co2", "humidity"))},
    "IN-1.door_open": ("discrete", 2, 1),
    "IN-1.alarm": ("discrete", 3, 1),
}


@asynccontextmanager
async def serve_pump_and_balance(
    host: str,
    port: int,
    *,
    seed: int,
    speed: float,
    control: Path,
    serial: Path | None = None,
    framing: Literal["tcp", "rtu"] = "tcp",
) -> AsyncIterator[int]:
    """Serve until left, at `serial` (19200 baud) when it is given; gives the port (a free one for port 0). With the
    `framing` of a serial line it serves as behind a gateway that passes frames on as they are.

    `speed` is process seconds per second."""
    logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
    writable = [tag for tag, (table, _, _) in _PLACES.items() if table in ("holding", "coil")]
    faults = Faults(_PLACES, writable)
    pump = _Pump(faults, random.Random(seed), speed)

    def gate(sending: bool, packet: bytes) -> bytes:
        if not sending or len(packet) <= function_at:
            return packet
        if faults.silent or ((packet[function_at] & 0x7F) in WRITES and faults.drop_this_reply()):
            return b""
        return packet

    function_at = 1 if serial or framing == "rtu" else 7
    server: ModbusSerialServer | ModbusTcpServer
    if serial:
        server = ModbusSerialServer(pump.device(), port=str(serial), trace_packet=gate, ignore_missing_devices=True)
    else:
        framer = FramerType.RTU if framing == "rtu" else FramerType.SOCKET
        server = ModbusTcpServer(pump.device(), framer=framer, address=(host, port), trace_packet=gate)
    try:
        await server.serve_forever(background=True)
    except RuntimeError as error:
        raise LinesideError(
            "sim.port",
            f"The simulated pump cannot listen at {serial or f'{host}:{port}'}.",
            todo="Choose another port, or 0 for a free one.",
        ) from error
    try:
        async with serve_control(control, faults):
            yield 0 if serial else cast(asyncio.Server, server.transport).sockets[0].getsockname()[1]
    finally:
        await server.shutdown()  # type: ignore[no-untyped-call]


class _Pump:
    """Physics that is worked out when somebody looks: an idle pump costs nothing."""

    def __init__(self, faults: Faults, noise: random.Random, speed: float) -> None:
        self._faults, self._noise, self._speed = faults, noise, speed
        self._pump, self._incubator = Pump(), Incubator()
        self._tare_g, self._tare = 0.0, False
        self._last_s = time.monotonic()

    def device(self) -> SimDevice:
        """The registers as pymodbus wants them."""
        return SimDevice(
            id=1,
            simdata=(
                [SimData(0, values=[True, *[False] * 15], datatype=DataType.BITS)],
                [SimData(0, values=[False] * 16, datatype=DataType.BITS)],
                [SimData(0, count=16, values=0, datatype=DataType.REGISTERS)],
                [SimData(0, count=32, values=0, datatype=DataType.REGISTERS)],
            ),
            action=self._action,
        )

    async def _action(
        self,
        function: int,
        _start: int,
        address: int,
        count: int,
        registers: list[int],
        given: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called by the server before it reads or writes; changes registers and values in place."""
        self._advance()
        table = _TABLES[function]
        values = cast("list[int] | None", given)  # bits are whole numbers too
        if table in ("coil", "discrete"):
            count = len(values) if values is not None else 16
        touched = [
            tag
            for tag, (at, number, width) in _PLACES.items()
            if at == table and number < address + count and address < number + width
        ]
        if values is None:
            if any(tag in self._faults.bad for tag in touched):
                return ExcCodes.DEVICE_FAILURE
            self._show(table, registers)
            return None
        for tag in touched:
            self._faults.counters[tag] += 1
            number, width = _PLACES[tag][1:]
            first = number - address
            if table == "holding":
                before = registers[number : number + width]
                after = [values[first + i] if 0 <= first + i < len(values) else before[i] for i in range(width)]
                words = self._set(tag, before, after)
                for i in range(width):
                    if 0 <= first + i < len(values):
                        values[first + i] = words[i]
            else:
                values[first] = self._switch(tag, on=bool(values[first]))
        return None

    def _set(self, tag: str, before: Sequence[int], after: Sequence[int]) -> list[int]:
        """Take a new value of a holding register; returns what the register then shows."""
        if tag in self._faults.frozen:
            return list(before)
        if tag == "P-1.mode":
            self._pump.off = after[0] == 1
            return list(after)
        if tag == "P-1.alive":
            self._faults.watchdog.take(after[0])
            return list(after)
        wanted = struct.unpack(">f", struct.pack(">2H", *after))[0]
        if tag.startswith("IN-1."):
            name = tag.partition(".")[2].removesuffix("_setpoint")
            if math.isfinite(wanted):
                self._incubator.set(name, self._faults.limited(tag, wanted))
            return _words(self._incubator.loops[name].setpoint)
        wanted = min(max(wanted, 0.0), SPEED_MAX) if math.isfinite(wanted) else self._pump.setpoint
        self._pump.setpoint = self._faults.limited(tag, wanted)
        return _words(self._pump.setpoint)

    def _switch(self, tag: str, *, on: bool) -> bool:
        before = self._pump.run if tag == "P-1.run" else self._tare
        if tag in self._faults.frozen:
            return before
        if tag == "P-1.run":
            self._pump.run = on
        else:
            if on:
                self._tare_g = self._pump.volume_ml * DENSITY_G_ML
            self._tare = on
        return on

    def _advance(self) -> None:
        tripped_s = self._faults.watchdog.tripped_s
        if tripped_s is not None and self._pump.setpoint:
            self._pass_until(max(tripped_s, self._last_s))
            self._pump.setpoint = 0.0
        if self._faults.door_open is not self._incubator.door_open:
            self._pass_until(max(self._faults.door_since_s, self._last_s))
            self._incubator.door_open = self._faults.door_open
        self._pass_until(time.monotonic())

    def _pass_until(self, now_s: float) -> None:
        elapsed_s, self._last_s = (now_s - self._last_s) * self._speed, now_s
        self._pump.pass_s(elapsed_s)
        self._incubator.pass_s(elapsed_s)

    def _show(self, table: str, registers: list[int]) -> None:
        weight_g = self._pump.volume_ml * DENSITY_G_ML - self._tare_g + self._noise.gauss(0.0, WEIGHT_NOISE_G)
        if table == "input":
            for tag, value in (
                ("P-1.speed", self._pump.rate),
                ("P-1.volume", self._pump.volume_ml),
                ("W-1.weight", weight_g),
                *(
                    (f"IN-1.{name}", loop.value + self._noise.gauss(0.0, loop.noise))
                    for name, loop in self._incubator.loops.items()
                ),
            ):
                if tag not in self._faults.frozen:
                    number = _PLACES[tag][1]
                    registers[number : number + 2] = _words(value)
        elif table == "holding":
            if "P-1.speed_setpoint" not in self._faults.frozen:
                registers[0:2] = _words(self._pump.setpoint)  # a watchdog may have changed it
            for name, loop in self._incubator.loops.items():
                number = _PLACES[f"IN-1.{name}_setpoint"][1]
                registers[number : number + 2] = _words(loop.setpoint)
        elif table == "discrete":
            running = self._pump.running
            for tag, on in (
                ("P-1.running", running),
                ("W-1.stable", not running),
                ("IN-1.door_open", self._incubator.door_open),
                ("IN-1.alarm", self._incubator.alarm),
            ):
                if tag not in self._faults.frozen:
                    bit = 1 << _PLACES[tag][1]
                    registers[0] = registers[0] | bit if on else registers[0] & ~bit


def _words(value: float) -> list[int]:
    return list(struct.unpack(">2H", struct.pack(">f", value)))
