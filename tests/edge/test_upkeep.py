"""The daily self-check: what it finds, when it runs, and that everybody at the box sees what it found."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from edge import upkeep, wire
from edge.archive import archive_next
from edge.clock import SystemClock
from edge.config import Config, read_config
from edge.core.errors import LinesideError
from edge.core.events import RowBody, ValuesSealed
from edge.desk_client import connect
from edge.follow import follow
from edge.identity import DeviceKey
from edge.journal import open_journal
from edge.upkeep import is_late, self_check
from tests.crash.runs import body
from tests.edge.conftest import running


@pytest.fixture(autouse=True)
def no_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that runs other tests beside, the lowest one comes after all of them."""
    monkeypatch.setattr(upkeep, "LOWEST_PRIORITY", 0)


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


async def test_a_spare_box_with_a_key_of_its_own_believes_the_former_ones(used: Config) -> None:
    """As after a restore onto it: the rows that it continues were sealed by the box that was lost."""
    lost = DeviceKey.load(used.device_key)
    (used.folder / "lost.pub").write_text(lost.public.hex() + "\n")
    used.device_key.unlink()
    DeviceKey.create(used.device_key)
    (used.state_dir / "epoch").unlink()
    async with running(used):
        pass
    (found,) = (await self_check(used)).found
    assert f"seal of device {lost.fingerprint}, whose key was not given" in found
    settings = used.folder / "lineside.toml"
    settings.write_text('former_keys = ["lost.pub"]\n' + settings.read_text())
    check = await self_check(read_config(used.folder))
    assert (check.found, check.left_out) == ((), ())
    (used.folder / "lost.pub").unlink()
    with pytest.raises(LinesideError, match='"former_keys" is') as refusal:
        read_config(used.folder)
    assert refusal.value.place is not None
    assert refusal.value.place.line == 1


@pytest.fixture
async def archived(used: Config, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The same box with an archive of two segments beside the journal, which still has all rows."""
    monkeypatch.setattr("edge.archive.KEPT_ROWS_MIN", 2)
    monkeypatch.setattr("edge.archive.SEGMENT_ROWS_MAX", 3)
    async with open_journal(used.state_dir / "journal.db", used.state_dir / "epoch") as journal:
        await journal.append([body(str(n)) for n in range(4)]).durable()
    async with running(used):
        pass
    text = (used.folder / "lineside.toml").read_text() + "[archive]\nkeep_rows = 1000\n"
    (used.folder / "lineside.toml").write_text(text)
    used = read_config(used.folder)
    assert used.archive is not None
    settings = used.archive.model_copy(update={"keep_rows": 2})
    for _ in range(2):
        archive_next(used, settings, DeviceKey.load(used.device_key), SystemClock().utc(), rows_min=1)
    return used


async def test_archive_and_journal_are_verified_as_one_chain(archived: Config) -> None:
    found = await self_check(archived)
    assert (found.found, found.left_out) == ((), ())
    first, second = segments(archived)
    whole = first.read_bytes()
    first.write_bytes(whole[:-40] + bytes([whole[-40] ^ 4]) + whole[-39:])
    assert first.name in (await self_check(archived)).found[0]
    first.write_bytes(whole)
    cut_journal(archived, through=6)
    second.unlink()
    assert "is missing" in " ".join((await self_check(archived)).found)
    first.unlink()
    assert "has no segment" in " ".join((await self_check(archived)).found)


async def test_a_medium_that_is_out_is_said_and_no_fault(archived: Config) -> None:
    assert archived.archive is not None
    out = archived.archive.model_copy(update={"external": True, "path": archived.folder / "not in"})
    found = await self_check(archived.model_copy(update={"archive": out}))
    assert found.found == ()
    assert "not in is not there" in found.left_out[0]


def segments(config: Config) -> list[Path]:
    assert config.archive is not None
    return sorted(config.archive.path.glob("*.lsa"))


def cut_journal(config: Config, through: int) -> None:
    """As after a pruning, but for the row that says so."""
    with sqlite3.connect(config.state_dir / "journal.db") as database:
        database.execute("DELETE FROM row WHERE seq <= ?", (through,))
    database.close()


async def test_process_values_are_compared_with_their_rows(used: Config) -> None:
    values = used.state_dir / "history.db"
    row = RowBody(
        ValuesSealed(
            window=5,
            from_utc="2026-11-22T10:00:00.000000Z",
            to_utc="2026-11-22T10:10:00.000000Z",
            tags=1,
            samples=1,
            record_tags=0,
            root="ab" * 32,
            record_root="",
        ),
        body("x").at,
        "lineside",
    )
    async with open_journal(used.state_dir / "journal.db", used.state_dir / "epoch") as journal:
        await journal.append([row]).durable()
    (found,) = (await self_check(used)).found
    assert "1 window is not stored" in found
    values.write_bytes(b"SQLite format 3" + bytes(5_000))
    (found,) = (await self_check(used)).found
    assert found.startswith("Process values: values.")
    values.unlink()
    (used.state_dir / "epoch").unlink()  # as after a restore
    async with running(used):
        pass
    check = await self_check(used)
    assert check.found == ()
    assert "not in what was restored" in check.left_out[0]


@pytest.mark.parametrize("kind", ["recipe", "plant"])
async def test_a_changed_sealed_object_is_named(used: Config, kind: str) -> None:
    sealed = next((used.state_dir / "library" / kind).iterdir())
    sealed.write_bytes(sealed.read_bytes().replace(b"e", b"a"))
    assert (await self_check(used)).found[0].startswith(f"{kind} {sealed.name[:16]}")


async def test_a_verifier_that_says_nothing_is_no_pass(
    used: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("import sys\nsys.exit(' '.join(sys.argv[1:4]))")
    monkeypatch.setattr(upkeep, "VERIFIER", silent)
    with pytest.raises(LinesideError, match="said nothing: --json --processes 1") as refusal:
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
    while not told.exists():  # noqa: ASYNC110  a file tells nobody of itself
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
            async for picture in client.pictures():
                view = picture.self_check
                if view is not None:
                    break
        assert view is not None
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
