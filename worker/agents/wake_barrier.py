"""Delays wakes until the other agents of the gateway that are being served have their files.

A wake starts an LLM run of the agent, which costs the gateway more than all our other calls (0.1 s of CPU on
2026.2.12): runs that start early hold up the agents whose files are not written yet.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.store.job_agents import Claim
from worker.jobs.store.wake_batches import others_without_files

MOST_WITHOUT_FILES = 4
"""How many other agents may still wait for their files without delaying a wake."""
BARRIER_TIMEOUT_S = 45.0
"""Age of a job, in seconds, from which its wake is not delayed any longer: other agents may never get their
files."""
RECHECK_S = 10.0
"""Seconds after which a delayed wake looks again, unless another agent's job makes it due earlier."""

_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('wakes ' || :gateway_id, 0))")


def pass_barrier(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether wakes may begin now that the agent has its files, because few others still wait for theirs.

    The caller must put the row into phase wake in the same transaction, which blocks this question for the
    jobs of other agents until it commits.
    """
    connection.execute(_ONE_AT_A_TIME, {"gateway_id": str(gateway_id)})
    return is_barrier_open(connection, held, gateway_id)


def is_barrier_open(connection: Connection, held: Claim, gateway_id: UUID) -> bool:
    """Whether at most MOST_WITHOUT_FILES other agents of the gateway wait for their files at this moment."""
    return others_without_files(connection, gateway_id, held.agent_id) <= MOST_WITHOUT_FILES
