"""What was written to make equipment safe and is in no row, because the journal failed: one file for the next start.

The write goes first, this file after it, as well as the disk lets it. The next start says in rows what the file says.
"""

from __future__ import annotations

import asyncio
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.core.terms import Value
from edge.identity import sync_folder

NAME: Final = "unrecorded.json"
BYTES_MAX: Final = 1024 * 1024


class SafeWrite(BaseModel):
    """One write of a safe state that no row tells of. `outcome` is the read-back's; "" when it was not awaited."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    batch: str
    tag: str
    value: Value
    outcome: str
    why: str

    def __str__(self) -> str:
        return f"{self.tag} = {self.value} ({self.outcome or 'outcome not known'})"


class Unrecorded(BaseModel):
    """All of one run. `id` names it, so that it is said once only."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    id: str
    utc: str
    writes: tuple[SafeWrite, ...]


def keep(folder: Path, utc: str, writes: Sequence[SafeWrite]) -> None:
    """Put it there, durable; of the file that was there nothing is left. Raises OSError."""
    said = Unrecorded(id=uuid.uuid4().hex, utc=utc, writes=tuple(writes))
    partial = folder / f"{NAME}.partial"
    with partial.open("wb") as stream:
        stream.write(said.model_dump_json().encode())
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / NAME)
    sync_folder(folder)


def read(folder: Path) -> Unrecorded | None:
    """What the last run left; None when it left nothing. Of a file that cannot be read it is known only that equipment
    was made safe: its `writes` are empty."""
    try:
        with (folder / NAME).open("rb") as stream:
            data = stream.read(BYTES_MAX)
    except FileNotFoundError:
        return None
    except OSError:
        data = b""
    try:
        return Unrecorded.model_validate_json(data)
    except ValidationError:
        return Unrecorded(id=f"unreadable-{uuid.uuid4().hex}", utc="", writes=())


def remove(folder: Path) -> None:
    """Take it away, durably: rows say it now."""
    (folder / NAME).unlink(missing_ok=True)
    sync_folder(folder)


async def done_within(work: Callable[[], None], for_s: float) -> bool:
    """Whether `work` was done in this time, on a thread that nobody waits for at the end: a dead disk may hold it for
    ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()

    def tell(well: bool) -> None:
        if not done.done():
            done.set_result(well)

    def run() -> None:
        try:
            work()
        except OSError:
            well = False
        else:
            well = True
        try:
            loop.call_soon_threadsafe(tell, well)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name="unrecorded", daemon=True).start()
    await asyncio.wait({done}, timeout=for_s)
    return done.done() and done.result()
