"""Every visible word of the screen. What comes from the desk (titles, instructions, reasons) is shown as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ui.locale import de, en

LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = {"en": en.TEXT, "de": de.TEXT}


class Words:
    """The words of one language: `words("key", name=...)` fills the places of the text."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._text = LANGUAGES[language]

    def __call__(self, key: str, **facts: object) -> str:
        return self._text[key].format(**facts)

    def __contains__(self, key: str) -> bool:
        return key in self._text
