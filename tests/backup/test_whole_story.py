"""The whole story with real processes: archived, pruned, backed up, lost, restored, gone on with, verified, erased."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from demo.cable import cable
from demo.rig import DIN, PEOPLE, Rig, _free_port
from demo.script import PINS
from edge import wire
from edge.archive import Record, record_of
from edge.backup import back_up
from edge.config import read_config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import Event, decode
from edge.core.record import Row
from edge.core.review import AsBuilt, as_built
from edge.history import HistoryReader
from edge.journal import JournalReader
from edge.vault import find
from provisioning.device import init_device
from tests.kit.operator import Operator, logged_in

BOX = str(Path(__file__).with_name("short_box.py"))
ROOT = Path(__file__).parents[2]
FIRST, SECOND = "B-001", "B-002"
AFTER_A_WHILE = "032"
"""The step at which the first batch is aborted."""
BEFORE_BACKUP, BEFORE_MEDIUM_FAILS, BEFORE_LOSS = "041", "060", "070"
"""Steps at which the operator of the second batch waits."""


@pytest.fixture
def medium() -> Iterator[Path]:
    """A folder on another medium than the tests' own folders: memory."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="lineside-story-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Story:
    """One line, and what outlives a box of it: `shelf` is the second medium's folder and the archive's."""

    line: Rig
    shelf: Path
    former: list[Path] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.shelf / "archive"

    def equip(self, mirror: Path) -> None:
        """Write the box's settings: an archive on a medium of its own, a second medium, the keys of former boxes."""
        assert self.line.network is not None
        mirror.mkdir(exist_ok=True)
        self.archive.mkdir(exist_ok=True)
        self.line.settle(self.line.network.port)
        file = self.line.box / "lineside.toml"
        text = file.read_text().replace(str(self.line.folder / "second-medium"), str(mirror))
        former = json.dumps([path.name for path in self.former])
        file.write_text(f'former_keys = {former}\n{text}\n[archive]\npath = "{self.archive}"\nexternal = true\n')

    async def start_box(self) -> None:
        await self.line.start_runtime(BOX)
        await self.line.start_follower(BOX)

    def rows(self) -> list[Row]:
        """Every row, from the archive and the journal."""
        with record_of(read_config(self.line.box)) as record:
            return all_of(record)

    def events(self, kind: type[Event]) -> list[Any]:
        with JournalReader(self.line.journal) as reader:
            rows = reader.rows(reader.first_seq() - 1, 1_000_000)
        return [event for row in rows if isinstance(event := decode(row.body).event, kind)]

    def records(self) -> dict[str, AsBuilt]:
        return as_built((row.seq, decode(row.body)) for row in self.rows())

    def head(self) -> int:
        with JournalReader(self.line.journal) as reader:
            return reader.head()[0]

    def first(self) -> int:
        with JournalReader(self.line.journal) as reader:
            return reader.first_seq()

    async def lineside(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command line, as an engineer uses it, in a process of its own."""
        command = [sys.executable, "-m", "edge", *arguments]
        return await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)

    async def verified(self) -> dict[str, Any]:
        """What `lineside verify` says of journal and archive together, which must hold."""
        keys = [word for key in (*self.former, self.line.box / "device.pub") for word in ("--key", str(key))]
        done = await self.lineside(
            *("verify", str(self.line.journal), str(self.archive), *keys, "--json"),
            *("--hub-key", str(self.line.hub / "hub.pub")),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (whole,) = json.loads(done.stdout)["records"]
        return dict(whole)

    async def hub_agrees(self) -> bool:
        """The hub has every row that the box made, and the box's own strip says so too."""

        def get() -> Any:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.line.hub_port}/api/boxes", timeout=5) as answer:
                return json.load(answer)["boxes"]

        made = self.head()
        boxes, strip = await asyncio.to_thread(get), (await self.line.picture()).strip
        assert strip.made == strip.sync.received_seq + strip.pending
        newest = max(boxes, key=lambda box: int(box["received"]))
        assert int(newest["made"]) == int(newest["received"]) + int(newest["pending"])
        return bool(int(newest["received"]) >= made and strip.sync.received_seq >= made)


def all_of(record: Record) -> list[Row]:
    rows: list[Row] = []
    while more := record.rows(len(rows), 5_000):
        rows += more
    return rows


@asynccontextmanager
async def story(folder: Path, shelf: Path) -> AsyncIterator[Story]:
    line = Rig(folder, speed=100_000.0, cell_speed=400.0, seed=1)
    line.lay_out()
    line.hub_port = _free_port()
    try:
        await asyncio.gather(line.start_cell(), line.start_broker())
        async with cable(line.broker_port) as network:
            line.network = network
            made = Story(line, shelf)
            made.equip(shelf / "second-medium")
            await line.start_hub()
            await made.start_box()
            yield made
            await line.end()
    finally:
        await line.end()


async def waits_at(told: Story, batch: str, step: str) -> None:
    """Return once the batch is at `step`, which its operator leaves."""

    async def there() -> bool:
        cards = (await told.line.picture()).batches
        return any(active.step == step for card in cards if card.batch == batch for active in card.active)

    await told.line.until(there, f"{batch} does not come to {step}", told.line.processes["runtime"])


@pytest.mark.timeout(240)
async def test_a_box_is_lost_in_mid_batch_and_everything_comes_back_from_an_older_backup(
    tmp_path: Path, medium: Path
) -> None:
    backup = tmp_path / "box-1.tar"
    async with story(tmp_path / "line", medium) as told, asyncio.TaskGroup() as tasks:
        line = told.line
        runtime = line.processes["runtime"]
        first = Operator(line, FIRST, leaves={AFTER_A_WHILE})
        beginning = tasks.create_task(first.work())
        await waits_at(told, FIRST, AFTER_A_WHILE)
        beginning.cancel()
        await asyncio.wait({beginning})
        async with logged_in(line) as client:
            await client.ask(wire.ActOnBatch(id=uuid4().hex, batch=FIRST, act="abort", reason="the bag leaks"))
        await line.until(lambda: told.records()[FIRST].state == "aborted", "the first batch does not end", runtime)
        first_made = told.records()[FIRST]

        # Rows leave the journal while the second batch runs.
        operator = Operator(line, SECOND, leaves={BEFORE_BACKUP, BEFORE_MEDIUM_FAILS, BEFORE_LOSS})
        working = tasks.create_task(operator.work())
        await waits_at(told, SECOND, BEFORE_BACKUP)
        await line.until(lambda: told.first() > 50, "no row leaves the journal", runtime, line.processes["follower"])
        assert told.events(ev.ValuesSealed), "no window of process values is sealed"

        # The backup, and more rows to the second medium, then to the hub alone.
        backed_up = (await asyncio.to_thread(back_up, read_config(line.box), backup)).head_seq
        operator.leaves.discard(BEFORE_BACKUP)
        await waits_at(told, SECOND, BEFORE_MEDIUM_FAILS)
        at = told.head()
        await line.until(lambda: copied(line, at), "the second medium gets no rows", line.processes["follower"])
        shutil.copytree(medium / "second-medium", medium / "taken-out")
        operator.leaves.discard(BEFORE_MEDIUM_FAILS)
        await waits_at(told, SECOND, BEFORE_LOSS)
        await line.until(told.hub_agrees, "the hub does not get the rows", line.processes["follower"])

        # The box is lost with its disk.
        working.cancel()
        await asyncio.wait({working})
        await asyncio.gather(runtime.kill(), line.processes["follower"].kill())
        lost = told.rows()
        config = tmp_path / "kept"
        shutil.copytree(line.box, config, ignore=shutil.ignore_patterns("state", "device.key"))
        shutil.rmtree(line.box)

        # Another one takes its place.
        init_device(line.box, box="BOX-1", people=PEOPLE)
        shutil.copytree(config / "recipes", line.box / "recipes", dirs_exist_ok=True)
        for name in ("plant.yaml", "directory.toml", "hub.pub"):
            shutil.copy(config / name, line.box / name)
        told.former.append(line.box / "box-1-before.pub")
        shutil.copy(config / "device.pub", told.former[0])
        shutil.copy(line.box / "device.pub", line.hub / "devices" / "box-1-new.pub")
        told.equip(medium / "second-medium-of-the-new-box")
        done = await told.lineside(
            *("restore", str(backup), str(line.box), "--key", str(told.former[0])),
            *("--mirror", str(medium / "taken-out"), "--json"),
        )
        assert done.returncode == 0, done.stderr
        tail = json.loads(done.stdout)["tail"]
        assert backed_up < tail["mirror_seq"] < tail["hub_seq"] == tail["last_seq"], tail
        assert told.rows() == lost[: tail["last_seq"]], "byte for byte, what the lost box made"

        # Batches are held; a supervisor signs that they go on; the batch ends.
        await told.start_box()
        (card,) = [card for card in (await line.picture()).batches if card.batch == SECOND]
        assert (card.state, card.restored) == ("held", True)
        assert f"row {tail['last_seq']}" in card.reason
        async with logged_in(line, "chi") as client:
            go_on = wire.ActOnBatch(id=uuid4().hex, batch=SECOND, act="resume", reason="compared")
            with pytest.raises(LinesideError, match=r"batch\.restored:"):  # without a signature
                await client.ask(go_on)
            signed = wire.ContinueBatch(
                id=uuid4().hex, batch=SECOND, reason="compared with the hub", person="chi", pin=PINS["chi"]
            )
            await client.ask(signed)
        await Operator(line, SECOND).work()
        await line.until(told.hub_agrees, "the hub does not get the new box's rows", line.processes["follower"])

        # Everything is there, and holds from row 1 on.
        records = told.records()
        assert records[FIRST].outline() == first_made.outline()
        assert records[SECOND].state == "complete"
        patient = records[SECOND].patient
        assert find(line.journal.with_name("vault.db"), DIN) == patient
        with HistoryReader(line.journal.with_name("history.db")) as reader:
            assert reader.newest_us() > 0
        async with logged_in(line, "dot") as client:
            await client.ask(wire.EraseIdentity(id=uuid4().hex, pseudonym=patient, reason="asked for it"))
        assert find(line.journal.with_name("vault.db"), DIN) is None
        await line.until(told.hub_agrees, "the hub does not hear of the erasing", line.processes["follower"])
        assert await line.processes["runtime"].end() == 0
        whole = await told.verified()
        assert (whole["first_row"], whole["last_row"]) == (1, told.head()), whole
        assert told.first() > 50, "the restored journal is a pruned one"


def copied(line: Rig, seq: int) -> Any:
    async def there() -> bool:
        return (await line.picture()).strip.sync.copied_seq >= seq

    return there()
