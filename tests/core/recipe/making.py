"""Recipes made at random on the simulated cell's plant: most of them right, some with one thing wrong.

`recipes()` draws them; what is drawn is what a person could write, with every phase in it sooner or later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from hypothesis import strategies as st

Step = dict[str, Any]
DEPTH_MAX: Final = 2
LIMITS: Final = (
    {"low": 36.0, "high": 38.0, "unit": "degC"},
    {"low": 20.0, "unit": "degC"},
    {"high": 309.0, "unit": "K"},
)
CATEGORIES: Final = ("minor", "major", "critical")
SPOILED: Final[tuple[tuple[str, Any], ...]] = (
    ("id", "010"),
    ("next", "nowhere"),
    ("next", "010"),
    ("tag", "reactor.nothing"),
    ("tag", "nobody.temperature"),
    ("unit", "furlong"),
    ("value", 1_000.0),
    ("value", "$unknown"),
    ("limit", {"low": 40.0, "high": 30.0, "unit": "degC"}),
    ("limit", {"unit": "degC"}),
    ("limit", {"low": "$flow"}),
    ("limit", {"low": "$said", "high": "$unknown"}),
    ("value", "$said"),
    ("rate", "$said"),
    ("target", "$flow"),
    ("tests", [{"name": "t", "unit": "%", "limit": {"low": "$flow"}}]),
    ("duration", "soon"),
    ("timeout", ""),
    ("roles", []),
    ("branches", []),
    ("steps", []),
    ("until", "no_such_step"),
    ("until", "1 +"),
    ("formula", "unknown * 2"),
    ("formula", "1 == 2"),
    ("times", 0),
    ("phase", "dance"),
    ("service", "dry"),
    ("procedure", "polish"),
    ("parameters", {"volume": {"value": 5, "unit": "m3"}}),
    ("reports", [{"report": "nothing", "name": "none"}]),
    ("reports", [{"report": "density", "name": "d", "unit": "1e6/mL", "limit": {"low": "$said", "high": "$flow"}}]),
    ("title", None),
    ("choices", ["a", "a"]),
    ("accept", ["never offered"]),
    ("on_bad_quality", "perhaps"),
)
"""What a step may have instead of what is right there."""


OPERATIONS: Final = {
    ("soak", "1"): b"""\
library_operation: soak
version: "1"
title: Soak
units: {vessel: {class: bioreactor}}
parameters: {longest: {type: duration, value: 2 h}}
steps:
  - {id: "010", phase: instruct, title: Fill, text: Fill it.}
  - {id: "020", phase: wait, title: Warm, tag: vessel.temperature, limit: {low: 20.0, unit: degC}, timeout: $longest}
"""
}
"""What a made recipe may call."""


class _Maker:
    """Draws steps one after another; remembers which values they record, so that formulas can name them."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self.draw = draw
        self.count = 0
        self.numbers: list[str] = []
        self.open: list[str] = []
        """Results that are open when the step is reached."""

    def one_of(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def sequence(self, length_max: int, depth: int) -> list[Step]:
        made = [self.step(depth) for _ in range(self.draw(st.integers(1, length_max)))]
        if len(made) > 1 and self.draw(st.integers(0, 9)) == 0:
            made[0]["next"] = made[1]["id"]
        return made

    def step(self, depth: int) -> Step:
        self.count += 1
        base: Step = {"id": f"{self.count * 10:03d}", "title": f"Step {self.count}"}
        kinds = [*self.simple(), *(self.deep() if depth < DEPTH_MAX else ())]
        # by its number: Hypothesis tells strategies apart by the hash of what they choose from; that of a function is
        # where it lies in memory, so that one seed would make other recipes in each process
        made: Step = kinds[self.draw(st.integers(0, len(kinds) - 1))](base, depth)
        if depth == 0 and made.get("pending"):
            self.open.append(made["name"])
        return made

    def simple(self) -> Iterator[Callable[[Step, int], Step]]:
        yield lambda base, _: {**base, "phase": "instruct", "text": "Do it."}
        yield self.record
        yield self.record
        yield self.choice
        yield lambda base, _: {
            **base, "phase": "scan", "text": "Scan.", **self.one_of(
                {"name": f"din{self.count}", "expect": "patient"}, {"name": f"lot{self.count}", "prefix": "L-"},
                {"name": f"lot{self.count}", "use_within": {
                    "time": "1000 d", "warn_before": self.one_of("", "1 h"), "category": self.one_of(*CATEGORIES),
                    "on_expiry": self.one_of("hold", "exception")}})
        }  # fmt: skip
        yield lambda base, _: {
            **base, "phase": "sign", "text": "Sign.", "meaning": "done",
            "roles": self.one_of(["operator"], ["operator", "verifier"], ["quality", "operator", "operator"]),
        }  # fmt: skip
        yield self.warm
        yield lambda base, _: {
            **base, "phase": "wait", "duration": self.one_of("1 s", "10 min", "3 d"),
            "on_restart": self.one_of("resume", "hold", "ask"),
        }  # fmt: skip
        yield lambda base, _: {
            **base, "phase": "hold", **self.watched(), "duration": self.one_of("30 s", "2 h", "5 d")
        }  # fmt: skip
        yield self.wait
        yield lambda base, _: {
            **base, "phase": "ramp", "tag": "reactor.temperature_setpoint", "value": self.one_of(30.0, 37.0),
            "unit": "degC", **self.one_of(
                {"rate": 1.0, "per": "min"}, {"rate": 60.0, "per": "h"}, {"rate": 1.0, "per": "h", "every": "2 h"})
        }  # fmt: skip
        yield self.weigh
        yield self.people
        yield self.service
        yield lambda base, _: {
            **base, "phase": "method", "tag": "reactor.bolus", "arguments": {"volume": self.one_of(0.5, 5)},
            "results": [{"report": "total", "name": f"m{self.count}", "unit": "mL"}],
        }  # fmt: skip
        yield self.later
        yield self.later
        yield lambda base, _: {
            **base, "phase": "call", "operation": "soak", "version": "1", "units": {"vessel": "reactor"},
            "parameters": self.one_of({}, {"longest": "3 h"}),
        }  # fmt: skip
        if self.numbers:
            yield self.calculate
        if self.open:
            yield from (self.dispose,) * 4

    def deep(self) -> Iterator[Callable[[Step, int], Step]]:
        yield self.parallel
        yield self.loop
        if self.numbers:
            yield self.select
            yield self.select

    def watched(self) -> Step:
        return {
            "tag": "reactor.temperature", "limit": {**self.one_of(*LIMITS), "category": self.one_of(*CATEGORIES)},
            "on_bad_quality": self.one_of("hold", "continue"),
        }  # fmt: skip

    def record(self, base: Step, _: int) -> Step:
        name = f"n{self.count}"
        limit = self.one_of({}, {"limit": {"low": 10.0, "high": 90.0, "category": self.one_of(*CATEGORIES)}})
        self.numbers.append(name)
        return {**base, "phase": "record", "text": "Count.", "name": name, "unit": "%", **limit}

    def weigh(self, base: Step, _: int) -> Step:
        tolerance = self.one_of(None, {"below": 1, "above": 2}, {"below": 0.5, "above": 0.5, "unit": "g"})
        balance = self.one_of({}, {"balance": "balance.weight", "steady": 0.5})
        made = {
            **base,
            "phase": "weigh",
            "text": "Salt.",
            "name": f"w{self.count}",
            "target": 50,
            "unit": "g",
            **balance,
        }
        return {**made, "tolerance": tolerance} if tolerance else made

    def people(self, base: Step, _: int) -> Step:
        """What people do with material, and say to each other."""
        name = f"p{self.count}"
        more: Step = self.one_of(
            {"phase": "sample", "name": name, "quantity": 2, "unit": "mL", "container": "a tube", "prefix": "S-",
             "tests": [{"name": f"{name}a", "unit": "%", "limit": {"low": 80}},
                       {"name": f"{name}b", "type": "negative_to_date", "later": True}]},
            {"phase": "label", "name": name, "content": {"Batch": "batch"}, "copies": 3,
             "reconcile": self.one_of(True, False)},
            {"phase": "transfer", "name": name, "from": {"prefix": "BAG-"}, "to": {"unit": "reactor"}, "unit": "mL",
             "limit": {"low": 10, "high": 20}},
            {"phase": "custody", "what": "the bag"},
            {"phase": "clearance", "checks": ["nothing is left", "all is clean"]},
            {"phase": "record", "name": name, "type": "negative_to_date"},
        )  # fmt: skip
        return {**base, "text": "Do it.", "warn_after": self.one_of("", "30 min"), **more}

    def service(self, base: Step, _: int) -> Step:
        """What a module does by itself, to its own end or until it is told to complete."""
        name = f"v{self.count}"
        run: Step = self.one_of(
            {"service": "wash", "procedure": "wash", "reports": [{"report": "recovered", "name": name, "unit": "%"}],
             "parameters": {"volume": {"value": 0.5, "unit": "L"}, "cycles": self.one_of(1, 6)}},
            {"service": "wash", "procedure": "rinse", "parameters": {"volume": {"value": 100, "unit": "mL"}}},
            {"service": "culture", "parameters": {"temperature": self.one_of(30, 37)},
             "until": "processor.culture_density >= 2",
             "reports": [{"report": "density", "name": name, "unit": "1e6/mL"}]},
        )  # fmt: skip
        return {
            **base, "phase": "service", "unit": "processor", "timeout": "4 h", "on_bad_quality": "hold", **run,
        }  # fmt: skip

    def later(self, base: Step, _: int) -> Step:
        return {
            **base, "phase": "record", "text": "T", "name": f"o{self.count}", "type": "at_most", "unit": "EU/mL",
            "limit": {"high": 5}, "pending": True,
        }  # fmt: skip

    def dispose(self, base: Step, _: int) -> Step:
        return {**base, "phase": "dispose", "text": "Assess it.", "of": self.one_of(*self.open)}

    def choice(self, base: Step, _: int) -> Step:
        accept = self.one_of([], ["a"], ["a", "b"])
        return {
            **base, "phase": "record", "text": "Look.", "name": f"c{self.count}", "type": "choice",
            "choices": ["a", "b"], "accept": accept,
        }  # fmt: skip

    def warm(self, base: Step, _: int) -> Step:
        tag, unit, value = self.one_of(
            ("reactor.temperature_setpoint", "degC", 37.0), ("reactor.temperature_setpoint", "K", 310.15),
            ("reactor.co2_setpoint", "%", 5.0), ("pump.speed_setpoint", "mL/min", "$flow"),
        )  # fmt: skip
        return {**base, "phase": "set", "tag": tag, "value": value, "unit": unit}

    def wait(self, base: Step, _: int) -> Step:
        """For what a set-point brings, or for what is so already."""
        way: Step = self.one_of(
            {"tag": "reactor.temperature", "limit": {"low": 20.0, "unit": "degC"}},
            {"tag": "reactor.co2", "limit": {"low": 4.0, "high": 6.0, "unit": "%"}},
            {"until": "reactor.temperature > 20.0"},
        )
        on_bad = self.one_of("hold", "continue")
        return {**base, "phase": "wait", **way, "timeout": self.one_of("30 min", "4 h"), "on_bad_quality": on_bad}

    def calculate(self, base: Step, _: int) -> Step:
        first, second = self.one_of(*self.numbers), self.one_of(*self.numbers)
        formula = self.one_of(f"{first} + {second}", f"{first} * 2", f"{first} / ({second} + 1000)")
        name = f"n{self.count}"
        self.numbers.append(name)
        return {**base, "phase": "calculate", "formula": formula, "name": name, "unit": "%"}

    def condition(self) -> str:
        name = self.one_of(*self.numbers)
        return str(
            self.one_of(
                f"{name} > 50", f"{name} <= 12.5", f"{name} > 20 && reactor.temperature > 10", f"!({name} == 3)"
            )
        )

    def select(self, base: Step, depth: int) -> Step:
        known = [*self.numbers]
        branches = []
        for _ in range(self.draw(st.integers(1, 2))):
            branches.append({"when": self.condition(), "steps": self.sequence(2, depth + 1)})
            self.numbers = [*known]  # another branch does not record them
        other = self.one_of([], None) if self.draw(st.booleans()) else self.sequence(2, depth + 1)
        self.numbers = known
        return {**base, "phase": "select", "branches": branches, "else": [] if other is None else other}

    def loop(self, base: Step, depth: int) -> Step:
        steps = self.sequence(2, depth + 1)
        ends: list[Step] = [{}, {"while": "iteration <= 2"}, {"until": "iteration >= 2"}]
        ends += [{"until": self.condition()}] if self.numbers else []
        return {**base, "phase": "loop", "times": self.draw(st.integers(1, 3)), **self.one_of(*ends), "steps": steps}

    def parallel(self, base: Step, depth: int) -> Step:
        branches = [self.sequence(2, depth + 1) for _ in range(2)]
        if self.draw(st.booleans()):
            self.count += 1
            watch = {
                "id": f"{self.count * 10:03d}", "title": "Watch", "phase": "monitor", "until": branches[0][-1]["id"]
            }  # fmt: skip
            branches.append([{**watch, **self.watched()}])
        return {**base, "phase": "parallel", "branches": branches}


@st.composite
def recipes(draw: Callable[[st.SearchStrategy[Any]], Any], *, spoiled: bool = False) -> dict[str, Any]:
    """A recipe as a file says it; with `spoiled`, some step has something that may be wrong there."""
    maker = _Maker(draw)
    steps = maker.sequence(5, 0)
    if spoiled:
        every = list(_every(steps))
        step = draw(st.sampled_from(every))
        known = {*step, "id", "next", "title"}
        key, value = draw(st.sampled_from([one for one in SPOILED if one[0] in known]))
        step[key] = value
    return {
        "recipe": "MADE", "version": "1", "title": "Made at random",
        "units": {"reactor": {"class": "bioreactor"}, "pump": {"class": "pump"}, "balance": {"class": "balance"},
                  "processor": {"class": "cell_processor"}},
        "parameters": {"flow": {"value": 12.0, "unit": "mL/min", "low": 1.0, "high": 20.0},
                       "said": {"type": "text", "value": "said"}},
        "readings": {"reactor.temperature": "degC", "processor.culture_density": "1e6/mL"},
        "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": steps}]}],
    }  # fmt: skip


def _every(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for branch in step.get("branches", ()):
            yield from _every(branch["steps"] if isinstance(branch, dict) else branch)
        for key in ("else", "steps"):
            yield from _every(step.get(key) or [])
