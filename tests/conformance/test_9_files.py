"""A config in several files, and one that is invalid while the gateway runs on (gateways.md 12)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.conftest import Target
from tests.conformance.peer import Device, Peer, meet_when_up
from tests.conformance.steps import eventually, patch
from tests.owners_files import save

RELOADED_S = 10.0
"""How long a real gateway may take to have its plugins again, on a busy machine."""
REFUSED = "flatten $include-owned config at agents"


@pytest.fixture(scope="module", autouse=True)
def from_this_machine(target: Target) -> None:
    """test_8 leaves a real gateway that believes proxies, and up to 2026.3 it then takes everybody for a
    client from elsewhere."""
    config = target.stored_config()
    if not target.expected.roster_is_map and config["gateway"].pop("trustedProxies", None) is not None:
        target.process.stop()
        save(target.state_dir, "openclaw.json", config)
        target.process.start()


@pytest.fixture
def original(target: Target) -> Iterator[dict[str, Any]]:
    """The config with two agents of the owner's; what was there before stands there again afterwards."""
    path = target.state_dir / "openclaw.json"
    before = path.read_text(encoding="utf-8")
    entries: dict[str, Any] = {"main": {}, "owners-bot": {"name": "Bot"}}
    as_list = [{"id": key, **entry} for key, entry in entries.items()]
    is_map = target.expected.roster_is_map
    agents = {"ownership": "explicit", "entries": entries} if is_map else {"list": as_list}
    config = {**json.loads(before), "agents": agents}
    saved(target, config, with_agents(config))
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        for _ in range(10):  # one that has just started does not see what is saved before it watches
            if loaded(target, peer, set(entries)):
                break
            save(target.state_dir, "openclaw.json", config)
    yield config
    ours = (
        config["agents"],
        {"$include": "./agents.json5"},
    )  # what was before may hold secrets, shown as marks
    saved(target, before, lambda answer: valid(answer) and answer["parsed"].get("agents") not in ours)
    (target.state_dir / "agents.json5").unlink(missing_ok=True)


def listed(peer: Peer) -> set[str]:
    """The agents that the gateway runs. For a moment after a change of its config, while it reloads its
    plugins, 2026.9.6 answers UNAVAILABLE."""
    until = time.monotonic() + RELOADED_S
    while not (answer := peer.call("agents.list")).ok and time.monotonic() < until:
        assert answer.error["code"] == "UNAVAILABLE", answer.error
        time.sleep(0.05)
    assert answer.ok, answer.error
    return {agent["id"] for agent in answer.payload["agents"]}


def loaded(target: Target, peer: Peer, wanted: set[str]) -> bool:
    """Whether the gateway runs these agents within some seconds."""
    until = time.monotonic() + target.timeout_s / 10
    while not wanted <= listed(peer):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


Answer = dict[str, Any]


def valid(answer: Answer) -> bool:
    return answer["valid"] is True


def invalid(answer: Answer) -> bool:
    return answer["valid"] is False


def with_agents(config: dict[str, Any]) -> Callable[[Answer], bool]:
    """Whether the answer is valid, and says of agents what ``config`` says."""
    return lambda answer: valid(answer) and answer["parsed"].get("agents") == config.get("agents")


def shown(target: Target, fits: Callable[[Answer], bool]) -> Answer:
    """config.get's answer, once it is as expected."""

    def look() -> Answer | None:
        with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
            answer = peer.ask("config.get")
            return answer if fits(answer) else None

    found = eventually(look, target.timeout_s)
    assert found is not None
    return found


def saved(target: Target, content: Any, fits: Callable[[Answer], bool]) -> Answer:
    """Save openclaw.json and return config.get's answer to it, once it fits. 2026.9.6 answers from what its
    watcher saw last, and that sees nothing more of a file which is replaced twice within some milliseconds:
    so each save must be seen before the next."""
    save(target.state_dir, "openclaw.json", content)
    return shown(target, fits)


def ids(target: Target, config: dict[str, Any]) -> set[str]:
    agents = config["agents"]
    return set(agents["entries"]) if target.expected.roster_is_map else {one["id"] for one in agents["list"]}


def moved(target: Target, config: dict[str, Any]) -> dict[str, Any]:
    """The owner moves his agents into a file of their own."""
    save(target.state_dir, "agents.json5", config["agents"])
    return {**config, "agents": {"$include": "./agents.json5"}}


def test_the_root_file_is_shown_alone_and_the_config_whole(target: Target, original: dict[str, Any]) -> None:
    config = moved(target, original)
    answer = saved(target, config, with_agents(config))
    assert ids(target, answer["config"]) == ids(target, original)
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        assert eventually(lambda: ids(target, original) <= listed(peer), target.timeout_s)


@pytest.mark.parametrize(
    "fault", ["{ this is no config", {"bogus": 1}, {"agents": {"$include": "./no.json5"}}]
)
def test_an_invalid_file_says_nothing_of_who_is_there(
    target: Target, original: dict[str, Any], fault: Any
) -> None:
    """2026.2.12 reads it at each call, and then knows of nobody; the others run on with what they had."""
    before = shown(target, valid)
    answer = saved(target, fault if isinstance(fault, str) else {**original, **fault}, invalid)
    if not target.expected.writes_variables:
        assert not answer["parsed"]
        assert answer["config"] == {}
    assert answer["issues"]
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        assert patch(peer, {}).message.startswith("invalid config")

        def as_expected() -> bool:  # the oldest release keeps what it read for 0.2 s
            return (ids(target, before["config"]) <= listed(peer)) is not target.expected.writes_variables

        assert eventually(as_expected, target.timeout_s)


def test_defaults_name_only_agents_that_are_there(target: Target, original: dict[str, Any]) -> None:
    """A patch with any other is refused; a deletion drops each block that names the agent, whole."""
    if not target.expected.roster_is_map:
        pytest.skip("the defaults of a list's releases may name anybody")
    with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
        for name in ("beats", "rules"):
            created = {"name": name, "workspace": str(target.state_dir / f"ws-{name}")}
            assert peer.call("agents.create", created).ok
        for key in ("heartbeat", "systemAgent"):
            gone = {"agents": {"defaults": {key: {"agentId": "gone"}}}}
            path = f"agents.defaults.{key}.agentId"
            assert f'{path}: Unknown agent id "gone" (not in agents.entries).' in patch(peer, gone).message
        named = {"heartbeat": {"agentId": "beats", "every": "45m"}, "systemAgent": {"agentId": "rules"}}
        assert patch(peer, {"agents": {"defaults": named}}).ok
        assert peer.call("agents.delete", {"agentId": "beats"}).ok
        assert target.stored_config()["agents"]["defaults"] == {"systemAgent": {"agentId": "rules"}}
        assert peer.call("agents.delete", {"agentId": "rules"}).ok
        assert not target.stored_config()["agents"].get("defaults")


def test_a_write_flattens_an_include_or_goes_through_it(target: Target, original: dict[str, Any]) -> None:
    """Last, because some releases restart after it, and none starts on the files of the other tests."""
    config = moved(target, original)
    saved(target, config, with_agents(config))
    for _ in range(2):
        with meet_when_up(target.url, target.token, within_s=target.timeout_s, device=Device()) as peer:
            if not _takes_patches_back(target, peer):
                _write(target, peer, original)
                return
        target.process.stop()
        target.process.start()
    raise AssertionError("it takes patches back even after a restart")


def _takes_patches_back(target: Target, peer: Peer) -> bool:
    """Whether 2026.9.6 is in the state in which it rolls back every patch until it is restarted, into which
    files that are saved by hand may bring it (gateways.md 12)."""
    if not target.expected.roster_is_map:
        return False
    answer = patch(peer, {"agents": {"entries": {"owners-bot": {"name": "Bot again"}}}})
    return bool(answer.error.get("details", {}).get("rollbackStatus") == "restored")


def _write(target: Target, peer: Peer, original: dict[str, Any]) -> None:
    channels = {"channels": {"defaults": {"groupPolicy": "open"}}}
    entry = {"name": "Included", "workspace": str(target.state_dir / "ws-included")}
    if target.expected.roster_is_map:
        agents = {"agents": {"entries": {"included": entry}}}
        answer = patch(peer, {**agents, **channels})
        assert (answer.ok, answer.error["code"]) == (False, "UNAVAILABLE")
        assert REFUSED in answer.message
        assert patch(peer, agents).ok
        assert target.stored_config()["agents"] == {"$include": "./agents.json5"}
        written = json.loads((target.state_dir / "agents.json5").read_text(encoding="utf-8"))
        assert set(written["entries"]) == {*ids(target, original), "included"}
        refused = peer.call("agents.delete", {"agentId": "included"})
        assert not refused.ok
        return
    wanted = [*original["agents"]["list"], {"id": "included", **entry}]
    if not target.expected.writes_includes:
        assert REFUSED in patch(peer, {"agents": {"list": wanted}}).message
        return
    assert patch(peer, {"agents": {"list": wanted}}).ok
    stored = target.stored_config()
    assert [one["id"] for one in stored["agents"]["list"]] == [one["id"] for one in wanted]
