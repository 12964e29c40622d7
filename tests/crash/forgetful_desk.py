"""`python forgetful_desk.py edge run --box DIR`: the runtime with a planted bug, for tests of the judge.

It says that a draft is kept, and keeps none.
"""

from __future__ import annotations

from edge.__main__ import main
from edge.desk import Drafts


async def save(_self: Drafts, _batch: str, _step: str, _text: str) -> None:
    """As the real one, but for the keeping."""


Drafts.save = save  # type: ignore[method-assign]
main()
