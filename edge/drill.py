"""The daily restore drill: a backup counts only when it was restored, and when what came back was looked at.

Makes the day's backup, restores the newest one into a scratch folder beside it, verifies all of it (chain, seals,
receipts, process values, sealed objects, vault), compares it with the box, and cleans up. `lineside drill` runs it, in
a process of its own: the follower starts it once a day.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from edge.archive import Record, archive_keys, record_of
from edge.backup import DRILL, JOURNAL, VALUES, Manifest, Progress, back_up, restored
from edge.clock import SystemClock
from edge.config import Backup, Config
from edge.core.errors import LinesideError
from edge.core.events import PlantLoaded, RecipeLoaded, decode
from edge.core.quick import dataclass
from edge.history import verify_values
from edge.identity import DeviceKey
from edge.journal import JournalReader
from edge.library import Library
from edge.upkeep import bounded, damaged_objects, trusted, verified
from edge.vault import VAULT, kept


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found: the backup's name, empty without one, its last row, in sentences what does not hold, and
    what was not at hand."""

    backup: str
    head_seq: int
    found: tuple[str, ...]
    left_out: tuple[str, ...]
    took_s: float


def daily(config: Config, settings: Backup, *, progress: Progress) -> Report:
    """Make a backup, and try the newest one; those beyond `settings.keep` go once it held. Whatever does not hold, and
    whatever keeps it from being made or tried, is found. Call it off the loop."""
    began_s = time.monotonic()
    found: list[str] = []
    left_out: list[str] = []
    manifest: Manifest | None = None
    newest: Path | None = None
    try:
        journal, head_seq = _head(config)
        with _alone(settings.path, journal):
            made = _make(config, settings, journal, found, progress)
            newest = made or next(iter(backups_in(settings.path, journal)), None)
            if newest is not None:
                manifest = _tried(_Trial(config, found, left_out, head_seq if made else 0), newest, progress)
            if made is not None and not settings.with_values:
                left_out.append("Process values are left out of backups, by the settings.")
            if made is not None and not found:
                for old in backups_in(settings.path, journal)[settings.keep :]:
                    old.unlink()
            if settings.path.stat().st_dev == config.state_dir.stat().st_dev:
                left_out.append(f"{settings.path} is on the box's own disk: a backup there does not outlive that disk.")
    except LinesideError as error:
        found.append(error.what)
    except OSError as error:
        found.append(f"{settings.path} cannot be used: {error.strerror or error}.")
    return Report(
        newest.name if newest else "",
        manifest.head_seq if manifest else 0,
        bounded(found),
        bounded(left_out),
        round(time.monotonic() - began_s, 3),
    )


def backups_in(folder: Path, journal: str) -> list[Path]:
    """The backups that drills made of this journal, newest first."""
    name = re.compile(rf"{journal}-\d{{8}}T\d{{6}}Z\.tar")
    return sorted((path for path in folder.iterdir() if name.fullmatch(path.name)), reverse=True)


@contextmanager
def _alone(folder: Path, journal: str) -> Iterator[None]:
    """One drill at a time in `folder`, which is never made. What an earlier one left, cut short, goes."""
    try:
        held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise LinesideError(
            "drill.absent",
            f"The folder {folder} for backups is not there: {error.strerror}.",
            effect="No backup was made and none was tried. Work goes on.",
            todo="Put the medium in. On a new one, make the folder: it is never made by itself, lest backups go to the "
            "box's own disk while the medium is out.",
        ) from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LinesideError(
                "drill.running",
                f"Another drill is at work in {folder}.",
                effect="That one goes on; this one was not begun.",
                todo="Wait until it is done.",
            ) from error
        for left in chain(folder.glob(f"{DRILL}*"), folder.glob(f".{journal}-*.tar.*")):
            shutil.rmtree(left)
        yield
    finally:
        os.close(held)


def _head(config: Config) -> tuple[str, int]:
    """The journal's name, and its last row now."""
    with JournalReader(config.state_dir / JOURNAL) as reader:
        return reader.journal_id.hex(), reader.head()[0]


def _make(config: Config, settings: Backup, journal: str, found: list[str], progress: Progress) -> Path | None:
    """The new backup; None when it could not be made, which is then found."""
    utc = re.sub(r"[-:]|\.\d+", "", SystemClock().stamp().utc)
    out = settings.path / f"{journal}-{utc}.tar"
    try:
        back_up(config, out, with_values=settings.with_values, progress=progress)
    except LinesideError as error:
        found.append(f"No backup was made. {error.what}")
        return None
    return out


def _tried(trial: _Trial, backup: Path, progress: Progress) -> Manifest | None:
    """Restore and look; None when nothing came back."""
    try:
        return restored(backup, DeviceKey.load(trial.config.device_key).public, trial.look, backup.parent, progress)[0]
    except LinesideError as error:
        trial.found.append(f"{backup.name} cannot be restored. {error.what}")
        return None


@dataclass(frozen=True, slots=True)
class _Trial:
    """What is found while a restored state is looked at. Rows up to `expected_seq` were there before the backup
    began."""

    config: Config
    found: list[str]
    left_out: list[str]
    expected_seq: int

    def look(self, state: Path, manifest: Manifest) -> None:
        """Everything that a restored box would stand on."""
        self.found.extend(_verified(self.config, state))
        self.found.extend(damaged_objects(Library(state / "library")))
        self.found.extend(_absent_objects(state))
        self.found.extend(_vault_faults(self.config, state, manifest))
        if manifest.values:
            self._look_at_values(state)
        self.found.extend(_compared(self.config, manifest))

    def _look_at_values(self, state: Path) -> None:
        """Every value against its rows. Windows that were sealed while the backup was made need not be in it."""
        archive = self.config.archive.path if self.config.archive else None
        keys = archive_keys(self.config, DeviceKey.load(self.config.device_key).public)
        with Record(state / JOURNAL, archive, keys) as record:
            result = verify_values(state / VALUES, record)
        self.found.extend(f"Process values of {each.tag or 'a window'}: {each.why}" for each in result.findings)
        expected = (each for each in result.missing if not each.lost and each.first_seq <= self.expected_seq)
        self.found.extend(f"Process values in the backup: {each}" for each in expected)
        if result.left_out:
            self.left_out.append(result.left_out)


def _verified(config: Config, state: Path) -> list[str]:
    """What the stand-alone verifier finds in the restored journal: chain, seals, signatures and receipts."""
    with trusted(config) as trust:
        verdict = asyncio.run(verified([*trust, str(state / JOURNAL)]))
    return [f"{Path(file.path).name} in the backup: {file.why}" for file in verdict.files if file.why]


def _absent_objects(state: Path) -> Iterator[str]:
    """The sealed objects that restored rows name and that were not restored."""
    there = set(Library(state / "library").names())
    with JournalReader(state / JOURNAL) as reader:
        for row in chain(reader.rows_of_kind("RecipeLoaded"), reader.rows_of_kind("PlantLoaded")):
            event = decode(row.body).event
            if isinstance(event, RecipeLoaded):
                name = ("recipe", event.seal)
            else:
                assert isinstance(event, PlantLoaded)
                name = ("plant", event.content)
            if name not in there:
                there.add(name)  # named once
                yield f"The {name[0]} {name[1][:16]}, which row {row.seq} names, is not in the backup."


def _vault_faults(config: Config, state: Path, manifest: Manifest) -> Iterator[str]:
    if manifest.vault:
        try:
            kept(state / VAULT)
        except LinesideError as error:
            yield f"The vault in the backup cannot be opened. {error.what}"
    elif (config.state_dir / VAULT).is_file():
        yield "The box has a vault, and the backup has none."


def _compared(config: Config, manifest: Manifest) -> Iterator[str]:
    """Whether the backup is of this very history: its last row is that row of the box, by its hash and epoch."""
    with record_of(config) as record:
        rows = record.rows(manifest.head_seq - 1, 1)
    here = (rows[0].hash.hex(), rows[0].epoch.hex()) if rows and rows[0].seq == manifest.head_seq else None
    if here is None:
        yield f"The backup ends with row {manifest.head_seq}, and this box has no such row."
    elif here != (manifest.head_hash, manifest.epoch):
        yield f"Row {manifest.head_seq}, the last one in the backup, is another row on this box: another history."
