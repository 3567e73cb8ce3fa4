"""Brings one agent up to date, by provision or update: intent, roster, files, credentials, wake.

Each is a phase in the agent's row, and may be run again: a claim goes on where the last one stopped.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any
from uuid import UUID

from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.jobs.ledger import Claim, advance, finish, park
from worker.provisioning.agent_status import succeed, take_over
from worker.provisioning.credentials import NoTokenError, has_succeeded_here
from worker.provisioning.deliver import deliver
from worker.provisioning.departure import leave
from worker.provisioning.facts import AgentRecord, load_agent
from worker.provisioning.gateway_door import greet, turned_away
from worker.provisioning.intents import record_intent, settled_intents
from worker.provisioning.roster_look import look
from worker.provisioning.services import Services
from worker.provisioning.wake import wake
from worker.provisioning.work import ROSTER_PATIENCE_S, Parked, Verb, Work
from worker.provisioning.workspace_plan import plan_workspace

log = logging.getLogger(__name__)

PROVISION = Verb("provisioning", "provision", "provisioned", mints=True)
PROVISION_MAIN = Verb("provisioning", "provision", "provisioned", mints=True, serves_main=True)
UPDATE = Verb("updating", "update", "updated", mints=False, serves_main=True)
_ROSTER_WAIT = "waiting for the roster writer"


def carry_out(services: Services, held: Claim, verb: Verb) -> Parked | None:
    """Take the agent as far as it will go now; None when the job has ended well.

    Raises TransientError (try again later), PermanentError (the job fails with its sentence), LeaseLostError.
    """
    user_id = held.options.get("user_id")
    with services.engine.begin() as connection:
        record = load_agent(
            connection, held.agent_id, UUID(user_id) if user_id else None, main=verb.serves_main
        )
        if held.phase is None:
            before = None
            if held.options.get("dry_run") is not True:
                before = take_over(connection, held.agent_id, verb.status, verb.action)
            columns: dict[str, Any] = {"status_before": before, "openclaw_id": record.openclaw_id}
            advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
            held = replace(held, phase="intent", status_before=held.status_before or before)
    away = turned_away(services, record)
    if away is not None:
        return away
    hello = greet(services, record)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    warnings, files = list(held.warnings), dict(held.files)
    work = Work(services, held, record, verb, dialect, warnings=warnings, files=files)
    if work.option("dry_run"):
        _promise(work)
        return None
    return _go_on(work)


def _go_on(work: Work) -> Parked | None:
    if work.held.phase == "intent":
        parked = _ask_for_roster(work)
        if parked is not None:
            return parked
    present_before = _roster(work)
    if isinstance(present_before, Parked):
        return present_before
    work.fresh = not present_before
    if work.held.phase not in ("leaving", "wake"):
        deliver(work, first=bool(work.held.first_provision))
    parked = leave(work) or wake(work)
    if parked is not None:
        return parked
    _end(work)
    return None


def _ask_for_roster(work: Work) -> Parked | None:
    """Render all before anything is touched, look whether the roster differs, and ask for the change."""
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
            work.held = replace(work.held, phase="files", first_provision=first)
            return None
    with work.services.engine.begin() as connection:
        messages = record_intent(
            connection,
            gateway_id=record.gateway_id,
            agent_id=work.agent_id,
            job_id=work.held.job_id,
            change="reconcile",
            openclaw_id=record.openclaw_id,
        )
        park(connection, work.held, ROSTER_PATIENCE_S, _ROSTER_WAIT, "roster")
    work.services.publish(messages)
    return Parked(_ROSTER_WAIT)


def _require_token(work: Work, *, present: bool, differs: bool) -> None:
    """An agent whose token cannot be kept is left as it is, its roster entry too (behaviour 25)."""
    if work.verb.mints or work.option("rotate_tokens"):
        return
    if not present:
        raise NoTokenError(
            "It is not in its gateway's roster, so it holds no token there: provision it, or run again with"
            " rotate_tokens."
        )
    if differs:
        plan_workspace(work, first=False)


def _is_first(work: Work, *, present: bool) -> bool:
    """Whether nothing in the workspace can be the agent's own (behaviour 16). An update of an agent that
    another program provisioned keeps what is there."""
    return not present or (work.verb.mints and not work.record.provisioned_before)


def _roster(work: Work) -> bool | Parked:
    """Whether the agent was in the roster before this job; parks while the writer is not done. Raises
    PermanentError with the writer's sentence."""
    with work.services.engine.begin() as connection:
        wishes = settled_intents(connection, work.held.job_id, work.agent_id, "reconcile")
        if not wishes:
            return True
        settled = wishes[-1]
        if settled.error is not None:
            raise PermanentError(settled.error)
        if not settled.applied:
            patience_s = work.services.settings.retry_budget_s * 2
            if work.held.age_s > patience_s:
                raise PermanentError(f"The roster was not written within {patience_s:g} seconds.")
            park(connection, work.held, ROSTER_PATIENCE_S, _ROSTER_WAIT)
            return Parked(_ROSTER_WAIT)
        present = bool(settled.present_before)
        if work.held.phase == "roster":
            first = _is_first(work, present=present)
            work.advance(connection, "files", first_provision=first)
            work.held = replace(work.held, phase="files", first_provision=first)
    return present


def _promise(work: Work) -> None:
    """A dry run: say what a run would do, and do nothing of it."""
    record = work.record
    roster = look(work)
    present = record.openclaw_id in roster.present
    _require_token(work, present=present, differs=False)
    first = _is_first(work, present=present)
    plan = plan_workspace(work, first=first, registered=present)
    work.files = plan.report(with_diffs=work.option("diff"))
    changes = roster.patches.get(record.openclaw_id)
    action = "unchanged" if changes is None else "update" if present else "create"
    result = {**_result(work), "dry_run": True, "roster": {"action": action, "changes": changes or {}}}
    with work.services.engine.begin() as connection:
        finish(connection, work.held, "succeeded", result=result, warnings=work.warnings, files=work.files)


def _end(work: Work) -> None:
    with work.services.engine.begin() as connection:
        finish(
            connection,
            work.held,
            "succeeded",
            result=_result(work),
            warnings=work.warnings,
            files=work.files,
        )
        succeed(connection, work.agent_id, work.record.session_key)
        has_succeeded_here(connection, work.agent_id, work.record.gateway_id)


def _result(work: Work) -> dict[str, Any]:
    record: AgentRecord = work.record
    tokens = [report["token"] for report in work.files.values() if "token" in report]
    return {
        "agent_id": str(work.agent_id),
        "openclaw_id": record.openclaw_id,
        "session_key": record.session_key,
        "workspace_path": record.workspace,
        "files": work.files,
        "woken": work.held.woken_at is not None,
        "token": tokens[0] if tokens else None,
        "warnings": work.warnings,
    }
