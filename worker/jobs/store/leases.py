"""What is said of a claim: why there was none, and that a lease is another worker's by now."""

from __future__ import annotations

from enum import Enum

from worker.errors import TransientError


class LeaseLostError(TransientError):
    """Another worker has the row by now: nothing of this one's may be written."""


class NotClaimed(Enum):
    """Why a message led to nothing."""

    NOTHING_TO_DO = "leased, parked or ended"
    AGENT_BUSY = "another job is at work on the agent"
    NO_SEAT = "its gateway has all the slots that it may have in this process"
