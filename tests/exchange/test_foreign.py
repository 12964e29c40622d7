"""Other systems' BatchML: a draft that a person can go on with, and a report of everything that is not in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge.core.errors import LinesideError
from edge.core.recipe import Recipe, check_recipe, read_recipe
from edge.core.recipe.model import Instruct, Parallel
from edge.exchange import Draft, read

NOW = "http://www.mesa.org/xml/B2MML"
SHARED = Path(os.environ.get("LINESIDE_B2MML_EXAMPLES", Path(__file__).parents[3] / "shared/data/b2mml/examples"))


def element(kind: str, name: str, inner: str = "", said: str = "", block: str = "") -> str:
    block = f"<BuildingBlockElementID>{block}</BuildingBlockElementID>" if block else ""
    return (
        f"<RecipeElement><ID>{name}</ID><Description>{said or name}</Description>"
        f"<RecipeElementType>{kind}</RecipeElementType>{block}{inner}</RecipeElement>"
    )


def parameter(name: str, value: str, unit: str) -> str:
    return (
        f"<Parameter><ID>{name}</ID><ParameterType>ProcessParameter</ParameterType><Value><ValueString>{value}"
        "</ValueString><DataInterpretation>Constant</DataInterpretation><DataType>double</DataType>"
        f"<UnitOfMeasure>{unit}</UnitOfMeasure></Value></Parameter>"
    )


def link(name: str, ones: str, afters: str, sort: str = "ControlLink") -> str:
    def ends(word: str, all_of: str) -> str:
        return "".join(
            f"<{word}ID><{word}IDValue>{one}</{word}IDValue><{word}Type>{'Transition' if one[0] == 'T' else 'Step'}"
            f"</{word}Type><IDScope>Internal</IDScope></{word}ID>"
            for one in all_of.split()
        )

    ends_of_it = ends("From", ones) + ends("To", afters)
    return f"<Link><ID>{name}</ID>{ends_of_it}<LinkType>{sort}</LinkType><Depiction>Line</Depiction></Link>"


def logic(links: str, steps: str, transitions: str = "") -> str:
    listed = "".join(
        f"<Step><ID>{one}</ID><RecipeElementID>{one.lower()}</RecipeElementID>"
        "<RecipeElementVersion>1</RecipeElementVersion></Step>"
        for one in steps.split()
    )
    return f"<ProcedureLogic>{links}{listed}{transitions}</ProcedureLogic>"


def master(inner: str, namespace: str = NOW) -> bytes:
    return (
        f'<?xml version="1.0"?><b:BatchInformation xmlns:b="{namespace}"><b:MasterRecipe>'
        + inner.replace("</", "\0").replace("<", "<b:").replace("<b:!", "<!").replace("\0", "</b:")
        + "</b:MasterRecipe></b:BatchInformation>"
    ).encode()


HEAD = (
    "<ID>MR 7/Aspirin</ID><Version>3</Version><Description>Aspirin</Description>"
    "<Header><ProductID>ASA</ProductID></Header>"
)
PHASES = element("Begin", "start") + "".join(element("Phase", name, block=f"PH_{name.upper()}") for name in "abcdef")
# As a control system draws it: a begin, A, then B before C beside D, then E or F by a condition, and back to A.
DRAWN = logic(
    link("0", "START", "A")
    + link("1", "A", "T1")
    + link("2", "T1", "B D", "ParallelDivergent")
    + link("3", "B", "C")
    + link("4", "C D", "T2", "ParallelConvergent")
    + link("5", "T2", "E F", "SerialDivergent")
    + link("6", "F", "A"),
    "F E D C B A START",
    "<Transition><ID>T2</ID><Condition>pH &gt; 7 AND mode = 3</Condition></Transition>",
)
WHOLE = master(
    HEAD + "<EquipmentRequirement><ID>R1</ID><Constraint><ID>1</ID><Condition>Class = Reactor</Condition></Constraint>"
    "</EquipmentRequirement>"
    + f"<Formula>{parameter('TEMP SP', '37.5', '°C')}{parameter('MODE', 'fast', '')}</Formula>"
    + element("UnitProcedure", "up", element("Operation", "op", DRAWN + PHASES))
)


def drafted(data: bytes) -> tuple[Draft, Recipe]:
    draft = read(data, "theirs.xml")
    assert not draft.exact
    document = read_recipe(draft.text.encode(), "draft.yaml")
    check_recipe(document, None)
    return draft, document.recipe


def test_a_control_systems_recipe_comes_in_with_its_levels_order_and_branches() -> None:
    draft, recipe = drafted(WHOLE)
    assert (recipe.recipe, recipe.version, recipe.title) == ("MR-7-Aspirin", "3", "Aspirin")
    assert recipe.units["R1"].cls == "Reactor"
    assert (recipe.parameters["TEMP_SP"].value, recipe.parameters["TEMP_SP"].unit) == (37.5, "degC")
    first, beside, *choice = recipe.main()
    assert first.id == "a"
    assert isinstance(beside, Parallel)
    assert [[step.id for step in branch] for branch in beside.branches] == [["b", "c"], ["d"]]
    assert {step.id for step in choice} == {"e", "f"}
    assert isinstance(first, Instruct)
    assert "PH_A" in first.text
    assert draft.text.count("FILL IN:") == 9


def test_whatever_is_not_in_the_draft_is_in_the_report() -> None:
    draft, _ = drafted(WHOLE)
    told = {(one.path.rpartition("/")[2], one.what) for one in draft.unmapped}
    assert ("Header", "ASA") in told
    assert ("Parameter[MODE]", "MODE, ProcessParameter") in told
    assert ("Transition[T2]", "T2, pH > 7 AND mode = 3") in told
    whys = " ".join(one.why for one in draft.unmapped)
    assert "The choice behind it is not made" in whys
    assert "The way back is not taken" in whys
    assert all(one.path.startswith("/BatchInformation/MasterRecipe") and one.why for one in draft.unmapped)


@pytest.mark.parametrize(
    "said",
    ["http://www.mesa.org/xml/B2MML-V0600", "http://www.wbf.org/xml/B2MML-V0401", "http://www.wbf.org/xml/BatchML-V02",
     "http://www.wbf.org/xml/batchml-v0401"],
)  # fmt: skip
def test_an_older_namespace_is_named(said: str) -> None:
    draft, recipe = drafted(WHOLE.replace(NOW.encode(), said.encode()))
    assert said.rpartition("-")[2].upper() in draft.origin
    assert said in draft.remarks[0]
    assert len(recipe.steps()) == 7


def test_a_document_without_levels_or_logic_keeps_the_order_of_the_file() -> None:
    flat = HEAD + element("Phase", "x", parameter("T", "5", "min"), "Stir <![CDATA[& wait]]>") + element("Phase", "y")
    draft, recipe = drafted(master(flat))
    assert [step.id for step in recipe.main()] == ["x", "y"]
    assert recipe.main()[0].title == "Stir & wait"
    assert draft.unmapped


def test_a_vendors_own_elements_are_reported_and_never_taken_for_the_standards() -> None:
    own = HEAD + "<v:RecipeElement xmlns:v='urn:v'><v:ID>no</v:ID></v:RecipeElement>" + element("Phase", "x")
    data = master(own).replace(b"<b:v:", b"<v:").replace(b"</b:v:", b"</v:")
    draft, recipe = drafted(data)
    assert [step.id for step in recipe.main()] == ["x"]
    assert any("{urn:v}RecipeElement" in one.path for one in draft.unmapped)


def test_one_of_several_recipes_is_chosen_by_its_id() -> None:
    both = master(HEAD + element("Phase", "x") + "</MasterRecipe><MasterRecipe><ID>other</ID>" + element("Phase", "y"))
    with pytest.raises(LinesideError) as caught:
        read(both, "theirs.xml")
    assert caught.value.code == "exchange.several"
    assert "other" in caught.value.todo
    assert read(both, "theirs.xml", "other").name == "other"


def test_a_published_general_recipe_comes_in() -> None:
    if not SHARED.is_dir():
        pytest.skip("the published examples are not here: LINESIDE_B2MML_EXAMPLES names their folder")
    draft, recipe = drafted((SHARED / "general_recipe_1.xml").read_bytes())
    assert [step.title for step in recipe.main()] == ["MixingOfLiquids", "Dosing", "HeatingOfLiquids"]
    assert "RotationSpeed001: >=50 rpm, <=300 rpm" in draft.text
    with pytest.raises(LinesideError) as caught:
        read((SHARED / "production_schedule_v0401.xml").read_bytes(), "schedule.xml")
    assert caught.value.code == "exchange.no_recipe"
    assert "V0401" in caught.value.what


# Small files that mean very much -------------------------------------------------------------------------------------


def nested(levels: int, times: int) -> str:
    """Each level runs the one below so many times."""
    inner = element("Phase", f"s{levels}")
    for level in range(levels - 1, -1, -1):
        steps = " ".join(f"S{level}x{at}" for at in range(times))
        run = logic("", steps)
        for step in steps.split():
            run = run.replace(f"<RecipeElementID>{step.lower()}<", f"<RecipeElementID>s{level + 1}<")
        inner = element("Operation", f"s{level}", run + inner)
    return inner


CROWDS = {
    "levels that each run the next twice": HEAD + nested(20, 2),
    "one phase ten thousand times": HEAD
    + element("Operation", "op", nested(1, 900) + nested(1, 900) + nested(1, 900) + element("Phase", "s9")),
    "an element that runs itself": HEAD
    + element("Operation", "op", logic("", "OP") + element("Operation", "inner", logic("", "OP"))),
    "very many steps": HEAD + element("Operation", "op", "".join(element("Phase", f"p{at}") for at in range(5_000))),
    "all linked to all": HEAD
    + element(
        "Operation",
        "op",
        logic(
            "".join(
                link(f"l{n}", f"P{n}", " ".join(f"P{m}" for m in range(n + 1, 120)), "ParallelDivergent")
                for n in range(119)
            ),
            " ".join(f"P{n}" for n in range(120)),
        )
        + "".join(element("Phase", f"p{n}") for n in range(120)),
    ),
    "a text of ten megabytes": HEAD + element("Phase", "x", said="x" * 9_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", CROWDS)
def test_a_small_file_that_means_very_much_ends_soon(name: str) -> None:
    began_s = time.process_time()
    try:
        draft = read(master(CROWDS[name]), "theirs.xml")
        assert len(draft.text) < 4_000_000
        assert len(draft.unmapped) <= 1_001
    except LinesideError as refusal:
        assert refusal.code == "exchange.too_many_steps"
    assert time.process_time() - began_s < 10
