"""Delays an agent's wake until most other agents that are being set up on the gateway have their files.

A wake starts an LLM run of the agent, which costs the gateway more than all our other calls (0.1 s of CPU on
2026.2.12): runs that start early delay the writing of the other agents' files.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.store.job_agents import Claim
from worker.jobs.store.wake_batches import others_without_files

MOST_WITHOUT_FILES = 4
"""How many other agents may still wait for their files without delaying a wake."""
BARRIER_TIMEOUT_S = 45.0
"""Age of a row's first claim, in seconds, from which its wake is no longer delayed: other agents may never
get their files."""
RECHECK_S = 10.0
"""Seconds after which a row with a delayed wake is due again; another agent's job may gather it earlier."""

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('wakes ' || :gateway_id, 0))")


def pass_barrier(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether the agent, which has its files now, may be woken: few other agents still wait for theirs.

    Takes a lock, so that only one job of the gateway decides at a time. The caller must put the row into
    phase ``wake`` in the same transaction.
    """
    connection.execute(_ONE_AT_A_TIME, {"gateway_id": str(gateway_id)})
    return is_barrier_open(connection, held, gateway_id)


def is_barrier_open(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether no more than MOST_WITHOUT_FILES other agents of the gateway wait for their files; takes no
    lock."""
    return others_without_files(connection, gateway_id, held.agent_id) <= MOST_WITHOUT_FILES
