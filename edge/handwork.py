"""What a screen shows of steps that go on by hand: what is to be entered, and which steps may be switched now."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge.core.by_hand import PERMISSION, READS, open_part, refusal, tags_of, unusable
from edge.core.line import OVER, Batch, Line, StepRun
from edge.core.mode import HandAct, Mode
from edge.core.people import roles_with
from edge.core.terms import Reading
from edge.wire import HandCard, HandOffer

Latest = Callable[[str], Reading | None]
SWITCHES = (HandAct.TAKE, HandAct.MANUAL, HandAct.RETURN)


def hand_offers(line: Line, batch: Batch, latest: Latest) -> tuple[HandOffer, ...]:
    """Which steps under way may be taken by hand, switched to manual, or returned to automatic."""
    return () if batch.state in OVER else tuple(_offers(line, batch, latest))


def _offers(line: Line, batch: Batch, latest: Latest) -> Iterator[HandOffer]:
    for run in batch.active():
        for act in SWITCHES:
            if refusal(line, batch, run, act, latest) is None:
                roles = tuple(role.value for role in roles_with(PERMISSION[act]))
                why = ""
                if act is HandAct.TAKE and (tag := unusable(line, batch, line.recipe(batch).steps()[run.step], latest)):
                    reading = latest(tag)
                    why = f"{tag}: {reading.detail or reading.quality.value if reading else 'no reading yet'}"
                yield HandOffer(
                    step=run.step, iteration=run.iteration, title=run.title, act=act.value, why=why, roles=roles
                )


def hand_card(line: Line, batch: Batch, run: StepRun, latest: Latest) -> HandCard | None:
    """How the step goes on by hand; None while it is automatic. What the first person entered is never in it."""
    hand = run.hand
    if hand is None:
        return None
    part = open_part(line, batch, run, latest)
    step = line.recipe(batch).steps()[run.step]
    back = ""
    tags = tags_of(line, batch, step)
    if hand.mode is Mode.SEMI_AUTOMATIC and tags and not unusable(line, batch, step, latest):
        back = f"{tags[0]} can be used again. Go on by hand, or return the step to automatic: nothing is mixed."
    act = HandAct.VERIFY if hand.part else HandAct.ENTER
    return HandCard(
        mode=hand.mode.value,
        why=hand.why,
        kind=part.kind if part else "number",
        verifies=bool(hand.part),
        entered_by=hand.person,
        roles=tuple(role.value for role in roles_with(PERMISSION[act])),
        said=str(hand.value) if part and part.kind == "text" and hand.part else "",
        again=isinstance(step, READS) and hand.mode is Mode.SEMI_AUTOMATIC,
        last=hand.last,
        back=back,
    )
