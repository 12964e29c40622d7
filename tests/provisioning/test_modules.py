"""A module's package becomes entries of a plant file that people wrote."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from difflib import ndiff
from pathlib import Path

import pytest
from asyncua import ua
from asyncua.server.server import Server
from typer.testing import CliRunner, Result

from edge.__main__ import app
from edge.clock import SystemClock
from edge.core.errors import LinesideError
from edge.core.plant import Connection, Plant, read_plant
from edge.core.recipe import check_recipe, read_recipe
from edge.equipment import Home
from provisioning.modules import Ask, Wanted, as_told, entries, read_ranges, read_unit_codes
from provisioning.mtp import read_manifest
from tests.provisioning import manifests as made
from tests.provisioning.test_mtp import sim_manifest

PLANT = """\
# The plant of line 3. Ask Ana before you change it.
plant: line-3

connections:
  washer: {driver: opcua, settings: {endpoint: "opc.tcp://127.0.0.1:4840/"}}  # in the cabinet
units:
  BR-1: # qualified in March
    class: bioreactor
    tags:
      temperature: {connection: washer, address: "nsu=a;s=b", unit: degC}   # the long sensor
# nothing below this line
"""
RECIPE = """\
recipe: WASH
version: "1"
title: Wash
units: {processor: {class: cell_processor}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: service, title: Wash, unit: processor, service: wash, procedure: rinse,
             parameters: {volume: {value: 0.5, unit: L}}, timeout: 1 h,
             reports: [{report: used, name: used, unit: mL, limit: {high: 1500}}]}
"""


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "plant.yaml").write_text(PLANT)
    (tmp_path / "cp.aml").write_bytes(sim_manifest())
    (tmp_path / "mixer.mtp").write_bytes(made.split())
    return tmp_path / "plant.yaml"


def run(into: Path, file: str, *more: str) -> Result:
    words = ["equipment", "import-mtp", str(into.parent / file), "--into", str(into)]
    return CliRunner().invoke(app, [*words, *more])


def refused(result: Result) -> LinesideError:
    assert isinstance(result.exception, LinesideError)
    return result.exception


def test_a_module_becomes_a_unit_on_which_a_service_phase_checks_clean(into: Path) -> None:
    result = run(into, "cp.aml", "--unit", "CP-2", "--connection", "washer", "--unit-code", "32001=1e6/mL")
    assert result.exit_code == 0, result.exception
    text = into.read_text()
    assert not [line for line in ndiff(PLANT.splitlines(), text.splitlines()) if line[0] in "-?"]
    plant = read_plant(text.encode(), "plant.yaml")
    unit = plant.units["CP-2"]
    assert (unit.cls, unit.title) == ("cell_processor", "Cell processor")
    volume = unit.tags[unit.services["wash"].parameters["volume"]]
    assert (volume.unit, volume.low, volume.high, volume.access) == ("mL", 50, 2000, "write")
    assert volume.address == "nsu=urn:lineside:sim:processor;s=wash.volume"
    assert unit.tags[unit.services["culture"].reports["density"]].unit == "1e6/mL"
    assert unit.services["wash"].procedures["rinse"].parameters == ("volume",)
    assert unit.services["wash"].procedures["wash"].parameters is None
    assert not check_recipe(read_recipe(RECIPE.encode(), "wash.yaml"), plant)


def test_a_dry_run_shows_the_difference_and_writes_nothing(into: Path) -> None:
    result = run(into, "cp.aml", "--unit", "CP-2", "--connection", "washer", "--dry-run")
    assert result.exit_code == 0, result.exception
    assert into.read_text() == PLANT
    assert "+  CP-2:" in result.stdout
    assert "mtp.unit_code: culture.density: there is no unit for the code 32001." in result.stdout
    assert "Nothing was written." in result.stdout


def test_a_connection_that_is_not_there_is_added_and_machines_get_a_report(into: Path) -> None:
    result = run(into, "mixer.mtp", "--unit", "MX-1", "--connection", "mixer", "--class", "mixer", "--json")
    report = json.loads(result.stdout)
    assert report["module"]["name"] == "Mixer"
    assert report["module"]["files"] == ["MTP/Manifest.aml", "MTP/Parts/Services.aml"]
    assert report["written"] is True
    assert report["difference"].startswith("--- ")
    (service,) = report["services"]
    assert service["procedures"]["Gently"] == {"id": 1, "title": "Gently", "self_completing": False}
    speed = service["parameters"]["Speed"]
    assert (speed["unit"], speed["low"], speed["high"], speed["default"]) == ("rpm", 10.0, 400.5, "60")
    assert [one["code"] for one in report["findings"]] == ["mtp.mode"]
    plant = read_plant(into.read_bytes(), "plant.yaml")
    assert plant.connections["mixer"].settings == {"endpoint": "opc.tcp://192.0.2.7:4840"}
    assert plant.units["MX-1"].tags["Stir_command"].read_back == "Stir_state"


@pytest.mark.parametrize(
    ("endpoint", "code"),
    [("opc.tcp://192.0.2.7", "mtp.no_port"), ("", "mtp.no_endpoint"), ("http://192.0.2.7:80", "mtp.endpoint")],
)
def test_where_the_module_is_is_asked_for_when_the_manifest_does_not_say_it(
    into: Path, endpoint: str, code: str
) -> None:
    (into.parent / "old.aml").write_bytes(made.old(endpoint))
    words = ("old.aml", "--unit", "MX-1", "--connection", "mixer")
    error = refused(run(into, *words))
    assert error.code == code
    assert "--endpoint opc.tcp://" in error.todo
    assert into.read_text() == PLANT
    assert run(into, *words, "--endpoint", "opc.tcp://192.0.2.8:4841").exit_code == 0
    settings = read_plant(into.read_bytes(), "p").connections["mixer"].settings
    assert settings == {"endpoint": "opc.tcp://192.0.2.8:4841"}


def test_another_unit_of_that_name_stays_and_another_place_is_said(into: Path) -> None:
    assert refused(run(into, "cp.aml", "--unit", "BR-1", "--connection", "washer")).code == "mtp.unit_exists"
    result = run(into, "mixer.mtp", "--unit", "MX-1", "--connection", "washer")
    assert "mtp.other_endpoint: The manifest has the module at opc.tcp://192.0.2.7:4840" in result.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--unit-code", "x=mL"), "mtp.option"),
        (("--unit-code", "5=buckets"), "unit.unknown"),
        (("--range", "Stir.Speed=9..1"), "mtp.option"),
        (("--range", "Stir.Speed=1..1e999"), "mtp.option"),
        (("--range", "Stir.Speed"), "mtp.option"),
        (("--server", "other"), "mtp.no_server"),
        (("--class", "a b"), "document.wrong_form"),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(into: Path, words: tuple[str, ...], code: str) -> None:
    error = refused(run(into, "mixer.mtp", "--unit", "MX-1", "--connection", "mixer", *words))
    assert error.code == code
    assert into.read_text() == PLANT


def left_open(endpoint: str = "opc.tcp://192.0.2.7:4840") -> bytes:
    """A mixer of which only the running module says range and unit of the speed."""
    text = made.old(endpoint).decode()
    for name, key, value in (("VMin", "m1", "10"), ("VMax", "m2", "400.5"), ("VUnit", "m3", "1085")):
        text = text.replace(made.attribute(name, value), made.link(name, key))
    nodes = "".join(made.node(key, f"Stir.{key}") for key in ("m1", "m2", "m3"))
    return text.replace(made.node("n0", "Stir.State"), made.node("n0", "Stir.State") + nodes).encode()


def test_a_range_that_nobody_knows_leaves_the_parameter_out_until_it_is_given() -> None:
    module = read_manifest(left_open(), "x")
    imported = entries(module, Plant(plant="p"), Wanted("MX-1", "mixer"))
    assert "Stir_Speed" not in imported.entries["units"]["MX-1"]["tags"]
    assert [one.code for one in imported.findings] == ["mtp.mode", "mtp.unit_at_run", "mtp.range"]
    given = Wanted("MX-1", "mixer", ranges=read_ranges(["Stir.Speed=5..60.5", "Stir.Sped=1..2"]))
    imported = entries(module, Plant(plant="p"), given)
    speed = imported.entries["units"]["MX-1"]["tags"]["Stir_Speed"]
    assert (speed["low"], speed["high"]) == (5.0, 60.5)
    assert imported.findings[-1].what == "--range Stir.Sped: the module has no parameter of this name."


@asynccontextmanager
async def running_module(values: dict[str, tuple[object, ua.VariantType]]) -> AsyncIterator[int]:
    server = Server()
    await server.init()
    server.disable_clock()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace(made.SPACE)
    for name, (value, kind) in values.items():
        node = ua.NodeId(ua.String(name), ua.Int16(space))
        await server.nodes.objects.add_variable(node, name, value, varianttype=kind)
    async with server:
        assert server.bserver is not None
        yield server.bserver.port


async def test_the_running_module_is_asked_for_what_its_manifest_leaves_open(tmp_path: Path) -> None:
    clock = SystemClock()
    ask = Ask(Home("BOX-1", tmp_path, tmp_path, lambda: True), clock.now_s, clock.utc)
    values: dict[str, tuple[object, ua.VariantType]] = {
        "Stir.m1": (12.5, ua.VariantType.Float),
        "Stir.m2": (300.0, ua.VariantType.Double),
        "Stir.m3": (1085, ua.VariantType.Int64),
    }
    async with running_module(values) as port:
        settings = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "none"}
        connection = Connection(driver="opcua", settings=settings, timeout_s=30)
        told = await as_told(read_manifest(left_open(), "x"), connection, {}, ask)
    (speed,) = told.services[0].values
    assert (speed.unit, speed.low, speed.high, speed.told) == ("rpm", 12.5, 300.0, {})
    imported = entries(told, Plant(plant="p"), Wanted("MX-1", "mixer"))
    assert [one.code for one in imported.findings] == ["mtp.mode"]


async def test_a_module_that_is_away_is_said(tmp_path: Path) -> None:
    clock = SystemClock()
    ask = Ask(Home("BOX-1", tmp_path, tmp_path, lambda: True), clock.now_s, clock.utc)
    settings = {"endpoint": "opc.tcp://127.0.0.1:9/", "security": "none"}
    connection = Connection(driver="opcua", settings=settings, timeout_s=0.1)
    with pytest.raises(LinesideError) as caught:
        await as_told(read_manifest(left_open(), "x"), connection, {}, ask)
    assert caught.value.todo


def test_values_at_two_servers_are_imported_one_server_at_a_time() -> None:
    main, parts = made.old_parts()
    other = made.server(made.node("o0", "O.V"), name="Other", endpoint="opc.tcp://192.0.2.9:4840")
    view = made.element(
        "Level", "MTPDataObjectSUCLib/DataAssembly/AnaView", made.attribute("RefID", "lv"), made.link("V", "o0"),
        made.attribute("VUnit", "1342"),
    )  # fmt: skip
    main = main.replace(
        '<InternalElement Name="Instances" RefBaseSystemUnitPath="MTPSUCLib/CommunicationSet/InstanceList">',
        '<InternalElement Name="Instances" RefBaseSystemUnitPath="MTPSUCLib/CommunicationSet/InstanceList">' + view,
    ).replace('<InternalElement Name="PLC"', other + '<InternalElement Name="PLC"')
    module = read_manifest(made.HEAD.format(main + parts).encode(), "x")
    first = entries(module, Plant(plant="p"), Wanted("A", "plc"))
    assert first.findings[-1].what == "Level is left out: it is at the server 'Other'."
    second = entries(module, Plant(plant="p"), Wanted("B", "other", server="Other"))
    assert list(second.entries["units"]["B"]["tags"]) == ["Level"]
    assert second.entries["connections"]["other"]["settings"] == {"endpoint": "opc.tcp://192.0.2.9:4840"}
    text = made.HEAD.format(main + parts).replace(made.link("ControlExt", "n1"), made.link("ControlExt", "o0"))
    with pytest.raises(LinesideError) as caught:
        entries(read_manifest(text.encode(), "x"), Plant(plant="p"), Wanted("A", "plc"))
    assert caught.value.code == "mtp.several_servers"


def mixer(*control: str, speed: str = "") -> bytes:
    """The mixer of 2018 with further nodes: `attribute=node` of its control, and what its parameter has in addition."""
    main, parts = made.old_parts()
    nodes = [one.partition("=")[2] for one in control] + re.findall(r"<Value>(m\d)</Value>", speed)
    last = made.node("n3", "Stir.VExt")
    main = main.replace(last, last + "".join(made.node(one, one) for one in nodes))
    links = "".join(made.link(*one.split("=")) for one in control)
    main = main.replace(made.attribute("OpMode", "0"), links or made.attribute("OpMode", "0"))
    main = main.replace(made.attribute("VMin", "10"), made.attribute("VMin", "10") + speed)
    return made.HEAD.format(main + parts).encode()


def imported(data: bytes, *, switch: bool = False) -> tuple[Plant, list[str]]:
    found = entries(read_manifest(data, "x"), Plant(plant="p"), Wanted("M", "plc", switch=switch))
    text = json.dumps({"plant": "p", **found.entries}).encode()
    return read_plant(text, "p.yaml"), [one.code for one in found.findings]


SHOWN = made.link("VOut", "m8")


@pytest.mark.parametrize(
    ("data", "by"),
    [
        (mixer("ProcParamApplyExt=m1", speed=SHOWN), "nsu=urn:maker:module;s=m1"),
        (mixer("ConfigParamApplyExt=m1", speed=SHOWN), ""),  # for another kind of parameter
        (mixer(speed=SHOWN + made.link("ApplyExt", "m2")), "nsu=urn:maker:module;s=m2"),
        (mixer("ProcParamApplyExt=m1", speed=SHOWN + made.link("ApplyExt", "m2")), "nsu=urn:maker:module;s=m1"),
        (mixer("ProcParamApplyExt=m1", speed=made.link("VFbk", "m8")), "nsu=urn:maker:module;s=m1"),
        (mixer("ProcParamApplyExt=m1", speed=made.link("VRbk", "m8")), "nsu=urn:maker:module;s=m1"),
    ],
)
def test_what_makes_a_parameter_take_effect_is_taken_over(data: bytes, by: str) -> None:
    unit = imported(data)[0].units["M"]
    service = unit.services["Stir"]
    assert list(service.parameters) == ["Speed"]
    if not by:
        assert not service.applied_by
        return
    assert unit.tags[service.applied_by["Speed"]].address == by
    shown = unit.tags[service.in_force["Speed"]]
    assert (shown.address, shown.unit, shown.access) == ("nsu=urn:maker:module;s=m8", "rpm", "read")


def test_a_parameter_of_which_nothing_shows_whether_it_was_applied_is_left_out_and_said() -> None:
    plant, codes = imported(mixer("ProcParamApplyExt=m1"))
    service = plant.units["M"].services["Stir"]
    assert service.parameters == {}
    assert "Stir_Speed" not in plant.units["M"].tags
    assert "mtp.apply" in codes
    only_people = mixer().replace(
        b'<Attribute Name="OpMode"', made.attribute("ProcParamApplyOp").encode() + b'<Attribute Name="OpMode"'
    )
    plant, codes = imported(only_people)
    assert ("Speed" in plant.units["M"].services["Stir"].parameters, "mtp.apply" in codes) == (True, True)


def test_modes_are_shown_always_and_switched_only_when_the_engineer_says_so() -> None:
    words = mixer("OpMode=m1")
    plant, codes = imported(words)
    unit = plant.units["M"]
    assert (unit.services["Stir"].mode, unit.tags["Stir_mode"].access, codes) == ("Stir_mode", "read", [])
    assert imported(words, switch=True)[0].units["M"].tags["Stir_mode"].access == "write"
    bits = mixer("StateAutAct=m1", "SrcExtAct=m2", "StateAutOp=m3", "SrcExtOp=m4")
    service = imported(bits)[0].units["M"].services["Stir"]
    assert (service.automatic, service.to_automatic, service.to_external) == ("Stir_automatic", None, None)
    unit = imported(bits, switch=True)[0].units["M"]
    service = unit.services["Stir"]
    assert (service.to_automatic, service.to_external) == ("Stir_to_automatic", "Stir_to_external")
    assert unit.tags["Stir_to_automatic"].read_back == "Stir_automatic"
    assert unit.tags["Stir_to_external"].read_back == "Stir_external"


def test_the_simulated_module_says_that_its_culture_is_to_be_applied(into: Path) -> None:
    result = run(into, "cp.aml", "--unit", "CP-2", "--connection", "washer", "--unit-code", "32001=1e6/mL", "--switch")
    assert result.exit_code == 0, result.exception
    unit = read_plant(into.read_bytes(), "plant.yaml").units["CP-2"]
    culture = unit.services["culture"]
    assert unit.tags[culture.applied_by["temperature"]].address.endswith("culture.ProcParamApplyExt")
    assert unit.tags[culture.in_force["temperature"]].unit == "degC"


def test_unit_codes_are_read_as_they_are_typed() -> None:
    assert read_unit_codes(["1593=mL/min", "7="]) == {1593: "mL/min", 7: ""}


PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "import-a-module.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
SAYS = {
    "simulate mtp": "Written to",
    "--dry-run": "Nothing was written.",
    "--class cell_processor": "Written to",
    "recipe check": "nothing wrong",
}
"""What each command of the page must say; browsing a running server is shown elsewhere."""


def test_every_command_of_the_page(into: Path) -> None:
    (into.parent / "wash.yaml").write_text(RECIPE)
    said = []
    for command in (COMMANDS[-1], *COMMANDS[:-1]):  # the last one makes the package
        key = next((key for key in SAYS if key in command), "")
        if not key:
            assert command == "lineside equipment browse washer StateCur"
            continue
        words = command.split()[1:]
        in_place = [str(into.parent / word) if word.endswith((".mtp", ".yaml")) else word for word in words]
        done = CliRunner().invoke(app, in_place)
        assert done.exit_code == 0, (command, done.output, done.exception)
        assert SAYS[key] in done.stdout, (command, done.stdout)
        said.append(key)
    assert said == list(SAYS)
