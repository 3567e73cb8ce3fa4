"""The webhooks of organizations: added, listed and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.webhooks.addresses import check_url

LONGEST_NAME = 100


class CannotChangeError(PermanentError):
    """A webhook cannot be added or removed; the sentence says why."""


_ADD = text("""
    INSERT INTO provisioner.webhooks (id, organization_id, name, url)
    VALUES (:id, :organization_id, :name, :url) ON CONFLICT DO NOTHING
""")
_LIST = text("""
    SELECT w.id, w.name, w.organization_id, o.name AS organization, w.url, w.failures, w.last_error,
        w.last_success_at, w.last_failure_at, d.waiting, d.delivered, d.given_up
    FROM provisioner.webhooks w
    LEFT JOIN organizations o ON o.id = w.organization_id
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE d.status = 'pending' AND j.finished_at IS NOT NULL) AS waiting,
            count(*) FILTER (WHERE d.status = 'delivered') AS delivered,
            count(*) FILTER (WHERE d.status = 'failed') AS given_up
        FROM provisioner.webhook_deliveries d JOIN provisioner.jobs j ON j.id = d.job_id
        WHERE d.webhook_id = w.id
    ) d
    ORDER BY o.name, w.name
""")
_SCHEDULES = text("""
    SELECT s.id FROM provisioner.sync_schedules s
    JOIN gateways g ON g.id = s.gateway_id
    JOIN provisioner.webhooks w ON w.organization_id = g.organization_id AND w.name = s.options ->> 'webhook'
    WHERE w.id = :id LIMIT 1
""")
_REMOVE = text("DELETE FROM provisioner.webhooks WHERE id = :id")


def add_webhook(connection: Connection, organization_id: UUID, name: str, url: str) -> UUID:
    """Add a webhook and return its id. Raises CannotChangeError, and WebhookUrlError for an unusable URL."""
    name = name.strip()
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise CannotChangeError(f"A webhook's name has 1 to {LONGEST_NAME} printable characters.")
    check_url(url)
    key = uuid4()
    values = {"id": key, "organization_id": organization_id, "name": name, "url": url}
    if not connection.execute(_ADD, values).rowcount:
        raise CannotChangeError(f"The organization has a webhook {name!r} already: remove it first.")
    return key


def all_webhooks(connection: Connection) -> Sequence[Mapping[str, Any]]:
    """All webhooks with how they fare: messages ``waiting``, ``delivered`` and ``given_up``, and the last
    error, which counts while ``failures`` is not 0."""
    return connection.execute(_LIST).mappings().all()  # type: ignore[return-value]


def remove_webhook(connection: Connection, webhook_id: UUID) -> None:
    """Remove a webhook, and with it what it has not been told. Raises CannotChangeError while a schedule
    names it."""
    schedule = connection.execute(_SCHEDULES, {"id": webhook_id}).scalar_one_or_none()
    if schedule is not None:
        raise CannotChangeError(
            f"Schedule {schedule} names the webhook: remove that first, `provisioner schedule remove`."
        )
    connection.execute(_REMOVE, {"id": webhook_id})
