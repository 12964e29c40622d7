"""What is attached to a step, on the screen: texts are read, of others it is said where they open."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from edge.wire import AttachmentLine, ReadAttachment
from tests.ui.conftest import Opener
from tests.ui.scripted import INSTRUCT, make_batch, make_picture

TEXT = "\n".join(f"{n}. Look at place {n}." for n in range(1, 60)).encode()
LINES = (
    AttachmentLine(file="clearing.txt", sha256=hashlib.sha256(TEXT).hexdigest(), title="How to clear"),
    AttachmentLine(file="bench.png", sha256="ab" * 32, title="The bench"),
)
PICTURE = make_picture(make_batch(INSTRUCT.model_copy(update={"attachments": LINES})))


async def test_a_text_is_read_page_by_page_and_of_a_picture_it_is_said_where(open_screen: Opener) -> None:
    async with open_screen(PICTURE) as screen:
        data = [TEXT]

        def parts(request: Any) -> dict[str, Any] | None:
            if not isinstance(request, ReadAttachment):
                return None
            part = data[0][request.offset : request.offset + 400]
            return {"data": base64.b64encode(part).decode(), "size": len(data[0])}

        screen.desk.facts = parts
        await screen.at("step")
        await screen.click("#attachments")
        await screen.at("attachments")
        assert screen.says("How to clear")
        await screen.click("#attachment-0")
        await screen.until(lambda: screen.says("1. Look at place 1."))
        assert not screen.says("59. Look")
        assert all(target.outer_size.height >= 3 for target in screen.app.query("Target") if target.display)
        for _ in range(8):
            await screen.click("#down")
        await screen.until(lambda: screen.says("59. Look at place 59."))
        await screen.click("#back")
        await screen.click("#attachment-1")
        await screen.until(lambda: screen.says("A picture (PNG)"))
        assert screen.says("lineside recipe attachment abababababababab --out bench.png")
        await screen.click("#back")
        await screen.until(lambda: screen.shows("#attachment-0"))
        await screen.click("#back")
        await screen.at("step")


async def test_a_text_that_is_not_what_the_recipe_names_is_not_shown(open_screen: Opener) -> None:
    async with open_screen(PICTURE) as screen:
        other = base64.b64encode(b"Drink it.").decode()
        screen.desk.facts = lambda request: {"data": other, "size": 9} if isinstance(request, ReadAttachment) else None
        await screen.click("#attachments")
        await screen.click("#attachment-0")
        await screen.until(lambda: screen.says("is not what the recipe names"))
        assert not screen.says("Drink it.")
