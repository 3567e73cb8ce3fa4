"""Provision of a board agent: intent, roster, files, credentials, wake, each a phase in its row.

A claim goes on where the last one stopped: every phase may be run again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.gateway.errors import WrongToken
from worker.gateway.protocol import Hello
from worker.gateway.roster import DEFAULT_HEARTBEAT, RosterEntry, plan_roster
from worker.jobs.ledger import Claim, advance, finish, park
from worker.provisioning.credentials import has_succeeded_here
from worker.provisioning.deliver import deliver
from worker.provisioning.facts import AgentRecord, load_agent
from worker.provisioning.intents import record_intent, settled_intent
from worker.provisioning.outage import Outage, admit, fingerprint, note_refused_token, note_up, unreachable
from worker.provisioning.services import Services
from worker.provisioning.wake import wake
from worker.provisioning.work import Parked, Verb, Work

log = logging.getLogger(__name__)

PROVISION = Verb("provisioning", "provision", "provisioned", mints=True)
_ROSTER_WAIT = "waiting for the roster writer"
ROSTER_PATIENCE_S = 60.0
"""A parked row looks by itself so much later, should nobody have woken it."""


def provision(services: Services, held: Claim) -> Parked | None:
    """Take the agent as far as it will go now; None when the job has ended well.

    Raises TransientError (try again later), PermanentError (the job fails with its sentence), LeaseLostError.
    """
    user_id = held.options.get("user_id")
    with services.engine.begin() as connection:
        record = load_agent(connection, held.agent_id, UUID(user_id) if user_id else None)
        if held.phase is None:
            held = _take_over(connection, services, held, record)
    away = _turned_away(services, record)
    if away is not None:
        return away
    hello = _greet(services, record)
    work = Work(
        services,
        held,
        record,
        PROVISION,
        Dialect.from_hello(hello.server_version, hello.methods),
        warnings=list(held.warnings),
        files=dict(held.files),
    )
    if held.phase == "intent":
        parked = _ask_for_roster(work)
        if parked is not None:
            return parked
    present_before = _roster(work)
    if isinstance(present_before, Parked):
        return present_before
    work.fresh = not present_before
    if held.phase != "wake":
        deliver(work, first=bool(work.held.first_provision))
    parked = wake(work)
    if parked is not None:
        return parked
    _end(work)
    return None


def _greet(services: Services, record: AgentRecord) -> Hello:
    """Connect, and keep what that says of the gateway: up again, or a token that is not to be tried again."""
    try:
        hello = services.patiently(services.clients.client(record.address).hello)
    except WrongToken as error:
        with services.engine.begin() as connection:
            note_refused_token(connection, record.gateway_id, record.address, str(error))
        raise
    if record.condition.down_for_s is not None:
        with services.engine.begin() as connection:
            note_up(connection, record.gateway_id)
    return hello


def _turned_away(services: Services, record: AgentRecord) -> Parked | None:
    """A token known to be refused is not tried again; a gateway known to be down is probed by one."""
    if record.condition.refused_token_fingerprint == fingerprint(record.address):
        raise WrongToken(
            f"Gateway {record.gateway.name!r} refused this token before, and it has not changed since:"
            " set gateways.token to the gateway's own token.",
        )
    if record.condition.down_for_s is None:
        return None
    with services.engine.begin() as connection:
        outage = admit(connection, record.gateway_id, services.settings.retry_budget_s)
    if outage is None:
        return None
    _give_up(services, record, outage)
    return Parked(f"gateway {record.gateway.name!r} is down: {record.condition.last_error}", outage.wait_s)


def _give_up(services: Services, record: AgentRecord, outage: Outage) -> None:
    budget_s = services.settings.retry_budget_s
    if outage.outlasts(budget_s):
        raise PermanentError(unreachable(budget_s, record.condition.last_error or "no answer"))


def _ask_for_roster(work: Work) -> Parked | None:
    """Render all before anything is touched, look whether the roster differs, and ask for the change."""
    record = work.record
    work.render()
    if record.provisioned_before and _stands_in_roster(work):
        with work.services.engine.begin() as connection:
            work.advance(connection, "files", first_provision=False)
        work.held = replace(work.held, phase="files", first_provision=False)
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


def _stands_in_roster(work: Work) -> bool:
    """Whether the agent's entry is there and as it should be: one config.get."""
    record = work.record
    config = work.services.patiently(lambda: work.client.call("config.get"))
    work.dialect.confirm(config)
    entry = RosterEntry(record.openclaw_id, record.agent.name, record.workspace, record.heartbeat)
    return plan_roster(work.dialect, config.get("parsed") or {}, [entry]).document is None


def _roster(work: Work) -> bool | Parked:
    """Whether the agent was in the roster before this job; parks while the writer is not done. Raises
    PermanentError with the writer's sentence."""
    with work.services.engine.begin() as connection:
        settled = settled_intent(connection, work.held.job_id, work.agent_id)
        if settled is None:
            return True
        if settled.error is not None:
            raise PermanentError(settled.error)
        if not settled.applied:
            patience_s = work.services.settings.retry_budget_s * 2
            if work.held.age_s > patience_s:
                raise PermanentError(f"The roster was not written within {patience_s:g} seconds.")
            return Parked(_ROSTER_WAIT, ROSTER_PATIENCE_S)
        present = bool(settled.present_before)
        if work.held.phase == "roster":
            first = not (present and work.record.provisioned_before)
            work.advance(connection, "files", first_provision=first)
            work.held = replace(work.held, phase="files", first_provision=first)
    return present


_TAKE_OVER = text("""
    WITH before AS (SELECT id, status FROM agents WHERE id = :agent_id FOR UPDATE)
    UPDATE agents
    SET status = :status, provision_requested_at = coalesce(provision_requested_at, now() AT TIME ZONE 'utc'),
        provision_action = 'provision', updated_at = now() AT TIME ZONE 'utc'
    FROM before WHERE agents.id = before.id
    RETURNING before.status
""")


def _take_over(connection: Connection, services: Services, held: Claim, record: AgentRecord) -> Claim:
    """The agent's row says what is done with it from now on; what it said before is kept for a failure."""
    before = connection.execute(
        _TAKE_OVER, {"agent_id": held.agent_id, "status": PROVISION.status}
    ).scalar_one_or_none()
    if before is None:
        raise PermanentError(f"Agent {held.agent_id} (agent_id) was deleted meanwhile.")
    columns: dict[str, Any] = {"status_before": before, "openclaw_id": record.openclaw_id}
    advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
    return replace(held, phase="intent", status_before=held.status_before or before)


_SUCCEED = text("""
    UPDATE agents
    SET status = 'online', openclaw_session_id = :session_key, provision_requested_at = NULL,
        provision_action = NULL, provision_confirm_token_hash = NULL, updated_at = now() AT TIME ZONE 'utc',
        heartbeat_config = CASE WHEN coalesce(heartbeat_config::text, 'null') = 'null'
            THEN CAST(:heartbeat AS json) ELSE heartbeat_config END
    WHERE id = :agent_id
""")


def _end(work: Work) -> None:
    record = work.record
    tokens = [report["token"] for report in work.files.values() if "token" in report]
    result = {
        "agent_id": str(work.agent_id),
        "openclaw_id": record.openclaw_id,
        "session_key": record.session_key,
        "workspace_path": record.workspace,
        "files": work.files,
        "woken": work.held.woken_at is not None,
        "token": tokens[0] if tokens else None,
        "warnings": work.warnings,
    }
    with work.services.engine.begin() as connection:
        finish(connection, work.held, "succeeded", result=result, warnings=work.warnings, files=work.files)
        values = {"session_key": record.session_key, "heartbeat": json.dumps(DEFAULT_HEARTBEAT)}
        connection.execute(_SUCCEED, {"agent_id": work.agent_id, **values})
        has_succeeded_here(connection, work.agent_id, record.gateway_id)
