"""Tells from one look at an agent's workspace that a sync has nothing to do for it.

The decisions are those of `worker.agents.workspace_plan`. Whatever the look does not show, or would have to
be written or put on record, is left to the agent's own row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from worker.agents.agent_context import AgentContext, render
from worker.agents.workspace_apply import newly_shown, warn_of_sizes
from worker.agents.workspace_plan import Step, plan_workspace
from worker.database import DATABASE_AWAY
from worker.gateway.workspace_looks import SeenFiles, ToLookAt
from worker.records.drift import what_differs
from worker.workspace.plan import BOOTSTRAP, Mode
from worker.workspace.rendering import RenderedFile, RenderedWorkspace

NEEDS_MORE_THAN_A_LOOK = ("rotate_tokens", "reset_sessions")
"""Options with which a sync has something to do for every agent."""


@dataclass(frozen=True)
class Candidate:
    """An agent that may need nothing: its records say so, and its gateway has not been asked yet."""

    context: AgentContext
    rendered: RenderedWorkspace

    @property
    def to_look_at(self) -> ToLookAt:
        """What to look at."""
        record = self.context.record
        scratches = [file.name for file in self.rendered.values() if file.kind == "scratch"]
        on_record = [record.files[name].locator for name in scratches if name in record.files]
        return ToLookAt(record.openclaw_id, on_record[0] if on_record else None)


@dataclass(frozen=True)
class Unchanged:
    """An agent that needs nothing. ``version``: of its row in ``agents``, on which that rests; ``files`` and
    ``warnings``: what its row in the job ends with; ``equal``: nothing of it differs from what was wanted."""

    agent_id: UUID
    version: str | None
    files: Mapping[str, Any]
    warnings: list[str]
    equal: bool


def candidate(context: AgentContext) -> Candidate | None:
    """The agent, if its records do not rule out that it needs nothing."""
    record = context.record
    if record.held or record.held_entry is not None or record.former_places or not record.home.recorded:
        return None
    if not record.provisioned_before or record.stored_session_key != record.session_key:
        return None
    if record.token_hash is None or record.pending_hash is not None:
        return None
    if record.verified_hash != record.token_hash or record.layers.counting().keys() - context.dialect.files:
        return None
    try:
        rendered = render(record, context.dialect, context.services.settings)
    except Exception:  # its own row fails with a sentence
        return None
    if any(_must_be_written(context, file) for file in rendered.values()):
        return None
    return Candidate(context, rendered)


def _must_be_written(context: AgentContext, file: RenderedFile) -> bool:
    """Whether the records already tell that there is something to do for the file, so that a look is of no
    use: its rendering is not the one that was delivered, and the file is not one that agents fill in."""
    record = context.record.files.get(file.name)
    if file.kind == "scratch" or file.carries_token:
        return record is None or record.source_sha256 != file.source_sha256
    is_kept = Mode(first=False, owners=context.record.owners).keeps(file.name)
    if record is None or is_kept or file.name == BOOTSTRAP:
        return False
    return record.source_sha256 != file.source_sha256


def unchanged(candidate: Candidate, seen: SeenFiles) -> Unchanged | None:
    """What the agent's row ends with, if the look shows that the agent needs nothing."""
    context = candidate.context
    try:
        plan = plan_workspace(context, first=False, rendered=candidate.rendered, files=seen)
    except DATABASE_AWAY:
        raise
    except Exception:  # the look does not tell, or its own row fails with a sentence
        return None
    settled = plan.token is None and not plan.mints and newly_shown(context, plan) is None
    if not settled or not all(_is_settled(step) for step in plan.steps.values()):
        return None
    if not context.option("dry_run"):  # which warns of what it would write, and no more
        warn_of_sizes(context, plan.rendered)
    files = plan.report(with_diffs=False)
    differs = what_differs(context.held.kind, context.held.options, files)
    equal = differs is not None and not differs
    return Unchanged(context.agent_id, context.record.version, files, context.warnings, equal)


def _is_settled(step: Step) -> bool:
    read = step.live is not None and step.live.content is not None and step.file.kind == "file"
    return step.action in ("unchanged", "preserved") and not step.records and not read and not step.writes
