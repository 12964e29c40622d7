"""Site files: what a site adds to a master recipe. Units for its roles, values for site parameters, and nothing else.

The same master and the same site file make the same recipe, with the same seal; it says what it was made from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import orjson
from pydantic import Field
from pydantic_core import ErrorDetails

from edge.core.document import Document, Path, closest, read_document, together, validate
from edge.core.errors import LinesideError
from edge.core.plant import Frozen, Name
from edge.core.quick import dataclass
from edge.core.recipe.compare import compare
from edge.core.recipe.model import MadeFrom, Parameter, Recipe, Text, Version, Why
from edge.core.recipe.read import seal

_DOMAIN: Final = b"lineside.site.1\n"
NOT_DERIVED: Final = "No recipe was made."


class Master(Frozen):
    """The one master recipe that a site file is for."""

    recipe: Name
    version: Version
    seal: str = Field(pattern=r"^[0-9a-f]{64}$")


class SiteValue(Frozen):
    """What a site parameter is here, in the parameter's own unit."""

    value: float | bool | Text
    why: Why = ""


class Site(Frozen):
    """A site file. Its units are those of the plant file, by the roles of the master."""

    site: Name
    version: Version
    why: Why = ""
    master: Master
    units: Annotated[Mapping[Name, Name], Field(max_length=100)] = Field(default_factory=dict)
    parameters: Annotated[Mapping[Name, SiteValue], Field(max_length=1_000)] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SiteDocument:
    """A site file and where each part of it stands."""

    site: Site
    document: Document

    @property
    def seal(self) -> str:
        """SHA-256 over its content; formatting and comments do not change it."""
        content = self.site.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(_DOMAIN + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def is_site(document: Document) -> bool:
    """True when the file calls itself a site file."""
    return isinstance(document.data, dict) and "site" in document.data


def read_site(data: bytes, name: str) -> SiteDocument:
    """Read a site file. Raises `document.*` and `site.only_binding` with every finding, the first with the others."""
    document = read_document(data, name)
    return SiteDocument(validate(document, Site, _explain), document)


def _explain(details: ErrorDetails, document: Document, path: Path) -> LinesideError | None:
    if details["type"] != "extra_forbidden":
        return None
    return LinesideError(
        "site.only_binding",
        f"A site file binds roles to units and fills site parameters; {'.'.join(map(str, path))[:80]!r} is neither.",
        effect=NOT_DERIVED,
        todo="Remove it. Whatever else is to be different here is changed in the master.",
        place=document.place(path),
    )


def derive(master: Recipe, given: SiteDocument) -> Recipe:
    """The site's recipe: the master with its roles bound and its site parameters filled. What it then means is
    `check_recipe`'s to judge.

    Raises `site.*` with every finding: the first, the others in `others`."""
    if problems := list(_problems(master, given)):
        raise together(problems)
    site = given.site
    parameters = {name: _filled(parameter, site.parameters.get(name)) for name, parameter in master.parameters.items()}
    units = {role: need.model_copy(update={"unit": site.units.get(role, "")}) for role, need in master.units.items()}
    return master.model_copy(
        update={
            "version": f"{master.version}.{site.version}",
            "units": units,
            "parameters": parameters,
            "made_from": MadeFrom(
                recipe=master.recipe,
                version=master.version,
                seal=site.master.seal,
                site=site.site,
                site_version=site.version,
                site_seal=given.seal,
            ),
        }
    )


def _filled(parameter: Parameter, given: SiteValue | None) -> Parameter:
    if given is None:
        return parameter
    # a site parameter's placeholder is what the site has now set
    changes: dict[str, Any] = {"value": given.value, "placeholder": False, "why": given.why or parameter.why}
    return parameter.model_copy(update=changes)


def _problems(master: Recipe, given: SiteDocument) -> Iterator[LinesideError]:
    site, place = given.site, given.document.place
    if master.made_from is not None:
        yield LinesideError(
            "site.of_a_site",
            f"{master.recipe} {master.version} was itself made for the site {master.made_from.site}.",
            effect=NOT_DERIVED,
            todo="Give the master that it was made from.",
            place=place(("master",)),
        )
        return
    named = (site.master.recipe, site.master.version, site.master.seal)
    if named != (master.recipe, master.version, seal(master)):
        yield LinesideError(
            "site.other_master",
            f"This site file is for {named[0]} {named[1]} with the seal {named[2][:12]}…, and the master is "
            f"{master.recipe} {master.version}, {seal(master)[:12]}….",
            effect=NOT_DERIVED,
            todo="Look at what the master changed (lineside recipe diff SITE NEW-MASTER --base OLD-MASTER), then write "
            "its version and seal here.",
            place=place(("master",)),
        )
        return
    seen: dict[str, str] = {}
    for role, unit in site.units.items():
        if role not in master.units:
            yield LinesideError(
                "site.unknown_role",
                f"The master has no role {role!r}.",
                effect=NOT_DERIVED,
                todo=closest(role, list(master.units)),
                place=place(("units", role)),
            )
        if unit in seen:
            yield LinesideError(
                "site.unit_twice",
                f"The unit {unit} is bound to {seen[unit]!r} and to {role!r}.",
                effect=NOT_DERIVED,
                todo="Give each role a unit of its own.",
                place=place(("units", role)),
            )
        seen[unit] = role
    open_to_sites = [name for name, parameter in master.parameters.items() if parameter.site]
    for name, value in site.parameters.items():
        here = ("parameters", name)
        if name not in open_to_sites:
            known = name in master.parameters
            yield LinesideError(
                "site.not_a_site_parameter",
                f"The parameter {name!r} "
                + ("is not one that a site fills." if known else "is not one of the master's."),
                effect=NOT_DERIVED,
                todo="Change it in the master, or mark it there with site: true."
                if known
                else closest(name, open_to_sites),
                place=place(here),
            )
        elif type(value.value) is not type(master.parameters[name].value):
            yield LinesideError(
                "site.value_type",
                f"{name!r} is {master.parameters[name].value!r:.40} there; {value.value!r:.40} is of another kind.",
                effect=NOT_DERIVED,
                todo="Give a number for a number, a text for a text, true or false for true or false.",
                place=place((*here, "value")),
            )
    for name in open_to_sites:
        if name not in site.parameters:
            yield LinesideError(
                "site.parameter_missing",
                f"The master leaves {name!r} to the site, and the site file does not fill it.",
                effect=NOT_DERIVED,
                todo=f"Add it under `parameters`, also when it stays {master.parameters[name].value} as in the master.",
                place=place(("parameters",)),
            )


def to_look_at(old: Recipe, new: Recipe, given: SiteDocument) -> list[str]:
    """What this site must look at now that its master went from `old` to `new`, in sentences."""
    site, found = given.site, []
    for role, unit in site.units.items():
        was, now = old.units.get(role), new.units.get(role)
        if now is None:
            found.append(f"the role {role}, which is bound to {unit} here, is not in the new master")
        elif was is not None and was.cls != now.cls:
            found.append(f"the role {role}, which is bound to {unit} here, is now a {now.cls}; it was a {was.cls}")
    found += [
        f"the new role {role} ({need.cls}) may be bound" for role, need in new.units.items() if role not in old.units
    ]
    for name, value in site.parameters.items():
        parameter = new.parameters.get(name)
        if parameter is None or not parameter.site:
            found.append(f"the parameter {name}, which is {value.value} here, is no site parameter any more")
        elif _without_value(parameter) != _without_value(old.parameters[name]):
            found.append(f"the parameter {name}, which is {value.value} here, has another kind, unit or range")
        elif parameter.value != old.parameters[name].value:
            found.append(
                f"the parameter {name}, which is {value.value} here, went from {old.parameters[name].value} to "
                f"{parameter.value} in the master"
            )
    found += [
        f"the new site parameter {name} must be filled"
        for name, parameter in new.parameters.items()
        if parameter.site and name not in site.parameters
    ]
    bound = set(site.units) | {f"${name}" for name in site.parameters}
    steps = new.steps()
    for change in compare(old, new):
        step = steps.get(change.subject.removeprefix("step "))
        used = {role for role in bound if step is not None and role in _used(step.model_dump(mode="json"))}
        if used:
            named = ", ".join(sorted(one.removeprefix("$") for one in used))
            found.append(f"{change.text} (it uses what is set here: {named})")
    found.append(f"the site file names the master {old.version}: write {new.version} and its seal {seal(new)}")
    return found


def _without_value(parameter: Parameter) -> Parameter:
    return parameter.model_copy(update={"value": False, "why": "", "placeholder": False})


def _used(value: Any) -> set[str]:
    """Roles of the tags and names of the parameters in a step."""
    if isinstance(value, str):
        words = set(value.replace("(", " ").replace(")", " ").replace(",", " ").split())
        return words | {word.partition(".")[0] for word in words}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {word for one in inner for word in _used(one)}
