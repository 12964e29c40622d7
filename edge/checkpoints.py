"""Checkpoints: the folded head in files beside the journal, so that a start reads only the rows after the newest.

The journal alone counts. A checkpoint is used when it is whole, of this version's form, when the row after it chains to
the row that it ends with, and when a later row names it: so none that is torn, edited, of another journal or of a later
life of a restored one. Without a usable one the head is folded from every row.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from edge.core import checkpoint
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.events import CheckpointMade, decode
from edge.core.line import Book, Line, apply
from edge.core.quick import dataclass
from edge.core.record import ZERO_HASH, Row, chain_faults
from edge.engine import Engine
from edge.identity import sync_folder

EVERY_ROWS: Final = 10_000
"""A checkpoint is made when so many rows were made after the last one: reading them takes a fraction of a second."""
LOOK_EVERY_S: Final = 5.0
RETRY_S: Final = 60.0
KEPT: Final = 2
"""The newest, and the one before it: a file may be damaged."""
LOOKED_AT_MAX: Final = 4
FOLD_ROWS: Final = 2_000
"""Rows read in one transaction."""
SAY_EVERY_S: Final = 1.0
_NAME: Final = re.compile(r"([0-9]{1,19})-([0-9a-f]{64})\.json")
_log = logging.getLogger(__name__)


class Rows(Protocol):
    """Where rows are read: the journal, or journal and archive together."""

    @property
    def journal_id(self) -> bytes:
        """The id of the journal that they are of."""

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow `after_seq`, in order."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that the journal bears out: the head, the hash of its last row, and the file."""

    line: Line
    row_hash: bytes
    path: Path


@dataclass(frozen=True, slots=True)
class Head:
    """The head after every row, and the checkpoint that it was folded from; None when it was folded from every row."""

    line: Line
    checkpoint: Path | None


def read_head(
    rows: Rows, folder: Path, book: Book, *, made_seq: int, say: Callable[[str], object] = lambda _: None
) -> Head:
    """The head after the last of `rows`, each verified against its predecessor from the newest usable checkpoint on.

    `say` is told once a second how far it is of `made_seq` rows. Raises `journal.damaged`, `journal.pruned`, and
    `row.unreadable` for what only a later version can read."""
    for found in usable(rows, folder, book):
        return Head(_fold(rows, found.line, found.row_hash, made_seq, say), found.path)
    first = rows.rows(0, 1)
    if first and first[0].seq != 1:
        raise LinesideError(
            "journal.pruned",
            f"The journal begins with row {first[0].seq}: the rows before it were archived, and no checkpoint of the "
            "head can be used.",
            effect="The runtime does not start: what those rows say is needed to know where each batch is.",
            todo="Put the archive's medium in and name its folder under [archive] in lineside.toml, so that the rows "
            "are read from there; or restore a backup.",
        )
    return Head(_fold(rows, Line(book), ZERO_HASH, made_seq, say), None)


def _fold(rows: Rows, line: Line, previous: bytes, made_seq: int, say: Callable[[str], object]) -> Line:
    said_s = time.monotonic()
    while found := rows.rows(line.seq, FOLD_ROWS):
        for fault in chain_faults(rows.journal_id, found, after_seq=line.seq, previous=previous):
            raise LinesideError(
                "journal.damaged",
                fault.why,
                effect="The runtime does not start: a head folded from it could not be trusted.",
                todo="Run `lineside journal verify` on it, keep the file, and restore from a copy.",
            )
        for row in found:
            line = apply(line, decode(row.body))
        previous = found[-1].hash
        if time.monotonic() - said_s >= SAY_EVERY_S:
            say(f"Reading the journal: row {line.seq:,} of {made_seq:,}.")
            said_s = time.monotonic()
    return line


def usable(rows: Rows, folder: Path, book: Book) -> Iterator[Checkpoint]:
    """The checkpoints in `folder` that `rows` bear out, newest first."""
    named = [(path, found) for path in _files(folder) if (found := _NAME.fullmatch(path.name))]
    named.sort(key=lambda each: int(each[1][1]), reverse=True)
    for path, (seq, content) in ((path, found.groups()) for path, found in named[:LOOKED_AT_MAX]):
        try:
            line, row_hash = checkpoint.read(_content(path, content), book)
            borne_out = line.seq == int(seq) and _is_named(rows, line.seq, row_hash, content)
        except (LinesideError, OSError) as error:
            _log.warning("%s is not used: %s", path.name, error)  # what is wrong with the rows, the fold will say
            continue
        if borne_out:
            yield Checkpoint(line, row_hash, path)


def prunable_seq(rows: Rows, folder: Path, book: Book) -> int:
    """Rows up to this one may leave the journal, and a start still needs none of them, even when the newest checkpoint
    is damaged; 0 while there are not two usable ones."""
    found = [each.line.seq for each in islice(usable(rows, folder, book), KEPT)]
    return found[-1] if len(found) == KEPT else 0


def _files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _content(path: Path, content: str) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(checkpoint.BYTES_MAX + 1)
    return data if hashlib.sha256(data).hexdigest() == content else b""


def _is_named(rows: Rows, seq: int, row_hash: bytes, content: str) -> bool:
    """True when the rows after `seq` chain to `row_hash` and one of them names this content. Row `seq` itself may be
    pruned: the chain says what it was."""
    while found := rows.rows(seq, FOLD_ROWS):
        for row in found:
            for _ in chain_faults(rows.journal_id, [row], after_seq=seq, previous=row_hash):
                return False
            # most rows after it are of other kinds: they are not decoded
            if content.encode() in row.body and _names(row, content):
                return True
            seq, row_hash = row.seq, row.hash
    return False


def _names(row: Row, content: str) -> bool:
    event = decode(row.body).event
    return isinstance(event, CheckpointMade) and event.content == content


class Keeper:
    """Makes checkpoints while the runtime runs, and removes those that are no longer needed."""

    def __init__(self, folder: Path, engine: Engine, last: Path | None) -> None:
        """`last` is the checkpoint that the head was folded from."""
        self._folder = folder
        self._engine = engine
        self._last = last
        self._seq = int(last.name.partition("-")[0]) if last else 0

    async def run(self) -> None:
        """Make one whenever `EVERY_ROWS` rows have passed, until cancelled."""
        while True:
            wait_s = LOOK_EVERY_S
            if self._engine.shown.seq - self._seq >= EVERY_ROWS:
                try:
                    await self.make()
                except (OSError, LinesideError) as error:
                    # a full disk or queue: work goes on, the next start reads more rows
                    _log.warning("No checkpoint was made: %s", error)
                    wait_s = RETRY_S
            await asyncio.sleep(wait_s)

    async def make(self) -> Path:
        """Keep the durable head of this moment: first the file, then the row that names it. Raises OSError when it
        cannot be written."""
        line, row_hash = self._engine.durable()
        made = []
        for part in checkpoint.parts(line, row_hash):
            made.append(part)
            await asyncio.sleep(0)  # the head cannot change; the loop need not wait for all of it
        path = await asyncio.to_thread(self._write, line.seq, b"".join(made))
        content = path.stem.partition("-")[2]
        await self._engine.submit(cm.NoteCheckpoint(folded_seq=line.seq, content=content))
        before, self._last, self._seq = self._last, path, line.seq
        await asyncio.to_thread(self._remove_all_but, {path, before})
        return path

    def _write(self, seq: int, data: bytes) -> Path:
        if len(data) > checkpoint.BYTES_MAX:
            raise LinesideError(
                "checkpoint.too_large",
                f"The head has {len(data)} bytes; a checkpoint may have {checkpoint.BYTES_MAX}.",
                effect="No checkpoint was made. Work goes on; the next start reads more rows.",
                todo="End the batches that are no longer needed.",
            )
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"{seq}-{hashlib.sha256(data).hexdigest()}.json"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        sync_folder(self._folder)
        sync_folder(self._folder.parent)
        return path

    def _remove_all_but(self, kept: set[Path | None]) -> None:
        for path in _files(self._folder):
            if path not in kept:
                path.unlink()
