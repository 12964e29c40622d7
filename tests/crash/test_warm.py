"""The processes that tests begin by forking end as others do: what kills them is told from what they say themselves."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kit.warm import spawn

ENDLESS = "import signal\nprint('here')\nsignal.pause()\n"


async def test_it_ends_as_it_says(tmp_path: Path) -> None:
    program, said = tmp_path / "program.py", tmp_path / "said"
    program.write_text("import sys\nprint(sys.argv[1])\nsys.exit(7)\n")
    with said.open("wb") as out:
        process = spawn((str(program), "a word"), out)
    assert await process.wait() == 7
    assert process.returncode == 7
    assert said.read_text() == "a word\n"
    with pytest.raises(ProcessLookupError):
        process.kill()


async def test_it_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(ENDLESS)
    with (tmp_path / "said").open("wb") as out:
        process, other = spawn((str(program),), out), spawn((str(program),), out)
    assert process.returncode is None
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    assert other.returncode is None
    other.send_signal(signal.SIGTERM)
    assert await other.wait() == -signal.SIGTERM
