"""`python -m bench [ROW ...] [--json]`: measure, print a table, leave the judgement to the reader."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from bench import Figure, journal

ROWS: dict[str, Callable[[], Sequence[Figure]]] = {
    "journal": journal.measure,
}
"""A row of the bench: its name and the function that measures it. Add yours here."""


def main(
    rows: Annotated[list[str] | None, typer.Argument(help=f"Which to run: {', '.join(ROWS)}. All when none.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
) -> None:
    """Measure Lineside against the raw limit of this machine. Example: python -m bench journal"""
    chosen = rows or list(ROWS)
    for name in chosen:
        if name not in ROWS:
            raise typer.BadParameter(f"{name!r} is not a row of the bench. There are: {', '.join(ROWS)}.")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"
    at = datetime.now(UTC).isoformat(timespec="seconds")
    if not as_json:
        print(f"{at}  Python {platform.python_version()}  {machine}")
    measured = {}
    for name in chosen:
        measured[name] = figures = ROWS[name]()
        if not as_json:
            _print_table(name, figures)
    if as_json:
        found = {
            name: [asdict(figure) | {"ratio": figure.ratio, "met": figure.met} for figure in figures]
            for name, figures in measured.items()
        }
        print(json.dumps({"at": at, "python": platform.python_version(), "machine": machine, "rows": found}))


def _print_table(name: str, figures: Sequence[Figure]) -> None:
    print(f"\n{name}")
    width = max(len(figure.what) for figure in figures)
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.raw:,.0f}"
        bounds = [f"{sign} {bound:g}" for sign, bound in (("≥", figure.at_least), ("≤", figure.at_most)) if bound]
        verdict = {True: "met", False: "NOT MET", None: ""}[figure.met]
        print(
            f"  {figure.what:<{width}}  {figure.value:>12,.2f} {figure.unit:<8}  {ratio:<18}"
            f"  {' and '.join(bounds):<8} {verdict}".rstrip()
        )


if __name__ == "__main__":
    typer.run(main)
