"""The follower's part of the archive: it writes segments, and asks the runtime to take out what they hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from uuid import uuid4

import orjson

from edge.archive import archive_next, list_segments
from edge.clock import SystemClock
from edge.config import Archive, Config
from edge.core.errors import LinesideError
from edge.desk_client import connect
from edge.identity import DeviceKey
from edge.journal import JournalReader
from edge.wire import PruneRows

LOOK_EVERY_S: Final = 60.0
PRUNE_TIMEOUT_S: Final = 300.0
"""The runtime reads a whole segment from its medium, and takes its rows out in parts with pauses between them."""
NOT_NOW: Final = frozenset({"prune.too_far", "desk.unreachable", "desk.lost"})
"""What passes by itself, and nobody need do anything about."""
_log = logging.getLogger("lineside.archive")


class Archiver:
    """Archives what need not stay in the journal. `run` it; `detail` may be asked at any time."""

    def __init__(
        self,
        config: Config,
        settings: Archive,
        signer: DeviceKey,
        *,
        receipt: Callable[[], str],
        on_change: Callable[[], None],
    ) -> None:
        """`receipt` gives the text of the hub's newest receipt, empty without one."""
        self.detail = ""
        """What keeps rows from being archived, in words; empty when nothing does."""
        self._config = config
        self._settings = settings
        self._signer = signer
        self._receipt = receipt
        self._on_change = on_change

    async def run(self) -> None:
        """Look every `LOOK_EVERY_S` until cancelled."""
        while True:
            detail = ""
            try:
                while await asyncio.to_thread(self._archive_next):
                    await self._prune()
                await self._prune()
            except LinesideError as error:
                _log.warning("%s", error)
                detail = error.what
            if detail != self.detail:
                self.detail = detail
                self._on_change()
            await asyncio.sleep(LOOK_EVERY_S)

    def _archive_next(self) -> bool:
        return archive_next(self._config, self._settings, self._signer, SystemClock().utc()) is not None

    async def _prune(self) -> None:
        """Ask until nothing more may go: what may, is the runtime's to say."""
        receipt = self._receipt()
        if not self._settings.external and not _says_safe(receipt):
            return
        pruned_seq, archived_seq = 0, await asyncio.to_thread(self._archived_seq)
        try:
            async with asyncio.timeout(PRUNE_TIMEOUT_S):
                while pruned_seq < archived_seq:
                    async with connect(self._config.desk_socket) as desk:
                        request = PruneRows(id=uuid4().hex, through_seq=archived_seq, receipt=receipt)
                        pruned_seq = (await desk.ask(request))["pruned_seq"]
        except TimeoutError:
            _log.info("The runtime is slow to prune; it is asked again later.")
        except LinesideError as error:
            if error.code not in NOT_NOW:
                raise
            _log.info("No row leaves the journal now: %s", error)

    def _archived_seq(self) -> int:
        """The last archived row that the journal still has; 0 for none."""
        with JournalReader(self._config.state_dir / "journal.db") as reader:
            listed = list_segments(self._settings.path, reader.journal_id)
            last_seq = listed[-1].last_seq if listed else 0
            return last_seq if last_seq >= reader.first_seq() else 0


def _says_safe(receipt: str) -> bool:
    """True when the hub says that a verified backup has rows. The runtime checks the receipt itself."""
    return bool(receipt) and bool(orjson.loads(receipt)["safe_seq"])
