from __future__ import annotations

from typing import Any
from uuid import UUID

from tasks.outcomes import outlived_by_its_cause
from worker.about import about
from worker.app import app, services
from worker.provisioning.roster_writer import write_roster as write


@app.task(name="tasks.write_roster")
def write_roster(gateway_id: str, **_: Any) -> None:
    """Settle what jobs want of a gateway's roster. Sent by jobs and by the clock, not by services."""
    with about(gateway=gateway_id), outlived_by_its_cause("the roster waits"):
        write(services(), UUID(gateway_id))
