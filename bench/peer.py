"""`python -m bench.peer FILE STEPS`: durable steps by DBOS on SQLite, as it is set up by itself. For each line that it
reads it runs one workflow, and says how many steps a second that made. It ends with its input."""

from __future__ import annotations

import sys
import time

from dbos import DBOS


@DBOS.step()  # type: ignore[untyped-decorator]
def _do(number: int) -> int:
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator]
def _workflow(steps: int) -> float:
    begun_s = time.perf_counter()
    for number in range(steps):
        _do(number)
    return steps / (time.perf_counter() - begun_s)


def main(path: str, steps: int) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{path}",
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    for _ in sys.stdin:
        print(_workflow(steps), flush=True)
    DBOS.destroy()


main(sys.argv[1], int(sys.argv[2]))
