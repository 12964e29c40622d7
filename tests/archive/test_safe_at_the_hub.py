"""Rows leave a box that has no medium of its own, by the hub's backup alone: real processes from journal to copy."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from edge import follow
from edge.config import Config
from edge.core import events as ev
from edge.core.events import decode
from edge.core.frame import read_receipt
from edge.desk_client import connect
from edge.identity import read_public
from edge.journal import JournalReader
from tests.archive.conftest import OLD_ROWS, all_rows, with_archive
from tests.archive.test_prune import begin, first_seq, scan, verdict
from tests.edge.conftest import running
from tests.hub.sync_parts import MOSQUITTO, Broker, HubProcess

pytestmark = pytest.mark.usefixtures("quick")


def _events(config: Config) -> list[ev.Event]:
    return [decode(row.body).event for row in all_rows(config)]


def _received_seq(config: Config) -> int:
    """What the box's newest row of a receipt says that the hub holds."""
    with JournalReader(config.state_dir / "journal.db") as reader:
        rows = reader.rows(OLD_ROWS, 5_000)
    events = [decode(row.body).event for row in rows]
    return max((event.stored_seq for event in events if isinstance(event, ev.ReceiptStored)), default=0)


async def back_up(hub: HubProcess, to: Path) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "hub", "backup", str(to), "--hub", str(hub.folder), "--json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(out))


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
async def test_rows_leave_by_the_hubs_backup_alone(old_once: Path, tmp_path: Path, medium: Path) -> None:
    shutil.copytree(old_once, tmp_path / "old")
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    await broker.start()
    hub = HubProcess(tmp_path / "hub", broker.url)
    shutil.copy(hub.folder / "hub.pub", tmp_path / "old" / "hub.pub")
    config = with_archive(tmp_path / "old", f'[broker]\nurl = "{broker.url}"\n[hub]\npublic_key = "hub.pub"\n')
    hub.trust(read_public(tmp_path / "old" / "device.pub"))
    stop = asyncio.Event()
    try:
        await hub.start()
        async with running(config) as socket, connect(socket) as client, asyncio.timeout(120):
            following = asyncio.create_task(follow.follow(config, stop), name="follower")
            await begin(client)
            while _received_seq(config) < OLD_ROWS:
                assert not following.done()
                await scan(client)
            assert first_seq(config) == 1, "nothing is safe yet"
            made = await back_up(hub, medium / "hub.db")
            while first_seq(config) == 1:
                assert not following.done()
                await scan(client)
            stop.set()
            await following
        assert isinstance(made["rows"], int)
        assert first_seq(config) - 1 <= made["rows"]
        pruned = [event for event in _events(config) if isinstance(event, ev.RowsPruned)]
        assert {event.safe for event in pruned} == {"hub"}
        for event in pruned:
            receipt = read_receipt(event.receipt, hub.public)
            assert event.through_seq <= receipt.safe_seq <= made["rows"]
        segments = sorted((config.state_dir / "archive").glob("*.lsa"))
        keys = ("--key", str(tmp_path / "old" / "device.pub"), "--hub-key", str(hub.folder / "hub.pub"))
        found = await verdict(*keys, str(config.state_dir / "journal.db"), *map(str, segments))
        assert found["ok"], found
    finally:
        await hub.end()
        await broker.kill()
