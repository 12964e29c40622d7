"""Each part of the campaign at a tiny size, with its planted bugs; seeds that failed once; what the command says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tests.campaign import Part, Planted, Tally, network, parsers, play, run_part
from tests.campaign.__main__ import chosen, replay, told
from tests.campaign.rows import PARTS
from tests.campaign.writers import WRITERS

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ELSEWHERE = {
    *("1.power-cut", "3.journal-vfs", "12.disk"),
    *("4.runtime", "4.cart-b1", "4.mab-fb", "4.follower", "4.hub", "4.screen"),
    *(f"3.{name}" for name in WRITERS if name != "library"),
}
"""Long ones: tests/crash and tests/disk run the same functions in every run, most with their planted bugs; those beside
the runtime need a line of processes for each bug, and only the campaign itself plants them. Of the writers that a disk
refuses only the library is played, which is over soon."""
BY_ID = {part.id: part for part in PARTS}


@pytest.mark.parametrize("part", [part for part in PARTS if part.id not in ELSEWHERE], ids=lambda part: part.id)
async def test_a_part_finds_its_planted_bugs_and_nothing_else(part: Part, needs_program: Callable[[str], str]) -> None:
    if part.id == "3.library":
        needs_program("cc")
    run = await run_part(part, 1)
    assert part.planted
    assert run.missed == ()
    assert [f"{one.seed}: {one.what}" for one in run.violations] == []
    assert run.whole


async def test_an_input_that_takes_too_much_memory_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsers, "MEMORY_KIB_MAX", -1)
    tally = Tally()
    await play(BY_ID["11.receipt"].inject, 0, tally)
    assert any(" KiB for b" in one.what for one in tally.violations)


def regressions() -> list[tuple[str, int]]:
    lines = (line.partition("#")[0].split() for line in (HERE / "regressions.txt").read_text().splitlines())
    return [(words[0], int(words[1])) for words in lines if words]


@pytest.mark.parametrize(("name", "seed"), regressions())
async def test_a_seed_that_is_kept_violates_nothing(name: str, seed: int) -> None:
    tally = Tally()
    await play(BY_ID[name].inject, seed, tally)
    assert [one.what for one in tally.violations] == []


async def breaks_at_three(seed: int, _folder: Path, tally: Tally) -> None:
    tally.fault()
    assert seed != 3, "three"


PROBE = Part(99, "probe", "nothing", 5, 10, breaks_at_three, {"never": Planted(breaks_at_three, "no such words")})


async def test_a_violation_and_a_missed_bug_are_told_with_the_command_that_shows_it_again() -> None:
    run = await run_part(PROBE, 10)
    assert not run.ok
    assert (run.injected, [one.seed for one in run.violations], run.missed) == (10, [3], ("never",))
    words = told(run)
    assert "injected 10, violated 1, seeds 0 to 9" in words
    assert "PLANTED BUG NOT FOUND: never" in words
    assert f"again: {replay(run, 3)}" in words
    assert replay(run, 3) == "make campaign ROW=99.probe SEED=3 ONLY=1"


async def test_what_was_not_done_in_the_time_is_said() -> None:
    run = await run_part(PROBE, 10, deadline_s=0.0)
    assert not run.whole
    assert "NOT WHOLE: 0 of 10 faults" in told(run)


def campaign(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.campaign", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_command_gives_one_json_object_and_its_exit_code() -> None:
    done = campaign("--row", "11.row,6.frame", "--count", "20", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"]
    assert [(part["row"], part["violated"], part["whole"]) for part in said["parts"]] == [(11, 0, True), (6, 0, True)]


def test_processes_share_the_seeds_of_a_part_and_their_counts_are_summed() -> None:
    done = campaign("--row", "7.network", "--count", "11", "--seed", "5", "--jobs", "2", "--json")
    assert done.returncode == 0, done.stderr
    (part,) = json.loads(done.stdout)["parts"]
    assert (part["injected"], part["seeds"], part["seed"], part["last_seed"]) == (12, 12, 5, 16)


def test_an_unknown_row_is_refused_in_words() -> None:
    with pytest.raises(typer.BadParameter, match="is no row of the campaign"):
        chosen("5")


def test_rows_are_chosen_by_number_or_by_part() -> None:
    assert [part.id for part in chosen("1, 11.frame")] == ["1.power-cut", "11.frame"]
    assert chosen("") == list(PARTS)


def test_the_page_names_every_part_and_its_sizes() -> None:
    page = (ROOT / "docs" / "reference" / "campaign.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\d.a-z-]+)` \|.*\| ([\d,]+) \| ([\d,]+) \|", page, re.MULTILINE)
    assert rows == [(part.id, f"{part.gate:,}", f"{part.full:,}") for part in PARTS]


def test_what_never_ends_in_virtual_time_is_a_violation_and_no_thread_that_goes_on() -> None:
    async def for_ever(loop: network.Loop) -> None:
        for _ in range(10_000):
            await loop.let_pass(60)

    with pytest.raises(RuntimeError, match="has not ended after 1200 s of its own time"):
        network.run(for_ever)
