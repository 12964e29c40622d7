"""A journal that had nothing to do goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import edge.journal
from edge.journal import Journal, open_journal
from tests.crash.runs import body


async def test_after_a_pause_the_next_row_becomes_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paused = asyncio.Event()
    loop, really = asyncio.get_running_loop(), Journal._checkpoint

    def watched(self: Journal, *given: object) -> None:
        really(self, *given)  # type: ignore[arg-type]
        loop.call_soon_threadsafe(paused.set)

    monkeypatch.setattr(edge.journal, "IDLE_S", 0.01)
    monkeypatch.setattr(Journal, "_checkpoint", watched)
    async with open_journal(tmp_path / "journal.db", tmp_path / "epoch") as journal:
        await journal.append([body("before")]).durable()
        async with asyncio.timeout(60):
            await paused.wait()
            await journal.append([body("after")]).durable()
        assert journal.durable_seq == 2
