"""The one writer of a gateway's roster (design D1).

It takes all open intents, makes one patch or none, waits out the restart that it causes, reads back, and
wakes the jobs that wait. Nothing else in the program sends config.patch or agents.delete.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text

from worker.database import DATABASE_AWAY
from worker.drain import draining
from worker.errors import PermanentError, TransientError
from worker.gateway.address import GatewayAddress
from worker.gateway.client import GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import (
    CallTimedOut,
    ConnectionLost,
    InvalidConfig,
    PermanentGatewayError,
    RateLimited,
    StaleConfig,
    UnknownAgent,
    WrongToken,
)
from worker.gateway.roster import RosterEntry, RosterPlan, plan_roster
from worker.jobs.outbox import mark_waiting_for
from worker.provisioning.intents import Intent, apply_intents, note_present, open_intents, refuse_intents
from worker.provisioning.outage import note_failure, note_refused_token, note_up, unreachable
from worker.provisioning.roster_lease import LONGEST_LEASE_S, RosterLease, RosterLeaseLostError, roster_lease
from worker.provisioning.services import Services
from worker.workspace.identity import (
    main_session_key,
    main_workspace_path,
    openclaw_id,
    session_key,
    workspace_path,
)

log = logging.getLogger(__name__)

PATCH_DEADLINE_S = 25.0
RESTART_PATIENCE_S = 10.0
"""A restart that is due later than this is waited for by the gateway's row, not by a slot."""
_RESTART_SLACK_S = 3.0
_ROUNDS = 6
_REJECTED_PATCHES = 2
_BATCHES = 20


@dataclass
class _Batch:
    """One turn of the writer: the intents it took and what they ask for."""

    intents: list[Intent]
    entries: dict[UUID, RosterEntry]
    rejected: int = 0
    refused: dict[UUID, str] = field(default_factory=dict)

    def ids(self, agents: Sequence[UUID] | None = None) -> list[int]:
        return [i.id for i in self.intents if agents is None or i.agent_id in agents]

    def wanted(self) -> list[RosterEntry]:
        return [entry for agent, entry in self.entries.items() if agent not in self.refused]

    def unwanted(self, present: frozenset[str]) -> list[Intent]:
        """The removals that are still to be made."""
        return [
            intent
            for intent in self.intents
            if intent.change == "remove"
            and intent.openclaw_id in present
            and intent.agent_id not in self.refused
        ]


def write_roster(services: Services, gateway_id: UUID) -> None:
    """Settle all intents that are open for the gateway, if its roster is free to be written.

    Ends rather than waits where the gateway is away, limits us, or restarts only later: the time is noted in
    its row, and the clock calls again.
    """
    lease_s = min(services.settings.lease_s, LONGEST_LEASE_S)
    for _ in range(_BATCHES):
        with roster_lease(services.engine, gateway_id, lease_s) as lease:
            if lease is None:
                return
            draining.wait(services.settings.roster_breath_s)
            _write_batch(services, lease)
            if lease.again_in_s is not None:
                return
        # Whoever recorded an intent while we held the lease was turned away: look once more after letting go.
        with services.engine.connect() as connection:
            if not open_intents(connection, gateway_id):
                return


def _write_batch(services: Services, lease: RosterLease) -> None:
    with services.engine.connect() as connection:
        intents = open_intents(connection, lease.gateway_id)
        gateway = connection.execute(_GATEWAY, {"gateway_id": lease.gateway_id}).one_or_none()
        wanted = [intent.agent_id for intent in intents if intent.change == "reconcile"]
        rows = connection.execute(_WANTED, {"agents": wanted}).all()
    if not intents:
        return
    batch = _Batch(intents, {})
    try:
        if gateway is None:
            raise PermanentError(f"Gateway {lease.gateway_id} does not exist any more.")
        for row in rows:
            _want(batch, row, gateway)
        for intent in intents:
            if intent.change == "reconcile" and intent.agent_id not in batch.entries:
                batch.refused.setdefault(
                    intent.agent_id, "The agent was deleted, or moved to another gateway."
                )
        _bring_about(services, lease, batch, services.clients.client(_address(gateway)))
    except RosterLeaseLostError as error:
        log.warning("%s", error)
    except RateLimited as error:
        lease.rate_limited, lease.again_in_s = True, error.retry_after_s or 60.0
        log.info("roster of gateway %s: %s", lease.gateway_id, error)
    except TransientError as error:
        _postpone(services, lease, batch, error)
    except PermanentError as error:
        if isinstance(error, WrongToken) and gateway is not None:
            with services.engine.begin() as connection:
                note_refused_token(connection, lease.gateway_id, _address(gateway), str(error))
        _settle(services, batch, [], {i.agent_id: str(error) for i in batch.intents})
    except DATABASE_AWAY:
        raise
    except Exception as error:
        log.exception("the roster writer of gateway %s failed", lease.gateway_id)
        sentence = f"The roster writer failed with {type(error).__name__}: see the worker's log."
        _settle(services, batch, [], {i.agent_id: sentence for i in batch.intents})


def _bring_about(services: Services, lease: RosterLease, batch: _Batch, client: GatewayClient) -> None:
    """Read, patch where something differs, wait for the restart, read back; again while rounds are left."""
    writes = 0
    for attempt in range(_ROUNDS):
        dialect, config, plan = _look(client, batch)
        if attempt == 0:
            with services.engine.begin() as connection:
                note_present(connection, batch.ids(), plan.present)
        if plan.document is None:
            unwanted = batch.unwanted(plan.present)
            if unwanted:
                _remove(lease, client, batch, unwanted)
                writes += len(unwanted)
                continue
            if writes:
                log.info("roster of gateway %s: written in %d calls", lease.gateway_id, writes)
            agents = {intent.agent_id for intent in batch.intents}
            _settle(services, batch, sorted(agents, key=str), batch.refused, up=lease.gateway_id)
            return
        restart_in_s = _RESTART_SLACK_S if dialect.roster == "list" else 0.0
        lease.about_to_write(restart_in_s)
        connection_before = client.connection()
        try:
            answer = client.call(
                "config.patch",
                {
                    "raw": json.dumps(plan.document, ensure_ascii=False),
                    "baseHash": config["hash"],
                    "restartDelayMs": dialect.restart_delay_ms,
                },
                deadline_s=PATCH_DEADLINE_S,
            )
        except StaleConfig:
            continue
        except InvalidConfig as error:
            _name_culprits(batch, plan, error)
            continue
        except (ConnectionLost, CallTimedOut) as error:
            log.warning("a config write to gateway %s ended without an answer: %s", lease.gateway_id, error)
            _await_return(client)
            continue
        writes += 1
        restart = answer.get("restart")
        if isinstance(restart, Mapping):
            delay_s = float(restart.get("delayMs") or 0) / 1000
            if delay_s > RESTART_PATIENCE_S:
                lease.about_to_write(delay_s + _RESTART_SLACK_S)
                lease.again_in_s = delay_s + _RESTART_SLACK_S
                return
            connection_before.wait_closed(delay_s + _RESTART_SLACK_S)
            _await_return(client)
    raise PermanentError(
        f"The gateway said ok {writes} times, but its roster does not hold what was written:"
        " somebody else rewrites it. See `provisioner doctor`."
    )


def _remove(lease: RosterLease, client: GatewayClient, batch: _Batch, intents: Sequence[Intent]) -> None:
    """Delete agents one after another: up to 2026.3 two config writes at once are one too many. Whether they
    are gone is seen by the next look; an answer that is lost is nothing more than that."""
    for intent in intents:
        lease.about_to_write(0.0)
        try:
            client.call("agents.delete", {"agentId": intent.openclaw_id, "deleteFiles": intent.delete_files})
        except UnknownAgent:
            continue
        except PermanentGatewayError as error:
            batch.refused[intent.agent_id] = f"The gateway does not remove it: {error}"
        except (ConnectionLost, CallTimedOut) as error:
            log.warning("a removal from gateway %s ended without an answer: %s", lease.gateway_id, error)
            _await_return(client)
            return


def _look(client: GatewayClient, batch: _Batch) -> tuple[Dialect, Mapping[str, Any], RosterPlan]:
    """Read the config and see what is missing from it; a gateway that is just coming back is waited for."""
    try:
        config = client.call("config.get")
    except (ConnectionLost, CallTimedOut):
        _await_return(client)
        config = client.call("config.get")
    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    dialect.confirm(config)
    parsed = config.get("parsed")
    return (
        dialect,
        config,
        plan_roster(dialect, parsed if isinstance(parsed, Mapping) else {}, batch.wanted()),
    )


def _await_return(client: GatewayClient) -> None:
    """Wait until a restarting gateway lets us in again, looking often: the oldest are back within 0.1 s.
    Raises what the last try raised after RESTART_PATIENCE_S."""
    deadline, pause = time.monotonic() + RESTART_PATIENCE_S, 0.03
    while True:
        try:
            client.connection(deadline_s=max(1.0, deadline - time.monotonic()))
        except TransientError:
            if time.monotonic() + pause > deadline or draining.wait(pause):
                raise
            pause = min(0.5, pause * 1.6)
        else:
            return


def _name_culprits(batch: _Batch, plan: RosterPlan, error: InvalidConfig) -> None:
    """Refuse the agents that the gateway's complaint names, so that the rest can go on."""
    batch.rejected += 1
    listed = ((plan.document or {}).get("agents") or {}).get("list")
    culprits: dict[UUID, str] = {}
    for path, message in error.issues or ((str(error), str(error)),):
        for agent, entry in batch.entries.items():
            if agent not in batch.refused and _names(path, entry.openclaw_id, listed):
                culprits[agent] = f"The gateway refuses the agent's roster entry: {path}: {message}"
    if not culprits or batch.rejected > _REJECTED_PATCHES:
        raise error
    batch.refused.update(culprits)


def _names(path: str, openclaw_id: str, listed: Any) -> bool:
    if openclaw_id in path:
        return True
    places = [n for n, e in enumerate(listed or []) if isinstance(e, Mapping) and e.get("id") == openclaw_id]
    return any(f"list.{place}." in f"{path}." or f"list[{place}]" in path for place in places)


def _postpone(services: Services, lease: RosterLease, batch: _Batch, error: TransientError) -> None:
    """The gateway is away: try again later, or give up once it has been away for too long."""
    budget_s = services.settings.retry_budget_s
    with services.engine.begin() as connection:
        outage = note_failure(connection, lease.gateway_id, error, budget_s)
    if outage.outlasts(budget_s):
        sentence = unreachable(budget_s, str(error))
        _settle(services, batch, [], {i.agent_id: sentence for i in batch.intents})
        return
    asked_s = error.retry_after_s or 0.0
    lease.again_in_s = max(outage.wait_s, asked_s, 0.1)
    log.info("roster of gateway %s waits %.1f s: %s", lease.gateway_id, lease.again_in_s, error)


def _settle(
    services: Services,
    batch: _Batch,
    applied: Sequence[UUID],
    refused: Mapping[UUID, str],
    up: UUID | None = None,
) -> None:
    """Write down how each intent ended and publish the jobs that wait for it, in one transaction."""
    with services.engine.begin() as connection:
        for agent, sentence in refused.items():
            refuse_intents(connection, batch.ids([agent]), sentence)
        apply_intents(connection, batch.ids([agent for agent in applied if agent not in refused]))
        if up is not None:
            connection.execute(_RESTART_OVER, {"gateway_id": up})
            note_up(connection, up)
        messages = mark_waiting_for(connection, batch.ids())
    services.publish(messages)


_RESTART_OVER = text(
    "UPDATE provisioner.gateway_states SET restart_expected_at = NULL"
    " WHERE gateway_id = :gateway_id AND restart_expected_at IS NOT NULL"
)
_GATEWAY = text("""
    SELECT id, name, url, token, workspace_root,
        coalesce((to_jsonb(gateways) ->> 'allow_insecure_tls')::boolean, false) AS allow_insecure_tls
    FROM gateways WHERE id = :gateway_id
""")
_WANTED = text("""
    SELECT id, name, board_id, gateway_id, is_board_lead, heartbeat_config FROM agents WHERE id = ANY(:agents)
""")


def _address(gateway: Any) -> GatewayAddress:
    return GatewayAddress(gateway.url, gateway.token, gateway.allow_insecure_tls)


def _want(batch: _Batch, row: Any, gateway: Any) -> None:
    if row.gateway_id != gateway.id:
        return
    root, name = gateway.workspace_root, gateway.name
    if row.board_id is None:
        key = openclaw_id(main_session_key(gateway.id))
        workspace = main_workspace_path(root, gateway.id, gateway=name)
    else:
        key = openclaw_id(session_key(row.id, row.board_id, row.is_board_lead))
        workspace = workspace_path(root, key, gateway=name)
    heartbeat = row.heartbeat_config if isinstance(row.heartbeat_config, Mapping) else {}
    batch.entries[row.id] = RosterEntry(key, row.name, workspace, heartbeat)
