"""The reader of documents: what it takes, what it refuses, and that it says where."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from edge.core.document import DEPTH_MAX, FILE_BYTES_MAX, VALUES_MAX, Document, read_document, validate
from edge.core.errors import LinesideError
from edge.core.plant import Frozen
from edge.core.terms import Role


def refusal(data: bytes | str) -> LinesideError:
    with pytest.raises(LinesideError) as caught:
        read_document(data.encode() if isinstance(data, str) else data, "file.yaml")
    error = caught.value
    assert error.what.endswith((".", "!"))
    assert error.todo
    assert error.place is not None
    assert error.place.file == "file.yaml"
    return error


BAD = {
    "broken utf-8": (b"a: 1\nb: gr\xfcn\n", "document.encoding", 2, 6),
    "utf-16": ("a: 1\n".encode("utf-16"), "document.encoding", 1, 1),
    "cut utf-8": (b"a: 1\nb: \xe2\x82", "document.encoding", 2, 4),
    "tab": (b"a:\n\tb: 1\n", "document.tab", 2, 1),
    "nul": (b"a: 1\nb: x\x00y\n", "document.hidden_character", 2, 5),
    "escape character": (b"a: \x1b[2J\n", "document.hidden_character", 1, 4),
    "text that reads backwards": ("a: 1\nb: \u202eevil\n".encode(), "document.hidden_character", 2, 4),
    "byte order mark inside": ("a: \ufeffx\n".encode(), "document.hidden_character", 1, 4),
    "nul by escape": (b'a: 1\nb: "x\\0"\n', "document.hidden_character", 2, 4),
    "half a pair by escape": (b'b: "\\ud800"\n', "document.hidden_character", 1, 4),
    "escape beyond unicode": (b'b: "\\UFFFFFFFF"\n', "document.syntax", 0, 0),
    "unknown escape": (b'a: 1\nb: "\\q"\n', "document.syntax", 2, 6),
    "anchor": (b"a: &x 1\n", "document.alias", 1, 4),
    "alias": (b"a: 1\nb: *a\n", "document.alias", 2, 4),
    "alias cycle": (b"a: &a [*a]\n", "document.alias", 1, 4),
    "merge": (b"a: 1\n<<: *a\n", "document.alias", 2, 5),
    "tag": (b"a: 1\nb: !!python/object/apply:os.system [id]\n", "document.tag", 2, 4),
    "tag of the standard": (b"a: !!str 1\n", "document.tag", 1, 4),
    "bare tag": (b"a: ! 1\n", "document.tag", 1, 4),
    "tag without value": (b"a: !x\nb: 1\n", "document.tag", 1, 4),
    "anchor without value": (b"a: &x\nb: 1\n", "document.alias", 1, 4),
    "duplicate key": (b"a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "document.duplicate_key", 5, 3),
    "duplicate key in one line": (b"{a: 1, 'a': 2}\n", "document.duplicate_key", 1, 8),
    "empty key": (b"a: 1\n: 2\n", "document.key", 2, 1),
    "list as key": (b"a: 1\n? [x]\n: 2\n", "document.key", 2, 3),
    "second document": (b"a: 1\n---\nb: 2\n", "document.several", 2, 1),
    "old yaml": (b"%YAML 1.1\n---\na: 010\n", "document.directive", 1, 0),
    "tag directive": (b"%TAG ! tag:x,2000:\n---\na: 1\n", "document.directive", 1, 0),
    "empty": (b"", "document.empty", 0, 0),
    "only a comment": (b"# nothing\n", "document.empty", 0, 0),
    "null": (b"~\n", "document.empty", 0, 0),
    "two colons": (b"a: 1\nb: c: d\n", "document.syntax", 2, 5),
    "open list": (b"a: [1, 2\nb: 3\n", "document.syntax", 2, 2),
    "open mapping": (b"a: {x: 1\n", "document.syntax", 2, 1),
    "open quote": (b'a: "x\n', "document.syntax", 2, 1),
    "wrong indentation": (b"a: 1\n  b: 2\n", "document.syntax", 2, 4),
    "key without colon": (b"a: 1\nb\nc: 2\n", "document.syntax", 2, 2),
    "at sign": (b"a: @x\n", "document.syntax", 1, 4),
    "number too large": (b"a: 1\nb: 99999999999999999999\n", "document.number", 2, 1),
    "number beyond floats": (b"a: 1e999\n", "document.number", 1, 1),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_code_and_place(name: str) -> None:
    data, code, line, column = BAD[name]
    error = refusal(data)
    assert error.code == code
    assert error.place is not None
    if code == "document.syntax" and line:
        assert error.place.line in (line, line + 1)  # the library marks where it noticed, at times a line later
    elif code == "document.number":
        assert error.place.line == line
    else:
        assert (error.place.line, error.place.column) == (line, column)


def bombs() -> dict[str, tuple[bytes, str]]:
    laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    return {
        "fifty megabytes": (b"a: " + b"x" * 50_000_000, "document.too_large"),
        "one byte too many": (b"a: " + b"x" * (FILE_BYTES_MAX - 2), "document.too_large"),
        "a billion laughs": (laughs.encode(), "document.alias"),
        "deep list": (b"[" * FILE_BYTES_MAX, "document.too_deep"),
        "deep mapping": (b"{a: " * (FILE_BYTES_MAX // 4), "document.too_deep"),
        "deep block list": (b"- " * (FILE_BYTES_MAX // 2), "document.too_deep"),
        "one too deep": (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "document.too_deep"),
        "many values": (b"[" + b"a," * (VALUES_MAX + 10) + b"]", "document.too_many_values"),
        "many empty documents": (b"---\n" * 1000, "document.several"),
    }


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_they_grow(name: str) -> None:
    data, code = bombs()[name]
    began_s = time.process_time()
    assert refusal(data).code == code
    assert time.process_time() - began_s < 20  # minutes or memory without the bounds


def test_a_document_at_the_bounds_is_read() -> None:
    nested = read_document(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX, "x").data
    for _ in range(DEPTH_MAX - 1):
        nested = nested[0]
    assert nested == []


def test_numbers_only_in_the_usual_way_of_writing() -> None:
    text = b"""
        [010, 0x1f, 0o17, 1_000, .5, 5., .inf, -.nan, 1:30, 2026-11-21, yes, off, "1",
         0, -3, +4, 37.0, 1e3, 5.0e-1, true, FALSE, null, ~, ]"""
    assert read_document(text, "x").data == [
        *("010", "0x1f", "0o17", "1_000", ".5", "5.", ".inf", "-.nan", "1:30", "2026-11-21", "yes", "off", "1"),
        *(0, -3, 4, 37.0, 1000.0, 0.5, True, False, None, None),
    ]


def test_line_ends_and_byte_order_mark_change_nothing() -> None:
    text = "a: 1\nb: |\n  x\n  y\nc: größer\n"
    plain = read_document(text.encode(), "x")
    assert read_document(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode(), "x") == plain
    assert read_document(text.replace("\n", "\r").encode(), "x") == plain
    assert plain.data == {"a": 1, "b": "x\ny\n", "c": "größer"}


def test_places_are_of_keys_and_items() -> None:
    document = read_document(b"a:\n  - x: 1\n    y: {z: 2}\n  - 3\n", "f")
    assert str(document.place(("a",))) == "f:1:1"
    assert str(document.place(("a", 0, "y", "z"))) == "f:3:9"
    assert str(document.place(("a", 1))) == "f:4:5"
    assert str(document.place(("a", 0, "missing", "deeper"))) == "f:2:5"


# Into a model --------------------------------------------------------------------------------------------------


class Inner(Frozen):
    id: str
    value: float | None = None
    role: Role = Role.OPERATOR


class Outer(Frozen):
    name: str = Field(max_length=5)
    count: int = Field(default=1, ge=1)
    on: bool = False
    inner: tuple[Inner, ...] = ()


def outer(text: str) -> Outer:
    return validate(read_document(text.encode(), "f"), Outer)


def findings(text: str) -> list[tuple[str, int]]:
    with pytest.raises(LinesideError) as caught:
        outer(text)
    return [(one.code, one.place.line if one.place else 0) for one in (caught.value, *caught.value.others)]


def test_text_stays_as_it_is_written() -> None:
    for written in ("010", "8", "1.10", "1e3", "true", "0x1f"):
        assert outer(f"name: {written}\ninner:\n  - id: {written}\n").name == written
        assert outer(f"name: {written}\ninner:\n  - id: {written}\n").inner[0].id == written


def test_nothing_else_is_converted() -> None:
    assert findings("name: x\ncount: '2'\n") == [("document.wrong_type", 2)]
    assert findings("name: x\ncount: 2.5\n") == [("document.wrong_type", 2)]
    assert findings("name: x\ncount: true\n") == [("document.wrong_type", 2)]
    assert findings("name: x\non: 1\n") == [("document.wrong_type", 2)]
    assert findings("name: x\ninner: [{id: a, value: '37'}]\n") == [("document.wrong_type", 2)]
    assert findings("name: x\ninner: [{id: a, value: 037}]\n") == [("document.wrong_type", 2)]
    assert findings("name:\n") == [("document.wrong_type", 1)]


def test_all_findings_at_once_in_the_order_of_the_file() -> None:
    text = "naem: x\ncount: 0\non: maybe\ninner:\n  - id: [1]\n    rol: operator\n  - role: oprator\n  - 3\n"
    assert findings(text) == [
        ("document.missing_key", 1),
        ("document.unknown_key", 1),
        ("document.wrong_value", 2),
        ("document.wrong_type", 3),
        ("document.wrong_type", 5),
        ("document.unknown_key", 6),
        ("document.missing_key", 7),
        ("document.unknown_word", 7),
        ("document.wrong_type", 8),
    ]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("naem: x\nname: y\n", "Did you mean 'name'?"),
        ("name: y\ninner: [{id: a, rolle: operator}]\n", "Did you mean 'role'?"),
        ("name: y\ninner: [{id: a, role: oprator}]\n", "Did you mean 'operator'?"),
        ("name: y\nzzz: 1\n", "Known: count, inner, name, on."),
    ],
)
def test_hints(text: str, hint: str) -> None:
    with pytest.raises(LinesideError) as caught:
        outer(text)
    assert caught.value.todo == hint


def test_the_library_never_speaks() -> None:
    with pytest.raises(LinesideError) as caught:
        outer("name: much too long\ncount: 0\n")
    assert str(caught.value) == (
        "f:1:1: document.wrong_value: 'name' must have at most 5 characters; here it is 'much too long'.\n"
        "  effect: Nothing was started and nothing was changed.\n"
        "  to do:  Correct it.\n"
        "f:2:1: document.wrong_value: 'count' must be greater than or equal to 1; here it is 0.\n"
        "  effect: Nothing was started and nothing was changed.\n"
        "  to do:  Correct it."
    )


# Anything at all -----------------------------------------------------------------------------------------------

YAML_LIKE = st.text(alphabet="ab01 \n:-,[]{}#&*!|>'\"%@`?.\\~<=xU\t\r\ufeff\u2028\x85é", max_size=200)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200) | YAML_LIKE.map(str.encode))
def test_anything_is_read_or_refused(data: bytes) -> None:
    try:
        document = read_document(data, "x")
    except LinesideError:
        return
    assert isinstance(document, Document)


@settings(max_examples=100, deadline=None)
@given(YAML_LIKE)
def test_any_document_makes_a_model_or_a_refusal(text: str) -> None:
    with contextlib.suppress(LinesideError):
        outer("name: x\ninner:\n  - " + text)
