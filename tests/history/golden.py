"""Golden journals: what a release wrote, and what it made of it. Later ones must read the same out of the same bytes.

`python -m tests.history.golden VERSION` plays the journals of a release anew and writes their file; see
`docs/how-to/work-on-lineside.md`. One file holds all of a release, a JSON object a line, packed with zstd: for each
journal a head (its name, plant and recipes), its rows as they were written, and what came of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest import mock

import zstandard

from drivers.sim.cell import plant_bytes
from drivers.sim.physics import VirtualCell
from edge.core.decide import decide
from edge.core.events import KINDS, RowBody, decode, encode
from edge.core.lifecycle import Approval
from edge.core.line import Book, Effects, Line, apply, effects
from edge.core.numbers import PRODUCT
from edge.core.plant import Plant, read_plant
from edge.core.profiles import Profile
from edge.core.recipe import seal
from edge.core.recipe.model import Recipe
from edge.core.rehearse.phases import PHASES
from edge.core.rehearse.play import Play
from edge.core.rehearse.stage import Stage
from edge.core.review import as_built, as_text
from edge.core.terms import ClockQuality, Stamp
from edge.library import read_recipe_file
from tests.simulation.line_model import Run
from tests.simulation.ninety_days import NinetyDays

HERE: Final = Path(__file__).parent
LOOKED_EACH: Final = 9
"""After every so many rows it is noted what must be under way."""
SEEDS: Final = 60
"""Of so many random runs those are taken that have kinds of rows which the ones before do not have."""
MODULE: Final[dict[str, Any]] = {
    "recipe": "WASH", "version": "1", "title": "Wash", "units": {"processor": {"class": "cell_processor"}},
    "procedure": [{"unit_procedure": "U", "operations": [{"operation": "O", "steps": [
        {"id": "010", "phase": "service", "title": "Wash", "unit": "processor", "service": "wash", "timeout": "1 h",
         "procedure": "rinse", "parameters": {"volume": 300.0},
         "reports": [{"report": "used", "name": "used", "unit": "mL"}]},
        {"id": "020", "phase": "instruct", "title": "Look", "text": "Look at it."},
    ]}]}],
}  # fmt: skip


@dataclass(frozen=True)
class Golden:
    """One journal of a release."""

    name: str
    plant: Plant
    recipes: dict[str, Recipe]
    rows: list[bytes]


# What comes of the rows ------------------------------------------------------------------------------------------


def outcome(golden: Golden) -> dict[str, Any]:
    """What this version makes of the rows: the record of each batch, and what must be under way after which row."""
    line = Line(Book(golden.plant, golden.recipes, frozenset(golden.recipes)))
    looked: list[list[Any]] = []
    for row in golden.rows:
        line = apply(line, decode(row))
        if line.seq % LOOKED_EACH == 0:
            looked.append([line.seq, keys(effects(line))])
    records = as_built((seq, decode(row)) for seq, row in enumerate(golden.rows, 1))
    return {
        "records": {name: json.loads(json.dumps(record.as_json())) for name, record in records.items()},
        "texts": {name: as_text(record) for name, record in records.items()},
        "effects": looked,
    }


def keys(wanted: Effects) -> list[str]:
    """What tells one effect from another."""
    found = [f"timer {t.batch} {t.step} {t.iteration} {t.timer} {t.length_s:g}" for t in wanted.timers]
    found += [f"watch {w.batch} {w.step} {w.iteration} {w.tag} {w.kind}" for w in wanted.watches]
    found += [f"condition {c.batch} {c.step} {c.iteration}" for c in wanted.conditions]
    found += [f"write {w.batch} {w.step} {w.iteration} {w.attempt} {w.tag} {w.value}" for w in wanted.writes]
    return sorted([*found, *(f"alarm {a.alarm}" for a in wanted.alarms)])


# Reading and writing the file --------------------------------------------------------------------------------------


def read(path: Path) -> Iterator[tuple[Golden, dict[str, Any]]]:
    """The journals in a release's file, each with what the release made of it."""
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    while lines:
        head, *lines = lines
        facts = json.loads(head)
        rows, lines = lines[: facts["rows"]], lines[facts["rows"] :]
        recipes = {name: Recipe.model_validate(one) for name, one in facts["recipes"].items()}
        expected, lines = json.loads(lines[0]), lines[1:]
        yield Golden(facts["name"], Plant.model_validate(facts["plant"]), recipes, rows), expected


def write(path: Path, journals: list[Golden]) -> None:
    lines: list[bytes] = []
    for one in journals:
        dumped = {name: _dumped(recipe) for name, recipe in one.recipes.items()}
        head = {"name": one.name, "plant": _dumped(one.plant), "recipes": dumped, "rows": len(one.rows)}
        lines += [json.dumps(head).encode(), *one.rows, json.dumps(outcome(one)).encode()]
    path.write_bytes(zstandard.ZstdCompressor(level=19).compress(b"\n".join(lines)))


def _dumped(model: Recipe | Plant) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_defaults=True)


# Playing the journals of this version ------------------------------------------------------------------------------


def ninety_days() -> Golden:
    """Ninety days off line: expiries, trends, samples, seals, reboots, rows that leave."""
    rows: list[bytes] = []

    def kept(line: Line, row: RowBody) -> Line:
        rows.append(encode(row))
        return apply(line, row)

    with TemporaryDirectory() as folder, mock.patch("tests.simulation.ninety_days.apply", kept):
        box = NinetyDays(Path(folder), 0)
        with mock.patch.object(NinetyDays, "folded", lambda played: played.line):
            asyncio.run(box.play())
    return Golden("ninety days", box.book.plant, dict(box.book.recipes), rows)


def whole(recipe: Recipe) -> Golden:
    """One batch of a recipe on the simulated cell, all well."""
    plant, name, rows = read_plant(plant_bytes(), "plant.yaml"), seal(recipe), list[bytes]()

    def kept(line: Line, row: RowBody) -> Line:
        rows.append(encode(row))
        return apply(line, row)

    with mock.patch("edge.core.rehearse.play.apply", kept):
        stage = Stage(recipe, name, plant, 1.0, decide, PHASES)
        played = Play(stage, VirtualCell(plant), "all is well", stage.usual(), trying=False).run()
    assert played.well, played
    return Golden(recipe.recipe, plant, {name: recipe}, rows)


def random_runs(known: set[str]) -> Iterator[Golden]:
    """Random runs with crashes, refusals, amendments and corrections, as long as each shows a new kind of row."""
    for seed in range(SEEDS):
        run = Run(seed)
        with mock.patch.object(run, "crash_at_every_row", return_value=None):
            run.play()
        kinds = {type(made.body.event).__name__ for made in run.made}
        if kinds - known:
            known |= kinds
            book = run.line.book
            yield Golden(f"random {seed}", book.plant, dict(book.recipes), [made.data for made in run.made])


BEFORE: Final = ("NumberRangeSet", "RecipeSubmitted")
"""Rows that others below are about."""
FITTING: Final[dict[str, dict[str, Any]]] = {
    "NumbersSkipped": {"purpose": PRODUCT},
    "ProfileSet": {"profile": next(iter(Profile)).value},
    "RecipeApprovalSet": {"approval": next(iter(Approval)).value},
}
"""Facts that mean something to the head, of rows that nothing else makes."""


def one_of_each(known: set[str]) -> Golden:
    """A row of each kind that nothing above makes: it is read, and tells of a batch that nobody knows."""
    at = Stamp("2026-01-01T00:00:00.000000Z", ClockQuality.SYNCED, 1.5, "boot")
    plant, rows = read_plant(plant_bytes(), "plant.yaml"), list[bytes]()
    for name in (*BEFORE, *sorted(set(KINDS) - known - set(BEFORE))):
        kind, fitting = KINDS[name], FITTING.get(name, {})
        hints = typing.get_type_hints(kind)
        facts = {one.name: _some(hints[one.name]) for one in fields(kind) if one.name != "batch"}
        made = [*rows, encode(RowBody(kind(batch=f"GONE-{name}", **facts | fitting), at, "ana"))]
        try:
            outcome(Golden("", plant, {}, made))
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            sys.stdout.write(f"left out: {name} ({error})\n")
        else:
            rows = made
    return Golden("one of each other kind", plant, {}, rows)


def _some(hint: Any) -> Any:
    plain = {str: "2026-01-01", int: 1, float: 1.5, bool: True}
    if hint in plain:
        return plain[hint]
    return {list: [], dict: {}}.get(typing.get_origin(hint), "x")


def played() -> list[Golden]:
    shipped = files("edge.core.recipe").joinpath("shipped")
    names = ("cart-b1", "mab-fb", "eq-daily")
    journals = [ninety_days(), *(whole(read_recipe_file(Path(str(shipped)) / f"{one}.yaml").recipe) for one in names)]
    journals.append(whole(Recipe.model_validate(MODULE)))
    known = {type(decode(row).event).__name__ for one in journals for row in one.rows}
    journals += random_runs(known)
    return [*journals, one_of_each(known)]


def main(version: str) -> None:
    made = played()
    path = HERE / f"{version}.jsonl.zst"
    write(path, made)
    for one in made:
        sys.stdout.write(f"{one.name}: {len(one.rows)} rows\n")
    sys.stdout.write(f"{path.name}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main(sys.argv[1])
