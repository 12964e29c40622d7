"""Formulas: what they may say, how they refuse, and that nothing unusable ever decides."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.core import formula
from edge.core.errors import LinesideError
from edge.core.formula import Given, Variable, compile_formula, names_in, renamed

VARIABLES = {
    "vcd": Variable("number", "1e6/mL"),
    "zero": Variable("number"),
    "reactor.do": Variable("number", "%"),
    "$volume": Variable("number", "mL"),
    "lot": Variable("text"),
    "clean": Variable("bool"),
    "loop": Variable("number"),
}
GIVEN = {
    "vcd": Given(4.0, "1e6/mL"),
    "zero": Given(0.0),
    "reactor.do": Given(0.41, "1"),
    "$volume": Given(1.0, "L"),
    "lot": Given("CD3-1"),
    "clean": Given(True),
    "loop": Given(3),
}
WORTH = {
    "vcd * 2": 8.0,
    "vcd*2 > 7 && clean": True,
    "reactor.do": 41.0,
    "$volume * 0.03": 30.0,
    "lot.startsWith('CD3-')": True,
    'lot in ["CD3-1", "CD3-2"]': True,
    "lot + '!'": "CD3-1!",
    "vcd > 3 ? 1 : 2": 1.0,
    "loop + 1e3": 1003.0,
    "-vcd / -2": 2.0,
    "!clean": False,
    "zero != 0.0 && vcd / zero > 3.0": False,
    "clean || vcd / zero > 3.0": True,
    "vcd in [-4, 4]": True,
    "(vcd > 3 ? vcd : zero) / (1 + 1)\n * 2": 4.0,
}
REFUSED = {
    "": ("formula.syntax", 1),
    "vcd +": ("formula.syntax", 6),
    "vcd * lot": ("formula.type", 5),
    "vdc > 1": ("formula.unknown_name", 1),
    "vcd > 1 && min(vcd, 2) > 1": ("formula.function", 12),
    "vcd % 2": ("formula.syntax", 5),
    "vcd = 2": ("formula.syntax", 5),
    "lot == 'a": ("formula.syntax", 8),
    "lot > 3": ("formula.type", 5),
    "[vcd]": ("formula.syntax", 2),
    "[1, 2]": ("formula.type", 1),
    "[1, 2].map(x, x * 2)": ("formula.syntax", 7),
    "lot.matches('(a+)+$')": ("formula.function", 1),
    "_0 > 1": ("formula.syntax", 1),
    "_f(vcd)": ("formula.syntax", 1),
    "0x1f": ("formula.syntax", 1),
    "1e400 > 1": ("formula.syntax", 1),
    "vcd > 1 vcd": ("formula.syntax", 9),
    "clean ? 1 : 'a'": ("formula.type", 7),
    "dyn(vcd) + 1": ("formula.function", 1),
    "{1: 2}": ("formula.syntax", 1),
    "(" * 400 + "vcd" + ")" * 400: ("formula.too_long", 1),
    "(" * 90 + "vcd" + ")" * 90: ("formula.syntax", None),
    "vcd" + " + vcd" * 60: ("formula.syntax", None),
    "vcd + " * 300: ("formula.too_long", 1),
}
NOT_USABLE = [
    "vcd / zero",
    "zero / zero",
    "vcd / zero > 3",
    "zero / zero > 3",
    "zero / zero == zero / zero",
    "1 / (vcd / zero) < 3",
    "1 / (vcd / zero)",
    "vcd * 1e308 * 1e308 * 0 > 1",
    "vcd * 1e308 * 1e308 > 1",
    "1 > vcd / (zero / zero)",
    "(vcd / zero > 1) ? 1 : 2",
    "!(vcd / -zero > 1)",
]


@pytest.mark.parametrize("text", WORTH)
def test_what_comes_out(text: str) -> None:
    found = compile_formula(text, VARIABLES).value(GIVEN)
    assert found == (pytest.approx(WORTH[text]) if isinstance(found, float) else WORTH[text])


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_refused_says_where_and_what_to_do(text: str) -> None:
    with pytest.raises(LinesideError) as refused:
        compile_formula(text, VARIABLES)
    code, column = REFUSED[text]
    assert refused.value.code == code
    assert refused.value.todo
    assert refused.value.place is not None
    assert refused.value.place.line == 1
    assert column in {None, refused.value.place.column}


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(LinesideError) as refused:
        compile_formula("reactor.od > 40", VARIABLES)
    assert refused.value.todo == "Did you mean 'reactor.do'?"


@pytest.mark.parametrize("text", NOT_USABLE)
def test_nothing_that_is_not_finite_decides(text: str) -> None:
    with pytest.raises(LinesideError) as refused:
        compile_formula(text, VARIABLES).value(GIVEN)
    assert refused.value.code == "formula.not_usable"


@pytest.mark.parametrize(("planted", "lost"), [("_finite", 2), ("_divisor", 2)])
def test_without_the_guard_it_would_decide(planted: str, lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: a comparison, or a division, that does not look whether its number is finite."""
    monkeypatch.setattr(formula, planted, lambda number: number)
    formula._compiled.cache_clear()
    decided = 0
    for text in NOT_USABLE:
        try:
            compile_formula(text, VARIABLES).value(GIVEN)
        except LinesideError:
            continue
        decided += 1
    formula._compiled.cache_clear()
    assert decided >= lost


@pytest.mark.parametrize(
    ("name", "instead", "why"),
    [
        ("vcd", None, "has no value"),
        ("vcd", Given(0.0, "1e6/mL", "the reading is stale."), "stale"),
        ("vcd", Given(float("nan"), "1e6/mL"), "nan"),
        ("vcd", Given("4", "1e6/mL"), "not a number"),
        ("vcd", Given(True), "not a number"),
        ("lot", Given(4.0), "not a text"),
        ("clean", Given(1), "not true or false"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(name: str, instead: Given | None, why: str) -> None:
    given = {**GIVEN, name: instead} if instead else {one: value for one, value in GIVEN.items() if one != name}
    with pytest.raises(LinesideError) as refused:
        compile_formula("vcd > 1 && lot == 'a' && clean", VARIABLES).value(given)
    assert refused.value.code == "formula.not_usable"
    assert name in refused.value.what
    assert why in refused.value.what


def test_a_condition_is_true_or_false() -> None:
    with pytest.raises(LinesideError, match="true or false"):
        compile_formula("vcd", VARIABLES, "bool")
    assert compile_formula("vcd > 1", VARIABLES, "bool").kind == "bool"


def test_names_in_a_formula_and_other_names_for_them() -> None:
    text = "vessel.do >  40 && $soak*2 > vcd && lot.contains('vcd')"
    assert names_in(text) == ["vessel.do", "$soak", "vcd", "lot"]
    new = renamed(text, lambda name: {"vessel.do": "reactor.do", "$soak": "$soak__030"}.get(name, name))
    assert new == "reactor.do >  40 && $soak__030*2 > vcd && lot.contains('vcd')"


def test_the_library_is_imported_by_a_formula_alone() -> None:
    code = (
        "import sys, edge.core.decide, edge.core.recipe, edge.core.formula as f\n"
        "assert not [m for m in sys.modules if m.startswith('cel_')]\n"
        "assert f.compile_formula('1 > 0', {}).value({}) is True\n"
        "assert 'cel_expr_python' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# Anything at all -------------------------------------------------------------------------------------------------

PIECES = [*VARIABLES, *"+-*/<>!?:,()[]", "&&", "||", "==", "in", "true", "1", "2.5", "1e9", "'a'", " ", "$", "_0", "\\",
          "\n", "°", "=", "{", "}", "map", ".startsWith(", "r'", "0x", "u", "\ud800", "\x00"]  # fmt: skip


def judged(text: str) -> str:
    """What becomes of it: the code of its refusal, or the kind of its result."""
    try:
        made = compile_formula(text, VARIABLES)
        value = made.value(GIVEN)
    except LinesideError as refused:
        assert refused.code.startswith("formula.")
        assert refused.what
        assert refused.todo
        return refused.code
    assert not isinstance(value, float) or value - value == 0
    return made.kind


def test_mutated_formulas_are_judged_in_bounded_time_and_memory() -> None:
    chance = random.Random(4)
    whole = [*WORTH, *NOT_USABLE]
    seen: set[str] = set()
    began_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    worst_s = 0.0
    for _ in range(4_000):
        text = chance.choice(whole)
        for _ in range(chance.randint(1, 6)):
            at = chance.randint(0, len(text))
            text = chance.choice(
                [
                    text[:at] + chance.choice(PIECES) + text[at:],
                    text[:at] + text[at + 1 :],
                    text[:at] + text[at:] * chance.choice([1, 2, 30]),
                    chance.choice(PIECES) * chance.choice([1, 40, 200]) + text,
                ]
            )[:5_000]
        began_s = time.process_time()
        seen.add(judged(text))
        worst_s = max(worst_s, time.process_time() - began_s)
    assert {"formula.syntax", "formula.type", "formula.too_long", "formula.not_usable", "number", "bool"} <= seen
    assert worst_s < 10, "nothing grows without bound; how fast it is on a good day is measured in bench"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began_kib < 64 * 1024


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60))
def test_any_pieces_are_a_formula_or_a_refusal(pieces: list[str]) -> None:
    judged("".join(pieces))


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=100))
def test_any_text_is_a_formula_or_a_refusal(text: str) -> None:
    judged(text)
