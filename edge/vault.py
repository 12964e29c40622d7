"""The vault: the only owner of `vault.db`, the one file of a box that holds patient identities, and can forget them.

An identity gets a random pseudonym, durable here before any row names it. Everything else (journal, frames, views,
drafts, screen, hub) holds the pseudonym. Erasing takes the identity's bytes out of the file; the row that says so
comes first, so that a start repeats what a crash or an older copy of the file undid.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import apsw

from edge.core.errors import LinesideError, Place
from edge.core.events import Event, IdentityErased
from edge.core.pseudonym import RANDOM_BYTES, pseudonym
from edge.core.quick import dataclass
from edge.identity import sync_folder

VAULT: Final = "vault.db"
FORMAT: Final = 1
IDENTITIES_MAX: Final = 100_000
PART_CHARS_MIN: Final = 6
"""A shorter identity is replaced only where it is the whole text: as a part it could be anything."""
BUSY_S: Final = 5.0
SYNCHRONOUS: Final = "EXTRA"
"""Also the removal of the rollback journal is synced: with less, a power failure brings it back, and it takes away a
pseudonym that a row names already."""
SECURE_DELETE: Final = True
"""What is deleted is overwritten, not only given free."""

_SCHEMA: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE identity(
  pseudonym TEXT PRIMARY KEY, identity TEXT NOT NULL UNIQUE, patient INTEGER NOT NULL, since_utc TEXT NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES('format', 1), ('erased_seq', 0);
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """One pseudonym whose identity is in the vault. `patient`: it was given with an order or has the form of one
    that was; otherwise it is some other code, scanned where a patient was expected."""

    pseudonym: str
    since_utc: str
    patient: bool

    def as_json(self) -> dict[str, object]:
        """Plain data, for machines."""
        return asdict(self)


class Vault:
    """The open vault of a running box; any thread may call it, one at a time gets its turn. Make it with
    `open_vault`."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection
        self._turn = threading.Lock()

    def take(self, identity: str, utc: str, *, patient: bool) -> str:
        """The pseudonym of `identity`, durable when this returns: the one it has, or a new one."""
        with self._using() as db:
            found = db.execute("SELECT pseudonym, patient FROM identity WHERE identity=?", (identity,)).get
            if found is None:
                name = self._new_pseudonym(db)
                db.execute("INSERT INTO identity VALUES(?,?,?,?)", (name, identity, int(patient), utc))
                return name
            if patient and not found[1]:
                db.execute("UPDATE identity SET patient=1 WHERE pseudonym=?", (found[0],))
            return str(found[0])

    def _new_pseudonym(self, db: apsw.Connection) -> str:
        if db.execute("SELECT count(*) FROM identity").get >= IDENTITIES_MAX:
            raise LinesideError(
                "vault.full",
                f"The vault holds {IDENTITIES_MAX:,} identities, the most that it may.",
                todo="Erase those that need not be kept: `lineside vault list`, then `lineside vault erase`.",
            )
        while True:  # one that is taken already comes once in 10^11 times
            name = pseudonym(secrets.token_bytes(RANDOM_BYTES))
            if not db.execute("SELECT 1 FROM identity WHERE pseudonym=?", (name,)).get:
                return name

    def identity(self, pseudonym: str) -> str | None:
        """The identity that `pseudonym` stands for; None when the vault does not hold it (any more)."""
        with self._using() as db:
            found = db.execute("SELECT identity FROM identity WHERE pseudonym=?", (pseudonym,)).get
            return None if found is None else str(found)

    def hide(self, text: str, *, parts: bool = True, others: bool = True) -> str:
        """`text` with pseudonyms in the place of identities that the vault knows: where one is the whole text, and
        with `parts` also where a patient's is a part of it. Without `others`, codes that were scanned where a patient
        was expected and are probably no patient's are let through: they may be right here."""
        with self._using() as db:
            whole = "SELECT pseudonym FROM identity WHERE identity=? AND patient>=?"
            found = db.execute(whole, (text.strip(), int(not others))).get
            if found:
                return str(found)
            if parts:
                inside = (
                    "SELECT identity, pseudonym FROM identity WHERE patient AND length(identity)>=? "
                    "AND instr(?, identity) ORDER BY length(identity) DESC"
                )
                for identity, name in db.execute(inside, (PART_CHARS_MIN, text)):
                    text = text.replace(str(identity), str(name))
            return text

    def erase(self, pseudonyms: Sequence[str], erased_seq: int) -> None:
        """Forget these identities: their bytes are nowhere in the file when this returns. `erased_seq` is the last
        row that says so."""
        with self._using() as db:
            with db:
                db.executemany("DELETE FROM identity WHERE pseudonym=?", [(name,) for name in pseudonyms])
            db.execute("VACUUM")  # also what moved within a page earlier: the file is written anew without gaps
            with db:
                db.execute("UPDATE meta SET value=? WHERE name='erased_seq'", (erased_seq,))

    def catch_up(self, erased_seq: int, event_at: Callable[[int], Event | None]) -> None:
        """Erase again what the journal says is erased and this file, which a crash or a restore left behind it, may
        still hold. `erased_seq` is the journal's last such row (0 without one), `event_at` reads a row.

        Raises `vault.behind` when one of these rows is not in the journal any more."""
        with self._using() as db:
            applied_seq = int(db.execute("SELECT value FROM meta WHERE name='erased_seq'").get)
        pseudonyms: list[str] = []
        seq = erased_seq
        while seq > applied_seq:
            event = event_at(seq)
            if not isinstance(event, IdentityErased):
                raise LinesideError(
                    "vault.behind",
                    f"The vault is older than row {seq}, which erased an identity and is not in the journal any more.",
                    effect="The runtime does not start: the vault may hold identities that were erased.",
                    todo="Use the vault that was saved together with this journal. Or move it away: then no scan "
                    "matches the patient of a batch under way.",
                    place=Place(str(self._path)),
                )
            pseudonyms.append(event.pseudonym)
            seq = event.previous_seq
        if erased_seq != applied_seq:
            self.erase(pseudonyms, erased_seq)

    def close(self) -> None:
        """Wait for whoever has a turn, and end; `open_vault` does it."""
        with self._turn:
            self._connection.close()

    @contextmanager
    def _using(self) -> Iterator[apsw.Connection]:
        with self._turn, _in_words(self._path):
            yield self._connection


@contextmanager
def open_vault(path: Path, *, vfs: str | None = None) -> Iterator[Vault]:
    """The vault at `path`, made when there is none. Raises `vault.unreadable` or `vault.cannot_write`."""
    with _in_words(path):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)
        connection = apsw.Connection(str(path), vfs=vfs)
    vault = Vault(path, connection)
    try:
        with _in_words(path):
            connection.set_busy_timeout(int(BUSY_S * 1000))
            for name, value in (
                ("journal_mode", "delete"),  # no second file outlives a transaction
                ("synchronous", SYNCHRONOUS),
                ("secure_delete", SECURE_DELETE),
                ("temp_store", "memory"),
            ):
                connection.pragma(name, value)
            if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
                with connection:
                    connection.execute(_SCHEMA)
            _check_format(connection, path)
        yield vault
    finally:
        vault.close()


def kept(path: Path) -> list[Kept]:
    """What the vault at `path` holds, without the identities, oldest first. The box may run."""
    with _reading(path) as db:
        rows = db.execute("SELECT pseudonym, since_utc, patient FROM identity ORDER BY since_utc, pseudonym")
        return [Kept(str(name), str(utc), bool(patient)) for name, utc, patient in rows]


def find(path: Path, identity: str) -> str | None:
    """The pseudonym of `identity` in the vault at `path`, None when it is not there. The box may run."""
    with _reading(path) as db:
        found = db.execute("SELECT pseudonym FROM identity WHERE identity=?", (identity.strip(),)).get
        return None if found is None else str(found)


def copy_vault(source: Path, target: Path) -> None:
    """Write a consistent copy of the vault, which may be in use, into the new file `target`; it is not synced."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _reading(source) as db:
        db.execute("VACUUM INTO ?", (str(target),))


@contextmanager
def _reading(path: Path) -> Iterator[apsw.Connection]:
    if not path.is_file():
        raise LinesideError(
            "vault.none",
            f"There is no vault at {path}.",
            todo="Check the box folder. A box has one from its first start on.",
            place=Place(str(path)),
        )
    with _in_words(path), closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        connection.set_busy_timeout(int(BUSY_S * 1000))
        _check_format(connection, path)
        yield connection


def _check_format(connection: apsw.Connection, path: Path) -> None:
    tables = {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    if not {"meta", "identity"} <= tables:
        raise _unreadable(path, "it is not a vault")
    found: Any = connection.execute("SELECT value FROM meta WHERE name='format'").get
    if found != FORMAT:
        raise _unreadable(path, f"its format is {str(found)[:20]}, and this version knows {FORMAT}")


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (apsw.NotADBError, apsw.CorruptError, apsw.SQLError) as error:
        raise _unreadable(path, str(error)) from error
    except (apsw.Error, OSError) as error:
        raise LinesideError(
            "vault.cannot_write",
            f"The vault {path} cannot be used: {error}.",
            effect="What was asked was not done. The batch goes on as it is.",
            todo="Look at `lineside disk status` and at the rights of the file, then try again.",
            place=Place(str(path)),
        ) from error


def _unreadable(path: Path, why: str) -> LinesideError:
    return LinesideError(
        "vault.unreadable",
        f"The vault {path} cannot be read: {why}.",
        todo="Restore it from a backup. Or move it away and keep it: a box starts without it, but then no scan matches "
        "the patient of a batch under way.",
        place=Place(str(path)),
    )
