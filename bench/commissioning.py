"""From an unknown device to its first value with unit, range and quality in the plant file.

Each command as it is typed, in a process of its own, against real servers. What a person reads and types in between is
not in it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from pymodbus.client import ModbusTcpClient

from bench import Figure, Say
from provisioning.device import init_device

ROUNDS: Final = 3
GOAL_S: Final = 60.0
"""Minutes were promised, people included."""


def measure(say: Say) -> list[Figure]:
    """The pump by the search for its word order; the reactor by browsing."""
    modbus: list[dict[str, float]] = []
    opcua: list[dict[str, float]] = []
    for turn in range(ROUNDS):
        say(f"round {turn + 1} of {ROUNDS}")
        with tempfile.TemporaryDirectory(dir="build") as name:
            folder = Path(name)
            init_device(folder / "box", box="BENCH")
            with _simulated("pump", folder) as port:
                modbus.append(_pump(folder / "box", port))
            with _simulated("reactor", folder) as port:
                opcua.append(_reactor(folder / "box", port))
    figures = []
    for what, rounds in (("Modbus", modbus), ("OPC UA", opcua)):
        whole = median(sum(one.values()) for one in rounds)
        figures.append(Figure(f"unknown {what} device to its first value", whole, "s", at_most=GOAL_S))
        figures += [Figure(f"  of that: {part}", median(one[part] for one in rounds), "s") for part in rounds[0]]
    return figures


@contextmanager
def _simulated(device: str, folder: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "drivers.sim", device, "--control", str(folder / f"{device}.sock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"]
        process.communicate(timeout=20)  # closing its standard input ends it


def _typed(box: Path, *words: str) -> tuple[float, str]:
    begun_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "edge", "equipment", *words],
        env=os.environ | {"LINESIDE_BOX": str(box)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return time.monotonic() - begun_s, done.stdout


def _pump(box: Path, port: int) -> dict[str, float]:
    knob = ModbusTcpClient("127.0.0.1", port=port)
    knob.connect()  # type: ignore[no-untyped-call]
    _turn(knob, 12.5)
    probe_s, _ = _typed(box, "probe", "127.0.0.1", "--port", str(port))
    how = ["bind", "pump", "--driver", "modbus", "--set", "host=127.0.0.1", "--set", f"port={port}", "--poll", "0.2"]
    what = ["--tag", "P-1.setpoint", "--address", "holding 0", "--unit", "mL/min", "--low", "0", "--high", "100"]
    begun_s = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "edge",
        "equipment",
        *how,
        *what,
        "--class",
        "pump",
        "--reads",
        "12.5",
        "--then",
        "20",
    ]
    with subprocess.Popen(
        [*command, "--json"],
        env=os.environ | {"LINESIDE_BOX": str(box)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as binding:
        assert binding.stderr is not None
        assert binding.stdout is not None
        for line in binding.stderr:
            if "waiting for" in line:
                _turn(knob, 20.0)
                break
        threading.Thread(target=binding.stderr.read, daemon=True).start()
        bound = json.loads(binding.stdout.read())
    if (bound["value"], bound["quality"]) != (20.0, "good"):
        raise RuntimeError(f"the pump was bound wrongly: {bound}")
    knob.close()  # type: ignore[no-untyped-call]
    return {"probe": probe_s, "bind, with its word order found": time.monotonic() - begun_s}


def _turn(knob: ModbusTcpClient, value: float) -> None:
    knob.write_registers(0, list(struct.unpack(">2H", struct.pack(">f", value))))


def _reactor(box: Path, port: int) -> dict[str, float]:
    endpoint = f"endpoint=opc.tcp://127.0.0.1:{port}/"
    probe_s, _ = _typed(box, "probe", "127.0.0.1", "--port", str(port))
    connect_s, _ = _typed(box, "bind", "reactor", "--driver", "opcua", "--set", endpoint, "--set", "security=none")
    browse_s, found = _typed(box, "browse", "reactor", "temperature", "--json")
    address = next(one["address"] for one in json.loads(found)["found"] if one["name"] == "temperature")
    what = ["--tag", "BR-1.temperature", "--address", address, "--unit", "degC", "--low", "0", "--high", "60"]
    bind_s, told = _typed(box, "bind", "reactor", *what, "--class", "bioreactor", "--json")
    if json.loads(told)["quality"] != "good":
        raise RuntimeError(f"the reactor was bound wrongly: {told}")
    return {"probe": probe_s, "bind the connection": connect_s, "browse": browse_s, "bind the tag": bind_s}
