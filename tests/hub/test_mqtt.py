"""The MQTT session against Debian's mosquitto."""

import asyncio
import socket
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sync_parts import free_port

from edge.core.errors import LinesideError
from edge.mqtt import PACKET_BYTES_MAX, RECEIVE_MAX, Address, read_address, session

FAST = (0.01, 0.05)


class Watched:
    """A session's `on_change`, as something to wait for."""

    def __init__(self):
        self.changed = asyncio.Event()

    def __call__(self):
        self.changed.set()

    async def until(self, condition):
        async with asyncio.timeout(60):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def opened(broker, name, watched, topics=()):
    return session(Address("127.0.0.1", broker.port, None), name, subscribe=topics, on_change=watched, retry_s=FAST)


async def test_what_is_published_arrives_in_order_and_retained_is_marked(broker):
    a, b, c = Watched(), Watched(), Watched()
    async with opened(broker, "a", a, ["t/+/x"]) as one, opened(broker, "b", b) as two:
        await a.until(lambda: one.connected)
        await b.until(lambda: two.connected)
        await asyncio.gather(*(two.publish("t/1/x", b"%d" % n) for n in range(500)))
        got = [await anext(one) for _ in range(500)]
        assert [int(m.payload) for m in got] == list(range(500))
        await two.publish("t/2/x", b"kept" * 15_000, retain=True)
        assert (await anext(one)).retained is False
        async with opened(broker, "c", c, ["t/#"]) as three:
            late = await anext(three)
            assert (late.retained, late.payload) == (True, b"kept" * 15_000)
    assert not one.connected
    assert len(asyncio.all_tasks()) == 1
    assert not [t for t in threading.enumerate() if "paho" in t.name]


async def test_a_consumer_that_does_not_take_bounds_what_is_delivered(broker):
    a, b = Watched(), Watched()
    async with opened(broker, "a", a, ["t"]) as one, opened(broker, "b", b) as two:
        await a.until(lambda: one.connected)
        await b.until(lambda: two.connected)
        for n in range(RECEIVE_MAX * 2):
            await two.publish("t", b"%d" % n)
        assert len(one._inbox) <= RECEIVE_MAX
        assert [int((await anext(one)).payload) for _ in range(RECEIVE_MAX * 2)] == list(range(RECEIVE_MAX * 2))


async def test_what_waits_is_taken_at_once_within_its_bounds(broker):
    a, b = Watched(), Watched()
    async with opened(broker, "a", a, ["t"]) as one, opened(broker, "b", b) as two:
        await a.until(lambda: one.connected)
        await b.until(lambda: two.connected)
        for n in range(9):
            await two.publish("t", b"%d" % n * 10)
        first = await anext(one)
        async with asyncio.timeout(60):
            while len(one._inbox) < 8:
                one._arrived.clear()
                await one._arrived.wait()
        assert one.waiting(9, 9) == []
        assert [message.payload[:1] for message in [first, *one.waiting(3, 10_000)]] == [b"0", b"1", b"2", b"3"]
        assert [message.payload[:1] for message in one.waiting(9, 29)] == [b"4", b"5"]
        assert [message.payload[:1] for message in one.waiting(9, 30)] == [b"6", b"7", b"8"]
        assert one.waiting(9, 30) == []


async def test_it_comes_back_with_its_subscriptions_after_the_broker_is_killed(broker):
    a = Watched()
    async with opened(broker, "a", a, ["t"]) as one:
        await a.until(lambda: one.connected)
        await broker.kill()
        await a.until(lambda: not one.connected)
        with pytest.raises(LinesideError) as caught:
            await one.publish("t", b"x")
        assert caught.value.code == "mqtt.away"
        await a.until(lambda: "not reached" in one.state)
        await broker.start()
        await a.until(lambda: one.connected)
        await one.publish("t", b"again")
        assert (await anext(one)).payload == b"again"


async def test_what_is_under_way_when_the_connection_ends_fails():
    """A server that accepts the connection and the subscription, never a message, and then hangs up."""

    async def serve(reader, writer):
        await reader.readexactly(2)
        writer.write(b"\x20\x03\x00\x00\x00")  # CONNACK, success
        await reader.read(65536)
        await reader.read(65536)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    a = Watched()
    async with server, session(Address("127.0.0.1", port, None), "a", on_change=a, retry_s=FAST) as one:
        await a.until(lambda: one.connected)
        with pytest.raises(LinesideError) as caught:
            await one.publish("t", b"x" * 100)
        assert caught.value.code == "mqtt.away"


async def test_refusals_of_the_broker_are_said_in_words(tmp_path, make_broker):
    acl = tmp_path / "acl"
    acl.write_text("topic read allowed\n")
    broker = await make_broker("allow_anonymous true", f"acl_file {acl}")
    a = Watched()
    async with opened(broker, "a", a, ["allowed"]) as one:
        await a.until(lambda: one.connected)
        with pytest.raises(LinesideError) as caught:
            await one.publish("forbidden", b"x")
        assert caught.value.code == "mqtt.refused"
        assert "Not authorized" in caught.value.what


async def test_a_refused_connection_is_not_connected_and_says_why(make_broker):
    broker = await make_broker("allow_anonymous false")
    a = Watched()
    async with opened(broker, "a", a) as one:
        await a.until(lambda: "refuses the connection" in one.state)
        assert not one.connected
        assert "Not authorized" in one.state


async def test_leaving_while_nobody_listens_leaves_nothing_behind():
    a = Watched()
    async with session(Address("127.0.0.1", free_port(), None), "a", on_change=a, retry_s=FAST) as one:
        await a.until(lambda: "not reached" in one.state)
    assert len(asyncio.all_tasks()) == 1


async def test_nagle_is_off_and_packets_are_bounded(broker):
    a = Watched()
    async with opened(broker, "a", a, ["t"]) as one:
        await a.until(lambda: one.connected)
        assert one._link._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await one.publish("t", b"x" * (PACKET_BYTES_MAX + 1))  # more than we told the broker to deliver
        await one.publish("t", b"small")
        assert (await anext(one)).payload == b"small"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "mqtt.url"),
        ("127.0.0.1:1883", "mqtt.url"),
        ("http://127.0.0.1", "mqtt.url"),
        ("mqtt://", "mqtt.url"),
        ("mqtt://127.0.0.1:99999", "mqtt.url"),
        ("mqtt://u:p@127.0.0.1", "mqtt.url"),
        ("mqtt://[::1", "mqtt.url"),
        ("mqtt://broker.example", "mqtt.plain"),
        ("mqtt://10.0.0.1", "mqtt.plain"),
        ("mqtts://broker.example", "mqtt.ca_missing"),
    ],
)
def test_addresses_that_are_refused(url, code):
    with pytest.raises(LinesideError) as caught:
        read_address(url, None)
    assert caught.value.code == code


def test_addresses_that_are_taken(tmp_path):
    assert read_address("mqtt://localhost", None) == Address("localhost", 1883, None)
    assert read_address("mqtt://[::1]:2000", None) == Address("::1", 2000, None)
    with pytest.raises(LinesideError) as caught:
        read_address("mqtts://broker.example", tmp_path / "no.pem")
    assert caught.value.code == "mqtt.ca"
    (tmp_path / "bad.pem").write_text("no certificate")
    with pytest.raises(LinesideError) as caught:
        read_address("mqtts://broker.example", tmp_path / "bad.pem")
    assert caught.value.code == "mqtt.ca"


def certificates(folder):
    """A CA and a certificate for localhost, as PEM files."""
    now = datetime.now(UTC)

    def certificate(name, key, issuer, issuer_key, extension):
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=True)
            .sign(issuer_key, hashes.SHA256())
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = certificate("ca", ca_key, "ca", ca_key, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    server = certificate("localhost", key, "ca", ca_key, names)
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    (folder / "server.pem").write_bytes(server.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "server.key").write_bytes(pem)


async def test_tls_carries_what_fits_in_no_one_read_and_refuses_a_strangers_broker(tmp_path, make_broker):
    ours, other = tmp_path / "ours", tmp_path / "other"
    for folder in (ours, other):
        folder.mkdir()
        certificates(folder)
    broker = await make_broker(
        "allow_anonymous true",
        f"cafile {ours}/ca.pem",
        f"certfile {ours}/server.pem",
        f"keyfile {ours}/server.key",
    )
    url = f"mqtts://127.0.0.1:{broker.port}"
    a, b = Watched(), Watched()
    async with session(read_address(url, ours / "ca.pem"), "a", subscribe=["t"], on_change=a, retry_s=FAST) as one:
        await a.until(lambda: one.connected)
        payloads = [bytes([n]) * 15_000 for n in range(60)]
        sent = asyncio.gather(*(one.publish("t", payload) for payload in payloads))
        assert [(await anext(one)).payload for _ in payloads] == payloads
        await sent
    async with session(read_address(url, other / "ca.pem"), "b", on_change=b, retry_s=FAST) as two:
        await b.until(lambda: "certificate verify failed" in two.state)
        assert not two.connected
