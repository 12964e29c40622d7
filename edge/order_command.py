"""`lineside order list`, `show`, `import`, `cancel`: the orders that wait on a box."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from edge.core.errors import LinesideError
from edge.terminal import AsJson, Box

if TYPE_CHECKING:
    from edge.desk_client import DeskClient

Person = Annotated[str, typer.Option(help="Who gives it; the PIN is asked for, or read from standard input.")]
Wanted = Annotated[str, typer.Argument(help="The order's id.")]


def import_order(
    file: Annotated[Path, typer.Argument(help="The order's file.")],
    person: Person = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Bring an order to the box, from a stick. One that the hub signed for this box needs nobody; else a person gives
    it with --person. The same order once more changes nothing.

    Example: lineside order import /media/stick/ORD-17.json --box /var/lib/lineside/box
    """
    from edge.core.orders import ORDER_BYTES_MAX, read_signed
    from edge.library import read_bounded
    from edge.wire import GiveOrder

    text, signature = read_signed(read_bounded(file, 4 * ORDER_BYTES_MAX))

    async def give(desk: DeskClient) -> dict[str, Any]:
        if not signature:
            await _log_in(desk, person)
        await desk.ask(GiveOrder(id=uuid4().hex, text=text, way="file", signature=signature))
        return await _orders(desk)

    _say(_run(box, give), as_json)


def list_orders(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the orders that wait on a box.

    Example: lineside order list --box /var/lib/lineside/box
    """
    _say(_run(box, _orders), as_json)


def show_order(order: Wanted, box: Box = Path(), as_json: AsJson = False) -> None:
    """Show an order that waits.

    Example: lineside order show ORD-17 --box /var/lib/lineside/box
    """
    found = next((one for one in _run(box, _orders)["orders"] if one["order"] == order), None)
    if found is None:
        raise LinesideError(
            "order.unknown",
            f"No order {order[:64]} waits on this box.",
            effect="Nothing was changed.",
            todo="Look with `lineside order list`.",
        )
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for name, value in found.items():
        if value not in ("", {}, False):
            print(f"{name}: {value if not isinstance(value, dict) else json.dumps(value, ensure_ascii=False)}")


def cancel_order(
    order: Wanted,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the journal.")],
    person: Person = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Take an order off the list, with a reason. It can never be started.

    Example: lineside order cancel ORD-17 --reason "ordered twice" --person ana --box /var/lib/lineside/box
    """
    from edge.wire import CancelOrder

    async def cancel(desk: DeskClient) -> dict[str, Any]:
        await _log_in(desk, person)
        await desk.ask(CancelOrder(id=uuid4().hex, order=order, reason=reason))
        return await _orders(desk)

    _say(_run(box, cancel), as_json)


def _run(box: Path, ask: Callable[[DeskClient], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    from edge.config import read_config
    from edge.desk_client import connect

    config = read_config(box)

    async def talk() -> dict[str, Any]:
        async with connect(config.desk_socket) as desk:
            return await ask(desk)

    return asyncio.run(talk())


async def _orders(desk: DeskClient) -> dict[str, Any]:
    from edge.wire import AskStatus

    return {"orders": (await desk.ask(AskStatus(id=uuid4().hex)))["picture"]["orders"]}


async def _log_in(desk: DeskClient, person: str) -> None:
    from edge.wire import LogIn

    if not person:
        raise LinesideError(
            "order.person",
            "Nobody gives this, and no hub signed it.",
            effect="Nothing was changed.",
            todo="Say who you are: --person NAME.",
        )
    pin = typer.prompt("PIN", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    await desk.ask(LogIn(id=uuid4().hex, person=person, pin=pin[:64]))


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for one in found["orders"]:
        due = f"due {one['due']}" if one["due"] else ""
        training = "TRAINING" if one["training"] else ""
        print(
            "  ".join(part for part in (one["order"], one["title"], one["number"], due, training, one["why"]) if part)
        )
    if not found["orders"]:
        print("No order waits.")
