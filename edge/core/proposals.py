"""A proposal of the hub to amend a batch under way, as a document: bounded JSON, signed as an order is. It changes
nothing: people at the box request it, agree to it and sign."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from datetime import date
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge.core.errors import LinesideError
from edge.core.orders import ORDER_BYTES_MAX
from edge.core.quick import dataclass
from edge.core.recipe.amend import Change

PROPOSAL_NOT_TAKEN: Final = "The proposal was not taken. The batch goes on as it is."


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("has spaces around it or characters that cannot be printed")
    return text


def _day(text: str) -> str:
    date.fromisoformat(text)
    return text


_Id = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
_Text = Annotated[str, Field(max_length=64), AfterValidator(_printable)]


class _Change(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    kind: Literal["value", "add", "skip"]
    subject: _Id
    field: _Text = ""
    new: Annotated[str, Field(max_length=4096)] = ""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    proposal: _Id
    batch: _Id
    version: _Id
    until: Annotated[_Text, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(_day)]
    reason: Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
    changes: Annotated[list[_Change], Field(max_length=10)] = Field(default_factory=list)
    adopts: _Text = ""
    from_step: _Text = ""

    @model_validator(mode="after")
    def _one_way(self) -> _Document:
        if bool(self.changes) is bool(self.adopts) or bool(self.from_step) is not bool(self.adopts):
            raise ValueError("says either `changes`, or `adopts` with `from_step`")
        return self


@dataclass(frozen=True, slots=True)
class Proposal:
    """Amend `batch`, which runs by `version` of its recipe, by `changes`, or let it go over to the version `adopts`
    from `from_step` on. It holds `until` this day."""

    proposal: str
    batch: str
    version: str
    until: str
    reason: str
    changes: tuple[Change, ...] = ()
    adopts: str = ""
    from_step: str = ""

    def as_bytes(self) -> bytes:
        """Its one form in bytes: what is signed, and compared."""
        changes = [{"kind": c.kind, "subject": c.subject, "field": c.field, "new": c.new} for c in self.changes]
        said = {"lineside_proposal": 1, **asdict(self), "changes": changes}
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

    def digest(self) -> str:
        """What two proposals of the same content have in common."""
        return hashlib.sha256(self.as_bytes()).hexdigest()


def is_proposal(data: bytes) -> bool:
    """Whether this calls itself a proposal, and is no order."""
    return len(data) <= ORDER_BYTES_MAX and b'"lineside_proposal"' in data


def read_proposal(data: bytes) -> Proposal:
    """A proposal from its JSON. Raises `proposal.unreadable`."""
    if len(data) > ORDER_BYTES_MAX:
        raise _unreadable(f"it has more than {ORDER_BYTES_MAX:,} bytes")
    try:
        raw: Any = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _unreadable("it is no JSON") from error
    if not isinstance(raw, dict) or raw.pop("lineside_proposal", None) != 1:
        raise _unreadable("lineside_proposal is not 1")
    try:
        said = _Document.model_validate(raw).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:80]
        raise _unreadable(f"{where}: {first['msg'].removeprefix('Value error, ')}"[:200].lstrip(": ")) from error
    return Proposal(**{**said, "changes": tuple(Change(**change) for change in said["changes"])})


def _unreadable(why: str) -> LinesideError:
    return LinesideError(
        "proposal.unreadable",
        f"The proposal cannot be read: {why}.",
        effect=PROPOSAL_NOT_TAKEN,
        todo="Have it made anew; docs/how-to/change-a-running-batch.md shows its form.",
    )
