"""Agents of one gateway that are being served at once: all get their files before the first of them is woken.

A wake begins a run of the agent, and that costs its gateway more than all else that we ask of it (0.1 s of
CPU on 2026.2.12): runs that begin meanwhile hold up everybody whose files are yet to come.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.store.job_agents import Claim

FEW = 4
"""So many others hold up nobody's wake."""
CROWD_PATIENCE_S = 45.0
"""How old a job may be whose wake waits for others: they may never come to their own."""
LOOK_AGAIN_S = 10.0
"""A wake that waits looks by itself so much later, should nobody have called it."""

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('wakes ' || :gateway_id, 0))")
_OTHERS = text("""
    SELECT count(*) FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    WHERE j.gateway_id = :gateway_id AND r.status = 'running' AND r.agent_id <> :agent_id
      AND j.options @> '{"wake": true}'
      AND (r.phase IN ('files', 'credentials')
           OR r.phase = 'roster' AND (r.published_at IS NOT NULL OR r.lease_until > now()))
""")


def leave_crowd(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """The agent has its files: whether so few others wait for theirs that wakes may begin. The row must be in
    phase wake by the end of the transaction: until then nobody else is asked."""
    connection.execute(_ONE_AT_A_TIME, {"gateway_id": str(gateway_id)})
    return few_are_left(connection, held, gateway_id)


def few_are_left(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether few others wait for their files at this moment."""
    others = connection.scalar(_OTHERS, {"gateway_id": gateway_id, "agent_id": held.agent_id})
    return int(others or 0) <= FEW
