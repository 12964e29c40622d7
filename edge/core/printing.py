"""Labels that a printer prints: the rows that print once for each attempt, and what is said of one in doubt.

An attempt is a write like any other, keyed by batch, step, iteration and attempt: intended, sent once, and seen to be
printed or not. Nothing is printed a second time unless somebody signed that it is: as the answer to a question, or, of
labels that are there, with a reason.
"""

from __future__ import annotations

from typing import Final

from edge.core import events as ev
from edge.core.decision import Decision
from edge.core.forms import PRINT_AGAIN, label_code, label_content, open_ask
from edge.core.line import Intent, Question, tag_name
from edge.core.recipe.model import Label
from edge.core.zpl import label, layout

TRAINING_BAND: Final = "^FO10,2^A0N,24,24^FDTRAINING: Not for use^FS"
"""On top of a label whose own template has no place for it."""


def go_on(d: Decision, batch_id: str, step: Label) -> None:
    """Print, when that is what the step waits for and nothing of it is under way or asked about."""
    batch = d.line.batches[batch_id]
    run, recipe = batch.steps[step.id], d.recipe(batch)
    ask = open_ask(recipe, batch, step, run)
    busy = {one.step for one in batch.intents.values()} | {one.step for one in batch.questions.values()}
    if ask is None or ask.kind != "reading" or step.id in busy:
        return
    content = label_content(recipe, batch, step.content)
    template = step.template or layout(content)
    if batch.training and step.template:
        template = template.replace("^XA", f"^XA{TRAINING_BAND}", 1)
    value = label(template, content, label_code(recipe, batch, step), step.copies)
    attempt = int(ask.part.rpartition(" ")[2])
    d.intend(batch_id, step.id, run.iteration, attempt, tag_name(batch.units, step.printer), value)


def printed(d: Decision, batch_id: str, step: Label, intent: Intent) -> None:
    """The printer confirmed them."""
    batch = d.line.batches[batch_id]
    content = label_content(d.recipe(batch), batch, step.content)
    _count(d, batch_id, step, f"print {intent.attempt}", float(step.copies), intent.tag)
    d.emit(ev.LabelsPrinted(batch=batch_id, step=step.id, content=content, printed=step.copies, printer=intent.tag))
    d.advance(batch_id, step)


def not_printed(d: Decision, batch_id: str, step: Label, intent: Intent) -> None:
    """The printer refused: there is certainly none."""
    _count(d, batch_id, step, f"print {intent.attempt}", 0.0, intent.tag)


def answered(d: Decision, batch_id: str, step: Label, question: Question, answer: str) -> None:
    """Somebody signed what became of an attempt. What came out of one in doubt is counted before anything else."""
    attempt = question.question.rpartition(".")[2]
    said = PRINT_AGAIN if answer == "again" else "printed"
    d.emit(
        ev.ValueRecorded(
            batch=batch_id, step=step.id, name=f"{step.name}.doubt {attempt}", value=said, source="answered"
        )
    )


def _count(d: Decision, batch_id: str, step: Label, part: str, count: float, source: str) -> None:
    d.emit(
        ev.ValueRecorded(batch=batch_id, step=step.id, name=f"{step.name}.{part}", value=count, unit="1", source=source)
    )
