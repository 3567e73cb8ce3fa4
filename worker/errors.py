"""The two kinds of failure that everything here is made of.

The retry policy asks ``isinstance`` of these two and of nothing else (rules.md 44).
"""

from __future__ import annotations

from worker.masking import mask
from worker.printable import paragraph

_MOST_READ = 40_000


class ProvisionerError(Exception):
    """A failure with one sentence for a person: what it is about, what went wrong, what to do. Whatever it
    quotes, the sentence can be stored and shown, and no secret is in it.

    ``reason_code``: what the rows that it stops say of it, for programs: a value of
    `worker.jobs.states.ReasonCode`, None where no program or operator tells it from others.
    """

    reason_code: str | None = None

    def __init__(self, message: str = "", *, reason_code: str | None = None) -> None:
        super().__init__(paragraph(mask(message[:_MOST_READ])))
        if reason_code is not None:
            self.reason_code = reason_code


class TransientError(ProvisionerError):
    """May pass by itself. ``retry_after_s``: how long the other side asked us to wait, in seconds."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(ProvisionerError):
    """Will fail again until somebody changes something."""


def as_sentence(reason: str) -> str:
    """The reason as it is put on record: with a capital letter."""
    return reason[:1].upper() + reason[1:]


def reason_of(error: Exception) -> str:
    """The sentence on record for what ended by this: of a fault of our own, its type and where to look."""
    if isinstance(error, PermanentError):
        return as_sentence(str(error))
    return f"Internal error ({type(error).__name__}): see the worker's log of this job."
