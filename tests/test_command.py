"""The `lineside` command as a person or a script runs it: refusals in words, exit codes, help and JSON."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import runpy
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from demo.rig import PEOPLE
from edge import wire
from edge.__main__ import main
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.record import fingerprint
from edge.desk_client import connect
from edge.journal import JournalReader, verify_journal
from edge.terminal import EXIT_FOUND, EXIT_JOURNAL, EXIT_REFUSED
from hub.config import init_hub
from provisioning.device import init_device

ROOT = Path(__file__).parents[1]
RECIPE = (ROOT / "edge/core/recipe/shipped/cart-b1.yaml").read_text()
SHIPPED_PLANT = ROOT / "drivers/sim/plant.yaml"
WAIT_S = 120.0

PLANT = """\
plant: TEST
connections:
  plc: {driver: modbus, settings: {host: 127.0.0.1, port: 9}}
units:
  P-1:
    class: pump
    tags:
      speed: {connection: plc, address: input 0 float32, unit: mL/min}
"""
SMALL_RECIPE = """\
recipe: SMALL
version: "1.0"
title: A small recipe
procedure:
  - unit_procedure: All
    operations:
      - operation: All
        steps:
          - {id: "010", phase: instruct, title: Look, text: Look at it.}
"""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


def lineside(*arguments: str | Path, stdin: str = "") -> Done:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "edge", *map(str, arguments)],
        capture_output=True, text=True, input=stdin, timeout=WAIT_S, check=False, cwd=ROOT,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: the same way, less the start of an interpreter."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["lineside", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return Done(int(left.value.code or 0), said.out, said.err)

    return run


def refused(done: Done, code: str, place: str = "") -> None:
    """Exit code 2; on stderr the place, the stable code, a sentence, the effect and a hint; nothing else anywhere."""
    assert done.code == EXIT_REFUSED, done
    assert done.out == ""
    assert "Traceback" not in done.err
    first = done.err.splitlines()[0]
    assert re.match(
        rf"{re.escape(place)}(:\d+)?: {re.escape(code)}: \S.*\S" if place else rf"{re.escape(code)}: \S", first
    ), first
    assert re.search(r"^  effect: \S", done.err, re.MULTILINE)
    assert re.search(r"^  to do:  \S", done.err, re.MULTILINE)


# Recipes --------------------------------------------------------------------------------------------------------------


def line_of(text: str, words: str) -> int:
    return text[: text.index(words)].count("\n") + 1


WRONG = {
    "unknown phase": (RECIPE.replace("phase: instruct", "phase: instrukt", 1), "recipe.unknown_phase", "instrukt"),
    "unbound tag": (
        RECIPE.replace("reactor.temperature_setpoint", "reactor.temprature_setpoint"),
        "recipe.unbound_tag",
        "temprature",
    ),
    "unknown unit": (RECIPE.replace("            unit: degC", "            unit: Grad", 1), "unit.unknown", "Grad"),
    "wrong unit": (
        RECIPE.replace("value: $culture_temperature\n            unit: degC", "value: 37.0\n            unit: rpm"),
        "recipe.wrong_unit",
        "unit: rpm",
    ),
    "limit upside down": (
        RECIPE.replace("low: 2.0, high: 8.0", "low: 8.0, high: 2.0"),
        "recipe.limit_upside_down",
        "low: 8.0, high: 2.0",
    ),
    "cycle": (
        RECIPE.replace("title: Age on arrival", 'next: "010"\n            title: Age on arrival'),
        "recipe.cycle",
        'next: "010"',
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_recipe_that_is_wrong_is_refused_with_its_line(wrong: str, here: Command, tmp_path: Path) -> None:
    text, code, words = WRONG[wrong]
    assert text != RECIPE
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    refused(here("recipe", "check", file, "--plant", SHIPPED_PLANT), code, f"{file}:{line_of(text, words)}")
    said = json.loads(here("recipe", "check", file, "--plant", SHIPPED_PLANT, "--json").out)
    assert said["ok"] is False
    assert said["findings"][0]["code"] == code
    assert said["findings"][0]["line"] == line_of(text, words)


NO_TEXT = {
    "YAML bomb": (b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "document.alias", ":1:4"),
    "depth": (b"[" * 100_000, "document.too_deep", ":1:33"),
    "broken UTF-8": (b"recipe: X\ntitle: \xff\xfe\n", "document.encoding", ":2:8"),
    "nothing": (b"", "recipe.", ""),
}


@pytest.mark.parametrize("wrong", NO_TEXT)
def test_a_file_that_is_no_recipe_is_refused(wrong: str, here: Command, tmp_path: Path) -> None:
    data, code, place = NO_TEXT[wrong]
    file = tmp_path / "wrong.yaml"
    file.write_bytes(data)
    done = here("recipe", "check", file)
    if place:
        refused(done, code, f"{file}{place}")
    else:
        assert done.code == EXIT_REFUSED
        assert "Traceback" not in done.err


def test_a_recipe_of_50_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "big.yaml"
    with file.open("wb") as stream:
        stream.truncate(50 * 1024 * 1024)
    done = lineside("recipe", "check", file)
    refused(done, "file.too_large", str(file))
    assert "1024 KiB" in done.err


def test_everything_wrong_is_said_in_one_run_by_a_real_process(tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    text = RECIPE.replace("low: 2.0, high: 8.0", "low: 8.0, high: 2.0").replace("unit: h\n", "unit: hour\n", 1)
    file.write_text(text)
    done = lineside("recipe", "check", file)
    refused(done, "recipe.limit_upside_down", f"{file}:{line_of(text, 'low: 8.0')}")
    assert f"{file}:{line_of(text, 'unit: hour')}" in done.err


# Settings, keys, ports ------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make_box(folder: Path) -> Path:
    init_device(folder, box="BOX-1", people=PEOPLE)
    with (folder / "lineside.toml").open("a") as settings:
        settings.write('recipe_approval = "from_folder"\n')
    (folder / "plant.yaml").write_text(PLANT)
    (folder / "recipes" / "small.yaml").write_text(SMALL_RECIPE)
    return folder


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return make_box(tmp_path / "box")


@pytest.mark.parametrize("command", ["run", "follow"])
def test_a_misspelt_setting_starts_nothing(command: str, box: Path) -> None:
    with (box / "lineside.toml").open("a") as settings:
        settings.write("\nspede = 2\n")
    before = files(box)
    done = lineside("edge", command, "--box", box)
    refused(
        done, "config.unknown_key", f"{box}/lineside.toml:{line_of((box / 'lineside.toml').read_text(), 'spede')}:1"
    )
    assert '"speed"' in done.err
    assert files(box) == before


@pytest.mark.parametrize(
    ("gone", "code"),
    [
        ("lineside.toml", "config.missing"),
        ("plant.yaml", "config.path_missing"),
        ("device.key", "config.path_missing"),
    ],
)
def test_a_missing_file_starts_nothing(gone: str, code: str, box: Path, here: Command) -> None:
    (box / gone).unlink()
    before = files(box)
    refused(here("edge", "run", "--box", box), code, f"{box}/lineside.toml")
    assert files(box) == before


WRONG_BOX = {
    "phase": ("recipes/small.yaml", "instruct", "instrukt", "recipe.unknown_phase"),
    "driver": ("plant.yaml", "modbus", "modbuzz", "equipment.no_driver"),
    "setting": ("plant.yaml", "port: 9", "prot: 9", "modbus.settings"),
    "address": ("plant.yaml", "input 0", "input zero", "modbus.address"),
}


@pytest.mark.parametrize("wrong", WRONG_BOX)
def test_a_runtime_with_a_wrong_file_says_nothing_in_the_journal(wrong: str, box: Path, here: Command) -> None:
    file, right, instead, code = WRONG_BOX[wrong]
    (box / file).write_text((box / file).read_text().replace(right, instead))
    done = here("edge", "run", "--box", box)
    assert code in done.err.splitlines()[0]
    assert done.code == EXIT_REFUSED
    assert "Traceback" not in done.err
    journal = box / "state" / "journal.db"
    assert not journal.exists() or json.loads(here("journal", "verify", journal, "--json").out)["rows"] == 0
    (box / file).write_text((box / file).read_text().replace(instead, right))
    assert Runtime(box).end().code == 0


def test_a_hub_whose_port_is_in_use_starts_nothing(tmp_path: Path) -> None:
    init_hub(tmp_path / "hub")
    before = files(tmp_path / "hub")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = lineside("hub", "run", "--hub", tmp_path / "hub", "--listen", where)
    refused(done, "hub.port")
    assert where in done.err
    assert files(tmp_path / "hub") == before


def test_device_init_makes_a_box_once(tmp_path: Path) -> None:
    folder = tmp_path / "box"
    first = lineside("device", "init", folder, "--name", "BOX-7", stdin="135790\n")
    assert first.code == 0, first
    public = (folder / "device.pub").read_text().strip()
    assert fingerprint(bytes.fromhex(public)) in first.out
    before = files(folder)
    again = lineside("device", "init", folder, "--name", "BOX-7", stdin="135790\n")
    refused(again, "device.exists", str(folder))
    assert files(folder) == before
    assert (folder / "device.pub").read_text().strip() == public
    hub = tmp_path / "hub"
    assert lineside("hub", "init", hub).code == 0
    before = files(hub)
    assert lineside("hub", "init", hub).code == EXIT_REFUSED
    assert files(hub) == before


# A running box --------------------------------------------------------------------------------------------------------


class Runtime:
    """`lineside edge run` in a process, ready when made."""

    def __init__(self, box: Path) -> None:
        self.box = box
        notices = box / "notify.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(notices))
            told.settimeout(WAIT_S)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge", "edge", "run", "--box", str(box)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                env={**os.environ, "NOTIFY_SOCKET": str(notices)},
            )  # fmt: skip
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
            except TimeoutError:
                self.end(signal.SIGKILL)
                raise
        notices.unlink()

    def end(self, number: int = signal.SIGTERM) -> Done:
        """Send a signal, if it still runs, and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Done:
        out, err = self.process.communicate(timeout=WAIT_S)
        return Done(self.process.returncode, out, err)


async def start_batch(box: Path) -> None:
    async with connect(box / "state" / "desk.sock") as client:
        await client.ask(wire.LogIn(id=uuid4().hex, person="ana", pin="2580"))
        picture = wire.Picture.model_validate((await client.ask(wire.AskStatus(id=uuid4().hex)))["picture"])
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B-1", order="O-1", recipe=picture.recipes[0].seal))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A box whose runtime runs, with one batch under way."""
    box = make_box(tmp_path_factory.mktemp("running") / "box")
    runtime = Runtime(box)
    try:
        asyncio.run(start_batch(box))
        yield box
    finally:
        ended = runtime.end()
    assert (ended.code, ended.err) == (0, "")


def test_a_second_runtime_on_the_same_box_is_refused(running: Path, here: Command) -> None:
    done = lineside("edge", "run", "--box", running)
    refused(done, "journal.in_use")
    assert json.loads(here("sync", "status", "--box", running, "--json").out)["saved"] > 0, (
        "the first one was disturbed"
    )


def test_json_is_what_a_machine_reads(running: Path, here: Command) -> None:
    journal = running / "state" / "journal.db"
    verified = json.loads(here("journal", "verify", journal, "--json").out)
    assert verified["ok"] is True
    assert verified["fault"] is None
    shown = [
        json.loads(line) for line in here("journal", "show", journal, "--json", "--limit", "1000").out.splitlines()
    ]
    assert [row["seq"] for row in shown] == list(range(1, len(shown) + 1))
    assert shown[verified["rows"] - 1]["hash"] == verified["head_hash"]  # the runtime may make rows meanwhile
    assert {"RuntimeStarted", "BatchStarted"} <= {row["row"]["kind"] for row in shown}
    (listed,) = json.loads(here("batch", "list", "--box", running, "--json").out)
    assert (listed["batch"], listed["state"]) == ("B-1", "running")
    record = json.loads(here("batch", "show", "B-1", "--box", running, "--json").out)
    assert (record["order"], [step["step"] for step in record["steps"]]) == ("O-1", ["010"])
    strip = json.loads(here("sync", "status", "--box", running, "--json").out)
    assert strip["rows_made"] == strip["rows_received"] + strip["rows_pending"]
    later = json.loads(here("journal", "verify", journal, "--json").out)
    assert verified["rows"] <= strip["rows_made"] <= later["rows"]
    checked = json.loads(here("recipe", "check", running / "recipes" / "small.yaml", "--json").out)
    assert (checked["ok"], checked["recipe"], checked["steps"]) == (True, "SMALL", 1)


def test_the_same_in_words(running: Path, here: Command) -> None:
    journal = running / "state" / "journal.db"
    assert "rows hold. Head: row" in here("journal", "verify", journal).out
    assert "BatchStarted" in here("journal", "show", journal).out
    assert "B-1  O-1  SMALL 1.0  running" in here("batch", "list", "--box", running).out
    assert "Look" in here("batch", "show", "B-1", "--box", running).out
    assert re.search(
        r"rows made (\d+) = received by the hub 0 \+ pending \1", here("sync", "status", "--box", running).out
    )
    refused(here("batch", "show", "B-2", "--box", running), "batch.unknown")


def test_a_flipped_bit_is_named_and_no_runtime_goes_on_with_it(box: Path, here: Command) -> None:
    assert Runtime(box).end().code == 0
    journal = box / "state" / "journal.db"
    with JournalReader(journal) as reader:
        body = reader.rows(1, 1)[0].body
    data = bytearray(journal.read_bytes())
    data[data.index(body) + 30] ^= 4
    journal.write_bytes(data)
    before = files(box)
    done = here("journal", "verify", journal)
    assert done.code == EXIT_FOUND
    assert "DOES NOT HOLD. Row 2 " in done.out
    done = here("journal", "verify", journal, "--json")
    assert done.code == EXIT_FOUND
    said = json.loads(done.out)
    assert (said["ok"], said["rows"], said["fault"]["row"]) == (False, 1, 2)
    done = lineside("edge", "run", "--box", box)
    refused(done, "journal.damaged")
    assert "Row 2 " in done.err
    assert {name: data for name, data in files(box).items() if "journal" not in name} == {
        name: data for name, data in before.items() if "journal" not in name
    }


# A journal that fails -------------------------------------------------------------------------------------------------


ACTS_BEFORE = 6


async def act_until_refused(box: Path, process: subprocess.Popen[str]) -> tuple[list[str], LinesideError]:
    """Hold and resume; after a while no file of the runtime may grow. What was answered, and what came instead."""
    answered: list[str] = []
    async with connect(box / "state" / "desk.sock") as client:
        await client.ask(wire.LogIn(id=uuid4().hex, person="ana", pin="2580"))
        while True:
            request = wire.ActOnBatch(id=uuid4().hex, batch="B-1", act="resume" if len(answered) % 2 else "hold")
            if len(answered) == ACTS_BEFORE:
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
            try:
                async with asyncio.timeout(WAIT_S):
                    await client.ask(request)
            except LinesideError as error:
                return answered, error
            answered.append(request.id)


def test_a_journal_that_cannot_be_written_ends_the_runtime_and_nothing_is_acknowledged(box: Path) -> None:
    runtime = Runtime(box)
    try:
        asyncio.run(start_batch(box))
        answered, error = asyncio.run(act_until_refused(box, runtime.process))
        ended = runtime.wait()
    finally:
        runtime.end(signal.SIGKILL)
    assert error.code in {"journal.failed", "desk.lost"}
    assert ended.code == EXIT_JOURNAL, ended
    assert ended.err.startswith("journal.failed: ")
    assert "Traceback" not in ended.err
    assert len(answered) == ACTS_BEFORE, "something was acknowledged after the journal had failed"
    again = Runtime(box)  # a failed commit is unknown: what is there is found out by looking
    with JournalReader(box / "state" / "journal.db") as reader:
        made_by = [decode(row.body).event.command_id for row in reader.rows(0, 1000)]
    assert set(answered) <= set(made_by)
    assert again.end().code == 0
    assert verify_journal(box / "state" / "journal.db").ok


# Help -----------------------------------------------------------------------------------------------------------------

COMMANDS = dict(runpy.run_path(str(ROOT / "docs" / "make_reference.py"))["commands"]())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_teaches_by_an_example(name: str, here: Command) -> None:
    done = here(*name.split()[1:], "--help")
    assert (done.code, done.err) == (0, "")
    if not hasattr(COMMANDS[name], "commands"):
        assert re.search(rf"Example:\s+{name}\b", done.out), done.out


def test_the_installed_command_is_this_one() -> None:
    program = shutil.which("lineside", path=str(Path(sys.executable).parent))
    assert program
    done = subprocess.run([program, "recipe", "--help"], capture_output=True, text=True, timeout=WAIT_S, check=True)
    assert "lineside recipe" in done.stdout


def test_what_is_no_command_is_refused(here: Command) -> None:
    assert here("nonsense").code == EXIT_REFUSED
    assert here("recipe", "check").code == EXIT_REFUSED
