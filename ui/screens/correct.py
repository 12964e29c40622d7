"""A value that was entered wrong: choose it, enter the right one and the reason, sign."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import uuid4

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.core.people import Permission, roles_with
from edge.wire import BatchCard, CorrectValue, Picture, ValueLine
from ui import drawing
from ui.screens.sign import Signing
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View


def entry_of(batch: str, name: str, what: str) -> Entry:
    """Where the right value ("value") or the reason ("reason") is kept until it is signed."""
    return batch, f"correct {what} {name}"


def value_in(batch: BatchCard, name: str) -> ValueLine | None:
    return next((one for one in batch.values if one.name == name), None)


class Correct(View):
    """`#choice-<n>` for each value; then `#entry`, `#reason`, `#confirm`; `#keyboard`, `#back`."""

    place: ClassVar[str] = "correct"
    takes_keys: ClassVar[str] = "entry"

    def __init__(self, front: Front, batch: str, name: str) -> None:
        super().__init__(front)
        self._batch, self._value = batch, name
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        words, batch, name = self.words, self._batch, self._value
        yield Said("", id="title")
        yield Choices(words, of="choice", per_page=4)
        yield Line(self.front, entry_of(batch, name, "value"), words("correct.value"), id="entry")
        yield Line(self.front, entry_of(batch, name, "reason"), words("act.reason"), id="reason", length=2000)
        yield Pad("letters", words, lambda: self.field("reason" if self.field("reason").has_focus else "entry"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        value = value_in(batch, self._value)
        self.offer("#back", shown=True)
        for field in ("entry", "reason"):
            self.field(field).display = value is not None
        typing = self.has_class("typing")
        self.offer("#keyboard", shown=value is not None)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        filled = all(self.field(field).value.strip() for field in ("entry", "reason"))
        self.offer("#confirm", shown=value is not None and filled)
        if value is None:
            self.write("#title", Content.assemble((words("correct.title", batch=self._batch), "bold $primary")))
            self.tell_now(words("correct.next" if batch.values else "correct.none"), "", drawing.tone(batch.state))
            self._offered = tuple(one.name for one in batch.values)
            await self.query_one(Choices).show([Choice(str(n), _label(one)) for n, one in enumerate(batch.values)])
            return
        stands = words("correct.stands", value=drawing.quantity(value.text, value.unit))
        self.write("#title", Content.assemble((f"{value.step}  {value.title}", "bold $primary"), f"\n{stands}"))
        self.tell_now(words("correct.next.value"), "", drawing.tone(batch.state))
        await self.query_one(Choices).show([])

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self.post_message(Go("correct", self._batch, choice=self._offered[int(event.name)]))

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("correct", self._batch) if self._value else Go("acts", self._batch))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("reason" if self.field("entry").value.strip() else "entry")
            await self.again()
        elif event.button.id == "confirm":
            self.post_message(Go("sign-correction", self._batch, choice=self._value))


def _label(value: ValueLine) -> Content:
    said = drawing.quantity(value.text, value.unit)
    return Content.assemble((f"{value.step}  {value.title}", "bold"), (f"  {said}", "not bold $quiet"))


class SignCorrection(Signing):
    """Old value, right value and reason side by side, and who signs."""

    place: ClassVar[str] = "sign-correction"

    def __init__(self, front: Front, batch: str, name: str) -> None:
        super().__init__(front, batch)
        self._value = name
        self._was_seq = 0

    def _typed(self, what: str) -> str:
        return self.front.entries.get(entry_of(self._batch, self._value, what), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch: BatchCard = next(card for card in picture.batches if card.batch == self._batch)
        value = value_in(batch, self._value)
        if value is None:
            return
        # what was shown when this view opened is what is signed: the desk refuses it if it changed meanwhile
        self._was_seq = self._was_seq or value.seq
        lines = [
            Content.assemble((f"{value.step}  {value.title}", "bold $primary")),
            *(
                Content.assemble((f"{words(label)}  ", "$quiet"), (text, "bold"))
                for label, text in (
                    ("correct.was", drawing.quantity(value.text, value.unit)),
                    ("correct.value", drawing.quantity(self._typed("value"), value.unit)),
                    ("act.reason", self._typed("reason")),
                    ("sign.meaning", words("correct.meaning")),
                )
            ),
        ]
        self.write("#subject", Content("\n").join(lines))
        roles = tuple(role.value for role in roles_with(Permission.CORRECT))
        await self.show_signers(self.signers(picture, roles), roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("correct", self._batch, choice=self._value))

    def send(self, person: str, pin: str) -> None:
        request = CorrectValue(
            id=uuid4().hex,
            batch=self._batch,
            name=self._value,
            was_seq=self._was_seq,
            text=self._typed("value"),
            reason=self._typed("reason"),
            person=person,
            pin=pin,
        )
        kept = [entry_of(self._batch, self._value, what) for what in ("value", "reason")]
        self.post_message(Ask(request, kept))
