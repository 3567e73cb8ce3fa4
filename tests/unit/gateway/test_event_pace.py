"""A gateway that floods us with events is read as slowly as the limit says."""

from __future__ import annotations

import pytest

from worker.gateway.event_pace import BURST, EVENTS_A_SECOND, EventPace


def test_a_flood_is_read_at_the_limit() -> None:
    now, count = 100.0, 10_000
    pace = EventPace(now)
    for _ in range(count):
        now += pace.pause_s(now)
    assert now - 100.0 == pytest.approx((count - BURST) / EVENTS_A_SECOND)


def test_events_at_a_usual_rate_and_in_bursts_are_never_waited_for() -> None:
    pace = EventPace(0.0)
    assert [pace.pause_s(0.0) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert all(pace.pause_s(second + 1.0) == 0.0 for second in range(10))


def test_after_a_quiet_time_a_burst_is_free_again_and_no_more_than_one() -> None:
    pace = EventPace(0.0)
    for _ in range(int(BURST)):
        pace.pause_s(0.0)
    assert pace.pause_s(0.0) > 0.0
    assert [pace.pause_s(1000.0) for _ in range(int(BURST))] == [0.0] * int(BURST)
    assert pace.pause_s(1000.0) > 0.0
