"""Module type packages: every way to write one that was met is read, and what is broken or hostile is refused."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path

import pytest

from drivers.sim.cell import plant_bytes
from drivers.sim.manifest import manifest
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from provisioning import mtp
from provisioning.mtp import Manifest, read_manifest
from tests.provisioning import manifests as made

SHARED = Path(os.environ.get("LINESIDE_MTP_EXAMPLES", Path(__file__).parents[3] / "shared/data/mtp"))
ENDPOINT = "opc.tcp://127.0.0.1:4840/"


def sim_manifest() -> bytes:
    return manifest("CP-1", read_plant(plant_bytes(), "plant.yaml").units["CP-1"], ENDPOINT)


def refused(data: bytes) -> LinesideError:
    with pytest.raises(LinesideError) as caught:
        read_manifest(data, "x.mtp")
    return caught.value


def stir(module: Manifest) -> None:
    """The mixer's one service, as it must be however the manifest was written."""
    (service,) = module.services
    assert (module.name, module.version, service.name) == ("Mixer", "2.1", "Stir")
    assert {key: item.address for key, item in service.nodes.items()} == {
        "state": "nsu=urn:maker:module;s=Stir.State", "command": "nsu=urn:maker:module;s=Stir.ControlExt",
        "procedure": "nsu=urn:maker:module;s=Stir.StrategyExt",
    }  # fmt: skip
    gently, shake = service.procedures
    assert (gently.name, gently.id, gently.self_completing, gently.is_default) == ("Gently", 1, False, True)
    assert (gently.parameters, shake.parameters) == (("Speed",), ())
    assert (shake.id, shake.self_completing, shake.is_default) == (2, True, False)
    (speed,) = service.values
    assert (speed.name, speed.type, speed.unit, speed.low, speed.high) == ("Speed", "float", "rpm", 10.0, 400.5)
    assert (speed.default, speed.fixed) == ("60", True)


def test_names_of_2018_are_read() -> None:
    module = read_manifest(made.old(), "mixer.aml")
    stir(module)
    assert [one.code for one in module.findings] == ["mtp.mode"]
    assert module.servers == {"PLC": "opc.tcp://192.0.2.7:4840"}


@pytest.mark.parametrize("uri", ["..\\Services.aml#services", "file:///Services.aml", "SERVICES"])
def test_a_split_manifest_in_a_zip_with_backslashes_is_read(uri: str) -> None:
    module = read_manifest(made.split(uri), "mixer.mtp")
    stir(module)
    assert module.files == ("MTP/Manifest.aml", "MTP/Parts/Services.aml")
    assert [one.code for one in module.findings] == ["mtp.mode"]


def test_a_part_that_is_missing_is_said() -> None:
    main, _services = made.old_parts(uri="Services.aml#services")
    error = refused(made.HEAD.format(main).encode())
    assert error.code == "mtp.nothing"
    assert "'Services.aml#services', which is not in the package" in error.todo


def test_names_of_2022_are_read() -> None:
    module = read_manifest(sim_manifest(), "cp.aml")
    wash, culture = module.services
    assert [(one.name, one.id, one.self_completing, one.parameters) for one in wash.procedures] == [
        ("rinse", 1, True, ("volume",)), ("wash", 2, True, ("volume", "cycles")),
    ]  # fmt: skip
    assert {one.name: (one.kind, one.type, one.unit, one.low, one.high) for one in wash.values} == {
        "volume": ("parameter", "float", "mL", 50, 2000), "cycles": ("parameter", "int", "", 0, 6),
        "used": ("report", "float", "mL", 0, 2000), "recovered": ("report", "float", "%", 0, 95),
    }  # fmt: skip
    assert set(wash.nodes) == {"state", "command", "enabled", "automatic", "external", "procedure"}
    assert culture.values[1].unit is None
    assert culture.values[1].unit_code == 32_001
    again = read_manifest(sim_manifest(), "cp.aml", {32_001: "1e6/mL"})
    assert again.services[1].values[1].unit == "1e6/mL"


def test_a_class_of_the_makers_own_counts_as_the_one_it_is_derived_from() -> None:
    main, parts = made.old_parts()
    library = (
        '<SystemUnitClassLib Name="Maker"><SystemUnitClass Name="Special" RefBaseClassPath='
        '"MTPServiceSUCLib/ServiceControl"/><SystemUnitClass Name="Round" RefBaseClassPath="Maker/Round"/>'
        "</SystemUnitClassLib>"
    )
    text = made.HEAD.format(main + parts + library)
    stir(read_manifest(text.replace("MTPServiceSUCLib/ServiceControl", "Maker/Special", 1).encode(), "x"))
    assert refused(text.replace("MTPServiceSUCLib/ServiceControl", "Maker/Round", 1).encode()).code == "mtp.nothing"


def test_a_node_that_cannot_be_told_from_another_is_refused() -> None:
    text = made.old().decode().replace('ID="n1"', 'ID="n0"')
    assert refused(text.encode()).code == "mtp.ambiguous"


DEEP = b"<CAEXFile>" + b"<a>" * 100 + b"</a>" * 100 + b"</CAEXFile>"
REFUSED = {
    "nothing": (b"", "mtp.xml"),
    "text": (b"wash", "mtp.xml"),
    "cut": (made.old()[:-30], "mtp.xml"),
    "encoding": (b'<?xml version="1.0" encoding="rot13"?><a/>', "mtp.xml"),
    "other xml": (b"<svg/>", "mtp.no_manifest"),
    "no module": (b"<CAEXFile/>", "mtp.no_manifest"),
    "deep": (DEEP, "mtp.too_large"),
    "entities": (b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]><CAEXFile>&d;</CAEXFile>', "mtp.doctype"),
    "external": (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><CAEXFile/>', "mtp.doctype"),
    "zip without": (made.zipped({"read.me": b"x"}), "mtp.no_manifest"),
    "zip cut": (made.split()[:-40], "mtp.zip"),
    "zip damaged": (made.split().replace(b"PK\x05\x06", b"PK\x05\x07"), "mtp.zip"),
    "zip method": (made.zipped({"a.aml": made.old()}, zipfile.ZIP_BZIP2), "mtp.zip"),
    "out of it": (made.zipped({"../../etc/cron.d/a.aml": made.old()}), "mtp.zip_path"),
    "out of it, backslashes": (made.zipped({"..\\..\\a.aml": made.old()}), "mtp.zip_path"),
    "absolute": (made.zipped({"/etc/a.aml": made.old()}), "mtp.zip_path"),
    "drive": (made.zipped({"C:\\a.aml": made.old()}), "mtp.zip_path"),
    "many": (made.zipped({f"{n}.png": b"" for n in range(1_001)}, zipfile.ZIP_STORED), "mtp.too_large"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_broken_or_hostile_is_refused_in_words(what: str) -> None:
    data, code = REFUSED[what]
    error = refused(data)
    assert error.code == code
    assert error.what
    assert error.todo


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtp, "BYTES_MAX", 100_000)
    monkeypatch.setattr(mtp, "UNPACKED_BYTES_MAX", 150_000)
    assert refused(made.zipped({"a.aml": b" " * 100_001})).code == "mtp.too_large"
    half = made.old() + b" " * 80_000
    assert refused(made.zipped({"a.aml": half, "b.aml": half})).code == "mtp.too_large"


def test_an_encrypted_file_is_refused() -> None:
    data = bytearray(made.zipped({"a.aml": made.old()}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refused(bytes(data)).code == "mtp.zip"


def test_mutated_packages_are_read_or_refused() -> None:
    """A sample of what the fault campaign does at full size (part 11.mtp)."""
    from tests.campaign.parsers import mutated

    chance = random.Random(3)
    samples = [made.old(), made.split(), sim_manifest()]
    refusals = 0
    for _ in range(150):
        try:
            read_manifest(mutated(chance.choice(samples), chance), "x")
        except LinesideError as error:
            refusals += 1
            assert error.code.startswith("mtp.")
    assert refusals > 20


REAL = {
    "mtppy/mtp_example.aml": ["Transfer_Media"],
    "pimad/PiMAd-core.0-0-1.mtp": ["HandInHand", "AtomicLove"],
    "polaris/Dosiermodul.(1.0.3.0).zip": ["Fill", "DoseAmount", "DoseConti", "Empty"],
    "polaris/Huber_MTP_v14.1.zip": ["CirculationService", "TemperingService"],
    "polaris/ZVEI_Rührreaktor_v2.mtp": ["Fill_Service", "Aerate_Service", "Stir_Service", "Empty_Service"],
}


@pytest.mark.parametrize("name", REAL)
def test_real_packages_are_read(name: str) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there")
    module = read_manifest((SHARED / name).read_bytes(), name)
    assert [one.name for one in module.services] == REAL[name]
    assert all(set(service.nodes) >= {"state", "command", "procedure", "enabled"} for service in module.services)
