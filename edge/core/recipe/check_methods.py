"""What is wrong with a step that calls a method, on the tag that it names."""

from __future__ import annotations

from collections.abc import Iterator

from edge.core.document import Path, closest
from edge.core.errors import LinesideError
from edge.core.plant import Tag
from edge.core.recipe.check_forms import Asked
from edge.core.recipe.check_services import given_problems, report_problems
from edge.core.recipe.model import Invoke, Recipe, Setting


def problems(asked: Asked, recipe: Recipe, step: Invoke, tag: Tag, path: Path) -> Iterator[LinesideError]:
    """All of it on the unit's tag, with places."""
    method = tag.method
    if method is None:
        yield LinesideError(
            "recipe.no_method",
            f"Step {step.id} calls {step.tag!r}, which is no method.",
            todo="Set a set-point with phase `set`; or declare `method` for the tag in the plant file.",
            place=asked.place((*path, "tag")),
        )
        return
    for name, given in step.arguments.items():
        here = (*path, "arguments", name)
        if isinstance(given, Setting) and given.formula:
            yield LinesideError(
                "recipe.argument",
                f"Step {step.id} gives {name!r} as a formula; a method takes what the recipe says.",
                todo='Give a value, or a "$parameter".',
                place=asked.place(here),
            )
        elif name in method.arguments:
            yield from given_problems(asked, recipe, step, name, given, method.arguments[name], here)
        else:
            yield LinesideError(
                "recipe.argument",
                f"Step {step.id} gives {name!r}; the method {step.tag!r} takes no such argument.",
                todo=closest(name, list(method.arguments)) if method.arguments else "Remove it: it takes none.",
                place=asked.place(here),
            )
    if missing := [name for name in method.arguments if name not in step.arguments]:
        yield LinesideError(
            "recipe.argument",
            f"Step {step.id} does not say what {step.tag!r} is given as {', '.join(map(repr, missing))}.",
            todo="Give it in `arguments`.",
            place=asked.place(path),
        )
    for place, result in enumerate(step.results):
        here = (*path, "results", place)
        if result.report in method.results:
            yield from report_problems(asked, step, result, method.results[result.report], here)
        else:
            yield LinesideError(
                "recipe.unknown_report",
                f"Step {step.id} records {result.report!r}, which the method {step.tag!r} does not answer.",
                todo=closest(result.report, list(method.results)) if method.results else "It answers nothing.",
                place=asked.place((*here, "report")),
            )
