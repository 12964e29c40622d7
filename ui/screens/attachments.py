"""What is attached to a step: texts are read here; of pictures, videos and PDF it is said where they are shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button

from edge.wire import AttachmentLine, Picture
from ui import drawing
from ui.view import Choice, Choices, Front, Go, Open, Said, Target, View

TEXTS = ("txt", "md")


class Attachments(View):
    """`#attachment-<n>`; of one that is a text `#up` and `#down`; `#back`."""

    place: ClassVar[str] = "attachments"

    def __init__(self, front: Front, batch: str, step: str, sha256: str) -> None:
        super().__init__(front)
        self._batch, self._step, self._sha256 = batch, step, sha256
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        if self._sha256:
            with VerticalScroll(id="page", can_focus=False):
                yield Said("", id="facts")
        else:
            yield Choices(self.words, of="attachment", per_page=4)

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.up"), id="up", key="f6")
        yield Target(self.words("do.down"), id="down", key="f7", kind="primary")

    def _cards(self, picture: Picture) -> tuple[AttachmentLine, ...]:
        batch = next(card for card in picture.batches if card.batch == self._batch)
        return next((card.attachments for card in batch.active if card.step == self._step), ())

    async def show(self, picture: Picture) -> None:
        words = self.words
        lines = self._cards(picture)
        one = next((line for line in lines if line.sha256 == self._sha256), None)
        is_text = one is not None and one.file.rpartition(".")[2] in TEXTS
        self.offer("#back", shown=True)
        self.offer("#up", shown=is_text)
        self.offer("#down", shown=is_text)
        batch = next(card for card in picture.batches if card.batch == self._batch)
        tone = drawing.tone(batch.state)
        if not self._sha256:
            self.write("#title", Content.assemble((words("attachments.title"), "bold $primary")))
            self.tell_now(words("attachments.next" if lines else "attachments.none"), "", tone)
            self._offered = tuple(line.sha256 for line in lines)
            choices = [Choice(str(n), Content.assemble((line.title, "bold"), (f"  {line.file}", "not bold $quiet")))
                       for n, line in enumerate(lines)]  # fmt: skip
            await self.query_one(Choices).show(choices)
            return
        if one is None:
            self.tell_now(words("attachments.none"), "", tone)
            return
        self.write("#title", Content.assemble((one.title, "bold $primary"), (f"  {one.file}", "$quiet")))
        if not is_text:
            self.tell_now(words("attachments.elsewhere"), "", tone)
            command = f"lineside recipe attachment {one.sha256[:16]} --out {one.file}"
            kind = words(f"attachments.kind.{one.file.rpartition('.')[2]}")
            self.write("#facts", Content(f"{kind}\n\n{command}\n\nSHA-256 {one.sha256}"))
            return
        text = self.front.texts.get(self._sha256)
        if text is None:
            self.front.texts[self._sha256] = ""
            self.post_message(Open(self._sha256))
        self.tell_now(words("attachments.read" if text else "attachments.opening"), "", tone)
        self.write("#facts", Content(text or ""))

    def on_choices_picked(self, event: Choices.Picked) -> None:
        self.post_message(Go("attachments", self._batch, self._step, self._offered[int(event.name)]))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            back = Go("attachments", self._batch, self._step) if self._sha256 else Go("auto", self._batch, self._step)
            self.post_message(back)
        elif event.button.id in {"up", "down"}:
            page = self.query_one("#page", VerticalScroll)
            move = page.scroll_page_up if event.button.id == "up" else page.scroll_page_down
            move(animate=False)
