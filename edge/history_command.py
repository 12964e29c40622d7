"""`lineside history`: process values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge.core.errors import LinesideError
from edge.terminal import (
    EXIT_FOUND,
    AsJson,
    Box,
    nothing,
    progress_of_parts,
)

if TYPE_CHECKING:
    pass


app = typer.Typer(no_args_is_help=True, help="Process values: what the equipment showed, over time.")


TagName = Annotated[str, typer.Argument(help="The tag's full name, for example BR-1.temperature.")]


From = Annotated[
    str, typer.Option("--from", help="From this time on, for example 2026-11-22T08:30Z; an hour if empty.")
]


To = Annotated[str, typer.Option("--to", help="Up to this time; the newest value when empty.")]


@app.command("tags")
def history_tags(box: Box = Path(), as_json: AsJson = False) -> None:
    """List the tags of which values are stored.

    Example: lineside history tags --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        infos = reader.tags()
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "tag": info.series.tag,
                        "unit": info.series.unit,
                        "resolution": info.series.resolution,
                        "windows": info.windows,
                        "samples": info.samples,
                    }
                    for info in infos
                ]
            )
        )
        return
    for info in infos:
        kept = f"in steps of {info.series.resolution} {info.series.unit}" if info.series.resolution else "bit by bit"
        print(f"{info.series.tag:<32} {info.samples:>12,} samples in {info.windows:,} closed windows, {kept}")


@app.command("show")
def history_show(
    tag: TagName, box: Box = Path(), from_utc: From = "", to_utc: To = "", as_json: AsJson = False
) -> None:
    """Show every stored value of a tag with its quality, and the gaps. With --json one object a line.

    Example: lineside history show BR-1.temperature --from 2026-11-22T08:30Z --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.history import HistoryReader, utc_text
    from edge.sketch import facts, span

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        asked = span(reader, from_utc, to_utc)
        for sample in reader.range(tag, *asked):
            said = facts(sample)
            if as_json:
                print(json.dumps(said, ensure_ascii=False))
            else:
                print(f"{said['utc']}  {said['value']!s:>16}  {said['quality']:<9}  {said['detail']}".rstrip())
        for gap in reader.gaps(*asked):
            if as_json:
                print(json.dumps({"gap": asdict(gap)}))
            else:
                print(f"gap from {utc_text(gap.from_us)} to {utc_text(gap.to_us)}: {gap.scope}, {gap.why}")


@app.command("plot")
def history_plot(
    tag: TagName,
    box: Box = Path(),
    from_utc: From = "",
    to_utc: To = "",
    points: Annotated[int, typer.Option(help="How many columns.", min=2, max=10_000)] = 72,
    height: Annotated[int, typer.Option(help="How many lines.", min=4, max=100)] = 16,
    as_json: AsJson = False,
) -> None:
    """Plot a tag: lowest to highest in each column, so that no spike is lost.

    Example: lineside history plot BR-1.temperature --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.config import read_config
    from edge.history import HistoryReader
    from edge.sketch import drawn, span

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        buckets = reader.plot(tag, *span(reader, from_utc, to_utc), points)
        units = {info.series.unit for info in reader.tags() if info.series.tag == tag}
    if as_json:
        print(json.dumps([asdict(bucket) for bucket in buckets]))
        return
    print(f"{tag}  ({', '.join(sorted(units)) or 'no unit'})")
    print("\n".join(drawn(buckets, ", ".join(sorted(units)), height)))


@app.command("export")
def history_export(
    tag: TagName,
    target: Annotated[Path, typer.Argument(help="The CSV file to make; it must not exist.")],
    box: Box = Path(),
    from_utc: From = "",
    to_utc: To = "",
) -> None:
    """Write every stored value of a tag into a CSV file.

    Example: lineside history export BR-1.temperature temperature.csv --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader
    from edge.sketch import span, write_csv

    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        asked = span(reader, from_utc, to_utc)
        samples = reader.range(tag, *asked)
        try:
            with target.open("x", encoding="utf-8", newline="") as out:
                count = write_csv(samples, out)
        except OSError as error:
            raise LinesideError(
                "values.export",
                f"{target} cannot be written: {error.strerror}.",
                todo="Name a file that does not exist, in a folder that you may write to.",
            ) from error
    print(f"{target}: {count:,} values.")


@app.command("copy")
def history_copy(
    target: Annotated[Path, typer.Argument(help="The copy to make; it must not exist.")], box: Box = Path()
) -> None:
    """Copy all process values into one file, also while the box runs: beside a backup that was made without them.

    To go back to it, put it in the place of state/history.db before the runtime starts.

    Example: lineside history copy /media/stick/history.db --box /etc/lineside
    """
    from edge.config import read_config
    from edge.history import HistoryReader

    tell = progress_of_parts()
    with HistoryReader(read_config(box).state_dir / "history.db") as reader:
        reader.copy(target, progress=lambda done, total: tell("bytes copied", done, total))
    print(f"{target}: {target.stat().st_size:,} bytes.")


@app.command("verify")
def history_verify(box: Box = Path(), as_json: AsJson = False) -> None:
    """Compute every window's root anew and compare it with journal and archive. Exit 1 when something does not hold.

    A window that the journal names and that is not stored does not hold either, unless the box was restored since.

    Example: lineside history verify --box /etc/lineside
    """
    from dataclasses import asdict

    from edge.archive import record_of
    from edge.config import read_config
    from edge.history import verify_values

    config = read_config(box)
    tell: Callable[[str, int, int], object] = nothing if as_json else progress_of_parts()
    with record_of(config) as record:
        path = config.state_dir / "history.db"
        result = verify_values(path, record, progress=lambda done, total: tell("windows verified", done, total))
    if as_json:
        print(json.dumps({"ok": result.ok, **asdict(result)}))
    else:
        for finding in result.findings:
            print(finding)
        for missing in result.missing:
            print(missing)
        if result.left_out:
            print(result.left_out)
        print(
            f"{result.samples:,} values in {result.windows:,} windows, {result.anchored:,} of them with a row in "
            "journal or archive."
        )
        print("Everything that is stored holds." if result.ok else "Something does not hold.")
    if not result.ok:
        raise typer.Exit(EXIT_FOUND)
