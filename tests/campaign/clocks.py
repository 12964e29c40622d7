"""Row 10: clocks that are wrong. Timers, signatures and locks, certificates, local time, and a clock that lies."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final
from unittest import mock

from edge import clock
from edge.clock import SystemClock
from edge.core import commands as cm
from edge.core import events as ev
from edge.core import line as head
from edge.core import review
from edge.core.decide import LOCK_S, refuse_locked
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode
from edge.core.line import Elapsed, Failures, Stamp
from edge.core.people import attestation_holds, attested_bytes
from edge.core.recipe.model import Recipe
from edge.core.record import ZERO_HASH, row_hash
from edge.core.terms import ClockQuality
from edge.desk import attested
from edge.directory import Person
from edge.history import utc_us
from edge.identity import DeviceKey
from edge.upkeep import each_day
from tests.campaign import Part, Tally, planted
from tests.simulation.line_model import SLACK_S, Run, random_recipe
from ui import drawing

TRUE: Final = datetime(2026, 3, 29, tzinfo=UTC)
JUMPS: Final = (
    *(timedelta(hours=hours) for hours in (-2, -1, 1, 2)),
    *(timedelta(days=days) for days in (-3, 3)),
    datetime(1970, 1, 1, tzinfo=UTC) - TRUE,
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC) - TRUE,
)
JOURNAL: Final = bytes(16)

# Timers --------------------------------------------------------------------------------------------------------------


class FalseClockRun(Run):
    """The wall clock jumps, stands still or is right; nobody has synced it. Timers must not notice."""

    offs: ClassVar[tuple[timedelta, ...]] = JUMPS
    weights: ClassVar[Mapping[str, int]] = {"the_power_goes": 6, "somebody_amends": 0, "people_go_on_by_hand": 0}

    def __init__(self, seed: int) -> None:
        self.wall = random.Random(seed)
        self.off, self.stands, self.jumps, self.last_boot = timedelta(), "", 0, 1
        super().__init__(seed)

    def drawn(self) -> Recipe:
        """A recipe that begins with something that takes time: that is what a false clock could spoil."""
        while True:
            drawn = random_recipe(self.chance)
            if drawn.main()[0].phase in {"wait", "hold"}:
                return drawn

    def stamp(self) -> Stamp:
        if self.wall.random() < (0.05 if self.boot == self.last_boot else 0.8):  # a box may wake with any time
            self.jumps += 1
            self.off = self.wall.choice(self.offs)
            self.stands = self.utc() if self.wall.random() < 0.2 else ""
        self.last_boot = self.boot
        return Stamp(self.stands or self.utc(), self.quality(), self.true_s - self.boot_s, f"boot-{self.boot}")

    def quality(self) -> ClockQuality:
        return ClockQuality.FREE

    def utc(self) -> str:
        return (TRUE + timedelta(seconds=self.true_s) + self.off).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def jump(seed: int, folder: Path, tally: Tally) -> None:
    del folder
    run = FalseClockRun(seed)
    try:
        run.play()
    finally:
        tally.fault(run.jumps)


def by_the_wall(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """Planted: a dark stretch is measured with whatever the wall clock says."""
    if earlier is None:
        return Elapsed(0.0, 0.0)
    if earlier.boot == later.boot:
        return Elapsed(later.boottime_s - earlier.boottime_s, later.boottime_s - earlier.boottime_s)
    passed_s = max(0.0, wall_s(earlier, later))
    return Elapsed(passed_s, passed_s)


def wall_s(earlier: Stamp, later: Stamp) -> float:
    return (datetime.fromisoformat(later.utc) - datetime.fromisoformat(earlier.utc)).total_seconds()


TIMERS = Part(
    10,
    "timers",
    "wall clock off by hours or days, at 1970 or 2038, or standing, while timers of random batches run",
    gate=500,
    full=50_000,
    inject=jump,
    planted={"a free clock is trusted": planted(jump, "TimerDue", {"edge.core.decide.between": by_the_wall})},
)

# Signatures and locks ------------------------------------------------------------------------------------------------


class SignedRun(FalseClockRun):
    """People sign as they do at the desk, and type wrong PINs, while the clock is right, wrong or standing."""

    offs: ClassVar[tuple[timedelta, ...]] = (*JUMPS, timedelta(), timedelta())
    weights: ClassVar[Mapping[str, int]] = {
        "the_power_goes": 12,
        "somebody_does_a_step": 60,
        "somebody_amends": 2,
        "people_go_on_by_hand": 0,
    }

    def __init__(self, seed: int, signer: DeviceKey) -> None:
        self.signer = signer
        self.held: Stamp | None = None
        """The time of the decision under way: what is signed carries the time of its row."""
        self.hashes: list[bytes] = []
        self.typed = 0
        super().__init__(seed)

    def drawn(self) -> Recipe:
        while True:
            drawn = random_recipe(self.chance)
            if any(step.phase in {"sign", "custody", "clearance", "weigh"} for step in drawn.main()):
                return drawn

    def happenings(self) -> list[tuple[int, Callable[[], None]]]:
        return [*super().happenings(), (25, self.somebody_types_a_pin)]

    def stamp(self) -> Stamp:
        return self.held or super().stamp()

    def quality(self) -> ClockQuality:
        return ClockQuality.FREE if self.off or self.stands else ClockQuality.SYNCED

    def do(self, command: cm.Command) -> list[ev.Event]:
        signed: cm.Signed | None = getattr(command, "signed", None)
        if signed is not None:
            self.held = self.stamp()
            person = Person.model_construct(id=signed.person, roles=signed.roles)
            about = (signed.session, self.held, self.durable, self.hash_of(self.durable))
            made = attested(self.signer, person, signed.role, signed.meaning, *about)
            command = replace(command, signed=made)  # type: ignore[call-arg]  # it has one
        try:
            return super().do(command)
        finally:
            self.held = None

    def hash_of(self, seq: int) -> bytes:
        """Of a durable row: those are never taken back."""
        while len(self.hashes) < seq:
            previous = self.hashes[-1] if self.hashes else ZERO_HASH
            number = len(self.hashes) + 1
            self.hashes.append(row_hash(JOURNAL, JOURNAL, number, previous, self.made[number - 1].data))
        return self.hashes[seq - 1]

    def somebody_types_a_pin(self) -> None:
        """As the desk does: nobody's PIN is looked at while they are locked. By the true time, which no row knows."""
        person = self.chance.choice(["eve", "eve", "eve", "ana"])
        self.true_s += self.chance.choice([0.0, 1.0, 240.0, 600.0])
        self.typed += 1
        at, since = self.stamp(), self.locked_since(person)
        try:
            refuse_locked(self.line, person, at)
        except LinesideError as refusal:
            self.hold(refusal.code == "people.locked" and since > 0, f"{person} is locked, and no row says so")
            lit_s = self.lit_s(since, at)
            self.hold(lit_s < LOCK_S + SLACK_S, f"{person} is locked for longer than the box was on: {lit_s} s")
            return
        if since:
            true_s = self.true_s - self.made[since - 1].true_s
            self.hold(true_s >= LOCK_S - SLACK_S, f"{person} is free again after {true_s} s")
        if self.chance.random() < 0.1:
            self.do(cm.OpenSession(session=person, person=person, roles=(), method="name and PIN"))
        else:
            self.do(cm.RefuseLogIn(person=person))
        if self.chance.random() < 0.7:
            self.rows_become_durable()

    def locked_since(self, person: str) -> int:
        """The row that locks the person; 0 when none does."""
        for seq in range(len(self.made), 0, -1):
            match self.made[seq - 1].body.event:
                case ev.LogInRefused(person=named, locked=locked) if named == person:
                    return seq if locked else 0
                case ev.SessionOpened(person=named) if named == person:
                    return 0
                case _:
                    pass
        return 0

    def lit_s(self, since: int, now: Stamp) -> float:
        """How long the box was on after row `since`, by its rows."""
        stamps = [*(made.body.at for made in self.made[since - 1 :]), now]
        lit = ((one, later) for one, later in pairwise(stamps) if one.boot == later.boot)
        return sum(later.boottime_s - one.boottime_s for one, later in lit)

    def crash_at_every_row(self) -> None:
        """Row 2 does that. Here every signature of the rows that stayed is looked at, and what the record says."""
        self.hash_of(len(self.made))
        bodies = [decode(made.data) for made in self.made]
        for seq, body in enumerate(bodies, 1):
            if isinstance(body.event, ev.SignatureMade):
                holds = attestation_holds(self.signer.public, body.event, body.at.utc)
                self.hold(holds, f"the device did not attest this at the time of its row {seq}: {body}")
                subject = body.event.subject_seq
                mine = 0 < subject < seq and body.event.subject_hash == self.hash_of(subject).hex()
                self.hold(mine, f"signed for another record: {body}")
        for name, record in review.as_built(enumerate(bodies, 1)).items():
            self.judge_record(record, [(seq, body) for seq, body in enumerate(bodies, 1) if body.event.batch == name])

    def judge_record(self, record: review.AsBuilt, rows: list[tuple[int, RowBody]]) -> None:
        """In the order of the rows; and it says of which of them the time may be wrong."""
        signed = [body for _, body in rows if isinstance(body.event, ev.SignatureMade)]
        shown = [(one, step.step) for step in record.steps for one in step.signatures]
        for step in {body.event.step for body in signed}:  # type: ignore[attr-defined]
            wanted = [(b.event.subject_seq, b.at.utc, b.at.quality) for b in signed if b.event.step == step]  # type: ignore[attr-defined]
            told = record.signatures if not step else [one for one, of in shown if of == step]
            found = [(one.subject_seq, one.utc, one.clock) for one in told]
            self.hold(found == wanted, f"the signatures of {step!r} are not in the order of their rows: {found}")
        free = [seq for seq, body in rows if body.at.quality is ClockQuality.FREE]
        said = "\n".join(record.clock.sentences())
        known = f"{len(free)} of its rows were made, between row {free[0]} and row {free[-1]}" if free else ""
        self.hold(known in said, f"the record does not say of which rows nobody set the clock: {said}")
        for (_, one), (seq, later) in pairwise(rows):
            told = f"Before row {seq} " in said or said.count("the clock was set") >= review.JUMPS_MAX
            back = wall_s(one.at, later.at) <= -review.JUMP_S
            self.hold(told or not back, f"the record does not say that the clock went back before row {seq}: {said}")
        text = review.as_text(record)
        doubts = sum(body.at.quality is ClockQuality.FREE for body in signed)
        self.hold(text.count("by a clock that no time source set") == doubts, "the record hides what a clock was worth")


async def sign(seed: int, folder: Path, tally: Tally) -> None:
    run = SignedRun(seed, DeviceKey.create(folder / "device.key"))
    try:
        run.play()
    finally:
        tally.fault(run.jumps)


def at_another_time(**facts: Any) -> bytes:
    """Planted: what is attested is not the time of the row."""
    return attested_bytes(**(facts | {"utc": "2026-01-01T00:00:00.000000Z"}))


def lock_by_the_wall(failures: Failures, at: Stamp) -> float:
    """Planted: a lock ends when the wall clock says so."""
    return wall_s(failures.since, at)


def by_their_times(rows: Iterable[tuple[int, RowBody]]) -> dict[str, review.AsBuilt]:
    """Planted: the record goes by what the rows' times say."""
    return AS_BUILT(sorted(rows, key=lambda row: (isinstance(row[1].event, ev.SignatureMade), row[1].at.utc)))


AS_BUILT: Final = review.as_built
RUNTIME_STARTED: Final = head._runtime_started


def locks_begin_anew(line: head.Line, event: ev.RuntimeStarted, at: Stamp) -> head.Line:
    """Planted: what a lock had lasted before a boot is forgotten."""
    started = RUNTIME_STARTED(line, event, at)
    return replace(started, failures={p: replace(one, before_s=0.0) for p, one in started.failures.items()})


SIGNATURES = Part(
    10,
    "signatures",
    "wall clock off, at 1970 or 2038, set back or standing while people sign and type wrong PINs",
    gate=50,
    full=5_000,
    inject=sign,
    planted={
        "a signature carries another time than its row": planted(
            sign, "did not attest this", {"edge.desk.attested_bytes": at_another_time}
        ),
        "a lock is measured with the wall clock": planted(
            sign, "is locked for longer|is free again after", {"edge.core.decide.locked_s": lock_by_the_wall}
        ),
        "a boot begins a lock anew": planted(
            sign, "is locked for longer", {"edge.core.line._runtime_started": locks_begin_anew}
        ),
        "the record goes by the times of its rows": planted(
            sign, "not in the order of their rows", {"edge.core.review.as_built": by_their_times}
        ),
        "nobody says what a clock was worth": planted(
            sign, "does not say", {"edge.core.review.Clock.fold": lambda *_: None}
        ),
    },
)

# A clock that says that it is set, and lies --------------------------------------------------------------------------


class LyingRun(FalseClockRun):
    """The wall clock says that a time source sets it, and is wrong: always so when a box wakes, now and then later."""

    def quality(self) -> ClockQuality:
        return ClockQuality.SYNCED

    def judge_row(self, event: ev.Event) -> None:
        super().judge_row(event)
        if isinstance(event, ev.RuntimeStarted) and self.made:
            self.judge_dark(event, self.made[-1].body.at, self.now)

    def do(self, command: cm.Command) -> list[ev.Event]:
        self.now = super().stamp()  # the row carries the time by which it is decided
        return super().do(command)

    def stamp(self) -> Stamp:
        return self.now

    def judge_dark(self, event: ev.RuntimeStarted, last: Stamp, at: Stamp) -> None:
        """What the clocks contradict is not believed: then people say how long it was."""
        if last.boot == at.boot:
            return
        claimed_s = wall_s(last, at)
        shows = not max(0.0, at.boottime_s - head.SLEWED_S) <= claimed_s <= head.DARK_S_MAX
        bounds = (event.dark_low_s, event.dark_high_s)
        self.hold(not shows or bounds == (0.0, -1.0), f"a lie that shows is believed: {claimed_s} s, {event}")
        self.hold(shows or bounds == (claimed_s, claimed_s), f"a clock that a time source sets is not used: {event}")

    def judge_timer(self, event: ev.TimerDue) -> None:
        """No lie counts but that about a dark stretch which nothing contradicts; within a boot none does."""
        run = self.line.batches[event.batch].steps[event.step]
        length_s = run.duration_s if event.timer == "duration" else run.timeout_s
        began = next(
            seq
            for seq in range(len(self.made) - 1, -1, -1)
            if isinstance(one := self.made[seq].body.event, ev.StepActivated | ev.RampStepped)
            and (one.batch, one.step, one.iteration) == (event.batch, event.step, event.iteration)
        )
        passed_s = self.true_s - self.made[began].true_s
        for before, after in pairwise(self.made[began:]):
            if isinstance(after.body.event, ev.RuntimeStarted) and before.body.at.boot != after.body.at.boot:
                passed_s += max(0.0, after.body.event.dark_low_s - (after.true_s - before.true_s))
        self.hold(passed_s >= length_s - SLACK_S, f"{event} after {passed_s} s of {length_s} s, lies and all")

    def crash_at_every_row(self) -> None:
        """Row 2 does that. Here the record is asked what it says of a clock that was set while the box was on."""
        bodies = [decode(made.data) for made in self.made]
        for name, record in review.as_built(enumerate(bodies, 1)).items():
            mine = [(seq, body.at) for seq, body in enumerate(bodies, 1) if body.event.batch == name]
            said = "\n".join(record.clock.sentences())
            for (_, last), (seq, at) in pairwise(mine):
                step_s = wall_s(last, at) - (at.boottime_s - last.boottime_s)
                jumped = last.boot == at.boot and abs(step_s) >= review.JUMP_S
                told = f"Before row {seq} " in said or said.count("the clock was set") >= review.JUMPS_MAX
                self.hold(not jumped or told, f"the record does not say that the clock jumped by {step_s} s: {said}")


async def lie(seed: int, folder: Path, tally: Tally) -> None:
    del folder
    run = LyingRun(seed)
    try:
        run.play()
    finally:
        tally.fault(run.jumps)


def whatever_it_says(earlier: Stamp | None, later: Stamp) -> Elapsed:
    """Planted: a clock that says that a time source sets it is above suspicion."""
    if earlier is None or earlier.boot == later.boot or wall_s(earlier, later) < 0:
        return BETWEEN(earlier, later)
    passed_s = wall_s(earlier, later)
    return Elapsed(passed_s, passed_s)


def twice(before: Elapsed, since: Stamp, last: Stamp, gap: Elapsed) -> Elapsed:
    """Planted: what was dark is longer than any clock says."""
    return CARRIED(before, since, last, Elapsed(gap.low_s + 7_200.0, gap.high_s + 7_200.0))


def silent(*_: Stamp) -> str:
    """Planted: nobody looks whether the clock jumped."""
    return ""


BETWEEN: Final = head.between
CARRIED: Final = head._carried

LIES: Final = Part(
    10,
    "lying-clock",
    "a wall clock that says that a time source sets it, and is off by hours, days or decades, or stands",
    gate=50,
    full=5_000,
    inject=lie,
    planted={
        "such a clock is above suspicion": planted(
            lie, "a lie that shows", {"edge.core.decide.between": whatever_it_says}
        ),
        "a dark stretch counts twice": planted(lie, "lies and all", {"edge.core.line._carried": twice}),
        "nobody says that it jumped": planted(lie, "does not say that the clock", {"edge.core.review._jumped": silent}),
    },
)

# Local time ----------------------------------------------------------------------------------------------------------

ZONES: Final = (
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "EST5EDT,M3.2.0,M11.1.0",
    "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",  # half an hour, in the other half of the year
    "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45",
    "IST-5:30",
)
YEAR_BEGINS: Final = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@contextmanager
def living_in(zone: str) -> Iterator[None]:
    """This process lives there."""
    try:
        with mock.patch.dict(os.environ, {"TZ": zone}):
            time.tzset()
            yield
    finally:
        time.tzset()


@cache
def changes(zone: str) -> tuple[float, ...]:
    """When the clocks are changed there in 2026; at some time where they never are."""
    hours = [YEAR_BEGINS + 3600.0 * hour for hour in range(8_760)]
    with living_in(zone):
        found = [late for early, late in pairwise(hours) if time.localtime(early)[8] != time.localtime(late)[8]]
    return tuple(found) or (YEAR_BEGINS + 86_400.0 * 90,)


class LocalRun(Run):
    """A box with the system's clock, in a house whose clocks are changed meanwhile."""

    weights: ClassVar[Mapping[str, int]] = {"somebody_amends": 1, "time_passes": 20}

    def __init__(self, seed: int, zone: str) -> None:
        self.system, self.change_s = SystemClock(), random.Random(seed).choice(changes(zone))
        self.offset_s = self.change_s - 7_000.0
        super().__init__(seed)

    def stamp(self) -> Stamp:
        with mock.patch("edge.clock.datetime", self):
            utc = self.system.utc()
        return Stamp(utc, ClockQuality.SYNCED, self.true_s - self.boot_s, f"boot-{self.boot}")

    @property
    def epoch_s(self) -> float:
        return self.offset_s + self.true_s

    def now(self, zone: tzinfo | None = None) -> datetime:
        """What the clock of the machine says, in the place of `datetime`."""
        return datetime.fromtimestamp(self.epoch_s, zone)

    def judge_row(self, event: ev.Event) -> None:
        """By the true time, without any library that knows zones."""
        super().judge_row(event)
        minutes, days = int(self.epoch_s // 60), int((self.epoch_s - YEAR_BEGINS) // 86_400)
        utc, hour = self.stamp().utc, f"{minutes // 60 % 24:02}:{minutes % 60:02}"
        shown = drawing.moment(utc)
        told = (shown[11:], drawing.clock_time(utc))
        self.hold(told == (f"{hour} UTC", f"{hour}Z"), f"shown as {told}, and it is {hour} in UTC")
        day = date.fromisoformat(shown[:10]).toordinal() - date(2026, 1, 1).toordinal()
        self.hold(day == days, f"shown as {shown}, which is another day")
        self.entered(utc, shown)

    def entered(self, utc: str, shown: str) -> None:
        """What the screen shows, and what a clock in the house shows with its zone, are understood when they are typed;
        so are both hours of a night that has one twice, and one that never was."""
        here = datetime.fromtimestamp(self.epoch_s).astimezone()
        true_us = round(self.epoch_s * 1e6)
        minute = shown.removesuffix(" UTC")
        for text, within_us in ((utc, 1), (here.isoformat(), 1), (minute, 60_000_000), (f"{minute}Z", 60_000_000)):
            found = utc_us(text)
            ok = found is not None and 0 <= true_us - found < within_us
            self.hold(ok, f"{text!r} was entered, and taken for another time")
        hours = timedelta(hours=1)
        early, late = (utc_us((here + n * hours).isoformat()) for n in (0, 1))
        self.hold(early is not None and late == early + 3_600_000_000, "two hours of the clock on the wall are one")

    def crash_at_every_row(self) -> None:
        """Row 2 does that. Here: what people see of the rows is in their order, and each day has its chores once."""
        bodies = [decode(made.data) for made in self.made]
        times = [drawing.moment(body.at.utc) for body in bodies]
        self.hold(times == sorted(times), "rows are shown in another order than they were made")
        for record in review.as_built(enumerate(bodies, 1)).values():
            began = [step.began_utc for step in record.steps if step.began_utc]
            self.hold(began == sorted(began), f"the record of {record.batch} is in another order")
            self.hold(
                not record.clock.sentences(), f"a change of local time counts as one of the clock: {record.clock}"
            )
        trigger, at = each_day("02:30"), datetime.fromtimestamp(self.offset_s, UTC)
        due = [at]
        for _ in range(3):
            due.append(trigger.get_next_fire_time(due[-1], due[-1] + timedelta(seconds=1)))
        self.hold(all(b - a == timedelta(days=1) for a, b in pairwise(due[1:])), f"chores of a day: {due[1:]}")


async def live(seed: int, folder: Path, tally: Tally) -> None:
    del folder
    zone = ZONES[seed % len(ZONES)]
    with living_in(zone):
        run = LocalRun(seed, zone).play()
    assert isinstance(run, LocalRun)
    tally.fault(int(run.epoch_s > run.change_s))


def local(self: SystemClock) -> str:
    """Planted: rows carry the time on the wall."""
    del self
    return clock.datetime.now().isoformat(timespec="microseconds") + "Z"


def without_zone(utc: str) -> str:
    """Planted: a time of UTC looks like one on the wall."""
    return f"{utc[:10]} {utc[11:16]}"


def as_local(text: str) -> int | None:
    """Planted: a time without a zone is one on the wall."""
    return round(datetime.fromisoformat(text).timestamp() * 1e6)


LOCAL: Final = Part(
    10,
    "local-time",
    "clocks in the house are changed for summer and winter while rows are made, shown and times entered",
    gate=50,
    full=5_000,
    inject=live,
    planted={
        "rows carry local time": planted(live, "shown as|another order", {"edge.clock.SystemClock.utc": local}),
        "a time is shown without its zone": planted(live, "shown as", {"ui.drawing.moment": without_zone}),
        "a time without a zone is local": planted(live, "was entered", {"tests.campaign.clocks.utc_us": as_local}),
    },
)

PARTS: Final = (TIMERS, SIGNATURES, LIES, LOCAL)
