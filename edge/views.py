"""The views: what the journal says, as tables in `views.db` that any SQLite tool opens.

They prove nothing and may be deleted at any time; the journal alone counts. Whatever is wrong with the file - it is
damaged, it is of another version, it belongs to another journal - it is begun anew and filled from the journal.

Several processes may write (the follower, a rebuild): each takes the lock file for one short transaction and goes on
from what `meta` says in it. Replacing the file takes the same lock. It is a plain file without a write-ahead log, so
that a copy of it is whole and a reader needs no right to write.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import orjson

from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode
from edge.core.lifecycle import ACT_OF, RecipeEvent
from edge.core.mode import HAND, is_write
from edge.core.quick import dataclass
from edge.core.record import ZERO_HASH, Row
from edge.core.training import looks_like_training


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """A package counts as not installed in this block, unless it is loaded already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # so Python itself says that it is not there
    try:
        yield
    finally:
        del sys.modules[name]


# sqlite-utils loads numpy (23 MiB) where it finds it, for types of columns that no view has. Whoever needs numpy later
# in the same process gets it.
with _absent("numpy"):
    from sqlite_utils import Database

VERSION: Final = 3
"""Raise it when rows are applied in another way: every views.db is then made anew."""
ROWS_AT_ONCE: Final = 500
"""Rows that one transaction applies."""
BUSY_S: Final = 5.0
"""How long a reader may make a transaction wait before it is given up and tried again."""
LOCK_LOOK_S: Final = 0.01
SEARCH_CHARACTERS_MAX: Final = 500
SEARCH_WORDS_MAX: Final = 32
INTEGER_MAX: Final = 2**63 - 1

ANY: Final = bytes
"""Column of a recorded value: SQLite keeps each as the number or text that it was."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of views.db: what a line of it is, its columns with their types and meanings, its indexes."""

    about: str
    columns: dict[str, tuple[type, str]]
    indexes: tuple[tuple[str, ...], ...] = ()


_SEQ: Final = (int, "The row of the journal that this line began with.")
_UTC: Final = (str, "When that row was made.")
_BATCH: Final = (str, "The batch's id.")
_STEP: Final = (str, 'The step\'s id; "safe-state" when no step of the recipe wrote.')

# The first column of each table is its primary key.
TABLES: Final[dict[str, Table]] = {
    "meta": Table(
        "How far the views are. Changed in the same transaction as everything that the rows changed.",
        {
            "name": (
                str,
                '"applied_seq": the last row applied; "applied_hash": its hash; "schema": the form of the tables.',
            ),
            "value": (ANY, "Its value."),
        },
    ),
    "row": Table(
        "Every row of the journal, also of a kind that this version does not know. `row_fts` is its full-text index "
        "(FTS5) over `actor`, `kind`, `batch` and `text`.",
        {
            "seq": (int, "The row's number."),
            "utc": _UTC,
            "actor": (str, 'Who caused it: a person\'s id, or "lineside".'),
            "kind": (str, "What it is, as in [rows](rows.md); empty when it cannot be read."),
            "batch": (str, "The batch's id; empty for what concerns the whole box."),
            "text": (str, "What it says, for search: names, texts and numbers, without hashes and signatures."),
        },
        (("batch",), ("kind",)),
    ),
    "batch": Table(
        "One line for each batch.",
        {
            "batch": _BATCH,
            "order_id": (str, "The order it was started from."),
            "patient": (str, "Pseudonym of the patient; empty without one."),
            "recipe": (str, "The recipe's id."),
            "version": (str, "The recipe's version."),
            "seal": (str, "The recipe's seal: the SHA-256 of its content."),
            "state": (str, "Its ISA-88 state."),
            "started_utc": (str, "When it was started; empty while it waits."),
            "started_by": (str, "By whom."),
            "ended_utc": (str, "When it was complete, stopped or aborted; empty before."),
            "exceptions": (int, "How many exceptions were raised."),
            "speed": (float, "1.0 for production; more compresses process time: not for release."),
            "seq": _SEQ,
            "as_of_seq": (int, "The last row that concerns it."),
        },
    ),
    "training": Table(
        "One line for each training batch: what a person's training record rests on. Nothing else of it stands in any "
        "other table but `row`: it is no record of a product.",
        {
            "batch": _BATCH,
            "recipe": (str, "The recipe's id."),
            "version": (str, "The recipe's version."),
            "seal": (str, "The recipe's seal: the SHA-256 of its content."),
            "state": (str, "Its ISA-88 state."),
            "started_utc": (str, "When it was started; empty while it waits."),
            "started_by": (str, "By whom."),
            "ended_utc": (str, "When it was complete, stopped or aborted; empty before."),
            "people": (str, "Who did something in it, separated by commas."),
            "exceptions": (int, "How many exceptions were raised."),
            "seq": _SEQ,
        },
    ),
    "amendment": Table(
        "One line for each amendment of a batch under way that was requested.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "amendment": (str, "Its number in the batch: A1, A2 …"),
            "state": (str, '"requested", "made" or "refused".'),
            "differences": (str, "What it changes, a sentence a line."),
            "adopts": (str, "The version that the batch goes over to; empty for other amendments."),
            "from_step": (str, "The step from which on it does; empty likewise."),
            "was_seal": (str, "The control recipe's seal before."),
            "new_seal": (str, "Its seal afterwards, when it is made."),
            "reason": (str, "Why it was requested."),
            "requested_by": (str, "By whom."),
            "settled_by": (str, "Who agreed last, or refused; empty before."),
            "settled_utc": (str, "When; empty before."),
        },
        (("batch",),),
    ),
    "step": Table(
        "One line for each activation of a step.",
        {
            "seq": _SEQ,
            "batch": _BATCH,
            "step": _STEP,
            "iteration": (int, "Which repetition by the recipe."),
            "attempt": (int, "Which attempt within it."),
            "title": (str, "Its title in the recipe."),
            "phase": (str, "Its phase."),
            "state": (str, '"active", "done", "skipped", or the state in which it was ended.'),
            "began_utc": (str, "When it became active."),
            "ended_utc": (str, "When it was done or ended; empty before."),
            "person": (str, "Who last confirmed it or recorded a value in it; empty before."),
        },
        (("batch", "step", "seq"),),
    ),
    "value": Table(
        "One line for each recorded value, and one more for each correction of it.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "step": _STEP,
            "name": (str, "The value's name."),
            "value": (ANY, 'A number or a text; true and false are the texts "true" and "false".'),
            "unit": (str, "Its unit."),
            "source": (
                str,
                '"entered", "scanned", "calculated", "by hand", "corrected", "added later", or the tag.',
            ),
            "quality": (str, 'Quality of the reading; "by hand" for what two people entered in its place.'),
            "low": (float, "Lower limit in force; NULL when open."),
            "high": (float, "Upper limit in force; NULL when open."),
            "within": (int, "1 within the limits, 0 outside."),
            "person": (str, 'Who recorded it, or "lineside".'),
            "corrected_seq": (int, "The row that corrects this one; NULL when it holds."),
            "reason": (str, "Why the value before this one was wrong; empty without a correction."),
            "formula": (str, "What it was worked out by; empty for a value that was not calculated."),
            "inputs": (str, "What went into the formula, as JSON: name, value, unit, quality and source of each."),
        },
        (("batch", "name"),),
    ),
    "command": Table(
        "One line for each write to equipment, and what became of it; also for what two people did in its place, and "
        "for a time off that they entered (`unit` is min): then `tag` may be empty.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "step": _STEP,
            "attempt": (int, "Which attempt of the step; 0 for what people did or entered."),
            "tag": (str, "Where it was written to."),
            "value": (ANY, "What was written; NULL when it was refused before it was intended."),
            "unit": (str, "Its unit."),
            "before": (ANY, "The reading before; NULL when there was none."),
            "outcome": (
                str,
                '"intended" while open, then "confirmed", "refused", "unknown"; "entered by hand", then "by hand".',
            ),
            "reading": (ANY, "What the equipment showed afterwards; NULL when nothing."),
            "why": (str, "Why it was refused or is unknown; who entered and who verified what was done by hand."),
            "answer": (
                str,
                'What a person signed about it: "happened", "again", "abort" or "by hand"; empty when not asked.',
            ),
            "ended_utc": (str, "When the outcome became a row; empty before."),
        },
        (("batch", "step", "seq"), ("tag",)),
    ),
    "exception": Table(
        "One line for each exception record.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "exception": (str, "Its id within the batch."),
            "step": _STEP,
            "category": (str, "Its category."),
            "code": (str, "Its code."),
            "what": (str, "What happened."),
            "restored_utc": (str, "When a watched limit was kept again; empty before, and for other exceptions."),
        },
        (("batch", "exception"),),
    ),
    "unit_state": Table(
        "One line for each time a unit became clean or dirty.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "unit": (str, "The unit."),
            "state": (str, '"clean" or "dirty". How long it stays clean the plant file says.'),
            "batch": (str, "By which batch; empty for none."),
            "step": (str, "The step that cleaned it; empty otherwise."),
            "why": (str, "Why it is dirty; empty otherwise."),
        },
        (("unit",), ("batch",)),
    ),
    "alarm": Table(
        "One line for each time an alarm was raised.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "alarm": (str, "The alarm's id on this box."),
            "batch": (str, "The batch whose limit it is of; empty for a tag's, or the box's own."),
            "step": (str, "The step whose limit it is of; empty likewise."),
            "tag": (str, "The full name of the tag; empty for one without."),
            "priority": (str, '"high", "medium" or "low".'),
            "cause": (str, "What is wrong."),
            "effect": (str, "What comes of it."),
            "todo": (str, "What to do."),
            "value": (ANY, "What was read; NULL when nothing."),
            "cleared_utc": (str, "When its condition was over; empty before."),
            "cleared_why": (str, "Why it was over."),
            "acknowledged_utc": (str, "When somebody acknowledged it; empty before."),
            "acknowledged_by": (str, "Who."),
            "more": (int, "How often its condition came back meanwhile, while it flooded."),
        },
        (("alarm",), ("batch",)),
    ),
    "recipe_act": Table(
        "One line for each signed act about a recipe: a batch's `seal` tells who approved what it ran by.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "recipe": (str, "The recipe's id."),
            "version": (str, "Its version."),
            "seal": (str, "Its seal: the SHA-256 of its content."),
            "act": (str, '"submit", "approve", "send back", "release" or "retire".'),
            "person": (str, "Who signed."),
            "role": (str, "In which role."),
            "reason": (str, "Why it was sent back or retired; empty otherwise."),
        },
        (("seal",),),
    ),
    "result": Table(
        "One line for each result that was left open when its step was done.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "result": (str, "Its id within the batch."),
            "step": _STEP,
            "name": (str, "The name of its value."),
            "unit": (str, "The unit of its value."),
            "interim": (str, "What was known when it was left open; empty for nothing."),
            "added_utc": (str, "When it was added; empty while it is open. Its value is then in `value`."),
        },
        (("batch", "result"),),
    ),
    "signature": Table(
        "One line for each electronic signature.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "step": _STEP,
            "person": (str, "Who signed."),
            "role": (str, "In which role."),
            "meaning": (str, "What the signature means."),
            "methods": (str, "How the person was verified, separated by commas."),
            "session": (str, "The session it was made in."),
            "subject_seq": (int, "Up to which row the signed record was shown."),
            "subject_hash": (str, "That row's hash."),
            "attestation": (str, "The device key's signature, in hex."),
        },
        (("batch",), ("person",)),
    ),
    "state_change": Table(
        "One line for each change of a batch's state.",
        {
            "seq": _SEQ,
            "utc": _UTC,
            "batch": _BATCH,
            "was": (str, "The state before."),
            "now": (str, "The state after."),
            "cause": (str, "What caused it."),
            "reason": (str, "Why, as a sentence."),
        },
        (("batch",),),
    ),
    "session": Table(
        "One line for each session of a person.",
        {
            "seq": _SEQ,
            "session": (str, "The session's id."),
            "person": (str, "Whose it was."),
            "roles": (str, "The roles they had, separated by commas."),
            "method": (str, "How they were verified."),
            "opened_utc": (str, "When they logged in."),
            "closed_utc": (str, "When it was closed; empty before."),
            "reason": (str, "Why it was closed."),
        },
        (("session",), ("person",)),
    ),
}
SEARCHED: Final = ("actor", "kind", "batch", "text")

_UNSEARCHED: Final = frozenset(
    {
        "attestation", "command_id", "head_hash", "iteration", "last_hash", "public_key", "receipt", "sealed_hash",
        "session", "signature", "subject_hash",
    }
)  # fmt: skip
# A step may be repeated: its commands are those since it was last activated.
_OF_THIS_STEP: Final = "batch=? AND step=? AND seq > ifnull((SELECT max(seq) FROM step WHERE batch=? AND step=?), 0)"
_ENDS: Final = frozenset({"complete", "stopped", "aborted"})

_SCHEMA: Final = hashlib.sha256(
    repr([VERSION, [(name, list(table.columns.items()), table.indexes) for name, table in TABLES.items()]]).encode()
).hexdigest()[:16]


class Views:
    """The writing end of `views.db`. Use from one thread."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or begins it anew when it is not what this version writes. Raises `views.unusable`."""
        self._path = path
        self._db: Database | None = None
        self._file = (0, 0)
        with self._writing():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. What was applied stays."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def applied(self) -> tuple[int, bytes]:
        """Number and hash of the last row applied; (0, 32 zero bytes) when none is."""
        with self._writing() as db:
            return _applied(db)

    def apply(self, after_seq: int, rows: Sequence[Row]) -> int:
        """Apply `rows`, which follow `after_seq` in the journal, all in one transaction. Returns the last row applied.

        What was applied already is left out. When the views are not as far as `after_seq`, because someone began
        them anew, nothing is applied: read on from what is returned. Raises `views.damaged` when the file was found
        damaged (it is begun anew by then), and `views.unusable` when it cannot be written."""
        with self._writing() as db:
            applied_seq, _ = _applied(db)
            new = [row for row in rows if row.seq > applied_seq]
            if not new or applied_seq < after_seq:
                return applied_seq
            _apply(db, new)
            _tell_applied(db, new[-1])
            return new[-1].seq

    def begin_anew(self) -> None:
        """Replace the file by one into which no row was applied."""
        with self._locked():
            self._replace()

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """One transaction on the file that has the path now, whoever put it there."""
        with self._locked():
            try:
                db = self._current()
                with db.atomic():
                    yield db
            except sqlite3.Error as error:
                if not _is_damage(error):
                    raise _unusable(self._path, error) from error
                self._replace()
                raise LinesideError(
                    "views.damaged",
                    f"{self._path} was damaged ({error}).",
                    effect="The views are made anew from the journal. Nothing of the record was touched.",
                    todo="Nothing to do. If it comes back, look at the disk.",
                ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            handle = os.open(
                self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640
            )
        except OSError as error:
            raise _unusable(self._path, error) from error
        try:
            until_s = time.monotonic() + BUSY_S
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > until_s:
                        raise _unusable(self._path, error) from error
                    time.sleep(LOCK_LOOK_S)
            yield
        finally:
            os.close(handle)

    def _current(self) -> Database:
        found = _file_id(self._path)
        if self._db is not None and found == self._file:
            return self._db
        self.close()
        if found is None:
            return self._replace()
        try:
            self._db, self._file = _open(self._path), found
            if _schema_of(self._db) == _expected_schema():
                return self._db
        except sqlite3.Error as error:
            if not _is_damage(error):
                raise
        return self._replace()

    def _replace(self) -> Database:
        """Under the lock: remove the file with what belongs to it, in an order in which a crash leaves no half."""
        self.close()
        try:
            for suffix in ("", "-journal", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            db = _open(self._path)
            with db.atomic():
                _create(db)
        except (sqlite3.Error, OSError) as error:
            raise _unusable(self._path, error) from error
        self._db, self._file = db, _file_id(self._path) or (0, 0)
        return db


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row that a search found."""

    seq: int
    utc: str
    actor: str
    kind: str
    batch: str
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found in the rows up to `as_of_seq`, newest first."""

    as_of_seq: int
    rows: tuple[FoundRow, ...]


def search(path: Path, text: str, limit: int) -> Found:
    """The newest `limit` rows in which each word of `text` occurs, also as the beginning of a longer one.

    Raises `views.search`, `views.absent` or `views.old`."""
    query = _query(text)
    if not path.is_file():
        raise _no_views(path)
    try:
        # Opened for writing: what a killed process left half done is taken back by whoever comes next.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as connection:
            connection.execute("PRAGMA query_only=1")
            db = Database(connection, execute_plugins=False)
            with db.atomic():
                if _schema_of(db) != _expected_schema():
                    raise _old(path)
                as_of_seq, _ = _applied(db)
                found = db.execute(
                    "SELECT seq, utc, actor, kind, batch, text FROM row WHERE seq IN "
                    "(SELECT rowid FROM row_fts WHERE row_fts MATCH ? ORDER BY rowid DESC LIMIT ?) ORDER BY seq DESC",
                    (query, limit),
                ).fetchall()
    except sqlite3.Error as error:
        raise (_old(path) if _is_damage(error) else _unusable(path, error)) from error
    return Found(as_of_seq, tuple(FoundRow(*row) for row in found))


def _query(text: str) -> str:
    """What a person typed, as words: nothing in it is an operator of FTS5."""
    words = "".join(sign if sign.isprintable() else " " for sign in text).split()
    words = [word for word in words if any(sign.isalnum() for sign in word)]
    if not words or len(text) > SEARCH_CHARACTERS_MAX or len(words) > SEARCH_WORDS_MAX:
        raise LinesideError(
            "views.search",
            f"There is nothing to search for in {text[:60]!r}."
            if not words
            else f"At most {SEARCH_WORDS_MAX} words with {SEARCH_CHARACTERS_MAX} characters in all are searched for.",
            todo="Give one or a few words or numbers that stand in the row.",
        )
    return " ".join('"' + word.replace('"', '""') + '"*' for word in words)


class Snapshot:
    """All tables as of one row; see `snapshot`."""

    def __init__(self, connection: sqlite3.Connection, as_of_seq: int, as_of_hash: bytes) -> None:
        self.as_of_seq = as_of_seq
        self.as_of_hash = as_of_hash
        self._connection = connection

    def lines(self, table: str) -> Iterator[tuple[int | float | str | None, ...]]:
        """The lines of a table in the order of its key, with its columns as in `TABLES`."""
        columns, key = ", ".join(f'"{name}"' for name in TABLES[table].columns), next(iter(TABLES[table].columns))
        yield from self._connection.execute(f'SELECT {columns} FROM "{table}" ORDER BY "{key}"')  # noqa: S608 - ours


@contextmanager
def snapshot(path: Path, copy: Path) -> Iterator[Snapshot]:
    """The views at `path` as they are now, read from the new file `copy`: however long that takes, nobody waits for it.

    Raises `views.absent`, `views.old` or `views.unusable`."""
    if not path.is_file():
        raise _no_views(path)
    try:
        with closing(sqlite3.connect(copy)) as connection:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)) as source:
                source.backup(connection)
            db = Database(connection, execute_plugins=False)
            if _schema_of(db) != _expected_schema():
                raise _old(path)
            yield Snapshot(connection, *_applied(db))
    except sqlite3.Error as error:
        raise (_old(path) if _is_damage(error) else _unusable(path, error)) from error


def _no_views(path: Path) -> LinesideError:
    return LinesideError(
        "views.absent",
        f"There is no {path}.",
        todo="Run the follower with views = true, or `lineside views rebuild`.",
    )


# The file ----------------------------------------------------------------------------------------------------------


def _open(path: Path) -> Database:
    connection = sqlite3.connect(path, timeout=BUSY_S)
    try:
        db = Database(connection, recursive_triggers=False, execute_plugins=False)
        db.execute("PRAGMA journal_mode=DELETE").fetchall()  # whatever a tool made of it
        return db
    except BaseException:
        connection.close()
        raise


def _create(db: Database) -> None:
    for name, table in TABLES.items():
        made = db.table(name).create(
            {column: kind for column, (kind, _) in table.columns.items()}, pk=next(iter(table.columns))
        )
        for columns in table.indexes:
            made.create_index(columns)
    db.execute(f"CREATE VIRTUAL TABLE row_fts USING fts5({', '.join(SEARCHED)}, content='row', content_rowid='seq')")
    told = {"schema": _SCHEMA, "applied_seq": 0, "applied_hash": ZERO_HASH.hex()}
    db.table("meta").insert_all([("name", "value"), *told.items()])


def _schema_of(db: Database) -> list[tuple[str, ...]]:
    """What the file's tables are, and what it says of them itself."""
    tables = db.execute("SELECT name, sql FROM sqlite_schema ORDER BY name LIMIT 100").fetchall()
    if ("meta",) not in [table[:1] for table in tables]:
        return []
    return [*tables, *db.execute("SELECT name, value FROM meta WHERE name='schema'").fetchall()]


@cache
def _expected_schema() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        db = Database(connection, execute_plugins=False)
        _create(db)
        return _schema_of(db)


def _applied(db: Database) -> tuple[int, bytes]:
    said = dict(db.execute("SELECT name, value FROM meta").fetchall())
    try:
        return int(said["applied_seq"]), bytes.fromhex(said["applied_hash"])
    except (KeyError, TypeError, ValueError) as error:
        raise sqlite3.DatabaseError("what was applied is not said") from error


def _tell_applied(db: Database, row: Row) -> None:
    db.execute("UPDATE meta SET value=? WHERE name='applied_seq'", (row.seq,))
    db.execute("UPDATE meta SET value=? WHERE name='applied_hash'", (row.hash.hex(),))


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error
    return about.st_dev, about.st_ino


def _is_damage(error: sqlite3.Error) -> bool:
    """True when the file is at fault, and not its place, its disk or another process."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    return code in {
        sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_FORMAT,
    }  # fmt: skip


def _unusable(path: Path, error: Exception) -> LinesideError:
    return LinesideError(
        "views.unusable",
        f"{path} cannot be used ({type(error).__name__}: {error}).",
        effect="The views stay as old as they are. Nothing of the record was touched.",
        todo="Check that the folder may be written to, that the disk has room, and that no tool holds the file.",
    )


def _old(path: Path) -> LinesideError:
    return LinesideError(
        "views.old",
        f"{path} is damaged, or was not made by this version of Lineside.",
        effect="Nothing was read from it. The journal is not concerned.",
        todo="Run the follower, which makes it anew, or `lineside views rebuild`.",
    )


# From rows to tables -------------------------------------------------------------------------------------------------


def _apply(db: Database, rows: Sequence[Row]) -> None:
    shown = []
    for row in rows:
        body, line = _read(row)
        shown.append((row.seq, *line))
        if body is not None:
            _apply_event(db, row.seq, body)
    db.conn.executemany("INSERT INTO row(seq, utc, actor, kind, batch, text) VALUES(?,?,?,?,?,?)", shown)
    # The index takes nothing from `row` by itself: each line is given to it once.
    db.conn.executemany(
        "INSERT INTO row_fts(rowid, actor, kind, batch, text) VALUES(?,?,?,?,?)",
        [(seq, *searched) for seq, _, *searched in shown],
    )


def _read(row: Row) -> tuple[RowBody | None, tuple[str, ...]]:
    """The row's body, None when this version cannot read it, and its line in the table `row`."""
    try:
        body = decode(row.body)
    except LinesideError:
        return None, _foreign_line(row)
    facts = vars(body.event)
    text = " ".join(_words({name: fact for name, fact in facts.items() if name != "batch"}))
    return body, (body.at.utc, body.actor, type(body.event).__name__, body.event.batch, text)


def _foreign_line(row: Row) -> tuple[str, ...]:
    """As much of a row of unknown kind as has the usual form."""
    try:
        raw = orjson.loads(row.body)
    except orjson.JSONDecodeError:
        return "", "", "", "", row.body.decode(errors="replace")
    raw = raw if isinstance(raw, dict) else {"facts": raw}
    at = raw.get("at")
    utc = at.get("utc") if isinstance(at, dict) else ""
    texts = (
        part if isinstance(part, str) else "" for part in (utc, raw.get("actor"), raw.get("kind"), raw.get("batch"))
    )
    return (*texts, " ".join(_words(raw.get("facts"))))


def _words(facts: object) -> Iterator[str]:
    """What stands in the facts, as a person might look for it."""
    waiting = [facts]  # and not recursion: a row of unknown kind may be nested as deeply as JSON can be
    while waiting:
        match waiting.pop():
            case dict() as inner:
                waiting += [value for name, value in reversed(inner.items()) if name not in _UNSEARCHED]
            case list() as inner:
                waiting += reversed(inner)
            case None | bool() | "":
                pass
            case fact:
                yield str(fact)


def _run(db: Database, sql: str, *values: object) -> int:
    """Run one statement; says how many lines it changed."""
    return db.execute(sql, [_storable(value) for value in values]).rowcount


def _storable(value: object) -> object:
    """A fact as SQLite holds it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > INTEGER_MAX:
            return str(value)
        case None | int() | float() | str():
            return value
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _insert(db: Database, table: str, *values: object) -> None:
    places = ",".join("?" * len(TABLES[table].columns))
    _run(db, f"INSERT OR REPLACE INTO {table} VALUES({places})", *values)


def _is_training(db: Database, event: ev.Event) -> bool:
    if isinstance(event, ev.BatchQueued | ev.BatchStarted):
        return event.training
    if not looks_like_training(event.batch):
        return False  # spares the question to the table
    return db.execute("SELECT 1 FROM training WHERE batch=?", [event.batch]).fetchone() is not None


def _apply_training(db: Database, seq: int, row: RowBody) -> None:
    """What is kept of a training batch: that it was, by whom, and how it ended."""
    event, utc = row.event, row.at.utc
    match event:
        case ev.BatchQueued() | ev.BatchStarted():
            state, since, by = ("idle", "", "") if isinstance(event, ev.BatchQueued) else ("running", utc, row.actor)
            about = (event.batch, event.recipe, event.version, event.seal)
            _insert(db, "training", *about, state, since, by, "", "", 0, seq)
        case ev.BatchStateChanged():
            ended = utc if event.now in _ENDS else ""
            told = "UPDATE training SET state=?, ended_utc=ifnull(nullif(?, ''), ended_utc) WHERE batch=?"
            _run(db, told, event.now, ended, event.batch)
        case ev.ExceptionRaised():
            _run(db, "UPDATE training SET exceptions=exceptions+1 WHERE batch=?", event.batch)
        case _:
            pass
    if row.actor != "lineside":
        (known,) = db.execute("SELECT people FROM training WHERE batch=?", [event.batch]).fetchone()
        people = [one for one in known.split(", ") if one]
        if row.actor not in people:
            _run(db, "UPDATE training SET people=? WHERE batch=?", [*people, row.actor], event.batch)


def _apply_event(db: Database, seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    if _is_training(db, event):
        _apply_training(db, seq, row)
        return
    if event.batch and not isinstance(event, ev.BatchStarted | ev.BatchQueued):
        _run(db, "UPDATE batch SET as_of_seq=? WHERE batch=?", seq, event.batch)
    match event:
        case ev.SessionOpened():
            _insert(
                db, "session", seq, event.session, event.person, event.roles, event.method, utc, "", ""
            )  # fmt: skip
        case ev.SessionClosed():
            _run(
                db,
                "UPDATE session SET closed_utc=?, reason=? WHERE session=? AND closed_utc=''",
                utc,
                event.reason,
                event.session,
            )
        case ev.BatchQueued():
            _insert(
                db, "batch", event.batch, event.order, event.patient, event.recipe, event.version, event.seal,
                "idle", "", "", "", 0, event.speed, seq, seq,
            )  # fmt: skip
        case ev.BatchStarted():
            (raised,) = db.execute(
                "SELECT ifnull(max(exceptions), 0) FROM batch WHERE batch=?", [event.batch]
            ).fetchone()
            _insert(
                db, "batch", event.batch, event.order, event.patient, event.recipe, event.version, event.seal,
                "running", utc, row.actor, "", raised, event.speed, seq, seq,
            )  # fmt: skip
        case ev.BatchStateChanged():
            _insert(db, "state_change", seq, utc, event.batch, event.was, event.now, event.cause, event.reason)
            ended = utc if event.now in _ENDS else ""
            _run(
                db,
                "UPDATE batch SET state=?, ended_utc=ifnull(nullif(?, ''), ended_utc) WHERE batch=?",
                event.now,
                ended,
                event.batch,
            )
        case ev.StepActivated():
            _insert(
                db, "step", seq, event.batch, event.step, event.iteration, event.attempt, event.title, event.phase,
                "active", utc, "", "",
            )  # fmt: skip
        case ev.StepConfirmed():
            _tell_step(db, event.batch, event.step, person=row.actor)
        case ev.StepCompleted():
            _tell_step(db, event.batch, event.step, state="done", ended_utc=utc)
        case ev.StepSkipped():
            of_this = "batch=? AND step=? AND iteration=? AND state='active'"
            known = (event.batch, event.step, event.iteration)
            if not _run(db, f"UPDATE step SET state='skipped', ended_utc=? WHERE {of_this}", utc, *known):  # noqa: S608 - a constant
                _insert(
                    db, "step", seq, event.batch, event.step, event.iteration, 0, event.title, event.phase, "skipped",
                    "", utc, "",
                )  # fmt: skip
        case ev.AmendmentRequested():
            _insert(
                db, "amendment", seq, utc, event.batch, event.amendment, "requested", "\n".join(event.differences),
                event.adopts, event.from_step, event.was_seal, event.new_seal, event.reason, row.actor, "", "",
            )  # fmt: skip
        case ev.AmendmentMade() | ev.AmendmentRefused():
            state = "made" if isinstance(event, ev.AmendmentMade) else "refused"
            _run(
                db,
                "UPDATE amendment SET state=?, settled_by=?, settled_utc=? WHERE batch=? AND amendment=?",
                *(state, row.actor, utc, event.batch, event.amendment),
            )
        case ev.StepEnded():
            _tell_step(db, event.batch, event.step, state=event.state, ended_utc=utc)
        case ev.ValueRecorded():
            _insert(
                db, "value", seq, utc, event.batch, event.step, event.name, event.value, event.unit, event.source,
                event.quality, event.low, event.high, int(event.within), row.actor, None, "", event.formula,
                orjson.dumps(event.inputs).decode() if event.formula else "",
            )  # fmt: skip
            _tell_step(db, event.batch, event.step, person=row.actor)
        case ev.ValueCorrected():
            _run(db, "UPDATE value SET corrected_seq=? WHERE seq=?", seq, event.was_seq)
            _insert(
                db, "value", seq, utc, event.batch, event.step, event.name, event.value, event.unit, "corrected",
                "good", event.low, event.high, int(event.within), row.actor, None, event.reason, "", "",
            )  # fmt: skip
        case ev.ExceptionRaised():
            _insert(
                db, "exception", seq, utc, event.batch, event.exception, event.step, event.category, event.code,
                event.what, "",
            )  # fmt: skip
            _run(db, "UPDATE batch SET exceptions=exceptions+1 WHERE batch=?", event.batch)
        case ev.LimitRestored():
            _run(
                db,
                "UPDATE exception SET restored_utc=? WHERE batch=? AND exception=?",
                utc,
                event.batch,
                event.exception,
            )
        case ev.ResultPending():
            _insert(
                db, "result", seq, utc, event.batch, event.result, event.step, event.name, event.unit, event.interim,
                "",
            )  # fmt: skip
        case ev.ResultAdded():
            _insert(
                db, "value", seq, utc, event.batch, event.step, event.name, event.value, event.unit, "added later",
                "good", event.low, event.high, int(event.within), row.actor, None, "", "", "",
            )  # fmt: skip
            _run(
                db,
                "UPDATE result SET added_utc=? WHERE batch=? AND result=? AND added_utc=''",
                utc,
                event.batch,
                event.result,
            )
        case ev.SignatureMade():
            _insert(
                db, "signature", seq, utc, event.batch, event.step, event.person, event.role, event.meaning,
                event.methods, event.session, event.subject_seq, event.subject_hash, event.attestation,
            )  # fmt: skip
        case _ if isinstance(event, RecipeEvent):
            _insert(
                db, "recipe_act", seq, utc, event.recipe, event.version, event.seal, ACT_OF[type(event)], row.actor,
                event.role, getattr(event, "reason", ""),
            )  # fmt: skip
        case ev.UnitSoiled():
            _insert(db, "unit_state", seq, utc, event.unit, "dirty", event.batch, "", event.why)
        case ev.UnitCleaned():
            _insert(db, "unit_state", seq, utc, event.unit, "clean", event.batch, event.step, "")
        case ev.AlarmRaised() | ev.AlarmCleared() | ev.AlarmAcknowledged() | ev.AlarmFlooded():
            _apply_alarm(db, seq, row, event)
        case _:
            _apply_command(db, seq, row)


AlarmEvent = ev.AlarmRaised | ev.AlarmCleared | ev.AlarmAcknowledged | ev.AlarmFlooded


def _apply_alarm(db: Database, seq: int, row: RowBody, event: AlarmEvent) -> None:
    utc, latest = row.at.utc, "seq=(SELECT max(seq) FROM alarm WHERE alarm=?)"
    match event:
        case ev.AlarmRaised():
            _insert(
                db, "alarm", seq, utc, event.alarm, event.batch, event.step, event.tag, event.priority, event.cause,
                event.effect, event.todo, event.value, "", "", "", "", 0,
            )  # fmt: skip
        case ev.AlarmCleared():
            _run(db, f"UPDATE alarm SET cleared_utc=?, cleared_why=? WHERE {latest}", utc, event.why, event.alarm)  # noqa: S608 - a constant
        case ev.AlarmAcknowledged():
            _run(
                db,
                "UPDATE alarm SET acknowledged_utc=?, acknowledged_by=? WHERE seq=?",
                utc,
                row.actor,
                event.raised_seq,
            )
        case ev.AlarmFlooded():
            _run(db, f"UPDATE alarm SET more=more+? WHERE {latest}", event.times, event.alarm)  # noqa: S608 - a constant


def _apply_command(db: Database, seq: int, row: RowBody) -> None:
    event, utc = row.event, row.at.utc
    match event:
        case ev.CommandIntended():
            _insert(
                db, "command", seq, utc, event.batch, event.step, event.attempt, event.tag, event.value, event.unit,
                event.before, "intended", None, "", "", "",
            )  # fmt: skip
        case ev.CommandConfirmed():
            _conclude(db, seq, utc, event, "confirmed", "", event.reading)
        case ev.CommandRefused():
            _conclude(db, seq, utc, event, "refused", event.why, None)
        case ev.CommandUnknown():
            _conclude(db, seq, utc, event, "unknown", event.why, event.reading)
        case ev.QuestionAnswered():
            attempt = event.question.rpartition(".")[2]  # a question's id is STEP.ATTEMPT
            _run(
                db,
                f"UPDATE command SET answer=? WHERE {_OF_THIS_STEP} AND attempt=?",  # noqa: S608 - a constant
                event.answer,
                *(event.batch, event.step) * 2,
                attempt,
            )
        case ev.HandEntered(writes=True) if is_write(event.part, event.tag):
            _insert(
                db, "command", seq, utc, event.batch, event.step, 0, event.tag, event.value, event.unit, None,
                "entered by hand", None, f"entered by {event.person}", "", "",
            )  # fmt: skip
        case ev.DarkEntered():
            _insert(
                db, "command", seq, utc, event.batch, "", 0, "", event.minutes, "min", None, "entered by hand", None,
                f"entered by {event.person}", "", "",
            )  # fmt: skip
        case ev.HandVerified() | ev.DarkVerified():
            shown = event.value if isinstance(event, ev.HandVerified) else None
            why = f"entered by {event.entered_by}, verified by {event.person}"
            _settle_by_hand(db, utc, event, HAND, shown, why)
        case ev.HandRefused() | ev.DarkRefused():
            _settle_by_hand(db, utc, event, "refused", None, event.why)
        case _:
            pass


def _settle_by_hand(
    db: Database,
    utc: str,
    event: ev.HandVerified | ev.HandRefused | ev.DarkVerified | ev.DarkRefused,
    outcome: str,
    reading: object,
    why: str,
) -> None:
    _run(
        db,
        "UPDATE command SET outcome=?, reading=?, why=?, ended_utc=? "
        "WHERE batch=? AND step=? AND outcome='entered by hand'",
        *(outcome, reading, why, utc),
        *(event.batch, getattr(event, "step", "")),
    )


def _conclude(
    db: Database,
    seq: int,
    utc: str,
    event: ev.CommandConfirmed | ev.CommandRefused | ev.CommandUnknown,
    outcome: str,
    why: str,
    reading: object,
) -> None:
    latest = f"(SELECT max(seq) FROM command WHERE {_OF_THIS_STEP} AND attempt=? AND tag=?)"  # noqa: S608 - a constant
    changed = _run(
        db,
        f"UPDATE command SET outcome=?, why=?, reading=?, ended_utc=? WHERE seq={latest}",  # noqa: S608 - as above
        *(outcome, why, reading, utc),
        *(event.batch, event.step) * 2,
        *(event.attempt, event.tag),
    )
    if not changed:  # refused before it was intended: the guard said no
        _insert(
            db, "command", seq, utc, event.batch, event.step, event.attempt, event.tag, None, "", None, outcome,
            reading, why, "", utc,
        )  # fmt: skip


def _tell_step(db: Database, batch: str, step: str, **facts: str) -> None:
    names = ", ".join(f"{name}=?" for name in facts)
    _run(
        db,
        f"UPDATE step SET {names} WHERE seq=(SELECT max(seq) FROM step WHERE batch=? AND step=?)",  # noqa: S608 - names of this module
        *facts.values(),
        batch,
        step,
    )
