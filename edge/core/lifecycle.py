"""The life of a recipe on a box: draft, in review, approved, effective, retired. Every change is a signed row.

The table says which act leads where; `edge.core.approve` decides who may do it, and this file folds what was decided.
What is known of a recipe goes by its seal: a changed word is another recipe, and nobody has signed that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final

from edge.core import events as ev
from edge.core.people import Permission, permitted
from edge.core.quick import dataclass

RECIPES_LIVE_MAX: Final = 500
"""So many recipes are in review, approved or effective at most."""
LIVES_KEPT: Final = 1_024
"""Of so many recipes the head says all; of a retired one that is older only that it is retired."""


class Approval(StrEnum):
    """How recipes become effective on a box: the setting `recipe_approval`, said in a row when it changes."""

    FROM_FOLDER = "from_folder"
    """What is in the folder `recipes` may be started; nobody signs. Journals that say nothing are of this kind."""
    ONE_SIGNATURE = "one_signature"
    """Quality approves and releases, never the recipe's author."""
    TWO_SIGNATURES = "two_signatures"
    """Two different people approve, quality one of them; then quality releases. Never the author."""


NEEDED: Final[Mapping[Approval, int]] = {Approval.ONE_SIGNATURE: 1, Approval.TWO_SIGNATURES: 2}
"""How many different people approve."""


class RecipeState(StrEnum):
    """Where a recipe is in its life."""

    DRAFT = "draft"
    """Somebody writes it; the box knows it from a review that sent it back, or not at all. It may be submitted."""
    IN_REVIEW = "in review"
    """Checked, rehearsed and signed by its author. Others may approve it or send it back."""
    APPROVED = "approved"
    """Signed by as many people as the box asks for. Quality may release it; it may still be sent back or retired."""
    EFFECTIVE = "effective"
    """Batches may be started with it, until it is retired or a newer version is released. Only here."""
    RETIRED = "retired"
    """No batch is started with it any more, for good. A batch that runs goes on with it to its end."""


class RecipeAct(StrEnum):
    """What a person does, signed, about a recipe."""

    SUBMIT = "submit"
    APPROVE = "approve"
    SEND_BACK = "send back"
    RELEASE = "release"
    RETIRE = "retire"


LIFE: Final[Mapping[RecipeState, Mapping[RecipeAct, RecipeState]]] = {
    RecipeState.DRAFT: {RecipeAct.SUBMIT: RecipeState.IN_REVIEW},
    RecipeState.IN_REVIEW: {
        RecipeAct.APPROVE: RecipeState.APPROVED,  # with the last signature that it needs
        RecipeAct.SEND_BACK: RecipeState.DRAFT,
    },
    RecipeState.APPROVED: {
        RecipeAct.RELEASE: RecipeState.EFFECTIVE,
        RecipeAct.SEND_BACK: RecipeState.DRAFT,
        RecipeAct.RETIRE: RecipeState.RETIRED,
    },
    RecipeState.EFFECTIVE: {RecipeAct.RETIRE: RecipeState.RETIRED},
    RecipeState.RETIRED: {},
}
LIVE: Final = frozenset({RecipeState.IN_REVIEW, RecipeState.APPROVED, RecipeState.EFFECTIVE})
PERMISSION: Final[Mapping[RecipeAct, Permission]] = {
    RecipeAct.SUBMIT: Permission.SUBMIT,
    RecipeAct.APPROVE: Permission.APPROVE,
    RecipeAct.SEND_BACK: Permission.APPROVE,
    RecipeAct.RELEASE: Permission.RELEASE,
    RecipeAct.RETIRE: Permission.RELEASE,
}
DONE: Final[Mapping[RecipeAct, str]] = {
    RecipeAct.SUBMIT: "submitted for review",
    RecipeAct.APPROVE: "reviewed and approved",
    RecipeAct.SEND_BACK: "sent back to its author",
    RecipeAct.RELEASE: "released: it may be started",
    RecipeAct.RETIRE: "retired: it may not be started any more",
}


@dataclass(frozen=True, slots=True)
class Endorsement:
    """Who signed what about a recipe, and the row that says so; its signature is the row before."""

    person: str
    role: str
    act: RecipeAct
    utc: str
    seq: int


@dataclass(frozen=True, slots=True)
class RecipeLife:
    """What rows say of one recipe since it was submitted last."""

    recipe: str
    version: str
    title: str
    seal: str
    state: RecipeState
    author: str
    plant: str
    """Content of the plant that it was checked and rehearsed on."""
    rehearsal: str
    """SHA-256 of the report of its rehearsal, which is in the library."""
    rehearsed: str
    """The report in one sentence."""
    rehearsal_ok: bool
    signed: tuple[Endorsement, ...]
    reason: str = ""
    """Why it was sent back or retired."""
    superseded_by: str = ""
    """The seal of the newer version that took its place."""

    def by(self, act: RecipeAct) -> tuple[Endorsement, ...]:
        """Those who did this, in order."""
        return tuple(one for one in self.signed if one.act is act)


def barred(life: RecipeLife, act: RecipeAct) -> tuple[str, ...]:
    """Who may not sign this about it, whatever their roles are."""
    author = (life.author,) if act in {RecipeAct.APPROVE, RecipeAct.RELEASE} else ()
    return author + (tuple(one.person for one in life.by(act)) if act is RecipeAct.APPROVE else ())


def waiting_for(lives: Mapping[str, RecipeLife], person: str, roles: Iterable[str]) -> Iterator[RecipeLife]:
    """The recipes that wait for this person to approve or release them."""
    acts = {RecipeState.IN_REVIEW: RecipeAct.APPROVE, RecipeState.APPROVED: RecipeAct.RELEASE}
    for life in lives.values():
        act = acts.get(life.state)
        if act is not None and permitted(roles, PERMISSION[act]) and person not in barred(life, act):
            yield life


RecipeEvent = ev.RecipeSubmitted | ev.RecipeApproved | ev.RecipeSentBack | ev.RecipeReleased | ev.RecipeRetired
Lives = Mapping[str, RecipeLife]


def lived(lives: Lives, event: RecipeEvent, person: str, utc: str, seq: int) -> dict[str, RecipeLife]:
    """The recipes after this row, the one that it changed last."""
    signed = Endorsement(person, event.role, ACT_OF[type(event)], utc, seq)
    match event:
        case ev.RecipeSubmitted():
            changed = RecipeLife(
                event.recipe,
                event.version,
                event.title,
                event.seal,
                RecipeState.IN_REVIEW,
                person,
                event.plant,
                event.rehearsal,
                event.rehearsed,
                event.rehearsal_ok,
                (signed,),
            )
        case _:
            known = lives[event.seal]
            changed = replace(known, signed=(*known.signed, signed), state=_state_after(event))
            if isinstance(event, ev.RecipeSentBack | ev.RecipeRetired):
                changed = replace(changed, reason=event.reason)
            if isinstance(event, ev.RecipeRetired):
                changed = replace(changed, superseded_by=event.superseded_by)
    return _bounded({seal: life for seal, life in lives.items() if seal != event.seal} | {event.seal: changed})


def _state_after(event: RecipeEvent) -> RecipeState:
    match event:
        case ev.RecipeSubmitted():
            return RecipeState.IN_REVIEW
        case ev.RecipeApproved():
            return RecipeState.APPROVED if event.enough else RecipeState.IN_REVIEW
        case ev.RecipeSentBack():
            return RecipeState.DRAFT
        case ev.RecipeReleased():
            return RecipeState.EFFECTIVE
        case ev.RecipeRetired():
            return RecipeState.RETIRED


ACT_OF: Final[Mapping[type[ev.Event], RecipeAct]] = {
    ev.RecipeSubmitted: RecipeAct.SUBMIT,
    ev.RecipeApproved: RecipeAct.APPROVE,
    ev.RecipeSentBack: RecipeAct.SEND_BACK,
    ev.RecipeReleased: RecipeAct.RELEASE,
    ev.RecipeRetired: RecipeAct.RETIRE,
}


def _bounded(lives: dict[str, RecipeLife]) -> dict[str, RecipeLife]:
    """Without the oldest drafts and retired ones beyond the bound: a draft that nobody remembers is still a draft, and
    that a recipe is retired the head knows for ever."""
    for seal in [seal for seal, life in lives.items() if life.state not in LIVE][: max(0, len(lives) - LIVES_KEPT)]:
        del lives[seal]
    return lives


def meaning(act: RecipeAct, recipe: str, version: str, seal: str) -> str:
    """What a signature about a recipe says. The attestation covers it, and with it the seal."""
    return f"Recipe {recipe[:64]} {version[:64]} {DONE[act]}. Seal {seal}"


def newer(version: str, than: str) -> bool:
    """True when this version is a later one: 1.10 is later than 1.9."""
    return version_key(version) > version_key(than)


def version_key(version: str) -> list[tuple[int, str]]:
    """What sorts versions: 1.10 behind 1.9."""
    parts = [part.lstrip("0") for part in version.split(".")]
    while parts and not parts[-1]:
        parts.pop()  # 1.0 is 1
    return [(len(part), part) for part in parts]  # of any length, without making a number of it
