"""Recipes from draft to retired at a real desk: shown before they are signed, signed, kept, started, and verified."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edge import wire
from edge.__main__ import app
from edge.config import Config, read_config
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.lifecycle import RecipeAct
from edge.core.people import attestation_holds
from edge.core.recipe import read_recipe, seal
from edge.core.terms import Role
from edge.desk_client import DeskClient, connect
from edge.endorsed import as_bytes, endorsed_at, read_endorsed
from edge.exchange import read
from edge.identity import DeviceKey
from edge.journal import JournalReader
from edge.library import Library
from edge.pack import make_pack, unpack
from edge.rehearsing import Rehearsed, rehearse
from provisioning.device import NewPerson, init_device
from tests.edge.conftest import RECIPE, running
from tests.edge.test_desk import log_in, look, name, refused, rows
from tests.exchange.documents import faults

PINS = {"eva": "pin-of-eva", "sue": "pin-of-sue", "dot": "pin-of-dot", "ana": "pin-of-ana"}
PEOPLE = (
    NewPerson("eva", "Eva Lind", (Role.ENGINEER, Role.QUALITY), PINS["eva"], "B-EVA"),
    NewPerson("sue", "Sue Park", (Role.SUPERVISOR,), PINS["sue"], "B-SUE"),
    NewPerson("dot", "Dot Larsen", (Role.QUALITY,), PINS["dot"], "B-DOT"),
    NewPerson("ana", "Ana Ruiz", (Role.OPERATOR,), PINS["ana"], "B-ANA"),
)
SECOND = RECIPE.replace('version: "1"', 'version: "2"').replace("low: 80", "low: 85")
OTHER = RECIPE.replace("Clear the bench.", "Clear the bench twice.")


@pytest.fixture(scope="session")
def signed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "box"
    init_device(folder, box="BOX-S", people=PEOPLE)
    (folder / "recipes" / "paper.yaml").write_text(RECIPE)
    return folder


@pytest.fixture
def box(signed_once: Path, tmp_path: Path) -> Config:
    """A box as `lineside device init` makes it: two people sign."""
    shutil.copytree(signed_once, tmp_path / "b")
    return read_config(tmp_path / "b")


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Rehearsals that say at once what is in here last; the real one is in `test_by_the_command_line`."""
    says = [True]

    async def at_once(_folder: Path, seal: str, _plant: str) -> Rehearsed:
        return Rehearsed(seal.encode(), "all was seen.", says[-1])

    monkeypatch.setattr("edge.approval.rehearse", at_once)
    return says


async def offer(client: DeskClient, text: str = RECIPE) -> dict[str, Any]:
    shown: dict[str, Any] = (await client.ask(wire.OfferRecipe(id=name(), text=text)))["recipe"]
    return shown


async def sign(client: DeskClient, act: str, shown: dict[str, Any], person: str, **more: str) -> None:
    await client.ask(signing(act, shown, person, **more))


def signing(act: str, shown: dict[str, Any], person: str, **more: str) -> wire.SignRecipe:
    facts = {"act": act, "seal": shown["seal"], "compared_with": shown["compared_with"], "person": person}
    return wire.SignRecipe.model_validate({"id": name(), "pin": PINS[person], **facts, **more})


async def show(client: DeskClient, recipe: str, act: str) -> dict[str, Any]:
    request = wire.ShowRecipe.model_validate({"id": name(), "recipe": recipe, "act": act})
    shown: dict[str, Any] = (await client.ask(request))["recipe"]
    return shown


async def make_effective(client: DeskClient, text: str = RECIPE) -> dict[str, Any]:
    await log_in(client, "eva", PINS["eva"])
    shown = await offer(client, text)
    await sign(client, "submit", shown, "eva")
    await sign(client, "approve", shown, "sue")
    await sign(client, "approve", shown, "dot")
    await sign(client, "release", shown, "dot")
    return shown


@pytest.mark.usefixtures("rehearsed")
async def test_what_is_in_the_folder_starts_nothing_until_it_is_released(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        picture = await look(client)
        assert (picture.recipes, picture.recipe_approval) == ((), "two_signatures")
        shown = await make_effective(client)
        assert [one.seal for one in (await look(client)).recipes] == [shown["seal"]]
    async with running(box) as socket, connect(socket) as client:
        assert [one.seal for one in (await look(client)).recipes] == [shown["seal"]], "after a restart too"
        await log_in(client, "ana", PINS["ana"])
        start = wire.StartBatch(id=name(), batch="B1", order="O-1", recipe=shown["seal"], patient="=DIN1")
        await client.ask(start)
        second = await offer_as_eva(client)
        assert second["compared_version"] == "1"
        assert any("80" in text and "85" in text for text in second["changes"]), second["changes"]
        for act, person in (("submit", "eva"), ("approve", "sue"), ("approve", "dot"), ("release", "dot")):
            await sign(client, act, second, person)
        assert [one.version for one in (await look(client)).recipes] == ["2"]
        await log_in(client, "ana", PINS["ana"])
        old = wire.StartBatch(id=name(), batch="B2", order="O-2", recipe=shown["seal"], patient="=DIN2")
        assert (await refused(client, old)).code == "recipe.not_effective"
        await client.ask(wire.ConfirmStep(id=name(), batch="B1", step="010"))
    started = next(row.event for row in rows(box) if isinstance(row.event, ev.BatchStarted))
    assert started.seal == shown["seal"], "the batch keeps what it began with"


async def offer_as_eva(client: DeskClient) -> dict[str, Any]:
    await log_in(client, "eva", PINS["eva"])
    return await offer(client, SECOND)


@pytest.mark.usefixtures("rehearsed")
async def test_every_change_is_a_row_behind_a_signature_over_the_seal(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        shown = await make_effective(client)
        await sign(client, "retire", shown, "dot", reason="not made here any more")
    public, made = DeviceKey.load(box.device_key).public, rows(box)
    kinds = (ev.RecipeSubmitted, ev.RecipeApproved, ev.RecipeReleased, ev.RecipeRetired)
    changes = [seq for seq, row in enumerate(made) if isinstance(row.event, kinds)]
    assert len(changes) == 5
    with JournalReader(box.state_dir / "journal.db") as reader:
        hashes = {row.seq: row.hash.hex() for row in reader.rows(0, 10_000)}
    for seq in changes:
        signature, row = made[seq - 1], made[seq]
        assert isinstance(signature.event, ev.SignatureMade)
        assert attestation_holds(public, signature.event, signature.at.utc)
        assert shown["seal"] in signature.event.meaning
        assert signature.event.person == signature.actor == row.actor
        assert hashes[signature.event.subject_seq] == signature.event.subject_hash
    submitted = made[changes[0]].event
    assert isinstance(submitted, ev.RecipeSubmitted)
    library = Library(box.state_dir / "library")
    assert library.recipe(submitted.seal).recipe == "PAPER"
    assert library.report(submitted.rehearsal) == submitted.seal.encode()
    assert library.plant(submitted.plant).plant == "BOX-S"


@pytest.mark.usefixtures("rehearsed")
async def test_what_the_desk_refuses_makes_no_row(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        assert (await refused(client, wire.OfferRecipe(id=name(), text=RECIPE))).code == "session.none"
        await log_in(client, "ana", PINS["ana"])
        assert (await refused(client, wire.OfferRecipe(id=name(), text=RECIPE))).code == "people.not_permitted"
        await log_in(client, "eva", PINS["eva"])
        wrong = RECIPE.replace("phase: wait", "phase: wiat")
        assert (await refused(client, wire.OfferRecipe(id=name(), text=wrong))).code == "recipe.unknown_phase"
        unbound = RECIPE.replace("\nprocedure:", "\nunits: {reactor: {class: bioreactor}}\nprocedure:")
        assert (await refused(client, wire.OfferRecipe(id=name(), text=unbound))).code.startswith("recipe.")
        shown = await offer(client)
        for act in ("approve", "release", "retire"):
            assert (await refused(client, signing(act, shown, "dot", reason="r"))).code == "recipe.state"
        other = {"seal": "0" * 64, "compared_with": ""}
        assert (await refused(client, signing("submit", other, "eva"))).code == "recipe.state"
        asked = wire.ShowRecipe.model_validate({"id": name(), "recipe": "NONE", "act": "approve"})
        assert (await refused(client, asked)).code == "recipe.which"
        assert not [row for row in rows(box) if isinstance(row.event, ev.SignatureMade)]
        await sign(client, "submit", shown, "eva")
        assert (await refused(client, signing("approve", shown, "eva"))).code == "recipe.own"
        wrong_pin = signing("approve", shown, "dot").model_copy(update={"pin": "no-such-pin"})
        assert (await refused(client, wrong_pin)).code == "people.wrong_pin"
        listed = await client.ask(wire.ListRecipes(id=name()))
        assert [(one["state"], len(one["signed"])) for one in listed["recipes"]] == [("in review", 1)]


@pytest.mark.usefixtures("rehearsed")
async def test_another_seal_than_the_one_shown_is_not_approved(box: Config) -> None:
    """Between the look and the signature the recipe under its name becomes another one."""
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        first = await offer(client)
        await sign(client, "submit", first, "eva")
        seen = await show(client, "PAPER", "approve")
        await sign(client, "send back", first, "dot", reason="say it twice")
        await sign(client, "submit", await offer(client, OTHER), "eva")
        assert (await refused(client, signing("approve", seen, "sue"))).code == "recipe.state"
        now = await show(client, "PAPER", "approve")
        assert now["seal"] != seen["seal"]
        listed = (await client.ask(wire.ListRecipes(id=name())))["recipes"]
        assert {one["seal"]: one["state"] for one in listed} == {seen["seal"]: "draft", now["seal"]: "in review"}


@pytest.mark.usefixtures("rehearsed")
async def test_planted_bug_a_signature_for_another_seal_is_found(box: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A desk that signs whatever stands under the name now, not what the request says was shown."""
    from edge.core.lifecycle import meaning

    monkeypatch.setattr("edge.desk.meaning_of", lambda act, recipe, version, _seal: meaning(act, recipe, version, "f"))
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        shown = await offer(client)
        assert (await refused(client, signing("submit", shown, "eva"))).code == "recipe.other_signed"


async def test_a_rehearsal_that_did_not_see_everything_is_shown_and_not_approved(
    box: Config, rehearsed: list[bool]
) -> None:
    rehearsed.append(False)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        shown = await offer(client)
        assert not shown["rehearsal_ok"]
        await sign(client, "submit", shown, "eva")
        assert (await refused(client, signing("approve", shown, "dot"))).code == "recipe.not_rehearsed"


@pytest.mark.usefixtures("rehearsed")
async def test_a_damaged_recipe_is_not_released_and_after_a_restart_not_startable(box: Config) -> None:
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        shown = await offer(client)
        for act, person in (("submit", "eva"), ("approve", "sue"), ("approve", "dot")):
            await sign(client, act, shown, person)
        kept = box.state_dir / "library" / "recipe" / shown["seal"]
        whole = kept.read_bytes()
        kept.write_bytes(whole.replace(b"low: 80", b"low: 10"))
        assert (await refused(client, signing("release", shown, "dot"))).code == "library.damaged"
        kept.write_bytes(whole)
        await sign(client, "release", shown, "dot")
    kept.write_bytes(whole.replace(b"low: 80", b"low: 10"))
    async with running(box) as socket, connect(socket) as client:
        picture = await look(client)
        assert picture.recipes == ()
        assert any("PAPER 1 cannot be started" in notice for notice in picture.notices)


async def test_without_signatures_the_folder_decides_and_says_so(box: Config) -> None:
    (box.folder / "lineside.toml").write_text('box = "BOX-S"\nrecipe_approval = "from_folder"\n')
    box = read_config(box.folder)
    async with running(box) as socket, connect(socket) as client:
        picture = await look(client)
        assert ([one.recipe for one in picture.recipes], picture.recipe_approval) == (["PAPER"], "from_folder")
        await log_in(client, "eva", PINS["eva"])
        assert (await refused(client, wire.OfferRecipe(id=name(), text=RECIPE))).code == "recipe.from_folder"
    (box.folder / "lineside.toml").write_text('box = "BOX-S"\n')
    async with running(read_config(box.folder)) as socket, connect(socket) as client:
        assert (await look(client)).recipes == (), "what was never signed does not start where people sign"
    kinds = [row.event.approval for row in rows(box) if isinstance(row.event, ev.RecipeApprovalSet)]
    assert kinds == ["two_signatures"]


@pytest.mark.usefixtures("rehearsed")
async def test_the_signatures_go_to_another_site_as_history_and_approve_nothing_there(
    box: Config, signed_once: Path, tmp_path: Path
) -> None:
    async with running(box) as socket, connect(socket) as client:
        shown = await make_effective(client)
    key, pack, there = DeviceKey.load(box.device_key), tmp_path / "paper.pack", tmp_path / "there"
    file = box.recipes / "paper.yaml"
    make_pack(file, pack, key, endorsed=lambda seals: endorsed_at(box, seals))
    unpack(pack, key.public, there)
    found = read_endorsed((there / "approvals.json").read_bytes())
    assert found is not None
    said = [(one.person, one.act.value, one.seal) for one in found]
    acts = (("eva", "submit"), ("sue", "approve"), ("dot", "approve"), ("dot", "release"))
    assert said == [(person, act, shown["seal"]) for person, act in acts]
    assert "dot (quality), released" in (there / "HISTORY.md").read_text()

    xml = tmp_path / "paper.xml"
    told = await lineside(box, "export", file, "--out", xml)
    assert told.code == 0, told
    assert faults(xml.read_bytes()) == []
    draft = read(xml.read_bytes(), "paper.xml")
    assert (draft.exact, [one.by for one in draft.approvals]) == (True, ["eva", "sue", "dot", "dot"])
    assert [read_endorsed(f"[{one.facts}]".encode()) for one in draft.approvals] == [(one,) for one in found]
    assert seal(read_recipe(draft.text.encode(), "draft").recipe) == shown["seal"]
    xml.write_bytes(xml.read_bytes().replace(b"sue", b"mal"))
    done = await asyncio.to_thread(
        CliRunner().invoke, app, ["recipe", "import", str(xml), "--out", str(tmp_path / "x")]
    )
    assert done.stdout.count("NOT ATTESTED") == 1
    assert done.stdout.count("an approval of nothing here") == 4

    shutil.copytree(signed_once, tmp_path / "second")
    second = read_config(tmp_path / "second")
    shutil.copy(there / "draft.yaml", second.recipes / "paper.yaml")
    async with running(second) as socket, connect(socket) as client:
        assert (await look(client)).recipes == ()
        assert (await client.ask(wire.ListRecipes(id=name())))["recipes"] == []

    for changed in (
        found[1].model_copy(update={"person": "mallory"}),
        found[1].model_copy(update={"seal": "0" * 64}),
        found[1].model_copy(update={"act": RecipeAct.RELEASE}),
        found[1].model_copy(update={"utc": "2020-01-01T00:00:00.000000Z"}),
    ):
        assert not changed.holds()
        assert read_endorsed(as_bytes([changed])) is None
        with pytest.raises(LinesideError) as refusal:
            make_pack(file, tmp_path / "bad.pack", key, endorsed=lambda _, one=changed: [one])  # type: ignore[misc]
        assert refusal.value.code == "pack.damaged"
    assert read_endorsed(b"[{}]") is None


# The command line ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


async def lineside(box: Config, *words: object, typed: str = "") -> Said:
    """The command in a thread of this process, as a person would give it; `typed` are lines of its standard input."""
    arguments = ["recipe", *map(str, words), "--box", str(box.folder)]
    done = await asyncio.to_thread(CliRunner().invoke, app, arguments, input=typed)
    refusal = done.exception if isinstance(done.exception, LinesideError) else None
    return Said(2 if refusal else done.exit_code, done.stdout, str(refusal or done.stderr))


async def test_by_the_command_line(box: Config) -> None:
    """Three people, the real rehearsal, no secret on a command line, and everything verifies afterwards."""
    file = box.recipes / "paper.yaml"
    async with running(box) as socket:
        told = await lineside(box, "submit", file, "--person", "eva", typed=f"{PINS['eva']}\nyes\n")
        assert told.code == 0, told.err
        assert "PAPER 1: Paper on glass" in told.out
        assert "everything was seen" in told.out
        assert "No version of it is effective now." in told.out
        told = await lineside(box, "approve", "PAPER", typed=f"B-SUE\n{PINS['sue']}\nyes\n")
        assert (told.code, "Sue Park" in told.out) == (0, True), told
        told = await lineside(box, "approve", "PAPER", "--person", "dot", typed=f"{PINS['dot']}\nno\n")
        assert (told.code, "recipe.not_signed" in told.err) == (2, True), told
        told = await lineside(box, "approve", "PAPER 1", "--person", "dot", "--json", typed=f"{PINS['dot']}\nyes\n")
        approved = json.loads(told.out)["recipe"]
        assert [one["person"] for one in approved["signed"]] == ["eva", "sue", "dot"]
        assert approved["state"] == "approved"
        seal = approved["seal"]
        await lineside(box, "release", seal[:12], "--person", "dot", typed=f"{PINS['dot']}\nyes\n")
        (box.recipes / "second.yaml").write_text(SECOND)
        told = await lineside(box, "status", "--json")
        facts = json.loads(told.out)
        assert facts["approval"] == "two_signatures"
        assert [(one["state"], one["seal"]) for one in facts["recipes"]] == [("effective", seal)]
        assert [(one["recipe"], one["version"]) for one in facts["drafts"]] == [("PAPER", "2")]
        async with connect(socket) as client:
            assert [one.seal for one in (await look(client)).recipes] == [seal]
    journal = (box.state_dir / "journal.db").read_bytes()
    assert not [pin for pin in PINS.values() if pin.encode() in journal]
    verified = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edge", "verify", str(box.state_dir / "journal.db")),
        *("--key", str(box.folder / "device.pub"), "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await verified.communicate()
    assert verified.returncode == 0, out
    assert b'"signatures": 4' in out or b'"signatures":4' in out


async def test_a_wrong_recipe_is_refused_with_its_line_before_anything_is_asked_of_the_box(box: Config) -> None:
    (box.recipes / "wrong.yaml").write_text(RECIPE.replace("phase: wait", "phase: wiat"))
    told = await lineside(box, "submit", box.recipes / "wrong.yaml", "--person", "eva")
    assert told.code == 2
    assert "wrong.yaml:13" in told.err


async def test_the_desk_says_of_a_recipe_what_the_command_line_says(box: Config) -> None:
    """All of it, with lines and hints; only the file's name the desk does not know."""
    wrong = RECIPE.replace("low: 80", "low: 120, high: 110").replace("duration: 1 h", "duration: soon")
    wrong = wrong.replace("\nprocedure:", "\nunits: {reactor: {class: bioreactor}}\nprocedure:")
    file = box.recipes / "wrong.yaml"
    file.write_text(wrong)
    told = await asyncio.to_thread(CliRunner().invoke, app, ["recipe", "check", str(file), "--plant", str(box.plant)])
    assert isinstance(told.exception, LinesideError)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        shown = await refused(client, wire.OfferRecipe(id=name(), text=wrong))
    assert str(shown).replace("the recipe:", f"{file}:") == str(told.exception)
    assert len(shown.others) >= 2
    assert f"{file}:14:" in str(told.exception)


async def test_a_rehearsal_that_dies_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(LinesideError) as error:
        await rehearse(tmp_path, "0" * 64, "1" * 64)
    assert error.value.code == "recipe.rehearsal"
    assert "cannot be read" in error.value.what


async def test_while_a_draft_of_the_folder_is_rehearsed_other_requests_are_answered(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def waits(_folder: Path, seal: str, _plant: str) -> Rehearsed:
        begun.set()
        await gate.wait()
        return Rehearsed(seal.encode(), "all was seen.", True)

    monkeypatch.setattr("edge.approval.rehearse", waits)
    async with running(box) as socket, connect(socket) as client:
        await log_in(client, "eva", PINS["eva"])
        drafts = (await client.ask(wire.ListRecipes(id=name())))["drafts"]
        assert drafts == [{"file": "paper.yaml", "recipe": "PAPER", "version": "1", "title": "Paper on glass"}]
        gone = await refused(client, wire.OfferRecipe(id=name(), file="../paper.yaml"))
        assert gone.code == "recipe.no_draft"
        offering = asyncio.create_task(client.ask(wire.OfferRecipe(id=name(), file="paper.yaml")))
        await begun.wait()
        assert (await look(client)).recipes == ()
        assert not offering.done()
        gate.set()
        shown = (await offering)["recipe"]
        assert shown["acts"] == [{"act": "submit", "roles": ["engineer"], "without": [], "only": []}]
        await sign(client, "submit", shown, "eva")
        listed = await client.ask(wire.ListRecipes(id=name()))
        assert (listed["drafts"], [one["recipe"] for one in listed["recipes"]]) == ([], ["PAPER"])
        acts = {one["act"]: one["without"] for one in (await show(client, "PAPER", "approve"))["acts"]}
        assert acts == {"approve": ["eva"], "send back": []}


async def test_a_terminal_that_goes_away_ends_the_rehearsal_it_asked_for(
    box: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def for_ever(_folder: Path, _seal: str, _plant: str) -> Rehearsed:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr("edge.approval.rehearse", for_ever)
    async with running(box) as socket:
        async with connect(socket) as client:
            await log_in(client, "eva", PINS["eva"])
            offering = asyncio.create_task(client.ask(wire.OfferRecipe(id=name(), file="paper.yaml")))
            await begun.wait()
        await ended.wait()
        with pytest.raises(LinesideError):
            await offering
