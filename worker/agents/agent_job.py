"""Brings one agent up to date, by provision, update or sync: intent, roster, files, credentials, wake.

Each step is a phase in the agent's row and can be repeated: a claim goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.context import NOT_REGISTERED, Verb, Work
from worker.agents.credentials import NoTokenError, have_succeeded
from worker.agents.deliver import deliver
from worker.agents.departure import leave
from worker.agents.roster_look import foresee, look
from worker.agents.wake import wake, wants_reset
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
    finish,
    park,
)
from worker.jobs.store.jobs import move_job
from worker.records.agent_repository import AgentRecord, MovedAgentError, load_agent
from worker.records.agent_status import keep_session_key, succeed, take_over
from worker.records.places import claim_places, note_earlier_homes
from worker.roster.circuit_breaker import greet, wait_for_outage
from worker.roster.intents import ROSTER_PATIENCE_S, Wish, look_again_s, record_intents, settled_intents
from worker.roster.rewrite_permission import entry_stays, visibility_stays
from worker.runtime.services import Services

PROVISION = Verb("provisioning", "provision", "provisioned", mints=True)
PROVISION_MAIN = Verb("provisioning", "provision", "provisioned", mints=True, serves_main=True)
SYNC = Verb(None, "", "updated", mints=False, serves_main=True)
UPDATE = Verb("updating", "update", "updated", mints=False, serves_main=True)
_ROSTER_WAIT = "waiting for the roster writer"


def carry_out(services: Services, held: Claim, warnings: list[str], verb: Verb) -> Snooze | None:
    """Work on the agent until its row has succeeded (returns None) or has to wait (returns the snooze).

    Adds to ``warnings``. Raises TransientError (try again later), PermanentError (the job fails with its
    sentence), LeaseLostError.
    """
    user_id = held.options.get("user_id")
    begins = held.phase is None
    with services.engine.begin() if begins else single(services.engine) as connection:
        record = load_agent(
            connection, held.agent_id, UUID(user_id) if user_id else None, main=verb.serves_main
        )
        held = _at_its_gateway(connection, held, record)
        if begins:
            before = None
            if verb.status is not None and held.options.get("dry_run") is not True:
                before = take_over(connection, held.agent_id, verb.status, verb.action)
            columns: dict[str, Any] = {"status_before": before, "openclaw_id": record.openclaw_id}
            advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
            held = replace(held, phase="intent", status_before=held.status_before or before)
    away = wait_for_outage(services, record)
    if away is not None:
        return away
    hello = greet(services, record)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    work = Work(
        services,
        held,
        record,
        verb,
        dialect,
        warnings=warnings,
        files=dict(held.files),
        one_session=hello.one_session,
    )
    if work.option("dry_run"):
        _promise(work)
        return None
    return _go_on(work)


def _at_its_gateway(connection: Connection, held: Claim, record: AgentRecord) -> Claim:
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


def _go_on(work: Work) -> Snooze | None:
    if work.held.phase == "intent":
        parked = _ask_for_roster(work)
        if parked is not None:
            return parked
    present_before = _stood_before(work)
    if isinstance(present_before, Snooze):
        return present_before
    work.fresh = not present_before
    _settle_down(work)
    if work.held.phase not in ("leaving", "wake"):
        deliver(work, first=bool(work.held.first_provision))
    parked = leave(work) or wake(work)
    if parked is not None:
        return parked
    _end(work)
    return None


def _settle_down(work: Work) -> None:
    """Record where the agent lives, unless the roster writer already has. Raises PermanentError if its id
    belongs to another agent."""
    if not work.record.home.recorded:
        with work.services.engine.begin() as connection:
            taken = claim_places(connection, work.record.gateway_id, {work.agent_id: work.record.home})
        for sentence in taken.values():
            raise PermanentError(sentence)


def _ask_for_roster(work: Work) -> Snooze | None:
    """Render the workspace before anything is touched, then ask for the roster change that is needed, if any.

    Returns the snooze in which the row waits for the roster writer, or None if the roster needs no change.
    """
    record = work.record
    work.render()
    if record.provisioned_before or not work.verb.mints:
        roster = look(work)
        present = record.openclaw_id in roster.present
        _require_token(work, present=present, differs=roster.document is not None)
        if roster.document is None:
            first = _is_first(work, present=present)
            with work.services.engine.begin() as connection:
                work.advance(connection, "files", first_provision=first)
                note_earlier_homes(
                    connection, record.gateway_id, {work.agent_id: record.home}, roster.present
                )
            work.held = replace(work.held, phase="files", first_provision=first)
            return None
    with work.services.engine.begin() as connection:
        wish = Wish(work.agent_id, record.openclaw_id)
        messages = record_intents(connection, record.gateway_id, work.held.job_id, wish)
        wait_s = min(ROSTER_PATIENCE_S, work.services.settings.retry_timeout_s)
        park(connection, work.held, wait_s, _ROSTER_WAIT, "roster", code=ReasonCode.WAITING_FOR_ROSTER)
    if work.verb.mints and record.token_hash is None:
        work.services.mint.expect()
    work.services.publish(messages)
    return Snooze(_ROSTER_WAIT)


def _require_token(work: Work, *, present: bool, differs: bool) -> None:
    """Raise NoTokenError if the agent's token can be neither kept nor replaced, before its roster entry or
    files change (rules.md 25)."""
    if work.verb.mints or work.option("rotate_tokens"):
        return
    if not present:
        raise NoTokenError(NOT_REGISTERED, reason_code=ReasonCode.NOT_REGISTERED)
    if differs:
        plan_workspace(work, first=False)


def _is_first(work: Work, *, present: bool) -> bool:
    """Whether the workspace can hold nothing that the agent wrote (rules.md 16). An update of an agent that
    another program provisioned keeps what is there."""
    return not present or (work.verb.mints and not work.record.provisioned_before)


def _stood_before(work: Work) -> bool | Snooze:
    """Whether the agent was in the roster before this job; in a sync, its row already says so."""
    if work.held.single or work.held.phase == "roster":
        return _roster(work)
    return not work.held.first_provision


def _roster(work: Work) -> bool | Snooze:
    """Whether the agent was in the roster before this job; the row is parked until the roster writer knows.

    Raises PermanentError with the writer's sentence.
    """
    with work.services.engine.begin() as connection:
        budget_s = work.services.settings.retry_timeout_s
        wishes = settled_intents(connection, work.held.job_id, work.agent_id, "reconcile", budget_s)
        if not wishes:
            return True
        settled = wishes[-1]
        if settled.warning is not None:
            work.warn(settled.warning)
        if settled.open:
            wait_s = look_again_s([settled], budget_s)
            park(connection, work.held, wait_s, _ROSTER_WAIT, code=ReasonCode.WAITING_FOR_ROSTER)
            return Snooze(_ROSTER_WAIT)
        present = bool(settled.present_before)
        if work.held.phase == "roster" and settled.error is None:
            first = _is_first(work, present=present)
            work.advance(connection, "files", first_provision=first)
            work.held = replace(work.held, phase="files", first_provision=first)
    if settled.error is not None:  # raised after the commit, so that a wish just given up stays given up
        raise PermanentError(settled.error)
    return present


def _promise(work: Work) -> None:
    """Do a dry run: report what the job would change, and change nothing."""
    present, roster = _promised_roster(work)
    _require_token(work, present=present, differs=False)
    first = _is_first(work, present=present)
    plan = plan_workspace(work, first=first, registered=present)
    work.files = plan.report(with_diffs=work.option("diff"))
    if present:
        work.rekeyed = plan.mints or (plan.token is not None and plan.token.settle == "commit")
        wants_reset(work)  # for its warnings
    result = {**work.result(), "dry_run": True, "roster": roster}
    with work.services.engine.begin() as connection:
        finish(connection, work.held, "succeeded", result=result, warnings=work.warnings, files=work.files)


def _promised_roster(work: Work) -> tuple[bool, Mapping[str, Any]]:
    """Whether the roster has the agent, and what would change there; in a sync, as the parent has read it."""
    if work.held.roster is not None:
        return not work.held.first_provision, work.held.roster
    roster, refusal = foresee(work)
    openclaw_id = work.record.openclaw_id
    present = openclaw_id in roster.present
    if refusal is None and roster.silenced:
        work.warn(silenced_warning(work.dialect, roster.silenced))
    elif refusal is not None and not roster.changed:
        work.warn(visibility_stays(refusal))
    elif refusal is not None and present:
        work.warn(entry_stays(refusal))
    elif refusal is not None:
        _require_token(work, present=False, differs=False)
        raise PermanentError(refusal, reason_code=ReasonCode.REWRITE_REFUSED)
    return present, roster.change_of(openclaw_id)


def _end(work: Work) -> None:
    record, verb = work.record, work.verb
    with work.services.engine.begin() as connection:
        finish(
            connection,
            work.held,
            "succeeded",
            result=work.result(),
            warnings=work.warnings,
            files=work.files,
        )
        if verb.status is not None:
            succeed(connection, {work.agent_id: record.session_key})
        elif record.stored_session_key != record.session_key:
            keep_session_key(connection, work.agent_id, record.session_key)
        if not record.provisioned_before:
            have_succeeded(connection, record.gateway_id, [work.agent_id])
