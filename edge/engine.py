"""The engine owns the head: it decides, folds and appends in one breath, and makes effects true.

`decide -> apply -> append` has no await in it, so no two decisions interleave. What follows (answers, pictures,
writes to equipment) waits until the rows are durable. One thing does not wait: what makes a unit safe is sent at once,
and its row follows. A failed commit makes the units of all batches safe and ends the process: the head never outlives
the journal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from edge.clock import Clock
from edge.core import cleaning
from edge.core import commands as cm
from edge.core.alarms import TOO_MANY, Alarm, AlarmWatch, AlarmWatcher, alarms_of_box, is_there
from edge.core.decide import decided
from edge.core.decision import Now
from edge.core.errors import LinesideError
from edge.core.events import BatchStateChanged, CommandIntended, RowBody
from edge.core.limits import BAD_QUALITY_S, Watcher
from edge.core.line import (
    SAFE_STEP,
    Batch,
    Book,
    Condition,
    Effects,
    Line,
    Timer,
    Watch,
    Write,
    effects,
    effects_of,
    seal_due,
    together,
)
from edge.core.queueing import refuse_by_hand
from edge.core.record import SEAL_DOMAIN, ZERO_HASH, Signer, sealed_bytes
from edge.core.room import Level
from edge.core.terms import Reading, Stamp, State, Value
from edge.disk import Disk
from edge.equipment import Equipment, WriteOutcome, WriteResult
from edge.journal import Appended, Journal
from edge.unrecorded import SafeWrite, done_within

TICK_S: Final = 0.5
"""The longest the engine sleeps: it looks at limits with a delay, and tells the watchdog that it lives."""
JOURNAL_S_MAX: Final = 5.0
"""A journal that takes so long for one row is taken for dead by the watchdogs of the equipment."""
SAFE_AGAIN_S: Final = 0.2
SAFE_AGAIN_S_MAX: Final = 5.0
"""A safe write that was refused, so certainly not written, is sent again for so long."""
SAFE_S_MAX: Final = 6.0
"""With a failed journal the process ends after so long, whether its safe writes were answered or not."""
KEEP_S_MAX: Final = 8.0
"""So long it tries to keep, outside the journal, what it wrote."""
CONCLUDE_S_MAX: Final = 70.0
"""A clean stop waits so long for the outcome of writes under way; longer than any settle time."""

ENDING: Final = frozenset({State.STOPPING.value, State.ABORTING.value})


class Engine:
    """The head and what must be under way for it. Run `run()` in one task; call `submit` from any other."""

    def __init__(
        self,
        line: Line,
        journal: Journal,
        equipment: Equipment,
        clock: Clock,
        signer: Signer,
        *,
        disk: Disk | None = None,
        on_progress: Callable[[], object] = lambda: None,
        beat: Callable[[], float] = lambda: TICK_S,
        keep_unrecorded: Callable[[Sequence[SafeWrite]], None] = lambda _: None,
    ) -> None:
        """`line` is the head folded from every row of `journal`; `signer` seals what is made. `on_progress` is called
        at least every `TICK_S` while the engine gets on with its work; `beat` too, but only while the journal takes
        rows, and it says in how many seconds it must be called again; `keep_unrecorded` at the end, on a thread of
        its own, with the safe writes that no row tells of."""
        self.line = line
        self.shown = line
        """The head as of the last durable row: all that may be shown or answered."""
        self.changed = asyncio.Event()
        """Set when `shown` or a reading changed; whoever shows things clears it."""
        self._journal = journal
        self._equipment = equipment
        self._clock = clock
        self._signer = signer
        self._disk = disk
        """Watched while `run` runs; None where there is none to watch."""
        self._on_progress, self._beat = on_progress, beat
        self._awaited, self._awaited_since_s = 0, 0.0
        """The first row that is not durable, and since when it has been so."""
        self._wake = asyncio.Event()
        self._not_durable: deque[tuple[int, Line]] = deque()
        self._durable_head: tuple[int, bytes] = (journal.durable_seq, journal.durable_hash or ZERO_HASH)
        self._stirred = True
        """Something beside the head may have changed: a reading, a connection, the time."""
        self._wanted = Effects()
        self._wanted_for: tuple[Book, Mapping[str, Batch], bool] | None = None
        self._wanted_of: dict[str, tuple[Batch, Effects]] = {}
        """The effects of each live batch as it was."""
        self._watchers: dict[Watch, Watcher] = {}
        self._watched: tuple[Watch, ...] = ()
        self._alarms: dict[str, AlarmWatcher] = {}
        self._alarmed: tuple[tuple[AlarmWatch, ...], Mapping[str, Alarm]] = ((), {})
        """What alarms were looked at for: those of steps, and those that were open."""
        self._asked: dict[Condition, tuple[float, Batch | None]] = {}
        self._unread: dict[Timer, float] = {}
        """Timers that are due and wait for a reading, by since when."""
        """Since when what a condition looks at cannot be used, the last look while it can; and the batch as it was."""
        self._started: set[tuple[str, str, int, int, str]] = set()
        self._keep_unrecorded = keep_unrecorded
        self._safe: dict[asyncio.Task[None], Write] = {}
        """Writes that make units safe and are under way: no end of anything else cancels them."""
        self._safe_sent: dict[tuple[str, str, int, int, str], tuple[Write, WriteOutcome | None]] = {}
        """Safe writes whose rows are not known to be durable."""
        self._ended_by: dict[str, int] = {}
        """The first row of the decision that ends a batch: what was intended before is not sent after it."""
        self._by_hand: dict[object, str] = {}
        """The unit that somebody writes to at the command line, by who holds it."""
        journal.failed.add_done_callback(lambda _: self._journal_failed())

    # Asking -------------------------------------------------------------------------------------------------

    async def submit(self, command: cm.Command) -> list[RowBody]:
        """Decide and wait until the result is durable. Returns the rows made; none when nothing changed or this
        command id was answered before. Raises LinesideError when it is refused."""
        return await self._durable(*self._decide(command, self._clock.stamp()))

    async def submit_signed(self, make: Callable[[Stamp, int, bytes], cm.Command]) -> list[RowBody]:
        """As `submit`, for a command that a signature is part of: `make(time, subject seq, subject hash)` is
        called at the moment of the decision, with the last durable row as the subject of the signature."""
        at = self._clock.stamp()
        seq, row_hash = self._durable_head
        return await self._durable(*self._decide(make(at, seq, row_hash), at))

    def reading(self, tag: str) -> Reading | None:
        """The latest reading of a tag, judged and aged."""
        return self._equipment.latest(tag)

    def durable(self) -> tuple[Line, bytes]:
        """The head as of the last durable row, and that row's hash."""
        return self.shown, self._durable_head[1]

    def hold_unit(self, unit: str, holder: object) -> None:
        """From now on no batch takes the unit, until `let_go`. Raises `equipment.unit_in_use` when one has it."""
        refuse_by_hand(self.line, unit)
        self._by_hand[holder] = unit

    def let_go(self, holder: object) -> None:
        """Batches may take its unit again."""
        self._by_hand.pop(holder, None)

    def wake(self) -> None:
        """Readings or health changed, or time has passed: look again at everything."""
        self._stirred = True
        self._wake.set()

    def load(self, book: Book) -> None:
        """Put reference material beside the head: what rows only name."""
        self.line = replace(self.line, book=book)
        self.shown = replace(self.shown, book=book)

    # Deciding -----------------------------------------------------------------------------------------------

    def _decide(self, command: cm.Command, at: Stamp, *, urgent: bool = False) -> tuple[list[RowBody], Appended | None]:
        room = self._disk.room if self._disk else None
        by_hand = self._by_hand.values()
        rows, after = decided(self.line, command, Now(at, self._equipment.latest, room, by_hand))
        if not rows:
            return rows, None
        safe = self._begin_what_makes_safe(after, rows)
        try:
            appended = self._journal.append(rows, urgent=urgent or bool(safe))
        except LinesideError as refusal:
            if not safe:
                raise
            if refusal.code == "journal.full":
                self._started -= safe  # asked again, it is written again
            effect = "What makes the equipment safe was sent all the same; no row says so, and the batch has not ended."
            raise replace(refusal, effect=effect) from refusal
        self.line = after
        for row in rows:
            if isinstance(row.event, BatchStateChanged) and row.event.now in ENDING:
                live = {batch.batch for batch in self.line.live()}
                self._ended_by = {name: seq for name, seq in self._ended_by.items() if name in live}
                self._ended_by[row.event.batch] = appended.first_seq
        self._not_durable.append((appended.last_seq, self.line))
        last_seq, last_hash = appended.last_seq, appended.last_hash
        appended.add_done_callback(lambda error: None if error else self._became_durable(last_seq, last_hash))
        self._seal_when_due(at)
        return rows, appended

    def _seal_when_due(self, at: Stamp) -> None:
        if not seal_due(self.line, at):
            return
        try:
            self._seal(self._clock.stamp())
        except LinesideError as refusal:
            if refusal.code != "journal.full":
                raise
            # what was decided before is accepted all the same; the next look seals it

    def _seal(self, at: Stamp) -> None:
        """Seal the last row, durable or not: the seal's own row comes after it, so they are lost together or not."""
        seq, row_hash = self._journal.head_seq, self._journal.head_hash
        message = sealed_bytes(self._journal.journal_id, self._journal.epoch, seq, row_hash)
        command = cm.SealRows(
            seq=seq,
            row_hash=row_hash.hex(),
            public_key=self._signer.public.hex(),
            signature=self._signer.sign(SEAL_DOMAIN, message).hex(),
        )
        self._decide(command, at, urgent=True)  # a full queue is when much happens: that above all is sealed

    async def _durable(self, rows: list[RowBody], appended: Appended | None) -> list[RowBody]:
        if appended is not None:
            await appended.durable()
        return rows

    def _became_durable(self, seq: int, row_hash: bytes) -> None:
        self._durable_head = (seq, row_hash)
        while self._not_durable and self._not_durable[0][0] <= seq:
            self.shown = self._not_durable.popleft()[1]
        if self.shown.book is not self.line.book:
            self.shown = replace(self.shown, book=self.line.book)
        self.changed.set()
        self._wake.set()

    # Effects ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Make effects true until cancelled. Raises `journal.failed` when a commit failed, once the units of all
        batches were told to be safe."""
        try:
            await self._run()
        finally:
            await self._end_safely()

    async def _run(self) -> None:
        tick = self._tick_later()
        async with asyncio.TaskGroup() as writes:
            if self._disk is not None:
                writes.create_task(self._disk.keep_forecasting(), name="edge.engine.forecast")
            try:
                while True:
                    self._wake.clear()
                    if self._journal.failed.done():
                        raise self._journal.failed.result()
                    everything, self._stirred = self._stirred, False
                    if everything:
                        tick.cancel()
                        tick = self._tick_later()
                    await self._sleep(self._look_around(writes, everything=everything))
            finally:
                tick.cancel()

    def _tick_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(TICK_S, self.wake)

    def _look_around(self, writes: asyncio.TaskGroup, *, everything: bool) -> float:
        """Begin and decide what the head wants now; returns the seconds until the next look at the latest. Where not
        `everything` may have changed but the head alone, only at what it has changed."""
        self._look_at_safe_writes()
        if everything and self._equipment.take_changed():
            self.changed.set()
        wanted = self._effects()
        for write in wanted.writes:
            self._begin_write(writes, write)
        next_s = TICK_S
        try:
            if everything:
                self._look_at_disk()
            self._look(wanted.watches, self._clock.now_s(), everything=everything)
            self._ask(wanted.conditions, self._clock.now_s(), everything=everything)
            self._look_for_alarms(wanted.alarms, self._clock.now_s(), everything=everything)
            next_s = self._time(wanted.timers)
            if everything:
                self._seal_when_due(self._clock.stamp())
        except LinesideError as refusal:
            if refusal.code != "journal.full":
                raise
            self._stirred = True  # it is said again at the next look, when the journal has caught up
        self._on_progress()
        if self._journal_moves(self._clock.now_s()):
            next_s = min(next_s, self._beat())
        return next_s

    def _effects(self) -> Effects:
        """`effects` of the head, worked out anew for the batches alone that have changed."""
        line, known = self.line, self._wanted_for
        if known and known[0] is line.book and known[1] is line.batches and known[2] == line.running:
            return self._wanted
        if not known or known[0] is not line.book:
            self._wanted_of = {}
        self._wanted_for = (line.book, line.batches, line.running)
        found: dict[str, tuple[Batch, Effects]] = {}
        for batch in line.live() if line.running else []:
            was = self._wanted_of.get(batch.batch)
            found[batch.batch] = was if was and was[0] is batch else (batch, effects_of(line, batch))
        self._wanted_of = found
        self._wanted = together([wanted for _, wanted in found.values()])
        return self._wanted

    def _journal_moves(self, now_s: float) -> bool:
        """False when no row has become durable for long although one waits: what is decided is then not supervised."""
        first = self._not_durable[0][0] if self._not_durable else 0
        if first != self._awaited:
            self._awaited, self._awaited_since_s = first, now_s
        return not first or now_s - self._awaited_since_s < JOURNAL_S_MAX

    async def _sleep(self, longest_s: float) -> None:
        if longest_s >= TICK_S:
            await self._wake.wait()  # the tick wakes it
            return
        early = asyncio.get_running_loop().call_later(longest_s, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            early.cancel()

    def _begin_write(self, group: asyncio.TaskGroup, write: Write) -> None:
        """Start a once-effect: at most once ever in this run, and only for a durable intent. What was intended before
        its batch was ended is not sent any more: it would undo what made the unit safe."""
        key = _key(write)
        if key in self._started or write.seq > self._durable_head[0]:
            return
        ended = write.seq < self._ended_by.get(write.batch, 0)
        if not ended and self._equipment.is_connecting(write.tag):
            return  # right after a start: nothing is sent yet, and nobody need be asked; the next look begins it
        self._started.add(key)
        if ended:
            why = "It was not sent: the batch was ended before."
            self._conclude(write, WriteOutcome(WriteResult.REFUSED, None, why))
            return
        group.create_task(self._write(write), name=f"edge.engine.write[{write.batch}/{write.step}/{write.tag}]")

    async def _write(self, write: Write) -> None:
        writer = self._equipment.writer(write.tag, training=write.training)
        self._conclude(write, await writer.write_and_read_back(write.value, write.shown_by, write.shown_at))

    def _conclude(self, write: Write, outcome: WriteOutcome) -> None:
        seen = outcome.reading
        shown: Value | None = seen.value if seen is not None and seen.good else None
        self._decide(
            cm.ConcludeWrite(
                batch=write.batch,
                step=write.step,
                iteration=write.iteration,
                attempt=write.attempt,
                tag=write.tag,
                outcome=outcome.result.value,
                reading=shown,
                why=outcome.why,
            ),
            self._clock.stamp(),
            urgent=True,  # an outcome that is known must not become one in doubt because the queue is full
        )
        self._wake.set()

    # What makes safe ----------------------------------------------------------------------------------------

    def _begin_what_makes_safe(self, after: Line, rows: Sequence[RowBody]) -> set[tuple[str, str, int, int, str]]:
        """Send what does not wait for its row, before the row is even appended. Returns the keys of these writes."""
        said = [row.event for row in rows if isinstance(row.event, CommandIntended) and row.event.late]
        if not said:
            return set()
        keys = {(one.batch, one.step, one.iteration, one.attempt, one.tag) for one in said}
        for write in effects(after).writes:
            if _key(write) in keys:
                self._begin_safe(write)
        return keys

    def _begin_safe(self, write: Write) -> None:
        if _key(write) in self._started:
            return
        self._started.add(_key(write))
        self._safe_sent = {key: sent for key, sent in self._safe_sent.items() if sent[0].seq > self._durable_head[0]}
        self._safe_sent[_key(write)] = (write, None)
        name = f"edge.engine.safe[{write.batch}/{write.step}/{write.tag}]"
        self._safe[asyncio.create_task(self._make_safe(write), name=name)] = write

    async def _make_safe(self, write: Write) -> None:
        writer = self._equipment.writer(write.tag, training=write.training)
        until_s = self._clock.now_s() + SAFE_AGAIN_S_MAX
        outcome = await writer.write_and_read_back(write.value, write.shown_by, safe=True)
        while write.step == SAFE_STEP and outcome.result is WriteResult.REFUSED and self._clock.now_s() < until_s:
            await asyncio.sleep(SAFE_AGAIN_S)  # certainly not written: the connection may be there in a moment
            outcome = await writer.write_and_read_back(write.value, write.shown_by, safe=True)
        self._safe_sent[_key(write)] = (write, outcome)
        if not self._journal.failed.done():
            self._conclude(write, outcome)

    def _look_at_safe_writes(self) -> None:
        for task in [task for task in self._safe if task.done()]:
            del self._safe[task]
            task.result()

    def _journal_failed(self) -> None:
        """From now on nothing is recorded: the units of every batch are made safe, then the process ends."""
        beyond = self._journal.head_seq + 1
        live = {batch.batch: batch for batch in (*self.shown.live(), *self.line.live())}  # whatever of it was lost
        for batch in live.values():
            for full_name, value in self.line.book.plant.safe_state(batch.units.values()):
                self._begin_safe(Write(batch.batch, SAFE_STEP, 1, full_name, value, beyond, training=batch.training))
        self._wake.set()

    async def _end_safely(self) -> None:
        """Let safe writes under way end, and keep what no row tells of where the next start finds it."""
        until_s = self._clock.now_s() + SAFE_S_MAX
        while self._journal.failed.done() and self._clock.now_s() < until_s:
            pending = [task for task in self._safe if not task.done()]
            if not pending:
                break
            self._on_progress()
            await asyncio.wait(pending, timeout=TICK_S)
        for task in self._safe:
            task.cancel()
        await asyncio.gather(*self._safe, return_exceptions=True)
        if not self._journal.failed.done():
            return
        unrecorded = [
            SafeWrite(
                batch=write.batch,
                tag=write.tag,
                value=write.value,
                outcome=outcome.result.value if outcome else "",
                why=outcome.why if outcome else "",
            )
            for write, outcome in self._safe_sent.values()
            if write.seq > self._durable_head[0]
        ]
        if unrecorded:
            self._on_progress()
            await done_within(lambda: self._keep_unrecorded(unrecorded), KEEP_S_MAX)

    def _look_at_disk(self) -> None:
        """A full disk holds what runs, in urgent rows; when there is room again nothing moves by itself."""
        if self._disk is None:
            return
        if self._disk.look():
            self.changed.set()
        if self._disk.room.level is Level.FULL:
            self._decide(cm.HoldOnFullDisk(), self._clock.stamp(), urgent=True)

    def _look(self, watches: tuple[Watch, ...], now_s: float, *, everything: bool) -> None:
        if watches != self._watched:  # level: what is no longer wanted is forgotten
            self._watchers = {watch: self._watchers.get(watch) or Watcher(watch, now_s) for watch in watches}
            self._watched = watches
        elif not everything:
            return
        for watch, watcher in self._watchers.items():
            reading = self._equipment.latest(watch.tag)
            finding = watcher.look(reading, now_s)
            if finding is not None and reading is not None:
                command = cm.NoteReading(
                    batch=watch.batch, step=watch.step, iteration=watch.iteration, finding=finding, reading=reading
                )
                self._decide(command, self._clock.stamp())
                self._wake.set()

    def _look_for_alarms(self, of_steps: tuple[AlarmWatch, ...], now_s: float, *, everything: bool) -> None:
        """Raise and clear alarms: of steps under way, of the plant's tags, of the box itself."""
        if not everything and self._alarmed == (of_steps, self.line.alarms):
            return
        self._alarmed = (of_steps, self.line.alarms)
        there: list[tuple[AlarmWatch, bool | None, Value | None]] = []
        for watch in (*of_steps, *self.line.book.plant.alarm_watches):
            known = self.line.alarms.get(watch.alarm)
            reading = self._equipment.latest(watch.tag)
            on = is_there(watch, reading, on=known is not None and known.on)
            there.append((watch, on, reading.value if reading is not None and reading.good else None))
        level = self._disk.room.level if self._disk else Level.ROOM
        check, drill = self.line.self_check, self.line.drill
        connected = {name: health.connected for name, health in self._equipment.health().items()}
        found = (check.found if check else (), drill.found if drill else ())
        of_units = cleaning.alarms(self.line, self._clock.stamp())
        there += [(watch, on, None) for watch, on in (*alarms_of_box(connected, level, *found), *of_units)]
        self._alarms = {watch.alarm: self._alarms.get(watch.alarm) or AlarmWatcher(now_s) for watch, _, _ in there}
        for watch, on, value in there:
            self._tell_alarm(watch, on, value, now_s)
        for alarm in list(self.line.alarms.values()):
            if alarm.on and alarm.alarm not in self._alarms and alarm.alarm != TOO_MANY:
                gone = AlarmWatch(alarm.alarm, alarm.told, alarm.batch, alarm.step, alarm.tag)
                why = "It is not watched any more."
                self._decide(cm.NoteAlarm(watch=gone, finding="cleared", why=why), self._clock.stamp())

    def _tell_alarm(self, watch: AlarmWatch, on: bool | None, value: Value | None, now_s: float) -> None:
        watcher, known = self._alarms[watch.alarm], self.line.alarms.get(watch.alarm)
        shown = known is not None and known.on
        finding = watcher.look(on, now_s, shown=shown, on_delay_s=watch.on_delay_s)
        if finding is None:
            return
        command = cm.NoteAlarm(
            watch=watch,
            finding=finding,
            value=value,
            why="" if finding != "cleared" else "It is as it should be again.",
            times=watcher.times,
            for_s=watcher.for_s,
        )
        rows, _ = self._decide(command, self._clock.stamp())
        if finding == "flooded" and rows:
            watcher.told_flood(now_s)
        if rows:
            self._wake.set()

    def _ask(self, conditions: tuple[Condition, ...], now_s: float, *, everything: bool) -> None:
        """Let the decider ask what steps wait for. A reading that cannot be used counts as such after a while, for
        connecting takes that long; good readings from which nothing usable comes out do at once."""
        self._asked = {condition: self._asked.get(condition, (now_s, None)) for condition in conditions}
        for condition, (since_s, known) in self._asked.items():
            batch = self.line.batches.get(condition.batch)
            if batch is known and not everything:
                continue
            readings = [self._equipment.latest(tag) for tag in condition.tags]
            usable = all(reading is not None and reading.good for reading in readings)
            self._asked[condition] = (now_s if usable else since_s, batch)
            command = cm.AskCondition(
                batch=condition.batch,
                step=condition.step,
                iteration=condition.iteration,
                bad=usable or now_s - since_s >= BAD_QUALITY_S,
            )
            rows, _ = self._decide(command, self._clock.stamp())
            if rows:
                self._wake.set()

    def _time(self, timers: tuple[Timer, ...]) -> float:
        """Tell which timers have passed; returns seconds until the next one is due."""
        if not timers:
            return TICK_S
        at = self._clock.stamp()
        next_s = TICK_S
        for timer in timers:
            left_s = timer.left_s(at)
            if left_s > 0:
                next_s = min(next_s, left_s)
                continue
            if timer.reads and not self._can_begin(timer, at.boottime_s):
                continue  # a reading or the tick looks again
            passed = timer.passed(at)
            high_s = -1.0 if passed.high_s == float("inf") else passed.high_s
            command = cm.PassTimer(
                batch=timer.batch,
                step=timer.step,
                iteration=timer.iteration,
                timer=timer.timer,
                low_s=passed.low_s,
                high_s=high_s,
            )
            self._decide(command, at)
            self._wake.set()
        return max(0.0, next_s)

    def _can_begin(self, timer: Timer, now_s: float) -> bool:
        """Whether what it reads is there, or was not for so long that the decider shall say so: connecting takes that
        long."""
        reading = self._equipment.latest(timer.reads)
        if reading is not None and reading.good:
            return True
        self._unread = {one: since_s for one, since_s in self._unread.items() if one in self._wanted.timers}
        return now_s - self._unread.setdefault(timer, now_s) >= BAD_QUALITY_S

    # Stopping -----------------------------------------------------------------------------------------------

    def is_ending(self) -> bool:
        """True once the journal has failed: `run` ends by itself as soon as what makes units safe was sent."""
        return self._journal.failed.done()

    async def stop(self) -> bool:
        """Wait for the outcomes of writes under way, then say in a durable row that nothing is in doubt. False when
        an outcome did not come in time: then no such row is made, and the next start asks a person."""
        deadline_s = self._clock.now_s() + CONCLUDE_S_MAX
        while effects(self.line).writes and self._clock.now_s() < deadline_s:
            await self._sleep_until_changed()
        self._seal(self._clock.stamp())
        try:
            await self.submit(cm.StopRuntime())
        except LinesideError as refusal:
            if refusal.code != "runtime.write_open":
                raise
            return False
        return True

    async def _sleep_until_changed(self) -> None:
        self.changed.clear()
        try:
            async with asyncio.timeout(TICK_S):
                await self.changed.wait()
        except TimeoutError:
            pass  # look again: the deadline is the caller's


def _key(write: Write) -> tuple[str, str, int, int, str]:
    """What tells a write from every other one."""
    return (write.batch, write.step, write.iteration, write.attempt, write.tag)
