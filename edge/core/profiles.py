"""Profiles: how much a site asks for before a batch begins, as one table. Every rule is read from here, and nowhere
else does the box ask which profile it has. The same engine, journal and signatures serve all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Literal

from edge.core.errors import LinesideError
from edge.core.lifecycle import Approval
from edge.core.quick import dataclass
from edge.core.terms import Role


class Profile(StrEnum):
    """What a box is for: the setting `profile`, said in a row when it changes, and in each batch's first row."""

    EQUIPMENT_CHECK = "equipment_check"
    """Checks, cleaning and calibration of equipment: no order, no material."""
    PROCESS_DEVELOPMENT = "process_development"
    """A process is being found: limits warn, recipes come from the folder."""
    SINGLE_SITE_GMP = "single_site_gmp"
    """Product of one site: every batch has an order."""
    MULTI_SITE_GMP = "multi_site_gmp"
    """Product of several sites: orders come as documents, from the hub or signed by a person."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What follows from a profile."""

    recipe_approval: Approval
    """How recipes become effective, unless the setting of this name says otherwise."""
    order: Literal["none", "named", "received"]
    """What a batch begins from: nothing, the id of an order, or one that this box has received. What the site lists as
    ad hoc needs none in any profile."""
    starters: tuple[Role, ...]
    """Who may start a batch."""
    limits: Literal["enforced", "warned"]
    """Whether a value outside its limit is an exception record of the recipe's category, or of category "warning"."""
    patients: bool
    """Whether batches for patients may be made."""


_LINE: Final = (Role.OPERATOR, Role.SUPERVISOR)
PROFILES: Final[Mapping[Profile, Rules]] = MappingProxyType(
    {
        Profile.EQUIPMENT_CHECK: Rules(
            Approval.ONE_SIGNATURE, "none", (*_LINE, Role.ENGINEER), limits="enforced", patients=False
        ),
        Profile.PROCESS_DEVELOPMENT: Rules(
            Approval.FROM_FOLDER, "none", (*_LINE, Role.ENGINEER), limits="warned", patients=False
        ),
        Profile.SINGLE_SITE_GMP: Rules(Approval.TWO_SIGNATURES, "named", _LINE, limits="enforced", patients=True),
        Profile.MULTI_SITE_GMP: Rules(Approval.TWO_SIGNATURES, "received", _LINE, limits="enforced", patients=True),
    }
)


def needs_order(profile: Profile, ad_hoc: Collection[str], recipe: str) -> bool:
    """True when a batch of this recipe begins from an order."""
    return PROFILES[profile].order != "none" and recipe not in ad_hoc


def refuse_start(profile: Profile, *, person: str, roles: Collection[Role], with_patient: bool) -> None:
    """Raise when this person may start no batch here, or none for a patient."""
    rules = PROFILES[profile]
    if not any(role in rules.starters for role in roles):
        raise LinesideError(
            "people.not_permitted",
            f"{person} has no role that may start a batch here.",
            todo=f"Ask someone with one of these roles: {', '.join(role.value for role in rules.starters)}.",
        )
    if with_patient and not rules.patients:
        raise LinesideError(
            "profile.patient",
            f"This box has the profile {profile.value}: it makes nothing for patients.",
            todo="Use a box of a GMP profile, or start it as training.",
        )


def refuse_order(profile: Profile, ad_hoc: Collection[str], recipe: str, *, named: bool, received: bool) -> None:
    """Raise when a batch of this recipe begins without the order that the profile asks for."""
    if not needs_order(profile, ad_hoc, recipe) or received:
        return
    if not named:
        raise LinesideError(
            "order.needed",
            f"{recipe} is made for an order, and none was given.",
            todo="Scan or type the order. Without one only what the site lists as ad_hoc is started.",
        )
    if PROFILES[profile].order == "received":
        raise LinesideError(
            "order.not_received",
            "This order has not come to this box: here a batch is started from one that waits.",
            todo="Scan the order's code, have the hub send it, or bring it on a stick.",
        )
