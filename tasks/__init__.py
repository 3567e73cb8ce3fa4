"""The Celery tasks: one thin module a verb. A message names ids, the work is worker.provisioning's."""

from tasks.provision_agent import provision_agent
from tasks.write_roster import write_roster

__all__ = ["provision_agent", "write_roster"]
