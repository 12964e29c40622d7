"""The real program in a real terminal: killed in the middle of an entry, it comes back with the entry."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.ui.scripted import RECORD, make_batch, make_picture, scripted_desk


class Terminal:
    """A Python program in a pseudo-terminal of 80×24; `seen` is all it has drawn."""

    def __init__(self, *command: str) -> None:
        self._command = command
        self.seen = ""
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color"},
            cwd=Path(__file__).parents[2],
        )
        os.close(theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
        await self.process.wait()
        os.close(self._ours)

    def _read(self) -> None:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the other side was closed: the program has ended
            asyncio.get_running_loop().remove_reader(self._ours)
            data = b""
        self.seen += data.decode(errors="replace")
        self._changed.set()

    def hang_up(self) -> None:
        """The terminal goes away, as when a connection breaks."""
        asyncio.get_running_loop().remove_reader(self._ours)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), self._ours)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def press(self, keys: str) -> None:
        self.send(keys.encode())

    def send(self, data: bytes) -> None:
        os.write(self._ours, data)


def memory_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


async def test_half_an_entry_survives_the_screen_being_killed(tmp_path: Path) -> None:
    picture = make_picture(make_batch(RECORD, next_action="Enter the share."))
    async with scripted_desk(tmp_path / "desk.sock", picture) as desk:
        async with Terminal("-m", "ui", "--desk", str(desk.path)) as first:
            await first.until(lambda: "Value in %" in first.seen)
            first.press("41.7")
            await first.until(lambda: desk.drafts == {("B-2026-014", "060"): "41.7"} and "draft saved" in first.seen)
            # `bench footprint` measures it: this sees when something large is imported
            assert memory_kib(first.process.pid) < 80 * 1024
        async with Terminal("-m", "ui", "--desk", str(desk.path)) as second:
            await second.until(lambda: "Value in %" in second.seen and "41.7" in second.seen)
            assert second.process.returncode is None


async def test_a_screen_without_its_terminal_ends(tmp_path: Path) -> None:
    """Nobody sends it SIGHUP here: it is not the terminal of a session, or one that ignores that."""
    picture = make_picture(make_batch(RECORD, next_action="Enter the share."))
    async with (
        scripted_desk(tmp_path / "desk.sock", picture) as desk,
        Terminal("-m", "ui", "--desk", str(desk.path)) as terminal,
    ):
        await terminal.until(lambda: "Value in %" in terminal.seen)
        terminal.hang_up()
        async with asyncio.timeout(60):
            assert await terminal.process.wait() is not None


HANDS = """
import sys
from pathlib import Path
from ui.app import LinesideApp

async def fly(pilot):
    await pilot.press("escape")

app = LinesideApp(Path(sys.argv[1]), on_real_key=lambda: Path(sys.argv[2]).write_text("hand"))
app.run(auto_pilot=fly)
"""


async def test_real_hands_are_told_from_a_pilots(tmp_path: Path) -> None:
    picture = make_picture(make_batch(RECORD, next_action="Enter the share."))
    marker = tmp_path / "hands"
    async with (
        scripted_desk(tmp_path / "desk.sock", picture) as desk,
        Terminal("-c", HANDS, str(desk.path), str(marker)) as terminal,
    ):
        await terminal.until(lambda: "Value in %" in terminal.seen)
        assert not marker.exists()
        terminal.press("7")
        await terminal.until(lambda: ("B-2026-014", "060") in desk.drafts and "draft saved" in terminal.seen)
        assert marker.read_text() == "hand"
