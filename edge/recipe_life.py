"""`lineside recipe submit`, `approve`, `send-back`, `release`, `retire`, `status`: people sign recipes at a terminal.

They talk to the runtime's desk. PIN and consent come from the terminal or standard input, never from the command line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import uuid4

import typer

from edge.core.errors import LinesideError
from edge.core.lifecycle import DONE, RecipeAct
from edge.terminal import AsJson, Box

if TYPE_CHECKING:
    from edge.desk_client import DeskClient

Person = Annotated[str, typer.Option(help="Who signs; without it the badge is asked for.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the journal.")]
Wanted = Annotated[str, typer.Argument(help='A name, "NAME VERSION", or the first characters of a seal.')]
YES: Final = "yes"
SAID: Final = {
    "two_signatures": "two different people approve a recipe, quality one of them, then quality releases it",
    "one_signature": "quality approves a recipe and releases it",
    "from_folder": "NOT SIGNED: what is in the box's folder of recipes may be started",
}


def submit(
    file: Annotated[Path, typer.Argument(help="The recipe file.")],
    person: Person = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Submit a recipe for review, signed by its author. It is checked and rehearsed first, and its difference shown.

    Asks for the PIN, then for "yes"; or reads both from standard input, a line each.

    Example: lineside recipe submit cart-b1.yaml --person eva --box /var/lib/lineside/box
    """
    from edge.config import read_config
    from edge.core.plant import read_plant
    from edge.library import read_bounded, read_checked_recipe, text_to_offer
    from edge.wire import OfferRecipe

    config = read_config(box)
    text = text_to_offer(read_checked_recipe(file, read_plant(read_bounded(config.plant), str(config.plant))))

    async def offered(desk: DeskClient) -> dict[str, Any]:
        print("Checking, keeping and rehearsing it ...", file=sys.stderr)
        return await desk.ask(OfferRecipe(id=uuid4().hex, text=text))

    _sign(RecipeAct.SUBMIT, offered, person, "", box, as_json)


def approve(wanted: Wanted, person: Person = "", box: Box = Path(), as_json: AsJson = False) -> None:
    """Approve a recipe that is in review, signed. Its author cannot; the effective version's difference is shown first.

    Asks for the PIN, then for "yes"; or reads both from standard input, a line each.

    Example: lineside recipe approve CART-B1 --person dot --box /var/lib/lineside/box
    """
    _sign_shown(RecipeAct.APPROVE, wanted, person, "", box, as_json)


def send_back(
    wanted: Wanted,
    reason: Reason,
    person: Person = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Send a recipe back to its author, signed and with a reason: it is a draft again.

    Example: lineside recipe send-back CART-B1 --reason "step 050 has no why" --person dot --box /var/lib/lineside/box
    """
    _sign_shown(RecipeAct.SEND_BACK, wanted, person, reason, box, as_json)


def release(wanted: Wanted, person: Person = "", box: Box = Path(), as_json: AsJson = False) -> None:
    """Make an approved recipe effective, signed by quality. An older effective version is retired with it.

    Example: lineside recipe release CART-B1 --person dot --box /var/lib/lineside/box
    """
    _sign_shown(RecipeAct.RELEASE, wanted, person, "", box, as_json)


def retire(
    wanted: Wanted,
    reason: Reason,
    person: Person = "",
    box: Box = Path(),
    as_json: AsJson = False,
) -> None:
    """Retire a recipe for good, signed by quality and with a reason. Batches under way go on with it.

    Example: lineside recipe retire CART-B1 --reason "replaced by CART-B2" --person dot --box /var/lib/lineside/box
    """
    _sign_shown(RecipeAct.RETIRE, wanted, person, reason, box, as_json)


def status(box: Box = Path(), as_json: AsJson = False) -> None:
    """Show every recipe of a box: its state, who signed what and when; drafts of its folder too.

    Example: lineside recipe status --box /var/lib/lineside/box
    """
    from edge.config import read_config
    from edge.desk_client import connect
    from edge.wire import ListRecipes

    config = read_config(box)

    async def ask() -> dict[str, Any]:
        async with connect(config.desk_socket) as desk:
            return await desk.ask(ListRecipes(id=uuid4().hex))

    answer = asyncio.run(ask())
    approval, recipes, folder = answer["approval"], answer["recipes"], answer["from_folder"]
    drafts = _drafts(config.recipes, {one["seal"] for one in (*recipes, *folder)})
    if as_json:
        facts = {"approval": approval, "recipes": recipes, "from_folder": folder, "drafts": drafts}
        print(json.dumps({**facts, "known": answer["known"]}, ensure_ascii=False))
        return
    print(f"On this box {SAID[approval]}.")
    for one in folder:
        print(f"\n{one['recipe']} {one['version']}  effective, not signed  {one['seal'][:12]}\n  {one['title']}")
    for one in recipes:
        print("\n" + "\n".join(_shown(one)))
    for one in drafts:
        print(f"\n{one['recipe']} {one['version']}  draft  {one['seal'][:12]}\n  {one['title']} ({one['file']})")
    if answer["known"] > len(recipes):
        print(f"\n{answer['known'] - len(recipes)} that changed earlier are not shown.")


def _drafts(folder: Path, known: set[str]) -> list[dict[str, str]]:
    """The recipe files that nobody submitted as they are; what cannot be read as a recipe is said on stderr."""
    from edge.core.recipe import seal
    from edge.library import read_recipe_file, recipe_files

    found = []
    for path in recipe_files(folder):
        try:
            recipe = read_recipe_file(path).recipe
        except LinesideError as refusal:
            print(f"{path}: {refusal.what}", file=sys.stderr)
            continue
        if (name := seal(recipe)) not in known:
            one = {"recipe": recipe.recipe, "version": recipe.version, "title": recipe.title[:100], "seal": name}
            found.append({**one, "file": str(path)})
    return found


# Signing -------------------------------------------------------------------------------------------------------------

See = Callable[["DeskClient"], Any]


def _sign_shown(act: RecipeAct, wanted: str, person: str, reason: str, box: Path, as_json: bool) -> None:
    from pydantic import ValidationError

    from edge.wire import ShowRecipe

    try:
        request = ShowRecipe(id=uuid4().hex, recipe=wanted, act=act.value)
    except ValidationError as error:
        raise _too_long() from error
    _sign(act, lambda desk: desk.ask(request), person, reason, box, as_json)


def _sign(act: RecipeAct, see: See, person: str, reason: str, box: Path, as_json: bool) -> None:
    """Log in, show what `see` gives, ask for consent, and sign it as it was shown."""
    from pydantic import ValidationError

    from edge.config import read_config
    from edge.desk_client import connect
    from edge.wire import LogIn, SignRecipe

    socket = read_config(box).desk_socket
    badge = "" if person else _asked("Badge")
    pin = _asked(f"PIN{f' of {person}' if person else ''}", secret=True)

    async def do() -> dict[str, Any]:
        async with connect(socket) as desk:
            try:
                who = await desk.ask(LogIn(id=uuid4().hex, person=person, badge=badge, pin=pin))
                shown: dict[str, Any] = (await see(desk))["recipe"]
                out = sys.stderr if as_json else sys.stdout
                print("\n".join(_before_signing(act, shown)), file=out, flush=True)
                print(f'  To be signed by {who["person"]["name"]}: "{DONE[act]}"', file=out, flush=True)
                consent = await asyncio.to_thread(_asked, "Type yes to sign")
                if consent.strip().lower() != YES:
                    raise LinesideError(
                        "recipe.not_signed",
                        "Nothing was signed.",
                        effect="The recipe is as it was.",
                        todo='To sign, answer "yes" when all that is shown is right.',
                    )
                await desk.ask(
                    SignRecipe(
                        id=uuid4().hex,
                        act=act.value,
                        seal=shown["seal"],
                        compared_with=shown["compared_with"],
                        reason=reason,
                        person=who["person"]["person"],
                        pin=pin,
                    )
                )
            except ValidationError as error:
                raise _too_long() from error
            listed = await desk.ask(_list())
            return next(one for one in listed["recipes"] if one["seal"] == shown["seal"])

    signed = asyncio.run(do())
    if as_json:
        print(json.dumps({"ok": True, "recipe": signed}, ensure_ascii=False))
        return
    print("\n".join(_shown(signed)))


def _list() -> Any:
    from edge.wire import ListRecipes

    return ListRecipes(id=uuid4().hex)


def _before_signing(act: RecipeAct, shown: dict[str, Any]) -> list[str]:
    lines = [
        f"{shown['recipe']} {shown['version']}: {shown['title']}",
        f"  {shown['state']}, {shown['steps']} steps, seal {shown['seal'][:12]}",
        f"  rehearsal: {shown['rehearsed']}",
        *(f"  {line}" for line in _signatures(shown)),
    ]
    if act in {RecipeAct.SUBMIT, RecipeAct.APPROVE, RecipeAct.RELEASE}:
        if not shown["compared_with"]:
            lines.append("  No version of it is effective now.")
        else:
            lines.append(f"  In {shown['compared_version']}, which is effective now, it changes:")
            lines += [f"    {text}" for text in shown["changes"]]
    return lines


def _shown(one: dict[str, Any]) -> list[str]:
    why = f": {one['reason']}" if one["reason"] else ""
    return [
        f"{one['recipe']} {one['version']}  {one['state']}{why}  {one['seal'][:12]}",
        f"  {one['title']}",
        f"  rehearsal: {one['rehearsed']}",
        *(f"  {line}" for line in _signatures(one)),
    ]


def _signatures(one: dict[str, Any]) -> list[str]:
    return [
        f"{signed['utc'][:16]}Z {signed['person']} ({signed['role']}): {DONE[RecipeAct(signed['act'])]}, "
        f"row {signed['row']}"
        for signed in one["signed"]
    ]


def _asked(what: str, *, secret: bool = False) -> str:
    """One line from the terminal, unseen when it is secret, or from standard input."""
    import getpass

    if not sys.stdin.isatty():
        return sys.stdin.readline(1024).rstrip("\r\n")
    return getpass.getpass(f"{what}: ") if secret else input(f"{what}: ")


def _too_long() -> LinesideError:
    return LinesideError(
        "recipe.input",
        "The recipe's name, the person's id, the badge, the PIN or the reason is too long.",
        todo="Give a reason of at most 2,000 characters, and the others as they are.",
    )
