"""Scanners as a whole, from their line to the desk: the simulated one at a serial line beside the screen, and as a
keyboard wedge that types into its terminal. One scan is one entry, and no bad scan ever becomes one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from drivers.scanner import ScannerSettings, listen
from drivers.sim.control import SimControl
from drivers.sim.scanner import SimScanner
from edge.core.errors import LinesideError
from edge.core.forms import TEXT_CHARS_MAX
from edge.wire import Picture, ScanCode
from tests.ui.scripted import SCAN, Desk, make_batch, make_picture, scripted_desk
from tests.ui.test_terminal import Terminal
from ui.view import CODE_CHARS_MAX

SCREEN = """
import sys
from functools import partial
from pathlib import Path
from drivers.scanner import ScannerSettings, listen
from ui import app

{plant}
desk, line, clock = sys.argv[1:]
scanner = partial(listen, ScannerSettings(line=line))
app.LinesideApp(Path(desk), now_s=lambda: float(Path(clock).read_text()), scanner=scanner).run()
"""


class Bench:
    """A screen at a desk that asks for one code after another; `entries` are those that it was given."""

    def __init__(self, desk: Desk, terminal: Terminal, lines: dict[str, SimScanner], clock: Path) -> None:
        self._desk, self._terminal, self._clock = desk, terminal, clock
        self.lines, self.scanner = lines, lines["wedge"]
        self._now_s, self._from = 0.0, 0
        desk.on = self._taken

    @property
    def entries(self) -> list[str]:
        return [one.text for one in self._desk.of(ScanCode)]

    def _taken(self, request: object) -> Picture | None:
        return asking(len(self.entries)) if isinstance(request, ScanCode) else None

    def wait(self, seconds: float) -> None:
        """Let the screen's time pass."""
        self._now_s += seconds
        new = self._clock.with_suffix(".new")
        new.write_text(str(self._now_s))
        new.replace(self._clock)

    async def seen(self, words: str) -> None:
        """These stand on the screen, drawn since the last look."""
        await self._terminal.until(lambda: words in self._terminal.seen[self._from :])
        self._from = len(self._terminal.seen)

    async def scan(self, code: str, fault: str = "") -> None:
        """Scan, and see the screen ask for the next one."""
        before = len(self.entries)
        self.scanner.scan(code, fault)
        await self.seen(f"ITEM {before + 1} ")
        assert self.entries[before] == code


def asking(number: int) -> Picture:
    card = SCAN.model_copy(update={"step": f"{number:03}", "title": f"ITEM {number} "})
    return make_picture(make_batch(card))


@asynccontextmanager
async def bench(folder: Path, plant: str = "") -> AsyncIterator[Bench]:
    """A scanner of either kind at the screen; `plant` is Python, a bug."""
    clock, (ours, theirs) = folder / "clock", os.openpty()
    clock.write_text("0")
    for end in (ours, theirs):
        tty.setraw(end)
    try:
        async with (
            scripted_desk(folder / "desk.sock", asking(0)) as desk,
            Terminal("-c", SCREEN.format(plant=plant), str(desk.path), os.ttyname(theirs), str(clock)) as terminal,
        ):
            lines = {"serial": SimScanner(lambda data: os.write(ours, data)), "wedge": SimScanner(terminal.send)}
            made = Bench(desk, terminal, lines, clock)
            await made.seen("ITEM 0 ")
            yield made
    finally:
        os.close(ours)
        os.close(theirs)


async def test_one_scan_is_one_entry_and_no_bad_scan_becomes_one(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        for way, said in (("serial", "is no code"), ("wedge", "was not taken")):
            scanner = made.scanner = made.lines[way]
            await made.scan("QB-2", "doubled")
            for fault in ("noise", "too_long"):
                scanner.scan("QD-4", fault)
                await made.seen(said)
                await made.scan(f"QE-{fault}")
            scanner.scan("QG-7", "cut")
            if way == "wedge":
                await made.seen("QG")
                made.wait(1.0)
                scanner.scan("QH-8")  # behind the rest: nobody knows which of it is the code
            await made.seen(said)
            await made.scan("QI-9", "other_end" if way == "wedge" else "")
            made.wait(1.0)
        good = len(made.entries)
        scanner.scan("QK-11", "two_at_once")
        await made.seen(f"ITEM {good + 1} ")
        assert made.entries[good:] in (["QK-11"], ["QK-11", "11-KQ"])


async def test_planted_bug_a_field_that_ends_a_code_late_is_found(tmp_path: Path) -> None:
    """As textual's own field does: what follows the Enter is in the field before that is acted upon."""
    async with bench(tmp_path, plant="from ui.view import Code; del Code.on_key") as made:
        with pytest.raises(AssertionError, match="QA-1QA-1"):
            await made.scan("QA-1", "doubled")


async def test_the_simulated_scanner_is_a_device_of_its_own(tmp_path: Path) -> None:
    control = tmp_path / "scanner.sock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "drivers.sim", "scanner", "--control", str(control),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    heard: asyncio.Queue[str] = asyncio.Queue()
    line = json.loads(await process.stdout.readline())["line"]
    listening = asyncio.create_task(listen(ScannerSettings(line=line), heard.put_nowait, heard.put_nowait))
    try:
        assert await heard.get() == ""
        scanner = SimControl(control)
        await scanner.ask(do="scan", code="LOT-7")
        assert [await heard.get(), await heard.get()] == ["", "LOT-7"]
        for wrong in ({"code": ""}, {"code": "LOT-7", "fault": "nonsense"}, {"code": 7}, {"code": "\u00fc"}):
            with pytest.raises(LinesideError) as error:
                await scanner.ask(do="scan", **wrong)
            assert error.value.code == "sim.refused"
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        process.stdin.close()
        await process.wait()


def test_the_screen_takes_as_long_a_code_as_the_core() -> None:
    assert CODE_CHARS_MAX == TEXT_CHARS_MAX
