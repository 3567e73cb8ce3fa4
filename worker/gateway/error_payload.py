"""Reads the error object of a gateway's answer safely, and notes which call it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.answers import seconds
from worker.masking import mask
from worker.printable import line

_LONGEST_MESSAGE = 2000
_LONGEST_DETAIL = 500
_MOST_ISSUES = 20


@dataclass(frozen=True)
class CallContext:
    """The call that an error answers: the gateway's URL, the method, and the agent and file concerned.

    It never holds a parameter's content, which may be a token (rules.md 29).
    """

    url: str
    method: str
    agent: str | None = None
    file: str | None = None

    @classmethod
    def of(cls, url: str, method: str, params: Mapping[str, Any] | None) -> CallContext:
        """Build the context from a call's parameters."""
        given = params or {}
        agent = _text(given.get("agentId")) or _agent_in(given.get("sessionKey") or given.get("key"))
        file = _text(given.get("name")) if method.startswith("agents.files.") else ""
        return cls(url, method, agent or None, file or None)

    @property
    def gateway(self) -> str:
        return f"the gateway at {self.url}"


class ErrorPayload:
    """The error object of an answer, read safely whatever its shape."""

    def __init__(self, context: CallContext, error: object) -> None:
        fields: Mapping[str, Any] = error if isinstance(error, Mapping) else {}
        details = fields.get("details")
        self.context = context
        self.gateway = context.gateway
        self.method = context.method
        self.details: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
        self.code = _text(fields.get("code"))
        self.message = _text(fields.get("message"), _LONGEST_MESSAGE) or "(no message)"
        self.detail_code = self.detail("code") or self.detail("type")
        retryable = fields.get("retryable")
        self.retryable = retryable if isinstance(retryable, bool) else None
        self.retry_after_s = seconds(fields.get("retryAfterMs"))

    @property
    def fields(self) -> dict[str, Any]:
        """The keyword arguments that every `GatewayError` takes beside its sentence."""
        return {
            "method": self.method,
            "code": self.code or None,
            "details": self.details,
            "retryable": self.retryable,
        }

    def detail(self, name: str) -> str:
        """The detail of that name; "" if it is missing or not text."""
        return _text(self.details.get(name))

    def find(self, pattern: str) -> str | None:
        """The first group of ``pattern`` in the message; None if it does not match."""
        found = re.search(pattern, self.message)
        return found.group(1) if found else None

    @property
    def config_issues(self) -> tuple[tuple[str, str], ...]:
        """(path, message) for each issue of a rejected config, from the details or else from the message."""
        return _listed_issues(self.details.get("issues")) or _written_issues(self.message)


def _text(value: object, most: int = _LONGEST_DETAIL) -> str:
    # Cut long before masking and exactly after it: a secret that the cut breaks would not be recognized.
    return line(mask(value[: 4 * most]), most) if isinstance(value, str) else ""


def _agent_in(session_key: object) -> str:
    parts = _text(session_key).split(":")
    return parts[1] if len(parts) > 2 and parts[0] == "agent" else ""


def _listed_issues(listed: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(
        (_path(issue.get("path")), _text(issue.get("message")) or "(no message)")
        for issue in listed[:_MOST_ISSUES]
        if isinstance(issue, Mapping)
    )


def _path(path: object) -> str:
    if isinstance(path, list | tuple):
        return _text(".".join(str(part) for part in path[:_MOST_ISSUES] if isinstance(part, str | int)))
    return _text(path)


def _written_issues(message: str) -> tuple[tuple[str, str], ...]:
    """The issues in ``invalid config: <path>: <message>; <path>: <message> (+2 more issues)``."""
    _, _, text = message.partition("invalid config:")
    text = re.sub(r"\s*\(\+\d+ more issues?\)\s*$", "", text).strip()
    parts = [part.strip() for part in re.split(r";\s+(?=[\w$<\[][\w.\[\]<>$-]*:\s)", text) if part.strip()]
    issues = []
    for part in parts:
        path, found, rest = part.partition(": ")
        is_path = bool(found) and re.fullmatch(r"[\w$<\[][\w.\[\]<>$-]*", path) is not None
        issues.append((path, rest.strip()) if is_path else ("", part))
    return tuple(issues)
