"""Plans what a job will do to an agent's workspace: reads, decides, and writes nothing (decisions.md D2).

A dry run reports this plan, and a job applies it unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from worker.agents.agent_context import AgentContext
from worker.agents.token_choice import Token, choose_token
from worker.agents.unwritten_files import may_be_unwritten, records_before
from worker.errors import PermanentError
from worker.gateway.agent_files import AgentFiles, NotThereYetError, WorkspaceAbsentError
from worker.gateway.errors import PermanentGatewayError
from worker.gateway.heartbeats import FENCED_HINT, heartbeat_enabled
from worker.jobs.states import ReasonCode
from worker.printable import line
from worker.records.file_records import read_texts
from worker.workspace.actions import WRITES, Action
from worker.workspace.diffs import file_diff, known_secrets
from worker.workspace.held import HeldFile, hold_notes
from worker.workspace.owners_carrier import foreign_tokens, section_of, with_section
from worker.workspace.plan import (
    Bases,
    Decision,
    LiveFile,
    Mode,
    Need,
    RecordedFile,
    as_we_left_it,
    decide,
    decide_carrier,
    has_agent_text,
    restore,
    restore_carrier,
    sha256_of,
    unchanged_since_write,
)
from worker.workspace.rendering import RenderedFile, RenderedWorkspace
from worker.workspace.tokens import find_token, with_token

SCRATCH_WAIT_S = 30.0
"""Age of a row's first claim, in seconds, up to which the job waits for the gateway to make a new agent's
heartbeat automation; an idle 2026.9.6 takes 3 s."""
UNANSWERED = "unanswered"
"""The action in ``job_agents.files`` for a file that was sent without getting an answer: whether it was
written is unknown until the next try reads it. The entry's ``sent`` holds the action that was tried."""
ABSENCE_WAIT_S = 30.0
"""Age of a row's first claim, in seconds, up to which the job tries again to find a workspace that its
gateway does not find."""


@dataclass
class Step:
    """The action planned for one file. ``text``: the text to write; in the file that carries the token, with
    a placeholder until a new token is minted; ``live``: the file on the gateway, None if there is none;
    ``mixed`` and ``records``: as in `Decision`."""

    file: RenderedFile
    action: Action
    text: str
    live: LiveFile | None
    mixed: bool = False
    records: bool = False

    @property
    def writes(self) -> bool:
        """Whether the file is written. Of a conflict in the file that carries the token, our section is."""
        if self.action == "conflict" and self.file.carries_token:
            return self.live is None or self.live.content != self.text
        return self.action in WRITES


@dataclass
class WorkspacePlan:
    """One agent's workspace as it should be and as it is, with a step for each file.

    ``token``: the token to keep. If it is None and ``mints`` is true, a new token replaces ``outgoing``; if
    it is None and ``mints`` is false, the file that carries the token is not touched. ``left_alone``: names
    of the agent's own files, which are reported as preserved; ``theirs``: of an agent that is being adopted,
    the sizes in bytes, by name, of files that we have no text for; ``held``: the files that the agent keeps
    as they were.
    """

    rendered: RenderedWorkspace
    files: AgentFiles
    records: Mapping[str, RecordedFile]
    steps: dict[str, Step] = field(default_factory=dict)
    token: Token | None = None
    outgoing: Token | None = None
    mints: bool = False
    scratch_id: str | None = None
    left_alone: frozenset[str] = frozenset()
    theirs: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, HeldFile] = field(default_factory=dict)
    gateway_token: str | None = field(default=None, repr=False)
    _bases: Bases | None = field(default=None, repr=False)
    _known: tuple[tuple[str, ...], frozenset[str]] | None = field(default=None, repr=False)

    @property
    def carrier(self) -> Step:
        """The step of the file that carries the token."""
        return next(step for step in self.steps.values() if step.file.carries_token)

    def bases(self, context: AgentContext) -> Bases:
        """The renderings that were delivered last, by hash, as far as they were kept; read once."""
        if self._bases is None:
            hashes = {record.source_sha256 for record in self.records.values() if record.has_text}
            with context.services.engine.connect() as connection:
                self._bases = read_texts(connection, context.record.gateway_id, hashes)
        return self._bases

    def forget_writes(self, before: Mapping[str, RecordedFile | None]) -> None:
        """Put back what was on record of these files before their last write, which has not taken place."""
        records = {**self.records, **before}
        self.records = {name: record for name, record in records.items() if record is not None}

    def hash_of(self, step: Step) -> str | None:
        """SHA-256, in hex, of the file as it was found; None if there was none, or its content is not
        known."""
        if step.live is None:
            return None
        if step.live.content is not None:
            return step.live.sha256 or sha256_of(step.live.content)
        record = self.records.get(step.file.name)
        return record.source_sha256 if record is not None and as_we_left_it(step.live, record) else None

    def report(self, *, with_diffs: bool) -> dict[str, Any]:
        """The plan in the form of ``job_agents.files``, with credentials masked in diffs (rules.md 29)."""
        shown = {name: self.report_of(name, with_diffs=with_diffs) for name in self.steps}
        for name, size in self.rendered.unsupported.items():
            shown[name] = {"action": "unsupported", "size": size}
        for name, size in self.theirs.items():
            shown[name] = {"action": "theirs", "size": size}
        for name, hold in self.held.items():
            shown.setdefault(name, {"action": "preserved", "size": 0})["held"] = hold.report
        return shown

    def _is_left(self, step: Step) -> bool:
        return step.action == "unchanged" and step.file.name in self.left_alone

    def report_of(self, name: str, *, with_diffs: bool) -> dict[str, Any]:
        """The report's entry for one file."""
        step = self.steps[name]
        shown: dict[str, Any] = {
            "action": "preserved" if self._is_left(step) else step.action,
            "size": len((step.text if step.writes else step.file.text).encode()),
            "source_sha256": step.file.source_sha256,
        }
        cause = _cause(step, self.records.get(step.file.name))
        if cause is not None:
            shown["changed_by"] = cause
        if step.file.carries_token:
            shown["token"] = self.token.origin if self.token else "new" if self.mints else "reused"
        if (with_diffs and step.writes) or self.shows_conflict(step):
            shown["diff"] = self._diff(step)
        return shown

    def shows_conflict(self, step: Step) -> bool:
        """Whether the step is a conflict in which both texts are known."""
        live = step.live.content if step.live is not None else None
        return step.action == "conflict" and live is not None and live != step.text

    def _diff(self, step: Step) -> str:
        before = step.live.content if step.live is not None else None
        return file_diff(before or "", step.text, self._secrets())

    def _secrets(self) -> frozenset[str]:
        """All known secrets, sought in every file: the agent may have noted its token in any of them."""
        tokens = tuple(token.plain for token in (self.token, self.outgoing) if token)
        if self._known is None or self._known[0] != tokens:
            live = [step.live.content for step in self.steps.values() if step.live and step.live.content]
            found = [find_token(text, section=section) for text in live for section in (False, True)]
            texts = [*live, *(step.file.text for step in self.steps.values())]
            self._known = tokens, known_secrets(texts, (*tokens, *found, self.gateway_token))
        return self._known[1]


def plan_workspace(
    context: AgentContext,
    *,
    first: bool,
    registered: bool = True,
    rendered: RenderedWorkspace | None = None,
    files: AgentFiles | None = None,
) -> WorkspacePlan:
    """Read the agent's workspace on the gateway and decide what happens to every file.

    ``first``: the agent is new on its gateway, though its workspace may already hold files (rules.md 16);
    ``registered``: the gateway knows the agent, so its files can be read; ``rendered`` and ``files``: what
    the workspace must contain and what reads it, where the caller has them. Raises NoTokenError,
    TransientError, PermanentError, and what ``files`` raises.
    """
    rendered = rendered or context.render()
    for sentence in rendered.warnings:
        context.warn(sentence)
    files = files or AgentFiles(context.client, context.dialect, context.record.openclaw_id, context.fresh)
    live = _live(context, files, first=first) if registered else {}
    mode = Mode(
        first and context.own is None and not _is_settled(context, live),
        context.option("overwrite"),
        context.option("force_bootstrap"),
        main=context.record.board is None,
        overwrite_files=context.names("overwrite_files"),
        keep_files=context.names("keep_files"),
        unanswered=frozenset(
            name for name, file in context.files.items() if file.get("action") == UNANSWERED
        ),
        owners=context.record.owners,
        adopted=context.record.home.adopted,
        adopting=context.adopting,
    )
    kept = () if first or mode.overwrite or mode.adopting else rendered
    left_alone = frozenset(name for name in kept if mode.keeps(name))
    held = context.record.held
    plan = WorkspacePlan(rendered, files, context.record.files, left_alone=left_alone, held=held)
    planned = context.held.job_id if context.option("dry_run") else None
    entry = context.record.held_entry
    if entry is not None and entry.job_id != planned:
        context.warn(entry.note)
    for sentence in hold_notes(each for each in held.values() if each.job_id != planned):
        context.warn(sentence)
    plan.gateway_token = context.record.address.token
    if mode.adopting:
        plan.theirs = _theirs(context, rendered, live)
    for name in sorted(
        (mode.overwrite_files | mode.keep_files) - rendered.keys() - rendered.unsupported.keys()
    ):
        context.warn(
            f"There is no {line(name, 100)} of ours for this agent, so none was overwritten or kept."
        )
    _plan_carrier(context, plan, live, mode)
    _plan_files(context, plan, live, mode)
    for file in rendered.values():
        if file.kind == "scratch":
            _plan_scratch(context, plan, file, mode, registered=registered)
    _read_token_for_diffs(context, plan)
    return plan


def _read_token_for_diffs(context: AgentContext, plan: WorkspacePlan) -> None:
    """Read the file that carries the token if a diff is shown: wherever else the agent noted its
    token, it must be masked."""
    live = plan.carrier.live
    if live is None or live.content is not None:
        return
    if context.option("diff") or any(plan.shows_conflict(step) for step in plan.steps.values()):
        name = plan.carrier.file.name
        plan.carrier.live = read_content(context, plan, [name])[name]


def _is_settled(context: AgentContext, live: Mapping[str, LiveFile]) -> bool:
    """Whether another program set the agent up: it was in the roster, its workspace holds files, and none of
    them was on record before this job. Such an agent has already followed its BOOTSTRAP.md."""
    recorded_before = bool(context.record.files) and not context.held.files
    return not context.fresh and bool(live) and not recorded_before


def _live(context: AgentContext, files: AgentFiles, *, first: bool) -> Mapping[str, LiveFile]:
    """Read which files the workspace holds.

    An earlier workspace that the gateway does not find counts as gone only once the job is
    ``ABSENCE_WAIT_S`` old, because all of its files are then written anew.
    """
    try:
        return context.services.retry_inline(lambda: files.live(may_be_empty=first or context.adopting))
    except WorkspaceAbsentError:
        if context.held.age_s < ABSENCE_WAIT_S:
            raise
        return {}


def read_content(context: AgentContext, plan: WorkspacePlan, names: list[str]) -> dict[str, LiveFile]:
    """Read the content of files that the gateway has just listed. Raises NotThereYetError if one is missing,
    for it may only be in the middle of being replaced."""
    found = context.services.retry_inline(lambda: plan.files.read(names))
    lacking = sorted(set(names) - set(found))
    if lacking:
        raise NotThereYetError(
            f"The gateway lists {lacking[0]} of {context.record.openclaw_id}, but finds none."
        )
    return found


def _plan_carrier(
    context: AgentContext, plan: WorkspacePlan, live: Mapping[str, LiveFile], mode: Mode
) -> None:
    """Plan the file that carries the token; it is left alone, unread, only if all of it is known to be as we
    left it."""
    whole = next(file for file in plan.rendered.values() if file.carries_token)
    found, record = live.get(whole.name), plan.records.get(whole.name)
    owners = mode.leaves_to_owner(whole.name, record)
    ours = (section_of(whole) if owners else None) or whole
    trusted = unchanged_since_write(found, record) and context.record.token_hash is not None
    # While a hash is pending, the file that we wrote last may carry its token instead of the verified one.
    trusted = trusted and context.record.verified_hash == context.record.token_hash
    trusted = trusted and context.record.pending_hash is None
    as_rendered = record is not None and record.source_sha256 == ours.source_sha256
    as_asked = record is not None and not (record.mixed and mode.replaces(whole.name))
    settled = context.record.pending_hash is None and not context.option("rotate_tokens")
    if trusted and as_rendered and as_asked and settled and whole.name not in context.restores:
        plan.steps[whole.name] = Step(ours, "unchanged", ours.text, found)
        return
    if found is not None:
        found = read_content(context, plan, [whole.name])[whole.name]
    choice = choose_token(context, found.content if found else None, trusted=trusted)
    plan.token, plan.outgoing = choice.keep, choice.outgoing
    plan.mints = plan.token is None
    if found is not None and owners:
        plan.steps[whole.name] = _owners_carrier(context, plan, whole, found, mode)
        return
    if found is None:
        decision = Decision("create", whole.text)
    else:
        section = context.dialect.credentials_in == "AGENTS.md"
        live_text = found.content or ""
        former = _to_restore(context, whole.name, found, record)
        if former is None:
            decision = decide_carrier(whole, live_text, record, mode, lambda: plan.bases(context), section)
        elif unchanged_since_write(found, record):
            decision = Decision("update", former, mixed=True)
        else:
            decision = restore_carrier(former, live_text, record, lambda: plan.bases(context), section)
    text = decision.text or whole.text
    text = with_token(text, plan.token.plain) if plan.token else text
    action = decision.action
    if found is not None and text == found.content and action in WRITES:
        action = "preserved" if decision.mixed else "unchanged"
    if decision.mixed and found is not None and text != found.content:
        _require_text(context, found)
    _note_conflict(context, whole.name, decision)
    plan.steps[whole.name] = Step(whole, action, text, found, decision.mixed, records=action == "preserved")


def _to_restore(
    context: AgentContext, name: str, live: LiveFile | None, record: RecordedFile | None
) -> str | None:
    """The text of the agent's that a rollback brings back in the file, None if there is none.

    If that was merged and the agent has gone on writing, taking our own change out again does more.
    """
    merged_since = record is not None and record.mixed and not unchanged_since_write(live, record)
    return None if merged_since and live is not None else context.restores.get(name)


def _owners_carrier(
    context: AgentContext, plan: WorkspacePlan, whole: RenderedFile, found: LiveFile, mode: Mode
) -> Step:
    """The step of an adopted agent's file that carries the token: only our section is written there, and
    nothing at all where the agent's token stands there already (rules.md 48). Raises PermanentError."""
    live, token = found.content or "", plan.token
    if token is not None and live == with_token(whole.text, token.plain):
        return Step(whole, "unchanged", live, found)
    record, section = plan.records.get(whole.name), section_of(whole)
    if token is not None and record is None:
        kept = section is not None and with_token(with_section(live, section.text, None), token.plain) == live
        left: Action = "preserved" if whole.name in mode.keep_files else "conflict"
        return Step(section or whole, "unchanged" if kept else left, live, found)
    if section is None:
        raise _no_place(context, f"its template has no section ## Tools that could be put into {whole.name}")
    text = with_section(live, section.text, record.source_sha256 if record else None)
    if foreign_tokens(text):
        raise _no_place(context, f"its {whole.name} has another AUTH_TOKEN outside of a section ## Tools")
    if token is not None:
        text = with_token(text, token.plain)
    if text != live:
        _require_text(context, found)
    return Step(section, "unchanged" if text == live else "update", text, found)


def _require_text(context: AgentContext, found: LiveFile) -> None:
    """Raise PermanentError if what stands in the file that carries the token would not survive a write."""
    if found.garbled:
        raise _no_place(
            context, f"its {context.dialect.credentials_in} is not UTF-8 text, which would be lost"
        )


def _no_place(context: AgentContext, why: str) -> PermanentError:
    name = context.dialect.credentials_in
    return PermanentError(
        f"Agent {context.record.shown_name!r} cannot be given its token beside what its owner wrote: {why}."
        f" Correct that, or have the whole file replaced with --overwrite-file {name}.",
        reason_code=ReasonCode.NO_TOKEN,
    )


_MOST_THEIRS = 100


def _theirs(
    context: AgentContext, rendered: RenderedWorkspace, live: Mapping[str, LiveFile]
) -> dict[str, int]:
    """The sizes, by name, of files for which we have no text."""
    names = sorted(live.keys() - rendered.keys())
    if len(names) > _MOST_THEIRS:
        more = len(names) - _MOST_THEIRS
        context.warn(f"Its workspace holds {more} more files of its own, not listed here.")
    return {name: live[name].size for name in names[:_MOST_THEIRS]}


def _plan_files(
    context: AgentContext, plan: WorkspacePlan, found: Mapping[str, LiveFile], mode: Mode
) -> None:
    live = dict(found)
    wanted = [file for file in plan.rendered.values() if file.kind == "file" and not file.carries_token]
    names = [file.name for file in wanted]
    older = [name for name in names if may_be_unwritten(live.get(name), plan.records.get(name))]
    if older:
        read = read_content(context, plan, older)
        live.update(read)
        plan.forget_writes(records_before(context, plan.records, read))

    def decided(file: RenderedFile, bases: Bases | None = None) -> Decision | Need:
        if mode.keeps(file.name) and not mode.replaces(file.name) and _has_twin(file.name, live):
            return Decision("preserved")
        there, record = live.get(file.name), plan.records.get(file.name)
        former = _to_restore(context, file.name, there, record)
        if former is not None:
            return restore(former, there, record, bases)
        return decide(file, there, record, mode, bases)

    decisions = {file.name: decided(file) for file in wanted}
    unread = [
        name
        for name, decision in decisions.items()
        if decision is Need.CONTENT
        or (
            isinstance(decision, Decision)
            and decision.action in ("update", "conflict")
            and context.option("diff")
        )
    ]
    if unread:
        live.update(read_content(context, plan, unread))
    for file in wanted:
        decision = decided(file) if decisions[file.name] is Need.CONTENT else decisions[file.name]
        if decision is Need.BASE:
            decision = decided(file, plan.bases(context))
        _put(context, plan, file, decision, live.get(file.name))
    _warn_of_replaced(context, plan, mode)


def _put(
    context: AgentContext,
    plan: WorkspacePlan,
    file: RenderedFile,
    decision: Decision | Need,
    live: LiveFile | None,
) -> None:
    assert isinstance(decision, Decision)
    _note_conflict(context, file.name, decision)
    text = file.text if decision.text is None else decision.text
    plan.steps[file.name] = Step(file, decision.action, text, live, decision.mixed, decision.records)


def _note_conflict(context: AgentContext, name: str, decision: Decision) -> None:
    if decision.why is not None:
        context.warn(
            f"{name} was left as it is: its agent and its template {decision.why.value}. Settle it with"
            f" --overwrite-file {name} or --keep-file {name}."
        )


def _has_twin(name: str, live: Mapping[str, LiveFile]) -> bool:
    """Whether the workspace holds the file with its name in another case: up to 2026.3 ``memory.md`` serves
    as MEMORY.md, and on a case-insensitive disk it is the same file."""
    twins = [other for other in live if other.casefold() == name.casefold()]
    return name not in twins and any(live[twin].size for twin in twins)


def _warn_of_replaced(context: AgentContext, plan: WorkspacePlan, mode: Mode) -> None:
    """Warn of files in which ``overwrite`` replaces text of the agent or its human (rules.md 16)."""
    replaced = [
        name
        for name, step in plan.steps.items()
        if step.action == "update"
        and mode.replaces(name)
        and (mode.keeps(name) or name in plan.records)
        and step.live is not None
        and has_agent_text(step.file, step.live, plan.records.get(name)) is not False
    ]
    if replaced:
        names = " and ".join(filter(None, (", ".join(replaced[:-1]), replaced[-1])))
        context.warn(f"overwrite replaces what the agent or its human wrote into {names}.")


def _plan_scratch(
    context: AgentContext, plan: WorkspacePlan, file: RenderedFile, mode: Mode, *, registered: bool
) -> None:
    record = None if context.fresh else plan.records.get(file.name)  # a new entry gets a new automation
    place, found = record.locator if record else None, None
    if place is not None and registered:
        try:
            found = context.services.retry_inline(lambda: plan.files.read_scratch(str(place)))
        except PermanentGatewayError:
            place = None  # the automation was made anew: look it up
    if place is None and registered:
        try:
            look = plan.files.scratch_id
            # Whether an adopted agent beats is its owner's affair: nothing is waited for.
            place = look() if mode.adopted else context.services.retry_inline(look)
        except NotThereYetError as error:
            if context.fresh and context.held.age_s < SCRATCH_WAIT_S:
                raise
            if mode.adopted:
                plan.steps[file.name] = Step(file, "unsupported", file.text, None)
                return
            fenced = not context.fresh and heartbeat_enabled(context.record.heartbeat)
            why = f"{FENCED_HINT}." if fenced else "Is its heartbeat switched off?"
            context.warn(f"{error} Its heartbeat text was not delivered. {why}")
            plan.steps[file.name] = Step(file, "unsupported", file.text, None)
            return
        if not context.fresh:
            found = context.services.retry_inline(lambda: plan.files.read_scratch(str(place)))
    plan.scratch_id = place
    if found is not None and may_be_unwritten(found, record):
        plan.forget_writes(records_before(context, plan.records, {file.name: found}))
        record = plan.records.get(file.name)
    decision = decide(file, found, record, mode)
    if decision is Need.BASE:
        decision = decide(file, found, record, mode, plan.bases(context))
    _put(context, plan, file, decision, found)


def _cause(step: Step, record: RecordedFile | None) -> str | None:
    """What made the live file differ from its rendering: "templates" (or the facts in them), "agent" (or any
    other writer on its gateway), or "both". None if it does not differ, or if nothing is on record."""
    if record is None or step.live is None or step.action not in (*WRITES, "preserved", "conflict"):
        return None
    templates = record.source_sha256 != step.file.source_sha256
    agent = record.mixed or not unchanged_since_write(step.live, record)
    return "both" if templates and agent else "templates" if templates else "agent" if agent else None
