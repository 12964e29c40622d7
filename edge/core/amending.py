"""Whether a batch under way may be amended, and what follows: a plan, from questions to the head, the recipe and the
plant; and how an amendment is requested, agreed and made, in rows.

What was done is never changed, nor a write under way; what is under way only where its phase allows it. A plan is made
when an amendment is requested, and once more when the last signature is there: the batch went on in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, Literal

import orjson

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.approve import startable
from edge.core.cleaning import doubt
from edge.core.decision import Decision
from edge.core.document import Document
from edge.core.errors import LinesideError
from edge.core.formula import names_in
from edge.core.guard import may_write
from edge.core.line import OVER, PASSED, Batch, Line, Requested, tag_name
from edge.core.people import Permission, not_permitted, permitted, roles_with
from edge.core.plant import Plant
from edge.core.proposals import Proposal
from edge.core.queueing import usable
from edge.core.quick import dataclass
from edge.core.recipe import check_recipe, seal
from edge.core.recipe.amend import (
    UNCHANGED,
    Change,
    allowed,
    amended,
    dirty_unit,
    step_to_add,
    step_to_skip,
    value_change,
)
from edge.core.recipe.compare import compare
from edge.core.recipe.model import Amendments, Hold, Loop, Monitor, Ramp, Recipe, Scan, Select, Set, Step, Wait, order
from edge.core.recipe.read import RecipeDocument
from edge.core.recipe.values import named_in, ramp_end_in, seconds, set_point_in
from edge.core.terms import Stamp, State

AMENDED_CHARS_MAX: Final = 1_500
"""So much of what an amendment changes its exception record says; its own row says all."""
CHANGES_MAX: Final = 10
"""So many changes one amendment has at most ..."""
CHANGES_KEPT_MAX: Final = 100
"""... and all those of a batch together: the head holds them."""
ROW_BYTES_MAX: Final = 49_152
SENTENCES_MAX: Final = 60
SENTENCE_CHARS_MAX: Final = 300
STATES: Final = frozenset({State.RUNNING, State.PAUSED, State.HELD})
"""States of a batch that may be amended: what is left out is left out at once, or nothing is done before it is."""
WAITING: Final = frozenset({State.IDLE})
"""... and in which it may be given a dirty unit."""
_LIMIT: Final = frozenset({"limit.low", "limit.high"})
WHILE_ACTIVE: Final[Mapping[str, frozenset[str]]] = {
    "monitor": _LIMIT,
    "hold": _LIMIT | {"duration"},
    "wait": _LIMIT | {"duration", "timeout"},
    "record": _LIMIT,
    "loop": frozenset({"times", "while", "until"}),
}
"""By phase, what may be amended of a step that is under way."""
LEFT_WHILE_ACTIVE: Final = frozenset(
    {"instruct", "record", "scan", "sign", "weigh", "sample", "label", "transfer", "custody", "clearance", "dispose"}
    | {"wait", "hold"}
)
"""Phases of a step that may be skipped while it is under way: nothing is being written in it."""
Standing = Literal["todo", "active", "done", "ended", "skipped", "not taken"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What an amendment comes to; see `AmendmentMade`."""

    changes: tuple[Change, ...]
    skips: tuple[str, ...]
    dropped: bool
    adopts: str
    version: str
    seal: str
    was_seal: str
    new_seal: str
    differences: tuple[str, ...]
    more: int
    needs: tuple[str, ...]
    category: str
    remaining: tuple[str, ...]
    lengths: dict[str, list[float]]

    def said(self) -> list[dict[str, str]]:
        """The changes as a row has them."""
        return [asdict(change) for change in self.changes]


def plan_changes(line: Line, batch: Batch, asked: Sequence[Change], at: Stamp) -> Plan:
    """What these changes come to now; of each only kind, subject, field and `new` are read. Raises `amendment.*` and
    `guard.*`, and why, when it may not be."""
    for one in asked:
        _refuse_state(batch, waits=one.kind == "dirty")
    if not 0 < len(asked) <= CHANGES_MAX:
        raise LinesideError(
            "amendment.empty",
            f"An amendment has 1 to {CHANGES_MAX} changes.",
            effect=UNCHANGED,
            todo="Choose what is to change.",
        )
    if len(batch.changes) + len(asked) > CHANGES_KEPT_MAX:
        raise LinesideError(
            "amendment.too_many",
            f"Batch {batch.batch} was amended {len(batch.changes)} times already.",
            effect=UNCHANGED,
            todo="Let quality decide about the batch.",
        )
    recipe = line.recipe(batch)
    made, changes = recipe, list[Change]()
    for one in asked:
        change = _change(line, made, one, at)
        if any(
            (other.kind, other.subject, other.field) == (change.kind, change.subject, change.field) for other in changes
        ):
            raise LinesideError(
                "amendment.twice", f"{change.subject} stands in it twice.", effect=UNCHANGED, todo="Say it once."
            )
        _refuse_begun(batch, recipe, change)
        changes.append(change)
        made = amended(made, [change])
    skips = tuple(change.subject for change in changes if change.kind == "skip")
    lasting = len(skips) < len(changes)
    was = batch.amended or batch.seal
    said = [f"{one.new} is taken although it is {one.old}" for one in changes if one.kind == "dirty"]
    said += [difference.text for difference in compare(recipe, made)]
    said += [f"step {one} “{recipe.steps()[one].title}” is left out once" for one in skips]
    return _plan(line, batch, made, tuple(changes), skips, said, seal(made) if lasting else was, allowed(recipe))


def plan_adoption(line: Line, batch: Batch, adopts: str, from_step: str) -> Plan:
    """What it comes to when the batch goes over to the effective recipe with this seal, from this step on.

    Raises `amendment.conflict` with every reason why that does not fit what was done, and other `amendment.*`."""
    _refuse_state(batch)
    new, loaded = line.book.recipes.get(adopts), startable(line, adopts)
    if new is None or loaded is None or loaded.recipe != batch.recipe:
        raise LinesideError(
            "amendment.no_version", f"This box has no other effective version of {batch.recipe} with this seal.",
            effect=UNCHANGED, todo="Choose one of the versions that are shown.",
        )  # fmt: skip
    if adopts == batch.seal or not allowed(new).adopt:
        raise LinesideError(
            "amendment.not_offered",
            f"{batch.recipe} {loaded.version} does not let a batch under way go over to it.",
            effect=UNCHANGED,
            todo="Let the batch end on its version, or let quality decide about it.",
        )
    recipe = line.recipe(batch)
    if reasons := conflicts(line, batch, new, from_step):
        raise LinesideError(
            "amendment.conflict",
            f"Batch {batch.batch} cannot go over to version {loaded.version} from step {from_step[:40]}: {reasons[0]}.",
            effect=UNCHANGED,
            todo="Choose another step, or let the batch end on its version.",
            others=tuple(
                LinesideError("amendment.conflict", f"{reason}.", effect=UNCHANGED, todo="") for reason in reasons[1:]
            ),
        )
    said = [difference.text for difference in compare(recipe, new)]
    return _plan(line, batch, new, (), (), said, adopts, allowed(new), adopts=adopts)


def conflicts(line: Line, batch: Batch, new: Recipe, from_step: str) -> list[str]:
    """Why what is left of `new` from this step on does not fit what was done, in sentences; nothing when it does."""
    old, main = line.recipe(batch), order(new.main())[0]
    ids = [step.id for step in main]
    if from_step not in ids:
        return [f"there is no step {from_step[:40]!r} in its main sequence"]
    before, after = main[: ids.index(from_step)], main[ids.index(from_step) :]
    found = []
    if batch.questions or batch.intents:
        found.append("a write has no outcome that is known: answer the question first")
    if batch.skips:
        found.append(f"step {', '.join(batch.skips)} is to be skipped by an amendment that was made for this version")
    if {role: need.cls for role, need in old.units.items()} != {role: need.cls for role, need in new.units.items()}:
        found.append("it needs other units")
    patient = any(isinstance(step, Scan) and step.expect == "patient" for step in new.steps().values())
    if patient and not batch.patient:
        found.append("it is for a patient, and this batch has none")
    for step in before:
        run = batch.steps.get(step.id)
        if run is None or run.phase != step.phase:
            found.append(f"step {step.id} “{step.title}” comes before it and was not done")
        elif run.state == "active" and not _same(old, new, step):
            found.append(f"step {step.id} “{step.title}” is under way, and it is another one there")
    coming = [inner for one in after for inner in _within(one)]
    found += [f"step {step.id} “{step.title}” was begun already" for step in coming if step.id in batch.steps]
    known = {inner.id for one in before for inner in _within(one)}
    found += [
        f"step {run.step} “{run.title}” is under way, and it does not have that before step {from_step}"
        for run in batch.active()
        if run.step not in known
    ]
    found += [
        f"a result of step {opened.step} is pending, and it does not have that step"
        for opened in batch.open_results.values()
        if opened.step not in new.steps()
    ]
    found += _unknown_values(batch, new, coming)
    return found


def _unknown_values(batch: Batch, new: Recipe, coming: Sequence[Step]) -> Iterator[str]:
    """Values that the steps to come work with, and that nobody has recorded or in another unit."""
    recorded = {name for step in coming for name in step.records()}
    asked = {name: step for step in coming for text in step.formulas().values() for name in names_in(text)}
    for name, step in asked.items():
        known = batch.values.get(name)
        if name in new.recorded() and known is not None and known.unit != new.recorded()[name][1]:
            yield f"step {step.id} uses {name} in {new.recorded()[name][1]}; it was recorded in {known.unit}"
        elif name in new.recorded() and known is None and name not in recorded:
            yield f"step {step.id} uses {name}, and nothing has recorded that"


def standing(recipe: Recipe, batch: Batch, step_id: str) -> Standing:
    """Where a step is now. Inside a loop: in the pass that is under way."""
    chain = [step_id]
    while outer := recipe.outer(chain[-1]):
        chain.append(outer)
    iteration = 1
    for name, below in zip(reversed(chain), [*reversed(chain[:-1]), ""], strict=True):
        run, step = batch.steps.get(name), recipe.steps()[name]
        if run is None or run.iteration != iteration:
            return "todo"
        if run.state != "active" or not below:
            return run.state
        if isinstance(step, Loop):
            if not run.passes:
                return "todo"
            iteration = run.body
        if isinstance(step, Select) and run.branch is not None:
            way = step.branches[run.branch].steps if run.branch >= 0 else step.else_ or ()
            if below not in {one.id for one in way}:
                return "not taken"
    raise AssertionError("the step itself ends the chain")


def why_not(batch: Batch, recipe: Recipe, change: Change) -> str:
    """Why a change that the recipe allows may not be requested now, whatever value it has; empty when it may."""
    try:
        _refuse_state(batch, waits=change.kind == "dirty")
        _refuse_begun(batch, recipe, change)
    except LinesideError as refusal:
        return refusal.what
    return ""


def lengths(recipe: Recipe, step: Wait | Hold, speed: float) -> tuple[float, float]:
    """How long such a step takes, and its time-out, in seconds; 0 for none."""
    length_s = seconds(recipe, step.duration) / speed if step.duration else 0.0
    # equipment has a speed of its own
    return length_s, seconds(recipe, step.timeout) if isinstance(step, Wait) and step.timeout else 0.0


# What may not be changed -----------------------------------------------------------------------------------------


def _refuse_state(batch: Batch, *, waits: bool = False) -> None:
    """`waits`: what is asked concerns the units that a waiting batch takes when it begins."""
    if batch.state not in (WAITING if waits else STATES) or batch.restored:
        raise LinesideError(
            "amendment.state",
            f"Batch {batch.batch} is {batch.state.value}: it cannot be amended now.",
            effect=UNCHANGED,
            todo="A dirty unit is given to one that waits. For another change wait until it runs, is paused or held; "
            "one that came back with a backup must be continued first.",
        )


def dirty_units(line: Line, recipe: Recipe, role: str, at: Stamp, *, training: bool = False) -> dict[str, str]:
    """The units that could play the role but are not known to be clean, each with why."""
    fitting = usable(line.book.plant, recipe, training=training).get(role, [])
    return {unit: why for unit in fitting if (why := doubt(line, unit, at))}


def _change(line: Line, recipe: Recipe, asked: Change, at: Stamp) -> Change:
    match asked.kind:
        case "dirty":
            why = dirty_units(line, recipe, asked.subject, at).get(asked.new, "")
            return dirty_unit(recipe, asked.subject, asked.new, why)
        case "value":
            return value_change(recipe, asked.subject, asked.field, asked.new)
        case "add":
            return step_to_add(recipe, asked.field, asked.new)
        case "skip":
            return step_to_skip(recipe, asked.subject)


def _refuse_begun(batch: Batch, recipe: Recipe, change: Change) -> None:
    steps = recipe.steps()
    match change.kind:
        case "value" if change.subject.startswith("$"):
            for step in recipe.in_order():
                if fields := set(_uses(step, change.subject[1:])):
                    _refuse_standing(batch, recipe, step, fields)
        case "value":
            _refuse_standing(batch, recipe, steps[change.subject], {change.field})
            run = batch.steps.get(change.subject)
            under_way = change.field == "times" and change.new and run is not None and run.state == "active"
            if run is not None and under_way and float(change.new) < run.passes:
                raise LinesideError(
                    "amendment.begun",
                    f"{run.title}: pass {run.passes} is under way already.",
                    effect=UNCHANGED,
                    todo="Enter a larger number.",
                )
        case "skip":
            _refuse_skip(batch, recipe, steps[change.subject])
        case "add":
            _refuse_place(batch, recipe, change)


def _refuse_standing(batch: Batch, recipe: Recipe, step: Step, fields: set[str]) -> None:
    now = standing(recipe, batch, step.id)
    if now == "done":
        raise LinesideError(
            "amendment.done",
            f"Step {step.id} “{step.title}” is done: what was done is not changed.",
            effect=UNCHANGED,
            todo="Amend a step that is still to come, or correct a wrong value.",
        )
    if now == "active" and not fields <= WHILE_ACTIVE.get(step.phase, frozenset()):
        raise LinesideError(
            "amendment.begun",
            f"Step {step.id} “{step.title}” is under way: {', '.join(sorted(fields))} cannot be changed any more.",
            effect=UNCHANGED,
            todo="Amend a step that is still to come, or skip this one if the recipe allows it.",
        )


def _refuse_skip(batch: Batch, recipe: Recipe, step: Step) -> None:
    now = standing(recipe, batch, step.id)
    if now in PASSED or step.id in batch.skips:
        raise LinesideError(
            "amendment.done",
            f"Step {step.id} “{step.title}” is done or skipped already.",
            effect=UNCHANGED,
            todo="Choose another.",
        )
    open_now = {intent.step for intent in batch.intents.values()} | {one.step for one in batch.questions.values()}
    if now == "active" and (step.phase not in LEFT_WHILE_ACTIVE or step.id in open_now):
        raise LinesideError(
            "amendment.begun",
            f"Step {step.id} “{step.title}” is under way and cannot be left in the middle.",
            effect=UNCHANGED,
            todo="Let it end, answer its question, or stop the batch.",
        )
    inside = {one.id for one in _within(step)}
    for other in recipe.in_order():
        if other.id in inside:
            continue
        if isinstance(other, Monitor) and other.until in inside - {step.id}:
            raise LinesideError(
                "amendment.needed",
                f"Step {other.id} watches until step {other.until} is done.",
                effect=UNCHANGED,
                todo="Do it.",
            )
        missing = {name for one in _within(step) for name in one.records()} - set(batch.values)
        for name in (name for text in other.formulas().values() for name in names_in(text)):
            if name in missing:
                raise LinesideError(
                    "amendment.needed",
                    f"Step {other.id} works with {name}, which step {step.id} records.",
                    effect=UNCHANGED,
                    todo="Do it.",
                )


def _refuse_place(batch: Batch, recipe: Recipe, change: Change) -> None:
    """A step is added only where nothing behind it was begun."""
    after = change.field
    sequence = next(steps for steps in recipe.sequences() if any(step.id == after for step in steps))
    ids = [step.id for step in sequence]
    at = sequence[ids.index(after)].next
    place = ids.index(at) if at is not None else ids.index(after) + 1
    behind = sequence[place].id if place < len(ids) else ""
    outer = recipe.outer(after)
    if (behind and standing(recipe, batch, behind) != "todo") or (
        outer and standing(recipe, batch, outer) not in {"todo", "active"}
    ):
        raise LinesideError(
            "amendment.done",
            f"Behind step {after} the batch has gone on already.",
            effect=UNCHANGED,
            todo="Add the step behind one that is under way or still to come.",
        )


def _uses(step: Step, parameter: str) -> Iterator[str]:
    """The fields of a step, without what stands inside it, that name a parameter."""
    inside = {path[0] for path, _ in step.inner()}
    fields = {name for name, field in type(step).model_fields.items() if (field.alias or name) not in inside}
    said = step.model_dump(mode="json", by_alias=True, include=fields)
    yield from (path for path, text in _texts(said, "") if parameter in named_in(text))
    for path, text in step.formulas().items():
        if parameter in named_in(text):
            yield ".".join(str(part) for part in path)


def _texts(part: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(part, str):
        yield path, part
    items: Any = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, inner in items:
        yield from _texts(inner, f"{path}.{key}".lstrip("."))


def _within(step: Step) -> Iterator[Step]:
    yield step
    for _, steps in step.inner():
        for one in steps:
            yield from _within(one)


def _same(old: Recipe, new: Recipe, step: Step) -> bool:
    """The step is the same in both, what it takes from parameters included."""
    was = old.steps().get(step.id)
    inside = list(_within(step))
    names = {name for one in inside for name in new.parameters if any(True for _ in _uses(one, name))}
    read = {name for one in inside for text in one.formulas().values() for name in names_in(text)}
    return (
        was == step
        and all(old.parameters.get(name) == new.parameters[name] for name in names)
        and all(old.readings.get(name) == new.readings.get(name) for name in read)
    )


# What follows ----------------------------------------------------------------------------------------------------


def _plan(
    line: Line,
    batch: Batch,
    made: Recipe,
    changes: tuple[Change, ...],
    skips: tuple[str, ...],
    said: Sequence[str],
    new_seal: str,
    terms: Amendments,
    *,
    adopts: str = "",
) -> Plan:
    recipe = line.recipe(batch)
    _refuse_unfit(line, batch, recipe, made)
    roles = "|".join(role.value for role in roles_with(Permission.AMEND))
    remaining = [step.id for step in made.in_order() if standing(made, batch, step.id) in {"todo", "active"}]
    plan = Plan(
        changes=changes,
        skips=skips,
        dropped=bool(adopts),
        adopts=made.version if adopts else "",
        version=made.version if adopts else batch.version,
        seal=adopts or batch.seal,
        was_seal=batch.amended or batch.seal,
        new_seal=new_seal,
        differences=tuple(sentence[:SENTENCE_CHARS_MAX] for sentence in said[:SENTENCES_MAX]),
        more=max(0, len(said) - SENTENCES_MAX),
        needs=tuple(role.value for role in terms.signed_by) or (roles,),
        category=terms.category,
        remaining=tuple(one for one in remaining if one not in skips),
        lengths=dict(_new_lengths(batch, made)),
    )
    if len(orjson.dumps(asdict(plan))) > ROW_BYTES_MAX:
        raise LinesideError(
            "amendment.too_large",
            "The amendment is too large for one row.",
            effect=UNCHANGED,
            todo="Request less at once.",
        )
    return plan


def _new_lengths(batch: Batch, made: Recipe) -> Iterator[tuple[str, list[float]]]:
    for run in batch.active():
        step = made.steps()[run.step]
        if isinstance(step, Wait | Hold):
            length_s, timeout_s = lengths(made, step, batch.speed)
            if (length_s, timeout_s) != (run.duration_s, run.timeout_s):
                yield run.step, [length_s, timeout_s]


def _refuse_unfit(line: Line, batch: Batch, recipe: Recipe, made: Recipe) -> None:
    """The amended recipe must be one that can be executed on this plant, with set-points that may be written."""
    plant = line.book.plant
    for step in made.steps().values():
        if not isinstance(step, Set | Ramp) or standing(made, batch, step.id) != "todo":
            continue
        full_name = tag_name(batch.units, step.tag)
        tag = plant.tag(full_name)
        was = recipe.steps().get(step.id)
        if tag is None or (was == step and recipe.parameters == made.parameters):
            continue
        may_write(
            plant,
            full_name,
            set_point_in(made, step, tag.unit) if isinstance(step, Set) else ramp_end_in(made, step, tag.unit),
            training=batch.training,
        )
    found = {(one.code, one.what): one for one in _findings(made, plant)}
    if found:  # the check takes long: of the recipe as it was only when it is needed
        before = {(one.code, one.what) for one in _findings(recipe, plant)}
        for one in (one for key, one in found.items() if key not in before):
            raise LinesideError(
                "amendment.recipe",
                f"The recipe could not be executed any more: {one.what}",
                effect=UNCHANGED,
                todo=one.todo,
            )


def _findings(recipe: Recipe, plant: Plant) -> list[LinesideError]:
    return check_recipe(RecipeDocument(recipe, Document("", None, {})), plant)


# Requested, agreed, made ------------------------------------------------------------------------------------------


def request(d: Decision, command: cm.RequestAmendment) -> None:
    """Say, signed, what is to change and why. Nothing changes by it."""
    batch, signed = d.batch(command.batch), command.signed
    if not permitted((signed.role,), Permission.REQUEST) or signed.role not in signed.roles:
        raise not_permitted(signed.person, Permission.REQUEST)
    if not command.reason.strip():
        raise LinesideError(
            "amendment.reason",
            "An amendment needs a reason.",
            effect=UNCHANGED,
            todo="Say why the batch must be amended; it becomes part of the record.",
        )
    if batch.requested is not None:
        raise LinesideError(
            "amendment.open",
            f"Amendment {batch.requested.amendment} of batch {batch.batch} waits for a decision.",
            effect=UNCHANGED,
            todo="Agree to it or refuse it first.",
        )
    changes, adopts, from_step, reason = command.changes, command.adopts, command.from_step, command.reason.strip()
    if command.proposal:
        proposed = batch.proposed
        if proposed is None or proposed.proposal != command.proposal:
            raise LinesideError(
                "amendment.no_proposal",
                f"The hub does not propose {command.proposal[:64]} for batch {batch.batch} any more.",
                effect=UNCHANGED,
                todo="Look at the batch again.",
            )
        changes, adopts, from_step = asked_by(d.line, batch, proposed, d.now.at)
        reason = f"{reason} (Proposal {proposed.proposal} of the hub: {proposed.reason})"
    plan = _planned(d, batch, changes, adopts, from_step)
    d.make_signature(batch.batch, "", signed)
    d.emit(
        ev.AmendmentRequested(
            batch=batch.batch,
            amendment=f"A{batch.amendments + 1}",
            changes=plan.said(),
            adopts=plan.adopts,
            from_step=from_step if plan.adopts else "",
            seal=plan.seal,
            was_seal=plan.was_seal,
            new_seal=plan.new_seal,
            differences=list(plan.differences),
            more=plan.more,
            reason=reason,
            needs=list(plan.needs),
            proposal=command.proposal,
        )
    )


def asked_by(line: Line, batch: Batch, proposed: Proposal, at: Stamp) -> tuple[tuple[Change, ...], str, str]:
    """The changes, or the seal of the version to go over to and from which step, that the hub proposes. Raises
    `amendment.proposal` when what it presupposes does not hold any more."""
    why = ""
    if at.utc[:10] > proposed.until:
        why = f"it held until {proposed.until}"
    elif proposed.version != batch.version:
        why = f"it is for version {proposed.version}, and the batch runs by {batch.version}"
    adopts = ""
    if not why and proposed.adopts:
        able = ((name, startable(line, name)) for name in sorted(line.book.effective))
        wanted = (batch.recipe, proposed.adopts)
        adopts = next((name for name, one in able if one and (one.recipe, one.version) == wanted), "")
        why = "" if adopts else f"{batch.recipe} {proposed.adopts} is not effective on this box"
    if why:
        raise LinesideError(
            "amendment.proposal",
            f"Proposal {proposed.proposal} of the hub cannot be taken up: {why}.",
            effect=UNCHANGED,
            todo="Ask for another one, or amend the batch without it.",
        )
    return proposed.changes, adopts, proposed.from_step


def plan_proposal(line: Line, batch: Batch, at: Stamp) -> Plan | None:
    """What the hub's proposal comes to now; None without one. Raises why it cannot be taken up."""
    if batch.proposed is None:
        return None
    changes, adopts, from_step = asked_by(line, batch, batch.proposed, at)
    return plan_adoption(line, batch, adopts, from_step) if adopts else plan_changes(line, batch, changes, at)


def take_proposal(d: Decision, command: cm.TakeProposal) -> None:
    """Keep what the hub proposes until somebody takes it up. The same once more is the same proposal."""
    line, asked = d.line, command.proposal
    digest = asked.digest()
    if f"{asked.proposal}\n{digest}" in line.contents:
        return
    batch, why = line.batches.get(asked.batch), ""
    if asked.proposal in line.ordered:
        why = f"There is another order or proposal {asked.proposal}."
    elif batch is None or batch.state in OVER:
        why = f"No batch {asked.batch} is under way on this box."
    elif asked.version != batch.version:
        why = f"Batch {batch.batch} runs by version {batch.version}, not by {asked.version}."
    about = {"proposal": asked.proposal, "digest": digest, "way": command.way}
    if why:
        d.emit(ev.ProposalRefused(**about, why=why))
        return
    d.emit(
        ev.AmendmentProposed(
            batch=asked.batch,
            **about,
            version=asked.version,
            until=asked.until,
            reason=asked.reason,
            changes=[asdict(change) for change in asked.changes],
            adopts=asked.adopts,
            from_step=asked.from_step,
        )
    )


def _planned(d: Decision, batch: Batch, changes: Sequence[Change], adopts: str, from_step: str) -> Plan:
    return plan_adoption(d.line, batch, adopts, from_step) if adopts else plan_changes(d.line, batch, changes, d.now.at)


def settle(d: Decision, command: cm.SettleAmendment) -> None:
    """Agree or refuse, signed. The last who must agree puts it in force, if it still fits what was done."""
    batch, signed = d.batch(command.batch), command.signed
    asked = batch.requested
    if asked is None or asked.amendment != command.amendment:
        raise LinesideError(
            "amendment.closed",
            f"Amendment {command.amendment[:16]} of batch {batch.batch} does not wait for a decision.",
            effect="The batch goes on as it is.",
            todo="Look at the batch again.",
        )
    need = next((one for one in asked.needs if signed.role.value in one.split("|")), "")
    if signed.role not in signed.roles or not (need or (not command.agree and signed.person in asked.people)):
        able = ", ".join(asked.needs).replace("|", " or ")
        raise LinesideError(
            "signature.role",
            f"{signed.person} does not have the role that this amendment needs: {able}.",
            effect="Nothing was signed; the batch goes on as it is.",
            todo=f"Ask someone with the role {able}.",
        )
    if not command.agree:
        _refuse(d, batch, asked, command)
        return
    if signed.person in asked.people:
        raise LinesideError(
            "signature.same_person",
            f"{signed.person} has signed this amendment already; the next signature must be another person's.",
            effect="Nothing was signed; the batch goes on as it is.",
            todo="Ask another person to sign.",
        )
    try:
        plan = _planned(d, batch, asked.changes, asked.seal if asked.adopts else "", asked.from_step)
    except LinesideError as refusal:
        raise _overtaken(asked.amendment, refusal.what) from refusal
    if plan.new_seal != asked.new_seal:
        raise _overtaken(asked.amendment, "another recipe would come of it than the one that was shown.")
    d.make_signature(batch.batch, "", signed)
    left = list(asked.needs)
    left.remove(need)
    if left:
        d.emit(
            ev.AmendmentAgreed(
                batch=batch.batch,
                amendment=asked.amendment,
                person=signed.person,
                role=signed.role.value,
                needs=left,
            )
        )
        return
    _make(d, batch, asked, plan, signed)


def _refuse(d: Decision, batch: Batch, asked: Requested, command: cm.SettleAmendment) -> None:
    if not command.reason.strip():
        raise LinesideError(
            "amendment.reason",
            "Refusing an amendment needs a reason.",
            effect="Nothing was signed; it still waits for a decision.",
            todo="Say why it is refused; it becomes part of the record.",
        )
    d.make_signature(batch.batch, "", command.signed)
    d.emit(
        ev.AmendmentRefused(
            batch=batch.batch,
            amendment=asked.amendment,
            person=command.signed.person,
            role=command.signed.role.value,
            reason=command.reason.strip(),
        )
    )


def _make(d: Decision, batch: Batch, asked: Requested, plan: Plan, signed: cm.Signed) -> None:
    d.emit(
        ev.AmendmentMade(
            batch=batch.batch,
            amendment=asked.amendment,
            person=signed.person,
            role=signed.role.value,
            changes=plan.said(),
            skips=list(plan.skips),
            dropped=plan.dropped,
            version=plan.version,
            seal=plan.seal,
            was_seal=plan.was_seal,
            new_seal=plan.new_seal,
            remaining=list(plan.remaining),
            lengths=plan.lengths,
        )
    )
    agreed = ", ".join((*asked.people[1:], signed.person))
    said = "; ".join(plan.differences)[:AMENDED_CHARS_MAX]
    what = f"Amendment {asked.amendment}, requested by {asked.people[0]}, agreed by {agreed}: {said}. {asked.reason}"
    d.raise_exception(batch.batch, "", plan.category, "recipe.amended", what)
    d.proceed(batch.batch)


def _overtaken(amendment: str, why: str) -> LinesideError:
    """The refusal of an amendment that does not fit any more."""
    return LinesideError(
        "amendment.overtaken",
        f"Amendment {amendment} cannot be made any more: {why}",
        effect="Nothing was signed; the batch goes on as it is.",
        todo="Refuse it, and request another one if it is still needed.",
    )
