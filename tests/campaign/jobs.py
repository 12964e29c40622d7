"""One part over several processes: each plays every so many-th seed, and their counts are summed."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection, wait

from tests.campaign import Part, Run, Tally, Violation, every_second, find_planted, play_on, ran


def run_shared(part: Part, wanted: int, jobs: int, *, first_seed: int, deadline_s: float, tally: Tally) -> Run:
    """As `run_part`, with `jobs` processes. `tally` holds their sums while they play."""
    began_s = time.monotonic()
    missed = asyncio.run(find_planted(part))
    context = multiprocessing.get_context("spawn")
    each = -(-wanted // jobs)
    told: dict[Connection, Tally] = {}
    processes = []
    for job in range(jobs):
        receiver, sender = context.Pipe(duplex=False)
        left_s = deadline_s - time.monotonic()
        process = context.Process(
            target=_play, args=(part.id, each, first_seed + job, jobs, left_s, sender), name=f"{part.id} {job}"
        )
        process.start()
        sender.close()  # so that its end is seen, however it ends
        told[receiver] = Tally(under_way=first_seed + job)
        processes.append(process)
    open_ends = set(told)
    while open_ends:
        for end in wait(open_ends):
            assert isinstance(end, Connection)
            try:
                told[end] = end.recv()
            except EOFError:
                open_ends.remove(end)
        _sum(told.values(), tally)
    for process in processes:
        process.join()
        if process.exitcode:
            tally.violations.append(Violation(tally.under_way, f"{process.name} ended with {process.exitcode}"))
    return ran(part, wanted, first_seed, tally, missed, began_s)


def _sum(told, tally: Tally) -> None:
    tally.injected = sum(one.injected for one in told)
    tally.seeds = sum(one.seeds for one in told)
    tally.under_way = max(one.under_way for one in told)
    tally.violations = sorted((found for one in told for found in one.violations), key=lambda found: found.seed)


def _play(part_id: str, wanted: int, first_seed: int, step: int, left_s: float, sender: Connection) -> None:
    from tests.campaign.rows import PARTS

    part = next(part for part in PARTS if part.id == part_id)
    tally = Tally()
    with every_second(lambda: sender.send(tally)):
        asyncio.run(play_on(part, wanted, tally, first_seed, step, time.monotonic() + left_s))
    sender.send(tally)
