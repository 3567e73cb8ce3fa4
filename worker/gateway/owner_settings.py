"""Finds settings of a gateway's owner that disable what provisioning promises. Pure.

The provisioner never changes them, since they are the owner's decision: doctor reports them, and a job says
what it left undone and what would allow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from worker.gateway.dialect import Dialect
from worker.gateway.documents import mapping

ONE_SESSION = (
    "session.scope of the gateway's openclaw.json is global, so that every agent's main session is its"
    " owner's one session: no session is reset, labelled or written to from here. Set it to per-sender to"
    " have agents woken."
)
CRON_OFF = (
    "cron.enabled of the gateway's openclaw.json is false, and this release runs heartbeats by its"
    " automations: no agent beats until it is true."
)


@dataclass(frozen=True)
class Denial:
    """Why writing to a session is forbidden: the rule's place in openclaw.json, and what to change."""

    place: str
    cure: str

    def __str__(self) -> str:
        return f"{self.place} of the gateway's openclaw.json denies it: {self.cure}"


def has_one_session(config: Any) -> bool:
    """Whether all agents share their owner's one main session. ``config``: config.get's effective config."""
    return mapping(mapping(config).get("session")).get("scope") == "global"


def heartbeats_switched_off(dialect: Dialect, config: Any) -> bool:
    """Whether the owner has switched off the automations that run heartbeats on this release."""
    return dialect.has_scratch and mapping(mapping(config).get("cron")).get("enabled") is False


def denial_of(config: Any, session_key: str) -> Denial | None:
    """The rule that forbids sending to an agent's main session; None if no known rule does.

    Decided as gateways do: the first matching rule that denies, else the default if no rule allows it.
    """
    policy = mapping(mapping(mapping(config).get("session")).get("sendPolicy"))
    rules = policy.get("rules")
    allowed = False
    for number, rule in enumerate(rules if isinstance(rules, list) else []):
        if not isinstance(rule, Mapping) or not _matches(mapping(rule.get("match")), session_key):
            continue
        if _word(rule.get("action")) == "deny":
            place = f"session.sendPolicy.rules[{number}]"
            return Denial(place, "remove that rule, or narrow its match so that it leaves our agents out.")
        allowed = True
    if allowed or _word(policy.get("default")) != "deny":
        return None
    kind, hyphen, _ = session_key.partition("-")
    prefix = kind + hyphen  # matches all of our agents of that kind, or an id without a hyphen itself
    return Denial(
        "session.sendPolicy.default",
        f'add {{"action": "allow", "match": {{"keyPrefix": "{prefix}"}}}} to session.sendPolicy.rules.',
    )


def disabling_settings(dialect: Dialect, config: Any) -> Iterator[tuple[str, str]]:
    """Yield (check, sentence) for each setting that disables something, for doctor."""
    if has_one_session(config):
        yield "sessions", ONE_SESSION
    keys = [f"agent:{kind}-x:main" for kind in ("mc", "lead", "mc-gateway")]
    for reason in dict.fromkeys(str(denial) for key in keys if (denial := denial_of(config, key))):
        yield "wakes", f"agents will not be woken: {reason}"
    if heartbeats_switched_off(dialect, config):
        yield "heartbeats", CRON_OFF


def _matches(match: Mapping[str, Any], session_key: str) -> bool:
    """Whether a rule applies to an agent's main session, which belongs to no channel and has no chat type."""
    if _word(match.get("channel")) or _word(match.get("chatType")):
        return False
    key = session_key.lower()
    within = key.split(":", 2)[2]
    prefix, raw = _word(match.get("keyPrefix")), _word(match.get("rawKeyPrefix"))
    if raw and not key.startswith(raw):
        return False
    return not prefix or key.startswith(prefix) or within.startswith(prefix)


def _word(value: Any) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
