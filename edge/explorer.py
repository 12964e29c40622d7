"""What a driver may offer beside itself to whoever connects a device: looking for devices at one place, and the ways in
which a value may lie at an address. It is what the static method `explorer` of a driver's class returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field
from typing import Final

from edge.core.quick import dataclass
from edge.core.terms import Value
from edge.equipment import installed_drivers

FACT_CHARS_MAX: Final = 300
Say = Callable[[str], None]
"""Told, in a few words, what is being tried."""


@dataclass(frozen=True, slots=True)
class Where:
    """The one place where a probe looks: a host, at `port` or (0) where the protocol usually is; or a serial line."""

    host: str = ""
    port: int = 0
    line: str = ""
    timeout_s: float = 1.0
    """So long one answer is waited for."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A device that answered. What it says of itself is nobody's proof."""

    what: str
    """A sentence for a person."""
    settings: Mapping[str, Value]
    """Of a connection to it."""
    facts: tuple[tuple[str, str], ...] = ()
    certificate: bytes = b""
    """The certificate that it shows, DER."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a value may lie at an address: `address` shows `factor` times what `read_as` shows."""

    address: str
    read_as: str
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Explorer:
    """`probe` looks at one place, changes nothing there, raises nothing for what answers wrongly, and asks so little
    that it ends by itself. `ways` are those of an address that does not say how its value lies, most usual first; none
    for one that does."""

    probe: Callable[[Where, Say], Awaitable[list[Seen]]]
    ways: Callable[[str], Sequence[Way]] = field(default=lambda _address: ())
    slow: bool = False
    """It waits for many that may not be there: better asked after others."""


def explorer_of(driver: str) -> Explorer | None:
    """What the installed driver of this name offers; None when it is not installed, or offers nothing."""
    load = installed_drivers().get(driver)
    offer = getattr(load(), "explorer", None) if load is not None else None
    return offer() if offer is not None else None


def shown(text: object) -> str:
    """What a device says, for one line of a screen: printable and short."""
    said = str(text)[:FACT_CHARS_MAX]
    return "".join(character if character.isprintable() else "?" for character in said).strip()
