"""`python -m tests.campaign`: inject faults, count what was violated, say with which seed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from tests.campaign import Part, Run, Tally, every_second, run_part
from tests.campaign.jobs import run_shared
from tests.campaign.rows import PARTS

SHOWN_MAX = 400


class Size(StrEnum):
    GATE = "gate"
    FULL = "full"


def main(
    row: Annotated[str, typer.Option(help="Rows or parts, by comma: 1,3 or 11.frame. All when empty.")] = "",
    size: Annotated[Size, typer.Option(help="The column of docs/reference/campaign.md.")] = Size.FULL,
    count: Annotated[int, typer.Option(min=0, help="So many of each part instead of a column.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    only: Annotated[bool, typer.Option("--only", help="Play that seed alone, without planted bugs.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="So many processes share the seeds of a part.")] = 1,
    minutes: Annotated[float, typer.Option(min=0, help="Stop in order after so long, shared by the parts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run the fault campaign. Exits with 1 when anything was violated or a planted bug was missed."""
    parts = chosen(row)
    if only:
        parts = [replayed(part) for part in parts]
    deadline_s = time.monotonic() + minutes * 60 if minutes else float("inf")
    runs = []
    for number, part in enumerate(parts):
        wanted = 1 if only else count or (part.gate if size is Size.GATE else part.full)
        now_s = time.monotonic()
        until_s = now_s + max(0.0, deadline_s - now_s) / (len(parts) - number)
        runs.append(_run(part, wanted, seed, until_s, min(jobs, wanted)))
        if not as_json:
            sys.stdout.write(told(runs[-1]))
            sys.stdout.flush()
    ok = all(run.ok for run in runs)
    if as_json:
        typer.echo(json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), "ok": ok, "parts": [
            as_object(run) for run in runs
        ]}))  # fmt: skip
    elif ok:
        left = [run.part.id for run in runs if not run.whole]
        sys.stdout.write("No violation." + (f" Not whole: {', '.join(left)}.\n" if left else "\n"))
    raise typer.Exit(0 if ok else 1)


def chosen(rows: str) -> list[Part]:
    """The parts named by row ("1") or by id ("11.frame")."""
    parts = []
    for name in filter(None, (word.strip() for word in rows.split(","))):
        found = [part for part in PARTS if name in (str(part.row), part.id)]
        if not found:
            known = ", ".join(part.id for part in PARTS)
            raise typer.BadParameter(f"{name!r} is no row of the campaign that is run. There are: {known}.")
        parts += found
    return parts or list(PARTS)


def replayed(part: Part) -> Part:
    return Part(part.row, part.name, part.what, 1, 1, part.inject, {}, "seeds")


def _run(part: Part, wanted: int, seed: int, until_s: float, jobs: int) -> Run:
    tally = Tally()
    began_s = time.monotonic()
    end = "\x1b[K\r" if sys.stderr.isatty() else "\n"
    said = 0

    def say() -> None:
        nonlocal said
        for violation in tally.violations[said:]:  # a part may go on for hours
            said += 1
            sys.stderr.write(f"VIOLATED with seed {violation.seed}: {violation.what[:SHOWN_MAX]}\n")
        sys.stderr.write(
            f"{part.id}, {time.monotonic() - began_s:4.0f} s: {tally.injected:,} faults, {tally.seeds:,} seeds"
            f" (wanted: {wanted:,} {part.unit}), {len(tally.violations)} violated{end}"
        )
        sys.stderr.flush()

    with every_second(say):
        if jobs == 1:
            return asyncio.run(run_part(part, wanted, first_seed=seed, deadline_s=until_s, tally=tally))
        return run_shared(part, wanted, jobs, first_seed=seed, deadline_s=until_s, tally=tally)


def replay(run: Run, seed: int) -> str:
    return f"make campaign ROW={run.part.id} SEED={seed} ONLY=1"


def told(run: Run) -> str:
    """One part for a person."""
    extent = "" if run.whole else f"  NOT WHOLE: {run.done:,} of {run.wanted:,} {run.part.unit}"
    seeds = f"seeds {run.first_seed} to {run.last_seed}" if run.seeds else "no seed"
    bugs = f", {run.planted - len(run.missed)} of {run.planted} planted bugs found" if run.planted else ""
    lines = [
        f"row {run.part.id}: {run.part.what}\n",
        f"  injected {run.injected:,}, violated {len(run.violations)}, {seeds}, {run.took_s:.1f} s{bugs}{extent}\n",
    ]
    lines += [f"  PLANTED BUG NOT FOUND: {name}\n" for name in run.missed]
    for violation in run.violations[:10]:
        lines.append(f"  VIOLATED with seed {violation.seed}: {violation.what[:SHOWN_MAX]}\n")
        lines.append(f"    again: {replay(run, violation.seed)}\n")
    return "".join(lines)


def as_object(run: Run) -> dict[str, object]:
    return {
        "row": run.part.row,
        "part": run.part.name,
        "injected": run.injected,
        "violated": len(run.violations),
        "seed": run.first_seed,
        "last_seed": run.last_seed,
        "seeds": run.seeds,
        "duration_s": run.took_s,
        "wanted": run.wanted,
        "unit": run.part.unit,
        "whole": run.whole,
        "planted": run.planted,
        "planted_missed": list(run.missed),
        "violations": [
            {"seed": one.seed, "what": one.what[:SHOWN_MAX], "again": replay(run, one.seed)} for one in run.violations
        ],
    }


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
