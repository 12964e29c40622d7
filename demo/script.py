"""What the demo's people enter, scan and sign: a batch in which every value is within its limit."""

from __future__ import annotations

from typing import Final

from demo.rig import DIN
from edge.core.recipe.model import Record, Scan, Step

BY_ROLE: Final = {"operator": "ana", "verifier": "ben", "quality": "dot", "supervisor": "chi"}
PINS: Final = {"ana": "2580", "ben": "1470", "chi": "3690", "dot": "7410"}
LOT: Final = "2026-0417"
VALUES: Final = {
    "arrival_temperature": "4.6",
    "age_on_arrival": "21",
    "enriched_purity": "93.5",
    "enriched_recovery": "78",
    "vector_thaw_time": "12",
    "moi": "7.5",
    "car_day_5": "24.5",
    "viability": "92.1",
    "cd3": "96.4",
    "car_day_12": "31.0",
    "dose": "104",
    "label_difference": "0",
    "endotoxin": "0.35",
    "viability_thawed": "84.0",
    "endotoxin_dose": "0.8",
}
"""Record steps by the name of their value."""


def entry_for(step: Step) -> str:
    """What is typed or scanned at a step of CART-B1."""
    match step:
        case Scan():
            return DIN if step.expect == "patient" else step.prefix + LOT
        case Record() if step.type == "choice":
            return step.choices[0]
        case Record():
            return VALUES[step.name]
        case _:
            return ""
