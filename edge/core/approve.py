"""Who may do what about a recipe, and the rows that say that it was done: see `edge.core.lifecycle`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.lifecycle import (
    LIFE,
    LIVE,
    NEEDED,
    PERMISSION,
    RECIPES_LIVE_MAX,
    Approval,
    RecipeAct,
    RecipeLife,
    RecipeState,
    meaning,
    newer,
)
from edge.core.line import Line
from edge.core.people import Permission, permitted, roles_with
from edge.core.terms import Role

NOTHING_CHANGED: Final = "The recipe is as it was. Batches go on."
REASON_CHARS_MAX: Final = 2_000
SUPERSEDED: Final = "a newer version was released"


def startable(line: Line, seal: str) -> RecipeLife | ev.RecipeLoaded | None:
    """The recipe with this seal when a batch may be started with it, else None."""
    if seal not in line.book.effective or seal in line.retired:
        return None
    if line.approval is Approval.FROM_FOLDER:
        return line.recipes.get(seal)
    life = line.lives.get(seal)
    return life if life is not None and life.state is RecipeState.EFFECTIVE else None


def state_of(line: Line, seal: str) -> RecipeState:
    """Where a recipe is in its life. One that nobody submitted is a draft."""
    life = line.lives.get(seal)
    return life.state if life else RecipeState.RETIRED if seal in line.retired else RecipeState.DRAFT


def effective_version(line: Line, recipe: str) -> RecipeLife | None:
    """The version of a recipe that is effective, by its name."""
    found = (one for one in line.lives.values() if one.recipe == recipe and one.state is RecipeState.EFFECTIVE)
    return next(found, None)


def refuse_from_folder(line: Line) -> None:
    """Raise `recipe.from_folder` where nobody signs recipes."""
    if line.approval is Approval.FROM_FOLDER:
        raise LinesideError(
            "recipe.from_folder",
            "On this box recipes become effective from its folder; nobody signs them.",
            effect=NOTHING_CHANGED,
            todo='To have them approved, set recipe_approval = "two_signatures" in lineside.toml; start anew.',
        )


def change_recipe(decision: Decision, command: cm.ChangeRecipe) -> None:
    """One act: the signature and the row that says what it did, or a refusal."""
    line, act, signed = decision.line, command.act, command.signed
    refuse_from_folder(line)
    life, offered = line.lives.get(command.seal), command.offered
    name, version = (life.recipe, life.version) if life else (offered.recipe, offered.version) if offered else ("", "")
    state = state_of(line, command.seal)
    if act not in LIFE[state] or not name:
        raise LinesideError(
            "recipe.state",
            f"The recipe {f'{name} {version}' if name else command.seal[:12]} is {state.value}: it cannot be "
            f"{_CANNOT[act]}.",
            effect=NOTHING_CHANGED,
            todo=_TODO[state],
        )
    permission = PERMISSION[act]
    if not permitted((signed.role,), permission) or signed.role not in signed.roles:
        raise recipes_not_permitted(signed.person, permission)
    if signed.meaning != meaning(act, name, version, command.seal):
        raise LinesideError(
            "recipe.other_signed",
            f"What was signed is not that {name} {version} with the seal {command.seal[:12]}… was {_CANNOT[act]}.",
            effect=NOTHING_CHANGED,
            todo="Look at the recipe again, and sign what is shown.",
        )
    _DECIDE[act](decision, command, life, name, version)


def _submit(decision: Decision, command: cm.ChangeRecipe, life: RecipeLife | None, name: str, version: str) -> None:
    line, offered = decision.line, command.offered
    if life is not None and life.author != command.signed.person:
        raise LinesideError(
            "recipe.other_author",
            f"{life.author} submitted {name} {version}, and it was sent back: its author stays who it was.",
            effect=NOTHING_CHANGED,
            todo=f"Ask {life.author} to submit it again, or submit a version of your own.",
        )
    if offered is None:
        raise LinesideError(
            "recipe.not_offered",
            "This recipe was not checked and rehearsed since the runtime began.",
            effect=NOTHING_CHANGED,
            todo="Submit the recipe's file again.",
        )
    for one in line.lives.values():
        same_name = (one.recipe, one.version) == (name, version)
        if same_name and one.seal != command.seal and one.state is not RecipeState.DRAFT:
            raise LinesideError(
                "recipe.version_taken",
                f"There is another {name} {version} on this box, and it is {one.state.value}: {one.seal[:12]}….",
                effect=NOTHING_CHANGED,
                todo="Give the new one a version of its own, or have the other one sent back first.",
            )
    if sum(one.state in LIVE for one in line.lives.values()) >= RECIPES_LIVE_MAX:
        raise LinesideError(
            "recipe.too_many",
            f"{RECIPES_LIVE_MAX} recipes are in review, approved or effective on this box: it holds no more.",
            effect=NOTHING_CHANGED,
            todo="Retire recipes that are not made here any more.",
        )
    decision.make_signature("", "", command.signed)
    decision.emit(
        ev.RecipeSubmitted(
            recipe=name,
            version=version,
            title=offered.title,
            seal=command.seal,
            role=command.signed.role.value,
            plant=offered.plant,
            rehearsal=offered.rehearsal,
            rehearsed=offered.rehearsed,
            rehearsal_ok=offered.rehearsal_ok,
        )
    )


def _approve(decision: Decision, command: cm.ChangeRecipe, life: RecipeLife | None, name: str, version: str) -> None:
    assert life is not None
    line, signed = decision.line, command.signed
    if not life.rehearsal_ok:
        raise LinesideError(
            "recipe.not_rehearsed",
            f"The rehearsal of {name} {version} did not see everything: {life.rehearsed}",
            effect=NOTHING_CHANGED,
            todo="Send the recipe back; `lineside recipe rehearse FILE` shows its author what was not seen.",
        )
    _refuse_own(life, signed)
    if any(one.person == signed.person for one in life.by(RecipeAct.APPROVE)):
        raise LinesideError(
            "recipe.signed_already",
            f"{signed.person} has approved {name} {version} already; the next signature must be another person's.",
            effect=NOTHING_CHANGED,
            todo="Ask a second person to look at it and to sign.",
        )
    _refuse_other_shown(line, command, name)
    so_far = [*((one.person, one.role) for one in life.by(RecipeAct.APPROVE)), (signed.person, signed.role.value)]
    enough = len(so_far) >= NEEDED[line.approval] and any(role == Role.QUALITY for _, role in so_far)
    decision.make_signature("", "", signed)
    decision.emit(
        ev.RecipeApproved(
            recipe=name,
            version=version,
            seal=life.seal,
            role=signed.role.value,
            compared_with=command.compared_with,
            enough=enough,
        )
    )


def _send_back(decision: Decision, command: cm.ChangeRecipe, life: RecipeLife | None, name: str, version: str) -> None:
    assert life is not None
    reason = _reason(command)
    decision.make_signature("", "", command.signed)
    role = command.signed.role.value
    decision.emit(ev.RecipeSentBack(recipe=name, version=version, seal=life.seal, role=role, reason=reason))


def _release(decision: Decision, command: cm.ChangeRecipe, life: RecipeLife | None, name: str, version: str) -> None:
    assert life is not None
    line, role = decision.line, command.signed.role.value
    _refuse_own(life, command.signed)
    _refuse_other_shown(line, command, name)
    older = effective_version(line, name)
    if older is not None and not newer(version, older.version):
        raise LinesideError(
            "recipe.older_version",
            f"{name} {older.version} is effective, and {version} is not a later version.",
            effect=NOTHING_CHANGED,
            todo="Submit what is to be effective as a later version.",
        )
    decision.make_signature("", "", command.signed)
    decision.emit(ev.RecipeReleased(recipe=name, version=version, seal=life.seal, role=role))
    if older is not None:
        decision.emit(
            ev.RecipeRetired(
                recipe=name,
                version=older.version,
                seal=older.seal,
                role=role,
                reason=SUPERSEDED,
                superseded_by=life.seal,
            )
        )


def _retire(decision: Decision, command: cm.ChangeRecipe, life: RecipeLife | None, name: str, version: str) -> None:
    assert life is not None
    reason = _reason(command)
    decision.make_signature("", "", command.signed)
    role = command.signed.role.value
    decision.emit(ev.RecipeRetired(recipe=name, version=version, seal=life.seal, role=role, reason=reason))


_DECIDE: Final[dict[RecipeAct, Callable[[Decision, cm.ChangeRecipe, RecipeLife | None, str, str], None]]] = {
    RecipeAct.SUBMIT: _submit,
    RecipeAct.APPROVE: _approve,
    RecipeAct.SEND_BACK: _send_back,
    RecipeAct.RELEASE: _release,
    RecipeAct.RETIRE: _retire,
}
_CANNOT: Final = {
    RecipeAct.SUBMIT: "submitted",
    RecipeAct.APPROVE: "approved",
    RecipeAct.SEND_BACK: "sent back",
    RecipeAct.RELEASE: "released",
    RecipeAct.RETIRE: "retired",
}
_TODO: Final = {
    RecipeState.DRAFT: "Submit its file first: lineside recipe submit FILE",
    RecipeState.IN_REVIEW: "It waits for approval, or is sent back with a reason.",
    RecipeState.APPROVED: "It waits for quality to release it.",
    RecipeState.EFFECTIVE: "Nothing is missing; batches may be started with it. It ends by being retired.",
    RecipeState.RETIRED: "Submit a later version of it.",
}


def _refuse_own(life: RecipeLife, signed: cm.Signed) -> None:
    if signed.person == life.author:
        raise LinesideError(
            "recipe.own",
            f"{signed.person} submitted {life.recipe} {life.version}; somebody else must look at it and sign.",
            effect=NOTHING_CHANGED,
            todo="Ask a person who did not write it.",
        )


def _refuse_other_shown(line: Line, command: cm.ChangeRecipe, name: str) -> None:
    """What was shown as the difference must still be the difference."""
    effective = effective_version(line, name)
    if command.compared_with != (effective.seal if effective else ""):
        raise LinesideError(
            "recipe.shown_changed",
            f"Another version of {name} became effective, or was retired, since this one was shown.",
            effect=NOTHING_CHANGED,
            todo="Look at what it changes now, then sign.",
        )


def _reason(command: cm.ChangeRecipe) -> str:
    reason = command.reason.strip()
    if not reason or len(reason) > REASON_CHARS_MAX:
        raise LinesideError(
            "recipe.reason",
            f"A recipe is {_CANNOT[command.act]} for a reason of at most {REASON_CHARS_MAX:,} characters.",
            effect=NOTHING_CHANGED,
            todo="Say why, for the one who wrote it and for who reads the journal later.",
        )
    return reason


def recipes_not_permitted(person: str, permission: Permission) -> LinesideError:
    """Default deny, in words."""
    able = ", ".join(role.value for role in roles_with(permission))
    return LinesideError(
        "people.not_permitted",
        f"{person} has no role that may {permission.value} recipes here.",
        effect=NOTHING_CHANGED,
        todo=f"Ask someone with one of these roles: {able}.",
    )
