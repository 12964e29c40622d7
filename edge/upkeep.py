"""The box's chores, in the follower: what must be done from time to time and never stands in a step's way.

APScheduler says when; a chore that was missed because the box was off is made up for soon after it is on again.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.archive import ready_folder, segment_paths
from edge.config import Config
from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.history import Missing
from edge.identity import DeviceKey
from edge.journal import JournalReader

if TYPE_CHECKING:
    from apscheduler.triggers.cron import CronTrigger

    from edge.library import Library

LATE_AFTER: Final = timedelta(hours=24)
"""A chore that was last done before is made up for ..."""
SOON: Final = timedelta(seconds=60)
"""... so long after the follower began: what a start has to do comes first."""
FOUND_MAX: Final = 20
SENTENCE_MAX: Final = 500
LOWEST_PRIORITY: Final = 19
REFUSED: Final = 2
"""The exit code of a command that says in words why it did nothing."""
VERIFIER: Final = Path(__file__).with_name("verify.py")


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """What a self-check found: rows that were verified, up to which one, in sentences what does not hold, and what was
    not at hand."""

    rows: int
    checked_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...]
    took_s: float


async def self_check(config: Config) -> SelfCheck:
    """Verify the whole record of a box, which may run: rows, seals, signatures and receipts in journal, archive and
    copy by the stand-alone verifier, sealed objects against their names, process values against their rows. What takes
    long has a process of its own at the lowest priority.

    Raises what reading keys raises, and `upkeep.no_verdict` when one of the processes does not answer."""
    # Imported here: only a check of sealed objects needs to know what a recipe is.
    from edge.library import Library

    loop = asyncio.get_running_loop()
    began_s = loop.time()
    paths, found, left_out = await asyncio.to_thread(_record, config)
    with trusted(config) as trust:
        verdict = await verified([*trust, *map(str, paths)])
    found += [f"{Path(file.path).name}: {file.why}" for file in verdict.files if file.why]
    if not found:  # else a part that does not hold by itself would be named twice
        found += [f"journal, archive and copy: {whole.fault.why}" for whole in verdict.records if whole.fault]
    found += await asyncio.to_thread(damaged_objects, Library(config.state_dir / "library"))
    values = await _values(config)
    found, left_out = found + values.found, left_out + values.left_out
    checked_seq = max((whole.last_row for whole in verdict.records), default=0)
    rows = max((whole.last_row - whole.first_row + 1 for whole in verdict.records if whole.last_row), default=0)
    return SelfCheck(rows, checked_seq, bounded(found), bounded(left_out), round(loop.time() - began_s, 3))


def bounded(sentences: list[str]) -> tuple[str, ...]:
    """As much of them as a row takes."""
    return tuple(each[:SENTENCE_MAX] for each in sentences[:FOUND_MAX])


def _record(config: Config) -> tuple[list[Path], list[str], list[str]]:
    """The files of the record that are at hand, what is missing among them, and what is out."""
    journal = config.state_dir / "journal.db"
    paths = [journal]
    found: list[str] = []
    left_out: list[str] = []
    try:
        with JournalReader(journal) as reader:
            name, kept_from = reader.journal_id, reader.first_seq()
    except LinesideError:
        return paths, found, left_out  # the verifier says what is wrong with it
    if config.mirror is not None:
        copies = [config.mirror.path / f"{name.hex()}.frames"]
        paths += [path for path in copies if path.is_file()]
    if config.archive is not None:
        try:
            segments = segment_paths(ready_folder(config.archive, config.state_dir), name)
        except LinesideError as error:
            left_out.append(f"The archive was not verified. {error.what}")
        else:
            paths += [path for _, path in segments]
            if not segments and kept_from > 1:
                found.append(f"Rows 1 to {kept_from - 1} are archived, and {config.archive.path} has no segment.")
    return paths, found, left_out


def damaged_objects(library: Library) -> list[str]:
    """The sealed objects that are not what their names say, in sentences."""
    found = []
    for kind, name in library.names():
        try:
            library.verify(kind, name)
        except LinesideError as error:
            found.append(f"{kind} {name[:16]}: {error.what}")
    return found


@contextmanager
def trusted(config: Config) -> Iterator[list[str]]:
    """The verifier's options for the keys that this box believes."""
    with tempfile.NamedTemporaryFile("w", suffix=".pub") as key:
        key.write(DeviceKey.load(config.device_key).public.hex() + "\n")
        key.flush()
        options = ["--key", key.name]
        for former in config.former_keys:
            options += ["--key", str(former)]
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


class _Whole(BaseModel):
    """What the verifier says of all files of one journal together."""

    model_config = ConfigDict(extra="ignore")

    first_row: int
    last_row: int
    fault: _Fault | None


class Verdict(BaseModel):
    """What the verifier says, as far as it matters here."""

    model_config = ConfigDict(extra="ignore")

    files: list[_File]
    records: list[_Whole]


async def verified(arguments: list[str]) -> Verdict:
    """What the stand-alone verifier says, in one process: nobody waits, and the other core and the memory are for
    the box's work. Raises `upkeep.no_verdict`."""
    out, complaint, code = await _done(str(VERIFIER), "--json", "--processes", "1", *arguments)
    try:
        return Verdict.model_validate_json(out)
    except ValidationError as error:
        raise _no_verdict("The verifier", "lineside verify", complaint, code) from error


class _Finding(BaseModel):
    model_config = ConfigDict(extra="ignore")

    tag: str
    why: str
    window: int


class _Values(BaseModel):
    """What `lineside history verify` says, as far as it matters here."""

    model_config = ConfigDict(extra="ignore")

    findings: list[_Finding]
    missing: list[Missing]
    left_out: str

    @property
    def sentences(self) -> list[str]:
        found = [f"Process values of {each.tag or 'a window'}: {each.why}" for each in self.findings]
        return found + [f"Process values: {each}" for each in self.missing if not each.lost]


@dataclass(frozen=True, slots=True)
class _Said:
    found: list[str]
    left_out: list[str]


async def _values(config: Config) -> _Said:
    """Process values against the rows that root them."""
    out, complaint, code = await _done("-m", "edge", "history", "verify", "--json", "--box", str(config.folder))
    if code == REFUSED and complaint.startswith(b"values.absent: "):
        return _Said([], [])  # neither values nor rows about any
    if code == REFUSED:
        return _Said([f"Process values: {complaint.decode(errors='replace').partition(chr(10))[0]}"], [])
    try:
        said = _Values.model_validate_json(out)
    except ValidationError as error:
        raise _no_verdict("The check of process values", "lineside history verify", complaint, code) from error
    lost = [f"Process values: {each}" for each in said.missing if each.lost]
    return _Said(said.sentences, [*lost, *([said.left_out] if said.left_out else [])])


async def _done(*arguments: str) -> tuple[bytes, bytes, int]:
    """What a Python process of its own said, at the lowest priority, and its exit code."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        with suppress(ProcessLookupError):  # it ended already: how, is said below
            os.setpriority(os.PRIO_PROCESS, child.pid, LOWEST_PRIORITY)
        out, complaint = await child.communicate()
    except BaseException:  # cancelled: no process is left behind
        if child.returncode is None:
            child.kill()
        await child.wait()
        raise
    assert child.returncode is not None
    return out, complaint, child.returncode


def _last_line(complaint: bytes) -> str:
    return complaint.decode(errors="replace").strip().rpartition("\n")[2]


def _no_verdict(who: str, command: str, complaint: bytes, code: int) -> LinesideError:
    return LinesideError(
        "upkeep.no_verdict",
        f"{who} ended with code {code} and said nothing: {_last_line(complaint)[:200] or 'no reason'}.",
        effect="Nothing is known of the record's state. Production goes on.",
        todo=f"Run `{command}` on the box and look at what it says.",
    )


def is_late(last: datetime | None, now: datetime) -> bool:
    """True when a chore must be done soon. One in the future was timed by a clock that was wrong."""
    return last is None or not now - LATE_AFTER <= last <= now


class Drilled(BaseModel):
    """What `lineside drill` says of the day's backup."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    backup: str
    head_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...]
    took_s: float


async def drill(config: Config) -> Drilled:
    """Have the day's backup made and tried, in a process of its own at the lowest priority. That it says nothing is
    found, too: the next one is tomorrow's."""
    began_s = asyncio.get_running_loop().time()
    out, complaint, code = await _done("-m", "edge", "drill", "--json", "--box", str(config.folder))
    try:
        return Drilled.model_validate_json(out)
    except ValidationError:
        why = _no_verdict("The drill", "lineside drill", complaint, code).what
        took_s = round(asyncio.get_running_loop().time() - began_s, 3)
        return Drilled(backup="", head_seq=0, found=bounded([why]), left_out=(), took_s=took_s)


def each_day(at: str) -> CronTrigger:
    """Once a day `at` this time in UTC, which no summer time leaves out or doubles."""
    from apscheduler.triggers.cron import CronTrigger

    hour, _, minute = at.partition(":")
    return CronTrigger(hour=hour, minute=minute, timezone=UTC)


async def keep_up(
    at: str, last: Callable[[], Awaitable[datetime | None]], chore: Callable[[], Awaitable[None]]
) -> None:
    """Do a chore each day `at` this time (UTC) until cancelled. `last` is when it was last done, None for never.
    Raises what kept it from being done: begun again, it is made up for."""
    # Imported here: a follower is small before it has chores.
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    due = asyncio.Event()

    async def is_due() -> None:
        due.set()  # done below, one at a time, where it is cancelled with everything else

    scheduler = AsyncIOScheduler(timezone=UTC)
    # A clock that jumps, or a box that was asleep at that minute: once is enough, and late is better than never.
    scheduler.add_job(is_due, each_day(at), coalesce=True, misfire_grace_time=None)
    now = datetime.now(UTC)
    if is_late(await last(), now):
        scheduler.add_job(is_due, "date", run_date=now + SOON, misfire_grace_time=None)
    scheduler.start()
    try:
        while True:
            await due.wait()
            due.clear()
            await chore()
    finally:
        scheduler.shutdown(wait=False)
