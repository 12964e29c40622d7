"""Acts: hold, resume, pause, stop or abort a batch, with a reason; start one that waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, Literal, cast
from uuid import uuid4

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.core.people import Permission, permitted
from edge.core.terms import TRANSITIONS
from edge.wire import ActOnBatch, BatchCard, Picture
from ui import drawing
from ui.screens.amend import may_amend
from ui.view import ROWS, Ask, Choice, Choices, Front, Go, Line, Pad, Said, Target, View

BESIDE: Final = 12
"""Columns of a choice that its words do not have."""


def permitted_acts(picture: Picture, batch: BatchCard) -> tuple[str, ...]:
    """What this person may do with the batch now. That a restored batch goes on is signed, by whoever may sign it."""
    roles = picture.person.roles if picture.person else ()
    acts = [act.value for state, act in TRANSITIONS if state == batch.state and not (act == "start" and batch.waits)]
    needs = {act: Permission(act) for act in acts}
    if batch.restored:
        needs["resume"] = Permission.READ
    return tuple(act for act in acts if permitted(roles, needs[act]) and not (act == "resume" and batch.questions))


class Acts(View):
    """`#act-<start|pause|hold|resume|stop|abort>`, then `#reason`, `#confirm`; `#results`, `#correct`, `#amend`,
    `#hands`, `#off`, `#keyboard`, `#back`."""

    place: ClassVar[str] = "acts"
    takes_keys: ClassVar[str] = "reason"

    def __init__(self, front: Front, batch: str, choice: str) -> None:
        super().__init__(front)
        self._batch, self._choice = batch, choice

    def body(self) -> Iterator[Widget]:
        words = self.words
        yield Said(words("act.title", batch=self._batch), classes="title detail", markup=False)
        yield Choices(words, of="act", per_page=5)
        yield Line(self.front, (self._batch, "reason"), words("act.reason"), id="reason", length=2000)
        yield Pad("letters", words, lambda: self.field("reason"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.results", count=0), id="results", key="f5")
        yield Target(self.words("do.correct"), id="correct", key="f6")
        yield Target(self.words("do.amend"), id="amend", key="f2")
        yield Target(self.words("do.hands"), id="hands", key="f3")
        yield Target(self.words("do.off"), id="off", key="f4")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.confirm"), id="confirm", key="f8", kind="primary")

    def on_mount(self) -> None:
        self.query_one(Choices).add_class("detail")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        acts = permitted_acts(picture, batch)
        chosen = self._choice in acts
        narrow = self.app.size.height < ROWS
        await self.query_one(Choices).show(
            [
                Choice(act, self._label(batch, act), chosen=act == self._choice)
                for act in acts
                if act == self._choice or not (chosen and narrow)  # the reason's field takes their room
            ]
        )
        needs_reason = chosen and self._choice != "start"
        next_key = "act.next.reason" if needs_reason else "act.next" if acts else "act.none"
        does = f"{words(f'act.explain.{self._choice}')} {self._made_safe(batch, self._choice)}" if chosen else ""
        self.tell_now(words(next_key), does.strip() or batch.reason or batch.waits, drawing.tone(batch.state))
        self.field("reason").display = needs_reason
        self.offer("#back", shown=True)
        may_add = permitted(picture.person.roles if picture.person else (), Permission.RESULT)
        self.offer("#results", shown=not chosen and may_add and bool(batch.results))
        self.query_one("#results", Target).tell(words("do.results", count=len(batch.results)))
        may_correct = permitted(picture.person.roles if picture.person else (), Permission.CORRECT)
        self.offer("#correct", shown=not chosen and may_correct and bool(batch.values))
        self.offer("#off", shown=not chosen and batch.dark is not None)
        self.offer("#amend", shown=not chosen and may_amend(picture, batch) and batch.dark is None)
        self.offer("#hands", shown=not chosen and bool(batch.hands))
        self.query_one("#amend", Target).tell(words("do.amendment" if batch.amendment else "do.amend"))
        self.offer("#keyboard", shown=needs_reason)
        typing = self.has_class("typing")
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#confirm", shown=chosen and (not needs_reason or bool(self.field("reason").value.strip())))
        if chosen:
            self.query_one("#confirm", Target).tell(
                words("do.sign" if self._signs(batch) else f"do.act.{self._choice}")
            )

    def _made_safe(self, batch: BatchCard, act: str) -> str:
        units = ", ".join(batch.safe) if act in {"stop", "abort"} else ""
        return self.words("act.safe", units=units) if units else ""

    def _label(self, batch: BatchCard, act: str) -> Content:
        """In the most telling form that fits."""
        words, safe = self.words, self._made_safe(batch, act)
        long, short = words(f"act.explain.{act}"), words(f"act.short.{act}")
        for text in (f"{long} {safe}".strip(), f"{short} {safe}".strip(), short):
            label = Content.assemble((words(f"do.act.{act}"), "bold"), (f"  ·  {text}", "not bold"))
            if label.cell_length <= self.app.size.width - BESIDE:
                break
        return label

    def _signs(self, batch: BatchCard | None) -> bool:
        return batch is not None and batch.restored and self._choice == "resume"

    def _card(self) -> BatchCard | None:
        picture = self.front.picture
        return next((card for card in picture.batches if card.batch == self._batch), None) if picture else None

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self._choice = event.name
        await self.again()
        if self._choice != "start":
            self.focus_on("reason")

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back" and self._choice and self.app.size.height < ROWS:
            self._choice = ""
            await self.again()
        elif event.button.id == "back":
            self.post_message(Go("auto", self._batch))
        elif event.button.id in {"results", "correct", "hands", "off"}:
            self.post_message(Go(event.button.id, self._batch))
        elif event.button.id == "amend":
            card = self._card()
            self.post_message(Go("amendment" if card and card.amendment else "amend", self._batch))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("reason")
            await self.again()
        elif event.button.id == "confirm":
            if self._signs(self._card()):
                self.post_message(Go("continue", self._batch))
                return
            act = cast("Literal['start', 'pause', 'hold', 'resume', 'stop', 'abort']", self._choice)
            reason = self.field("reason").value.strip()
            request = ActOnBatch(id=uuid4().hex, batch=self._batch, act=act, reason=reason)
            self.post_message(Ask(request, [(self._batch, "reason")]))
