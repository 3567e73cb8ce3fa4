"""What the gateway's owner wrote into the config survives every roster write of ours (gateways.md 4)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest

from tests.acceptance.owner import (
    OWNERS_VARIABLES,
    owners_agents,
    owners_config,
    searching,
    written_out,
)
from tests.acceptance.world import World

pytestmark = pytest.mark.last
"""2026.9.6 restarts some time after edits of the file and patches came in each other's way."""

OWN = {"humanDelay": {"mode": "off"}}


@dataclass(frozen=True)
class Writes:
    """openclaw.json after a heartbeat was changed and an agent registered, and after one was removed."""

    changed: str
    removed: str
    kept: str
    """The OpenClaw id of the agent whose heartbeat was changed; its entry has keys of the owner's, too."""


@pytest.fixture(scope="module")
def writes(world: World) -> Iterator[Writes]:
    """As few config patches as can be, because 2026.3.13 takes three a minute and restarts for each."""
    kept, passing = world.fleet.add_agent("Kept"), world.fleet.add_agent("Passing")
    client = world.direct()
    created = client.call("agents.create", {"name": f"mc-{kept}", "workspace": str(world.folder / "kept")})
    client.close()
    _edit(world, created["agentId"])
    world.allow_rewrites()
    world.set_agent(kept, heartbeat_config={"every": "35m"})
    _, provisioned = world.provision(kept, passing, wake=False)
    changed = world.config_path.read_text()
    deleted = world.ended(world.send(passing, "delete_agent"))
    assert deleted["status"] == "succeeded", deleted["error"]
    removed = world.config_path.read_text()
    openclaw_id = provisioned["result"]["openclaw_id"]
    assert [openclaw_id in _roster(json.loads(text)) for text in (changed, removed)] == [True, False]
    yield Writes(changed, removed, created["agentId"])
    # While its entry holds a secret, 2026.2.12 lets nobody be removed who stands in front of it.
    assert world.ended(world.send(kept, "delete_agent"))["status"] == "succeeded"


def _edit(world: World, openclaw_id: str) -> None:
    """The owner edits the file: keys of his own for our agent; where the release has put values in place of
    variables by then, the variables again."""
    config = world.config()
    theirs = owners_config(world.release, {})
    ours = {**OWN, **searching(world.release, apiKey="${OWNERS_KEY}")}
    for key, entry in _roster(config).items():
        entry |= owners_agents(world.release).get(key, {}) | (ours if key == openclaw_id else {})
    config["gateway"]["auth"] |= theirs["gateway"]["auth"]
    config["models"]["providers"] |= theirs["models"]["providers"]
    draft = world.config_path.with_suffix(".owners")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(config, indent=2) + "\n")
    draft.rename(world.config_path)


def _roster(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    agents = config["agents"]
    entries: dict[str, dict[str, Any]] = agents.get("entries") or {e["id"]: e for e in agents["list"]}
    return entries


def _without_id(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "id"}


def _secrets_written_out(entry: Mapping[str, Any]) -> dict[str, Any]:
    whole = deepcopy(dict(entry))
    remote = whole["memorySearch"]["remote"]
    remote["apiKey"] = written_out(remote["apiKey"])
    return whole


def test_the_owners_agents_survive_every_kind_of_roster_write(world: World, writes: Writes) -> None:
    """2026.2.12 hides which secrets are variables and writes their values; of what we send again it keeps
    the other variables, and the escapes that its own agents.delete would undo."""
    authored = owners_agents(world.release)
    changed, removed = (_roster(json.loads(text)) for text in (writes.changed, writes.removed))
    writes_values = world.release == "2026.2.12"
    for key, entry in authored.items():
        assert _without_id(changed[key]) == (_secrets_written_out(entry) if writes_values else entry)
        assert _without_id(removed[key]) == (_secrets_written_out(entry) if writes_values else entry)


def test_an_entry_of_ours_keeps_the_keys_that_its_owner_gave_it(world: World, writes: Writes) -> None:
    authored: dict[str, Any] = {**OWN, **searching(world.release, apiKey="${OWNERS_KEY}")}
    if world.release == "2026.2.12":
        authored = _secrets_written_out(authored)
    entry = _roster(json.loads(writes.changed))[writes.kept]
    assert {key: entry[key] for key in authored} == authored
    assert entry["heartbeat"]["every"] == "35m"


def test_secrets_outside_the_roster_survive_as_the_release_treats_them(world: World, writes: Writes) -> None:
    theirs = owners_config(world.release, {})
    variables = {**OWNERS_VARIABLES, "GATEWAY_TOKEN": world.gateway_token}
    for text in (writes.changed, writes.removed):
        config = json.loads(text)
        providers = {key: config["models"]["providers"][key] for key in theirs["models"]["providers"]}
        found = {"auth": config["gateway"]["auth"], "providers": providers}
        authored = {"auth": theirs["gateway"]["auth"], "providers": theirs["models"]["providers"]}
        if world.release == "2026.2.12":
            assert found == written_out(authored, variables)
        else:
            assert found == authored
            assert config["channels"]["telegram"]["botToken"] == "${OWNERS_KEY}"
            assert OWNERS_VARIABLES["OWNERS_KEY"] not in text
            assert world.gateway_token not in text
