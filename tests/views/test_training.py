"""Training batches stand in a table of their own, and in no other but the list of all rows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from edge.core import commands as cm
from edge.core.terms import Act
from edge.views import TABLES
from tests.core.parts import VirtualLine
from tests.core.test_training import ask, on, warmed
from tests.views.test_alarms import asked
from tests.views.test_views import chained, rebuilt


def test_what_is_kept_of_a_training_batch(tmp_path: Path) -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    warmed(line)
    line.do(cm.ActOnBatch(session="S", batch="TRAINING-0001", act=Act.ABORT, reason="enough"))
    line.do(cm.ConcludeWrite(batch="TRAINING-0001", step="030", attempt=1, tag="BR-2.setpoint", outcome="refused",
                             reading=None, why="no"))  # fmt: skip
    columns = "batch, recipe, version, state, started_by, ended_utc <> '', people, exceptions"
    (found,) = asked(tmp_path / "views.db", line.rows, f"SELECT {columns} FROM training")
    assert found == ("TRAINING-0001", "R", "1", "aborted", "ana", 1, "ana", line.batch("TRAINING-0001").raised)


def test_nothing_of_it_stands_in_another_table(tmp_path: Path) -> None:
    line = on(VirtualLine(), **{"BR-2": "only"})
    warmed(line)
    line.do(ask(queue=True))
    line.start("B1")
    line.confirm("010")
    rebuilt(tmp_path / "views.db", chained(line.rows))
    with closing(sqlite3.connect(tmp_path / "views.db")) as db:
        of_batches = [name for name, table in TABLES.items() if "batch" in table.columns]
        counted = {name: db.execute(f"SELECT DISTINCT batch FROM {name}").fetchall() for name in of_batches}
    mixed = {name for name, batches in counted.items() if any("TRAINING" in batch for (batch,) in batches)}
    assert mixed == {"row", "training"}
    assert counted["batch"] == [("B1",)]
