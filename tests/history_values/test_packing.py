"""Packing in a process of its own: what the follower asks for is done, and nothing of it stays in the follower."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from demo.rig import PEOPLE
from edge import packing
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.history import PACKED, SEALED, HistoryReader
from edge.packing import pack_and_thin
from provisioning.device import init_device
from tests.history_values.test_history import Box, S, filled, values
from tests.test_footprint import MODBUS


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "history.db")


async def seal(box: Box) -> None:
    """A sealed window, as when its row is durable."""
    await filled(box, 120)


def states(path: Path) -> list[int]:
    with HistoryReader(path) as reader:
        return list(reader.states())


async def test_all_that_is_sealed_is_packed_and_thinned_as_the_row_says(box: Box) -> None:
    await seal(box)
    kept = values(box.path, "A.level")
    asked: list[cm.ThinValues] = []

    async def thin(command: cm.ThinValues) -> None:
        assert len(values(box.path, "B.flow")) == 120, "thinned before there is a row"
        asked.append(command)

    await pack_and_thin(box.path, -1, 60 * S, set(), thin)
    assert states(box.path) == [PACKED]
    (command,) = asked
    assert (command.tags, command.samples_before) == (2, 240)
    assert values(box.path, "A.level") == kept
    assert len(values(box.path, "B.flow")) < 20
    with HistoryReader(box.path) as reader:
        assert not reader.waits(-1, set())


async def test_without_a_row_nothing_is_thinned_and_no_process_stays(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    await seal(box)
    pids = noted(monkeypatch)

    async def refuse(_: cm.ThinValues) -> None:
        raise LinesideError("values.of_a_record", "No.")

    with pytest.raises(LinesideError, match=r"No\."):
        await pack_and_thin(box.path, -1, 60 * S, set(), refuse)
    asked = asyncio.Event()

    async def wait(_: cm.ThinValues) -> None:
        asked.set()
        await asyncio.Event().wait()

    packs = asyncio.create_task(pack_and_thin(box.path, -1, 60 * S, set(), wait))
    await asked.wait()
    await pack_and_thin(box.path, -1, 60 * S, set(), refuse)  # another is at work: this one does nothing
    packs.cancel()
    with pytest.raises(asyncio.CancelledError):
        await packs
    assert len(values(box.path, "B.flow")) == 120
    assert len(pids) == 3
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_damaged_window_is_named_once_and_left(box: Box, caplog: pytest.LogCaptureFixture) -> None:
    await seal(box)
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute("UPDATE leaf SET hash=zeroblob(32) WHERE series=1")
    left: set[int] = set()
    for _ in range(2):
        await pack_and_thin(box.path, -1, 60 * S, left, nothing)
        (window,) = left
    assert states(box.path) == [SEALED]
    assert [record.message.count("is not what was sealed") for record in caplog.records] == [1]
    with HistoryReader(box.path) as reader:
        assert reader.waits(-1, set())
        assert not reader.waits(-1, {window})


async def test_a_round_that_fails_says_why(box: Box) -> None:
    box.path.write_text("no database at all, and long enough to be one" * 50)
    with pytest.raises(LinesideError, match="ended with code 2: ") as refusal:
        await pack_and_thin(box.path, -1, 0, set(), nothing)
    assert refusal.value.code == "values.not_packed"


async def nothing(_: cm.ThinValues) -> None:
    raise AssertionError("nothing to thin")


def noted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the processes that are started from now on."""
    pids: list[int] = []
    start = asyncio.create_subprocess_exec

    async def started(*arguments: str, **options: int) -> asyncio.subprocess.Process:
        child = await start(*arguments, **options)
        pids.append(child.pid)
        return child

    monkeypatch.setattr(packing.asyncio, "create_subprocess_exec", started)
    return pids


FOLLOW = """
import json, os, signal, sys
import edge.follow, edge.views
done = set()

def end(what):
    done.add(what)
    if done == {"packed", "views"}:
        print(json.dumps(sorted(sys.modules)), flush=True)
        import numpy  # who needs it later gets it
        assert numpy.arange(3).sum() == 3
        os.kill(os.getpid(), signal.SIGTERM)

pack, apply = edge.follow.pack_and_thin, edge.views.Views.apply

async def packs(*arguments):
    await pack(*arguments)
    end("packed")

def applies(*arguments):
    last = apply(*arguments)
    end("views")
    return last

edge.follow.pack_and_thin, edge.views.Views.apply = packs, applies
from edge.__main__ import main
main()
"""
RUN = """
import os, signal
from edge import notify
notify.ready = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
from edge.__main__ import main
main()
"""


def process(code: str, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("planted", ["", "import numpy\n"])
async def test_a_follower_that_packed_and_applied_views_has_no_numpy(tmp_path: Path, planted: str) -> None:
    folder = tmp_path / "box"
    init_device(folder, box="BOX-1", people=PEOPLE)
    (folder / "plant.yaml").write_text(MODBUS)
    process(RUN, "edge", "run", "--box", str(folder))
    values_db = folder / "state" / "history.db"
    values_db.unlink(missing_ok=True)
    await seal(Box(values_db))
    modules = json.loads(process(planted + FOLLOW, "edge", "follow", "--box", str(folder)))
    assert states(values_db) == [PACKED]
    assert "sqlite_utils" in modules
    assert ("numpy" in modules) is bool(planted)
    assert ("pcodec" in modules) is False
