"""Row 6: one flipped bit in what is kept or sent."""

from __future__ import annotations

import random
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import apsw

from edge.archive import verify_segment, write_segment
from edge.backup import back_up, unpack
from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.recipe import read_recipe, seal
from edge.core.record import ZERO_HASH, Fault, Row, fingerprint
from edge.history import HistoryReader, Verified
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal
from edge.library import Library
from edge.mirror import HEADER, read_mirror
from tests.campaign import Part, Tally, planted
from tests.crash.runs import body, flips
from tests.history_values import test_history as values
from tests.hub.sync_parts import JOURNAL, Box, chained

FLIPS_A_SEED = 100
RECIPES_A_SEED = 20
ROWS = 40
RECIPE = files("edge.core.recipe").joinpath("shipped/cart-b1.yaml").read_bytes()


async def flip_journal(seed: int, folder: Path, tally: Tally) -> None:
    path = folder / "journal.db"
    async with open_journal(path, folder / "epoch") as journal:
        await journal.append([body(f"n{i}", "x" * 500) for i in range(ROWS)]).durable()
    with JournalReader(path) as reader:
        rows = reader.rows(0, ROWS)
    for _ in flips(path, rows, random.Random(seed), FLIPS_A_SEED):
        tally.fault()


def no_faults(_journal: bytes, rows: Iterable[Row], **_: object) -> Iterator[Fault]:
    """Planted: rows are read, and their hashes are not made again."""
    for _row in rows:
        pass
    return iter(())


async def flip_frame(seed: int, folder: Path, tally: Tally) -> None:
    """Each frame with one bit flipped must be refused, whichever bit it is."""
    key, chance = DeviceKey.create(folder / "device.key"), random.Random(seed)
    rows = chained([b'{"n":%d,"x":%d}' % (n, chance.getrandbits(64)) for n in range(1 + seed % 30)])
    data, _ = frame.make(rows, journal=JOURNAL, previous=ZERO_HASH, made_seq=len(rows), signer=key)
    trusted = {fingerprint(key.public): key.public}
    assert frame.read(data, trusted).rows == tuple(rows)
    for _ in range(FLIPS_A_SEED):
        tally.fault()
        at, damaged = chance.randrange(len(data) * 8), bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        try:
            frame.read(bytes(damaged), trusted)
        except LinesideError:
            continue
        tally.violated(f"a frame of {len(rows)} rows with bit {at} flipped was taken")


async def flip_recipe(seed: int, folder: Path, tally: Tally) -> None:
    """A sealed recipe in the box's library: refused, or what the flip changed means nothing (a comment)."""
    whole = read_recipe(RECIPE, "recipe").recipe
    library, chance = Library(folder), random.Random(seed)
    library.put("recipe", seal(whole), RECIPE)
    kept = folder / "recipe" / seal(whole)
    for _ in range(RECIPES_A_SEED):
        tally.fault()
        at, damaged = chance.randrange(len(RECIPE) * 8), bytearray(RECIPE)
        damaged[at // 8] ^= 1 << at % 8
        kept.write_bytes(damaged)
        try:
            read = library.recipe(kept.name)
        except LinesideError:
            continue
        if read != whole:
            tally.violated(f"a sealed recipe with bit {at} flipped was taken")


def flipped(data: bytes, chance: random.Random, count: int) -> Iterator[tuple[int, bytes]]:
    """So many copies of `data`, each with one bit flipped, and which."""
    for _ in range(count):
        at, damaged = chance.randrange(len(data) * 8), bytearray(data)
        damaged[at // 8] ^= 1 << at % 8
        yield at, bytes(damaged)


async def flip_backup(seed: int, folder: Path, tally: Tally) -> None:
    """A backup with one bit flipped must be refused, whichever bit it is."""
    chance, box = random.Random(seed), Box(folder / "box", "mqtt://127.0.0.1:1", bytes(32))
    async with box.journal() as journal:
        await journal.append([body(f"n{i}", "x" * 200) for i in range(1 + seed % 10)]).durable()
    back_up(box.config, folder / "box.tar")
    for at, data in flipped((folder / "box.tar").read_bytes(), chance, FLIPS_A_SEED):
        tally.fault()
        (folder / "damaged.tar").write_bytes(data)
        try:
            unpack(folder / "damaged.tar", folder / "unpacked", box.key.public)
            tally.violated(f"a backup with bit {at} flipped was taken")
        except LinesideError as error:
            assert error.code.startswith("backup."), error
        shutil.rmtree(folder / "unpacked", ignore_errors=True)


def trusting(stream: BinaryIO, expected: bytes, _where: str) -> None:
    """Planted: headers and padding are passed over."""
    stream.read(len(expected))


async def flip_mirror(seed: int, folder: Path, tally: Tally) -> None:
    """The copy on the second medium: what is read before the refusal is the journal's, and there is a refusal."""
    key, chance = DeviceKey.create(folder / "device.key"), random.Random(seed)
    rows = chained([b'{"n":%d,"x":%d}' % (n, chance.getrandbits(64)) for n in range(30)])
    whole = HEADER
    for first in range(0, 30, 10):
        previous = rows[first - 1].hash if first else ZERO_HASH
        data, _ = frame.make(rows[first : first + 10], journal=JOURNAL, previous=previous, made_seq=30, signer=key)
        whole += struct.pack(">I", len(data)) + data
    copy, trusted = folder / "copy.frames", {fingerprint(key.public): key.public}
    for at, data in flipped(whole, chance, FLIPS_A_SEED):
        tally.fault()
        copy.write_bytes(data)
        found: list[Row] = []
        try:
            for got in read_mirror(copy, trusted):
                found += got.rows
            tally.violated(f"a copy with bit {at} flipped was taken")
        except LinesideError:
            assert found == rows[: len(found)], f"a copy with bit {at} flipped gave other rows"


async def flip_segment(seed: int, folder: Path, tally: Tally) -> None:
    """An archived segment with one bit flipped must be refused, whichever bit it is."""
    key, chance = DeviceKey.create(folder / "device.key"), random.Random(seed)
    async with open_journal(folder / "journal.db", folder / "epoch") as journal:
        await journal.append([body(f"n{i}", "x" * 200) for i in range(1 + seed % 30)]).durable()
    with JournalReader(folder / "journal.db") as reader:
        made = write_segment(reader, folder, after=(0, ZERO_HASH), until_seq=30, signer=key)
    for at, data in flipped(made.path.read_bytes(), chance, FLIPS_A_SEED):
        tally.fault()
        made.path.write_bytes(data)
        try:
            verify_segment(made.path, {fingerprint(key.public): key.public})
        except LinesideError:
            continue
        tally.violated(f"a segment with bit {at} flipped was taken")


async def flip_values(seed: int, folder: Path, tally: Tally) -> None:
    """History.db against the roots in the journal: found, or every value reads as it was."""
    chance, box = random.Random(seed), values.Box(folder / "history.db")
    await values.filled(box, 60)
    values.packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute("PRAGMA journal_mode=delete")
        db.execute("PRAGMA page_size=512")  # a flip where nothing stands would be no flip
        db.execute("VACUUM")
    whole, said = box.path.read_bytes(), values.anchors(box)
    tags = ("A.level", "A.count", "B.flow", "B.word")

    def read_in(reader: HistoryReader) -> dict[str, list[list[Any]]]:
        """All values, and those of each half of the time: what a query leaves out is lost as well."""
        spans = ((0, 2**62), (0, half_us), (half_us, 2**62))
        return {tag: [[sample.value for sample in reader.range(tag, *span)] for span in spans] for tag in tags}

    with HistoryReader(box.path) as reader:
        times_us = [sample.at_us for sample in reader.range("A.level", 0, 2**62)]
        half_us = times_us[len(times_us) // 2]
        right = read_in(reader)
    for at, data in flipped(whole, chance, FLIPS_A_SEED):
        tally.fault()
        box.path.write_bytes(data)
        try:
            with HistoryReader(box.path) as reader:
                found = reader.verify(said).findings or said.keys() - set(reader.closed())
                read = read_in(reader)
        except LinesideError:
            continue
        if not found and read != right:
            tally.violated(f"values with bit {at} flipped were taken")


def nothing_found(_self: HistoryReader, _anchors: object) -> Verified:
    """Planted: nobody compares."""
    return Verified(0, 0, 0, ())


PARTS = (
    Part(
        6,
        "journal",
        "bit flip anywhere in the journal's file",
        gate=3_000,
        full=100_000,
        inject=flip_journal,
        planted={
            "hashes are not made again": planted(
                flip_journal, "changed the record unseen", {"edge.journal.chain_faults": no_faults}
            )
        },
    ),
    Part(
        6,
        "frame",
        "bit flip in a frame on its way to the hub",
        gate=3_000,
        full=100_000,
        inject=flip_frame,
        planted={
            "signatures are not looked at": planted(
                flip_frame, "was taken", {"edge.core.frame.signature_holds": lambda *_: True}
            )
        },
    ),
    Part(
        6,
        "recipe",
        "bit flip in a sealed recipe in the library",
        gate=3_000,
        full=100_000,
        inject=flip_recipe,
        planted={
            "the seal is not compared": planted(
                flip_recipe, "was taken", {"edge.library.seal": lambda _: seal(read_recipe(RECIPE, "recipe").recipe)}
            )
        },
    ),
    Part(
        6,
        "backup",
        "bit flip in a backup",
        gate=3_000,
        full=100_000,
        inject=flip_backup,
        planted={
            "headers and padding are not compared": planted(flip_backup, "was taken", {"edge.backup._expect": trusting})
        },
    ),
    Part(
        6,
        "mirror",
        "bit flip in the copy on the second medium",
        gate=3_000,
        full=100_000,
        inject=flip_mirror,
        planted={
            "signatures are not looked at": planted(
                flip_mirror, "was taken", {"edge.core.frame.signature_holds": lambda *_: True}
            )
        },
    ),
    Part(
        6,
        "segment",
        "bit flip in an archived segment",
        gate=3_000,
        full=100_000,
        inject=flip_segment,
        planted={
            "signatures are not looked at": planted(
                flip_segment, "was taken", {"edge.archive.signature_holds": lambda *_: True}
            )
        },
    ),
    Part(
        6,
        "values",
        "bit flip in the process values, against their roots in the journal",
        gate=3_000,
        full=100_000,
        inject=flip_values,
        planted={
            "roots are not compared": planted(
                flip_values, "were taken", {"edge.history.HistoryReader.verify": nothing_found}
            )
        },
    ),
)
