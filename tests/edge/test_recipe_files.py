"""`lineside recipe draw`, `diff`, `where-used`, `similar` and `replace`, on files, as they are typed."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edge import shelf
from edge.__main__ import app
from edge.core.errors import LinesideError
from edge.core.recipe import read_recipe, seal
from provisioning.device import init_device

DATA = (resources.files("edge.core.recipe.shipped") / "cart-b1.yaml").read_bytes()


def run(*words: str | Path) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def drafts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "drafts"
    folder.mkdir()
    (folder / "a.yaml").write_bytes(DATA)
    (folder / "b.yaml").write_bytes(DATA.replace(b"value: 12.0", b"value: 13.0"))
    (folder / "plant.yaml").write_text("plant: no recipe\n")
    return folder


def test_a_chart_is_written_sheet_by_sheet(drafts: Path, tmp_path: Path) -> None:
    assert "BEGIN" in run("recipe", "draw", drafts / "a.yaml").stdout
    run("recipe", "draw", drafts / "a.yaml", "--svg", tmp_path / "chart.svg")
    assert (tmp_path / "chart-1.svg").read_text().startswith("<svg")
    with pytest.raises(LinesideError) as refused:
        run("recipe", "draw", drafts / "a.yaml", "--svg", tmp_path / "none" / "chart.svg")
    assert refused.value.code == "recipe.cannot_write"


def test_differences_and_conflicts(drafts: Path, tmp_path: Path) -> None:
    a, b, c = drafts / "a.yaml", drafts / "b.yaml", tmp_path / "c.yaml"
    c.write_bytes(DATA.replace(b"value: 12.0", b"value: 14.0"))
    assert run("recipe", "diff", a, b).stdout == "parameter feed_flow: value 12.0 → 13.0 mL/min\n"
    assert "same seal" in run("recipe", "diff", a, a).stdout
    [change] = json.loads(run("recipe", "diff", a, b, "--json").stdout)["changes"]
    assert (change["subject"], change["field"]) == ("parameter feed_flow", "value")
    conflict = run("recipe", "diff", b, c, "--base", a)
    assert conflict.exit_code == 1
    assert "Conflicts: 1" in conflict.stdout
    assert len(json.loads(run("recipe", "diff", b, c, "--base", a, "--json").stdout)["conflicts"]) == 1


def test_where_used_and_similar(drafts: Path) -> None:
    used = run("recipe", "where-used", "vector_lot", drafts, "--json")
    assert [json.loads(line)["subject"] for line in used.stdout.splitlines()] == ["step 040", "step 040"]
    assert "1 files cannot be read as recipes" in used.stderr
    first = run("recipe", "similar", drafts / "a.yaml", drafts).stdout
    assert "b.yaml" in first
    assert "a.yaml" not in first
    memory = drafts.parent / "cache" / "lineside" / "profiles.json"
    assert memory.exists()
    assert run("recipe", "similar", drafts / "a.yaml", drafts).stdout == first
    memory.write_bytes(b'[2,{"x":3}]')
    assert run("recipe", "similar", drafts / "a.yaml", drafts).stdout == first


def test_what_is_remembered_is_not_read_again(drafts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run("recipe", "similar", drafts / "a.yaml", drafts).stdout
    (drafts / "plant.yaml").unlink()

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(shelf, "read_recipe_or_operation", never)
    assert run("recipe", "similar", drafts / "a.yaml", drafts).stdout == first


def test_replacing_shows_first_writes_when_told_and_leaves_what_is_sealed(drafts: Path, tmp_path: Path) -> None:
    words = ("recipe", "replace", drafts, "--find", "37.5", "--with", "38.0", "--field", "high")
    shown = run(*words).stdout
    assert "a.yaml: step 038: upper temperature limit 37.5 → 38.0 degC" in shown
    assert "2 files would change" in shown
    assert (drafts / "a.yaml").read_bytes() == DATA
    box = tmp_path / "box"
    init_device(box, box="BOX-1")
    sealed = box / "state" / "library" / "recipe"
    sealed.mkdir(parents=True)
    (sealed / seal(read_recipe(DATA, "a").recipe)).write_bytes(DATA)
    written = run(*words, "--write", "--box", box).stdout
    assert "a.yaml: left alone, the box has sealed it" in written
    assert (drafts / "a.yaml").read_bytes() == DATA
    assert (drafts / "b.yaml").read_bytes().count(b"high: 38.0") == DATA.count(b"high: 37.5") + DATA.count(
        b"high: 38.0"
    )


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as refused:
        run("recipe", "where-used", "x", tmp_path / "none")
    assert refused.value.code == "recipe.no_folder"


OPERATION = """
library_operation: look
version: "1.0"
title: Look at the vector
steps:
  - {id: "1", phase: instruct, title: Look, text: Look at the vector.}
"""
CALLS = """
recipe: CALLS
version: "1"
title: Calls
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: call, title: Look, operation: look, version: "1.0"}
          - {id: "020", phase: call, title: Clear, operation: line_clearance, version: "1.0"}
"""


def test_what_calls_the_library_is_searched_ranked_and_replaced_in_as_any_other(drafts: Path) -> None:
    (drafts / "calls.yaml").write_text(CALLS)
    (drafts / "operations").mkdir()
    (drafts / "operations" / "look.yaml").write_text(OPERATION)
    used = [
        json.loads(line) for line in run("recipe", "where-used", "the vector", drafts, "--json").stdout.splitlines()
    ]
    assert {(Path(one["file"]).name, one["subject"]) for one in used} >= {
        ("look.yaml", "step 1"),
        ("calls.yaml", "step 010/1"),
    }
    assert "line_clearance" in run("recipe", "where-used", "line_clearance", drafts).stdout
    ranked = run("recipe", "similar", drafts / "calls.yaml", drafts).stdout
    assert {"look.yaml"} == {Path(line.split()[1]).name for line in ranked.splitlines()}
    (drafts / "operations" / "look.yaml").write_text(OPERATION.replace("Look at the vector.", "Look at it."))
    assert "look.yaml" in run("recipe", "similar", drafts / "calls.yaml", drafts).stdout, "not by what is remembered"
    shown = run("recipe", "replace", drafts, "--find", "Look", "--with", "Regard", "--field", "title", "--write").stdout
    assert "2 files changed" in shown
    assert "title: Regard" in (drafts / "calls.yaml").read_text()
    assert "title: Regard" in (drafts / "operations" / "look.yaml").read_text()


def test_an_operation_is_checked_drawn_and_compared(drafts: Path) -> None:
    old, new = drafts / "look.yaml", drafts / "new.yaml"
    old.write_text(OPERATION)
    new.write_text(OPERATION.replace("instruct", "scan").replace("vector.}", "vector., name: lot, prefix: LV-}"))
    assert run("recipe", "check", old).stdout == "look 1.0: 1 steps, nothing wrong.\n"
    assert json.loads(run("recipe", "check", old, "--json").stdout)["operation"] == "look"
    assert "instruct: Look" in run("recipe", "draw", old).stdout
    assert "step 1: phase instruct → scan" in run("recipe", "diff", old, new).stdout
    with pytest.raises(LinesideError) as refused:
        run("recipe", "export", old, "--out", drafts / "x.xml")
    assert refused.value.code == "document.missing_key", "a box executes recipes alone, and exchanges them alone"


def test_remarks_are_told_beside_what_is_wrong(drafts: Path) -> None:
    path = drafts / "wrong.yaml"
    path.write_text(OPERATION.replace("steps:", "parameters: {x: {value: 1.0, unit: L, low: 2.0}}\nsteps:"))
    with pytest.raises(LinesideError) as refused:
        run("recipe", "check", path)
    assert refused.value.code == "recipe.parameter_outside"
    assert [note.startswith("remark: ") for note in refused.value.__notes__] == [True], "told after what is wrong"
    told = json.loads(run("recipe", "check", path, "--json").stdout)
    assert (told["ok"], told["findings"][0]["code"]) == (False, "recipe.parameter_outside")
    assert [one["code"] for one in told["remarks"]] == ["recipe.unused_parameter"]
