"""Orders on a box: each is taken once, by whatever way it comes, and started at most once."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.approve import startable
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.line import Line, refused_id
from edge.core.numbers import CHECK, PRODUCT, given
from edge.core.orders import ORDERS_MAX, Order
from edge.core.people import Permission
from edge.core.profiles import refuse_order
from edge.core.recipe.amend import Change, amended, parameter_change
from edge.core.recipe.model import Recipe
from edge.core.training import CODE, looks_like_training

REASON_CHARS_MAX: Final = 500


def receive(d: Decision, command: cm.ReceiveOrder) -> None:
    """Take an order. The same once more is the same order; another content under its id is refused, as a row."""
    line, order = d.line, command.order
    if not command.trusted:
        d.need(Permission.START)
    digest = order.digest()
    if order.order in line.ordered and f"{order.order}\n{digest}" in line.contents:
        return
    if command.way == "hub" and refused_id(order.order, digest) in line.contents:
        return  # the broker keeps what the hub sent: it comes at every connection, and is refused in one row
    if why := _why_not(line, order):
        d.emit(ev.OrderRefused(order=order.order, digest=digest, way=command.way, why=why))
        return
    facts = {
        "recipe": order.recipe,
        "version": order.version,
        "number": order.number,
        "quantity": order.quantity,
        "patient": order.patient,
        "due": order.due,
    }
    parameters, training = dict(order.parameters), order.training
    d.emit(
        ev.OrderReceived(
            order=order.order, **facts, parameters=parameters, training=training, digest=digest, way=command.way
        )
    )


def _why_not(line: Line, order: Order) -> str:
    if order.order in line.ordered:
        return f"There is an order {order.order} with another content."
    if looks_like_training(order.order) or looks_like_training(order.number):
        return f"Only training batches are called {CODE}."
    if order.training and (order.patient or order.number):
        return "A training order has neither patient nor batch number."
    if order.number and order.number in line.used:
        return f"There is a batch {order.number} already."
    if len(line.orders) >= ORDERS_MAX:
        return f"{ORDERS_MAX} orders wait on this box already: start or cancel some."
    return ""


def cancel(d: Decision, command: cm.CancelOrder) -> None:
    """Take an order off the list, with a reason. It can never be started, nor come back."""
    d.need(Permission.START)
    reason = command.reason.strip()
    if command.order not in d.line.orders:
        raise LinesideError(
            "order.unknown",
            f"No order {command.order[:64]} waits on this box.",
            effect="Nothing was changed.",
            todo="Look with `lineside order list`.",
        )
    if not reason or len(reason) > REASON_CHARS_MAX:
        raise LinesideError(
            "order.reason",
            f"An order is cancelled for a reason of at most {REASON_CHARS_MAX} characters.",
            effect="Nothing was changed.",
            todo="Say why.",
        )
    d.emit(ev.OrderCancelled(order=command.order, reason=reason))


def ordered(line: Line, asked: cm.StartBatch) -> cm.StartBatch:
    """What is started, by its order when the box holds one, with a number of the box's when none is given. Raises
    `order.*` and `numbers.*`."""
    order = line.orders.get(asked.order)
    if order is None:
        if asked.order in line.ordered:
            raise LinesideError(
                "order.used",
                f"The order {asked.order} was started or cancelled already; an order is started once.",
                todo="Choose an order that waits, or have another one made.",
            )
    else:
        asked = _by(line, order, asked)
    if asked.training:
        return asked
    loaded = startable(line, asked.seal)
    if loaded is not None:
        named, received = bool(asked.order.strip()), order is not None
        refuse_order(line.profile, line.ad_hoc, loaded.recipe, named=named, received=received)
    if not asked.batch.strip():
        asked = replace(asked, batch=given(line.numbers, PRODUCT if asked.order.strip() else CHECK))
    for purpose in (PRODUCT, CHECK):
        _refuse_out_of_turn(line, purpose, asked.batch)
    return asked


def _refuse_out_of_turn(line: Line, purpose: str, batch: str) -> None:
    """A number of the box's own range comes in its turn: those before may be in a part of the journal that was lost."""
    numbers = line.numbers.get(purpose)
    position = numbers.position(batch) if numbers else None
    if numbers is not None and position is not None and position != numbers.next:
        raise LinesideError(
            "numbers.not_next",
            f"{batch} is of this box's own range of numbers, and not the next one.",
            todo=f"Leave the number out, or take {numbers.number(numbers.next)}."
            if numbers.left
            else "Give this box another range: [numbers] in lineside.toml.",
        )


def _by(line: Line, order: Order, asked: cm.StartBatch) -> cm.StartBatch:
    found = startable(line, asked.seal)
    version = order.version or (found.version if found else "")
    same = found is not None and (found.recipe, found.version) == (order.recipe, version)
    if not same or asked.training is not order.training:
        raise LinesideError(
            "order.other_recipe",
            f"The order {order.order} is for {order.recipe} {order.version}".rstrip()
            + (", as training." if order.training else "."),
            todo="Start it from the list of orders, or ask for that recipe to be made effective here.",
        )
    if order.patient and asked.patient.strip() != order.patient:
        raise LinesideError(
            "order.other_patient",
            f"This is not the patient of the order {order.order}.",
            todo="Scan the patient identity that belongs to the order.",
        )
    if order.number and asked.batch.strip() not in {"", order.number}:
        raise LinesideError(
            "order.other_number",
            f"The order {order.order} is for batch {order.number}.",
            todo="Leave the batch number out.",
        )
    recipe = line.book.recipes[asked.seal]
    return replace(asked, batch=order.number or asked.batch, changes=changes(recipe, order))


def changes(recipe: Recipe, order: Order) -> tuple[Change, ...]:
    """What the order's parameters change in the recipe, each within its range. Raises `order.parameter`."""
    made: list[Change] = []
    for name, text in order.parameters.items():
        try:
            change = parameter_change(recipe, name, text)
            amended(recipe, [change])
        except LinesideError as why:
            raise LinesideError(
                "order.parameter",
                f"The order {order.order} cannot be started with {name} = {text}: {why.what}",
                todo="Have the order made anew, or another recipe made effective.",
            ) from why
        made.append(change)
    return tuple(made)
