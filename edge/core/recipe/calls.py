"""Calls of library operations: what an operation says, in the names of the recipe that calls it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from edge.core.document import Document, Path, closest, read_document, validate
from edge.core.errors import LinesideError, Place
from edge.core.formula import renamed
from edge.core.recipe.model import Call, LibraryOperation, Recipe, Step

CALLS_DEEP_MAX: Final = 4
CALLED_STEPS_MAX: Final = 1_000
Operations = Mapping[tuple[str, str], bytes]
"""The files of a library's operations, by name and version."""
_NAMED = re.compile(r"\$([A-Za-z][A-Za-z0-9_]{0,63})")


def read_operation(data: bytes, name: str) -> LibraryOperation:
    """Read an operation's file. Raises `LinesideError` (`document.*`) with every finding about its shape."""
    return validate(read_document(data, name), LibraryOperation)


def expand(recipe: Recipe, document: Document, calls: list[tuple[Path, Call]], operations: Operations) -> Document:
    """The document with the steps of every call in it, and with the parameters and readings that they need.

    Raises `recipe.unknown_operation`, `recipe.call_depth`, `recipe.call_role`, `recipe.call_parameter`,
    `recipe.call_names` and `recipe.too_many_steps`, at the call's place."""
    data = orjson.loads(orjson.dumps(document.data))
    parameters = {name: one.model_dump(mode="json", exclude_defaults=True) for name, one in recipe.parameters.items()}
    readings = dict(recipe.readings)
    for path, call in calls:
        expansion = _Expansion(recipe, operations, document.place(path), parameters, readings)
        node = data
        for part in path:
            node = node[part]
        steps = expansion.steps(call, {role: role for role in recipe.units}, ())
        if call.steps and [_plain(step) for step in call.steps] != steps:
            raise LinesideError(
                "recipe.call_changed",
                f"Step {call.id} does not say what {call.operation} {call.version} of the library says.",
                todo="Remove `steps`: they come from the library. To do something else, write the steps out.",
                place=document.place(path),
            )
        node["steps"] = steps
    data["parameters"] = parameters
    data["readings"] = readings
    return Document(document.name, data, document.places, document.written)


class _Expansion:
    """One call under way. `parameters` and `readings` are the recipe's, and grow by what operations bring along."""

    def __init__(
        self,
        recipe: Recipe,
        operations: Operations,
        place: Place,
        parameters: dict[str, Any],
        readings: dict[str, str],
    ) -> None:
        self._recipe = recipe
        self._operations = operations
        self._place = place
        self._parameters = parameters
        self._readings = readings
        self._count = 0

    def steps(self, call: Call, roles: Mapping[str, str], above: tuple[str, ...]) -> list[dict[str, Any]]:
        """What the call does. `roles` are those of the caller, with the recipe's role for each; `above` is what is
        being called already."""
        operation = self._operation(call, above)
        bound = self._roles(call, operation, roles)
        names = self._bring(call, operation)
        for name, unit in operation.readings.items():
            role, _, tag = name.partition(".")
            full = f"{self._one(bound, role, operation)}.{tag}"
            if self._readings.setdefault(full, unit) != unit:
                raise self._names(call, f"the reading {full!r} is used in {unit} and in {self._readings[full]}")
        made = [_plain(step) for step in operation.steps]
        self._rename(made, call.id, operation, bound, names)
        self._descend(made, bound, (*above, f"{call.operation} {call.version}"))
        return made

    def _descend(self, steps: Any, roles: Mapping[str, str], above: tuple[str, ...]) -> None:
        """Expand the calls among these steps."""
        if isinstance(steps, list):
            for step in steps:
                self._descend(step, roles, above)
        elif isinstance(steps, dict):
            if steps.get("phase") == "call":
                inner = Call.model_validate_json(orjson.dumps({**steps, "steps": []}))
                steps["steps"] = self.steps(inner, {role: role for role in self._recipe.units}, above)
            else:
                for one in steps.values():
                    self._descend(one, roles, above)

    def _operation(self, call: Call, above: tuple[str, ...]) -> LibraryOperation:
        named = f"{call.operation} {call.version}"
        if named in above or len(above) >= CALLS_DEEP_MAX:
            raise LinesideError(
                "recipe.call_depth",
                f"{named} is called by itself: {' → '.join((*above, named))}."
                if named in above
                else f"Operations call each other more than {CALLS_DEEP_MAX} deep: {' → '.join((*above, named))}.",
                todo="Write the steps out where they are needed.",
                place=self._place,
            )
        data = self._operations.get((call.operation, call.version))
        if data is None:
            versions = [version for name, version in self._operations if name == call.operation]
            raise LinesideError(
                "recipe.unknown_operation",
                f"Step {call.id} calls {named}, which is not in the library.",
                todo=f"There is: {', '.join(versions)}."
                if versions
                else closest(call.operation, sorted({name for name, _ in self._operations})),
                place=self._place,
            )
        return read_operation(data, f"{call.operation} {call.version}")

    def _roles(self, call: Call, operation: LibraryOperation, roles: Mapping[str, str]) -> dict[str, str]:
        for name in call.units:
            if name not in operation.units:
                raise self._role(call, f"{operation.library_operation} has no role {name!r}", list(operation.units))
        bound: dict[str, str] = {}
        for name, need in operation.units.items():
            given = call.units.get(name, name)
            own = roles.get(given)
            if own is None:
                raise self._role(call, f"nothing says which unit is {name!r} of the operation", list(roles))
            if self._recipe.units[own].cls != need.cls:
                what = f"{name!r} is a {need.cls}, and {own!r} is a {self._recipe.units[own].cls}"
                raise self._role(call, what, [one for one, it in self._recipe.units.items() if it.cls == need.cls])
            bound[name] = own
        return bound

    def _bring(self, call: Call, operation: LibraryOperation) -> dict[str, str]:
        """Put the operation's parameters among the recipe's: their names in the operation -> in the recipe."""
        for name in call.parameters:
            if name not in operation.parameters:
                raise LinesideError(
                    "recipe.call_parameter",
                    f"Step {call.id}: {operation.library_operation} has no parameter {name!r}.",
                    todo=closest(name, list(operation.parameters)),
                    place=self._place,
                )
        names: dict[str, str] = {}
        for name, parameter in operation.parameters.items():
            given = call.parameters.get(name)
            if isinstance(given, str) and _NAMED.fullmatch(given):
                names[name] = given[1:]
                continue
            own = f"{name}__{re.sub('[^A-Za-z0-9]', '_', call.id)}"
            said = parameter.model_dump(mode="json", exclude_defaults=True) | (
                {} if given is None else {"value": given}
            )
            if not _NAMED.fullmatch(f"${own}") or self._parameters.setdefault(own, said) != said:
                raise self._names(call, f"the parameter {own!r} is too long or there is another one")
            names[name] = own
        return names

    def _rename(
        self, data: Any, prefix: str, operation: LibraryOperation, roles: Mapping[str, str], names: Mapping[str, str]
    ) -> None:
        """Give everything in these steps the names of the recipe."""

        def parameter(match: re.Match[str]) -> str:
            return f"${self._one(names, match[1], operation)}"

        def named(name: str) -> str:
            if name.startswith("$"):
                return f"${self._one(names, name[1:], operation)}"
            role, dot, tag = name.partition(".")
            return f"{self._one(roles, role, operation)}.{tag}" if dot else name

        def change(node: dict[str, Any]) -> None:
            phase = str(node.get("phase", ""))
            if phase:
                self._count += 1
                if self._count > CALLED_STEPS_MAX:
                    raise LinesideError(
                        "recipe.too_many_steps",
                        f"What is called here has more than {CALLED_STEPS_MAX} steps.",
                        todo="Split it into recipes that follow each other.",
                        place=self._place,
                    )
            for key, value in node.items():
                if isinstance(value, dict):
                    if key == "units" and phase == "call":
                        node[key] = {one: self._one(roles, role, operation) for one, role in value.items()}
                    elif key == "parameters":
                        node[key] = {one: _changed(it, change, parameter) for one, it in value.items()}
                    else:
                        change(value)
                    if phase == "transfer" and key in {"from", "to"} and value.get("unit"):
                        value["unit"] = self._one(roles, value["unit"], operation)
                elif isinstance(value, list):
                    node[key] = [_changed(one, change, parameter) for one in value]
                elif isinstance(value, str):
                    node[key] = self._said(phase, key, value, prefix, parameter, named, roles, operation)

        for step in data:
            change(step)

    def _said(
        self,
        phase: str,
        key: str,
        value: str,
        prefix: str,
        parameter: Callable[[re.Match[str]], str],
        named: Callable[[str], str],
        roles: Mapping[str, str],
        operation: LibraryOperation,
    ) -> str:
        if key in {"id", "next"} and (phase or key == "next"):
            return f"{prefix}/{value}"
        if phase == "monitor" and key == "until":
            return f"{prefix}/{value}"
        if key in {"formula", "when", "while", "until"}:
            return renamed(value, named)
        if key in {"tag", "balance", "printer"} and value:
            role, _, tag = value.partition(".")
            return f"{self._one(roles, role, operation)}.{tag}"
        if phase == "service" and key == "unit":
            return self._one(roles, value, operation)
        return _NAMED.sub(parameter, value)

    def _one(self, names: Mapping[str, str], name: str, operation: LibraryOperation) -> str:
        found = names.get(name)
        if found is None:
            raise LinesideError(
                "recipe.operation_name",
                f"{operation.library_operation} {operation.version} uses {name!r}, and does not say what that is.",
                todo=closest(name, list(names)),
                place=self._place,
            )
        return found

    def _role(self, call: Call, what: str, known: list[str]) -> LinesideError:
        return LinesideError(
            "recipe.call_role",
            f"Step {call.id}: {what}.",
            todo=f"Give it in `units` of the call. Known: {', '.join(known) or 'none'}.",
            place=self._place,
        )

    def _names(self, call: Call, what: str) -> LinesideError:
        return LinesideError(
            "recipe.call_names",
            f"Step {call.id}: {what}.",
            todo="Give the call another id, or make the two the same.",
            place=self._place,
        )


def _changed(value: Any, change: Callable[[dict[str, Any]], None], parameter: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, dict):
        change(value)
    elif isinstance(value, list):
        return [_changed(one, change, parameter) for one in value]
    return _NAMED.sub(parameter, value) if isinstance(value, str) else value


def _plain(step: Step) -> dict[str, Any]:
    return step.model_dump(mode="json", by_alias=True, exclude_defaults=True)
