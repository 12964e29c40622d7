"""Recipes of any shape, for tests that ask nothing of what they do: steps in branches in loops in branches."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson

from edge.core.recipe.model import Recipe

TEXTS = ("Warm", "Feed <b>&amp; \"'", "汉字" * 40, "x" * 2000, "Take a sample. " * 30, "é ½ ✓ 🧪 a\u0301", "-", "a\tb")
WORDS = ("operator", "quality")


def any_recipe(seed: int) -> Recipe:
    """The recipe of this seed: up to a hundred steps, up to three deep, ids in any order."""
    return Recipe.model_validate_json(orjson.dumps(_data(Random(seed))))


def _data(dice: Random) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    procedure = [
        {
            "unit_procedure": dice.choice(TEXTS),
            "operations": [
                {"operation": dice.choice(TEXTS), "steps": _steps(dice, steps, 0, 5)} for _ in range(dice.randint(0, 2))
            ],
        }
        for _ in range(dice.randint(0, 2))
    ]
    ids = dice.sample(range(1000), len(steps))
    for number, step in zip(ids, steps, strict=True):
        step["id"] = f"{number:03}"
    parameters = {"warm": {"value": 37.0, "unit": "degC"}}
    if dice.random() < 0.5:
        parameters["cold"] = {"value": dice.uniform(2, 8), "unit": "degC"}
    about = {"recipe": "ANY", "version": "1", "title": dice.choice(TEXTS), "parameters": parameters}
    return {**about, "procedure": procedure}


def _steps(dice: Random, steps: list[dict[str, Any]], deep: int, most: int) -> list[dict[str, Any]]:
    return [_step(dice, steps, deep) for _ in range(dice.randint(0, most))]


def _step(dice: Random, steps: list[dict[str, Any]], deep: int) -> dict[str, Any]:
    step: dict[str, Any] = {"title": dice.choice(TEXTS)}
    if dice.random() < 0.3:
        step["why"] = dice.choice(TEXTS)
    steps.append(step)
    kinds = ["instruct", "record", "hold", "sign"]
    if deep < 3:
        kinds += ["parallel", "select", "loop", "call"]
    step["phase"] = kind = dice.choice(kinds)
    match kind:
        case "instruct":
            step |= {"text": dice.choice(TEXTS)}
        case "record":
            step |= {"text": dice.choice(TEXTS), "name": dice.choice("ab"), "limit": _limit(dice)}
        case "hold":
            step |= {"tag": dice.choice(("r.t", "r.co2")), "duration": "4 h", "limit": _limit(dice)}
        case "sign":
            step |= {"text": dice.choice(TEXTS), "meaning": dice.choice(TEXTS), "roles": dice.sample(WORDS, 2)}
        case "parallel":
            step["branches"] = [_steps(dice, steps, deep + 1, 3) for _ in range(dice.choice((1, 2, 2, 3, 9)))]
        case "select":
            step["branches"] = [
                {"when": dice.choice(TEXTS)[:900], "steps": _steps(dice, steps, deep + 1, 3)}
                for _ in range(dice.randint(1, 4))
            ]
            if dice.random() < 0.5:
                step["else"] = _steps(dice, steps, deep + 1, 3)
        case "loop":
            step |= {"times": float(dice.randint(1, 5)), "steps": _steps(dice, steps, deep + 1, 3)}
        case "call":
            step |= {"operation": "cip", "version": "1", "steps": _steps(dice, steps, deep + 1, 3)}
    return step


def _limit(dice: Random) -> dict[str, Any]:
    limit = {
        "low": dice.choice((dice.uniform(-9, 9), "$warm", None)),
        "high": dice.uniform(-9, 9),
        "unit": dice.choice(("degC", "%")),
        "why": dice.choice(TEXTS),
        "placeholder": dice.random() < 0.5,
        "category": dice.choice(("minor", "major", "critical")),
    }
    return {key: limit[key] for key in dice.sample(sorted(limit), dice.randint(0, 6))}
