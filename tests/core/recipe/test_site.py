"""One master, two sites: bound and filled, nothing else; what a site must look at when its master moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge import exchange
from edge.__main__ import app
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.line import Book
from edge.core.recipe import Recipe, check_recipe, read_recipe, seal
from edge.core.recipe.compare import compare
from edge.core.recipe.site import derive, read_site, to_look_at
from tests.core.parts import PLANT, VirtualLine

MASTER = """\
recipe: WARM
version: "3"
title: Keep it warm
units: {reactor: {class: bioreactor}}
parameters:
  warm: {value: 37.0, unit: degC, low: 30, high: 38, site: true, placeholder: true, why: The cells' own temperature.}
  longest: {type: duration, value: 1 h}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: set, title: Warm, tag: reactor.setpoint, value: $warm}
          - {id: "020", phase: wait, title: Wait, tag: reactor.temperature, limit: {low: 36, high: 38, unit: degC},
             timeout: $longest}
          - {id: "030", phase: instruct, title: Look, text: Look at it.}
"""
BERLIN = """\
site: BERLIN
version: "1"
master: {recipe: WARM, version: "3", seal: SEAL}
units: {reactor: BR-2}
parameters:
  warm: {value: 36.8, why: The room is warm.}
"""
LEIDEN = BERLIN.replace("BERLIN", "LEIDEN").replace("BR-2", "BR-1").replace("36.8", "37.2")


def master(text: str = MASTER) -> Recipe:
    return read_recipe(text.encode(), "master.yaml").recipe


def site(text: str = BERLIN, of: Recipe | None = None) -> bytes:
    return text.replace("SEAL", seal(of or master())).encode()


def derived(text: str = BERLIN, of: Recipe | None = None) -> Recipe:
    return derive(of or master(), read_site(site(text, of), "site.yaml"))


def refused(do: Callable[[], Any]) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        do()
    assert error.value.what
    assert error.value.todo
    return error.value


def test_one_master_makes_two_sites_and_each_changes_its_binding_and_nothing_else() -> None:
    for text, unit, warm in ((BERLIN, "BR-2", 36.8), (LEIDEN, "BR-1", 37.2)):
        made = derived(text)
        assert (made.units["reactor"].unit, made.parameters["warm"].value, made.version) == (unit, warm, "3.1")
        assert made.procedure == master().procedure
        changes = compare(master(), made)
        said = {"unit role reactor", "parameter warm", "the recipe"}
        assert {change.subject for change in changes} == said, [change.text for change in changes]
        assert {change.field for change in changes if change.subject == "the recipe"} == {"version", "made_from"}
        assert made.made_from is not None
        assert made.made_from.seal == seal(master())
        assert made.made_from.site_seal == read_site(site(text), "x").seal
    assert seal(derived(BERLIN)) != seal(derived(LEIDEN))


def test_a_site_wants_a_clean_unit_where_its_master_does() -> None:
    wants = master(MASTER.replace("{class: bioreactor}", "{class: bioreactor, clean: true}"))
    need = derived(of=wants).units["reactor"]
    assert (need.unit, need.clean) == ("BR-2", True)


def test_the_same_master_and_site_file_make_the_same_seal_whatever_their_form() -> None:
    other_form = BERLIN.replace(
        "{value: 36.8, why: The room is warm.}", "\n    why: The room is warm. # a comment\n    value: 36.8"
    )
    assert seal(derived(other_form)) == seal(derived())
    assert seal(derived(BERLIN.replace("is warm", "is hot"))) != seal(derived()), "a why is content"


@pytest.mark.parametrize(
    ("was", "becomes", "code", "line"),
    [
        ("parameters:", "title: Another\nparameters:", "site.only_binding", 5),
        ("{reactor: BR-2}", "{reactor: BR-2}\nprocedure: []", "site.only_binding", 5),
        ("{value: 36.8, ", "{value: 36.8, high: 45, ", "site.only_binding", 6),
        ("parameters:", "parameters:\n  longest: {value: 9 h}", "site.not_a_site_parameter", 6),
        ("parameters:", "parameters:\n  wram: {value: 36.8}", "site.not_a_site_parameter", 6),
        ("parameters:\n  warm: {value: 36.8, why: The room is warm.}\n", "", "site.parameter_missing", 1),
        ("36.8", "warm", "site.value_type", 6),
        ("{reactor: BR-2}", "{raector: BR-2}", "site.unknown_role", 4),
        ('version: "3"', 'version: "4"', "site.other_master", 3),
        ("SEAL", "0" * 64, "site.other_master", 3),
        ("SEAL", "nonsense", "document.wrong_form", 3),
    ],
)
def test_whatever_else_a_site_file_says_is_refused_with_its_place(was: str, becomes: str, code: str, line: int) -> None:
    assert was in BERLIN
    found = refused(lambda: derived(BERLIN.replace(was, becomes, 1)))
    assert found.place is not None
    assert (found.code, found.place.line) == (code, line)


def test_a_unit_plays_one_role_and_a_sites_recipe_is_no_master() -> None:
    two = master(
        MASTER.replace("{reactor: {class: bioreactor}}", "{reactor: {class: bioreactor}, b: {class: bioreactor}}")
    )
    text = BERLIN.replace("{reactor: BR-2}", "{reactor: BR-2, b: BR-2}")
    assert refused(lambda: derived(text, two)).code == "site.unit_twice"
    made = derived()
    assert refused(lambda: derived(BERLIN, made)).code == "site.of_a_site"


def test_a_batch_runs_on_the_unit_that_the_site_bound_or_not_at_all() -> None:
    made = derived()
    line = VirtualLine(recipe=made)
    line.do(cm.StartBatch(session="S", batch="B1", order="O", seal="seal", patient="", speed=1.0))
    assert line.line.batches["B1"].units == {"reactor": "BR-2"}, "BR-1 is free, too, and first"
    again = cm.StartBatch(session="S", batch="B2", order="O", seal="seal", patient="", speed=1.0)
    assert refused(lambda: line.do(again)).code == "unit.occupied"
    assert line.line.book == Book(PLANT, {"seal": made}, frozenset({"seal"}))


def test_the_checker_looks_for_the_bound_unit_and_at_the_filled_value() -> None:
    def codes(recipe: Recipe) -> list[str]:
        data = json.dumps(recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)).encode()
        return [one.code for one in check_recipe(read_recipe(data, "made"), PLANT)]

    assert codes(derived()) == []
    assert codes(derived(BERLIN.replace("BR-2", "BR-9"))) == ["recipe.unbound_unit"]
    assert codes(derived(BERLIN.replace("36.8", "39.5"))) != [], "outside the master's range"


def test_it_goes_to_other_systems_and_comes_back_with_its_seal() -> None:
    made = derived()
    back = read_recipe(exchange.read(exchange.export(made), "x.xml").text.encode(), "x").recipe
    assert seal(back) == seal(made)


def test_when_the_master_moves_the_site_sees_what_it_must_look_at() -> None:
    text = MASTER.replace('version: "3"', 'version: "4"').replace("high: 38, site", "high: 37, site")
    text = text.replace("title: Warm, tag", "title: Warm it, tag").replace("text: Look at it.", "text: Look twice.")
    text = text.replace("  longest:", "  cold: {value: 4.0, unit: degC, site: true}\n  longest:")
    moved = master(text)
    said = to_look_at(master(), moved, read_site(site(), "site.yaml"))
    assert any("parameter warm" in one and "range" in one for one in said), said
    assert any("cold must be filled" in one for one in said)
    assert any("step 010" in one and "it uses what is set here: reactor, warm" in one for one in said)
    assert not any("step 030" in one for one in said), "nothing of the site stands in it"
    assert seal(moved) in said[-1]
    assert refused(lambda: derive(moved, read_site(site(), "site.yaml"))).code == "site.other_master"


def test_by_the_command_line(tmp_path: Path) -> None:
    files = {"master.yaml": MASTER.encode(), "berlin.yaml": site(), "new.yaml": MASTER.replace('"3"', '"4"').encode()}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    old, berlin, new = (str(tmp_path / name) for name in files)
    out = str(tmp_path / "out.yaml")
    run = CliRunner().invoke
    made = run(app, ["recipe", "derive", old, berlin, "--out", out, "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["seal"] == seal(derived()) == seal(read_recipe(Path(out).read_bytes(), out).recipe)
    again = run(app, ["recipe", "derive", old, berlin, "--out", out])
    assert isinstance(again.exception, LinesideError), "nothing is overwritten"
    told = run(app, ["recipe", "diff", berlin, new, "--base", old])
    assert (told.exit_code, "write 4 and its seal" in told.stdout) == (0, True), told.output
    three = run(app, ["recipe", "diff", out, new, "--base", old])
    assert "Conflicts: 1" in three.stdout, "both changed the version"
    assert "site_seal" in run(app, ["recipe", "schema"]).stdout
    assert '"SiteValue"' in run(app, ["recipe", "schema", "--site"]).stdout
