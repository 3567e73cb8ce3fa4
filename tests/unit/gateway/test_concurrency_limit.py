"""The limit follows what a gateway can handle."""

from __future__ import annotations

import threading
import time

from worker.gateway.concurrency_limit import LOWEST_LIMIT, ConcurrencyLimit


def taken(limit: ConcurrencyLimit, count: int) -> float:
    """Take ``count`` permits; returns the instant at which the calls were sent."""
    assert all(limit.acquire(0) for _ in range(count))
    return time.monotonic()


def test_no_more_calls_than_the_limit_get_a_permit() -> None:
    limit = ConcurrencyLimit(4)
    taken(limit, 4)
    assert not limit.acquire(0)
    limit.release()
    assert limit.acquire(0)
    assert not limit.acquire(0.01)


def test_calls_that_are_late_together_halve_the_limit_once() -> None:
    limit = ConcurrencyLimit(32)
    sent_at = taken(limit, 32)
    for _ in range(20):
        limit.release_late(sent_at)
    assert limit.current == 16
    for _ in range(12):
        limit.release_late(sent_at)
    limit.release_late(taken(limit, 1))
    assert limit.current == 8


def test_the_limit_never_falls_below_the_lowest() -> None:
    limit = ConcurrencyLimit(32)
    for _ in range(10):
        limit.release_late(taken(limit, 1))
    assert limit.current == LOWEST_LIMIT


def test_answers_in_time_raise_the_limit_to_the_initial_one() -> None:
    limit = ConcurrencyLimit(8)
    limit.release_late(taken(limit, 1))
    answers = 0
    while limit.current < 8:
        taken(limit, 1)
        limit.release_answered()
        answers += 1
    assert 4 + 5 + 6 + 7 - 4 <= answers <= 4 + 5 + 6 + 7 + 4
    for _ in range(20):
        taken(limit, 1)
        limit.release_answered()
    assert limit.current == 8


def test_a_waiting_thread_gets_the_permit_that_becomes_free() -> None:
    limit = ConcurrencyLimit(1)
    taken(limit, 1)
    got = []
    waiting = threading.Thread(target=lambda: got.append(limit.acquire(5)))
    waiting.start()
    limit.release_answered()
    waiting.join()
    assert got == [True]
