"""Makes an agent anew from its bundle: its row, then an ordinary provision that delivers its own files
(rules.md 52)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from worker.agents.agent_context import JobProfile
from worker.agents.agent_job import reconcile
from worker.agents.window_wait import require_window_to_begin
from worker.jobs.retry_policy import Snooze
from worker.jobs.store.job_agents import Claim, advance
from worker.jobs.store.jobs import move_job
from worker.records.agent_repository import load_agent
from worker.records.agent_status import take_over
from worker.records.bundles import StoredBundle, find_bundle, open_bundle
from worker.records.restored_rows import copied_row, own_row, put_row
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


def _begin(services: Services, held: Claim, bundle: Bundle, warnings: list[str]) -> Claim:
    """Make the row, all of it or nothing, and take the agent over."""
    board_id, user_id = held.options.get("board_id"), held.options.get("user_id")
    allow_masked = held.options.get("allow_masked") is True
    with services.engine.begin() as connection:
        if board_id is None:
            row = own_row(connection, held.agent_id, bundle)
        else:
            row = copied_row(connection, held.agent_id, bundle, UUID(str(board_id)))
        left = put_row(connection, held.agent_id, row, bundle, held.kind, allow_masked=allow_masked)
        record = load_agent(connection, held.agent_id, UUID(user_id) if user_id else None, main=True)
        require_window_to_begin(held, record, RESTORE)
        before = take_over(connection, held.agent_id, str(RESTORE.status), RESTORE.action)
        move_job(connection, held.job_id, record.gateway_id)
        columns: dict[str, Any] = {
            "status_before": before,
            "openclaw_id": record.openclaw_id,
            "agent_name": record.shown_name,
        }
        warnings += _said_of_row(bundle, record.openclaw_id, left, copied=board_id is not None)
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
