"""By hand at the desk of a real runtime whose device is dead: two people, a restart in between, and the device's own
count of what the box has sent it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from drivers.sim.control import SimControl
from drivers.sim.pump import serve_pump_and_balance
from edge import wire
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.review import as_built, as_text
from edge.desk_client import DeskClient, connect
from edge.journal import JournalReader
from tests.edge.conftest import running

PLANT = """\
plant: pump
connections:
  pump: {{driver: modbus, settings: {{host: 127.0.0.1, port: {port}, device: 1}}, timeout_s: 5, poll_s: 0.1}}
units:
  P-1:
    class: pump
    tags:
      speed: {{connection: pump, address: input 0 float32, unit: mL/min, low: 0, high: 200, stale_s: 60}}
      speed_setpoint: {{connection: pump, address: holding 0 float32, unit: mL/min, access: write, low: 0, high: 100,
        tolerance: 0.01, stale_s: 60}}
"""
RECIPE = """\
recipe: FEED
version: "1"
title: Feed
units: {pump: {class: pump}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: set, title: Feed, tag: pump.speed_setpoint, value: 12, unit: mL/min}
          - {id: "020", phase: wait, title: It feeds, tag: pump.speed, timeout: 1 h,
             limit: {low: 10, high: 14, unit: mL/min}}
          - {id: "030", phase: instruct, title: Look, text: Look at it.}
"""
PINS = {"ana": "2580", "ben": "1470"}


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which nobody answers, and which nobody else is given: a device of this test can listen there later."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await holds():  # noqa: ASYNC110  what is waited for is on this loop
            await asyncio.sleep(0)


async def card(client: DeskClient) -> wire.BatchCard:
    answer = await client.ask(wire.AskStatus(id=uuid4().hex))
    (found,) = wire.Picture.model_validate(answer["picture"]).batches
    return found


async def at_step(client: DeskClient, step: str) -> bool:
    return any(one.step == step for one in (await card(client)).active)


def switch(step: str, act: Any = "take by hand", person: str = "ana") -> wire.SwitchMode:
    return wire.SwitchMode(id=uuid4().hex, batch="B", step=step, act=act, person=person, pin=PINS[person])


def entry(step: str, text: str, person: str, *, verifies: bool = False) -> wire.EnterByHand:
    return wire.EnterByHand(
        id=uuid4().hex, batch="B", step=step, text=text, verifies=verifies, person=person, pin=PINS[person]
    )


async def log_in(client: DeskClient) -> None:
    await client.ask(wire.LogIn(id=uuid4().hex, person="ana", pin=PINS["ana"]))


async def test_a_dead_device_gives_way_to_entries_by_two_people_and_is_never_told_what_they_did(
    box: Config, tmp_path: Path, port: int
) -> None:
    box.plant.write_text(PLANT.format(port=port))
    (box.recipes / "paper.yaml").unlink()
    (box.recipes / "feed.yaml").write_text(RECIPE)
    async with running(box) as desk, connect(desk) as client:
        await log_in(client)
        answer = await client.ask(wire.AskStatus(id=uuid4().hex))
        (recipe,) = wire.Picture.model_validate(answer["picture"]).recipes
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B", order="O", recipe=recipe.seal))
        await until(lambda: _asked(client))  # nobody is at the other end: the write was refused
        assert "take by hand" in {one.act for one in (await card(client)).hands if one.step == "010"}
        with pytest.raises(LinesideError) as refused:
            await client.ask(switch("010", person="ben"))
        assert refused.value.code == "people.not_permitted"
        await client.ask(switch("010"))
        (shown,) = (await card(client)).active
        assert (shown.asks, shown.hand is not None and shown.hand.mode) == ("hand", "semi-automatic")
        await client.ask(entry("010", "12.0071", "ana"))
        (shown,) = (await card(client)).active
        assert shown.hand is not None
        assert (shown.hand.verifies, shown.hand.entered_by) == (True, "ana")
        assert "12.0071" not in shown.model_dump_json(), "the second person must not see the first entry"
    async with running(box) as desk, connect(desk) as client:  # and now the power of the box was off for a while
        await log_in(client)
        with pytest.raises(LinesideError) as refused:
            await client.ask(entry("010", "11.995", "ben", verifies=True))
        assert refused.value.code == "hand.differs"
        await client.ask(entry("010", "12", "ana"))
        await client.ask(entry("010", "12.0", "ben", verifies=True))
        await until(lambda: at_step(client, "020"))
        await client.ask(switch("020"))
        await client.ask(entry("020", "11.9", "ana"))
        control = SimControl(tmp_path / "pump.sock")
        async with serve_pump_and_balance("127.0.0.1", port, seed=1, speed=1.0, control=control.path):
            await until(lambda: _is_back(client))
            assert await at_step(client, "020"), "what is measured again is not mixed in"
            await client.ask(entry("020", "11.9", "ben", verifies=True))
            await until(lambda: at_step(client, "030"))
            await client.ask(wire.ConfirmStep(id=uuid4().hex, batch="B", step="030"))
            assert (await card(client)).state == "complete"
            assert (await control.counters())["P-1.speed_setpoint"] == 0, "the box did what a person had done"
    with JournalReader(box.state_dir / "journal.db") as reader:
        record = as_built((row.seq, decode(row.body)) for row in reader.rows(0, 10_000))["B"]
    codes = [(one.step, one.code, one.category) for one in record.exceptions]
    assert ("010", "step.by_hand", "major") in codes
    assert ("020", "step.by_hand", "major") in codes
    assert ("010", "hand.differs", "minor") in codes
    text = as_text(record)
    for said in (
        "BY HAND, not measured: P-1.speed_setpoint = 12.0 mL/min, entered by ana, verified by ben as verifier",
        "BY HAND, not measured: P-1.speed = 11.9 mL/min",
        "(by hand, ben)",
        "went from automatic to semi-automatic",
    ):
        assert said in text


async def _asked(client: DeskClient) -> bool:
    return bool((await card(client)).questions)


async def _is_back(client: DeskClient) -> bool:
    found = next((one for one in (await card(client)).active if one.step == "020"), None)
    return found is not None and found.hand is not None and "can be used again" in found.hand.back
