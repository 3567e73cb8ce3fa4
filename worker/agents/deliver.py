"""Writes an agent's workspace on its gateway as planned, the file that carries the token last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from worker.agents.context import Work
from worker.agents.credentials import Token, commit, new_token
from worker.agents.workspace_plan import Step, WorkspacePlan, plan_workspace
from worker.errors import PermanentError, TransientError
from worker.gateway.agent_files import NotThereYetError, Written
from worker.gateway.errors import FileRefused, UnsupportedFile
from worker.records.file_records import record_files
from worker.records.places import note_resolved
from worker.workspace.plan import MEMORIES, RecordedFile
from worker.workspace.rendering import RenderedFile
from worker.workspace.tokens import find_token, with_token

UNANSWERED = "unanswered"
"""The action that ``job_agents.files`` shows for a file that was sent but not answered: whether it was
written is unknown until the next try reads it. ``sent`` holds the action that was tried."""


class ReadBackError(PermanentError):
    """The gateway accepted the file that carries the token, but returns something else when it is read."""


def deliver(work: Work, *, first: bool) -> None:
    """Make the workspace equal to its rendering, and report in ``work.files`` what was done.

    ``first``: the agent is new on its gateway. If the gateway refuses a file by name, the name is taken out
    of the dialect and the workspace is rendered again. Raises TransientError, PermanentError, LeaseLostError.
    """
    for _ in range(len(work.dialect.files) + 1):
        try:
            _apply(work, plan_workspace(work, first=first))
            return
        except UnsupportedFile as error:
            name = error.name
            if name is None or name not in work.dialect.files:
                raise
            work.dialect = work.dialect.without_file(name)
            work.warn(f"This gateway does not take {name}.")
    raise PermanentError("The gateway refuses every file by name.")


def _apply(work: Work, plan: WorkspacePlan) -> None:
    warn_of_sizes(work, plan.rendered)
    written: dict[str, RecordedFile] = {}
    carrier = plan.carrier
    token = plan.token
    try:
        _write_files(work, plan, written)
        _write_scratch(work, plan, written)
        if plan.mints:
            token = new_token(work, plan.outgoing)
            plan.token = token  # from here on, diffs must mask it
            carrier.text = with_token(carrier.file.text, token.plain)
        if token is not None:
            _write_carrier(work, plan, carrier, token, written)
            with work.services.engine.begin() as connection:
                commit(connection, work, token)
                _save(work, connection, written, plan)
        elif written or _newly_shown(work, plan):
            with work.services.engine.begin() as connection:
                _save(work, connection, written, plan)
    except (TransientError, PermanentError):
        _keep(work, plan, written)
        raise
    work.files = _in_all(work, plan)


def _keep(work: Work, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    """Store what a failed try has written, and what it sent without an answer: the next try will find those
    files unchanged."""
    report = plan.report(with_diffs=work.option("diff"))
    work.files |= {name: report[name] for name in written if _is_written(report[name])}
    for name in sorted(plan.files.unanswered):
        if not _is_written(work.files.get(name, {})):
            work.files[name] = report[name] | {"action": UNANSWERED, "sent": report[name]["action"]}
    if not written and work.files == work.held.files:
        return
    with work.services.engine.begin() as connection:
        _save(work, connection, written, plan)
        work.advance(connection, None, files=work.files, warnings=work.warnings)


def _in_all(work: Work, plan: WorkspacePlan) -> dict[str, Any]:
    """The report of what the job did in all its tries, ``plan`` being that of the last.

    A file that was sent without an answer and is found to be as sent counts as written by this job.
    """
    report = plan.report(with_diffs=work.option("diff"))
    for name, shown in report.items():
        before = dict(work.files.get(name, {}))
        if before.get("action") == UNANSWERED and _is_found(plan.steps.get(name), before):
            before["action"] = before["sent"]
        if shown["action"] in ("unchanged", "preserved") and _is_written(before):
            shown |= {key: before[key] for key in ("action", "changed_by", "diff") if key in before}
    return report


def _is_found(step: Step | None, sent: Mapping[str, Any]) -> bool:
    return step is not None and (step.action, step.file.source_sha256) == ("unchanged", sent["source_sha256"])


def _is_written(shown: Mapping[str, Any]) -> bool:
    return shown.get("action") in ("create", "update")


def _write_files(work: Work, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    todo: dict[str, RenderedFile] = {}
    for step in plan.steps.values():
        if step.file.kind != "file" or step.file.carries_token:
            continue
        if step.action in ("create", "update"):
            todo[step.file.name] = step.file
        elif step.action == "unchanged" and step.live is not None and step.live.content is not None:
            _adopt(step, written)

    def attempt() -> None:
        texts = {name: file.text for name, file in todo.items()}
        try:
            if texts:
                plan.files.write(texts, on_written)
        except FileRefused as error:
            # The agent fills these files and may keep them as it likes, say behind a link.
            if error.name not in todo or error.name not in MEMORIES:
                raise
            del todo[error.name]
            plan.steps[error.name].action = "preserved"
            work.warn(f"{error.name} was left as it is: {error}")
            attempt()

    def on_written(name: str, result: Written) -> None:
        written[name] = _recorded(todo.pop(name), result)

    work.services.patiently(attempt)


def _write_scratch(work: Work, plan: WorkspacePlan, written: dict[str, RecordedFile]) -> None:
    step = next((step for step in plan.steps.values() if step.file.kind == "scratch"), None)
    if step is not None and step.action in ("create", "update"):
        place, text = str(plan.scratch_id), step.file.text
        result = work.services.patiently(lambda: plan.files.write_scratch(place, step.file.name, text))
        written[step.file.name] = _recorded(step.file, result, place)


def _write_carrier(
    work: Work, plan: WorkspacePlan, step: Step, token: Token, written: dict[str, RecordedFile]
) -> None:
    """Write the file that carries the token and read it back: only then may its hash be committed."""
    if step.action not in ("create", "update"):
        _adopt(step, written)
        return
    name, text = step.file.name, step.text
    if not plan.mints:
        with work.services.engine.begin() as connection:
            work.advance(connection, "credentials")

    taken: list[Written] = []
    work.services.patiently(lambda: plan.files.write({name: text}, lambda _, result: taken.append(result)))
    work.files[name] = plan.report_of(name, with_diffs=work.option("diff"))
    back = work.services.patiently(lambda: plan.files.read([name])).get(name)
    section = work.dialect.credentials_in == "AGENTS.md"
    if back is None:
        raise NotThereYetError(f"{name} was written, but the gateway does not find it yet.")
    if back.content != text or find_token(back.content, section=section) != token.plain:
        raise ReadBackError(f"{name} was written, but reads back differently: nothing was committed.")
    written[name] = _recorded(step.file, taken[-1])


def _adopt(step: Step, written: dict[str, RecordedFile]) -> None:
    """Put a file on record that was read and found equal to its rendering."""
    if step.live is not None:
        written[step.file.name] = _recorded(step.file, Written(step.live.size, step.live.updated_at_ms))


def _recorded(file: RenderedFile, result: Written, locator: str | None = None) -> RecordedFile:
    return RecordedFile(file.kind, file.source_sha256, result.size, result.updated_at_ms, locator)


def _save(work: Work, connection: Connection, written: dict[str, RecordedFile], plan: WorkspacePlan) -> None:
    home, shown = work.record.home, _newly_shown(work, plan)
    rows = {name: written[name] for name in sorted(written)}
    if rows:
        record_files(connection, work.agent_id, home, work.held.job_id, rows, shown)
    elif shown is not None:
        note_resolved(connection, work.agent_id, home, shown)
    written.clear()


def _newly_shown(work: Work, plan: WorkspacePlan) -> str | None:
    """The agent's configured folder as the gateway shows it, if that is not on record yet, else None."""
    home = work.record.home
    given = home.workspace
    if given is None or home.resolved_workspace in plan.files.shown:
        return None
    ending = given[1:] if given.startswith("~/") else given
    return next((folder for folder in sorted(plan.files.shown) if folder.endswith(ending)), None)


def warn_of_sizes(work: Work, rendered: Mapping[str, RenderedFile]) -> None:
    """Warn of files that a gateway would cut before its agent sees them (rules.md 14)."""
    for file in rendered.values():
        if file.too_long:
            work.warn(
                f"{file.name} has {len(file.text)} characters: gateways cut an injected file near 20000."
            )
