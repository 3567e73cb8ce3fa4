"""doctor: what our writes would do to the gateway owner's own agents and secrets. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker.cli.findings import Finding, named
from worker.gateway.dialect import Dialect
from worker.gateway.heartbeats import any_block, beating, relying_on_defaults
from worker.gateway.heartbeats import cure as how_to_beat
from worker.gateway.owner_settings import findings
from worker.gateway.roster import as_spelled, roster_entries
from worker.gateway.roster_reading import OURS
from worker.gateway.variables import REDACTED, strings_of

_VARIABLE = re.compile(r"(?<!\$)\$\{[A-Z_][A-Z0-9_]*\}")
_OWN_TOKEN = "gateway.auth.token"
_VARIABLES_CURE = "update OpenClaw to 2026.2.26 or later first, or keep that file from other eyes"


def check_heartbeats(dialect: Dialect, parsed: Mapping[str, Any]) -> Iterator[Finding]:
    """Agents that beat without a block of their own are silent once any agent has one (gateways.md 8)."""
    entries = roster_entries(dialect, parsed)
    silent = any_block(entries)
    there = relying_on_defaults(dialect, parsed, entries) if silent else beating(dialect, parsed, entries)
    relying = [key for key in there if not OURS.fullmatch(key)]
    if not relying:
        return
    cure = how_to_beat(dialect, as_spelled(dialect, parsed, relying))
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
    """What the owner has switched off that provisioning promises; ``config``: config.get's effective one."""
    for check, sentence in findings(dialect, config):
        yield Finding(check, "warning", sentence)


def check_variables(dialect: Dialect, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Where any config write puts a variable's value into openclaw.json (gateways.md 4): which are named
    there, and which secrets may be. ``config``: the answer of config.get."""
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


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
