"""What the documentation shows is true: the example of the how-to page, and the schema that editors use."""

from __future__ import annotations

import json
import re
from pathlib import Path

from typer.testing import CliRunner

from edge.__main__ import app
from edge.core.recipe import check_recipe, read_operation, read_recipe, remarks, seal
from edge.core.recipe.model import Loop, Recipe, Select
from edge.core.recipe.read import PHASES
from edge.library import read_recipe_file
from tests.core.recipe.test_recipe import cell

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "write-a-recipe-with-loops.md").read_text(encoding="utf-8")
RECIPE, OPERATION, CALL = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_fed_batch_of_the_page_checks_clean() -> None:
    document = read_recipe(RECIPE.encode(), "fed-batch.yaml")
    assert check_recipe(document, cell()) == []
    assert [one.code for one in remarks(document)] == ["recipe.unused_role"]
    assert {Loop, Select} <= {type(step) for step in document.recipe.steps().values()}
    head = RECIPE.partition("          - id: ")[0]
    assert read_operation(OPERATION.encode(), "soak").version == "1.2"
    called = read_recipe((head + " " * 10 + CALL).encode(), "r", {("soak", "1.2"): OPERATION.encode()}).recipe
    assert list(called.steps()) == ["100", "100/010"]


def test_the_schema_knows_every_phase_and_key() -> None:
    result = CliRunner().invoke(app, ["recipe", "schema"])
    schema = json.loads(result.stdout)
    assert schema == {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    keys = [one.get("properties", {}) for one in schema["$defs"].values()]
    named = {one["phase"]["const"] for one in keys if "phase" in one}
    assert named == set(PHASES)
    assert {"while", "until", "times"} <= set(schema["$defs"]["Loop"]["properties"])
    assert "else" in schema["$defs"]["Select"]["properties"]
    assert CliRunner().invoke(app, ["recipe", "schema", "--operation"]).stdout.count("library_operation")


def test_the_shipped_recipes_keep_the_seals_that_batches_pin() -> None:
    """Raise one when its process changes, not when the language grows."""
    folder = Path(__file__).parents[3] / "edge" / "core" / "recipe" / "shipped"
    assert {path.stem: seal(read_recipe_file(path).recipe) for path in folder.glob("*.yaml")} == {
        "cart-b1": "6255747544ff3e68c73b0573ed611559761cfa5616136dfac5b55d1742945b7b",
        "eq-daily": "7655d00eeabc038f814b6a6bfd0f05ecce81a781e3413b481177f2f59bd7b221",
        "mab-fb": "211cb664f1a9a9a6c2ec000e464622939d0929f3607b26df07bac95defb34a3a",
    }
