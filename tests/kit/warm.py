"""Processes that begin at once: one that has imported everything forks them. Each is as real as one that the system
begins, with its own memory, files and signals; only the second and more that importing takes is not spent again."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

MESSAGE_BYTES_MAX: Final = 65_536
IMPORTED: Final = ("edge.runtime", "edge.follow", "edge.views", "hub.app", "drivers.sim.cell", "demo.broker")
"""What the processes of a line import, with the drivers that are installed."""


class Forked:
    """A process that was forked; it answers like `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, mother: _Mother) -> None:
        self.pid = pid
        self._mother = mother
        self._ended = os.pidfd_open(pid)  # it stays a zombie, and its number its own, until `_settle`
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        """As `asyncio` says it: negative when a signal ended it; None while it runs."""
        if self._code is None and select.select([self._ended], [], [], 0)[0]:
            self._settle()
        return self._code

    def send_signal(self, number: int) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Its exit code, as soon as it has ended."""
        while (code := self.returncode) is None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(self._ended, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._ended)
        return code

    def _settle(self) -> None:
        self._code = self._mother.ask({"ended": self.pid})
        os.close(self._ended)


class _Mother:
    """The process that forks; it ends, and its children with it, when this one does."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = (sys.executable, "-m", "tests.kit.warm", str(theirs.fileno()))
            self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._socket = ours
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], *files: int) -> int:
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        answer = self._socket.recv(MESSAGE_BYTES_MAX)
        assert answer, "the process that forks the others is gone"
        return int(answer)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _mother() -> _Mother:
    return _Mother()


def spawn(arguments: tuple[str, ...], out: BinaryIO) -> Forked:
    """What `python ARGUMENTS` would begin, `-m MODULE` or a file first, with its output to `out`."""
    mother = _mother()
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    return Forked(mother.ask(request, out.fileno()), mother)


# The process that forks -------------------------------------------------------------------------------------------


def _warm_up() -> None:
    import gc
    import importlib
    from importlib.metadata import entry_points

    for name in IMPORTED:
        importlib.import_module(name)
    for driver in entry_points(group="lineside.drivers"):
        driver.load()
    gc.collect()
    gc.freeze()


def _serve(ours: socket.socket) -> list[str]:
    """Fork as asked. Comes back in each child, with its arguments; the mother never does."""
    children = set[int]()
    while True:
        data, files, _, _ = socket.recv_fds(ours, MESSAGE_BYTES_MAX, 1)
        if not data:
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            os._exit(0)
        request = json.loads(data)
        if pid := request.get("ended"):
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            children.discard(pid)
        elif (answer := os.fork()) == 0:
            ours.close()
            for standard in (1, 2):
                os.dup2(files[0], standard)
            os.closerange(3, files[0] + 1)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            return list(request["arguments"])
        else:
            children.add(answer)
        for file in files:
            os.close(file)
        ours.send(str(answer).encode())


def _run(arguments: list[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.modules.pop(arguments[1], None)  # runpy warns of a module that is there already
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    _warm_up()
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
