"""Our recipes as BatchML: valid against the published schema, and back without loss."""

from __future__ import annotations

import tracemalloc
from copy import deepcopy
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree
from pydantic import BaseModel

from edge.core.errors import LinesideError
from edge.core.recipe import Recipe, read_recipe, seal
from edge.core.recipe.model import Step
from edge.exchange import BYTES_MAX, Kind, export, read
from edge.exchange.markup import ATTRIBUTES_MAX, DEPTH_MAX, ELEMENTS_MAX
from tests.exchange.documents import CART_B1, SHIPPED, faults, recipe, recipes, recipes_with

KINDS: tuple[Kind, ...] = get_args(Kind)


def back(data: bytes) -> Recipe:
    draft = read(data, "file.xml")
    assert draft.exact
    assert draft.unmapped == ()
    assert draft.remarks == ()
    return read_recipe(draft.text.encode(), "draft.yaml").recipe


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "data"), SHIPPED)
def test_a_shipped_recipe_is_valid_batchml_and_comes_back_with_its_seal(name: str, data: bytes, kind: Kind) -> None:
    del name
    written = export(recipe(data), kind)
    assert faults(written) == []
    assert seal(back(written)) == seal(recipe(data))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes(), st.sampled_from(KINDS))
def test_any_recipe_comes_back_with_its_seal(made: Recipe, kind: Kind) -> None:
    written = export(made, kind)
    assert faults(written) == []
    assert seal(back(written)) == seal(made)


@pytest.mark.parametrize("phase", get_args(get_args(Step)[0]), ids=lambda phase: phase.__name__)
def test_every_phase_of_the_language_comes_back_whole(phase: type[BaseModel]) -> None:
    """A phase that is added later is tried by itself: neither the export nor this test names any."""

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(recipes_with(phase), st.sampled_from(KINDS))
    def tried(made: Recipe, kind: Kind) -> None:
        written = export(made, kind)
        assert faults(written) == []
        assert seal(back(written)) == seal(made)

    tried()


def test_another_system_finds_the_process_in_the_standards_own_elements() -> None:
    text = export(CART_B1).decode()
    assert "<MasterRecipe>" in text
    assert text.count("<RecipeElementType>UnitProcedure</RecipeElementType>") == len(CART_B1.procedure)
    for said in (
        "<ID>culture_temperature</ID>", "<ValueString>37.0</ValueString>", "<UnitOfMeasure>degC</UnitOfMeasure>",
        "<DataInterpretation>Reference</DataInterpretation>", "<LinkType>ParallelDivergent</LinkType>",
        "<BuildingBlockElementID>hold</BuildingBlockElementID>", "<Condition>bioreactor</Condition>",
    ):  # fmt: skip
        assert said in text, said


def test_the_same_recipe_gives_the_same_bytes() -> None:
    assert export(CART_B1) == export(CART_B1)


# Changed on the way --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("was", "became"),
    [
        ("<ValueString>37.0</ValueString>", "<ValueString>39.0</ValueString>"),
        ("<Description>Warm the reactor</Description>", "<Description>Warm it</Description>"),
        ("<UnitOfMeasure>degC</UnitOfMeasure>", "<UnitOfMeasure>K</UnitOfMeasure>"),
        ("<Condition>bioreactor</Condition>", "<Condition>mixer</Condition>"),
    ],
)
def test_what_was_changed_on_the_way_is_seen(was: str, became: str) -> None:
    draft = read(export(CART_B1).decode().replace(was, became, 1).encode(), "file.xml")
    assert not draft.exact
    assert draft.remarks[0].startswith("It was changed since its export")


@pytest.mark.parametrize(
    ("was", "became", "what"),
    [
        ("<FromIDValue>033</FromIDValue>", "<FromIDValue>031</FromIDValue>", "FromIDValue"),
        ("</MasterRecipe>", "<OtherInformation><ID>theirs</ID></OtherInformation></MasterRecipe>", "theirs"),
        ("</Formula>", "<x:Colour xmlns:x='urn:x'>red</x:Colour></Formula>", "red"),
        ("<LinkType>ParallelDivergent</LinkType>", "<LinkType>SerialDivergent</LinkType>", "SerialDivergent"),
        ("<MasterRecipe>", "<Description>From plant B</Description><MasterRecipe>", "From plant B"),
    ],
)
def test_what_was_added_on_the_way_is_reported(was: str, became: str, what: str) -> None:
    """The reader does not look at links: that nothing is lost is shown by writing anew what was read."""
    written = export(CART_B1).decode()
    assert was in written
    draft = read(written.replace(was, became, 1).encode(), "file.xml")
    assert any(what in one.path or what in one.what for one in draft.unmapped), draft.unmapped


def test_a_step_that_is_no_longer_whole_comes_in_as_a_draft_that_says_so() -> None:
    written = export(CART_B1).decode().replace("<BuildingBlockElementID>set</BuildingBlockElementID>", "", 1)
    draft = read(written.encode(), "file.xml")
    assert not draft.exact
    assert "not a whole recipe" in draft.remarks[0]
    with pytest.raises(LinesideError):
        read_recipe(draft.text.encode(), "draft.yaml")


# Nothing but plain XML, within bounds --------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
HEAD = '<BatchInformation xmlns="http://www.mesa.org/xml/B2MML">'
BOMBS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "exchange.syntax"),
    "not xml": (b"recipe: X\n", "exchange.syntax"),
    "a billion laughs": (f'<!DOCTYPE x [<!ENTITY a0 "x">{LAUGHS}]><x>&a11;</x>'.encode(), "exchange.doctype"),
    "laughs in utf-16": (f'<!DOCTYPE x [<!ENTITY a0 "x">{LAUGHS}]><x>&a11;</x>'.encode("utf-16"), "exchange.doctype"),
    "quadratic": (f'<!DOCTYPE x [<!ENTITY a "{"x" * 50_000}">]><x>{"&a;" * 50_000}</x>'.encode(), "exchange.doctype"),
    "external entity": (b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>', "exchange.doctype"),
    "external parameters": (b'<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><x/>', "exchange.doctype"),
    "entity unknown": (f"{HEAD}&a;</BatchInformation>".encode(), "exchange.syntax"),
    "deep": ((HEAD + "<a>" * 1_000_000).encode(), "exchange.too_deep"),
    "one too deep": ((HEAD + "<a>" * DEPTH_MAX).encode(), "exchange.too_deep"),
    "many": ((HEAD + "<a/>" * (ELEMENTS_MAX + 1) + "</BatchInformation>").encode(), "exchange.too_large"),
    "many attributes": (
        ("<x " + " ".join(f'a{n}="1"' for n in range(ATTRIBUTES_MAX + 1)) + "/>").encode(),
        "exchange.too_large",
    ),
    "large": (HEAD.encode() + b" " * BYTES_MAX, "exchange.too_large"),
    "a gigabyte's beginning": (HEAD.encode() + b"x" * 11_000_000, "exchange.syntax"),
    "utf-7": (b'<?xml version="1.0" encoding="utf-7"?><x/>', "exchange.encoding"),
    "not the encoding it says": (b'<?xml version="1.0" encoding="utf-8"?><x>\xff</x>', "exchange.encoding"),
    "cut": (export(CART_B1)[:-20], "exchange.syntax"),
    "two": (export(CART_B1) * 2, "exchange.syntax"),
    "another format": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "exchange.foreign"),
    "no namespace": (b"<MasterRecipe/>", "exchange.foreign"),
    "no recipe": (f"{HEAD}</BatchInformation>".encode(), "exchange.no_recipe"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_not_plain_batchml_is_refused_in_bounded_memory(name: str) -> None:
    data, code = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(LinesideError) as caught:
            read(data, "file.xml")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == code
    assert caught.value.todo
    assert peak < 10 * len(data) + 200_000_000


def test_a_segment_that_is_named_twice_holds_its_steps_once() -> None:
    """Or thirty levels, each naming the one below twice, would be a thousand million steps."""
    root = etree.fromstring(export(CART_B1))
    named = root.xpath("//b:Parameter[b:ID='branches']", namespaces={"b": root.nsmap[None]})
    for parameter in named:
        again = deepcopy(parameter)
        again[0].text = "again"
        parameter.addnext(again)
    draft = read(etree.tostring(root), "file.xml")
    assert named
    assert len(draft.text) < 1.1 * len(read(export(CART_B1), "file.xml").text)
