"""The procedure function chart: nothing overlaps, nothing is missing, branches keep their order, any text is safe."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from itertools import combinations
from pathlib import Path as Folder
from typing import Any
from xml.etree import ElementTree as ET

import orjson
import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from edge.core.recipe import draw, model, read_recipe, seal
from edge.core.recipe.draw import SHEET, Block, Box, Chart, Frame, Mark, Path, Text, as_svg, as_terminal, cells, chart
from edge.core.recipe.model import Parallel, Recipe, Select
from edge.core.review import AsBuilt, BuiltException, BuiltStep, Datum, Written
from edge.library import read_recipe_file
from tests.core.recipe.trees import any_recipe

CART_B1 = read_recipe(
    (resources.files("edge.core.recipe.shipped") / "cart-b1.yaml").read_bytes(), "cart-b1.yaml"
).recipe
SHIPPED = sorted(Folder(model.__file__).parent.joinpath("shipped").glob("*.yaml"))
NS = "{http://www.w3.org/2000/svg}"
EVERYTHING = b"""
recipe: EVERYTHING
version: "1"
title: Parallel, select and loop
parameters: {passes: {type: integer, value: 14.0}}
procedure:
  - unit_procedure: Culture
    operations:
      - operation: Each day
        steps:
          - {id: "010", phase: instruct, title: Begin, text: x, next: "030"}
          - {id: "020", phase: instruct, title: Only when sent back, text: x}
          - id: "030"
            phase: loop
            title: A day
            times: $passes
            until: viability < 70.0
            steps:
              - {id: "031", phase: record, title: Viability, text: x, name: viability, unit: "%"}
              - id: "032"
                phase: select
                title: Feed?
                branches:
                  - {when: viability < 80.0, title: poor, steps: [{id: "033", phase: wait, title: Rest, duration: 4 h}]}
                  - {when: viability < 90.0, steps: [{id: "034", phase: wait, title: Look, duration: 1 h}]}
          - id: "040"
            phase: parallel
            title: Both
            branches:
              - [{id: "041", phase: hold, title: Keep, tag: r.t, duration: 4 h, limit: {low: 36.5, high: 37.5}}]
              - [{id: "042", phase: monitor, title: Watch, tag: r.co2, limit: {high: 5.5, unit: "%"}, until: "041"}]
"""


DOCS = Folder(__file__).parents[3] / "docs"


def datum(name: str, value: float, low: float | None = None) -> Datum:
    facts = {"name": name, "value": value, "unit": "%", "source": "entered", "low": low, "high": None, "seq": 0}
    facts |= {"within": low is None, "person": "ana", "utc": ""}
    return Datum(**{field.name: facts[field.name] for field in fields(Datum) if field.name in facts})


def boxes(drawn: Chart) -> list[list[Box]]:
    return [[shape for shape in sheet if isinstance(shape, Box)] for sheet in drawn.sheets]


def overlap(a: Box, b: Box) -> bool:
    return (
        a.x < b.x + b.width - 0.01
        and b.x < a.x + a.width - 0.01
        and a.y < b.y + b.height - 0.01
        and b.y < a.y + a.height - 0.01
    )


def overlapping(drawn: Chart) -> list[tuple[Box, Box]]:
    return [pair for sheet in boxes(drawn) for pair in combinations(sheet, 2) if overlap(*pair)]


def outside(drawn: Chart) -> list[object]:
    """Shapes that leave the sheet, text that leaves its box, titles that leave their frame."""
    found: list[object] = []
    for sheet in drawn.sheets:
        for shape in sheet:
            match shape:
                case Box() | Frame():
                    corners = [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
                    texts = shape.texts if isinstance(shape, Box) else shape.title
                    for text in texts:
                        right = text.x + draw.text_width(text.text, text.size, bold=text.bold)
                        if not (
                            shape.x < text.x
                            and right < shape.x + shape.width + 0.01
                            and text.y < shape.y + shape.height
                        ):
                            found.append((text, shape))
                case Path():
                    corners = list(shape.points)
                case Text():
                    wide = draw.text_width(shape.text, shape.size, bold=shape.bold)
                    left = shape.x - (wide if shape.anchor == "end" else 0.0)
                    corners = [(left, shape.y), (left + wide, shape.y)]
                case Mark():
                    corners = [(shape.x, shape.y)]
            if any(not (0.0 <= x <= SHEET[0] and 0.0 <= y <= SHEET[1]) for x, y in corners):
                found.append(shape)
    return found


def assert_reads_right(recipe: Recipe, batch: AsBuilt | None = None) -> None:
    drawn = chart(recipe, batch)
    assert overlapping(drawn) == []
    assert outside(drawn) == []
    named = [box.step for sheet in boxes(drawn) for box in sheet if box.step]
    assert sorted(named) == sorted(recipe.steps())
    if not any(box.kind == "elsewhere" for sheet in boxes(drawn) for box in sheet):
        where = {box.step: box.x for sheet in boxes(drawn) for box in sheet}
        for step in recipe.in_order():
            if isinstance(step, Parallel | Select):
                beside = [where[steps[0].id] for _, steps in step.inner() if steps]
                assert beside == sorted(set(beside))
    for one in as_svg(drawn):
        ET.fromstring(one)
    text = as_terminal(recipe, batch)
    assert max(map(cells, text.splitlines())) <= 80
    for step_id in recipe.steps():
        assert any(step_id in line.split()[:8] for line in text.splitlines())


def batch_of(recipe: Recipe, reached: int) -> AsBuilt:
    """A batch that has done so many steps, with an exception at the second."""
    utc = "2026-11-22T08:00:00.000000Z"
    batch = AsBuilt("B-1", "ORD-1", "P-1", recipe.recipe, recipe.version, seal(recipe), {}, 1.0, utc, "ana")
    for step in list(recipe.in_order())[:reached]:
        built = BuiltStep(step.id, step.title, step.phase, "done", utc, "2026-11-22T09:30:00.000000Z", "ana")
        built.data = [datum("viability", 71.25, 80.0)]
        built.written = [Written("P-1.speed", 12.0, "mL/min", 1, "unknown", 12.0, "", "happened", utc)]
        batch.steps.append(built)
    if len(batch.steps) > 1:
        what = "Below its limit <script>alert(1)</script> \x1b[2J"
        batch.exceptions.append(BuiltException("X-1", batch.steps[1].step, "major", "value.outside", what, utc))
    batch.exceptions.append(BuiltException("X-2", "", "minor", "batch.whole", "Of the batch as a whole.", utc))
    return batch


@pytest.mark.parametrize("seed", range(25))
def test_any_recipe_reads_right(seed: int) -> None:
    recipe = any_recipe(seed)
    assert_reads_right(recipe)
    assert_reads_right(recipe, batch_of(recipe, seed % 30))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_reads_right(path: Folder) -> None:
    recipe = read_recipe_file(path).recipe
    assert_reads_right(recipe)
    assert_reads_right(recipe, batch_of(recipe, 30))


def test_samples_of_plans_are_drawn_with_what_a_batch_took() -> None:
    recipe = read_recipe_file(next(path for path in SHIPPED if path.stem == "mab-fb")).recipe
    batch, utc = batch_of(recipe, 3), "2026-11-22T08:00:00.000000Z"
    taken = BuiltStep("sampling/start_sample", "Culture at its start", "sample", "done", utc, utc, "ana")
    taken.data = [datum("density_at_start_counted", 0.7, 0.4)]
    batch.steps.append(taken)
    batch.exceptions.append(BuiltException("X-3", taken.step, "minor", "sample.overdue", "Not taken in time.", utc))
    (box,) = (box for sheet in boxes(chart(recipe, batch)) for box in sheet if box.step == taken.step)
    assert box.look == "exception"
    drawn, printed = " ".join(text.text for text in box.texts), as_terminal(recipe, batch)
    for said in ("when step 055 begins, within 2 h†", "density at start counted = 0.7", "Not taken in time."):
        assert said in drawn
        assert said in printed


def test_limits_tolerances_and_tests_read_as_people_say_them() -> None:
    recipe = read_recipe_file(next(path for path in SHIPPED if path.stem == "mab-fb")).recipe
    said = "\n".join(line.strip(" │║") for line in as_terminal(recipe, width=200).splitlines())
    for one in (
        "tolerance: ± 1 %† (medium tolerance)",
        "inoculum_viability 95 %† (seed viability) to 100 %",
        "tests: titer 1 to 10 g/L†; bioburden negative to date, later; mycoplasma negative to date, later",
        "cal_offset_size at most 30† (offset most 020)",
        "at most 14† (last day) passes",
    ):
        assert one in said, one


def test_the_judge_sees_boxes_that_overlap_and_text_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw, "GAP", -3.0)
    assert overlapping(chart(CART_B1))
    monkeypatch.undo()
    monkeypatch.setattr(draw, "_lines", lambda text, *_, **__: [(text, 2.7, False)])
    assert outside(chart(CART_B1))


def test_every_phase_with_steps_inside_has_a_way_to_be_drawn() -> None:
    with_steps = {
        cls.model_fields["phase"].annotation.__args__[0]
        for cls in vars(model).values()
        if isinstance(cls, type) and "inner" in vars(cls) and "phase" in getattr(cls, "model_fields", {})
    }
    assert with_steps == set(draw.STRUCTURES)


def test_a_recipe_of_a_thousand_steps_wraps_over_sheets() -> None:
    steps = [{"id": f"s{n}", "phase": "instruct", "title": f"Step {n}", "text": "x"} for n in range(1000)]
    procedure = [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": steps}]}]
    long = Recipe.model_validate({"recipe": "L", "version": "1", "title": "Long", "procedure": procedure})
    drawn = chart(long)
    assert 15 < len(drawn.sheets) < 40
    assert overlapping(drawn) == outside(drawn) == []


def test_what_is_too_wide_or_too_high_is_drawn_by_itself_and_keeps_its_branches_together() -> None:
    branch = [[{"id": f"b{n}", "phase": "instruct", "title": f"Branch {n}", "text": "x"}] for n in range(12)]
    step = {"id": "p", "phase": "parallel", "title": "Twelve", "branches": branch}
    procedure = [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [step]}]}]
    recipe = Recipe.model_validate_json(
        orjson.dumps({"recipe": "W", "version": "1", "title": "Wide", "procedure": procedure})
    )
    assert_reads_right(recipe)
    [stands_for] = [box for sheet in boxes(chart(recipe)) for box in sheet if box.kind == "elsewhere"]
    assert "p, branches 1 to 12" in stands_for.texts[0].text


def test_an_overlay_shows_times_values_exceptions_and_what_was_not_reached() -> None:
    batch = batch_of(CART_B1, 4)
    by_step = {box.step: box for sheet in boxes(chart(CART_B1, batch)) for box in sheet}
    said = " ".join(text.text for text in by_step["006"].texts)
    assert "✓ 2026-11-22 08:00:00 to 09:30:00 by ana" in said
    assert "viability = 71.25 % OUT OF LIMIT" in said
    assert "unknown, answered 'happened'" in said
    assert "! X-1, major: Below its limit" in said
    assert by_step["006"].look == "exception"
    assert by_step["005"].look == "done"
    assert by_step["115"].look == "not reached"
    text = as_terminal(CART_B1, batch)
    assert "! 006 sign: Line clearance" in text
    assert "beside the steps: the batch: ! X-2, minor: Of the batch as a whole." in text
    assert "\x1b" not in text
    assert "ANOTHER RECIPE" not in text
    batch.seal = "0" * 64
    assert "ANOTHER RECIPE" in as_terminal(CART_B1, batch)
    assert "ANOTHER RECIPE" in as_svg(chart(CART_B1, batch))[0]


def test_passes_of_a_loop_are_counted_and_the_last_ones_shown() -> None:
    recipe = read_recipe(EVERYTHING, "e.yaml").recipe
    batch = batch_of(recipe, 0)
    for number in range(14):
        built = BuiltStep("031", "Viability", "record", "done", "2026-11-22T08:00:00Z", "2026-11-22T08:01:00Z")
        built.data = [datum("viability", 99.0 - number)]
        batch.steps.append(built)
    text = as_terminal(recipe, batch)
    assert "14 passes; the last 3:" in text
    assert "viability = 86 %" in text
    assert "viability = 99 %" not in text


class Svg(SingleFileSnapshotExtension):
    """One SVG file a sheet."""

    file_extension = "svg"
    _write_mode = WriteMode.TEXT


@pytest.mark.parametrize(("name", "overlaid"), [("structures", False), ("structures-batch", True)])
def test_pictures(snapshot: SnapshotAssertion, name: str, *, overlaid: bool) -> None:
    recipe = read_recipe(EVERYTHING, "e.yaml").recipe
    drawn: Any = as_svg(chart(recipe, batch_of(recipe, 6) if overlaid else None))
    assert drawn[0] == snapshot(name=name, extension_class=Svg)


def test_the_picture_in_the_documents_is_one_of_these() -> None:
    recipe = read_recipe(EVERYTHING, "e.yaml").recipe
    assert (DOCS / "chart.svg").read_text(encoding="utf-8") == as_svg(chart(recipe))[0]


def test_the_words_of_a_terminal(snapshot: SnapshotAssertion) -> None:
    assert as_terminal(read_recipe(EVERYTHING, "e.yaml").recipe) == snapshot


def test_an_empty_block_is_a_line() -> None:
    assert draw._stack([], 10.0) == Block(10.0, draw.GAP, (Path(((5.0, 0.0), (5.0, draw.GAP))),))
