"""Exponential backoff with jitter, and retries within a task (rules.md 45)."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from worker.errors import TransientError

FIRST_DELAY_S = 0.75
LONGEST_DELAY_S = 30.0
JITTER = 0.2


def backoff_s(failures: int) -> float:
    """Seconds to wait after the given number of consecutive failures (1 for the first): 0.75, 1.5, 3 ... 30.

    Without jitter; `jittered` adds it.
    """
    doublings = min(max(failures, 1) - 1, 16)
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**doublings))


def jittered(delay_s: float) -> float:
    """``delay_s`` plus or minus up to a fifth, so that callers that failed together do not retry together."""
    return delay_s * random.uniform(1 - JITTER, 1 + JITTER)


def retry_delay_s(failures: int, error: BaseException | None) -> float:
    """Seconds to wait before the next try after ``error``, with jitter.

    The delay is the time that the gateway named, or longer; without one, the backoff.
    """
    named_s = error.retry_after_s if isinstance(error, TransientError) else None
    if named_s is None:
        return jittered(backoff_s(failures))
    return max(named_s, FIRST_DELAY_S) * random.uniform(1, 1 + JITTER)


def inline_retrying(
    budget_s: float,
    stop_event: threading.Event | None = None,
    never: tuple[type[TransientError], ...] = (),
    unless: Callable[[TransientError], bool] = lambda _: False,
) -> Retrying:
    """A tenacity policy that retries transient errors for at most ``budget_s`` seconds; make a new one for
    each use.

    Errors of the types in ``never`` and those for which ``unless`` is true are not retried.

    The last error is raised unchanged: a permanent one at once, a transient one when the next wait would
    exceed the budget (the wait is not begun) or when ``stop_event`` ends a wait (SIGTERM).
    """
    last_error: BaseException | None = None

    def is_retried(error: BaseException) -> bool:
        return isinstance(error, TransientError) and not isinstance(error, never) and not unless(error)

    def wait(state: RetryCallState) -> float:
        nonlocal last_error
        last_error = state.outcome.exception() if state.outcome else None
        return retry_delay_s(state.attempt_number, last_error)

    def sleep(seconds: float) -> None:
        if stop_event is None:
            time.sleep(seconds)
        elif stop_event.wait(seconds) and last_error is not None:
            raise last_error

    return Retrying(
        retry=retry_if_exception(is_retried),
        wait=wait,
        stop=stop_before_delay(budget_s),
        sleep=sleep,
        reraise=True,
    )
