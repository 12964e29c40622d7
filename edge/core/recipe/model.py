"""What a recipe is made of (ISA-88 procedural model), as frozen documents.

procedure -> unit procedure -> operation -> phases (steps). Every step has an id, text, unique in the recipe.
A tag is written "role.tag" where `role` is a key of `units`; a value may be a number in the step's unit or
"$parameter". A `placeholder: true` marks a value that the process owner must still set (shown with a dagger).

A formula names recorded values by their `name`, readings as "role.tag" (in the unit that `readings` gives), parameters
as "$name", and in a loop `iteration`: the pass that is under way, from 1 on (see `edge.core.formula`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import Field

from edge.core.alarms import Priority
from edge.core.plant import Frozen, Name
from edge.core.terms import Role
from edge.core.zpl import TEMPLATE_CHARS_MAX

StepId = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_\-]{0,31}(/[0-9A-Za-z][0-9A-Za-z_\-]{0,31}){0,4}$")]
"""A step of a called operation has the id of the call before its own: "030/010"."""
Version = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)*$")]
Why = Annotated[str, Field(max_length=2000)]
Text = Annotated[str, Field(max_length=2000)]
Number = float | Annotated[str, Field(pattern=r"^\$[A-Za-z][A-Za-z0-9_]{0,63}$")]
"""A literal, or "$name" of a parameter of the same dimension."""
Formula = Annotated[str, Field(max_length=1000)]
Kind = Literal["number", "text", "bool"]
Inner = tuple[tuple[str | int, ...], Sequence["Step"]]
"""A sequence of steps inside a step, and its path from there."""
SAMPLES_SUPPOSED: Final = 100
"""So many samples of one plan are counted with when it is asked whether a batch fits on the disk."""
PASSES_MAX: Final = 1_000
"""So often a loop goes round at most."""


ResultType = Literal["number", "text", "choice", "at_most", "negative_to_date"]
NEGATIVE_TO_DATE: Final = "negative to date"
MICROBIOLOGY: Final = (NEGATIVE_TO_DATE, "negative", "positive")
"""What a result of type `negative_to_date` may be; the first leaves it open, the last raises an exception record."""


class Limit(Frozen):
    """What a value must stay within, in `unit` (the step's unit when empty). Either end may be open."""

    low: Number | None = None
    high: Number | None = None
    unit: str = ""
    why: Why = ""
    placeholder: bool = False
    category: Literal["minor", "major", "critical"] = "major"
    """Of the exception record that is raised when the value is outside."""


TREND_BATCHES_MAX: Final = 30
MONITOR_POINTS_MAX: Final = 100
"""A monitor is compared with earlier batches so often at most."""


class Trend(Frozen):
    """The value is compared with those of earlier batches of the same recipe that are complete: the newest `batches` of
    them, once there are `least`. It is out of trend outside their mean by more than `deviations` standard deviations
    or, with `band: range`, below the lowest or above the highest of them; that raises an exception record of this
    `category`. A monitor takes its value `every` so often, and compares it with that at the same time of the others."""

    batches: Annotated[int, Field(ge=2, le=TREND_BATCHES_MAX)] = 10
    least: Annotated[int, Field(ge=2, le=TREND_BATCHES_MAX)] = 5
    band: Literal["deviations", "range"] = "deviations"
    deviations: Annotated[float, Field(gt=0, le=10)] = 3.0
    every: str = ""
    category: Literal["minor", "major", "critical"] = "minor"
    why: Why = ""


def rule_of(step: Step) -> Trend | None:
    """The rule by which the step's value is compared with earlier batches, if it has one."""
    return step.trend if isinstance(step, Record | Calculate | Weigh | Monitor) else None


ATTACHMENT_FILE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,99}\.(txt|md|png|jpg|jpeg|mp4|webm|pdf)")


class Attachment(Frozen):
    """A text, picture, video or PDF for whoever does the step: `file` is its name in the folder `attachments` beside
    the recipe, `sha256` is what is in it. `lineside recipe attach` writes the line."""

    file: Annotated[str, Field(pattern=f"^{ATTACHMENT_FILE.pattern}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    title: Text = ""


class Alarm(Frozen):
    """What a person is told, and asked to acknowledge, while a watched value is outside its limit. It is over when the
    value is inside by `deadband`, given in `unit` (the tag's when empty)."""

    priority: Priority = "medium"
    cause: Annotated[str, Field(min_length=1, max_length=300)]
    """What is so, for example "The reactor is too warm."."""
    effect: Annotated[str, Field(min_length=1, max_length=300)]
    """What it does when nobody acts."""
    todo: Annotated[str, Field(min_length=1, max_length=300)]
    """What the person does now."""
    deadband: Number = 0.0
    unit: str = ""


class UseWithin(Frozen):
    """How long material may be used: `time` runs from the end of the step until step `until` is done, or to the end of
    the batch, also while the batch is held and while the box is off. It is warned `warn_before` that, or when a fifth
    of the time is left. Material that may be expired raises an exception record of this `category`; `hold` also holds
    the batch."""

    time: Annotated[str, Field(min_length=1)]
    until: StepId | None = None
    warn_before: str = ""
    on_expiry: Literal["hold", "exception"] = "hold"
    category: Literal["minor", "major", "critical"] = "critical"
    why: Why = ""


class Parameter(Frozen):
    """A recipe parameter. "$name" stands for it wherever a literal of its type may stand, and in texts for people.

    `value` is what it is: a number in `unit` (`type: number` or `integer`), a text, one of `choices`, a duration such
    as "12 h", true or false. `low` and `high` bound a number in its unit, and a duration as durations."""

    type: Literal["number", "integer", "text", "choice", "duration", "bool"] = "number"
    value: float | bool | Text
    unit: str = ""
    low: float | Text | None = None
    high: float | Text | None = None
    choices: tuple[Text, ...] = ()
    why: Why = ""
    placeholder: bool = False
    site: bool = False
    """Each site fills it with its own value; see site files."""


class UnitNeed(Frozen):
    """A role of the recipe that one unit of this class plays; bound when the batch starts, to `unit` where a site bound
    it."""

    cls: Name = Field(alias="class")
    unit: Name | Literal[""] = ""
    clean: bool = False
    """It must be clean when the batch begins, as its plant file's `cleaning` counts it."""


class MadeFrom(Frozen):
    """The master and the site file that a site's recipe was made from, with their seals."""

    recipe: Name
    version: Version
    seal: str = Field(pattern=r"^[0-9a-f]{64}$")
    site: Name
    site_version: Version
    site_seal: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Step(Frozen):
    id: StepId
    title: Text
    why: Why = ""
    role: Role = Role.OPERATOR
    next: StepId | None = None
    """The step that follows in the same sequence; the one listed next when absent."""
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=20)] = ()
    """What the person may open while the step is under way."""
    by_hand: Literal["two people", "never"] = "two people"
    """Who may do the step in the box's place while its equipment cannot be used, or in manual mode."""
    cleans: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    """The roles whose units are clean when the step is done."""

    def inner(self) -> tuple[Inner, ...]:
        """The sequences of steps inside this step, in the order of the file."""
        return ()

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        """The values that this step records for formulas: name -> its kind and unit."""
        return {}

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        """The formulas of this step itself, by their path from it."""
        return {}


class _ByPerson(_Step):
    """Base of the steps that wait for a person."""

    warn_after: str = ""
    """A duration: when nobody has done the step by then, that raises a minor exception record. The step goes on."""


class Instruct(_ByPerson):
    """A person reads, does and confirms."""

    phase: Literal["instruct"]
    text: Text


class Record(_ByPerson):
    """A person enters a value: a number, a text or a choice; `at_most`: a number or what a laboratory writes below its
    limit of quantitation, as "< 0.5", which is kept as it stands; `negative_to_date`: negative so far, negative or
    positive. "Negative to date" leaves the result open, and so does "pending" where `pending` allows it: the step is
    done, the record lists the result as open, and whoever has it later adds and signs it."""

    phase: Literal["record"]
    text: Text
    name: Name
    type: ResultType = "number"
    unit: str = ""
    choices: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    """The choices that are all right; another one raises an exception record of this `category`. All, when empty."""
    category: Literal["minor", "major", "critical"] = "critical"
    limit: Limit | None = None
    trend: Trend | None = None
    pending: bool = False
    """The person may say that the result is not there yet."""

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("number", self.unit) if self.type == "number" else ("text", "")}


class Scan(_ByPerson):
    """A person scans a code. `expect: patient` must equal the batch's patient identity (no role overrides it);
    `expect: lot` takes a code that starts with `prefix` and records it as `name`. With `coding: gs1` it must be a GS1
    code that says until which day the material may be used (17), and that day must not be over; `prefix` is then of the
    code as people write it, "(01)09501101530003"."""

    phase: Literal["scan"]
    text: Text
    name: Name
    expect: Literal["patient", "lot"] = "lot"
    prefix: str = ""
    coding: Literal["any", "gs1"] = "any"
    use_within: UseWithin | None = None

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("text", "")}


class Set(_Step):
    """The box writes a set-point: intent, write, read-back, outcome."""

    phase: Literal["set"]
    tag: str
    value: Number
    unit: str = ""


class Wait(_Step):
    """Until a reading is within `limit`, until a formula is true, or for `duration`; `timeout` bounds the others."""

    phase: Literal["wait"]
    duration: str = ""
    tag: str = ""
    limit: Limit | None = None
    until: Formula = ""
    timeout: str = ""
    on_bad_quality: Literal["hold", "continue"] = "hold"
    on_restart: Literal["resume", "hold", "ask"] = "resume"
    """After a power cut: go on, hold the batch, or ask a person, who signs that it goes on, begins anew, or aborts."""
    placeholder: bool = False

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        return {("until",): self.until} if self.until else {}


class Hold(_Step):
    """Keep `tag` within `limit` for `duration`. Outside raises an exception record; time goes on."""

    phase: Literal["hold"]
    duration: str
    tag: str
    limit: Limit
    alarm: Alarm | None = None
    on_bad_quality: Literal["hold", "continue"] = "hold"
    on_restart: Literal["resume", "hold", "ask"] = "resume"
    """After a power cut: go on, hold the batch, or ask a person, who signs that it goes on, begins anew, or aborts."""
    by_hand_every: Annotated[str, Field(min_length=1)] = "15 min"
    """While it goes on by hand, two people enter the value so often."""
    placeholder: bool = False


class Monitor(_Step):
    """Watch `tag` against `limit` until step `until` is done. Stands in a branch beside that step."""

    phase: Literal["monitor"]
    tag: str
    limit: Limit
    until: StepId
    trend: Trend | None = None
    alarm: Alarm | None = None
    on_delay: str = "2 s"
    on_bad_quality: Literal["hold", "continue"] = "hold"
    by_hand_every: Annotated[str, Field(min_length=1)] = "15 min"
    """While it goes on by hand, two people enter the value so often."""


class Sign(_ByPerson):
    """One or two people sign what was shown, with a meaning."""

    phase: Literal["sign"]
    text: Text
    meaning: Text
    roles: tuple[Role, ...] = (Role.OPERATOR,)
    """One signature per entry, each by another person who has that role."""


class Parallel(_Step):
    """All branches at once; done when each is done."""

    phase: Literal["parallel"]
    branches: tuple[tuple[Step, ...], ...]

    def inner(self) -> tuple[Inner, ...]:
        return tuple((("branches", place), branch) for place, branch in enumerate(self.branches))


class Tolerance(Frozen):
    """By how much a net weight may miss its target, below and above: in % of the target, or in a unit of mass."""

    below: Number
    above: Number
    unit: str = "%"
    why: Why = ""
    placeholder: bool = False
    category: Literal["minor", "major", "critical"] = "major"
    """Of the exception record that is raised when the weight is outside."""


class Weigh(_ByPerson):
    """A person weighs `target` into a container: tare, gross, net. With a `balance` (a tag) the box takes each weight
    once it has stayed within `steady` (in the step's unit) for `steady_for`; without one the person types both, and
    somebody with the role `checked_by` signs that they are what the balance showed.

    When the balance cannot be read: `hold` holds the batch; `continue` raises an exception record and goes on as if
    there were no balance."""

    phase: Literal["weigh"]
    text: Text
    name: Name
    target: Number
    unit: str
    tolerance: Tolerance | None = None
    balance: str = ""
    steady: Number | None = None
    steady_for: Annotated[str, Field(min_length=1)] = "3 s"
    checked_by: Role = Role.VERIFIER
    on_bad_quality: Literal["hold", "continue"] = "hold"
    trend: Trend | None = None

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("number", self.unit)}


class Test(Frozen):
    """One result that a sample is taken for, like that of a `record` step. With `later` the step does not wait for it:
    the result is open, and whoever has it adds and signs it."""

    __test__ = False  # what a laboratory does, not what pytest looks for

    name: Name
    text: Text = ""
    type: ResultType = "number"
    unit: str = ""
    choices: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()
    category: Literal["minor", "major", "critical"] = "critical"
    limit: Limit | None = None
    later: bool = False

    @property
    def pending(self) -> bool:
        """The result may come later."""
        return self.later


class Sample(_ByPerson):
    """A person takes a sample by this plan: at least `quantity` into `container`, whose label code, beginning with
    `prefix`, is scanned and recorded as `name`. `tests` are the results that it is taken for; `retain: true` says that
    it is kept and nothing is tested."""

    phase: Literal["sample"]
    text: Text
    name: Name
    quantity: Number
    unit: str
    container: Text
    prefix: str = ""
    tests: tuple[Test, ...] = ()
    retain: bool = False
    material: Text = ""
    """What kind of sample it is, for example "cell culture"."""
    label: Mapping[Text, Text] = Field(default_factory=dict)
    """What stands on the label that is printed first, as in `label` steps; besides their facts `sample` (this title)
    and `number` (how many have been taken)."""
    to: Text = ""
    """Where it is brought."""
    use_within: UseWithin | None = None

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        now = {t.name: ("number", t.unit) if t.type == "number" else ("text", "") for t in self.tests if not t.later}
        return {self.name: ("text", ""), **now}  # type: ignore[dict-item]


PlanName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,24}$")]
SAMPLING: Final = "sampling"
"""Before the name of a plan: the id of the step in which its samples are taken."""


class SamplingPlan(Frozen):
    """Samples that are due beside the steps, each taken like that of a `sample` step, whose fields these are. A sample
    is due when step `at` begins; or, while step `during` is under way, `every` so often (the first after that time),
    or in the passes `passes` of that loop; or whenever the watched limit of step `outside` is left.

    It is overdue after `within`, which raises an exception record of this `category`; so does one that was not taken
    when the next is due, which takes its place. The batch is complete when all samples are taken."""

    title: Text
    why: Why = ""
    role: Role = Role.OPERATOR
    at: StepId | None = None
    during: StepId | None = None
    every: str = ""
    passes: tuple[int, ...] = ()
    outside: StepId | None = None
    within: Annotated[str, Field(min_length=1)]
    category: Literal["minor", "major", "critical"] = "minor"
    text: Text
    quantity: Number
    unit: str
    container: Text
    prefix: str = ""
    tests: tuple[Test, ...] = ()
    retain: bool = False
    material: Text = ""
    label: Mapping[Text, Text] = Field(default_factory=dict)
    to: Text = ""

    def step(self, name: str) -> Sample:
        """The step in which a sample of this plan is taken."""
        taken = ("title", "why", "role", "text", "quantity", "unit", "container", "prefix", "tests", "retain")
        facts = {key: getattr(self, key) for key in (*taken, "material", "label", "to")}
        return Sample(id=f"{SAMPLING}/{name}", phase="sample", name=name, warn_after=self.within, **facts)

    def when(self) -> str:
        """When samples are due, for a person."""
        if self.at:
            return f"when step {self.at} begins"
        if self.every:
            return f"every {self.every} during step {self.during}"
        if self.passes:
            return f"in passes {', '.join(map(str, self.passes))} of step {self.during}"
        return f"whenever the limit of step {self.outside} is left"


class Label(_ByPerson):
    """Labels for this batch. `content` names the facts that stand on one: batch, order, patient (the pseudonym),
    recipe, version, title, or a text with "$parameter". The person says how many were printed, and with `reconcile`
    how many were used and how many made void; one that is missing raises an exception record of this `category`.
    The difference is recorded as `name`.

    With a `printer` (a tag) the box prints them, once; the person looks at them and scans the code, which says what
    `code` names. To print again is signed, with a reason, and counts. `template` is ZPL with a field for each line of
    `content`, "{Batch}", and "{code}"; without one the lines stand one below the other, the code last."""

    phase: Literal["label"]
    text: Text
    name: Name
    content: Mapping[Text, Text]
    copies: int = Field(default=1, ge=1, le=10_000)
    printer: str = ""
    code: Text = ""
    template: Annotated[str, Field(max_length=TEMPLATE_CHARS_MAX)] = ""
    reconcile: bool = False
    category: Literal["minor", "major", "critical"] = "critical"

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("number", "1")} if self.reconcile else {}


class Place(Frozen):
    """Where material comes from or goes to: the unit that plays a role, or a container whose code has a prefix."""

    unit: Name | None = None
    prefix: str = ""


class Transfer(_ByPerson):
    """Material goes from one container or unit to another: both codes are scanned, the quantity is entered and
    recorded as `name`. A unit's code is its name in the plant."""

    phase: Literal["transfer"]
    text: Text
    name: Name
    source: Place = Field(alias="from")
    target: Place = Field(alias="to")
    unit: str
    limit: Limit | None = None
    use_within: UseWithin | None = None

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("number", self.unit)}


class Custody(_ByPerson):
    """`what` passes from one person to another: one signs that they give it, another that they take it."""

    phase: Literal["custody"]
    text: Text
    what: Text
    gives: Role = Role.OPERATOR
    takes: Role = Role.VERIFIER


class Clearance(_ByPerson):
    """Nothing of another batch is left: each of `checks` is confirmed by itself, then two people sign."""

    phase: Literal["clearance"]
    text: Text
    checks: tuple[Text, ...]
    roles: tuple[Role, ...] = (Role.OPERATOR, Role.VERIFIER)
    """One signature per entry, each by another person who has that role."""


class Dispose(_ByPerson):
    """The batch goes no further before the open result `of` an earlier step is there, and somebody with this role has
    signed that it is assessed."""

    phase: Literal["dispose"]
    text: Text
    of: Name
    role: Role = Role.QUALITY


class Ramp(_Step):
    """The box takes a set-point from where it stands to `value`, at most `rate` (in `unit`) per `per`, one write every
    `every`. Each write is intended, written and read back like that of a `set` step."""

    phase: Literal["ramp"]
    tag: str
    value: Number
    unit: str = ""
    rate: Number
    per: Literal["s", "min", "h", "d"] = "h"
    every: Annotated[str, Field(min_length=1)] = "1 min"
    on_bad_quality: Literal["hold"] = "hold"
    placeholder: bool = False


class Setting(Frozen):
    """What a parameter of a service is given: a `value` or a `formula`, in `unit` (that of its tag when empty)."""

    value: Number | None = None
    formula: Formula = ""
    unit: str = ""


class ReportValue(Frozen):
    """A value that a service reports when it is complete, recorded as `name`, in `unit`."""

    report: Name
    name: Name
    type: Kind = "number"
    unit: str = ""
    limit: Limit | None = None


class Service(_Step):
    """The box starts a `service` of the unit that plays `unit`, once, and follows it until it is complete.

    Before it starts anything it looks whether the module does what it is told from outside, brings the service to idle
    if it ended earlier, chooses the `procedure` and writes each of `parameters`: a number, "$parameter", text, true or
    false, or a value or formula with its unit. Each write is intended, written and read back, that of a command at the
    service's state. A procedure that does not complete by itself is told to complete when `until` is true. Then
    `reports` are recorded.

    Holding, stopping or aborting the batch tells the service the same; resuming it lets a held service go on."""

    phase: Literal["service"]
    unit: Name
    service: Name
    procedure: Name | None = None
    """May be left out where the service has one procedure, or none."""
    parameters: Mapping[Name, float | bool | Text | Setting] = Field(default_factory=dict)
    until: Formula = ""
    reports: tuple[ReportValue, ...] = ()
    timeout: str
    """So long it may be executing at most, each time that it comes to execute."""
    timeouts: Mapping[Name, Text] = Field(default_factory=dict)
    """So long each acting state may last, for example {starting: 10 min}; 1 min where nothing is said."""
    on_timeout: Literal["hold", "abort"] = "hold"
    on_held: Literal["hold", "wait"] = "hold"
    """When the module holds or pauses by itself: hold the batch, whose resuming lets it go on, or wait until somebody
    at the module does."""
    on_aborted: Literal["ask", "abort"] = "ask"
    """When it stops or aborts without being complete: hold the batch and ask a person, or abort the batch."""
    on_bad_quality: Literal["hold", "continue"] = "hold"
    """When a report value cannot be used: hold the batch, or raise an exception record and go on without it. A state
    that cannot be read holds the batch in any case."""

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {one.name: (one.type, one.unit) for one in self.reports}

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        found: dict[tuple[str | int, ...], str] = {("until",): self.until} if self.until else {}
        for name, given in self.parameters.items():
            if isinstance(given, Setting) and given.formula:
                found["parameters", name, "formula"] = given.formula
        return found


class Invoke(_Step):
    """The box calls a method of the equipment once, `tag` in the plant file, with `arguments`: each a number,
    "$parameter", text, true or false, or a value with its unit. What it answers is recorded by `results`. The call is
    intended and concluded like a write; where nobody knows whether it was carried out, a person is asked."""

    phase: Literal["method"]
    tag: str
    arguments: Mapping[Name, float | bool | Text | Setting] = Field(default_factory=dict)
    results: tuple[ReportValue, ...] = ()

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {one.name: (one.type, one.unit) for one in self.results}


class Calculate(_Step):
    """The box works out a formula and records the result as `name`, in `unit`; outside `limit` it raises an exception.

    When a value in it is bad or missing, or no finite number comes out: `hold` holds the batch, which works it out
    again when it is resumed; `continue` raises an exception record and goes on without the value."""

    phase: Literal["calculate"]
    formula: Formula
    name: Name
    unit: str = ""
    limit: Limit | None = None
    on_bad_quality: Literal["hold", "continue"] = "hold"
    trend: Trend | None = None

    def records(self) -> Mapping[str, tuple[Kind, str]]:
        return {self.name: ("number", self.unit)}

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        return {("formula",): self.formula}


class Branch(Frozen):
    """One way of a selection: its steps are done when `when` is true and no branch before it was taken."""

    when: Formula
    title: Text = ""
    steps: tuple[Step, ...]


class Select(_Step):
    """Exactly one branch: the first whose `when` is true, `else` when none is. `else: []`: then nothing is done.

    When a value in a condition is bad or missing: `hold` holds the batch, which chooses again when it is resumed;
    `continue` raises an exception record and takes `else`."""

    phase: Literal["select"]
    branches: tuple[Branch, ...]
    else_: tuple[Step, ...] | None = Field(default=None, alias="else")
    on_bad_quality: Literal["hold", "continue"] = "hold"

    def inner(self) -> tuple[Inner, ...]:
        found: list[Inner] = [(("branches", place, "steps"), one.steps) for place, one in enumerate(self.branches)]
        return (*found, *([(("else",), self.else_)] if self.else_ else []))

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        return {("branches", place, "when"): one.when for place, one in enumerate(self.branches)}


class Loop(_Step):
    """`steps` again and again: as long as `while` is true (asked before each pass), until `until` is true (asked after
    each), `times` passes at most. When it ends by `times` although a condition would let it go on, that raises an
    exception record of this `category`. Without a condition it makes `times` passes.

    When a value in a condition is bad or missing: `hold` holds the batch, which asks again when it is resumed;
    `continue` raises an exception record and makes another pass, within `times`."""

    phase: Literal["loop"]
    times: Number
    while_: Formula = Field(default="", alias="while")
    until: Formula = ""
    category: Literal["minor", "major", "critical"] = "major"
    on_bad_quality: Literal["hold", "continue"] = "hold"
    steps: tuple[Step, ...]

    def inner(self) -> tuple[Inner, ...]:
        return ((("steps",), self.steps),)

    def formulas(self) -> Mapping[tuple[str | int, ...], str]:
        return {(key,): text for key, text in (("while", self.while_), ("until", self.until)) if text}


class Call(_Step):
    """The steps of an operation of the library, in its `version`. `units` says which role of the recipe each role of
    the operation is; `parameters` gives its parameters other values. `steps` is what the operation says, with the
    call's id before each step's: it is put there when the recipe is read, and the seal covers it."""

    phase: Literal["call"]
    operation: Name
    version: Version
    units: Mapping[Name, Name] = Field(default_factory=dict)
    parameters: Mapping[Name, float | bool | Text] = Field(default_factory=dict)
    steps: tuple[Step, ...] = ()

    def inner(self) -> tuple[Inner, ...]:
        return ((("steps",), self.steps),)


Step = Annotated[
    Instruct
    | Record
    | Scan
    | Set
    | Wait
    | Hold
    | Monitor
    | Sign
    | Parallel
    | Calculate
    | Select
    | Loop
    | Call
    | Weigh
    | Sample
    | Label
    | Transfer
    | Custody
    | Clearance
    | Dispose
    | Ramp
    | Service
    | Invoke,
    Field(discriminator="phase"),
]
Form = Weigh | Sample | Label | Transfer | Custody | Clearance | Dispose
"""Steps in which people answer one thing after another; see `edge.core.forms`."""
COMPOSITE: Final = frozenset({"parallel", "select", "loop", "call"})
"""Phases that consist of other steps: nothing is done in them that is not done in those."""


class LibraryOperation(Frozen):
    """An operation of the library, in a file of its own. Its steps use its own roles and parameters alone."""

    library_operation: Name
    version: Version
    title: Text
    why: Why = ""
    units: Mapping[Name, UnitNeed] = Field(default_factory=dict)
    parameters: Mapping[Name, Parameter] = Field(default_factory=dict)
    readings: Mapping[Text, str] = Field(default_factory=dict)
    steps: tuple[Step, ...]


class Bound(Frozen):
    """How far one value of a batch under way may be amended: that of a `parameter`, or a `field` of a `step`, such as
    "limit.high" or "duration". Given as the value itself is: a number in its unit, or a duration."""

    parameter: Name | None = None
    step: StepId | None = None
    field: Text = ""
    low: float | Text | None = None
    high: float | Text | None = None
    why: Why = ""


class Amendments(Frozen):
    """What of a batch under way may be amended, signed and with a reason. Nothing that does not stand here."""

    bounds: tuple[Bound, ...] = ()
    skip: tuple[StepId, ...] = ()
    """Steps that may be left out, once for each amendment."""
    add: tuple[Literal["instruct", "record", "scan", "sample", "sign", "wait"], ...] = ()
    """Phases of which a step may be added between others."""
    dirty: tuple[Name, ...] = ()
    """Roles that want a clean unit, and of which a batch that waits may be given a dirty one."""
    adopt: bool = False
    """A batch under way on another version of this recipe may go over to this one."""
    signed_by: tuple[Role, ...] = ()
    """Who agrees: one signature per entry, each by another person who has that role, and none by who requests it.
    One person who may agree to amendments, when empty."""
    category: Literal["minor", "major", "critical"] = "major"
    """Of the exception record that each amendment raises."""


class Operation(Frozen):
    """A named stretch of phases."""

    operation: Text
    steps: tuple[Step, ...]


class UnitProcedure(Frozen):
    """What one unit role does."""

    unit_procedure: Text
    operations: tuple[Operation, ...]


class Recipe(Frozen):
    """A whole recipe as written; `edge.core.recipe.read_recipe` makes it, `seal` names its content."""

    recipe: Name
    version: Version
    title: Text
    why: Why = ""
    made_from: MadeFrom | None = None
    """Of a recipe that `lineside recipe derive` made for a site."""
    units: Mapping[Name, UnitNeed] = Field(default_factory=dict)
    parameters: Mapping[Name, Parameter] = Field(default_factory=dict)
    readings: Mapping[Text, str] = Field(default_factory=dict)
    """The readings that formulas name, "role.tag", each with the unit of measure that it is in there."""
    amendments: Amendments | None = None
    """What may be amended while a batch is under way; nothing, when it is not said."""
    attachments: Annotated[tuple[Attachment, ...], Field(max_length=20)] = ()
    """What a person may open at every step."""
    by_hand: Literal["two people", "never"] = "two people"
    """Who may do steps in the box's place while their equipment cannot be used, or in manual mode."""
    sampling: Mapping[PlanName, SamplingPlan] = Field(default_factory=dict)
    comparable: Annotated[tuple[Version, ...], Field(max_length=20)] = ()
    """Other versions with whose batches those of this one can be compared, where a step has a `trend`."""
    procedure: tuple[UnitProcedure, ...]

    def main(self) -> tuple[Step, ...]:
        """The main sequence: every operation's steps, joined in order."""
        return self._main

    def way(self, sequence: Sequence[Step]) -> Sequence[Step]:
        """The steps of one of its sequences in the order in which they are done."""
        return self._ways[sequence[0].id] if sequence else ()

    def in_order(self) -> Iterator[Step]:
        """Every step once, as the file lists them: a step, then the steps inside it, then what follows."""
        yield from _in_order(self.main())

    def sequences(self) -> Iterator[Sequence[Step]]:
        """The main sequence (operations joined in order), then each sequence inside a step, outermost first."""
        main = self.main()
        yield main
        yield from _inside(main)

    def steps(self) -> Mapping[str, Step]:
        """Every step by id, those with steps inside included."""
        return self._by_id

    def planned(self) -> Mapping[str, Sample]:
        """The steps in which samples of plans are taken, by the plan's name. They stand in no sequence."""
        return self._planned

    def recorded(self) -> Mapping[str, tuple[Kind, str]]:
        """The values that some step records for formulas: name -> its kind and unit."""
        return self._recorded

    def activations(self) -> int:
        """How many steps a batch does at most, each pass of a loop counted; a parameter counts as `PASSES_MAX`."""
        return _activations(self.main()) + SAMPLES_SUPPOSED * len(self.sampling)

    def attached(self) -> Mapping[str, Attachment]:
        """All attachments, by what is in them."""
        return self._attached

    def loop_of(self, step: str) -> str | None:
        """The innermost loop that the step stands in."""
        return self._loop_of.get(step)

    @cached_property
    def _main(self) -> tuple[Step, ...]:
        return tuple(s for up in self.procedure for op in up.operations for s in op.steps)

    @cached_property
    def _ways(self) -> Mapping[str, Sequence[Step]]:
        return {steps[0].id: order(steps)[0] for steps in self.sequences() if steps}

    @cached_property
    def _recorded(self) -> Mapping[str, tuple[Kind, str]]:
        steps = [*self.in_order(), *self._planned.values()]
        return {name: what for step in steps for name, what in step.records().items()}

    @cached_property
    def _planned(self) -> Mapping[str, Sample]:
        return {name: plan.step(name) for name, plan in self.sampling.items()}

    @cached_property
    def _attached(self) -> Mapping[str, Attachment]:
        steps = [one for step in self.in_order() for one in step.attachments]
        return {one.sha256: one for one in (*self.attachments, *steps)}

    def outer(self, step: str) -> str | None:
        """The step that the step stands in; None for one of the main sequence."""
        return self._outer.get(step)

    @cached_property
    def _outer(self) -> Mapping[str, str]:
        return {one.id: step.id for step in self.in_order() for _, inside in step.inner() for one in inside}

    @cached_property
    def _loop_of(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for step in self.in_order():  # an inner loop comes after the one that it stands in
            if isinstance(step, Loop):
                found |= {one.id: step.id for one in _in_order(step.steps)}
        return found

    @cached_property  # asked for at every look at the head
    def _by_id(self) -> Mapping[str, Step]:
        planned = {step.id: step for step in self._planned.values()}
        return {step.id: step for sequence in self.sequences() for step in sequence} | planned


def order(steps: Sequence[Step]) -> tuple[list[Step], Step | None]:
    """The steps in the order in which they are done, and the one that would then come a second time, if any."""
    index_of = {step.id: index for index, step in enumerate(steps)}
    found: dict[int, None] = {}
    index = 0
    while index < len(steps):
        if index in found:
            return [steps[i] for i in found], steps[index]
        found[index] = None
        after = steps[index].next
        index = index + 1 if after is None else index_of.get(after, len(steps))
    return [steps[i] for i in found], None


def _inside(sequence: Sequence[Step]) -> Iterator[Sequence[Step]]:
    for step in sequence:
        for _, steps in step.inner():
            yield steps
            yield from _inside(steps)


def _in_order(sequence: Sequence[Step]) -> Iterator[Step]:
    for step in sequence:
        yield step
        for _, steps in step.inner():
            yield from _in_order(steps)


def _activations(sequence: Sequence[Step]) -> int:
    count = 0
    for step in sequence:
        inside = sum(_activations(steps) for _, steps in step.inner())
        if isinstance(step, Loop):
            inside *= PASSES_MAX if isinstance(step.times, str) else max(1, round(step.times))
        count += 1 + inside
    return count
