"""Recipes of every shape, made from the model's own schema, and the BatchML schemas that an export is held against."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
from hypothesis import reject
from hypothesis import strategies as st
from lxml import etree
from pydantic import BaseModel, ValidationError

from edge.core.recipe import Recipe, model, read_recipe
from edge.library import LibraryOperations

FOLDER = Path(__file__).parent
SHIPPED = sorted(
    (path.name, path.read_bytes())
    for path in files("edge.core.recipe").joinpath("shipped").iterdir()
    if path.name.endswith(".yaml")
)


def recipe(data: bytes) -> Recipe:
    return read_recipe(data, "recipe.yaml", LibraryOperations(FOLDER)).recipe


CART_B1 = recipe(dict(SHIPPED)["cart-b1.yaml"])


# Any recipe that the model lets in -----------------------------------------------------------------------------------

# Every character that a recipe's file can hold, with what XML and YAML could take for something else more often.
_CHARACTERS = st.sampled_from(" \n\t<>&'\"]:#-{}[]%@`|$") | st.characters(
    exclude_categories=("Cs", "Cc", "Cf"), exclude_characters="\u2028\u2029\ufffe\uffff\ufeff"
)


def recipes() -> st.SearchStrategy[Recipe]:
    """Recipes made from the JSON Schema of the model: a phase or field that is added later is in them by itself."""
    schema = Recipe.model_json_schema(by_alias=True)
    made = _Maker(schema["$defs"]).of(schema)
    return _such(made.map(_modelled), lambda found: found is not None)


@st.composite
def _such(draw: st.DrawFn, strategy: st.SearchStrategy[Any], holds: Callable[[Any], bool]) -> Any:
    """As `filter`, which would write the whole schema into its notes for every value that it passes over."""
    for _ in range(5):
        if holds(found := draw(strategy)):
            return found
    return reject()


def recipes_with(phase: type[BaseModel]) -> st.SearchStrategy[Recipe]:
    """Small recipes of one step of this phase."""
    schema = Recipe.model_json_schema(by_alias=True)
    step = _Maker(schema["$defs"]).of({"$ref": f"#/$defs/{phase.__name__}"})

    def around(inner: Any) -> Any:
        operation = {"operation": "O", "steps": [inner]}
        return {"recipe": "R", "version": "1", "title": "T",
                "procedure": [{"unit_procedure": "U", "operations": [operation]}]}  # fmt: skip

    return _such(step.map(around).map(_modelled), lambda found: found is not None)


def _modelled(content: Any, kind: type[BaseModel] = Recipe) -> Any:
    try:
        return kind.model_validate_json(orjson.dumps(content), strict=True)
    except ValidationError:
        return None


def _valid(kind: Any, content: Any) -> bool:
    if kind is model.Call and not content.get("steps"):
        return False  # a recipe that was read has the steps of what it calls
    return not isinstance(kind, type) or not issubclass(kind, BaseModel) or _modelled(content, kind) is not None


class _Maker:
    def __init__(self, definitions: dict[str, Any]) -> None:
        self._definitions = definitions
        self._made: dict[str, st.SearchStrategy[Any]] = {}

    def of(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            if name not in self._made:
                whole = st.deferred(lambda: self.of(self._definitions[name]))
                # what a model's own checks refuse is refused here, not with the whole recipe around it
                self._made[name] = _such(whole, lambda found: _valid(getattr(model, name, None), found))
            return self._made[name]
        if "const" in schema:
            return st.just(schema["const"])
        if "enum" in schema:
            return st.sampled_from(schema["enum"])
        if several := schema.get("anyOf") or schema.get("oneOf"):
            return st.one_of([self.of(one) for one in several])
        match schema.get("type"):
            case "object":
                return self._object(schema)
            case "array" if "prefixItems" in schema:
                return st.tuples(*(self.of(one) for one in schema["prefixItems"])).map(list)
            case "array":
                least = schema.get("minItems", 0)
                return st.lists(self.of(schema["items"]), min_size=least, max_size=least + 2)
            case "string" if "pattern" in schema:
                return st.from_regex(re.compile(schema["pattern"], re.ASCII), fullmatch=True)
            case "string":
                most = min(schema.get("maxLength", 20), 20)
                return st.text(_CHARACTERS, min_size=schema.get("minLength", 0), max_size=most)
            case "number":
                return st.floats(schema.get("minimum", -1e300), schema.get("maximum", 1e300)) | st.sampled_from(
                    [0.1, 37.0]
                )
            case "integer":
                return st.integers(schema.get("minimum", -(2**53)), schema.get("maximum", 2**53))
            case "boolean":
                return st.booleans()
            case "null":
                return st.none()
        raise AssertionError(f"No values are made for {schema}")

    def _object(self, schema: dict[str, Any]) -> st.SearchStrategy[Any]:
        if "properties" not in schema:
            patterns = schema.get("patternProperties", {})
            pattern, inner = next(iter(patterns.items()), (None, schema.get("additionalProperties", True)))
            pattern = pattern or schema.get("propertyNames", {}).get("pattern")
            keys = (
                st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True)
                if pattern
                else st.text(_CHARACTERS, min_size=1)
            )
            return st.dictionaries(keys, self.of(inner), max_size=3)
        required = schema.get("required", ())
        fields = {name: self.of(one) for name, one in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: one for name, one in fields.items() if name in required},
            optional={name: one for name, one in fields.items() if name not in required},
        )


# The published schemas -----------------------------------------------------------------------------------------------

_BOTH = """<xsd:schema xmlns:xsd="http://www.w3.org/2001/XMLSchema" targetNamespace="http://www.mesa.org/xml/B2MML">
  <xsd:include schemaLocation="BatchML-BatchInformation.xsd"/><xsd:include schemaLocation="BatchML-GeneralRecipe.xsd"/>
</xsd:schema>"""


class _Zipped(etree.Resolver):  # type: ignore[misc]
    """The schemas beside this file, as they were published; or a folder of them that LINESIDE_B2MML names."""

    def __init__(self) -> None:
        self._zip = zipfile.ZipFile(FOLDER / "b2mml-v0700.zip")
        self._folder = os.environ.get("LINESIDE_B2MML", "")

    def resolve(self, url: str, _public: str, context: Any) -> Any:
        name = url.rpartition("/")[2]
        data = Path(self._folder, name).read_bytes() if self._folder else self._zip.read(f"Schema/{name}")
        return self.resolve_string(data, context, base_url=url)


@cache
def published() -> Any:
    """BatchML V0700, without any change."""
    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(_Zipped())
    return etree.XMLSchema(etree.fromstring(_BOTH, parser))


def faults(data: bytes) -> list[str]:
    """What the published schema finds wrong in a document."""
    schema = published()
    schema.validate(etree.fromstring(data))
    return [str(one) for one in schema.error_log]
