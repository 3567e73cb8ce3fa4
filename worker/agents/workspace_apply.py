"""Writes an agent's workspace on its gateway as planned, the file that carries the token last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from worker.agents.agent_context import AgentContext
from worker.agents.token_choice import Token, commit, new_token
from worker.agents.workspace_plan import Step, WorkspacePlan, plan_workspace
from worker.errors import PermanentError, TransientError
from worker.gateway.agent_files import NotThereYetError, Written
from worker.gateway.errors import FileRefused, UnsupportedFile
from worker.jobs.states import ReasonCode
from worker.records.file_records import record_files
from worker.records.places import note_resolved
from worker.workspace.plan import MEMORY_FILES, RecordedFile
from worker.workspace.rendering import RenderedFile
from worker.workspace.tokens import find_token, with_token

UNANSWERED = "unanswered"
"""The action in ``job_agents.files`` for a file that was sent without getting an answer: whether it was
written is unknown until the next try reads it. The entry's ``sent`` holds the action that was tried."""


def apply_workspace(context: AgentContext, *, first: bool) -> None:
    """Write the workspace as it was rendered, and report in ``context.files`` what was done.

    ``first``: the agent is new on its gateway. If the gateway does not support a file name, the name is
    removed from the dialect, and the workspace is rendered and planned again. Raises TransientError,
    PermanentError, LeaseLostError.
    """
    for _ in range(len(context.dialect.files) + 1):
        try:
            _apply_plan(context, plan_workspace(context, first=first))
            return
        except UnsupportedFile as error:
            name = error.name
            if name is None or name not in context.dialect.files:
                raise
            context.dialect = context.dialect.without_file(name)
            context.warn(f"This gateway does not take {name}.")
    raise PermanentError(
        "The gateway refuses every file by name.",
        reason_code=ReasonCode.GATEWAY_REFUSED,
    )


def _apply_plan(context: AgentContext, plan: WorkspacePlan) -> None:
    warn_of_sizes(context, plan.rendered)
    written: dict[str, RecordedFile] = {}
    carrier = plan.carrier
    token = plan.token
    try:
        _write_files(context, plan, written)
        _write_scratch(context, plan, written)
        if plan.mints:
            token = new_token(context, plan.outgoing)
            plan.token = token  # from here on, diffs must mask it
            carrier.text = with_token(carrier.file.text, token.plain)
        if token is not None:
            _write_carrier(context, plan, carrier, token, written)
            with context.services.engine.begin() as connection:
                commit(connection, context, token)
                _save(context, connection, written, plan)
        elif written or _newly_shown(context, plan):
            with context.services.engine.begin() as connection:
                _save(context, connection, written, plan)
    except (TransientError, PermanentError):
        _save_partial(context, plan, written)
        raise
    context.files = _report(context, plan)


def _save_partial(context: AgentContext, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    """Store what a failed try has written, and what it sent without an answer: the next try will find those
    files unchanged."""
    report = plan.report(with_diffs=context.option("diff"))
    context.files |= {name: report[name] for name in written if _is_written(report[name])}
    for name in sorted(plan.files.unanswered):
        if not _is_written(context.files.get(name, {})):
            context.files[name] = report[name] | {"action": UNANSWERED, "sent": report[name]["action"]}
    if not written and context.files == context.held.files:
        return
    with context.services.engine.begin() as connection:
        _save(context, connection, written, plan)
        context.advance(connection, None, files=context.files, warnings=context.warnings)


def _report(context: AgentContext, plan: WorkspacePlan) -> dict[str, Any]:
    """The report of what the job did in all its tries, ``plan`` being that of the last.

    A file that was sent without an answer and is found to be as sent counts as written by this job.
    """
    report = plan.report(with_diffs=context.option("diff"))
    for name, shown in report.items():
        before = dict(context.files.get(name, {}))
        if before.get("action") == UNANSWERED and _is_found(plan.steps.get(name), before):
            before["action"] = before["sent"]
        if shown["action"] in ("unchanged", "preserved") and _is_written(before):
            shown |= {key: before[key] for key in ("action", "changed_by", "diff") if key in before}
    return report


def _is_found(step: Step | None, sent: Mapping[str, Any]) -> bool:
    return step is not None and (step.action, step.file.source_sha256) == ("unchanged", sent["source_sha256"])


def _is_written(shown: Mapping[str, Any]) -> bool:
    return shown.get("action") in ("create", "update")


def _write_files(context: AgentContext, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    todo: dict[str, RenderedFile] = {}
    for step in plan.steps.values():
        if step.file.kind != "file" or step.file.carries_token:
            continue
        if step.action in ("create", "update"):
            todo[step.file.name] = step.file
        elif step.action == "unchanged" and step.live is not None and step.live.content is not None:
            _record_unchanged(step, written)

    def attempt() -> None:
        texts = {name: file.text for name, file in todo.items()}
        try:
            if texts:
                plan.files.write(texts, on_written)
        except FileRefused as error:
            # The agent fills these files and may keep them as it likes, say behind a link.
            if error.name not in todo or error.name not in MEMORY_FILES:
                raise
            del todo[error.name]
            plan.steps[error.name].action = "preserved"
            context.warn(f"{error.name} was left as it is: {error}")
            attempt()

    def on_written(name: str, result: Written) -> None:
        written[name] = _recorded(todo.pop(name), result)

    context.services.retry_inline(attempt)


def _write_scratch(context: AgentContext, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    step = next((step for step in plan.steps.values() if step.file.kind == "scratch"), None)
    if step is not None and step.action in ("create", "update"):
        place, text = str(plan.scratch_id), step.file.text
        result = context.services.retry_inline(lambda: plan.files.write_scratch(place, step.file.name, text))
        written[step.file.name] = _recorded(step.file, result, place)


def _write_carrier(
    context: AgentContext, plan: WorkspacePlan, step: Step, token: Token, written: dict[str, RecordedFile]
) -> None:
    """Write the file that carries the token and read it back: only then may its hash be committed."""
    if step.action not in ("create", "update"):
        _record_unchanged(step, written)
        return
    name, text = step.file.name, step.text
    if not plan.mints:
        with context.services.engine.begin() as connection:
            context.advance(connection, "credentials")

    taken: list[Written] = []
    context.services.retry_inline(
        lambda: plan.files.write({name: text}, lambda _, result: taken.append(result))
    )
    context.files[name] = plan.report_of(name, with_diffs=context.option("diff"))
    back = context.services.retry_inline(lambda: plan.files.read([name])).get(name)
    section = context.dialect.credentials_in == "AGENTS.md"
    if back is None:
        raise NotThereYetError(f"{name} was written, but the gateway does not find it yet.")
    if back.content != text or find_token(back.content, section=section) != token.plain:
        raise PermanentError(f"{name} was written, but reads back differently: nothing was committed.")
    written[name] = _recorded(step.file, taken[-1])


def _record_unchanged(step: Step, written: dict[str, RecordedFile]) -> None:
    """Put a file on record that was read and found equal to its rendering."""
    if step.live is not None:
        written[step.file.name] = _recorded(step.file, Written(step.live.size, step.live.updated_at_ms))


def _recorded(file: RenderedFile, result: Written, locator: str | None = None) -> RecordedFile:
    return RecordedFile(file.kind, file.source_sha256, result.size, result.updated_at_ms, locator)


def _save(
    context: AgentContext, connection: Connection, written: dict[str, RecordedFile], plan: WorkspacePlan
) -> None:
    home, shown = context.record.home, _newly_shown(context, plan)
    rows = {name: written[name] for name in sorted(written)}
    if rows:
        record_files(connection, context.agent_id, home, context.held.job_id, rows, shown)
    elif shown is not None:
        note_resolved(connection, context.agent_id, home, shown)
    written.clear()


def _newly_shown(context: AgentContext, plan: WorkspacePlan) -> str | None:
    """The agent's configured folder as the gateway shows it, if that is not on record yet, else None."""
    home = context.record.home
    given = home.workspace
    if given is None or home.resolved_workspace in plan.files.shown:
        return None
    ending = given[1:] if given.startswith("~/") else given
    return next((folder for folder in sorted(plan.files.shown) if folder.endswith(ending)), None)


def warn_of_sizes(context: AgentContext, rendered: Mapping[str, RenderedFile]) -> None:
    """Warn of files so long that gateways would truncate them before the agent sees them (rules.md 14)."""
    for file in rendered.values():
        if file.too_long:
            context.warn(
                f"{file.name} has {len(file.text)} characters: gateways cut an injected file near 20000."
            )
