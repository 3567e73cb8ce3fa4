"""The kinds of jobs, each declared once: its request, its task's queue, its command, and what it needs.

Celery's routes, the task modules that a worker loads, and the kinds that it publishes are derived from
`KINDS`; a test compares the docs with it. The task of a kind is in the module of the same name in tasks/,
which passes a handler to the executor (interfaces.md 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.jobs.requests import (
    AdoptAgent,
    AdoptGateway,
    BadRequestError,
    DeleteAgent,
    EnsureBoardLead,
    ExportAgent,
    ProvisionAgent,
    ProvisionGatewayMain,
    Request,
    RestoreAgent,
    Rollback,
    RollbackJob,
    RollOut,
    SyncGateway,
    SyncHeartbeats,
    UpdateAgent,
)

QUEUES = ("provisioning", "sync", "control")


@dataclass(frozen=True)
class Kind:
    """A kind of job that services and the CLI may request.

    ``command``: the CLI command that requests it; ``one_agent``: a job of this kind has the row of one agent,
    is published as that row's message once it has started, and ends with the row; ``right``: a table and the
    privilege on it that this kind needs beyond those that every kind needs. If the database role lacks it,
    jobs of this kind are refused and all others are served.
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
        Kind(AdoptAgent, "provisioning", "adopt", one_agent=True, right=("agents", "INSERT")),
        Kind(ExportAgent, "provisioning", "agent export", one_agent=True),
        Kind(RestoreAgent, "provisioning", "restore", one_agent=True, right=("agents", "INSERT")),
        Kind(AdoptGateway, "control", "adopt"),
        Kind(Rollback, "provisioning", "rollback", one_agent=True),
        Kind(RollbackJob, "control", "rollback"),
        Kind(EnsureBoardLead, "control", "lead", right=("agents", "INSERT")),
        Kind(SyncHeartbeats, "control", "heartbeats"),
        Kind(SyncGateway, "control", "sync"),
        Kind(RollOut, "control", "sync"),
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
"""The queue of each task that only the provisioner itself sends. These tasks are not kinds of jobs."""
TASK_QUEUES: Mapping[str, str] = {**{kind.task: kind.queue for kind in KINDS.values()}, **INTERNAL_TASKS}
"""The queue of each task. Tasks are named after their modules, so a worker loads the modules of these
names."""


def target_of_kind(name: str) -> str:
    """The column of ``jobs`` that names what a job of this kind is about; gateway_id if this version does not
    know the kind."""
    kind = KINDS.get(name)
    return "gateway_id" if kind is None else kind.target


def not_served(name: str) -> str:
    """The sentence that refuses a job whose kind this version does not know."""
    return (
        f"No worker of this version serves jobs of kind {name}: check its spelling; if a newer version has"
        " it, run that version's `provisioner migrate` and upgrade the workers."
    )


def require_kind(name: str) -> Kind:
    """The kind of that name. Raises BadRequestError if this version does not know it."""
    if name not in KINDS:
        raise BadRequestError(not_served(name))
    return KINDS[name]
