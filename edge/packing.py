"""Packing and thinning of process values, in a process of its own.

numpy and pcodec cost the follower 26 MiB for as long as it runs. So it starts `python -m edge.packing` when there is
something to do: one round at the lowest priority, then that process ends. They talk in lines of JSON: the child is told
what to do and which damaged windows to leave; it says which window it wants to thin, and does so only when the follower
answers that the row about it is durable. When the follower goes, the child thins nothing more and ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson

from edge.core import commands as cm
from edge.core.errors import LinesideError

LOWEST_PRIORITY: Final = 19
REFUSED: Final = 2
_log = logging.getLogger("lineside.packing")


# The follower's side -----------------------------------------------------------------------------------------------


async def pack_and_thin(
    path: Path, keep_us: int, bucket_us: int, left: set[int], thin: Callable[[cm.ThinValues], Awaitable[None]]
) -> None:
    """One round over `path`: all that is sealed is packed, all that is old is thinned. `thin` has the row made that
    lets a window be thinned. `left` are the damaged windows that are left alone; those that are found are added.

    Raises what `thin` raises, and `values.not_packed`. Cancelled, it leaves no process behind."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edge.packing",
        str(path),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None

    async def tell(what: object) -> None:
        assert child.stdin is not None
        with contextlib.suppress(ConnectionError):  # it ended: its exit code says more
            child.stdin.write(orjson.dumps(what) + b"\n")
            await child.stdin.drain()

    why = "no reason"
    try:
        await tell({"keep_us": keep_us, "bucket_us": bucket_us, "left": sorted(left)})
        while line := await child.stdout.readline():
            match orjson.loads(line):
                case {"thin": facts}:
                    await thin(cm.ThinValues(**facts))
                    await tell("durable")
                case {"left": window, "why": str(text)}:
                    left.add(window)
                    _log.error("%s", text)
                case {"failed": str(text)}:
                    why = text
        code = await child.wait()
    except BaseException:  # cancelled, or thinning was refused: no process is left behind
        if child.returncode is None:
            child.kill()
        await child.wait()
        raise
    finally:
        child.stdin.close()
    if code:
        raise LinesideError(
            "values.not_packed",
            f"Packing process values ended with code {code}: {why}",
            effect="Values are stored and readable as they are, and take more space. It is tried again.",
            todo="Look at the follower's log and at the disk's free space if this lasts.",
        )


# The child ---------------------------------------------------------------------------------------------------------


def _round(path: Path) -> int:
    """One round as stdin asks for it; the exit code."""
    from edge.history import Packer

    asked = orjson.loads(sys.stdin.buffer.readline())
    try:
        with _alone(path) as alone:
            if not alone:
                return 0
            with closing(Packer(path, asked["left"])) as packer:
                while _said(packer, packer.pack_next):
                    pass
                while thinning := _said(packer, lambda: packer.thinnable(asked["keep_us"], asked["bucket_us"])):
                    if isinstance(thinning, bool):  # a window that is left: the next one
                        continue
                    if thinning.command.tags:
                        _say({"thin": asdict(thinning.command)})
                        if not sys.stdin.buffer.readline():  # nobody is there any more
                            return 0
                    packer.thin(thinning)
    except LinesideError as error:
        _say({"failed": error.what})
        return REFUSED
    return 0


def _said(packer: Any, work: Callable[[], Any]) -> Any:
    """What `work` gives; True when it found a damaged window instead, which is said and left from now on."""
    known = set(packer.left)
    try:
        return work()
    except LinesideError as error:
        found = packer.left - known
        if not found:
            raise
        for window in found:
            _say({"left": window, "why": str(error)})
        return True


def _say(what: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(what) + b"\n")
    sys.stdout.buffer.flush()


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """False while another packs this file: a follower that was killed may have left one that is about to end."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


if __name__ == "__main__":
    os.nice(LOWEST_PRIORITY)
    try:
        sys.exit(_round(Path(sys.argv[1])))
    except BrokenPipeError:  # the follower went while something was said to it
        os._exit(0)
