"""From a command to rows, or to a refusal in words.

`decide` reads the head and the sealed recipe, and answers with the rows that state the result. It changes
nothing: the engine folds the rows with `edge.core.line.apply` and appends them to the journal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from edge.core import (
    amending,
    by_hand,
    calling,
    cleaning,
    darkness,
    entering,
    expiring,
    housekeeping,
    ordering,
    printing,
    queueing,
    serve,
    training,
)
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.alarms import OPEN_MAX, TOO_MANY, AlarmState, AlarmWatch, Told
from edge.core.amending import lengths
from edge.core.approve import change_recipe, startable
from edge.core.commands import facts_of
from edge.core.decision import ACT_HINT, Now, WorkedOut
from edge.core.errors import NOTHING_STARTED, LinesideError
from edge.core.events import Event, RowBody
from edge.core.forms import (
    labels_printed,
    open_ask,
    weight_limits,
)
from edge.core.formula import Formula, Given, compile_formula
from edge.core.guard import may_write, overdue
from edge.core.lifecycle import RecipeLife
from edge.core.line import (
    BY_HAND,
    EXPIRY,
    OVER,
    PASSED,
    RECIPES_KEPT,
    RESTORE,
    SAFE_STEP,
    SEMANTICS,
    Batch,
    Failures,
    Intent,
    Line,
    Question,
    StepRun,
    apply,
    between,
    elapsed,
    entry_timers,
    is_timed,
    plan_of,
    samples_next,
    shown_tag,
    tag_name,
)
from edge.core.mode import DUE, HAND, LATE, Mode
from edge.core.numbers import PRODUCT, SKIPPED_AFTER_RESTORE, TRAINING, given
from edge.core.people import Permission, not_permitted, permitted, roles_with
from edge.core.profiles import PROFILES, refuse_start
from edge.core.recipe import limit_in, seal, set_point_in
from edge.core.recipe.amend import Change, allowed, amended
from edge.core.recipe.model import (
    COMPOSITE,
    Attachment,
    Calculate,
    Call,
    Custody,
    Hold,
    Invoke,
    Label,
    Loop,
    Monitor,
    Parallel,
    Ramp,
    Recipe,
    Sample,
    SamplingPlan,
    Scan,
    Select,
    Service,
    Set,
    Step,
    Transfer,
    Wait,
    Weigh,
)
from edge.core.recipe.values import ITERATION, number_of, ramp_end_in, ramp_step_in, seconds, variables_in, whole
from edge.core.recipe.values import said as spoken
from edge.core.room import Level, refuse_batch_that_will_not_fit, refuse_while_full, said
from edge.core.serving import TRANSITION_S
from edge.core.terms import (
    TRANSITIONS,
    Act,
    Elapsed,
    Quality,
    Role,
    Stamp,
    State,
    Value,
    bounds_text,
    inside,
    show,
)
from edge.core.trend import TIMER
from edge.core.trending import judge_recorded, pin_trend, take_point

BOX: Final = "lineside"
"""The actor of what the box does by itself."""
PIN_FAILURES_MAX: Final = 5
TOO_MANY_OPEN: Final = AlarmWatch(
    TOO_MANY,
    Told(
        "high",
        f"{OPEN_MAX} alarms are open: further ones are not shown.",
        "A condition that comes and goes meanwhile is not told.",
        "Acknowledge alarms; what still holds is raised then.",
    ),
)
Expiry = ev.ExpiryBegun | ev.ExpiryNear | ev.ExpiryPassed | ev.ExpiryEnded
"""Of material, which an earlier pass of a loop may have taken."""
LOCK_S: Final = 900.0
"""A lock lasts so long by the boot's clock; a restart of the machine begins it anew."""


def decide(line: Line, command: cm.Command, now: Now) -> list[RowBody]:
    """The rows that state the result of `command`; none when nothing changes or its id was answered before.

    Raises LinesideError when the command is refused; then nothing was decided."""
    return decided(line, command, now)[0]


def decided(line: Line, command: cm.Command, now: Now) -> tuple[list[RowBody], Line]:
    """As `decide`, and the head after the rows, which the decision folded one by one."""
    if command.command_id and command.command_id in line.answered:
        return [], line
    decision = _Decision(line, command, now)
    decision.run(command)
    return decision.rows, decision.line


class _Decision:
    """One decision under way: rows so far, and the head as it will be after them."""

    def __init__(self, line: Line, command: cm.Command, now: Now) -> None:
        self.line = line
        self.now = now
        self.rows: list[RowBody] = []
        self.command_id = command.command_id
        self.actor = BOX
        self.roles: tuple[Role, ...] = ()
        if isinstance(command, cm.ByPerson) and not (isinstance(command, cm.ReceiveOrder) and command.trusted):
            session = line.sessions.get(command.session)
            if session is None:
                raise LinesideError(
                    "session.none", "Nobody is logged in at this terminal.", todo="Log in with your badge and PIN."
                )
            self.actor, self.roles = session.person, session.roles

    def emit(self, event: Event) -> None:
        """Add a row. The first one carries the request's id, so that a repeated request finds its answer."""
        if self.command_id and not self.rows:
            event = replace(event, command_id=self.command_id)
        batch = self.line.batches.get(event.batch)
        run = batch.steps.get(getattr(event, "step", "")) if batch else None
        iteration = run.iteration if run else 1
        if (
            iteration != 1
            and hasattr(event, "iteration")
            and not isinstance(event, ev.StepActivated | ev.StepSkipped | ev.CommandIntended | Expiry)
        ):
            within: dict[str, Any] = {"iteration": iteration}
            event = replace(event, **within)
        row = RowBody(event, self.now.at, self.actor)
        self.rows.append(row)
        self.line = apply(self.line, row)

    def run(self, command: cm.Command) -> None:
        match command:
            case cm.StartRuntime():
                self.start_runtime(command)
            case cm.StopRuntime():
                self.stop_runtime()
            case cm.LoadPlant():
                self.load_plant(command)
            case cm.LoadRecipe():
                # one of the older half is said anew: it must not leave the head while it is effective
                if command.seal not in [*self.line.recipes][-RECIPES_KEPT // 2 :]:
                    loaded = (command.recipe, command.version, command.title, command.seal)
                    recipe, version, title, seal = loaded
                    self.emit(ev.RecipeLoaded(recipe=recipe, version=version, title=title, seal=seal))
            case cm.SetRecipeApproval():
                if command.approval is not self.line.approval:
                    self.emit(ev.RecipeApprovalSet(approval=command.approval.value))
            case cm.SetProfile():
                if (command.profile, command.ad_hoc) != (self.line.profile, self.line.ad_hoc):
                    self.emit(ev.ProfileSet(profile=command.profile.value, ad_hoc=list(command.ad_hoc)))
            case cm.ChangeRecipe():
                change_recipe(self, command)
            case cm.TakeReceipt():
                housekeeping.take_receipt(self, command)
            case cm.SealRows():
                housekeeping.seal_rows(self, command)
            case cm.NoteCheckpoint():
                housekeeping.note_checkpoint(self, command)
            case cm.PruneRows():
                housekeeping.prune_rows(self, command)
            case cm.NoteSelfCheck():
                housekeeping.note_self_check(self, command)
            case cm.NoteDrill():
                housekeeping.note_drill(self, command)
            case cm.SealValues():
                self.emit(ev.ValuesSealed(**facts_of(command)))
            case cm.MissValues():
                self.emit(ev.ValuesMissing(**facts_of(command)))
            case cm.ThinValues():
                housekeeping.thin_values(self, command)
            case cm.HoldOnFullDisk():
                self.hold_on_full_disk()
            case cm.TellUnrecorded():
                self.tell_unrecorded(command)
            case cm.EraseIdentity():
                housekeeping.erase_identity(self, command)
            case cm.OpenSession():
                self.open_session(command)
            case cm.CloseSession():
                self.close_session(command.session, command.reason)
            case cm.RefuseLogIn():
                self.refuse_log_in(command.person)
            case cm.ReceiveOrder():
                ordering.receive(self, command)
            case cm.CancelOrder():
                ordering.cancel(self, command)
            case cm.SetNumbers():
                self.set_numbers(command)
            case cm.StartBatch():
                self.start_batch(command)
            case cm.ActOnBatch():
                self.act(command)
            case cm.ContinueBatch():
                self.continue_batch(command)
            case cm.ConfirmStep():
                entering.confirm(self, command)
            case cm.EnterValue():
                entering.enter(self, command)
            case cm.ScanCode():
                entering.scan(self, command)
            case cm.SignStep():
                entering.sign(self, command)
            case cm.AnswerQuestion():
                self.answer(command)
            case cm.PassTimer():
                self.pass_timer(command)
            case cm.NoteReading():
                self.note_reading(command)
            case cm.ConcludeWrite():
                self.conclude_write(command)
            case cm.AddResult():
                entering.add_result(self, command)
            case cm.CorrectValue():
                entering.correct(self, command)
            case cm.AskCondition():
                self.ask_condition(command)
            case cm.RequestAmendment():
                amending.request(self, command)
            case cm.TakeProposal():
                amending.take_proposal(self, command)
            case cm.SettleAmendment():
                amending.settle(self, command)
            case cm.SwitchMode():
                by_hand.switch(self, command)
            case cm.EnterByHand():
                by_hand.enter(self, command)
            case cm.EnterDark():
                darkness.enter(self, command)
            case cm.NoteAlarm():
                self.note_alarm(command)
            case cm.AcknowledgeAlarm():
                self.acknowledge(command)
            case _:
                raise AssertionError(f"unknown command {command!r}")

    # The box -------------------------------------------------------------------------------------------------

    def start_runtime(self, command: cm.StartRuntime) -> None:
        dark = between(self.line.at, self.now.at)
        continues = command.continues
        clean = not self.line.running and continues is None
        high_s = -1.0 if dark.high_s == float("inf") else dark.high_s
        self.emit(ev.RuntimeStarted(version=command.version, clean=clean, dark_low_s=dark.low_s, dark_high_s=high_s))
        if continues is not None:
            fetched = command.fetched or cm.Fetched(
                backup_seq=continues.seq, mirror_seq=None, hub_seq=None, heard_seq=None
            )
            self.emit(
                ev.JournalContinued(
                    epoch=continues.epoch.hex(),
                    last_seq=continues.seq,
                    last_hash=continues.hash.hex(),
                    backup_seq=fetched.backup_seq,
                    mirror_seq=fetched.mirror_seq,
                    hub_seq=fetched.hub_seq,
                    heard_seq=fetched.heard_seq,
                )
            )
            why = restored_because(continues.seq, fetched.heard_seq)
            self.skip_numbers(max(0, (fetched.heard_seq or 0) - continues.seq))
            cleaning.restored(self)
            for order in self.line.orders:
                self.emit(ev.OrderCancelled(order=order, reason=f"It may have been started already. {why}"))
        for batch in self.line.live():
            if continues is not None and batch.state is State.IDLE:  # it may have begun after the backup
                self.change(batch.batch, State.STOPPING, RESTORE, why)
            elif continues is not None and batch.state not in {State.STOPPING, State.ABORTING}:
                self.hold_restored(batch.batch, why)
                self.ask_anew(batch.batch)
            for intent in batch.intents.values():
                why = "The box stopped between the intent and the outcome: nobody knows whether it was written."
                self.unknown(batch.batch, intent, why, None)
            if not clean:
                self.wake_up(batch.batch)
            expiring.look(self, batch.batch)  # before anything goes on with it
            if math.isinf(dark.high_s):
                darkness.look(self, batch.batch)
            self.proceed(batch.batch)

    def skip_numbers(self, missing: int) -> None:
        """Leave out the numbers that lost rows may have used: a batch makes at least one row."""
        for purpose, one in self.line.numbers.items():
            skipped = one.next + SKIPPED_AFTER_RESTORE + missing
            why = f"The journal came back from a backup, and {missing:,} rows are known to be missing."
            self.emit(ev.NumbersSkipped(purpose=purpose, was=one.next, next=skipped, why=why))

    def set_numbers(self, command: cm.SetNumbers) -> None:
        """Another range, or none. It begins behind what was ever used of it."""
        was, now = self.line.numbers.get(PRODUCT), command.numbers
        if now is None:
            if was is not None:
                self.emit(ev.NumberRangeSet(prefix="", first=0, last=0, digits=0, next=0))
            return
        if was is not None and replace(was, next=now.next) == now:
            return
        same = was is not None and (was.prefix, was.digits) == (now.prefix, now.digits)
        first = max(now.first, was.next) if was is not None and same else now.first
        while first <= now.last and now.number(first) in self.line.used:
            first += 1
        self.emit(ev.NumberRangeSet(prefix=now.prefix, first=now.first, last=now.last, digits=now.digits, next=first))

    def wake_up(self, batch_id: str) -> None:
        """Steps for which a power cut matters hold the batch, or ask a person."""
        batch = self.line.batches[batch_id]
        if batch.state not in {State.RUNNING, State.PAUSING}:
            return  # nothing went on; what it waits for is decided by a person in any case
        for run in batch.active():
            step = self.recipe(batch).steps()[run.step]
            if not is_timed(run):
                continue  # people look after it, with the box or without
            on_restart = step.on_restart if isinstance(step, Wait | Hold) else "resume"
            if on_restart == "resume":
                continue
            why = f"{run.title}: the box was off while this step was under way."
            self.raise_exception(batch_id, run.step, "major", "step.restart", why)
            if on_restart == "hold":
                self.hold(batch_id, "power", why)
                continue
            within = "" if run.iteration == 1 else f"{run.iteration}."
            self.emit(
                ev.QuestionRaised(
                    batch=batch_id,
                    question=f"{run.step}.{within}{run.attempt}",
                    step=run.step,
                    tag="",
                    intent=run.title,
                    unit="",
                    before=None,
                    reading=None,
                    why=f"{why} Go on: the time counts as far as it is certain. "
                    "Begin anew: it runs from its beginning.",
                    answers=["happened", "again", "abort"],
                )
            )
            self.hold(batch_id, "question", why)

    def hold_restored(self, batch_id: str, why: str) -> None:
        """Hold until somebody decides. The cause takes an earlier one's place: no answer to a question ends it."""
        self.raise_exception(batch_id, "", "critical", "journal.restored", why)
        self.hold(batch_id, RESTORE, why)
        self.change(batch_id, State.HELD, RESTORE, why)

    def tell_unrecorded(self, command: cm.TellUnrecorded) -> None:
        """Say which units were made safe without a row, and hold their batches: what the recipe had set is gone."""
        for batch in self.line.live():
            units = self.line.book.plant.safe_state(batch.units.values())
            written = command.batches.get(batch.batch, () if command.batches else ("nobody knows which",))
            if not written or not units:
                continue
            why = (
                f"The journal had failed {command.utc or 'in the last run'}: the box wrote the safe state of the "
                f"units of this batch without a row, {'; '.join(written)}. What the recipe had set does not come back "
                "by itself."
            )
            self.raise_exception(batch.batch, "", "critical", "safe_state.unrecorded", why)
            if batch.state not in {State.STOPPING, State.ABORTING} and not batch.restored:
                self.hold(batch.batch, "safe_state", why)
                self.change(batch.batch, State.HELD, "safe_state", why)  # no answer to a question ends it

    def stop_runtime(self) -> None:
        for batch in self.line.live():
            if batch.intents:
                raise LinesideError(
                    "runtime.write_open",
                    f"A write of batch {batch.batch} has no outcome yet.",
                    effect="The runtime goes on until the outcome is known.",
                    todo="Wait a few seconds.",
                )
        self.emit(ev.RuntimeStopped())

    def load_plant(self, command: cm.LoadPlant) -> None:
        if command.content == self.line.plant_content:
            return
        if self.line.live():
            raise LinesideError(
                "plant.in_use",
                "The plant file was changed while a batch runs on the earlier one, or waits for its units.",
                effect="The batch goes on with the plant it was started on.",
                todo="The change takes effect at the next start of the runtime without such a batch.",
            )
        self.emit(ev.PlantLoaded(plant=command.plant, content=command.content))

    def hold_on_full_disk(self) -> None:
        """Hold what runs, while the disk is full. A person resumes it when there is room again."""
        room = self.now.room
        if room is not None and room.level is Level.FULL:
            for batch in self.line.live():
                self.hold(batch.batch, "disk", f"The disk is full: {said(room.free_bytes)} free.")
                self.proceed(batch.batch)

    # People --------------------------------------------------------------------------------------------------

    def open_session(self, command: cm.OpenSession) -> None:
        refuse_locked(self.line, command.person, self.now.at)
        self.actor = command.person
        self.emit(
            ev.SessionOpened(
                session=command.session,
                person=command.person,
                roles=[role.value for role in command.roles],
                method=command.method,
            )
        )

    def close_session(self, session: str, reason: str) -> None:
        open_session = self.line.sessions.get(session)
        if open_session is not None:
            self.actor = open_session.person
            self.emit(ev.SessionClosed(session=session, person=open_session.person, reason=reason))

    def refuse_log_in(self, person: str) -> None:
        failures = self.line.failures.get(person)
        count = (failures.count if failures else 0) + 1
        if failures and failures.locked and locked_s(failures, self.now.at) >= LOCK_S:
            count = 1
        self.emit(ev.LogInRefused(person=person[:64], failures=count, locked=count >= PIN_FAILURES_MAX))

    def need(self, permission: Permission) -> None:
        if not permitted(self.roles, permission):
            raise not_permitted(self.actor, permission)

    def need_role(self, role: Role) -> None:
        if role not in self.roles:
            raise LinesideError(
                "people.role",
                f"This step is for the role {role.value}; {self.actor} does not have it.",
                effect="The step is unchanged.",
                todo=f"Ask someone with the role {role.value} to do it.",
            )

    # Starting and ending a batch -----------------------------------------------------------------------------

    def start_batch(self, command: cm.StartBatch) -> None:
        line = self.line
        patient = bool(command.patient.strip())
        refuse_start(line.profile, person=self.actor, roles=self.roles, with_patient=patient)
        if command.training:
            recipe, _ = self.effective(command.seal)
            number = given(line.numbers, TRAINING)
            command = training.as_training(command, number, with_patient=needs_patient(recipe))
        else:
            training.refuse_training_number(command)
        command = ordering.ordered(line, command)
        for name, value in (("batch", command.batch), ("order", command.order)):
            missing = not value.strip() and (name == "batch" or bool(value))  # `ordering` knows who needs an order
            if missing or len(value) > 64 or not value.isprintable():
                raise LinesideError(
                    "batch.id", f"The {name} id is empty, too long or not printable.", todo=f"Give the {name} an id."
                )
        if command.batch in line.used:
            raise LinesideError(
                "batch.exists",
                f"There is a batch {command.batch} already.",
                todo="Open it, or give the new batch an id of its own.",
            )
        recipe, loaded = self.effective(command.seal)
        if needs_patient(recipe) and not command.patient.strip():
            raise LinesideError(
                "batch.patient",
                "This recipe makes one batch for one patient, and no patient identity was given.",
                todo="Scan the patient identity (DIN) from the order.",
            )
        if command.queue:
            self.enqueue(command, recipe, loaded.recipe, loaded.version)
        else:
            self.begin(command)

    def enqueue(self, command: cm.StartBatch, recipe: Recipe, named: str, version: str) -> None:
        """Let the batch wait. It takes no unit; those that it needs are kept for it against later ones."""
        line = self.line
        ahead = queueing.waiting(line)
        if len(ahead) >= queueing.WAITING_MAX:
            raise LinesideError(
                "queue.full",
                f"{len(ahead)} batches wait on this box already.",
                effect=NOTHING_STARTED,
                todo="Start or stop one that waits, or use another box.",
            )
        # refused when this box can never have units for it
        queueing.allocate(line.book.plant, recipe, {}, training=command.training)
        self.emit(
            ev.BatchQueued(
                batch=command.batch,
                order=command.order,
                patient=command.patient.strip(),
                recipe=named,
                version=version,
                seal=command.seal,
                speed=command.speed,
                waits=str(queueing.turn(line, recipe, self.now.at, training=command.training)),
                training=command.training,
                **control(recipe, command.changes),
            )
        )

    def begin(self, asked: cm.StartBatch | Batch) -> None:
        """Begin a batch, new or waiting: whatever must hold is looked at now. It takes all its units or none."""
        batch_id, seal = asked.batch, asked.seal
        recipe, loaded = self.effective(seal)
        line = self.line
        if self.now.room is not None:
            running = sum(self.recipe(one).activations() for one in line.live() if one.state is not State.IDLE)
            refuse_batch_that_will_not_fit(self.now.room, running + recipe.activations())
        taken, dirty = queueing.taken(line, self.now.at, batch_id), cleaning.not_clean(line, self.now.at)
        taken |= dict.fromkeys(self.now.by_hand, queueing.BY_HAND)
        wanted = amended(recipe, asked.changes) if asked.changes else recipe
        units = queueing.allocate(line.book.plant, wanted, taken, dirty, training=asked.training)
        allowed_dirty = cleaning.allowed_dirty(line, asked.changes, self.now.at)
        self.emit(
            ev.BatchStarted(
                batch=batch_id,
                order=asked.order,
                patient=asked.patient.strip(),
                recipe=loaded.recipe,
                version=loaded.version,
                seal=seal,
                semantics=SEMANTICS,
                units=units,
                speed=asked.speed,
                training=asked.training,
                **control(recipe, asked.changes),
                profile=line.profile.value,
            )
        )
        for unit in allowed_dirty:
            what = (
                f"{unit} is used although it is {dirty[unit]}; the recipe wants a clean one, an amendment allowed it."
            )
            self.raise_exception(batch_id, "", allowed(wanted).category, "unit.used_dirty", what)
        cleaning.taken(self, batch_id)
        self.offer_attachments(batch_id, "", recipe.attachments)
        pin_trend(self, batch_id, recipe, loaded.recipe, seal)
        self.proceed(batch_id)

    def effective(self, seal: str) -> tuple[Recipe, RecipeLife | ev.RecipeLoaded]:
        """The recipe that a batch may be started with."""
        recipe, loaded = self.line.book.recipes.get(seal), startable(self.line, seal)
        if recipe is None or loaded is None:
            raise LinesideError(
                "recipe.not_effective",
                "This recipe is not effective on this box.",
                todo="Choose one of the recipes shown.",
            )
        return recipe, loaded

    def offer_attachments(self, batch_id: str, step: str, attachments: Sequence[Attachment]) -> None:
        if attachments:
            named = [{"file": one.file, "sha256": one.sha256} for one in attachments]
            self.emit(ev.AttachmentsOffered(batch=batch_id, step=step, attachments=named))

    def act(self, command: cm.ActOnBatch) -> None:
        batch = self.batch(command.batch)
        if command.act is Act.START:
            refuse_start(self.line.profile, person=self.actor, roles=self.roles, with_patient=bool(batch.patient))
        else:
            self.need(Permission(command.act.value))
        target = TRANSITIONS.get((batch.state, command.act))
        if target is None:
            raise LinesideError(
                "batch.transition",
                f"Cannot {command.act.value}: batch {batch.batch} is {batch.state.value}.",
                effect="The batch is unchanged.",
                todo=ACT_HINT.get(batch.state, "Look at the batch's state first."),
            )
        if command.act is Act.START:
            self.begin(batch)
            return
        if command.act is Act.RESUME:
            if batch.restored:
                able = " or ".join(role.value for role in roles_with(Permission.CONTINUE))
                raise LinesideError(
                    "batch.restored",
                    f"Cannot resume: batch {batch.batch} came back with a backup, and rows after it may be missing.",
                    effect="The batch stays held. Nothing moves.",
                    todo=f"Let someone with the role {able} compare it with the hub, the equipment and the paper, and "
                    "sign that it goes on.",
                )
            self.refuse_resume(batch)
        reason = command.reason.strip() or f"{command.act.value} by {self.actor}"
        self.change(batch.batch, target, "person", reason)
        if target in {State.STOPPING, State.ABORTING} and batch.state is not State.STOPPING:
            self.make_safe(batch.batch)  # a batch that is being stopped is being made safe already
        self.proceed(batch.batch)

    def refuse_resume(self, batch: Batch) -> None:
        """Raise when something must be settled before anything moves again."""
        if batch.questions:
            raise LinesideError(
                "batch.question_open",
                f"Cannot resume: batch {batch.batch} has an open question about a write.",
                effect="The batch stays held. Nothing moves.",
                todo="Answer the question first.",
            )
        if why := darkness.unbounded(batch):
            raise LinesideError(
                "batch.dark",
                f"Cannot resume: {why}",
                effect="The batch stays held. Nothing moves.",
                todo="Let two people enter how much time passed, by another clock (Batch, Time off), or stop it.",
            )
        if self.now.room is not None:
            refuse_while_full(self.now.room)

    def continue_batch(self, command: cm.ContinueBatch) -> None:
        """Go on with a restored batch: somebody who may decide so signs it, and says why."""
        batch, signed = self.batch(command.batch), command.signed
        if not batch.restored:
            raise LinesideError(
                "batch.not_restored",
                f"Batch {batch.batch} is {batch.state.value}; it does not wait for a decision about missing rows.",
                effect="The batch is unchanged.",
                todo=ACT_HINT.get(batch.state, "Look at the batch's state first."),
            )
        if not permitted((signed.role,), Permission.CONTINUE) or signed.role not in signed.roles:
            raise not_permitted(signed.person, Permission.CONTINUE)
        if not command.reason.strip():
            raise LinesideError(
                "batch.restored_reason",
                f"Cannot go on without a reason: batch {batch.batch} came back with a backup.",
                effect="The batch stays held. Nothing moves.",
                todo="Say what you compared and why the batch may go on; it becomes part of the record.",
            )
        self.refuse_resume(batch)
        self.make_signature(batch.batch, "", signed)
        self.change(batch.batch, State.RESTARTING, "person", command.reason.strip())
        self.proceed(batch.batch)

    def change(self, batch_id: str, target: State, cause: str, reason: str) -> None:
        batch = self.line.batches[batch_id]
        self.emit(
            ev.BatchStateChanged(
                batch=batch_id,
                was=batch.state.value,
                now=target.value,
                cause=cause,
                reason=reason,
            )
        )

        if target in OVER:
            cleaning.ended(self, batch_id)
        if cause != RESTORE:  # what its services do since then the journal of a backup does not know
            serve.pass_on(self, batch_id, target)

    def abort(self, batch_id: str, cause: str, reason: str) -> None:
        """End it at once, with what makes its units safe."""
        self.change(batch_id, State.ABORTING, cause, reason)
        self.make_safe(batch_id)

    def hold(self, batch_id: str, cause: str, reason: str) -> None:
        """Hold because of what the box found. A batch that is held already keeps its first reason."""
        if self.line.batches[batch_id].state in {State.RUNNING, State.PAUSING, State.PAUSED, State.RESTARTING}:
            self.change(batch_id, State.HOLDING, cause, reason)

    def make_safe(self, batch_id: str) -> None:
        """Intend the safe state of every unit that the batch uses."""
        batch, plant = self.line.batches[batch_id], self.line.book.plant
        for full_name, value in plant.safe_state(batch.units.values()):
            self.intend(batch_id, SAFE_STEP, 1, 1, full_name, value)

    # The way through the recipe --------------------------------------------------------------------------------

    def proceed(self, batch_id: str) -> None:
        """Settle transient states, then complete and activate whatever can be. Idempotent."""
        batch = self.line.batches[batch_id]
        flying = [intent for intent in batch.intents.values() if not intent.in_doubt]
        match batch.state:
            case State.HOLDING if not flying:
                self.change(batch_id, State.HELD, batch.cause, batch.reason)
            case State.STOPPING | State.ABORTING if not flying:
                ended = State.STOPPED if batch.state is State.STOPPING else State.ABORTED
                for run in batch.active():
                    self.emit(ev.StepEnded(batch=batch_id, step=run.step, state=ended.value, reason=batch.reason))
                self.change(batch_id, ended, batch.cause, batch.reason)
            case State.RESTARTING:
                self.do_again(batch_id)
                if self.line.batches[batch_id].state is State.RESTARTING:  # else the guard refused what was agreed to
                    self.change(batch_id, State.RUNNING, batch.cause, batch.reason)
                self.proceed(batch_id)
            case State.RUNNING:
                if self.walk(batch_id, self.recipe(batch).main()) and not self.line.batches[batch_id].active():
                    self.change(batch_id, State.COMPLETE, "recipe", "Every step is done.")
                if self.line.batches[batch_id].state is State.HOLDING:
                    self.proceed(batch_id)  # the guard refused what the walk intended: nothing is under way
            case State.PAUSING if all(run.phase in {"monitor", *COMPOSITE} for run in batch.active()):
                self.change(batch_id, State.PAUSED, batch.cause, batch.reason)
            case _:
                pass

    def walk(self, batch_id: str, sequence: Sequence[Step], iteration: int = 1) -> bool:
        """Go along one sequence in one iteration: True when all of it is done. Begins what can be begun."""
        batch = self.line.batches[batch_id]
        way = self.recipe(batch).way(sequence)
        for step in way[batch.runs().passed(way, iteration) :] if batch.state is State.RUNNING else way:
            batch = self.line.batches[batch_id]
            if batch.state is not State.RUNNING:
                return False
            run = batch.steps.get(step.id)
            if run is None or run.iteration != iteration or run.state == "active":
                if amendment := batch.skips.get(step.id):
                    self.skip(batch_id, step, iteration, amendment)
                elif run is None or run.iteration != iteration:
                    self.activate(batch_id, step, iteration)
                run = self.line.batches[batch_id].steps[step.id]
            if run.state == "active" and not self.finish(batch_id, step, iteration):
                return False
        return True

    def finish(self, batch_id: str, step: Step, iteration: int) -> bool:
        """Complete what the box does by itself once it can be: True when the step is done."""
        match step:
            case Parallel():
                done = [self.walk(batch_id, branch, iteration) for branch in step.branches]
                # a monitor waits for a step of a sibling branch, which may have been completed just now
                if not all(done):
                    done = [self.walk(batch_id, branch, iteration) for branch in step.branches]
                if not all(done):
                    return False
            case Monitor():
                hand = self.line.batches[batch_id].steps[step.id].hand
                if hand is not None and hand.mode is Mode.MANUAL:
                    return False  # people look after it: it ends when two of them have said so
                until = self.line.batches[batch_id].steps.get(step.until)
                if until is None or until.state not in PASSED or until.iteration != iteration:
                    return False
            case Call():
                if not self.walk(batch_id, step.steps, iteration):
                    return False
            case Select():
                if not self.go_one_way(batch_id, step, iteration):
                    return False
            case Loop():
                if not self.go_round(batch_id, step):
                    return False
            case Calculate():
                if not self.calculate(batch_id, step):
                    return False
            case _:
                return False
        self.complete(batch_id, step.id)
        return True

    # What formulas decide --------------------------------------------------------------------------------------

    def go_one_way(self, batch_id: str, step: Select, iteration: int) -> bool:
        """Take one branch, once, and walk it: True when it is done."""
        if self.line.batches[batch_id].steps[step.id].branch is None and not self.choose(batch_id, step):
            return False
        branch = self.line.batches[batch_id].steps[step.id].branch
        way = step.branches[branch].steps if branch is not None and branch >= 0 else step.else_ or ()
        return self.walk(batch_id, way, iteration)

    def choose(self, batch_id: str, step: Select) -> bool:
        """Take the first branch whose condition is true, else `else`: False when a condition cannot be worked out."""
        inputs: list[ev.Input] = []
        taken, formula, title, why = -1, "", "", ""
        for place, branch in enumerate(step.branches):
            found = self.work_out(batch_id, step, branch.when)
            inputs += [one for one in found.inputs if one not in inputs]
            if found.trouble and not self.continues(batch_id, step, found.trouble):
                return False
            if found.trouble:
                why = found.trouble
                break
            if found.value is True:
                taken, formula, title = place, branch.when, branch.title
                break
        row = ev.BranchTaken(
            batch=batch_id, step=step.id, branch=taken, title=title, formula=formula, inputs=inputs, why=why
        )
        self.emit(row)
        return True

    def go_round(self, batch_id: str, step: Loop) -> bool:
        """Begin passes and walk them: True when the loop has ended."""
        times = whole(self.recipe(self.line.batches[batch_id]), step.times)
        while True:
            run = self.line.batches[batch_id].steps[step.id]
            if run.passes and not self.walk(batch_id, step.steps, run.body):
                return False
            if self.line.batches[batch_id].state is not State.RUNNING:
                return False  # the last step held the batch: nothing is asked before it goes on
            asked: list[tuple[str, bool, int]] = []  # (condition, whether it ends the loop when it is this, the pass)
            if run.passes and step.until:
                asked.append((step.until, True, run.passes))
            if step.while_:
                asked.append((step.while_, False, run.passes + 1))
            inputs: list[ev.Input] = []
            why = ""
            for formula, ends, number in asked:
                found = self.work_out(batch_id, step, formula, number)
                inputs += [one for one in found.inputs if one not in inputs]
                if found.trouble and not self.continues(batch_id, step, found.trouble):
                    return False
                why = why or found.trouble
                if not found.trouble and found.value is ends:
                    self.emit(
                        ev.LoopEnded(
                            batch=batch_id, step=step.id, passes=run.passes, formula=formula, inputs=found.inputs
                        )
                    )
                    return True
            if run.passes >= times:
                self.emit(ev.LoopEnded(batch=batch_id, step=step.id, passes=run.passes, formula="", inputs=inputs))
                if asked:
                    what = f"{step.title}: ended after {times} passes, though its condition would let it go on."
                    self.raise_exception(batch_id, step.id, step.category, "loop.bound", what)
                    if step.category == "critical":
                        self.hold(batch_id, "limit", what)
                return True
            formula = " | ".join(one for one, _, _ in asked)
            begun = ev.PassBegun(
                batch=batch_id,
                step=step.id,
                number=run.passes + 1,
                times=times,
                body=run.body + 1,
                formula=formula,
                inputs=inputs,
                why=why,
            )
            self.emit(begun)
            self.samples_in_pass(batch_id, step.id, run.passes + 1)

    def calculate(self, batch_id: str, step: Calculate) -> bool:
        """Record what comes out: True when the step is done, with or without a value."""
        found = self.work_out(batch_id, step, step.formula)
        value = found.value
        if value is None:
            return self.continues(batch_id, step, found.trouble)
        low, high = (None, None)
        if step.limit is not None:
            low, high = limit_in(self.recipe(self.line.batches[batch_id]), step.limit, step.unit)
        within = not isinstance(value, float) or inside(value, low, high)
        self.emit(
            ev.ValueRecorded(
                batch=batch_id,
                step=step.id,
                name=step.name,
                value=value,
                unit=step.unit,
                source="calculated",
                low=low,
                high=high,
                within=within,
                formula=step.formula,
                inputs=found.inputs,
            )
        )
        if not within and step.limit is not None:
            self.outside(
                batch_id, step, step.limit.category, f"{step.title}: {value:g} {step.unit}".rstrip(), low, high
            )
        return True

    def ask_condition(self, command: cm.AskCondition) -> None:
        batch = self.line.batches.get(command.batch)
        run = batch.steps.get(command.step) if batch else None
        if batch is None or run is None or run.state != "active" or run.iteration != command.iteration:
            return
        step = self.recipe(batch).steps()[run.step]
        if run.hand is not None:
            return
        if isinstance(step, Service):
            serve.look(self, batch, step, run, bad=command.bad)
            if self.rows:
                self.proceed(batch.batch)
            return
        if not isinstance(step, Wait) or not step.until or batch.state not in {State.RUNNING, State.PAUSING}:
            return
        found = self.work_out(batch.batch, step, step.until)
        if found.trouble:
            if command.bad and batch.state is State.RUNNING and step.on_bad_quality == "hold":
                self.continues(batch.batch, step, found.trouble)
                self.proceed(batch.batch)
        elif found.value is True:
            self.emit(ev.ConditionMet(batch=batch.batch, step=step.id, formula=step.until, inputs=found.inputs))
            self.complete(batch.batch, step.id)
            self.proceed(batch.batch)

    def work_out(self, batch_id: str, step: Step, text: str, number: int | None = None) -> WorkedOut:
        """What comes out of a formula of the step now. `number` is the pass that `iteration` stands for, when it is not
        that of the loop around the step."""
        batch = self.line.batches[batch_id]
        recipe = self.recipe(batch)
        formula = compile_formula(text, variables_in(recipe, text))
        if number is None:
            around = recipe.loop_of(step.id)
            number = batch.steps[around].passes if around else 0
        given: dict[str, Given] = {}
        inputs: list[ev.Input] = []
        for name in formula.names:
            value, source, quality = self.look_up(batch, recipe, step.id, name, number)
            if value is not None:
                given[name] = value
                inputs.append(
                    {"name": name, "value": value.value, "unit": value.unit, "quality": quality, "source": source}
                )
        return worked_out(formula, given, inputs)

    def look_up(self, batch: Batch, recipe: Recipe, step: str, name: str, number: int) -> tuple[Given | None, str, str]:
        """What a name in a formula of a step stands for now, where it is from, and its quality."""
        if name.startswith("$"):
            parameter = recipe.parameters[name[1:]]
            value, unit = parameter.value, parameter.unit
            if parameter.type == "duration":
                value, unit = number_of(parameter)
            return Given(value, unit), "parameter", Quality.GOOD.value
        if name in recipe.readings:
            full_name = tag_name(batch.units, name)
            if entered := by_hand.value_by_hand(self.line, batch, step, full_name):
                return Given(*entered), f"{full_name} by hand", HAND
            reading = self.now.reading(full_name)
            if reading is None:
                return None, full_name, Quality.BAD.value
            why = reading.detail.rstrip(".") or f"{show(reading)} is {reading.quality.value}"
            bad = "" if reading.good else f"{why}."
            return Given(reading.value, reading.unit, bad), full_name, reading.quality.value
        recorded = batch.values.get(name)
        if recorded is not None:
            within = f", iteration {recorded.iteration}" if recorded.iteration != 1 else ""
            return Given(recorded.value, recorded.unit), f"step {recorded.step}{within}", Quality.GOOD.value
        return (Given(float(number)) if name == ITERATION and number else None), "loop", Quality.GOOD.value

    def continues(self, batch_id: str, step: Select | Loop | Calculate | Wait, trouble: str) -> bool:
        """What cannot be used goes to `on_bad_quality`: an exception record, and True when the step goes on without."""
        if by_hand.waits(self.line, self.line.batches[batch_id], step, self.now.reading):
            return False  # people enter it
        what = f"{step.title}: {trouble}"
        self.raise_exception(batch_id, step.id, "major", "formula.not_usable", what)
        if step.on_bad_quality == "continue":
            return True
        self.hold(batch_id, "quality", what)
        return False

    def activate(self, batch_id: str, step: Step, iteration: int, attempt: int = 1) -> None:
        batch = self.line.batches[batch_id]
        recipe = self.recipe(batch)
        length_s, timeout_s = 0.0, 0.0
        match step:
            case Wait() | Hold():
                length_s, timeout_s = lengths(recipe, step, batch.speed)
            case Ramp():
                length_s = seconds(recipe, step.every) / batch.speed
            case Service():
                timeout_s = TRANSITION_S  # until it is idle, or told something
            case _:
                warn_after: str = getattr(step, "warn_after", "")
                timeout_s = seconds(recipe, warn_after) if warn_after else 0.0  # people have a speed of their own too
        self.emit(
            ev.StepActivated(
                batch=batch_id,
                step=step.id,
                phase=step.phase,
                title=spoken(recipe, step.title),
                iteration=iteration,
                attempt=attempt,
                duration_s=length_s,
                timeout_s=timeout_s,
            )
        )
        self.offer_attachments(batch_id, step.id, step.attachments)
        self.samples_due(batch_id, lambda plan: plan.at == step.id)
        self.tell_overdue(batch, step)
        cleaning.begun(self, batch_id, step)
        if isinstance(step, Set):
            full_name = tag_name(batch.units, step.tag)
            tag = self.line.book.plant.tag(full_name)
            if tag is None:
                raise LinesideError("tag.unknown", f"The plant has no tag {full_name}.", todo="Check the plant file.")
            self.intend(batch_id, step.id, iteration, 1, full_name, set_point_in(recipe, step, tag.unit))
        if isinstance(step, Invoke):
            calling.call(self, batch, step, iteration)
        if isinstance(step, Label) and step.printer:
            printing.go_on(self, batch_id, step)

    def tell_overdue(self, batch: Batch, step: Step) -> None:
        """Raise an exception record for each instrument of the step whose calibration is overdue; hold, where the plant
        says so."""
        names = by_hand.tags_of(self.line, batch, step)
        if isinstance(step, Set | Ramp | Invoke):
            names = (*names, tag_name(batch.units, step.tag))
        for name in dict.fromkeys(names):
            tag = self.line.book.plant.tag(name)
            if tag is None or tag.calibration is None or not (why := overdue(tag, self.now.at.utc[:10])):
                continue
            what = f"{step.title}: {name}: {why}"
            self.raise_exception(batch.batch, step.id, "major", "calibration.overdue", what)
            if tag.calibration.overdue == "hold":
                self.hold(batch.batch, "calibration", what)

    def samples_due(self, batch_id: str, are: Callable[[SamplingPlan], bool]) -> None:
        """Samples of these plans are due now."""
        recipe = self.recipe(self.line.batches[batch_id])
        for name, plan in recipe.sampling.items():
            if are(plan):
                self.sample_due(batch_id, recipe.planned()[name], plan)

    def samples_in_pass(self, batch_id: str, loop: str, number: int) -> None:
        self.samples_due(batch_id, lambda plan: plan.during == loop and number in plan.passes)

    def sample_due(self, batch_id: str, step: Sample, plan: SamplingPlan) -> None:
        """Ask for a sample. One that was not taken until now is missed."""
        run = self.line.batches[batch_id].steps.get(step.id)
        if run is not None and run.state == "active":
            what = f"{run.title}: sample {run.iteration} was not taken until the next one was due."
            self.raise_exception(batch_id, step.id, plan.category, "sample.missed", what)
            self.emit(ev.StepEnded(batch=batch_id, step=step.id, state="missed", reason=what))
        self.activate(batch_id, step, run.iteration + 1 if run is not None else 1)

    def tell_samples(self, batch_id: str, step: str) -> None:
        """Samples of plans that are due during this step by now: timer "plan:number". After a time in the dark only the
        last one can still be taken."""
        batch = self.line.batches[batch_id]
        run, recipe = batch.steps[step], self.recipe(batch)
        passed = elapsed(run.since, run.before_boot, self.now.at)
        until_s = min(passed.low_s, math.nextafter(run.duration_s, 0.0)) if run.duration_s else passed.low_s
        for number, name, every_s in samples_next(recipe, batch.speed, run):
            last = math.floor(until_s / every_s)
            if last < number:
                continue
            plan, planned = recipe.sampling[name], recipe.planned()[name]
            if missed := last - number:
                many = "a sample was" if missed == 1 else f"{missed} samples were"
                what = f"{plan.title}: {many} due while nobody could be asked."
                self.raise_exception(batch_id, planned.id, plan.category, "sample.missed", what)
            high_s = -1.0 if passed.high_s == math.inf else passed.high_s
            due = ev.TimerDue(batch=batch_id, step=step, timer=f"{name}:{last}", low_s=passed.low_s, high_s=high_s)
            self.emit(due)
            self.sample_due(batch_id, planned, plan)

    def skip(self, batch_id: str, step: Step, iteration: int, amendment: str) -> None:
        title = spoken(self.recipe(self.line.batches[batch_id]), step.title)
        self.emit(
            ev.StepSkipped(
                batch=batch_id, step=step.id, phase=step.phase, title=title, amendment=amendment, iteration=iteration
            )
        )
        expiring.passed_step(self, batch_id, step, self.line.batches[batch_id].steps[step.id])

    def complete(self, batch_id: str, step: str) -> None:
        self.tell_samples(batch_id, step)
        of = self.recipe(self.line.batches[batch_id]).steps().get(step)
        if of is not None:
            judge_recorded(self, batch_id, of)
        self.emit(ev.StepCompleted(batch=batch_id, step=step))
        batch = self.line.batches[batch_id]
        expiring.passed_step(self, batch_id, self.recipe(batch).steps()[step], batch.steps[step])
        cleaning.done(self, batch_id, self.recipe(batch).steps()[step])

    # Equipment commands ----------------------------------------------------------------------------------------

    def intend(self, batch_id: str, step: str, iteration: int, attempt: int, full_name: str, value: Value) -> None:
        plant = self.line.book.plant
        tag = plant.tag(full_name)
        before = self.now.reading(shown_tag(self.line, full_name))
        batch = self.line.batches[batch_id]
        safe = step == SAFE_STEP or batch.state in {State.HOLDING, State.STOPPING, State.ABORTING}
        asked: dict[str, Any] = {} if safe else {"latest": self.now.reading, "today": self.now.at.utc[:10]}
        try:
            may_write(plant, full_name, value, training=batch.training, units=batch.units.values(), **asked)
        except LinesideError as refusal:
            intent = Intent(step, iteration, attempt, full_name, value, tag.unit if tag else "", None, self.line.seq)
            self.refused(batch_id, intent, refusal.what)
            return
        if step != SAFE_STEP:
            cleaning.used(self, batch_id, full_name.partition(".")[0])
        self.emit(
            ev.CommandIntended(
                batch=batch_id,
                step=step,
                iteration=iteration,
                attempt=attempt,
                tag=full_name,
                value=value,
                unit=tag.unit if tag else "",
                before=before.value if before and before.good else None,
                late=batch.state in {State.STOPPING, State.ABORTING},
            )
        )

    def conclude_write(self, command: cm.ConcludeWrite) -> None:
        batch = self.line.batches.get(command.batch)
        key = (command.step, command.iteration, command.attempt, command.tag)
        intent = batch.intents.get(key) if batch else None
        if batch is None or intent is None or intent.in_doubt:
            return  # concluded already, or in doubt since: a late outcome decides nothing
        match command.outcome:
            case "confirmed":
                self.emit(
                    ev.CommandConfirmed(
                        batch=batch.batch,
                        step=intent.step,
                        attempt=intent.attempt,
                        tag=intent.tag,
                        reading=command.reading,
                    )
                )
                if intent.step in batch.steps:
                    self.written(batch.batch, intent, command.reading)
            case "refused":
                self.refused(batch.batch, intent, command.why)
            case "unknown":
                self.unknown(batch.batch, intent, command.why, command.reading)
        self.proceed(batch.batch)

    def written(self, batch_id: str, write: Intent | Question, reading: Value | None) -> None:
        """A write happened: its step is done, unless it is a ramp on its way or a service."""
        batch = self.line.batches[batch_id]
        step_id, attempt, value = write.step, _attempt_of(write), _value_of(write)
        step = self.recipe(batch).steps()[step_id]
        if isinstance(step, Service):
            serve.written(self, batch_id, step, write.tag, value, write.before, reading)
            return
        if isinstance(step, Invoke):
            calling.answered(self, batch, step, reading)
            return
        if isinstance(step, Label) and isinstance(write, Intent):
            printing.printed(self, batch_id, step, write)
            return
        if isinstance(step, Ramp) and isinstance(value, float | int):
            tag = self.line.book.plant.tag(tag_name(batch.units, step.tag))
            if tag is not None and value != ramp_end_in(self.recipe(batch), step, tag.unit):
                self.emit(ev.RampStepped(batch=batch_id, step=step_id, value=float(value), attempt=attempt + 1))
                return
        self.complete(batch_id, step_id)

    def ramp_on(self, batch: Batch, step: Ramp, command: cm.PassTimer) -> None:
        """The next write of a ramp, at most one step of its rate from where the set-point stands."""
        recipe, run = self.recipe(batch), batch.steps[step.id]
        full_name = tag_name(batch.units, step.tag)
        tag = self.line.book.plant.tag(full_name)
        if tag is None:
            raise LinesideError("tag.unknown", f"The plant has no tag {full_name}.", todo="Check the plant file.")
        stands: Value | None = run.given.get("ramp")
        if stands is None:
            now = self.now.reading(shown_tag(self.line, full_name))
            if now is None or not now.good or not isinstance(now.value, float | int):
                if batch.state is State.RUNNING:
                    what = f"{step.title}: where {full_name} stands cannot be read, so it cannot be ramped from there."
                    self.raise_exception(batch.batch, step.id, "major", "reading.bad_quality", what)
                    self.hold(batch.batch, "quality", what)
                return
            stands = now.value
        self.emit(
            ev.TimerDue(batch=batch.batch, step=step.id, timer="duration", low_s=command.low_s, high_s=command.high_s)
        )
        end, by = ramp_end_in(recipe, step, tag.unit), ramp_step_in(recipe, step, tag.unit)
        left = end - float(stands)
        value = end if abs(left) <= by * (1 + 1e-9) else float(stands) + math.copysign(by, left)
        self.intend(batch.batch, step.id, run.iteration, run.attempt, full_name, value)

    def refused(self, batch_id: str, intent: Intent, why: str) -> None:
        self.emit(ev.CommandRefused(batch=batch_id, step=intent.step, attempt=intent.attempt, tag=intent.tag, why=why))
        batch = self.line.batches[batch_id]
        step = self.recipe(batch).steps().get(intent.step)
        if isinstance(step, Label):
            printing.not_printed(self, batch_id, step, intent)
        self.ask(batch_id, intent, why, None, code="command.refused", answers=["again", "abort"])

    def unknown(self, batch_id: str, intent: Intent, why: str, reading: Value | None) -> None:
        self.emit(
            ev.CommandUnknown(
                batch=batch_id, step=intent.step, attempt=intent.attempt, tag=intent.tag, why=why, reading=reading
            )
        )
        self.ask(batch_id, intent, why, reading, code="command.unknown", answers=["happened", "again", "abort"])

    def ask(
        self, batch_id: str, intent: Intent, why: str, reading: Value | None, *, code: str, answers: list[str]
    ) -> None:
        """Raise the exception record, and the question that holds the batch. While a batch is being ended there
        is nothing left to decide: the exception record alone says it."""
        word = "was refused" if code == "command.refused" else "is unknown"
        shown = f"{intent.value} {intent.unit}".strip()
        step = self.recipe(self.line.batches[batch_id]).steps().get(intent.step)
        write = serve.told(self, batch_id, intent) or f"Write of {shown} to {intent.tag}"
        if isinstance(step, Label):
            write = f"Printing {step.copies} labels at {intent.tag}"
        safe = intent.step == SAFE_STEP or bool(serve.is_passed_on(self, batch_id, intent))
        self.raise_exception(batch_id, intent.step, "critical" if safe else "major", code, f"{write} {word}: {why}")
        if safe or self.line.batches[batch_id].state in {State.STOPPING, State.ABORTING}:
            return
        within = "" if intent.iteration == 1 else f"{intent.iteration}."
        question = f"{intent.step}.{within}{intent.attempt}"
        self.emit(
            ev.QuestionRaised(
                batch=batch_id,
                question=question,
                step=intent.step,
                tag=intent.tag,
                intent=intent.value,
                unit=intent.unit,
                before=intent.before,
                reading=reading,
                why=why,
                answers=answers,
            )
        )
        self.hold(batch_id, "question", f"{write} {word}.")

    def answer(self, command: cm.AnswerQuestion) -> None:
        batch = self.batch(command.batch)
        question = batch.questions.get(command.question)
        if question is None:
            raise LinesideError(
                "question.closed",
                "This question is not open any more: it was answered, or the batch was ended.",
                todo="Look at the batch again.",
            )
        if command.answer not in question.answers:
            raise LinesideError(
                "question.answer",
                "The device refused the write: it certainly did not happen.",
                effect="The batch stays held.",
                todo="Choose to do it again, or abort.",
            )
        if batch.state is not State.HELD:
            raise LinesideError(
                "batch.transition",
                f"Cannot answer: batch {batch.batch} is {batch.state.value}.",
                effect="The batch is unchanged.",
                todo=ACT_HINT.get(batch.state, "Look at the batch's state first."),
            )
        if not permitted((command.signed.role,), Permission.ANSWER) or command.signed.role not in command.signed.roles:
            raise not_permitted(command.signed.person, Permission.ANSWER)
        self.make_signature(batch.batch, question.step, command.signed)
        self.emit(
            ev.QuestionAnswered(
                batch=batch.batch,
                question=question.question,
                step=question.step,
                answer=command.answer,
                reading=command.reading,
            )
        )
        self.follow_answer(batch, question, command)
        self.proceed(batch.batch)

    def follow_answer(self, batch: Batch, question: Question, command: cm.AnswerQuestion) -> None:
        if command.answer == "abort":
            self.abort(batch.batch, "person", f"Aborted by {self.actor} at a question.")
            return
        asked = self.recipe(batch).steps()[question.step]
        broken_off = serve.is_broken_off(self, batch, question)
        if command.answer == "happened" and broken_off and isinstance(asked, Service):
            serve.answered(self, batch, question, asked)
        elif isinstance(asked, Label):
            printing.answered(self, batch.batch, asked, question, command.answer)
        elif command.answer == "happened" and question.tag:
            self.written(batch.batch, question, command.reading)
        but = "" if question.tag else question.step  # of which they said how it goes on
        self.questions_settled(batch.batch, f"Answered by {self.actor}: {command.answer}.", but)

    def questions_settled(self, batch_id: str, why: str, but: str = "") -> None:
        """Let a batch that was held by questions go on once none is open, unless it must be said how long the box was
        off."""
        batch = self.line.batches[batch_id]
        if batch.state is not State.HELD or batch.cause != "question" or batch.questions:
            return
        if dark := darkness.unbounded(batch, but):
            self.change(batch_id, State.HELD, darkness.CAUSE, dark)
        else:
            self.change(batch_id, State.RESTARTING, "question", why)

    def do_again(self, batch_id: str) -> None:
        """Begin what people signed to be done again. It waited: a batch that is held moves nothing."""
        batch = self.line.batches[batch_id]
        for run in batch.active():
            step, question = self.recipe(batch).steps()[run.step], batch.agreed.get(run.step)
            if self.line.batches[batch_id].state is not State.RESTARTING:
                return
            if run.step in batch.skips or run.hand is not None:
                continue
            if isinstance(step, Label):
                if step.printer:
                    printing.go_on(self, batch_id, step)
            elif question is None:
                continue
            elif not question.tag or serve.is_broken_off(self, batch, question):
                self.activate(batch_id, step, run.iteration, run.attempt + 1)
            else:
                attempt = run.attempt if isinstance(step, Service) else _attempt_of(question) + 1
                self.intend(batch_id, run.step, run.iteration, attempt, question.tag, question.intent)

    def ask_anew(self, batch_id: str) -> None:
        """Ask again what was agreed to before a backup: it may have been done in rows that are not here."""
        for step, one in self.line.batches[batch_id].agreed.items():
            self.emit(
                ev.QuestionRaised(
                    batch=batch_id,
                    question=one.question,
                    step=step,
                    tag=one.tag,
                    intent=one.intent,
                    unit=one.unit,
                    before=one.before,
                    reading=None,
                    why="It was to be done again. This box came back from a backup: it may have been done since then.",
                    answers=["happened", "again", "abort"],
                )
            )

    # What people do at a step ------------------------------------------------------------------------------------

    def batch(self, batch_id: str) -> Batch:
        batch = self.line.batches.get(batch_id)
        if batch is None:
            raise LinesideError(
                "batch.unknown", f"There is no batch {batch_id[:64]}.", todo="Choose one that is shown."
            )
        return batch

    def recipe(self, batch: Batch) -> Recipe:
        return self.line.recipe(batch)

    def leave_open(self, batch: Batch, step: Step, name: str, title: str, unit: str, interim: str) -> None:
        iteration = self.line.batches[batch.batch].steps[step.id].iteration
        self.emit(
            ev.ResultPending(
                batch=batch.batch,
                result=f"{step.id}.{name}" + (f".{iteration}" if iteration > 1 else ""),
                step=step.id,
                name=name,
                title=title,
                unit=unit,
                interim=interim,
            )
        )

    def advance(self, batch_id: str, step: Step) -> None:
        """Complete the step when nothing is left to ask, with the rows that state what came of it."""
        batch = self.line.batches[batch_id]
        if open_ask(self.recipe(batch), batch, step, batch.steps[step.id]) is None:
            self.conclude_form(batch, step, batch.steps[step.id])
            self.complete(batch_id, step.id)
        elif isinstance(step, Label) and step.printer:
            printing.go_on(self, batch_id, step)
        self.proceed(batch_id)

    def conclude_form(self, batch: Batch, step: Step, run: StepRun) -> None:
        given, name = run.given, batch.batch
        match step:
            case Weigh():
                self.conclude_weighing(batch, step, run)
            case Sample():
                for test in step.tests:
                    if test.later:
                        self.leave_open(batch, step, test.name, f"{step.title}, {test.name}", test.unit, "")
            case Label() if step.reconcile:
                printed = labels_printed(step, run)
                used, void = (float(given[f"{step.name}.{what}"]) for what in ("used", "void"))
                missing = printed - used - void
                self.emit(
                    ev.ValueRecorded(
                        batch=name,
                        step=step.id,
                        name=step.name,
                        value=missing,
                        unit="1",
                        source="printed - used - void",
                        low=0.0,
                        high=0.0,
                        within=missing == 0,
                    )
                )
                if missing:
                    what = f"{step.title}: {printed:g} labels printed, {used:g} used, {void:g} void"
                    self.outside(name, step, step.category, f"{what}: {missing:g}", 0.0, 0.0)
            case Transfer():
                quantity = given[step.name]
                assert isinstance(quantity, float)
                self.emit(
                    ev.Transferred(
                        batch=name,
                        step=step.id,
                        name=step.name,
                        source=str(given[f"{step.name}.from"]),
                        target=str(given[f"{step.name}.to"]),
                        quantity=quantity,
                        unit=step.unit,
                    )
                )
            case Custody():
                (gives, _), (takes, _) = run.signed
                what = spoken(self.recipe(batch), step.what)
                self.emit(ev.CustodyPassed(batch=name, step=step.id, what=what, gives=gives, takes=takes))
            case _:
                pass

    def conclude_weighing(self, batch: Batch, step: Weigh, run: StepRun) -> None:
        tare, gross = run.given[f"{step.name}.tare"], run.given[f"{step.name}.gross"]
        assert isinstance(tare, float)
        assert isinstance(gross, float)
        target, low, high = weight_limits(self.recipe(batch), step)
        net = round(gross - tare, 9)  # binary digits that no balance has
        source = "entered" if not step.balance or BY_HAND in run.given else tag_name(batch.units, step.balance)
        if run.hand is not None:
            source = HAND
        self.emit(
            ev.Weighed(
                batch=batch.batch,
                step=step.id,
                name=step.name,
                tare=tare,
                gross=gross,
                net=net,
                target=target,
                unit=step.unit,
                source=source,
            )
        )
        within = inside(net, low - 1e-9, high + 1e-9)
        self.emit(
            ev.ValueRecorded(
                batch=batch.batch,
                step=step.id,
                name=step.name,
                value=net,
                unit=step.unit,
                source=source,
                quality=HAND if source == HAND else Quality.GOOD.value,
                low=low,
                high=high,
                within=within,
            )
        )
        if not within and step.tolerance is not None:
            self.outside(batch.batch, step, step.tolerance.category, f"{step.title}: {net:g} {step.unit}", low, high)

    def make_signature(self, batch_id: str, step: str, signed: cm.Signed) -> None:
        refuse_locked(self.line, signed.person, self.now.at)
        self.actor = signed.person
        self.emit(
            ev.SignatureMade(
                batch=batch_id,
                step=step,
                person=signed.person,
                role=signed.role.value,
                meaning=signed.meaning,
                methods=list(signed.methods),
                session=signed.session,
                subject_seq=signed.subject_seq,
                subject_hash=signed.subject_hash,
                attestation=signed.attestation,
            )
        )

    # Alarms --------------------------------------------------------------------------------------------------------

    def note_alarm(self, command: cm.NoteAlarm) -> None:
        watch, known = command.watch, self.line.alarms.get(command.watch.alarm)
        on = known is not None and known.on
        match command.finding:
            case "raised" if not on:
                if known is None and not self.is_room_for_alarms():
                    too_many = self.line.alarms.get(TOO_MANY)
                    if too_many is None or not too_many.on:
                        self.raise_alarm(TOO_MANY_OPEN, None)
                    return  # it is raised when there is room, for the condition is looked at again and again
                self.raise_alarm(watch, command.value)
            case "cleared" if on:
                cleared = ev.AlarmCleared(batch=watch.batch, alarm=watch.alarm, why=command.why, value=command.value)
                self.emit(cleared)
                self.tell_room_for_alarms()
            case "flooded" if known is not None:
                flood = ev.AlarmFlooded(
                    batch=watch.batch, alarm=watch.alarm, times=command.times, for_s=round(command.for_s, 1)
                )
                self.emit(flood)
            case _:
                pass

    def raise_alarm(self, watch: AlarmWatch, value: Value | None) -> None:
        self.emit(
            ev.AlarmRaised(
                batch=watch.batch,
                alarm=watch.alarm,
                step=watch.step,
                tag=watch.tag,
                priority=watch.told.priority,
                cause=watch.told.cause,
                effect=watch.told.effect,
                todo=watch.told.todo,
                value=value,
            )
        )

    def acknowledge(self, command: cm.AcknowledgeAlarm) -> None:
        self.need(Permission.ACKNOWLEDGE)
        known = self.line.alarms.get(command.alarm)
        if known is None or known.raised_seq != command.raised_seq:
            raise LinesideError(
                "alarm.changed",
                "This alarm is over by now, or it was raised again since it was shown.",
                effect="Nothing was acknowledged.",
                todo="Look at the alarms again.",
            )
        if known.state is AlarmState.ACKNOWLEDGED:
            return  # somebody was faster
        seen = ev.AlarmAcknowledged(batch=known.batch, alarm=known.alarm, raised_seq=known.raised_seq)
        self.emit(seen)
        self.tell_room_for_alarms()

    def is_room_for_alarms(self) -> bool:
        return len(self.line.alarms) - (TOO_MANY in self.line.alarms) < OPEN_MAX

    def tell_room_for_alarms(self) -> None:
        """Say that alarms are raised again."""
        too_many = self.line.alarms.get(TOO_MANY)
        if too_many is not None and too_many.on and self.is_room_for_alarms():
            self.emit(ev.AlarmCleared(alarm=TOO_MANY, why="There is room for further alarms.", value=None))

    # What the engine found -----------------------------------------------------------------------------------------

    def pass_timer(self, command: cm.PassTimer) -> None:
        batch = self.line.batches.get(command.batch)
        if batch is not None and command.timer == EXPIRY:
            expiring.look(self, batch.batch)
            self.proceed(batch.batch)
            return
        run = batch.steps.get(command.step) if batch else None
        if batch is None or run is None or run.state != "active" or command.timer in run.passed:
            return
        if run.iteration != command.iteration:
            return  # of an earlier pass of a loop
        if batch.state not in {State.RUNNING, State.PAUSING}:
            return
        if command.timer.startswith(f"{TIMER}:"):
            take_point(self, batch.batch, run.step)
            return
        if ":" in command.timer:
            self.tell_samples(batch.batch, run.step)
            self.proceed(batch.batch)
            return
        recipe = self.recipe(batch)
        step = recipe.steps()[run.step]
        if command.timer in {DUE, LATE}:
            wanted = entry_timers(batch.batch, recipe, step, run)
            if any(one.timer == command.timer and command.low_s >= one.length_s for one in wanted):
                by_hand.timed(self, batch, run, command)
            return
        length_s = run.duration_s if command.timer == "duration" else run.timeout_s
        if command.low_s < length_s or not is_timed(run):
            return  # too early by the head's own measure: never complete a hold time early
        if isinstance(step, Ramp):
            self.ramp_on(batch, step, command)
            self.proceed(batch.batch)
            return
        self.emit(
            ev.TimerDue(
                batch=batch.batch, step=run.step, timer=command.timer, low_s=command.low_s, high_s=command.high_s
            )
        )
        if command.timer == "duration":
            self.complete(batch.batch, run.step)
        elif isinstance(step, Service):
            serve.timed_out(self, batch, step, run)
        elif (plan := plan_of(self.recipe(batch), run.step)) is not None:
            what = f"{run.title}: sample {run.iteration} was not taken within {spoken(recipe, plan.within)}."
            self.raise_exception(batch.batch, run.step, plan.category, "sample.overdue", what)
        elif not isinstance(step, Wait):
            what = f"{run.title}: nobody has done it within {spoken(recipe, getattr(step, 'warn_after', ''))}."
            self.raise_exception(batch.batch, run.step, "minor", "step.waits", what)
        else:
            what = f"{run.title}: not reached within its time-out."
            self.raise_exception(batch.batch, run.step, "major", "step.timeout", what)
            self.hold(batch.batch, "timeout", what)
        self.proceed(batch.batch)

    def note_reading(self, command: cm.NoteReading) -> None:
        batch = self.line.batches.get(command.batch)
        run = batch.steps.get(command.step) if batch else None
        if batch is None or run is None or run.state != "active" or batch.state in OVER:
            return
        if run.iteration != command.iteration or run.hand is not None:
            return  # of an earlier pass of a loop, or looked after by people
        step = self.recipe(batch).steps()[run.step]
        if isinstance(step, Weigh):
            entering.weigh_reading(self, batch, step, run, command)
            return
        if not isinstance(step, Wait | Hold | Monitor):
            return
        reading = command.reading
        full_name = tag_name(batch.units, step.tag)
        tag = self.line.book.plant.tag(full_name)
        low, high = (None, None)
        if step.limit is not None and tag is not None:
            low, high = limit_in(self.recipe(batch), step.limit, tag.unit)
        shown = f"{step.title}: {full_name} = {show(reading)}"
        match command.finding:
            case "met" if isinstance(step, Wait) and batch.state in {State.RUNNING, State.PAUSING} and reading.good:
                self.emit(
                    ev.ValueRecorded(
                        batch=batch.batch,
                        step=step.id,
                        name=step.tag,
                        value=reading.value,
                        unit=reading.unit,
                        source=full_name,
                        low=low,
                        high=high,
                    )
                )
                self.complete(batch.batch, step.id)
            case "outside" if not run.outside and step.limit is not None and reading.good:
                self.outside(batch.batch, step, step.limit.category, shown, low, high)
                self.samples_due(batch.batch, lambda plan: plan.outside == step.id)
            case "back" if run.outside:
                self.emit(
                    ev.LimitRestored(
                        batch=batch.batch, exception=run.outside, step=step.id, tag=full_name, value=reading.value
                    )
                )
            case "bad_quality" if step.on_bad_quality == "hold" and batch.state is State.RUNNING:
                what = f"{shown}: not usable ({reading.detail or reading.quality.value})."
                self.raise_exception(batch.batch, step.id, "major", "reading.bad_quality", what)
                self.hold(batch.batch, "quality", what)
            case _:
                return
        self.proceed(batch.batch)

    def outside(
        self, batch_id: str, step: Step, category: str, shown: str, low: float | None, high: float | None
    ) -> None:
        what = f"{shown} is outside {bounds_text(low, high)}."
        category = self.weight(batch_id, category)
        self.raise_exception(batch_id, step.id, category, "limit.outside", what)
        if category == "critical":
            self.hold(batch_id, "limit", what)

    def weight(self, batch_id: str, category: str) -> str:
        """The category of a value outside its limit: the recipe's, or a warning where limits are not enforced."""
        return category if PROFILES[self.line.batches[batch_id].profile].limits == "enforced" else "warning"

    def raise_exception(self, batch_id: str, step: str, category: str, code: str, what: str) -> None:
        number = self.line.batches[batch_id].raised + 1
        self.emit(
            ev.ExceptionRaised(
                batch=batch_id, exception=f"X{number:03d}", step=step, category=category, code=code, what=what
            )
        )


def worked_out(formula: Formula, given: Mapping[str, Given], inputs: list[ev.Input]) -> WorkedOut:
    """The formula's result for these values, or why there is none."""
    try:
        return WorkedOut(formula.value(given), inputs)
    except LinesideError as refused:
        return WorkedOut(None, inputs, refused.what)


# Pure questions ----------------------------------------------------------------------------------------------------


def _attempt_of(write: Intent | Question) -> int:
    """The number of a write; a question about one ends with it."""
    return write.attempt if isinstance(write, Intent) else int(write.question.rpartition(".")[2])


def _value_of(write: Intent | Question) -> Value:
    return write.value if isinstance(write, Intent) else write.intent


def control(recipe: Recipe, changes: Sequence[Change]) -> dict[str, Any]:
    """What the row that begins a batch says of its control recipe: the changes of its order, and the seal."""
    if not changes:
        return {}
    return {"changes": [asdict(change) for change in changes], "control": seal(amended(recipe, changes))}


def needs_patient(recipe: Recipe) -> bool:
    """True when some step matches a patient identity."""
    return any(isinstance(step, Scan) and step.expect == "patient" for step in recipe.steps().values())


def refuse_locked(line: Line, person: str, at: Stamp) -> None:
    """Raise `people.locked` while the person is locked out after too many wrong secrets."""
    failures = line.failures.get(person)
    if failures and failures.locked and locked_s(failures, at) < LOCK_S:
        raise LinesideError(
            "people.locked",
            f"{person} is locked after {failures.count} wrong PINs.",
            effect="Nothing was changed; the batch goes on.",
            todo=f"Wait {LOCK_S / 60:.0f} minutes, or let somebody else continue.",
        )


def locked_s(failures: Failures, at: Stamp) -> float:
    """How long a lock has lasted while the box was on: no clock on the wall ends it, and no restart begins it anew."""
    return elapsed(failures.since, Elapsed(failures.before_s, failures.before_s), at).low_s


def restored_because(last_seq: int, heard_seq: int | None) -> str:
    """What whoever decides about a restored batch must know: which rows are here, and which are known to be missing."""
    if heard_seq is None:
        why = f"what happened after row {last_seq} is not in its journal, and nobody was asked for it."
    elif heard_seq > last_seq:
        missing = heard_seq - last_seq
        rows = f"row {heard_seq:,} was made and is" if missing == 1 else f"rows to {heard_seq:,} were made and are"
        why = f"it ends with row {last_seq:,}; {rows} not here ({missing:,} missing)."
    else:
        why = f"it ends with row {last_seq:,}, and nobody has heard of a later one; the box may have made more."
    return f"This box came back from a backup: {why}"
