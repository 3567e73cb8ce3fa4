"""The last step of an agent's job: resets its session if required, and wakes it once (rules.md 20)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, text

from worker.agents.agent_context import AgentContext
from worker.agents.token_choice import record_success
from worker.agents.wake_barrier import BARRIER_TIMEOUT_S, RECHECK_S, is_barrier_open, pass_barrier
from worker.database import single
from worker.errors import TransientError
from worker.gateway.answers import Answer
from worker.gateway.client import Call
from worker.gateway.errors import (
    CallTimedOut,
    ConnectionLost,
    GatewayError,
    GatewayUnreachable,
    PermanentGatewayError,
    SendDenied,
    Unavailable,
)
from worker.gateway.owner_settings import ONE_SESSION, Denial, denial_of
from worker.jobs.retry_policy import Snooze
from worker.jobs.states import ReasonCode
from worker.jobs.store.job_agents import park
from worker.jobs.store.releasing import mark_next_in_line
from worker.jobs.store.wake_batches import (
    NotWoken,
    Wake,
    Woken,
    end_woken,
    gather_wakes,
    give_back,
)
from worker.printable import line
from worker.records.agent_status import succeed
from worker.workspace.actions import WRITES
from worker.workspace.display_text import MOST_IN_LABEL, shown_name
from worker.workspace.plan import BOOTSTRAP

log = logging.getLogger(__name__)


def wake(context: AgentContext) -> Snooze | None:
    """Reset the session if requested or needed, label it, and send the wake message once.

    Returns the snooze if the row was parked, because the gateway is about to restart or other agents still
    wait for their files. A failed reset is usually only a warning; a failed wake raises the gateway's error.
    """
    if context.held.woken_at is not None or _has_owners_session(context):
        return None
    key = context.record.session_key
    if context.held.phase != "wake" and not context.fresh and wants_reset(context):
        _reset(context, key)
    if not context.option("wake"):
        return None
    if context.held.wake_sent_at is not None and _arrived_before(context, key):
        _mark_woken(context)
        return None
    if context.held.wake_sent_at is not None and not context.dialect.shows_wake_keys:
        context.warn(
            "The wake message went out before the worker died; this release does not tell whether it arrived,"
            " so it was not sent again. Wake the agent by hand if it is silent."
        )
        return None
    return _send(context, key, _message(context))


def _has_owners_session(context: AgentContext) -> bool:
    """Whether the gateway has only its owner's one session, which is not touched."""
    if context.one_session and (context.option("wake") or wants_reset(context)):
        context.warn(ONE_SESSION)
    return context.one_session


def _enter_wake_phase(context: AgentContext, own: Wake) -> Snooze | list[Wake]:
    """Enter phase wake and store the wake key; park the row, or mark its message as sent.

    The row is parked if a restart is due or other agents wait for their files. If it is not, the wakes that
    were waiting for this agent's files are marked as sent too and returned: they go out together, because a
    gateway that is starting an LLM run answers the next call late.

    The roster writer announces its restart before it looks for wakes in flight, and lets those finish.
    """
    key = own.params["idempotencyKey"]
    columns: dict[str, Any] = {"wake_key": key, "warnings": context.warnings, "files": context.files}
    together: list[Wake] = []
    with context.services.engine.begin() as connection:
        leaves, sent = context.held.phase != "wake", context.held.wake_sent_at is not None
        ask = pass_barrier if leaves else is_barrier_open
        few = sent or ask(connection, context.held, context.record.gateway_id)
        snooze = _restart_due(connection, context)
        if snooze is None and not few and context.held.age_s < BARRIER_TIMEOUT_S:
            snooze = Snooze(
                "waiting until the other agents have their files",
                RECHECK_S,
                code=ReasonCode.WAITING_FOR_OTHER_AGENTS,
            )
        if snooze is None:
            columns["wake_sent_at"] = True  # before the frame goes out
            together = gather_wakes(connection, context.record.gateway_id) if few and leaves else []
        context.advance(connection, "wake", **columns, wake=snooze and own.stored())
        if snooze is not None:
            park(connection, context.held, snooze.wait_s or 0, snooze.reason, code=snooze.code)
    context.held = replace(context.held, wake_key=key, phase="wake")
    return together if snooze is None else Snooze(snooze.reason)


def _send_batch(context: AgentContext, wakes: Sequence[Wake]) -> SendResult:
    """Label the sessions and send the messages of several agents; return this agent's result, the first.

    The rows of the others that were woken end here, without further calls: the gateway is busy with all those
    LLM runs. The rest are given back, and each is tried again on its own.
    """
    own, *results = _send_all(context, wakes)
    woken, rest = _partition(wakes[1:], results)
    with context.services.engine.begin() as connection:
        ended = end_woken(connection, woken)
        messages = give_back(connection, rest)
        succeed(connection, {row.agent_id: row.session_key for row in ended})
        record_success(connection, context.record.gateway_id, [row.agent_id for row in ended])
    with single(context.services.engine) as connection:
        messages += mark_next_in_line(connection, *(row.agent_id for row in ended))
    context.services.publish(messages)
    context.services.announce([row.job_id for row in ended])
    return own


@dataclass(frozen=True)
class SendResult:
    """The result of sending a wake message: the gateway's ``answer``, which may be an error. ``unsent``: the
    message certainly did not arrive."""

    answer: Mapping[str, Any] | GatewayError
    unsent: bool = False


def _send_all(context: AgentContext, wakes: Sequence[Wake]) -> list[SendResult]:
    labelled = _answers(context, [Call("sessions.patch", _label(wake)) for wake in wakes])
    ready = [
        wake for wake, answer in zip(wakes, labelled, strict=True) if not isinstance(answer, GatewayError)
    ]
    sent = iter(_answers(context, [Call("chat.send", wake.params) for wake in ready]))
    return [
        SendResult(answer, unsent=True) if isinstance(answer, GatewayError) else _result_of(next(sent))
        for answer in labelled
    ]


def _answers(context: AgentContext, calls: Sequence[Call]) -> Sequence[Mapping[str, Any] | GatewayError]:
    try:
        return context.client.call_many(calls)
    except GatewayError as error:  # no connection: nothing was sent
        return [error] * len(calls)


def _label(wake: Wake) -> dict[str, Any]:
    return {"key": wake.params["sessionKey"], "label": wake.label}


def _result_of(answer: Mapping[str, Any] | GatewayError) -> SendResult:
    return SendResult(answer, isinstance(answer, GatewayError) and not answer.may_have_had_effect)


def _partition(others: Sequence[Wake], results: Sequence[SendResult]) -> tuple[list[Woken], list[NotWoken]]:
    woken, rest = [], []
    for other, result in zip(others, results, strict=True):
        job_id, agent_id = str(other.job_id), str(other.agent_id)
        if isinstance(result.answer, GatewayError):
            rest.append(NotWoken(job_id, agent_id, result.unsent))
        else:
            woken.append(Woken(job_id, agent_id, other.result, _unexpected_status(result.answer)))
    return woken, rest


def _unexpected_status(answer: Mapping[str, Any]) -> str | None:
    if answer.get("status") in ("started", "in_flight", "ok"):
        return None
    return f"The gateway answered the wake message with {line(repr(answer.get('status')), 100)}."


def _restart_due(connection: Connection, context: AgentContext) -> Snooze | None:
    """The snooze until the gateway's announced restart, or None if no restart is due.

    The gateway's state is locked, so that none is announced before the transaction ends.
    """
    parameters = {"gateway_id": context.record.gateway_id}
    restart_in_s = connection.execute(_RESTART_IN, parameters).scalar_one_or_none()
    if restart_in_s is None or restart_in_s <= 0:
        return None
    return Snooze("waiting for the gateway to restart", restart_in_s, code=ReasonCode.WAITING_FOR_RESTART)


def wants_reset(context: AgentContext) -> bool:
    """Whether to reset the session. Warns of a reset that was not requested, and of changed files that the
    agent does not see without one.

    On some releases a session shows the agent its files as they were when the session began. An agent whose
    token was changed would keep using the old token there and be locked out, so its session is always reset.
    """
    if context.wants_reset or context.one_session or not context.dialect.keeps_files_per_session:
        return context.wants_reset
    if context.rekeyed or context.record.credential_job_id == context.held.job_id:
        context.warn(
            "Its session was reset: this release shows an agent its files as they were when the session"
            " began, so it would have gone on with its old token."
        )
        return True
    if any(report.get("action") in WRITES for report in context.files.values()):
        context.warn(
            "This release shows an agent its changed files only from its next session on: ask for"
            f" {'reset_session' if context.held.single else 'reset_sessions'} to show them now."
        )
    return False


def _reset(context: AgentContext, key: str) -> None:
    try:
        context.services.retry_inline(lambda: context.call("sessions.reset", {"key": key}))
    except PermanentGatewayError as error:
        if "no such session" not in str(error).lower():
            context.warn(f"The session was not reset: {error}")
    except TransientError as error:
        if isinstance(error, (GatewayUnreachable, ConnectionLost)):
            raise
        context.warn(f"The session was not reset: {error}")


def _arrived_before(context: AgentContext, key: str) -> bool:
    """Whether chat.history shows the wake message that an earlier try sent (gateways.md 3)."""
    if not context.dialect.shows_wake_keys:
        return False
    history = context.services.retry_inline(lambda: context.call("chat.history", {"sessionKey": key}))
    return context.held.wake_key in set(_keys(context.client.answer("chat.history", history)))


def _keys(history: Answer) -> Iterator[str]:
    """The idempotency keys of messages that are pending or have arrived. Raises BadAnswer."""
    pending = history.record_or_none("pendingInputs")
    if pending is not None and pending.value.get("items") is not None:
        yield from (str(item.value.get("runId")) for item in pending.records("items"))
    if history.value.get("messages") is not None:
        for message in history.records("messages"):
            yield str(message.value.get("idempotencyKey")).removesuffix(":user")


def _send(context: AgentContext, key: str, message: str) -> Snooze | None:
    """Label the session and send the wake message.

    This is the last step because a gateway that has a session for an agent takes four times as long to write
    each of its files (2026.9.6).
    """
    fresh = context.held.wake_sent_at is None
    params = {
        "sessionKey": key,
        "message": message,
        "deliver": context.option("deliver_wakeup"),
        "idempotencyKey": context.held.wake_key or f"provisioner-{context.held.job_id}-{context.agent_id}",
    }
    label = shown_name(context.record.agent.name, context.record.openclaw_id, MOST_IN_LABEL)
    own = Wake(context.held.job_id, context.agent_id, label, params, context.result())
    others = _enter_wake_phase(context, own)
    if isinstance(others, Snooze):
        return others

    def attempt() -> SendResult:
        context.call("sessions.patch", _label(own))
        try:
            return SendResult(context.call("chat.send", params))
        except (ConnectionLost, CallTimedOut) as error:
            if not error.may_have_had_effect:
                raise
            return SendResult(error)
        except SendDenied as error:
            return SendResult(error)
        except Unavailable as error:
            if fresh:
                raise
            # The same key again answers with the earlier run's own failure: that run did begin.
            context.warn(f"The agent was woken, but its run failed: {error}")
            return SendResult({"status": "started"})

    result = _send_batch(context, [own, *others]) if others else None
    if result is None or result.unsent:
        try:
            result = context.services.retry_inline(attempt)
        except TransientError:
            if fresh:
                _mark_unsent(context)
            raise
    if isinstance(result.answer, SendDenied):
        context.warn(f"The agent was not woken: {_denial(context, key)}")
        return None
    if isinstance(result.answer, GatewayError):
        raise result.answer  # it may have arrived: the next claim looks before it sends again
    unexpected = _unexpected_status(result.answer)
    if unexpected is not None:
        context.warn(unexpected)
    _mark_woken(context)
    return None


def _denial(context: AgentContext, key: str) -> Denial | str:
    """Say what denies the message and what would allow it; takes one more call, to read the config."""
    config = context.services.retry_inline(lambda: context.call("config.get", {})).get("config")
    return denial_of(config, key) or (
        "the session itself, or session.sendPolicy of the gateway's openclaw.json, denies messages to it:"
        f" allow {key} there."
    )


def _mark_unsent(context: AgentContext) -> None:
    """Record that the message certainly did not arrive, so that the next claim sends it as if for the first
    time."""
    with single(context.services.engine) as connection:
        context.advance(connection, "wake", wake_unsent=True)


def _mark_woken(context: AgentContext) -> None:
    """Note that the agent was woken; the statement that ends the row, next, stores the time."""
    context.held = replace(context.held, woken_at=datetime.now(UTC))
    log.info("woken")


def _message(context: AgentContext) -> str:
    name = context.record.shown_name
    message = (
        f"Hello {name}. Your workspace was just {context.profile.done} by Mission Control.\n"
        "Start now: read AGENTS.md and the other files of your workspace."
        " If BOOTSTRAP.md is there, follow it once and delete it afterwards."
        " Then begin your heartbeats."
    )
    written = context.files.get(BOOTSTRAP, {}).get("action") in WRITES
    if context.dialect.drops_bootstrap and written:
        bootstrap = context.render().get(BOOTSTRAP)
        if bootstrap is not None:  # a template that was changed meanwhile may render to nothing
            message += f"\n\nThis is BOOTSTRAP.md, should it be gone already:\n\n{bootstrap.text}"
    return message


_RESTART_IN = text("""
    SELECT extract(epoch FROM restart_expected_at - now())::float
    FROM provisioner.gateway_states WHERE gateway_id = :gateway_id FOR SHARE
""")
