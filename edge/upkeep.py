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
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.archive import ready_folder, segment_paths
from edge.config import Config
from edge.core.errors import LinesideError
from edge.history import Missing
from edge.identity import DeviceKey
from edge.journal import JournalReader

if TYPE_CHECKING:
    from edge.library import Library

LATE_AFTER: Final = timedelta(hours=24)
"""A self-check that is older is made up for ..."""
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
    with _trusted(config) as trust:
        verdict = await _verified([*trust, *map(str, paths)])
    found += [f"{Path(file.path).name}: {file.why}" for file in verdict.files if file.why]
    if not found:  # else a part that does not hold by itself would be named twice
        found += [f"journal, archive and copy: {whole.fault.why}" for whole in verdict.records if whole.fault]
    found += await asyncio.to_thread(_damaged_objects, Library(config.state_dir / "library"))
    values = await _values(config)
    found, left_out = found + values.found, left_out + values.left_out
    checked_seq = max((whole.last_row for whole in verdict.records), default=0)
    rows = max((whole.last_row - whole.first_row + 1 for whole in verdict.records if whole.last_row), default=0)
    return SelfCheck(rows, checked_seq, _bounded(found), _bounded(left_out), round(loop.time() - began_s, 3))


def _bounded(sentences: list[str]) -> tuple[str, ...]:
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


class _Verdict(BaseModel):
    model_config = ConfigDict(extra="ignore")

    files: list[_File]
    records: list[_Whole]


async def _verified(arguments: list[str]) -> _Verdict:
    out, complaint, code = await _done(str(VERIFIER), "--json", *arguments)
    try:
        return _Verdict.model_validate_json(out)
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
