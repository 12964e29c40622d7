"""Row 9: devices that lose, delay, freeze, clamp or forge; their own write counters judge."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from drivers.modbus_link import Link
from edge.equipment import WriteOutcome, WriteResult
from tests.campaign import Part, Tally, planted
from tests.contract.conformance import PATIENCE_S, Rig, Subject, pump_subject, reactor_subject, rig, simulated
from tests.contract.wire import sends_again

WRITES_A_SEED: Final = 8
TIMEOUT_S: Final = 0.3
FAULTS: Final = ("lost reply", "clamped", "frozen", "silent", "bad quality", "no number", "cancelled", "none")


async def write_under(fault: str, subject: Subject, made: Rig, chance: random.Random) -> str:
    """One write while the device has this fault; returns what was violated, empty when nothing was."""
    tag, control = subject.setpoint, subject.control
    low, high = min(subject.values), max(subject.values)
    value: Any = round(chance.uniform(low + 1, high), 1)
    before = (await control.counters())[tag]
    match fault:
        case "lost reply" | "cancelled":
            await control.drop_replies(10)
        case "clamped":
            await control.clamp(tag, low)
        case "frozen":
            shown = made.equipment.latest(tag)
            if shown is not None and abs(float(shown.value) - value) < 1e-3:
                value = round(value - 1, 1)  # frozen at what is written it would be right
            await control.freeze(tag)
        case "silent":
            await control.silent()
        case "bad quality":
            await control.bad_quality(tag)
        case "no number":
            value = chance.choice([float("nan"), float("inf"), subject.too_high, "text", True])
        case _:
            pass
    writing = asyncio.create_task(made.equipment.writer(tag).write_and_read_back(value))
    if fault == "cancelled":
        async with asyncio.timeout(PATIENCE_S):
            while (await control.counters())[tag] == before and not writing.done():
                pass  # each look is a round trip to the device
        writing.cancel()
    (outcome,) = await asyncio.gather(writing, return_exceptions=True)
    await control.clear()
    await made.until(lambda: made.good(subject.measured) and made.good(tag))
    count = (await control.counters())[tag] - before
    return judge(fault, value, count, outcome)


def judge(fault: str, value: Any, count: int, outcome: WriteOutcome | BaseException) -> str:
    what = f"{fault}, value {value}: the device counted {count} writes, the outcome was {outcome}"
    if count > 1:
        return f"written more than once: {what}"
    if isinstance(outcome, asyncio.CancelledError):
        return "" if fault == "cancelled" else what
    if isinstance(outcome, BaseException):
        return what
    reading = outcome.reading
    seen = outcome.result is not WriteResult.REFUSED and reading is not None and reading.good
    seen = seen and abs(float(reading.value) - value) < 1e-3
    wrong = {
        # The reactor's new value comes with a new quality: a good one may be believed.
        WriteResult.CONFIRMED: count != 1 or not seen or fault not in {"none", "cancelled", "bad quality"},
        WriteResult.REFUSED: count != 0 or fault == "none",
        WriteResult.UNKNOWN: fault in {"none", "no number"},
    }
    if wrong[outcome.result]:
        return f"the outcome is not what happened: {what}"
    return ""


def against(device: str, subject_at: Callable[..., Subject]) -> Callable[[int, Path, Tally], Any]:
    async def inject(seed: int, folder: Path, tally: Tally) -> None:
        chance = random.Random(seed)
        with simulated(device, folder) as (port, control):
            subject = subject_at(port, control)
            connection = subject.plant.connections["device"].model_copy(update={"timeout_s": TIMEOUT_S})
            plant = subject.plant.model_copy(update={"connections": {"device": connection}})
            async with rig(plant) as made:
                await made.until(lambda: all(made.good(tag) for tag in plant.tags()))
                for _ in range(WRITES_A_SEED):
                    fault = chance.choice(FAULTS)
                    tally.fault(fault != "none")
                    if what := await write_under(fault, subject, made, chance):
                        tally.violated(what)

    return inject


PARTS = (
    Part(
        9,
        "modbus",
        "lost and cut-off replies, silence, clamping, freezing, bad quality, impossible values at the simulated pump",
        gate=500,
        full=50_000,
        inject=against("pump", pump_subject),
        planted={
            "a write is repeated": planted(
                against("pump", pump_subject),
                "more than once",
                {"drivers.modbus_link.Link.exchange": sends_again(Link.exchange)},
            )
        },
    ),
    Part(
        9,
        "opcua",
        "the same at the simulated reactor",
        gate=500,
        full=50_000,
        inject=against("reactor", reactor_subject),
        planted={
            "a reading is not compared": planted(
                against("reactor", reactor_subject), "not what happened", {"edge.equipment.agrees": lambda *_: True}
            )
        },
    ),
)
