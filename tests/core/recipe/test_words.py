"""Every field of every part of a recipe has a word for a process engineer, and no word is left over."""

from __future__ import annotations

from pydantic import BaseModel

from edge.core.recipe import model
from edge.core.recipe.words import HEADINGS, MEASURED, TOGETHER, WORDS

MODELS = [cls for cls in vars(model).values() if isinstance(cls, type) and issubclass(cls, BaseModel)]
FIELDS = {info.alias or field for cls in MODELS for field, info in cls.model_fields.items()}


def test_every_field_has_a_word() -> None:
    assert len(FIELDS) > 50
    assert FIELDS - {key for key in WORDS if "." not in key} == set()


def test_no_word_is_left_over() -> None:
    phases = {cls.model_fields["phase"].annotation.__args__[0] for cls in MODELS if _is_phase(cls)}
    assert {key.rpartition(".")[2] for key in WORDS} - FIELDS == set()
    assert {key.partition(".")[0] for key in WORDS if "." in key} <= FIELDS | phases
    assert HEADINGS | MEASURED | set(TOGETHER) <= FIELDS


def _is_phase(cls: type[BaseModel]) -> bool:
    return hasattr(cls.model_fields.get("phase"), "annotation") and hasattr(
        cls.model_fields["phase"].annotation, "__args__"
    )


def test_words_are_words() -> None:
    assert [key for key, word in WORDS.items() if "_" in word.says or not word.says] == []
    assert [key for key, word in WORDS.items() if word.chart and word.chart.count("{}") != 1] == []
