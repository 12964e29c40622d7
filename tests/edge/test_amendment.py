"""An amendment at a running box without a hub: requested and agreed to at the desk, kept through a crash, verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from edge import wire
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.review import as_built, as_text
from edge.desk_client import DeskClient, connect
from edge.journal import JournalReader
from edge.verify import Trust, verify
from tests.edge.conftest import running

DIN = "=A99992612345600"
TERMS = """amendments:
  bounds:
    - {step: "030", field: limit.low, low: 70, high: 90, why: Below 70 % the cells do not grow.}
  skip: ["030"]
  signed_by: [verifier]
"""


async def ask(client: DeskClient, kind: type, **facts: object) -> dict[str, Any]:
    return await client.ask(kind(id=uuid4().hex, **facts))


async def card(client: DeskClient) -> wire.BatchCard:
    return wire.Picture.model_validate((await ask(client, wire.AskStatus))["picture"]).batches[0]


async def test_old_new_bounds_and_why_are_shown_others_agree_and_a_crash_changes_nothing(box: Config) -> None:
    (path,) = Path(box.recipes).glob("*.yaml")
    path.write_text(path.read_text().replace("procedure:", TERMS + "procedure:", 1))
    change = wire.Amend(kind="value", subject="030", field="limit.low", text="75")
    async with running(box) as socket, connect(socket) as client:
        await ask(client, wire.LogIn, person="ana", pin="2580")
        picture = wire.Picture.model_validate((await ask(client, wire.AskStatus))["picture"])
        seal = picture.recipes[0].seal
        await ask(client, wire.StartBatch, batch="B1", order="O-1", recipe=seal, patient=DIN)
        value, skip = (await card(client)).offers
        assert (value.value, value.low, value.high, value.why, value.refused) == (
            "80", "70", "90", "Below 70 % the cells do not grow.", "",
        )  # fmt: skip
        assert skip.kind == "skip"
        asks = {"batch": "B1", "changes": (change,), "reason": f"bag {DIN} is late", "pin": "2580"}
        with pytest.raises(LinesideError, match=r"people\.not_permitted"):
            await ask(client, wire.RequestAmendment, **asks | {"person": "ben", "pin": "1470"})
        await ask(client, wire.RequestAmendment, **asks, person="ana")
        waits = (await card(client)).amendment
        assert waits is not None
        assert waits.needs == ("verifier",)
        assert any("80 → 75" in one and "70 to 90" in one for one in waits.differences)
        shown = wire.Picture.model_validate((await ask(client, wire.AskStatus))["picture"])
        assert "Amendment A1 of batch B1, requested by ana, waits for: verifier." in shown.notices
        settles = {"batch": "B1", "amendment": "A1", "agree": True}
        with pytest.raises(LinesideError, match=r"signature\.role"):
            await ask(client, wire.SettleAmendment, **settles, person="ana", pin="2580")
    async with running(box) as socket, connect(socket) as client:
        await ask(client, wire.LogIn, person="ana", pin="2580")
        assert (await card(client)).amendment == waits, "what was requested is still there"
        await ask(client, wire.SettleAmendment, **settles, person="ben", pin="1470")
        assert (await card(client)).amendment is None
        assert (await card(client)).offers[0].value == "75"
    async with running(box) as socket, connect(socket) as client:
        await ask(client, wire.LogIn, person="ana", pin="2580")
        after = await card(client)
        assert after.offers[0].value == "75"
        assert any("requested by ana, agreed by ben" in one.what for one in after.exceptions)
        await ask(client, wire.ConfirmStep, batch="B1", step="010")
        await ask(client, wire.ScanCode, batch="B1", step="020", text=DIN)
        (step,) = (await card(client)).active
        assert (step.step, step.low) == ("030", 75.0)
        await ask(client, wire.EnterValue, batch="B1", step="030", text="78")
        assert not [one for one in (await card(client)).exceptions if one.step == "030"]
    report = verify(box.state_dir / "journal.db", Trust())
    assert report.ok, report.fault
    assert report.signatures == 2
    with JournalReader(box.state_dir / "journal.db") as reader:
        rows = [(row.seq, decode(row.body)) for row in reader.rows(0, 10_000)]
    text = as_text(as_built(rows)["B1"])
    assert "requested by ana" in text
    assert "ben as verifier" in text
    assert DIN not in text
