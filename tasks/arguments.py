"""Reads the ids in messages that only our own workers send; unusable ones are refused with a sentence."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from celery import Task

from tasks.outcomes import JobFailed

log = logging.getLogger(__name__)


def ids_of(
    task: Task[..., Any], positional: Sequence[Any], arguments: Mapping[str, Any], *names: str
) -> list[UUID]:
    """The UUIDs that the message carries under ``names``.

    Raises JobFailed if one is missing or malformed, or if there are positional arguments: no row records such
    a message.
    """
    faults = ["send keyword arguments, not positional ones"] if positional else []
    found: list[UUID] = []
    for name in names:
        given = arguments.get(name)
        try:
            found.append(UUID(given))
        except (TypeError, ValueError, AttributeError):
            shown = repr(given) if isinstance(given, str) else type(given).__name__
            wrong = f"{name} must be a UUID, not {shown[:60]}"
            faults.append(wrong if name in arguments else f"{name} is missing")
    if faults:
        reason = f"{task.name}: {'; '.join(faults)}."
        log.warning("dropped a message that nobody of ours sent: %s", reason)
        raise JobFailed(reason)
    return found


def uuid_or_none(given: object) -> UUID | None:
    """The UUID that a message carries, or None."""
    try:
        return UUID(str(given))
    except ValueError:
        return None
