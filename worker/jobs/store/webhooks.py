"""Which webhooks are called when jobs end, and the deliveries to them (decisions.md D17).

A job names a webhook of its organization. The delivery is written with the job, or when a worker first looks
at the job's row, and is due once the job has ended. One worker at a time sends to a webhook: ``not_before``
of the webhook is its lease, and after a failure the time until the next attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text

from worker.jobs.requests import BadRequestError, Request
from worker.masking.columns import MaskedText
from worker.printable import storable

_FIND = text("""
    SELECT o.organization_id, w.id AS webhook_id
    FROM (
        SELECT coalesce(
            (SELECT organization_id FROM gateways WHERE id = coalesce(
                (SELECT gateway_id FROM agents WHERE id = :agent_id), CAST(:gateway_id AS uuid))),
            (SELECT organization_id FROM boards WHERE id = :board_id)) AS organization_id
    ) o
    LEFT JOIN provisioner.webhooks w ON w.organization_id = o.organization_id AND w.name = :name
""")
_EXPECT = text("""
    INSERT INTO provisioner.webhook_deliveries (job_id, webhook_id) VALUES (:job_id, :webhook_id)
    ON CONFLICT DO NOTHING
""")
_PLACES = ("agent_id", "board_id", "gateway_id")


def webhook_of(connection: Connection, request: Request) -> UUID | None:
    """The id of the webhook that the request names; None, without an SQL statement, if it names none.

    Raises BadRequestError if the organization of the request's target has no such webhook.
    """
    if request.webhook is None:
        return None
    places = {name: getattr(request, name, None) for name in _PLACES}
    row = connection.execute(_FIND, {**places, "name": request.webhook}).one()
    if row.organization_id is None:
        also = ", or give gateway_id" if request.target == "agent_id" else ""
        raise BadRequestError(
            f"webhook: the organization whose {request.webhook!r} is meant is not known: check"
            f" {request.target}{also}."
        )
    if row.webhook_id is None:
        raise BadRequestError(
            f"webhook: there is no webhook {request.webhook!r} in the organization of this job's"
            f" {request.target.removesuffix('_id')}: `provisioner webhook list` shows those there are."
        )
    found: UUID = row.webhook_id
    return found


def expect_delivery(connection: Connection, job_id: UUID, webhook_id: UUID | None) -> None:
    """Record that the webhook must be called when the job ends. Does nothing if ``webhook_id`` is None or the
    delivery is already recorded."""
    if webhook_id is not None:
        connection.execute(_EXPECT, {"job_id": job_id, "webhook_id": webhook_id})


def deliver_anyway(connection: Connection, job_id: UUID, arguments: Mapping[str, Any]) -> None:
    """Record the delivery for a job that ended before a worker started it, if ``arguments`` name a webhook
    and also a target whose organization has that webhook."""
    name = arguments.get("webhook")
    if not isinstance(name, str) or storable(name) != name:
        return
    places: dict[str, UUID | None] = dict.fromkeys(_PLACES)
    for place in _PLACES:
        with suppress(ValueError):
            places[place] = UUID(str(arguments.get(place)))
    row = connection.execute(_FIND, {**places, "name": name}).one()
    expect_delivery(connection, job_id, row.webhook_id)


@dataclass(frozen=True)
class ClaimedWebhook:
    """A webhook that this worker has claimed: until the claim ends, no other worker sends to it."""

    id: UUID
    name: str
    url: str


@dataclass(frozen=True)
class Delivery:
    """An ended job about which a webhook must be told. ``attempts``: how many attempts have failed."""

    job_id: UUID
    attempts: int
    kind: str
    status: str
    reason_code: str | None
    request_id: str | None
    parent_job_id: UUID | None
    organization_id: UUID
    gateway_id: UUID | None
    board_id: UUID | None
    agent_id: UUID | None
    finished_at: datetime


_DUE = """
    FROM provisioner.webhook_deliveries d JOIN provisioner.jobs j ON j.id = d.job_id
    WHERE d.webhook_id = {webhook} AND d.status = 'pending' AND d.next_attempt_at <= now()
      AND j.finished_at IS NOT NULL
"""
_CLAIM = text(f"""
    WITH free AS (
        SELECT id FROM provisioner.webhooks w
        WHERE not_before <= now() AND EXISTS (SELECT {_DUE.format(webhook="w.id")})
        ORDER BY not_before LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE provisioner.webhooks w SET not_before = now() + make_interval(secs => :lease_s)
    FROM free WHERE w.id = free.id
    RETURNING w.id, w.name, w.url
""")
_NEXT = text(f"""
    SELECT d.job_id, d.attempts, j.kind, j.status, j.reason_code, j.request_id, j.parent_job_id,
        (SELECT organization_id FROM provisioner.webhooks WHERE id = :webhook_id) AS organization_id,
        j.gateway_id, j.board_id, j.agent_id, j.finished_at
    {_DUE.format(webhook=":webhook_id")} ORDER BY d.next_attempt_at LIMIT 1
""")
_RELEASE = text("UPDATE provisioner.webhooks SET not_before = now() WHERE id = :webhook_id")
_DELIVERED = text("""
    WITH settled AS (
        UPDATE provisioner.webhook_deliveries
        SET status = 'delivered', attempts = attempts + 1, answer = :answer, error = NULL,
            next_attempt_at = NULL, finished_at = now()
        WHERE job_id = :job_id
    )
    UPDATE provisioner.webhooks
    SET failures = 0, last_success_at = now(), not_before = now() + make_interval(secs => :lease_s)
    WHERE id = :webhook_id
""")
_FAILED = text("""
    WITH noted AS (
        UPDATE provisioner.webhook_deliveries
        SET attempts = attempts + 1, answer = :answer, error = :error,
            status = CASE WHEN CAST(:again_s AS float) IS NULL THEN 'failed' ELSE 'pending' END,
            next_attempt_at = now() + make_interval(secs => :again_s),
            finished_at = CASE WHEN CAST(:again_s AS float) IS NULL THEN now() END
        WHERE job_id = :job_id
    )
    UPDATE provisioner.webhooks
    SET failures = failures + 1, last_failure_at = now(), last_error = :error,
        not_before = now() + make_interval(secs => :pause_s * power(2, least(failures, 6)))
    WHERE id = :webhook_id
""").bindparams(bindparam("error", type_=MaskedText))


def claim_webhooks(connection: Connection, most: int, *, lease_s: float) -> list[ClaimedWebhook]:
    """Claim for ``lease_s`` seconds at most ``most`` webhooks for which deliveries are due."""
    rows = connection.execute(_CLAIM, {"most": most, "lease_s": lease_s})
    return [ClaimedWebhook(**row._mapping) for row in rows]


def next_delivery(connection: Connection, webhook_id: UUID) -> Delivery | None:
    """Return the delivery to the webhook that has been due for longest. If none is due, release the webhook
    and return None."""
    row = connection.execute(_NEXT, {"webhook_id": webhook_id}).one_or_none()
    if row is None:
        release_webhook(connection, webhook_id)
        return None
    return Delivery(**row._mapping)


def release_webhook(connection: Connection, webhook_id: UUID) -> None:
    """End the claim on the webhook, so that any worker may claim it at once."""
    connection.execute(_RELEASE, {"webhook_id": webhook_id})


def note_delivered(
    connection: Connection, webhook_id: UUID, job_id: UUID, answer: int, *, lease_s: float
) -> None:
    """Record that a delivery succeeded, and keep the claim on the webhook for another ``lease_s`` seconds."""
    values = {"webhook_id": webhook_id, "job_id": job_id, "answer": answer, "lease_s": lease_s}
    connection.execute(_DELIVERED, values)


def note_failed(
    connection: Connection,
    webhook_id: UUID,
    job_id: UUID,
    error: str,
    answer: int | None,
    *,
    again_s: float | None,
    pause_s: float,
) -> None:
    """Record that an attempt failed, and end the claim on the webhook.

    ``again_s``: seconds until this delivery is tried again, None to give it up; ``pause_s``: seconds for
    which nothing is sent to the webhook; each further failure in a row doubles them, up to 64 times as many.
    """
    values = {"webhook_id": webhook_id, "job_id": job_id, "error": error, "answer": answer}
    connection.execute(_FAILED, {**values, "again_s": again_s, "pause_s": pause_s})


_RETRY = text("""
    UPDATE provisioner.webhook_deliveries
    SET status = 'pending', attempts = 0, next_attempt_at = now(), finished_at = NULL
    WHERE webhook_id = :id AND status = 'failed'
""")
_TRY_NOW = text("UPDATE provisioner.webhooks SET failures = 0, not_before = now() WHERE id = :id")


def retry_given_up(connection: Connection, webhook_id: UUID) -> int:
    """Make the deliveries to the webhook that were given up on due again, and end its pause; return how many
    there were."""
    count = connection.execute(_RETRY, {"id": webhook_id}).rowcount
    connection.execute(_TRY_NOW, {"id": webhook_id})
    return count
