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

import edge.archive
import edge.history
from edge.archive import segment_paths, verify_segment
from edge.backup import back_up, restore, unpack
from edge.checkpoints import Keeper
from edge.config import Config
from edge.core import commands as cm
from edge.core import events as ev
from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.events import RowBody, encode
from edge.core.frame import Receipt, make_receipt, read_receipt
from edge.core.line import SEMANTICS, STATE_SCHEMA, Line
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.desk import Drafts
from edge.history import HistoryReader
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal, verify_journal
from edge.library import Library
from edge.mirror import Mirror, read_mirror
from edge.mqtt import read_address
from edge.tail import open_tail
from edge.uplink import Uplink
from edge.vault import open_vault
from edge.views import Views
from hub.store import open_store
from tests.crash.runs import AT, body
from tests.edge.test_checkpoints import HISTORY, Record
from tests.history_values import test_history as values
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


# The uplink's state ------------------------------------------------------------------------------------------------


async def begin_uplink(folder: Path, chance: random.Random) -> None:
    await begin_box(folder, chance)
    hub_key = DeviceKey.create(folder / "hub.key")
    with JournalReader(folder / "box" / "state" / "journal.db") as reader:
        for row in reader.rows(0, 1_000)[19::20]:
            receipt = Receipt(
                hub=fingerprint(hub_key.public), incarnation="2" * 32, device=fingerprint(key_of(folder).public),
                epoch=row.epoch.hex(), journal=reader.journal_id.hex(), stored_seq=row.seq, head_hash=row.hash.hex(),
                safe_seq=0, wanted_seq=0, utc=AT.utc,
            )  # fmt: skip
            (folder / f"{row.seq}.receipt").write_text(make_receipt(receipt, hub_key))


@contextlib.asynccontextmanager
async def uplink(folder: Path) -> Any:
    """As its first moments: with what the run before it left."""

    async def nobody(_came: str | bytes) -> None: ...

    signer = key_of(folder)
    async with open_tail(folder / "box" / "state" / "journal.db", signer) as tail:
        made = Uplink(
            tail, signer=signer, hub_public=DeviceKey.load(folder / "hub.key").public, give=nobody, give_order=nobody,
            address=read_address("mqtt://127.0.0.1:1", None), state_path=folder / "box" / "state" / "uplink.json",
        )  # fmt: skip
        await made._recall()
        yield made


def receipts(folder: Path) -> list[str]:
    """From beside the disk that refuses."""
    found = sorted(folder.with_name("made").glob("*.receipt"), key=lambda path: int(path.stem))
    return [path.read_text() for path in found]


async def write_uplink(folder: Path, kept: Kept) -> None:
    texts = receipts(folder)
    for part in (texts[:2], texts[2:4]):
        async with uplink(folder) as made:
            for text in part:
                made._text = text
                made._keep()
                kept.append(text)


async def judge_uplink(folder: Path, kept: Kept) -> None:
    """A shortcut: an older one or none costs time, one that was never given or does not read costs rows."""
    texts = receipts(folder)
    async with uplink(folder) as made:
        assert made.receipt in {"", *kept}, "a receipt that the hub never gave"
        made._text = texts[-1]
        made._keep()
    async with uplink(folder) as made:
        assert made.receipt == texts[-1], "it does not keep a receipt any more"


# Process values ----------------------------------------------------------------------------------------------------


class Values(values.Box):
    """A history whose rows, and the seconds that were taken, go to `kept`: the journal's part."""

    def __init__(self, path: Path, kept: Kept) -> None:
        super().__init__(path)
        self.commands = kept
        self.taken: list[int] = []

    def second(self, index: int) -> None:
        super().second(index)
        self.taken.append(self.now_us)


async def write_history(folder: Path, kept: Kept) -> None:
    box = Values(folder / "history.db", [])
    kept.append(box)
    await live_with_values(box)
    box.fresh()
    await live_with_values(box)


async def live_with_values(box: Values) -> None:
    before = len(box.taken)
    for flush in range(2):
        for index in range(3):
            box.second(index + 3 * flush)
        box.flush()
    await box.to_the_end()
    if not (before or box.history._last_us):  # nothing ever got into the file: only the screen says so
        assert box.history._trouble
        box.taken.clear()


async def judge_history(_folder: Path, kept: Kept) -> None:
    """A value is stored, or a row says for when values are missing; what a row sealed is there."""
    (box,) = kept
    box.now_us += values.S
    box.fresh()
    await live_with_values(box)
    with HistoryReader(box.path) as reader:
        verified = reader.verify(values.anchors(box))
        assert verified.findings == (), verified.findings
        stored = {sample.at_us for sample in reader.range("A.level", 0, 2**62)}
    said = [(command.from_utc, command.to_utc) for command in box.of(cm.MissValues)]
    missing = [at for at in box.taken if at not in stored]
    told = [at for at in missing if any(a <= edge.history.utc_text(at) <= b for a, b in said)]
    assert told == missing, "values are missing and no row says so"


# The vault ---------------------------------------------------------------------------------------------------------

IDENTITIES = [f"=A9999{number:010d}" for number in range(4)]


async def write_vault(folder: Path, kept: Kept) -> None:
    for life in range(2):
        with open_vault(folder / "vault.db") as vault:
            for identity in IDENTITIES[2 * life : 2 * life + 2]:
                kept.append((identity, vault.take(identity, AT.utc, patient=True)))
            if life:
                vault.erase([kept[0][1]], 7)
                kept.append("erased")


async def judge_vault(folder: Path, kept: Kept) -> None:
    names = dict(one for one in kept if one != "erased")
    with open_vault(folder / "vault.db") as vault:
        for identity, name in names.items():
            if identity != IDENTITIES[0]:
                assert vault.identity(name) == identity, "an identity that was kept is gone"
        if "erased" not in kept:
            assert vault.identity(names.get(IDENTITIES[0], "")) in {None, IDENTITIES[0]}
            vault.erase([vault.take(IDENTITIES[0], AT.utc, patient=True)], 7)
    left = [path.name for path in folder.iterdir() if IDENTITIES[0].encode() in path.read_bytes()]
    assert not left, f"an identity that was erased is in {left}"


# The archive -------------------------------------------------------------------------------------------------------


async def write_archive(folder: Path, kept: Kept) -> None:
    with JournalReader(folder / "box" / "state" / "journal.db") as reader:
        after = (0, ZERO_HASH)
        for until_seq in (50, 120):
            made = edge.archive.write_segment(
                reader, folder / "medium", after=after, until_seq=until_seq, signer=key_of(folder)
            )
            after = made.last_seq, made.head
            kept.append(after)


async def judge_archive(folder: Path, kept: Kept) -> None:
    """A file has a segment's name only when it is one; rows leave the journal on the strength of it."""
    signer, after = key_of(folder), (0, ZERO_HASH)
    with JournalReader(folder / "box" / "state" / "journal.db") as reader:
        for _, path in segment_paths(folder / "medium", reader.journal_id):
            try:
                found = verify_segment(path, {fingerprint(signer.public): signer.public})
            except LinesideError as error:
                raise AssertionError("a segment that has its name does not hold") from error
            assert (found.first_seq - 1, found.previous) == after
            after = found.last_seq, found.head
        assert after >= max(kept, default=(0, ZERO_HASH)), "a segment that was made is gone"
        head = reader.head()
        if after != head:
            edge.archive.write_segment(reader, folder / "medium", after=after, until_seq=head[0], signer=signer)


# Checkpoints -------------------------------------------------------------------------------------------------------


class Told:
    """What a checkpoint needs of the engine: the durable head, and a row that names the checkpoint."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def durable(self) -> tuple[Line, bytes]:
        return self.record.line, self.record.last_hash

    async def submit(self, command: cm.NoteCheckpoint) -> None:
        said = {"folded_seq": command.folded_seq, "content": command.content}
        self.record.add(RowBody(ev.CheckpointMade(**said, schema=STATE_SCHEMA, semantics=SEMANTICS), AT, "lineside"))


async def write_checkpoints(folder: Path, kept: Kept) -> None:
    record = Record(folder / "checkpoints")
    kept.append(record)
    for third in range(3):
        record.add(*HISTORY[third * 20 : (third + 1) * 20])
        head, newest = record.read()
        assert head == record.line
        keeper: Any = Keeper(record.folder, Told(record), newest)  # type: ignore[arg-type]
        with contextlib.suppress(OSError, LinesideError):  # as `Keeper.run`: work goes on without one
            kept.append(await keeper.make())


async def judge_checkpoints(_folder: Path, kept: Kept) -> None:
    record, *made = kept
    head, used = record.read()
    assert head == record.line == record.every_row(), "a start with checkpoints comes to another head"
    assert not made or (used and int(used.stem.partition("-")[0]) >= int(made[-1].stem.partition("-")[0])), (
        "a checkpoint that was made is not used"
    )


WRITERS = {
    "journal": Writer(nothing, write_journal, judge_journal),
    "library": Writer(nothing, write_library, judge_library),
    "drafts": Writer(nothing, write_drafts, judge_drafts),
    "mirror": Writer(begin_box, write_mirror, judge_mirror),
    "backup": Writer(begin_box, write_backup, judge_backup),
    "restore": Writer(begin_backup, write_restore, judge_restore),
    "hub": Writer(begin_hub, write_hub, judge_hub),
    "views": Writer(nothing, write_views, judge_views),
    "uplink": Writer(begin_uplink, write_uplink, judge_uplink),
    "history": Writer(nothing, write_history, judge_history),
    "vault": Writer(nothing, write_vault, judge_vault),
    "archive": Writer(begin_box, write_archive, judge_archive),
    "checkpoints": Writer(nothing, write_checkpoints, judge_checkpoints),
}
