"""The box's chores, in the follower: what must be done from time to time and never stands in a step's way.

APScheduler says when; a chore that was missed because the box was off is made up for soon after it is on again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.config import Config
from edge.core.errors import LinesideError
from edge.identity import DeviceKey
from edge.library import Library

LATE_AFTER: Final = timedelta(hours=24)
"""A self-check that is older is made up for ..."""
SOON: Final = timedelta(seconds=60)
"""... so long after the follower began: what a start has to do comes first."""
FOUND_MAX: Final = 20
SENTENCE_MAX: Final = 500
LOWEST_PRIORITY: Final = 19
VERIFIER: Final = Path(__file__).with_name("verify.py")


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What a self-check found: rows that were verified, up to which one, and in sentences what does not hold."""

    rows: int
    checked_seq: int
    found: tuple[str, ...]
    took_s: float


async def self_check(config: Config) -> SelfCheck:
    """Verify the whole record of a box, which may run: rows, seals, signatures and receipts by the stand-alone
    verifier in a process of its own at the lowest priority, sealed objects against their names.

    Raises what reading the device key raises, and `upkeep.no_verdict` when the verifier does not answer."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    with _trusted(config) as trust:
        files = await _verified([*trust, *map(str, record_paths(config))])
    found = [f"{Path(file.path).name}: {file.why}" for file in files if file.why]
    found += await asyncio.to_thread(_damaged_objects, Library(config.state_dir / "library"))
    rows = sum(file.rows for file in files if file.path == str(config.state_dir / "journal.db"))
    return SelfCheck(
        rows, rows, tuple(each[:SENTENCE_MAX] for each in found[:FOUND_MAX]), round(loop.time() - began_s, 3)
    )


def record_paths(config: Config) -> list[Path]:
    """What a self-check verifies: the journal and, while it is there, the copy on the second medium."""
    paths = [config.state_dir / "journal.db"]
    if config.mirror is not None:
        paths += sorted(config.mirror.path.glob("*.frames"))
    return paths


def _damaged_objects(library: Library) -> list[str]:
    found = []
    for kind, name in library.names():
        try:
            library.recipe(name) if kind == "recipe" else library.plant(name)
        except LinesideError as error:
            found.append(f"{kind} {name[:16]}: {error.what}")
    return found


@contextmanager
def _trusted(config: Config) -> Iterator[list[str]]:
    """The verifier's options for the keys that this box believes."""
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as key:
        key.write(DeviceKey.load(config.device_key).public.hex() + "\n")
        key.flush()
        options = ["--key", key.name]
        if config.hub is not None:
            options += ["--hub-key", str(config.hub.public_key)]
        yield options


class _Fault(BaseModel):
    row: int
    why: str


class _File(BaseModel):
    """What the verifier says of one file, as far as it matters here."""

    model_config = ConfigDict(extra="ignore")

    path: str
    rows: int
    fault: _Fault | None
    error: str | None

    @property
    def why(self) -> str:
        return f"row {self.fault.row} does not hold: {self.fault.why}" if self.fault else self.error or ""


class _Verdict(BaseModel):
    files: list[_File]


async def _verified(arguments: list[str]) -> list[_File]:
    verifier = await asyncio.create_subprocess_exec(
        sys.executable,
        str(VERIFIER),
        "--json",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        os.setpriority(os.PRIO_PROCESS, verifier.pid, LOWEST_PRIORITY)
        out, complaint = await verifier.communicate()
    except BaseException:  # cancelled: no verifier is left behind
        verifier.kill()
        await verifier.wait()
        raise
    try:
        return _Verdict.model_validate_json(out).files
    except ValidationError as error:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise LinesideError(
            "upkeep.no_verdict",
            f"The verifier ended with code {verifier.returncode} and said nothing: {last[:200] or 'no reason'}.",
            effect="Nothing is known of the record's state. Production goes on.",
            todo="Run `lineside verify` on the box and look at what it says.",
        ) from error


def is_late(last_check: datetime | None, now: datetime) -> bool:
    """True when the record must be verified soon. A check in the future was timed by a clock that was wrong."""
    return last_check is None or not now - LATE_AFTER <= last_check <= now


async def keep_up(
    config: Config,
    last_check: Callable[[], Awaitable[datetime | None]],
    tell: Callable[[SelfCheck], Awaitable[None]],
) -> None:
    """Do the chores until cancelled. `last_check` is when the record was last verified, None for never; `tell` gets
    what was found. Raises what kept a chore from being done: begun again, it is made up for."""
    # Imported here: a follower is small before it has chores.
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger

    due = asyncio.Event()

    async def check() -> None:
        due.set()  # done below, one at a time, where it is cancelled with everything else

    hour, _, minute = config.self_check_at.partition(":")
    scheduler = AsyncIOScheduler(timezone=UTC)
    # A clock that jumps, or a box that was asleep at that minute: once is enough, and late is better than never.
    scheduler.add_job(
        check, CronTrigger(hour=hour, minute=minute, timezone=UTC), coalesce=True, misfire_grace_time=None
    )
    now = datetime.now(UTC)
    if is_late(await last_check(), now):
        scheduler.add_job(check, "date", run_date=now + SOON, misfire_grace_time=None)
    scheduler.start()
    try:
        while True:
            await due.wait()
            due.clear()
            await tell(await self_check(config))
    finally:
        scheduler.shutdown(wait=False)
