"""GS1 element strings: what a code on a container says, by its application identifiers, and when the material expires.

Read are both ways in which scanners and people give them: "(17)260131(10)LOT7", and elements one after another, each of
unknown length ended by a group separator (FNC1). Nothing else is a GS1 code here: what cannot be read is refused.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Mapping
from datetime import date
from typing import Final

from edge.core.terms import ClockQuality, Stamp

CHARS_MAX: Final = 400
ELEMENTS_MAX: Final = 40
EXPIRY: Final = "17"
FIXED: Final[Mapping[str, int]] = {
    "00": 18, "01": 14, "02": 14, "03": 14, "04": 16, "20": 2, **{str(ai): 6 for ai in range(11, 20)},
    **{str(ai): 6 for ai in range(31, 37)}, "41": 13,
}  # fmt: skip
"""By its first two digits, how long the data of an element are that needs no separator."""
_THREE: Final = frozenset({"23", "24", "25", "40", "41", "42", "71"})
_FOUR: Final = frozenset({"31", "32", "33", "34", "35", "36", "39", "43", "70", "72", "80", "81", "82"})
_DATA: Final = re.compile(r"[\x21-\x7e]{1,90}")
_BRACKETED: Final = re.compile(r"\((\d{2,4})\)([^()]+)")
EXPIRED: Final = "This material is expired"
"""How the sentence about a code begins whose date is over."""


def elements(text: str) -> Mapping[str, str] | None:
    """What the code says, by application identifier and in its order; None when it is no GS1 code."""
    text = text.removeprefix("\x1d")
    if not text or len(text) > CHARS_MAX:
        return None
    pairs = _bracketed(text) if text.startswith("(") else _running(text)
    if pairs is None or len(pairs) > ELEMENTS_MAX or len(dict(pairs)) != len(pairs):
        return None
    good = all(_fits(identifier, data) for identifier, data in pairs)
    return dict(pairs) if good else None


def as_text(text: str) -> str:
    """The code as people write it, which is how it is recorded: "(01)...(17)260131(10)LOT7". What is no GS1 code stays
    as it is."""
    found = elements(text)
    return text if found is None else "".join(f"({identifier}){data}" for identifier, data in found.items())


def refusal(text: str, at: Stamp) -> str:
    """Why material with this code cannot be taken now, in a sentence; empty when it can."""
    found = elements(text)
    if found is None:
        return "This is no GS1 code that can be read. Nothing was started."
    if at.quality is not ClockQuality.SYNCED:
        return "No trusted clock says which day it is, so nobody knows whether this material is expired."
    today = date.fromisoformat(at.utc[:10])
    said = found.get(EXPIRY, "")
    last = expiry(said, today.year)
    if last is None:
        return "The code says no date until which the material may be used (17). Nothing was started."
    if today > last:
        return f"{EXPIRED}: its code says {last.isoformat()}. Nothing was started."
    return ""


def expiry(said: str, this_year: int) -> date | None:
    """The last day of "YYMMDD", of which day 00 is the last one of the month; None when it is no date. The year is
    the one from 49 years ago to 50 years ahead."""
    if not (said.isascii() and said.isdigit() and len(said) == 6):
        return None
    year = this_year - this_year % 100 + int(said[:2])
    year += 100 if year <= this_year - 50 else -100 if year > this_year + 50 else 0
    try:
        day = int(said[4:]) or monthrange(year, int(said[2:4]))[1]
        return date(year, int(said[2:4]), day)
    except ValueError:
        return None


def _fits(identifier: str, data: str) -> bool:
    length = FIXED.get(identifier[:2])
    return _DATA.fullmatch(data) is not None and (length is None or (len(data) == length and data.isdigit()))


def _digits_of(identifier: str) -> int:
    """How many digits an application identifier that begins so has."""
    return 4 if identifier[:2] in _FOUR else 3 if identifier[:2] in _THREE else 2


def _bracketed(text: str) -> list[tuple[str, str]] | None:
    found, end = [], 0
    for match in _BRACKETED.finditer(text):
        if match.start() != end or len(match[1]) != _digits_of(match[1]):
            return None
        found.append((match[1], match[2].removesuffix("\x1d")))
        end = match.end()
    return found if end == len(text) else None


def _running(text: str) -> list[tuple[str, str]] | None:
    found: list[tuple[str, str]] = []
    while text:
        digits = _digits_of(text)
        identifier, rest = text[:digits], text[digits:]
        if len(identifier) != digits or not (identifier.isascii() and identifier.isdigit()):
            return None
        length = FIXED.get(identifier[:2])
        if length is None:
            data, _, text = rest.partition("\x1d")
        else:
            data, text = rest[:length], rest[length:].removeprefix("\x1d")
        found.append((identifier, data))
        if len(found) > ELEMENTS_MAX:
            return None
    return found
