"""Pseudonyms of patient identities: random, short enough to read aloud, with a check character.

`P-7KQ2-M4XD-9T3H`: eleven random characters (55 bits) and one that finds every mistyped character. The alphabet has
no I, L, O and U. A pseudonym says nothing about the identity: only the box's vault knows which one it stands for.
"""

from __future__ import annotations

from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BYTES: Final = 7
_CHARS: Final = 11


def pseudonym(random: bytes) -> str:
    """The pseudonym made from `RANDOM_BYTES` random bytes, of which one bit is not used."""
    number = int.from_bytes(random, "big")
    chars = "".join(ALPHABET[number >> 5 * at & 31] for at in range(_CHARS))
    chars += ALPHABET[_check(chars)]
    return f"P-{chars[:4]}-{chars[4:8]}-{chars[8:]}"


def is_pseudonym(text: str) -> bool:
    """True when `text` is written as a pseudonym is, check character included."""
    chars = text[2:].replace("-", "")
    if len(chars) != _CHARS + 1 or not set(chars) <= set(ALPHABET):
        return False
    return text == f"P-{chars[:4]}-{chars[4:8]}-{chars[8:]}" and chars[-1] == ALPHABET[_check(chars[:-1])]


def alike(scanned: str, identity: str) -> bool:
    """True when `scanned` has the form of `identity`: it is probably another patient's, not some other code."""
    return len(scanned) == len(identity) and scanned[:1] == identity[:1]


def _check(chars: str) -> int:
    """Luhn's sum in base 32: any single wrong character changes it, and nearly any two swapped ones."""
    total = 0
    for at, char in enumerate(reversed(chars)):
        addend = ALPHABET.index(char) * (2 if at % 2 == 0 else 1)
        total += addend // 32 + addend % 32
    return -total % 32
