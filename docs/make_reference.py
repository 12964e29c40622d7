"""Make the reference pages that only repeat the code: `make docs`. A test compares them with the code."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("edge", "drivers", "ui", "hub", "provisioning", "demo")
MADE: Final = "<!-- Made from the code by `make docs`. Change the code, not this page. -->\n\n"


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module of the product with its path in the repository."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


# Errors ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ErrorCode:
    """What the places that raise one code say."""

    what: list[str] = field(default_factory=list)
    effect: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


def errors() -> tuple[dict[str, ErrorCode], list[str]]:
    """Every error code by name, and the places where a code is not a literal."""
    codes: dict[str, ErrorCode] = defaultdict(ErrorCode)
    not_literal: list[str] = []
    modules = list(sources())
    constants = {name: value for _, module in modules for name, value in _constants(module)}
    for path, module in modules:
        for call in ast.walk(module):
            if not (isinstance(call, ast.Call) and _name(call.func) == "LinesideError"):
                continue
            given = dict(zip(("code", "what", "effect", "todo"), call.args, strict=False))
            given |= {word.arg: word.value for word in call.keywords if word.arg}
            code = given.get("code")
            if not (isinstance(code, ast.Constant) and isinstance(code.value, str)):
                not_literal.append(f"{path}:{call.lineno}")
                continue
            entry = codes[code.value]
            effect = given.get("effect", ast.Name("NOTHING_STARTED"))
            for texts, value in (
                (entry.what, given.get("what")),
                (entry.effect, effect),
                (entry.todo, given.get("todo")),
            ):
                text = _sentence(value, constants)
                if text and text not in texts:
                    texts.append(text)
            if path not in entry.files:
                entry.files.append(path)
    return dict(sorted(codes.items())), not_literal


def _constants(module: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            yield node.target.id, node.value


def _sentence(node: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """The text of an expression, with "…" for what is known only when it happens."""
    match node:
        case None:
            return ""
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(v.value if isinstance(v, ast.Constant) else "…" for v in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sentence(left, constants) + _sentence(right, constants)
        case ast.IfExp(body=body, orelse=orelse):
            return " / ".join(filter(None, (_sentence(body, constants), _sentence(orelse, constants))))
        case ast.Name(id=name) if isinstance(constants.get(name), ast.Constant | ast.JoinedStr):
            return _sentence(constants[name], {})
        case _:
            return "…"


def errors_page() -> str:
    codes, _ = errors()
    lines = [
        MADE + "# Errors\n",
        "Every refusal has a code that stays the same, what happened, its effect and the next thing to do.",
        '"…" stands for what is known only when it happens. The command line ends with exit code 2.',
    ]
    area = ""
    for code, entry in codes.items():
        if code.split(".", 1)[0] != area:
            area = code.split(".", 1)[0]
            lines.append(f"\n## {area}")
        lines.append(f"\n### `{code}`\n")
        lines += [_plain(text) for text in entry.what]
        if entry.effect:
            lines.append(f"\n*Effect:* {_plain(' / '.join(entry.effect))}")
        if entry.todo:
            lines.append(f"\n*To do:* {_plain(' / '.join(entry.todo))}")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Markdown that shows the text as it is."""
    for sign in ("\\", "*", "_", "<", "[", "`"):
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


# Commands --------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, Any]]:
    """Every command as it is typed, with its click command; groups first."""
    import typer.main

    from edge.__main__ import app

    def walk(words: Sequence[str], command: Any) -> Iterator[tuple[str, Any]]:
        yield " ".join(words), command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk((*words, name), inner)

    yield from walk(("lineside",), typer.main.get_command(app))


def commands_page() -> str:
    lines = [MADE + "# Commands\n", "Exit codes: 0 done, 1 a check found something, 2 refused in words."]
    for name, command in commands():
        if hasattr(command, "commands"):
            continue
        about, _, example = (command.help or "").partition("Example: ")
        lines.append(f"\n## {name}\n\n{about.strip()}")
        if example:
            lines.append(f"\n```sh\n{example.strip()}\n```")
        rows = [_parameter(p) for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
        if rows:
            lines += ["", "| | | |", "|---|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _parameter(parameter: Any) -> str:
    option = parameter.param_type_name == "option"
    name = ", ".join((*parameter.opts, *parameter.secondary_opts)) if option else parameter.name.upper()
    default = "" if parameter.default is None or callable(parameter.default) else str(parameter.default)
    default = "" if getattr(parameter, "is_flag", False) or "UNSET" in default.upper() else default
    needed = "required" if parameter.required else f"default `{default}`" if default else ""
    return f"| `{name}` | {_cell(getattr(parameter, 'help', '') or '')} | {needed} |"


# Documents: settings, plant, recipe, directory, desk ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page:
    """A page about the models of one or more modules."""

    title: str
    intro: str
    models: tuple[tuple[str, tuple[str, ...]], ...]
    """(module, classes in order; all when empty)."""
    told_by: tuple[str, ...] = ()
    """Modules whose own text stands on the page."""


PAGES: Final = {
    "settings": Page(
        "Settings: lineside.toml and hub.toml",
        "TOML. Relative paths are relative to the folder of the file. `lineside device init DIR` writes a "
        "lineside.toml with every setting and its default, `lineside hub init DIR` a hub.toml. An unknown or "
        "misspelt setting is an error.",
        (("edge/config.py", ("Config", "Broker", "HubTrust", "Mirror")), ("hub/config.py", ("HubConfig",))),
    ),
    "plant": Page(
        "Plant file: plant.yaml",
        "YAML 1.2. Everything that the box may read or write; nothing else can be touched. What a driver wants in "
        "`settings` and `address` stands in [drivers](drivers.md).",
        (
            (
                "edge/core/plant.py",
                ("Plant", "Connection", "Unit", "Tag", "Method", "Argument", "SafeAction", "UnitService", "Procedure"),
            ),
        ),
    ),
    "recipe": Page(
        "Recipe file",
        "YAML 1.2, one file, readable in a diff. Step ids are text: `010` stays `010`. Check a file with "
        "`lineside recipe check FILE`. `lineside recipe schema` prints the JSON Schema for editors. How to write "
        "[selections, loops and formulas](../how-to/write-a-recipe-with-loops.md). What may stand as a unit: "
        "[units of measure](units.md).",
        (("edge/core/recipe/model.py", ()),),
        ("edge/core/formula.py",),
    ),
    "people": Page(
        "People: directory.toml",
        "TOML, one table a person: `[people.ana]`. What each role may do stands in the table below the fields.",
        (("edge/directory.py", ("_Entry",)),),
    ),
    "desk": Page(
        "Desk messages",
        "The desk is a local Unix socket (`desk_socket`); every message is one JSON object on one line, at most "
        '1 MiB. A request is `{"id": …, "do": …}`; the answer repeats the id and says `"ok": true`, or `"ok": false` '
        "with an error. Repeating an id gets the first answer and does nothing twice.",
        (("edge/wire.py", ()),),
    ),
    "drivers": Page(
        "Drivers",
        "What each driver wants in a connection's `settings` and a tag's `address`, and how it behaves. "
        "A site can add its own: [write a driver](../how-to/write-a-driver.md).",
        (),
        (
            "drivers/opcua.py",
            "drivers/opcua_trust.py",
            "drivers/modbus.py",
            "drivers/modbus_address.py",
            "drivers/scale.py",
            "drivers/printer.py",
        ),
    ),
    "rows": Page(
        "Rows of the journal",
        "Each row's body is JSON: `kind`, `v` (version), `at`, `actor`, `batch` and `facts`, made once and never "
        "again. Rows state results: reading them needs no recipe and computes nothing.",
        (("edge/core/events.py", ()),),
        ("edge/core/record.py",),
    ),
    "frames": Page(
        "Frames and receipts",
        "Over MQTT 5, QoS 1. Up: `lineside/1/up/DEVICE/frames`. Down, retained: `lineside/1/down/DEVICE/receipt`. "
        "DEVICE is the fingerprint of the device's key. The broker's acknowledgement counts for nothing; only a "
        "receipt signed by the hub after its own commit does. After a restore: up `lineside/1/up/DEVICE/tail`; down, "
        "not retained, `lineside/1/down/DEVICE/tail`. A broker's access list allows a box these four topics alone.",
        (("edge/core/frame.py", ("Receipt",)), ("edge/core/recall.py", ("Request", "Answer"))),
        ("edge/core/frame.py", "edge/core/recall.py"),
    ),
}


def document_page(page: Page) -> str:
    lines = [MADE + f"# {page.title}\n", page.intro]
    for path in page.told_by:
        text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
        title, _, rest = text.partition("\n")
        text = f"## {title.rstrip('.')}\n{rest}" if len(title) < 20 else text
        lines.append("\n" + text.replace("::\n", ":\n"))
    for path, wanted in page.models:
        module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
        for name in wanted or classes:
            fields = list(_fields(classes[name], classes))
            if not fields or (not wanted and name.startswith("_")):
                continue
            about = _prose(ast.get_docstring(classes[name]) or "")
            lines.append(f"\n## {name.strip('_')}\n" + (f"\n{about}\n" if about else ""))
            lines += ["| | type | default | |", "|---|---|---|---|", *fields]
    return "\n".join(lines) + "\n"


def _fields(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> Iterator[str]:
    for base in node.bases:
        if _name(base).startswith("_") and _name(base) in classes:  # a public base has a section of its own
            yield from _fields(classes[_name(base)], classes)
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
            continue
        name, default, about = statement.target.id, statement.value, ""
        if name.startswith("_"):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            about = str(after.value.value)
        shown = ast.unparse(statement.annotation)
        if isinstance(default, ast.Call) and _name(default.func) == "Field":
            words = {word.arg: word.value for word in default.keywords if word.arg}
            if "exclude" in words:
                continue
            name = _text(words.get("alias")) or name
            about = _text(words.get("description")) or about
            bounds = [
                f"{arg} {ast.unparse(v)}" for arg, v in words.items() if arg in {"gt", "ge", "lt", "le", "max_length"}
            ]
            shown = ", ".join((shown, *bounds))
            default = words.get("default", ast.Constant(()) if "default_factory" in words else None)
        if isinstance(default, ast.Call) and _name(default.func) == "Path":
            default = default.args[0]
        if isinstance(default, ast.Attribute):  # a member of an enumeration, as it stands in a file
            default = ast.Constant(default.attr.lower())
        value = "required" if default is None else f"`{ast.unparse(default)}`"
        yield f"| `{name}` | `{_cell(shown)}` | {_cell(value)} | {_cell(_prose(about))} |"


def permissions_table() -> str:
    """What each role permits."""
    from edge.core.people import PERMITS, Permission
    from edge.core.terms import Role

    lines = ["\n## What a role may do\n", "Doing a step, and signing, needs the role that the step names.\n"]
    lines += ["| | " + " | ".join(Permission) + " |", "|---" * (len(Permission) + 1) + "|"]
    lines += [
        f"| {role} | " + " | ".join("yes" if p in PERMITS[role] else "" for p in Permission) + " |" for role in Role
    ]
    return "\n".join(lines) + "\n"


def views_page() -> str:
    """The tables of views.db."""
    from edge.views import ANY, TABLES

    types = {int: "integer", float: "number", str: "text", ANY: "any"}
    lines = [
        MADE + "# Views: the tables of views.db\n",
        (
            "`state/views.db` says what the journal says, as tables that any SQLite tool reads. It proves nothing: the "
            "journal alone counts. It may be deleted at any time, and is made anew when its tables are not these. "
            "Times are UTC, ISO 8601. How to use it: [search and query](../how-to/search-and-query.md)."
        ),
    ]
    for name, table in TABLES.items():
        lines.append(f"\n## {name}\n\n{table.about}\n")
        if table.indexes:
            lines.append(f"Indexed: {', '.join('(' + ', '.join(columns) + ')' for columns in table.indexes)}.\n")
        lines += ["| | type | |", "|---|---|---|"]
        key = next(iter(table.columns))
        lines += [
            f"| `{column}` | {types[kind]}{', primary key' if column == key else ''} | {_cell(about)} |"
            for column, (kind, about) in table.columns.items()
        ]
    return "\n".join(lines) + "\n"


def operations_page() -> str:
    """The library operations that ship, with their parameters."""
    from edge.core.recipe import read_operation
    from edge.core.recipe.values import shown
    from edge.library import LibraryOperations

    lines = [
        MADE + "# Library operations\n",
        (
            "They ship with Lineside. A recipe calls them (`phase: call`) and gives parameters other values. † marks "
            "what the process owner must still set for the site. How to call them, and how to write your own: "
            "[recipes with loops](../how-to/write-a-recipe-with-loops.md)."
        ),
    ]
    for (name, version), data in sorted(LibraryOperations(ROOT / "no-folder").items()):
        operation = read_operation(data, name)
        lines.append(f"\n## {name} {version}\n\n{operation.title}. {operation.why}\n")
        needs = [f"`{role}`, a {need.cls}" for role, need in operation.units.items()]
        lines.append(
            f"Units: {'; '.join(needs) or 'none'}. Steps: {' → '.join(one.title for one in operation.steps)}.\n"
        )
        lines += ["| parameter | default | range | |", "|---|---|---|---|"]
        for key, one in operation.parameters.items():
            ends = ["" if end is None else f"{end:g}" if isinstance(end, float) else end for end in (one.low, one.high)]
            among = f"{ends[0]} to {ends[1]} {one.unit}".rstrip() if any(ends) else ", ".join(one.choices)
            dagger = " †" if one.placeholder else ""
            lines.append(f"| `{key}` | {shown(one)}{dagger} | {among} | {_cell(one.why)} |")
    return "\n".join(lines) + "\n"


def units_page() -> str:
    """The units of measure, by what they measure."""
    from edge.core.terms import MEASURES

    lines = [
        MADE + "# Units of measure\n",
        (
            "What a recipe and a plant file may write as `unit`; nothing else is taken. Units of one row are converted "
            "into each other where a value meets a limit, a tag or a parameter; a value is recorded in the unit in "
            "which it was given. `uS/cm` is how a keyboard writes µS/cm: both are one unit. No unit is written as an "
            "empty text or `1`.\n"
        ),
        "| | units |\n|---|---|",
    ]
    kinds: dict[str, list[str]] = {}
    for unit, measure in MEASURES.items():
        kinds.setdefault(measure.dimension, []).append(unit)
    for kind, units in kinds.items():
        lines.append(f"| {'a plain number' if kind == 'none' else kind} | {', '.join(f'`{u}`' for u in units if u)} |")
    return "\n".join(lines) + "\n"


def _text(node: ast.expr | None) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _prose(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def pages() -> dict[str, str]:
    """Every made page by its path in the repository."""
    made = {f"docs/reference/{name}.md": document_page(page) for name, page in PAGES.items()}
    made["docs/reference/people.md"] += permissions_table()
    made["docs/reference/errors.md"] = errors_page()
    made["docs/reference/views.md"] = views_page()
    made["docs/reference/commands.md"] = commands_page()
    made["docs/reference/operations.md"] = operations_page()
    made["docs/reference/units.md"] = units_page()
    return made


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}\n")
