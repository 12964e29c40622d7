"""The approval history in a master recipe's header: who signed it where it comes from. Here it approves nothing."""

from __future__ import annotations

from collections.abc import Sequence

from edge.core.quick import dataclass
from edge.exchange.batchml import differences
from edge.exchange.markup import Node


@dataclass(frozen=True, slots=True)
class Approved:
    """One signature: by whom, when, what it says, and all that its box knows of it, as JSON."""

    by: str
    utc: str
    says: str
    facts: str


def with_header(root: Node, approvals: Sequence[Approved]) -> Node:
    """An exported master recipe with its approval history; as it was, without one."""
    recipe = root.first("MasterRecipe")
    if recipe is not None and approvals:
        after = next(place for place, child in enumerate(recipe.children) if child.name == "Description")
        recipe.children.insert(after + 1, _header(recipe.said("Version"), approvals))
    return root


def take_header(recipe: Node) -> tuple[Approved, ...]:
    """The approval history of a master recipe that Lineside exported; it is taken out. Empty, and left in, when it is
    not as Lineside writes it."""
    header = recipe.first("Header")
    history = header.first("ApprovalHistory") if header is not None else None
    if header is None or history is None:
        return ()
    found = tuple(_approved(one) for one in history.all("IndividualApproval"))
    if next(differences(header, _header(recipe.said("Version"), found)), None) is not None:
        return ()
    recipe.children.remove(header)
    return found


def _header(version: str, approvals: Sequence[Approved]) -> Node:
    signed = [
        Node("IndividualApproval", children=[
            Node("ApprovedBy", one.by), Node("ApprovalDate", one.utc),
            Node("Description", one.says), Node("Description", one.facts),
        ])
        for one in approvals
    ]  # fmt: skip
    return Node("Header", children=[Node("ApprovalHistory", children=[Node("Version", version), *signed])])


def _approved(node: Node) -> Approved:
    texts = [one.text for one in node.all("Description")]
    says, facts = (*texts, "", "")[:2]
    return Approved(node.said("ApprovedBy"), node.said("ApprovalDate"), says, facts)
