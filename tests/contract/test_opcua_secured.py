"""OPC UA over encrypted connections, with real servers on real sockets: policies, certificates, users, loss."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import pytest
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.common.callback import CallbackType
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.security_policies import SecurityPolicy
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStructParsingError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from drivers.opcua import OpcUaDriver
from drivers.opcua_trust import OWN_YEARS, BoxClock, Pki, fingerprint, read_certificate
from drivers.sim.control import SimControl
from edge.conformance import CHECKS, Rig, one_connection, rig
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.equipment import Health, Home, WriteResult
from tests.contract.certificates import DAY, Signed, crl, make
from tests.contract.conformance import reactor_subject, simulated, with_bolus
from tests.contract.wire import KILLS, Leak

ResultT = TypeVar("ResultT")
MANY = tuple(f"n{n}" for n in range(25))
SPACE = "urn:test"
SECURED = [
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
]
WORDS = "correct horse battery staple"
GOOD = make("server")


def utc() -> str:
    return datetime.now(UTC).isoformat()


class Users:
    """Lets ana in with her password, and everybody who gives none."""

    def __init__(self) -> None:
        self.passwords: list[str | None] = []

    def get_user(
        self, _server: object, username: str | None = None, password: str | None = None, **_more: object
    ) -> User | None:
        self.passwords.append(password)
        known = username is None or (username, password) == ("ana", WORDS)
        return User(role=UserRole.User, name=username or "") if known else None


CLIENTS = {"drivers.opcua", "asyncua.client.client", "asyncua.client.ua_client"}


@dataclass
class Device:
    """A server in a thread of its own: making one takes seconds, so the tests share it."""

    loop: asyncio.AbstractEventLoop
    server: Server
    port: int
    users: Users

    async def does(self, work: Coroutine[None, None, ResultT]) -> ResultT:
        """Carry something out where the server runs."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    async def offers(
        self,
        *,
        policies: Sequence[ua.SecurityPolicyType] = (ua.SecurityPolicyType.NoSecurity, *SECURED),
        shows: Signed = GOOD,
        tokens: Sequence[type] = (ua.AnonymousIdentityToken,),
    ) -> None:
        """From now on this is what the server offers; whoever is connected is not any more."""
        await self.does(self._offers(list(policies), shows, list(tokens)))

    async def _offers(self, policies: list[ua.SecurityPolicyType], shows: Signed, tokens: list[type]) -> None:
        made = self.server
        made.set_security_policy(policies)
        made.set_identity_tokens(tokens)
        await made.load_certificate(shows.der, "der")
        await made.load_private_key(shows.key_der, format="der")
        made._policies.clear()
        made.iserver.endpoints.clear()
        await made._setup_server_nodes()
        made.bserver.set_policies(made._policies)
        await made.bserver.stop()
        await made.bserver.start()

    async def goes(self) -> None:
        await self.does(self.server.bserver.stop())

    async def comes(self, port: int) -> None:
        self.server.bserver.port = port
        await self.does(self.server.bserver.start())

    def used(self) -> SecurityPolicy:
        """How the one client that is there is encrypted."""
        (client,) = self.server.bserver.clients
        return client.processor._connection.security_policy


async def built(users: Users, *spaces: str) -> Server:
    made = Server(user_manager=users)
    await made.init()
    made.disable_clock()
    made.set_endpoint("opc.tcp://127.0.0.1:0/")
    made.set_security_policy([ua.SecurityPolicyType.NoSecurity, *SECURED])
    await made.load_certificate(GOOD.der, "der")
    await made.load_private_key(GOOD.key_der, format="der")
    for name in spaces:
        await made.register_namespace(name)
    space = await made.get_namespace_index(SPACE)
    for name in ("x", "Temperature", *MANY):
        node = await made.nodes.objects.add_variable(ua.NodeId(ua.String(name), ua.Int16(space)), name, 1.0)
        await node.set_writable()
    await made.start()
    return made


async def cancelled() -> None:
    """End what asyncua's server leaves behind of sessions that broke."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@pytest.fixture(scope="session")
def devices() -> Iterator[tuple[Device, Device]]:
    """Two servers, of which the second numbers its namespaces otherwise."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait(work: Coroutine[None, None, ResultT]) -> ResultT:
        return asyncio.run_coroutine_threadsafe(work, loop).result(60)

    made = []
    for spaces in ((SPACE,), ("urn:other", SPACE)):
        users = Users()
        server = wait(built(users, *spaces))
        made.append(Device(loop, server, server.bserver.port, users))
    yield made[0], made[1]
    for device in made:
        wait(device.server.stop())
    wait(cancelled())
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
async def there(devices: tuple[Device, Device]) -> Device:
    """The first server, as it was at first."""
    device = devices[0]
    device.users.passwords.clear()
    device.server.iserver.certificate_validator = None
    await device.offers()
    return device


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.opcua.retry_delays_s", lambda: itertools.repeat(0.05))


@pytest.fixture(scope="session")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The box's own certificate, made once: it takes a second."""
    (own,) = Pki(tmp_path_factory.mktemp("own")).own("BOX-7", BoxClock(datetime.now(UTC), synced=True))
    return own.file.read_bytes()


@pytest.fixture
def home(tmp_path: Path, own_file: bytes) -> Home:
    """A box that trusts the good server."""
    own = tmp_path / "state" / "pki" / "own"
    own.mkdir(parents=True, mode=0o700)
    (own / "000001.pem").touch(0o600)
    (own / "000001.pem").write_bytes(own_file)
    Pki(tmp_path / "state" / "pki").trust(GOOD.certificate)
    return Home("BOX-7", tmp_path, tmp_path / "state", lambda: True)


def plant_at(port: int, *, names: tuple[str, ...] = ("x",), host: str = "127.0.0.1", **settings: str) -> Plant:
    tags = {
        name: {"connection": "device", "address": f"nsu={SPACE};s={name}", "access": "write", "low": -1e6, "high": 1e6}
        for name in names
    }
    return one_connection("opcua", {"endpoint": f"opc.tcp://{host}:{port}/", **settings}, "U", tags)


@asynccontextmanager
async def box(plant: Plant, home: Home) -> AsyncIterator[Rig]:
    async with rig(plant, home=home, utc=utc) as made:
        yield made


async def refusal(made: Rig, code: str) -> LinesideError:
    """Wait until the connection is refused for this reason."""

    def refused() -> bool:
        found = health(made).refusal
        return found is not None and found.code == code

    try:
        await made.until(refused)
    except TimeoutError:
        pytest.fail(f"waited for {code}; it is {health(made)}")
    found = health(made).refusal
    assert found is not None
    assert found.todo
    with pytest.raises(LinesideError, match=code.replace(".", r"\.")):
        await made.equipment.browse("device")
    return found


def health(made: Rig) -> Health:
    return made.equipment.health()["device"]


@pytest.mark.parametrize("policy", ["Aes256_Sha256_RsaPss", "Basic256Sha256", "Aes128_Sha256_RsaOaep"])
async def test_every_policy_reads_and_writes(policy: str, there: Device, home: Home) -> None:
    async with box(plant_at(there.port, security=policy), home) as made:
        await made.until(lambda: made.good("U.x"))
        outcome = await made.equipment.writer("U.x").write_and_read_back(7.5)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert there.used().URI.endswith(policy)
        assert there.used().Mode is ua.MessageSecurityMode.SignAndEncrypt
        assert health(made).words == "connected", "only what is doubtful is remarked"


async def test_without_a_word_the_strongest_is_taken_and_never_none(there: Device, home: Home) -> None:
    await there.offers(policies=[ua.SecurityPolicyType.NoSecurity, *SECURED[1:]])
    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        assert there.used().URI.endswith("Basic256Sha256")
    async with box(plant_at(there.port, security="Aes256_Sha256_RsaPss"), home) as made:
        assert "it offers" in (await refusal(made, "opcua.not_offered")).what
    await there.offers(policies=[ua.SecurityPolicyType.NoSecurity])
    async with box(plant_at(there.port), home) as made:
        assert "None None" in (await refusal(made, "opcua.not_offered")).what
    async with box(plant_at(there.port, security="none"), home) as made:
        await made.until(lambda: made.good("U.x"))
        assert health(made).words == "connected, not encrypted"


async def test_a_server_with_a_bad_certificate_is_refused_until_it_has_a_good_one(there: Device, home: Home) -> None:
    authority = make("authority", ca=True)
    pki = Pki(home.keeps / "pki")
    bad = {
        "opcua.expired": make("server", valid=(-2 * DAY, -DAY)),
        "opcua.not_yet_valid": make("server", valid=(DAY, 2 * DAY)),
        "opcua.wrong_host": make("server", hosts=("plc-8",)),
        "opcua.wrong_uri": make("server", uri="urn:another"),
        "opcua.weak": make("weak", bits=1024),
        "opcua.revoked": make("gone", by=authority, serial=4711),
    }
    for one in bad.values():
        pki.trust(one.certificate)
    pki.trust(authority.certificate, issuer=True)
    pki.revoke(crl(authority, 4711))
    strangers = {"opcua.untrusted": make("stranger"), "opcua.unknown_issuer": make("stranger", by=authority)}
    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        for code, shown in {**bad, **strangers}.items():
            await there.offers(shows=shown)
            await refusal(made, code)
            assert made.bad("U.x")
        # What an engineer does: compare, trust.
        stranger = read_certificate(pki.rejected(f"127.0.0.1:{there.port}")[0])
        assert stranger == strangers["opcua.unknown_issuer"].certificate
        pki.trust(stranger)
        await made.until(lambda: made.good("U.x"))


async def test_a_server_that_is_silent_to_strangers_is_pinned(there: Device, home: Home) -> None:
    async def ends(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    silent = await asyncio.start_server(ends, "127.0.0.1", 0)
    async with silent, box(plant_at(silent.sockets[0].getsockname()[1]), home) as made:
        assert "server_certificate" in (await refusal(made, "opcua.no_discovery")).todo
    await there.offers(policies=SECURED[:1])
    settings = {"security": "Aes256_Sha256_RsaPss", "server_certificate": fingerprint(GOOD.certificate)}
    async with box(plant_at(there.port, **settings), home) as made:
        await made.until(lambda: made.good("U.x"))
    await there.offers(policies=SECURED[:1], shows=make("impostor"))
    async with box(plant_at(there.port, **settings), home) as made:
        await made.until(lambda: health(made).refusal is not None)
    settings["server_certificate"] = hashlib.sha256(b"").hexdigest()
    async with box(plant_at(there.port, **settings), home) as made:
        await refusal(made, "opcua.pin_missing")


def secret(home: Home, text: str = WORDS + "\n") -> dict[str, str]:
    file = home.folder / "ana.password"
    file.touch(0o600)
    file.write_text(text)
    return {"user": "ana", "password_file": "ana.password"}


async def test_users_with_passwords(there: Device, home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    await there.offers(tokens=[ua.UserNameIdentityToken])
    async with box(plant_at(there.port), home) as made:
        assert "UserName" in (await refusal(made, "opcua.user_kind")).what
    assert not there.users.passwords
    plant = plant_at(there.port, **secret(home))
    async with box(plant, home) as made:
        await made.until(lambda: made.good("U.x"))
    assert there.users.passwords == [WORDS]
    secret(home, "another\n")
    async with box(plant, home) as made:
        await refusal(made, "opcua.user_rejected")
        (home.folder / "ana.password").chmod(0o644)
        await refusal(made, "opcua.secret_open")
        (home.folder / "ana.password").chmod(0o600)
        secret(home, "\n")
        await refusal(made, "opcua.password_file")
    assert WORDS not in caplog.text
    assert WORDS not in plant.model_dump_json()


async def test_users_with_certificates(there: Device, home: Home) -> None:
    make("ana", uri="").write(home.folder / "ana.der", home.folder / "ana.key")
    settings = {"user_certificate": "ana.der", "user_key": "ana.key"}
    await there.offers(tokens=[ua.X509IdentityToken])
    async with box(plant_at(there.port, **settings), home) as made:
        await made.until(lambda: made.good("U.x"))
    (home.folder / "ana.key").chmod(0o644)
    async with box(plant_at(there.port, **settings), home) as made:
        await refusal(made, "opcua.secret_open")


async def test_a_server_that_does_not_take_our_new_certificate_gets_the_former_one(there: Device, home: Home) -> None:
    pki = Pki(home.keeps / "pki")
    now = BoxClock(datetime.now(UTC), synced=True)
    accepted = {pki.own("BOX-7", now)[0].der}
    seen: list[str] = []

    async def accepts(shown: x509.Certificate, client: ua.ApplicationDescription) -> None:
        seen.append(client.ApplicationUri or "")
        if shown.public_bytes(Encoding.DER) not in accepted:
            raise ServiceError(StatusCodes.BadCertificateUntrusted)

    there.server.set_certificate_validator(accepts)
    second = pki.own("BOX-7", now, renew=True)[0]
    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        assert "has not accepted this box's new certificate" in health(made).words
    accepted.add(second.der)
    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        assert health(made).words == "connected"
    accepted.clear()
    async with box(plant_at(there.port), home) as made:
        assert "--export" in (await refusal(made, "opcua.box_rejected")).todo
    assert set(seen) == {"urn:lineside:box:BOX-7"}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("BadSecurityChecksFailed", "opcua.box_rejected"),
        ("BadCertificateTimeInvalid", "opcua.clocks_differ"),
        ("BadCertificateRevoked", "opcua.box_revoked"),
        ("BadSecurityPolicyRejected", "opcua.security_rejected"),
        ("BadTooManySessions", "opcua.server_full"),
        ("BadServerHalted", "opcua.server_down"),
        ("BadTcpEndpointUrlInvalid", "opcua.wrong_path"),
        ("BadInternalError", "opcua.server_refused"),
    ],
)
async def test_what_a_server_says_against_us_is_told_in_words(
    status: str, code: str, there: Device, home: Home
) -> None:
    async def refuses(_shown: x509.Certificate, _client: ua.ApplicationDescription) -> None:
        raise ServiceError(getattr(StatusCodes, status))

    there.server.set_certificate_validator(refuses)
    async with box(plant_at(there.port), home) as made:
        assert (await refusal(made, code)).what.count("The server") == 1
        assert f"({code})" in health(made).words


async def test_a_certificate_is_renewed_while_a_session_lasts(
    there: Device, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.opcua_trust.OWN_BITS", 2048)
    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        for module in ("drivers.opcua", "drivers.opcua_trust"):
            monkeypatch.setattr(f"{module}.RENEW_BEFORE", 365 * OWN_YEARS * DAY)
        monkeypatch.setattr("drivers.opcua_trust.OWN_YEARS", 2 * OWN_YEARS)
        await made.until(lambda: "new certificate" in health(made).remark)
        assert made.good("U.x")
        assert (home.keeps / "pki" / "own" / "000002.pem").is_file()


async def test_a_box_without_a_clock_connects_to_nobody(there: Device, home: Home) -> None:
    async with rig(plant_at(there.port), home=home, utc=lambda: "1970-01-01T00:10:00+00:00") as made:
        await refusal(made, "opcua.clock_not_set")
    async with box(plant_at(there.port), replace(home, synced=lambda: False)) as made:
        await made.until(lambda: made.good("U.x"))
        assert "not synchronised" in health(made).words


# Loss and limits ------------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_again_and_again(
    there: Device, devices: tuple[Device, Device], home: Home
) -> None:
    """Gaps are marked, values read anew, other namespace numbers understood, and nothing is left open."""
    first, second = there, devices[1]
    await first.goes()
    await second.goes()
    port, leak = first.port, Leak()
    async with box(plant_at(port), home) as made:
        for round_ in range(1, KILLS + 1):
            device = devices[round_ % 2]
            node = ua.NodeId(ua.String("x"), ua.Int16(2 + round_ % 2))
            await device.does(device.server.get_node(node).write_value(float(round_)))
            await device.comes(port)
            await made.until(lambda: made.good("U.x"))
            assert made.equipment.latest("U.x").value == float(round_)  # type: ignore[union-attr]
            await device.goes()
            await made.until(lambda: made.bad("U.x"))
            await made.until(lambda: health(made).detail == "Nobody listens there.")
            leak.look()
        assert [task.get_name() for task in asyncio.all_tasks()].count("opcua") == 1
        leak.judge(sockets=1, tasks=1, memory=False)  # asyncua's servers stand in this process, and keep what broke
        gc.collect()
        kept = [one for one in gc.get_objects() if type(one).__module__ in CLIENTS and not isinstance(one, Enum)]
        left = Counter(type(one).__name__ for one in kept)
        assert max(left.values(), default=0) <= 2, f"sessions are kept: {left}"
    await first.comes(port)


async def test_a_server_that_lies_about_its_limits_is_asked_for_less(there: Device, home: Home) -> None:
    sizes: list[int] = []

    def too_many(event: object, _service: object) -> None:
        nodes = event.request_params.NodesToRead  # type: ignore[attr-defined]
        if len(nodes) > 7:
            raise ServiceError(StatusCodes.BadTooManyOperations)
        sizes.append(len(nodes))

    handle = there.server.subscribe_server_callback(CallbackType.PreRead, too_many)
    try:
        async with box(plant_at(there.port, names=MANY), home) as made:
            await made.until(lambda: all(made.good(f"U.{name}") for name in MANY))
    finally:
        there.server.unsubscribe_server_callback(CallbackType.PreRead, too_many)
    assert max(sizes) > 3, handle


async def test_a_subscription_that_the_server_ends_is_made_anew(there: Device, home: Home) -> None:
    x = there.server.get_node(ua.NodeId(ua.String("x"), ua.Int16(2)))

    def shows(value: float) -> bool:
        reading = made.equipment.latest("U.x")
        return reading is not None and reading.good and reading.value == value

    async with box(plant_at(there.port), home) as made:
        await made.until(lambda: made.good("U.x"))
        await there.does(x.write_value(111.0))
        await made.until(lambda: shows(111.0))
        service = there.server.iserver.subscription_service
        # The first value may have come by the reading before it; the subscription is there when it is.
        while not service.subscriptions:
            await made.equipment.read("U.x")
        await there.does(service.delete_subscriptions(list(service.subscriptions)))
        await made.until(lambda: made.bad("U.x"))
        await there.does(x.write_value(112.0))
        await made.until(lambda: shows(112.0))


@asynccontextmanager
async def limited(device: Device, **limits: int) -> AsyncIterator[dict[str, int]]:
    """A server that says its limits, and refuses what is over them: yields the largest request of each kind."""
    most = dict.fromkeys(limits, 0)
    where = {
        "MaxNodesPerRead": (InternalSession, "read", lambda params: params.NodesToRead),
        "MaxNodesPerWrite": (InternalSession, "write", lambda params: params.NodesToWrite),
        "MaxNodesPerBrowse": (InternalSession, "browse", lambda params: params.NodesToBrowse),
        "MaxMonitoredItemsPerCall": (InternalSession, "create_monitored_items", lambda params: params.ItemsToCreate),
    }
    with ExitStack() as stack:
        for name, most_at_once in limits.items():
            node = ua.NodeId(ua.Int32(getattr(ObjectIds, f"Server_ServerCapabilities_OperationLimits_{name}")))
            told = ua.Variant(most_at_once, ua.VariantType.UInt32)
            await device.does(device.server.get_node(node).write_value(told))
            kind, method, items = where[name]
            does = getattr(kind, method)

            async def checked(
                self: InternalSession, params: object, *more: object, name: str = name, does: object = does,
                items: object = items, most_at_once: int = most_at_once,
            ) -> object:  # fmt: skip
                count = len(items(params))  # type: ignore[operator]
                if self.external:
                    most[name] = max(most[name], count)
                    if count > most_at_once:
                        raise ServiceError(StatusCodes.BadTooManyOperations)
                return await does(self, params, *more)  # type: ignore[operator]

            stack.enter_context(mock.patch.object(kind, method, checked))
        yield most
    for name in limits:
        node = ua.NodeId(ua.Int32(getattr(ObjectIds, f"Server_ServerCapabilities_OperationLimits_{name}")))
        await device.does(device.server.get_node(node).write_value(ua.Variant(0, ua.VariantType.UInt32)))


async def subscribed(device: Device, made: Rig, items: int) -> None:
    """Wait until the server watches so many nodes: a first value may have come by the reading before."""
    service = device.server.iserver.subscription_service
    name = next(iter(made.equipment._tags))
    async with asyncio.timeout(60):
        while sum(len(one.monitored_item_srv._monitored_items) for one in [*service.subscriptions.values()]) < items:
            await made.equipment.read(name)


async def test_limits_that_the_server_tells_and_enforces_are_kept(there: Device, home: Home) -> None:
    told = {"MaxNodesPerRead": 9, "MaxNodesPerWrite": 1, "MaxNodesPerBrowse": 1, "MaxMonitoredItemsPerCall": 4}
    async with limited(there, **told) as most, box(plant_at(there.port, names=MANY), home) as made:
        await made.until(lambda: all(made.good(f"U.{name}") for name in MANY))
        await subscribed(there, made, len(MANY))
        outcome = await made.equipment.writer("U.n1").write_and_read_back(2.0)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert len(await made.equipment.browse("device")) == 2 + len(MANY)
    assert most == {"MaxNodesPerRead": 4, "MaxNodesPerWrite": 1, "MaxNodesPerBrowse": 1, "MaxMonitoredItemsPerCall": 4}


@pytest.mark.parametrize("how", ["says", "resets"])
async def test_a_server_without_room_is_told_in_words_until_it_lets_the_box_in(
    how: str, there: Device, home: Home
) -> None:
    """Real servers say it, or end the connection of the session that is one too many."""
    create, full = InternalSession.create_session, threading.Event()
    full.set()

    async def no_room(self: InternalSession, *more: Any, **how_: Any) -> Any:
        if full.is_set() and self.external:
            if how == "says":
                raise ServiceError(StatusCodes.BadTooManySessions)
            for client in there.server.bserver.clients:
                client.transport.abort()
        return await create(self, *more, **how_)

    with mock.patch.object(InternalSession, "create_session", no_room):
        async with box(plant_at(there.port), home) as made:
            found = await refusal(made, "opcua.server_full" if how == "says" else "opcua.no_session")
            assert "no room for a further session" in f"{found.what} {found.todo}"
            assert made.bad("U.x")
            full.clear()
            await made.until(lambda: made.good("U.x"))


async def test_a_subscription_that_ends_alone_is_made_anew_in_the_same_session(
    there: Device, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.opcua.AGAIN_S", 0.0)
    session, given_up = OpcUaDriver._session, list[str]()

    async def noted(self: OpcUaDriver) -> LinesideError:
        given_up.append((why := await session(self)).what)
        return why

    monkeypatch.setattr(OpcUaDriver, "_session", noted)
    x = there.server.get_node(ua.NodeId(ua.String("x"), ua.Int16(2)))
    service = there.server.iserver.subscription_service
    seen: list[str] = []
    async with box(plant_at(there.port), home) as made:
        for value in (200.0, 201.0):
            await made.until(lambda: made.good("U.x"))
            await subscribed(there, made, 1)
            await there.does(x.write_value(value))  # so that one was published
            await made.until(lambda value=value: made.equipment.latest("U.x").value == value)
            await there.does(service.delete_subscriptions(list(service.subscriptions)))
            await made.until(lambda: made.bad("U.x"))
            seen.append(made.equipment.latest("U.x").detail)
        await made.until(lambda: made.good("U.x"))
    of_it = ("ended the subscription", "published nothing")
    assert any(word in one for one in seen for word in of_it), seen
    assert not [one for one in given_up for word in of_it if word in one]


async def test_a_publish_response_that_cannot_be_read_marks_a_gap_and_values_are_read_anew(
    there: Device, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that was in it would never come again, and the next response would confirm the old one."""
    monkeypatch.setattr("drivers.opcua.AGAIN_S", 0.0)
    x = there.server.get_node(ua.NodeId(ua.String("x"), ua.Int16(2)))
    async with box(plant_at(there.port), home) as made:
        await there.does(x.write_value(1.0))
        await made.until(lambda: made.good("U.x") and made.equipment.latest("U.x").value == 1.0)
        publish = UaSession.publish

        async def once(self: UaSession, acks: Any) -> Any:
            answer = await publish(self, acks)
            if answer.Parameters.NotificationMessage.NotificationData:
                monkeypatch.setattr(UaSession, "publish", publish)
                raise UaStructParsingError
            return answer

        monkeypatch.setattr(UaSession, "publish", once)
        await there.does(x.write_value(2.0))
        await made.until(lambda: made.good("U.x") and made.equipment.latest("U.x").value == 2.0)


async def test_a_server_whose_clock_is_off_is_remarked_and_its_times_order_nothing(there: Device, home: Home) -> None:
    off = timedelta(hours=5)
    x = there.server.get_node(ua.NodeId(ua.String("x"), ua.Int16(2)))

    def late() -> str:
        return (datetime.now(UTC) - off).isoformat()

    ahead, behind = datetime.now(UTC) + off, datetime.now(UTC) - off
    async with rig(plant_at(there.port), home=home, utc=late) as made:
        for value, source in ((1.0, ahead), (2.0, behind), (3.0, None)):
            await there.does(x.write_value(ua.DataValue(ua.Variant(value), SourceTimestamp=source)))
            await made.until(lambda value=value: made.good("U.x") and made.equipment.latest("U.x").value == value)
            reading = made.equipment.latest("U.x")
            assert reading.source_utc[:13] == (source.isoformat()[:13] if source else "")
        assert "its clock is 5.0 h ahead of this box's" in health(made).remark


async def test_browsing_looks_for_words(there: Device, home: Home) -> None:
    async with box(plant_at(there.port, names=("Temperature",)), home) as made:
        await made.until(lambda: made.good("U.Temperature"))
        (found,) = await made.equipment.browse("device", "temp")
        assert (found.address, found.type, found.writable) == (f"nsu={SPACE};s=Temperature", "Double", True)
        assert len(await made.equipment.browse("device")) == 2 + len(MANY)
        assert await made.equipment.browse("device", "nothing like it") == []


# The conformance suite over an encrypted connection ------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured_reactor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, SimControl]]:
    folder = tmp_path_factory.mktemp("secured")
    GOOD.write(folder / "server.der", folder / "server.key")
    with simulated("reactor", folder, "--certificate", str(folder / "server.der")) as made:
        yield made


@pytest.mark.parametrize("check", CHECKS)
async def test_conformance_over_an_encrypted_connection(
    check: str, secured_reactor: tuple[int, SimControl], home: Home
) -> None:
    port, control = secured_reactor
    await control.clear()
    await CHECKS[check](replace(with_bolus(reactor_subject(port, control, security="Basic256Sha256")), home=home))
    await control.clear()
