"""Our recipes as BatchML V0700, and back without loss.

A recipe is written in the standard's own elements: procedural levels, steps and links, parameters with value and unit,
equipment requirements. What the standard has no element for (why, role, ...) is in its `OtherInformation`. So the file
is valid against the published schema as it is, and another system can read all of it. The mapping is over the content
that `seal` hashes and knows no phase by name: what a step holds becomes a tree of parameters, each list of steps inside
it a recipe segment.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from edge.core.quick import dataclass
from edge.core.recipe import Recipe, seal
from edge.exchange.markup import Node

NAMESPACE: Final = "http://www.mesa.org/xml/B2MML"
FORMAT: Final = "1"
Kind = Literal["master", "general"]
Found = tuple[str, str, str]
"""Where in the file, what stands there, and why it has no place in the recipe."""

_MARK: Final = "lineside:"
_INFORMATION: Final = frozenset({"why", "role", "next", "text", "placeholder"})
"""What a step says beside its parameters."""
_MEASURED: Final = frozenset({"value", "low", "high"})
"""What the `unit` that stands beside it is the unit of."""
_STEP: Final = frozenset({"id", "phase", "title"})
_DIVERGE: Final[Mapping[str, tuple[str, str]]] = {"parallel": ("ParallelDivergent", "ParallelConvergent")}
_CHOOSE: Final = ("SerialDivergent", "SerialConvergent")
_CONDITION: Final = ("when", "if", "until", "while")


@dataclass(frozen=True, slots=True)
class _Names:
    """What the two recipe models call the same things, and the order in which the schema wants them."""

    element: str
    element_type: str
    levels: tuple[str, str, str, str]
    parameter: str
    parameter_type: str
    parameter_order: tuple[str, ...]
    information: str
    information_id: str
    information_value: str
    logic: str


_NAMES: Final[Mapping[Kind, _Names]] = {
    "master": _Names(
        "RecipeElement",
        "RecipeElementType",
        ("Procedure", "UnitProcedure", "Operation", "Phase"),
        "Parameter",
        "ParameterType",
        ("ID", "ParameterType", "ParameterSubType", "Value", "Parameter"),
        "OtherInformation",
        "ID",
        "Value",
        "ProcedureLogic",
    ),
    "general": _Names(
        "ProcessElement",
        "ProcessElementType",
        ("Process", "Process Stage", "Process Operation", "Process Action"),
        "ProcessElementParameter",
        "ProcessElementParameterType",
        ("ID", "ProcessElementParameterType", "ProcessElementParameter", "Value"),
        "OtherInformation",
        "OtherInfoID",
        "OtherValue",
        "DirectedLink",
    ),
}


def as_tree(recipe: Recipe, kind: Kind) -> Node:
    """The root of what `export` writes."""
    content = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _Writer(kind, str(content["version"])).recipe(content, seal(recipe))


# Out -----------------------------------------------------------------------------------------------------------------


class _Writer:
    def __init__(self, kind: Kind, version: str) -> None:
        self._kind = kind
        self._names = _NAMES[kind]
        self._version = version

    def recipe(self, content: Mapping[str, Any], sealed: str) -> Node:
        content = dict(content)
        name, version, title = content.pop("recipe"), content.pop("version"), content.pop("title")
        procedures = content.pop("procedure")
        units = content.pop("units", {})
        if not all(isinstance(field, str) for unit in units.values() for field in unit.values()):
            content["units"], units = units, {}
        formula = [self._parameter(key, value) for key, value in content.pop("parameters", {}).items()]
        information = [("format", FORMAT), ("seal", sealed)]
        information += [("version", version)] if self._kind == "general" else []
        others = [self._information(_MARK + key, value) for key, value in information]
        for key, value in content.items():
            if key in _INFORMATION and isinstance(value, str):
                others.append(self._information(key, value))
            else:
                formula.append(self._parameter(_MARK + key, value))
        stages = [self._stage(number, stage) for number, stage in enumerate(procedures, 1)]
        ids = [(stage.said("ID"), None) for stage in stages]
        if self._kind == "general":
            process = Node(
                "ProcessElement", children=[*_told("procedure", title), Node("ProcessElementType", "Process")]
            )
            process.name = "ProcessProcedure"
            process.children += [*self._links("procedure", ids), *stages]
            return Node("GRecipe", children=[
                *_told(name, title), Node("GRecipeType", "General"),
                Node("Formula", children=formula),
                process, *(self._constraint(role, unit) for role, unit in units.items()), *others,
            ])  # fmt: skip
        master = Node("MasterRecipe", children=[
            Node("ID", name), Node("Version", version), Node("Description", title),
            *(self._requirement(role, unit) for role, unit in units.items()),
            Node("Formula", children=formula), *self._links("procedure", ids), *stages, *others,
        ])  # fmt: skip
        return Node("BatchInformation", children=[master])

    def _requirement(self, role: str, unit: Mapping[str, str]) -> Node:
        constraints = [
            Node("Constraint", children=[Node("ID", key), Node("Condition", text)]) for key, text in unit.items()
        ]
        return Node("EquipmentRequirement", children=[Node("ID", role), *constraints])

    def _constraint(self, role: str, unit: Mapping[str, str]) -> Node:
        properties = [
            Node("ResourceConstraintProperty", children=[Node("ID", key), self._value("Value", text)])
            for key, text in unit.items()
        ]
        return Node("ResourceConstraint", children=[
            Node("ConstraintID", role), Node("ConstraintType", "Required"), *properties,
        ])  # fmt: skip

    # Levels

    def _stage(self, number: int, stage: Mapping[str, Any]) -> Node:
        here = f"procedure.{number}"
        operations = [self._operation(f"{here}.{at}", operation) for at, operation in enumerate(stage["operations"], 1)]
        fields = {key: value for key, value in stage.items() if key not in ("unit_procedure", "operations")}
        links = self._links(here, [(operation.said("ID"), None) for operation in operations])
        return self._element(here, stage["unit_procedure"], 1, fields, links, operations)

    def _operation(self, here: str, operation: Mapping[str, Any]) -> Node:
        fields = {key: value for key, value in operation.items() if key not in ("operation", "steps")}
        steps = operation["steps"]
        links = self._links(here, [(step["id"], step.get("next")) for step in steps])
        return self._element(here, operation["operation"], 2, fields, links, [self._step(step) for step in steps])

    def _step(self, step: Mapping[str, Any]) -> Node:
        here, phase = step["id"], step["phase"]
        fields = {key: value for key, value in step.items() if key not in ("id", "phase", "title")}
        segments: list[Node] = []
        conditions: list[str] = []
        unfolded = self._unfold(here, fields, segments, conditions)
        links = self._diverging(here, phase, segments, conditions) if segments else []
        return self._element(here, step["title"], 3, unfolded, links, segments, phase)

    def _unfold(self, here: str, value: Any, segments: list[Node], conditions: list[str]) -> Any:
        """`value` with each list of steps inside it replaced by the id of the segment that holds them."""
        if isinstance(value, dict):
            if any(map(_are_steps, value.values())):
                conditions += [said for key in _CONDITION if isinstance(said := value.get(key), str)]
            return {key: self._unfold(here, inner, segments, conditions) for key, inner in value.items()}
        if _are_steps(value):
            segment = f"{here}.{len(segments) + 1}"
            segments.append(Node("", segment))  # holds its place: segments inside it are its own
            links = self._links(segment, [(step["id"], step.get("next")) for step in value])
            made = self._element(segment, "", 0, {}, links, [self._step(step) for step in value], "branch")
            segments[int(segment.rpartition(".")[2]) - 1] = made
            return _Segment(segment)
        if isinstance(value, list):
            return [self._unfold(here, inner, segments, conditions) for inner in value]
        return value

    def _element(
        self,
        here: str,
        title: str,
        level: int,
        fields: Mapping[str, Any],
        links: Sequence[Node],
        inner: Sequence[Node],
        phase: str = "",
    ) -> Node:
        names = self._names
        said = {key for key, value in fields.items() if key in _INFORMATION and isinstance(value, str | bool)}
        # a branch or a phase that has branches is a segment
        segment = bool(phase and (level == 0 or inner))
        element_type = Node(names.element_type, names.levels[level])
        if segment:
            element_type = (
                Node(names.element_type, "RecipeSegment")
                if self._kind == "master"
                else Node(names.element_type, "Other", attributes={"OtherValue": phase})
            )
        unit, rest = _measured({key: value for key, value in fields.items() if key not in said})
        parameters = [self._parameter(key, value, unit if key in _MEASURED else "") for key, value in rest.items()]
        others = [self._information(key, fields[key]) for key in fields if key in said]
        if self._kind == "general":
            others += [self._information(_MARK + "phase", phase)] if phase else []
            return Node(names.element, children=[
                *_told(here, title), element_type, *links, *inner, *parameters, *others,
            ])  # fmt: skip
        block = [Node("BuildingBlockElementID", phase)] if phase else []
        return Node(names.element, children=[
            *_told(here, title), element_type, *block, *parameters, *links, *inner, *others,
        ])  # fmt: skip

    # Logic

    def _links(self, here: str, steps: Sequence[tuple[str, str | None]]) -> list[Node]:
        """Each step and what follows it."""
        ids = [step for step, _ in steps]
        pairs = []
        for at, (step, following) in enumerate(steps):
            after = following or (ids[at + 1] if at + 1 < len(ids) else None)
            if after is not None:
                pairs.append((step, after))
        if self._kind == "general":
            return [_directed(f"{here}.link.{at}", one, after) for at, (one, after) in enumerate(pairs, 1)]
        links = [
            _link(f"{here}.link.{at}", [one], [after], "ControlLink", outside=after not in ids)
            for at, (one, after) in enumerate(pairs, 1)
        ]
        return [Node("ProcedureLogic", children=[*links, *(self._logic_step(one) for one in ids)])] if ids else []

    def _diverging(self, here: str, phase: str, segments: Sequence[Node], conditions: Sequence[str]) -> list[Node]:
        """From the begin of a step with branches into each of them, and back together."""
        ids = [segment.said("ID") for segment in segments]
        begin, end = f"{here}.begin", f"{here}.end"
        if self._kind == "general":
            optional = "" if phase in _DIVERGE else "Optional "
            pairs = [pair for one in ids for pair in ((begin, one), (one, end))]
            charts = [
                Node("ProcedureChartElement", children=[
                    Node("ID", at), Node("ProcedureChartElementType", f"{word} {optional}Parallel Indicator"),
                ])
                for at, word in ((begin, "Start"), (end, "End"))
            ]  # fmt: skip
            return [*(_directed(f"{here}.link.{at}", *pair) for at, pair in enumerate(pairs, 1)), *charts]
        diverge, converge = _DIVERGE.get(phase, _CHOOSE)
        links = [
            _link(f"{here}.link.1", [begin], ids, diverge),
            _link(f"{here}.link.2", ids, [end], converge),
        ]
        steps = [
            self._logic_step(at, word) for at, word in ((begin, "Begin"), *((one, one) for one in ids), (end, "End"))
        ]
        transitions = [
            Node("Transition", children=[Node("ID", f"{here}.transition.{at}"), Node("Condition", condition)])
            for at, condition in enumerate(conditions, 1)
        ]
        return [Node("ProcedureLogic", children=[*links, *steps, *transitions])]

    def _logic_step(self, step: str, element: str = "") -> Node:
        return Node("Step", children=[
            Node("ID", step), Node("RecipeElementID", element or step), Node("RecipeElementVersion", self._version),
        ])  # fmt: skip

    # Values

    def _information(self, key: str, value: str | bool) -> Node:
        names = self._names
        return Node(names.information, children=[
            Node(names.information_id, key), self._value(names.information_value, value),
        ])  # fmt: skip

    def _parameter(self, key: str, value: Any, unit: str = "") -> Node:
        names = self._names
        sort, values, inner = "", [], []
        if isinstance(value, _Segment):
            sort, values = "steps", [self._value("Value", value.id)]
        elif value is None:
            sort = "nothing"
        elif isinstance(value, dict):
            sort = "map"
            unit, rest = _measured(value)
            inner = [self._parameter(name, one, unit if name in _MEASURED else "") for name, one in rest.items()]
        elif isinstance(value, list):
            if all(isinstance(one, str | bool | int | float) for one in value):
                sort, values = "list", [self._value("Value", one) for one in value]
            else:
                sort, inner = "items", [self._parameter(str(at), one) for at, one in enumerate(value)]
        else:
            values = [self._value("Value", value, unit)]
        if isinstance(value, dict) and isinstance(value.get("value"), str | bool | int | float):
            own = next(one for one in inner if one.said("ID") == "value")
            inner.remove(own)  # the value of the whole, where other systems look for it
            values = list(own.all("Value"))
        if self._kind == "general":
            kinds = [Node(names.parameter_type, "Input")]
            kinds += [Node(names.parameter_type, "Other", attributes={"OtherValue": _MARK + sort})] if sort else []
            return Node(names.parameter, children=[Node("ID", key), *kinds, *inner, *values])
        kinds = [Node(names.parameter_type, "ProcessParameter")]
        kinds += [Node("ParameterSubType", _MARK + sort)] if sort else []
        return Node(names.parameter, children=[Node("ID", key), *kinds, *values, *inner])

    def _value(self, name: str, value: str | bool | float, unit: str = "") -> Node:
        text, data_type = _written(value)
        parts = [Node("ValueString", text)]
        if self._kind == "master":
            reference = isinstance(value, str) and value.startswith("$")
            parts.append(Node("DataInterpretation", "Reference" if reference else "Constant"))
        parts.append(Node("DataType", data_type))
        if unit or self._kind == "master":
            parts.append(Node("UnitOfMeasure", unit))
        return Node(name, children=parts)


@dataclass(frozen=True, slots=True)
class _Segment:
    """Stands where a list of steps was."""

    id: str


def _are_steps(value: Any) -> bool:
    """A list of steps, whatever their phases: what has an id, a phase and a title."""
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) and one.keys() >= _STEP for one in value)
    )


def _told(here: str, title: str) -> list[Node]:
    return [Node("ID", here), Node("Description", title)]


def _directed(link: str, one: str, after: str) -> Node:
    return Node("DirectedLink", children=[Node("ID", link), Node("FromID", one), Node("ToID", after)])


def _link(link: str, ones: Sequence[str], afters: Sequence[str], sort: str, *, outside: bool = False) -> Node:
    def end(word: str, step: str, scope: str) -> Node:
        return Node(f"{word}ID", children=[
            Node(f"{word}IDValue", step), Node(f"{word}Type", "Step"), Node("IDScope", scope),
        ])  # fmt: skip

    return Node("Link", children=[
        Node("ID", link),
        *(end("From", one, "Internal") for one in ones),
        *(end("To", after, "External" if outside else "Internal") for after in afters),
        Node("LinkType", sort), Node("Depiction", "LineAndArrow"),
    ])  # fmt: skip


def _measured(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The unit that goes with the numbers, and the fields without it; no unit when there is no number to carry it."""
    unit = fields.get("unit")
    carried = isinstance(unit, str) and unit and any(
        key in _MEASURED and isinstance(value, str | int | float) for key, value in fields.items()
    )  # fmt: skip
    return (
        (str(unit), {key: value for key, value in fields.items() if key != "unit"}) if carried else ("", dict(fields))
    )


def _written(value: str | bool | float) -> tuple[str, str]:
    if isinstance(value, bool):
        return str(value).lower(), "boolean"
    if isinstance(value, str):
        return value, "string"
    return repr(value), "integer" if isinstance(value, int) else "double"


# In ------------------------------------------------------------------------------------------------------------------


def is_ours(recipe: Node) -> bool:
    """Whether a recipe of a file is one that `export` wrote."""
    return any(_informations(recipe, _MARK + "format"))


def stated_seal(recipe: Node) -> str:
    """The seal of the recipe at its export, as the file says."""
    return next(_informations(recipe, _MARK + "seal"), "")


def content_of(recipe: Node, kind: Kind) -> dict[str, Any]:
    """The content of a recipe that `export` wrote. What a hand has changed is taken as it stands; whatever is not
    as `export` writes it is left out, and shows when the result is compared with the file."""
    return _Reader(kind).recipe(recipe)


def _informations(node: Node, key: str) -> Iterator[str]:
    for names in _NAMES.values():
        for other in node.all(names.information):
            value = other.first(names.information_value)
            if value is not None and other.said(names.information_id) == key:
                yield _text(value.first("ValueString"))


def _text(node: Node | None) -> str:
    return node.text if node else ""


class _Reader:
    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._names = _NAMES[kind]
        self._segments: dict[int, dict[str, Node]] = {}

    def recipe(self, recipe: Node) -> dict[str, Any]:
        names = self._names
        version = recipe.said("Version") or next(_informations(recipe, _MARK + "version"), "")
        content: dict[str, Any] = {"recipe": recipe.said("ID"), "version": version}
        content["title"] = _text(recipe.first("Description"))
        content |= self._informed(recipe)
        if units := dict(self._units(recipe)):
            content["units"] = units
        parameters: dict[str, Any] = {}
        for node in (formula := recipe.first("Formula") or Node("Formula")).all(names.parameter):
            key = _text(node.first("ID"))
            target = content if key.startswith(_MARK) else parameters
            target[key.removeprefix(_MARK)] = self._parameter(node, formula)[0]
        if parameters:
            content["parameters"] = parameters
        top = recipe.first("ProcessProcedure") if self._kind == "general" else recipe
        content["procedure"] = [self._stage(stage) for stage in (top or recipe).all(names.element)]
        return content

    def _units(self, recipe: Node) -> Iterator[tuple[str, dict[str, str]]]:
        for need in recipe.all("EquipmentRequirement"):
            yield (
                need.said("ID"),
                {_text(one.first("ID")): _text(one.first("Condition")) for one in need.all("Constraint")},
            )
        for need in recipe.all("ResourceConstraint"):
            yield (
                need.said("ConstraintID"),
                {
                    one.said("ID"): _text((one.first("Value") or Node("")).first("ValueString"))
                    for one in need.all("ResourceConstraintProperty")
                },
            )

    def _stage(self, node: Node) -> dict[str, Any]:
        operations = [self._operation(one) for one in node.all(self._names.element)]
        return {"unit_procedure": _text(node.first("Description"))} | self._fields(node) | {"operations": operations}

    def _operation(self, node: Node) -> dict[str, Any]:
        steps = [self._step(one) for one in node.all(self._names.element)]
        return {"operation": _text(node.first("Description"))} | self._fields(node) | {"steps": steps}

    def _step(self, node: Node) -> dict[str, Any]:
        phase = next(_informations(node, _MARK + "phase"), "") or node.said("BuildingBlockElementID")
        named = {"id": node.said("ID"), "phase": phase, "title": _text(node.first("Description"))}
        return named | self._fields(node)

    def _fields(self, node: Node) -> dict[str, Any]:
        return self._informed(node) | self._mapped(node, node)

    def _informed(self, node: Node) -> dict[str, Any]:
        found = {}
        for other in node.all(self._names.information):
            key = _text(other.first(self._names.information_id))
            value = other.first(self._names.information_value)
            if value is not None and not key.startswith(_MARK):
                found[key] = _value(value)
        return found

    def _mapped(self, node: Node, owner: Node) -> dict[str, Any]:
        """What the parameters directly in `node` say; `owner` holds the segments that they name."""
        found: dict[str, Any] = {}
        for one in node.all(self._names.parameter):
            found[_text(one.first("ID"))], unit = self._parameter(one, owner)
            if unit:
                found["unit"] = unit
        return found

    def _parameter(self, node: Node, owner: Node) -> tuple[Any, str]:
        """A parameter's value and the unit that it is in."""
        values = list(node.all("Value"))
        unit = next((_text(one.first("UnitOfMeasure")) for one in values), "")
        match self._sort(node):
            case "nothing":
                return None, ""
            case "list":
                return [_value(one) for one in values], ""
            case "items":
                return [self._parameter(one, owner)[0] for one in node.all(self._names.parameter)], ""
            case "steps":
                inner = self._segment(owner, _text(values[0].first("ValueString")) if values else "")
                return [self._step(one) for one in inner.all(self._names.element)], ""
            case "map":
                own = {"value": _value(values[0])} if values else {}
                own |= {"unit": unit} if unit else {}
                return own | self._mapped(node, owner), ""
            case _:
                return (_value(values[0]) if values else ""), unit

    def _segment(self, owner: Node, name: str) -> Node:
        """The segment of `owner` with this id: each only once, or a small file would hold endless steps."""
        if id(owner) not in self._segments:
            self._segments[id(owner)] = {one.said("ID"): one for one in owner.all(self._names.element)}
        return self._segments[id(owner)].pop(name, Node(""))

    def _sort(self, node: Node) -> str:
        said = [one.text for one in node.all("ParameterSubType")]
        said += [one.attributes.get("OtherValue", "") for one in node.all(self._names.parameter_type)]
        return next((one.removeprefix(_MARK) for one in said if one.startswith(_MARK)), "")


def _value(value: Node) -> Any:
    text, data_type = _text(value.first("ValueString")), value.said("DataType")
    if data_type == "boolean" and text in ("true", "false"):
        return text == "true"
    if data_type == "integer" and re.fullmatch(r"-?[0-9]{1,16}", text):
        return int(text)
    if data_type == "double" and re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,3})?", text):
        return float(text)
    return text


# What a file says beyond the recipe that was read from it ------------------------------------------------------------


def differences(given: Node, expected: Node, path: str = "") -> Iterator[Found]:
    """Where `given` is not what `expected` is, with the path in the file."""
    here = f"{path}/{given.name}" + (f"[{key}]" if (key := _key(given)) else "")
    if given.text.strip() != expected.text.strip():
        yield here, given.text.strip()[:200], f"The recipe says {expected.text.strip()[:200]!r} here."
    if dict(given.attributes) != dict(expected.attributes):
        yield here, str(dict(given.attributes))[:200], "Attributes have no place in the recipe."
    by_key: dict[tuple[str, str], deque[Node]] = {}
    for one in expected.children:
        by_key.setdefault((one.name, _key(one)), deque()).append(one)
    for one in given.children:
        same = by_key.get((one.name, _key(one)))
        if same:
            yield from differences(one, same.popleft(), here)
        else:
            yield f"{here}/{one.name}", shown(one), "It is not as Lineside writes it, and was not read."
    for missing in (one for several in by_key.values() for one in several):
        yield f"{here}/{missing.name}", shown(missing), "It is part of the recipe, and is missing in the file."


def _key(node: Node) -> str:
    return (node.said("ID") or node.said("OtherInfoID") or node.said("ConstraintID"))[:80]


def shown(node: Node) -> str:
    """What an element says, in short."""
    parts = (one.text[:200].strip() for one in (node, *node.children[:20]))
    return ", ".join(part for part in parts if part)[:200] or node.name
