"""A scanner on a line of its own: its codes go where its keys would go, and never into what is to be typed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from textual.events import Paste

from edge.wire import EnterValue, ScanCode
from tests.ui.conftest import Opener, Screen
from tests.ui.scripted import RECORD, SCAN, make_batch, make_picture


class Beside:
    """A scanner that a test holds in its hand."""

    code: Callable[[str], None]
    trouble: Callable[[str], None]

    async def run(self, on_code: Callable[[str], None], on_trouble: Callable[[str], None]) -> None:
        self.code, self.trouble = on_code, on_trouble
        await asyncio.Event().wait()


async def test_a_code_is_the_answer_of_a_step_that_asks_for_one(open_screen: Opener) -> None:
    scanner = Beside()
    async with open_screen(make_picture(make_batch(SCAN)), scanner=scanner.run) as screen:
        await screen.at("step")
        scanner.code("LOT-7")
        await screen.until(lambda: screen.desk.of(ScanCode))
        assert screen.desk.of(ScanCode)[0].text == "LOT-7"
        scanner.trouble("The scanner at /dev/ttyUSB0 is gone.")
        await screen.until(lambda: screen.says("The scanner at /dev/ttyUSB0 is gone."))
        scanner.trouble("")
        await screen.until(lambda: not screen.shows("#scanner"))


async def by_scanner(screen: Screen) -> None:
    await screen.scan("LOT-1")


async def by_the_keys_of_the_screen(screen: Screen) -> None:
    await screen.click("#keyboard")
    await screen.click(".letters #pad-b")
    await screen.pilot.press("enter")


async def by_pasting(screen: Screen) -> None:
    screen.app.query_one("#scan").post_message(Paste("LOT-4"))
    await screen.until(lambda: screen.value("scan") == "LOT-4")
    await screen.pilot.press("enter")


@pytest.mark.parametrize(
    ("enter", "typed"), [(by_scanner, False), (by_the_keys_of_the_screen, True), (by_pasting, True)]
)
async def test_what_somebody_typed_is_not_said_to_be_scanned(
    open_screen: Opener, enter: Callable[[Screen], Awaitable[None]], typed: bool
) -> None:
    async with open_screen(make_picture(make_batch(SCAN))) as screen:
        await screen.at("step")
        await enter(screen)
        await screen.until(lambda: screen.desk.of(ScanCode))
        assert [one.typed for one in screen.desk.of(ScanCode)] == [typed]


async def test_beside_a_scanner_with_a_line_of_its_own_the_keyboard_is_no_scanner(open_screen: Opener) -> None:
    scanner = Beside()
    async with open_screen(make_picture(make_batch(SCAN)), scanner=scanner.run) as screen:
        await screen.at("step")
        await screen.scan("LOT-1")
        await screen.until(lambda: len(screen.desk.of(ScanCode)) == 1)
        scanner.code("LOT-2")
        await screen.until(lambda: len(screen.desk.of(ScanCode)) == 2)
        assert [one.typed for one in screen.desk.of(ScanCode)] == [True, False]


async def test_a_code_is_never_typed_into_a_step_that_asks_for_a_value(open_screen: Opener) -> None:
    scanner = Beside()
    async with open_screen(make_picture(make_batch(RECORD)), scanner=scanner.run) as screen:
        await screen.at("step")
        scanner.code("91")
        await screen.until(lambda: screen.says("A code was scanned, but this step asks for none"))
        assert not screen.desk.of(EnterValue)
        assert not any(field.value for field in screen.app.query("Input"))  # type: ignore[attr-defined]
