"""The runtime with a planted bug: it never keeps a ballast. A test shows that the judge of a full disk sees it."""

from edge.__main__ import main
from edge.disk import Disk


def _take_back(self: Disk) -> None:
    """As the real one, less the ballast."""


Disk._take_back = _take_back  # type: ignore[method-assign]
main()
