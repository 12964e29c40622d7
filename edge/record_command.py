"""`lineside journal`, `batch`, `archive` and `views`: what a box has recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edge.core.errors import LinesideError
from edge.terminal import (
    EXIT_FOUND,
    AsJson,
    Box,
    progress,
    progress_of_parts,
)

if TYPE_CHECKING:
    from edge.config import Archive, Config
    from edge.core.review import AsBuilt
    from edge.journal import ShownRow


journal_app = typer.Typer(no_args_is_help=True, help="The journal of a box.")


batch_app = typer.Typer(no_args_is_help=True, help="Batches and their as-built records.")


archive_app = typer.Typer(no_args_is_help=True, help="The archive: old rows of the journal, in signed segments.")


views_app = typer.Typer(no_args_is_help=True, help="The views: what the journal says, for search and SQLite tools.")


JournalPath = Annotated[Path, typer.Argument(help="journal.db, of a running box or a copy.")]


@journal_app.command("verify")
def journal_verify(
    path: JournalPath,
    expect_head: Annotated[str, typer.Option(help="SEQ:HASH that the journal must reach, from a receipt.")] = "",
    as_json: AsJson = False,
) -> None:
    """Verify the hash chain: says what holds, or names the first row that does not. Exit code 1 when one does not.

    Example: lineside journal verify state/journal.db
    """
    from edge.journal import verify_journal

    seq, _, row_hash = expect_head.partition(":")
    try:
        expected = (int(seq), bytes.fromhex(row_hash)) if expect_head else None
    except ValueError as error:
        raise LinesideError(
            "journal.expected_head", f"{expect_head[:100]!r} is not SEQ:HASH.", todo="Copy both from the receipt."
        ) from error
    report = verify_journal(path, expect_head=expected, progress=None if as_json else progress("verified"))
    if as_json:
        facts = {"ok": report.ok, "journal": report.journal, "first_seq": report.first_seq, "rows": report.rows}
        facts["head_hash"] = report.head_hash
        fault = report.fault
        print(json.dumps({**facts, "fault": {"row": fault.seq, "why": fault.why} if fault else None}))
    elif report.fault:
        print(f"DOES NOT HOLD. {report.fault.why} Rows before it: {report.rows}, all of which hold.")
    else:
        archived = f" Rows before {report.first_seq} were archived." if report.first_seq > 1 else ""
        print(f"All {report.rows} rows hold.{archived} Head: row {report.head_seq}, {report.head_hash}")
    if not report.ok:
        raise typer.Exit(EXIT_FOUND)


@journal_app.command("show")
def journal_show(
    path: JournalPath,
    after: Annotated[int, typer.Option(help="Show rows after this number.")] = 0,
    limit: Annotated[int, typer.Option(help="Show at most so many rows.", min=1, max=100_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show rows as they are.

    Example: lineside journal show state/journal.db --after 100 --limit 20
    """
    from edge.journal import show_rows

    for row in show_rows(path, after, limit):
        facts = {"seq": row.seq, "hash": row.hash, "epoch": row.epoch, "row": row.says or row.text}
        print(json.dumps(facts, ensure_ascii=False) if as_json else _line(row))


def _line(row: ShownRow) -> str:
    """One row for reading: number, time, who, what."""
    if row.says is None:
        return f"{row.seq:>6}  {row.text}"
    says = row.says
    facts = "  ".join(f"{name}={value}" for name, value in says.get("facts", {}).items() if value not in ("", None))
    utc = str(says.get("at", {}).get("utc", ""))[:23]
    return (
        f"{row.seq:>6}  {utc}  {says.get('actor', ''):<9} {says.get('kind', ''):<18} {says.get('batch', '')}  {facts}"
    )


def _records(box: Path) -> dict[str, AsBuilt]:
    """The as-built records, folded from the journal alone; it may belong to a running box."""
    from edge.archive import Record, record_of
    from edge.config import read_config
    from edge.core.events import RowBody, decode
    from edge.core.review import as_built

    def bodies(reader: Record) -> Iterator[tuple[int, RowBody]]:
        seq = 0
        while rows := reader.rows(seq, 1000):
            seq = rows[-1].seq
            yield from ((row.seq, decode(row.body)) for row in rows)

    with record_of(read_config(box)) as reader:
        return as_built(bodies(reader))


def built_record(batch: str, box: Path) -> AsBuilt:
    record = _records(box).get(batch)
    if record is None:
        raise LinesideError(
            "batch.unknown", f"The journal has no batch {batch[:64]}.", todo="Look with `lineside batch list`."
        )
    return record


@batch_app.command("list")
def batch_list(
    training: Annotated[bool, typer.Option("--training", help="Training batches, and no others.")] = False,
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """List the batches of a box, without those for training.

    Example: lineside batch list --box /etc/lineside
    """
    records = {batch: record for batch, record in _records(box).items() if record.training is training}
    if as_json:
        fields = ("batch", "order", "recipe", "version", "state", "started_utc", "ended_utc")
        print(json.dumps([{field: getattr(r, field) for field in fields} for r in records.values()]))
        return
    for record in records.values():
        print(f"{record.batch}  {record.order}  {record.recipe} {record.version}  {record.state}  {record.started_utc}")


@batch_app.command("show")
def batch_show(
    batch: Annotated[str, typer.Argument(help="The batch's id.")], box: Box = Path(), as_json: AsJson = False
) -> None:
    """Show the as-built record of one batch, rebuilt from the journal alone.

    Example: lineside batch show B-001 --box /etc/lineside
    """
    from edge.core.review import as_text

    record = built_record(batch, box)
    if as_json:
        print(json.dumps(record.as_json(), ensure_ascii=False))
        return
    print(as_text(record))


@archive_app.command("now")
def archive_now(box: Box = Path(), as_json: AsJson = False) -> None:
    """Archive all sealed rows that need not stay in the journal, however few; the follower waits until they are many.

    Takes nothing out of the journal: the follower asks the runtime for that. The box may run.

    Example: lineside archive now --box /var/lib/lineside/box
    """
    from edge.archive import Segment, archive_next
    from edge.clock import SystemClock
    from edge.config import read_config
    from edge.identity import DeviceKey

    config = read_config(box)
    settings, signer = _archive(config), DeviceKey.load(config.device_key)
    made: list[Segment] = []
    while segment := archive_next(config, settings, signer, SystemClock().utc(), rows_min=1):
        made.append(segment)
        if not as_json:
            print(f"{segment.path}: rows {segment.first_seq} to {segment.last_seq}, read back and verified.")
    if as_json:
        print(json.dumps({"ok": True, "segments": [segment.as_json() for segment in made]}))
    elif not made:
        print("Nothing to archive: every row is to stay in the journal, is archived, or is not sealed yet.")


@archive_app.command("list")
def archive_list(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the segments of a box's archive, as they name themselves; `verify` reads them.

    Example: lineside archive list --box /var/lib/lineside/box
    """
    from edge.archive import list_segments
    from edge.config import read_config
    from edge.journal import JournalReader

    config = read_config(box)
    with JournalReader(config.state_dir / "journal.db") as reader:
        listed = list_segments(_archive(config).path, reader.journal_id)
    if as_json:
        print(json.dumps({"segments": [segment.as_json() for segment in listed]}))
        return
    for segment in listed:
        print(f"rows {segment.first_seq:>12,} to {segment.last_seq:>12,}  {segment.file_bytes:>11,} B  {segment.path}")


@archive_app.command("verify")
def archive_verify(box: Box = Path(), as_json: AsJson = False) -> None:
    """Read every segment from its medium, to the last row, and see that they are one chain up to the journal's rows.

    Exit code 1 when one does not hold.

    Example: lineside archive verify --box /var/lib/lineside/box
    """
    from edge.archive import verify_archive
    from edge.config import read_config

    config = read_config(box)
    settings = _archive(config)
    try:
        rows = verify_archive(config, settings, progress=None if as_json else progress_of_parts())
    except LinesideError as refusal:
        if as_json:
            print(json.dumps({"ok": False, "error": refusal.as_json()}))
        else:
            print(f"DOES NOT HOLD. {refusal}")
        raise typer.Exit(EXIT_FOUND) from refusal
    if as_json:
        print(json.dumps({"ok": True, "rows": rows}))
    else:
        print(f"All {rows} archived rows hold, and the journal goes on from them.")


@archive_app.command("status")
def archive_status(box: Box = Path(), as_json: AsJson = False) -> None:
    """Say what is archived, what is due, and from which row on the journal has its rows itself.

    Example: lineside archive status --box /var/lib/lineside/box
    """
    from edge.archive import status
    from edge.clock import SystemClock
    from edge.config import read_config

    config = read_config(box)
    said = status(config, _archive(config), SystemClock().utc())
    print(json.dumps(said.as_json()) if as_json else said)


def _archive(config: Config) -> Archive:
    if config.archive is None:
        raise LinesideError(
            "archive.not_set",
            "This box keeps no archive: every row stays in its journal.",
            todo="To archive old rows, add [archive] to lineside.toml; see docs/how-to/archive.md.",
        )
    return config.archive


@views_app.command("rebuild")
def views_rebuild(box: Box = Path(), as_json: AsJson = False) -> None:
    """Make views.db anew from the journal, also while the box runs. Searches meanwhile say how far it is.

    Example: lineside views rebuild --box /etc/lineside
    """
    from edge.archive import record_of
    from edge.config import read_config
    from edge.views import ROWS_AT_ONCE, Views

    config = read_config(box)
    state = config.state_dir
    tell = progress("applied")
    with record_of(config) as reader, Views(state / "views.db") as views:
        views.begin_anew()
        made_seq, _ = reader.head()
        seq = 0
        while rows := reader.rows(seq, ROWS_AT_ONCE):
            seq = views.apply(seq, rows)
            tell(seq, max(made_seq, seq))
    if as_json:
        print(json.dumps({"as_of_seq": seq}))
    else:
        print(f"{state / 'views.db'} is made anew, as of row {seq}.")


@views_app.command("export")
def views_export(
    out: Annotated[Path, typer.Argument(help="The folder to make; nothing is overwritten.")],
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="The files' format.")] = "csv",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Write every table as a file, with a description that programs read: a Frictionless data package.

    All of it is as of one row of the journal. The box may run. Columns keep their names and types over versions: see
    docs/reference/open-data.md.

    Example: lineside views export /mnt/stick/box-7 --format json --box /etc/lineside
    """
    from edge.config import read_config
    from edge.opendata import export

    made = export(read_config(box).state_dir / "views.db", out, form)
    if as_json:
        print(json.dumps({"ok": True, "folder": str(out), "as_of_seq": made.as_of_seq, "lines": made.lines}))
        return
    for name, count in made.lines.items():
        print(f"{count:>8,}  {out / name}.{form}")
    print(f"As of row {made.as_of_seq}; described in {out / 'datapackage.json'}.")


@views_app.command("search")
def views_search(
    text: Annotated[str, typer.Argument(help="Words or numbers; each must stand in the row, also as a beginning.")],
    box: Box = Path(),
    limit: Annotated[int, typer.Option(help="Show at most so many rows, newest first.", min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Find rows by what they say, as of the row that the views have come to.

    Example: lineside views search "viability B-001" --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.views import search

    found = search(read_config(box).state_dir / "views.db", text, limit)
    if as_json:
        print(json.dumps(asdict(found), ensure_ascii=False))
        return
    for row in found.rows:
        print(f"{row.seq:>6}  {row.utc[:23]}  {row.actor:<9} {row.kind:<18} {row.batch}  {row.text}")
    print(f"{len(found.rows)} rows, as of row {found.as_of_seq}")
