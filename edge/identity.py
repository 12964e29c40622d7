"""Keys on this box: the device's own Ed25519 key, and public keys of others."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edge.core.errors import LinesideError, Place
from edge.core.quick import dataclass
from edge.core.record import fingerprint, signed_bytes

KEY_BYTES_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class DeviceKey:
    """The private key that makes this device itself; an `edge.core.record.Signer`."""

    _private: Ed25519PrivateKey

    @classmethod
    def create(cls, path: Path) -> DeviceKey:
        """Make a new key, durable at `path` (PEM PKCS #8, mode 0600). Never overwrites."""
        key = cls(Ed25519PrivateKey.generate())
        pem = key._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(pem)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(partial, path)  # a link never replaces what is there, and the file is whole when it appears
        except FileExistsError as error:
            raise LinesideError(
                "identity.exists",
                f"There is a key at {path} already.",
                todo="Keep it: rows signed with it verify only while it is known. A new box gets a new folder.",
                place=Place(str(path)),
            ) from error
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
        sync_folder(path.parent)
        return key

    @classmethod
    def load(cls, path: Path) -> DeviceKey:
        """The key at `path`. Refused when anyone but its owner could read it."""
        try:
            with path.open("rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                pem = stream.read(KEY_BYTES_MAX + 1)
        except OSError as error:
            raise LinesideError(
                "identity.missing",
                f"The device key {path} cannot be read: {error.strerror}.",
                todo='Correct "device_key" in lineside.toml, or restore the file. Without it this is another device.',
                place=Place(str(path)),
            ) from error
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LinesideError(
                "identity.permissions",
                f"The device key {path} is open to other accounts (mode {stat.S_IMODE(mode):04o}).",
                todo=f"Run: chmod 600 {path}. If another person may have read it, make a new device.",
                place=Place(str(path)),
            )
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise LinesideError(
                "identity.unreadable",
                f"{path} holds no Ed25519 private key in PEM form.",
                todo="Restore the file that was made with this box.",
                place=Place(str(path)),
            )
        return cls(private)

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def fingerprint(self) -> str:
        """The device's id."""
        return fingerprint(self.public)

    def sign(self, domain: bytes, message: bytes) -> bytes:
        """Ed25519 over `signed_bytes(domain, message)`, 64 bytes."""
        return self._private.sign(signed_bytes(domain, message))


def public_text(public: bytes) -> str:
    """A public key as a `*.pub` file holds it: 64 hex digits and a newline."""
    return public.hex() + "\n"


def read_public(path: Path) -> bytes:
    """The public key in a `*.pub` file, 32 bytes."""
    try:
        with path.open("rb") as stream:
            public = bytes.fromhex(stream.read(256).decode("ascii"))
    except OSError as error:
        raise LinesideError(
            "identity.public_missing",
            f"The public key {path} cannot be read: {error.strerror}.",
            todo="Copy the file from where the key was made.",
            place=Place(str(path)),
        ) from error
    except ValueError:
        public = b""
    if len(public) != 32:
        raise LinesideError(
            "identity.public_unreadable",
            f"{path} does not hold 64 hex digits.",
            todo="Copy the file again from where the key was made.",
            place=Place(str(path)),
        )
    return public


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that are missing, each durable under its name."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)
