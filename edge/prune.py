"""Pruning: rows that are archived and safe leave the journal, while batches run.

The runtime believes nobody: it reads the segment itself, from its medium and to the last row, and compares it with the
journal. What may go is decided by `edge.core.decide`; a durable row says so before the first row goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edge.archive import SegmentFile, list_segments, ready_folder, verify_segment
from edge.checkpoints import prunable_seq
from edge.config import Archive
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.frame import Receipt
from edge.core.housekeeping import PRUNE_ROWS_MAX
from edge.core.line import Book
from edge.core.quick import dataclass
from edge.engine import Engine
from edge.journal import Journal, JournalReader

PAUSE_S: Final = 0.05
"""Between two parts, so that pruning takes a small share of the disk."""


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What was found: the segment, the parts to prune (first row, last row, its hash), and the two bounds."""

    segment: cm.Archived
    parts: tuple[tuple[int, int, bytes], ...]
    prunable_seq: int
    hub_safe_seq: int


class Pruner:
    """Takes rows out of one journal. Belongs to the loop's thread; reads in others."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        settings: Archive,
        state: Path,
        *,
        trusted: Mapping[str, bytes],
        device: str,
    ) -> None:
        """`trusted` are the keys that sign segments, by device id; `device` is this box's own id."""
        self._engine = engine
        self._journal = journal
        self._settings = settings
        self._state = state
        self._trusted = trusted
        self._device = device
        self._one_at_a_time = asyncio.Lock()

    async def prune(self, through_seq: int, receipt: Receipt | None = None, text: str = "") -> int:
        """Take out what may go of the rows up to `through_seq`, at most those of one segment. Returns the last row
        that is out. `receipt` is the hub's newest, verified, and `text` is what it was read from.

        Raises `prune.too_far` when no row may go, `archive.*` when the segment does not hold, `journal.failed`."""
        async with self._one_at_a_time:
            line = self._engine.shown
            live = min((batch.started_seq for batch in line.live()), default=line.seq)
            through_seq = min(through_seq, line.sealed_seq, live - 1)
            found = await asyncio.to_thread(self._look, through_seq, line.book, receipt)
            pruned = found.parts[0][0] - 1
            for first, last, row_hash in found.parts:
                command = cm.PruneRows(
                    first_seq=first,
                    through_seq=last,
                    through_hash=row_hash.hex(),
                    segments=(found.segment,),
                    on_medium=self._settings.external,
                    hub_safe_seq=found.hub_safe_seq,
                    receipt=text,
                    prunable_seq=found.prunable_seq,
                )
                try:
                    await self._engine.submit(command)
                except LinesideError as refusal:
                    if refusal.code != "prune.too_far" or pruned < found.parts[0][0]:
                        raise
                    break  # a part of it could go, and did
                await self._journal.prune(last)
                pruned = last
                await asyncio.sleep(PAUSE_S)
            return pruned

    def _look(self, through_seq: int, book: Book, receipt: Receipt | None) -> _Evidence:
        """Read journal and segment, and compare them. The first part is there also when it may not go: `decide` says
        why in words."""
        with JournalReader(self._state / "journal.db") as reader:
            first = reader.first_seq()
            folder = ready_folder(self._settings, self._state)
            listed = next((each for each in list_segments(folder, reader.journal_id) if each.last_seq >= first), None)
            if listed is None or listed.first_seq > first:
                raise LinesideError(
                    "prune.not_archived",
                    f"Row {first}, the first one in the journal, is in no segment in {folder}.",
                    effect="No row leaves the journal. Work goes on.",
                    todo="Nothing, if this passes: the follower archives first. Look with `lineside archive status`.",
                )
            segment = verify_segment(listed.path, self._trusted)
            prunable = prunable_seq(reader, self._state / "checkpoints", book)
            hub_safe = self._hub_safe_seq(reader, receipt)
            safe = segment.last_seq if self._settings.external else hub_safe
            last = max(first, min(through_seq, segment.last_seq, prunable, safe))
            parts = []
            with SegmentFile(listed.path, self._trusted) as file:
                for begin in range(first, last + 1, PRUNE_ROWS_MAX):
                    end = min(begin + PRUNE_ROWS_MAX - 1, last)
                    (archived,), kept = file.rows(end - 1, 1), reader.rows(end - 1, 1)
                    if kept != [archived]:
                        raise LinesideError(
                            "archive.contradicts",
                            f"Row {end} in {listed.path} is not the row {end} of this journal.",
                            effect="No row leaves the journal. Work goes on.",
                            todo="Keep these segments: they may hold rows that this box lost. Name another folder for "
                            "new ones.",
                        )
                    parts.append((begin, end, archived.hash))
        evidence = cm.Archived(first_seq=segment.first_seq, last_seq=segment.last_seq, sha256=segment.sha256)
        return _Evidence(evidence, tuple(parts), prunable, hub_safe)

    def _hub_safe_seq(self, reader: JournalReader, receipt: Receipt | None) -> int:
        """What the receipt says is safe, once it is known to speak of this journal's rows; 0 otherwise."""
        if receipt is None or (receipt.device, receipt.journal) != (self._device, reader.journal_id.hex()):
            return 0
        rows = reader.rows(receipt.stored_seq - 1, 1)
        if not rows or (rows[0].seq, rows[0].hash.hex()) != (receipt.stored_seq, receipt.head_hash):
            return 0
        return min(receipt.safe_seq, receipt.stored_seq)
