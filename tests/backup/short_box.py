"""`python short_box.py edge run --box DIR`: runtime or follower that archives, prunes and seals after a few rows."""

from __future__ import annotations

from pathlib import Path

import edge.archive
import edge.archiver
import edge.checkpoints
import edge.config
import edge.core.line
import edge.history
from edge.__main__ import main
from edge.config import Config

KEEP_ROWS = 40
read_config = edge.config.read_config


def with_few_rows(folder: Path) -> Config:
    """As the real one; of an archive's rows fewer stay than settings may say."""
    config = read_config(folder)
    if config.archive is None:
        return config
    return config.model_copy(update={"archive": config.archive.model_copy(update={"keep_rows": KEEP_ROWS})})


edge.config.read_config = with_few_rows
edge.archive.archive_next.__kwdefaults__["rows_min"] = 50
edge.archive.KEPT_ROWS_MIN = 20  # type: ignore[misc]
edge.archiver.LOOK_EVERY_S = 0.1  # type: ignore[misc]
edge.checkpoints.EVERY_ROWS = 20  # type: ignore[misc]
edge.checkpoints.LOOK_EVERY_S = 0.1  # type: ignore[misc]
edge.core.line.SEAL_ROWS = 16  # type: ignore[misc]
edge.history.FLUSH_S = 0.2  # type: ignore[misc]
edge.history.WINDOW_S = 2.0  # type: ignore[misc]
main()
