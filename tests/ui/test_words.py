"""Every visible word stands in the locale, and each language has all of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

from ui.locale import LANGUAGES

UI = Path(__file__).parents[2] / "ui"
SOURCES = sorted(path for path in UI.rglob("*.py") if path.parent.name != "locale" and path.name != "__main__.py")
CODES = ("desk.", "hand.differs")
"""Codes of refusals that the screen knows: no words."""
SHOWN_BY = {"Static", "Target", "Label", "Content", "assemble", "tell", "tell_now", "write", "Line"}


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_the_same_keys_and_places(language: str) -> None:
    english, other = LANGUAGES["en"], LANGUAGES[language]
    assert set(other) == set(english)
    assert {key: places(text) for key, text in other.items()} == {key: places(text) for key, text in english.items()}


def test_every_key_is_used_and_every_used_key_exists() -> None:
    source = "\n".join(path.read_text() for path in SOURCES)
    literal = set(re.findall(r'words\(\s*"([a-z_.]+)"', source)) | set(re.findall(r'"([a-z_]+(?:\.[a-z_]+)+)"', source))
    stems = set(re.findall(r"""f["']([a-z_.]+\.)\{""", source))
    for key in LANGUAGES["en"]:
        used = f'"{key}"' in source or f"'{key}'" in source or any(key.startswith(stem) for stem in stems)
        assert used, f"{key} is never shown"
    known = {key.split(".")[0] for key in LANGUAGES["en"]}
    for key in literal:
        if key.split(".")[0] in known and not key.startswith(CODES):
            assert key in LANGUAGES["en"], key


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_sentence_stands_outside_the_locale(path: Path) -> None:
    tree = ast.parse(path.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(node.body[0], ast.Expr)
    }
    documents |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            sentence = re.search(r"[A-Za-zÀ-ÿ]{3,} [A-Za-zÀ-ÿ]{2,}", node.value)
            allowed = re.fullmatch(r"[a-z$ -]*", node.value)  # style and class names
            assert not sentence or allowed, f"{path.name}:{node.lineno}: {node.value!r}"
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in SHOWN_BY and node.args and isinstance(node.args[0], ast.Constant):
                first = str(node.args[0].value)
                assert not re.search(r"[A-Za-z]{2,}", first) or first.startswith("#"), f"{path.name}:{node.lineno}"
