"""The bytes of a tar file of ours: one header for a name and a size, so that nothing in it is left to interpretation.

A backup streams through them; a tech-transfer pack is small and is held whole.
"""

from __future__ import annotations

import re
import tarfile
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

BLOCK_BYTES: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * BLOCK_BYTES)
SIGNATURE_BYTES: Final = 64


class FileEntry(BaseModel):
    """One file, as the manifest names it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    size: int = Field(ge=0, lt=2**50)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def header(name: str, size: int) -> bytes:
    """The one header that a file of this name and size has."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    return info.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What fills the last block."""
    return bytes(-size % BLOCK_BYTES)


def stated_size(block: bytes) -> int:
    """The size that a header states; -1 when it states none."""
    return int(block[124:135], 8) if re.fullmatch(rb"[0-7]{11}", block[124:135]) else -1
