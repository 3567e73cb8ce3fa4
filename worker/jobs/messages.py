"""The messages that are sent for rows: which task, with which ids (interfaces.md 3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from worker.jobs.kinds import KINDS, ONE_AGENT_KINDS, target_of_kind


@dataclass(frozen=True)
class Message:
    """The message of a marked row. Without ``agent_id`` it is for the whole job, without ``job_id`` for the
    gateway's roster writer. ``own_id``: the task is the job's own and has the job's id."""

    task: str
    kwargs: Mapping[str, Any]
    job_id: UUID | None = None
    agent_id: UUID | None = None
    gateway_id: UUID | None = None
    own_id: bool = True

    @property
    def task_id(self) -> str | None:
        """The job's id if the task is the job's own; None lets Celery make one."""
        return str(self.job_id) if self.job_id is not None and self.own_id else None


def roster_writer_message(gateway_id: UUID) -> Message:
    """The message for one gateway's roster writer."""
    return Message("tasks.write_roster", {"gateway_id": str(gateway_id)}, gateway_id=gateway_id)


def job_message(row: Any) -> Message:
    """The message for a job's row: its own task, or the finisher once a sync's agents have been opened."""
    if row.kind == "sync_gateway" and row.status == "running" and row.phase in ("agents", "main"):
        return finisher_message(row.id)
    target = target_of_kind(row.kind)
    value = getattr(row, target)
    return Message(f"tasks.{row.kind}", {target: str(value)} if value else {}, job_id=row.id)


def message_of(row: Any) -> Message:
    """The message for one agent's row (job_id, agent_id, kind, gateway_id): the job's own task if the job is
    about one agent."""
    if row.kind in ONE_AGENT_KINDS:
        target = KINDS[row.kind].target
        return Message(f"tasks.{row.kind}", {target: str(getattr(row, target))}, row.job_id, row.agent_id)
    return agent_message(row.job_id, row.agent_id, row.gateway_id)


def agent_message(job_id: UUID, agent_id: UUID, gateway_id: UUID | None) -> Message:
    """The message for one agent's row in a job of many. It names the gateway, whose share of the slots the
    worker checks first."""
    kwargs = {"agent_id": str(agent_id), "job_id": str(job_id)}
    if gateway_id is not None:
        kwargs["gateway_id"] = str(gateway_id)
    return Message("tasks.sync_agent", kwargs, job_id, agent_id, own_id=False)


def finisher_message(job_id: UUID) -> Message:
    """The message for a sync's own row, to open its agents' rows or to end it."""
    return Message("tasks.finish_sync", {"job_id": str(job_id)}, job_id, own_id=False)
