"""The Celery tasks: one thin module a verb. A message names ids, the work is worker.provisioning's."""

from tasks.delete_agent import delete_agent
from tasks.provision_agent import provision_agent
from tasks.update_agent import update_agent
from tasks.write_roster import write_roster

__all__ = ["delete_agent", "provision_agent", "update_agent", "write_roster"]
