"""SIGKILL of a real writer: what it said was durable is there, and the next one goes on from it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from edge.journal import verify_journal

KILLS = 8
ROOT = Path(__file__).parents[2]


def test_sigkill_at_any_moment_loses_no_acknowledged_row(tmp_path):
    rng = random.Random(11)
    last = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.crash.writer", str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for _ in range(rng.randrange(1, 300)):
                line = writer.stdout.readline()
            writer.kill()
            told = [line, *writer.stdout.readlines()]
        seq, digest = next(line.split() for line in reversed(told) if line.endswith("\n"))
        assert int(seq) > last, "the second writer did not go on from the first one's rows"
        last = int(seq)
        report = verify_journal(tmp_path / "journal.db", expect_head=(last, bytes.fromhex(digest)))
        assert report.ok, report.fault
