"""Makes the messages that are sent for rows: which task, with which ids (interfaces.md 3). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from worker.jobs.kinds import KINDS, ONE_AGENT_KINDS, target_of_kind


@dataclass(frozen=True)
class Message:
    """A message to a worker: to execute an agent's row; without ``agent_id``, the job's own row; or, without
    ``job_id``, to run a gateway's roster writer. ``own_id``: the task has the job's id."""

    task: str
    kwargs: Mapping[str, Any]
    job_id: UUID | None = None
    agent_id: UUID | None = None
    gateway_id: UUID | None = None
    own_id: bool = True

    @property
    def task_id(self) -> str | None:
        """The job's id if ``own_id``; None has Celery make a new id."""
        return str(self.job_id) if self.job_id is not None and self.own_id else None


def roster_writer_message(gateway_id: UUID) -> Message:
    """The message for one gateway's roster writer."""
    return Message("tasks.write_roster", {"gateway_id": str(gateway_id)}, gateway_id=gateway_id)


_BEYOND_THE_LOOK = ("compare", "agents", "main")


def job_message(row: Any) -> Message:
    """The message for a job's own row: the task of its kind, or tasks.finish_sync for a sync that has reached
    its agents."""
    if row.kind == "sync_gateway" and row.status == "running" and row.phase in _BEYOND_THE_LOOK:
        return finisher_message(row.id)
    return kind_message(row.kind, row.id, getattr(row, target_of_kind(row.kind)))


def kind_message(kind: str, job_id: UUID, target_id: UUID | None) -> Message:
    """The message to the task of a job's kind, which names the job's target if it is known."""
    kwargs = {} if target_id is None else {target_of_kind(kind): str(target_id)}
    return Message(f"tasks.{kind}", kwargs, job_id)


def message_of(row: Any) -> Message:
    """The message for an agent's row: the task of the job's kind if the job is about one agent, else
    tasks.sync_agent. ``row`` has job_id, agent_id, kind and gateway_id."""
    if row.kind in ONE_AGENT_KINDS:
        target = KINDS[row.kind].target
        return Message(f"tasks.{row.kind}", {target: str(getattr(row, target))}, row.job_id, row.agent_id)
    return agent_message(row.job_id, row.agent_id, row.gateway_id)


def agent_message(job_id: UUID, agent_id: UUID, gateway_id: UUID | None) -> Message:
    """The message for an agent's row in a job of many agents. It names the gateway so that the worker can
    check for a free slot (`worker.runtime.gateway_slots`) before it claims the row."""
    kwargs = {"agent_id": str(agent_id), "job_id": str(job_id)}
    if gateway_id is not None:
        kwargs["gateway_id"] = str(gateway_id)
    return Message("tasks.sync_agent", kwargs, job_id, agent_id, own_id=False)


def finisher_message(job_id: UUID) -> Message:
    """The message for a sync's own row, to open further agents' rows or to end the sync."""
    return Message("tasks.finish_sync", {"job_id": str(job_id)}, job_id, own_id=False)
