"""The daily self-check: what it finds, when it runs, and that everybody at the box sees what it found."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from edge import upkeep, wire
from edge.config import Config
from edge.core.errors import LinesideError
from edge.desk_client import connect
from edge.follow import follow
from edge.identity import DeviceKey
from edge.upkeep import is_late, self_check
from tests.edge.conftest import running

NOW = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)


@pytest.fixture
async def used(box: Config) -> Config:
    """A box that ran once."""
    async with running(box):
        pass
    return box


async def test_a_whole_record_holds(used: Config) -> None:
    found = await self_check(used)
    assert found.found == ()
    assert found.rows == found.checked_seq > 2


async def test_a_changed_row_is_named(used: Config) -> None:
    change_row(used.state_dir / "journal.db", 2)
    found = await self_check(used)
    assert len(found.found) == 1
    assert "journal.db: row 2 does not hold" in found.found[0]


async def test_a_row_made_with_another_key_is_found(used: Config, tmp_path: Path) -> None:
    DeviceKey.create(tmp_path / "other.key")
    used = used.model_copy(update={"device_key": tmp_path / "other.key"})
    assert "does not hold" in (await self_check(used)).found[0]


@pytest.mark.parametrize("kind", ["recipe", "plant"])
async def test_a_changed_sealed_object_is_named(used: Config, kind: str) -> None:
    sealed = next((used.state_dir / "library" / kind).iterdir())
    sealed.write_bytes(sealed.read_bytes().replace(b"e", b"a"))
    assert (await self_check(used)).found[0].startswith(f"{kind} {sealed.name[:16]}")


async def test_a_verifier_that_says_nothing_is_no_pass(
    used: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("")
    monkeypatch.setattr(upkeep, "VERIFIER", silent)
    with pytest.raises(LinesideError, match="said nothing") as refusal:
        await self_check(used)
    assert refusal.value.code == "upkeep.no_verdict"


async def test_no_verifier_is_left_behind(used: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "pid"
    endless = tmp_path / "endless.py"
    endless.write_text(
        f"import os, pathlib, signal\np = pathlib.Path({str(told)!r})\n"
        "p.with_name('p').write_text(str(os.getpid()))\np.with_name('p').rename(p)\nsignal.pause()\n"
    )
    monkeypatch.setattr(upkeep, "VERIFIER", endless)
    checking = asyncio.create_task(self_check(used))
    while not told.exists():
        await asyncio.sleep(0)
    checking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await checking
    with pytest.raises(ProcessLookupError):
        upkeep.os.kill(int(told.read_text()), 0)


@pytest.mark.parametrize(
    ("last", "late"),
    [
        (None, True),
        (NOW, False),
        (NOW - timedelta(hours=23), False),
        (NOW - timedelta(hours=25), True),
        (NOW + timedelta(days=3), True),  # by a clock that was wrong
    ],
)
def test_a_missed_check_is_made_up_for(last: datetime | None, *, late: bool) -> None:
    assert is_late(last, NOW) is late


@pytest.mark.parametrize("damaged", [False, True])
async def test_the_follower_checks_and_everybody_at_the_box_sees_it(
    used: Config, monkeypatch: pytest.MonkeyPatch, *, damaged: bool
) -> None:
    if damaged:
        (used.state_dir / "library" / "plant" / ("0" * 64)).write_text("plant: changed")
    monkeypatch.setattr(upkeep, "SOON", timedelta(0))
    stop = asyncio.Event()
    async with running(used) as socket:
        following = asyncio.create_task(follow(used, stop))
        async with connect(socket) as client:
            view = None
            while view is None:
                answer = await client.ask(wire.AskStatus(id=uuid4().hex))
                view = wire.Picture.model_validate(answer["picture"]).self_check
        stop.set()
        await following
    assert view.rows > 2
    assert bool(view.found) is damaged
    async with running(used) as socket, connect(socket) as client:  # it is a row: another runtime knows it
        answer = await client.ask(wire.AskStatus(id=uuid4().hex))
        assert wire.Picture.model_validate(answer["picture"]).self_check == view


def change_row(path: Path, seq: int) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE row SET body = replace(body, '2026', '2025') WHERE seq = ?", (seq,))
        database.execute("UPDATE row SET body = CAST(body AS BLOB) WHERE seq = ?", (seq,))
    database.close()
