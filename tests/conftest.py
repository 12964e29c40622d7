"""What every test may use, and what every test must leave behind: nothing."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import settings

# how long an example takes says something about the machine, not about the code
settings.register_profile("lineside", settings(), deadline=None)
settings.load_profile("lineside")


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Call it for a TCP port of 127.0.0.1 that nobody listens on. Never the same one twice in a test."""
    given: set[int] = set()

    def port() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                number: int = probe.getsockname()[1]
            if number not in given:
                given.add(number)
                return number

    return port


@pytest.fixture
def needs_program() -> Callable[[str], str]:
    """Call it with a program's name for its path. Where the program is missing the test is skipped, and fails
    when CI=true: a run that counts leaves nothing out."""

    def path(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if found:
            return found
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} is not installed")
        pytest.skip(f"{name} is not installed")

    return path


@pytest.fixture
async def _task_watch() -> AsyncIterator[None]:
    yield
    mine = asyncio.current_task()
    for _ in range(10):  # a task that was cancelled just now needs its turn to end
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not mine]
    assert not left, f"tasks left open: {left}"


@pytest.fixture(autouse=True)
def _no_task_left_open(request: pytest.FixtureRequest) -> None:
    """Every asynchronous test fails that leaves a task open. Set up first, so it looks last."""
    if inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_task_watch")
