"""History.db by itself: what is stored, closed, packed, thinned, lost and found out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest

from edge import history as module
from edge.core import commands as cm
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import ValuesThinned, encode
from edge.core.line import Book, Line
from edge.core.plant import read_plant
from edge.core.samples import Scale
from edge.core.terms import ClockQuality, Quality, Reading, Stamp, Value
from edge.history import Anchor, History, HistoryReader, Packer, anchors_in, utc_text

START_US = 1_763_800_000_000_000
S = 1_000_000
PLANT = read_plant(
    b"""plant: P
connections:
  c: {driver: modbus, poll_s: 1.0}
units:
  A: {class: x, tags: {
    level: {connection: c, address: "1", resolution: 0.01, unit: degC},
    count: {connection: c, address: "2", type: int}}}
  B: {class: x, tags: {flow: {connection: c, address: "3"}, word: {connection: c, address: "4", type: text}}}
""",
    "plant.yaml",
)
BATCH: Mapping[str, frozenset[str]] = {"B-1": frozenset({"A"})}
AT = Stamp("2026-11-22T08:00:00.000000Z", ClockQuality.SYNCED, 1.0, "boot")


class Box:
    """A runtime's history with a clock of its own, and the rows that it made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_us = START_US
        self.commands: list[cm.Command] = []
        self.live: Mapping[str, frozenset[str]] = BATCH
        self.room = True
        self.history = self.fresh()
        self.refuses = ""

    def fresh(self) -> History:
        self.history = History(self.path, PLANT, now_us=lambda: self.now_us)
        return self.history

    def take(self, tag: str, value: Value, quality: Quality = Quality.GOOD, source: str = "", detail: str = "") -> None:
        self.history.take(tag, Reading(value, "", quality, source, 0.0, detail))

    def second(self, index: int) -> None:
        self.now_us += S
        self.take("A.level", 37 + index % 40 / 100)
        self.take("A.count", index)
        self.take("B.flow", index / 7)
        self.take("B.word", "on" if index % 60 else "off")

    async def submit(self, command: cm.Command) -> None:
        if self.refuses:
            raise LinesideError(self.refuses, "No.")
        self.commands.append(command)

    async def to_the_end(self) -> None:
        """Flush once and close in order."""
        stop = asyncio.Event()
        stop.set()
        await self.history.run(self.submit, lambda: self.live, lambda: self.room, stop)

    def of(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.commands if isinstance(command, kind)]

    def flush(self, *, close: bool = False, urgent: frozenset[str] = frozenset({"A"})) -> None:
        """What the thread does every few seconds; without closing in order afterwards it is a power cut."""
        pending, self.history._pending = self.history._pending, []
        self.history._flush(pending, urgent, close, dict(self.history._shed))

    def cut(self) -> None:
        if self.history._connection is not None:
            self.history._connection.close()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path / "history.db")


async def filled(box: Box, seconds: int = 120) -> cm.SealValues:
    for index in range(seconds):
        box.second(index)
    await box.to_the_end()
    (sealed,) = box.of(cm.SealValues)
    return sealed


def anchors(box: Box) -> Mapping[int, Anchor]:
    """As the journal would say it."""
    line, bodies = Line(Book(PLANT)), []
    for command in box.commands:
        bodies += [encode(row) for row in decide(line, command, Now(AT, lambda _: None))]
    return anchors_in(enumerate(bodies, 1)).of


def packed(path: Path) -> None:
    with closing(Packer(path)) as packer:
        while packer.pack_next():
            pass


def values(path: Path, tag: str) -> list[Value]:
    with HistoryReader(path) as reader:
        return [sample.value for sample in reader.range(tag, 0, 2**62)]


async def test_what_was_taken_is_read_back_and_one_row_holds_its_root(box: Box) -> None:
    sealed = await filled(box)
    assert (sealed.tags, sealed.samples, sealed.record_tags) == (4, 480, 2)
    for _ in ("raw", "packed"):
        with HistoryReader(box.path) as reader:
            level = list(reader.range("A.level", START_US, START_US + 200 * S))
            assert [s.value for s in level] == [round(37 + i % 40 / 100, 2) for i in range(120)]
            assert [s.at_us for s in level] == [START_US + (i + 1) * S for i in range(120)]
            assert values(box.path, "B.flow") == [i / 7 for i in range(120)]
            assert values(box.path, "B.word")[::60] == ["off", "off"]
            assert [s.value for s in reader.range("A.count", START_US + 11 * S, START_US + 13 * S)] == [10, 11]
            verified = reader.verify(anchors(box))
            assert (verified.windows, verified.samples, verified.anchored, verified.findings) == (1, 480, 1, ())
        packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        assert db.execute("SELECT count(*) FROM chunk").fetchall() == [(0,)]


async def test_quality_source_time_and_detail_are_kept_exactly(box: Box) -> None:
    box.take("A.level", 37.0, Quality.GOOD, "2025-11-22T08:26:40.123456Z")
    box.now_us += S
    box.take("A.level", 37.0, Quality.BAD, "2025-11-22T08:26:40.123456Z", "No connection to 10.0.0.1:502.")
    box.now_us += S
    box.take("A.level", 37.0, Quality.UNCERTAIN, "")
    box.now_us -= 5 * S  # somebody set the clock
    box.take("A.level", 37.0)
    await box.to_the_end()
    packed(box.path)
    with HistoryReader(box.path) as reader:
        found = list(reader.range("A.level", 0, 2**62))
    assert [s.quality.value for s in found] == ["good", "bad", "uncertain", "good"]
    assert [s.detail for s in found] == ["", "No connection to 10.0.0.1:502.", "", ""]
    assert [s.source_us for s in found] == [1763800000123456, 1763800000123456, None, None]
    assert [s.at_us - START_US for s in found] == [0, S, 2 * S, -3 * S]


async def test_readings_of_one_poll_share_their_time(box: Box) -> None:
    for _ in range(3):
        for tag in ("A.level", "A.count", "B.flow"):
            box.now_us += 700
            box.take(tag, 1.0)
        box.now_us += S
    await box.to_the_end()
    packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        assert db.execute("SELECT count(*) FROM vector").fetchall() == [(1,)]


async def test_a_power_cut_costs_the_last_flush_and_is_a_gap(box: Box) -> None:
    for index in range(20):
        box.second(index)
    box.flush()
    box.second(20)  # not stored yet
    box.cut()
    box.now_us += 90 * S
    box.fresh()
    await box.to_the_end()
    assert values(box.path, "A.count") == list(range(20))
    (sealed,), (missing,) = box.of(cm.SealValues), box.of(cm.MissValues)
    assert sealed.samples == 80
    assert sealed.record_tags == 2, "what belonged to a batch before the cut still does"
    assert (missing.from_utc, missing.to_utc) == ("2025-11-22T08:27:00.000000Z", "2025-11-22T08:28:31.000000Z")
    with HistoryReader(box.path) as reader:
        assert reader.verify(anchors(box)).findings == ()
        buckets = reader.plot("A.count", START_US, START_US + 120 * S, 12)
        assert [bucket.gap for bucket in buckets] == [False] * 2 + [True] * 10
    box.fresh()
    await box.to_the_end()
    assert len(box.of(cm.SealValues)) == 1, "a window is sealed once"


async def test_a_gap_that_nobody_marks_is_found_by_this_very_test(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_mark_gap", lambda *_: None)
    with pytest.raises(ValueError, match="not enough values"):
        await test_a_power_cut_costs_the_last_flush_and_is_a_gap(box)


async def test_a_window_ends_with_its_batch_and_after_its_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = asyncio.Event()

    async def until(holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110  nothing in it tells of itself
                await asyncio.sleep(0)

    monkeypatch.setattr(module, "FLUSH_S", 0.0)
    running = asyncio.create_task(box.history.run(box.submit, lambda: box.live, lambda: True, stop))
    box.second(1)
    await until(lambda: box.history._window != 0)
    box.live = {}
    await until(lambda: len(box.of(cm.SealValues)) == 1)
    box.second(2)
    await until(lambda: box.history._window != 0)
    box.now_us += 601 * S
    await until(lambda: len(box.of(cm.SealValues)) == 2)
    stop.set()
    await running
    assert [sealed.record_tags for sealed in box.of(cm.SealValues)] == [2, 0]


async def test_what_the_journal_cannot_take_now_is_told_later(box: Box) -> None:
    box.second(1)
    box.refuses = "journal.full"
    await box.to_the_end()
    assert box.commands == []
    box.refuses = ""
    box.fresh()
    await box.to_the_end()
    assert len(box.of(cm.SealValues)) == 1


async def test_a_disk_that_fails_is_said_and_becomes_a_gap(box: Box) -> None:
    box.second(1)
    box.flush()
    box.cut()
    box.history._connection = None
    kept = box.path.read_bytes()
    box.path.unlink()
    for name in ("history.db-wal", "history.db-shm"):
        box.path.with_name(name).unlink(missing_ok=True)
    box.path.mkdir()
    box.second(2)
    box.flush()
    assert "not being stored" in box.history.notices()[0]
    box.path.rmdir()
    box.path.write_bytes(kept)
    box.second(3)
    await box.to_the_end()
    assert values(box.path, "A.count") == [1, 3]
    assert [missing.why for missing in box.of(cm.MissValues)] == ["the disk failed"]


async def test_waiting_readings_are_bounded_and_the_record_goes_last(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 40)
    box.history._urgent = frozenset({"A"})
    for index in range(30):
        box.second(index)
    assert len(box.history._pending) == 40
    await box.to_the_end()
    assert len(values(box.path, "A.count")) > len(values(box.path, "B.flow"))
    assert {missing.scope for missing in box.of(cm.MissValues)} == {"everything", "outside the record"}


async def test_many_readings_do_not_wait_for_the_next_flush(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_MAX", 40)
    monkeypatch.setattr(module, "FLUSH_S", 10_000.0)
    stop, rounds = asyncio.Event(), asyncio.Queue[None]()

    def has_room() -> bool:
        """Asked in each round, when the waiting readings have just been taken."""
        rounds.put_nowait(None)
        return True

    box.second(0)
    running = asyncio.create_task(box.history.run(box.submit, lambda: box.live, has_room, stop))
    async with asyncio.timeout(60):
        await rounds.get()
        for index in range(1, 4):
            box.second(index)
        await rounds.get()
    assert not box.history._pending
    stop.set()
    await running
    assert values(box.path, "A.count") == [0, 1, 2, 3]
    assert not box.of(cm.MissValues)


async def test_what_comes_while_the_last_flush_is_under_way_is_stored_and_the_window_closes(box: Box) -> None:
    stop = asyncio.Event()

    def has_room() -> bool:
        """Asked in each round, when the waiting readings have just been taken: now another comes, and the end."""
        if not stop.is_set():
            box.second(1)
            stop.set()
        return True

    box.second(0)
    await box.history.run(box.submit, lambda: box.live, has_room, stop)
    assert values(box.path, "A.count") == [0, 1]
    assert len(box.of(cm.SealValues)) == 1


async def test_without_room_only_the_record_is_stored_and_that_is_said(box: Box) -> None:
    box.room = False
    box.second(1)
    box.history._note_room(False)
    assert "Only the process values of running batches" in box.history.notices()[0]
    await box.to_the_end()
    assert values(box.path, "A.count") == [1]
    assert values(box.path, "B.flow") == []


async def test_a_plot_shows_every_spike(box: Box) -> None:
    for index in range(600):
        box.now_us += S
        box.take("B.flow", 99.0 if index == 333 else 20.0, Quality.BAD if index == 100 else Quality.GOOD)
    await box.to_the_end()
    with HistoryReader(box.path) as reader:
        buckets = reader.plot("B.flow", START_US, START_US + 601 * S, 7)
    assert sum(bucket.samples for bucket in buckets) == 600
    assert max(bucket.high or 0 for bucket in buckets) == 99.0
    assert [bucket.quality for bucket in buckets].count("bad") == 1
    assert buckets[0].last == 20.0


def thin(box: Box, bucket_s: int) -> None:
    """As the follower does it, with the runtime's decision between."""
    with closing(Packer(box.path)) as packer:
        while thinning := packer.thinnable(-1, bucket_s * S):
            (row,) = decide(Line(Book(PLANT)), thinning.command, Now(AT, lambda _: None))
            assert isinstance(row.event, ValuesThinned)
            box.commands.append(thinning.command)
            packer.thin(thinning)


@pytest.mark.parametrize("bucket_s", [0, 60])
async def test_thinning_never_touches_the_record_and_is_a_row(box: Box, bucket_s: int) -> None:
    await filled(box, 500)
    before = {tag: values(box.path, tag) for tag in ("A.level", "A.count", "B.flow")}
    packed(box.path)
    thin(box, bucket_s)
    for tag in ("A.level", "A.count"):
        assert values(box.path, tag) == before[tag]
    left = values(box.path, "B.flow")
    assert len(left) < 50
    assert set(left) <= set(before["B.flow"])
    with HistoryReader(box.path) as reader:
        assert reader.verify(anchors(box)).findings == ()
        only_sealed = {w: replace(a, thinned_root="") for w, a in anchors(box).items()}
        assert reader.verify(only_sealed).findings, "thinned without a row"


async def test_thinning_the_record_is_refused(box: Box) -> None:
    """Planted: the packer takes the record for something else."""
    await filled(box)
    packed(box.path)
    with closing(Packer(box.path)) as packer:
        thinning = packer.thinnable(-1, 60 * S)
    assert thinning is not None
    careless = replace(thinning.command, record_root_after="00" * 32)
    with pytest.raises(LinesideError) as refused:
        decide(Line(Book(PLANT)), careless, Now(AT, lambda _: None))
    assert refused.value.code == "values.of_a_record"
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute("UPDATE leaf SET record=0")
    with closing(Packer(box.path)) as packer, pytest.raises(LinesideError, match="not those that were sealed"):
        packer.thinnable(-1, 60 * S)


async def test_a_packer_that_does_not_compare_is_found_out(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: raw values edited before they are packed, and a packer that takes them as they are."""
    await filled(box)
    whole = anchors(box)
    with closing(apsw.Connection(str(box.path))) as db:
        chunks = [(n, m) for n, m in module._raw(db, next(iter(whole)), None)]
        edited = [(n, m[:-3] + bytes([m[-3] ^ 1]) + m[-2:]) if n == 1 else (n, m) for n, m in chunks]
        db.execute("UPDATE chunk SET data=?", (module._chunk(edited),))
    with closing(Packer(box.path)) as packer:
        with pytest.raises(LinesideError, match="is not what was sealed"):
            packer.pack_next()
        assert not packer.pack_next(), "left alone from then on"
    monkeypatch.setattr(Packer, "_check_leaf", lambda *_: None)
    packed(box.path)
    with HistoryReader(box.path) as reader:
        (finding,) = reader.verify(whole).findings
        assert finding.tag == "A.level"


def edits() -> Iterator[tuple[str, str]]:
    yield "UPDATE leaf SET hash=zeroblob(32) WHERE series=1", "A.level"
    yield "UPDATE leaf SET data=(SELECT data FROM leaf WHERE series=2) WHERE series=1", "A.level"
    yield "UPDATE leaf SET record=0 WHERE series=2", "A.count"
    yield "UPDATE leaf SET samples=samples+1 WHERE series=3", "B.flow"
    yield "UPDATE leaf SET data=NULL WHERE series=3", "B.flow"
    yield "DELETE FROM leaf WHERE series=3", ""
    yield "UPDATE window SET root=zeroblob(32)", ""
    yield "DELETE FROM window", ""
    yield "UPDATE series SET tag='A.other' WHERE id=1", "A.other"
    yield "UPDATE vector SET data=zeroblob(40)", "A.level"


async def test_what_is_edited_is_named(box: Box) -> None:
    await filled(box)
    packed(box.path)
    whole, said = box.path.read_bytes(), anchors(box)
    for sql, tag in edits():
        for name in ("history.db-wal", "history.db-shm"):
            box.path.with_name(name).unlink(missing_ok=True)
        box.path.write_bytes(whole)
        with closing(apsw.Connection(str(box.path))) as db:
            db.execute(sql)
        with HistoryReader(box.path) as reader:
            findings = reader.verify(said).findings
            gone = said.keys() - set(reader.closed())
        assert findings or gone, sql
        assert (findings[0].tag if findings else "") == tag, sql


async def test_a_root_over_other_values_contradicts_the_journal(box: Box) -> None:
    """Everything in the file agrees with itself: only the journal's row tells."""
    await filled(box)
    said = anchors(box)
    other = Box(box.path.with_name("other.db"))
    for index in range(120):
        other.second(index + (index == 60))
    await other.to_the_end()
    with HistoryReader(other.path) as reader:
        assert reader.verify(anchors(other)).findings == ()
        (finding,) = reader.verify(said).findings
    assert "not the one of row 1" in finding.why


async def test_values_taken_before_the_first_one_could_be_stored_are_said_to_be_missing(tmp_path: Path) -> None:
    box = Box(tmp_path / "no medium yet" / "history.db")
    box.second(0)
    first_us = box.now_us
    box.flush()
    box.path.parent.mkdir()
    box.second(1)
    await box.to_the_end()
    (gap,) = box.of(cm.MissValues)
    assert (gap.from_utc, gap.to_utc, gap.why) == (utc_text(first_us), utc_text(box.now_us), "the disk failed")


async def test_flipped_bits_change_no_value_unseen(box: Box) -> None:
    await filled(box)
    packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute("PRAGMA journal_mode=delete")
        db.execute("PRAGMA page_size=512")  # a flip where nothing stands would be no flip
        db.execute("VACUUM")
    whole, said = box.path.read_bytes(), anchors(box)
    right = {tag: values(box.path, tag) for tag in ("A.level", "A.count", "B.flow", "B.word")}
    chance = random.Random(7)
    noticed = 0
    for _ in range(150):
        bit = chance.randrange(len(whole) * 8)
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        box.path.write_bytes(data)
        try:
            with HistoryReader(box.path) as reader:
                findings = reader.verify(said).findings or said.keys() - set(reader.closed())
                read = {tag: [s.value for s in reader.range(tag, 0, 2**62)] for tag in right}
        except LinesideError:
            noticed += 1
            continue
        noticed += bool(findings)
        assert findings or read == right, f"bit {bit} changed a value unseen"
    assert noticed > 20


def test_a_file_that_is_something_else_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with pytest.raises(LinesideError) as refused:
        HistoryReader(path)
    assert refused.value.code == "values.absent"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(LinesideError) as refused:
        HistoryReader(path)
    assert refused.value.code == "values.damaged"
    path.unlink()
    with closing(apsw.Connection(str(path))) as db:
        db.execute("CREATE TABLE other(x)")
    with pytest.raises(LinesideError) as refused:
        HistoryReader(path)
    assert refused.value.code == "values.foreign"


def test_resolution_of_a_tag_that_is_no_float_is_refused() -> None:
    with pytest.raises(LinesideError) as refused:
        read_plant(
            b"plant: P\nconnections: {c: {driver: modbus}}\n"
            b"units: {A: {class: x, tags: {t: {connection: c, address: '1', type: int, resolution: 0.1}}}}\n",
            "plant.yaml",
        )
    assert refused.value.code == "plant.resolution"


def test_scale_of_a_plant_is_its_decimal_text() -> None:
    assert module.series_of(PLANT)["A.level"].resolution == "0.01"
    assert Scale("0.01").value(3701) == 37.01


async def test_a_copy_of_a_running_box_is_whole_and_overwrites_nothing(box: Box) -> None:
    for index in range(30):
        box.second(index)
    box.flush(close=True)
    with ThreadPoolExecutor(1) as thread:
        await box.history._tell(thread, box.submit)
    box.second(30)
    box.flush()
    target = box.path.with_name("copy.db")
    with HistoryReader(box.path) as reader:
        reader.copy(target)
        with pytest.raises(LinesideError) as refused:
            reader.copy(target)
        assert refused.value.code == "values.copy"
    box.cut()
    assert values(target, "A.count") == list(range(31))
    with HistoryReader(target) as reader:
        assert reader.verify(anchors(box)).findings == ()


async def test_a_file_out_of_order_is_found_and_said(box: Box) -> None:
    """SQLite's own trees are part of what must hold: a window that one query finds and another one does not."""
    await filled(box, 60)
    packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute("PRAGMA writable_schema=ON")
        db.execute("DELETE FROM sqlite_schema WHERE name='chunk_window'")
    with HistoryReader(box.path) as reader:
        found = reader.verify(anchors(box)).findings
    assert [str(finding).partition(":")[0] for finding in found][:1] == ["history.db"]


@pytest.mark.parametrize("column", ["low_us", "high_us"])
async def test_a_window_that_hides_values_from_a_query_is_found(box: Box, column: str) -> None:
    await filled(box, 60)
    packed(box.path)
    with closing(apsw.Connection(str(box.path))) as db:
        db.execute(f"UPDATE window SET {column} = (low_us + high_us) / 2")
    with HistoryReader(box.path) as reader:
        found = reader.verify(anchors(box)).findings
    assert any("would not find a value" in finding.why for finding in found)
