"""Celery tasks, one thin module for each verb; worker.sync and worker.agents do the work."""

from tasks.delete_agent import delete_agent
from tasks.ensure_board_lead import ensure_board_lead
from tasks.finish_sync import finish_sync
from tasks.provision_agent import provision_agent
from tasks.provision_gateway_main import provision_gateway_main
from tasks.run_due_schedules import run_due_schedules
from tasks.sync_agent import sync_agent
from tasks.sync_gateway import sync_gateway
from tasks.sync_heartbeats import sync_heartbeats
from tasks.update_agent import update_agent
from tasks.write_roster import write_roster

__all__ = [
    "delete_agent",
    "ensure_board_lead",
    "finish_sync",
    "provision_agent",
    "provision_gateway_main",
    "run_due_schedules",
    "sync_agent",
    "sync_gateway",
    "sync_heartbeats",
    "update_agent",
    "write_roster",
]
