"""Writes and reads a job's own row: enqueue, refuse, read, and end it where no agent's row ends it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.kinds import KINDS, ONE_AGENT_KINDS, target_of_kind
from worker.jobs.requests import LONGEST_NAME, BadRequestError, Request, read_options
from worker.jobs.states import OPEN_STATUSES, ReasonCode
from worker.jobs.store.publishing import REPUBLISH_AFTER_S
from worker.jobs.store.webhooks import deliver_anyway, expect_delivery, webhook_of
from worker.masking.columns import MaskedJson, MaskedText

_NAMES_ON_RECORD = 100
"""How many argument names of a refused request are recorded."""


class RequestConflictError(Exception):
    """The request_id was used before with other options; the message names the job that has it."""


_ENQUEUE = text("""
    INSERT INTO provisioner.jobs
        (id, kind, request_id, requested_by, agent_id, board_id, gateway_id, parent_job_id, options, webhook,
         published_at, next_attempt_at)
    VALUES (:id, :kind, :request_id, :requested_by, :agent_id, :board_id, :gateway_id, :parent, :options,
            :webhook, CASE WHEN :published THEN now() END,
            CASE WHEN :published THEN now() + make_interval(secs => :republish_s) ELSE now() END)
    ON CONFLICT DO NOTHING
""").bindparams(bindparam("options", type_=JSONB), bindparam("requested_by", type_=MaskedText))
_SAME_REQUEST = text("""
    SELECT id, CAST(options AS text) AS options, webhook FROM provisioner.jobs
    WHERE request_id = :request_id AND kind = :kind AND coalesce(agent_id, board_id, gateway_id) = :target
""")


@dataclass(frozen=True)
class Enqueued:
    """The job that serves a request. ``created``: false if the job existed before."""

    job_id: UUID
    created: bool


def enqueue(
    connection: Connection,
    request: Request,
    *,
    job_id: UUID | None = None,
    parent: UUID | None = None,
    published: bool = False,
) -> Enqueued:
    """Store the request as a queued job, or find the job that an equal request with its request_id created.

    ``published``: a message for the job was already sent or received. Raises RequestConflictError if the
    request_id was used for the same target with other options, and BadRequestError if the request names a
    webhook that does not exist.
    """
    key = job_id or uuid4()
    values = request.places()
    webhook_id = webhook_of(connection, request)
    inserted = connection.execute(
        _ENQUEUE,
        {
            **values,
            "id": key,
            "kind": request.kind,
            "request_id": request.request_id,
            "requested_by": request.requested_by,
            "parent": parent,
            "options": request.options(),
            "webhook": request.webhook,
            "published": published,
            "republish_s": REPUBLISH_AFTER_S,
        },
    ).rowcount
    if inserted:
        expect_delivery(connection, key, webhook_id)
    if inserted or request.request_id is None:
        return Enqueued(key, bool(inserted))
    same = connection.execute(
        _SAME_REQUEST,
        {
            "request_id": request.request_id,
            "kind": request.kind,
            "target": next(place for place in values.values() if place is not None),
        },
    ).one_or_none()
    if same is None or same.id == key:
        return Enqueued(key, False)
    if same.webhook != request.webhook or not _asks_for(same.options, request):
        raise RequestConflictError(
            f"request_id {request.request_id!r} was used before, with other options, by job {same.id}:"
            " send a new request_id."
        )
    return Enqueued(same.id, False)


def _asks_for(written: str, request: Request) -> bool:
    """Whether a row's options are the request's, with the defaults of those that the row leaves out."""
    try:
        options = read_options(written)
    except BadRequestError:
        return False
    given = request.options()
    return {**given, **(options if isinstance(options, dict) else {})} == given


_RECORD_REFUSAL = text("""
    INSERT INTO provisioner.jobs
        (id, kind, status, request_id, requested_by, webhook, options, error, reason_code, next_attempt_at,
         finished_at)
    VALUES (:id, :kind, 'failed', :request_id, :requested_by, :webhook, :options, :error, :code, NULL,
            now())
    ON CONFLICT (id) DO UPDATE SET status = 'failed', error = excluded.error,
        reason_code = excluded.reason_code, next_attempt_at = NULL, published_at = NULL,
        updated_at = now(), finished_at = now()
    WHERE jobs.status = 'queued'
""").bindparams(
    bindparam("options", type_=JSONB),
    bindparam("error", type_=MaskedText),
    bindparam("requested_by", type_=MaskedText),
)
_RELEASE_AGENT = text("""
    UPDATE agents SET status = 'offline', provision_action = NULL, updated_at = now() AT TIME ZONE 'utc'
    WHERE id = :agent_id AND status IN ('provisioning', 'updating', 'deleting')
      AND NOT EXISTS (SELECT FROM provisioner.job_agents WHERE agent_id = :agent_id AND status = 'running')
      AND NOT EXISTS (SELECT FROM provisioner.jobs WHERE agent_id = :agent_id AND status = 'queued')
""")


def release_agent(connection: Connection, kind: str, agent_id: object) -> None:
    """Set an agent's status from provisioning, updating or deleting to offline, because its job ended without
    having started (rules.md 38). Does nothing while another job holds the agent or is queued for it."""
    if kind not in ONE_AGENT_KINDS or agent_id is None:
        return
    with suppress(ValueError):
        connection.execute(_RELEASE_AGENT, {"agent_id": UUID(str(agent_id))})


def refuse(
    connection: Connection,
    job_id: UUID,
    kind: str,
    error: str,
    arguments: Mapping[str, Any],
    *,
    code: ReasonCode = ReasonCode.REFUSED_REQUEST,
) -> None:
    """Record a request that cannot be served as a failed job.

    A new row keeps the request_id, by which the caller may look for the job, but gets no target, so that the
    corrected request can use the same request_id.
    """
    names = sorted(_printable(name)[:LONGEST_NAME] for name in islice(arguments, _NAMES_ON_RECORD))
    connection.execute(
        _RECORD_REFUSAL,
        {
            "id": job_id,
            "kind": kind,
            **{name: _text_argument(arguments, name) for name in ("request_id", "requested_by", "webhook")},
            "options": {"arguments": names},
            "error": _printable(error),
            "code": code,
        },
    )
    release_agent(connection, kind, arguments.get("agent_id"))
    deliver_anyway(connection, job_id, arguments)


def _text_argument(arguments: Mapping[str, Any], name: str) -> str | None:
    given = arguments.get(name)
    return _printable(given) if isinstance(given, str) and len(given) <= LONGEST_NAME else None


def _printable(given: str) -> str:
    """The text without what Postgres cannot store, which may be why the request was refused."""
    return given.encode(errors="replace").decode().replace("\x00", "")


@dataclass(frozen=True)
class StoredJob:
    """A job's row as stored. ``agent_id``: the agent of its row in ``job_agents``, for a job about one agent
    that has started; ``named``: the request_id, the requester and the target that the caller named."""

    kind: str
    status: str
    agent_id: UUID | None
    gateway_id: UUID | None
    named: Mapping[str, Any]
    written_options: str | None

    @property
    def options(self) -> Any:
        """The options as the caller wrote them. Raises BadRequestError if they cannot be read."""
        try:
            return read_options(self.written_options)
        except BadRequestError as error:
            raise BadRequestError(f"tasks.{self.kind}: {error}") from None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """All arguments of the request. Raises BadRequestError as ``options`` does."""
        options = self.options
        return {**(options if isinstance(options, dict) else {"options": options}), **self.named}


_STORED = text("""
    SELECT kind, status, CAST(options AS text) AS options, request_id, requested_by, webhook, agent_id,
        board_id, gateway_id,
        (SELECT r.agent_id FROM provisioner.job_agents r WHERE r.job_id = jobs.id LIMIT 1) AS row_agent_id
    FROM provisioner.jobs WHERE id = :id
""")


def stored_job(connection: Connection, job_id: UUID) -> StoredJob | None:
    """The job's row, or None if the job has none yet."""
    row = connection.execute(_STORED, {"id": job_id}).one_or_none()
    if row is None:
        return None
    named = {"request_id": row.request_id, "requested_by": row.requested_by}
    if row.webhook is not None:
        named["webhook"] = row.webhook
    target = target_of_kind(row.kind)
    if getattr(row, target) is not None:
        named[target] = getattr(row, target)
    kind = KINDS.get(row.kind)
    for column in kind.request.beside_target if kind is not None else ():
        if getattr(row, column) is not None:
            named[column] = getattr(row, column)
    return StoredJob(row.kind, row.status, row.row_agent_id, row.gateway_id, named, row.options)


_MOVE = text("UPDATE provisioner.jobs SET gateway_id = :gateway_id WHERE id = :job_id")


def move_job(connection: Connection, job_id: UUID, gateway_id: UUID) -> None:
    """Record that the job's agent has moved to another gateway since the request."""
    connection.execute(_MOVE, {"job_id": job_id, "gateway_id": gateway_id})


_FINISH_QUEUED = text("""
    UPDATE provisioner.jobs
    SET status = 'succeeded', phase = 'ended', result = :result, started_at = now(), finished_at = now(),
        updated_at = now(), next_attempt_at = NULL, published_at = NULL
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("result", type_=MaskedJson))


def finish_queued(connection: Connection, job_id: UUID, result: Mapping[str, Any]) -> None:
    """End a queued job as succeeded, because this same transaction did its work."""
    connection.execute(_FINISH_QUEUED, {"job_id": job_id, "result": dict(result)})


_ENDING = text("SELECT status, error FROM provisioner.jobs WHERE id = :job_id")


def ending_of(connection: Connection, job_id: UUID) -> tuple[str, str | None] | None:
    """Status and error of a job that has ended; None while it is open."""
    row = connection.execute(_ENDING, {"job_id": job_id}).one()
    return None if row.status in OPEN_STATUSES else (row.status, row.error)


def requester_of(connection: Connection, job_id: UUID) -> str | None:
    """Who asked for the job, as far as the request says."""
    asked: str | None = connection.execute(_REQUESTER, {"job_id": job_id}).scalar_one_or_none()
    return asked


_REQUESTER = text("SELECT requested_by FROM provisioner.jobs WHERE id = :job_id")
_OPEN_JOB = text("""
    SELECT id FROM provisioner.jobs
    WHERE agent_id = :agent_id AND kind = :kind AND status IN ('queued', 'running')
    ORDER BY created_at LIMIT 1
""")


def open_job_of(connection: Connection, agent_id: UUID, kind: str) -> Enqueued | None:
    """The oldest open job of that kind for the agent, None if there is none."""
    found = connection.execute(_OPEN_JOB, {"agent_id": agent_id, "kind": kind}).scalar_one_or_none()
    return None if found is None else Enqueued(found, created=False)
