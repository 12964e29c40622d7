"""Rows leave the journal while a batch runs: what is archived and safe, and nothing else."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest

import edge.prune
from edge import wire
from edge.archive import archive_next, list_segments
from edge.archiver import Archiver
from edge.backup import back_up, drill
from edge.clock import SystemClock
from edge.config import Config, read_config
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.frame import Receipt, make_receipt
from edge.core.line import Batch, Book, Line
from edge.core.record import fingerprint
from edge.core.review import as_built
from edge.desk_client import DeskClient, connect
from edge.identity import DeviceKey
from edge.journal import JournalReader, verify_journal
from edge.tail import open_tail
from tests.archive.conftest import all_rows, with_archive
from tests.crash.runs import AT
from tests.edge.conftest import running
from tests.verify.record import HUB

pytestmark = pytest.mark.usefixtures("quick")


def name() -> str:
    return uuid4().hex


async def begin(client: DeskClient, batch: str = "B1") -> None:
    await client.ask(wire.LogIn(id=name(), person="ana", pin="2580"))
    picture = wire.Picture.model_validate((await client.ask(wire.AskStatus(id=name())))["picture"])
    seal = picture.recipes[0].seal
    await client.ask(wire.StartBatch(id=name(), batch=batch, order="O-1", recipe=seal, patient="=DIN1"))
    await client.ask(wire.ConfirmStep(id=name(), batch=batch, step="010"))


async def scan(client: DeskClient, times: int = 1, batch: str = "B1") -> None:
    """Each makes two rows."""
    for _ in range(times):
        with pytest.raises(LinesideError, match=r"scan\.refused"):
            await client.ask(wire.ScanCode(id=name(), batch=batch, step="020", text="=OTHER"))


def first_seq(config: Config) -> int:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return reader.first_seq()


def archived(config: Config) -> int:
    """Archive all that is due; gives the last archived row."""
    assert config.archive is not None
    signer = DeviceKey.load(config.device_key)
    while archive_next(config, config.archive, signer, SystemClock().utc(), rows_min=1):
        pass
    with JournalReader(config.state_dir / "journal.db") as reader:
        listed = list_segments(config.archive.path, reader.journal_id)
        return listed[-1].last_seq if listed else 0


async def ask(client: DeskClient, through_seq: int, receipt: str = "") -> int:
    answer = await client.ask(wire.PruneRows(id=name(), through_seq=through_seq, receipt=receipt))
    return int(answer["pruned_seq"])


async def refused(work: Awaitable[object], code: str, *words: str) -> None:
    with pytest.raises(LinesideError) as error:
        await work
    assert error.value.code == code, error.value
    for word in words:
        assert word in error.value.what


async def until(holds: Callable[[], bool], meanwhile: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await meanwhile()


@asynccontextmanager
async def archiving(config: Config) -> Any:
    assert config.archive is not None
    signer = DeviceKey.load(config.device_key)
    made = Archiver(config, config.archive, signer, receipt=str, on_change=lambda: None)
    task = asyncio.create_task(made.run(), name="archiver")
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def verdict(*arguments: str) -> dict[str, Any]:
    """What the stand-alone verifier says."""
    import sys

    process = await asyncio.create_subprocess_exec(
        sys.executable, "edge/verify.py", "--json", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return dict(json.loads(out))


async def test_rows_leave_while_a_batch_runs_and_everybody_still_reads_all_of_them(old: Config, tmp_path: Path) -> None:
    assert old.archive is not None
    async with running(old) as socket, connect(socket) as client:
        await begin(client)
        async with archiving(old) as archiver:
            await until(lambda: first_seq(old) > 8_000, lambda: scan(client))
            assert archiver.detail == ""
        signer = DeviceKey.load(old.device_key)
        async with open_tail(old.state_dir / "journal.db", signer, old) as tail:
            assert [row.seq for row in await tail.rows(0, 3)] == [1, 2, 3]
            seq = 1
            while seq < tail.made_seq:  # as to a new hub, or to a new second medium
                _, last = await tail.frame_from(seq)
                seq = last + 1
            assert await tail.hash_at(17) == (await tail.rows(16, 1))[0].hash
            await tail.hail(0)
        await asyncio.to_thread(back_up, old, tmp_path / "box.tar")
    report = verify_journal(old.state_dir / "journal.db")
    assert report.ok, report.fault
    assert report.first_seq == first_seq(old)
    rows = all_rows(old)
    record = as_built((row.seq, decode(row.body)) for row in rows)["B1"]
    assert len(next(step for step in record.steps if step.step == "020").refused_scans) > 10
    said = [event for row in rows if isinstance(event := decode(row.body).event, ev.RowsPruned)]
    assert [event.first_seq for event in said[1:]] == [event.through_seq + 1 for event in said[:-1]]
    assert {event.safe for event in said} == {"medium"}
    drilled = await asyncio.to_thread(drill, tmp_path / "box.tar", signer.public)
    assert drilled.manifest.head_seq <= rows[-1].seq
    found = await verdict(str(old.state_dir / "journal.db"), *map(str, sorted(old.archive.path.glob("*.lsa"))))
    assert found["ok"], found
    async with running(old) as socket, connect(socket) as client:  # from its checkpoints
        assert (await client.ask(wire.AskStatus(id=name())))["picture"]["batches"][0]["batch"] == "B1"


def without_checkpoints(config: Config) -> None:
    """A thread of the runtime that has just ended may still be writing one."""
    while (folder := config.state_dir / "checkpoints").exists():
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_start_without_a_checkpoint_reads_the_archive(old: Config, medium: Path) -> None:
    async with running(old) as socket, connect(socket) as client:
        await begin(client)
        async with archiving(old):
            await until(lambda: first_seq(old) > 8_000, lambda: scan(client))
    without_checkpoints(old)
    async with running(old) as socket, connect(socket) as client:
        assert (await client.ask(wire.AskStatus(id=name())))["picture"]["batches"][0]["batch"] == "B1"
    without_checkpoints(old)
    medium.rename(medium.with_name("away"))
    try:
        with pytest.raises(LinesideError, match=r"archive\.rows_absent"):
            async with running(old):
                pass
    finally:
        medium.with_name("away").rename(medium)


async def test_rows_since_the_oldest_batch_under_way_began_stay(old: Config) -> None:
    async with running(old) as socket, connect(socket) as client:
        await begin(client)
        began = next(row.seq for row in all_rows(old) if isinstance(decode(row.body).event, ev.BatchStarted))
        await scan(client, 60)
        last = archived(old)
        assert last > began
        assert await ask(client, last) == began - 1
        await refused(ask(client, last), "prune.too_far", "batch")
        assert first_seq(old) == began
    assert len(all_rows(old)) > last


async def test_without_another_medium_and_without_a_hub_nothing_leaves(old_once: Path, tmp_path: Path) -> None:
    shutil.copytree(old_once, tmp_path / "old")
    config = with_archive(tmp_path / "old", "")
    async with running(config) as socket, connect(socket) as client:
        await begin(client)
        await scan(client, 50)
        last = archived(config)
        assert last > 8_000
        await refused(ask(client, last), "prune.too_far", "safe")
    assert first_seq(config) == 1


async def test_a_folder_that_is_not_on_another_medium_is_none(old: Config, tmp_path: Path, medium: Path) -> None:
    assert old.archive is not None
    for folder, code in ((tmp_path, "archive.not_external"), (medium / "not there", "archive.absent")):
        lying = old.model_copy(update={"archive": old.archive.model_copy(update={"path": folder})})
        with pytest.raises(LinesideError, match=code):
            archived(lying)
    assert not list(tmp_path.glob("*.lsa"))


async def test_what_a_verified_backup_of_the_hub_has_may_leave(old_once: Path, tmp_path: Path) -> None:
    shutil.copytree(old_once, tmp_path / "old")
    (tmp_path / "old" / "hub.pub").write_text(HUB.public.hex() + "\n")
    config = with_archive(tmp_path / "old", '[hub]\npublic_key = "hub.pub"\n')
    device = DeviceKey.load(config.device_key)
    async with running(config) as socket, connect(socket) as client:
        await begin(client)
        await scan(client, 60)
        last = archived(config)
        row = all_rows(config)[8_999]
        with JournalReader(config.state_dir / "journal.db") as reader:
            journal_id = reader.journal_id.hex()
        good = Receipt(
            hub=fingerprint(HUB.public),
            incarnation="aa" * 16,
            device=device.fingerprint,
            journal=journal_id,
            epoch=row.epoch.hex(),
            stored_seq=row.seq,
            safe_seq=5_000,
            head_hash=row.hash.hex(),
            wanted_seq=0,
            utc=AT.utc,
        )
        for change in ({"device": "bb" * 16}, {"journal": "bb" * 16}, {"head_hash": "bb" * 32}, {"safe_seq": 0}):
            text = make_receipt(good.model_copy(update=change), HUB)
            await refused(ask(client, last, text), "prune.too_far", "safe")
        await refused(ask(client, last, make_receipt(good, device)), "frame.receipt_signature")
        assert first_seq(config) == 1
        text = make_receipt(good, HUB)
        assert await ask(client, last, text) == 5_000
        await refused(ask(client, last, text), "prune.too_far", "safe")
    assert first_seq(config) == 5_001
    said = [decode(row.body).event for row in all_rows(config) if b'"RowsPruned"' in row.body[:30]]
    assert {(event.safe, event.receipt) for event in said if isinstance(event, ev.RowsPruned)} == {("hub", text)}


async def test_a_segment_that_does_not_hold_lets_nothing_leave(old: Config, medium: Path) -> None:
    async with running(old) as socket, connect(socket) as client:
        await begin(client)
        await scan(client, 50)
        await refused(ask(client, 8_000), "prune.not_archived")
        archived(old)
        await scan(client, 5)
        last = archived(old)
        kept = {path: path.read_bytes() for path in sorted(medium.glob("*.lsa"))}
        assert len(kept) > 1
        path, whole = next(iter(kept.items()))
        for at in (200, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
            await refused(ask(client, last), "archive.damaged")
        path.write_bytes(whole[:-1])
        await refused(ask(client, last), "archive.damaged")
        path.unlink()
        await refused(ask(client, last), "archive.gap")
        for other in kept.keys() - {path}:
            other.unlink()
        await refused(ask(client, last), "prune.not_archived")
        assert first_seq(old) == 1
        for one, content in kept.items():
            one.write_bytes(content)
        assert await ask(client, last) > 8_000


async def test_a_segment_of_other_rows_lets_nothing_leave(old: Config, old_once: Path, tmp_path: Path) -> None:
    """Made by the same device of a journal with the same id: a restored one that went another way."""
    shutil.copytree(old_once, tmp_path / "other")
    other = read_config(tmp_path / "other").model_copy(update={"archive": old.archive})
    (other.state_dir / "epoch").write_text("ab" * 16 + "\n")
    from edge.core.events import LogInRefused, RowBody
    from edge.journal import open_journal

    for config, person in ((old, "mine"), (other, "theirs")):
        async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
            rows = [RowBody(LogInRefused(person=person, failures=1, locked=False), AT, "lineside")] * 3_000
            await journal.append(rows).durable()
    async with running(other):
        pass
    last = archived(other)
    assert last > 9_500
    async with running(old) as socket, connect(socket) as client:
        await begin(client)
        await scan(client, 50)
        await refused(ask(client, last), "archive.contradicts")
        with pytest.raises(LinesideError, match=r"archive\.contradicts"):
            archived(old)
    assert first_seq(old) == 1


# What may go is decided on evidence, and each condition counts -------------------------------------------------------


def a_line(**changes: Any) -> Line:
    batch = Batch("B1", "O", "", "R", "1", "s", 1, {}, 1.0, started_seq=900)
    line = Line(book=mock.Mock(spec=Book), seq=2_000, sealed_seq=950, batches={"B1": batch})
    return replace(line, **changes)


GOOD: dict[str, Any] = {
    "first_seq": 101,
    "through_seq": 899,
    "through_hash": "00" * 32,
    "segments": (
        cm.Archived(first_seq=1, last_seq=500, sha256="a"),
        cm.Archived(first_seq=501, last_seq=990, sha256="b"),
    ),
    "on_medium": True,
    "hub_safe_seq": 0,
    "receipt": "",
    "prunable_seq": 960,
}


@pytest.mark.parametrize(
    ("line", "evidence", "word"),
    [
        ({}, {"segments": ()}, "archive"),
        ({}, {"segments": GOOD["segments"][:1]}, "archive"),
        ({}, {"segments": GOOD["segments"][1:]}, "archive"),
        ({}, {"on_medium": False}, "safe"),
        ({}, {"on_medium": False, "hub_safe_seq": 898}, "safe"),
        ({}, {"prunable_seq": 898}, "start"),
        ({"sealed_seq": 898}, {}, "sealed"),
        ({}, {"through_seq": 900}, "batch"),
    ],
)
def test_each_condition_refuses_by_itself(line: dict[str, Any], evidence: dict[str, Any], word: str) -> None:
    now = Now(AT, lambda _: None)
    with pytest.raises(LinesideError) as error:
        decide(a_line(**line), cm.PruneRows(**GOOD | evidence), now)
    assert error.value.code == "prune.too_far"
    assert word in error.value.what
    (row,) = decide(a_line(), cm.PruneRows(**GOOD), now)
    assert isinstance(row.event, ev.RowsPruned)
    (row,) = decide(a_line(), cm.PruneRows(**GOOD | {"on_medium": False, "hub_safe_seq": 899}), now)
    assert isinstance(row.event, ev.RowsPruned)


def losses(config: Config, *, safe_seq: int) -> list[str]:
    """What is not as it must be after pruning: looked at from outside, without any of the decision's own code."""
    found = []
    first = first_seq(config)
    try:
        rows = all_rows(config)
    except (LinesideError, AssertionError) as error:
        found.append(f"rows are missing: {error}")
        rows = []
    if first - 1 > safe_seq:
        found.append(f"rows to {first - 1} left, and only {safe_seq} are safe")
    began = [row.seq for row in rows if isinstance(decode(row.body).event, ev.BatchStarted)]
    if began and first > began[0]:
        found.append(f"rows left since batch B1 began with {began[0]}")
    return found


@pytest.mark.parametrize("bug", ["nothing", "not safe", "beyond the archive", "a live batch", "not read back"])
async def test_planted_bugs_are_found(old_once: Path, tmp_path: Path, medium: Path, bug: str) -> None:
    shutil.copytree(old_once, tmp_path / "old")
    external = f'path = "{medium}"\nexternal = true\n'
    config = with_archive(tmp_path / "old", "" if bug == "not safe" else external)
    assert config.archive is not None
    safe_seq = 0 if bug == "not safe" else 1 << 40
    async with running(config) as socket, connect(socket) as client:
        await begin(client)
        await scan(client, 60)
        last = archived(config)
        if bug == "nothing":
            await ask(client, last)
        elif bug == "not safe":
            await prune_without_looking(config, client, 1_000)
        elif bug == "beyond the archive":
            min(medium.glob("*.lsa")).unlink()
            await prune_without_looking(config, client, 1_000)
        elif bug == "a live batch":
            with mock.patch.object(Line, "live", return_value=[]):
                await ask(client, last)
        else:
            path = min(medium.glob("*.lsa"))
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            await prune_without_looking(config, client, 1_000)
    assert bool(losses(config, safe_seq=safe_seq)) == (bug != "nothing")


async def prune_without_looking(config: Config, client: DeskClient, through_seq: int) -> None:
    """The runtime with the bug that it believes: no segment is read, and all evidence is as one would wish."""

    def look(*_: object) -> Any:
        with JournalReader(config.state_dir / "journal.db") as reader:
            (row,) = reader.rows(through_seq - 1, 1)
        segment = cm.Archived(first_seq=1, last_seq=1 << 40, sha256="")
        return edge.prune._Evidence(segment, ((1, through_seq, row.hash),), 1 << 40, 1 << 40)

    with mock.patch.object(edge.prune.Pruner, "_look", look):
        await ask(client, through_seq)
