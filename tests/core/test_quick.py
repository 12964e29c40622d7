"""A quick dataclass is one of the standard library's, compiled later."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import InitVar, field
from typing import Any, ClassVar

import pytest

from edge.core import quick


@quick.dataclass(frozen=True, slots=True)
class Carried:
    """For pickling, which looks for the class by its name."""

    seq: int
    hash: str = ""


def declared(dataclass: Any, **options: bool) -> list[Any]:
    """A family of classes, declared with `dataclass`."""

    @dataclass(**options)
    class Base:
        """Has a docstring."""

        batch: str = ""
        parts: list[str] = field(default_factory=list, compare=not options.get("frozen", False))
        kinds: ClassVar[tuple[str, ...]] = ("a",)

    @dataclass(**options)
    class Inner(Base):
        seq: int = field(default=0, repr=False)
        made: str = field(default="", init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "made", f"{self.batch}-{self.seq}")

    @dataclass(**options)
    class Own(Base):  # noqa: PLW1641  whether it has a hash is what is compared
        seq: int = 0

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Own)

        def __repr__(self) -> str:
            return f"own {self.seq}"

    class Plain(Inner):
        def __init__(self, batch: str) -> None:
            super().__init__(batch=batch, seq=3)

    return [Base, Inner, Own, Plain]


def behaviour(what: Callable[[], object]) -> object:
    try:
        return what()
    except (TypeError, AttributeError):  # which of the two it is depends on slots
        return "refused"


@pytest.mark.parametrize("kw_only", [False, True])
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_it_behaves_as_the_standard_one(frozen: bool, slots: bool, kw_only: bool) -> None:
    def all_of(dataclass: Any) -> list[object]:
        seen: list[object] = []
        for kind in declared(dataclass, frozen=frozen, slots=slots, kw_only=kw_only):
            named = {"batch": "B-1"} if kind.__name__ == "Plain" else {"batch": "B-1", "seq": 4}
            named = {name: value for name, value in named.items() if name != "seq" or kind.__name__ != "Base"}
            one, same, other = kind(**named), kind(**named), kind(batch="B-2")
            seen += [
                kind.__doc__ if kind.__name__ == "Base" else "",
                str(one).replace("declared.<locals>.", ""),
                (one == same, one == other, one == 1, one != same),
                behaviour(lambda one=one, same=same: hash(one) == hash(same)),
                behaviour(lambda one=one: setattr(one, "batch", "B-3")),
                one.batch,
                behaviour(lambda one=one: delattr(one, "seq")),
                kind.__name__ == "Plain" or behaviour(lambda one=one: setattr(one, "unknown", 1)),
                str(behaviour(lambda kind=kind: kind("B-1", ["p"]))).replace("declared.<locals>.", ""),
                behaviour(lambda kind=kind: kind(unknown=1)),
                behaviour(lambda one=one: dataclasses.asdict(one)),
                str(behaviour(lambda one=one: dataclasses.replace(one, batch="B-4"))).replace("declared.<locals>.", ""),
                [(f.name, f.type, f.kw_only) for f in dataclasses.fields(kind)],
                kind.__match_args__,
                copy.copy(same) == same,
                copy.deepcopy(same) == same,
            ]
        return seen

    assert all_of(quick.dataclass) == all_of(dataclasses.dataclass)


def test_one_that_was_never_used_is_compared_hashed_and_shown() -> None:
    assert Carried.__hash__ is not Carried.__init__
    one = object.__new__(Carried)
    Carried.__setstate__(one, [7, "ab"])  # without a call of any method that is compiled
    assert str(one) == "Carried(seq=7, hash='ab')"
    assert pickle.loads(pickle.dumps(one)) == one == Carried(7, "ab")
    assert {one: 1}[Carried(7, "ab")] == 1


def test_what_is_rare_is_left_to_the_standard_one() -> None:
    @quick.dataclass(frozen=True, order=True)
    class Ordered:
        seq: int

    @quick.dataclass
    class Given:
        kept: int = 0
        given: InitVar[int] = 1

        def __post_init__(self, given: int) -> None:
            self.kept = given

    @quick.dataclass
    class More(Given):
        more: int = 0

    assert Ordered(1) < Ordered(2)
    assert (Given(given=5).kept, More(given=6).kept) == (5, 6)


def test_a_frozen_class_of_another_kind_is_no_base() -> None:
    @dataclasses.dataclass(frozen=True)
    class Base:
        seq: int

    with pytest.raises(TypeError, match="frozen"):

        @quick.dataclass(frozen=True)
        class _Derived(Base):
            more: int


def test_a_library_imported_within_declares_its_classes_so_too() -> None:
    standard = dataclasses.dataclass
    with quick.everywhere():

        @dataclasses.dataclass
        class Used:
            seq: int = 0

        @dataclasses.dataclass()
        class Unused:
            seq: int = 0

        @dataclasses.dataclass(frozen=True)
        class Frozen:
            seq: int = 0

        assert Used(3) == Used(3) != Used(4)
    assert dataclasses.dataclass is standard
    assert Used.__init__.__code__.co_filename == "<string>", "compiled when it was used"
    assert Unused.__init__.__code__.co_filename == quick.__file__, "compiled although nobody used it"
    assert Frozen.__init__.__code__.co_filename == "<string>"


def test_a_library_that_fails_to_import_leaves_nothing_behind() -> None:
    standard = dataclasses.dataclass
    with pytest.raises(ImportError), quick.everywhere():
        raise ImportError
    assert dataclasses.dataclass is standard
