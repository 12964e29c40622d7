"""A small line for tests of the pure core: one plant, one recipe, virtual time, every row read back and folded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.events import RowBody, decode, encode
from edge.core.line import Batch, Book, Line, apply
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.terms import ClockQuality, Quality, Reading, Role, Stamp

PLANT = Plant.model_validate(
    {
        "plant": "TEST",
        "connections": {"plc": {"driver": "sim"}},
        "units": {
            "BR-1": {
                "class": "bioreactor",
                "tags": {
                    "temperature": {"connection": "plc", "address": "t", "unit": "degC", "low": 0, "high": 60},
                    "weight": {"connection": "plc", "address": "w", "unit": "g"},
                    "setpoint": {
                        "connection": "plc",
                        "address": "s",
                        "unit": "degC",
                        "access": "write",
                        "low": 4,
                        "high": 45,
                        "read_back": "temperature",
                    },
                },
                "safe_state": [{"tag": "setpoint", "value": 20.0}],
            },
            "BR-2": {
                "class": "bioreactor",
                "tags": {
                    "temperature": {"connection": "plc", "address": "t2", "unit": "degC"},
                    "weight": {"connection": "plc", "address": "w2", "unit": "g"},
                    "setpoint": {"connection": "plc", "address": "s2", "unit": "degC", "access": "write"},
                },
            },
        },
    }
)

STEPS: list[dict[str, Any]] = [
    {"id": "010", "phase": "instruct", "title": "Clear", "text": "Clear the suite."},
    {"id": "020", "phase": "scan", "title": "Bag", "text": "Scan it.", "name": "din", "expect": "patient"},
    {"id": "030", "phase": "set", "title": "Warm", "tag": "reactor.setpoint", "value": 37.0},
    {
        "id": "040",
        "phase": "wait",
        "title": "Warm enough",
        "tag": "reactor.temperature",
        "limit": {"low": 36.5, "high": 37.5},
        "timeout": "1 h",
    },
    {
        "id": "050",
        "phase": "parallel",
        "title": "Expand",
        "branches": [
            [{"id": "051", "phase": "wait", "title": "Grow", "duration": "2 h"}],
            [
                {
                    "id": "052",
                    "phase": "monitor",
                    "title": "Keep warm",
                    "tag": "reactor.temperature",
                    "limit": {"low": 36.0, "high": 38.0},
                    "until": "051",
                }
            ],
        ],
    },
    {
        "id": "060",
        "phase": "record",
        "title": "Viability",
        "text": "Count.",
        "name": "viability",
        "unit": "%",
        "limit": {"low": 80},
    },
    {
        "id": "070",
        "phase": "sign",
        "title": "Release",
        "text": "Look.",
        "meaning": "reviewed",
        "roles": ["operator", "verifier"],
    },
]


def recipe(steps: list[dict[str, Any]] | None = None, **more: Any) -> Recipe:
    """A recipe of one operation with these steps."""
    return Recipe.model_validate(
        {
            "recipe": "R",
            "version": "1",
            "title": "A recipe",
            "units": {"reactor": {"class": "bioreactor"}},
            "procedure": [
                {"unit_procedure": "U", "operations": [{"operation": "O", "steps": STEPS if steps is None else steps}]}
            ],
            **more,
        }
    )


@dataclass
class VirtualLine:
    """The pure core with a clock that only `pass_s` moves. Every decision is journaled, read back and folded."""

    recipe: Recipe = field(default_factory=recipe)
    boot: str = "boot-1"
    now_s: float = 100.0
    line: Line = field(init=False)
    rows: list[bytes] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.line = Line(Book(PLANT, {"seal": self.recipe}, frozenset({"seal"})))
        self.do(cm.StartRuntime(version="t"))
        self.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal="seal"))
        self.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="badge and PIN"))

    def stamp(self) -> Stamp:
        return Stamp("2026-01-01T00:00:00.000000Z", ClockQuality.FREE, self.now_s, self.boot)

    def do(self, command: cm.Command) -> list[ev.Event]:
        made: list[RowBody] = decide(self.line, command, Now(self.stamp(), self.readings.get))
        for row in made:
            data = encode(row)
            self.rows.append(data)
            self.line = apply(self.line, decode(data))
        return [row.event for row in made]

    def refold(self) -> Line:
        """The head folded anew from the rows alone."""
        line = Line(self.line.book)
        for data in self.rows:
            line = apply(line, decode(data))
        return line

    def start(self, batch: str = "B1", patient: str = "=DIN1", speed: float = 1.0) -> list[ev.Event]:
        return self.do(
            cm.StartBatch(session="S", batch=batch, order="ORD-1", seal="seal", patient=patient, speed=speed)
        )

    def batch(self, name: str = "B1") -> Batch:
        return self.line.batches[name]

    def active(self, name: str = "B1") -> list[str]:
        return [run.step for run in self.batch(name).active()]

    def confirm(self, step: str, **more: Any) -> list[ev.Event]:
        return self.do(cm.ConfirmStep(session="S", batch="B1", step=step, **more))

    def scan(self, step: str, text: str, **more: Any) -> list[ev.Event]:
        return self.do(cm.ScanCode(session="S", batch="B1", step=step, text=text, **more))

    def enter(self, step: str, text: str) -> list[ev.Event]:
        return self.do(cm.EnterValue(session="S", batch="B1", step=step, text=text))

    def conclude(self, step: str, outcome: Any, attempt: int = 1, tag: str = "BR-1.setpoint") -> list[ev.Event]:
        return self.do(
            cm.ConcludeWrite(
                batch="B1", step=step, attempt=attempt, tag=tag, outcome=outcome, reading=37.0, why="no reply"
            )
        )

    def signed(self, person: str, role: Role, *roles: Role) -> cm.Signed:
        return cm.Signed(
            person=person,
            roles=roles or (role,),
            role=role,
            methods=("name", "PIN"),
            meaning="m",
            session="S",
            subject_seq=self.line.seq,
            subject_hash="00" * 32,
            attestation="00" * 64,
        )

    def answer(self, question: str, answer: Any, role: Role = Role.OPERATOR) -> list[ev.Event]:
        meaning = {"happened": "it happened", "again": "do it again", "abort": "abort"}[answer]
        signed = replace(self.signed("ana", role), meaning=meaning)
        return self.do(
            cm.AnswerQuestion(session="S", batch="B1", question=question, answer=answer, reading=37.0, signed=signed)
        )

    def note(self, step: str, finding: Any, value: float, quality: Quality = Quality.GOOD) -> list[ev.Event]:
        reading = Reading(value, "degC", quality, "", self.now_s)
        return self.do(cm.NoteReading(batch="B1", step=step, finding=finding, reading=reading))

    def crash(self, boot: str = "") -> list[ev.Event]:
        """No RuntimeStopped: the process is simply gone, and another begins with what the journal says."""
        self.line = replace(self.refold(), book=self.line.book)
        self.boot = boot or self.boot
        events = self.do(cm.StartRuntime(version="t"))
        self.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR,), method="badge and PIN"))
        return events

    def to_step(self, step: str) -> None:
        """Run the standard recipe, all well, until `step` is active."""
        acts: dict[str, Callable[[], Any]] = {
            "010": lambda: self.confirm("010"),
            "020": lambda: self.scan("020", "=DIN1"),
            "030": lambda: self.conclude("030", "confirmed"),
            "040": lambda: self.note("040", "met", 37.0),
            "051": self.two_hours,
            "060": lambda: self.enter("060", "91.5"),
        }
        for _ in range(len(acts) + 1):
            if step in self.active():
                return
            acts[next(run.step for run in self.batch().active() if run.step in acts)]()
        raise AssertionError(f"never got to {step}: {self.active()}")

    def two_hours(self) -> None:
        self.now_s += 7200
        self.do(cm.PassTimer(batch="B1", step="051", timer="duration", low_s=7200, high_s=7200))


def kinds(events: list[ev.Event]) -> list[str]:
    return [type(event).__name__ for event in events]
