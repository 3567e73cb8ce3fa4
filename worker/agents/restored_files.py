"""Puts the files of a bundle into an agent's workspace plan, as the agent's own (rules.md 52).

The bundle's text is the agent's side, what was delivered then is the base, and the rendering of now is ours:
so a file that the agent never changed becomes today's rendering, and what it wrote stays.
"""

from __future__ import annotations

import time
from dataclasses import replace

from worker.agents.agent_context import AgentContext
from worker.agents.workspace_plan import Step, WorkspacePlan
from worker.workspace.actions import Action
from worker.workspace.bundle import OwnFiles
from worker.workspace.plan import (
    BOOTSTRAP,
    LiveFile,
    Mode,
    RecordedFile,
    decide,
    decide_carrier,
    sha256_of,
    unchanged_since_write,
)
from worker.workspace.rendering import RenderedFile
from worker.workspace.seeds import is_seed
from worker.workspace.three_sides import MARK, as_rendered, tools_of, with_tools, without_tools
from worker.workspace.tokens import PLACEHOLDER, find_token, with_token

_BEFORE_S = 2.0
"""Seconds by which a gateway's clock may be behind ours for a file to count as younger than the job."""


def put_own_files(context: AgentContext, plan: WorkspacePlan, own: OwnFiles) -> None:
    """Change the steps of a plan so that they deliver the bundle's texts. What stands in the workspace stays,
    unless we or OpenClaw wrote it. Raises TransientError, PermanentError."""
    mode = Mode(first=False, main=context.record.board is None, owners=context.record.owners)
    _put_carrier(context, plan, own, mode)
    for name, text in own.texts.items():
        file = plan.rendered.get(name) or _of_its_own(context, name, text)
        step = plan.steps.get(name)
        if file is None or (step is not None and step.action == "unsupported"):
            own.leave(name, "this gateway takes no file of that name")
        elif not file.carries_token:
            _put_file(context, plan, file, own, mode)
    if BOOTSTRAP not in own.texts and plan.steps.get(BOOTSTRAP) is not None:
        plan.steps[BOOTSTRAP].action = "preserved"  # it was set up before it was deleted


def _of_its_own(context: AgentContext, name: str, text: str) -> RenderedFile | None:
    """A file for which we have no text, where the gateway takes it."""
    if name not in context.dialect.files:
        return None
    return RenderedFile(name, "file", text, sha256_of(text), carries_token=False)


def _put_file(
    context: AgentContext, plan: WorkspacePlan, file: RenderedFile, own: OwnFiles, mode: Mode
) -> None:
    name = file.name
    step, record = plan.steps.get(name), plan.records.get(name)
    found = step.live if step is not None else context.services.retry_inline(plan.files.live).get(name)
    if found is not None and unchanged_since_write(found, record):
        return  # an earlier try of this job wrote it
    text, mixed, why = _desired(own, file, mode)
    if PLACEHOLDER in text:
        own.leave(name, "its agent's token stood in it, which is no file for a token")
        return
    if why is not None:
        context.warn(_unmerged(name, why))
    if found is not None and found.content is None:
        found = context.services.retry_inline(lambda: plan.files.read([name])).get(name)
    action: Action
    if found is None:
        action = "create"
    elif found.content == text:
        action = "preserved" if mixed else "unchanged"
    elif _may_be_replaced(context, own, file, found, record):
        action = "update"
    else:
        _warn_of_other(context, name)
        plan.steps[name] = Step(file, "preserved", text, found, mixed=True, records=True)
        return
    plan.steps[name] = Step(file, action, text, found, mixed, records=action == "preserved")


def _desired(own: OwnFiles, file: RenderedFile, mode: Mode) -> tuple[str, bool, str | None]:
    """The text that the file should have, whether it holds what the agent wrote, and why that could not be
    merged with today's rendering, to complete a sentence."""
    text, base = own.texts[file.name], own.delivered.get(file.name)
    if file.name == own.carrier and base is not None:  # here another file carries the token
        text, base = _without_section(text, base), _without_section(base, base)
    if text == base:
        return file.text, False, None
    if base is None or file.name == BOOTSTRAP:
        return text, text != file.text, None
    digest = sha256_of(base)
    record = RecordedFile(file.kind, digest, len(base.encode()), None, has_text=True)
    decision = decide(file, LiveFile(len(text.encode()), None, text), record, mode, {digest: base})
    action = getattr(decision, "action", "preserved")
    if action in ("update", "merge", "unchanged"):
        merged = getattr(decision, "text", None)
        return (file.text if merged is None else merged), action == "merge", None
    cause = getattr(decision, "why", None)
    return text, True, cause.value if cause is not None else None


def _without_section(text: str, base: str) -> str:
    ours = tools_of(base)
    return without_tools(text, *filter(None, [ours])).replace(MARK, "").rstrip("\r\n") + "\n"


def _may_be_replaced(
    context: AgentContext,
    own: OwnFiles,
    file: RenderedFile,
    found: LiveFile,
    record: RecordedFile | None,
) -> bool:
    """Whether what stands there is ours, or OpenClaw's own text: it writes default files for an agent that it
    is told of, which was none before this job."""
    text = found.content or ""
    ours = record is not None and sha256_of(text) == record.source_sha256
    if ours or not text or text in (file.text, own.delivered.get(file.name)) or is_seed(file.name, text):
        return True
    began_ms = (time.time() - context.held.age_s - _BEFORE_S) * 1000
    return context.fresh and found.updated_at_ms is not None and found.updated_at_ms >= began_ms


def _put_carrier(context: AgentContext, plan: WorkspacePlan, own: OwnFiles, mode: Mode) -> None:
    """Put the agent's text around our section ``## Tools`` in the file that carries the token."""
    step = plan.carrier
    whole, found = step.file, step.live
    name, section = whole.name, context.dialect.credentials_in == "AGENTS.md"
    tools = tools_of(whole.text)
    if name not in own.texts or tools is None or (found is not None and found.content is None):
        return
    text, mixed = _carrier_text(context, whole, own, mode, tools, section=section)
    live = found.content if found is not None else None
    standing = as_rendered(live, find_token(live, section=section)) if live is not None else None
    record = plan.records.get(name)
    if standing is not None and found is not None and standing != text:
        theirs = replace(found, content=standing)
        if not _may_be_replaced(context, own, whole, theirs, record):
            _warn_of_other(context, name)
            text, mixed = with_tools(without_tools(standing, tools), tools), True
    text = with_token(text, plan.token.plain) if plan.token is not None else text
    action: Action = "create" if live is None else "unchanged" if live == text else "update"
    if action == "unchanged" and mixed:
        action = "preserved"
    plan.steps[name] = Step(whole, action, text, found, mixed, records=action == "preserved")


def _carrier_text(
    context: AgentContext, whole: RenderedFile, own: OwnFiles, mode: Mode, tools: str, *, section: bool
) -> tuple[str, bool]:
    text, base = own.texts[whole.name], own.delivered.get(whole.name)
    if base is None:
        text = with_tools(without_tools(text, tools), tools)
        return text, text != whole.text
    digest = sha256_of(base)
    record = RecordedFile("file", digest, len(base.encode()), None, has_text=True)
    decision = decide_carrier(whole, text, record, mode, lambda: {digest: base}, section)
    if decision.why is not None:
        context.warn(_unmerged(whole.name, decision.why.value))
    return decision.text or whole.text, decision.mixed


def _warn_of_other(context: AgentContext, name: str) -> None:
    context.warn(
        f"{name} was left as it is: another text stands there than in the bundle, which neither we nor"
        " OpenClaw"
        " wrote. `provisioner agent export` shows the bundle's."
    )


def _unmerged(name: str, why: str) -> str:
    return f"{name} is as in the bundle, without what changed since: its agent and its template {why}."
