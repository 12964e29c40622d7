"""What the desk does about recipes: checks, keeps and rehearses what is offered, shows what is to be signed, lists all.

What is shown is made from the sealed object itself, in the process that will attest the signature.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edge.attachments import FOLDER
from edge.core import commands as cm
from edge.core.approve import effective_version, refuse_from_folder, state_of
from edge.core.errors import LinesideError
from edge.core.lifecycle import LIFE, NEEDED, PERMISSION, Endorsement, RecipeAct, RecipeLife, RecipeState, barred
from edge.core.people import roles_with
from edge.core.plant import Plant
from edge.core.recipe import Recipe, RecipeDocument, read_recipe, seal, sealed_bytes
from edge.core.recipe.compare import compare
from edge.engine import Engine
from edge.library import Library, headings, read_checked_recipe, recipe_files, refuse_findings, text_to_offer
from edge.rehearsing import rehearse

OFFERS_MAX: Final = 20
"""So many recipes that were offered and not submitted yet are remembered, the newest."""
CHANGES_CHARS_MAX: Final = 200_000
TITLE_CHARS_MAX: Final = 100
REASON_CHARS_SHOWN_MAX: Final = 300
LISTED_MAX: Final = 600


class Approvals:
    """The recipes of one box, for its desk."""

    def __init__(self, engine: Engine, folder: Path, *, beside: Path) -> None:
        """`folder` is the library's; attachments of what is offered stand in `beside`."""
        self._engine = engine
        self._folder = folder
        self._beside = beside
        self._library = Library(folder)
        self._rehearsing = asyncio.Lock()
        self._offers: dict[str, cm.Offered] = {}

    async def offer(self, text: str) -> dict[str, Any]:
        """Check a recipe on the plant in force, keep it in the library and rehearse it; then what `show` gives of it.

        No row is made. Raises every finding of the checker, `library.*` and `recipe.rehearsal`."""
        refuse_from_folder(self._engine.shown)
        plant, content = self._engine.shown.book.plant, self._engine.shown.plant_content
        data = text.encode()
        document = await asyncio.to_thread(_checked, data, plant, self._beside)
        name = seal(document.recipe)
        for attachment in document.recipe.attached().values():
            source = self._beside / FOLDER / attachment.file
            await asyncio.to_thread(self._library.put_file, attachment.sha256, source)
        await asyncio.to_thread(self._library.put, "recipe", name, sealed_bytes(document.recipe, data))
        async with self._rehearsing:
            rehearsed = await rehearse(self._folder, name, content)
        report = hashlib.sha256(rehearsed.report).hexdigest()
        await asyncio.to_thread(self._library.put, "report", report, rehearsed.report)
        recipe = document.recipe
        self._offers.pop(name, None)
        self._offers[name] = cm.Offered(
            recipe=recipe.recipe,
            version=recipe.version,
            title=recipe.title,
            plant=content,
            rehearsal=report,
            rehearsed=rehearsed.said,
            rehearsal_ok=rehearsed.ok,
        )
        while len(self._offers) > OFFERS_MAX:
            del self._offers[next(iter(self._offers))]
        return await self._shown(name)

    async def offer_file(self, file: str) -> dict[str, Any]:
        """As `offer`: a draft in the box's folder of recipes. Raises `recipe.no_draft`."""
        refuse_from_folder(self._engine.shown)
        path = next((one for one in await asyncio.to_thread(recipe_files, self._beside) if one.name == file), None)
        if path is None:
            raise LinesideError(
                "recipe.no_draft",
                f"The box's folder of recipes holds no {file[:80]!r}.",
                effect="Nothing was submitted.",
                todo="Look at the list again: the file was renamed, moved or deleted.",
            )
        sealed = await asyncio.to_thread(read_checked_recipe, path, self._engine.shown.book.plant)
        return await self.offer(text_to_offer(sealed))

    async def offer_again(self, name: str) -> dict[str, Any]:
        """As `offer`: the recipe with this seal, which was sent back, as it is. Raises `recipe.no_draft`."""
        life = self._engine.shown.lives.get(name)
        if life is None or life.state is not RecipeState.DRAFT:
            raise LinesideError(
                "recipe.no_draft",
                f"No recipe that was sent back has the seal {name[:12]!r}.",
                effect="Nothing was submitted.",
                todo="Look at the list again: somebody submitted it meanwhile.",
            )
        sealed = await asyncio.to_thread(self._library.sealed, name)
        return await self.offer(text_to_offer(sealed))

    def offered(self, name: str) -> cm.Offered | None:
        """The recipe with this seal, when it was offered since the runtime began."""
        return self._offers.get(name)

    def named(self, name: str) -> tuple[str, str]:
        """Recipe and version that a seal stands for; empty for one that nobody offered or submitted."""
        life, offered = self._engine.line.lives.get(name), self._offers.get(name)
        known = life or offered
        return (known.recipe, known.version) if known else ("", "")

    async def show(self, wanted: str, act: RecipeAct) -> dict[str, Any]:
        """What a person sees before signing `act`. `wanted` is a recipe's name, "NAME VERSION" or the seal's first
        characters; of several recipes it is the one with which that can be done."""
        lives = self._engine.shown.lives.values()
        meant = [one for one in lives if _is_meant(one, wanted.strip())]
        able = [one for one in meant if act in LIFE[one.state]]
        found = able or meant
        if len(found) != 1 or not wanted.strip():
            raise LinesideError(
                "recipe.which",
                f"{'Several recipes' if found else 'No recipe'} on this box {'are' if found else 'is'} meant by "
                f"{wanted[:80]!r}{': ' if found else ''}"
                f"{', '.join(f'{one.recipe} {one.version} ({one.seal[:12]})' for one in found[:10])}.",
                todo="`lineside recipe status` shows name, version and seal of each; give one of them.",
            )
        return await self._shown(found[0].seal)

    async def listed(self) -> dict[str, Any]:
        """Every recipe that somebody submitted, newest change first, how recipes become effective here, and the drafts
        of the box's folder: what is in it under a name and version that is not submitted."""
        drafts = await asyncio.to_thread(headings, self._beside)
        line = self._engine.shown
        taken = {(one.recipe, one.version) for one in line.lives.values() if one.state is not RecipeState.DRAFT}
        lives = list(line.lives.values())[::-1]
        shown = [_as_json(life) for life in lives[:LISTED_MAX]]
        folder = [
            {"recipe": one.recipe, "version": one.version, "title": one.title[:TITLE_CHARS_MAX], "seal": one.seal}
            for one in line.recipes.values()
            if one.seal in line.book.effective
        ]
        files = [asdict(one) for one in drafts if (one.recipe, one.version) not in taken and line.approval in NEEDED]
        facts = {"approval": line.approval.value, "recipes": shown, "from_folder": folder, "drafts": files}
        return {**facts, "known": len(lives)}

    async def ready(self, name: str) -> None:
        """Put the recipe beside the head, so that it may be started once a row says so.

        Raises what is wrong with it on the plant in force, and `library.damaged`."""
        plant = self._engine.line.book.plant
        recipe = await asyncio.to_thread(fitting, self._library, name, plant)
        book = self._engine.line.book
        self._engine.load(replace(book, recipes={**book.recipes, name: recipe}, effective=book.effective | {name}))

    async def _shown(self, name: str) -> dict[str, Any]:
        line, offered = self._engine.shown, self._offers.get(name)
        life = line.lives.get(name)
        recipe = await asyncio.to_thread(self._library.recipe, name)
        effective = effective_version(line, recipe.recipe)
        changes: list[str] = []
        if effective is not None and effective.seal != name:
            changes = await asyncio.to_thread(self._changes, effective.seal, recipe)
        facts = _as_json(life) if life else {"state": state_of(line, name).value, "signed": []}
        if offered and (life is None or life.state is RecipeState.DRAFT):
            facts |= {"rehearsed": offered.rehearsed, "rehearsal": offered.rehearsal}
            facts |= {"rehearsal_ok": offered.rehearsal_ok, "plant": offered.plant}
        return {
            **facts,
            "recipe": recipe.recipe,
            "version": recipe.version,
            "title": recipe.title[:TITLE_CHARS_MAX],
            "seal": name,
            "steps": len(recipe.steps()),
            "compared_with": effective.seal if effective else "",
            "compared_version": effective.version if effective else "",
            "changes": changes,
            "acts": _acts(life, state_of(line, name), offered=offered is not None),
        }

    def _changes(self, old: str, recipe: Recipe) -> list[str]:
        """In process words; the last one says how many more there are."""
        texts = [change.text for change in compare(self._library.recipe(old), recipe)]
        length = shown = 0
        while shown < len(texts) and (length := length + len(texts[shown])) <= CHANGES_CHARS_MAX:
            shown += 1
        left = len(texts) - shown
        return texts if not left else [*texts[:shown], f"and {left} more: compare the files with lineside recipe diff"]


def fitting(library: Library, name: str, plant: Plant) -> Recipe:
    """The sealed recipe, checked on this plant. Raises the first finding with all others in `others`."""
    document = library.recipe_document(name)
    refuse_findings(document, plant, None)
    return document.recipe


def _acts(life: RecipeLife | None, state: RecipeState, *, offered: bool) -> list[dict[str, Any]]:
    """What can be signed now, for a screen: by whom the line would let it be signed, it says itself."""
    found = []
    for act in LIFE[state]:
        if act is RecipeAct.SUBMIT and not offered:
            continue  # it is submitted by its file
        without = list(barred(life, act)) if life else []
        only = [life.author] if life and act is RecipeAct.SUBMIT else []
        roles = [role.value for role in roles_with(PERMISSION[act])]
        found.append({"act": act.value, "roles": roles, "without": without, "only": only})
    return found


def _checked(data: bytes, plant: Plant, beside: Path) -> RecipeDocument:
    document = read_recipe(data, "the recipe")
    refuse_findings(document, plant, beside)
    return document


def _is_meant(life: RecipeLife, wanted: str) -> bool:
    by_seal = len(wanted) >= 6 and life.seal.startswith(wanted)
    return by_seal or wanted in {life.recipe, f"{life.recipe} {life.version}"}


def _as_json(life: RecipeLife) -> dict[str, Any]:
    return {
        "recipe": life.recipe,
        "version": life.version,
        "title": life.title[:TITLE_CHARS_MAX],
        "seal": life.seal,
        "state": life.state.value,
        "author": life.author,
        "plant": life.plant,
        "rehearsal": life.rehearsal,
        "rehearsed": life.rehearsed,
        "rehearsal_ok": life.rehearsal_ok,
        "signed": [_signed(one) for one in life.signed],
        "reason": life.reason[:REASON_CHARS_SHOWN_MAX],
        "superseded_by": life.superseded_by,
    }


def _signed(one: Endorsement) -> dict[str, Any]:
    return {"person": one.person, "role": one.role, "act": one.act.value, "utc": one.utc, "row": one.seq}
