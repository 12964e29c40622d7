"""`python -m bench [ROW ...] [--json]`: measure, print a table, leave the judgement to the reader."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import (
    Figure,
    Say,
    archive,
    commissioning,
    drain,
    drivers,
    footprint,
    growth,
    history,
    journal,
    loop,
    recipes,
    start,
    steps,
    tags,
    verify,
    views,
)

ROWS: dict[str, Callable[[Say], Sequence[Figure]]] = {
    "journal": journal.measure,
    "loop": loop.measure,
    "steps": steps.measure_steps,
    "footprint": footprint.measure,
    "history": history.measure,
    "tags": tags.measure,
    "drivers": drivers.measure,
    "commissioning": commissioning.measure,
    "views": views.measure,
    "recipes": recipes.measure,
    "archive": archive.measure,
    "drain": drain.measure,
    "start": start.measure,
    "verify": verify.measure,
    "start-longest": start.measure_longest,
    "growth": growth.measure,
    "batches": steps.measure_batches,
}
"""A row of the bench: its name and the function that measures it. Add yours here."""
ON_REQUEST = frozenset({"start-longest", "growth", "batches"})
"""Rows that take minutes and much of the disk: measured only when they are named."""


def main(
    rows: Annotated[list[str] | None, typer.Argument(help=f"Which to run: {', '.join(ROWS)}. All when none.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Measure Lineside against the raw limit of this machine. Example: python -m bench journal"""
    chosen = rows or [name for name in ROWS if name not in ON_REQUEST]
    for name in chosen:
        if name not in ROWS:
            raise typer.BadParameter(f"{name!r} is not a row of the bench. There are: {', '.join(ROWS)}.")
    Path("build").mkdir(exist_ok=True)  # what is measured lies on the disk of the working directory
    about: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }
    measured, loads = {}, {}
    for name in chosen:
        loads[name] = os.getloadavg()[0]
        measured[name] = ROWS[name](_progress(name))
    if as_json:
        found = {
            name: [asdict(figure) | {"ratio": figure.ratio, "met": figure.met} for figure in figures]
            for name, figures in measured.items()
        }
        print(json.dumps(about | {"load_before": loads, "rows": found}))
        return
    print(f"{about['at']}  Python {about['python']}  {about['machine']}")
    for name, figures in measured.items():
        _print_table(f"{name} (load before it: {loads[name]:.1f})", figures)


def _progress(row: str) -> Say:
    """On stderr, so that stdout is the table alone; at a terminal in one line."""
    begun_s = time.monotonic()
    end = "\x1b[K\r" if sys.stderr.isatty() else "\n"

    def say(what: str) -> None:
        print(f"{row}, {time.monotonic() - begun_s:4.0f} s: {what}", end=end, file=sys.stderr, flush=True)

    return say


def _print_table(title: str, figures: Sequence[Figure]) -> None:
    print(f"\n{title}")
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        raw = figure.raw or 0.0
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x {raw:,.{0 if raw >= 100 else 2}f}"
        bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", figure.at_least), ("≤", figure.at_most)) if bound]
        verdict = {True: "met", False: "NOT MET", None: ""}[figure.met]
        print(
            f"  {figure.what:<{width}}  {figure.value:>12,.2f} {figure.unit:<8}  {ratio:<18}"
            f"  {' and '.join(bounds):<8} {verdict}".rstrip()
        )


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
