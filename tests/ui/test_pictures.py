"""What the screens look like, kept as SVG.

`pytest --snapshot-update tests/ui` writes them anew, `docs/screen.svg` too.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from edge.core.errors import LinesideError
from edge.wire import Picture
from tests.ui.conftest import KIOSK, SMALL, Opener, Screen
from tests.ui.scripted import HOLD, INSTRUCT, MONITOR, QUESTION, RECORD, SCAN, SIGN, make_batch, make_picture
from tests.ui.test_alarms import DISK, WARM, shown
from tests.ui.test_attachments import PICTURE as ATTACHED

README_PICTURE = Path(__file__).parents[2] / "docs" / "screen.svg"
FONTS = '"Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace'
NEXT = "Nothing to do now. The box holds 37 °C for 4 h 33 min more."


class Svg(SingleFileSnapshotExtension):
    """One SVG file a picture."""

    file_extension = "svg"
    _write_mode = WriteMode.TEXT


@pytest.fixture
def picture_of(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(Svg)


def drawn(screen: Screen) -> str:
    """The screen as SVG: no font from another host, and the same bytes for the same screen."""
    svg = screen.app.export_screenshot(title="Lineside")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"terminal-\d+", "screen", svg)
    svg = svg.replace("font-family: Fira Code, monospace", f"font-family: {FONTS}")
    svg = svg.replace("font-size: 20px", "font-size: 21px")  # so that lines of box drawing meet in any of the fonts
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def test_no_picture_asks_another_host() -> None:
    for path in (*Path(__file__).parent.glob("__snapshots__/**/*.svg"), README_PICTURE):
        assert not re.search(r"https?://(?!www\.w3\.org)(?!www\.textualize\.io)", path.read_text()), path.name


HELD = make_batch(
    questions=(QUESTION,),
    state="held",
    reason="The reply of the feed pump was lost.",
    next_action="Answer the question.",
)
PICTURES: dict[str, tuple[Picture, tuple[int, int], list[str]]] = {
    "lock": (make_picture(person=None), SMALL, []),
    "home": (
        make_picture(
            make_batch(HOLD, MONITOR, next_action=NEXT),
            HELD.model_copy(update={"batch": "B-2026-015"}),
            connections={"bioreactor": "connected", "pump": "no answer for 41 s"},
        ),
        SMALL,
        ["escape"],
    ),
    "step_value": (
        make_picture(make_batch(RECORD, MONITOR, next_action="Enter the share of CAR-positive cells.")),
        KIOSK,
        [*"12.5"],
    ),
    "question": (make_picture(HELD), SMALL, []),
    "stop": (make_picture(make_batch(SCAN, next_action="Scan the bag.")), SMALL, [*"=W4711", "enter"]),
}


WEIGH = RECORD.model_copy(
    update={"step": "020", "phase": "weigh", "title": "Weigh the salt", "part": "salt.gross", "part_number": 2,
            "parts": 3, "unit": "kg", "low": 2.48, "high": 2.52, "limit_why": "The osmolality follows from it.",
            "text": "Add sodium chloride. Weigh in 2 kg (1.98 to 2.02). Enter what the full container weighs.",
            "why": "The medium must be isotonic.", "next_title": "030 Sample for release"}
)  # fmt: skip
SAMPLE = SCAN.model_copy(
    update={"step": "sampling/daily", "phase": "sample", "title": "Daily sample", "part": "daily", "part_number": 2,
            "parts": 4, "expected": "code beginning with S-", "placeholder": False, "why": "", "next_title": "",
            "text": "OVERDUE: it was due within 2 h. Take it at the port. At least 5 mL of cell culture into a 15 mL "
            "tube. Bring it to the laboratory. Scan the code on its label."}
)  # fmt: skip
LABEL = WEIGH.model_copy(
    update={"step": "040", "phase": "label", "title": "Label the bags", "part": "labels.used", "unit": "1",
            "low": None, "high": None, "limit_why": "", "why": "", "text": "Enter how many labels were used."}
)  # fmt: skip
TRANSFER = SCAN.model_copy(
    update={"step": "050", "phase": "transfer", "title": "Fill the bag", "part": "filled.to", "part_number": 2,
            "parts": 3, "expected": "code beginning with BAG-", "placeholder": False, "why": "",
            "text": "Let the medium run into the bag by gravity. Scan where it goes to.", "next_title": ""}
)  # fmt: skip
CUSTODY = SIGN.model_copy(
    update={"step": "060", "phase": "custody", "title": "Hand over to the freezer", "part": "gives",
            "part_number": 1, "parts": 2, "signers": ("operator", "verifier"), "meaning": "Handed over: twelve bags",
            "text": "Hand the bags over at the hatch in their canister.", "why": ""}
)  # fmt: skip
CLEARANCE = INSTRUCT.model_copy(
    update={"step": "010", "phase": "clearance", "title": "Clear the line", "part": "check 1", "part_number": 1,
            "parts": 5, "text": "1 of 3: No labels of another batch lie about.",
            "why": "A label of another patient kills."}
)  # fmt: skip
DARK = make_batch(
    questions=(QUESTION.model_copy(update={
        "tag": "", "title": "Hold culture temperature", "intent": "Hold culture temperature", "unit": "",
        "reading_before": "", "reading_now": None,
        "why": "Hold culture temperature: the box was off while this step was under way."}),),
    state="held",
    reason="The box was off while this step was under way.",
    next_action="Decide how the step goes on.",
)  # fmt: skip
PICTURES |= {
    "step_weigh": (make_picture(make_batch(WEIGH, next_action="Enter: Weigh the salt")), SMALL, []),
    "step_sample": (make_picture(make_batch(SAMPLE, MONITOR, next_action="Scan: Daily sample")), SMALL, []),
    "step_label": (make_picture(make_batch(LABEL, next_action="Enter: Label the bags")), SMALL, []),
    "step_transfer": (make_picture(make_batch(TRANSFER, next_action="Scan: Fill the bag")), SMALL, []),
    "sign_custody": (make_picture(make_batch(CUSTODY)), SMALL, []),
    "step_clearance": (make_picture(make_batch(CLEARANCE, next_action="Do: Clear the line")), SMALL, []),
    "question_dark": (make_picture(DARK), SMALL, []),
    "alarms": (shown(WARM, DISK), SMALL, ["escape", "f5"]),
    "attachments": (ATTACHED, SMALL, ["f2"]),
}


def refuse(_: Any) -> None:
    raise LinesideError(
        "scan.patient",
        "This bag belongs to another order.",
        effect="Nothing was started.",
        todo="Put the bag into quarantine and call your supervisor.",
    )


@pytest.mark.parametrize("name", PICTURES)
async def test_picture(open_screen: Opener, picture_of: SnapshotAssertion, name: str) -> None:
    picture, size, keys = PICTURES[name]
    async with open_screen(picture, size=size) as screen:
        screen.desk.on = refuse
        await screen.pilot.press(*keys)
        if name.startswith("step_value"):
            await screen.until(lambda: screen.says("draft saved"))
        await screen.at(name.partition("_")[0])
        assert drawn(screen) == picture_of


async def test_the_picture_in_the_readme(open_screen: Opener, request: pytest.FixtureRequest) -> None:
    """`docs/screen.svg`: CART-B1 in the middle of the expansion, the hub away, 12 rows pending."""
    picture = make_picture(make_batch(HOLD, MONITOR, next_action=NEXT))
    async with open_screen(picture, size=(120, 34)) as screen:
        assert screen.says("412 made = 400 received + 12 pending")
        assert screen.says("060 Day 5: CAR-positive cells")
        svg = drawn(screen)
    if request.config.getoption("update_snapshots"):
        README_PICTURE.write_text(svg)
    assert README_PICTURE.read_text() == svg
