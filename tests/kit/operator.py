"""An operator who works at the desk itself: what the screen's person does, without the screen."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from demo.rig import DIN, Rig
from demo.script import BY_ROLE, PINS, entry_for
from edge import wire
from edge.core.errors import LinesideError
from edge.core.recipe.model import Step
from edge.desk_client import DeskClient, connect
from edge.library import read_recipe_file

LOST = {"desk.lost", "desk.unreachable"}
STALE = {
    "batch.exists",
    "signature.role",
    "step.not_active",
    "batch.not_running",
    "question.closed",
    "session.none",
    "signature.same_person",
    "step.moved_on",
    "step.other_entry",
}
"""Refusals that only say that the picture was older than the line: look again."""
BATCH_S_MAX = 240.0


@dataclass
class Operator:
    """Works through one batch, of CART-B1 if nothing else is said, whatever happens to the runtime meanwhile."""

    rig: Rig
    batch: str = "B-001"
    patient: str = DIN
    entry: Callable[[Step, wire.StepCard], str] = lambda step, _card: entry_for(step)
    """What is typed or scanned where the picture shows this."""
    batch_s_max: float = BATCH_S_MAX
    again: set[str] = field(default_factory=set)
    """Ids of the requests that signed for a write to be done again."""
    questions: int = 0
    connections: int = 0
    """How often the operator had to connect and log in."""
    shown_seq: int = 0
    """The last row that the desk showed: no power cut may take it back."""
    acknowledged: list[str] = field(default_factory=list)
    """Ids of the requests that the desk said are done: each must be in a row."""
    leaves: set[str] = field(default_factory=set)
    """Steps that the operator leaves to somebody else."""
    steps: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.rig.box / "recipes" / f"{self.rig.recipe}.yaml"
        self.steps = read_recipe_file(path).recipe.steps()

    async def work(self) -> wire.BatchCard:
        """Until the batch is complete; reconnects and logs in as often as it takes."""
        deadline_s = time.monotonic() + self.batch_s_max
        while time.monotonic() < deadline_s:
            try:
                async with logged_in(self.rig) as client:
                    self.connections += 1
                    async for picture in client.pictures():
                        self.shown_seq = max(self.shown_seq, picture.as_of_seq)
                        card = next((b for b in picture.batches if b.batch == self.batch), None)
                        if card is None:
                            await self.start(client, picture)
                        elif card.state == "complete":
                            return card
                        else:
                            await self.act(client, card)
            except LinesideError as error:
                if error.code not in LOST:
                    raise
                await self.rig.until(self.rig.answers, "the runtime does not come back")
        raise AssertionError("the batch did not end")

    async def ask(self, client: DeskClient, request: wire.Request) -> None:
        """Ask the desk, and keep what it said is done."""
        await client.ask(request)
        self.acknowledged.append(request.id)

    async def start(self, client: DeskClient, picture: wire.Picture) -> None:
        """Start the batch of the demo's order."""
        seal = picture.recipes[0].seal
        order = wire.StartBatch(id=uuid4().hex, batch=self.batch, order="ORD-17", recipe=seal, patient=self.patient)
        try:
            await self.ask(client, order)
        except LinesideError as error:
            if error.code not in STALE:
                raise

    async def act(self, client: DeskClient, card: wire.BatchCard) -> None:
        """Do the one thing that the picture asks for."""
        try:
            if card.questions:
                await self.answer(client, card.questions[0])
            elif card.state == "held":
                raise AssertionError(f"held without a question: {card.reason}")
            elif card.state == "running":
                asking = [task for task in card.active if task.asks != "nothing" and task.step not in self.leaves]
                if asking:
                    await self.ask(client, self.request(asking[0]))
        except LinesideError as error:
            if error.code not in STALE:
                raise

    async def answer(self, client: DeskClient, question: wire.QuestionCard) -> None:
        """It happened when the reading shows the intent, otherwise do it again; wait for a good reading."""
        now = question.reading_now
        if now is None or now.quality != "good" or now.value is None:
            return
        intent = float(question.intent)
        answer = "happened" if abs(float(now.value) - intent) < 0.05 and "happened" in question.answers else "again"
        name = uuid4().hex
        if answer == "again":
            self.again.add(name)
        await self.ask(
            client,
            wire.AnswerQuestion(
                id=name,
                batch=self.batch,
                question=question.question,
                answer=answer,
                person="ana",
                pin=PINS["ana"],
            ),
        )
        self.questions += 1

    def request(self, task: wire.StepCard) -> wire.Request:
        """What a person asks of the desk at this step."""
        entry = self.entry(self.steps[task.step], task)
        shown = {"id": uuid4().hex, "batch": self.batch, "step": task.step, "part": task.part}
        match task.asks:
            case "confirm":
                return wire.ConfirmStep(**shown, iteration=task.iteration)
            case "scan":
                return wire.ScanCode(**shown, iteration=task.iteration, text=entry)
            case "sign":
                person = BY_ROLE[task.signers[0]]
                return wire.SignStep(**shown, iteration=task.iteration, person=person, pin=PINS[person])
            case _:
                return wire.EnterValue(**shown, iteration=task.iteration, text=entry)


@asynccontextmanager
async def logged_in(rig: Rig, person: str = "ana") -> AsyncIterator[DeskClient]:
    """A connection to the desk with an open session."""
    async with connect(rig.desk) as client:
        await client.ask(wire.LogIn(id=uuid4().hex, person=person, pin=PINS[person]))
        yield client
