"""Finds files that a gateway said it had written and has not (rules.md 47).

Such a file is older than the write on record, and holds what that write was to replace. What is known of it
is then what was known before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from worker.agents.agent_context import AgentContext
from worker.records.file_changes import FileChange, last_writes
from worker.workspace.plan import LiveFile, RecordedFile, sha256_of
from worker.workspace.seeds import is_seed


def may_be_unwritten(live: LiveFile | None, record: RecordedFile | None) -> bool:
    """Whether the file is older than the last write that is on record; False if either time is unknown."""
    return (
        live is not None
        and record is not None
        and live.updated_at_ms is not None
        and record.updated_at_ms is not None
        and live.updated_at_ms < record.updated_at_ms
    )


def records_before(
    context: AgentContext, records: Mapping[str, RecordedFile], files: Mapping[str, LiveFile]
) -> dict[str, RecordedFile | None]:
    """What was on record before the last write, of those ``files`` that it has not reached; None where
    nothing was. ``files``: with their content, by name; a warning names those that are found."""
    with context.services.engine.connect() as connection:
        writes = last_writes(connection, context.agent_id, context.record.gateway_id, files)
    found = {
        name: None
        if is_seed(name, files[name].content or "")
        else _before(records[name], change, files[name])
        for name, change in writes.items()
        if _is_unwritten(records[name], change, files[name])
    }
    if found:
        context.warn(
            f"The gateway said that it had written {' and '.join(sorted(found))}, and has not: what was to be"
            " replaced stands there, from before. See the gateway's log and its disk."
        )
    return found


def _is_unwritten(record: RecordedFile, change: FileChange | None, live: LiveFile) -> bool:
    if live.content is None or live.garbled:
        return False
    there = sha256_of(live.content)
    if change is None:
        return there != record.source_sha256 and not record.mixed
    former = None if change.unkept else change.former_sha256
    return there == (change.text_sha256 or former)


def _before(record: RecordedFile, change: FileChange | None, live: LiveFile) -> RecordedFile | None:
    if change is None or change.former_sha256 is None:
        return None
    return replace(
        record,
        source_sha256=change.former_sha256,
        size=live.size,
        updated_at_ms=live.updated_at_ms,
        mixed=change.text_sha256 is not None,
        has_text=True,
    )
