"""The stand-alone verifier: every tampering is found and its row named; what was not checked is said."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edge.verify
from edge.core.events import SignatureMade, decode
from edge.core.record import fingerprint
from edge.journal import open_journal, verify_journal
from edge.verify import Report, Trust, verify
from tests.crash.runs import body
from tests.verify.record import DEVICE, HUB, STRANGER, Record, vectors, whole
from tests.verify.record import VECTORS as VECTORS_PATH

VECTORS = json.loads(VECTORS_PATH.read_text(encoding="utf-8"))
KEYS = Trust({fingerprint(DEVICE.public): DEVICE.public}, {fingerprint(HUB.public): HUB.public})


def fault(report: Report) -> tuple[int, str]:
    assert report.error is None
    assert report.fault is not None, "unnoticed"
    assert not report.ok
    return report.fault["row"], report.fault["why"]


def change(path: Path, sql: str, *values: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(sql, values)
    connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return whole().database(tmp_path / "journal.db")


# What holds ---------------------------------------------------------------------------------------------------------


def test_the_vectors_of_the_page_are_what_the_product_makes() -> None:
    made = vectors()
    for name in VECTORS.keys() - {"frames"}:  # what zstd makes of them differs by its version
        assert made[name] == VECTORS[name]


def test_the_vectors_hold_as_a_journal_and_as_a_mirror(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    for sql in edge.verify.SCHEMA.values():
        connection.execute(sql)
    connection.execute("INSERT INTO meta VALUES('format', 1), ('journal', ?)", (bytes.fromhex(VECTORS["journal"]),))
    for row in VECTORS["rows"]:
        values = (row["seq"], bytes.fromhex(row["epoch"]), bytes.fromhex(row["hash"]), row["body"].encode())
        connection.execute("INSERT INTO row VALUES(?,?,?,?)", values)
    connection.close()
    frames = [bytes.fromhex(frame) for frame in VECTORS["frames"]]
    mirror = b"LSM\x01" + b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
    (tmp_path / "stick.frames").write_bytes(mirror)
    receipt = json.loads(VECTORS["receipt"])
    trust = Trust(KEYS.devices, KEYS.hubs, receipts=(receipt,))
    for name in ("journal.db", "stick.frames"):
        report = verify(tmp_path / name, trust)
        assert report.ok, report
        assert (report.rows, report.head_hash) == (22, VECTORS["rows"][-1]["hash"])
        assert [epoch["first_row"] for epoch in report.epochs] == [1, 15]
        assert (report.seals, report.receipts, report.signatures) == (3, 2, 2)
        assert (report.sealed_seq, report.received_seq) == (20, 18)


def test_without_keys_it_says_what_it_did_not_check(path: Path, tmp_path: Path) -> None:
    said = " ".join(verify(path, Trust()).not_checked)
    for words in ("Rows 21 to 22 are not sealed", "Whose seals", "of 2 electronic", "signed 2 receipts", "cut off"):
        assert words in said
    mirror = verify(whole().mirror(tmp_path / "m.frames"), Trust())
    assert mirror.ok
    assert f"signatures of {mirror.frames} frames" in " ".join(mirror.not_checked)
    checked = verify(path, Trust(KEYS.devices, KEYS.hubs, heads=((22, whole().rows[-1].hash),)))
    assert checked.not_checked == ["Rows 21 to 22 are not sealed: no key shows which device made them."]


async def test_a_live_journal_is_read_with_its_log_and_not_disturbed(tmp_path: Path) -> None:
    live = tmp_path / "journal.db"
    async with open_journal(live, tmp_path / "epoch") as journal:
        await journal.append([body(f"n{n}") for n in range(1200)]).durable()
        report = verify(live, Trust())
        assert (report.ok, report.rows, report.head_hash) == (True, 1200, journal.durable_hash.hex())
        await journal.append([body("more")]).durable()
        assert verify(live, Trust()).rows == 1201
    files = sorted(each.name for each in tmp_path.iterdir())
    assert verify(live, Trust()).rows == 1201
    assert sorted(each.name for each in tmp_path.iterdir()) == files, "the verifier left something"


def test_far_rows_are_read_again_and_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge.verify, "NEAR_CHUNKS", 1)
    monkeypatch.setattr(edge.verify, "FRAME_ROWS_MAX", 14)
    record = whole()
    record.values(30)
    record.receive(3)
    record.receive(25)
    for made in (record.database(tmp_path / "journal.db"), record.mirror(tmp_path / "m.frames")):
        assert verify(made, Trust(KEYS.devices, KEYS.hubs, heads=((4, record.rows[3].hash),))).ok
        row, _ = fault(verify(made, Trust(heads=((4, record.rows[4].hash),))))
        assert row == 4


# Tampering ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "row", "why"),
    [
        ("UPDATE row SET body = CAST(replace(body, 'value-6', 'value-7') AS BLOB) WHERE seq = 7", 7, "was changed"),
        ("DELETE FROM row WHERE seq = 9", 10, "row 9 is missing"),
        ("DELETE FROM row WHERE seq = 1", 2, "row 1 is missing"),
        ("DELETE FROM row WHERE seq > 12", 13, "Row 13 is missing"),
        ("UPDATE row SET seq = 90 WHERE seq = 22", 90, "number of row 22 was changed to 90"),
        ("UPDATE row SET seq = -5 WHERE seq = 3", -5, "numbers begin at 1"),
        ("UPDATE row SET epoch = zeroblob(16) WHERE seq = 12", 12, "epoch of row 12 was changed"),
        ("UPDATE row SET hash = zeroblob(32) WHERE seq = 12", 12, "was changed"),
        ("UPDATE row SET epoch = x'00' WHERE seq = 12", 12, "columns"),
        ("UPDATE row SET body = NULL WHERE seq = 12", 12, "columns"),
        ("UPDATE row SET body = CAST(body AS TEXT) WHERE seq = 12", 12, "columns"),
        ("UPDATE row SET body = zeroblob(50000000) WHERE seq = 12", 12, "cannot be read"),
        ("UPDATE meta SET value = zeroblob(16) WHERE name = 'journal'", 1, "was changed"),
        ("DELETE FROM meta", 0, "description"),
        ("ALTER TABLE row ADD COLUMN more", 0, "tables"),
    ],
)
def test_a_change_of_the_tables_names_its_row(path: Path, sql: str, row: int, why: str) -> None:
    expect = Trust(KEYS.devices, KEYS.hubs, heads=((22, whole().rows[-1].hash),))
    assert verify(path, expect).ok
    change(path, sql)
    found = fault(verify(path, expect))
    assert found[0] == row
    assert why in found[1]
    assert verify_journal(path, expect_head=expect.heads[0]).fault is not None


def test_two_rows_exchanged_are_found(path: Path) -> None:
    change(path, "UPDATE row SET seq = 100 WHERE seq = 3")
    change(path, "UPDATE row SET seq = 3 WHERE seq = 4")
    change(path, "UPDATE row SET seq = 4 WHERE seq = 100")
    assert fault(verify(path, Trust()))[0] == 3


def test_rows_cut_off_are_found_against_a_head_or_the_hubs_receipt(path: Path) -> None:
    receipt = json.loads(whole().receipt(20))
    change(path, "DELETE FROM row WHERE seq > 19")
    assert verify(path, KEYS).ok, "the rows that are left agree"
    row, why = fault(verify(path, Trust(KEYS.devices, KEYS.hubs, receipts=(receipt,))))
    assert row == 20
    assert "the hub's receipt has row 20" in why


def test_a_journal_rewritten_with_another_key_is_found_by_the_pinned_key(tmp_path: Path) -> None:
    forged = whole(STRANGER)
    path = forged.database(tmp_path / "journal.db")
    assert verify(path, Trust()).ok, "it agrees with itself"
    row, why = fault(verify(path, Trust(KEYS.devices)))
    assert row == 5
    assert fingerprint(STRANGER.public) in why
    mirror = forged.mirror(tmp_path / "m.frames")
    assert verify(mirror, Trust()).ok
    assert fault(verify(mirror, Trust(KEYS.devices)))[0] == 1


def test_a_journal_rewritten_with_the_stolen_key_is_found_by_what_the_hub_signed(tmp_path: Path) -> None:
    honest = whole()
    forged = Record()
    forged.values(3)
    forged.sign()
    forged.seal()
    forged.values(20)
    forged.seal()
    path = forged.database(tmp_path / "journal.db")
    assert verify(path, KEYS).ok, "with the device's key it agrees with itself"
    row, why = fault(verify(path, Trust(KEYS.devices, KEYS.hubs, receipts=(json.loads(honest.receipt(20)),))))
    assert row == 20
    assert "hub's receipt" in why
    # Keeping the hub's receipts in the rewritten journal gives it away without anything from outside.
    kept = Record()
    kept.values(7)
    kept.receive(6, text=honest.receipt(6))
    row, why = fault(verify(kept.database(tmp_path / "kept.db"), KEYS))
    assert row == 8
    assert "disagree about head_hash" in why
    # A receipt that the forger makes is not the hub's.
    own = Record()
    own.values(7)
    own.receive(6, text=own.receipt(6, by=STRANGER).replace(fingerprint(STRANGER.public), fingerprint(HUB.public)))
    assert "not the hub's" in fault(verify(own.database(tmp_path / "own.db"), KEYS))[1]


def test_another_journal_in_its_place_is_not_taken_for_it(tmp_path: Path) -> None:
    other = Record(journal=b"another journal.")
    other.values(30)
    other.seal()
    path = other.database(tmp_path / "journal.db")
    receipt = json.loads(whole().receipt(20))
    assert "another journal" in fault(verify(path, Trust(KEYS.devices, KEYS.hubs, receipts=(receipt,))))[1]


def contradicting() -> dict[str, tuple[Record, str]]:
    seal_of_more, wrong_seal, foreign, unattested, receipt_of_more, moved = (Record() for _ in range(6))
    for record in (seal_of_more, wrong_seal, foreign, unattested, receipt_of_more, moved):
        record.values(3)
    later = Record()
    later.values(9)
    later.seal()
    seal_of_more.add(decode(later.rows[-1].body).event)
    other = Record()
    other.values(2)
    other.restored()
    other.seal()
    wrong_seal.add(decode(other.rows[-1].body).event)
    foreign.seal(STRANGER)
    unattested.sign(STRANGER)
    signed = Record()
    signed.values(2)
    signed.sign()
    was = decode(signed.rows[-1].body).event
    assert isinstance(was, SignatureMade)
    moved.add(replace(was, role="quality"))
    receipt_of_more.add(decode(whole().rows[7].body).event)
    return {
        "a seal of rows that are not there": (seal_of_more, "not before it"),
        "a seal of another row": (wrong_seal, "contradicts row 3"),
        "a seal with a foreign key": (foreign, "whose key was not given"),
        "a signature that the device did not attest": (unattested, "did not attest"),
        "a signature whose role was changed": (moved, "did not attest"),
        "a receipt of rows that are not there": (receipt_of_more, "not before it"),
    }


@pytest.mark.parametrize("name", list(contradicting()))
def test_what_contradicts_is_named(tmp_path: Path, name: str) -> None:
    record, why = contradicting()[name]
    for path in (record.database(tmp_path / "journal.db"), record.mirror(tmp_path / "m.frames")):
        row, said = fault(verify(path, KEYS))
        assert row == 4
        assert why in said


def test_rows_without_end_and_without_a_seal_are_not_this_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge.verify, "UNSEALED_ROWS_MAX", 10)
    record = Record()
    record.values(5)
    record.seal()
    record.values(11)
    path = record.database(tmp_path / "journal.db")
    assert verify(path, Trust()).ok
    assert fault(verify(path, KEYS))[0] == 6


# Random damage ------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_every_flipped_bit_of_a_mirror_is_found(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "m.frames"
    if not path.exists():
        whole().mirror(path)
    data = path.read_bytes()
    rng = random.Random(seed)
    flipped = bytearray(data)
    bit = rng.randrange(len(data) * 8)
    flipped[bit // 8] ^= 1 << bit % 8
    damaged = tmp_path / "damaged.frames"
    damaged.write_bytes(flipped)
    report = verify(damaged, KEYS)
    assert fault(report)[1]
    damaged.write_bytes(data[: rng.randrange(5, len(data))])
    cut = verify(damaged, Trust(KEYS.devices, KEYS.hubs, heads=((22, whole().rows[-1].hash),)))
    assert fault(cut)[0] == cut.rows + 1


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_random_damage_is_judged_as_the_journals_own_verification_judges_it(tmp_path: Path, seed: int) -> None:
    path, damaged = tmp_path / "journal.db", tmp_path / "damaged.db"
    if not path.exists():
        whole().database(path)
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 5))):
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
    damaged.write_bytes(data)
    head = (22, whole().rows[-1].hash)
    ours = verify(damaged, Trust(heads=(head,)))
    theirs = verify_journal(damaged, expect_head=head)
    if theirs.ok:
        assert ours.ok, ours
        assert ours.head_hash == head[1].hex()
    else:
        assert not ours.ok, theirs


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(1, 22), st.sampled_from(["epoch", "hash", "body"]), st.integers(0, 10**6))
def test_every_flipped_bit_of_a_row_names_it_as_the_journal_does(
    tmp_path: Path, seq: int, column: str, bit: int
) -> None:
    path, damaged = tmp_path / "journal.db", tmp_path / "damaged.db"
    if not path.exists():
        whole().database(path)
    shutil.copyfile(path, damaged)
    value = bytearray(getattr(whole().rows[seq - 1], column))
    value[bit // 8 % len(value)] ^= 1 << bit % 8
    change(damaged, f"UPDATE row SET {column} = ? WHERE seq = ?", bytes(value), seq)
    theirs = verify_journal(damaged).fault
    assert theirs is not None
    assert fault(verify(damaged, Trust()))[0] == theirs.seq == seq


# The file by itself -------------------------------------------------------------------------------------------------


def alone(file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(file), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=file.parent)


def test_the_one_file_runs_by_itself_on_another_machine(path: Path, tmp_path: Path) -> None:
    laptop = tmp_path / "laptop"
    laptop.mkdir()
    file = Path(shutil.copy(edge.verify.__file__, laptop / "verify.py"))
    (laptop / "device.pub").write_text(DEVICE.public.hex() + "\n")
    (laptop / "hub.pub").write_text(HUB.public.hex() + "\n")
    (laptop / "receipt.json").write_text(whole().receipt(20))
    shutil.copy(path, laptop / "journal.db")
    whole().mirror(laptop / "m.frames")
    trusted = ["--key", laptop / "device.pub", "--hub-key", laptop / "hub.pub", "--receipt", laptop / "receipt.json"]
    told = alone(file, laptop, *trusted)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.count("HOLDS: 22 rows") == 2
    change(laptop / "journal.db", "DELETE FROM row WHERE seq = 9")
    told = alone(file, laptop / "journal.db", laptop / "m.frames", "--json")
    said = json.loads(told.stdout)
    assert (told.returncode, said["ok"]) == (1, False)
    assert [each["ok"] for each in said["files"]] == [False, True]
    assert said["files"][0]["fault"]["row"] == 10


@pytest.mark.parametrize(
    ("name", "content"),
    [("none", None), ("empty", b""), ("text", b"hello"), ("bad.frames", b"LSM\x02"), ("cut", b"LS")],
)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    told = alone(Path(edge.verify.__file__), tmp_path / name)
    assert told.returncode in ({1} if name in {"text", "cut", "bad.frames"} else {2})
    assert "Traceback" not in told.stderr
    assert told.stdout.strip()


@pytest.mark.parametrize("option", ["--key", "--hub-key", "--receipt", "--expect-head"])
def test_what_is_no_key_head_or_receipt_is_a_sentence(path: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "wrong").write_bytes(b"[" * 4000)
    for given_text in (tmp_path / "wrong", tmp_path / "none"):
        told = alone(Path(edge.verify.__file__), path, option, given_text)
        assert (told.returncode, told.stdout) == (2, "")
        assert len(told.stderr.splitlines()) == 1


def test_the_command_of_the_box_says_the_same(path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "edge", "verify", str(path), "--json"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["files"][0]["rows"] == 22
