"""The JSON Schema of editors accepts every recipe that ships and every example of the pages, and finds mistakes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from edge.core.recipe.model import LibraryOperation, Recipe
from edge.core.recipe.site import Site

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "edge" / "core" / "recipe" / "shipped"
FILES = sorted(SHIPPED.rglob("*.yaml"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SCHEMAS: dict[str, dict[str, Any]] = {
    "recipe": Recipe.model_json_schema(by_alias=True),
    "library_operation": LibraryOperation.model_json_schema(by_alias=True),
    "site": Site.model_json_schema(by_alias=True),
}
SAID = {"title", "description", "default", "$defs", "discriminator"}
"""What a schema says to people and editors, and what is reached from elsewhere."""
TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "number": (int, float), "integer": int, "boolean": bool, "object": dict, "array": list,
    "null": type(None),
}  # fmt: skip


def wrong(root: dict[str, Any], schema: dict[str, Any], value: Any, at: str = "") -> Iterator[str]:
    """What JSON Schema 2020-12 finds, for the keywords that schemas of recipes use; another fails."""
    for keyword, asked in schema.items():
        match keyword:
            case "$ref":
                yield from wrong(root, root["$defs"][asked.removeprefix("#/$defs/")], value, at)
            case "type":
                kinds = TYPES[asked]
                if not isinstance(value, kinds) or (isinstance(value, bool) and asked in {"number", "integer"}):
                    yield f"{at}: {value!r} is no {asked}"
            case "anyOf" | "oneOf":
                ways = [list(wrong(root, one, value, at)) for one in asked]
                fitting = sum(not found for found in ways)
                if fitting == 0 or (keyword == "oneOf" and fitting != 1):
                    yield f"{at}: fits {fitting} of {len(ways)} ways: {min(ways, key=len)}"
            case "const" | "enum":
                if value != asked if keyword == "const" else value not in asked:
                    yield f"{at}: {value!r} is not {asked}"
            case "pattern":
                if isinstance(value, str) and not re.search(asked, value):
                    yield f"{at}: {value!r} is not like {asked}"
            case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
                if isinstance(value, int | float) and not isinstance(value, bool):
                    beyond = value - asked if "Max" in keyword or "max" in keyword else asked - value
                    if beyond > 0 or (beyond == 0 and keyword.startswith("exclusive")):
                        yield f"{at}: {value} is beyond {keyword} {asked}"
            case "minLength" | "minItems" | "minProperties":
                if isinstance(value, str | list | dict) and len(value) < asked:
                    yield f"{at}: shorter than {asked}"
            case "maxLength" | "maxItems" | "maxProperties":
                if isinstance(value, str | list | dict) and len(value) > asked:
                    yield f"{at}: longer than {asked}"
            case "items":
                for place, one in enumerate(value if isinstance(value, list) else ()):
                    yield from wrong(root, asked, one, f"{at}/{place}")
            case "required":
                yield from (
                    f"{at}: {name} is missing" for name in asked if isinstance(value, dict) and name not in value
                )
            case "propertyNames":
                for name in value if isinstance(value, dict) else ():
                    yield from wrong(root, asked, name, f"{at}/{name}")
            case "properties":
                for name in asked.keys() & value.keys() if isinstance(value, dict) else ():
                    yield from wrong(root, asked[name], value[name], f"{at}/{name}")
            case "patternProperties":
                for pattern, inner in asked.items():
                    for name in value if isinstance(value, dict) else ():
                        if re.search(pattern, name):
                            yield from wrong(root, inner, value[name], f"{at}/{name}")
            case "additionalProperties":
                known = schema.get("properties", {})
                like = schema.get("patternProperties", {})
                for name in value if isinstance(value, dict) else ():
                    if name in known or any(re.search(pattern, name) for pattern in like):
                        continue
                    if asked is False:
                        yield f"{at}: {name} is not known"
                    elif isinstance(asked, dict):
                        yield from wrong(root, asked, value[name], f"{at}/{name}")
            case _:
                assert keyword in SAID, f"this check does not know {keyword}"


def loaded(text: str) -> Any:
    """As an editor reads it: YAML 1.2."""
    return YAML(typ="safe", pure=True).load(StringIO(text))


OF_PLANT_FILES = ("connection", "endpoint:", "driver:", "training:", "cleaning:")


def examples() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for place, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)):
            if not any(word in text for word in OF_PLANT_FILES):
                whole = re.sub("([0-9a-f]+)…", lambda begun: begun[1].ljust(64, "0"), text)
                yield f"{page.stem} {place}", whole.replace("procedure:\n  ...\n", "")


def found_in(value: Any) -> list[str]:
    """What is wrong with a whole file, with some of its keys, or with steps."""
    if isinstance(value, list):
        root = SCHEMAS["recipe"]
        (steps,) = [one["properties"]["steps"] for name, one in root["$defs"].items() if name == "Operation"]
        return list(wrong(root, steps, value))
    kind = next((name for name in SCHEMAS if name in value), "")
    if kind and (kind != "recipe" or "procedure" in value):
        return list(wrong(SCHEMAS[kind], SCHEMAS[kind], value))
    root = SCHEMAS["recipe"]
    return list(wrong(root, {name: one for name, one in root.items() if name != "required"}, value))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_ships_is_as_the_schema_says(file: Path) -> None:
    assert found_in(loaded(file.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(("name", "text"), [pytest.param(*one, id=one[0]) for one in examples()])
def test_the_examples_of_the_pages_are_as_the_schema_says(name: str, text: str) -> None:
    assert found_in(loaded(text)) == [], name


def test_the_pages_show_what_is_new_in_the_language() -> None:
    shown = "".join(text for _, text in examples())
    for key in ("phase: service", "sampling:", "attachments:", "alarm:", "amendments:", "site:", "library_operation:"):
        assert key in shown


def test_a_mistake_is_found() -> None:
    right = loaded((SHIPPED / "cart-b1.yaml").read_text(encoding="utf-8"))
    for place, change in (
        ((), {"sampling": {"daily": {"during": "010"}}}),
        ((), {"amendments": {"bounds": [{"step": "010", "feild": "limit.high"}]}}),
        ((), {"attachments": [{"file": "x.txt"}]}),
        ((), {"colour": "red"}),
        ((), {"recipe": 5}),
        ((0,), {"phase": "dance"}),
        ((0,), {"colour": "red"}),
        ((0,), {"title": None}),
    ):
        spoiled = deepcopy(right)
        (spoiled["procedure"][0]["operations"][0]["steps"][place[0]] if place else spoiled).update(change)
        assert found_in(spoiled), change
