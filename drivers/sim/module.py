"""The simulated cell processor and filler: modules with services, as variables of an asyncua server.

Their nodes are those that the cell's plant file names for the unit. The commands of `wash` are UInt32, as the standard
says, those of `culture` Int64, as some modules have them; those of the filler, a PackML machine, are Int32.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua
from asyncua.common.callback import ServerItemCallback
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from drivers.sim.control import Faults
from drivers.sim.services import ModuleModel
from edge.core.plant import Tag, Unit
from edge.core.terms import Value

INTEGERS: Final = {"culture": ua.VariantType.Int64, "fill": ua.VariantType.Int32}


def _kind(name: str, tag: Tag) -> ua.VariantType:
    if tag.type == "int":
        return INTEGERS.get(name.partition("_")[0], ua.VariantType.UInt32)
    kinds = {"float": ua.VariantType.Float, "bool": ua.VariantType.Boolean, "text": ua.VariantType.String}
    return kinds[tag.type]


class ServedModule:
    """One unit's services at a server: `build` once, then `pass_s` again and again."""

    def __init__(self, server: Server, name: str, unit: Unit, faults: Faults) -> None:
        self._server, self._name, self._unit, self._faults = server, name, unit, faults
        self.model = ModuleModel(unit)
        faults.services.update({f"{name}.{service}": one for service, one in self.model.services.items()})
        self._nodes: dict[str, ua.NodeId] = {}
        self._tags: dict[ua.NodeId, str] = {}
        states = {one.state for one in unit.services.values()}
        # A state is shown last: whoever sees that a service is completed sees what it then reports.
        self._in_order = sorted(unit.tags.items(), key=lambda item: item[0] in states)
        self._shown: dict[str, tuple[Value, str]] = {}

    async def build(self) -> None:
        """Make the nodes."""
        (namespace,) = {tag.address.removeprefix("nsu=").partition(";")[0] for tag in self._unit.tags.values()}
        space = await self._server.register_namespace(namespace)
        folder = await self._server.nodes.objects.add_object(
            ua.NodeId(ua.String(self._name), ua.Int16(space)), self._name
        )
        for name, tag in self._unit.tags.items():
            node = ua.NodeId(ua.String(tag.address.partition(";s=")[2]), ua.Int16(space))
            value = self.model.read(name)
            assert value is not None, f"{name} belongs to no service"
            variable = await folder.add_variable(node, name, value, varianttype=_kind(name, tag))
            self._nodes[name], self._tags[node] = node, name
            if tag.access == "write":
                await variable.set_writable()

    def after_write(self, event: ServerItemCallback) -> None:
        """Count what was carried out and let it act."""
        if not event.is_external:
            return
        for item, result in zip(event.request_params.NodesToWrite, event.response_params, strict=True):
            name = self._tags.get(item.NodeId)
            if name is not None and item.AttributeId == AttributeIds.Value and result.is_good():
                self._faults.counters[f"{self._name}.{name}"] += 1
                value = item.Value.Value.Value
                self._shown[name] = (value, "")
                self.model.write(name, value)

    async def pass_s(self, elapsed_s: float) -> None:
        """Let process time pass and show what changed."""
        self.model.pass_s(elapsed_s)
        for name, tag in self._in_order:
            full_name = f"{self._name}.{name}"
            value = self.model.read(name)
            shown = (0 if value is None else value, self._faults.bad.get(full_name, ""))
            if shown == self._shown.get(name) or full_name in self._faults.frozen:
                continue
            self._shown[name] = shown
            code = getattr(StatusCodes, shown[1], StatusCodes.Bad) if shown[1] else StatusCodes.Good
            now: Any = datetime.now(UTC)
            await self._server.write_attribute_value(
                self._nodes[name],
                ua.DataValue(ua.Variant(shown[0], _kind(name, tag)), ua.StatusCode(ua.UInt32(code)), now),
            )
