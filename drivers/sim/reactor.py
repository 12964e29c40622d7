"""The simulated bioreactor: an asyncua server with first-order physics. The cell's modules are at the same server."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from asyncua import ua
from asyncua.common.callback import CallbackType, ServerItemCallback
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.server import Server
from asyncua.server.uaprocessor import UaProcessor
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from drivers.sim.control import Faults, serve_control
from drivers.sim.module import ServedModule
from drivers.sim.physics import Loop, reactor_loops
from edge.core.plant import read_plant

NAMESPACE: Final = "urn:lineside:sim:reactor"
UNIT: Final = "BR-1"
BOLUS: Final = "bolus"
"""A method of the unit: gives so much feed (mL), and answers how much was given in all and how often."""
BOLUS_MAX_ML: Final = 500.0
TICK_S: Final = 0.2
ENCRYPTED: Final = (
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
)
MESSAGE_TYPES_SILENT: Final = frozenset({ua.MessageType.Hello})


# What the device keeps as a 32-bit float; everything else it keeps as a 64-bit one.
SINGLE: Final = frozenset({"agitation"})


def _kind(loop: Loop) -> ua.VariantType:
    return ua.VariantType.Float if loop.name in SINGLE else ua.VariantType.Double


@asynccontextmanager
async def serve_bioreactor(
    host: str, port: int, *, seed: int, speed: float, control: Path, certificate: Path | None = None
) -> AsyncIterator[int]:
    """Serve until left; gives the port (a free one for port 0). `speed` is process seconds per second. With a
    `certificate` (DER; its key beside it, .key) encrypted connections are offered, too."""
    logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)
    loops = reactor_loops()
    names = [f"{UNIT}.{loop.name}" for loop in loops]
    plant = read_plant(files("drivers.sim").joinpath("plant.yaml").read_bytes(), "plant.yaml")
    modules = {name: unit for name, unit in plant.units.items() if unit.services}
    tags = {f"{name}.{tag}": one.access for name, unit in modules.items() for tag, one in unit.tags.items()}
    written = (
        [f"{name}_setpoint" for name in names]
        + [f"{UNIT}.{BOLUS}"]
        + [name for name, access in tags.items() if access == "write"]
    )
    faults = Faults([*names, *tags], written)
    server = _GatedServer(faults)
    await server.init()
    server.disable_clock()
    server.set_endpoint(f"opc.tcp://{host}:{port}/")
    server.set_server_name("Simulated bioreactor")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity, *(ENCRYPTED if certificate else ())])
    if certificate:
        await server.load_certificate(certificate)
        await server.load_private_key(certificate.with_suffix(".key"), format="pem")
    reactor = _Reactor(server, loops, faults, random.Random(seed), speed)
    await reactor.build()
    served = [ServedModule(server, name, unit, faults) for name, unit in modules.items()]
    for module in served:
        await module.build()

    def after_write(event: ServerItemCallback, _service: object) -> None:
        reactor.after_write(event)
        for one in served:
            one.after_write(event)

    server.subscribe_server_callback(CallbackType.PostWrite, after_write)  # asyncua keeps one listener, the last
    async with server, serve_control(control, faults):
        assert server.bserver is not None
        ticking = asyncio.create_task(reactor.run(served), name="physics")
        try:
            yield server.bserver.port
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)


def _now() -> Any:
    """The time as asyncua wants it: its own type says less than it accepts."""
    return datetime.now(UTC)


class _Reactor:
    def __init__(self, server: Server, loops: list[Loop], faults: Faults, noise: random.Random, speed: float) -> None:
        self._server, self._loops, self._faults, self._noise, self._speed = server, loops, faults, noise, speed
        self._nodes: dict[str, ua.NodeId] = {}
        self._names: dict[ua.NodeId, str] = {}
        self._shown: dict[str, str] = {}
        self._given_ml = 0.0

    async def build(self) -> None:
        """Make the nodes and listen to writes."""
        space = await self._server.register_namespace(NAMESPACE)
        folder = await self._server.nodes.objects.add_object(ua.NodeId(ua.String(UNIT), ua.Int16(space)), UNIT)
        for loop in self._loops:
            for name, value in ((loop.name, loop.value), (f"{loop.name}_setpoint", loop.setpoint)):
                node = ua.NodeId(ua.String(name), ua.Int16(space))
                variable = await folder.add_variable(node, name, value, varianttype=_kind(loop))
                self._nodes[name], self._names[node] = node, name
                if name.endswith("_setpoint"):
                    await variable.set_writable()
        node = ua.NodeId(ua.String(BOLUS), ua.Int16(space))
        kinds = [ua.VariantType.Float], [ua.VariantType.Double, ua.VariantType.UInt32]
        await folder.add_method(node, ua.QualifiedName(BOLUS, ua.UInt16(space)), self._bolus, *kinds)
        self._server.subscribe_server_callback(CallbackType.PreWrite, self._before_write)

    async def _bolus(self, _parent: ua.NodeId, volume: ua.Variant) -> list[ua.Variant] | ua.StatusCode:
        """Give a bolus, and count it."""
        tag = f"{UNIT}.{BOLUS}"
        if tag in self._faults.bad or not 0 < volume.Value <= BOLUS_MAX_ML:
            status = self._faults.bad.get(tag, "BadOutOfRange")
            return ua.StatusCode(ua.UInt32(getattr(StatusCodes, status, StatusCodes.Bad)))
        self._faults.counters[tag] += 1
        self._given_ml += volume.Value
        return [
            ua.Variant(self._given_ml, ua.VariantType.Double),
            ua.Variant(self._faults.counters[tag], ua.VariantType.UInt32),
        ]

    def _before_write(self, event: ServerItemCallback, _service: object) -> None:
        """A write from outside: clamp or freeze it without a word, and give it a time."""
        if not event.is_external:
            return
        for item in event.request_params.NodesToWrite:
            name = self._names.get(item.NodeId)
            loop = self._loop_of(name)
            if name is None or loop is None or item.AttributeId != AttributeIds.Value:
                continue
            variant, tag = item.Value.Value, f"{UNIT}.{name}"
            if isinstance(variant.Value, float):
                wanted = loop.setpoint if tag in self._faults.frozen else self._faults.limited(tag, variant.Value)
                variant = ua.Variant(wanted, variant.VariantType)
            item.Value = ua.DataValue(variant, SourceTimestamp=_now())

    def after_write(self, event: ServerItemCallback) -> None:
        """Count what was carried out and let it act."""
        if not event.is_external:
            return
        for item, result in zip(event.request_params.NodesToWrite, event.response_params, strict=True):
            name = self._names.get(item.NodeId)
            loop = self._loop_of(name)
            if name is not None and loop is not None and result.is_good():
                self._faults.counters[f"{UNIT}.{name}"] += 1
                loop.setpoint = float(item.Value.Value.Value)
                self._shown[name] = ""

    def _loop_of(self, name: str | None) -> Loop | None:
        if name is None or not name.endswith("_setpoint"):
            return None
        return next(loop for loop in self._loops if name == f"{loop.name}_setpoint")

    async def run(self, modules: Sequence[ServedModule]) -> None:
        """Let process time pass and show it, until cancelled; that of the modules at the same server, too."""
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            elapsed_s, last_s = (now_s - last_s) * self._speed, now_s
            for module in modules:
                await module.pass_s(elapsed_s)
            for loop in self._loops:
                loop.pass_s(elapsed_s)
                shown = loop.value + self._noise.gauss(0.0, loop.noise) if loop.value or loop.setpoint else 0.0
                await self._show(loop.name, max(shown, 0.0), _kind(loop), always=True)
                await self._show(f"{loop.name}_setpoint", loop.setpoint, _kind(loop), always=False)

    async def _show(self, name: str, value: float, kind: ua.VariantType, *, always: bool) -> None:
        tag = f"{UNIT}.{name}"
        status = self._faults.bad.get(tag, "")
        changed = status != self._shown.get(name, "")
        if (tag in self._faults.frozen or not always) and not changed:
            return
        self._shown[name] = status
        code = getattr(StatusCodes, status, StatusCodes.Bad) if status else StatusCodes.Good
        await self._server.write_attribute_value(
            self._nodes[name],
            ua.DataValue(ua.Variant(value, kind), ua.StatusCode(ua.UInt32(code)), _now()),
        )


class _GatedServer(Server):
    """An asyncua server that can be told not to answer."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    async def start(self) -> None:
        """As the library does, but with connections that pass the gate."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = _GatedBinaryServer(self.iserver, host or "127.0.0.1", port or 0, self.limits)
        self.bserver.faults = self._faults
        self.bserver.set_policies(self._policies)
        try:
            await self.bserver.start()
        except OSError:
            await self.iserver.stop()
            raise


class _GatedBinaryServer(BinaryServer):
    faults: Faults

    def _make_protocol(self) -> OPCUAProtocol:
        protocol = _GatedProtocol(self.iserver, self._policies, self.clients, self.closing_tasks, self.limits)
        protocol.faults = self.faults
        return protocol


class _GatedProtocol(OPCUAProtocol):
    faults: Faults

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.processor is not None:
            self.processor = _GatedProcessor(self.iserver, self.transport, self.limits)
            self.processor.faults = self.faults
            self.processor.set_policies(self.policies)  # type: ignore[no-untyped-call]


class _GatedProcessor(UaProcessor):
    """Carries requests out, but keeps answers back: before they are numbered, so that later ones stay valid."""

    faults: Faults

    def send_response(
        self, requesthandle: Any, seqhdr: Any, response: Any, msgtype: Any = ua.MessageType.SecureMessage
    ) -> None:
        acted = isinstance(response, ua.WriteResponse | ua.CallResponse)
        if self.faults.silent or (acted and self.faults.drop_this_reply()):
            return
        super().send_response(requesthandle, seqhdr, response, msgtype)  # type: ignore[no-untyped-call]

    async def process(self, header: Any, body: Any) -> bool:
        if self.faults.silent and header.MessageType in MESSAGE_TYPES_SILENT:
            return True
        return bool(await super().process(header, body))  # type: ignore[no-untyped-call]
