"""Log-in without a network: who is there, whose badge, whose PIN."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.core.errors import LinesideError
from edge.core.terms import Role
from edge.directory import Directory, directory_entry, hash_pin

HASH = hash_pin("2468")


def load(tmp_path: Path, text: str) -> Directory:
    path = tmp_path / "directory.toml"
    path.write_text(text)
    return Directory.load(path)


async def test_a_pin_fits_its_own_person_only(tmp_path: Path) -> None:
    other = hash_pin("1357")
    directory = load(
        tmp_path,
        directory_entry("ana", "Ana", "B-1", [Role.OPERATOR], HASH)
        + directory_entry("ben", "Ben", "", [Role.VERIFIER, Role.QUALITY], other),
    )
    assert await directory.verify("ana", "2468")
    assert await directory.verify("ben", "1357")
    for person, pin in [
        ("ana", "1357"),
        ("ana", ""),
        ("ana", "2468" + "0" * 80),
        ("ana", "\ud800"),
        ("eve", "2468"),
        ("", ""),
    ]:
        assert not await directory.verify(person, pin)
    found = directory.find_badge("B-1")
    assert found
    assert (found.id, found.roles) == ("ana", (Role.OPERATOR,))
    assert directory.find_badge("") is None
    assert directory.find_badge("B-2") is None
    assert HASH not in repr(directory.people)


async def test_an_unknown_person_takes_as_long_as_a_wrong_pin_and_the_loop_stays_free(tmp_path: Path) -> None:
    directory = load(tmp_path, directory_entry("ana", "Ana", "", [Role.OPERATOR], HASH))
    await directory.verify("ana", "0000")

    async def work_s(person: str) -> float:
        spent: list[float] = []
        for _ in range(5):
            before = time.process_time()
            await directory.verify(person, "0000")
            spent.append(time.process_time() - before)
        return min(spent)

    known, unknown = await work_s("ana"), await work_s("eve")
    assert 0.5 < unknown / known < 2.0

    checking = asyncio.create_task(directory.verify("ana", "2468"))
    turns = 0
    while not checking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
    assert await checking


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ('[people.ana]\nname = "A"\nroles = ["opertor"]\npin_hash = "x"\n', "config.value", 3),
        ('[people.ana]\nname = "A"\nrols = []\n', "config.required", 1),
        ('[people.ana]\nname = "A"\nroles = ["operator"]\npin_hash = "1234"\n', "config.value", 4),
        (
            '[people.ana]\nname = "A"\nroles = ["operator"]\npin_hash = "WEAK"\n',
            "config.value",
            4,
        ),
        ('[people.ana]\nname = "A"\nroles = []\n', "config.value", 3),
        ('[people."Ana Ruiz"]\nname = "A"\nroles = ["operator"]\n', "config.value", 1),
        ("people = 3\n", "config.type", 1),
    ],
)
def test_a_wrong_directory_is_refused_in_words(tmp_path: Path, text: str, code: str, line: int) -> None:
    with pytest.raises(LinesideError) as caught:
        load(tmp_path, text.replace("WEAK", HASH.replace("m=19456", "m=8")))
    found = [caught.value, *caught.value.others]
    assert (code, line) in [(error.code, error.place.line if error.place else None) for error in found]
    assert HASH[-20:] not in str(caught.value)


def test_two_people_never_share_a_badge(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"directory\.badge_twice"):
        load(
            tmp_path,
            directory_entry("a", "A", "B", [Role.OPERATOR], HASH)
            + directory_entry("b", "B", "B", [Role.OPERATOR], HASH),
        )


def test_argon2_costs_nothing_until_someone_logs_in() -> None:
    code = "import sys, edge.directory; sys.exit('argon2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
