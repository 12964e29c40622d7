"""The commands that exchange recipes, as a person calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge.__main__ import app
from edge.core.errors import LinesideError
from edge.core.recipe import seal
from edge.identity import DeviceKey, public_text
from tests.exchange.documents import CART_B1, SHIPPED


def told(*words: str | Path) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def cart(tmp_path: Path) -> Path:
    (tmp_path / "cart-b1.yaml").write_bytes(dict(SHIPPED)["cart-b1.yaml"])
    return tmp_path / "cart-b1.yaml"


@pytest.mark.parametrize("kind", ["master", "general"])
def test_out_and_in_again(cart: Path, kind: str) -> None:
    out, draft = cart.with_suffix(".xml"), cart.with_name("draft.yaml")
    written = json.loads(told("recipe", "export", cart, "--kind", kind, "--out", out, "--json"))
    assert written["seal"] == seal(CART_B1)
    assert "as it was exported" in told("recipe", "import", out, "--out", draft)
    assert json.loads(told("recipe", "check", draft, "--json"))["seal"] == written["seal"]
    with pytest.raises(LinesideError) as caught:
        told("recipe", "export", cart, "--out", out)
    assert caught.value.code == "pack.exists"


def test_another_systems_recipe_is_told_of_thing_by_thing(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.xml"
    theirs.write_text(
        "<MasterRecipe xmlns='http://www.wbf.org/xml/BatchML-V02'><ID>R</ID><Version>1</Version>"
        "<Header><ProductID>P</ProductID></Header><RecipeElement><ID>1</ID><RecipeElementType>Phase"
        "</RecipeElementType></RecipeElement></MasterRecipe>"
    )
    shown = told("recipe", "import", theirs, "--out", tmp_path / "a.yaml")
    assert "remark: The file is in an older namespace, V02" in shown
    assert "not mapped: /MasterRecipe/Header" in shown
    facts = json.loads(told("recipe", "import", theirs, "--out", tmp_path / "b.yaml", "--json"))
    assert facts["exact"] is False
    assert {one["path"] for one in facts["unmapped"]} >= {"/MasterRecipe/Header", "/MasterRecipe/RecipeElement[1]"}


def test_a_pack_from_one_site_to_another(cart: Path, tmp_path: Path) -> None:
    key = DeviceKey.create(tmp_path / "device.key")
    (tmp_path / "a.pub").write_text(public_text(key.public))
    (tmp_path / "rehearsal.json").write_text("{}")
    pack = tmp_path / "a.pack"
    words = ("--out", pack, "--key", tmp_path / "device.key", "--rehearsal", tmp_path / "rehearsal.json")
    assert "signed by device" in told("recipe", "pack", cart, *words)
    shown = told("recipe", "unpack", pack, "--trust", tmp_path / "a.pub", "--out", tmp_path / "site")
    assert "every byte holds" in shown
    assert json.loads(told("recipe", "check", tmp_path / "site" / "draft.yaml", "--json"))["seal"] == seal(CART_B1)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as caught:
        told("recipe", "import", tmp_path / "no.xml")
    assert caught.value.code == "pack.unreadable"
