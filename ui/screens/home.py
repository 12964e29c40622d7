"""Home: the batches, the equipment, and what there is to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar
from uuid import uuid4

from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button

from edge.wire import BatchCard, LogOut, Picture, UnitLine
from ui import drawing
from ui.screens.alarms import headline
from ui.screens.recipes import may_look
from ui.view import Ask, Choice, Choices, Go, Said, Target, View


class Home(View):
    """`#open-<n>` (n: place in the list), `#new-batch`, `#alarms`, `#recipes`, `#log-out`."""

    place: ClassVar[str] = "home"

    def body(self) -> Iterator[Widget]:
        yield Said(self.words("home.title"), classes="title", markup=False)
        yield Choices(self.words, of="open", per_page=2)
        yield Said("", id="open-alarms")
        yield Said("", id="recipes-waiting")
        with Vertical(classes="scroll"):
            yield Said("", id="equipment")
            yield Said("", id="notices")

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.log_out"), id="log-out", key="f9")
        yield Target(self.words("do.recipes"), id="recipes", key="f4")
        yield Target(self.words("do.alarms"), id="alarms", key="f5")
        yield Target(self.words("do.new_batch"), id="new-batch", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        cards = [Choice(str(n), self._label(batch)) for n, batch in enumerate(picture.batches)]
        await self.query_one(Choices).show(cards)
        may_start = picture.person is not None and not set(picture.starters).isdisjoint(picture.person.roles)
        if not picture.batches:
            self.tell_now(words("home.nothing.next"), words("home.nothing"))
        else:
            self.tell_now(words("home.next" if may_start else "home.next.read"))
        self.offer("#new-batch", shown=may_start)
        self.offer("#log-out", shown=True)
        self.offer("#alarms", shown=bool(picture.alarms))
        self.offer("#recipes", shown=may_look(picture))
        self.write("#open-alarms", headline(words, picture.alarms))
        waiting = ", ".join(picture.recipes_waiting)
        self.write("#recipes-waiting", Content(f"▲ {words('home.recipes', recipes=waiting)}") if waiting else "")
        lines: list[Content] = [Content.assemble((words("home.equipment"), "bold $quiet"))]
        for name, health in picture.connections.items():
            state, _, remark = health.partition(", ")
            if state == "connected":
                sign = ("▲ ", "bold $warning") if remark else ("✔ ", "$success")
                said = [(words("home.connected"), "$success"), (f", {remark}" if remark else "", "bold $warning")]
                lines.append(Content.assemble(sign, f"{name}: ", *said))
            else:
                lines.append(Content.assemble(("✖ ", "bold $error"), f"{name}: ", (health, "bold $error")))
        if not picture.connections:
            lines.append(Content(words("home.no_equipment")))
        lines += [self._unit(one) for one in picture.units]
        lines += self._self_check(picture) + self._drill(picture)
        self.write("#equipment", Content("\n").join(lines))
        notices = [Content.assemble((words("home.notices"), "bold $quiet"))]
        notices += [Content(f"▲ {notice}") for notice in picture.notices]
        self.write("#notices", Content("\n").join(notices) if picture.notices else "")

    def _unit(self, one: UnitLine) -> Content:
        if one.why:
            return Content.assemble(("▲ ", "bold $warning"), f"{one.unit}: {one.why}")
        left = "" if one.left_s is None else drawing.span(self.words, one.left_s)
        said = self.words("home.clean_for", left=left) if left else self.words("home.clean")
        return Content.assemble(("✔ ", "$success"), f"{one.unit}: ", (said, "$success"))

    def _self_check(self, picture: Picture) -> list[Content]:
        """What the box found when it last verified its whole record."""
        last = picture.self_check
        if last is None:
            return [Content.assemble((self.words("home.check.never"), "$quiet"))]
        when = drawing.moment(last.utc)
        wrong, right = "home.check.found", self.words("home.check.holds", when=when, rows=last.rows)
        return _found(self.words(wrong, when=when), last.found, right, last.left_out)

    def _drill(self, picture: Picture) -> list[Content]:
        """What the box found when it last restored a backup to look at it."""
        last = picture.drill
        if last is None:
            return []
        when = drawing.moment(last.utc)
        wrong, right = "home.drill.found", self.words("home.drill.holds", when=when, seq=last.head_seq)
        return _found(self.words(wrong, when=when), last.found, right, last.left_out)

    def _label(self, batch: BatchCard) -> Content:
        mark, colour = drawing.STATE_MARK[batch.state], drawing.style(batch.state)
        active = next((f"{line.step} {line.title}" for line in batch.steps if line.state == "active"), batch.title)
        return Content.assemble(
            (f"{self.words('training.mark')} " if batch.training else "", "bold $warning reverse"),
            (f"{mark} {self.words(f'state.{batch.state}')}", f"bold {colour}"),
            f"  {batch.batch}  ",
            (
                f"{batch.recipe} {batch.version}  {' '.join(dict.fromkeys(batch.units.values()))}",
                "not bold $quiet",
            ),
            "\n",
            (active, "not bold"),
            "\n",
            (f"→ {batch.next_action}", "bold"),
        )

    def on_choices_picked(self, event: Choices.Picked) -> None:
        picture = self.front.picture
        if picture is not None:
            self.post_message(Go("auto", picture.batches[int(event.name)].batch))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "new-batch":
            picture = self.front.picture
            self.post_message(Go("orders" if picture is not None and picture.orders else "start"))
        elif event.button.id == "recipes":
            self.post_message(Go("recipes"))
        elif event.button.id == "alarms":
            self.post_message(Go("alarms"))
        elif event.button.id == "log-out":
            self.post_message(Ask(LogOut(id=uuid4().hex)))


def _found(wrong: str, found: tuple[str, ...], right: str, left_out: tuple[str, ...]) -> list[Content]:
    """`wrong` with what was found, or `right`; and what was not at hand."""
    quiet = [Content.assemble((f"  {each}", "$quiet")) for each in left_out]
    if found:
        said = [Content.assemble(("✖ ", "bold $error"), (wrong, "bold $error"))]
        return said + [Content.assemble((f"  {each}", "bold $error")) for each in found] + quiet
    return [Content.assemble(("✔ ", "$success"), (right, "$success")), *quiet]
