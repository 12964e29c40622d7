"""A box whose recipe scans a patient twice and a lot, with somebody who may erase."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

import pytest

from edge import wire
from edge.config import Config, read_config
from edge.core.terms import Role
from edge.desk_client import DeskClient
from provisioning.device import NewPerson, init_device

RECIPE = """\
recipe: SCANS
version: "1"
title: Scans
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "020", phase: scan, title: Bag, text: Scan the bag., name: din, expect: patient}
          - {id: "030", phase: scan, title: Lot, text: Scan the vector., name: vector, expect: lot, prefix: "V-"}
          - {id: "035", phase: scan, title: Any, text: Scan the medium., name: medium, expect: lot}
          - {id: "040", phase: record, title: Note, text: Say how it looks., name: note, type: text}
          - {id: "050", phase: record, title: Count, text: Count., name: count, unit: "%"}
          - {id: "060", phase: scan, title: Bag again, text: Scan the bag., name: din_again, expect: patient}
"""
PINS = {"ana": "2580", "dot": "7410"}
DIN = "=A999926123456700"
OTHER = "=A999926765432100"


def name() -> str:
    return uuid4().hex


async def log_in(client: DeskClient, person: str = "ana") -> None:
    await client.ask(wire.LogIn(id=name(), person=person, pin=PINS[person]))


async def look(client: DeskClient) -> wire.Picture:
    return wire.Picture.model_validate((await client.ask(wire.AskStatus(id=name())))["picture"])


async def start(client: DeskClient, batch: str = "B1", patient: str = DIN, order: str = "O-1") -> None:
    seal = (await look(client)).recipes[0].seal
    await client.ask(wire.StartBatch(id=name(), batch=batch, order=order, recipe=seal, patient=patient))


async def scan(client: DeskClient, step: str, text: str, batch: str = "B1") -> None:
    await client.ask(wire.ScanCode(id=name(), batch=batch, step=step, text=text))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vault") / "box"
    people = (
        NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), PINS["ana"], "B-ANA"),
        NewPerson("dot", "Dot Larsen", (Role.QUALITY,), PINS["dot"], "B-DOT"),
    )
    init_device(folder, box="BOX-V", people=people)
    (folder / "recipes" / "scans.yaml").write_text(RECIPE)
    (folder / "lineside.toml").write_text('box = "BOX-V"\nrecipe_approval = "from_folder"\n')
    return folder


@pytest.fixture
def box(made: Path, tmp_path: Path) -> Config:
    folder = tmp_path / "b"
    shutil.copytree(made, folder)
    return read_config(folder)
