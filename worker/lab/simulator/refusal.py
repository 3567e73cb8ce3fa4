"""The error with which the simulated gateway refuses a request."""

from __future__ import annotations

from typing import Any

JSON = dict[str, Any]


class Refusal(Exception):
    """An error answer: ``code`` and ``message`` as a gateway words them (gateways.md 3).

    ``payload`` is sent beside the error if a release sends both (a chat run that failed).
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "INVALID_REQUEST",
        details: JSON | None = None,
        retryable: bool = False,
        retry_after_ms: int | None = None,
        payload: JSON | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = details
        self.retryable = retryable or retry_after_ms is not None
        self.retry_after_ms = retry_after_ms
        self.payload = payload

    def as_error(self) -> JSON:
        """The ``error`` object of a response frame."""
        error: JSON = {"code": self.code, "message": self.message}
        if self.retryable:
            error["retryable"] = True
        if self.retry_after_ms is not None:
            error["retryAfterMs"] = self.retry_after_ms
        if self.details is not None:
            error["details"] = self.details
        return error
