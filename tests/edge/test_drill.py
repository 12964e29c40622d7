"""The daily restore drill: a backup is made, restored, looked at, compared with the box, and everybody sees it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

import edge.drill
from edge import upkeep, wire
from edge.backup import DRILL
from edge.config import Config, read_config
from edge.core.errors import LinesideError
from edge.core.events import RowBody, ValuesSealed
from edge.desk_client import connect
from edge.drill import Report, backups_in, daily
from edge.follow import follow
from edge.journal import JournalReader, open_journal
from tests.crash.runs import body
from tests.edge.conftest import running


@pytest.fixture(autouse=True)
def no_lower_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that runs other tests beside, the lowest one comes after all of them."""
    monkeypatch.setattr(upkeep, "LOWEST_PRIORITY", 0)


@pytest.fixture
async def used(box: Config, tmp_path: Path) -> Config:
    """A box that ran once, with a folder for its backups."""
    (tmp_path / "medium").mkdir()
    with (box.folder / "lineside.toml").open("a") as file:
        file.write(f'\n[backup]\npath = "{tmp_path / "medium"}"\nkeep = 2\n')
    config = read_config(box.folder)
    async with running(config):
        pass
    return config


def folder_of(config: Config) -> Path:
    assert config.backup is not None
    return config.backup.path


async def tried(config: Config) -> Report:
    assert config.backup is not None
    return await asyncio.to_thread(daily, config, config.backup, progress=lambda *_: None)


async def tried_again(config: Config, monkeypatch: pytest.MonkeyPatch) -> Report:
    """As on a day on which no backup can be made: the newest one is tried."""

    def full(*_: object, **__: object) -> None:
        raise LinesideError("backup.no_space", "No room.", todo="Make some.")

    with monkeypatch.context() as context:
        context.setattr(edge.drill, "back_up", full)
        return await tried(config)


def found(report: Report, *words: str) -> bool:
    return all(any(word in sentence for sentence in report.found) for word in words)


async def add(config: Config, *bodies: RowBody) -> None:
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        await journal.append(list(bodies)).durable()


async def test_a_backup_of_a_running_box_is_made_restored_and_looked_at(
    used: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(used)
    (folder / f"{DRILL}cut-short").mkdir()
    (folder / "kept-by-a-person.tar").write_text("x")
    names = []
    for day in range(4):
        monkeypatch.setattr("edge.drill.SystemClock", lambda day=day: Clock(f"2026-11-2{day}T03:00:00.000000Z"))
        async with running(used):
            report = await tried(used)
        assert report.found == (), report.found
        assert report.head_seq > 2
        names.append(report.backup)
    journal = names[0].partition("-")[0]
    assert [path.name for path in backups_in(folder, journal)] == [names[3], names[2]]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*names[2:], "kept-by-a-person.tar"])


@dataclass
class Clock:
    utc: str

    def stamp(self) -> Clock:
        return self


async def another_life(config: Config) -> None:
    """The box goes on from an older copy of its state, with other rows under the same numbers."""
    older = config.folder / "older"
    shutil.copytree(config.state_dir, older)
    await add(config, *(body(f"lost {n}") for n in range(3)))
    assert (await tried(config)).found == ()
    shutil.rmtree(config.state_dir)
    older.rename(config.state_dir)
    await add(config, *(body(f"other {n}") for n in range(9)))


async def test_a_backup_of_another_history_is_found(used: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    await another_life(used)
    report = await tried_again(used, monkeypatch)
    assert found(report, "No backup was made. No room.", "is another row on this box")
    assert len(report.found) == 2, report.found


async def test_planted_bug_a_drill_that_does_not_compare_is_seen(used: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    await another_life(used)
    monkeypatch.setattr(edge.drill, "_compared", lambda *_: iter(()))
    assert not found(await tried_again(used, monkeypatch), "is another row on this box")


async def test_a_backup_with_rows_that_the_box_lacks_is_found(used: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    older = used.folder / "older"
    shutil.copytree(used.state_dir, older)
    await add(used, body("lost"))
    assert (await tried(used)).found == ()
    shutil.rmtree(used.state_dir)
    older.rename(used.state_dir)
    assert found(await tried_again(used, monkeypatch), "this box has no such row")


async def test_damage_in_a_backup_is_found(used: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = folder_of(used) / (await tried(used)).backup
    whole = bytearray(backup.read_bytes())
    whole[len(whole) // 2] ^= 4
    backup.write_bytes(whole)
    report = await tried_again(used, monkeypatch)
    assert found(report, f"{backup.name} cannot be restored. The backup is damaged.")
    assert report.head_seq == 0


@pytest.mark.parametrize("lacks", ["plant", "recipe", "vault.db"])
async def test_what_a_backup_lacks_is_found(used: Config, monkeypatch: pytest.MonkeyPatch, lacks: str) -> None:
    """The backup is whole and signed: what made it left something out."""
    if lacks == "vault.db":
        monkeypatch.setattr("edge.backup.VAULT", "no-such-file.db")
        assert found(await tried(used), "The box has a vault, and the backup has none.")
        return
    objects = edge.backup._sealed_objects

    def without(state: Path) -> dict[str, Path]:
        return {name: path for name, path in objects(state).items() if f"/{lacks}/" not in name}

    monkeypatch.setattr("edge.backup._sealed_objects", without)
    assert found(await tried(used), f"The {lacks} ", "is not in the backup.")


async def test_a_window_that_was_sealed_before_the_backup_and_is_not_in_it_is_found(used: Config) -> None:
    sealed = ValuesSealed(
        window=5,
        from_utc="2026-11-22T10:00:00.000000Z",
        to_utc="2026-11-22T10:10:00.000000Z",
        tags=1,
        samples=1,
        record_tags=0,
        root="ab" * 32,
        record_root="",
    )
    await add(used, RowBody(sealed, body("x").at, "lineside"))
    assert found(await tried(used), "Process values in the backup: 1 window is not stored")


async def test_a_medium_that_is_out_and_a_drill_that_runs_are_said(used: Config) -> None:
    folder = folder_of(used)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert found(await tried(used), "Another drill is at work")
    os.close(held)
    folder.rmdir()
    report = await tried(used)
    assert found(report, "for backups is not there")
    assert not folder.exists(), "it is never made by itself"


def test_the_command_says_what_it_found_and_without_a_folder_what_to_do(box: Config, tmp_path: Path) -> None:
    def drill() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "edge", "drill", "--json", "--box", str(box.folder)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    refused = drill()
    assert refused.returncode == 2
    assert refused.stderr.startswith("drill.no_folder: ")
    with (box.folder / "lineside.toml").open("a") as file:
        file.write(f'\n[backup]\npath = "{tmp_path / "out"}"\n')
    nothing = drill()
    assert (nothing.returncode, json.loads(nothing.stdout)["ok"]) == (1, False)


@pytest.mark.parametrize("out", [False, True])
async def test_the_follower_drills_and_everybody_at_the_box_sees_it(
    used: Config, monkeypatch: pytest.MonkeyPatch, *, out: bool
) -> None:
    if out:
        folder_of(used).rmdir()
    monkeypatch.setattr(upkeep, "SOON", timedelta(0))
    stop = asyncio.Event()
    async with running(used) as socket:
        following = asyncio.create_task(follow(used, stop))
        async with connect(socket) as client:
            seen = await shown(client.pictures, lambda picture: told(picture, out=out))
        stop.set()
        await following
    view = seen.drill
    assert view is not None
    assert bool(view.found) is out
    assert bool(view.backup) is not out
    assert [alarm.alarm for alarm in seen.alarms] == (["backup"] if out else [])
    assert not any("No backup was made" in notice for notice in seen.notices)
    async with running(used) as socket, connect(socket) as client:  # it is a row: another runtime knows it
        answer = await client.ask(wire.AskStatus(id=uuid4().hex))
        assert wire.Picture.model_validate(answer["picture"]).drill == view


def told(picture: wire.Picture, *, out: bool) -> bool:
    """There was a drill and, where it found something, the alarm that the next look raises."""
    return picture.drill is not None and (bool(picture.alarms) or not out)


async def shown(pictures: Callable[[], object], holds: Callable[[wire.Picture], bool]) -> wire.Picture:
    async for picture in pictures():  # type: ignore[attr-defined]
        if holds(picture):
            return picture
    raise AssertionError("the desk went away")


async def test_a_drill_that_dies_is_found_and_one_that_is_overdue_is_a_notice(
    used: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep.sys, "executable", shutil.which("false"))
    said = await upkeep.drill(used)
    assert "ended with code 1" in said.found[0]
    monkeypatch.setattr("edge.runtime.OVERDUE_AFTER", timedelta(microseconds=1))
    async with running(used) as socket, connect(socket) as client:
        first = await shown(client.pictures, lambda _: True)
        assert "No backup was made and tried yet" in " ".join(first.notices)
        await client.ask(wire.TellDrill(id=uuid4().hex, **said.model_dump()))
        seen = await shown(client.pictures, lambda picture: picture.drill is not None)
        assert "that is overdue" in " ".join(seen.notices)
    with JournalReader(used.state_dir / "journal.db") as reader:
        assert len(list(reader.rows_of_kind("BackupDrilled"))) == 1
