"""A scanner on a serial line: what is a code, what never becomes one, and that it is missed and found again."""

from __future__ import annotations

import asyncio
import os
import tty
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.scanner import CODE_BYTES_MAX, Codes, ScannerSettings, listen

PLAIN = ScannerSettings(line="/dev/null")
FRAMED = ScannerSettings(line="/dev/null", prefix="]", suffix="CRLF")


def codes(data: bytes, settings: ScannerSettings = PLAIN) -> list[str]:
    return [code for code, _ in Codes(settings).take(data) if code]


@pytest.mark.parametrize(
    ("data", "framed", "wanted"),
    [
        (b"LOT-1\r", PLAIN, ["LOT-1"]),
        (b"LOT-1\rLOT-2\rLOT", PLAIN, ["LOT-1", "LOT-2"]),
        (b"\r\r", PLAIN, []),
        (b"10LOT7\x1d17260131\r", PLAIN, ["10LOT7\x1d17260131"]),
        (b"LOT\x00-1\r", PLAIN, []),
        (b"LOT\xff-1\rLOT-2\r", PLAIN, ["LOT-2"]),
        (b"]LOT-1\r\n", FRAMED, ["LOT-1"]),
        (b"LOT-1\r\n]\r\n]LOT-2\r\n", FRAMED, ["LOT-2"]),
        (b"x" * (CODE_BYTES_MAX + 1) + b"\rLOT-2\r", PLAIN, ["LOT-2"]),
    ],
)
def test_only_what_is_whole_is_a_code(data: bytes, framed: ScannerSettings, wanted: list[str]) -> None:
    assert codes(data, framed) == wanted


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=40), max_size=30))
def test_noise_is_no_code_however_it_is_cut(pieces: list[bytes]) -> None:
    cut, whole = Codes(PLAIN), b"".join(pieces)
    found = [code for piece in pieces for code, _ in cut.take(piece) if code]
    parts = whole.split(b"\r")[:-1]
    allowed = {*range(0x20, 0x7F), 0x1D}
    assert found == [part.decode() for part in parts if part and allowed.issuperset(part)]


def test_what_has_no_end_is_told_once_and_never_grows() -> None:
    cut, told = Codes(PLAIN), []
    for _ in range(100):
        told += [why for _, why in cut.take(b"x" * 100)]
    assert len(told) == 1
    assert "without an end" in told[0]
    assert cut.waits
    assert cut.give_up() == ""
    assert cut.take(b"LOT-1\r") == [("LOT-1", "")]
    cut.take(b"LOT-")
    assert "no end" in cut.give_up()
    assert cut.take(b"2\r") == [("2", "")]


@pytest.mark.parametrize(
    "wrong", [{}, {"line": "x", "suffix": "STX"}, {"line": "x", "baud": 1}, {"line": "x", "prefix": " "}]
)
def test_what_it_cannot_use_is_told(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ScannerSettings.model_validate(wrong)


class Desk:
    """What was heard."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.said: list[str] = []
        self.news = asyncio.Event()

    def code(self, code: str) -> None:
        self.codes.append(code)
        self.news.set()

    def trouble(self, why: str) -> None:
        self.said.append(why)
        self.news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():
                self.news.clear()
                await self.news.wait()


async def test_a_scanner_is_heard_missed_and_heard_again(tmp_path: Path) -> None:
    line, desk = tmp_path / "scanner", Desk()
    listening = asyncio.create_task(listen(ScannerSettings(line=str(line)), desk.code, desk.trouble))
    try:
        await desk.until(lambda: bool(desk.said))
        assert "There is no scanner" in desk.said[0]
        for turn in ("1", "2"):
            ours, theirs = os.openpty()
            tty.setraw(theirs)
            line.unlink(missing_ok=True)
            line.symlink_to(os.ttyname(theirs))
            desk.said.clear()
            await desk.until(lambda: desk.said[-1:] == [""])
            os.write(ours, f"LOT-{turn}\rNO\x00ISE\r".encode())
            await desk.until(lambda: "cannot be read" in desk.said[-1])
            assert desk.codes[-1] == f"LOT-{turn}"
            os.close(theirs)
            os.close(ours)
            await desk.until(lambda: "gone" in desk.said[-1] or "no scanner" in desk.said[-1])
        assert desk.codes == ["LOT-1", "LOT-2"]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_a_code_without_its_end_is_dropped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.scanner.GAP_S", 0.05)
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    desk = Desk()
    listening = asyncio.create_task(listen(ScannerSettings(line=os.ttyname(theirs)), desk.code, desk.trouble))
    try:
        await desk.until(lambda: desk.said == [""])
        os.write(ours, b"LOT-")
        await desk.until(lambda: "no end" in desk.said[-1])
        os.write(ours, b"LOT-7\r")
        await desk.until(lambda: bool(desk.codes))
        assert desk.codes == ["LOT-7"]
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        os.close(ours)
        os.close(theirs)
