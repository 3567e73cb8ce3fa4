from __future__ import annotations

from functools import partial
from typing import Any

from celery import Task

from tasks.outcomes import JobFailed, run_agent_job
from worker.agents.agent_job import PROVISION, reconcile
from worker.app import app


@app.task(name="tasks.provision_agent", bind=True, throws=(JobFailed,))
def provision_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Provision a board's agent on its gateway (interfaces.md 3 has the arguments)."""
    return run_agent_job(self, positional, arguments, partial(reconcile, profile=PROVISION))
