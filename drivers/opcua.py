"""OPC UA.

Settings of a connection:

- `endpoint`: "opc.tcp://host:port/path".
- `security`: `auto` when left out, the strongest that the server offers of Aes256_Sha256_RsaPss, Basic256Sha256 and
  Aes128_Sha256_RsaOaep; or one of these names; always signed and encrypted. `none` only where these words stand in the
  plant file: the screen then says "not encrypted".
- `server_certificate`: the SHA-256 fingerprint of the one certificate to accept, for a server that does not say its
  certificate to strangers, or whose certificate names another host. It is taken from the trusted certificates, and
  `security` must then be named.
- `user` and `password_file`, or `user_certificate` and `user_key`: who the box logs in as; without them nobody
  ("anonymous"). Files are relative to the box folder; password and key must have mode 0600. Never over an
  unencrypted connection.

Addresses are node ids: `nsu=urn:maker:device;s=Temperature` (the namespace by its name, which survives a restart of the
server) or `ns=2;s=Temperature`. Of a method (`method` of the tag) `address` is the object and `node` the method. A call
is one request, its arguments in the types that the server names, and is waited for as long as `timeout_s` says. Without
an answer nobody knows whether the method was carried out: a person is asked, and the call is not repeated.

A server is believed only when its certificate is trusted, for this host and application, valid today and not revoked:
`lineside equipment trust`. To the server this box shows a certificate of its own: `lineside equipment certificate`.
It is renewed 90 days before it ends; the former one is used while a server does not accept the new one.

Values come by subscription. Every publish response, also an empty one, confirms that the values not in it are
unchanged, so a constant value does not turn stale while the server is alive; when responses cease, or the server ends
the session, the connection is given up. A subscription that the server ends alone is made anew in the same session. In
any case values are marked and read anew. An answer of another kind than was asked for, or one that cannot be read, is
none. Reads and
subscriptions go in batches that the server takes, also when it does not say how many those are. A write is one request
with one value, in the node's own type. Tags of one connection share one session: servers have few.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.client.ua_client import UaClient, UaClientState
from asyncua.client.ua_session import UaSession
from asyncua.common.shortcuts import Shortcuts
from asyncua.common.ua_utils import data_type_to_variant_type
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto import security_policies
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary
from asyncua.ua.uaerrors import UaError, UaStatusCodeError
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from drivers.opcua_trust import (
    NOT_CONNECTED,
    RENEW_BEFORE,
    BoxClock,
    Own,
    Pki,
    read_certificate,
    read_fingerprint,
    read_private_key,
    read_secret,
    rejected_as,
)
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Tag
from edge.core.terms import Quality, Reading, Value
from edge.equipment import Capability, Found, Home, OneTask, WriteRefused, WriteUnknown, retry_delays_s
from edge.explorer import Explorer

# What goes wrong on the wire reaches people as health, quality and outcome; the library's log repeats it as tracebacks.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

BATCH_MAX: Final = 100
BROWSE_NODES_MAX: Final = 20_000
BROWSE_FOUND_MAX: Final = 5000
PASSWORD_BYTES_MAX: Final = 1024
BROWSE_DEPTH_MAX: Final = 12
STANDARD_IDS: Final = 50_000
SESSION_MS: Final = 30_000
"""How long a server keeps a session whose connection broke: servers have few."""
CLOCKS_S: Final = 120.0
"""So far the server's clock may be off before people are told."""
AGAIN_S: Final = 5.0
"""A subscription that ended sooner than this is not made anew in the same session."""
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


_POLICIES: Final[Mapping[str, type[security_policies.SecurityPolicy]]] = {
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
}
"""Strongest first."""

# With these a server says that it does not take this box's certificate.
_BOX_REJECTED: Final = frozenset(
    {
        "BadCertificateUntrusted",
        "BadCertificateInvalid",
        "BadCertificateChainIncomplete",
        "BadCertificateUriInvalid",
        "BadCertificateHostNameInvalid",
        "BadCertificateUseNotAllowed",
        "BadCertificatePolicyCheckFailed",
        "BadCertificateRevocationUnknown",
        "BadCertificateIssuerRevocationUnknown",
        "BadSecurityChecksFailed",
    }
)
_TOO_MUCH: Final = frozenset(
    {
        StatusCodes.BadTooManyOperations,
        StatusCodes.BadEncodingLimitsExceeded,
        StatusCodes.BadRequestTooLarge,
        StatusCodes.BadResponseTooLarge,
    }
)
# With these the server says that it did not carry out the method.
_NOT_CALLED: Final = _CERTAINLY_NOT | {
    StatusCodes.BadMethodInvalid,
    StatusCodes.BadArgumentsMissing,
    StatusCodes.BadTooManyArguments,
    StatusCodes.BadInvalidArgument,
    StatusCodes.BadNotExecutable,
    StatusCodes.BadNothingToDo,
}
_MANY: Final = frozenset({"PublishResponse", "ReadResponse"})
"""Answers that are many and long: they are read once, where their values are wanted."""
ResultT = TypeVar("ResultT")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    endpoint: Annotated[str, Field(min_length=1, max_length=500)]
    security: Literal["auto", "Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "none"] = "auto"
    server_certificate: Annotated[str, Field(max_length=200)] = ""
    user: Annotated[str, Field(max_length=200)] = ""
    password_file: Annotated[str, Field(max_length=500)] = ""
    user_certificate: Annotated[str, Field(max_length=500)] = ""
    user_key: Annotated[str, Field(max_length=500)] = ""

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""


def _checked_settings(connection: Connection) -> _Settings:
    given = dict(connection.settings)
    if "password" in given:
        raise LinesideError(
            "opcua.password_in_plant",
            "A password stands in the plant file, which many people read and which the record keeps.",
            todo="Change it at the server, write the new one into a file of mode 0600, and name that: password_file.",
        )
    try:
        settings = _Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise LinesideError(
            "opcua.settings",
            f"Setting {'.'.join(map(str, first['loc'])) or '?'}: {first['msg']}.",
            todo='Give endpoint ("opc.tcp://host:4840"); everything else may be left out: docs/reference/drivers.md.',
        ) from error
    if bool(settings.user) != bool(settings.password_file) or bool(settings.user_certificate) != bool(
        settings.user_key
    ):
        raise LinesideError(
            "opcua.half_a_user",
            "Who the box logs in as is said by halves.",
            todo="Give user and password_file, or user_certificate and user_key, or none of them.",
        )
    if settings.user and settings.user_certificate:
        raise LinesideError(
            "opcua.two_users",
            "The box cannot log in with a password and with a certificate at once.",
            todo="Give user and password_file, or user_certificate and user_key.",
        )
    if settings.security == "none" and (settings.user or settings.user_certificate):
        raise LinesideError(
            "opcua.user_in_clear",
            "Logging in as somebody over a connection that is not encrypted gives that login to everybody who listens.",
            todo='Leave security out, or name a policy; with security: "none" the box can be nobody only.',
        )
    if settings.server_certificate:
        read_fingerprint(settings.server_certificate)
        if settings.security not in _POLICIES:
            raise LinesideError(
                "opcua.pin_needs_policy",
                "The server's certificate is pinned, so the server is not asked what it offers.",
                todo=f"Name one as security: {', '.join(_POLICIES)}.",
            )
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


def _refusal(error: BaseException, timeout_s: float) -> LinesideError:
    """What asyncua raised, as a refusal in words."""
    match error:
        case LinesideError():
            return error
        case InvalidSignature():
            return LinesideError(
                "opcua.not_its_own",
                "The server could not prove that the certificate which it shows is its own.",
                effect=NOT_CONNECTED,
                todo="Something else may be answering in its place: look at the network before you connect again.",
            )
        case TimeoutError():
            return LinesideError(
                "opcua.no_answer",
                f"The server did not answer within {timeout_s:g} s.",
                effect=NOT_CONNECTED,
                todo="Look whether the device is switched on and the network is there.",
            )
        case ServiceError() | UaStatusCodeError():
            return _server_says(ua.StatusCode(ua.UInt32(error.code)).name)
        case ConnectionRefusedError():
            return LinesideError(
                "opcua.nobody_listens",
                "Nobody listens there.",
                effect=NOT_CONNECTED,
                todo="Look whether the server runs, and at host and port in the plant file.",
            )
        case socket.gaierror():
            return LinesideError(
                "opcua.unknown_host",
                "The network does not know the server's name.",
                effect=NOT_CONNECTED,
                todo="Look at the host in the plant file, or write the address in numbers.",
            )
        case OSError():
            return LinesideError(
                "opcua.connection_lost",
                f"The connection was lost ({error.strerror or error or type(error).__name__}).",
                effect=NOT_CONNECTED,
                todo="Look at the device and its network; the box connects again by itself.",
            )
        case _:
            return LinesideError(
                "opcua.bad_answer",
                f"The server's answer could not be used ({error or type(error).__name__}).",
                effect=NOT_CONNECTED,
                todo="Look whether it is an OPC UA server; if so, report what this says to its maker.",
            )


def _server_says(name: str) -> LinesideError:
    """A status code of a server as a refusal in words."""
    if name in _BOX_REJECTED:
        return _box_rejected(name)
    match name:
        case "BadCertificateTimeInvalid" | "BadCertificateIssuerTimeInvalid" | "BadInvalidTimestamp":
            return LinesideError(
                "opcua.clocks_differ",
                f"The server says that this box's certificate or message is not of today ({name}).",
                effect=NOT_CONNECTED,
                todo="Compare the clocks of server and box. If both are right: lineside equipment certificate --renew",
            )
        case "BadCertificateRevoked" | "BadCertificateIssuerRevoked":
            return LinesideError(
                "opcua.box_revoked",
                f"The server says that this box's certificate was revoked ({name}).",
                effect=NOT_CONNECTED,
                todo="Ask who runs the server why; then: lineside equipment certificate --renew",
            )
        case "BadSecurityPolicyRejected" | "BadSecurityModeRejected" | "BadSecurityModeInsufficient":
            return LinesideError(
                "opcua.security_rejected",
                f"The server does not take this kind of secure channel ({name}).",
                effect=NOT_CONNECTED,
                todo=f"Enable one of these at the server, signed and encrypted: {', '.join(_POLICIES)}.",
            )
        case "BadIdentityTokenRejected" | "BadIdentityTokenInvalid" | "BadUserAccessDenied" | "BadUserSignatureInvalid":
            return LinesideError(
                "opcua.user_rejected",
                f"The server does not let this user in ({name}).",
                effect=NOT_CONNECTED,
                todo="Look at user and password file, or at the user's certificate, and at the user's rights at the "
                "server. Servers lock a user who fails too often.",
            )
        case "BadTooManySessions" | "BadMaxConnectionsReached" | "BadTcpNotEnoughResources" | "BadTcpServerTooBusy":
            return LinesideError(
                "opcua.server_full",
                f"The server has no room for a further session ({name}).",
                effect=NOT_CONNECTED,
                todo="Close other clients of the server, or wait until their sessions end; raise its limit.",
            )
        case "BadShutdown" | "BadServerHalted":
            return LinesideError(
                "opcua.server_down",
                f"The server is shutting down or stands still ({name}).",
                effect=NOT_CONNECTED,
                todo="Wait until it is up again; the box connects by itself.",
            )
        case "BadTcpEndpointUrlInvalid":
            return LinesideError(
                "opcua.wrong_path",
                "The server does not know this endpoint.",
                effect=NOT_CONNECTED,
                todo="Write the endpoint in the plant file as the server shows it, with its path.",
            )
        case _:
            return LinesideError(
                "opcua.server_refused",
                f"The server refused: {name}.",
                effect=NOT_CONNECTED,
                todo="Look at the server's own log for the reason.",
            )


def _box_rejected(how: str) -> LinesideError:
    return LinesideError(
        "opcua.box_rejected",
        f"The server does not accept this box's certificate ({how}).",
        effect=NOT_CONNECTED,
        todo="Trust it at the server; there it lies among the rejected ones, or take it there as a file: "
        "lineside equipment certificate --export FILE",
    )


def _no_session() -> LinesideError:
    return LinesideError(
        "opcua.no_session",
        "The server ended the connection when a session was asked for.",
        effect=NOT_CONNECTED,
        todo="It may have no room for a further session: close other clients, or raise its limit. Or it does not "
        "accept this box's certificate: look among those that it rejected. The box tries again by itself.",
    )


def _lost(why: str) -> LinesideError:
    return LinesideError(
        "opcua.session_lost",
        why,
        effect=NOT_CONNECTED,
        todo="The box connects again by itself; look at the device and its network if this repeats.",
    )


def _utc(moment: datetime | None) -> str:
    if moment is None:
        return ""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return aware.isoformat(timespec="microseconds").replace("+00:00", "Z")


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


@contextmanager
def _legible() -> Iterator[None]:
    """Whatever asyncua's decoder trips over in bytes from outside is raised as UaError."""
    try:
        yield
    except (UaError, OSError, TimeoutError):
        raise
    except Exception as error:  # the bytes are from outside, and its decoder has no error of its own for them
        raise UaError(f"an answer that cannot be read: {type(error).__name__}") from error


class _Session(UaSession):
    """asyncua's session, which by itself takes any answer that has the right request's number: this one takes it only
    when it is of the kind that was asked for and can be read. `spoiled` is told of a publish response that cannot, for
    a value that was in it would never come again."""

    def __init__(self, client: UaClient, spoiled: Callable[[], None]) -> None:
        super().__init__(client)
        self._spoiled = spoiled
        self.server_utc: datetime | None = None
        """What the server's clock said when it last answered."""

    async def _send_request(self, request: object, *more: Any, **how: Any) -> Buffer:
        """Raises UaError for an answer of another kind, or one that cannot be read."""
        data = await super()._send_request(request, *more, **how)
        kind = type(request).__name__.removesuffix("Request") + "Response"
        with _legible():
            known = nodeid_from_binary(data.copy()).Identifier == getattr(ObjectIds, f"{kind}_Encoding_DefaultBinary")
            if known and kind not in _MANY:
                said = struct_from_binary(getattr(ua, kind), data.copy()).ResponseHeader.Timestamp
                self.server_utc = said if isinstance(said, datetime) else None
        if not known:
            raise UaError("an answer to another request")
        return data

    async def read_attributes(self, nodeids: list[ua.NodeId], attr: AttributeIds) -> list[ua.DataValue]:
        with _legible():
            return await super().read_attributes(nodeids, attr)

    async def read(self, parameters: ua.ReadParameters) -> list[ua.DataValue]:
        with _legible():
            return await super().read(parameters)

    async def publish(self, acks: list[ua.SubscriptionAcknowledgement]) -> ua.PublishResponse:
        try:
            return await super().publish(acks)
        except UaStatusCodeError:
            raise
        except UaError:
            self._spoiled()
            raise


class _Client(Client):
    """asyncua's client, that looks who the server lets in before it says who it is."""

    def __init__(self, settings: _Settings, timeout_s: float, spoiled: Callable[[], None] = lambda: None) -> None:
        super().__init__(settings.endpoint, timeout=timeout_s, watchdog_intervall=timeout_s / 2)
        self.uaclient.session = self.session = _Session(self.uaclient, spoiled)
        self.nodes = Shortcuts(self.session)
        self.asked_in = False
        """Whether the channel is open, and a session was asked for."""
        self.name = self.description = "Lineside"
        self.application_uri = "urn:lineside:edge"
        self.session_timeout = SESSION_MS
        self._wanted = (
            ua.UserTokenType.UserName
            if settings.user
            else ua.UserTokenType.Certificate
            if settings.user_certificate
            else ua.UserTokenType.Anonymous
        )

    async def create_session(self) -> ua.CreateSessionResult:
        self.asked_in = True
        return await super().create_session()

    async def activate_session(
        self, username: str | None = None, password: str | None = None, certificate: x509.Certificate | None = None
    ) -> ua.ActivateSessionResult:
        """Raises `opcua.user_kind`."""
        taken = sorted({policy.TokenType.name for policy in self._policy_ids or ()})
        if taken and self._wanted.name not in taken:
            raise LinesideError(
                "opcua.user_kind",
                f"The server does not take {self._wanted.name} users; it takes {', '.join(taken)}.",
                effect=NOT_CONNECTED,
                todo="Give user and password_file, or user_certificate and user_key, or neither, as the server wants.",
            )
        return await super().activate_session(username, password, certificate)


class OpcUaDriver(OneTask):
    """One OPC UA session; see the module's docstring and the port `edge.equipment.Driver`."""

    capabilities = frozenset(Capability)

    def __init__(
        self,
        connection: Connection,
        tags: Mapping[str, Tag],
        *,
        now_s: Callable[[], float],
        utc: Callable[[], str],
        home: Home,
    ) -> None:
        self._settings = _checked_settings(connection)
        super().__init__("opcua", tags, now_s)
        self._connection = connection
        self._utc, self._home, self._pki = utc, home, Pki(home.keeps / "pki")
        self._own: tuple[Own, ...] = ()
        self._own_shown = 0
        self._remarks: tuple[str, ...] = ()
        self._addresses = {name: read_node_id(tag.address) for name, tag in tags.items()}
        self._methods = {name: read_node_id(tag.method.node) for name, tag in tags.items() if tag.method}
        self._called: dict[str, ua.NodeId] = {}
        self._client: Client | None = None
        self._nodes: dict[str, ua.NodeId] = {}
        self._kinds: dict[str, ua.VariantType] = {}
        self._batch = BATCH_MAX
        self._watched: list[str] = []
        self._work = asyncio.Event()
        self._heard_s = 0.0
        self._ended = ""
        self._was_connected = False

    @staticmethod
    def explorer() -> Explorer:
        """Loaded only when a device is looked for."""
        from drivers.opcua_explorer import EXPLORER

        return EXPLORER

    # The port -----------------------------------------------------------------------------------------------

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
            return self._bad(tag, _refusal(error, self._connection.timeout_s).what)

    async def write(self, tag: str, value: Value) -> None:
        """Exactly one WriteRequest with one value in the node's own type."""
        client = self._client
        if client is None:
            raise WriteRefused(f"Nothing was sent: {self._health.detail}")
        timeout_s = self._connection.timeout_s
        try:
            kind = self._kinds.get(tag) or await self._kind(client, tag)
        except (UaError, OSError, TimeoutError) as error:
            raise WriteRefused(f"Nothing was sent: {_refusal(error, timeout_s).what}") from error
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
            raise WriteUnknown(f"The write was sent, then: {_refusal(error, timeout_s).what}") from error
        if len(results) != 1:
            raise WriteUnknown(f"The server gave {len(results)} results for one write.")
        if not results[0].is_good():
            raise self._verdict(results[0])

    async def call(self, tag: str, arguments: Sequence[Value]) -> Sequence[object]:
        """Exactly one CallRequest with one method, its arguments in the types that the server names."""
        client = self._client
        if client is None:
            raise WriteRefused(f"Nothing was sent: {self._health.detail}")
        timeout_s = self._connection.timeout_s
        try:
            kinds = await self._argument_kinds(client, self._called[tag])
        except (UaError, OSError, TimeoutError) as error:
            raise WriteRefused(f"Nothing was sent: {_refusal(error, timeout_s).what}") from error
        if len(kinds) != len(arguments):
            raise WriteRefused(f"Nothing was sent: the server's method takes {len(kinds)} arguments.")
        request = ua.CallMethodRequest()
        request.ObjectId, request.MethodId = self._nodes[tag], self._called[tag]
        request.InputArguments = [_variant(value, kind) for value, kind in zip(arguments, kinds, strict=True)]
        if client.state is not UaClientState.CONNECTED:
            raise WriteRefused("Nothing was sent: the connection was just lost.")
        try:
            results = await client.uaclient.session.call([request])
        except UaStatusCodeError as error:
            raise self._verdict(ua.StatusCode(ua.UInt32(error.code)), "call", _NOT_CALLED) from error
        except (UaError, OSError, TimeoutError) as error:
            raise WriteUnknown(f"The method was called, then: {_refusal(error, timeout_s).what}") from error
        if len(results) != 1:
            raise WriteUnknown(f"The server gave {len(results)} results for one call.")
        if not results[0].StatusCode.is_good():
            raise self._verdict(results[0].StatusCode, "call", _NOT_CALLED)
        return [one.Value for one in results[0].OutputArguments or ()]

    async def _argument_kinds(self, client: Client, method: ua.NodeId) -> list[ua.VariantType]:
        """The types of what the method is given, as the server says. Raises UaError."""
        try:
            declared = await (await client.get_node(method).get_child("0:InputArguments")).read_value()
        except UaStatusCodeError as error:
            if error.code != StatusCodes.BadNoMatch:
                raise
            return []  # it takes nothing
        kinds = []
        for one in declared or ():
            wanted, rank = getattr(one, "DataType", None), getattr(one, "ValueRank", 1)
            if not isinstance(wanted, ua.NodeId) or rank > 0:  # many servers leave 0 where they mean one value
                raise UaError("the method wants more than single values")
            kinds.append(await data_type_to_variant_type(client.get_node(wanted)))
        return kinds

    async def browse(self, text: str = "") -> list[Found]:
        """Every variable below Objects that is not the server's own, with `text` in its name or address, at most
        BROWSE_FOUND_MAX out of BROWSE_NODES_MAX nodes."""
        client = self._client
        if client is None:
            raise self._health.refusal or LinesideError(
                "opcua.not_connected",
                f"The server cannot be browsed: {self._health.detail}",
                todo="Wait until the box is connected, then try again.",
            )
        try:
            return await self._browse(client, text.casefold())
        except (UaError, OSError, TimeoutError) as error:
            raise LinesideError(
                "opcua.browse",
                f"Browsing the server failed: {_refusal(error, self._connection.timeout_s).what}",
                todo="Try again; if it stays so, type the node ids into the plant file.",
            ) from error

    # Readings -----------------------------------------------------------------------------------------------

    async def _read(self, client: Client, tags: Sequence[str]) -> dict[str, Reading]:
        async def read(batch: Sequence[str]) -> Sequence[ua.DataValue]:
            return await client.uaclient.session.read_attributes(
                [self._nodes[tag] for tag in batch], AttributeIds.Value
            )

        return {tag: self._reading(tag, value) async for tag, value in self._in_batches(tags, read)}

    async def _in_batches(
        self, items: Sequence[str], call: Callable[[Sequence[str]], Awaitable[Sequence[ResultT]]]
    ) -> AsyncIterator[tuple[str, ResultT]]:
        """Each item with its result, in as many requests as the server wants; smaller ones when it says too many."""
        done = 0
        while done < len(items):
            batch = items[done : done + self._batch]
            try:
                results = await call(batch)
            except UaStatusCodeError as error:
                if error.code not in _TOO_MUCH or len(batch) == 1:
                    raise
                self._batch = len(batch) // 2  # a limit that the server did not tell
                continue
            if len(results) != len(batch):
                raise UaError(f"{len(results)} results for {len(batch)} items")
            for item, result in zip(batch, results, strict=True):
                yield item, result
            done += len(batch)

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

    def _verdict(
        self, status: ua.StatusCode, what: str = "write", certainly_not: frozenset[int] = _CERTAINLY_NOT
    ) -> WriteRefused | WriteUnknown:
        if status.value in certainly_not:
            return WriteRefused(f"The server refused the {what}: {status.name}.")
        return WriteUnknown(f"The server answered the {what} with {status.name}.")

    # The session --------------------------------------------------------------------------------------------

    def _say_connected(self, detail: str) -> None:
        self._was_connected = True
        self._say(connected=True, detail=detail, remark="; ".join(dict.fromkeys(self._remarks)))

    async def _run(self) -> None:
        delays = retry_delays_s()
        while True:
            refusal = await self._session()
            self._say(connected=False, detail=refusal.what, refusal=refusal)
            for tag in self._watched:
                self._on_reading(tag, self._bad(tag, refusal.what))
            if self._was_connected:
                self._was_connected = False
                delays = retry_delays_s()
            await asyncio.sleep(next(delays))

    async def _session(self) -> LinesideError:
        """One session from connect to loss; returns why it ended."""
        timeout_s = self._connection.timeout_s
        client = _Client(self._settings, timeout_s, self._spoiled)
        self._remarks, self._ended = (), ""
        shown = False
        try:
            async with client.subscribe_state() as states:
                if self._settings.security == "none":
                    self._remarks = ("not encrypted",)
                else:
                    await self._secure(client)
                    shown = True
                await client.connect()
                shown = False
                await self._prepare(client)
                self._client = client
                self._compare_clocks(client.session.server_utc)
                self._connected()
                await self._follow(client, states.next_change)
        except (
            *(LinesideError, AssertionError, InvalidSignature, UaError, OSError, TimeoutError, ValueError),
            struct.error,
        ) as error:
            # A server that does not take our certificate often just ends the connection, which asyncua asserts away;
            # so does one that has no room for a further session, a moment later.
            if client.asked_in and self._client is None and isinstance(error, AssertionError | ConnectionError):
                return self._not_accepted(_no_session()) if shown else _no_session()
            if shown and isinstance(error, AssertionError | ConnectionError) and _server_was_there(error):
                return self._not_accepted(_box_rejected("it ended the connection when it was shown"))
            refusal = _refusal(error, timeout_s)
            return self._not_accepted(refusal) if refusal.code == "opcua.box_rejected" else refusal
        finally:
            self._client = None
            await self._close(client)
        return _lost("The session ended.")

    def _compare_clocks(self, server: datetime | None) -> None:
        """Say when the server's clock is off: its times stay as they are, and nothing goes by them."""
        if server is None or not self._home.synced():
            return
        off_s = (server.replace(tzinfo=UTC) - datetime.fromisoformat(self._utc())).total_seconds()
        if abs(off_s) > CLOCKS_S:
            length = f"{abs(off_s) / 3600:.1f} h" if abs(off_s) > 2 * 3600 else f"{abs(off_s) / 60:.0f} min"
            self._remarks += (f"its clock is {length} {'ahead of' if off_s > 0 else 'behind'} this box's",)

    def _spoiled(self) -> None:
        """What the server published could not be read."""
        self._ended = "what it published could not be read"
        self._work.set()

    def _connected(self) -> None:
        if self._own_shown:
            ends = self._own[self._own_shown].certificate.not_valid_after_utc
            self._remarks += (
                f"the server has not accepted this box's new certificate; the former one ends on {ends:%Y-%m-%d}",
            )
            self._own_shown = 0  # the next session begins with the new one again
        self._say_connected(f"Connected to {self._settings.endpoint}.")

    def _not_accepted(self, refusal: LinesideError) -> LinesideError:
        """The server did not take the certificate that was shown: the next attempt shows the one before it."""
        self._own_shown = (self._own_shown + 1) % max(len(self._own), 1)
        return refusal

    # Trust --------------------------------------------------------------------------------------------------

    def _clock(self) -> BoxClock:
        return BoxClock(datetime.fromisoformat(self._utc()), self._home.synced())

    async def _secure(self, client: _Client) -> None:
        """Choose a policy, believe the server's certificate or raise, and give the client ours."""
        settings, clock = self._settings, self._clock()
        self._own = await asyncio.to_thread(self._pki.own, self._home.box, clock)
        own = self._own[min(self._own_shown, len(self._own) - 1)]
        pinned = bool(settings.server_certificate)
        if pinned:
            policy = str(settings.security)
            shown = self._pki.pinned(read_fingerprint(settings.server_certificate))
        else:
            policy, endpoint = await self._discovered()
            shown = endpoint.ServerCertificate or b""
            self._judge(shown, endpoint.Server.ApplicationUri or "")
        if settings.user:
            client.set_user(settings.user)
            client.set_password(_password_in(self._home.folder / settings.password_file))
        elif settings.user_certificate:
            client.user_certificate = read_certificate(self._home.folder / settings.user_certificate)
            client.user_private_key = read_private_key(self._home.folder / settings.user_key)
        client.application_uri = own.uri
        leaf = shown[: int.from_bytes(shown[2:4], "big") + 4]
        channel = _POLICIES[policy](
            x509.load_der_x509_certificate(leaf), own.certificate, own.key, ua.MessageSecurityMode.SignAndEncrypt
        )
        client.security_policy = channel  # type: ignore[assignment]  # asyncua infers too narrow a type
        client.uaclient.set_security(channel)

        async def in_session(_certificate: x509.Certificate, server: ua.ApplicationDescription) -> None:
            self._judge(shown, server.ApplicationUri or "")  # what it says now that nobody can be between

        client.certificate_validator = in_session

    def _judge(self, shown: bytes, uri: str) -> None:
        settings = self._settings
        pinned = bool(settings.server_certificate)
        self._remarks = self._pki.judge(
            shown, host=settings.host, uri=uri, clock=self._clock(), pinned=pinned, where=rejected_as(settings.endpoint)
        )

    async def _discovered(self) -> tuple[str, ua.EndpointDescription]:
        """The endpoint to use, as the server says without proof. Raises `opcua.no_discovery`, `opcua.not_offered`."""
        asking = _Client(self._settings, self._connection.timeout_s)
        try:
            offered = await asking.connect_and_get_server_endpoints()
        except (AssertionError, UaError, ConnectionError) as error:
            if not _server_was_there(error):
                raise
            raise LinesideError(
                "opcua.no_discovery",
                "The server does not say its certificate to a client that it does not know.",
                effect=NOT_CONNECTED,
                todo="Take its certificate from the server as a file, lineside equipment trust FILE, and write its "
                "fingerprint and a policy into the plant file: server_certificate, security.",
            ) from error
        finally:
            await self._close(asking)
        wanted = [self._settings.security] if self._settings.security in _POLICIES else list(_POLICIES)
        for name in wanted:
            for endpoint in offered:
                if (
                    endpoint.SecurityMode is ua.MessageSecurityMode.SignAndEncrypt
                    and endpoint.SecurityPolicyUri == _POLICIES[name].URI
                    and str(endpoint.EndpointUrl).startswith("opc.tcp:")
                ):
                    return name, endpoint
        kinds = sorted(
            {f"{str(one.SecurityPolicyUri).rpartition('#')[2][:40]} {one.SecurityMode.name}" for one in offered}
        )
        raise LinesideError(
            "opcua.not_offered",
            f"The server does not offer {' or '.join(wanted)} with SignAndEncrypt; it offers "
            f"{', '.join(kinds[:8]) or 'nothing'}.",
            effect=NOT_CONNECTED,
            todo="Enable one at the server. Only on a network that is protected otherwise: security: none",
        )

    async def _renew(self) -> None:
        """Make a new certificate ahead of time, also while a session lasts for months."""
        if self._own and self._own[0].certificate.not_valid_after_utc - self._clock().now < RENEW_BEFORE:
            self._own = await asyncio.to_thread(self._pki.own, self._home.box, self._clock())
            ends = self._own[-1].certificate.not_valid_after_utc
            self._remarks += (f"this box has a new certificate for the server to accept before {ends:%Y-%m-%d}",)
            self._say_connected(self._health.detail)

    # The session --------------------------------------------------------------------------------------------

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
        self._nodes, self._called = {}, {}
        named = [(self._nodes, *one) for one in self._addresses.items()]
        for nodes, name, node in [*named, *((self._called, *one) for one in self._methods.items())]:
            uri = getattr(node, "NamespaceUri", None)
            if uri is None:
                nodes[name] = node
            elif uri in spaces:
                nodes[name] = ua.NodeId(node.Identifier, ua.Int16(spaces.index(uri)), node.NodeIdType)
            else:
                raise LinesideError(
                    "opcua.no_namespace",
                    f"The server has no namespace {uri!r}, which the tag {name} names.",
                    effect=NOT_CONNECTED,
                    todo="Look with: lineside equipment browse DEVICE. Then correct the address in the plant file.",
                )
        self._batch = min(self._batch, await self._limit(client))
        self._kinds = {}
        for tag in (name for name, tag in self._tags.items() if tag.access == "write" and tag.method is None):
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
        return min([BATCH_MAX, *(limit for limit in given if limit > 0)])

    async def _kind(self, client: Client, tag: str) -> ua.VariantType:
        kind = await client.get_node(self._nodes[tag]).read_data_type_as_variant_type()
        self._kinds[tag] = kind
        return kind

    async def _follow(self, client: Client, next_change: Callable[[float], Awaitable[UaClientState]]) -> None:
        """Keep the subscription as it is wanted until the session is lost. One that the server ends, or of which
        nothing is heard any more, is made anew within the session; one that never published, or ended soon, is not."""
        subscription, begun_s = 0, 0.0
        interval_s = max(self._connection.poll_s, CONFIRM_S)
        self._work.set()
        while True:
            publishing = client.uaclient.session._publish_task  # noqa: SLF001  how asyncua says that no subscription is left
            if client.state is not UaClientState.CONNECTED:
                raise _lost("The connection to the server was lost.")
            now_s, why = asyncio.get_running_loop().time(), ""
            if subscription and (self._ended or publishing is None or publishing.done()):
                why = f"The server ended the subscription ({self._ended or 'it knows none'})."
            elif subscription and now_s - self._heard_s > 3 * interval_s + self._connection.timeout_s:
                why = f"The server has published nothing for {now_s - self._heard_s:.1f} s."
            if why:
                if now_s < begun_s + AGAIN_S or self._heard_s <= begun_s:
                    raise _lost(why)
                for tag in self._watched:
                    self._on_reading(tag, self._bad(tag, why))
                self._ended = ""
                self._work.set()
            if self._work.is_set():
                self._work.clear()
                if subscription:
                    await client.uaclient.session.delete_subscriptions([subscription])
                self._heard_s = begun_s = asyncio.get_running_loop().time()
                subscription = await self._subscribe(client) if self._watched else 0
                if self._heard_s == begun_s:  # else it has published already
                    self._heard_s = begun_s = asyncio.get_running_loop().time()
            await self._renew()
            await self._until(next_change, interval_s)

    async def _until(self, next_change: Callable[[float], Awaitable[UaClientState]], most_s: float) -> None:
        """Wait for a change of the connection, of the watch list, or some time."""
        waits = [
            asyncio.ensure_future(next_change(most_s)),
            asyncio.ensure_future(self._work.wait()),
        ]
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
                elif isinstance(part, ua.StatusChangeNotification) and part.Status.is_bad():
                    self._ended = part.Status.name
                    self._work.set()
            for tag in heard - new:
                last, now_s = self._last[tag], self._now_s()
                again = Reading(last.value, last.unit, last.quality, last.source_utc, now_s, last.detail)
                self._last[tag] = again
                self._on_reading(tag, again)

        async def monitored(batch: Sequence[str]) -> Sequence[ua.MonitoredItemCreateResult]:
            request = ua.CreateMonitoredItemsParameters()
            request.SubscriptionId = created.SubscriptionId
            request.TimestampsToReturn = ua.TimestampsToReturn.Source
            for tag in batch:
                item = ua.MonitoredItemCreateRequest()
                item.ItemToMonitor.NodeId = self._nodes[tag]
                item.ItemToMonitor.AttributeId = AttributeIds.Value
                item.MonitoringMode = ua.MonitoringMode.Reporting
                item.RequestedParameters.ClientHandle = handles[tag]
                item.RequestedParameters.SamplingInterval = self._connection.poll_s * 1000
                item.RequestedParameters.QueueSize = 1
                item.RequestedParameters.DiscardOldest = True
                request.ItemsToCreate.append(item)
            return await session.create_monitored_items(request)

        created = await session.create_subscription(params, callback=published)
        handles = {tag: handle for handle, tag in enumerate(tags)}
        async for tag, result in self._in_batches(tags, monitored):
            if result.StatusCode.is_good():
                heard.add(tag)
            else:
                self._on_reading(tag, self._bad(tag, f"The server says {result.StatusCode.name}."))
        return int(created.SubscriptionId)

    async def _browse(self, client: Client, text: str) -> list[Found]:
        found: list[Found] = []
        kinds: dict[ua.NodeId, str] = {}
        spaces = await client.get_namespace_array()
        level = [client.nodes.objects]
        seen: set[ua.NodeId] = set()
        for _depth in range(BROWSE_DEPTH_MAX):
            below = []
            for node in level:
                for child in await node.get_children_descriptions():
                    if child.NodeId in seen or _is_servers_own(child.NodeId) or len(seen) >= BROWSE_NODES_MAX:
                        continue
                    seen.add(child.NodeId)
                    below.append(client.get_node(child.NodeId))
                    if child.NodeClass is ua.NodeClass.Variable and len(found) < BROWSE_FOUND_MAX:
                        address, name = _address(child.NodeId, spaces), child.DisplayName.Text or ""
                        if text in address.casefold() or text in name.casefold():
                            found.append(await self._found(client, child.NodeId, address, name, kinds))
            level = below
        return found

    async def _found(
        self, client: Client, node: ua.NodeId, address: str, name: str, kinds: dict[ua.NodeId, str]
    ) -> Found:
        """`kinds` remembers the types of this browsing, which are few."""
        read = client.uaclient.session.read_attributes
        kind = (await read([node], AttributeIds.DataType))[0].Value
        access = (await read([node], AttributeIds.UserAccessLevel))[0].Value
        type_id = kind.Value if kind is not None else None
        if not isinstance(type_id, ua.NodeId):
            return Found(address, name, "unknown", writable=False)
        if type_id not in kinds:
            kinds[type_id] = (await client.get_node(node).read_data_type_as_variant_type()).name
        level = access.Value if access is not None and isinstance(access.Value, int) else 0
        return Found(address, name, kinds[type_id], bool(level & ua.AccessLevel.CurrentWrite.mask))


def _is_servers_own(node: ua.NodeId) -> bool:
    """True for what the standard defines. Some servers put a device's nodes into its namespace, with high numbers."""
    return node.NamespaceIndex == 0 and isinstance(node.Identifier, int) and node.Identifier < STANDARD_IDS


def _address(node: ua.NodeId, spaces: Sequence[str]) -> str:
    """A node id with its namespace by name, as a plant file writes it."""
    text = node.to_string()
    space, _, rest = text.partition(";")
    uri = spaces[node.NamespaceIndex] if node.NamespaceIndex < len(spaces) else ""
    return f"nsu={uri};{rest}" if uri and space.startswith("ns=") else text


def _password_in(file: Path) -> str:
    """The password in a file of mode 0600. Raises `opcua.password_file`, `opcua.secret_open`."""
    data = read_secret(file).rstrip(b"\r\n")
    try:
        password = data.decode()
    except UnicodeDecodeError:
        password = ""
    if not password or len(data) > PASSWORD_BYTES_MAX:
        raise LinesideError(
            "opcua.password_file",
            f"{file} does not hold a password.",
            effect=NOT_CONNECTED,
            todo=f"Write the password into it as one line of UTF-8 text, at most {PASSWORD_BYTES_MAX} bytes.",
        )
    return password


def _server_was_there(error: BaseException) -> bool:
    """False when nobody listened, so that the loss says nothing about certificates."""
    return not isinstance(error, ConnectionRefusedError)
