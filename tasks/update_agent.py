from __future__ import annotations

from functools import partial
from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.agent_job import UPDATE, reconcile
from worker.app import app


@app.task(name="tasks.update_agent", bind=True, throws=(JobFailed,))
def update_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Bring an agent up to date with its templates, or report what that would change (interfaces.md 3 has the
    arguments)."""
    return run_agent_job(self, positional, arguments, partial(reconcile, profile=UPDATE))
