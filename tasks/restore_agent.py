from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.restore_job import restore
from worker.app import app


@app.task(name="tasks.restore_agent", bind=True, throws=(JobFailed,))
def restore_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Make an agent anew from its bundle, and provision it (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, restore)
