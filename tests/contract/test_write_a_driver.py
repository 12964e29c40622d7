"""The example of the how-to: a driver outside of this tree, found by its entry point, conforms."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from edge.conformance import check_equipment
from edge.equipment import installed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's test, with its driver installed as pip would."""
    folder = shutil.copytree(ROOT / "examples" / "bath", tmp_path / "bath")
    setup = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info"]
    subprocess.run(setup, cwd=folder, check=True)
    before = {*sys.modules}
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("test_bath")
    for name in {*sys.modules} - before:
        if name in {"test_bath", "bath_device", "bath_driver"}:
            del sys.modules[name]


async def test_a_sites_own_driver_is_found_and_conforms(example: ModuleType) -> None:
    found = {one.driver: one for one in installed()}
    assert found["bath"].package == "bath-driver 1.0"
    assert found["bath"].capabilities == ("read", "watch", "write")
    await check_equipment(example.bath)
