"""The writer with a planted bug, for tests of the judge: it acknowledges what is not durable yet."""

from edge.journal import Appended


async def at_once(_appended: Appended) -> None:
    """Waits for nothing."""


Appended.durable = at_once  # type: ignore[method-assign]

from tests.crash import writer  # noqa: E402, F401 - it writes as soon as it is imported
