"""Alarms and signed acts about recipes, as any SQLite tool sees them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from edge.core import events as ev
from edge.core.events import RowBody, encode
from edge.core.lifecycle import RecipeState
from tests.core.parts import VirtualLine
from tests.core.test_alarms import WATCH, cleared, raised, seen
from tests.core.test_lifecycle import A, Box
from tests.views.test_views import AT, chained, rebuilt


def asked(path: Path, rows: list[bytes], sql: str) -> list[Any]:
    rebuilt(path, chained(rows))
    with closing(sqlite3.connect(path)) as db:
        return db.execute(sql).fetchall()


def test_each_time_an_alarm_was_raised_has_its_line(tmp_path: Path) -> None:
    line = VirtualLine()
    line.start()
    raised(line)
    cleared(line)
    seen(line)
    raised(line, value=41.0)
    flood = ev.AlarmFlooded(alarm=WATCH.alarm, times=7, for_s=60.0)
    rows = [*line.rows, encode(RowBody(flood, AT, "lineside"))]
    columns = "alarm, tag, value, cleared_utc <> '', cleared_why, acknowledged_by, more"
    assert asked(tmp_path / "views.db", rows, f"SELECT {columns} FROM alarm ORDER BY seq") == [
        (WATCH.alarm, WATCH.tag, 40.0, 1, "It is as it should be again.", "ana", 0),
        (WATCH.alarm, WATCH.tag, 41.0, 0, "", "", 7),
    ]


def test_a_batch_leads_to_who_signed_for_its_recipe(tmp_path: Path) -> None:
    box = Box()
    box.bring_to(RecipeState.EFFECTIVE)
    box.start(A)
    sql = "SELECT act, person, role FROM batch JOIN recipe_act USING (seal) WHERE batch='B1' ORDER BY recipe_act.seq"
    assert asked(tmp_path / "views.db", box.rows, sql) == [
        ("submit", "eva", "engineer"),
        ("approve", "sue", "supervisor"),
        ("approve", "qin", "quality"),
        ("release", "qin", "quality"),
    ]
