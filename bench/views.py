"""Making the views anew from a journal, against inserting the same lines, ready-made, with their full-text index."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import Figure, Say
from bench.journal import BODY
from edge.core.events import RowBody
from edge.journal import JournalReader, open_journal
from edge.views import ROWS_AT_ONCE, Views, search

ROWS = 50_000
ROUNDS = 3


def measure(say: Say) -> list[Figure]:
    """Rows a second of a rebuild, bytes a row, and the time of a search afterwards."""
    with TemporaryDirectory(dir="build") as folder:
        journal, path = Path(folder, "journal.db"), Path(folder, "views.db")
        say(f"writing a journal of {ROWS:,} rows")
        asyncio.run(_write(journal))
        rates, raw_rates, searches = [], [], []
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}")
            begun_s = time.perf_counter()
            with JournalReader(journal) as reader, Views(path) as views:
                views.begin_anew()
                seq = 0
                while rows := reader.rows(seq, ROWS_AT_ONCE):
                    seq = views.apply(seq, rows)
            rates.append(ROWS / (time.perf_counter() - begun_s))
            raw_rates.append(_raw(path, Path(folder, "raw.db")))
            begun_s = time.perf_counter()
            assert len(search(path, "temperature 37.02", 50).rows) == 50
            searches.append((time.perf_counter() - begun_s) * 1000)
        size = path.stat().st_size / ROWS
        return [
            Figure("rebuild", median(rates), "rows/s", raw=median(raw_rates)),
            Figure("views.db", size, "bytes/row"),
            Figure("search, newest 50 of all rows", median(searches), "ms"),
        ]


async def _write(path: Path) -> None:
    async with open_journal(path, path.with_name("epoch")) as journal:
        for bodies in _bodies():
            await journal.append(bodies).durable()


def _bodies() -> Iterator[list[RowBody]]:
    for first in range(0, ROWS, 1000):
        yield [replace(BODY, event=replace(BODY.event, command_id=f"c-{n}")) for n in range(first, first + 1000)]


def _raw(views: Path, path: Path) -> float:
    """The same lines of the tables that grow, read out of the finished file, in transactions of the same size."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(views)) as finished, closing(sqlite3.connect(path)) as raw:
        for (sql,) in finished.execute(
            "SELECT sql FROM sqlite_schema WHERE tbl_name IN ('row', 'value') OR name='row_fts' ORDER BY rowid"
        ):
            raw.execute(sql)
        rows = finished.execute("SELECT * FROM row ORDER BY seq").fetchall()
        values = finished.execute("SELECT * FROM value ORDER BY seq").fetchall()
        begun_s = time.perf_counter()
        for first in range(0, ROWS, ROWS_AT_ONCE):
            part = slice(first, first + ROWS_AT_ONCE)
            raw.executemany(f"INSERT INTO row VALUES({','.join('?' * len(rows[0]))})", rows[part])
            raw.executemany(f"INSERT INTO value VALUES({','.join('?' * len(values[0]))})", values[part])
            raw.executemany(
                "INSERT INTO row_fts(rowid, actor, kind, batch, text) VALUES(?,?,?,?,?)",
                [(seq, *searched) for seq, _, *searched in rows[part]],
            )
            raw.commit()
        return ROWS / (time.perf_counter() - begun_s)
