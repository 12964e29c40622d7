"""What a process at the line carries: a module that is not configured is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from demo.rig import PEOPLE
from drivers.sim.cell import plant_bytes
from provisioning.device import init_device

NEVER = {
    "aiosqlite", "apscheduler", "cel_expr_python", "fastapi", "httpx", "iotcore", "jinja2", "lxml", "numpy", "paho",
    "pcodec", "rich", "sqlalchemy", "sqlite_utils", "starlette", "textual", "typst", "uvicorn", "zstandard",
}  # fmt: skip
"""What no runtime needs before it has a formula: the screen, the hub, the follower, the demo and the tests have
these."""
NOT_AT_A_START = {
    "edge.core.rehearse", "edge.core.review", "edge.core.recipe.draw", "edge.exchange",
    "edge.pack", "edge.views", "_sysconfigdata__linux_x86_64-linux-gnu", "_sysconfigdata__linux_aarch64-linux-gnu",
}  # fmt: skip
"""What is for reading a record or for engineering a recipe, and how Python was built."""

PRINT_WHEN_READY = """
import json, os, signal, sys
from edge import notify

def ready(*_):
    print(json.dumps(sorted(sys.modules)), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

notify.ready = ready
from edge.__main__ import main
main()
"""

BUILT_WHEN_READY = """
import json, os, signal, sys
import typer.main
from edge import notify

made, make = [], typer.main.get_command_from_info
typer.main.get_command_from_info = lambda command_info, **named: (
    made.append(command_info.name) or make(command_info, **named)
)

def below(kind):
    for one in kind.__subclasses__():
        yield from (one, *below(one))

def ready(*_):
    from pydantic import BaseModel
    from edge.core import commands, events, quick
    declared = [one for base in (events.Event, commands.Command) for one in below(base)]
    print(json.dumps({
        "commands": made,
        "models": sorted(f"{one.__module__}.{one.__name__}" for one in below(BaseModel) if one.__pydantic_complete__),
        "declared": len(declared),
        "compiled": sum(one.__init__.__code__.co_filename != quick.__file__ for one in declared),
    }), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

notify.ready = ready
from edge.__main__ import main
main()
"""

PLANT = """\
plant: TEST
connections:
  plc:
    driver: {driver}
    settings: {settings}
units:
  P-1:
    class: pump
    tags:
      speed: {{connection: plc, address: "{address}", unit: mL/min}}
"""
MODBUS = PLANT.format(driver="modbus", settings="{host: 127.0.0.1, port: 9}", address="input 0 float32")
OPCUA = PLANT.format(
    driver="opcua", settings='{endpoint: "opc.tcp://127.0.0.1:9/", security: none}', address="ns=2;s=speed"
)

SCALE = PLANT.format(driver="scale", settings="{host: 127.0.0.1, port: 9}", address="weight").replace("mL/min", "g")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box folder with Modbus alone."""
    folder = tmp_path / "box"
    init_device(folder, box="BOX-1", people=PEOPLE)
    (folder / "plant.yaml").write_text(MODBUS)
    return folder


def when_ready(script: str, box: Path, *command: str) -> Any:
    """What `script` prints when the real command says that it is ready. It must end in order."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *command, "--box", str(box)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def modules_when_ready(box: Path, *command: str) -> set[str]:
    return set(when_ready(PRINT_WHEN_READY, box, *command))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def test_a_runtime_with_modbus_alone_carries_nothing_else(box: Path) -> None:
    modules = modules_when_ready(box, "edge", "run")
    assert not packages(modules) & (NEVER | {"asyncua", "ui", "hub", "provisioning", "demo"})
    assert {m for m in modules if m.startswith("drivers.")} == {
        "drivers.modbus",
        "drivers.modbus_address",
        "drivers.modbus_link",
    }
    assert not modules & NOT_AT_A_START
    assert {"pymodbus", "edge.engine", "edge.desk"} <= modules, "the runtime was not there"


def test_a_start_builds_what_it_uses(box: Path) -> None:
    (box / "recipes" / "cart-b1.yaml").write_bytes(
        (resources.files("edge.core.recipe") / "shipped/cart-b1.yaml").read_bytes()
    )
    (box / "plant.yaml").write_bytes(plant_bytes())
    with (box / "lineside.toml").open("a") as settings:
        settings.write('recipe_approval = "from_folder"\n')
    built = when_ready(BUILT_WHEN_READY, box, "edge", "run")
    assert sorted(built["commands"]) == ["follow", "run"]
    assert set(built["models"]) == {
        *("drivers.modbus._Settings", "drivers.opcua._Settings"),
        *("edge.config.Config", "edge.config.History", "edge.directory.Person", "edge.directory._File"),
        *("edge.core.plant.Plant", "edge.core.recipe.model.Recipe", "edge.wire.Picture", "edge.wire.Sync"),
    }, "a validator is built at import, or for a part of what is validated as a whole"
    assert built["declared"] > 100 > 4 * built["compiled"] > 0


def test_a_runtime_with_a_scale_alone_carries_no_library_of_another_protocol(box: Path) -> None:
    (box / "plant.yaml").write_text(SCALE)
    modules = modules_when_ready(box, "edge", "run")
    assert {m for m in modules if m.startswith("drivers.")} == {"drivers.scale", "drivers.wire"}
    assert not packages(modules) & (NEVER | {"asyncua", "pymodbus", "serial"})


def test_what_is_configured_is_there_and_the_broker_is_the_followers(box: Path) -> None:
    (box / "plant.yaml").write_text(OPCUA)
    with (box / "lineside.toml").open("a") as settings:
        settings.write('\n[broker]\nurl = "mqtt://127.0.0.1:9"\n[hub]\npublic_key = "device.pub"\n')
    modules = modules_when_ready(box, "edge", "run")
    assert not packages(modules) & (NEVER | {"pymodbus"})
    assert "asyncua" in modules
    follower = modules_when_ready(box, "edge", "follow")
    assert "paho" in packages(follower)
    assert not packages(follower) & (NEVER - {"paho"} | {"asyncua", "pymodbus", "drivers", "ui", "hub", "ruamel"})
    assert not {m for m in follower if m.startswith(("edge.core.recipe", "edge.core.plant", "edge.core.line"))}


def imported(code: str) -> set[str]:
    """The modules that are there after `code`, in an interpreter of its own."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout))


def test_the_core_brings_no_clock_no_loop_and_no_socket() -> None:
    libraries = imported(
        "from pydantic import BaseModel, TypeAdapter\nTypeAdapter(type('Any', (BaseModel,), {}))\n"
        "import orjson, ruamel.yaml\nfrom cryptography.hazmat.primitives.asymmetric import ed25519"
    )
    core = imported(
        "import importlib, pkgutil, edge.core\n"
        "for module in pkgutil.walk_packages(edge.core.__path__, 'edge.core.'): importlib.import_module(module.name)"
    )
    assert {"edge.core.decide", "edge.core.recipe.check"} <= core
    never = {
        "apsw",
        "asyncio",
        "logging",
        "multiprocessing",
        "sqlite3",
        "ssl",
        "subprocess",
        "asyncua",
        "pymodbus",
        "paho",
    }
    assert not packages(core) & never
    added = packages(core - libraries)
    assert not added & {"random", "secrets", "select", "selectors", "socket", "tempfile", "threading", "time", "uuid"}
    assert {m for m in core if m.startswith("edge")} == {m for m in core if m == "edge" or m.startswith("edge.core")}


def test_a_screen_knows_the_wire_and_nothing_of_what_is_behind_it() -> None:
    modules = imported(
        "import ui.app, ui.__main__\nfrom edge import wire\n"
        "kinds = [m for m in vars(wire).values() if isinstance(m, type) and issubclass(m, wire.Message)]\n"
        "assert len(kinds) > 50 and not [m for m in kinds if m.__pydantic_complete__], 'built at import'"
    )
    ours = {m.removeprefix("edge.") for m in modules if m.startswith("edge.")}
    assert ours == {
        *("core", "core.errors", "core.people", "core.quick", "core.record", "core.terms"),
        *("desk_client", "wire"),
    }
    assert not packages(modules) & {"apsw", "cryptography", "ruamel", "typer"}


def test_validators_of_recipes_are_built_when_one_is_read() -> None:
    script = (
        "from edge.core import plant\nfrom edge.core.recipe import Recipe, model, read_recipe\n"
        "kinds = [m for m in (*vars(model).values(), *vars(plant).values())\n"
        "  if isinstance(m, type) and issubclass(m, plant.Frozen)]\n"
        "assert len(kinds) > 30 and not [m for m in kinds if m.__pydantic_complete__], 'built at import'\n"
        "from importlib import resources\n"
        "read_recipe((resources.files('edge.core.recipe') / 'shipped/cart-b1.yaml').read_bytes(), 'cart-b1')\n"
        "assert Recipe.__pydantic_complete__"
    )
    assert "edge.core.recipe" in imported(script)


def test_the_command_line_imports_only_what_a_command_needs() -> None:
    code = (
        "import contextlib, io, sys\nfrom edge.__main__ import main\n"
        "sys.argv = ['lineside', 'journal', 'verify', '--help']\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main()"
    )
    heavy = {"apsw", "asyncua", "cryptography", "fastapi", "paho", "pymodbus", "ruamel", "textual", "zstandard"}
    assert not packages(imported(code)) & heavy


def test_a_module_too_many_would_be_seen(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PRINT_WHEN_READY", "import textual\n" + PRINT_WHEN_READY)
    assert "textual" in packages(modules_when_ready(box, "edge", "run")) & NEVER
