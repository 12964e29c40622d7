"""A correction at a running box: signed by somebody who may, verified by a stranger, without a patient identity."""

from __future__ import annotations

from uuid import uuid4

import pytest

from edge import wire
from edge.config import Config
from edge.core.errors import LinesideError
from edge.desk_client import DeskClient, connect
from edge.verify import Trust, verify
from tests.edge.conftest import running

DIN = "=A99992612345600"


async def ask(client: DeskClient, kind: type, **facts: object) -> dict:
    return await client.ask(kind(id=uuid4().hex, **facts))


async def card(client: DeskClient) -> wire.BatchCard:
    return wire.Picture.model_validate((await ask(client, wire.AskStatus))["picture"]).batches[0]


async def test_a_correction_is_signed_verifies_and_holds_no_identity(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await ask(client, wire.LogIn, person="ana", pin="2580")
        picture = wire.Picture.model_validate((await ask(client, wire.AskStatus))["picture"])
        seal = picture.recipes[0].seal
        await ask(client, wire.StartBatch, batch="B1", order="O-1", recipe=seal, patient=DIN)
        await ask(client, wire.ConfirmStep, batch="B1", step="010")
        await ask(client, wire.ScanCode, batch="B1", step="020", text=DIN)
        await ask(client, wire.EnterValue, batch="B1", step="030", text="85")
        (value,) = (await card(client)).values
        assert (value.name, value.text) == ("viability", "85")
        facts = {"batch": "B1", "name": "viability", "was_seq": value.seq, "text": "95", "reason": f"bag {DIN}"}
        with pytest.raises(LinesideError, match=r"people\.wrong_pin"):
            await ask(client, wire.CorrectValue, **facts, person="ana", pin="0000")
        with pytest.raises(LinesideError, match=r"people\.not_permitted"):
            await ask(client, wire.CorrectValue, **facts, person="ben", pin="1470")
        assert (await card(client)).values == (value,)
        await ask(client, wire.CorrectValue, **facts, person="ana", pin="2580")
        (right,) = (await card(client)).values
        assert right.text == "95"
        assert right.seq > value.seq
    report = verify(box.state_dir / "journal.db", Trust())
    assert report.ok, report.fault
    assert report.signatures == 1
    written = b"".join(path.read_bytes() for path in box.state_dir.glob("journal.db*"))
    assert b"ValueCorrected" in written
    assert DIN.encode() not in written
