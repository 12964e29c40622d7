"""Results that were pending: choose one, enter what it is, sign it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import uuid4

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.core.people import Permission, roles_with
from edge.wire import AddResult, BatchCard, Picture, ResultCard
from ui import drawing
from ui.screens.sign import Signing
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View


def entry_of(batch: str, result: str) -> Entry:
    """Where what was typed for a result is kept until it is signed."""
    return batch, f"result {result}"


class Results(View):
    """`#choice-<n>` for each open result; then `#entry` or `#choice-<n>` for its value, `#confirm`; `#back`."""

    place: ClassVar[str] = "results"
    takes_keys: ClassVar[str] = "entry"

    def __init__(self, front: Front, batch: str, result: str) -> None:
        super().__init__(front)
        self._batch, self._result = batch, result
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        words = self.words
        yield Said("", id="title")
        yield Choices(words, of="choice", per_page=4)
        yield Line(self.front, entry_of(self._batch, self._result), words("step.entry"), id="entry")
        yield Pad("letters", words, lambda: self.field("entry"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        card = next((one for one in batch.results if one.result == self._result), None)
        text = self.front.entries.get(entry_of(self._batch, self._result), "").strip()
        self.field("entry").display = card is not None and not card.choices
        typing = self.has_class("typing")
        self.offer("#back", shown=True)
        self.offer("#keyboard", shown=card is not None and not card.choices)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#confirm", shown=card is not None and bool(text))
        if card is None:
            self.write("#title", Content.assemble((words("results.title", batch=self._batch), "bold $primary")))
            self.tell_now(words("results.next" if batch.results else "results.none"), "", drawing.tone(batch.state))
            self._offered = tuple(one.result for one in batch.results)
            await self.query_one(Choices).show(
                [Choice(str(n), self._label(one)) for n, one in enumerate(batch.results)]
            )
            return
        limit = drawing.limit(words, card.low, card.high, card.unit)
        told = Content.assemble(
            (f"{card.step}  {card.title}", "bold $primary"),
            (f"\n{words('step.limit')}  {limit}" if limit else "", ""),
            (f"\n{words('results.interim', value=card.interim)}" if card.interim else "", "$quiet"),
        )
        self.write("#title", told)
        self.tell_now(words("results.next.value"), "", drawing.tone(batch.state))
        self._offered = card.choices
        await self.query_one(Choices).show(
            [Choice(str(n), Content(one), chosen=one == text) for n, one in enumerate(card.choices)]
        )

    def _label(self, card: ResultCard) -> Content:
        unit = drawing.unit_sign(card.unit)
        return Content.assemble(
            (f"{card.step}  {card.title}", "bold"), (f"  {unit}  {card.interim}", "not bold $quiet")
        )

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        picked = self._offered[int(event.name)]
        if not self._result:
            self.post_message(Go("results", self._batch, choice=picked))
            return
        self.front.entries[entry_of(self._batch, self._result)] = picked
        await self.again()

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("results", self._batch) if self._result else Go("acts", self._batch))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("entry")
            await self.again()
        elif event.button.id == "confirm":
            self.post_message(Go("add-result", self._batch, choice=self._result))


class SignResult(Signing):
    """The result that was entered, and who signs it."""

    place: ClassVar[str] = "add-result"

    def __init__(self, front: Front, batch: str, result: str) -> None:
        super().__init__(front, batch)
        self._result = result

    @property
    def _text(self) -> str:
        return self.front.entries.get(entry_of(self._batch, self._result), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch: BatchCard = next(card for card in picture.batches if card.batch == self._batch)
        card = next(one for one in batch.results if one.result == self._result)
        subject = [
            Content.assemble((f"{card.step}  {card.title}", "bold $primary")),
            Content.assemble((drawing.quantity(self._text, card.unit), "bold")),
            Content.assemble((f"{words('sign.meaning')}  ", "$quiet"), (words("results.meaning"), "bold")),
        ]
        self.write("#subject", Content("\n").join(subject))
        roles = tuple(role.value for role in roles_with(Permission.RESULT))
        await self.show_signers(self.signers(picture, roles), roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("results", self._batch, choice=self._result))

    def send(self, person: str, pin: str) -> None:
        request = AddResult(
            id=uuid4().hex, batch=self._batch, result=self._result, text=self._text, person=person, pin=pin
        )
        self.post_message(Ask(request, [entry_of(self._batch, self._result)]))
