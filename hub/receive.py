"""Frames in, receipts out: a receipt is published only when the rows it names are committed. And rows back to a box
that was restored and asks for them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from edge import mqtt
from edge.core import recall
from edge.core.errors import LinesideError
from hub.store import Outcome, Store, Took
from hub.trust import Trust

UP: Final = "lineside/1/up/+/frames"
UP_TAIL: Final = "lineside/1/up/+/tail"
AT_ONCE: Final = 64
AT_ONCE_BYTES: Final = 4 * 1_048_576
"""Of a backlog at most so many frames, and so many bytes of them, are in one transaction."""
ASK_EVERY_S: Final = 0.5
"""A gap makes every frame behind it a gap too: the device is asked once for all of them."""
TRUST_EVERY_S: Final = 0.5
BACKUP_EVERY_S: Final = 1.0
"""How often is asked whether a backup made more rows safe."""
_TOPIC: Final = re.compile(r"lineside/1/up/([0-9a-f]{32})/frames")
_TAIL_TOPIC: Final = re.compile(r"lineside/1/up/([0-9a-f]{32})/tail")
_log = logging.getLogger("lineside.hub")


class Link(Protocol):
    """What is needed of an `edge.mqtt.Session` to answer."""

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None: ...


class Receiver:
    """Feeds a store from MQTT. `run` it; `connected` and `state` say how the connection is."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        address: mqtt.Address,
        *,
        on_change: Callable[[], None] = lambda: None,
        retry_s: tuple[float, float] = mqtt.RETRY_S,
    ) -> None:
        """`on_change` is called in the loop when rows, forks or the connection changed."""
        self._store = store
        self._trust = trust
        self._address = address
        self._on_change = on_change
        self._retry_s = retry_s
        self._session: mqtt.Session | None = None
        self._trusted_at = float("-inf")
        self._asked: dict[str, float] = {}

    @property
    def connected(self) -> bool:
        """True while frames can arrive."""
        return self._session is not None and self._session.connected

    @property
    def state(self) -> str:
        """A sentence: connected, or why not."""
        return self._session.state if self._session is not None else "Not started."

    async def run(self) -> None:
        """Receive until cancelled."""
        greet = asyncio.Event()

        def changed() -> None:
            greet.set()
            self._on_change()

        async with (
            mqtt.session(
                self._address,
                f"lineside-hub-{self._store.hub}",
                subscribe=[UP, UP_TAIL],
                on_change=changed,
                retry_s=self._retry_s,
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            self._session = session
            greet.set()
            tasks.create_task(self._greet(session, greet))
            tasks.create_task(self._tell_safe(greet))
            async for message in session:
                came = [message, *session.waiting(AT_ONCE - 1, AT_ONCE_BYTES - len(message.payload))]
                frames = [each for each in came if not each.topic.endswith("/tail")]
                if frames:
                    await self.take(session, frames)
                for each in came:
                    if each.topic.endswith("/tail"):
                        await self.give_tail(session, each)

    async def take(self, link: Link, messages: Sequence[mqtt.Message]) -> list[Outcome]:
        """Store the frames of messages in one transaction, then answer their devices."""
        self._refresh_trust()
        came = []
        for message in messages:
            named = _TOPIC.fullmatch(message.topic)
            came.append((message.payload, named[1] if named else message.topic[:64]))
        outcomes = await self._store.ingest_all(came, self._trust.keys)
        for outcome in outcomes:
            if outcome.error is not None:
                _log.warning("%s: %s", outcome.error.code, outcome.error.what)
        told = [outcome for outcome in outcomes if outcome.receipt and self._may_answer(outcome)]
        await asyncio.gather(*(_answer(link, outcome.device, outcome.receipt) for outcome in told))
        if any(outcome.took is not Took.KNOWN for outcome in outcomes):
            self._on_change()
        return outcomes

    async def give_tail(self, link: Link, message: mqtt.Message) -> None:
        """Answer a box that asks for the rows behind its last one; nobody else learns anything."""
        self._refresh_trust()
        named = _TAIL_TOPIC.fullmatch(message.topic)
        try:
            request = recall.read_request(message.payload, self._trust.keys, named[1] if named else "")
            answer = await self._store.tail(request)
            await link.publish(f"lineside/1/down/{request.device}/tail", answer)
        except LinesideError as error:
            _log.warning("%s: %s", error.code, error.what)

    async def _greet(self, session: mqtt.Session, changed: asyncio.Event) -> None:
        """At every new connection tell each known device what is held: a broker may have forgotten it, and a
        device that waited for the hub begins at once."""
        while True:
            await changed.wait()
            changed.clear()
            if session.connected:
                for device, receipt in (await self._store.receipts()).items():
                    await _answer(session, device, receipt)

    async def _tell_safe(self, greet: asyncio.Event) -> None:
        """Once a backup was verified and recorded, tell each known device."""
        while True:
            if await self._store.look_for_backup():
                greet.set()
            await asyncio.sleep(BACKUP_EVERY_S)

    def _may_answer(self, outcome: Outcome) -> bool:
        if outcome.took is not Took.GAP:
            self._asked.pop(outcome.device, None)
            return True
        now = asyncio.get_running_loop().time()
        if now - self._asked.get(outcome.device, float("-inf")) < ASK_EVERY_S:
            return False
        self._asked[outcome.device] = now
        return True

    def _refresh_trust(self) -> None:
        at = asyncio.get_running_loop().time()
        if at - self._trusted_at > TRUST_EVERY_S:
            self._trusted_at = at
            if self._trust.refresh():
                for fault in self._trust.faults:
                    _log.warning("devices: %s", fault)


async def _answer(link: Link, device: str, receipt: str) -> None:
    try:
        await link.publish(f"lineside/1/down/{device}/receipt", receipt.encode(), retain=True)
    except LinesideError as error:
        # The device asks again when it hears nothing; an access list that forbids it is for the operator.
        _log.warning("%s: %s", error.code, error.what)
