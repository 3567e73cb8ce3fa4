"""Deletes an agent: roster entry, session, row (rules.md 40). What no longer exists counts as deleted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from worker.agents.bundle_reading import masked_in, read_bundle, rows_alone
from worker.errors import PermanentError
from worker.gateway.dialect import Dialect
from worker.gateway.errors import PermanentGatewayError
from worker.jobs.messages import Message
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import (
    Claim,
    advance,
    finish,
    park,
)
from worker.records.agent_status import take_over
from worker.records.bundles import Reason, bundle_of_job, find_bundle, keep
from worker.records.gateway_repository import GatewayRecord, load_gateway
from worker.records.holds import release_holds
from worker.records.places import History, Place, close_places, history_of, home_of, made_place
from worker.records.sync_windows import load_windows
from worker.rights import require_all_rows, require_for
from worker.roster.circuit_breaker import check_circuit, connect_and_record
from worker.roster.intents import (
    ROSTER_RECHECK_S,
    IntentState,
    RosterChange,
    intent_states,
    recheck_in_s,
    record_intents,
)
from worker.runtime.services import Services
from worker.workspace.display_text import one_line
from worker.workspace.identity import derived_id

_WAIT = "waiting for the roster writer"
_STAYS = (
    "It is the gateway's own agent main, which is never removed: its entry, its files and its sessions stay,"
    " and with them the section ## Tools, whose token is worthless now."
)


@dataclass(frozen=True)
class DeletionTarget:
    """What is known about an agent that is being deleted.

    ``home``: where it lives or last lived, None if that is unknown; ``gateway``: the gateway to delete it
    from, as far as it has a row; ``to_clear``: all places from which it has to be removed; ``lost``: its live
    places on gateways that no longer have a row; ``places``: all its places on record.
    """

    home: Place | None
    gateway: GatewayRecord | None = None
    to_clear: tuple[Place, ...] = ()
    lost: tuple[Place, ...] = ()
    places: tuple[Place, ...] = ()

    @property
    def removable(self) -> tuple[Place, ...]:
        """The places from which it can be removed: all but the gateway's own ``main``."""
        return tuple(place for place in self.to_clear if place.may_be_removed)

    @property
    def recorded(self) -> bool:
        """Whether the agent is known to have lived where its files would be."""
        return self.home is not None and self.home.recorded

    @property
    def kept(self) -> tuple[Place, ...]:
        """The places that it leaves though its entry stays there (rules.md 48)."""
        return tuple(place for place in self.to_clear if not place.may_be_removed)

    def seen_at(self, gone: Sequence[IntentState]) -> DeletionTarget:
        """A copy whose ``home`` is a place from which the agent was actually removed: the agent's row may by
        now say that it lives elsewhere. ``gone``: the removals that found the agent."""
        assert self.home is not None
        found = [
            place
            for intent in gone
            for place in self.places
            if place.is_at(intent.gateway_id, intent.openclaw_id)
        ]
        if not found or any(place.is_at(self.home.gateway_id, self.home.openclaw_id) for place in found):
            return self
        return replace(self, home=found[0])


def delete(services: Services, held: Claim, warnings: list[str]) -> Snooze | None:
    """Delete the agent from its gateways and the database; return None once that is done, or the snooze in
    which the row waits.

    Adds to ``warnings``. Raises TransientError, WindowClosedError, PermanentError, LeaseLostError.
    """
    with services.engine.begin() as connection:
        target = _load(connection, held)
        if held.phase is None:
            _require_window(connection, held, target)
            held = _begin(connection, services, held, target)
    if held.phase is None:
        away = _make_bundle(services, held, target, warnings)
        if away is not None:
            return away
        held = replace(held, phase="intent")
    removed = False
    if target.home is None:
        warnings.append("Nothing is known of the agent's place on a gateway, so nothing was removed there.")
    elif held.phase == "intent" and target.removable:
        return _ask(services, held, target.removable)
    elif held.phase != "intent":
        settled = _settled(services, held, target, warnings)
        if isinstance(settled, Snooze):
            return settled
        gone = [intent for intent in settled if intent.applied and intent.present_before]
        removed, target = bool(gone), target.seen_at(gone)
        if held.options.get("delete_session") is not False:
            warnings += _delete_sessions(services, target, settled)
    for place in target.lost:
        warnings.append(
            f"Gateway {place.gateway_id}, where it was {place.openclaw_id}, has no row any more, so nothing"
            " was removed there."
        )
    warnings += [_STAYS for _ in target.kept[:1] if _STAYS not in warnings]
    _end(services, held, target, removed=removed, warnings=warnings)
    return None


def _require_window(connection: Connection, held: Claim, target: DeletionTarget) -> None:
    """Raise WindowClosedError if a gateway from which it has to be removed takes not even deletes now."""
    if target.removable:
        gateways = {place.gateway_id for place in target.removable}
        load_windows(connection, gateways).require_open(held.options, asked=True)


def _begin(connection: Connection, services: Services, held: Claim, target: DeletionTarget) -> Claim:
    """Take the agent over. Its row of the job begins its first step once its bundle is kept."""
    if held.options.get("delete_row") is not False:
        require_for(connection, held.kind)
    before = take_over(connection, held.agent_id, "deleting", "delete")
    columns: dict[str, Any] = {"status_before": before}
    if target.home is not None:
        columns["openclaw_id"] = target.home.openclaw_id
    phase = "intent" if held.options.get("without_bundle") is True else None
    advance(connection, held, phase, lease_s=services.settings.lease_s, **columns)
    return replace(held, phase=phase, status_before=held.status_before or before)


def _make_bundle(
    services: Services, held: Claim, target: DeletionTarget, warnings: list[str]
) -> Snooze | None:
    """Keep a bundle of the agent before anything of it is removed (rules.md 52); return the snooze in which
    the row waits for the gateway, if it is away.

    There is none of an agent of which there is nothing. Adds to ``warnings``. Raises TransientError,
    PermanentError.
    """
    gateway = _gateway_of_home(services, target)
    if gateway is not None:
        away = check_circuit(services, gateway)
        if away is not None:
            return away
        connect_and_record(services, gateway)
    bundle = read_bundle(services, held.agent_id, target.home, gateway)
    with services.engine.begin() as connection:
        better = None if bundle.whole else find_bundle(connection, held.agent_id)
        if better is not None and better.whole:
            warnings.append(
                f"Its files cannot be read any more: bundle {better.id} of {better.made_at:%Y-%m-%d}"
                " has them."
            )
        elif bundle.whole or bundle.row:
            reason: Reason = "delete" if bundle.row else "orphan"
            keep(connection, held.agent_id, bundle, reason, services.settings.bundle_keys, job_id=held.job_id)
            if not bundle.whole and target.recorded:
                warnings.append(rows_alone(bundle))
            if bundle.masked:
                warnings.append(masked_in(bundle))
        advance(connection, held, "intent", lease_s=services.settings.lease_s, warnings=warnings)
    return None


def _gateway_of_home(services: Services, target: DeletionTarget) -> GatewayRecord | None:
    if target.home is None:
        return None
    if target.gateway is not None and target.gateway.gateway_id == target.home.gateway_id:
        return target.gateway
    with services.engine.connect() as connection:
        return load_gateway(connection, target.home.gateway_id)


def _ask(services: Services, held: Claim, targets: Sequence[Place]) -> Snooze:
    messages: list[Message] = []
    with services.engine.begin() as connection:
        for place in targets:
            wanted = held.options.get("delete_files")
            delete_files = bool(wanted if wanted is not None else not place.adopted)
            change = RosterChange(held.agent_id, place.openclaw_id, "remove", delete_files=delete_files)
            messages += record_intents(connection, place.gateway_id, held.job_id, change)
        wait_s = min(ROSTER_RECHECK_S, services.settings.retry_timeout_s)
        park(connection, held, wait_s, _WAIT, "roster", code=ReasonCode.WAITING_FOR_ROSTER)
    services.publish(messages)
    return Snooze(_WAIT)


def _settled(
    services: Services, held: Claim, target: DeletionTarget, warnings: list[str]
) -> list[IntentState] | Snooze:
    """How the removals ended; parks the row while any is still open.

    Raises PermanentError if the removal from its home gateway failed; elsewhere a failure is only a warning.
    """
    with services.engine.begin() as connection:
        budget_s = services.settings.retry_timeout_s
        intents = intent_states(connection, held.job_id, held.agent_id, "remove", budget_s)
        if any(intent.open for intent in intents):
            wait_s = recheck_in_s(intents, budget_s)
            park(connection, held, wait_s, _WAIT, code=ReasonCode.WAITING_FOR_ROSTER)
            return Snooze(_WAIT)
    asked = {(intent.gateway_id, intent.openclaw_id) for intent in intents}
    new = [place for place in target.removable if (place.gateway_id, place.openclaw_id) not in asked]
    if new:  # it was moved meanwhile, so it is removed from its new place too
        return _ask(services, held, new)
    assert target.home is not None
    for intent in intents:
        if intent.error is not None and intent.gateway_id == target.home.gateway_id:
            raise PermanentError(intent.error, reason_code=intent.reason_code)
        if intent.error is not None:
            warnings.append(f"It could not be removed from gateway {intent.gateway_name!r}: {intent.error}")
        elif intent.warning is not None and intent.warning not in warnings:
            warnings.append(intent.warning)
    return intents


def _delete_sessions(services: Services, target: DeletionTarget, intents: Sequence[IntentState]) -> list[str]:
    """Delete the agent's sessions on its gateway; return the warnings.

    Newer releases delete sessions with the agent. Ids can pass from one agent to another, and a session under
    such an id is deleted only if this job removed the agent there.
    """
    if target.gateway is None:
        return []
    client = services.clients.client(target.gateway.address)
    hello = services.retry_inline(client.hello)
    if hello.one_session or Dialect.from_hello(hello.server_version, hello.methods).deletes_sessions:
        return []
    keys = {place.openclaw_id: place.session_key for place in target.to_clear}
    warnings = []
    for intent in intents:
        if intent.gateway_id != target.gateway.gateway_id or not (intent.present_before or _is_own(intent)):
            continue
        key = keys.get(intent.openclaw_id, f"agent:{intent.openclaw_id}:main")
        try:
            services.retry_inline(partial(client.call, "sessions.delete", {"key": key}))
        except PermanentGatewayError as error:
            warnings.append(f"Its session was not deleted: {error}")
    return warnings


def _is_own(intent: IntentState) -> bool:
    made = derived_id(intent.openclaw_id)
    return made is not None and made.role == "mc"


def _end(
    services: Services, held: Claim, target: DeletionTarget, *, removed: bool, warnings: list[str]
) -> None:
    home = target.home
    result = {
        "openclaw_id": home.openclaw_id if home else None,
        "workspace_path": home.workspace if home else None,
        "removed": removed,
    }
    keep_row = held.options.get("delete_row") is False
    try:
        with services.engine.begin() as connection:
            parameters = {"agent_id": held.agent_id}
            if held.options.get("only_orphan") is True:
                _load(connection, held)
            touched = connection.execute(_OFFLINE if keep_row else _DELETE_ROW, parameters).rowcount
            if not touched and connection.execute(_ROW, parameters).one_or_none() is not None:
                raise PermanentError(
                    "The agent is off its gateway, but its row stays: a trigger or row-level security on"
                    " agents keeps the database role from changing it. Change that and run the delete again."
                )
            connection.execute(_FORGET_FILES, {**parameters, "keep_row": keep_row})
            connection.execute(_FORGET_CREDENTIALS, parameters)
            release_holds(connection, [held.agent_id])
            for place in (*target.lost, *target.kept):
                close_places(connection, place.gateway_id, [(held.agent_id, place.openclaw_id)])
            bundle = bundle_of_job(connection, held.job_id)
            kept = {**result, "bundle": str(bundle) if bundle else None}
            finish(connection, held, "succeeded", result=kept, warnings=warnings, files={}, differs={})
    except IntegrityError as error:
        diagnosis = getattr(error.orig, "diag", None)
        table = getattr(diagnosis, "table_name", None) or "another table"
        constraint = getattr(diagnosis, "constraint_name", None) or "a constraint"
        raise PermanentError(
            f"The agent is off its gateway, but its row is still referenced from {table} ({constraint}):"
            " delete what refers to it and run the delete again."
        ) from None


_DELETE_ROW = text("DELETE FROM agents WHERE id = :agent_id")
_OFFLINE = text("""
    UPDATE agents SET status = 'offline', provision_action = NULL, updated_at = now() AT TIME ZONE 'utc'
    WHERE id = :agent_id
""")
_FORGET_FILES = text("""
    WITH settings AS (
        DELETE FROM provisioner.agent_settings
        WHERE scope = 'agent' AND target_id = :agent_id AND NOT CAST(:keep_row AS boolean)
    )
    DELETE FROM provisioner.agent_files WHERE agent_id = :agent_id
""")
_FORGET_CREDENTIALS = text("DELETE FROM provisioner.agent_credentials WHERE agent_id = :agent_id")

_ROW = text("SELECT id, name, board_id, is_board_lead, gateway_id FROM agents WHERE id = :agent_id")


def _load(connection: Connection, held: Claim) -> DeletionTarget:
    row = connection.execute(_ROW, {"agent_id": held.agent_id}).one_or_none()
    history = history_of(connection, held.agent_id)
    lost = tuple(place for place in history.live if place.gateway_id not in history.gateways)
    live = tuple(place for place in history.live if place not in lost)
    if row is None:
        require_all_rows(connection, "agents")
        return _without_row(connection, held, history, live, lost)
    _require_orphan(held, row.name)
    gateway = load_gateway(connection, row.gateway_id)
    if gateway is None:
        return DeletionTarget(live[-1] if live else None, None, live, lost, history.live + history.closed)
    root = gateway.gateway.workspace_root
    home = home_of(row, root, live)
    # A member's id is never another agent's, so it is removed even if there is no record of it.
    own = (made_place(row.gateway_id, f"mc-{row.id}", root),) if row.board_id is not None else ()
    return DeletionTarget(home, gateway, _each_once(home, *live, *own), lost, history.live + history.closed)


def _require_orphan(held: Claim, name: str) -> None:
    """Raise PermanentError for an agent with a row, if it was to be removed as an orphan (rules.md 53)."""
    if held.options.get("only_orphan") is True:
        raise PermanentError(
            f"Agent {one_line(name)!r} has a row again, so it is no orphan any more, and what was not removed"
            " before stays: `provisioner provision` makes it whole.",
            reason_code=ReasonCode.REFUSED_REQUEST,
        )


def _without_row(
    connection: Connection, held: Claim, history: History, live: tuple[Place, ...], lost: tuple[Place, ...]
) -> DeletionTarget:
    """What is left of an agent whose row is gone: the places that it still has on record, and all that it
    ever had on the gateway that the request names (rules.md 40). A place that was adopted and left is not
    among them: what is there by now is its owner's (rules.md 48)."""
    named = held.options.get("gateway_id")
    gateway = load_gateway(connection, UUID(str(named))) if named else None
    targets = live
    if gateway is not None:
        there = [
            place for place in history.closed if place.gateway_id == gateway.gateway_id and not place.adopted
        ]
        own = made_place(gateway.gateway_id, f"mc-{held.agent_id}", gateway.gateway.workspace_root)
        targets = _each_once(*live, *reversed(there), own)
    elif live:
        gateway = load_gateway(connection, live[-1].gateway_id)
    home = next((p for p in targets if gateway and p.gateway_id == gateway.gateway_id), None)
    if home is None and history.closed:
        home = history.closed[-1]
    return DeletionTarget(home, gateway, targets, lost, history.live + history.closed)


def _each_once(*places: Place) -> tuple[Place, ...]:
    return tuple({(place.gateway_id, place.openclaw_id): place for place in reversed(places)}.values())[::-1]
