"""Agents of one gateway that are being served at once: all get their files before the first of them is woken.

A wake begins a run of the agent, and that costs its gateway more than all else that we ask of it (0.1 s of
CPU on 2026.2.12): runs that begin meanwhile hold up everybody whose files are yet to come.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.store.job_agents import Claim
from worker.jobs.store.wake_batches import others_without_files

FEW = 4
"""This many others still waiting for files do not delay a wake."""
CROWD_PATIENCE_S = 45.0
"""How old a job may be whose wake waits for others: they may never come to their own."""
LOOK_AGAIN_S = 10.0
"""A wake that waits looks by itself so much later, should nobody have called it."""

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('wakes ' || :gateway_id, 0))")


def leave_crowd(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """The agent has its files: whether so few others wait for theirs that wakes may begin. The row must be in
    phase wake by the end of the transaction: until then nobody else is asked."""
    connection.execute(_ONE_AT_A_TIME, {"gateway_id": str(gateway_id)})
    return few_are_left(connection, held, gateway_id)


def few_are_left(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether few others wait for their files at this moment."""
    return others_without_files(connection, gateway_id, held.agent_id) <= FEW
