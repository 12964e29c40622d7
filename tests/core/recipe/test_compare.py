"""Differences in process words: none between equal seals, at least one between others, each where it belongs."""

from __future__ import annotations

import copy
from importlib import resources
from random import Random
from typing import Any

import orjson
import pytest

from edge.core.errors import LinesideError
from edge.core.recipe import compare as comparing
from edge.core.recipe import read_recipe, seal
from edge.core.recipe.compare import compare, profile, rank, three_way, where_used
from edge.core.recipe.model import Recipe
from edge.core.recipe.replace import replace
from tests.core.recipe.trees import any_recipe

DATA = (resources.files("edge.core.recipe.shipped") / "cart-b1.yaml").read_bytes()
CART_B1 = read_recipe(DATA, "c.yaml").recipe


def changed(*pairs: tuple[str, str]) -> Recipe:
    text = DATA.decode()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new, 1)
    return read_recipe(text.encode(), "c.yaml").recipe


def said(old: Recipe, new: Recipe) -> list[str]:
    return [change.text for change in compare(old, new)]


KEEP = (
    "{low: 36.5, high: 37.5, unit: degC, placeholder: true, category: major,\n                          why: Activation"
)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (KEEP, KEEP.replace("37.5", "38.0"), "step 038: upper temperature limit 37.5 → 38.0 degC"),
        (KEEP, KEEP.replace("unit: degC", "unit: K"), "step 038: unit of the temperature limit degC → K"),
        ("duration: 4 d", "duration: 5 d", "step 051: duration 4 d → 5 d"),
        ("value: 12.0", "value: 13.0", "parameter feed_flow: value 12.0 → 13.0 mL/min"),
        ("why: Cells lose viability outside.", "why: Because.", "step 011: why of the arrival temperature limit"),
        ("roles: [operator, verifier]", "roles: [verifier]", "step 006: who signs operator, verifier → verifier"),
        ("operation: Enrich\n", "operation: Enrichment\n", "operation Enrich is now called Enrichment"),
        ("pump: {class: pump}", "pump: {class: pump2}", "unit role pump: class of unit pump → pump2"),
        ("accept: [negative to date]", "accept: []", "step 070: choices that are all right"),
        ('version: "1.0"', 'version: "1.1"', "the recipe: version 1.0 → 1.1"),
        ("placeholder: true\n            why: A reactor that is not warm", "why: A reactor that is not warm",
         "step 034: placeholder mark yes → no"),
    ],
)  # fmt: skip
def test_a_change_is_one_sentence_in_process_words(old: str, new: str, sentence: str) -> None:
    found = said(CART_B1, changed((old, new)))
    assert any(line.startswith(sentence) for line in found), found
    assert len(found) <= 3  # a unit changes what both ends are


def test_formatting_comments_order_of_keys_and_spelled_out_defaults_are_no_difference() -> None:
    other = changed(
        ("# CART-B1", "# another comment\n# CART-B1"),
        ("title: Clear the suite\n", "role: operator\n            title: 'Clear the suite'\n"),
        ("{low: 2.0, high: 8.0,", "{high: 8.00,\n                    low: 2.0,"),
    )  # fmt: skip
    assert compare(CART_B1, other) == []
    assert seal(CART_B1) == seal(other)


def test_another_why_is_another_seal_and_is_said() -> None:
    other = changed(("why: Cells lose viability outside.", "why: Cells die outside."))
    assert seal(CART_B1) != seal(other)
    [sentence] = said(CART_B1, other)
    assert "Cells die outside." in sentence


def test_steps_that_were_moved_added_and_removed_are_said_where_they_stand() -> None:
    found = said(CART_B1, changed(('id: "005"', 'id: "004"'), ('until: "072"', 'until: "061"')))
    assert found[0].startswith("step 004 “Clear the suite” was added in operation Line clearance, as its first step")
    assert "step 005 “Clear the suite” was removed (from operation Line clearance)" in found
    data = _data(CART_B1)
    steps = data["procedure"][0]["operations"][1]["steps"]
    steps.insert(0, steps.pop())
    [moved] = said(CART_B1, _recipe(data))
    assert moved == (
        "step 015 “Take over custody” was moved: now in operation Receive the apheresis, as its first step; "
        "before in operation Receive the apheresis, after step 012"
    )


# Equal seals and no difference are the same ------------------------------------------------------------------------


def _data(recipe: Recipe) -> Any:
    return orjson.loads(orjson.dumps(recipe.model_dump(mode="json", by_alias=True)))


def _recipe(data: Any) -> Recipe:
    return Recipe.model_validate_json(orjson.dumps(data))


def _lists_of_steps(node: Any) -> list[list[Any]]:
    found: list[list[Any]] = []
    if isinstance(node, dict):
        for key, value in node.items():
            if key in {"steps", "else"} and isinstance(value, list):
                found.append(value)
            if key == "branches" and value and isinstance(value[0], list):
                found += value
            found += _lists_of_steps(value)
    elif isinstance(node, list):
        for value in node:
            found += _lists_of_steps(value)
    return found


def _texts(node: Any) -> list[tuple[dict[str, Any], str]]:
    if isinstance(node, list):
        return [pair for one in node for pair in _texts(one)]
    if not isinstance(node, dict):
        return []
    here = [
        (node, key) for key, value in node.items() if isinstance(value, str) and key in {"title", "why", "text", "when"}
    ]
    return [*here, *(pair for one in node.values() for pair in _texts(one))]


def mutated(data: Any, dice: Random) -> Any:
    data = copy.deepcopy(data)
    lists = _lists_of_steps(data)
    full = [steps for steps in lists if steps]
    match dice.randrange(8):
        case 0 if full:
            dice.choice(full).pop()
        case 1 if full:
            dice.shuffle(dice.choice(full))
        case 2 if full:
            steps = dice.choice(full)
            moved = steps.pop(dice.randrange(len(steps)))
            inside = _lists_of_steps(moved)
            dice.choice([one for one in lists if not any(one is inner for inner in inside)]).append(moved)
        case 3:
            dice.shuffle(data["procedure"])
        case 4 if data["procedure"]:
            dice.choice(data["procedure"])["operations"].insert(0, {"operation": "New", "steps": []})
        case 5 if data["procedure"]:
            dice.shuffle(dice.choice(data["procedure"])["operations"])
        case 6 if data["procedure"]:
            data["procedure"].pop(dice.randrange(len(data["procedure"])))
        case _ if found := _texts(data):
            node, key = dice.choice(found)
            node[key] = node[key][:-1] + "#"
        case _:
            data["title"] = "another"
    branches = [node["branches"] for steps in lists for node in steps if "branches" in node]
    if branches and dice.random() < 0.3:
        dice.shuffle(dice.choice(branches))
    return data


@pytest.mark.parametrize("seed", range(150))
def test_equal_seals_and_no_difference_are_the_same(seed: int) -> None:
    dice = Random(seed)
    recipe = any_recipe(seed)
    data = _data(recipe)
    for _ in range(3):
        data = mutated(data, dice)
        other = _recipe(data)
        assert (compare(recipe, other) == []) == (seal(recipe) == seal(other))
        assert (compare(other, recipe) == []) == (seal(recipe) == seal(other))
    assert compare(other, _recipe(data)) == []


def _all_of_them() -> None:
    for seed in range(150):
        test_equal_seals_and_no_difference_are_the_same(seed)


def test_the_judge_sees_a_comparison_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing._Comparison, "_moves", lambda _: None)
    with pytest.raises(AssertionError):
        _all_of_them()


# A site and its master ---------------------------------------------------------------------------------------------


def test_three_ways_tell_what_each_changed_and_name_conflicts() -> None:
    ours = changed(
        ("value: 12.0", "value: 13.0"), ("duration: 4 d", "duration: 5 d"), ("title: CD3\n", "title: CD3+\n")
    )
    theirs = changed(
        ("value: 12.0", "value: 14.0"), ("duration: 2 d", "duration: 3 d"), ("title: CD3\n", "title: CD3+\n")
    )
    found = three_way(CART_B1, ours, theirs)
    assert [change.subject for change in found.ours] == ["step 051"]
    assert [change.subject for change in found.theirs] == ["step 072"]
    assert [change.subject for change in found.both] == ["step 081"]
    [(mine, other)] = found.conflicts
    assert (mine.text, other.text) == (
        "parameter feed_flow: value 12.0 → 13.0 mL/min",
        "parameter feed_flow: value 12.0 → 14.0 mL/min",
    )


def test_a_step_that_one_removed_and_the_other_changed_is_a_conflict() -> None:
    data = _data(CART_B1)
    data["procedure"][0]["operations"][0]["steps"].pop(0)
    found = three_way(CART_B1, _recipe(data), changed(("title: Clear the suite", "title: Clear it")))
    assert [(a.kind, b.kind) for a, b in found.conflicts] == [("removed", "changed")]


# Use, likeness, replacing ------------------------------------------------------------------------------------------


def test_where_used_names_step_and_field() -> None:
    assert [(use.subject, use.what) for use in where_used(CART_B1, "reactor.co2")] == [
        ("step 035", "tag: reactor.co2_setpoint"),
        ("step 036", "tag: reactor.co2"),
        ("step 039", "tag: reactor.co2"),
        ("step 056", "tag: reactor.co2"),
    ]
    assert {use.subject for use in where_used(CART_B1, "feed_flow")} == {"the recipe", "step 045"}
    assert where_used(CART_B1, "no such thing") == []


def test_the_most_alike_comes_first_and_says_why() -> None:
    near, far = changed(("title: CD3\n", "title: Something else\n")), any_recipe(3)
    found = rank(profile(CART_B1), [profile(far), profile(near), profile(CART_B1)])
    assert found[0].share == 1.0
    assert 0.9 < found[1].share < 1.0
    assert "operations: activate" in found[0].why


def test_replacing_leaves_every_other_byte_as_it_was() -> None:
    data = DATA.replace(b"\n", b"\r\n")
    done = replace(data, "c.yaml", "37.5", "38.0", "high", {})
    assert done == data.replace(b"high: 37.5", b"high: 38.0")
    assert len(compare(CART_B1, read_recipe(done, "c.yaml").recipe)) == data.count(b"high: 37.5")
    assert replace(data, "c.yaml", "nothing like it", "x", "", {}) == data
    assert replace(DATA, "c.yaml", "005", "00'5\"", "title", {}) == DATA
    quoted = replace(DATA, "c.yaml", "Clear the suite", 'Clear: "all" #1', "title", {})
    assert read_recipe(quoted, "c.yaml").recipe.steps()["005"].title == 'Clear: "all" #1'
    assert replace(DATA, "c.yaml", "operator", "supervisor", "roles", {}).count(b"supervisor") == DATA.count(
        b"[operator,"
    )
    with pytest.raises(LinesideError) as refused:
        replace(DATA, "c.yaml", "hold", "holt", "phase", {})
    assert refused.value.code == "recipe.unknown_phase"
