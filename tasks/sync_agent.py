from __future__ import annotations

from typing import Any
from uuid import UUID

from celery import Task

from tasks.outcomes import JobFailed, outlived_by_its_cause, report
from tasks.runs import tell_progress
from worker.about import about
from worker.app import app, services
from worker.provisioning.turn import Ended, take_turn


@app.task(name="tasks.sync_agent", bind=True, throws=(JobFailed,))
def sync_agent(self: Task[..., Any], /, job_id: str, agent_id: str, **_: Any) -> str:
    """One agent's turn in a job of many. Sent by the job and by the clock, not by services."""
    with about(job=job_id, agent=agent_id), outlived_by_its_cause("the agent waits"):
        outcome = take_turn(services(), UUID(job_id), UUID(agent_id))
        if isinstance(outcome, Ended) and outcome.progress is not None:
            tell_progress(UUID(job_id), outcome.progress)
        return report(self, UUID(job_id), outcome)
