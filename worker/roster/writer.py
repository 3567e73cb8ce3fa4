"""The one writer of a gateway's roster (decisions.md D1).

The writer takes the open intents, sends one patch for them if the roster differs, waits for the restart that
the patch causes, reads the roster back, and publishes the rows that wait for the intents. Whether a patch is
needed, and what it says, is decided in `worker.gateway.roster_plan`. Nothing else in the program sends
config.patch or agents.delete.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from worker.database import DATABASE_AWAY
from worker.errors import PermanentError, TransientError, as_sentence
from worker.gateway.answers import Answer, seconds
from worker.gateway.client import GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.entry_settings import FieldRecord
from worker.gateway.errors import (
    OUTAGES,
    AppliedByRestart,
    CallTimedOut,
    ConnectionLost,
    GatewayError,
    IncludeOwned,
    InvalidConfig,
    PermanentGatewayError,
    RateLimited,
    StaleConfig,
    Unavailable,
    UnknownAgent,
    WrongToken,
)
from worker.gateway.folders import workspace_changes
from worker.gateway.heartbeats import kept_warning, silenced_warning
from worker.gateway.idle_timeout import call_limits, failing_for_s, no_call_limits
from worker.gateway.owner_settings import CRON_OFF, heartbeats_switched_off
from worker.gateway.rewrites import (
    COMMENTS_LOST,
    delete_breaks_variables,
    has_comments,
    included_comments,
    with_escapes,
)
from worker.gateway.roster_plan import RosterPlan, removal_patch
from worker.gateway.roster_reading import (
    VISIBILITY_STAYS,
    LiveRoster,
    RosterUnknownError,
    read_roster,
)
from worker.jobs.retry_policy import jittered
from worker.jobs.states import ReasonCode, code_of
from worker.jobs.store.releasing import mark_waiting_for
from worker.printable import line
from worker.records.agent_settings import forget_entries, forget_fields, record_fields
from worker.records.file_changes import record_entry_changes
from worker.records.gateway_repository import GatewayRecord, require_gateway, wanted_agents
from worker.records.places import claim_places, close_places, note_earlier_homes
from worker.roster.batch import RosterBatch, plan_without_faulty, select_batch
from worker.roster.circuit_breaker import (
    note_failure,
    note_refused_token,
    note_up,
    refresh_one_session,
    require_token_not_refused,
)
from worker.roster.deleted_ids import deleted_before, reclaim_ids
from worker.roster.intents import (
    Intent,
    Refusal,
    add_warning,
    apply_intents,
    arrivals,
    note_present,
    open_intents,
    refuse_intents,
    skip_removal,
)
from worker.roster.lease import LONGEST_LEASE_S, RosterLease, RosterLeaseLostError, roster_lease
from worker.roster.namesakes import reason_to_keep_entry
from worker.roster.removals import (
    EntryOwnership,
    entry_ownership,
    half_removed,
    is_gone,
    owned_by_another,
    reason_to_keep_files,
    require_loaded,
    what_is_left,
    workspace_of,
)
from worker.roster.rewrite_permission import rewrite_refusal
from worker.roster.settings_check import check_settings
from worker.roster.write_check import WriteCheck
from worker.runtime.services import Services
from worker.shutdown_flag import shutting_down

log = logging.getLogger(__name__)

_CANNOT_REMOVE = Refusal(
    "It cannot be removed from here: an agents.delete of this OpenClaw release would spoil the ${NAME} or"
    " $${NAME} of others in openclaw.json, and a patch the secrets of the entries behind it. Remove its entry"
    " from agents.list by hand.",
    ReasonCode.PERMANENT_ERROR,
)
PATCH_DEADLINE_S = 25.0
LONGEST_RESTART_WAIT_S = 10.0
"""The writer waits up to this many seconds for a restart. If the restart is later, the writer returns, and
the gateway's row says when it is called again."""
LONGEST_RESTART_S = 300.0
_RESTART_SLACK_S = 3.0
_UNTIMED_RESTART_S = 5.0
"""Seconds to wait for a restart that the gateway announces without saying when."""
_WAKE_WAIT_S = 5.0
_ROUNDS = 6
_BATCHES = 20
_MOST_WINDOWS = 15


def write_roster(services: Services, gateway_id: UUID) -> None:
    """Settle all open intents of the gateway, unless another writer holds the lease on its roster.

    Returns instead of waiting if the gateway is unreachable, limits our rate or restarts only later: the
    gateway's row then says when the dispatcher calls the writer again.
    """
    lease_s = min(services.settings.lease_s, LONGEST_LEASE_S)
    for _ in range(_BATCHES):
        with roster_lease(services.engine, gateway_id, lease_s) as lease:
            if lease is None:
                return
            _await_more_intents(services, gateway_id)
            _write_batch(services, lease)
            if lease.again_in_s is not None:
                return
        # A writer that was called for a new intent while we held the lease was turned away: look again.
        with services.engine.connect() as connection:
            if not open_intents(connection, gateway_id):
                return


def _await_more_intents(services: Services, gateway_id: UUID) -> None:
    """Wait for more intents, until none has arrived for one batch window and no job is about to record one.

    A second patch costs as much as the first: a restart, or seconds of the gateway's CPU.
    """
    window_s = services.settings.roster_batch_window_s
    newest = None
    for _ in range(_MOST_WINDOWS if window_s else 0):
        before = newest
        with services.engine.connect() as connection:
            newest, asking = arrivals(connection, gateway_id)
        if (newest == before and not asking) or shutting_down.wait(window_s):
            return


def _write_batch(services: Services, lease: RosterLease) -> None:
    """Settle the open intents, or leave them to the next holder if the lease is lost."""
    try:
        with call_limits(budget_s=services.settings.retry_timeout_s):
            _settle_batch(services, lease)
    except RosterLeaseLostError as error:
        log.warning("%s", error)


def _settle_batch(services: Services, lease: RosterLease) -> None:
    with services.engine.connect() as connection:
        intents = select_batch(open_intents(connection, lease.gateway_id))
    if not intents:
        return
    batch, gateway = RosterBatch(intents), None
    try:
        with services.engine.connect() as connection:
            gateway = require_gateway(connection, lease.gateway_id)
            wanted = [intent.agent_id for intent in intents if intent.change == "reconcile"]
            batch.read(wanted_agents(connection, gateway, wanted))
        require_token_not_refused(gateway.gateway.name, gateway.address, gateway.condition)
        _reconcile(services, lease, batch, services.clients.client(gateway.address), gateway)
    except RosterLeaseLostError:
        raise
    except TransientError as error:
        _postpone(services, lease, batch, error)
    except PermanentError as error:
        if isinstance(error, WrongToken) and gateway is not None:
            with services.engine.begin() as connection:
                note_refused_token(connection, lease.gateway_id, gateway.address, str(error))
        _give_up(services, lease, batch, Refusal.by(error))
    except DATABASE_AWAY:
        raise
    except Exception as error:
        log.exception("the roster writer failed")
        _refuse_generically(services, lease, intents, error)


def _reconcile(
    services: Services, lease: RosterLease, batch: RosterBatch, client: GatewayClient, gateway: GatewayRecord
) -> None:
    """Read the roster, patch what differs, wait for the restart and read back, for up to _ROUNDS rounds.

    Raises StaleConfig or PermanentError if the roster still differs after the last round.
    """
    check, stale, noted = WriteCheck(), None, False
    first: tuple[LiveRoster, RosterPlan] | None = None
    claimed: set[str] = set()
    for _ in range(_ROUNDS):
        live, plan = _read_and_plan(
            client, batch, keep_others_beating=services.settings.keep_default_heartbeat
        )
        if not noted:
            noted = _note_first_reading(services, lease, batch, live, plan)
            if not noted:
                continue
        unwanted = _removable(services, batch, gateway, live, batch.unwanted(plan.present))
        if plan.document is None and not unwanted:
            if check.writes:
                log.info("roster written: config writes %d, agents %d", check.writes, len(batch.intents))
                if first is not None:
                    _warn_of_first_write(services, batch, *first)
            _settle(services, lease, batch, answered=True, over=plan.over)
            return
        check.before_write(plan, unwanted)
        leaving = [intent.openclaw_id for intent in unwanted] if plan.document is None else []
        refusal = rewrite_refusal(services.engine, gateway.gateway, gateway.address, live, leaving)
        if refusal is not None:
            batch.hold_back(plan, refusal)
            batch.refused.update((intent.id, refusal) for intent in unwanted)
            _settle(services, lease, batch, answered=True)
            return
        first = first or (live, plan)
        to_reclaim = _ids_to_reclaim(services, lease, live, plan) - claimed
        if to_reclaim:
            claimed |= to_reclaim
            check.record_writes(reclaim_ids(lease, client, batch.entries_of(to_reclaim)))
            continue
        document = plan.document
        if document is None and delete_breaks_variables(live):
            document = removal_patch(live.document, [intent.openclaw_id for intent in unwanted])
            if document is None:
                batch.refused.update((intent.id, _CANNOT_REMOVE) for intent in unwanted)
                continue
            batch.leave_files(unwanted, live.entries)
        if document is None:
            check.record_writes(_remove(services, lease, client, batch, unwanted, gateway, live))
            continue
        _record_fields(services, lease, batch, plan)
        connection = client.connection()
        try:
            written = _patch(lease, client, live, live.next_patch(document), plan.replaced)
        except StaleConfig as error:
            stale = error
            continue
        except AppliedByRestart as error:
            log.info("%s", error)
            reclaim_ids(lease, client, batch.entries_of(plan.changed - claimed))
            claimed |= plan.changed
            check.record_writes(1)
            connection.wait_closed(_UNTIMED_RESTART_S)
            _await_reconnect(client)
            continue
        except IncludeOwned as error:
            batch.hold_back(plan, Refusal(as_sentence(str(error)), code_of(error)))
            continue
        except InvalidConfig as error:
            batch.blame(plan, error)
            continue
        if written is None:
            return
        check.record_writes(written)
    if stale is not None:
        raise stale
    raise PermanentError(
        f"The gateway answered ok to {check.writes} config writes, but each time its config then held"
        " something else: somebody else rewrites it. See `provisioner doctor`.",
        reason_code=ReasonCode.GATEWAY_REFUSED,
    )


def _ids_to_reclaim(services: Services, lease: RosterLease, live: LiveRoster, plan: RosterPlan) -> set[str]:
    """The ids that the patch would add again after a delete, on a release that fences deleted ids."""
    created = plan.changed - plan.present
    if not created or not live.dialect.fences_deleted:
        return set()
    with services.engine.connect() as connection:
        return deleted_before(connection, lease.gateway_id, created)


def _note_first_reading(
    services: Services, lease: RosterLease, batch: RosterBatch, live: LiveRoster, plan: RosterPlan
) -> bool:
    """Record which agents the roster held before any change of ours, and where each will live.

    Returns False if an agent in the plan wants an id that is another agent's, so that the plan must be made
    again.
    """
    with services.engine.begin() as connection:
        asked = {intent.openclaw_id for intent in batch.intents}
        note_present(connection, [intent.id for intent in batch.intents], plan.present & asked)
        homes = batch.homes_wanted()
        note_earlier_homes(connection, lease.gateway_id, homes, plan.present)
        taken = claim_places(connection, lease.gateway_id, homes)
        for agent_id, sentence in taken.items():
            batch.refuse_writes(agent_id, Refusal(sentence, ReasonCode.PERMANENT_ERROR))
        if taken:
            return False
        if heartbeats_switched_off(live.dialect, live.answer.get("config")):
            for intent in batch.intents:
                if intent.change == "reconcile":
                    add_warning(connection, intent.id, CRON_OFF)
    return True


def _warn_of_first_write(services: Services, batch: RosterBatch, live: LiveRoster, plan: RosterPlan) -> None:
    """Warn about side effects of the first write: stopped heartbeats, lost comments, folders left behind."""
    said = [silenced_warning(live.dialect, plan.silenced)] if plan.silenced else []
    if plan.kept:
        said.append(kept_warning(live.dialect, plan.kept))
    if plan.changed and has_comments(live):
        said.append(COMMENTS_LOST)
    if plan.changed and not live.ours and (sentence := included_comments(live)) is not None:
        said.append(sentence)
    if plan.changed and not live.writes_visibility:
        said.append(VISIBILITY_STAYS)
    writer = batch.first_writer(plan)
    if writer is None:
        return
    warnings = [(writer.id, sentence) for sentence in said]
    changes = workspace_changes(live, plan)
    warnings += [(i.id, changes[i.openclaw_id]) for i in batch.intents if i.openclaw_id in changes]
    with services.engine.begin() as connection:
        for intent_id, sentence in warnings:
            add_warning(connection, intent_id, sentence)
            log.warning("%s", sentence)


def _record_fields(services: Services, lease: RosterLease, batch: RosterBatch, plan: RosterPlan) -> None:
    """Put on record what the patch writes to fields that settings name, what their owner has there, and what
    the patch replaces.

    It is done before the patch is sent: what we wrote must be known to be ours even if the answer is lost.
    """
    if plan.records or plan.former:
        with services.engine.begin() as connection:
            lease.hold(connection)
            record_fields(connection, lease.gateway_id, plan.records)
            record_entry_changes(connection, lease.gateway_id, list(batch.replaced(plan)))


def _removable(
    services: Services,
    batch: RosterBatch,
    gateway: GatewayRecord,
    live: LiveRoster,
    intents: Sequence[Intent],
) -> list[Intent]:
    """The removals whose entry may go because it is the agent's own; the others are skipped."""
    removable = []
    for intent in intents:
        with services.engine.connect() as connection:
            found = entry_ownership(connection, gateway.gateway_id, gateway.gateway.workspace_root, intent)
        if found.owner is not None:
            kept: str | None = owned_by_another(intent.openclaw_id, found.owner)
        else:
            kept = reason_to_keep_entry(services, gateway.address, live, intent.openclaw_id, found.namesakes)
        if kept is None:
            removable.append(intent)
            continue
        with services.engine.begin() as connection:
            skip_removal(connection, intent.id, line(kept))
        batch.skipped.add(intent.id)
    return removable


def _patch(
    lease: RosterLease,
    client: GatewayClient,
    live: LiveRoster,
    document: Mapping[str, Any],
    replaced: Sequence[str] = (),
) -> int | None:
    """Send the patch and wait for the restart that it causes. ``replaced``: paths of the lists that it
    replaces.

    Returns how many patches are known to be written, 0 if the answer was lost; None if the writer must be
    called again instead of waiting, because wakes are still on their way or the restart comes too late.
    """
    dialect = live.dialect
    base_hash = Answer(live.answer, "the gateway", "config.get").text("hash")
    connection_before = client.connection()
    send_by = lease.about_to_write(dialect.latest_restart_s)
    if dialect.latest_restart_s:
        arrived = _await_wake_answers(lease, send_by)
        if arrived is None:
            lease.not_written()
            lease.again_in_s = 1.0
            return None
        send_by = arrived
    try:
        with no_call_limits():
            answer = client.call(
                "config.patch",
                {
                    "raw": json.dumps(with_escapes(live, document), ensure_ascii=False),
                    "baseHash": base_hash,
                    "restartDelayMs": dialect.restart_delay_ms,
                    **({"replacePaths": list(replaced)} if replaced else {}),
                },
                deadline_s=PATCH_DEADLINE_S,
                send_by=send_by,
            )
    except (ConnectionLost, CallTimedOut) as error:
        log.warning("a config write ended without an answer: %s", error)
        _await_reconnect(client)
        closed = connection_before.closed
        if closed is not None and closed.restart_announced:
            lease.restart_over()  # this restart has replaced any that were expected before it
        return 0
    except GatewayError:
        lease.not_written()
        raise
    restart = answer.get("restart")
    if isinstance(restart, Mapping):
        delay_s = seconds(restart.get("delayMs"), LONGEST_RESTART_S) or 0.0
        if delay_s > LONGEST_RESTART_WAIT_S:
            lease.again_in_s = delay_s + _RESTART_SLACK_S
            lease.about_to_write(lease.again_in_s)
            return None
        connection_before.wait_closed(delay_s + _RESTART_SLACK_S)
        _await_reconnect(client)
    lease.restart_over()
    return 1


def _await_wake_answers(lease: RosterLease, send_by: float) -> float | None:
    """Wait for the answers to wakes that were sent before the restart was announced.

    2026.2 forgets in a restart whether a wake arrived. Returns by when the write must be sent, as
    about_to_write does, or None if the answers take so long that the writer must be called again.
    """
    deadline = time.monotonic() + _WAKE_WAIT_S
    while lease.wakes_in_flight():
        if shutting_down.wait(0.05) or time.monotonic() > deadline:
            return None
        send_by = lease.renew()
    return send_by


def _remove(
    services: Services,
    lease: RosterLease,
    client: GatewayClient,
    batch: RosterBatch,
    intents: Sequence[Intent],
    gateway: GatewayRecord,
    live: LiveRoster,
) -> int:
    """Delete agents one at a time: up to 2026.3, two concurrent config writes lose one of them.

    The next look shows whether they are gone, so a lost answer does no harm. Returns how many deletes are
    settled: the gateway said ok, does not know the agent, or the entry need not be removed.
    """
    answered = 0
    for position, intent in enumerate(intents):
        try:
            if position:
                keep_others_beating = services.settings.keep_default_heartbeat
                live, _ = _read_and_plan(client, batch, keep_others_beating=keep_others_beating)
            with services.engine.connect() as connection:
                found = entry_ownership(
                    connection, gateway.gateway_id, gateway.gateway.workspace_root, intent
                )
            if intent.openclaw_id in live.present and found.owner is None:
                require_loaded(client, live)
                _remove_one(services, lease, client, intent, found, live)
        except UnknownAgent:
            pass
        except RosterUnknownError as error:
            batch.refused[intent.id] = Refusal.by(error)
            continue
        except PermanentGatewayError as error:
            sentence = f"The gateway does not remove it: {error}"
            batch.refused[intent.id] = Refusal(sentence, code_of(error))
            continue
        except (ConnectionLost, CallTimedOut) as error:
            log.warning("a removal ended without an answer: %s", error)
            _await_reconnect(client)
            break
        answered += 1
    return answered


def _remove_one(
    services: Services,
    lease: RosterLease,
    client: GatewayClient,
    intent: Intent,
    found: EntryOwnership,
    live: LiveRoster,
) -> None:
    """Delete one agent, with its files if they may go, and record what its job must be warned about."""
    kept = None
    if intent.delete_files:
        kept = reason_to_keep_files(client, live, intent.openclaw_id, found)
    if kept is not None:
        with services.engine.begin() as connection:
            add_warning(connection, intent.id, line(kept))
    files = intent.delete_files and kept is None
    removal = {"agentId": intent.openclaw_id, "deleteFiles": files}
    workspace = workspace_of(live, intent.openclaw_id) if files else None
    try:
        answer = client.call("agents.delete", removal, send_by=lease.about_to_write(0.0))
        left = list(what_is_left(live, answer, intent.openclaw_id, workspace))
    except Unavailable as error:
        if not is_gone(client, live, intent.openclaw_id):
            raise
        left = [half_removed(intent.openclaw_id, workspace, error)]
    if left:
        with services.engine.begin() as connection:
            add_warning(connection, intent.id, line(" ".join(left)))


def _read_and_plan(
    client: GatewayClient, batch: RosterBatch, *, keep_others_beating: bool
) -> tuple[LiveRoster, RosterPlan]:
    """Read the roster and plan what must change; waits for a gateway that is just restarting."""

    def get_config() -> Mapping[str, Any]:
        try:
            return client.call("config.get")
        except (ConnectionLost, CallTimedOut):
            _await_reconnect(client)
            return client.call("config.get")

    hello = client.hello()
    dialect = Dialect.from_hello(hello.server_version, hello.methods)
    live = read_roster(dialect, get_config, lambda: client.call("agents.list"), shutting_down.wait)
    refresh_one_session(client, live.answer.get("config"))
    batch.refuse_unwritable(dialect)
    batch.refuse_absent(live.known)
    visibility = not batch.leaves_visibility
    plan, refused = plan_without_faulty(
        lambda wanted: live.plan(wanted, visibility=visibility, keep_others_beating=keep_others_beating),
        batch.wanted(),
    )
    refused |= check_settings(client, live, plan, batch.names)
    batch.refuse_entries(refused)
    if refused:
        plan = live.plan(batch.wanted(), visibility=visibility, keep_others_beating=keep_others_beating)
    batch.note_fields(plan)
    return live, plan


def _await_reconnect(client: GatewayClient) -> None:
    """Wait until a restarting gateway accepts a connection. The first pauses are short, because the oldest
    releases are back within 0.1 s. After LONGEST_RESTART_WAIT_S it raises the error of the last try."""
    deadline, pause = time.monotonic() + LONGEST_RESTART_WAIT_S, 0.03
    while True:
        try:
            client.connection(deadline_s=max(1.0, deadline - time.monotonic()))
        except TransientError:
            if time.monotonic() + pause > deadline or shutting_down.wait(pause):
                raise
            pause = min(0.5, pause * 1.6)
        else:
            return


def _postpone(services: Services, lease: RosterLease, batch: RosterBatch, error: TransientError) -> None:
    """Have the writer called again later, or give up if the gateway was down or the intents waited too long.

    Only an outage counts against the gateway, not a call that it was too busy for, nor one that this worker
    broke off because it is stopping.
    """
    if shutting_down.is_set():
        lease.again_in_s = 0.1
        log.info("the roster is left to another worker: %s", error)
        return
    policy = services.retry_policy
    budget_s = policy.timeout_s
    oldest_s = max(intent.age_s for intent in batch.intents)
    wait_s = policy.wait_at_age(oldest_s)
    sentence = f"The roster could not be written within {budget_s:g} seconds: {error}"
    given_up = Refusal(sentence, ReasonCode.RETRIES_EXHAUSTED)
    spent = oldest_s >= budget_s
    if isinstance(error, OUTAGES):
        with services.engine.begin() as connection:
            outage = note_failure(
                connection,
                lease.gateway_id,
                error,
                budget_s,
                took_s=failing_for_s(),
                address=error.address,
            )
        wait_s, spent = outage.wait_s, outage.down_for_s >= budget_s
        given_up = Refusal(policy.unreachable(str(error)), ReasonCode.GATEWAY_UNREACHABLE)
    if spent:
        _give_up(services, lease, batch, given_up)
        return
    asked_s = error.retry_after_s or (60.0 if isinstance(error, RateLimited) else 0.0)
    lease.rate_limited = isinstance(error, RateLimited)
    lease.again_in_s = max(min(jittered(wait_s), budget_s - oldest_s), asked_s, 0.1)
    lease.trouble = str(error)
    log.info("the roster waits %.1f s: %s", lease.again_in_s, error)


def _refuse_generically(
    services: Services, lease: RosterLease, intents: Sequence[Intent], error: Exception
) -> None:
    """Refuse every intent with a sentence of ours alone: text from elsewhere may be why the writer failed.

    Raises only DATABASE_AWAY and RosterLeaseLostError. If not even this sentence can be written, the writer
    is called again after growing waits, and the jobs give their intents up when their time is over.
    """
    sentence = f"The roster writer failed with {type(error).__name__}: see the worker's log."
    refusal = Refusal(sentence, ReasonCode.INTERNAL_ERROR)
    try:
        _give_up(services, lease, RosterBatch(intents), refusal)
    except (RosterLeaseLostError, *DATABASE_AWAY):
        raise
    except Exception as again:
        oldest_s = max(intent.age_s for intent in intents)
        lease.again_in_s = services.retry_policy.wait_at_age(oldest_s)
        log.error("the roster writer cannot refuse what it failed at: %s", type(again).__name__)


def _give_up(services: Services, lease: RosterLease, batch: RosterBatch, refusal: Refusal) -> None:
    batch.refuse_all(refusal)
    _settle(services, lease, batch)


def _settle(
    services: Services,
    lease: RosterLease,
    batch: RosterBatch,
    *,
    answered: bool = False,
    over: Mapping[str, Mapping[str, FieldRecord]] | None = None,
) -> None:
    """In one transaction, record how the intents ended and make the rows waiting for them due; then publish.

    ``over``: records of entries' fields that are no longer needed.
    Raises RosterLeaseLostError if another writer has taken over: it may since have undone what was read here.
    """
    ids = [intent.id for intent in batch.intents]
    with services.engine.begin() as connection:
        lease.hold(connection)
        refuse_intents(connection, batch.refused)
        for intent_id, warning in batch.warned.items():
            add_warning(connection, intent_id, warning)
        apply_intents(connection, [key for key in ids if key not in batch.refused])
        close_places(connection, lease.gateway_id, batch.removed())
        forget_entries(connection, lease.gateway_id, batch.gone())
        forget_fields(connection, lease.gateway_id, over or {})
        if answered:
            note_up(connection, lease.gateway_id)
        messages = mark_waiting_for(connection, ids)
    services.publish(messages)
