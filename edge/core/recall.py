"""A box asks its hub for the rows beyond its own, and the hub answers: how the tail comes back after a restore.

Up, `lineside/1/up/DEVICE/tail`: a request, signed by the asking device, that names a journal, the last row that the
box has and that row's hash. Down, `lineside/1/down/DEVICE/tail`, not retained: one answer to each request, signed by
the hub. An answer is the signed JSON of its head, and when it carries rows a line feed and one frame (see
`edge.core.frame`) behind it, made and signed by the hub, whose SHA-256 stands in the head. Rows are exactly as the
box once sent them, of one epoch, and begin behind the row that was asked after. The box asks again from there until
the hub says that this is the end. The nonce of the request comes back in the head, and is used once: an old answer
is never taken for a new one, by a box whose clock may be wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.core import frame
from edge.core.errors import LinesideError
from edge.core.frame import Frame
from edge.core.record import Signer, fingerprint, signature_holds

REQUEST_DOMAIN: Final = b"lineside.tail-request.1"
ANSWER_DOMAIN: Final = b"lineside.tail-answer.1"
HEAD_BYTES_MAX: Final = 4_096
ANSWER_BYTES_MAX: Final = HEAD_BYTES_MAX + 1 + frame.FRAME_BYTES_MAX

_Id16 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Seq = Annotated[int, Field(ge=0, le=2**63 - 1)]
_Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
State = Literal["rows", "end", "behind", "fork", "unknown"]


class Request(BaseModel):
    """What follows row `after_seq`, whose hash is `after_hash`? `nonce` is new for each request."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    device: _Id16
    journal: _Id16
    after_seq: Annotated[int, Field(ge=1, le=2**63 - 1)]
    after_hash: _Hash
    nonce: _Id16


class Answer(BaseModel):
    """What the hub holds behind the row that `device` asked after.

    `state` is "rows": a frame follows; "end": there is nothing behind that row; "behind": the hub holds this journal
    only to an earlier row; "fork": it holds another row of that number; "unknown": it holds nothing of this journal.
    `head_seq` and `head_hash` name the last row that it holds (zeros: none), and the box said that it had made
    `made_seq` rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    hub: _Id16
    device: _Id16
    journal: _Id16
    nonce: _Id16
    state: State
    head_seq: _Seq
    head_hash: _Hash
    made_seq: _Seq
    frame_sha256: _Hash
    """Of what follows the head; of nothing, when nothing does."""


class _SignedRequest(Request):
    signature: _Signature


class _SignedAnswer(Answer):
    signature: _Signature


_Said = TypeVar("_Said", _SignedRequest, _SignedAnswer)


def make_request(request: Request, signer: Signer) -> bytes:
    """The signed JSON: sorted keys, no spaces."""
    return _sign(request, REQUEST_DOMAIN, signer)


def read_request(data: bytes, trusted: Mapping[str, bytes], topic_device: str) -> Request:
    """Verify a request against the public keys of `trusted` (device id -> key); it must be of `topic_device`, on
    whose topic it came.

    Raises `recall.malformed`, `recall.unknown_device`, `recall.signature` or `recall.wrong_topic`."""
    signed = _read(data, _SignedRequest, "a request for rows")
    public = trusted.get(signed.device)
    if public is None:
        raise LinesideError(
            "recall.unknown_device",
            f"Device {signed.device} asks for rows, and is not trusted here.",
            effect="Nothing is sent to it.",
            todo="Compare the fingerprint with the box's, then put its device.pub into the hub's devices folder.",
        )
    facts = signed.model_dump(exclude={"signature"})
    if not signature_holds(public, REQUEST_DOMAIN, _canonical(facts), bytes.fromhex(signed.signature)):
        raise LinesideError(
            "recall.signature",
            f"A request for rows that names device {signed.device} is not signed by it.",
            effect="Nothing is sent to it.",
            todo="Someone without the device's key asked for its rows: find out who.",
        )
    if signed.device != topic_device:
        raise LinesideError(
            "recall.wrong_topic",
            f"A request of device {signed.device} for rows came on the topic of device {topic_device}.",
            effect="Nothing is sent to it.",
            todo="Check the broker's access list: each box may publish on its own topics only.",
        )
    return Request(**facts)


def make_answer(answer: Answer, carried: bytes, signer: Signer) -> bytes:
    """The signed head and the frame `carried` (empty for none), whose hash is put into the head."""
    head = answer.model_copy(update={"frame_sha256": hashlib.sha256(carried).hexdigest()})
    return _sign(head, ANSWER_DOMAIN, signer) + (b"\n" + carried if carried else b"")


def read_answer(data: bytes, request: Request, hub_public: bytes) -> tuple[Answer, Frame | None]:
    """Verify an answer against the hub's public key and the request that it must answer: the rows of "rows" follow
    the row that was asked after, of the same journal.

    Raises `recall.malformed`, `recall.answer_signature`, `recall.other_answer` or what `frame.read` raises."""
    if len(data) > ANSWER_BYTES_MAX:
        raise _malformed("an answer of the hub", f"it has {len(data)} bytes, more than {ANSWER_BYTES_MAX}")
    head, _, carried = data.partition(b"\n")
    signed = _read(head, _SignedAnswer, "an answer of the hub")
    facts = signed.model_dump(exclude={"signature"})
    hub = fingerprint(hub_public)
    if signed.hub != hub or not signature_holds(
        hub_public, ANSWER_DOMAIN, _canonical(facts), bytes.fromhex(signed.signature)
    ):
        raise LinesideError(
            "recall.answer_signature",
            f"An answer that names hub {signed.hub} is not signed by the hub that this box trusts.",
            effect="Nothing in it is used.",
            todo="Compare hub.pub on the box with the hub's own; if they differ, find out who answers for the hub.",
        )
    answer = Answer(**facts)
    if (answer.device, answer.journal, answer.nonce) != (request.device, request.journal, request.nonce):
        raise _other("it answers another request")
    if hashlib.sha256(carried).hexdigest() != answer.frame_sha256:
        raise _other("the rows in it are not those that the hub signed")
    if answer.state != "rows":
        if carried:
            raise _other("it carries rows and says that there are none")
        return answer, None
    got = frame.read(carried, {hub: hub_public})
    follows = (got.journal.hex(), got.first_seq, got.previous.hex())
    if follows != (request.journal, request.after_seq + 1, request.after_hash) or not got.rows:
        raise _other("the rows in it do not follow the row that was asked after")
    return answer, got


def _sign(said: BaseModel, domain: bytes, signer: Signer) -> bytes:
    facts = said.model_dump()
    return _canonical({**facts, "signature": signer.sign(domain, _canonical(facts)).hex()})


def _canonical(facts: dict[str, Any]) -> bytes:
    return orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)


def _read(data: bytes, model: type[_Said], what: str) -> _Said:
    if len(data) > HEAD_BYTES_MAX:
        raise _malformed(what, f"it has {len(data)} bytes, more than {HEAD_BYTES_MAX}")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise _malformed(what, error.errors(include_url=False)[0]["msg"][:200]) from error


def _malformed(what: str, why: str) -> LinesideError:
    return LinesideError(
        "recall.malformed",
        f"These bytes are not {what}: {why}.",
        effect="Nothing in them is used.",
        todo="Find out what sends to this topic.",
    )


def _other(why: str) -> LinesideError:
    return LinesideError(
        "recall.other_answer",
        f"An answer of the hub is not the one that was asked for: {why}.",
        effect="Nothing in it is used; the box asks again.",
        todo="If this stays, look whether two boxes use one device key, and at the hub's log.",
    )
