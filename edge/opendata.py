"""Open data: the views as files that any program reads, in a form that stays.

A folder with one file for each table, and `datapackage.json` that describes them (Frictionless Data Package, Table
Schema): columns, types, meanings, keys, the version of the form and the row of the journal that all of it is as of.
What stays from version to version is written in docs/reference/open-data.md and held by tests/views/test_open_data.py.
"""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, Literal

import orjson

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.identity import sync_folder
from edge.views import ANY, TABLES, Snapshot, Table, snapshot

VERSION: Final = 2
"""The form that `schema` describes. Raise it with any change of a table or column that is handed out."""
DESCRIPTION: Final = "datapackage.json"
WITHHELD: Final = frozenset({"meta"})
"""Tables that are the views' own affair."""
Form = Literal["csv", "json"]
_TYPES: Final = {int: "integer", float: "number", str: "string", ANY: "any"}


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: as of which row, and how many lines of each table."""

    as_of_seq: int
    lines: dict[str, int]


def tables() -> dict[str, Table]:
    """What is handed out."""
    return {name: table for name, table in TABLES.items() if name not in WITHHELD}


def schema() -> dict[str, dict[str, str]]:
    """The form: each table's columns with their types."""
    return {
        name: {column: _TYPES[kind] for column, (kind, _) in table.columns.items()} for name, table in tables().items()
    }


def export(views: Path, out: Path, form: Form) -> Exported:
    """Write the tables of `views` into the new folder `out`: all of it, as of one row, or nothing.

    Raises `views.*`, `export.exists` or `export.cannot_write`."""
    out = out.absolute()
    if os.path.lexists(out):
        raise LinesideError(
            "export.exists", f"There is something at {out} already.", todo="Give the export a folder of its own."
        )
    with _in_words(out), tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as building:
        made = Path(building) / "made"
        made.mkdir()
        with snapshot(views, Path(building) / "views.db") as taken:
            lines = {name: _write(taken, name, made / f"{name}.{form}", form) for name in tables()}
            described = orjson.dumps(_description(taken, form), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        with (made / DESCRIPTION).open("xb") as file:
            file.write(described)
            _sync(file)
        sync_folder(made)
        made.rename(out)
        sync_folder(out.parent)
        return Exported(taken.as_of_seq, lines)


def _write(taken: Snapshot, name: str, path: Path, form: Form) -> int:
    columns = list(TABLES[name].columns)
    if form == "csv":
        return _write_csv(path, columns, taken.lines(name))
    return _write_json(path, columns, taken.lines(name))


def _write_csv(path: Path, columns: list[str], lines: Iterable[tuple[Any, ...]]) -> int:
    count = 0
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)  # as RFC 4180 says
        writer.writerow(columns)
        for line in lines:
            writer.writerow(line)  # nothing stands for NULL
            count += 1
        _sync(file)
    return count


def _write_json(path: Path, columns: list[str], lines: Iterable[tuple[Any, ...]]) -> int:
    """An array with one object a line, so that it can also be read line by line."""
    count = 0
    with path.open("xb") as file:
        file.write(b"[")
        for line in lines:
            file.write(b",\n" if count else b"\n")
            file.write(orjson.dumps(dict(zip(columns, line, strict=True))))
            count += 1
        file.write(b"\n]\n")
        _sync(file)
    return count


def _sync(file: IO[Any]) -> None:
    """A stick may be pulled at once."""
    file.flush()
    os.fsync(file.fileno())


def _description(taken: Snapshot, form: Form) -> dict[str, Any]:
    return {
        "profile": "tabular-data-package",
        "name": "lineside",
        "version": str(VERSION),
        "as_of_seq": taken.as_of_seq,
        "as_of_hash": taken.as_of_hash.hex(),
        "resources": [
            {
                "name": name,
                "path": f"{name}.{form}",
                "format": form,
                "encoding": "utf-8",
                "description": table.about,
                "schema": {
                    "fields": [
                        {"name": column, "type": _TYPES[kind], "description": meaning}
                        for column, (kind, meaning) in table.columns.items()
                    ],
                    "primaryKey": next(iter(table.columns)),
                    "missingValues": [""],
                },
            }
            for name, table in tables().items()
        ],
    }


@contextmanager
def _in_words(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinesideError(
            "export.cannot_write",
            f"{out} cannot be made: {error.strerror or error}.",
            effect="Nothing was put in place and nothing was overwritten.",
            todo="Check that its folder is there, that this user may write to it, and that the medium has space.",
        ) from error
