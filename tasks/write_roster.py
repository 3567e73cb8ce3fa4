from __future__ import annotations

from typing import Any

from celery import Task

from tasks.arguments import ids_of
from tasks.outcomes import JobFailed, retry_on_database_outage
from worker.app import app, services
from worker.log_context import log_context
from worker.roster.writer import write_roster as write


@app.task(name="tasks.write_roster", bind=True, throws=(JobFailed,))
def write_roster(self: Task[..., Any], /, *positional: Any, **arguments: Any) -> None:
    """Write the roster changes that jobs asked for on one gateway. Sent by jobs and by the dispatcher, not by
    services."""
    (gateway_id,) = ids_of(self, positional, arguments, "gateway_id")
    with log_context(gateway=gateway_id), retry_on_database_outage(self):
        write(services(), gateway_id)
