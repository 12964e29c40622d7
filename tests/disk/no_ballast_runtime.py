"""The runtime with a planted bug: it never keeps a ballast. A test shows that the judge of a full disk sees it."""

from edge.__main__ import main
from edge.disk import Disk

Disk._take_back = lambda _self: None  # type: ignore[method-assign]
main()
