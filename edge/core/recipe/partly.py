"""What else is wrong with a recipe that cannot be read as a whole: one run finds all that can be found."""

from __future__ import annotations

from typing import Any, Final

import orjson

from edge.core.document import Document, Path, faults, read_document
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.recipe.calls import Operations
from edge.core.recipe.check import check_recipe
from edge.core.recipe.model import Recipe
from edge.core.recipe.read import as_recipe, whole

ALONE: Final = frozenset({
    "formula.syntax", "recipe.accept", "recipe.at_most", "recipe.choices", "recipe.duration", "recipe.limit_open",
    "recipe.limit_upside_down", "recipe.no_signer", "recipe.not_a_number", "recipe.not_whole", "recipe.outside_plant",
    "recipe.parameter_outside", "recipe.parameter_type", "recipe.ramp_rate", "recipe.read_only", "recipe.signer_reads",
    "recipe.tag_type", "recipe.unbound_role", "recipe.unbound_tag", "recipe.unbound_unit", "recipe.unknown_service",
    "recipe.wait_end", "recipe.wait_limit", "recipe.wait_tag", "recipe.wait_timeout", "recipe.weigh_tolerance",
    "recipe.wrong_unit", "unit.unknown",
})  # fmt: skip
"""Findings about one step by itself: they are true whatever the steps say that cannot be read."""


def beside(data: bytes, name: str, operations: Operations, plant: Plant | None) -> list[LinesideError]:
    """What the checker finds in the steps that can be read, when others cannot: for a file that was refused for its
    shape. Nothing when more than steps is wrong."""
    try:
        document = as_recipe(read_document(data, name))
        read = _without(document, faults(document, Recipe))
        found = check_recipe(whole(read, operations), plant) if read is not None else []
    except LinesideError:
        return []  # what is wrong with the file as such was said already
    return [one for one in found if one.code in ALONE]


def _without(document: Document, wrong: list[Path]) -> Document | None:
    """The document with an instruction in place of every step in which something is wrong; None when that is not in a
    step."""
    content: Any = orjson.loads(orjson.dumps(document.data))
    for place, path in enumerate(wrong):
        holder, key = _step(content, path)
        if holder is None:
            return None
        given = holder[key].get("id")
        said = given if isinstance(given, str | int | float) else f"unread-{place}"
        holder[key] = {"id": said, "phase": "instruct", "title": "?", "text": "?"}
    return Document(document.name, content, document.places, document.written)


def _step(content: Any, path: Path) -> tuple[Any, Any]:
    """The innermost step on this path: what it stands in, and where there."""
    found: tuple[Any, Any] = None, None
    node = content
    for part in path:
        holder = node
        node = node[part] if (part in node if isinstance(node, dict) else part in range(len(node))) else None
        if isinstance(node, dict) and isinstance(holder, list) and ("phase" in node or "id" in node):
            found = holder, part
        if not isinstance(node, dict | list):
            break
    return found
