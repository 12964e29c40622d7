"""The runtime with a planted bug: once the ballast went, the disk stays full, however much room there is again."""

import sys
from pathlib import Path

import edge.disk
from edge.__main__ import main
from edge.core.room import Level, level_of

_STATE = Path(sys.argv[-1]) / "state"


def _stays_full(free_bytes: int, was: Level) -> Level:
    released = (_STATE / "journal.db").exists() and not (_STATE / "ballast").exists()
    return Level.FULL if released else level_of(free_bytes, was)


edge.disk.level_of = _stays_full  # type: ignore[attr-defined]
main()
