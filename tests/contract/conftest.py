"""The simulated devices, each a real server in a process of its own, shared by the tests of one worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from drivers.sim.control import SimControl
from tests.contract.conformance import Subject, pump_subject, reactor_subject


def _device(device: str, folder: Path) -> Iterator[tuple[int, SimControl]]:
    control = folder / f"{device}.sock"
    command = [sys.executable, "-m", "drivers.sim", device, "--control", str(control), "--speed", "600"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["port"], SimControl(control)
        process.communicate(timeout=10)  # closing its standard input ends it


@pytest.fixture(scope="session")
def reactor_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    yield from _device("reactor", tmp_path_factory.mktemp("r"))


@pytest.fixture(scope="session")
def pump_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    yield from _device("pump", tmp_path_factory.mktemp("p"))


@pytest.fixture(params=["reactor", "pump"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """One simulated device without faults, as the conformance checks see it."""
    port, control = request.getfixturevalue(f"{request.param}_device")
    await control.clear()
    make = reactor_subject if request.param == "reactor" else pump_subject
    yield make(port, control)
    await control.clear()


@pytest.fixture
async def pump(pump_device: tuple[int, SimControl]) -> AsyncIterator[Subject]:
    port, control = pump_device
    await control.clear()
    yield pump_subject(port, control)
    await control.clear()


@pytest.fixture
async def reactor(reactor_device: tuple[int, SimControl]) -> AsyncIterator[Subject]:
    port, control = reactor_device
    await control.clear()
    yield reactor_subject(port, control)
    await control.clear()
