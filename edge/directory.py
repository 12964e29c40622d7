"""The people who may log in on this box, and their PINs. Works without any network.

Counting failures and locking are the engine's: they are rows, so that they survive a restart.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from edge.config import Document, read_document, read_text
from edge.core.errors import LinesideError, Place
from edge.core.terms import Role

PIN_LENGTH_MIN: Final = 4
PIN_LENGTH_MAX: Final = 64
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
_M_MMAP_THRESHOLD: Final = -3

PersonId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._\-]{0,31}$")]
PinHash = Annotated[
    str,
    StringConstraints(
        pattern=rf"^\$argon2id\$v=19\$m={MEMORY_KIB},t={PASSES},p={LANES}\$[A-Za-z0-9+/]{{21}}[AQgw]\$[A-Za-z0-9+/]{{42}}[AEIMQUYcgkosw048]$"
    ),
]

# A hash that no PIN has, of the same cost: an unknown person takes as long to refuse as a wrong PIN.
_NOBODY: Final = f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${'A' * 22}${'A' * 43}"


class _Entry(Document):
    """One person. The key of the table is their id: lower-case letters, digits, dot, dash, underscore."""

    name: str = Field(min_length=1, max_length=100, description="As screen and record show it.")
    badge: str = Field(default="", max_length=100, description="What the badge reader types; empty without a badge.")
    roles: tuple[Role, ...] = Field(min_length=1, description="At least one of the roles below.")
    pin_hash: PinHash = Field(repr=False, description="argon2id hash of the PIN: 19 MiB, 2 passes.")


class _File(Document):
    people: Mapping[PersonId, _Entry] = Field(default_factory=dict)


class Person(_Entry):
    """One person as the directory knows them."""

    id: PersonId


class Directory:
    """All people of one box, by id. Made by `load`."""

    def __init__(self, people: Mapping[str, Person]) -> None:
        self.people: Mapping[str, Person] = MappingProxyType(dict(people))
        self._badges = {person.badge: person for person in people.values() if person.badge}
        _give_back_large_blocks()
        # One worker: each check takes 19 MiB, so a queue of log-ins costs time and not memory.
        self._checks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pin")

    @classmethod
    def load(cls, path: Path) -> Directory:
        """Read directory.toml. Raises `LinesideError` with a `config.*` or `directory.*` code otherwise."""
        document = read_document(path, read_text(path), _File)
        people = {key: Person(id=key, **dict(entry)) for key, entry in document.people.items()}
        owners: dict[str, str] = {}
        for person in people.values():
            if person.badge and person.badge in owners:
                raise LinesideError(
                    "directory.badge_twice",
                    f'"{owners[person.badge]}" and "{person.id}" have the same badge.',
                    todo="Give each person a badge of their own.",
                    place=Place(str(path)),
                )
            owners[person.badge] = person.id
        return cls(people)

    def find_badge(self, badge: str) -> Person | None:
        """Whose badge this is, or None. An empty badge is nobody's."""
        return self._badges.get(badge)

    async def verify(self, person_id: str, pin: str) -> bool:
        """True when `pin` is this person's. Takes as long for an unknown person; never blocks the loop."""
        person = self.people.get(person_id)
        stored = person.pin_hash if person else _NOBODY
        matches = await asyncio.get_running_loop().run_in_executor(self._checks, _matches, stored, pin)
        return matches and person is not None


def _give_back_large_blocks() -> None:
    """Left alone, glibc takes the first freed block of 19 MiB as a sign to keep such blocks from then on. With a fixed
    threshold they go back to the system after each check."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every libc has it, or needs it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1024 * 1024)


def _matches(stored: str, pin: str) -> bool:
    from argon2.exceptions import VerifyMismatchError
    from argon2.low_level import Type, verify_secret

    if len(pin) > PIN_LENGTH_MAX:
        return False  # no stored PIN is that long, so the haste tells nothing
    try:
        return verify_secret(stored.encode(), pin.encode(errors="surrogatepass"), Type.ID)
    except VerifyMismatchError:
        return False


def directory_entry(person_id: str, name: str, badge: str, roles: Iterable[Role], pin_hash: str) -> str:
    """One person's table, as it stands in directory.toml."""

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)  # a TOML basic string, for all that a name may hold

    return (
        f"[people.{text(person_id)}]\nname = {text(name)}\nbadge = {text(badge)}\n"
        f"roles = {text([role.value for role in roles])}\npin_hash = {text(pin_hash)}\n"
    )


def hash_pin(pin: str) -> str:
    """The argon2id hash of a new PIN (19 MiB, 2 passes), for `pin_hash` in directory.toml."""
    if not PIN_LENGTH_MIN <= len(pin) <= PIN_LENGTH_MAX or not pin.isprintable():
        raise LinesideError(
            "directory.pin_length",
            f"A PIN has {PIN_LENGTH_MIN} to {PIN_LENGTH_MAX} visible characters.",
            todo="Choose another PIN.",
        )
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES).hash(pin)
