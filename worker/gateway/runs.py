"""Reads how the last runs of agents began and ended (gateways.md 3), with few calls for many agents."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worker.gateway.answers import Answer
from worker.gateway.client import Call, GatewayClient
from worker.gateway.dialect import Dialect
from worker.gateway.errors import GatewayError

MOST_SESSIONS = 500
"""How many sessions are listed, those with the newest runs first."""
MOST_HISTORIES = 20
"""How many histories are read in one call after the other."""
LAST_MESSAGES = 6
"""How many of a session's last messages are read: an answer may end with several calls of tools."""

How = Literal["well", "badly", "running"]
_WELL, _BADLY = ("done", "ok", "completed", "succeeded"), ("failed", "killed", "timeout")
"""How a listed run may have ended. Other words say that one goes on or waits (running, queued), or that the
gateway's end interrupted it, which tells nothing of the agent."""


@dataclass(frozen=True)
class LastRun:
    """An agent's last run. ``began_s``: seconds since it began, by the gateway's own clock; ``error``: what
    the gateway says of a run that ended badly, None if it says nothing."""

    how: How
    began_s: float
    error: str | None = None


def last_runs(
    client: GatewayClient, dialect: Dialect, keys: Collection[str], within_s: float
) -> dict[str, LastRun]:
    """The last run of each of these sessions that began in the last ``within_s`` seconds, by session key; a
    session of which that is not known is left out.

    One call, and where the listing does not tell how a run ended, one more for each session that was at work
    in that time, for ``MOST_HISTORIES`` of them at most. Raises GatewayError.
    """
    if dialect.runs_in is None or not keys:
        return {}
    listed = client.query("sessions.list", {"limit": MOST_SESSIONS})
    now_ms = listed.timestamp_ms("ts") or 0
    found = {}
    recent = []
    for session in listed.records("sessions"):
        key = session.value.get("key")
        if key not in keys:
            continue
        if dialect.runs_in == "list":
            run = listed_run(session, now_ms)
            if run is not None and run.began_s <= within_s:
                found[str(key)] = run
        elif (session.timestamp_ms("updatedAt") or 0) >= now_ms - within_s * 1000:
            recent.append(str(key))
    return found if dialect.runs_in == "list" else _from_histories(client, recent, now_ms, within_s)


def listed_run(session: Answer, now_ms: int) -> LastRun | None:
    """How the last run ended, by an entry of sessions.list; None while one goes on or waits for its turn, as
    the entry then shows the times of the run before, or nothing."""
    status = session.value.get("status")
    began_ms = session.timestamp_ms("startedAt")
    if status not in (*_WELL, *_BADLY) or began_ms is None:
        return None
    error = session.value.get("lastRunError")
    well = status in _WELL and session.value.get("abortedLastRun") is not True
    return LastRun(
        "well" if well else "badly",
        max(0.0, (now_ms - began_ms) / 1000),
        str(error)[:300] if error and not well else None,
    )


def _from_histories(
    client: GatewayClient, keys: list[str], now_ms: int, within_s: float
) -> dict[str, LastRun]:
    found = {}
    calls = [
        Call("chat.history", {"sessionKey": key, "limit": LAST_MESSAGES}) for key in keys[:MOST_HISTORIES]
    ]
    for key, answer in zip(keys, client.call_many(calls) if calls else (), strict=False):
        if isinstance(answer, GatewayError):
            raise answer
        run = _told(client.answer("chat.history", answer), now_ms)
        if run is not None and run.began_s <= within_s:
            found[key] = run
    return found


def _told(history: Answer, now_ms: int) -> LastRun | None:
    """The last run by a session's last messages: it began with the last one of a user, and ended with an
    answer."""
    messages = [message.value for message in history.records("messages")]
    asked = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    if not asked:
        return None
    began_ms = messages[asked[-1]].get("timestamp")
    answers = [message for message in messages[asked[-1] + 1 :] if message.get("role") == "assistant"]
    if not isinstance(began_ms, int | float) or not answers:
        return None
    return LastRun(_how(answers[-1]), max(0.0, (now_ms - began_ms) / 1000), _error(answers[-1]))


def _how(answer: Mapping[str, Any]) -> How:
    if answer.get("errorMessage") or answer.get("stopReason") in ("error", "aborted"):
        return "badly"
    return "running" if answer.get("stopReason") == "toolUse" else "well"


def _error(answer: Mapping[str, Any]) -> str | None:
    error = answer.get("errorMessage")
    return str(error)[:300] if error else None
