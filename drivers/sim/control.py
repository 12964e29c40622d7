"""Faults on purpose and write counters, over a Unix socket that no fieldbus client can reach.

One JSON object a line: `{"do": "counters"}`, `{"do": "drop_replies", "n": 2}`, `{"do": "freeze", "tag": "..."}`,
`{"do": "bad_quality", "tag": "...", "status": "BadSensorFailure"}`, `{"do": "silent", "seconds": 3}` (0: until
cleared), `{"do": "clamp", "tag": "...", "max": 10}`, `{"do": "service", "service": "CP-1.wash", "fault": "stuck"}` (or
slow, endless, deaf, operator, internal, offline), `{"do": "service", "service": "CP-1.wash", "tell": "abort"}` (what
somebody at the module does), `{"do": "put", "grams": 250}` (onto a scale), `{"do": "door", "open": true}`
(of an incubator), `{"do": "scan", "code": "LOT-7", "fault":
"cut"}` (of a scanner; without a fault the code is whole), `{"do": "watchdog", "seconds": 1}` (so long without its
counter and the pump trips), `{"do": "clear"}`. Nothing resets the counters;
`CP-1.wash.starts` counts how often a service was started.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from drivers.sim.services import FAULTS, ServiceModel
from edge.core.errors import LinesideError

SOCKET_PATH_MAX: Final = 107
LINE_BYTES_MAX: Final = 4096
LOAD_MAX_G: Final = 100_000.0
ANSWER_S: Final = 5.0


class Watchdog:
    """What a device does when the one who supervises it is silent: it trips `after_s` the last time its counter moved.
    It minds nothing before it moved at all, nor once it was set to 0."""

    def __init__(self) -> None:
        self.after_s = 3.0
        self.beats = 0
        self._count = 0
        self._since_s: float | None = None

    def take(self, count: int) -> None:
        """The counter was written."""
        if count == 0:
            self._since_s = None
        elif count != self._count:
            self.beats += 1
            self._since_s = time.monotonic()
        self._count = count

    @property
    def tripped_s(self) -> float | None:
        """Since when (monotonic) it has tripped; None while it has not."""
        if self._since_s is None or time.monotonic() < self._since_s + self.after_s:
            return None
        return self._since_s + self.after_s


class Faults:
    """The faults in force at one simulated device, and how often each of its tags was written."""

    def __init__(self, readable: Iterable[str], writable: Iterable[str]) -> None:
        self.counters = dict.fromkeys(writable, 0)
        self.replies_dropped = 0
        self._tags = frozenset(readable) | frozenset(self.counters)
        self._drops_left = 0
        self._silent_until_s = 0.0
        self.frozen: set[str] = set()
        self.bad: dict[str, str] = {}
        self.clamped: dict[str, float] = {}
        self.services: dict[str, ServiceModel] = {}
        """The services that the device offers, by unit and name."""
        self.watchdog = Watchdog()
        self.load_g, self.load_since_s = 0.0, -math.inf
        """What stands on a scale, and since when."""
        self.scan: Callable[[str, str], None] | None = None
        """A scanner's: sends a code with a fault; ValueError for what it cannot."""
        self.door_open, self.door_since_s = False, -math.inf
        """An incubator's door, and since when it is so."""

    def drop_this_reply(self) -> bool:
        """True when the reply to the write that was just carried out must not be sent."""
        if self._drops_left == 0:
            return False
        self._drops_left -= 1
        self.replies_dropped += 1
        return True

    @property
    def silent(self) -> bool:
        """True while the device answers nothing."""
        return time.monotonic() < self._silent_until_s

    def limited(self, tag: str, value: float) -> float:
        """The value after a silent clamp."""
        return min(value, self.clamped.get(tag, math.inf))

    def obey(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request of the control channel and answer it."""
        match request:
            case {"do": "counters"}:
                pass
            case {"do": "drop_replies", "n": int(n)} if 0 <= n <= 1_000_000:
                self._drops_left = n
            case {"do": "freeze", "tag": str(tag)} if tag in self._tags:
                self.frozen.add(tag)
            case {"do": "bad_quality", "tag": str(tag)} if tag in self._tags:
                self.bad[tag] = str(request.get("status", "BadSensorFailure"))[:64]
            case {"do": "silent"}:
                seconds = request.get("seconds", 0)
                if not isinstance(seconds, int | float) or seconds < 0:
                    raise _refused("seconds must be a number of at least 0")
                self._silent_until_s = time.monotonic() + seconds if seconds else math.inf
            case {"do": "clamp", "tag": str(tag), "max": int() | float() as most} if tag in self.counters:
                self.clamped[tag] = float(most)
            case {"do": "service", "service": str(name), "fault": str(fault)} if (
                name in self.services and fault in FAULTS
            ):
                self.services[name].faults.add(fault)
            case {"do": "service", "service": str(name), "tell": str(command)} if name in self.services:
                self.services[name].tell(command)
            case {"do": "put", "grams": int() | float() as grams} if 0 <= grams <= LOAD_MAX_G:
                self.load_g, self.load_since_s = float(grams), time.monotonic()
            case {"do": "door", "open": bool(is_open)}:
                if is_open is not self.door_open:
                    self.door_open, self.door_since_s = is_open, time.monotonic()
            case {"do": "scan", "code": str(code)} if self.scan is not None:
                try:
                    self.scan(code, str(request.get("fault", "")))
                except ValueError as error:
                    raise _refused(str(error)) from error
            case {"do": "watchdog", "seconds": int() | float() as seconds} if 0 < seconds <= 3600:
                self.watchdog.after_s = float(seconds)
            case {"do": "clear"}:
                for service in self.services.values():
                    service.faults.clear()
                self._drops_left, self._silent_until_s = 0, 0.0
                self.frozen.clear()
                self.bad.clear()
                self.clamped.clear()
            case _:
                raise _refused(f"{json.dumps(request)[:200]} is no request; tags are {', '.join(sorted(self._tags))}")
        return {
            "ok": True,
            "counters": self.counters | {f"{name}.starts": one.starts for name, one in self.services.items()},
            "replies_dropped": self.replies_dropped,
            "drops_left": self._drops_left,
            "silent": self.silent,
            "beats": self.watchdog.beats,
            "tripped": self.watchdog.tripped_s is not None,
        }


def _refused(why: str) -> LinesideError:
    return LinesideError(
        "sim.request",
        f"The simulated device did not understand: {why}.",
        effect="No fault was changed.",
        todo="Send one of counters, drop_replies, freeze, bad_quality, silent, clamp, service, put, door, scan, "
        "watchdog or clear.",
    )


@asynccontextmanager
async def serve_control(path: Path, faults: Faults) -> AsyncIterator[None]:
    """Listen at `path` until left."""
    _check(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                try:
                    request = json.loads(line)
                    answer = faults.obey(request if isinstance(request, dict) else {})
                except (LinesideError, ValueError, RecursionError) as error:
                    refusal = error if isinstance(error, LinesideError) else _refused("that is not JSON")
                    answer = {"ok": False, "error": refusal.as_json()}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the other side left, or sent a line longer than any request
        finally:
            writer.close()

    server = await asyncio.start_unix_server(client, path, limit=LINE_BYTES_MAX)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


def _check(path: Path) -> None:
    if len(str(path).encode()) > SOCKET_PATH_MAX:
        raise LinesideError(
            "sim.control_path",
            f"{str(path)[:200]!r} is too long for a Unix socket.",
            todo=f"Choose a folder so that the whole path has at most {SOCKET_PATH_MAX} bytes.",
        )


class SimControl:
    """The control channel of one simulated device. Every call is one connection, so it survives restarts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, **request: object) -> dict[str, Any]:
        """Send one request, return the answer. Raises `sim.away` or the device's refusal."""
        _check(self.path)
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_unix_connection(self.path)
                try:
                    writer.write(json.dumps(request).encode() + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                finally:
                    writer.close()
            answer: dict[str, Any] = json.loads(line)
        except (OSError, TimeoutError, ValueError) as error:
            raise LinesideError(
                "sim.away",
                f"The simulated device does not answer at {self.path} ({error or type(error).__name__}).",
                effect="No fault was changed.",
                todo="Start it with: lineside simulate cell",
            ) from error
        if not answer.get("ok"):
            given = answer.get("error", {})
            raise LinesideError("sim.refused", str(given.get("what")), str(given.get("effect")), str(given.get("todo")))
        return answer

    async def counters(self) -> dict[str, int]:
        """How often each tag was written, by full tag name."""
        counters: dict[str, int] = (await self.ask(do="counters"))["counters"]
        return counters

    async def drop_replies(self, n: int) -> None:
        """Carry out the next `n` writes, but never send their replies."""
        await self.ask(do="drop_replies", n=n)

    async def freeze(self, tag: str) -> None:
        """Hold the tag at its present value, whatever physics or writes want."""
        await self.ask(do="freeze", tag=tag)

    async def bad_quality(self, tag: str, status: str = "BadSensorFailure") -> None:
        """Give the tag this status code (Modbus: an exception reply)."""
        await self.ask(do="bad_quality", tag=tag, status=status)

    async def silent(self, seconds: float = 0) -> None:
        """Answer nothing for so long; 0 means until cleared."""
        await self.ask(do="silent", seconds=seconds)

    async def clamp(self, tag: str, most: float) -> None:
        """Limit writes to the tag without a word."""
        await self.ask(do="clamp", tag=tag, max=most)

    async def watchdog(self, after_s: float) -> tuple[int, bool]:
        """Let it trip after so long without a beat. Returns how many beats there were, and whether it has tripped."""
        answer = await self.ask(do="watchdog", seconds=after_s)
        return answer["beats"], answer["tripped"]

    async def put(self, grams: float) -> None:
        """Put so much onto the scale, in place of what stood there."""
        await self.ask(do="put", grams=grams)

    async def clear(self) -> None:
        """End every fault. Counters stay."""
        await self.ask(do="clear")
