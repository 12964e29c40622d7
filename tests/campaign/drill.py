"""Row 15: a backup while rows are made, a drill, a restore, and a second life beside the first one at the hub."""

from __future__ import annotations

import asyncio
import hashlib
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import apsw

import edge.backup
from edge.backup import Manifest, back_up, drill, restore
from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.identity import DeviceKey
from edge.journal import Copied, Journal, JournalReader, copy_journal, verify_journal
from edge.library import Library
from hub.store import open_store
from tests.campaign import Part, Tally, planted
from tests.crash.runs import body
from tests.hub.sync_parts import Box

LIVES_MAX = 3
ROWS_MAX = 900
"""More than one transaction of a reader."""
ROWS_A_FRAME = 100
really_restore, really_copy = restore, copy_journal


async def try_restore(seed: int, folder: Path, tally: Tally) -> None:
    """One box: what was acknowledged before a backup is in it, the drill and the restore reach the same head, a new
    epoch begins, and the hub keeps both lives."""
    chance, hub_key = random.Random(seed), DeviceKey.create(folder / "hub.key")
    box = Box(folder / "box", "mqtt://127.0.0.1:1", hub_key.public)
    out, state = folder / "box.tar", box.config.state_dir
    objects = keep_objects(state, chance)
    epochs = [await live(box, chance) for _ in range(chance.randint(0, LIVES_MAX - 1))]
    tally.fault()
    async with box.journal() as journal:
        await append(journal, chance, chance.randint(1, ROWS_MAX))
        epochs.append(journal.epoch.hex())
        told_seq = journal.durable_seq
        backing_up = asyncio.create_task(asyncio.to_thread(back_up, box.config, out))
        while not backing_up.done():
            await append(journal, chance, chance.randint(1, 20))
        made = await backing_up
        await append(journal, chance, chance.randint(0, 30))
    first_life = stored(box.journal_path)
    assert made.head_seq >= told_seq, f"row {told_seq} was acknowledged before the backup began, and is not in it"
    assert made.head_hash == first_life[made.head_seq - 1].hash.hex(), "the backup's head is not the box's"
    tried = await asyncio.to_thread(drill, out, box.key.public)
    assert tried.manifest == made
    assert tried.epoch not in epochs, "the drill began no new epoch"
    await refuses_a_lie(out, box, chance)
    state.rename(folder / "lost")
    edge.backup.restore(out, state, box.key.public)
    report = verify_journal(box.journal_path, expect_head=(made.head_seq, bytes.fromhex(made.head_hash)))
    assert report.ok, report.fault
    assert report.head_seq == made.head_seq, "more was restored than the manifest names"
    assert kept_objects(state) == objects, "the library is not what it was"
    await live(box, chance)
    second_life = stored(box.journal_path)
    assert second_life[: made.head_seq] == first_life[: made.head_seq], "a row changed on its way"
    assert second_life[made.head_seq].epoch.hex() not in epochs, "the restored box goes on in a former epoch"
    await at_the_hub(folder / "hub.db", hub_key, box, first_life, second_life, made.head_seq)


async def live(box: Box, chance: random.Random) -> str:
    """One run of the runtime's journal; its epoch."""
    async with box.journal() as journal:
        await append(journal, chance, chance.randint(1, 40))
        return journal.epoch.hex()


async def append(journal: Journal, chance: random.Random, count: int) -> None:
    if count:
        await journal.append([body(f"n{n}", "x" * chance.randint(0, 900)) for n in range(count)]).durable()


def stored(path: Path) -> list[Row]:
    with JournalReader(path) as reader:
        return reader.rows(0, 1_000_000)


def keep_objects(state: Path, chance: random.Random) -> dict[str, bytes]:
    library = Library(state / "library")
    for _ in range(chance.randint(0, 4)):
        data = chance.randbytes(chance.randint(0, 5_000))
        library.put("plant", hashlib.sha256(data).hexdigest(), data)
    return kept_objects(state)


def kept_objects(state: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (state / "library").glob("*/*")}


async def refuses_a_lie(out: Path, box: Box, chance: random.Random) -> None:
    """A restore that brings back another state than the manifest's must not pass a drill."""
    lie = chance.choice(LIES)
    with lie():
        try:
            await asyncio.to_thread(drill, out, box.key.public)
        except LinesideError as refused:
            assert refused.code == "backup.drill", refused
            return
    raise AssertionError(f"a drill passed over a restore with a lie: {lie.__name__}")


@contextmanager
def the_epoch_comes_along() -> Iterator[None]:
    def lying(backup: Path, state: Path, public: bytes, **_: object) -> Manifest:
        manifest = really_restore(backup, state, public)
        with JournalReader(state / "journal.db") as reader:
            (state / "epoch").write_text(reader.rows_back(1)[0].epoch.hex())
        return manifest

    with mock.patch("edge.backup.restore", lying):
        yield


@contextmanager
def the_last_row_is_lost() -> Iterator[None]:
    def lying(backup: Path, state: Path, public: bytes, **_: object) -> Manifest:
        manifest = really_restore(backup, state, public)
        connection = apsw.Connection(str(state / "journal.db"))
        connection.execute("DELETE FROM row WHERE seq = (SELECT max(seq) FROM row)")
        connection.close()
        return manifest

    with mock.patch("edge.backup.restore", lying):
        yield


LIES = (the_epoch_comes_along, the_last_row_is_lost)


async def at_the_hub(
    path: Path, hub_key: DeviceKey, box: Box, first_life: list[Row], second_life: list[Row], shared: int
) -> None:
    """Both lives arrive: all rows are kept, each once, and nothing of the first one is overwritten."""
    trusted = {fingerprint(box.key.public): box.key.public}
    async with open_store(path, hub_key) as store:
        for life in (first_life, second_life):
            at = shared if life is second_life else 0
            while at < len(life):
                previous = life[at - 1].hash if at else ZERO_HASH
                with JournalReader(box.journal_path) as reader:
                    journal_id = reader.journal_id
                part = life[at : at + ROWS_A_FRAME]
                data, count = frame.make(
                    part, journal=journal_id, previous=previous, made_seq=len(life), signer=box.key
                )
                await store.ingest(data, trusted)
                at += count
        kept = [row for chain in await store.chains() for row in await store._chain_rows(chain, 0)]
        forks = await store.forks()
    assert not forks, "two lives made one row of one epoch twice"
    expected = {row.hash for row in (*first_life, *second_life)}
    assert len(kept) == len(expected), "rows are missing at the hub, or there twice"
    assert {row.hash for row in kept} == expected, "the hub holds what no life made"


def with_the_epoch(backup: Path, state: Path, public: bytes, **_: object) -> Manifest:
    """Planted: a restore that goes on in the epoch of the backup."""
    manifest = really_restore(backup, state, public)
    (state / "epoch").write_text(manifest.epoch)
    return manifest


async def compares_nothing(state: Path, _manifest: Manifest) -> str:
    """Planted: a drill that only sees whether the journal opens."""
    async with edge.backup.open_journal(state / "journal.db", state / "epoch") as journal:
        return journal.epoch.hex()


def all_but_some(source: Path, target: Path, **_: object) -> Copied:
    """Planted: a copy that ends before the newest rows."""
    late = target.with_name("late")
    late.mkdir()
    with JournalReader(source) as reader:
        rows = reader.rows(0, max(1, reader.head()[0] // 2))
    shutil.copy(source, late / "journal.db")
    connection = apsw.Connection(str(late / "journal.db"))
    connection.execute("DELETE FROM row WHERE seq > ?", (rows[-1].seq,))
    connection.close()
    return really_copy(late / "journal.db", target)


DRILL = Part(
    15,
    "restore",
    "restore drill of a backup made while rows are made, then a second life beside the first one at the hub",
    gate=1,
    full=50,
    inject=try_restore,
    planted={
        "a restore that reuses the epoch": planted(
            try_restore, "backup.drill", {"edge.backup.restore": with_the_epoch}
        ),
        "a drill that does not compare": planted(
            try_restore, "a drill passed over", {"edge.backup._begin": compares_nothing}
        ),
        "a backup without the newest rows": planted(
            try_restore, "acknowledged before the backup|cannot be used", {"edge.backup.copy_journal": all_but_some}
        ),
    },
)
