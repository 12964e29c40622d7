"""A box with real parts: a patient's identity is in the vault and nowhere else, and can be erased from it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from edge import wire
from edge.backup import back_up, restore
from edge.config import Config
from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode
from edge.core.pseudonym import is_pseudonym
from edge.core.review import as_built, as_text
from edge.desk import ENTRIES, _Client
from edge.desk_client import DeskClient, connect
from edge.identity import read_public
from edge.journal import JournalReader, verify_journal
from edge.vault import Vault, find, kept, open_vault
from edge.views import Views
from tests.edge.conftest import running
from tests.vault.conftest import DIN, OTHER, log_in, look, name, scan, start


def events(config: Config) -> list[ev.Event]:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return [decode(row.body).event for row in reader.rows(0, 10_000)]


def of(config: Config, kind: type) -> list:
    return [event for event in events(config) if isinstance(event, kind)]


def holding(config: Config, identity: str) -> list[str]:
    """The files of the state folder that hold the identity's bytes."""
    return sorted(
        path.name for path in config.state_dir.rglob("*") if path.is_file() and identity.encode() in path.read_bytes()
    )


async def refused(work: object) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        await work  # type: ignore[misc]
    return error.value


async def whole_batch(config: Config) -> None:
    """A batch in which identities are scanned and typed wherever a person could."""
    async with running(config) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await refused(scan(client, "020", OTHER))
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="020", text=DIN[:9]))
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="020", text=DIN))
        await scan(client, "020", f" {DIN} ")
        for wrong in (DIN, OTHER, f"{DIN}&E123", "V" + DIN):
            await refused(scan(client, "030", wrong))
        await scan(client, "030", "V-77")
        await refused(scan(client, "035", DIN))
        await scan(client, "035", "M-1")
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="040", text=f"bag {DIN}"))
        await client.ask(wire.ActOnBatch(id=name(), batch="B1", act="hold", reason=f"bag {DIN} leaks"))
        await client.ask(wire.ActOnBatch(id=name(), batch="B1", act="resume", reason=DIN))
        await client.ask(wire.EnterValue(id=name(), batch="B1", step="040", text=f"bag {DIN} is clear"))
        await refused(client.ask(wire.EnterValue(id=name(), batch="B1", step="050", text=DIN)))
        await client.ask(wire.LogIn(id=name(), person="ana", pin="2580"))
        await refused(client.ask(wire.LogIn(id=name(), person=DIN, pin="1")))
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="050", text=DIN))
        picture = await look(client)
        assert DIN not in picture.model_dump_json()
        assert OTHER not in picture.model_dump_json()
        assert [found for found in holding(config, DIN) if found != "vault.db"] == []
        assert [found for found in holding(config, OTHER) if found != "vault.db"] == []
        await client.ask(wire.EnterValue(id=name(), batch="B1", step="050", text="91"))
        await scan(client, "060", DIN)
        assert (await look(client)).batches[0].state == "complete"
    with JournalReader(config.state_dir / "journal.db") as reader, Views(config.state_dir / "views.db") as views:
        views.begin_anew()
        views.apply(0, reader.rows(0, 10_000))


async def erase(client: DeskClient, pseudonym: str, reason: str = "asked for it") -> None:
    await client.ask(wire.EraseIdentity(id=name(), pseudonym=pseudonym, reason=reason))


async def test_through_a_whole_batch_only_the_vault_holds_an_identity_and_then_nothing_does(box: Config) -> None:
    await whole_batch(box)
    assert holding(box, DIN) == holding(box, OTHER) == ["vault.db"]
    (started,) = of(box, ev.BatchStarted)
    assert is_pseudonym(started.patient)
    assert [e.value for e in of(box, ev.ValueRecorded) if e.name.startswith("din")] == [started.patient] * 2
    (wrong_bag, *at_lots) = of(box, ev.ScanRefused)
    assert is_pseudonym(wrong_bag.scanned)
    assert wrong_bag.scanned != wrong_bag.expected == started.patient
    assert "belongs to another order" in wrong_bag.why
    assert [scanned.scanned for scanned in at_lots[:2]] == [started.patient, wrong_bag.scanned]
    assert all("patient identity, not material" in scanned.why for scanned in at_lots[:2])
    assert started.patient in str(next(e.value for e in of(box, ev.ValueRecorded) if e.name == "note"))

    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "dot")
        await erase(client, started.patient)
        await erase(client, wrong_bag.scanned, f"also that of {OTHER}")
        again = await refused(erase(client, started.patient))
        assert again.code == "vault.unknown"
        assert holding(box, DIN) == holding(box, OTHER) == []
    assert holding(box, DIN) == holding(box, OTHER) == []
    assert [event.pseudonym for event in of(box, ev.IdentityErased)] == [started.patient, wrong_bag.scanned]
    assert verify_journal(box.state_dir / "journal.db").ok
    assert verifies(box)
    with JournalReader(box.state_dir / "journal.db") as reader:
        record = as_built((row.seq, decode(row.body)) for row in reader.rows(0, 10_000))["B1"]
    assert "by dot: asked for it" in record.identity_erased
    assert record.identity_erased in as_text(record)


def verifies(box: Config) -> bool:
    words = ["verify", str(box.state_dir / "journal.db"), "--key", str(box.folder / "device.pub")]
    done = subprocess.run([sys.executable, "-m", "edge", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


async def test_planted_bug_a_scan_that_is_not_replaced_is_caught(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    async def plain(_self: _Client, _request: wire.ScanCode) -> dict[str, object]:
        return {}

    monkeypatch.setattr(_Client, "_scanned", plain)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await refused(scan(client, "020", OTHER))
    assert "journal.db" in holding(box, OTHER)


async def test_the_pseudonym_is_durable_before_the_row_that_names_it(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever row is there, the vault knows its patient: also when the vault cannot be written."""

    def full(*_: object, **__: object) -> str:
        raise LinesideError("vault.cannot_write", "The disk is full.", todo="Make room.")

    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        with monkeypatch.context() as patched:
            patched.setattr(Vault, "take", full)
            assert (await refused(start(client))).code == "vault.cannot_write"
            assert of(box, ev.BatchStarted) == []
        await start(client)
        with monkeypatch.context() as patched:
            patched.setattr(Vault, "take", full)
            assert (await refused(scan(client, "020", OTHER))).code == "vault.cannot_write"
            assert of(box, ev.ScanRefused) == []


async def test_no_role_and_no_typed_pseudonym_passes_the_patients_step(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        (started,) = of(box, ev.BatchStarted)
        for wrong in (started.patient, OTHER, "LOT-1", "", "\x00", "x" * 300, DIN[:-1], DIN.lower()):
            assert (await refused(scan(client, "020", wrong))).code == "scan.refused"
        assert (await look(client)).batches[0].active[0].step == "020"
        await scan(client, "020", DIN)
    whys = [event.why for event in of(box, ev.ScanRefused)]
    assert "not the patient identity" in whys[0]
    assert "another order" in whys[1]
    assert "not the patient identity" in whys[2]
    assert all("cannot be read" in why for why in whys[3:6])


async def test_the_right_identity_typed_passes_no_patients_step_and_a_typed_lot_says_so(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        typed = wire.ScanCode(id=name(), batch="B1", step="020", text=DIN, typed=True)
        refusal = await refused(client.ask(typed))
        assert (refusal.code, "never typed" in refusal.what) == ("scan.refused", True)
        assert (await look(client)).batches[0].active[0].step == "020"
        await scan(client, "020", DIN)
        await client.ask(wire.ScanCode(id=name(), batch="B1", step="030", text="V-77", typed=True))
    assert [(one.scanned, one.why[:19]) for one in of(box, ev.ScanRefused)] == [("", "A patient identity ")]
    assert [one.category for one in of(box, ev.ExceptionRaised) if one.code == "scan.refused"] == ["critical"]
    sources = {one.name: one.source for one in of(box, ev.ValueRecorded)}
    assert (sources["din"], sources["vector"]) == ("scanned", "entered")
    assert holding(box, DIN) == ["vault.db"]


async def test_planted_bug_a_typed_identity_that_is_taken_for_scanned_is_found(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten = {wire.ScanCode: lambda **facts: cm.ScanCode(**{**facts, "typed": False})}
    monkeypatch.setattr("edge.desk.ENTRIES", ENTRIES | forgotten)
    with pytest.raises(AssertionError):
        await test_the_right_identity_typed_passes_no_patients_step_and_a_typed_lot_says_so(box)


async def test_a_code_once_scanned_in_the_wrong_place_is_still_right_in_its_own(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await refused(scan(client, "020", "V-77"))
        await scan(client, "020", DIN)
        await scan(client, "030", "V-77")
    assert [e.value for e in of(box, ev.ValueRecorded) if e.name == "vector"] == ["V-77"]


async def test_ids_that_name_the_patient_are_refused(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        for wrong in ({"batch": DIN}, {"order": f"O-{DIN}"}, {"patient": "B1"}):
            assert (await refused(start(client, **wrong))).code == "batch.identity"
        assert kept(box.state_dir / "vault.db") == []
        await start(client)
        (started,) = of(box, ev.BatchStarted)
        assert (await refused(start(client, batch="B2", patient=OTHER, order=DIN))).code == "batch.identity"
        for wrong in (started.patient, "a\nb"):
            assert (await refused(start(client, batch="B2", patient=wrong))).code == "batch.patient_code"
        assert (await refused(start(client, batch="B2", patient=" "))).code == "batch.patient"
    assert holding(box, DIN) == ["vault.db"]


async def test_who_may_erase_what(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        (started,) = of(box, ev.BatchStarted)
        assert (await refused(erase(client, started.patient))).code == "people.not_permitted"
        await log_in(client, "dot")
        assert (await refused(erase(client, started.patient))).code == "vault.live"
        assert (await refused(erase(client, started.patient, " "))).code == "vault.reason"
        assert (await refused(erase(client, started.patient[:-1] + "!"))).code == "vault.pseudonym"
        assert (await refused(erase(client, "P-0000-0000-0000"))).code == "vault.unknown"
        assert of(box, ev.IdentityErased) == []
        await log_in(client)
        await scan(client, "020", DIN)
        await client.ask(wire.ActOnBatch(id=name(), batch="B1", act="abort", reason="enough"))
        await log_in(client, "dot")
        request = wire.EraseIdentity(id=name(), pseudonym=started.patient, reason="asked for it")
        await client.ask(request)
        await client.ask(request)
        assert len(of(box, ev.IdentityErased)) == 1
    assert holding(box, DIN) == []


async def test_a_crash_between_row_and_vault_is_made_good_at_the_next_start(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise LinesideError("vault.cannot_write", "The power failed.", todo="Start again.")

    await whole_batch(box)
    (started,) = of(box, ev.BatchStarted)
    with monkeypatch.context() as patched:
        async with running(box) as socket, connect(socket) as client:
            await log_in(client, "dot")
            patched.setattr(Vault, "erase", cut)
            await refused(erase(client, started.patient))
    assert holding(box, DIN) == ["vault.db"]
    async with running(box):
        assert holding(box, DIN) == []


async def test_a_restored_box_still_matches_its_patient_and_an_older_vault_brings_nobody_back(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await refused(scan(client, "020", OTHER))
    (wrong_bag,) = of(box, ev.ScanRefused)
    backup = box.folder.parent / "box.tar"
    made = back_up(box, backup)
    assert (made.vault, made.sealed) == (True, 2)
    shutil.copy(box.state_dir / "vault.db", box.folder.parent / "old.db")
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "dot")
        await erase(client, wrong_bag.scanned)
    assert holding(box, OTHER) == []
    os.replace(box.folder.parent / "old.db", box.state_dir / "vault.db")  # noqa: PTH105
    async with running(box):
        assert holding(box, OTHER) == []  # somebody put an older vault in place
    shutil.rmtree(box.state_dir)
    restore(backup, box.state_dir, read_public(box.folder / "device.pub"))
    assert find(box.state_dir / "vault.db", DIN) is not None
    async with running(box) as socket, connect(socket) as client:
        assert not any("vault" in notice for notice in (await look(client)).notices)
        assert find(box.state_dir / "vault.db", DIN) == of(box, ev.BatchStarted)[0].patient


async def test_without_its_vault_a_box_says_so_and_matches_nobody(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
    (box.state_dir / "vault.db").unlink()
    async with running(box) as socket, connect(socket) as client:
        assert any("vault" in notice and "B1" in notice for notice in (await look(client)).notices)
        await log_in(client)
        assert "not the patient identity" in (await refused(scan(client, "020", DIN))).what


async def test_a_batch_of_a_journal_from_before_the_vault_goes_on(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Vault, "take", lambda _self, identity, _utc, **_: identity)
        async with running(box) as socket, connect(socket) as client:
            await log_in(client)
            await start(client)
    assert of(box, ev.BatchStarted)[0].patient == DIN
    draft = [{"batch": "B1", "step": "020", "text": "=A99"}]
    (box.state_dir / "drafts.json").write_bytes(orjson.dumps(draft))
    async with running(box) as socket, connect(socket) as client:
        assert b"=A99" not in (box.state_dir / "drafts.json").read_bytes()
        await log_in(client)
        assert "another order" in (await refused(scan(client, "020", OTHER))).what
        await scan(client, "020", DIN)
        assert (await look(client)).batches[0].active[0].step == "030"
    assert [file for file in holding(box, OTHER) if file != "vault.db"] == []


# The commands --------------------------------------------------------------------------------------------------------


async def command(box: Config, *words: str, stdin: str = "") -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge", "vault", *words, "--box", str(box.folder),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate(stdin.encode())
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def test_the_commands_list_find_and_erase(box: Config) -> None:
    await whole_batch(box)
    (started,) = of(box, ev.BatchStarted)
    async with running(box):
        code, out, _ = await command(box, "list", "--json")
        listed = json.loads(out)["identities"]
        assert code == 0
        assert {line["pseudonym"]: line["patient"] for line in listed}[started.patient] is True
        assert DIN not in out
        assert await command(box, "find", stdin=DIN + "\n") == (0, started.patient + "\n", "")
        asked = ("erase", started.patient, "--person", "dot", "--reason", "withdrawn consent")
        code, _, err = await command(box, *asked, stdin="0000\n")
        assert (code, "people.wrong_pin" in err) == (2, True)
        code, out, _ = await command(box, *asked, stdin="7410\n")
        assert code == 0
        assert "Backups" in out
        assert (await command(box, "find", stdin=DIN + "\n"))[0] == 1
        code, _, err = await command(box, *asked[:-1], "x" * 2001, stdin="7410\n")
        assert (code, "vault.input" in err) == (2, True)
    code, _, err = await command(box, *asked, stdin="7410\n")
    assert (code, "desk.unreachable" in err) == (2, True)
    assert holding(box, DIN) == []


def test_the_vault_is_not_made_by_looking(tmp_path: Path, box: Config) -> None:
    with pytest.raises(LinesideError) as error:
        kept(box.state_dir / "vault.db")
    assert error.value.code == "vault.none"
    with open_vault(tmp_path / "v.db"):
        assert kept(tmp_path / "v.db") == []
