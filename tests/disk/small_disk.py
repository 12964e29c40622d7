"""A small file system of its own with a box on it, the real runtime as a process, started again as systemd does, and
what must hold on it: STOP is written whatever is free, nothing is lost, and the box comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from edge import wire
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.room import BALLAST_BYTES, FULL_BYTES
from edge.core.terms import Role
from edge.desk_client import DeskClient, connect
from edge.journal import JournalReader, verify_journal
from edge.terminal import EXIT_JOURNAL
from provisioning.device import NewPerson, init_device

DISK_BYTES = 64 * 1024 * 1024
BLOCK_BYTES = 4096
WAIT_S_MAX = 90.0
STEPS = 60
STEP = '          - {{id: "{0:03}", phase: instruct, title: Step {0}, text: Do it.}}\n'
RECIPE = (
    'recipe: PAPER\nversion: "1"\ntitle: Paper on glass\nprocedure:\n  - unit_procedure: U\n    operations:\n'
    "      - operation: O\n        steps:\n"
) + "".join(STEP.format(number) for number in range(1, STEPS + 1))


class NotPossible(Exception):
    """No small disk can be made here, and why."""


def make_box(folder: Path) -> Path:
    """A box folder with a recipe of `STEPS` steps; hashing its PIN takes time."""
    init_device(folder, box="BOX-D", people=(NewPerson("chi", "Chi", (Role.SUPERVISOR, Role.OPERATOR), "3690", "B"),))
    (folder / "recipes" / "paper.yaml").write_text(RECIPE)
    (folder / "lineside.toml").write_text('box = "BOX-D"\nrecipe_approval = "from_folder"\n')
    return folder


@contextlib.contextmanager
def small_disk(folder: Path, kind: str = "tmpfs") -> Iterator[Path]:
    """A file system of `DISK_BYTES`, tmpfs or ext4, mounted in `folder`. Raises `NotPossible`."""
    mount = folder / "m"
    mount.mkdir()
    if kind == "ext4":
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        format_program = shutil.which("mkfs.ext4", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
        if format_program is None:
            raise NotPossible("mkfs.ext4 is not installed")
        subprocess.run([format_program, "-q", "-m", "0", image], check=True)
        command = ["mount", "-o", "loop", str(image), str(mount)]
    else:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "lineside-test", str(mount)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise NotPossible(f"mounting a small disk is not permitted here: {done.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", mount], check=True)


@dataclass
class Box:
    """A box on a small disk, and the process that runs it."""

    folder: Path
    program: tuple[str, ...] = ("-m", "edge")
    wait_s_max: float = WAIT_S_MAX
    ends_max: int = 1_000
    """So often the runtime may end by itself before that is a failure."""
    child: asyncio.subprocess.Process | None = None
    codes: list[int] = field(default_factory=list)
    """Exit codes of the runtimes that ended by themselves."""
    acknowledged: list[str] = field(default_factory=list)
    """Ids of the requests that the desk said are done."""

    @property
    def journal(self) -> Path:
        return self.folder / "state" / "journal.db"

    @property
    def ballast(self) -> Path:
        return self.folder / "state" / "ballast"

    @property
    def log(self) -> Path:
        return self.folder.parent.parent / "runtime.log"

    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill_until(self, free_bytes: int) -> None:
        """Let another program take the disk, until so much is free."""
        with (self.folder.parent / "filler").open("ab") as filler:
            while (left := self.free_bytes() - free_bytes) >= BLOCK_BYTES:
                try:
                    os.posix_fallocate(filler.fileno(), filler.seek(0, os.SEEK_END), left // BLOCK_BYTES * BLOCK_BYTES)
                except OSError as error:
                    assert error.errno == errno.ENOSPC  # the box was faster: what is left now?

    def make_room(self) -> None:
        (self.folder.parent / "filler").unlink(missing_ok=True)

    async def start(self) -> None:
        with self.log.open("ab") as out:
            self.child = await asyncio.create_subprocess_exec(
                sys.executable, *self.program, "edge", "run", "--box", str(self.folder), stdout=out, stderr=out
            )

    async def stop(self) -> int:
        """A clean stop; 0 when nothing ran."""
        if self.child is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self.child.terminate()
        code = await self.child.wait()
        self.child = None
        return code

    async def picture(self) -> wire.Picture:
        """What a screen shows; the runtime is started (again, after exit code 74) until it answers."""
        async with asyncio.timeout(self.wait_s_max):
            while True:
                if self.child is not None and self.child.returncode is not None:
                    self.codes.append(self.child.returncode)
                    assert self.child.returncode == EXIT_JOURNAL, self.log.read_text()[-2000:]
                    assert len(self.codes) <= self.ends_max, f"the runtime ended by itself with {self.codes}"
                    self.child = None
                if self.child is None:
                    await self.start()
                try:
                    async with connect(self.folder / "state" / "desk.sock") as client:
                        answer = await client.ask(wire.AskStatus(id=uuid4().hex))
                        return wire.Picture.model_validate(answer["picture"])
                except LinesideError as error:
                    if error.code not in {"desk.unreachable", "desk.lost"}:
                        raise
                    await asyncio.sleep(0)

    async def until(self, holds: Callable[[wire.Picture], bool]) -> wire.Picture:
        """The first picture of which it holds."""
        async with asyncio.timeout(self.wait_s_max):
            while True:
                picture = await self.picture()
                if holds(picture):
                    return picture
                await asyncio.sleep(0)

    async def until_state(self, batch: str, *states: str) -> wire.BatchCard:
        """The batch, once it is in one of these states."""
        return _card(await self.until(lambda picture: _card(picture, batch).state in states), batch)

    async def until_done(self, batch: str, steps: int) -> None:
        """Wait until so many steps of the batch are done."""
        await self.until(lambda picture: [line.state for line in _card(picture, batch).steps].count("done") >= steps)

    async def card(self, batch: str) -> wire.BatchCard:
        return _card(await self.picture(), batch)

    @contextlib.asynccontextmanager
    async def logged_in(self) -> AsyncIterator[DeskClient]:
        await self.picture()
        async with connect(self.folder / "state" / "desk.sock") as client:
            await client.ask(wire.LogIn(id=uuid4().hex, person="chi", pin="3690"))
            yield client

    async def ask(self, client: DeskClient, request: wire.Request) -> None:
        await client.ask(request)
        self.acknowledged.append(request.id)

    async def start_batch(self, client: DeskClient, batch: str) -> None:
        seal = (await self.picture()).recipes[0].seal
        await self.ask(client, wire.StartBatch(id=uuid4().hex, batch=batch, order="O-1", recipe=seal))

    async def act(self, client: DeskClient, batch: str, act: str) -> None:
        await self.ask(client, wire.ActOnBatch.model_validate({"id": uuid4().hex, "batch": batch, "act": act}))


def _card(picture: wire.Picture, batch: str) -> wire.BatchCard:
    return next(card for card in picture.batches if card.batch == batch)


async def at_work(box: Box, client: DeskClient, batch: str) -> None:
    """Confirm one step after the other, until the batch or the runtime does not go on."""
    try:
        for number in itertools.count(1):
            await box.ask(client, wire.ConfirmStep(id=uuid4().hex, batch=batch, step=f"{number:03}"))
            if number == STEPS:
                return
    except LinesideError as error:
        assert error.code in {"batch.not_running", "step.not_active", "desk.lost", "journal.failed"}, error


async def stop_is_written(box: Box, batch: str) -> None:
    """The judge: a person can stop the batch now, whatever is free; fails when the box does not let them."""
    async with box.logged_in() as client:
        if (await box.card(batch)).state != "complete":
            await box.act(client, batch, "stop")
    assert (await box.card(batch)).state in {"stopped", "complete"}


def says(picture: wire.Picture, words: str) -> bool:
    return any(words in notice for notice in picture.notices)


async def is_well_again(box: Box) -> None:
    await box.until(lambda picture: not says(picture, "The disk"))
    assert box.ballast.stat().st_blocks * 512 >= BALLAST_BYTES


def judge_journal(box: Box) -> None:
    """Every row holds, and every request that was acknowledged is in one."""
    report = verify_journal(box.journal)
    assert report.ok, report.fault
    with JournalReader(box.journal) as reader:
        answered = {decode(row.body).event.command_id for row in reader.rows(0, 1_000_000)}
    assert [name for name in box.acknowledged if name not in answered] == []


async def fill_in_mid_batch(box: Box, batch: str, free_bytes: int) -> None:
    """A batch is at work when another program takes the disk: it is held below the full level, STOP is written whatever
    is free, and with room the box is well again by itself."""
    async with box.logged_in() as client:
        await box.start_batch(client, batch)
        working = asyncio.create_task(at_work(box, client, batch))
        try:
            await box.until_done(batch, steps=3)
            box.fill_until(free_bytes)
            if free_bytes < FULL_BYTES:
                await box.until_state(batch, "held", "complete")
            await working
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
    assert box.ballast.exists() == (free_bytes >= FULL_BYTES)
    await stop_is_written(box, batch)
    box.make_room()
    await is_well_again(box)
