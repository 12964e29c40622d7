"""Module type packages (VDI/VDE/NAMUR 2658): what a module's maker says of its services, read from AutomationML.

A package is a zip with one or several .aml files, or one such file by itself. Makers follow several states of the
guideline: `ServiceStrategy` and `ServiceProcedure` and `Procedure` are one thing, as are `State`, `CurrentState` and
`StateCur`. All of them are read. What a class is called at its end decides; a class of a maker's own counts as the one
it is derived from. Data objects belong to services by the same `RefID`, their values to nodes of a server by its `ID`.

Everything is bounded before it is unpacked or parsed, and nothing is written to the disk.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Final, Literal

from edge.core.errors import LinesideError, Place
from edge.exchange.markup import BYTES_MAX, Node, read_markup

PACKAGE_BYTES_MAX: Final = 16 * 1024 * 1024
ENTRIES_MAX: Final = 1_000
UNPACKED_BYTES_MAX: Final = 2 * BYTES_MAX
ADDRESS_MAX: Final = 200
_ENTRY: Final = b"PK\x01\x02"
_NOT_READABLE: Final = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError, OverflowError,
    IndexError,
)  # fmt: skip
"""What the library raises for a broken archive."""
# Controls, line ends and what reorders text: no plant file takes them.
_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]+")

# The unit codes that VDI/VDE/NAMUR 2658-3 takes over from fieldbuses, where Lineside has the unit.
UNITS: Final[Mapping[int, str]] = {
    1000: "K", 1001: "degC", 1002: "degF", 1010: "m", 1012: "cm", 1013: "mm", 1014: "um", 1034: "m3", 1035: "L",
    1036: "mL", 1037: "uL", 1038: "L", 1040: "mL", 1054: "s", 1058: "min", 1059: "h", 1060: "d", 1061: "m/s",
    1083: "1/min", 1085: "rpm", 1088: "kg", 1089: "g", 1090: "mg", 1097: "g/L", 1105: "g/L", 1130: "Pa", 1133: "kPa",
    1136: "mbar", 1137: "bar", 1138: "mbar", 1141: "psi", 1186: "W", 1190: "kW", 1209: "A", 1211: "mA", 1240: "V",
    1243: "mV", 1319: "g/min", 1320: "g/h", 1324: "kg/h", 1342: "%", 1349: "m3/h", 1352: "L/min", 1353: "L/h",
    1422: "pH", 1997: "",
}  # fmt: skip
REST: Final = "Everything else of the module is taken over."
PLAIN: Final = 1997
"""A plain number."""

Kind = Literal["parameter", "configuration", "report", "out", "in"]
ValueType = Literal["float", "int", "bool", "text"]
_CLASSES: Final[Mapping[str, str]] = {
    "ModuleTypePackage": "package", "OPCUAServer": "server", "OPCUAItem": "item", "Service": "service",
    "ServiceControl": "control", "ServiceProcedure": "procedure", "ServiceStrategy": "procedure",
    "Procedure": "procedure", "ServiceParameter": "parameter", "ProcedureParameter": "parameter",
    "StrategyParameter": "parameter", "ConfigurationParameter": "configuration", "ReportValue": "report",
    "ProcessValueOut": "out", "ProcessValueIn": "in", "ServiceSet": "services", "ProcedureHealthView": "health",
}  # fmt: skip
_DATA: Final = re.compile(r"(?:Adv|Ext|Int|Serv|Strategy)*(Ana|DInt|Dig|Bin|String|Str)([A-Z][A-Za-z]*)")
_TYPES: Final[Mapping[str, ValueType]] = {
    "Ana": "float", "DInt": "int", "Dig": "int", "Bin": "bool", "String": "text", "Str": "text",
}  # fmt: skip
_CONTROL: Final[Mapping[str, tuple[str, ...]]] = {
    "state": ("StateCur", "CurrentState", "State"),
    "command": ("CommandExt", "ControlExt"),
    "enabled": ("CommandEn", "CommandEnable", "ControlEnable"),
    "automatic": ("StateAutAct",),
    "external": ("SrcExtAct",),
    "procedure": ("ProcedureExt", "StrategyExt"),
    "procedure_asked": ("ProcedureReq",),
    "to_automatic": ("StateAutOp",),
    "to_external": ("SrcExtOp",),
    "mode": ("OpMode",),
    "apply": ("ProcParamApplyExt",),
    "apply_configuration": ("ConfigParamApplyExt",),
}
"""What a service needs -> the attribute of its control, newest name first."""


@dataclass(frozen=True, slots=True)
class Item:
    """A node of one of the module's servers."""

    server: str
    address: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A value of a module: where it stands, its type, unit and range. `unit` is None when nothing says it."""

    name: str
    title: str
    type: ValueType
    node: Item
    asked: Item | None = None
    """Where the module shows what was asked for, of a value that is written."""
    apply: Item | None = None
    """What makes this one value take effect, where the module wants that."""
    in_force: Item | None = None
    """Where the module shows the value that is in force, of a value that is written."""
    kind: Kind = "report"
    unit: str | None = ""
    unit_code: int | None = None
    low: float | None = None
    high: float | None = None
    told: Mapping[str, Item] = field(default_factory=dict)
    """What only the running module tells: `unit`, `low`, `high`, each with its node."""
    default: str = ""

    @property
    def fixed(self) -> bool:
        """The range stands in the manifest; else it is only what the module's nodes have at first."""
        return not {"low", "high"} & set(self.told)


@dataclass(frozen=True, slots=True)
class Procedure:
    """One way to run a service."""

    name: str
    title: str
    id: int
    self_completing: bool
    is_default: bool
    parameters: tuple[str, ...] | None
    """Names of the service's parameters that it uses; all of them when the manifest does not say."""


@dataclass(frozen=True, slots=True)
class ModuleService:
    """One service: the nodes of its control by what they are for, its procedures, and its values."""

    name: str
    title: str
    nodes: Mapping[str, Item]
    procedures: tuple[Procedure, ...]
    values: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A module as its maker describes it. `findings` say line by line what could not be taken over."""

    name: str
    version: str
    files: tuple[str, ...]
    servers: Mapping[str, str]
    """Server -> its endpoint as the manifest has it, "" without one."""
    services: tuple[ModuleService, ...]
    views: tuple[Measured, ...]
    """What the module shows outside of its services."""
    findings: tuple[LinesideError, ...]


def read_manifest(data: bytes, name: str, units: Mapping[int, str] | None = None) -> Manifest:
    """Read a package or one manifest. `units` adds to or overrules the table of unit codes. Raises `mtp.*`."""
    files = dict(_unpacked(data, name)) if data[:2] == b"PK" else {name: data}
    roots: dict[str, Node] = {}
    for file, raw in files.items():
        root = _parsed(raw, file)
        if root.name == "CAEXFile":
            roots[file] = root
    if not roots:
        raise LinesideError(
            "mtp.no_manifest",
            "No file of the package is AutomationML (CAEX).",
            todo="Give the module's MTP: a .mtp or .zip, or the .aml manifest in it.",
            place=Place(name),
        )
    return _Reader(roots, {**UNITS, **(units or {})}, name).manifest()


# The archive -----------------------------------------------------------------------------------------------------


def _unpacked(data: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    """The .aml and .xml files of the archive, in memory."""
    if len(data) > PACKAGE_BYTES_MAX or data.count(_ENTRY) > ENTRIES_MAX:
        raise _too_large(name, f"is larger than {PACKAGE_BYTES_MAX // 1024**2} MiB or has over {ENTRIES_MAX} files")
    left = UNPACKED_BYTES_MAX
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                path = entry.filename.replace("\\", "/")
                if path.endswith("/"):
                    continue
                if path.startswith("/") or ":" in path or ".." in PurePosixPath(path).parts:
                    raise LinesideError(
                        "mtp.zip_path",
                        f"The package names a file outside of itself: {_plain(entry.filename)!r}.",
                        todo="Do not use it. Ask the module's maker for a sound package.",
                        place=Place(name),
                    )
                if PurePosixPath(path).suffix.lower() not in {".aml", ".xml"}:
                    continue
                if path in seen or entry.flag_bits & 1 or entry.compress_type not in {0, 8}:
                    raise _broken(name, f"{_plain(path)!r} is in it twice, encrypted, or packed in an unusual way")
                seen.add(path)
                with archive.open(entry) as stream:
                    raw = stream.read(min(left, BYTES_MAX) + 1)
                left -= len(raw)
                if left < 0 or len(raw) > BYTES_MAX:
                    raise _too_large(name, f"unpacks to more than {BYTES_MAX // 1024**2} MiB")
                yield path, raw
    except _NOT_READABLE as error:
        raise _broken(name, _plain(str(error)) or type(error).__name__) from error


def _too_large(name: str, why: str) -> LinesideError:
    return LinesideError(
        "mtp.too_large",
        f"The package {why}.",
        todo="Look whether it is the right file.",
        place=Place(name),
    )


def _broken(name: str, why: str) -> LinesideError:
    return LinesideError(
        "mtp.zip",
        f"The package cannot be unpacked: {why}.",
        todo="Fetch it again from the module's maker, or unpack it yourself and give the .aml manifest.",
        place=Place(name),
    )


def _parsed(raw: bytes, file: str) -> Node:
    try:
        return read_markup(raw)[1]
    except LinesideError as error:
        if error.code == "exchange.doctype":
            raise LinesideError(
                "mtp.doctype",
                "The manifest declares a document type or an entity. An MTP needs neither, and either can hide what"
                " is meant.",
                todo="Ask the module's maker for a manifest without it.",
                place=Place(file),
            ) from error
        if error.code in {"exchange.too_large", "exchange.too_deep"}:
            raise LinesideError("mtp.too_large", error.what, todo=error.todo, place=Place(file)) from error
        raise LinesideError(
            "mtp.xml", error.what, todo="Fetch it again from the module's maker.", place=Place(file)
        ) from error


# The manifest ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Attribute:
    value: str
    default: str
    type: str


@dataclass(slots=True)
class _Element:
    """An InternalElement of any file."""

    name: str
    id: str
    cls: str
    """What its class is called, or the class of the guideline that it is derived from."""
    attributes: dict[str, _Attribute]
    children: list[_Element] = field(default_factory=list)

    def said(self, name: str) -> str:
        attribute = self.attributes.get(name)
        return attribute.value or attribute.default if attribute else ""

    @property
    def ref(self) -> str:
        return self.said("RefID").casefold()

    @property
    def kind(self) -> str:
        return _CLASSES.get(self.cls, "")


class _Reader:
    def __init__(self, roots: Mapping[str, Node], units: Mapping[int, str], name: str) -> None:
        self._roots, self._units, self._file = roots, units, name
        self._bases = dict(_bases(roots.values()))
        self._items: dict[str, Item] = {}
        self._servers: dict[str, str] = {}
        self._findings: list[LinesideError] = []
        self._elements: list[_Element] = []
        for root in roots.values():
            for hierarchy in root.all("InstanceHierarchy"):
                self._elements += [self._element(child) for child in hierarchy.all("InternalElement")]
        self._objects: dict[str, list[_Element]] = {}
        for element in self._all():
            if (element.ref and _type_of(element.cls)) or element.kind in {"control", "health"}:
                self._objects.setdefault(element.ref, []).append(element)

    def manifest(self) -> Manifest:
        packages = [one for one in self._all() if one.kind == "package"]
        if not packages:
            raise LinesideError(
                "mtp.no_manifest",
                "The file is AutomationML, but describes no module: it has no ModuleTypePackage.",
                todo="Give the whole package: its manifest may be in another file of it.",
                place=Place(self._file),
            )
        self._look_for_parts()
        found = [one for one in self._all() if one.kind == "service"]
        used: set[int] = set()
        names = _names(
            [self._title_of(one, "control") or one.name for one in found], [one.name for one in found], "service"
        )
        services = [
            service for one, name in zip(found, names, strict=True) if (service := self._service(one, name, used))
        ]
        views = [one for one in self._all() if _is_view(one.cls) and id(one) not in used]
        shown = [
            view
            for one, name in zip(views, _names([one.name for one in views], None, "view"), strict=True)
            if (view := self._measured(one, name, _plain(one.said("TagName")), "report"))
        ]
        package = packages[0]
        if not services and not shown:
            raise LinesideError(
                "mtp.nothing",
                f"Nothing of the module {_plain(package.name)!r} can be used.",
                todo="; ".join(one.what for one in self._findings[:5]) or "It offers no service and shows no value.",
                place=Place(self._file),
                others=tuple(self._findings),
            )
        if not services:
            self._findings.append(
                LinesideError(
                    "mtp.no_services",
                    "The module offers no service: what it shows can be read, no more.",
                    effect=REST,
                    todo="Look whether the package is whole: the services may be in a file of their own.",
                )
            )
        return Manifest(
            _plain(package.name) or "module",
            _plain(package.said("Version")),
            tuple(self._roots),
            self._servers,
            tuple(services),
            tuple(shown),
            tuple(self._findings),
        )

    def _all(self, inside: Sequence[_Element] | None = None) -> Iterator[_Element]:
        for element in self._elements if inside is None else inside:
            yield element
            yield from self._all(element.children)

    # Elements, items, classes

    def _element(self, node: Node, server: str = "") -> _Element:
        made = _Element(
            node.attributes.get("Name", ""),
            node.attributes.get("ID", "").casefold(),
            self._class_of(node.attributes.get("RefBaseSystemUnitPath", "")),
            {
                one.attributes.get("Name", ""): _Attribute(
                    one.said("Value"), one.said("DefaultValue"), one.attributes.get("AttributeDataType", "")
                )
                for one in node.all("Attribute")
            },
        )
        if made.kind == "server":
            server = made.name
            self._servers[server] = made.said("Endpoint") or made.said("ServerURL") or made.said("URL")
        if server:
            for interface in node.all("ExternalInterface"):
                self._take_item(interface, server)
        made.children = [self._element(child, server) for child in node.all("InternalElement")]
        return made

    def _take_item(self, node: Node, server: str) -> None:
        if _CLASSES.get(self._class_of(node.attributes.get("RefBaseClassPath", ""))) != "item":
            return
        said = {one.attributes.get("Name", ""): one.said("Value") for one in node.all("Attribute")}
        address, key = _address(said.get("Namespace", ""), said.get("Identifier", "")), node.attributes.get("ID", "")
        if not address or not key:
            name = _plain(node.attributes.get("Name", ""))
            self._findings.append(
                LinesideError(
                    "mtp.address",
                    f"The node {name!r} has no address that a plant file could hold.",
                    effect=REST,
                    todo="Ask the module's maker for its namespace and identifier, and write the tag by hand.",
                )
            )
            return
        item = Item(server, address)
        if self._items.setdefault(key.casefold(), item) != item:
            raise LinesideError(
                "mtp.ambiguous",
                f"Two nodes have the ID {_plain(key)!r}: {item.address!r} and"
                f" {self._items[key.casefold()].address!r}. Which one is meant is not sure.",
                todo="Ask the module's maker for a sound manifest.",
                place=Place(self._file),
            )

    def _class_of(self, path: str) -> str:
        """What a class is called; for one of a maker's own that of the guideline from which it is derived."""
        for _ in range(16):
            name = path.rpartition("/")[2].rpartition("@")[2]
            if name in _CLASSES or _type_of(name) or path not in self._bases:
                return name
            path = self._bases[path]
        return ""

    # What the manifest refers to

    def _look_for_parts(self) -> None:
        """Say which parts of a split manifest are missing."""
        known = {
            hierarchy.attributes.get("ID", "").casefold()
            for root in self._roots.values()
            for hierarchy in root.all("InstanceHierarchy")
        }
        for root in self._roots.values():
            for hierarchy in root.all("InstanceHierarchy"):
                for node in _within(hierarchy):
                    if self._class_of(node.attributes.get("RefBaseSystemUnitPath", "")) != "ServiceSet":
                        continue
                    for uri in _uris(node):
                        if not self._is_there(uri, known):
                            self._findings.append(
                                LinesideError(
                                    "mtp.missing_part",
                                    f"The services are described in {_plain(uri)!r}, which is not in the package.",
                                    effect=REST,
                                    todo="Give the whole package, with all .aml files.",
                                )
                            )

    def _is_there(self, uri: str, known: set[str]) -> bool:
        path, _, fragment = uri.replace("\\", "/").partition("#")
        if uri.casefold() in known or (fragment and fragment.casefold() in known):
            return True
        name = PurePosixPath(path.removeprefix("file://")).name.casefold()
        return any(PurePosixPath(file).name.casefold() == name for file in self._roots)

    def _object(self, ref: str, kind: str) -> _Element | None:
        """The data object with this RefID: of a service its control, else a value."""
        fits = [one for one in self._objects.get(ref, ()) if (one.kind == kind if kind else _type_of(one.cls))]
        return fits[0] if ref and len(fits) == 1 else None

    def _title_of(self, element: _Element, kind: str) -> str:
        known = self._object(element.ref, kind)
        return _plain(known.said("TagName")) if known else ""

    def _node(self, element: _Element, *names: str) -> Item | None:
        """The node of the first of these attributes that has one."""
        for name in names:
            attribute = element.attributes.get(name)
            if attribute is not None and (item := self._items.get(attribute.value.casefold())) is not None:
                return item
        return None

    def _number(self, element: _Element, name: str) -> float | None:
        """A number of a data object; of one that the running module tells, what it is at first."""
        attribute = element.attributes.get(name)
        if attribute is None:
            return None
        return _number(attribute.default if self._node(element, name) else attribute.value or attribute.default)

    # Services

    def _service(self, element: _Element, name: str, used: set[int]) -> ModuleService | None:
        control = self._object(element.ref, "control")
        if control is None:
            self._findings.append(
                LinesideError(
                    "mtp.service",
                    f"The service {name} is left out: no data object, or more than one, is its ServiceControl.",
                    effect=REST,
                    todo="Ask the module's maker for a sound manifest.",
                )
            )
            return None
        nodes = {key: item for key, names in _CONTROL.items() if (item := self._node(control, *names)) is not None}
        missing = [" or ".join(_CONTROL[key]) for key in ("state", "command") if key not in nodes]
        if missing:
            self._findings.append(
                LinesideError(
                    "mtp.service",
                    f"The service {name} is left out: it has no node for {' and '.join(missing)}.",
                    effect=REST,
                    todo="Ask the module's maker for a sound manifest.",
                )
            )
            return None
        if "mode" not in nodes and ("automatic" not in nodes or "external" not in nodes):
            self._findings.append(
                LinesideError(
                    "mtp.mode",
                    f"Whether the service {name} is in automatic, and told from outside what to do, cannot be seen.",
                    effect=REST,
                    todo="Switch it by hand before a batch; a command that it ignores asks a person.",
                )
            )
        for key, said in (("apply", "ProcParamApply"), ("apply_configuration", "ConfigParamApply")):
            if key not in nodes and any(f"{said}{source}" in control.attributes for source in ("Ext", "Op", "Int")):
                self._findings.append(
                    LinesideError(
                        "mtp.apply",
                        f"The service {name} has {said}, and no node through which a box could set it: parameters are"
                        " to be taken over at the start.",
                        effect=REST,
                        todo="Try it once with a value that shows, before patients depend on it.",
                    )
                )
        values, ids = self._values(element, name, used)
        procedures = tuple(self._procedures(element, name, ids))
        if not procedures:
            self._findings.append(
                LinesideError(
                    "mtp.no_procedure",
                    f"The service {name} names no procedure: what the module runs is its own.",
                    effect=REST,
                    todo="Ask the module's maker what starting it does.",
                )
            )
        title = control.said("TagDescription") or control.said("TagName") or element.name
        return ModuleService(name, _plain(title), nodes, procedures, values)

    def _values(self, element: _Element, service: str, used: set[int]) -> tuple[tuple[Measured, ...], dict[str, str]]:
        """Parameters and report values of a service and its procedures, and the names of parameters by their IDs."""
        kinds = ("parameter", "configuration", "report", "out", "in")
        found = [one for one in self._all(element.children) if one.kind in kinds]
        values: list[Measured] = []
        ids: dict[str, str] = {}
        by_object: dict[int, str] = {}
        for one, name in zip(found, _names([one.name for one in found], None, "value"), strict=True):
            known = self._object(one.ref, "")
            if known is None:
                self._findings.append(
                    LinesideError(
                        "mtp.value",
                        f"{service}.{name} is left out: no data object, or more than one, is its own.",
                        effect=REST,
                        todo="Ask the module's maker for a sound manifest, or write the tag by hand.",
                    )
                )
                continue
            if id(known) in by_object:  # two procedures use one
                ids[one.id] = by_object[id(known)]
                continue
            kind: Kind = one.kind  # type: ignore[assignment]  # one of `kinds`
            if measured := self._measured(known, name, _plain(known.said("TagDescription")), kind, service):
                values.append(measured)
                used.add(id(known))
                ids[one.id] = by_object[id(known)] = name
        return tuple(values), ids

    def _procedures(self, element: _Element, service: str, ids: Mapping[str, str]) -> Iterator[Procedure]:
        found = [one for one in self._all(element.children) if one.kind == "procedure"]
        titles = [self._title_of(one, "health") or one.name for one in found]
        of_service = [one for one in element.children if one.kind in {"parameter", "configuration"}]
        numbers: set[int] = set()
        for one, name in zip(found, _names([one.name for one in found], None, "procedure"), strict=True):
            number = _number(one.said("ProcedureID") or one.said("StrategyID"))
            if number is None or not number.is_integer() or not 0 <= number < 2**32 or int(number) in numbers:
                self._findings.append(
                    LinesideError(
                        "mtp.procedure",
                        f"The procedure {service}.{name} is left out: its number is missing, none, or that of another.",
                        effect=REST,
                        todo="Ask the module's maker for a sound manifest.",
                    )
                )
                continue
            numbers.add(int(number))
            inside = [child for child in self._all(one.children) if child.kind in {"parameter", "configuration"}]
            required = one.attributes.get("RequiredParameters")
            if required is not None:  # of 2018: all parameters stand at the service, and procedures name theirs
                wanted = [ref.casefold() for ref in required.value.split()]
                wanted += [child.id for child in of_service if child.kind == "configuration"]
            else:
                wanted = [child.id for child in (*inside, *of_service)]
            yield Procedure(
                name,
                _plain(titles[found.index(one)]),
                int(number),
                _truth(one.said("IsSelfCompleting")),
                _truth(one.said("IsDefault")),
                tuple(dict.fromkeys(ids[ref] for ref in wanted if ref in ids)),
            )

    def _measured(self, element: _Element, name: str, title: str, kind: Kind, service: str = "") -> Measured | None:
        said = f"{service}.{name}" if service else name
        value_type = _type_of(element.cls)
        written = kind in {"parameter", "configuration", "in"}
        node = self._node(element, "VExt") if written else self._node(element, "V", "Text", "VOut", "VFbk")
        if node is None or value_type is None:
            self._findings.append(
                LinesideError(
                    "mtp.value",
                    f"{said} is left out: it has no node with its value.",
                    effect=REST,
                    todo="Write the tag by hand when a recipe needs it.",
                )
            )
            return None
        if value_type in {"bool", "text"}:
            default = element.attributes["VExt"].default if written else ""
            return self._with_nodes(
                Measured(name, title, value_type, node, kind=kind, default=_plain(default)), element
            )
        names = ("VMin", "VMax", "VUnit") if written else ("VSclMin", "VSclMax", "VUnit")
        low, high, number = (self._number(element, one) for one in names)
        if low is not None and high is not None and low >= high:
            low = high = None
        told = {
            key: item
            for key, one in zip(("low", "high", "unit"), names, strict=True)
            if (item := self._node(element, one)) is not None
        }
        code = whole(number)
        if "unit" not in told and not element.said("VUnit"):
            code = PLAIN
        unit = self._units.get(code) if code is not None else None
        default = element.attributes["VExt"].default if written else ""
        made = Measured(
            name, title, value_type, node, kind=kind, unit=unit, unit_code=code, low=low, high=high, told=told,
            default=_plain(default),
        )  # fmt: skip
        return self._with_nodes(made, element)

    def _with_nodes(self, made: Measured, element: _Element) -> Measured:
        """With the further nodes of a value that is written."""
        if made.kind not in {"parameter", "configuration", "in"}:
            return made
        asked, shown = self._node(element, "VReq"), self._node(element, "VOut", "VFbk", "VRbk")
        return replace(
            made,
            asked=asked if asked != made.node else None,
            apply=self._node(element, "ApplyExt"),
            in_force=shown if shown != made.node else None,
        )


# Words and numbers -----------------------------------------------------------------------------------------------


def _type_of(cls: str) -> ValueType | None:
    """The type of a data object's value, by its class; None for one that has no single value."""
    found = _DATA.fullmatch(cls)
    if found is None or not re.match(r"View|Mon|Man|ServParam|Param|Op|ProcessValue", found[2]):
        return None
    return _TYPES[found[1]]


def _is_view(cls: str) -> bool:
    found = _DATA.fullmatch(cls)
    return found is not None and found[2] in {"View", "Mon"}


def _bases(roots: Iterable[Node]) -> Iterator[tuple[str, str]]:
    """Class -> the class that it is derived from, for all classes that the files bring with them."""
    for root in roots:
        for library, class_name in (("SystemUnitClassLib", "SystemUnitClass"), ("InterfaceClassLib", "InterfaceClass")):
            for node in root.all(library):
                yield from _classes(node, class_name, node.attributes.get("Name", ""))


def _classes(node: Node, class_name: str, path: str) -> Iterator[tuple[str, str]]:
    for child in node.all(class_name):
        here = f"{path}/{child.attributes.get('Name', '')}"
        yield here, child.attributes.get("RefBaseClassPath", "")
        yield from _classes(child, class_name, here)


def _within(node: Node) -> Iterator[Node]:
    for child in node.all("InternalElement"):
        yield child
        yield from _within(child)


def _uris(node: Node) -> Iterator[str]:
    for interface in node.all("ExternalInterface"):
        for attribute in interface.all("Attribute"):
            if attribute.attributes.get("Name", "").casefold() == "refuri" and (uri := attribute.said("Value")):
                yield uri


def _address(namespace: str, identifier: str) -> str:
    """The node's address as a plant file writes it; "" when it cannot."""
    kind = identifier[:2] if re.match(r"[isgb]=", identifier) else "s="
    plain = identifier.removeprefix(kind)
    space = f"ns={namespace}" if namespace.isdecimal() else f"nsu={namespace}"
    text = f"{space};{kind}{plain}"
    usable = namespace and plain and ";" not in namespace and len(text) <= ADDRESS_MAX and not _HIDDEN.search(text)
    return text if usable else ""


def _number(text: str) -> float | None:
    """A number as manifests write it, also `16#FF`; None for anything else."""
    text = text.strip()
    try:
        value = float(int(text[3:], 16)) if text[:3] == "16#" else float(text)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def whole(number: float | None) -> int | None:
    """A number as a code; None for one that is none."""
    return int(number) if number is not None and number.is_integer() and abs(number) < 2**31 else None


def _truth(text: str) -> bool:
    return text.strip().casefold() in {"true", "1"}


def _plain(text: str) -> str:
    """One line without what a plant file would not take."""
    return _HIDDEN.sub(" ", text).strip()[:80]


def _names(wanted: Sequence[str], instead: Sequence[str] | None, empty: str) -> list[str]:
    """A name for each, as a plant file takes it, none twice. What all of them begin with up to a dot is left away."""
    if instead is not None and len(set(wanted)) < len(wanted):
        wanted = instead
    parts = [one.split(".") for one in wanted]
    while parts and all(len(one) > 1 and one[0] == parts[0][0] for one in parts):
        parts = [one[1:] for one in parts]
    names: list[str] = []
    for one in parts:
        plain = re.sub(r"[^A-Za-z0-9]+", "_", _ascii(".".join(one))).strip("_")[:40] or empty
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
    return names


def _ascii(text: str) -> str:
    for one, two in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("Ä", "Ae"), ("Ö", "Oe"), ("Ü", "Ue"), ("ß", "ss")):
        text = text.replace(one, two)
    return text
