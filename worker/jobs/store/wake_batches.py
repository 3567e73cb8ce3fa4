"""Wakes agents in batches: one worker gathers the rows that wait, sends their messages and ends their jobs.

`worker.agents.wake_barrier` decides when. After the messages no further calls are made for these agents,
since their gateway is busy with the runs that the messages start. A row with both ``wake`` and
``wake_sent_at`` belongs to the worker that gathered it, without a lease; if that worker dies, the row becomes
due again. Its next claim takes it out of the batch, and it is treated like any other whose wake was sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from worker.jobs.messages import Message, message_of
from worker.jobs.states import ReasonCode
from worker.jobs.store.publishing import LOST_AFTER_S
from worker.masking.columns import MaskedJson

BEING_WOKEN = "being woken"
SENDING_TAKES_S = 90.0
"""Seconds until a gathered row is due again: more than its two calls can take, at 30 s each."""


@dataclass(frozen=True)
class Wake:
    """The wake of an agent: the ``label`` for its session, the ``params`` of its ``chat.send``, and the
    ``result`` that its job will have."""

    job_id: UUID
    agent_id: UUID
    label: str
    params: Mapping[str, Any]
    result: Mapping[str, Any]

    def stored(self) -> dict[str, Any]:
        """The wake as ``job_agents.wake`` holds it."""
        return {"label": self.label, "params": dict(self.params), "result": dict(self.result)}


@dataclass(frozen=True)
class Woken:
    """A gathered agent whose gateway accepted the wake message, with its job's ``result`` and ``warning``."""

    job_id: str
    agent_id: str
    result: Mapping[str, Any]
    warning: str | None = None


@dataclass(frozen=True)
class NotWoken:
    """A gathered agent whose message did not arrive (``unsent``), or may not have."""

    job_id: str
    agent_id: str
    unsent: bool


@dataclass(frozen=True)
class EndedRow:
    """A row that has succeeded, and whose job has succeeded with it."""

    job_id: UUID
    agent_id: UUID
    session_key: str


_GATHER = text("""
    UPDATE provisioner.job_agents r
    SET wake_sent_at = now(), reason = :reason, reason_code = :code,
        next_attempt_at = now() + make_interval(secs => :takes_s)
    FROM provisioner.jobs j, agents a
    WHERE j.id = r.job_id AND j.gateway_id = :gateway_id AND j.cancel_requested_at IS NULL
      AND a.id = r.agent_id AND a.gateway_id = j.gateway_id
      AND r.status = 'running' AND r.phase = 'wake' AND r.wake IS NOT NULL AND r.wake_sent_at IS NULL
      AND r.lease_until IS NULL AND r.published_at IS NULL
    RETURNING r.job_id, r.agent_id, r.wake ->> 'label' AS label, r.wake -> 'params' AS params,
        r.wake -> 'result' AS result
""")
_IN_HAND = """
    r.job_id = o.job_id AND r.agent_id = o.agent_id AND j.id = r.job_id
      AND r.status = 'running' AND r.phase = 'wake' AND r.wake IS NOT NULL AND r.lease_until IS NULL
"""
_END = text(f"""
    WITH ended AS (
        UPDATE provisioner.job_agents r
        SET status = 'succeeded', phase = 'ended', reason = NULL, reason_code = NULL, wake = NULL,
            woken_at = now(), finished_at = now(), next_attempt_at = NULL, published_at = NULL,
            warnings = r.warnings || CASE WHEN o.warning IS NULL THEN '[]'
                                          ELSE jsonb_build_array(o.warning) END
        FROM provisioner.jobs j, agents a, jsonb_to_recordset(:woken)
            AS o(job_id uuid, agent_id uuid, result jsonb, warning text)
        WHERE {_IN_HAND} AND a.id = r.agent_id
        RETURNING r.job_id, r.agent_id, o.result, r.warnings
    ), equal AS (
        DELETE FROM provisioner.agent_drift d USING ended WHERE d.agent_id = ended.agent_id
    )
    UPDATE provisioner.jobs j
    SET status = 'succeeded', phase = 'ended', agents_done = agents_done + 1, finished_at = now(),
        updated_at = now(), warnings = ended.warnings,
        result = ended.result || jsonb_build_object('woken', true, 'warnings', ended.warnings)
    FROM ended WHERE j.id = ended.job_id
    RETURNING j.id AS job_id, ended.agent_id, j.result ->> 'session_key' AS session_key
""").bindparams(bindparam("woken", type_=MaskedJson))
_GIVE_BACK = text(f"""
    UPDATE provisioner.job_agents r
    SET wake = NULL, reason = NULL, reason_code = NULL, published_at = now(),
        next_attempt_at = now() + make_interval(secs => :republish_s),
        wake_sent_at = CASE WHEN o.unsent THEN NULL ELSE r.wake_sent_at END
    FROM provisioner.jobs j, jsonb_to_recordset(:others) AS o(job_id uuid, agent_id uuid, unsent boolean)
    WHERE {_IN_HAND}
    RETURNING r.job_id, r.agent_id, j.kind, j.gateway_id
""").bindparams(bindparam("others", type_=JSONB))


def gather_wakes(connection: Connection, gateway_id: UUID) -> list[Wake]:
    """Take all rows that wait to be woken on the gateway; once this commits, their messages count as sent."""
    parameters = {
        "gateway_id": gateway_id,
        "takes_s": SENDING_TAKES_S,
        "reason": BEING_WOKEN,
        "code": ReasonCode.BEING_WOKEN,
    }
    return [Wake(**row._mapping) for row in connection.execute(_GATHER, parameters)]


def end_woken(connection: Connection, woken: Sequence[Woken]) -> list[EndedRow]:
    """End the rows and jobs of gathered agents that were woken. If an agent was deleted meanwhile, its row is
    left alone: once due again, it is executed and reports the deletion."""
    if not woken:
        return []
    parameters = {"woken": [asdict(each) for each in woken]}
    return [EndedRow(**row._mapping) for row in connection.execute(_END, parameters)]


def give_back(connection: Connection, others: Sequence[NotWoken]) -> list[Message]:
    """Mark as published the rows of gathered agents that did not confirm the wake, to try each on its own."""
    if not others:
        return []
    parameters = {"others": [asdict(each) for each in others], "republish_s": LOST_AFTER_S}
    return [message_of(row) for row in connection.execute(_GIVE_BACK, parameters)]


_WAKES_DUE = text("""
    UPDATE provisioner.job_agents r SET next_attempt_at = now()
    FROM provisioner.jobs j
    WHERE j.id = r.job_id AND j.gateway_id = :gateway_id AND r.status = 'running' AND r.phase = 'wake'
      AND r.lease_until IS NULL AND r.published_at IS NULL AND r.next_attempt_at > now()
      AND (r.wake IS NULL OR r.wake_sent_at IS NULL)
""")
_WAKES_IN_FLIGHT = text("""
    SELECT EXISTS (
        SELECT FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
        WHERE j.gateway_id = :gateway_id AND r.status = 'running' AND r.phase = 'wake'
          AND r.wake_sent_at IS NOT NULL
          AND (r.lease_until > now() OR r.wake IS NOT NULL AND r.next_attempt_at > now())
    )
""")


def make_wakes_due(connection: Connection, gateway_id: UUID) -> None:
    """Make due the rows that wait to be woken on the gateway, except those in a batch that is being sent."""
    connection.execute(_WAKES_DUE, {"gateway_id": gateway_id})


def wakes_in_flight(connection: Connection, gateway_id: UUID) -> bool:
    """Whether a worker is still at work on a row of the gateway whose wake message is marked as sent."""
    return bool(connection.scalar(_WAKES_IN_FLIGHT, {"gateway_id": gateway_id}))


_OTHERS = text("""
    SELECT count(*) FROM provisioner.job_agents r JOIN provisioner.jobs j ON j.id = r.job_id
    WHERE j.gateway_id = :gateway_id AND r.status = 'running' AND r.agent_id <> :agent_id
      AND j.options @> '{"wake": true}'
      AND (r.phase IN ('files', 'credentials')
           OR r.phase = 'roster' AND (r.published_at IS NOT NULL OR r.lease_until > now()))
""")


def others_without_files(connection: Connection, gateway_id: UUID, agent_id: UUID) -> int:
    """How many other agents of the gateway are waiting for their files now and will be woken after that."""
    return int(connection.scalar(_OTHERS, {"gateway_id": gateway_id, "agent_id": agent_id}) or 0)
