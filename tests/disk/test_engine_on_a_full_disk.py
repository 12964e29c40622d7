"""The runtime in this process, where the system's answer about free space is the test's: needs no privileges."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from edge import runtime, wire
from edge.config import read_config
from edge.core.room import BACK_BYTES, LOW_BYTES
from edge.desk_client import DeskClient, connect
from edge.journal import verify_journal


async def shown(client: DeskClient) -> wire.Picture:
    answer = await client.ask(wire.AskStatus(id=uuid4().hex))
    return wire.Picture.model_validate(answer["picture"])


async def test_a_full_disk_holds_what_runs_and_lets_it_be_stopped(
    made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = SimpleNamespace(f_bavail=10 * LOW_BYTES, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: said)
    shutil.copytree(made_once, tmp_path / "b")
    config = read_config(tmp_path / "b")
    ballast, stop = config.state_dir / "ballast", asyncio.Event()
    running = asyncio.create_task(runtime.run(config, stop))
    while not config.desk_socket.exists():
        assert not running.done()
        await asyncio.sleep(0)
    async with connect(config.desk_socket) as client:
        await client.ask(wire.LogIn(id=uuid4().hex, person="chi", pin="3690"))
        seal = (await shown(client)).recipes[0].seal
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B", order="O", recipe=seal))
        assert ballast.exists()
        said.f_bavail = 0
        while (picture := await shown(client)).batches[0].state == "running":
            pass
        assert picture.batches[0].state == "held"
        assert "The disk is full: 0.0 MiB free" in picture.batches[0].reason
        assert "The disk is full" in picture.notices[0]
        assert not ballast.exists()
        await client.ask(wire.ActOnBatch(id=uuid4().hex, batch="B", act="stop"))
        assert (await shown(client)).batches[0].state == "stopped"
        said.f_bavail = BACK_BYTES
        while "nearly full" not in (await shown(client)).notices[0]:
            pass
        assert ballast.exists()
    stop.set()
    await running
    assert verify_journal(config.state_dir / "journal.db").ok
