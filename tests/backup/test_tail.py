"""The tail after a restore: rows behind the backup come back from second medium and hub, or nothing is restored."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

import edge.fetch as fetching
from edge import mqtt, wire
from edge.backup import back_up, restore
from edge.config import Config, read_config
from edge.core import events as ev
from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode
from edge.core.record import Row
from edge.desk_client import DeskClient, connect
from edge.fetch import TAIL, Sources, Tail, fetch, found, sources_of
from edge.follow import follow
from edge.identity import DeviceKey
from edge.journal import JournalReader, extended, open_journal, verify_journal
from edge.mirror import HEADER, Mirror
from edge.tail import open_tail
from edge.verify import Trust, verify
from hub.store import open_store
from tests.backup.conftest import PINS, Made, log_in, look, name
from tests.backup.test_backup_command import lineside
from tests.crash.runs import body
from tests.edge.conftest import RECIPE, running
from tests.hub.sync_parts import Broker, HubProcess, until

MIRRORED, STORED, MADE = 4, 7, 9
"""Rows behind the backup that the second medium has, that the hub has, and that the box made."""
SEED = int(os.environ.get("LINESIDE_SEED", "7"))


def quiet(*_: object) -> None:
    """Nobody watches."""


def refused(code: str, work: Callable[[], object]) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        work()
    assert error.value.code == code, error.value
    assert error.value.todo
    return error.value


def rows_of(config: Config) -> list[Row]:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return reader.rows(0, 10_000)


def intent() -> RowBody:
    """A write that was under way when the box was lost."""
    return RowBody(
        ev.CommandIntended(
            batch="B1", step="020", iteration=1, attempt=1, tag="PU-1.speed", value=1.0, unit="rpm", before=None
        ),
        body("x").at,
        "lineside",
    )


async def go_on(config: Config, count: int) -> None:
    """More rows of the same life: each an intent of its own batch's, then what was measured."""
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        known = RowBody(ev.RuntimeStopped(), body("x").at, "lineside")
        await journal.append([intent(), *[known] * (count - 1)]).durable()


async def copy(config: Config, folder: Path) -> None:
    """What the follower does for the second medium, until it is done."""
    async with open_tail(config.state_dir / "journal.db", DeviceKey.load(config.device_key)) as tail:
        changed = asyncio.Event()
        mirror = Mirror(tail, folder, signer=DeviceKey.load(config.device_key), on_change=changed.set, every_s=0.0)
        running = asyncio.create_task(mirror.run())
        await until(lambda: mirror.copied_seq == tail.made_seq, changed)
        running.cancel()
        await asyncio.wait({running})


async def send(config: Config, until_seq: int) -> None:
    """What the follower does for the hub, up to a row; the hub learns how many were made."""
    key, rows = DeviceKey.load(config.device_key), rows_of(config)
    with JournalReader(config.state_dir / "journal.db") as reader:
        journal = reader.journal_id
    assert config.broker
    async with mqtt.session(
        mqtt.read_address(config.broker.url, None), "t", subscribe=[f"lineside/1/down/{key.fingerprint}/receipt"]
    ) as link:
        data, count = frame.make(rows[:until_seq], journal=journal, previous=bytes(32), made_seq=len(rows), signer=key)
        assert count == until_seq
        while True:  # a hub that has not subscribed yet hears nothing
            with contextlib.suppress(LinesideError, TimeoutError):
                async with asyncio.timeout(0.3):
                    await link.publish(f"lineside/1/up/{key.fingerprint}/frames", data)
                    async for message in link:
                        if not message.retained and json.loads(message.payload)["stored_seq"] == until_seq:
                            return
            await asyncio.sleep(0)


@dataclass
class Site:
    """A box that was lost with its disk: what is left is a backup, a spare folder, second medium and hub."""

    lost: Config
    spare: Config
    backup: Path
    backup_seq: int
    medium: Path
    hub: HubProcess
    public: bytes

    def sources(self) -> Sources:
        return sources_of(self.spare, mirror=None, use_mirror=True, use_hub=True)

    def restore(self, sources: Sources, patience_s: float = 20.0) -> Tail:
        tails = []
        restore(
            self.backup,
            self.spare.state_dir,
            self.public,
            complete=lambda journal: tails.append(
                fetch(journal, self.public, sources, progress=quiet, patience_s=patience_s)
            ),
        )
        return tails[0]


@pytest.fixture
async def site(made: Made, tmp_path: Path, needs_program: Callable[[str], str]) -> AsyncIterator[Site]:
    needs_program("mosquitto")
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    await broker.start()
    medium = tmp_path / "medium"
    medium.mkdir()
    hub = HubProcess(tmp_path / "hub", broker.url)
    hub.trust(made.public)
    folders = []
    for which, ignored in (("lost", ()), ("spare", ("state",))):
        folder = tmp_path / which
        shutil.copytree(made.folder, folder, ignore=shutil.ignore_patterns(*ignored))
        shutil.copy(hub.folder / "hub.pub", folder / "hub.pub")
        with (folder / "lineside.toml").open("a") as file:
            file.write(
                f'\n[broker]\nurl = "{broker.url}"\n[hub]\npublic_key = "hub.pub"\n[mirror]\npath = "{medium}"\n'
            )
        folders.append(read_config(folder))
    try:
        await hub.start()
        lost, spare = folders
        backup_seq = len(rows_of(lost))
        await go_on(lost, MIRRORED)
        await copy(lost, medium)
        await go_on(lost, MADE - MIRRORED)
        await send(lost, backup_seq + STORED)
        yield Site(lost, spare, made.backup, backup_seq, medium, hub, made.public)
    finally:
        await hub.end()
        await broker.kill()


@asynccontextmanager
async def following(config: Config) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(follow(config, stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def received(client: DeskClient, seq: int) -> None:
    """Return once the box knows that the hub has its rows to `seq`."""
    async with asyncio.timeout(60):
        while True:
            if (await look(client)).strip.sync.received_seq >= seq:
                return
            await asyncio.sleep(0)


# The whole of it --------------------------------------------------------------------------------------------------


async def test_what_medium_and_hub_hold_comes_back_and_what_is_missing_is_a_number(site: Site) -> None:
    done = await asyncio.to_thread(lineside, "restore", site.backup, site.spare.folder)
    assert done.returncode == 0, done.stderr
    last = site.backup_seq + STORED
    assert f"ows to {site.backup_seq} from the backup, to {last - 3} from the second medium, to {last}" in done.stdout
    assert f"heard of is {last + 2}: 2 rows are missing." in done.stdout
    before = rows_of(site.lost)
    assert rows_of(site.spare) == before[:last], "byte for byte, with their epochs and hashes"
    async with running(site.spare) as socket, following(site.spare), connect(socket) as client:
        await log_in(client, "sue")
        seen = await look(client)
        card = seen.batches[0]
        assert (card.state, card.restored) == ("held", True)
        assert f"ends with row {last}" in card.reason
        assert "(2 missing)" in card.reason
        assert card.questions, "a write that was intended only in the tail is in doubt"
        question = card.questions[0]
        with pytest.raises(LinesideError, match=r"batch\.question_open"):
            await client.ask(
                wire.ContinueBatch(id=name(), batch="B1", reason="compared", person="sue", pin=PINS["sue"])
            )
        assert question.tag == "PU-1.speed"
        await received(client, last + 3)
    report = verify(site.spare.state_dir / "journal.db", Trust())
    assert report.ok, report.fault
    after = rows_of(site.spare)
    continued = next(event for row in after if isinstance(event := decode(row.body).event, ev.JournalContinued))
    assert (continued.last_seq, continued.last_hash) == (last, before[last - 1].hash.hex())
    assert (continued.backup_seq, continued.mirror_seq) == (site.backup_seq, site.backup_seq + MIRRORED)
    assert (continued.hub_seq, continued.heard_seq) == (last, last + 2)
    assert len({row.epoch for row in after[:last]}) == 1
    assert {row.epoch for row in after[last:]}.isdisjoint(row.epoch for row in after[:last])
    await site.hub.end()
    async with open_store(site.hub.folder / "hub.db", DeviceKey.load(site.hub.folder / "hub.key")) as store:
        first, second = sorted(await store.chains(), key=lambda chain: chain.base_seq)
        assert not await store.forks()
    assert (first.stored_seq, second.base_seq, second.beyond) == (last, last + 1, 0), "it goes on where the first ended"
    assert second.stored_seq + second.pending == second.made_seq


async def test_without_the_hub_rows_of_the_medium_go_up_and_the_chain_is_one(site: Site) -> None:
    (site.medium / "keep").mkdir()
    await copy(site.lost, site.medium)  # the second medium has them all now, the hub lacks two
    sources = sources_of(site.spare, mirror=None, use_mirror=True, use_hub=False)
    tail = await asyncio.to_thread(site.restore, sources)
    last = site.backup_seq + MADE
    assert (tail.last_seq, tail.hub_seq, tail.missing) == (last, None, 0)
    assert "hub was not asked" in tail.as_text()
    assert "may have made more" in tail.as_text()
    async with running(site.spare) as socket, following(site.spare), connect(socket) as client:
        assert "nobody has heard of a later one" in (await look(client)).batches[0].reason
        await received(client, last + 3)
    await site.hub.end()
    async with open_store(site.hub.folder / "hub.db", DeviceKey.load(site.hub.folder / "hub.key")) as store:
        first, second = sorted(await store.chains(), key=lambda chain: chain.base_seq)
        assert not await store.forks()
    assert (first.stored_seq, second.base_seq) == (last, last + 1)


async def test_a_spare_box_with_a_key_of_its_own_gets_them_too(site: Site) -> None:
    for path in (site.spare.device_key, site.spare.folder / "device.pub"):
        path.unlink()
    own = DeviceKey.create(site.spare.device_key)
    silent = await asyncio.to_thread(refused, "restore.hub_silent", lambda: site.restore(site.sources(), 1.0))
    assert own.fingerprint in silent.what, "it is not trusted there yet"
    site.hub.trust(own.public, "spare")
    tail = await asyncio.to_thread(site.restore, site.sources())
    assert tail.last_seq == site.backup_seq + STORED


async def test_a_hub_that_knows_nothing_or_less_says_so(site: Site, tmp_path: Path) -> None:
    """The backup is newer than what the hub has; and of another journal the hub has nothing."""
    out = tmp_path / "newer.tar"
    back_up(site.lost, out)
    site.backup = out
    sources = Sources(hub=site.sources().hub)
    tail = await asyncio.to_thread(site.restore, sources)
    assert (tail.backup_seq, tail.last_seq) == (site.backup_seq + MADE, site.backup_seq + MADE)
    assert (tail.hub_seq, tail.heard_seq) == (site.backup_seq + STORED, site.backup_seq + MADE)
    assert tail.missing == 0
    shutil.rmtree(site.spare.state_dir)
    shutil.rmtree(site.lost.state_dir)
    await new_journal(site.lost, 3)
    back_up(site.lost, tmp_path / "other.tar")
    site.backup = tmp_path / "other.tar"
    assert (await asyncio.to_thread(site.restore, sources)).hub_seq == 0


async def new_journal(config: Config, count: int) -> None:
    config.state_dir.mkdir(exist_ok=True)
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        await journal.append([body(str(n)) for n in range(count)]).durable()


async def test_a_source_that_is_not_reached_is_a_decision_and_not_an_accident(site: Site) -> None:
    (copied,) = site.medium.glob("*.frames")
    kept = copied.rename(site.medium / "kept")
    done = await asyncio.to_thread(lineside, "restore", site.backup, site.spare.folder)
    assert done.returncode == 2
    assert done.stderr.startswith("restore.no_copy: ")
    assert not site.spare.state_dir.exists()
    await site.hub.end()
    kept.rename(copied)
    await asyncio.to_thread(refused, "restore.hub_silent", lambda: site.restore(site.sources(), 0.5))
    assert not site.spare.state_dir.exists()
    done = await asyncio.to_thread(
        lineside, "restore", site.backup, site.spare.folder, "--no-hub", "--mirror", site.medium, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tail"]["mirror_seq"] == site.backup_seq + MIRRORED
    assert json.loads(done.stdout)["tail"]["hub_seq"] is None


# Other histories ---------------------------------------------------------------------------------------------------


async def another_life(made: Made, folder: Path, medium: Path, count: int) -> Config:
    """A restored box that went on by itself from the backup, and was copied."""
    shutil.copytree(made.folder, folder, ignore=shutil.ignore_patterns("state"))
    config = read_config(folder)
    restore(made.backup, config.state_dir, made.public)
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        await journal.append([body(str(n)) for n in range(count)]).durable()
    medium.mkdir()
    await copy(config, medium)
    return config


async def fork(made: Made, tmp_path: Path) -> tuple[Path, Path]:
    """A backup of the first life, three rows longer than `made`, and a medium with another life, two rows longer."""
    longer = tmp_path / "longer"
    shutil.copytree(made.folder, longer)
    await go_on(read_config(longer), 3)
    back_up(read_config(longer), tmp_path / "longer.tar")
    await another_life(made, tmp_path / "other", tmp_path / "m", 2)
    return tmp_path / "longer.tar", tmp_path / "m"


def from_medium(backup: Path, state: Path, public: bytes, medium: Path) -> None:
    restore(
        backup, state, public, complete=lambda journal: fetch(journal, public, Sources(mirror=medium), progress=quiet)
    )


async def assert_forks_are_refused(made: Made, tmp_path: Path) -> None:
    backup, medium = await fork(made, tmp_path)
    state = tmp_path / "state"
    refused("restore.fork", lambda: from_medium(backup, state, made.public, medium))
    assert not state.exists()
    assert not list(tmp_path.glob(".state.*"))


async def test_a_copy_of_another_life_is_refused(made: Made, tmp_path: Path) -> None:
    await assert_forks_are_refused(made, tmp_path)


async def test_planted_bug_a_head_that_is_not_compared_is_caught(made: Made, tmp_path: Path) -> None:
    with mock.patch.object(fetching, "_compare", quiet), pytest.raises(pytest.fail.Exception):
        await assert_forks_are_refused(made, tmp_path)


async def test_the_hub_refuses_to_mix_lives(site: Site, made: Made, tmp_path: Path) -> None:
    """The hub has the first life; a backup of a second one, that it never heard of, is not what it continues."""
    other = await another_life(made, tmp_path / "other", tmp_path / "m", 2)
    back_up(other, tmp_path / "other.tar")
    site.backup = tmp_path / "other.tar"
    sources = Sources(hub=site.sources().hub)
    error = await asyncio.to_thread(refused, "restore.fork", lambda: site.restore(sources))
    assert "--no-hub" in error.todo
    assert not site.spare.state_dir.exists()


async def test_rows_of_another_journal_another_key_or_after_the_new_epoch_are_refused(
    made: Made, spare: Config, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(made.folder, lost)
    await go_on(read_config(lost), 3)
    (tmp_path / "m").mkdir()
    await copy(read_config(lost), tmp_path / "m")
    (copied,) = (tmp_path / "m").glob("*.frames")
    whole = copied.read_bytes()
    # signed by another key
    stranger = DeviceKey.create(tmp_path / "stranger.key")
    restore(made.backup, spare.state_dir, made.public)
    journal = spare.state_dir / "journal.db"
    medium = Sources(mirror=tmp_path / "m")
    head = verify_journal(journal).head_hash
    refused("restore.copy_unreadable", lambda: fetch(journal, stranger.public, medium, progress=quiet))
    # another journal under this one's name
    other = tmp_path / "another"
    shutil.copytree(made.folder, other, ignore=shutil.ignore_patterns("state"))
    await new_journal(read_config(other), 200)
    (tmp_path / "o").mkdir()
    await copy(read_config(other), tmp_path / "o")
    (theirs,) = (tmp_path / "o").glob("*.frames")
    copied.write_bytes(theirs.read_bytes())
    refused("restore.fork", lambda: fetch(journal, made.public, medium, progress=quiet))
    # one flipped bit, anywhere
    chance = random.Random(SEED)
    for _ in range(40):
        flipped = bytearray(whole)
        at = chance.randrange(len(HEADER) + 4, len(whole))
        flipped[at] ^= 1 << chance.randrange(8)
        copied.write_bytes(flipped)
        refused("restore.copy_unreadable", lambda: fetch(journal, made.public, medium, progress=quiet))
        assert verify_journal(journal).head_hash == head
    # a runtime has begun: there is no place for them any more
    copied.write_bytes(whole)
    async with running(spare):
        pass
    begun = rows_of(spare)
    refused("restore.fork", lambda: fetch(journal, made.public, medium, progress=quiet))
    assert rows_of(spare) == begun
    with extended(journal) as rows:
        before = rows_of(read_config(lost))[-3:]
        with pytest.raises(LinesideError, match=r"journal\.damaged"):
            rows.add(before)


async def test_a_copy_that_was_cut_short_gives_its_whole_frames(made: Made, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(made.folder, lost)
    config = read_config(lost)
    (tmp_path / "m").mkdir()
    sizes = {}
    backup_seq = len(rows_of(config))
    for n in range(3):
        await copy(config, tmp_path / "m")
        (copied,) = (tmp_path / "m").glob("*.frames")
        sizes[backup_seq + n] = copied.stat().st_size
        await go_on(config, 1)
    whole = copied.read_bytes()
    chance = random.Random(SEED)
    for length in [len(HEADER), *sizes.values(), *(chance.randrange(len(HEADER), len(whole)) for _ in range(12))]:
        copied.write_bytes(whole[:length])
        state = tmp_path / f"state-{length}"
        shutil.rmtree(state, ignore_errors=True)
        from_medium(made.backup, state, made.public, tmp_path / "m")
        held = [seq for seq, size in sizes.items() if size <= length]
        assert {path.name for path in state.iterdir() if path.is_file()} - {"vault.db", "history.db"} == {
            "journal.db",
            TAIL,
        }
        tail = Tail.model_validate_json((state / TAIL).read_bytes())
        assert tail.mirror_seq == max(held, default=0)
        assert tail.last_seq == max([backup_seq, *held])
        report = verify_journal(state / "journal.db", expect_head=(tail.last_seq, bytes.fromhex(tail.last_hash)))
        assert report.ok


async def test_a_batch_of_a_recipe_that_came_after_the_backup_goes_on_with_the_box_folders_file(
    made: Made, spare: Config, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"
    shutil.copytree(made.folder, lost)
    (lost / "recipes" / "newer.yaml").write_text(RECIPE.replace("recipe: PAPER", "recipe: NEWER"))
    config = read_config(lost)
    async with running(config) as socket, connect(socket) as client:
        await log_in(client)
        seal = next(recipe.seal for recipe in (await look(client)).recipes if recipe.recipe == "NEWER")
        await client.ask(wire.StartBatch(id=name(), batch="B2", order="O-2", recipe=seal, patient="=DIN2"))
    (tmp_path / "m").mkdir()
    await copy(config, tmp_path / "m")
    await asyncio.to_thread(from_medium, made.backup, spare.state_dir, made.public, tmp_path / "m")
    with pytest.raises(LinesideError, match=r"file\.missing"):
        async with running(spare):
            pass
    shutil.copy(lost / "recipes" / "newer.yaml", spare.recipes)
    async with running(spare) as socket, connect(socket) as client:
        cards = (await look(client)).batches
        assert {(card.batch, card.state, card.restored) for card in cards} == {
            ("B1", "held", True),
            ("B2", "held", True),
        }


# What is kept for the first row ------------------------------------------------------------------------------------


def test_noise_in_what_the_restore_kept_is_refused_in_words(tmp_path: Path) -> None:
    tail = Tail(
        journal="ab" * 16, last_seq=5, last_hash="cd" * 32, backup_seq=3, mirror_seq=4, hub_seq=5, heard_seq=None
    )
    path, last = tmp_path / TAIL, Row(5, b"e" * 16, bytes.fromhex("cd" * 32), b"")
    journal = bytes.fromhex("ab" * 16)
    assert found(tmp_path, journal, last) is None
    data = tail.model_dump_json().encode()
    path.write_bytes(data)
    kept = found(tmp_path, journal, last)
    assert kept is not None
    assert (kept.backup_seq, kept.mirror_seq, kept.hub_seq, kept.heard_seq) == (3, 4, 5, None)
    assert found(tmp_path, journal, Row(6, b"", bytes(32), b"")) is None, "of another restore"
    chance = random.Random(SEED)
    for _ in range(500):
        mixed = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            mixed[chance.randrange(len(mixed))] = chance.randrange(256)
        path.write_bytes(mixed[: chance.randint(0, len(mixed))])
        try:
            found(tmp_path, journal, last)
        except LinesideError as error:
            assert error.code == "restore.tail"


def test_a_continued_row_of_the_first_version_is_read_and_others_are_as_they_were() -> None:
    facts = '"facts":{"command_id":"","epoch":"aa","last_seq":41,"last_hash":"bb"}}'
    at = '"at":{"utc":"2026-11-21T10:00:00.000000Z","quality":"synced","boottime_s":1.0,"boot":"b"}'
    old = '{"kind":"JournalContinued","v":%d,' + at + ',"actor":"lineside","batch":"",' + facts
    assert decode((old % 1).encode()).event == ev.JournalContinued(
        epoch="aa", last_seq=41, last_hash="bb", backup_seq=41, mirror_seq=None, hub_seq=None, heard_seq=None
    )
    for version in (0, 2, 3):
        with pytest.raises(LinesideError, match=r"row\.unreadable"):
            decode((old % version).encode())
    assert b'"v":1' in ev.encode(body("x"))
    assert b'"v":2' in ev.encode(RowBody(decode((old % 1).encode()).event, body("x").at, "lineside"))
