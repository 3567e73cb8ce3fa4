"""Takes an agent under care that is on its gateway already: looks, and writes only its token (rules.md 48).

The roster entry is read and never changed. A new row of ``agents`` is made in the transaction in which the
verified token becomes the agent's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.agent_context import AgentContext, JobProfile
from worker.agents.found_agent import FoundAgent, look_at_roster
from worker.agents.token_choice import record_success
from worker.agents.wake import wake
from worker.agents.workspace_apply import apply_workspace
from worker.agents.workspace_plan import plan_workspace
from worker.gateway.agent_ids import canonical_id
from worker.gateway.dialect import Dialect
from worker.gateway.owner_settings import has_one_session
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_agents import Claim, advance
from worker.records.adoption import (
    claim_found_place,
    had_no_row,
    refuse_if_held,
    refuse_if_of_another_board,
)
from worker.records.agent_repository import AgentRecord, MovedAgentError, load_agent
from worker.records.agent_rows import NewAgent, add_found_agent
from worker.records.agent_status import succeed, take_over
from worker.records.gateway_repository import GatewayRecord, require_gateway
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.runtime.services import Services
from worker.worker_row import require_no_older_worker

SINCE = "0022"
"""The revision before which workers take an adopted agent for one of ours."""
ADOPT = JobProfile("updating", "update", "taken under care", mints=True, serves_main=True)
_SESSION_GOES_ON = (
    "This release shows an agent its changed files only from its next session on, so it has its token only"
    " then: /new in its chat begins one."
)


@dataclass(frozen=True)
class _Adoption:
    """What is adopted, and the row that it gets; None if it becomes an agent that has one."""

    found: FoundAgent
    new: NewAgent | None

    def as_agent(self, connection: Connection, held: Claim) -> AgentRecord:
        """The agent's record as it is once it is adopted. The caller rolls the transaction back."""
        user_id = held.options.get("user_id")
        self.make_row(connection, held)
        claim_found_place(connection, held.agent_id, self.found.place)
        return load_agent(connection, held.agent_id, UUID(user_id) if user_id else None, main=True)

    def make_row(self, connection: Connection, held: Claim) -> None:
        """Insert the agent's row, if it has none."""
        if self.new is not None:
            add_found_agent(connection, self.new, held.kind)


def adopt(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
    """Adopt the agent, or say what that would do; return None once its row has succeeded, or the snooze in
    which it waits.

    Adds to ``warnings``. Raises TransientError, WindowClosedError, PermanentError, LeaseLostError.
    """
    with services.engine.connect() as connection:
        gateway = require_gateway(connection, held.gateway_id)
    if held.phase is None:
        gateway.windows.require_open(held.options, asked=True)
    away = check_circuit(services, gateway)
    if away is not None:
        return away
    hello = connect_and_record(services, gateway)
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    client = services.clients.client(gateway.address)
    roster = look_at_roster(services, client, dialect)
    openclaw_id = canonical_id(held.options.get("openclaw_id"))
    with services.engine.connect() as connection:
        refuse_if_held(connection, gateway, openclaw_id, held.agent_id, roster.live.known)
    found = services.retry_inline(
        lambda: roster.found(client, gateway.gateway_id, openclaw_id, gateway.gateway.name)
    )
    adoption = _Adoption(found, _new_agent(held, gateway, found))
    context = AgentContext(
        services,
        held,
        _load_as_adopted(services, held, adoption, gateway),
        ADOPT,
        dialect,
        warnings=warnings,
        files=dict(held.files),
        one_session=has_one_session(roster.live.answer.get("config")),
        adopting=True,
        before_commit=lambda connection: adoption.make_row(connection, held),
    )
    return _run_steps(context, adoption)


def _load_as_adopted(
    services: Services, held: Claim, adoption: _Adoption, gateway: GatewayRecord
) -> AgentRecord:
    """The agent's record as it will be, from a transaction that is not committed. Raises PermanentError."""
    with services.engine.connect() as connection, connection.begin() as transaction:
        record = adoption.as_agent(connection, held)
        transaction.rollback()
    place = adoption.found.place
    if adoption.new is not None:
        refuse_if_of_another_board(gateway, place.openclaw_id, record, adoption.new.board_id)
    if not record.home.adopted or not record.home.is_at(place.gateway_id, place.openclaw_id):
        raise MovedAgentError(
            f"Agent {record.agent.name!r} was put on gateway {record.gateway.name!r} meanwhile: ask again."
        )
    return record


def _run_steps(context: AgentContext, adoption: _Adoption) -> Snooze | None:
    """Look, and unless this is a dry run also record the place, write and finish. What cannot be adopted is
    refused by the look, before anything is on record."""
    dry_run = context.option("dry_run")
    if dry_run or context.held.phase is None:
        plan = plan_workspace(context, first=False)
        if dry_run:
            context.files = plan.report(with_diffs=context.option("diff"))
    context.held = _begin(context.services, context.held, adoption)
    if not dry_run:
        if context.held.phase != "wake":
            apply_workspace(context, first=False)
        snooze = _wake(context)
        if snooze is not None:
            return snooze
    _finish(context)
    return None


def _new_agent(held: Claim, gateway: GatewayRecord, found: FoundAgent) -> NewAgent | None:
    board_id = held.options.get("board_id")
    if board_id is None or held.options.get("agent_id") is not None:
        return None
    return NewAgent(
        held.agent_id,
        found.name,
        UUID(board_id),
        gateway.gateway_id,
        found.place.session_key,
        found.heartbeat,
    )


def _begin(services: Services, held: Claim, adoption: _Adoption) -> Claim:
    """Record what was found, and, unless this is a dry run, that it is the agent's place from now on."""
    dry_run = held.options.get("dry_run") is not False
    columns: dict[str, Any] = {
        "openclaw_id": adoption.found.place.openclaw_id,
        "agent_name": adoption.found.name,
    }
    with services.engine.begin() as connection:
        if not dry_run:
            require_no_older_worker(connection, SINCE, "adopted agents")
            claim_found_place(connection, held.agent_id, adoption.found.place)
        if not dry_run and held.phase is None:
            columns["status_before"] = take_over(connection, held.agent_id, str(ADOPT.status), ADOPT.action)
        advance(connection, held, held.phase or "files", lease_s=services.settings.lease_s, **columns)
    before = held.status_before or columns.get("status_before")
    return replace(held, phase=held.phase or "files", status_before=before)


def _wake(context: AgentContext) -> Snooze | None:
    """Wake the agent if the request says so; otherwise it is not disturbed, and its session goes on."""
    if context.option("wake"):
        return wake(context)
    if context.rekeyed and context.dialect.keeps_files_per_session and not context.one_session:
        context.warn(_SESSION_GOES_ON)
    return None


def _finish(context: AgentContext) -> None:
    dry_run = context.option("dry_run")
    result = {**context.result(), "dry_run": dry_run}
    if dry_run:
        result["roster"] = {"action": "unchanged", "changes": {}}
    with context.services.engine.begin() as connection:
        result["created"] = had_no_row(connection, context.held.job_id, context.agent_id)
        context.succeed(connection, result)
        if not dry_run:
            succeed(connection, {context.agent_id: context.record.session_key})
            record_success(connection, context.record.gateway_id, [context.agent_id])
