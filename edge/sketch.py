"""Plots and times of process values in words and characters, for a terminal and for other programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from edge.core.errors import LinesideError
from edge.core.samples import Sample
from edge.history import Bucket, HistoryReader, utc_text, utc_us

HOUR_US: Final = 3_600_000_000
TIME_CHARS_MAX: Final = 40
_NO_VALUE: Final = {"": " ", "good": " ", "uncertain": "?", "bad": "x"}


def span(reader: HistoryReader, from_utc: str, to_utc: str) -> tuple[int, int]:
    """The asked time in microseconds; what is left empty is the last stored hour. Raises `values.time`."""
    to_us = _time(to_utc) if to_utc else reader.newest_us() + 1
    from_us = _time(from_utc) if from_utc else to_us - HOUR_US
    if from_us >= to_us:
        raise LinesideError(
            "values.time",
            f"The time ends at {utc_text(to_us)}, not after it begins at {utc_text(from_us)}.",
            todo="Give --from before --to.",
        )
    return from_us, to_us


def _time(text: str) -> int:
    found = utc_us(text) if len(text) <= TIME_CHARS_MAX else None
    if found is None:
        raise LinesideError(
            "values.time",
            f"{text[:TIME_CHARS_MAX]!r} is no time.",
            todo='Write it as in 2026-11-22T08:30:00Z, or "2026-11-22 08:30"; without a zone it is UTC.',
        )
    return found


def facts(sample: Sample) -> dict[str, Any]:
    """A sample for machines. A number that JSON does not know (NaN, infinity) is a text."""
    value = sample.value
    plain = value if not isinstance(value, float) or value - value == 0 else repr(value)
    source = None if sample.source_us is None else utc_text(sample.source_us)
    said = {"utc": utc_text(sample.at_us), "source_utc": source, "value": plain}
    return {**said, "quality": sample.quality.value, "detail": sample.detail}


def write_csv(samples: Iterable[Sample], out: TextIO) -> int:
    """One line a sample, with a header. A text that a spreadsheet would take for a formula gets an apostrophe first."""
    writer = csv.writer(out)
    writer.writerow(["utc", "source_utc", "value", "quality", "detail"])
    count = 0
    for sample in samples:
        said = facts(sample)
        writer.writerow(["" if v is None else _harmless(v) for v in said.values()])
        count += 1
    return count


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t"} else value


def drawn(buckets: Sequence[Bucket], unit: str, height: int) -> list[str]:
    """The plot as lines of text: a bar from lowest to highest in each column, a gap as "·", bad quality as "x"."""
    numbers = [n for bucket in buckets for n in (bucket.low, bucket.high) if n is not None]
    if not numbers:
        return ["No good number was stored in this time."]
    low, high = min(numbers), max(numbers)
    step = (high - low) / (height - 1) or 1.0

    def row_of(value: float) -> int:
        return round((value - low) / step)

    lines = []
    for row in range(height - 1, -1, -1):
        cells = [
            "█"
            if bucket.low is not None and bucket.high is not None and row_of(bucket.low) <= row <= row_of(bucket.high)
            else " "
            for bucket in buckets
        ]
        label = f"{low + row * step:.6g}" if row in {0, height - 1} or row == height // 2 else ""
        lines.append(f"{label:>10} │{''.join(cells)}")
    marks = ["·" if bucket.gap and bucket.low is None else _NO_VALUE[bucket.quality] for bucket in buckets]
    lines.append(f"{unit[:10]:>10} └{''.join(mark if mark != ' ' else '─' for mark in marks)}")
    first, last = utc_text(buckets[0].from_us)[:19], utc_text(buckets[-1].to_us)[:19]
    lines.append(f"{'':>11} {first}{last:>{max(len(buckets) - 19, 21)}}")
    return lines
