"""The retry policy: waits, the timeout, what is retried, and when it is given up (rules.md 45)."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PermanentError, TransientError
from worker.jobs.retry_policy import (
    GatewayGivenUpError,
    RetryPolicy,
    Snooze,
    backoff_s,
    inline_retrying,
    jittered,
    retry_delay_s,
)

POLICY = RetryPolicy(timeout_s=600, crash_limit=3)
ERROR = TransientError("not now")


def test_backoff_doubles_from_three_quarters_of_a_second_to_thirty() -> None:
    assert [backoff_s(n) for n in range(1, 9)] == [0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 30.0, 30.0]
    assert backoff_s(100_000) == 30.0
    assert backoff_s(0) == 0.75


@given(st.floats(0.01, 30))
def test_jitter_stays_within_a_fifth(delay: float) -> None:
    assert 0.8 * delay <= jittered(delay) <= 1.2 * delay


def test_jitter_differs_from_time_to_time() -> None:
    assert len({jittered(30.0) for _ in range(20)}) > 1


@given(st.integers(1, 50), st.floats(0, 400))
def test_the_delay_is_never_shorter_than_the_time_the_gateway_named(failures: int, named_s: float) -> None:
    waited = retry_delay_s(failures, TransientError("later", retry_after_s=named_s))
    assert max(named_s, 0.75) <= waited <= 1.2 * max(named_s, 0.75)


def test_transient_failure_is_retried_until_it_passes() -> None:
    tries = []

    def work() -> str:
        tries.append(time.monotonic())
        if len(tries) < 2:
            raise TransientError("not yet")
        return "done"

    assert inline_retrying(20)(work) == "done"
    assert tries[1] - tries[0] >= 0.6


@pytest.mark.parametrize("error", [PermanentError("no"), ValueError("bug")])
def test_anything_else_is_raised_at_once(error: Exception) -> None:
    tries = []

    def work() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)) as caught:
        inline_retrying(20)(work)
    assert caught.value is error
    assert tries == [1]


def test_a_wait_that_would_pass_the_budget_is_not_begun() -> None:
    error = TransientError("rate limited", retry_after_s=40)

    def work() -> None:
        raise error

    began = time.monotonic()
    with pytest.raises(TransientError) as caught:
        inline_retrying(20)(work)
    assert caught.value is error
    assert time.monotonic() - began < 20


def test_stop_event_ends_a_wait_at_once_with_the_last_error() -> None:
    stop, waiting = threading.Event(), threading.Event()
    tries = []

    def work() -> None:
        tries.append(1)
        waiting.set()
        raise TransientError("down", retry_after_s=15)

    def stop_when_waiting() -> None:
        waiting.wait(10)
        stop.set()

    stopper = threading.Thread(target=stop_when_waiting)
    stopper.start()
    began = time.monotonic()
    with pytest.raises(TransientError, match="down"):
        inline_retrying(60, stop)(work)
    stopper.join()
    assert time.monotonic() - began < 15
    assert tries == [1]


@pytest.mark.parametrize(("age_s", "wait_s"), [(0, 0.75), (2, 0.75), (4, 1.0), (60, 15.0), (500, 30.0)])
def test_a_failing_step_waits_for_a_quarter_of_its_age(age_s: float, wait_s: float) -> None:
    assert POLICY.wait_at_age(age_s) == wait_s
    snooze = POLICY.after_failure(ERROR, age_s)
    assert 0.8 * wait_s <= (snooze.wait_s or 0) <= 1.2 * wait_s
    assert (snooze.reason, snooze.failing_s) == ("not now", age_s)


def test_no_wait_outlasts_the_timeout_but_the_one_that_a_gateway_asks_for() -> None:
    assert POLICY.after_failure(ERROR, 599).wait_s == pytest.approx(1.0)
    limited = TransientError("rate limited", retry_after_s=40)
    assert POLICY.after_failure(limited, 599).wait_s == 40
    assert POLICY.after_failure(TransientError("later", retry_after_s=900), 599).wait_s == 60
    assert POLICY.after_outage(limited, 590, 30.0, None).wait_s == pytest.approx(10.0)


def test_a_step_that_failed_for_the_whole_timeout_is_given_up() -> None:
    with pytest.raises(PermanentError, match="Given up after 600 seconds: not now"):
        POLICY.after_failure(ERROR, 600)


@pytest.mark.parametrize(("down_for_s", "failing_s"), [(600, None), (3, 600)])
def test_a_gateway_that_was_away_or_broke_off_for_the_whole_timeout_is_given_up(
    down_for_s: float, failing_s: float | None
) -> None:
    with pytest.raises(GatewayGivenUpError, match="unreachable for 10 minutes"):
        POLICY.after_outage(ERROR, down_for_s, 1.0, failing_s)


def test_work_that_kills_workers_is_given_up() -> None:
    POLICY.require_survivable(2, "files")
    with pytest.raises(PermanentError, match="3 workers died while at work on it, in phase files"):
        POLICY.require_survivable(3, "files")


def test_a_snooze_after_an_error_follows_a_failed_try() -> None:
    assert POLICY.after_failure(ERROR, 1).failed
    assert POLICY.after_outage(ERROR, 3, 1.0, None).failed
    assert not Snooze("later", 1.0).failed


def test_an_agent_of_many_waits_longer_for_a_silent_gateway_after_each_failed_try() -> None:
    waits = [POLICY.idle_timeout_after(tries) for tries in range(11)]
    assert waits[:3] == [3.0, 4.5, 6.75]
    assert waits == sorted(waits)
    assert waits[-1] == 20.0
    assert max(waits) < 30  # no task's body takes longer (decisions.md D4)
