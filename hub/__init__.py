"""The hub: one place that holds what many boxes made, and shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path


async def run_hub(folder: Path, listen: str, stop: asyncio.Event) -> None:
    """Run the hub of `folder` until `stop`; `listen` (HOST:PORT) goes before hub.toml's when it is not empty."""
    from hub.app import run

    await run(folder, listen, stop)
