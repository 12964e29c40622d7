"""Recipes beside each other, in process words: what differs, who changed what, where something is used, what is alike.

Steps are matched by id, operations by name, branches by the steps in them. Two recipes with the same seal have no
difference, and two without a difference have the same seal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, field
from difflib import SequenceMatcher
from typing import Any, Final, Literal

from pydantic import BaseModel

from edge.core.quick import dataclass
from edge.core.recipe.model import Recipe, Step
from edge.core.recipe.words import MEASURED, word

Kind = Literal["changed", "added", "removed", "moved"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `subject` and `field` say of what, `text` says it to a person, in one sentence."""

    kind: Kind
    subject: str
    field: str
    text: str
    new: str = ""
    """What it is now, to compare with another's change of the same."""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ThreeWay:
    """What two recipes made of the same one."""

    ours: tuple[Change, ...]
    theirs: tuple[Change, ...]
    both: tuple[Change, ...]
    """The same change in each."""
    conflicts: tuple[tuple[Change, Change], ...]
    """Ours and theirs, of the same thing and not the same."""


def compare(old: Recipe, new: Recipe) -> list[Change]:
    """What `new` changes, the procedure in its order, then what stands before it."""
    return _Comparison(_Side(old), _Side(new)).changes()


def three_way(base: Recipe, ours: Recipe, theirs: Recipe) -> ThreeWay:
    """What a site (`ours`) and the new master (`theirs`) each changed since `base`."""
    left, right = compare(base, ours), compare(base, theirs)
    both = tuple(change for change in left if change in right)
    mine = [change for change in left if change not in both]
    other = [change for change in right if change not in both]
    conflicts = tuple((a, b) for a in mine for b in other if _at_odds(a, b))
    touched = {id(change) for pair in conflicts for change in pair}
    return ThreeWay(
        tuple(change for change in mine if id(change) not in touched),
        tuple(change for change in other if id(change) not in touched),
        both,
        conflicts,
    )


def _at_odds(a: Change, b: Change) -> bool:
    """About the same thing, and either would undo the other."""
    if a.subject != b.subject:
        return False
    return "removed" in {a.kind, b.kind} or a.field == b.field


# What a recipe consists of ---------------------------------------------------------------------------------------


class _Fields(dict[str, Any]):
    """The fields of one part, by their keys in a file."""


@dataclass(frozen=True, slots=True)
class _Steps:
    """Stands for a sequence of steps: they are compared by themselves."""

    place: int


@dataclass(slots=True)
class _Sequence:
    """Steps one after the other: an operation's, or inside a step."""

    place: int
    label: str
    """For a sentence: "operation Enrich", "step 050, branch 2"."""
    steps: list[str] = field(default_factory=list)


class _Side:
    """One of the recipes, taken apart."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.sequences: list[_Sequence] = []
        self.steps: dict[str, Step] = {}
        self.fields: dict[str, _Fields] = {}
        self.inner: dict[str, list[int]] = {}
        self.home: dict[str, int] = {}
        self.procedures: list[tuple[str, list[int]]] = []
        """Name and its operations' sequences."""
        self.operations: dict[int, str] = {}
        for procedure in recipe.procedure:
            places = []
            for operation in procedure.operations:
                place = self._sequence(f"operation {operation.operation}", operation.steps)
                self.operations[place] = operation.operation
                places.append(place)
            self.procedures.append((procedure.unit_procedure, places))

    def title(self, key: str) -> str:
        return self.steps[key].title

    def _sequence(self, label: str, steps: Sequence[Step]) -> int:
        here = _Sequence(len(self.sequences), label)
        self.sequences.append(here)
        for step in steps:
            key, again = step.id, 1
            while key in self.steps:  # an id that stands twice: the checker refuses it, a draft may have it
                again += 1
                key = f"{step.id} ({again})"
            here.steps.append(key)
            self.steps[key] = step
            self.home[key] = here.place
            inner = step.inner()
            places = {
                path: self._sequence(f"step {key}" + (f", branch {n + 1}" if len(inner) > 1 else ""), inside)
                for n, (path, inside) in enumerate(inner)
            }
            self.inner[key] = list(places.values())
            self.fields[key] = _fields(step, places)
        return here.place


def _fields(part: BaseModel, places: Mapping[tuple[str | int, ...], int], path: tuple[str | int, ...] = ()) -> _Fields:
    found = _Fields()
    for name, info in type(part).model_fields.items():
        key = info.alias or name
        found[key] = _plain(getattr(part, name), places, (*path, key))
    return found


def _plain(value: Any, places: Mapping[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> Any:
    if path in places:
        return _Steps(places[path])
    if isinstance(value, BaseModel):
        return _fields(value, places, path)
    if isinstance(value, Mapping):
        return {key: _plain(one, places, (*path, key)) for key, one in value.items()}
    if isinstance(value, tuple):
        return [_plain(one, places, (*path, place)) for place, one in enumerate(value)]
    return value


# The comparison --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Comparison:
    old: _Side
    new: _Side
    found: list[Change] = field(default_factory=list)
    _same: dict[int, int] = field(default_factory=dict)
    """The new side's sequences and those of the old side that they were."""

    def changes(self) -> list[Change]:
        self._match()
        old, new = self.old, self.new
        self._top()
        self._structure()
        for key in [*new.steps, *(key for key in old.steps if key not in new.steps)]:
            if key not in new.steps:
                where = old.sequences[old.home[key]].label
                self._say("removed", key, "", f"step {key} “{old.title(key)}” was removed (from {where})")
            elif key not in old.steps:
                self._say(
                    "added", key, "", f"step {key} “{new.title(key)}” was added {self._where(key)}", self._whole(key)
                )
            else:
                self._part(f"step {key}", old.fields[key], new.fields[key], key)
        self._moves()
        return self.found

    def _say(self, kind: Kind, step: str, field: str, text: str, now: str = "") -> None:
        self.found.append(Change(kind, f"step {step}", field, text, now))

    def _whole(self, key: str) -> str:
        return repr((self._where(key), _without_places(self.new.fields[key])))

    def _where(self, key: str) -> str:
        home = self.new.sequences[self.new.home[key]]
        place = home.steps.index(key)
        return f"in {home.label}, " + (f"after step {home.steps[place - 1]}" if place else "as its first step")

    # Matching

    def _match(self) -> None:
        old, new = self.old, self.new
        names = _numbered(new.operations)
        was = {name: place for place, name in _numbered(old.operations).items()}
        left = set(old.operations)
        for place, name in names.items():
            if name in was:
                self._same[place] = was[name]
                left.discard(was[name])
        free = [place for place in new.operations if place not in self._same]
        self._by_steps(free, left)
        for key in new.steps:
            if key in old.steps:
                before, now = old.inner[key], new.inner[key]
                rest = set(before)
                self._by_steps(now, rest)
                for one in (one for one in now if one not in self._same):
                    place = now.index(one)
                    if place < len(before) and before[place] in rest:
                        self._same[one] = before[place]
                        rest.discard(before[place])

    def _by_steps(self, now: Sequence[int], left: set[int]) -> None:
        """Match each with the one of `left` that it shares most steps with."""
        pairs = sorted(
            (
                (-len(set(self.new.sequences[a].steps) & set(self.old.sequences[b].steps)), a, b)
                for a in now
                for b in left
            ),
        )
        for shared, a, b in pairs:
            if shared and a not in self._same and b in left:
                self._same[a] = b
                left.discard(b)

    # What stands before the procedure

    def _top(self) -> None:
        old, new = _fields(self.old.recipe, {}), _fields(self.new.recipe, {})
        for key in new:
            if key == "procedure":
                continue
            if isinstance(new[key], dict) and not isinstance(new[key], _Fields):
                self._named(word(key).says, key, old[key], new[key])
            else:
                self._part("the recipe", _Fields({key: old[key]}), _Fields({key: new[key]}))

    def _named(self, says: str, key: str, old: Mapping[str, Any], new: Mapping[str, Any], of: str = "") -> None:
        before = f"{of}: " if of else ""
        for name in [*new, *(name for name in old if name not in new)]:
            subject = of or f"{says} {name}"
            field = f"{key}.{name}" if of else ""
            thing = f"{before}{says} {name}"
            if name not in new:
                self.found.append(Change("removed", subject, field, f"{thing} was removed"))
            elif name not in old:
                shown = _shown(new[name], key)
                self.found.append(Change("added", subject, field, f"{thing} was added: {shown}", shown))
            elif isinstance(new[name], _Fields) and isinstance(old[name], _Fields):
                self._part(thing, old[name], new[name])
            elif not _alike(old[name], new[name]):
                self._changed(subject, field or key, thing, old[name], new[name])

    # Unit procedures and operations

    def _structure(self) -> None:
        old, new = self.old, self.new
        removed = [place for place in old.operations if place not in self._same.values()]
        for place in removed:
            name = old.operations[place]
            self.found.append(Change("removed", f"operation {name}", "", f"operation {name} was removed"))
        for place, name in new.operations.items():
            if place not in self._same:
                self.found.append(Change("added", f"operation {name}", "", f"operation {name} was added", name))
            elif (was := old.operations[self._same[place]]) != name:
                text = f"operation {was} is now called {name}"
                self.found.append(Change("changed", f"operation {was}", "name", text, name))
        before = [(name, [*places]) for name, places in old.procedures]
        after = [(name, [self._same.get(place, -1) for place in places]) for name, places in new.procedures]
        kept = {place for _, places in after for place in places}
        if [(n, [p for p in places if p in kept]) for n, places in before] != [
            (n, [p for p in places if p >= 0]) for n, places in after
        ] or [len(places) for _, places in before] != [len(places) for _, places in after]:
            text = f"the operations are arranged as {self._outline(new)}; they were as {self._outline(old)}"
            self.found.append(Change("moved", "the procedure", "order", text, self._outline(new)))
        elif self._gaps(before, set(removed)) != self._gaps(after, {-1}):
            text = f"the operations stand as {self._outline(new)}"
            self.found.append(Change("moved", "the procedure", "order", text, self._outline(new)))

    @staticmethod
    def _gaps(procedures: Sequence[tuple[str, list[int]]], other: set[int]) -> list[list[bool]]:
        return [[place in other for place in places] for _, places in procedures]

    @staticmethod
    def _outline(side: _Side) -> str:
        return "; ".join(
            f"{name} ({', '.join(side.operations[place] for place in places)})" for name, places in side.procedures
        )

    def _moves(self) -> None:
        """Steps that stand elsewhere: in another sequence, or before or after others than they did."""
        old, new = self.old, self.new
        for sequence in new.sequences:
            known = [key for key in sequence.steps if key in old.steps]
            stayed = [key for key in known if old.home[key] == self._same.get(sequence.place)]
            was = self._same.get(sequence.place)
            order = [key for key in old.sequences[was].steps if key in set(stayed)] if was is not None else []
            matcher = SequenceMatcher(a=order, b=stayed, autojunk=False)
            unmoved = {key for block in matcher.get_matching_blocks() for key in stayed[block.b : block.b + block.size]}
            for key in known:
                if key not in unmoved:
                    before = old.sequences[old.home[key]]
                    place = before.steps.index(key)
                    at = f"after step {before.steps[place - 1]}" if place else "its first step"
                    now = self._where(key)
                    text = f"step {key} “{new.title(key)}” was moved: now {now}; before in {before.label}, {at}"
                    self._say("moved", key, "place", text, now)

    # Fields

    def _part(self, subject: str, old: _Fields, new: _Fields, step: str = "", inside: str = "") -> None:
        """Say what differs in the fields of one part."""
        quantity = _quantity(new) if step else ""
        for key in [*new, *(key for key in old if key not in new)]:
            before, now = old.get(key), new.get(key)
            says = word(key, inside or str(new.get("phase", ""))).says
            if _alike(before, now) or (isinstance(now, _Steps) and self._is(before, now)):
                continue
            if isinstance(before, _Fields) and isinstance(now, _Fields):
                self._nested(subject, key, before, now, old, new, quantity)
            elif isinstance(before, list) and isinstance(now, list) and _holds_parts(before, now):
                self._list(subject, key, before, now)
            elif isinstance(now, dict) and isinstance(before, dict):
                self._named(says, key, before, now, of=subject)
            else:
                if isinstance(before, _Fields) or isinstance(now, _Fields):
                    says = f"{quantity} {says}".strip()
                units = (_unit(old), _unit(new)) if key in MEASURED | {"low", "high"} else ("", "")
                self._changed(subject, key, f"{subject}: {says}", before, now, units)

    def _nested(
        self, subject: str, key: str, before: _Fields, now: _Fields, old: _Fields, new: _Fields, quantity: str
    ) -> None:
        """The fields of a limit, a tolerance …, called after what they limit."""
        units = (_unit(before) or _unit(old), _unit(now) or _unit(new))
        for one in [*now, *(one for one in before if one not in now)]:
            a, b = before.get(one), now.get(one)
            if _alike(a, b):
                continue
            said = word(one, key).says
            says = " ".join(said.replace("{}", quantity).split()) if "{}" in said else f"{word(key).says}, {said}"
            numbers = isinstance(a, float) or isinstance(b, float)
            self._changed(subject, f"{key}.{one}", f"{subject}: {says}", a, b, units if numbers else ("", ""))

    def _is(self, before: Any, now: Any) -> bool:
        return isinstance(before, _Steps) and self._same.get(now.place) == before.place

    def _list(self, subject: str, key: str, before: list[Any], now: list[Any]) -> None:
        """Branches, tests …: matched by the steps in them or by their name, else by their place."""
        was = dict(zip(self._tags(before, old=True), before, strict=True))
        tags = self._tags(now, old=False)
        singular = {"branches": "branch", "tests": "test"}.get(key, word(key).says)
        for place, (tag, one) in enumerate(zip(tags, now, strict=True)):
            name = f"{singular} {place + 1}"
            if tag not in was:
                shown = _shown(one)
                text = f"{subject}: {name} was added" + (f": {shown}" if shown else "")
                self.found.append(Change("added", subject, f"{key}.{tag}", text, shown))
            elif isinstance(one, _Fields) and isinstance(was[tag], _Fields):
                self._part(f"{subject}, {name}", was[tag], one)
        for place, tag in enumerate(was):
            if tag not in tags:
                text = f"{subject}: {singular} {place + 1} was removed"
                self.found.append(Change("removed", subject, f"{key}.{tag}", text))
        if [tag for tag in was if tag in tags] != [tag for tag in tags if tag in was] or (
            len(was) == len(tags) and list(was) != tags and set(was) & set(tags)
        ):
            text = f"{subject}: the {word(key).says} stand in another order"
            self.found.append(Change("moved", subject, f"{key} order", text, repr(tags)))

    def _tags(self, items: Sequence[Any], *, old: bool) -> list[str]:
        """What each is known by on both sides; none twice."""
        tags = [self._tag(one, place, old=old) for place, one in enumerate(items)]
        return [f"{tag} {tags[:place].count(tag)}" for place, tag in enumerate(tags)]

    def _tag(self, one: Any, place: int, *, old: bool) -> str:
        steps = one if isinstance(one, _Steps) else one.get("steps") if isinstance(one, dict) else None
        if isinstance(steps, _Steps):
            known = steps.place if old else self._same.get(steps.place)
            return f"was {known}" if known is not None else f"new {place}"
        if isinstance(one, dict) and isinstance(one.get("name"), str):
            return str(one["name"])
        return f"{place}"

    def _changed(
        self, subject: str, field: str, thing: str, old: Any, new: Any, units: tuple[str, str] = ("", "")
    ) -> None:
        a, b = (_shown(one, field.rpartition(".")[2]) for one in (old, new))
        if units[0] == units[1]:
            b = f"{b} {units[1]}" if units[1] and b != "none" else b
        else:
            a, b = f"{a} {units[0]}".rstrip(), f"{b} {units[1]}".rstrip()
        self.found.append(Change("changed", subject, field, f"{thing} {a} → {b}", b))


def _numbered(names: Mapping[int, str]) -> dict[int, tuple[str, int]]:
    """Names that stand twice are told apart by their number."""
    seen: Counter[str] = Counter()
    found = {}
    for place, name in names.items():
        seen[name] += 1
        found[place] = (name, seen[name])
    return found


def _alike(a: Any, b: Any) -> bool:
    """The same content. Sequences of steps are alike only where they are matched."""
    if isinstance(a, _Steps) or isinstance(b, _Steps):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


def _holds_parts(*lists: list[Any]) -> bool:
    return any(isinstance(one, _Fields | _Steps | list) for items in lists for one in items)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_places(one) for one in value]
    return "steps" if isinstance(value, _Steps) else value


def _unit(part: _Fields) -> str:
    unit = part.get("unit", "")
    return unit if isinstance(unit, str) else ""


def _quantity(step: _Fields) -> str:
    """What a step's limit limits: "temperature" of "reactor.temperature", or the name of what is recorded."""
    named = str(step.get("tag") or step.get("name") or "").rpartition(".")[2]
    return named.replace("_", " ")


def _shown(value: Any, inside: str = "") -> str:
    """`inside` is the key that the value stands under."""
    if value is None or (isinstance(value, str | list | dict) and not value):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        said = {
            key: one for key, one in value.items() if one not in (None, "", [], False) and not isinstance(one, _Steps)
        }
        return ", ".join(
            f"{_says(key, inside) if isinstance(value, _Fields) else key} {_shown(one, key)}"
            for key, one in said.items()
        )
    if isinstance(value, list):
        return ", ".join(_shown(one, inside) for one in value)
    if isinstance(value, _Steps):
        return "steps"
    text = str(value)
    return f"“{text}”" if isinstance(value, str) and text.count(" ") > 1 else text


def _says(key: str, inside: str) -> str:
    return " ".join(word(key, inside).says.replace("{}", "").split())


# Where something is used -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Use:
    """A place where a recipe uses what was looked for."""

    subject: str
    title: str
    what: str


def where_used(recipe: Recipe, term: str) -> list[Use]:
    """Every place whose name, tag or text holds `term`, in any case of letters."""
    wanted = term.casefold()
    side = _Side(recipe)
    found = []
    top = _fields(recipe, {})
    for key, value in top.items():
        if key != "procedure":
            found += [
                Use("the recipe", recipe.title, f"{word(key).says}: {text}")
                for text in _texts(value)
                if wanted in text.casefold()
            ]
    for name in [*side.operations.values(), *(name for name, _ in side.procedures)]:
        if wanted in name.casefold():
            found.append(Use(f"operation {name}", name, f"name: {name}"))
    for key, fields in side.fields.items():
        for one, value in fields.items():
            hits = [text for text in _texts(value) if wanted in text.casefold()]
            found += [Use(f"step {key}", side.title(key), f"{word(one).says}: {text}") for text in hits]
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(value, _Fields):
                yield key
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


# What is alike ---------------------------------------------------------------------------------------------------

NEAR: Final = 3
"""So many operations are named as the reason."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What a recipe is known by when it is compared with many."""

    name: str
    version: str
    title: str
    steps: frozenset[str]
    operations: frozenset[str]


@dataclass(frozen=True, slots=True)
class Alike:
    """How much of a recipe another one has: 0 to 1, and why."""

    profile: Profile
    share: float
    why: str


def profile(recipe: Recipe) -> Profile:
    """A step counts as the same in another recipe when its phase and either its words or what it handles are."""
    steps = set()
    for step in recipe.in_order():
        words = " ".join(step.title.casefold().split())
        steps.add(f"{step.phase} {words}")
        handled = getattr(step, "tag", "") or getattr(step, "name", "") or getattr(step, "operation", "")
        if handled:
            steps.add(f"{step.phase} @{handled}")
    operations = {" ".join(o.operation.casefold().split()) for p in recipe.procedure for o in p.operations}
    return Profile(recipe.recipe, recipe.version, recipe.title, frozenset(steps), frozenset(operations))


def rank(wanted: Profile, others: Sequence[Profile]) -> list[Alike]:
    """The others, most alike first; those with nothing in common are left out."""
    found = []
    for other in others:
        steps, operations = wanted.steps & other.steps, wanted.operations & other.operations
        whole = len(wanted.steps | other.steps) + len(wanted.operations | other.operations)
        share = (len(steps) + len(operations)) / whole if whole else 0.0
        if share:
            named = ", ".join(sorted(operations)[:NEAR]) + (" …" if len(operations) > NEAR else "")
            why = f"{len(steps)} of {len(wanted.steps)} traits of its steps" + (
                f"; operations: {named}" if named else ""
            )
            found.append(Alike(other, share, why))
    return sorted(found, key=lambda one: (-one.share, one.profile.name, one.profile.version))
