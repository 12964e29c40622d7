"""THE PORT between Lineside and equipment.

A driver speaks one protocol and holds no process logic. It finds its way in by the entry point group
`lineside.drivers` (name -> a callable with the signature of `DriverFactory`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge.core.plant import Connection, Tag
from edge.core.terms import Reading, Value


class WriteRefused(Exception):
    """The device said no, or nothing left this box: certainly not written. The text is for a person."""


class WriteUnknown(Exception):
    """It may or may not have been written: a lost reply, a dropped connection, a wrong answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that browsing found at a device."""

    address: str
    name: str
    type: str
    writable: bool


@dataclass(frozen=True, slots=True)
class Health:
    """How a connection does. `detail` is a sentence for a person."""

    connected: bool
    detail: str
    since_boottime_s: float


class Driver(Protocol):
    """One connection to one device. All methods are safe to call in any state.

    `start` begins connecting and keeps reconnecting with jitter until `stop`; it does not wait for success.
    """

    async def start(self, on_reading: Callable[[str, Reading], None], on_health: Callable[[Health], None]) -> None:
        """Begin. `on_reading(full tag name, reading)` is called on the event loop for every watched tag: on each
        poll or notification, and once with BAD quality when communication is lost."""

    async def stop(self) -> None:
        """End every task and connection of this driver. Idempotent."""

    async def watch(self, tags: Sequence[str]) -> None:
        """From now on report exactly these tags (full names out of those given at construction)."""

    async def read(self, tag: str) -> Reading:
        """Read one tag now, from the device. Never raises for communication: quality BAD and `detail` instead."""

    async def write(self, tag: str, value: Value) -> None:
        """Send exactly one write request, never a second. Returns when the device accepted it.

        Raises `WriteRefused` (certainly not written) or `WriteUnknown` (nobody knows)."""

    async def browse(self) -> list[Found]:
        """What can be found at the device; empty where the protocol has no browsing."""

    def health(self) -> Health:
        """The present state of the connection."""


class DriverFactory(Protocol):
    """Makes a driver for the tags of one connection. Raises `LinesideError` for settings or addresses it
    cannot use. `now_s` is CLOCK_BOOTTIME in seconds, `utc` the wall clock in ISO 8601."""

    def __call__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
    ) -> Driver: ...
