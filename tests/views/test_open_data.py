"""Open data: what was handed out once can be read by the same program later; all of it is as of one row."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import opendata
from edge.__main__ import app
from edge.core.errors import LinesideError
from edge.opendata import DESCRIPTION, VERSION, Form, export, schema, tables
from edge.views import ANY, Table, Views
from tests.core.parts import VirtualLine
from tests.views.test_views import a_batch, chained

KEPT = Path(__file__).parent / "open_data"
"""The form of each version that was handed out, by its number."""
READ_BACK = 2
"""A program written for the version so many before this one still reads all that it read."""
Schema = dict[str, dict[str, str]]
READ: dict[str, Callable[[str], object]] = {"integer": int, "number": float, "string": str, "any": str}


def kept() -> dict[int, Schema]:
    return {int(path.stem): json.loads(path.read_bytes()) for path in sorted(KEPT.glob("*.json"))}


def assert_contract(now: Schema, version: int, former: dict[int, Schema]) -> None:
    for number, form in former.items():
        if number < version - READ_BACK:
            continue
        for table, columns in form.items():
            for column, kind in columns.items():
                assert now.get(table, {}).get(column) == kind, (
                    f"{table}.{column} ({kind}) of version {number} is gone or of another type: a program that reads "
                    f"it breaks. It may go from version {number + READ_BACK + 1} on."
                )
    newest = max(former)
    assert version >= newest
    if now != former[newest]:
        assert version > newest, (
            f"Tables or columns are not those of version {newest}: raise VERSION in edge/opendata.py to {newest + 1}. "
            f"With a release the new form is kept: tests/views/open_data/{newest + 1}.json."
        )


def test_what_was_handed_out_stays_for_two_versions() -> None:
    assert_contract(schema(), VERSION, kept())


def without(column: str) -> Schema:
    return {**schema(), "value": {name: kind for name, kind in schema()["value"].items() if name != column}}


def renamed(old: str, new: str) -> Schema:
    return {**schema(), "value": {new if name == old else name: kind for name, kind in schema()["value"].items()}}


@pytest.mark.parametrize(
    ("now", "version", "says"),
    [
        (without("unit"), VERSION, "value.unit (string) of version 1 is gone"),
        (without("unit"), 1 + READ_BACK, "may go from version 4 on"),
        (renamed("unit", "units"), VERSION, "value.unit"),
        ({**schema(), "value": {**schema()["value"], "seq": "string"}}, VERSION, "value.seq"),
        ({**schema(), "value": {**schema()["value"], "new": "string"}}, 1, "raise VERSION"),
    ],
    ids=["removed", "removed two versions later", "renamed", "of another type", "added"],
)
def test_planted_changes_of_the_form_are_seen(now: Schema, version: int, says: str) -> None:
    with pytest.raises(AssertionError) as error:
        assert_contract(now, version, {1: kept()[1]})
    assert says in str(error.value)


def test_a_column_may_go_after_two_versions() -> None:
    assert_contract(without("unit"), 1 + READ_BACK + 1, {1: kept()[1]})


# The files ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    line = VirtualLine()
    a_batch(line, random.Random(5))
    path = tmp_path_factory.mktemp("views") / "views.db"
    rows = chained(line.rows)
    with Views(path) as made:
        made.apply(0, rows)
    return path


def lines_of(folder: Path, table: str, form: Form) -> Iterator[dict[str, Any]]:
    """As a program reads them that knows nothing of Lineside."""
    if form == "json":
        yield from json.loads((folder / f"{table}.json").read_bytes())
        return
    with (folder / f"{table}.csv").open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_a_program_of_each_kept_version_reads_todays_export(views: Path, tmp_path: Path, form: Form) -> None:
    out = tmp_path / "out"
    made = export(views, out, form)
    described = json.loads((out / DESCRIPTION).read_bytes())
    assert (described["version"], described["as_of_seq"]) == (str(VERSION), made.as_of_seq)
    assert {each["path"] for each in described["resources"]} | {DESCRIPTION} == {path.name for path in out.iterdir()}
    for number, program in kept().items():
        if number < VERSION - READ_BACK:
            continue
        for table, columns in program.items():
            lines = list(lines_of(out, table, form))
            assert len(lines) == made.lines[table]
            for line in lines:
                for column, kind in columns.items():
                    if line[column] not in {"", None}:
                        READ[kind](line[column])
    assert made.lines["batch"] == 1
    assert all(made.lines[name] > 0 for name in ("step", "value", "command", "exception", "signature", "state_change"))
    assert made.lines["row"] == made.as_of_seq


def test_the_description_is_that_of_the_files(views: Path, tmp_path: Path) -> None:
    export(views, tmp_path / "out", "csv")
    described = json.loads((tmp_path / "out" / DESCRIPTION).read_bytes())
    for each in described["resources"]:
        with (tmp_path / "out" / each["path"]).open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file))
        fields = each["schema"]["fields"]
        assert header == [field["name"] for field in fields]
        assert {field["name"]: field["type"] for field in fields} == schema()[each["name"]]
        assert all(field["description"] for field in fields)
        assert each["schema"]["primaryKey"] == header[0]


def test_both_formats_say_the_same(views: Path, tmp_path: Path) -> None:
    for form in ("csv", "json"):
        export(views, tmp_path / form, form)
    for table in tables():
        as_csv = list(lines_of(tmp_path / "csv", table, "csv"))
        as_json = list(lines_of(tmp_path / "json", table, "json"))
        assert as_csv == [{name: "" if v is None else str(v) for name, v in line.items()} for line in as_json]


def test_nothing_is_overwritten_and_nothing_is_left_half(
    views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "here" / "out"
    with pytest.raises(LinesideError, match=r"export\.cannot_write"):
        export(views, out, "csv")
    out.parent.mkdir()
    with pytest.raises(LinesideError, match=r"views\.absent"):
        export(tmp_path / "no.db", out, "csv")
    (tmp_path / "no.db").write_bytes(b"SQLite format 3\0" + bytes(500))
    with pytest.raises(LinesideError, match=r"views\.old"):
        export(tmp_path / "no.db", out, "csv")
    with monkeypatch.context() as context:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        context.setattr(opendata, "_sync", full)
        with pytest.raises(LinesideError, match=r"export\.cannot_write.*No space left"):
            export(views, out, "json")
    assert list(out.parent.iterdir()) == []
    export(views, out, "csv")
    with pytest.raises(LinesideError, match=r"export\.exists"):
        export(views, out, "json")


def test_the_command_writes_it(views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from edge.config import Config

    at = tmp_path / "box"
    config = Config(
        folder=at, box="B", state_dir=views.parent, plant=at / "plant.yaml", recipes=at,
        directory=at / "directory.toml", device_key=at / "device.key", desk_socket=at / "desk.sock",
    )  # fmt: skip
    monkeypatch.setattr("edge.config.read_config", lambda _: config)
    done = CliRunner().invoke(app, ["views", "export", str(tmp_path / "out"), "--format", "json", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["lines"]["batch"] == 1
    assert said["as_of_seq"] == said["lines"]["row"]


def test_every_kind_of_column_has_a_name_for_others() -> None:
    kinds = {kind for table in tables().values() for kind, _ in table.columns.values()}
    assert kinds == {int, float, str, ANY}
    assert all(isinstance(table, Table) for table in tables().values())
