"""Recipes on the screen of a real runtime: looked at, submitted, approved, sent back, released and retired, signed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from edge.config import Config, read_config
from edge.core import events as ev
from edge.core.terms import Role
from edge.rehearsing import Rehearsed
from edge.wire import ListRecipes
from provisioning.device import NewPerson, init_device
from tests.edge.conftest import RECIPE, running
from tests.edge.test_desk import rows
from tests.ui.conftest import SMALL, Opener, Screen
from tests.ui.scripted import ANA, AUDITOR, make_picture
from ui.app import LinesideApp
from ui.view import Target

NARROW = (60, 20)
PIN = "2580"
PEOPLE = (
    NewPerson("eva", "Eva Lind", (Role.ENGINEER,), PIN, "B-EVA"),
    NewPerson("dot", "Dot Larsen", (Role.QUALITY,), PIN, "B-DOT"),
)
SECOND = RECIPE.replace('version: "1"', 'version: "2"').replace("low: 80", "low: 85")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes") / "box"
    init_device(folder, box="BOX-R", people=PEOPLE)
    settings = folder / "lineside.toml"
    settings.write_text('recipe_approval = "one_signature"\n' + settings.read_text())
    return folder


@pytest.fixture
def box(made_once: Path, tmp_path: Path) -> Config:
    shutil.copytree(made_once, tmp_path / "b")
    return read_config(tmp_path / "b")


@pytest.fixture(autouse=True)
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rehearsals end at once; the real one is in `tests/edge/test_recipe_life.py`."""

    async def rehearse(_folder: Path, seal: str, _plant: str) -> Rehearsed:
        return Rehearsed(seal.encode(), "14 of 14 points in 2 batches: everything was seen.", True)

    monkeypatch.setattr("edge.approval.rehearse", rehearse)


@asynccontextmanager
async def screen_at(socket: Path) -> AsyncIterator[Screen]:
    """Eva is logged in at a screen of the runtime behind this socket."""
    app = LinesideApp(socket)
    async with app.run_test(size=SMALL) as pilot:
        screen = Screen(app, pilot, cast("Any", None))
        await screen.at("lock")
        await screen.click("#person-eva")
        await screen.pilot.press(*PIN, "enter")
        await screen.at("home")
        await screen.click("#recipes")
        await screen.at("recipes")
        yield screen


def whole(screen: Screen) -> None:
    """Every target that is shown can be seen whole, and is three rows high."""
    for target in screen.app.query(Target):
        if target.display and target.is_on_screen:
            room = target.content_region.size
            assert target.region.height >= 3, target.id
            assert screen.app.screen.region.contains_region(target.region), target.id
            assert all(len(line) <= room.width for line in str(target.label).split("\n")), (target.id, target.label)


async def look_at(screen: Screen, *words: str) -> None:
    """Open the first recipe of the list, and wait until all these words stand there."""
    await screen.until(lambda: screen.says(words[0]))
    whole(screen)
    await screen.click("#recipe-0")
    await screen.until(lambda: screen.app.place == "recipe" and screen.shows("#confirm"))
    for said in words[1:]:
        assert screen.says(said), said
    whole(screen)


async def sign(screen: Screen, act: str, person: str, reason: str = "") -> None:
    """From what is shown to the list again."""
    await screen.click("#confirm")
    await screen.until(lambda: screen.app.place == ("recipe-act" if act else "sign-recipe"))
    if act:
        whole(screen)
        await screen.click(f"#act-{act}")
        if reason:
            await screen.until(lambda: screen.shows("#reason"))
            await screen.pilot.press(*reason)
        await screen.click("#confirm")
        await screen.at("sign-recipe")
    whole(screen)
    if screen.shows("#signer-choices"):
        await screen.click(f"#signer-{person}")
    await screen.pilot.press(*PIN)
    await screen.click("#confirm")
    await screen.at("recipes")


async def test_a_recipe_goes_from_a_file_to_retired_at_the_screen(box: Config) -> None:
    (box.recipes / "a.yaml").write_text(RECIPE)
    (box.recipes / "b.yaml").write_text(RECIPE.replace("PAPER", "WRONG").replace("phase: wait", "phase: wiat"))
    async with running(box) as socket, screen_at(socket) as screen:
        await screen.click("#recipe-1")
        await screen.at("stop")
        assert screen.says("There is no phase called 'wiat'")
        await screen.click("#understood")
        await look_at(screen, "DRAFT PAPER 1 a.yaml", "14 of 14 points", "No version of it is effective now.")
        await sign(screen, "", "eva")
        await look_at(screen, "IN REVIEW PAPER 1", "submitted for review eva (engineer)")
        await sign(screen, "approve", "dot")
        await look_at(screen, "APPROVED PAPER 1", "reviewed and approved dot (quality)")
        await sign(screen, "release", "dot")
        await screen.until(lambda: screen.says("EFFECTIVE PAPER 1"))
        (box.recipes / "a.yaml").write_text(SECOND)
        await screen.click("#home")
        await screen.click("#recipes")
        await look_at(screen, "DRAFT PAPER 2 a.yaml", "In version 1, which is effective now, it changes:", "85")
        await sign(screen, "", "eva")
        await look_at(screen, "IN REVIEW PAPER 2")
        await sign(screen, "send_back", "eva", reason="why 85")
        await screen.until(lambda: screen.says("DRAFT PAPER 2") and not screen.says("IN REVIEW"))
    (box.recipes / "a.yaml").unlink()
    async with running(box) as socket, screen_at(socket) as screen:
        await screen.until(lambda: screen.says("DRAFT PAPER 2"))
        await screen.click(next(f"#{one.id}" for one in screen.app.query(Target) if "PAPER 2" in str(one.label)))
        await screen.until(lambda: screen.app.place == "recipe" and screen.shows("#again"))
        assert not screen.shows("#confirm")
        whole(screen)
        await screen.click("#again")
        await screen.until(lambda: screen.shows("#confirm"))
        assert screen.says("14 of 14 points")
        await sign(screen, "", "eva")
        await screen.until(lambda: screen.says("IN REVIEW PAPER 2"))
        await screen.pilot.resize_terminal(*NARROW)
        effective = next(one.id for one in screen.app.query(Target) if one.id and "EFFECTIVE" in str(one.label))
        await screen.click(f"#{effective}")
        await screen.until(lambda: screen.app.place == "recipe" and screen.shows("#confirm"))
        await sign(screen, "retire", "dot", reason="too old")
        await screen.until(lambda: screen.says("RETIRED PAPER 1"))
    made = [row.event for row in rows(box)]
    acts = (ev.RecipeSubmitted, ev.RecipeApproved, ev.RecipeSentBack, ev.RecipeReleased, ev.RecipeRetired)
    assert [type(one) for one in made if isinstance(one, acts)] == [
        ev.RecipeSubmitted,
        ev.RecipeApproved,
        ev.RecipeReleased,
        ev.RecipeSubmitted,
        ev.RecipeSentBack,
        ev.RecipeSubmitted,
        ev.RecipeRetired,
    ]
    assert {one.reason for one in made if isinstance(one, ev.RecipeSentBack | ev.RecipeRetired)} == {
        "why 85",
        "too old",
    }


SHOWN: dict[str, Any] = {
    "recipe": "CART-B1", "version": "1.1", "title": "CAR-T cells, batch of one " * 4, "seal": "ab" * 32,
    "state": "in review", "author": "eva", "steps": 47, "rehearsal_ok": True, "rehearsed": "422 of 422 points seen.",
    "signed": [{"person": "eva", "role": "engineer", "act": "submit", "utc": "2026-11-22T08:46:00Z", "row": 5}],
    "reason": "", "compared_with": "cd" * 32, "compared_version": "1.0",
    "changes": [f"step {n:03}: upper temperature limit 37.5 → 38.0 degC" for n in range(20)],
    "acts": [
        {"act": "approve", "roles": ["supervisor", "quality"], "without": ["ben"], "only": []},
        {"act": "send back", "roles": ["supervisor", "quality"], "without": [], "only": []},
    ],
}  # fmt: skip


async def test_long_titles_and_many_changes_fit_a_narrow_screen_and_its_author_cannot_approve(
    open_screen: Opener,
) -> None:
    """Ben wrote it; Eva is of quality here."""
    picture = make_picture(person=AUDITOR, recipe_approval="two_signatures")
    ben = next(one for one in picture.people if one.person == "ben").model_copy(update={"roles": ("supervisor",)})
    people = tuple(ben if one.person == "ben" else one for one in picture.people)
    listed = {"approval": "two_signatures", "recipes": [SHOWN], "drafts": [], "from_folder": [], "known": 1}

    def facts(request: Any) -> dict[str, Any] | None:
        return listed if isinstance(request, ListRecipes) else {"recipe": SHOWN}

    async with open_screen(picture.model_copy(update={"people": people}), size=NARROW, language="de") as screen:
        screen.desk.facts = facts
        await screen.click("#recipes")
        await screen.until(lambda: screen.shows("#recipe-0"))
        whole(screen)
        await screen.click("#recipe-0")
        await screen.until(lambda: screen.says("step 000: upper temperature"))
        whole(screen)
        while not screen.says("step 019: upper temperature"):
            await screen.click("#down")
        await screen.click("#confirm")
        await screen.at("recipe-act")
        whole(screen)
        await screen.click("#act-send_back")
        await screen.until(lambda: screen.shows("#reason"))
        await screen.pilot.resize_terminal(*SMALL)
        await screen.click("#keyboard")
        await screen.until(lambda: screen.shows("#pad-a"))
        whole(screen)
        await screen.click("#keyboard")
        await screen.until(lambda: screen.shows("#act-approve"))
        await screen.click("#act-approve")
        await screen.click("#confirm")
        await screen.at("sign-recipe")
        whole(screen)
        assert not screen.shows("#signer-ben")
        assert screen.says("20")
        await screen.click("#back")
        await screen.at("recipe-act")


async def test_home_says_which_recipes_wait_for_whoever_is_logged_in(box: Config) -> None:
    (box.recipes / "a.yaml").write_text(RECIPE)
    async with running(box) as socket, screen_at(socket) as screen:
        await look_at(screen, "DRAFT PAPER 1")
        await sign(screen, "", "eva")
        await screen.until(lambda: screen.says("IN REVIEW PAPER 1"))
        await screen.click("#home")
        await screen.at("home")
        assert not screen.says("Waits for your signature")
        await screen.click("#log-out")
        await screen.at("lock")
        await screen.click("#person-dot")
        await screen.pilot.press(*PIN, "enter")
        await screen.at("home")
        await screen.until(lambda: screen.says("Waits for your signature: PAPER 1"))
        await screen.pilot.resize_terminal(*NARROW)
        whole(screen)
        assert screen.says("Waits for your signature: PAPER 1")


async def test_who_only_works_at_the_line_is_not_shown_recipes_and_an_auditor_is(open_screen: Opener) -> None:
    signed = {"recipe_approval": "two_signatures"}
    for person, facts, shown in ((ANA, signed, False), (AUDITOR, signed, True), (AUDITOR, {}, False)):
        async with open_screen(make_picture(person=person, **facts)) as screen:
            await screen.at("home")
            assert screen.shows("#recipes") is shown
