"""Process values of a real box: runtime, follower and simulated devices; SIGKILL, then the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.rig import Rig, rig
from edge.core.events import Event, ValuesMissing, ValuesSealed, decode
from edge.history import HISTORY_LOSS_S_MAX, PACKED, HistoryReader, utc_us
from edge.journal import JournalReader

PUMP = "P-1.speed_setpoint"


def rows(line: Rig, kind: type[Event]) -> list[Event]:
    with JournalReader(line.journal) as reader:
        events = [decode(row.body).event for row in reader.rows(0, 100_000)]
    return [event for event in events if isinstance(event, kind)]


def newest_us(line: Rig) -> int:
    path = line.journal.with_name("history.db")
    if not path.exists():
        return 0
    with HistoryReader(path) as reader:
        return reader.newest_us()


def lineside(line: Rig, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge", *arguments, "--box", str(line.box)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


@pytest.mark.timeout(120)
async def test_a_killed_runtime_loses_seconds_and_says_which(tmp_path: Path) -> None:
    async with rig(tmp_path, speed=1.0, cell_speed=1.0, with_hub=False) as line:
        path = line.journal.with_name("history.db")
        await line.until(lambda: newest_us(line) > 0, "no value is stored", line.processes["runtime"])
        stored_us = newest_us(line)
        await line.until(lambda: newest_us(line) > stored_us, "no further value is stored", line.processes["runtime"])
        await line.processes["runtime"].kill()
        killed_us = max(stored_us, newest_us(line))
        await line.start_runtime()
        await line.until(lambda: rows(line, ValuesMissing), "no row says what is missing", line.processes["runtime"])
        (missing,) = rows(line, ValuesMissing)
        assert isinstance(missing, ValuesMissing)
        from_us, to_us = utc_us(missing.from_utc), utc_us(missing.to_utc)
        assert from_us is not None
        assert to_us is not None
        assert abs(from_us - killed_us) <= HISTORY_LOSS_S_MAX * 1e6, "the gap begins where the stored values end"
        assert from_us < to_us
        assert rows(line, ValuesSealed), "what was stored before the kill has its root"
        await line.start_follower()

        def packed() -> bool:
            with HistoryReader(path) as reader:
                states = reader._connection.execute("SELECT state FROM window ORDER BY id LIMIT 1").fetchall()
            return states == [(PACKED,)]

        await line.until(packed, "the follower packs nothing", line.processes["follower"])
        tags = json.loads(lineside(line, "history", "tags", "--json").stdout)
        assert PUMP in {tag["tag"] for tag in tags}
        shown = [json.loads(text) for text in lineside(line, "history", "show", PUMP, "--json").stdout.splitlines()]
        assert any("gap" in one for one in shown)
        assert any(one.get("quality") == "good" for one in shown)
        plot = lineside(line, "history", "plot", PUMP)
        assert (plot.returncode, "█" in plot.stdout) == (0, True)
        csv_path = tmp_path / "values.csv"
        assert lineside(line, "history", "export", PUMP, str(csv_path)).returncode == 0
        assert csv_path.read_text().startswith("utc,source_utc,value,quality,detail")
        again = lineside(line, "history", "export", PUMP, str(csv_path))
        assert (again.returncode, "Traceback" in again.stderr) == (2, False)
        verified = lineside(line, "history", "verify", "--json")
        assert verified.returncode == 0, verified.stdout
        assert json.loads(verified.stdout)["anchored"] >= 1
        assert await line.processes["runtime"].end() == 0
        verified = lineside(line, "history", "verify")
        assert "Everything holds." in verified.stdout
        for wrong in (
            ("show", "X.nothing"),
            ("show", PUMP, "--from", "yesterday"),
            ("plot", PUMP, "--from", "2100-01-01"),
        ):
            refused = lineside(line, "history", *wrong)
            assert (refused.returncode, "Traceback" in refused.stderr) == (2, False), wrong
