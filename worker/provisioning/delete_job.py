"""Delete of an agent: roster, session, row (behaviour 40). What is gone already is success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from worker.errors import PermanentError
from worker.gateway.address import GatewayAddress
from worker.gateway.dialect import Dialect
from worker.gateway.errors import PermanentGatewayError
from worker.jobs.ledger import Claim, advance, finish, park
from worker.jobs.outbox import Message
from worker.provisioning.agent_status import take_over
from worker.provisioning.departure import gateways_before
from worker.provisioning.intents import ROSTER_PATIENCE_S, Wish, look_again_s, record_intents, settled_intents
from worker.provisioning.services import Services
from worker.provisioning.work import Parked
from worker.rights import require_for
from worker.workspace.identity import main_workspace_path, openclaw_id, session_key_of
from worker.workspace.identity import workspace_path as board_workspace_path

_WAIT = "waiting for the roster writer"


class StillReferencedError(PermanentError):
    """Other tables hold the agent's row; the sentence names the constraint."""


@dataclass(frozen=True)
class Condemned:
    """An agent to delete, as far as it is still known. ``gateway_id`` None: nothing to go by.
    ``elsewhere``: gateways where it was before a move that no job has carried out."""

    openclaw_id: str | None
    session_key: str | None
    gateway_id: UUID | None
    address: GatewayAddress | None
    workspace: str | None
    elsewhere: tuple[UUID, ...] = ()


def delete(services: Services, held: Claim, warnings: list[str]) -> Parked | None:
    """Take the agent off its gateway and out of the database as far as it will go now, adding to
    ``warnings``; None when done.

    Raises TransientError, PermanentError (StillReferencedError among them), LeaseLostError.
    """
    with services.engine.begin() as connection:
        condemned = _load(connection, held)
        if held.phase is None:
            if held.options.get("delete_row") is not False:
                require_for(connection, held.kind)
            before = take_over(connection, held.agent_id, "deleting", "delete")
            columns: dict[str, Any] = {"status_before": before}
            if condemned.openclaw_id is not None:
                columns["openclaw_id"] = condemned.openclaw_id
            advance(connection, held, "intent", lease_s=services.settings.lease_s, **columns)
            held = replace(held, phase="intent", status_before=held.status_before or before)
    removed = False
    if condemned.openclaw_id is None or condemned.gateway_id is None or condemned.address is None:
        warnings.append("Nothing is known of the agent's place on a gateway, so nothing was removed there.")
    elif held.phase == "intent":
        return _ask(services, held, condemned)
    else:
        settled = _settled(services, held, condemned, warnings)
        if isinstance(settled, Parked):
            return settled
        removed = settled
        if held.options.get("delete_session") is not False:
            warnings += _delete_session(services, condemned)
    _end(services, held, condemned, removed=removed, warnings=warnings)
    return None


def _ask(services: Services, held: Claim, condemned: Condemned) -> Parked:
    assert condemned.gateway_id is not None
    assert condemned.openclaw_id is not None
    delete_files = held.options.get("delete_files") is not False
    wish = Wish(held.agent_id, condemned.openclaw_id, "remove", delete_files=delete_files)
    messages: list[Message] = []
    with services.engine.begin() as connection:
        for gateway_id in (condemned.gateway_id, *condemned.elsewhere):
            messages += record_intents(connection, gateway_id, held.job_id, wish)
        wait_s = min(ROSTER_PATIENCE_S, services.settings.retry_budget_s)
        park(connection, held, wait_s, _WAIT, "roster")
    services.publish(messages)
    return Parked(_WAIT)


def _settled(services: Services, held: Claim, condemned: Condemned, warnings: list[str]) -> bool | Parked:
    """Whether its gateway's roster had the agent; parks while a writer has not come to it. A gateway that it
    had left already cannot hold the delete up."""
    with services.engine.begin() as connection:
        budget_s = services.settings.retry_budget_s
        wishes = settled_intents(connection, held.job_id, held.agent_id, "remove", budget_s)
        if any(wish.open for wish in wishes):
            park(connection, held, look_again_s(wishes, budget_s), _WAIT)
            return Parked(_WAIT)
    here = next((wish for wish in wishes if wish.gateway_id == condemned.gateway_id), None)
    if here is None:  # it was moved meanwhile, and is to leave its new place too
        return _ask(services, held, condemned)
    if here.error is not None:
        raise PermanentError(here.error)
    if here.warning is not None:
        warnings.append(here.warning)
    for wish in wishes:
        if wish.error is not None:
            warnings.append(f"It could not be removed from gateway {wish.gateway_name!r}: {wish.error}")
    return bool(here.present_before)


def _delete_session(services: Services, condemned: Condemned) -> list[str]:
    """Delete the agent's session where the release lets us; newer ones delete it with the agent."""
    assert condemned.address is not None
    client = services.clients.client(condemned.address)
    hello = services.patiently(client.hello)
    if hello.one_session or Dialect.from_hello(hello.server_version, hello.methods).roster == "entries":
        return []
    try:
        services.patiently(lambda: client.call("sessions.delete", {"key": condemned.session_key}))
    except PermanentGatewayError as error:
        return [f"Its session was not deleted: {error}"]
    return []


def _end(
    services: Services, held: Claim, condemned: Condemned, *, removed: bool, warnings: list[str]
) -> None:
    result: Mapping[str, Any] = {
        "openclaw_id": condemned.openclaw_id,
        "workspace_path": condemned.workspace,
        "removed": removed,
    }
    keep_row = held.options.get("delete_row") is False
    try:
        with services.engine.begin() as connection:
            parameters = {"agent_id": held.agent_id}
            connection.execute(_OFFLINE if keep_row else _DELETE_ROW, parameters)
            connection.execute(_FORGET_FILES, parameters)
            connection.execute(_FORGET_CREDENTIALS, parameters)
            finish(connection, held, "succeeded", result=result, warnings=warnings, files={})
    except IntegrityError as error:
        diagnosis = getattr(error.orig, "diag", None)
        table = getattr(diagnosis, "table_name", None) or "another table"
        constraint = getattr(diagnosis, "constraint_name", None) or "a constraint"
        raise StillReferencedError(
            f"The agent is off its gateway, but its row is still referenced from {table} ({constraint}):"
            " delete what refers to it and run the delete again."
        ) from None


_DELETE_ROW = text("DELETE FROM agents WHERE id = :agent_id")
_OFFLINE = text("""
    UPDATE agents SET status = 'offline', provision_action = NULL, updated_at = now() AT TIME ZONE 'utc'
    WHERE id = :agent_id
""")
_FORGET_FILES = text("DELETE FROM provisioner.agent_files WHERE agent_id = :agent_id")
_FORGET_CREDENTIALS = text("DELETE FROM provisioner.agent_credentials WHERE agent_id = :agent_id")

_LOAD = text("""
    SELECT a.id, a.board_id, a.is_board_lead, g.id AS gateway_id, g.name AS gateway_name, g.url,
        g.token, g.workspace_root, known.openclaw_id,
        coalesce((to_jsonb(g) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls
    FROM (SELECT CAST(:agent_id AS uuid) AS id) AS wanted
    LEFT JOIN agents a ON a.id = wanted.id
    LEFT JOIN LATERAL (
        SELECT r.openclaw_id, j.gateway_id FROM provisioner.job_agents r
        JOIN provisioner.jobs j ON j.id = r.job_id
        WHERE r.agent_id = wanted.id AND r.openclaw_id IS NOT NULL AND j.gateway_id IS NOT NULL
        ORDER BY j.created_at DESC LIMIT 1
    ) known ON true
    LEFT JOIN gateways g ON g.id = coalesce(a.gateway_id, CAST(:gateway_id AS uuid), known.gateway_id)
""")


def _load(connection: Connection, held: Claim) -> Condemned:
    row = connection.execute(
        _LOAD, {"agent_id": held.agent_id, "gateway_id": held.options.get("gateway_id")}
    ).one()
    key = _session_key(row)
    name = openclaw_id(key) if key else row.openclaw_id or f"mc-{held.agent_id}"
    known = row.gateway_id is not None and (row.id is not None or row.openclaw_id is not None)
    known = known or (row.gateway_id is not None and held.options.get("gateway_id") is not None)
    if not known:
        return Condemned(None, None, None, None, None)
    main = row.id is not None and row.board_id is None
    path = main_workspace_path if main else board_workspace_path
    root = (row.workspace_root or "").strip()
    return Condemned(
        openclaw_id=name,
        session_key=key or f"agent:{name}:main",
        gateway_id=row.gateway_id,
        address=GatewayAddress(row.url, row.token, row.allow_insecure_tls),
        workspace=path(root, str(row.gateway_id) if main else name) if root else None,
        elsewhere=tuple(
            gateway_id
            for gateway_id in gateways_before(connection, held.agent_id)
            if gateway_id != row.gateway_id
        ),
    )


def _session_key(row: Any) -> str | None:
    if row.id is None:
        return None
    return session_key_of(row.id, row.board_id, row.is_board_lead, row.gateway_id)
