"""Recipes: which there are, what is to be approved, and each act of their life signed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import uuid4

from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input

from edge.core.people import Permission, permitted
from edge.wire import ListRecipes, OfferRecipe, PersonView, Picture, ShowRecipe, SignRecipe
from ui import drawing
from ui.locale import Words
from ui.screens.sign import Signing
from ui.view import Ask, Choice, Choices, Entry, Front, Go, Line, Look, Pad, Said, Target, View

LIST: Final = "recipes"
"""Under this name the front has the desk's list."""
FILE: Final = "file "
"""Before the name of a file nobody has submitted yet."""
AGAIN_S: Final = 5.0
"""The list is asked for again after so long: others sign elsewhere."""
CHANGES_SHOWN: Final = 300
MARKS: Final = {"draft": "○", "in review": "▲", "approved": "◆", "effective": "✔", "retired": "✖"}
COLOURS: Final = {"in review": "$warning", "approved": "$primary", "effective": "$success", "retired": "$quiet"}
FIRST: Final = ("in review", "approved", "file", "draft", "effective", "retired")
WITH_REASON: Final = ("send back", "retire")


def wanted(front: Front, go: Go) -> tuple[tuple[object, ...], type[View], tuple[str, ...]] | None:
    """The key of what must be shown, and what makes it; None when that is no place of recipes."""
    known = front.looked.get(go.choice) is not None
    if go.place == "sign-recipe" and known:
        return ("sign-recipe", go.choice, go.step), SignAct, (go.choice, go.step)
    if go.place == "recipe-act" and known:
        return ("recipe-act", go.choice, go.step), ActOnRecipe, (go.choice, go.step)
    if go.place in {"recipe", "recipe-act", "sign-recipe"}:
        return ("recipe", go.choice), OneRecipe, (go.choice,)
    return (("recipes",), Recipes, ()) if go.place == "recipes" else None


def may_look(picture: Picture) -> bool:
    """True for those who have something to do with recipes, where recipes are signed; and for who only reads."""
    roles = picture.person.roles if picture.person else ()
    signs = any(permitted(roles, one) for one in (Permission.SUBMIT, Permission.APPROVE, Permission.RELEASE))
    return picture.recipe_approval != "from_folder" and (signs or not permitted(roles, Permission.START))


def _able(picture: Picture, shown: Mapping[str, Any]) -> dict[str, list[PersonView]]:
    """What can be signed about it now, and who of this box may."""
    return {
        one["act"]: [
            person
            for person in picture.people
            if set(person.roles) & set(one["roles"])
            and person.person not in one["without"]
            and (not one["only"] or person.person in one["only"])
        ]
        for one in shown["acts"]
    }


def _roles(shown: Mapping[str, Any], *acts: str) -> tuple[str, ...]:
    """Who may sign these acts; all, when none is given."""
    return tuple(
        dict.fromkeys(role for one in shown["acts"] if not acts or one["act"] in acts for role in one["roles"])
    )


def _key(act: str) -> str:
    return act.replace(" ", "_")


def _state(words: Words, state: str) -> str:
    return words(f"recipe.state.{_key(state)}")


def _named(name: str, text: str) -> Content:
    return Content.assemble((f"{name}  ", "$quiet"), (text, "bold"))


def _heading(shown: Mapping[str, Any]) -> Content:
    return Content.assemble((f"{shown['recipe']} {shown['version']}", "bold $primary"), f"  {shown['title']}")


def described(words: Words, shown: Mapping[str, Any]) -> Content:
    """All that a person must see before signing."""
    lines = [_named(words("recipe.seal"), f"{shown['seal'][:12]}  {words('recipe.steps', count=shown['steps'])}")]
    seen, colour = ("✔", "$success") if shown["rehearsal_ok"] else ("✖", "bold $error")
    rehearsed = (f"{seen} {shown['rehearsed']}", colour)
    lines.append(Content.assemble((f"{words('recipe.rehearsal')}  ", "$quiet"), rehearsed))
    lines += [
        _named(
            words(f"recipe.done.{_key(one['act'])}"),
            f"{one['person']} ({words('role.' + one['role'])}) {drawing.moment(one['utc'])}",
        )
        for one in shown["signed"]
    ]
    if shown.get("reason"):
        lines.append(_named(words("act.reason"), shown["reason"]))
    changes: Sequence[str] = shown["changes"]
    if not shown["compared_with"]:
        lines.append(Content(words("recipe.first")))
    elif shown["compared_with"] != shown["seal"]:
        lines.append(Content(words("recipe.changes", version=shown["compared_version"])))
        lines += [Content(f"· {text}") for text in changes[:CHANGES_SHOWN]]
        if len(changes) > CHANGES_SHOWN:
            lines.append(Content(words("amend.more", count=len(changes) - CHANGES_SHOWN)))
    return Content("\n").join(lines)


class Recipes(View):
    """`#recipe-<n>` for each, those that wait for somebody first; `#home`."""

    place: ClassVar[str] = "recipes"

    def __init__(self, front: Front) -> None:
        super().__init__(front)
        self._asked_s = -AGAIN_S
        self._offered: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        yield Choices(self.words, of="recipe", per_page=4)

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.home"), id="home", key="escape")

    async def show(self, picture: Picture) -> None:
        words, now_s = self.words, self.front.now_s()
        if self._asked_s <= now_s - AGAIN_S:
            self._asked_s = now_s
            self.post_message(Look(LIST, ListRecipes(id=uuid4().hex), "home"))
        self.offer("#home", shown=True)
        self.write("#title", Content.assemble((words(f"recipes.rule.{picture.recipe_approval}"), "bold $primary")))
        listed = self.front.looked.get(LIST)
        if listed is None:
            self.tell_now(words("recipes.asking"), "", "wait")
            return
        entries = [(one["state"], one["seal"], one) for one in listed["recipes"]]
        entries += [("file", FILE + one["file"], one) for one in listed["drafts"]]
        entries.sort(key=lambda entry: FIRST.index(entry[0]))
        self._offered = tuple(name for _, name, _ in entries)
        room = self.app.size.width - 10
        labels = [self._label(state, one).truncate(room, ellipsis=True) for state, _, one in entries]
        await self.query_one(Choices).show([Choice(str(n), label) for n, label in enumerate(labels)])
        self.tell_now(words("recipes.next" if entries else "recipes.none"))

    def _label(self, state: str, one: Mapping[str, Any]) -> Content:
        named = f"{one['recipe']} {one['version']}".strip()
        if state == "file":
            heading = _state(self.words, "draft")
            return Content.assemble(
                (f"{MARKS['draft']} {heading}  ", "bold"), (named, "bold"), (f"  {one['file']}", "not bold $quiet")
            )
        return Content.assemble(
            (f"{MARKS[state]} {_state(self.words, state)}  ", f"bold {COLOURS.get(state, '')}".strip()),
            (named, "bold"),
            (f"  {one['title']}", "not bold $quiet"),
        )

    def on_choices_picked(self, event: Choices.Picked) -> None:
        name = self._offered[int(event.name)]
        self.front.looked.pop(name, None)  # as it is now
        self.post_message(Go("recipe", choice=name))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "home":
            self.post_message(Go("home"))


class OneRecipe(View):
    """What is to be signed: `#up`, `#down`, `#confirm`, `#back`. A draft is checked and rehearsed first; one that was
    sent back when its author wants it `#again`."""

    place: ClassVar[str] = "recipe"

    def __init__(self, front: Front, of: str) -> None:
        super().__init__(front)
        self._of, self._asked, self._again = of, False, False
        self._acts: tuple[str, ...] = ()

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        with VerticalScroll(id="page", can_focus=False):
            yield Said("", id="facts")

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.up"), id="up", key="f6")
        yield Target(self.words("do.down"), id="down", key="f7")
        yield Target(self.words("do.submit_again"), id="again", key="f4")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words, shown = self.words, self.front.looked.get(self._of)
        self.offer("#back", shown=True)
        person = picture.person.person if picture.person else ""
        sent_back = shown is not None and shown["state"] == "draft" and not shown["acts"] and shown["author"] == person
        self.offer("#again", shown=sent_back)
        for name in ("up", "down"):
            self.offer(f"#{name}", shown=shown is not None)
        if shown is None:
            self._ask()
            self.offer("#confirm", shown=False)
            file = self._of.removeprefix(FILE)
            self.write("#title", Content(file if file != self._of else ""))
            checking = file != self._of or self._again
            self.tell_now(words("recipe.checking" if checking else "recipes.asking"), "", "wait")
            return
        self.write("#title", _heading(shown))
        self.write("#facts", described(words, shown))
        able = _able(picture, shown)
        self._acts = tuple(able)
        self.offer("#confirm", shown=any(able.values()))
        state = _state(words, shown["state"])
        if any(able.values()):
            self.tell_now(words("recipe.next.sign"), state, "go")
        elif self._acts:
            named = ", ".join(words(f"role.{role}") for role in _roles(shown))
            self.tell_now(words("recipe.next.nobody", roles=named), state, "stop")
        else:
            nothing = "recipe.next.draft" if shown["state"] == "draft" else "recipe.next.read"
            self.tell_now(words(nothing), state, "wait")

    def _ask(self) -> None:
        if self._asked:
            return
        self._asked = True
        if self._of.startswith(FILE):
            offer = OfferRecipe(id=uuid4().hex, file=self._of.removeprefix(FILE))
            self.post_message(Look(self._of, offer, "recipes"))
        else:
            self.post_message(Look(self._of, ShowRecipe(id=uuid4().hex, recipe=self._of, act="approve"), "recipes"))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("recipes"))
        elif event.button.id in {"up", "down"}:
            page = self.query_one("#page", VerticalScroll)
            move = page.scroll_page_up if event.button.id == "up" else page.scroll_page_down
            move(animate=False)
        elif event.button.id == "again":
            self._asked = self._again = True
            self.front.looked.pop(self._of, None)
            offer = OfferRecipe(id=uuid4().hex, again=self._of)
            self.post_message(Look(self._of, offer, "recipes"))
        elif event.button.id == "confirm":
            place = "sign-recipe" if self._acts == ("submit",) else "recipe-act"
            self.post_message(Go(place, step=self._acts[0], choice=self._of))


def entry_of(of: str) -> Entry:
    """Where the reason is kept until it is signed."""
    return "", f"recipe {of}"[:256]


class ActOnRecipe(View):
    """`#act-<approve|send_back|release|retire>`, then `#reason`, `#confirm`; `#keyboard`, `#back`."""

    place: ClassVar[str] = "recipe-act"
    takes_keys: ClassVar[str] = "reason"

    def __init__(self, front: Front, of: str, chosen: str) -> None:
        super().__init__(front)
        self._of, self._chosen = of, chosen

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        yield Choices(self.words, of="act", per_page=4)
        yield Line(self.front, entry_of(self._of), self.words("act.reason"), id="reason", length=2000)
        yield Pad("letters", self.words, lambda: self.field("reason"))

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.back"), id="back", key="escape")
        yield Target(self.words("do.keyboard"), id="keyboard", key="f7")
        yield Target(self.words("do.sign"), id="confirm", key="f8", kind="primary")

    def on_mount(self) -> None:
        self.query_one(Choices).add_class("detail")

    async def show(self, picture: Picture) -> None:
        words, shown = self.words, self.front.looked.get(self._of)
        if shown is None:
            return
        acts = [act for act, people in _able(picture, shown).items() if people]
        await self.query_one(Choices).show(
            [
                Choice(
                    _key(act),
                    Content.assemble(
                        (words(f"recipe.act.{_key(act)}"), "bold"),
                        (f"  ·  {words(f'recipe.explain.{_key(act)}')}", "not bold"),
                    ),
                    chosen=act == self._chosen,
                )
                for act in acts
            ]
        )
        typing = self.has_class("typing")
        self.write("#title", "" if typing else _heading(shown))  # the letters take its room
        reason = self._chosen in WITH_REASON
        filled = not reason or bool(self.field("reason").value.strip())
        self.field("reason").display = reason
        self.offer("#back", shown=True)
        self.offer("#keyboard", shown=reason)
        self.query_one("#keyboard", Target).tell(words("do.keyboard.close" if typing else "do.keyboard"))
        self.offer("#confirm", shown=self._chosen in acts and filled)
        self.tell_now(words("recipe.next.reason" if reason else "recipe.next.act"), _state(words, shown["state"]))

    async def on_choices_picked(self, event: Choices.Picked) -> None:
        self._chosen = event.name.replace("_", " ")
        await self.again()
        if self._chosen in WITH_REASON:
            self.focus_on("reason")

    async def on_input_changed(self, _: Input.Changed) -> None:
        await self.again()

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "back":
            self.post_message(Go("recipe", choice=self._of))
        elif event.button.id == "keyboard":
            self.toggle_keyboard("reason")
            await self.again()
        elif event.button.id == "confirm":
            self.post_message(Go("sign-recipe", step=self._chosen, choice=self._of))


class SignAct(Signing):
    """What the signature says, about which seal, and who signs."""

    place: ClassVar[str] = "sign-recipe"

    def __init__(self, front: Front, of: str, act: str) -> None:
        super().__init__(front, "")
        self._of, self._act = of, act
        self._shown: Mapping[str, Any] = front.looked[of] or {}
        """What was shown when this view opened is what is signed: the desk refuses it if it changed meanwhile."""

    async def show(self, picture: Picture) -> None:
        words, shown, act = self.words, self._shown, self._act
        lines = [
            _heading(shown),
            _named(words("recipe.seal"), shown["seal"][:12]),
            _named(words("sign.meaning"), words(f"recipe.done.{_key(act)}")),
        ]
        if act in WITH_REASON:
            lines.append(_named(words("act.reason"), self._reason))
        else:
            mark = "✔" if shown["rehearsal_ok"] else "✖"
            lines.append(_named(words("recipe.rehearsal"), f"{mark} {shown['rehearsed']}"))
            count, version = len(shown["changes"]), shown["compared_version"]
            said = words("recipe.changed", count=count, version=version) if version else words("recipe.first")
            lines.append(Content(said))
        self.write("#subject", Content("\n").join(lines))
        able = _able(picture, shown)[act]
        if self._person not in {one.person for one in able}:
            here = picture.person.person if picture.person else ""
            single = able[0].person if len(able) == 1 else ""
            self._person = here if here in {one.person for one in able} else single
        await self.show_signers(able, _roles(shown, act), "", _state(words, shown["state"]), "go")

    @property
    def _reason(self) -> str:
        return self.front.entries.get(entry_of(self._of), "").strip()

    def back(self) -> None:
        alone = self._act == "submit"
        self.post_message(Go("recipe" if alone else "recipe-act", step=self._act, choice=self._of))

    def send(self, person: str, pin: str) -> None:
        facts = {"act": self._act, "seal": self._shown["seal"], "compared_with": self._shown["compared_with"]}
        reason = self._reason if self._act in WITH_REASON else ""
        signed = {"id": uuid4().hex, **facts, "reason": reason, "person": person, "pin": pin}
        request = SignRecipe.model_validate(signed)
        self.post_message(Ask(request, [entry_of(self._of)], then="recipes"))
