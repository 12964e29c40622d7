"""Documents that people write (recipe, plant, directory): bounded YAML 1.2 into plain data with positions.

Only what a person can review in a diff is let in: no anchors, aliases, tags, duplicate keys, second documents
or invisible characters. Size, depth and number of values are bounded before or while parsing.
The caller that opens a file reads at most `FILE_BYTES_MAX + 1` bytes of it.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, Final, Literal, TypeVar, get_args, get_origin

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from edge.core.errors import LinesideError, Place
from edge.core.quick import dataclass

FILE_BYTES_MAX: Final = 1_048_576
DEPTH_MAX: Final = 32
VALUES_MAX: Final = 50_000
PROBLEMS_MAX: Final = 100
INTEGER_MAX: Final = 2**53
"""Beyond this a number is no longer exact everywhere it travels (JSON, IEEE 754)."""

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)

# Controls, other line ends, byte order marks inside, and what reorders text so that a diff shows something else.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, bool | None]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and where it says it."""

    name: str
    data: Any
    places: Mapping[Path, tuple[int, int]]
    """Path -> 1-based line and column: of the key in a mapping, of the item in a list."""
    written: Mapping[Path, str] = field(default_factory=dict)
    """Path -> the characters of an unquoted number or true/false, for where text is expected."""

    def place(self, path: Sequence[str | int] = ()) -> Place:
        """Where `path` stands, or the nearest thing around it that is there."""
        here = tuple(path)
        while here not in self.places and here:
            here = here[:-1]
        line, column = self.places.get(here, (0, 0))
        return Place(self.name, line, column)


def read_document(data: bytes, name: str) -> Document:
    """Parse one YAML 1.2 document. Raises `LinesideError` (`document.*`) with the place for everything else.

    Keys are text. A plain scalar is a number only in the one usual way of writing it: `010`, `0x1f`, `1_000`,
    `.5` and `.nan` stay text. `name` is what messages call the file.
    """
    document_text = _decode(data, name)
    try:
        return _Builder(name).build(document_text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(name, mark.line + 1, mark.column + 1) if mark else Place(name)
        raise _syntax(error.problem or error.context or "", place) from error
    except (YAMLError, ValueError, OverflowError, IndexError, AttributeError, AssertionError, TypeError) as error:
        # What the library lets through for broken input, found by fuzzing, instead of an error of its own.
        raise LinesideError(
            "document.syntax",
            "The file is not valid YAML; the reader cannot say on which line.",
            todo="Look for a broken escape such as \\U in a quoted text, or a line that begins with %.",
            place=Place(name),
        ) from error


def _decode(data: bytes, name: str) -> str:
    if len(data) > FILE_BYTES_MAX:
        raise LinesideError(
            "document.too_large",
            f"The file is larger than {FILE_BYTES_MAX // 1024} KiB, the most that is read.",
            todo="Check that it is the right file; split it if it is.",
            place=Place(name),
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise LinesideError(
            "document.encoding",
            f"Byte {error.start + 1} (0x{data[error.start]:02x}) is not valid UTF-8.",
            todo="Save the file as UTF-8 text.",
            place=Place(name, line, column),
        ) from error
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if found := _HIDDEN.search(text):
        raise _hidden(found.group(), _place_at(text, found.start(), name))
    if (tab := text.find("\t")) >= 0:
        raise LinesideError(
            "document.tab",
            "There is a tab character.",
            todo="Use spaces.",
            place=_place_at(text, tab, name),
        )
    return text


def _place_at(text: str, index: int, name: str) -> Place:
    return Place(name, text.count("\n", 0, index) + 1, index - (text.rfind("\n", 0, index) + 1) + 1)


def _hidden(character: str, place: Place) -> LinesideError:
    return LinesideError(
        "document.hidden_character",
        f"There is a character that cannot be seen (U+{ord(character):04X}).",
        todo="Remove it.",
        place=place,
    )


# What the YAML library says (part of its sentence) -> what happened, what to do.
_SYNTAX: Final[Sequence[tuple[str, str, str]]] = (
    ("mapping values are not allowed", "A ':' stands where no further key can begin.",
     "Put text that contains ': ' in quotes, and check the indentation of this line."),
    ("cannot start any token", "A text begins with a character that has a meaning of its own in YAML.",
     "Put the text in quotes."),
    ("unexpected end of stream", "A quoted text is not closed.", "Add the closing quote."),
    ("unexpected document separator", "A quoted text is not closed.", "Add the closing quote."),
    ("expected ',' or", "A list in [ ] or a mapping in { } is not closed, or a comma is missing.",
     "Add the comma or the closing bracket."),
    ("expected <block end>", "This line does not fit the lines above it.",
     "Check its indentation; items of one list and keys of one mapping stand in the same column."),
    ("could not find expected ':'", "This line is neither 'key: value' nor '- item'.",
     "Add the colon and a space, or indent the line so that it continues the text above."),
    ("escape", "A text in double quotes contains an unknown \\ escape.", "Write \\\\ for a backslash."),
    ("sequence entries are not allowed", "A '-' stands where no list can begin.",
     "Begin the list on a line of its own."),
    ("alias", "There is a '*' or '&' at the beginning of a text.", "Put the text in quotes."),
)  # fmt: skip


def _syntax(problem: str, place: Place) -> LinesideError:
    for part, what, todo in _SYNTAX:
        if part in problem:
            return LinesideError("document.syntax", what, todo=todo, place=place)
    return LinesideError(
        "document.syntax",
        f"This is not valid YAML ({problem[:120]}).",
        todo="Check this line and the one above it.",
        place=place,
    )


class _Builder:
    """Makes data out of the parser's events, counting as it goes, so that nothing grows past its bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._places: dict[Path, tuple[int, int]] = {}
        self._written: dict[Path, str] = {}
        self._open: list[tuple[dict[str, Any] | list[Any], Path]] = []
        self._key: list[tuple[str, tuple[int, int]] | None] = []
        self._root: Any = None

    def build(self, text: str) -> Document:
        documents = values = 0
        for event in YAML(typ="safe", pure=True).parse(text):
            kind = type(event).__name__
            at = (event.start_mark.line + 1, event.start_mark.column + 1)
            place = Place(self._name, *at)
            if kind == "DocumentStartEvent":
                documents += 1
                if event.version not in (None, (1, 2)) or event.tags:
                    raise LinesideError(
                        "document.directive",
                        "The file begins with a directive (%...) that is not read.",
                        todo="Remove the lines that begin with %; files are YAML 1.2.",
                        place=Place(self._name, 1),
                    )
                if documents > 1:
                    raise LinesideError(
                        "document.several",
                        "A second document begins here.",
                        todo="Keep one document a file: remove the '---' or '...' line and what follows it.",
                        place=place,
                    )
            elif kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
                raise LinesideError(
                    "document.alias",
                    "There is an anchor (&) or an alias (*), which is not read.",
                    todo="Write the value out where it is needed; put text that begins with & or * in quotes.",
                    place=place,
                )
            elif getattr(event, "tag", None) is not None:
                raise LinesideError(
                    "document.tag",
                    f"There is a tag ({str(event.tag)[:40]}), which is not read.",
                    todo="Remove it; put text that begins with ! in quotes.",
                    place=place,
                )
            elif kind == "ScalarEvent":
                self._scalar(event, at)
            elif kind == "MappingStartEvent":
                self._begin({}, at)
            elif kind == "SequenceStartEvent":
                self._begin([], at)
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                self._open.pop()
                self._key.pop()
            values += kind.endswith(("StartEvent", "ScalarEvent"))
            if values > VALUES_MAX:
                raise LinesideError(
                    "document.too_many_values",
                    f"The file holds more than {VALUES_MAX} values, the most that is read.",
                    todo="Check that it is the right file; split it if it is.",
                    place=place,
                )
        if self._root is None:
            raise LinesideError(
                "document.empty", "The file says nothing.", todo="Write its content.", place=Place(self._name)
            )
        return Document(self._name, self._root, self._places, self._written)

    def _begin(self, container: dict[str, Any] | list[Any], at: tuple[int, int]) -> None:
        if self._open and isinstance(self._open[-1][0], dict) and self._key[-1] is None:
            raise self._bad_key(at)
        if len(self._open) == DEPTH_MAX:
            raise LinesideError(
                "document.too_deep",
                f"Lists and mappings are nested more than {DEPTH_MAX} deep.",
                todo="Nest less.",
                place=Place(self._name, *at),
            )
        path = self._add(container, at)
        self._open.append((container, path))
        self._key.append(None)

    def _scalar(self, event: Any, at: tuple[int, int]) -> None:
        text: str = event.value
        if found := _HIDDEN.search(text):
            raise _hidden(found.group(), Place(self._name, *at))
        plain = event.style is None
        if self._open and isinstance(self._open[-1][0], dict) and self._key[-1] is None:
            if not text or len(text) > 200:
                raise self._bad_key(at)
            mapping, path = self._open[-1]
            if text in mapping:
                first = self._places[(*path, text)][0]
                raise LinesideError(
                    "document.duplicate_key",
                    f"The key {text[:40]!r} stands here a second time; the first is on line {first}.",
                    todo="Keep one of the two.",
                    place=Place(self._name, *at),
                )
            self._key[-1] = (text, at)
            return
        value = self._resolve(text, at) if plain else text
        path = self._add(value, at)
        if plain and isinstance(value, bool | int | float):
            self._written[path] = text

    def _add(self, value: Any, at: tuple[int, int]) -> Path:
        if not self._open:
            self._root = value
            path: Path = ()
        else:
            container, parent = self._open[-1]
            if isinstance(container, dict):
                entry = self._key[-1]
                assert entry is not None
                key, at = entry
                container[key] = value
                path = (*parent, key)
                self._key[-1] = None
            else:
                path = (*parent, len(container))
                container.append(value)
        self._places[path] = at
        return path

    def _resolve(self, text: str, at: tuple[int, int]) -> str | int | float | bool | None:
        if text in _WORDS:
            return _WORDS[text]
        if len(text) > 400 or not _FLOAT.fullmatch(text):
            return text
        number: int | float = int(text) if _INTEGER.fullmatch(text) else float(text)
        if (isinstance(number, int) and abs(number) > INTEGER_MAX) or not math.isfinite(number):
            raise LinesideError(
                "document.number",
                f"The number {text[:40]} is too large to be kept exactly.",
                todo="Write a smaller number in a larger unit, or put it in quotes if it is a text.",
                place=Place(self._name, *at),
            )
        return number

    def _bad_key(self, at: tuple[int, int]) -> LinesideError:
        return LinesideError(
            "document.key",
            "A key is empty, longer than 200 characters, or not a text.",
            todo="Write each entry as 'key: value'.",
            place=Place(self._name, *at),
        )


# From a document to a model ------------------------------------------------------------------------------------

Explain = Callable[[ErrorDetails, Document, Path], LinesideError | None]


def validate(document: Document, model: type[M], explain: Explain | None = None) -> M:
    """The document as `model`, strictly: no text passes for a number and no number for a text, except that an
    unquoted number where a text belongs is kept as it is written (`version: 1.10` is "1.10").

    Raises the first problem with all others in `others`. `explain` may put one in better words.
    """
    try:
        return _as_written(document, model)
    except ValidationError as error:
        raise _first(_problems(error, document, model, explain)) from error


def faults(document: Document, model: type[BaseModel]) -> list[Path]:
    """Where that stands for which `validate` would refuse the document; none when it would not."""
    try:
        _as_written(document, model)
    except ValidationError as error:
        return [_path(document.data, details) for details in error.errors(include_url=False)]
    return []


def _as_written(document: Document, model: type[M]) -> M:
    data = document.data
    try:
        return _strict(model, data)
    except ValidationError as error:
        as_written = {
            path: document.written[path]
            for details in error.errors(include_url=False)
            if details["type"] == "string_type" and (path := _path(data, details)) in document.written
        }
        if not as_written:
            raise
    data = orjson.loads(orjson.dumps(data))
    for path, text in as_written.items():
        _put(data, path, text)
    return _strict(model, data)


def together(problems: Sequence[LinesideError]) -> LinesideError:
    """Several findings of one run as one refusal: the first, with the others in `others`."""
    return _first(list(problems))


def closest(word: str, words: Sequence[str]) -> str:
    """What to write instead of `word`: the one most like it, or all of them."""
    if near := difflib.get_close_matches(word, words, 1, 0.6):
        return f"Did you mean {near[0]!r}?"
    if not words:
        return "There is none."
    return f"Known: {', '.join(sorted(words)[:40])}."


def _strict(model: type[M], data: Any) -> M:
    # Strict JSON, not strict Python: there a list is a tuple and a word is an enumeration's member.
    return model.model_validate_json(orjson.dumps(data), strict=True)


def _first(problems: list[LinesideError]) -> LinesideError:
    first, *others = problems[:PROBLEMS_MAX]
    first.others = tuple(others)
    return first


def _put(data: Any, path: Path, value: str) -> None:
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value


def _path(data: Any, details: ErrorDetails) -> Path:
    """The path in the data: pydantic's location without the labels of unions."""
    path: list[str | int] = []
    node = data
    loc = details["loc"]
    for index, part in enumerate(loc):
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if inside:
            node = node[part]
            path.append(part)
        elif index == len(loc) - 1 and details["type"] == "missing":
            path.append(part)
    return tuple(path)


def _problems(
    error: ValidationError, document: Document, model: type[BaseModel], explain: Explain | None
) -> list[LinesideError]:
    at: dict[Path, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        at.setdefault(_path(document.data, details), []).append(details)
    found = [
        (explain and explain(several[0], document, path)) or _problem(several, document, path, model)
        for path, several in at.items()
    ]
    return sorted(found, key=lambda problem: (problem.place.line, problem.place.column) if problem.place else (0, 0))


_KINDS: Final[Mapping[str, str]] = {
    "string_type": "a text", "float_type": "a number", "int_type": "a whole number", "bool_type": "true or false",
    "int_from_float": "a whole number", "tuple_type": "a list", "list_type": "a list", "dict_type": "a mapping",
    "mapping_type": "a mapping", "model_type": "a mapping", "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}  # fmt: skip


def _problem(several: list[ErrorDetails], document: Document, path: Path, model: type[BaseModel]) -> LinesideError:
    details = several[0]
    kind, context, given = details["type"], details.get("ctx", {}), details["input"]
    place = document.place(path)
    key = next((repr(part) for part in reversed(path) if isinstance(part, str)), "The file")
    if kind == "extra_forbidden":
        return LinesideError(
            "document.unknown_key",
            f"The key {str(path[-1])[:40]!r} is not known here.",
            todo=closest(str(path[-1]), _keys_at(model, document.data, path[:-1])),
            place=place,
        )
    if kind in ("missing", "union_tag_not_found"):
        wanted = str(context.get("discriminator", path[-1] if path else "")).strip("'")
        return LinesideError(
            "document.missing_key", f"The key {wanted!r} is missing here.", todo=f"Add {wanted!r}.", place=place
        )
    if kind in ("literal_error", "enum", "union_tag_invalid"):
        allowed = re.findall(r"'([^']*)'", str(context.get("expected") or context.get("expected_tags")))
        word = str(context.get("tag") or given)[:40]
        return LinesideError(
            "document.unknown_word",
            f"{word!r} is not one of the words that {key} can be.",
            todo=closest(word, allowed),
            place=place,
        )
    kinds = [_KINDS[one["type"]] for one in several if one["type"] in _KINDS]
    if len(kinds) == len(several):
        return LinesideError(
            "document.wrong_type",
            f"{key} must be {' or '.join(dict.fromkeys(kinds))}; here it is {_shown(given)}.",
            todo="Write numbers plainly, such as 12.0: without quotes, unit or leading zeros."
            if any("number" in one for one in kinds)
            else "Correct it.",
            place=place,
        )
    if any(one["type"] == "string_pattern_mismatch" for one in several):
        return LinesideError(
            "document.wrong_form",
            f"{key} cannot be {_shown(given)}.",
            todo="Write a number, or '$' and the name of a parameter."
            if len(several) > 1
            else f"Allowed is what matches {context.get('pattern', '')}",
            place=place,
        )
    message = details["msg"].replace("Input should be", "must be").replace("String should have", "must have")
    return LinesideError(
        "document.wrong_value", f"{key} {message}; here it is {_shown(given)}.", todo="Correct it.", place=place
    )


def _shown(given: Any) -> str:
    if isinstance(given, dict):
        return "a mapping"
    if isinstance(given, list):
        return "a list"
    if given is None:
        return "empty"
    if isinstance(given, bool):
        return str(given).lower()
    return repr(given)[:60] if isinstance(given, str) else str(given)[:60]


def _keys_at(model: type[BaseModel], data: Any, path: Path) -> list[str]:
    """The keys that a mapping at `path` may have; of a union's members only the one that the data names."""
    models: list[type[BaseModel]] = [model]
    node = data
    for part in path:
        node = node[part]
        inner = [found for one in models for found in _models(_fields(one).get(part))]
        models = inner or models
        if isinstance(node, dict):
            named = [one for one in models if _names(one, node)]
            models = named or models
    return [str(key) for one in models for key in _fields(one)]


def _fields(model: type[BaseModel]) -> dict[str | int, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _names(model: type[BaseModel], node: Mapping[str, Any]) -> bool:
    tags = [
        (key, get_args(annotation))
        for key, annotation in _fields(model).items()
        if get_origin(annotation) is Literal and len(get_args(annotation)) == 1
    ]
    return bool(tags) and all(node.get(str(key)) == words[0] for key, words in tags)
