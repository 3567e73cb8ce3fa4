"""The first step of a sync: who takes part, by the database alone."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError

from worker.jobs.requests import BadRequestError, SyncGateway
from worker.jobs.store.job_agents import AGENT_NAME
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.jobs.store.sync_jobs import wait_behind


def begin(connection: Connection, job_id: UUID, request: SyncGateway) -> bool:
    """Give a queued sync its rows, oldest agent first: those of paused boards skipped, the gateway's main
    agent without a position. False: another sync of the gateway is under way, and this one waits behind it.

    Raises BadRequestError for a gateway, board or user that cannot be right (rules.md 13, 21, 31).
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    where = f"Gateway {gateway.name!r} ({request.gateway_id})"
    if not (gateway.url or "").strip():
        raise BadRequestError(f"{where} has no URL: set gateways.url.")
    if request.board_id is not None:
        _require_board(connection, request.board_id, request.gateway_id, where)
    if request.user_id is not None:
        parameters = {"user_id": request.user_id, "organization_id": gateway.organization_id}
        if not connection.scalar(_IS_MEMBER, parameters):
            raise BadRequestError(
                f"The user_id {request.user_id} is not a member of the organization of gateway"
                f" {gateway.name!r}."
            )
    try:
        with connection.begin_nested():
            connection.execute(
                _START,
                {
                    "job_id": job_id,
                    "organization_id": gateway.organization_id,
                    "options": request.options(),
                    "board_id": request.board_id,
                    "republish_s": LOST_AFTER_S,
                },
            )
    except IntegrityError:  # the index that lets one sync at a time have a gateway
        wait_behind(connection, job_id)
        return False
    _add_rows(connection, job_id, request)
    return True


def _require_board(connection: Connection, board_id: UUID, gateway_id: UUID, where: str) -> None:
    board = connection.execute(_BOARD, {"id": board_id}).one_or_none()
    if board is None:
        raise BadRequestError(f"There is no board with board_id {board_id}.")
    if board.gateway_id != gateway_id:
        raise BadRequestError(f"board_id: board {board.name!r} ({board_id}) is not on {where}.")


def _add_rows(connection: Connection, job_id: UUID, request: SyncGateway) -> None:
    parameters = {
        "job_id": job_id,
        "gateway_id": request.gateway_id,
        "board_id": request.board_id,
        "agents": request.agent_ids,
    }
    connection.execute(_ADD_AGENTS, parameters)
    if request.include_main:
        connection.execute(_ADD_MAIN, {"job_id": job_id, "gateway_id": request.gateway_id})
    connection.execute(_COUNT, {"job_id": job_id})


_GATEWAY = text("SELECT name, url, organization_id FROM gateways WHERE id = :id")
_BOARD = text("SELECT name, gateway_id FROM boards WHERE id = :id")
_IS_MEMBER = text("""
    SELECT EXISTS (SELECT FROM organization_members
                   WHERE user_id = :user_id AND organization_id = :organization_id)
""")
_START = text("""
    UPDATE provisioner.jobs
    SET status = 'running', phase = 'look', started_at = now(), updated_at = now(), published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s), options = :options,
        organization_id = :organization_id, board_id = :board_id
    WHERE id = :job_id AND status = 'queued'
""").bindparams(bindparam("options", type_=JSONB))
_ADD_AGENTS = text(rf"""
    WITH served AS (
        SELECT b.id, b.name, coalesce((
            SELECT lower(m.content) ~ 'pause' FROM board_memory m
            WHERE m.board_id = b.id AND m.is_chat AND m.content ~* '^\s*/(pause|resume)\s*$'
            ORDER BY m.created_at DESC LIMIT 1
        ), false) AS paused
        FROM boards b
        WHERE b.gateway_id = :gateway_id
          AND (CAST(:board_id AS uuid) IS NULL OR b.id = CAST(:board_id AS uuid))
    )
    INSERT INTO provisioner.job_agents
        (job_id, agent_id, agent_name, board_id, position, status, phase, reason, finished_at)
    SELECT :job_id, a.id, {AGENT_NAME}, a.board_id, row_number() OVER (ORDER BY a.created_at, a.id),
        CASE WHEN s.paused THEN 'skipped' ELSE 'pending' END,
        CASE WHEN s.paused THEN 'paused' END,
        CASE WHEN s.paused THEN 'Its board ' || quote_literal(s.name) || ' is paused.' END,
        CASE WHEN s.paused THEN now() END
    FROM agents a JOIN served s ON s.id = a.board_id
    WHERE CAST(:agents AS uuid[]) IS NULL OR a.id = ANY(CAST(:agents AS uuid[]))
""")
_ADD_MAIN = text(f"""
    INSERT INTO provisioner.job_agents (job_id, agent_id, agent_name)
    SELECT :job_id, a.id, {AGENT_NAME} FROM agents a WHERE a.gateway_id = :gateway_id AND a.board_id IS NULL
    ORDER BY a.created_at, a.id LIMIT 1
""")
_COUNT = text("""
    UPDATE provisioner.jobs
    SET agents_total = counted.agents, agents_done = counted.ended
    FROM (SELECT count(*) AS agents, count(finished_at) AS ended
          FROM provisioner.job_agents WHERE job_id = :job_id AND position IS NOT NULL) counted
    WHERE id = :job_id
""")
