"""A box's first files: whole or not at all, never over something else."""

from __future__ import annotations

import io
import os
import re
import stat
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from edge.config import Config, read_config, read_document
from edge.core.errors import LinesideError
from edge.core.plant import read_plant
from edge.core.terms import Role
from edge.directory import Directory
from edge.equipment import Home
from edge.identity import DeviceKey, read_public
from provisioning.device import (
    NewPerson,
    add_person,
    add_person_at_terminal,
    init_device,
    init_device_at_terminal,
    settings_text,
)

ANA = NewPerson("ana", 'Ana "Ñ" Ruiz', [Role.ADMINISTRATOR], "2468", badge="B-1")


def test_the_first_files_are_those_a_box_starts_with(tmp_path: Path) -> None:
    report = init_device(tmp_path / "box", box="suite-3", people=[ANA])
    config = read_config(report.folder)
    assert (config.box, config.folder, config.broker, config.speed) == ("suite-3", report.folder, None, 1.0)
    key = DeviceKey.load(config.device_key)
    assert report.fingerprint == key.fingerprint
    assert read_public(report.folder / "device.pub") == key.public
    assert read_plant(config.plant.read_bytes(), "plant.yaml").plant == "suite-3"
    assert [person.name for person in Directory.load(config.directory).people.values()] == ['Ana "Ñ" Ruiz']
    assert report.files == (
        "device.key",
        "device.pub",
        "directory.toml",
        "lineside.toml",
        "plant.yaml",
        "recipes/",
        "state/",
    )


def test_the_plant_skeletons_example_is_one_that_works(tmp_path: Path) -> None:
    text = (init_device(tmp_path / "box", box="b").folder / "plant.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.endswith(": {}")]
    shown = "\n".join(re.sub(r"^#(?=[a-z]+:$| )(?! [A-Z])", "", line) for line in lines)
    plant = read_plant(shown.encode(), "plant.yaml")
    assert len(plant.tags()) == 3
    for name, connection in plant.connections.items():
        tags = {key: tag for key, tag in plant.tags().items() if tag.connection == name}
        for entry in entry_points(group="lineside.drivers", name=connection.driver):
            entry.load()(connection, tags, now_s=lambda: 0.0, utc=lambda: "", home=Home())


def test_secrets_are_for_their_owner_only_and_no_pin_is_kept(tmp_path: Path) -> None:
    folder = init_device(tmp_path / "box", box="b", people=[ANA]).folder
    for name in ("device.key", "directory.toml"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert ANA.pin not in (folder / "directory.toml").read_text().replace("19456", "")
    assert ANA.pin not in repr(ANA)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    first = init_device(tmp_path / "box", box="b")
    with pytest.raises(LinesideError) as refused:
        init_device(tmp_path / "box", box="b")
    assert refused.value.code == "device.exists"
    assert DeviceKey.load(first.folder / "device.key").fingerprint == first.fingerprint
    (tmp_path / "file").write_text("mine")
    with pytest.raises(LinesideError, match=r"device\.exists"):
        init_device(tmp_path / "file", box="b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["box", "file"]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    assert init_device(tmp_path / "box", box="b").box == "b"


@pytest.mark.parametrize(
    ("box", "person", "code"),
    [
        ("two words", ANA, "config.value"),
        ("b", NewPerson("ana", "Ana", [Role.OPERATOR], "12"), "directory.pin_length"),
        ("b", NewPerson("ana", "Ana", [], "1234"), "config.value"),
        ("b", NewPerson("Ana Ruiz", "Ana", [Role.OPERATOR], "1234"), "config.value"),
    ],
)
def test_a_refusal_leaves_nothing_behind(tmp_path: Path, box: str, person: NewPerson, code: str) -> None:
    with pytest.raises(LinesideError) as refused:
        init_device(tmp_path / "box", box=box, people=[person])
    assert refused.value.code == code
    assert not list(tmp_path.iterdir())


def test_a_folder_in_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"device\.cannot_write"):
        init_device(tmp_path / "nowhere" / "box", box="b")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_directory_keeps_its_owner_whoever_adds_a_person(tmp_path: Path) -> None:
    folder = init_device(tmp_path / "box", box="b").folder
    os.chown(folder / "directory.toml", 12345, 12346)
    add_person(folder, NewPerson("ben", "Ben", [Role.VERIFIER], "1357"))
    kept = (folder / "directory.toml").stat()
    assert (kept.st_uid, kept.st_gid, stat.S_IMODE(kept.st_mode)) == (12345, 12346, 0o600)


async def test_a_person_is_added_once(tmp_path: Path) -> None:
    folder = init_device(tmp_path / "box", box="b", people=[ANA]).folder
    add_person(folder, NewPerson("ben", "Ben", [Role.VERIFIER, Role.SUPERVISOR], "1357", badge="B-2"))
    directory = Directory.load(folder / "directory.toml")
    assert set(directory.people) == {"ana", "ben"}
    assert await directory.verify("ben", "1357")
    before = (folder / "directory.toml").read_bytes()
    for person, code in [
        (NewPerson("ben", "Another", [Role.OPERATOR], "9999"), "device.person_exists"),
        (NewPerson("cy", "Cy", [Role.OPERATOR], "9999", badge="B-2"), "directory.badge_twice"),
    ]:
        with pytest.raises(LinesideError) as refused:
            add_person(folder, person)
        assert refused.value.code == code
    assert (folder / "directory.toml").read_bytes() == before
    assert not list(folder.glob(".*"))


def test_the_settings_skeleton_names_every_setting_and_all_its_lines_are_valid(tmp_path: Path) -> None:
    text = settings_text("b")
    active = "\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line or line.startswith("# ["))
    config = read_document(tmp_path / "lineside.toml", active, Config, folder=tmp_path)
    assert config.broker
    assert config.hub
    assert config.mirror
    assert set(tomllib.loads(active)) == {name for name, f in Config.model_fields.items() if not f.exclude}


async def test_at_the_terminal_pins_come_from_stdin_and_the_fingerprint_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("2468\n1357\n"))
    init_device_at_terminal(tmp_path / "suite-3")
    add_person_at_terminal(tmp_path / "suite-3", "ana", "Ana Ruiz", [Role.OPERATOR], "B-1")
    config = read_config(tmp_path / "suite-3")
    assert config.box == "suite-3"
    assert DeviceKey.load(config.device_key).fingerprint in capsys.readouterr().out
    directory = Directory.load(config.directory)
    assert await directory.verify("admin", "2468")
    assert await directory.verify("ana", "1357")
    with pytest.raises(LinesideError, match=r"device\.exists"):
        init_device_at_terminal(tmp_path / "suite-3")


def test_a_pin_typed_differently_the_second_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["2468", "2486"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    with pytest.raises(LinesideError, match=r"device\.pins_differ"):
        init_device_at_terminal(tmp_path / "box")
    assert not list(tmp_path.iterdir())
