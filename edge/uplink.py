"""Frames up, receipts down. The cursor moves only by receipts that the hub has signed.

The hub is asked first (a hail) and sent to only when it has answered, so that nothing is poured into a broker
behind which nobody listens. Frames are pipelined up to a bound; what is not receipted in time is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal

import orjson

from edge import mqtt
from edge.core.errors import LinesideError
from edge.core.frame import Receipt, read_receipt
from edge.core.orders import ORDERS_MAX
from edge.core.quick import dataclass
from edge.core.record import Row, Signer, fingerprint
from edge.tail import Tail

FRAMES_UNDER_WAY_MAX: Final = 8
GIVE_EVERY_S: Final = 2.0
"""The desk gets a receipt at most this often: each becomes a row."""
STATE_BYTES_MAX: Final = 65_536
ROWS_AT_ONCE: Final = 64
_log = logging.getLogger("lineside.uplink")


class Took(StrEnum):
    """What a receipt did to the window."""

    MOVED = "moved"
    SAME = "same"
    OLDER = "older"
    """Fewer rows than the same incarnation had already signed for: late, and ignored."""
    SUPERSEDED = "superseded"
    """From an incarnation that another one has replaced: late, and ignored."""
    REWOUND = "rewound"
    """A new incarnation holds fewer rows: they count as pending again and are sent again."""
    LOST = "lost"
    """The same incarnation asks for rows that it had signed for: they are sent again, and someone must know."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long to wait for a receipt before asking again, how far that may grow, how often to say hail."""

    resend_s: float = 5.0
    resend_max_s: float = 60.0
    idle_s: float = 20.0


class Window:
    """What to send next and when to ask again: pure, time and jitter are parameters.

    Rows up to `cursor` are receipted; rows up to `sent` were sent since the last rewind. A hail goes out when
    `due` has come; rows are sent only while no answer to a hail is awaited."""

    def __init__(self, timing: Timing = Timing()) -> None:
        self.cursor = 0
        self.sent = 0
        self.due = float("inf")
        self.here = False
        """True while the hub has answered on this connection and is not overdue."""
        self.overdue = False
        """True while what was sent has gone unanswered for too long."""
        self.incarnation = ""
        self.superseded: list[str] = []
        self._timing = timing
        self._patience_s = timing.resend_s
        self._waiting = True
        self._asked = False
        self._under_way: deque[int] = deque()

    def connected(self, now: float) -> None:
        """A connection began: nothing that was sent before counts, and the hub is asked at once."""
        self._rewind(self.cursor)
        self._waiting, self._asked, self.here, self.overdue, self.due = True, False, False, False, now
        self._patience_s = self._timing.resend_s

    def disconnected(self) -> None:
        """The connection ended."""
        self._waiting, self._asked, self.here, self.overdue = True, False, False, False
        self.due = float("inf")

    def next_seq(self, made_seq: int) -> int | None:
        """The row that the next frame begins with, or None when nothing may be sent now."""
        if self._waiting or len(self._under_way) >= FRAMES_UNDER_WAY_MAX or self.sent >= made_seq:
            return None
        return self.sent + 1

    def frame_sent(self, last_seq: int, now: float, jitter: float) -> None:
        """A frame that ends with `last_seq` is under way."""
        if not self._under_way:
            self.due = now + self._patience_s * jitter
        self._under_way.append(last_seq)
        self.sent = last_seq

    def hailed(self, now: float, jitter: float) -> None:
        """`due` had come and a hail is under way: what was sent before it and is not receipted is sent again."""
        if self._asked or self._under_way:
            self.here, self.overdue = False, True
            self._patience_s = min(self._patience_s * 2, self._timing.resend_max_s)
        self._rewind(self.cursor)
        self._waiting = self._asked = True
        self.due = now + self._patience_s * jitter

    def receipt(self, receipt: Receipt, *, retained: bool, now: float, jitter: float) -> Took:
        """Take a verified receipt that agrees with our own rows. A `retained` one is old news: it moves the
        cursor, but says nothing of whether the hub is there now."""
        if receipt.incarnation in self.superseded:
            return Took.SUPERSEDED
        if receipt.incarnation != self.incarnation:
            if self.incarnation:
                self.superseded.append(self.incarnation)
            self.incarnation = receipt.incarnation
            took = Took.REWOUND if receipt.stored_seq < self.cursor else Took.MOVED
            self.cursor = receipt.stored_seq
            self._rewind(self.cursor)
        elif receipt.stored_seq > self.cursor:
            took, self.cursor = Took.MOVED, receipt.stored_seq
        else:
            took = Took.SAME if receipt.stored_seq == self.cursor else Took.OLDER
        while self._under_way and self._under_way[0] <= receipt.stored_seq:
            self._under_way.popleft()
        self.sent = max(self.sent, self.cursor)
        if not retained:
            if took is Took.MOVED or not self._under_way:
                self._patience_s = self._timing.resend_s
            if 0 < receipt.wanted_seq <= self.sent:
                took = Took.LOST if receipt.wanted_seq <= self.cursor else took
                self._rewind(receipt.wanted_seq - 1)
            self._waiting, self._asked, self.here, self.overdue = False, False, True, False
            self.due = now + (self._patience_s if self._under_way else self._timing.idle_s) * jitter
        return took

    def _rewind(self, to_seq: int) -> None:
        self.sent = to_seq
        self._under_way.clear()


@dataclass(frozen=True, slots=True)
class UplinkState:
    """For the safety strip; see `edge.wire.Sync`."""

    hub: Literal["never", "away", "connected"]
    received_seq: int
    received_utc: str
    detail: str


class Uplink:
    """One box's way to its hub. `run` it; `state` may be asked at any time."""

    def __init__(
        self,
        tail: Tail,
        *,
        signer: Signer,
        hub_public: bytes,
        address: mqtt.Address,
        state_path: Path,
        give: Callable[[str], Awaitable[None]],
        give_order: Callable[[bytes], Awaitable[None]],
        on_change: Callable[[], None] = lambda: None,
        timing: Timing = Timing(),
        retry_s: tuple[float, float] = mqtt.RETRY_S,
    ) -> None:
        """`give` hands a receipt to the desk and returns when the desk has answered, `give_order` likewise an order;
        `state_path` keeps the last receipt over a restart; `on_change` is called in the loop whenever `state` may have
        changed."""
        self._tail = tail
        self._device = fingerprint(signer.public)
        self._hub_public = hub_public
        self._address = address
        self._state_path = state_path
        self._give = give
        self._give_order = give_order
        self._orders: deque[bytes] = deque(maxlen=ORDERS_MAX)
        self._ordered = asyncio.Event()
        self._on_change = on_change
        self._retry_s = retry_s
        self._window = Window(timing)
        self._wake = asyncio.Event()
        self._received = asyncio.Event()
        self._text = ""
        self._receipt: Receipt | None = None
        self._given_seq = 0
        self._broker = ""
        self._refused = ""
        self._alarm = ""
        self._evidence_seq: int | None = None

    @property
    def state(self) -> UplinkState:
        """How it stands now."""
        hub: Literal["never", "away", "connected"] = "connected" if self._window.here else "away"
        if self._receipt is None and not self._window.here:
            hub = "never"
        detail = self._alarm or self._refused
        if not detail and not self._window.here:
            detail = self._broker or "Asking the hub."
            if self._window.overdue:
                detail = f"The broker is reached, the hub does not answer. Does it trust this device, {self._device}?"
        utc = self._receipt.utc if self._receipt else ""
        return UplinkState(hub, self._window.cursor, utc, detail)

    @property
    def receipt(self) -> str:
        """The text of the newest receipt; empty without one."""
        return self._text

    async def run(self) -> None:
        """Send and receive until cancelled."""
        await self._recall()
        self._tail.on_grown.append(self._wake.set)
        try:
            async with (
                mqtt.session(
                    self._address,
                    f"lineside-{self._device}",
                    subscribe=[f"lineside/1/down/{self._device}/receipt", f"lineside/1/down/{self._device}/order/+"],
                    on_change=self._wake.set,
                    retry_s=self._retry_s,
                ) as link,
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(self._receive(link))
                tasks.create_task(self._hand_on())
                tasks.create_task(self._hand_on_orders())
                await self._send(link, tasks)
        finally:
            self._tail.on_grown.remove(self._wake.set)
            self._keep()

    async def _send(self, link: mqtt.Session, tasks: asyncio.TaskGroup) -> None:
        window, loop = self._window, asyncio.get_running_loop()
        topic = f"lineside/1/up/{self._device}/frames"
        was_connected = False
        while True:
            self._wake.clear()
            if link.connected != was_connected:
                was_connected = link.connected
                if was_connected:
                    window.connected(loop.time())
                else:
                    window.disconnected()
            self._broker = "" if was_connected else link.state
            self._on_change()
            if was_connected and loop.time() >= window.due:
                evidence = self._evidence_seq
                data = await self._tail.hail(window.cursor if evidence is None else evidence)
                window.hailed(loop.time(), _jitter())
                tasks.create_task(self._publish(link, topic, data))
            elif (seq := window.next_seq(self._tail.made_seq)) is not None:
                data, last_seq = await self._tail.frame_from(seq)
                if window.next_seq(self._tail.made_seq) == seq:  # no receipt rewound it meanwhile
                    window.frame_sent(last_seq, loop.time(), _jitter())
                    tasks.create_task(self._publish(link, topic, data))
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(None if window.due == float("inf") else window.due):
                        await self._wake.wait()

    async def _publish(self, link: mqtt.Session, topic: str, data: bytes) -> None:
        try:
            await link.publish(topic, data)
            self._refused = ""
        except LinesideError as error:
            # Away: the next connection begins anew. Refused: the window's time-out sends it again.
            self._refused = error.what if error.code == "mqtt.refused" else ""
        self._wake.set()

    async def _receive(self, link: mqtt.Session) -> None:
        async for message in link:
            if "/order/" in message.topic:
                self._orders.append(message.payload)  # retained: what does not fit comes with the next connection
                self._ordered.set()
                continue
            try:
                receipt = read_receipt(message.payload, self._hub_public)
                await self._check(receipt)
            except LinesideError as error:
                self._alarm = error.what
            else:
                took = self._window.receipt(
                    receipt, retained=message.retained, now=asyncio.get_running_loop().time(), jitter=_jitter()
                )
                self._evidence_seq = None
                if took is Took.LOST:
                    self._alarm = (
                        f"The hub lost rows that it had signed for, from {receipt.wanted_seq} on; they go again."
                    )
                elif took in {Took.MOVED, Took.SAME, Took.REWOUND}:
                    self._alarm = ""
                    self._receipt, self._text = receipt, message.payload.decode()
                    self._received.set()
            self._wake.set()

    async def _hand_on_orders(self) -> None:
        """Give the desk the orders that came, each until it has said yes or no; it knows those that it had before."""
        while True:
            await self._ordered.wait()
            self._ordered.clear()
            while self._orders:
                payload = self._orders.popleft()
                if payload:
                    try:
                        await self._give_order(payload)
                    except LinesideError as error:
                        _log.warning("an order of the hub: %s", error)

    async def _check(self, receipt: Receipt) -> None:
        """Raises `sync.foreign_receipt` or `sync.fork` when the receipt does not speak of our rows."""
        if receipt.device != self._device or receipt.journal != self._tail.journal_id.hex():
            raise LinesideError(
                "sync.foreign_receipt",
                f"The hub's receipt is for another journal ({receipt.journal[:8]} of device {receipt.device[:8]}).",
                effect="Work goes on; the rows count as pending.",
                todo="If this box was set up anew with its old key, wait until the hub has taken its first rows.",
            )
        ours = await self._tail.hash_at(receipt.stored_seq)
        if ours is None or ours.hex() != receipt.head_hash:
            # Asking about that row shows the hub ours, so that the fork is known there too.
            self._evidence_seq = min(receipt.stored_seq, self._tail.made_seq)
            have = "there is no such row here" if ours is None else "the row here is another one"
            raise LinesideError(
                "sync.fork",
                f"FORK: the hub holds a row {receipt.stored_seq} of this journal, and {have}. "
                "A copy of this box is or was at work, or its journal was put back.",
                effect="Work goes on and is saved here; the hub does not take rows that contradict.",
                todo="Call quality and the hub's operator before anything is released.",
            )

    async def _hand_on(self) -> None:
        """Give the desk the newest receipt, seldom, and only when it covers more than receipts and seals:
        otherwise receipts and the rows that keep them would chase each other for ever."""
        while True:
            await self._received.wait()
            self._received.clear()
            self._keep()
            text, seq = self._text, self._window.cursor
            if await self._covers_work(seq):
                with contextlib.suppress(LinesideError):  # the desk says no or is away: a later receipt is given
                    await self._give(text)
                    self._given_seq = seq
                    self._keep()
            await asyncio.sleep(GIVE_EVERY_S)

    async def _covers_work(self, until_seq: int) -> bool:
        seq = self._given_seq
        while seq < until_seq:
            rows = await self._tail.rows(seq, ROWS_AT_ONCE)
            if not rows:
                return False
            if any(row.seq <= until_seq and _is_work(row) for row in rows):
                return True
            seq = rows[-1].seq
        return False

    async def _recall(self) -> None:
        """Begin from the receipt kept by the run before, if it is whole and agrees with the journal."""
        try:
            with self._state_path.open("rb") as file:
                kept = orjson.loads(file.read(STATE_BYTES_MAX))
            receipt = read_receipt(str(kept["receipt"]), self._hub_public)
            await self._check(receipt)
            superseded, given_seq = [str(name) for name in kept["superseded"]], int(kept["given_seq"])
        except (OSError, ValueError, TypeError, KeyError, LinesideError):
            return  # only a shortcut was lost: the hub is asked what it holds
        self._window.receipt(receipt, retained=True, now=0.0, jitter=1.0)
        self._window.superseded = superseded
        self._receipt, self._text, self._given_seq = receipt, str(kept["receipt"]), given_seq

    def _keep(self) -> None:
        if not self._text:
            return
        kept = {"receipt": self._text, "superseded": self._window.superseded, "given_seq": self._given_seq}
        partial = self._state_path.with_name(f".{self._state_path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk: only a shortcut is lost
            partial.write_bytes(orjson.dumps(kept))
            partial.replace(self._state_path)


def _is_work(row: Row) -> bool:
    try:
        return bool(orjson.loads(row.body)["kind"] not in {"ReceiptStored", "Sealed"})
    except (ValueError, KeyError, TypeError):
        return True  # a kind that this version cannot read is a row like any other


def _jitter() -> float:
    return random.uniform(0.75, 1.25)  # noqa: S311
