"""`python forgetful_follower.py edge follow --box DIR`: the follower with a planted bug, for tests of the judge.

After a start it does not look how far the copy is: it goes on with the newest row.
"""

from __future__ import annotations

from typing import BinaryIO

from edge.__main__ import main
from edge.mirror import Mirror


async def resume(self: Mirror, file: BinaryIO) -> None:
    """As the real one, but for the rows that were made meanwhile."""
    self._last(file)
    self.copied_seq = max(self._tail.made_seq - 1, 0)


Mirror._resume = resume  # type: ignore[method-assign]
main()
