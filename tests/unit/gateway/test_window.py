"""The window follows what a gateway can take."""

from __future__ import annotations

import threading
import time

from worker.gateway.window import FEWEST, Window


def taken(window: Window, count: int) -> float:
    """Take so many places; the instant at which the calls were sent."""
    assert all(window.take(0) for _ in range(count))
    return time.monotonic()


def test_it_lets_in_as_many_as_it_has_places() -> None:
    window = Window(4)
    taken(window, 4)
    assert not window.take(0)
    window.give_back()
    assert window.take(0)
    assert not window.take(0.01)


def test_all_that_were_late_together_halve_it_once() -> None:
    window = Window(32)
    sent_at = taken(window, 32)
    for _ in range(20):
        window.late(sent_at)
    assert window.size == 16
    for _ in range(12):
        window.late(sent_at)
    window.late(taken(window, 1))
    assert window.size == 8


def test_it_is_never_closed() -> None:
    window = Window(32)
    for _ in range(10):
        window.late(taken(window, 1))
    assert window.size == FEWEST


def test_answers_in_time_widen_it_up_to_what_it_was() -> None:
    window = Window(8)
    window.late(taken(window, 1))
    answers = 0
    while window.size < 8:
        taken(window, 1)
        window.answered()
        answers += 1
    assert 4 + 5 + 6 + 7 - 4 <= answers <= 4 + 5 + 6 + 7 + 4
    for _ in range(20):
        taken(window, 1)
        window.answered()
    assert window.size == 8


def test_who_waits_gets_the_place_that_comes_free() -> None:
    window = Window(1)
    taken(window, 1)
    got = []
    waiting = threading.Thread(target=lambda: got.append(window.take(5)))
    waiting.start()
    window.answered()
    waiting.join()
    assert got == [True]
