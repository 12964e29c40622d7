"""The journal: the only owner of `journal.db`, and the only place where something becomes true.

`append` numbers, encodes and chains rows at once on the caller's thread, so a row that cannot be written is
refused before it has a number, and the processor works while the disk syncs. One thread owns the one writing
connection and commits groups: what was appended while the last commit ran goes into the next.

A failed commit is *unknown*, not failed: its rows may or may not be there after a restart. So the first
failure ends the journal (`failed`), every waiter gets it, and nothing more is accepted.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final, Self

import apsw
import orjson

from edge.core.errors import LinesideError
from edge.core.events import BODY_BYTES_MAX, RowBody, RowsPruned, decode, encode
from edge.core.quick import dataclass
from edge.core.record import ROW_DOMAIN, ZERO_HASH, Fault, Row, chain_faults

FORMAT: Final = 1
ID_BYTES: Final = 16

QUEUE_ROWS_MAX: Final = 8_192
QUEUE_BYTES_MAX: Final = 16 * 1024 * 1024
URGENT_ROWS: Final = 512
"""Places beyond the bound, kept for what must not wait: stops and safe states."""
URGENT_BYTES: Final = 1024 * 1024

PAGE_BYTES: Final = 4_096
WAL_PAGES_MAX: Final = 256
"""1 MiB: beyond it the write-ahead log is copied into the database even when rows are waiting. They wait for it: 1 ms
of the processor and two flushes of the disk, every 2,000 rows or so. After a kill all of it is written once more before
anything else."""
LOG_AGAIN: Final = 16
"""A log that readers held is tried again when it has grown by this part: one long reader costs few attempts."""
LOG_HELD: Final = 16
"""A log of so many times WAL_PAGES_MAX is held by a reader that stays in one transaction; people are told."""
READERS_LEAVE_S: Final = 0.005
"""A log can begin again only at a moment without a reader in it; so long the writer waits for that moment, once an
attempt. A reader's transaction of `READ_ROWS_MAX` rows is shorter."""
TURN_ROWS: Final = 100
"""So many rows, or one append, are acknowledged at a time. In the next turn of the loop those who waited for them go on
with work; in the one after it a timer that fell due meanwhile is seen, and in the third who slept is woken, before
others are acknowledged."""
IDLE_S: Final = 0.5
"""After this long without a row the write-ahead log is copied into the database."""
LOG_CHUNK_BYTES: Final = 64 * 1024
"""SQLite's layer to the system writes less than 128 KiB at a time, and calls more a full disk."""
BUSY_S: Final = 5.0
"""How long a reader's short transaction may make the writer wait before that counts as a failure."""

SYNCHRONOUS: Final = "FULL"
"""Each commit is synced. With less, a power failure takes acknowledged rows."""

READ_ROWS_MAX: Final = 500
"""Rows read in one transaction by whoever streams, so that no reader holds the write-ahead log for long."""
SEARCH_ROWS: Final = 10_000
"""Rows searched in one transaction, a few milliseconds."""

_SCHEMA: Final = {
    "meta": "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "row": "CREATE TABLE row(seq INTEGER PRIMARY KEY, epoch BLOB, hash BLOB, body BLOB)",
}

UNKNOWN: Final = "The last rows may or may not be on the disk; nothing further is commanded."


_INSERT: Final = """INSERT INTO row SELECT ?1 + rowid, ?2, substr(?3, 32 * rowid - 31, 32), value FROM carray(?4)"""
"""A group of any size: the number before its first row, the epoch, all hashes in one blob, the bodies. SQLite takes it
apart by itself, so that the loop goes on encoding meanwhile; binding each value would hold the interpreter's lock."""


@dataclass(slots=True)
class _Rows:
    """Rows in order, on their way to the disk."""

    before_seq: int
    hashes: list[bytes]
    bodies: list[bytes]


class Appended:
    """Rows that have their numbers and hashes, and will become durable together or not at all."""

    __slots__ = ("_callbacks", "_outcome", "_settled", "_waiters", "first_seq", "last_hash", "last_seq", "size")

    def __init__(self, first_seq: int, last_seq: int, last_hash: bytes, size: int) -> None:
        self.first_seq = first_seq
        self.last_seq = last_seq
        self.last_hash = last_hash
        self.size = size
        """Bytes of the bodies."""
        self._settled = False
        self._outcome: LinesideError | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[LinesideError | None], object]] = []

    @property
    def is_durable(self) -> bool:
        """True once the rows are on the disk."""
        return self._settled and self._outcome is None

    async def durable(self) -> None:
        """Return once the rows are on the disk; raise `journal.failed` when that is unknown.

        Cancelling the wait never cancels the rows."""
        if not self._settled:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._outcome is not None:
            raise replace(self._outcome)

    def add_done_callback(self, callback: Callable[[LinesideError | None], object]) -> None:
        """Call `callback(None)` soon once the rows are durable, or with the error when that is unknown.

        Callbacks come before those who await `durable` go on."""
        if self._settled:
            asyncio.get_running_loop().call_soon(callback, self._outcome)
        else:
            self._callbacks.append(callback)

    def settle(self, outcome: LinesideError | None) -> None:
        """Tell all who wait. The journal alone calls it, once."""
        self._settled, self._outcome = True, outcome
        for callback in self._callbacks:
            asyncio.get_running_loop().call_soon(callback, outcome)
        for waiter in self._waiters:
            if not waiter.done():  # cancelled waits are done
                waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class _Prune:
    """Asks the writer's thread to take rows out between two commits."""

    through_seq: int
    done: asyncio.Future[None]


class Journal:
    """The writing end. Made by `open_journal`; every method belongs to the loop's thread."""

    def __init__(self, path: Path, epoch_path: Path, vfs: str | None) -> None:
        self._path = path
        self._vfs = vfs
        self._epoch_path = epoch_path
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[LinesideError] = self._loop.create_future()
        """Done, with the error as its result, once the journal accepts nothing more."""
        self.journal_id = b""
        self.epoch = b""
        self.restored = False
        """True when the last row belongs to another epoch: the file came from a backup or another box."""
        self.head_seq = 0
        self.head_hash = ZERO_HASH
        self.durable_seq = 0
        self.durable_hash = ZERO_HASH
        self._queued_bytes = 0
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._chain_start = hashlib.sha256()
        self._closing = False
        self._not_durable: deque[Appended] = deque()
        self._durable: deque[Appended] = deque()
        """On the disk, and not acknowledged yet."""
        self._acknowledging = False
        # For the writer's thread, in order; None at the end.
        self._queue: SimpleQueue[_Rows | _Prune | None] = SimpleQueue()
        # Set by the writer's thread alone: pages in the write-ahead log, and how many are too many.
        self._wal_pages = 0
        self._wal_pages_max = WAL_PAGES_MAX

    # The loop's side -------------------------------------------------------------------------------------

    def append(self, bodies: Sequence[RowBody], *, urgent: bool = False) -> Appended:
        """Number, encode and chain `bodies` now; they become durable together, after all rows before them.

        Raises `journal.full` when too much is waiting for the disk (`urgent` may use the places kept free),
        `row.too_large` or `row.cannot_encode` for a body that cannot be written, `journal.failed` after a
        failure, `journal.closed` at the end. When it raises, no row was accepted and no number was used."""
        if not bodies:
            raise ValueError("append needs at least one row")
        if self.failed.done():
            raise replace(self.failed.result())
        if self._closing:
            raise LinesideError(
                "journal.closed",
                "The journal is being closed: the runtime is ending.",
                effect="Nothing was recorded and nothing was commanded. What was accepted before is kept.",
                todo="Try again when the runtime is back.",
            )
        encoded = [_encoded(body) for body in bodies]
        size = sum(map(len, encoded))
        self._refuse_when_full(len(bodies), size, urgent=urgent)
        before, seq, head, start = self.head_seq, self.head_seq, self.head_hash, self._chain_start
        hashes: list[bytes] = []
        for body in encoded:
            seq += 1
            chain = start.copy()
            chain.update(seq.to_bytes(8, "big") + head + body)
            head = chain.digest()
            hashes.append(head)
        self.head_seq, self.head_hash = seq, head
        self._queued_bytes += size
        appended = Appended(before + 1, seq, head, size)
        self._not_durable.append(appended)
        self._queue.put(_Rows(before, hashes, encoded))
        return appended

    async def prune(self, through_seq: int) -> None:
        """Take the rows up to this one out, in one transaction between two commits; all rows appended before are
        durable by then. About a `RowsPruned` row. Raises `journal.failed`."""
        assert through_seq < self.head_seq, "the row that says so comes after it, and stays"
        done: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Prune(through_seq, done))
        ends: set[asyncio.Future[Any]] = {done, self.failed, self._closed}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self.failed.done():
            raise replace(self.failed.result())

    def notices(self) -> tuple[str, ...]:
        """What people at the box must know: something holds the write-ahead log."""
        if self._wal_pages < LOG_HELD * WAL_PAGES_MAX:
            return ()
        mib = self._wal_pages * PAGE_BYTES // 2**20
        notice = (
            f"The journal's log has grown to {mib} MiB: a program stays in the middle of reading {self._path}. "
            "No row waits and none is lost, but the disk fills. End that program; the log then shrinks."
        )
        return (notice,)

    def _refuse_when_full(self, rows: int, size: int, *, urgent: bool) -> None:
        rows_max = QUEUE_ROWS_MAX + (URGENT_ROWS if urgent else 0)
        bytes_max = QUEUE_BYTES_MAX + (URGENT_BYTES if urgent else 0)
        waiting = self.head_seq - self.durable_seq
        if waiting + rows > rows_max or self._queued_bytes + size > bytes_max:
            raise LinesideError(
                "journal.full",
                f"{waiting} rows ({self._queued_bytes} bytes) are waiting for the disk; {rows} more do not fit.",
                effect="Nothing was recorded and nothing was commanded. What was accepted before is kept.",
                todo="Wait until the disk has caught up, then try again. If this stays, have the disk checked.",
            )

    def _committed(self, appends: int) -> None:
        for _ in range(appends):
            appended = self._not_durable.popleft()
            self._queued_bytes -= appended.size
            self._durable.append(appended)
        self.durable_seq, self.durable_hash = appended.last_seq, appended.last_hash
        if not self._acknowledging:
            self._acknowledge()

    def _acknowledge(self) -> None:
        rows = 0
        while self._durable and rows < TURN_ROWS:
            appended = self._durable.popleft()
            rows += appended.last_seq - appended.first_seq + 1
            appended.settle(None)
        self._acknowledging = rows >= TURN_ROWS or bool(self._durable)
        if self._acknowledging:
            soon = self._loop.call_soon
            soon(soon, soon, self._acknowledge)

    def _acknowledge_all(self) -> None:
        while self._durable:
            self._durable.popleft().settle(None)

    def _fail(self, error: LinesideError) -> None:
        self._acknowledge_all()
        self.failed.set_result(error)
        while self._not_durable:
            self._not_durable.popleft().settle(error)

    async def _start(self) -> None:
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, args=(opened,), name="journal", daemon=True).start()
        try:
            await asyncio.shield(opened)
        except asyncio.CancelledError:
            await self._close()
            opened.exception()  # nobody waits for it any more
            raise

    async def _close(self) -> None:
        self._closing = True
        self._queue.put(None)
        await asyncio.shield(self._closed)
        self._acknowledge_all()

    # The writer's thread ---------------------------------------------------------------------------------

    def _run(self, opened: asyncio.Future[None]) -> None:
        try:
            with _storage_errors(self._path), claimed(self._path):
                connection, head = self._open_connection()
                with closing(connection):
                    self._tell(self._opened, opened, head)
                    self._commit_groups(connection)
        except LinesideError as error:
            self._tell(self._ended, opened, error)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread, every waiter must hear of it
            self._tell(self._ended, opened, _failed(f"{type(error).__name__}: {error}"))
        finally:
            self._tell(self._closed.set_result, None)

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # The loop was closed without closing the journal: nobody is left to hear it. Rows already
            # committed stay, rows that were not acknowledged need not.
            self._queue.put(None)

    def _opened(self, opened: asyncio.Future[None], head: Row | None) -> None:
        if head is not None:
            self.head_seq = self.durable_seq = head.seq
            self.head_hash = self.durable_hash = head.hash
            self.restored = head.epoch != self.epoch
        self._chain_start = hashlib.sha256(ROW_DOMAIN + self.journal_id + self.epoch)
        opened.set_result(None)

    def _ended(self, opened: asyncio.Future[None], error: LinesideError) -> None:
        if not opened.done():
            opened.set_exception(error)
        elif not self.failed.done():
            self._fail(error)

    def _open_connection(self) -> tuple[apsw.Connection, Row | None]:
        epoch = _read_epoch(self._epoch_path)
        if epoch is not None and not self._path.exists():
            raise self._lost()
        _settle_log(self._path, self._vfs)
        connection = apsw.Connection(str(self._path), vfs=self._vfs)
        try:
            connection.set_busy_timeout(int(BUSY_S * 1000))
            connection.pragma("synchronous", SYNCHRONOUS)
            connection.pragma("journal_size_limit", WAL_PAGES_MAX * PAGE_BYTES)  # a log that begins again is cut to it
            if not _tables(connection):
                self._create(connection, epoch)
            self.journal_id = _journal_id(connection, self._path)
            connection.set_wal_hook(self._on_wal)  # takes the place of the automatic checkpoint inside a commit
            head = _checked_head(connection, self.journal_id)
            _sync_folder(self._path.parent)  # the files that SQLite made and removed
            self.epoch = epoch or _create_epoch(self._epoch_path)
        except BaseException:
            connection.close()
            raise
        return connection, head

    def _lost(self) -> LinesideError:
        return LinesideError(
            "journal.lost",
            f"A journal was kept here, but {self._path} is gone or empty.",
            effect="The runtime does not start: it would begin a second record beside the lost one.",
            todo=f"Bring the journal back. To begin a new one on purpose, remove {self._epoch_path} as well.",
        )

    def _create(self, connection: apsw.Connection, epoch: bytes | None) -> None:
        if epoch is not None:
            raise self._lost()
        if connection.pragma("page_count") > 1:
            raise _foreign(self._path)  # more than a creation that was cut short leaves behind
        connection.pragma("journal_mode", "wal")
        with connection:
            for sql in _SCHEMA.values():
                connection.execute(sql)
            connection.execute(
                "INSERT INTO meta VALUES('format', ?), ('journal', ?)",
                (FORMAT, secrets.token_bytes(ID_BYTES)),
            )

    def _on_wal(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _commit_groups(self, connection: apsw.Connection) -> None:
        try:
            while self._commit_next(connection):
                pass
        except Exception as error:  # noqa: BLE001 - whatever it was, the group is unknown and its waiters must hear it
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # touch nothing more
            self._tell(self._fail, _failed(f"{type(error).__name__}: {error}"))

    def _commit_next(self, connection: apsw.Connection) -> bool:
        """Wait, then commit all that was appended meanwhile, and do what was asked for after it. False at the end."""
        group: _Rows | None = None
        appends = 0
        wait_s = IDLE_S if self._wal_pages else None
        work: _Rows | _Prune | None = None
        idle = ended = False
        try:
            while isinstance(work := self._queue.get(timeout=wait_s), _Rows):
                if group is None:
                    group, wait_s = work, 0
                else:
                    group.hashes += work.hashes
                    group.bodies += work.bodies
                appends += 1
        except Empty:
            idle = group is None
        else:
            ended = work is None
        if group is not None:
            self._insert_group(connection, group)
            self._tell(self._committed, appends)
        if ended:
            self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_TRUNCATE, BUSY_S)
            return False
        if isinstance(work, _Prune):
            self._delete(connection, work.through_seq)
            self._tell(work.done.set_result, None)
        if idle or self._wal_pages >= self._wal_pages_max:
            self._checkpoint(connection, apsw.SQLITE_CHECKPOINT_RESTART, READERS_LEAVE_S)
        return True

    def _insert_group(self, connection: apsw.Connection, group: _Rows) -> None:
        bodies = apsw.carray(tuple(group.bodies))
        connection.execute(_INSERT, (group.before_seq, self.epoch, b"".join(group.hashes), bodies))

    def _delete(self, connection: apsw.Connection, through_seq: int) -> None:
        connection.execute("DELETE FROM row WHERE seq <= ?", (through_seq,))

    def _checkpoint(self, connection: apsw.Connection, mode: int, wait_s: float) -> None:
        """Copy the log into the database, so that the next commit begins it again; wait so long for its readers."""
        connection.set_busy_timeout(int(wait_s * 1000))
        try:
            connection.wal_checkpoint(mode=mode)
            self._wal_pages, self._wal_pages_max = 0, WAL_PAGES_MAX
        except apsw.BusyError:
            # A reader is at work: the rows are durable in the log, which goes on.
            self._wal_pages_max = max(WAL_PAGES_MAX, self._wal_pages + self._wal_pages // LOG_AGAIN)
        finally:
            connection.set_busy_timeout(int(BUSY_S * 1000))


def _encoded(body: RowBody) -> bytes:
    try:
        data = encode(body)
    except TypeError as error:  # orjson's own errors are TypeErrors
        raise LinesideError(
            "row.cannot_encode",
            f"A {type(body.event).__name__} row holds something that JSON cannot express: {str(error)[:120]}.",
            effect="Nothing was recorded and nothing was commanded.",
            todo="Correct the value and try again.",
        ) from error
    if len(data) > BODY_BYTES_MAX:
        raise LinesideError(
            "row.too_large",
            f"A {type(body.event).__name__} row has {len(data)} bytes; {BODY_BYTES_MAX} are allowed.",
            effect="Nothing was recorded and nothing was commanded.",
            todo="Shorten the text and try again.",
        )
    return data


def _failed(why: str) -> LinesideError:
    return LinesideError(
        "journal.failed",
        f"The journal could not be written ({why}).",
        effect=UNKNOWN,
        todo="The runtime ends and starts again by itself; it then looks what was written. If it comes back, "
        "check the disk: full, read-only or worn out.",
    )


@asynccontextmanager
async def open_journal(path: Path, epoch_path: Path, *, vfs: str | None = None) -> AsyncIterator[Journal]:
    """The one writer of the journal at `path`, which is created when absent.

    `epoch_path` holds this box's epoch and stays outside backups. Leaving the block commits what was appended
    and closes the file; it raises `journal.failed` when the journal failed inside the block. `vfs` names the
    SQLite layer to the system, SQLite's own when absent.

    Raises `journal.in_use`, `journal.lost`, `journal.foreign`, `journal.too_new`, `journal.damaged`,
    `journal.epoch` or `journal.cannot_open` when there is no journal that can be continued."""
    journal = Journal(path, epoch_path, vfs)
    await journal._start()  # noqa: SLF001 - the one maker of journals
    try:
        yield journal
    finally:
        await journal._close()  # noqa: SLF001
    if journal.failed.done():
        raise replace(journal.failed.result())


# Reading ---------------------------------------------------------------------------------------------------


class JournalReader:
    """A read-only end of a journal that may be live: short transactions, never a checkpoint. One thread each."""

    def __init__(self, path: Path) -> None:
        """Raises `journal.absent`, `journal.foreign`, `journal.too_new`, `journal.damaged` or `journal.cannot_open`."""
        self._path = path
        if not path.is_file():
            raise LinesideError(
                "journal.absent", f"There is no journal at {path}.", todo="Check the path; the runtime makes the file."
            )
        with _storage_errors(path):
            self._connection = _open_read_only(path)
            try:
                self.journal_id = _journal_id(self._connection, path)
            except BaseException:
                self._connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the file is left as it is."""
        self._connection.close()

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow `after_seq`, in order; empty when there are none yet.

        Raises `journal.damaged` when a row is not what a row must be, so that nothing is passed on unseen."""
        return self._select(
            "SELECT seq, epoch, hash, body FROM row WHERE seq > ? ORDER BY seq LIMIT ?", after_seq, limit
        )

    def rows_back(self, count: int) -> list[Row]:
        """The last `count` rows, in order."""
        return self._select("SELECT seq, epoch, hash, body FROM row ORDER BY seq DESC LIMIT ?", count)[::-1]

    def head(self) -> tuple[int, bytes]:
        """Number and hash of the last row; (0, 32 zero bytes) when there is none."""
        last = self.rows_back(1)
        return (last[0].seq, last[0].hash) if last else (0, ZERO_HASH)

    def first_seq(self) -> int:
        """The lowest number that is there; 1 for a journal without rows."""
        first = self._select("SELECT seq, epoch, hash, body FROM row ORDER BY seq LIMIT 1")
        return first[0].seq if first else 1

    def rows_of_kind(self, kind: str) -> Iterator[Row]:
        """The rows of a kind that this version writes, in order; searches all rows, in transactions of bounded size."""
        seq, begins = self.first_seq() - 1, f'{{"kind":"{kind}",'.encode()
        head_seq, _ = self.head()
        while seq < head_seq:
            found = self._select(
                "SELECT seq, epoch, hash, body FROM row "
                "WHERE seq BETWEEN ? AND ? AND substr(body, 1, ?) = ? ORDER BY seq",
                seq + 1,
                seq + SEARCH_ROWS,
                len(begins),
                begins,
            )
            yield from found
            seq += SEARCH_ROWS

    def _select(self, sql: str, *values: int | bytes) -> list[Row]:
        with _storage_errors(self._path):
            return [_row(*found) for found in self._connection.execute(sql, values).fetchall()]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a full verification found: the rows that hold, the head they lead to, and the first fault.

    Rows before `first_seq` were archived and pruned: what is there holds from its first row on."""

    journal: str
    first_seq: int
    rows: int
    head_seq: int
    head_hash: str
    fault: Fault | None

    @property
    def ok(self) -> bool:
        """True when every row holds and the expected head, where one was given, was reached."""
        return self.fault is None


def verify_journal(
    path: Path,
    *,
    expect_head: tuple[int, bytes] | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> VerifyReport:
    """Check every row of a closed or live journal against the chain, in bounded memory.

    `expect_head` (number, hash), for example from a hub's receipt, must be among the rows: without it rows cut
    off at the end cannot be missed. `progress` is called with (rows checked, head). Damage of any kind is the
    report's fault; only a path without a file raises (`journal.absent`)."""
    walk = _Walk(expect_head, progress)
    journal_id = b""
    try:
        with JournalReader(path) as reader:
            journal_id = reader.journal_id
            fault = walk.check(reader)
    except LinesideError as error:
        if error.code == "journal.absent" and not (path.is_file() and path.stat().st_size):
            raise
        fault = Fault(walk.seq + 1 if journal_id else 0, error.what)
    rows = walk.seq - walk.first_seq + 1
    return VerifyReport(journal_id.hex(), walk.first_seq, rows, walk.seq, walk.hash.hex(), fault)


class _Walk:
    """One pass over the rows: how far the chain holds, and whether the expected head was met."""

    def __init__(self, expect_head: tuple[int, bytes] | None, progress: Callable[[int, int], object] | None) -> None:
        self.first_seq = 1
        self.seq, self.hash = 0, ZERO_HASH
        self._expect_seq, self._expect_hash = expect_head or (0, ZERO_HASH)
        self._met = self._expect_seq == 0
        self._progress = progress

    def check(self, reader: JournalReader) -> Fault | None:
        head_seq, _ = reader.head()
        first_seq = reader.first_seq()
        if first_seq < 1:
            return Fault(first_seq, f"Row {first_seq} was not written by Lineside: numbers begin at 1.")
        begins = pruned_before(reader, first_seq)
        if begins is None:
            return Fault(first_seq, f"Row 1 is missing: no row says that what is before row {first_seq} was archived.")
        self.first_seq, (self.seq, self.hash) = first_seq, begins
        if 0 < self._expect_seq < first_seq:
            self._met = (self._expect_seq, self._expect_hash) == begins
        limit = READ_ROWS_MAX
        while True:
            try:
                rows = reader.rows(self.seq, limit)
            except LinesideError:
                if limit == 1:
                    raise
                limit = 1  # one by one up to the row that cannot be read, so that it is named
                continue
            if not rows:
                return self._end(head_seq)
            for fault in chain_faults(reader.journal_id, self._passing(rows), after_seq=self.seq, previous=self.hash):
                # while this runs, the rows that come next may be taken out
                return self.check(reader) if reader.first_seq() > self.seq + 1 else fault
            if self._progress is not None:
                self._progress(self.seq, max(self.seq, head_seq))

    def _passing(self, rows: list[Row]) -> Iterator[Row]:
        for row in rows:
            yield row
            # Asked for the next one: this one holds.
            self.seq, self.hash = row.seq, row.hash
            if row.seq == self._expect_seq:
                self._met = row.hash == self._expect_hash

    def _end(self, head_seq: int) -> Fault | None:
        if self.seq < max(head_seq, self._expect_seq):
            missing = max(head_seq, self._expect_seq)
            return Fault(
                self.seq + 1, f"Row {self.seq + 1} is missing: the rows end at {self.seq} and not at {missing}."
            )
        if not self._met and self._expect_seq < self.first_seq - 1:
            return Fault(
                self._expect_seq,
                f"Row {self._expect_seq}, which is expected, was archived: verify the archive's segments as well.",
            )
        if not self._met:
            return Fault(
                self._expect_seq,
                f"Row {self._expect_seq} is not the expected one: the rows agree with each other, its hash differs.",
            )
        return None


def pruned_before(reader: JournalReader, first_seq: int) -> tuple[int, bytes] | None:
    """Number and hash of the row before the first one that is there: (0, zeros), or as a `RowsPruned` row says; None
    when no row does. That row is not verified here: it is one of those that follow."""
    if first_seq == 1:
        return 0, ZERO_HASH
    for row in reader.rows_of_kind("RowsPruned"):
        if begins := _pruned_by(row, first_seq):
            return begins
    return None


def _pruned_by(row: Row, first_seq: int) -> tuple[int, bytes] | None:
    said = decode(row.body).event
    if isinstance(said, RowsPruned) and said.through_seq == first_seq - 1:
        return said.through_seq, _hash_of(said.through_hash)
    return None


def _hash_of(text: str) -> bytes:
    """The hash in a row that is not verified yet: one that is none makes the first row not hold."""
    try:
        return bytes.fromhex(text)
    except (ValueError, TypeError):
        return b""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy holds: the journal's id, and epoch, number and hash of its last row."""

    journal_id: bytes
    epoch: bytes
    seq: int
    hash: bytes


def copy_journal(source: Path, target: Path, *, progress: Callable[[int, int], object] | None = None) -> Copied:
    """Copy the rows of a live or closed journal up to its present head into the new file `target`, verified on the way.

    Reads in short transactions, so that no writer and no checkpoint waits for a copy, however long it takes. The
    caller syncs `target`. Raises `journal.absent`, also without a row, `journal.damaged` and others of a reader."""
    with JournalReader(source) as reader, _storage_errors(target), closing(apsw.Connection(str(target))) as copy:
        head_seq, _ = reader.head()
        if not head_seq:
            raise LinesideError("journal.absent", f"{source} has no row yet.", todo="Start the runtime; it begins it.")
        copy.pragma("journal_mode", "off")  # a copy that was cut short is thrown away
        copy.pragma("synchronous", "OFF")
        copy.execute("BEGIN")
        for sql in _SCHEMA.values():
            copy.execute(sql)
        copy.execute("INSERT INTO meta VALUES('format', ?), ('journal', ?)", (FORMAT, reader.journal_id))
        last = _row_before(reader)
        while last.seq < head_seq:
            rows = reader.rows(last.seq, min(READ_ROWS_MAX, head_seq - last.seq))
            if rows and last.seq + 1 < rows[0].seq == reader.first_seq():
                copy.execute("DELETE FROM row")  # what comes next was pruned meanwhile: begin again with what is there
                last = _row_before(reader)
                continue
            for fault in chain_faults(reader.journal_id, rows, after_seq=last.seq, previous=last.hash):
                raise replace(_damaged(fault.why), effect="No copy was made.")
            if not rows:
                raise replace(_damaged(f"Row {last.seq + 1} is missing."), effect="No copy was made.")
            copy.executemany("INSERT INTO row VALUES(?,?,?,?)", ((r.seq, r.epoch, r.hash, r.body) for r in rows))
            last = rows[-1]
            if progress is not None:
                progress(last.seq, head_seq)
        copy.execute("COMMIT")
        copy.pragma("journal_mode", "wal")
        return Copied(reader.journal_id, last.epoch, last.seq, last.hash)


class Extension:
    """A journal that no runtime has begun on yet, and the way to put rows behind its last one; see `extended`."""

    def __init__(self, connection: apsw.Connection, path: Path, journal_id: bytes, head: Row) -> None:
        self.journal_id = journal_id
        self.seq, self.hash = head.seq, head.hash
        """The last row."""
        self._connection = connection
        self._path = path

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of row `seq`; None when it is not there."""
        with _storage_errors(self._path):
            found = self._connection.execute("SELECT hash FROM row WHERE seq = ?", (seq,)).fetchall()
        digest = found[0][0] if found else None
        return digest if isinstance(digest, bytes) else None

    def add(self, rows: Sequence[Row]) -> None:
        """Put `rows`, as they are, behind the last one. Raises `journal.damaged` unless they chain to it."""
        for fault in chain_faults(self.journal_id, rows, after_seq=self.seq, previous=self.hash):
            raise _damaged(fault.why)
        too_large = next((row.seq for row in rows if len(row.body) > BODY_BYTES_MAX), None)
        if too_large is not None:
            raise _damaged(f"Row {too_large} is larger than any row that Lineside writes.")
        with _storage_errors(self._path):
            values = ((row.seq, row.epoch, row.hash, row.body) for row in rows)
            self._connection.executemany("INSERT INTO row VALUES(?,?,?,?)", values)
        if rows:
            self.seq, self.hash = rows[-1].seq, rows[-1].hash


@contextmanager
def extended(path: Path) -> Iterator[Extension]:
    """The closed journal at `path`, to which rows that it lacks may be added: all of them, durable, when the block is
    left in order, and none otherwise. Nobody else may use it meanwhile."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        with _storage_errors(path):
            connection.pragma("synchronous", "FULL")
            journal_id = _journal_id(connection, path)
            head = _checked_head(connection, journal_id) or Row(0, b"", ZERO_HASH, b"")
            connection.execute("BEGIN IMMEDIATE")
        extension = Extension(connection, path, journal_id, head)
        yield extension  # when it raises, closing the connection takes everything back
        with _storage_errors(path):
            connection.execute("COMMIT")
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _row_before(reader: JournalReader) -> Row:
    """What stands for the row before the first one in a copy."""
    first_seq = reader.first_seq()
    begins = pruned_before(reader, first_seq)
    if begins is None:
        missing = f"Row 1 is missing: the rows begin with {first_seq}, and no row says that it was archived."
        raise replace(_damaged(missing), effect="No copy was made.")
    return Row(begins[0], b"", begins[1], b"")


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row for a person's eyes. `says` is the decoded body; None with `text` when it is not JSON."""

    seq: int
    hash: str
    epoch: str
    says: Mapping[str, Any] | None
    text: str


def show_rows(path: Path, after_seq: int, limit: int) -> list[ShownRow]:
    """Rows as they are stored, kinds that this version does not know included. Verifies nothing."""
    with JournalReader(path) as reader:
        return [_shown(row) for row in reader.rows(after_seq, limit)]


def _shown(row: Row) -> ShownRow:
    text = row.body.decode(errors="replace")
    try:
        says = orjson.loads(row.body)
    except orjson.JSONDecodeError:
        says = None
    return ShownRow(row.seq, row.hash.hex(), row.epoch.hex(), says if isinstance(says, dict) else None, text)


# The file --------------------------------------------------------------------------------------------------


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors as refusals in words."""
    try:
        yield
    except (
        apsw.NotADBError,
        apsw.CorruptError,
        apsw.FormatError,
        apsw.MismatchError,
        apsw.TooBigError,
        apsw.SQLError,
        UnicodeDecodeError,  # a flipped bit can turn bytes into text
    ) as error:
        raise _damaged(f"{path} cannot be read as a journal ({error}).") from error
    except (apsw.Error, OSError, MemoryError) as error:
        raise LinesideError(
            "journal.cannot_open",
            f"{path} cannot be used ({type(error).__name__}: {error}).",
            todo="Check that the folder is there, that this user may write to it, and that the disk is well.",
        ) from error


def _damaged(what: str) -> LinesideError:
    return LinesideError(
        "journal.damaged",
        what,
        effect="Nothing is written to it, and no batch goes on with it.",
        todo="Keep the file as it is. `lineside journal verify` names the first row that does not hold; bring the "
        "rows back from the hub, the mirror or a backup.",
    )


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """One runtime a journal. The lock is a file of its own, because closing any handle of the database itself
    would drop SQLite's locks. It goes with the process, however that ends."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LinesideError(
                "journal.in_use",
                f"Another runtime is writing {path}.",
                effect="This one does not start. The other one is not disturbed.",
                todo="Stop the other runtime first, or give this one a folder of its own.",
            ) from error
        yield
    finally:
        os.close(handle)


def _settle_log(path: Path, vfs: str | None) -> None:
    """Make sure that what the write-ahead log of an earlier run says is on the disk, before anything reads it.

    After a kill or a failed sync, reads can show what only the page cache has; after a failed sync the system
    even believes it to be written, so that no later sync writes it. Writing the same bytes once more does."""
    log = path.with_name(path.name + "-wal")
    size = log.stat().st_size if log.exists() else 0
    if not size:
        return
    file = apsw.VFSFile(vfs or "", str(log), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        for offset in range(0, size, LOG_CHUNK_BYTES):
            file.xWrite(file.xRead(min(LOG_CHUNK_BYTES, size - offset), offset), offset)
        file.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        file.xClose()


def _open_read_only(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(int(BUSY_S * 1000))
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, 2 * BODY_BYTES_MAX)  # a damaged length must not cost memory
    return connection


def _tables(connection: apsw.Connection) -> dict[str, str]:
    return {str(name): str(sql) for name, sql in connection.execute("SELECT name, sql FROM sqlite_schema LIMIT 10")}


def _journal_id(connection: apsw.Connection, path: Path) -> bytes:
    """The id in `meta`, once the file is known to be a journal of a format that this version writes."""
    tables = _tables(connection)
    if not tables:
        raise LinesideError(
            "journal.absent", f"{path} is empty: no journal was begun in it.", todo="Start the runtime; it begins it."
        )
    if tables.get("meta") != _SCHEMA["meta"]:
        raise _foreign(path)
    meta = {str(name): value for name, value in connection.execute("SELECT name, value FROM meta LIMIT 10")}
    made, journal_id = meta.get("format"), meta.get("journal")
    if isinstance(made, int) and made > FORMAT:
        raise LinesideError(
            "journal.too_new",
            f"{path} has format {made}; this version knows formats up to {FORMAT}.",
            todo="Use the version of Lineside that wrote it, or a later one.",
        )
    if made != FORMAT or not isinstance(journal_id, bytes) or len(journal_id) != ID_BYTES or tables != _SCHEMA:
        raise _foreign(path)
    return journal_id


def _foreign(path: Path) -> LinesideError:
    return LinesideError(
        "journal.foreign",
        f"{path} is a database, but not a journal of Lineside: its tables or its description differ.",
        effect="Nothing is written to it, and no batch goes on with it.",
        todo="Check the path. If this was a journal, keep the file and bring the rows back from the hub or a backup.",
    )


def _row(seq: object, epoch: object, digest: object, body: object) -> Row:
    if (
        not isinstance(seq, int)
        or not isinstance(epoch, bytes)
        or not isinstance(digest, bytes)
        or not isinstance(body, bytes)
        or len(epoch) != ID_BYTES
        or len(digest) != len(ZERO_HASH)
    ):
        raise _damaged(f"Row {seq} is damaged: its columns are not those of a row.")
    return Row(seq, epoch, digest, body)


def _checked_head(connection: apsw.Connection, journal_id: bytes) -> Row | None:
    """The last row, checked against its predecessor. Reads two rows, whatever the journal's length."""
    found = connection.execute("SELECT seq, epoch, hash, body FROM row ORDER BY seq DESC LIMIT 2").fetchall()
    if not found:
        return None
    last = _row(*found[0])
    before: tuple[int, bytes] | None = (0, ZERO_HASH)
    if len(found) > 1:
        previous = _row(*found[1])
        before = previous.seq, previous.hash
    elif last.seq > 1:  # all others were archived: then this one says so itself
        before = _pruned_by(last, last.seq)
    if before is None:
        raise _damaged(f"Row {last.seq - 1} is missing, and no row says that it was archived.")
    for fault in chain_faults(journal_id, [last], after_seq=before[0], previous=before[1]):
        raise _damaged(fault.why)
    return last


def _read_epoch(path: Path) -> bytes | None:
    try:
        text = path.read_bytes()[:100]
    except FileNotFoundError:
        return None
    try:
        epoch = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        epoch = b""
    if len(epoch) != ID_BYTES:
        raise LinesideError(
            "journal.epoch",
            f"{path} does not hold an epoch (32 hex digits).",
            effect="The runtime does not start: it cannot tell whether this journal is a copy.",
            todo="Remove the file; a new epoch is then begun, as after a restore.",
        )
    return epoch


def _create_epoch(path: Path) -> bytes:
    """Begin an epoch: on the disk, whole, before a row names it."""
    epoch = secrets.token_bytes(ID_BYTES)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="ascii") as file:
        file.write(epoch.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _sync_folder(path.parent)
    return epoch


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
