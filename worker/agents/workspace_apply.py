"""Writes an agent's workspace on its gateway as planned, the file that carries the token last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from worker.agents.agent_context import AgentContext
from worker.agents.replaced_files import note_changes
from worker.agents.restored_files import put_own_files
from worker.agents.token_choice import Token, commit, new_token
from worker.agents.workspace_plan import UNANSWERED, Step, WorkspacePlan, plan_workspace
from worker.errors import PermanentError, TransientError
from worker.gateway.agent_files import NotThereYetError, Written
from worker.gateway.errors import FileConflict, FileRefused, UnsupportedFile
from worker.jobs.states import ReasonCode
from worker.records.file_records import record_files
from worker.records.places import note_resolved
from worker.workspace.actions import WRITES
from worker.workspace.plan import MEMORY_FILES, RecordedFile
from worker.workspace.rendering import RenderedFile
from worker.workspace.tokens import find_token, with_token

MOST_LOOKS = 3
"""How often in a row a try looks at a workspace whose files change under it."""


def apply_workspace(context: AgentContext, *, first: bool) -> None:
    """Write the workspace as it was rendered, and report in ``context.files`` what was done.

    ``first``: the agent is new on its gateway. If the gateway does not support a file name, the name is
    removed from the dialect, and the workspace is rendered and planned again. Raises TransientError,
    PermanentError, LeaseLostError.
    """
    changed = 0
    for _ in range(len(context.dialect.files) + MOST_LOOKS):
        try:
            plan = plan_workspace(context, first=first)
            if context.own is not None:
                put_own_files(context, plan, context.own)
            _apply_plan(context, plan)
            return
        except FileConflict as error:
            changed += 1
            if changed == MOST_LOOKS:
                raise NotThereYetError(f"{error} It changed again at each of {MOST_LOOKS} tries.") from error
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
        note_changes(context, plan)
        _look_again(context, plan)
        _write_files(context, plan, written)
        _write_scratch(context, plan, written)
        if plan.mints:
            token = new_token(context, plan.outgoing)
            plan.token = token  # from here on, diffs must mask it
            carrier.text = with_token(carrier.text, token.plain)
        if token is not None:
            _write_carrier(context, plan, carrier, token, written)
            with context.services.engine.begin() as connection:
                if context.before_commit is not None:
                    context.before_commit(connection)
                commit(connection, context, token)
                _save(context, connection, written, plan)
        elif written or newly_shown(context, plan):
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
    if step is None or step.file.source_sha256 != sent["source_sha256"]:
        return False
    return step.action == ("preserved" if sent["sent"] == "merge" else "unchanged")


def _is_written(shown: Mapping[str, Any]) -> bool:
    return shown.get("action") in WRITES


def _expected(plan: WorkspacePlan, steps: Iterable[Step]) -> dict[str, str]:
    """The hash of each file that is replaced, as it was when it was planned."""
    return {step.file.name: digest for step in steps if (digest := plan.hash_of(step)) is not None}


def _look_again(context: AgentContext, plan: WorkspacePlan) -> None:
    """On a gateway that does not compare hashes, see once more that what is replaced stands there as it was
    planned. Raises FileConflict."""
    replaced = [
        step for step in plan.steps.values() if step.file.kind != "scratch" and step.writes and step.live
    ]
    if context.dialect.fences_writes or not replaced:
        return
    now = context.services.retry_inline(plan.files.live)
    for step in replaced:
        found, planned = now.get(step.file.name), step.live
        assert planned is not None
        if found is None or (found.size, found.updated_at_ms) != (planned.size, planned.updated_at_ms):
            raise FileConflict(
                f"{step.file.name} of {context.record.openclaw_id} changed before it was replaced."
            )


def _write_files(context: AgentContext, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    todo: dict[str, Step] = {}
    for step in plan.steps.values():
        if step.file.kind != "file" or step.file.carries_token:
            continue
        if step.writes:
            todo[step.file.name] = step
        elif step.records or (step.action == "unchanged" and step.live and step.live.content is not None):
            _record_unchanged(step, written)

    def attempt() -> None:
        texts = {name: step.text for name, step in todo.items()}
        try:
            if texts:
                plan.files.write(texts, on_written, _expected(plan, todo.values()))
        except FileRefused as error:
            # The agent fills these files and may keep them as it likes, say behind a link.
            if error.name not in todo or error.name not in MEMORY_FILES:
                raise
            del todo[error.name]
            plan.steps[error.name].action = "preserved"
            context.warn(f"{error.name} was left as it is: {error}")
            attempt()

    def on_written(name: str, result: Written) -> None:
        step = todo.pop(name)
        written[name] = _recorded(step, result)

    context.services.retry_inline(attempt)


def _write_scratch(context: AgentContext, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    step = next((step for step in plan.steps.values() if step.file.kind == "scratch"), None)
    if step is not None and step.writes:
        place, text = str(plan.scratch_id), step.text
        revision = step.live.revision if step.live is not None else None
        result = context.services.retry_inline(
            lambda: plan.files.write_scratch(place, step.file.name, text, revision)
        )
        written[step.file.name] = _recorded(step, result, place)
    elif step is not None and step.records:
        _record_unchanged(step, written, str(plan.scratch_id))


def _write_carrier(
    context: AgentContext, plan: WorkspacePlan, step: Step, token: Token, written: dict[str, RecordedFile]
) -> None:
    """Write the file that carries the token and read it back: only then may its hash be committed."""
    if not step.writes:
        if step.action != "conflict":
            _record_unchanged(step, written)
        return
    name, text = step.file.name, step.text
    if not plan.mints:
        with context.services.engine.begin() as connection:
            context.advance(connection, "credentials")

    taken: list[Written] = []
    expected = _expected(plan, [step])
    context.services.retry_inline(
        lambda: plan.files.write({name: text}, lambda _, result: taken.append(result), expected)
    )
    context.files[name] = plan.report_of(name, with_diffs=context.option("diff"))
    back = context.services.retry_inline(lambda: plan.files.read([name])).get(name)
    section = context.dialect.credentials_in == "AGENTS.md"
    if back is None:
        raise NotThereYetError(f"{name} was written, but the gateway does not find it yet.")
    if back.content != text or find_token(back.content, section=section) != token.plain:
        raise PermanentError(f"{name} was written, but reads back differently: nothing was committed.")
    written[name] = _recorded(step, taken[-1])
    if step.action == "conflict":  # our section alone was written, so what was merged last stays on record
        written[name] = replace(written[name], source_sha256=plan.records[name].source_sha256)


def _record_unchanged(step: Step, written: dict[str, RecordedFile], locator: str | None = None) -> None:
    """Put a file on record as it stands, without writing it."""
    if step.live is not None:
        result = Written(step.live.size, step.live.updated_at_ms)
        written[step.file.name] = _recorded(step, result, locator)


def _recorded(step: Step, result: Written, locator: str | None = None) -> RecordedFile:
    file = step.file
    return RecordedFile(file.kind, file.source_sha256, result.size, result.updated_at_ms, locator, step.mixed)


def _save(
    context: AgentContext, connection: Connection, written: dict[str, RecordedFile], plan: WorkspacePlan
) -> None:
    home, shown = context.record.home, newly_shown(context, plan)
    rows = {name: written[name] for name in sorted(written)}
    if rows:
        texts = {
            step.file.source_sha256: step.file.text
            for name in rows
            if (step := plan.steps.get(name)) is not None
        }
        known = {record.source_sha256 for record in plan.records.values() if record.has_text}
        new = {digest: texts[digest] for digest in sorted(texts.keys() - known)}
        record_files(connection, context.agent_id, home, context.held.job_id, rows, new, shown)
    elif shown is not None:
        note_resolved(connection, context.agent_id, home, shown)
    written.clear()


def newly_shown(context: AgentContext, plan: WorkspacePlan) -> str | None:
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
