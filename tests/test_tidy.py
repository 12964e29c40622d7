"""The house stays in order: what is documented is there, what is there is documented, and nothing is left lying."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge.core.recipe import model
from edge.core.terms import Act, ClockQuality, Quality, Role, State

ROOT = Path(__file__).parents[1]
BROAD_EXCEPTS_MAX = 12
"""Only the edge of a supervised task may catch everything. Raise this with a reason or not at all."""

REFERENCE: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
PAGES: dict[str, str] = REFERENCE["pages"]()
# These pass on the refusal of another process, code and all; everywhere else a code is a literal.
PASSED_ON = {"edge/desk_client.py"}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, new ones included, ignored ones not."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def python(*folders: str) -> Iterator[tuple[str, str, ast.Module]]:
    for path in tracked(*(f"{folder}/*.py" for folder in folders)):
        text = path.read_text(encoding="utf-8")
        yield path.relative_to(ROOT).as_posix(), text, ast.parse(text)


PRODUCT = ("edge", "drivers", "ui", "hub", "provisioning", "demo")


# Documentation and code say the same --------------------------------------------------------------------------------


@pytest.mark.parametrize("page", sorted(PAGES))
def test_reference_pages_repeat_the_code(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == PAGES[page], "run: make docs"


def test_error_codes_are_literals_that_stay() -> None:
    codes, not_literal = REFERENCE["errors"]()
    assert [place for place in not_literal if place.split(":")[0] not in PASSED_ON] == []
    assert [code for code in codes if not re.fullmatch(r"[a-z]+\.[a-z][a-z0-9_]*", code)] == []
    assert [code for code, entry in codes.items() if not entry.what or not entry.todo] == []


def test_every_command_teaches_by_an_example() -> None:
    for name, command in REFERENCE["commands"]():
        assert command.help, name
        if not hasattr(command, "commands"):
            assert f"Example: {name}" in command.help, name


def test_commands_in_the_documents_exist() -> None:
    known = dict(REFERENCE["commands"]())
    for path in [*tracked("*.md"), *tracked("systemd/*", "provisioning/*.py")]:
        for line in re.findall(
            r"(?:^|[`$/ \"])lineside ((?:[a-z]+(?:-[a-z]+)* ?)+)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            name = "lineside"
            for word in line.split():
                if not hasattr(known[name], "commands"):
                    break
                if f"{name} {word}" not in known:
                    # Prose after the name of the product, unless it is typed as a command.
                    assert name == "lineside", f"{path.name}: there is no command {name} {word}"
                    break
                name = f"{name} {word}"


def test_every_feature_row_names_a_test_that_is_there() -> None:
    rows = re.findall(r"^\| *(\d+) *\|(.*)\|(.*)\|$", (ROOT / "docs/reference/features.md").read_text(), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == sorted({int(number) for number, _, _ in rows})
    assert len(rows) >= 16
    for number, _, proofs in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", proofs)
        assert named, f"row {number} names no test"
        for file, function in named:
            assert (ROOT / file).is_file(), f"row {number}: {file}"
            if function:
                assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / file).read_text(), re.MULTILINE), function


def test_the_glossary_has_every_word_of_the_vocabulary() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").casefold()
    phases = [cls.model_fields["phase"].annotation.__args__[0] for cls in _phases()]
    enums: list[type[StrEnum]] = [State, Role, Act, Quality, ClockQuality]
    words = [member.value for enum in enums for member in enum]
    assert [word for word in [*words, *phases] if not re.search(rf"\b{word}\b", glossary)] == []
    assert "instruct" in phases


def _phases() -> Iterator[Any]:
    for value in vars(model).values():
        if isinstance(value, type) and "phase" in getattr(value, "model_fields", {}):
            yield value


def test_links_in_the_documents_lead_somewhere() -> None:
    broken = []
    for page in tracked("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if "://" in target or target.startswith("mailto:"):
                continue
            file, _, anchor = target.partition("#")
            there = page.parent / file if file else page
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.casefold()).replace(" ", "-") for title in titles}


# Nothing is left lying -----------------------------------------------------------------------------------------------


def test_no_test_sleeps() -> None:
    sleepers = []
    for path, _, tree in python("tests"):
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            turn = len(call.args) == 1 and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
            if name == "sleep" and not turn:
                sleepers.append(f"{path}:{call.lineno}")
    assert sleepers == []


def test_no_drawer_for_odds_and_ends() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
    assert [
        path
        for path in tracked()
        if drawers & {part.casefold() for part in (*path.parts[len(ROOT.parts) : -1], path.stem)}
    ] == []
    classes = [
        f"{path}: {node.name}"
        for path, _, tree in python(*PRODUCT, "tests", "bench")
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Utils"))
    ]
    assert classes == []


def test_nothing_of_one_machine_or_of_a_package_host_is_in_the_repository() -> None:
    hosts = "|".join(("py" + r"pi\.org", "python" + "hosted", "simple/" + "index", "/opt/" + "pypi"))
    machine = re.compile(rf"{hosts}|/(?:work|root)/|/home/[a-z]+/|/tmp/[a-z]")
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match}" for match in set(machine.findall(text))]
    assert found == []


def test_catching_everything_is_rare_and_says_why() -> None:
    broad, silent = [], []
    for path, text, tree in python(*PRODUCT):
        lines = text.splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler):
                continue
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue  # tidies up and lets everything through
            caught = ast.unparse(node.type) if node.type else "everything"
            if not re.search(r"\b(everything|Exception|BaseException)\b", caught):
                continue
            broad.append(f"{path}:{node.lineno}")
            if not any(
                "#" in re.sub(r"#\s*noqa\S*(\s*[A-Z]+\d+,?)*\s*$", "", line)
                for line in lines[node.lineno - 1 : node.lineno + 1]
            ):
                silent.append(f"{path}:{node.lineno}")
    assert silent == []
    assert len(broad) <= BROAD_EXCEPTS_MAX, broad


def test_the_core_reads_no_clock() -> None:
    clocks = {"now", "utcnow", "today", "monotonic", "perf_counter", "time_ns"}
    found = [
        f"{path}:{node.lineno}"
        for path, _, tree in python("edge/core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in clocks
        and getattr(node.value, "id", "") in {"datetime", "date", "time"}
    ]
    assert found == []


# Locks --------------------------------------------------------------------------------------------------------------


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    return {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    }


LOCKS = {
    "dev": ["dev", "build", "demo", "hub", "provisioning", "report", "ui"],
    "edge": ["build"],
    "ui": ["build", "ui"],
    "hub": ["build", "hub"],
}


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_locks_fit_the_project_and_each_other(lock: str, extras: list[str]) -> None:
    locked = pins(lock)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(w for extra in extras for w in project["optional-dependencies"][extra])]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name != "lineside":
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text
    assert locked.items() <= pins("dev").items()


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_hashes_and_no_address(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text(encoding="utf-8")
    assert not re.search(
        r"://|^\s*-|^[^ ]+ @ |file:",
        re.sub(r"^ +--hash=sha256:[0-9a-f]{64}( \\)?$", "", text, flags=re.MULTILINE),
        re.MULTILINE,
    )
    blocks = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(lock))
    assert all("--hash=sha256:" in block for block in blocks)
