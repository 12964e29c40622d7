"""What the campaign runs, in the order of its rows. `docs/reference/campaign.md` says the same in words."""

from __future__ import annotations

from tests.campaign import (
    Part,
    clocks,
    devices,
    disk,
    drill,
    engine,
    flips,
    kills,
    line,
    parsers,
    power,
    refusals,
    sync,
    trust,
)

PARTS: tuple[Part, ...] = (
    power.POWER_CUT,
    line.POWER_CUT,
    engine.POWER_CUT,
    engine.POWER_CUT_CALLS,
    line.SCHEDULES,
    power.REFUSAL,
    *refusals.PARTS,
    kills.WRITER,
    kills.RUNTIME,
    kills.CART_B1,
    kills.MAB_FB,
    kills.FOLLOWER,
    kills.HUB,
    kills.SCREEN,
    *flips.PARTS,
    sync.NETWORK,
    sync.STORE,
    *devices.PARTS,
    engine.UNKNOWN,
    engine.UNKNOWN_CALLS,
    *clocks.PARTS,
    trust.CERTIFICATES,
    *parsers.PARTS,
    disk.FULL_DISK,
    drill.DRILL,
)
