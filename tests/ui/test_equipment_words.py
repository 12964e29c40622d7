"""What the screen says of a connection."""

from __future__ import annotations

from tests.ui.conftest import SMALL, Opener
from tests.ui.scripted import make_picture

REFUSED = "The certificate of plc-7 expired on 2026-11-01. Ask for a new certificate. (opcua.expired)"


async def test_a_connection_that_is_not_encrypted_says_so_and_one_that_is_refused_says_why(open_screen: Opener) -> None:
    connections = {"bioreactor": "connected, not encrypted", "pump": "connected", "plc": REFUSED}
    async with open_screen(make_picture(connections=connections), size=SMALL) as screen:
        await screen.at("home")
        shown = " ".join(screen.text().split())
        assert "▲ bioreactor: connected, not encrypted" in shown
        assert "✔ pump: connected ✖" in shown
        assert "expired on 2026-11-01" in shown


async def test_who_starts_a_batch_is_told_of_a_connection_that_is_not_encrypted(open_screen: Opener) -> None:
    connections = {"bioreactor": "connected, not encrypted", "pump": "connected"}
    async with open_screen(make_picture(connections=connections), size=SMALL) as screen:
        await screen.at("home")
        await screen.pilot.press("f8")
        await screen.at("start")
        await screen.until(lambda: screen.says("▲ bioreactor: connected, not encrypted"))
