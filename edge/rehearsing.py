"""The rehearsal of a recipe that is submitted, in a process of its own: the runtime commands equipment meanwhile.

It is given what is sealed in the library, by name, so that what is rehearsed is what is signed.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from edge.core.errors import LinesideError
from edge.core.quick import dataclass
from edge.library import REPORT_BYTES_MAX, Library

LOWEST_PRIORITY: Final = 19
REHEARSAL_S_MAX: Final = 900.0
"""Far more than 1,000 steps take on the slowest box."""
SAID_BYTES_MAX: Final = 2_000


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A report, what it says in a sentence, and whether everything was seen."""

    report: bytes
    said: str
    ok: bool


async def rehearse(folder: Path, seal: str, plant: str) -> Rehearsed:
    """Rehearse the recipe with this seal on the plant with this content; both are in the library in `folder`.

    Raises `recipe.rehearsal` when the process ended without a report. Cancelled, it leaves no process behind."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge.rehearsing", str(folder), seal, plant),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        async with asyncio.timeout(REHEARSAL_S_MAX), asyncio.TaskGroup() as both:
            report = both.create_task(_read(child.stdout, REPORT_BYTES_MAX))
            said = both.create_task(_read(child.stderr, SAID_BYTES_MAX))
        code = await child.wait()
    except TimeoutError as error:
        raise _ended(f"it took longer than {REHEARSAL_S_MAX:.0f} s") from error
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if code or len(report.result()) > REPORT_BYTES_MAX:
        raise _ended(said.result().decode(errors="replace").strip() or f"it ended with code {code}")
    return _summed_up(report.result())


async def _read(stream: asyncio.StreamReader, limit: int) -> bytes:
    """What the child says, one byte more than the limit at most; the rest is let pass."""
    kept = b""
    while piece := await stream.read(65_536):
        kept = (kept + piece)[: limit + 1]
    return kept


def _summed_up(report: bytes) -> Rehearsed:
    facts = orjson.loads(report)
    seen, of = (sum(one[key] for one in facts["coverage"].values()) for key in ("seen", "of"))
    verdict = "everything was seen" if facts["ok"] else "not everything was seen, or a batch ended as it should not"
    said = f"{seen} of {of} points in {len(facts['batches'])} batches, Lineside {facts['lineside']}: {verdict}."
    return Rehearsed(report, said, bool(facts["ok"]))


def _ended(why: str) -> LinesideError:
    return LinesideError(
        "recipe.rehearsal",
        f"The recipe could not be rehearsed: {why}",
        effect="Nothing was submitted.",
        todo="Try `lineside recipe rehearse FILE --plant plant.yaml`: it shows how far it comes.",
    )


# The child -----------------------------------------------------------------------------------------------------------


def _report(folder: Path, seal: str, plant: str) -> dict[str, Any]:
    import edge
    import edge.core.rehearse as rehearsal
    from drivers.sim.physics import VirtualCell

    library = Library(folder)
    recipe, on = library.recipe(seal), library.plant(plant)
    return rehearsal.as_json(rehearsal.rehearse(recipe, seal, on, VirtualCell(on), lineside=edge.__version__))


if __name__ == "__main__":
    os.nice(LOWEST_PRIORITY)
    try:
        sys.stdout.write(json.dumps(_report(Path(sys.argv[1]), *sys.argv[2:4]), ensure_ascii=False, indent=1))
    except LinesideError as refusal:
        sys.exit(str(refusal))
