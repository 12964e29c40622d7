"""The tech-transfer pack: whole at the second site, or not taken at all."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import pytest

from edge.core.errors import LinesideError
from edge.core.recipe import read_recipe, seal
from edge.identity import DeviceKey
from edge.pack import Manifest, make_pack, read_pack, unpack
from edge.tarred import header, padding
from tests.exchange.documents import SHIPPED, recipe

SMALL = b"""\
recipe: S
version: "1.1"
title: Small
why: To be tried.
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {id: "010", phase: instruct, title: Look, text: Look at it., why: It may be hot.}
"""


@pytest.fixture
def key(tmp_path: Path) -> DeviceKey:
    return DeviceKey.create(tmp_path / "device.key")


def packed(folder: Path, key: DeviceKey, data: bytes = SMALL) -> tuple[Path, Manifest]:
    (folder / "recipe.yaml").write_bytes(data)
    (folder / "first.yaml").write_bytes(data.replace(b'"1.1"', b'"1.0"').replace(b"Look at it", b"Touch it"))
    (folder / "rehearsal.json").write_text(json.dumps({"ok": True}))
    earlier = [folder / "first.yaml"] if data == SMALL else []
    out = folder / "s.pack"
    made = make_pack(folder / "recipe.yaml", out, key, rehearsal=folder / "rehearsal.json", earlier=earlier)
    return out, made


def test_a_pack_brings_recipe_whys_history_and_rehearsal_to_a_second_site(tmp_path: Path, key: DeviceKey) -> None:
    pack, made = packed(tmp_path, key)
    site = tmp_path / "site"
    assert unpack(pack, key.public, site) == made
    names = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert names == {
        *("recipe.yaml", "recipe.xml", "WHYS.md", "HISTORY.md", "history/01.yaml", "rehearsal.json", "draft.yaml")
    }
    draft = (site / "draft.yaml").read_bytes()
    assert made.device in draft.decode()
    assert seal(read_recipe(draft, "draft.yaml").recipe) == made.seal
    assert (site / "recipe.yaml").read_bytes() == SMALL
    assert "**step 010, Look**: It may be hot." in (site / "WHYS.md").read_text()
    history = (site / "HISTORY.md").read_text()
    assert "| 1.0 |" in history
    assert "## From 1.0 to 1.1" in history
    assert "Touch it" in history
    with tarfile.open(pack) as tar:
        assert tar.getnames()[:2] == ["manifest.json", "manifest.sig"]


@pytest.mark.parametrize(("name", "data"), SHIPPED)
def test_every_why_of_a_shipped_recipe_is_told_and_a_site_without_the_library_gets_its_seal(
    name: str, data: bytes, tmp_path: Path, key: DeviceKey
) -> None:
    pack, _ = packed(tmp_path, key, data)
    shipped = recipe(data)
    unpack(pack, key.public, tmp_path / "site")
    told = (tmp_path / "site" / "WHYS.md").read_text()
    assert [step.id for step in shipped.in_order() if step.why not in told] == []
    assert [key for key, one in shipped.parameters.items() if one.why not in told] == []
    assert seal(read_recipe((tmp_path / "site" / "draft.yaml").read_bytes(), name).recipe) == seal(shipped)


def test_every_flipped_bit_is_found(tmp_path: Path, key: DeviceKey) -> None:
    pack, _ = packed(tmp_path, key)
    whole = pack.read_bytes()
    chance = random.Random(1)
    for at in (*range(2_048), *range(2_048, len(whole), 7)):  # each byte of manifest and signature, then each seventh
        bit = 8 * at + chance.randrange(8)
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LinesideError) as caught:
            read_pack(bytes(damaged), key.public)
        assert caught.value.code.startswith("pack.")


def test_a_pack_cut_or_longer_is_refused(tmp_path: Path, key: DeviceKey) -> None:
    pack, _ = packed(tmp_path, key)
    whole = pack.read_bytes()
    for data in (b"", *(whole[:at] for at in range(0, len(whole), 97)), whole + b"\0", whole + whole):
        with pytest.raises(LinesideError):
            read_pack(data, key.public)


def test_another_devices_pack_is_refused(tmp_path: Path, key: DeviceKey) -> None:
    pack, _ = packed(tmp_path, key)
    other = DeviceKey.create(tmp_path / "other.key")
    with pytest.raises(LinesideError) as caught:
        unpack(pack, other.public, tmp_path / "site")
    assert caught.value.code == "pack.signature"
    assert not (tmp_path / "site").exists()


def test_a_signed_pack_whose_forms_disagree_is_refused(tmp_path: Path, key: DeviceKey) -> None:
    """A signature says who made it, not that it makes sense."""
    pack, _ = packed(tmp_path, key)
    manifest, files = read_pack(pack.read_bytes(), key.public)
    for changed in ({"seal": "0" * 64}, {"version": "2"}, {"recipe": "T"}):
        stated = manifest.model_copy(update=changed).model_dump_json().encode()
        again = {"manifest.json": stated, "manifest.sig": key.sign(b"lineside.pack.1", stated), **files}
        data = b"".join(header(name, len(one)) + one + padding(len(one)) for name, one in again.items()) + bytes(1024)
        with pytest.raises(LinesideError) as caught:
            read_pack(data, key.public)
        assert caught.value.code == "pack.damaged"


def test_nothing_is_overwritten(tmp_path: Path, key: DeviceKey) -> None:
    pack, _ = packed(tmp_path, key)
    with pytest.raises(LinesideError) as caught:
        make_pack(tmp_path / "recipe.yaml", pack, key)
    assert caught.value.code == "pack.exists"
    (tmp_path / "site").mkdir()
    with pytest.raises(LinesideError) as caught:
        unpack(pack, key.public, tmp_path / "site")
    assert caught.value.code == "pack.exists"
