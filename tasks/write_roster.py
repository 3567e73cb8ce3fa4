from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog

from worker.app import app, services
from worker.provisioning.roster_writer import write_roster as write


@app.task(name="tasks.write_roster")
def write_roster(gateway_id: str, **_: Any) -> None:
    """Settle what jobs want of a gateway's roster. Sent by jobs and by the clock, not by services."""
    with structlog.contextvars.bound_contextvars(gateway=gateway_id):
        write(services(), UUID(gateway_id))
