"""What a webhook is sent: the message as JSON, and its headers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from worker.jobs.store.webhooks import Delivery
from worker.webhooks.signatures import secret_of, signed_headers

Message = Mapping[str, Any]
_NOT_SENT = {"job_id", "attempts", "finished_at"}


def end_of_job(delivery: Delivery) -> Message:
    """What ended, and how. It holds no sentence and no result: those are in the job's row."""
    data = {name: _as_json(value) for name, value in vars(delivery).items() if name not in _NOT_SENT}
    return {
        "type": "job.ended",
        "timestamp": delivery.finished_at.astimezone(UTC).isoformat(),
        "data": {"id": str(delivery.job_id), **data},
    }


def test_message(webhook_id: UUID) -> Message:
    """The message of `provisioner webhook test`."""
    now = datetime.now(UTC).isoformat()
    return {"type": "webhook.test", "timestamp": now, "data": {"webhook_id": str(webhook_id)}}


def encode(message: Message) -> bytes:
    """The body that is signed and sent."""
    return json.dumps(message, separators=(",", ":")).encode()


def message_headers(keys: Sequence[str], webhook_id: UUID, message_id: str, body: bytes) -> Mapping[str, str]:
    """All headers of a message, signed now with the webhook's secret of each key."""
    secrets = [secret_of(key, webhook_id) for key in keys]
    return {
        "Content-Type": "application/json",
        **signed_headers(secrets, message_id, int(time.time()), body),
    }


def _as_json(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
