"""What is wrong with what a recipe says of clean units: roles that are none, and units that keep no such status."""

from __future__ import annotations

from collections.abc import Iterator

from edge.core.document import closest
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.recipe.read import RecipeDocument


def problems(document: RecipeDocument, plant: Plant | None) -> Iterator[LinesideError]:
    """Every step that cleans what is no role, and role that wants a clean unit where none could ever be one."""
    recipe = document.recipe
    for path, step in document.steps():
        for place, role in enumerate(step.cleans):
            if role not in recipe.units:
                yield LinesideError(
                    "recipe.unknown_role",
                    f"Step {step.id} cleans {role[:64]!r}, which is not a role in `units`.",
                    todo=closest(role, list(recipe.units)),
                    place=document.place((*path, "cleans", place)),
                )
    if plant is None:
        return
    for role, need in recipe.units.items():
        fitting = [unit for name, unit in plant.units.items() if unit.cls == need.cls and need.unit in {"", name}]
        if need.clean and fitting and all(unit.cleaning is None for unit in fitting):
            yield LinesideError(
                "recipe.never_clean",
                f"The role {role!r} wants a clean unit; the plant {plant.plant} knows of none whether it is.",
                todo="Add `cleaning` to the unit in the plant file, or leave out `clean`.",
                place=document.place(("units", role, "clean")),
            )
