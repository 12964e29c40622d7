"""Looking at a device and trusting it, as an engineer types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner, Result

from drivers.opcua_trust import fingerprint
from edge.__main__ import app
from provisioning.device import init_device
from tests.contract.certificates import crl, make
from tests.contract.conformance import simulated

SERVER, AUTHORITY = make("server"), make("authority", ca=True)
PLANT = """\
plant: TEST
connections:
  reactor: {{driver: opcua, settings: {{endpoint: "opc.tcp://127.0.0.1:{port}/"}}}}
  open: {{driver: opcua, settings: {{endpoint: "opc.tcp://127.0.0.1:{port}/", security: none}}}}
  away: {{driver: modbus, settings: {{host: 127.0.0.1, port: 9}}, timeout_s: 0.5}}
units: {{}}
"""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("reactor")
    SERVER.write(folder / "server.der", folder / "server.key")
    with simulated("reactor", folder, "--certificate", str(folder / "server.der")) as (made, _control):
        yield made


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("drivers.opcua_trust.OWN_BITS", 2048)
    init_device(tmp_path / "box", box="BOX-7")
    (tmp_path / "box" / "plant.yaml").write_text(PLANT.format(port=9))
    return tmp_path / "box"


def run(box: Path, *words: str, typed: str = "") -> Result:
    return CliRunner().invoke(app, ["equipment", *words, "--box", str(box)], input=typed)


def refused(result: Result) -> str:
    code: str = getattr(result.exception, "code", "") if result.exception else ""
    return code


def test_from_a_stranger_to_a_browsed_device(box: Path, port: int) -> None:
    (box / "plant.yaml").write_text(PLANT.format(port=port))
    assert refused(run(box, "trust", "reactor")) == "opcua.none_refused"
    first = run(box, "browse", "reactor")
    assert refused(first) == "opcua.untrusted"
    assert fingerprint(SERVER.certificate) in str(first.exception)
    assert refused(run(box, "trust", "reactor", typed="no\n")) == "opcua.not_compared"
    assert refused(run(box, "trust", "reactor", "--fingerprint", "ab" * 32)) == "opcua.other_fingerprint"
    assert "Trusted from the next connect" in run(box, "trust", "reactor", typed="yes\n").stdout
    found = run(box, "browse", "reactor", "AGITATION")
    assert found.exit_code == 0, found.exception
    lines = [line for line in found.stdout.splitlines() if line.startswith("nsu=")]
    assert len(lines) == 2
    assert "nsu=urn:lineside:sim:reactor;s=agitation_setpoint  agitation_setpoint  Float  write" in lines
    machine = json.loads(run(box, "browse", "open", "agitation", "--json").stdout)
    assert machine["remark"] == "not encrypted"
    assert {one["name"] for one in machine["found"]} == {"agitation", "agitation_setpoint"}


def test_what_cannot_be_browsed_is_said(box: Path) -> None:
    assert refused(run(box, "browse", "nothing")) == "equipment.no_connection"
    assert refused(run(box, "browse", "away")) == "equipment.away"
    assert refused(run(box, "browse", "open")) == "opcua.nobody_listens"


def test_files_are_trusted_known_and_revoked(box: Path, tmp_path: Path) -> None:
    (tmp_path / "authority.der").write_bytes(AUTHORITY.der)
    (tmp_path / "gone.crl").write_bytes(crl(AUTHORITY, 4711).public_bytes(Encoding.PEM))
    (tmp_path / "text").write_text("hello")
    assert refused(run(box, "trust", str(tmp_path / "text"))) == "opcua.certificate_file"
    assert refused(run(box, "trust", str(tmp_path / "gone.crl"))) == "opcua.crl_unknown"
    compared = ("--fingerprint", fingerprint(AUTHORITY.certificate))
    assert "Known" in run(box, "trust", str(tmp_path / "authority.der"), "--issuer", *compared).stdout
    assert "Trusted" in run(box, "trust", str(tmp_path / "authority.der"), *compared).stdout
    assert "1 certificates are revoked" in run(box, "trust", str(tmp_path / "gone.crl")).stdout


def test_the_boxs_own_certificate_is_shown_exported_and_renewed(box: Path, tmp_path: Path) -> None:
    first = run(box, "certificate", "--export", str(tmp_path / "box.der"))
    assert first.exit_code == 0, first.exception
    exported = x509.load_der_x509_certificate((tmp_path / "box.der").read_bytes())
    assert fingerprint(exported) in first.stdout
    assert "urn:lineside:box:BOX-7" in first.stdout
    shown = json.loads(run(box, "certificate", "--renew", "--json").stdout)
    assert [one["fingerprint"] for one in shown["own"]][1] == fingerprint(exported)
    assert (shown["trusted"], shown["rejected"]) == ([], [])
    assert refused(run(box, "certificate", "--export", str(tmp_path / "no" / "box.der"))) == "opcua.cannot_export"


def test_a_plant_file_is_checked_with_its_drivers(box: Path) -> None:
    assert "3 connections, 0 tags; nothing is wrong." in run(box, "check").stdout
    (box / "plant.yaml").write_text(PLANT.format(port=9).replace("port: 9}", "prot: 9}"))
    assert refused(run(box, "check")) == "modbus.settings"


def test_what_each_driver_can_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    told = CliRunner().invoke(app, ["equipment", "drivers", "--json"])
    drivers = {one["driver"]: one for one in json.loads(told.stdout)["drivers"]}
    assert drivers["modbus"]["can"] == ["read", "watch", "write"]
    assert drivers["opcua"]["package"].startswith("lineside ")
    monkeypatch.setattr("drivers.scale.ScaleDriver.capabilities", None)
    broken = CliRunner().invoke(app, ["equipment", "drivers"])
    assert broken.exit_code == 1
    assert "scale: TypeError" in broken.stdout
    assert "opcua: read, watch, write, " in broken.stdout
