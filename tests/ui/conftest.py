"""A screen at a scripted desk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from edge.wire import Picture
from tests.ui.scripted import Desk, scripted_desk
from ui.app import LinesideApp

SMALL, KIOSK = (80, 24), (120, 33)


@dataclass
class Screen:
    """A running app, hands to use it and the desk behind it."""

    app: LinesideApp
    pilot: Pilot[None]
    desk: Desk

    async def until(self, holds: Callable[[], object]) -> None:
        """Go on when it holds; what never does fails with what stood on the screen."""
        try:
            async with asyncio.timeout(60):
                while not holds():
                    await self.pilot.pause()
        except TimeoutError:
            pytest.fail(f"at {self.app.place!r}:\n{self.text()}")
        for _ in range(2):
            await self.pilot.pause()

    async def at(self, place: str) -> None:
        """Wait for a place."""
        await self.until(lambda: self.app.place == place)

    def shows(self, selector: str) -> bool:
        """Whether a widget is there to be seen and used."""
        return any(widget.display and not widget.disabled for widget in self.app.query(selector))

    def text(self) -> str:
        """All that stands on the screen."""
        size = self.app.size
        strips = [self.app.screen._compositor.render_strips()][0]
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips[: size.height])

    def says(self, words: str) -> bool:
        """Whether these words stand on the screen, however the lines break."""
        return " ".join(words.split()) in " ".join(self.text().split())

    def value(self, name: str) -> str:
        """What a field holds."""
        return self.app.query_one(f"#{name}", Input).value

    def static(self, name: str) -> str:
        """The words of a text."""
        return str(self.app.query_one(f"#{name}", Static).content)

    async def scan(self, code: str) -> None:
        """A wedge scanner: fast keys and Enter."""
        await self.pilot.press(*code, "enter")

    async def click(self, selector: str) -> None:
        """A finger."""
        await self.until(lambda: self.shows(selector))
        assert await self.pilot.click(selector), f"{selector} is hidden behind something"
        await self.pilot.pause()


Opener = Callable[..., AbstractAsyncContextManager[Screen]]


@pytest.fixture
def open_screen(tmp_path: Path) -> Opener:
    """`async with open_screen(picture, size=..., **options) as screen`; time stands still unless `now_s` is given."""

    @asynccontextmanager
    async def opened(
        picture: Picture, *, size: tuple[int, int] = SMALL, desk: Desk | None = None, **options: Any
    ) -> AsyncIterator[Screen]:
        options.setdefault("now_s", lambda: 0.0)
        if desk is None:
            async with (
                scripted_desk(tmp_path / "desk.sock", picture) as own,
                opened(picture, size=size, desk=own, **options) as screen,
            ):
                yield screen
            return
        app = LinesideApp(desk.path, **options)
        async with app.run_test(size=size) as pilot:
            screen = Screen(app, pilot, desk)
            await screen.until(lambda: app.place not in {"", "gone"})
            yield screen

    return opened
