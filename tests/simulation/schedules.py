"""Random schedules of 8 batches on 5 units: they start, wait, take their turn, end; the power goes between requests.

What must hold is judged from the rows, with books of its own: no unit in two batches, nobody overtaken where that takes
anything from them, nothing held while waiting, nothing begun by itself, and all come to an end when people go on."""

from __future__ import annotations

import random
from collections.abc import Set as AbstractSet
from typing import Any, Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core import queueing
from edge.core.errors import LinesideError
from edge.core.line import OVER, Book, Line
from edge.core.plant import Plant
from edge.core.recipe.model import Recipe
from edge.core.terms import Act, Role, State
from tests.core.parts import VirtualLine, recipe

BATCHES: Final = tuple(f"B{number}" for number in range(1, 9))
ACTS_MAX: Final = 40
PLANT: Final = Plant.model_validate(
    {
        "plant": "QUEUE",
        "connections": {},
        "units": {
            name: {"class": of_class, "tags": {}}
            for name, of_class in (
                ("R-1", "reactor"), ("R-2", "reactor"), ("P-1", "pump"), ("P-2", "pump"), ("C-1", "column"),
            )
        },
    }
)  # fmt: skip


class Broken(AssertionError):
    """What must hold did not."""


class Schedules(VirtualLine):
    """One random schedule. `play` raises Broken with the seed and the rows."""

    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, random.Random(seed)
        self.recipes = {f"seal-{number}": self.a_recipe(number) for number in range(4)}
        self.order: list[str] = []
        """Who waits, in the order of arrival, and ..."""
        self.made_of: dict[str, Recipe] = {}
        self.in_use: dict[str, str] = {}
        """... which unit is in which batch: from the rows alone."""
        self.waited = self.began_after = self.passed = 0
        super().__init__()

    def __post_init__(self) -> None:
        self.line = Line(Book(PLANT, self.recipes, frozenset(self.recipes)))
        self.do(cm.StartRuntime(version="t"))
        for sealed in self.recipes:
            self.do(cm.LoadRecipe(recipe=sealed, version="1", title="A recipe", seal=sealed))
        self.log_in()

    def log_in(self) -> None:
        self.do(cm.OpenSession(session="S", person="ana", roles=(Role.OPERATOR, Role.SUPERVISOR), method="PIN"))

    def a_recipe(self, number: int) -> Recipe:
        """One to three roles, one of them bound to a unit now and then."""
        units: dict[str, Any] = {}
        for place, of_class in enumerate(
            self.chance.choices(["reactor", "pump", "column"], k=self.chance.randint(1, 3))
        ):
            bound = [name for name, unit in PLANT.units.items() if unit.cls == of_class]
            named = {need.get("unit") for need in units.values()}
            free = [name for name in bound if name not in named]
            units[f"role{place}"] = {"class": of_class}
            if free and self.chance.random() < 0.2:
                units[f"role{place}"]["unit"] = self.chance.choice(free)
        step = {"id": "010", "phase": "instruct", "title": "Do", "text": "Do it."}
        return recipe([step], recipe=f"Q{number}", units=units)

    def play(self) -> Schedules:
        acts = [(8, self.somebody_asks), (8, self.somebody_starts), (6, self.one_ends), (1, self.one_is_stopped)]
        weights, happenings = zip(*[*acts, (1, self.the_power_goes)], strict=True)
        for _ in range(ACTS_MAX):
            self.chance.choices(happenings, weights)[0]()
            self.judge_head()
        self.come_to_an_end()
        return self

    # What happens --------------------------------------------------------------------------------------------

    def asks(self, command: cm.Command, may_begin: str = "") -> str:
        """The code of its refusal, or nothing. Only the batch that a person starts may begin."""
        try:
            made = self.do(command)
        except LinesideError as refusal:
            return refusal.code
        for event in made:
            self.judge_row(event, may_begin)
        return ""

    def somebody_asks(self) -> None:
        """For a new batch, at once or to wait."""
        new = [name for name in BATCHES if name not in self.line.used]
        if not new:
            return
        sealed, queue = self.chance.choice([*self.recipes]), self.chance.random() < 0.6
        self.made_of[new[0]] = self.recipes[sealed]
        free = not queueing.turn(self.line, self.recipes[sealed], self.stamp()).waits_for
        command = cm.StartBatch(
            session="S", batch=new[0], order="O", seal=sealed, patient="", speed=1.0, queue=queue
        )  # fmt: skip
        code = self.asks(command, "" if queue else new[0])
        if queue:
            never = self.needs_more_than_there_is(self.recipes[sealed])
            self.hold(code == ("unit.occupied" if never else ""), f"{new[0]} was let wait: {code!r}, never {never}")
        else:
            self.hold((code == "") is free, f"{new[0]} was offered {free}, and got {code!r}")

    def somebody_starts(self) -> None:
        """Whichever that waits: it begins when its turn has come, and else is refused."""
        if self.order:
            name = self.chance.choice(self.order)
            offered = not queueing.turn(self.line, self.made_of[name], self.stamp(), name).waits_for
            code = self.asks(cm.ActOnBatch(session="S", batch=name, act=Act.START, reason=""), name)
            self.hold(code == ("" if offered else "unit.occupied"), f"{name} was offered {offered}, and got {code!r}")

    def one_ends(self) -> None:
        running = [batch.batch for batch in self.line.live() if batch.state is State.RUNNING]
        if running:
            self.asks(cm.ConfirmStep(session="S", batch=self.chance.choice(running), step="010"))

    def one_is_stopped(self) -> None:
        live = self.line.live()
        if live:
            act = self.chance.choice([Act.STOP, Act.ABORT])
            self.asks(cm.ActOnBatch(session="S", batch=self.chance.choice(live).batch, act=act, reason="not wanted"))

    def the_power_goes(self) -> None:
        """The head is made anew from the rows; nothing begins by that."""
        self.hold(self.refold() == self.line, "the rows make another head")
        self.asks(cm.StartRuntime(version="t"))
        self.log_in()

    def come_to_an_end(self) -> None:
        """People go on: whoever is first in line always comes to its turn, so after 8 rounds all of them did."""
        for _ in range(len(BATCHES) + 1):
            while any(batch.state is State.RUNNING for batch in self.line.live()):
                self.one_ends()
            if not self.order:
                break
            first, before = self.order[0], len(self.order)
            waits = queueing.turn(self.line, self.made_of[first], self.stamp(), first)
            self.hold(not waits.waits_for and waits.place == 1, f"all units are free, and {first} waits: {waits}")
            for name in tuple(self.order):
                self.asks(cm.ActOnBatch(session="S", batch=name, act=Act.START, reason=""), name)
            self.hold(len(self.order) < before, "nobody got a turn")
        left = [batch.batch for batch in self.line.live()]
        self.hold(not left and not self.in_use, f"still there: {left}, in use {self.in_use}")

    # What must hold --------------------------------------------------------------------------------------------

    def judge_row(self, event: ev.Event, may_begin: str) -> None:
        match event:
            case ev.BatchQueued():
                self.order.append(event.batch)
                self.waited += 1
            case ev.BatchStarted():
                self.hold(event.batch == may_begin, f"{event.batch} began by itself")
                mine = set(event.units.values())
                self.hold(len(mine) == len(self.made_of[event.batch].units), f"a unit for two roles: {event.units}")
                twice = mine & self.in_use.keys()
                self.hold(not twice, f"two batches have {twice}")
                earlier = self.order[: self.order.index(event.batch)] if event.batch in self.order else self.order
                free = PLANT.units.keys() - self.in_use.keys()
                for other in earlier:
                    passed = self.fillable(other, free) - self.fillable(other, free - mine)
                    self.hold(not passed, f"{event.batch} took {mine} before {other}, which waits longer")
                    self.passed += bool(mine & self.could_use(other))
                if event.batch in self.order:
                    self.order.remove(event.batch)
                    self.began_after += 1
                self.in_use |= dict.fromkeys(mine, event.batch)
            case ev.BatchStateChanged() if State(event.now) in OVER:
                self.in_use = {unit: batch for unit, batch in self.in_use.items() if batch != event.batch}
                self.order = [name for name in self.order if name != event.batch]
            case _:
                pass

    def judge_head(self) -> None:
        idle = [batch for batch in self.line.live() if batch.state is State.IDLE]
        self.hold({batch.batch for batch in idle} == set(self.order), "others wait than the rows say")
        self.hold(not any(batch.units for batch in idle), "a unit is held while waiting")

    def could_use(self, name: str) -> set[str]:
        needs = self.made_of[name].units.values()
        bound = {need.unit for need in needs if need.unit}
        of_class = {unit for need in needs if not need.unit for unit, u in PLANT.units.items() if u.cls == need.cls}
        return bound | (of_class - bound)

    def fillable(self, name: str, free: AbstractSet[str]) -> int:
        """How many of its roles could have one of these units, each another."""
        needs = self.made_of[name].units.values()
        bound = {need.unit for need in needs if need.unit}
        filled = len(bound & free)
        for of_class in {need.cls for need in needs}:
            loose = sum(need.cls == of_class for need in needs if not need.unit)
            filled += min(loose, sum(PLANT.units[unit].cls == of_class for unit in free - bound))
        return filled

    def needs_more_than_there_is(self, wanted: Recipe) -> bool:
        for of_class in {need.cls for need in wanted.units.values()}:
            units = sum(unit.cls == of_class for unit in PLANT.units.values())
            if sum(need.cls == of_class for need in wanted.units.values()) > units:
                return True
        return False

    def hold(self, holds: bool, what: str) -> None:
        if not holds:
            raise Broken(f"seed {self.seed}: {what}")


WAITING: Final = queueing.waiting
PLANTED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "allocation ignores another batch": (
        {"edge.core.queueing.taken": lambda *_: {}},
        "two batches have",
    ),
    "the newest first": (
        {"edge.core.queueing.waiting": lambda line: [*reversed(WAITING(line))]},
        "which waits longer|waits: Waits",
    ),
    "a new batch passes those that wait": (
        {
            "edge.core.queueing.taken": lambda line, *_: {
                unit: "used" for other in line.live() for unit in other.units.values()
            }
        },
        "which waits longer",
    ),
}
