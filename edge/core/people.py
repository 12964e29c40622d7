"""Roles, permissions and what an electronic signature covers. Default deny."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from edge.core.errors import NOTHING_STARTED, LinesideError
from edge.core.record import signature_holds
from edge.core.terms import Role

if TYPE_CHECKING:  # a screen asks for permissions alone
    from edge.core.events import SignatureMade

SIGNATURE_DOMAIN: Final = b"lineside.signature.1"


class Permission(StrEnum):
    """Something that only some roles may do. Doing a step needs the step's own role instead."""

    READ = "read"
    """See batches and records."""
    START = "start"
    """Start a batch."""
    PAUSE = "pause"
    """Pause between steps."""
    HOLD = "hold"
    """Hold at once. Everyone who works at the line may."""
    RESUME = "resume"
    """Go on after a pause or a hold."""
    CONTINUE = "continue"
    """Go on with a batch that came back with a backup: decide that what the journal may lack is known or lost."""
    STOP = "stop"
    """End the batch in order."""
    ABORT = "abort"
    """End the batch at once."""
    ANSWER = "answer"
    """Decide, signed, about an unknown command."""
    RESULT = "result"
    """Add, signed, a result that was pending."""
    CORRECT = "correct"
    """Correct, signed, a value that was entered wrong."""
    SUBMIT = "submit"
    """Submit, signed, a recipe for review."""
    APPROVE = "approve"
    """Approve, signed, somebody else's recipe, or send it back."""
    RELEASE = "release"
    """Make, signed, an approved recipe effective, or retire one."""
    ACKNOWLEDGE = "acknowledge"
    """Say that an alarm was seen. Everyone who works at the line may."""
    BY_HAND = "go on by hand"
    """Take, signed, a step by hand whose equipment cannot be used, and enter what it should have shown."""
    VERIFY = "verify by hand"
    """Verify, signed, what somebody else entered by hand."""
    MODE = "switch to manual"
    """Switch, signed, a step to manual mode."""
    REQUEST = "request"
    """Request, signed, that a batch under way is amended."""
    AMEND = "amend"
    """Agree, signed, that it is; by another person than who requests it."""
    ERASE = "erase"
    """Make the vault forget a patient identity."""
    PEOPLE = "people"
    """Change the directory."""


_AT_THE_LINE: Final = frozenset(
    {
        Permission.READ,
        Permission.START,
        Permission.PAUSE,
        Permission.HOLD,
        Permission.RESUME,
        Permission.STOP,
        Permission.ABORT,
        Permission.ANSWER,
        Permission.RESULT,
        Permission.CORRECT,
        Permission.REQUEST,
        Permission.ACKNOWLEDGE,
        Permission.BY_HAND,
    }
)

PERMITS: Final[Mapping[str, frozenset[Permission]]] = {
    Role.OPERATOR: _AT_THE_LINE,
    Role.VERIFIER: frozenset({Permission.READ, Permission.HOLD, Permission.ACKNOWLEDGE, Permission.VERIFY}),
    Role.SUPERVISOR: _AT_THE_LINE
    | {Permission.AMEND, Permission.CONTINUE, Permission.APPROVE, Permission.VERIFY, Permission.MODE},
    Role.QUALITY: frozenset(
        {
            Permission.READ,
            Permission.HOLD,
            Permission.CONTINUE,
            Permission.RESULT,
            Permission.CORRECT,
            Permission.REQUEST,
            Permission.AMEND,
            Permission.ACKNOWLEDGE,
            Permission.APPROVE,
            Permission.RELEASE,
            Permission.ERASE,
            Permission.VERIFY,
        }
    ),
    Role.ENGINEER: frozenset(
        {Permission.READ, Permission.HOLD, Permission.SUBMIT, Permission.APPROVE, Permission.ACKNOWLEDGE}
    ),
    Role.ADMINISTRATOR: frozenset({Permission.READ, Permission.PEOPLE, Permission.ERASE}),
    Role.AUDITOR: frozenset({Permission.READ}),
}


def permitted(roles: Iterable[str], permission: Permission) -> bool:
    """True when one of the roles grants it. An unknown role grants nothing."""
    return any(permission in PERMITS.get(role, frozenset()) for role in roles)


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """The roles that grant it, for a sentence to a person."""
    return tuple(role for role in Role if permission in PERMITS[role])


def attested_bytes(
    *,
    subject_seq: int,
    subject_hash: str,
    person: str,
    role: str,
    meaning: str,
    methods: Sequence[str],
    session: str,
    utc: str,
) -> bytes:
    """What the device key signs for an electronic signature, under `SIGNATURE_DOMAIN`.

    subject_seq (8 bytes, big endian), subject_hash (the row hash, 32 bytes), then person, role, meaning,
    session, utc and each method, every text as its UTF-8 length (4 bytes, big endian) and its bytes. The row
    hash covers journal, epoch and all rows before, so a signature cannot be moved to another record.
    """
    subject = bytes.fromhex(subject_hash)
    if len(subject) != 32:
        raise ValueError("a row hash has 32 bytes")
    parts = [subject_seq.to_bytes(8, "big"), subject]
    for text in (person, role, meaning, session, utc, *methods):
        data = text.encode()
        parts.append(len(data).to_bytes(4, "big") + data)
    return b"".join(parts)


def attestation_holds(public: bytes, made: SignatureMade, utc: str) -> bool:
    """True when the device whose key is `public` attested this signature at `utc` (its row's time)."""
    try:
        message = attested_bytes(
            subject_seq=made.subject_seq,
            subject_hash=made.subject_hash,
            person=made.person,
            role=made.role,
            meaning=made.meaning,
            methods=made.methods,
            session=made.session,
            utc=utc,
        )
        attestation = bytes.fromhex(made.attestation)
    except (ValueError, OverflowError):
        return False
    return signature_holds(public, SIGNATURE_DOMAIN, message, attestation)


def not_permitted(person: str, permission: Permission) -> LinesideError:
    """Default deny, in words."""
    able = ", ".join(role.value for role in roles_with(permission))
    return LinesideError(
        "people.not_permitted",
        f"{person} has no role that may {permission.value} here.",
        effect=NOTHING_STARTED,
        todo=f"Ask someone with one of these roles: {able}.",
    )
