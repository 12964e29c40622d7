"""Runtime and follower killed at any moment of archiving and pruning: every row is still there, once, and verified."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from edge import wire
from edge.archive import list_segments, verify_archive
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.review import as_built
from edge.desk_client import connect
from edge.journal import JournalReader, verify_journal
from tests.archive.conftest import all_rows
from tests.archive.test_prune import begin, name, scan

ROOT = Path(__file__).parents[2]
BOX = Path(__file__).with_name("quick_box.py")
SEED = int(os.environ.get("LINESIDE_SEED", "11"))
KILLS = int(os.environ.get("LINESIDE_KILLS", "2"))
LOOK_S = 0.005


@asynccontextmanager
async def process(config: Config, part: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The runtime ("run") or the follower ("follow"), killed on leaving if it was not before."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        str(BOX),
        "edge",
        part,
        "--box",
        str(config.folder),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def until(holds: Callable[[], bool], *children: asyncio.subprocess.Process) -> None:
    """Wait until it holds; fails when a process ends before."""
    ends = [asyncio.create_task(child.wait()) for child in children]
    try:
        async with asyncio.timeout(60):
            while not holds():
                ended, _ = await asyncio.wait(ends, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                assert not ended
    finally:
        for end in ends:
            end.cancel()
        await asyncio.wait(ends)


async def answers(config: Config, child: asyncio.subprocess.Process) -> None:
    await until(config.desk_socket.exists, child)
    async with asyncio.timeout(60):
        while True:  # the socket of a killed runtime is there still, and nobody answers
            try:
                async with connect(config.desk_socket) as client:
                    await client.ask(wire.AskStatus(id=name()))
                    return
            except LinesideError:
                looked = iter((False, True))
                await until(lambda looked=looked: next(looked), child)


def progress(config: Config) -> int:
    """Grows with every segment and with every part that left."""
    assert config.archive is not None
    with JournalReader(config.state_dir / "journal.db") as reader:
        return reader.first_seq() // 150 + len(list_segments(config.archive.path, reader.journal_id))


def files_agree(config: Config) -> None:
    report = verify_journal(config.state_dir / "journal.db")
    assert report.ok, report.fault
    rows = all_rows(config)
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.timeout(300)
async def test_killed_at_any_moment_no_row_is_lost_and_it_goes_on(old: Config) -> None:
    chance = random.Random(SEED)
    assert old.archive is not None
    async with process(old, "run") as runtime:
        await answers(old, runtime)
        async with connect(old.desk_socket) as client:
            await begin(client)
            await scan(client, 40)
    for _ in range(KILLS):
        async with process(old, "run") as runtime, process(old, "follow") as follower:
            due = progress(old) + chance.randrange(1, 9)
            await answers(old, runtime)
            victim = chance.choice((runtime, follower))
            await until(lambda due=due: progress(old) >= due, runtime, follower)
            victim.kill()
            await victim.wait()
        files_agree(old)
    async with process(old, "run") as runtime, process(old, "follow") as follower:
        await answers(old, runtime)
        await until(lambda: first(old) > 8_000, runtime, follower)
        async with connect(old.desk_socket) as client:
            status = wire.Picture.model_validate((await client.ask(wire.AskStatus(id=name())))["picture"])
            assert [batch.batch for batch in status.batches] == ["B1"]
    files_agree(old)
    record = as_built((row.seq, decode(row.body)) for row in all_rows(old))["B1"]
    assert len(next(step for step in record.steps if step.step == "020").refused_scans) == 40
    assert verify_archive(old, old.archive) > 8_000


def first(config: Config) -> int:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return reader.first_seq()


async def lineside(config: Config, *arguments: str) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge",
        *arguments,
        "--box",
        str(config.folder),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_the_commands_archive_list_verify_and_say_how_it_stands(old: Config, medium: Path) -> None:
    async with process(old, "run") as runtime:
        await answers(old, runtime)  # seals what is there
        await until(lambda: sealed(old), runtime)
    code, out, _ = await lineside(old, "archive", "status", "--json")
    assert code == 0
    assert json.loads(out)["archived_seq"] == 0
    assert json.loads(out)["due_seq"] > 8_000
    code, out, _ = await lineside(old, "archive", "now", "--json")
    assert code == 0
    (segment,) = json.loads(out)["segments"]
    code, out, _ = await lineside(old, "archive", "list", "--json")
    assert json.loads(out)["segments"][0]["last_seq"] == segment["last_seq"] > 8_000
    code, out, _ = await lineside(old, "archive", "verify", "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "rows": segment["last_seq"]})
    code, out, _ = await lineside(old, "archive", "status")
    assert f"{segment['last_seq']:,}" in out
    path = medium / segment["file"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 2
    path.write_bytes(data)
    code, out, _ = await lineside(old, "archive", "verify")
    assert code == 1
    assert "DOES NOT HOLD" in out
    code, _, err = await lineside(old.model_copy(update={"folder": old.folder.parent}), "archive", "now")
    assert code == 2
    assert "config.missing" in err


def sealed(config: Config) -> bool:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return any(row.body.startswith(b'{"kind":"Sealed"') for row in reader.rows_back(50))
