"""Profiles are one table, and the page about them is that table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from edge.core import commands as cm
from edge.core import events as ev
from edge.core.errors import LinesideError
from edge.core.orders import Order
from edge.core.profiles import PROFILES, Profile
from edge.core.recipe import read_recipe
from edge.core.review import as_built, as_text
from edge.core.terms import Role, State
from tests.core.parts import STEPS, VirtualLine, recipe

ROOT = Path(__file__).parents[2]
CHECK: list[dict[str, Any]] = [
    {"id": "010", "phase": "record", "title": "Weight", "text": "Weigh.", "name": "weight", "unit": "g",
     "limit": {"low": 9, "high": 11, "unit": "g", "category": "critical"}},
    {"id": "020", "phase": "instruct", "title": "Done", "text": "Put it away."},
]  # fmt: skip


def on(profile: Profile, *ad_hoc: str, steps: list[dict[str, Any]] | None = None) -> VirtualLine:
    line = VirtualLine(recipe(CHECK if steps is None else steps, **({} if steps else {"units": {}})))
    line.do(cm.SetProfile(profile=profile, ad_hoc=ad_hoc))
    return line


def begin(line: VirtualLine, order: str = "", batch: str = "", patient: str = "") -> list[ev.Event]:
    return line.do(cm.StartBatch(session="S", batch=batch, order=order, seal="seal", patient=patient, speed=1.0))


def code(act: Callable[[], object]) -> str:
    with pytest.raises(LinesideError) as refused:
        act()
    return refused.value.code


def test_the_page_is_the_table() -> None:
    page = (ROOT / "docs/explanation/profiles.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        [
            f"`{profile.value}`", rules.recipe_approval.value, rules.order,
            ", ".join(role.value for role in rules.starters), rules.limits, "yes" if rules.patients else "no",
        ]
        for profile, rules in PROFILES.items()
    ]  # fmt: skip
    assert set(PROFILES) == set(Profile)


def test_nothing_but_the_table_asks_which_profile_it_is() -> None:
    asked = re.compile(r"\.profile\s*(is|==|!=|in)\s|Profile\.(EQUIPMENT|PROCESS|MULTI)")
    for folder in ("edge", "hub", "ui", "drivers"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "profiles.py":
                assert not asked.search(path.read_text()), f"{path} asks for a profile; put a rule into the table"


@pytest.mark.parametrize("profile", Profile)
def test_what_a_batch_begins_from(profile: Profile) -> None:
    rule = PROFILES[profile].order
    line = on(profile)
    if rule == "none":
        (started, *_) = begin(line)
        assert isinstance(started, ev.BatchStarted)
        assert (started.batch, started.order, started.profile) == ("CHECK-0001", "", profile.value)
        return
    assert code(lambda: begin(line)) == "order.needed"
    if rule == "received":
        assert code(lambda: begin(line, "ORD-1", "B1")) == "order.not_received"
        line.do(cm.ReceiveOrder(session="S", order=Order("ORD-1", "R"), way="scanned"))
    (started, *_) = begin(line, "ORD-1", "B1")
    assert isinstance(started, ev.BatchStarted)
    assert started.profile == profile.value
    assert line.refold() == line.line


@pytest.mark.parametrize("profile", Profile)
def test_what_is_ad_hoc_needs_neither_order_nor_number(profile: Profile) -> None:
    line = on(profile, "R")
    assert [begin(line)[0].batch for _ in range(2)] == ["CHECK-0001", "CHECK-0002"]
    assert code(lambda: begin(line, batch="CHECK-0009")) == "numbers.not_next"


@pytest.mark.parametrize("profile", [Profile.SINGLE_SITE_GMP, Profile.EQUIPMENT_CHECK])
def test_the_daily_check_begins_with_nothing_typed(profile: Profile) -> None:
    file = files("edge.core.recipe").joinpath("shipped/eq-daily.yaml")
    daily = read_recipe(file.read_bytes(), "eq-daily.yaml").recipe
    assert not daily.units
    line = VirtualLine(daily)
    loaded = line.line.recipes["seal"]  # the line of the tests calls every recipe R
    line.line = replace(line.line, recipes={"seal": replace(loaded, recipe=daily.recipe)})
    line.do(cm.SetProfile(profile=profile, ad_hoc=("EQ-DAILY",)))
    (started, *_) = begin(line)
    assert isinstance(started, ev.BatchStarted)
    assert (started.batch, started.order, started.patient, started.units) == ("CHECK-0001", "", "", {})
    assert line.active("CHECK-0001") == ["010"]


@pytest.mark.parametrize("profile", Profile)
def test_who_may_start(profile: Profile) -> None:
    line = on(profile, "R")
    for role in Role:
        line.do(cm.OpenSession(session="S", person="x", roles=(role,), method="m"))
        if role in PROFILES[profile].starters:
            begin(line)
        else:
            assert code(lambda: begin(line)) == "people.not_permitted"


@pytest.mark.parametrize("profile", Profile)
def test_whether_a_batch_is_for_a_patient(profile: Profile) -> None:
    line = on(profile, "R", steps=STEPS)
    if PROFILES[profile].patients:
        begin(line, patient="=DIN1")
    else:
        assert code(lambda: begin(line, patient="=DIN1")) == "profile.patient"


@pytest.mark.parametrize("profile", Profile)
def test_whether_limits_hold_a_batch(profile: Profile) -> None:
    line = on(profile, "R")
    begin(line)
    line.do(cm.EnterValue(session="S", batch="CHECK-0001", step="010", text="12"))
    (found,) = line.batch("CHECK-0001").exceptions
    warned = PROFILES[profile].limits == "warned"
    assert found.category == ("warning" if warned else "critical")
    assert (line.batch("CHECK-0001").state is State.RUNNING) is warned
    record = as_built((seq, ev.decode(row)) for seq, row in enumerate(line.rows, 1))["CHECK-0001"]
    assert f"Profile {profile.value.replace('_', ' ')}" in as_text(record)


def test_a_box_that_says_nothing_is_as_before() -> None:
    line = VirtualLine()
    assert line.do(cm.SetProfile(profile=Profile.SINGLE_SITE_GMP, ad_hoc=())) == []
    line.start()
    row = next(row for row in line.rows if b'"BatchStarted"' in row)
    assert ev.decode(row.replace(b',"profile":"single_site_gmp"', b"")) == ev.decode(row)
