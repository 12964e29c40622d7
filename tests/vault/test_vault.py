"""The vault alone: a pseudonym survives any power failure, and what is erased is nowhere in the folder."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import vault as vaults
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.pseudonym import ALPHABET, RANDOM_BYTES, alike, is_pseudonym, pseudonym
from edge.vault import IDENTITIES_MAX, Vault, copy_vault, find, kept, open_vault
from tests.crash.disk import CrashDisk, image

UTC = "2026-11-22T02:00:00.000Z"
HOWS = ("drop", "keep", "mix", "tear")


def code(work) -> str:
    with pytest.raises(LinesideError) as refused:
        work()
    assert refused.value.what
    assert refused.value.todo
    return refused.value.code


def din(number: int) -> str:
    return f"=A9999{number:010d}"


def found_in(folder: Path, identity: str) -> list[str]:
    """The files of the folder that hold the identity's bytes."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and identity.encode() in path.read_bytes())


# Pseudonyms ----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.integers(0, 11), st.sampled_from(ALPHABET))
def test_every_single_wrong_character_of_a_pseudonym_is_found(noise: bytes, place: int, char: str) -> None:
    name = pseudonym(noise)
    assert is_pseudonym(name)
    at = [i for i, c in enumerate(name) if i > 1 and c != "-"][place]
    wrong = name[:at] + char + name[at + 1 :]
    assert is_pseudonym(wrong) == (wrong == name)


@given(st.text())
def test_no_text_breaks_the_look_at_a_pseudonym(text: str) -> None:
    assert not is_pseudonym(text) or text.startswith("P-")
    assert not is_pseudonym("P-" + text + " ")


def test_a_code_of_the_same_form_is_probably_another_patients() -> None:
    assert alike("=A99992", "=A99991")
    assert not alike("LOT-778", "=A99991")
    assert not alike("=A", "=A99991")
    assert not alike("", "=A99991")


# Keeping -------------------------------------------------------------------------------------------------------------


def test_one_identity_has_one_pseudonym_also_after_a_start(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    with open_vault(path) as vault:
        first = vault.take(din(1), UTC, patient=False)
        assert is_pseudonym(first)
        assert vault.take(din(1), UTC, patient=True) == first
        assert vault.take(din(2), UTC, patient=False) != first
    with open_vault(path) as vault:
        assert vault.take(din(1), UTC, patient=False) == first
        assert vault.identity(first) == din(1)
        assert vault.identity("P-0000-0000-0000") is None
    assert [(line.pseudonym, line.patient) for line in kept(path) if line.patient] == [(first, True)]
    assert (find(path, din(1)), find(path, din(3))) == (first, None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["vault.db"]


def test_what_is_known_is_hidden_and_what_may_be_something_else_is_not(tmp_path: Path) -> None:
    with open_vault(tmp_path / "vault.db") as vault:
        ordered = vault.take(din(1), UTC, patient=True)
        short = vault.take("=A1", UTC, patient=True)
        scanned = vault.take("LOT-7", UTC, patient=False)
        assert vault.hide(f" {din(1)} ") == ordered
        assert vault.hide(f"bag {din(1)}, again {din(1)}.") == f"bag {ordered}, again {ordered}."
        assert vault.hide(f"bag {din(1)}", parts=False) == f"bag {din(1)}"
        assert vault.hide("=A1") == short
        assert vault.hide("=A1 is short") == "=A1 is short"
        assert (vault.hide("LOT-7"), vault.hide("LOT-7", others=False)) == (scanned, "LOT-7")
        assert vault.hide("nothing of anybody") == "nothing of anybody"


def test_a_full_vault_takes_no_more_and_keeps_giving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaults, "IDENTITIES_MAX", 2)
    assert IDENTITIES_MAX > 2
    with open_vault(tmp_path / "vault.db") as vault:
        first = vault.take(din(1), UTC, patient=True)
        vault.take(din(2), UTC, patient=True)
        assert code(lambda: vault.take(din(3), UTC, patient=True)) == "vault.full"
        assert vault.take(din(1), UTC, patient=True) == first
        vault.erase([first], 1)
        assert is_pseudonym(vault.take(din(3), UTC, patient=True))


def test_what_is_no_vault_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "vault.db"
    assert code(lambda: kept(path)) == "vault.none"
    noise = random.Random(7).randbytes(20_000)
    for content in (b"no database", noise, b"SQLite format 3\0" + noise):
        path.write_bytes(content)
        assert code(lambda: open_vault(path).__enter__()) == "vault.unreadable"
        assert code(lambda: kept(path)) == "vault.unreadable"
        assert path.read_bytes() == content
    path.unlink()
    with open_vault(path) as vault:
        vault._connection.execute("UPDATE meta SET value=2 WHERE name='format'")
    assert code(lambda: open_vault(path).__enter__()) == "vault.unreadable"
    path.unlink()
    path.mkdir()
    assert code(lambda: open_vault(path).__enter__()) == "vault.cannot_write"


def test_a_disk_that_writes_no_more_is_said_in_words(tmp_path: Path) -> None:
    disk = CrashDisk()
    with disk.mounted() as name, open_vault(tmp_path / "vault.db", vfs=name) as vault:
        first = vault.take(din(1), UTC, patient=True)
        disk.fail_at = len(disk.log)
        assert code(lambda: vault.take(din(2), UTC, patient=True)) == "vault.cannot_write"
        disk.fail_at = None
        assert vault.identity(first) == din(1)


def test_a_copy_is_whole_while_the_box_writes(tmp_path: Path) -> None:
    with open_vault(tmp_path / "vault.db") as vault:
        names = [vault.take(din(n), UTC, patient=True) for n in range(50)]
        copy_vault(tmp_path / "vault.db", tmp_path / "copy.db")
        vault.take(din(99), UTC, patient=True)
    with open_vault(tmp_path / "copy.db") as copy:
        assert [copy.identity(name) for name in names] == [din(n) for n in range(50)]
    assert stat.S_IMODE((tmp_path / "copy.db").stat().st_mode) == 0o600


# A power failure at every write --------------------------------------------------------------------------------------


def lost(folder: Path) -> list[str]:
    """What a row could name and the vault does not know, after a power failure at any moment, in any way."""
    disk, missing = CrashDisk(), []
    folder.mkdir()
    with disk.mounted() as name, open_vault(folder / "vault.db", vfs=name) as vault:
        for number in range(6):
            disk.mark((vault.take(din(number), UTC, patient=True), din(number)))
    for upto in range(len(disk.log) + 1):
        promised = [op.mark for op in disk.log[:upto] if op.what == "mark"]
        for how in HOWS:
            left = folder / f"{upto}-{how}"
            left.mkdir()
            for file, data in image(disk.log, upto, how, seed=upto).items():
                (left / file).write_bytes(data)
            try:
                with open_vault(left / "vault.db") as vault:
                    missing += [f"{upto} {how}" for name, known in promised if vault.identity(name) != known]
            except LinesideError as error:
                missing.append(f"{upto} {how} {error.code}")
    return missing


def test_a_pseudonym_that_was_given_survives_a_power_failure_at_every_write(tmp_path: Path) -> None:
    assert lost(tmp_path / "v") == []


@pytest.mark.parametrize("synchronous", ["OFF", "FULL"])
def test_planted_bug_a_pseudonym_before_the_vault_is_durable_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    monkeypatch.setattr(vaults, "SYNCHRONOUS", synchronous)
    assert lost(tmp_path / "v")


# Erasing -------------------------------------------------------------------------------------------------------------


def left_behind(folder: Path) -> list[str]:
    """The erased identities whose bytes are still in some file, after many came and went."""
    chance = random.Random(11)
    with open_vault(folder / "vault.db") as vault:
        names = {n: vault.take(din(n), UTC, patient=bool(n % 2)) for n in range(300)}
        gone = chance.sample(sorted(names), 200)
        for at, number in enumerate(gone, 1):
            vault._connection.execute("DELETE FROM identity WHERE pseudonym=?", (names[number],))
            if at % 50 == 0:
                vault.erase([names[number]], at)
        assert [n for n in names if n not in gone and vault.identity(names[n]) != din(n)] == []
    return [file for number in gone for file in found_in(folder, din(number))]


def test_what_is_erased_is_in_no_byte_of_the_folder(tmp_path: Path) -> None:
    assert left_behind(tmp_path) == []


def test_planted_bug_erasing_without_overwriting_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaults, "SECURE_DELETE", False)

    def only_delete(self: Vault, pseudonyms: list[str], _seq: int) -> None:
        self._connection.executemany("DELETE FROM identity WHERE pseudonym=?", [(name,) for name in pseudonyms])

    monkeypatch.setattr(Vault, "erase", only_delete)
    assert left_behind(tmp_path)


@contextmanager
def _dies_at(disk: CrashDisk, at: int) -> Iterator[None]:
    disk.fail_at = at
    try:
        yield
    finally:
        disk.fail_at = None


def test_erasing_cut_at_every_write_is_done_at_the_next_start(tmp_path: Path) -> None:
    disk = CrashDisk()
    with disk.mounted() as vfs, open_vault(tmp_path / "vault.db", vfs=vfs) as vault:
        names = [vault.take(din(n), UTC, patient=True) for n in range(30)]
        began = len(disk.log)
        vault.erase([names[7]], 9)
    row = ev.IdentityErased(pseudonym=names[7], reason="asked", previous_seq=0)
    for upto in range(began, len(disk.log) + 1):
        for how in HOWS:
            left = tmp_path / f"{upto}-{how}"
            left.mkdir()
            for file, data in image(disk.log, upto, how, seed=upto).items():
                (left / file).write_bytes(data)
            with open_vault(left / "vault.db") as vault:
                vault.catch_up(9, lambda _seq: row)
                assert [n for n, name in enumerate(names) if vault.identity(name) != din(n)] == [7]
            assert found_in(left, din(7)) == [], (upto, how)


def test_a_restored_older_vault_forgets_again_and_a_newer_one_is_taken_as_it_is(tmp_path: Path) -> None:
    with open_vault(tmp_path / "vault.db") as vault:
        names = [vault.take(din(n), UTC, patient=True) for n in range(4)]
        copy_vault(tmp_path / "vault.db", tmp_path / "old.db")
        vault.erase([names[1]], 20)
        vault.erase([names[2]], 35)
    rows = {
        20: ev.IdentityErased(pseudonym=names[1], reason="asked", previous_seq=0),
        35: ev.IdentityErased(pseudonym=names[2], reason="asked", previous_seq=20),
    }
    os.replace(tmp_path / "old.db", tmp_path / "vault.db")  # noqa: PTH105
    with open_vault(tmp_path / "vault.db") as vault:
        assert vault.identity(names[1]) == din(1)
        vault.catch_up(35, rows.get)
        assert [vault.identity(name) for name in names] == [din(0), None, None, din(3)]
        vault.catch_up(35, lambda seq: pytest.fail(f"row {seq} was read again"))
        vault.catch_up(0, lambda seq: pytest.fail(f"row {seq} of a journal that is older"))
        assert vault.identity(names[0]) == din(0)
        vault.catch_up(35, rows.get)
        assert code(lambda: vault.catch_up(50, rows.get)) == "vault.behind"
    assert found_in(tmp_path, din(1)) == []
