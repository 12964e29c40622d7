"""Lock: badge or name, and the PIN."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.wire import LogIn, Picture
from ui.view import Ask, Choice, Choices, Entry, Front, Line, Pad, Said, Target, View

BADGE: Final[Entry] = ("", "badge")
PERSON: Final[Entry] = ("", "person")


class Lock(View):
    """`#badge`, `#person-<id>`, `#pin`, `#pad-<digit>`, `#log-in`."""

    place: ClassVar[str] = "lock"
    takes_keys: ClassVar[str] = "badge"
    starts_at: ClassVar[str] = "badge"

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._person = front.entries.get(PERSON, "")

    def body(self) -> Iterator[Widget]:
        words = self.words
        with Horizontal(classes="columns"):
            with Vertical(classes="wide"):
                yield Line(self.front, BADGE, words("lock.badge"), id="badge", replaced_by_typing=True)
                yield Said(words("lock.or_name"), classes="label", markup=False)
                yield Choices(words, of="person", per_page=4)
            with Vertical(classes="narrow"):
                yield Line(self.front, None, words("lock.pin"), id="pin", secret=True, length=64)
                yield Pad("pin", words, lambda: self.field("pin"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.log_in"), id="log-in", key="f8", kind="primary")

    def on_mount(self) -> None:
        if self._person:
            self.focus_on("pin")

    async def show(self, picture: Picture) -> None:
        people = [
            Choice(person.person, Content(person.name), chosen=person.person == self._person)
            for person in picture.people
        ]
        await self.query_one(Choices).show(people)
        known = bool(self._person or self.field("badge").value)
        self.tell_now(self.words("lock.next.pin" if known else "lock.next.who"))
        self.offer("#log-in", shown=known)

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self._person = self.front.entries[PERSON] = event.name
        self.field("badge").value = ""
        self.focus_on("pin")
        await self.again()

    async def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "badge" and event.value:
            self._person = self.front.entries[PERSON] = ""
        await self.again()

    async def scanned(self, code: str) -> None:
        """A code is a badge here."""
        self.take_code(self.field("badge"), code)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "badge" and event.value:
            self.focus_on("pin")
        elif event.input.id == "pin":
            self._log_in()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "log-in":
            self._log_in()

    def _log_in(self) -> None:
        badge, pin = self.field("badge").value.strip(), self.field("pin").value
        if not (badge or self._person) or not pin:
            return
        self.field("pin").value = ""
        request = LogIn(id=uuid4().hex, badge=badge, person="" if badge else self._person, pin=pin)
        self.post_message(Ask(request, (BADGE, PERSON)))
