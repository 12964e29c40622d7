"""A code scanner on a serial line, for the screen that it stands beside.

A code is what comes between `prefix` and `suffix`, of printable characters and the separators of GS1 codes. Whatever
else comes is no code, and is said: characters without an end, more than a code can have, others than a code has, a
beginning that is not the prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from drivers.wire import OPEN_ERRORS, Line, WireLost, serial_wire
from edge.equipment import retry_delays_s

CODE_BYTES_MAX: Final = 512
GAP_S: Final = 1.0
"""A scanner sends a code in one go: what has no end after so long is none."""
SUFFIXES: Final = {"CR": b"\r", "LF": b"\n", "CRLF": b"\r\n", "TAB": b"\t", "ETX": b"\x03"}
GROUP: Final = 0x1D
"""Separates elements of a GS1 code."""
NOT_A_CODE: Final = "The scanner sent something that is no code"


class ScannerSettings(Line):
    """The line, and what stands around a code."""

    prefix: Annotated[str, Field(max_length=16, pattern=r"^[\x21-\x7e]*$")] = ""
    suffix: Literal["CR", "LF", "CRLF", "TAB", "ETX"] = "CR"

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.line:
            raise ValueError("name the line, like /dev/ttyUSB0")
        return self


class Codes:
    """Cuts codes out of what comes."""

    def __init__(self, settings: ScannerSettings) -> None:
        self._prefix, self._suffix = settings.prefix.encode(), SUFFIXES[settings.suffix]
        self._received = bytearray()
        self._too_long = False

    @property
    def waits(self) -> bool:
        """A code has begun and not ended."""
        return bool(self._received) or self._too_long

    def take(self, data: bytes) -> list[tuple[str, str]]:
        """The codes that end in what came, each with an empty sentence; in the place of what is none "" and why."""
        self._received += data
        found = []
        while (end := self._received.find(self._suffix)) >= 0:
            piece = bytes(self._received[:end])
            del self._received[: end + len(self._suffix)]
            if self._too_long:
                self._too_long = False  # the rest of what was told already
            elif piece:
                found.append(self._judged(piece))
        if len(self._received) > CODE_BYTES_MAX:
            self._received.clear()
            if not self._too_long:
                found.append(("", f"{NOT_A_CODE}: more than {CODE_BYTES_MAX} characters without an end."))
            self._too_long = True
        return found

    def give_up(self) -> str:
        """What has begun has no end: it is forgotten. Why, in a sentence; "" when that was said."""
        told, self._too_long = self._too_long, False
        self._received.clear()
        return "" if told else f"{NOT_A_CODE}: it has no end. Scan it again."

    def _judged(self, piece: bytes) -> tuple[str, str]:
        if not piece.startswith(self._prefix):
            return "", f"{NOT_A_CODE}: it does not begin with {self._prefix.decode()}."
        code = piece.removeprefix(self._prefix)
        if len(piece) > CODE_BYTES_MAX or not code or not all(0x20 <= byte <= 0x7E or byte == GROUP for byte in code):
            return "", f"{NOT_A_CODE}: it cannot be read. Scan it again."
        return code.decode("ascii"), ""


async def listen(settings: ScannerSettings, on_code: Callable[[str], None], on_trouble: Callable[[str], None]) -> None:
    """Give every code to `on_code` until cancelled; connect again and again. `on_trouble` is told why there is none,
    and "" when all is well again."""
    delays = retry_delays_s()
    while True:
        try:
            wire = await serial_wire(settings)
        except OPEN_ERRORS as error:
            on_trouble(f"There is no scanner at {settings.line} ({error}).")
            await asyncio.sleep(next(delays))
            continue
        on_trouble("")
        delays, codes = retry_delays_s(), Codes(settings)
        try:
            while True:
                try:
                    async with asyncio.timeout(GAP_S if codes.waits else None):
                        await wire.more()
                except TimeoutError:
                    if why := codes.give_up():
                        on_trouble(why)
                    continue
                data = bytes(wire.received)
                wire.received.clear()
                for code, why in codes.take(data):
                    on_trouble(why)
                    if code:
                        on_code(code)
        except WireLost:
            on_trouble(f"The scanner at {settings.line} is gone.")
        finally:
            wire.close()
        await asyncio.sleep(next(delays))
