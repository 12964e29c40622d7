"""Orders at the desk: from a person, from a stick, from the hub; and what is left of them after a restart."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from edge import order_command, wire
from edge.config import Config, read_config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.orders import Order, read_signed, signed
from edge.core.proposals import Proposal
from edge.core.recipe.amend import Change
from edge.desk_client import connect
from edge.identity import DeviceKey
from hub.config import init_hub, read_hub, read_key
from hub.orders import sign_order
from tests.edge.conftest import running
from tests.edge.test_desk import log_in, look, name, refused, rows

ORDER = Order("ORD-1", "PAPER", due="2026-12-24", quantity="2 bags")


def give(order: Order, way: str = "scanned") -> wire.GiveOrder:
    return wire.GiveOrder.model_validate({"id": name(), "text": order.as_bytes().decode(), "way": way})


@pytest.fixture
def hub(box: Config, tmp_path: Path) -> tuple[Config, Path]:
    """A box that knows a hub, and the hub's folder, which knows the box as line-1."""
    folder = tmp_path / "hub"
    init_hub(folder)
    (folder / "devices" / "line-1.pub").write_bytes((box.folder / "device.pub").read_bytes())
    (box.folder / "hub.pub").write_bytes((folder / "hub.pub").read_bytes())
    text = (box.folder / "lineside.toml").read_text()
    more = '[numbers]\nprefix = "B-"\nlast = 50\n[hub]\npublic_key = "hub.pub"\n'
    (box.folder / "lineside.toml").write_text(text + more)
    return read_config(box.folder), folder


async def test_an_order_waits_over_a_restart_and_is_started_by_its_line_with_a_scanned_patient(
    hub: tuple[Config, Path],
) -> None:
    box, _ = hub
    async with running(box) as socket, connect(socket) as client:
        assert (await refused(client, give(ORDER))).code == "session.none"
        await log_in(client)
        await client.ask(give(ORDER))
        other = await refused(client, give(replace(ORDER, quantity="3 bags")))
        assert (other.code, "another content" in other.what) == ("order.refused", True)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        picture = await look(client)
        (waits,) = picture.orders
        assert (waits.order, waits.title, waits.needs_patient) == ("ORD-1", "Paper on glass", True)
        assert picture.number == "B-0001"
        start = wire.StartBatch(id=name(), batch="", order="ORD-1", recipe=waits.recipe)
        assert (await refused(client, start)).code == "batch.patient", "the order alone is no patient's identity"
        begun = await client.ask(start.model_copy(update={"id": name(), "patient": "=DIN1"}))
        assert begun["batch"] == "B-0001"
        assert (await look(client)).orders == ()
        again = start.model_copy(update={"id": name(), "patient": "=DIN1"})
        assert (await refused(client, again)).code == "order.used"
    made = [row.event for row in rows(box)]
    assert sum(isinstance(event, ev.OrderReceived) for event in made) == 1
    assert sum(isinstance(event, ev.OrderRefused) for event in made) == 1


async def test_no_identity_stands_in_an_order(hub: tuple[Config, Path]) -> None:
    box, _ = hub
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await client.ask(give(ORDER))
        (waits,) = (await look(client)).orders
        known = "=W4747 18 123456"
        await client.ask(wire.StartBatch(id=name(), batch="", order="ORD-1", recipe=waits.recipe, patient=known))
        assert (await refused(client, give(replace(ORDER, order="ORD-2", quantity=known)))).code == "order.identity"


async def test_what_the_hub_signed_for_this_box_needs_nobody_and_nothing_else_passes(hub: tuple[Config, Path]) -> None:
    box, folder = hub
    file, topic = sign_order(folder, "line-1", ORDER.as_bytes())
    assert topic.startswith("lineside/1/down/")
    text, signature = read_signed(file)
    good = wire.GiveOrder(id=name(), text=text, way="hub", signature=signature)
    stranger = DeviceKey.create(folder / "other.key")
    wrong = [
        read_signed(signed(ORDER, DeviceKey.load(box.device_key).public, stranger)),
        read_signed(signed(ORDER, stranger.public, read_key(read_hub(folder)))),
        (text.replace("2 bags", "9 bags"), signature),
    ]
    async with running(box) as socket, connect(socket) as client:
        for other_text, other in wrong:
            request = wire.GiveOrder(id=name(), text=other_text, way="hub", signature=other)
            assert (await refused(client, request)).code == "order.signature"
        await client.ask(good)
        await client.ask(good.model_copy(update={"id": name()}))
        assert [one.order for one in (await look(client)).orders] == ["ORD-1"]
    (received,) = [row.event for row in rows(box) if isinstance(row.event, ev.OrderReceived)]
    assert received.way == "hub"


async def test_what_the_hub_proposes_comes_as_an_order_does_and_must_be_signed(hub: tuple[Config, Path]) -> None:
    box, folder = hub
    said = Proposal("P-1", "B-0001", "1", "2199-12-31", "count once more", (Change("skip", "030"),))
    text, signature = read_signed(sign_order(folder, "line-1", said.as_bytes())[0])
    good = wire.GiveOrder(id=name(), text=text, way="hub", signature=signature)
    async with running(box) as socket, connect(socket) as client, connect(socket) as follower:
        await log_in(client)
        seal = (await look(client)).recipes[0].seal
        await client.ask(wire.StartBatch(id=name(), batch="B-0001", order="O", recipe=seal, patient="=DIN-NOBODY-1"))
        unsigned = good.model_copy(update={"id": name(), "signature": ""})
        assert (await refused(client, unsigned)).code == "proposal.unsigned"
        changed = good.model_copy(update={"id": name(), "text": text.replace("030", "010")})
        assert (await refused(client, changed)).code == "order.signature"
        await follower.ask(good)
        await follower.ask(good.model_copy(update={"id": name()}))
        other = Proposal("P-2", "B-9", "1", "2199-12-31", "count =DIN-NOBODY-1")
        for wrong, code in ((other, "order.identity"), (replace(other, reason="count"), "proposal.refused")):
            text, signature = read_signed(
                sign_order(folder, "line-1", replace(wrong, changes=said.changes).as_bytes())[0]
            )
            asked = wire.GiveOrder(id=name(), text=text, way="hub", signature=signature)
            assert (await refused(follower, asked)).code == code
        assert any(
            "proposes to amend batch B-0001. P-1: count once more" in one for one in (await look(client)).notices
        )
        await client.ask(wire.ConfirmStep(id=name(), batch="B-0001", step="010"))
        (offer,) = (await look(client)).batches[0].offers
        assert (offer.kind, "does not let step 030 be skipped" in offer.refused) == ("proposed", True)
    (taken,) = [row.event for row in rows(box) if isinstance(row.event, ev.AmendmentProposed)]
    assert (taken.batch, taken.way) == ("B-0001", "hub")


async def test_the_commands_bring_show_and_cancel_an_order(
    hub: tuple[Config, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box, folder = hub
    (folder / "order.txt").write_text("LSO1;O=ORD-9;R=PAPER;Q=1 bag")
    file, _ = sign_order(folder, "line-1", (folder / "order.txt").read_bytes())
    (folder / "stick.json").write_bytes(file)
    monkeypatch.setattr("edge.order_command.sys.stdin.readline", lambda: "2580\n", raising=False)

    def said() -> dict[str, list[dict[str, object]]]:
        found: dict[str, list[dict[str, object]]] = orjson.loads(capsys.readouterr().out)
        return found

    async with running(box):
        await asyncio.to_thread(order_command.import_order, folder / "stick.json", "", box.folder, as_json=True)
        assert [one["order"] for one in said()["orders"]] == ["ORD-9"]
        await asyncio.to_thread(order_command.show_order, "ORD-9", box.folder, as_json=True)
        assert orjson.loads(capsys.readouterr().out)["quantity"] == "1 bag"
        with pytest.raises(LinesideError) as unsigned:
            await asyncio.to_thread(order_command.import_order, folder / "order.txt", "", box.folder, as_json=True)
        assert unsigned.value.code == "order.person"
        await asyncio.to_thread(order_command.cancel_order, "ORD-9", "ordered twice", "ana", box.folder, as_json=True)
        assert said()["orders"] == []
        with pytest.raises(LinesideError) as gone:
            await asyncio.to_thread(order_command.show_order, "ORD-9", box.folder, as_json=True)
        assert gone.value.code == "order.unknown"
        await asyncio.to_thread(order_command.list_orders, box.folder, as_json=False)
        assert capsys.readouterr().out == "No order waits.\n"
