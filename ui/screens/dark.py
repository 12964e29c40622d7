"""For how long the box was off, where no trusted clock says so: two people enter the minutes, and both sign."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.wire import BatchCard, EnterDark, Picture
from ui import drawing
from ui.screens.sign import Signing
from ui.view import Ask, Front, Go, Line, Pad, Said, Target, View


def entering_dark(front: Front, batch: BatchCard, go: Go) -> tuple[tuple[object, ...], Callable[[], View]] | None:
    """The view of an entry that was asked for; None when another one is, or nobody needs it any more."""
    if batch.dark is None or go.place not in {"off", "sign-off"}:
        return None
    name, second = batch.batch, batch.dark.verifies
    view = SignDark if go.place == "sign-off" else DarkEntry
    return (go.place, name, second), lambda: view(front, name, second)


def _typed(batch: str, second: bool) -> tuple[str, str]:
    return (batch, f"dark {'second' if second else 'first'}")


def _who(front: Front, picture: Picture, batch: BatchCard) -> str:
    dark = batch.dark
    if dark is None or not dark.verifies:
        return front.words("hand.first")
    name = next((one.name for one in picture.people if one.person == dark.entered_by), dark.entered_by)
    return front.words("hand.second", name=name)


class DarkEntry(View):
    """`#minutes`, `#pad-<digit>`, `#confirm`, `#back`."""

    place: ClassVar[str] = "off"
    takes_keys: ClassVar[str] = "minutes"

    def __init__(self, front: Front, batch: str, second: bool) -> None:
        super().__init__(front)
        self._batch, self._second = batch, second

    def body(self) -> Iterator[Widget]:
        words = self.words
        with Horizontal(classes="columns"):
            with Vertical(classes="wide scroll"):
                yield Said("", id="subject")
            with Vertical(classes="narrow"):
                yield Line(self.front, _typed(self._batch, self._second), words("off.minutes"), id="minutes", length=8)
                yield Pad("pin", words, lambda: self.field("minutes"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    def on_mount(self) -> None:
        self.focus_on("minutes")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        if batch.dark is None:
            return
        lines = [
            Content.assemble((words("off.title", batch=self._batch), "bold $primary")),
            Content(words("off.explain", since=drawing.moment(batch.dark.since))),
            Content.assemble((_who(self.front, picture, batch), "bold")),
        ]
        self.write("#subject", Content("\n").join(lines))
        self.tell_now(words("off.next"), batch.reason, drawing.tone(batch.state))
        self.offer("#back", shown=True)
        self.offer("#confirm", shown=self._minutes >= 0)

    @property
    def _minutes(self) -> int:
        text = self.field("minutes").value.strip()
        return int(text) if text.isascii() and text.isdigit() else -1

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._sign()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("acts", self._batch))
        elif event.button.id == "confirm":
            self._sign()

    def _sign(self) -> None:
        if self._minutes >= 0:
            self.post_message(Go("sign-off", self._batch))


class SignDark(Signing):
    """What this person entered, and their signature. What another one entered is nowhere on it."""

    place: ClassVar[str] = "sign-off"

    def __init__(self, front: Front, batch: str, second: bool) -> None:
        super().__init__(front, batch)
        self._second = second

    @property
    def _minutes(self) -> str:
        return self.front.entries.get(_typed(self._batch, self._second), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        if batch.dark is None:
            return
        subject = [
            Content.assemble((words("off.title", batch=self._batch), "bold $primary")),
            Content.assemble((f"{words('off.minutes')}  ", "$quiet"), (self._minutes, "bold")),
            Content.assemble((f"{words('sign.meaning')}  ", "$quiet"), (words("off.meaning"), "bold")),
        ]
        self.write("#subject", Content("\n").join(subject))
        able = [one for one in self.signers(picture, batch.dark.roles) if one.person != batch.dark.entered_by]
        if self._person not in {one.person for one in able}:
            self._person = able[0].person if len(able) == 1 else ""
        await self.show_signers(able, batch.dark.roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("off", self._batch))

    def send(self, person: str, pin: str) -> None:
        request = EnterDark(
            id=uuid4().hex,
            batch=self._batch,
            minutes=int(self._minutes or 0),
            verifies=self._second,
            person=person,
            pin=pin,
        )
        self.post_message(Ask(request, [_typed(self._batch, self._second)]))
