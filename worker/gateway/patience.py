"""How long the work at hand waits for a gateway: until each call's own deadline, or less.

Two things shorten it. Work of which there is much gives up on a gateway that says nothing, so that one that
hangs does not hold the slots that others need. And no failing try outlasts what is left of the budget that
began with the first failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LEAST_S = 0.5
"""A try that is begun gets this much, however little is left."""
_CHANGES_S = 1.0
"""How often a wait looks whether its patience has changed."""


class _Patience:
    """``silence_s()``: None for no limit. The budget runs from the last answer, less what was spent
    before; where the work had been failing for ``failing_s`` when it was taken up, no answer to another call
    makes that whole."""

    def __init__(
        self, silence_s: Callable[[], float | None], budget_s: float | None, failing_s: float
    ) -> None:
        self.silence_s = silence_s
        self.budget_s = budget_s
        self.failing_s = failing_s
        self.spent_s = 0.0
        self.began = self.since = time.monotonic()

    def failing_for_s(self) -> float:
        return time.monotonic() - self.since

    def left_s(self) -> float | None:
        if self.budget_s is None:
            return None
        failing_s = self.failing_s + time.monotonic() - self.began if self.failing_s else 0.0
        return max(_LEAST_S, self.budget_s - max(self.spent_s + self.failing_for_s(), failing_s))


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)


def silence_s() -> float | None:
    """Seconds of silence after which the caller gives up; None: not before the deadline."""
    patience = _patience.get()
    return None if patience is None else patience.silence_s()


def within_budget(deadline_s: float) -> float:
    """``deadline_s``, or what is left of the budget where that is less."""
    patience = _patience.get()
    left_s = patience.left_s() if patience is not None else None
    return deadline_s if left_s is None else min(deadline_s, left_s)


def answered() -> None:
    """The gateway answered: the budget is whole again."""
    patience = _patience.get()
    if patience is not None:
        patience.spent_s, patience.since = 0.0, time.monotonic()


def spent(seconds: float) -> None:
    """The gateway has been failing for ``seconds`` before the work at hand."""
    patience = _patience.get()
    if patience is not None:
        patience.spent_s = max(patience.spent_s, seconds - patience.failing_for_s())


def failing_for_s() -> float:
    """Seconds since the last answer to the work at hand, or since it began."""
    patience = _patience.get()
    return 0.0 if patience is None else patience.failing_for_s()


def has_been_answered() -> bool:
    """Whether the gateway has answered the work at hand at all."""
    patience = _patience.get()
    return patience is not None and patience.since > patience.began


def wait_patiently(
    wait: Callable[[float], bool], deadline: float, heard_at: Callable[[], float] = lambda: float("-inf")
) -> bool:
    """Whether ``wait(seconds)`` came to its end by the deadline, on the monotonic clock, and before the
    patience with a gateway ended that was last heard of at ``heard_at()``. Patience may end meanwhile."""
    since = time.monotonic()
    deadline = since + within_budget(deadline - since)

    def until() -> float:
        limit_s = silence_s()
        return deadline if limit_s is None else min(deadline, max(since, heard_at()) + limit_s)

    while not wait(max(0.0, min(until() - time.monotonic(), _CHANGES_S))):
        # Asked anew: the gateway may have spoken during the wait.
        if time.monotonic() >= until():
            return False
    return True


@contextmanager
def impatient(
    silence_s: Callable[[], float | None] = lambda: None,
    budget_s: float | None = None,
    failing_s: float = 0.0,
) -> Iterator[None]:
    """In this block a call ends with GatewaySilent once the gateway has said nothing for what ``silence_s``
    says at the time (None: no limit), and with CallTimedOut once it has not been answered for ``budget_s``,
    whatever the call's own deadline. ``failing_s``: how long the work has been failing before."""
    token = _patience.set(_Patience(silence_s, budget_s, failing_s))
    try:
        yield
    finally:
        _patience.reset(token)


@contextmanager
def patient() -> Iterator[None]:
    """In this block calls have their own deadlines again: for what must not be broken off in the middle."""
    token = _patience.set(None)
    try:
        yield
    finally:
        _patience.reset(token)
