"""Row 6: one flipped bit in what is kept or sent."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path

from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.recipe import read_recipe, seal
from edge.core.record import ZERO_HASH, Fault, Row, fingerprint
from edge.identity import DeviceKey
from edge.journal import JournalReader, open_journal
from edge.library import Library
from tests.campaign import Part, Tally, planted
from tests.crash.runs import body, flips
from tests.hub.sync_parts import JOURNAL, chained

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
)
