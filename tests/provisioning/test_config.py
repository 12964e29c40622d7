"""Every way in which the settings can be wrong has its code, its line and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config import CONFIG_BYTES_MAX, read_config
from edge.core.errors import LinesideError
from provisioning.device import init_device


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return init_device(tmp_path / "box", box="suite-3").folder


def refused(folder: Path, data: str | bytes) -> LinesideError:
    (folder / "lineside.toml").write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(LinesideError) as caught:
        read_config(folder)
    return caught.value


def test_every_path_is_absolute_and_relative_ones_start_at_the_box_folder(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (box / "hub.pub").write_text("00" * 32)
    (box / "lineside.toml").write_text(
        'box = "b"\n[broker]\nurl = "mqtt://127.0.0.1:1883"\n'
        '[hub]\npublic_key = "hub.pub"\n[mirror]\npath = "/media/x"\n'
    )
    monkeypatch.chdir(box.parent)
    config = read_config(Path("box"))
    assert config.state_dir == box / "state"
    assert config.desk_socket == box / "state" / "desk.sock"
    assert config.hub
    assert config.hub.public_key == box / "hub.pub"
    assert config.mirror
    assert config.mirror.path == Path("/media/x")


@pytest.mark.parametrize(
    ("text", "code", "line", "hint"),
    [
        ('box = "b"\nplnt = "plant.yaml"\n', "config.unknown_key", 2, '"plant"'),
        ('box = "b"\n\n[broker]\nurl = "mqtt://h:1"\n  ulr = "x"\n', "config.unknown_key", 5, '"url"'),
        ('box = "b"\n[brokr]\nurl = "mqtt://h"\n', "config.unknown_key", 2, '"broker"'),
        ('box = "b"\nfolder = "/etc"\n', "config.unknown_key", 2, "Known here"),
        ('state_dir = "state"\n', "config.required", 0, "box"),
        ('box = "b"\n[broker]\nca = "x"\n', "config.required", 2, "url"),
        ("box = 3\n", "config.type", 1, "quotation"),
        ('box = "b"\nspeed = "2"\n', "config.type", 2, "quotation"),
        ('box = "b"\nspeed = true\n', "config.type", 2, "quotation"),
        ('box = "b"\nbroker = "mqtt://h"\n', "config.type", 2, "quotation"),
        ('box = "b"\nspeed = 0.5\n', "config.value", 2, "speed"),
        ('box = "b"\nspeed = nan\n', "config.value", 2, "speed"),
        ('box = "b"\n[broker]\nurl = "http://h"\n', "config.value", 3, "url"),
        ('box = "b"\nbox = "c"\n', "config.not_toml", 2, ""),
        ("box = b\n", "config.not_toml", 1, ""),
        (f"box = {'[' * 900}\n{'[' * 900}\n", "config.not_toml", 0, ""),
        ("a." * 60_000 + "a = 1\n", "config.line_too_long", 1, ""),
        ("a." * 400 + "a = 1\n", "config.required", 0, ""),
        ('box = "b"\nplant = "nowhere.yaml"\n', "config.path_missing", 2, "device init"),
        (f'box = "b"\nplant = "{"9" * 400}"\n', "config.path_missing", 2, "device init"),
        (f'box = "b"\ndesk_socket = "/run/{"x" * 120}"\n', "config.socket_path_long", 2, "desk_socket"),
    ],
)
def test_wrong_settings_are_refused_with_code_line_and_hint(
    box: Path, text: str, code: str, line: int, hint: str
) -> None:
    error = refused(box, text)
    assert error.code == code, error
    assert error.place
    assert error.place.line == line
    assert hint in error.todo


def test_all_findings_are_told_at_once(box: Path) -> None:
    error = refused(box, 'box = 1\nspeed = 0\nplnt = "x"\n')
    assert sorted([error.code, *(other.code for other in error.others)]) == [
        "config.type",
        "config.unknown_key",
        "config.value",
    ]


def test_bytes_that_are_no_text_and_files_too_large_are_refused(box: Path) -> None:
    broken = refused(box, b'box = "b"\nplant = "\xff"\n')
    assert (broken.code, broken.place and broken.place.line) == ("config.not_utf8", 2)
    assert refused(box, b"#" * (CONFIG_BYTES_MAX + 1)).code == "config.too_large"


def test_a_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"config\.missing"):
        read_config(tmp_path)
    (tmp_path / "lineside.toml").mkdir()
    with pytest.raises(LinesideError, match=r"config\.unreadable"):
        read_config(tmp_path)
