"""A scripted desk: a real Unix socket that speaks `edge.wire`, with pictures made by small builders."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from edge.core.errors import LinesideError
from edge.wire import (
    LINE_BYTES_MAX,
    REQUEST,
    AskStatus,
    BatchCard,
    LogIn,
    LogOut,
    PersonView,
    Picture,
    QuestionCard,
    ReadingView,
    RecipeLine,
    SaveDraft,
    StepCard,
    StepLine,
    Strip,
    Sync,
    Watch,
)

ANA = PersonView(person="ana", name="Ana Ruiz", roles=("operator",))
BEN = PersonView(person="ben", name="Ben Okafor", roles=("verifier",))
EVA = PersonView(person="eva", name="Eva Lindqvist", roles=("supervisor",))
AUDITOR = PersonView(person="aud", name="Otto Prüfer", roles=("auditor",))
PINS = {"ana": "1234", "ben": "2345", "eva": "3456", "aud": "4567"}
BADGES = {"B-0017": "ana", "B-0018": "ben"}

TEMPERATURE = ReadingView(
    tag="BR-1.temperature",
    title="Temperature",
    value=37.02,
    text="37.02",
    unit="degC",
    quality="good",
    low=36.5,
    high=37.5,
)
CO2 = ReadingView(tag="BR-1.co2", title="CO₂", value=5.04, text="5.04", unit="%", quality="good", low=4.5, high=5.5)

STEPS = tuple(
    StepLine(step=step, phase=phase, title=title, state=state, placeholder=dagger)
    for step, phase, title, state, dagger in (
        ("005", "instruct", "Clear the suite", "done", False),
        ("010", "scan", "Receive the apheresis bag", "done", True),
        ("012", "record", "Transport temperature", "done", True),
        ("015", "sign", "Take custody", "done", False),
        ("020", "instruct", "Enrich CD4 and CD8", "done", False),
        ("022", "record", "Purity after enrichment", "done", False),
        ("025", "record", "Recovery", "done", False),
        ("030", "set", "Heat to culture temperature", "done", True),
        ("035", "instruct", "Add the activation reagent", "done", False),
        ("040", "scan", "Scan the vector lot", "done", False),
        ("045", "record", "Multiplicity of infection", "done", False),
        ("050", "parallel", "Expand the cells", "active", True),
        ("051", "hold", "Hold culture temperature", "active", True),
        ("052", "monitor", "Watch the CO₂", "active", True),
        ("060", "record", "Day 5: CAR-positive cells", "todo", False),
        ("070", "sign", "Day 10: microbiology to date", "todo", False),
        ("080", "record", "Day 12: viability", "todo", False),
        ("090", "record", "Dose", "todo", False),
        ("095", "instruct", "Label and cryopreserve", "todo", True),
        ("100", "sign", "Conditional release", "todo", False),
    )
)

MONITOR = StepCard(
    step="052",
    phase="monitor",
    title="Watch the CO₂",
    text="The box watches the CO₂ until the expansion ends.",
    asks="nothing",
    readings=(CO2,),
    elapsed_s=26_790.0,
)
HOLD = StepCard(
    step="051",
    phase="hold",
    title="Hold culture temperature",
    text="The box keeps the culture at 37 °C and counts the hours. Look at the bag now and then.",
    why="Activated T cells divide best at body temperature; below 36.5 °C they stop, above 37.5 °C they die.",
    asks="nothing",
    unit="degC",
    low=36.5,
    high=37.5,
    placeholder=True,
    readings=(TEMPERATURE,),
    elapsed_s=26_790.0,
    duration_s=43_200.0,
    next_title="060 Day 5: CAR-positive cells",
)
RECORD = StepCard(
    step="060",
    phase="record",
    title="Day 5: CAR-positive cells",
    text="Take a 0.5 mL sample, stain it, and enter the share of CAR-positive cells from the cytometer.",
    why="Below 5 % the transduction failed and the dose cannot be reached.",
    asks="value",
    unit="%",
    low=5.0,
    limit_why="PMC11461191",
    next_title="070 Day 10: microbiology to date",
)
INSTRUCT = StepCard(
    step="035",
    phase="instruct",
    title="Add the activation reagent",
    text="Connect the CD3/CD28 reagent by sterile welding and let it run in. Invert the bag ten times.",
    why="Without activation the vector does not enter the cells.",
    asks="confirm",
    next_title="040 Scan the vector lot",
)
SCAN = StepCard(
    step="010",
    phase="scan",
    title="Receive the apheresis bag",
    text="Scan the donation identification number on the apheresis bag.",
    why="The chain of identity begins here: this patient's cells and no others.",
    asks="scan",
    expected="the patient identity of this batch",
    placeholder=True,
    next_title="012 Transport temperature",
)
CHOICE = StepCard(
    step="090",
    phase="record",
    title="Appearance",
    text="Hold the bag against the light and choose what you see.",
    asks="choice",
    choices=("clear", "slightly cloudy", "cloudy", "particles", "discoloured"),
    next_title="095 Label and cryopreserve",
)
SIGN = StepCard(
    step="015",
    phase="sign",
    title="Take custody",
    text="The bag was received intact, at 4.1 °C, 21 hours after collection.",
    asks="sign",
    meaning="I take custody of this material.",
    signers=("operator", "verifier"),
    why="Two people answer for the material from here on.",
    next_title="020 Enrich CD4 and CD8",
)
QUESTION = QuestionCard(
    question="q1",
    step="050",
    tag="P-1.flow",
    title="Feed pump: set the flow",
    why="The pump did not reply. It may or may not have taken the command.",
    intent="12.0",
    reading_before="0.0",
    unit="mL/min",
    reading_now=ReadingView(tag="P-1.flow", title="Flow", value=12.0, text="12.0", unit="mL/min", quality="good"),
    elapsed_low_s=41.0,
    elapsed_high_s=44.0,
)
RECIPES = (
    RecipeLine(recipe="CART-B1", version="1", title="CAR-T, batch of one", seal="a" * 64, needs_patient=True),
    RecipeLine(recipe="EQ-DAILY", version="1", title="Daily equipment check", seal="b" * 64, needs_patient=False),
)


def make_batch(*active: StepCard, **facts: Any) -> BatchCard:
    """CART-B1 for one patient, in the middle."""
    given: dict[str, Any] = {
        "batch": "B-2026-014",
        "order": "ORD-7781",
        "recipe": "CART-B1",
        "version": "1",
        "title": "CAR-T, batch of one",
        "state": "running",
        "reason": "",
        "units": {"bioreactor": "BR-1", "pump": "P-1"},
        "speed": 1.0,
        "steps": STEPS,
        "active": active,
        "questions": (),
        "exceptions": (),
        "raised": 0,
        "next_action": "Nothing to do now. The box holds 37 °C for 4 h 33 min more.",
    }
    return BatchCard(**(given | facts))


def make_picture(*batches: BatchCard, person: PersonView | None = ANA, **facts: Any) -> Picture:
    """A box with its hub away and 12 rows pending."""
    given: dict[str, Any] = {
        "box": "line-3",
        "as_of_seq": 412,
        "utc": "2026-11-21T14:09:31.000000Z",
        "clock": "synced",
        "person": person,
        "people": (ANA, BEN, EVA, AUDITOR),
        "strip": Strip(
            made=412,
            saved=412,
            sync=Sync(
                hub="away",
                received_seq=400,
                received_utc="2026-11-21T14:02:11.000000Z",
                copied="ok",
                copied_seq=412,
            ),
        ),
        "batches": batches,
        "recipes": RECIPES,
        "connections": {"bioreactor": "connected", "pump": "connected"},
        "dark_s": 0.0,
    }
    return Picture(**(given | facts))


class Desk:
    """The server's side. `answer` scripts refusals and changes; everything asked is kept in `asked`."""

    def __init__(self, path: Path, picture: Picture) -> None:
        self.path = path
        self.picture = picture
        self.asked: list[Any] = []
        self.drafts: dict[tuple[str, str], str] = {}
        self.on: Callable[[Any], Picture | None] = lambda _: None
        """Called with each request that is not about watching, logging in or drafts; returns the new picture."""
        self.facts: Callable[[Any], dict[str, Any] | None] = lambda _: None
        """What the answer to a request carries besides."""
        self.gate: asyncio.Event | None = None
        """When set, such requests are answered only after it."""
        self._watchers: set[asyncio.StreamWriter] = set()
        self._sessions: dict[asyncio.StreamWriter, PersonView] = {}
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    def of(self, kind: type) -> list[Any]:
        """The requests of one kind."""
        return [request for request in self.asked if isinstance(request, kind)]

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=LINE_BYTES_MAX)

    async def stop(self) -> None:
        """Gone, as after SIGKILL."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._serving)

    def tell(self, picture: Picture | None = None) -> None:
        """A new picture for every watcher, each with its own session and the drafts kept."""
        if picture is not None:
            self.picture = picture
        for writer in self._watchers:
            writer.write(orjson.dumps({"picture": self._seen_by(writer).model_dump(mode="json")}) + b"\n")

    def _seen_by(self, writer: asyncio.StreamWriter) -> Picture:
        batches = []
        for batch in self.picture.batches:
            active = tuple(
                card.model_copy(update={"draft": self.drafts.get((batch.batch, card.step), card.draft)})
                for card in batch.active
            )
            batches.append(batch.model_copy(update={"active": active}))
        return self.picture.model_copy(update={"person": self._sessions.get(writer), "batches": tuple(batches)})

    def log_in_everyone(self, person: PersonView | None) -> None:
        """Without a PIN, for tests that begin behind the lock; None logs everyone out."""
        for writer in self._watchers:
            if person is None:
                self._sessions.pop(writer, None)
            else:
                self._sessions[writer] = person
        self.tell()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._open.add(writer)
        if self.picture.person is not None:
            self._sessions[writer] = self.picture.person
        try:
            while line := await reader.readline():
                request = REQUEST.validate_json(line)
                self.asked.append(request)
                try:
                    answer = await self._do(request, writer)
                except LinesideError as error:
                    wire = {name: getattr(error, name) for name in ("code", "what", "effect", "todo")}
                    answer = {"id": request.id, "ok": False, "error": wire}
                writer.write(orjson.dumps(answer) + b"\n")
                self.tell()
        except ConnectionError:
            pass  # the screen was killed, or this desk was
        finally:
            self._open.discard(writer)
            self._watchers.discard(writer)
            self._sessions.pop(writer, None)
            self._serving.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _do(self, request: Any, writer: asyncio.StreamWriter) -> dict[str, Any]:
        match request:
            case Watch():
                self._watchers.add(writer)
            case AskStatus():
                return {"id": request.id, "ok": True, "picture": self._seen_by(writer).model_dump(mode="json")}
            case LogIn():
                person = BADGES.get(request.badge, request.person)
                if PINS.get(person) != request.pin:
                    raise LinesideError(
                        "people.log_in",
                        "This badge or name and PIN do not belong together.",
                        effect="Nobody was logged in.",
                        todo="Try again. After five failures the person is locked.",
                    )
                self._sessions[writer] = next(p for p in self.picture.people if p.person == person)
            case LogOut():
                self._sessions.pop(writer, None)
            case SaveDraft():
                self.drafts[request.batch, request.step] = request.text
            case _:
                if self.gate is not None:
                    await self.gate.wait()
                if (picture := self.on(request)) is not None:
                    self.picture = picture
        return {"id": request.id, "ok": True, **(self.facts(request) or {})}


@asynccontextmanager
async def scripted_desk(path: Path, picture: Picture) -> AsyncIterator[Desk]:
    """A desk at `path`, gone at the end."""
    desk = Desk(path, picture)
    await desk.start()
    try:
        yield desk
    finally:
        await desk.stop()
