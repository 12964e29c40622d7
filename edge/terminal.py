"""What the commands share: how they end, their options, and progress for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

EXIT_REFUSED: Final = 2
"""Bad input: nothing was started and nothing was changed."""
EXIT_FOUND: Final = 1
"""A check found something that does not hold."""
EXIT_JOURNAL: Final = 74
"""A commit failed, or there was no room for one: the process ended itself, so that nothing is shown that is not saved.
It may be started again."""

Box = Annotated[Path, typer.Option("--box", help="The box folder, with lineside.toml in it.", envvar="LINESIDE_BOX")]
HubFolder = Annotated[Path, typer.Option("--hub", help="The hub folder, with hub.toml in it.", envvar="LINESIDE_HUB")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]


def progress(word: str) -> Callable[[int, int], None]:
    """As `progress_of_parts`, for what has one part."""
    tell = progress_of_parts()
    return lambda done, total: tell(f"rows {word}", done, total)


def progress_of_parts() -> Callable[[str, int, int], None]:
    """Say on stderr how far it is, once a second, for what takes longer than that."""
    last_s = time.monotonic()

    def tell(what: str, done: int, total: int) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= 1.0:
            last_s = time.monotonic()
            print(f"{done:,} of {total:,} {what}", file=sys.stderr)

    return tell


def nothing(_what: str, _done: int, _total: int) -> None:
    """Progress is for people."""
