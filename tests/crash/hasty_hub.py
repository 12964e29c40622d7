"""`python hasty_hub.py hub run --hub DIR`: the hub with a planted bug, for tests of the judge.

It gives a receipt for rows, and does not commit them.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.__main__ import main
from edge.core import frame
from hub.store import Outcome, Store


async def ingest(self: Store, data: bytes, trusted: Mapping[str, bytes], topic_device: str = "") -> Outcome:
    """As the real one, but for the commit."""
    del topic_device
    async with self._engine.connect() as connection:
        return await self._take(connection, frame.read(data, trusted))  # taken back, as nothing commits it


Store.ingest = ingest  # type: ignore[method-assign]
main()
