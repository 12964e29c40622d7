"""The simulated devices, each a real server in a process of its own, shared by the tests of one worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from drivers.sim.control import SimControl
from edge.conformance import Subject
from tests.contract.conformance import (
    gateway_pump_subject,
    printer_subject,
    pump_subject,
    reactor_subject,
    scale_subject,
    serial_pump_subject,
    simulated,
    with_bolus,
)
from tests.contract.wire import serial_cable


@pytest.fixture(scope="session")
def reactor_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    with simulated("reactor", tmp_path_factory.mktemp("r")) as made:
        yield made


@pytest.fixture(scope="session")
def pump_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    with simulated("pump", tmp_path_factory.mktemp("p")) as made:
        yield made


@pytest.fixture(scope="session")
def scale_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    with simulated("scale", tmp_path_factory.mktemp("s")) as made:
        yield made


@pytest.fixture(scope="session")
def printer_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    with simulated("printer", tmp_path_factory.mktemp("q")) as made:
        yield made


@pytest.fixture(scope="session")
def serial_pump_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, SimControl]]:
    with (
        serial_cable() as (ours, its),
        simulated("pump", tmp_path_factory.mktemp("l"), "--serial", its) as (_, control),
    ):
        yield ours, control


@pytest.fixture(scope="session")
def gateway_pump_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    with simulated("pump", tmp_path_factory.mktemp("g"), "--framing", "rtu") as made:
        yield made


@pytest.fixture(params=["reactor", "pump", "serial_pump", "gateway_pump", "scale", "printer"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    """One simulated device without faults, as the conformance checks see it."""
    port, control = request.getfixturevalue(f"{request.param}_device")
    await control.clear()
    make = {
        "reactor": lambda *there: with_bolus(reactor_subject(*there)),
        "pump": pump_subject,
        "serial_pump": serial_pump_subject,
        "gateway_pump": gateway_pump_subject,
        "scale": scale_subject,
        "printer": printer_subject,
    }[request.param]
    yield make(port, control)
    await control.clear()


@pytest.fixture
async def pump(pump_device: tuple[int, SimControl]) -> AsyncIterator[Subject]:
    port, control = pump_device
    await control.clear()
    yield pump_subject(port, control)
    await control.clear()


@pytest.fixture
async def scale(scale_device: tuple[int, SimControl]) -> AsyncIterator[Subject]:
    port, control = scale_device
    await control.clear()
    yield scale_subject(port, control)
    await control.clear()


@pytest.fixture
async def reactor(reactor_device: tuple[int, SimControl]) -> AsyncIterator[Subject]:
    port, control = reactor_device
    await control.clear()
    yield reactor_subject(port, control)
    await control.clear()
