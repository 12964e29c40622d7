"""The driver does what every driver must do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bath_device import Bath
from edge.conformance import Subject, check_equipment, one_connection


@asynccontextmanager
async def bath() -> AsyncIterator[Subject]:
    """One simulated bath, and what the checks may do with it."""
    device = Bath()
    async with device.serve() as port:
        common = {"connection": "device", "unit": "degC", "settle_s": 0.3}
        tags = {
            "temperature": {**common, "address": "T", "low": 0, "high": 100},
            "setpoint": {**common, "address": "S", "access": "write", "low": 5, "high": 95},
        }
        plant = one_connection("bath", {"host": "127.0.0.1", "port": port}, "WB-1", tags)
        yield Subject(plant, device, "WB-1.temperature", "WB-1.setpoint", (30.0, 37.0, 42.5), 95.5)


def test_the_bath_is_driven_as_every_device_must_be() -> None:
    asyncio.run(check_equipment(bath))
