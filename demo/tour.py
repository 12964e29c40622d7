"""The tour: the operator's screen plays a batch by itself on real processes, and everything goes wrong that can.

The same script runs in a terminal and without one. Any key of a real person takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Static

from demo.rig import DIN, OTHER_DIN, PEOPLE, Rig, rig
from demo.script import BY_ROLE, PINS, entry_for
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.recipe import read_recipe
from edge.core.review import as_built
from edge.journal import JournalReader, verify_journal
from edge.library import read_bounded
from edge.wire import BatchCard, Picture, StepCard
from ui.app import LinesideApp

SPEED: Final = 20_000.0
"""A day of process time in 4.3 s."""
BATCH: Final = "B-001"
ORDER: Final = "ORD-17"
DARK_S: Final = 2.0
"""How long the power stays away."""
OUTAGE_S_MIN: Final = 20.0
SCENE_S_MAX: Final = 60.0
LOOK_S: Final = 0.1
AGAIN_S: Final = 5.0
"""A step that did not take what was done is done again, as a person would."""


class TakenOverError(Exception):
    """A real person pressed a key: the script ends, the line goes on."""


@dataclass
class Result:
    """What the tour measured; printed as one JSON object."""

    steps_done: int = 0
    rows_made: int = 0
    rows_received: int = 0
    rows_pending: int = 0
    pump_commands: int = 0
    pump_writes: int = 0
    kills: int = 0
    outage_s: float = 0.0
    held_questions: int = 0
    exceptions: int = 0
    chain_verified: bool = False
    hub_chain_verified: bool = False
    identity_in: list[str] = field(default_factory=list)
    """The files of box and hub that hold a patient's identity."""
    failed: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Say everything that is not as it must be."""
        checks = {
            "the hub does not hold every row": self.rows_made == self.rows_received,
            "rows are pending": self.rows_pending == 0,
            "the pump counted other writes than the box intended": self.pump_writes == self.pump_commands,
            "the chain of the box does not verify": self.chain_verified,
            "the chain at the hub does not verify": self.hub_chain_verified,
            "a patient's identity is not in the vault alone": self.identity_in == ["vault.db"],
            "the exceptions are not exactly the planted ones": self.exceptions == 2,
            "the pump's lost reply raised no question": self.held_questions == 1,
        }
        self.failed += [what for what, holds in checks.items() if not holds]


class Beside(Static):
    """What stands beside the screen: the story, the hub, and the pump's own counter."""

    DEFAULT_CSS = "Beside { width: 40; height: 100%; padding: 1 2; }"


class Tour:
    """One run of the script."""

    def __init__(self, line: Rig, *, headless: bool) -> None:
        self.rig = line
        self.result = Result()
        self.headless = headless
        self.began_s = time.monotonic()
        self.story: list[str] = []
        self.taken_over = False
        self.over = asyncio.Event()
        """The script has ended; the next real key closes the screen."""
        self.key = asyncio.Event()
        self.cut_at_s = 0.0
        self.beside = Beside()
        self.app = LinesideApp(line.desk, side=self.beside, on_real_key=self.take_over)
        document = read_recipe(read_bounded(line.box / "recipes" / "cart-b1.yaml"), "cart-b1.yaml")
        self.steps = document.recipe.steps()
        self.scenes: dict[str, Callable[[StepCard], Awaitable[None]]] = {
            "020": self.cut_network,
            "030": self.scan_wrong_bag,
            "042": self.lose_a_reply,
            "060": self.pull_the_power,
            "090": self.mend_network,
        }

    # The story ---------------------------------------------------------------------------------------------------

    def tell(self, what: str) -> None:
        """Say what happens now: on stderr without a terminal, beside the screen with one."""
        at_s = time.monotonic() - self.began_s
        self.story.append(f"{at_s:5.0f} s  {what}")
        if self.headless:
            print(self.story[-1], file=sys.__stderr__, flush=True)

    def take_over(self) -> None:
        """A real key was pressed."""
        self.key.set()
        if not self.taken_over and not self.over.is_set():
            self.taken_over = True
            self.tell("You have the line. Ana's PIN is 2580, Ben's 1470, Dot's 7410. Ctrl+Q ends the demo.")

    async def paint_beside(self) -> None:
        """Keep the panel beside the screen true, twice a second."""
        while True:
            counters, boxes = await asyncio.gather(self.counters(), self.hub_json("/api/boxes"))
            text = Text()
            text.append("THE DEMO\n", style="bold")
            for line in self.story[-6:]:
                text.append(line + "\n")
            text.append("\nTHE PUMP'S OWN COUNTER\n", style="bold")
            text.append(f"writes executed: {sum(counters.values())}\n")
            text.append("\nTHE HUB\n", style="bold")
            network = self.rig.network
            text.append("network: " + ("cut ✖\n" if network and not network.plugged else "up ✔\n"))
            text.append(_hub_text(boxes))
            if network and not network.plugged:
                text.append("\n(as the box last told it)")
            self.beside.update(text)
            await asyncio.sleep(0.5)

    async def counters(self) -> dict[str, int]:
        """The pump's and the balance's own write counters."""
        return await self.rig.pump.counters()

    async def hub_json(self, path: str) -> Any:
        """What the hub's API says; None while it does not answer."""

        def get() -> Any:
            url = f"http://127.0.0.1:{self.rig.hub_port}{path}"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return json.load(answer)

        try:
            return await asyncio.to_thread(get)
        except OSError:
            return None

    # The operator's hands ----------------------------------------------------------------------------------------

    async def play(self, pilot: Pilot[object]) -> None:
        """The whole script, as the screen's pilot."""
        self.pilot = pilot
        painter = asyncio.create_task(self.paint_beside(), name="demo.beside")
        try:
            await self.batch()
            await self.finish()
            self.over.set()
            if not self.headless:
                self.tell("The end. Any key closes the demo.")
                self.key.clear()
                await self.while_open(self.key.is_set)
        except TakenOverError:
            await self.while_open()
        except LinesideError as error:
            self.result.failed.append(str(error))
        finally:
            painter.cancel()
            await asyncio.gather(painter, return_exceptions=True)
            self.app.exit()

    async def while_open(self, until: Callable[[], bool] = lambda: False) -> None:
        """Wait while the screen is open and it does not hold: the person at the keyboard has the line."""
        while self.app.is_running and not until():  # noqa: ASYNC110  the screen has no event for its own end
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Let time pass, unless a person took over."""
        if self.taken_over:
            raise TakenOverError
        await asyncio.sleep(LOOK_S)

    async def until(self, holds: Callable[[], Any], what: str) -> None:
        """Wait until it holds; a tour that hangs says where."""
        deadline_s = time.monotonic() + SCENE_S_MAX
        while not holds():
            if time.monotonic() > deadline_s:
                raise _stuck(f"{what}; the screen shows {self.app.place!r}")
            await self.look()

    async def tap(self, target: str) -> None:
        """A finger on a target that is shown."""
        await self.until(lambda: self.shown(target), f"{target} is not shown")
        while not await self.pilot.click(target):  # a new picture moved it: the finger comes down again
            await self.until(lambda: self.shown(target), f"{target} is not shown any more")
        await self.pilot.pause()

    def shown(self, target: str) -> bool:
        """True when the target is on the screen and can be pressed."""
        return any(w.display and not w.disabled and w.region.area > 0 for w in self.app.query(target))

    async def write(self, field_id: str, text: str) -> None:
        """Type into a field."""
        await self.until(lambda: self.shown(field_id), f"{field_id} is not shown")
        entry = self.app.query_one(field_id, Input)
        entry.clear()
        entry.focus()
        await self.pilot.press(*text)
        await self.pilot.pause()

    async def log_in(self) -> None:
        """Ana's badge, then her PIN."""
        await self.until(lambda: self.app.place == "lock", "the lock screen does not come")
        await self.write("#badge", "B-ANA")
        await self.pilot.press("enter")
        await self.write("#pin", PINS["ana"])
        await self.tap("#log-in")
        await self.until(lambda: self.app.place != "lock", "logging in does not work")

    async def start_batch(self) -> None:
        """Start CART-B1 for the demo's order."""
        await self.tap("#new-batch")
        await self.until(lambda: self.app.place == "start", "the start screen does not come")
        if self.shown("#recipe-0"):
            await self.tap("#recipe-0")
        for name, text in (("#order", ORDER), ("#batch", BATCH), ("#patient", DIN)):
            await self.write(name, text)
        await self.tap("#start-batch")

    async def batch(self) -> None:
        """From log-in to the last step."""
        self.tell("Ana badges in and starts CART-B1 for order " + ORDER + ".")
        await self.log_in()
        await self.start_batch()
        last = ("", -1)
        since_s = time.monotonic()
        while True:
            await self.look()
            card = await self.now()
            if card is None:
                continue
            if card.state in {"complete", "stopped", "aborted"}:
                if card.state != "complete":
                    raise _stuck(f"the batch is {card.state}: {card.reason}")
                self.tell("Every step is done.")
                return
            task = next((c for c in card.active if c.asks != "nothing"), None)
            key = (task.step, len(task.signers)) if task else ("", -1)
            waited_s = time.monotonic() - since_s
            if card.questions:
                await self.answer(card)
            elif task is not None and (key != last or waited_s > AGAIN_S):
                scene = self.scenes.pop(task.step, None)
                if scene is not None:
                    await scene(task)
                await self.do(task)
                last = key
            elif waited_s > SCENE_S_MAX * 2:
                raise _stuck(f"nothing moves: {card.next_action}")
            else:
                continue
            since_s = time.monotonic()

    async def now(self) -> BatchCard | None:
        """The batch as the box shows it."""
        picture: Picture = await self.rig.picture()
        return next((card for card in picture.batches if card.batch == BATCH), None)

    async def at_step(self, task: StepCard) -> None:
        """Wait until the screen has come to this step, and to this signature of it, by itself."""
        wanted: tuple[object, ...] = ("step", BATCH, task.step, task.asks, task.part, task.iteration)
        if task.asks == "sign":
            wanted = ("sign", BATCH, task.step, len(task.signers))
        await self.until(lambda: self.app.showing == wanted, f"the screen does not come to step {task.step}")

    async def do(self, task: StepCard) -> None:
        """What the step asks of a person."""
        await self.at_step(task)
        match task.asks:
            case "confirm":
                await self.tap("#confirm")
            case "value":
                await self.write("#entry", entry_for(self.steps[task.step]))
                await self.tap("#confirm")
            case "choice":
                await self.tap("#choice-0")
                await self.tap("#confirm")
            case "scan":
                await self.write("#scan", entry_for(self.steps[task.step]))
                await self.pilot.press("enter")
            case "sign":
                await self.sign(BY_ROLE[task.signers[0]])
            case "nothing":
                pass

    async def sign(self, person: str) -> None:
        """Choose the signer where there is a choice, then the PIN."""
        name = next(known.name for known in PEOPLE if known.id == person)

        def chosen() -> bool:
            return any(name in str(shown.render()) for shown in self.app.query("#sign-person"))

        deadline_s = time.monotonic() + SCENE_S_MAX
        while not chosen():  # a finger may come down just when a new picture is painted: it taps again
            if time.monotonic() > deadline_s:
                raise _stuck(f"{person} is not chosen")
            if self.shown(f"#signer-{person}"):
                await self.pilot.click(f"#signer-{person}")
            await self.look()
        await self.write("#sign-pin", PINS[person])
        await self.tap("#confirm")

    async def answer(self, card: BatchCard) -> None:
        """Compare intent and reading; here they agree, so it happened."""
        question = card.questions[0]
        reading = question.reading_now
        self.tell(
            f"The reply is lost. HELD: intent {question.intent}, "
            f"reading {reading.text if reading else '?'} {question.unit}."
        )
        self.result.held_questions += 1
        self.tell(f"The pump's own counter says {sum((await self.counters()).values())}: it was written once.")
        await self.tap("#answer-happened")
        await self.until(lambda: self.app.place == "answer", "the answer cannot be signed")
        await self.sign("ana")
        await self.until(lambda: self.app.place != "answer", "the answer is not taken")
        self.tell("Ana compares, and signs: it happened. The batch goes on.")

    # The scenes ----------------------------------------------------------------------------------------------------

    async def cut_network(self, _: StepCard) -> None:
        assert self.rig.network is not None
        self.rig.network.pull()
        self.cut_at_s = time.monotonic()
        self.tell("The network is cut. Work goes on.")

    async def scan_wrong_bag(self, task: StepCard) -> None:
        await self.at_step(task)
        await self.write("#scan", OTHER_DIN)
        await self.pilot.press("enter")
        await self.until(lambda: self.app.place == "stop", "the wrong bag was not refused")
        self.tell("A wrong bag: it belongs to another order. Nothing was started.")
        await asyncio.sleep(1.0)
        await self.tap("#understood")

    async def lose_a_reply(self, _: StepCard) -> None:
        await self.rig.pump.drop_replies(1)
        self.tell("The pump's next reply will be lost.")

    async def pull_the_power(self, task: StepCard) -> None:
        await self.at_step(task)
        half = entry_for(self.steps[task.step])[:2]
        await self.write("#entry", half)
        await self.until_draft(task.step, half)
        await self.rig.processes["runtime"].kill()
        self.result.kills += 1
        self.tell("The power is pulled in the middle of an entry.")
        await self.until(lambda: self.app.place == "gone", "the screen does not say that the runtime is gone")
        await asyncio.sleep(DARK_S)
        began_s = time.monotonic()
        await self.rig.start_runtime()
        self.tell(f"Power is back; the batch is back {time.monotonic() - began_s:.1f} s after the start.")
        await self.log_in()
        await self.at_step(task)
        entry = self.app.query_one("#entry", Input)
        if entry.value != half:
            self.result.failed.append(f"the draft did not come back: {entry.value!r}")
        self.tell(f"The draft is back: {entry.value!r}.")
        entry.clear()

    async def until_draft(self, step: str, text: str) -> None:
        """Wait until the box keeps the draft."""
        deadline_s = time.monotonic() + SCENE_S_MAX
        while time.monotonic() < deadline_s:
            card = await self.now()
            if card and any(active.step == step and active.draft == text for active in card.active):
                return
            await self.look()
        raise _stuck("the draft is not kept")

    async def mend_network(self, _: StepCard) -> None:
        assert self.rig.network is not None
        while time.monotonic() - self.cut_at_s < OUTAGE_S_MIN:
            await self.look()
        self.rig.network.plug_in()
        self.result.outage_s = round(time.monotonic() - self.cut_at_s, 1)
        self.tell(f"The network is back after {self.result.outage_s:.0f} s.")

    # The end -------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Let the hub have every row, stop in order, and count."""
        await self.pending_zero()
        await self.rig.processes["runtime"].end()
        made = _head(self.rig.journal)
        deadline_s = time.monotonic() + SCENE_S_MAX
        while _received(await self.hub_json("/api/boxes")) < made:
            if time.monotonic() > deadline_s:
                break  # the result says how many are missing
            await asyncio.sleep(LOOK_S)
        await self.count()
        self.tell(f"{self.result.rows_made} rows made = {self.result.rows_received} received + 0 pending.")

    async def pending_zero(self) -> None:
        """Wait until the strip says that nothing is pending."""
        deadline_s = time.monotonic() + SCENE_S_MAX
        while time.monotonic() < deadline_s:
            if (await self.rig.picture()).strip.pending == 0:
                return
            await self.look()
        raise _stuck("rows stay pending")

    async def count(self) -> None:
        """Fill the result: from the journal, from the hub, and from the pump."""
        result, reader = self.result, JournalReader(self.rig.journal)
        with reader:
            rows = [(row.seq, decode(row.body)) for row in reader.rows(0, 1_000_000)]
        record = as_built(rows)[BATCH]
        result.steps_done = sum(step.state == "done" for step in record.steps)
        result.exceptions = len(record.exceptions)
        result.pump_commands = sum(
            isinstance(body.event, ev.CommandIntended) and body.event.tag.startswith(("P-1.", "W-1."))
            for _, body in rows
        )
        result.pump_writes = sum((await self.counters()).values())
        result.rows_made = len(rows)
        result.rows_received = _received(await self.hub_json("/api/boxes"))
        result.rows_pending = result.rows_made - result.rows_received
        result.chain_verified = await asyncio.to_thread(lambda: verify_journal(self.rig.journal).ok)
        verified = await self.hub_json("/api/verify")
        result.hub_chain_verified = bool(verified and verified["verified"])
        result.identity_in = await asyncio.to_thread(_identity_in, self.rig)
        flipped = await asyncio.to_thread(_flip_a_bit, self.rig)
        self.tell(f"The record verifies. With one bit flipped: {flipped}")


def _hub_text(boxes: Any) -> str:
    if boxes is None:
        return "no answer"
    lines = [f"made {box['made']} = received {box['received']} + pending {box['pending']}" for box in boxes["boxes"]]
    return "\n".join(lines) or "no box yet"


def _received(boxes: Any) -> int:
    return max((int(box["received"]) for box in boxes["boxes"]), default=0) if boxes else 0


def _head(journal: Path) -> int:
    with JournalReader(journal) as reader:
        return reader.head()[0]


def _identity_in(line: Rig) -> list[str]:
    """The names of the files of box, hub and their logs in which a patient's identity stands."""
    found = set()
    for path in line.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if DIN.encode() in data or OTHER_DIN.encode() in data:
                found.add(path.name)
    return sorted(found)


def _flip_a_bit(line: Rig) -> str:
    """Flip one bit of one row in a copy, and what the verifier says of it."""
    seq = 37
    with JournalReader(line.journal) as reader:
        body = reader.rows(seq - 1, 1)[0].body
    data = bytearray(line.journal.read_bytes())
    data[data.index(body) + len(body) // 2] ^= 1
    copy = line.folder / "flipped.db"
    copy.write_bytes(data)
    fault = verify_journal(copy).fault
    if fault is None or fault.seq != seq:
        raise _stuck("the verifier did not name the row with the flipped bit")
    return fault.why


def _stuck(what: str) -> LinesideError:
    return LinesideError(
        "demo.stuck",
        f"The demo does not get on: {what}.",
        effect="The demo ends; nothing outside its own folder was touched.",
        todo="Keep its folder with --keep and read the logs in it.",
    )


async def _tour(folder: Path, *, headless: bool) -> Result | None:
    print("Starting a cell, a broker, a hub and a box …", file=sys.stderr, flush=True)
    async with rig(folder, speed=SPEED) as line:
        tour = Tour(line, headless=headless)
        size = (160, 40) if headless else None
        await tour.app.run_async(headless=headless, size=size, auto_pilot=tour.play)
        for told in [] if headless else tour.story:
            print(told, file=sys.stderr)
        if tour.taken_over:
            print("You took over: nothing was counted.", file=sys.stderr)
            return None
        tour.result.judge()
        return tour.result


def run_tour(*, headless: bool, keep: Path | None) -> int:
    """Run the demo; prints its result as one JSON object and returns the exit code: 0, or 1 with the reason named.

    When a person took over there is nothing to judge: 0."""
    with contextlib.ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lineside-")))
        result = asyncio.run(_tour(folder, headless=headless))
    if result is None:
        return 0
    facts = asdict(result)
    failed = facts.pop("failed")
    print(json.dumps(facts))
    for why in failed:
        print(f"FAILED: {why}", file=sys.stderr)
    return 1 if failed else 0
