"""Row 3: the disk refuses (EIO, ENOSPC) or gives only half (a short read) at every operation of every writer.

The faults are made below the system's library, in a process that has `refusing.c` preloaded: whatever writes, SQLite's
two copies included, meets the same disk. A copy of that process plays each operation.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import SimpleNamespace
from typing import Any
from unittest import mock

import edge.mirror
from edge.archive import Segment, write_segment
from edge.checkpoints import Keeper
from edge.core.errors import LinesideError
from edge.desk import Drafts
from edge.journal import Appended, JournalReader
from edge.library import Library
from tests.campaign import Part, Planted, Tally, told
from tests.campaign.writers import WRITERS, Kept, Writer

ROOT = Path(__file__).parents[2]
SHORT = 0
KINDS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "short read": SHORT}
CASE_S_MAX = 60
really_write = write_segment


@cache
def refusing_library() -> Path:
    """`refusing.c`, compiled once a process."""
    if not shutil.which("cc"):
        raise RuntimeError("This row needs a C compiler. On Debian: sudo apt install gcc")
    made = Path(mkdtemp(prefix="lineside-refusing-")) / "refusing.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-nostdlib", "-w", "-o", made, Path(__file__).with_name("refusing.c")]
    subprocess.run(command, check=True)
    return made


async def refuse(seed: int, folder: Path, tally: Tally, writer: str, bug: str = "") -> None:
    """Every operation of one writer: for good from there on with an even seed, only once with an odd one."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.campaign.refusals", writer, str(seed), str(folder), bug,
        cwd=ROOT, env={**os.environ, "LD_PRELOAD": str(refusing_library())}, stdout=subprocess.PIPE, limit=2**20,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async for line in process.stdout:
            tally.fault()
            if said := json.loads(line):
                tally.violated(said)
        assert await process.wait() == 0, "the process that plays the operations ended"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


# In the process that has it preloaded ------------------------------------------------------------------------------


def play_all(name: str, seed: int, folder: Path) -> Iterator[str]:
    """One word for each operation: what was violated, or nothing."""
    writer = WRITERS[name]
    made = folder / "made"
    made.mkdir()
    chance = random.Random(seed)
    asyncio.run(writer.prepare(made, chance))
    for kind, error in KINDS.items():
        for at in count():
            lasting = error != SHORT and (seed % 2 == 0)
            case = folder / "case"
            shutil.copytree(made, case)
            said = in_a_copy(writer, case, at, error, lasting)
            shutil.rmtree(case)
            if said is None:
                break  # fewer operations than that
            how = "from there on" if lasting else "once"
            yield f"{name}, {kind} at operation {at} {how}: {said}" if said else ""


def in_a_copy(writer: Writer, case: Path, at: int, error: int, lasting: bool) -> str | None:
    """Plays it in a copy of this process. None when there was no such operation."""
    reader, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            said = play_one(writer, case, at, error, lasting)
        except Exception as error:  # noqa: BLE001 - the end of this process: the other one hears why
            said = told(error)
        os.write(sender, json.dumps(said).encode())
        os._exit(0)
    os.close(sender)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    return str(said) if (said := json.loads(data or '"the process died"')) is not None else None


def play_one(writer: Writer, case: Path, at: int, error: int, lasting: bool) -> str | None:
    disk, kept = ctypes.CDLL(None), Kept()
    disk.refusing_arm(os.fsencode(case), ctypes.c_long(at), error, lasting)
    refused: BaseException | None = None
    try:
        asyncio.run(asyncio.wait_for(writer.work(case, kept), CASE_S_MAX))
    except Exception as stopped:  # noqa: BLE001 - judged below
        refused = stopped
    if not disk.refusing_disarm():
        if refused is not None:
            raise refused
        return None
    if refused is not None and not isinstance(refused, LinesideError):
        return f"no refusal in words: {told(refused)}"
    asyncio.run(asyncio.wait_for(writer.judge(case, kept), CASE_S_MAX))
    return ""


async def at_once(_appended: Appended) -> None:
    """Planted: an acknowledgement that waits for nothing."""


def in_its_place(self: Library, kind: str, name: str, data: bytes) -> None:
    """Planted: an object written under its own name, and no error heard."""
    with contextlib.suppress(OSError):
        (self._folder / kind).mkdir(parents=True, exist_ok=True)
        (self._folder / kind / name).write_bytes(data)


def unheard(write: Callable[..., object]) -> Callable[..., None]:
    """Planted: what the disk says is not listened to."""

    def writing(*arguments: object) -> None:
        with contextlib.suppress(OSError):
            write(*arguments)

    return writing


def not_read_back(reader: JournalReader, folder: Path, **how: Any) -> Segment:
    """Planted: a segment under its own name, and nobody looks whether it is there."""
    with TemporaryDirectory(dir="/dev/shm") as elsewhere:
        made = really_write(reader, Path(elsewhere), **how)
        with contextlib.suppress(OSError):
            (folder / made.path.name).write_bytes(made.path.read_bytes())
    return made


def whatever_happens(self: Keeper, seq: int, data: bytes) -> Path:
    """Planted: a checkpoint is named though the disk refused it."""
    path = self._folder / f"{seq}-{hashlib.sha256(data).hexdigest()}.json"
    with contextlib.suppress(OSError):
        self._folder.mkdir(exist_ok=True)
        path.write_bytes(data)
    return path


BUGS: dict[str, tuple[str, object]] = {
    "journal": ("edge.journal.Appended.durable", at_once),
    "library": ("edge.library.Library.put", in_its_place),
    "drafts": ("edge.desk.Drafts._write", unheard(Drafts._write)),
    "mirror": ("edge.mirror._write_through", unheard(edge.mirror._write_through)),
    "backup": ("edge.backup._in_words", contextlib.nullcontext),
    "restore": ("edge.backup._in_words", contextlib.nullcontext),
    "hub": ("hub.store.DBAPIError", ZeroDivisionError),
    "views": ("edge.views._unusable", lambda _path, error: error),
    "uplink": ("edge.uplink.contextlib", SimpleNamespace(suppress=contextlib.nullcontext)),
    "history": ("edge.history._mark_gap", lambda *_: None),
    "vault": ("edge.vault._in_words", contextlib.nullcontext),
    "archive": ("edge.archive.write_segment", not_read_back),
    "checkpoints": ("edge.checkpoints.Keeper._write", whatever_happens),
}
"""One bug for each writer, put into the process that plays it."""


def part(name: str, what: str, bug: str, found: str) -> Part:
    return Part(
        3,
        name,
        f"EIO, ENOSPC and short reads at every operation of {what}",
        gate=1,
        full=20,
        inject=partial(refuse, writer=name),
        planted={bug: Planted(partial(refuse, writer=name, bug="planted"), found)},
        unit="seeds",
    )


PARTS = (
    part("journal", "the journal", "acknowledged before the commit", "expected one|missing|nobody was told|is damaged"),
    part("library", "the library", "an object has its name before it is whole", "not whole|gone"),
    part("drafts", "the drafts", "what the disk says is not heard", "drafts that were saved are gone"),
    part("mirror", "the copy on the second medium", "what the disk says is not heard", "counted as copied|is not the"),
    part("backup", "a backup", "errors of the disk are not put into words", "no refusal in words"),
    part("restore", "a restore", "errors of the disk are not put into words", "no refusal in words"),
    part("hub", "the hub's store", "errors of the disk are not put into words", "no refusal in words"),
    part("views", "the views", "errors of the disk are not put into words", "no refusal in words"),
    part("uplink", "the uplink's state", "errors of the disk end the uplink", "no refusal in words"),
    part("history", "the process values", "nobody says that values are missing", "no row says so"),
    part("vault", "the vault", "errors of the disk are not put into words", "no refusal in words"),
    part("archive", "the archive", "a segment is not read back before it counts", "does not hold|made is gone"),
    part("checkpoints", "the checkpoints", "what the disk says is not heard", "made is not used"),
)


if __name__ == "__main__":
    writer, seed, folder, bug = sys.argv[1:]
    with mock.patch(*BUGS[writer]) if bug else contextlib.nullcontext():
        for said in play_all(writer, int(seed), Path(folder)):
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()
