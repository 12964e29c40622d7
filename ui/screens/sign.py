"""Sign: what was shown, its meaning, who signs, and the PIN. A question's answer is signed in the same way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, cast
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from edge.core.people import Permission, roles_with
from edge.wire import AnswerQuestion, BatchCard, ContinueBatch, PersonView, Picture, QuestionCard, SignStep, StepCard
from ui import drawing
from ui.locale import Words
from ui.view import Ask, Choice, Choices, Front, Go, Line, Pad, Said, Target, View


class Signing(View):
    """What both kinds of signature share: `#signer-<person>`, `#sign-person` (who was chosen), `#sign-pin`,
    `#pad-<digit>`, `#confirm`, `#back`."""

    takes_keys: ClassVar[str] = "sign-pin"

    def __init__(self, front: Front, batch: str) -> None:
        super().__init__(front)
        self._batch, self._person = batch, ""

    def body(self) -> Iterator[Widget]:
        words = self.words
        with Horizontal(classes="columns"):
            with Vertical(classes="wide scroll"):
                yield Said("", id="subject")
                yield Said("", id="sign-person")
                yield Choices(words, of="signer", per_page=2)
            with Vertical(classes="narrow"):
                yield Line(self.front, None, words("sign.pin"), id="sign-pin", secret=True, length=64)
                yield Pad("pin", words, lambda: self.field("sign-pin"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    def on_mount(self) -> None:
        self.focus_on("sign-pin")

    def signers(self, picture: Picture, roles: Sequence[str]) -> list[PersonView]:
        """Who may sign; chooses the person logged in, or the only one there is."""
        able = [person for person in picture.people if set(person.roles) & set(roles)]
        if self._person not in {person.person for person in able}:
            here = picture.person.person if picture.person else ""
            single = able[0].person if len(able) == 1 else ""
            self._person = here if here in {person.person for person in able} else single
        return able

    async def show_signers(
        self, able: list[PersonView], roles: Sequence[str], more: str, reason: str, tone: str
    ) -> None:
        """The chooser, the band and the target."""
        words = self.words
        await self.query_one(Choices).show(
            [Choice(who.person, Content(who.name), chosen=who.person == self._person) for who in able]
        )
        self.query_one(Choices).display = len(able) > 1
        name = next((who.name for who in able if who.person == self._person), "")
        said = Content.assemble((f"{words('sign.person')}  ", "$quiet"), (name, "bold"))
        self.write("#sign-person", Content.assemble(said, (f"  {more}" if more else "", "$quiet")))
        shown_roles = ", ".join(words(f"role.{role}") for role in roles)
        if not able:
            self.tell_now(words("sign.nobody", role=shown_roles), reason, "stop")
        elif name:
            self.tell_now(words("sign.next.pin", name=name), reason, tone)
        else:
            self.tell_now(words("sign.next.who"), reason, tone)
        self.offer("#back", shown=True)
        self.offer("#confirm", shown=bool(name))

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self._person = event.name
        self.focus_on("sign-pin")
        if self.front.picture is not None:
            await self.show(self.front.picture)

    def on_input_submitted(self, _: Input.Submitted) -> None:
        self._sign()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "confirm":
            self._sign()
        elif event.button.id == "back":
            self.back()

    def _sign(self) -> None:
        confirm, pin = self.query_one("#confirm", Target), self.field("sign-pin").value
        if not confirm.display or confirm.disabled or not pin:
            return
        self.field("sign-pin").value = ""
        self.send(self._person, pin)

    def back(self) -> None:
        """Where Back goes."""
        raise NotImplementedError

    def send(self, person: str, pin: str) -> None:
        """Ask the desk for this signature."""
        raise NotImplementedError


class Sign(Signing):
    """A sign step."""

    place: ClassVar[str] = "sign"

    def __init__(self, front: Front, batch: str, step: str) -> None:
        super().__init__(front, batch)
        self._step = step
        self._shown_part = (0, "")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        card: StepCard = next(card for card in batch.active if card.step == self._step)
        self._shown_part = (card.iteration, card.part)
        role = card.signers[0] if card.signers else ""
        subject = [
            Content.assemble((f"{card.step}  {card.title}", "bold $primary")),
            Content(card.text),
            Content(""),
            Content.assemble((f"{words('sign.meaning')}  ", "$quiet"), (card.meaning, "bold")),
        ]
        more = ""
        if role:
            subject.append(Content.assemble((f"{words('sign.role')}  ", "$quiet"), (words(f"role.{role}"), "bold")))
            later = ", ".join(words(f"role.{other}") for other in card.signers[1:])
            more = words("sign.more", roles=later) if later else ""
        if card.why:
            subject.append(Content.assemble((f"{words('step.why')}  ", "$quiet"), (card.why, "italic")))
        self.write("#subject", Content("\n").join(subject))
        roles = (role,) if role else ()
        await self.show_signers(self.signers(picture, roles), roles, more, batch.reason, drawing.tone(batch.state))
        self.query_one("#back", Target).tell(words("do.home"))

    def back(self) -> None:
        self.post_message(Go("home"))

    def send(self, person: str, pin: str) -> None:
        iteration, part = self._shown_part
        request = SignStep(
            id=uuid4().hex,
            batch=self._batch,
            step=self._step,
            iteration=iteration,
            part=part,
            person=person,
            pin=pin,
        )
        self.post_message(Ask(request))


class Answer(Signing):
    """The chosen answer to a question, to be signed."""

    place: ClassVar[str] = "answer"

    def __init__(self, front: Front, batch: str, question: str, choice: str) -> None:
        super().__init__(front, batch)
        self._question, self._choice = question, choice

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        question = next(card for card in batch.questions if card.question == self._question)
        subject = [
            Content.assemble((f"{question.step}  {question.title}", "bold $primary")),
            compared(self.front, question) if question.tag and not question.labels else Content(question.why),
            Content.assemble((f"{words('question.your_answer')}  ", "$quiet")),
            Content.assemble((said(words, question, f"explain.{self._choice}"), "bold")),
        ]
        self.write("#subject", Content("\n").join(subject))
        roles = tuple(role.value for role in roles_with(Permission.ANSWER))
        await self.show_signers(self.signers(picture, roles), roles, "", batch.reason, drawing.tone(batch.state))

    def back(self) -> None:
        self.post_message(Go("auto", self._batch))

    def send(self, person: str, pin: str) -> None:
        answer = cast("Literal['happened', 'again', 'abort']", self._choice)
        request = AnswerQuestion(
            id=uuid4().hex, batch=self._batch, question=self._question, answer=answer, person=person, pin=pin
        )
        self.post_message(Ask(request))


class Continue(Signing):
    """A restored batch goes on: what is missing, the reason that was typed, and who signs."""

    place: ClassVar[str] = "continue"

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        subject = [
            Content.assemble((words("continue.title", batch=self._batch), "bold $primary")),
            Content(batch.reason),
            Content.assemble((f"{words('act.reason')}  ", "$quiet"), (self._reason, "bold")),
            Content.assemble((f"{words('sign.meaning')}  ", "$quiet"), (words("continue.meaning"), "bold")),
        ]
        self.write("#subject", Content("\n").join(subject))
        roles = tuple(role.value for role in roles_with(Permission.CONTINUE))
        await self.show_signers(self.signers(picture, roles), roles, "", batch.next_action, drawing.tone(batch.state))

    @property
    def _reason(self) -> str:
        return self.front.entries.get((self._batch, "reason"), "").strip()

    def back(self) -> None:
        self.post_message(Go("acts", self._batch, choice="resume"))

    def send(self, person: str, pin: str) -> None:
        request = ContinueBatch(id=uuid4().hex, batch=self._batch, reason=self._reason, person=person, pin=pin)
        self.post_message(Ask(request, [(self._batch, "reason")]))


def said(words: Words, question: QuestionCard, what: str) -> str:
    """Words of a question: about labels, a write, or the time without power during a step."""
    if question.labels:
        return words(f"question.labels.{what}")
    return words(f"question.{what}") if question.tag else words(f"dark.{what}")


def compared(front: Front, question: QuestionCard) -> Content:
    """Intent and reading, one below the other."""
    words, now = front.words, question.reading_now
    reading = drawing.value_text(words, now) if now else words("question.no_reading")
    return Content.assemble(
        (f"{words('question.intent.short')}  ", "$quiet"),
        (f"{drawing.quantity(question.intent, question.unit)}\n", "bold"),
        (f"{words('question.reading.short')}  ", "$quiet"),
        (f"{reading}  ", "bold"),
        drawing.verdict(words, now) if now else "",
    )


class Question(View):
    """Intent beside reading: `#answer-happened`, `#answer-again`, `#answer-abort`; `#hands`; `#home`."""

    place: ClassVar[str] = "question"

    def __init__(self, front: Front, batch: str, question: str) -> None:
        super().__init__(front)
        self._batch, self._question = batch, question

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        with Horizontal(id="compare"):
            yield Said("", id="intent", classes="panel")
            yield Said("", id="reading", classes="panel")
        yield Said("", id="explain")

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.home"), id="home", key="escape")
        yield Target(self.words("do.hands"), id="hands", key="f3")
        for key, choice in (("f5", "happened"), ("f6", "again"), ("f7", "abort")):
            yield Target(self.words(f"do.answer.{choice}"), id=f"answer-{choice}", key=key, kind="wide-target")

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch: BatchCard = next(card for card in picture.batches if card.batch == self._batch)
        question = next(card for card in batch.questions if card.question == self._question)
        roles = tuple(role.value for role in roles_with(Permission.ANSWER))
        able = any(set(person.roles) & set(roles) for person in picture.people)
        if able:
            self.tell_now(words("question.next"), batch.reason, "wait")
        else:
            named = ", ".join(words(f"role.{role}") for role in roles)
            self.tell_now(words("question.next.read", roles=named), batch.reason, "stop")
        self.write(
            "#title",
            Content.assemble(
                (f"✖ {said(words, question, 'title')}\n", "bold $warning"),
                (f"{question.step}  {question.title}", "bold"),
                (f"  {question.tag}\n", "$quiet"),
                (question.why, ""),
            ),
        )
        self.query_one("#compare").display = bool(question.tag) and not question.labels
        now = question.reading_now
        intent, reading = self.query_one("#intent", Static), self.query_one("#reading", Static)
        intent.border_title = Content(words("question.intent")).markup
        reading.border_title = Content(words("question.reading")).markup
        intent.update(
            Content.assemble(
                (f"{drawing.quantity(question.intent, question.unit)}\n", "bold $primary"),
                (self._age(question), "$quiet"),
            )
        )
        shown = drawing.value_text(words, now) if now else words("question.no_reading")
        known = drawing.quantity(question.reading_before, question.unit) if question.reading_before else ""
        before = words("question.before", value=known) if known else ""
        reading.update(
            Content.assemble(
                (f"{shown}  ", "bold $primary"),
                drawing.verdict(words, now) if now else "",
                (f"\n{before}", "$quiet"),
            )
        )
        keys = [
            Content.assemble((f"{key}  ", "bold $primary"), Content(said(words, question, f"explain.{choice}")))
            for key, choice in (("F5", "happened"), ("F6", "again"), ("F7", "abort"))
            if choice in question.answers
        ]
        self.write("#explain", Content("\n").join(keys))
        self.offer("#hands", shown=any(one.step == question.step for one in batch.hands))
        self.offer("#home", shown=True)
        for choice in ("happened", "again", "abort"):
            answer = words(f"do.answer.{choice}") if question.tag else words(f"dark.answer.{choice}")
            self.query_one(f"#answer-{choice}", Target).tell(answer)
            self.offer(f"#answer-{choice}", shown=able and choice in question.answers)

    def _age(self, question: QuestionCard) -> str:
        words = self.words
        low = drawing.span(words, question.elapsed_low_s)
        if question.elapsed_high_s < 0:
            return words("question.elapsed.open", low=low)
        high = drawing.span(words, question.elapsed_high_s)
        return (
            words("question.elapsed.about", low=low) if low == high else words("question.elapsed", low=low, high=high)
        )

    def on_button_pressed(self, event: Button.Pressed) -> None:
        name = event.button.id or ""
        if name == "hands":
            self.post_message(Go("hands", self._batch))
        elif name == "home":
            self.post_message(Go("home"))
        elif name.startswith("answer-"):
            self.post_message(Go("answer", self._batch, self._question, name.removeprefix("answer-")))
