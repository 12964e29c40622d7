"""OPC UA at the edge: addresses, settings, status codes, small servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.server.server import Server
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given
from hypothesis import strategies as st

from drivers.opcua import OpcUaDriver, read_node_id
from edge.conformance import Subject, now_s, one_connection, rig
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.terms import Quality
from edge.equipment import Driver, Home, WriteRefused, WriteResult, WriteUnknown

SPACE = "urn:test"
PASSWORD = {"user": "ana", "password_file": "ana.password"}
USER_KEY = {"user_certificate": "ana.der", "user_key": "ana.key"}
PIECES = st.lists(
    st.sampled_from(["ns=", "nsu=", "s=", "i=", "g=", "b=", ";", "2", "-1", "99999999999", "urn:x", "0xzz", "="]),
    max_size=8,
).map("".join)


@given(st.one_of(st.text(max_size=60), PIECES))
def test_any_text_is_a_node_id_or_refused_in_words(text: str) -> None:
    try:
        read_node_id(text)
    except LinesideError as error:
        refusal = error
    else:
        refusal = None
    assert refusal is None or (refusal.code, bool(refusal.todo)) == ("opcua.address", True)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({}, "opcua.settings"),
        ({"endpoint": "opc.tcp://h:4840/", "security": "SignAndEncrypt"}, "opcua.settings"),
        ({"endpoint": "opc.tcp://h:4840/", "security": "Basic128Rsa15"}, "opcua.settings"),
        ({"endpoint": "opc.tcp://h:4840/", "user": "ana"}, "opcua.half_a_user"),
        ({"endpoint": "opc.tcp://h:4840/", "user_key": "k.pem"}, "opcua.half_a_user"),
        ({"endpoint": "opc.tcp://h:4840/", "user": "ana", "password": "correct-horse"}, "opcua.password_in_plant"),
        ({"endpoint": "opc.tcp://h:4840/", **PASSWORD, **USER_KEY}, "opcua.two_users"),
        ({"endpoint": "opc.tcp://h:4840/", "security": "none", **PASSWORD}, "opcua.user_in_clear"),
        ({"endpoint": "opc.tcp://h:4840/", "security": "none", **USER_KEY}, "opcua.user_in_clear"),
        ({"endpoint": "opc.tcp://h:4840/", "server_certificate": "ab" * 32}, "opcua.pin_needs_policy"),
        ({"endpoint": "opc.tcp://h:4840/", "server_certificate": "ab" * 20}, "opcua.fingerprint"),
        ({"endpoint": "opc.tcp://h:4840/", "security": "none", "x": 1}, "opcua.settings"),
        ({"endpoint": "http://h:4840/", "security": "none"}, "opcua.endpoint"),
        ({"endpoint": "opc.tcp://h/", "security": "none"}, "opcua.endpoint"),
        ({"endpoint": "opc.tcp://h:99999/", "security": "none"}, "opcua.endpoint"),
        ({"endpoint": "opc.tcp://me:secret@h:4840/", "security": "none"}, "opcua.endpoint"),
        ({"endpoint": "opc.tcp://[h:4840/", "security": "none"}, "opcua.endpoint"),
    ],
)
async def test_settings_are_refused_in_words(settings: dict[str, object], code: str) -> None:
    plant = one_connection("opcua", settings, "U", {})  # type: ignore[arg-type]
    with pytest.raises(LinesideError) as refusal:
        OpcUaDriver(plant.connections["device"], plant.tags(), now_s=now_s, utc=lambda: "", home=Home())
    assert refusal.value.code == code
    assert "correct-horse" not in str(refusal.value)


@asynccontextmanager
async def server(limit: int = 0) -> AsyncIterator[tuple[Server, int]]:
    made = Server()
    await made.init()
    made.disable_clock()
    made.set_endpoint("opc.tcp://127.0.0.1:0/")
    made.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    await made.register_namespace(SPACE)
    if limit:
        node = ua.NodeId(ua.Int32(ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead))
        await made.get_node(node).write_value(ua.Variant(limit, ua.VariantType.UInt32))
    async with made:
        assert made.bserver is not None
        yield made, made.bserver.port


def plant_at(port: int, **types: str) -> Plant:
    tags = {
        name: {
            "connection": "device",
            "address": f"nsu={SPACE};s={name}",
            "type": kind,
            "access": "write",
            "settle_s": 0.1,
        }
        for name, kind in types.items()
    }
    return one_connection("opcua", {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"}, "U", tags)


async def add(made: Server, name: str, value: object, kind: ua.VariantType) -> ua.NodeId:
    space = await made.get_namespace_index(SPACE)
    node = await made.nodes.objects.add_variable(
        ua.NodeId(ua.String(name), ua.Int16(space)), name, value, varianttype=kind
    )
    await node.set_writable()
    return node.nodeid


async def test_values_are_written_in_the_nodes_own_type() -> None:
    kinds = {
        "single": (1.0, ua.VariantType.Float, "float", 2.1),
        "double": (1.0, ua.VariantType.Double, "float", 2.1),
        "byte": (1, ua.VariantType.Byte, "int", 255),
        "int16": (1, ua.VariantType.Int16, "int", -3),
        "uint32": (1, ua.VariantType.UInt32, "int", 2**32 - 1),
        "int64": (1, ua.VariantType.Int64, "int", -(2**40)),
        "on": (False, ua.VariantType.Boolean, "bool", True),
        "name": ("a", ua.VariantType.String, "text", "b"),
        "level": (1, ua.VariantType.UInt16, "float", 7.0),
    }
    async with server() as (made, port):
        for name, (value, kind, _type, _new) in kinds.items():
            await add(made, name, value, kind)
        plant = plant_at(port, **{name: row[2] for name, row in kinds.items()})
        async with rig(plant) as running:
            await running.until(lambda: all(running.good(tag) for tag in plant.tags()))
            for name, row in kinds.items():
                outcome = await running.equipment.writer(f"U.{name}").write_and_read_back(row[3])  # type: ignore[arg-type]
                assert outcome.result is WriteResult.CONFIRMED, (name, outcome.why)
            for name, wrong in (("byte", 256), ("int16", 2**15), ("uint32", -1), ("level", 7.5), ("single", 1e39)):
                outcome = await running.equipment.writer(f"U.{name}").write_and_read_back(wrong)
                assert outcome.result is WriteResult.REFUSED, (name, outcome.why)
            await only_a_plain_no_is_a_refusal(made, running.equipment._drivers["device"])


async def only_a_plain_no_is_a_refusal(made: Server, driver: Driver) -> None:
    answers = {
        "BadUserAccessDenied": WriteRefused,
        "BadOutOfRange": WriteRefused,
        "BadCommunicationError": WriteUnknown,
        "BadInternalError": WriteUnknown,
        "UncertainInitialValue": WriteUnknown,
    }
    status = ""

    def answer(event: object, _service: object) -> None:
        event.response_params[:] = [ua.StatusCode(ua.UInt32(getattr(StatusCodes, status)))]  # type: ignore[attr-defined]

    made.subscribe_server_callback(CallbackType.PostWrite, answer)
    for status, outcome in answers.items():
        with pytest.raises(outcome, match=status):
            await driver.write("U.double", 2.0)


async def test_status_codes_become_quality_and_times_are_the_sources(reactor: Subject) -> None:
    async with rig(reactor.plant) as made:
        await made.until(lambda: made.good(reactor.measured))
        good = made.equipment.latest(reactor.measured)
        assert good is not None
        assert good.source_utc.endswith("Z")
        await reactor.control.bad_quality(reactor.measured, "UncertainLastUsableValue")
        await made.until(lambda: not made.good(reactor.measured))
        reading = made.equipment.latest(reactor.measured)
        assert reading is not None
        assert (reading.quality, reading.good) == (Quality.UNCERTAIN, False)
        assert "UncertainLastUsableValue" in reading.detail


async def test_what_is_missing_is_said_and_a_small_server_is_read_in_batches() -> None:
    names = [f"n{i}" for i in range(25)]
    sizes: list[int] = []

    def count(event: object, _service: object) -> None:
        sizes.append(len(event.request_params.NodesToRead))  # type: ignore[attr-defined]

    async with server(limit=10) as (made, port):
        await add(made, "x", 1.0, ua.VariantType.Double)
        await add(made, "many", [1.0, 2.0], ua.VariantType.Double)
        async with rig(plant_at(port, x="float", gone="float", many="float")) as running:
            await running.until(lambda: running.good("U.x") and running.bad("U.gone") and running.bad("U.many"))
            gone = running.equipment.latest("U.gone")
            assert gone is not None
            assert "BadNodeIdUnknown" in gone.detail
            outcome = await running.equipment.writer("U.gone").write_and_read_back(1.0)
            assert outcome.result is WriteResult.REFUSED, outcome.why
        tag = plant_at(port, x="float").tags()["U.x"]
        other = one_connection(
            "opcua",
            {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"},
            "U",
            {"x": {**tag.model_dump(), "address": "nsu=urn:other;s=x"}},
        )
        async with rig(other) as running:
            await running.until(lambda: running.bad("U.x"))
            assert "urn:other" in running.equipment.health()["device"].detail

        for name in names:
            await add(made, name, 1.0, ua.VariantType.Double)
        made.subscribe_server_callback(CallbackType.PreRead, count)
        plant = plant_at(port, **dict.fromkeys(names, "float"))
        async with rig(plant) as running:
            await running.until(lambda: all(running.good(tag) for tag in plant.tags()))
            assert max(sizes) == 10


async def test_browsing_finds_addresses_that_can_be_used(reactor: Subject) -> None:
    async with rig(reactor.plant) as made:
        await made.until(lambda: made.good(reactor.measured))
        found = {thing.address: thing for thing in await made.equipment.browse("device")}
        for name, tag in reactor.plant.tags().items():
            assert found[tag.address].writable == (tag.access == "write"), name
            assert found[tag.address].type == "Float"


async def test_a_server_that_is_not_there() -> None:
    plant = one_connection("opcua", {"endpoint": "opc.tcp://127.0.0.1:1/", "security": "none"}, "U", {})
    async with rig(plant) as made:
        await made.until(lambda: made.equipment.health()["device"].detail == "Nobody listens there.")
        with pytest.raises(LinesideError) as refusal:
            await made.equipment.browse("device")
        assert refusal.value.code == "opcua.nobody_listens"
