"""MQTT 5 as Lineside uses it: QoS 1, every reason code checked, nothing kept over a lost connection.

The only owner of paho-mqtt. A session connects and connects again, with growing, jittered pauses, until it is
left; what was under way when a connection was lost fails with `mqtt.away`, and whoever published decides
whether to send it again. Nothing here is an acknowledgement: receipts are.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.clock import SystemClock
from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.core.terms import ClockQuality

RECEIVE_MAX: Final = 64
"""Messages that the broker may deliver before the first is taken: bounds our memory."""
INBOX_MAX: Final = 1_024
"""More than this means a broker that does not keep to RECEIVE_MAX."""
PACKET_BYTES_MAX: Final = 1_048_576
CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 10.0
RETRY_S: Final = (0.5, 8.0)
"""The first pause before connecting again, and the longest."""
KEEPALIVE_S: Final = 15
_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker is, and the CA that vouches for it (None: plain MQTT on loopback)."""

    host: str
    port: int
    ca: Path | None


@dataclass(frozen=True, slots=True)
class Message:
    """One delivered message. `retained`: the broker had kept it from before we subscribed."""

    topic: str
    payload: bytes
    retained: bool


def read_address(url: str, ca: Path | None) -> Address:
    """Check a broker's URL. Raises `mqtt.url`, `mqtt.plain`, `mqtt.ca_missing` or `mqtt.ca`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        host, port = "", 0
    if not host or parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username is not None:
        raise LinesideError(
            "mqtt.url",
            f"{url[:100]!r} is not the address of a broker.",
            todo='Write it as "mqtts://broker.example:8883", or "mqtt://127.0.0.1:1883" for one on this machine.',
        )
    if parts.scheme == "mqtt":
        if not _is_loopback(host):
            raise LinesideError(
                "mqtt.plain",
                f"{url} would send rows unprotected over the network.",
                todo=f'Use "mqtts://{host}" and name the CA file that vouches for the broker.',
            )
        return Address(host, port, None)
    if ca is None:
        raise LinesideError(
            "mqtt.ca_missing",
            f"{url} needs the CA file that vouches for the broker, and none is named.",
            todo='Set "ca" beside the broker\'s url.',
        )
    _tls(ca)
    return Address(host, port, ca)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_OUT_OF_DATE: Final = frozenset({9, 10})
"""OpenSSL's codes for a certificate that is not valid yet, and for one that is expired."""


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails, which paho leaves open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _tls(ca: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca))
        context.sslsocket_class = _TidySocket
        return context
    except OSError as error:  # ssl.SSLError is one too
        raise LinesideError(
            "mqtt.ca",
            f"The CA file {ca} cannot be used: {error.strerror or error}.",
            todo="Put the broker's CA certificate there as PEM text.",
        ) from error


@contextlib.asynccontextmanager
async def session(
    address: Address,
    client_id: str,
    *,
    subscribe: Sequence[str] = (),
    on_change: Callable[[], None] = lambda: None,
    retry_s: tuple[float, float] = RETRY_S,
) -> AsyncIterator[Session]:
    """A Session that keeps itself connected until the block is left; then no task, socket or thread remains.

    `on_change` is called in the loop whenever `connected` or `state` changed."""
    made = Session(address, client_id, tuple(subscribe), on_change, retry_s)
    keeper = asyncio.create_task(made._keep(), name=f"mqtt {client_id}")  # noqa: SLF001  # same module
    try:
        yield made
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})  # not awaited itself: our own cancellation must not be mistaken for its
        if not keeper.cancelled():
            keeper.result()


class Session:
    """See `session`. Use from one event loop."""

    def __init__(
        self,
        address: Address,
        client_id: str,
        topics: tuple[str, ...],
        on_change: Callable[[], None],
        retry_s: tuple[float, float],
    ) -> None:
        self.connected = False
        """True when connected and every subscription was granted."""
        self.state = "Connecting for the first time."
        """A sentence: connected, or why not."""
        self._address = address
        self._client_id = client_id
        self._topics = topics
        self._on_change = on_change
        self._retry_s = retry_s
        self._link: _Link | None = None
        self._inbox: deque[tuple[_Link, MQTTMessage]] = deque()
        self._arrived = asyncio.Event()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Returns when the broker has taken the message (which is no acknowledgement of its content).

        Raises `mqtt.away` when there is no connection or it was lost meanwhile, and `mqtt.refused` with the
        broker's reason when it would not take it."""
        link = self._link
        if link is None or not self.connected:
            raise _away(self.state)
        reason = await link.publish(topic, payload, retain)
        if reason.is_failure:
            raise LinesideError(
                "mqtt.refused",
                f"The broker did not take a message to {topic}: {reason}.",
                effect="The rows count as pending, as before.",
                todo="Allow this client to publish there, in the broker's access list.",
            )

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        """The next message, in the order of arrival; over reconnects, for as long as the session lives."""
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        return self._next()

    def waiting(self, limit: int, bytes_max: int) -> list[Message]:
        """The messages that have arrived already, at most `limit` and `bytes_max` of payload."""
        messages: list[Message] = []
        while self._inbox and len(messages) < limit:
            bytes_max -= len(self._inbox[0][1].payload)
            if bytes_max < 0:
                break
            messages.append(self._next())
        return messages

    def _next(self) -> Message:
        link, message = self._inbox.popleft()
        link.took(message)
        return Message(message.topic, bytes(message.payload), message.retain)

    async def _keep(self) -> None:
        pause_s = self._retry_s[0]
        try:
            while True:
                link = _Link(self._address, self._client_id, self._deliver)
                try:
                    await link.open(self._topics)
                    pause_s = self._retry_s[0]
                    self._link = link
                    self._tell("Connected.", connected=True)
                    why = await link.lost
                except LinesideError as error:
                    why = error.what
                finally:
                    self._link = None
                    await link.close()
                self._tell(why, connected=False)
                # Jitter, so that a site's boxes do not all return in the same moment.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))  # noqa: S311
                pause_s = min(pause_s * 2, self._retry_s[1])
        finally:
            self._tell("Left.", connected=False)

    def _deliver(self, link: _Link, message: MQTTMessage) -> None:
        # Only QoS 1 counts against RECEIVE_MAX; nothing of ours is sent at QoS 0, so such a message is foreign.
        if message.qos == 1:
            if len(self._inbox) >= INBOX_MAX:
                link.end("The broker delivers more at once than was agreed.")
                return
            self._inbox.append((link, message))
            self._arrived.set()

    def _tell(self, state: str, *, connected: bool) -> None:
        if (state, connected) != (self.state, self.connected):
            self.state, self.connected = state, connected
            self._on_change()


class _Link:
    """One connection from its CONNECT to its end, on a paho client of its own."""

    def __init__(self, address: Address, client_id: str, deliver: Callable[[_Link, MQTTMessage], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Done when the connection has ended, with a sentence why."""
        self._address = address
        self._deliver = deliver
        self._connack: asyncio.Future[ReasonCode] = self._loop.create_future()
        self._answers: dict[int | None, asyncio.Future[list[ReasonCode]]] = {}
        self._socket: socket.socket | None = None
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages = 0  # our own window bounds what is under way
        client.on_socket_open = self._socket_opened
        client.on_socket_close = self._socket_closed
        client.on_socket_register_write = self._write_wanted
        client.on_socket_unregister_write = self._write_done
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        self._misc: asyncio.Task[None] | None = None

    async def open(self, topics: Sequence[str]) -> None:
        """Connect and subscribe. Raises `mqtt.away` with the reason."""
        if self._address.ca is not None:
            self._client.tls_set_context(_tls(self._address.ca))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = RECEIVE_MAX
        properties.MaximumPacketSize = PACKET_BYTES_MAX
        # paho connects and shakes hands blocking, for at most CONNECT_TIMEOUT_S each; its callbacks below
        # hand the socket over to the loop.
        connecting = asyncio.ensure_future(
            asyncio.to_thread(
                self._client.connect,
                self._address.host,
                self._address.port,
                keepalive=KEEPALIVE_S,
                properties=properties,
            )
        )
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError, ValueError):  # leave no thread behind
                await connecting
            raise
        except (OSError, ValueError) as error:  # ssl's errors and socket.gaierror are OSErrors
            where = f"{self._address.host}:{self._address.port}"
            raise _away(f"The broker at {where} is not reached: {error}.{clock_in_question(error)}") from error
        self._misc = asyncio.create_task(self._keep_alive(), name="mqtt keep-alive")
        reason = await self._first(self._connack, "to our connect")
        if reason.is_failure:
            raise _away(f"The broker refuses the connection: {reason}.")
        for topic in topics:
            result, mid = self._client.subscribe(topic, qos=1)
            if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise _away("The connection to the broker was lost.")
            for granted in await self._reasons(mid, "to a subscription"):
                if granted.is_failure:
                    raise _away(f"The broker refuses the subscription to {topic}: {granted}.")

    async def publish(self, topic: str, payload: bytes, retain: bool) -> ReasonCode:
        """The PUBACK's reason code. Raises `mqtt.away` when the connection ends first."""
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise _away("The connection to the broker was lost.")
        return (await self._reasons(info.mid, "to a message"))[0]

    def took(self, message: MQTTMessage) -> None:
        """The consumer has the message: let the broker deliver another."""
        if not self.lost.done():
            self._client.ack(message.mid, message.qos)

    async def close(self) -> None:
        """End the connection if it has not ended; frees the socket."""
        if self._socket is not None:
            self._client.disconnect()
            self._client.loop_write()
        self.end("Left.")
        # Closes the socket in any case, also when the write above would have blocked.
        self._client._reset_sockets()  # noqa: SLF001  # what paho's own __del__ does, but now
        if self._misc is not None:
            self._misc.cancel()
            await asyncio.wait({self._misc})

    async def _first(self, answer: asyncio.Future[Any], to_what: str) -> Any:
        """The answer, unless the connection ends or the time is over before."""
        try:
            await asyncio.wait({answer, self.lost}, timeout=ANSWER_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if self.lost.done():
                raise _away(self.lost.result())
            why = f"The broker gave no answer {to_what} within {ANSWER_TIMEOUT_S:g} s."
            self.end(why)
            raise _away(why)
        finally:
            answer.cancel()

    async def _reasons(self, mid: int | None, to_what: str) -> list[ReasonCode]:
        # paho calls back from the loop, so no answer can have come between its call and this line.
        self._answers[mid] = answer = self._loop.create_future()
        try:
            reasons: list[ReasonCode] = await self._first(answer, to_what)
            return reasons
        finally:
            del self._answers[mid]

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._client.loop_misc()

    def end(self, why: str) -> None:
        """Note that the connection is over, and why; the first reason stays."""
        if not self.lost.done():
            self.lost.set_result(why)

    # Callbacks of paho. The socket's first two come from the connecting thread, all others from the loop.

    def _socket_opened(self, _client: Client, _userdata: Any, sock: Any) -> None:
        # Nagle's algorithm would hold small messages back for 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._loop.call_soon_threadsafe(self._watch_reads, sock)

    def _watch_reads(self, sock: socket.socket) -> None:
        if sock is self._socket and sock.fileno() >= 0:
            self._loop.add_reader(sock.fileno(), self._readable, sock)

    def _readable(self, sock: socket.socket) -> None:
        self._client.loop_read()
        # What TLS has already decrypted does not make the socket readable again.
        while sock is self._socket and isinstance(sock, ssl.SSLSocket) and sock.pending():
            self._client.loop_read()

    def _socket_closed(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._socket = None
        if sock.fileno() >= 0:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
        self.end("The connection to the broker was lost.")

    def _write_wanted(self, _client: Client, _userdata: Any, sock: Any) -> None:
        self._loop.call_soon_threadsafe(self._watch_writes, sock)

    def _watch_writes(self, sock: socket.socket) -> None:
        if sock is self._socket and sock.fileno() >= 0:
            self._loop.add_writer(sock.fileno(), self._client.loop_write)

    def _write_done(self, _client: Client, _userdata: Any, sock: Any) -> None:
        if sock.fileno() >= 0:
            self._loop.remove_writer(sock.fileno())

    def _on_connect(self, _client: Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if not self._connack.done():
            self._connack.set_result(reason)

    def _on_disconnect(self, _client: Client, _userdata: Any, flags: Any, reason: ReasonCode, _properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self.end(f"The broker ended the connection: {reason}.")
        else:
            self.end("The connection to the broker was lost.")

    def _on_publish(self, _client: Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        self._answered(mid, [reason])

    def _on_subscribe(
        self, _client: Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        self._answered(mid, reasons)

    def _answered(self, mid: int, reasons: list[ReasonCode]) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(reasons)

    def _on_message(self, _client: Client, _userdata: Any, message: MQTTMessage) -> None:
        self._deliver(self, message)


def clock_in_question(error: Exception) -> str:
    """What this machine's clock says, when a certificate was refused for its dates; empty for anything else."""
    if not isinstance(error, ssl.SSLCertVerificationError) or error.verify_code not in _OUT_OF_DATE:
        return ""
    at = SystemClock().stamp()
    free = "" if at.quality is ClockQuality.SYNCED else ", and no time source sets it"
    return f" This machine's clock says {at.utc[:16]}Z{free}."


def _away(why: str) -> LinesideError:
    return LinesideError(
        "mqtt.away",
        why,
        effect="Work goes on; the rows count as pending.",
        todo="Check the network and the broker if this lasts.",
    )
