"""SIGKILL of real processes at seeded moments, and what must be there afterwards."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from edge.journal import verify_journal

ROOT = Path(__file__).parents[2]


def kill_writers(
    folder: Path,
    chance: random.Random,
    *,
    kills: int,
    writer: str = "tests.crash.writer",
    each: Callable[[], None] = lambda: None,
) -> None:
    """Writers of one journal, one after the other, each killed after a seeded number of acknowledgements. Fails when
    one that was said is not there, or the next writer did not go on from it."""
    last = 0
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-m", writer, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(chance.randrange(1, 300)):
                line = process.stdout.readline()
            process.kill()
            told = [line, *process.stdout.readlines()]
        each()
        seq, digest = next(line.split() for line in reversed(told) if line.endswith("\n"))
        assert int(seq) > last, "the second writer did not go on from the first one's rows"
        last = int(seq)
        report = verify_journal(folder / "journal.db", expect_head=(last, bytes.fromhex(digest)))
        assert report.ok, report.fault
