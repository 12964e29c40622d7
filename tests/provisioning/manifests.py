"""Module type packages made by hand, as small as they can be, in the ways in which makers write them."""

from __future__ import annotations

import io
import zipfile

HEAD = '<?xml version="1.0" encoding="utf-8"?><CAEXFile SchemaVersion="2.15">{}</CAEXFile>'
SPACE = "urn:maker:module"


def attribute(name: str, value: str = "", default: str = "", kind: str = "xs:string") -> str:
    inside = f"<DefaultValue>{default}</DefaultValue>" if default else ""
    return f'<Attribute Name="{name}" AttributeDataType="{kind}">{inside}<Value>{value}</Value></Attribute>'


def element(name: str, cls: str, *inside: str, key: str = "") -> str:
    key = f' ID="{key}"' if key else ""
    return f'<InternalElement Name="{name}"{key} RefBaseSystemUnitPath="{cls}">{"".join(inside)}</InternalElement>'


def node(key: str, identifier: str, space: str = SPACE) -> str:
    return (
        f'<ExternalInterface Name="{key}" ID="{key}" RefBaseClassPath="MTPCommunicationICLib/DataItem/OPCUAItem">'
        f"{attribute('Identifier', identifier)}{attribute('Namespace', space)}{attribute('Access', '3')}"
        "</ExternalInterface>"
    )


def link(name: str, key: str, default: str = "") -> str:
    return attribute(name, key, default, "xs:IDREF")


def server(*nodes: str, endpoint: str = "opc.tcp://192.0.2.7:4840", name: str = "PLC") -> str:
    said = attribute("Endpoint", endpoint) if endpoint else ""
    return element(name, "MTPCommunicationSUCLib/ServerAssembly/OPCUAServer", said, *nodes)


def package(servers: str, instances: str, *sets: str) -> str:
    """The hierarchy that every manifest has."""
    communication = element(
        "Communication",
        "MTPSUCLib/CommunicationSet",
        element("Sources", "MTPSUCLib/CommunicationSet/SourceList", servers),
        element("Instances", "MTPSUCLib/CommunicationSet/InstanceList", instances),
    )
    module = element("Mixer", "MTPSUCLib/ModuleTypePackage", attribute("Version", "2.1"), communication, *sets)
    return f'<InstanceHierarchy Name="ModuleTypePackage">{module}</InstanceHierarchy>'


def service_set(uri: str) -> str:
    reference = f'<ExternalInterface Name="Services" ID="r">{attribute("refURI", uri)}</ExternalInterface>'
    return element("Services", "MTPServiceSUCLib/ServiceSet", reference)


def services(*inside: str) -> str:
    return f'<InstanceHierarchy Name="Services" ID="services">{"".join(inside)}</InstanceHierarchy>'


def old_parts(endpoint: str = "opc.tcp://192.0.2.7:4840", uri: str = "SERVICES") -> tuple[str, str]:
    """A mixer of 2018: strategies that name their parameters, `ControlExt`, `OpMode`. Package and services."""
    nodes = [node(f"n{n}", f"Stir.{name}") for n, name in enumerate(("State", "ControlExt", "StrategyExt", "VExt"))]
    control = element(
        "Services.Stir", "MTPServiceSUCLib/ServiceControl", attribute("RefID", "REF-STIR"), link("State", "n0"),
        link("ControlExt", "n1"), link("StrategyExt", "n2"), attribute("OpMode", "0"),
    )  # fmt: skip
    speed = element(
        "Services.Stir.Speed", "MTPDataObjectSUCLib/DataAssembly/ExtAnaOp", attribute("RefID", "ref-speed"),
        link("VExt", "n3", "60"), attribute("VMin", "10"), attribute("VMax", "400.5"), attribute("VUnit", "1085"),
    )  # fmt: skip
    stir = element(
        "Services.Stir",
        "MTPServiceSUCLib/Service",
        attribute("RefID", "ref-stir"),
        element(
            "Gently", "MTPServiceSUCLib/ServiceStrategy", attribute("RequiredParameters", "P-SPEED"),
            attribute("IsSelfCompleting", "False"), attribute("StrategyID", "1"), attribute("IsDefault", "TRUE"),
        ),
        element(
            "Shake", "MTPServiceSUCLib/ServiceStrategy", attribute("RequiredParameters", ""),
            attribute("IsSelfCompleting", "1"), attribute("StrategyID", "16#2"),
        ),
        element(
            "Speed", "MTPServiceSUCLib/ServiceParameter/StrategyParameter", attribute("RefID", "ref-speed"),
            key="p-speed",
        ),
    )  # fmt: skip
    return package(server(*nodes, endpoint=endpoint), control + speed, service_set(uri)), services(stir)


def old(endpoint: str = "opc.tcp://192.0.2.7:4840") -> bytes:
    return HEAD.format("".join(old_parts(endpoint))).encode()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo("x")
            entry.filename, entry.compress_type = name, method  # as it is: with a backslash, or out of the archive
            archive.writestr(entry, data)
    return stream.getvalue()


def split(uri: str = "..\\Services.aml#services") -> bytes:
    """The same mixer in two files, in a zip from a system that writes backslashes."""
    main, parts = old_parts(uri=uri)
    return zipped(
        {
            "MTP\\Manifest.aml": HEAD.format(main).encode(),
            "MTP\\Parts\\Services.aml": HEAD.format(parts).encode(),
            "MTP\\Pictures\\mixer.png": b"\x89PNG",
        }
    )
