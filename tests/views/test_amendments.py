"""What was amended of a batch, and what was skipped, as any SQLite tool sees it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edge.core.recipe.amend import Change
from tests.core.test_amendments import HIGHER, line_at, make, request, settle
from tests.views.test_views import chained, rebuilt


def test_amendments_and_skipped_steps_have_their_lines(tmp_path: Path) -> None:
    line = line_at("052")
    make(line, HIGHER)
    request(line, Change("value", "052", "limit.high", new="37.5"))
    settle(line, agree=False, reason="no")
    make(line, Change("skip", "060"))
    line.two_hours()
    rebuilt(tmp_path / "views.db", chained(line.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        told = db.execute(
            "SELECT amendment, state, differences, requested_by, settled_by, was_seal FROM amendment ORDER BY seq"
        ).fetchall()
        assert [one[:2] for one in told] == [("A1", "made"), ("A2", "refused"), ("A3", "made")]
        assert told[0][2:] == ("step 052: upper temperature limit 38.0 → 38.5", "ana", "quinn", "seal")
        assert told[1][5] == line.batch().amended
        states = dict(db.execute("SELECT step, state FROM step").fetchall())
        assert (states["060"], states["070"]) == ("skipped", "active")


def test_a_step_that_was_begun_and_left_has_one_line(tmp_path: Path) -> None:
    line = line_at("060")
    make(line, Change("skip", "060"))
    rebuilt(tmp_path / "views.db", chained(line.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        assert db.execute("SELECT state FROM step WHERE step='060'").fetchall() == [("skipped",)]
