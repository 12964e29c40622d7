"""The library: no row names an object that is not there whole, whenever the power fails."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge import identity, library
from edge.core.errors import LinesideError
from edge.core.recipe import read_recipe, seal
from edge.library import Library
from tests.edge.conftest import RECIPE

PLANT = b"plant: P1\nconnections: {}\nunits: {}\n"
NAME = hashlib.sha256(PLANT).hexdigest()


@dataclass
class Power:
    """What a disk surely keeps: a file's bytes as of its last sync, a folder's names as of its last sync."""

    root: Path
    bytes_of: dict[int, bytes] = field(default_factory=dict)
    names_in: dict[int, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sync(self.root)

    def sync(self, path: Path) -> None:
        inode = path.stat().st_ino
        if path.is_dir():
            self.names_in[inode] = {entry.name: entry.stat().st_ino for entry in path.iterdir()}
        else:
            self.bytes_of[inode] = path.read_bytes()

    def sure(self, path: Path) -> bytes | None:
        """What the file holds after a power failure now; None when it is not there, or has nothing sure in it."""
        inode: int | None = self.root.stat().st_ino
        for part in path.relative_to(self.root).parts:
            inode = self.names_in.get(inode, {}).get(part) if inode is not None else None
        return None if inode is None else self.bytes_of.get(inode)


@pytest.fixture
def power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Power:
    disk = Power(tmp_path)
    really = os.fsync

    def fsync(descriptor: int) -> None:
        really(descriptor)
        disk.sync(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    return disk


def kept(tmp_path: Path) -> tuple[Library, Path]:
    return Library(tmp_path / "state" / "library"), tmp_path / "state" / "library" / "plant" / NAME


def test_what_was_put_is_there_whole_before_a_row_can_name_it(tmp_path: Path, power: Power) -> None:
    store, path = kept(tmp_path)
    store.put("plant", NAME, PLANT)
    assert power.sure(path) == PLANT


def test_what_a_crash_left_with_its_name_not_synced_is_synced_at_the_next_put(tmp_path: Path, power: Power) -> None:
    store, path = kept(tmp_path)
    path.parent.mkdir(parents=True)
    identity.sync_folder(tmp_path)
    identity.sync_folder(tmp_path / "state")
    identity.sync_folder(tmp_path / "state" / "library")
    path.write_bytes(PLANT)
    store.put("plant", NAME, PLANT)
    assert power.sure(path) == PLANT


@pytest.mark.parametrize("forgotten", ["the folder", "the folders above", "the file"])
def test_planted_bug_a_sync_that_is_left_out_is_caught(
    tmp_path: Path, power: Power, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    store, path = kept(tmp_path)
    match forgotten:
        case "the folder":
            monkeypatch.setattr(library, "sync_folder", lambda _: None)
        case "the folders above":
            monkeypatch.setattr(library, "make_folder", lambda folder: folder.mkdir(parents=True, exist_ok=True))
        case _:
            synced = os.fsync
            monkeypatch.setattr(
                os, "fsync", lambda fd: synced(fd) if Path(f"/proc/self/fd/{fd}").readlink().is_dir() else None
            )
    store.put("plant", NAME, PLANT)
    assert power.sure(path) != PLANT


def test_planted_bug_a_name_before_its_content_is_caught(tmp_path: Path, power: Power) -> None:
    _, path = kept(tmp_path)
    identity.make_folder(path.parent)
    with path.open("wb") as stream:  # named before it is written
        identity.sync_folder(path.parent)
        assert power.sure(path) != PLANT
        stream.write(PLANT)


def test_cut_at_any_file_operation_there_is_none_or_a_whole_one(tmp_path: Path) -> None:
    """A killed process, at each call that changes the folder: what has its name is whole, and the next put mends it."""
    for at in range(1, 40):
        folder = tmp_path / str(at)
        child = os.fork()
        if child == 0:
            _put_and_die(folder, at)
        _, status = os.waitpid(child, 0)
        path = folder / "library" / "plant" / NAME
        assert not path.exists() or path.read_bytes() == PLANT
        Library(folder / "library").put("plant", NAME, PLANT)
        assert path.read_bytes() == PLANT
        assert [file.name for file in path.parent.iterdir()] == [NAME], "a cut leaves nothing that stays"
        if os.waitstatus_to_exitcode(status) == 0:
            assert at > 5
            return
    raise AssertionError("it never came to its end")


def _put_and_die(folder: Path, at: int) -> None:
    import sys

    seen = 0

    def hook(event: str, _args: object) -> None:
        nonlocal seen
        if event == "open" or event.startswith("os."):
            seen += 1
            if seen == at:
                os._exit(7)

    try:
        sys.addaudithook(hook)
        Library(folder / "library").put("plant", NAME, PLANT)
    finally:
        os._exit(int(sys.exc_info()[0] is not None))


@pytest.mark.parametrize("wrong", [b"", PLANT[:-5], b"plant: OTHER\n", b"\xff\xfe"])
@pytest.mark.parametrize("kind", ["plant", "recipe"])
def test_a_torn_or_foreign_object_is_found_on_reading_and_on_putting(tmp_path: Path, kind: str, wrong: bytes) -> None:
    store = Library(tmp_path)
    data = PLANT if kind == "plant" else RECIPE.encode()
    name = NAME if kind == "plant" else seal(read_recipe(data, "r").recipe)
    store.put(kind, name, data)
    (tmp_path / kind / name).write_bytes(wrong)
    for work in (lambda: getattr(store, kind)(name), lambda: store.put(kind, name, data)):
        with pytest.raises(LinesideError) as refused:
            work()
        assert refused.value.code == "library.damaged"
    (tmp_path / kind / name).unlink()
    store.put(kind, name, data)
    getattr(store, kind)(name)
