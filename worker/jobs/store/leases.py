"""Why a claim was not made, and the error of a worker whose lease another one has taken over."""

from __future__ import annotations

from enum import Enum

from worker.errors import TransientError


class LeaseLostError(TransientError):
    """Another worker has claimed the row: this one must not write to it any more."""


class NotClaimed(Enum):
    """Why a message led to no claim."""

    NOTHING_TO_DO = "leased, parked or ended"
    AGENT_BUSY = "another job is at work on the agent"
    NO_SLOT = "its gateway has all the slots that it may have in this process"
