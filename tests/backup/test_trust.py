"""A restored box trusts the servers that the lost one trusted; the keys of certificates stay where they were made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from drivers.opcua_trust import BoxClock, Pki
from edge.backup import back_up, restore, unpack
from edge.config import Config
from edge.core.errors import LinesideError
from edge.identity import DeviceKey
from tests.contract.certificates import make


def trusting(box: Config) -> Pki:
    pki = Pki(box.state_dir / "pki")
    ca = make("Site CA", ca=True)
    pki.trust(ca.certificate, issuer=True)
    pki.trust(make("Reactor", by=ca).certificate)
    pki.own(box.box, BoxClock(datetime.now(UTC), synced=True))
    return pki


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_restored_box_knows_the_same_servers(box: Config, spare: Config, tmp_path: Path) -> None:
    before = trusting(box)
    made = back_up(box, tmp_path / "box.tar")
    assert made.trusted == 2
    public = DeviceKey.load(box.device_key).public
    restore(tmp_path / "box.tar", spare.state_dir, public)
    after = Pki(spare.state_dir / "pki")
    assert [one for one, _ in after.trusted()] == [one for one, _ in before.trusted()]
    assert {name.partition("/")[0] for name in inside(spare.state_dir / "pki")} == {"trusted", "issuers"}
    own = next((box.state_dir / "pki" / "own").glob("*.pem")).read_bytes()
    assert b"PRIVATE KEY" in own
    assert (
        own.splitlines()[own.splitlines().index(b"-----BEGIN PRIVATE KEY-----") + 1]
        not in (tmp_path / "box.tar").read_bytes()
    ), "no private key leaves the box"


def test_planted_bug_a_backup_without_trust_is_found(
    box: Config, spare: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.backup._trust", lambda _state: {})
    with pytest.raises(AssertionError):
        test_a_restored_box_knows_the_same_servers(box, spare, tmp_path)


def test_what_cannot_be_kept_is_said(box: Config, tmp_path: Path) -> None:
    folder = box.state_dir / "pki" / "trusted"
    folder.mkdir(parents=True)
    (folder / ".hidden").write_text("left over")
    (folder / "scale.der").symlink_to("/etc/hostname")
    with pytest.raises(LinesideError) as error:
        back_up(box, tmp_path / "box.tar")
    assert error.value.code == "backup.trust"
    (folder / "scale.der").unlink()
    (folder / "Server of the scale (old).der").write_text("x")
    assert back_up(box, tmp_path / "box.tar").trusted == 1
    unpack(tmp_path / "box.tar", tmp_path / "u", DeviceKey.load(box.device_key).public)
    assert "pki/trusted/Server of the scale (old).der" in inside(tmp_path / "u")
