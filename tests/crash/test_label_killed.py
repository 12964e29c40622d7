"""SIGKILL of the real runtime while a label is printed; what came out of the simulated printer is the judge."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from demo.rig import Rig
from demo.script import PINS
from drivers.sim.control import Faults
from drivers.sim.printer import READABLE, WRITABLE, SimPrinter, printer_on
from edge import wire
from edge.core import events as ev
from edge.journal import verify_journal
from tests.crash.runtime_kills import CARELESS, bodies, stored
from tests.kit.operator import logged_in
from tests.kit.warm import spawn

COPIES = 3
RECIPE = f"""\
recipe: LABELS
version: "1"
title: Labels
units: {{printer: {{class: label_printer}}}}
procedure:
  - unit_procedure: U
    operations:
      - operation: O
        steps:
          - {{id: "010", phase: label, title: Label the bag, text: Look at them., name: labels,
             content: {{Batch: batch}}, copies: {COPIES}, code: batch, printer: printer.label}}
"""
PLANT = """\
plant: labels
connections:
  printer: {{driver: printer, settings: {{host: 127.0.0.1, port: {port}, counter: true}}, timeout_s: 60, poll_s: 0.05}}
units:
  PR-1:
    class: label_printer
    tags:
      label: {{connection: printer, address: label, type: text, access: write, stale_s: 60}}
"""


@asynccontextmanager
async def line_with_a_printer(folder: Path) -> AsyncIterator[tuple[Rig, SimPrinter]]:
    """A box with a printer whose labels come out while it is asked how it is."""
    printer = SimPrinter(Faults(READABLE, WRITABLE))
    printer.faults.bad["PR-1.label"] = "slow"
    made = Rig(folder, speed=1.0, cell_speed=1.0, seed=1, spawn=spawn)
    made.lay_out()
    (made.box / "recipes" / "cart-b1.yaml").unlink()
    (made.box / "recipes" / "labels.yaml").write_text(RECIPE)
    made.settle(9)
    async with printer_on(printer) as port:
        (made.box / "plant.yaml").write_text(PLANT.format(port=port))
        try:
            await made.start_runtime()
            yield made, printer
        finally:
            await made.end()


def sent(printer: SimPrinter) -> int:
    return printer.faults.counters["PR-1.label"]


def out(printer: SimPrinter) -> int:
    return printer.faults.counters["PR-1.printed"]


async def batch(line: Rig) -> wire.BatchCard:
    return (await line.picture()).batches[0]


async def print_and_kill(line: Rig, printer: SimPrinter) -> None:
    """The printer has the label and says nothing more: what becomes of it is open when the power goes."""
    printer.faults.obey({"do": "drop_replies", "n": 1})
    async with logged_in(line) as client:
        seal = (await line.picture()).recipes[0].seal
        await client.ask(wire.StartBatch(id=uuid4().hex, batch="B-001", order="ORD-1", recipe=seal, patient=""))
        await line.until(lambda: sent(printer) == 1, "nothing is printed", line.processes["runtime"])
    await line.processes["runtime"].kill()


@pytest.mark.timeout(300)
async def test_killed_while_it_prints_the_box_asks_and_prints_once(tmp_path: Path) -> None:
    async with line_with_a_printer(tmp_path) as (line, printer):
        await print_and_kill(line, printer)
        await line.start_runtime()

        async def asked() -> bool:
            return bool((await batch(line)).questions)

        await line.until(asked, "nobody is asked", line.processes["runtime"])
        card = await batch(line)
        assert card.state == "held"
        # its status is asked for as long as it runs: by now it has printed what it had
        await line.until(lambda: out(printer) == COPIES, "they never come out", line.processes["runtime"])
        async with logged_in(line) as client:
            answer = wire.AnswerQuestion(
                id=uuid4().hex, batch="B-001", question=card.questions[0].question, answer="happened", person="ana",
                pin=PINS["ana"],
            )  # fmt: skip
            await client.ask(answer)
        await line.processes["runtime"].end()
        rows = [body.event for _, body in bodies(stored(line.journal))]
        assert verify_journal(line.journal).ok
        assert (sent(printer), out(printer)) == (1, COPIES)
    assert len([one for one in rows if isinstance(one, ev.CommandIntended)]) == 1
    assert [one.name for one in rows if isinstance(one, ev.ValueRecorded)] == ["labels.doubt 1"]


@pytest.mark.timeout(300)
async def test_planted_bug_a_label_that_is_sent_again_by_itself_is_counted(tmp_path: Path) -> None:
    async with line_with_a_printer(tmp_path) as (line, printer):
        await print_and_kill(line, printer)
        await line.start_runtime(str(CARELESS))
        await line.until(lambda: sent(printer) == 2, "the planted bug does nothing", line.processes["runtime"])
