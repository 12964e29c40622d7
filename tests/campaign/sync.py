"""Row 7: what a bad network, a restored hub and a cloned box do to the way of rows from box to hub."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

from edge.core import frame
from edge.core.frame import read_receipt
from edge.core.record import ZERO_HASH, Row, fingerprint
from edge.identity import DeviceKey
from edge.uplink import Window
from hub.store import Store, Took, open_store
from tests.campaign import Part, Planted, Tally, planted
from tests.hub.sync_parts import JOURNAL, chained
from tests.hub.window_model import TIMING, AnyIncarnation, NeverAgain, PubackIsEnough, Run


async def disturb(seed: int, folder: Path, tally: Tally, window: type[Window] = Window) -> None:
    """One simulated time of 400 s: loss, doubling, reorder, partitions, hubs restored from a backup."""
    del folder
    tally.fault()
    Run(seed, window(TIMING)).whole()


NETWORK = Part(
    7,
    "network",
    "frames and receipts dropped, doubled and reordered; partitions; hubs restored: the uplink in virtual time",
    gate=10_000,
    full=1_000_000,
    inject=disturb,
    planted={
        bug.__name__: Planted(partial(disturb, window=bug), "AssertionError")
        for bug in (PubackIsEnough, AnyIncarnation, NeverAgain)
    },
)


class Post:
    """Frames of one device to one real store, in whatever order; receipts are believed as a box does."""

    def __init__(self, store: Store, key: DeviceKey, hub_public: bytes, tally: Tally) -> None:
        self.store, self.key, self.hub_public, self.tally = store, key, hub_public, tally
        self.trusted = {fingerprint(key.public): key.public}
        self.signed: set[tuple[int, str]] = set()
        self.forks = 0

    async def send(self, rows: list[Row], first: int, last: int) -> None:
        """Rows `first` to `last` of the chain `rows`, counted from 1."""
        part, previous = rows[first - 1 : last], rows[first - 2].hash if first > 1 else ZERO_HASH
        data, _ = frame.make(part, journal=JOURNAL, previous=previous, made_seq=len(rows), signer=self.key)
        self.tally.fault()
        outcome = await self.store.ingest(data, self.trusted)
        self.forks += outcome.took is Took.FORK
        if outcome.receipt:
            receipt = read_receipt(outcome.receipt, self.hub_public)
            if receipt.stored_seq:
                self.signed.add((receipt.stored_seq, receipt.head_hash))

    async def stored(self) -> list[Row]:
        return [row for chain in await self.store.chains() for row in await self.store._chain_rows(chain, 0)]


async def deliver(seed: int, folder: Path, tally: Tally) -> None:
    """Frames overlap, repeat, come late and with gaps; in every second seed a clone of the box sends too."""
    chance = random.Random(seed)
    key, hub_key = DeviceKey.create(folder / "device.key"), DeviceKey.create(folder / "hub.key")
    count = chance.randint(3, 40)
    rows = chained([b'{"n":%d}' % n for n in range(count)])
    shared = chance.randrange(count)
    before = rows[shared - 1].hash if shared else ZERO_HASH
    clone = rows[:shared] + chained([b'{"m":%d}' % n for n in range(count)], first=shared + 1, previous=before)
    with_clone = bool(seed % 2)
    async with open_store(folder / "hub.db", hub_key) as store:
        post = Post(store, key, hub_key.public, tally)
        for _ in range(chance.randint(5, 25)):
            chain = clone if with_clone and chance.random() < 0.4 else rows
            first = chance.randint(1, len(chain))
            await post.send(chain, first, chance.randint(first, min(first + 12, len(chain))))
        for chain in [rows, clone] if with_clone else [rows]:
            for first in range(1, len(chain) + 1, 7):  # in the end each sends all it has, in order
                await post.send(chain, first, min(first + 6, len(chain)))
        kept, told = await post.stored(), await store.forks()
    assert [row.seq for row in kept] == list(range(1, len(kept) + 1)), "rows are missing, doubled or out of order"
    assert kept in ([rows, clone] if with_clone else [rows]), "what the hub holds is nobody's chain"
    hashes = {row.seq: row.hash.hex() for row in kept}
    assert all(hashes.get(seq) == digest for seq, digest in post.signed), "the hub signed for what it does not hold"
    assert bool(told) == bool(post.forks) == with_clone, f"a fork was silent, or told where none was: {told}"


class _Equal:
    def __eq__(self, _other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


async def any_hash(_connection: Any, _chain: Any, _seq: int) -> _Equal:
    """Planted: dedupe by sequence number alone."""
    return _Equal()


STORE = Part(
    7,
    "store",
    "frames to a real hub store repeated, overlapping, late, with gaps, and from a clone of the box",
    gate=2_000,
    full=200_000,
    inject=deliver,
    planted={
        "known by its number alone": planted(
            deliver, "silent|nobody's chain|does not hold", {"hub.store._hash_at": any_hash}
        )
    },
)
