"""What people enter and scan in a batch of MAB-FB: every value within its limit, glucose missing on two days."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from edge import wire
from edge.core.recipe.model import Record, Step

VALUES: Final[Mapping[str, str]] = {
    "hours_since_cleaning": "10", "test_start": "50", "test_end": "49", "cal_slope": "98", "cal_offset": "-3",
    "cal_check": "7.0", "do_zero": "0", "do_span": "100", "material_due": "90", "volume": "120",
    "filter_wetted": "wetted through", "bubble_point": "3.6", "medium_look": "clear", "inoculum_density": "6",
    "inoculum_viability": "98", "inoculum_given": "10.9", "density_at_start_counted": "0.5", "first_count": "2.0",
    "second_count": "2.1", "viability_counted": "97", "glucose": "2.5", "glucose_after": "5",
    "harvested": "126", "titer": "4", "medium_difference": "10",
}  # fmt: skip
"""What people enter, and what they choose, when the culture takes two days."""
LONGER: Final[Mapping[str, str]] = {"glucose": "4.0", "harvested": "172"}
"""What is otherwise when it takes all its days."""
HUNGRY: Final = (4, 8)
"""The days on which the glucose is nearly gone."""
CODE: Final = "code beginning with "


def entry(step: Step, card: wire.StepCard) -> str:
    """What is typed or scanned where the picture shows this."""
    if card.asks == "scan":
        return f"{card.expected.removeprefix(CODE)}1" if card.expected.startswith(CODE) else card.expected
    name = step.name if isinstance(step, Record) else card.part
    values = VALUES | LONGER | ({"glucose": VALUES["glucose"]} if card.iteration in HUNGRY else {})
    least = card.choices[0] if card.choices else "1" if card.low is None else f"{card.low:g}"
    return values.get(name) or ("0" if name.endswith(".void") else least)
