"""A copy of the hub's store, made while the hub runs. Rows count as safe once the copy was read back and verified.

The order matters: copied, on the medium, read back, verified from every body to every head, given its name, recorded.
A backup that ends before leaves the former copy as it was, and nothing counts that did not count before.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from edge.core.errors import LinesideError
from edge.core.record import Signer
from hub.config import HubConfig, read_key
from hub.store import COPIED, Copied, Store, utc_now

PAGES_AT_ONCE: Final = 2_048
WAIT_S: Final = 60.0
"""For the hub's transaction under way, to record what is safe."""
Tell = Callable[[str, int, int], None]
"""What is counted, how many are done, of how many."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A verified copy. `rows` and `boxes` are what it holds."""

    path: str
    utc: str
    rows: int
    boxes: int
    bytes: int


async def back_up(config: HubConfig, to: Path, tell: Tell) -> Backup:
    """Copy the store to the file `to` on another medium, verify the copy, and record in the store what is safe by it.

    Raises `hub.backup_*` in words; `to` is then as it was before, or the whole new copy."""
    to, signer = to.absolute(), read_key(config)
    _check_place(config.database, to)
    partial = to.with_name(f".{to.name}.partial")
    with _alone(to):
        try:
            partial.unlink(missing_ok=True)  # of a backup that was killed
            utc = utc_now()
            await asyncio.to_thread(_copy, config.database, partial, utc, tell)
            await asyncio.to_thread(_to_medium, partial)
            verified, boxes, rows = await _verify(partial, signer, utc, tell)
            if to.exists():
                await _keeps_all_of(to, partial, signer)
            partial.replace(to)
            await asyncio.to_thread(_to_medium, to.parent)
            async with _store(URL.create("sqlite+aiosqlite", database=str(config.database)), signer) as store:
                await store.record_copy(verified)
        except (OSError, DBAPIError) as error:
            raise _failed(to, str(getattr(error, "orig", error))) from error
        finally:
            with contextlib.suppress(OSError):  # the next backup removes it, and this one may have failed for the same
                partial.unlink(missing_ok=True)
    return Backup(str(to), utc, rows, boxes, to.stat().st_size)


def _check_place(database: Path, to: Path) -> None:
    """Raises `hub.backup_place`: a copy beside the original is lost with it."""
    if not database.is_file():
        why, todo = f"There is no hub's database {database} to copy", "Name the hub's folder with --hub."
    elif not to.parent.is_dir():
        why = f"There is no folder {to.parent}"
        todo = "Put the medium in. On a new one make the folder: it is never made by itself."
    elif to.exists() and not to.is_file():
        why, todo = f"{to} is no file", "Name the file to write, for example /media/hub/hub.db."
    elif to.parent.stat().st_dev == database.stat().st_dev:
        why = f"{to.parent} is on the same medium as the hub's database, and would be lost with it"
        todo = "Name a file on another disk or on another machine's share."
    else:
        return
    raise LinesideError("hub.backup_place", f"{why}.", effect="Nothing was copied, and nothing became safe.", todo=todo)


@contextlib.contextmanager
def _alone(to: Path) -> Iterator[None]:
    try:
        lock = os.open(to.with_name(f".{to.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed(to, error.strerror or str(error)) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LinesideError(
                "hub.backup_running",
                f"Another backup to {to} is under way.",
                effect="That one goes on; this one was not started.",
                todo="Wait until it has ended.",
            ) from error
        yield
    finally:
        os.close(lock)


def _copy(database: Path, partial: Path, utc: str, tell: Tell) -> None:
    """All pages as of one moment, while the hub goes on writing; marked as a copy."""
    source_engine = create_engine(_read_only("sqlite", database), poolclass=NullPool)
    target_engine = create_engine(URL.create("sqlite", database=str(partial)), poolclass=NullPool)
    driver_error: type[Exception] = source_engine.dialect.loaded_dbapi.Error
    try:
        with (
            contextlib.closing(source_engine.raw_connection()) as source,
            contextlib.closing(target_engine.raw_connection()) as target,
        ):
            one_moment, copy = source.cursor(), target.cursor()
            one_moment.execute("BEGIN")
            one_moment.execute("SELECT count(*) FROM meta")
            assert source.driver_connection is not None
            source.driver_connection.backup(
                target.driver_connection,
                pages=PAGES_AT_ONCE,
                progress=lambda _status, left, total: tell("pages copied", total - left, total),
            )
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without others beside it
            copy.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (COPIED, utc))
            target.commit()
            source.rollback()
    except driver_error as error:
        raise _failed(partial, str(error)) from error


def _to_medium(path: Path) -> None:
    """Durable, and read from the medium the next time, not from memory."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(opened)


async def _verify(partial: Path, signer: Signer, utc: str, tell: Tell) -> tuple[Copied, int, int]:
    """What the copy holds, from its rows alone, with how many boxes and rows. Raises `hub.backup_damaged`."""
    done, heads, devices = 0, [], set()
    async with _store(_read_only("sqlite+aiosqlite", partial), signer) as copy:
        total = sum(chain.stored_seq - chain.base_seq + 1 for chain in await copy.chains())

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            tell("rows verified", done, total)

        async for one in copy.verify(on_rows):
            if one.fault is not None:
                raise LinesideError(
                    "hub.backup_damaged",
                    f"The copy does not hold, at row {one.fault.seq} of device {one.chain.device}: {one.fault.why}",
                    effect="The copy was removed, the former one stays, and nothing became safe.",
                    todo="Verify what the hub holds on its web page. If that holds, look at the copy's medium.",
                )
            heads.append((one.chain.id, one.chain.stored_seq, bytes.fromhex(one.chain.head_hash)))
            devices.add(one.chain.device)
        return Copied(copy.incarnation, tuple(heads), utc), len(devices), done


async def _keeps_all_of(former: Path, partial: Path, signer: Signer) -> None:
    """Raises `hub.backup_loses` when the former copy has rows that this one has not: a hub that lost its rows does not
    write over the copy that has them."""
    try:
        async with (
            _store(_read_only("sqlite+aiosqlite", former), signer) as old,
            _store(_read_only("sqlite+aiosqlite", partial), signer) as new,
        ):
            lost = [chain for chain in await old.chains() if not await new.holds(chain)]
            row = f"row {lost[0].stored_seq} of device {lost[0].device}" if lost else ""
    except DBAPIError as error:
        why = f"is no copy that can be read ({error.orig})"
    else:
        why = f"has {row}, and the hub has not" if row else ""
    if why:
        raise LinesideError(
            "hub.backup_loses",
            f"{former} {why}.",
            effect="It stays as it is; nothing became safe.",
            todo="Keep it, and name another file for the backup.",
        )


def _read_only(driver: str, path: Path) -> URL:
    return URL.create(driver, database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"})


@contextlib.asynccontextmanager
async def _store(url: URL, signer: Signer) -> AsyncIterator[Store]:
    """A store beside the hub's own, which may be at work on it."""
    engine = create_async_engine(url, connect_args={"timeout": WAIT_S})
    try:
        async with engine.connect() as connection:
            incarnation = await connection.scalar(text("SELECT value FROM meta WHERE key = 'incarnation'"))
        yield Store(engine, signer, str(incarnation))
    finally:
        await engine.dispose()


def _failed(to: Path, why: str) -> LinesideError:
    return LinesideError(
        "hub.backup_failed",
        f"The backup to {to} did not come about: {why}.",
        effect="The former copy stays, and nothing became safe that was not.",
        todo="Check the medium: space, permissions, errors. Then make the backup again.",
    )
