"""THE PORT between Lineside and equipment.

A driver speaks one protocol and holds no process logic. It finds its way in by the entry point group
`lineside.drivers` (name -> a callable with the signature of `DriverFactory`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from edge.core import quick
from edge.core.errors import LinesideError
from edge.core.guard import (
    NOT_SENT,
    PLACEHOLDER,
    Shown,
    Stood,
    aged,
    agrees,
    answer_of,
    arguments_of,
    fitted,
    frozen,
    judged,
    may_write,
    stood,
)
from edge.core.plant import Connection, Method, Plant, Tag
from edge.core.quick import dataclass
from edge.core.terms import Quality, Reading, Value

CONNECTING_S: Final = 3.0
"""So long after the start a device may take until it is there for the first time."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0
STOP_AGAIN_S: Final = 1.0
READ_BACK_FIRST_S: Final = 0.02
READ_BACK_MAX_S: Final = 0.25
SWEEP_MIN_S: Final = 0.05
SWEEP_MAX_S: Final = 1.0

_log = logging.getLogger(__name__)


class WriteRefused(Exception):
    """The device said no, or nothing left this box: certainly not written. The text is for a person."""


class WriteUnknown(Exception):
    """It may or may not have been written: a lost reply, a dropped connection, a wrong answer."""


class Capability(StrEnum):
    """What a driver can, whatever device it speaks to."""

    READ = "read"
    WATCH = "watch"
    WRITE = "write"
    BROWSE = "browse"
    SOURCE_TIME = "source time"
    """Its readings say when the device itself took them."""
    CALL = "call"
    """It can call methods."""


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
    remark: str = ""
    """What a person should know although it is connected, like "not encrypted"."""
    refusal: LinesideError | None = None
    """Why it is not connected, with code and what to do, where the driver knows."""

    @property
    def words(self) -> str:
        """For a screen: "connected", with the remark behind it; or why not, and what to do."""
        if self.connected:
            return f"connected, {self.remark}" if self.remark else "connected"
        return f"{self.detail} {self.refusal.todo} ({self.refusal.code})" if self.refusal else self.detail


@dataclass(frozen=True, slots=True)
class Home:
    """What a driver may know of the box that it runs on."""

    box: str = "unnamed"
    folder: Path = Path()
    """The box folder: what the plant file names relative to it, like a file with a password."""
    keeps: Path = Path("state")
    """The folder where a driver may keep files of its own."""
    synced: Callable[[], bool] = lambda: False
    """Whether a time source disciplines the wall clock."""


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

    async def call(self, tag: str, arguments: Sequence[Value]) -> Sequence[object]:
        """Call the tag's method with these arguments: exactly one request, never a second. Returns what it answered.

        Raises as `write`. Not called where it is none of the `capabilities`."""

    async def browse(self, text: str = "") -> list[Found]:
        """What can be found at the device, with `text` in name or address. Raises the refusal of `health` when it is
        not connected. Not called where it is none of the `capabilities`."""

    def health(self) -> Health:
        """The present state of the connection."""

    async def failed(self) -> str:
        """Return only when the driver's own work ended without `stop`, with a sentence; the driver is then of
        no more use. Losing the device is not that: reconnecting is the driver's work."""


class DriverFactory(Protocol):
    """Makes a driver for the tags of one connection. Raises `LinesideError` for settings or addresses it
    cannot use. `now_s` is CLOCK_BOOTTIME in seconds, `utc` the wall clock in ISO 8601."""

    @property
    def capabilities(self) -> Collection[Capability]:
        """What its drivers can: a plant whose tags want more is refused. In a driver's class, a field of the class."""

    def __call__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
        home: Home,
    ) -> Driver: ...


DriverLoader = Callable[[], DriverFactory]


def installed_drivers() -> Mapping[str, DriverLoader]:
    """Every driver found by entry point, by name. Nothing is imported until a loader is called."""
    return {entry.name: partial(_imported, entry) for entry in entry_points(group="lineside.drivers")}


def _imported(driver: EntryPoint) -> DriverFactory:
    with quick.everywhere():  # asyncua alone declares 450 classes
        factory: DriverFactory = driver.load()
        return factory


@dataclass(frozen=True, slots=True)
class Installed:
    """A driver that a plant file may name."""

    driver: str
    package: str
    """The distribution that brings it, with its version."""
    capabilities: tuple[Capability, ...]
    trouble: str = ""
    """Why it cannot be loaded."""


def installed() -> Iterator[Installed]:
    """Every driver found by entry point, loaded to see what it can."""
    for entry in sorted(entry_points(group="lineside.drivers")):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else ""
        try:
            can = entry.load().capabilities
            yield Installed(entry.name, package, tuple(one for one in Capability if one in can))
        except Exception as error:  # noqa: BLE001  a site's own driver may raise anything: the others are shown
            yield Installed(entry.name, package, (), f"{type(error).__name__}: {error}")


def _loader(name: str, connection: Connection, drivers: Mapping[str, DriverLoader]) -> DriverLoader:
    if connection.driver not in drivers:
        raise LinesideError(
            "equipment.no_driver",
            f"The connection {name} asks for the driver {connection.driver!r}, which is not installed.",
            todo=f"Use one of: {', '.join(sorted(drivers)) or 'none is installed'}.",
        )
    return drivers[connection.driver]


def retry_delays_s(first_s: float = RETRY_FIRST_S, most_s: float = RETRY_MAX_S) -> Iterator[float]:
    """Endless growing delays between attempts, with jitter so that many boxes do not come back in step."""
    delay_s = first_s
    while True:
        yield delay_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards no secret
        delay_s = min(delay_s * 2, most_s)


def bad_reading(tag: Tag, detail: str, at_boottime_s: float, last: Reading | None = None) -> Reading:
    """A reading that says why there is none. It keeps the last known value (a placeholder when there is none)."""
    value = last.value if last is not None else PLACEHOLDER[tag.type]
    source_utc = last.source_utc if last is not None else ""
    return Reading(value, tag.unit, Quality.BAD, source_utc, at_boottime_s, detail)


class OneTask(ABC):
    """What most drivers do alike, to derive from: one task that connects and listens until it is stopped, what is told
    of the connection, and readings that say why there is none."""

    def __init__(self, name: str, tags: Mapping[str, Tag], now_s: Callable[[], float]) -> None:
        self._name, self._tags, self._now_s = name, tags, now_s
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, Reading] = {}
        """The last reading of each tag that was not bad."""
        self._health = Health(connected=False, detail="Not started.", since_boottime_s=now_s())
        self._on_reading: Callable[[str, Reading], None] = lambda _tag, _reading: None
        self._on_health: Callable[[Health], None] = lambda _health: None

    @abstractmethod
    async def _run(self) -> None:
        """The task: connect, listen, and again, until cancelled."""

    async def start(self, on_reading: Callable[[str, Reading], None], on_health: Callable[[Health], None]) -> None:
        """Begin connecting."""
        self._on_reading, self._on_health = on_reading, on_health
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """End the task, and whatever it ends with."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # again, if need be: Python 3.11's wait_for can swallow one
            await asyncio.wait({task}, timeout=STOP_AGAIN_S)

    async def failed(self) -> str:
        """Return when the task ended by itself."""
        if self._task is None:
            return "not started"
        await asyncio.wait({self._task})
        error = None if self._task is None or self._task.cancelled() else self._task.exception()
        return f"{type(error).__name__}: {error}" if error else "it was ended"

    async def call(self, tag: str, arguments: Sequence[Value]) -> Sequence[object]:  # noqa: ARG002  nothing is called
        """Most devices have no methods."""
        raise WriteRefused(f"Nothing was sent: {tag} is no method.")

    def health(self) -> Health:
        """The present state of the connection."""
        return self._health

    def _say(self, *, connected: bool, detail: str, remark: str = "", refusal: LinesideError | None = None) -> None:
        """Tell how the connection does, when that has changed."""
        before = self._health
        if (connected, detail, remark) != (before.connected, before.detail, before.remark):
            self._health = Health(connected, detail, self._now_s(), remark, refusal)
            self._on_health(self._health)

    def _bad(self, tag: str, why: str) -> Reading:
        return bad_reading(self._tags[tag], why, self._now_s(), self._last.get(tag))


class WriteResult(StrEnum):
    """How a write ended."""

    CONFIRMED = "confirmed"
    """Written, and read back within the tolerance."""
    REFUSED = "refused"
    """Certainly not written."""
    UNKNOWN = "unknown"
    """It may have been written: only a person can say what to do."""


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """The result of one write, the reading of the read-back tag that was seen, and a sentence for a person."""

    result: WriteResult
    reading: Reading | None
    why: str


class GuardedWriter:
    """The only way to write to one tag: guard, exactly one request, read-back."""

    def __init__(self, equipment: Equipment, tag: str, *, training: bool) -> None:
        self._equipment = equipment
        self._training = training
        self.tag = tag

    async def write_and_read_back(
        self, value: Value, shown_by: Collection[Value] = (), shown_at: Collection[Shown] = (), *, safe: bool = False
    ) -> WriteOutcome:
        """Write once and look. Never raises for the equipment. With `shown_by` (a command to a service) the read-back
        must show one of these instead of the value; until then another write to the tag may be sent. With `shown_at`
        all of it must be seen instead. What makes a unit `safe` is sent behind a write that is under way, where another
        one is refused.

        When cancelled, whether anything was written is unknown: the caller must treat it so. The driver has
        then already made sure that a late reply is not taken for another's."""
        write = self._equipment._write  # noqa: SLF001  one module, one class in two parts
        return await write(self.tag, value, shown_by, shown_at, safe=safe, training=self._training)

    async def beat(self, value: Value) -> str:
        """Write once and do not look: for a watchdog's tag alone, which no step depends on. Returns why it was not
        taken, a sentence; empty when the device took it. Never raises for the equipment."""
        outcome = await self._equipment._write(self.tag, value, (), training=self._training, look=False)  # noqa: SLF001
        return "" if outcome.result is WriteResult.CONFIRMED else outcome.why


class Equipment:
    """All connections of one plant: what they read, how they are, and the only door to writing.

    `async with` starts one supervised driver for each connection and ends them all. `on_change` is called on the
    event loop when readings or health changed; it is not called again until `take_changed` is. `on_reading` is called
    for every reading, judged, also when it is like the one before, and when one turns stale; it must be quick.
    """

    def __init__(
        self,
        plant: Plant,
        drivers: Mapping[str, DriverLoader],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
        on_change: Callable[[], None] = lambda: None,
        on_reading: Callable[[str, Reading], None] = lambda _tag, _reading: None,
        home: Home = Home(),
    ) -> None:
        """Load the drivers that the plant names and let them check settings and addresses. Nothing is connected.

        Raises `equipment.no_driver` or the driver's own LinesideError, with all further ones in `others`."""
        self._plant = plant
        self._tags = plant.tags()
        self._now_s, self._utc, self._on_change, self._on_reading = now_s, utc, on_change, on_reading
        self._home = home
        self._of_connection: dict[str, dict[str, Tag]] = {name: {} for name in plant.connections}
        self._factories: dict[str, DriverFactory] = {}
        self._drivers: dict[str, Driver] = {}
        self._health = {
            name: Health(connected=False, detail="Not started.", since_boottime_s=now_s()) for name in plant.connections
        }
        self._latest: dict[str, Reading] = {}
        self._stood: dict[str, Stood] = {}
        """Of tags that can be frozen: the value that they have kept."""
        self._written_s: dict[str, float] = {}
        """When a tag with a pause between its writes was written last."""
        self._watched: frozenset[str] = frozenset()
        self._stale: set[str] = set()
        self._changed: set[str] = set()
        self._told = False
        self._writing: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._since_s = now_s()
        self._reached: set[str] = set()
        """Connections that have been there since the start."""
        self._load(drivers)

    def _load(self, drivers: Mapping[str, DriverLoader]) -> None:
        errors: list[LinesideError] = []
        for name, tag in self._tags.items():
            if tag.connection not in self._of_connection:
                errors.append(
                    LinesideError(
                        "equipment.no_connection",
                        f"The tag {name} names the connection {tag.connection!r}, which the plant does not have.",
                        todo="Name one of the plant's connections.",
                    )
                )
                continue
            self._of_connection[tag.connection][name] = tag
        for name, connection in self._plant.connections.items():
            try:
                factory = _loader(name, connection, drivers)()
            except LinesideError as error:
                errors.append(replace(error, place=self._plant.place("connections", name, "driver")))
                continue
            self._factories[name] = factory
            try:
                self._made(factory, name, self._of_connection[name])
            except LinesideError as error:
                errors += self._refusals(factory, name) or [error]
            else:
                errors += [refusal for tag in self._of_connection[name] if (refusal := self._unable(tag))]
        if errors:
            errors.sort(key=lambda one: one.place.line if one.place else 0)
            errors[0].others = (*errors[0].others, *errors[1:])
            raise errors[0]

    def _made(self, factory: DriverFactory, name: str, tags: Mapping[str, Tag]) -> Driver:
        connection = self._plant.connections[name]
        return factory(connection, tags, now_s=self._now_s, utc=self._utc, home=self._home)

    def _refusals(self, factory: DriverFactory, name: str) -> list[LinesideError]:
        """All that a driver does not take of its connection, each with its place: the settings, or else tag by tag."""
        try:
            self._made(factory, name, {})
        except LinesideError as error:
            return [replace(error, place=self._plant.place("connections", name, "settings"))]
        found = []
        for full_name, tag in self._of_connection[name].items():
            try:
                self._made(factory, name, {full_name: tag})
            except LinesideError as error:
                found.append(replace(error, place=self._plant.place_of_tag(full_name, "address")))
        return found

    def _unable(self, name: str) -> LinesideError | None:
        """Why this tag cannot be had from its driver."""
        tag = self._tags[name]
        can = self.can(tag.connection)
        key, wanted = "address", {Capability.READ, Capability.WATCH}
        if tag.method is not None:
            key, wanted = "method", {Capability.CALL}
        elif wanted <= {*can} and tag.access == "write":
            key, wanted = "access", {Capability.WRITE}
        missing = [one.value for one in Capability if one in wanted - {*can}]
        if not missing:
            return None
        driver = self._plant.connections[tag.connection].driver
        return LinesideError(
            "equipment.cannot",
            f"The tag {name} is to be used over {tag.connection}, whose driver {driver} cannot {' or '.join(missing)}.",
            todo="Look what a driver can with: lineside equipment drivers. Then correct the plant file.",
            place=self._plant.place_of_tag(name, key),
        )

    async def __aenter__(self) -> Self:
        """Start every driver; does not wait for a device."""
        for name in self._factories:
            self._tasks.append(asyncio.create_task(self._supervise(name), name=f"equipment {name}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every driver, its tasks and connections."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
            self._sweep_timer = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    # Reading ----------------------------------------------------------------------------------------------

    def latest(self, tag: str) -> Reading | None:
        """The newest reading of a tag as it stands now (BAD when stale), or None when there never was one."""
        reading = self._latest.get(tag)
        if reading is None:
            return None
        now_s, found = self._now_s(), self._tags[tag]
        return frozen(found, self._stood.get(tag), aged(found, reading, now_s), now_s)

    async def read(self, tag: str) -> Reading:
        """Read one tag from its device now. Raises `guard.unknown_tag`; never raises for communication."""
        found = self._known(tag)
        driver = self._drivers.get(found.connection)
        if found.method is not None:
            return bad_reading(found, "A method has no value.", self._now_s())
        if driver is None:
            return bad_reading(found, f"The driver of {found.connection} is not running.", self._now_s())
        try:
            reading = judged(found, await driver.read(tag))
            return frozen(found, self._stood.get(tag), reading, self._now_s()) if self._stays(tag, reading) else reading
        except Exception as error:  # noqa: BLE001  a driver may be a site's own: its fault must not end the engine
            _log.exception("driver of %s failed reading %s", found.connection, tag)
            return bad_reading(found, f"The driver of {found.connection} failed ({error}).", self._now_s())

    async def watch(self, tags: Iterable[str]) -> None:
        """From now on keep exactly these tags up to date. Raises `guard.unknown_tag`."""
        wanted = frozenset(tags)
        for tag in wanted:
            self._known(tag)
        self._watched = frozenset(tag for tag in wanted if self._tags[tag].method is None)
        self._stale &= wanted
        for name, driver in list(self._drivers.items()):
            await driver.watch(self._watched_of(name))

    def take_changed(self) -> frozenset[str]:
        """The tags whose value, quality or detail changed since the last call; `on_change` may be called again."""
        changed = frozenset(self._changed)
        self._changed.clear()
        self._told = False
        return changed

    def health(self) -> dict[str, Health]:
        """How each connection does."""
        return dict(self._health)

    def is_connecting(self, tag: str) -> bool:
        """Whether the tag's device has not been reached since the start, which takes a moment: a write is refused now,
        and may not be in a moment."""
        known = self._tags.get(tag)
        starting = known is not None and known.connection not in self._reached
        return starting and self._now_s() - self._since_s < CONNECTING_S

    def can(self, connection: str) -> Collection[Capability]:
        """What the driver of a connection can."""
        return self._factories[connection].capabilities

    async def browse(self, connection: str, text: str = "") -> list[Found]:
        """What can be found at a device, with `text` in name or address. Raises `equipment.no_connection`,
        `equipment.cannot` or the driver's own refusal."""
        driver = self._drivers.get(connection)
        if driver is None:
            raise LinesideError(
                "equipment.no_connection",
                f"There is no running connection {connection[:64]!r}.",
                todo=f"Use one of: {', '.join(sorted(self._drivers)) or 'none runs'}.",
            )
        if Capability.BROWSE not in self.can(connection):
            raise LinesideError(
                "equipment.cannot",
                f"What {connection} offers cannot be asked: its driver cannot browse.",
                todo="Take addresses from the device's manual.",
            )
        return await driver.browse(text)

    def _stays(self, tag: str, reading: Reading) -> bool:
        """Whether the value is one that the tag has kept."""
        kept = self._stood.get(tag)
        return kept is not None and stood(self._tags[tag], kept, reading) is kept

    # Writing ----------------------------------------------------------------------------------------------

    def writer(self, tag: str, *, training: bool = False) -> GuardedWriter:
        """The door to one tag; for a batch in `training` a locked one unless the plant allows it. Raises
        `guard.unknown_tag`."""
        self._known(tag)
        return GuardedWriter(self, tag, training=training)

    async def _write(
        self,
        name: str,
        value: Value,
        shown_by: Collection[Value],
        shown_at: Collection[Shown] = (),
        *,
        safe: bool = False,
        training: bool = False,
        look: bool = True,
    ) -> WriteOutcome:
        try:
            asked: dict[str, Any] = (
                {} if safe or shown_by or not look else {"latest": self.latest, "today": self._utc()[:10]}
            )
            may_write(self._plant, name, value, training=training, **asked)
        except LinesideError as refusal:
            return WriteOutcome(WriteResult.REFUSED, None, refusal.what)
        tag = self._known(name)
        fit = fitted(tag, value)
        given = arguments_of(name, tag.method, value) if tag.method is not None else {}
        driver = self._drivers.get(tag.connection)
        if driver is None or fit is None:
            return WriteOutcome(WriteResult.REFUSED, None, f"The driver of {tag.connection} is not running.")
        if self._writing[name] and not safe:
            return WriteOutcome(WriteResult.REFUSED, None, f"Another write to {name} is under way.")
        last_s = self._written_s.get(name)
        if last_s is not None and not safe and self._now_s() < last_s + tag.change_every_s:
            why = f"{name} was written less than {tag.change_every_s:g} s ago: it would change too fast."
            return WriteOutcome(WriteResult.REFUSED, None, why)
        if tag.change_every_s:
            self._written_s[name] = self._now_s()
        self._writing[name] += 1
        try:
            answer: Sequence[object] = ()
            try:
                if tag.method is not None:
                    answer = await driver.call(name, list(given.values()))
                else:
                    await driver.write(name, fit)
            except WriteRefused as refusal:
                return WriteOutcome(WriteResult.REFUSED, None, str(refusal))
            except WriteUnknown as unknown:
                why = str(unknown)
            except Exception as error:  # noqa: BLE001  a site's own driver may raise anything, after sending: nobody knows
                _log.exception("driver of %s failed writing %s", tag.connection, name)
                why = f"The driver of {tag.connection} failed while writing ({error})."
            else:
                why = ""
            if tag.method is not None:
                return self._answered(name, tag.method, answer, why)
            if not look:
                return WriteOutcome(WriteResult.UNKNOWN if why else WriteResult.CONFIRMED, None, why)
            if not shown_by:
                return await self._read_back(tag, name, fit, shown_by, shown_at, why)
        finally:
            self._writing[name] -= 1
        # to hold or abort a service must not wait until it has started
        return await self._read_back(tag, name, fit, shown_by, shown_at, why)

    def _answered(self, name: str, method: Method, answer: Sequence[object], doubt: str) -> WriteOutcome:
        """A method shows nothing that could be read back: what it answers is what is known."""
        if doubt:
            return WriteOutcome(WriteResult.UNKNOWN, None, doubt)
        text, wrong = answer_of(method, answer)
        if wrong:
            return WriteOutcome(WriteResult.UNKNOWN, None, f"{name} was called, but {wrong}.")
        reading = Reading(text, "", Quality.GOOD, "", self._now_s())
        return WriteOutcome(WriteResult.CONFIRMED, reading, f"{name} answered {text}.")

    async def _read_back(
        self,
        tag: Tag,
        name: str,
        wanted: Value,
        shown_by: Collection[Value],
        shown_at: Collection[Shown],
        doubt: str,
    ) -> WriteOutcome:
        """Look until what is seen agrees or its time is over. With `doubt` it stays unknown whatever is seen."""
        look_at = f"{name.partition('.')[0]}.{tag.read_back}" if tag.read_back else name
        until_s = self._now_s() + tag.settle_s
        delay_s = READ_BACK_FIRST_S
        while True:
            if shown_at:
                agreed, look_at, reading = await self._all_seen(shown_at)
            else:
                reading = await self.read(look_at)
                agreed = reading.good and reading.value in shown_by if shown_by else agrees(tag, wanted, reading)
            if agreed or self._now_s() + delay_s > until_s:
                break
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, READ_BACK_MAX_S)
        seen = f"{reading.value} {reading.unit}".rstrip() if reading.good else f"no good value ({reading.detail})"
        if doubt:
            return WriteOutcome(WriteResult.UNKNOWN, reading, f"{doubt} {look_at} reads {seen}.")
        if agreed:
            return WriteOutcome(WriteResult.CONFIRMED, reading, f"{look_at} reads {seen}.")
        return WriteOutcome(
            WriteResult.UNKNOWN,
            reading,
            f"The device accepted {wanted} {tag.unit}".rstrip()
            + f", but after {tag.settle_s:g} s {look_at} reads {seen}.",
        )

    async def _all_seen(self, shown_at: Collection[Shown]) -> tuple[bool, str, Reading]:
        """Whether all of it is seen; and the first tag that does not show it, or the last one, with its reading."""
        for one in shown_at:
            reading = await self.read(one.at)
            agreed = one.seen(self._plant, reading)
            if not agreed:
                break
        return agreed, one.at, reading

    # Drivers ----------------------------------------------------------------------------------------------

    async def _supervise(self, name: str) -> None:
        """Keep one driver alive: a new one, with backoff, whenever its work ended by itself."""
        delays = retry_delays_s()
        while True:
            driver: Driver | None = None
            try:
                driver = self._made(self._factories[name], name, self._of_connection[name])
                await driver.start(self._take_reading, lambda health: self._take_health(name, health))
                self._drivers[name] = driver
                await driver.watch(self._watched_of(name))
                why = await driver.failed()
            except Exception as error:  # noqa: BLE001  edge of a supervised task: one dead driver must not end the others
                _log.exception("driver of %s ended", name)
                why = f"{type(error).__name__}: {error}"
            finally:
                self._drivers.pop(name, None)
                if driver is not None:
                    await self._stopped(name, driver)
            delay_s = next(delays)
            detail = f"The driver ended ({why}); it is started again."
            self._take_health(name, Health(connected=False, detail=detail, since_boottime_s=self._now_s()))
            for tag in self._watched_of(name):
                self._take_reading(tag, bad_reading(self._tags[tag], detail, self._now_s(), self._latest.get(tag)))
            await asyncio.sleep(delay_s)

    async def _stopped(self, name: str, driver: Driver) -> None:
        try:
            await driver.stop()
        except Exception:  # noqa: BLE001  edge of a supervised task: what cannot be stopped in order is left behind
            _log.exception("driver of %s did not stop in order", name)

    def _watched_of(self, connection: str) -> list[str]:
        return [tag for tag in self._of_connection[connection] if tag in self._watched]

    def _known(self, name: str) -> Tag:
        tag = self._tags.get(name)
        if tag is None:
            raise LinesideError(
                "guard.unknown_tag",
                f"{name[:80]!r} is not a tag of the plant {self._plant.plant}.",
                effect=NOT_SENT,
                todo="Name a tag of the plant file as UNIT.tag.",
            )
        return tag

    def _take_reading(self, name: str, reading: Reading) -> None:
        tag = self._tags.get(name)
        if tag is None:
            return
        reading = judged(tag, reading)
        if tag.frozen_after_s is not None:
            if (kept := stood(tag, self._stood.get(name), reading)) is None:
                self._stood.pop(name, None)
            else:
                self._stood[name] = kept
                reading = frozen(tag, kept, reading, self._now_s())
        before = self._latest.get(name)
        self._latest[name] = reading
        self._on_reading(name, reading)
        was_stale = name in self._stale
        self._stale.discard(name)
        if (
            before is None
            or was_stale
            or (before.value, before.quality, before.detail) != (reading.value, reading.quality, reading.detail)
        ):
            self._changed.add(name)
            self._tell()
        if self._sweep_timer is None:
            self._schedule_sweep()

    def _take_health(self, name: str, health: Health) -> None:
        before = self._health[name]
        self._health[name] = health
        if health.connected:
            self._reached.add(name)
        if (before.connected, before.detail, before.remark) != (health.connected, health.detail, health.remark):
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._on_change()

    def _schedule_sweep(self) -> None:
        """Wake up when the next watched reading would turn stale: silence must be noticed without an event."""
        now_s = self._now_s()
        ends = [
            self._latest[name].at_boottime_s + self._tags[name].stale_s
            for name in self._watched
            if name in self._latest and name not in self._stale and self._latest[name].quality is not Quality.BAD
        ]
        self._sweep_timer = (
            asyncio.get_running_loop().call_later(min(max(min(ends) - now_s, SWEEP_MIN_S), SWEEP_MAX_S), self._sweep)
            if ends and self._tasks
            else None
        )

    def _sweep(self) -> None:
        for name in self._watched - self._stale:
            reading = self.latest(name)
            if reading is not None and reading is not self._latest[name]:
                self._stale.add(name)
                self._changed.add(name)
                self._on_reading(name, reading)
        if self._changed:
            self._tell()
        self._schedule_sweep()
