"""The conformance suite against the simulated devices: bioreactor (asyncua server), pump (pymodbus
server, over TCP, a serial line and RTU over TCP), scale and printer."""

from __future__ import annotations

import pytest

from drivers.modbus_link import Link
from edge.conformance import CHECKS, Subject, lost_reply_is_unknown_and_not_repeated
from tests.contract.wire import sends_again


@pytest.mark.parametrize("check", CHECKS)
async def test_driver(check: str, subject: Subject) -> None:
    await CHECKS[check](subject)


async def test_the_judge_finds_a_driver_that_repeats_writes(pump: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: as pymodbus' own client does, once more when there was no answer."""
    monkeypatch.setattr("drivers.modbus_link.Link.exchange", sends_again(Link.exchange))
    before = (await pump.control.counters())[pump.setpoint]
    with pytest.raises(AssertionError):
        await lost_reply_is_unknown_and_not_repeated(pump)
    assert (await pump.control.counters())[pump.setpoint] == before + 2
