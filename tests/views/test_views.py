"""views.db: it says what the journal says, at any row, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import views as module
from edge.__main__ import main
from edge.config import Config
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.events import RowBody, ValueRecorded, decode
from edge.core.record import ZERO_HASH, Row, row_hash
from edge.core.review import as_built, as_text, batch_record
from edge.core.terms import Act, ClockQuality, Role, Stamp
from edge.follow import follow
from edge.identity import DeviceKey
from edge.journal import open_journal
from edge.views import TABLES, Views, search
from provisioning.device import init_device
from tests.core import test_by_hand as on_hand
from tests.core.parts import VirtualLine
from tests.core.test_expiry import enter_dark, waiting_without_a_clock

JOURNAL, EPOCH = b"j" * 16, b"e" * 16
AT = Stamp("2026-11-21T10:00:00.000000Z", ClockQuality.SYNCED, 1.0, "boot")


def chained(bodies: list[bytes], first: int = 1, previous: bytes = ZERO_HASH) -> list[Row]:
    rows = []
    for seq, body in enumerate(bodies, first):
        previous = row_hash(JOURNAL, EPOCH, seq, previous, body)
        rows.append(Row(seq, EPOCH, previous, body))
    return rows


def a_batch(line: VirtualLine, choose: random.Random) -> None:
    """One batch with what can happen on its way: faults, answers, limits, a crash, an abort."""
    line.start()
    for step in ("020", "030", "040", "060", "070"):
        line.to_step(step)
        if choose.random() < 0.1:
            line.do(cm.ActOnBatch(session="S", batch="B1", act=Act.ABORT, reason="a leak"))
            line.conclude("safe-state", "confirmed")
            return
        if choose.random() < 0.15:
            line.crash()
            return
        if step == "020" and choose.random() < 0.5:
            line.scan("020", "=OTHER")
        if step == "030" and (outcome := choose.choice(["confirmed", "refused", "unknown"])) != "confirmed":
            line.conclude("030", outcome)
            (question,) = line.batch().questions.values()
            answer = choose.choice(question.answers)
            line.answer(question.question, answer)
            if answer == "abort":
                return
            if answer == "again":
                line.conclude("030", "confirmed", attempt=2)
        if step == "060":
            if choose.random() < 0.7:
                line.note("052", "outside", 39.0)
                line.note("052", "inside", 37.0)
            line.enter("060", choose.choice(["91.5", "50"]))


def some_rows(seed: int) -> list[Row]:
    line = VirtualLine()
    with contextlib.suppress(AssertionError, KeyError, LinesideError):
        # A random act that the line refused: what it made up to here is a journal as good as any.
        a_batch(line, random.Random(seed))
    return chained(line.rows)


def whole_batch() -> list[Row]:
    line = VirtualLine()
    line.start()
    line.to_step("070")
    return chained(line.rows)


def everything(path: Path) -> dict[str, list[tuple]]:
    with closing(sqlite3.connect(path)) as db:
        tables = {name: db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in TABLES}
        db.execute("INSERT INTO row_fts(row_fts, rank) VALUES('integrity-check', 1)")
        return tables


def rebuilt(path: Path, rows: list[Row]) -> dict[str, list[tuple]]:
    with Views(path) as views:
        assert views.apply(0, rows) == len(rows)
    return everything(path)


def code_of(act) -> str:
    with pytest.raises(LinesideError) as caught:
        act()
    return caught.value.code


def test_what_people_did_in_place_of_a_write_stands_among_the_commands_and_in_the_report(tmp_path):
    line = on_hand.made(on_hand.SET)
    line.conclude("010", "unknown")
    on_hand.bad(line)
    on_hand.take(line)
    on_hand.both(line, "37")
    rows = rebuilt(tmp_path / "views.db", chained(line.rows))["command"]
    names = list(TABLES["command"].columns)
    said = [dict(zip(names, row, strict=True)) for row in rows]
    assert [(one["attempt"], one["outcome"], one["answer"]) for one in said] == [
        (1, "unknown", "by hand"), (0, "by hand", "")
    ]  # fmt: skip
    assert (said[1]["tag"], said[1]["value"], said[1]["reading"]) == ("BR-1.setpoint", 37.0, 37.0)
    assert said[1]["why"] == "entered by ana, verified by ben"
    built = batch_record(((seq, decode(data)) for seq, data in enumerate(line.rows, 1)), "B1")
    assert "wrote 37.0 degC to BR-1.setpoint: by hand, read 37.0 entered by ana, verified by ben" in as_text(built)


def test_a_time_off_that_two_people_entered_has_a_line(tmp_path):
    line = waiting_without_a_clock()
    for minutes in (31, 30):
        enter_dark(line, 30, "ana", Role.OPERATOR)
        enter_dark(line, minutes, "ben", Role.VERIFIER, verifies=True)
    names = list(TABLES["command"].columns)
    differed, said = rebuilt(tmp_path / "views.db", chained(line.rows))["command"]
    assert "refused" in differed
    one = dict(zip(names, said, strict=True))
    facts = (one["step"], one["attempt"], one["tag"], one["value"], one["unit"], one["outcome"])
    assert facts == ("", 0, "", 30, "min", "by hand")
    assert one["why"] == "entered by ana, verified by ben"


# What they say -------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), sizes=st.lists(st.integers(1, 20), min_size=1, max_size=6), again=st.booleans())
def test_applied_in_pieces_they_are_as_rebuilt_and_as_the_record(tmp_path, seed, sizes, again):
    rows = some_rows(seed)
    path = tmp_path / "pieces.db"
    path.unlink(missing_ok=True)
    views, seq, n = Views(path), 0, 0
    while seq < len(rows):
        piece = rows[seq : seq + sizes[n % len(sizes)]]
        n += 1
        before, seq = seq, views.apply(seq, piece)
        assert seq == piece[-1].seq
        assert views.applied() == (seq, piece[-1].hash)
        if again:  # the process went before it was told, and another does the same again
            views.close()
            views = Views(path)
            assert views.apply(before, piece) == seq
    views.close()
    whole = tmp_path / "whole.db"
    whole.unlink(missing_ok=True)
    assert everything(path) == rebuilt(whole, rows)
    same_as_the_record(path, rows)


def same_as_the_record(path: Path, rows: list[Row]) -> None:
    """The record is folded by other code, from the same rows."""
    records = as_built((row.seq, decode(row.body)) for row in rows)
    with closing(sqlite3.connect(path)) as db:
        ask = lambda sql, *values: db.execute(sql, values).fetchall()  # noqa: E731
        assert ask("SELECT count(*) FROM batch") == [(len(records),)]
        for name, record in records.items():
            assert ask(
                "SELECT order_id, patient, recipe, version, seal, state, started_utc, started_by, ended_utc, "
                "exceptions, speed, as_of_seq FROM batch WHERE batch=?", name,
            ) == [(
                record.order, record.patient, record.recipe, record.version, record.seal, record.state,
                record.started_utc, record.started_by, record.ended_utc, len(record.exceptions), record.speed,
                record.as_of_seq,
            )]  # fmt: skip
            steps = [step for step in record.steps if step.phase != "safe state"]
            assert ask(
                "SELECT step, title, phase, state, began_utc, ended_utc, person FROM step WHERE batch=? ORDER BY seq",
                name,
            ) == [(s.step, s.title, s.phase, s.state, s.began_utc, s.ended_utc, s.person) for s in steps]
            assert ask(
                "SELECT step, name, value, unit, source, low, high, within, person FROM value WHERE batch=?", name
            ) == [
                (s.step, d.name, d.value, d.unit, d.source, d.low, d.high, d.within, d.person)
                for s in record.steps
                for d in s.data
            ]
            columns = "step, attempt, tag, value, unit, outcome, reading, why, answer"
            written = [
                (s.step, w.attempt, w.tag, w.value or None, w.unit, w.outcome, w.reading, w.why, w.answer)
                for s in record.steps
                for w in s.written
            ]
            assert sorted(ask(f"SELECT {columns} FROM command WHERE batch=?", name), key=repr) == sorted(
                written, key=repr
            )
            assert ask("SELECT step, person, role, meaning, subject_seq FROM signature WHERE batch=?", name) == [
                (s.step, g.person, g.role, g.meaning, g.subject_seq) for s in record.steps for g in s.signatures
            ]
            assert ask("SELECT exception, step, category, code, what FROM exception WHERE batch=?", name) == [
                (x.exception, x.step, x.category, x.code, x.what) for x in record.exceptions
            ]
            assert ask("SELECT was, now, cause, reason FROM state_change WHERE batch=?", name) == [
                (c.was, c.now, c.cause, c.reason) for c in record.states
            ]


def test_the_random_batches_hold_what_can_happen():
    kinds = {type(decode(row.body).event).__name__ for seed in range(60) for row in some_rows(seed)}
    assert {
        "CommandConfirmed", "CommandRefused", "CommandUnknown", "QuestionAnswered", "ExceptionRaised", "SignatureMade",
        "ScanRefused", "StepCompleted", "StepEnded", "ValueRecorded", "BatchStateChanged", "RuntimeStarted",
    } <= kinds  # fmt: skip


def test_values_stay_what_they_were(tmp_path):
    given = [37.5, 37, "37", "037", True, 2**70, -(2**63), "", "a\x00b"]
    bodies = [
        module.ev.encode(
            RowBody(ValueRecorded(batch="B", step="1", name=f"v{n}", value=value, source="entered"), AT, "ana")
        )
        for n, value in enumerate(given)
        if value != 2**70
    ]
    bodies.append(bodies[0].replace(b"37.5", b"1180591620717411303424.0").replace(b"v0", b"v5"))
    rebuilt(tmp_path / "views.db", chained(bodies))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        got = dict(db.execute("SELECT name, value FROM value"))
    assert [got[f"v{n}"] for n in range(9)] == [37.5, 37, "37", "037", "true", 2.0**70, str(-(2**63)), "", "a\x00b"]
    assert type(got["v0"]) is float
    assert type(got["v1"]) is int


def test_a_calculated_value_says_its_formula_and_what_went_into_it(tmp_path):
    inputs = [
        {"name": "titer", "value": 4.0, "unit": "g/L", "quality": "good", "source": "step 085"},
        {"name": "harvested", "value": 126.0, "unit": "L", "quality": "good", "source": "step 080/020"},
    ]
    given = {"batch": "B", "step": "090", "name": "yield_mass", "value": 504.0, "unit": "g", "source": "calculated"}
    entered = {**given, "name": "titer", "value": 4.0, "source": "entered"}
    bodies = [
        module.ev.encode(RowBody(ValueRecorded(**facts), AT, "lineside"))
        for facts in ({**given, "formula": "titer * harvested", "inputs": inputs}, entered)
    ]
    rebuilt(tmp_path / "views.db", chained(bodies))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        asked = "SELECT name, value, formula, inputs FROM value ORDER BY seq"
        (calculated, typed) = db.execute(asked).fetchall()
        parts = db.execute(
            "SELECT json_extract(one.value, '$.name'), json_extract(one.value, '$.value') "
            "FROM value, json_each(value.inputs) AS one WHERE value.formula != ''"
        ).fetchall()
    assert calculated[:3] == ("yield_mass", 504.0, "titer * harvested")
    assert orjson.loads(calculated[3]) == inputs
    assert typed == ("titer", 4.0, "", "")
    assert parts == [("titer", 4.0), ("harvested", 126.0)]


def test_a_kind_from_another_version_is_searchable_and_nothing_else(tmp_path):
    deep = b'{"kind":"Deep","at":1,"actor":[],"batch":"B-9","facts":' + b"[" * 900 + b'"bottom"' + b"]" * 900 + b"}"
    bodies = [
        orjson.dumps(
            {"kind": "NewThing", "v": 7, "at": vars(AT), "actor": "ana", "batch": "B-9", "facts": {"colour": "teal"}}
        ),
        b"\xff no JSON",
        b'["list"]',
        deep,
    ]
    rows = chained(bodies)
    tables = rebuilt(tmp_path / "views.db", rows)
    assert tables["row"][0] == (1, AT.utc, "ana", "NewThing", "B-9", "teal")
    assert [row[0] for row in tables["row"]] == [1, 2, 3, 4]
    assert all(not tables[name] for name in TABLES if name not in {"row", "meta"})
    assert [row.seq for row in search(tmp_path / "views.db", "bottom", 5).rows] == [4]


# How they are kept ---------------------------------------------------------------------------------------------------


def _apply_until_killed(path: Path, rows: list[Row], applied) -> None:
    with Views(path) as views:
        seq = 0
        while seq < len(rows):
            seq = views.apply(seq, rows[seq : seq + 1])
            applied.value = seq


def _kill_while_applying(path: Path, rows: list[Row], at: int, apart: bool) -> None:
    context = multiprocessing.get_context("fork")
    applied = context.Value("i", 0)
    if apart:
        tell = module._tell_applied

        def tell_apart(db, row):
            """The planted bug: what was applied is said in a transaction of its own."""
            db.conn.commit()
            if row.seq == at:
                os.kill(os.getpid(), signal.SIGKILL)
            db.conn.execute("BEGIN")
            tell(db, row)

        module._tell_applied, before = tell_apart, tell
    else:
        apply_event = module._apply_event

        def kill_within(db, seq, body):
            apply_event(db, seq, body)
            if seq == at:
                os.kill(os.getpid(), signal.SIGKILL)

        module._apply_event, before = kill_within, apply_event
    try:
        process = context.Process(target=_apply_until_killed, args=(path, rows, applied))
        process.start()
        process.join()
    finally:
        if apart:
            module._tell_applied = before
        else:
            module._apply_event = before
    assert process.exitcode == -signal.SIGKILL
    assert applied.value == at - 1


@pytest.mark.parametrize("apart", [False, True], ids=["as it is", "planted: applied_seq in its own transaction"])
def test_killed_between_rows_and_applied_seq_they_agree(tmp_path, apart):
    rows = whole_batch()
    at = len(rows) // 2
    _kill_while_applying(tmp_path / "views.db", rows, at, apart)
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        (said,) = db.execute("SELECT value FROM meta WHERE name='applied_seq'").fetchone()
        (there,) = db.execute("SELECT max(seq) FROM row").fetchone()
    assert (said == there) is not apart  # the judge sees the planted bug
    if apart:
        return
    with Views(tmp_path / "views.db") as views:
        assert views.apply(views.applied()[0], rows[views.applied()[0] :]) == len(rows)
    assert everything(tmp_path / "views.db") == rebuilt(tmp_path / "whole.db", rows)


def _old(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value='0123456789abcdef' WHERE name='schema'")
        db.commit()


def _without_a_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE batch DROP COLUMN seal")
        db.commit()


def _of_somebody_else(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE song(name)")
        db.commit()


def _with_a_stale_journal(path: Path) -> None:
    path.with_name("views.db-journal").write_bytes(os.urandom(4096))
    path.write_bytes(b"")


DAMAGES = {
    "old": _old,
    "without a column": _without_a_column,
    "foreign": _of_somebody_else,
    "no database": lambda path: path.write_bytes(b"no database at all" * 1000),
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: os.truncate(path, 5000),
    "stale journal": _with_a_stale_journal,
    "WAL": lambda path: subprocess.run(["sqlite3", path, "PRAGMA journal_mode=WAL"], check=True, capture_output=True),
}


def fill(path: Path, rows: list[Row]) -> None:
    """As the follower does it: again from what is there, also after damage was found."""
    for _ in range(3):
        try:
            with Views(path) as views:
                seq, row_hash_ = views.applied()
                assert row_hash_ == (rows[seq - 1].hash if seq else ZERO_HASH)
                while seq < len(rows):
                    seq = views.apply(seq, rows[seq : seq + 7])
                return
        except LinesideError as error:
            assert error.code == "views.damaged"
    raise AssertionError("damaged again and again")


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_is_wrong_with_the_file_it_is_made_anew(tmp_path, damage):
    if damage is DAMAGES["WAL"] and shutil.which("sqlite3") is None:
        pytest.skip("sqlite3 is not installed")
    path, rows = tmp_path / "views.db", whole_batch()
    wanted = rebuilt(tmp_path / "whole.db", rows)
    rebuilt(path, rows)
    damage(path)
    fill(path, rows)
    assert everything(path) == wanted
    assert search(path, "ORD-1", 5).as_of_seq == len(rows)


def test_damage_found_while_applying_begins_them_anew(tmp_path):
    """Every page but the first is overwritten: opening alone does not see it."""
    path, rows = tmp_path / "views.db", whole_batch()
    rebuilt(path, rows[:20])
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data)):
        data[at] ^= 0x5A
    path.write_bytes(data)
    assert code_of(lambda: search(path, "ORD-1", 5)) == "views.old"
    fill(path, rows)
    assert everything(path) == rebuilt(tmp_path / "whole.db", rows)


def test_who_writes_notices_that_another_began_them_anew(tmp_path):
    path, rows = tmp_path / "views.db", whole_batch()
    with Views(path) as follower, Views(path) as rebuild:
        assert follower.apply(0, rows[:10]) == 10
        rebuild.begin_anew()
        assert follower.apply(10, rows[10:20]) == 0  # nothing is left out
        assert rebuild.apply(0, rows[:5]) == 5
        assert follower.apply(0, rows[:10]) == 10
        assert rebuild.apply(5, rows[5:8]) == 10
        assert follower.apply(10, rows[10:]) == len(rows)
    assert everything(path) == rebuilt(tmp_path / "whole.db", rows)


def test_a_tool_that_holds_the_file_and_a_folder_that_is_none_are_said_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUSY_S", 0.05)
    path, rows = tmp_path / "views.db", whole_batch()
    with Views(path) as views:
        with closing(sqlite3.connect(path)) as tool:
            tool.execute("BEGIN EXCLUSIVE")
            assert code_of(lambda: views.apply(0, rows)) == "views.unusable"
            assert code_of(lambda: search(path, "ORD-1", 5)) == "views.unusable"
        assert views.apply(0, rows) == len(rows)
    with Views(path) as one, one._locked():
        assert code_of(lambda: Views(path)) == "views.unusable"
    assert code_of(lambda: Views(tmp_path / "absent" / "views.db")) == "views.unusable"
    (tmp_path / "folder.db").mkdir()
    assert code_of(lambda: Views(tmp_path / "folder.db")) == "views.unusable"
    assert code_of(lambda: search(tmp_path / "none.db", "x", 5)) == "views.absent"


# The schema ----------------------------------------------------------------------------------------------------------


def test_the_file_has_the_tables_of_the_page_for_any_tool(tmp_path):
    path = tmp_path / "views.db"
    rebuilt(path, whole_batch())
    page = (Path(__file__).parents[2] / "docs/reference/views.md").read_text()
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        assert {name for name in names if not name.startswith("row_fts")} == set(TABLES)
        for name in TABLES:
            section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
            for _, column, *_ in db.execute(f"PRAGMA table_info({name})"):
                assert f"| `{column}` |" in section
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="sqlite3 is not installed")
def test_the_sqlite_shell_reads_it_while_it_is_open(tmp_path):
    rows = whole_batch()
    with Views(tmp_path / "views.db") as views:
        views.apply(0, rows)
        ask = ["sqlite3", "-readonly", "-json", tmp_path / "views.db", "SELECT batch, order_id FROM batch"]
        done = subprocess.run(ask, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [{"batch": "B1", "order_id": "ORD-1"}]


# Search --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("searched") / "views.db"
    rebuilt(path, whole_batch())
    return path


def test_search_finds_words_beginnings_and_ids_newest_first(searched):
    found = search(searched, "ORD-1", 10)
    assert found.as_of_seq == len(whole_batch())
    assert [row.kind for row in found.rows] == ["BatchStarted"]
    assert search(searched, "viabil", 10).rows
    assert search(searched, "ana BATCHSTARTED", 10).rows == found.rows
    everything_ = search(searched, "b1", 1000).rows
    assert [row.seq for row in everything_] == sorted((row.seq for row in everything_), reverse=True)
    assert search(searched, "b1", 2).rows == everything_[:2]
    assert search(searched, "ORD-1 nowhere", 10).rows == ()


SPECIAL = ['"', '""', "*", "a*", "(", ")", "AND", "OR", "NOT", "NEAR(a,b)", "text:x", "^a", "+", "{a,b}:c", "-a", "';"]
SPECIAL += ["DROP;--", "%", "é", "🧪", "²", "١", "\\b", "\x00a", "a\x00", "\udcffa", "a\u0301"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=80), st.lists(st.sampled_from(SPECIAL), max_size=40).map(" ".join)))
def test_whatever_is_typed_is_searched_for_or_refused_in_words(searched, text):
    try:
        search(searched, text, 5)
    except LinesideError as refusal:
        assert refusal.code == "views.search"


@pytest.mark.parametrize("text", ["", "  ", '"*"', "()", "a" * 501, "a " * 33])
def test_nothing_or_too_much_to_search_for_is_refused(searched, text):
    assert code_of(lambda: search(searched, text, 5)) == "views.search"


# The follower and the command ----------------------------------------------------------------------------------------


def values(count: int, start: int = 0) -> list[RowBody]:
    return [
        RowBody(ValueRecorded(batch="B-1", step="050", name=f"value-{n}", value=n * 0.5, source="entered"), AT, "ana")
        for n in range(start, start + count)
    ]


def a_box(folder: Path, **more) -> Config:
    (folder / "state").mkdir(parents=True)
    DeviceKey.create(folder / "device.key")
    return Config(
        folder=folder, box="line-1", state_dir=folder / "state", plant=folder / "plant.yaml", recipes=folder,
        directory=folder / "directory.toml", device_key=folder / "device.key",
        desk_socket=folder / "state" / "desk.sock", **more,
    )  # fmt: skip


async def reach(path: Path, seq: int) -> None:
    """Wait until the views are as of row `seq`."""
    async with asyncio.timeout(60):
        while True:
            try:
                if (await asyncio.to_thread(search, path, "ana", 1)).as_of_seq == seq:
                    return
            except LinesideError as error:
                assert error.code in {"views.absent", "views.old", "views.unusable"}


async def test_the_follower_keeps_them_current_and_makes_them_anew(tmp_path):
    config = a_box(tmp_path / "box")
    path = config.state_dir / "views.db"
    stop = asyncio.Event()
    following = asyncio.create_task(follow(config, stop))
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        await journal.append(values(1200)).durable()
        await reach(path, 1200)
        await journal.append(values(1, 1200)).durable()
        await reach(path, 1201)
        assert [row.text for row in search(path, "value-1200", 5).rows] == ["050 value-1200 600.0 entered good"]
        path.write_bytes(b"overwritten" * 2000)  # in its place, while it is open
        await journal.append(values(1, 1201)).durable()
        await reach(path, 1202)
    stop.set()
    await following
    assert len(everything(path)["value"]) == 1202


async def test_views_of_another_journal_are_made_anew_by_the_follower(tmp_path):
    config = a_box(tmp_path / "box")
    path = config.state_dir / "views.db"
    rebuilt(path, whole_batch())
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch") as journal:
        await journal.append(values(100)).durable()
        stop = asyncio.Event()
        following = asyncio.create_task(follow(config, stop))
        await reach(path, 100)
        stop.set()
        await following
    assert everything(path)["batch"] == []


async def test_without_views_nothing_is_written_or_imported(tmp_path):
    """In a process of its own, because this one has everything imported."""
    config = a_box(tmp_path / "box", views=False)
    async with open_journal(config.state_dir / "journal.db", config.state_dir / "epoch"):
        pass
    script = (
        "import asyncio, json, sys\nfrom edge import notify\nfrom edge.config import Config\n"
        "from edge.follow import follow\nstop = asyncio.Event()\n"
        "notify.status = lambda *_: stop.set()\n"
        "asyncio.run(follow(Config.model_validate(json.loads(sys.argv[1])), stop))\n"
        "print(sorted({'sqlite_utils', 'sqlite3', 'edge.views'} & set(sys.modules)))\n"
    )
    facts = config.model_dump(mode="json") | {"folder": str(config.folder)}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, json.dumps(facts)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr
    assert not (config.state_dir / "views.db").exists()


async def test_the_commands_rebuild_and_search(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "box"
    init_device(folder, box="BOX-1", people=[])
    (folder / "state").mkdir(exist_ok=True)
    async with open_journal(folder / "state/journal.db", folder / "state/epoch") as journal:
        await journal.append(values(700)).durable()

    def command(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lineside", "views", *words, "--box", str(folder)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 0, err
        return out

    with pytest.raises(AssertionError, match=r"views\.absent"):
        command("search", "value-699")
    assert json.loads(command("rebuild", "--json")) == {"as_of_seq": 700}
    assert "as of row 700" in command("rebuild")
    found = json.loads(command("search", "value-699", "--json"))
    assert found["as_of_seq"] == 700
    assert [row["seq"] for row in found["rows"]] == [700]
    assert "value-699" in command("search", "value-699 ana")
    with pytest.raises(AssertionError, match=r"views\.search"):
        command("search", '"')
