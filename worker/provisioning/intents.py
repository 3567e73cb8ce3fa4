"""Roster intents: what jobs want of a gateway's roster, as rows, until the writer has settled them (D1)."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, text

from worker.jobs.outbox import Message, roster_writer_message


@dataclass(frozen=True)
class Intent:
    """One open intent. ``present_before``: whether the roster had the agent when it was first looked at."""

    id: int
    agent_id: UUID
    job_id: UUID
    change: str
    openclaw_id: str
    delete_files: bool
    present_before: bool | None


@dataclass(frozen=True)
class Settled:
    """How an intent ended: applied, or refused with a sentence; neither while it is open."""

    gateway_id: UUID
    openclaw_id: str
    applied: bool
    error: str | None
    present_before: bool | None
    gateway_name: str | None

    @property
    def open(self) -> bool:
        """Whether the writer has not come to it yet."""
        return not self.applied and self.error is None


_RECORD = text("""
    INSERT INTO provisioner.roster_intents
        (gateway_id, agent_id, job_id, change, openclaw_id, delete_files)
    VALUES (:gateway_id, :agent_id, :job_id, :change, :openclaw_id, :delete_files)
    ON CONFLICT DO NOTHING
""")
_NEED_WRITER = text("""
    INSERT INTO provisioner.gateway_states AS s (gateway_id, writer_queued_at) VALUES (:gateway_id, now())
    ON CONFLICT (gateway_id) DO UPDATE SET writer_queued_at = now() WHERE s.writer_queued_at IS NULL
    RETURNING gateway_id
""")


def record_intent(
    connection: Connection,
    *,
    gateway_id: UUID,
    agent_id: UUID,
    job_id: UUID,
    change: str,
    openclaw_id: str,
    delete_files: bool = True,
) -> list[Message]:
    """Record an intent; park the row in the same transaction. What is returned, a write_roster if none is on
    its way, must be sent after the commit."""
    connection.execute(
        _RECORD,
        {
            "gateway_id": gateway_id,
            "agent_id": agent_id,
            "job_id": job_id,
            "change": change,
            "openclaw_id": openclaw_id,
            "delete_files": delete_files,
        },
    )
    needed = connection.execute(_NEED_WRITER, {"gateway_id": gateway_id}).one_or_none()
    return [roster_writer_message(gateway_id)] if needed else []


_OPEN = text("""
    SELECT id, agent_id, job_id, change, openclaw_id, delete_files, present_before
    FROM provisioner.roster_intents
    WHERE gateway_id = :gateway_id AND applied_at IS NULL AND error IS NULL ORDER BY id
""")


def open_intents(connection: Connection, gateway_id: UUID) -> list[Intent]:
    """All that is wanted of the gateway's roster now, oldest first."""
    return [Intent(**row._mapping) for row in connection.execute(_OPEN, {"gateway_id": gateway_id})]


_SETTLED = text("""
    SELECT i.gateway_id, openclaw_id, applied_at IS NOT NULL AS applied, error, present_before,
        g.name AS gateway_name
    FROM provisioner.roster_intents i LEFT JOIN gateways g ON g.id = i.gateway_id
    WHERE job_id = :job_id AND agent_id = :agent_id AND change = :change
    ORDER BY i.id FOR UPDATE OF i
""")


def settled_intents(connection: Connection, job_id: UUID, agent_id: UUID, change: str) -> list[Settled]:
    """How the job's wishes of one kind for the agent stand, oldest first; locked, so that a row that parks
    because one is open is parked before the writer settles it."""
    parameters = {"job_id": job_id, "agent_id": agent_id, "change": change}
    return [Settled(**row._mapping) for row in connection.execute(_SETTLED, parameters)]


_NOTE_PRESENT = text("""
    UPDATE provisioner.roster_intents SET present_before = openclaw_id = ANY(:present)
    WHERE id = ANY(:ids) AND present_before IS NULL
""")
_APPLY = text("UPDATE provisioner.roster_intents SET applied_at = now() WHERE id = ANY(:ids)")
_REFUSE = text(
    "UPDATE provisioner.roster_intents SET error = :error WHERE id = ANY(:ids) AND applied_at IS NULL"
)


def note_present(connection: Connection, intents: list[int], present: frozenset[str]) -> None:
    """Keep what the roster held before we changed anything, once for each intent (behaviour 16)."""
    connection.execute(_NOTE_PRESENT, {"ids": intents, "present": list(present)})


def apply_intents(connection: Connection, intents: list[int]) -> None:
    """These are seen to stand in the roster."""
    connection.execute(_APPLY, {"ids": intents})


def refuse_intents(connection: Connection, intents: list[int], error: str) -> None:
    """These cannot be brought into the roster; their jobs fail with the sentence."""
    connection.execute(_REFUSE, {"ids": intents, "error": error})
