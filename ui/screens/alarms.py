"""Alarms: what is open, what it does, what to do; and to say that it was seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final
from uuid import uuid4

from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button

from edge.core.people import Permission, permitted
from edge.wire import AcknowledgeAlarm, AlarmLine, Picture
from ui import drawing
from ui.locale import Words
from ui.view import Ask, Choice, Choices, Front, Go, Said, Target, View

COLOURS: Final = {"high": "$error", "medium": "$warning", "low": "$primary"}


def headline(words: Words, alarms: tuple[AlarmLine, ...]) -> Content:
    """How many are open and how many of them nobody has seen, and the one that matters most; empty without any."""
    if not alarms:
        return Content("")
    new, first = sum(one.state != "acknowledged" for one in alarms), alarms[0]
    count = words("alarms.count", count=len(alarms), new=new)
    return Content.assemble((f"▲ {count}  ", "bold"), (f"{words(f'priority.{first.priority}')}: {first.cause}", ""))


class Alarms(View):
    """`#alarm-<n>` for each open alarm; then `#confirm` for the one that was chosen; `#back`, `#home`."""

    place: ClassVar[str] = "alarms"

    def __init__(self, front: Front, alarm: str) -> None:
        super().__init__(front)
        self._alarm = alarm
        self._offered: tuple[str, ...] = ()
        self._raised_seq = 0

    def body(self) -> Iterator[Widget]:
        yield Said("", id="title")
        if self._alarm:
            with Vertical(classes="scroll"):
                yield Said("", id="facts")
        else:
            yield Choices(self.words, of="alarm", per_page=4)

    def actions(self) -> Iterator[Widget]:
        yield Target(self.words("do.home"), id="home", key="escape")
        yield Target(self.words("do.alarms"), id="back", key="f3")
        yield Target(self.words("do.acknowledge"), id="confirm", key="f8", kind="primary")

    async def show(self, picture: Picture) -> None:
        words = self.words
        chosen = next((one for one in picture.alarms if one.alarm == self._alarm), None)
        may = permitted(picture.person.roles if picture.person else (), Permission.ACKNOWLEDGE)
        self.offer("#home", shown=True)
        self.offer("#back", shown=bool(self._alarm))
        self.offer("#confirm", shown=chosen is not None and chosen.state != "acknowledged" and may)
        if self._alarm:
            self._show_one(chosen)
            return
        self.write("#title", Content.assemble((words("alarms.title"), "bold $primary")))
        self.tell_now(words("alarms.next" if picture.alarms else "alarms.none"), "", self._tone(picture.alarms))
        self._offered = tuple(one.alarm for one in picture.alarms)
        await self.query_one(Choices).show([Choice(str(n), self._label(one)) for n, one in enumerate(picture.alarms)])

    def _show_one(self, alarm: AlarmLine | None) -> None:
        words = self.words
        if alarm is None:
            self.write("#title", "")
            self.write("#facts", "")
            self.tell_now(words("alarms.gone"))
            return
        self._raised_seq = alarm.raised_seq
        self.write("#title", self._label(alarm))
        facts = [
            Content.assemble((f"{words(f'alarms.{what}')}  ", "$quiet"), (text, "bold"))
            for what, text in (("effect", alarm.effect), ("todo", alarm.todo))
        ]
        where = "  ".join(part for part in (alarm.batch, alarm.step, alarm.tag, alarm.value) if part)
        since = words("alarms.since", since=drawing.moment(alarm.since_utc), times=alarm.times)
        facts += [Content.assemble((f"{where}\n" if where else "", ""), (since, "$quiet"))]
        self.write("#facts", Content("\n\n").join(facts))
        self.tell_now(alarm.todo, "", self._tone((alarm,)))

    def _label(self, alarm: AlarmLine) -> Content:
        words = self.words
        mark = "✔" if alarm.state == "acknowledged" else "▲"
        return Content.assemble(
            (f"{mark} {words(f'priority.{alarm.priority}')}  ", f"bold {COLOURS[alarm.priority]}"),
            (alarm.cause, "bold"),
            (f"  {words(f'alarm.{alarm.state}')}", "not bold $quiet"),
        )

    @staticmethod
    def _tone(alarms: tuple[AlarmLine, ...]) -> str:
        return "stop" if any(one.state != "acknowledged" and one.priority == "high" for one in alarms) else "wait"

    def on_choices_picked(self, event: Choices.Picked) -> None:
        self.post_message(Go("alarms", choice=self._offered[int(event.name)]))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "home":
            self.post_message(Go("home"))
        elif event.button.id == "back":
            self.post_message(Go("alarms"))
        elif event.button.id == "confirm":
            request = AcknowledgeAlarm(id=uuid4().hex, alarm=self._alarm, raised_seq=self._raised_seq)
            self.post_message(Ask(request, then="alarms"))
