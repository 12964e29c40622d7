"""What the box notes about its own journal, archive, copies and process values, and the erasing of an identity."""

from __future__ import annotations

from typing import Final

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.commands import facts_of
from edge.core.decision import Decision
from edge.core.errors import LinesideError
from edge.core.line import (
    SEMANTICS,
    STATE_SCHEMA,
)
from edge.core.people import Permission
from edge.core.pseudonym import is_pseudonym

PRUNE_ROWS_MAX: Final = 1_024
"""So many rows leave the journal in one transaction: about a millisecond in which no row is written. The record format
allows 4,096."""


def take_receipt(d: Decision, command: cm.TakeReceipt) -> None:
    """A row only when it says something new about a row that is neither a receipt nor a seal."""
    same = command.incarnation == d.line.incarnation
    nothing_new = command.stored_seq <= d.line.stored_seq or d.line.record_seq <= d.line.stored_seq
    if same and nothing_new:
        return
    d.emit(
        ev.ReceiptStored(
            hub=command.hub,
            incarnation=command.incarnation,
            stored_seq=command.stored_seq,
            head_hash=command.head_hash,
            receipt=command.receipt,
        )
    )


def seal_rows(d: Decision, command: cm.SealRows) -> None:
    """A row only when there is something to seal that is neither a receipt nor a seal: else they never end."""
    if d.line.record_seq > d.line.sealed_seq:
        d.emit(
            ev.Sealed(
                sealed_seq=command.seq,
                sealed_hash=command.row_hash,
                public_key=command.public_key,
                signature=command.signature,
            )
        )


def prune_rows(d: Decision, command: cm.PruneRows) -> None:
    """Only what is archived, safe, sealed, needed by no start, and older than every batch under way."""
    through, seq = command.through_seq, command.first_seq - 1
    for segment in command.segments:
        if segment.first_seq <= seq + 1 <= segment.last_seq:
            seq = segment.last_seq
    live = min((batch.started_seq for batch in d.line.live()), default=through + 1)
    for last_seq, what in (
        (seq, "verified segments of the archive"),
        (seq if command.on_medium else command.hub_safe_seq, "rows that are safe outside this box"),
        (d.line.sealed_seq, "sealed rows"),
        (command.prunable_seq, "rows that no start needs, as two checkpoints say"),
        (live - 1, "rows before the oldest batch under way"),
    ):
        if through > last_seq:
            raise LinesideError(
                "prune.too_far",
                f"Rows up to {through} cannot leave the journal: {what} end with row {last_seq}.",
                effect="They stay in the journal. Work goes on.",
                todo="Nothing, if this passes. If the journal keeps growing, see docs/how-to/archive.md.",
            )
    if not 0 < command.first_seq <= through < command.first_seq + PRUNE_ROWS_MAX:
        raise AssertionError(f"rows {command.first_seq} to {through} are no part to prune")
    d.emit(
        ev.RowsPruned(
            first_seq=command.first_seq,
            through_seq=through,
            through_hash=command.through_hash,
            safe="medium" if command.on_medium else "hub",
            receipt="" if command.on_medium else command.receipt,
            segments=[
                {"first_seq": one.first_seq, "last_seq": one.last_seq, "sha256": one.sha256}
                for one in command.segments
                if one.last_seq >= command.first_seq and one.first_seq <= through
            ],
        )
    )


def note_checkpoint(d: Decision, command: cm.NoteCheckpoint) -> None:
    d.emit(
        ev.CheckpointMade(
            folded_seq=command.folded_seq,
            schema=STATE_SCHEMA,
            semantics=SEMANTICS,
            content=command.content,
        )
    )


def note_self_check(d: Decision, command: cm.NoteSelfCheck) -> None:
    """What was found stops nothing by itself: rows of long ago say nothing against the step under way."""
    d.emit(
        ev.SelfChecked(
            rows=command.rows,
            checked_seq=command.checked_seq,
            found=list(command.found),
            left_out=list(command.left_out),
            took_s=command.took_s,
        )
    )


def note_drill(d: Decision, command: cm.NoteDrill) -> None:
    """As with a self-check: nothing stops by itself."""
    d.emit(
        ev.BackupDrilled(
            backup=command.backup,
            head_seq=command.head_seq,
            found=list(command.found),
            left_out=list(command.left_out),
            took_s=command.took_s,
        )
    )


def thin_values(d: Decision, command: cm.ThinValues) -> None:
    """Never what a batch's record stands on: the root over it must come out as it was sealed."""
    if command.record_root_after != command.record_root or command.samples_after > command.samples_before:
        raise LinesideError(
            "values.of_a_record",
            "This would change process values that belong to a batch's record.",
            effect="Nothing was thinned.",
            todo="Run `lineside history verify`; those values are kept as long as the batch's record.",
        )
    if command.tags:
        facts = facts_of(command)
        del facts["record_root_after"]
        d.emit(ev.ValuesThinned(**facts))


def erase_identity(d: Decision, command: cm.EraseIdentity) -> None:
    d.need(Permission.ERASE)
    line, reason = d.line, command.reason.strip()
    if not is_pseudonym(command.pseudonym):
        raise LinesideError(
            "vault.pseudonym",
            f"{command.pseudonym[:40]!r} is no pseudonym: a character is missing or wrong.",
            todo="Copy it from the record or from `lineside vault list`, for example P-7KQ2-M4XD-9T3H.",
        )
    if not reason:
        raise LinesideError(
            "vault.reason", "An identity is erased for a reason, and none was given.", todo="Give it with --reason."
        )
    live = next((batch for batch in line.live() if batch.patient == command.pseudonym), None)
    if live is not None:
        raise LinesideError(
            "vault.live",
            f"Batch {live.batch} is under way for this patient: every scan of the patient needs the identity.",
            todo="Erase it after the batch has ended.",
        )
    erased = ev.IdentityErased(pseudonym=command.pseudonym, reason=reason, previous_seq=line.erased_seq)
    d.emit(erased)
