"""Labels as data for a printer that speaks ZPL II: a template with bounded fields, and nothing of a batch that a
printer could take for a command. Pure.

A template is ZPL between `^XA` and `^XZ`, of the commands in `COMMANDS` alone, without `~` commands. A field is
`{Title}` within `^FD...^FS`; `{code}` is what the code says. What is put in is written as hexadecimal (`^FH`) wherever
it is not a letter, a digit or plain punctuation; a control character becomes a space.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

COMMANDS: Final = (
    "A", "B3", "B7", "BC", "BO", "BQ", "BX", "BY", "CF", "CI", "FB", "FD", "FO", "FR", "FS", "FT", "FW", "FX",
    "GB", "GC", "GD", "GE", "LH", "LL", "LS", "LT", "PO", "PW", "TB",
)  # fmt: skip
"""Where things stand, fonts, codes, boxes. Nothing that sets up a printer, stores in it, or prints more than once."""
TEMPLATE_CHARS_MAX: Final = 2_000
FIELD_CHARS_MAX: Final = 200
COPIES_MAX: Final = 500
CODE: Final = re.compile(r"[A-Za-z0-9 .:/+=%&$_-]{1,80}")
"""What a code may say: nothing that a symbology takes for an order to it, as Code 128 does `>`."""
_FIELD: Final = re.compile(r"\^FD(.*?)\^FS", re.DOTALL)
_NAMED: Final = re.compile(r"\{([^{}]*)\}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9 .,:;()/+=%-]")


def problem(template: str, names: Iterable[str]) -> tuple[str, str] | None:
    """What is wrong with a template whose fields may be `names` and "code", and what to do; None when nothing is."""
    body = template.strip()
    if len(body) > TEMPLATE_CHARS_MAX or not all(char.isprintable() or char in "\n\t" for char in body):
        return "is too long or has control characters", f"Write at most {TEMPLATE_CHARS_MAX} characters of plain ZPL."
    if not body.startswith("^XA") or not body.endswith("^XZ") or "~" in body:
        return "is not one label from ^XA to ^XZ", "Begin with ^XA, end with ^XZ, and use no ~ command."
    inner = body[3:-3]
    for one in inner.split("^")[1:]:
        word = one[:1] if one[:1] == "A" else one[:2]
        if word not in COMMANDS:
            return f"uses ^{one[:2]}", f"Use these commands alone: {' '.join(COMMANDS)}. Copies are the step's."
    if _NAMED.search(_FIELD.sub("", inner)):
        return "has a field outside ^FD...^FS", "Put each {field} between ^FD and ^FS."
    known = {*names, "code"}
    for name in _NAMED.findall(inner):
        if name not in known:
            return f"has the field {name[:40]!r}", f"Use the lines of `content`: {', '.join(sorted(known))}."
    if "{code}" not in inner:
        return "does not print the code", "Put {code} into a code, for example ^BCN,90,Y,N,N^FD{code}^FS."
    if "^BX" in inner and not re.search(r"\^BX(?:[^,^]*,){6}\|", inner):
        return "lets a data matrix take _ or ~ for an order", "Give ^BX the escape character |, as ^BXN,6,200,,,,|."
    return None


def layout(titles: Iterable[str]) -> str:
    """The template of a step that gives none: a line for each title, and the code below."""
    lines = [f"^FO30,{30 + 40 * n}^A0N,30,30^FD{title}: {{{title}}}^FS" for n, title in enumerate(titles)]
    return "^XA^CI28" + "".join(lines) + f"^FO30,{50 + 40 * len(lines)}^BY2^BCN,90,Y,N,N^FD{{code}}^FS^XZ"


def escaped(text: str) -> str:
    """The text as field data behind `^FH`, bounded."""
    cut = "".join(char if char.isprintable() else " " for char in text)[:FIELD_CHARS_MAX]
    return "".join(
        char if _PLAIN.fullmatch(char) else "".join(f"_{byte:02X}" for byte in char.encode("utf-8", "replace"))
        for char in cut
    )


def label(template: str, content: Mapping[str, str], code: str, copies: int) -> str:
    """The label as it goes to the printer."""
    fields = {**content, "code": code}

    def field(found: re.Match[str]) -> str:
        pieces = _NAMED.split(found[1])  # text, name, text, name, ... text
        data = "".join(escaped(fields[one] if place % 2 else one) for place, one in enumerate(pieces))
        return f"^FH^FD{data}^FS"

    body = template.replace("\n", "").replace("\t", "").strip().removeprefix("^XA").removesuffix("^XZ")
    body = _FIELD.sub(field, body)
    return f"^XA{body}^PQ{copies},0,1,Y^XZ"


def fingerprint(printed: str) -> str:
    """What a printer's tag reads once this label was printed: it names the label and says nothing of the batch."""
    return hashlib.sha256(printed.encode()).hexdigest()[:16]
