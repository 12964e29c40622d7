"""A client of the desk: one Unix stream, one JSON object a line, answers matched to requests by id.

Reconnecting is the caller's business: once the stream has ended every call raises `desk.lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from pydantic import ValidationError

from edge.core.errors import LinesideError, Place
from edge.wire import LINE_BYTES_MAX, Picture, Request, Watch


class DeskClient:
    """One connection to the desk. Make it with `connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pending: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._newest: Picture | None = None
        self._changed = asyncio.Event()
        self._ended: LinesideError | None = None

    async def ask(self, request: Request) -> dict[str, Any]:
        """Send one request and wait for its answer. Raises the desk's refusal as the `LinesideError` it is, and
        `desk.lost` when the stream ended first: then only the desk knows whether it was done."""
        if self._ended is not None:
            raise self._ended
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[request.id] = answer
        try:
            self._writer.write(request.model_dump_json().encode() + b"\n")
            await self._writer.drain()
            return await answer
        except OSError as error:
            raise _lost(f"The connection to the runtime broke ({error.strerror or error}).") from error
        finally:
            self._pending.pop(request.id, None)

    async def pictures(self) -> AsyncIterator[Picture]:
        """The present picture and then every newer one; one that was replaced before it was read is left out.
        Raises `desk.lost` when the stream ends."""
        await self.ask(Watch(id=uuid4().hex))
        while True:
            await self._changed.wait()
            self._changed.clear()
            picture, self._newest = self._newest, None
            if picture is not None:
                yield picture
            if self._ended is not None:
                raise self._ended

    async def listen(self) -> None:
        """Read until the stream ends; `connect` runs this beside its caller."""
        ended = _lost("The runtime closed the connection.")
        try:
            while line := await self._reader.readline():
                self._take(line)
        except ValueError:  # the stream reader's own word for a line beyond its bound
            ended = _garbled("A line from the runtime is longer than the agreed bound.")
        except OSError as error:
            ended = _lost(f"The connection to the runtime broke ({error.strerror or error}).")
        except LinesideError as error:
            ended = error
        finally:
            self._ended = ended
            self._changed.set()
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(ended)

    def _take(self, line: bytes) -> None:
        try:
            message = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise _garbled("The runtime sent a line that is not JSON.") from error
        if not isinstance(message, dict):
            raise _garbled("The runtime sent a line that is not an object.")
        if "id" not in message and "picture" in message:
            try:
                self._newest = Picture.model_validate(message["picture"])
            except ValidationError as error:
                raise _garbled(
                    f"The runtime sent a picture that cannot be read ({error.error_count()} faults)."
                ) from error
            self._changed.set()
            return
        waiting = self._pending.get(str(message.get("id")))
        if waiting is None or waiting.done():
            return  # its asker was cancelled; what was done shows in the next picture
        if message.get("ok") is True:
            waiting.set_result(message)
        else:
            waiting.set_exception(_refusal(message.get("error")))


@asynccontextmanager
async def connect(path: Path) -> AsyncIterator[DeskClient]:
    """A connection to the desk at `path`, closed on leaving. Raises `desk.unreachable` when nobody answers there."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=LINE_BYTES_MAX)
    except OSError as error:
        raise LinesideError(
            "desk.unreachable",
            f"The runtime is not answering at {path} ({error.strerror or error}).",
            todo="Start it with `lineside edge run`, or look at its log.",
        ) from error
    client = DeskClient(reader, writer)
    listener = asyncio.create_task(client.listen(), name="desk client")
    try:
        yield client
    finally:
        listener.cancel()
        await asyncio.gather(listener, return_exceptions=True)  # its end is known: we asked for it
        writer.close()
        with contextlib.suppress(OSError):  # the other end may have gone first
            await writer.wait_closed()


def _refusal(error: object) -> LinesideError:
    """The desk's own words; the code is whatever it gave."""
    facts = error if isinstance(error, dict) else {}
    others, file = facts.get("others") or (), facts.get("file")
    return LinesideError(
        str(facts.get("code", "desk.refused")),
        str(facts.get("what", "The runtime refused without giving a reason.")),
        effect=str(facts.get("effect", "")),
        todo=str(facts.get("todo", "")),
        place=Place(str(file), facts.get("line") or 0, facts.get("column") or 0) if file else None,
        others=tuple(_refusal(other) for other in others),
    )


def _lost(what: str) -> LinesideError:
    return LinesideError(
        "desk.lost",
        what,
        effect="What was under way may or may not be saved; the journal decides.",
        todo="Connect again and look before repeating anything.",
    )


def _garbled(what: str) -> LinesideError:
    return LinesideError(
        "desk.garbled",
        what,
        effect="The connection was closed. The batch is not touched.",
        todo="Use a screen and a runtime of the same version.",
    )
