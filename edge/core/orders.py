"""An order as a document: what is to be made, read from JSON or from the text of a 2D code. Bounded, and never a name.

A code says the same in one line: `LSO1;O=ORD-17;R=CART-B1;V=1.0;B=B-017;D=2026-12-01;Q=20 mL;P.feed=12;T`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, field
from datetime import date
from typing import Annotated, Any, Final, Protocol

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge.core.errors import LinesideError
from edge.core.pseudonym import is_pseudonym
from edge.core.quick import dataclass
from edge.core.record import Signer
from edge.core.terms import ORDER_CODE

ORDER_BYTES_MAX: Final = 8_192
ORDERS_MAX: Final = 100
"""So many orders wait on one box; further ones are refused."""
PARAMETERS_MAX: Final = 20
ORDER_DOMAIN: Final = b"lineside.order.1"
"""Under which a hub signs an order for one box."""
NOT_TAKEN: Final = "The order was not taken. Orders that wait are as they were."


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip() or ";" in text:
        raise ValueError("has spaces around it, a semicolon or characters that cannot be printed")
    return text


def _day(text: str) -> str:
    if text:
        date.fromisoformat(text)
    return text


def _pseudonym(text: str) -> str:
    if text and not is_pseudonym(text):
        raise ValueError("is no pseudonym of a box; an order never holds a patient identity")
    return text


_Id = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
_Text = Annotated[str, Field(max_length=64), AfterValidator(_printable)]


class _Document(BaseModel):
    """The JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True, defer_build=True)

    order: _Id
    recipe: _Name
    version: _Text = ""
    number: _Text = ""
    parameters: Annotated[dict[_Name, _Text], Field(max_length=PARAMETERS_MAX)] = Field(default_factory=dict)
    quantity: _Text = ""
    patient: Annotated[_Text, AfterValidator(_pseudonym)] = ""
    due: Annotated[_Text, Field(pattern=r"^(\d{4}-\d\d-\d\d)?$"), AfterValidator(_day)] = ""
    training: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made. Without a `version` the effective one is meant, without a `number` the box gives one.
    `parameters` are texts as typed, `quantity` is "20 mL", `patient` a pseudonym of the box's or empty: whose it is, is
    scanned when it is started."""

    order: str
    recipe: str
    version: str = ""
    number: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    quantity: str = ""
    patient: str = ""
    due: str = ""
    training: bool = False

    def as_bytes(self) -> bytes:
        """Its one form in bytes: what is signed, and compared."""
        return orjson.dumps({"lineside_order": 1, **asdict(self)}, option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """What two orders of the same content have in common."""
        return hashlib.sha256(self.as_bytes()).hexdigest()


_KEYS: Final = {"O": "order", "R": "recipe", "V": "version", "B": "number", "Q": "quantity", "D": "due"}


def read_order(data: bytes) -> Order:
    """An order from its JSON or from the text of a code. Raises `order.*`."""
    if len(data) > ORDER_BYTES_MAX:
        raise LinesideError(
            "order.too_large",
            f"An order has at most {ORDER_BYTES_MAX:,} bytes.",
            effect=NOT_TAKEN,
            todo="Look whether it is the right file or code.",
        )
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise _unreadable("it is not UTF-8 text") from error
    raw = _from_code(text) if text.startswith(ORDER_CODE) else _from_json(text)
    try:
        document = _Document.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise _unreadable(f"{where}: {first['msg'].removeprefix('Value error, ')}"[:200]) from error
    return Order(**document.model_dump())


def _from_json(text: str) -> Any:
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _unreadable("it is neither JSON nor the code of an order") from error
    if not isinstance(raw, dict) or raw.pop("lineside_order", None) != 1:
        raise _unreadable("it does not say that it is an order: lineside_order is not 1")
    return raw


def _from_code(text: str) -> dict[str, Any]:
    found: dict[str, str] = {}
    parameters: dict[str, str] = {}
    parts = [part for part in text.removeprefix(ORDER_CODE).split(";") if part]
    for part in (one for one in parts if one != "T"):
        key, _, value = part.partition("=")
        into, name = (parameters, key[2:]) if key.startswith("P.") else (found, _KEYS.get(key, ""))
        if not name or name in into:
            raise _unreadable(f"{key[:20]!r} stands in the code twice, or is none of {', '.join(_KEYS)}, P.name and T")
        into[name] = value
    return {**found, "parameters": parameters, "training": "T" in parts}


def read_signed(data: bytes) -> tuple[str, str]:
    """The text of an order's file and the signature beside it, empty without one. Raises `order.unreadable`."""
    if len(data) > 4 * ORDER_BYTES_MAX:
        raise _unreadable(f"it has more than {4 * ORDER_BYTES_MAX:,} bytes")
    try:
        text = data.decode()
        raw = orjson.loads(text) if text.lstrip().startswith("{") else None
    except (UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise _unreadable("it is neither JSON nor the code of an order") from error
    if not isinstance(raw, dict) or "signature" not in raw:
        return text, ""
    signature, order = raw.get("signature"), raw.get("order")
    if not isinstance(signature, str) or not re.fullmatch(r"[0-9a-f]{128}", signature) or not isinstance(order, dict):
        raise _unreadable("its signature is not in the form of one")
    return orjson.dumps(order).decode(), signature


class Given(Protocol):
    """What a hub gives to a box: an order, or a proposal."""

    def as_bytes(self) -> bytes:
        """Its one form in bytes, which says what it is."""


def signed(order: Given, device: bytes, signer: Signer) -> bytes:
    """The file of what a hub signs for the box with this public key."""
    signature = signer.sign(ORDER_DOMAIN, device + order.as_bytes()).hex()
    return orjson.dumps({"order": orjson.loads(order.as_bytes()), "signature": signature}, option=orjson.OPT_INDENT_2)


def _unreadable(why: str) -> LinesideError:
    return LinesideError(
        "order.unreadable",
        f"The order cannot be read: {why}.",
        effect=NOT_TAKEN,
        todo="Have it made anew; docs/how-to/give-orders.md shows its form.",
    )
