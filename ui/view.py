"""What every screen is made of: a view with its action bar, finger targets, pads and choices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from textual import events
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.validation import ValidationResult
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from edge.wire import BatchCard, Picture, Request, StepCard
from ui import drawing
from ui.locale import Words

Entry = tuple[str, str]
"""Where a typed text belongs: a batch and a step; or "" and a field's name."""

CODE_CHARS_MAX: Final = 256
"""No code that anything takes has more."""
BROKEN: Final = "\ufffd"
"""Stands in a scanned code for what is no character of one."""
SEPARATOR: Final = "\u241d"
"""Stands there for the separator of GS1 codes, which has no sign."""
PAUSE_S: Final = 0.5
KEY_S: Final = 0.03
KEYS_MIN: Final = 3
"""A scanner types a code in one go: at least so many keys, so fast, and no pause."""
ROWS: Final = 24
COLUMNS: Final = 80
"""Of the terminal that screens are made for; where there is less, what matters most stays."""
PADS: Final[dict[str, tuple[str, ...]]] = {
    "pin": ("123", "456", "789", "c0<"),
    "number": ("789<", "456c", "123-", "0."),
    "letters": ("1234567890", "QWERTYUIOP", "ASDFGHJKL-", "ZXCVBNM._<"),
}
"""Keys by row. c clears, < erases one, _ is a space."""
KEY_NAMES: Final = {"c": "clear", "<": "erase", ".": "dot", "-": "minus", "_": "space"}


@dataclass(frozen=True)
class Scan:
    """A code that was sent to a step."""

    text: str
    at_s: float


@dataclass
class Keys:
    """Keys that came in one go, in the field of a code."""

    field: Code
    behind: bool
    """Something stood in it already."""
    begun_s: float
    last_s: float
    count: int = 0

    def mixed(self, now_s: float) -> bool:
        """Whether a scanner has typed them behind the rest of something else."""
        return self.behind and self.count >= KEYS_MIN and now_s - self.begun_s < self.count * KEY_S


@dataclass
class Front:
    """What all views share: words, the last picture, what was typed, and whether an answer is awaited."""

    words: Words
    now_s: Callable[[], float]
    entries: MutableMapping[Entry, str] = field(default_factory=dict)
    """Everything typed and not yet accepted by the desk."""
    saved: dict[Entry, str] = field(default_factory=dict)
    """The drafts that the desk has answered for."""
    refused_drafts: dict[Entry, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Attached texts that were opened, by what is in them; empty while one is on its way."""
    looked: dict[str, Any] = field(default_factory=dict)
    """What the desk answered when a view looked for it."""
    picture: Picture | None = None
    picture_at_s: float = 0.0
    busy: bool = False
    scan: Scan | None = None
    """The last code that was sent to a step."""
    keys: Keys | None = None
    """Those of a code that no Enter has ended yet."""
    scanner_beside: bool = False
    """A scanner has a line of its own: it types nothing, so whatever is typed was typed by somebody."""

    def elapsed_s(self, batch: BatchCard, card: StepCard) -> float:
        """The step's elapsed time now: time passes between two pictures while the batch runs."""
        passed = self.now_s() - self.picture_at_s if batch.state == "running" else 0.0
        elapsed = card.elapsed_s + passed
        return min(elapsed, card.duration_s) if card.duration_s > 0 else elapsed


class Go(Message):
    """Show another place."""

    def __init__(self, place: str, batch: str = "", step: str = "", choice: str = "") -> None:
        super().__init__()
        self.place, self.batch, self.step, self.choice = place, batch, step, choice


class Ask(Message):
    """Ask the desk. When it accepts, `entries` are no longer kept and `then` is shown."""

    def __init__(self, request: Request, entries: Sequence[Entry] = (), then: str = "auto") -> None:
        super().__init__()
        self.request, self.entries, self.then = request, tuple(entries), then


class Look(Message):
    """Ask the desk for what no picture shows; the answer is in `looked` under this name. When it refuses, `otherwise`
    is shown."""

    def __init__(self, name: str, request: Request, otherwise: str) -> None:
        super().__init__()
        self.name, self.request, self.otherwise = name, request, otherwise


class Open(Message):
    """Read an attached text from the desk."""

    def __init__(self, sha256: str) -> None:
        super().__init__()
        self.sha256 = sha256


class Typed(Message):
    """A text changed that must survive the screen (`leaving`: at once)."""

    def __init__(self, entry: Entry, text: str, *, leaving: bool = False) -> None:
        super().__init__()
        self.entry, self.text, self.leaving = entry, text, leaving


class Said(Static):
    """A text that is laid out anew only when it changed."""

    def update(self, content: VisualType = "", *, layout: bool = True) -> None:
        """Show `content`."""
        present = self.content
        if isinstance(content, Content) and isinstance(present, Content) and content.is_same(present):
            return
        super().update(content, layout=layout)


class Target(Button):
    """A finger target, at least three rows high, with the key that does the same."""

    def __init__(self, text: str | Content, *, id: str, key: str = "", kind: str = "plain") -> None:  # noqa: A002
        super().__init__(classes=kind, id=id)
        self.shortcut = key
        self.styles.line_pad = 0
        self.tell(text)

    def tell(self, text: str | Content) -> None:
        """Set the words on the target."""
        sign = {"escape": "Esc"}.get(self.shortcut, self.shortcut.upper())
        words = Content(text) if isinstance(text, str) else text
        label = Content.assemble((f"{sign} ", "not bold dim"), words) if sign else words
        if not (isinstance(self.label, Content) and label.is_same(self.label)):
            self.label = label
            self.styles.min_width = max(len(line) for line in label.plain.split("\n")) + 2


class Key(Target):
    """A key of a pad. It leaves the focus where it is."""

    can_focus = False

    def __init__(self, sign: str, text: str) -> None:
        super().__init__(text, id=f"pad-{KEY_NAMES.get(sign, sign.lower())}", kind="key")
        self.sign = sign


class Pad(Container):
    """Keys for fingers that type into one field."""

    def __init__(self, kind: str, words: Words, target: Callable[[], Input]) -> None:
        super().__init__(classes=f"pad {kind}")
        self._kind, self._words, self._target = kind, words, target

    def on_mount(self) -> None:
        """The letters, forty keys, are made only when somebody wants them."""
        if self._kind != "letters":
            self.fill()

    def fill(self) -> None:
        """Make the keys, once."""
        if not self.children:
            self.mount_all(self._rows())

    def _rows(self) -> Iterator[Horizontal]:
        named = {"c": "do.clear", "<": "do.erase", "_": "do.space"}
        for row in PADS[self._kind]:
            keys = (Key(sign, self._words(named[sign]) if sign in named else sign) for sign in row)
            yield Horizontal(*keys, classes="pad-row")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Type, erase or clear."""
        event.stop()
        target = self._target()
        if not isinstance(event.button, Key):
            return
        if isinstance(target, Code):
            target.typed = True
        match event.button.sign:
            case "c":
                target.value = ""
            case "<":
                target.action_delete_left()
            case "_":
                target.insert_text_at_cursor(" ")
            case sign:
                target.insert_text_at_cursor(sign)


@dataclass(frozen=True)
class Choice:
    """One of several: `name` is its id's tail."""

    name: str
    label: Content
    chosen: bool = False


BORDERS: Final = 6
"""Columns of a choice that its words do not have."""


class Choices(Vertical):
    """Targets of which one is picked; more than fit are on further pages."""

    class Picked(Message):
        """`name` was picked out of the choices called `of`."""

        def __init__(self, of: str, name: str) -> None:
            super().__init__()
            self.of, self.name = of, name

    def __init__(self, words: Words, *, of: str, per_page: int) -> None:
        super().__init__(id=f"{of}-choices", classes="choices")
        self._words, self._of, self._per_page, self._page = words, of, per_page, 0
        self._all: tuple[Choice, ...] = ()
        self._changing = asyncio.Lock()
        """A picture and a finger may ask for a change at once."""

    async def show(self, choices: Sequence[Choice]) -> None:
        """Show these; targets that stay are kept."""
        async with self._changing:
            self._all = tuple(choices)
            await self._show()

    async def _show(self) -> None:
        paged = len(self._all) > self._per_page
        size = self._per_page - 1 if paged else self._per_page
        pages = max(1, -(-len(self._all) // size))
        self._page %= pages
        present = self._all[self._page * size :][:size]
        names = [f"{self._of}-{choice.name}" for choice in present] + ([f"{self._of}-more"] if paged else [])
        if [child.id for child in self.children] != names:
            await self.remove_children()
            await self.mount_all(Target("", id=name) for name in names)
        room = max(self.size.width - BORDERS, 1) if self.size.width else self.app.size.width
        for choice, target in zip(present, self.query(Target), strict=False):
            mark = ("✔ ", "bold $success") if choice.chosen else ""
            lines = Content.assemble(mark, choice.label).split("\n", allow_blank=True)
            target.tell(Content("\n").join(line.truncate(room, ellipsis=True) for line in lines))
            target.set_class(choice.chosen, "chosen")
        if paged:
            more = self.query(Target).last()
            more.tell(self._words("do.more", page=self._page + 1, pages=pages))

    async def on_resize(self) -> None:
        """Labels are cut, with an ellipsis, to the room there is."""
        async with self._changing:
            await self._show()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        """Pick, or turn the page."""
        event.stop()
        name = (event.button.id or "").removeprefix(f"{self._of}-")
        if name == "more":
            async with self._changing:
                self._page += 1
                await self._show()
        else:
            self.post_message(self.Picked(self._of, name))


class View(Vertical):
    """A screen: the band that says what to do now, the body, the action bar."""

    place: ClassVar[str] = ""
    takes_keys: ClassVar[str] = ""
    """The field that takes what is typed or scanned while no field has the focus."""
    starts_at: ClassVar[str] = ""
    """The field that has the focus at first."""

    def __init__(self, front: Front) -> None:
        super().__init__(classes=f"view {self.place}")
        self.front, self.words = front, front.words

    def compose(self) -> ComposeResult:
        """Band, body, bar."""
        yield Said("", id="now")
        with Vertical(classes="body"):
            yield from self.body()
        with Horizontal(classes="actions"):
            yield from self.actions()

    def body(self) -> Iterator[Widget]:
        """The widgets between band and bar."""
        raise NotImplementedError

    def actions(self) -> Iterator[Widget]:
        """The targets of the action bar."""
        raise NotImplementedError

    async def show(self, picture: Picture) -> None:
        """Bring everything up to this picture."""
        raise NotImplementedError

    async def scanned(self, code: str) -> None:
        """A code came from a scanner on a line of its own: nothing here asks for one, and what is typed stays."""

    def take_code(self, field: Input, code: str) -> None:
        """As if the code was scanned into the field, with the scanner's Enter."""
        field.value = code
        field.post_message(Input.Submitted(field, code))

    async def again(self) -> None:
        """Bring everything up to what was typed or chosen since."""
        if self.front.picture is not None:
            await self.show(self.front.picture)

    def tell_now(self, next_action: str, reason: str = "", tone: str = "go") -> None:
        """The band: why things are as they are, and the next thing to do."""
        if self.front.busy:
            next_action = self.words("step.busy")
        lines = [(f"{reason}\n", "")] if reason else []
        band = self.query_one("#now", Static)
        band.update(Content.assemble(*lines, ("→ ", "bold"), (next_action, "bold")))
        for name in ("go", "wait", "stop"):
            band.set_class(name == tone, name)

    def write(self, selector: str, content: Content | str) -> None:
        """Set a text; an empty one takes no room."""
        static = self.query_one(selector, Static)
        plain = content if isinstance(content, Content) else Content(content)
        static.display = bool(plain)
        static.update(plain)

    def offer(self, selector: str, shown: bool, *, enabled: bool = True) -> None:
        """Show a target or not; one that waits for something or for an answer cannot be pressed."""
        target = self.query_one(selector, Target)
        target.display = shown
        target.disabled = self.front.busy or not enabled

    def leave(self) -> None:
        """Called before the view goes: nothing typed may be lost."""

    def toggle_keyboard(self, name: str) -> None:
        """Open or close the letters for the field `name`."""
        self.query_one(".letters", Pad).fill()
        self.toggle_class("typing")
        self.focus_on(name)

    def field(self, name: str) -> Input:
        """A field by its id."""
        return self.query_one(f"#{name}", Input)

    def focus_on(self, name: str) -> None:
        """Give a field the focus at once."""
        self.screen.set_focus(self.field(name))


class Line(Input):
    """A field that keeps what was typed when its view is shown again, and takes the room of three rows."""

    def __init__(
        self,
        front: Front,
        entry: Entry | None,
        title: str,
        *,
        id: str,  # noqa: A002
        secret: bool = False,
        replaced_by_typing: bool = False,
        length: int = 256,
    ) -> None:
        super().__init__(
            front.entries.get(entry, "") if entry else "",
            id=id,
            password=secret,
            select_on_focus=replaced_by_typing,
            max_length=length,
        )
        self.cursor_blink = False
        self.entry = entry
        self._front = front
        self.border_title = Content(title).markup

    def on_input_changed(self, event: Input.Changed) -> None:
        """Remember the text until the desk has accepted it."""
        if self.entry:
            self._front.entries[self.entry] = event.value


class Code(Line):
    """A field for a code, that a scanner types as if it was a keyboard. Enter gives what came in one go, each of two
    codes by itself, and empties the field. A code with `BROKEN` in it is none.

    `typed`: what stands in it came from the keys on the screen or was pasted. Fingers at a keyboard cannot be told from
    a scanner that types."""

    class Submitted(Line.Submitted, namespace="input"):
        """With whether it was typed for certain."""

        def __init__(self, code: Code, value: str, validation: ValidationResult | None = None) -> None:
            super().__init__(code, value, validation)
            self.typed = code.typed

    def __init__(self, front: Front, entry: Entry, title: str, *, id: str) -> None:  # noqa: A002
        super().__init__(front, entry, title, id=id, replaced_by_typing=True, length=CODE_CHARS_MAX + 1)
        self.typed = False

    def on_paste(self, _: events.Paste) -> None:
        """No scanner pastes."""
        self.typed = True

    def on_input_changed(self, event: Line.Changed) -> None:
        """What is empty was not typed."""
        self.typed = self.typed and bool(event.value)

    def on_key(self, event: events.Key) -> None:
        """In the order of the keys; an action would come later than what follows its key."""
        sent, front = event.character, self._front
        if sent is None or event.key in {"tab", "backspace", "escape"}:
            return
        now_s, keys = front.now_s(), front.keys
        if keys is None or now_s > keys.last_s + PAUSE_S:
            keys = Keys(self, bool(self.value) and self.selection.is_empty, now_s, now_s)
        keys.last_s, keys.count = now_s, keys.count + 1
        front.keys = keys
        if sent in {"\r", "\n"}:
            whole = keys.field is self and not keys.mixed(now_s)
            self.post_message(self.Submitted(self, self.value if whole else self.value + BROKEN))
            self.value, front.keys = "", None
        elif not event.is_printable:
            self.insert_text_at_cursor(SEPARATOR if sent == "\x1d" else BROKEN)
        else:
            return
        event.stop()
        event.prevent_default()


__all__ = [
    "BROKEN",
    "CODE_CHARS_MAX",
    "SEPARATOR",
    "Ask",
    "Choice",
    "Choices",
    "Code",
    "Entry",
    "Front",
    "Go",
    "Key",
    "Line",
    "Look",
    "Pad",
    "Said",
    "Scan",
    "Target",
    "Typed",
    "View",
    "drawing",
]
