"""What the hub holds, and the only way into it: verified frames, each stored whole or not at all.

One process, one connection: `open_store` refuses a second hub on the same database. A chain is the rows of one
(device, journal, epoch); it begins at `base_seq` and may continue another epoch's chain. Rows are only ever added.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain as one_after_another
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    and_,
    delete,
    event,
    func,
    insert,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from edge.core import frame, recall
from edge.core.errors import LinesideError
from edge.core.frame import Frame, Receipt
from edge.core.numbers import TRAINING_PREFIX
from edge.core.record import ZERO_HASH, Fault, Row, Signer, chain_faults, fingerprint

SCHEMA: Final = "1"
COPIED: Final = "copied"
"""In the table meta of a copy: whoever opens it is another hub than the one that gave its receipts."""
BACKED_UP: Final = "backed_up"
"""In meta: when a verified copy was recorded last."""
QUARANTINE_MAX: Final = 2_000
"""Beyond this the bytes of further refused frames are not kept, only counted; those of forks always are."""
QUARANTINE_BYTES_MAX: Final = frame.FRAME_BYTES_MAX
VERIFY_ROWS: Final = 5_000
TAIL_ROWS: Final = 64
"""Rows read at once for a box that asks for its tail: a row may have 64 KiB."""

_Seq = BigInteger().with_variant(Integer, "sqlite")
_tables = MetaData()
_meta = Table("meta", _tables, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))
_chain = Table(
    "chain",
    _tables,
    Column("id", Integer, primary_key=True),
    Column("device", Text, nullable=False),
    Column("journal", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("base_seq", _Seq, nullable=False),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("parent", Integer, ForeignKey("chain.id")),
    Column("stored_seq", _Seq, nullable=False),
    Column("head_hash", LargeBinary, nullable=False),
    Column("made_seq", _Seq, nullable=False),
    Column("told_utc", Text, nullable=False),
    Column("received_utc", Text, nullable=False),
    UniqueConstraint("device", "journal", "epoch"),
    sqlite_strict=True,
)
_row = Table(
    "row",
    _tables,
    Column("chain", Integer, ForeignKey("chain.id"), primary_key=True),
    Column("seq", _Seq, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("batch", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("received_utc", Text, nullable=False),
    Index("row_by_batch", "batch", "kind", "chain", "seq"),
    sqlite_with_rowid=False,
    sqlite_strict=True,
)
_safe = Table(
    "safe",
    _tables,
    Column("chain", Integer, ForeignKey("chain.id"), primary_key=True),
    Column("seq", _Seq, nullable=False),
    sqlite_strict=True,
)
_quarantine = Table(
    "quarantine",
    _tables,
    Column("digest", Text, primary_key=True),
    Column("code", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("bytes", LargeBinary),
    Column("size", Integer, nullable=False),
    Column("times", Integer, nullable=False),
    Column("first_utc", Text, nullable=False),
    Column("last_utc", Text, nullable=False),
    sqlite_strict=True,
)


ROWS_A_STATEMENT: Final = 64
"""A fifth cheaper than one row a statement; more brings nothing."""
_INSERT_ROW: Final = "INSERT INTO row (chain, seq, hash, body, batch, kind, received_utc) VALUES (?, ?, ?, ?, ?, ?, ?)"
_INSERT_ROWS: Final = _INSERT_ROW + ", (?, ?, ?, ?, ?, ?, ?)" * (ROWS_A_STATEMENT - 1)


class Took(StrEnum):
    """What became of a frame."""

    STORED = "stored"
    KNOWN = "known"
    """Every row was there already, or it was a hail: nothing changed."""
    GAP = "gap"
    """Rows before it are missing: the receipt asks for them."""
    FORK = "fork"
    """It contradicts what is stored: quarantined, and nothing changed."""
    REFUSED = "refused"
    """It is no frame of a trusted device: quarantined."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`receipt` is what to tell the device, when it is known who it is; `error` says why a frame was refused."""

    took: Took
    device: str = ""
    receipt: str = ""
    error: LinesideError | None = None


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain as stored; hashes in hex. `beyond` counts rows of the epoch before that its box no longer has."""

    id: int
    device: str
    journal: str
    epoch: str
    base_seq: int
    stored_seq: int
    head_hash: str
    made_seq: int
    told_utc: str
    received_utc: str
    beyond: int

    @property
    def pending(self) -> int:
        """Rows that the box had made when it last spoke and that are not here."""
        return max(self.made_seq - self.stored_seq, 0)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One refused frame; `times` it came."""

    digest: str
    code: str
    what: str
    device: str
    size: int
    times: int
    first_utc: str
    last_utc: str


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy of a store, read back and verified: the last row of each chain as (id, seq, hash)."""

    incarnation: str
    heads: tuple[tuple[int, int, bytes], ...]
    utc: str


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that was verified from its stored bodies: `fault` is None when every row holds."""

    chain: Chain
    rows: int
    fault: Fault | None


def utc_now() -> str:
    """Now, as every record writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextlib.asynccontextmanager
async def open_store(path: Path, signer: Signer) -> AsyncIterator[Store]:
    """The store at `path`, made when absent; `signer` is the hub's key.

    Raises `hub.running` when another hub has it, `hub.database` when it cannot be opened or is not a hub's."""
    with _alone(path):
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0, pool_timeout=60)
        event.listen(engine.sync_engine, "connect", _settle)
        try:
            try:
                incarnation = await _prepare(engine)
            except DBAPIError as error:
                raise _unusable(path, str(error.orig)) from error
            yield Store(engine, signer, incarnation)
        finally:
            await engine.dispose()


@contextlib.contextmanager
def _alone(path: Path) -> Any:
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LinesideError(
                "hub.running",
                f"Another hub process is at work on {path}.",
                effect="That one goes on; this one was not started.",
                todo="Stop the other one first, or use it.",
            ) from error
        yield
    finally:
        os.close(lock)


def _unusable(path: Path, why: str) -> LinesideError:
    return LinesideError(
        "hub.database",
        f"The hub's database {path} cannot be opened: {why}.",
        todo="Check the path and its permissions. If the file is damaged, put it away and start: the boxes send again.",
    )


def _settle(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _prepare(engine: AsyncEngine) -> str:
    """Make the tables, check their version, return the incarnation: new whenever the database is new, and when it is a
    copy that was put in its place. Of such a one nothing is safe: nobody knows whether the copy was kept too."""
    async with engine.begin() as connection:
        await connection.run_sync(_tables.create_all)
        found = {row.key: row.value for row in await connection.execute(select(_meta))}
        if not found:
            found = {"schema": SCHEMA, "incarnation": secrets.token_hex(16)}
            await connection.execute(insert(_meta), [{"key": key, "value": found[key]} for key in found])
        if found.get("schema") != SCHEMA:
            raise LinesideError(
                "hub.schema",
                f"The hub's database has version {found.get('schema')!r}; this hub reads version {SCHEMA}.",
                todo="Start the version of Lineside that wrote it, or a newer one.",
            )
        if COPIED in found:
            found["incarnation"] = secrets.token_hex(16)
            await connection.execute(delete(_safe))
            await connection.execute(delete(_meta).where(_meta.c.key.in_([COPIED, BACKED_UP])))
            await connection.execute(
                update(_meta).where(_meta.c.key == "incarnation").values(value=found["incarnation"])
            )
    return str(found["incarnation"])


class Store:
    """See `open_store`. Every method is one or more whole transactions."""

    def __init__(self, engine: AsyncEngine, signer: Signer, incarnation: str) -> None:
        self.incarnation = incarnation
        self.hub = fingerprint(signer.public)
        self._engine = engine
        self._signer = signer
        self._safe: dict[int, int] = {}
        self._backed_up: str | None = None

    async def ingest(self, data: bytes, trusted: Mapping[str, bytes], topic_device: str = "") -> Outcome:
        """Verify one frame and store its rows, all or none, durably before this returns.

        `topic_device` is who the topic says it is from; when given, the frame must say the same."""
        (outcome,) = await self.ingest_all([(data, topic_device)], trusted)
        return outcome

    async def ingest_all(self, came: Sequence[tuple[bytes, str]], trusted: Mapping[str, bytes]) -> list[Outcome]:
        """As `ingest`, for many (frame, device of its topic) in one transaction. Frames of a device of which each
        continues the one before it become one outcome, in the order of the first of each."""
        found = await asyncio.to_thread(_read_all, came, trusted)
        outcomes: list[Outcome] = []
        aside: list[tuple[bytes, str, LinesideError]] = []
        try:
            async with self._engine.begin() as connection:
                for run in found:
                    if isinstance(run, _Refused):
                        outcomes.append(Outcome(Took.REFUSED, error=run.error))
                        aside.append((run.data, run.device, run.error))
                        continue
                    outcome = await self._take(connection, _joined(run))
                    parts = [outcome]
                    if outcome.took is Took.FORK and len(run) > 1:  # and nothing was stored: which of them is it?
                        parts = [await self._take(connection, one.frame) for one in run]
                        aside += [
                            (one.data, one.frame.device, part.error)
                            for one, part in zip(run, parts, strict=True)
                            if part.error is not None
                        ]
                    elif outcome.error is not None:
                        aside.append((run[0].data, outcome.device, outcome.error))
                    outcomes += parts
        except DBAPIError as error:
            raise LinesideError(
                "hub.commit",
                f"The hub's database did not take rows: {error.orig}.",
                effect="Nothing was receipted; the boxes keep their rows and send them again.",
                todo="Look at the disk (space, errors), then start the hub again.",
            ) from error
        for data, device, refusal in aside:
            await self._put_aside(data, device, refusal)
        return outcomes

    async def look_for_backup(self) -> bool:
        """True when a verified copy was recorded since the last look: receipts then say more rows safe."""
        async with self._engine.connect() as connection:
            backed_up = await connection.scalar(select(_meta.c.value).where(_meta.c.key == BACKED_UP))
            if backed_up == self._backed_up:
                return False
            self._safe = {row.chain: row.seq for row in await connection.execute(select(_safe))}
        self._backed_up = backed_up
        return True

    async def record_copy(self, copied: Copied) -> None:
        """Rows that a verified copy holds are safe from now on; all of it or nothing is recorded.

        Raises `hub.backup_foreign` when the copy is not one of this store as it is now."""
        async with self._engine.begin() as connection:
            # The write comes first: what is compared below cannot change under it.
            said = sqlite.insert(_meta).values(key=BACKED_UP, value=copied.utc)
            await connection.execute(said.on_conflict_do_update(index_elements=["key"], set_={"value": copied.utc}))
            here = await connection.scalar(select(_meta.c.value).where(_meta.c.key == "incarnation"))
            if here != copied.incarnation:
                raise _not_ours()
            for chain, seq, head in copied.heads:
                if await connection.scalar(select(_row.c.hash).where(_row.c.chain == chain, _row.c.seq == seq)) != head:
                    raise _not_ours()
                held = sqlite.insert(_safe).values(chain=chain, seq=seq)
                newer = func.max(_safe.c.seq, seq)
                await connection.execute(held.on_conflict_do_update(index_elements=["chain"], set_={"seq": newer}))

    async def receipts(self) -> dict[str, str]:
        """The present receipt of each device, for its newest chain."""
        newest = {chain.device: chain for chain in reversed(await self.chains())}
        return {device: self._receipt(chain) for device, chain in newest.items()}

    async def tail(self, request: recall.Request) -> bytes:
        """The signed answer to a box that asks what follows its last row.

        Of the chains that the asking device sent, the newest is followed, with all that it continues. A device that
        sent none of this journal, as a spare box, is answered from everybody's: that it knows the row's hash shows
        that it has the rows before. Raises `hub.unreadable`."""
        try:
            return await self._tail(request)
        except DBAPIError as error:
            raise _rows_unreadable(request, str(error.orig)) from error

    async def _tail(self, request: recall.Request) -> bytes:
        async with self._engine.connect() as connection:
            query = select(_chain).where(_chain.c.journal == request.journal).order_by(_chain.c.id)
            found = (await connection.execute(query)).all()
            own = [row for row in found if row.device == request.device]
            lives = own or found
            if not lives:
                return self._tell(request, "unknown", None)
            newest = _as_chain(lives[-1], 0)
            if newest.stored_seq < request.after_seq:
                return self._tell(request, "behind", newest)
            path = _continued_by(newest.id, {row.id: row for row in found})
            at = next((chain for chain, last_seq in path if chain.base_seq - 1 <= request.after_seq <= last_seq), None)
            ours = None if at is None else await _hash_at(connection, at, request.after_seq)
            if ours is None or ours.hex() != request.after_hash:
                return self._tell(request, "fork", newest)
            if request.after_seq == newest.stored_seq:
                return self._tell(request, "end", newest)
            chain, last_seq = next(each for each in path if each[1] > request.after_seq)
            rows = await _frameful(connection, chain, request.after_seq, last_seq)
        if not rows:
            raise _rows_unreadable(request, f"row {request.after_seq + 1} is missing")
        data, _ = frame.make(
            rows,
            journal=bytes.fromhex(request.journal),
            previous=ours,
            made_seq=max(newest.made_seq, newest.stored_seq),
            signer=self._signer,
        )
        return self._tell(request, "rows", newest, data)

    def _tell(self, request: recall.Request, state: recall.State, newest: Chain | None, carried: bytes = b"") -> bytes:
        answer = recall.Answer(
            hub=self.hub,
            device=request.device,
            journal=request.journal,
            nonce=request.nonce,
            state=state,
            head_seq=newest.stored_seq if newest else 0,
            head_hash=newest.head_hash if newest else ZERO_HASH.hex(),
            made_seq=newest.made_seq if newest else 0,
            frame_sha256=ZERO_HASH.hex(),
        )
        return recall.make_answer(answer, carried, self._signer)

    async def chains(self) -> list[Chain]:
        """Every chain, the one heard of last first."""
        parent = _chain.alias()
        beyond = func.max(func.coalesce(parent.c.stored_seq - _chain.c.base_seq + 1, 0), 0)
        query = (
            select(_chain, beyond.label("beyond"))
            .join_from(_chain, parent, _chain.c.parent == parent.c.id, isouter=True)
            .order_by(_chain.c.told_utc.desc(), _chain.c.id.desc())
        )
        async with self._engine.connect() as connection:
            return [_as_chain(row, row.beyond) for row in await connection.execute(query)]

    async def holds(self, chain: Chain) -> bool:
        """True when the last row of a chain of another store is here, and so all before it."""
        query = (
            select(func.count())
            .select_from(_row)
            .join(_chain)
            .where(
                _chain.c.device == chain.device,
                _chain.c.journal == chain.journal,
                _chain.c.epoch == chain.epoch,
                _row.c.seq == chain.stored_seq,
                _row.c.hash == bytes.fromhex(chain.head_hash),
            )
        )
        async with self._engine.connect() as connection:
            return bool(await connection.scalar(query))

    async def count_chains(self) -> int:
        """How many chains there are: also the cheapest sign that the database answers."""
        async with self._engine.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(_chain)) or 0

    async def batches(self, limit: int = 200, *, training: bool = False) -> list[tuple[str, str]]:
        """(device, batch) of the batches that rows started or let wait, newest first; of those that are called like
        `training`, or of the others."""
        called = _row.c.batch.startswith(TRAINING_PREFIX, autoescape=True)
        query = (
            select(_chain.c.device, _row.c.batch)
            .join_from(_row, _chain)
            .where(_row.c.batch != "", _row.c.kind.in_(("BatchStarted", "BatchQueued")))
            .where(called if training else not_(called))
            .group_by(_chain.c.device, _row.c.batch)
            .order_by(func.max(_row.c.received_utc).desc(), func.max(_row.c.seq).desc())
            .limit(limit)
        )
        async with self._engine.connect() as connection:
            return [(row.device, row.batch) for row in await connection.execute(query)]

    async def batch_rows(self, device: str, batch: str) -> list[Row]:
        """The rows of one batch and, between them, those that say that the runtime began anew; in order."""
        first, last = (
            select(extreme(_row.c.seq)).join_from(_row, _chain).where(_row.c.batch == batch, _chain.c.device == device)
            for extreme in (func.min, func.max)
        )
        restarts = and_(
            _row.c.batch == "",
            _row.c.kind == "RuntimeStarted",
            _row.c.seq.between(first.scalar_subquery(), last.scalar_subquery()),
        )
        query = (
            select(_row.c.seq, _chain.c.epoch, _row.c.hash, _row.c.body)
            .join_from(_row, _chain)
            .where(_chain.c.device == device, or_(_row.c.batch == batch, restarts))
            .order_by(_chain.c.id, _row.c.seq)
        )
        async with self._engine.connect() as connection:
            found = await connection.execute(query)
            return [Row(row.seq, bytes.fromhex(row.epoch), row.hash, row.body) for row in found]

    async def quarantined(self, limit: int = 200) -> list[Quarantined]:
        """Refused frames, the last first."""
        columns = [column for column in _quarantine.c if column.name != "bytes"]
        query = select(*columns).order_by(_quarantine.c.last_utc.desc()).limit(limit)
        async with self._engine.connect() as connection:
            return [Quarantined(**row._mapping) for row in await connection.execute(query)]  # noqa: SLF001  # public

    async def forks(self) -> dict[str, list[Quarantined]]:
        """Frames that contradict what is stored, by device."""
        columns = [column for column in _quarantine.c if column.name != "bytes"]
        query = select(*columns).where(_quarantine.c.code == "hub.fork").order_by(_quarantine.c.first_utc)
        forks: dict[str, list[Quarantined]] = {}
        async with self._engine.connect() as connection:
            for row in await connection.execute(query):
                forks.setdefault(row.device, []).append(Quarantined(**row._mapping))  # noqa: SLF001  # public
        return forks

    async def verify(self, on_rows: Callable[[int], None] | None = None) -> AsyncIterator[Verified]:
        """Verify every chain from its stored bodies, from the row that it continues to the head that was receipted;
        ingest goes on between. `on_rows` is told of each part that was verified."""
        for chain in await self.chains():
            async with self._engine.connect() as connection:
                previous = await connection.scalar(select(_chain.c.previous_hash).where(_chain.c.id == chain.id))
                continued = await _continued_hash(connection, chain)
            seq, head, fault = chain.base_seq - 1, previous or ZERO_HASH, None
            if head != continued:
                fault = Fault(seq, f"Row {seq} is not the one that the epoch {chain.epoch[:8]} continues.")
            while seq < chain.stored_seq and fault is None:
                try:
                    rows = await self._chain_rows(chain, seq)
                except DBAPIError as error:
                    rows, fault = [], Fault(seq + 1, f"Row {seq + 1} or one behind it cannot be read: {error.orig}.")
                else:
                    fault = await asyncio.to_thread(_first_fault, chain, rows, seq, head)
                if rows and fault is None:
                    seq, head = rows[-1].seq, rows[-1].hash
                    if on_rows is not None:
                        on_rows(len(rows))
                fault = fault or (None if rows else Fault(seq + 1, f"Row {seq + 1} is missing."))
            if fault is None and head.hex() != chain.head_hash:
                fault = Fault(seq, f"Row {seq} is not the head that was receipted.")
            yield Verified(chain, seq - chain.base_seq + 1, fault)

    async def _chain_rows(self, chain: Chain, after_seq: int) -> list[Row]:
        query = (
            select(_row.c.seq, _row.c.hash, _row.c.body)
            .where(_row.c.chain == chain.id, _row.c.seq > after_seq, _row.c.seq <= chain.stored_seq)
            .order_by(_row.c.seq)
            .limit(VERIFY_ROWS)
        )
        epoch = bytes.fromhex(chain.epoch)
        async with self._engine.connect() as connection:
            return [Row(row.seq, epoch, row.hash, row.body) for row in await connection.execute(query)]

    async def _take(self, connection: AsyncConnection, got: Frame) -> Outcome:
        chain = await _find(connection, got)
        if chain is None:
            parent, previous_known = await _predecessor(connection, got)
            if not previous_known:
                return await self._gap_in_unknown(connection, got)
            if not got.rows:
                return self._known(got, got.last_seq, got.head)
            chain_id = await connection.scalar(
                insert(_chain)
                .values(
                    device=got.device,
                    journal=got.journal.hex(),
                    epoch=got.epoch.hex(),
                    base_seq=got.first_seq,
                    previous_hash=got.previous,
                    parent=parent,
                    stored_seq=got.first_seq - 1,
                    head_hash=got.previous,
                    made_seq=got.made_seq,
                    told_utc=utc_now(),
                    received_utc=utc_now(),
                )
                .returning(_chain.c.id)
            )
            assert chain_id is not None
            return await self._append(connection, chain_id, got, got.rows)
        if got.first_seq > chain.stored_seq + 1:
            await _told(connection, chain.id, got)
            return Outcome(Took.GAP, got.device, self._receipt(chain, wanted_seq=chain.stored_seq + 1))
        # The chain of hashes makes one comparison enough: equal here means equal in everything before.
        seq = min(got.last_seq, chain.stored_seq)
        theirs = got.previous if seq < got.first_seq else got.rows[seq - got.first_seq].hash
        ours = await _hash_at(connection, chain, seq)
        if ours != theirs:
            return Outcome(Took.FORK, got.device, self._receipt(chain), _fork(got, seq))
        new = got.rows[seq - got.first_seq + 1 :]
        if new:
            return await self._append(connection, chain.id, got, new)
        await _told(connection, chain.id, got)
        return Outcome(Took.KNOWN, got.device, self._receipt(chain))

    async def _append(self, connection: AsyncConnection, chain_id: int, got: Frame, rows: Sequence[Row]) -> Outcome:
        now = utc_now()
        # Straight to the driver, many rows in a statement: nearly all that a backlog costs goes through here.
        for statement, lines in await asyncio.to_thread(_insertions, chain_id, rows, now):
            await connection.exec_driver_sql(statement, lines)
        await connection.execute(
            update(_chain)
            .where(_chain.c.id == chain_id)
            .values(
                stored_seq=got.last_seq,
                head_hash=got.head,
                received_utc=now,
                made_seq=func.max(_chain.c.made_seq, got.made_seq),
                told_utc=now,
            )
        )
        return self._known(got, got.last_seq, got.head, Took.STORED, safe_seq=self._safe.get(chain_id, 0))

    async def _gap_in_unknown(self, connection: AsyncConnection, got: Frame) -> Outcome:
        """An epoch that is new here, and rows before it are missing: ask after the longest chain that may be
        its beginning, else from row 1."""
        query = (
            select(_chain)
            .where(
                _chain.c.device == got.device,
                _chain.c.journal == got.journal.hex(),
                _chain.c.stored_seq < got.first_seq - 1,
            )
            .order_by(_chain.c.stored_seq.desc())
            .limit(1)
        )
        found = (await connection.execute(query)).one_or_none()
        if found is not None:
            chain = _as_chain(found, 0)
            return Outcome(Took.GAP, got.device, self._receipt(chain, wanted_seq=chain.stored_seq + 1))
        return self._known(got, 0, ZERO_HASH, Took.GAP, wanted_seq=1)

    def _known(
        self, got: Frame, seq: int, head: bytes, took: Took = Took.KNOWN, *, wanted_seq: int = 0, safe_seq: int = 0
    ) -> Outcome:
        receipt = self._sign(got.device, got.journal.hex(), got.epoch.hex(), seq, head.hex(), wanted_seq, safe_seq)
        return Outcome(took, got.device, receipt)

    def _receipt(self, chain: Chain, wanted_seq: int = 0) -> str:
        safe_seq = self._safe.get(chain.id, 0)
        return self._sign(
            chain.device, chain.journal, chain.epoch, chain.stored_seq, chain.head_hash, wanted_seq, safe_seq
        )

    def _sign(
        self, device: str, journal: str, epoch: str, seq: int, head_hash: str, wanted_seq: int, safe_seq: int
    ) -> str:
        receipt = Receipt(
            hub=self.hub,
            incarnation=self.incarnation,
            device=device,
            journal=journal,
            epoch=epoch,
            stored_seq=seq,
            safe_seq=safe_seq,
            head_hash=head_hash,
            wanted_seq=wanted_seq,
            utc=utc_now(),
        )
        return frame.make_receipt(receipt, self._signer)

    async def _put_aside(self, data: bytes, device: str, error: LinesideError) -> None:
        """Keep what was refused, once, and count how often it came."""
        now = utc_now()
        async with self._engine.begin() as connection:
            held = await connection.scalar(select(func.count()).select_from(_quarantine)) or 0
            keep = held < QUARANTINE_MAX or error.code == "hub.fork"
            digest = hashlib.sha256(data).hexdigest() if keep else f"{error.code} beyond {QUARANTINE_MAX}"
            statement = sqlite.insert(_quarantine).values(
                digest=digest,
                code=error.code,
                what=error.what,
                device=device,
                bytes=data[:QUARANTINE_BYTES_MAX] if keep else None,
                size=len(data),
                times=1,
                first_utc=now,
                last_utc=now,
            )
            again = {"times": _quarantine.c.times + 1, "last_utc": now}
            await connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_=again))


@dataclass(frozen=True, slots=True)
class _Read:
    """A frame that was verified, and its bytes."""

    data: bytes
    frame: Frame


@dataclass(frozen=True, slots=True)
class _Refused:
    data: bytes
    device: str
    error: LinesideError


def _read_all(came: Sequence[tuple[bytes, str]], trusted: Mapping[str, bytes]) -> list[list[_Read] | _Refused]:
    """Verify each, and put those of a device together of which each continues the one before it. In a thread: this
    takes long."""
    found: list[list[_Read] | _Refused] = []
    newest: dict[str, list[_Read]] = {}
    for data, device in came:
        try:
            got = frame.read(data, trusted)
            if device not in {"", got.device}:
                raise _misplaced(got.device, device)
        except LinesideError as error:
            found.append(_Refused(data, device, error))
            continue
        run = newest.get(got.device)
        if run is not None and _continues(run[-1].frame, got):
            run.append(_Read(data, got))
        else:
            newest[got.device] = [_Read(data, got)]
            found.append(newest[got.device])
    return found


def _continues(before: Frame, got: Frame) -> bool:
    same = (before.device, before.journal, before.epoch) == (got.device, got.journal, got.epoch)
    follows = (before.last_seq + 1, before.head) == (got.first_seq, got.previous)
    return same and follows and bool(before.rows) and bool(got.rows)


def _joined(run: Sequence[_Read]) -> Frame:
    """One frame, larger than any on the wire, of frames that continue each other."""
    first, last = run[0].frame, run[-1].frame
    if first is last:
        return first
    rows = tuple(row for one in run for row in one.frame.rows)
    return replace(first, head=last.head, made_seq=max(one.frame.made_seq for one in run), rows=rows)


def _insertions(chain_id: int, rows: Sequence[Row], now: str) -> list[tuple[str, list[tuple[object, ...]]]]:
    """Statements with their values, which together insert `rows`."""
    lines = [(chain_id, row.seq, row.hash, row.body, *_batch_and_kind(row.body), now) for row in rows]
    alone = len(lines) % ROWS_A_STATEMENT
    many = [
        tuple(one_after_another.from_iterable(lines[first : first + ROWS_A_STATEMENT]))
        for first in range(0, len(lines) - alone, ROWS_A_STATEMENT)
    ]
    insertions: list[tuple[str, list[tuple[object, ...]]]] = [
        (_INSERT_ROWS, many),
        (_INSERT_ROW, [*lines[len(lines) - alone :]]),
    ]
    return [(statement, values) for statement, values in insertions if values]


def _as_chain(row: Any, beyond: int) -> Chain:
    return Chain(
        id=row.id,
        device=row.device,
        journal=row.journal,
        epoch=row.epoch,
        base_seq=row.base_seq,
        stored_seq=row.stored_seq,
        head_hash=row.head_hash.hex(),
        made_seq=row.made_seq,
        told_utc=row.told_utc,
        received_utc=row.received_utc,
        beyond=beyond,
    )


async def _find(connection: AsyncConnection, got: Frame) -> Chain | None:
    query = select(_chain).where(
        _chain.c.device == got.device, _chain.c.journal == got.journal.hex(), _chain.c.epoch == got.epoch.hex()
    )
    found = (await connection.execute(query)).one_or_none()
    return None if found is None else _as_chain(found, 0)


async def _predecessor(connection: AsyncConnection, got: Frame) -> tuple[int | None, bool]:
    """The chain that holds the row before the frame's first, and whether there is one (or none is needed)."""
    if got.first_seq == 1:
        return None, True
    query = (
        select(_row.c.chain)
        .join_from(_row, _chain)
        .where(
            _chain.c.device == got.device,
            _chain.c.journal == got.journal.hex(),
            _row.c.seq == got.first_seq - 1,
            _row.c.hash == got.previous,
        )
        .limit(1)
    )
    parent = await connection.scalar(query)
    return parent, parent is not None


async def _hash_at(connection: AsyncConnection, chain: Chain, seq: int) -> bytes | None:
    """The hash of a chain's row, also of the row before its first; None before that."""
    if seq == chain.base_seq - 1:
        found = await connection.scalar(select(_chain.c.previous_hash).where(_chain.c.id == chain.id))
    else:
        found = await connection.scalar(select(_row.c.hash).where(_row.c.chain == chain.id, _row.c.seq == seq))
    return found


async def _continued_hash(connection: AsyncConnection, chain: Chain) -> bytes | None:
    """The hash of the row before a chain's first, as the chain that it continues has it."""
    if chain.base_seq == 1:
        return ZERO_HASH
    parent = select(_chain.c.parent).where(_chain.c.id == chain.id).scalar_subquery()
    query = select(_row.c.hash).where(_row.c.chain == parent, _row.c.seq == chain.base_seq - 1)
    return await connection.scalar(query)


def _continued_by(newest: int, chains: Mapping[int, Any]) -> list[tuple[Chain, int]]:
    """The chains that `newest` continues and itself, oldest first, each with the last of its rows that belongs."""
    path: list[tuple[Chain, int]] = []
    found, last_seq = chains[newest], chains[newest].stored_seq
    while found is not None:
        path.append((_as_chain(found, 0), last_seq))
        last_seq = found.base_seq - 1
        found = chains[found.parent] if found.parent is not None else None
    return path[::-1]


async def _frameful(connection: AsyncConnection, chain: Chain, after_seq: int, last_seq: int) -> list[Row]:
    """The rows of a chain behind `after_seq`: at least one, and about as many as a frame takes."""
    rows: list[Row] = []
    size = 0
    while size < frame.RAW_BYTES and after_seq < last_seq:
        query = (
            select(_row.c.seq, _row.c.hash, _row.c.body)
            .where(_row.c.chain == chain.id, _row.c.seq > after_seq, _row.c.seq <= last_seq)
            .order_by(_row.c.seq)
            .limit(TAIL_ROWS)
        )
        more = [Row(r.seq, bytes.fromhex(chain.epoch), r.hash, r.body) for r in await connection.execute(query)]
        if not more:
            break
        rows += more
        after_seq = more[-1].seq
        size += sum(len(row.body) for row in more)
    return rows


async def _told(connection: AsyncConnection, chain_id: int, got: Frame) -> None:
    """The device spoke, and said how many rows it has made."""
    made_seq = func.max(_chain.c.made_seq, got.made_seq)
    await connection.execute(
        update(_chain).where(_chain.c.id == chain_id).values(made_seq=made_seq, told_utc=utc_now())
    )


def _first_fault(chain: Chain, rows: Sequence[Row], after_seq: int, previous: bytes) -> Fault | None:
    return next(chain_faults(bytes.fromhex(chain.journal), rows, after_seq=after_seq, previous=previous), None)


def _batch_and_kind(body: bytes) -> tuple[str, str]:
    """The batch and kind that a row names: an index over it, not an interpretation; "" where it names none."""
    try:
        facts = orjson.loads(body)
        batch, kind = facts["batch"], facts["kind"]
    except (ValueError, KeyError, TypeError):
        return "", ""
    return (batch[:256], kind[:64]) if isinstance(batch, str) and isinstance(kind, str) else ("", "")


def _rows_unreadable(request: recall.Request, why: str) -> LinesideError:
    return LinesideError(
        "hub.unreadable",
        f"Device {request.device} asks for the rows behind row {request.after_seq}; they cannot be read: {why}.",
        effect="The box gets no answer, and says so to whoever restores it.",
        todo="Look at the hub's disk and verify what it holds, on its web page.",
    )


def _not_ours() -> LinesideError:
    return LinesideError(
        "hub.backup_foreign",
        "The copy has rows that the hub's database has not: another one was put in its place while it was copied.",
        effect="The copy is whole, and no row counts as safe by it.",
        todo="Keep the copy. Make another backup, to another file.",
    )


def _misplaced(device: str, topic_device: str) -> LinesideError:
    return LinesideError(
        "hub.wrong_topic",
        f"A frame of device {device} came on the topic of device {topic_device[:64]}.",
        effect="The frame is not stored; the box keeps its rows and sends them again.",
        todo="Check the broker's access list: each box may publish on its own topic only.",
    )


def _fork(got: Frame, seq: int) -> LinesideError:
    return LinesideError(
        "hub.fork",
        f"FORK: row {seq} of device {got.device}, epoch {got.epoch.hex()[:8]}, exists twice with different content.",
        effect="What was stored first stays; the contradicting frame is in quarantine.",
        todo="Two copies of this box are at work, or its journal was put back: find out which one is right.",
    )
