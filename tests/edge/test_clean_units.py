"""Clean and dirty units at a real runtime: what it tells by itself."""

from __future__ import annotations

import asyncio

from edge import wire
from edge.config import Config
from edge.desk_client import connect
from tests.edge.conftest import CLEAN_PLANT, running
from tests.edge.test_changed_files import begin
from tests.edge.test_desk import log_in, name


async def test_a_unit_whose_time_is_over_raises_an_alarm_by_itself(cell: Config) -> None:
    cell.plant.write_text(CLEAN_PLANT.replace("3600", "0.001"))
    async with running(cell) as socket, connect(socket) as client:
        await log_in(client)
        await begin(client, "B-1")
        await client.ask(wire.ConfirmStep(id=name(), batch="B-1", step="010"))
        await client.ask(wire.ConfirmStep(id=name(), batch="B-1", step="020"))
        async with asyncio.timeout(60):
            async for picture in client.pictures():
                if picture.alarms:
                    break
        (alarm,) = picture.alarms
    assert (alarm.alarm, alarm.priority) == ("clean BR-1 over", "medium")
    assert alarm.cause.startswith("BR-1 is not known to be clean any more: it stays so for ")
