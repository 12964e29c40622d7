"""A recipe as a procedure function chart (ISA-88): for the printer as SVG, for the terminal as words.

From the recipe alone, or with what one batch did laid over it. A chart is laid out in columns on A4 sheets (landscape,
millimetres). What is too wide or too high for a sheet is shown as a box, and drawn by itself further on.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from functools import lru_cache
from html import escape
from typing import Final, Literal

from edge.core.quick import dataclass
from edge.core.recipe.model import Branch, Recipe, Select, Step
from edge.core.recipe.read import seal
from edge.core.recipe.values import said as in_words
from edge.core.recipe.words import dagger, facts
from edge.core.review import AsBuilt, BuiltException, BuiltStep

SHEET: Final = (297.0, 210.0)
MARGIN: Final = 9.0
TOP: Final = 25.0
BOTTOM: Final = 199.0
BOX_WIDTHS: Final = (56.0, 43.0)
"""Of a step; the narrower one when branches would not fit beside each other."""
GAP: Final = 3.8
PAD: Final = 2.5
LINE: Final = 3.5
SMALL: Final = 2.5
PLAIN: Final = 2.7
LARGE: Final = 4.2
PASSES_SHOWN: Final = 3
SAMPLES: Final = "Samples beside the steps"

STRUCTURES: Final[Mapping[str, Literal["all", "one", "again", "inside"]]] = {
    "parallel": "all",
    "select": "one",
    "loop": "again",
    "call": "inside",
}
"""How the steps inside a phase are drawn: all branches at once, one of them, again and again, or in a frame."""


# The parts of a drawing ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `x` is its left end, middle or right end."""

    x: float
    y: float
    text: str
    size: float = PLAIN
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with text in it. `step` names the step that it stands for."""

    x: float
    y: float
    width: float
    height: float
    texts: tuple[Text, ...] = ()
    step: str = ""
    kind: Literal["step", "structure", "elsewhere", "notes"] = "step"
    look: Literal["plain", "done", "exception", "open", "not reached"] = "plain"
    whole: str = ""
    """The text in full, for whoever points at the box."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Round the steps of an operation or a unit procedure."""

    x: float
    y: float
    width: float
    height: float
    title: tuple[Text, ...]
    outer: bool


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points."""

    points: tuple[tuple[float, float], ...]
    thick: bool = False
    arrow: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the procedure begins or ends, or goes on in another column under the same sign."""

    x: float
    y: float
    kind: Literal["begin", "end", "sign"]
    text: str = ""


Shape = Text | Box | Frame | Path | Mark


@dataclass(frozen=True, slots=True)
class Block:
    """Shapes that belong together. The flow comes in at the top and goes out at the bottom, both in the middle."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    onward: bool = True
    """False when no line leads from its end to what stands below it."""
    target: bool = False
    """True when a line from elsewhere leads to it."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A recipe laid out: the shapes of each sheet."""

    name: str
    sheets: tuple[tuple[Shape, ...], ...]


def chart(recipe: Recipe, batch: AsBuilt | None = None) -> Chart:
    """Lay the recipe out on sheets, with what `batch` did, if it is given."""
    layout = _Layout(recipe, _Overlay(batch) if batch else None)
    return Chart(recipe.recipe, layout.sheets())


def as_svg(drawn: Chart) -> list[str]:
    """One SVG for each sheet, A4 landscape, in black and white."""
    return [_sheet_svg(drawn.name, shapes) for shapes in drawn.sheets]


# How wide text is ------------------------------------------------------------------------------------------------

# Of a letter's size: Arial's, and those of the fonts made after it. A line of these letters alone is told how long it
# is, so that it fits in another font as well.
_WIDTHS: Final[Mapping[str, float]] = {
    char: width / 1000
    for width, chars in {
        191: "'", 222: "ijl", 260: "|", 278: " !,./:;I[\\]ft", 333: "()-`r“”", 334: "{}", 355: '"', 389: "*",
        400: "°", 469: "^", 500: "Jckqsvxyz", 556: "#$0123456789?L_abdeghnopu†", 584: "+<=>~×", 611: "FTZ",
        667: "&ABEKPSVXY", 722: "CDHNRUw", 778: "GOQ", 833: "Mm", 889: "%", 944: "W", 1000: "…", 1015: "@",
    }.items()
    for char in chars
}  # fmt: skip
_BOLD: Final = 1.13
"""So much wider bold is at most, over a whole line."""


def _char_width(char: str) -> float:
    if char in _WIDTHS:
        return _WIDTHS[char]
    if unicodedata.combining(char):
        return 0.0
    if ord(char) >= 0x1F000:  # pictures
        return 1.4
    return 1.05 if unicodedata.east_asian_width(char) in "WF" or char.isupper() else 0.85


@lru_cache(maxsize=10_000)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide the text is; at most so wide, when there are letters in it that the table has not, or it is bold."""
    return sum(map(_char_width, text)) * size * (_BOLD if bold else 1.0)


def cells(text: str) -> int:
    """The columns of a terminal that the text takes."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def wrapped(text: str, room: float, measure: Callable[[str], float], most: int) -> list[str]:
    """The text in lines that fit into `room`, at most so many; what does not fit is left out behind "…"."""
    lines: list[str] = []
    line = ""
    words = deque(_clean(text).split())
    while words:
        word = words.popleft()
        longer = f"{line} {word}" if line else word
        if measure(longer) <= room:
            line = longer
            continue
        if measure(word) > room:  # longer than a line by itself
            before = f"{line} " if line else ""
            fits = _longest(word, room - measure(before), measure) or (0 if line else 1)
            line = (before + word[:fits]).rstrip()
            word = word[fits:]
        words.appendleft(word)
        if len(lines) == most - 1:
            while line and measure(f"{line}…") > room:
                line = line[:-1]
            return [*lines, f"{line}…"]
        lines.append(line)
        line = ""
    return [*lines, line] if line else lines


def _longest(word: str, room: float, measure: Callable[[str], float]) -> int:
    fits = 0
    while fits < len(word) and measure(word[: fits + 1]) <= room:
        fits += 1
    return fits


@lru_cache(maxsize=10_000)
def _clean(text: str) -> str:
    """Without what would move a terminal's cursor or is not allowed in XML: rows may hold it."""
    return "".join(
        " " if char.isspace() else char if unicodedata.category(char) not in {"Cc", "Cf", "Cs", "Cn"} else "\ufffd"
        for char in text
    )


def _lines(
    text: str, room: float, *, size: float = PLAIN, bold: bool = False, most: int = 3
) -> list[tuple[str, float, bool]]:
    return [(line, size, bold) for line in wrapped(text, room, lambda part: text_width(part, size, bold=bold), most)]


# What a batch did ------------------------------------------------------------------------------------------------


class _Overlay:
    """What one batch did at each step, in words."""

    def __init__(self, batch: AsBuilt) -> None:
        self.batch = batch
        self._steps: dict[str, list[BuiltStep]] = {}
        for step in batch.steps:
            self._steps.setdefault(step.step, []).append(step)
        self._exceptions: dict[str, list[BuiltException]] = {}
        for exception in batch.exceptions:
            self._exceptions.setdefault(exception.step, []).append(exception)

    def reached(self, step: str) -> bool:
        return step in self._steps

    def look(self, step: str) -> Literal["done", "exception", "open", "not reached"]:
        if step in self._exceptions:
            return "exception"
        built = self._steps.get(step)
        if not built or built[-1].state == "skipped":
            return "not reached"
        return "done" if built[-1].state == "done" else "open"

    def says(self, step: str) -> list[str]:
        """Times, values and exceptions of a step."""
        passes = self._steps.get(step, [])
        said = ["not reached"] if not passes else []
        if len(passes) > PASSES_SHOWN:
            said.append(f"{len(passes)} passes; the last {PASSES_SHOWN}:")
        for built in passes[-PASSES_SHOWN:]:
            said.append(self._when(built))
            said += [
                f"{datum.name.replace('_', ' ')} = {_shown(datum.value)} {datum.unit}".rstrip()
                + ("" if datum.within else " OUT OF LIMIT")
                for datum in built.data
            ]
            said += [
                f"wrote {_shown(one.value)} {one.unit} to {one.tag}: {one.outcome}"
                + (f", answered {one.answer!r}" if one.answer else "")
                for one in built.written
            ]
            said += [f"refused scan: {why}" for why in built.refused_scans]
            said += [f"signed by {one.person} as {one.role}" for one in built.signatures]
        said += [f"! {one.exception}, {one.category}: {one.what}" for one in self._exceptions.get(step, [])]
        return said

    def _when(self, built: BuiltStep) -> str:
        began, ended = _short_time(built.began_utc), _short_time(built.ended_utc)
        if built.state != "done":
            return built.state + (f", began {began}" if began else "") + (f", ended {ended}" if ended else "")
        if ended[:10] == began[:10]:
            ended = ended[11:]
        person = f" by {built.person}" if built.person else ""
        return f"✓ {began} to {ended}{person}"

    def notes(self, recipe: Recipe) -> list[str]:
        """What stands in the record beside the recipe's own steps."""
        known = recipe.steps()
        said = [
            f"{name or 'the batch'}: {line}"
            for name in dict.fromkeys([*self._steps, *self._exceptions])
            if name not in known
            for line in self.says(name)
            if line != "not reached"
        ]
        return [*said, *self.batch.dark]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short_time(utc: str) -> str:
    try:
        return datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return utc


# Layout ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cell:
    """A block in the flow, and what it belongs to: (unit procedure, operation), each as a number and a title."""

    block: Block
    inside: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class _Column:
    cells: list[_Cell]
    begins: str = ""
    """The sign under which the flow comes in from another column; empty when nothing does."""
    ends: str = ""
    after: _Cell | None = None
    """What stands before it in the flow, in another column."""


@dataclass(slots=True)
class _Layout:
    recipe: Recipe
    overlay: _Overlay | None
    _apart: deque[tuple[str, Sequence[Step]]] = field(default_factory=deque)
    """Sequences that did not fit where they belong, with their titles."""
    _targets: set[str] = field(default_factory=set)
    _made: dict[tuple[str, float], Block] = field(default_factory=dict)

    def sheets(self) -> tuple[tuple[Shape, ...], ...]:
        self._targets = {step.next for step in self.recipe.in_order() if step.next}
        columns = self._columns(self._main())
        apart: list[_Cell] = []
        number = len(self.recipe.procedure)
        while self._apart:
            title, steps = self._apart.popleft()
            apart += _section(self._blocks(steps, fits=True), (number, title))
            number += 1
        samples = self._blocks(list(self.recipe.planned().values()), fits=True)
        apart += _section([replace(one, onward=False) for one in samples], (number, SAMPLES))
        if self.overlay:
            notes = [_notes(line) for line in self.overlay.notes(self.recipe)]
            apart += _section(notes, (number + 1, "Beside the steps"))
        columns += self._columns(apart, signs=len(columns))
        return self._on_sheets(columns)

    def _main(self) -> list[_Cell]:
        found = [_Cell(_mark("begin"), ())]
        for u, procedure in enumerate(self.recipe.procedure):
            for o, operation in enumerate(procedure.operations):
                inside = ((u, procedure.unit_procedure), (o, operation.operation))
                found += [_Cell(block, inside) for block in self._blocks(operation.steps, fits=True)]
        return [*found, _Cell(_mark("end"), ())]

    # Steps

    def _blocks(self, steps: Sequence[Step], *, fits: bool, width: float = BOX_WIDTHS[0]) -> list[Block]:
        """A block for each step. With `fits`, each is small enough for a column of its own."""
        found = []
        for place, step in enumerate(steps):
            if not step.inner() or step.phase not in STRUCTURES:
                block = self._step(step, width)
            elif fits:
                block = self._that_fits(step)
            else:
                block = self._structure(step, width, apart=False)
            jumps = step.next is not None and (place + 1 == len(steps) or steps[place + 1].id != step.next)
            found.append(replace(block, onward=not jumps, target=step.id in self._targets))
        return found

    def _that_fits(self, step: Step) -> Block:
        for width in BOX_WIDTHS:
            block = self._structure(step, width, apart=False)
            if block.width <= _room()[0] and block.height <= _room()[1]:
                return block
        return self._structure(step, BOX_WIDTHS[0], apart=True)

    def _step(self, step: Step, width: float, kind: Literal["step", "structure"] = "step", more: str = "") -> Block:
        """The box of a step; what stands in others is tried in several ways, so each is made once."""
        key = (step.id, width)
        if key not in self._made:
            self._made[key] = self._box(step, width, kind, more)
        return self._made[key]

    def _box(self, step: Step, width: float, kind: Literal["step", "structure"], more: str) -> Block:
        room = width - 4.0
        said = [*([more] if more else []), *facts(self.recipe, step)] or [""]
        if step.next is not None:
            said.append(f"then step {step.next}")
        lines = _lines(f"{step.id}{dagger(step)} {in_words(self.recipe, step.title)}", room, bold=True)
        said[0] = f"{step.phase}{said[0] if said[0].startswith(':') else ' ' + said[0]}".rstrip()
        for line in said[:6]:
            lines += _lines(line, room, size=SMALL, most=4 if line == more else 2)
        if self.overlay:
            done = self.overlay.says(step.id)
            for line in done[:8]:
                lines += _lines(line, room, size=SMALL)
            if len(done) > 8:
                lines += _lines(f"and {len(done) - 8} lines more in the record", room, size=SMALL)
        height = LINE * len(lines) + 2.0
        texts = tuple(
            Text(2.0, LINE * (row + 1), line, size, bold=bold) for row, (line, size, bold) in enumerate(lines)
        )
        parts = (f"{step.id} {step.title}", str(getattr(step, "text", "")), step.why)
        whole = "\n".join(_clean(in_words(self.recipe, part)) for part in parts if part)
        look = self.overlay.look(step.id) if self.overlay else "plain"
        return Block(width, height, (Box(0.0, 0.0, width, height, texts, step.id, kind, look, whole),))

    # What steps stand in

    def _structure(self, step: Step, width: float, *, apart: bool) -> Block:
        """A step that consists of others: its own box, and below it those, or boxes that say where they are drawn."""
        kind = STRUCTURES[step.phase]
        inner = [list(steps) for _, steps in step.inner()]
        conditions = _conditions(step)
        if isinstance(step, Select) and not step.else_:
            inner.append([])
        names = [f"{step.id}, branch {place + 1} of {len(inner)}" for place in range(len(inner))]
        if kind in {"again", "inside"}:
            names = [f"{step.id}, the steps inside"]
        titles = [
            f"{name}: {conditions[place] if conditions else in_words(self.recipe, step.title)}"
            for place, name in enumerate(names)
        ]
        more = {
            "all": f": {len(inner)} branches at once, then on",
            "one": ": one way, the first whose condition is true",
            "again": ": again and again",
            "inside": "",
        }[kind]
        head = self._step(step, width, "structure", more)
        if apart and len(inner) * (width + GAP) - GAP > _room()[0]:
            self._apart.extend((title, steps) for title, steps in zip(titles, inner, strict=True) if steps)
            body = _elsewhere(f"{step.id}, branches 1 to {len(inner)}", "each drawn under its name", width)
            return _stack([head, _branches([body], double=kind == "all")], width)
        bodies = []
        for place, (name, steps) in enumerate(zip(names, inner, strict=True)):
            if apart and (len(steps) > 1 or (steps and steps[0].inner())):
                self._apart.append((titles[place], steps))
                body = _elsewhere(name, f"{len(steps)} steps, drawn under this name", width)
            else:
                body = _stack(self._blocks(steps, fits=False, width=width), width)
            taken = bool(self.overlay and any(self.overlay.reached(one.id) for one in steps))
            if conditions:
                body = _conditional(conditions[place], body, width, taken=taken)
            bodies.append(body)
        if kind == "inside":
            return _stack([head, _framed(bodies[0])], width)
        if kind == "again":
            return _stack([head, _looped(bodies[0])], width)
        return _stack([head, _branches(bodies, double=kind == "all")], width)

    # Columns and sheets

    def _columns(self, flow: Sequence[_Cell], signs: int = 0) -> list[_Column]:
        columns: list[_Column] = []
        for cell in flow:
            column = columns[-1] if columns else None
            if column and self._belongs(column, cell):
                column.cells.append(cell)
                continue
            if column:
                sign = str(signs + len(columns)) if column.cells[-1].block.onward else ""
                columns.append(_Column([cell], begins=sign, after=column.cells[-1]))
                column.ends = sign
            else:
                columns.append(_Column([cell]))
        return columns

    @staticmethod
    def _belongs(column: _Column, cell: _Cell) -> bool:
        high = _drawn(column, 0.0)[1]
        now = max(one.block.width for one in column.cells)
        if abs(now - cell.block.width) > BOX_WIDTHS[0] / 2 and high > 0.4 * (BOTTOM - TOP) and cell.inside:
            return False
        longer = replace(column, cells=[*column.cells, cell], ends="0")
        return _drawn(longer, 0.0)[1] <= BOTTOM - TOP

    def _on_sheets(self, columns: Sequence[_Column]) -> tuple[tuple[Shape, ...], ...]:
        sheets: list[list[Shape]] = [[]]
        x = MARGIN
        for column in columns:
            shapes, _, width = _drawn(column, 0.0)
            if x > MARGIN and x + width > SHEET[0] - MARGIN:
                sheets.append([])
                x = MARGIN
            sheets[-1] += _moved(shapes, x, TOP)
            x += width + GAP
        return tuple((*self._heading(place + 1, len(sheets)), *sheet) for place, sheet in enumerate(sheets))

    def _heading(self, sheet: int, of: int) -> Iterator[Shape]:
        recipe, right = self.recipe, SHEET[0] - MARGIN
        [(title, *_), *_] = _lines(
            f"{recipe.recipe} {recipe.version}  {recipe.title}", right - MARGIN - 40.0, size=LARGE, bold=True, most=1
        )
        yield Text(MARGIN, MARGIN + 3.0, title, LARGE, bold=True)
        yield Text(right, MARGIN + 3.0, f"Sheet {sheet} of {of}", PLAIN, anchor="end")
        said = f"Seal {seal(recipe)}"
        if self.overlay:
            batch = self.overlay.batch
            said = (
                f"Batch {batch.batch}, {batch.state}, {_short_time(batch.started_utc)} to "
                f"{_short_time(batch.ended_utc) or '(not ended)'} UTC, {len(batch.exceptions)} exceptions. "
                f"Seal {batch.seal[:16]}…"
            )
            if batch.seal != seal(recipe):
                said += " ANOTHER RECIPE THAN THIS ONE"
        [(line, *_), *_] = _lines(said, right - MARGIN, most=1)
        yield Text(MARGIN, MARGIN + 8.0, line)
        yield Path(((MARGIN, MARGIN + 11.0), (right, MARGIN + 11.0)))
        legend = (
            "† still to be set by the process owner.  Double bar: all branches at once.  Single bar: one branch, by "
            "its condition.  Same number in a circle: goes on there."
        )
        if self.overlay:
            legend += "  ✓ done.  Thick box, “!”: exception.  Dashed: not reached."
        yield Text(MARGIN, SHEET[1] - MARGIN + 2.0, legend, SMALL)


def _room() -> tuple[float, float]:
    """What a block in a column of its own may take."""
    return SHEET[0] - 2 * MARGIN - 4 * PAD, BOTTOM - TOP - 36.0


def _conditions(step: Step) -> list[str]:
    """Of the branches of a selection, in their order; the last is the way without a condition."""
    if not isinstance(step, Select):
        return []
    found = [_condition(branch) for branch in step.branches]
    return [*found, "else" if step.else_ else "else: nothing is done"]


def _condition(branch: Branch) -> str:
    return f"if {branch.when}" + (f" ({branch.title})" if branch.title else "")


def _section(blocks: Sequence[Block], inside: tuple[int, str]) -> list[_Cell]:
    """What is drawn by itself: no line leads on from its end."""
    last = len(blocks) - 1
    return [
        _Cell(replace(block, onward=block.onward and place < last), (inside,)) for place, block in enumerate(blocks)
    ]


def _mark(kind: Literal["begin", "end"]) -> Block:
    return Block(BOX_WIDTHS[0], 5.0, (Mark(BOX_WIDTHS[0] / 2, 0.0, kind),))


def _notes(text: str) -> Block:
    width = BOX_WIDTHS[0]
    lines = _lines(text, width - 4.0, size=SMALL, most=8)
    texts = tuple(Text(2.0, LINE * (row + 1), line, size) for row, (line, size, _) in enumerate(lines))
    height = LINE * len(lines) + 2.0
    return Block(width, height, (Box(0.0, 0.0, width, height, texts, kind="notes"),), onward=False)


def _elsewhere(name: str, says: str, width: float) -> Block:
    """Stands for steps that are drawn by themselves."""
    lines = [*_lines(name, width - 8.0, bold=True), *_lines(says, width - 4.0)]
    texts = tuple(Text(2.0, LINE * (row + 1), line, size, bold=bold) for row, (line, size, bold) in enumerate(lines))
    height = LINE * len(lines) + 2.0
    return Block(width, height, (Box(0.0, 0.0, width, height, texts, kind="elsewhere"),))


def _stack(blocks: Sequence[Block], width: float) -> Block:
    """One below the other, joined by links."""
    width = max([width, *(block.width for block in blocks)])
    shapes: list[Shape] = []
    y = 0.0
    onward = True
    for place, block in enumerate(blocks):
        if place:
            if onward:
                shapes.append(Path(((width / 2, y), (width / 2, y + GAP)), arrow=block.target))
            y += GAP
        shapes += _moved(block.shapes, (width - block.width) / 2, y)
        y += block.height
        onward = block.onward
    if not blocks:
        y = GAP
        shapes.append(Path(((width / 2, 0.0), (width / 2, y))))
    return Block(width, y, tuple(shapes), onward=onward)


def _conditional(condition: str, body: Block, width: float, *, taken: bool) -> Block:
    """A transition with its condition before the body; thick when the batch went this way."""
    lines = _lines(condition, width / 2 - 3.0, size=SMALL, most=6)
    high = LINE * len(lines) + 2.0
    middle = body.width / 2
    shapes: list[Shape] = [Path(((middle, 0.0), (middle, high + 1.0)), thick=taken)]
    shapes.append(Path(((middle - 3.0, high / 2), (middle + 2.0, high / 2)), thick=True))
    shapes += [
        Text(middle + 3.0, high / 2 + LINE * (row - (len(lines) - 1) / 2) + 0.9, line, size)
        for row, (line, size, _) in enumerate(lines)
    ]
    shapes += _moved(body.shapes, 0.0, high + 1.0)
    return Block(body.width, high + 1.0 + body.height, tuple(shapes), body.onward)


def _branches(bodies: Sequence[Block], *, double: bool) -> Block:
    """Side by side between two bars: double for all at once, single for one of them."""
    deep = GAP * 0.7
    high = max(body.height for body in bodies)
    width = sum(body.width for body in bodies) + GAP * (len(bodies) - 1)
    inset = 0.0
    shapes: list[Shape] = []
    total = 2 * deep + high
    for y in (0.0, total):
        shapes.append(Path(((inset, y), (width - inset, y)), thick=not double))
        if double:
            inner = 1.0 if y == 0.0 else -1.0
            shapes.append(Path(((inset, y + inner), (width - inset, y + inner))))
    x = 0.0
    for body in bodies:
        middle = x + body.width / 2
        shapes.append(Path(((middle, 1.0 * double), (middle, deep))))
        if body.onward:
            shapes.append(Path(((middle, deep + body.height), (middle, total - 1.0 * double))))
        shapes += _moved(body.shapes, x, deep)
        x += body.width + GAP
    return Block(width, total, tuple(shapes))


def _looped(body: Block) -> Block:
    """With a way back from its end to its beginning."""
    side, above, below = 5.0, GAP, 7.0
    width = body.width + 2 * side
    middle, high = width / 2, above + body.height + below
    shapes: list[Shape] = [Path(((middle, 0.0), (middle, above))), Path(((middle, high - below), (middle, high)))]
    shapes.append(
        Path(((middle, high - below / 2), (0.6, high - below / 2), (0.6, above / 2), (middle, above / 2)), arrow=True)
    )
    shapes.append(Text(1.6, high - below / 2 - 0.9, "again", SMALL))
    shapes.append(Path(((middle - 3.0, high - 1.4), (middle + 2.0, high - 1.4)), thick=True))
    shapes.append(Text(middle + 3.0, high - 0.5, "or on", SMALL))
    shapes += _moved(body.shapes, side, above)
    return Block(width, high, tuple(shapes), body.onward)


def _framed(body: Block) -> Block:
    width, high = body.width + 2 * PAD, body.height + 2 * PAD
    frame = Frame(0.0, 0.0, width, high, (), outer=False)
    return Block(width, high, (frame, *_moved(body.shapes, PAD, PAD)), body.onward)


def _moved(shapes: Sequence[Shape], dx: float, dy: float) -> list[Shape]:
    found: list[Shape] = []
    for shape in shapes:
        match shape:
            case Path():
                found.append(replace(shape, points=tuple((x + dx, y + dy) for x, y in shape.points)))
            case Box():
                texts = tuple(replace(one, x=one.x + dx, y=one.y + dy) for one in shape.texts)
                found.append(replace(shape, x=shape.x + dx, y=shape.y + dy, texts=texts))
            case Frame():
                title = tuple(replace(one, x=one.x + dx, y=one.y + dy) for one in shape.title)
                found.append(replace(shape, x=shape.x + dx, y=shape.y + dy, title=title))
            case _:
                found.append(replace(shape, x=shape.x + dx, y=shape.y + dy))
    return found


def _drawn(column: _Column, y: float) -> tuple[list[Shape], float, float]:
    """The shapes of a column from `y` down, its height and width. Frames are drawn round what is in them."""
    depth = max(len(cell.inside) for cell in column.cells)
    width = max(cell.block.width for cell in column.cells) + 2 * PAD * depth
    middle = width / 2
    shapes: list[Shape] = []
    if column.begins:
        shapes.append(Mark(middle, y + 2.2, "sign", column.begins))
        shapes.append(Path(((middle, y + 4.4), (middle, y + 4.4 + GAP / 2)), arrow=True))
        y += 4.4 + GAP / 2
    y = _group(column, column.cells, 0, y, width, shapes)
    if column.ends:
        shapes.append(Path(((middle, y), (middle, y + GAP / 2))))
        shapes.append(Mark(middle, y + GAP / 2 + 2.2, "sign", column.ends))
        y += GAP / 2 + 4.4
    return shapes, y, width


def _group(column: _Column, group: Sequence[_Cell], level: int, y: float, width: float, shapes: list[Shape]) -> float:
    """Draw cells that stand in the same frames down to `level`; give where they end."""
    middle = width / 2
    place = 0
    while place < len(group):
        cell = group[place]
        if place and group[place - 1].block.onward:
            shapes.append(Path(((middle, y), (middle, y + GAP)), arrow=cell.block.target and len(cell.inside) == level))
        y += GAP if place else 0.0
        if len(cell.inside) == level:
            shapes += _moved(cell.block.shapes, middle - cell.block.width / 2, y)
            y += cell.block.height
            place += 1
            continue
        last = place
        while last < len(group) and group[last].inside[: level + 1] == cell.inside[: level + 1]:
            last += 1
        before = column.after.inside if column.after and cell is column.cells[0] else ()
        continued = before[: level + 1] == cell.inside[: level + 1]
        left, wide = level * PAD, width - 2 * level * PAD
        title = cell.inside[level][1] + (" (continued)" if continued else "")
        size = PLAIN + 0.4 * (level == 0)
        lines = _lines(title, wide - 2 * PAD, size=size, bold=level == 0, most=2)
        texts = tuple(
            Text(left + PAD, y + 0.8 + LINE * (row + 1), line, size, bold=bold)
            for row, (line, size, bold) in enumerate(lines)
        )
        end = _group(column, group[place:last], level + 1, y + LINE * len(lines) + 2.6, width, shapes) + PAD
        shapes.insert(0, Frame(left, y, wide, end - y, texts, outer=level == 0))
        y = end
        place = last
    return y


# SVG -------------------------------------------------------------------------------------------------------------

_STYLE: Final = (
    "text{font-family:'Liberation Sans',Arial,Helvetica,'DejaVu Sans',sans-serif;fill:#000}"
    ".b{font-weight:bold}rect,path,circle{stroke:#000;stroke-width:.3;fill:none}.box{fill:#fff}"
    ".structure{fill:#eee}.elsewhere,.notes{fill:#fff;stroke-width:.2}.not-reached{stroke-dasharray:1.4 1}"
    ".exception{stroke-width:1.1}.open{stroke-width:.7}.frame{stroke-width:.2}.outer{stroke-width:.45}"
    ".thick{stroke-width:.9}.head{fill:#000}"
)


def _sheet_svg(name: str, shapes: Sequence[Shape]) -> str:
    width, height = SHEET
    body = "\n".join(line for shape in shapes for line in _svg(shape))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}mm" height="{height:g}mm" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}">\n'
        "<style>@page{size:A4 landscape;margin:0}" + _STYLE + "</style>\n"
        '<defs><marker id="head" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
        '<polygon class="head" points="0,0.5 6,3 0,5.5"/></marker></defs>\n'
        f'<rect width="{width:g}" height="{height:g}" style="fill:#fff;stroke:none"/>\n{body}\n</svg>\n'
    )


def _svg(shape: Shape) -> Iterator[str]:
    match shape:
        case Text():
            bold = ' class="b"' if shape.bold else ""
            anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
            place = f'x="{_n(shape.x)}" y="{_n(shape.y)}"'
            if not shape.bold and len(shape.text) > 1 and set(shape.text) <= _WIDTHS.keys():
                place += f' textLength="{_n(text_width(shape.text, shape.size))}" lengthAdjust="spacingAndGlyphs"'
            yield f'<text {place} font-size="{shape.size:g}"{bold}{anchor}>{escape(shape.text)}</text>'
        case Path():
            points = "L".join(f"{_n(x)} {_n(y)}" for x, y in shape.points)
            thick = ' class="thick"' if shape.thick else ""
            arrow = ' marker-end="url(#head)"' if shape.arrow else ""
            yield f'<path d="M{points}"{thick}{arrow}/>'
        case Box():
            step = f' data-step="{escape(shape.step)}"' if shape.step else ""
            yield f"<g{step}>" + (f"<title>{escape(shape.whole)}</title>" if shape.whole else "")
            look = f"box {shape.kind} {shape.look.replace(' ', '-')}"
            rounded = ' rx="3"' if shape.kind == "structure" else ""
            yield _rect(shape, look, rounded)
            if shape.kind == "elsewhere":  # a plus sign stands for what is not shown here
                right, top = shape.x + shape.width - 4.0, shape.y + 1.2
                yield f'<path d="M{_n(right)} {_n(top + 1.3)}h2.6m-1.3 -1.3v2.6" class="thick"/>'
            for text in shape.texts:
                yield from _svg(text)
            yield "</g>"
        case Frame():
            yield _rect(shape, "frame outer" if shape.outer else "frame")
            for text in shape.title:
                yield from _svg(text)
        case Mark(kind="sign"):
            yield f'<circle cx="{_n(shape.x)}" cy="{_n(shape.y)}" r="2.2"/>'
            yield from _svg(Text(shape.x, shape.y + 0.9, shape.text, SMALL, anchor="middle"))
        case Mark():
            y, tip = (shape.y, shape.y + 5.0) if shape.kind == "begin" else (shape.y + 5.0, shape.y)
            yield f'<path d="M{_n(shape.x - 4)} {_n(y)}h8L{_n(shape.x)} {_n(tip)}z"><title>{shape.kind}</title></path>'


def _rect(shape: Box | Frame, look: str, more: str = "") -> str:
    return (
        f'<rect class="{look}" x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" '
        f'height="{_n(shape.height)}"{more}/>'
    )


def _n(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


# The terminal ----------------------------------------------------------------------------------------------------


def as_terminal(recipe: Recipe, batch: AsBuilt | None = None, width: int = 80) -> str:
    """The chart as text, `width` columns wide (40 at least). It reads aloud: every branch says what it is."""
    overlay = _Overlay(batch) if batch else None
    words = _Words(recipe, overlay, max(width, 40))
    words.say(f"{recipe.recipe} {recipe.version}  {recipe.title}")
    if batch:
        other = "" if batch.seal == seal(recipe) else "; ANOTHER RECIPE THAN THIS ONE"
        words.say(f"Batch {batch.batch}, {batch.state}, {len(batch.exceptions)} exceptions{other}")
    words.say("BEGIN")
    for procedure in recipe.procedure:
        words.say(procedure.unit_procedure, "== ")
        for operation in procedure.operations:
            words.say(operation.operation, "  -- ")
            words.steps(operation.steps, "  ")
    words.say("END")
    if recipe.planned():
        words.say(SAMPLES, "-- ")
        words.steps(list(recipe.planned().values()), "")
    if any(dagger(step) for step in recipe.in_order()) or any("†" in line for line in words.lines):
        words.say("† still to be set by the process owner")
    for note in overlay.notes(recipe) if overlay else ():
        words.say(f"beside the steps: {note}")
    return "\n".join(words.lines)


@dataclass(slots=True)
class _Words:
    recipe: Recipe
    overlay: _Overlay | None
    width: int
    lines: list[str] = field(default_factory=list)

    def say(self, text: str, before: str = "", after: str | None = None) -> None:
        """In lines, the first behind `before`, the others behind `after` or as many spaces."""
        after = " " * cells(before) if after is None else after
        room = max(self.width - max(cells(before), cells(after)), 12)
        for place, line in enumerate(wrapped(text, room, cells, 5)):
            self.lines.append(f"{after if place else before}{line}")

    def steps(self, steps: Sequence[Step], before: str) -> None:
        if cells(before) > self.width // 2:  # deep inside, where no room is left
            before = "  … "
        for step in steps:
            look = self.overlay.look(step.id) if self.overlay else "plain"
            sign = {"done": "✓ ", "exception": "! ", "open": "> ", "not reached": "  ", "plain": ""}[look]
            heading = f"{step.id}{dagger(step)} {step.phase}: {in_words(self.recipe, step.title)}"
            self.say(heading, f"{before}{sign}", f"{before}{sign and '  '}  ")
            for line in [*facts(self.recipe, step), *(self.overlay.says(step.id) if self.overlay else ())]:
                self.say(line, f"{before}    ", f"{before}      ")
            self._inside(step, f"{before}  ")
            if step.next is not None:
                self.say(f"then step {step.next}", f"{before}    ")

    def _inside(self, step: Step, before: str) -> None:
        inner = step.inner()
        kind = STRUCTURES.get(step.phase)
        if not inner or kind is None:
            return
        conditions = _conditions(step)
        if kind == "all":
            self.say(f"{len(inner)} branches at once:", before)
        elif kind == "one":
            self.say("one way, the first whose condition is true:", before)
        for place, (_, steps) in enumerate(inner):
            if kind == "all":
                self.say(f"branch {place + 1} of {len(inner)}", f"{before}║ ")
            elif kind == "one":
                self.say(conditions[place], f"{before}├ ", f"{before}│   ")
            else:
                self.say("begin of a pass" if kind == "again" else "the operation's steps", f"{before}┌ ")
            self.steps(steps, before + ("║   " if kind == "all" else "│   "))
        if kind == "one" and len(inner) < len(conditions):
            self.say(conditions[-1], f"{before}├ ")
        end = {
            "all": "╙ go on when all branches are done",
            "one": "└ go on after the way that was taken",
            "again": "└ back to the begin of the pass, or go on",
            "inside": "└ end of the operation",
        }[kind]
        self.say(end, before)
