"""The screen at a scripted desk, used by keys, fingers and scanner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.widgets import Input, Static

from edge.core.errors import LinesideError
from edge.core.terms import State
from edge.wire import (
    ActOnBatch,
    AmendmentCard,
    AmendOffer,
    AnswerQuestion,
    ConfirmStep,
    ContinueBatch,
    CorrectValue,
    EnterValue,
    GiveOrder,
    LogIn,
    OrderLine,
    Picture,
    RequestAmendment,
    SaveDraft,
    ScanCode,
    SettleAmendment,
    SignStep,
    StartBatch,
    Strip,
    Sync,
    ValueLine,
)
from tests.ui.conftest import KIOSK, SMALL, Opener, Screen
from tests.ui.scripted import (
    ANA,
    AUDITOR,
    CHOICE,
    HOLD,
    INSTRUCT,
    MONITOR,
    QUESTION,
    RECORD,
    SCAN,
    SIGN,
    TEMPERATURE,
    make_batch,
    make_picture,
    scripted_desk,
)
from ui import drawing
from ui.locale import LANGUAGES, Words
from ui.view import Go, Target, View

VALUE = ValueLine(seq=40, name="viability", step="020", title="Viability", text="85", unit="%")
OFFERS = (
    AmendOffer(
        kind="value",
        subject="052",
        field="limit.high",
        title="052 Watch the CO₂",
        what="upper limit",
        value="5.5",
        unit="%",
        low="5",
        high="6",
        why="Above 6 % the medium turns acid.",
    ),
    AmendOffer(kind="skip", subject="060", title="060 Day 5: CAR-positive cells", what="skip"),
    AmendOffer(kind="add", subject="051-A1", field="051", title="051 Hold culture temperature", what="add"),
    AmendOffer(
        kind="adopt",
        subject="0" * 64,
        field="060",
        title="CART-B1 2",
        what="adopt",
        value="1",
        differences=("step 060: lower limit 5.0 → 6.0 %", "step 065 “Look” was added in operation Day 5"),
    ),
    AmendOffer(kind="skip", subject="005", title="005 Clear the suite", what="skip", refused="It is done."),
)
WAITS = AmendmentCard(
    amendment="A1",
    requested_by="ana",
    reason="The incubator is warm.",
    adopts="",
    from_step="",
    differences=("step 052: upper CO₂ limit 5.5 → 5.8 %", "5.5 → 5.8 %, bounds 5 to 6"),
    more=0,
    needs=("supervisor|quality",),
    people=("ana",),
)
HELD = make_batch(questions=(QUESTION,), state="held", reason="The reply of the feed pump was lost.")
QUEUED = make_batch(
    state="idle",
    units={},
    waits="Waits for BR-1, used by batch B-001; place 2",
    next_action="Waits for BR-1, used by batch B-001; place 2.",
)
PLACES: dict[str, tuple[Picture, list[str]]] = {
    "lock": (make_picture(person=None), []),
    "home": (make_picture(make_batch(HOLD, MONITOR), HELD.model_copy(update={"batch": "B-2"})), ["escape"]),
    "start": (make_picture(), ["f8"]),
    "start-typing": (make_picture(), ["f8", "f7"]),
    "step-instruct": (make_picture(make_batch(INSTRUCT)), []),
    "step-hold": (make_picture(make_batch(HOLD, MONITOR), dark_s=41.0), []),
    "step-value": (make_picture(make_batch(RECORD, MONITOR)), ["1"]),
    "step-typing": (make_picture(make_batch(RECORD)), ["1", "f7"]),
    "step-choice": (make_picture(make_batch(CHOICE)), []),
    "step-scan": (make_picture(make_batch(SCAN)), ["x"]),
    "step-two": (make_picture(make_batch(RECORD, INSTRUCT)), ["1"]),
    "steps": (make_picture(make_batch(HOLD)), ["f3"]),
    "step-waits": (make_picture(QUEUED), []),
    "step-may-start": (make_picture(QUEUED.model_copy(update={"waits": ""})), []),
    "acts": (make_picture(make_batch(HOLD)), ["f4"]),
    "acts-start": (make_picture(QUEUED.model_copy(update={"waits": ""})), ["f8"]),
    "correct": (make_picture(make_batch(HOLD, values=(VALUE,))), ["f4", "f6"]),
    "correct-typing": (make_picture(make_batch(HOLD, values=(VALUE,))), ["f4", "f6", "1", "f7"]),
    "amend": (make_picture(make_batch(HOLD, offers=OFFERS)), ["f4", "f2"]),
    "amendment": (make_picture(make_batch(HOLD, offers=OFFERS, amendment=WAITS)), ["f4", "f2"]),
    "question": (make_picture(HELD), []),
    "answer": (make_picture(HELD), ["f5"]),
    "sign": (make_picture(make_batch(SIGN)), []),
    "resume": (make_picture(make_batch(INSTRUCT, state="held", reason="Someone held it.")), []),
}


async def visit(screen: Screen, name: str) -> None:
    """Go to one of PLACES, as if the screen had just been opened there."""
    picture, keys = PLACES[name]
    screen.desk.drafts.clear()
    screen.desk.picture = picture
    screen.desk.log_in_everyone(picture.person)
    asked = [[card.title for card in batch.active] for batch in picture.batches]
    await screen.until(
        lambda: (
            (latest := screen.app._latest)
            and [[card.title for card in batch.active] for batch in latest.batches] == asked
            and [batch.state for batch in latest.batches] == [batch.state for batch in picture.batches]
            and not screen.app._draft_timers
        )
    )
    screen.app.front.entries.clear()
    screen.app._batch = screen.app._step = ""
    screen.app._shown = ()
    screen.app.on_go(Go("auto"))
    await screen.until(lambda: screen.app._shown)
    for key in keys:
        await screen.pilot.press(key)
        await screen.pilot.pause()
        await screen.pilot.pause()
    await screen.at({"resume": "step"}.get(name, name.partition("-")[0]))


@pytest.mark.parametrize(
    ("size", "language"), [(SMALL, "en"), (KIOSK, "en"), (SMALL, "de")], ids=["80x24", "120x33", "80x24-de"]
)
async def test_every_target_is_seen_whole_and_at_least_three_rows_high(
    open_screen: Opener, size: tuple[int, int], language: str
) -> None:
    async with open_screen(make_picture(), size=size, language=language) as screen:
        for name in PLACES:
            if name == "steps" and size == KIOSK:
                continue  # the list stands beside the body there
            await visit(screen, name)
            targets = [target for target in screen.app.query(Target) if target.is_on_screen and target.display]
            assert targets, name
            for target in targets:
                region, room = target.region, target.content_region.size
                assert region.height >= 3, (name, target.id)
                assert screen.app.screen.region.contains_region(region), (name, target.id)
                assert all(len(line) <= room.width for line in str(target.label).split("\n")), (name, target.id)
            assert screen.static("now").startswith(("→", "▶", "‖")) or "→" in screen.static("now"), name


async def test_log_in_by_badge_needs_no_field_and_shows_no_pin(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(INSTRUCT), person=None)) as screen:
        screen.app.screen.set_focus(None)
        await screen.scan("B-0017")
        await screen.pilot.press(*"1234")
        assert "1234" not in screen.text()
        await screen.pilot.press("enter")
        await screen.at("step")
        (request,) = screen.desk.of(LogIn)
        assert (request.badge, request.person, request.pin) == ("B-0017", "", "1234")
        assert "Ana Ruiz" in screen.static("header")


async def test_a_pin_typed_at_machine_speed_never_stands_in_the_badge_field(open_screen: Opener) -> None:
    async with open_screen(make_picture(person=None)) as screen:
        await screen.at("lock")
        for key in [*"BANA", "enter", *"2580"]:
            screen.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await screen.until(lambda: screen.value("pin") == "2580")
        assert screen.value("badge") == "BANA"


async def test_a_refused_log_in_says_what_it_means_and_what_to_do(open_screen: Opener) -> None:
    async with open_screen(make_picture(person=None)) as screen:
        await screen.click("#person-ben")
        await screen.pilot.press(*"9999", "enter")
        await screen.at("stop")
        for words in ("do not belong together", "Nobody was logged in.", "Try again.", "people.log_in"):
            assert screen.says(words)
        await screen.pilot.press("f8")
        await screen.at("lock")
        assert screen.value("pin") == ""
        assert screen.app.query_one("#person-ben").has_class("chosen")


async def test_behind_the_lock_the_screen_goes_where_something_must_be_done(open_screen: Opener) -> None:
    second = make_batch(INSTRUCT, batch="B-2")
    async with open_screen(make_picture(make_batch(HOLD), second, person=None)) as screen:
        screen.desk.log_in_everyone(ANA)
        await screen.at("step")
        assert "B-2" in screen.static("header")
        screen.desk.tell(make_picture(make_batch(HOLD), second.model_copy(update={"questions": (QUESTION,)})))
        await screen.at("question")
        await screen.pilot.press("escape")
        await screen.at("home")


async def test_a_step_is_confirmed_once_and_shown_done_only_when_the_desk_says_so(open_screen: Opener) -> None:
    done = make_picture(make_batch(HOLD))
    async with open_screen(make_picture(make_batch(INSTRUCT))) as screen:
        screen.desk.gate = asyncio.Event()
        screen.desk.on = lambda _: done
        target = screen.app.query_one("#confirm", Target)
        for _ in range(3):
            target.press()
        await screen.until(lambda: screen.desk.of(ConfirmStep))
        await screen.pilot.press("f8", "f8")
        await screen.until(lambda: screen.says("nothing is done yet"))
        assert screen.says(INSTRUCT.title)
        screen.desk.gate.set()
        await screen.until(lambda: screen.says(HOLD.title))
        (request,) = screen.desk.of(ConfirmStep)
        assert (request.batch, request.step) == ("B-2026-014", "035")


async def test_a_scan_where_nothing_asks_for_one_confirms_nothing(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(INSTRUCT))) as screen:
        await screen.pilot.press("tab")
        await screen.scan("=W0001")
        await screen.until(lambda: screen.says("this step asks for none"))
        assert screen.desk.of(ConfirmStep) == []


async def test_a_refused_value_is_kept_with_its_draft(open_screen: Opener) -> None:
    def refuse(request: object) -> None:
        assert isinstance(request, EnterValue)
        raise LinesideError("value.number", f"{request.text!r} is not a number.", effect="Nothing was recorded.")

    async with open_screen(make_picture(make_batch(RECORD))) as screen:
        screen.desk.on = refuse
        await screen.pilot.press(*"12,5", "enter")
        await screen.at("stop")
        assert screen.says("What you entered is kept.")
        await screen.pilot.press("f8")
        await screen.at("step")
        assert screen.value("entry") == "12,5"
        await screen.until(lambda: screen.desk.drafts == {("B-2026-014", "060"): "12,5"})


async def test_what_is_typed_becomes_a_draft_and_comes_back_to_another_screen(
    open_screen: Opener, tmp_path: Path
) -> None:
    picture = make_picture(make_batch(RECORD))
    async with scripted_desk(tmp_path / "desk.sock", picture) as desk:
        async with open_screen(picture, desk=desk) as first:
            await first.pilot.press(*"41.7")
            await first.until(lambda: desk.drafts == {("B-2026-014", "060"): "41.7"})
            await first.until(lambda: first.says("draft saved"))
        async with open_screen(picture, desk=desk) as second:
            assert second.value("entry") == "41.7"
            await second.pilot.press("5")
            assert second.value("entry") == "41.75"


async def test_leaving_the_step_saves_the_draft_at_once(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD))) as screen:
        await screen.pilot.press(*"41", "escape")
        await screen.until(lambda: screen.desk.drafts == {("B-2026-014", "060"): "41"})


async def test_a_draft_that_cannot_be_saved_is_said_so(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD))) as screen:
        original = screen.desk._do

        async def full(request: object, writer: asyncio.StreamWriter) -> dict[str, object]:
            if isinstance(request, SaveDraft):
                raise LinesideError("journal.full", "The disk is full.")
            return await original(request, writer)

        screen.desk._do = full  # type: ignore[method-assign]
        await screen.pilot.press("4")
        await screen.until(lambda: screen.says("draft not saved: The disk is full."))


async def test_a_wrong_scan_stops_the_screen_and_no_scanner_gets_past_it(open_screen: Opener) -> None:
    def refuse(_: object) -> None:
        raise LinesideError(
            "scan.patient",
            "This bag belongs to another order.",
            effect="Nothing was started.",
            todo="Put the bag into quarantine.",
        )

    async with open_screen(make_picture(make_batch(SCAN))) as screen:
        screen.desk.on = refuse
        screen.app.screen.set_focus(None)
        await screen.scan("=W4711")
        await screen.at("stop")
        assert screen.desk.of(ScanCode)[0].text == "=W4711"
        for words in ("STOP", "belongs to another order", "Nothing was started.", "quarantine", "=W4711"):
            assert screen.says(words)
        await screen.scan("=W4711")
        await screen.pilot.press("escape")
        assert screen.app.place == "stop"
        assert len(screen.desk.of(ScanCode)) == 1
        await screen.click("#understood")
        await screen.at("step")
        await screen.scan("=W0815")
        await screen.until(lambda: len(screen.desk.of(ScanCode)) == 2)
        assert screen.desk.of(ScanCode)[1].text == "=W0815"


async def test_a_question_shows_intent_beside_reading_and_sends_one_signed_answer(open_screen: Opener) -> None:
    async with open_screen(make_picture(HELD)) as screen:
        for words in ("HELD", "reply of the feed pump was lost", "What was intended", "What the equipment shows now"):
            assert screen.says(words)
        line = next(line for line in screen.text().split("\n") if line.count("12.0 mL/min") == 2)
        assert "✔ good" in line
        screen.desk.gate = asyncio.Event()
        screen.desk.on = lambda _: make_picture(make_batch(HOLD))
        await screen.click("#answer-happened")
        await screen.at("answer")
        assert screen.says("Nothing is written again.")
        assert screen.static("sign-person").endswith("Ana Ruiz")
        await screen.pilot.press(*"1234", "enter", "enter", "f8")
        await screen.until(lambda: screen.desk.of(AnswerQuestion))
        screen.desk.gate.set()
        await screen.at("step")
        (request,) = screen.desk.of(AnswerQuestion)
        assert (request.question, request.answer, request.person, request.pin) == ("q1", "happened", "ana", "1234")


async def test_a_second_person_signs_in_the_first_ones_session(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(SIGN))) as screen:
        assert screen.says("I take custody of this material.")
        second = SIGN.model_copy(update={"signers": ("verifier",)})
        screen.desk.on = lambda _: make_picture(make_batch(second))
        await screen.pilot.press(*"1234", "enter")
        await screen.until(lambda: "Ben Okafor" in screen.static("sign-person"))
        screen.desk.on = lambda _: make_picture(make_batch(HOLD))
        for digit in "2345":
            await screen.click(f"#pad-{digit}")
        await screen.click("#confirm")
        await screen.at("step")
        assert [(r.person, r.pin) for r in screen.desk.of(SignStep)] == [("ana", "1234"), ("ben", "2345")]


async def test_a_batch_is_started_by_keys_alone(open_screen: Opener) -> None:
    async with open_screen(make_picture()) as screen:
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.pilot.press("f8")
        await screen.at("start")
        screen.app.query_one("#recipe-0", Target).focus()
        await screen.pilot.press("enter")
        screen.app.query_one("#order", Input).focus()
        for field in ("ORD-7781", "B-2026-014", "=W0001"):
            assert screen.desk.of(StartBatch) == []
            await screen.scan(field)
        assert screen.desk.of(StartBatch) == []  # a scanner's Enter starts nothing
        await screen.pilot.press("f8")
        await screen.at("step")
        (request,) = screen.desk.of(StartBatch)
        assert (request.order, request.batch, request.patient) == ("ORD-7781", "B-2026-014", "=W0001")
        assert request.recipe == "a" * 64


async def test_a_batch_is_let_wait_when_its_units_are_busy(open_screen: Opener) -> None:
    free = make_picture()
    busy = free.recipes[1].model_copy(update={"waits": QUEUED.waits})
    picture = free.model_copy(update={"recipes": (free.recipes[0], busy)})
    async with open_screen(picture) as screen:
        screen.desk.on = lambda _: make_picture(QUEUED)
        await screen.pilot.press("f8")
        await screen.at("start")
        await screen.click("#recipe-1")
        screen.app.query_one("#order", Input).focus()
        for field in ("ORD-1", "B-2"):
            await screen.scan(field)
        assert str(screen.app.query_one("#start-batch", Target).label).endswith("Queue")
        assert QUEUED.waits in str(screen.app.query_one("#ready", Static).content)
        await screen.click("#start-batch")
        await screen.at("step")
        assert [(r.batch, r.queue) for r in screen.desk.of(StartBatch)] == [("B-2", True)]
        assert not screen.app.query_one("#start", Target).display


async def test_a_training_batch_is_started_without_number_and_patient_and_says_so_everywhere(
    open_screen: Opener,
) -> None:
    picture = make_picture()
    learn = picture.model_copy(
        update={"recipes": tuple(one.model_copy(update={"trainable": True}) for one in picture.recipes[:1])}
    )
    trained = make_batch(INSTRUCT).model_copy(update={"batch": "TRAINING-0001", "training": True})
    async with open_screen(learn) as screen:
        screen.desk.on = lambda _: make_picture(trained)
        await screen.pilot.press("f8")
        await screen.at("start")
        await screen.click("#training")
        await screen.until(lambda: screen.says("◆ TRAINING"))
        assert not screen.app.query_one("#batch", Input).display
        assert not screen.app.query_one("#patient", Input).display
        await screen.click("#start-batch")
        await screen.at("step")
        (request,) = screen.desk.of(StartBatch)
        assert (request.batch, request.patient, request.training, request.queue) == ("", "", True, False)
        assert "◆ TRAINING" in screen.static("header")
        await screen.pilot.press("escape")
        await screen.at("home")
        assert "◆ TRAINING" in str(screen.app.query_one("#open-0", Target).label)


def ordered(**more: Any) -> OrderLine:
    given = {"order": "ORD-1", "title": "Car T", "recipe": "a" * 64, "number": "", "parameters": {"feed": "12"},
             "quantity": "20 mL", "due": "2026-12-01", "needs_patient": False, "training": False}  # fmt: skip
    return OrderLine.model_validate({**given, **more})


async def test_an_order_that_waits_is_started_with_one_tap(open_screen: Opener) -> None:
    picture = make_picture().model_copy(update={"orders": (ordered(), ordered(order="ORD-2")), "number": "B-0007"})
    async with open_screen(picture) as screen:
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.pilot.press("f8")
        await screen.at("orders")
        facts = str(screen.app.query_one("#facts", Static).content)
        assert all(said in facts for said in ("ORD-1", "B-0007", "feed  12", "20 mL", "2026-12-01"))
        await screen.click("#start-order")
        await screen.at("step")
        (request,) = screen.desk.of(StartBatch)
        assert (request.order, request.batch, request.patient) == ("ORD-1", "", "")


async def test_an_order_for_a_patient_waits_for_the_scan_and_its_id_is_none(open_screen: Opener) -> None:
    orders = (ordered(), ordered(order="ORD-2", needs_patient=True))
    async with open_screen(make_picture().model_copy(update={"orders": orders})) as screen:
        await screen.pilot.press("f8")
        await screen.at("orders")
        await screen.scan("ORD-2")  # chooses it
        await screen.until(lambda: "ORD-2" in str(screen.app.query_one("#facts", Static).content))
        assert not screen.app.query_one("#start-order", Target).display
        for typed in ("ORD-1", "ORD-2"):
            screen.app.query_one("#scan", Input).value = typed
            await screen.pilot.pause()
            assert not screen.app.query_one("#start-order", Target).display, "an order's id is no patient"
        screen.app.query_one("#scan", Input).value = ""
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.scan("=W0001")
        await screen.click("#start-order")
        await screen.at("step")
        (request,) = screen.desk.of(StartBatch)
        assert (request.order, request.patient) == ("ORD-2", "=W0001")


@pytest.mark.parametrize("place", ["start", "orders"])
async def test_the_code_of_an_order_is_taken_where_it_is_scanned(open_screen: Opener, place: str) -> None:
    picture = make_picture()
    waiting = picture.model_copy(update={"orders": (ordered(),)})
    async with open_screen(waiting if place == "orders" else picture) as screen:
        screen.desk.on = lambda _: waiting
        await screen.pilot.press("f8")
        await screen.at(place)
        await screen.scan("LSO1;O=ORD-1;R=CART-B1")
        await screen.until(lambda: screen.desk.of(GiveOrder))
        await screen.at("orders")
        (request,) = screen.desk.of(GiveOrder)
        assert (request.text, request.way) == ("LSO1;O=ORD-1;R=CART-B1", "scanned")
        assert screen.app.query_one("#start-order", Target).display


async def test_no_training_without_units_for_it(open_screen: Opener) -> None:
    async with open_screen(make_picture()) as screen:
        await screen.pilot.press("f8")
        await screen.at("start")
        await screen.click("#recipe-1")
        await screen.click("#training")
        await screen.until(lambda: screen.says("The plant gives no units for training"))
        assert not screen.app.query_one("#start-batch", Target).display
        await screen.click("#training")
        await screen.until(lambda: not screen.says("◆ TRAINING"))


async def test_a_batch_that_waited_is_started_by_a_person_without_a_reason(open_screen: Opener) -> None:
    async with open_screen(make_picture(QUEUED.model_copy(update={"waits": ""}))) as screen:
        await screen.at("step")
        await screen.click("#start")
        await screen.at("acts")
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.click("#confirm")
        await screen.at("step")
        assert [(r.act, r.reason) for r in screen.desk.of(ActOnBatch)] == [("start", "")]


async def test_a_batch_goes_by_fingers_alone(open_screen: Opener) -> None:
    async with open_screen(make_picture(person=None)) as screen:
        await screen.click("#person-ana")
        for digit in "1234":
            await screen.click(f"#pad-{digit}")
        await screen.click("#log-in")
        await screen.at("home")
        await screen.click("#new-batch")
        await screen.click("#recipe-1")
        await screen.click("#order")
        await screen.click("#keyboard")
        await screen.click(".letters #pad-o")
        await screen.click(".letters #pad-c")
        await screen.click(".letters #pad-1")
        await screen.click("#keyboard")
        await screen.click("#batch")
        await screen.click("#keyboard")
        await screen.click(".letters #pad-b")
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.click("#start-batch")
        await screen.at("step")
        assert [(r.order, r.batch, r.patient) for r in screen.desk.of(StartBatch)] == [("OC1", "B", "")]
        screen.desk.on = lambda _: make_picture(make_batch(RECORD))
        await screen.click("#confirm")
        await screen.click(".number #pad-4")
        await screen.click(".number #pad-dot")
        await screen.click(".number #pad-2")
        screen.desk.on = lambda _: make_picture(make_batch(CHOICE))
        await screen.click("#confirm")
        await screen.click("#choice-more")
        await screen.click("#choice-3")
        screen.desk.on = lambda _: make_picture(make_batch(HOLD))
        await screen.click("#confirm")
        await screen.until(lambda: screen.says(HOLD.title))
        assert [r.text for r in screen.desk.of(EnterValue)] == ["4.2", "particles"]
        screen.desk.on = lambda _: make_picture(make_batch(HOLD, state="held", reason="x"))
        await screen.click("#acts")
        await screen.click("#act-hold")
        await screen.click("#keyboard")
        await screen.click(".letters #pad-x")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(ActOnBatch))
        (request,) = screen.desk.of(ActOnBatch)
        assert (request.act, request.reason) == ("hold", "X")


async def test_a_wrong_value_is_corrected_with_a_reason_and_a_signature(open_screen: Opener) -> None:
    shown = make_picture(make_batch(HOLD, values=(VALUE,)))
    async with open_screen(shown) as screen:
        await screen.click("#acts")
        await screen.click("#correct")
        await screen.click("#choice-0")
        assert screen.says("stands in the record as 85 %")
        assert not screen.shows("#confirm"), "a right value and a reason are both needed"
        await screen.pilot.press(*"95", "tab", *"typing error")
        await screen.click("#confirm")
        await screen.at("sign-correction")
        for words in ("85 %", "95 %", "typing error"):
            assert screen.says(words)
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(CorrectValue))
        (request,) = screen.desk.of(CorrectValue)
        facts = (request.name, request.was_seq, request.text, request.reason, request.person, request.pin)
        assert facts == ("viability", 40, "95", "typing error", "ana", "1234")


async def test_an_amendment_shows_old_new_bounds_and_why_before_it_is_requested(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD, offers=OFFERS))) as screen:
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.click("#choice-0")
        for words in ("upper limit 5.5 %", "5 – 6 %", "the medium turns acid"):
            assert screen.says(words)
        assert not screen.shows("#confirm"), "a new value and a reason are both needed"
        screen.app.screen.set_focus(screen.app.query_one("#entry"))
        await screen.pilot.press(*"5.8", "tab", *"warm")
        await screen.click("#confirm")
        await screen.at("sign-request")
        for words in (
            "upper limit 5.5 %",
            "New 5.8 %",
            "5 – 6 %",
            "acid",
            "warm",
            "Nothing changes before others agree",
        ):
            assert screen.says(words)
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(RequestAmendment))
        (request,) = screen.desk.of(RequestAmendment)
        (change,) = request.changes
        assert (change.kind, change.subject, change.field, change.text) == ("value", "052", "limit.high", "5.8")
        assert (request.reason, request.person, request.pin, request.adopts) == ("warm", "ana", "1234", "")


async def test_a_version_is_adopted_with_its_differences_shown_and_a_step_is_added(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD, offers=OFFERS))) as screen:
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.click("#choice-more")
        await screen.click("#choice-3")
        assert screen.says("goes over to this version from step 060 on")
        assert screen.says("lower limit 5.0 → 6.0 %")
        await screen.pilot.press(*"new limit")
        await screen.click("#confirm")
        await screen.at("sign-request")
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(RequestAmendment))
        (request,) = screen.desk.of(RequestAmendment)
        assert (request.adopts, request.from_step, request.changes) == ("0" * 64, "060", ())
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.click("#choice-2")
        screen.app.screen.set_focus(screen.app.query_one("#entry"))
        await screen.pilot.press(*"Look closer.", "tab", *"so")
        await screen.click("#confirm")
        await screen.at("sign-request")
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: len(screen.desk.of(RequestAmendment)) == 2)
        (added,) = screen.desk.of(RequestAmendment)[1].changes
        assert (added.kind, added.subject, added.field) == ("add", "051-A1", "051")
        assert json.loads(added.text)["text"] == "Look closer."


async def test_what_cannot_be_amended_now_says_why_and_offers_nothing(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD, offers=OFFERS))) as screen:
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.click("#choice-more")
        await screen.click("#choice-4")
        assert screen.says("It is done.")
        await screen.pilot.press(*"so")
        assert not screen.shows("#confirm")


async def test_another_person_agrees_to_an_amendment_or_refuses_it_with_a_reason(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD, offers=OFFERS, amendment=WAITS))) as screen:
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.at("amendment")
        for words in ("requested by ana", "5.5 → 5.8 %", "bounds 5 to 6", "The incubator is warm."):
            assert screen.says(words)
        await screen.click("#confirm")
        await screen.at("sign-amendment")
        assert not screen.shows("#signer-ana"), "who asks for it does not agree to it"
        await screen.pilot.press(*"3456")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(SettleAmendment))
        await screen.click("#acts")
        await screen.click("#amend")
        await screen.at("amendment")
        await screen.pilot.press(*"no need")
        await screen.click("#refuse")
        await screen.at("sign-amendment")
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: len(screen.desk.of(SettleAmendment)) == 2)
        one, other = screen.desk.of(SettleAmendment)
        assert (one.agree, one.person, one.reason) == (True, "eva", "")
        assert (other.agree, other.person, other.reason) == (False, "ana", "no need")


async def test_a_restored_batch_goes_on_only_when_somebody_signs_it(open_screen: Opener) -> None:
    why = "This box came back from a backup: it ends with row 41; rows up to 44 are not here (3 missing)."
    restored = make_picture(make_batch(HOLD, state="held", reason=why, restored=True))
    async with open_screen(restored) as screen:
        await screen.click("#acts")
        await screen.click("#act-resume")
        await screen.pilot.press(*"compared")
        await screen.click("#confirm")
        await screen.at("continue")
        await screen.until(lambda: screen.says("missing)"))
        assert screen.says("compared")
        assert screen.says("Rows that are missing")
        assert screen.says("Eva Lindqvist"), "the only one who may sign it is chosen"
        await screen.pilot.press(*"3456")
        screen.desk.on = lambda _: make_picture(make_batch(HOLD))
        await screen.click("#confirm")
        await screen.at("step")
        (request,) = screen.desk.of(ContinueBatch)
        assert (request.reason, request.person, request.pin) == ("compared", "eva", "3456")
        assert not screen.desk.of(ActOnBatch)


async def test_the_runtime_goes_and_comes_back(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD))) as screen:
        await screen.pilot.press(*"41.7")
        screen.desk.picture = make_picture(make_batch(RECORD), dark_s=41.0, person=None)
        await screen.desk.stop()
        await screen.at("gone")
        for words in ("THE RUNTIME IS NOT ANSWERING", "What it means", "What to do", "connects again by itself"):
            assert screen.says(words)
        assert not screen.says("412")  # nothing that is no longer known
        screen.desk.drafts.clear()
        await screen.desk.start()
        await screen.at("lock")
        assert screen.says("No runtime was here for 41 s")
        await screen.scan("B-0017")
        await screen.pilot.press(*"1234", "enter")
        await screen.at("step")
        assert screen.value("entry") == "41.7"
        await screen.until(lambda: screen.desk.drafts == {("B-2026-014", "060"): "41.7"})


async def test_an_entry_that_was_on_its_way_is_neither_shown_done_nor_lost(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD))) as screen:
        screen.desk.gate = asyncio.Event()
        await screen.pilot.press(*"41.7", "enter")
        await screen.until(lambda: screen.desk.of(EnterValue))
        stopping = asyncio.ensure_future(screen.desk.stop())
        await screen.at("gone")
        await screen.until(lambda: screen.says("An entry was on its way"))
        screen.desk.gate.set()
        await stopping
        await screen.desk.start()
        await screen.at("step")
        assert screen.value("entry") == "41.7"


async def test_what_a_role_may_not_do_is_not_offered(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD), person=AUDITOR)) as screen:
        assert not screen.shows("#acts")
        await screen.pilot.press("escape")
        await screen.at("home")
        assert not screen.shows("#new-batch")
        await screen.pilot.press("f8")
        assert screen.app.place == "home"


async def test_a_held_batch_offers_resume_and_asks_for_a_reason(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(INSTRUCT, state="held", reason="Ben held it."))) as screen:
        assert not screen.shows("#confirm")
        assert screen.says("HELD: Ben held it.")
        screen.desk.on = lambda _: make_picture(make_batch(INSTRUCT))
        await screen.pilot.press("f8", *"fixed", "f8")
        await screen.at("step")
        (request,) = screen.desk.of(ActOnBatch)
        assert (request.act, request.reason) == ("resume", "fixed")


async def test_two_tasks_at_once_are_both_within_reach(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD, INSTRUCT))) as screen:
        assert screen.says(RECORD.title)
        await screen.pilot.press(*"7", "f6")
        await screen.until(lambda: screen.static("text") == INSTRUCT.text)
        await screen.pilot.press("f6")
        await screen.until(lambda: screen.static("text") == RECORD.text)
        assert screen.value("entry") == "7"


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"value": 37.9, "text": "37.90"}, "▲ above the limit"),
        ({"value": 35.0, "text": "35.00"}, "▼ below the limit"),
        ({"value": None, "text": "", "quality": "bad", "detail": "no answer"}, "✖ bad: no answer"),
        ({"quality": "uncertain"}, "? uncertain"),
        ({}, "✔ within"),
    ],
)
async def test_a_reading_says_in_words_where_it_stands(
    open_screen: Opener, change: dict[str, object], sign: str
) -> None:
    reading = TEMPERATURE.model_copy(update=change)
    async with open_screen(make_picture(make_batch(HOLD.model_copy(update={"readings": (reading,)})))) as screen:
        assert screen.says(sign)


async def test_time_goes_on_between_two_pictures_while_the_batch_runs(open_screen: Opener) -> None:
    now = [0.0]
    async with open_screen(make_picture(make_batch(HOLD)), now_s=lambda: now[0]) as screen:
        assert screen.says("7 h 26 min of 12 h 00 min")
        now[0] = 3600.0
        await screen.until(lambda: screen.says("8 h 26 min of 12 h 00 min"))
        screen.desk.tell(make_picture(make_batch(HOLD, state="held", reason="x")))
        await screen.until(lambda: screen.says("7 h 26 min of 12 h 00 min"))


@pytest.mark.parametrize(
    ("sync", "made", "words"),
    [
        (
            Sync(hub="connected", received_seq=412, copied="ok", copied_seq=412),
            412,
            "✔ hub 412 │ 412 made = 412 received + 0 pending",
        ),
        (Sync(hub="connected", received_seq=400, copied="ok", copied_seq=412), 412, "▲ hub 400, 12 pending"),
        (Sync(hub="never", copied="off"), 412, "✖ hub never reached, 412 pending"),
        (Sync(hub="off", copied="failed", copied_seq=9), 412, "✖ copy failed at 9 │ no hub set up"),
        (Sync(hub="away", received_seq=1_000_000, copied="ok", copied_seq=9_000_000), 9_000_000, "8000000 pending"),
    ],
)
async def test_the_strip_states_the_loss_equation(open_screen: Opener, sync: Sync, made: int, words: str) -> None:
    async with open_screen(make_picture(make_batch(HOLD), strip=Strip(made=made, saved=made, sync=sync))) as screen:
        row = screen.text().split("\n")[1]
        assert words in row
        assert f"✔ saved {made}" in row


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("hub", ["off", "never", "away", "connected"])
@pytest.mark.parametrize("copied", ["off", "ok", "behind", "failed"])
def test_the_strip_says_what_is_pending_at_the_smallest_width(language: str, hub: str, copied: str) -> None:
    made = 654_321
    copy = {"copied": "ok" if copied == "behind" else copied, "copied_seq": made - (copied != "ok")}
    sync = Sync.model_validate({"hub": hub, "received_seq": 0 if hub == "never" else 1_000, **copy})
    row = drawing.strip(Words(language), Strip(made=made, saved=made - 1, sync=sync), 60)
    assert row.cell_length <= 60, row.plain
    assert hub == "off" or str(made - sync.received_seq) in row.plain


async def test_text_from_the_desk_is_never_read_as_markup(open_screen: Opener) -> None:
    card = INSTRUCT.model_copy(update={"text": "Press [bold]twice[/bold] on [red]STOP[/]."})
    async with open_screen(make_picture(make_batch(card))) as screen:
        assert screen.says("Press [bold]twice[/bold] on [red]STOP[/].")


async def test_every_state_is_said_with_a_sign_and_a_word(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD))) as screen:
        for state in State:
            screen.desk.tell(make_picture(make_batch(HOLD, state=state.value)))
            said = f"{drawing.STATE_MARK[state.value]} {state.value.upper()}"
            await screen.until(lambda said=said: said in screen.static("header"))


async def test_a_panel_beside_the_screen_takes_its_own_room(open_screen: Opener) -> None:
    side = Static("PUMP 1 WRITE", id="counter")
    async with open_screen(make_picture(make_batch(HOLD)), size=(130, 33), side=side) as screen:
        assert screen.says("PUMP 1 WRITE")
        assert screen.app.query_one("#main").size.width + side.size.width <= 130
        await screen.pilot.press("escape")
        await screen.at("home")
        assert screen.says("PUMP 1 WRITE")


async def test_a_step_of_another_role_says_whose_it_is_and_offers_nothing(open_screen: Opener) -> None:
    step = INSTRUCT.model_copy(update={"roles": ("quality",)})
    async with open_screen(make_picture(make_batch(step))) as screen:
        await screen.at("step")
        await screen.until(lambda: screen.says("This step is for the role quality"))
        assert not screen.shows("#confirm")
        screen.desk.tell(make_picture(make_batch(INSTRUCT.model_copy(update={"roles": ("operator",)}))))
        await screen.until(lambda: screen.shows("#confirm"))


async def test_a_picture_that_comes_while_the_view_changes_never_breaks_the_screen(
    open_screen: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_screen(make_picture(make_batch(INSTRUCT))) as screen:
        await screen.at("step")
        change, places = screen.app._change, []

        async def and_meanwhile_it_is_answered(make: Callable[[], View]) -> None:
            await change(make)
            places.append(screen.app.place)
            screen.app._took(make_picture(make_batch(INSTRUCT)))

        monkeypatch.setattr(screen.app, "_change", and_meanwhile_it_is_answered)
        screen.desk.tell(make_picture(HELD))
        await screen.until(lambda: "question" in places and screen.app.place == "step")


async def test_after_a_time_without_power_it_is_asked_how_the_step_goes_on(open_screen: Opener) -> None:
    dark = QUESTION.model_copy(update={"tag": "", "reading_now": None, "why": "The box was off."})
    held = make_batch(questions=(dark,), state="held", reason="The box was off.")
    async with open_screen(make_picture(held)) as screen:
        await screen.at("question")
        assert screen.says("The box was off during this step")
        for words in ("Go on", "Begin anew", "Abort the batch"):
            assert screen.says(words)
        assert not screen.shows("#compare")
        assert not screen.says("written")
        await screen.click("#answer-again")
        await screen.at("answer")
        assert screen.says("Begin anew: the step runs from its beginning.")


async def test_the_band_speaks_of_the_task_that_is_shown(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(RECORD, INSTRUCT, next_action=f"Enter: {RECORD.title}"))) as screen:
        await screen.at("step")
        assert screen.says(f"→ Enter: {RECORD.title}")
        await screen.pilot.press("f6")
        await screen.until(lambda: screen.says(f"→ Do: {INSTRUCT.title}"))


@pytest.mark.parametrize(("size", "language"), [(SMALL, "en"), ((60, 20), "de")], ids=["80x24", "60x20-de"])
async def test_stop_says_which_units_it_makes_safe_and_nothing_of_it_is_cut(
    open_screen: Opener, size: tuple[int, int], language: str
) -> None:
    batch = make_batch(HOLD, safe=("BR-1", "P-1"))
    async with open_screen(make_picture(batch), size=size, language=language) as screen:
        await screen.pilot.press("f4")
        await screen.at("acts")
        await screen.click("#act-stop")
        await screen.until(lambda: screen.shows("#reason"))
        for target in screen.app.query(Target):
            if target.display and target.is_on_screen:
                assert screen.app.screen.region.contains_region(target.region), target.id
        assert screen.app.screen.region.contains_region(screen.app.query_one("#reason").region)
        for said in (screen.app.words("act.explain.stop"), screen.app.words("act.safe", units="BR-1, P-1")):
            assert said in screen.static("now")
        await screen.click("#act-hold" if size == SMALL else "#back")
        await screen.until(lambda: screen.shows("#act-abort"))
        assert not screen.says(screen.app.words("act.explain.stop")) or size == SMALL


async def test_a_batch_whose_units_have_no_safe_state_is_not_said_to_make_one(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD))) as screen:
        await screen.pilot.press("f4")
        await screen.click("#act-stop")
        await screen.until(lambda: screen.shows("#reason"))
        assert not screen.says("Made safe")


async def test_at_sixty_columns_what_keeps_a_batch_from_starting_is_not_cut(open_screen: Opener) -> None:
    waits = "Waits for BR-1, used by batch B-001; place 2"
    recipe = make_picture().recipes[0].model_copy(update={"waits": waits})
    picture = make_picture(recipes=(recipe,), recipe_approval="from_folder")
    async with open_screen(picture, size=(60, 20), language="de") as screen:
        await screen.click("#new-batch")
        await screen.at("start")
        await screen.until(lambda: screen.shows("#patient"))
        assert screen.says(waits.split(", ", maxsplit=1)[0])
        assert screen.says("place 2.")


async def test_why_a_batch_is_held_is_said_once(open_screen: Opener) -> None:
    why = "Wash: wash of CP-1 is starting for longer than 60 s."
    batch = make_batch(HOLD, state="held", reason=why, next_action=f"Held: {why} When it is mended, resume the batch.")
    async with open_screen(make_picture(batch)) as screen:
        await screen.at("step")
        assert screen.static("now").count(why) == 1
        assert "HELD" in screen.static("now")
