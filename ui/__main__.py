"""`python -m ui --desk SOCKET [--language de]`: the operator's screen in this terminal."""

from __future__ import annotations

import argparse
from pathlib import Path

from ui.app import run_ui
from ui.locale import LANGUAGES


def main() -> None:
    """Read the two options and run the screen."""
    parser = argparse.ArgumentParser(prog="python -m ui", description=__doc__)
    parser.add_argument("--desk", type=Path, required=True, help="the desk's socket, for example state/desk.sock")
    parser.add_argument("--language", choices=sorted(LANGUAGES), default="en")
    given = parser.parse_args()
    run_ui(given.desk, given.language)


if __name__ == "__main__":
    main()
