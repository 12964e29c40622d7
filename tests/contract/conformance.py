"""The simulated devices as subjects of the conformance suite."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from drivers.sim.control import SimControl
from edge.conformance import Subject, one_connection
from edge.core.plant import Plant
from edge.core.terms import Value
from edge.core.zpl import fingerprint, label, layout


@contextmanager
def simulated(device: str, folder: Path, *more: str) -> Iterator[tuple[int, SimControl]]:
    """The simulated reactor or pump as a process of its own: its port and its control channel."""
    control = folder / f"{device}.sock"
    command = [sys.executable, "-m", "drivers.sim", device, "--control", str(control), "--speed", "600", *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"], SimControl(control)
        process.communicate(timeout=10)  # closing its standard input ends it


def reactor_subject(port: int, control: SimControl, *, security: str = "none") -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    node = "nsu=urn:lineside:sim:reactor;s="
    tags = {
        "agitation": {**common, "address": node + "agitation", "unit": "rpm", "low": -1, "high": 500},
        "agitation_setpoint": {
            **common,
            "address": node + "agitation_setpoint",
            "unit": "rpm",
            "access": "write",
            "low": 0,
            "high": 400,
        },
    }
    settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": security}
    return Subject(
        one_connection("opcua", settings, "BR-1", tags),
        control,
        "BR-1.agitation",
        "BR-1.agitation_setpoint",
        (100.1, 120.0, 140.0),
        400.5,
    )


def with_bolus(subject: Subject, **more: object) -> Subject:
    """The simulated reactor with its method."""
    data = subject.plant.model_dump(mode="json", by_alias=True)
    data["units"]["BR-1"]["tags"]["bolus"] = bolus(**more)
    calls = {"volume": 5.0}, {"volume": 2.5}
    plant = Plant.model_validate(data)
    return replace(subject, plant=plant, method="BR-1.bolus", calls=calls, called_wrongly={"volume": 101.0})


def bolus(**more: object) -> dict[str, object]:
    """The method of the simulated reactor, as a tag."""
    arguments = {"volume": {"unit": "mL", "low": 0.5, "high": 100}}
    results = {"total": {"unit": "mL", "low": 0}, "times": {"type": "int", "low": 1}}
    node = "nsu=urn:lineside:sim:reactor;s="
    method = {"node": f"{node}bolus", "arguments": arguments, "results": results}
    of = {"connection": "device", "address": f"{node}BR-1", "type": "text", "access": "write"}
    return {**of, "method": method, **more}


def pump_subject(port: int, control: SimControl) -> Subject:
    return _pump_subject({"host": "127.0.0.1", "port": port}, control)


def gateway_pump_subject(port: int, control: SimControl) -> Subject:
    return _pump_subject({"host": "127.0.0.1", "port": port, "framing": "rtu"}, control)


def serial_pump_subject(line: str, control: SimControl) -> Subject:
    return _pump_subject({"line": line, "parity": "none"}, control)


def _pump_subject(settings: Mapping[str, Value], control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    tags = {
        "speed": {**common, "address": "input 0 float32", "unit": "mL/min", "low": -1, "high": 200},
        "speed_setpoint": {
            **common,
            "address": "holding 0 float32",
            "unit": "mL/min",
            "access": "write",
            "low": 0,
            "high": 100,
        },
    }
    return Subject(
        one_connection("modbus", settings, "P-1", tags),
        control,
        "P-1.speed",
        "P-1.speed_setpoint",
        (10.1, 20.0, 30.0),
        100.5,
    )


def scale_subject(port: int, control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3, "unit": "g", "low": -200, "high": 6000}
    tags = {
        "weight": {**common, "address": "weight"},
        "tare_weight": {**common, "address": "tare weight", "access": "write", "low": 0, "high": 100},
    }
    return Subject(
        one_connection("scale", {"host": "127.0.0.1", "port": port}, "W-2", tags),
        control,
        "W-2.weight",
        "W-2.tare_weight",
        (10.1, 20.0, 30.0),
        100.5,
    )


def printer_subject(port: int, control: SimControl) -> Subject:
    common = {"connection": "device", "stale_s": 5, "settle_s": 0.3}
    tags = {
        "waiting": {**common, "address": "waiting", "type": "int", "low": 0, "high": 1000},
        "label": {**common, "address": "label", "type": "text", "access": "write"},
    }
    return Subject(
        one_connection("printer", {"host": "127.0.0.1", "port": port, "counter": True}, "PR-1", tags),
        control,
        "PR-1.waiting",
        "PR-1.label",
        (
            label(layout(["Batch"]), {"Batch": "B1"}, "B1", 1),
            label(layout(["Batch"]), {"Batch": "B2"}, "B2", 1),
            label(layout(["Batch"]), {"Batch": "B3"}, "B3", 1),
        ),
        "^XA~JA^PQ1,0,1,Y^XZ",
        shown=lambda value: fingerprint(str(value)),
        clamps=False,
    )
