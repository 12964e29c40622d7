"""Process values: the only owner of `history.db`.

The runtime hands every reading to `History`, which stores them every few seconds as a raw chunk and closes a window
every ten minutes and at the end of a batch; the Merkle root of a closed window becomes a journal row. The follower's
`Packer` replaces the chunks of sealed windows by slices (`edge.slices`) and thins what is old and in no batch's record.
Nothing here can hold up the line: what cannot be stored is a gap, said in a row, and production goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
import zlib
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import apsw
import orjson

from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.events import JournalContinued, ValuesSealed, ValuesThinned, decode
from edge.core.quick import dataclass
from edge.core.record import Row
from edge.core.samples import (
    NO_SOURCE_TIME,
    Sample,
    Scale,
    Series,
    damaged,
    encode,
    extremes,
    leaf,
    merkle_root,
    order,
    sample_of,
    split,
)
from edge.core.terms import Quality, Reading
from edge.identity import sync_folder

if TYPE_CHECKING:  # a follower reads values and knows no plant
    from edge.core.plant import Plant

FORMAT: Final = 1
FLUSH_S: Final = 4.0
HISTORY_LOSS_S_MAX: Final = 5.0
"""What a power cut can take: the readings of one flush, and the time that its commit takes."""
WINDOW_S: Final = 600.0
PENDING_MAX: Final = 40_000
"""Readings waiting for the disk. From a quarter of it on they are not left to wait for the next flush; from half of it
on only those of the record scope are taken."""
POLL_GAP_US: Final = 5_000
GROUP_US_MAX: Final = 100_000
"""Readings of one connection that come in one burst have the time of its first; a burst is no longer than this, and
never longer than half a poll."""
BUSY_S: Final = 5.0
SERIES_AT_ONCE: Final = 64
"""So many series of a window are in memory while it is packed."""
CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

OPEN, CLOSED, SEALED, PACKED, DAMAGED = range(5)
"""What became of a window: readings come; its root is known; the root is a durable row; it lies in slices; its chunks
were damaged before a root was made."""

_SCHEMA: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE series(id INTEGER PRIMARY KEY, tag TEXT, unit TEXT, resolution TEXT, UNIQUE(tag, unit, resolution));
CREATE TABLE window(id INTEGER PRIMARY KEY, to_us INTEGER, low_us INTEGER, high_us INTEGER, state INTEGER, units TEXT,
  root BLOB, record_root BLOB, thinned TEXT);
CREATE TABLE chunk(id INTEGER PRIMARY KEY, window INTEGER, data BLOB);
CREATE INDEX chunk_window ON chunk(window);
CREATE TABLE leaf(window INTEGER, series INTEGER, record INTEGER, samples INTEGER, hash BLOB, data BLOB,
  PRIMARY KEY(window, series)) WITHOUT ROWID;
CREATE TABLE vector(window INTEGER, id INTEGER, data BLOB, PRIMARY KEY(window, id)) WITHOUT ROWID;
CREATE TABLE gap(id INTEGER PRIMARY KEY, from_us INTEGER, to_us INTEGER, scope TEXT, why TEXT, told INTEGER);
"""
_PART: Final = struct.Struct(">II")
_ABOUT_VALUES: Final = tuple(
    f'{{"kind":"{kind.__name__}"'.encode() for kind in (JournalContinued, ValuesSealed, ValuesThinned)
)
READ_ROWS: Final = 1_000
COPY_STEPS: Final = 10_000
"""Of SQLite's machine, between two words about a copy's progress."""

EVERYTHING: Final = "everything"
OUTSIDE: Final = "outside the record"


def utc_text(at_us: int) -> str:
    """A time as rows and people write it."""
    try:
        return (EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        return f"{at_us} us"


def utc_us(text: str) -> int | None:
    """Microseconds of UTC in an ISO 8601 time; None for a text that is none. Without an offset it is taken as UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - EPOCH) // timedelta(microseconds=1)


def series_of(plant: Plant) -> dict[str, Series]:
    """The series of every tag of a plant."""
    return {
        name: Series(name, tag.unit, "" if tag.resolution is None else format(Decimal(repr(tag.resolution)), "f"))
        for name, tag in plant.tags().items()
    }


# The runtime's side ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Column:
    """One tag: where its samples go, and what its open window has so far."""

    series: Series
    id: int
    unit: str
    """The plant unit that owns the tag."""
    scale: Scale
    digest: Any = field(default_factory=hashlib.sha256)
    samples: int = 0


@dataclass(slots=True)
class _Group:
    """The burst of readings that a connection is bringing."""

    at_us: int
    last_us: int
    most_us: int


class History:
    """Collects and stores the readings of one runtime. `take` is called on the event loop, for every reading."""

    def __init__(self, path: Path, plant: Plant, *, now_us: Callable[[], int]) -> None:
        """`now_us` is the wall clock in microseconds. Nothing is opened before `run`."""
        self._path = path
        self._now_us = now_us
        self._series = series_of(plant)
        groups = {
            name: _Group(0, 0, min(GROUP_US_MAX, int(connection.poll_s * 500_000)))
            for name, connection in plant.connections.items()
        }
        self._group = {name: groups[tag.connection] for name, tag in plant.tags().items()}
        self._pending: list[tuple[int, str, Reading]] = []
        self._many = asyncio.Event()
        self._urgent: frozenset[str] = frozenset()
        """The plant units whose values belong to a live batch."""
        self._live: frozenset[str] = frozenset()
        self._shed: dict[str, tuple[int, str]] = {}
        """Scope -> since when it is not stored, and why."""
        self._trouble = ""
        self._connection: apsw.Connection | None = None
        self._columns: dict[str, _Column] = {}
        self._window = 0
        self._units: frozenset[str] = frozenset()
        self._last_us = 0
        self._lost_us = 0
        """The first value that this runtime could not store."""
        self._started = False
        self._full = False
        self._ended = False

    def take(self, tag: str, reading: Reading) -> None:
        """Keep this reading. Microseconds; never raises, never waits."""
        now_us = self._now_us()
        group = self._group[tag]
        if not (0 <= now_us - group.last_us < POLL_GAP_US and now_us - group.at_us < group.most_us):
            group.at_us = now_us
        group.last_us = now_us
        waiting = len(self._pending)
        if waiting >= PENDING_MAX // 4:
            self._many.set()
            if waiting >= PENDING_MAX // 2 and (waiting >= PENDING_MAX or tag.partition(".")[0] not in self._urgent):
                scope = EVERYTHING if waiting >= PENDING_MAX else OUTSIDE
                self._shed.setdefault(scope, (now_us, "the disk did not keep up"))
                return
        self._pending.append((group.at_us, tag, reading))

    def notices(self) -> tuple[str, ...]:
        """What the operator must know; nothing when all is well."""
        if self._ended:
            return (
                "Process values are not being stored any more. Production goes on; restart the box when it is free.",
            )
        if self._trouble:
            return (
                f"Process values are not being stored ({self._trouble}). Production goes on; have the disk checked.",
            )
        if OUTSIDE in self._shed:
            return ("Only the process values of running batches are stored: the disk is nearly full or slow.",)
        return ()

    async def run(
        self,
        submit: Callable[[cm.Command], Awaitable[object]],
        live: Callable[[], Mapping[str, frozenset[str]]],
        has_room: Callable[[], bool],
        stop: asyncio.Event,
    ) -> None:
        """Store until `stop` is set, then close the last window. `submit` makes a row durable; `live` gives each live
        batch's units; without room only their values are stored."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        with ThreadPoolExecutor(1, thread_name_prefix="history") as thread:
            try:
                while True:
                    await _first(pause_s, stop, self._many)
                    pause_s = FLUSH_S
                    self._many.clear()
                    last = stop.is_set()  # set from here on, another flush stores what comes meanwhile and closes
                    pending, self._pending = self._pending, []
                    batches = live()
                    ended = bool(self._live - batches.keys())
                    self._live = frozenset(batches)
                    self._urgent = frozenset().union(*batches.values())
                    self._note_room(has_room())
                    work = (pending, self._urgent, ended or last, dict(self._shed))
                    told = await loop.run_in_executor(thread, self._flush, *work)
                    for scope in told:
                        if self._shed[scope] == work[3][scope]:
                            del self._shed[scope]
                    await self._tell(thread, submit)
                    if last:
                        return
            finally:
                self._ended = True
                await asyncio.shield(loop.run_in_executor(thread, self._close))

    def _note_room(self, has_room: bool) -> None:
        """On a disk that is nearly full the values outside every batch's record are the first to go."""
        why = "the disk is nearly full"
        if not has_room:
            self._shed.setdefault(OUTSIDE, (self._now_us(), why))
        self._full = not has_room

    async def _tell(self, thread: ThreadPoolExecutor, submit: Callable[[cm.Command], Awaitable[object]]) -> None:
        """Rows for closed windows and gaps. What the journal cannot take now is told with the next flush."""
        loop = asyncio.get_running_loop()
        try:
            for key, command in await loop.run_in_executor(thread, self._untold):
                await submit(command)
                await loop.run_in_executor(thread, self._told, key)
        except LinesideError as refusal:
            if refusal.code != "journal.full":
                raise

    # In the thread ------------------------------------------------------------------------------------------

    def _flush(
        self,
        pending: list[tuple[int, str, Reading]],
        urgent: frozenset[str],
        close: bool,
        shed: dict[str, tuple[int, str]],
    ) -> list[str]:
        """Store `pending`; returns the scopes of `shed` that ended and are marked as gaps."""
        now_us = self._now_us()
        try:
            connection = self._connection or self._open(now_us)
            over = [scope for scope in shed if not (scope == OUTSIDE and self._full)]
            if self._full:
                pending = [one for one in pending if one[1].partition(".")[0] in urgent]
            with connection:
                for scope in over:
                    since_us, why = shed[scope]
                    _mark_gap(connection, since_us, now_us, scope, why)
                parts = self._encoded(pending)
                if parts:
                    self._store(connection, parts, pending, urgent, now_us)
            for column, data, samples in parts:
                column.digest.update(data)
                column.samples += samples
            self._last_us = now_us
            if self._window and (close or not 0 <= now_us - self._window < WINDOW_S * 1_000_000):
                with connection:
                    _close_window(connection, self._window, self._columns.values())
                self._begin()
            self._trouble = ""
        except (apsw.Error, OSError, LinesideError) as error:
            # The values of this flush are lost: a gap is marked from the last stored one on, when the disk is back.
            self._lost_us = self._lost_us or (pending[0][0] if pending else 0)
            self._trouble = error.what if isinstance(error, LinesideError) else f"{type(error).__name__}: {error}"
            self._close()
            return []
        return over

    def _encoded(self, pending: list[tuple[int, str, Reading]]) -> list[tuple[_Column, bytes, int]]:
        made: dict[str, list[bytes]] = {}
        last_text, last_us = "", NO_SOURCE_TIME
        for at_us, tag, reading in pending:
            if reading.source_utc != last_text:
                last_text = reading.source_utc
                found = utc_us(last_text) if last_text else None
                last_us = NO_SOURCE_TIME if found is None else found
            data = encode(at_us, last_us, reading.value, reading.quality, reading.detail, self._columns[tag].scale)
            made.setdefault(tag, []).append(data)
        return [(self._columns[tag], b"".join(each), len(each)) for tag, each in made.items()]

    def _store(
        self,
        connection: apsw.Connection,
        parts: list[tuple[_Column, bytes, int]],
        pending: list[tuple[int, str, Reading]],
        urgent: frozenset[str],
        now_us: int,
    ) -> None:
        low_us, high_us = min(one[0] for one in pending), max(one[0] for one in pending)
        if not self._window:
            newest = _rows(connection, "SELECT ifnull(max(id), 0) FROM window")[0][0]
            self._window, self._units = max(low_us, newest + 1), frozenset()
            empty = (self._window, now_us, low_us, high_us, OPEN, "[]")
            connection.execute("INSERT INTO window VALUES(?,?,?,?,?,?,NULL,NULL,NULL)", empty)
        self._units |= urgent
        connection.execute(
            "UPDATE window SET to_us=?, low_us=min(low_us, ?), high_us=max(high_us, ?), units=? WHERE id=?",
            (now_us, low_us, high_us, orjson.dumps(sorted(self._units)).decode(), self._window),
        )
        chunk = _chunk((column.id, data) for column, data, _ in parts)
        connection.execute("INSERT INTO chunk(window, data) VALUES(?,?)", (self._window, chunk))

    def _open(self, now_us: int) -> apsw.Connection:
        connection = _connect(self._path)
        try:
            with connection:
                known = _series_ids(connection, self._series.values())
                self._columns = {
                    tag: _Column(series, known[series], tag.partition(".")[0], Scale(series.resolution))
                    for tag, series in self._series.items()
                }
                _recover(connection)
                last = _rows(connection, "SELECT to_us FROM window ORDER BY id DESC LIMIT 1")
                since_us = self._last_us or (last[0][0] if last else self._lost_us)
                if since_us:
                    why = "the disk failed" if self._started or not last else "no runtime was storing values"
                    _mark_gap(connection, since_us, max(since_us, now_us), EVERYTHING, why)
        except BaseException:
            connection.close()
            raise
        self._connection, self._started = connection, True
        self._begin()
        return connection

    def _begin(self) -> None:
        self._window, self._units = 0, frozenset()
        for column in self._columns.values():
            column.digest, column.samples = hashlib.sha256(), 0

    def _untold(self) -> list[tuple[tuple[str, int], cm.Command]]:
        connection = self._connection
        if connection is None:
            return []
        found: list[tuple[tuple[str, int], cm.Command]] = []
        gaps = "SELECT id, from_us, to_us, scope, why FROM gap WHERE told=0 ORDER BY id"
        try:
            for number, from_us, to_us, scope, why in connection.execute(gaps):
                command = cm.MissValues(from_utc=utc_text(from_us), to_utc=utc_text(to_us), scope=scope, why=why)
                found.append((("gap", number), command))
            for (window,) in _rows(connection, "SELECT id FROM window WHERE state=? ORDER BY id", (CLOSED,)):
                found.append((("window", window), _seal(connection, window)))
        except (apsw.Error, OSError) as error:
            self._trouble = f"{type(error).__name__}: {error}"
            self._close()
        return found

    def _told(self, key: tuple[str, int]) -> None:
        what, number = key
        if self._connection is None:
            return
        try:
            if what == "gap":
                self._connection.execute("UPDATE gap SET told=1 WHERE id=?", (number,))
            else:
                self._connection.execute("UPDATE window SET state=? WHERE id=?", (SEALED, number))
        except (apsw.Error, OSError) as error:  # the row stands; it is made once more when the disk is back
            self._trouble = f"{type(error).__name__}: {error}"
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(apsw.Error):  # a disk that failed fails here once more
                connection.close()
        self._begin()


async def _first(most_s: float, *events: asyncio.Event) -> None:
    """Return when one of them is set, or after so long."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=most_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _connect(path: Path) -> apsw.Connection:
    """The file for writing, made when it is not there."""
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "FULL")
        connection.execute("BEGIN IMMEDIATE")
        if not _rows(connection, "SELECT count(*) FROM sqlite_schema")[0][0]:
            connection.execute(_SCHEMA)
            connection.execute("INSERT INTO meta VALUES('format', ?)", (FORMAT,))
        connection.execute("COMMIT")
        _check(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: apsw.Connection, path: Path) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if not tables:
        raise _absent(path)  # the runtime is about to begin it
    found = _rows(connection, "SELECT value FROM meta WHERE name='format'") if "meta" in tables else []
    if not {"series", "window", "chunk", "leaf", "vector", "gap"} <= tables or found != [(FORMAT,)]:
        raise LinesideError(
            "values.foreign",
            f"{path} does not hold process values of a format that this version knows.",
            effect="Nothing is written to it.",
            todo="Use the version of Lineside that wrote it, or move the file away; a new one is then begun.",
        )


def _absent(path: Path) -> LinesideError:
    return LinesideError(
        "values.absent", f"There are no process values at {path}.", todo="Start the runtime; it stores them."
    )


def _no_copy(target: Path, why: str) -> LinesideError:
    return LinesideError(
        "values.copy",
        f"The process values cannot be copied to {target}: {why}.",
        todo="Name a file that does not exist, in a folder with room that you may write to.",
    )


def _series_ids(connection: apsw.Connection, wanted: Iterable[Series]) -> dict[Series, int]:
    for series in wanted:
        names = (series.tag, series.unit, series.resolution)
        connection.execute("INSERT INTO series(tag, unit, resolution) VALUES(?,?,?) ON CONFLICT DO NOTHING", names)
    return {series: number for number, series in _all_series(connection).items()}


def _all_series(connection: apsw.Connection) -> dict[int, Series]:
    found = {}
    for number, *names in _rows(connection, "SELECT id, tag, unit, resolution FROM series"):
        if not all(isinstance(name, str) for name in names):
            raise damaged("a tag's name is none")
        found[number] = Series(*names)
    return found


def _mark_gap(connection: apsw.Connection, from_us: int, to_us: int, scope: str, why: str) -> None:
    connection.execute(
        "INSERT INTO gap(from_us, to_us, scope, why, told) VALUES(?,?,?,?,0)",
        (from_us, max(from_us, to_us), scope, why),
    )


def _close_window(connection: apsw.Connection, window: int, columns: Iterable[_Column]) -> None:
    """Fix the leaves and the root of a window: from now on its samples do not change."""
    to_us, units = _row(connection, "SELECT to_us, units FROM window WHERE id=?", (window,))
    owned = frozenset(orjson.loads(units))
    leaves: list[tuple[Series, bool, bytes]] = []
    for column in sorted(columns, key=lambda each: order(each.series)):
        if column.samples:
            record = column.unit in owned
            digest = column.digest.digest()
            made = leaf(column.series, window, to_us, record=record, samples=column.samples, digest=digest)
            leaves.append((column.series, record, made))
            connection.execute(
                "INSERT INTO leaf VALUES(?,?,?,?,?,NULL)", (window, column.id, record, column.samples, made)
            )
    roots = merkle_root([made for _, _, made in leaves]), merkle_root([made for _, record, made in leaves if record])
    connection.execute("UPDATE window SET state=?, root=?, record_root=? WHERE id=?", (CLOSED, *roots, window))


def _recover(connection: apsw.Connection) -> None:
    """Close the windows that an earlier runtime left open, over what is there."""
    series = _all_series(connection)
    for (window,) in _rows(connection, "SELECT id FROM window WHERE state=?", (OPEN,)):
        columns = {
            number: _Column(each, number, each.tag.partition(".")[0], Scale("")) for number, each in series.items()
        }
        try:
            for number, data in _raw(connection, window, None):
                columns[number].digest.update(data)
                columns[number].samples += sum(1 for _ in split(data))
        except (LinesideError, KeyError):
            connection.execute("UPDATE window SET state=? WHERE id=?", (DAMAGED, window))
            (to_us,) = _row(connection, "SELECT to_us FROM window WHERE id=?", (window,))
            _mark_gap(connection, window, to_us, EVERYTHING, "the stored values were damaged")
        else:
            _close_window(connection, window, columns.values())


def _seal(connection: apsw.Connection, window: int) -> cm.SealValues:
    to_us, root, record_root = _row(connection, "SELECT to_us, root, record_root FROM window WHERE id=?", (window,))
    tags, samples, record_tags = _row(
        connection, "SELECT count(*), sum(samples), sum(record) FROM leaf WHERE window=?", (window,)
    )
    return cm.SealValues(
        window=window,
        from_utc=utc_text(window),
        to_utc=utc_text(to_us),
        tags=tags,
        samples=samples or 0,
        record_tags=record_tags or 0,
        root=root.hex(),
        record_root=_hex(record_root),
    )


def _hex(root: bytes) -> str:
    """A root as rows have it: empty for no leaf at all."""
    return root.hex() if any(root) else ""


def _rows(connection: apsw.Connection, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """All that a SELECT finds, at once: no statement stays open beside a writer."""
    return connection.execute(sql, values).fetchall()


def _row(connection: apsw.Connection, sql: str, values: tuple[object, ...]) -> tuple[Any, ...]:
    """The one row that must be there. Raises `values.damaged`."""
    found = _rows(connection, sql, values)
    if not found:
        raise damaged("a row that another one names is not there")
    return found[0]


def _chunk(parts: Iterable[tuple[int, bytes]]) -> bytes:
    data = b"".join(_PART.pack(number, len(each)) + each for number, each in parts)
    return zlib.compress(data, 1)  # zstandard is not in the runtime, and the packer replaces it soon


def _raw(connection: apsw.Connection, window: int, wanted: frozenset[int] | None) -> Iterator[tuple[int, bytes]]:
    """The samples of a window's chunks in the order they came, those of the series `wanted` (all when None)."""
    for (data,) in connection.execute("SELECT data FROM chunk WHERE window=? ORDER BY id", (window,)):
        try:
            chunk = zlib.decompressobj().decompress(data, CHUNK_BYTES_MAX)
            at = 0
            while at < len(chunk):
                number, length = _PART.unpack_from(chunk, at)
                at += _PART.size
                if wanted is None or number in wanted:
                    yield number, chunk[at : at + length]
                at += length
        except (zlib.error, struct.error, TypeError) as error:
            raise damaged("a chunk was changed after it was written") from error


# Reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without stored values, outside the record or altogether."""

    from_us: int
    to_us: int
    scope: str
    why: str


@dataclass(frozen=True, slots=True)
class TagInfo:
    """What is stored of one series."""

    series: Series
    windows: int
    samples: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """One point of a plot: what the samples between `from_us` and `to_us` were. Numbers are None without a good one;
    `quality` is the worst, empty without a sample; `gap`: values were not stored in part of it."""

    from_us: int
    to_us: int
    samples: int
    low: float | None
    high: float | None
    mean: float | None
    last: float | None
    quality: str
    gap: bool


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the journal says of one window; `seq` is the row that sealed it."""

    seq: int
    root: str
    record_root: str
    thinned_root: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What does not hold, and where: the window's beginning (0: the file), and the tag as far as it can be told."""

    window: int
    tag: str
    why: str

    def __str__(self) -> str:
        where = f"window from {utc_text(self.window)}, {self.tag or 'as a whole'}" if self.window else "history.db"
        return f"{where}: {self.why}"


@dataclass(frozen=True, slots=True)
class Anchors:
    """What a journal says of windows. `restored_seq` is the row that continued it after its newest restore, 0 without
    one; `left_out` says which rows could not be read."""

    of: Mapping[int, Anchor] = field(default_factory=dict)
    restored_seq: int = 0
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Missing:
    """Windows that follow each other and are not stored, with the rows that name them. `lost`: the box was restored
    after those rows, and what was restored did not hold the windows."""

    windows: int
    first: int
    last: int
    first_seq: int
    last_seq: int
    lost: bool

    def __str__(self) -> str:
        which = "1 window is" if self.windows == 1 else f"{self.windows:,} windows are"
        rows = f"row {self.first_seq}" if self.windows == 1 else f"rows {self.first_seq} to {self.last_seq}"
        begun = utc_text(self.first) + ("" if self.windows == 1 else f" to {utc_text(self.last)}")
        why = ": not in what was restored" if self.lost else ""
        return f"{which} not stored{why}. Begun {begun}; named by {rows}."


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of `verify_values`."""

    windows: int
    samples: int
    anchored: int
    """Windows whose roots are rows of the journal that was read."""
    findings: tuple[Finding, ...]
    missing: tuple[Missing, ...] = ()
    left_out: str = ""
    """Why some windows were not compared with their rows; empty when all were."""

    @property
    def ok(self) -> bool:
        """Whether all that is stored is what was sealed, and all is stored that was not lost with a former disk."""
        return not self.findings and all(each.lost for each in self.missing)


class HistoryReader:
    """Reads `history.db`, also of a running box, and changes nothing. Use from one thread."""

    def __init__(self, path: Path) -> None:
        """Raises `values.absent` or `values.foreign`."""
        if not path.is_file():
            raise _absent(path)
        with _reading():
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            try:
                self._connection.set_busy_timeout(int(BUSY_S * 1000))
                _check(self._connection, path)
                self._series = _all_series(self._connection)
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
        """Close the file."""
        self._connection.close()

    def tags(self) -> list[TagInfo]:
        """Every series with what is stored of it in closed windows, by name."""
        with _reading():
            found = self._connection.execute("SELECT series, count(*), sum(samples) FROM leaf GROUP BY series")
            counted = {number: (windows, samples) for number, windows, samples in found}
        infos = [TagInfo(series, *counted.get(number, (0, 0))) for number, series in self._series.items()]
        return sorted(infos, key=lambda info: order(info.series))

    def waits(self, keep_us: int, left: set[int]) -> bool:
        """True when there is a window to pack or to thin that is not `left`."""
        with _reading():
            due = [*_sealed(self._connection), *(number for number, _ in _old(self._connection, keep_us))]
        return not left.issuperset(due)

    def copy(self, target: Path, *, progress: Callable[[int, int], object] = lambda _done, _total: None) -> None:
        """A whole copy as of now, durable as `target`, which must not exist; the box may run. `progress` is called with
        the bytes that are written and about how many there will be. Raises `values.copy`."""
        if target.exists():
            raise _no_copy(target, "something is there")
        part = target.with_name(f".{target.name}.part")

        def tell() -> bool:
            progress(min(part.stat().st_size, total) if part.is_file() else 0, total)
            return False  # go on

        try:
            part.unlink(missing_ok=True)
            total = self._connection.pragma("page_count") * self._connection.pragma("page_size")
            self._connection.set_progress_handler(tell, COPY_STEPS)
            try:
                self._connection.execute("VACUUM INTO ?", (str(part),))
            finally:
                self._connection.set_progress_handler(None)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.rename(target)
            sync_folder(target.parent)
        except (apsw.Error, OSError) as error:
            raise _no_copy(target, str(error)) from error

    def states(self) -> list[int]:
        """What became of each window, oldest first: `OPEN` and so on."""
        with _reading():
            found = _rows(self._connection, "SELECT state FROM window ORDER BY id")
        return [state for (state,) in found]

    def newest_us(self) -> int:
        """The time of the newest sample, or of the end of a gap after it; 0 without one."""
        with _reading():
            sql = "SELECT max(ifnull((SELECT max(high_us) FROM window), 0), ifnull((SELECT max(to_us) FROM gap), 0))"
            found = _rows(self._connection, sql)
        return int(found[0][0])

    def gaps(self, from_us: int, to_us: int) -> list[Gap]:
        """The gaps that touch this time."""
        with _reading():
            sql = "SELECT from_us, to_us, scope, why FROM gap WHERE from_us < ? AND to_us > ? ORDER BY from_us"
            return [Gap(*found) for found in self._connection.execute(sql, (to_us, from_us))]

    def range(self, tag: str, from_us: int, to_us: int) -> Iterator[Sample]:
        """The samples of a tag with `from_us` <= time < `to_us`, as they came. Raises `values.unknown_tag`."""
        numbers = frozenset(number for number, series in self._series.items() if series.tag == tag)
        if not numbers:
            raise LinesideError(
                "values.unknown_tag",
                f"No values of a tag {tag[:80]!r} are stored.",
                todo="`lineside history tags` lists what there is.",
            )
        with _reading():
            sql = "SELECT id FROM window WHERE low_us < ? AND high_us >= ? ORDER BY id"
            windows = [number for (number,) in _rows(self._connection, sql, (to_us, from_us))]
        for window in windows:
            for number, data in self._data(window, numbers):
                scale = Scale(self._series[number].resolution)
                for parts in split(data):
                    if from_us <= parts.at_us < to_us:
                        yield sample_of(parts, scale)

    def plot(self, tag: str, from_us: int, to_us: int, points: int) -> list[Bucket]:
        """`points` buckets of equal length. Lowest and highest are of all samples: no spike is lost."""
        edges = [from_us + (to_us - from_us) * index // points for index in range(points + 1)]
        within: list[list[Sample]] = [[] for _ in range(points)]
        for sample in self.range(tag, from_us, to_us):
            index = min((sample.at_us - from_us) * points // (to_us - from_us), points - 1)
            within[index if edges[index] <= sample.at_us < edges[index + 1] else index + 1].append(sample)
        gaps = self.gaps(from_us, to_us)
        return [_bucket(a, b, samples, gaps) for a, b, samples in zip(edges, edges[1:], within, strict=False)]

    def closed(self) -> list[int]:
        """The windows that have a root, oldest first."""
        with _reading():
            sql = "SELECT id FROM window WHERE state IN (?,?,?) ORDER BY id"
            return [number for (number,) in _rows(self._connection, sql, (CLOSED, SEALED, PACKED))]

    def verify(
        self,
        anchors: Mapping[int, Anchor],
        *,
        only: frozenset[int] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Verified:
        """Compute the root of every closed window anew from what is stored, or of those in `only`, and compare it with
        the journal's rows. A finding about the file as a whole has window 0."""
        with _reading():
            said = [why for (why,) in _rows(self._connection, "PRAGMA integrity_check(1)")]
        # A tree out of order can hide a window from one query and show it to another.
        findings = [] if said == ["ok"] else [Finding(0, "", f"The file is damaged: {str(said[0]).splitlines()[-1]}.")]
        windows = [window for window in self.closed() if only is None or window in only]
        samples = anchored = 0
        for done, window in enumerate(windows):
            try:
                found, count = self._verify_window(window, anchors.get(window))
            except LinesideError as error:
                if error.code != "values.damaged":
                    raise
                found, count = [Finding(window, "", error.what)], 0
            findings += found
            samples += count
            anchored += window in anchors
            if progress is not None:
                progress(done + 1, len(windows))
        return Verified(len(windows), samples, anchored, tuple(findings))

    def _verify_window(self, window: int, anchor: Anchor | None) -> tuple[list[Finding], int]:
        with _reading():
            sql = "SELECT to_us, low_us, high_us, root, record_root, thinned FROM window WHERE id=?"
            to_us, low_us, high_us, root, record_root, thinned = _row(self._connection, sql, (window,))
            sql = "SELECT series, record, samples, hash FROM leaf WHERE window=?"
            listed = _rows(self._connection, sql, (window,))
        if not all(isinstance(number, int) for number in (to_us, low_us, high_us)):
            raise damaged(f"the window from {utc_text(window)} on has no times")
        findings: list[Finding] = []
        made: list[tuple[Series, bool, bytes]] = []
        total = 0
        for number, record, samples, hashed in listed:
            series = self._series.get(number)
            if series is None:
                findings.append(Finding(window, "", f"Series {number} has no name."))
                continue
            digest, count = hashlib.sha256(), 0
            try:
                for _, data in self._data(window, frozenset({number})):
                    digest.update(data)
                    times_us = [parts.at_us for parts in split(data)]
                    count += len(times_us)
                    if times_us and not low_us <= min(times_us) <= max(times_us) <= high_us:
                        raise damaged("a query for its time would not find a value")
            except LinesideError as error:
                findings.append(Finding(window, series.tag, error.what))
                continue
            total += count
            computed = leaf(series, window, to_us, record=bool(record), samples=count, digest=digest.digest())
            if (count, computed) != (samples, hashed):
                findings.append(Finding(window, series.tag, "The stored values are not those that were sealed."))
            made.append((series, bool(record), computed))
        made.sort(key=lambda each: order(each[0]))
        roots = (merkle_root([h for *_, h in made]), merkle_root([h for _, record, h in made if record]))
        if not findings and roots != (root, record_root):
            findings.append(Finding(window, "", "The root of its values is not the one that it says."))
        if anchor is not None and not findings:
            wanted = anchor.thinned_root if thinned else anchor.root
            if (roots[0].hex(), _hex(roots[1])) != (wanted, anchor.record_root):
                why = f"The root of its values is not the one of row {anchor.seq} of the journal."
                findings.append(Finding(window, "", why))
        return findings, total

    def _data(self, window: int, numbers: frozenset[int]) -> list[tuple[int, bytes]]:
        """The samples of these series in one window, out of slices or chunks; the packer may be at work."""
        found: list[tuple[int, bytes]] = []
        with _reading(), self._connection:  # one picture of the file
            (state,) = _row(self._connection, "SELECT state FROM window WHERE id=?", (window,))
            found += (_sliced if state == PACKED else _raw)(self._connection, window, numbers)
        return found


def _sliced(connection: apsw.Connection, window: int, numbers: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    from edge.slices import unpack

    vectors: dict[int, bytes] = dict(_rows(connection, "SELECT id, data FROM vector WHERE window=?", (window,)))
    for number in sorted(numbers):
        for (data,) in connection.execute("SELECT data FROM leaf WHERE window=? AND series=?", (window, number)):
            if not isinstance(data, bytes):
                raise damaged("a slice is not there")
            yield number, unpack(data, vectors)


def _sealed(connection: apsw.Connection) -> list[int]:
    """The windows that can be packed."""
    found = _rows(connection, "SELECT id FROM window WHERE state=? ORDER BY id", (SEALED,))
    return [number for (number,) in found]


def _old(connection: apsw.Connection, keep_us: int) -> list[Any]:
    """The windows that can be thinned, with their ends."""
    sql = (
        "SELECT id, to_us FROM window WHERE state=? AND thinned IS NULL"
        " AND to_us < (SELECT max(to_us) FROM window) - ? ORDER BY id"
    )
    return list(_rows(connection, sql, (PACKED, keep_us)))


def _bucket(from_us: int, to_us: int, samples: list[Sample], gaps: list[Gap]) -> Bucket:
    good = [float(s.value) for s in samples if s.quality is Quality.GOOD and isinstance(s.value, int | float)]
    ranks = [rank for rank in (Quality.BAD, Quality.UNCERTAIN, Quality.GOOD) if any(s.quality is rank for s in samples)]
    return Bucket(
        from_us,
        to_us,
        len(samples),
        min(good, default=None),
        max(good, default=None),
        sum(good) / len(good) if good else None,
        good[-1] if good else None,
        ranks[0].value if ranks else "",
        any(gap.from_us < to_us and gap.to_us > from_us for gap in gaps),
    )


class Rows(Protocol):
    """Where rows are read, those in the archive included."""

    def rows(self, after_seq: int, limit: int) -> list[Row]:
        """At most `limit` rows that follow `after_seq`."""
        ...

    def kept_from(self) -> int:
        """The first row that needs no archive."""
        ...


def verify_values(path: Path, record: Rows, *, progress: Callable[[int, int], object] | None = None) -> Verified:
    """Every value in `path` against every row of `record`. The box may run: a window that is thinned meanwhile is read
    once more.

    Raises `values.absent` when there are neither values nor rows about any, `values.*`, and what `record` raises."""
    anchors = read_anchors(record)
    if not path.is_file():
        if not anchors.of:
            raise _absent(path)
        return Verified(0, 0, 0, (), tuple(_missing(anchors, frozenset())), anchors.left_out)
    with HistoryReader(path) as reader:
        result = reader.verify(anchors.of, progress=progress)
        if result.findings:
            anchors = read_anchors(record)
            doubted = frozenset(finding.window for finding in result.findings)
            result = replace(result, findings=reader.verify(anchors.of, only=doubted).findings)
        stored = frozenset(reader.closed())
    return replace(result, missing=tuple(_missing(anchors, stored)), left_out=anchors.left_out)


def _missing(anchors: Anchors, stored: frozenset[int]) -> Iterator[Missing]:
    """The windows that no file holds; those without a stored one between them are said at once."""
    held: Missing | None = None
    for window in sorted(anchors.of.keys() | stored):
        if window in stored:
            if held:
                yield held
            held = None
            continue
        seq = anchors.of[window].seq
        lost = seq < anchors.restored_seq
        if held and held.lost == lost:
            held = replace(held, windows=held.windows + 1, last=window, last_seq=seq)
        else:
            if held:
                yield held
            held = Missing(1, window, window, seq, seq, lost)
    if held:
        yield held


@contextmanager
def _reading() -> Iterator[None]:
    """SQLite's errors as refusals in words."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError, apsw.SQLError, UnicodeDecodeError) as error:
        raise damaged(f"the file is damaged ({error})") from error
    except (apsw.Error, OSError) as error:
        raise LinesideError(
            "values.unreadable",
            f"The process values cannot be read ({type(error).__name__}: {error}).",
            todo="Check the path and the permission to read it.",
        ) from error


def settle(path: Path, named: Container[int]) -> None:
    """Bring a copy that nobody uses into line with the journal beside it, whose rows name the windows `named`. The copy
    was made before the journal's last row.

    A closed window that has its row waits for none any more. An open one that has a row went on after the copy was
    made: what is here becomes a window of its own, and the one that the row names is missing. Raises `values.*`."""
    with _reading(), closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        _check(connection, path)
        connection.pragma("synchronous", "FULL")
        with connection:
            taken = {window for (window,) in _rows(connection, "SELECT id FROM window")}
            for window, state in _rows(connection, "SELECT id, state FROM window WHERE state IN (?,?)", (OPEN, CLOSED)):
                if window not in named:
                    continue
                if state == CLOSED:
                    connection.execute("UPDATE window SET state=? WHERE id=?", (SEALED, window))
                    continue
                free = window + 1
                while free in taken or free in named:
                    free += 1
                taken.add(free)
                connection.execute("UPDATE window SET id=? WHERE id=?", (free, window))  # an open one has no leaf yet
                connection.execute("UPDATE chunk SET window=? WHERE window=?", (free, window))


def anchors_in(bodies: Iterable[tuple[int, bytes]]) -> Anchors:
    """What rows, given as number and body in their order, say of windows. Raises `row.unreadable`."""
    anchors: dict[int, Anchor] = {}
    restored_seq = 0
    for seq, body in bodies:
        if not body.startswith(_ABOUT_VALUES):
            continue
        event = decode(body).event
        if isinstance(event, JournalContinued):
            restored_seq = seq
        elif isinstance(event, ValuesSealed):
            anchors.setdefault(event.window, Anchor(seq, event.root, event.record_root))
        elif isinstance(event, ValuesThinned) and event.window in anchors:
            before = anchors[event.window]
            if (event.old_root, event.record_root) == (before.root, before.record_root):
                anchors[event.window] = replace(before, thinned_root=event.new_root)
    return Anchors(anchors, restored_seq)


def read_anchors(record: Rows) -> Anchors:
    """What every row of `record` says of windows. Without the archive at hand: what the journal itself says.

    Raises what `record` raises for rows that are there."""
    try:
        return anchors_in(_bodies(record, 0))
    except LinesideError as error:
        if error.code not in {"archive.rows_absent", "archive.unreadable"}:
            raise
        kept_from = record.kept_from()
        why = f"Windows that only rows before row {kept_from} name were not compared. {error.what}"
        return replace(anchors_in(_bodies(record, kept_from - 1)), left_out=why)


def _bodies(record: Rows, seq: int) -> Iterator[tuple[int, bytes]]:
    while rows := record.rows(seq, READ_ROWS):
        seq = rows[-1].seq
        yield from ((row.seq, row.body) for row in rows)


# The follower's side ---------------------------------------------------------------------------------------------


class Packer:
    """Packs sealed windows, and thins old ones. Use from one thread."""

    def __init__(self, path: Path, left: Iterable[int] = ()) -> None:
        """The file must be there; the windows `left` are left alone. Raises `values.foreign` and others of reading."""
        self._reader = HistoryReader(path)
        with _reading():
            self._connection = _connect(path)
        self.left = set(left)
        """Windows that are left alone because they are damaged."""

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._connection.close()

    def pack_next(self) -> bool:
        """Put one sealed window into slices; False when there is none. Raises `values.damaged`, once a window."""
        with _reading():
            found = _sealed(self._connection)
            self._reader._series = _all_series(self._connection)  # noqa: SLF001  one module, two classes
        window = next((number for number in found if number not in self.left), None)
        if window is None:
            return False
        with self._leaving(window):
            self._pack(window)
        return True

    @contextmanager
    def _leaving(self, window: int) -> Iterator[None]:
        """Leave a window alone once it was found damaged. Other trouble, as a full disk, passes."""
        try:
            yield
        except LinesideError as error:
            if error.code == "values.damaged":
                self.left.add(window)
            raise

    def _pack(self, window: int) -> None:
        from edge.slices import Vectors, pack

        with _reading():
            (to_us,) = _row(self._connection, "SELECT to_us FROM window WHERE id=?", (window,))
            sql = "SELECT series, record, samples, hash FROM leaf WHERE window=?"
            leaves = {number: rest for number, *rest in self._connection.execute(sql, (window,))}
        vectors = Vectors()
        slices: list[tuple[bytes, int, int]] = []
        numbers = sorted(leaves)
        for first in range(0, len(numbers), SERIES_AT_ONCE):
            some = numbers[first : first + SERIES_AT_ONCE]
            data: dict[int, list[bytes]] = {number: [] for number in some}
            with _reading():
                for number, part in _raw(self._connection, window, frozenset(some)):
                    data[number].append(part)
            for number in some:
                whole = b"".join(data.pop(number))
                self._check_leaf(window, to_us, number, leaves[number], whole)
                slices.append((pack(whole, vectors), window, number))
        with _reading(), self._connection:
            self._write(window, vectors.packed, slices)
            self._connection.execute("DELETE FROM chunk WHERE window=?", (window,))
            self._connection.execute("UPDATE window SET state=? WHERE id=?", (PACKED, window))

    def _check_leaf(self, window: int, to_us: int, number: int, said: list[Any], data: bytes) -> None:
        """What is replaced must be what was sealed."""
        record, samples, hashed = said
        series = self._reader._series[number]  # noqa: SLF001  one module, two classes
        digest = hashlib.sha256(data).digest()
        if leaf(series, window, to_us, record=bool(record), samples=samples, digest=digest) != hashed:
            raise damaged(f"{series.tag} from {utc_text(window)} on is not what was sealed")

    def _write(self, window: int, vectors: Sequence[bytes], slices: Sequence[tuple[bytes, int, int]]) -> None:
        self._connection.execute("DELETE FROM vector WHERE window=?", (window,))
        rows = ((window, number, data) for number, data in enumerate(vectors))
        self._connection.executemany("INSERT INTO vector VALUES(?,?,?)", rows)
        self._connection.executemany("UPDATE leaf SET data=? WHERE window=? AND series=?", slices)

    def thinnable(self, keep_us: int, bucket_us: int) -> Thinning | None:
        """The oldest packed window that ended more than `keep_us` before the newest one, as it would be thinned.
        Raises `values.damaged`, once a window."""
        with _reading():
            found = _old(self._connection, keep_us)
        due = next(((number, to_us) for number, to_us in found if number not in self.left), None)
        if due is None:
            return None
        with self._leaving(due[0]):
            return self._thinning(*due, bucket_us)

    def _thinning(self, window: int, to_us: int, bucket_us: int) -> Thinning:
        from edge.slices import Vectors, pack

        findings, _ = self._reader._verify_window(window, None)  # noqa: SLF001  one module, two classes
        if findings:
            raise damaged(f"{findings[0].tag or 'a window'} from {utc_text(window)} on: {findings[0].why}")
        with _reading():
            root, record_root = _row(self._connection, "SELECT root, record_root FROM window WHERE id=?", (window,))
            sql = "SELECT series, record, samples, hash FROM leaf WHERE window=?"
            leaves = _rows(self._connection, sql, (window,))
        vectors = Vectors()
        slices: list[tuple[bytes, int, int]] = []
        made: list[tuple[Series, bool, bytes]] = []
        counts: dict[int, tuple[int, bytes]] = {}
        for number, record, _, hashed in leaves:
            series = self._reader._series[number]  # noqa: SLF001  one module, two classes
            with _reading():
                ((_, data),) = _sliced(self._connection, window, frozenset({number}))
            if record:
                made.append((series, True, hashed))
            else:
                data = extremes(data, bucket_us, Scale(series.resolution))
                count, digest = sum(1 for _ in split(data)), hashlib.sha256(data).digest()
                counts[number] = count, leaf(series, window, to_us, record=False, samples=count, digest=digest)
                made.append((series, False, counts[number][1]))
            slices.append((pack(data, vectors), window, number))
        made.sort(key=lambda each: order(each[0]))
        command = cm.ThinValues(
            window=window,
            method=f"extremes of {bucket_us // 1_000_000} s" if bucket_us else "removed",
            tags=len(counts),
            samples_before=sum(samples for _, record, samples, _ in leaves if not record),
            samples_after=sum(samples for samples, _ in counts.values()),
            old_root=root.hex(),
            new_root=merkle_root([hashed for *_, hashed in made]).hex(),
            record_root=_hex(record_root),
            record_root_after=_hex(merkle_root([hashed for _, record, hashed in made if record])),
        )
        return Thinning(command, tuple(vectors.packed), tuple(slices), counts)

    def thin(self, thinning: Thinning) -> None:
        """Do what a durable row says."""
        command = thinning.command
        with _reading(), self._connection:
            self._write(command.window, thinning.vectors, thinning.slices)
            self._connection.executemany(
                "UPDATE leaf SET samples=?, hash=? WHERE window=? AND series=?",
                ((*changed, command.window, number) for number, changed in thinning.counts.items()),
            )
            self._connection.execute(
                "UPDATE window SET root=?, thinned=? WHERE id=?",
                (bytes.fromhex(command.new_root), command.method, command.window),
            )


@dataclass(frozen=True, slots=True)
class Thinning:
    """A window as it will be, and the command that asks for the row. Tags of the record are as they were."""

    command: cm.ThinValues
    vectors: tuple[bytes, ...]
    slices: tuple[tuple[bytes, int, int], ...]
    counts: dict[int, tuple[int, bytes]]
    """Samples and leaf of each series that is thinned."""
