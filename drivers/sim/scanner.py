"""The simulated scanner: what one sends for a code, as it should be or with a fault.

Where it sends to is given: a serial line, or, as a keyboard wedge, the terminal of a screen, which gets the same bytes.
On its own it is at a serial line that it makes: `{"do": "scan", "code": "LOT-7"}` on its control channel scans, with
`"fault": "cut"` or another of `FAULTS`.
"""

from __future__ import annotations

import os
import tty
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from drivers.sim.control import Faults, serve_control

END: Final = b"\r"
CODE_MAX: Final = 256
LONG: Final = 600
FAULTS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "": lambda code: code + END,
    "cut": lambda code: code[: (len(code) + 1) // 2],
    "doubled": lambda code: (code + END) * 2,
    "noise": lambda code: code[:2] + b"\x00\xff\x07" + code[2:] + END,
    "two_at_once": lambda code: code + END + code[::-1] + END,
    "too_long": lambda code: (code * LONG)[:LONG] + END,
    "other_end": lambda code: code + b"\n",
}
"""What is sent for a code."""


class SimScanner:
    """A scanner; `send` is its line."""

    def __init__(self, send: Callable[[bytes], object]) -> None:
        self._send = send

    def scan(self, code: str, fault: str = "") -> None:
        """Send a code, with one of `FAULTS`. Raises ValueError for another one, or for what no scanner reads."""
        if fault not in FAULTS or not 0 < len(code) <= CODE_MAX:
            raise ValueError(f"a code has 1 to {CODE_MAX} characters; the faults are {', '.join(FAULTS)}")
        self._send(FAULTS[fault](code.encode("ascii")))


@asynccontextmanager
async def serve_scanner(control: Path) -> AsyncIterator[str]:
    """A scanner on a serial line of its own until left; gives the path where it is heard."""
    ours, theirs = os.openpty()
    try:
        for end in (ours, theirs):
            tty.setraw(end)
        os.set_blocking(ours, False)

        def send(data: bytes) -> None:
            with suppress(BlockingIOError):  # nobody hears, and the line is full: it is lost
                os.write(ours, data)

        faults = Faults((), ())
        faults.scan = SimScanner(send).scan
        async with serve_control(control, faults):
            yield os.ttyname(theirs)
    finally:
        os.close(ours)
        os.close(theirs)
