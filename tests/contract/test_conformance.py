"""The conformance suite against the simulated bioreactor (asyncua server) and pump (pymodbus server)."""

from __future__ import annotations

import functools

import pytest
from pymodbus.client import AsyncModbusTcpClient

from edge.conformance import CHECKS, Subject, lost_reply_is_unknown_and_not_repeated


@pytest.mark.parametrize("check", CHECKS)
async def test_driver(check: str, subject: Subject) -> None:
    await CHECKS[check](subject)


async def test_the_judge_finds_a_driver_that_repeats_writes(pump: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: pymodbus' own retries."""

    @functools.wraps(AsyncModbusTcpClient)
    def repeating(*args: object, **kwargs: object) -> AsyncModbusTcpClient:
        return AsyncModbusTcpClient(*args, **{**kwargs, "retries": 3, "timeout": 0.2})  # type: ignore[arg-type]

    monkeypatch.setattr("drivers.modbus_link.AsyncModbusTcpClient", repeating)
    before = (await pump.control.counters())[pump.setpoint]
    with pytest.raises(AssertionError):
        await lost_reply_is_unknown_and_not_repeated(pump)
    assert (await pump.control.counters())[pump.setpoint] == before + 4
