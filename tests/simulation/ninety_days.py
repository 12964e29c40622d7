"""Ninety days without a hub, on virtual time: batches, reboots, power cuts of known and unknown length; old rows leave.

The pure core decides, a real journal keeps the rows, and segments of a real archive take the old ones. True time is
known here alone: every row's statement about time is held against it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edge.archive import Record, write_segment
from edge.core import commands as cm
from edge.core import darkness
from edge.core import events as ev
from edge.core.decide import decide
from edge.core.decision import Now
from edge.core.events import decode
from edge.core.forms import open_ask
from edge.core.line import OVER, Book, Line, apply, effects
from edge.core.recipe.model import Instruct, Scan
from edge.core.recipe.model import Record as Recorded
from edge.core.record import SEAL_DOMAIN, fingerprint, sealed_bytes
from edge.core.terms import Act, ClockQuality, Quality, Reading, Role, Stamp, State
from edge.disk import read_forecast
from edge.identity import DeviceKey
from edge.journal import Appended, Journal, JournalReader, open_journal
from tests.core.parts import PLANT, recipe

DAYS: Final = 90
DAY_S: Final = 86_400.0
HOUR_S: Final = 3_600.0
BEGAN: Final = datetime(2026, 3, 1, tzinfo=UTC)  # the clocks of Europe go forward meanwhile
SLACK_S: Final = 1e-3
USE_WITHIN_S: Final = 8 * HOUR_S
KEEP_ROWS: Final = 100
FOLDED_EACH: Final = 10
"""At every so many starts the head is folded anew from archive and journal, and compared."""
RECIPE: Final = recipe(
    [
        {"id": "010", "phase": "scan", "title": "Vial", "text": "Scan it.", "name": "vial", "prefix": "V-",
         "use_within": {"time": "8 h", "until": "030", "on_expiry": "exception", "category": "major"}},
        {"id": "020", "phase": "wait", "title": "Thaw", "duration": "5 h"},
        {"id": "030", "phase": "instruct", "title": "Use", "text": "Use it."},
        {"id": "040", "phase": "parallel", "title": "Grow", "branches": [
            [{"id": "041", "phase": "wait", "title": "Grow", "duration": "4 d"}],
            [{"id": "042", "phase": "monitor", "title": "Watch", "tag": "reactor.temperature", "until": "041",
              "limit": {"low": 20.0, "high": 50.0}, "trend": {"every": "1 d", "least": 3}}],
        ]},
        {"id": "050", "phase": "record", "title": "Count", "text": "Count.", "name": "n", "unit": "%",
         "trend": {"least": 3}},
    ],
    sampling={"daily": {
        "title": "Sample", "during": "041", "every": "24 h", "within": "3 h", "text": "Take it.", "quantity": 5,
        "unit": "mL", "container": "a tube", "prefix": "S-",
    }},
)  # fmt: skip
PEOPLE: Final = {"ana": Role.OPERATOR, "chi": Role.SUPERVISOR}


class NinetyDays:
    """One box that no hub hears of, by one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, random.Random(seed)
        self.signer = DeviceKey.create(folder / "device.key")
        self.book = Book(PLANT, {"seal": RECIPE}, frozenset({"seal"}))
        self.line = Line(self.book)
        self.journal: Journal
        self.appended: Appended
        self.true_s, self.boots, self.boot_s, self.synced = 0.0, 0, 0.0, True
        self.power_s = 0.0
        """When the power goes next."""
        self.person_s = 0.0
        """When a person looks next."""
        self.archived: tuple[int, bytes] = (0, bytes(32))
        self.batches = 0
        self.counted: Counter[str] = Counter()
        self.began_s: dict[tuple[str, str, int], float] = {}
        """True times at which steps became active."""
        self.clock_s: dict[tuple[str, str], float] = {}
        """True times at which clocks of material began, while they run."""
        self.expired: set[tuple[str, str]] = set()
        self.timers: set[tuple[str, str, int, str]] = set()
        self.points: dict[tuple[str, str], int] = {}
        self.forecasts: list[float | None] = []
        self.last = (0.0, True, 0)
        """When the last row was made, by which clock, in which boot."""
        self.dark_s = 0.0
        """How long the box was off, in truth, where no trusted clock says so and nobody has said it."""

    async def play(self) -> None:
        """All of it; raises AssertionError for whatever is not as it must be."""
        while self.true_s < DAYS * DAY_S:
            async with open_journal(self.folder / "journal.db", self.folder / "epoch") as journal:
                self.journal = journal
                if self.counted["RuntimeStarted"] % FOLDED_EACH == 0:
                    self.line = self.folded()
                self.start()
                self.live_until(min(self.power_s, DAYS * DAY_S))
                await self.archive_and_prune()
            self.go_dark()
        self.line = self.folded()

    def folded(self) -> Line:
        """The head from every row, those in the archive too."""
        line, path = Line(self.book), self.folder / "journal.db"
        if not path.exists() or not self.line.seq:
            return line
        with Record(path, self.folder / "archive", {fingerprint(self.signer.public): self.signer.public}) as record:
            while rows := record.rows(line.seq, 2_000):
                for row in rows:
                    line = apply(line, decode(row.body))
        assert line == self.line, "the rows do not give the head again"
        return line

    # Time and power --------------------------------------------------------------------------------------------------

    def stamp(self) -> Stamp:
        off = timedelta() if self.synced else timedelta(days=-400)
        utc = (BEGAN + timedelta(seconds=self.true_s) + off).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        quality = ClockQuality.SYNCED if self.synced else ClockQuality.FREE
        return Stamp(utc, quality, round(self.true_s - self.boot_s, 6), f"boot-{self.boots}")

    def go_dark(self) -> None:
        """The process is killed, or the power goes for a while."""
        if self.chance.random() < 0.3:
            self.counted["killed"] += 1
            self.true_s += 2.0
            return
        self.true_s += self.chance.choice([60.0, 1_200.0, 5 * HOUR_S, 30 * HOUR_S])
        self.boots, self.boot_s = self.boots + 1, self.true_s - 20.0
        before, self.synced = self.synced, self.chance.random() < 0.6
        self.counted["known" if before and self.synced else "unknown"] += 1

    def start(self) -> None:
        soon = self.chance.random() < 0.3
        self.power_s = self.true_s + self.chance.uniform(HOUR_S, 6 * HOUR_S if soon else 6 * DAY_S)
        self.person_s = self.true_s + 600.0
        row_s, synced, boots = self.last
        if boots != self.boots and not (synced and self.synced):
            self.dark_s += self.true_s - row_s
        self.do(cm.StartRuntime(version="t"))
        self.do(cm.LoadRecipe(recipe="R", version="1", title="A recipe", seal="seal"))
        for person, role in PEOPLE.items():
            self.do(cm.OpenSession(session=person, person=person, roles=(role,), method="badge and PIN"))

    def live_until(self, end_s: float) -> None:
        """Timers are told when they are due, as the engine does; people come from time to time."""
        while True:
            self.tell_timers()
            self.nothing_expired_silently()
            left = [one.left_s(self.stamp()) for one in effects(self.line).timers]
            next_s = min(self.person_s, *(self.true_s + max(SLACK_S, one) for one in left), end_s)
            if next_s >= end_s:
                self.true_s = max(self.true_s, end_s)
                return
            self.true_s = next_s
            if self.true_s >= self.person_s:
                self.somebody_comes()
                self.person_s = self.true_s + self.chance.choice([300.0, HOUR_S, 2 * HOUR_S, 5 * HOUR_S])

    def tell_timers(self) -> None:
        while due := [one for one in effects(self.line).timers if one.left_s(self.stamp()) <= 0]:
            one = due[0]
            passed = one.passed(self.stamp())
            told = {"batch": one.batch, "step": one.step, "iteration": one.iteration, "timer": one.timer}
            high_s = -1.0 if passed.high_s == math.inf else passed.high_s
            rows = self.do(cm.PassTimer(**told, low_s=passed.low_s, high_s=high_s))
            assert rows, f"{one} is due again and again"

    # People ----------------------------------------------------------------------------------------------------------

    def somebody_comes(self) -> None:
        live = self.line.live()
        if not live:
            self.batches += 1
            name = f"B{self.batches}"
            self.do(cm.StartBatch(session="ana", batch=name, order="O", seal="seal", patient="", speed=1.0))
            return
        (batch,) = live
        if batch.state is State.HELD:
            self.counted[f"held for {batch.cause}"] += 1
            told = {"session": "chi", "batch": batch.batch, "reason": "It was looked at."}
            for question in list(batch.questions.values()):
                self.answer(batch.batch, question.question)
            if darkness.unbounded(self.line.batches[batch.batch]):
                self.enter_dark(batch.batch)
            if self.line.batches[batch.batch].state is State.HELD:
                self.do(cm.ActOnBatch(**told, act=Act.RESUME))
            return
        for run in batch.active():
            step, about = RECIPE.steps()[run.step], {"session": "ana", "batch": batch.batch, "step": run.step}
            ask = open_ask(RECIPE, batch, step, run)
            match step:
                case Instruct():
                    self.do(cm.ConfirmStep(**about))
                case Scan():
                    self.do(cm.ScanCode(**about, text="V-1"))
                case Recorded():
                    self.do(cm.EnterValue(**about, text=f"{self.chance.gauss(50, 1):.2f}"))
                case _ if ask is not None and ask.kind == "scan":
                    self.do(cm.ScanCode(**about, text="S-1"))
                case _ if ask is not None:
                    self.do(cm.EnterValue(**about, text="5"))
                case _:
                    continue
            return

    def signed(self, person: str, role: Role) -> cm.Signed:
        return cm.Signed(
            person=person, roles=(role,), role=role, methods=("PIN",), meaning="it goes on",
            session="chi", subject_seq=self.line.seq, subject_hash="00" * 32, attestation="00" * 64,
        )  # fmt: skip

    def enter_dark(self, batch: str) -> None:
        """Two people know how long the box was off, by another clock."""
        for person, role, verifies in (("ana", Role.OPERATOR, False), ("chi", Role.SUPERVISOR, True)):
            said = {"minutes": round(self.dark_s / 60), "verifies": verifies, "signed": self.signed(person, role)}
            self.do(cm.EnterDark(session="chi", batch=batch, **said))

    def answer(self, batch: str, question: str) -> None:
        signed = self.signed("chi", Role.SUPERVISOR)
        self.do(
            cm.AnswerQuestion(
                session="chi", batch=batch, question=question, answer="happened", reading=None, signed=signed
            )
        )

    # Rows and what they say ------------------------------------------------------------------------------------------

    def reading(self, _: str) -> Reading:
        return Reading(37.0, "degC", Quality.GOOD, "", self.true_s)

    def do(self, command: cm.Command) -> list[ev.Event]:
        rows = decide(self.line, command, Now(self.stamp(), self.reading))
        if rows:
            self.appended = self.journal.append(rows)
            self.last = (self.true_s, self.synced, self.boots)
        for row in rows:
            self.judge(row.event)
            self.line = apply(self.line, row)
        assert self.line.stored_seq == 0, "no hub has anything"
        return [row.event for row in rows]

    def judge(self, event: ev.Event) -> None:
        """What a row says about time is true."""
        self.counted[type(event).__name__] += 1
        key = (event.batch, getattr(event, "material", ""))
        match event:
            case ev.BatchStarted():
                self.dark_s = 0.0
            case ev.DarkVerified():
                self.dark_s = 0.0
                may_be = USE_WITHIN_S - 2 * 60.0  # what may have expired in the dark has not, as far as they know
                self.expired = {one for one in self.expired if self.true_s - self.clock_s.get(one, 0.0) >= may_be}
            case ev.StepActivated():
                self.began_s[event.batch, event.step, event.iteration] = self.true_s
            case ev.TimerDue():
                one = (event.batch, event.step, event.iteration, event.timer)
                assert one not in self.timers, f"doubled: {event}"
                self.timers.add(one)
                self.bounded(event, self.true_s - self.began_s[one[:3]])
                batch = self.line.batches[event.batch]
                length_s = {"duration": batch.steps[event.step].duration_s}.get(event.timer, 0.0)
                assert self.true_s - self.began_s[one[:3]] >= length_s - SLACK_S, f"too early: {event}"
            case ev.ExpiryBegun():
                self.clock_s[key] = self.true_s
            case ev.ExpiryNear():
                self.bounded(event, self.true_s - self.clock_s[key])
                assert key not in self.expired
                self.counted["near in time"] += self.true_s - self.clock_s[key] < USE_WITHIN_S
            case ev.ExpiryPassed():
                self.bounded(event, self.true_s - self.clock_s[key])
                assert key not in self.expired, f"said twice: {event}"
                assert event.high_s < 0 or event.high_s >= USE_WITHIN_S, f"too early: {event}"
                self.expired.add(key)
            case ev.ExpiryEnded():
                self.bounded(event, self.true_s - self.clock_s[key])
                self.over_in_silence(key)
                del self.clock_s[key]
            case ev.BatchStateChanged() if State(event.now) in OVER:
                self.clock_s = {one: began for one, began in self.clock_s.items() if one[0] != event.batch}
            case ev.TrendJudged() if event.point:
                before = self.points.get((event.batch, event.step), 0)
                assert event.point == before + event.missed + 1, f"a point was skipped: {event}"
                self.points[event.batch, event.step] = event.point
            case _:
                pass

    def bounded(self, event: Any, true_s: float) -> None:
        """The truth lies within what the row says."""
        high_s = math.inf if event.high_s < 0 else event.high_s
        assert event.low_s - SLACK_S <= true_s <= high_s + SLACK_S, f"{true_s} s in truth: {event}"

    def nothing_expired_silently(self) -> None:
        for key in self.clock_s:
            self.over_in_silence(key)

    def over_in_silence(self, key: tuple[str, str]) -> None:
        over = self.true_s - self.clock_s[key] >= USE_WITHIN_S + SLACK_S
        assert not over or key in self.expired, f"{key} expired and no row says so"

    # The disk --------------------------------------------------------------------------------------------------------

    async def archive_and_prune(self) -> None:
        """Seal; old rows go into a segment, and leave the journal. The forecast speaks of the rows that there are."""
        seq, row_hash = self.journal.head_seq, self.journal.head_hash
        message = sealed_bytes(self.journal.journal_id, self.journal.epoch, seq, row_hash)
        signature = self.signer.sign(SEAL_DOMAIN, message).hex()
        public = self.signer.public.hex()
        self.do(cm.SealRows(seq=seq, row_hash=row_hash.hex(), public_key=public, signature=signature))
        await self.appended.durable()
        self.forecasts.append(read_forecast(self.folder, self.stamp().utc).days)
        live = min((batch.started_seq for batch in self.line.live()), default=self.line.seq)
        until_seq = min(self.line.sealed_seq, live - 1, self.line.seq - KEEP_ROWS)
        if until_seq <= self.archived[0]:
            return
        (self.folder / "archive").mkdir(exist_ok=True)
        with JournalReader(self.folder / "journal.db") as reader:
            made = write_segment(
                reader, self.folder / "archive", after=self.archived, until_seq=until_seq, signer=self.signer
            )
            (last,) = reader.rows(made.last_seq - 1, 1)
        segment = cm.Archived(first_seq=made.first_seq, last_seq=made.last_seq, sha256=made.sha256)
        self.do(
            cm.PruneRows(
                first_seq=made.first_seq, through_seq=made.last_seq, through_hash=last.hash.hex(), segments=(segment,),
                on_medium=True, hub_safe_seq=0, receipt="", prunable_seq=made.last_seq,
            )
        )  # fmt: skip
        await self.appended.durable()
        await self.journal.prune(made.last_seq)
        self.archived = (made.last_seq, last.hash)
        self.counted["segments"] += 1
