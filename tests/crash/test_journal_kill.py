"""SIGKILL of a real writer: what it said was durable is there, and the next one goes on from it."""

from __future__ import annotations

import random

import pytest

from tests.crash.kills import kill_writers


def test_sigkill_at_any_moment_loses_no_acknowledged_row(tmp_path):
    kill_writers(tmp_path, random.Random(11), kills=8)


def test_planted_writer_that_says_too_early_is_found(tmp_path):
    with pytest.raises(AssertionError):
        kill_writers(tmp_path, random.Random(11), kills=20, writer="tests.crash.hasty_writer")
