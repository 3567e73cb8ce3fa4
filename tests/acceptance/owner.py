"""What the gateway's owner had there before us, and what a release makes of it (gateways.md 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OWNERS_VARIABLES = {"OWNERS_URL": "http://127.0.0.1:9/owner", "OWNERS_KEY": "owners-hidden-key"}
"""The gateway's environment, as far as its config names it; GATEWAY_TOKEN holds its token."""

_VARIABLE = re.compile(r"(\$?)\$\{(\w+)\}")


def searching(release: str, **remote: Any) -> dict[str, Any]:
    """A key of an agent's entry that we do not know, in the release's own words."""
    block = {"remote": {"baseUrl": "${OWNERS_URL}", **remote}}
    return {"memorySearch": block} if release < "2026.8" else {"memory": {"search": block}}


def owners_agents(release: str) -> dict[str, dict[str, Any]]:
    """Agents by id: of the first the secret is a literal one, of the second a variable."""
    return {
        "owners-bot": {
            "name": "Owner's own",
            "identity": {"name": "Bot", "emoji": ":owl:"},
            "humanDelay": {"mode": "off"},
            **searching(release, apiKey="owners-own-key"),
        },
        "owners-shop": {
            "name": "Shop $${OWNERS_KEY}",
            **searching(release, apiKey="${OWNERS_KEY}", headers={"X-Shop": "at ${OWNERS_URL}"}),
        },
    }


def owners_config(release: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """``extra`` with the owner's agents, providers and token, and a channel where its mere presence does
    not make the gateway write its config at the start (as it does on 2026.2.12)."""
    owners = owners_agents(release)
    agents: dict[str, Any] = dict(extra.get("agents", {}))
    if release < "2026.8":
        agents["list"] = [{"id": "main", "default": True}, *({"id": key, **owners[key]} for key in owners)]
    else:
        agents |= {"ownership": "explicit", "entries": {"main": {}, **owners}}
    models = dict(extra.get("models", {}))
    models["providers"] = {
        **models.get("providers", {}),
        "owners": {"baseUrl": "${OWNERS_URL}", "apiKey": "${OWNERS_KEY}", "models": []},
        "other": {"baseUrl": "http://127.0.0.1:9/v1", "apiKey": "owners-own-key", "models": []},
    }
    config = {**extra, "agents": agents, "models": models}
    config["gateway"] = {"auth": {"mode": "token", "token": "${GATEWAY_TOKEN}"}}
    if release > "2026.2.12":
        config["channels"] = {"telegram": {"enabled": False, "botToken": "${OWNERS_KEY}"}}
    return config


def written_out(value: Any, variables: Mapping[str, str] = OWNERS_VARIABLES) -> Any:
    """``value`` as 2026.2.12 writes it: each ``${VAR}`` as its value, each ``$${VAR}`` as ``${VAR}``."""
    if isinstance(value, dict):
        return {key: written_out(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [written_out(item, variables) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda m: m[0][1:] if m[1] else variables.get(m[2], m[0]), value)
    return value
