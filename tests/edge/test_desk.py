"""The desk with everything real behind it but equipment: what is answered is durable, what is refused says why."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from uuid import uuid4

import pytest

from edge import wire
from edge.config import Config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import RowBody, decode
from edge.core.people import attestation_holds
from edge.desk import Desk
from edge.desk_client import DeskClient, connect
from edge.directory import Person
from edge.identity import DeviceKey
from edge.journal import JournalReader, verify_journal
from tests.edge.conftest import running


def name() -> str:
    return uuid4().hex


def rows(config: Config) -> list[RowBody]:
    with JournalReader(config.state_dir / "journal.db") as reader:
        return [decode(row.body) for row in reader.rows(0, 10_000)]


async def log_in(client: DeskClient, person: str = "ana", pin: str = "2580") -> None:
    await client.ask(wire.LogIn(id=name(), person=person, pin=pin))


async def look(client: DeskClient) -> wire.Picture:
    return wire.Picture.model_validate((await client.ask(wire.AskStatus(id=name())))["picture"])


async def start(client: DeskClient, batch: str = "B1") -> None:
    seal = (await look(client)).recipes[0].seal
    await client.ask(wire.StartBatch(id=name(), batch=batch, order="O-1", recipe=seal, patient="=DIN1"))


async def refused(client: DeskClient, request: wire.Request) -> LinesideError:
    with pytest.raises(LinesideError) as error:
        await client.ask(request)
    assert error.value.what
    assert error.value.effect
    return error.value


async def to_the_signature(client: DeskClient) -> None:
    """Through all steps of the recipe but the last; the hour's wait is compressed."""
    await log_in(client)
    await start(client)
    await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
    await client.ask(wire.ScanCode(id=name(), batch="B1", step="020", text="=DIN1"))
    await client.ask(wire.EnterValue(id=name(), batch="B1", step="030", text="91.5"))
    async for picture in client.pictures():
        if any(card.asks == "sign" for card in picture.batches[0].active):
            return


async def test_a_whole_batch_by_two_people_and_every_signature_verifies_offline(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await to_the_signature(client)
        await client.ask(wire.SignStep(id=name(), batch="B1", step="050", person="ana", pin="2580"))
        await client.ask(wire.SignStep(id=name(), batch="B1", step="050", person="ben", pin="1470"))
        assert (await look(client)).batches[0].state == "complete"
    public = DeviceKey.load(box.device_key).public
    made = rows(box)
    signatures = [(row.event, row.at.utc) for row in made if isinstance(row.event, ev.SignatureMade)]
    assert [signature.person for signature, _ in signatures] == ["ana", "ben"]
    assert all(attestation_holds(public, signature, utc) for signature, utc in signatures)
    with JournalReader(box.state_dir / "journal.db") as reader:
        by_seq = {row.seq: row.hash.hex() for row in reader.rows(0, 10_000)}
    assert all(by_seq[signature.subject_seq] == signature.subject_hash for signature, _ in signatures)
    assert isinstance(made[-1].event, ev.RuntimeStopped)
    assert verify_journal(box.state_dir / "journal.db").ok


async def test_a_batch_that_waits_is_there_after_a_restart_and_begins_when_a_person_starts_it(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        seal = (await look(client)).recipes[0].seal
        asked = wire.StartBatch(id=name(), batch="B1", order="O-1", recipe=seal, patient="=DIN1", queue=True)
        await client.ask(asked)
        assert (await look(client)).batches[0].state == "idle"
    async with running(box) as socket, connect(socket) as client:
        (idle,) = (await look(client)).batches
        assert (idle.state, idle.waits, dict(idle.units)) == ("idle", "", {})
        begin = wire.ActOnBatch(id=name(), batch="B1", act="start")
        assert (await refused(client, begin)).code == "session.none"
        await log_in(client)
        await client.ask(begin.model_copy(update={"id": name()}))
        assert (await look(client)).batches[0].state == "running"
    begun = [row for row in rows(box) if row.event.batch == "B1"]
    assert [type(row.event) for row in begun[:2]] == [ev.BatchQueued, ev.BatchStarted]
    assert begun[1].actor == "ana"


async def test_what_is_answered_is_durable_before_the_answer(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        request = wire.ConfirmStep(id=name(), batch="B1", step="010")
        await client.ask(request)
        assert any(row.event.command_id == request.id for row in rows(box)), "answered before it was in the journal"


async def test_repeating_a_request_gets_the_first_answer_and_makes_no_row(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        confirm = wire.ConfirmStep(id=name(), batch="B1", step="010")
        scan = wire.ScanCode(id=name(), batch="B1", step="020", text="=DIN2")
        await client.ask(confirm)
        first = await refused(client, scan)
        made = len(rows(box))
        await client.ask(confirm)
        assert (await refused(client, scan)).what == first.what
        assert "another order" in first.what
        assert len(rows(box)) == made


async def test_a_wrong_pin_is_a_row_and_five_lock_the_person_also_after_a_restart(box: Config) -> None:
    wrong = "no-such-pin"  # nothing that hashes, keys and times can spell by chance
    async with running(box) as socket, connect(socket) as client:
        for _ in range(5):
            assert (await refused(client, wire.LogIn(id=name(), person="ana", pin=wrong))).code == "people.wrong_pin"
        assert (await refused(client, wire.LogIn(id=name(), person="ana", pin="2580"))).code == "people.locked"
        assert (await refused(client, wire.LogIn(id=name(), person="who", pin="1"))).code == "people.wrong_pin"
        await log_in(client, "ben", "1470")
    async with running(box) as socket, connect(socket) as client:
        assert (await refused(client, wire.LogIn(id=name(), person="ana", pin="2580"))).code == "people.locked"
    failures = [row.event for row in rows(box) if isinstance(row.event, ev.LogInRefused)]
    assert [failure.person for failure in failures] == ["ana"] * 5 + ["unknown"]
    stored = b"".join(path.read_bytes() for path in box.state_dir.glob("journal.db*"))
    assert wrong.encode() not in stored, "a PIN in the journal"


async def test_nobody_acts_without_a_session_and_a_closed_terminal_ends_it(box: Config) -> None:
    async with running(box) as socket:
        async with connect(socket) as client:
            confirm = wire.ConfirmStep(id=name(), batch="B1", step="010")
            assert (await refused(client, confirm)).code == "session.none"
            draft = wire.SaveDraft(id=name(), batch="B1", step="030", text="9")
            assert (await refused(client, draft)).code == "session.none"
            await log_in(client)
        async with connect(socket) as client:
            while not any(isinstance(row.event, ev.SessionClosed) for row in rows(box)):  # noqa: ASYNC110
                await asyncio.sleep(0)
            assert (await look(client)).person is None


async def test_a_draft_comes_back_after_the_runtime_was_gone(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
        await client.ask(wire.ScanCode(id=name(), batch="B1", step="020", text="=DIN1"))
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="030", text="91"))
    async with running(box) as socket, connect(socket) as client:
        (card,) = (await look(client)).batches[0].active
        assert (card.step, card.draft) == ("030", "91")
        await log_in(client)
        await client.ask(wire.EnterValue(id=name(), batch="B1", step="030", text="91.5"))
        assert (await look(client)).batches[0].active[0].draft == ""
    (box.state_dir / "drafts.json").write_bytes(b'[{"torn')
    async with running(box) as socket, connect(socket) as client:
        assert (await look(client)).batches[0].state == "running"


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"id": "1"}',
        b'{"id": "1", "do": "fly"}',
        b'{"id": "1", "do": "confirm", "batch": "B1", "step": "010", "more": 1}',
        b'{"id": "", "do": "status"}',
        b'{"id": 7, "do": "status"}',
        b'{"id": "1", "do": "enter", "batch": "B", "step": "s", "text": "' + b"x" * 300 + b'"}',
        b'{"id": "1", "do": "confirm", "batch": "\xff", "step": "010"}',
        b"[" * 5000,
    ],
)
async def test_a_message_that_the_desk_does_not_know_is_refused_and_the_next_one_is_answered(
    box: Config, line: bytes
) -> None:
    async with running(box) as socket:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(line + b'\n{"id": "2", "do": "status"}\n')
        first, second = json.loads(await reader.readline()), json.loads(await reader.readline())
        writer.close()
        await writer.wait_closed()
    assert first["ok"] is False
    assert first["error"]["code"] == "desk.message"
    assert second["ok"] is True


async def test_a_line_without_end_closes_only_its_own_connection(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(b"x" * (wire.LINE_BYTES_MAX + 10))
        assert await reader.read() == b""
        writer.close()
        assert (await look(client)).box == "BOX-T"


async def test_the_socket_is_closed_to_others_and_replaced_when_stale(box: Config) -> None:
    box.desk_socket.parent.mkdir(exist_ok=True)
    box.desk_socket.touch()
    async with running(box) as socket:
        assert socket.stat().st_mode & 0o007 == 0
    assert not box.desk_socket.exists()


async def test_a_second_runtime_on_the_same_box_is_refused(box: Config) -> None:
    async with running(box):
        with pytest.raises(LinesideError) as error:
            async with running(box):
                raise AssertionError("two runtimes on one journal")
        assert error.value.code == "journal.in_use"


async def test_a_recipe_edited_while_its_batch_runs_changes_nothing_of_it(box: Config) -> None:
    file = box.recipes / "paper.yaml"
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        seal = (await look(client)).recipes[0].seal
    file.write_text(file.read_text().replace("low: 80", "low: 95").replace('version: "1"', 'version: "2"'))
    async with running(box) as socket, connect(socket) as client:
        picture = await look(client)
        assert picture.batches[0].version == "1"
        assert [(line.version, line.seal == seal) for line in picture.recipes] == [("2", False)]
        await log_in(client)
        await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
        await client.ask(wire.ScanCode(id=name(), batch="B1", step="020", text="=DIN1"))
        (card,) = (await look(client)).batches[0].active
        assert card.low == 80


async def test_a_sealed_recipe_that_was_changed_on_the_disk_is_found(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
    (sealed,) = (box.state_dir / "library" / "recipe").iterdir()
    sealed.write_text(sealed.read_text().replace("low: 80", "low: 10"))
    with pytest.raises(LinesideError) as error:
        async with running(box):
            raise AssertionError("started on a changed recipe")
    assert error.value.code == "library.damaged"


async def test_a_journal_with_a_changed_row_is_not_started_on(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
    path: Path = box.state_dir / "journal.db"
    data = bytearray(path.read_bytes())
    data[data.index(b'"order":"O-1"') + 9] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(LinesideError) as error:
        async with running(box):
            raise AssertionError("started on a changed journal")
    assert error.value.code == "journal.damaged"
    assert "Row" in error.value.what


async def test_a_receipt_needs_a_hub_and_its_signature(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        assert (await refused(client, wire.GiveReceipt(id=name(), receipt="{}"))).code == "receipt.no_hub"


async def test_compressed_time_is_in_the_record_and_shown(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await to_the_signature(client)
        assert (await look(client)).batches[0].speed == 100_000
    (started,) = [row.event for row in rows(box) if isinstance(row.event, ev.BatchStarted)]
    assert started.speed == 100_000


async def test_a_draft_that_cannot_be_written_is_said_and_stops_no_entry(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client)
        await start(client)
        await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
        await client.ask(wire.ScanCode(id=name(), batch="B1", step="020", text="=DIN1"))
        await client.ask(wire.SaveDraft(id=name(), batch="B1", step="030", text="9"))
        (box.state_dir / "drafts.partial").mkdir()  # a disk that refuses to write there
        draft = wire.SaveDraft(id=name(), batch="B1", step="030", text="91")
        assert (await refused(client, draft)).code == "desk.draft_not_saved"
        await client.ask(wire.EnterValue(id=name(), batch="B1", step="030", text="91.5"))
        assert (await look(client)).batches[0].active[0].step == "040"


async def alarms_of(client: DeskClient, *states: str) -> list[wire.AlarmLine]:
    """The open alarms, once they are in these states."""
    async for picture in client.pictures():
        if tuple(alarm.state for alarm in picture.alarms) == states:
            return list(picture.alarms)
    raise AssertionError("the desk went away")


async def test_an_alarm_is_acknowledged_by_a_person_and_stays_through_a_restart(box: Config) -> None:
    check = wire.TellSelfCheck(id=name(), rows=7, checked_seq=7, found=("Row 3 does not hold.",), took_s=0.1)
    async with running(box) as socket, connect(socket) as client:
        await client.ask(check)
        (alarm,) = await alarms_of(client, "unacknowledged")
        assert (alarm.alarm, alarm.priority) == ("self-check", "high")
        assert "Row 3 does not hold." in alarm.cause
        seen = wire.AcknowledgeAlarm(id=name(), alarm=alarm.alarm, raised_seq=alarm.raised_seq)
        assert (await refused(client, seen)).code == "session.none"
        await log_in(client)
        late = seen.model_copy(update={"raised_seq": alarm.raised_seq + 1, "id": name()})
        assert (await refused(client, late)).code == "alarm.changed"
    async with running(box) as socket, connect(socket) as client:
        await alarms_of(client, "unacknowledged")
        await log_in(client)
        await client.ask(seen)
        await alarms_of(client, "acknowledged")
        await client.ask(check.model_copy(update={"found": (), "id": name()}))
        await alarms_of(client)
    told = [row for row in rows(box) if type(row.event).__name__.startswith("Alarm")]
    assert [(type(row.event).__name__, row.actor) for row in told] == [
        ("AlarmRaised", "lineside"),
        ("AlarmAcknowledged", "ana"),
        ("AlarmCleared", "lineside"),
    ]


async def test_a_picture_that_cannot_be_made_cuts_its_screen_off_and_no_other_stands_still(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Desk.picture

    def fails_for_ana(desk: Desk, person: Person | None) -> wire.Picture:
        if person is not None and person.person == "ana":
            raise RuntimeError("planted: a picture with a fault")
        return made(desk, person)

    async with running(box) as socket, connect(socket) as nobody, connect(socket) as ana:
        await log_in(ana)
        async with aclosing(nobody.pictures()) as others, aclosing(ana.pictures()) as hers:
            await anext(hers)
            monkeypatch.setattr(Desk, "picture", fails_for_ana)
            with pytest.raises(LinesideError) as ended:
                async for _ in hers:
                    pass
            assert ended.value.code == "desk.lost"
            async with connect(socket) as ben:
                await log_in(ben, "ben", "1470")
            seq = len(rows(box))
            while (await anext(others)).as_of_seq < seq:
                pass
