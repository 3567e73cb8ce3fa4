"""Makes deleted ids usable again on a release that blocks them (2026.9.6).

A config write that brings a deleted id back is committed, but the agent gets no heartbeat automation, and
each later change to it restarts the gateway. A call of agents.create frees the id, even if the answer is that
the agent already exists; the patch that follows corrects the entry that the call writes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import Connection, text

from worker.gateway.client import GatewayClient
from worker.gateway.errors import AgentExists, CallTimedOut, ConnectionLost, PermanentGatewayError
from worker.gateway.roster_plan import RosterEntry
from worker.roster.lease import RosterLease

log = logging.getLogger(__name__)

_DELETED = text("""
    SELECT openclaw_id FROM provisioner.agent_places
    WHERE gateway_id = :gateway_id AND openclaw_id = ANY(:ids) AND until IS NOT NULL
    UNION
    SELECT openclaw_id FROM provisioner.roster_intents
    WHERE gateway_id = :gateway_id AND openclaw_id = ANY(:ids)
      AND change = 'remove' AND applied_at IS NOT NULL
""")


def deleted_before(connection: Connection, gateway_id: UUID, ids: Collection[str]) -> set[str]:
    """Which of ``ids`` were once removed from the gateway, according to our records."""
    parameters = {"gateway_id": gateway_id, "ids": list(ids)}
    return set(connection.execute(_DELETED, parameters).scalars())


def reclaim_ids(lease: RosterLease, client: GatewayClient, entries: Iterable[RosterEntry]) -> int:
    """Call agents.create for the entries, one at a time like all config writes; return how many it created.

    An id for which the call fails is left to the patch, whose answer says what is wrong with it.
    """
    created = 0
    for entry in entries:
        params = {"name": entry.openclaw_id, "workspace": entry.workspace}
        try:
            client.call("agents.create", params, send_by=lease.about_to_write(0.0))
            created += 1
        except AgentExists:
            continue
        except (PermanentGatewayError, ConnectionLost, CallTimedOut) as error:
            log.warning("%s was not created anew: %s", entry.openclaw_id, error)
    return created
