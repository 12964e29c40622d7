"""The one error that a person ever sees.

Every refusal carries a stable code, what happened, what it means for the batch and what to do.
`docs/reference/errors.md` lists every code; a test compares that page with the code.
"""

from __future__ import annotations

from dataclasses import field

from edge.core.quick import dataclass

NOTHING_STARTED = "Nothing was started and nothing was changed."


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file: 1-based line and column; 0 means "the file as a whole"."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}:{self.line}:{self.column}" if self.column else f"{self.file}:{self.line}"


@dataclass(slots=True)
class LinesideError(Exception):
    """A refusal in words.

    `code` is stable, dotted and lower case ("recipe.unknown_phase"), always a literal where it is raised.
    `what` says what happened, `effect` what that means for the batch, `todo` the next thing to do.
    """

    code: str
    what: str
    effect: str = NOTHING_STARTED
    todo: str = ""
    place: Place | None = None
    others: tuple[LinesideError, ...] = field(default=())
    """Further findings of the same run, so that one look shows all of them."""

    def __post_init__(self) -> None:
        Exception.__init__(self, self.code, self.what)

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        lines = [f"{where}{self.code}: {self.what}"]
        if self.effect:
            lines.append(f"  effect: {self.effect}")
        if self.todo:
            lines.append(f"  to do:  {self.todo}")
        lines.extend(str(other) for other in self.others)
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """The machine's form: code, what, effect, todo, file, line, column, others."""
        return {
            "code": self.code,
            "what": self.what,
            "effect": self.effect,
            "todo": self.todo,
            "file": self.place.file if self.place else None,
            "line": self.place.line if self.place else None,
            "column": self.place.column if self.place else None,
            "others": [other.as_json() for other in self.others],
        }
