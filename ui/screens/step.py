"""Step: what to do or what the box is doing, why, the limit, the live values, and what is asked.

Scan is one of its forms.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Digits, Input, Static

from edge.core.terms import PENDING
from edge.wire import BatchCard, ConfirmStep, EnterValue, ExpiryLine, Picture, ScanCode, StepCard
from ui import drawing
from ui.screens.acts import permitted_acts
from ui.view import (
    BROKEN,
    CODE_CHARS_MAX,
    SEPARATOR,
    Ask,
    Choice,
    Choices,
    Code,
    Entry,
    Front,
    Go,
    Line,
    Pad,
    Said,
    Scan,
    Target,
    Typed,
    View,
)

DOUBLED_S: Final = 0.5
"""The same code again so soon was not scanned again: the scanner has sent it twice."""
WIDE: Final = 100
"""From this width on the step list stands beside the body."""


def tasks(batch: BatchCard) -> list[StepCard]:
    """The active steps that ask a person for something."""
    return [card for card in batch.active if card.asks != "nothing"]


def main_card(batch: BatchCard, step: str) -> StepCard | None:
    """The step to show: the wanted one while it is active, else the first that asks, else the most telling one."""
    by_id = {card.step: card for card in batch.active}
    asking = tasks(batch)
    if step in by_id and (by_id[step].asks != "nothing" or not asking):
        return by_id[step]
    if asking:
        return asking[0]
    shown = [card for card in batch.active if card.phase != "parallel"]
    return next((card for card in shown if card.duration_s > 0), shown[0] if shown else None)


class Step(View):
    """`#entry` or `#choice-<n>` or `#scan`, `#confirm`; `#resume`; what the bar has is in `actions`."""

    place: ClassVar[str] = "step"

    def __init__(self, front: Front, batch: str, card: StepCard | None) -> None:
        super().__init__(front)
        self._batch, self._card = batch, card
        self._asks = card.asks if card else "nothing"
        self._entry: Entry = (batch, card.step if card else "")
        self._shown_part = (card.iteration, card.part) if card else (0, "")
        if card is not None and card.draft and self._entry not in front.entries:
            front.entries[self._entry] = card.draft
            front.saved[self._entry] = card.draft
        self._wrong = ""
        """What is said of a code that came to nothing."""
        self._typed = False
        """Something stands in the field of the code."""
        self._asked = False
        """The person logged in may answer now."""

    def body(self) -> Iterator[Widget]:
        words, front = self.words, self.front
        with Horizontal(classes="columns"):
            yield Said("", id="list")
            with Vertical(classes="wide detail scroll"):
                yield Said("", id="title")
                yield Said("", id="text")
                yield Said("", id="facts")
                with Horizontal(id="big"):
                    yield Digits("", id="digits")
                    yield Said("", id="beside")
                yield Said("", id="live")
                yield Said("", id="progress")
                yield Said("", id="why")
                yield Said("", id="also")
            if self._asks == "value":
                with Vertical(classes="narrow"):
                    unit = drawing.unit_sign(self._card.unit) if self._card else ""
                    title = words("step.entry.unit", unit=unit) if unit else words("step.entry")
                    yield Line(front, self._entry, title, id="entry")
                    yield Pad("number", words, lambda: self.field("entry"))
            elif self._asks == "choice":
                with Vertical(classes="narrow"):
                    yield Said(words("step.choice"), classes="label", markup=False)
                    yield Choices(words, of="choice", per_page=4)
        if self._asks == "scan":
            yield Code(front, self._entry, words("step.scan"), id="scan")
        yield Said("", id="draft")
        if self._asks in {"value", "scan"}:
            yield Pad("letters", words, lambda: self.field("entry" if self._asks == "value" else "scan"))

    def actions(self) -> Iterator[Widget]:
        words = self.words
        yield Target(words("do.home"), id="home", key="escape")
        yield Target(words("do.steps"), id="steps", key="f3")
        yield Target(words("do.batch"), id="acts", key="f4")
        yield Target(words("do.attachments", count=0), id="attachments", key="f2")
        yield Target(words("do.next_task", count=0), id="next-task", key="f6")
        yield Target(words("do.keyboard"), id="keyboard", key="f7")
        yield Target(words("do.pending"), id="pending", key="f5")
        yield Target(words("do.act.resume"), id="resume", key="f8", kind="primary")
        yield Target(words("do.act.start"), id="start", key="f8", kind="primary")
        yield Target(
            words("do.confirm" if self._asks == "confirm" else "do.accept"), id="confirm", key="f8", kind="primary"
        )

    def on_mount(self) -> None:
        self.set_class(self._asks == "scan", "scanning")
        if self._asks == "value":
            self.focus_on("entry")
            self.field("entry").cursor_position = len(self.field("entry").value)
        elif self._asks == "scan":
            self.focus_on("scan")
        text = self.front.entries.get(self._entry, "")
        if self._card is not None and text != self._card.draft and self._asks in {"value", "choice"}:
            self.post_message(Typed(self._entry, text, leaving=True))

    async def show(self, picture: Picture) -> None:
        words = self.words
        batch = next(card for card in picture.batches if card.batch == self._batch)
        card = next((card for card in batch.active if card.step == self._entry[1]), None)
        room, rows = self.app.query_one("#main").size
        wide = room >= WIDE
        steps = self.query_one("#list", Static)
        steps.display = wide and not self.has_class("typing")
        if wide:
            steps.update(drawing.step_list(batch.steps, 37, max(5, rows - 10)))
        word = f"{drawing.STATE_MARK[batch.state]} {words(f'state.{batch.state}')}"
        reason = f"{word}: {batch.reason}" if batch.reason else ""
        next_action = words(self._wrong) if self._wrong else batch.next_action
        asking = tasks(batch)
        if card in asking[1:] and not self._wrong:  # what the box names is another task
            next_action = words(f"step.do.{card.asks}", title=card.title)
        if card is not None and not self._wrong and not self._may(picture, card):
            next_action = words("step.role", roles=", ".join(words(f"role.{role}") for role in card.roles))
        if batch.reason and batch.reason in next_action:
            reason = word  # said once
        self.tell_now(next_action, reason, "stop" if self._wrong else drawing.tone(batch.state))
        if card is None:
            self._show_end(batch)
        else:
            taken = (41 if wide else 0) + (32 if self._asks in {"value", "choice"} else 0)
            self._show_card(batch, card, room - taken - 5)
        if self._asks == "choice" and card is not None:
            chosen = self.front.entries.get(self._entry, "")
            await self.query_one(Choices).show(
                [Choice(str(n), Content(text), chosen=text == chosen) for n, text in enumerate(card.choices)]
            )
        self._show_draft()
        self._show_actions(picture, batch, card, wide=wide)

    def _show_card(self, batch: BatchCard, card: StepCard, width: int) -> None:
        words = self.words
        lines = [line.step for line in batch.steps]
        position = ""
        if card.step in lines:
            position = words("step.position", position=lines.index(card.step) + 1, count=len(lines))
        if card.parts:
            position = f"{position}  ·  {words('step.part', part=card.part_number, count=card.parts)}".strip(" ·")
        phase = words(f"phase.{card.phase}")
        self.write(
            "#title",
            Content.assemble(
                (f"{card.step}  {card.title}", "bold $primary"),
                (" †" if card.placeholder else "", "bold $warning"),
                (f"\n{phase}  ·  {position}" if position else f"\n{phase}", "$quiet"),
            ),
        )
        self.write("#text", card.text)
        facts: list[Content] = []
        if card.expected:
            facts.append(Content.assemble((f"{words('step.expected')}  ", "$quiet"), (card.expected, "bold")))
        dagger = (words("step.placeholder") if card.placeholder else "", "$warning")
        limit = drawing.limit(words, card.low, card.high, card.unit)
        if limit:
            facts.append(Content.assemble((f"{words('step.limit')}  ", "$quiet"), (limit, "bold"), "  ", dagger))
            if card.limit_why:
                facts.append(Content.assemble((card.limit_why, "italic $quiet")))
        elif card.placeholder:
            facts.append(Content.assemble(dagger))
        self.write("#facts", Content("\n").join(facts))
        self._show_live(batch, card, width)
        self.write(
            "#why", Content.assemble((f"{words('step.why')}  ", "$quiet"), (card.why, "italic")) if card.why else ""
        )
        tail = [self._expiry(one) for one in batch.expiries]
        others = [other for other in batch.active if other.step != card.step and other.phase != "parallel"]
        if others:
            tail.append(Content.assemble((words("step.also"), "$quiet")))
        tail += [self._also(other) for other in others]
        if card.next_title or not others:
            title = card.next_title or words("step.last")
            tail.append(Content.assemble((f"{words('step.next')}  ", "$quiet"), title))
        self.write("#also", Content("\n").join(tail))

    def _show_live(self, batch: BatchCard, card: StepCard, width: int) -> None:
        """Live values and time: the first large where nothing has to be entered."""
        words = self.words
        elapsed_s = self.front.elapsed_s(batch, card)
        roomy = self._asks == "nothing"
        readings = list(card.readings)
        big, beside = "", Content("")
        if roomy and readings and readings[0].text:
            first = readings[0]
            big = first.text
            beside = Content.assemble(
                (drawing.unit_sign(first.unit), "bold"),
                (f"  {first.title}\n", "bold"),
                drawing.verdict(words, first),
                "\n",
                drawing.gauge(first, min(56, width - 8 - 3 * len(big))),
            )
            readings = readings[1:]
        self.query_one("#big").display = bool(big)
        self.query_one("#big").border_title = Content(card.readings[0].tag).markup if big else ""
        self.query_one("#digits", Digits).update(big)
        self.query_one("#beside", Static).update(beside)
        blocks: list[Content] = []
        for reading in readings:
            head = Content.assemble(
                (drawing.value_text(words, reading), "bold"),
                (f"  {reading.title}  ", ""),
                drawing.verdict(words, reading),
            )
            blocks.append(head)
            if bar := drawing.gauge(reading, min(48, width)):
                blocks.append(bar)
        self.write("#live", Content("\n").join(blocks))
        bar = drawing.progress(words, card, elapsed_s, min(72, width))
        if not bar and roomy and elapsed_s >= 1:
            bar = Content.assemble((words("step.elapsed", elapsed=drawing.span(words, elapsed_s)), "$quiet"))
        self.write("#progress", bar)

    def _expiry(self, one: ExpiryLine) -> Content:
        """How long material may still be used."""
        if one.expired:
            return Content.assemble((f"▲ {self.words('step.expired', material=one.material)}", "bold $error"))
        left = self.words("step.expires", material=one.material, left=drawing.span(self.words, one.left_s))
        return Content.assemble((f"▲ {left}", "bold $warning") if one.near else (left, "$quiet"))

    def _also(self, card: StepCard) -> Content:
        parts: list[Content | str] = [Content.assemble((f"▶ {card.step} {card.title}", ""))]
        for reading in card.readings:
            value = drawing.value_text(self.words, reading)
            parts.append(Content.assemble((f": {value} ", "bold"), drawing.verdict(self.words, reading)))
        return Content.assemble(*parts)

    def _show_end(self, batch: BatchCard) -> None:
        words = self.words
        self.write(
            "#title",
            Content.assemble((words("step.ended") if batch.state in drawing.ENDED else batch.title, "bold $primary")),
        )
        self.write("#text", "" if batch.state not in drawing.ENDED else batch.title)
        lines = [Content("" if batch.state == "idle" else words("step.no_exception"))]
        if batch.exceptions:
            lines = [Content.assemble((words("step.exceptions", count=batch.raised), "bold $warning"))]
            lines += [Content(f"▲ {line.step} {line.category}: {line.what}") for line in batch.exceptions]
        self.write("#facts", Content("\n").join(lines))
        self.query_one("#big").display = False
        for name in ("#live", "#progress", "#why", "#also"):
            self.write(name, "")

    def _show_draft(self) -> None:
        text = self.front.entries.get(self._entry, "")
        if self._asks not in {"value", "choice"} or not text:
            self.write("#draft", "")
        elif self._entry in self.front.refused_drafts:
            why = self.front.refused_drafts[self._entry]
            self.write("#draft", Content.assemble((self.words("step.draft.failed", why=why), "bold $error")))
        elif self.front.saved.get(self._entry) == text:
            self.write("#draft", Content.assemble((self.words("step.draft.saved"), "$success")))
        else:
            self.write("#draft", Content.assemble((self.words("step.draft.saving"), "$quiet")))

    def _show_actions(self, picture: Picture, batch: BatchCard, card: StepCard | None, *, wide: bool) -> None:
        words, entered = self.words, self.front.entries.get(self._entry, "").strip()
        acts = permitted_acts(picture, batch)
        asked = card is not None and batch.state in {"running", "pausing"}
        self._asked = self._may(picture, card) and asked
        ready = self._asked and (self._asks == "confirm" or bool(entered and self._asks in {"value", "scan", "choice"}))
        typing = self.has_class("typing")
        self.offer("#home", shown=True)
        self.offer("#steps", shown=not wide and not typing)
        self.offer("#acts", shown=bool(acts or batch.results) and not typing)
        self.offer("#pending", shown=self._may(picture, card) and asked and bool(card and card.pending) and not typing)
        attached = len(card.attachments) if card else 0
        self.offer("#attachments", shown=bool(attached) and not typing)
        self.query_one("#attachments", Target).tell(words("do.attachments", count=attached))
        more = len(tasks(batch)) - 1
        self.offer("#next-task", shown=more > 0 and not typing)
        self.query_one("#next-task", Target).tell(words("do.next_task", count=more))
        self.offer("#keyboard", shown=self._asks in {"value", "scan"})
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#resume", shown="resume" in acts and not typing)
        self.offer("#start", shown="start" in acts)
        self.offer("#confirm", shown=ready)

    def _may(self, picture: Picture, card: StepCard | None) -> bool:
        """Whether the person logged in has a role that does this step."""
        mine = picture.person.roles if picture.person else ()
        return card is None or not card.roles or bool(set(mine) & set(card.roles))

    async def tick(self) -> None:
        """Time passed."""
        if self.front.picture is not None:
            await self.show(self.front.picture)

    async def scanned(self, code: str) -> None:
        """A code is the answer of a step that asks for one, and of no other."""
        if self._asks != "scan":
            await self.stray_key()
            return
        await self._accept_scan(code, typed=False)

    async def stray_key(self) -> None:
        """Something was scanned or typed where nothing asks for it."""
        await self.say_wrong("step.no_scan")

    async def on_input_changed(self, event: Input.Changed) -> None:
        if self._asks == "scan":  # a code is scanned again: no draft of it is kept
            shows = bool(event.value), self._wrong
            if event.value:
                self._wrong = ""
            if shows == (self._typed, self._wrong):
                return  # a scanner types fast
            self._typed = bool(event.value)
        else:
            self.post_message(Typed(self._entry, event.value))
        await self.tick()

    def on_input_blurred(self, event: Input.Blurred) -> None:
        if self._asks != "scan":
            self.post_message(Typed(self._entry, event.value, leaving=True))

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        if isinstance(event, Code.Submitted):
            await self._accept_scan(event.value, typed=event.typed or self.front.scanner_beside)
        else:
            await self._accept()

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        if self._card is not None:
            text = self._card.choices[int(event.name)]
            self.front.entries[self._entry] = text
            self.post_message(Typed(self._entry, text, leaving=True))
            await self.tick()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        match event.button.id:
            case "home":
                self.post_message(Go("home"))
            case "attachments":
                self.post_message(Go("attachments", self._batch, self._entry[1]))
            case "steps" | "acts" as place:
                self.post_message(Go(place, self._batch))
            case "resume" | "start" as act:
                self.post_message(Go("acts", self._batch, choice=act))
            case "next-task":
                self._next_task()
            case "keyboard":
                self.toggle_keyboard("entry" if self._asks == "value" else "scan")
                await self.tick()
            case "pending":
                self._enter(PENDING)
            case "confirm":
                await self._accept()

    def _next_task(self) -> None:
        picture = self.front.picture
        batch = next((b for b in picture.batches if b.batch == self._batch), None) if picture else None
        names = [card.step for card in tasks(batch)] if batch else []
        if names:
            at = names.index(self._entry[1]) if self._entry[1] in names else -1
            self.post_message(Go("auto", self._batch, names[(at + 1) % len(names)]))

    async def _accept(self) -> None:
        confirm = self.query_one("#confirm", Target)
        if not confirm.display or confirm.disabled:
            return
        (batch, step), (iteration, part) = self._entry, self._shown_part
        text = self.front.entries.get(self._entry, "").strip()
        if self._asks == "confirm":
            confirmed = ConfirmStep(id=uuid4().hex, batch=batch, step=step, iteration=iteration, part=part)
            self.post_message(Ask(confirmed))
        elif self._asks == "scan":
            await self._accept_scan(text, typed=self.query_one(Code).typed or self.front.scanner_beside)
        else:
            self._enter(text)

    async def _accept_scan(self, code: str, *, typed: bool) -> None:
        """Send a code once, or say that it was not taken."""
        (batch, step), (iteration, part), now_s = self._entry, self._shown_part, self.front.now_s()
        text, last = code.strip(), self.front.scan
        if last is not None and last.text == text and now_s < last.at_s + DOUBLED_S:
            return
        if text and self._asked and not self.front.busy and BROKEN not in text and len(text) <= CODE_CHARS_MAX:
            self.front.scan, self._wrong = Scan(text, now_s), ""
            text = text.replace(SEPARATOR, "\x1d")
            about = {"batch": batch, "step": step, "iteration": iteration, "part": part}
            scanned = ScanCode(id=uuid4().hex, **about, text=text, typed=typed)
            self.post_message(Ask(scanned, [self._entry]))
        elif code:
            await self.say_wrong("step.not_taken")

    async def say_wrong(self, what: str) -> None:
        """A code came to nothing: say it."""
        if self._wrong != what:
            self._wrong = what
            await self.tick()

    def _enter(self, text: str) -> None:
        (batch, step), (iteration, part) = self._entry, self._shown_part
        entered = EnterValue(id=uuid4().hex, batch=batch, step=step, iteration=iteration, part=part, text=text)
        self.post_message(Ask(entered, [self._entry]))


class Steps(View):
    """All steps of a batch, where there is no room beside the body: `#step`, `#home`."""

    place: ClassVar[str] = "steps"

    def __init__(self, front: Front, batch: str) -> None:
        super().__init__(front)
        self._batch = batch

    def body(self) -> Iterator[Widget]:
        yield Said(self.words("step.list"), classes="title", markup=False)
        yield Said("", id="list")

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.home"), id="home", key="escape")
        yield Target(self.words("do.step"), id="step", key="f3", kind="primary")

    async def show(self, picture: Picture) -> None:
        batch = next(card for card in picture.batches if card.batch == self._batch)
        self.tell_now(batch.next_action, tone=drawing.tone(batch.state))
        room, rows = self.app.query_one("#main").size
        self.query_one("#list", Static).update(drawing.step_list(batch.steps, room - 4, max(5, rows - 8)))
        self.offer("#home", shown=True)
        self.offer("#step", shown=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.post_message(Go("home") if event.button.id == "home" else Go("auto", self._batch))
