"""Stop: a refusal in words that must be read; and Gone: the desk does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Static

from edge.core.errors import LinesideError
from edge.wire import Picture
from ui import drawing
from ui.view import Front, Go, Said, Target, View


class Stop(View):
    """`#understood`. No scanner can acknowledge it: keys and Enter do nothing unless the target has the focus."""

    place: ClassVar[str] = "stop"

    def __init__(self, front: Front, refusal: LinesideError, scanned: str, *, kept: bool) -> None:
        super().__init__(front)
        self._refusal, self._scanned, self._kept = refusal, scanned, kept
        self.add_class("scan" if scanned else "refused")

    def body(self) -> Iterator[Widget]:
        yield Said("", id="said")

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.understood"), id="understood", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:  # noqa: ARG002  # a refusal stands, whatever changes behind it
        words, refusal = self.words, self._refusal
        title = words("stop.title.scan" if self._scanned else "stop.title")
        self.query_one("#now", Static).update(Content.assemble((f"✖ {title}", "bold")))
        self.query_one("#now").set_class(True, "stop")
        parts: list[tuple[str, str]] = [(f"{words('stop.what')}\n", "$quiet"), (f"{refusal.what}\n", "bold")]
        parts += [(f"{words('stop.what')}: {other.what}\n", "bold") for other in refusal.others]
        if self._scanned:
            parts += [(f"\n{words('stop.scanned')}\n", "$quiet"), (f"{self._scanned}\n", "bold")]
        if refusal.effect:
            parts += [(f"\n{words('stop.effect')}\n", "$quiet"), (f"{refusal.effect}\n", "bold")]
        parts += [(f"\n{words('stop.todo')}\n", "$quiet")]
        parts += [(f"{refusal.todo or words('stop.todo.none')}\n", "bold")]
        if self._kept:
            parts += [(f"\n{words('stop.kept')}\n", "")]
        parts += [(f"\n{words('stop.code', code=refusal.code)}", "$quiet")]
        self.write("#said", Content.assemble(*parts))
        self.offer("#understood", shown=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "understood":
            self.post_message(Go("understood"))


class Gone(View):
    """Nothing is known, so nothing is shown but that."""

    place: ClassVar[str] = "gone"

    def body(self) -> Iterator[Widget]:
        yield Said("", id="said")

    def actions(self) -> Iterator[Widget]:
        return iter(())

    def tell(self, refusal: LinesideError | None, attempt: int, since_s: float, *, pending: bool) -> None:
        """What happened, what it means, what to do, and how long it lasts."""
        words = self.words
        spin = "◐◓◑◒"[attempt % 4]
        if refusal is None:
            self.query_one("#now", Static).update(Content.assemble((words("gone.connecting"), "bold")))
            self.write("#said", "")
            return
        self.query_one("#now", Static).update(Content.assemble((f"✖ {words('gone.title')}", "bold")))
        self.query_one("#now").set_class(True, "stop")
        parts: list[tuple[str, str]] = [
            (f"{words('stop.what')}\n", "$quiet"),
            (f"{refusal.what}\n", "bold"),
            (f"\n{words('stop.effect')}\n", "$quiet"),
            (f"{words('gone.effect')}\n", "bold"),
        ]
        if pending:
            parts += [(f"{words('gone.pending')}\n", "bold $warning")]
        parts += [
            (f"\n{words('stop.todo')}\n", "$quiet"),
            (f"{words('gone.todo')}\n", "bold"),
            (f"\n{spin} {words('gone.attempt', attempt=attempt, elapsed=drawing.span(words, since_s))}", ""),
        ]
        self.write("#said", Content.assemble(*parts))

    async def show(self, picture: Picture) -> None:
        """Nothing of it may be shown: it is not known to hold any more."""
