from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.delete_job import delete
from worker.app import app


@app.task(name="tasks.delete_agent", bind=True, throws=(JobFailed,))
def delete_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Remove an agent from its gateway and delete its row (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, delete)
