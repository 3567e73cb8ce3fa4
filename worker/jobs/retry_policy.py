"""Decides when failed work is tried again and when it is given up (rules.md 45, decisions.md D6, D7).

A short failure is retried in the slot (`inline_retrying`, with tenacity). After a longer one the row gives
its slot back, and `RetryPolicy` says when it is tried again; it reads no clock, table or gateway.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from worker.errors import PermanentError, TransientError
from worker.jobs.states import ReasonCode, code_of

FIRST_DELAY_S = 0.75
LONGEST_DELAY_S = 30.0
JITTER = 0.2


class GatewayGivenUpError(PermanentError):
    """The gateway was unreachable for the whole retry timeout."""

    reason_code = ReasonCode.GATEWAY_UNREACHABLE


@dataclass(frozen=True)
class Snooze:
    """A row's wait until its next try: the row keeps its agent, but gives its slot back.

    ``reason``: what the row waits for; ``wait_s``: seconds until it is due, None if the handler has already
    parked the row; ``failing_s``: seconds for which its step has been failing, None if it is not; ``code``:
    ``reason`` for programs; ``failed``: this try failed, and the row counts it.
    """

    reason: str
    wait_s: float | None = None
    failing_s: float | None = None
    code: ReasonCode | None = None
    failed: bool = False


@dataclass(frozen=True)
class RetryPolicy:
    """How long failed work waits for its next try, and when it is given up. Waits are in seconds."""

    timeout_s: float
    """RETRY_TIMEOUT_S: a step that has failed for this long, or whose gateway has been unreachable for this
    long, is given up."""
    crash_limit: int
    """CRASH_LIMIT: a row is given up once this many workers have died while they held it."""
    shortest_wait_s: float = FIRST_DELAY_S
    longest_wait_s: float = LONGEST_DELAY_S
    share_of_age: float = 0.25
    """A step waits for this fraction of the time for which it has been failing."""
    requested_wait_s: float = 60.0
    """A wait that a gateway asks for is honoured up to this many seconds even if less is left until the
    timeout: every release resets its rate limits within that time."""
    database_wait_s: float = 2.0
    """Seconds until a row is tried again after the database did not serve a statement."""
    idle_timeout_s: float = 3.0
    """Idle timeout (`worker.gateway.idle_timeout`) for the first try of an agent within a sync."""
    idle_timeout_growth: float = 1.5
    """Factor by which the idle timeout grows with each failed try: a gateway that is busy for longer at a
    time, as 2026.9.6 is with the heartbeats of a hundred agents, would otherwise time out every time."""
    longest_idle_timeout_s: float = 20.0

    def wait_at_age(self, age_s: float) -> float:
        """Seconds until the next try of work that has been failing for ``age_s`` seconds, without jitter."""
        return min(self.longest_wait_s, max(self.shortest_wait_s, age_s * self.share_of_age))

    def after_failure(self, error: TransientError, failing_s: float) -> Snooze:
        """The snooze of a step that has been failing for ``failing_s`` seconds.

        Raises PermanentError once ``failing_s`` reaches the timeout.
        """
        if failing_s >= self.timeout_s:
            raise PermanentError(
                f"Given up after {self.timeout_s:g} seconds: {error}",
                reason_code=ReasonCode.RETRIES_EXHAUSTED,
            )
        left_s = self.timeout_s - failing_s
        return self._snooze(
            error, self.wait_at_age(failing_s), left_s, max(left_s, self.requested_wait_s), failing_s
        )

    def after_outage(
        self, error: TransientError, down_for_s: float, probe_in_s: float, failing_s: float | None
    ) -> Snooze:
        """The snooze of a step whose gateway has been unreachable for ``down_for_s`` seconds and may be
        probed in ``probe_in_s`` seconds.

        ``failing_s``: seconds for which the step has been failing, if the gateway accepts connections and
        then drops them; else None. Raises GatewayGivenUpError once either time reaches the timeout.
        """
        if max(down_for_s, failing_s or 0.0) >= self.timeout_s:
            raise GatewayGivenUpError(self.unreachable(str(error)))
        left_s = self.timeout_s - down_for_s
        return self._snooze(error, probe_in_s, left_s, left_s, failing_s)

    def unreachable(self, last_error: str) -> str:
        """The error of a job whose gateway was unreachable for the whole timeout."""
        minutes = self.timeout_s / 60
        time = f"{minutes:g} minutes" if minutes >= 1 else f"{self.timeout_s:g} seconds"
        return f"The gateway was unreachable for {time}. Last error: {last_error}"

    def require_survivable(self, crashes: int, phase: str | None) -> None:
        """Raise PermanentError if ``crash_limit`` workers or more died while they held the row."""
        if crashes >= self.crash_limit:
            raise PermanentError(
                f"Given up: {crashes} workers died while at work on it, in phase {phase}.",
                reason_code=ReasonCode.WORKER_CRASHES,
            )

    def idle_timeout_after(self, tries: int) -> float:
        """Idle timeout, in seconds, for an agent within a sync after that many failed tries."""
        grown = self.idle_timeout_s * self.idle_timeout_growth ** min(tries, 10)
        return float(min(self.longest_idle_timeout_s, grown))

    @staticmethod
    def _snooze(
        error: TransientError, wait_s: float, left_s: float, most_s: float, failing_s: float | None
    ) -> Snooze:
        requested_s = min(error.retry_after_s or 0.0, most_s)
        wait_s = max(0.1, min(jittered(wait_s), left_s), requested_s)
        return Snooze(str(error), wait_s, failing_s, code=code_of(error), failed=True)


def backoff_s(failures: int) -> float:
    """Seconds to wait after the given number of consecutive failures (1 for the first): 0.75, 1.5, 3 ... 30.

    Without jitter; `jittered` adds it.
    """
    doublings = min(max(failures, 1) - 1, 16)
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**doublings))


def jittered(delay_s: float) -> float:
    """``delay_s`` plus or minus up to 20 %, so that callers that failed together do not retry together."""
    return delay_s * random.uniform(1 - JITTER, 1 + JITTER)


def retry_delay_s(failures: int, error: BaseException | None) -> float:
    """Seconds to wait before the next try after ``error``, with jitter.

    The delay is the time that the gateway asked for, or slightly longer; if it asked for none, the backoff.
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
    """A tenacity policy that retries transient errors for at most ``budget_s`` seconds.

    Make a new one for each use. Errors of the types in ``never`` and those for which ``unless`` is true are
    not retried.

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
