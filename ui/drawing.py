"""Values, durations, gauges and rows as text. Pure: words and facts in, `Content` out."""

from __future__ import annotations

import math
from typing import Final

from textual.content import Content

from edge.wire import BatchCard, Picture, ReadingView, StepCard, StepLine, Strip
from ui.locale import Words

STATE_MARK: Final = {
    "idle": "·",
    "running": "▶",
    "pausing": "‖",
    "paused": "‖",
    "holding": "‖",
    "held": "‖",
    "restarting": "▶",
    "stopping": "■",
    "stopped": "■",
    "aborting": "✖",
    "aborted": "✖",
    "complete": "✔",
}
STEP_MARK: Final = {"todo": "·", "active": "▶", "done": "✔", "ended": "✖", "skipped": "»"}
UNIT_SIGNS: Final = {
    "degC": "°C",
    "degF": "°F",
    "uL": "µL",
    "1/min": "min⁻¹",
    "1/mL": "/mL",
    "1e6/mL": "×10⁶/mL",
    "1e6": "×10⁶",
}
STATE_TONE: Final = {"running": "go", "restarting": "go", "complete": "go", "aborted": "stop", "aborting": "stop"}
ENDED: Final = frozenset({"complete", "stopped", "aborted"})


def tone(state: str) -> str:
    """go, stop or wait: which of the three families of colour a state belongs to."""
    return STATE_TONE.get(state, "wait")


def unit_sign(unit: str) -> str:
    """A unit as it is written for people."""
    return "" if unit == "1" else UNIT_SIGNS.get(unit, unit)  # a count is a number


def quantity(value: str, unit: str) -> str:
    """A value with its unit for people; the unit may be empty."""
    return f"{value} {unit_sign(unit)}".strip()


def number(value: float) -> str:
    """A number without needless digits."""
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.6g}"


def span(words: Words, seconds: float) -> str:
    """A duration in its two largest units."""
    whole = max(0, math.floor(seconds))
    if whole < 60:
        return words("time.s", s=whole)
    if whole < 3600:
        return words("time.min", m=whole // 60, s=whole % 60)
    if whole < 86400:
        return words("time.h", h=whole // 3600, m=whole % 3600 // 60)
    return words("time.d", d=whole // 86400, h=whole % 86400 // 3600)


def moment(utc: str) -> str:
    """Day and minute of a time, with its zone: the clock on the wall may show another."""
    return f"{utc[:10]} {utc[11:16]} UTC"


def clock_time(utc: str) -> str:
    """Hours and minutes of an ISO 8601 time, with its zone; empty for none."""
    return f"{utc[11:16]}Z" if len(utc) >= 16 else ""


def limit(words: Words, low: float | None, high: float | None, unit: str) -> str:
    """A limit in words; empty when both ends are open."""
    sign = unit_sign(unit)
    if low is not None and high is not None:
        text = words("step.limit.between", low=number(low), high=number(high), unit=sign)
    elif low is not None:
        text = words("step.limit.low", low=number(low), unit=sign)
    elif high is not None:
        text = words("step.limit.high", high=number(high), unit=sign)
    else:
        return ""
    return text.strip()


def verdict(words: Words, reading: ReadingView) -> Content:
    """A reading's quality and, when that is good, where it stands to its limit: always a sign and a word."""
    if reading.quality != "good" or isinstance(reading.value, str) or reading.value is None:
        style = {"good": "$success", "uncertain": "$warning", "bad": "$error"}[reading.quality]
        text = words(f"quality.{reading.quality}")
        return Content.assemble((f"{text}: {reading.detail}" if reading.detail else text, f"bold {style}"))
    if reading.high is not None and reading.value > reading.high:
        return Content.assemble((words("limit.above"), "bold $error"))
    if reading.low is not None and reading.value < reading.low:
        return Content.assemble((words("limit.below"), "bold $error"))
    if reading.low is None and reading.high is None:
        return Content.assemble((words("quality.good"), "$success"))
    return Content.assemble((words("limit.within"), "$success"))


def value_text(words: Words, reading: ReadingView) -> str:
    """A reading with its unit."""
    if reading.value is None and not reading.text:
        return words("no_value")
    return f"{reading.text} {unit_sign(reading.unit)}".strip()


def gauge(reading: ReadingView, width: int) -> Content:
    """Where the value stands in its limit; a value outside stands outside the brackets. Empty without both ends."""
    low, high, value = reading.low, reading.high, reading.value
    if low is None or high is None or high <= low or width < 20:
        return Content("")
    left, right = number(low), number(high)
    cells = width - len(left) - len(right) - 2
    edge = max(2, cells // 8)
    first, last = edge, cells - 1 - edge
    bar = ["╌"] * first + ["┣"] + ["━"] * (last - first - 1) + ["┫"] + ["╌"] * edge
    spot = -1
    if reading.quality == "good" and isinstance(value, int | float) and math.isfinite(value):
        spot = round(first + (value - low) / (high - low) * (last - first))
        spot = min(max(spot, 0), cells - 1)
    parts: list[tuple[str, str]] = [(f"{left} ", "$quiet")]
    outside = spot >= 0 and isinstance(value, int | float) and not low <= value <= high
    for index, sign in enumerate(bar):
        if index == spot:
            parts.append(("●" if not outside else "◆", "bold $error" if outside else "bold $success"))
        else:
            parts.append((sign, "$primary" if first <= index <= last else "$faint"))
    parts.append((f" {right}", "$quiet"))
    return Content.assemble(*parts)


def progress(words: Words, card: StepCard, elapsed_s: float, width: int) -> Content:
    """Elapsed, total and what is left, with a bar. Empty for a step without a duration."""
    if card.duration_s <= 0:
        return Content("")
    share = min(1.0, max(0.0, elapsed_s / card.duration_s))
    left_s = card.duration_s - elapsed_s
    tail = words("step.left", left=span(words, math.ceil(left_s))) if left_s > 0 else words("step.over")
    text = words("step.progress", elapsed=span(words, elapsed_s), duration=span(words, card.duration_s))
    cells = max(10, width)
    done = round(cells * share)
    return Content.assemble(
        ("━" * done, "bold $primary"),
        ("─" * (cells - done), "$faint"),
        "\n",
        (f"{share * 100:.0f} %", "bold $primary"),
        (f"  {text}", ""),
        (f"  ·  {tail}", "$quiet"),
    )


def strip(words: Words, strip: Strip, width: int) -> Content:
    """The safety strip in the most telling form that fits: saved, copied, hub, and the loss equation."""
    sync, made = strip.sync, strip.made
    saved = (
        "strip.saved" if strip.saved == made else "strip.saving",
        "$success" if strip.saved == made else "$warning",
    )
    copied = {"off": ("strip.copied.off", "$quiet"), "failed": ("strip.copied.failed", "bold $error")}.get(
        sync.copied,
        ("strip.copied.ok", "$success") if sync.copied_seq >= made else ("strip.copied.behind", "$warning"),
    )
    away = sync.hub == "away"
    hub = {
        "off": ("strip.hub.off", "$quiet"),
        "never": ("strip.hub.never", "bold $warning"),
        "away": ("strip.hub.away", "bold $warning"),
    }.get(sync.hub, ("strip.hub.connected", "$success") if not strip.pending else ("strip.hub.sending", "$primary"))
    facts = {
        "made": made,
        "saved": strip.saved,
        "seq": sync.copied_seq,
        "received": sync.received_seq,
        "pending": strip.pending,
        "since": clock_time(sync.received_utc) or "?",
    }
    brief = f"strip.short.{hub[0].removeprefix('strip.')}"
    forms = [(hub[0], "strip.equation", ""), (hub[0], "strip.equation.short", "")]
    if away:
        forms += [(brief, "strip.equation.short", "")]
    forms += [(hub[0], "", ""), (brief, "", ""), (brief, "", "short.")]
    if sync.hub == "off":
        forms = forms[-3:]
    for hub_key, equation, short in forms:
        cells = [(words(f"strip.{short}{key.removeprefix('strip.')}", **facts), sign) for key, sign in (saved, copied)]
        cells.append((words(hub_key, **facts), hub[1]))
        if equation:
            cells.append((words(equation, **facts), "$quiet"))
        parts: list[tuple[str, str]] = []
        for text, style in cells:
            parts += [("  │  " if parts and width > 100 else " │ " if parts else "", "$faint"), (text, style)]
        row = Content.assemble(*parts)
        if row.cell_length <= width:
            break
    return row


def header(words: Words, picture: Picture, batch: BatchCard | None, width: int) -> Content:
    """Unit, batch, state, person, clock quality; the first of them gives way when room is short."""
    clock = Content.assemble(
        (clock_time(picture.utc), "$quiet"),
        " ",
        (words(f"clock.{picture.clock}"), "$success" if picture.clock == "synced" else "bold $warning"),
    )
    person = Content.assemble((picture.person.name if picture.person else words("nobody"), "bold"))
    right = Content.assemble("  ", person, "  ", clock)
    if batch is None:
        left = Content.assemble((words("product"), "bold $primary"), ("  " + picture.box, "$quiet"))
    else:
        units = " ".join(dict.fromkeys(batch.units.values())) or picture.box
        state = Content.assemble(
            (f" {STATE_MARK[batch.state]} {words(f'state.{batch.state}')} ", f"bold {style(batch.state)} reverse")
        )
        speed = f" ×{number(batch.speed)}" if batch.speed != 1 else ""
        room = width - right.cell_length - state.cell_length - len(speed) - 3
        full = Content.assemble((units, "$quiet"), "  ", (batch.batch, "bold"))
        name = full if full.cell_length <= room else Content.assemble((batch.batch, "bold"))
        if batch.training:  # its number says it too, and whatever else gives way, this does not
            name = Content.assemble((f" ◆ {batch.batch} ", "bold $warning reverse"))
        left = Content.assemble(name.truncate(max(4, room), ellipsis=True), "  ", state, (speed, "bold $warning"))
    gap = max(1, width - left.cell_length - right.cell_length)
    return Content.assemble(left, " " * gap, right)


def style(state: str) -> str:
    """The colour of a batch state."""
    return {"go": "$success", "stop": "$error", "wait": "$warning"}[tone(state)]


def step_list(steps: tuple[StepLine, ...], width: int, rows: int) -> Content:
    """The steps around the active one, each with its mark."""
    active = next((i for i, line in enumerate(steps) if line.state == "active"), None)
    if active is None:
        active = next((i for i, line in enumerate(steps) if line.state == "todo"), len(steps) - 1)
    first = max(0, min(active - rows // 3, len(steps) - rows))
    parts: list[Content] = []
    looks = {"active": "bold $primary", "done": "$quiet", "ended": "$error", "skipped": "$quiet", "todo": ""}
    for line in steps[first : first + rows]:
        dagger = " †" if line.placeholder else ""
        note = f" ({line.note})" if line.note else ""
        text = Content(f"{STEP_MARK[line.state]} {line.step}{note} {line.title}")
        text = text.truncate(max(8, width - len(dagger)), ellipsis=True)
        parts.append(Content.assemble((text.plain, looks[line.state]), (dagger, "$warning"), "\n"))
    return Content.assemble(*parts)
