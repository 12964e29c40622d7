"""Process values of a real box: runtime, follower and simulated devices; SIGKILL, then the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from demo.rig import Rig, rig
from edge.__main__ import app
from edge.core.errors import LinesideError
from edge.core.events import Event, ValuesMissing, ValuesSealed, decode
from edge.history import HISTORY_LOSS_S_MAX, PACKED, HistoryReader, utc_us
from edge.journal import JournalReader

PUMP = "P-1.speed_setpoint"


def rows(line: Rig, kind: type[Event]) -> list[Event]:
    with JournalReader(line.journal) as reader:
        events = [decode(row.body).event for row in reader.rows(0, 100_000)]
    return [event for event in events if isinstance(event, kind)]


def newest_us(line: Rig) -> int:
    try:
        with HistoryReader(line.journal.with_name("history.db")) as reader:
            return reader.newest_us()
    except LinesideError as error:
        assert error.code == "values.absent"
        return 0


def lineside(line: Rig, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["history", *arguments, "--box", str(line.box)])


@pytest.mark.timeout(300)
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
        # The row of the gap goes first; the root of what was stored before the kill is the row after it.
        await line.until(lambda: rows(line, ValuesSealed), "what was stored has no root", line.processes["runtime"])
        await line.start_follower()

        def packed() -> bool:
            with HistoryReader(path) as reader:
                return reader.states()[0] == PACKED

        await line.until(packed, "the follower packs nothing", line.processes["follower"])
        tags = json.loads(lineside(line, "tags", "--json").stdout)
        assert PUMP in {tag["tag"] for tag in tags}
        shown = [json.loads(text) for text in lineside(line, "show", PUMP, "--json").stdout.splitlines()]
        assert any("gap" in one for one in shown)
        assert any(one.get("quality") == "good" for one in shown)
        plot = lineside(line, "plot", PUMP)
        assert (plot.exit_code, "█" in plot.stdout) == (0, True)
        csv_path = tmp_path / "values.csv"
        assert lineside(line, "export", PUMP, str(csv_path)).exit_code == 0
        assert csv_path.read_text().startswith("utc,source_utc,value,quality,detail")
        again = lineside(line, "export", PUMP, str(csv_path)).exception
        assert isinstance(again, LinesideError)
        assert again.code == "values.export"
        verified = lineside(line, "verify", "--json")
        assert verified.exit_code == 0, verified.stdout
        assert json.loads(verified.stdout)["anchored"] >= 1
        assert await line.processes["runtime"].end() == 0
        verified = lineside(line, "verify")
        assert "Everything that is stored holds." in verified.stdout
        for wrong, code in (
            (("show", "X.nothing"), "values.unknown_tag"),
            (("show", PUMP, "--from", "yesterday"), "values.time"),
            (("plot", PUMP, "--from", "2100-01-01"), "values.time"),
        ):
            refused = lineside(line, *wrong).exception
            assert isinstance(refused, LinesideError), wrong
            assert refused.code == code
