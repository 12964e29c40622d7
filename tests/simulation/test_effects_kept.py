"""What the engine keeps of a head's effects is what one finds who works them all out anew, after every row."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest import mock

import pytest

from edge.core.line import Batch, Effects, Line, effects, effects_of
from edge.engine import Engine
from tests.simulation.line_model import Run

SEEDS = range(8)


def engine() -> Engine:
    """As it is before its first look: the head is put into its place below."""
    made = Engine.__new__(Engine)
    made._wanted, made._wanted_for, made._wanted_of = Effects(), None, {}
    return made


def follow(seed: int) -> int:
    """The heads of a random journal, one after another, now and then with another book; returns how often something had
    to be under way."""
    with mock.patch.object(Run, "crash_at_every_row", return_value=None):
        heads = [made.line for made in Run(seed).play().made]
    chance, each, some, busy = random.Random(seed), engine(), engine(), 0
    for made in heads:
        head = replace(made, book=replace(made.book)) if chance.random() < 0.1 else made
        afresh = effects(head)
        each.line = head
        assert each._effects() == each._effects() == afresh
        if chance.random() < 0.4:  # several rows of one decision are one look
            some.line = head
            assert some._effects() == afresh
        busy += afresh != Effects()
    return busy


def test_the_kept_effects_are_those_of_the_head_after_every_row_of_random_journals() -> None:
    assert sum(follow(seed) for seed in SEEDS) > 100


def test_that_is_seen_when_a_batch_that_changed_keeps_its_old_effects(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, Effects] = {}

    def stale(line: Line, batch: Batch) -> Effects:
        return kept.setdefault(batch.batch, effects_of(line, batch))

    monkeypatch.setattr("edge.engine.effects_of", stale)
    with pytest.raises(AssertionError):
        test_the_kept_effects_are_those_of_the_head_after_every_row_of_random_journals()
