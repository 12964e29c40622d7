"""The uplink's decisions in virtual time: loss, doubling, reorder, restarts and a restored hub, by seed."""

import pytest
from window_model import TIMING, AnyIncarnation, NeverAgain, PubackIsEnough, Run, receipt

from edge.uplink import FRAMES_UNDER_WAY_MAX, Took, Window


def live(window, stored, now=0.0, **facts):
    return window.receipt(receipt(stored, **facts), retained=False, now=now, jitter=1.0)


def connected(stored=0):
    window = Window()
    window.connected(0.0)
    window.hailed(0.0, 1.0)
    live(window, stored)
    return window


def test_nothing_is_sent_before_the_hub_has_answered():
    window = Window()
    window.connected(0.0)
    assert window.due == 0.0
    assert window.next_seq(10) is None
    window.hailed(0.0, 1.0)
    window.receipt(receipt(4), retained=True, now=0.0, jitter=1.0)
    assert (window.cursor, window.next_seq(10), window.here) == (4, None, False)
    live(window, 4)
    assert (window.next_seq(10), window.here) == (5, True)


def test_frames_under_way_are_bounded_and_a_receipt_makes_room():
    window = connected()
    for n in range(FRAMES_UNDER_WAY_MAX):
        assert window.next_seq(1000) == n * 10 + 1
        window.frame_sent(n * 10 + 10, 0.0, 1.0)
    assert window.next_seq(1000) is None
    assert live(window, 25) is Took.MOVED
    assert (window.cursor, window.next_seq(1000)) == (25, FRAMES_UNDER_WAY_MAX * 10 + 1)


def test_what_is_not_receipted_in_time_is_sent_again_more_and_more_seldom():
    window = connected()
    window.frame_sent(10, 1.0, 1.0)
    waits, now = [], 1.0
    for _ in range(6):
        waits.append(window.due - now)
        now = window.due
        window.hailed(now, 1.0)
        assert window.next_seq(100) is None
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    assert not window.here
    live(window, 0, now)
    assert window.next_seq(100) == 1
    window.frame_sent(10, now, 1.0)
    assert window.due - now == 5.0


def test_late_receipts_are_ignored():
    window = connected()
    live(window, 50)
    assert live(window, 20) is Took.OLDER
    assert window.cursor == 50
    assert live(window, 30, incarnation="b") is Took.REWOUND
    assert (window.cursor, window.next_seq(60)) == (30, 31)
    assert live(window, 50, incarnation="a") is Took.SUPERSEDED
    assert window.cursor == 30


def test_a_hub_that_lost_what_it_signed_for_gets_it_again_and_is_reported():
    window = connected(50)
    assert live(window, 20, wanted=21) is Took.LOST
    assert (window.cursor, window.next_seq(60)) == (50, 21)


def test_a_gap_is_filled_at_once():
    window = connected()
    for last in (10, 20, 30):
        window.frame_sent(last, 0.0, 1.0)
    live(window, 10, wanted=11)
    assert window.next_seq(100) == 11


# Simulation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(300))
def test_every_row_arrives_whatever_the_network_does(seed):
    Run(seed, Window(TIMING)).whole()


@pytest.mark.parametrize("planted", [PubackIsEnough, AnyIncarnation, NeverAgain])
def test_planted_bugs_are_caught(planted):
    def caught(seed):
        try:
            Run(seed, planted(TIMING)).whole()
        except AssertionError:
            return True
        return False

    assert any(caught(seed) for seed in range(300))
