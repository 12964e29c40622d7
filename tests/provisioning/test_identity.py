"""The device key: private, never replaced, and its signatures serve one purpose each."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge.core.errors import LinesideError
from edge.core.record import Signer, fingerprint, signature_holds
from edge.identity import DeviceKey, public_text, read_public


def test_a_key_comes_back_as_it_was_made(tmp_path: Path) -> None:
    made: Signer = DeviceKey.create(tmp_path / "device.key")
    loaded = DeviceKey.load(tmp_path / "device.key")
    assert loaded.public == made.public
    assert loaded.fingerprint == fingerprint(made.public)
    assert stat.S_IMODE((tmp_path / "device.key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["device.key"]
    signature = made.sign(b"lineside.frame.1", b"hello")
    assert signature_holds(loaded.public, b"lineside.frame.1", b"hello", signature)
    assert not signature_holds(loaded.public, b"lineside.receipt.1", b"hello", signature)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    before = DeviceKey.create(tmp_path / "device.key")
    with pytest.raises(LinesideError, match=r"identity\.exists"):
        DeviceKey.create(tmp_path / "device.key")
    assert DeviceKey.load(tmp_path / "device.key").public == before.public
    assert [path.name for path in tmp_path.iterdir()] == ["device.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    DeviceKey.create(tmp_path / "device.key")
    (tmp_path / "device.key").chmod(mode)
    with pytest.raises(LinesideError, match=r"identity\.permissions"):
        DeviceKey.load(tmp_path / "device.key")


def test_files_that_are_no_key_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    with pytest.raises(LinesideError, match=r"identity\.missing"):
        DeviceKey.load(path)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data in (b"", b"\xff" * 100, b"x" * 100_000, other):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(LinesideError, match=r"identity\.unreadable"):
            DeviceKey.load(path)


def test_a_public_key_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "hub.pub"
    with pytest.raises(LinesideError, match=r"identity\.public_missing"):
        read_public(path)
    path.write_text(public_text(bytes(range(32))))
    assert read_public(path) == bytes(range(32))
    for text in ("", "00" * 31, "00" * 33, "zz" * 32, "é" * 64, "00" * 4000):
        path.write_text(text)
        with pytest.raises(LinesideError, match=r"identity\.public_unreadable"):
            read_public(path)
