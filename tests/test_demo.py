"""The demo as a newcomer runs it, without a terminal: real processes, every scene, and the figures that must agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from demo.tour import Result

FIELDS = {
    "steps_done",
    "rows_made",
    "rows_received",
    "rows_pending",
    "pump_commands",
    "pump_writes",
    "kills",
    "outage_s",
    "held_questions",
    "exceptions",
    "chain_verified",
    "hub_chain_verified",
    "identity_in",
}


@pytest.mark.timeout(300)
def test_the_whole_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edge", "demo", "--headless", "--keep", str(tmp_path / "d")],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert set(facts) == FIELDS
    assert facts["steps_done"] == 47
    assert facts["rows_made"] == facts["rows_received"] > 100
    assert facts["pump_writes"] == facts["pump_commands"] == 2
    assert (facts["kills"], facts["held_questions"], facts["exceptions"]) == (1, 1, 2)
    assert facts["outage_s"] >= 20
    assert facts["identity_in"] == ["vault.db"]
    assert "Row 37 was changed" in done.stderr
    assert "Traceback" not in done.stderr


def whole() -> Result:
    return Result(
        47, 170, 170, 0, 2, 2, 1, 80.0, 1, 2, chain_verified=True, hub_chain_verified=True, identity_in=["vault.db"]
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rows_received": 169}, "does not hold every row"),
        ({"rows_pending": 1}, "pending"),
        ({"identity_in": ["journal.db", "vault.db"]}, "vault alone"),
        ({"pump_writes": 3}, "pump counted"),
        ({"chain_verified": False}, "chain of the box"),
        ({"hub_chain_verified": False}, "chain at the hub"),
        ({"exceptions": 3}, "exceptions"),
        ({"held_questions": 0}, "question"),
    ],
)
def test_the_demo_fails_and_names_the_reason(wrong: dict[str, object], said: str) -> None:
    result = whole()
    result.judge()
    assert result.failed == []
    for name, value in wrong.items():
        setattr(result, name, value)
    result.judge()
    assert any(said in why for why in result.failed)
