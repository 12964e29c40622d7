"""A unit's service as a step of a recipe sees it: its tags, what it shows now, and what it must be told next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from edge.core.guard import Shown
from edge.core.plant import Plant, Procedure, Tag, UnitService
from edge.core.quick import dataclass
from edge.core.recipe.model import Service, Setting
from edge.core.service import (
    ACTING,
    AUTOMATIC_BITS,
    EXECUTE,
    INTERNAL_BITS,
    OPERATOR_BITS,
    PRODUCTION,
    SWITCHES,
    Machine,
)
from edge.core.terms import Reading, Value

TRANSITION_S: Final = 60.0
"""So long an acting state may last where the recipe says nothing."""
Latest = Callable[[str], Reading | None]


@dataclass(frozen=True, slots=True)
class Module:
    """One service of one unit of this plant."""

    plant: Plant
    unit: str
    name: str
    declared: UnitService

    @property
    def machine(self) -> Machine:
        return self.declared.machine

    @property
    def said(self) -> str:
        """What it is called in a sentence."""
        return f"{self.name} of {self.unit}"

    def full(self, tag: str) -> str:
        return f"{self.unit}.{tag}"

    def tag(self, name: str) -> Tag:
        """One of its tags; the plant's checks say that it is there."""
        return self.plant.units[self.unit].tags[name]

    @property
    def state_tag(self) -> str:
        return self.full(self.declared.state)

    @property
    def command_tag(self) -> str:
        return self.full(self.declared.command)

    @property
    def acting_tag(self) -> str:
        return self.full(self.declared.acting)

    # What it shows ---------------------------------------------------------------------------------------------

    def state(self, latest: Latest) -> tuple[str, str]:
        """Its state now, and why it cannot be told when it is ""."""
        reading = latest(self.state_tag)
        if reading is None or not reading.good:
            why = "there is no reading yet" if reading is None else reading.detail or reading.quality.value
            return "", f"The state of {self.said} cannot be read ({why})."
        word = self.machine.word(reading.value)
        return (
            word,
            "" if word else f"{self.state_tag} reads {reading.value}, which is no state of {self.machine.title}.",
        )

    def readable(self, latest: Latest) -> bool:
        """Whether all can be read that says whether the module takes commands: after connecting that takes a moment."""
        of = self.declared
        names = (of.automatic, of.external, of.mode, of.unit_mode, of.enabled)
        readings = [latest(self.full(name)) for name in names if name is not None]
        return all(reading is not None and reading.good for reading in readings)

    def switch(self, latest: Latest, given: Mapping[str, Value]) -> tuple[str, Value] | None:
        """What the box writes next to bring the module into the mode in which it does what it is told: the tag and the
        value; None when there is nothing that it may switch, or that it has not switched in this step already."""
        of = self.declared
        for name, shown in ((of.to_automatic, of.automatic), (of.to_external, of.external)):
            if name is not None and shown is not None and self.full(name) not in given:
                reading = latest(self.full(shown))
                if reading is not None and reading.value is False:
                    return self.full(name), True
        if of.mode is None or self.tag(of.mode).access != "write":
            return None
        reading, before = latest(self.full(of.mode)), given.get(self.full(of.mode), 0)
        code = _towards(reading.value) if reading is not None else 0
        return (self.full(of.mode), code) if isinstance(before, int) and code > before else None

    def switched(self, given: Mapping[str, Value]) -> bool:
        """Whether the box has switched something of the mode in this step."""
        names = (self.declared.to_automatic, self.declared.to_external, self.declared.mode)
        return any(self.full(name) in given for name in names if name is not None)

    def not_ready(self, latest: Latest) -> str:
        """Why the module does not do what it is told from outside, in a sentence; "" when it does."""
        declared = self.declared
        if declared.mode is not None:
            reading = latest(self.full(declared.mode))
            if reading is None or not reading.good or not isinstance(reading.value, int):
                return f"Whether {self.unit} takes commands cannot be read ({self.full(declared.mode)})."
            if not reading.value & AUTOMATIC_BITS:
                return f"{self.unit} is not in automatic: switch it to Automatic."
            if reading.value & INTERNAL_BITS:
                return f"{self.unit} does not follow commands from outside: switch its source to External."
        for name, wanted, what in (
            (declared.automatic, True, "is not in automatic: switch it to Automatic"),
            (declared.external, True, "does not follow commands from outside: switch its source to External"),
            (declared.unit_mode, PRODUCTION, "is not in production mode: switch it to Production"),
        ):
            if name is None:
                continue
            reading = latest(self.full(name))
            if reading is None or not reading.good:
                return f"Whether {self.unit} takes commands cannot be read ({self.full(name)})."
            if reading.value != wanted:
                return f"{self.unit} {what}."
        return ""

    def refuses(self, command: str, latest: Latest) -> str:
        """Why the module does not allow the command now, as it says itself; "" when it does, or does not say."""
        if self.declared.enabled is None:
            return ""
        reading = latest(self.full(self.declared.enabled))
        if reading is None or not reading.good or not isinstance(reading.value, int):
            return f"Which commands {self.said} allows cannot be read ({self.full(self.declared.enabled)})."
        if reading.value & self.machine.commands[command]:
            return ""
        allowed = ", ".join(name for name, bit in self.machine.commands.items() if reading.value & bit) or "none"
        return f"{self.said} does not allow {command} now; it allows: {allowed}."

    # What it is told -------------------------------------------------------------------------------------------

    def command_in(self, tag: str, value: Value, given: Mapping[str, Value]) -> str:
        """The command that this write makes act; "" for a parameter, or a command whose request comes after it."""
        if tag != self.acting_tag:
            return ""
        return self.machine.command(value if self.declared.request is None else given.get(self.command_tag))

    def commanded(self, tag: str, value: Value, given: Mapping[str, Value]) -> str:
        """The command that this write belongs to; "" for a parameter."""
        return self.machine.command(value) if tag == self.command_tag else self.command_in(tag, value, given)

    def shown_by(self, tag: str, value: Value, given: Mapping[str, Value]) -> tuple[Value, ...]:
        """The codes of the state that show that a command was taken; none for another write."""
        command = self.command_in(tag, value, given)
        return tuple(sorted(self.machine.codes[state] for state in self.machine.shows(command))) if command else ()

    def shown_at(self, tag: str, value: Value, given: Mapping[str, Value]) -> tuple[Shown, ...]:
        """What shows that another write than a command was taken, where its own tag does not: applying, by each value
        that is then in force; a switch of the mode, by its bits."""
        of = self.declared
        if of.mode is not None and tag == self.full(of.mode) and isinstance(value, int) and value in SWITCHES:
            bits, then = SWITCHES[value]
            return (Shown(tag, then, bits=bits),)
        applied = [name for name, by in of.applied_by.items() if self.full(by) == tag]
        tags = {name: self.full(of.parameters[name]) for name in applied}
        return tuple(Shown(self.full(of.in_force[name]), given[at], of=at) for name, at in tags.items() if at in given)

    def told_by(self, tag: str) -> str:
        """What a write that is no command tells the module, for a sentence; "" for a parameter."""
        of = self.declared
        if tag in {self.full(by) for by in of.applied_by.values()}:
            return f"Applying the parameters of {self.said}"
        if tag in {self.full(name) for name in (of.to_automatic, of.to_external, of.mode) if name is not None}:
            return f"Switching {self.unit} to take commands"
        return ""

    def procedure(self, step: Service) -> Procedure | None:
        """The procedure that the step runs: the named one, or the only one."""
        known = self.declared.procedures
        if step.procedure is None:
            return next(iter(known.values())) if len(known) == 1 else None
        return known.get(step.procedure)

    def used(self, step: Service) -> Mapping[str, str]:
        """The parameters of the procedure, each with its tag."""
        procedure, known = self.procedure(step), self.declared.parameters
        if procedure is None or procedure.parameters is None:
            return known
        return {name: known[name] for name in procedure.parameters if name in known}

    def to_write(self, step: Service) -> Iterator[tuple[str, int | float | bool | str | Setting]]:
        """What must be written before the start, in order: tag (full name), and the procedure's number or what the
        recipe gives."""
        procedure = self.procedure(step)
        if procedure is not None and self.declared.procedure is not None:
            yield self.full(self.declared.procedure), procedure.id
        used = {name: tag for name, tag in self.used(step).items() if name in step.parameters}
        for name, tag in used.items():
            yield self.full(tag), step.parameters[name]
        yield from self.to_apply(used)

    def to_apply(self, used: Iterable[str]) -> Iterator[tuple[str, bool]]:
        """What makes these parameters take effect, each tag once."""
        by = self.declared.applied_by
        for tag in dict.fromkeys(by[name] for name in used if name in by):
            yield self.full(tag), True

    def completes_itself(self, step: Service) -> bool:
        """Whether the procedure ends by itself. A service that declares none does."""
        procedure = self.procedure(step)
        return procedure is None or procedure.self_completing


def _towards(shown: object) -> int:
    """The next switch of `OpMode` towards taking commands from outside; 0 when it takes them."""
    if not isinstance(shown, int) or isinstance(shown, bool):
        return 0
    to_operator, to_automatic, to_external = SWITCHES
    if not shown & AUTOMATIC_BITS:
        return to_automatic if shown & OPERATOR_BITS else to_operator
    return to_external if shown & INTERNAL_BITS else 0


def module_of(plant: Plant, units: Mapping[str, str], step: Service) -> Module:
    """The service that the step runs, on the unit that plays its role."""
    unit = units[step.unit]
    return Module(plant, unit, step.service, plant.units[unit].services[step.service])


def waits_for(state: str, given: Mapping[str, Value], module: Module, latest: Latest = lambda _tag: None) -> str:
    """What a module is doing for a step, and what is waited for, in a sentence for the operator."""
    name, shown = module.said, state or "not readable"
    if "started" not in given:
        if module.switched(given) and (trouble := module.not_ready(latest)):
            return f"Switched {module.unit} to take commands, and waits until it does. {trouble}"
        if state in ACTING:
            return f"Waits until {name} is idle: it is {shown}."
        return f"Prepares {name}: it is {shown}."
    if given.get("was") == state and given.get("state") != state:
        return f"Waits for {name} to move: it was told to {given.get('command')} and still shows {shown}."
    if state == EXECUTE:
        return f"{name} is executing."
    then = module.machine.then.get(state)
    return f"{name} is {shown}; next it must be {then}." if then else f"{name} is {shown}."


def word_of(plant: Plant, full_name: str, value: object) -> str:
    """The word for a state or a command of a service, where this tag shows one; "" elsewhere."""
    unit_name, _, tag = full_name.partition(".")
    unit = plant.units.get(unit_name)
    for service in unit.services.values() if unit else ():
        if tag == service.state:
            return service.machine.word(value)
        if tag == service.command:
            return service.machine.command(value)
    return ""
