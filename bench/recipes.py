"""Recipes: reading, checking and sealing a long one, rehearsing twelve days, finding what is alike, and the memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

import edge.core.recipe as recipes
from bench import Figure, Say
from drivers import sim
from drivers.sim.physics import VirtualCell
from edge.core.plant import Plant, read_plant
from edge.core.recipe import Recipe, check_recipe, read_recipe, seal
from edge.core.recipe.compare import profile, rank
from edge.core.rehearse import rehearse
from edge.library import read_recipe_file

STEPS: Final = 1_000
LIBRARY: Final = 2_000
ROUNDS: Final = 3
SHIPPED: Final = Path(recipes.__file__).parent / "shipped"
CART_B1: Final = SHIPPED / "cart-b1.yaml"


def measure(say: Say) -> list[Figure]:
    """Processor seconds of each, medians of `ROUNDS` (all is done on one thread), and MiB of the process at most."""
    plant = read_plant(Path(sim.__file__).with_name("plant.yaml").read_bytes(), "plant.yaml")
    long, shipped = _long(), CART_B1.read_bytes()

    say(f"reading, checking and sealing {STEPS:,} steps")
    read_s = _timed(lambda: read_recipe(long, "long.yaml"))
    written = read_recipe(long, "long.yaml")

    def check_and_seal() -> None:
        assert check_recipe(written, plant) == []
        seal(written.recipe)

    checked_s = _timed(check_and_seal)
    document = read_recipe(shipped, CART_B1.name)
    rehearsals = [
        _rehearsal(say, document.recipe, plant, at_most_s=5.0),
        _rehearsal(say, read_recipe_file(SHIPPED / "mab-fb.yaml").recipe, plant, at_most_s=10.0),
    ]
    say(f"ranking {LIBRARY:,} recipes")
    others = [_alike(document.recipe, number) for number in range(LIBRARY)]
    ranked_s = _timed(lambda: rank(profile(document.recipe), [profile(other) for other in others]))
    return [
        Figure(f"read {STEPS:,} steps from {len(long) // 1024} KiB of YAML", read_s, "s"),
        Figure(f"check and seal {STEPS:,} steps", checked_s, "s", at_most=1.0),
        *rehearsals,
        Figure(
            f"similarity over {LIBRARY:,} recipes of {len(document.recipe.steps())} steps", ranked_s, "s", at_most=2.0
        ),
        Figure("memory at most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB"),
    ]


def _rehearsal(say: Say, recipe: Recipe, plant: Plant, *, at_most_s: float) -> Figure:
    say(f"rehearsing {recipe.recipe}")
    name = seal(recipe)
    report = rehearse(recipe, name, plant, VirtualCell(plant), lineside="bench")
    assert report.ok
    of = f"{report.took_s / 86_400:.1f} days, {len(report.points)} things seen in {len(report.played)} batches"
    took_s = _timed(lambda: rehearse(recipe, name, plant, VirtualCell(plant), lineside="bench"))
    return Figure(f"rehearse {recipe.recipe}: {of}", took_s, "s", at_most=at_most_s)


def _timed(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        work()
        took.append(time.process_time() - begun_s)
    return median(took)


def _long() -> bytes:
    """A recipe of as many steps as there may be, of the usual phases, as a person would indent it."""
    limit = {"low": 36.5, "high": 37.5, "unit": "degC", "why": "Cells divide best there."}
    kinds: list[dict[str, Any]] = [
        {"phase": "instruct", "text": "Wipe the work surface."},
        {"phase": "record", "text": "Count.", "unit": "%", "limit": {"low": 80, "high": 100, "unit": "%"}},
        {"phase": "scan", "text": "Scan the lot.", "prefix": "MED-"},
        {"phase": "set", "tag": "reactor.temperature_setpoint", "value": "$warm", "unit": "degC"},
        {"phase": "wait", "tag": "reactor.temperature", "limit": limit, "timeout": "4 h"},
        {"phase": "hold", "tag": "reactor.temperature", "limit": limit, "duration": "2 h"},
        {"phase": "sign", "text": "All is done.", "meaning": "Done", "roles": ["operator", "verifier"]},
    ]
    lines = ["recipe: LONG", 'version: "1"', "title: A long recipe", "units: {reactor: {class: bioreactor}}"]
    lines += ["parameters: {warm: {value: 37.0, unit: degC, low: 36.0, high: 38.0}}", "procedure:"]
    lines += ["  - unit_procedure: All", "    operations:"]
    for number in range(STEPS):
        if number % 20 == 0:
            lines += [f"      - operation: Part {number // 20 + 1}", "        steps:"]
        kind = kinds[number % len(kinds)]
        lines += [f'          - id: "{number:04d}"', f"            title: Step {number}"]
        lines += [f"            {key}: {json.dumps(value)}" for key, value in kind.items()]
        if kind["phase"] in {"record", "scan"}:
            lines.append(f"            name: value_{number}")
    return "\n".join(lines).encode()


def _alike(recipe: recipes.Recipe, number: int) -> recipes.Recipe:
    """The recipe under another name, with the steps of one operation under other names too."""
    main = list(recipe.procedure)
    first = main[number % len(main)]
    operation = first.operations[number % len(first.operations)]
    steps = tuple(step.model_copy(update={"title": f"{step.title} {number}"}) for step in operation.steps)
    changed = operation.model_copy(update={"steps": steps, "operation": f"{operation.operation} {number}"})
    others = tuple(changed if one is operation else one for one in first.operations)
    main[number % len(main)] = first.model_copy(update={"operations": others})
    return recipe.model_copy(update={"recipe": f"R-{number}", "procedure": tuple(main)})
