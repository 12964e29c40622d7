"""The label printer: what it may be sent, what its status says, and that nothing is ever printed twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.printer import PrinterDriver, Status, read_status
from drivers.sim.control import Faults
from drivers.sim.printer import READABLE, WRITABLE, SimPrinter, printer_on
from edge.conformance import Rig, one_connection, rig
from edge.core.errors import LinesideError
from edge.core.plant import Plant
from edge.core.zpl import fingerprint, label, layout
from edge.equipment import Home, WriteOutcome, WriteResult

LABEL = label(layout(["Batch"]), {"Batch": "B1"}, "B1", 3)
GOOD = SimPrinter(Faults(READABLE, WRITABLE)).status()


def plant(port: int, **more: object) -> Plant:
    tags = {
        "label": {"connection": "device", "address": "label", "type": "text", "access": "write", "settle_s": 0.3},
        "ready": {"connection": "device", "address": "ready", "type": "bool"},
        "trouble": {"connection": "device", "address": "trouble", "type": "text"},
    }
    made = one_connection("printer", {"host": "127.0.0.1", "port": port, "counter": True, **more}, "PR-1", tags)
    device = made.connections["device"].model_copy(update={"timeout_s": 30.0})
    return made.model_copy(update={"connections": {"device": device}})


@asynccontextmanager
async def printing(**more: object) -> AsyncIterator[tuple[SimPrinter, Rig]]:
    printer = SimPrinter(Faults(READABLE, WRITABLE))
    async with printer_on(printer) as port, rig(plant(port, **more)) as made:
        await made.until(lambda: made.good("PR-1.ready"))
        yield printer, made


async def sent(made: Rig, text: str = LABEL) -> WriteOutcome:
    return await made.equipment.writer("PR-1.label").write_and_read_back(text, (fingerprint(text),))


async def test_a_label_is_printed_in_its_copies() -> None:
    async with printing() as (printer, made):
        outcome = await sent(made)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert outcome.reading is not None
        assert outcome.reading.value == fingerprint(LABEL)
        assert printer.printed == [LABEL.encode()] * 3


@pytest.mark.parametrize(
    ("how", "words"),
    [("paper_out", "paper out"), ("head_open", "head open"), ("ribbon_out", "ribbon out"), ("paused", "paused")],
)
async def test_a_printer_that_cannot_print_is_sent_nothing(how: str, words: str) -> None:
    async with printing() as (printer, made):
        printer.faults.bad["PR-1.ready"] = how
        outcome = await sent(made)
        assert outcome.result is WriteResult.REFUSED
        assert words in outcome.why
        assert printer.faults.counters["PR-1.label"] == 0
        await made.until(lambda: made.equipment.latest("PR-1.trouble").value == words)  # type: ignore[union-attr]
        assert words in made.equipment.health()["device"].words


async def test_paper_that_runs_out_in_the_middle_leaves_a_doubt_and_nothing_is_sent_again() -> None:
    async with printing() as (printer, made):
        printer.faults.bad["PR-1.label"] = "paper_out"
        outcome = await sent(made)
        assert outcome.result is WriteResult.UNKNOWN
        assert "paper out" in outcome.why
        assert (printer.faults.counters["PR-1.label"], len(printer.printed)) == (1, 1)
        assert not (await made.equipment.read("PR-1.label")).good, "nobody knows what was printed last"


async def test_a_printer_that_dies_in_the_middle_leaves_a_doubt() -> None:
    async with printing() as (printer, made):
        printer.faults.bad["PR-1.label"] = "dies"
        assert (await sent(made)).result is WriteResult.UNKNOWN
        await made.until(lambda: made.good("PR-1.ready"))
        assert (printer.faults.counters["PR-1.label"], len(printer.printed)) == (1, 1)


async def test_a_slow_printer_is_waited_for() -> None:
    async with printing() as (printer, made):
        printer.faults.bad["PR-1.label"] = "slow"
        outcome = await sent(made)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert len(printer.printed) == 3


async def test_a_label_that_the_counter_does_not_show_is_in_doubt() -> None:
    async with printing() as (printer, made):
        printer.faults.frozen.add("PR-1.label")
        outcome = await sent(made)
        assert outcome.result is WriteResult.UNKNOWN
        assert "counted 0 labels, not 3" in outcome.why


@pytest.mark.parametrize(
    "text",
    [
        "",
        "^XA^XZ",
        LABEL.replace("^XA", "^XA~JA"),
        LABEL + LABEL,
        LABEL.replace("^CI28", "^CI28\n"),
        LABEL.replace("^PQ3", "^PQ0"),
    ],
)
async def test_what_is_no_single_label_never_leaves_the_box(text: str) -> None:
    async with printing() as (printer, made):
        assert (await sent(made, text)).result is WriteResult.REFUSED
        assert printer.faults.counters["PR-1.label"] == 0


async def test_planted_bug_a_driver_that_sends_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = PrinterDriver.write

    async def repeating(self: PrinterDriver, tag: str, value: object) -> None:
        try:
            await right(self, tag, value)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001  the bug
            while not self.health().connected:  # noqa: ASYNC110  the bug has no event
                await asyncio.sleep(0)
            await right(self, tag, value)  # type: ignore[arg-type]

    monkeypatch.setattr(PrinterDriver, "write", repeating)
    async with printing() as (printer, made):
        printer.faults.bad["PR-1.label"] = "dies"
        await sent(made)
        assert printer.faults.counters["PR-1.label"] == 2, "the printer counts what the judge then finds"


# The status -----------------------------------------------------------------------------------------------------------


def test_what_a_printer_says() -> None:
    assert read_status(GOOD) == Status()
    paused = GOOD.replace(b"030,0,0,", b"030,1,1,")
    assert read_status(paused) == Status(("paper out", "paused"))


def test_another_byte_gives_another_status_or_none() -> None:
    """No changed reply is taken for a printer that stands ready, unless only what says nothing of that changed."""
    for place in range(len(GOOD)):
        for byte in range(256):
            _is_another(place, byte)


def _is_another(place: int, byte: int) -> None:
    changed = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    status = read_status(changed)
    if status == Status() and changed != GOOD:
        assert changed[place : place + 1].isalnum()


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_noise_is_no_status(data: bytes) -> None:
    assert read_status(data) is None


@pytest.mark.parametrize(
    ("given_settings", "tag", "code"),
    [
        ({"port": 9100}, {}, "printer.settings"),
        ({"host": "p", "port": 0}, {}, "printer.settings"),
        ({"host": "p"}, {"address": "label", "type": "text"}, "printer.address"),
        ({"host": "p"}, {"address": "colour", "type": "text"}, "printer.address"),
        ({"host": "p"}, {"address": "ready", "type": "bool", "access": "write"}, "printer.address"),
    ],
)
def test_what_it_cannot_use_is_told(given_settings: dict[str, object], tag: dict[str, object], code: str) -> None:
    tags = {"x": {"connection": "device", **tag}} if tag else {}
    made = one_connection("printer", given_settings, "PR-1", tags)  # type: ignore[arg-type]
    with pytest.raises(LinesideError) as error:
        PrinterDriver(made.connections["device"], made.tags(), now_s=lambda: 0.0, utc=lambda: "", home=Home())
    assert error.value.code == code
