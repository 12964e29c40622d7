"""The services of a simulated module on process time: any unit of a plant file that declares services.

An acting state takes `ACTING_S`; executing a procedure that completes by itself takes `EXECUTE_S`. Report values go
from the low to the high end of their tags while it executes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from edge.core.plant import Tag, Unit, UnitService
from edge.core.service import AUTOMATIC_BITS, EXECUTE, IDLE, INTERNAL_BITS, OPERATOR_BITS, PRODUCTION
from edge.core.terms import Value

ACTING_S: Final = 5.0
EXECUTE_S: Final = 600.0
SLOW: Final = 50.0
MANUAL: Final = 3
FAULTS: Final = frozenset({"stuck", "slow", "endless", "deaf", "operator", "internal", "offline"})
"""Never leaves an acting state; takes longer there; executes without an end; ignores whatever it is told; somebody at
the module took it over; it follows its own program; it was just switched on."""
NOT_OURS: Final = frozenset({"deaf", "operator", "internal", "offline"})
"""With one of these it does nothing that it is told from outside."""


@dataclass(slots=True)
class ServiceModel:
    """One service. `starts` counts how often it was started: the judge of whoever claims to start it once;
    `started_with` is what was in force then. A parameter that is to be applied is in force only once it was."""

    declared: UnitService
    tags: dict[str, Tag]
    state: str = IDLE
    starts: int = 0
    faults: set[str] = field(default_factory=set)
    _in_state_s: float = 0.0
    _executed_s: float = 0.0
    _written: dict[str, Value] = field(default_factory=dict)
    _applied: dict[str, Value] = field(default_factory=dict)
    started_with: dict[str, Value] = field(default_factory=dict)

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        self._in_state_s += elapsed_s
        while (length_s := self._length_s()) is not None and self._in_state_s >= length_s:
            if self.state == EXECUTE:
                self._executed_s += length_s
            self._in_state_s -= length_s
            self.state = self.declared.machine.then[self.state]

    def _length_s(self) -> float | None:
        """How long the state lasts; None when it does not end by itself."""
        if self.state not in self.declared.machine.then:
            return None
        if self.state == EXECUTE:
            return EXECUTE_S if self._completes_itself and "endless" not in self.faults else None
        return None if "stuck" in self.faults else ACTING_S * (SLOW if "slow" in self.faults else 1.0)

    def __deepcopy__(self, _memo: object) -> ServiceModel:
        """What it is declared as never changes, and is not copied."""
        return replace(self, faults={*self.faults}, _written={**self._written}, _applied={**self._applied})

    @property
    def still(self) -> bool:
        """True when nothing of it changes until it is told something."""
        return self.state != EXECUTE and self._length_s() is None

    @property
    def _completes_itself(self) -> bool:
        chosen = self._written.get(self.declared.procedure or "")
        known = list(self.declared.procedures.values())
        procedure = next((one for one in known if one.id == chosen), known[0] if known else None)
        return procedure is None or procedure.self_completing

    def tell(self, command: str) -> None:
        """What somebody at the module does, or what it does by itself."""
        after = self.declared.machine.after(self.state, command)
        if after is None:
            return
        if command == "start":
            self.starts += 1
            self.started_with = {name: self.in_force(name) for name in self.declared.parameters}
            self._executed_s = 0.0
        elif self.state == EXECUTE:
            self._executed_s += self._in_state_s
        self.state, self._in_state_s = after, 0.0

    def write(self, tag: str, value: Value) -> bool:
        """Take what is written from outside; False when the tag is not the service's."""
        if tag not in (*self.declared.written().values(), self.declared.mode):
            return False
        self._written[tag] = value
        if self._switch(tag, value) or self._apply(tag, value):
            self._written[tag] = PLAIN[self.tags[tag].type]  # the bit goes back by itself
        if tag == self.declared.acting and (self.declared.request is None or value):
            command = self.declared.machine.command(self._written.get(self.declared.command))
            self._written[tag] = PLAIN[self.tags[tag].type]
            if not self.faults & NOT_OURS:
                self.tell(command)
        return True

    def _switch(self, tag: str, value: Value) -> bool:
        """Go to another mode; True when that is what the tag is for. Each step is taken alone, as modules do."""
        of = self.declared
        if tag not in {of.to_automatic, of.to_external, of.mode}:
            return False
        if "deaf" in self.faults or not value:
            return True
        now = self._mode()
        if (tag, value) == (of.mode, 16) and not now:
            self.faults -= {"offline"}
            self.faults |= {"operator"}
        elif tag == of.to_automatic or ((tag, value) == (of.mode, 64) and now & OPERATOR_BITS):
            self.faults -= {"offline", "operator"}
            self.faults |= {"internal"} if of.to_external or of.mode else set()
        elif now & AUTOMATIC_BITS and (tag == of.to_external or value == 8_192):
            self.faults -= {"internal"}
        return True

    def _apply(self, tag: str, value: Value) -> bool:
        """Let what was written take effect; True when that is what the tag is for."""
        of = [name for name, by in self.declared.applied_by.items() if by == tag]
        if value and not self.faults & NOT_OURS:
            self._applied |= {name: self._written_at(self.declared.parameters[name]) for name in of}
        return bool(of)

    def _mode(self) -> int:
        """What `OpMode` shows."""
        if self.faults & {"offline", "operator"}:
            return 0 if "offline" in self.faults else OPERATOR_BITS
        return AUTOMATIC_BITS | (INTERNAL_BITS if "internal" in self.faults else 0)

    def in_force(self, parameter: str) -> Value:
        """What a parameter is, for the module."""
        tag = self.declared.parameters[parameter]
        if parameter not in self.declared.applied_by:
            return self._written_at(tag)
        return self._applied.get(parameter, self._first(tag))

    def _written_at(self, tag: str) -> Value:
        return self._written.get(tag, self._first(tag))

    def _first(self, tag: str) -> Value:
        bound = self.tags[tag]
        return bound.low if bound.type == "float" and bound.low else PLAIN[bound.type]

    def read(self, tag: str) -> Value | None:
        """What a tag shows; None when it is not the service's."""
        declared, machine = self.declared, self.declared.machine
        shown: dict[str | None, Value] = {
            declared.enabled: machine.allowed(self.state),
            declared.automatic: not self.faults & {"operator", "offline"},
            declared.external: "internal" not in self.faults,
            declared.mode: self._mode(),
            declared.unit_mode: MANUAL if "operator" in self.faults else PRODUCTION,
            declared.state: machine.codes[self.state],
        }
        if tag in shown:
            return shown[tag]
        if tag in declared.written().values():
            return self._written_at(tag)
        for parameter, at in declared.in_force.items():
            if tag == at:
                return self.in_force(parameter)
        return self._reported(self.tags[tag]) if tag in declared.reports.values() else None

    def _reported(self, tag: Tag) -> Value:
        running_s = self._in_state_s if self.state == EXECUTE else 0.0
        share = min(1.0, (self._executed_s + running_s) / EXECUTE_S)
        low, high = tag.low or 0.0, 100.0 if tag.high is None else tag.high
        value = low + (high - low) * share
        shown: dict[str, Value] = {"float": value, "int": round(value), "bool": share >= 1.0}
        return shown.get(tag.type, f"{share:.0%}")


PLAIN: Final[dict[str, Value]] = {"float": 0.0, "int": 0, "bool": False, "text": ""}


class ModuleModel:
    """All services of one unit, by the unit's tags."""

    def __init__(self, unit: Unit) -> None:
        self.services = {name: ServiceModel(one, dict(unit.tags)) for name, one in unit.services.items()}

    def pass_s(self, elapsed_s: float) -> None:
        """Let time pass."""
        for service in self.services.values():
            service.pass_s(elapsed_s)

    def read(self, tag: str) -> Value | None:
        """What a tag shows; None when no service has it."""
        return next((value for one in self.services.values() if (value := one.read(tag)) is not None), None)

    def write(self, tag: str, value: Value) -> bool:
        """Take what is written; False when no service has the tag."""
        taken = [one.write(tag, value) for one in self.services.values()]
        return any(taken)

    def still(self, tag: str) -> bool:
        """True when nothing that the tag belongs to changes by itself."""
        return all(one.still for one in self.services.values() if one.read(tag) is not None)
