"""A water bath that speaks in lines over TCP: `T` is answered by `T 36.98`, its temperature, `S` by `S 37.00`, its
set-point, and `S=38.50` by the set-point that it took, or by `?`. `T !` says that the sensor failed.

Settings: `host`, `port`. Addresses: `T`, and `S`, which may be written; both are floats in degC.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, Found, Home, OneTask, WriteRefused, WriteUnknown, retry_delays_s

LINE_BYTES_MAX = 64
NUMBER = re.compile(r"-?\d{1,3}\.\d\d")


class NotSent(Exception):
    """Nothing left this box."""


class Lost(Exception):
    """The connection is gone, or can no longer be trusted."""


class BathDriver(OneTask):
    """One water bath."""

    capabilities = frozenset({Capability.READ, Capability.WATCH, Capability.WRITE})

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
        home: Home,
    ) -> None:
        del utc, home  # the bath has no clock, and there is nothing to keep
        super().__init__("bath", tags, now_s)
        host, port = connection.settings.get("host"), connection.settings.get("port")
        if len(connection.settings) != 2 or not isinstance(host, str) or not isinstance(port, int):
            raise LinesideError(
                "bath.settings",
                f"These are not the settings of a water bath: {', '.join(connection.settings)[:100] or 'none'}.",
                todo="Give host (a text) and port (a number), and nothing else.",
            )
        for name, tag in tags.items():
            if tag.address not in ("T", "S") or tag.type != "float" or (tag.address == "T" and tag.access == "write"):
                raise LinesideError(
                    "bath.address",
                    f"The tag {name} is {tag.address[:40]!r}, a {tag.type} with access {tag.access}.",
                    todo="T is a float that can be read; S one that can be written, too.",
                )
        self._host, self._port = host, port
        self._timeout_s, self._poll_s = connection.timeout_s, connection.poll_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._look = asyncio.Event()
        self._watched: list[str] = []

    # The port ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """End the task and the connection."""
        await super().stop()
        self._drop()

    async def watch(self, tags: Sequence[str]) -> None:
        """Poll exactly these tags."""
        self._watched = [tag for tag in tags if tag in self._tags]
        self._look.set()

    async def read(self, tag: str) -> Reading:
        """Ask the bath now."""
        try:
            return await self._asked(tag)
        except (NotSent, Lost) as error:
            return self._bad(tag, str(error))

    async def write(self, tag: str, value: Value) -> None:
        """Send exactly one request."""
        try:
            answer = await self._exchange(f"{self._tags[tag].address}={value:.2f}")
        except NotSent as error:
            raise WriteRefused(f"Nothing was sent: {error}") from error
        except Lost as error:
            raise WriteUnknown(f"The set-point was sent, then: {error}") from error
        if answer == "?":
            raise WriteRefused("The bath does not take this set-point.")
        if not answer.startswith("S "):
            self._drop()
            raise WriteUnknown(f"The bath answered {answer!r}.")

    async def browse(self, text: str = "") -> list[Found]:
        """Never asked for: it is none of the capabilities."""
        raise NotImplementedError(text)

    # The bath ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._streams = await asyncio.open_connection(self._host, self._port, limit=LINE_BYTES_MAX)
                while True:
                    self._look.clear()
                    await self._exchange("S")  # also when nothing is watched: whether it is there
                    self._say(connected=True, detail=f"Connected to {self._host}.")
                    delays = retry_delays_s()
                    for tag in self._watched:
                        self._on_reading(tag, await self._asked(tag))
                    try:
                        async with asyncio.timeout(self._poll_s):
                            await self._look.wait()
                    except TimeoutError:
                        pass  # time for the next look
            except (NotSent, Lost, OSError, TimeoutError) as error:
                why = str(error) or "The bath cannot be reached."
            self._drop()
            self._say(connected=False, detail=why)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, why))
            await asyncio.sleep(next(delays))

    async def _asked(self, tag: str) -> Reading:
        question = self._tags[tag].address
        answer = await self._exchange(question)
        if answer == f"{question} !":
            return self._bad(tag, "The bath says that its sensor failed.")
        said, _, number = answer.partition(" ")
        if said != question or not NUMBER.fullmatch(number):
            self._drop()  # an answer to something else: whatever comes next may be one, too
            raise Lost(f"The bath answered {answer!r}.")
        self._last[tag] = Reading(float(number), self._tags[tag].unit, Quality.GOOD, "", self._now_s())
        return self._last[tag]

    async def _exchange(self, request: str) -> str:
        """One line there, one back. Whatever goes wrong, also cancellation, ends the connection: an answer that comes
        later must never be taken for another's."""
        async with self._turn:
            if self._streams is None:
                raise NotSent(self._health.detail)
            reader, writer = self._streams
            line = None
            try:
                writer.write(f"{request}\n".encode())
                async with asyncio.timeout(self._timeout_s):
                    line = await reader.readuntil(b"\n")
            except TimeoutError as error:
                raise Lost(f"The bath did not answer within {self._timeout_s:g} s.") from error
            except (OSError, EOFError, asyncio.LimitOverrunError) as error:
                raise Lost("The connection ended.") from error
            finally:
                if line is None:
                    self._drop()
            return line.decode("ascii", "replace").strip()

    def _drop(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
        self._look.set()
