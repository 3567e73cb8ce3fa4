"""The kinds of jobs, each declared once: its request, its task's queue, its command, and what it needs.

Celery's routes, the modules of tasks that a worker loads, and the kinds that it publishes are derived from
this; a test compares the docs. A kind's task is the module of its name in tasks/, which hands its handler to
the executor (interfaces.md 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.jobs.requests import (
    BadRequestError,
    DeleteAgent,
    EnsureBoardLead,
    ProvisionAgent,
    ProvisionGatewayMain,
    Request,
    SyncGateway,
    SyncHeartbeats,
    UpdateAgent,
)

QUEUES = ("provisioning", "sync", "control")


@dataclass(frozen=True)
class Kind:
    """A kind of job that services and the CLI may request. ``command``: the CLI's for it.

    ``one_agent``: the job has one agent's row, is published as that row's message, and ends with it;
    ``right``: a table, and the right on it that these jobs need beside those that every job needs. Without
    it they are refused, and others are served.
    """

    request: type[Request]
    queue: str
    command: str
    one_agent: bool = False
    right: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """The value of ``jobs.kind``."""
        return self.request.kind

    @property
    def task(self) -> str:
        """The name of its Celery task."""
        return f"tasks.{self.name}"

    @property
    def target(self) -> str:
        """The column of ``jobs`` that names what the job is about: agent_id, board_id or gateway_id."""
        return self.request.target


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(ProvisionAgent, "provisioning", "provision", one_agent=True),
        Kind(UpdateAgent, "provisioning", "update", one_agent=True),
        Kind(DeleteAgent, "provisioning", "delete", one_agent=True, right=("agents", "DELETE")),
        Kind(ProvisionGatewayMain, "provisioning", "main", one_agent=True, right=("agents", "INSERT")),
        Kind(EnsureBoardLead, "control", "lead", right=("agents", "INSERT")),
        Kind(SyncHeartbeats, "control", "heartbeats"),
        Kind(SyncGateway, "control", "sync"),
    )
}
JOB_KINDS = tuple(KINDS)
ONE_AGENT_KINDS = tuple(name for name, kind in KINDS.items() if kind.one_agent)

INTERNAL_TASKS: Mapping[str, str] = {
    "tasks.sync_agent": "sync",
    "tasks.finish_sync": "control",
    "tasks.write_roster": "control",
    "tasks.run_due_schedules": "control",
}
"""Tasks that only the provisioner itself sends, with their queues. They serve rows and are not kinds of
jobs."""
TASK_QUEUES: Mapping[str, str] = {**{kind.task: kind.queue for kind in KINDS.values()}, **INTERNAL_TASKS}
"""The queue of each task. A task has the name of its module, so these are also the modules that a worker
loads."""


def target_of_kind(name: str) -> str:
    """The column of ``jobs`` that names what a job of this kind is about; gateway_id if this version does not
    know the kind."""
    kind = KINDS.get(name)
    return "gateway_id" if kind is None else kind.target


def not_served(name: str) -> str:
    """The error of a job whose kind this version does not know."""
    return (
        f"No worker of this version serves jobs of kind {name}: check its spelling; if a newer version has"
        " it, run that version's `provisioner migrate` and upgrade the workers."
    )


def require_kind(name: str) -> Kind:
    """The kind of that name. Raises BadRequestError if this version does not know it."""
    if name not in KINDS:
        raise BadRequestError(not_served(name))
    return KINDS[name]
