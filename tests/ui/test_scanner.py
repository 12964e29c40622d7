"""A scanner on a line of its own: its codes go where its keys would go, and never into what is to be typed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.wire import EnterValue, ScanCode
from tests.ui.conftest import Opener
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


async def test_a_code_is_never_typed_into_a_step_that_asks_for_a_value(open_screen: Opener) -> None:
    scanner = Beside()
    async with open_screen(make_picture(make_batch(RECORD)), scanner=scanner.run) as screen:
        await screen.at("step")
        scanner.code("91")
        await screen.until(lambda: screen.says("A code was scanned, but this step asks for none"))
        assert not screen.desk.of(EnterValue)
        assert not any(field.value for field in screen.app.query("Input"))  # type: ignore[attr-defined]
