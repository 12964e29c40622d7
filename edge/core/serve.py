"""What a step of phase `service` does next: the rows that start a module's service once and follow it to its end.

A service is started by writes like any other: each is intended, written and read back, a command at the service's
state. Between them the state is looked at, again and again, and what follows from it depends on the head and that look
alone: after a restart it is simply looked at again. What was told and is not known to have arrived holds the batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.line import Batch, Intent, Question, StepRun
from edge.core.recipe import limit_in
from edge.core.recipe.model import Recipe, ReportValue, Service, Setting, Step
from edge.core.recipe.values import number_of, seconds
from edge.core.service import ACTING, BROKEN_OFF, COMPLETED, EXECUTE, IDLE, STANDING
from edge.core.serving import TRANSITION_S, Module, module_of
from edge.core.terms import Reading, State, Value, convert

PASSED_ON: Final[Mapping[State, str]] = {
    State.HOLDING: "hold",
    State.STOPPING: "stop",
    State.ABORTING: "abort",
    State.RESTARTING: "",  # what lets it go on depends on how it stands
}
"""What a service is told when its batch goes to a state."""
MOVING: Final = frozenset({State.RUNNING, State.PAUSING})


# The state is looked at ------------------------------------------------------------------------------------------


def look(d: Decision, batch: Batch, step: Service, run: StepRun, *, bad: bool) -> None:
    """Look at the module once and do what follows. `bad`: what is looked at could not be used for long enough."""
    if any(intent.step == step.id for intent in batch.intents.values()):
        return  # its outcome comes first
    module = module_of(d.line.book.plant, batch.units, step)
    state, why = module.state(d.now.reading)
    if not state:
        if bad and batch.state is State.RUNNING:
            _trouble(d, batch.batch, step, "reading.bad_quality", f"{step.title}: {why}", cause="quality")
        return
    moved = "started" in run.given and _note(d, batch, step, run, module, state)
    if batch.state not in MOVING or any(asked.step == step.id for asked in batch.questions.values()):
        return
    run = d.line.batches[batch.batch].steps[step.id]
    if "started" not in run.given:
        _prepare(d, batch, step, run, module, state)
    elif state == run.given.get("state"):  # else it still shows what it showed before it was told something
        _follow(d, batch, step, run, module, state, moved=moved, bad=bad)


def _note(d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, state: str) -> bool:
    """Say in a row that the service is in another state: True when it is."""
    known, was = run.given.get("state"), run.given.get("was")
    if state == known and was not in STANDING:
        return False
    if state != known and state == was:
        return False  # the reading is older than the command, or the command did nothing: its time-out says so
    _move(d, batch, step, module, state, "")
    return state != known


def _move(d: Decision, batch: Batch, step: Service, module: Module, state: str, was: str) -> None:
    recipe, timeout_s = d.recipe(batch), 0.0
    if state == EXECUTE:
        timeout_s = seconds(recipe, step.timeout)
    elif state in ACTING:
        timeout_s = seconds(recipe, step.timeouts[state]) if state in step.timeouts else TRANSITION_S
    d.emit(
        ev.ServiceMoved(batch=batch.batch, step=step.id, service=module.said, state=state, was=was, timeout_s=timeout_s)
    )


def _prepare(d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, state: str) -> None:
    """The next write towards the start, if it is time for one."""
    if not module.readable(d.now.reading):
        return  # its time-out says so when it stays so
    if trouble := module.not_ready(d.now.reading):
        if (switch := module.switch(d.now.reading, run.given)) is not None:
            d.intend(batch.batch, step.id, run.iteration, run.attempt, *switch)
        elif not module.switched(run.given) or "timeout" in run.passed:  # else it is to be seen, within its time-out
            _trouble(d, batch.batch, step, "service.mode", f"{step.title}: {trouble}")
        return
    if state == IDLE:
        for tag, given in module.to_write(step):
            if tag not in run.given:
                _set(d, batch, step, run, module, tag, given)
                return
        _tell(d, batch, step, run, module, "start")
        return
    back = module.machine.to_idle.get(state)
    if back is not None and run.given.get("command") == back:
        return  # it was told already; the time-out sees to it that it moves
    if back is not None and (state != "aborted" or run.again):
        _tell(d, batch, step, run, module, back)
    elif state == "aborted":
        what = f"{step.title}: {module.said} is aborted. Clear it at the module, then resume."
        _trouble(d, batch.batch, step, "service.busy", what)
    elif state in {EXECUTE, *STANDING} or module.machine.then.get(state) == EXECUTE:
        what = f"{step.title}: {module.said} is {state} already, and this batch did not start it."
        _trouble(d, batch.batch, step, "service.busy", what)


def _set(
    d: Decision,
    batch: Batch,
    step: Service,
    run: StepRun,
    module: Module,
    tag: str,
    given: float | bool | str | Setting,
) -> None:
    """Write one parameter, or the procedure's number."""
    setting = given if isinstance(given, Setting) else None
    value: Value | None
    if setting is not None and setting.formula:
        found = d.work_out(batch.batch, step, setting.formula)
        if not isinstance(found.value, float):
            what = f"{step.title}: {found.trouble or 'no number comes out'}"
            _trouble(d, batch.batch, step, "formula.not_usable", what, cause="quality")
            return
        value = found.value
    else:
        value = plain_value(d.recipe(batch), given, module.tag(tag.partition(".")[2]).unit)
    if isinstance(value, float) and setting is not None and setting.formula:
        wanted = module.tag(tag.partition(".")[2]).unit
        value = convert(value, setting.unit or wanted, wanted)
    d.intend(batch.batch, step.id, run.iteration, run.attempt, tag, value)


def plain_value(recipe: Recipe, given: float | bool | str | Setting, unit: str) -> Value:
    """What a parameter is given without a formula, in its tag's unit."""
    of = given.unit if isinstance(given, Setting) else ""
    value = given.value if isinstance(given, Setting) else given
    if isinstance(value, str) and value.startswith("$"):
        parameter = recipe.parameters[value[1:]]
        if parameter.type in {"number", "integer", "duration"}:
            number, of = number_of(parameter)
            return convert(number, of, unit)
        return parameter.value
    if isinstance(value, float):
        return convert(value, of or unit, unit)
    assert value is not None  # the checker lets no empty setting through
    return value


def _allows(d: Decision, batch_id: str, step: Service, module: Module, command: str) -> bool:
    """Whether the module takes the command now; the batch is held when it says that it does not."""
    refusal = module.refuses(command, d.now.reading)
    if refusal:
        _trouble(d, batch_id, step, "service.refuses", f"{step.title}: {refusal}")
    return not refusal


def _tell(d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, command: str) -> None:
    if _allows(d, batch.batch, step, module, command):
        _command(d, batch.batch, step, run, module, command)


def _command(d: Decision, batch_id: str, step: Service, run: StepRun, module: Module, command: str) -> None:
    code = module.machine.commands[command]
    d.intend(batch_id, step.id, run.iteration, run.attempt, module.command_tag, code)


def _follow(
    d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, state: str, *, moved: bool, bad: bool
) -> None:
    """What follows from the state of a service that was started."""
    name = batch.batch
    if state == COMPLETED:
        if record_reports(d, batch, step, run, module, bad=bad):
            d.complete(name, step.id)
    elif state == EXECUTE and step.until and run.given.get("command") != "complete":
        found = d.work_out(name, step, step.until)
        if found.trouble:
            if bad and batch.state is State.RUNNING:
                _trouble(d, name, step, "formula.not_usable", f"{step.title}: {found.trouble}", cause="quality")
        elif found.value is True and _allows(d, name, step, module, "complete"):
            d.emit(ev.ConditionMet(batch=name, step=step.id, formula=step.until, inputs=found.inputs))
            _command(d, name, step, run, module, "complete")
    elif state == "held" and run.given.get("command") == PASSED_ON[State.HOLDING]:
        _tell(d, batch, step, run, module, STANDING[state])  # it got there only after its batch went on
    elif state in STANDING:
        what = f"{step.title}: {module.said} is {state}."
        if step.on_held == "hold":
            _trouble(d, name, step, "service.held", what)
        elif moved:
            d.raise_exception(name, step.id, "minor", "service.held", what)
    elif state in BROKEN_OFF or state == IDLE or module.machine.then.get(state) == IDLE:
        _broken_off(d, batch, step, run, module, state)


def _broken_off(d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, state: str) -> None:
    name, codes = batch.batch, module.machine.codes
    what = f"{step.title}: {module.said} is {state} without having been complete."
    if step.on_aborted == "abort":
        d.raise_exception(name, step.id, "critical", "service.aborted", what)
        d.abort(name, "service", what)
        return
    d.raise_exception(name, step.id, "major", "service.aborted", what)
    within = "" if run.iteration == 1 else f"{run.iteration}."
    d.emit(
        ev.QuestionRaised(
            batch=name,
            question=f"{step.id}.{within}{run.attempt}",
            step=step.id,
            tag=module.state_tag,
            intent=codes[COMPLETED],
            unit="",
            before=codes[EXECUTE],
            reading=codes[state],
            why=f"{what} It happened: the step counts as done. Do it again: the service is reset and started anew.",
            answers=["happened", "again", "abort"],
        )
    )
    d.hold(name, "question", what)


def record_reports(d: Decision, batch: Batch, step: Service, run: StepRun, module: Module, *, bad: bool) -> bool:
    """Record what the service reports, each once: False while one of them cannot be used."""
    recipe = d.recipe(batch)
    for report in step.reports:
        if report.name in d.line.batches[batch.batch].steps[step.id].given:
            continue
        full_name = module.full(module.declared.reports[report.report])
        reading: Reading | None = d.now.reading(full_name)
        usable = reading is not None and reading.good
        if usable and reading is not None:
            older = run.since.boot == d.now.at.boot and reading.at_boottime_s < run.since.boottime_s
            if older and not bad:
                return False  # it is from before the end: the next look is at a newer one
            record_report(d, batch, recipe, step, report, full_name, reading)
        elif not bad:
            return False
        else:
            what = f"{step.title}: {full_name} cannot be read."
            d.raise_exception(batch.batch, step.id, "major", "reading.bad_quality", what)
            if step.on_bad_quality == "hold" and batch.state is State.RUNNING:
                d.hold(batch.batch, "quality", what)
                return False
    return True


def record_report(
    d: Decision, batch: Batch, recipe: Recipe, step: Step, report: ReportValue, full_name: str, reading: Reading
) -> None:
    """Record one value that equipment reported, in the recipe's unit, and judge it."""
    value, limit = reading.value, report.limit
    low, high = (None, None)
    if report.type == "number":
        value = convert(float(reading.value), reading.unit, report.unit)
        low, high = limit_in(recipe, limit, report.unit) if limit else (None, None)
    within = not isinstance(value, float) or ((low is None or value >= low) and (high is None or value <= high))
    d.emit(
        ev.ValueRecorded(
            batch=batch.batch,
            step=step.id,
            name=report.name,
            value=value,
            unit=report.unit,
            source=full_name,
            low=low,
            high=high,
            within=within,
        )
    )
    if not within and limit is not None:
        shown = f"{step.title}, {report.report}: {value:g} {report.unit}".rstrip()
        d.outside(batch.batch, step, limit.category, shown, low, high)


# What became of writes, and time ---------------------------------------------------------------------------------


def written(
    d: Decision, batch_id: str, step: Service, tag: str, value: Value, before: Value | None, reading: Value | None
) -> None:
    """A write of the step happened; `before` and `reading` are what its read-back showed before and after."""
    batch = d.line.batches[batch_id]
    run, module = batch.steps[step.id], module_of(d.line.book.plant, batch.units, step)
    command = module.command_in(tag, value, run.given)
    d.emit(ev.ServiceSet(batch=batch_id, step=step.id, tag=tag, value=value, command=command))
    if command:
        state = module.machine.word(reading) or module.state(d.now.reading)[0]
        if module.machine.word(before) == state or not state:
            state = next(iter(module.machine.legal[command].values()))  # as a person says; a look will show
        _move(d, batch, step, module, state, module.machine.word(before))
    elif tag == module.command_tag and (
        # and now the request that makes it act; what a held batch does not do is told anew when it goes on
        batch.state in {*MOVING, State.RESTARTING} or module.machine.command(value) in PASSED_ON.values()
    ):
        d.intend(batch_id, step.id, run.iteration, run.attempt, module.acting_tag, value=True)


def timed_out(d: Decision, batch: Batch, step: Service, run: StepRun) -> None:
    """An acting state lasted too long, or the service executed too long."""
    module = module_of(d.line.book.plant, batch.units, step)
    state = module.state(d.now.reading)[0] or str(run.given.get("state", "not readable"))
    told = run.given.get("command")
    what = f"{step.title}: {module.said} is {state} for longer than {run.timeout_s:g} s"
    what += f" after it was told to {told}." if told and state != EXECUTE else "."
    if "started" not in run.given and (trouble := module.not_ready(d.now.reading)):
        what += f" {trouble}"
    if step.on_timeout == "abort":
        d.raise_exception(batch.batch, step.id, "critical", "service.timeout", what)
        d.abort(batch.batch, "timeout", what)
    else:
        d.raise_exception(batch.batch, step.id, "major", "service.timeout", what)
        d.hold(batch.batch, "timeout", what)


# The batch is held, stopped, aborted or goes on -------------------------------------------------------------------


def pass_on(d: Decision, batch_id: str, target: State) -> None:
    """Tell each service under way what its batch is told. A module that does not allow it is left as it is."""
    batch = d.line.batches[batch_id]
    for run in batch.active():
        if run.phase != "service" or target not in PASSED_ON:
            continue
        step = d.recipe(batch).steps()[run.step]
        assert isinstance(step, Service)
        module = module_of(d.line.book.plant, batch.units, step)
        state, reading = module.state(d.now.reading)[0], d.now.reading(module.state_tag)
        older = (
            reading is not None
            and run.since.boot == d.now.at.boot
            and reading.at_boottime_s < run.since.boottime_s
            and "state" in run.given
        )
        if state and (older or state == run.given.get("was")):  # from before the last command or what was last noted
            state = str(run.given["state"])
        command = PASSED_ON[target] or STANDING.get(state, "")
        open_steps = {one.step for one in batch.intents.values()} | {one.step for one in batch.questions.values()}
        asked = step.id in open_steps
        ends, begun = command in {"stop", "abort"}, "started" in run.given
        # one whose own command is in question is only ended: nobody knows what holding would do to it. Nor is one that
        # people run at its panel told anything but to end
        ours = begun or asked if ends else begun and not asked and run.hand is None
        able = command in module.machine.commands and (not state or module.machine.after(state, command) is not None)
        if command and able and ours and state != COMPLETED:
            _command(d, batch_id, step, run, module, command)
        elif target is State.RESTARTING and begun and not asked and run.hand is None and "timeout" in run.passed:
            _move(d, batch, step, module, str(run.given.get("state", IDLE)), str(run.given.get("was", "")))


def is_passed_on(d: Decision, batch_id: str, intent: Intent) -> str:
    """The command with which this write was to hold, stop or abort a service; "" for any other write."""
    batch = d.line.batches[batch_id]
    step = d.recipe(batch).steps().get(intent.step)
    if not isinstance(step, Service):
        return ""
    module = module_of(d.line.book.plant, batch.units, step)
    command = module.commanded(intent.tag, intent.value, batch.steps[intent.step].given)
    return command if command in PASSED_ON.values() else ""


def told(d: Decision, batch_id: str, intent: Intent) -> str:
    """What a write of a service's step was, for a sentence; "" for a write that tells a service nothing."""
    batch = d.line.batches[batch_id]
    step = d.recipe(batch).steps().get(intent.step)
    if not isinstance(step, Service):
        return ""
    module = module_of(d.line.book.plant, batch.units, step)
    command = module.commanded(intent.tag, intent.value, batch.steps[intent.step].given)
    return f"The command {command} to {module.said}" if command else module.told_by(intent.tag)


def is_broken_off(d: Decision, batch: Batch, question: Question) -> bool:
    """Whether the question is about a service that broke off, and not about a write."""
    step = d.recipe(batch).steps().get(question.step)
    return isinstance(step, Service) and question.tag == module_of(d.line.book.plant, batch.units, step).state_tag


def answered(d: Decision, batch: Batch, question: Question, step: Service) -> None:
    """A person says that a service that broke off counts as done."""
    module = module_of(d.line.book.plant, batch.units, step)
    record_reports(d, batch, step, batch.steps[question.step], module, bad=True)
    d.complete(batch.batch, step.id)


def _trouble(d: Decision, batch_id: str, step: Service, code: str, what: str, *, cause: str = "service") -> None:
    """An exception record, and the batch is held."""
    d.raise_exception(batch_id, step.id, "major", code, what)
    d.hold(batch_id, cause, what)
