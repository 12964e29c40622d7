"""One line on virtual time, driven at random: recipes, people, equipment, time and power are drawn from one seed.

`Run` plays the engine, the devices, the people and the power over the pure core, and checks after every row what
must always hold. What breaks raises `Broken` with the seed in it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.by_hand import open_part
from edge.core.decide import decide, decided
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode, encode
from edge.core.forms import open_ask
from edge.core.line import (
    BY_HAND,
    OVER,
    PASSED,
    SAFE_STEP,
    Batch,
    Book,
    Line,
    Question,
    StepRun,
    Write,
    apply,
    effects,
    elapsed,
)
from edge.core.mode import DONE, MODES, SWITCHES, HandAct, Mode
from edge.core.plant import Cleaning, Plant
from edge.core.recipe.amend import Change, allowed, guards_identity, offers
from edge.core.recipe.model import (
    Calculate,
    Clearance,
    Custody,
    Hold,
    Instruct,
    Label,
    Loop,
    Monitor,
    Ramp,
    Recipe,
    Record,
    Sample,
    Scan,
    Select,
    Set,
    Sign,
    Step,
    Transfer,
    Wait,
    Weigh,
)
from edge.core.terms import TRANSITIONS, Act, ClockQuality, Quality, Reading, Role, Stamp, State
from tests.core.parts import PLANT, recipe

STEPS_MAX: Final = 110
DIN: Final = "=DIN1"
SLACK_S: Final = 1e-6
PEOPLE: Final = {
    "ana": (Role.OPERATOR,),
    "ben": (Role.VERIFIER, Role.OPERATOR),
    "chi": (Role.SUPERVISOR, Role.VERIFIER),
    "dot": (Role.AUDITOR,),
}
# Where a batch goes by itself. Everything else takes a person's act, that is TRANSITIONS.
BY_ITSELF: Final = {
    (State.HOLDING, State.HELD),
    (State.STOPPING, State.STOPPED),
    (State.ABORTING, State.ABORTED),
    (State.RESTARTING, State.RUNNING),
    (State.PAUSING, State.PAUSED),
    (State.RUNNING, State.COMPLETE),
    (State.RUNNING, State.HOLDING),
    (State.PAUSING, State.HOLDING),
    (State.PAUSED, State.HOLDING),
    (State.RESTARTING, State.HOLDING),
    (State.HELD, State.RESTARTING),
    (State.HELD, State.HELD),  # for another reason: it must be said how long the box was off
}
LEGAL: Final = BY_ITSELF | {(was, now) for (was, _), now in TRANSITIONS.items()}
# BR-2 takes less than recipes ask for: its writes are refused by the guard when they are intended.
PLANT_2: Final = PLANT.model_copy(
    update={
        "units": {
            "BR-1": PLANT.units["BR-1"],
            "BR-2": PLANT.units["BR-2"].model_copy(
                update={
                    "tags": {
                        name: tag.model_copy(update={"high": 36.0} if tag.access == "write" else {})
                        for name, tag in PLANT.units["BR-2"].tags.items()
                    }
                }
            ),
        }
    }
)


def kept_clean(plant: Plant) -> Plant:
    """The plant with a box that keeps whether its units are clean."""
    cleaning = {"cleaning": Cleaning(clean_hold_s=3_600.0, dirty_hold_s=600.0)}
    units = {name: unit.model_copy(update=cleaning) for name, unit in plant.units.items()}
    return plant.model_copy(update={"units": units})


AFTER_THE_END: Final = (ev.ResultAdded, ev.ValueCorrected, ev.ExceptionRaised, ev.UnitSoiled)
"""What may still be said of a batch that has ended: what the laboratory found, what was wrong, signed."""

Key = tuple[str, str, int, int, str]


class Broken(AssertionError):
    """Something that must always hold does not."""


# Recipes -------------------------------------------------------------------------------------------------------------


def random_recipe(chance: random.Random) -> Recipe:
    """A recipe of few steps in which every phase may stand, branches, selections, loops and jumps included."""
    numbers = itertools.count(10, 10)
    steps = [*_sequence(chance, numbers, chance.randint(1, 6), depth=0), *RECORDS]
    return recipe(
        steps,
        parameters={"top": {"value": 50.0, "unit": "%"}},
        readings={"reactor.temperature": "degC"},
        amendments=_amendments(chance, recipe(steps)),
    )


def _amendments(chance: random.Random, drawn: Recipe) -> dict[str, Any]:
    """What may be amended: all that can be, and some steps be skipped."""
    bounds: list[dict[str, Any]] = [{"parameter": "top", "low": 10.0, "high": 90.0}]
    for step in drawn.in_order():
        of = {"step": step.id}
        if isinstance(step, Hold | Monitor) or (isinstance(step, Wait) and step.limit):
            bounds.append({**of, "field": "limit.high", "low": 37.0, "high": 39.0})
        if isinstance(step, Wait | Hold) and step.duration:
            bounds.append({**of, "field": "duration", "low": "10 min", "high": "5 h"})
        if isinstance(step, Set):
            bounds.append({**of, "field": "value", "low": 20.0, "high": 40.0})
        if isinstance(step, Loop):
            bounds.append({**of, "field": "times", "low": 1, "high": 5})
    skip = [step.id for step in drawn.in_order() if not guards_identity(step) and chance.random() < 0.5]
    roles = chance.choice([[], ["supervisor", "verifier"]])
    return {"bounds": bounds, "skip": skip, "add": ["instruct"], "signed_by": roles}


def another_version(drawn: Recipe) -> Recipe:
    """The same and one more step at its end; a batch under way may go over to it."""
    data = drawn.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    data |= {"version": "2", "amendments": {**data.get("amendments", {}), "adopt": True}}
    data["procedure"][-1]["operations"][-1]["steps"].append(
        {"id": "r4", "title": "More", "phase": "instruct", "text": "Do more."}
    )
    return Recipe.model_validate(data)


# Whatever a formula names is recorded by some step: here at the latest.
RECORDS: Final[list[dict[str, Any]]] = [
    {"id": "r1", "title": "Count", "phase": "record", "text": "Count.", "name": "n", "unit": "%"},
    {"id": "r2", "title": "Twice", "phase": "calculate", "formula": "n * 2", "name": "twice", "unit": "%"},
    {"id": "r3", "title": "Look", "phase": "record", "text": "Look.", "name": "c", "type": "text"},
]
CONDITIONS: Final = (
    "n >= $top",
    "c == 'a'",
    "reactor.temperature > 36.5",
    "1 / (reactor.temperature - 37) > 0",
    "iteration >= 2",
    "twice > 90 || n < 10",
    "true",
    "false",
)


def _sequence(chance: random.Random, numbers: Any, length: int, depth: int) -> list[dict[str, Any]]:
    made = [_step(chance, f"{next(numbers):03d}", numbers, depth) for _ in range(length)]
    if length > 2 and chance.random() < 0.2:
        made[0]["next"] = made[2]["id"]
    return made


def _step(chance: random.Random, name: str, numbers: Any, depth: int) -> dict[str, Any]:
    limit = {"low": 36.0, "high": 38.0, "category": chance.choice(["minor", "major", "critical"])}
    quality = chance.choice(["hold", "continue"])
    restart = chance.choice(["resume", "hold", "ask"])
    tag = {"tag": "reactor.temperature", "limit": limit, "on_bad_quality": quality}
    tolerance = {"below": 2, "above": 2, "category": limit["category"]}
    roles = chance.choice([["operator"], ["operator", "verifier"]])
    base: dict[str, Any] = {"id": name, "title": f"Step {name}"}
    if chance.random() < 0.2:
        base["cleans"] = ["reactor"]
    kinds: list[dict[str, Any]] = [
        {"phase": "instruct", "text": "Do it."},
        {"phase": "record", "text": "Count.", "name": "n", "unit": "%", "limit": {**limit, "low": 10, "high": 90}},
        {"phase": "record", "text": "Look.", "name": "c", "type": "choice", "choices": ["a", "b"], "accept": ["a"]},
        {"phase": "scan", "text": "Scan.", "name": "din", "expect": "patient"},
        {"phase": "scan", "text": "Scan.", "name": "lot", "expect": "lot", "prefix": "L-"},
        {"phase": "set", "tag": "reactor.setpoint", "value": chance.choice([30.0, 37.0])},
        {"phase": "set", "tag": "reactor.setpoint", "value": chance.choice([30.0, 37.0])},
        {"phase": "wait", "duration": "1 h", "on_restart": restart},
        {"phase": "wait", "timeout": chance.choice(["30 min", ""]), **tag},
        {"phase": "hold", "duration": "2 h", "on_restart": restart, **tag},
        {"phase": "sign", "text": "Sign.", "meaning": "reviewed", "roles": roles},
        {"phase": "calculate", "formula": "n * 2", "name": "twice", "unit": "%", "on_bad_quality": quality,
         "limit": {"high": 150, "category": limit["category"]}},
        {"phase": "wait", "until": "reactor.temperature > 36.5", "timeout": "30 min", "on_bad_quality": quality},
        {"phase": "weigh", "text": "Add.", "name": "w", "target": 1.0, "unit": "kg", "tolerance": tolerance},
        {"phase": "weigh", "text": "Add.", "name": "w", "target": 1.0, "unit": "kg", "tolerance": tolerance,
         "balance": "reactor.weight", "steady": 0.01, "on_bad_quality": quality},
        {"phase": "sample", "text": "Take.", "name": "s", "quantity": 50, "unit": "mL", "container": "tube",
         "prefix": "L-", "tests": [{"name": "a", "later": True}, {"name": "b", "type": "negative_to_date"}]},
        {"phase": "label", "text": "Print.", "name": "l", "content": {"Batch": "batch"}, "reconcile": True},
        {"phase": "transfer", "text": "Move.", "name": "t", "from": {"prefix": "L-"}, "to": {"unit": "reactor"},
         "unit": "mL"},
        {"phase": "custody", "text": "Hand over.", "what": "bag"},
        {"phase": "clearance", "text": "Clear.", "checks": ["No bags.", "No labels."]},
        {"phase": "ramp", "tag": "reactor.setpoint", "value": 36.0, "rate": 2.0, "every": "30 min"},
    ]  # fmt: skip
    if depth < 2 and chance.random() < 0.25:
        branches = [_sequence(chance, numbers, chance.randint(1, 3), depth + 1) for _ in range(2)]
        if chance.random() < 0.5:
            monitor = {
                "id": f"{next(numbers):03d}",
                "title": "Watch",
                "phase": "monitor",
                "until": branches[0][-1]["id"],
            }
            branches.append([{**monitor, **tag}])
        return {**base, "phase": "parallel", "branches": branches}
    if depth < 2 and chance.random() < 0.3:
        inside = [_sequence(chance, numbers, chance.randint(1, 3), depth + 1) for _ in range(2)]
        loop = {"phase": "loop", "times": chance.randint(1, 3), "steps": inside[0], "on_bad_quality": quality}
        ends = chance.choice([{}, {"until": chance.choice(CONDITIONS)}, {"while": chance.choice(CONDITIONS)}])
        way = {"when": chance.choice(CONDITIONS), "steps": inside[0]}
        other = {"when": chance.choice(CONDITIONS), "steps": inside[1]}
        select = {"phase": "select", "branches": [way], "else": inside[1], "on_bad_quality": quality}
        open_loop = {**loop, **ends, "category": limit["category"]}
        one_or_none = {**select, "branches": [way, other], "else": []}
        return {**base, **chance.choice([open_loop, open_loop, select, one_or_none])}
    return {**base, **chance.choice(kinds)}


# The run -------------------------------------------------------------------------------------------------------------


@dataclass
class Made:
    """One row as it was written, when it truly was, and the head after it."""

    body: RowBody
    data: bytes
    true_s: float
    line: Line


class Run:
    """A line that lives and dies by one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.recipe = self.drawn()
        plant: Plant = kept_clean(self.chance.choice([PLANT, PLANT_2]))
        self.second = another_version(self.recipe)
        known = {"seal": self.recipe, "second": self.second}
        self.line = Line(Book(plant, known, frozenset(known)))
        self.true_s = 1000.0
        self.boot, self.boot_s = 1, 0.0
        self.cuts = 0
        """How often the power went so far."""
        self.dark_s = 0.0
        """How long it was, from the last row to the first one after, when it last went with the machine."""
        self.made: list[Made] = []
        self.ends: list[int] = [0]
        """Row counts at which a decision was whole: only there can a crash cut."""
        self.durable = 0
        self.commands: list[cm.Command] = []
        # The engine's side of writes, and the devices' own counters.
        self.started: set[Key] = set()
        self.flying: dict[Key, Write] = {}
        self.executed: Counter[Key] = Counter()
        self.late: list[Key] = []
        self.begin()

    # What happens --------------------------------------------------------------------------------------------------

    weights: ClassVar[Mapping[str, int]] = {}
    """How often something happens, by its name, where it differs from what `happenings` says."""

    def drawn(self) -> Recipe:
        """The recipe of this run."""
        return random_recipe(self.chance)

    def happenings(self) -> list[tuple[int, Callable[[], None]]]:
        """What may happen, each with how often."""
        return [
            (2, self.somebody_starts_a_batch),
            (30, self.somebody_does_a_step),
            (3, self.somebody_acts),
            (8, self.somebody_answers),
            (3, self.somebody_adds_a_result),
            (2, self.somebody_corrects),
            (10, self.somebody_amends),
            (3, self.somebody_does_anything),
            (2, self.somebody_repeats),
            (8, self.somebody_says_how_long_it_was_off),
            (4, self.people_go_on_by_hand),
            (14, self.writes_begin),
            (14, self.a_write_ends),
            (2, self.a_late_outcome_comes),
            (14, self.time_passes),
            (10, self.a_reading_tells),
            (8, self.a_condition_is_asked),
            (16, self.rows_become_durable),
            (3, self.the_power_goes),
            (1, self.the_runtime_stops),
        ]

    def play(self) -> Run:
        """Up to `STEPS_MAX` random happenings; then everything that holds at the end is checked."""
        happenings = self.happenings()
        acts = [act for _, act in happenings]
        weights = [self.weights.get(act.__name__, weight) for weight, act in happenings]
        for _ in range(STEPS_MAX):
            self.chance.choices(acts, weights)[0]()
        self.crash_at_every_row()
        return self

    def begin(self) -> None:
        """A runtime starts, and people log in."""
        self.started, self.flying = set(), {}
        self.do(cm.StartRuntime(version="t"))
        self.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal="seal"))
        self.do(cm.LoadRecipe(recipe="R", version="2", title="A recipe", seal="second"))
        for person, roles in PEOPLE.items():
            self.do(cm.OpenSession(session=person, person=person, roles=roles, method="badge and PIN"))
        self.rows_become_durable()

    def somebody_starts_a_batch(self) -> None:
        name = f"B{self.chance.randint(1, 3)}"
        self.do(cm.StartBatch(session=self.person(), batch=name, order="O", seal="seal", patient=DIN, speed=1.0))

    def somebody_does_a_step(self) -> None:
        found = self.any_active()
        if found is None:
            self.somebody_starts_a_batch()
            return
        batch, run, step = found
        name, person = {"command_id": f"c{len(self.commands)}", "batch": batch.batch, "step": run.step}, self.person()
        good = self.chance.random() < 0.8
        match step:
            case Instruct():
                self.do(cm.ConfirmStep(session="ana", iteration=self.chance.choice([0, run.iteration]), **name))
            case Record():
                text = self.chance.choice(["50", "a"] if good else ["99", "b", "x", ""])
                self.do(cm.EnterValue(session="ana", text=text, **name))
            case Scan():
                self.do(
                    cm.ScanCode(session="ana", text=self.chance.choice([DIN, "L-1"] if good else ["=DIN2", ""]), **name)
                )
            case Sign():
                self.do(cm.SignStep(session=person, signed=self.signed(step.roles[len(run.signed)]), **name))
            case _:
                self.somebody_answers_an_ask(batch, run, step, name, good=good)

    def somebody_answers_an_ask(self, batch: Batch, run: StepRun, step: Step, name: Any, *, good: bool) -> None:
        """What a step of several parts asks for now, by its name or not; sometimes what was asked before."""
        ask = open_ask(self.line.recipe(batch), batch, step, run)
        if ask is None:
            return
        part = self.chance.choice(["", ask.part] if good else ["check 1", "w.tare"])
        match ask.kind:
            case "confirm":
                self.do(cm.ConfirmStep(session="ana", part=part, **name))
            case "value":
                text = self.chance.choice(["0", "1", "1.01", "50"] if good else ["-1", "x"])
                self.do(cm.EnterValue(session="ana", part=part, text=text, **name))
            case "choice":
                text = self.chance.choice(ask.choices) if good else "x"
                self.do(cm.EnterValue(session="ana", part=part, text=text, **name))
            case "scan":
                text = ask.exactly or f"{ask.prefix}1" if good else "X"
                self.do(cm.ScanCode(session="ana", part=part, text=text, **name))
            case "sign":
                self.do(cm.SignStep(session=self.person(), signed=self.signed(ask.role), **name))
            case "reading":
                pass

    def somebody_adds_a_result(self) -> None:
        opened = [(b, r) for b in self.line.batches.values() for r in b.open_results.values()]
        if opened:
            batch, result = self.chance.choice(opened)
            text = self.chance.choice(["1", "negative", "positive", "x"])
            signed = self.signed(Role.SUPERVISOR)
            name = {"session": self.person(), "batch": batch.batch, "result": result.result}
            self.do(cm.AddResult(command_id=f"c{len(self.commands)}", text=text, signed=signed, **name))

    def somebody_corrects(self) -> None:
        known = [(b, name, value) for b in self.line.batches.values() for name, value in b.values.items()]
        if known:
            batch, name, value = self.chance.choice(known)
            self.do(
                cm.CorrectValue(
                    command_id=f"c{len(self.commands)}",
                    session=self.person(),
                    batch=batch.batch,
                    name=name,
                    was_seq=value.seq,
                    text=self.chance.choice(["51", "b", "x"]),
                    reason="a slip of the pen",
                    signed=self.signed(Role.SUPERVISOR),
                )
            )

    def somebody_amends(self) -> None:
        """Ask for an amendment, or settle the one that waits: by whoever, agreed or refused."""
        if not self.line.live():
            return
        batch = self.chance.choice(self.line.live())
        name = {"command_id": f"c{len(self.commands)}", "session": self.person(), "batch": batch.batch}
        if batch.requested is not None:
            role = Role(self.chance.choice(batch.requested.needs).partition("|")[0])
            agree = self.chance.random() < 0.9
            told = {"amendment": batch.requested.amendment, "agree": agree, "reason": "so", "signed": self.signed(role)}
            self.do(cm.SettleAmendment(**name, **told))
            return
        recipe = self.line.recipe(batch)
        adopts, changes = "", tuple(self.a_change(batch, recipe) for _ in range(self.chance.choice([1, 1, 2])))
        if self.chance.random() < 0.2:
            adopts, changes = self.chance.choice(["seal", "second"]), ()
        step = self.chance.choice([one.id for one in self.second.main()[-5:]])
        told = {"changes": changes, "adopts": adopts, "from_step": step, "reason": "so"}
        self.do(cm.RequestAmendment(**name, **told, signed=self.signed(Role.OPERATOR)))

    def a_change(self, batch: Batch, recipe: Recipe) -> Change:
        kind = self.chance.choice(["value", "value", "skip", "skip", "skip", "add"])
        if kind == "value":
            offer = self.chance.choice(offers(recipe))
            text = self.chance.choice(
                ["1 h", "3 h", "9 h"] if offer.kind == "duration" else ["2", "3", "25", "38", "99"]
            )
            return Change("value", offer.subject, offer.field, new=text)
        begun = self.chance.choice([*batch.steps, *recipe.steps()])
        if kind == "skip":
            return Change("skip", self.chance.choice(allowed(recipe).skip or (begun,)))
        added = {"id": f"a{batch.amendments}", "phase": "instruct", "title": "Added", "text": "Do it."}
        return Change("add", added["id"], begun, new=json.dumps(added))

    def somebody_acts(self) -> None:
        if batch := self.any_batch():
            act = self.chance.choice([Act.PAUSE, Act.HOLD, Act.RESUME, Act.RESUME, Act.RESUME, Act.STOP, Act.ABORT])
            self.do(cm.ActOnBatch(session=self.person(), batch=batch.batch, act=act, reason="because"))

    def somebody_says_how_long_it_was_off(self) -> None:
        """One person, then another, who may say something else. Of several dark times together nothing is certain."""
        asked = [(batch, batch.dark) for batch in self.line.live() if batch.dark is not None]
        if not asked:
            return
        batch, dark = self.chance.choice(asked)
        minutes = self.chance.choice([*[int(self.dark_s // 60)] * 4, 0])
        role, verifies = (Role.VERIFIER, True) if dark.person else (Role.OPERATOR, False)
        name = {"command_id": f"c{len(self.commands)}", "session": self.person(), "batch": batch.batch}
        self.do(cm.EnterDark(**name, minutes=minutes, verifies=verifies, signed=self.signed(role)))

    def people_go_on_by_hand(self) -> None:
        """A step is switched and entries are made, whether that is possible or not; some step is switched once more."""
        self.somebody_switches_a_step()
        for _ in range(self.chance.randint(0, 4)):
            self.an_entry_by_hand()
        if self.chance.random() < 0.3:
            self.somebody_switches_a_step()

    def somebody_switches_a_step(self) -> None:
        """Takes it by hand, to manual or back."""
        if found := self.any_active():
            batch, run, _ = found
            acts = [HandAct.TAKE, HandAct.MANUAL, HandAct.MANUAL] if run.hand is None else sorted(SWITCHES)
            act = self.chance.choice(acts)
            role = Role.SUPERVISOR if act is HandAct.MANUAL else Role.OPERATOR
            name = {"command_id": f"c{len(self.commands)}", "session": self.person(), "batch": batch.batch}
            self.do(cm.SwitchMode(**name, step=run.step, act=act, reason="so", signed=self.signed(role)))

    def an_entry_by_hand(self) -> None:
        """What the device shows, or that it was done: one person, then another, who may see something else."""
        by_hand = [(b, r) for b in self.line.live() for r in b.active() if r.hand is not None]
        if not by_hand:
            return
        batch, run = self.chance.choice(by_hand)
        part = open_part(self.line, batch, run, self.reading)
        if part is None or run.hand is None:
            return
        wanted = "37" if part.wanted is None else f"{part.wanted:g}"
        right = {"choice": next(iter(part.choices), ""), "text": "done", "number": wanted}[part.kind]
        text = self.chance.choice([right, right, right, "36.5", "1", "x"])
        verifies = bool(run.hand.part) is (self.chance.random() < 0.9)
        signed = self.signed(Role.VERIFIER if verifies else Role.OPERATOR)
        name = {"command_id": f"c{len(self.commands)}", "session": self.person(), "batch": batch.batch}
        told = {"step": run.step, "part": self.chance.choice(["", part.part]), "text": text}
        rows = self.do(cm.EnterByHand(**name, **told, verifies=verifies, signed=signed))
        if part.kind == "number" and any(isinstance(one, ev.HandVerified) for one in rows):
            self.hold(float(text) == run.hand.value, f"{text!r} was verified, and {run.hand.value!r} was entered")

    def somebody_answers(self) -> None:
        asked = [(b, q) for b in self.line.batches.values() for q in b.questions.values()]
        if asked:
            self.answer(*self.chance.choice(asked))

    def answer(self, batch: Batch, question: Question) -> None:
        command = cm.AnswerQuestion(
            command_id=f"c{len(self.commands)}",
            session=self.person(),
            batch=batch.batch,
            question=question.question,
            answer=self.chance.choice(["happened", "again", "again", "abort"]),
            reading=37.0,
            signed=self.signed(Role.OPERATOR),
        )
        self.do(command)

    def somebody_does_anything(self) -> None:
        """An entry for some step of some batch, whether it is under way or not, of the right kind or not."""
        name = {
            "session": self.chance.choice([*PEOPLE, "nobody"]),
            "batch": self.chance.choice(["B1", "B2", "B3", "B9"]),
            "step": self.chance.choice([*self.recipe.steps(), "nowhere"]),
        }
        self.do(
            self.chance.choice(
                [
                    cm.ConfirmStep(**name),
                    cm.EnterValue(text="50", **name),
                    cm.ScanCode(text=DIN, **name),
                    cm.SignStep(signed=self.signed(Role.OPERATOR), **name),
                ]
            )
        )

    def somebody_repeats(self) -> None:
        """The same request once more, as a screen sends it that never heard the answer."""
        if self.commands:
            command = self.chance.choice(self.commands)
            known = any(made.body.event.command_id == command.command_id for made in self.made)
            rows = self.do(command)
            self.hold(not (known and rows), f"a repeated {type(command).__name__} was done twice")

    def writes_begin(self, *, arrive: float = 0.7) -> None:
        """The engine's rule: once in a run, and only for a durable intent. So many of them arrive at the device."""
        for write in effects(self.line).writes:
            key = (write.batch, write.step, write.iteration, write.attempt, write.tag)
            if key in self.started or write.seq > self.durable:
                continue
            self.started.add(key)
            self.flying[key] = write
            if self.chance.random() < arrive:
                self.executed[key] += 1
                self.judge_device(key)

    def a_write_ends(self) -> None:
        if self.flying:
            key = self.chance.choice(sorted(self.flying))
            del self.flying[key]
            outcome = self.chance.choice(
                ["confirmed", "confirmed", "unknown"] if self.executed[key] else ["unknown", "refused"]
            )
            self.conclude(key, outcome)

    def a_late_outcome_comes(self) -> None:
        """Of a write that a run began which is no longer there."""
        if self.late:
            rows = self.conclude(self.chance.choice(self.late), "confirmed")
            self.hold(not rows, "an outcome from an earlier run decided something")

    def conclude(self, key: Key, outcome: Any) -> list[ev.Event]:
        batch, step, iteration, attempt, tag = key
        command = cm.ConcludeWrite(
            batch=batch,
            step=step,
            iteration=iteration,
            attempt=attempt,
            tag=tag,
            outcome=outcome,
            reading=37.0,
            why="w",
        )
        return self.do(command)

    def time_passes(self) -> None:
        """Some time, and the engine tells which timers are due; sometimes it asks a little early."""
        self.true_s += self.chance.choice([1.0, 300.0, 1800.0, 3600.0, 7200.0])
        at = self.stamp()
        for timer in effects(self.line).timers:
            passed = elapsed(timer.since, timer.before_boot, at)
            if passed.low_s < timer.length_s and self.chance.random() < 0.8:
                continue
            high_s = -1.0 if passed.high_s == float("inf") else passed.high_s
            command = cm.PassTimer(
                batch=timer.batch,
                step=timer.step,
                iteration=timer.iteration,
                timer=timer.timer,
                low_s=passed.low_s,
                high_s=high_s,
            )
            self.do(command)

    def a_reading_tells(self) -> None:
        watches = effects(self.line).watches
        if watches:
            watch = self.chance.choice(watches)
            finding = {"until": "met", "keep": "outside", "steady": "steady"}[watch.kind]
            finding = self.chance.choice([finding, finding, finding, "back", "bad_quality"])
            good = finding != "bad_quality"
            value, unit = (500.0, "g") if watch.kind == "steady" else (37.0, "degC")
            reading = Reading(value, unit, Quality.GOOD if good else Quality.BAD, "", self.true_s)
            told = {"batch": watch.batch, "step": watch.step, "iteration": watch.iteration}
            self.do(cm.NoteReading(**told, finding=finding, reading=reading))  # type: ignore[arg-type]

    def a_condition_is_asked(self) -> None:
        conditions = effects(self.line).conditions
        if conditions:
            one = self.chance.choice(conditions)
            bad = self.chance.random() < 0.5
            self.do(cm.AskCondition(batch=one.batch, step=one.step, iteration=one.iteration, bad=bad))

    def reading(self, _: str) -> Reading | None:
        """What the equipment shows: mostly something good."""
        quality = self.chance.choice([Quality.GOOD, Quality.GOOD, Quality.GOOD, Quality.BAD])
        value = self.chance.choice([35.0, 37.0, 38.0])
        return None if self.chance.random() < 0.1 else Reading(value, "degC", quality, "", self.true_s)

    def rows_become_durable(self) -> None:
        self.durable = len(self.made)

    def the_power_goes(self) -> None:
        """What was not durable may be gone, whole decisions at a time; another runtime begins, perhaps another boot."""
        self.cuts += 1
        cut = self.chance.choice([end for end in self.ends if end >= self.durable])
        self.late += sorted(self.flying)
        del self.made[cut:]
        self.ends = [end for end in self.ends if end <= cut]
        self.line = self.made[-1].line
        if self.chance.random() < 0.5:
            self.true_s += self.chance.choice([10.0, 5000.0])
            self.boot, self.boot_s = self.boot + 1, self.true_s - 5.0
            self.dark_s = self.true_s - self.made[-1].true_s
        self.begin()
        self.nothing_of_an_earlier_run_is_wanted()

    def the_runtime_stops(self) -> None:
        """In order: when it is not refused, nothing is in doubt afterwards."""
        if self.do(cm.StopRuntime()):
            asked = sum(len(b.questions) for b in self.line.live())
            self.begin()
            self.hold(sum(len(b.questions) for b in self.line.live()) == asked, "a clean stop left a doubt")

    # How it is decided and what is checked --------------------------------------------------------------------------

    def do(self, command: cm.Command) -> list[ev.Event]:
        """Decide, write, read back and fold, as the engine does. A refusal changes nothing."""
        before = self.line
        try:
            rows, after = decided(before, command, Now(self.stamp(), self.reading))
        except LinesideError as refusal:
            self.hold(bool(refusal.code and refusal.what), "a refusal without words")
            self.hold(self.line is before, "a refusal changed the head")
            return []
        if command.command_id and command not in self.commands:
            self.commands.append(command)
        for row in rows:
            data = encode(row)
            self.judge_row(row.event)
            old = self.line
            self.line = apply(self.line, decode(data))
            self.judge_recipes(old, row.event)
            self.made.append(Made(row, data, self.true_s, self.line))
        if rows:
            self.ends.append(len(self.made))
        self.judge_head()
        self.hold(after == self.line, "the head that the decision ends with is not that of its rows")
        return [row.event for row in rows]

    def hold(self, holds: bool, what: str) -> None:
        """Fail with the seed when it does not hold."""
        if not holds:
            said = "\n".join(f"{n} {m.body.event}" for n, m in enumerate(self.made, 1))
            raise Broken(f"seed {self.seed}: {what}\n{said[-6000:]}")

    def judge_row(self, event: ev.Event) -> None:
        """What a single row may say, before it is folded."""
        batch = self.line.batches.get(event.batch)
        over = batch is not None and batch.state in OVER
        later = isinstance(event, AFTER_THE_END) or (isinstance(event, ev.SignatureMade) and not event.step)
        self.hold(not over or later, f"a row after the end of its batch: {event}")
        match event:
            case ev.BatchStarted():
                units = [unit for other in self.line.live() for unit in other.units.values()]
                self.hold(not set(units) & set(event.units.values()), "two batches share a unit")
            case ev.BatchStateChanged():
                assert batch is not None
                self.hold(event.was == batch.state.value, f"{event} from {batch.state}")
                self.hold((State(event.was), State(event.now)) in LEGAL, f"no legal transition: {event}")
            case ev.CommandIntended():
                self.judge_intent(event)
            case ev.TimerDue():
                self.judge_timer(event)
            case ev.StepCompleted():
                self.judge_completion(event)
            case ev.StepActivated():
                same = [e for e in self.events(ev.StepActivated, event) if e.attempt == event.attempt]
                self.hold(not same, f"begun twice: {event}")
                loop = self.line.recipe(self.line.batches[event.batch]).loop_of(event.step)
                now = self.line.batches[event.batch].steps[loop].body if loop else 1
                self.hold(event.iteration == now, f"begun in iteration {event.iteration}, not {now}: {event}")
            case ev.BranchTaken():
                self.hold(not self.events(ev.BranchTaken, event), f"chosen twice: {event}")
            case ev.PassBegun():
                self.judge_pass(event)
            case ev.AmendmentMade():
                self.judge_amendment(event)
            case ev.UnitCleaned():
                assert batch is not None
                run, names = batch.steps[event.step], self.steps_of(event.batch)[event.step].cleans
                cleaned = run.state == "done" and event.unit in {batch.units[name] for name in names}
                self.hold(cleaned, f"no step has cleaned it: {event}")
            case ev.ModeChanged():
                pair = (Mode(event.was), Mode(event.now))
                self.hold(
                    pair in {(mode, now) for (mode, act), now in MODES.items() if act in SWITCHES},
                    f"no legal mode: {event}",
                )
                self.hold(isinstance(self.made[-1].body.event, ev.SignatureMade), f"not signed: {event}")
            case ev.HandVerified():
                entered = self.events(ev.HandEntered, event)[-1]
                same = (entered.part, entered.value, entered.person) == (event.part, event.value, event.entered_by)
                self.hold(same and event.person != entered.person, f"not entered by another person: {event}")
                last = self.made[-1].body.event
                signed = isinstance(last, ev.SignatureMade) and last.person == event.person
                self.hold(signed, f"not signed by who verified: {event}")
            case ev.StepSkipped():
                assert batch is not None
                self.hold(event.step in batch.skips, f"nobody signed that it is skipped: {event}")
            case _:
                pass

    def judge_amendment(self, event: ev.AmendmentMade) -> None:
        """Signed by all who must, each another person, in a row before it; within bounds; of nothing that is done."""
        batch = self.line.batches[event.batch]
        mine = [made.body.event for made in self.made if made.body.event.batch == event.batch]
        asked = [one for one in mine if isinstance(one, ev.AmendmentRequested) and one.amendment == event.amendment]
        self.hold(len(asked) == 1, f"requested {len(asked)} times: {event}")
        signed = [
            one.person for one in mine[mine.index(asked[0]) - 1 :] if isinstance(one, ev.SignatureMade) and not one.step
        ]
        people = 1 + len(asked[0].needs)
        self.hold(event.person in signed and len(set(signed)) >= people, f"not signed by {people} people: {event}")
        recipe = self.line.recipe(batch)
        assert recipe.amendments is not None
        for change in event.changes:
            subject, run = change["subject"], batch.steps.get(change["subject"])
            if change["kind"] != "add" and run is not None:
                done = run.state == "done" and recipe.loop_of(subject) is None
                self.hold(not done, f"what is done is changed: {event}")
            if change["kind"] == "value" and change["field"] != "duration":
                named = [one for one in recipe.amendments.bounds if subject in {one.step, f"${one.parameter}"}]
                (bound,) = [one for one in named if one.field == change["field"]]
                within = bound.low <= float(change["new"]) <= bound.high  # type: ignore[operator]
                self.hold(within, f"out of its bounds: {change}")

    def judge_recipes(self, old: Line, event: ev.Event) -> None:
        """No batch runs by another recipe than before, but for the one whose amendment was made just now; and what is
        being written stays what it is."""
        for name, batch in self.line.batches.items():
            was = old.batches.get(name)
            if was is None:
                continue
            same = (was.seal, was.changes, was.amended) == (batch.seal, batch.changes, batch.amended)
            mine = isinstance(event, ev.AmendmentMade) and event.batch == name
            self.hold(same or mine, f"{name} runs by another recipe after {event}")
            self.hold(not mine or was.intents == batch.intents, f"a pending write was changed by {event}")

    def steps_of(self, batch: str) -> Any:
        """The steps of the recipe by which the batch runs now."""
        return self.line.recipe(self.line.batches[batch]).steps()

    def judge_pass(self, event: ev.PassBegun) -> None:
        """Passes come one after another, each when the one before is done, and no more than the recipe says."""
        step, run = self.steps_of(event.batch)[event.step], self.line.batches[event.batch].steps[event.step]
        assert isinstance(step, Loop)
        self.hold(event.number == run.passes + 1 <= event.times == step.times, f"out of turn: {event}")
        self.hold(event.number == 1 or self.is_done(event.batch, step.steps, run.body), f"not all done: {event}")

    def is_done(self, batch: str, steps: Any, iteration: int) -> bool:
        """The last step of a sequence is done in this iteration."""
        run = self.line.batches[batch].steps.get(steps[-1].id)
        return run is not None and run.state in PASSED and run.iteration == iteration

    def judge_intent(self, event: ev.CommandIntended) -> None:
        state = self.line.batches[event.batch].state
        unit = event.tag.partition(".")[0]
        clean = unit in self.line.units and self.line.units[unit].clean
        self.hold(event.step == SAFE_STEP or not clean, f"used, and it counts as clean: {event}")
        self.hold(event.late or state not in {State.HELD, State.PAUSED}, f"written while {state.value}: {event}")
        run = self.line.batches[event.batch].steps.get(event.step)
        self.hold(run is None or run.hand is None, f"written for a step that goes on by hand: {event}")
        said = [*self.events(ev.HandEntered, event), *self.events(ev.HandRefused, event)]
        self.hold(not said or isinstance(said[-1], ev.HandRefused), f"written although people did it: {event}")
        same = [e for e in self.events(ev.CommandIntended, event) if (e.attempt, e.tag) == (event.attempt, event.tag)]
        self.hold(not same, f"intended twice: {event}")
        if event.attempt > 1:
            within = "" if event.iteration == 1 else f"{event.iteration}."
            question = f"{event.step}.{within}{event.attempt - 1}"
            again = [
                e for e in self.events(ev.QuestionAnswered, event) if (e.question, e.answer) == (question, "again")
            ]
            stepped = [e for e in self.events(ev.RampStepped, event) if e.attempt == event.attempt]
            back = [e for e in self.events(ev.ModeChanged, event) if e.now == Mode.AUTOMATIC]
            back = [e for e in back if e.attempt == event.attempt]
            self.hold(
                len(again) + len(stepped) + len(back) == 1, f"a write is repeated without a signed decision: {event}"
            )

    def judge_timer(self, event: ev.TimerDue) -> None:
        """By the true time, which the line itself cannot see."""
        run = self.line.batches[event.batch].steps[event.step]
        length_s = run.duration_s if event.timer == "duration" else run.timeout_s
        passed_s = self.true_s - self.activated_s(event)
        self.hold(passed_s >= length_s - SLACK_S, f"{event} after {passed_s} s of {length_s} s")

    def judge_completion(self, event: ev.StepCompleted) -> None:
        step, hand = self.steps_of(event.batch)[event.step], self.line.batches[event.batch].steps[event.step].hand
        verified = [e.part for e in self.events(ev.HandVerified, event)]
        match step:
            case _ if hand is not None and hand.mode is Mode.MANUAL:
                self.hold(DONE in verified, f"nobody verified that it was done: {event}")
            case Set() | Ramp() if hand is not None:
                self.hold(bool(verified), f"nobody verified that it was done: {event}")
            case Weigh() if hand is not None:
                both = {f"{step.name}.tare", f"{step.name}.gross"} <= set(verified)
                self.hold(both, f"nobody verified what it weighs: {event}")
            case Wait() | Hold() if step.duration:
                done = any(e.timer == "duration" for e in self.events(ev.TimerDue, event))
                self.hold(done, f"done before its time: {event}")
            case Set() | Ramp():
                happened = [e for e in self.events(ev.QuestionAnswered, event) if e.answer == "happened"]
                known = self.events(ev.CommandConfirmed, event) or happened
                self.hold(bool(known), f"a write that nobody confirmed: {event}")
            case Sign():
                people = {e.person for e in self.events(ev.SignatureMade, event)}
                self.hold(len(people) == len(step.roles), f"not signed by all: {event}")
            case Wait() if step.until:
                self.hold(bool(self.events(ev.ConditionMet, event)), f"done before its condition: {event}")
            case Weigh() | Sample() | Label() | Transfer() | Custody() | Clearance():
                batch = self.line.batches[event.batch]
                left = open_ask(self.line.recipe(batch), batch, step, batch.steps[event.step])
                self.hold(left is None, f"done although it asks for {left}: {event}")
                run = batch.steps[event.step]
                typed = isinstance(step, Weigh) and (not step.balance or BY_HAND in run.given)
                roles = 2 if isinstance(step, Custody | Clearance) else int(typed)
                people = {e.person for e in self.events(ev.SignatureMade, event)}
                self.hold(len(people) >= roles, f"not signed by all: {event}")
            case Instruct() | Record() | Scan() | Monitor() | Wait():
                pass
            case Calculate():
                known = self.events(ev.ValueRecorded, event) or step.on_bad_quality == "continue"
                self.hold(bool(known), f"done without its value: {event}")
            case Select():
                taken = self.line.batches[event.batch].steps[event.step].branch
                way = step.else_ if taken == -1 else step.branches[taken].steps
                self.hold(not way or self.is_done(event.batch, way, event.iteration), f"not all done: {event}")
            case Loop():
                run = self.line.batches[event.batch].steps[event.step]
                done = not run.passes or self.is_done(event.batch, step.steps, run.body)
                self.hold(done and bool(self.events(ev.LoopEnded, event)), f"not all done: {event}")
            case _:
                done = all(self.is_done(event.batch, branch, event.iteration) for branch in step.branches)
                self.hold(done, f"not all done: {event}")

    def judge_head(self) -> None:
        """What must be true between any two decisions."""
        wanted = effects(self.line)
        for batch in self.line.batches.values():
            asks = batch.questions and batch.state not in {State.HELD, State.HOLDING}
            self.hold(not asks, f"{batch.batch} is {batch.state} with an open question")
        for batch in self.line.live():
            flying = [intent for intent in batch.intents.values() if not intent.in_doubt]
            resting = batch.state not in {State.HOLDING, State.STOPPING, State.ABORTING}
            self.hold(resting or bool(flying), f"{batch.batch} stays {batch.state} and nothing is under way")
            self.hold(batch.state is not State.RESTARTING, f"{batch.batch} stays restarting")
            by_hand = {run.step for run in batch.active() if run.hand is not None}
            both = [
                one for one in (*wanted.writes, *wanted.watches) if one.batch == batch.batch and one.step in by_hand
            ]
            self.hold(not both, f"the box does what people do by hand: {both}")
            left = [step for step, one in batch.agreed.items() if one.tag and step not in batch.skips]
            self.hold(batch.state is not State.RUNNING or not left, f"{left} was to be done again, and is forgotten")
            something = batch.state is not State.RUNNING or bool(batch.active())
            self.hold(something, f"{batch.batch} is running and no step is under way")
        doubted = {
            (b.batch, i.step, i.iteration, i.attempt, i.tag)
            for b in self.line.live()
            for i in b.intents.values()
            if i.in_doubt
        }
        wanted_now = {(w.batch, w.step, w.iteration, w.attempt, w.tag) for w in wanted.writes}
        self.hold(not doubted & wanted_now, "a write in doubt")

    def judge_device(self, key: Key) -> None:
        """By the device's own count."""
        self.hold(self.executed[key] == 1, f"the device was written to twice for {key}")
        batch, step, iteration, _, tag = key
        count = sum(n for (b, s, i, _, t), n in self.executed.items() if (b, s, i, t) == (batch, step, iteration, tag))
        again = [e for e in self.events(ev.QuestionAnswered, key) if e.answer == "again"] if step != SAFE_STEP else []
        stepped = self.events(ev.RampStepped, key)
        back = [e for e in self.events(ev.ModeChanged, key) if e.now == Mode.AUTOMATIC]
        self.hold(
            count <= 1 + len(again) + len(stepped) + len(back), f"the device was written to {count} times for {key}"
        )

    def nothing_of_an_earlier_run_is_wanted(self) -> None:
        begun = max(n for n, made in enumerate(self.made, 1) if isinstance(made.body.event, ev.RuntimeStarted))
        old = [write for write in effects(self.line).writes if write.seq < begun]
        self.hold(not old, f"a write of an earlier run is wanted: {old}")

    def crash_at_every_row(self) -> None:
        """Wherever the rows end, a runtime starts, asks about every open write and wants none of them."""
        folded = Line(self.line.book)
        for made in self.made:
            folded = apply(folded, decode(made.data))
            self.hold(folded == made.line, f"the rows up to {folded.seq} do not give the head")
            line = folded
            for row in decide(folded, cm.StartRuntime(version="t"), Now(self.stamp(), lambda _: None)):
                line = apply(line, row)
            old = [write for write in effects(line).writes if write.seq <= folded.seq]
            self.hold(not old, f"after a crash at row {folded.seq} it wants {old}")
            opened = [i for b in folded.live() for i in b.intents.values()]
            for batch in folded.live():
                after = line.batches[batch.batch]
                kept = {*after.agreed, *(one.step for one in (*after.questions.values(), *after.intents.values()))}
                lost = [one for step, one in batch.agreed.items() if one.tag and step not in kept]
                self.hold(not lost, f"after a crash at row {folded.seq} an answer is forgotten: {lost}")
            left = [i for b in line.live() for i in b.intents.values() if i.seq <= folded.seq]
            self.hold(not left, f"after a crash at row {folded.seq} nobody was asked about {left} of {opened}")

    # Looking ---------------------------------------------------------------------------------------------------------

    def stamp(self) -> Stamp:
        return Stamp("2026-01-01T00:00:00.000000Z", ClockQuality.FREE, self.true_s - self.boot_s, f"boot-{self.boot}")

    def events(self, kind: type[Any], like: ev.Event | Key) -> list[Any]:
        """Rows of a kind about the same batch, step and iteration."""
        key = like[:3] if isinstance(like, tuple) else (like.batch, like.step, like.iteration)  # type: ignore[attr-defined]
        found = [made.body.event for made in self.made if isinstance(made.body.event, kind)]
        return [event for event in found if (event.batch, event.step, event.iteration) == key]

    def activated_s(self, like: Any) -> float:
        return next(
            made.true_s
            for made in reversed(self.made)
            if isinstance(made.body.event, ev.StepActivated | ev.RampStepped)
            and (made.body.event.batch, made.body.event.step, made.body.event.iteration)
            == (like.batch, like.step, like.iteration)
        )

    def any_batch(self) -> Batch | None:
        return self.chance.choice(list(self.line.batches.values())) if self.line.batches else None

    def any_active(self) -> tuple[Batch, StepRun, Step] | None:
        found = [
            (batch, run, self.steps_of(batch.batch)[run.step]) for batch in self.line.live() for run in batch.active()
        ]
        return self.chance.choice(found) if found else None

    def person(self) -> str:
        return self.chance.choice(["ana", "ana", "ben", "chi", "dot"])

    def signed(self, role: Role) -> cm.Signed:
        person = self.chance.choice([name for name, roles in PEOPLE.items() if role in roles] * 3 + ["dot"])
        return cm.Signed(
            person=person,
            roles=PEOPLE[person],
            role=role,
            methods=("name", "PIN"),
            meaning="m",
            session=person,
            subject_seq=self.line.seq,
            subject_hash="00" * 32,
            attestation="00" * 64,
        )
