"""One box, one hub and a bad network in virtual time, everything from one seed; and the bugs it must find."""

import heapq
import random

from edge.core.frame import Receipt
from edge.uplink import Timing, Window

TIMING = Timing(resend_s=2.0, resend_max_s=20.0, idle_s=10.0)


def receipt(stored, *, incarnation="a", wanted=0):
    return Receipt(
        hub="0" * 32,
        incarnation=incarnation * 32,
        device="0" * 32,
        journal="0" * 32,
        epoch="0" * 32,
        stored_seq=stored,
        safe_seq=0,
        head_hash="0" * 64,
        wanted_seq=wanted,
        utc="2026-11-21T10:00:00.000000Z",
    )


class ModelHub:
    """What `hub.store.Store` decides, for one chain without forks (those are tested against the real one)."""

    def __init__(self, incarnation, stored=0):
        self.incarnation = incarnation
        self.stored = stored

    def take(self, first, last):
        if first > self.stored + 1:
            return receipt(self.stored, incarnation=self.incarnation, wanted=self.stored + 1)
        self.stored = max(self.stored, last)
        return receipt(self.stored, incarnation=self.incarnation)


class Run:
    """One box, one hub, a bad network; everything from one seed."""

    def __init__(self, seed, window):
        self.rng = random.Random(seed)
        self.window = window
        self.hub = ModelHub("a")
        self.signed = {"a": 0}
        self.newest = ""
        self.now = 0.0
        self.made = 0
        self.connected = False
        self.bad = True
        self.events = []
        self.count = 0

    def at(self, delay_s, what, *facts):
        self.count += 1
        heapq.heappush(self.events, (self.now + delay_s, self.count, what, facts))

    def carry(self, what, *facts):
        if self.bad and self.rng.random() < 0.15:
            return
        for _ in range(2 if self.bad and self.rng.random() < 0.1 else 1):
            self.at(self.rng.expovariate(20.0) if self.bad else 0.01, what, *facts)

    def jitter(self):
        return self.rng.uniform(0.75, 1.25)

    def step(self):
        while self.connected and self.now >= self.window.due:
            at = self.window.cursor
            self.window.hailed(self.now, self.jitter())
            self.carry("up", at + 1, at)
        while self.connected and (seq := self.window.next_seq(self.made)) is not None:
            last = min(seq + self.rng.randrange(1, 30), self.made)
            self.window.frame_sent(last, self.now, self.jitter())
            self.carry("up", seq, last)

    def happen(self, what, facts):
        match what:
            case "make":
                self.made += self.rng.randrange(1, 40)
            case "connect":
                self.connected = True
                self.window.connected(self.now)
            case "disconnect":
                self.connected = False
                self.window.disconnected()
            case "restore":
                self.hub = ModelHub(chr(ord(self.hub.incarnation) + 1), self.rng.randrange(self.hub.stored + 1))
                self.signed[self.hub.incarnation] = self.hub.stored
            case "up":
                answer = self.hub.take(*facts)
                self.signed[self.hub.incarnation] = max(self.signed[self.hub.incarnation], answer.stored_seq)
                self.carry("down", answer)
            case "down" if self.connected:
                self.window.receipt(facts[0], retained=False, now=self.now, jitter=self.jitter())
        self.newest = max(self.newest, self.window.incarnation[:1])
        signed = self.signed.get(self.newest, 0)
        assert self.window.cursor <= signed, "a row counts as received that the newest known hub has not signed for"
        assert self.window.cursor <= self.made

    def play(self, until_s):
        while self.now < until_s:
            self.step()
            upcoming = [self.window.due if self.connected else until_s, until_s]
            if self.events:
                upcoming.append(self.events[0][0])
            self.now = max(self.now, min(upcoming))
            while self.events and self.events[0][0] <= self.now:
                _, _, what, facts = heapq.heappop(self.events)
                self.happen(what, facts)
                self.step()

    def whole(self):
        self.at(0.1, "connect")
        for _ in range(self.rng.randrange(5, 30)):
            self.at(self.rng.uniform(0, 100), "make")
        for _ in range(self.rng.randrange(4)):
            away = self.rng.uniform(0, 90)
            self.at(away, "disconnect")
            self.at(away + self.rng.uniform(0.1, 10), "connect")
        for _ in range(self.rng.randrange(3)):
            self.at(self.rng.uniform(0, 100), "restore")
        self.play(110)
        self.bad = False
        self.play(self.now + 300)
        assert self.window.cursor == self.made == self.hub.stored, "rows made = rows received + rows pending"


class PubackIsEnough(Window):
    """Planted bug: what the broker took counts as received."""

    def frame_sent(self, last_seq, now, jitter):
        super().frame_sent(last_seq, now, jitter)
        self.cursor = last_seq


class AnyIncarnation(Window):
    """Planted bug: late receipts of a hub that was replaced still count."""

    def receipt(self, receipt, **how):
        self.superseded.clear()
        return super().receipt(receipt, **how)


class NeverAgain(Window):
    """Planted bug: nothing is sent a second time."""

    def _rewind(self, to_seq):
        pass
