"""OPC UA.

Settings: `endpoint` ("opc.tcp://host:port/path") and `security`, which must be said: "none" for a server on a network
that is protected otherwise. Addresses are node ids: `nsu=urn:maker:device;s=Temperature` (the namespace by its name,
which survives a restart of the server) or `ns=2;s=Temperature`.

Values come by subscription. Every publish response, also an empty one, confirms that the values not in it are
unchanged, so a constant value does not turn stale while the server is alive; when responses cease, the connection is
given up. After every connect all watched values are read anew.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClientState
from asyncua.common.utils import ServiceError
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Found, Health, WriteRefused, WriteUnknown, bad_reading, retry_delays_s

# What goes wrong on the wire reaches people as health, quality and outcome; the library's log repeats it as tracebacks.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

BATCH_MAX: Final = 100
STOP_AGAIN_S: Final = 1.0
BROWSE_NODES_MAX: Final = 5000
BROWSE_DEPTH_MAX: Final = 12
SESSION_MS: Final = 30_000
"""How long a server keeps a session whose connection broke: servers have few."""
CONFIRM_S: Final = 1.0
"""How often the server is asked to say that it is alive when no value changes."""

_INT_BITS: Final = {
    ua.VariantType.SByte: (-(2**7), 2**7 - 1),
    ua.VariantType.Byte: (0, 2**8 - 1),
    ua.VariantType.Int16: (-(2**15), 2**15 - 1),
    ua.VariantType.UInt16: (0, 2**16 - 1),
    ua.VariantType.Int32: (-(2**31), 2**31 - 1),
    ua.VariantType.UInt32: (0, 2**32 - 1),
    ua.VariantType.Int64: (-(2**63), 2**63 - 1),
    ua.VariantType.UInt64: (0, 2**64 - 1),
}
_FLOAT_MAX: Final = 3.4028234663852886e38

# With these the server says that it did not write. Any other bad status leaves it open.
_CERTAINLY_NOT: Final = frozenset(
    {
        StatusCodes.BadNotWritable,
        StatusCodes.BadUserAccessDenied,
        StatusCodes.BadTypeMismatch,
        StatusCodes.BadOutOfRange,
        StatusCodes.BadNodeIdUnknown,
        StatusCodes.BadNodeIdInvalid,
        StatusCodes.BadAttributeIdInvalid,
        StatusCodes.BadIndexRangeInvalid,
        StatusCodes.BadIndexRangeNoData,
        StatusCodes.BadWriteNotSupported,
        StatusCodes.BadNotSupported,
        StatusCodes.BadServiceUnsupported,
        StatusCodes.BadTooManyOperations,
        StatusCodes.BadRequestTooLarge,
        StatusCodes.BadSessionIdInvalid,
        StatusCodes.BadSessionNotActivated,
        StatusCodes.BadIdentityTokenRejected,
    }
)


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    endpoint: Annotated[str, Field(min_length=1, max_length=500)]
    security: Literal["none"]


def _checked_settings(connection: Connection) -> _Settings:
    given = dict(connection.settings)
    if given.get("security") not in (None, "none"):
        raise LinesideError(
            "opcua.secure_not_available",
            f"Security {str(given['security'])[:40]!r} is asked for, but this version cannot make secure channels yet.",
            todo='Protect the network otherwise and write security: "none", or wait for a version that can.',
        )
    try:
        settings = _Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise LinesideError(
            "opcua.settings",
            f"Setting {'.'.join(map(str, first['loc'])) or '?'}: {first['msg']}.",
            todo='Give endpoint ("opc.tcp://host:4840") and, in so many words, security: "none".',
        ) from error
    try:
        parts = urlsplit(settings.endpoint)
        complete = (
            parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port is not None and "@" not in parts.netloc
        )
    except ValueError:
        complete = False
    if not complete:
        raise LinesideError(
            "opcua.endpoint",
            f"{settings.endpoint[:80]!r} is not an OPC UA endpoint.",
            todo='Write it with host and port and without a password, like "opc.tcp://192.168.0.10:4840".',
        )
    return settings


def read_node_id(text: str) -> ua.NodeId:
    """Read an address as a plant file writes it. Raises `opcua.address`."""
    try:
        node = ua.NodeId.from_string(text)
    except (UaError, ValueError, TypeError, AttributeError) as error:
        raise LinesideError(
            "opcua.address",
            f"{text[:80]!r} is not a node id.",
            todo='Write it like "nsu=urn:maker:device;s=Temperature" or "ns=2;i=1234".',
        ) from error
    if not 0 <= node.NamespaceIndex <= 65_535 or (
        isinstance(node.Identifier, int) and not 0 <= node.Identifier < 2**32
    ):
        raise LinesideError(
            "opcua.address",
            f"{text[:80]!r} is not a node id: a number in it is too large.",
            todo='Write it like "nsu=urn:maker:device;s=Temperature" or "ns=2;i=1234".',
        )
    return node


def _words(error: BaseException, timeout_s: float) -> str:
    """A sentence for what asyncua raised."""
    match error:
        case TimeoutError():
            return f"The server did not answer within {timeout_s:g} s."
        case AssertionError():
            return "The server ended the connection while it was being made; it may not accept this box."
        case ServiceError() | UaStatusCodeError():
            return f"The server refused: {ua.StatusCode(ua.UInt32(error.code)).name}."
        case ConnectionRefusedError():
            return "Nobody listens there."
        case OSError():
            return f"The connection was lost ({error.strerror or error or type(error).__name__})."
        case _:
            return f"The server's answer could not be used ({error or type(error).__name__})."


def _utc(moment: datetime | None) -> str:
    if moment is None:
        return ""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _in_batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def _variant(value: Value, kind: ua.VariantType) -> ua.Variant:
    """The value in the node's own type. Raises WriteRefused when it does not fit."""
    if kind is ua.VariantType.Boolean and isinstance(value, bool):
        return ua.Variant(value, kind)
    if kind is ua.VariantType.String and isinstance(value, str):
        return ua.Variant(value, kind)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if kind is ua.VariantType.Double or (kind is ua.VariantType.Float and abs(value) <= _FLOAT_MAX):
            return ua.Variant(float(value), kind)
        if kind in _INT_BITS and math.isfinite(value) and value == int(value):
            low, high = _INT_BITS[kind]
            if low <= value <= high:
                return ua.Variant(int(value), kind)
    raise WriteRefused(f"Nothing was sent: {value!r} does not fit the node's type {kind.name}.")


class _Given(Exception):
    """The session is given up, with the reason."""


class OpcUaDriver:
    """One OPC UA session; see the module's docstring and the port `edge.equipment.Driver`."""

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],  # noqa: ARG002  readings carry the server's own time
    ) -> None:
        self._settings = _checked_settings(connection)
        self._connection, self._tags, self._now_s = connection, tags, now_s
        self._addresses = {name: read_node_id(tag.address) for name, tag in tags.items()}
        self._client: Client | None = None
        self._nodes: dict[str, ua.NodeId] = {}
        self._kinds: dict[str, ua.VariantType] = {}
        self._batch = self._most = BATCH_MAX
        self._watched: list[str] = []
        self._work = asyncio.Event()
        self._heard_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._last: dict[str, Reading] = {}
        self._health = Health(connected=False, detail="Not started.", since_boottime_s=now_s())
        self._was_connected = False
        self._on_reading: Callable[[str, Reading], None] = lambda _tag, _reading: None
        self._on_health: Callable[[Health], None] = lambda _health: None

    # The port -----------------------------------------------------------------------------------------------

    async def start(self, on_reading: Callable[[str, Reading], None], on_health: Callable[[Health], None]) -> None:
        """Begin connecting."""
        self._on_reading, self._on_health = on_reading, on_health
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="opcua")

    async def stop(self) -> None:
        """End the task, the session and the connection."""
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

    async def watch(self, tags: Sequence[str]) -> None:
        """Subscribe to exactly these tags."""
        self._watched = [tag for tag in tags if tag in self._addresses]
        self._work.set()

    async def read(self, tag: str) -> Reading:
        """Read one tag now."""
        client = self._client
        if client is None:
            return self._bad(tag, self._health.detail)
        try:
            return (await self._read(client, [tag]))[tag]
        except (UaError, OSError, TimeoutError) as error:
            return self._bad(tag, _words(error, self._connection.timeout_s))

    async def write(self, tag: str, value: Value) -> None:
        """Exactly one WriteRequest with one value in the node's own type."""
        client = self._client
        if client is None:
            raise WriteRefused(f"Nothing was sent: {self._health.detail}")
        timeout_s = self._connection.timeout_s
        try:
            kind = self._kinds.get(tag) or await self._kind(client, tag)
        except (UaError, OSError, TimeoutError) as error:
            raise WriteRefused(f"Nothing was sent: {_words(error, timeout_s)}") from error
        item = ua.WriteValue()
        item.NodeId = self._nodes[tag]
        item.AttributeId = AttributeIds.Value
        # Many servers refuse a value that brings a time or status of its own.
        item.Value = ua.DataValue(_variant(value, kind), StatusCode=None, SourceTimestamp=None)
        params = ua.WriteParameters()
        params.NodesToWrite = [item]
        if client.state is not UaClientState.CONNECTED:
            raise WriteRefused("Nothing was sent: the connection was just lost.")
        try:
            results = await client.uaclient.session.write(params)
        except UaStatusCodeError as error:
            raise self._verdict(ua.StatusCode(ua.UInt32(error.code))) from error
        except (UaError, OSError, TimeoutError) as error:
            raise WriteUnknown(f"The write was sent, then: {_words(error, timeout_s)}") from error
        if len(results) != 1:
            raise WriteUnknown(f"The server gave {len(results)} results for one write.")
        if not results[0].is_good():
            raise self._verdict(results[0])

    async def browse(self) -> list[Found]:
        """Every variable below Objects that is not the server's own, at most BROWSE_NODES_MAX."""
        client = self._client
        if client is None:
            raise LinesideError(
                "opcua.not_connected",
                f"The server cannot be browsed: {self._health.detail}",
                todo="Look at the connection, then try again.",
            )
        try:
            return await self._browse(client)
        except (UaError, OSError, TimeoutError) as error:
            raise LinesideError(
                "opcua.browse",
                f"Browsing the server failed: {_words(error, self._connection.timeout_s)}",
                todo="Try again; if it stays so, type the node ids into the plant file.",
            ) from error

    def health(self) -> Health:
        """The present state."""
        return self._health

    # Readings -----------------------------------------------------------------------------------------------

    async def _read(self, client: Client, tags: Sequence[str]) -> dict[str, Reading]:
        found: dict[str, Reading] = {}
        for batch in _in_batches(tags, self._batch):
            values = await client.uaclient.session.read_attributes(
                [self._nodes[tag] for tag in batch], AttributeIds.Value
            )
            if len(values) != len(batch):
                raise UaError(f"{len(values)} values for {len(batch)} nodes")
            found.update((tag, self._reading(tag, value)) for tag, value in zip(batch, values, strict=True))
        return found

    def _reading(self, name: str, given: ua.DataValue) -> Reading:
        tag, status = self._tags[name], given.StatusCode or ua.StatusCode()
        value = given.Value.Value if given.Value is not None else None
        if not isinstance(value, bool | int | float | str) or status.is_bad():
            what = "has no single value" if status.is_good() else f"says {status.name}"
            reading = self._bad(name, f"The server {what}.")
        else:
            quality = Quality.GOOD if status.is_good() else Quality.UNCERTAIN
            detail = "" if status.is_good() else f"The server says {status.name}."
            value = float(value) if isinstance(value, float) else value
            reading = Reading(value, tag.unit, quality, _utc(given.SourceTimestamp), self._now_s(), detail)
        self._last[name] = reading
        return reading

    def _bad(self, name: str, why: str) -> Reading:
        return bad_reading(self._tags[name], why, self._now_s(), self._last.get(name))

    def _verdict(self, status: ua.StatusCode) -> WriteRefused | WriteUnknown:
        if status.value in _CERTAINLY_NOT:
            return WriteRefused(f"The server refused the write: {status.name}.")
        return WriteUnknown(f"The server answered the write with {status.name}.")

    # The session --------------------------------------------------------------------------------------------

    def _say(self, *, connected: bool, detail: str) -> None:
        if (connected, detail) != (self._health.connected, self._health.detail):
            self._health = Health(connected=connected, detail=detail, since_boottime_s=self._now_s())
            self._was_connected |= connected
            self._on_health(self._health)

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            why = await self._session()
            self._say(connected=False, detail=why)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, why))
            if self._was_connected:
                self._was_connected = False
                delays = retry_delays_s()
            await asyncio.sleep(next(delays))

    async def _session(self) -> str:
        """One session from connect to loss; returns why it ended."""
        timeout_s = self._connection.timeout_s
        client = Client(self._settings.endpoint, timeout=timeout_s, watchdog_intervall=timeout_s / 2)
        client.name = client.description = "Lineside"
        client.application_uri = "urn:lineside:edge"
        client.session_timeout = SESSION_MS
        try:
            async with client.subscribe_state() as states:
                await client.connect()
                await self._prepare(client)
                self._client = client
                self._say(connected=True, detail=f"Connected to {self._settings.endpoint}.")
                await self._follow(client, states.next_change)
        except (_Given, AssertionError, UaError, OSError, TimeoutError) as error:
            if getattr(error, "code", None) == StatusCodes.BadTooManyOperations:
                self._most = max(1, self._most // 2)  # a limit that the server does not tell
            return str(error) if isinstance(error, _Given) else _words(error, timeout_s)
        finally:
            self._client = None
            await self._close(client)
        return "The session ended."

    async def _close(self, client: Client) -> None:
        """Leave nothing behind, at the server (sessions are few) or here, whatever state it is in."""
        try:
            if client.state is UaClientState.CONNECTED:
                async with asyncio.timeout(self._connection.timeout_s):
                    await client.disconnect()
        except TimeoutError:
            pass  # the server does not answer: its session ends by its own time-out
        finally:
            client.uaclient.request_disconnect()
            # When its own check found the server silent, asyncua forgets the socket without closing it.
            protocol = client.uaclient.protocol
            if protocol is not None and protocol.transport is not None:
                protocol.transport.abort()
            client.disconnect_socket()
            left = [
                task
                for task in (
                    client._stale_watchdog_task,  # noqa: SLF001  asyncua offers no way to end these after a failed connect
                    client._supervisor_task,  # noqa: SLF001
                    client._renew_channel_task,  # noqa: SLF001
                    client.uaclient.session._publish_task,  # noqa: SLF001
                )
                if task is not None
            ]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _prepare(self, client: Client) -> None:
        """Resolve namespaces, learn the server's limits and the types of the set-points."""
        spaces = await client.get_namespace_array()
        self._nodes = {}
        for name, node in self._addresses.items():
            uri = getattr(node, "NamespaceUri", None)
            if uri is None:
                self._nodes[name] = node
            elif uri in spaces:
                self._nodes[name] = ua.NodeId(node.Identifier, ua.Int16(spaces.index(uri)), node.NodeIdType)
            else:
                raise _Given(f"The server has no namespace {uri!r}, which the tag {name} names.")
        self._batch = await self._limit(client)
        self._kinds = {}
        for tag in (name for name, tag in self._tags.items() if tag.access == "write"):
            try:
                await self._kind(client, tag)
            except UaError:
                continue  # an unknown node: the write itself will say so

    async def _limit(self, client: Client) -> int:
        """Nodes in one request that the server takes."""
        capabilities = (
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
            ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
        )
        values = await client.uaclient.session.read_attributes(
            [ua.NodeId(ua.Int32(i)) for i in capabilities], AttributeIds.Value
        )
        given = [v.Value.Value for v in values if v.Value is not None and isinstance(v.Value.Value, int)]
        return min([self._most, *(limit for limit in given if limit > 0)])

    async def _kind(self, client: Client, tag: str) -> ua.VariantType:
        kind = await client.get_node(self._nodes[tag]).read_data_type_as_variant_type()
        self._kinds[tag] = kind
        return kind

    async def _follow(self, client: Client, next_change: Callable[[float], Awaitable[UaClientState]]) -> None:
        """Keep the subscription as it is wanted until the session is lost."""
        subscription = 0
        interval_s = max(self._connection.poll_s, CONFIRM_S)
        self._work.set()
        while True:
            if self._work.is_set():
                self._work.clear()
                if subscription:
                    await client.uaclient.session.delete_subscriptions([subscription])
                subscription = await self._subscribe(client) if self._watched else 0
                self._heard_s = asyncio.get_running_loop().time()
            if client.state is not UaClientState.CONNECTED:
                raise _Given("The connection to the server was lost.")
            await self._until(next_change, interval_s)
            silent_s = asyncio.get_running_loop().time() - self._heard_s
            if subscription and silent_s > 3 * interval_s + self._connection.timeout_s:
                raise _Given(f"The server has published nothing for {silent_s:.1f} s.")

    async def _until(self, next_change: Callable[[float], Awaitable[UaClientState]], most_s: float) -> None:
        """Wait for a change of the connection, of the watch list, or some time."""
        waits = [asyncio.ensure_future(next_change(most_s)), asyncio.ensure_future(self._work.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _subscribe(self, client: Client) -> int:
        """Read all watched tags, then subscribe to them; returns the subscription's id."""
        tags = list(self._watched)
        for tag, reading in (await self._read(client, tags)).items():
            self._on_reading(tag, reading)
        params = ua.CreateSubscriptionParameters()
        params.RequestedPublishingInterval = self._connection.poll_s * 1000
        params.RequestedMaxKeepAliveCount = max(1, round(CONFIRM_S / self._connection.poll_s))
        params.RequestedLifetimeCount = 60 * params.RequestedMaxKeepAliveCount
        params.MaxNotificationsPerPublish = 0
        params.PublishingEnabled = True
        session = client.uaclient.session
        heard: set[str] = set()

        def published(result: ua.PublishResult) -> None:
            self._heard_s = asyncio.get_running_loop().time()
            new: set[str] = set()
            for part in result.NotificationMessage.NotificationData or ():
                if isinstance(part, ua.DataChangeNotification):
                    for item in part.MonitoredItems:
                        if item.ClientHandle < len(tags):
                            tag = tags[item.ClientHandle]
                            new.add(tag)
                            self._on_reading(tag, self._reading(tag, item.Value))
            for tag in heard - new:
                last, now_s = self._last[tag], self._now_s()
                again = Reading(last.value, last.unit, last.quality, last.source_utc, now_s, last.detail)
                self._last[tag] = again
                self._on_reading(tag, again)

        created = await session.create_subscription(params, callback=published)
        handle = 0
        for batch in _in_batches(tags, self._batch):
            request = ua.CreateMonitoredItemsParameters()
            request.SubscriptionId = created.SubscriptionId
            request.TimestampsToReturn = ua.TimestampsToReturn.Source
            for tag in batch:
                item = ua.MonitoredItemCreateRequest()
                item.ItemToMonitor.NodeId = self._nodes[tag]
                item.ItemToMonitor.AttributeId = AttributeIds.Value
                item.MonitoringMode = ua.MonitoringMode.Reporting
                item.RequestedParameters.ClientHandle = handle
                item.RequestedParameters.SamplingInterval = self._connection.poll_s * 1000
                item.RequestedParameters.QueueSize = 1
                item.RequestedParameters.DiscardOldest = True
                request.ItemsToCreate.append(item)
                handle += 1
            for tag, result in zip(batch, await session.create_monitored_items(request), strict=True):
                if result.StatusCode.is_good():
                    heard.add(tag)
                else:
                    self._on_reading(tag, self._bad(tag, f"The server says {result.StatusCode.name}."))
        return int(created.SubscriptionId)

    async def _browse(self, client: Client) -> list[Found]:
        found: list[Found] = []
        spaces = await client.get_namespace_array()
        level = [client.nodes.objects]
        seen: set[ua.NodeId] = set()
        for _depth in range(BROWSE_DEPTH_MAX):
            below = []
            for node in level:
                for child in await node.get_children_descriptions():
                    if child.NodeId in seen or child.NodeId.NamespaceIndex == 0 or len(seen) >= BROWSE_NODES_MAX:
                        continue
                    seen.add(child.NodeId)
                    below.append(client.get_node(child.NodeId))
                    if child.NodeClass is ua.NodeClass.Variable:
                        found.append(await self._found(client, child, spaces))
            level = below
        return found

    async def _found(self, client: Client, child: ua.ReferenceDescription, spaces: Sequence[str]) -> Found:
        node = client.get_node(child.NodeId)
        kind = (await node.read_data_type_as_variant_type()).name
        writable = ua.AccessLevel.CurrentWrite in await node.get_user_access_level()
        space, _, rest = child.NodeId.to_string().partition(";")
        uri = spaces[child.NodeId.NamespaceIndex] if child.NodeId.NamespaceIndex < len(spaces) else ""
        address = f"nsu={uri};{rest}" if uri and space.startswith("ns=") else child.NodeId.to_string()
        return Found(address, child.DisplayName.Text or "", kind, writable)
