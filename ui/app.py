"""The operator's screen: a client of the desk that can die and come back without an entry lost.

It shows what the desk's last picture says and nothing else: an entry is done when a picture shows it done.
Keys, fingers (mouse clicks) and scanners (fast keys and Enter) all work; every target names its key.

The ids, for whoever drives the screen (tests, the demo):

- always: `#header`, `#strip`, `#alarm` (while one is to be acknowledged), `#dark`,
  `#now` (the band: reason and next action)
- lock: `#badge`, `#person-<id>`, `#pin`, `#pad-<digit>`, `#log-in`
- home: `#open-<n>`, `#new-batch`, `#alarms`, `#recipes`, `#log-out`
- start: `#recipe-<n>`, `#order`, `#batch`, `#patient`, `#keyboard`, `#back`, `#start-batch`
- step: `#entry` or `#scan` or `#choice-<n>`, `#confirm`, `#resume`, `#home`, `#steps`, `#acts`, `#next-task`,
  `#keyboard`
- steps: `#step`, `#home`
- attachments: `#attachment-<n>`; of a text `#up`, `#down`; `#back`
- alarms: `#alarm-<n>`; of one: `#confirm`, `#back`; `#home`
- recipes: `#recipe-<n>`, `#home`; recipe: `#up`, `#down`, `#confirm`, `#back`; recipe-act: `#act-<act>`, `#reason`,
  `#keyboard`, `#confirm`, `#back`
- correct and amend: `#choice-<n>`, then `#entry`, `#reason`, `#keyboard`, `#confirm`, `#back`
- amendment: `#confirm` to agree, `#reason` and `#refuse`, `#keyboard`, `#back`
- hands: `#choice-<n>`, then `#reason`, `#keyboard`, `#confirm`, `#back`
- hand: `#entry` or `#choice-<n>`, `#confirm`, `#keyboard`, `#next-task`, `#acts`, `#home`
- question: `#answer-happened`, `#answer-again`, `#answer-abort`, `#hands`, `#home`
- answer, continue, sign, sign-correction, sign-mode, sign-hand and sign-recipe: `#signer-<person>`, `#sign-person`
  (text: who was chosen), `#sign-pin`, `#pad-<digit>`, `#confirm`, `#back`
- acts: `#act-<start|pause|hold|resume|stop|abort>`, `#reason`, `#confirm`, `#back`; `#off` leads to
- off: `#minutes`, `#pad-<digit>`, `#confirm`, `#back`, and sign-off: as sign
- stop (a refusal to read): `#understood`
- gone (no runtime): nothing to press

`LinesideApp.place` is the name of what is shown ("lock", "home", ... as in this list). F8 presses the main
target everywhere, Escape goes back or home.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import hashlib
import select
import sys
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, TextIO
from uuid import uuid4

from textual import events
from textual._styles_cache import StylesCache
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.css.query import NoMatches
from textual.driver import Driver
from textual.drivers import linux_driver
from textual.message import Message
from textual.theme import Theme
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, Static

from edge.core.errors import LinesideError
from edge.desk_client import DeskClient, connect
from edge.wire import BatchCard, LogIn, LogOut, Picture, ReadAttachment, SaveDraft, ScanCode, StartBatch, StepCard
from ui import drawing
from ui.locale import Words
from ui.screens.acts import Acts
from ui.screens.alarms import Alarms, headline
from ui.screens.amend import Amend, Amendment, SignAmendment, SignRequest, offer_in
from ui.screens.attachments import Attachments
from ui.screens.by_hand import entering, switching
from ui.screens.correct import Correct, SignCorrection, value_in
from ui.screens.dark import entering_dark
from ui.screens.home import Home
from ui.screens.lock import Lock
from ui.screens.orders import Orders
from ui.screens.recipes import wanted as recipes_wanted
from ui.screens.results import Results, SignResult
from ui.screens.sign import Answer, Continue, Question, Sign
from ui.screens.start import Start
from ui.screens.step import Step, Steps, main_card
from ui.screens.stop import Gone, Stop
from ui.view import COLUMNS, ROWS, Ask, Entry, Front, Go, Key, Look, Open, Said, Target, Typed, View

Scanner = Callable[[Callable[[str], None], Callable[[str], None]], Coroutine[None, None, None]]
"""Runs until cancelled: gives each code to the first, and to the second why there is none ("" when all is well)."""
TEXT_BYTES_MAX: Final = 65_536
"""Of an attached text."""
RECONNECT_S: Final = 0.25
DRAFT_AFTER_S: Final = 0.3
TICK_S: Final = 1.0

THEME: Final = Theme(
    name="lineside",
    primary="#5cc8d7",
    secondary="#7aa2f7",
    accent="#5cc8d7",
    success="#6fcf97",
    warning="#f2b45a",
    error="#ff7b72",
    foreground="#e8eef4",
    background="#0e151c",
    surface="#16202a",
    panel="#1e2b38",
    dark=True,
    variables={"quiet": "#93a4b5", "faint": "#46586a"},
)


class LinesideApp(App[None]):
    """The screen. `side` is docked at the right of it; `on_real_key` is called on the event loop whenever a key or a
    button comes from the terminal itself, not from a pilot. `scanner` gives codes from a line of its own."""

    CSS_PATH = "style.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = []

    def __init__(
        self,
        desk_socket: Path,
        *,
        language: str = "en",
        side: Widget | None = None,
        on_real_key: Callable[[], object] | None = None,
        scanner: Scanner | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_real_key = on_real_key
        self._scanner, self._scanner_said = scanner, ""
        super().__init__()
        self.VERTICAL_BREAKPOINTS = [(0, "-short"), (29, "-tall")]
        self.register_theme(THEME)
        self.theme = THEME.name
        self.words = Words(language)
        self.title = self.words("window")
        self.front = Front(self.words, now_s, scanner_beside=scanner is not None)
        self._desk_socket = desk_socket
        self._side = side
        self._now_s = now_s
        self._client: DeskClient | None = None
        self._latest: Picture | None = None
        self._lost: LinesideError | None = None
        self._lost_at_s = now_s()
        self._attempt = 0
        self._cut_off = False
        """A request was under way when the connection broke."""
        self._refusal: tuple[LinesideError, str, bool] | None = None
        self._refusals = 0
        self._go = Go("auto")
        self._batch, self._step = "", ""
        self._dark_read = 0.0
        self._shown: tuple[object, ...] = ()
        self._view: View | None = None
        self._dirty = asyncio.Event()
        self._draft_timers: dict[Entry, Timer] = {}

    @property
    def place(self) -> str:
        """What is shown: "lock", "home", "start", "step", ... ; empty before the first paint."""
        return self._view.place if self._view else ""

    @property
    def showing(self) -> tuple[object, ...]:
        """What is shown, exactly: the place, then batch and step, and for a signature how many are still to come."""
        return self._shown

    def get_driver_class(self) -> type[Driver]:
        """The terminal's driver; with `on_real_key` it also reports what real hands do."""
        # what is no character becomes U+FFFD, which is in no code: textual's reader of keys would die of it
        linux_driver.getincrementaldecoder = lambda name: partial(codecs.getincrementaldecoder(name), "replace")  # type: ignore[attr-defined]
        base = super().get_driver_class()
        tell = self._on_real_key
        if tell is None:
            return base

        class Watched(base):  # type: ignore[misc, valid-type]
            def process_message(self, message: Message) -> None:
                """Called in the driver's thread for what the terminal sent."""
                if isinstance(message, events.Key | events.MouseDown):
                    self._loop.call_soon_threadsafe(tell)
                super().process_message(message)

        return Watched

    def compose(self) -> ComposeResult:
        """Header, strip, the present view; and what stands beside."""
        with Vertical(id="main"):
            yield Said("", id="header")
            yield Said("", id="strip")
            yield Said("", id="alarm")
            yield Said("", id="dark")
            yield Said("", id="scanner")
            yield Vertical(id="stage")
        if self._side is not None:
            with Vertical(id="side"):
                yield self._side

    def on_mount(self) -> None:
        """Connect, paint, keep time."""
        self.run_worker(self._link(), name="link", exclusive=False)
        self.run_worker(self._paint(), name="paint", exclusive=False)
        self.set_interval(TICK_S, self._tick)
        if self._scanner is not None:
            self.run_worker(self._scanner(self._scanned, self._scanner_says), name="scanner", exclusive=False)
        self._dirty.set()

    def _tick(self) -> None:
        if not self.is_headless and _hung_up(sys.__stdin__):
            self.exit()
        self._dirty.set()

    def on_resize(self) -> None:
        """Everything is drawn for the room it has."""
        self.screen.set_class(self.size.height < ROWS, "-low")
        self.screen.set_class(self.size.width < COLUMNS, "-thin")
        self._dirty.set()

    # The desk ------------------------------------------------------------------------------------------------

    async def _link(self) -> None:
        """Stay connected: take pictures, and when the stream ends say so and try again."""
        while True:
            self._attempt += 1
            try:
                async with connect(self._desk_socket) as client:
                    self._client = client
                    async for picture in client.pictures():
                        self._took(picture)
            except LinesideError as error:
                if self._latest is not None or self._lost is None:
                    self._lost_at_s = self._now_s()
                self._lost, self._latest = error, None
            finally:
                self._client = None
                self._dirty.set()
            await asyncio.sleep(RECONNECT_S)

    def _took(self, picture: Picture) -> None:
        if self._latest is None:
            self.front.saved.clear()  # another run of the runtime may know less: what is typed is saved anew
        self._latest, self._lost, self._attempt, self._cut_off = picture, None, 0, False
        self.front.picture_at_s = self._now_s()
        self._dirty.set()

    async def on_ask(self, event: Ask) -> None:
        """Send one request at a time; a second one while an answer is awaited is not sent at all."""
        client = self._client
        if self.front.busy or client is None:
            if isinstance(event.request, ScanCode) and isinstance(self._view, Step):
                await self._view.say_wrong("step.not_taken")
            return
        self.front.busy, self.front.keys = True, None
        self._dirty.set()
        self.run_worker(self._ask(client, event), name="ask", exclusive=False)

    async def _ask(self, client: DeskClient, event: Ask) -> None:
        request = event.request
        for entry in event.entries:
            self._forget_timer(entry)
        try:
            answer = await client.ask(request)
        except LinesideError as error:
            if error.code == "hand.differs":  # both read the device again: nothing of before is left to look at
                for entry in event.entries:
                    self.front.entries.pop(entry, None)
            if error.code in {"desk.lost", "desk.garbled"}:
                self._cut_off = True
            else:
                scanned = request.text if isinstance(request, ScanCode) else ""
                self._refusals += 1
                self._refusal = (error, scanned, bool(event.entries) and not scanned)
        else:
            for entry in event.entries:
                self.front.entries.pop(entry, None)
                self.front.saved.pop(entry, None)
            if isinstance(request, LogOut):
                self._batch = self._step = ""
                self.front.entries.clear()
                self.front.looked.clear()
            elif isinstance(request, StartBatch):
                self._batch = answer.get("batch", request.batch)
            if not isinstance(request, LogIn | LogOut) and self._latest is not None:
                self._dark_read = self._latest.dark_s
            self._go = Go(event.then)
        finally:
            self.front.busy = False
            self._dirty.set()

    def on_look(self, event: Look) -> None:
        """Ask for what no picture shows; nothing else waits for it."""
        if self._client is not None:
            self.run_worker(self._look(self._client, event), name="look", exclusive=False)

    async def _look(self, client: DeskClient, event: Look) -> None:
        try:
            answer = await client.ask(event.request)
        except LinesideError as error:
            if error.code not in {"desk.lost", "desk.garbled"}:
                self._go = Go(event.otherwise)
                self._refusals += 1
                self._refusal = (error, "", False)
        else:
            self.front.looked[event.name] = answer.get("recipe", answer)
        self._dirty.set()

    def on_open(self, event: Open) -> None:
        """Read an attached text."""
        if self._client is not None:
            self.run_worker(self._read(self._client, event.sha256), name="attachment", exclusive=False)

    async def _read(self, client: DeskClient, sha256: str) -> None:
        data, size = b"", 1
        try:
            while len(data) < size <= TEXT_BYTES_MAX:
                part = await client.ask(ReadAttachment(id=uuid4().hex, sha256=sha256, offset=len(data)))
                more, size = base64.b64decode(part["data"]), int(part["size"])
                if not more:
                    break
                data += more
        except LinesideError as error:
            self.front.texts.pop(sha256, None)
            self._go = Go("auto")
            self._refusals += 1
            self._refusal = (error, "", False)
        else:
            right = hashlib.sha256(data).hexdigest() == sha256
            self.front.texts[sha256] = data.decode(errors="replace") if right else self.words("attachments.damaged")
        self._dirty.set()

    # Drafts --------------------------------------------------------------------------------------------------

    def on_typed(self, event: Typed) -> None:
        """Save a draft soon, or at once when the field is left."""
        self._forget_timer(event.entry)
        if self.front.saved.get(event.entry, "") == event.text or self.front.busy:
            return
        if event.leaving:
            self._save(event.entry)
        else:
            self._draft_timers[event.entry] = self.set_timer(DRAFT_AFTER_S, lambda: self._save(event.entry))

    def _forget_timer(self, entry: Entry) -> None:
        if timer := self._draft_timers.pop(entry, None):
            timer.stop()

    def _save(self, entry: Entry) -> None:
        self._forget_timer(entry)
        if self._client is not None:
            self.run_worker(self._save_draft(self._client, entry), name="draft", exclusive=False)

    async def _save_draft(self, client: DeskClient, entry: Entry) -> None:
        text = self.front.entries.get(entry, "")
        batch, step = entry
        try:
            await client.ask(SaveDraft(id=uuid4().hex, batch=batch, step=step, text=text))
        except LinesideError as error:
            self.front.refused_drafts[entry] = error.what
        else:
            self.front.saved[entry] = text
            self.front.refused_drafts.pop(entry, None)
        self._dirty.set()

    # What is shown -------------------------------------------------------------------------------------------

    def on_go(self, event: Go) -> None:
        """Show another place."""
        if event.place == "understood":
            self._refusal = None
        else:
            self._go = event
            if event.batch:
                self._batch = event.batch
            if event.place == "auto":
                self._step = event.step
        self._dirty.set()

    async def _paint(self) -> None:
        """The only task that changes what is shown: after every picture, answer, key and second."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._show()
            except NoMatches:  # while closing, Textual takes the widgets away before it ends this task
                if self.is_running:
                    raise

    def _find(self, picture: Picture) -> BatchCard | None:
        """The batch the operator is at: the one that was opened, else the one that needs a person most."""
        batches = picture.batches
        chosen = next((batch for batch in batches if batch.batch == self._batch), None)
        if chosen is not None:
            return chosen
        live = [batch for batch in batches if batch.state not in drawing.ENDED]
        for wants in (
            lambda b: b.questions,
            lambda b: any(c.asks != "nothing" for c in b.active),
            lambda b: b.state != "idle",
            lambda _: True,
        ):
            if found := next((batch for batch in live if wants(batch)), None):
                return found
        return None

    def _wanted(self) -> tuple[tuple[object, ...], Callable[[], View]]:
        """The key of what must be shown, and how to make it."""
        front, picture, go = self.front, self._latest, self._go
        if picture is None:
            return ("gone",), lambda: Gone(front)
        if self._refusal is not None:
            refusal, scanned, kept = self._refusal
            return ("stop", self._refusals), lambda: Stop(front, refusal, scanned, kept=kept)
        if picture.person is None:
            return ("lock",), lambda: Lock(front)
        if go.place == "start":
            return ("start",), lambda: Start(front)
        if go.place == "orders":
            return ("orders",), lambda: Orders(front)
        if go.place == "alarms":
            return ("alarms", go.choice), lambda: Alarms(front, go.choice)
        if (found := recipes_wanted(front, go)) is not None:
            shown, view, of = found
            return shown, lambda: view(front, *of)
        batch = self._find(picture)
        if batch is None or go.place == "home":
            return ("home",), lambda: Home(front)
        self._batch = name = batch.batch
        if go.place == "acts":
            return ("acts", name, go.choice), lambda: Acts(front, name, go.choice)
        if (switched := switching(front, batch, go) or entering_dark(front, batch, go)) is not None:
            return switched
        if go.place == "continue" and batch.restored:
            return ("continue", name), lambda: Continue(front, name)
        if go.place in {"results", "add-result"}:
            known = any(result.result == go.choice for result in batch.results)
            if go.place == "add-result" and known:
                return ("add-result", name, go.choice), lambda: SignResult(front, name, go.choice)
            chosen = go.choice if known else ""
            return ("results", name, chosen), lambda: Results(front, name, chosen)
        if go.place in {"correct", "sign-correction"}:
            chosen = go.choice if value_in(batch, go.choice) else ""
            if go.place == "sign-correction" and chosen:
                return ("sign-correction", name, chosen), lambda: SignCorrection(front, name, chosen)
            return ("correct", name, chosen), lambda: Correct(front, name, chosen)
        if go.place in {"amend", "sign-request"}:
            chosen = go.choice if offer_in(batch, go.choice) else ""
            if go.place == "sign-request" and chosen:
                return ("sign-request", name, chosen), lambda: SignRequest(front, name, chosen)
            return ("amend", name, chosen), lambda: Amend(front, name, chosen)
        if go.place == "amendment" and batch.amendment:
            return ("amendment", name, batch.amendment.amendment), lambda: Amendment(front, name)
        if go.place == "sign-amendment" and batch.amendment:
            return ("sign-amendment", name, go.choice), lambda: SignAmendment(front, name, go.choice)
        if go.place == "attachments" and any(card.step == go.step for card in batch.active):
            shown = ("attachments", name, go.step, go.choice)
            return shown, lambda: Attachments(front, name, go.step, go.choice)
        if go.place == "steps":
            return ("steps", name), lambda: Steps(front, name)
        if go.place == "answer" and any(question.question == go.step for question in batch.questions):
            return ("answer", name, go.step, go.choice), lambda: Answer(front, name, go.step, go.choice)
        if batch.questions:
            question = batch.questions[0].question
            return ("question", name, question), lambda: Question(front, name, question)
        card: StepCard | None = main_card(batch, self._step)
        if card is None:
            return ("step", name, ""), lambda: Step(front, name, None)
        if card.asks != "nothing":
            self._step = card.step  # stay with it while it asks
        if card.asks == "hand":
            return entering(front, name, card, go)
        if card.asks == "sign":
            step = card.step
            return ("sign", name, step, len(card.signers)), lambda: Sign(front, name, step)
        return ("step", name, card.step, card.asks, card.part, card.iteration), lambda: Step(front, name, card)

    async def _show(self) -> None:
        # one picture from here to the end: a newer one may no longer have what the view shows, and is painted next
        picture = self._latest
        wanted, make = self._wanted()
        if wanted != self._shown:
            await self._change(make)
            self._shown = wanted
        view = self._view
        if isinstance(view, Gone):
            since_s = self._now_s() - self._lost_at_s
            view.tell(self._lost, self._attempt, since_s, pending=self._cut_off)
        self._show_rows(picture)
        if picture is not None and view is not None and not isinstance(view, Gone):
            self.front.picture = picture
            await view.show(picture)

    async def _change(self, make: Callable[[], View]) -> None:
        """Put another view in place of the present one; no draft waits any longer."""
        for entry in list(self._draft_timers):
            self._save(entry)
        self.front.picture = None
        stage, view = self.query_one("#stage"), make()
        with self.batch_update():
            await stage.remove_children()
            self._view = view
            await stage.mount(view)
        # Textual keeps what 1,024 widgets last painted, long after they are gone: 40 MiB in a day.
        StylesCache.get_inner_outer.cache_clear()
        if view.starts_at and not isinstance(self.focused, Input):
            view.focus_on(view.starts_at)

    def _show_rows(self, picture: Picture | None) -> None:
        scanner = self.query_one("#scanner", Static)
        scanner.display = bool(self._scanner_said)
        scanner.update(Content(f"✖ {self._scanner_said}"))
        header, strip, dark = (self.query_one(name, Static) for name in ("#header", "#strip", "#dark"))
        header.display = strip.display = picture is not None
        dark.display = picture is not None and picture.dark_s > 0 and picture.dark_s != self._dark_read
        alarm = self.query_one("#alarm", Static)
        new = tuple(one for one in picture.alarms if one.state != "acknowledged") if picture else ()
        alarm.display = bool(new) and self.place not in {"alarms", "home", "lock"}
        if picture is None:
            return
        width = self.query_one("#main").size.width - 2
        alarm.update(headline(self.words, picture.alarms).truncate(max(1, width), ellipsis=True))
        here = picture.person is not None and self.place not in {"home", "start", "orders", "lock"}
        batch = self._find(picture) if here else None
        header.update(drawing.header(self.words, picture, batch, width))
        strip.update(drawing.strip(self.words, picture.strip, width))
        if dark.display:
            dark.update(Content(self.words("dark", dark=drawing.span(self.words, picture.dark_s))))

    # A scanner on a line of its own ----------------------------------------------------------------------------

    def _scanned(self, code: str) -> None:
        """A code goes where the scanner's keys would go, and never into what is to be typed."""
        if self._view is not None:
            self.run_worker(self._view.scanned(code), name="scanned", exclusive=False)

    def _scanner_says(self, trouble: str) -> None:
        self._scanner_said = trouble
        self._dirty.set()

    # Keys ----------------------------------------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """Keys before they reach a widget: shortcuts of targets, and a scanner's keys when no field has the focus."""
        if isinstance(event, events.Key) and not event.is_forwarded and self._take(event):
            return
        await super().on_event(event)

    def _take(self, event: events.Key) -> bool:
        """True when the key was used here."""
        view = self._view
        if view is None:
            return False
        for target in view.query(Target):
            if target.shortcut == event.key and target.display and not isinstance(target, Key):
                target.press()
                return True
        if event.key == "enter" and isinstance(view, Lock) and self.focused is view.field("badge"):
            # at once, not when the field has worked off its keys: what follows a badge is the PIN, in clear there
            view.focus_on("pin")
            return True
        if not event.is_printable or isinstance(self.focused, Input):
            return False
        self.screen.set_focus(None)  # so that the Enter of a scanner presses no target
        if view.takes_keys and view.field(view.takes_keys).display:
            view.focus_on(view.takes_keys)
            return False
        if isinstance(view, Step):
            if fields := view.query(Input):
                self.screen.set_focus(fields.first())
                return False
            self.run_worker(view.stray_key(), name="stray key", exclusive=False)
        return True


def _hung_up(terminal: TextIO | None) -> bool:
    """Whether the terminal is gone, as after a broken connection: its reader would go round and round for ever."""
    if terminal is None:
        return True
    asked = select.poll()
    asked.register(terminal, 0)
    return any(state & select.POLLHUP for _, state in asked.poll(0))


def run_ui(desk_socket: Path, language: str = "en", scanner: Scanner | None = None) -> None:
    """Run the screen in this terminal until it is closed."""
    LinesideApp(desk_socket, language=language, scanner=scanner).run()
