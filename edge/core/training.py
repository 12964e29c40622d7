"""Training batches: the same recipes, and nothing of them can become a product's record.

A training batch is marked in the row that starts it, and by its number, which no other batch can have. It is for no
patient, uses no unit that the plant does not give for training, and what was made in it is refused everywhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from edge.core.commands import StartBatch
from edge.core.errors import LinesideError
from edge.core.numbers import TRAINING_PREFIX

CODE: Final = "TRAINING"
"""What is scanned where the recipe wants a patient identity, and the order of a training batch without one."""
LABEL: Final[Mapping[str, str]] = MappingProxyType({CODE: "Not for use"})
"""The first line of every label that a training batch prints."""
FROM_TRAINING: Final = "This comes from a training batch; it is no material. Nothing was started."


def looks_like_training(text: str) -> bool:
    """True for what only a training batch may be called, or its material bear."""
    text = text.strip().upper()
    return text == CODE or text.startswith(TRAINING_PREFIX)


def refuse_training_number(asked: StartBatch) -> None:
    """Raise when a batch that is no training would be called like one."""
    if looks_like_training(asked.batch) or looks_like_training(asked.order):
        raise LinesideError(
            "batch.training_number",
            f"{(asked.batch if looks_like_training(asked.batch) else asked.order)[:64]} is for training; this batch "
            "is none.",
            todo="Give batch and order ids of their own, or start it as training.",
        )


def as_training(asked: StartBatch, number: str, *, with_patient: bool) -> StartBatch:
    """A training batch as it is started: with this number of the box's, and for nobody."""
    if asked.patient.strip():
        raise LinesideError(
            "training.patient",
            "A training batch is for no patient, and a patient identity was given.",
            todo=f"Leave it out. Where the recipe asks for it, the trainee scans the code {CODE}.",
        )
    if asked.batch.strip():
        raise LinesideError(
            "training.number",
            "A training batch gets its number from the box, and a number was given.",
            todo="Leave the batch number out.",
        )
    return replace(asked, batch=number, order=asked.order.strip() or CODE, patient=CODE if with_patient else "")
