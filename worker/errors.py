"""The base classes of all our errors: a failure is transient or permanent.

The retry policy tests ``isinstance`` against these two only (rules.md 44).
"""

from __future__ import annotations

from worker.masking import mask
from worker.printable import paragraph

_MOST_READ = 40_000


class ProvisionerError(Exception):
    """A failure with one sentence for a person: what it is about, what went wrong, what to do.

    The sentence can always be stored and shown: secrets in it are masked. ``reason_code``: a value of
    `worker.jobs.states.ReasonCode`, recorded for programs in the rows that the failure stops; None if neither
    a program nor an operator needs to tell it from other failures of its class.
    """

    reason_code: str | None = None

    def __init__(self, message: str = "", *, reason_code: str | None = None) -> None:
        super().__init__(paragraph(mask(message[:_MOST_READ])))
        if reason_code is not None:
            self.reason_code = reason_code


class TransientError(ProvisionerError):
    """The failure may pass. ``retry_after_s``: the seconds that the other side asked us to wait, if any."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PermanentError(ProvisionerError):
    """The same work will fail again until a person changes something."""


def as_sentence(reason: str) -> str:
    """``reason`` with its first letter capitalized, the form in which reasons are recorded."""
    return reason[:1].upper() + reason[1:]


def reason_of(error: Exception) -> str:
    """The sentence recorded for work that ``error`` ended.

    That is a PermanentError's own sentence. Any other error is a fault of ours, whose sentence gives its type
    and says where to look.
    """
    if isinstance(error, PermanentError):
        return as_sentence(str(error))
    return f"Internal error ({type(error).__name__}): see the worker's log of this job."
