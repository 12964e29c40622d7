"""A restored box at the hub: its second life is a chain of its own, and nothing of the first one is overwritten."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.backup import back_up, restore
from edge.core.record import Row
from edge.identity import DeviceKey
from edge.journal import JournalReader
from hub.store import Chain, Quarantined
from tests.crash.runs import body
from tests.hub.sync_parts import Box, Broker, hub_in_process, until

FIRST_LIFE, BACKED_UP, SECOND_LIFE = 10, 5, 8
"""The last row of the first life, of the backup and of the second life."""


@dataclass(frozen=True)
class Hub:
    """What the hub has: its chains, the forks it put aside, and the rows of each batch."""

    chains: Sequence[Chain]
    forks: Sequence[Quarantined]
    rows: Sequence[Row]


async def append(box: Box, *texts: str) -> None:
    async with box.journal() as journal:
        await journal.append([body(text) for text in texts]).durable()


async def two_lives(folder: Path, *, epoch_too: bool) -> tuple[Box, Hub]:
    """Five rows, a backup, five more that reach the hub, too; then the backup is restored and three rows are made."""
    broker = Broker(folder)
    await broker.start()
    key = DeviceKey.create(folder / "hub.key")
    box = Box(folder / "box", broker.url, key.public)
    state = box.config.state_dir
    try:
        async with hub_in_process(folder / "hub", key, broker, [box.key.public]) as (receiver, store):
            await append(box, *"abcde")
            back_up(box.config, folder / "box.tar")
            await append(box, *"fghij")
            async with box.uplink() as uplink:
                await until(lambda: uplink.state.received_seq == FIRST_LIFE, uplink.changed)
            shutil.move(state, folder / "lost")
            restore(folder / "box.tar", state, box.key.public)
            if epoch_too:
                shutil.copy(folder / "lost" / "epoch", state / "epoch")
            await append(box, "other 1", "other 2", "other 3")
            async with box.uplink(), asyncio.timeout(60):
                while not (await store.forks() or [c for c in await store.chains() if c.stored_seq == SECOND_LIFE]):
                    receiver.changed.clear()
                    await receiver.changed.wait()
            forks = [fork for of_device in (await store.forks()).values() for fork in of_device]
            return box, Hub(await store.chains(), forks, await store.batch_rows(box.key.fingerprint, "B-0001"))
    finally:
        await broker.kill()


async def test_a_restored_box_syncs_as_a_new_epoch_beside_its_first_life(
    tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    needs_program("mosquitto")
    box, hub = await two_lives(tmp_path, epoch_too=False)
    assert not hub.forks
    first, second = sorted(hub.chains, key=lambda chain: chain.base_seq)
    assert first.journal == second.journal
    assert first.epoch != second.epoch
    assert (first.base_seq, first.stored_seq) == (1, FIRST_LIFE), "rows that only the first life made are kept"
    assert (second.base_seq, second.stored_seq) == (BACKED_UP + 1, SECOND_LIFE)
    assert max(first.beyond, second.beyond) == FIRST_LIFE - BACKED_UP, "the hub shows what the box no longer has"
    with JournalReader(box.journal_path) as reader:
        assert second.epoch == reader.rows_back(1)[0].epoch.hex()
        assert second.head_hash == reader.head()[1].hex()
    assert len(hub.rows) == FIRST_LIFE + SECOND_LIFE - BACKED_UP


async def test_planted_bug_an_epoch_that_is_restored_too_forks_at_the_hub(
    tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    needs_program("mosquitto")
    _, hub = await two_lives(tmp_path, epoch_too=True)
    assert hub.forks, "two rows of one epoch with one number and different content"
    (only,) = hub.chains
    assert only.stored_seq == FIRST_LIFE, "what was stored first is never overwritten"
