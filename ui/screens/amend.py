"""Amend: what of a batch under way may be changed, old and new with bounds and why; and the amendment that waits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import uuid4

import orjson
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.core.people import Permission, permitted, roles_with
from edge.wire import Amend as Change
from edge.wire import AmendmentCard, AmendOffer, BatchCard, Picture, RequestAmendment, SettleAmendment
from ui import drawing
from ui.locale import Words
from ui.screens.sign import Signing
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View


def name_of(offer: AmendOffer) -> str:
    """What an offer is known by."""
    return f"{offer.kind} {offer.subject} {offer.field}"


def offer_in(batch: BatchCard, name: str) -> AmendOffer | None:
    return next((one for one in batch.offers if name_of(one) == name), None)


def entry_of(batch: str, name: str, what: str) -> Entry:
    """Where the new value ("value") or the reason ("reason") is kept until it is signed."""
    return batch, f"amend {what} {name}"[:256]


def may_amend(picture: Picture, batch: BatchCard) -> bool:
    """True when this person may ask for an amendment, or one waits."""
    roles = picture.person.roles if picture.person else ()
    return batch.amendment is not None or (bool(batch.offers) and permitted(roles, Permission.REQUEST))


class Amend(View):
    """`#choice-<n>` for each that may be amended; then `#entry`, `#reason`, `#confirm`; `#keyboard`, `#back`."""

    place: ClassVar[str] = "amend"
    takes_keys: ClassVar[str] = "reason"

    def __init__(self, front: Front, batch: str, name: str) -> None:
        super().__init__(front)
        self._batch, self._offer = batch, name
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        words, batch, name = self.words, self._batch, self._offer
        with Vertical(classes="scroll"):
            yield Said("", id="title")
        yield Choices(words, of="choice", per_page=4)
        yield Line(self.front, entry_of(batch, name, "value"), words("amend.new"), id="entry")
        yield Line(self.front, entry_of(batch, name, "reason"), words("act.reason"), id="reason", length=2000)
        yield Pad("letters", words, lambda: self.field("entry" if self.field("entry").has_focus else "reason"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.request"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        offer = offer_in(batch, self._offer)
        typed = offer is not None and offer.kind in {"value", "add"}
        self.offer("#back", shown=True)
        self.field("entry").display = typed
        self.field("reason").display = offer is not None
        typing = self.has_class("typing")
        self.offer("#keyboard", shown=offer is not None)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        fields = ("entry", "reason") if typed else ("reason",)
        filled = all(self.field(field).value.strip() for field in fields)
        self.offer("#confirm", shown=offer is not None and not offer.refused and filled)
        if offer is None:
            self.write("#title", Content.assemble((words("amend.title", batch=self._batch), "bold $primary")))
            self.tell_now(words("amend.next" if batch.offers else "amend.none"), "", drawing.tone(batch.state))
            self._offered = tuple(name_of(one) for one in batch.offers)
            labels = [_label(words, one) for one in batch.offers]
            await self.query_one(Choices).show([Choice(str(n), label) for n, label in enumerate(labels)])
            return
        self.write("#title", described(words, offer))
        now = words("amend.refused") if offer.refused else words("amend.next.value" if typed else "amend.next.reason")
        self.tell_now(now, offer.refused, "stop" if offer.refused else drawing.tone(batch.state))
        await self.query_one(Choices).show([])

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self.post_message(Go("amend", self._batch, choice=self._offered[int(event.name)]))

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("amend", self._batch) if self._offer else Go("acts", self._batch))
        elif event.button.id == "keyboard":
            entry = self.field("entry")
            self.toggle_keyboard("entry" if entry.display and not entry.value.strip() else "reason")
            await self.again()
        elif event.button.id == "confirm":
            self.post_message(Go("sign-request", self._batch, choice=self._offer))


def _label(words: Words, offer: AmendOffer) -> Content:
    value = drawing.quantity(offer.value, offer.unit) if offer.kind == "value" else ""
    what = offer.what if offer.kind == "value" else words(f"amend.{offer.kind}")
    mark = "✖ " if offer.refused else ""
    return Content.assemble((f"{mark}{offer.title}", "bold"), (f"  {what} {value}".rstrip(), "not bold $quiet"))


def described(words: Words, offer: AmendOffer, new: str = "") -> Content:
    """What an amendment is about: old and new, bounds and why; of a version what it changes."""
    heading = Content.assemble((offer.title, "bold $primary"))
    if offer.kind != "value":
        said = [Content(words(f"amend.explain.{offer.kind}", step=offer.field, was=offer.value))]
        if new:
            said.append(_named(words("amend.text"), new))
        said += [Content(f"· {one}") for one in offer.differences]
        return Content("\n").join([heading, *said])
    lines = [_named(words("amend.old"), f"{offer.what} {drawing.quantity(offer.value, offer.unit)}")]
    if new:
        lines.append(_named(words("amend.new"), drawing.quantity(new, offer.unit)))
    if offer.low or offer.high:
        bounds = f"{offer.low or '…'} – {offer.high or '…'}"
        lines.append(_named(words("amend.bounds"), drawing.quantity(bounds, offer.unit)))
    elif offer.choices:
        lines.append(_named(words("amend.bounds"), ", ".join(offer.choices)))
    if offer.why:
        lines.append(_named(words("step.why"), offer.why))
    return Content("\n").join([heading, *lines])


def _named(name: str, text: str) -> Content:
    return Content.assemble((f"{name}  ", "$quiet"), (text, "bold"))


class SignRequest(Signing):
    """Old and new, bounds and why, the reason; and who asks for it."""

    place: ClassVar[str] = "sign-request"

    def __init__(self, front: Front, batch: str, name: str) -> None:
        super().__init__(front, batch)
        self._offer = name
        self._asked: AmendOffer | None = None

    def _typed(self, what: str) -> str:
        return self.front.entries.get(entry_of(self._batch, self._offer, what), "").strip()

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch: BatchCard = next(card for card in picture.batches if card.batch == self._batch)
        self._asked = offer_in(batch, self._offer) or self._asked
        if self._asked is None:
            return
        subject = [
            described(words, self._asked, self._typed("value")),
            _named(words("act.reason"), self._typed("reason")),
            Content(words("amend.not_yet")),
        ]
        self.write("#subject", Content("\n").join(subject))
        roles = tuple(role.value for role in roles_with(Permission.REQUEST))
        await self.show_signers(self.signers(picture, roles), roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("amend", self._batch, choice=self._offer))

    def send(self, person: str, pin: str) -> None:
        offer = self._asked
        if offer is None:
            return
        text = self._typed("value")
        if offer.kind == "add":
            title = self.words("amend.added")
            step = {"id": offer.subject, "phase": "instruct", "title": title, "text": text}
            text = orjson.dumps(step).decode()
        adopts = offer.subject if offer.kind == "adopt" else ""
        changes: tuple[Change, ...] = ()
        if offer.kind == "dirty":
            changes = (Change(kind="dirty", subject=offer.subject, text=offer.field),)
        elif offer.kind not in {"adopt", "proposed"}:
            text = text if offer.kind != "skip" else ""
            changes = (Change(kind=offer.kind, subject=offer.subject, field=offer.field, text=text),)
        request = RequestAmendment(
            id=uuid4().hex,
            batch=self._batch,
            changes=changes,
            adopts=adopts,
            from_step=offer.field if adopts else "",
            proposal=offer.subject if offer.kind == "proposed" else "",
            reason=self._typed("reason"),
            person=person,
            pin=pin,
        )
        kept = [entry_of(self._batch, self._offer, what) for what in ("value", "reason")]
        self.post_message(Ask(request, kept))


def _waiting(words: Words, asked: AmendmentCard) -> Content:
    """The amendment that waits, whole."""
    about = words("amend.adopts", version=asked.adopts, step=asked.from_step) if asked.adopts else ""
    lines = [
        Content.assemble((words("amendment.title", name=asked.amendment, person=asked.requested_by), "bold $primary")),
        *([Content(about)] if about else []),
        *(Content(f"· {one}") for one in asked.differences),
        *([Content(words("amend.more", count=asked.more))] if asked.more else []),
        _named(words("act.reason"), asked.reason),
    ]
    return Content("\n").join(lines)


class Amendment(View):
    """The amendment that waits: `#confirm` to agree, `#reason` and `#refuse`; `#keyboard`, `#back`."""

    place: ClassVar[str] = "amendment"
    takes_keys: ClassVar[str] = "reason"

    def __init__(self, front: Front, batch: str) -> None:
        super().__init__(front)
        self._batch = batch

    def body(self) -> Iterator[Widget]:
        with Vertical(classes="scroll"):
            yield Said("", id="title")
        entry = entry_of(self._batch, "", "refusal")
        yield Line(self.front, entry, self.words("amend.refusal"), id="reason", length=2000)
        yield Pad("letters", self.words, lambda: self.field("reason"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.refuse"), id="refuse", key="f5")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.agree"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        asked = batch.amendment
        if asked is None:
            return
        self.write("#title", _waiting(words, asked))
        roles = ", ".join(_roles(words, asked))
        self.tell_now(words("amendment.next", roles=roles), "", drawing.tone(batch.state))
        typing, reason = self.has_class("typing"), bool(self.field("reason").value.strip())
        self.offer("#back", shown=True)
        self.offer("#keyboard", shown=True)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#refuse", shown=reason)
        self.offer("#confirm", shown=not reason)

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("acts", self._batch))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("reason")
            await self.again()
        elif event.button.id in {"confirm", "refuse"}:
            choice = "agree" if event.button.id == "confirm" else "refuse"
            self.post_message(Go("sign-amendment", self._batch, choice=choice))


def _roles(words: Words, asked: AmendmentCard) -> list[str]:
    return [" / ".join(words(f"role.{role}") for role in need.split("|")) for need in asked.needs]


class SignAmendment(Signing):
    """Who agrees, or refuses."""

    place: ClassVar[str] = "sign-amendment"

    def __init__(self, front: Front, batch: str, choice: str) -> None:
        super().__init__(front, batch)
        self._choice = choice
        self._shown = ""

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch: BatchCard = next(card for card in picture.batches if card.batch == self._batch)
        asked = batch.amendment
        if asked is None or self._shown not in {"", asked.amendment}:
            return
        # what was shown when this view opened is what is signed
        self._shown = asked.amendment
        meaning = words(f"amendment.{self._choice}")
        lines = [_waiting(words, asked), _named(words("sign.meaning"), meaning)]
        if self._choice == "refuse":
            lines.append(_named(words("amend.refusal"), self._reason))
        self.write("#subject", Content("\n").join(lines))
        roles = tuple(dict.fromkeys(role for need in asked.needs for role in need.split("|")))
        signed = asked.people if self._choice == "agree" else asked.people[1:]
        able = [
            one
            for one in picture.people
            if one.person not in signed
            and (set(one.roles) & set(roles) or (self._choice == "refuse" and one.person == asked.requested_by))
        ]
        if self._person not in {one.person for one in able}:
            self._person = able[0].person if len(able) == 1 else ""
        await self.show_signers(able, roles, "", batch.reason, drawing.tone(batch.state))

    @property
    def _reason(self) -> str:
        return self.front.entries.get(entry_of(self._batch, "", "refusal"), "").strip()

    def back(self) -> None:
        self.post_message(Go("amendment", self._batch))

    def send(self, person: str, pin: str) -> None:
        request = SettleAmendment(
            id=uuid4().hex,
            batch=self._batch,
            amendment=self._shown,
            agree=self._choice == "agree",
            reason=self._reason if self._choice == "refuse" else "",
            person=person,
            pin=pin,
        )
        self.post_message(Ask(request, [entry_of(self._batch, "", "refusal")]))
