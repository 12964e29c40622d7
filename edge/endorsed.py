"""Signatures on recipes, for another site: who approved what where a recipe comes from. History, never an approval."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Final, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edge.archive import Record, record_of
from edge.config import Config
from edge.core.events import RowBody, SignatureMade, decode
from edge.core.lifecycle import ACT_OF, DONE, RecipeAct, RecipeEvent, meaning
from edge.core.people import attestation_holds
from edge.identity import DeviceKey, read_public

ENDORSED_MAX: Final = 10_000
ROWS_AT_ONCE: Final = 10_000
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, Field(max_length=500)]


class Endorsed(BaseModel):
    """One signature on a recipe, as its rows say it. `device` is the public key whose attestation holds; `subject_*` is
    the row that was the last one then, in the journal of that box."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    recipe: Short
    version: Short
    seal: Hash
    act: RecipeAct = Field(strict=False)
    person: Short
    role: Short
    meaning: Annotated[str, Field(max_length=1_000)]
    methods: tuple[Short, ...] = Field(strict=False, max_length=10)
    session: Short
    utc: Short
    row: int
    reason: Annotated[str, Field(max_length=2_000)]
    subject_seq: int = Field(ge=0, lt=2**63)
    subject_hash: Hash
    attestation: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    device: Hash

    def holds(self) -> bool:
        """True when that device attested that this person signed this act on the recipe with this seal."""
        signature = SignatureMade(
            step="",
            person=self.person,
            role=self.role,
            meaning=self.meaning,
            methods=list(self.methods),
            session=self.session,
            subject_seq=self.subject_seq,
            subject_hash=self.subject_hash,
            attestation=self.attestation,
        )
        says = meaning(self.act, self.recipe, self.version, self.seal)
        return self.meaning == says and attestation_holds(bytes.fromhex(self.device), signature, self.utc)

    def text(self) -> str:
        """For a person, in one line."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.version}, {self.utc}: {self.person} ({self.role}), {DONE[self.act]}{why}".replace("\n", " ")


_LIST: Final = TypeAdapter(
    Annotated[tuple[Endorsed, ...], Field(max_length=ENDORSED_MAX)], config=ConfigDict(defer_build=True)
)


def as_bytes(endorsed: Sequence[Endorsed]) -> bytes:
    """The file of them."""
    return _LIST.dump_json(tuple(endorsed), indent=1)


def read_endorsed(data: bytes) -> tuple[Endorsed, ...] | None:
    """What `as_bytes` made, each holding; None for anything else."""
    try:
        found = _LIST.validate_json(data)
    except ValidationError:
        return None
    return found if all(one.holds() for one in found) else None


def endorsed_at(config: Config, seals: Collection[str]) -> list[Endorsed]:
    """The signatures that the record of this box has on the recipes with these seals, oldest first."""
    keys = [DeviceKey.load(config.device_key).public, *map(read_public, config.former_keys)]
    with record_of(config) as record:
        return list(_endorsed(record, set(seals), keys))[-ENDORSED_MAX:]


def _endorsed(record: Record, seals: set[str], keys: Sequence[bytes]) -> Iterator[Endorsed]:
    seq, before = 0, b""
    while rows := record.rows(seq, ROWS_AT_ONCE):
        for row in rows:
            if b'"kind":"Recipe' in row.body[:40] and before:
                body = decode(row.body)
                if isinstance(body.event, get_args(RecipeEvent)) and body.event.seal in seals:
                    yield from _signed(body, decode(before), row.seq, keys)
            before = row.body
        seq = rows[-1].seq


def _signed(body: RowBody, before: RowBody, seq: int, keys: Sequence[bytes]) -> Iterator[Endorsed]:
    event, signature = body.event, before.event
    assert isinstance(event, get_args(RecipeEvent))
    if not isinstance(signature, SignatureMade):
        return  # retired by the release of a newer version: that release is signed
    for key in keys:
        if attestation_holds(key, signature, before.at.utc):
            yield Endorsed(
                recipe=event.recipe,
                version=event.version,
                seal=event.seal,
                act=ACT_OF[type(event)],
                person=signature.person,
                role=signature.role,
                meaning=signature.meaning,
                methods=tuple(signature.methods),
                session=signature.session,
                utc=before.at.utc,
                row=seq,
                reason=getattr(event, "reason", ""),
                subject_seq=signature.subject_seq,
                subject_hash=signature.subject_hash,
                attestation=signature.attestation,
                device=key.hex(),
            )
            return
