"""The last step: a fresh session if asked for, and one message that wakes the agent (behaviour 20)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from worker.errors import TransientError
from worker.gateway.errors import (
    CallTimedOut,
    ConnectionLost,
    GatewayError,
    GatewayUnreachable,
    PermanentGatewayError,
    Unavailable,
)
from worker.provisioning.work import Parked, Work
from worker.workspace.plan import BOOTSTRAP

log = logging.getLogger(__name__)


def wake(work: Work) -> Parked | None:
    """Reset the session where asked (only of an agent that was there before: a fresh one has none), label
    it, and send the wake message once. Parks while the gateway is about to restart.

    Failing to reset is a warning; failing to wake is the job's.
    """
    if work.held.woken_at is not None:
        return None
    parked = _begin(work)
    if parked is not None:
        return parked
    key = work.record.session_key
    if work.option("reset_session") and not work.fresh and work.held.wake_sent_at is None:
        _reset(work, key)
    if not work.option("wake"):
        return None
    if work.held.wake_sent_at is not None and _arrived_before(work, key):
        _woken(work)
        return None
    if work.held.wake_sent_at is not None and not work.dialect.shows_wake_keys:
        work.warn(
            "The wake message went out before the worker died; this release does not tell whether it arrived,"
            " so it was not sent again. Wake the agent by hand if it is silent."
        )
        return None
    work.services.patiently(
        lambda: work.call("sessions.patch", {"key": key, "label": work.record.agent.name})
    )
    _send(work, key, _message(work))
    return None


def _begin(work: Work) -> Parked | None:
    """Enter the phase, with a wake key for good; park where a restart is due."""
    wake_key = work.held.wake_key or f"provisioner-{work.held.job_id}-{work.agent_id}"
    with work.services.engine.begin() as connection:
        work.advance(connection, "wake", wake_key=wake_key, warnings=work.warnings, files=work.files)
        restart_in_s = connection.execute(
            _RESTART_IN, {"gateway_id": work.record.gateway_id}
        ).scalar_one_or_none()
    work.held = replace(work.held, wake_key=wake_key, phase="wake")
    if restart_in_s is not None and restart_in_s > 0:
        return Parked("waiting for the gateway to restart", restart_in_s)
    return None


def _reset(work: Work, key: str) -> None:
    try:
        work.services.patiently(lambda: work.call("sessions.reset", {"key": key}))
    except PermanentGatewayError as error:
        if "no such session" not in str(error).lower():
            work.warn(f"The session was not reset: {error}")
    except TransientError as error:
        if isinstance(error, (GatewayUnreachable, ConnectionLost)):
            raise
        work.warn(f"The session was not reset: {error}")


def _arrived_before(work: Work, key: str) -> bool:
    """Whether chat.history shows the message of an earlier try (gateway.md 3)."""
    if not work.dialect.shows_wake_keys:
        return False
    history = work.services.patiently(lambda: work.call("chat.history", {"sessionKey": key}))
    return any(sent == work.held.wake_key for sent in _keys(history))


def _keys(history: Mapping[str, Any]) -> Iterator[str]:
    pending = history.get("pendingInputs")
    for item in pending.get("items") or [] if isinstance(pending, Mapping) else []:
        if isinstance(item, Mapping):
            yield str(item.get("runId"))
    for message in history.get("messages") or []:
        if isinstance(message, Mapping):
            yield str(message.get("idempotencyKey")).removesuffix(":user")


def _send(work: Work, key: str, message: str) -> None:
    first = work.held.wake_sent_at is None
    with work.services.engine.begin() as connection:
        work.advance(connection, "wake", wake_sent_at=True)  # before the frame goes out
    params = {
        "sessionKey": key,
        "message": message,
        "deliver": work.option("deliver_wakeup"),
        "idempotencyKey": work.held.wake_key,
    }

    def attempt() -> Mapping[str, Any] | GatewayError:
        nonlocal first
        fresh_key, first = first, False
        try:
            return work.call("chat.send", params)
        except (ConnectionLost, CallTimedOut) as error:
            if isinstance(error, CallTimedOut) and not error.sent:
                raise
            return error
        except Unavailable as error:
            if fresh_key:
                raise
            # The same key again answers with the earlier run's own failure: that run did begin.
            work.warn(f"The agent was woken, but its run failed: {error}")
            return {"status": "started"}

    answer = work.services.patiently(attempt)
    if isinstance(answer, GatewayError):
        raise answer  # nobody knows whether it arrived: the next turn looks before it sends again
    if answer.get("status") not in ("started", "in_flight", "ok"):
        work.warn(f"The gateway answered the wake message with {answer.get('status')!r}.")
    _woken(work)


def _woken(work: Work) -> None:
    """Nothing follows but the end of the job, whose one statement keeps the time."""
    work.held = replace(work.held, woken_at=datetime.now(UTC))
    log.info("woken")


def _message(work: Work) -> str:
    name = work.record.agent.name
    message = (
        f"Hello {name}. Your workspace was just {work.verb.done} by Mission Control.\n"
        "Start now: read AGENTS.md and the other files of your workspace."
        " If BOOTSTRAP.md is there, follow it once and delete it afterwards."
        " Then begin your heartbeats."
    )
    written = work.files.get(BOOTSTRAP, {}).get("action") in ("create", "update")
    if work.dialect.drops_bootstrap and written:
        message += f"\n\nThis is BOOTSTRAP.md, should it be gone already:\n\n{work.render()[BOOTSTRAP].text}"
    return message


_RESTART_IN = text("""
    SELECT extract(epoch FROM restart_expected_at - now())::float
    FROM provisioner.gateway_states WHERE gateway_id = :gateway_id
""")
