"""`python careless_runtime.py edge run --box DIR`: the runtime with a planted bug, for tests of the judge.

Its start does not put open intents in doubt and asks nobody: it takes up writes where the last run left them.
"""

from __future__ import annotations

import asyncio

from edge.__main__ import main
from edge.core import commands as cm
from edge.core import decide, line
from edge.core import events as ev
from edge.engine import Engine

begin_write = Engine._begin_write


def start_runtime(self: decide._Decision, command: cm.StartRuntime) -> None:
    """As the real one, less the questions."""
    self.emit(ev.RuntimeStarted(version=command.version, clean=False, dark_low_s=0.0, dark_high_s=0.0))
    for batch in self.line.live():
        self.proceed(batch.batch)


def begin_write_when_connected(self: Engine, group: asyncio.TaskGroup, write: line.Write) -> None:
    """As the real one, later: a write before the connection stands would only be refused."""
    if all(health.connected for health in self._equipment.health().values()):
        begin_write(self, group, write)


decide._Decision.start_runtime = start_runtime  # type: ignore[method-assign]
line._after_start = lambda batch, *_: batch  # type: ignore[assignment]
Engine._begin_write = begin_write_when_connected  # type: ignore[method-assign]
main()
