"""Row bytes and the hash chain.

hash(row) = SHA-256("lineside.row.1" || journal id (16 bytes) || epoch (16) || seq (8, big endian) ||
previous hash (32) || body). The first row of a journal has 32 zero bytes as its previous hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from edge.core.quick import dataclass

ROW_DOMAIN: Final = b"lineside.row.1"
SEAL_DOMAIN: Final = b"lineside.seal.1"
ZERO_HASH: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Row:
    """One journal row as stored: `seq` from 1, gapless; `epoch` 16 bytes; `hash` 32 bytes; `body` exact bytes."""

    seq: int
    epoch: bytes
    hash: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """The first row that does not hold, and why, in words."""

    seq: int
    why: str


def row_hash(journal: bytes, epoch: bytes, seq: int, previous: bytes, body: bytes) -> bytes:
    """The chained hash of one row; see the module's text for the exact input."""
    return hashlib.sha256(ROW_DOMAIN + journal + epoch + seq.to_bytes(8, "big") + previous + body).digest()


def sealed_bytes(journal: bytes, epoch: bytes, seq: int, row_hash: bytes) -> bytes:
    """What the device signs, under `SEAL_DOMAIN`, to seal row `seq` of `epoch` and with its hash all rows before."""
    return journal + epoch + seq.to_bytes(8, "big") + row_hash


def chain_faults(
    journal: bytes, rows: Iterable[Row], *, after_seq: int = 0, previous: bytes = ZERO_HASH
) -> Iterator[Fault]:
    """Yield a Fault for the first row that breaks the chain that follows (`after_seq`, `previous`), then end."""
    seq = after_seq
    for row in rows:
        if row.seq != seq + 1:
            missing = f"row {seq + 1} is missing" if row.seq > seq + 1 else "rows are out of order"
            yield Fault(row.seq, f"Row {row.seq} follows row {seq}: {missing}.")
            return
        if row_hash(journal, row.epoch, row.seq, previous, row.body) != row.hash:
            yield Fault(row.seq, f"Row {row.seq} was changed after it was written: its hash does not match.")
            return
        seq, previous = row.seq, row.hash


class Signer(Protocol):
    """Holds a private Ed25519 key: the device's (`edge.identity`) or the hub's."""

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Ed25519 over `signed_bytes(domain, message)`, 64 bytes."""


def signed_bytes(domain: bytes, message: bytes) -> bytes:
    """What is signed: the domain's length (one byte), the domain, the message. So that no signature made for
    one purpose verifies for another."""
    return bytes([len(domain)]) + domain + message


def signature_holds(public: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """True when `signature` was made with the private key of `public` (32 bytes) for this domain and message."""
    # The screen knows rows and people and verifies nothing: it is spared the library's 7 MiB.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes(domain, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A key's name: the first 32 hex digits of its SHA-256. A device's id is the fingerprint of its key."""
    return hashlib.sha256(public).hexdigest()[:32]
