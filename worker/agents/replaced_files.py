"""Notes what a job is about to replace in an agent's files, so that it can be brought back (rules.md 51).

It is noted before anything is written: a worker that dies in between leaves a note of what is still there.
"""

from __future__ import annotations

from worker.agents.agent_context import AgentContext
from worker.agents.workspace_plan import Step, WorkspacePlan, read_content
from worker.masking import MASK, mask
from worker.records.file_changes import FileChange, Unkept, record_changes
from worker.workspace.plan import RecordedFile, as_we_left_it, sha256_of
from worker.workspace.seeds import is_seed
from worker.workspace.three_sides import as_rendered
from worker.workspace.tokens import PLACEHOLDER, find_token

MOST_TEXT_CHARACTERS = 256 * 1024
"""The longest text of an agent's that is kept when a job replaces it."""


def note_changes(context: AgentContext, plan: WorkspacePlan) -> None:
    """Record what the steps that write will replace. Of an agent that this job has just made, nothing is.

    Raises TransientError, PermanentError.
    """
    steps = [step for step in plan.steps.values() if step.writes]
    if context.fresh or not steps:
        return
    unread = [step for step in steps if _must_be_read(step, plan.records.get(step.file.name))]
    if unread:
        found = read_content(context, plan, [step.file.name for step in unread])
        for step in unread:
            step.live = found[step.file.name]
    texts: dict[str, str] = {}
    changes = [_change(context, plan, step, texts) for step in steps]
    with context.services.engine.begin() as connection:
        home = context.record.home
        record_changes(connection, context.agent_id, home.gateway_id, context.held.job_id, changes, texts)


def _must_be_read(step: Step, record: RecordedFile | None) -> bool:
    """Whether what stands in the file is not known and has to be kept."""
    live = step.live
    if live is None or live.content is not None or live.size == 0:
        return False
    if record is not None and as_we_left_it(live, record):
        return not record.has_text
    return True


def _change(context: AgentContext, plan: WorkspacePlan, step: Step, texts: dict[str, str]) -> FileChange:
    """What the step replaces; adds the texts to keep to ``texts``, by hash."""
    name, record = step.file.name, plan.records.get(step.file.name)
    former = record.source_sha256 if record is not None else None
    change = FileChange(name, former, step.file.source_sha256)
    if step.live is None or not step.live.content:
        return change
    text = _with_placeholder(context, plan, step, step.live.content)
    digest = sha256_of(text)
    if digest == former:
        if record is not None and not record.has_text:
            texts[digest] = text
        return change
    if record is None and is_seed(name, step.live.content):
        return change
    unkept = _why_unkept(context, step, text)
    if unkept is not None:
        return FileChange(name, former, step.file.source_sha256, None, unkept)
    texts[digest] = text
    return FileChange(name, former, step.file.source_sha256, digest)


def _with_placeholder(context: AgentContext, plan: WorkspacePlan, step: Step, text: str) -> str:
    """The text as a rendering has it: the token's place is marked, and the token is left out."""
    if not step.file.carries_token:
        return text
    section = context.dialect.credentials_in == "AGENTS.md"
    known = [token.plain for token in (plan.token, plan.outgoing) if token is not None]
    for token in (*known, find_token(text, section=section)):
        text = as_rendered(text, token)
    return text


def _why_unkept(context: AgentContext, step: Step, text: str) -> Unkept | None:
    if step.live is not None and step.live.garbled:
        return "not_text"
    if len(text) > MOST_TEXT_CHARACTERS:
        return "long"
    shown = text.replace(PLACEHOLDER, MASK)
    if mask(shown, [context.record.address.token]) != shown or (
        shown != text and not step.file.carries_token
    ):
        return "secret"
    return None
