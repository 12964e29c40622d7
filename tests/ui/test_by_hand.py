"""Steps by hand on the screen: switched with a signature, entered by one, entered again unseen by another."""

from __future__ import annotations

from edge.core.errors import LinesideError
from edge.wire import DarkCard, EnterByHand, EnterDark, HandCard, HandOffer, Picture, ReadingView, StepCard, SwitchMode
from tests.ui.conftest import Opener
from tests.ui.scripted import HOLD, QUESTION, RECORD, make_batch, make_picture

TAKE = HandOffer(
    step="051",
    iteration=1,
    title="Hold culture temperature",
    act="take by hand",
    why="BR-1.temperature: No connection to 10.0.0.7:4840.",
    roles=("operator", "supervisor"),
)
MANUAL = TAKE.model_copy(update={"act": "switch to manual", "why": "", "roles": ("supervisor",)})
FIRST = HandCard(
    mode="semi-automatic",
    why="BR-1.temperature (br1) cannot be used: No connection to 10.0.0.7:4840.",
    kind="number",
    verifies=False,
    entered_by="",
    roles=("operator", "supervisor"),
    said="",
    again=True,
    last="36.9 degC, entered by ana, verified by ben",
    back="",
)
SECOND = FIRST.model_copy(
    update={"verifies": True, "entered_by": "ana", "roles": ("verifier", "supervisor", "quality")}
)
DEAD = ReadingView(
    tag="BR-1.temperature", title="Temperature", value=None, text="(37.02)", unit="degC", quality="bad",
    detail="No connection to 10.0.0.7:4840.",
)  # fmt: skip


def card(hand: HandCard, **more: object) -> StepCard:
    facts = {
        "text": "Read BR-1.temperature off the device, or measure it by other means, and enter it.",
        "asks": "hand",
        "part": "BR-1.temperature",
        "readings": (DEAD,),
        "hand": hand,
        **more,
    }
    return HOLD.model_copy(update=facts)


def entering(hand: HandCard, *others: StepCard, **more: object) -> Picture:
    return make_picture(make_batch(card(hand, **more), *others, hands=(MANUAL,)))


async def test_a_step_is_taken_by_hand_with_a_signature(open_screen: Opener) -> None:
    held = make_batch(HOLD, state="held", reason="No connection.", hands=(TAKE, MANUAL))
    async with open_screen(make_picture(held)) as screen:
        await screen.click("#acts")
        await screen.click("#hands")
        await screen.at("hands")
        await screen.click("#choice-0")
        assert screen.says("BR-1.temperature: No connection to 10.0.0.7:4840.")
        await screen.click("#confirm")
        await screen.at("sign-mode")
        assert screen.says("It goes on by hand")
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(SwitchMode))
        (request,) = screen.desk.of(SwitchMode)
        assert (request.step, request.act, request.person, request.pin) == ("051", "take by hand", "ana", "1234")


async def test_manual_mode_needs_a_reason_and_a_supervisor(open_screen: Opener) -> None:
    async with open_screen(make_picture(make_batch(HOLD, hands=(MANUAL,)))) as screen:
        await screen.click("#acts")
        await screen.click("#hands")
        await screen.click("#choice-0")
        assert not screen.shows("#confirm"), "there is no reason yet"
        screen.app.screen.set_focus(screen.app.query_one("#reason"))
        await screen.pilot.press(*"valve")
        await screen.click("#confirm")
        await screen.at("sign-mode")
        assert screen.says("Eva Lindqvist"), "she alone may"
        await screen.pilot.press(*"3456")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(SwitchMode))
        (request,) = screen.desk.of(SwitchMode)
        assert (request.act, request.reason, request.person) == ("switch to manual", "valve", "eva")


async def test_one_enters_and_another_enters_it_again_without_seeing_it(open_screen: Opener) -> None:
    async with open_screen(entering(FIRST)) as screen:
        await screen.at("hand")
        assert screen.says("BY HAND, not measured.")
        assert screen.says("36.9 degC, entered by ana, verified by ben")
        await screen.pilot.press(*"37.4")
        await screen.click("#confirm")
        await screen.at("sign-hand")
        assert screen.says("37.4 °C")
        screen.desk.on = lambda _: entering(SECOND)
        await screen.pilot.press(*"1234")
        await screen.click("#confirm")
        await screen.until(lambda: screen.says("Second person (not Ana Ruiz)"))
        assert not screen.says("37.4"), "the first entry is nowhere on the screen"
        assert screen.value("entry") == ""
        await screen.pilot.press(*"37.4")
        await screen.click("#confirm")
        await screen.at("sign-hand")
        assert not screen.shows("#signer-ana"), "who made the entry does not verify it"
        await screen.click("#signer-ben")
        await screen.pilot.press(*"2345")
        await screen.click("#confirm")
        await screen.until(lambda: len(screen.desk.of(EnterByHand)) == 2)
        told = [(one.text, one.verifies, one.person, one.part) for one in screen.desk.of(EnterByHand)]
        tag = "BR-1.temperature"
        assert told == [("37.4", False, "ana", tag), ("37.4", True, "ben", tag)]


async def test_what_was_done_is_signed_by_the_second_person(open_screen: Opener) -> None:
    done = SECOND.model_copy(update={"mode": "manual", "kind": "text", "said": "Opened V-3 by hand", "again": False})
    async with open_screen(entering(done, part="done", readings=())) as screen:
        assert screen.says("MANUAL MODE.")
        assert screen.says("Opened V-3 by hand")
        await screen.click("#confirm")
        await screen.at("sign-hand")
        await screen.click("#signer-ben")
        await screen.pilot.press(*"2345")
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(EnterByHand))
        (request,) = screen.desk.of(EnterByHand)
        assert (request.part, request.text, request.verifies) == ("done", "", True)


async def test_a_state_is_chosen_other_tasks_are_near_and_a_question_leads_to_by_hand(open_screen: Opener) -> None:
    state = FIRST.model_copy(update={"kind": "choice", "last": ""})
    async with open_screen(entering(state, RECORD, part="state", choices=("completed", "stopped"))) as screen:
        assert not screen.shows("#confirm")
        await screen.click("#choice-0")
        await screen.until(lambda: screen.shows("#confirm"))
        assert screen.says("Other (1)")
        await screen.click("#next-task")
        await screen.at("step")
        asked = make_batch(
            questions=(QUESTION,), state="held", reason="x", hands=(TAKE.model_copy(update={"step": "050"}),)
        )
        screen.desk.tell(make_picture(asked))
        await screen.at("question")
        await screen.click("#hands")
        await screen.at("hands")


async def test_equipment_that_is_back_is_said(open_screen: Opener) -> None:
    back = FIRST.model_copy(update={"back": "BR-1.temperature can be used again. Go on by hand, or return the step."})
    async with open_screen(entering(back), size=(60, 20)) as screen:
        assert screen.says("BR-1.temperature can be used again.")
        assert screen.shows("#entry")


OFF = DarkCard(since="2026-11-22T07:00:00.000000Z", verifies=False, entered_by="", roles=("operator", "supervisor"))


async def test_two_people_say_how_long_the_box_was_off(open_screen: Opener) -> None:
    held = make_picture(make_batch(HOLD, state="held", dark=OFF))
    second = OFF.model_copy(update={"verifies": True, "entered_by": "ana", "roles": ("verifier", "supervisor")})
    async with open_screen(held) as screen:
        await screen.click("#acts")
        await screen.click("#off")
        await screen.at("off")
        assert not screen.shows("#confirm"), "nothing is entered yet"
        await screen.pilot.press(*"30")
        await screen.click("#confirm")
        await screen.at("sign-off")
        await screen.click("#signer-ana")
        await screen.pilot.press(*"1234")
        screen.desk.on = lambda _: make_picture(make_batch(HOLD, state="held", dark=second))
        await screen.click("#confirm")
        await screen.until(lambda: screen.desk.of(EnterDark))
        await screen.until(lambda: screen.app.query("#acts"))
        await screen.click("#acts")
        await screen.click("#off")
        await screen.at("off")
        assert screen.says("Second person (not Ana")
        assert not screen.shows("#confirm"), "the second person sees nothing of the first entry"
        (request,) = screen.desk.of(EnterDark)
        assert (request.minutes, request.verifies, request.person) == (30, False, "ana")


async def test_after_entries_that_differ_nothing_of_them_is_left_on_the_screen(open_screen: Opener) -> None:
    def differs(request: object) -> Picture | None:
        if isinstance(request, EnterByHand):
            raise LinesideError("hand.differs", "The two entries differ.", todo="Read the device again, both.")
        return None

    async with open_screen(entering(SECOND)) as screen:
        screen.desk.on = differs
        await screen.pilot.press(*"37.4")
        await screen.click("#confirm")
        await screen.at("sign-hand")
        await screen.click("#signer-ben")
        await screen.pilot.press(*"2345")
        await screen.click("#confirm")
        await screen.at("stop")
        assert screen.says("The two entries differ.")
        await screen.click("#understood")
        await screen.until(lambda: screen.app.place in {"hand", "sign-hand"})
        assert not screen.says("37.4")
