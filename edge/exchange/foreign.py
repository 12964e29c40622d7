"""Another system's BatchML as a draft: its levels and order, its parameters, and what a person must still decide.

Which phase of this site does what another site's phase did is in no file: each becomes an instruction that says what
was there. Whatever was not taken is reported, element by element.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from edge.core.document import Path
from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.recipe.read import STEPS_MAX
from edge.core.terms import MEASURES
from edge.exchange.batchml import Found, Kind, shown
from edge.exchange.markup import Node

FILL_IN: Final = "FILL IN:"
TEXT_MAX: Final = 2_000
"""What a recipe's texts may hold."""
FOUND_MAX: Final = 1_000
"""Of a report; beyond, the rest is only counted."""
LINKS_MAX: Final = 4_000
"""Of one level: beyond, their order is not followed."""
PASSED_MAX: Final = 500
"""Links, transitions and materials between one step and the next."""
FORKS_MAX: Final = 100
"""Of one operation, and as many ways out of one."""
BRANCHES_DEEP: Final = 4
WORK_MAX: Final = 500_000
"""Elements looked at, counted as often as a step runs them."""

_HIDDEN: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
_NUMBER: Final = re.compile(r"[-+]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][-+]?[0-9]{1,2})?")
_UNITS: Final[Mapping[str, str]] = {
    "c": "degC", "°c": "degC", "celsius": "degC", "degreecelsius": "degC", "deg_c": "degC", "cel": "degC",
    "kelvin": "K", "percent": "%", "pct": "%", "second": "s", "sec": "s", "seconds": "s", "minute": "min",
    "minutes": "min", "hour": "h", "hr": "h", "hours": "h", "day": "d", "days": "d", "litre": "L", "liter": "L",
    "millilitre": "mL", "ml": "mL", "l": "L", "kilogram": "kg", "gram": "g", "milligram": "mg", "rev-per-min": "rpm",
    "l-per-hr": "L/h", "l-per-min": "L/min", "ml-per-min": "mL/min", "kilopa": "kPa", "pascal": "Pa", "unitless": "",
}  # fmt: skip
_WHY: Final[Mapping[str, str]] = {
    "Header": "Approvals, dates and product data belong to the other site's life cycle of this recipe.",
    "ApprovalHistory": "An approval of another site does not hold here.",
    "OtherInformation": "Another system's own information.",
    "Materials": "Materials are weighed, scanned or transferred by steps here: add them where they are used.",
    "ProcessInputs": "Materials are weighed, scanned or transferred by steps here: add them where they are used.",
    "ProcessOutputs": "Products are named by the steps that label or transfer them.",
    "ProcessIntermediates": "Intermediate products are named by the steps that label or transfer them.",
    "Transition": "The condition is written in another system's language.",
    "EquipmentRequirement": "Bind it by the units of the recipe.",
    "VersionDate": "A version here is dated by its approval.",
    "EquipmentElement": "Equipment belongs into the plant file.",
    "EnumerationSet": "Another system's lists of words.",
    "BatchList": "A schedule is not part of a recipe.",
    "ControlRecipe": "A control recipe belongs to one batch that was made elsewhere.",
}
_NO_PLACE: Final = "A recipe of Lineside has no place for it."


@dataclass(slots=True)
class Foreign:
    """The content of a recipe that another system wrote, with comments by path, and what was not taken."""

    content: dict[str, Any]
    comments: dict[Path, list[str]]
    found: list[Found]
    more: int
    """Findings beyond `FOUND_MAX`."""


def read_foreign(recipe: Node, kind: Kind, path: str) -> Foreign:
    """The draft of one recipe. Raises `exchange.too_many_steps`."""
    return _Reader(kind, recipe, path).read()


@dataclass(frozen=True, slots=True)
class _Logic:
    """What follows what, on one level."""

    steps: tuple[str, ...]
    after: Mapping[str, tuple[str, ...]]
    parallel: frozenset[str]
    """Steps behind which all that follow run at once."""


class _Reader:
    def __init__(self, kind: Kind, recipe: Node, path: str) -> None:
        self._kind = kind
        self._recipe = recipe
        self._path = path
        self._element, self._parameter = (
            ("RecipeElement", "Parameter") if kind == "master" else ("ProcessElement", "ProcessElementParameter")
        )
        self._taken: set[int] = {id(recipe)}
        self._ids: set[str] = set()
        self._comments: dict[Path, list[str]] = {}
        self._found: list[Found] = []
        self._open: set[int] = set()
        self._chosen: set[int] = set()
        self._more = 0
        self._steps = 0
        self._work = 0
        self._weights: dict[int, int] = {}
        self._runs: dict[int, dict[str, str]] = {}
        self._held: dict[int, dict[str, Node]] = {}
        self._above: dict[int, Node] = {}
        self._elements: dict[str, Node] = {}
        for node in (recipe, *_deep(recipe)):
            for child in node.children:
                if child.name == self._element:
                    self._above[id(child)] = node
                    self._elements.setdefault(child.said("ID"), child)

    def read(self) -> Foreign:
        recipe = self._recipe
        name = self._said(recipe, "ID")
        titles = self._texts(recipe, "Description")
        version = self._said(recipe, "Version")
        content: dict[str, Any] = {
            "recipe": _name(name, "IMPORTED"),
            "version": version if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}", version) else "0.1",
            "title": _cut(titles[0] if titles else name or "Imported recipe"),
        }
        if content["recipe"] != name:
            self._report("ID", name, f"Not a name here; it became {content['recipe']!r}.")
        if content["version"] != version:
            self._report("Version", version, "A version is numbers and dots; it became '0.1'.")
            self._comments["version",] = [f"{FILL_IN} the version; the file says {version or 'nothing'}."]
        if titles[1:]:
            content["why"] = _cut("\n".join(titles[1:]))
        if units := self._units():
            content["units"] = units
        if parameters := self._formula():
            content["parameters"] = parameters
        top = recipe
        if self._kind == "general" and (process := recipe.first("ProcessProcedure")):
            top = process
            self._take(process, "ID", "ProcessElementType", "Description")
        self._take(recipe, "GRecipeType", "LifeCycleState")
        content["procedure"] = self._procedures(top)
        self._untaken(recipe, self._path)
        return Foreign(content, self._comments, self._found, self._more)

    # Around the procedure

    def _units(self) -> dict[str, Any]:
        units: dict[str, Any] = {}
        for need in self._recipe.all("EquipmentRequirement"):
            self._take(need, "ID", "Constraint", "Description")
            wanted = need.said("ID")
            role = _name(wanted, "unit")
            conditions = [one.said("Condition") for one in need.all("Constraint")]
            for constraint in need.all("Constraint"):
                self._take(constraint, "ID", "Condition")
            guess = next((words[-1] for text in conditions if (words := re.findall(r"[A-Za-z][\w-]*", text))), wanted)
            units[role] = {"class": _name(guess, "unit")}
            said = "; ".join(filter(None, [wanted, need.said("Description"), *conditions]))
            self._comments["units", role] = [f"{FILL_IN} the class of this unit in your plant; the file says: {said}"]
        return units

    def _formula(self) -> dict[str, Any]:
        parameters: dict[str, Any] = {}
        formula = self._recipe.first("Formula")
        if formula is None:
            return parameters
        self._taken.add(id(formula))
        for one in formula.all(self._parameter):
            name = re.sub(r"\W+", "_", one.said("ID"), flags=re.ASCII).strip("_")[:64]
            name = name if name[:1].isalpha() else f"p_{name}"[:64]
            number, unit = _measure(one)
            if number is None or name in parameters:
                continue  # left untaken, and reported as that
            self._take(one, "ID", "Description", "ParameterType", "ProcessElementParameterType", "Value")
            self._take_all(one.first("Value"))
            parameters[name] = {"value": number} | ({"unit": unit} if unit else {})
            if why := _clean(one.said("Description")):
                parameters[name]["why"] = _cut(why)
            if unit not in MEASURES:
                self._comments["parameters", name] = [f"{FILL_IN} the unit: {unit!r} is not known here."]
        return parameters

    # The procedure

    def _procedures(self, top: Node) -> list[dict[str, Any]]:
        """Unit procedures out of whatever levels the file has."""
        found: list[dict[str, Any]] = []
        loose: list[dict[str, Any]] = []  # operations that stand in no unit procedure
        title = _cut(self._titles(top)[0])

        def close() -> None:
            if loose:
                found.append({"unit_procedure": title, "operations": list(loose)})
                loose.clear()

        for element in self._in_order(top):
            level, inner = self._level(element), any(True for _ in element.all(self._element))
            if level == "procedure":
                close()
                self._visit(element)
                found += self._procedures(element)
                self._leave(element)
            elif level == "unit procedure" and inner:
                close()
                self._visit(element)
                place: Path = ("procedure", len(found))
                found.append({"unit_procedure": _cut(self._titles(element)[0]),
                              "operations": self._operations(element, place)})  # fmt: skip
                self._leave(element)
            else:
                at: Path = ("procedure", len(found), "operations", len(loose))
                loose.append(self._operation(element, at))
        close()
        if not found:
            self._report("", "", "The file has no procedure.")
            found = [{"unit_procedure": title, "operations": [{"operation": title, "steps": []}]}]
        return found

    def _operations(self, procedure: Node, place: Path) -> list[dict[str, Any]]:
        return [
            self._operation(element, (*place, "operations", at)) for at, element in enumerate(self._in_order(procedure))
        ]

    def _operation(self, element: Node, place: Path) -> dict[str, Any]:
        steps: list[dict[str, Any]] = []
        if any(True for _ in element.all(self._element)):
            self._visit(element)
            self._sequence(element, self._arranged(element), steps, (*place, "steps"))
            self._leave(element)
            self._extras(element, place)
        else:
            steps.append(self._step(element, (*place, "steps", 0)))
        return {"operation": _cut(self._titles(element)[0]), "steps": steps}

    def _extras(self, element: Node, place: Path) -> None:
        said = list(self._parameters(element))
        if said:
            self._comments.setdefault(place, []).append(f"{FILL_IN} where these belong: " + "; ".join(said))

    def _sequence(self, owner: Node, arranged: Sequence[Any], steps: list[dict[str, Any]], place: Path) -> None:
        for item in arranged:
            here = (*place, len(steps))
            if isinstance(item, Node):
                if any(True for _ in item.all(self._element)):  # a level between operation and phase
                    self._visit(item)
                    self._sequence(item, self._arranged(item), steps, place)
                    self._leave(item)
                else:
                    steps.append(self._step(item, here))
                continue
            self._count()
            branches: list[list[dict[str, Any]]] = []
            for at, branch in enumerate(item):
                branches.append([])
                self._sequence(owner, branch, branches[-1], (*here, "branches", at))
            steps.append(
                {"id": self._id("parallel"), "phase": "parallel", "title": "Side by side", "branches": branches}
            )

    def _step(self, element: Node, here: Path) -> dict[str, Any]:
        """A phase as an instruction that says what the file says."""
        self._visit(element)
        self._leave(element)
        titles = self._titles(element)
        block = element.said("BuildingBlockElementID")
        self._take(element, "BuildingBlockElementID")
        lines = [*titles[1:], *self._parameters(element)]
        lines += [f"Was phase {block}." for block in [block] if block]
        step = self._id(element.said("ID"))
        asked = f"{FILL_IN} the phase that does this here (set, wait, hold, record, ...)"
        self._comments[here] = [asked + (f"; it was {block!r}." if block else ".")]
        if id(element) in self._chosen:
            self._comments[here].append(
                f"{FILL_IN} the condition: at the other site this is one of several ways (select)."
            )
        why = f"Which phase and tags carry it out here is in no file: step {step} is an instruction with what it said."
        self._tell(self._place(element), titles[0], why)
        return {"id": step, "phase": "instruct", "title": _cut(titles[0]), "text": _cut("\n".join(lines) or titles[0])}

    def _parameters(self, element: Node) -> Iterator[str]:
        for one in element.all(self._parameter):
            self._take_all(one)
            yield _clean(f"{one.said('ID')}: {_values(one, 'Value')}" + _beside(one))
        for one in element.all("ResourceConstraint"):
            self._take_all(one)
            yield _clean(f"{one.said('ConstraintID')}: {_values(one, 'Range')}" + _beside(one))
        for one in element.all("EquipmentRequirement"):
            self._take_all(one)
            yield _clean(f"Equipment: {shown(one)}")

    # Order

    def _in_order(self, owner: Node) -> list[Node]:
        """The elements of a level, one after another, whatever runs beside what."""
        logic = self._logic(owner)
        if any(len(logic.after.get(step, ())) > 1 for step in logic.steps):
            self._tell(self._place(owner), "", "What runs side by side or by choice here stands one after the other.")
        return self._nodes(owner, _sorted(logic, partial(self._loop, owner)))

    def _arranged(self, owner: Node) -> list[Any]:
        """The phases of an operation: elements, and for what runs side by side a list of branches of such."""
        logic = self._logic(owner)
        order = _sorted(logic, partial(self._loop, owner))
        chosen = [step for step in order if len(logic.after.get(step, ())) > 1 and step not in logic.parallel]
        if chosen and self._kind == "master":
            self._tell(
                self._place(owner),
                ", ".join(chosen)[:200],
                "The choice behind it is not made: all ways stand in a row.",
            )
        for step in chosen[:FORKS_MAX]:
            self._chosen.update(map(id, self._nodes(owner, logic.after[step][:FORKS_MAX])))
        rank = {step: at for at, step in enumerate(order)}
        forks = 0

        def arrange(steps: list[str], depth: int) -> list[Any]:
            nonlocal forks
            within, done, out = set(steps), set[str](), list[Any]()
            for step in steps:
                if step in done:
                    continue
                out += self._nodes(owner, [step])
                done.add(step)
                forks += step in logic.parallel
                branches = _branches(step, logic, within, rank) if depth < BRANCHES_DEEP and forks < FORKS_MAX else None
                if step in logic.parallel and not branches:
                    self._tell(
                        self._place(owner), step, "The branches behind it do not come apart: they stand in a row."
                    )
                if branches:
                    out.append([arrange(branch, depth + 1) for branch in branches])
                    done.update(one for branch in branches for one in branch)
            return out

        return arrange(order, 0)

    def _loop(self, owner: Node, step: str, back: str) -> None:
        self._tell(self._place(owner), f"{step} to {back}", "The way back is not taken: what is repeated stands once.")

    def _nodes(self, owner: Node, steps: Sequence[str]) -> list[Node]:
        """The elements that these steps of the owner's logic run; begin, end and allocation do nothing here."""
        if id(owner) not in self._runs:
            self._runs[id(owner)] = {
                step.said("ID"): step.said("RecipeElementID")
                for logic in owner.all("ProcedureLogic")
                for step in logic.all("Step")
            }
            self._held[id(owner)] = {one.said("ID"): one for one in owner.all(self._element)}
        runs, held = self._runs[id(owner)], self._held[id(owner)]
        found = []
        for step in steps:
            wanted = runs.get(step, step)
            element = held.get(wanted) or self._elements.get(wanted)
            if element is None:
                self._tell(self._place(owner), step, "The step runs an element that the file does not hold.")
                continue
            self._weigh(element)
            if self._level(element) in ("begin", "end", "allocation"):
                self._take_all(element)
            else:
                found.append(element)
        return found

    def _weigh(self, element: Node) -> None:
        """A small file can run a large element very often."""
        if id(element) not in self._weights:
            inside = [
                one for child in element.children if child.name != self._element for one in (child, *_deep(child))
            ]
            self._weights[id(element)] = 1 + len(element.children) + sum(1 + len(one.text) // 100 for one in inside)
        self._work += self._weights[id(element)]
        if self._work > WORK_MAX:
            raise self._too_many()

    def _logic(self, owner: Node) -> _Logic:
        return self._procedure_logic(owner) if self._kind == "master" else self._directed(owner)

    def _procedure_logic(self, owner: Node) -> _Logic:
        edges: dict[str, list[str]] = {}
        diverging: set[str] = set()
        steps: list[str] = []
        run: set[str] = set()
        count = 0
        for logic in owner.all("ProcedureLogic"):
            self._taken.add(id(logic))
            for step in logic.all("Step"):
                self._take_all(step)
                steps.append(step.said("ID"))
                run.add(step.said("RecipeElementID"))
            for link in logic.all("Link"):
                self._take_all(link)
                count += 1
                here = f"Link {link.said('ID')} {count}"
                if link.said("LinkType") == "ParallelDivergent":
                    diverging.add(here)
                for one in link.all("FromID"):
                    edges.setdefault(_end(one, "From"), []).append(here)
                for one in link.all("ToID"):
                    edges.setdefault(here, []).append(_end(one, "To"))
                edges.setdefault(f"Link {link.said('ID')}", []).append(here)  # links may lead to links
            count += sum(1 for _ in logic.all("Transition"))
        steps += [one.said("ID") for one in owner.all(self._element) if one.said("ID") not in run]
        return self._logic_of(owner, steps, edges, diverging, count)

    def _directed(self, owner: Node) -> _Logic:
        edges: dict[str, list[str]] = {}
        diverging = set()
        for chart in owner.all("ProcedureChartElement"):
            self._take_all(chart)
            if chart.said("ProcedureChartElementType") == "Start Parallel Indicator":
                diverging.add(f"Step {chart.said('ID')}")
        count = 0
        for link in owner.all("DirectedLink"):
            self._take_all(link)
            count += 1
            edges.setdefault(f"Step {link.said('FromID')}", []).append(f"Step {link.said('ToID')}")
        return self._logic_of(owner, [one.said("ID") for one in owner.all(self._element)], edges, diverging, count)

    def _logic_of(
        self, owner: Node, listed: Sequence[str], edges: Mapping[str, Sequence[str]], diverging: set[str], count: int
    ) -> _Logic:
        steps = tuple(dict.fromkeys(listed))
        too_many = _Logic(steps, {}, frozenset())
        if count > LINKS_MAX or len(steps) > STEPS_MAX:
            self._tell(self._place(owner), f"{count} links", "Too many to be followed: the order is that of the file.")
            return too_many
        after, parallel = {}, set()
        for step in steps:
            following, split = _following(f"Step {step}", edges, set(steps), diverging)
            after[step] = following
            if split and len(following) > 1:
                parallel.add(step)
        if sum(map(len, after.values())) > LINKS_MAX:
            self._tell(self._place(owner), "links", "Too many to be followed: the order is that of the file.")
            return too_many
        return _Logic(steps, after, frozenset(parallel))

    def _level(self, element: Node) -> str:
        said = element.said(f"{self._element}Type").lower()
        words = {
            "procedure": "procedure", "process": "procedure", "unitprocedure": "unit procedure",
            "unitrecipe": "unit procedure", "process stage": "unit procedure",
        }  # fmt: skip
        return words.get(said, said)

    # What was taken, and what was not

    def _visit(self, element: Node) -> None:
        self._count()
        if id(element) in self._open:
            raise LinesideError(
                "exchange.too_many_steps",
                f"The element {element.said('ID')[:60]!r} holds itself.",
                todo="Export the recipe again: its steps name the element that they stand in.",
            )
        self._open.add(id(element))
        self._take(element, "ID", "Version", f"{self._element}Type", "SequenceOrder", "SequencePath")

    def _leave(self, element: Node) -> None:
        self._open.discard(id(element))

    def _count(self) -> None:
        self._steps += 1
        if self._steps > 2 * STEPS_MAX:
            raise self._too_many()

    def _too_many(self) -> LinesideError:
        return LinesideError(
            "exchange.too_many_steps",
            f"The recipe has more than {STEPS_MAX} steps, or runs large elements very often.",
            todo="Export it in parts that follow each other.",
        )

    def _take(self, node: Node, *names: str) -> None:
        self._taken.add(id(node))
        for child in node.children:
            if child.name in names:
                self._taken.add(id(child))

    def _take_all(self, node: Node | None) -> None:
        if node is not None:
            self._taken.add(id(node))
            self._taken.update(id(one) for one in _deep(node))

    def _said(self, node: Node, name: str) -> str:
        self._take(node, name)
        return _clean(node.said(name))

    def _texts(self, node: Node, name: str) -> list[str]:
        self._take(node, name)
        return [text for one in node.all(name) if (text := _clean(one.text.strip()))]

    def _titles(self, element: Node) -> list[str]:
        """What it is called, then what else is said of it."""
        return self._texts(element, "Description") or [_clean(element.said("ID")) or "Untitled"]

    def _id(self, wanted: str) -> str:
        stem = re.sub(r"[^0-9A-Za-z_-]+", "-", wanted).strip("-_")[:26] or "step"
        found, number = stem, 1
        while found in self._ids:
            number += 1
            found = f"{stem}-{number}"
        self._ids.add(found)
        return found

    def _report(self, where: str, what: str, why: str) -> None:
        self._tell(f"{self._path}/{where}" if where else self._path, what, why)

    def _tell(self, where: str, what: str, why: str) -> None:
        if len(self._found) < FOUND_MAX:
            self._found.append((where, what, why))
        else:
            self._more += 1

    def _place(self, element: Node) -> str:
        """Where in the file an element stands."""
        parts: list[str] = []
        at: Node | None = element
        while at is not None and at is not self._recipe:
            parts.append(_segment(at))
            at = self._above.get(id(at))
        return "/".join([self._path, *reversed(parts)])

    def _untaken(self, node: Node, path: str) -> None:
        for child in node.children:
            here = f"{path}/{_segment(child)}"
            if id(child) not in self._taken:
                self._tell(here, shown(child), _WHY.get(child.name, _NO_PLACE))
            else:
                self._untaken(child, here)


def _segment(node: Node) -> str:
    key = node.said("ID") or node.said("OtherInfoID") or node.said("ConstraintID")
    return node.name + (f"[{key[:80]}]" if key else "")


def _deep(node: Node) -> Iterator[Node]:
    for child in node.children:
        yield child
        yield from _deep(child)


def _end(node: Node, word: str) -> str:
    return f"{node.said(f'{word}Type') or 'Step'} {node.said(f'{word}IDValue')}"


def _following(
    start: str, edges: Mapping[str, Sequence[str]], steps: set[str], diverging: set[str]
) -> tuple[tuple[str, ...], bool]:
    """The steps that are reached without passing another, and whether the way there parts into parallel branches."""
    found: dict[str, None] = {}
    split = False
    seen, waiting = {start}, deque(edges.get(start, ()))
    while waiting:
        node = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        if len(seen) > PASSED_MAX:
            break
        split = split or node in diverging
        sort, _, step = node.partition(" ")
        if sort == "Step" and step in steps:
            found[step] = None
        else:
            waiting.extend(edges.get(node, ()))
    return tuple(found), split


def _sorted(logic: _Logic, loop: Any) -> list[str]:
    """The steps so that each stands behind what leads to it, else as listed; ways back are told and left out."""
    state: dict[str, int] = {}
    out: list[str] = []
    led_to = {one for after in logic.after.values() for one in after}
    for root in [*(step for step in logic.steps if step not in led_to), *logic.steps]:
        if root in state:
            continue
        state[root] = 1
        stack = [(root, iter(reversed(logic.after.get(root, ()))))]
        while stack:
            step, following = stack[-1]
            for one in following:
                if one not in state:
                    state[one] = 1
                    stack.append((one, iter(reversed(logic.after.get(one, ())))))
                    break
                if state[one] == 1:
                    loop(step, one)
            else:
                stack.pop()
                state[step] = 2
                out.append(step)
    # roots were finished in the order of the file: each with all behind it, and the first must come first
    return _in_rank(out, logic)


def _in_rank(finished: Sequence[str], logic: _Logic) -> list[str]:
    """Reverse postorder; what the file lists first comes first where nothing leads from one to the other."""
    rank = {step: at for at, step in enumerate(reversed(finished))}
    listed = {step: at for at, step in enumerate(logic.steps)}
    before = dict.fromkeys(finished, 0)
    for step, after in logic.after.items():
        for one in after:
            if rank[one] > rank[step]:
                before[one] += 1
    ready = sorted((step for step in finished if not before[step]), key=listed.__getitem__, reverse=True)
    out = []
    while ready:
        step = ready.pop()
        out.append(step)
        for one in reversed(logic.after.get(step, ())):
            if rank[one] > rank[step]:
                before[one] -= 1
                if not before[one]:
                    ready.append(one)
    return out


def _branches(step: str, logic: _Logic, within: set[str], rank: Mapping[str, int]) -> list[list[str]] | None:
    """What runs side by side behind `step`, each branch in order; None when it is not that, or does not come apart."""
    if step not in logic.parallel:
        return None
    starts = [one for one in logic.after[step] if one in within and rank[one] > rank[step]]
    if not 2 <= len(starts) <= FORKS_MAX:
        return None
    reached = [_reach(start, logic, within, rank) for start in starts]
    joined = set.intersection(*reached)
    branches = [sorted(one - joined, key=rank.__getitem__) for one in reached]
    apart = sum(map(len, branches)) == len(set().union(*branches))
    return branches if apart and all(branches) else None


def _reach(start: str, logic: _Logic, within: set[str], rank: Mapping[str, int]) -> set[str]:
    found, waiting = {start}, [start]
    while waiting:
        step = waiting.pop()
        for one in logic.after.get(step, ()):
            if one in within and one not in found and rank[one] > rank[step]:
                found.add(one)
                waiting.append(one)
    return found


def _values(node: Node, name: str) -> str:
    values = []
    for value in node.all(name):
        unit = _unit(value.said("UnitOfMeasure"))
        values.append(" ".join(filter(None, [value.said("ValueString"), unit])))
    return ", ".join(values) or "no value"


def _beside(node: Node) -> str:
    text = node.said("Description")
    return f" ({text})" if text else ""


def _measure(parameter: Node) -> tuple[float | None, str]:
    values = list(parameter.all("Value"))
    if len(values) != 1 or not _NUMBER.fullmatch(text := values[0].said("ValueString")):
        return None, ""
    return float(text), _unit(values[0].said("UnitOfMeasure"))


def _unit(said: str) -> str:
    """Our word for another system's unit; what it says, without the address before it, when we have none."""
    word = _clean(said).rpartition("/")[2] if "://" in said else _clean(said)
    return word if word in MEASURES else _UNITS.get(word.lower(), word[:40])


def _name(text: str, instead: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:64] or instead


def _clean(text: str) -> str:
    """The text without what a recipe's file cannot hold."""
    return _HIDDEN.sub(" ", text[: 2 * TEXT_MAX].replace("\r\n", "\n"))


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[: TEXT_MAX - 2] + " …"
