"""A box on a small disk for each test; see `small_disk`."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.disk import small_disk as disks
from tests.disk.small_disk import Box, NotPossible, make_box


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once and copied."""
    return make_box(tmp_path_factory.mktemp("box") / "box")


@pytest.fixture(params=["tmpfs"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A small file system of the kind that the test is parametrized with."""
    with contextlib.ExitStack() as stack:
        try:
            mount = stack.enter_context(disks.small_disk(tmp_path, request.param))
        except NotPossible as why:
            pytest.skip(str(why))
        yield mount


@pytest.fixture
async def box(small_disk: Path, made_once: Path) -> AsyncIterator[Box]:
    folder = small_disk / "b"
    shutil.copytree(made_once, folder)
    made = Box(folder)
    try:
        yield made
    finally:
        made.make_room()
        await made.stop()
