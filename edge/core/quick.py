"""`dataclass` as the standard library's, but its methods are compiled when one of them is first called.

A start declares some hundred classes and uses a few dozen of them; compiling six methods of each was a tenth of it.
Where a class is frozen, those that it derives from are declared here too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

_standard: Final[Any] = dataclasses.dataclass
_COMPILED: Final = ("__init__", "__repr__", "__eq__", "__hash__")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  to others it is one of this module
else:

    def dataclass(cls=None, /, **options):  # noqa: ANN001, ANN003, ANN201  as those of the other one
        """As `dataclasses.dataclass`."""
        return (lambda made: _declare(made, **options)) if cls is None else _declare(cls, **options)


@contextmanager
def everywhere() -> Iterator[None]:
    """A library that is imported within declares its classes so too, except frozen ones."""

    def declared(cls: Any = None, /, **options: bool) -> Any:
        return (_standard if options.get("frozen") else dataclass)(cls, **options)

    dataclasses.dataclass = declared
    try:
        yield
    finally:
        dataclasses.dataclass = _standard


def _declare(cls: type, *, frozen: bool = False, slots: bool = False, kw_only: bool = False, **rest: bool) -> Any:
    if rest or any("InitVar" in str(vars(one).get("__annotations__", "")) for one in cls.__mro__):
        return _standard(cls, frozen=frozen, slots=slots, kw_only=kw_only, **rest)  # rare
    own = set(_COMPILED) & vars(cls).keys()
    if "__eq__" in own and vars(cls)["__hash__"] is None:
        own.remove("__hash__")  # Python has set it, not who wrote the class
    cls.__doc__ = cls.__doc__ or cls.__name__  # else a signature is made for it
    made = _standard(cls, init=False, repr=False, eq=False, slots=slots, kw_only=kw_only)
    names = [name for name in _COMPILED if name not in own]
    if frozen:
        made.__setattr__, made.__delattr__ = _refusals(made)
        if slots:
            made.__getstate__, made.__setstate__ = _state, _restore
    elif "__hash__" in names:
        names.remove("__hash__")
        made.__hash__ = None
    until = _until_called(made, names, frozen=frozen)
    for name in names:
        setattr(made, name, until[name])
    return made


def _until_called(cls: Any, names: list[str], *, frozen: bool) -> dict[str, Callable[..., Any]]:
    """What stands for the methods of a class: when one is called, those named are compiled."""

    def compiled() -> Any:
        if names:
            fields = {field.name: field for field in dataclasses.fields(cls)}
            types = {name: field.type for name, field in fields.items()}
            says = {"__module__": cls.__module__, "__annotations__": types, **fields}
            if hasattr(cls, "__post_init__"):
                says["__post_init__"] = cls.__post_init__
            whole = _standard(type(cls.__name__, (), says), frozen=frozen)
            for name in names:
                setattr(cls, name, getattr(whole, name))
            names.clear()
        return cls

    def init(*args: Any, **named: Any) -> None:
        compiled().__init__(*args, **named)

    def shown(self: Any) -> str:
        return str(compiled().__repr__(self))

    def equal(self: Any, other: object) -> Any:
        return compiled().__eq__(self, other)

    def hashed(self: Any) -> int:
        return int(compiled().__hash__(self))

    return {"__init__": init, "__repr__": shown, "__eq__": equal, "__hash__": hashed}


def _refusals(cls: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    def set_(self: Any, name: str, value: Any) -> None:
        if type(self) is cls or name in cls.__dataclass_fields__:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def delete(self: Any, name: str) -> None:
        if type(self) is cls or name in cls.__dataclass_fields__:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return set_, delete


def _state(self: Any) -> list[Any]:
    return [getattr(self, field.name) for field in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for field, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, field.name, value)
