"""What is wrong with the steps that run a module's service: by themselves, and on the modules of a plant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.plant import Argument, Plant, Tag, Unit, UnitService, numeric, within
from edge.core.recipe.check_forms import Asked, limit_problems
from edge.core.recipe.model import Invoke, Parallel, Recipe, ReportValue, Service, Setting, Step
from edge.core.recipe.values import number_of, seconds
from edge.core.service import ACTING
from edge.core.terms import MEASURES, convert, same_dimension

Given = float | bool | str | Setting
NOT_NUMBERED = {"text", "choice", "bool"}


def problems(asked: Asked, recipe: Recipe, plant: Plant | None, step: Service, path: Path) -> Iterator[LinesideError]:
    """Every problem of the step, on any plant or on this one."""
    yield from _by_itself(asked, recipe, step, path)
    need = recipe.units.get(step.unit)
    if need is None:
        yield LinesideError(
            "recipe.unknown_role",
            f"Step {step.id} uses {step.unit[:80]!r}, which is not a role in `units`.",
            todo=closest(step.unit, list(recipe.units)),
            place=asked.place((*path, "unit")),
        )
        return
    for name, unit in plant.units.items() if plant else ():
        if unit.cls == need.cls:
            found = list(_on_unit(asked, recipe, name, unit, step, path))
            if found:
                yield from found
                return  # one unit of a class tells enough


def side_by_side(asked: Asked, step: Parallel, path: Path) -> Iterator[LinesideError]:
    """Branches that would run one service at the same time."""
    runners: dict[tuple[str, str], int] = {}
    for place, branch in enumerate(step.branches):
        for where, one in _services((*path, "branches", place), branch):
            if runners.setdefault((one.unit, one.service), place) != place:
                yield LinesideError(
                    "recipe.parallel_service",
                    f"Step {one.id} runs {one.service!r} of {one.unit!r}, which another branch of {step.id} runs too; "
                    "a service runs once at a time.",
                    todo="Run it in one branch only.",
                    place=asked.place((*where, "service")),
                )


def _services(path: Path, steps: Sequence[Step]) -> Iterator[tuple[Path, Service]]:
    for place, step in enumerate(steps):
        if isinstance(step, Service):
            yield (*path, place), step
        for inner, sequence in step.inner():
            yield from _services((*path, place, *inner), sequence)


def _by_itself(asked: Asked, recipe: Recipe, step: Service, path: Path) -> Iterator[LinesideError]:
    for state, text in step.timeouts.items():
        place = asked.place((*path, "timeouts", state))
        if state not in ACTING or state == "execute":
            yield LinesideError(
                "recipe.service_state",
                f"Step {step.id} gives a time-out for {state[:40]!r}, which is no state that a service passes through.",
                todo="`timeout` is that of execute." if state == "execute" else closest(state, sorted(ACTING)),
                place=place,
            )
        elif not _is_duration(recipe, text):
            yield LinesideError(
                "recipe.duration",
                f"The time-out {text[:40]!r} of step {step.id} for {state} is not a duration.",
                todo='Write a number, a space and s, min, h or d, for example "10 min".',
                place=place,
            )
    yield from told_problems(asked, recipe, step, {"parameters": step.parameters}, {"reports": step.reports}, path)


def told_problems(
    asked: Asked,
    recipe: Recipe,
    step: Service | Invoke,
    parameters: Mapping[str, Mapping[str, Given]],
    reports: Mapping[str, Sequence[ReportValue]],
    path: Path,
) -> Iterator[LinesideError]:
    """What is wrong with what is given and what is recorded, each by the step's key for it, whatever the plant."""
    ((given_key, group),) = parameters.items()
    ((report_key, told),) = reports.items()
    for name, given in group.items():
        if isinstance(given, Setting):
            here = (*path, given_key, name)
            if (given.value is None) == (not given.formula):
                yield LinesideError(
                    "recipe.service_setting",
                    f"Step {step.id} gives {name!r} "
                    + ("both a value and a formula." if given.formula else "nothing."),
                    todo="Give either `value` or `formula`.",
                    place=asked.place(here),
                )
            if given.unit not in MEASURES:
                yield asked.unknown_unit(given.unit, (*here, "unit"))
    names: set[str] = set()
    for place_, report in enumerate(told):
        here = (*path, report_key, place_)
        if report.name in names:
            yield LinesideError(
                "recipe.duplicate_result",
                f"Step {step.id} records {report.name!r} twice.",
                todo="Give each value a name of its own.",
                place=asked.place((*here, "name")),
            )
        names.add(report.name)
        if report.unit not in MEASURES:
            yield asked.unknown_unit(report.unit, (*here, "unit"))
        elif report.limit is not None and report.type != "number":
            yield LinesideError(
                "recipe.not_a_number",
                f"Step {step.id} records {report.name!r} as a {report.type}; a limit means nothing there.",
                todo="Use `type: number`, or remove `limit`.",
                place=asked.place((*here, "limit")),
            )
        elif report.limit is not None:
            yield from limit_problems(asked, recipe, step, report.limit, report.unit, (*here, "limit"))


def _is_duration(recipe: Recipe, text: str) -> bool:
    if text.startswith("$") and text[1:] not in recipe.parameters:
        return True  # said with the other unknown parameters
    try:
        return seconds(recipe, text) > 0
    except LinesideError:
        return False


# On a unit of the plant ------------------------------------------------------------------------------------------


def _on_unit(asked: Asked, recipe: Recipe, name: str, unit: Unit, step: Service, path: Path) -> Iterator[LinesideError]:
    service = unit.services.get(step.service)
    if service is None:
        yield LinesideError(
            "recipe.unknown_service",
            f"Step {step.id} runs the service {step.service!r}; the unit {name} "
            + ("has no such service." if unit.services else "offers no services."),
            todo=closest(step.service, list(unit.services))
            if unit.services
            else "Declare it under `services` in the plant file.",
            place=asked.place((*path, "service")),
        )
        return
    yield from _procedure(asked, service, step, path)
    procedure = service.procedures.get(step.procedure or "") or next(iter(service.procedures.values()), None)
    used = service.parameters
    if procedure is not None and procedure.parameters is not None:
        used = {one: used[one] for one in procedure.parameters if one in used}
    for parameter, given in step.parameters.items():
        here = (*path, "parameters", parameter)
        if parameter not in used:
            yield LinesideError(
                "recipe.unknown_service_parameter",
                f"Step {step.id} gives {parameter!r}; {step.service!r} of {name} has no such parameter"
                + (f" in its procedure {step.procedure!r}." if parameter in service.parameters else "."),
                todo=closest(parameter, list(used)),
                place=asked.place(here),
            )
        else:
            yield from given_problems(asked, recipe, step, parameter, given, unit.tags[used[parameter]], here)
    yield from (
        LinesideError(
            "recipe.service_parameter_missing",
            f"Step {step.id} does not say what {parameter!r} of {step.service!r} is; it would be what it was last.",
            todo="Give it in `parameters`.",
            place=asked.place(path),
        )
        for parameter in used
        if parameter not in step.parameters
    )
    for place, report in enumerate(step.reports):
        yield from _report(asked, step, report, service.reports, unit, (*path, "reports", place))


def _procedure(asked: Asked, service: UnitService, step: Service, path: Path) -> Iterator[LinesideError]:
    known = service.procedures
    if step.procedure is None and len(known) > 1:
        yield LinesideError(
            "recipe.service_procedure",
            f"Step {step.id} does not say which procedure of {step.service!r} is run.",
            todo=f"Give `procedure`: one of {', '.join(known)}.",
            place=asked.place(path),
        )
        return
    if step.procedure is not None and step.procedure not in known:
        yield LinesideError(
            "recipe.service_procedure",
            f"Step {step.id} runs the procedure {step.procedure!r}, which {step.service!r} does not have.",
            todo=closest(step.procedure, list(known)),
            place=asked.place((*path, "procedure")),
        )
        return
    procedure = known.get(step.procedure or "") or next(iter(known.values()), None)
    by_itself = procedure is None or procedure.self_completing
    if by_itself and step.until:
        yield LinesideError(
            "recipe.service_end",
            f"Step {step.id} says until when {step.service!r} runs, and it completes by itself.",
            todo="Remove `until`, or run a procedure that goes on until it is told to complete.",
            place=asked.place((*path, "until")),
        )
    elif not by_itself and not step.until:
        yield LinesideError(
            "recipe.service_end",
            f"Step {step.id} runs {step.service!r} with a procedure that does not complete by itself, and nothing says "
            "until when.",
            todo="Add `until`: a condition on a reading. The service is told to complete when it is true.",
            place=asked.place(path),
        )


def given_problems(
    asked: Asked, recipe: Recipe, step: Service | Invoke, name: str, given: Given, tag: Tag | Argument, path: Path
) -> Iterator[LinesideError]:
    """Whether what a parameter is given fits its tag."""
    unit = given.unit if isinstance(given, Setting) else ""
    value = given.value if isinstance(given, Setting) else given
    if isinstance(given, Setting) and given.formula:
        if not numeric(tag) or (unit in MEASURES and not same_dimension(unit or tag.unit, tag.unit)):
            yield _misfit(asked, step, name, f"a number in {unit or tag.unit or 'no unit'}", tag, path)
        return
    if isinstance(value, str) and value.startswith("$"):
        parameter = recipe.parameters.get(value[1:])
        if parameter is None:
            return  # said with the other unknown parameters
        if parameter.type in NOT_NUMBERED:
            value = parameter.value
        else:
            value, unit = number_of(parameter)
    fits = {
        "float": isinstance(value, float),
        "int": isinstance(value, float),
        "bool": isinstance(value, bool),
        "text": isinstance(value, str),
    }[tag.type]
    if value is None or unit not in MEASURES:
        return  # said already
    if not fits or (isinstance(value, float) and not same_dimension(unit or tag.unit, tag.unit)):
        shown = f"{value:g} {unit}".rstrip() if isinstance(value, float) else repr(value)
        yield _misfit(asked, step, name, shown, tag, path)
        return
    if isinstance(value, float):
        number = convert(value, unit or tag.unit, tag.unit)
        if not within(number, tag):
            yield LinesideError(
                "recipe.outside_plant",
                f"Step {step.id} gives {name!r} {number:g} {tag.unit}".rstrip()
                + f"; at the module it goes from {_end(tag.low)} to {_end(tag.high)} {tag.unit}".rstrip()
                + ".",
                todo="Correct the value, or the range in the plant file.",
                place=asked.place(path),
            )
        elif tag.type == "int" and not number.is_integer():
            yield LinesideError(
                "recipe.not_whole",
                f"Step {step.id} gives {name!r} {number:g}; it takes whole numbers.",
                todo="Give a whole number.",
                place=asked.place(path),
            )


def _misfit(
    asked: Asked, step: Service | Invoke, name: str, shown: str, tag: Tag | Argument, path: Path
) -> LinesideError:
    return LinesideError(
        "recipe.service_parameter",
        f"Step {step.id} gives {name!r} {shown}; the module takes a {tag.type} in {tag.unit or 'no unit'}.",
        todo="Correct the value or its unit.",
        place=asked.place(path),
    )


def _report(
    asked: Asked, step: Service, report: ReportValue, known: Mapping[str, str], unit: Unit, path: Path
) -> Iterator[LinesideError]:
    name = known.get(report.report)
    if name is None:
        yield LinesideError(
            "recipe.unknown_report",
            f"Step {step.id} records {report.report!r}, which {step.service!r} does not report.",
            todo=closest(report.report, list(known)),
            place=asked.place((*path, "report")),
        )
        return
    yield from report_problems(asked, step, report, unit.tags[name], path)


def report_problems(
    asked: Asked, step: Service | Invoke, report: ReportValue, tag: Tag | Argument, path: Path
) -> Iterator[LinesideError]:
    """Whether what is recorded is of the type and dimension of what is told."""
    kind = "number" if numeric(tag) else tag.type
    if kind != report.type or (numeric(tag) and report.unit in MEASURES and not same_dimension(report.unit, tag.unit)):
        yield LinesideError(
            "recipe.report_type",
            f"Step {step.id} records {report.report!r} as a {report.type} in {report.unit or 'no unit'}; the module "
            f"reports a {kind} in {tag.unit or 'no unit'}.",
            todo="Correct `type` or `unit`.",
            place=asked.place(path),
        )


def _end(end: float | None) -> str:
    return "…" if end is None else f"{end:g}"
