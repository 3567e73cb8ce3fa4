"""Brings one agent up to date, by provision, update or sync: intent, roster, files, credentials, wake.

Each step is a phase in the agent's row and can be repeated: each claim resumes at the phase that the last one
reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.agent_context import NOT_REGISTERED, AgentContext, JobProfile
from worker.agents.entry_plan import plan_entry, preview_entry
from worker.agents.former_places import remove_from_former_places
from worker.agents.token_choice import NoTokenError, record_success
from worker.agents.wake import wake, wants_reset
from worker.agents.window_wait import require_window_to_begin, require_window_to_restart
from worker.agents.workspace_apply import apply_workspace
from worker.agents.workspace_plan import plan_workspace
from worker.database import single
from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import silenced_warning
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import (
    Claim,
    advance,
    park,
)
from worker.jobs.store.jobs import move_job
from worker.records.agent_repository import AgentRecord, MovedAgentError, load_agent
from worker.records.agent_settings import forget_fields
from worker.records.agent_status import keep_session_key, succeed, take_over
from worker.records.holds import release_names
from worker.records.places import claim_places, note_earlier_homes
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.roster.intents import ROSTER_RECHECK_S, RosterChange, intent_states, recheck_in_s, record_intents
from worker.roster.rewrite_permission import entry_stays, visibility_stays
from worker.runtime.services import Services
from worker.workspace.bundle import OwnFiles
from worker.workspace.template_sources import sources_sha256

PROVISION = JobProfile("provisioning", "provision", "provisioned", mints=True)
PROVISION_MAIN = JobProfile("provisioning", "provision", "provisioned", mints=True, serves_main=True)
SYNC = JobProfile(None, "", "updated", mints=False, serves_main=True)
UPDATE = JobProfile("updating", "update", "updated", mints=False, serves_main=True)
_ROSTER_WAIT = "waiting for the roster writer"


@dataclass(frozen=True)
class Adjusted:
    """An agent's record as a job wants it, and the agent's texts that it brings back, by file name."""

    record: AgentRecord
    restores: Mapping[str, str] = field(default_factory=dict)


Adjust = Callable[[Connection, AgentRecord], Adjusted]
"""Changes what is on record of an agent before its job begins, in one transaction with that. It is called
again when the job goes on after a wait."""


def reconcile(
    services: Services,
    held: Claim,
    warnings: list[str],
    profile: JobProfile,
    adjust: Adjust | None = None,
    own: OwnFiles | None = None,
) -> Snooze | None:
    """Bring the agent up to date; return None once its row has succeeded, or the snooze in which it waits.

    ``own``: what a bundle holds for its workspace, if it is restored from one. Adds to ``warnings``. Raises
    TransientError (try again later), WindowClosedError (it has to wait, and has touched nothing),
    PermanentError (the job fails with its sentence), LeaseLostError.
    """
    user_id = held.options.get("user_id")
    begins = held.phase is None
    restores: Mapping[str, str] = {}
    with services.engine.begin() if begins or adjust else single(services.engine) as connection:
        record = load_agent(
            connection, held.agent_id, UUID(user_id) if user_id else None, main=profile.serves_main
        )
        held = _follow_to_gateway(connection, held, record)
        require_window_to_begin(held, record, profile)
        if record.held:
            record = _without_lapsed(services, connection, held, record)
        if adjust is not None:
            adjusted = adjust(connection, record)
            record, restores = adjusted.record, adjusted.restores
        if begins:
            before = None
            if profile.status is not None and held.options.get("dry_run") is not True:
                before = take_over(connection, held.agent_id, profile.status, profile.action)
            columns: dict[str, Any] = {"status_before": before, "openclaw_id": record.openclaw_id}
            advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
            held = replace(held, phase="intent", status_before=held.status_before or before)
    away = check_circuit(services, record)
    if away is not None:
        return away
    hello = connect_and_record(services, record)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    context = AgentContext(
        services,
        held,
        record,
        profile,
        dialect,
        warnings=warnings,
        files=dict(held.files),
        one_session=hello.one_session,
        restores=restores,
        own=own,
    )
    if context.option("dry_run"):
        _dry_run(context)
        return None
    return _run_steps(context)


def _without_lapsed(
    services: Services, connection: Connection, held: Claim, record: AgentRecord
) -> AgentRecord:
    """The record without the holds that have ended because the shipped templates or TEMPLATES_DIR changed; a
    job that writes deletes them. The dry runs of a roll-out look past those of roll-outs that have ended."""
    layered = record.layers.counting()
    sources = sources_sha256(services.settings.templates_dir)
    lapsed = {
        name
        for name, each in record.held.items()
        if each.sources not in (None, sources) and not each.open and name not in layered
    }
    if held.options.get("past_roll_outs") is True and held.options.get("dry_run") is True:
        lapsed |= {name for name, each in record.held.items() if each.cause == "roll_out" and not each.open}
    if lapsed and held.options.get("dry_run") is not True:
        release_names(connection, held.agent_id, record.gateway_id, lapsed)
    return replace(record, held={name: each for name, each in record.held.items() if name not in lapsed})


def _follow_to_gateway(connection: Connection, held: Claim, record: AgentRecord) -> Claim:
    """Return the claim with the agent's present gateway: it may have been moved while its job waited.

    Before its first step a single job follows the agent there; later, or in a sync, raises MovedAgentError.
    """
    if record.gateway_id == held.gateway_id:
        return held
    if not held.single or held.phase is not None:
        raise MovedAgentError(
            f"Agent {record.agent.name!r} was put on gateway {record.gateway.name!r} meanwhile: ask again."
        )
    move_job(connection, held.job_id, record.gateway_id)
    return replace(held, gateway_id=record.gateway_id)


def _run_steps(context: AgentContext) -> Snooze | None:
    if context.held.phase == "intent":
        snooze = _request_roster_change(context)
        if snooze is not None:
            return snooze
    present_before = _was_in_roster(context)
    if isinstance(present_before, Snooze):
        return present_before
    context.fresh = not present_before
    _record_place(context)
    if context.held.phase not in ("leaving", "wake"):
        apply_workspace(context, first=bool(context.held.first_provision))
    snooze = remove_from_former_places(context) or wake(context)
    if snooze is not None:
        return snooze
    _finish(context)
    return None


def _record_place(context: AgentContext) -> None:
    """Record where the agent lives, unless the roster writer already has. Raises PermanentError if its id
    belongs to another agent."""
    if not context.record.home.recorded:
        with context.services.engine.begin() as connection:
            taken = claim_places(
                connection, context.record.gateway_id, {context.agent_id: context.record.home}
            )
        for sentence in taken.values():
            raise PermanentError(sentence)


def _request_roster_change(context: AgentContext) -> Snooze | None:
    """Render the workspace before anything is touched, then ask for the roster change that is needed, if any.

    Returns the snooze in which the row waits for the roster writer, or None if the roster needs no change.
    """
    record = context.record
    context.render()
    if record.provisioned_before or not context.profile.mints:
        roster = plan_entry(context)
        present = record.openclaw_id in roster.present
        _require_token(context, present=present, differs=roster.document is not None)
        if roster.document is None:
            first = _is_first(context, present=present)
            with context.services.engine.begin() as connection:
                context.advance(connection, "files", first_provision=first)
                note_earlier_homes(
                    connection, record.gateway_id, {context.agent_id: record.home}, roster.present
                )
                forget_fields(connection, record.gateway_id, roster.over)
            for note in roster.notes_on(record.openclaw_id):
                context.warn(note)
            context.held = replace(context.held, phase="files", first_provision=first)
            return None
    if context.dialect.restarts:
        require_window_to_restart(context.held, record, context.profile)
    with context.services.engine.begin() as connection:
        change = RosterChange(context.agent_id, record.openclaw_id)
        messages = record_intents(connection, record.gateway_id, context.held.job_id, change)
        wait_s = min(ROSTER_RECHECK_S, context.services.settings.retry_timeout_s)
        park(connection, context.held, wait_s, _ROSTER_WAIT, "roster", code=ReasonCode.WAITING_FOR_ROSTER)
    if context.profile.mints and record.token_hash is None:
        context.services.token_pool.expect()
    context.services.publish(messages)
    return Snooze(_ROSTER_WAIT)


def _require_token(context: AgentContext, *, present: bool, differs: bool) -> None:
    """Raise NoTokenError if the agent's token can be neither kept nor replaced, before its roster entry or
    files change (rules.md 25)."""
    if context.profile.mints or context.option("rotate_tokens"):
        return
    if not present:
        raise NoTokenError(NOT_REGISTERED, reason_code=ReasonCode.NOT_REGISTERED)
    if differs:
        plan_workspace(context, first=False)


def _is_first(context: AgentContext, *, present: bool) -> bool:
    """Whether the workspace can hold nothing that the agent wrote (rules.md 16). An update of an agent that
    another program provisioned keeps what is there."""
    return not present or (context.profile.mints and not context.record.provisioned_before)


def _was_in_roster(context: AgentContext) -> bool | Snooze:
    """Whether the agent was in the roster before this job; in a sync, its row already says so."""
    if context.held.single or context.held.phase == "roster":
        return _await_roster_writer(context)
    return not context.held.first_provision


def _await_roster_writer(context: AgentContext) -> bool | Snooze:
    """Whether the agent was in the roster before this job; the row is parked until the roster writer knows.

    Raises PermanentError with the writer's sentence.
    """
    with context.services.engine.begin() as connection:
        budget_s = context.services.settings.retry_timeout_s
        intents = intent_states(connection, context.held.job_id, context.agent_id, "reconcile", budget_s)
        if not intents:
            return True
        settled = intents[-1]
        if settled.warning is not None:
            context.warn(settled.warning)
        if settled.open:
            wait_s = recheck_in_s([settled], budget_s)
            park(connection, context.held, wait_s, _ROSTER_WAIT, code=ReasonCode.WAITING_FOR_ROSTER)
            return Snooze(_ROSTER_WAIT)
        present = bool(settled.present_before)
        if context.held.phase == "roster" and settled.error is None:
            first = _is_first(context, present=present)
            context.advance(connection, "files", first_provision=first)
            context.held = replace(context.held, phase="files", first_provision=first)
    if settled.error is not None:  # raised after the commit, so that an intent just given up stays given up
        raise PermanentError(settled.error, reason_code=settled.reason_code)
    return present


def _dry_run(context: AgentContext) -> None:
    """Do a dry run: report what the job would change, and change nothing."""
    present, roster = _planned_roster_change(context)
    _require_token(context, present=present, differs=False)
    first = _is_first(context, present=present)
    plan = plan_workspace(context, first=first, registered=present)
    context.files = plan.report(with_diffs=context.option("diff"))
    if present:
        context.rekeyed = plan.mints or (plan.token is not None and plan.token.settle == "commit")
        wants_reset(context)  # for its warnings
    result = {**context.result(), "dry_run": True, "roster": roster}
    with context.services.engine.begin() as connection:
        context.succeed(connection, result, roster)


def _planned_roster_change(context: AgentContext) -> tuple[bool, Mapping[str, Any]]:
    """Whether the roster has the agent, and what would change there; in a sync, as the parent has read it."""
    if context.held.roster is not None:
        return not context.held.first_provision, context.held.roster
    roster, refusal = preview_entry(context)
    openclaw_id = context.record.openclaw_id
    present = openclaw_id in roster.present
    if refusal is None and roster.silenced:
        context.warn(silenced_warning(context.dialect, roster.silenced))
    elif refusal is not None and not roster.changed:
        context.warn(visibility_stays(refusal))
    elif refusal is not None and present:
        context.warn(entry_stays(refusal))
    elif refusal is not None:
        _require_token(context, present=False, differs=False)
        raise PermanentError(refusal.sentence, reason_code=refusal.code)
    return present, roster.change_of(openclaw_id)


def _finish(context: AgentContext) -> None:
    record, profile = context.record, context.profile
    with context.services.engine.begin() as connection:
        context.succeed(connection, context.result())
        if profile.status is not None:
            succeed(connection, {context.agent_id: record.session_key})
        elif record.stored_session_key != record.session_key:
            keep_session_key(connection, context.agent_id, record.session_key)
        if not record.provisioned_before:
            record_success(connection, record.gateway_id, [context.agent_id])
