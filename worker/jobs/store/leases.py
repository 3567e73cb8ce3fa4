"""What all claims share: why a row is not claimed, how crashes are counted, and the error of a lost lease."""

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


def count_crash(row: str = "") -> str:
    """SQL: the assignments by which a claim counts a crash if the row still has a lease: its worker died.

    Workers before v0.3.0 count only in ``attempts``, so ``crashes`` is copied from that until the next
    release. ``row``: the row's alias, followed by a dot.
    """
    count = f"{row}attempts + ({row}lease_until IS NOT NULL)::int"
    return f"attempts = {count}, crashes = {count}"
