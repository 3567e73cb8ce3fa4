from __future__ import annotations

from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.export_job import export
from worker.app import app


@app.task(name="tasks.export_agent", bind=True, throws=(JobFailed,))
def export_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Make a bundle of an agent, and change nothing (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, export)
