"""What the gateway's owner had there before us: agents and a provider that no job of ours may touch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWNERS_AGENTS: Mapping[str, Mapping[str, Any]] = {
    "owners-bot": {"name": "Owner's own", "identity": {"name": "Bot", "emoji": ":owl:"}},
    "owners-shop": {"name": "Shop", "humanDelay": {"mode": "off"}},
}


def owners_config(release: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """``extra`` with the owner's agents and provider, in the release's own words."""
    agents: dict[str, Any] = dict(extra.get("agents", {}))
    if release < "2026.8":
        listed = [{"id": key, **entry} for key, entry in OWNERS_AGENTS.items()]
        agents["list"] = [{"id": "main", "default": True}, *listed]
    else:
        agents |= {"ownership": "explicit", "entries": {"main": {}, **OWNERS_AGENTS}}
    models = dict(extra.get("models", {}))
    owners = {"baseUrl": "http://127.0.0.1:9/v1", "apiKey": "owners-own-key", "models": []}
    models["providers"] = {**models.get("providers", {}), "owners": owners}
    return {**extra, "agents": agents, "models": models}
