"""The module type package of a simulated module: what a maker would give with it, in the names of VDI/VDE/NAMUR 2658
of 2022."""

from __future__ import annotations

import io
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from drivers.sim.cell import plant_bytes
from edge.core.errors import LinesideError
from edge.core.plant import Procedure, Tag, Unit, UnitService, read_plant

UNIT: Final = "CP-1"
UNIT_CODES: Final[Mapping[str, int]] = {
    "": 1997, "degC": 1001, "mL": 1040, "L": 1038, "%": 1342, "kg": 1088, "g": 1089, "min": 1058, "1e6/mL": 32_001,
}  # fmt: skip
"""The codes of its units; for `1e6/mL` there is none, so this module has its own."""
_ASSEMBLY: Final = "MTPDataObjectSUCLib/DataAssembly"
_ITEM: Final = "MTPCommunicationICLib/DataItem/OPCUAItem"
_PARAMETERS: Final = {
    "float": "AnaServParam",
    "int": "DIntServParam",
    "bool": "BinServParam",
    "text": "StringServParam",
}
_VIEWS: Final = {"float": "AnaView", "int": "DIntView", "bool": "BinView", "text": "StringView"}
_CONTROL: Final = {
    "state": "StateCur", "command": "CommandExt", "enabled": "CommandEn", "automatic": "StateAutAct",
    "external": "SrcExtAct", "procedure": "ProcedureExt", "to_automatic": "StateAutOp", "to_external": "SrcExtOp",
    "mode": "OpMode",
}  # fmt: skip
# So that the same module always gives the same file.
_SPACE: Final = uuid.UUID("6f0f2c0e-6b8e-5c57-9c55-3d1f5a0b6d11")


def manifest(name: str, unit: Unit, endpoint: str) -> bytes:
    """The manifest of a unit's MTP services, as AutomationML."""
    made = _Manifest(name, unit)
    services = "".join(made.service(key, service) for key, service in unit.services.items() if service.kind == "mtp")
    instances, items = "".join(made.instances), "".join(made.items)
    server = _element(
        "Server", "MTPCommunicationSUCLib/ServerAssembly/OPCUAServer", _said("Endpoint", endpoint) + items
    )
    communication = _element(
        "Communication",
        "MTPSUCLib/CommunicationSet",
        _element("Sources", "MTPSUCLib/CommunicationSet/SourceList", server)
        + _element("Instances", "MTPSUCLib/CommunicationSet/InstanceList", instances),
    )
    reference = '<ExternalInterface Name="Services" ID="r1" RefBaseClassPath="ExternalDataConnector">'
    reference += f"{_said('refURI', 'services')}</ExternalInterface>"
    package = _element(
        unit.title or name,
        "MTPSUCLib/ModuleTypePackage",
        _said("Version", "1.0.0") + communication + _element("Services", "MTPServiceSUCLib/ServiceSet", reference),
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<CAEXFile xmlns="http://www.dke.de/CAEX" SchemaVersion="3.0" FileName={quoteattr(f"{name}.aml")}>'
        f'<InstanceHierarchy Name="ModuleTypePackage">{package}</InstanceHierarchy>'
        f'<InstanceHierarchy Name="Services" ID="services">{services}</InstanceHierarchy></CAEXFile>\n'
    ).encode()


class _Manifest:
    def __init__(self, name: str, unit: Unit) -> None:
        self._name, self._unit = name, unit
        self.items: list[str] = []
        self.instances: list[str] = []

    def _id(self, of: str) -> str:
        return str(uuid.uuid5(_SPACE, f"{self._name}/{of}"))

    def _link(self, attribute: str, tag: str) -> str:
        """An attribute of a data object that is a node of the server."""
        bound = self._unit.tags[tag]
        space, _, identifier = bound.address.removeprefix("nsu=").partition(";s=")
        key, access = self._id(f"item {tag}"), 3 if bound.access == "write" else 1
        self.items.append(
            f'<ExternalInterface Name={quoteattr(tag)} ID="{key}" RefBaseClassPath="{_ITEM}">'
            f"{_said('Identifier', identifier)}{_said('Namespace', space)}{_said('Access', str(access))}"
            "</ExternalInterface>"
        )
        return _said(attribute, key, "xs:IDREF")

    def _object(self, of: str, cls: str, inside: str) -> str:
        """A data object; returns its RefID."""
        ref = self._id(f"object {of}")
        texts = _said("TagName", of) + _said("RefID", ref)
        self.instances.append(_element(of, f"{_ASSEMBLY}/{cls}", texts + inside))
        return ref

    def service(self, name: str, service: UnitService) -> str:
        nodes = "".join(
            self._link(attribute, tag)
            for key, attribute in _CONTROL.items()
            if (tag := getattr(service, key)) is not None
        )
        nodes += "".join(self._link("ProcParamApplyExt", tag) for tag in dict.fromkeys(service.applied_by.values()))
        control = self._object(name, "ServiceElement/ServiceControl", nodes + _said("TagDescription", service.title))
        parameters = {
            key: self._parameter(name, key, tag, service.in_force.get(key)) for key, tag in service.parameters.items()
        }
        reports = "".join(self._report(name, key, tag) for key, tag in service.reports.items())
        procedures = "".join(
            self._procedure(name, key, one, parameters, reports) for key, one in service.procedures.items()
        )
        return _element(name, "MTPServiceSUCLib/Service", _said("RefID", control) + procedures)

    def _procedure(
        self, service: str, name: str, procedure: Procedure, parameters: Mapping[str, str], reports: str
    ) -> str:
        ref = self._object(f"{service}.{name}", "ServiceElement/ProcedureHealthView", "")
        used = parameters if procedure.parameters is None else procedure.parameters
        return _element(
            name,
            "MTPServiceSUCLib/Service/Procedure",
            _said("ProcedureID", str(procedure.id))
            + _said("IsSelfCompleting", str(procedure.self_completing).lower())
            + _said("IsDefault", str(procedure.id == 1).lower())
            + _said("RefID", ref)
            + "".join(parameters[one] for one in used)
            + reports,
        )

    def _parameter(self, service: str, name: str, tag: str, in_force: str | None) -> str:
        bound = self._unit.tags[tag]
        ends = _said("VMin", _number(bound.low)) + _said("VMax", _number(bound.high))
        inside = self._link("VExt", tag) + ends + _unit(bound) + (self._link("VOut", in_force) if in_force else "")
        ref = self._object(f"{service}.{name}", f"ParameterElement/{_PARAMETERS[bound.type]}", inside)
        return _element(name, "MTPServiceSUCLib/ServiceParameter/ProcedureParameter", _said("RefID", ref))

    def _report(self, service: str, name: str, tag: str) -> str:
        bound = self._unit.tags[tag]
        ends = _said("VSclMin", _number(bound.low)) + _said("VSclMax", _number(bound.high))
        inside = self._link("V", tag) + ends + _unit(bound)
        ref = self._object(f"{service}.{name}", f"IndicatorElement/{_VIEWS[bound.type]}", inside)
        return _element(name, "MTPServiceSUCLib/ServiceParameter/ReportValue", _said("RefID", ref))


def _unit(tag: Tag) -> str:
    return _said("VUnit", str(UNIT_CODES[tag.unit]))


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def _said(name: str, value: str, value_type: str = "xs:string") -> str:
    return f'<Attribute Name="{name}" AttributeDataType="{value_type}"><Value>{escape(value)}</Value></Attribute>'


def _element(name: str, cls: str, inside: str) -> str:
    return (
        f'<InternalElement Name={quoteattr(name)} ID="{uuid.uuid5(_SPACE, name + cls + inside)}" '
        f'RefBaseSystemUnitPath="{cls}">{inside}</InternalElement>'
    )


def write_package(file: Path, endpoint: str) -> None:
    """Write the package of the simulated cell processor. Raises `sim.cannot_write`."""
    unit = read_plant(plant_bytes(), "plant.yaml").units[UNIT]
    data = manifest(UNIT, unit, endpoint)
    if file.suffix != ".aml":
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("manifest.aml", data)
        data = stream.getvalue()
    try:
        file.write_bytes(data)
    except OSError as error:
        raise LinesideError(
            "sim.cannot_write",
            f"{file} cannot be written: {error.strerror}.",
            todo="Name a file in a folder that exists and that you may write to.",
        ) from error
