"""The journal as the follower reads it: off the loop, in one thread, with word of new rows."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

from edge.archive import Record, open_record
from edge.config import Config
from edge.core import frame
from edge.core.record import ZERO_HASH, Row, Signer

ROWS_AT_ONCE: Final = 64
LOOK_EVERY_S: Final = 0.1

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


@contextlib.asynccontextmanager
async def open_tail(path: Path, signer: Signer, config: Config | None = None) -> AsyncIterator[Tail]:
    """The tail of the journal at `path`, which exists; rows that left it are read from the archive of `config`. Someone
    must run its `keep_looking`."""
    with ThreadPoolExecutor(1, thread_name_prefix="journal tail") as thread:
        loop = asyncio.get_running_loop()
        reader = await loop.run_in_executor(thread, open_record, path, config, signer.public)
        try:
            made = Tail(reader, signer, thread)
            await made.look()
            yield made
        finally:
            thread.submit(reader.close).result()


class Tail:
    """See `open_tail`. Use from one event loop."""

    def __init__(self, reader: Record, signer: Signer, thread: ThreadPoolExecutor) -> None:
        self.journal_id: bytes = reader.journal_id
        self.made_seq = 0
        """The last durable row, as last seen."""
        self.on_grown: list[Callable[[], object]] = []
        """Called in the loop whenever `made_seq` has grown."""
        self.on_look: list[Callable[[], object]] = []
        """Called in the loop after every look that succeeded."""
        self._reader = reader
        self._signer = signer
        self._thread = thread
        self._base = (b"", 1)

    async def rows(self, after_seq: int, limit: int) -> list[Row]:
        """The durable rows after `after_seq`, at most `limit`."""
        return await self._read(self._reader.rows, after_seq, limit)

    async def hash_at(self, seq: int) -> bytes | None:
        """The hash of row `seq` (zeros for row 0), or None when there is no such row."""
        if seq == 0:
            return ZERO_HASH
        rows = await self.rows(seq - 1, 1)
        return rows[0].hash if rows and rows[0].seq == seq else None

    async def frame_from(self, seq: int) -> tuple[bytes, int]:
        """One signed frame of the rows from `seq` on, and the last row in it. `seq` is at most `made_seq`."""
        return await self._read(self._frame_from, seq)

    async def hail(self, seq: int) -> bytes:
        """A frame without rows that says: the hub is believed to hold row `seq`, which is at most `made_seq`."""
        return await self._read(self._hail, seq)

    async def look(self) -> None:
        """See whether there are new rows, now."""
        head, _ = await self._read(self._reader.head)
        for call in self.on_look:
            call()
        if head > self.made_seq:
            self.made_seq = head
            for call in self.on_grown:
                call()

    async def keep_looking(self, poll_s: float = LOOK_EVERY_S) -> None:
        """Look every `poll_s` until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            await self.look()

    async def _read(self, function: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _frame_from(self, seq: int) -> tuple[bytes, int]:
        rows = self._reader.rows(max(seq - 2, 0), ROWS_AT_ONCE)
        size = sum(len(row.body) for row in rows)
        while size < frame.RAW_BYTES and (more := self._reader.rows(rows[-1].seq, ROWS_AT_ONCE)):
            rows += more
            size += sum(len(row.body) for row in more)
        previous = ZERO_HASH if seq == 1 else rows.pop(0).hash
        made_seq = max(self.made_seq, rows[-1].seq)
        data, count = frame.make(
            rows, journal=self.journal_id, previous=previous, made_seq=made_seq, signer=self._signer
        )
        return data, rows[count - 1].seq

    def _hail(self, seq: int) -> bytes:
        """Asks within the present epoch, so that a hub that knows rows of a former one answers for this one."""
        newest = self._reader.rows(max(self.made_seq - 1, 0), 1)
        epoch = newest[0].epoch if newest else bytes(16)
        kept = self._reader.rows(self._reader.kept_from() - 1, 1)
        # an epoch that was the present one before `seq` need not be searched for, least of all in the archive
        within = bool(kept) and kept[0].epoch == epoch and seq >= kept[0].seq
        at = seq if within else max(seq, self._epoch_base(epoch) - 1)
        head = self._reader.rows(at - 1, 1)[0].hash if at else ZERO_HASH
        return frame.make_hail(
            journal=self.journal_id, epoch=epoch, seq=at, head=head, made_seq=self.made_seq, signer=self._signer
        )

    def _epoch_base(self, epoch: bytes) -> int:
        """The first row of the newest `epoch`; an epoch never comes back, so it can be searched by halves."""
        if epoch != self._base[0]:
            seqs = range(1, self.made_seq + 1)
            found = bisect_left(seqs, True, key=lambda seq: self._reader.rows(seq - 1, 1)[0].epoch == epoch)
            self._base = (epoch, found + 1)
        return self._base[1]
