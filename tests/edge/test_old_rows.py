"""Rows of earlier versions are upcast when they are read; a row of a later one is said, kept and verified.

`old_journal.jsonl` holds the bodies that an earlier version wrote, byte for byte. It only ever grows."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import orjson
import pytest

from edge.checkpoints import read_head
from edge.config import Config
from edge.core import checkpoint
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.events import decode, encode
from edge.core.line import STATE_SCHEMA, Book, Line, apply
from edge.core.record import ZERO_HASH, row_hash
from edge.core.terms import State
from edge.desk_client import connect
from edge.journal import JournalReader, open_journal, show_rows, verify_journal
from edge.library import Library, read_checked_recipe
from edge.runtime import read_reference
from tests.core.parts import PLANT
from tests.edge.conftest import running

OLD = (Path(__file__).parent / "old_journal.jsonl").read_bytes().splitlines()


async def write(box: Config, bodies: list[bytes]) -> Path:
    """A journal with exactly these bodies, as the earlier version left it."""
    box.state_dir.mkdir(exist_ok=True)
    path = box.state_dir / "journal.db"
    async with open_journal(path, box.state_dir / "epoch") as journal:
        journal_id, epoch = journal.journal_id, journal.epoch
    head = ZERO_HASH
    with closing(apsw.Connection(str(path))) as connection:
        for seq, body in enumerate(bodies, 1):
            head = row_hash(journal_id, epoch, seq, head, body)
            connection.execute("INSERT INTO row VALUES(?,?,?,?)", (seq, epoch, head, body))
    return path


def of_this_box(box: Config) -> list[bytes]:
    """The old bodies, with the seal of the recipe that this box has."""
    sealed = read_checked_recipe(box.recipes / "paper.yaml", read_reference(box).plant)
    Library(box.state_dir / "library").put("recipe", sealed.seal, sealed.data)
    return [body.replace(b"SEAL", sealed.seal.encode()) for body in OLD]


async def test_a_journal_of_an_earlier_version_is_verified_folded_and_gone_on_with(box: Config) -> None:
    path = await write(box, of_this_box(box))
    assert verify_journal(path).ok
    with JournalReader(path) as reader:
        line = read_head(reader, box.state_dir / "checkpoints", Book(PLANT), made_seq=len(OLD)).line
    assert (line.seq, line.running, line.batches["B-OLD"].state) == (len(OLD), False, State.STOPPED)
    async with running(box) as socket, connect(socket):
        pass
    assert verify_journal(path).ok
    with JournalReader(path) as reader:
        assert [row.body for row in reader.rows(0, len(OLD))] == of_this_box(box), "old rows stay as they were written"


def test_an_old_kind_takes_its_present_form() -> None:
    (old,) = (decode(body).event for body in OLD if b"JournalContinued" in body)
    assert isinstance(old, ev.JournalContinued)
    assert (old.backup_seq, old.mirror_seq, old.hub_seq, old.heard_seq) == (5, None, None, None)
    for body in OLD:
        row = decode(body)
        assert decode(encode(row)) == row, "read and written anew it says the same"


def test_upcasts_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that changed twice: each step knows only the next form."""

    def named(facts: dict[str, Any]) -> dict[str, Any]:
        return {**{name: fact for name, fact in facts.items() if name != "who"}, "person": facts["who"]}

    def counted(facts: dict[str, Any]) -> dict[str, Any]:
        return {**facts, "failures": 1, "locked": False}

    monkeypatch.setattr(ev, "VERSIONS", {"LogInRefused": 3})
    monkeypatch.setattr(ev, "UPCASTS", {("LogInRefused", 1): named, ("LogInRefused", 2): counted})
    for version, facts in (
        (1, {"who": "ana"}),
        (2, {"person": "ana"}),
        (3, {"person": "ana", "failures": 1, "locked": False}),
    ):
        body = orjson.loads(OLD[1]) | {"kind": "LogInRefused", "v": version, "facts": facts}
        assert decode(orjson.dumps(body)).event == ev.LogInRefused(person="ana", failures=1, locked=False)


@pytest.mark.parametrize(
    "later", [{"kind": "Foreseen"}, {"v": 9}, {"v": 0}, {"v": None}, {"kind": None}, {"kind": ["RuntimeStopped"]}]
)
async def test_a_row_of_a_later_version_is_said_and_harms_nothing(box: Config, later: dict[str, object]) -> None:
    body = orjson.dumps(orjson.loads(OLD[-1]) | later)
    path = await write(box, [*of_this_box(box), body])
    assert verify_journal(path).ok
    (shown,) = show_rows(path, len(OLD), 10)
    assert shown.says == orjson.loads(body)
    with pytest.raises(LinesideError) as refusal:
        async with running(box):
            pass
    assert refusal.value.code == "row.unreadable"
    assert "version of Lineside" in refusal.value.todo
    assert verify_journal(path).rows == len(OLD) + 1, "nothing was written after it"


def test_the_same_rows_give_the_same_head_while_the_schema_is_the_same() -> None:
    """`old_head.json` is what the old rows fold to. A field more is found by whoever reads a checkpoint; the same form
    with another content would not be: so when this fails, raise `STATE_SCHEMA` and make the file anew."""
    line = Line(Book(PLANT))
    for body in OLD:
        line = apply(line, decode(body))
    now = [orjson.loads(part) for part in checkpoint.parts(line, bytes(32))]
    then = orjson.loads((Path(__file__).parent / "old_head.json").read_bytes())
    assert then[0]["schema"] == now[0]["schema"] == STATE_SCHEMA
    assert {name: now[0]["head"].get(name) for name in then[0]["head"]} == then[0]["head"]
    for batch_then, batch_now in zip(then[1:], now[1:], strict=True):
        assert {name: batch_now.get(name) for name in batch_then} == batch_then
