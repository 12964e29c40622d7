"""The same measured on a disk whose flush takes a millisecond, as that of a good industrial SSD.

The flush is made slow below the system's library, in a process that has `slow_flush.c` preloaded: a layer written in
Python would take the interpreter's lock for every page that is written, and so measure itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import Figure, Say

DISK: Final = "1 ms flush"
SOURCE: Final = Path(__file__).with_name("slow_flush.c")


def on_slow_disk(module: str, say: Say) -> list[Figure]:
    """What `measure_disk` of a module finds there; nothing without a C compiler."""
    if not shutil.which("cc"):
        say("no C compiler: nothing is measured with a slow flush")
        return []
    with TemporaryDirectory(prefix="bench-") as folder:
        library = Path(folder, "slow_flush.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-nostdlib", "-w", "-o", library, SOURCE], check=True)
        command = [sys.executable, "-m", "bench.slow", module]
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = "[]"
            for line in process.stdout:  # the last one has the figures
                if not line.startswith("["):
                    say(line.strip())
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return [Figure(**each) for each in json.loads(line)]


if __name__ == "__main__":
    found = import_module(sys.argv[1]).measure_disk(DISK, lambda what: print(what, flush=True))
    print(json.dumps([asdict(each) for each in found]))
