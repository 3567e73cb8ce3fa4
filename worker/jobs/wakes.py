"""Agents that wait to be woken, woken together by one of them (`worker.provisioning.crowd` says when).

A row with both ``wake`` and ``wake_sent_at`` is in the hand of whoever gathered it, without a lease: should
that one die, the row comes back by itself and is treated as any whose wake was on its way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.ledger import REPUBLISH_AFTER_S
from worker.jobs.outbox import Message, message_of

BEING_WOKEN = "being woken"
SENDING_TAKES_S = 60.0
"""A gathered row comes back by itself so much later; a call is given up after half of that."""


@dataclass(frozen=True)
class Wake:
    """What ``chat.send`` is to be called with for an agent."""

    job_id: UUID
    agent_id: UUID
    params: Mapping[str, Any]


@dataclass(frozen=True)
class WakeOutcome:
    """What became of a wake: ``woken``; ``unsent``, where it surely did not arrive; neither, where nobody
    knows."""

    job_id: str
    agent_id: str
    woken: bool = False
    unsent: bool = False
    warning: str | None = None


_GATHER = text("""
    UPDATE provisioner.job_agents r
    SET wake_sent_at = now(), reason = :reason, next_attempt_at = now() + make_interval(secs => :takes_s)
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND j.gateway_id = :gateway_id AND j.cancel_requested_at IS NULL
      AND r.status = 'running' AND r.phase = 'wake' AND r.wake IS NOT NULL AND r.wake_sent_at IS NULL
      AND r.lease_until IS NULL AND r.published_at IS NULL
    RETURNING r.job_id, r.agent_id, r.wake AS params
""")
_SETTLE = text("""
    UPDATE provisioner.job_agents r
    SET wake = NULL, reason = NULL, published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s),
        woken_at = CASE WHEN o.woken THEN now() END,
        wake_sent_at = CASE WHEN o.unsent THEN NULL ELSE r.wake_sent_at END,
        warnings = r.warnings || CASE WHEN o.warning IS NULL THEN '[]' ELSE jsonb_build_array(o.warning) END
    FROM provisioner.jobs j, jsonb_to_recordset(:outcomes)
        AS o(job_id uuid, agent_id uuid, woken boolean, unsent boolean, warning text)
    WHERE r.job_id = o.job_id AND r.agent_id = o.agent_id AND j.id = r.job_id
      AND r.status = 'running' AND r.phase = 'wake' AND r.wake IS NOT NULL AND r.lease_until IS NULL
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""").bindparams(bindparam("outcomes", type_=JSONB))


def gather_wakes(connection: Connection, gateway_id: UUID) -> list[Wake]:
    """Take all who wait to be woken on the gateway; their messages are as good as sent once this commits."""
    parameters = {"gateway_id": gateway_id, "takes_s": SENDING_TAKES_S, "reason": BEING_WOKEN}
    return [Wake(**row._mapping) for row in connection.execute(_GATHER, parameters)]


def settle_wakes(connection: Connection, outcomes: Sequence[WakeOutcome]) -> list[Message]:
    """Note what became of gathered wakes, and mark their rows, which come to their end, or to another try,
    in turns of their own; send after the commit."""
    parameters = {"outcomes": [asdict(each) for each in outcomes], "republish_s": REPUBLISH_AFTER_S}
    return [message_of(row) for row in connection.execute(_SETTLE, parameters)]
