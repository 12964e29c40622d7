"""Start: recipe, order, batch, patient identity, and whether the equipment is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.wire import GiveOrder, Picture, RecipeLine, StartBatch, looks_like_order
from ui.view import ROWS, Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View

RECIPE: Final[Entry] = ("", "recipe")
TRAINING: Final[Entry] = ("", "training")
FIELDS: Final = ("order", "batch", "patient")


class Start(View):
    """`#recipe-<n>` (n: place in the list), `#order`, `#batch`, `#patient`, `#keyboard`, `#back`, `#training`,
    `#start-batch`."""

    place: ClassVar[str] = "start"

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._at = "order"

    def body(self) -> Iterator[Widget]:
        words = self.words
        with Horizontal(classes="columns"):
            with Vertical(classes="narrow detail"):
                yield Said(words("start.recipe"), classes="label", markup=False)
                yield Choices(words, of="recipe", per_page=4)
            with Vertical(classes="wide"):
                yield Line(self.front, ("", "order"), words("start.order"), id="order")
                yield Line(self.front, ("", "batch"), words("start.batch"), id="batch")
                yield Line(self.front, ("", "patient"), words("start.patient"), id="patient", replaced_by_typing=True)
                yield Said("", id="ready", classes="detail")
        yield Pad("letters", words, lambda: self.field(self._at))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.training"), id="training", key="f6")
        yield Target(self.words("do.start"), id="start-batch", key="f8", kind="primary")

    def _recipe(self, picture: Picture) -> RecipeLine | None:
        seal = self.front.entries.get(RECIPE, "")
        if not seal and len(picture.recipes) == 1:
            return picture.recipes[0]
        return next((recipe for recipe in picture.recipes if recipe.seal == seal), None)

    def _missing(self, recipe: RecipeLine | None) -> str:
        if recipe is None:
            return "recipe"
        if self._training():
            return "" if recipe.trainable else "training"
        needed = FIELDS if recipe.needs_patient else FIELDS[:2]
        picture = self.front.picture
        given = {"batch"} if picture is not None and picture.number else set()
        given |= set() if recipe.needs_order else {"order", "batch"}
        return next((name for name in needed if name not in given and not self.field(name).value.strip()), "")

    def _training(self) -> bool:
        """A trainee is to do it: nothing of it is a product's."""
        return bool(self.front.entries.get(TRAINING))

    async def show(self, picture: Picture) -> None:
        words, recipe, training = self.words, self._recipe(picture), self._training()
        await self.query_one(Choices).show(
            [
                Choice(str(n), Content(f"{line.recipe} {line.version}"), chosen=line is recipe)
                for n, line in enumerate(picture.recipes)
            ]
        )
        self.field("patient").display = recipe is not None and recipe.needs_patient and not training
        self.field("batch").display = not training
        self.field("batch").placeholder = picture.number
        missing = self._missing(recipe)
        if picture.recipes:
            ready_to = "learn" if training else "queue" if recipe is not None and recipe.waits else "go"
            self.tell_now(
                words(f"start.next.{missing or ready_to}"),
                words("start.title.training" if training else "start.title"),
                "wait" if training else "go",
            )
        else:
            self.tell_now(words("start.no_recipe"), words("start.title"), "wait")
        lines: list[tuple[str, str]] = []
        for name, why in picture.connections.items():
            state, _, remark = why.partition(", ")
            if state != "connected":
                lines.append((words("start.equipment.bad", name=name, why=why), "bold $error"))
            elif remark:
                lines.append((words("start.equipment.doubt", name=name, remark=remark), "bold $warning"))
        title = (f"\n{recipe.title}\n" if recipe else "\n", "bold")
        style = "bold $warning" if picture.recipe_approval == "from_folder" else "$success"
        profile = words(f"profile.{picture.profile}")
        rule = (f"{words(f'start.approval.{picture.recipe_approval}')}\n{profile}\n\n", style)
        if recipe is not None and recipe.waits and not training:
            lines.insert(0, (words("start.waits", waits=recipe.waits), "bold $warning"))
        ready = [(f"{text}\n", style) for text, style in lines] or [(words("start.equipment.ok") + "\n", "$success")]
        typing = self.has_class("typing")
        # the letters take its room; where there is little, what keeps a batch from starting comes first
        told = [*ready, rule] if self.app.size.height < ROWS else [title, rule, *ready]
        self.write("#ready", "" if typing else Content.assemble(*told))
        self.offer("#back", shown=True)
        self.offer("#keyboard", shown=bool(picture.recipes))
        self.offer("#start-batch", shown=not missing)
        self.offer("#training", shown=bool(picture.recipes) and not typing)
        self.query_one("#training", Target).tell(words("do.training.end" if training else "do.training"))
        waits = recipe.waits if recipe is not None else ""
        start = "do.start.training" if training else "do.queue" if waits else "do.start"
        self.query_one("#start-batch", Target).tell(words(start))
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))

    def on_mount(self) -> None:
        self.focus_on("order")

    def on_descendant_focus(self) -> None:
        focused = self.screen.focused
        if focused is not None and focused.id in FIELDS:
            self._at = focused.id
        for name in FIELDS:
            self.field(name).set_class(name == self._at, "at")

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        if self.front.picture is not None:
            self.front.entries[RECIPE] = self.front.picture.recipes[int(event.name)].seal
            await self.show(self.front.picture)

    async def on_input_changed(self, _: Input.Changed) -> None:
        if self.front.picture is not None:
            await self.show(self.front.picture)

    async def scanned(self, code: str) -> None:
        """A code goes into the field that has the focus, else into the first."""
        focused = self.app.focused
        name = focused.id if focused is not None and focused.id in FIELDS else FIELDS[0]
        self.take_code(self.field(name or FIELDS[0]), code)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A scanner's Enter goes on to the next field; it never starts a batch."""
        if looks_like_order(event.value):
            give = GiveOrder(id=uuid4().hex, text=event.value.strip(), way="scanned")
            self.post_message(Ask(give, [("", event.input.id or "")], "orders"))
            return
        later = FIELDS[FIELDS.index(event.input.id or "") + 1 :]
        self.screen.set_focus(next((self.field(name) for name in later if self.field(name).display), None))

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        picture = self.front.picture
        if event.button.id == "back":
            self.post_message(Go("home"))
        elif event.button.id == "keyboard":
            self.toggle_keyboard(self._at)
            if picture is not None:
                await self.show(picture)
        elif event.button.id == "training" and picture is not None:
            self.front.entries[TRAINING] = "" if self._training() else "yes"
            await self.show(picture)
        elif event.button.id == "start-batch" and picture is not None:
            recipe = self._recipe(picture)
            if recipe is None or self._missing(recipe):
                return
            values = {name: self.field(name).value.strip() for name in FIELDS}
            training = self._training()
            request = StartBatch(
                id=uuid4().hex,
                batch="" if training else values["batch"],
                order=values["order"],
                recipe=recipe.seal,
                patient=values["patient"] if recipe.needs_patient and not training else "",
                queue=bool(recipe.waits) and not training,
                training=training,
            )
            self.post_message(Ask(request, [RECIPE, TRAINING, *(("", name) for name in FIELDS)]))
