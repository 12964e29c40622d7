"""Backups of real boxes: made while they run, restored whole or not at all, damage always found."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import sqlite3
import sys
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO
from unittest import mock

import pytest

import edge.backup as backups
from edge import tarred, wire
from edge.backup import Manifest, Progress, back_up, drill, restore, unpack
from edge.config import Config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.desk_client import connect
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal, verify_journal
from tests.backup.conftest import PINS, Made, log_in, look, name, start
from tests.crash.runs import body
from tests.edge.conftest import running
from ui.screens.acts import permitted_acts

FLIPS = int(os.environ.get("LINESIDE_FLIPS", "400"))
SEED = int(os.environ.get("LINESIDE_SEED", "7"))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refused(code: str, work: Callable[[], object]) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        work()
    assert error.value.code == code, error.value
    assert error.value.todo
    return error.value


# What is in it ----------------------------------------------------------------------------------------------------


def test_a_backup_holds_journal_and_sealed_objects_and_neither_key_nor_epoch(made: Made, tmp_path: Path) -> None:
    (made.folder / "state" / "drafts.json").write_text("{}")
    manifest = unpack(made.backup, tmp_path / "u", made.public)
    inside = names(tmp_path / "u")
    assert inside == {
        "journal.db",
        "vault.db",
        "history.db",
        *(f"library/{n}" for n in names(made.folder / "state" / "library")),
    }
    assert len(inside) == 5
    with JournalReader(made.folder / "state" / "journal.db") as reader:
        assert reader.head() == (manifest.head_seq, bytes.fromhex(manifest.head_hash))
        assert reader.journal_id.hex() == manifest.journal
    assert verify_journal(tmp_path / "u" / "journal.db").ok
    assert (made.folder / "device.key").read_bytes().splitlines()[1] not in made.backup.read_bytes()
    assert made.backup.stat().st_mode & 0o077 == 0


def test_any_tar_reads_it_and_the_same_rows_make_the_same_files(made: Made, box: Config, tmp_path: Path) -> None:
    with tarfile.open(made.backup) as archive:
        assert archive.getnames()[:5] == ["manifest.json", "manifest.sig", "journal.db", "vault.db", "history.db"]
        assert archive.getnames()[5:] == sorted(archive.getnames()[5:])
    again = back_up(box, tmp_path / "again.tar")
    assert again.files == unpack(made.backup, tmp_path / "u", made.public).files


def test_nothing_is_overwritten_and_nothing_is_left_lying_about(box: Config, tmp_path: Path) -> None:
    out = tmp_path / "out" / "box.tar"
    out.parent.mkdir()
    out.write_text("mine")
    refused("backup.exists", lambda: back_up(box, out))
    assert out.read_text() == "mine"
    out.unlink()
    (box.state_dir / "library" / "recipe" / "notes.txt").write_text("?")
    refused("backup.library", lambda: back_up(box, out))
    (box.state_dir / "library" / "recipe" / "notes.txt").unlink()
    with sqlite3.connect(box.state_dir / "journal.db") as db:
        db.execute("UPDATE row SET body = replace(body, 'B1', 'B2') WHERE seq = 5")
    db.close()
    refused("journal.damaged", lambda: back_up(box, out))
    shutil.rmtree(box.state_dir)
    refused("journal.absent", lambda: back_up(box, out))
    refused("backup.cannot_write", lambda: back_up(box, tmp_path / "nowhere" / "box.tar"))
    assert not any(out.parent.iterdir())


async def test_a_backup_of_a_running_box_is_whole_and_holds_no_row_back(box: Config, tmp_path: Path) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        done = asyncio.Event()

        async def work() -> int:
            scans = 0
            while not done.is_set():
                scans += 1
                with pytest.raises(LinesideError, match=r"scan\.refused"):  # which makes two rows
                    await client.ask(wire.ScanCode(id=name(), batch="B1", step="020", text=f"=OTHER{scans}"))
            return scans

        working = asyncio.create_task(work())
        made = []
        for n in range(4):
            before = (await look(client)).as_of_seq
            out = tmp_path / f"{n}.tar"
            made.append((before, await asyncio.to_thread(back_up, box, out), out))
        done.set()
        assert await working
    public = DeviceKey.load(box.device_key).public
    with JournalReader(box.state_dir / "journal.db") as reader:
        for before, manifest, out in made:
            assert manifest.head_seq >= before, "a row that was shown before the backup began is in it"
            assert reader.rows(manifest.head_seq - 1, 1)[0].hash.hex() == manifest.head_hash
            unpack(out, tmp_path / f"u-{manifest.head_seq}", public)
    assert made[0][1].head_seq < made[-1][1].head_seq, "rows were made meanwhile"


async def test_no_reader_holds_the_writer_back_while_a_large_journal_is_copied(box: Config, tmp_path: Path) -> None:
    """While rows are copied, each progress report lets the writer commit and truncate its log."""
    async with open_journal(box.state_dir / "journal.db", box.state_dir / "epoch") as journal:
        await journal.append([body(str(n)) for n in range(2_000)]).durable()
        loop = asyncio.get_running_loop()
        seen: list[int] = []

        def append() -> asyncio.Future[None]:
            return asyncio.ensure_future(journal.append([body("meanwhile")]).durable())

        async def appended() -> None:
            await append()

        def progress(what: str, done: int, _total: int) -> None:
            if what == "rows copied":
                asyncio.run_coroutine_threadsafe(appended(), loop).result(10)
                seen.append(done)

        manifest = await asyncio.to_thread(back_up, box, tmp_path / "o.tar", progress=progress)
        assert len(seen) >= 4
        assert journal.durable_seq == manifest.head_seq + len(seen)


# Damage -----------------------------------------------------------------------------------------------------------


def unnoticed(backup: Path, places: Iterable[int], tmp_path: Path, public: bytes) -> list[int]:
    """The bits that may be flipped without anybody being told."""
    data, damaged, found = backup.read_bytes(), tmp_path / "d.tar", []
    for n, place in enumerate(places):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        damaged.write_bytes(flipped)
        folder = tmp_path / f"u{n}"
        try:
            unpack(damaged, folder, public)
            found.append(place)
        except LinesideError as error:
            assert error.code in {"backup.damaged", "backup.signature", "backup.foreign", "backup.format"}, (
                f"bit {place}"
            )
        shutil.rmtree(folder, ignore_errors=True)
    return found


def test_every_flipped_bit_is_found(made: Made, tmp_path: Path) -> None:
    chance, bits = random.Random(SEED), made.backup.stat().st_size * 8
    places = [*(chance.randrange(bits) for _ in range(FLIPS)), *range(0, 512 * 8, 97), bits - 1]
    assert unnoticed(made.backup, places, tmp_path, made.public) == [], f"seed {SEED}"


def test_planted_bug_headers_and_padding_that_are_not_compared_are_caught(made: Made, tmp_path: Path) -> None:
    def trusting(stream: BinaryIO, expected: bytes, _where: str) -> None:
        stream.read(len(expected))

    with mock.patch.object(backups, "_expect", trusting):
        bits = made.backup.stat().st_size * 8
        assert unnoticed(made.backup, range(bits - 400, bits, 50), tmp_path, made.public)


def test_planted_bug_a_signature_that_is_not_verified_is_caught(made: Made, tmp_path: Path) -> None:
    with mock.patch.object(backups, "signature_holds", return_value=True):
        assert unnoticed(made.backup, range(512 * 8, 1024 * 8, 16), tmp_path, made.public)


def test_every_truncation_and_addition_is_found(made: Made, spare: Config, tmp_path: Path) -> None:
    data = made.backup.read_bytes()
    chance, cut = random.Random(SEED), tmp_path / "c.tar"
    for length in [0, 1, 511, 512, len(data) - 1, *(chance.randrange(len(data)) for _ in range(40))]:
        cut.write_bytes(data[:length])
        with pytest.raises(LinesideError, match=r"backup\.(damaged|foreign)"):
            restore(cut, spare.state_dir, made.public)
        assert not spare.state_dir.exists()
    cut.write_bytes(data + b"\0")
    refused("backup.damaged", lambda: restore(cut, spare.state_dir, made.public))
    assert names(spare.folder) == names(made.folder) - {f"state/{n}" for n in names(made.folder / "state")}


def test_noise_is_refused_in_words(made: Made, tmp_path: Path) -> None:
    chance, noise = random.Random(SEED), tmp_path / "n.tar"
    data = made.backup.read_bytes()
    for n in range(200):
        mixed = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(len(mixed) // 512) * 512
            part = chance.choice((chance.randbytes(512), bytes(512), data[:512], b"\xff" * 512, b""))
            mixed[at : at + 512] = part
        noise.write_bytes(mixed if mixed != data else mixed[:-1])
        with pytest.raises(LinesideError, match=r"backup\."):
            unpack(noise, tmp_path / f"u{n}", made.public)


def forged(out: Path, key: DeviceKey, change: Callable[[dict[str, object]], None], **files: bytes) -> Path:
    """A backup signed with `key`, whose manifest says what `change` made of it."""
    content = {"journal.db": b"x", **files}
    manifest: dict[str, object] = {
        "format": 1, "box": "BOX-T", "made_utc": "now", "journal": "0" * 32, "epoch": "1" * 32, "head_seq": 1,
        "head_hash": "2" * 64,
        "files": [
            {"name": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in content.items()
        ],
    }  # fmt: skip
    change(manifest)
    data = json.dumps(manifest).encode()
    with out.open("wb") as stream:
        for n, c in (("manifest.json", data), ("manifest.sig", key.sign(backups.DOMAIN, data)), *content.items()):
            stream.write(tarred.header(n, len(c)) + c + tarred.padding(len(c)))
        stream.write(backups.END)
    return out


@pytest.mark.parametrize(
    "path", ["../escaped", "/escaped", "library/../../escaped", "epoch", "device.key", "library/recipe/" + "a" * 63]
)
def test_even_a_signed_manifest_leads_nowhere_else(made: Made, tmp_path: Path, path: str) -> None:
    key = DeviceKey.load(made.folder / "device.key")
    bad = forged(tmp_path / "f.tar", key, lambda _: None, **{path: b"y"})
    (tmp_path / "in").mkdir()
    refused("backup.format", lambda: restore(bad, tmp_path / "in" / "state", made.public))
    assert not list(tmp_path.rglob("escaped"))
    assert not any((tmp_path / "in").iterdir())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_links_and_devices_are_refused(made: Made, tmp_path: Path, kind: bytes) -> None:
    data = bytearray(made.backup.read_bytes())
    with tarfile.open(made.backup) as archive:
        places = [member.offset for member in archive.getmembers()]
    for place in places:
        info = tarfile.TarInfo.frombuf(bytes(data[place : place + 512]), "utf-8", "strict")
        info.type, info.linkname = kind, "/etc/passwd"
        bad = bytes(data[:place]) + info.tobuf(tarfile.GNU_FORMAT) + bytes(data[place + 512 :])
        (tmp_path / "l.tar").write_bytes(bad)
        with pytest.raises(LinesideError, match=r"backup\.(foreign|damaged)"):
            restore(tmp_path / "l.tar", tmp_path / "state", made.public)
        assert not (tmp_path / "state").exists()


def test_another_key_another_format_and_too_much_are_refused(made: Made, tmp_path: Path) -> None:
    stranger = DeviceKey.create(tmp_path / "stranger.key")
    state = tmp_path / "state"
    refused("backup.signature", lambda: restore(made.backup, state, stranger.public))
    out = tmp_path / "f.tar"

    def attempt(change: Callable[[dict[str, object]], None]) -> Callable[[], object]:
        return lambda: restore(forged(out, stranger, change), state, stranger.public)

    refused("backup.format", attempt(lambda m: m.update(format=2)))
    refused("backup.format", attempt(lambda m: m.update(more="x")))
    refused("backup.format", attempt(lambda m: m.update(files=[])))
    refused(
        "backup.no_space",
        attempt(lambda m: m.update(files=[{"name": "journal.db", "size": 2**49, "sha256": "0" * 64}])),
    )
    refused("backup.damaged", attempt(lambda _: None))  # its journal is none
    refused("backup.unreadable", lambda: restore(tmp_path, state, stranger.public))
    refused("backup.unreadable", lambda: restore(tmp_path / "absent", state, stranger.public))
    huge = tarred.header("manifest.json", backups.MANIFEST_BYTES_MAX + 1)
    out.write_bytes(huge + bytes(1024))
    refused("backup.foreign", lambda: restore(out, state, stranger.public))
    assert not state.exists()


def test_a_backup_that_was_written_badly_never_gets_its_name(box: Config, tmp_path: Path) -> None:
    """Planted bug: the medium keeps something else than what was written."""
    really = backups._sync

    def lying(stream: BinaryIO) -> None:
        really(stream)
        path = Path(f"/proc/self/fd/{stream.fileno()}").readlink()
        if path.name == "backup.tar":
            data = bytearray(path.read_bytes())
            data[3000] ^= 4
            path.write_bytes(data)

    out = tmp_path / "o" / "box.tar"
    out.parent.mkdir()
    with mock.patch.object(backups, "_sync", lying):
        refused("backup.damaged", lambda: back_up(box, out))
    assert not any(out.parent.iterdir())


# Putting in place -------------------------------------------------------------------------------------------------


def test_only_an_empty_state_is_restored_into(made: Made, spare: Config) -> None:
    spare.state_dir.mkdir()
    (spare.state_dir / "journal.db").write_text("rows that the backup lacks")
    refused("backup.state_not_empty", lambda: restore(made.backup, spare.state_dir, made.public))
    (spare.state_dir / "journal.db").unlink()
    restore(made.backup, spare.state_dir, made.public)
    assert names(spare.state_dir) == names(made.folder / "state") & names(spare.state_dir)
    assert not (spare.state_dir / "epoch").exists()


def run_cut(at: int, work: Callable[[], object]) -> bool:
    """Run `work` in a process that dies at its `at`th file operation. True when it got to its end."""
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _args: object) -> None:
            nonlocal seen
            if event == "open" or event.startswith("os."):
                seen += 1
                if seen == at:
                    os._exit(7)

        try:
            sys.addaudithook(hook)
            work()
        finally:
            os._exit(int(sys.exc_info()[0] is not None))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, 7}
    return code == 0


def test_a_restore_cut_at_any_file_operation_leaves_no_state_or_all_of_it(made: Made, tmp_path: Path) -> None:
    at, whole = 0, False
    expected = None
    while not whole:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        state = folder / "state"
        state.mkdir()
        whole = run_cut(at, lambda state=state: restore(made.backup, state, made.public))
        found = names(state)
        expected = expected or names(unpacked(made, tmp_path))
        assert found in (set(), expected), f"cut at {at}"
        if found:
            assert verify_journal(state / "journal.db").ok
        else:
            restore(made.backup, state, made.public)  # what a cut left behind is in nobody's way
        shutil.rmtree(folder)
    assert at > 15


def unpacked(made: Made, tmp_path: Path) -> Path:
    unpack(made.backup, tmp_path / "expected", made.public)
    return tmp_path / "expected"


def test_a_backup_cut_at_any_file_operation_leaves_none_or_a_whole_one(made: Made, box: Config, tmp_path: Path) -> None:
    at, whole = 0, False
    while not whole:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        out = folder / "box.tar"
        whole = run_cut(at, lambda out=out: back_up(box, out))
        if out.exists():
            unpack(out, folder / "u", made.public)
        shutil.rmtree(folder)
    assert at > 20


# The drill --------------------------------------------------------------------------------------------------------


def test_a_drill_restores_the_same_head_and_begins_a_new_epoch(made: Made) -> None:
    tried = drill(made.backup, made.public)
    assert tried.epoch != tried.manifest.epoch
    assert tried.manifest.epoch == (made.folder / "state" / "epoch").read_text().strip()
    assert tried.seconds > 0
    with JournalReader(made.folder / "state" / "journal.db") as reader:
        assert reader.head() == (tried.manifest.head_seq, bytes.fromhex(tried.manifest.head_hash))


def test_planted_bug_a_restore_that_brings_the_epoch_back_is_caught(made: Made) -> None:
    def careless(backup: Path, state: Path, public: bytes, *, progress: Progress) -> Manifest:
        manifest = restore(backup, state, public, progress=progress)
        shutil.copy(made.folder / "state" / "epoch", state / "epoch")
        return manifest

    with mock.patch.object(backups, "restore", careless):
        refused("backup.drill", lambda: drill(made.backup, made.public))


# Life after -------------------------------------------------------------------------------------------------------


def decision(person: str, reason: str, pin: str = "") -> wire.ContinueBatch:
    return wire.ContinueBatch(id=name(), batch="B1", reason=reason, person=person, pin=pin or PINS[person])


async def test_a_restored_box_holds_its_batches_until_a_supervisor_decides(made: Made, spare: Config) -> None:
    manifest = restore(made.backup, spare.state_dir, made.public)
    async with running(spare) as socket:
        async with connect(socket) as client:
            await log_in(client)
            seen = await look(client)
            card = seen.batches[0]
            assert (card.state, card.restored) == ("held", True)
            assert f"row {manifest.head_seq}" in card.reason
            assert "supervisor" in card.next_action
            resume = wire.ActOnBatch(id=name(), batch="B1", act="resume", reason="it looks fine")
            with pytest.raises(LinesideError, match=r"batch\.restored"):
                await client.ask(resume)
            await start(client, "B2")
            assert (await look(client)).batches[1].state == "running"
        async with connect(socket) as client:
            await log_in(client, "sue")
            seen = await look(client)
            assert "resume" in permitted_acts(seen, seen.batches[0])
            with pytest.raises(LinesideError, match=r"batch\.restored"):
                await client.ask(wire.ActOnBatch(id=name(), batch="B1", act="resume", reason="not signed"))
            with pytest.raises(LinesideError, match=r"people\.wrong_pin"):
                await client.ask(decision("sue", "compared", pin="0000"))
            with pytest.raises(LinesideError, match=r"people\.not_permitted"):
                await client.ask(decision("ana", "compared"))
            with pytest.raises(LinesideError, match=r"batch\.restored_reason"):
                await client.ask(decision("sue", " "))
            await client.ask(decision("sue", "compared with the paper"))
            assert (await look(client)).batches[0].state == "running"
            with pytest.raises(LinesideError, match=r"batch\.not_restored"):
                await client.ask(decision("sue", "again"))
    assert verify_journal(spare.state_dir / "journal.db").ok
    with JournalReader(spare.state_dir / "journal.db") as reader:
        rows = reader.rows(manifest.head_seq, 1_000)
    started, continued = (decode(row.body).event for row in rows[:2])
    assert isinstance(started, ev.RuntimeStarted)
    assert continued == ev.JournalContinued(
        epoch=manifest.epoch,
        last_seq=manifest.head_seq,
        last_hash=manifest.head_hash,
        backup_seq=manifest.head_seq,
        mirror_seq=None,
        hub_seq=None,
        heard_seq=None,
    )
    assert {row.epoch for row in rows} == {bytes.fromhex((spare.state_dir / "epoch").read_text())}
    assert rows[0].epoch.hex() != manifest.epoch
    said = [decode(row.body) for row in rows]
    decided = {(b.actor, b.event.reason) for b in said if isinstance(b.event, ev.BatchStateChanged)}
    assert ("sue", "compared with the paper") in decided
    async with running(spare) as socket, connect(socket) as client:
        assert (await look(client)).batches[0].state == "running", "the next start is an ordinary one"
