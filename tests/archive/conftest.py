"""Boxes with an archive on another medium, and with more rows than are to stay in the journal."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.archive import Record, record_of
from edge.config import Config, read_config
from edge.core.events import LogInRefused, RowBody
from edge.core.record import Row
from edge.journal import open_journal
from tests.crash.runs import AT
from tests.edge.conftest import box, made_once

__all__ = ["box", "made_once"]
OLD_ROWS = 9_500


@pytest.fixture
def medium() -> Iterator[Path]:
    """A folder on another medium than the tests' own folders: memory."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="lineside-archive-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def old_once(made_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box folder whose journal has many rows already."""
    folder = tmp_path_factory.mktemp("old") / "box"
    shutil.copytree(made_once, folder)
    (folder / "state").mkdir(exist_ok=True)

    async def fill() -> None:
        async with open_journal(folder / "state" / "journal.db", folder / "state" / "epoch") as journal:
            for n in range(0, OLD_ROWS, 500):
                events = (LogInRefused(person="unknown", failures=k, locked=False) for k in range(n, n + 500))
                await journal.append([RowBody(event, AT, "lineside") for event in events]).durable()

    asyncio.run(fill())
    return folder


def with_archive(folder: Path, text: str) -> Config:
    file = folder / "lineside.toml"
    file.write_text(file.read_text() + "[archive]\nkeep_rows = 1000\n" + text)
    config = read_config(folder)
    assert config.archive is not None
    return config.model_copy(update={"archive": config.archive.model_copy(update={"keep_rows": 20})})


@pytest.fixture
def old(old_once: Path, tmp_path: Path, medium: Path) -> Config:
    """A box of its own with many rows and an archive on another medium."""
    shutil.copytree(old_once, tmp_path / "old")
    return with_archive(tmp_path / "old", f'path = "{medium}"\nexternal = true\n')


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints after a few rows, and looks without waiting."""
    for name, value in {
        "edge.checkpoints.EVERY_ROWS": 20,
        "edge.checkpoints.LOOK_EVERY_S": 0.02,
        "edge.archiver.LOOK_EVERY_S": 0.02,
        "edge.prune.PAUSE_S": 0.0,
        "edge.archive.KEPT_ROWS_MIN": 20,
        "edge.core.line.SEAL_ROWS": 16,
    }.items():
        monkeypatch.setattr(name, value)


def all_rows(config: Config) -> list[Row]:
    """Every row of the box, read and chained from row 1 on."""
    from edge.core.record import ZERO_HASH, chain_faults

    with record_of(config) as record:
        rows = _rows(record)
        for fault in chain_faults(record.journal_id, rows, previous=ZERO_HASH):
            raise AssertionError(fault)
    return rows


def _rows(record: Record) -> list[Row]:
    rows: list[Row] = []
    while more := record.rows(len(rows), 5_000):
        rows += more
    return rows
