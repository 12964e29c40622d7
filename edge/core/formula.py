"""Formulas: the only file that knows their language, which is CEL without functions, lists of values and loops.

A formula is arithmetic, comparisons, `&&`, `||`, `!`, `a ? b : c`, `in ["a", "b"]`, and `startsWith`, `endsWith` and
`contains` on texts. Every number is a double: `3` is 3.0. Its cost is bounded by its length: nothing in it repeats.
A value that is missing, bad, or becomes NaN or infinite anywhere on the way is refused; it is never false.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

from edge.core.document import closest
from edge.core.errors import LinesideError, Place
from edge.core.quick import dataclass
from edge.core.terms import Value, convert

LENGTH_MAX: Final = 1_000
TOKENS_MAX: Final = 300
TEXT_CHARS_MAX: Final = 4_096
"""Longer texts are not compared."""
Kind = Literal["number", "text", "bool"]
_SAID: Final[Mapping[Kind, str]] = {"number": "a number", "text": "a text", "bool": "true or false"}
_TYPES: Final[Mapping[Kind, type]] = {"number": float, "text": str, "bool": bool}
_METHODS: Final = ("startsWith", "endsWith", "contains")
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<name>\$?[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)*)"
    r"|(?P<number>(?:[0-9]+\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?(?![\w.]))"
    r"""|(?P<text>"[^"\\\n]*"|'[^'\\\n]*')|(?P<sign>&&|\|\||==|!=|<=|>=|[-+*/<>!?:,()\[\]])"""
)
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_BOUNDARIES: Final = _COMPARISONS | {"&&", "||", "?", ":", ","}
_SIGNS: Final = {"_?_:_": "? :", "@in": "in", "!_": "!", "-_": "-", "_d": "/", "_f": "+ - * /"}
"""The library's names of signs, where they are not the sign between underscores."""
_AT = re.compile(r"<input>:([0-9]+):([0-9]+): (.*)")


@dataclass(frozen=True, slots=True)
class Variable:
    """What a formula may name. A number is in `unit` inside the formula, whatever unit it comes in."""

    kind: Kind
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Given:
    """A variable's value when a formula is worked out. `bad` says why it cannot be used; empty when it can."""

    value: Value
    unit: str = ""
    bad: str = ""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class Formula:
    """A formula that was read and whose types fit. `names` are the variables in it, each once, as they come."""

    def __init__(
        self, text: str, kind: Kind, variables: Mapping[str, Variable], work_out: Callable[[dict[str, Any]], Any]
    ) -> None:
        self.text = text
        self.kind = kind
        self.variables = variables
        self._work_out = work_out

    @property
    def names(self) -> tuple[str, ...]:
        """The variables that it names."""
        return tuple(self.variables)

    def value(self, given: Mapping[str, Given]) -> bool | float | str:
        """What comes out for these values, each converted to its variable's unit first.

        Raises `formula.not_usable` when a value is missing or bad, or when no usable result comes out."""
        bound = {
            f"_{place}": self._bound(name, variable, given.get(name))
            for place, (name, variable) in enumerate(self.variables.items())
        }
        result = self._work_out(bound)
        if self.kind == "number" and (not isinstance(result, float) or not math.isfinite(result)):
            raise _not_usable(f"{self.text!r} has no finite result.")
        if not isinstance(result, bool | float | str):
            raise _not_usable(f"{self.text!r} has no result: a division by zero, or a number too large.")
        return result

    def _bound(self, name: str, variable: Variable, given: Given | None) -> bool | float | str:
        if given is None or given.bad:
            raise _not_usable(f"{name} cannot be used: {given.bad if given else 'it has no value.'}")
        value = given.value
        if variable.kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
            number = convert(float(value), given.unit, variable.unit)
            if math.isfinite(number):
                return number
        elif type(value) is _TYPES[variable.kind] and len(str(value)) <= TEXT_CHARS_MAX:
            return value
        raise _not_usable(f"{name} is {str(value)[:40]!r}, not {_SAID[variable.kind]}.")


def compile_formula(text: str, variables: Mapping[str, Variable], wanted: Kind | None = None) -> Formula:
    """Read a formula over these variables; its result must be `wanted`. Names are "value", "role.tag", "$parameter".

    Raises `formula.too_long`, `formula.syntax`, `formula.unknown_name`, `formula.function` and `formula.type`, each
    with the line and column in the formula as its place."""
    tokens = _tokens(text)
    names = {token.text: _variable(text, token, variables) for token in tokens if token.kind == "name"}
    return _compiled(text, tuple(names.items()), wanted)


def names_in(text: str) -> list[str]:
    """The names in a formula, each once, whether there are such variables or not. Raises as `compile_formula`."""
    return list(dict.fromkeys(token.text for token in _tokens(text) if token.kind == "name"))


def literals_in(text: str) -> list[float | str]:
    """The numbers and texts that stand in a formula, as they come. Raises as `compile_formula`."""
    tokens = [token for token in _tokens(text) if token.kind in {"number", "text"}]
    return [float(token.text) if token.kind == "number" else token.text[1:-1] for token in tokens]


def renamed(text: str, new_name: Callable[[str], str]) -> str:
    """The formula with every name replaced by `new_name` of it. Raises as `compile_formula`."""
    made, end = "", 0
    for token in _tokens(text):
        if token.kind == "name":
            made += text[end : token.at] + new_name(token.text)
            end = token.at + len(token.text)
    return made + text[end:]


# Reading -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1_024)
def _tokens(text: str) -> tuple[_Token, ...]:
    if len(text) > LENGTH_MAX:
        raise LinesideError(
            "formula.too_long",
            f"A formula has at most {LENGTH_MAX} characters; this one has {len(text)}.",
            todo="Work out a part of it in a step of its own.",
            place=Place("formula", 1, 1),
        )
    if not text.strip():
        raise _syntax(text, 0, "The formula is empty.")
    found: list[_Token] = []
    at, brackets = 0, -1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _unreadable(text, at)
        kind, said = str(match.lastgroup), match.group()
        if kind == "name" and said in {"in", "true", "false"}:
            kind = "word"
        if kind == "name" and text[match.end() : match.end() + 1] in {"(", '"', "'"}:
            said, _, method = said.rpartition(".")
            if not said or method not in _METHODS:
                raise _no_function(text, at, match.group())
            found.append(_Token("name", said, at))
            at, kind, said = at + len(said), "method", f".{method}"
        if kind == "number" and not math.isfinite(float(said)):
            raise _syntax(text, at, "This number is too large.")
        if said == "[":
            brackets = at
        elif said == "]":
            brackets = -1
        elif brackets >= 0 and kind in {"name", "method"}:
            raise _syntax(text, at, "A list in [ ] holds plain numbers or texts")
        if kind != "space":
            found.append(_Token(kind, said, at))
        at = match.end()
    if len(found) > TOKENS_MAX:
        raise LinesideError(
            "formula.too_long",
            f"A formula has at most {TOKENS_MAX} names, numbers and signs; this one has {len(found)}.",
            todo="Work out a part of it in a step of its own.",
            place=Place("formula", 1, 1),
        )
    return tuple(found)


def _unreadable(text: str, at: int) -> LinesideError:
    if text[at] in "\"'":
        return _syntax(text, at, "A text is not closed, or has a \\ in it.")
    if text[at] == "%":
        return _syntax(text, at, "There is no % in formulas; a share is a number, such as 0.03.")
    if text[at] == "=":
        return _syntax(text, at, "One = compares nothing; equal is ==.")
    if text[at].isdigit():
        return _syntax(text, at, "This is not a number; write it plainly, such as 12.5.")
    return _syntax(text, at, f"{text[at]!r} has no meaning in a formula.")


def _variable(text: str, token: _Token, variables: Mapping[str, Variable]) -> Variable:
    variable = variables.get(token.text)
    if variable is None:
        raise LinesideError(
            "formula.unknown_name",
            f"There is no {token.text[:80]!r} that a formula could use{_where(text, token.at)}.",
            todo=closest(token.text, list(variables)),
            place=_place(text, token.at),
        )
    return variable


def _written(tokens: Sequence[_Token], places: Mapping[str, int]) -> tuple[str, list[tuple[int, int]]]:
    """The formula in plain CEL, and for each of its parts where it begins there and in the formula."""
    opens, closes = _operands(tokens)
    made = ""
    origins: list[tuple[int, int]] = []
    for index, token in enumerate(tokens):
        made += " " + opens.get(index, "")
        origins.append((len(made), token.at))
        if token.kind == "name":
            made += f"_{places[token.text]}"
        elif token.kind == "number":
            made += token.text if set(token.text) & set(".eE") else f"{token.text}.0"
        elif token.kind == "text":
            made += "r" + token.text
        else:
            made = made.rstrip() + token.text if token.kind == "method" else made + token.text
        made += ")" * closes.get(index, 0)
    return made, origins


def _operands(tokens: Sequence[_Token]) -> tuple[dict[int, str], dict[int, int]]:
    """What opens and how much closes at a token: `_f(` around each side of a comparison in which something is worked
    out, `_d(` around each divisor. So no value that is not finite is compared, and none becomes finite again.

    A side is all tokens up to the next boundary at the same depth, a divisor one token or what is in brackets, as
    CEL's grammar has it."""
    opens: dict[int, str] = {}
    closes: dict[int, int] = {}

    def wrap(name: str, first: int, last: int) -> None:
        opens[first] = opens.get(first, "") + f"{name}("
        closes[last] = closes.get(last, 0) + 1

    for index, token in enumerate(tokens):
        if token.kind == "sign" and token.text == "/":
            last = index + 1
            while last < len(tokens) - 1 and tokens[last].text in {"-", "!"}:
                last += 1
            if last < len(tokens):
                wrap("_d", index + 1, _end(tokens, last + 1, 1) if tokens[last].text == "(" else last)
        elif token.text in _COMPARISONS and token.kind in {"sign", "word"}:
            for step in (-1,) if token.text == "in" else (-1, 1):
                first, last = sorted((index + step, _end(tokens, index + step, step) - step))
                if any(one.kind == "sign" and one.text in "+-*/" for one in tokens[first : last + 1]):
                    wrap("_f", first, last)
    return opens, {index: count for index, count in closes.items() if index < len(tokens)}


def _end(tokens: Sequence[_Token], index: int, step: int) -> int:
    """The index of the first boundary from `index` on, in the direction of `step`."""
    depth = 0
    while 0 <= index < len(tokens):
        token = tokens[index]
        if token.kind in {"sign", "word"}:
            if token.text in {"(", "["}:
                depth += step
            elif token.text in {")", "]"}:
                depth -= step
            if depth < 0 or (depth == 0 and token.text in _BOUNDARIES):
                break
        index += step
    return index


# Working out ---------------------------------------------------------------------------------------------------


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _divisor(number: float) -> float:
    if number == 0:
        raise ValueError("division by zero")
    return _finite(number)


def _same(value: Any) -> Any:
    return value


@lru_cache(maxsize=1_024)
def _compiled(text: str, names: tuple[tuple[str, Variable], ...], wanted: Kind | None) -> Formula:
    from cel_expr_python import cel  # 12 MiB, for those alone who have a formula

    types = {"number": cel.Type.DOUBLE, "text": cel.Type.STRING, "bool": cel.Type.BOOL}
    kinds: dict[Any, Kind] = {"DOUBLE": "number", "STRING": "text", "BOOL": "bool"}
    # Formulas cannot name these two: no name in them begins with _.
    own = [
        cel.FunctionDecl(
            "_f",
            [
                cel.Overload(
                    id=f"_f_{kind}", return_type=typed, parameters=[typed], impl=_finite if kind == "number" else _same
                )
                for kind, typed in types.items()
            ],
        ),
        cel.FunctionDecl(
            "_d", [cel.Overload(id="_d", return_type=types["number"], parameters=[types["number"]], impl=_divisor)]
        ),
    ]
    tokens = _tokens(text)
    variables = dict(names)
    made, origins = _written(tokens, {name: place for place, name in enumerate(variables)})
    try:
        env = cel.NewEnv(
            variables={f"_{place}": types[one.kind] for place, one in enumerate(variables.values())}, functions=own
        )
        expression = env.compile(made)
    except RuntimeError as error:
        raise _explained(text, origins, str(error)) from error
    kind = kinds.get(expression.return_type().name())
    if kind is None or (wanted is not None and kind != wanted):
        is_now = _SAID[kind] if kind else "a list"
        raise LinesideError(
            "formula.type",
            f"What comes out of {text[:80]!r} is {is_now}; here it must be {_SAID[wanted or 'number']}.",
            todo="Compare it with something." if wanted == "bool" else "Correct the formula.",
            place=Place("formula", 1, 1),
        )

    def work_out(bound: dict[str, Any]) -> Any:
        try:
            result = expression.eval(data=bound)
        except RuntimeError as error:
            raise _not_usable(f"{text!r} cannot be worked out.") from error
        return None if result.type() == cel.Type.ERROR else result.value()

    return Formula(text, kind, variables, work_out)


def _explained(text: str, origins: Sequence[tuple[int, int]], said: str) -> LinesideError:
    """The library's refusal in words, with its place in the formula."""
    match = _AT.search(said)
    at = 0
    if match and "'<EOF>'" in match[3]:
        at = len(text)
    elif match:
        written = int(match[2]) - 1
        at = next((source for begins, source in reversed(origins) if begins <= written), 0)
    message = match[3] if match else said
    if overload := re.search(r"no matching overload for '(.*?)' applied to '\(?(.*?)\)?'", message):
        sign = _SIGNS.get(overload[1], overload[1].strip("_"))
        words = {"double": "a number", "string": "a text", "bool": "true or false"}
        kinds = [words.get(one.strip(), "a list") for one in overload[2].split(",")]
        return LinesideError(
            "formula.type",
            f"{sign!r} does not go with {' and '.join(kinds)}{_where(text, at)}.",
            todo="Compare and calculate numbers with numbers, texts with texts.",
            place=_place(text, at),
        )
    if "recursion" in message:
        return _syntax(text, at, "The formula is nested too deep, or too many parts follow one another.")
    return _syntax(text, at, "The formula cannot be read from here on.")


def _not_usable(why: str) -> LinesideError:
    return LinesideError(
        "formula.not_usable",
        why,
        effect="Nothing was decided by it.",
        todo="Look at the values that it uses.",
    )


def _no_function(text: str, at: int, name: str) -> LinesideError:
    return LinesideError(
        "formula.function",
        f"Formulas have no function {name[:40]!r}{_where(text, at)}.",
        todo="Write it with + - * / and, for the larger of two, a > b ? a : b. Texts have startsWith, "
        "endsWith and contains.",
        place=_place(text, at),
    )


def _syntax(text: str, at: int, what: str) -> LinesideError:
    return LinesideError(
        "formula.syntax",
        what.rstrip(".") + _where(text, at) + ".",
        todo='Write it like this: vcd * 0.5 > 3.0 && lot == "A"',
        place=_place(text, at),
    )


def _place(text: str, at: int) -> Place:
    return Place("formula", text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1)


def _where(text: str, at: int) -> str:
    """Where in the formula, for a sentence's end."""
    return f", at character {at + 1} ({text[at : at + 20].strip()!r})" if at < len(text) else ", at its end"
