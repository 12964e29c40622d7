"""The units are valid, closed down, and leave the processes what they need."""

from __future__ import annotations

import configparser
import re
import socket
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge import notify
from edge.__main__ import app

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "systemd").glob("*.service"))
DAILY = {"lineside-hub-backup"}
"""Started by a timer of the same name, and ended when done."""
STAYING = [unit for unit in UNITS if unit.stem not in DAILY]
EXPOSURE_MAX = 1.5
"""Of systemd's scale from 0 (safe) to 10."""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[Path], Path]:
    """The unit as it would stand on a machine where the program is where the unit says."""

    def copy(unit: Path) -> Path:
        target = tmp_path / unit.name
        target.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
        return target

    return copy


def test_there_is_a_unit_for_each_process() -> None:
    assert [unit.stem for unit in STAYING] == ["lineside-follower", "lineside-hub", "lineside-runtime"]
    assert {timer.stem for timer in (ROOT / "systemd").glob("*.timer")} == DAILY


@pytest.mark.parametrize("name", sorted(DAILY))
def test_a_timer_starts_its_unit_each_day(
    name: str, needs_program: Callable[[str], str], installed: Callable[[Path], Path]
) -> None:
    installed(ROOT / "systemd" / f"{name}.service")
    timer = installed(ROOT / "systemd" / f"{name}.timer")
    assert run(needs_program("systemd-analyze"), "verify", "--man=no", str(timer)) == ""
    settings = configparser.RawConfigParser(strict=False)
    settings.read_string(timer.read_text())
    assert "Next elapse" in run(needs_program("systemd-analyze"), "calendar", settings["Timer"]["OnCalendar"])
    assert settings["Timer"]["Persistent"] == "true", "a machine that was off makes up for it"


@pytest.mark.parametrize("name", sorted(DAILY))
def test_what_a_timer_starts_is_a_command_that_there_is(name: str) -> None:
    settings = configparser.RawConfigParser(strict=False)
    settings.read_string((ROOT / "systemd" / f"{name}.service").read_text())
    assert settings["Service"]["Type"] == "oneshot"
    assert "StartLimitIntervalSec" not in settings["Unit"]
    program, *words = settings["Service"]["ExecStart"].split()
    assert Path(program).name == "lineside"
    said = CliRunner().invoke(app, [*words[:2], "--help"])
    assert said.exit_code == 0
    for option in (word for word in words if word.startswith("--")):
        assert option in said.output


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_wrong(
    unit: Path, needs_program: Callable[[str], str], installed: Callable[[Path], Path]
) -> None:
    assert run(needs_program("systemd-analyze"), "verify", "--man=no", str(installed(unit))) == ""


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_process_may_do_only_what_it_needs(
    unit: Path, needs_program: Callable[[str], str], installed: Callable[[Path], Path]
) -> None:
    report = run(
        needs_program("systemd-analyze"), "security", "--offline=true", "--no-pager",
        f"--threshold={int(EXPOSURE_MAX * 10)}", str(installed(unit)),
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)
    assert found
    assert float(found[1]) <= EXPOSURE_MAX


@pytest.mark.parametrize("unit", STAYING, ids=lambda unit: unit.stem)
def test_a_process_keeps_what_the_clock_needs_and_tells_how_it_does(unit: Path) -> None:
    text = unit.read_text()
    settings = configparser.RawConfigParser(strict=False)
    settings.read_string(text)
    service = dict(settings["Service"])
    assert "SystemCallFilter=adjtimex clock_adjtime" in text
    assert ("SystemCallFilter=setpriority" in text) is ("follower" in unit.name), "its children get the lowest priority"
    assert "protectclock" not in service
    assert service.get("procsubset", "all") == "all"
    assert service["type"] == "notify"
    assert int(service["watchdogsec"]) > 0
    assert service["restart"] == "always"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert Path(service["execstart"].split()[0]).name in scripts
    accounts = (ROOT / "systemd" / "lineside.sysusers").read_text()
    assert f"u {service['user']} -" in accounts


@pytest.mark.parametrize("abstract", [True, False])
def test_messages_reach_systemd(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"@{tmp_path}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        assert notify.ready("2 units,\nno batch")
        assert notify.watchdog()
        assert notify.status("one\nREADY=0")
        assert notify.stopping()
        said = [systemd.recv(4096) for _ in range(4)]
    assert said == [b"READY=1\nSTATUS=2 units, no batch", b"WATCHDOG=1", b"STATUS=one READY=0", b"STOPPING=1"]
    assert not notify.watchdog()


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    assert not notify.ready()
    assert notify.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "10000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_s() == 10
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_s() is None
