"""Checks what our writes would do to the gateway owner's own agents, secrets and files. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker.cli.console import argument, named
from worker.cli.doctor.report import Finding
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import any_block, beating_agents, relying_on_defaults
from worker.gateway.heartbeats import cure as how_to_beat
from worker.gateway.owner_settings import disabling_settings
from worker.gateway.rewrites import COMMENTS_LOST, describe_rewrites, included_comments
from worker.gateway.roster_plan import ids_as_spelled, roster_entries
from worker.gateway.roster_reading import OURS, VISIBILITY_STAYS, LiveRoster
from worker.gateway.variables import REDACTED, strings_of
from worker.roster.rewrite_permission import RewriteReview

_REWRITES = "rewrites"
_VARIABLE = re.compile(r"(?<!\$)\$\{[A-Z_][A-Z0-9_]*\}")
_OWN_TOKEN = "gateway.auth.token"
_VARIABLES_CURE = "update OpenClaw to 2026.2.26 or later first, or keep that file from other eyes"


def check_heartbeats(dialect: Dialect, parsed: Mapping[str, Any]) -> Iterator[Finding]:
    """Find agents without a heartbeat block, which are silent once any agent has one (gateways.md 8)."""
    entries = roster_entries(dialect, parsed)
    silent = any_block(entries)
    there = (
        relying_on_defaults(dialect, parsed, entries) if silent else beating_agents(dialect, parsed, entries)
    )
    relying = [key for key in there if not OURS.fullmatch(key)]
    if not relying:
        return
    cure = how_to_beat(dialect, ids_as_spelled(dialect, parsed, relying))
    if silent:
        says = (
            f"{named(relying)} {'relies' if len(relying) == 1 else 'rely'} on agents.defaults.heartbeat, but"
            f" where any agent has a heartbeat block only those with one run it, so"
            f" {'it is' if len(relying) == 1 else 'they are'} silent: {cure}"
        )
    else:
        says = (
            f"the first agent provisioned here gets this gateway's first heartbeat block, and from then on"
            f" {named(relying)}, which {'beats' if len(relying) == 1 else 'beat'} without one, will stop"
            f" beating: {cure} before that, or set KEEP_DEFAULT_HEARTBEAT=true for the workers"
        )
    yield Finding("heartbeats", "warning", says, relying)


def check_settings(dialect: Dialect, config: Any) -> Iterator[Finding]:
    """Find settings that switch off what provisioning promises. ``config``: config.get's effective one."""
    for check, sentence in disabling_settings(dialect, config):
        yield Finding(check, "warning", sentence)


def check_variables(dialect: Dialect, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Find variables whose values a config write would put into openclaw.json (gateways.md 4), and secrets
    that may be variables. ``config``: the answer of config.get."""
    if not dialect.writes_variables:
        return
    parsed = config.get("parsed")
    found = sorted({name for one in strings_of(parsed) for name in _VARIABLE.findall(one[1])})
    hidden = sorted(path for path, value in strings_of(parsed) if value == REDACTED and path != _OWN_TOKEN)
    if found:
        more = f" (and may name one at {named(hidden)}, which it hides)" if hidden else ""
        says = (
            f"openclaw.json names {named(found)}{more}, and this release writes the values in their place at"
            f" the first config write, its own included: {_VARIABLES_CURE}"
        )
        yield Finding("variables", "warning", says, found)
    elif hidden:
        says = (
            f"this release hides whether {named(hidden)} {'is' if len(hidden) == 1 else 'are'} given as a"
            f" ${{VARIABLE}}, and writes a variable's value in its place at the first config write:"
            f" {_VARIABLES_CURE}"
        )
        yield Finding("variables", "warning", says, hidden)
    else:
        says = (
            "none seen; at any config write this release puts the value of each ${VARIABLE} into"
            f" openclaw.json, and it hides whether {_OWN_TOKEN} is one"
        )
        yield Finding("variables", "ok", says)


def check_rewrites(live: LiveRoster, review: RewriteReview, gateway: str) -> Iterator[Finding]:
    """Find what a write would rewrite, whether it is allowed or not. ``gateway``: the gateway's name."""
    about = [one.key for one in review.rewrites]
    command = f"`provisioner gateway allow-rewrite {argument(gateway)}`"
    if review.refused:
        says = (
            f"the next config write is refused: at any write this OpenClaw release"
            f" {describe_rewrites(review.rewrites, comments=review.comments)}; {command} shows it and"
            " allows it"
        )
        yield Finding(_REWRITES, "warning", says, about)
    elif review.rewrites:
        whose = (
            "which is allowed here" if review.allowed else "but only at its own writes, as ours put it back"
        )
        says = f"at any write this OpenClaw release {describe_rewrites(review.rewrites)}, {whose}"
        yield Finding(_REWRITES, "ok" if review.allowed else "warning", says, about)
    if review.comments:
        yield Finding(_REWRITES, "warning", COMMENTS_LOST[0].lower() + COMMENTS_LOST[1:])
    if live.preserves_includes:
        yield from _owned(live)


def _owned(live: LiveRoster) -> Iterator[Finding]:
    roster = live.dialect.roster
    for include in live.includes:
        if not (include.touches("agents", roster) or include.touches("channels", "defaults")):
            continue
        if include.touches("agents", roster) and not live.writes_into(include):
            says = (
                f"openclaw.json has {include.path} from {include.named}, where this OpenClaw release does not"
                " write: no agent can be brought there. Move the agents back into openclaw.json, or (from"
                " 2026.8 on) into one file with nothing beside its $include"
            )
            yield Finding(_REWRITES, "fault", says, [include.path])
        else:
            says = (
                f"openclaw.json has {include.path} from {include.named}: changes are written into that file"
            )
            yield Finding(_REWRITES, "ok", says, [include.path])
    if (comments := included_comments(live)) is not None:
        yield Finding(_REWRITES, "warning", comments)
    if not live.writes_visibility:
        yield Finding(_REWRITES, "warning", VISIBILITY_STAYS[0].lower() + VISIBILITY_STAYS[1:])
