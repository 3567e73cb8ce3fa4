from __future__ import annotations

import logging
from functools import partial
from typing import Any

from celery import Task

from tasks.arguments import ids_of, uuid_or_none
from tasks.outcomes import NOTHING_TO_DO, JobFailed, report, retry_on_database_outage
from tasks.sync_progress import send_progress
from worker.agents.agent_job import SYNC, reconcile
from worker.agents.execution import execute_in_slot
from worker.app import app, services
from worker.jobs.executor import Ended
from worker.jobs.messages import agent_message
from worker.jobs.requests import SyncGateway
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.leases import NotClaimed
from worker.log_context import log_context

log = logging.getLogger(__name__)


@app.task(name="tasks.sync_agent", bind=True, throws=(JobFailed,))
def sync_agent(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> str:
    """Execute one agent's row of a sync. Sent by the sync and by the dispatcher, not by services."""
    job_id, agent_id = ids_of(self, positional, arguments, "job_id", "agent_id")
    with log_context(job=job_id, agent=agent_id), retry_on_database_outage(self):
        gateway_id = uuid_or_none(arguments.get("gateway_id"))  # older releases named none
        message = agent_message(job_id, agent_id, gateway_id)
        handler = partial(reconcile, profile=SYNC)
        outcome = execute_in_slot(services(), gateway_id, message, SyncGateway.kind, handler)
        # The task has its own id, which no later message uses: Flower would show it as started for ever.
        if isinstance(outcome, NotClaimed):
            return NOTHING_TO_DO
        if isinstance(outcome, Snooze):
            log.info("parked: %s", outcome.reason)
            return f"parked: {outcome.reason}"
        if isinstance(outcome, Ended) and outcome.progress is not None:
            send_progress(job_id, outcome.progress)
        return report(self, job_id, outcome)
