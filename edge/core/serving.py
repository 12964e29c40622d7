"""A unit's service as a step of a recipe sees it: its tags, what it shows now, and what it must be told next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from edge.core.plant import Plant, Procedure, Tag, UnitService
from edge.core.quick import dataclass
from edge.core.recipe.model import Service, Setting
from edge.core.service import ACTING, EXECUTE, PRODUCTION, Machine
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
        names = (self.declared.automatic, self.declared.external, self.declared.unit_mode, self.declared.enabled)
        readings = [latest(self.full(name)) for name in names if name is not None]
        return all(reading is not None and reading.good for reading in readings)

    def not_ready(self, latest: Latest) -> str:
        """Why the module does not do what it is told from outside, in a sentence; "" when it does."""
        declared = self.declared
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
        for name, tag in self.used(step).items():
            if name in step.parameters:
                yield self.full(tag), step.parameters[name]

    def completes_itself(self, step: Service) -> bool:
        """Whether the procedure ends by itself. A service that declares none does."""
        procedure = self.procedure(step)
        return procedure is None or procedure.self_completing


def module_of(plant: Plant, units: Mapping[str, str], step: Service) -> Module:
    """The service that the step runs, on the unit that plays its role."""
    unit = units[step.unit]
    return Module(plant, unit, step.service, plant.units[unit].services[step.service])


def waits_for(state: str, given: Mapping[str, Value], module: Module) -> str:
    """What a module is doing for a step, and what is waited for, in a sentence for the operator."""
    name, shown = module.said, state or "not readable"
    if "started" not in given:
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
