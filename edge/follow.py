"""The follower: reads the journal behind the runtime and brings it to the hub, to the second medium and into the views.

It can crash, lag or be stopped and no step notices; the runtime may be absent and it goes on with what is there.
What comes from outside (receipts) enters through the desk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

from edge import mqtt, notify
from edge.archiver import Archiver
from edge.config import Config
from edge.core import commands as cm
from edge.core.errors import LinesideError
from edge.core.orders import read_signed
from edge.desk_client import DeskClient, connect
from edge.history import HistoryReader
from edge.identity import DeviceKey, read_public
from edge.mirror import Mirror
from edge.packing import pack_and_thin
from edge.tail import Tail, open_tail
from edge.upkeep import drill, keep_up, self_check
from edge.uplink import Uplink
from edge.wire import AskStatus, GiveOrder, GiveReceipt, Request, Sync, TellDrill, TellSelfCheck, TellSync, ThinValues

LOOK_EVERY_S: Final = 0.2
TELL_EVERY_S: Final = 0.5
RETRY_S: Final = 1.0
DESK_TIMEOUT_S: Final = 10.0
VALUES_EVERY_S: Final = 5.0
VALUES_AGAIN_S: Final = 60.0
"""After packing failed: what kept it from it lasts, and values are as safe unpacked."""
_log = logging.getLogger("lineside.follow")


async def follow(config: Config, stop: asyncio.Event) -> None:
    """Follow the box of `config` until `stop`. Raises what reading its keys and addresses raises."""
    signer = DeviceKey.load(config.device_key)
    address = mqtt.read_address(config.broker.url, config.broker.ca) if config.broker else None
    if address is not None and config.hub is None:
        raise LinesideError(
            "sync.no_hub",
            "A broker is configured, and no hub to believe.",
            todo="Add [hub] with public_key to lineside.toml: the hub.pub that the hub's operator gives you.",
        )
    hub_public = read_public(config.hub.public_key) if config.hub else b""
    notify.ready("Waiting for the journal.")
    async with _until(stop):
        journal = config.state_dir / "journal.db"
        while not journal.is_file():  # the runtime makes it at its first start
            notify.watchdog()
            await asyncio.sleep(LOOK_EVERY_S)
        await _supervised("follower", lambda: _follow(config, journal, signer, address, hub_public))


async def _follow(
    config: Config, journal: Path, signer: DeviceKey, address: mqtt.Address | None, hub_public: bytes
) -> None:
    async with open_tail(journal, signer, config) as tail, asyncio.TaskGroup() as tasks:
        tail.on_look.append(notify.watchdog)
        desk = _Desk(config.desk_socket)
        uplink = mirror = None
        if address is not None:
            uplink = Uplink(
                tail,
                signer=signer,
                hub_public=hub_public,
                address=address,
                state_path=config.state_dir / "uplink.json",
                give=desk.give,
                give_order=desk.give_order,
                on_change=desk.changed,
            )
            tasks.create_task(_supervised("uplink", uplink.run))
        if config.mirror is not None:
            mirror = Mirror(tail, config.mirror.path, signer=signer, on_change=desk.changed)
            tasks.create_task(_supervised("mirror", mirror.run))
        if config.views:
            tasks.create_task(_supervised("views", lambda: _keep_views(tail, config.state_dir / "views.db")))
        at, check, drilled = config.self_check_at, partial(_check, config, desk), partial(_drill, config, desk)
        tasks.create_task(_supervised("upkeep", lambda: keep_up(at, partial(desk.last, "self_check"), check)))
        if config.backup is not None:
            tasks.create_task(_supervised("backup", lambda: keep_up(at, partial(desk.last, "drill"), drilled)))
        tasks.create_task(_supervised("process values", lambda: _keep_values(config, desk)))
        archiver = None
        if config.archive is not None:
            archiver = Archiver(
                config,
                config.archive,
                signer,
                receipt=lambda: uplink.receipt if uplink else "",
                on_change=desk.changed,
            )
            tasks.create_task(_supervised("archive", archiver.run))
        tasks.create_task(_supervised("desk", lambda: desk.run(lambda: sync_of(uplink, mirror, archiver))))
        notify.status("Following the journal.")
        await tail.keep_looking()


async def _check(config: Config, desk: _Desk) -> None:
    await desk.tell(TellSelfCheck(id=uuid4().hex, **asdict(await self_check(config))))


async def _drill(config: Config, desk: _Desk) -> None:
    await desk.tell(TellDrill(id=uuid4().hex, **(await drill(config)).model_dump()))


async def _keep_values(config: Config, desk: _Desk) -> None:
    """Have sealed windows of process values packed, and old ones thinned, whenever there are any."""
    path = config.state_dir / "history.db"
    keep_us, bucket_us = int(config.history.keep_days * 86_400_000_000), config.history.thin_to_s * 1_000_000
    left: set[int] = set()

    def waits() -> bool:
        try:
            with HistoryReader(path) as reader:
                return reader.waits(keep_us, left)
        except LinesideError as error:
            if error.code != "values.absent":  # the runtime makes it
                raise
            return False

    while True:
        try:
            if await asyncio.to_thread(waits):
                await pack_and_thin(path, keep_us, bucket_us, left, desk.thin)
        except LinesideError as error:
            _log.error("process values: %s", error)
            await asyncio.sleep(VALUES_AGAIN_S)
        await asyncio.sleep(VALUES_EVERY_S)


async def _keep_views(tail: Tail, path: Path) -> None:
    """Keep `path` behind the journal, a bounded batch at a time and at most half of the time."""
    from edge.views import ROWS_AT_ONCE, Views

    loop = asyncio.get_running_loop()
    grown = asyncio.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="views") as thread:
        views = await loop.run_in_executor(thread, Views, path)
        tail.on_grown.append(grown.set)
        try:
            seq, row_hash = await loop.run_in_executor(thread, views.applied)
            if await tail.hash_at(seq) != row_hash:  # of another journal, or of one that was restored since
                await loop.run_in_executor(thread, views.begin_anew)
                seq = 0
            while True:
                grown.clear()
                while rows := await tail.rows(seq, ROWS_AT_ONCE):
                    began_s = loop.time()
                    seq = await loop.run_in_executor(thread, views.apply, seq, rows)
                    await asyncio.sleep(loop.time() - began_s)
                await grown.wait()
        finally:
            tail.on_grown.remove(grown.set)
            thread.submit(views.close).result()


def sync_of(uplink: Uplink | None, mirror: Mirror | None, archiver: Archiver | None = None) -> Sync:
    """What the safety strip is told."""
    state = uplink.state if uplink else None
    said = [
        state.detail if state else "",
        mirror.detail if mirror and mirror.state == "failed" else "",
        archiver.detail if archiver else "",
    ]
    return Sync(
        hub=state.hub if state else "off",
        received_seq=state.received_seq if state else 0,
        received_utc=state.received_utc if state else "",
        copied=mirror.state if mirror else "off",
        copied_seq=mirror.copied_seq if mirror else 0,
        detail=" ".join(part for part in said if part),
    )


class _Desk:
    """The way to the runtime, for as long and as often as it is there."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._client: DeskClient | None = None
        self._there = asyncio.Event()
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """The state of sync may have changed."""
        self._changed.set()

    async def give(self, receipt: str) -> None:
        """Hand a receipt to the desk, as soon as there is one. Raises what the desk answers."""
        await self._when_there(GiveReceipt(id=uuid4().hex, receipt=receipt))

    async def give_order(self, payload: bytes) -> None:
        """Hand an order of the hub to the desk, as soon as there is one. Raises what the desk answers."""
        text, signature = read_signed(payload)
        while True:
            request = GiveOrder(id=uuid4().hex, text=text, way="hub", signature=signature)
            try:
                await self._when_there(request)
            except LinesideError as error:
                if error.code not in {"desk.lost", "desk.silent"}:
                    raise
                await asyncio.sleep(RETRY_S)  # nobody knows whether it was taken: it is the same order again
            else:
                return

    async def last(self, chore: Literal["self_check", "drill"]) -> datetime | None:
        """When the box last did this; None for never."""
        answer = await self._when_there(AskStatus(id=uuid4().hex))
        last = answer["picture"][chore]
        return datetime.fromisoformat(last["utc"]) if last else None

    async def tell(self, found: TellSelfCheck | TellDrill) -> None:
        """Put what a chore found into the record."""
        await self._when_there(found)

    async def thin(self, command: cm.ThinValues) -> None:
        """Have the row made that lets a window be thinned. Raises what the desk answers."""
        await self._when_there(ThinValues(**asdict(command) | {"id": uuid4().hex}))

    async def _when_there(self, request: Request) -> dict[str, Any]:
        await self._there.wait()
        assert self._client is not None
        return await _ask(self._client, request)

    async def run(self, sync: Callable[[], Sync]) -> None:
        """Keep the desk told of `sync()` until cancelled; connects again whenever the runtime is back."""
        while True:
            with contextlib.suppress(LinesideError):  # no runtime, or it went: nothing to tell it now
                async with connect(self._socket) as client:
                    self._client = client
                    self._there.set()
                    told, told_at = None, 0.0
                    loop = asyncio.get_running_loop()
                    while True:
                        self._changed.clear()
                        now = sync()
                        # Also without a change, so that a runtime that went is noticed.
                        if now != told or loop.time() - told_at > DESK_TIMEOUT_S:
                            await _ask(client, TellSync(id=uuid4().hex, sync=now))
                            told, told_at = now, loop.time()
                        await asyncio.sleep(TELL_EVERY_S)
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(DESK_TIMEOUT_S):
                                await self._changed.wait()
            self._there.clear()
            self._client = None
            await asyncio.sleep(RETRY_S)


async def _ask(client: DeskClient, request: Request) -> dict[str, Any]:
    try:
        async with asyncio.timeout(DESK_TIMEOUT_S):
            return await client.ask(request)
    except TimeoutError as error:
        raise LinesideError(
            "desk.silent",
            f"The runtime did not answer within {DESK_TIMEOUT_S:g} s.",
            effect="Sync goes on; the screen's strip may be old.",
            todo="Look at the runtime's log if this lasts.",
        ) from error


@contextlib.asynccontextmanager
async def _until(stop: asyncio.Event) -> AsyncIterator[None]:
    """Leave the block in order when `stop` is set."""
    body = asyncio.current_task()
    assert body is not None
    stopped = False

    async def watch() -> None:
        nonlocal stopped
        await stop.wait()
        stopped = True
        notify.stopping()
        body.cancel()

    watching = asyncio.create_task(watch(), name="stop")
    try:
        yield
    except asyncio.CancelledError:
        if not stopped or body.uncancel():
            raise
    finally:
        watching.cancel()
        await asyncio.wait({watching})


async def _supervised(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` again whenever it ends, so that one part's trouble never stops another."""
    while True:
        try:
            await work()
        except* LinesideError as group:
            for error in _each(group):
                _log.error("%s: %s", name, error)
        except* Exception:  # noqa: BLE001  # the edge of a supervised task: it must come back whatever it was
            _log.exception("%s ended unexpectedly and begins again", name)
        await asyncio.sleep(RETRY_S)


def _each(group: BaseExceptionGroup[LinesideError]) -> list[LinesideError]:
    found: list[LinesideError] = []
    for error in group.exceptions:
        found += _each(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found
