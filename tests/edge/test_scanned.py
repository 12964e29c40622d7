"""Scanners that say which kind of code they read, beside those that do not."""

from __future__ import annotations

import pytest

from edge import wire
from edge.config import Config
from edge.core import events as ev
from edge.desk_client import connect
from tests.edge.conftest import running
from tests.edge.test_desk import log_in, look, name, rows


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("]C1019501101530003", "019501101530003"),  # GS1-128
        ("]d2019501101530003", "019501101530003"),  # GS1 DataMatrix
        ("]C0=A99991712345600", "=A99991712345600"),  # ISBT 128
        (" ]Q3LOT-1", "LOT-1"),
        ("=A99991712345600", "=A99991712345600"),
        ("LOT]C1", "LOT]C1"),
        ("]", "]"),
        ("", ""),
    ],
)
def test_a_code_is_what_stands_behind_its_symbology(typed: str, code: str) -> None:
    assert wire.ScanCode(id="1", batch="B", step="10", text=typed).text == code
    assert wire.StartBatch(id="1", batch="B", order="O", recipe="0" * 64, patient=typed).patient == code


async def test_two_scanners_one_of_which_says_the_symbology_give_one_patient(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        seal = (await look(client)).recipes[0].seal
        await client.ask(wire.StartBatch(id=name(), batch="B1", order="O-1", recipe=seal, patient="]C0=DIN1"))
        await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
        # as another program writes it, which does not use our classes
        as_scanned = {"id": name(), "do": "scan", "batch": "B1", "step": "020", "text": "]d2=DI\x1dN1"}
        await client.ask(wire.ScanCode.model_construct(**as_scanned))
    made = [row.event for row in rows(box)]
    assert not [one for one in made if isinstance(one, ev.ScanRefused)]
    assert [one.source for one in made if isinstance(one, ev.ValueRecorded)] == ["scanned"]
