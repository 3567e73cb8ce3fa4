from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.rollback_job import roll_back
from worker.app import app


@app.task(name="tasks.rollback", bind=True, throws=(JobFailed,))
def rollback(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Bring back what a job replaced in an agent's files (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, roll_back)
