"""Limits how long calls wait for a gateway, in addition to each call's own deadline.

`call_limits` sets two limits for the calls of a block. The idle timeout ends calls to a gateway that sends
nothing, so that a hanging gateway does not hold slots that other gateways' jobs need. The budget is the time
for which calls may go unanswered; once it is used up, they end almost at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_SHORTEST_TRY_S = 0.5
"""A try that has begun gets this long, however little of the budget is left."""
_RECHECK_EVERY_S = 1.0
"""How often a wait checks whether the limits have changed, in seconds."""


class _CallLimits:
    """The limits of one block.

    ``idle_timeout_s()`` returns None for no idle timeout. The budget runs from the last answer, less what had
    been used before. If the work had already been failing for ``failing_s`` when the block began, an answer
    does not restore the budget.
    """

    def __init__(
        self, idle_timeout_s: Callable[[], float | None], budget_s: float | None, failing_s: float
    ) -> None:
        self.idle_timeout_s = idle_timeout_s
        self.budget_s = budget_s
        self.failing_s = failing_s
        self.failed_before_s = 0.0
        self.began_at = self.last_answer_at = time.monotonic()

    def failing_for_s(self) -> float:
        return time.monotonic() - self.last_answer_at

    def left_s(self) -> float | None:
        if self.budget_s is None:
            return None
        failing_s = self.failing_s + time.monotonic() - self.began_at if self.failing_s else 0.0
        return max(
            _SHORTEST_TRY_S, self.budget_s - max(self.failed_before_s + self.failing_for_s(), failing_s)
        )


_limits: ContextVar[_CallLimits | None] = ContextVar("call_limits", default=None)


def idle_timeout_s() -> float | None:
    """The current idle timeout in seconds; None if there is none."""
    limits = _limits.get()
    return None if limits is None else limits.idle_timeout_s()


def within_budget(deadline_s: float) -> float:
    """``deadline_s``, or what is left of the budget if that is less."""
    limits = _limits.get()
    left_s = limits.left_s() if limits is not None else None
    return deadline_s if left_s is None else min(deadline_s, left_s)


def note_answer() -> None:
    """Restore the whole budget, because the gateway answered."""
    limits = _limits.get()
    if limits is not None:
        limits.failed_before_s, limits.last_answer_at = 0.0, time.monotonic()


def note_failing_for(seconds: float) -> None:
    """Charge the budget with ``seconds`` of failing, which may have begun before the block."""
    limits = _limits.get()
    if limits is not None:
        limits.failed_before_s = max(limits.failed_before_s, seconds - limits.failing_for_s())


def failing_for_s() -> float:
    """For how many seconds the gateway has not answered in the current `call_limits` block, counted from the
    block's beginning if it never did; 0 outside such a block."""
    limits = _limits.get()
    return 0.0 if limits is None else limits.failing_for_s()


def has_been_answered() -> bool:
    """Whether the gateway has answered any call of the current `call_limits` block."""
    limits = _limits.get()
    return limits is not None and limits.last_answer_at > limits.began_at


def wait_within_limits(
    wait: Callable[[float], bool], deadline: float, last_frame_at: Callable[[], float] = lambda: float("-inf")
) -> bool:
    """Call ``wait(seconds)`` until it succeeds or a limit passes; returns whether it succeeded.

    ``deadline`` and ``last_frame_at()``, the time when the gateway last sent something, are on the monotonic
    clock. The idle timeout may change during the wait.
    """
    since = time.monotonic()
    deadline = since + within_budget(deadline - since)

    def until() -> float:
        limit_s = idle_timeout_s()
        return deadline if limit_s is None else min(deadline, max(since, last_frame_at()) + limit_s)

    while not wait(max(0.0, min(until() - time.monotonic(), _RECHECK_EVERY_S))):
        # Computed again, as the gateway may have sent something during the wait.
        if time.monotonic() >= until():
            return False
    return True


@contextmanager
def call_limits(
    idle_timeout_s: Callable[[], float | None] = lambda: None,
    budget_s: float | None = None,
    failing_s: float = 0.0,
) -> Iterator[None]:
    """Limit every call in this block, whatever its own deadline.

    A call raises GatewaySilent once the gateway has sent nothing for ``idle_timeout_s()`` seconds (None: no
    limit), and CallTimedOut once no call has been answered for ``budget_s`` seconds. ``failing_s``: for how
    long the work had been failing before.
    """
    token = _limits.set(_CallLimits(idle_timeout_s, budget_s, failing_s))
    try:
        yield
    finally:
        _limits.reset(token)


@contextmanager
def no_call_limits() -> Iterator[None]:
    """Lift the limits in this block, for calls that must not be interrupted.

    Each call keeps its own deadline.
    """
    token = _limits.set(None)
    try:
        yield
    finally:
        _limits.reset(token)
