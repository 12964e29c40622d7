"""The box beside the line: runtime, follower and the `lineside` command."""

from typing import Final

__version__: Final = "0.1.0"
