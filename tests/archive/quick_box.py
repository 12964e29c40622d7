"""`python quick_box.py edge run --box DIR`: runtime or follower with small segments and parts, so that a few thousand
rows take many of each, and without waiting between them."""

from __future__ import annotations

import edge.archive
import edge.archiver
import edge.checkpoints
import edge.core.housekeeping
import edge.core.line
import edge.prune
from edge.__main__ import main

edge.archive.SEGMENT_ROWS_MAX = 700  # type: ignore[misc]
edge.archive.archive_next.__kwdefaults__["rows_min"] = 300
edge.archive.KEPT_ROWS_MIN = 20  # type: ignore[misc]
edge.archiver.LOOK_EVERY_S = 0.05  # type: ignore[misc]
edge.checkpoints.EVERY_ROWS = 20  # type: ignore[misc]
edge.checkpoints.LOOK_EVERY_S = 0.05  # type: ignore[misc]
edge.core.housekeeping.PRUNE_ROWS_MAX = 150  # type: ignore[misc]
edge.prune.PRUNE_ROWS_MAX = 150  # type: ignore[misc]
edge.core.line.SEAL_ROWS = 16  # type: ignore[misc]
main()
