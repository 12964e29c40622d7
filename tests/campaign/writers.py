"""Everything that writes to the box's or the hub's disk, each as something to be disturbed and judged.

`prepare` makes what must be there before, `work` writes and notes what it was told is kept, `judge` looks, on a disk
that is well again, whether it is, and goes on. `work` may end in a refusal with words, never in anything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.backup import back_up, restore, unpack
from edge.config import Config
from edge.core import frame
from edge.core.events import encode
from edge.core.frame import read_receipt
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.desk import Drafts
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal, verify_journal
from edge.library import Library
from edge.mirror import Mirror, read_mirror
from edge.tail import open_tail
from edge.views import Views
from hub.store import open_store
from tests.crash.runs import body
from tests.hub.sync_parts import JOURNAL, Box, bodies, chained

Kept = list[Any]
"""What the writer said is kept, in order."""


@dataclass(frozen=True)
class Writer:
    prepare: Callable[[Path, random.Random], Awaitable[None]]
    work: Callable[[Path, Kept], Awaitable[None]]
    judge: Callable[[Path, Kept], Awaitable[None]]


async def nothing(_folder: Path, _chance: random.Random) -> None:
    """Begins with an empty folder."""


# The journal -------------------------------------------------------------------------------------------------------


async def write_journal(folder: Path, kept: Kept) -> None:
    for life in range(2):
        async with open_journal(folder / "journal.db", folder / "epoch") as journal:
            for group in range(4):
                appended = journal.append([body(f"{life}-{group}-{n}", "x" * 700) for n in range(1 + group)])
                await appended.durable()
                kept.append((appended.last_seq, appended.last_hash))


async def judge_journal(folder: Path, kept: Kept) -> None:
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        await journal.append([body("after")]).durable()
    report = verify_journal(folder / "journal.db", expect_head=kept[-1] if kept else None)
    assert report.ok, report.fault


# The library -------------------------------------------------------------------------------------------------------


def objects() -> list[tuple[str, bytes]]:
    plants = (b"plant: A\n" + b"# what follows is longer than a buffer\n" * lines for lines in (0, 1, 400))
    return [(hashlib.sha256(data).hexdigest(), data) for data in plants]


async def write_library(folder: Path, kept: Kept) -> None:
    for name, data in objects():
        Library(folder / "library").put("plant", name, data)
        kept.append(name)


async def judge_library(folder: Path, kept: Kept) -> None:
    known = dict(objects())
    for path in (folder / "library" / "plant").glob("[!.]*"):
        assert path.read_bytes() == known[path.name], "a sealed object was kept that is not whole"
    for name in kept:
        assert (folder / "library" / "plant" / name).is_file(), "a sealed object that was kept is gone"
    for name, data in known.items():
        Library(folder / "library").put("plant", name, data)
        assert (folder / "library" / "plant" / name).read_bytes() == data


# Drafts ------------------------------------------------------------------------------------------------------------


async def write_drafts(folder: Path, kept: Kept) -> None:
    drafts = Drafts(folder / "drafts.json")
    for text in ("4", "41", "41.7", ""):
        await drafts.save("B-1", "050", text)
        await drafts.save("B-1", "060", f"other {text}")
        kept.append(dict(drafts.texts))


async def judge_drafts(folder: Path, kept: Kept) -> None:
    found = Drafts(folder / "drafts.json").texts
    later = {("B-1", step): {f"{said}{text}" for text in ("4", "41", "41.7", "")} | {""}
             for step, said in (("050", ""), ("060", "other "))}  # fmt: skip
    if kept:
        assert found, "the drafts that were saved are gone"
    assert all(text in later[key] for key, text in found.items()), f"a draft that nobody typed: {found}"
    await Drafts(folder / "drafts.json").save("B-1", "050", "after")
    assert Drafts(folder / "drafts.json").texts["B-1", "050"] == "after"


# The second medium -------------------------------------------------------------------------------------------------


async def begin_box(folder: Path, chance: random.Random) -> None:
    box = Box(folder / "box", "mqtt://127.0.0.1:1", bytes(32))
    library = Library(box.config.state_dir / "library")
    for name, data in objects():
        library.put("plant", name, data)
    async with box.journal() as journal:
        for _ in range(3):
            await journal.append([body(f"n{n}", "x" * chance.randint(0, 900)) for n in range(40)]).durable()
    (folder / "medium").mkdir()
    (folder / "out").mkdir()


def key_of(folder: Path) -> DeviceKey:
    return DeviceKey.load(folder / "box" / "device.key")


@contextlib.asynccontextmanager
async def mirrored(folder: Path) -> Any:
    signer, looked = key_of(folder), asyncio.Event()
    async with open_tail(folder / "box" / "state" / "journal.db", signer) as tail:
        mirror = Mirror(tail, folder / "medium", signer=signer, on_change=looked.set, retry_s=(0.0, 0.0), every_s=0.0)
        running = asyncio.create_task(mirror.run())
        try:
            yield mirror, tail, looked, running
        finally:
            running.cancel()
            (ended,) = await asyncio.gather(running, return_exceptions=True)
            if not isinstance(ended, asyncio.CancelledError):
                raise ended


async def write_mirror(folder: Path, kept: Kept) -> None:
    """Until all is copied, or the medium failed a few times."""
    async with mirrored(folder) as (mirror, tail, looked, running):
        for _ in range(8):
            looked.clear()
            await asyncio.wait({running, asyncio.create_task(looked.wait())}, return_when=asyncio.FIRST_COMPLETED)
            kept.append(mirror.copied_seq)
            if running.done() or mirror.copied_seq == tail.made_seq or mirror.state == "failed":
                return


async def judge_mirror(folder: Path, kept: Kept) -> None:
    signer = key_of(folder)
    trusted = {fingerprint(signer.public): signer.public}
    with JournalReader(folder / "box" / "state" / "journal.db") as reader:
        rows, name = reader.rows(0, 1_000), f"{reader.journal_id.hex()}.frames"

    def copied() -> list[Row]:
        return [row for got in read_mirror(folder / "medium" / name, trusted) for row in got.rows]

    found: list[Row] = []
    with contextlib.suppress(Exception):  # a frame cut short at the end: what is whole before it counts
        for got in read_mirror(folder / "medium" / name, trusted):
            found += got.rows
    assert found[: max(kept, default=0)] == rows[: max(kept, default=0)], "rows that counted as copied are not there"
    async with mirrored(folder) as (mirror, _, looked, _), asyncio.timeout(20):
        while mirror.copied_seq < len(rows):
            looked.clear()
            await looked.wait()
    assert copied() == rows, "the copy is not the journal"


# Backup and restore ------------------------------------------------------------------------------------------------


async def write_backup(folder: Path, kept: Kept) -> None:
    kept.append(await asyncio.to_thread(back_up, _config(folder), folder / "out" / "box.tar"))


def _config(folder: Path) -> Config:
    at = folder / "box"
    return Config(
        folder=at, box="line-1", state_dir=at / "state", plant=at / "plant.yaml", recipes=at,
        directory=at / "directory.toml", device_key=at / "device.key", desk_socket=at / "state" / "desk.sock",
    )  # fmt: skip


async def judge_backup(folder: Path, kept: Kept) -> None:
    out = folder / "out" / "box.tar"
    public = key_of(folder).public
    assert out.exists() >= bool(kept), "a backup that was made is not there"
    if out.exists():
        unpack(out, folder / "unpacked", public)
        out.unlink()
    back_up(_config(folder), out)


async def begin_backup(folder: Path, chance: random.Random) -> None:
    await begin_box(folder, chance)
    back_up(_config(folder), folder / "box.tar")
    (folder / "to").mkdir()


async def write_restore(folder: Path, kept: Kept) -> None:
    kept.append(await asyncio.to_thread(restore, folder / "box.tar", folder / "to" / "state", key_of(folder).public))


async def judge_restore(folder: Path, kept: Kept) -> None:
    state = folder / "to" / "state"
    assert state.exists() >= bool(kept), "what was restored is not there"
    if not state.exists():
        restore(folder / "box.tar", state, key_of(folder).public)
    assert verify_journal(state / "journal.db").ok
    whole = {path.relative_to(folder / "box" / "state").as_posix() for path in objects_in(folder / "box" / "state")}
    assert {path.relative_to(state).as_posix() for path in objects_in(state)} == whole, "a part was restored"


def objects_in(state: Path) -> Iterator[Path]:
    return (state / "library").glob("*/*")


# The hub -----------------------------------------------------------------------------------------------------------


def hub_keys(folder: Path) -> tuple[DeviceKey, DeviceKey]:
    return tuple(DeviceKey.load(folder / "keys" / name) for name in ("device", "hub"))  # type: ignore[return-value]


async def begin_hub(folder: Path, _chance: random.Random) -> None:
    (folder / "keys").mkdir()
    for name in ("device", "hub"):
        DeviceKey.create(folder / "keys" / name)


ROWS = chained([b'{"n":%d,"x":"%s"}' % (n, b"x" * 300) for n in range(30)])


async def write_hub(folder: Path, kept: Kept) -> None:
    key, hub_key = hub_keys(folder)
    trusted = {fingerprint(key.public): key.public}
    for life in range(2):
        async with open_store(folder / "hub.db", hub_key) as store:
            for first in range(15 * life, 15 * (life + 1), 5):
                previous = ROWS[first - 1].hash if first else ZERO_HASH
                part = ROWS[first : first + 5]
                data, _ = frame.make(part, journal=JOURNAL, previous=previous, made_seq=30, signer=key)
                outcome = await store.ingest(data, trusted)
                if outcome.receipt:
                    kept.append(read_receipt(outcome.receipt, hub_key.public).stored_seq)


async def judge_hub(folder: Path, kept: Kept) -> None:
    key, hub_key = hub_keys(folder)
    trusted = {fingerprint(key.public): key.public}
    async with open_store(folder / "hub.db", hub_key) as store:
        found = [row for chain in await store.chains() for row in await store._chain_rows(chain, 0)]
        assert len(found) >= max(kept, default=0), "the hub signed for rows that it does not hold"
        assert found == ROWS[: len(found)]
        data, _ = frame.make(ROWS, journal=JOURNAL, previous=ZERO_HASH, made_seq=30, signer=key)
        await store.ingest(data, trusted)
        assert [row for chain in await store.chains() for row in await store._chain_rows(chain, 0)] == ROWS


# The views ---------------------------------------------------------------------------------------------------------


def view_rows() -> list[Row]:
    return chained([encode(one) for one in bodies(24)])


async def write_views(folder: Path, kept: Kept) -> None:
    rows = view_rows()
    for life in range(2):
        with closing(Views(folder / "views.db")) as views:
            for first in range(12 * life, 12 * (life + 1), 4):
                kept.append(views.apply(first, rows[first : first + 4]))


async def judge_views(folder: Path, _kept: Kept) -> None:
    """Views are made anew from the journal at any time: they must be what the rows say."""
    rows = view_rows()
    for _ in range(2):  # damage is told once, and the file begun anew by then
        with contextlib.suppress(Exception), closing(Views(folder / "views.db")) as views:
            while (applied := views.applied()[0]) < len(rows):
                views.apply(applied, rows[applied : applied + 4])
    with closing(Views(folder / "views.db")) as views:
        assert views.applied() == (len(rows), rows[-1].hash)
    with closing(Views(folder / "new.db")) as anew:
        anew.apply(0, rows)
    assert contents(folder / "views.db") == contents(folder / "new.db"), "the views differ from what the rows say"


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [line for line in connection.iterdump() if "row_fts" not in line]


WRITERS = {
    "journal": Writer(nothing, write_journal, judge_journal),
    "library": Writer(nothing, write_library, judge_library),
    "drafts": Writer(nothing, write_drafts, judge_drafts),
    "mirror": Writer(begin_box, write_mirror, judge_mirror),
    "backup": Writer(begin_box, write_backup, judge_backup),
    "restore": Writer(begin_backup, write_restore, judge_restore),
    "hub": Writer(begin_hub, write_hub, judge_hub),
    "views": Writer(nothing, write_views, judge_views),
}
