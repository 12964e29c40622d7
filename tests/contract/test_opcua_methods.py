"""Methods at a server: what it is given, what it answers, and what is a refusal and what a doubt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from hypothesis import given
from hypothesis import strategies as st

from drivers.opcua import OpcUaDriver
from edge.conformance import Rig, Subject, calls_once, rig
from edge.core.errors import LinesideError
from edge.core.guard import answer_of, arguments_of, call_text
from edge.core.plant import Method, Plant, read_plant
from edge.equipment import WriteOutcome, WriteResult, WriteUnknown
from tests.contract.conformance import with_bolus
from tests.contract.test_opcua import SPACE, add, plant_at, server

METHOD = Method.model_validate(
    {
        "node": "nsu=urn:test;s=dose",
        "arguments": {
            "volume": {"low": 0, "high": 10, "unit": "mL"},
            "times": {"type": "int", "low": 1, "high": 300},
            "fast": {"type": "bool"},
            "name": {"type": "text"},
        },
        "results": {"given": {"unit": "mL", "low": 0, "high": 3000}},
    }
)
KINDS = [ua.VariantType.Float, ua.VariantType.Byte, ua.VariantType.Boolean, ua.VariantType.String]
RIGHT: dict[str, Any] = {"volume": 2.5, "times": 2, "fast": True, "name": "a"}


class Dose:
    """A method of a small server, that does what a test tells it."""

    def __init__(self) -> None:
        self.given: list[list[Any]] = []
        self.answer: list[ua.Variant] | ua.StatusCode = [ua.Variant(5.0, ua.VariantType.Double)]

    async def call(self, _parent: ua.NodeId, *arguments: ua.Variant) -> list[ua.Variant] | ua.StatusCode:
        self.given.append([(one.Value, one.VariantType.name) for one in arguments])
        return self.answer


def plant_with(port: int) -> Plant:
    plant = plant_at(port, x="float")
    data = plant.model_dump(mode="json", by_alias=True)
    gone = METHOD.model_copy(update={"node": f"nsu={SPACE};s=gone"})
    fewer = METHOD.model_copy(update={"arguments": {"volume": METHOD.arguments["volume"]}})
    for name, method in (("dose", METHOD), ("gone", gone), ("fewer", fewer)):
        data["units"]["U"]["tags"][name] = {
            "connection": "device", "address": f"nsu={SPACE};s=pump", "type": "text", "access": "write",
            "method": method.model_dump(mode="json"),
        }  # fmt: skip
    return Plant.model_validate(data)


@asynccontextmanager
async def dosing() -> AsyncIterator[tuple[Rig, Dose]]:
    dose = Dose()
    async with server() as (made, port):
        await add(made, "x", 1.0, ua.VariantType.Double)
        space = await made.get_namespace_index(SPACE)
        pump = await made.nodes.objects.add_object(ua.NodeId(ua.String("pump"), ua.Int16(space)), "pump")
        node, name = ua.NodeId(ua.String("dose"), ua.Int16(space)), ua.QualifiedName("dose", ua.UInt16(space))
        await pump.add_method(node, name, dose.call, KINDS, [ua.VariantType.Double])
        async with rig(plant_with(port)) as running:
            await running.until(lambda: running.good("U.x"))
            yield running, dose


async def called(made: Rig, **arguments: Any) -> WriteOutcome:
    return await made.equipment.writer("U.dose").write_and_read_back(call_text({**RIGHT, **arguments}))


async def test_a_method_is_called_in_the_servers_types_and_only_a_plain_no_is_a_refusal() -> None:
    async with dosing() as (made, dose):
        outcome = await called(made)
        assert outcome.result is WriteResult.CONFIRMED, outcome.why
        assert outcome.reading is not None
        assert outcome.reading.value == '{"given": 5.0}'
        assert dose.given == [[(2.5, "Float"), (2, "Byte"), (True, "Boolean"), ("a", "String")]]
        # what the plant file allows, and the server's type does not hold, is not sent
        outcome = await called(made, times=300)
        assert (outcome.result, len(dose.given)) == (WriteResult.REFUSED, 1)
        # nor is what the server's method does not take, or a method that it does not have
        outcome = await made.equipment.writer("U.fewer").write_and_read_back(call_text({"volume": 2.5}))
        assert (outcome.result, len(dose.given)) == (WriteResult.REFUSED, 1)
        assert "takes 4 arguments" in outcome.why
        outcome = await made.equipment.writer("U.gone").write_and_read_back(call_text(RIGHT))
        assert (outcome.result, len(dose.given)) == (WriteResult.REFUSED, 1)
        # a method shows nothing by itself
        assert made.equipment.latest("U.dose") is None
        assert not (await made.equipment.read("U.dose")).good
        await refused_or_in_doubt(made, dose)


async def refused_or_in_doubt(made: Rig, dose: Dose) -> None:
    refused = ("BadMethodInvalid", "BadArgumentsMissing", "BadTooManyArguments", "BadTooManyOperations",
               "BadInvalidArgument", "BadNotExecutable", "BadUserAccessDenied")  # fmt: skip
    unknown = ("BadInternalError", "BadCommunicationError", "BadTimeout", "UncertainInitialValue")
    for status in (*refused, *unknown):
        dose.answer = ua.StatusCode(ua.UInt32(getattr(StatusCodes, status)))
        outcome = await called(made)
        assert outcome.result is (WriteResult.REFUSED if status in refused else WriteResult.UNKNOWN), status
        assert status in outcome.why
    for answer in ([], [ua.Variant("a")], [ua.Variant(float("nan"))], [ua.Variant(4000.0)], [ua.Variant([1.0])]):
        dose.answer = answer
        outcome = await called(made)
        assert (outcome.result, outcome.reading) == (WriteResult.UNKNOWN, None), answer
        assert "was called, but" in outcome.why


async def test_planted_bug_a_call_that_is_repeated_is_found(reactor: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: once more, when nobody knows."""
    once = OpcUaDriver.call

    async def twice(self: OpcUaDriver, tag: str, arguments: Any) -> Any:
        try:
            return await once(self, tag, arguments)
        except WriteUnknown:
            return await once(self, tag, arguments)

    monkeypatch.setattr(OpcUaDriver, "call", twice)
    with pytest.raises(AssertionError):
        await calls_once(with_bolus(reactor))


# What the plant file says --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"volume": 11}, {"volume": "2"}, {"volume": float("nan")}, {"times": 2.5}, {"times": True}, {"fast": 1},
     {"name": 2}, {"name": "a" * 5000}, {"more": 1}],
)  # fmt: skip
def test_what_does_not_fit_is_not_sent(wrong: dict[str, Any]) -> None:
    assert arguments_of("U.dose", METHOD, call_text(RIGHT)) == RIGHT
    with pytest.raises(LinesideError) as refusal:
        arguments_of("U.dose", METHOD, call_text({**RIGHT, **wrong}))
    assert refusal.value.code == "guard.arguments"


@given(
    st.one_of(
        st.text(max_size=80),
        st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5).map(str),
        st.dictionaries(st.sampled_from([*RIGHT]), st.booleans() | st.floats() | st.text(max_size=5)).map(call_text),
    )
)
def test_any_text_is_arguments_or_refused_in_words(text: str) -> None:
    try:
        found = arguments_of("U.dose", METHOD, text)
    except LinesideError as refusal:
        assert (refusal.code, bool(refusal.todo)) == ("guard.arguments", True)
    else:
        assert [*found] == [*METHOD.arguments]
        assert arguments_of("U.dose", METHOD, call_text(found)) == found


@given(
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(), max_size=2)
)
def test_no_answer_of_another_kind_is_taken(values: list[Any]) -> None:
    text, wrong = answer_of(METHOD, values)
    fits = len(values) == 1 and isinstance(values[0], int | float) and not isinstance(values[0], bool)
    assert bool(wrong) != (fits and 0 <= values[0] <= 3000)
    assert bool(text) != bool(wrong)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("type: float, access: write, low: 0, high: 1", "plant.method"),
        ("type: text", "plant.method"),
        ("type: text, access: write, read_back: y", "plant.method"),
        ("type: text, access: write, arguments: {a: {}}", "plant.unbounded"),
        ("type: text, access: write, arguments: {a: {low: 2, high: 1}}", "plant.upside_down"),
        ("type: text, access: write, arguments: {a: {type: bool, low: 0}}", "plant.not_a_number"),
        ("type: text, access: write, results: {a: {unit: bananas}}", "unit.unknown"),
    ],
)
def test_a_method_in_a_plant_file_is_checked_with_its_place(line: str, code: str) -> None:
    tag, found, group = line.partition(", arguments" if "arguments" in line else ", results")
    inside = f"node: i=3{found}{group}" if found else "node: i=3"
    data = f"""\
plant: P
connections: {{c: {{driver: opcua, settings: {{endpoint: "opc.tcp://h:1/"}}}}}}
units:
  U:
    class: u
    tags:
      y: {{connection: c, address: i=1, type: text}}
      x: {{connection: c, address: i=2, {tag}, method: {{{inside}}}}}
"""
    with pytest.raises(LinesideError) as refusal:
        read_plant(data.encode(), "p.yaml")
    errors = [refusal.value, *refusal.value.others]
    assert code in {one.code for one in errors}
    assert {one.place.line for one in errors if one.place} == {8}
