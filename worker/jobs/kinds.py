"""The kinds of jobs, each declared once: what it takes, where its task waits, and whom it is about.

Routes, the kinds that a worker publishes and the tables of the docs follow from this. A kind's task is in
tasks/, under the kind's own name (interfaces.md 3).
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
    """A kind of job that services and the CLI may ask for. ``one_agent``: the job is about one agent, so its
    message is the job's own, and it ends with its one row."""

    request: type[Request]
    queue: str
    one_agent: bool = False

    @property
    def name(self) -> str:
        """As ``jobs.kind`` has it."""
        return self.request.kind

    @property
    def task(self) -> str:
        """The name of its Celery task."""
        return f"tasks.{self.name}"

    @property
    def target(self) -> str:
        """The column of ``jobs`` that says whom the job is about."""
        return self.request.target


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(ProvisionAgent, "provisioning", one_agent=True),
        Kind(UpdateAgent, "provisioning", one_agent=True),
        Kind(DeleteAgent, "provisioning", one_agent=True),
        Kind(ProvisionGatewayMain, "provisioning", one_agent=True),
        Kind(EnsureBoardLead, "control"),
        Kind(SyncHeartbeats, "control"),
        Kind(SyncGateway, "control"),
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
"""The queues of the tasks that only the provisioner sends: they serve rows, and are no kind of job."""
TASK_QUEUES: Mapping[str, str] = {**{kind.task: kind.queue for kind in KINDS.values()}, **INTERNAL_TASKS}


def target_of_kind(name: str) -> str:
    """The column of ``jobs`` that says whom a job is about; of a kind that this version does not know, the
    gateway's."""
    kind = KINDS.get(name)
    return "gateway_id" if kind is None else kind.target


def not_served(name: str) -> str:
    """The sentence of a job whose kind no worker of this version knows."""
    return (
        f"No worker of this version serves jobs of kind {name}: check its spelling; if a newer version has"
        " it, run that version's `provisioner migrate` and upgrade the workers."
    )


def require_kind(name: str) -> Kind:
    """The kind of that name. Raises BadRequestError where this version has none."""
    if name not in KINDS:
        raise BadRequestError(not_served(name))
    return KINDS[name]
