"""Takes an agent's files and roster entry back to what they were before a job changed them, and keeps them so
(rules.md 51).

A rollback makes rows of ``held_files`` and ``held_fields``; everything else is an ordinary delivery of what
the agent then keeps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.agent_context import JobProfile
from worker.agents.agent_job import Adjusted, reconcile
from worker.errors import PermanentError
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import Claim, finish
from worker.jobs.store.jobs import requester_of
from worker.records.agent_repository import AgentRecord
from worker.records.file_changes import (
    EntryChange,
    FileChange,
    changed_after,
    changes_of,
    entry_change_of,
    last_change,
)
from worker.records.file_texts import texts_of
from worker.records.holds import SINCE, hold, hold_fields, open_roll_out_that_holds, release_holds
from worker.runtime.services import Services
from worker.worker_row import require_no_older_worker
from worker.workspace.held import HeldEntry, HeldFile
from worker.workspace.template_sources import sources_sha256

HELD_ALL_THE_SAME = (
    "What it was to bring back is held all the same, so that the next update or sync brings it back;"
    " `provisioner rollback AGENT --release` ends that."
)
"""Said of a rollback that fails or is cancelled after it has begun."""
ROLLBACK = JobProfile(None, "", "rolled back", mints=False, serves_main=True)


def roll_back(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
    """Roll the agent back, or only let it follow its templates again; return None once its row has succeeded,
    or the snooze in which it waits.

    Adds to ``warnings``. Raises TransientError, PermanentError, LeaseLostError.
    """
    if held.options.get("release") is True:
        _release(services, held)
        return None
    return reconcile(services, held, warnings, ROLLBACK, partial(_take_back, services, held, warnings))


def _release(services: Services, held: Claim) -> None:
    dry_run = held.options.get("dry_run") is True
    with services.engine.begin() as connection:
        agents = [held.agent_id]
        released = [] if dry_run else release_holds(connection, agents, of_open_roll_outs=False)
        result = {"agent_id": str(held.agent_id), "dry_run": dry_run, "released": bool(released), "files": {}}
        roll_out = open_roll_out_that_holds(connection, held.agent_id)
        warnings = [] if roll_out is None else [_still_held(roll_out)]
        finish(connection, held, "succeeded", result=result, warnings=warnings, files={})


def _still_held(roll_out: UUID) -> str:
    return (
        f"Roll-out {roll_out}, which goes on, holds it until it reaches it; `provisioner rollout abort"
        f" {roll_out}` ends that."
    )


@dataclass(frozen=True)
class _Former:
    """What a rollback brings back: the files to keep, texts of the agent's by file name, and the values that
    its entry had."""

    held: Mapping[str, HeldFile]
    restores: Mapping[str, str]
    fields: Mapping[str, Any]
    entry: HeldEntry


def _take_back(
    services: Services, held: Claim, warnings: list[str], connection: Connection, record: AgentRecord
) -> Adjusted:
    """Point the agent's files and entry to what they were. A dry run does so in memory alone."""
    undone = _changes_to_undo(connection, held, record)
    former = _former(services, connection, held, record, undone)
    for sentence in _notes(connection, held.agent_id, record, undone, former):
        if sentence not in warnings:
            warnings.append(sentence)
    if held.options.get("dry_run") is not True:
        require_no_older_worker(connection, SINCE, "files that agents keep as they were")
        hold(connection, held.agent_id, record.gateway_id, list(former.held.values()))
        hold_fields(connection, held.agent_id, record.gateway_id, former.fields, former.entry)
    record = replace(record, held={**record.held, **former.held})
    if former.fields:
        fields = {**json.loads(record.held_fields or "{}"), **former.fields}
        entry = replace(former.entry, fields=tuple(sorted(fields)))
        record = replace(record, held_fields=json.dumps(fields), held_entry=entry)
    return Adjusted(record, former.restores)


@dataclass(frozen=True)
class _Undone:
    """What a job changed of one agent."""

    job_id: UUID
    files: Sequence[FileChange]
    entry: EntryChange | None


def _changes_to_undo(connection: Connection, held: Claim, record: AgentRecord) -> _Undone:
    """The job to undo, and what it changed. Raises PermanentError if there is nothing to take back."""
    given = held.options.get("undo_job_id")
    if given is None:
        last = last_change(connection, held.agent_id, record.gateway_id)
        if last is None:
            raise PermanentError(
                f"Nothing of {record.shown_name} can be taken back: no job has changed it on gateway"
                f" {record.gateway.name!r} since it was made there, or longer ago than records are kept.",
                reason_code=ReasonCode.REFUSED_REQUEST,
            )
        given = last.job_id
    job_id = UUID(str(given))
    place = (held.agent_id, record.gateway_id, job_id)
    undone = _Undone(job_id, changes_of(connection, *place), entry_change_of(connection, *place))
    if not undone.files and undone.entry is None:
        raise PermanentError(
            f"Job {job_id} changed nothing of {record.shown_name} on gateway {record.gateway.name!r}, or"
            " longer ago than records are kept: `provisioner job` shows what a job did.",
            reason_code=ReasonCode.REFUSED_REQUEST,
        )
    return undone


def _former(
    services: Services,
    connection: Connection,
    held: Claim,
    record: AgentRecord,
    undone: _Undone,
) -> _Former:
    sources, by = sources_sha256(services.settings.templates_dir), requester_of(connection, held.job_id)
    changes = undone.files
    hashes = {each for change in changes for each in (change.former_sha256, change.text_sha256) if each}
    texts = texts_of(connection, record.gateway_id, hashes | {change.written_sha256 for change in changes})
    kept: dict[str, HeldFile] = {}
    restores: dict[str, str] = {}
    for change in changes:
        own = texts.get(change.text_sha256 or "")
        pinned = change.former_sha256
        if own is not None:
            restores[change.name] = own
            pinned = pinned if pinned in texts else change.written_sha256
        kept[change.name] = HeldFile(
            change.name,
            pinned if pinned in texts else None,
            "rollback",
            held.job_id,
            by,
            datetime.now(UTC),
            sources,
            text=texts.get(pinned or ""),
        )
    fields = undone.entry.fields if undone.entry is not None else {}
    entry = HeldEntry(tuple(sorted(fields)), held.job_id, by, datetime.now(UTC))
    return _Former(kept, restores, fields, entry)


def _notes(
    connection: Connection,
    agent_id: UUID,
    record: AgentRecord,
    undone: _Undone,
    former: _Former,
) -> list[str]:
    """Sentences about what cannot be brought back, and what goes back further than was asked for."""
    notes = []
    for name in undone.entry.unkept if undone.entry is not None else ():
        notes.append(
            f"{name} of its roster entry stays as it is: what was there may be secret and is not kept."
        )
    for change in undone.files:
        name = change.name
        if change.unkept is not None:
            notes.append(
                f"What stood in {name} was not kept, for {_UNKEPT[change.unkept]}: what was delivered before"
                " is put back, with what the agent wrote as far as it is still there."
            )
        if former.held[name].text is None and name not in former.restores:
            what = "it was not there before" if change.former_sha256 is None else "its text is kept no longer"
            notes.append(
                f"{name} is left as it is, because {what}; it follows no template until it is released."
            )
    later = changed_after(connection, agent_id, record.gateway_id, undone.job_id, former.held)
    for name, at in later.items():
        notes.append(
            f"{name} was changed again on {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC; that is taken back too."
        )
    return notes


_UNKEPT = {
    "secret": "it holds what looks like a secret",
    "long": "it is longer than 256 KB",
    "not_text": "it is not UTF-8 text",
}
