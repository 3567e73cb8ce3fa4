"""Heartbeat settings of many agents in one config change (rules.md 42).

The job asks the roster writer for all of them at once, holds no agent, and talks to no gateway itself: the
entries are computed from the agents' rows when the roster is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.messages import Message
from worker.jobs.requests import BadRequestError, SyncHeartbeats
from worker.jobs.store.heartbeat_rows import end_if_done, end_settled, start_heartbeats
from worker.provisioning.intents import ROSTER_PATIENCE_S, Wish, give_up_overdue, record_intents
from worker.provisioning.places import LIVE_PLACES, home_of, places_of


def begin(
    connection: Connection, job_id: UUID, request: SyncHeartbeats, budget_s: float = ROSTER_PATIENCE_S
) -> list[Message]:
    """Give the job a row for each agent and ask for the config change; a job without agents ends here.

    What is returned must be sent after the commit. Raises BadRequestError.
    """
    gateway = connection.execute(_GATEWAY, {"id": request.gateway_id}).one_or_none()
    if gateway is None:
        raise BadRequestError(f"There is no gateway with gateway_id {request.gateway_id}.")
    wanted = request.agent_ids
    rows = connection.execute(_AGENTS, {"gateway_id": request.gateway_id, "agents": wanted}).all()
    missing: Sequence[UUID] = sorted(set(wanted or ()) - {row.id for row in rows}, key=str)
    if missing:
        raise BadRequestError(f"agent_ids: gateway {gateway.name!r} has no agent {missing[0]}.")
    strays = [row.id for row in rows if row.board_id is None and not row.is_main]
    places = {
        row.id: home_of(row, "", places_of(row.places)).openclaw_id for row in rows if row.id not in strays
    }
    start_heartbeats(
        connection,
        job_id,
        gateway.organization_id,
        agents=[row.id for row in rows],
        strays=strays,
        patience_s=min(ROSTER_PATIENCE_S, budget_s),
    )
    wishes = [Wish(agent_id, place, only_present=True) for agent_id, place in places.items()]
    messages = record_intents(connection, request.gateway_id, job_id, *wishes)
    end_if_done(connection, job_id)
    return messages


def go_on(connection: Connection, job_id: UUID, budget_s: float = ROSTER_PATIENCE_S) -> None:
    """End the rows whose wishes the roster writer has settled, and the job with the last of them. Wishes that
    have been open for ``budget_s`` are given up."""
    give_up_overdue(connection, job_id, budget_s)
    patience_s = min(ROSTER_PATIENCE_S, max(1.0, budget_s / 10))
    end_settled(connection, job_id, patience_s)
    end_if_done(connection, job_id)


_GATEWAY = text("SELECT name, organization_id FROM gateways WHERE id = :id")
_AGENTS = text(f"""
    SELECT a.id, a.board_id, a.is_board_lead, a.gateway_id, {LIVE_PLACES} AS places,
        a.board_id IS NULL AND a.id = (
            SELECT id FROM agents WHERE gateway_id = :gateway_id AND board_id IS NULL
            ORDER BY created_at, id LIMIT 1
        ) AS is_main
    FROM agents a
    WHERE a.gateway_id = :gateway_id
      AND (CAST(:agents AS uuid[]) IS NULL OR a.id = ANY(CAST(:agents AS uuid[])))
""")
