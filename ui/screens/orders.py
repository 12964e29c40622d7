"""Orders: those that wait on this box, and the one tap that starts one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from uuid import uuid4

from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.wire import GiveOrder, OrderLine, Picture, StartBatch, looks_like_order
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Pad, Said, Target, View

CHOSEN: Final[Entry] = ("", "chosen order")
SCAN: Final[Entry] = ("", "scanned at orders")


class Orders(View):
    """`#order-<n>` (n: place in the list), `#scan` (an order's code or id, or the patient identity), `#keyboard`,
    `#back`, `#no-order`, `#start-order`."""

    place: ClassVar[str] = "orders"
    takes_keys: ClassVar[str] = "scan"

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        with Horizontal(classes="columns"):
            with Vertical(classes="narrow detail"):
                yield Choices(self.words, of="order", per_page=4)
            with Vertical(classes="wide"):
                yield Said("", id="facts")
                yield Line(self.front, SCAN, "", id="scan", replaced_by_typing=True, length=4096)
        yield Pad("letters", self.words, lambda: self.field("scan"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.no_order"), id="no-order", key="f6")
        yield Target(self.words("do.start"), id="start-order", key="f8", kind="primary")

    def _order(self, picture: Picture) -> OrderLine | None:
        wanted = self.front.entries.get(CHOSEN, "")
        first = picture.orders[0] if picture.orders else None
        return next((one for one in picture.orders if one.order == wanted), first)

    async def show(self, picture: Picture) -> None:
        words, order = self.words, self._order(picture)
        self._offered = tuple(one.order for one in picture.orders)
        choices = [
            Choice(str(n), Content(f"{one.order}  {one.due}".rstrip()), chosen=one is order)
            for n, one in enumerate(picture.orders)
        ]
        await self.query_one(Choices).show(choices)
        scanned = self.field("scan").value.strip()
        needs = order is not None and order.needs_patient
        self.field("scan").border_title = words("start.patient" if needs else "orders.scan")
        patient = bool(scanned) and scanned not in self._offered and not looks_like_order(scanned)
        able = order is not None and bool(order.recipe) and (patient or not needs)
        if order is None:
            self.tell_now(words("orders.none"), words("orders.title"))
        elif order.why:
            self.tell_now(words("orders.cannot"), order.why, "wait")
        else:
            title = words("start.title.training") if order.training else words("orders.title")
            next_one = "start.next.patient" if not able else "start.next.queue" if order.waits else "start.next.go"
            self.tell_now(words(next_one), title, "wait" if order.training or order.waits else "go")
        typing = self.has_class("typing")
        self.write("#facts", "" if typing or order is None else self._facts(order, picture.number))
        self.offer("#back", shown=True)
        self.offer("#keyboard", shown=True)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#no-order", shown=not typing)
        self.offer("#start-order", shown=able)
        start = "do.start.training" if order and order.training else "do.queue" if order and order.waits else "do.start"
        self.query_one("#start-order", Target).tell(words(start))

    def _facts(self, order: OrderLine, number: str) -> Content:
        words = self.words
        said = [
            (words("start.recipe"), order.title),
            (words("start.batch"), order.number or ("" if order.training else number)),
            (words("orders.quantity"), order.quantity),
            (words("orders.due"), order.due),
            *((name, text) for name, text in order.parameters.items()),
            ("▲", order.waits),
        ]
        lines = [Content.assemble((f"{what}  ", "$quiet"), (text, "bold")) for what, text in said if text]
        return Content("\n").join([Content.assemble((order.order, "bold $primary")), *lines, Content("")])

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self.front.entries[CHOSEN] = self._offered[int(event.name)]
        self.field("scan").value = ""
        if self.front.picture is not None:
            await self.show(self.front.picture)

    async def on_input_changed(self, _: Input.Changed) -> None:
        if self.front.picture is not None:
            await self.show(self.front.picture)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """A scanner's Enter: an order's code is taken, an order's id chosen; it never starts a batch."""
        text, picture = event.value.strip(), self.front.picture
        if looks_like_order(text):
            self.post_message(Ask(GiveOrder(id=uuid4().hex, text=text, way="scanned"), [SCAN, CHOSEN], "orders"))
        elif text in self._offered and picture is not None:
            self.front.entries[CHOSEN] = text
            self.field("scan").value = ""
            await self.show(picture)

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        picture = self.front.picture
        if event.button.id == "back":
            self.post_message(Go("home"))
        elif event.button.id == "no-order":
            self.post_message(Go("start"))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("scan")
            if picture is not None:
                await self.show(picture)
        elif event.button.id == "start-order" and picture is not None and (order := self._order(picture)) is not None:
            request = StartBatch(
                id=uuid4().hex,
                batch="" if order.training else order.number,
                order=order.order,
                recipe=order.recipe,
                patient=self.field("scan").value.strip() if order.needs_patient else "",
                queue=bool(order.waits) and not order.training,
                training=order.training,
            )
            self.post_message(Ask(request, [SCAN, CHOSEN]))
