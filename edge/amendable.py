"""What a screen shows of amendments: what may be amended of a batch now, and the one that waits for a decision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge.core.amending import conflicts, dirty_units, plan_proposal, standing, why_not
from edge.core.approve import startable
from edge.core.errors import LinesideError
from edge.core.line import OVER, Batch, Line
from edge.core.recipe.amend import Change, Offer, allowed, offers
from edge.core.recipe.compare import compare
from edge.core.recipe.model import COMPOSITE, Recipe, order
from edge.core.recipe.words import word
from edge.core.terms import Stamp, State
from edge.wire import AmendmentCard, AmendOffer

COMPARED_MAX: Final = 16
DIFFERENCES_SHOWN: Final = 60
_compared: dict[tuple[str, str], tuple[str, ...]] = {}
"""Differences of two sealed recipes: they never change, and every picture shows them."""


_offered: dict[str, tuple[tuple[object, ...], tuple[AmendOffer, ...]]] = {}
"""By batch: what the offers were made from, none of which ever changes, and the offers."""


def amend_offers(line: Line, batch: Batch, at: Stamp) -> tuple[AmendOffer, ...]:
    """All that may be amended of the batch, each with why it may not be just now. Pictures come often and batches
    change seldom: the offers are made when something changed. Of a batch that waits, the dirty units that it may be
    given, which time alone makes more."""
    if batch.state is State.IDLE:
        return tuple(_dirty_units(line, batch, at))
    if batch.state in OVER:
        _offered.pop(batch.batch, None)
        return ()
    source = (batch, line.book, line.lives, line.retired)
    known = _offered.get(batch.batch)
    if known is None or any(was is not now for was, now in zip(known[0], source, strict=True)):
        known = _offered[batch.batch] = (source, tuple(_offers(line, batch, at)))
    return known[1]


def _offers(line: Line, batch: Batch, at: Stamp) -> Iterator[AmendOffer]:
    recipe = line.recipe(batch)
    yield from _proposed(line, batch, at)
    for offer in offers(recipe):
        change = Change("value", offer.subject, offer.field)
        yield _value(recipe, offer, why_not(batch, recipe, change))
    for step_id in allowed(recipe).skip:
        refused = why_not(batch, recipe, Change("skip", step_id))
        step = recipe.steps()[step_id]
        yield AmendOffer(kind="skip", subject=step_id, title=f"{step_id} {step.title}", what="skip", refused=refused)
    if "instruct" in allowed(recipe).add:
        for run in batch.active():
            if run.phase not in COMPOSITE and run.phase != "monitor":
                yield AmendOffer(
                    kind="add",
                    subject=_new_id(batch, run.step),
                    field=run.step,
                    title=f"{run.step} {run.title}",
                    what="add",
                    refused=why_not(batch, recipe, Change("add", "", run.step)),
                )
    yield from _versions(line, batch, recipe)


def _proposed(line: Line, batch: Batch, at: Stamp) -> Iterator[AmendOffer]:
    """What the hub proposes, with the difference that it makes now."""
    proposed, differences, refused = batch.proposed, tuple[str, ...](), ""
    if proposed is None:
        return
    try:
        plan = plan_proposal(line, batch, at)
        differences = plan.differences if plan else ()
    except LinesideError as why:
        refused = why.what
    about = {"kind": "proposed", "what": "proposed", "subject": proposed.proposal, "title": proposed.proposal}
    yield AmendOffer(**about, value=proposed.reason, differences=differences, refused=refused)


def _dirty_units(line: Line, batch: Batch, at: Stamp) -> Iterator[AmendOffer]:
    recipe = line.recipe(batch)
    for role in allowed(recipe).dirty:
        for unit, why in dirty_units(line, recipe, role, at).items():
            yield AmendOffer(kind="dirty", subject=role, field=unit, title=f"{role}: {unit}", what="dirty", value=why)


def waiting(line: Line) -> Iterator[str]:
    """A sentence for each amendment that waits for others, for whoever looks at the box."""
    for batch in line.live():
        if batch.proposed:
            said = f"{batch.proposed.proposal}: {batch.proposed.reason}"
            yield f"The hub proposes to amend batch {batch.batch}. {said} (Batch, Amend)."
        if asked := batch.requested:
            able = ", ".join(asked.needs).replace("|", " or ")
            named = f"Amendment {asked.amendment} of batch {batch.batch}"
            yield f"{named}, requested by {asked.people[0]}, waits for: {able}."


def amendment_card(batch: Batch) -> AmendmentCard | None:
    """The amendment that waits."""
    asked = batch.requested
    if asked is None:
        return None
    bounds = [
        f"{one.old} → {one.new} {one.unit}".rstrip() + f", bounds {one.low or 'open'} to {one.high or 'open'}"
        + (f": {one.why}" if one.why else "")
        for one in asked.changes
        if one.kind == "value"
    ]  # fmt: skip
    return AmendmentCard(
        amendment=asked.amendment,
        requested_by=asked.people[0],
        reason=asked.reason,
        adopts=asked.adopts,
        from_step=asked.from_step,
        differences=(*asked.differences, *bounds),
        more=asked.more,
        needs=asked.needs,
        people=asked.people,
    )


def _value(recipe: Recipe, offer: Offer, refused: str) -> AmendOffer:
    step = recipe.steps().get(offer.subject)
    *inside, field = offer.field.split(".")
    said = word(field, inside[0] if inside else "").says if field else "value"
    return AmendOffer(
        kind="value",
        subject=offer.subject,
        field=offer.field,
        title=f"{step.id} {step.title}" if step else offer.subject.removeprefix("$").replace("_", " "),
        what=" ".join(said.replace("{}", "").split()),
        value=offer.value,
        unit=offer.unit,
        low=offer.low,
        high=offer.high,
        why=offer.why,
        choices=offer.choices if offer.kind != "bool" else ("yes", "no"),
        refused=refused,
    )


def _new_id(batch: Batch, after: str) -> str:
    """An id for an added step that says behind which it stands, within the length of an id."""
    *outer, last = after.split("/")
    tail = f"-A{batch.amendments + 1}"
    return "/".join((*outer, last[: 32 - len(tail)] + tail))


def _versions(line: Line, batch: Batch, recipe: Recipe) -> Iterator[AmendOffer]:
    """Effective versions of the same recipe that let a batch under way go over to them, from its next step on."""
    for seal in sorted(line.book.effective):
        new = line.book.recipes[seal]
        if seal == batch.seal or new.recipe != batch.recipe or not allowed(new).adopt or startable(line, seal) is None:
            continue
        begun = {step_id for step_id in batch.steps if standing(recipe, batch, step_id) != "todo"}
        coming = next((step.id for step in order(new.main())[0] if step.id not in begun), "")
        found = conflicts(line, batch, new, coming)
        yield AmendOffer(
            kind="adopt",
            subject=seal,
            field=coming,
            title=f"{new.recipe} {new.version}",
            what="adopt",
            value=batch.version,
            differences=_differences(batch.amended or batch.seal, recipe, seal, new),
            refused=found[0] + "." if found else "",
        )


def _differences(was: str, old: Recipe, now: str, new: Recipe) -> tuple[str, ...]:
    if (was, now) not in _compared:
        while len(_compared) >= COMPARED_MAX:
            del _compared[next(iter(_compared))]
        _compared[was, now] = tuple(change.text for change in compare(old, new))[:DIFFERENCES_SHOWN]
    return _compared[was, now]
