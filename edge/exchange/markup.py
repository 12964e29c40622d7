"""XML in and out with every door shut: no document type, no entity, nothing fetched; size, depth and number bounded.

The only importer of lxml. What others work on is a plain tree.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from lxml import etree

from edge.core.errors import LinesideError

BYTES_MAX: Final = 16 * 1024 * 1024
DEPTH_MAX: Final = 64
ELEMENTS_MAX: Final = 250_000
ATTRIBUTES_MAX: Final = 100
"""Of one element."""
_CHUNK: Final = 65_536
_DECLARATION: Final = re.compile(r"\s*<\?xml[^>]{0,200}\?>")
_ENCODING: Final = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_ENCODINGS: Final = ("utf-8", "us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252", "utf-16")


class Node:
    """One element. `name` is its local name, or "{namespace}name" outside of the root's namespace."""

    __slots__ = ("attributes", "children", "name", "text")

    def __init__(
        self, name: str, text: str = "", children: list[Node] | None = None, attributes: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.text = name, text
        self.children = children if children is not None else []
        self.attributes = attributes or {}

    def all(self, name: str) -> Iterator[Node]:
        """The children of this name."""
        return (child for child in self.children if child.name == name)

    def first(self, name: str) -> Node | None:
        """The first child of this name."""
        return next(self.all(name), None)

    def said(self, name: str) -> str:
        """The text of the first child of this name, without space around it; empty without one."""
        child = self.first(name)
        return child.text.strip() if child else ""


def read_markup(data: bytes) -> tuple[str, Node]:
    """The root's namespace and the root of an XML document. Raises `exchange.*` for whatever is not a plain one.

    The caller that opens a file reads at most `BYTES_MAX + 1` bytes of it."""
    if len(data) > BYTES_MAX:
        raise LinesideError(
            "exchange.too_large",
            f"The file is larger than {BYTES_MAX // 1024**2} MiB.",
            todo="Look whether it is the right file. Export one recipe at a time.",
        )
    text = _decoded(data)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise LinesideError(
            "exchange.doctype",
            "The file declares a document type or an entity. BatchML needs neither, and either can hide what is meant.",
            todo="Export it again without a document type declaration.",
        )
    builder = _Builder()
    # every door is shut a second time: a document type is refused above
    parser = etree.XMLParser(
        target=builder, encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False,
        dtd_validation=False, attribute_defaults=False, huge_tree=False, recover=False,
    )  # fmt: skip
    raw = text[found.end() :].encode() if (found := _DECLARATION.match(text)) else text.encode()
    try:
        for start in range(0, len(raw), _CHUNK):
            parser.feed(raw[start : start + _CHUNK])
        parser.close()
    except etree.XMLSyntaxError as error:
        line, column = error.position
        raise LinesideError(
            "exchange.syntax",
            f"The file is not well-formed XML: {str(error.msg)[:200]}"
            + (f" (line {line}, column {column})." if line else "."),
            todo="Export it again, or correct it there.",
        ) from error
    if builder.root is None:
        raise LinesideError("exchange.syntax", "The file is empty.", todo="Look whether it is the right file.")
    return builder.namespace, builder.root


def write_markup(root: Node, namespace: str) -> bytes:
    """The tree as an indented UTF-8 document in this namespace.

    Raises `exchange.character` for a character that XML cannot hold, and `exchange.too_large` beyond what is read."""
    count = 0

    def built(node: Node) -> Any:
        nonlocal count
        count += 1
        element = etree.Element(f"{{{namespace}}}{node.name}", nsmap={None: namespace})
        for key, value in node.attributes.items():
            element.set(key, value)
        if node.text:
            element.text = node.text
        element.extend([built(child) for child in node.children])
        return element

    try:
        data: bytes = etree.tostring(built(root), encoding="UTF-8", xml_declaration=True, pretty_print=True)
    except ValueError as error:
        raise LinesideError(
            "exchange.character",
            "A text of the recipe has a control character, which XML cannot hold.",
            todo="Remove it from the recipe.",
        ) from error
    if count > ELEMENTS_MAX or len(data) > BYTES_MAX:
        raise LinesideError(
            "exchange.too_large",
            f"The recipe is too large for one file: {count:,} elements, {len(data):,} bytes.",
            todo="Split it into recipes that follow each other.",
        )
    return data


def _decoded(data: bytes) -> str:
    declared = _ENCODING.match(data.lstrip()[:300])
    name = declared[1].decode().lower() if declared else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        name = "utf-8-sig"
    if name.removesuffix("-sig") not in _ENCODINGS:
        raise LinesideError(
            "exchange.encoding",
            f"The file says it is encoded as {name[:40]!r}.",
            todo=f"Export it as UTF-8. Also read: {', '.join(_ENCODINGS[1:])}.",
        )
    try:
        return data.decode(name)
    except UnicodeError as error:
        raise LinesideError(
            "exchange.encoding",
            f"The file is not encoded as it says ({name.removesuffix('-sig')}).",
            todo="Export it again as UTF-8.",
        ) from error


class _Builder:
    """Builds the tree while lxml reads, and stops it where a bound is passed."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.namespace = ""
        self._open: list[Node] = []
        self._texts: list[list[str]] = []
        self._count = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._count += 1
        if len(self._open) >= DEPTH_MAX:
            raise LinesideError(
                "exchange.too_deep",
                f"The file is nested more than {DEPTH_MAX} levels deep.",
                todo="Look whether it is the right file.",
            )
        if self._count > ELEMENTS_MAX or len(attributes) > ATTRIBUTES_MAX:
            raise LinesideError(
                "exchange.too_large",
                f"The file has more than {ELEMENTS_MAX:,} elements, or one with more than {ATTRIBUTES_MAX} attributes.",
                todo="Look whether it is the right file. Export one recipe at a time.",
            )
        namespace, _, local = tag.rpartition("}")
        namespace = namespace.removeprefix("{")
        if self.root is None:
            self.namespace = namespace
        node = Node(local if namespace == self.namespace else tag, attributes=dict(attributes) if attributes else None)
        if self.root is None:
            self.root = node
        else:
            self._open[-1].children.append(node)
        self._open.append(node)
        self._texts.append([])

    def data(self, text: str) -> None:
        if self._texts:
            self._texts[-1].append(text)

    def end(self, _tag: str) -> None:
        node, texts = self._open.pop(), self._texts.pop()
        text = "".join(texts)
        node.text = text if not node.children else text.strip()

    def close(self) -> None:
        """Nothing to hand over: the tree is in `root`."""
