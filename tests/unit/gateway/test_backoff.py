"""Backoff and retries within a task: delays, the budget, what is retried, and how it ends (rules.md 45)."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import PermanentError, TransientError
from worker.gateway.backoff import backoff_s, inline_retrying, jittered, retry_delay_s


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
