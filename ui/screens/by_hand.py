"""Steps by hand: switch one to another mode, and enter or verify what two people give in the place of the box."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar
from uuid import uuid4

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.wire import BatchCard, EnterByHand, HandCard, HandOffer, Picture, StepCard, SwitchMode
from ui import drawing
from ui.screens.sign import Signing
from ui.screens.step import tasks
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View


def name_of(offer: HandOffer) -> str:
    """What tells an offer from the others of its batch."""
    return f"{offer.act}|{offer.step}|{offer.iteration}"


def offer_in(batch: BatchCard, name: str) -> HandOffer | None:
    return next((one for one in batch.hands if name_of(one) == name), None)


def card_in(batch: BatchCard, step: str) -> StepCard | None:
    """The step, while it asks for an entry by hand."""
    return next((card for card in batch.active if card.step == step and card.hand and card.asks == "hand"), None)


def _reason(batch: str, name: str) -> Entry:
    return batch, f"hand reason {name}"


def _typed(batch: str, card: StepCard) -> Entry:
    """Where an entry is kept until it is signed: the second person never finds that of the first."""
    verifies = card.hand is not None and card.hand.verifies
    return batch, f"hand {card.step} {card.iteration} {card.part} {'second' if verifies else 'first'}"


Wanted = tuple[tuple[object, ...], Callable[[], View]]


def switching(front: Front, batch: BatchCard, go: Go) -> Wanted | None:
    """The view of a switch that was asked for; None when another one is."""
    if go.place not in {"hands", "sign-mode"}:
        return None
    name, choice = batch.batch, go.choice if offer_in(batch, go.choice) else ""
    if go.place == "sign-mode" and choice:
        return ("sign-mode", name, choice), lambda: SignMode(front, name, choice)
    return ("hands", name, choice), lambda: Hands(front, name, choice)


def entering(front: Front, batch: str, card: StepCard, go: Go) -> Wanted:
    """The view of a step that asks for an entry by hand."""
    hand = card.hand
    shown = (batch, card.step, card.iteration, card.part, hand is not None and hand.verifies)
    if go.place == "sign-hand" and go.choice == card.step:
        return ("sign-hand", *shown), lambda: SignHand(front, batch, card)
    return ("hand", *shown), lambda: HandEntry(front, batch, card)


class Hands(View):
    """`#choice-<n>` for each step and mode; then `#reason`, `#confirm`; `#keyboard`, `#back`."""

    place: ClassVar[str] = "hands"
    takes_keys: ClassVar[str] = "reason"

    def __init__(self, front: Front, batch: str, choice: str) -> None:
        super().__init__(front)
        self._batch, self._choice = batch, choice
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        words = self.words
        yield Said("", id="title")
        yield Choices(words, of="choice", per_page=4)
        yield Line(self.front, _reason(self._batch, self._choice), words("act.reason"), id="reason", length=2000)
        yield Pad("letters", words, lambda: self.field("reason"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        offer = offer_in(batch, self._choice)
        self.offer("#back", shown=True)
        self.field("reason").display = offer is not None
        self.offer("#keyboard", shown=offer is not None)
        typing = self.has_class("typing")
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        given = offer is not None and (offer.act == "take by hand" or bool(self.field("reason").value.strip()))
        self.offer("#confirm", shown=given)
        if offer is None:
            self.write("#title", Content.assemble((words("hands.title", batch=self._batch), "bold $primary")))
            self.tell_now(words("hands.next" if batch.hands else "hands.none"), "", drawing.tone(batch.state))
            self._offered = tuple(name_of(one) for one in batch.hands)
            labels = [_label(self.words(f"hands.act.{_key(one)}"), one) for one in batch.hands]
            await self.query_one(Choices).show([Choice(str(n), label) for n, label in enumerate(labels)])
            return
        lines = [Content.assemble((f"{offer.step}  {offer.title}", "bold $primary"))]
        lines += [Content.assemble((offer.why, "$warning"))] if offer.why else []
        lines.append(Content(words(f"hands.explain.{_key(offer)}")))
        self.write("#title", Content("\n").join(lines))
        optional = "hands.next.sign" if offer.act == "take by hand" else "hands.next.reason"
        self.tell_now(words(optional), "", drawing.tone(batch.state))
        await self.query_one(Choices).show([])

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self.post_message(Go("hands", self._batch, choice=self._offered[int(event.name)]))

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("hands", self._batch) if self._choice else Go("acts", self._batch))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("reason")
            await self.again()
        elif event.button.id == "confirm":
            self.post_message(Go("sign-mode", self._batch, choice=self._choice))


def _key(offer: HandOffer) -> str:
    return {"take by hand": "take", "switch to manual": "manual"}.get(offer.act, "return")


def _label(act: str, offer: HandOffer) -> Content:
    return Content.assemble((f"{offer.step}  {offer.title}", "bold"), (f"  {act}", "not bold $quiet"))


class SignMode(Signing):
    """The step, the mode that it gets and why, and who signs."""

    place: ClassVar[str] = "sign-mode"

    def __init__(self, front: Front, batch: str, choice: str) -> None:
        super().__init__(front, batch)
        self._choice = choice
        self._offer: HandOffer | None = None

    @property
    def _said(self) -> str:
        return self.front.entries.get(_reason(self._batch, self._choice), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        offer = self._offer = offer_in(batch, self._choice)
        if offer is None:
            return
        lines = [Content.assemble((f"{offer.step}  {offer.title}", "bold $primary"))]
        told = (
            ("sign.meaning", words(f"hands.explain.{_key(offer)}")),
            ("hands.why", offer.why),
            ("act.reason", self._said),
        )
        lines += [Content.assemble((f"{words(label)}  ", "$quiet"), (text, "bold")) for label, text in told if text]
        self.write("#subject", Content("\n").join(lines))
        able = self.signers(picture, offer.roles)
        await self.show_signers(able, offer.roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("hands", self._batch, choice=self._choice))

    def send(self, person: str, pin: str) -> None:
        offer = self._offer
        if offer is None:
            return
        request = SwitchMode(
            id=uuid4().hex,
            batch=self._batch,
            step=offer.step,
            iteration=offer.iteration,
            act=offer.act,
            reason=self._said,
            person=person,
            pin=pin,
        )
        self.post_message(Ask(request, [_reason(self._batch, self._choice)]))


class HandEntry(View):
    """`#entry` or `#choice-<n>`, `#confirm`; `#keyboard`, `#next-task`, `#acts`, `#home`."""

    place: ClassVar[str] = "hand"
    takes_keys: ClassVar[str] = "entry"

    def __init__(self, front: Front, batch: str, card: StepCard) -> None:
        super().__init__(front)
        self._batch, self._card = batch, card
        hand = card.hand
        self._signs_only = hand is not None and hand.verifies and hand.kind == "text"
        self._kind = hand.kind if hand is not None else "number"

    def body(self) -> Iterator[Widget]:
        words, card = self.words, self._card
        yield Said("", id="title", classes="detail")
        yield Said("", id="text")
        if self._kind == "choice":
            yield Choices(words, of="choice", per_page=4)
        elif not self._signs_only:
            unit = drawing.unit_sign(card.unit)
            title = words("step.entry.unit", unit=unit) if unit else words("step.entry")
            yield Line(self.front, _typed(self._batch, card), title, id="entry", length=2000)
            yield Pad("letters", words, lambda: self.field("entry"))
        yield Said("", id="facts", classes="detail")  # last: on a small screen what is entered must not be cut

    def actions(self) -> Iterator[Widget]:
        words = self.words
        yield Target(words("do.home"), id="home", key="escape")
        yield Target(words("do.batch"), id="acts", key="f4")
        yield Target(words("do.next_task", count=0), id="next-task", key="f6")
        yield Target(words("do.keyboard"), id="keyboard", key="f7")
        yield Target(words("do.sign"), id="confirm", key="f8", kind="primary")

    def on_mount(self) -> None:
        if self._kind != "choice" and not self._signs_only:
            self.focus_on("entry")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        card = card_in(batch, self._card.step)
        if card is None or card.hand is None:
            return
        hand = card.hand
        typing = self.has_class("typing")
        who = words("hand.second", name=_name(picture, hand)) if hand.verifies else words("hand.first")
        title = Content.assemble(
            (f"{card.step}  {card.title}", "bold $primary"),
            (f"\n{words(f'hand.mode.{hand.mode}')}  ", "bold $warning"),
            (hand.why, "$quiet"),
        )
        self.write("#title", title)
        self.write("#text", Content.assemble((f"{who} ", "bold"), card.text))
        self.write("#facts", Content("\n").join(self._facts(card, hand)))
        typed = self.front.entries.get(_typed(self._batch, card), "").strip()
        if self._kind == "choice":
            await self.query_one(Choices).show(
                [Choice(str(n), Content(text), chosen=text == typed) for n, text in enumerate(card.choices)]
            )
        self.tell_now(words("hand.next.second" if hand.verifies else "hand.next"), batch.reason, "wait")
        running = batch.state in {"running", "pausing"}
        self.offer("#home", shown=True)
        self.offer("#acts", shown=not typing)
        more = len(tasks(batch)) - 1
        self.offer("#next-task", shown=more > 0 and not typing)
        self.query_one("#next-task", Target).tell(words("do.next_task", count=more))
        self.offer("#keyboard", shown=self._kind != "choice" and not self._signs_only)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#confirm", shown=running and (self._signs_only or bool(typed)))

    def _facts(self, card: StepCard, hand: HandCard) -> Iterator[Content]:
        words = self.words
        if hand.said:
            yield Content.assemble((f"{words('hand.said')}  ", "$quiet"), (hand.said, "bold"))
        if limit := drawing.limit(words, card.low, card.high, card.unit):
            yield Content.assemble((f"{words('step.limit')}  ", "$quiet"), (limit, "bold"))
        for reading in card.readings:
            shown = drawing.value_text(words, reading)
            yield Content.assemble((f"{reading.tag}  ", "$quiet"), f"{shown}  ", drawing.verdict(words, reading))
        if hand.back:
            yield Content.assemble((hand.back, "bold $success"))
        if hand.last:
            yield Content.assemble((f"{words('hand.last')}  ", "$quiet"), hand.last)

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self.front.entries[_typed(self._batch, self._card)] = self._card.choices[int(event.name)]
        await self.again()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._sign()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "home":
                self.post_message(Go("home"))
            case "acts":
                self.post_message(Go("acts", self._batch))
            case "next-task":
                self._next_task()
            case "keyboard":
                self.toggle_keyboard("entry")
                await self.again()
            case "confirm":
                self._sign()

    def _next_task(self) -> None:
        picture = self.front.picture
        batch = next((b for b in picture.batches if b.batch == self._batch), None) if picture else None
        names = [card.step for card in tasks(batch)] if batch else []
        if names:
            at = names.index(self._card.step) if self._card.step in names else -1
            self.post_message(Go("auto", self._batch, names[(at + 1) % len(names)]))

    def _sign(self) -> None:
        confirm = self.query_one("#confirm", Target)
        if confirm.display and not confirm.disabled:
            self.post_message(Go("sign-hand", self._batch, self._card.step, self._card.step))


def _name(picture: Picture, hand: HandCard) -> str:
    return next((one.name for one in picture.people if one.person == hand.entered_by), hand.entered_by)


class SignHand(Signing):
    """What this person entered, and their signature. What another one entered is nowhere on it."""

    place: ClassVar[str] = "sign-hand"

    def __init__(self, front: Front, batch: str, card: StepCard) -> None:
        super().__init__(front, batch)
        self._card = card

    @property
    def _text(self) -> str:
        return self.front.entries.get(_typed(self._batch, self._card), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        card = card_in(batch, self._card.step)
        if card is None or card.hand is None:
            return
        hand = card.hand
        entered = hand.said or drawing.quantity(self._text, card.unit)
        meaning = words("hand.meaning.second" if hand.verifies else "hand.meaning")
        lines = [
            Content.assemble((f"{card.step}  {card.title}", "bold $primary")),
            Content.assemble((f"{words('hand.said' if hand.said else 'hand.entered')}  ", "$quiet"), (entered, "bold")),
            Content.assemble((f"{words('sign.meaning')}  ", "$quiet"), (meaning, "bold")),
        ]
        self.write("#subject", Content("\n").join(lines))
        able = [one for one in self.signers(picture, hand.roles) if not hand.verifies or one.person != hand.entered_by]
        if self._person not in {one.person for one in able}:
            self._person = able[0].person if len(able) == 1 else ""
        await self.show_signers(able, hand.roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("auto", self._batch, self._card.step))

    def send(self, person: str, pin: str) -> None:
        card = self._card
        request = EnterByHand(
            id=uuid4().hex,
            batch=self._batch,
            step=card.step,
            iteration=card.iteration,
            part=card.part,
            text=self._text,
            verifies=card.hand is not None and card.hand.verifies,
            person=person,
            pin=pin,
        )
        self.post_message(Ask(request, [_typed(self._batch, card)]))
