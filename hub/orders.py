"""Orders, and proposals to amend a batch, that the hub signs, each for one box: sent over the broker, or carried on a
stick."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Final

from edge import mqtt
from edge.core.errors import LinesideError
from edge.core.orders import Order, read_order, signed
from edge.core.proposals import is_proposal, read_proposal
from edge.core.record import fingerprint
from edge.identity import read_public
from hub.config import read_hub, read_key

SENT_S: Final = 30.0


def sign_order(folder: Path, device: str, given: bytes) -> tuple[bytes, str]:
    """The order `given` (JSON, or the text of its code), or the proposal, signed for the box whose key is `device`.pub,
    and the topic on which it is sent.

    Raises `order.*`, `proposal.*`, `config.*`, and what reading keys raises."""
    config = read_hub(folder)
    order = read_proposal(given) if is_proposal(given) else read_order(given)
    if Path(device).name != device:
        raise LinesideError(
            "order.device", f"{device[:64]!r} is no box of this hub.", todo="Name it as its file in the devices folder."
        )
    public = read_public(config.devices / f"{device}.pub")
    told = order.order if isinstance(order, Order) else order.proposal
    name = hashlib.sha256(told.encode()).hexdigest()[:16]  # an id may hold what a topic may not
    return signed(order, public, read_key(config)), f"lineside/1/down/{fingerprint(public)}/order/{name}"


async def send_order(folder: Path, topic: str, payload: bytes) -> None:
    """Leave it with the broker, retained: the box gets it whenever it is there. Raises `mqtt.*`."""
    config = read_hub(folder)
    address = mqtt.read_address(config.broker.url, config.broker.ca)
    connected = asyncio.Event()
    async with mqtt.session(address, f"lineside-order-{topic[-16:]}", on_change=connected.set) as link:
        try:
            async with asyncio.timeout(SENT_S):
                while not link.connected:
                    await connected.wait()
                    connected.clear()
                await link.publish(topic, payload, retain=True)
        except TimeoutError as error:
            raise LinesideError(
                "mqtt.away",
                f"The broker did not take the order within {SENT_S:g} s: {link.state}",
                effect="Nothing was sent.",
                todo="Look whether the broker runs, or write the order to a file with --out.",
            ) from error
