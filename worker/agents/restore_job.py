"""Makes an agent anew from its bundle: its row, then an ordinary provision that delivers its own files
(rules.md 52)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.agent_context import JobProfile, render
from worker.agents.agent_job import reconcile
from worker.agents.window_wait import require_window_to_begin
from worker.gateway.dialect import Dialect
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_agents import Claim, advance
from worker.jobs.store.jobs import move_job
from worker.records.agent_repository import AgentRecord, load_agent
from worker.records.agent_status import take_over
from worker.records.bundles import StoredBundle, find_bundle, open_bundle
from worker.records.restored_rows import copied_row, own_row, put_row
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.runtime.services import Services
from worker.workspace.bundle import Bundle, BundleError, LeftOut, own_files

RESTORE = JobProfile("provisioning", "provision", "restored", mints=True, serves_main=True)


def restore(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
    """Restore the agent; return None once its row of the job has succeeded, or the snooze in which it waits.

    Adds to ``warnings``. Raises TransientError, WindowClosedError, PermanentError, LeaseLostError.
    """
    with services.engine.connect() as connection:
        stored = _stored(connection, held)
        bundle = open_bundle(connection, stored, services.settings.bundle_keys)
    own = own_files(bundle, allow_masked=held.options.get("allow_masked") is True)
    own.left.extend(bundle.left_out)
    if held.phase is None:
        away = _try_to_render(services, held, bundle)
        if away is not None:
            return away
        held = _begin(services, held, bundle, warnings)
    return reconcile(services, held, warnings, RESTORE, own=replace(own, bundle_id=stored.id))


def _stored(connection: Connection, held: Claim) -> StoredBundle:
    given = held.options.get("bundle_id")
    stored = find_bundle(connection, held.agent_id, UUID(str(given)) if given else None)
    if stored is None:
        what = f"bundle {given}" if given else f"bundle of agent {held.agent_id}"
        raise BundleError(f"There is no {what}: `provisioner bundles` lists those that are kept.")
    if stored.agent_id != held.agent_id:
        raise BundleError(f"Bundle {stored.id} is of agent {stored.agent_id}: restore that agent.")
    return stored


def _try_to_render(services: Services, held: Claim, bundle: Bundle) -> Snooze | None:
    """Render the agent as it will be, before a row is made of it; return the snooze in which the job waits
    for a gateway that is away. Raises PermanentError if it cannot be rendered there."""
    with services.engine.connect() as connection, connection.begin() as transaction:
        record, _ = _make_row(connection, held, bundle)
        transaction.rollback()
    away = check_circuit(services, record)
    if away is not None:
        return away
    hello = connect_and_record(services, record)
    render(record, Dialect.from_hello(hello.server_version, hello.methods), services.settings)
    return None


def _make_row(connection: Connection, held: Claim, bundle: Bundle) -> tuple[AgentRecord, list[LeftOut]]:
    """Make the agent's row; return the agent, and what of it was not taken over. Raises PermanentError."""
    board_id, user_id = held.options.get("board_id"), held.options.get("user_id")
    if board_id is None:
        row = own_row(connection, held.agent_id, bundle)
    else:
        row = copied_row(connection, held.agent_id, bundle, UUID(str(board_id)))
    allow_masked = held.options.get("allow_masked") is True
    left = put_row(connection, held.agent_id, row, bundle, held.kind, allow_masked=allow_masked)
    return load_agent(connection, held.agent_id, UUID(user_id) if user_id else None, main=True), left


def _begin(services: Services, held: Claim, bundle: Bundle, warnings: list[str]) -> Claim:
    """Make the row and take the agent over."""
    copied = held.options.get("board_id") is not None
    with services.engine.begin() as connection:
        record, left = _make_row(connection, held, bundle)
        require_window_to_begin(held, record, RESTORE)
        before = take_over(connection, held.agent_id, str(RESTORE.status), RESTORE.action)
        move_job(connection, held.job_id, record.gateway_id)
        columns: dict[str, Any] = {
            "status_before": before,
            "openclaw_id": record.openclaw_id,
            "agent_name": record.shown_name,
        }
        warnings += _said_of_row(bundle, record.openclaw_id, left, copied=copied)
        advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns, warnings=warnings)
    return replace(held, phase="intent", status_before=before, gateway_id=record.gateway_id)


def _said_of_row(bundle: Bundle, openclaw_id: str, left: list[LeftOut], *, copied: bool) -> list[str]:
    said = [f"{one.what} was not restored: {one.why}." for one in left]
    was = bundle.agent.get("openclaw_id")
    if not copied and was not in (None, openclaw_id):
        said.append(f"It was {was} on its gateway, and is {openclaw_id} now.")
    if copied and bundle.row.get("is_board_lead") is True:
        said.append("It led a board where it comes from; it joins this one as a member.")
    return said
